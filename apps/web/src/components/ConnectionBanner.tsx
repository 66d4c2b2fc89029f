import { useSelect, useStore } from "../context/AuthContext";
import { useNow } from "../hooks/useNow";
import { useOnline } from "../hooks/useOnline";

/** Says how it stands with the connection while there is none. */
export function ConnectionBanner() {
  const store = useStore();
  const connection = useSelect((state) => state.connection);
  const notice = useSelect((state) => state.notice);
  const online = useOnline();
  return (
    <div className="banners" role="status">
      {connection.state === "ended" && (
        <p className="banner warn">
          {connection.evicted ? "This session was taken over elsewhere." : "The session ended on this page."}{" "}
          <button type="button" className="link" onClick={() => void store.comeBack()}>
            Come back here
          </button>
        </p>
      )}
      {!online && <p className="banner warn">You are offline. What you write is sent when you are back.</p>}
      {online && connection.state === "connecting" && (
        <p className="banner late">{connection.again ? "Reconnecting…" : "Connecting…"}</p>
      )}
      {online && connection.state === "waiting" && (
        <p className="banner warn">
          The connection is lost. <Countdown until={connection.retryAt ?? 0} />
        </p>
      )}
      {notice && (
        <p className="banner warn">
          {notice}{" "}
          <button type="button" className="link" onClick={() => store.dismissNotice()}>
            Dismiss
          </button>
        </p>
      )}
    </div>
  );
}

/** Not for screen readers: a status that changes every second would never fall silent. */
function Countdown({ until }: { until: number }) {
  const seconds = Math.ceil((until - useNow("second")) / 1_000);
  return <span aria-hidden="true">{seconds > 0 ? `Trying again in ${seconds} s.` : "Trying again…"}</span>;
}
