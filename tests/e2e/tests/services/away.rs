//! What the services need is away, and comes back.

use std::{path::Path, sync::Arc, time::Duration};

use jiscord_e2e::{Answer, Caller, Deployment, PATIENCE, has_database, within};
use serde_json::json;
use tokio::{net::TcpStream, task::spawn_blocking, time::sleep};

use crate::{
    gateways::{Town, at},
    node::Node,
};

/// Asks again until it answers so.
async fn until(what: &str, mut ask: impl AsyncFnMut() -> Answer, status: u16) -> Answer {
    let asking = async {
        loop {
            let answer = ask().await;
            if answer.status == status {
                return answer;
            }
            sleep(Duration::from_millis(50)).await;
        }
    };
    tokio::time::timeout(PATIENCE, asking).await.unwrap_or_else(|_| panic!("{what} never answers {status}"))
}

/// What `/health/ready` of all services says, sooner or later; they run all the while.
pub(crate) async fn ready(server: &Deployment, status: u16) {
    let gateways = [0, 1].map(|n| server.ws_of(n).replacen("ws", "http", 1).trim_end_matches("/ws").to_owned());
    for base in [server.data(), server.auth()].iter().chain(&gateways) {
        let service = Caller::new(&**base);
        let answer = until(base, async || service.get("/health/ready").await, status).await;
        assert_eq!(answer.headers.contains_key("retry-after"), status == 503, "{base}");
        assert_eq!(service.get("/health/live").await.status, 200);
    }
}

fn is_away(answer: &Answer) {
    assert_eq!((answer.status, answer.body["code"].as_str()), (503, Some("unavailable")), "{answer:?}");
    assert!(answer.headers.contains_key("retry-after"), "{answer:?}");
}

/// What users see while the database is taken away and given back.
async fn away_and_back(town: Town, take: impl AsyncFnOnce(&mut Deployment), give: impl AsyncFnOnce(&mut Deployment)) {
    let Town { mut server, ada, bob, channel, .. } = town;
    let (mut hers, mut his) = (at(&server, 0, &ada, "a").await, at(&server, 1, &bob, "b").await);
    ready(&server, 200).await;

    take(&mut server).await;
    ready(&server, 503).await;
    let messages = format!("/channels/{channel}/messages");
    let answer = ada.data.post(&messages, json!({"content": "lost", "nonce": "n0"})).await;
    assert_eq!(answer.status, 503, "{answer:?}");
    assert!(answer.headers.contains_key("retry-after"), "{answer:?}");
    is_away(&ada.data.get(&messages).await);
    hers.send_once(&channel, "lost", "n1").await;
    let error = hers.hear("ERROR").await["d"].take();
    assert!(["unavailable", "outcome_unknown"].contains(&error["code"].as_str().unwrap()), "{error}");
    assert_eq!(error["nonce"], "n1");
    // A token is good whether its user can be looked up or not: nobody says that it is bad.
    let me = ada.auth.get("/me").await;
    assert!(me.status == 200 || me.status == 503, "{me:?}");
    assert_ne!(ada.data.get("/guilds/me").await.status, 401);

    give(&mut server).await;
    ready(&server, 200).await;
    hers.send_once(&channel, "lost", "n1").await;
    hers.hear_past("MESSAGE_ACK").await;
    // The sockets stayed.
    assert_eq!(his.hear_past("MESSAGE_CREATE").await["d"]["content"], "lost");
    assert_eq!(ada.history(&channel).await.iter().filter(|row| row["content"] == "lost").count(), 1);
}

#[tokio::test]
async fn the_way_to_the_database_is_cut_and_mended() {
    if !has_database("the_way_to_the_database_is_cut_and_mended") {
        return;
    }
    let cut = async |server: &mut Deployment| server.beneath().cut_database();
    let mend = async |server: &mut Deployment| server.beneath().mend_database().await;
    away_and_back(Town::with(&[]).await, cut, mend).await;
}

#[tokio::test]
async fn the_database_is_killed_and_stopped_and_started_again() {
    if !has_database("the_database_is_killed_and_stopped_and_started_again") {
        return;
    }
    let node = Arc::new(Node::new(Path::new(env!("CARGO_TARGET_TMPDIR"))));
    let does = async |what: fn(&Node)| {
        let node = node.clone();
        spawn_blocking(move || what(&node)).await.unwrap();
    };
    does(|node| node.run("start")).await;
    for take in [Node::kill as fn(&Node), |node| node.run("stop")] {
        let town = Town::on(Deployment::services_on(&node.address(), &[]).await).await;
        away_and_back(town, async |_| does(take).await, async |_| does(|node| node.run("start")).await).await;
    }
}

#[tokio::test]
async fn data_service_says_that_it_waits_for_its_database() {
    if !has_database("data_service_says_that_it_waits_for_its_database") {
        return;
    }
    let mut server = Deployment::services(&[]).await;
    let ada = server.register("ada").await;
    let base = server.data();
    let (process, beneath) = server.data_service_and_beneath();
    process.kill9().await;
    beneath.cut_database();
    let asked = async {
        let address = base.trim_start_matches("http://");
        within(PATIENCE, async { while TcpStream::connect(address).await.is_err() {} }).await;
        let service = Caller::new(&*base);
        assert_eq!(service.get("/health/live").await.status, 200);
        for path in ["/health/ready", "/health"] {
            is_away(&service.get(path).await);
        }
        is_away(&ada.data.get("/guilds/me").await);
        beneath.mend_database().await;
    };
    tokio::join!(process.restart(), asked);
    assert_eq!(ada.data.get("/guilds/me").await.status, 200);
}

#[tokio::test]
async fn redis_goes_and_comes_back_and_a_full_queue_refuses() {
    if !has_database("redis_goes_and_comes_back_and_a_full_queue_refuses") {
        return;
    }
    let Town { mut server, ada, bob, channel, .. } = Town::with(&[("JISCORD_LIMIT_EVENT_QUEUE", "3")]).await;
    let (mut hers, mut his) = (at(&server, 0, &ada, "a").await, at(&server, 1, &bob, "b").await);
    server.beneath().stop_redis();
    ready(&server, 503).await;
    let messages = format!("/channels/{channel}/messages");
    for queue in 0..3 {
        ada.data.post(&messages, json!({"content": format!("waits {queue}")})).await.is(201);
        hers.send_once(&channel, &format!("waits too {queue}"), &format!("q{queue}")).await;
        hers.hear_past("MESSAGE_ACK").await;
    }
    let answer = ada.data.post(&messages, json!({"content": "refused"})).await;
    is_away(&answer);
    hers.send_once(&channel, "refused", "full").await;
    let error = hers.hear_past("ERROR").await["d"].take();
    assert_eq!((&error["code"], &error["nonce"]), (&json!("unavailable"), &json!("full")));
    // Reading goes on, and nothing of what was refused is there.
    let history = ada.history(&channel).await;
    assert_eq!(history.len(), 6);
    assert_eq!(ada.auth.get("/me").await.is(200)["user_id"], ada.id);

    server.beneath().start_redis();
    ready(&server, 200).await;
    ada.post(&channel, json!({"content": "again"})).await;
    // The sockets stayed, and hear what is new.
    for socket in [&mut hers, &mut his] {
        let hear = async { while socket.hear_past("MESSAGE_CREATE").await["d"]["content"] != "again" {} };
        within(PATIENCE, hear).await;
    }
}

#[tokio::test]
async fn nobodys_token_is_called_bad_while_auth_service_is_away() {
    if !has_database("nobodys_token_is_called_bad_while_auth_service_is_away") {
        return;
    }
    let Town { mut server, ada, channel, .. } = Town::with(&[]).await;
    let mut live = at(&server, 0, &ada, "a").await;
    server.auth_service().kill9().await;
    let mut socket = jiscord_e2e::Socket::open(&server.ws()).await;
    socket.say("IDENTIFY", json!({"token": ada.token, "device": "b"})).await;
    // Try again later; not 4004, by which a client would throw its token away.
    let (said, code) = socket.last_words().await;
    assert_eq!(code, Some(1013), "{said:?}");
    assert!(!said.contains(&"INVALID_SESSION".to_owned()), "{said:?}");
    live.send(&channel, "still here").await;
    live.hear("MESSAGE_CREATE").await;
    server.auth_service().restart().await;
    at(&server, 0, &ada, "b").await;
}
