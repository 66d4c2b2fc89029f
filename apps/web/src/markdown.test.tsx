import { cleanup, render } from "@testing-library/react";
import { afterEach, describe, expect, it } from "vitest";
import { Markdown, safeUrl } from "./markdown";
import { attacks } from "./testing/attacks";

afterEach(cleanup);

function html(text: string): string {
  return render(<Markdown text={text} />).container.querySelector(".markdown")?.innerHTML ?? "";
}

const REL = 'target="_blank" rel="noopener noreferrer nofollow"';

describe("what messages can have", () => {
  it.each([
    ["**bold** and __bold__", "<p><strong>bold</strong> and <strong>bold</strong></p>"],
    ["*it* and _it_", "<p><em>it</em> and <em>it</em></p>"],
    ["~~gone~~", "<p><del>gone</del></p>"],
    ["`a < b`", "<p><code>a &lt; b</code></p>"],
    ["```rust\nlet a = 1;\n  b\n```", '<pre tabindex="0"><code>let a = 1;\n  b</code></pre>'],
    ["> said", "<blockquote><p>said</p></blockquote>"],
    ["one\ntwo", "<p>one<br>two</p>"],
    ["one\n\ntwo", "<p>one</p><p>two</p>"],
    ["[text](https://a.example/x)", `<p><a href="https://a.example/x" ${REL} title="https://a.example/x">text</a></p>`],
    [
      "see https://a.example.",
      `<p>see <a href="https://a.example/" ${REL} title="https://a.example/">https://a.example</a>.</p>`,
    ],
    ["[mail](mailto:a@b.example)", `<p><a href="mailto:a@b.example" ${REL} title="mailto:a@b.example">mail</a></p>`],
    ["\\*not\\*", "<p>*not*</p>"],
  ])("%j", (text, want) => {
    expect(html(text)).toBe(want);
  });
});

describe("what stays the text it is", () => {
  it.each([
    ["# not a heading", "<p># not a heading</p>"],
    ["- no list", "<p>- no list</p>"],
    ["1. no list", "<p>1. no list</p>"],
    ["---", "<p>---</p>"],
    ["a\n===", "<p>a<br>===</p>"],
    ["    no code", "<p>no code</p>"],
    ["<b>no</b>", "<p>&lt;b&gt;no&lt;/b&gt;</p>"],
    ["&lt;b&gt; &amp;", "<p>&amp;lt;b&amp;gt; &amp;amp;</p>"],
    ["~one~", "<p>~one~</p>"],
  ])("%j", (text, want) => {
    expect(html(text)).toBe(want);
  });

  it("an image is a link at most", () => {
    expect(html("![x](https://a.example/x.png)")).not.toContain("<img");
  });
});

describe("attacks", () => {
  it("are many", () => {
    expect(new Set(attacks).size).toBeGreaterThanOrEqual(200);
  });

  it.each(attacks)("%j", (text) => {
    const { container } = render(<Markdown text={text} />);
    for (const element of container.querySelectorAll(".markdown *")) {
      const { localName } = element;
      expect(["p", "br", "strong", "em", "del", "code", "pre", "blockquote", "a"]).toContain(localName);
      const allowed = localName === "a" ? ["href", "target", "rel", "title"] : localName === "pre" ? ["tabindex"] : [];
      for (const name of element.getAttributeNames()) expect(allowed).toContain(name);
      if (element instanceof HTMLAnchorElement) {
        expect(["http:", "https:", "mailto:"]).toContain(element.protocol);
        expect(element.rel).toBe("noopener noreferrer nofollow");
        expect(element.querySelector("a")).toBeNull();
      }
    }
  });
});

describe("safeUrl", () => {
  it.each([
    ["https://a.example/?q=1#x", "https://a.example/?q=1#x"],
    ["HTTP://A.example", "http://a.example/"],
    ["mailto:a@b.example", "mailto:a@b.example"],
    ["javascript:alert(1)", null],
    ["java\tscript:alert(1)", null],
    ["data:text/html,x", null],
    ["/relative", null],
    ["https://bank.example@evil.example/", null],
    ["", null],
  ])("%j", (text, want) => {
    expect(safeUrl(text)).toBe(want);
  });
});

describe("texts made to be slow or deep", () => {
  it.each([
    ["quotes", "> ".repeat(2_000)],
    ["stars", "*a ".repeat(1_333)],
    ["open brackets", "[".repeat(4_000)],
    ["links", "[a](".repeat(1_000)],
    ["ticks", "`a``b```".repeat(500)],
    ["lines", "a\n".repeat(2_000)],
    ["emphasis", `${"*".repeat(1_990)}a${"*".repeat(1_990)}`],
  ])("%s", (_, text) => {
    expect(() => html(text)).not.toThrow();
  });

  it("are shown as they are where they have too many marks", () => {
    expect(html("*a* ".repeat(501))).toBe(`<p>${"*a* ".repeat(501)}</p>`);
    expect(html("*a* ".repeat(500)).match(/<em>/g)).toHaveLength(500);
  });
});
