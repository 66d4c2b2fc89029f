//! How sessions begin, live side by side, and end.

use std::time::Duration;

use futures_util::future::join_all;
use jiscord_e2e::{Deployment, PATIENCE, Raw, Socket, within};
use serde_json::json;
use tokio::{sync::watch, time::interval};

#[tokio::test]
async fn the_later_session_of_a_device_lives_and_others_are_left_alone() {
    let server = Deployment::start().await;
    let ada = server.register("ada").await;
    let bob = server.register("bob").await;
    let guild = ada.create_guild("Computing").await;
    let channel = ada.create_channel(&guild, "engines").await;
    let evicted = || (vec!["INVALID_SESSION".to_owned()], Some(4010));

    let mut nameless = ada.connect().await;
    let (mut phone, first) = ada.identify(json!({"device": "phone"})).await;
    let mut other = bob.identify(json!({"device": "phone"})).await.0;
    let (mut phone_again, second) = ada.identify(json!({"device": "phone"})).await;
    assert_ne!(first["d"]["sessionId"], second["d"]["sessionId"]);
    assert_eq!(phone.last_words().await, evicted());
    let mut nameless_again = ada.connect().await;
    assert_eq!(nameless.last_words().await, evicted());

    // What the evicted one still says has no effect.
    nameless.send(&channel, "I was here first").await;
    nameless_again.send(&channel, "here").await;
    for socket in [&mut nameless_again, &mut phone_again] {
        assert_eq!(socket.hear("MESSAGE_CREATE").await["d"]["content"], "here");
    }
    assert_eq!(ada.history(&channel).await.len(), 1);
    other.say("HEARTBEAT", json!(null)).await;
    other.hear("HEARTBEAT_ACK").await;
}

#[tokio::test]
async fn the_ninth_device_evicts_the_longest_silent() {
    let server = Deployment::start().await;
    let ada = server.register("ada").await;
    let mut devices = Vec::new();
    for n in 0..8 {
        devices.push(ada.identify(json!({"device": format!("device {n}")})).await.0);
    }
    // All but the fourth speak.
    for (n, socket) in devices.iter_mut().enumerate() {
        if n != 3 {
            socket.say("HEARTBEAT", json!(null)).await;
            socket.hear("HEARTBEAT_ACK").await;
        }
    }
    let mut ninth = ada.identify(json!({"device": "device 8"})).await.0;
    assert_eq!(devices[3].last_words().await, (vec!["INVALID_SESSION".into()], Some(4010)));
    devices.remove(3);
    for socket in devices.iter_mut().chain([&mut ninth]) {
        socket.say("HEARTBEAT", json!(null)).await;
        socket.hear("HEARTBEAT_ACK").await;
    }
}

#[tokio::test]
async fn identify_many_times_at_once_leaves_one_session() {
    let server = Deployment::start().await;
    let ada = server.register("ada").await;
    let channel = ada.create_channel(&ada.create_guild("Computing").await, "engines").await;
    let ended = watch::Sender::new(0);
    let live = |mut socket: Socket| async {
        let mut all_but_one = ended.subscribe();
        let mut ready = false;
        loop {
            tokio::select! {
                frame = socket.next() => match frame {
                    Ok(frame) => ready |= frame["op"] == "READY",
                    Err(end) => {
                        assert_eq!(end.0, Some(4010));
                        ended.send_modify(|count| *count += 1);
                        return None;
                    }
                },
                _ = all_but_one.wait_for(|count| *count == 11) => return Some((socket, ready)),
            }
        }
    };
    let mut sockets = Vec::new();
    for _ in 0..12 {
        sockets.push(Socket::open(&server.ws()).await);
    }
    for socket in &mut sockets {
        socket.say("IDENTIFY", json!({"token": ada.token})).await;
    }
    let mut lives: Vec<_> = within(PATIENCE, join_all(sockets.into_iter().map(live))).await.into_iter().flatten().collect();
    let (mut socket, ready) = lives.pop().unwrap();
    assert!(lives.is_empty());
    if !ready {
        socket.hear("READY").await;
    }
    socket.send(&channel, "here").await;
    socket.hear("MESSAGE_CREATE").await;
}

#[tokio::test]
async fn who_falls_silent_is_closed_and_who_beats_is_not() {
    let server = Deployment::with(&[("JISCORD_HEARTBEAT_MS", "2000")]).await;
    let ada = server.register("ada").await;
    let (mut socket, hello) = Socket::greeted(&server.ws()).await;
    assert_eq!(hello["d"]["heartbeat_interval"], 2000);
    socket.say("IDENTIFY", json!({"token": ada.token})).await;
    socket.hear("READY").await;
    let (mut silent, _) = ada.identify(json!({"device": "silent"})).await;

    let mut beat = interval(Duration::from_millis(250));
    let beating = async {
        loop {
            beat.tick().await;
            socket.say("HEARTBEAT", json!(null)).await;
            socket.hear("HEARTBEAT_ACK").await;
        }
    };
    let end = tokio::select! {
        end = silent.last_words() => end,
        () = within(PATIENCE, beating) => unreachable!(),
    };
    assert_eq!(end, (vec![], Some(4009)));
    socket.say("HEARTBEAT", json!(null)).await;
    socket.hear_past("HEARTBEAT_ACK").await;
}

#[tokio::test]
async fn who_does_not_identify_is_closed() {
    let server = Deployment::with(&[("JISCORD_LIMIT_IDENTIFY_MS", "500")]).await;
    let mut socket = Socket::open(&server.ws()).await;
    assert_eq!(socket.last_words().await, (vec![], Some(4003)));
    // A beating heart does not help.
    let mut socket = Socket::open(&server.ws()).await;
    let mut beat = interval(Duration::from_millis(150));
    let end = loop {
        beat.tick().await;
        socket.say("HEARTBEAT", json!(null)).await;
        if let Err(end) = socket.next().await {
            break end;
        }
    };
    assert_eq!(end.0, Some(4003));
    // Nor does a frame that never ends.
    let mut raw = Raw::connect(&server.ws()).await;
    assert_eq!(raw.upgrade("").await, 101);
    raw.write(&[0x81, 0x80 | 100, 0, 0, 0, 0, b'{']).await.unwrap();
    assert_eq!(raw.close_code().await, Some(4003));
}

#[tokio::test]
async fn who_commands_too_fast_is_told_and_then_closed() {
    // So few that no store is too slow for them.
    let few = [("JISCORD_LIMIT_COMMANDS_PER_SECOND", "1"), ("JISCORD_LIMIT_COMMANDS_BURST", "20")];
    let server = Deployment::with(&few).await;
    let ada = server.register("ada").await;
    let channel = ada.create_channel(&ada.create_guild("Computing").await, "engines").await;
    let mut socket = ada.connect().await;
    // A thousand in one go, of which far fewer are within the rate.
    for n in 0..1_000 {
        socket.send_once(&channel, "spam", &format!("n{n}")).await;
    }
    let (said, end) = socket.rest().await;
    assert_eq!(end.0, Some(4008));
    let refused: Vec<_> = said.iter().filter(|frame| frame["op"] == "ERROR").collect();
    assert!(!refused.is_empty());
    for frame in refused {
        assert_eq!((&frame["d"]["code"], &frame["d"]["op"]), (&json!("rate_limited"), &json!("SEND_MESSAGE")));
        assert!(frame["d"]["nonce"].is_string() && frame["d"]["retryAfter"].is_u64(), "{frame}");
    }
    // What was acknowledged is stored, what was refused is not.
    let acked = said.iter().filter(|frame| frame["op"] == "MESSAGE_ACK").count();
    assert_eq!(ada.history(&channel).await.len(), acked);

    // A heart that races is no heart.
    let mut socket = ada.connect().await;
    for _ in 0..1_000 {
        socket.say("HEARTBEAT", json!(null)).await;
    }
    assert_eq!(socket.rest().await.1.0, Some(4008));
}
