import { createContext, type ReactNode, use, useEffect, useState, useSyncExternalStore } from "react";
import type { User } from "../sdk";
import { type Phase, type State, Store } from "../store";

/** Who uses the page. The token itself stays inside the SDK. */
interface Auth {
  phase: Phase;
  user: User | null;
  login(email: string, password: string): Promise<void>;
  register(username: string, email: string, password: string): Promise<void>;
  logout(): Promise<void>;
  /** Asks a server that was not reachable at the start again, now. */
  retry(): void;
}

const StoreContext = createContext<Store | null>(null);

/** The page's store. */
export function useStore(): Store {
  const store = use(StoreContext);
  if (!store) throw new Error("useStore needs AuthProvider");
  return store;
}

/** A part of the state, read anew when it changes. `select` returns something that is in the state, not something new. */
export function useSelect<T>(select: (state: State) => T): T {
  const store = useStore();
  return useSyncExternalStore(store.subscribe, () => select(store.state));
}

export function useAuth(): Auth {
  const store = useStore();
  const phase = useSelect((state) => state.phase);
  const user = useSelect((state) => state.user);
  return {
    phase,
    user,
    login: (email, password) => store.login(email, password),
    register: (username, email, password) => store.register(username, email, password),
    logout: () => store.logout(),
    retry: () => store.retry(),
  };
}

/** Gives the store to all below. */
export function AuthProvider({ store, children }: { store?: Store; children: ReactNode }) {
  const [made] = useState(() => store ?? new Store(localStorage));
  useEffect(() => {
    window.addEventListener("storage", made.storageChanged);
    return () => window.removeEventListener("storage", made.storageChanged);
  }, [made]);
  return <StoreContext value={made}>{children}</StoreContext>;
}
