//! The relay, between a journal and a log in memory, in time that runs ahead.

use std::{
    collections::{BTreeSet, HashMap, HashSet},
    ops::Range,
    sync::{Arc, Mutex},
    time::Duration,
};

use jiscord_api::relay::Relay;
use jiscord_core::{
    Code, Event, EventId, Fault, MessageId, Topic,
    event::Publish,
    fault::Result,
    id::Worker,
    journal::{Journal, Marked, Marks, Standing},
    mint::{IdSource, Minter},
    time::Clock,
};
use tokio::{
    sync::watch,
    task::JoinHandle,
    time::{Instant, sleep},
};

const SHARDS: u16 = 4;
const SECOND: u64 = 1_000;
const MINUTE: u64 = 60 * SECOND;

/// The wall clock of a test, which runs with tokio's.
struct Wall(Instant);

impl Clock for Wall {
    fn now_micros(&self) -> u64 {
        1_795_443_456_400_000 + u64::try_from(self.0.elapsed().as_micros()).unwrap()
    }
}

/// Events with when they become visible, and what was asked for.
#[derive(Default)]
struct Rows {
    rows: Vec<(u64, Event)>,
    reads: Vec<Range<u64>>,
    broken: HashMap<u16, Code>,
    /// Of events whose rows are not simply there.
    standings: HashMap<EventId, Result<Standing, Code>>,
    /// How often each event's row was asked for.
    settled: HashMap<EventId, usize>,
}

/// The log: what it holds in this epoch, the ids that it knows, and the marks.
struct Log {
    epoch: u64,
    begun: u64,
    entries: Vec<Event>,
    known: HashMap<EventId, u64>,
    marks: HashMap<u16, u64>,
    /// How often each id was asked for, by anybody.
    asked: HashMap<EventId, usize>,
    away: bool,
}

struct World {
    clock: Arc<Wall>,
    minter: Minter,
    rows: Mutex<Rows>,
    log: Mutex<Log>,
    /// Whether what is queued goes out.
    flows: watch::Sender<bool>,
}

impl World {
    fn new() -> Arc<Self> {
        let clock = Arc::new(Wall(Instant::now()));
        let log = Log {
            epoch: 1,
            begun: clock.now_micros() / 1_000,
            entries: Vec::new(),
            known: HashMap::new(),
            marks: HashMap::new(),
            asked: HashMap::new(),
            away: false,
        };
        let minter = Minter::new(clock.clone(), Worker::default(), 0);
        Arc::new(Self { clock, minter, rows: Mutex::default(), log: Mutex::new(log), flows: watch::Sender::new(true) })
    }

    fn now(&self) -> u64 {
        self.clock.now_micros() / 1_000
    }

    /// Stores an event that becomes visible after a while, and leaves it behind.
    fn store_late(&self, after: u64) -> Event {
        let id = EventId::new(self.minter.next());
        // Each of a guild of its own.
        let topics = vec![Topic::Guild(id.to_string().parse().unwrap())];
        let event = Event { id, topics, op: "X".into(), channel: None, frame: r#"{"op":"X","d":null}"#.into() };
        self.rows.lock().unwrap().rows.push((self.now() + after, event.clone()));
        event
    }

    fn store(&self) -> Event {
        self.store_late(0)
    }

    fn relay(self: &Arc<Self>) -> JoinHandle<()> {
        let relay = Relay::new(self.clone(), self.clone(), self.clone()).with_clock(self.clock.clone());
        tokio::spawn(async move { relay.run().await })
    }

    /// The ids in the log, in its order.
    fn told(&self) -> Vec<EventId> {
        self.log.lock().unwrap().entries.iter().map(|event| event.id).collect()
    }

    fn stands(&self, event: &Event, standing: Result<Standing, Code>) {
        self.rows.lock().unwrap().standings.insert(event.id, standing);
    }

    fn settled(&self, event: &Event) -> usize {
        self.rows.lock().unwrap().settled.get(&event.id).copied().unwrap_or_default()
    }

    fn asked(&self, event: &Event) -> usize {
        self.log.lock().unwrap().asked.get(&event.id).copied().unwrap_or_default()
    }

    fn away(&self, away: bool) {
        self.log.lock().unwrap().away = away;
    }

    /// All data is lost, and a new epoch begins.
    fn restart_log(&self) {
        let mut log = self.log.lock().unwrap();
        let epoch = log.epoch + 1;
        *log = Log {
            epoch,
            begun: self.now(),
            entries: Vec::new(),
            known: HashMap::new(),
            marks: HashMap::new(),
            asked: HashMap::new(),
            away: false,
        };
    }
}

fn shard(id: EventId) -> u16 {
    id.snowflake().unwrap().sequence() % SHARDS
}

fn away() -> Fault {
    Fault::new(Code::UNAVAILABLE, "away")
}

#[async_trait::async_trait]
impl Journal for World {
    fn shards(&self) -> u16 {
        SHARDS
    }

    async fn read(&self, of: u16, ms: Range<u64>) -> Result<Vec<Event>> {
        let now = self.now();
        let mut rows = self.rows.lock().unwrap();
        if let Some(code) = rows.broken.get(&of) {
            return Err(Fault::new(code.clone(), "broken"));
        }
        rows.reads.push(ms.clone());
        let there = |(visible, event): &&(u64, Event)| {
            *visible <= now && shard(event.id) == of && ms.contains(&(event.id.micros().unwrap() / 1_000))
        };
        Ok(rows.rows.iter().filter(there).map(|(_, event)| event.clone()).collect())
    }

    async fn settle(&self, event: &Event) -> Result<Standing> {
        let mut rows = self.rows.lock().unwrap();
        *rows.settled.entry(event.id).or_default() += 1;
        rows.standings.get(&event.id).cloned().unwrap_or(Ok(Standing::Stays)).map_err(|code| Fault::new(code, "broken"))
    }
}

#[async_trait::async_trait]
impl Publish for World {
    /// As the script does it: an id that is known changes nothing, one that may have been forgotten is refused.
    async fn publish(&self, events: &[Event]) -> Result<()> {
        let now = self.now();
        let mut log = self.log.lock().unwrap();
        if log.away {
            return Err(away());
        }
        log.known.retain(|_, at| now - *at < 10 * MINUTE);
        for event in events {
            *log.asked.entry(event.id).or_default() += 1;
            let minted = event.id.micros().map_or(now, |micros| micros / 1_000);
            assert!(now - minted <= 9 * MINUTE, "the log would refuse it");
            if log.known.insert(event.id, now).is_none() {
                log.entries.push(event.clone());
            }
        }
        Ok(())
    }

    async fn pass(&self, _: Event) -> Result<()> {
        Ok(())
    }

    async fn flush(&self) {
        self.flows.subscribe().wait_for(|flows| *flows).await.unwrap();
    }
}

#[async_trait::async_trait]
impl Marks for World {
    async fn marks(&self) -> Result<Marked> {
        let log = self.log.lock().unwrap();
        if log.away {
            return Err(away());
        }
        Ok(Marked::new(log.epoch.to_string(), log.begun, log.marks.clone()))
    }

    async fn known(&self, ids: &[EventId]) -> Result<HashSet<EventId>> {
        let now = self.now();
        let log = self.log.lock().unwrap();
        if log.away {
            return Err(away());
        }
        let known = |id: &&EventId| log.known.get(id).is_some_and(|at| now - at < 10 * MINUTE);
        Ok(ids.iter().filter(known).copied().collect())
    }

    async fn mark(&self, epoch: &str, done: &HashMap<u16, u64>) -> Result<()> {
        let mut log = self.log.lock().unwrap();
        if log.away {
            return Err(away());
        }
        if log.epoch.to_string() == epoch {
            for (shard, ms) in done {
                let mark = log.marks.entry(*shard).or_default();
                *mark = *ms.max(mark);
            }
        }
        Ok(())
    }
}

async fn wait(ms: u64) {
    sleep(Duration::from_millis(ms)).await;
}

/// Events of all shards.
async fn some(world: &World) -> Vec<Event> {
    let mut events = Vec::new();
    for _ in 0..5 {
        events.extend((0..3).map(|_| world.store()));
        wait(300).await;
    }
    assert_eq!(events.iter().map(|event| shard(event.id)).collect::<BTreeSet<_>>().len(), 3);
    events
}

fn ids(events: &[Event]) -> Vec<EventId> {
    events.iter().map(|event| event.id).collect()
}

/// I6.
#[tokio::test(start_paused = true)]
async fn what_was_left_behind_is_told_within_ten_seconds_in_its_order_and_once() {
    let world = World::new();
    let relay = world.relay();
    wait(3 * MINUTE).await;
    let events = some(&world).await;
    wait(10 * SECOND).await;
    assert_eq!(world.told(), ids(&events), "over all shards in the order of their ids");
    // It is read again for two minutes, and not published again.
    wait(20 * MINUTE).await;
    assert_eq!(world.told(), ids(&events));
    assert!(events.iter().all(|event| world.asked(event) == 1));
    let again = events[0].id.micros().unwrap() / 1_000;
    assert!(world.rows.lock().unwrap().reads.iter().filter(|ms| ms.contains(&again)).count() > usize::from(SHARDS));
    assert!(!relay.is_finished());
}

/// I7: by two relays and its writer.
#[tokio::test(start_paused = true)]
async fn what_its_writer_published_is_told_once() {
    let world = World::new();
    world.relay();
    world.relay();
    let events = some(&world).await;
    world.publish(&events[..8]).await.unwrap();
    wait(10 * SECOND).await;
    world.publish(&events).await.unwrap();
    wait(5 * MINUTE).await;
    let mut told = world.told();
    told.sort_by_key(|id| MessageId::new(id.uuid()).sort_key());
    assert_eq!(told, ids(&events), "by two relays and its writer");
}

#[tokio::test(start_paused = true)]
async fn only_what_was_left_behind_is_asked_for() {
    let world = World::new();
    world.relay();
    let events = some(&world).await;
    world.publish(&events[..8]).await.unwrap();
    wait(5 * MINUTE).await;
    assert!(events[..8].iter().all(|event| (world.settled(event), world.asked(event)) == (0, 1)));
    assert!(events[8..].iter().all(|event| (world.settled(event), world.asked(event)) == (1, 1)));
}

/// I6.
#[tokio::test(start_paused = true)]
async fn what_has_no_row_yet_waits_and_holds_up_no_other() {
    for standing in [Ok(Standing::NotYet), Err(Code::UNAVAILABLE)] {
        let world = World::new();
        let relay = world.relay();
        let late = [world.store(), world.store()];
        late.iter().for_each(|event| world.stands(event, standing.clone()));
        wait(1).await;
        let events = some(&world).await;
        wait(10 * SECOND).await;
        assert_eq!(world.told(), ids(&events));
        // For longer than the journal is read again, also by a relay that begins then.
        wait(4 * MINUTE).await;
        assert_eq!(world.told(), ids(&events));
        relay.abort();
        world.relay();
        world.stands(&late[1], Ok(Standing::Stays));
        wait(2 * SECOND).await;
        assert_eq!(world.told()[events.len()..], [late[1].id]);
        world.stands(&late[0], Ok(Standing::Stays));
        wait(2 * SECOND).await;
        assert_eq!(world.told()[events.len()..], [late[1].id, late[0].id]);
        wait(5 * MINUTE).await;
        assert_eq!(world.told().len(), events.len() + 2, "once");
    }
}

#[tokio::test(start_paused = true)]
async fn no_more_are_read_while_too_many_wait() {
    let world = World::new();
    world.relay();
    let late: Vec<_> = (0..4_096).map(|_| world.store()).collect();
    late.iter().for_each(|event| world.stands(event, Ok(Standing::NotYet)));
    wait(10 * SECOND).await;
    let events = some(&world).await;
    wait(20 * SECOND).await;
    assert!(world.told().is_empty());
    assert!(events.iter().all(|event| world.settled(event) == 0));
    world.stands(&late[7], Ok(Standing::Stays));
    wait(2 * SECOND).await;
    assert_eq!(world.told(), [vec![late[7].id], ids(&events)].concat());
}

/// I6, for what is not stored.
#[tokio::test(start_paused = true)]
async fn what_never_gets_its_row_is_not_told() {
    for standing in [Ok(Standing::Gone), Err(Code::INTERNAL)] {
        let world = World::new();
        world.relay();
        let gone = world.store();
        world.stands(&gone, standing);
        let waits = world.store();
        world.stands(&waits, Ok(Standing::NotYet));
        wait(1).await;
        let events = some(&world).await;
        wait(8 * MINUTE).await;
        assert_eq!(world.told(), ids(&events));
        assert_eq!((world.settled(&gone), world.asked(&gone)), (1, 0));
        // As old as that, it may have been told and forgotten.
        wait(2 * MINUTE).await;
        let last = world.log.lock().unwrap().entries.last().cloned().unwrap();
        assert_eq!((&*last.op, last.topics), ("RESYNC", waits.topics.clone()));
        wait(5 * MINUTE).await;
        assert_eq!((world.told().len(), world.asked(&waits)), (events.len() + 1, 0), "once");
    }
}

/// I6.
#[tokio::test(start_paused = true)]
async fn what_becomes_visible_late_is_told_within_forty_seconds_of_that() {
    let world = World::new();
    world.relay();
    for late in [7, 31, 60, 85] {
        let event = world.store_late(late * SECOND);
        wait(late * SECOND).await;
        assert!(!world.told().contains(&event.id));
        wait(40 * SECOND).await;
        assert_eq!((world.told().last(), world.asked(&event)), (Some(&event.id), 1), "{late}");
    }
}

/// I8.
#[tokio::test(start_paused = true)]
async fn a_relay_that_is_killed_changes_nothing() {
    let world = World::new();
    let mut events = Vec::new();
    for round in 0..40 {
        events.push(world.store());
        // Some become visible only when this relay is dead.
        events.push(world.store_late(round % 8 * 10 * SECOND));
        let relay = world.relay();
        wait(SECOND + round * 331).await;
        relay.abort();
    }
    world.relay();
    wait(2 * MINUTE).await;
    let told = world.told();
    assert_eq!(told.iter().collect::<HashSet<_>>(), ids(&events).iter().collect());
    assert_eq!(told.len(), events.len());
}

#[tokio::test(start_paused = true)]
async fn a_relay_goes_on_where_the_last_one_was() {
    let world = World::new();
    let relay = world.relay();
    let before = some(&world).await;
    wait(5 * MINUTE).await;
    relay.abort();
    let mark = world.now();
    let (left, late) = (some(&world).await, world.store_late(4 * MINUTE));
    wait(5 * MINUTE).await;
    world.rows.lock().unwrap().reads.clear();
    world.relay();
    wait(10 * SECOND).await;
    assert_eq!(world.told()[before.len()..], [ids(&left), vec![late.id]].concat());
    let first = world.rows.lock().unwrap().reads.iter().map(|ms| ms.start).min().unwrap();
    assert!(first >= mark - 3 * MINUTE, "not all is read again");
    assert!(before.iter().all(|event| world.asked(event) == 1));
}

#[tokio::test(start_paused = true)]
async fn what_is_too_old_is_not_told_but_its_topics_are() {
    let world = World::new();
    let relay = world.relay();
    wait(5 * MINUTE).await;
    relay.abort();
    let old = some(&world).await;
    // It was published, and forgotten since.
    world.publish(&old[..1]).await.unwrap();
    // Two of the same topic are one RESYNC.
    let mut double = world.store();
    double.topics = old[1].topics.clone();
    world.rows.lock().unwrap().rows.last_mut().unwrap().1 = double;
    wait(12 * MINUTE).await;
    let young = some(&world).await;
    wait(4 * MINUTE).await;
    world.relay();
    wait(30 * SECOND).await;

    let entries = world.log.lock().unwrap().entries[1..].to_vec();
    let (resyncs, told): (Vec<_>, Vec<_>) = entries.into_iter().partition(|event| &*event.op == "RESYNC");
    assert_eq!(told, young);
    assert_eq!(resyncs.len(), old.len());
    for (resync, event) in resyncs.iter().zip(&old) {
        assert_eq!((&resync.topics, resync.channel), (&event.topics, None));
        assert_ne!(resync.id, event.id);
        let frame: serde_json::Value = serde_json::from_str(&resync.frame).unwrap();
        assert_eq!(frame["d"], serde_json::json!({ "topics": event.topics, "epoch": "1" }));
    }
    assert_eq!(resyncs.iter().map(|event| event.id).collect::<HashSet<_>>().len(), resyncs.len());
    wait(5 * MINUTE).await;
    assert_eq!(world.told().len(), 1 + old.len() + young.len(), "told once");
}

/// I6, by epoch.
#[tokio::test(start_paused = true)]
async fn in_a_new_epoch_what_was_just_written_is_told_again_and_nothing_older() {
    let world = World::new();
    world.relay();
    let old = some(&world).await;
    // Far from the border of 90 seconds on both sides.
    wait(70 * SECOND).await;
    let near = some(&world).await;
    wait(60 * SECOND).await;
    world.restart_log();
    let (after, late) = (some(&world).await, world.store_late(50 * SECOND));
    wait(2 * MINUTE).await;
    assert_eq!(world.told(), [ids(&near), ids(&after), vec![late.id]].concat());
    assert!(old.iter().all(|event| world.asked(event) == 0));
    assert!(near.iter().chain(&after).all(|event| world.asked(event) == 1));
}

/// I6.
#[tokio::test(start_paused = true)]
async fn while_the_log_is_away_nothing_is_forgotten() {
    let world = World::new();
    world.relay();
    for away_for in [3 * SECOND, 45 * SECOND, 8 * MINUTE] {
        let before = world.told().len();
        world.away(true);
        let mut events = some(&world).await;
        events.push(world.store_late(away_for.min(80 * SECOND)));
        wait(away_for).await;
        world.away(false);
        wait(40 * SECOND).await;
        assert_eq!(world.told()[before..].iter().collect::<HashSet<_>>(), ids(&events).iter().collect());
        assert_eq!(world.told().len() - before, events.len());
    }
}

#[tokio::test(start_paused = true)]
async fn what_is_only_queued_is_not_done() {
    let world = World::new();
    let relay = world.relay();
    wait(MINUTE).await;
    world.flows.send_replace(false);
    let event = world.store();
    wait(MINUTE).await;
    // It is in the queue of a process that dies.
    let at = event.id.micros().unwrap() / 1_000;
    let marks = world.log.lock().unwrap().marks.clone();
    assert!(marks.values().all(|mark| *mark <= at), "{marks:?}");
    assert_eq!(marks.len(), usize::from(SHARDS));
    relay.abort();
    world.flows.send_replace(true);
    world.log.lock().unwrap().known.clear();
    world.log.lock().unwrap().entries.clear();
    world.relay();
    wait(10 * SECOND).await;
    assert_eq!(world.told(), [event.id]);
}

#[tokio::test(start_paused = true)]
async fn a_shard_that_cannot_be_read_holds_up_no_other() {
    for (code, is_left_out) in [(Code::UNAVAILABLE, false), (Code::INTERNAL, true)] {
        let world = World::new();
        world.relay();
        world.rows.lock().unwrap().broken.insert(1, code);
        let events = some(&world).await;
        let late = [world.store_late(80 * SECOND), world.store_late(80 * SECOND), world.store_late(80 * SECOND)];
        wait(10 * SECOND).await;
        let of = |events: &[Event], broken| {
            let of_shard = events.iter().filter(|event| (shard(event.id) == 1) == broken);
            of_shard.map(|event| event.id).collect::<HashSet<_>>()
        };
        assert_eq!(world.told().into_iter().collect::<HashSet<_>>(), of(&events, false));
        wait(6 * MINUTE).await;
        assert_eq!(world.told().len(), of(&events, false).len() + of(&late, false).len());
        world.rows.lock().unwrap().broken.clear();
        wait(40 * SECOND).await;
        // What makes no sense was given up; what was only away comes, with what became visible meanwhile.
        let told: HashSet<_> = world.told().into_iter().collect();
        let all = [ids(&events), ids(&late)].concat().into_iter().collect::<HashSet<_>>();
        let without = of(&events, false).union(&of(&late, false)).copied().collect();
        assert_eq!(told, if is_left_out { without } else { all });
        assert_eq!(world.told().len(), told.len());
        let reads = world.rows.lock().unwrap().reads.len();
        assert!(reads < 12_000, "{reads}: the others are not read over and over");
    }
}
