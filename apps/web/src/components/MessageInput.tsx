import { type FormEvent, type KeyboardEvent, useEffect, useLayoutEffect, useRef, useState } from "react";
import { useStore } from "../context/AuthContext";
import { Icon } from "./Icon";

/** The most characters that the server takes. */
const MAX = 4_000;

/** Where messages are written. Enter sends, Shift and Enter break the line. */
export function MessageInput({
  channelId,
  name,
  onSend,
  onType,
}: {
  channelId: string;
  name: string;
  onSend: (content: string) => void;
  onType: () => void;
}) {
  const { drafts } = useStore();
  const [text, setText] = useState(() => drafts.get(channelId) ?? "");
  const area = useRef<HTMLTextAreaElement>(null);
  const length = [...text.trim()].length;
  const left = MAX - length;

  // A finger wants to see the channel before a keyboard covers it.
  useEffect(() => {
    if (!matchMedia("(pointer: coarse)").matches) area.current?.focus();
  }, []);

  // biome-ignore lint/correctness/useExhaustiveDependencies: the height follows the text
  useLayoutEffect(() => {
    const element = area.current;
    if (!element) return;
    element.style.height = "auto";
    element.style.height = `${element.scrollHeight}px`;
  }, [text]);

  const change = (text: string) => {
    setText(text);
    if (text) drafts.set(channelId, text);
    else drafts.delete(channelId);
  };

  const send = () => {
    if (length === 0 || left < 0) return;
    onSend(text.trim());
    change("");
  };

  const keyDown = (event: KeyboardEvent) => {
    // Enter also ends the choice of a character in an input method.
    if (event.key !== "Enter" || event.shiftKey || event.nativeEvent.isComposing) return;
    event.preventDefault();
    send();
  };

  const submit = (event: FormEvent) => {
    event.preventDefault();
    send();
    area.current?.focus();
  };

  return (
    <form className="composer" onSubmit={submit}>
      <div className="composer-box">
        <textarea
          ref={area}
          rows={1}
          value={text}
          placeholder={`Message #${name}`}
          aria-label={`Message #${name}`}
          aria-describedby="composer-left"
          aria-invalid={left < 0}
          enterKeyHint="send"
          onKeyDown={keyDown}
          onChange={(event) => {
            change(event.target.value);
            if (event.target.value.trim()) onType();
          }}
        />
        <span id="composer-left" className={left < 0 ? "left over" : "left"} role="status">
          {left <= 200 && (left < 0 ? `${-left} too many` : `${left} left`)}
        </span>
        <button
          type="submit"
          className="icon-button send"
          aria-label="Send"
          title="Send"
          disabled={length === 0 || left < 0}
        >
          <Icon name="send" />
        </button>
      </div>
    </form>
  );
}
