//! gateway: WebSockets. Asks auth-service and data-service, hears events over Redis; several run beside each other.

use std::{process::ExitCode, sync::Arc};

use anyhow::Context;
use axum::{Router, middleware::map_response};
use jiscord_api::remote::{RemoteBackend, SetupError};
use jiscord_bin_kit::{
    Config, Edge, Refused,
    config::needed,
    edge,
    service::{self, GOODBYE},
    shared,
};
use jiscord_gateway::{
    Gateway,
    redis::{RedisBus, RedisClaims},
};
use secrecy::ExposeSecret;
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

/// Its port if none is set.
const PORT: u16 = 3002;

fn main() -> ExitCode {
    let about = "Jiscord's WebSockets, at / and /ws.\nNeeds auth-service, data-service, Redis and JISCORD_SERVICE_TOKEN.";
    service::main("gateway", about, serve)
}

async fn serve(config: Config, stop: CancellationToken) -> anyhow::Result<()> {
    let service_token = needed("JISCORD_SERVICE_TOKEN", config.service_token.as_ref())?;
    let (auth, data) = (config.auth_service(), config.data_service());
    let backend = RemoteBackend::new(auth, data, service_token.expose_secret().as_bytes()).map_err(refused)?;
    let redis = shared::redis(&config)?;
    let bus = RedisBus::start(&redis).await.map_err(shared::unfit)?;
    let edge = Edge::bind(config.address(PORT), config.trusted_proxies.clone(), edge::Limits::of(&config)).await?;

    let claims = Arc::new(RedisClaims::new(&redis, Uuid::new_v4().to_string(), config.limit_devices));
    let settings = service::gateway_settings(&config);
    let gateway = Gateway::with_claims(Arc::new(backend.clone()), bus.clone(), claims, settings);
    let connected = bus.connected();
    let ready = move || {
        let (backend, connected) = (backend.clone(), connected.clone());
        async move {
            shared::is_there(&connected)?;
            backend.ready().await
        }
    };
    let router = Router::new()
        .merge(service::health(stop.clone(), ready))
        .route_service("/", gateway.service())
        .route_service("/ws", gateway.service())
        .fallback(service::nothing_here)
        .layer(map_response(service::guard));

    service::announce("gateway", edge.address().context("address")?);
    let goodbye = async {
        stop.cancelled().await;
        gateway.shutdown(GOODBYE).await;
    };
    tokio::join!(edge.serve(router, stop.clone()), goodbye);
    tracing::info!("stopped");
    Ok(())
}

fn refused(error: SetupError) -> anyhow::Error {
    match error {
        SetupError::Client(_) => error.into(),
        error => Refused::because(format!("AUTH_SERVICE_URL, DATA_SERVICE_URL and JISCORD_SERVICE_TOKEN: {error}")).into(),
    }
}
