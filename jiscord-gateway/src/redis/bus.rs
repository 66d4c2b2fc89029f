//! Hears the topics that a gateway joins, over one subscribed connection.
//!
//! The connection speaks RESP3, so that subscriptions, their confirmations, the watchdog's questions and the position at which
//! hearing begins share one order: what was published before an answer was written comes before it. What it hears waits in a
//! bounded line; when that is full the connection is cut, as Redis itself cuts a subscriber that does not read.
//!
//! Every connection after the first one is told as a gap, since what was published in between was not heard.

use std::{
    collections::{HashMap, HashSet},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use async_trait::async_trait;
use jiscord_core::{Code, Event, Fault, Position, Topic, event::Publish, fault};
use redis::{PushInfo, PushKind, Value, aio::MultiplexedConnection};
use tokio::{
    sync::{Notify, OwnedSemaphorePermit, Semaphore, mpsc, watch},
    task::JoinHandle,
    time::{Instant, sleep, sleep_until},
};

use super::{
    link::{Backoff, Error, Link, Redis, Result, WATCH, answer},
    payload::{self, Said},
    publisher::RedisPublisher,
};
use crate::bus::{Bus, Heard};

/// How many things heard may wait for the gateway, and how many bytes.
const LINE: usize = 32_768;
const LINE_BYTES: usize = 64 << 20;
/// How many topics are subscribed to by one command.
const CHUNK: usize = 256;

/// The bus between gateways and publishers, on one Redis.
pub struct RedisBus {
    publisher: RedisPublisher,
    shared: Arc<Shared>,
    start: Position,
    epoch: Mutex<String>,
    ear: tokio::sync::Mutex<Ear>,
    task: JoinHandle<()>,
}

struct Shared {
    redis: Redis,
    topics: Mutex<Topics>,
    /// Topics were joined or left.
    changed: Notify,
    /// The newest connection that the gateway has not begun to hear.
    fresh: Mutex<Option<Line>>,
    refreshed: Notify,
    connected: watch::Sender<bool>,
}

#[derive(Default)]
struct Topics {
    wanted: HashMap<Topic, Wanted>,
    /// What was joined for the first time, or left for the last, since it was last looked at.
    dirty: HashSet<Topic>,
}

struct Wanted {
    joins: usize,
    /// Its subscription is confirmed.
    heard: watch::Sender<bool>,
}

/// What one connection hears.
struct Line {
    epoch: String,
    /// Everything above it is heard.
    from: Position,
    heard: mpsc::Receiver<Push>,
}

/// Something heard, and its room in the line.
type Push = (PushInfo, OwnedSemaphorePermit);

/// Where the gateway is in what it hears.
#[derive(Default)]
struct Ear {
    line: Option<mpsc::Receiver<Push>>,
    from: Position,
    /// The highest position told.
    told: Position,
    /// The last event of each topic since its subscription.
    last: HashMap<Topic, Position>,
    /// Told next.
    ahead: Option<Heard>,
}

impl RedisBus {
    /// Begins to listen, to no topic yet. Redis may be away, but if it is there and cannot be used as it is, that is an error.
    pub async fn start(redis: &Redis) -> Result<Arc<Self>> {
        let publisher = RedisPublisher::start(redis).await?;
        let shared = Arc::new(Shared {
            redis: redis.clone(),
            topics: Mutex::default(),
            changed: Notify::new(),
            fresh: Mutex::default(),
            refreshed: Notify::new(),
            connected: watch::Sender::new(false),
        });
        let (mut ear, mut epoch) = (Ear::default(), String::new());
        let first = match shared.connect().await {
            Ok((connected, line)) => {
                ear.begin(&line);
                (epoch, ear.line) = (line.epoch, Some(line.heard));
                shared.connected.send_replace(true);
                Some(connected)
            }
            Err(Error::Away(_)) => None,
            Err(error) => return Err(error),
        };
        let (start, epoch, ear) = (ear.from, Mutex::new(epoch), tokio::sync::Mutex::new(ear));
        let task = tokio::spawn(shared.clone().run(first));
        Ok(Arc::new(Self { publisher, shared, start, epoch, ear, task }))
    }

    /// What this bus publishes with.
    pub fn publisher(&self) -> &RedisPublisher {
        &self.publisher
    }

    /// Whether all joined topics are heard, and every change of that; for readiness.
    pub fn connected(&self) -> watch::Receiver<bool> {
        self.shared.connected.subscribe()
    }
}

impl Drop for RedisBus {
    fn drop(&mut self) {
        self.task.abort();
    }
}

#[async_trait]
impl Publish for RedisBus {
    async fn publish(&self, events: &[Event]) -> fault::Result<()> {
        self.publisher.publish(events).await
    }

    async fn pass(&self, event: Event) -> fault::Result<()> {
        self.publisher.pass(event).await
    }

    fn ready(&self) -> fault::Result<()> {
        self.publisher.ready()
    }

    async fn flush(&self) {
        self.publisher.flush().await;
    }
}

#[async_trait]
impl Bus for RedisBus {
    fn epoch(&self) -> String {
        self.epoch.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn start(&self) -> Position {
        self.start
    }

    /// While Redis is away it waits; whoever does not want to wait drops it, which leaves the topic.
    async fn join(&self, topic: Topic) -> fault::Result<()> {
        let mut heard = self.shared.join(topic);
        let mut leaving = Leaving { shared: &self.shared, topic: Some(topic) };
        if heard.wait_for(|heard| *heard).await.is_err() {
            // More leaves than joins: somebody else took this one's.
            leaving.topic = None;
            return Err(Fault::new(Code::INTERNAL, "the topic was left while it was joined"));
        }
        leaving.topic = None;
        Ok(())
    }

    fn leave(&self, topic: Topic) {
        self.shared.leave(topic);
    }

    async fn next(&self) -> Heard {
        let mut ear = self.ear.lock().await;
        loop {
            if let Some(heard) = ear.ahead.take() {
                return heard;
            }
            match &mut ear.line {
                Some(line) => match line.recv().await {
                    Some((push, _room)) => {
                        if let Some(heard) = ear.take(&push) {
                            return heard;
                        }
                    }
                    None => ear.line = None,
                },
                None => {
                    let fresh = self.shared.refreshed.notified();
                    let Some(line) = self.shared.fresh().take() else {
                        fresh.await;
                        continue;
                    };
                    ear.begin(&line);
                    *self.epoch.lock().unwrap_or_else(PoisonError::into_inner) = line.epoch;
                    ear.line = Some(line.heard);
                    return Heard::Gap { p: ear.from };
                }
            }
        }
    }
}

/// Leaves a topic whose join was given up.
struct Leaving<'a> {
    shared: &'a Shared,
    topic: Option<Topic>,
}

impl Drop for Leaving<'_> {
    fn drop(&mut self) {
        if let Some(topic) = self.topic {
            self.shared.leave(topic);
        }
    }
}

impl Ear {
    fn begin(&mut self, line: &Line) {
        (self.from, self.told) = (line.from, line.from);
        self.last.clear();
    }

    /// What something heard means, if it means anything.
    fn take(&mut self, push: &PushInfo) -> Option<Heard> {
        let topic: Topic = std::str::from_utf8(bytes(push.data.first()?)?).ok()?.parse().ok()?;
        match push.kind {
            // From here on every event of the topic is heard, and none before.
            PushKind::Subscribe | PushKind::Unsubscribe => {
                self.last.remove(&topic);
                None
            }
            PushKind::Message => match payload::read(topic, bytes(push.data.get(1)?)?) {
                Some(Said::Lasting { event, p, prev }) => self.place(topic, event, p, prev),
                Some(Said::Passing(heard)) => Some(heard),
                None => {
                    tracing::warn!(%topic, "what came over Redis cannot be read");
                    None
                }
            },
            _ => None,
        }
    }

    fn place(&mut self, topic: Topic, event: Event, p: Position, prev: Position) -> Option<Heard> {
        let last = self.last.get(&topic).copied();
        if p <= self.from || last.is_some_and(|last| p <= last) {
            return None;
        }
        self.last.insert(topic, p);
        let gap = Heard::Gap { p: self.told };
        self.told = self.told.max(p);
        let heard = Heard::Event { event, p: Some(p) };
        // The one before this one was not heard.
        if last.is_some_and(|last| last < prev) {
            tracing::warn!(%topic, %prev, "an event was lost on the way");
            self.ahead = Some(heard);
            return Some(gap);
        }
        Some(heard)
    }
}

fn bytes(value: &Value) -> Option<&[u8]> {
    match value {
        Value::BulkString(bytes) => Some(bytes),
        Value::SimpleString(text) => Some(text.as_bytes()),
        _ => None,
    }
}

/// A connection that hears what is wanted.
struct Connected {
    connection: MultiplexedConnection,
    epoch: String,
    subscribed: HashSet<Topic>,
    /// The connection is gone, or was cut since nobody took what it heard.
    lost: Arc<Notify>,
}

impl Shared {
    fn topics(&self) -> MutexGuard<'_, Topics> {
        self.topics.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn fresh(&self) -> MutexGuard<'_, Option<Line>> {
        self.fresh.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn join(&self, topic: Topic) -> watch::Receiver<bool> {
        let mut topics = self.topics();
        let Topics { wanted, dirty } = &mut *topics;
        let wanted = wanted.entry(topic).or_insert_with(|| {
            dirty.insert(topic);
            Wanted { joins: 0, heard: watch::Sender::new(false) }
        });
        wanted.joins += 1;
        self.changed.notify_one();
        wanted.heard.subscribe()
    }

    fn leave(&self, topic: Topic) {
        let mut topics = self.topics();
        let Some(wanted) = topics.wanted.get_mut(&topic) else { return };
        wanted.joins -= 1;
        if wanted.joins == 0 {
            topics.wanted.remove(&topic);
            topics.dirty.insert(topic);
            self.changed.notify_one();
        }
    }

    /// Connects and subscribes for as long as it is polled.
    async fn run(self: Arc<Self>, mut first: Option<Connected>) {
        let mut backoff = Backoff::default();
        loop {
            let connected = match first.take() {
                Some(connected) => Ok(connected),
                None => self.connect().await.map(|(connected, line)| {
                    *self.fresh() = Some(line);
                    self.refreshed.notify_one();
                    connected
                }),
            };
            let error = match connected {
                Ok(mut connected) => {
                    let begun = Instant::now();
                    self.confirm(connected.subscribed.iter());
                    self.connected.send_replace(true);
                    let error = self.keep(&mut connected).await;
                    // A connection that fails at once is no reason to try faster.
                    if begun.elapsed() > WATCH {
                        backoff = Backoff::default();
                    }
                    error
                }
                Err(error) => error,
            };
            self.connected.send_replace(false);
            for wanted in self.topics().wanted.values() {
                wanted.heard.send_replace(false);
            }
            if backoff.is_fresh() {
                let error = &error as &dyn std::error::Error;
                tracing::warn!(error, "topics are not heard; connecting to Redis again");
            }
            sleep(backoff.next()).await;
        }
    }

    /// A connection that hears all that is wanted, and what it hears.
    async fn connect(&self) -> Result<(Connected, Line)> {
        let (sender, heard) = mpsc::channel(LINE);
        let (sender, room, lost) = (Mutex::new(Some(sender)), Arc::new(Semaphore::new(LINE_BYTES)), Arc::new(Notify::new()));
        let cut = lost.clone();
        let hear = move |push: PushInfo| -> Result<(), ()> {
            let mut sender = sender.lock().unwrap_or_else(PoisonError::into_inner);
            let size = push.data.iter().filter_map(bytes).map(<[u8]>::len).sum::<usize>().clamp(1, LINE_BYTES);
            let here = push.kind != PushKind::Disconnection;
            let room = room.clone().try_acquire_many_owned(u32::try_from(size).unwrap_or(u32::MAX)).ok().filter(|_| here);
            let told = match (&*sender, room) {
                (Some(sender), Some(room)) => sender.try_send((push, room)).is_ok(),
                _ => false,
            };
            if told {
                return Ok(());
            }
            // Nothing after what was lost, so that the line ends where it stops being whole.
            *sender = None;
            cut.notify_one();
            Err(())
        };
        let Link { connection, .. } = self.redis.connect(Some(hear)).await?;
        let mut connected = Connected { connection, epoch: String::new(), subscribed: HashSet::new(), lost };
        {
            let mut topics = self.topics();
            topics.dirty = topics.wanted.keys().copied().collect();
        }
        self.subscribe(&mut connected).await?;
        // Asked on the same connection after all confirmations: what is above this position is heard.
        let log = self.redis.open(&mut connected.connection).await?;
        connected.epoch.clone_from(&log.epoch);
        Ok((connected, Line { epoch: log.epoch, from: log.last, heard }))
    }

    /// Subscribes to what was joined and unsubscribes from what was left. Returns what was joined and is heard now.
    async fn subscribe(&self, Connected { connection, subscribed, .. }: &mut Connected) -> Result<Vec<Topic>> {
        let (mut join, mut leave, mut heard) = (Vec::new(), Vec::new(), Vec::new());
        {
            let mut topics = self.topics();
            for topic in std::mem::take(&mut topics.dirty) {
                match (topics.wanted.contains_key(&topic), subscribed.contains(&topic)) {
                    (true, false) => join.push(topic),
                    (false, true) => leave.push(topic),
                    (true, true) => heard.push(topic),
                    (false, false) => {}
                }
            }
        }
        for chunk in leave.chunks(CHUNK) {
            for topic in chunk {
                subscribed.remove(topic);
            }
            connection.unsubscribe(names(chunk)).await?;
        }
        for chunk in join.chunks(CHUNK) {
            connection.subscribe(names(chunk)).await?;
            subscribed.extend(chunk);
        }
        heard.extend(join);
        Ok(heard)
    }

    fn confirm<'a>(&self, heard: impl Iterator<Item = &'a Topic>) {
        let topics = self.topics();
        for wanted in heard.filter_map(|topic| topics.wanted.get(topic)) {
            wanted.heard.send_replace(true);
        }
    }

    /// Keeps a connection until it fails.
    async fn keep(&self, connected: &mut Connected) -> Error {
        let lost = connected.lost.clone();
        let mut watch = Instant::now() + WATCH;
        loop {
            let kept = tokio::select! {
                () = lost.notified() => return Error::Away("the connection was cut".into()),
                () = self.changed.notified() => match self.subscribe(connected).await {
                    Ok(heard) => {
                        self.confirm(heard.iter());
                        Ok(())
                    }
                    Err(error) => Err(error),
                },
                () = sleep_until(watch) => {
                    watch = Instant::now() + WATCH;
                    self.watch(connected).await
                }
            };
            if let Err(error) = kept {
                return error;
            }
        }
    }

    /// Is the connection alive, and the log still the same?
    async fn watch(&self, Connected { connection, epoch, .. }: &mut Connected) -> Result<()> {
        let mut ask = redis::cmd("HGET");
        let now: Option<String> = answer(ask.arg(self.redis.log_key()).arg("epoch"), connection).await?;
        if now.as_ref() == Some(epoch) { Ok(()) } else { Err(Error::Away("the log was opened anew".into())) }
    }
}

fn names(topics: &[Topic]) -> Vec<String> {
    topics.iter().map(Topic::to_string).collect()
}
