//! Hears the topics that a gateway joins, over one subscribed connection.
//!
//! The connection speaks RESP3, so that subscriptions, their confirmations, the watchdog's questions and their answers share one
//! order: what was published before an answer was written comes before it. What it hears waits in a bounded line; when that is
//! full the connection is cut, as Redis itself cuts a subscriber that does not read.
//!
//! Redis forgets what it could not deliver, so what is heard is checked. Each event says which one came before it in its
//! topic, and once a second the last positions of all topics are looked at, so that a loss is noticed where nothing follows it.
//! What was lost is read from the topic's stream while the line waits; where that cannot put it into its place any more, the
//! topic is told to be stale. A new connection fills the time without one in the same way, unless the log is another one now.

use std::{
    collections::VecDeque,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use async_trait::async_trait;
use jiscord_core::{
    Code, Event, Fault, Position, Topic,
    event::{Logged, Publish},
    fault,
};
use redis::{Pipeline, PushInfo, PushKind, Value, aio::MultiplexedConnection};
use tokio::{
    sync::{Notify, OwnedSemaphorePermit, Semaphore, mpsc, watch},
    task::JoinHandle,
    time::{Instant, sleep, sleep_until, timeout},
};

use super::{
    link::{Backoff, Error, Link, Redis, Result, WATCH},
    payload::{self, Said},
    publisher::RedisPublisher,
    stretch::Streams,
};
use crate::{
    bus::{Bus, Heard, REPLAYED, Replay, Stale},
    chance::{self, HashMap, HashSet},
};

/// How many things heard may wait for the gateway, and how many bytes.
const LINE: usize = 32_768;
const LINE_BYTES: usize = 64 << 20;
/// How many topics are subscribed to by one command.
const CHUNK: usize = 256;
/// How long the line waits for what was lost.
const FILL: Duration = Duration::from_secs(2);

/// The bus between gateways and publishers, on one Redis.
pub struct RedisBus {
    publisher: RedisPublisher,
    shared: Arc<Shared>,
    streams: Streams,
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
    /// Its subscription is confirmed: all above this position is heard.
    heard: chance::watch::Sender<Option<Position>>,
}

/// What one connection hears.
struct Line {
    epoch: String,
    subscribed: Vec<Topic>,
    /// How things stood when all of them were subscribed to.
    at: At,
    heard: mpsc::Receiver<Item>,
}

/// How things stand at some point of what is heard.
struct At {
    /// The last position of the log.
    last: Position,
    /// What is not above this one may have been forgotten.
    floor: Position,
    /// The last positions of topics, of all that had an event since the look before this one.
    moved: Vec<(Topic, Position)>,
    /// From here on these are heard.
    joined: Vec<Topic>,
}

/// Something that a connection brought, with its room in the line.
enum Item {
    Push(PushInfo, OwnedSemaphorePermit),
    At(At),
}

/// The end of a line that is written to.
struct Feed {
    line: Mutex<Option<mpsc::Sender<Item>>>,
    room: Arc<Semaphore>,
    /// The connection is gone, or was cut since nobody took what it heard.
    lost: Notify,
}

impl Feed {
    fn new() -> (Arc<Self>, mpsc::Receiver<Item>) {
        let (line, heard) = mpsc::channel(LINE);
        let feed = Self { line: Mutex::new(Some(line)), room: Arc::new(Semaphore::new(LINE_BYTES)), lost: Notify::new() };
        (Arc::new(feed), heard)
    }

    /// False if there was no room, or the connection is gone. Nothing comes after that, so that the line ends where it stops
    /// being whole.
    fn put(&self, item: Option<Item>) -> bool {
        let mut line = self.line.lock().unwrap_or_else(PoisonError::into_inner);
        let put = line.as_ref().zip(item).is_some_and(|(line, item)| line.try_send(item).is_ok());
        if !put {
            *line = None;
            self.lost.notify_one();
        }
        put
    }

    fn hear(&self, push: PushInfo) -> bool {
        let size = push.data.iter().filter_map(bytes).map(<[u8]>::len).sum::<usize>().clamp(1, LINE_BYTES);
        let here = push.kind != PushKind::Disconnection;
        let room = self.room.clone().try_acquire_many_owned(u32::try_from(size).unwrap_or(u32::MAX));
        self.put(room.ok().filter(|_| here).map(|room| Item::Push(push, room)))
    }
}

/// Where the gateway is in what it hears.
#[derive(Default)]
struct Ear {
    line: Option<mpsc::Receiver<Item>>,
    /// The highest position told.
    told: Position,
    /// Each topic is known to be whole up to here, or to `whole` if that is higher.
    known: HashMap<Topic, Position>,
    whole: Position,
    /// Where it was last told that something is stale.
    stale: Position,
    /// Told next.
    ahead: VecDeque<Heard>,
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
                ear.begin_anew(&line);
                (epoch, ear.line) = (line.epoch, Some(line.heard));
                shared.connected.send_replace(true);
                Some(connected)
            }
            Err(Error::Away(_)) => None,
            Err(error) => return Err(error),
        };
        let (start, epoch, ear) = (ear.told, Mutex::new(epoch), tokio::sync::Mutex::new(ear));
        let task = tokio::spawn(shared.clone().run(first));
        let streams = Streams::new(redis);
        Ok(Arc::new(Self { publisher, shared, streams, start, epoch, ear, task }))
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

    async fn head(&self) -> fault::Result<Position> {
        let head = self.streams.last().await?;
        // It may be that of a topic which is not heard: only a look tells it then.
        self.shared.changed.notify_one();
        Ok(head)
    }

    /// While Redis is away it waits; whoever does not want to wait drops it, which leaves the topic.
    async fn join(&self, topic: Topic) -> fault::Result<Position> {
        let mut heard = self.shared.join(topic);
        let mut leaving = Leaving { shared: &self.shared, topic: Some(topic) };
        let joined = heard.wait_for(Option::is_some).await.ok().and_then(|heard| *heard);
        leaving.topic = None;
        // More leaves than joins: somebody else took this one's.
        joined.ok_or_else(|| Fault::new(Code::INTERNAL, "the topic was left while it was joined"))
    }

    fn leave(&self, topic: Topic) {
        self.shared.leave(topic);
    }

    async fn replay(&self, topics: &[Topic], after: Position, to: Position) -> fault::Result<Replay> {
        let asked: Vec<_> = topics.iter().map(|topic| (*topic, after)).collect();
        let moved = self.streams.moved(&asked).await?;
        let read = self.streams.read(&moved).await?;
        // Asked last: what was forgotten while it was read is missing too.
        if self.streams.floor().await? > after {
            return Ok(Replay::new(Vec::new(), topics.to_vec()));
        }
        let (mut events, mut lost) = (Vec::new(), Vec::new());
        for ((topic, ..), stretch) in moved.into_iter().zip(read) {
            match stretch {
                Some(stretch) => events.extend(stretch.into_iter().filter(|logged| logged.p <= to)),
                None => lost.push(topic),
            }
        }
        if events.len() > REPLAYED {
            return Ok(Replay::new(Vec::new(), topics.to_vec()));
        }
        // One event of several topics stands in the stream of each.
        events.sort_by_key(|logged| logged.p);
        events.dedup_by(|next, first| {
            let same = next.p == first.p;
            if same {
                first.event.topics.append(&mut next.event.topics);
            }
            same
        });
        Ok(Replay::new(events, lost))
    }

    async fn next(&self) -> Heard {
        let mut ear = self.ear.lock().await;
        loop {
            if let Some(heard) = ear.ahead.pop_front() {
                return heard;
            }
            match &mut ear.line {
                Some(line) => match line.recv().await {
                    Some(Item::Push(push, _room)) => ear.take(&push, &self.streams).await,
                    Some(Item::At(at)) => ear.arrive(at, &self.streams).await,
                    None => ear.line = None,
                },
                None => {
                    let fresh = self.shared.refreshed.notified();
                    let Some(line) = self.shared.fresh().take() else {
                        fresh.await;
                        continue;
                    };
                    let same = line.epoch == self.epoch();
                    if same {
                        ear.begin_again(&line, &self.streams).await;
                    } else {
                        ear.begin_anew(&line);
                        let gap = Heard::Gap { p: ear.told, stale: Stale::All };
                        ear.ahead.push_back(gap);
                        *self.epoch.lock().unwrap_or_else(PoisonError::into_inner) = line.epoch;
                    }
                    ear.line = Some(line.heard);
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
    fn known(&self, topic: Topic) -> Option<Position> {
        Some(self.whole.max(*self.known.get(&topic)?))
    }

    /// A connection to a log of which nothing is known.
    fn begin_anew(&mut self, line: &Line) {
        (self.told, self.whole) = (line.at.last, line.at.last);
        self.known = line.subscribed.iter().map(|topic| (*topic, line.at.last)).collect();
    }

    /// Another connection to the same log.
    async fn begin_again(&mut self, line: &Line, streams: &Streams) {
        let kept = line.subscribed.iter().map(|topic| (*topic, self.known(*topic).unwrap_or(line.at.last)));
        self.known = kept.collect();
        self.ahead.push_back(Heard::Gap { p: self.told, stale: Stale::Nothing });
        self.catch_up(&line.at, streams).await;
    }

    /// All that was published before a look has been heard by now, or was lost.
    async fn arrive(&mut self, at: At, streams: &Streams) {
        self.catch_up(&at, streams).await;
        for topic in at.joined {
            let known = self.known.entry(topic).or_default();
            *known = at.last.max(*known);
        }
    }

    /// Tells what was not heard up to here.
    async fn catch_up(&mut self, at: &At, streams: &Streams) {
        let mut stale = self.forgotten(at);
        let mut filled = self.fill(&at.moved, None, streams).await;
        stale.append(&mut filled.stale);
        self.whole = self.whole.max(at.last);
        self.go_on(filled.events, stale, at.last);
    }

    /// The topics of which the log has forgotten what was not heard yet, if there was any: neither what follows in them nor the
    /// index shows it.
    fn forgotten(&mut self, at: &At) -> Vec<Topic> {
        let is_behind = |topic: &Topic| self.known(*topic).is_some_and(|known| known < at.floor);
        let behind: Vec<_> = self.known.keys().copied().filter(is_behind).collect();
        for topic in &behind {
            self.known.insert(*topic, at.last);
        }
        behind
    }

    /// Tells what was read, up to here, and of which topics something cannot be told. That comes before what stands behind it,
    /// since a client that is cut off in between goes on from the last that it was told; and after it, for those who came in
    /// between.
    fn go_on(&mut self, events: Vec<Logged>, stale: Vec<Topic>, last: Position) {
        if !events.is_empty() {
            self.call_stale(stale.clone());
        }
        for Logged { p, event } in events {
            self.tell(event, p);
        }
        if last > self.told {
            self.told = last;
            if stale.is_empty() {
                self.ahead.push_back(Heard::Upto { p: last });
            }
        }
        self.call_stale(stale);
    }

    fn tell(&mut self, event: Event, p: Position) {
        self.told = self.told.max(p);
        self.ahead.push_back(Heard::Event { event, p: Some(p) });
    }

    /// What something heard means, if it means anything.
    async fn take(&mut self, push: &PushInfo, streams: &Streams) {
        let text = |at: usize| push.data.get(at).and_then(bytes);
        let name = text(0).and_then(|name| std::str::from_utf8(name).ok()).and_then(|name| name.parse::<Topic>().ok());
        let Some(topic) = name else { return };
        match push.kind {
            PushKind::Unsubscribe => _ = self.known.remove(&topic),
            PushKind::Message => match text(1).and_then(|payload| payload::read(topic, payload)) {
                Some(Said::Lasting { event, p, prev }) => self.place(topic, event, p, prev, streams).await,
                Some(Said::Passing(heard)) => self.ahead.push_back(heard),
                None => tracing::warn!(%topic, "what came over Redis cannot be read"),
            },
            _ => {}
        }
    }

    async fn place(&mut self, topic: Topic, event: Event, p: Position, prev: Position, streams: &Streams) {
        match self.known(topic) {
            // It was read from the stream.
            Some(known) if p <= known => return,
            // The one before this one was not heard.
            Some(known) if prev > known => {
                // Where one was lost on its way, so may have been others, of any topic, that stand before it.
                let all: Vec<_> = self.known.keys().filter_map(|topic| Some((*topic, self.known(*topic)?))).collect();
                let moved = timeout(FILL, streams.moved(&all)).await.ok().and_then(Result::ok).unwrap_or_default();
                let others = moved.into_iter().map(|(topic, _, to)| (topic, to)).filter(|(other, _)| *other != topic);
                let Filled { events, stale } = self.fill(&others.chain([(topic, p)]).collect::<Vec<_>>(), Some(p), streams).await;
                self.go_on(events, stale, p);
            }
            // It cannot be told in its place any more. An event of several topics is told for each of them, at one position.
            _ if p < self.told || p == self.stale => self.call_stale(vec![topic]),
            _ => self.tell(event, p),
        }
        let known = self.known.entry(topic).or_default();
        *known = p.max(*known);
    }

    /// What was missed of these topics cannot be told: all of it lies before what is told next.
    fn call_stale(&mut self, topics: Vec<Topic>) {
        if !topics.is_empty() {
            self.stale = self.told;
            self.ahead.push_back(Heard::Gap { p: self.told, stale: Stale::Topics(topics) });
        }
    }

    /// Reads what is missing of topics up to these positions, and at most up to and with `upto`; what is above that is heard yet.
    async fn fill(&mut self, topics: &[(Topic, Position)], upto: Option<Position>, streams: &Streams) -> Filled {
        let missing = topics.iter().filter_map(|(topic, to)| Some((*topic, self.known(*topic)?, *to)));
        let missing: Vec<_> = missing.filter(|(_, known, to)| to > known).collect();
        let mut filled = Filled::default();
        if missing.is_empty() {
            return filled;
        }
        tracing::debug!(topics = missing.len(), "events were not heard; reading them from the log");
        let read = timeout(FILL, streams.read(&missing)).await.ok().and_then(Result::ok);
        let read = read.unwrap_or_else(|| vec![None; missing.len()]);
        #[cfg(feature = "failpoints")]
        fail::fail_point!("gw.in_fill", |_| std::process::abort());
        for ((topic, _, to), stretch) in missing.into_iter().zip(read) {
            self.known.insert(topic, upto.map_or(to, |upto| to.min(upto)));
            match stretch.filter(|stretch| stretch.first().is_some_and(|first| first.p > self.told)) {
                Some(stretch) => {
                    filled.events.extend(stretch.into_iter().filter(|logged| upto.is_none_or(|upto| logged.p <= upto)))
                }
                None => {
                    tracing::warn!(%topic, "events were lost on the way");
                    filled.stale.push(topic);
                }
            }
        }
        filled.events.sort_by_key(|logged| logged.p);
        filled
    }
}

/// What was missing.
#[derive(Default)]
struct Filled {
    /// In order.
    events: Vec<Logged>,
    /// The topics of which something is not there any more, or belongs before what was told already.
    stale: Vec<Topic>,
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
    feed: Arc<Feed>,
    /// The last position of the log at the last look.
    looked: Position,
}

impl Shared {
    fn topics(&self) -> MutexGuard<'_, Topics> {
        self.topics.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn fresh(&self) -> MutexGuard<'_, Option<Line>> {
        self.fresh.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn join(&self, topic: Topic) -> chance::watch::Receiver<Option<Position>> {
        let mut topics = self.topics();
        let Topics { wanted, dirty } = &mut *topics;
        let wanted = wanted.entry(topic).or_insert_with(|| {
            dirty.insert(topic);
            Wanted { joins: 0, heard: chance::watch::Sender::new(None) }
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
                    self.confirm(connected.subscribed.iter(), connected.looked);
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
                wanted.heard.send_replace(None);
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
        let (feed, heard) = Feed::new();
        let ear = feed.clone();
        let hear = move |push: PushInfo| -> Result<(), ()> { ear.hear(push).then_some(()).ok_or(()) };
        let Link { connection, .. } = self.redis.connect(Some(hear)).await?;
        let looked = Position(0);
        let mut connected = Connected { connection, epoch: String::new(), subscribed: HashSet::default(), feed, looked };
        {
            let mut topics = self.topics();
            topics.dirty = topics.wanted.keys().copied().collect();
        }
        self.subscribe(&mut connected).await?;
        // Asked on the same connection after all confirmations: what is above this position is heard.
        connected.epoch = self.redis.open(&mut connected.connection).await?.epoch;
        let at = self.look(&mut connected).await?;
        let subscribed = connected.subscribed.iter().copied().collect();
        let line = Line { epoch: connected.epoch.clone(), subscribed, at, heard };
        Ok((connected, line))
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

    fn confirm<'a>(&self, heard: impl Iterator<Item = &'a Topic>, above: Position) {
        let topics = self.topics();
        for wanted in heard.filter_map(|topic| topics.wanted.get(topic)) {
            wanted.heard.send_replace(Some(above));
        }
    }

    /// Keeps a connection until it fails.
    async fn keep(&self, connected: &mut Connected) -> Error {
        let feed = connected.feed.clone();
        let mut watch = Instant::now() + WATCH;
        loop {
            let kept = tokio::select! {
                biased;
                () = feed.lost.notified() => return Error::Away("the connection was cut".into()),
                () = self.changed.notified() => self.change(connected).await,
                () = sleep_until(watch) => self.watch(connected, Vec::new()).await,
            };
            watch = Instant::now() + WATCH;
            if let Err(error) = kept {
                return error;
            }
        }
    }

    /// Hears what was joined, and no longer what was left.
    async fn change(&self, connected: &mut Connected) -> Result<()> {
        let joined = self.subscribe(connected).await?;
        // Also where topics were only left: those who leave one after the other do not put it off.
        self.watch(connected, joined.clone()).await?;
        self.confirm(joined.iter(), connected.looked);
        Ok(())
    }

    /// Notes in the line how things stand. An error: the connection is dead, or the log is another one.
    async fn watch(&self, connected: &mut Connected, joined: Vec<Topic>) -> Result<()> {
        let at = self.look(connected).await?;
        // Where it is full, the connection is cut.
        connected.feed.put(Some(Item::At(At { joined, ..at })));
        Ok(())
    }

    /// How things stand, for the topics that are subscribed to.
    async fn look(&self, Connected { connection, epoch, subscribed, looked, .. }: &mut Connected) -> Result<At> {
        let mut ask = Pipeline::new();
        ask.cmd("HMGET").arg(self.redis.log_key()).arg(&["epoch", "last", "floor"]);
        ask.cmd("ZRANGEBYSCORE").arg(self.redis.active_key()).arg(format!("({looked}")).arg("+inf").arg("WITHSCORES");
        type Log = (Option<String>, Option<u64>, Option<u64>);
        let (log, moved): (Log, Vec<(String, f64)>) = ask.query_async(connection).await?;
        let (Some(now), Some(last), floor) = log else { return Err(Error::Away("the log is not open".into())) };
        if now != *epoch {
            return Err(Error::Away("the log was opened anew".into()));
        }
        *looked = Position(last);
        // Positions are below 2^53, so that they are whole numbers there.
        let moved = moved.into_iter().filter_map(|(topic, p)| Some((topic.parse().ok()?, Position(p as u64))));
        let floor = Position(floor.unwrap_or_default());
        Ok(At { last: *looked, floor, moved: moved.filter(|row| subscribed.contains(&row.0)).collect(), joined: Vec::new() })
    }
}

fn names(topics: &[Topic]) -> Vec<String> {
    topics.iter().map(Topic::to_string).collect()
}
