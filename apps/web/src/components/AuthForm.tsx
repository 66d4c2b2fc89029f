import { type FormEvent, type ReactNode, useEffect } from "react";
import { useAction } from "../hooks/useAction";
import { Problem } from "./Field";

/** Where to go after log-in: where RequireAuth turned the user away, or the start. */
export function comesFrom(state: unknown): string {
  const from = state && typeof state === "object" && "from" in state ? state.from : null;
  return typeof from === "string" && from.startsWith("/") ? from : "/";
}

/** The frame of the log-in and the register page. */
export function AuthForm({
  title,
  lead,
  notice,
  action,
  onSubmit,
  footer,
  children,
}: {
  title: string;
  lead: string;
  notice: string | null;
  action: string;
  onSubmit: (field: (name: string) => string) => Promise<void>;
  footer: ReactNode;
  children: ReactNode;
}) {
  const { run, busy, error } = useAction(onSubmit);
  useEffect(() => {
    document.title = `${title} · Jiscord`;
  }, [title]);
  const submit = (event: FormEvent<HTMLFormElement>) => {
    event.preventDefault();
    const data = new FormData(event.currentTarget);
    void run((name) => String(data.get(name) ?? ""));
  };
  return (
    <main className="auth">
      <form className="card" onSubmit={submit} aria-busy={busy}>
        <img className="logo" src="/icon.svg" alt="" width="48" height="48" />
        <h1>{title}</h1>
        <p className="lead">{lead}</p>
        {notice && (
          <p className="notice" role="status">
            {notice}
          </p>
        )}
        {children}
        <Problem text={error} />
        <button type="submit" className="primary wide" disabled={busy}>
          {busy ? "One moment…" : action}
        </button>
        <p className="footer">{footer}</p>
      </form>
    </main>
  );
}
