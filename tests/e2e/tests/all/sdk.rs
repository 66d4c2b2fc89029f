//! The Rust SDK against the real server, which comes and goes under it.

use std::time::Duration;

use futures_util::future::join_all;
use jiscord_client::{Client, Endpoints, Error, Event, Events, Http, ResumePoint, core::model::Message};
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

/// Adds what is said, up to that.
async fn hear_up_to(events: &mut Events, heard: &mut Vec<String>, last: &str) {
    loop {
        if let Event::MessageCreate(message) = within(LONG, events.next()).await.unwrap().unwrap() {
            heard.push(message.content);
            if heard.last().is_some_and(|heard| heard == last) {
                return;
            }
        }
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
    let mut heard = Vec::new();

    // Killed in the middle of these.
    let send = |from: usize, to: usize| {
        let ada = ada.clone();
        tokio::spawn(async move { join_all((from..to).map(|n| ada.send(channel, format!("message {n}")).into_future())).await })
    };
    let first = send(0, 300);
    hear_up_to(&mut bob_hears, &mut heard, "message 20").await;
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
    ids.push(ada.send(channel, "and on").await.unwrap().message_id);
    hear_up_to(&mut bob_hears, &mut heard, "and on").await;

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
    assert_eq!(heard, said, "each once, and in order");
    assert_eq!(history.iter().map(|message| message.message_id).collect::<Vec<_>>(), ids);
}

#[tokio::test]
async fn a_bot_that_starts_again_hears_each_message_once() {
    let server = Deployment::start().await;
    let (ada, bob) = (client(&server, "ada").await, client(&server, "bob").await);
    let guild = ada.http().create_guild("Computing").await.unwrap().guild_id;
    let channel = ada.http().create_channel(guild, "engines").await.unwrap().channel_id;
    bob.http().join(guild).await.unwrap();
    let say = async |numbers: std::ops::Range<u32>| {
        for n in numbers {
            ada.send(channel, n.to_string()).await.unwrap();
        }
    };
    let endpoints = Endpoints::services(&server.auth(), &server.data(), &server.ws()).unwrap();
    let login = Http::new(endpoints.clone()).unwrap().login("bob@example.com", "correct horse").await.unwrap();
    let again = async |point: &str| {
        let point: ResumePoint = serde_json::from_str(point).unwrap();
        let client = Client::builder(endpoints.clone()).resume(point).connect(&*login.token).await.unwrap();
        (client.events(), client)
    };
    let mut events = bob.events();
    let mut heard = Vec::new();
    say(0..10).await;
    hear_up_to(&mut events, &mut heard, "4").await;
    let point = serde_json::to_string(&events.resume_point().unwrap()).unwrap();
    bob.close().await;
    say(10..15).await;

    // The session goes on, and tells what came after that.
    let (mut events, bob) = again(&point).await;
    hear_up_to(&mut events, &mut heard, "14").await;
    assert!(matches!(hear(&mut events).await, Event::Resumed));
    let point = serde_json::to_string(&events.resume_point().unwrap()).unwrap();
    bob.close().await;

    // Another one has its place: what was missed is in the history.
    let other = Client::builder(endpoints.clone()).connect(&*login.token).await.unwrap();
    say(15..20).await;
    let (mut events, _bob) = again(&point).await;
    assert!(matches!(within(PATIENCE, events.next()).await, Some(Ok(Event::Ready(_)))));
    say(20..22).await;
    let resynced = loop {
        match hear(&mut events).await {
            Event::MessageCreate(message) => heard.push(message.content),
            Event::Resynced(resynced) => break resynced,
            other => panic!("{other:?}"),
        }
    };
    assert_eq!((resynced.topics, resynced.gone, resynced.missing), (None, vec![], vec![]));
    assert_eq!((resynced.guilds[0].guild.guild_id, resynced.guilds[0].channels[0].channel_id), (guild, channel));
    say(22..25).await;
    hear_up_to(&mut events, &mut heard, "24").await;
    assert_eq!(heard, (0..25).map(|n| n.to_string()).collect::<Vec<_>>());
    drop(other);
}

#[tokio::test]
async fn a_bot_goes_on_while_the_server_is_killed_twenty_times() {
    let mut server = Deployment::start().await;
    let (ada, bot) = (client(&server, "ada").await, client(&server, "bot").await);
    let guild = ada.http().create_guild("Computing").await.unwrap().guild_id;
    let channel = ada.http().create_channel(guild, "engines").await.unwrap().channel_id;
    bot.http().join(guild).await.unwrap();
    let mut events = bot.events();
    ready(&mut events).await;
    let (mut heard, mut resumed) = (Vec::new(), 0);
    for round in 0..20 {
        let said = [0, 1, 2].map(|n| tokio::spawn(ada.send(channel, format!("{round} {n}")).into_future()));
        server.kill9().await;
        server.restart().await;
        for sent in said {
            within(LONG, sent).await.unwrap().unwrap();
        }
        // Also what was lost with the server's log would be missing from here on.
        while heard.len() < 3 * (round + 1) || resumed <= round {
            match within(LONG, events.next()).await.unwrap().unwrap() {
                Event::MessageCreate(message) => heard.push(message.content),
                Event::Resumed => resumed += 1,
                Event::Lost { .. } | Event::GuildCreate(_) => {}
                // Neither another session nor anything to read again.
                other => panic!("{other:?} after {} kills", round + 1),
            }
        }
    }
    let said: Vec<_> = (0..60).map(|n| format!("{} {}", n / 3, n % 3)).collect();
    assert_eq!(heard, said);
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
