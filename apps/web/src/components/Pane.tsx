import { type ReactNode, use, useEffect } from "react";
import { LayoutContext } from "../context/LayoutContext";
import { ConnectionBanner } from "./ConnectionBanner";
import { Icon } from "./Icon";

/** The main column: a bar with its title, then what it is about. */
export function Pane({ title, mark, children }: { title: string; mark?: string; children: ReactNode }) {
  const { drawerOpen, openDrawer } = use(LayoutContext);
  useEffect(() => {
    document.title = `${mark ?? ""}${title} · Jiscord`;
  }, [mark, title]);
  return (
    <main className="pane" inert={drawerOpen}>
      <header className="pane-bar">
        <button
          type="button"
          id="open-drawer"
          className="icon-button only-narrow"
          aria-label="Guilds and channels"
          aria-expanded={drawerOpen}
          onClick={openDrawer}
        >
          <Icon name="menu" />
        </button>
        <h1>
          {mark && (
            <span className="hash" aria-hidden="true">
              {mark}
            </span>
          )}
          <bdi>{title}</bdi>
        </h1>
      </header>
      <ConnectionBanner />
      {children}
    </main>
  );
}
