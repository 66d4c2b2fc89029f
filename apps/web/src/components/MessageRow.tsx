import { memo, type ReactNode } from "react";
import { useSelect, useStore } from "../context/AuthContext";
import { useName } from "../hooks/useName";
import { useNow } from "../hooks/useNow";
import { Markdown } from "../markdown";
import { type Message, sentence } from "../sdk";
import type { Pending } from "../store";
import { dayOf, fullTime, timeOfDay, when } from "../time";
import { Avatar } from "./Avatar";
import { Icon } from "./Icon";

/** What stands before a message, besides the one before it. */
export interface Place {
  /** It begins a day. */
  day: boolean;
  /** It begins what was not read when the channel was opened. */
  unread: boolean;
  /** It follows one of the same author closely: name and avatar are not said again. */
  grouped: boolean;
}

function Separators({ at, day, unread }: { at: Date } & Pick<Place, "day" | "unread">) {
  return (
    <>
      {day && <Day at={at} />}
      {unread && (
        <div className="separator new">
          <span>New messages</span>
        </div>
      )}
    </>
  );
}

function Day({ at }: { at: Date }) {
  const now = useNow("minute");
  return (
    <div className="separator">
      <time dateTime={at.toISOString().slice(0, 10)}>{dayOf(at, now)}</time>
    </div>
  );
}

function When({ at }: { at: Date }) {
  const now = useNow("minute");
  return (
    <time dateTime={at.toISOString()} title={fullTime(at)}>
      {when(at, now)}
    </time>
  );
}

function Body({
  userId,
  name,
  at,
  grouped,
  state,
  children,
}: {
  userId: string;
  name: string | undefined;
  at: Date;
  grouped: boolean;
  state?: string;
  children: ReactNode;
}) {
  return (
    <article className={["message", grouped && "grouped", state].filter(Boolean).join(" ")}>
      {grouped ? (
        <time className="aside" dateTime={at.toISOString()} title={fullTime(at)}>
          {timeOfDay(at)}
        </time>
      ) : (
        <Avatar id={userId} name={name} />
      )}
      <div className="message-body">
        <h2 className={grouped ? "visually-hidden" : "byline"}>
          <bdi>{name ?? "…"}</bdi> {!grouped && <When at={at} />}
        </h2>
        {children}
      </div>
    </article>
  );
}

/** A message, with what separates it from the one before. */
export const MessageRow = memo(function MessageRow({
  message,
  answered,
  day,
  unread,
  grouped,
}: Place & { message: Message; answered: Message | undefined }) {
  const name = useName(message.authorId, message.author?.username);
  const at = new Date(message.createdAt);
  return (
    <>
      <Separators at={at} day={day} unread={unread} />
      <Body userId={message.authorId} name={name} at={at} grouped={grouped}>
        {message.replyTo && <Answered message={answered} />}
        <Markdown text={message.content} />
      </Body>
    </>
  );
});

/** The message that is answered, if it is loaded. */
function Answered({ message }: { message: Message | undefined }) {
  return (
    <p className="answered">
      {message ? (
        <>
          <bdi className="strong">{message.author?.username}</bdi> <bdi>{message.content.slice(0, 120)}</bdi>
        </>
      ) : (
        "An earlier message"
      )}
    </p>
  );
}

/** A message on its way, or one that failed. */
export const PendingRow = memo(function PendingRow({
  channelId,
  pending,
  day,
  grouped,
}: Place & { channelId: string; pending: Pending }) {
  const store = useStore();
  const user = useSelect((state) => state.user);
  const at = new Date(pending.createdAt);
  if (!user) return null;
  return (
    <>
      <Separators at={at} day={day} unread={false} />
      <Body userId={user.userId} name={user.username} at={at} grouped={grouped} state={pending.state}>
        <Markdown text={pending.content} />
        {pending.state === "sending" && <span className="visually-hidden">Sending</span>}
        {pending.state === "failed" && (
          <div className="failure" role="alert">
            <Icon name="alert" />
            <span>Not sent. {pending.error && sentence(pending.error)}</span>
            <button type="button" className="link" onClick={() => store.resend(channelId, pending.nonce)}>
              Try again
            </button>
            <button type="button" className="link" onClick={() => store.discard(channelId, pending.nonce)}>
              Remove
            </button>
          </div>
        )}
      </Body>
    </>
  );
});
