import { useCallback, useEffect, useMemo, useRef, useState } from "react";
import { flushSync } from "react-dom";
import { Outlet, useLocation, useNavigate, useParams } from "react-router";
import { ChannelList } from "../components/ChannelList";
import { CreateChannelDialog, CreateGuildDialog, LeaveGuildDialog } from "../components/dialogs";
import { GuildSidebar } from "../components/GuildSidebar";
import { UserPanel } from "../components/UserPanel";
import { useSelect } from "../context/AuthContext";
import { LayoutContext } from "../context/LayoutContext";
import { useChannelKeys } from "../hooks/useChannelKeys";

type Open = { kind: "guild" } | { kind: "channel"; guildId: string } | { kind: "leave"; guildId: string } | null;

/** The chat: guilds, channels, and beside them what is chosen. */
export function ChannelsPage() {
  const { guildId, channelId } = useParams();
  const { pathname } = useLocation();
  const navigate = useNavigate();
  const [dialog, setDialog] = useState<Open>(null);
  const [drawerOpen, setDrawerOpen] = useState(false);
  useChannelKeys(guildId, channelId);

  // Who left a guild, or was removed from it, sees it no more.
  const member = useSelect((state) => state.guilds?.some((guild) => guild.guildId === guildId));
  const shownGuild = useRef<string>(undefined);
  useEffect(() => {
    if (member) shownGuild.current = guildId;
    else if (guildId && shownGuild.current === guildId) void navigate("/", { replace: true });
  }, [member, guildId, navigate]);

  // Choosing a channel closes the drawer; choosing a guild leaves it open, to choose a channel.
  const shown = channelId ?? (pathname === "/discover" ? pathname : "");
  useEffect(() => {
    if (shown) setDrawerOpen(false);
  }, [shown]);

  const closeDrawer = useCallback(() => {
    // The button is inert while the drawer is open.
    flushSync(() => setDrawerOpen(false));
    document.getElementById("open-drawer")?.focus();
  }, []);

  useEffect(() => {
    if (!drawerOpen) return;
    document.querySelector<HTMLElement>("#sidebar [aria-current], #sidebar a, #sidebar button")?.focus();
    const close = (event: KeyboardEvent) => {
      if (event.key === "Escape" && !event.defaultPrevented && !document.querySelector("dialog[open]")) closeDrawer();
    };
    const widened = matchMedia("(min-width: 48rem)");
    const forget = () => setDrawerOpen(false);
    document.addEventListener("keydown", close);
    widened.addEventListener("change", forget);
    return () => {
      document.removeEventListener("keydown", close);
      widened.removeEventListener("change", forget);
    };
  }, [drawerOpen, closeDrawer]);

  const layout = useMemo(
    () => ({
      drawerOpen,
      openDrawer: () => setDrawerOpen(true),
      createGuild: () => setDialog({ kind: "guild" }),
      createChannel: (guildId: string) => setDialog({ kind: "channel", guildId }),
    }),
    [drawerOpen],
  );

  const close = () => setDialog(null);
  return (
    <LayoutContext value={layout}>
      <div className={drawerOpen ? "layout drawer-open" : "layout"}>
        <aside className="sidebar" id="sidebar" aria-label="Guilds and channels">
          <GuildSidebar guildId={guildId} />
          <div className="column">
            <ChannelList
              guildId={guildId}
              channelId={channelId}
              onLeave={(guildId) => setDialog({ kind: "leave", guildId })}
              onChoose={() => setDrawerOpen(false)}
            />
            <UserPanel />
          </div>
        </aside>
        {drawerOpen && (
          <button type="button" className="scrim" aria-label="Close guilds and channels" onClick={closeDrawer} />
        )}
        <Outlet />
      </div>
      {dialog?.kind === "guild" && (
        <CreateGuildDialog
          onClose={close}
          onDone={(guildId) => {
            close();
            void navigate(`/guilds/${guildId}`);
          }}
        />
      )}
      {dialog?.kind === "channel" && (
        <CreateChannelDialog
          guildId={dialog.guildId}
          onClose={close}
          onDone={(channelId) => {
            close();
            void navigate(`/guilds/${dialog.guildId}/${channelId}`);
          }}
        />
      )}
      {dialog?.kind === "leave" && <LeaveGuildDialog guildId={dialog.guildId} onClose={close} onDone={close} />}
    </LayoutContext>
  );
}
