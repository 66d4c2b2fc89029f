//! The gateway connection against a gateway that follows a script.

#![expect(clippy::unwrap_used, reason = "a test's helpers may panic like the test")]

mod common;
mod resync;
mod view;

use std::{future::IntoFuture, time::Duration};

use common::{SLOW, Server, channel, message, message_id, soon, user};
use futures_util::{FutureExt, StreamExt};
use jiscord_client::{
    Client, Endpoints, Error, Event, Events,
    core::{ClientFrame, Code, Position, ServerFrame, frame::*},
};

/// A send in a task of its own.
fn send(client: &Client, lane: u32, content: &str) -> tokio::task::JoinHandle<jiscord_client::Result<MessageAck>> {
    tokio::spawn(client.send(channel(lane), content).into_future())
}

#[tokio::test]
async fn a_session_begins_with_who_one_is() {
    let server = Server::start().await;
    let connecting = server.builder().device("desk").intents(Intents::MESSAGES).connect("a token");
    let (client, ()) = tokio::join!(connecting, async {
        let (mut peer, identify) = server.identified(SLOW).await;
        let (token, device, attempt) = ("a token".into(), Some("desk".into()), identify.attempt);
        assert_eq!(identify, Identify { token, device, intents: Some(Intents::MESSAGES), attempt });
        assert!(attempt.is_some());
        peer.say_text(r#"{"op":"FROM_THE_FUTURE","d":{}}"#).await;
        peer.ready().await;
    });
    let client = client.unwrap();
    assert_eq!(client.user(), user());
    assert_eq!(client.ready().epoch, "e");
    assert!(matches!(soon(client.events().next()).await, Some(Ok(Event::Ready(_)))));
    assert!(!format!("{client:?} {:?}", client.http()).contains("a token"));
}

#[tokio::test]
async fn without_more_said_the_device_is_sdk_and_everything_is_told() {
    let server = Server::start().await;
    let (client, (_peer, identify)) = tokio::join!(Client::connect(&server.url, "t"), async {
        let (mut peer, identify) = server.identified(SLOW).await;
        peer.ready().await;
        (peer, identify)
    });
    client.unwrap();
    assert_eq!((identify.device.as_deref(), identify.intents), (Some("sdk"), None));
}

#[tokio::test]
async fn the_first_attempt_is_the_only_one() {
    let server = Server::start().await;
    for (code, is_right) in [
        (4004, (|error| matches!(error, Error::Unauthorized(_))) as fn(&Error) -> bool),
        (4010, |error| matches!(error, Error::Evicted)),
        (1013, |error| matches!(error, Error::Unreachable(_))),
        (4000, |error| matches!(error, Error::Unreachable(_))),
    ] {
        let (client, ()) = tokio::join!(server.builder().connect("t"), async {
            let (mut peer, _) = server.identified(SLOW).await;
            peer.say(ServerFrame::InvalidSession(())).await;
            peer.close(code).await;
        });
        let error = client.unwrap_err();
        assert!(is_right(&error), "{code}: {error:?}");
    }
}

#[tokio::test]
async fn a_server_that_is_not_there_or_says_nothing_is_not_waited_for() {
    let address = {
        let closed = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        closed.local_addr().unwrap()
    };
    let error = soon(Client::connect(&format!("http://{address}"), "t")).await.unwrap_err();
    assert!(matches!(error, Error::Unreachable(_)), "{error:?}");

    let server = Server::start().await;
    let connecting = server.builder().connect_timeout(Duration::from_secs(1)).connect("t");
    let (client, _peer) = tokio::join!(connecting, server.accept());
    assert!(matches!(client.unwrap_err(), Error::Unreachable(_)));
}

#[tokio::test]
async fn what_is_no_gateway_is_told_apart() {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move { axum::serve(listener, axum::Router::new()).await });
    let error = soon(Client::connect(&format!("http://{address}"), "t")).await.unwrap_err();
    let Error::Unreachable(source) = error else { panic!("{error:?}") };
    assert!(source.to_string().contains("404"), "{source}");
}

#[tokio::test]
async fn events_come_in_order_and_the_unknown_is_skipped() {
    let server = Server::start().await;
    let (client, mut peer) = server.client(SLOW).await;
    let mut events = client.events();
    peer.say_at(5, message(1, "a")).await;
    peer.say_text(r#"{"op":"FROM_THE_FUTURE","d":{"x":1},"p":6}"#).await;
    peer.say_binary(b"\x00\xff").await;
    peer.say_text(r#"{"op":"MESSAGE_CREATE","d":{"content":1},"p":7}"#).await;
    peer.say_text("not JSON").await;
    peer.say_at(8, message(2, "b")).await;
    assert!(matches!(soon(events.next()).await, Some(Ok(Event::Ready(_)))));
    assert!(matches!(soon(events.next()).await, Some(Ok(Event::MessageCreate(said))) if said.content == "a"));
    assert!(matches!(soon(events.next()).await, Some(Err(Error::Protocol(_)))));
    assert!(matches!(soon(events.next()).await, Some(Err(Error::Protocol(_)))));
    // As a `Stream` too.
    assert!(matches!(soon(StreamExt::next(&mut events)).await, Some(Ok(Event::MessageCreate(said))) if said.content == "b"));
}

#[tokio::test]
async fn heartbeats_go_on_while_they_are_acknowledged() {
    let server = Server::start().await;
    let (client, mut peer) = server.client(20).await;
    for _ in 0..5 {
        assert_eq!(peer.hear().await, ClientFrame::Heartbeat(()));
        peer.say_at(1, ServerFrame::HeartbeatAck(())).await;
    }
    assert!(matches!(soon(client.events().next()).await, Some(Ok(Event::Ready(_)))));
}

#[tokio::test]
async fn a_server_that_misses_a_heartbeat_is_left() {
    let server = Server::start().await;
    let (client, mut peer) = server.client(20).await;
    let mut events = client.events();
    assert!(matches!(soon(events.next()).await, Some(Ok(Event::Ready(_)))));
    assert_eq!(peer.hear().await, ClientFrame::Heartbeat(()));
    let (_peer, ()) = tokio::join!(server.session(SLOW), peer.gone());
    begins_anew(&mut events).await;
}

#[tokio::test]
async fn a_heartbeat_that_was_too_fast_is_repeated() {
    let server = Server::start().await;
    let (_client, mut peer) = server.client(20).await;
    for _ in 0..10 {
        assert_eq!(peer.hear().await, ClientFrame::Heartbeat(()));
        let (code, message) = (Code::RATE_LIMITED, "too many commands".into());
        peer.say(ServerFrame::Error(ErrorFrame { code, message, op: None, nonce: None, retry_after: Some(1) })).await;
    }
}

#[tokio::test]
async fn a_send_is_done_when_it_is_acknowledged() {
    let server = Server::start().await;
    let (client, mut peer) = server.client(SLOW).await;
    let sending = send(&client, 1, "hello");
    let said = peer.hear_message().await;
    assert_eq!((said.channel_id, said.content.as_str(), said.reply_to), (channel(1), "hello", None));
    assert!(said.nonce.as_ref().is_some_and(|nonce| (16..=64).contains(&nonce.len())));
    assert!(!sending.is_finished());
    peer.acknowledge(&said, 7).await;
    let ack = soon(sending).await.unwrap().unwrap();
    assert_eq!((ack.message_id, ack.channel_id), (message_id(7), channel(1)));

    let replying = tokio::spawn(client.send(channel(1), "and").reply_to(message_id(7)).nonce("mine").into_future());
    let said = peer.hear_message().await;
    assert_eq!((said.reply_to, said.nonce.as_deref()), (Some(message_id(7)), Some("mine")));
    peer.acknowledge(&said, 8).await;
    soon(replying).await.unwrap().unwrap();
}

#[tokio::test]
async fn what_breaks_a_rule_is_not_sent() {
    let server = Server::start().await;
    let (client, mut peer) = server.client(SLOW).await;
    for content in ["".to_owned(), "  ".to_owned(), "x".repeat(4_001)] {
        assert!(matches!(client.send(channel(1), content).await, Err(Error::Invalid(_))));
    }
    assert!(matches!(client.send(channel(1), "x").nonce("").await, Err(Error::Invalid(_))));
    let _sending = send(&client, 1, "fine");
    assert_eq!(peer.hear_message().await.content, "fine");
    let endpoints = Endpoints::at(&server.url).unwrap();
    assert!(matches!(Client::builder(endpoints).device("").connect("t").await, Err(Error::Invalid(_))));
}

#[tokio::test]
async fn a_refusal_is_told_to_who_sent() {
    let server = Server::start().await;
    let (client, mut peer) = server.client(SLOW).await;
    for code in [Code::NOT_FOUND, Code::FORBIDDEN, Code::NONCE_REUSED, Code::STORAGE_FULL, Code::INTERNAL] {
        let sending = send(&client, 1, "hello");
        let said = peer.hear_message().await;
        peer.refuse(&said, code.clone(), None).await;
        let Err(Error::Refused(refusal)) = soon(sending).await.unwrap() else { panic!("{code}") };
        assert_eq!((refusal.code, refusal.message.as_str()), (code, "no"));
    }
}

#[tokio::test]
async fn a_failed_command_that_nobody_awaits_is_an_event() {
    let server = Server::start().await;
    let (client, mut peer) = server.client(SLOW).await;
    let mut events = client.events();
    client.typing(channel(3)).unwrap();
    assert_eq!(peer.hear().await, ClientFrame::TypingStart(TypingStart { channel_id: channel(3) }));
    let error = ErrorFrame {
        code: Code::NOT_FOUND,
        message: "channel not found".into(),
        op: Some("TYPING_START".into()),
        nonce: None,
        retry_after: None,
    };
    peer.say(ServerFrame::Error(error.clone())).await;
    assert!(matches!(soon(events.next()).await, Some(Ok(Event::Ready(_)))));
    assert_eq!(soon(events.next()).await.unwrap().unwrap(), Event::CommandFailed(error));
}

#[tokio::test]
async fn not_now_is_sent_again_and_nothing_overtakes_it() {
    let server = Server::start().await;
    let (client, mut peer) = server.client(SLOW).await;
    let first = send(&client, 1, "first");
    let said = peer.hear_message().await;
    let second = send(&client, 1, "second");
    peer.refuse(&said, Code::RATE_LIMITED, Some(20)).await;
    let again = peer.hear_message().await;
    assert_eq!(again, said);
    peer.refuse(&again, Code::UNAVAILABLE, Some(1)).await;
    let again = peer.hear_message().await;
    assert_eq!(again, said);
    peer.acknowledge(&again, 1).await;
    let behind = peer.hear_message().await;
    assert_eq!(behind.content, "second");
    peer.acknowledge(&behind, 2).await;
    assert_eq!(soon(first).await.unwrap().unwrap().message_id, message_id(1));
    assert_eq!(soon(second).await.unwrap().unwrap().message_id, message_id(2));
}

#[tokio::test]
async fn what_was_cut_off_is_sent_again_under_the_same_nonce_and_in_its_order() {
    let server = Server::start().await;
    let (client, mut peer) = server.client(SLOW).await;
    // Three channels; of the first one a second message waits behind.
    let sends = [(1, "a1"), (2, "b1"), (3, "c1"), (1, "a2")].map(|(lane, text)| client.send(channel(lane), text).into_future());
    let all = tokio::spawn(futures_util::future::join_all(sends));
    let mut said = Vec::new();
    for _ in 0..3 {
        said.push(peer.hear_message().await);
    }
    assert_eq!(said.iter().map(|send| send.content.as_str()).collect::<Vec<_>>(), ["a1", "b1", "c1"]);
    peer.acknowledge(&said[1], 2).await;
    // Cut without a word, twice; what waits while there is no connection comes last.
    drop(peer);
    let (peer, _) = server.identified(SLOW).await;
    let offline = send(&client, 4, "d1");
    drop(peer);
    let mut peer = server.session(SLOW).await;
    for (want, number) in [(&said[0], 1), (&said[2], 3)] {
        let again = peer.hear_message().await;
        assert_eq!(&again, want);
        // Not acknowledged before all that can be under way is.
        if number == 3 {
            let last = peer.hear_message().await;
            assert_eq!(last.content, "d1");
            peer.acknowledge(&last, 5).await;
        }
    }
    peer.acknowledge(&said[0], 1).await;
    let behind = peer.hear_message().await;
    assert_eq!(behind.content, "a2");
    peer.acknowledge(&said[2], 3).await;
    peer.acknowledge(&behind, 4).await;
    let ids: Vec<_> = soon(all).await.unwrap().into_iter().map(|ack| ack.unwrap().message_id).collect();
    assert_eq!(ids, [1, 2, 3, 4].map(message_id));
    assert_eq!(soon(offline).await.unwrap().unwrap().message_id, message_id(5));
}

#[tokio::test]
async fn past_its_time_a_send_says_what_is_known() {
    let server = Server::start().await;
    let (client, mut peer) = server.client(SLOW).await;
    // Long enough to be written.
    let brief = Duration::from_secs(1);
    let sending = tokio::spawn(client.send(channel(1), "x").nonce("n").timeout(brief).into_future());
    peer.hear_message().await;
    let error = soon(sending).await.unwrap().unwrap_err();
    assert!(matches!(&error, Error::OutcomeUnknown { nonce: Some(nonce) } if nonce == "n"), "{error:?}");
    // Never written: nothing was done.
    drop(peer);
    let _peer = server.accept().await;
    let error = soon(client.send(channel(1), "y").timeout(brief).into_future()).await.unwrap_err();
    assert!(matches!(error, Error::Unreachable(_)), "{error:?}");
}

#[tokio::test]
async fn sends_under_way_are_bounded() {
    let server = Server::start().await;
    let (client, mut peer) = tokio::join!(server.builder().max_sends(2).connect("t"), server.session(SLOW));
    let client = client.unwrap();
    let (first, _second) = (send(&client, 1, "a"), send(&client, 1, "b"));
    let said = peer.hear_message().await;
    // The second one is queued by now or soon; either way a third place there is not.
    while !matches!(client.send(channel(2), "c").timeout(Duration::ZERO).await, Err(Error::Busy)) {
        tokio::task::yield_now().await;
    }
    peer.acknowledge(&said, 1).await;
    soon(first).await.unwrap().unwrap();
    let third = send(&client, 2, "c");
    while peer.hear_message().await.content != "c" {}
    assert!(!third.is_finished());
}

#[tokio::test]
async fn a_refused_token_and_an_eviction_are_the_end() {
    for code in [4004, 4010] {
        let server = Server::start().await;
        let (client, mut peer) = server.client(SLOW).await;
        let mut events = client.events();
        let sending = send(&client, 1, "x");
        peer.hear_message().await;
        peer.say(ServerFrame::InvalidSession(())).await;
        peer.close(code).await;
        assert!(matches!(soon(events.next()).await, Some(Ok(Event::Ready(_)))));
        match (code, soon(events.next()).await) {
            (4004, Some(Err(Error::Unauthorized(_)))) | (4010, Some(Err(Error::Evicted))) => {}
            (_, other) => panic!("{code}: {other:?}"),
        }
        assert!(soon(events.next()).await.is_none());
        assert!(matches!(soon(sending).await.unwrap(), Err(Error::OutcomeUnknown { .. })));
        assert!(matches!(client.send(channel(1), "x").await, Err(Error::Closed)));
        // It does not come back: who connects next is another client.
        let (other, identify) = tokio::join!(server.builder().device("other").connect("t"), async {
            let (mut peer, identify) = server.identified(SLOW).await;
            peer.ready().await;
            identify
        });
        other.unwrap();
        assert_eq!(identify.device.as_deref(), Some("other"));
    }
}

#[tokio::test]
async fn every_other_close_is_come_back_from() {
    let server = Server::start().await;
    let (client, mut peer) = server.client(SLOW).await;
    let mut events = client.events();
    assert!(matches!(soon(events.next()).await, Some(Ok(Event::Ready(_)))));
    for code in [1000, 1001, 1011, 1012, 1013, 4000, 4009, 4011] {
        peer.close(code).await;
        peer = server.session(SLOW).await;
        begins_anew(&mut events).await;
    }
    // Also while it is being greeted, and more than once.
    peer.close(1013).await;
    for _ in 0..3 {
        let (peer, _) = server.identified(SLOW).await;
        peer.close(1013).await;
    }
    let mut peer = server.session(SLOW).await;
    begins_anew(&mut events).await;
    // And when it is asked to.
    peer.say(ServerFrame::Reconnect(Reconnect { retry_after: 1 })).await;
    let (_peer, ()) = tokio::join!(server.session(SLOW), peer.gone());
    begins_anew(&mut events).await;
}

#[tokio::test]
async fn a_slow_program_holds_up_the_socket_but_not_the_heartbeat() {
    let server = Server::start().await;
    let (client, mut peer) = tokio::join!(server.builder().event_buffer(10_000).connect("t"), server.session(20));
    let client = client.unwrap();
    let mut events = client.events();
    assert!(matches!(soon(events.next()).await, Some(Ok(Event::Ready(_)))));
    // More than the buffer takes, and with it the acknowledgements that lie behind.
    for number in 0..100 {
        peer.say_at(10 + u64::from(number), message(number, &"x".repeat(1_000))).await;
    }
    // Ten beats without an acknowledgement would be the end, were the socket read.
    for _ in 0..10 {
        assert_eq!(peer.hear().await, ClientFrame::Heartbeat(()));
    }
    peer.say_at(500, ServerFrame::HeartbeatAck(())).await;
    for number in 0..100 {
        let Some(Ok(Event::MessageCreate(said))) = soon(events.next()).await else { panic!("{number}") };
        assert_eq!(said.message_id, message_id(number));
    }
    // It is the same session.
    assert!(events.next().now_or_never().is_none());
}

#[tokio::test]
async fn a_program_that_sends_from_its_event_loop_gets_its_answer_though_events_pile_up() {
    let server = Server::start().await;
    let (client, mut peer) = tokio::join!(server.builder().event_buffer(10_000).connect("t"), server.session(SLOW));
    let client = client.unwrap();
    let mut events = client.events();
    assert!(matches!(soon(events.next()).await, Some(Ok(Event::Ready(_)))));
    for number in 0..30 {
        peer.say_at(10 + u64::from(number), message(number, &"x".repeat(1_000))).await;
    }
    // The program awaits this and takes no event meanwhile.
    let ((), ack) = tokio::join!(
        async {
            let said = peer.hear_message().await;
            peer.acknowledge(&said, 99).await;
        },
        soon(client.send(channel(1), "hello").into_future())
    );
    assert_eq!(ack.unwrap().message_id, message_id(99));
    for number in 0..30 {
        assert!(
            matches!(soon(events.next()).await, Some(Ok(Event::MessageCreate(said))) if said.message_id == message_id(number))
        );
    }
}

#[tokio::test]
async fn the_last_clone_dropped_ends_the_session() {
    let server = Server::start().await;
    let (client, peer) = server.client(SLOW).await;
    let mut events = client.events();
    let other = client.clone();
    drop(client);
    assert_eq!(other.user(), user());
    drop(other);
    peer.gone().await;
    assert!(matches!(soon(events.next()).await, Some(Ok(Event::Ready(_)))));
    assert!(soon(events.next()).await.is_none());
}

#[tokio::test]
async fn closing_ends_the_session_and_the_stream() {
    let server = Server::start().await;
    let (client, peer) = server.client(SLOW).await;
    let mut events = client.events();
    let ((), ()) = tokio::join!(client.close(), peer.gone());
    assert!(matches!(soon(events.next()).await, Some(Ok(Event::Ready(_)))));
    assert!(soon(events.next()).await.is_none());
    assert!(matches!(client.send(channel(1), "x").await, Err(Error::Closed)));
    assert!(matches!(client.typing(channel(1)), Err(Error::Closed)));
    client.close().await;
}

#[tokio::test]
async fn a_client_can_be_closed_while_it_waits_to_come_back() {
    let server = Server::start().await;
    let hour = Duration::from_secs(3_600);
    let (client, peer) = tokio::join!(server.builder().backoff(hour, hour).connect("t"), server.session(SLOW));
    let client = client.unwrap();
    peer.close(1013).await;
    soon(client.close()).await;
}

/// A session begins, after the last one was lost.
async fn begins_anew(events: &mut Events) {
    loop {
        match soon(events.next()).await.unwrap().unwrap() {
            Event::Ready(_) => return,
            Event::Lost { .. } | Event::Resynced(_) => {}
            other => panic!("{other:?}"),
        }
    }
}

/// The contents of the next messages; other events are left out.
async fn contents(events: &mut Events, count: usize) -> Vec<String> {
    let mut contents = Vec::new();
    while contents.len() < count {
        if let Event::MessageCreate(message) = soon(events.next()).await.unwrap().unwrap() {
            contents.push(message.content);
        }
    }
    contents
}

#[tokio::test]
async fn a_session_goes_on_where_it_was_cut_off_and_everything_is_told_once() {
    const SECOND: u64 = 1_000_000;
    let server = Server::start().await;
    let (client, mut peer) = server.client(SLOW).await;
    let mut events = client.events();
    for (p, content) in [(10, "a"), (12, "b")] {
        peer.say_at(p * SECOND, message(p as u32, content)).await;
    }
    assert_eq!(contents(&mut events, 2).await, ["a", "b"]);
    drop(peer);

    let (mut peer, resume) = server.resumes(SLOW).await;
    assert_eq!((resume.token.as_str(), resume.device.as_deref(), resume.epoch.as_str()), ("token", Some("sdk"), "e"));
    assert_eq!((resume.session_id, resume.after), (client.ready().session_id, Position(7 * SECOND)));
    // "lost" was lost before the cut; "a" and "b" are known.
    for (p, content) in [(10, "a"), (11, "lost"), (12, "b"), (13, "missed")] {
        peer.say_at(p * SECOND, message(p as u32, content)).await;
    }
    peer.say_at(13 * SECOND, ServerFrame::Resumed(Resumed { replayed: 4 })).await;
    peer.say_at(14 * SECOND, message(14, "live")).await;
    assert_eq!(contents(&mut events, 3).await, ["lost", "missed", "live"]);
    // It is cut off again before it could go on, and asks for the same.
    drop(peer);
    let (peer, first) = server.resumes(SLOW).await;
    drop(peer);
    let (mut peer, second) = server.resumes(SLOW).await;
    assert_eq!((first.after, second.after), (Position(9 * SECOND), Position(9 * SECOND)));
    assert!(first.attempt.unwrap().is_before(second.attempt.unwrap()));
    // What cannot be told again is read, and the place is one of the log that there is now.
    peer.say_at(20 * SECOND, ServerFrame::Resync(Resync { topics: None, epoch: "f".into(), spread: None })).await;
    peer.say_at(20 * SECOND, ServerFrame::Resumed(Resumed { replayed: 0 })).await;
    loop {
        match soon(events.next()).await.unwrap().unwrap() {
            Event::Resynced(_) => break,
            Event::Resumed | Event::Lost { .. } => {}
            other => panic!("{other:?}"),
        }
    }
    assert_eq!(soon(events.next()).await.unwrap().unwrap(), Event::Resumed);
    drop(peer);
    let (_, resume) = server.resumes(SLOW).await;
    assert_eq!((resume.epoch.as_str(), resume.after), ("f", Position(20 * SECOND)));
}

#[tokio::test]
async fn a_session_that_cannot_be_resumed_begins_anew_at_once() {
    let server = Server::start().await;
    let patient = server.builder().backoff(Duration::from_secs(3_600), Duration::from_secs(3_600));
    let (client, peer) = tokio::join!(patient.connect("token"), server.session(SLOW));
    let client = client.unwrap();
    let mut events = client.events();
    // Where it is told to come back, it does not wait an hour.
    drop(events.next().await);
    drop(peer);
    let waits = server.accept();
    assert!(tokio::time::timeout(Duration::from_millis(50), waits).await.is_err(), "it waits before it comes back");
    client.close().await;

    let (client, peer) = server.client(SLOW).await;
    let mut events = client.events();
    drop(peer);
    let (peer, _) = server.resumes(SLOW).await;
    peer.close(4012).await;
    let mut peer = server.accept().await;
    peer.say(ServerFrame::Hello(Hello { heartbeat_interval: SLOW })).await;
    assert!(matches!(peer.hear().await, ClientFrame::Identify(_)));
    peer.ready().await;
    let mut ready = 0;
    while ready < 2 {
        ready += usize::from(matches!(soon(events.next()).await.unwrap().unwrap(), Event::Ready(_)));
    }
}

#[tokio::test]
async fn sends_wait_until_the_session_is_there_again() {
    let server = Server::start().await;
    let (client, peer) = server.client(SLOW).await;
    drop(peer);
    let (mut peer, _) = server.resumes(SLOW).await;
    let sending = tokio::spawn(client.send(channel(1), "hi").into_future());
    tokio::task::yield_now().await;
    peer.say_at(5, ServerFrame::Resumed(Resumed { replayed: 0 })).await;
    let send = peer.hear_message().await;
    peer.acknowledge(&send, 1).await;
    soon(sending).await.unwrap().unwrap();
}

#[tokio::test]
async fn what_a_slow_program_had_no_room_for_is_told_later() {
    let server = Server::start().await;
    let small = server.builder().event_buffer(1_000);
    let (client, mut peer) = tokio::join!(small.connect("token"), server.session(SLOW));
    let client = client.unwrap();
    let mut events = client.events();
    // An answer is awaited, so that the connection is read though nobody takes the events, until there are far too many.
    let sending = tokio::spawn(client.send(channel(1), "hi").into_future());
    let send = peer.hear_message().await;
    let mut said = 1;
    while peer.try_say_at(said + 1, message(said as u32 + 1, &(said + 1).to_string())).await {
        said += 1;
    }
    // What was kept is a row without holes.
    let mut kept = 1;
    while let Some(Some(Ok(event))) = events.next().now_or_never() {
        if let Event::MessageCreate(message) = event {
            kept += 1;
            assert_eq!(message.content, kept.to_string());
        }
    }
    assert!(kept < said, "{kept} of {said}");
    // It asks for what is behind that.
    let (mut peer, resume) = server.resumes(SLOW).await;
    assert_eq!(resume.after, Position(1));
    for p in kept..=kept + 2 {
        peer.say_at(p, message(p as u32, &p.to_string())).await;
    }
    peer.say_at(kept + 2, ServerFrame::Resumed(Resumed { replayed: 3 })).await;
    assert_eq!(peer.hear_message().await.nonce, send.nonce);
    peer.acknowledge(&send, 1).await;
    soon(sending).await.unwrap().unwrap();
    assert_eq!(contents(&mut events, 2).await, [(kept + 1).to_string(), (kept + 2).to_string()]);
}

#[tokio::test]
async fn another_run_of_a_program_goes_on_where_this_one_was() {
    let server = Server::start().await;
    let (client, mut peer) = server.client(SLOW).await;
    let mut events = client.events();
    assert_eq!(events.resume_point(), None);
    for p in 10..13 {
        peer.say_at(p, message(p as u32, &p.to_string())).await;
    }
    // Two were taken; the third one waits.
    assert_eq!(contents(&mut events, 2).await, ["10", "11"]);
    let point = serde_json::to_string(&events.resume_point().unwrap()).unwrap();
    client.close().await;
    drop((client, events, peer));

    let resumes = server.builder().resume(serde_json::from_str(&point).unwrap()).connect("token");
    let (client, mut peer) = tokio::join!(resumes, async {
        let (mut peer, resume) = server.resumes(SLOW).await;
        // A little further back, for what was lost just before; and what was told already is told once.
        assert_eq!((resume.after, resume.epoch.as_str()), (Position(1), "e"));
        for (p, content) in [(9, "lost"), (10, "10"), (11, "11"), (12, "12")] {
            peer.say_at(p, message(p as u32, content)).await;
        }
        peer.say_at(12, ServerFrame::Resumed(Resumed { replayed: 4 })).await;
        peer
    });
    let client = client.unwrap();
    assert_eq!(client.user(), user());
    let mut events = client.events();
    assert_eq!(contents(&mut events, 2).await, ["lost", "12"]);
    peer.say_at(13, message(13, "13")).await;
    assert_eq!(contents(&mut events, 1).await, ["13"]);

    // Where that is not possible, it begins with READY.
    let resumes = server.builder().device("other").resume(serde_json::from_str(&point).unwrap()).connect("token");
    let (client, _peer) = tokio::join!(resumes, async {
        let (peer, _) = server.resumes(SLOW).await;
        peer.close(4012).await;
        server.session(SLOW).await
    });
    let mut events = client.unwrap().events();
    assert!(matches!(soon(events.next()).await.unwrap().unwrap(), Event::Ready(_)));
}
