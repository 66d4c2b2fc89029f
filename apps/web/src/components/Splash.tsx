import { useAuth } from "../context/AuthContext";

/** Before it is known who uses the page. */
export function Splash() {
  const { phase, retry } = useAuth();
  if (phase === "broken") {
    return (
      <main className="splash" role="alert">
        <h1>Jiscord could not start</h1>
        <p>A part of the page did not load, or this browser has no WebAssembly.</p>
        <button type="button" className="primary" onClick={() => location.reload()}>
          Load again
        </button>
      </main>
    );
  }
  if (phase === "unreachable") {
    return (
      <main className="splash">
        <h1>The server cannot be reached</h1>
        <p role="status">This page tries again by itself.</p>
        <button type="button" className="primary" onClick={retry}>
          Try now
        </button>
      </main>
    );
  }
  return (
    <main className="splash starting" aria-busy="true">
      <h1 className="visually-hidden">Jiscord</h1>
      <span className="spinner" aria-hidden="true" />
      <p role="status">Loading…</p>
    </main>
  );
}
