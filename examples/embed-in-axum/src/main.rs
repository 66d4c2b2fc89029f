//! A shop that has its own users and its own axum server, and wants chat in it.
//!
//! ```sh
//! cargo run -p embed-in-axum            # serves until Ctrl-C
//! cargo run -p embed-in-axum -- demo    # two of the shop's users chat through it, then it ends
//! ```
//!
//! What the shop brings is in `host.rs`: who its users are ([`Users`](jiscord_store::Users)), and whose a session is
//! ([`TokenVerifier`](jiscord_core::backend::TokenVerifier)). Everything else is mounted.

mod host;

use std::{sync::Arc, time::Duration};

use anyhow::Context;
use axum::{Router, routing::get};
use jiscord_api::{chat::Chat, http};
use jiscord_client::{Client, Endpoints, Event};
use jiscord_gateway::{Gateway, LocalBus, Settings};
use jiscord_store::{
    Store,
    sqlite::{Options, SqliteStore},
};
use tokio::net::TcpListener;

use crate::host::Shop;

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let demo = std::env::args().nth(1).is_some_and(|argument| argument == "demo");
    let folder = tempfile::tempdir()?;
    let shop = Arc::new(Shop::new());

    let sqlite = SqliteStore::open(folder.path().join("chat"), Options::default())?;
    let store = Store { users: shop.clone(), ..Store::of(sqlite.clone()) };
    let bus = LocalBus::start(store.events.clone()).await?;
    let chat = Chat::new(store, shop.clone(), bus.clone());
    let gateway = Gateway::new(Arc::new(chat.clone()), bus, Settings::default());
    let router = Router::new()
        .route("/", get(|| async { "the shop" }))
        .nest("/chat", http::data::router(chat, http::Settings::default()))
        .route_service("/chat/ws", gateway.service());

    let listener = TcpListener::bind(("127.0.0.1", if demo { 0 } else { 3100 })).await?;
    let address = listener.local_addr()?;
    println!("the shop is at http://{address}/, its chat at http://{address}/chat and ws://{address}/chat/ws");
    let going_down = async move {
        let done =
            async { if demo { talk(&format!("{address}/chat"), &shop).await } else { Ok(tokio::signal::ctrl_c().await?) } };
        let done = done.await;
        gateway.shutdown(Duration::from_secs(5)).await;
        sqlite.close().await;
        done
    };
    tokio::select! {
        served = axum::serve(listener, router) => served.context("the server ended"),
        done = going_down => done,
    }
}

/// Two of the shop's users, each with a session of the shop's, chat with each other.
async fn talk(chat: &str, shop: &Shop) -> anyhow::Result<()> {
    let at = Endpoints::services(&format!("http://{chat}"), &format!("http://{chat}"), &format!("ws://{chat}/ws"))?;
    let ada = Client::builder(at.clone()).connect(shop.log_in("ada")?).await?;
    let bob = Client::builder(at.clone()).connect(shop.log_in("bob")?).await?;
    anyhow::ensure!(Client::builder(at).connect("a forged session").await.is_err(), "only the shop's sessions are good");

    let guild = ada.http().create_guild("Customers").await?;
    let channel = ada.http().create_channel(guild.guild_id, "general").await?.channel_id;
    bob.http().join(guild.guild_id).await?;

    let mut heard = ada.events();
    bob.send(channel, "hello from the shop").await?;
    while let Some(event) = heard.next().await {
        if let Event::MessageCreate(message) = event? {
            let author = message.author.context("a message has its author's name")?;
            println!("ada hears {}: {}", author.username, message.content);
            break;
        }
    }
    ada.close().await;
    bob.close().await;
    Ok(())
}
