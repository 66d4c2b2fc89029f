import { use } from "react";
import { Link, Navigate } from "react-router";
import { EmptyState } from "../components/EmptyState";
import { Pane } from "../components/Pane";
import { useSelect } from "../context/AuthContext";
import { LayoutContext } from "../context/LayoutContext";

/** The start: the guild that was shown last, or what to do without one. */
export function HomePage() {
  const { createGuild } = use(LayoutContext);
  const guilds = useSelect((state) => state.guilds);
  const name = useSelect((state) => state.user?.username ?? "");
  const first = guilds?.[0];
  if (first) return <Navigate to={`/guilds/${first.guildId}`} replace />;
  return (
    <Pane title="Home">
      {guilds && (
        <EmptyState title={`Hello, ${name}`}>
          <p>You are in no guild yet. Guilds hold the channels in which people talk.</p>
          <div className="buttons">
            <Link className="button primary" to="/discover">
              Find guilds
            </Link>
            <button type="button" onClick={createGuild}>
              Create a guild
            </button>
          </div>
        </EmptyState>
      )}
    </Pane>
  );
}
