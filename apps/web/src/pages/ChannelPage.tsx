import { useEffect } from "react";
import { Navigate, useParams } from "react-router";
import { MessageInput } from "../components/MessageInput";
import { MessageList } from "../components/MessageList";
import { Pane } from "../components/Pane";
import { TypingIndicator } from "../components/TypingIndicator";
import { useSelect, useStore } from "../context/AuthContext";
import { useGateway } from "../hooks/useGateway";
import type { Channel } from "../sdk";
import { NotFoundPage } from "./NotFoundPage";

/** A channel and its messages. */
export function ChannelPage() {
  const { guildId = "", channelId = "" } = useParams();
  const guilds = useSelect((state) => state.guilds);
  const channels = useSelect((state) => state.channels[guildId]);
  const channel = channels?.find((channel) => channel.channelId === channelId);
  if (channel) return <OpenChannel key={channelId} channel={channel} />;
  if (guilds && !guilds.some((guild) => guild.guildId === guildId)) return <NotFoundPage />;
  if (channels) return <Navigate to={`/guilds/${guildId}`} replace />;
  return <Pane title="">{null}</Pane>;
}

function OpenChannel({ channel }: { channel: Channel }) {
  const { guildId, channelId, name } = channel;
  const { lastChannel } = useStore();
  const { timeline, pending, send, type } = useGateway(channelId);
  useEffect(() => {
    lastChannel.set(guildId, channelId);
  }, [lastChannel, guildId, channelId]);
  return (
    <Pane title={name} mark="#">
      <MessageList channel={channel} timeline={timeline} pending={pending} />
      <TypingIndicator channelId={channelId} />
      <MessageInput channelId={channelId} name={name} onSend={send} onType={type} />
    </Pane>
  );
}
