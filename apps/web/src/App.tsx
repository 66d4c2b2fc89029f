import { Route, Routes } from "react-router";
import { RequireAuth } from "./components/RequireAuth";
import { Splash } from "./components/Splash";
import { useAuth } from "./context/AuthContext";
import { ChannelPage } from "./pages/ChannelPage";
import { ChannelsPage } from "./pages/ChannelsPage";
import { DiscoverPage } from "./pages/DiscoverPage";
import { GuildPage } from "./pages/GuildPage";
import { HomePage } from "./pages/HomePage";
import { LoginPage } from "./pages/LoginPage";
import { NotFoundPage } from "./pages/NotFoundPage";
import { RegisterPage } from "./pages/RegisterPage";

export function App() {
  const { phase } = useAuth();
  if (phase !== "signedIn" && phase !== "signedOut") return <Splash />;
  return (
    <Routes>
      <Route path="/login" element={<LoginPage />} />
      <Route path="/register" element={<RegisterPage />} />
      <Route element={<RequireAuth />}>
        <Route element={<ChannelsPage />}>
          <Route index element={<HomePage />} />
          <Route path="/discover" element={<DiscoverPage />} />
          <Route path="/guilds/:guildId" element={<GuildPage />} />
          <Route path="/guilds/:guildId/:channelId" element={<ChannelPage />} />
          <Route path="*" element={<NotFoundPage />} />
        </Route>
      </Route>
    </Routes>
  );
}
