//! Appends events to the log on Redis, in order, and keeps them while it is away.

use std::{
    collections::{HashSet, VecDeque},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use async_trait::async_trait;
use jiscord_core::{
    Code, Event, EventId, Fault, ServerFrame, Topic,
    event::Publish,
    fault,
    frame::Resync,
    time::{Clock, SystemClock},
};
use redis::{Cmd, Pipeline, RedisError, Value};
use tokio::{
    sync::{Notify, mpsc, watch},
    task::JoinHandle,
    time::{Instant, sleep},
};
use uuid::Uuid;

use super::{
    link::{Backoff, Error, Link, Redis, Result, WATCH, answer, evalsha},
    payload, scripts,
};

/// How many events are published at once; never two that share a topic, so that each topic keeps its order whatever fails.
const BATCH: usize = 64;
/// How far behind the oldest event one is looked for that can go at the same time.
const LOOK: usize = 256;
/// How many passing events wait; more are dropped.
const PASSING: usize = 1_024;
/// How long events are kept for who catches up.
const KEPT: Duration = Duration::from_secs(60 * 60);
/// How many events are kept of a guild, and of a user.
const KEPT_OF_GUILD: usize = 2_000;
const KEPT_OF_USER: usize = 500;
/// How often it is forgotten which topics were active before that.
const TRIM: Duration = Duration::from_secs(60);

/// Publishes events through Redis. [`Publish::publish`] queues them and returns; they go out in the order of the queue, those
/// without a common topic at the same time. While Redis is away the queue grows up to its bound. Dropping it forgets what waits:
/// [`Publish::flush`] comes before.
pub struct RedisPublisher {
    shared: Arc<Shared>,
    passing: mpsc::Sender<Event>,
    task: JoinHandle<()>,
}

struct Shared {
    redis: Redis,
    queue: Mutex<Queue>,
    /// There is something in the queue.
    filled: Notify,
    /// The number of the oldest event in the queue, or of the next one.
    oldest: watch::Sender<u64>,
    connected: watch::Sender<bool>,
}

#[derive(Default)]
struct Queue {
    /// In the order of their numbers.
    waiting: VecDeque<Waiting>,
    next: u64,
}

#[derive(Clone)]
struct Waiting {
    number: u64,
    event: Event,
    /// The microseconds of its id or, for an id without a time, of its coming here: since then it can have been published.
    born: u64,
}

impl RedisPublisher {
    /// Begins to publish. Redis may be away, but if it is there and cannot be used as it is, that is an error.
    pub async fn start(redis: &Redis) -> Result<Self> {
        let link = match redis.connect_deaf().await {
            Ok(link) => Some(link),
            Err(Error::Away(error)) => {
                tracing::warn!(%error, "Redis is away; trying again");
                None
            }
            Err(error) => return Err(error),
        };
        let shared = Arc::new(Shared {
            redis: redis.clone(),
            queue: Mutex::default(),
            filled: Notify::new(),
            oldest: watch::Sender::new(0),
            connected: watch::Sender::new(link.is_some()),
        });
        let (passing, passed) = mpsc::channel(PASSING);
        let task = tokio::spawn(shared.clone().run(link, passed));
        Ok(Self { shared, passing, task })
    }

    /// Whether Redis is there, and every change of that; for readiness.
    pub fn connected(&self) -> watch::Receiver<bool> {
        self.shared.connected.subscribe()
    }

    /// Whether no more events are taken at present.
    pub fn is_full(&self) -> bool {
        self.shared.queue().waiting.len() >= self.shared.redis.most_queued()
    }

    /// How many events wait to be published.
    pub fn queued(&self) -> usize {
        self.shared.queue().waiting.len()
    }
}

impl Drop for RedisPublisher {
    fn drop(&mut self) {
        self.task.abort();
    }
}

#[async_trait]
impl Publish for RedisPublisher {
    async fn publish(&self, events: &[Event]) -> fault::Result<()> {
        let mut queue = self.shared.queue();
        if queue.waiting.len() + events.len() > self.shared.redis.most_queued() {
            return Err(full());
        }
        for event in events {
            let mut event = event.clone();
            // The script must not fail half-way, and a topic named twice would make it.
            let mut named = HashSet::new();
            event.topics.retain(|topic| named.insert(*topic));
            queue.push(event);
        }
        drop(queue);
        self.shared.filled.notify_one();
        Ok(())
    }

    async fn pass(&self, event: Event) -> fault::Result<()> {
        // Full: Redis is away or slow, and a typing sign that comes late is worth nothing.
        let _ = self.passing.try_send(event);
        Ok(())
    }

    fn ready(&self) -> fault::Result<()> {
        if self.is_full() { Err(full()) } else { Ok(()) }
    }

    async fn flush(&self) {
        let mark = self.shared.queue().next;
        // The sender lives in `shared`.
        let _ = self.shared.oldest.subscribe().wait_for(|oldest| *oldest >= mark).await;
    }
}

fn full() -> Fault {
    Fault::new(Code::UNAVAILABLE, "too many events wait to be published").retry_after(Duration::from_secs(2))
}

impl Queue {
    fn push(&mut self, event: Event) {
        let born = event.id.micros().unwrap_or_else(|| SystemClock.now_micros());
        self.waiting.push_back(Waiting { number: self.next, event, born });
        self.next += 1;
    }

    /// The oldest events that can go at the same time: of each topic the oldest one alone.
    fn batch(&self) -> Vec<Waiting> {
        let mut busy = HashSet::new();
        let free = |waiting: &&Waiting| {
            // All its topics are busy from here on, also where it has to wait itself.
            let topics = &waiting.event.topics;
            topics.iter().filter(|topic| busy.insert(**topic)).count() == topics.len()
        };
        self.waiting.iter().take(LOOK).filter(free).take(BATCH).cloned().collect()
    }

    fn done(&mut self, number: u64) {
        if let Ok(index) = self.waiting.binary_search_by_key(&number, |waiting| waiting.number) {
            self.waiting.remove(index);
        }
    }

    /// Puts in the place of an event that may have been published and forgotten one that says: read these topics anew. Whatever
    /// waits for these topics alone is read then, too.
    fn resync(&mut self, number: u64, epoch: &str) {
        let Ok(index) = self.waiting.binary_search_by_key(&number, |waiting| waiting.number) else { return };
        let topics = self.waiting[index].event.topics.clone();
        tracing::warn!(?topics, "an event is too old to be published; its topics are to be read anew");
        let frame = ServerFrame::Resync(Resync { topics: Some(topics.clone()), epoch: epoch.to_owned(), spread: None });
        self.waiting.retain(|other| other.number == number || !other.event.topics.iter().all(|topic| topics.contains(topic)));
        if let Ok(index) = self.waiting.binary_search_by_key(&number, |waiting| waiting.number) {
            // Nobody else publishes it, so any fresh id will do.
            let event = Event::new(EventId::new(Uuid::new_v4()), topics, None, frame);
            self.waiting[index] = Waiting { number, event, born: SystemClock.now_micros() };
        }
    }
}

impl Shared {
    fn queue(&self) -> MutexGuard<'_, Queue> {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Publishes for as long as it is polled.
    async fn run(self: Arc<Self>, mut link: Option<Link>, mut passing: mpsc::Receiver<Event>) {
        let mut backoff = Backoff::default();
        let mut trimmed = None;
        loop {
            let connected = match link.take() {
                Some(link) => Ok(link),
                None => self.redis.connect_deaf().await,
            };
            let error = match connected {
                Ok(link) => {
                    let begun = Instant::now();
                    self.connected.send_replace(true);
                    // What passed meanwhile is out of date.
                    while passing.try_recv().is_ok() {}
                    let error = self.serve(link, &mut passing, &mut trimmed).await;
                    // A connection that fails at once is no reason to try faster.
                    if begun.elapsed() > WATCH {
                        backoff = Backoff::default();
                    }
                    error
                }
                Err(error) => error,
            };
            self.connected.send_replace(false);
            if backoff.is_fresh() {
                let error = &error as &dyn std::error::Error;
                tracing::warn!(error, "events cannot be published; they wait, and it is tried again");
            }
            // Passing events fall out of the full channel meanwhile.
            sleep(backoff.next()).await;
        }
    }

    /// Publishes over one connection until it fails.
    async fn serve(
        &self,
        Link { mut connection, log }: Link,
        passing: &mut mpsc::Receiver<Event>,
        trimmed: &mut Option<Instant>,
    ) -> Error {
        loop {
            if trimmed.is_none_or(|at| at.elapsed() >= TRIM) {
                *trimmed = Some(Instant::now());
                let mut trim = evalsha(&scripts::TRIM, &[self.redis.log_key(), self.redis.active_key()]);
                if let Err(error) = answer::<()>(trim.arg(KEPT.as_secs()), &mut connection).await {
                    return error;
                }
            }
            let batch = self.queue().batch();
            let mut passes = Vec::new();
            while passes.len() < BATCH
                && let Ok(event) = passing.try_recv()
            {
                passes.push(event);
            }
            if batch.is_empty() && passes.is_empty() {
                tokio::select! {
                    biased;
                    () = self.filled.notified() => continue,
                    Some(event) = passing.recv() => passes.push(event),
                    () = sleep(WATCH) => match answer::<()>(&redis::cmd("PING"), &mut connection).await {
                        Ok(()) => continue,
                        Err(error) => return error,
                    },
                }
            }
            let mut pipeline = Pipeline::new();
            pipeline.ignore_errors();
            for waiting in &batch {
                pipeline.add_command(self.call(waiting, &log.epoch));
            }
            for event in &passes {
                for topic in &event.topics {
                    pipeline.publish(topic.to_string(), payload::passing(event)).ignore();
                }
                if let Some(channel) = payload::plain_channel(event) {
                    pipeline.publish(channel, &*event.frame).ignore();
                }
            }
            let answers: Vec<Result<Value, RedisError>> = match pipeline.query_async(&mut connection).await {
                Ok(answers) => answers,
                Err(error) => return error.into(),
            };
            let mut failed = None;
            {
                let mut queue = self.queue();
                for (waiting, answer) in batch.iter().zip(answers) {
                    match answer {
                        Ok(_) => queue.done(waiting.number),
                        Err(error) if error.code() == Some("LATE") => queue.resync(waiting.number, &log.epoch),
                        // Whatever it is, with NOSCRIPT and EPOCH among them: a new connection opens the log and loads the
                        // scripts, and then the event is tried again.
                        Err(error) => failed = Some(error),
                    }
                }
                self.oldest.send_replace(queue.waiting.front().map_or(queue.next, |waiting| waiting.number));
            }
            if let Some(error) = failed {
                return error.into();
            }
        }
    }

    /// The call of the script that publishes an event.
    fn call(&self, Waiting { event, born, .. }: &Waiting, epoch: &str) -> Cmd {
        let redis = &self.redis;
        let mut keys = vec![redis.log_key(), redis.active_key(), redis.seen_key(event.id)];
        keys.extend(event.topics.iter().map(|topic| redis.stream_key(*topic)));
        let of_guild = event.topics.iter().any(|topic| matches!(topic, Topic::Guild(_)));
        let mut call = evalsha(&scripts::PUBLISH, &keys);
        call.arg(epoch)
            .arg(payload::head(event).to_string())
            .arg(&*event.frame)
            .arg(if of_guild { KEPT_OF_GUILD } else { KEPT_OF_USER })
            .arg(KEPT.as_secs())
            .arg(*born)
            .arg(payload::plain_channel(event).unwrap_or_default());
        for topic in &event.topics {
            call.arg(topic.to_string());
        }
        call
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn topic(n: u128) -> Topic {
        Topic::Guild(Uuid::from_u128(n).to_string().parse().unwrap())
    }

    /// A queue of events with these topics.
    fn queue(events: &[&[u128]]) -> Queue {
        let mut queue = Queue::default();
        for topics in events {
            let topics = topics.iter().map(|n| topic(*n)).collect();
            let frame = r#"{"op":"X","d":null}"#.into();
            queue.push(Event { id: EventId::new(Uuid::new_v4()), topics, op: "X".into(), channel: None, frame });
        }
        queue
    }

    fn numbers(waiting: &[Waiting]) -> Vec<u64> {
        waiting.iter().map(|waiting| waiting.number).collect()
    }

    #[test]
    fn of_each_topic_the_oldest_event_goes_first_and_alone() {
        // 1 waits for 0, and 2 for 1 although it has nothing in common with 0.
        let mut queue = queue(&[&[1], &[1, 2], &[2], &[3], &[3], &[]]);
        assert_eq!(numbers(&queue.batch()), [0, 3, 5]);
        queue.done(0);
        assert_eq!(numbers(&queue.batch()), [1, 3, 5]);
        queue.done(3);
        queue.done(1);
        queue.done(1);
        assert_eq!(numbers(&queue.batch()), [2, 4, 5]);
    }

    #[test]
    fn a_batch_is_bounded() {
        let many: Vec<_> = (0..BATCH as u128 + 9).map(|n| vec![n]).collect();
        let many: Vec<_> = many.iter().map(Vec::as_slice).collect();
        assert_eq!(queue(&many).batch().len(), BATCH);
    }

    #[test]
    fn a_resync_stands_for_all_that_waits_for_its_topics_alone() {
        let mut queue = queue(&[&[4], &[1, 2], &[1], &[2, 3], &[2]]);
        let late = queue.waiting[1].event.id;
        queue.resync(1, "epoch");
        let left = Vec::from(queue.waiting.clone());
        assert_eq!(numbers(&left), [0, 1, 3]);
        let event = &left[1].event;
        assert_eq!((&*event.op, &event.topics), ("RESYNC", &vec![topic(1), topic(2)]));
        assert_ne!(event.id, late);
    }
}
