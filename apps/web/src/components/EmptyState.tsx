import type { ReactNode } from "react";

/** Says what to do where there is nothing yet. */
export function EmptyState({ title, children }: { title: string; children: ReactNode }) {
  return (
    <div className="empty">
      <h2>
        <bdi>{title}</bdi>
      </h2>
      {children}
    </div>
  );
}
