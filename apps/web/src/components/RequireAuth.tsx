import { useEffect, useRef } from "react";
import { Navigate, Outlet, useLocation } from "react-router";
import { useAuth, useSelect } from "../context/AuthContext";

/** Shows what is below to who is logged in, and sends all others to /login, which brings them back. */
export function RequireAuth() {
  const { user } = useAuth();
  const notice = useSelect((state) => state.notice);
  const { pathname } = useLocation();
  const seen = useRef(false);
  useEffect(() => {
    if (user) seen.current = true;
  }, [user]);
  if (user) return <Outlet />;
  // Who logged out is done here: the next one to log in may be somebody else.
  const left = seen.current && !notice;
  return <Navigate to="/login" replace state={left ? null : { from: pathname }} />;
}
