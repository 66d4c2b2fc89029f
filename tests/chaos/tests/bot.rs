//! A bot on SQLite goes on, however often the server is killed.

use std::time::Duration;

use jiscord_client::{Client, Endpoints, Event};
use jiscord_e2e::{Deployment, PATIENCE, within};
use serde_json::json;

const KILLS: usize = 20;
/// Between two kills.
const MESSAGES: usize = 3;

#[tokio::test(flavor = "multi_thread")]
async fn a_bot_hears_everything_once_and_reads_nothing_again_while_the_server_is_killed_20_times() {
    let mut server = Deployment::one(&[("JISCORD_HEARTBEAT_MS", "2000")]).await;
    let (ada, bot) = (server.register("ada").await, server.register("bot").await);
    let guild = ada.create_guild("Bots").await;
    let channel = ada.create_channel(&guild, "bots").await;
    bot.join(&guild).await;
    let endpoints = Endpoints::services(&server.auth(), &server.data(), &server.ws()).unwrap();
    let builder = Client::builder(endpoints).backoff(Duration::from_millis(50), Duration::from_millis(500));
    let client = builder.connect(&bot.token).await.unwrap();
    let mut events = client.events();

    let (mut sent, mut heard) = (Vec::new(), Vec::new());
    let (mut ready, mut resumed) = (0, 0);
    for number in 0..=KILLS {
        for n in 0..MESSAGES {
            let content = format!("{number} {n}");
            ada.post(&channel, json!({"content": content})).await;
            sent.push(content);
        }
        if number < KILLS {
            // Whatever the bot has heard of it by now.
            server.kill9().await;
            server.restart().await;
        }
        // It is there again, and so is what it missed.
        while heard.len() < sent.len() || resumed < (number + 1).min(KILLS) {
            match within(PATIENCE, events.next()).await.unwrap().unwrap() {
                Event::MessageCreate(message) => heard.push(message.content),
                Event::Ready(_) => ready += 1,
                Event::Resumed => resumed += 1,
                Event::Resynced(resynced) => panic!("had to read again: {resynced:?}"),
                _ => {}
            }
        }
    }
    assert_eq!(heard, sent);
    assert_eq!((ready, resumed), (1, KILLS));
    println!("{KILLS} kills, {} messages, each heard once; {resumed} resumes, {ready} READY, no RESYNC", heard.len());
}
