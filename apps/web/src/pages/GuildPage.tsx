import { use } from "react";
import { Navigate, useParams } from "react-router";
import { EmptyState } from "../components/EmptyState";
import { Pane } from "../components/Pane";
import { useSelect, useStore } from "../context/AuthContext";
import { LayoutContext } from "../context/LayoutContext";
import { NotFoundPage } from "./NotFoundPage";

/** A guild without a chosen channel: the one that was shown last, the first one, or how to make one. */
export function GuildPage() {
  const { guildId = "" } = useParams();
  const { lastChannel } = useStore();
  const { createChannel } = use(LayoutContext);
  const guilds = useSelect((state) => state.guilds);
  const channels = useSelect((state) => state.channels[guildId]);
  const guild = guilds?.find((guild) => guild.guildId === guildId);
  const last = lastChannel.get(guildId);
  const shown = channels?.find((channel) => channel.channelId === last) ?? channels?.[0];
  if (guilds && !guild) return <NotFoundPage />;
  if (shown) return <Navigate to={`/guilds/${guildId}/${shown.channelId}`} replace />;
  return (
    <Pane title={guild?.name ?? ""}>
      {channels && (
        <EmptyState title="No channel yet">
          <p>Messages live in channels. Make the first one, such as “general”.</p>
          <button type="button" className="primary" onClick={() => createChannel(guildId)}>
            Create a channel
          </button>
        </EmptyState>
      )}
    </Pane>
  );
}
