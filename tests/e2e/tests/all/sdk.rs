//! The Rust SDK against the real server, which comes and goes under it.

use std::time::Duration;

use futures_util::future::join_all;
use jiscord_client::{Client, Endpoints, Error, Event, Events, Http, core::model::Message};
use jiscord_e2e::{Deployment, PATIENCE, within};

const LONG: Duration = Duration::from_secs(120);

/// Registers, logs in and connects, by the SDK alone.
async fn client(server: &Deployment, name: &str) -> Client {
    let endpoints = Endpoints::services(&server.auth(), &server.data(), &server.ws()).unwrap();
    let email = format!("{name}@example.com");
    Http::new(endpoints.clone()).unwrap().register(name, &email, "correct horse").await.unwrap();
    let builder = Client::builder(endpoints).backoff(Duration::from_millis(50), Duration::from_millis(500)).send_timeout(LONG);
    builder.login(&email, "correct horse").await.unwrap()
}

/// The next event that is none of a connection's coming and going.
async fn hear(events: &mut Events) -> Event {
    loop {
        match within(PATIENCE, events.next()).await.unwrap().unwrap() {
            Event::Ready(_) => {}
            other => return other,
        }
    }
}

async fn hear_message(events: &mut Events) -> Message {
    match hear(events).await {
        Event::MessageCreate(message) => message,
        other => panic!("a message was expected, not {other:?}"),
    }
}

/// Waits until a session has begun, or goes on.
async fn ready(events: &mut Events) {
    loop {
        if let Event::Ready(_) | Event::Resumed = within(PATIENCE, events.next()).await.unwrap().unwrap() {
            return;
        }
    }
}

#[tokio::test]
async fn two_clients_talk() {
    let server = Deployment::start().await;
    let (ada, bob) = (client(&server, "ada").await, client(&server, "bob").await);
    let (mut ada_hears, mut bob_hears) = (ada.events(), bob.events());
    let guild = ada.http().create_guild("Computing").await.unwrap().guild_id;
    assert!(matches!(hear(&mut ada_hears).await, Event::GuildCreate(created) if created.guild.guild_id == guild));
    let channel = ada.http().create_channel(guild, "engines").await.unwrap().channel_id;
    assert!(matches!(hear(&mut ada_hears).await, Event::ChannelCreate(created) if created.channel_id == channel));
    bob.http().join(guild).await.unwrap();
    assert!(matches!(hear(&mut bob_hears).await, Event::GuildCreate(joined) if joined.channels[0].channel_id == channel));
    assert!(matches!(hear(&mut ada_hears).await, Event::MemberAdd(added) if added.user_id == bob.user().user_id));

    for n in 0..10 {
        let question = ada.send(channel, format!("question {n}")).await.unwrap().message_id;
        let heard = hear_message(&mut bob_hears).await;
        assert_eq!((heard.message_id, &*heard.author.unwrap().username), (question, "ada"));
        let answer = bob.send(channel, format!("answer {n}")).reply_to(question).await.unwrap().message_id;
        assert_eq!(hear_message(&mut ada_hears).await.message_id, question);
        let heard = hear_message(&mut ada_hears).await;
        assert_eq!((heard.message_id, heard.reply_to), (answer, Some(question)));
        assert_eq!(hear_message(&mut bob_hears).await.message_id, answer);
    }
    bob.typing(channel).unwrap();
    assert!(matches!(hear(&mut ada_hears).await, Event::Typing(typing) if typing.user_id == bob.user().user_id));

    bob.http().leave(guild).await.unwrap();
    hear(&mut ada_hears).await;
    assert!(matches!(bob.send(channel, "still in?").await, Err(Error::Refused(refusal)) if refusal.code.as_str() == "not_found"));
    ada.close().await;
    assert!(within(PATIENCE, ada_hears.next()).await.is_none());
}

#[tokio::test]
async fn sends_outlive_the_server_in_their_order_and_once() {
    let mut server =
        Deployment::with(&[("JISCORD_LIMIT_COMMANDS_PER_SECOND", "100000"), ("JISCORD_LIMIT_COMMANDS_BURST", "100000")]).await;
    let (ada, bob) = (client(&server, "ada").await, client(&server, "bob").await);
    let guild = ada.http().create_guild("Computing").await.unwrap().guild_id;
    let channel = ada.http().create_channel(guild, "engines").await.unwrap().channel_id;
    bob.http().join(guild).await.unwrap();
    let (mut ada_hears, mut bob_hears) = (ada.events(), bob.events());
    ready(&mut ada_hears).await;
    ready(&mut bob_hears).await;

    // Killed in the middle of these.
    let send = |from: usize, to: usize| {
        let ada = ada.clone();
        tokio::spawn(async move { join_all((from..to).map(|n| ada.send(channel, format!("message {n}")).into_future())).await })
    };
    let first = send(0, 300);
    while !matches!(hear(&mut bob_hears).await, Event::MessageCreate(message) if message.content == "message 20") {}
    server.kill9().await;
    // And these while it is away.
    let second = send(300, 350);
    server.restart().await;
    let mut ids = Vec::new();
    for sent in [first, second] {
        for ack in within(LONG, sent).await.unwrap() {
            ids.push(ack.unwrap().message_id);
        }
    }

    // Both come back, and live goes on.
    ready(&mut ada_hears).await;
    ready(&mut bob_hears).await;
    let last = ada.send(channel, "and on").await.unwrap().message_id;
    while hear_message(&mut bob_hears).await.message_id != last {}
    ids.push(last);

    let mut history = Vec::new();
    let mut page = bob.http().messages(channel).limit(100).await.unwrap();
    loop {
        history.append(&mut page.items);
        let Some(next) = page.next else { break };
        page = bob.http().messages(channel).limit(100).page_state(next).await.unwrap();
    }
    history.reverse();
    let contents: Vec<_> = history.iter().map(|message| message.content.clone()).collect();
    let said: Vec<_> = (0..350).map(|n| format!("message {n}")).chain(["and on".into()]).collect();
    assert_eq!(contents, said);
    assert_eq!(history.iter().map(|message| message.message_id).collect::<Vec<_>>(), ids);
}

#[tokio::test]
async fn an_evicted_client_stops_and_says_so() {
    let server = Deployment::start().await;
    let ada = client(&server, "ada").await;
    let mut events = ada.events();
    let endpoints = Endpoints::services(&server.auth(), &server.data(), &server.ws()).unwrap();
    let again = Client::builder(endpoints.clone()).login("ada@example.com", "correct horse").await.unwrap();
    let end = loop {
        match within(PATIENCE, events.next()).await {
            Some(Ok(_)) => {}
            Some(Err(error)) => break error,
            None => panic!("it ended without a reason"),
        }
    };
    assert!(matches!(end, Error::Evicted), "{end}");
    assert!(within(PATIENCE, events.next()).await.is_none());
    let refused = Client::builder(endpoints).connect("forged").await.unwrap_err();
    assert!(matches!(refused, Error::Unauthorized(_)), "{refused}");
    assert_eq!(again.user().username, "ada");
}
