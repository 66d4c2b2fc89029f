//! The bus, the publisher and the claims against a real Redis that is killed, stopped and cut off.

#![expect(clippy::unwrap_used, reason = "tests")]

mod redis_server;

use std::{collections::HashMap, sync::Arc, time::Duration};

use jiscord_core::{
    ChannelId, Code, Event, EventId, Position, SessionId, Topic, UserId,
    event::Publish,
    frame::Attempt,
    id::{Snowflake, Worker},
    journal::Marks,
    mint::{IdSource, Minter},
    text::Device,
    time::{Clock, SystemClock},
};
use jiscord_gateway::{
    bus::{Bus, Heard, Stale},
    claims::{Claim, Claims, Eviction, Holder},
    redis::{Error, Redis, RedisBus, RedisClaims, RedisClock, RedisMarks, RedisPublisher},
};
use redis::{AsyncCommands, AsyncConnectionConfig, PushKind, aio::MultiplexedConnection};
use redis_server::{Server, server, server_with};
use tokio::{
    io::copy_bidirectional,
    net::{TcpListener, TcpStream},
    sync::{Notify, mpsc, watch},
    time::timeout,
};
use uuid::Uuid;

/// Nothing here takes that long, on a busy machine either.
const PATIENCE: Duration = Duration::from_secs(60);

const NOBODY: [usize; 0] = [];

/// Starts a Redis, or leaves the test where there is none.
macro_rules! redis {
    ($($options:expr)?) => {
        match redis!(@ $($options)?) {
            Some(server) => server,
            None => return,
        }
    };
    (@) => { server() };
    (@ $options:expr) => { server_with($options) };
}

async fn soon<T>(future: impl Future<Output = T>) -> T {
    timeout(PATIENCE, future).await.expect("it never happens")
}

async fn becomes(mut state: watch::Receiver<bool>, want: bool) {
    soon(state.wait_for(|is| *is == want)).await.unwrap();
}

fn at(server: &Server) -> Redis {
    Redis::new(&server.url()).unwrap().prefix("test:")
}

/// A client that is none of ours.
async fn raw(server: &Server) -> MultiplexedConnection {
    redis::Client::open(server.url()).unwrap().get_multiplexed_async_connection().await.unwrap()
}

fn guild() -> Topic {
    Topic::Guild(Uuid::new_v4().to_string().parse().unwrap())
}

fn user() -> UserId {
    UserId::new(Uuid::new_v4())
}

struct Mint(Minter);

impl Mint {
    fn new() -> Self {
        Self(Minter::new(Arc::new(SystemClock), Worker::default(), 0))
    }

    fn event(&self, topics: &[Topic], text: &str) -> Event {
        event(EventId::new(self.0.next()), topics, text)
    }
}

/// A bus that hears this topic, and ids for what is published.
async fn hearing(server: &Server, topic: Topic) -> (Mint, Arc<RedisBus>) {
    let bus = RedisBus::start(&at(server)).await.unwrap();
    bus.join(topic).await.unwrap();
    (Mint::new(), bus)
}

fn event(id: EventId, topics: &[Topic], text: &str) -> Event {
    let frame = format!(r#"{{"op":"MESSAGE_CREATE","d":{{"content":"{text}"}}}}"#);
    let channel = Some(ChannelId::new(Uuid::new_v4()));
    Event { id, topics: topics.into(), op: "MESSAGE_CREATE".into(), channel, frame: frame.into() }
}

/// What an event looks like to who hears it on a topic.
fn as_heard(event: &Event, topic: Topic) -> Event {
    Event { id: EventId::NONE, topics: vec![topic], ..event.clone() }
}

#[track_caller]
fn lasting(heard: Heard) -> (Event, Position) {
    match heard {
        Heard::Event { event, p: Some(p) } => (event, p),
        other => panic!("{other:?}"),
    }
}

#[track_caller]
fn gap(heard: Heard) -> (Position, Stale) {
    match heard {
        Heard::Gap { p, stale } => (p, stale),
        other => panic!("{other:?}"),
    }
}

/// What happens next, without what only says how far it is.
async fn next(bus: &RedisBus) -> Heard {
    loop {
        match soon(bus.next()).await {
            Heard::Upto { .. } => {}
            heard => return heard,
        }
    }
}

/// Appends to the log as a publisher does, but nobody hears it.
async fn unheard(server: &Server, event: &Event) -> Position {
    const SCRIPT: &str = r"
        local p = string.format('%.0f', redis.call('HGET', 'test:log', 'last') + 1)
        redis.call('HSET', 'test:log', 'last', p)
        for i = 3, #ARGV do
          local prev = redis.call('ZSCORE', 'test:active', ARGV[i]) or '0'
          redis.call('XADD', 'test:log:' .. ARGV[i], p .. '-0', 'v', prev, 'h', ARGV[1], 'f', ARGV[2])
          redis.call('ZADD', 'test:active', p, ARGV[i])
        end
        return p";
    let mut call = redis::cmd("EVAL");
    call.arg(SCRIPT).arg(0).arg(format!("{} {}", event.op, event.channel.unwrap())).arg(&*event.frame);
    for topic in &event.topics {
        call.arg(topic.to_string());
    }
    Position(call.query_async(&mut raw(server).await).await.unwrap())
}

/// The frames of a topic, in the order of the log.
async fn logged(server: &Server, topic: Topic) -> Vec<String> {
    type Entry = (String, Vec<String>);
    let mut raw = raw(server).await;
    let mut range = redis::cmd("XRANGE");
    let entries: Vec<Entry> = range.arg(format!("test:log:{topic}")).arg("-").arg("+").query_async(&mut raw).await.unwrap();
    entries.into_iter().map(|(_, fields)| fields[5].clone()).collect()
}

async fn subscribers(server: &Server, topic: Topic) -> u64 {
    let mut numsub = redis::cmd("PUBSUB");
    let answer: (String, u64) = numsub.arg("NUMSUB").arg(topic.to_string()).query_async(&mut raw(server).await).await.unwrap();
    answer.1
}

/// I7.
#[tokio::test]
async fn the_end_of_the_log_is_reached_though_it_is_of_a_topic_that_nobody_hears() {
    let server = redis!();
    let (mint, bus) = hearing(&server, guild()).await;
    bus.publish(&[mint.event(&[guild()], "elsewhere")]).await.unwrap();
    bus.flush().await;
    let head = bus.head().await.unwrap();
    assert!(head > bus.start());
    loop {
        match soon(bus.next()).await {
            Heard::Upto { p } if p >= head => break,
            Heard::Upto { .. } => {}
            other => panic!("{other:?}"),
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_event_is_heard_once_on_each_of_its_topics() {
    let server = redis!();
    let (mint, topic, user) = (Mint::new(), guild(), Topic::User(user()));
    let (here, there) = (RedisPublisher::start(&at(&server)).await.unwrap(), RedisBus::start(&at(&server)).await.unwrap());
    there.join(topic).await.unwrap();
    there.join(user).await.unwrap();

    let first = mint.event(&[topic, user, topic], "one");
    here.publish(std::slice::from_ref(&first)).await.unwrap();
    let (event, p) = lasting(next(&there).await);
    assert_eq!(event, as_heard(&first, topic));
    assert_eq!(lasting(next(&there).await), (as_heard(&first, user), p));
    assert!(p > there.start());

    // Publishing again, by whomever, does nothing.
    here.flush().await;
    let second = mint.event(&[user], "two");
    there.publish(&[first.clone(), second.clone()]).await.unwrap();
    let (event, later) = lasting(next(&there).await);
    assert_eq!(event, as_heard(&second, user));
    assert!(later > p);
    assert_eq!(logged(&server, topic).await, [&*first.frame]);
    assert_eq!(logged(&server, user).await, [&*first.frame, &*second.frame]);
}

#[tokio::test(flavor = "multi_thread")]
async fn who_listens_on_a_channels_own_name_gets_plain_frames() {
    let server = redis!();
    let topic = guild();
    let (mint, bus) = hearing(&server, topic).await;
    let message = mint.event(&[topic], "hi");
    let channel = message.channel.unwrap();
    let (sender, mut pushes) = mpsc::unbounded_channel();
    let config = AsyncConnectionConfig::new().set_push_sender(sender);
    let client = redis::Client::open(format!("{}/?protocol=resp3", server.url())).unwrap();
    let mut plain = client.get_multiplexed_async_connection_with_config(&config).await.unwrap();
    plain.subscribe(format!("channel:{channel}")).await.unwrap();
    let mut heard = async || loop {
        let push = soon(pushes.recv()).await.unwrap();
        if push.kind == PushKind::Message {
            return redis::from_redis_value::<String>(push.data[1].clone()).unwrap();
        }
    };

    bus.publish(std::slice::from_ref(&message)).await.unwrap();
    let (_, p) = lasting(next(&bus).await);
    assert_eq!(heard().await, message.text_at(Some(p)));

    let typing = Event { id: EventId::NONE, op: "TYPING".into(), frame: r#"{"op":"TYPING","d":{}}"#.into(), ..message.clone() };
    bus.pass(typing.clone()).await.unwrap();
    assert_eq!(heard().await, &*typing.frame);
    assert_eq!(next(&bus).await, Heard::Event { event: as_heard(&typing, topic), p: None });

    // Other ops are told on topics alone.
    let other = Event { op: "CHANNEL_CREATE".into(), ..mint.event(&[topic], "other") };
    let last = Event { channel: Some(channel), ..mint.event(&[topic], "last") };
    bus.publish(&[Event { channel: Some(channel), ..other }, last.clone()]).await.unwrap();
    assert!(heard().await.contains(r#""content":"last""#));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_topic_is_heard_when_join_returns_and_until_the_last_leave() {
    let server = redis!();
    let (topic, other) = (guild(), guild());
    let (mint, bus) = hearing(&server, topic).await;
    assert_eq!(subscribers(&server, topic).await, 1);
    bus.join(topic).await.unwrap();
    bus.leave(topic);
    bus.join(other).await.unwrap();
    assert_eq!(subscribers(&server, topic).await, 1);
    let event = mint.event(&[topic], "one");
    bus.publish(std::slice::from_ref(&event)).await.unwrap();
    assert_eq!(lasting(next(&bus).await).0, as_heard(&event, topic));

    bus.leave(topic);
    bus.leave(other);
    // Subscriptions change in their order: when this one is there, those are gone.
    bus.join(guild()).await.unwrap();
    assert_eq!((subscribers(&server, topic).await, subscribers(&server, other).await), (0, 0));
    // Missed while nobody was there, so it is no gap for who comes back.
    bus.publish(&[mint.event(&[topic], "unheard")]).await.unwrap();
    bus.flush().await;
    bus.join(topic).await.unwrap();
    let event = mint.event(&[topic], "two");
    bus.publish(std::slice::from_ref(&event)).await.unwrap();
    assert_eq!(lasting(next(&bus).await).0, as_heard(&event, topic));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_join_that_was_given_up_is_undone() {
    let mut server = redis!();
    let (topic, other) = (guild(), guild());
    let bus = RedisBus::start(&at(&server)).await.unwrap();
    bus.join(other).await.unwrap();
    server.kill();
    becomes(bus.connected(), false).await;
    assert!(timeout(Duration::ZERO, bus.join(topic)).await.is_err());
    assert!(timeout(Duration::ZERO, bus.join(other)).await.is_err());
    server.start();
    gap(next(&bus).await);
    becomes(bus.connected(), true).await;
    assert_eq!((subscribers(&server, topic).await, subscribers(&server, other).await), (0, 1));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_killed_redis_is_a_gap_and_then_everything_flows_again() {
    let mut server = redis!();
    let (topic, user) = (guild(), Topic::User(user()));
    let (mint, bus) = hearing(&server, topic).await;
    bus.join(user).await.unwrap();
    let epoch = bus.epoch();
    bus.publish(&[mint.event(&[topic], "before")]).await.unwrap();
    let (_, before) = lasting(next(&bus).await);

    server.kill();
    let waiting: Vec<_> = (0..300).map(|n| mint.event(&[topic, user][n % 3 % 2..][..1], &n.to_string())).collect();
    for event in &waiting {
        bus.publish(std::slice::from_ref(event)).await.unwrap();
    }
    server.start();
    let (p, stale) = gap(next(&bus).await);
    assert_eq!(stale, Stale::All);
    assert!(p > before);
    assert_ne!(bus.epoch(), epoch);

    // What waited went out in order.
    bus.flush().await;
    for topic in [topic, user] {
        let want: Vec<_> = waiting.iter().filter(|event| event.topics == [topic]).map(|event| event.frame.to_string()).collect();
        assert_eq!(logged(&server, topic).await, want);
    }
    // Both topics are heard again, in order.
    becomes(bus.connected(), true).await;
    let last = mint.event(&[topic, user], "after");
    bus.publish(std::slice::from_ref(&last)).await.unwrap();
    let mut told = p;
    loop {
        let (event, p) = lasting(next(&bus).await);
        assert!(p > told, "{p} {told}");
        told = p;
        if event.frame == last.frame {
            assert_eq!(event, as_heard(&last, topic));
            break;
        }
    }
    assert_eq!(lasting(next(&bus).await), (as_heard(&last, user), told));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_redis_with_an_old_dump_begins_a_new_log_above_the_lost_one() {
    let mut server = redis!();
    let topic = guild();
    let (mint, bus) = hearing(&server, topic).await;
    let kept = mint.event(&[topic], "kept");
    bus.publish(std::slice::from_ref(&kept)).await.unwrap();
    lasting(next(&bus).await);
    redis::cmd("SAVE").query_async::<()>(&mut raw(&server).await).await.unwrap();
    bus.publish(&[mint.event(&[topic], "lost")]).await.unwrap();
    let (_, lost) = lasting(next(&bus).await);
    let epoch = bus.epoch();

    server.kill();
    server.start();
    let (p, stale) = gap(next(&bus).await);
    assert_eq!(stale, Stale::All);
    assert_eq!(logged(&server, topic).await, [&*kept.frame]);
    assert!(p > lost);
    assert_ne!(bus.epoch(), epoch);
    bus.publish(&[mint.event(&[topic], "new")]).await.unwrap();
    assert!(lasting(next(&bus).await).1 > p);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_redis_that_stands_still_is_noticed() {
    let server = redis!();
    let topic = guild();
    let (mint, bus) = hearing(&server, topic).await;
    server.pause();
    becomes(bus.connected(), false).await;
    becomes(bus.publisher().connected(), false).await;
    let event = mint.event(&[topic], "waits");
    bus.publish(std::slice::from_ref(&event)).await.unwrap();
    server.resume();
    // The same log: what waits comes when it is published.
    assert_eq!(gap(next(&bus).await).1, Stale::Nothing);
    bus.flush().await;
    becomes(bus.connected(), true).await;
    let last = mint.event(&[topic], "last");
    bus.publish(std::slice::from_ref(&last)).await.unwrap();
    while lasting(next(&bus).await).0 != as_heard(&last, topic) {}
    assert_eq!(logged(&server, topic).await, [&*event.frame, &*last.frame]);
}

/// Passes bytes on until it is told to swallow those of the connections that are open.
struct Proxy {
    port: u16,
    swallow: Arc<Notify>,
}

impl Proxy {
    async fn start(to: u16) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let swallow = Arc::new(Notify::new());
        let told = swallow.clone();
        tokio::spawn(async move {
            while let Ok((mut client, _)) = listener.accept().await {
                let Ok(mut server) = TcpStream::connect(("127.0.0.1", to)).await else { continue };
                let swallow = told.clone().notified_owned();
                tokio::spawn(async move {
                    tokio::select! {
                        _ = copy_bidirectional(&mut client, &mut server) => {}
                        // Nothing is passed on any more, but both ends stay open.
                        () = swallow => std::future::pending().await,
                    }
                });
            }
        });
        Self { port, swallow }
    }

    fn swallow(&self) {
        self.swallow.notify_waiters();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_connection_that_died_without_a_word_is_noticed() {
    let server = redis!();
    let (mint, topic) = (Mint::new(), guild());
    let proxy = Proxy::start(server.port).await;
    let bus = RedisBus::start(&Redis::new(&format!("redis://127.0.0.1:{}", proxy.port)).unwrap().prefix("test:")).await.unwrap();
    let other = RedisPublisher::start(&at(&server)).await.unwrap();
    bus.join(topic).await.unwrap();
    let epoch = bus.epoch();
    proxy.swallow();
    let missed = mint.event(&[topic], "missed");
    other.publish(std::slice::from_ref(&missed)).await.unwrap();
    other.flush().await;
    let (p, stale) = gap(next(&bus).await);
    assert_eq!((bus.epoch(), stale), (epoch, Stale::Nothing));
    let (heard, at) = lasting(next(&bus).await);
    assert_eq!(heard, as_heard(&missed, topic));
    assert!(at > p);
    let event = mint.event(&[topic], "heard");
    other.publish(std::slice::from_ref(&event)).await.unwrap();
    let (heard, at) = lasting(next(&bus).await);
    assert_eq!(heard, as_heard(&event, topic));
    assert!(at > p);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_lost_on_the_way_is_read_from_the_log() {
    let server = redis!();
    let (topic, user) = (guild(), Topic::User(user()));
    let (mint, bus) = hearing(&server, topic).await;
    bus.join(user).await.unwrap();
    // One that others follow; it is on two topics, and so is what follows.
    let (lost, follows) = (mint.event(&[topic, user], "lost"), mint.event(&[topic, user], "follows"));
    let p = unheard(&server, &lost).await;
    bus.publish(std::slice::from_ref(&follows)).await.unwrap();
    let mut heard = Vec::new();
    for _ in 0..4 {
        heard.push(lasting(next(&bus).await));
    }
    let at = heard[3].1;
    assert!(at > p);
    // Which of the two topics is noticed first is the order of the publish.
    let all = [(&lost, topic, p), (&lost, user, p), (&follows, topic, at), (&follows, user, at)];
    let all = all.map(|(event, topic, p)| (as_heard(event, topic), p));
    assert!(heard.is_sorted_by_key(|row| row.1));
    assert!(all.iter().all(|row| heard.contains(row)), "{heard:?}");

    // And one that is the last.
    let last = mint.event(&[user], "last");
    let p = unheard(&server, &last).await;
    assert_eq!(lasting(next(&bus).await), (as_heard(&last, user), p));
    // Everything up to there was told.
    let event = mint.event(&[topic], "on it goes");
    bus.publish(std::slice::from_ref(&event)).await.unwrap();
    assert_eq!(lasting(next(&bus).await).0, as_heard(&event, topic));
}

#[tokio::test(flavor = "multi_thread")]
async fn what_belongs_before_what_was_told_is_stale() {
    let server = redis!();
    let (topic, other) = (guild(), guild());
    let (mint, bus) = hearing(&server, topic).await;
    bus.join(other).await.unwrap();
    let lost = unheard(&server, &mint.event(&[topic], "lost")).await;
    let event = mint.event(&[other], "told");
    bus.publish(std::slice::from_ref(&event)).await.unwrap();
    match next(&bus).await {
        // A look came between: it stands in its place.
        Heard::Event { p: Some(p), .. } if p == lost => assert_eq!(lasting(next(&bus).await).0, as_heard(&event, other)),
        told => {
            let (told, p) = lasting(told);
            assert_eq!(told, as_heard(&event, other));
            assert_eq!(gap(next(&bus).await), (p, Stale::Topics(vec![topic])));
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_trimmed_is_stale() {
    let server = redis!();
    let topic = guild();
    let (mint, bus) = hearing(&server, topic).await;
    unheard(&server, &mint.event(&[topic], "one")).await;
    let trimmed: u64 = redis::cmd("XTRIM")
        .arg(format!("test:log:{topic}"))
        .arg("MAXLEN")
        .arg(0)
        .query_async(&mut raw(&server).await)
        .await
        .unwrap();
    match next(&bus).await {
        // It was read before it was gone.
        Heard::Event { .. } => assert_eq!(trimmed, 1),
        heard => assert_eq!(gap(heard).1, Stale::Topics(vec![topic])),
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_forgotten_while_nothing_was_heard_is_stale() {
    let server = redis!();
    let topic = guild();
    let (mint, bus) = hearing(&server, topic).await;
    bus.publish(&[mint.event(&[topic], "one")]).await.unwrap();
    let (_, Position(p)) = lasting(next(&bus).await);
    // Something happened, and neither index nor stream has it any more when the bus is back.
    let mut forget = redis::pipe();
    forget.atomic().cmd("HSET").arg("test:log").arg("last").arg(p + 9).arg("floor").arg(p + 9);
    forget.cmd("CLIENT").arg("KILL").arg("TYPE").arg("pubsub");
    forget.exec_async(&mut raw(&server).await).await.unwrap();
    assert_eq!(gap(next(&bus).await), (Position(p), Stale::Nothing));
    assert_eq!(gap(next(&bus).await), (Position(p + 9), Stale::Topics(vec![topic])));
    bus.publish(&[mint.event(&[topic], "two")]).await.unwrap();
    assert!(lasting(next(&bus).await).1 > Position(p + 9));
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_stale_is_told_before_what_stands_behind_it_and_after_it() {
    let server = redis!();
    let (mint, whole, cut) = (Mint::new(), guild(), guild());
    let bus = RedisBus::start(&at(&server)).await.unwrap();
    bus.join(whole).await.unwrap();
    bus.join(cut).await.unwrap();
    bus.publish(&[mint.event(&[whole], "one")]).await.unwrap();
    let (_, Position(p)) = lasting(next(&bus).await);
    // Both had an event while nothing was heard, and one stream has lost it.
    let mut happen = redis::pipe();
    happen.atomic().cmd("ZADD").arg("test:active").arg(p + 5).arg(cut.to_string()).arg(p + 7).arg(whole.to_string());
    let entry = [("v", p.to_string()), ("h", "MESSAGE_CREATE -".to_owned()), ("f", "{}".to_owned())];
    happen.cmd("XADD").arg(format!("test:log:{whole}")).arg(format!("{}-0", p + 7)).arg(&entry);
    happen.cmd("HSET").arg("test:log").arg("last").arg(p + 9);
    happen.cmd("CLIENT").arg("KILL").arg("TYPE").arg("pubsub");
    happen.exec_async(&mut raw(&server).await).await.unwrap();
    assert_eq!(gap(next(&bus).await), (Position(p), Stale::Nothing));
    assert_eq!(gap(next(&bus).await), (Position(p), Stale::Topics(vec![cut])));
    assert_eq!(lasting(next(&bus).await).1, Position(p + 7));
    assert_eq!(gap(next(&bus).await), (Position(p + 9), Stale::Topics(vec![cut])));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stretch_of_the_log_is_told_again() {
    let server = redis!();
    let (mint, guilds, user) = (Mint::new(), [guild(), guild()], Topic::User(user()));
    let bus = RedisBus::start(&at(&server)).await.unwrap();
    for topic in guilds {
        bus.join(topic).await.unwrap();
    }
    let events = [
        mint.event(&[guilds[0]], "0"),
        mint.event(&[guilds[1]], "1"),
        mint.event(&[guilds[0], user], "2"),
        mint.event(&[guild()], "not asked for"),
        mint.event(&[guilds[1]], "4"),
    ];
    bus.publish(&events).await.unwrap();
    let mut places = Vec::new();
    for _ in 0..4 {
        places.push(lasting(next(&bus).await).1);
    }
    let topics = [guilds[0], guilds[1], user];
    let all = bus.replay(&topics, bus.start(), places[3]).await.unwrap();
    assert!(all.lost.is_empty());
    assert_eq!(all.events.iter().map(|logged| logged.p).collect::<Vec<_>>(), places);
    let frames: Vec<_> = all.events.iter().map(|logged| logged.event.frame.clone()).collect();
    assert_eq!(frames, [0, 1, 2, 4].map(|n| events[n].frame.clone()));
    assert_eq!(all.events[2].event.topics.len(), 2);
    // A part of it, and of some topics only.
    let some = bus.replay(&topics[1..], places[0], places[2]).await.unwrap();
    assert_eq!(some.events.iter().map(|logged| logged.p).collect::<Vec<_>>(), [places[1], places[2]]);
    let none = bus.replay(&topics, places[3], places[3]).await.unwrap();
    assert_eq!((none.events.len(), none.lost.len()), (0, 0));
    // What is gone is said to be lost; the rest is told.
    redis::cmd("DEL").arg(format!("test:log:{}", guilds[1])).exec_async(&mut raw(&server).await).await.unwrap();
    let rest = bus.replay(&topics, bus.start(), places[3]).await.unwrap();
    assert_eq!((rest.events.len(), rest.lost), (2, vec![guilds[1]]));
    redis::cmd("HSET").arg("test:log").arg("floor").arg(places[0].0).exec_async(&mut raw(&server).await).await.unwrap();
    assert_eq!(bus.replay(&topics, bus.start(), places[3]).await.unwrap().lost, topics);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_the_log_does_not_have_is_stale() {
    let server = redis!();
    let topic = guild();
    let (mint, bus) = hearing(&server, topic).await;
    bus.publish(&[mint.event(&[topic], "one")]).await.unwrap();
    let (_, Position(p)) = lasting(next(&bus).await);
    let mut raw = raw(&server).await;
    let say = |p: u64, prev: u64| format!("{p} {prev} MESSAGE_CREATE - {{\"op\":\"MESSAGE_CREATE\",\"d\":{{}}}}");
    // In place, told twice, and one whose predecessor never came.
    for text in [say(p + 1, p), say(p + 1, p), say(p + 5, p + 3), say(p + 6, p + 5)] {
        raw.publish::<_, _, ()>(topic.to_string(), text).await.unwrap();
    }
    assert_eq!(lasting(next(&bus).await).1, Position(p + 1));
    // That one with what is missing before it.
    assert_eq!(gap(next(&bus).await), (Position(p + 5), Stale::Topics(vec![topic])));
    assert_eq!(lasting(next(&bus).await).1, Position(p + 6));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_gateway_that_does_not_read_is_cut_and_told_of_the_gap() {
    let server = redis!();
    let topic = guild();
    let (mint, bus) = hearing(&server, topic).await;
    let mut connected = bus.connected();
    let mut raw = raw(&server).await;
    for _ in 0..40 {
        let mut burst = redis::Pipeline::new();
        for _ in 0..1_000 {
            burst.publish(topic.to_string(), "0 0 TYPING - {}").ignore();
        }
        burst.query_async::<()>(&mut raw).await.unwrap();
    }
    soon(connected.changed()).await.unwrap();
    let mut heard = 0;
    while !matches!(next(&bus).await, Heard::Gap { .. }) {
        heard += 1;
    }
    assert!(heard < 40_000, "{heard}");
    let event = mint.event(&[topic], "after");
    bus.publish(std::slice::from_ref(&event)).await.unwrap();
    while !matches!(next(&bus).await, Heard::Event { p: Some(_), .. }) {}
}

#[tokio::test(flavor = "multi_thread")]
async fn a_full_queue_refuses_and_drains_in_order() {
    let mut server = redis!();
    let (mint, topic) = (Mint::new(), guild());
    let publisher = RedisPublisher::start(&at(&server).queue(3)).await.unwrap();
    server.kill();
    let events: Vec<_> = (0..5).map(|n| mint.event(&[topic], &n.to_string())).collect();
    publisher.publish(&events[..2]).await.unwrap();
    publisher.ready().unwrap();
    // All of them or none.
    assert_eq!(publisher.publish(&events[3..]).await.unwrap_err().code, Code::UNAVAILABLE);
    publisher.publish(&events[2..3]).await.unwrap();
    let refused = publisher.ready().unwrap_err();
    assert_eq!((refused.code, refused.retry_after.is_some(), publisher.is_full()), (Code::UNAVAILABLE, true, true));
    assert_eq!(publisher.publish(&events[3..4]).await.unwrap_err().code, Code::UNAVAILABLE);

    server.start();
    soon(publisher.flush()).await;
    publisher.ready().unwrap();
    assert_eq!(publisher.queued(), 0);
    let want: Vec<_> = events[..3].iter().map(|event| event.frame.to_string()).collect();
    assert_eq!(logged(&server, topic).await, want);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_redis_without_memory_is_waited_for() {
    let server = redis!();
    let (mint, topics) = (Mint::new(), [guild(), guild()]);
    let publisher = RedisPublisher::start(&at(&server)).await.unwrap();
    let mut raw = raw(&server).await;
    let mut memory = async |most: &str| {
        redis::cmd("CONFIG").arg(&["SET", "maxmemory", most]).query_async::<()>(&mut raw).await.unwrap();
    };
    memory("1").await;
    let events: Vec<_> = (0..20).map(|n| mint.event(&topics[n % 2..][..1], &n.to_string())).collect();
    let mut connected = publisher.connected();
    publisher.publish(&events).await.unwrap();
    soon(connected.changed()).await.unwrap();
    assert_eq!(publisher.queued(), 20);
    memory("0").await;
    soon(publisher.flush()).await;
    for topic in topics {
        let want: Vec<_> = events.iter().filter(|event| event.topics == [topic]).map(|event| event.frame.to_string()).collect();
        assert_eq!(logged(&server, topic).await, want);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_log_that_was_wiped_is_opened_anew() {
    let server = redis!();
    let topic = guild();
    let (mint, bus) = hearing(&server, topic).await;
    let epoch = bus.epoch();
    let mut raw = raw(&server).await;
    redis::cmd("SCRIPT").arg("FLUSH").query_async::<()>(&mut raw).await.unwrap();
    let event = mint.event(&[topic], "one");
    bus.publish(std::slice::from_ref(&event)).await.unwrap();
    let (heard, before) = lasting(next(&bus).await);
    assert_eq!((heard, bus.epoch()), (as_heard(&event, topic), epoch.clone()));

    redis::cmd("FLUSHALL").query_async::<()>(&mut raw).await.unwrap();
    let (p, stale) = gap(next(&bus).await);
    assert_eq!(stale, Stale::All);
    assert!(p > before);
    assert_ne!(bus.epoch(), epoch);
    becomes(bus.connected(), true).await;
    bus.publish(&[mint.event(&[topic], "two")]).await.unwrap();
    assert!(lasting(next(&bus).await).1 > p);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_event_that_may_have_been_forgotten_becomes_a_resync() {
    let server = redis!();
    let (topic, user) = (guild(), Topic::User(user()));
    let (mint, bus) = hearing(&server, topic).await;
    bus.join(user).await.unwrap();
    let old = Snowflake::new(SystemClock.now_micros() / 1000 - 600_000, 0, Worker::default()).unwrap();
    let fresh = mint.event(&[topic, user], "fresh");
    bus.publish(&[event(old.into(), &[topic], "old")]).await.unwrap();
    bus.flush().await;
    bus.publish(std::slice::from_ref(&fresh)).await.unwrap();
    let (resync, p) = lasting(next(&bus).await);
    assert_eq!((&*resync.op, &resync.topics[..]), ("RESYNC", &[topic][..]));
    let frame = format!(r#"{{"op":"RESYNC","d":{{"topics":["{topic}"],"epoch":"{}"}}}}"#, bus.epoch());
    assert_eq!(&*resync.frame, frame);
    let (heard, later) = lasting(next(&bus).await);
    assert_eq!(heard, as_heard(&fresh, topic));
    assert!(later > p);
}

#[tokio::test(flavor = "multi_thread")]
async fn topics_without_news_are_forgotten() {
    let server = redis!();
    let (mint, topic) = (Mint::new(), guild());
    drop(RedisPublisher::start(&at(&server)).await.unwrap());
    let mut raw = raw(&server).await;
    raw.zadd::<_, _, _, ()>("test:active", "guild:old", 5).await.unwrap();
    raw.hset::<_, _, _, ()>("test:log", "floor", 1).await.unwrap();
    let publisher = RedisPublisher::start(&at(&server)).await.unwrap();
    publisher.publish(&[mint.event(&[topic], "new")]).await.unwrap();
    publisher.flush().await;
    let active: Vec<String> = raw.zrange("test:active", 0, -1).await.unwrap();
    assert_eq!(active, [topic.to_string()]);
    let (last, floor): (u64, u64) = redis::cmd("HMGET").arg(&["test:log", "last", "floor"]).query_async(&mut raw).await.unwrap();
    assert!(1 < floor && floor < last - 3_000_000_000, "{floor} {last}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_redis_that_cannot_be_used_is_refused_with_the_mend() {
    for (options, mend) in [
        (&["--maxmemory-policy", "allkeys-lru"][..], "set maxmemory-policy to noeviction"),
        (&["--cluster-enabled", "yes"], "use one Redis"),
        (&["--requirepass", "hunter2hunter2"], "give the right ones"),
    ] {
        let server = redis!(options);
        let redis = Redis::new(&format!("redis://:hunter3hunter3@127.0.0.1:{}", server.port)).unwrap();
        for error in [RedisPublisher::start(&redis).await.map(drop), RedisBus::start(&redis).await.map(drop)] {
            match error {
                Err(Error::Unfit(text)) => assert!(text.contains(mend) && !text.contains("hunter3"), "{text}"),
                other => panic!("{options:?}: {other:?}"),
            }
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn all_may_start_before_redis() {
    let mut server = redis!();
    server.kill();
    let (mint, topic) = (Mint::new(), guild());
    let bus = RedisBus::start(&at(&server)).await.unwrap();
    let event = mint.event(&[topic], "early");
    bus.publish(std::slice::from_ref(&event)).await.unwrap();
    let joined = tokio::spawn({
        let bus = bus.clone();
        async move { bus.join(topic).await }
    });
    server.start();
    gap(next(&bus).await);
    assert!(!bus.epoch().is_empty());
    soon(joined).await.unwrap().unwrap();
    bus.flush().await;
    assert_eq!(logged(&server, topic).await, [&*event.frame]);
}

const FIRST: Attempt = Attempt { client: 0, number: 0 };

/// A user's session that is to have a device's place.
fn holder(user: UserId, device: Option<&Device>, session: SessionId) -> Holder {
    Holder { user, device: device.cloned(), session, attempt: FIRST }
}

fn own(user: UserId, device: Option<&Device>, session: SessionId, fence: u64, silent: u64) -> Claim {
    Claim { holder: holder(user, device, session), fence, silent: Duration::from_secs(silent) }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_later_of_two_gateways_has_the_device() {
    let server = redis!();
    let (user, phone) = (user(), Device::new("Ada's \"phone\" \\ ☎").unwrap());
    let [here, there] = ["here", "there"].map(|instance| RedisClaims::new(&at(&server), instance, 8));
    let bus = RedisBus::start(&at(&server)).await.unwrap();
    bus.join(Topic::User(user)).await.unwrap();
    let sessions = [SessionId::new(Uuid::new_v4()), SessionId::new(Uuid::new_v4())];
    for device in [None, Some(&phone)] {
        let first = here.claim(&holder(user, device, sessions[0]), false).await.unwrap().unwrap();
        let second = there.claim(&holder(user, device, sessions[1]), false).await.unwrap().unwrap();
        assert!(second.fence > first.fence);
        let over = |fence| Eviction { device: device.cloned(), fence, attempt: Some(FIRST) };
        assert_eq!(second.evicted, [over(second.fence)]);
        for fence in [first.fence, second.fence] {
            assert_eq!(next(&bus).await, Heard::Evict { user, over: over(fence) });
        }
        // What the evicted one does late changes nothing.
        here.release(user, device, first.fence).await.unwrap();
        assert_eq!(here.refresh(&[own(user, device, sessions[0], first.fence, 0)]).await.unwrap(), [0]);
        let second = own(user, device, sessions[1], second.fence, 0);
        assert_eq!(there.refresh(std::slice::from_ref(&second)).await.unwrap(), NOBODY);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn one_device_too_many_evicts_the_longest_silent_wherever_it_is() {
    let server = redis!();
    let user = user();
    let [here, there] = ["here", "there"].map(|instance| RedisClaims::new(&at(&server), instance, 8));
    let session = SessionId::new(Uuid::new_v4());
    let mut mine = Vec::new();
    for n in 0..8 {
        let device = Device::new(&format!("d{n}")).unwrap();
        let claimed = here.claim(&holder(user, Some(&device), session), false).await.unwrap().unwrap();
        assert_eq!(claimed.evicted.len(), 1);
        mine.push(own(user, Some(&device), session, claimed.fence, if n == 5 { 90 } else { 10 }));
    }
    assert_eq!(here.refresh(&mine).await.unwrap(), NOBODY);
    let bus = RedisBus::start(&at(&server)).await.unwrap();
    bus.join(Topic::User(user)).await.unwrap();
    let ninth = there.claim(&holder(user, None, session), false).await.unwrap().unwrap();
    let silent = Eviction { device: mine[5].holder.device.clone(), fence: mine[5].fence + 1, attempt: None };
    assert_eq!(ninth.evicted, [Eviction { device: None, fence: ninth.fence, attempt: Some(FIRST) }, silent]);
    for over in ninth.evicted {
        assert_eq!(next(&bus).await, Heard::Evict { user, over });
    }
    // It does not come back by saying that it is there.
    assert_eq!(here.refresh(&mine).await.unwrap(), [5]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_redis_that_lost_its_claims_is_told_them_again() {
    let mut server = redis!();
    let (user, session) = (user(), SessionId::new(Uuid::new_v4()));
    let [here, there] = ["here", "there"].map(|instance| RedisClaims::new(&at(&server), instance, 8));
    let older = here.claim(&holder(user, None, session), false).await.unwrap().unwrap().fence;
    let newer = there.claim(&holder(user, None, session), false).await.unwrap().unwrap().fence;
    server.kill();
    server.start();
    let bus = RedisBus::start(&at(&server)).await.unwrap();
    bus.join(Topic::User(user)).await.unwrap();
    // The older one did not hear that it is over. Whoever speaks first, the larger fence stays.
    let [older, newer] = [older, newer].map(|fence| own(user, None, session, fence, 0));
    assert_eq!(here.refresh(std::slice::from_ref(&older)).await.unwrap(), NOBODY);
    assert_eq!(there.refresh(std::slice::from_ref(&newer)).await.unwrap(), NOBODY);
    assert_eq!(
        next(&bus).await,
        Heard::Evict { user, over: Eviction { device: None, fence: newer.fence, attempt: Some(FIRST) } }
    );
    assert_eq!(here.refresh(std::slice::from_ref(&older)).await.unwrap(), [0]);
    assert_eq!(there.refresh(std::slice::from_ref(&newer)).await.unwrap(), NOBODY);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_claim_is_given_up_when_redis_stays_away() {
    let mut server = redis!();
    let claims = RedisClaims::new(&at(&server), "here", 8);
    server.kill();
    let error = soon(claims.claim(&holder(user(), None, SessionId::new(Uuid::new_v4())), false)).await.unwrap_err();
    assert_eq!((error.code, error.retry_after.is_some()), (Code::UNAVAILABLE, true));
    // And works on the same object when it is back.
    server.start();
    claims.claim(&holder(user(), None, SessionId::new(Uuid::new_v4())), false).await.unwrap();
}

/// A relay asks before it looks for rows.
#[tokio::test(flavor = "multi_thread")]
async fn a_relay_is_told_which_events_the_log_has() {
    let server = redis!();
    let (redis, mint) = (at(&server), Mint::new());
    let (publisher, marks) = (RedisPublisher::start(&redis).await.unwrap(), RedisMarks::new(&redis));
    let events: Vec<_> = (0..4).map(|_| mint.event(&[guild()], "hi")).collect();
    let ids: Vec<_> = events.iter().map(|event| event.id).collect();
    assert!(marks.known(&ids).await.unwrap().is_empty());
    assert!(marks.known(&[]).await.unwrap().is_empty());
    publisher.publish(&[events[0].clone(), events[2].clone()]).await.unwrap();
    publisher.flush().await;
    assert_eq!(marks.known(&ids).await.unwrap(), [ids[0], ids[2]].into());
}

#[tokio::test]
async fn marks_grow_and_belong_to_one_log() {
    let mut server = redis!();
    let redis = at(&server);
    let (marks, other) = (RedisMarks::new(&redis), RedisMarks::new(&redis));
    let begun = SystemClock.now_micros() / 1_000;
    let first = soon(marks.marks()).await.unwrap();
    assert!(first.done.is_empty() && first.begun.abs_diff(begun) < 60_000, "{first:?}");

    let done = |shards: &[(u16, u64)]| shards.iter().copied().collect::<HashMap<_, _>>();
    marks.mark(&first.epoch, &done(&[(0, 1_000), (15, 2_000)])).await.unwrap();
    // Another relay, which is behind in one shard and ahead in another.
    other.mark(&first.epoch, &done(&[(0, 3_000), (15, 500), (3, 7)])).await.unwrap();
    other.mark("another log", &done(&[(0, 9_000)])).await.unwrap();
    let now = other.marks().await.unwrap();
    assert_eq!(now.done, done(&[(0, 3_000), (3, 7), (15, 2_000)]));
    assert_eq!((&now.epoch, now.begun), (&first.epoch, first.begun));

    server.kill();
    assert_eq!(marks.marks().await.unwrap_err().code, Code::UNAVAILABLE);
    server.start();
    let anew = soon(marks.marks()).await.unwrap();
    assert!(anew.epoch != first.epoch && anew.done.is_empty() && anew.begun >= first.begun, "{anew:?}");
    // A relay that does not know of it yet marks nothing.
    other.mark(&first.epoch, &done(&[(0, 4_000)])).await.unwrap_or_default();
    assert!(marks.marks().await.unwrap().done.is_empty());
}

/// A clock that is off by so many microseconds.
struct Off(i64);

impl Clock for Off {
    fn now_micros(&self) -> u64 {
        SystemClock.now_micros().saturating_add_signed(self.0)
    }
}

#[tokio::test]
async fn a_clock_is_compared_with_redis() {
    const HOUR: i64 = 3_600_000_000;
    let mut server = redis!();
    let clock = RedisClock::new(&at(&server));
    assert_eq!(soon(clock.ahead(&Off(0))).await.unwrap(), 0, "an answer within another second is no difference");
    for off in [HOUR, -HOUR] {
        // However long the answer took, it explains no hour.
        let ahead = soon(clock.ahead(&Off(off))).await.unwrap();
        assert_eq!(ahead.signum(), off.signum());
        assert!((HOUR - 60_000_000..=HOUR).contains(&ahead.abs()), "{ahead}");
    }
    server.kill();
    assert_eq!(soon(clock.ahead(&Off(HOUR))).await.unwrap_err().code, Code::UNAVAILABLE);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_session_resumes_on_any_gateway_unless_another_has_its_place() {
    let server = redis!();
    let (user, session, other) = (user(), SessionId::new(Uuid::new_v4()), SessionId::new(Uuid::new_v4()));
    let [here, there] = ["here", "there"].map(|name| RedisClaims::new(&at(&server), name, 8));
    let first = here.claim(&holder(user, None, session), true).await.unwrap().expect("nobody has the place");
    let again = there.claim(&holder(user, None, session), true).await.unwrap().expect("it is its own");
    assert!(again.fence > first.fence);
    assert_eq!(here.claim(&holder(user, None, other), true).await.unwrap(), None);
    // What was refused changed nothing.
    assert_eq!(there.refresh(&[own(user, None, session, again.fence, 0)]).await.unwrap(), NOBODY);
    here.claim(&holder(user, None, other), false).await.unwrap().unwrap();
    assert_eq!(there.claim(&holder(user, None, session), true).await.unwrap(), None);
}

/// A gateway asks Redis again where the answer was lost, and a client may have gone elsewhere meanwhile.
#[tokio::test(flavor = "multi_thread")]
async fn an_attempt_that_was_given_up_takes_no_place_from_a_later_one() {
    let server = redis!();
    let (user, session, other) = (user(), SessionId::new(Uuid::new_v4()), SessionId::new(Uuid::new_v4()));
    let [here, there] = ["here", "there"].map(|name| RedisClaims::new(&at(&server), name, 8));
    let attempt = |session, client, number| {
        let attempt = Attempt { client, number };
        Holder { attempt, ..holder(user, None, session) }
    };
    here.claim(&attempt(session, 1, 9), true).await.unwrap().expect("nobody has the place");
    let later = there.claim(&attempt(session, 1, 10), true).await.unwrap().expect("it is the later one");
    for (of, resumes) in [(session, true), (other, false)] {
        assert_eq!(here.claim(&attempt(of, 1, 9), resumes).await.unwrap(), None);
    }
    // What was refused changed nothing, and what is said of a place keeps whose it is.
    let own = Claim { holder: attempt(session, 1, 10), fence: later.fence, silent: Duration::ZERO };
    assert_eq!(there.refresh(&[own]).await.unwrap(), NOBODY);
    assert_eq!(here.claim(&attempt(session, 1, 9), true).await.unwrap(), None);
    // The same one asked again changes nothing either, unless it is asked elsewhere.
    let again = there.claim(&attempt(session, 1, 10), true).await.unwrap().unwrap();
    assert_eq!((again.fence, again.evicted), (later.fence, later.evicted));
    let mut fence = later.fence;
    for next in [attempt(session, 1, 10), attempt(session, 2, 0), attempt(session, 1, 9)] {
        let claimed = here.claim(&next, true).await.unwrap().expect("it is no earlier one");
        assert!(claimed.fence > fence, "{next:?}");
        fence = claimed.fence;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_redis_that_lost_its_claims_takes_no_given_up_attempt_for_the_later_one() {
    let server = redis!();
    let (user, session) = (user(), SessionId::new(Uuid::new_v4()));
    let [here, there] = ["here", "there"].map(|name| RedisClaims::new(&at(&server), name, 8));
    let attempt = |number| Holder { attempt: Attempt { client: 1, number }, ..holder(user, None, session) };
    let later = there.claim(&attempt(2), true).await.unwrap().unwrap();
    redis::cmd("FLUSHALL").exec_async(&mut raw(&server).await).await.unwrap();
    let late = here.claim(&attempt(1), true).await.unwrap().expect("nobody is known to have the place");
    assert!(late.fence > later.fence);
    assert!(!late.evicted[0].ends(later.fence, attempt(2).attempt));
    let own = Claim { holder: attempt(2), fence: later.fence, silent: Duration::ZERO };
    assert_eq!(there.refresh(&[own]).await.unwrap(), NOBODY);
    let lost = Claim { holder: attempt(1), fence: late.fence, silent: Duration::ZERO };
    assert_eq!(here.refresh(&[lost]).await.unwrap(), [0]);
}
