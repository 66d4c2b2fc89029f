//! What server programs have in common: how they begin, what is around their routes, how they turn settings into those of
//! the crates.

use std::{
    io::Write,
    net::{Ipv4Addr, Ipv6Addr, SocketAddr},
    process::ExitCode,
    sync::{Arc, OnceLock},
    time::Duration,
};

use axum::{
    Json, Router,
    extract::Request,
    http::{HeaderName, HeaderValue, header},
    middleware::map_response,
    response::{IntoResponse, Response},
    routing::get,
};
use jiscord_api::{
    http,
    limits::{Limits, Rate},
    tokens::{Jwt, ServiceToken},
};
use jiscord_core::{Code, Fault, fault::Result};
use secrecy::{ExposeSecret, SecretString};
use serde_json::json;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;
use tower::ServiceExt;

use crate::{
    config::{self, Config, TrustUserHeader},
    edge::refusal,
    exit, process, shutdown, telemetry,
};

/// How long sockets may take to be told and closed. With [`LAST_WRITES`] and the edge's time it stays below 25 s.
pub const GOODBYE: Duration = Duration::from_secs(15);
/// How long writes and events that wait may take to end.
pub const LAST_WRITES: Duration = Duration::from_secs(8);
/// How long a readiness check waits for what is needed.
const READY_TIME: Duration = Duration::from_secs(2);

/// The whole of a service's `main`: `--help`, the configuration, logs, and `serve` until a signal.
pub fn main<F>(name: &'static str, about: &'static str, serve: impl FnOnce(Config, CancellationToken) -> F) -> ExitCode
where
    F: Future<Output = anyhow::Result<()>>,
{
    process::harden();
    clap::Command::new(name).version(env!("CARGO_PKG_VERSION")).about(about).after_help(config::help()).get_matches();
    let run = || -> anyhow::Result<()> {
        let config = Config::load()?; // reports every bad setting at once
        telemetry::install(&config.log)?;
        let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
        runtime.block_on(async {
            let stop = shutdown::on_signal()?; // first, so that a stop during the start is heard
            serve(config, stop).await
        })
    };
    match run() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => exit::report(name, error.as_ref()),
    }
}

/// Says on standard output where a server is. It is the one line there that programs read; everything else is log.
pub fn announce(name: &str, address: SocketAddr) {
    let _ = writeln!(std::io::stdout(), "{name} is at http://{}", reachable(address));
}

/// Where a browser on this machine finds a server that listens there.
pub fn reachable(address: SocketAddr) -> SocketAddr {
    let ip = match address.ip() {
        ip if !ip.is_unspecified() => ip,
        ip if ip.is_ipv4() => Ipv4Addr::LOCALHOST.into(),
        _ => Ipv6Addr::LOCALHOST.into(),
    };
    SocketAddr::new(ip, address.port())
}

/// `/health` and `/health/ready`: whether to send people here, which is when `ready` says so in two seconds and `stop` is not
/// told. `/health/live`: whether it runs at all.
pub fn health<F>(stop: CancellationToken, ready: impl Fn() -> F + Clone + Send + Sync + 'static) -> Router
where
    F: Future<Output = Result<()>> + Send + 'static,
{
    let ok = || Json(json!({ "status": "ok" }));
    let ready = get(move || async move {
        let why = match timeout(READY_TIME, ready()).await {
            _ if stop.is_cancelled() => "this server is going away",
            Ok(Ok(())) => return Ok(ok()),
            Ok(Err(fault)) => {
                tracing::debug!(%fault, "not ready");
                "what this server needs is away"
            }
            Err(_) => "what this server needs does not answer",
        };
        Err(refusal(Fault::new(Code::UNAVAILABLE, why).retry_after(Duration::from_secs(1))))
    });
    Router::new()
        .route("/health", ready.clone())
        .route("/health/ready", ready)
        .route("/health/live", get(move || async move { ok() }))
        .method_not_allowed_fallback(|| async { refusal(Fault::new(Code::METHOD_NOT_ALLOWED, "this path has no such method")) })
}

/// What a server answers before it has what it needs: that it runs, and to try again. Give it its routes by [`OnceLock::set`].
pub fn opening() -> (Router, Arc<OnceLock<Router>>) {
    let routes = Arc::new(OnceLock::<Router>::new());
    let front = {
        let routes = routes.clone();
        move |request: Request| async move {
            let Some(routes) = routes.get() else {
                if request.uri().path() == "/health/live" {
                    return Json(json!({ "status": "ok" })).into_response();
                }
                let fault = Fault::new(Code::UNAVAILABLE, "this server waits for what it needs");
                return refusal(fault.retry_after(Duration::from_secs(1)));
            };
            routes.clone().oneshot(request).await.into_response()
        }
    };
    (Router::new().fallback(front).layer(map_response(guard)), routes)
}

/// What is answered where there is nothing.
pub async fn nothing_here() -> Response {
    refusal(Fault::new(Code::NOT_FOUND, "there is nothing at this path"))
}

/// Headers that keep a browser from doing with an answer what it is not meant for.
pub async fn guard(mut response: Response) -> Response {
    const HEADERS: [(HeaderName, &str); 5] = [
        (
            header::CONTENT_SECURITY_POLICY,
            "default-src 'none'; style-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
        ),
        (header::CACHE_CONTROL, "no-store"),
        (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
        (header::REFERRER_POLICY, "no-referrer"),
        (HeaderName::from_static("cross-origin-opener-policy"), "same-origin"),
    ];
    for (name, value) in HEADERS {
        // A page has a policy of its own, and its files are kept.
        response.headers_mut().entry(name).or_insert(HeaderValue::from_static(value));
    }
    response
}

/// Users' tokens, with the crypto backend of this program.
pub fn tokens(secret: &SecretString) -> anyhow::Result<Jwt> {
    // An error says that there is one already, which is as good.
    let _ = jsonwebtoken::crypto::aws_lc::DEFAULT_PROVIDER.install_default();
    Ok(Jwt::new(secret.expose_secret().as_bytes())?)
}

/// The bounds of the HTTP API.
pub fn limits(config: &Config) -> Limits {
    let mut limits = Limits::default();
    limits.body = config.limit_body_bytes;
    limits.body_time = config.limit_body;
    limits.caller = Rate { per_second: config.limit_http, burst: config.limit_http_burst };
    limits.login = Rate { per_second: config.limit_login, burst: config.limit_login_burst };
    limits.failed_logins = config.limit_failed_logins;
    limits.failed_logins_in_network = config.limit_failed_logins_in_network;
    limits.guilds_of_user = config.limit_guilds;
    limits.channels_of_guild = config.limit_channels;
    limits
}

/// How the HTTP routers behave.
pub fn http_settings(config: &Config, service_token: &SecretString) -> anyhow::Result<http::Settings> {
    let mut settings = http::Settings::default();
    settings.web_origins = config.web_origins.clone();
    settings.service_token = Some(ServiceToken::new(service_token.expose_secret().as_bytes())?);
    settings.trust_user_header = config.trust_user_header != TrustUserHeader::No;
    settings.limits = limits(config);
    if settings.trust_user_header {
        tracing::warn!("JISCORD_TRUST_USER_HEADER is on: whoever reaches this server may act as any user");
    }
    Ok(settings)
}

/// How a gateway behaves.
#[cfg(feature = "gateway")]
pub fn gateway_settings(config: &Config) -> jiscord_gateway::Settings {
    let mut settings = jiscord_gateway::Settings::default();
    settings.heartbeat = config.heartbeat;
    settings.origins = config.web_origins.clone();
    settings.limits.frame = config.limit_frame_bytes;
    settings.limits.identify = config.limit_identify;
    settings.limits.entering = config.limit_entering;
    settings.limits.sends = config.limit_sends;
    settings.limits.commands = config.limit_commands;
    settings.limits.command_burst = config.limit_commands_burst;
    settings.limits.queue = config.limit_queue_bytes;
    settings.limits.devices = config.limit_devices;
    settings
}

#[cfg(test)]
mod tests {
    use std::sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    };

    use axum::{body::Body, http::Request};
    use tower::ServiceExt;

    use super::*;

    #[tokio::test]
    async fn readiness_follows_what_is_needed_and_the_stop_but_liveness_does_not() {
        let (away, stop) = (Arc::new(AtomicBool::new(false)), CancellationToken::new());
        let router = health(stop.clone(), {
            let away = away.clone();
            move || {
                let away = away.load(Ordering::Relaxed);
                async move { if away { Err(Fault::new(Code::UNAVAILABLE, "away")) } else { Ok(()) } }
            }
        });
        let expect = async |ready: u16| {
            for (path, want) in [("/health", ready), ("/health/ready", ready), ("/health/live", 200)] {
                let request = Request::get(path).body(Body::empty()).unwrap();
                let answer = router.clone().oneshot(request).await.unwrap();
                assert_eq!(answer.status(), want, "{path}");
                assert_eq!(answer.headers().contains_key(header::RETRY_AFTER), want == 503, "{path}");
            }
        };
        expect(200).await;
        away.store(true, Ordering::Relaxed);
        expect(503).await;
        away.store(false, Ordering::Relaxed);
        expect(200).await;
        stop.cancel();
        expect(503).await;
    }

    #[tokio::test(start_paused = true)]
    async fn what_does_not_answer_is_not_waited_for() {
        let router = health(CancellationToken::new(), std::future::pending);
        let request = Request::get("/health/ready").body(Body::empty()).unwrap();
        assert_eq!(router.oneshot(request).await.unwrap().status(), 503);
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
