import { useAuth } from "../context/AuthContext";
import { useAction } from "../hooks/useAction";
import { Avatar } from "./Avatar";
import { Icon } from "./Icon";

/** Who is logged in, and how to log out. */
export function UserPanel() {
  const { user, logout } = useAuth();
  const { run, busy, error } = useAction(logout);
  if (!user) return null;
  return (
    <div className="user">
      <Avatar id={user.userId} name={user.username} />
      <div className="user-name">
        <bdi>{user.username}</bdi>
        <small>{error ?? user.email}</small>
      </div>
      <button
        type="button"
        className="icon-button"
        aria-label="Log out"
        title="Log out"
        disabled={busy}
        onClick={() => void run()}
      >
        <Icon name="logout" />
      </button>
    </div>
  );
}
