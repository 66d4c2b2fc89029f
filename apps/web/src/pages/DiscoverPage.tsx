import { use, useCallback, useEffect, useState } from "react";
import { Link, useNavigate } from "react-router";
import { initials, tone } from "../components/Avatar";
import { EmptyState } from "../components/EmptyState";
import { Problem } from "../components/Field";
import { Pane } from "../components/Pane";
import { useSelect, useStore } from "../context/AuthContext";
import { LayoutContext } from "../context/LayoutContext";
import { useAction } from "../hooks/useAction";
import type { Guild } from "../sdk";

/** Guilds that anybody may join. */
export function DiscoverPage() {
  const { sdk } = useStore();
  const { createGuild } = use(LayoutContext);
  const [guilds, setGuilds] = useState<Guild[] | null>(null);
  const [next, setNext] = useState<string>();
  const more = useAction(
    useCallback(
      async (cursor?: string) => {
        const page = await sdk.discover(cursor);
        setGuilds((before) => (cursor && before ? [...before, ...page.items] : page.items));
        setNext(page.next);
      },
      [sdk],
    ),
  );
  // biome-ignore lint/correctness/useExhaustiveDependencies: the first page is read once
  useEffect(() => {
    void more.run();
  }, []);
  return (
    <Pane title="Find guilds">
      <div className="scroll">
        <div className="discover">
          {guilds?.length === 0 && (
            <EmptyState title="No guild here yet">
              <p>Be the first: create one, and others will find it here.</p>
              <button type="button" className="primary" onClick={createGuild}>
                Create a guild
              </button>
            </EmptyState>
          )}
          {guilds && guilds.length > 0 && (
            <ul className="guild-cards" aria-label="Guilds to join">
              {guilds.map((guild) => (
                <li key={guild.guildId}>
                  <GuildCard guild={guild} />
                </li>
              ))}
            </ul>
          )}
          <Problem text={more.error} />
          {more.busy && (
            <p className="quiet" role="status">
              Loading…
            </p>
          )}
          {more.error && !guilds && (
            <button type="button" onClick={() => void more.run()}>
              Try again
            </button>
          )}
          {next && !more.busy && (
            <button type="button" onClick={() => void more.run(next)}>
              Show more
            </button>
          )}
        </div>
      </div>
    </Pane>
  );
}

function GuildCard({ guild }: { guild: Guild }) {
  const { sdk } = useStore();
  const navigate = useNavigate();
  const member = useSelect((state) => state.guilds?.some(({ guildId }) => guildId === guild.guildId));
  const { run, busy, error } = useAction(async () => {
    await sdk.join(guild.guildId);
    await navigate(`/guilds/${guild.guildId}`);
  });
  return (
    <div className="guild-card">
      <span className={`avatar square tone-${tone(guild.guildId)}`} aria-hidden="true">
        {initials(guild.name)}
      </span>
      <div className="grow">
        <h2>
          <bdi>{guild.name}</bdi>
        </h2>
        <Problem text={error} />
      </div>
      {member ? (
        <Link className="button" to={`/guilds/${guild.guildId}`} aria-label={`Open ${guild.name}`}>
          Open
        </Link>
      ) : (
        <button
          type="button"
          className="primary"
          aria-label={`Join ${guild.name}`}
          disabled={busy}
          onClick={() => void run()}
        >
          Join
        </button>
      )}
    </div>
  );
}
