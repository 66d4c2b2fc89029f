/**
 * The little Markdown that messages have: bold, italic, strike, code, quotes, links and line breaks. Text becomes React nodes and
 * never HTML, and whatever else Markdown knows stays the text that was typed.
 */

import type { Nodes, Parents, Root } from "mdast";
import { fromMarkdown } from "mdast-util-from-markdown";
import { gfmAutolinkLiteralFromMarkdown } from "mdast-util-gfm-autolink-literal";
import { gfmStrikethroughFromMarkdown } from "mdast-util-gfm-strikethrough";
import { gfmAutolinkLiteral } from "micromark-extension-gfm-autolink-literal";
import { gfmStrikethrough } from "micromark-extension-gfm-strikethrough";
import { Fragment, memo, type ReactNode } from "react";

const OFF = {
  disable: {
    null: [
      "characterReference",
      "codeIndented",
      "definition",
      "headingAtx",
      "htmlFlow",
      "htmlText",
      "labelStartImage",
      "list",
      "setextUnderline",
      "thematicBreak",
    ],
  },
};

const PARSE = {
  extensions: [gfmStrikethrough({ singleTilde: false }), gfmAutolinkLiteral(), OFF],
  mdastExtensions: [gfmStrikethroughFromMarkdown(), gfmAutolinkLiteralFromMarkdown()],
};

/** Deeper quotes and emphasis than this are shown as the text they are. */
const DEPTH = 12;

/** A text with more marks than this was made to be slow to parse, and is shown as it is. */
const MARKS = 1_000;

/** Parses a message. */
export function parse(text: string): Root {
  const marks = text.match(/[*_~`[\]<>!\n]/g)?.length ?? 0;
  if (marks > MARKS)
    return { type: "root", children: [{ type: "paragraph", children: [{ type: "text", value: text }] }] };
  return fromMarkdown(text, PARSE);
}

/** What was parsed lately: scrolling takes messages out of the document and back. */
const parsed = new Map<string, Root>();
const KEPT = 500;

function parseOnce(text: string): Root {
  let root = parsed.get(text);
  if (!root) {
    root = parse(text);
    const [oldest] = parsed.keys();
    if (parsed.size >= KEPT && oldest !== undefined) parsed.delete(oldest);
    parsed.set(text, root);
  }
  return root;
}

/** The address a link may lead to, or null. */
export function safeUrl(text: string): string | null {
  if (!URL.canParse(text)) return null;
  const url = new URL(text);
  const web = url.protocol === "http:" || url.protocol === "https:";
  // An address with a user name in it looks like it leads elsewhere.
  if ((web && !url.username && !url.password) || url.protocol === "mailto:") return url.href;
  return null;
}

/** A line break is one where it was typed. */
function lines(text: string): ReactNode {
  return text.split("\n").map((line, index) => (
    // biome-ignore lint/suspicious/noArrayIndexKey: lines of one text never change places
    <Fragment key={index}>
      {index > 0 && <br />}
      {line}
    </Fragment>
  ));
}

/** The text of a node without its marks. */
function plain(node: Nodes): string {
  if ("value" in node) return node.value;
  return "children" in node ? node.children.map(plain).join("") : "";
}

function children(node: Parents, depth: number, inLink: boolean): ReactNode {
  if (depth > DEPTH) return lines(plain(node));
  return node.children.map((child, index) => (
    // biome-ignore lint/suspicious/noArrayIndexKey: a message's parts never change places
    <Fragment key={index}>{render(child, depth, inLink)}</Fragment>
  ));
}

function render(node: Nodes, depth: number, inLink: boolean): ReactNode {
  const inside = (parent: Parents) => children(parent, depth + 1, inLink);
  switch (node.type) {
    case "text":
      return lines(node.value);
    case "break":
      return <br />;
    case "paragraph":
      return <p>{inside(node)}</p>;
    case "blockquote":
      return <blockquote>{inside(node)}</blockquote>;
    case "strong":
      return <strong>{inside(node)}</strong>;
    case "emphasis":
      return <em>{inside(node)}</em>;
    case "delete":
      return <del>{inside(node)}</del>;
    case "inlineCode":
      return <code>{node.value}</code>;
    case "code":
      return (
        // biome-ignore lint/a11y/noNoninteractiveTabindex: what scrolls must be reachable by keyboard
        <pre tabIndex={0}>
          <code>{node.value}</code>
        </pre>
      );
    case "link": {
      const href = safeUrl(node.url);
      if (!href || inLink) return inside(node);
      return (
        <a href={href} target="_blank" rel="noopener noreferrer nofollow" title={href}>
          {children(node, depth + 1, true)}
        </a>
      );
    }
    default:
      return lines(plain(node));
  }
}

/** A message's text. */
export const Markdown = memo(function Markdown({ text }: { text: string }) {
  return <div className="markdown">{children(parseOnce(text), 0, false)}</div>;
});
