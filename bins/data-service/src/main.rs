//! data-service: users, guilds, channels and messages. The only one that touches the database; publishes through Redis.

use std::{process::ExitCode, sync::Arc};

use axum::Router;
use jiscord_api::{chat::Chat, http::data};
use jiscord_bin_kit::{
    Config, Edge, edge,
    service::{self, LAST_WRITES},
    shared::{self, Elsewhere},
};
use jiscord_gateway::redis::RedisPublisher;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;

/// Its port if none is set.
const PORT: u16 = 3001;

fn main() -> ExitCode {
    let about = "Jiscord's users, guilds, channels and messages.\n\
                 Needs ScyllaDB or Cassandra, Redis, JWT_SECRET and JISCORD_SERVICE_TOKEN.";
    service::main("data-service", about, serve)
}

async fn serve(config: Config, stop: CancellationToken) -> anyhow::Result<()> {
    let (jwt_secret, service_token) = config.shared_secrets()?;
    let tokens = Arc::new(service::tokens(jwt_secret)?);
    let redis = shared::redis(&config)?;
    let publisher = Arc::new(RedisPublisher::start(&redis).await.map_err(shared::unfit)?);
    let edge = Edge::bind(config.address(PORT), config.trusted_proxies.clone(), edge::Limits::of(&config)).await?;
    let address = edge.address()?;
    let (front, routes) = service::opening();
    let serving = tokio::spawn(edge.serve(front, stop.clone()));
    let Some(database) = shared::database(&config, &redis, &stop).await? else {
        serving.await?;
        return Ok(());
    };

    let settings = service::http_settings(&config, service_token)?;
    let store = database.store(Elsewhere::new(database.clone(), publisher.connected()));
    let chat = Chat::new(store, tokens, publisher.clone())
        .with_default_visibility(config.default_guild_visibility)
        .with_limits(settings.limits.clone());
    let ready = {
        let chat = chat.clone();
        move || {
            let chat = chat.clone();
            async move { chat.ready().await }
        }
    };
    let router = Router::new().merge(service::health(stop.clone(), ready)).fallback_service(data::router(chat, settings));
    let relaying = shared::relay(&redis, database.clone(), stop.clone()).await?;
    let _ = routes.set(router);

    service::announce("data-service", address);
    serving.await?;
    let _ = relaying.await;
    let end = async {
        shared::last_events(&*publisher, LAST_WRITES / 2).await;
        database.close().await;
    };
    if timeout(LAST_WRITES, end).await.is_err() {
        tracing::warn!("the database does not answer; the worker number is free in a minute");
    }
    tracing::info!("stopped");
    Ok(())
}
