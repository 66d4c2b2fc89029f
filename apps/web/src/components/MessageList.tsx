import { useVirtualizer } from "@tanstack/react-virtual";
import { useCallback, useEffect, useLayoutEffect, useMemo, useRef, useState } from "react";
import { useSelect, useStore } from "../context/AuthContext";
import { useVisible } from "../hooks/useVisible";
import type { Channel, Message } from "../sdk";
import { isNewer, type Pending, type Timeline } from "../store";
import { sameDay } from "../time";
import { EmptyState } from "./EmptyState";
import { Icon } from "./Icon";
import { MessageRow, PendingRow, type Place } from "./MessageRow";

/** Messages of one author that follow each other within this time stand together. */
const GROUP_MS = 5 * 60_000;
/** As many messages before the first loaded one, older ones are asked for. */
const AHEAD = 15;
/** Room above the first message: for what says that older ones are loading, or where the channel begins. */
const HEAD_LOADING = 56;
const HEAD_BEGIN = 84;
/** This close to the end counts as at the end. */
const NEAR_END = 48;

interface Row {
  key: string;
  authorId: string;
  createdAt: string;
  message?: Message;
  pending?: Pending;
}

/** A channel's messages. Only those near the window are in the document. */
export function MessageList({
  channel,
  timeline,
  pending,
}: {
  channel: Channel;
  timeline: Timeline | undefined;
  pending: readonly Pending[];
}) {
  const { channelId } = channel;
  const store = useStore();
  const userId = useSelect((state) => state.user?.userId ?? "");
  const messages = timeline?.messages;
  const hasOlder = timeline?.hasOlder ?? false;

  const rows = useMemo(() => {
    const rows: Row[] = (messages ?? []).map((message) => {
      const { messageId, authorId, createdAt, nonce } = message;
      // A message of our own keeps the key it had on its way.
      const key = nonce && authorId === userId ? nonce : messageId;
      return { key, authorId, createdAt, message };
    });
    for (const one of pending) {
      rows.push({ key: one.nonce, authorId: userId, createdAt: one.createdAt, pending: one });
    }
    return rows;
  }, [messages, pending, userId]);

  const loaded = timeline !== undefined && (timeline.state === "loaded" || rows.length > 0);

  // What was read before the channel was opened: unread messages begin after it.
  const [readBefore] = useState(() => store.state.read[channelId]);
  const firstUnread = useMemo(() => {
    if (!readBefore || !messages) return undefined;
    return messages.find(({ messageId, authorId }) => authorId !== userId && isNewer(messageId, readBefore))?.messageId;
  }, [messages, readBefore, userId]);

  const scroller = useRef<HTMLElement>(null);
  const virtualizer = useVirtualizer<HTMLElement, HTMLElement>({
    count: rows.length,
    getScrollElement: () => scroller.current,
    getItemKey: useCallback((index: number) => rows[index]?.key ?? index, [rows]),
    estimateSize: useCallback((index: number) => guess(rows[index]), [rows]),
    overscan: 8,
    // Past the end, so that the newest messages are the first to be there.
    initialOffset: 1e9,
    anchorTo: "end",
    followOnAppend: true,
    scrollEndThreshold: NEAR_END,
    paddingStart: hasOlder ? HEAD_LOADING : HEAD_BEGIN,
    paddingEnd: 20,
    directDomUpdates: true,
  });
  const items = virtualizer.getVirtualItems();

  // The newest messages are shown first.
  const [placed, setPlaced] = useState(false);
  useLayoutEffect(() => {
    if (loaded && !placed) {
      virtualizer.scrollToEnd();
      setPlaced(true);
    }
  }, [loaded, placed, virtualizer]);

  // Our own message is always shown.
  const sent = pending.at(-1)?.nonce;
  useLayoutEffect(() => {
    if (sent) virtualizer.scrollToEnd();
  }, [sent, virtualizer]);

  const first = items[0]?.index;
  const older = timeline?.older;
  useEffect(() => {
    if (placed && hasOlder && older === "idle" && first !== undefined && first < AHEAD) {
      void store.loadOlder(channelId);
    }
  }, [placed, hasOlder, older, first, store, channelId]);

  const [atEnd, setAtEnd] = useState(true);
  const watchEnd = () => {
    const element = scroller.current;
    if (element) setAtEnd(element.scrollHeight - element.scrollTop - element.clientHeight <= NEAR_END);
  };

  const visible = useVisible();
  const newest = messages?.at(-1);
  const newestId = newest?.messageId;
  useEffect(() => {
    if (atEnd && visible && newestId) store.markRead(channelId);
  }, [atEnd, visible, newestId, store, channelId]);

  // What came since the end was left.
  const [leftAt, setLeftAt] = useState<string>();
  useEffect(() => {
    if (atEnd) setLeftAt(newestId);
  }, [atEnd, newestId]);
  const missed = !atEnd && newestId !== leftAt;

  const jump = useCallback(() => virtualizer.scrollToEnd(), [virtualizer]);
  useEffect(() => {
    const toEnd = (event: KeyboardEvent) => {
      if (event.key === "Escape" && !document.querySelector("dialog[open], .drawer-open")) jump();
    };
    document.addEventListener("keydown", toEnd);
    return () => document.removeEventListener("keydown", toEnd);
  }, [jump]);

  const byId = useMemo(() => {
    const answered = new Set(messages?.map(({ replyTo }) => replyTo).filter(Boolean));
    return new Map(messages?.filter(({ messageId }) => answered.has(messageId)).map((m) => [m.messageId, m]));
  }, [messages]);

  if (!loaded) {
    return (
      <div className="scroll messages-wait">
        {timeline?.state === "failed" ? (
          <EmptyState title="The messages could not be loaded">
            <button type="button" className="primary" onClick={() => store.reload(channelId)}>
              Try again
            </button>
          </EmptyState>
        ) : (
          <p className="quiet" role="status">
            Loading messages…
          </p>
        )}
      </div>
    );
  }

  return (
    <div className="messages">
      <section
        ref={scroller}
        className="scroll"
        // biome-ignore lint/a11y/noNoninteractiveTabindex: what scrolls must be reachable by keyboard
        tabIndex={0}
        aria-label={`Messages in ${channel.name}`}
        onScroll={watchEnd}
      >
        <div ref={virtualizer.containerRef} className="rows">
          <div className={hasOlder ? "head loading" : "head"}>
            {!hasOlder && <Beginning channel={channel} empty={rows.length === 0} />}
            {hasOlder && older === "loading" && <p className="quiet">Loading older messages…</p>}
            {hasOlder && older === "failed" && (
              <p className="quiet">
                Older messages could not be loaded.{" "}
                <button type="button" className="link" onClick={() => void store.loadOlder(channelId)}>
                  Try again
                </button>
              </p>
            )}
          </div>
          {items.map(({ index, key }) => {
            const row = rows[index];
            if (!row) return null;
            const place = placeOf(row, rows[index - 1], firstUnread);
            return (
              <div key={key} data-index={index} ref={virtualizer.measureElement} className="row">
                {row.message && (
                  <MessageRow message={row.message} answered={byId.get(row.message.replyTo ?? "")} {...place} />
                )}
                {row.pending && <PendingRow channelId={channelId} pending={row.pending} {...place} />}
              </div>
            );
          })}
        </div>
      </section>
      {!atEnd && (
        <button type="button" className={missed ? "jump missed" : "jump"} onClick={jump}>
          {missed ? "New messages" : "Jump to newest"}
          <Icon name="down" />
        </button>
      )}
      <Announcer newest={newest} userId={userId} />
    </div>
  );
}

/** The height of a row before it is measured: near enough that the scroll bar tells the truth. */
function guess(row: Row | undefined): number {
  const text = row?.message?.content ?? row?.pending?.content ?? "";
  return 36 + 22 * Math.floor(text.length / 90);
}

function placeOf(row: Row, before: Row | undefined, firstUnread: string | undefined): Place {
  const at = new Date(row.createdAt);
  const beforeAt = before && new Date(before.createdAt);
  const day = !beforeAt || !sameDay(beforeAt, at);
  const unread = firstUnread !== undefined && row.message?.messageId === firstUnread;
  const close = beforeAt !== undefined && at.getTime() - beforeAt.getTime() < GROUP_MS;
  const grouped = !day && !unread && close && before?.authorId === row.authorId && !row.message?.replyTo;
  return { day, unread, grouped };
}

function Beginning({ channel, empty }: { channel: Channel; empty: boolean }) {
  return (
    <div className="beginning">
      <h2>
        Welcome to #<bdi>{channel.name}</bdi>
      </h2>
      <p>{empty ? "Nobody has said anything yet. Write the first message." : "This is where the channel begins."}</p>
    </div>
  );
}

/** Tells screen readers what others write while the channel is shown. */
function Announcer({ newest, userId }: { newest: Message | undefined; userId: string }) {
  const [text, setText] = useState("");
  const last = useRef(newest?.messageId);
  useEffect(() => {
    if (!newest || newest.messageId === last.current) return;
    last.current = newest.messageId;
    if (newest.authorId !== userId) setText(`${newest.author?.username ?? "Somebody"}: ${newest.content}`);
  }, [newest, userId]);
  return (
    <div className="visually-hidden" aria-live="polite">
      {text}
    </div>
  );
}
