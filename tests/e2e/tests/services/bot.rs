//! A bot by the Rust SDK, where what carries its events is lost.

use std::time::Duration;

use jiscord_client::{Client, Endpoints, Event};
use jiscord_e2e::{PATIENCE, has_database, within};
use serde_json::json;
use tokio::time::sleep;

use crate::{away::ready, gateways::Town};

#[tokio::test]
async fn each_message_is_told_once_though_redis_has_lost_everything() {
    if !has_database("each_message_is_told_once_though_redis_has_lost_everything") {
        return;
    }
    let Town { mut server, ada, bob, channel, .. } = Town::with(&[]).await;
    let endpoints = Endpoints::services(&server.auth(), &server.data(), &server.ws_of(1)).unwrap();
    let client = Client::builder(endpoints).connect(&*bob.token).await.unwrap();
    let mut events = client.events();
    let (mut told, mut gaps) = (Vec::new(), 0);
    let mut hear_up_to = async |last: &str, least: u32| {
        while gaps < least || told.last().is_none_or(|told| told != last) {
            match within(PATIENCE, events.next()).await.unwrap().unwrap() {
                Event::MessageCreate(message) => told.push(message.content),
                Event::Resynced(resynced) => {
                    assert_eq!((&resynced.topics, &resynced.missing[..], &resynced.gone[..]), (&None, &[][..], &[][..]));
                    assert_eq!(resynced.guilds[0].channels[0].channel_id.to_string(), channel);
                    gaps += 1;
                }
                _ => {}
            }
        }
        told.clone()
    };
    let say = async |n: u32| drop(ada.post(&channel, json!({"content": n.to_string(), "nonce": n.to_string()})).await);
    for n in 0..5 {
        say(n).await;
    }
    hear_up_to("4", 0).await;
    // Stored while Redis is away; and who would have published them is killed.
    server.beneath().stop_redis();
    ready(&server, 503).await;
    for n in 5..9 {
        say(n).await;
    }
    server.data_service().kill9().await;
    server.beneath().start_redis();
    server.data_service().restart().await;
    ready(&server, 200).await;
    for n in 9..12 {
        say(n).await;
    }
    // Sooner or later the log has all that Redis has not told, which by then has been read.
    let is_in_log = |n: u32| {
        let content = n.to_string();
        server.events().iter().any(|event| event.frame["d"]["content"] == *content)
    };
    within(PATIENCE, async {
        while !(5..12).all(is_in_log) {
            sleep(Duration::from_millis(100)).await;
        }
    })
    .await;
    say(12).await;
    let mut told = hear_up_to("12", 1).await;
    told.sort_by_key(|content| content.parse::<u32>().unwrap());
    assert_eq!(told, (0..13).map(|n| n.to_string()).collect::<Vec<_>>());
}
