//! The server: everything joined on one port.

use std::{io::Write, sync::Arc};

use anyhow::Context;
use jiscord_api::{
    accounts::Accounts,
    chat::Chat,
    http::{self, auth},
    passwords::{Cost, Passwords},
};
use jiscord_bin_kit::{
    Config, Edge,
    config::StoreKind,
    edge,
    service::{self, GOODBYE, LAST_WRITES},
};
use jiscord_gateway::Gateway;
use tokio::{task::JoinHandle, time::timeout};
use tokio_util::sync::CancellationToken;

use crate::{
    kept::{Joined, Kept},
    page,
};

/// The all-in-one's port if none is set.
const PORT: u16 = 3000;

/// A server that answers.
pub(crate) struct Server {
    serving: JoinHandle<()>,
    gateway: Gateway,
    kept: Kept,
    stop: CancellationToken,
}

impl Server {
    /// Opens the store and the port, and joins the parts. `None`: it was told to stop before it had them.
    pub(crate) async fn start(config: &Config, stop: CancellationToken) -> anyhow::Result<Option<Self>> {
        let edge = Edge::bind(config.address(PORT), config.trusted_proxies.clone(), edge::Limits::of(config)).await?;
        let url = format!("http://{}", service::reachable(edge.address()?));
        let (front, routes) = service::opening();
        let serving = tokio::spawn(edge.serve(front, stop.clone()));
        let joined = match config.store {
            StoreKind::Sqlite => Joined::in_folder(config).await?,
            StoreKind::Scylla => match Joined::on_services(config, &stop).await? {
                Some(joined) => joined,
                None => {
                    serving.await?;
                    return Ok(None);
                }
            },
        };
        let Joined { kept, store, bus, claims, jwt_secret, service_token } = joined;

        let tokens = Arc::new(service::tokens(&jwt_secret)?);
        let settings = service::http_settings(config, &service_token)?;
        let limits = settings.limits.clone();
        let passwords = Passwords::new(Cost::default(), &limits);
        let accounts = Accounts::new(store.users.clone(), passwords, tokens.clone(), &limits);
        let chat =
            Chat::new(store, tokens, bus.clone()).with_default_visibility(config.default_guild_visibility).with_limits(limits);
        let accounts = Arc::new(accounts.with_logins(Arc::new(chat.clone())));
        let gateway = Gateway::with_claims(Arc::new(chat.clone()), bus, claims, service::gateway_settings(config));

        let ready = {
            let kept = kept.clone();
            move || {
                let kept = kept.clone();
                async move { kept.ready().await }
            }
        };
        let router = page::router(&url)
            .merge(service::health(stop.clone(), ready))
            .nest("/api/auth", auth::router(accounts, settings.clone()))
            .nest("/api/data", http::data::router(chat, settings))
            .route_service("/ws", gateway.service());
        let _ = routes.set(router);

        // The one line on standard output that programs read; everything else is log.
        let _ = writeln!(std::io::stdout(), "Jiscord is at {url}\nIts data lies in {}", kept.place(config)?);
        Ok(Some(Self { serving, gateway, kept, stop }))
    }

    /// Serves until the stop, then ends within 25 s: no new sockets, clients told to come back, writes under way finished.
    pub(crate) async fn serve(self) -> anyhow::Result<()> {
        let goodbye = async {
            self.stop.cancelled().await;
            self.gateway.shutdown(GOODBYE).await;
        };
        let (served, ()) = tokio::join!(self.serving, goodbye);
        served?;
        timeout(LAST_WRITES, self.kept.close()).await.context("writes under way did not end in time")?;
        tracing::info!("stopped");
        Ok(())
    }
}
