import { useEffect } from "react";
import { useNavigate } from "react-router";
import { useSelect } from "../context/AuthContext";

/** Alt and the arrow keys go to the channel above and below. */
export function useChannelKeys(guildId: string | undefined, channelId: string | undefined): void {
  const navigate = useNavigate();
  const channels = useSelect((state) => (guildId ? state.channels[guildId] : undefined));
  useEffect(() => {
    if (!guildId || !channels?.length) return;
    const step = (event: KeyboardEvent) => {
      if (!event.altKey || event.ctrlKey || event.metaKey || event.shiftKey) return;
      const by = event.key === "ArrowDown" ? 1 : event.key === "ArrowUp" ? -1 : 0;
      if (by === 0 || document.querySelector("dialog[open]")) return;
      event.preventDefault();
      const at = channels.findIndex((channel) => channel.channelId === channelId);
      const next = channels[(at + by + channels.length) % channels.length];
      if (next) void navigate(`/guilds/${guildId}/${next.channelId}`);
    };
    document.addEventListener("keydown", step);
    return () => document.removeEventListener("keydown", step);
  }, [navigate, channels, guildId, channelId]);
}
