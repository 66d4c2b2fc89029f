import { StrictMode } from "react";
import { createRoot } from "react-dom/client";
import { BrowserRouter } from "react-router";
import { App } from "./App";
import { AuthProvider } from "./context/AuthContext";
import { load } from "./sdk/load";
import { Store } from "./store";
import "./styles/theme.css";
import "./styles/controls.css";
import "./styles/layout.css";
import "./styles/chat.css";

const root = document.getElementById("root");
if (!root) throw new Error("index.html has no #root");

const store = new Store(localStorage);
createRoot(root).render(
  <StrictMode>
    <BrowserRouter>
      <AuthProvider store={store}>
        <App />
      </AuthProvider>
    </BrowserRouter>
  </StrictMode>,
);

load(location.origin, store.apply).then(
  (sdk) => store.start(sdk),
  () => store.broken(),
);
