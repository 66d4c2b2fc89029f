//! The server: everything joined on one port.

use std::{
    io::Write,
    net::{Ipv4Addr, Ipv6Addr, SocketAddr},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use anyhow::Context;
use axum::{
    Json, Router,
    http::{HeaderName, HeaderValue, header},
    middleware::map_response,
    response::Response,
    routing::get,
};
use jiscord_api::{
    accounts::Accounts,
    chat::Chat,
    http::{self, auth},
    limits::{Limits, Rate},
    passwords::{Cost, Passwords},
    tokens::{Jwt, ServiceToken},
};
use jiscord_bin_kit::{
    Config, Edge,
    config::TrustUserHeader,
    edge::{self, refusal},
};
use jiscord_core::{Code, Fault};
use jiscord_gateway::{Gateway, LocalBus, Settings};
use jiscord_store::{Store, sqlite::SqliteStore};
use secrecy::ExposeSecret;
use serde_json::json;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;

use crate::{data::Data, page};

/// The all-in-one's port if none is set.
const PORT: u16 = 3000;
/// How long sockets may take to be told and closed. With the store's and the edge's time it stays below 25 s.
const GOODBYE: Duration = Duration::from_secs(15);
/// How long writes that wait may take to end.
const LAST_WRITES: Duration = Duration::from_secs(8);

/// A server that listens, but does not answer yet.
pub(crate) struct Server {
    edge: Edge,
    router: Router,
    gateway: Gateway,
    store: Arc<SqliteStore>,
    stopping: Arc<AtomicBool>,
}

impl Server {
    /// Opens the data folder and the port, and joins the parts.
    pub(crate) async fn start(config: &Config) -> anyhow::Result<Self> {
        let Data { store, jwt_secret, service_token } = Data::open(config).await?;
        let edge = Edge::bind(config.address(PORT), config.trusted_proxies.clone(), edge::Limits::of(config)).await?;
        let url = format!("http://{}", reachable(edge.address()?));

        let bus = LocalBus::start(store.clone()).await?;
        let tokens = Arc::new(tokens(jwt_secret.expose_secret())?);
        let limits = limits(config);
        let passwords = Passwords::new(Cost::default(), &limits);
        let accounts = Arc::new(Accounts::new(store.clone(), passwords, tokens.clone(), &limits));
        let chat = Chat::new(Store::of(store.clone()), tokens, bus.clone())
            .with_default_visibility(config.default_guild_visibility)
            .with_limits(limits.clone());
        let gateway = Gateway::new(Arc::new(chat.clone()), bus, gateway_settings(config));

        let mut settings = http::Settings::default();
        settings.web_origins = config.web_origins.clone();
        settings.service_token = Some(ServiceToken::new(service_token.expose_secret().as_bytes())?);
        settings.trust_user_header = config.trust_user_header != TrustUserHeader::No;
        settings.limits = limits;
        if settings.trust_user_header {
            tracing::warn!("JISCORD_TRUST_USER_HEADER is on: whoever reaches this server may act as any user");
        }

        let stopping = Arc::new(AtomicBool::new(false));
        let router = Router::new()
            .merge(page::router(&url))
            .merge(health(store.clone(), stopping.clone()))
            .nest("/api/auth", auth::router(accounts, settings.clone()))
            .nest("/api/data", http::data::router(chat, settings))
            .route_service("/ws", gateway.service())
            .fallback(|| async { refusal(Fault::new(Code::NOT_FOUND, "there is nothing at this path")) })
            .layer(map_response(guard));

        // The one line on standard output that programs read; everything else is log.
        let data = config.data_dir.canonicalize().context("data folder")?;
        let _ = writeln!(std::io::stdout(), "Jiscord is at {url}\nIts data lies in {}", data.display());
        Ok(Self { edge, router, gateway, store, stopping })
    }

    /// Serves until `stop`, then ends within 25 s: no new sockets, clients told to come back, writes under way finished.
    pub(crate) async fn serve(self, stop: CancellationToken) -> anyhow::Result<()> {
        let goodbye = async {
            stop.cancelled().await;
            self.stopping.store(true, Ordering::Relaxed);
            self.gateway.shutdown(GOODBYE).await;
        };
        tokio::join!(self.edge.serve(self.router, stop.clone()), goodbye);
        timeout(LAST_WRITES, self.store.close()).await.context("writes under way did not end in time")?;
        tracing::info!("stopped");
        Ok(())
    }
}

/// Users' tokens, with the crypto backend of this program.
pub(crate) fn tokens(secret: &str) -> anyhow::Result<Jwt> {
    // An error says that there is one already, which is as good.
    let _ = jsonwebtoken::crypto::aws_lc::DEFAULT_PROVIDER.install_default();
    Ok(Jwt::new(secret.as_bytes())?)
}

/// Where a browser on this machine finds it.
fn reachable(address: SocketAddr) -> SocketAddr {
    let ip = match address.ip() {
        ip if !ip.is_unspecified() => ip,
        ip if ip.is_ipv4() => Ipv4Addr::LOCALHOST.into(),
        _ => Ipv6Addr::LOCALHOST.into(),
    };
    SocketAddr::new(ip, address.port())
}

fn limits(config: &Config) -> Limits {
    let mut limits = Limits::default();
    limits.body = config.limit_body_bytes;
    limits.body_time = config.limit_body;
    limits.caller = Rate { per_second: config.limit_http, burst: config.limit_http_burst };
    limits.login = Rate { per_second: config.limit_login, burst: config.limit_login_burst };
    limits.guilds_of_user = config.limit_guilds;
    limits.channels_of_guild = config.limit_channels;
    limits
}

fn gateway_settings(config: &Config) -> Settings {
    let mut settings = Settings::default();
    settings.heartbeat = config.heartbeat;
    settings.origins = config.web_origins.clone();
    settings.limits.frame = config.limit_frame_bytes;
    settings.limits.identify = config.limit_identify;
    settings.limits.commands = config.limit_commands;
    settings.limits.command_burst = config.limit_commands_burst;
    settings.limits.queue = config.limit_queue_bytes;
    settings.limits.devices = config.limit_devices;
    settings
}

/// `/health` and `/health/ready`: whether to send people here. `/health/live`: whether it runs at all.
fn health(store: Arc<SqliteStore>, stopping: Arc<AtomicBool>) -> Router {
    let ok = || Json(json!({ "status": "ok" }));
    let ready = get(move || async move {
        if stopping.load(Ordering::Relaxed) || !store.is_ready() {
            let fault = Fault::new(Code::UNAVAILABLE, "this server is not ready").retry_after(Duration::from_secs(1));
            return Err(refusal(fault));
        }
        Ok(ok())
    });
    Router::new()
        .route("/health", ready.clone())
        .route("/health/ready", ready)
        .route("/health/live", get(move || async move { ok() }))
}

/// Headers that keep a browser from doing with an answer what it is not meant for.
async fn guard(mut response: Response) -> Response {
    const HEADERS: [(HeaderName, &str); 4] = [
        (
            header::CONTENT_SECURITY_POLICY,
            "default-src 'none'; style-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
        ),
        (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
        (header::REFERRER_POLICY, "no-referrer"),
        (HeaderName::from_static("cross-origin-opener-policy"), "same-origin"),
    ];
    for (name, value) in HEADERS {
        response.headers_mut().insert(name, HeaderValue::from_static(value));
    }
    response
}

#[cfg(test)]
mod tests {
    use axum::{body::Body, http::Request};
    use jiscord_store::sqlite::Options;
    use tower::ServiceExt;

    use super::*;

    #[tokio::test]
    async fn readiness_follows_store_and_stop_but_liveness_does_not() {
        let folder = tempfile::tempdir().unwrap();
        let store = SqliteStore::open(folder.path(), Options::default()).unwrap();
        let stopping = Arc::new(AtomicBool::new(false));
        let router = health(store.clone(), stopping.clone());
        let expect = async |ready: u16| {
            for (path, want) in [("/health", ready), ("/health/ready", ready), ("/health/live", 200)] {
                let request = Request::get(path).body(Body::empty()).unwrap();
                assert_eq!(router.clone().oneshot(request).await.unwrap().status(), want, "{path}");
            }
        };
        expect(200).await;
        stopping.store(true, Ordering::Relaxed);
        expect(503).await;
        stopping.store(false, Ordering::Relaxed);
        store.close().await;
        expect(503).await;
    }

    #[test]
    fn the_printed_address_can_be_opened() {
        for (bound, want) in [
            ("127.0.0.1:3000", "127.0.0.1:3000"),
            ("0.0.0.0:80", "127.0.0.1:80"),
            ("[::]:80", "[::1]:80"),
            ("192.0.2.1:80", "192.0.2.1:80"),
        ] {
            assert_eq!(reachable(bound.parse().unwrap()).to_string(), want);
        }
    }
}
