//! The relay: sees to it that every stored event is published, whoever died between the two.
//!
//! Whoever writes rows writes their events into a journal with them, and publishes the events then. A relay reads the journal
//! a little later, asks the log what it has of it, and publishes the rest. The log takes an id once, so that several relays at
//! once, or one that is killed at any moment, change nothing.
//!
//! - Each second it reads what became 5 seconds old, and every 30 seconds the last two minutes again, for rows that became
//!   visible late. Ids that are known to be in the log are not asked for again.
//! - What was left behind is published only when its row is there to stay ([`Journal::settle`]). Where it is not there yet, it
//!   is asked again each second; where it never will be, nothing is told.
//! - How far it is, is kept with the log ([`Marks`]). A relay that begins goes on from there.
//! - The log forgets ids after a while. What is older than 9 minutes is not published, since it may have been: whoever hears
//!   its topics is told by a RESYNC to read them anew.
//! - A log that begins anew, in another epoch, tells everybody to read anew. What was written more than 90 seconds before is
//!   not published in it.

use std::{
    collections::{HashMap, HashSet},
    ops::Range,
    sync::Arc,
    time::Duration,
};

use futures_util::future::join_all;
use jiscord_core::{
    Code, Event, EventId, Fault, MessageId, ServerFrame, Topic,
    event::Publish,
    fault::Result,
    frame::Resync,
    journal::{Journal, Marked, Marks, Standing},
    time::{Clock, SystemClock},
};
use tokio::time::{MissedTickBehavior, interval};
use uuid::Uuid;

/// How often it looks.
const ROUND: Duration = Duration::from_secs(1);

// All in milliseconds.
/// How old an event is when it is read for the first time: whoever stored it has published it by then.
const SETTLED: u64 = 5_000;
/// How often it looks back, and how far.
const LOOK_BACK_EVERY: u64 = 30_000;
const LOOK_BACK: u64 = 120_000;
/// The log has forgotten no id of the last 10 minutes; ids are minted by clocks that differ a little.
const LATE: u64 = 9 * 60_000;
/// What was minted longer before an epoch than this was stored when it began.
const BEFORE_EPOCH: u64 = 90_000;
/// A journal is kept for so long.
const KEPT: u64 = 2 * 60 * 60_000;
/// How much is read at once.
const SLICE: u64 = 5_000;

/// How many events are published at once, so that others find room in the queue.
const CHUNK: usize = 256;
/// How many rows are asked for at once.
const AT_ONCE: usize = 16;
/// How many events may wait for their rows before no more are read.
const WAITING: usize = 4_096;

/// Publishes what somebody left behind.
pub struct Relay {
    journal: Arc<dyn Journal>,
    bus: Arc<dyn Publish>,
    marks: Arc<dyn Marks>,
    clock: Arc<dyn Clock>,
}

impl Relay {
    /// From a journal to the log that is behind the bus, which keeps the marks.
    pub fn new(journal: Arc<dyn Journal>, bus: Arc<dyn Publish>, marks: Arc<dyn Marks>) -> Self {
        Self { journal, bus, marks, clock: Arc::new(SystemClock) }
    }

    /// With another clock than the machine's.
    #[must_use]
    pub fn with_clock(mut self, clock: Arc<dyn Clock>) -> Self {
        self.clock = clock;
        self
    }

    /// Relays for as long as it is polled. It may be dropped at any moment.
    pub async fn run(&self) {
        let mut place = None;
        let mut rounds = interval(ROUND);
        rounds.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut failing = false;
        loop {
            rounds.tick().await;
            match self.round(&mut place).await {
                Ok(()) if failing => tracing::info!("events are relayed again"),
                Ok(()) => {}
                // Once for each time that something is away.
                Err(_) if failing => continue,
                Err(fault) => {
                    let because = std::error::Error::source(&fault);
                    tracing::warn!(%fault, because, "events that others left behind cannot be relayed; trying again");
                    failing = true;
                    continue;
                }
            }
            failing = false;
        }
    }

    /// Brings all shards up to date. One that cannot be read holds up no other.
    async fn round(&self, place: &mut Option<Place>) -> Result<()> {
        let marked = self.marks.marks().await?;
        let begun = self.now();
        let place = match place {
            Some(here) if here.epoch == marked.epoch => here,
            _ => place.insert(Place::begin(marked, self.journal.shards(), begun)),
        };
        let start = |shard: &Shard| if shard.looks_back(begun) { shard.settled } else { shard.done };
        let mut round = Round::default();
        let waiting = place.waiting.values().cloned().collect();
        self.tell(waiting, place, &mut round).await?;
        let starts: Vec<_> = place.shards.iter().map(start).collect();
        let to = begun.saturating_sub(SETTLED);
        let mut from = starts.iter().copied().min().unwrap_or(to);
        let mut unread = HashMap::new();
        while from < to {
            if place.waiting.len() >= WAITING {
                return Err(round.fault.unwrap_or_else(|| Fault::new(Code::UNAVAILABLE, "too many events wait for their rows")));
            }
            let until = to.min(from + SLICE);
            let (mut events, mut read) = (Vec::new(), Vec::new());
            for (index, start) in starts.iter().enumerate().filter(|(_, start)| **start < until) {
                if unread.contains_key(&index) {
                    continue;
                }
                match self.read(index, from.max(*start)..until).await {
                    Ok(found) => events.extend(found.into_iter().map(|event| (index, event))),
                    Err(fault) => {
                        unread.insert(index, fault);
                        continue;
                    }
                }
                read.push(index);
            }
            #[cfg(feature = "failpoints")]
            fail::fail_point!("relay.after_read", |_| std::process::abort());
            self.tell(events, place, &mut round).await?;
            for index in read {
                let done = &mut place.shards[index].done;
                *done = until.max(*done);
            }
            from = until;
        }
        self.marks.mark(&place.epoch, &place.done()).await?;
        for (index, shard) in place.shards.iter_mut().enumerate() {
            if shard.looks_back(begun) && !unread.contains_key(&index) {
                shard.looked_back(begun);
            }
        }
        unread.into_values().next().or(round.fault).map_or(Ok(()), Err)
    }

    /// A part of a shard.
    async fn read(&self, index: usize, ms: Range<u64>) -> Result<Vec<Event>> {
        match self.journal.read(index as u16, ms.clone()).await {
            // It would be so for ever, and hold up all that comes after.
            Err(fault) if fault.code == Code::INTERNAL => {
                let because = std::error::Error::source(&fault);
                tracing::error!(shard = index, ?ms, because, "a part of the journal makes no sense and is left out");
                Ok(Vec::new())
            }
            read => read,
        }
    }

    /// Publishes what is not in the log of these events, each of a shard, and returns when it is. What must wait for its row is
    /// left waiting.
    async fn tell(&self, mut events: Vec<(usize, Event)>, place: &mut Place, round: &mut Round) -> Result<()> {
        let now = self.now();
        let minted = |event: &Event| event.id.micros().map_or(now, |micros| micros / 1_000);
        events.retain(|(index, event)| !place.shards[*index].told.contains_key(&event.id));
        // Over all shards, so that what one sender said keeps its order.
        events.sort_by_key(|(_, event)| MessageId::new(event.id.uuid()).sort_key());
        for events in events.chunks(CHUNK) {
            let (mut publish, mut done) = (Vec::new(), Vec::new());
            let (old, young): (Vec<_>, Vec<_>) = events.iter().partition(|(_, event)| minted(event) + LATE < now);
            for (index, event) in old {
                // One RESYNC is enough for all that happened before it. One topic each, since they are not for the same people.
                for topic in &event.topics {
                    if round.resynced.insert(*topic) {
                        tracing::warn!(%topic, "an event was left behind for too long; its topic is to be read anew");
                        let frame =
                            ServerFrame::Resync(Resync { topics: Some(vec![*topic]), epoch: place.epoch.clone(), spread: None });
                        publish.push(Event::new(EventId::new(Uuid::new_v4()), vec![*topic], None, frame));
                    }
                }
                done.push((*index, event));
            }
            // Asked for each chunk, since other relays are at it too.
            let ids: Vec<_> = young.iter().map(|(_, event)| event.id).collect();
            let known = self.marks.known(&ids).await?;
            let (known, left_behind): (Vec<_>, Vec<_>) = young.into_iter().partition(|(_, event)| known.contains(&event.id));
            done.extend(known.into_iter().map(|(index, event)| (*index, event)));
            for left_behind in left_behind.chunks(AT_ONCE) {
                let settled = join_all(left_behind.iter().map(|(_, event)| self.journal.settle(event))).await;
                for ((index, event), standing) in left_behind.iter().zip(settled) {
                    match standing {
                        Ok(Standing::Stays) => publish.push(event.clone()),
                        Ok(Standing::Gone) => {}
                        // It would be so for ever.
                        Err(fault) if fault.code == Code::INTERNAL => {
                            let because = std::error::Error::source(&fault);
                            tracing::error!(id = %event.id, because, "what an event tells of makes no sense; it is left out");
                        }
                        Ok(_) => {
                            place.waiting.insert(event.id, (*index, event.clone()));
                            continue;
                        }
                        // It holds up no other.
                        Err(fault) => {
                            place.waiting.insert(event.id, (*index, event.clone()));
                            round.fault.get_or_insert(fault);
                            continue;
                        }
                    }
                    done.push((*index, event));
                }
            }
            if !publish.is_empty() {
                self.bus.publish(&publish).await?;
                self.bus.flush().await;
            }
            for (index, event) in done {
                place.shards[index].told.insert(event.id, minted(event));
                place.waiting.remove(&event.id);
            }
        }
        Ok(())
    }

    fn now(&self) -> u64 {
        self.clock.now_micros() / 1_000
    }
}

/// What happened in one round.
#[derive(Default)]
struct Round {
    /// Topics that were told to be read anew.
    resynced: HashSet<Topic>,
    /// Why an event waits that could not be settled.
    fault: Option<Fault>,
}

/// How far a relay is in one epoch.
struct Place {
    epoch: String,
    shards: Vec<Shard>,
    /// Events, each of a shard, whose rows are not there yet.
    waiting: HashMap<EventId, (usize, Event)>,
}

/// How far it is in one shard; times in Unix milliseconds.
struct Shard {
    /// All that was visible before it is in the log.
    done: u64,
    /// Nothing becomes visible before it any more.
    settled: u64,
    look_back_at: u64,
    /// Ids from there on that are in the log, and when they were minted.
    told: HashMap<EventId, u64>,
}

impl Place {
    /// Goes on where others were. What they did not look back at may have become visible late.
    fn begin(Marked { epoch, begun, done, .. }: Marked, shards: u16, now: u64) -> Self {
        let floor = begun.saturating_sub(BEFORE_EPOCH).max(now.saturating_sub(KEPT));
        let shard = |index| {
            let done = done.get(&index).copied().unwrap_or(floor).max(floor);
            let settled = done.saturating_sub(LOOK_BACK + LOOK_BACK_EVERY).max(floor);
            Shard { done, settled, look_back_at: now, told: HashMap::new() }
        };
        Self { epoch, shards: (0..shards).map(shard).collect(), waiting: HashMap::new() }
    }

    /// By shard, up to when all is in the log. Who begins there finds what is waiting now.
    fn done(&self) -> HashMap<u16, u64> {
        let mut done: HashMap<_, _> = (0..).zip(&self.shards).map(|(index, shard)| (index, shard.done)).collect();
        for (index, event) in self.waiting.values() {
            if let (Some(done), Some(micros)) = (done.get_mut(&(*index as u16)), event.id.micros()) {
                *done = (micros / 1_000).min(*done);
            }
        }
        done
    }
}

impl Shard {
    /// Whether it is to be read from where it is settled, and not only what is new.
    fn looks_back(&self, now: u64) -> bool {
        now >= self.look_back_at
    }

    /// It was read from where it was settled, at this time.
    fn looked_back(&mut self, now: u64) {
        self.look_back_at = now + LOOK_BACK_EVERY;
        self.settled = self.settled.max(now.saturating_sub(LOOK_BACK));
        self.told.retain(|_, minted| *minted >= self.settled);
    }
}
