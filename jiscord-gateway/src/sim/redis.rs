//! As much of Redis as the bus, the claims and the relays' marks use, and a network that delays, stalls, cuts and loses.
//!
//! The scripts are told apart by their hashes and done here in Rust, line by line as they stand in `redis/scripts.rs`.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{
        Arc, Mutex, MutexGuard,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use jiscord_core::{frame::Attempt, time::Clock};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt, DuplexStream, ReadHalf, WriteHalf},
    sync::mpsc,
    time::{Instant, sleep, sleep_until},
};
use tokio_util::sync::CancellationToken;

use super::world::{SimClock, chance, upto};
use crate::{claims::Eviction, redis::scripts};

pub(super) struct Server {
    clock: SimClock,
    /// Whether the network is as it should be.
    pub(super) calm: AtomicBool,
    inner: Mutex<Inner>,
}

#[derive(Default)]
pub(super) struct Inner {
    pub(super) up: bool,
    run: u64,
    data: Data,
    /// What a restart finds.
    dump: Data,
    sockets: BTreeMap<u64, Socket>,
    dialled: u64,
    /// How likely it is that something published does not reach a subscriber.
    pub(super) loss: f64,
    /// A defect: so likely is an event called published that is in no stream.
    pub(super) swallows: f64,
    /// A defect: so likely does an event reach nobody, and no index nor later event tells of it.
    pub(super) hides: f64,
    /// All that was ever published, by position.
    pub(super) published: BTreeMap<u64, Published>,
}

/// Something that was published.
pub(super) struct Published {
    pub(super) at: Instant,
    pub(super) id: String,
    pub(super) topics: Vec<String>,
    pub(super) op: String,
    pub(super) frame: String,
}

#[derive(Clone, Default)]
struct Data {
    log: BTreeMap<String, String>,
    active: BTreeMap<String, u64>,
    streams: BTreeMap<String, Vec<Entry>>,
    seen: BTreeMap<String, u64>,
    sessions: BTreeMap<String, BTreeMap<String, Place>>,
}

#[derive(Clone)]
struct Entry {
    p: u64,
    prev: u64,
    head: String,
    frame: String,
}

#[derive(Clone)]
struct Place {
    fence: u64,
    heard: u64,
    /// `<session> <client> <attempt>`.
    holder: String,
    instance: String,
}

impl Place {
    /// Whether this session has it.
    fn is_of(&self, holder: &str) -> bool {
        self.holder.split(' ').next() == holder.split(' ').next()
    }

    /// Whether a later attempt of the same client has it.
    fn is_after(&self, holder: &str) -> bool {
        attempt(holder).is_before(attempt(&self.holder))
    }
}

fn attempt(holder: &str) -> Attempt {
    let mut parts = holder.split(' ').skip(1).map(|part| part.parse().unwrap());
    Attempt { client: parts.next().unwrap(), number: parts.next().unwrap() }
}

struct Socket {
    out: mpsc::UnboundedSender<String>,
    topics: BTreeSet<String>,
    stalled: Arc<Mutex<Instant>>,
    cut: CancellationToken,
}

impl Data {
    fn number(&self, field: &str) -> u64 {
        self.log.get(field).map_or(0, |number| number.parse().unwrap())
    }
}

impl Server {
    pub(super) fn new(clock: SimClock) -> Arc<Self> {
        let inner = Inner { up: true, run: 1, ..Inner::default() };
        Arc::new(Self { clock, calm: AtomicBool::new(false), inner: Mutex::new(inner) })
    }

    pub(super) fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap()
    }

    pub(super) fn dial(self: &Arc<Self>) -> Option<DuplexStream> {
        let mut inner = self.lock();
        if !inner.up {
            return None;
        }
        inner.dialled += 1;
        let (key, (near, far), (out, outgoing)) = (inner.dialled, tokio::io::duplex(1 << 20), mpsc::unbounded_channel());
        let (stalled, cut) = (Arc::new(Mutex::new(Instant::now())), CancellationToken::new());
        let socket = Socket { out, topics: BTreeSet::new(), stalled: stalled.clone(), cut: cut.clone() };
        inner.sockets.insert(key, socket);
        let server = self.clone();
        tokio::spawn(async move {
            let (read, write) = tokio::io::split(far);
            tokio::select! {
                biased;
                () = cut.cancelled() => {}
                () = server.answer(key, read, &stalled) => {}
                () = server.write(write, outgoing, &stalled) => {}
            }
            server.lock().sockets.remove(&key);
        });
        Some(near)
    }

    async fn way(&self) {
        let slow = !self.calm.load(Ordering::Relaxed) && chance(0.02);
        sleep(upto(if slow { 200 } else { 2 })).await;
    }

    async fn answer(&self, key: u64, mut from: ReadHalf<DuplexStream>, stalled: &Mutex<Instant>) {
        let mut bytes = Vec::new();
        while from.read_buf(&mut bytes).await.is_ok_and(|read| read > 0) {
            self.way().await;
            let until = *stalled.lock().unwrap();
            sleep_until(until).await;
            let mut inner = self.lock();
            while let Some(command) = command(&mut bytes) {
                let answer = inner.execute(key, &command, self.clock.now_micros());
                let Some(socket) = inner.sockets.get(&key) else { return };
                let _ = socket.out.send(answer);
            }
        }
    }

    async fn write(&self, mut to: WriteHalf<DuplexStream>, mut out: mpsc::UnboundedReceiver<String>, stalled: &Mutex<Instant>) {
        while let Some(mut text) = out.recv().await {
            self.way().await;
            let until = *stalled.lock().unwrap();
            sleep_until(until).await;
            while let Ok(more) = out.try_recv() {
                text += &more;
            }
            if to.write_all(text.as_bytes()).await.is_err() {
                return;
            }
        }
    }
}

impl Inner {
    fn socket(&self) -> Option<&Socket> {
        let nth = super::world::below(self.sockets.len().max(1));
        self.sockets.values().nth(nth)
    }

    /// Cuts one connection.
    pub(super) fn cut(&self) {
        if let Some(socket) = self.socket() {
            socket.cut.cancel();
        }
    }

    /// One connection brings nothing for a while, either way.
    pub(super) fn stall(&self, time: Duration) {
        if let Some(socket) = self.socket() {
            *socket.stalled.lock().unwrap() = Instant::now() + time;
        }
    }

    /// Nobody reaches it.
    pub(super) fn go_away(&mut self) {
        self.up = false;
        self.sockets.values().for_each(|socket| socket.cut.cancel());
    }

    /// It is killed: what is there at its next run is what was saved.
    pub(super) fn crash(&mut self) {
        self.go_away();
        self.run += 1;
        self.data = self.dump.clone();
    }

    pub(super) fn save(&mut self) {
        self.dump = self.data.clone();
    }

    /// Streams keep this much, and which topics were active before is forgotten.
    pub(super) fn forget(&mut self, now: u64, kept: Duration) {
        let to = now.saturating_sub(kept.as_micros() as u64).min(self.data.number("last"));
        if to > self.data.number("floor") {
            self.data.active.retain(|_, p| *p > to);
            self.data.log.insert("floor".into(), to.to_string());
            self.data.streams.values_mut().for_each(|stream| stream.retain(|entry| entry.p > to));
        }
    }

    /// Streams keep only so many entries.
    pub(super) fn shorten(&mut self, to: usize) {
        self.data.streams.values_mut().for_each(|stream| _ = stream.drain(..stream.len().saturating_sub(to)));
    }

    fn execute(&mut self, key: u64, command: &[String], now: u64) -> String {
        let [name, rest @ ..] = command else { return error("ERR nothing") };
        match (name.as_str(), rest) {
            ("HELLO" | "CLIENT", _) => bulk("OK"),
            ("SCRIPT", [_, script]) => bulk(redis::Script::new(script).get_hash()),
            ("PING", _) => bulk("PONG"),
            ("INFO", _) => bulk("redis_mode:standalone\r\nmaxmemory_policy:noeviction\r\nrole:master\r\ncluster_enabled:0\r\n"),
            ("SUBSCRIBE" | "UNSUBSCRIBE", topics) => {
                let Some(socket) = self.sockets.get_mut(&key) else { return String::new() };
                let mut answer = String::new();
                for topic in topics {
                    let (name, _) = match name.as_str() {
                        "SUBSCRIBE" => ("subscribe", socket.topics.insert(topic.clone())),
                        _ => ("unsubscribe", socket.topics.remove(topic)),
                    };
                    answer += &push(&[bulk(name), bulk(topic), int(socket.topics.len() as u64)]);
                }
                answer
            }
            ("HGETALL", _) => {
                let rows: Vec<_> = self.data.log.iter().flat_map(|(field, value)| [bulk(field), bulk(value)]).collect();
                format!("%{}\r\n{}", rows.len() / 2, rows.concat())
            }
            ("HGET", [_, field]) => optional(self.data.log.get(field)),
            ("HMGET", [_, fields @ ..]) => array(fields.iter().map(|field| optional(self.data.log.get(field)))),
            ("MGET", keys) => array(keys.iter().map(|key| optional(self.data.seen.get(key).map(u64::to_string).as_ref()))),
            ("ZMSCORE", [_, topics @ ..]) => array(topics.iter().map(|topic| match self.data.active.get(topic) {
                Some(p) => format!(",{p}\r\n"),
                None => "_\r\n".into(),
            })),
            ("ZRANGEBYSCORE", [_, above, ..]) => {
                let above: u64 = above[1..].parse().unwrap();
                let moved = self.data.active.iter().filter(|(_, p)| **p > above);
                array(moved.map(|(topic, p)| array([bulk(topic), format!(",{p}\r\n")])))
            }
            ("XRANGE", [key, after, to, ..]) => {
                let place = |text: &str| text.trim_start_matches('(').trim_end_matches("-0").parse::<u64>().unwrap();
                let (after, to) = (place(after), place(to));
                let entries = self.data.streams.get(key).into_iter().flatten();
                array(entries.filter(|entry| entry.p > after && entry.p <= to).map(|Entry { p, prev, head, frame }| {
                    let fields = [bulk("v"), bulk(&prev.to_string()), bulk("h"), bulk(head), bulk("f"), bulk(frame)];
                    array([bulk(&format!("{p}-0")), array(fields)])
                }))
            }
            ("EVALSHA", [hash, count, rest @ ..]) => {
                let (keys, args) = rest.split_at(count.parse().unwrap());
                let called = |script: &redis::Script| script.get_hash() == hash;
                match () {
                    () if called(&scripts::PUBLISH) => self.publish(keys, args, now),
                    () if called(&scripts::OPEN) => self.open(args, now),
                    () if called(&scripts::TRIM) => {
                        self.forget(now, Duration::from_secs(args[0].parse().unwrap()));
                        "_\r\n".into()
                    }
                    () if called(&scripts::CLAIM) => self.claim(keys, args, now),
                    () if called(&scripts::RELEASE) => {
                        let places = self.data.sessions.entry(keys[0].clone()).or_default();
                        places.retain(|device, place| *device != args[0] || place.fence.to_string() != args[1]);
                        "_\r\n".into()
                    }
                    () if called(&scripts::REFRESH) => self.refresh(keys, args, now),
                    () if called(&scripts::MARK) => self.mark(args),
                    () => error("NOSCRIPT"),
                }
            }
            _ => error(&format!("ERR {command:?} is not simulated")),
        }
    }

    fn tell(&self, topic: &str, payload: &str) {
        for socket in self.sockets.values().filter(|socket| socket.topics.contains(topic)) {
            if !chance(self.loss) {
                let _ = socket.out.send(push(&[bulk("message"), bulk(topic), bulk(payload)]));
            }
        }
    }

    fn publish(&mut self, keys: &[String], args: &[String], now: u64) -> String {
        if self.data.log.get("epoch") != Some(&args[0]) {
            return error("EPOCH log was opened anew");
        }
        if let Some(seen) = self.data.seen.get(&keys[2]) {
            return array([int(0), int(*seen)]);
        }
        if now.saturating_sub(args[5].parse().unwrap()) > 540_000_000 {
            return error("LATE may have been forgotten");
        }
        let p = now.max(self.data.number("last") + 1);
        self.data.log.insert("last".into(), p.to_string());
        self.data.seen.insert(keys[2].clone(), p);
        let (head, frame, topics) = (&args[1], &args[2], &args[7..]);
        let (id, op) = (keys[2].trim_start_matches("seen:").to_owned(), head.split(' ').next().unwrap().to_owned());
        let event = Published { at: Instant::now(), id, topics: topics.to_vec(), op, frame: frame.clone() };
        self.published.insert(p, event);
        if chance(self.swallows) {
            return array([int(1), int(p)]);
        }
        let hides = chance(self.hides);
        for (key, topic) in keys[3..].iter().zip(topics) {
            let prev = self.data.active.get(topic).copied().unwrap_or(0);
            let entry = Entry { p, prev, head: head.clone(), frame: frame.clone() };
            self.data.streams.entry(key.clone()).or_default().push(entry);
            if !hides {
                self.data.active.insert(topic.clone(), p);
                self.tell(topic, &format!("{p} {prev} {head} {frame}"));
            }
        }
        array([int(1), int(p)])
    }

    fn open(&mut self, args: &[String], now: u64) -> String {
        let run = self.run.to_string();
        if self.data.log.get("run") != Some(&run) {
            let floor = now.max(self.data.number("last") + 1).to_string();
            let rows = [("run", &run), ("epoch", &args[0]), ("last", &floor), ("floor", &floor), ("begun", &floor)];
            self.data.log = rows.map(|(field, value)| (field.to_owned(), value.clone())).into();
        }
        array(["epoch", "last", "floor"].map(|field| bulk(&self.data.log[field])))
    }

    fn evict(&self, topic: &str, device: &str, fence: u64, by: Option<&str>) {
        let device = if device.is_empty() { "null".into() } else { format!("{device:?}") };
        let by =
            by.map(attempt).map(|Attempt { client, number }| format!(",\"attempt\":{{\"client\":{client},\"number\":{number}}}"));
        let by = by.unwrap_or_default();
        self.tell(topic, &format!("0 0 EVICT - {{\"op\":\"EVICT\",\"d\":{{\"device\":{device},\"fence\":{fence}{by}}}}}"));
    }

    fn claim(&mut self, keys: &[String], args: &[String], now: u64) -> String {
        let [device, holder, instance, most, topic, _, resumes] = args else { return error("ERR claim") };
        let places = self.data.sessions.entry(keys[0].clone()).or_default();
        let old = places.get(device);
        if old.is_some_and(|place| resumes == "1" && !place.is_of(holder) || place.is_after(holder)) {
            return array([]);
        }
        if let Some(place) = old.filter(|place| (&place.holder, &place.instance) == (holder, instance)) {
            return array([bulk(device), int(place.fence)]);
        }
        let fence = now.max(old.map_or(0, |place| place.fence) + 1);
        places.insert(device.clone(), Place { fence, heard: now, holder: holder.clone(), instance: instance.clone() });
        let mut others: Vec<_> = places.iter().filter(|(name, _)| *name != device).collect();
        others.sort_by_key(|(_, place)| (place.heard, place.fence));
        let many = (others.len() + 1).saturating_sub(most.parse().unwrap());
        let over: Vec<_> = others[..many].iter().map(|(name, place)| ((*name).clone(), place.fence + 1)).collect();
        for (name, _) in &over {
            places.remove(name);
        }
        let evicted = [(device.clone(), fence)].into_iter().chain(over);
        array(evicted.flat_map(|(name, fence)| {
            self.evict(topic, &name, fence, Some(holder).filter(|_| name == *device).map(String::as_str));
            [bulk(&name), int(fence)]
        }))
    }

    fn refresh(&mut self, keys: &[String], args: &[String], now: u64) -> String {
        let [device, holder, instance, most, topic, _, fence, silent] = args else { return error("ERR refresh") };
        let (most, fence, silent): (usize, u64, u64) = (most.parse().unwrap(), fence.parse().unwrap(), silent.parse().unwrap());
        let places = self.data.sessions.entry(keys[0].clone()).or_default();
        let over = Eviction { device: None, fence, attempt: Some(attempt(holder)) };
        let (is_over, evicts) = match places.get(device) {
            None => (places.len() >= most, false),
            Some(Place { fence: at, holder: there, .. }) => {
                let is_over = Eviction { fence: *at, attempt: Some(attempt(there)), ..over.clone() }.ends(fence, attempt(holder));
                (is_over, over.ends(*at, attempt(there)))
            }
        };
        if is_over {
            return int(0);
        }
        places.insert(
            device.clone(),
            Place { fence, heard: now.saturating_sub(silent), holder: holder.clone(), instance: instance.clone() },
        );
        if evicts {
            self.evict(topic, device, fence, Some(holder));
        }
        int(1)
    }

    fn mark(&mut self, args: &[String]) -> String {
        if self.data.log.get("epoch") == Some(&args[0]) {
            for mark in args[1..].chunks(2) {
                let (field, ms) = (format!("relay:{}", mark[0]), mark[1].parse::<u64>().unwrap());
                if ms > self.data.number(&field) {
                    self.data.log.insert(field, ms.to_string());
                }
            }
        }
        "_\r\n".into()
    }
}

/// Takes the next whole command off what was read.
fn command(bytes: &mut Vec<u8>) -> Option<Vec<String>> {
    fn line<'a>(rest: &mut &'a [u8]) -> Option<&'a str> {
        let end = rest.windows(2).position(|pair| pair == b"\r\n")?;
        let (line, after) = rest.split_at(end);
        *rest = &after[2..];
        std::str::from_utf8(line).ok()
    }
    let mut rest = bytes.as_slice();
    let count: usize = line(&mut rest)?.strip_prefix('*')?.parse().ok()?;
    let mut words = Vec::with_capacity(count);
    for _ in 0..count {
        let length: usize = line(&mut rest)?.strip_prefix('$')?.parse().ok()?;
        words.push(String::from_utf8(rest.get(..length)?.to_vec()).ok()?);
        rest = rest.get(length + 2..)?;
    }
    let read = bytes.len() - rest.len();
    bytes.drain(..read);
    Some(words)
}

fn bulk(text: &str) -> String {
    format!("${}\r\n{text}\r\n", text.len())
}

fn optional(text: Option<&String>) -> String {
    text.map_or_else(|| "_\r\n".into(), |text| bulk(text))
}

fn int(number: u64) -> String {
    format!(":{number}\r\n")
}

fn error(text: &str) -> String {
    format!("-{text}\r\n")
}

fn array(parts: impl IntoIterator<Item = String>) -> String {
    let parts: Vec<_> = parts.into_iter().collect();
    format!("*{}\r\n{}", parts.len(), parts.concat())
}

fn push(parts: &[String]) -> String {
    format!(">{}\r\n{}", parts.len(), parts.concat())
}
