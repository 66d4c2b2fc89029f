//! Starting, ending, and what lies between.

use std::time::Duration;

use futures_util::future::join_all;
use jiscord_e2e::{Caller, Deployment, PATIENCE, Raw, Socket, within};
use serde_json::json;
use tokio::time::sleep;

#[tokio::test]
async fn sigterm_sends_everybody_away_and_ends_well() {
    let mut server = Deployment::start().await;
    let ada = server.register("ada").await;
    let channel = ada.create_channel(&ada.create_guild("Computing").await, "engines").await;
    let mut sessions = Vec::new();
    for device in ["a", "b", "c"] {
        sessions.push(ada.identify(json!({"device": device})).await.0);
    }
    let mut greeted = Socket::open(&server.ws()).await;
    // Commands that are on their way when the end comes.
    for n in 0..20 {
        sessions[0].send_once(&channel, &format!("last words {n}"), &format!("n{n}")).await;
    }

    let (status, ends) = tokio::join!(server.terminate(), async {
        let mut ends = Vec::new();
        for socket in sessions.iter_mut().chain([&mut greeted]) {
            ends.push(socket.rest().await);
        }
        ends
    });
    assert_eq!(status.code(), Some(0), "{status}");
    for (said, end) in &ends {
        assert_eq!(end.0, Some(1001));
        let last = said.last().unwrap();
        assert_eq!(last["op"], "RECONNECT", "{said:?}");
        assert!(last["d"]["retryAfter"].is_u64(), "{last}");
        assert!(said.iter().all(|frame| frame["op"] != "INVALID_SESSION"));
    }

    // What was acknowledged before the end is there after it.
    server.restart().await;
    let history = ada.history(&channel).await;
    for ack in ends[0].0.iter().filter(|frame| frame["op"] == "MESSAGE_ACK") {
        assert_eq!(history.iter().filter(|row| row["message_id"] == ack["d"]["messageId"]).count(), 1);
    }
}

#[tokio::test]
async fn a_server_without_clients_ends_well() {
    let mut server = Deployment::start().await;
    assert_eq!(server.terminate().await.code(), Some(0));
    // A client that has left in the middle of its closing, and one that never says anything, hold nobody up.
    server.restart().await;
    let ada = server.register("ada").await;
    let _idle = Raw::connect(&server.data()).await;
    let mut half = Raw::connect(&server.data()).await;
    half.write(b"GET / HTTP/1.1\r\n").await.unwrap();
    let _deaf = ada.connect().await;
    drop(ada.identify(json!({"device": "gone"})).await);
    assert_eq!(server.terminate().await.code(), Some(0));
}

#[tokio::test]
async fn a_restart_keeps_everything() {
    let mut server = Deployment::start().await;
    let (ada, bob) = (server.register("ada").await, server.register("bob").await);
    let guild = ada.create_guild("Computing").await;
    let channel = ada.create_channel(&guild, "engines").await;
    bob.join(&guild).await;
    for n in 0..5 {
        ada.post(&channel, json!({"content": n.to_string()})).await;
    }
    let before = (ada.history(&channel).await, server.events(), ada.data.get("/guilds/me").await.is(200));
    let secrets = (server.jwt_secret(), server.service_token());

    for kill in [false, true] {
        if kill {
            server.kill9().await;
        } else {
            assert_eq!(server.terminate().await.code(), Some(0));
        }
        server.restart().await;
        let after = (ada.history(&channel).await, server.events(), ada.data.get("/guilds/me").await.is(200));
        assert_eq!(after, before);
        assert_eq!((server.jwt_secret(), server.service_token()), secrets);
        // The old token, and the old password.
        assert_eq!(bob.auth.get("/me").await.is(200)["user_id"], bob.id);
        let login = json!({"email": "bob@example.com", "password": "correct horse"});
        assert_eq!(Caller::new(server.auth()).post("/login", login).await.is(200)["user"]["user_id"], bob.id);
        let (_, ready) = bob.identify(json!({})).await;
        assert_eq!(ready["d"]["guilds"][0]["guildId"], guild);
    }
}

#[tokio::test]
async fn a_head_that_comes_slowly_is_not_waited_for() {
    let server = Deployment::with(&[("JISCORD_LIMIT_HEAD_MS", "500")]).await;
    for base in [server.data(), server.auth(), server.ws()] {
        // Nothing at all.
        let mut silent = Raw::connect(&base).await;
        silent.ended().await;
        // A byte now and then.
        let mut slow = Raw::connect(&base).await;
        slow.write(b"GET / HTTP/1.1\r\nX: ").await.unwrap();
        let drip = async {
            let mut pace = tokio::time::interval(std::time::Duration::from_millis(20));
            loop {
                pace.tick().await;
                if slow.write(b"x").await.is_err() {
                    break;
                }
            }
        };
        within(PATIENCE, drip).await;
    }
    Caller::new(server.data()).get("/health").await.is(200);
}

#[tokio::test]
async fn a_body_that_does_not_come_is_not_waited_for() {
    let server = Deployment::with(&[("JISCORD_LIMIT_BODY_MS", "500")]).await;
    for path in ["/register", "/login"] {
        let mut raw = Raw::connect(&server.auth()).await;
        let head = format!(
            "POST {}{path} HTTP/1.1\r\nHost: {}\r\nContent-Type: application/json\r\nContent-Length: 100\r\n\r\n{{",
            raw.path(),
            raw.host()
        );
        raw.write(head.as_bytes()).await.unwrap();
        assert_eq!(raw.status().await, Some(408), "{path}");
    }
}

#[tokio::test]
async fn health_is_open_and_says_ok() {
    let server = Deployment::start().await;
    for base in [server.auth(), server.data()] {
        for path in ["/health", "/health/live", "/health/ready"] {
            assert_eq!(Caller::new(&*base).get(path).await.is(200)["status"], "ok");
        }
    }
}

#[tokio::test]
async fn who_wrote_while_the_process_was_halted_is_not_closed_for_silence() {
    let mut server = Deployment::with(&[("JISCORD_HEARTBEAT_MS", "2000")]).await;
    let ada = server.register("ada").await;
    let (token, url) = (&ada.token, &server.ws_of(0));
    let sessions = (0..8).map(|n| async move {
        let mut socket = Socket::open(url).await;
        socket.say("IDENTIFY", json!({"token": token, "device": n.to_string()})).await;
        socket.hear("READY").await;
        socket
    });
    let mut sessions = join_all(sessions).await;
    server.process_of(0).pause();
    // Longer than anybody may be silent.
    for _ in 0..4 {
        sleep(Duration::from_secs(1)).await;
        for session in &mut sessions {
            session.say("HEARTBEAT", json!(null)).await;
        }
    }
    server.process_of(0).go_on();
    for session in &mut sessions {
        for _ in 0..4 {
            session.hear("HEARTBEAT_ACK").await;
        }
    }
}
