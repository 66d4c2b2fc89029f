import { createContext } from "react";

interface Layout {
  /** On a narrow screen: the guilds and channels lie over the page. */
  drawerOpen: boolean;
  openDrawer(): void;
  /** Opens the dialog that makes a guild, or a channel in one. */
  createGuild(): void;
  createChannel(guildId: string): void;
}

const nothing = () => {};

export const LayoutContext = createContext<Layout>({
  drawerOpen: false,
  openDrawer: nothing,
  createGuild: nothing,
  createChannel: nothing,
});
