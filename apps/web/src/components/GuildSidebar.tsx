import { use } from "react";
import { NavLink } from "react-router";
import { useSelect } from "../context/AuthContext";
import { LayoutContext } from "../context/LayoutContext";
import type { Guild } from "../sdk";
import { isGuildUnread } from "../store";
import { initials, tone } from "./Avatar";
import { Icon } from "./Icon";

/** The user's guilds, and how to come to more. */
export function GuildSidebar({ guildId }: { guildId: string | undefined }) {
  const guilds = useSelect((state) => state.guilds);
  const { createGuild } = use(LayoutContext);
  return (
    <nav className="guilds" aria-label="Guilds">
      <ul>
        {guilds?.map((guild) => (
          <li key={guild.guildId}>
            <GuildLink guild={guild} current={guild.guildId === guildId} />
          </li>
        ))}
      </ul>
      <div className="guild-actions">
        <button type="button" className="guild-tile action" title="Create a guild" onClick={createGuild}>
          <Icon name="plus" />
          <span className="visually-hidden">Create a guild</span>
        </button>
        <NavLink className="guild-tile action" title="Find guilds" to="/discover">
          <Icon name="compass" />
          <span className="visually-hidden">Find guilds</span>
        </NavLink>
      </div>
    </nav>
  );
}

function GuildLink({ guild, current }: { guild: Guild; current: boolean }) {
  const unread = useSelect((state) => isGuildUnread(state, guild.guildId)) && !current;
  return (
    <NavLink
      className={`guild-tile tone-${tone(guild.guildId)}${unread ? " unread" : ""}`}
      to={`/guilds/${guild.guildId}`}
      title={guild.name}
    >
      <span aria-hidden="true">{initials(guild.name)}</span>
      <span className="visually-hidden">
        <bdi>{guild.name}</bdi>
        {unread && ", unread messages"}
      </span>
    </NavLink>
  );
}
