import { useEffect } from "react";
import { useSelect, useStore } from "../context/AuthContext";
import type { Connection, Pending, Timeline } from "../store";

interface Gateway {
  connection: Connection;
  /** The channel's messages; undefined until it is opened. */
  timeline: Timeline | undefined;
  /** What the user sent and the timeline does not have yet. */
  pending: readonly Pending[];
  send(content: string): void;
  /** Tells the others that the user writes. */
  type(): void;
}

const NONE: readonly Pending[] = [];

/** The gateway's side of a channel: keeps it current while it is shown. Handshake, heartbeat and reconnects are the SDK's. */
export function useGateway(channelId: string): Gateway {
  const store = useStore();
  const connection = useSelect((state) => state.connection);
  const timeline = useSelect((state) => state.timelines[channelId]);
  const pending = useSelect((state) => state.pending[channelId]) ?? NONE;
  useEffect(() => store.open(channelId), [store, channelId]);
  return {
    connection,
    timeline,
    pending,
    send: (content) => store.send(channelId, content),
    type: () => store.type(channelId),
  };
}
