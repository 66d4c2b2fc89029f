//! The server: everything joined on one port.

use std::{io::Write, sync::Arc, time::Duration};

use anyhow::Context;
use axum::{Router, middleware::map_response};
use jiscord_api::{
    accounts::Accounts,
    chat::Chat,
    http::{self, auth},
    passwords::{Cost, Passwords},
};
use jiscord_bin_kit::{
    Config, Edge, edge,
    service::{self, GOODBYE, LAST_WRITES},
};
use jiscord_core::{Code, Fault};
use jiscord_gateway::{Gateway, LocalBus};
use jiscord_store::{Store, sqlite::SqliteStore};
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;

use crate::{data::Data, page};

/// The all-in-one's port if none is set.
const PORT: u16 = 3000;

/// A server that listens, but does not answer yet.
pub(crate) struct Server {
    edge: Edge,
    router: Router,
    gateway: Gateway,
    store: Arc<SqliteStore>,
    stop: CancellationToken,
}

impl Server {
    /// Opens the data folder and the port, and joins the parts.
    pub(crate) async fn start(config: &Config, stop: CancellationToken) -> anyhow::Result<Self> {
        let Data { store, jwt_secret, service_token } = Data::open(config).await?;
        let edge = Edge::bind(config.address(PORT), config.trusted_proxies.clone(), edge::Limits::of(config)).await?;
        let url = format!("http://{}", service::reachable(edge.address()?));

        let bus = LocalBus::start(store.clone()).await?;
        let tokens = Arc::new(service::tokens(&jwt_secret)?);
        let settings = service::http_settings(config, &service_token)?;
        let limits = settings.limits.clone();
        let passwords = Passwords::new(Cost::default(), &limits);
        let accounts = Arc::new(Accounts::new(store.clone(), passwords, tokens.clone(), &limits));
        let chat = Chat::new(Store::of(store.clone()), tokens, bus.clone())
            .with_default_visibility(config.default_guild_visibility)
            .with_limits(limits);
        let gateway = Gateway::new(Arc::new(chat.clone()), bus, service::gateway_settings(config));

        let ready = {
            let store = store.clone();
            move || std::future::ready(if store.is_ready() { Ok(()) } else { Err(not_ready()) })
        };
        let router = Router::new()
            .merge(page::router(&url))
            .merge(service::health(stop.clone(), ready))
            .nest("/api/auth", auth::router(accounts, settings.clone()))
            .nest("/api/data", http::data::router(chat, settings))
            .route_service("/ws", gateway.service())
            .fallback(service::nothing_here)
            .layer(map_response(service::guard));

        // The one line on standard output that programs read; everything else is log.
        let data = config.data_dir.canonicalize().context("data folder")?;
        let _ = writeln!(std::io::stdout(), "Jiscord is at {url}\nIts data lies in {}", data.display());
        Ok(Self { edge, router, gateway, store, stop })
    }

    /// Serves until the stop, then ends within 25 s: no new sockets, clients told to come back, writes under way finished.
    pub(crate) async fn serve(self) -> anyhow::Result<()> {
        let goodbye = async {
            self.stop.cancelled().await;
            self.gateway.shutdown(GOODBYE).await;
        };
        tokio::join!(self.edge.serve(self.router, self.stop.clone()), goodbye);
        timeout(LAST_WRITES, self.store.close()).await.context("writes under way did not end in time")?;
        tracing::info!("stopped");
        Ok(())
    }
}

fn not_ready() -> Fault {
    Fault::new(Code::UNAVAILABLE, "the database is not ready").retry_after(Duration::from_secs(1))
}
