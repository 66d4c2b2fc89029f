import { use, useEffect } from "react";
import { NavLink } from "react-router";
import { useSelect, useStore } from "../context/AuthContext";
import { LayoutContext } from "../context/LayoutContext";
import type { Channel } from "../sdk";
import { isUnread } from "../store";
import { Icon } from "./Icon";

/** The channels of the chosen guild. */
export function ChannelList({
  guildId,
  channelId,
  onLeave,
  onChoose,
}: {
  guildId: string | undefined;
  channelId: string | undefined;
  onLeave: (guildId: string) => void;
  onChoose: () => void;
}) {
  const store = useStore();
  const { createChannel } = use(LayoutContext);
  const none = useSelect((state) => state.guilds?.length === 0);
  const guild = useSelect((state) => state.guilds?.find((guild) => guild.guildId === guildId));
  const channels = useSelect((state) => (guildId ? state.channels[guildId] : undefined));
  const ready = useSelect((state) => state.connection.state === "ready");
  useEffect(() => {
    if (guild && !channels && ready) store.loadChannels(guild.guildId);
  }, [store, guild, channels, ready]);

  if (!guild) {
    return (
      <div className="channels">
        <header>
          <h2>Jiscord</h2>
        </header>
        <p className="quiet">{none ? "Your guilds’ channels will be here." : "Choose a guild on the left."}</p>
      </div>
    );
  }
  return (
    <div className="channels">
      <header>
        <h2>
          <bdi>{guild.name}</bdi>
        </h2>
        <button
          type="button"
          className="icon-button"
          aria-label="Leave this guild"
          title="Leave this guild"
          onClick={() => onLeave(guild.guildId)}
        >
          <Icon name="leave" />
        </button>
      </header>
      <nav aria-label="Channels">
        <div className="section">
          <h3>Channels</h3>
          <button
            type="button"
            className="icon-button small"
            aria-label="Create a channel"
            title="Create a channel"
            onClick={() => createChannel(guild.guildId)}
          >
            <Icon name="plus" />
          </button>
        </div>
        {channels ? (
          <ul>
            {channels.map((channel) => (
              <li key={channel.channelId}>
                <ChannelLink channel={channel} current={channel.channelId === channelId} onChoose={onChoose} />
              </li>
            ))}
          </ul>
        ) : (
          <p className="quiet" role="status">
            Loading…
          </p>
        )}
        {channels?.length === 0 && <p className="quiet">None yet. Create the first one.</p>}
      </nav>
    </div>
  );
}

function ChannelLink({ channel, current, onChoose }: { channel: Channel; current: boolean; onChoose: () => void }) {
  const unread = useSelect((state) => isUnread(state, channel.channelId)) && !current;
  return (
    <NavLink
      className={unread ? "channel unread" : "channel"}
      to={`/guilds/${channel.guildId}/${channel.channelId}`}
      onClick={onChoose}
    >
      <span className="hash" aria-hidden="true">
        #
      </span>
      <bdi>{channel.name}</bdi>
      {unread && <span className="visually-hidden">, unread messages</span>}
    </NavLink>
  );
}
