//! auth-service: makes accounts, gives and verifies tokens. Users are data-service's; it never touches the database.

use std::{process::ExitCode, sync::Arc};

use axum::{Router, middleware::map_response};
use jiscord_api::{
    accounts::Accounts,
    http::auth,
    passwords::{Cost, Passwords},
    remote::{RemoteUsers, SetupError},
};
use jiscord_bin_kit::{Config, Edge, Refused, edge, service};
use secrecy::ExposeSecret;
use tokio_util::sync::CancellationToken;

/// Its port if none is set.
const PORT: u16 = 3003;

fn main() -> ExitCode {
    service::main(
        "auth-service",
        "Jiscord's accounts and tokens.\nNeeds data-service, JWT_SECRET and JISCORD_SERVICE_TOKEN.",
        serve,
    )
}

async fn serve(config: Config, stop: CancellationToken) -> anyhow::Result<()> {
    let (jwt_secret, service_token) = config.shared_secrets()?;
    let users = RemoteUsers::new(config.data_service(), service_token.expose_secret().as_bytes()).map_err(refused)?;
    let edge = Edge::bind(config.address(PORT), config.trusted_proxies.clone(), edge::Limits::of(&config)).await?;

    let settings = service::http_settings(&config, service_token)?;
    let passwords = Passwords::new(Cost::default(), &settings.limits);
    let tokens = Arc::new(service::tokens(jwt_secret)?);
    let accounts = Accounts::new(Arc::new(users.clone()), passwords, tokens, &settings.limits);
    let accounts = Arc::new(accounts.with_logins(Arc::new(users.clone())));
    let ready = move || {
        let users = users.clone();
        async move { users.ready().await }
    };
    let router = Router::new()
        .merge(service::health(stop.clone(), ready))
        .fallback_service(auth::router(accounts, settings))
        .layer(map_response(service::guard));

    service::announce("auth-service", edge.address()?);
    edge.serve(router, stop).await;
    tracing::info!("stopped");
    Ok(())
}

fn refused(error: SetupError) -> anyhow::Error {
    match error {
        SetupError::Client(_) => error.into(),
        error => Refused::because(format!("DATA_SERVICE_URL and JISCORD_SERVICE_TOKEN: {error}")).into(),
    }
}
