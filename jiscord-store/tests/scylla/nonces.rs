//! Claims whose message was not written in time. Requests are held back on their way to the database, so that they land late,
//! as of the time that they have always had.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering::SeqCst},
    },
    time::Duration,
};

use futures_util::future::join_all;
use jiscord_core::{
    ChannelId, Event, EventId, MessageId,
    journal::{Journal, Standing},
    text::{Content, Nonce},
    time::{Clock, SystemClock},
};
use jiscord_store::{
    Created, Error, Messages, NewMessage,
    scylla::{Options, ScyllaStore},
};
use tokio::time::{sleep, timeout};
use uuid::Uuid;

use crate::{
    channel,
    cql::Keyspace,
    keyspace, message,
    proxy::{BATCH, EXECUTE, Proxy},
    tell,
};

const PATIENCE: Duration = Duration::from_secs(60);

/// A clock that stands still until it is told to go on, so that ages are exact. Ids never go back, nor does it.
struct Hand(AtomicU64);

impl Clock for Hand {
    fn now_micros(&self) -> u64 {
        self.0.load(SeqCst)
    }
}

/// Two stores, one of them behind a proxy, and their clock.
struct Two {
    keyspace: Keyspace,
    proxy: Proxy,
    clock: Arc<Hand>,
    far: Arc<ScyllaStore>,
    near: Arc<ScyllaStore>,
}

impl Two {
    async fn of(keyspace: Keyspace) -> Self {
        Self::impatient(keyspace, PATIENCE).await
    }

    /// The far one waits so long for an answer.
    async fn impatient(keyspace: Keyspace, patience: Duration) -> Self {
        let proxy = Proxy::before(keyspace.address.clone()).await;
        let clock = Arc::new(Hand(AtomicU64::new(SystemClock.now_micros())));
        let leased = |options: Options| options.clock(clock.clone()).lease(Duration::from_secs(3_600));
        let near = ScyllaStore::open(leased(keyspace.options())).await.unwrap();
        let options = Options::new([proxy.address.clone()], keyspace.name.clone()).timeout(patience);
        let far = ScyllaStore::open(leased(options)).await.unwrap();
        Self { keyspace, proxy, clock, far, near }
    }

    /// A try that is killed when so many requests are held back.
    async fn killed(&self, new: &NewMessage, holds: usize) {
        let (far, new) = (self.far.clone(), new.clone());
        let tried = tokio::spawn(async move { create(&far, &new).await });
        self.proxy.holds(holds).await;
        tried.abort();
        assert!(tried.await.unwrap_err().is_cancelled());
    }

    /// A message whose claim is there, and whose write is held back for its content.
    async fn claimed(&self, content: &str) -> (NewMessage, Event) {
        let new = message(channel(), content);
        self.proxy.hold(BATCH, content);
        self.killed(&new, 1).await;
        let cql = "SELECT message_id FROM {}.message_nonces WHERE author_id = ? AND channel_id = ? AND nonce = 'n'";
        let cql = cql.replace("{}", &self.keyspace.name);
        let answer = self.keyspace.session.query_unpaged(cql, (new.author_id.uuid(), new.channel_id.uuid())).await.unwrap();
        let (id,) = answer.into_rows_result().unwrap().single_row::<(scylla::value::CqlTimeuuid,)>().unwrap();
        let id = MessageId::new(id.into());
        let event = Event { id: EventId::new(id.uuid()), ..tell()(&row_of(&new, id))[0].clone() };
        (new, event)
    }

    fn later(&self, seconds: u64) {
        self.clock.0.fetch_add(seconds * 1_000_000, SeqCst);
    }

    /// What was held back lands.
    async fn land(&self, content: &str, event: &Event) {
        self.proxy.release(content).await;
        let ms = event.id.micros().unwrap() / 1_000;
        let is_there = async || {
            let shards = (0..self.near.shards()).map(|shard| self.near.read(shard, ms..ms + 1));
            join_all(shards).await.into_iter().any(|events| events.unwrap().iter().any(|found| found.id == event.id))
        };
        let landed = async {
            while !is_there().await {
                sleep(Duration::from_millis(20)).await;
            }
        };
        timeout(PATIENCE, landed).await.expect("it lands");
    }

    /// The ids of all that a channel shows.
    async fn shown(&self, channel: ChannelId) -> Vec<EventId> {
        let page = self.near.page_before(channel, None, 9).await.unwrap();
        page.iter().map(|row| EventId::new(row.message_id.uuid())).collect()
    }

    async fn number(&self, what: &str, new: &NewMessage) -> i64 {
        let row = format!("author_id = {} AND channel_id = {} AND nonce = 'n'", new.author_id, new.channel_id);
        self.keyspace.number(&format!("SELECT CAST({what} AS bigint) FROM {{}}.message_nonces WHERE {row}")).await
    }
}

fn row_of(new: &NewMessage, id: MessageId) -> jiscord_core::model::Message {
    jiscord_core::model::Message {
        message_id: id,
        channel_id: new.channel_id,
        author_id: new.author_id,
        content: new.content.as_str().to_owned(),
        created_at: id.minted_at().unwrap(),
        author: None,
        rev: id.micros().unwrap(),
        nonce: None,
        reply_to: new.reply_to,
    }
}

async fn create(store: &ScyllaStore, new: &NewMessage) -> Result<Created<jiscord_core::model::Message>, Error> {
    Messages::create(store, new.clone(), tell()).await
}

fn id(created: &Created<jiscord_core::model::Message>) -> EventId {
    EventId::new(created.row.message_id.uuid())
}

/// What is in the request that moves a claim, and in no other: the id before, and whose it is.
fn moves(new: &NewMessage, event: &Event) -> Vec<u8> {
    let (id, author) = (event.id.uuid(), new.author_id.uuid());
    [id.as_bytes().as_slice(), &16_u32.to_be_bytes(), author.as_bytes()].concat()
}

/// The same for the request that marks one: the nonce, and which id it must have. Of the two that have this, it is the only one
/// without an id before.
fn marks(new: &NewMessage, event: &Event) -> Vec<u8> {
    let (channel, id) = (new.channel_id.uuid(), event.id.uuid());
    let nonce = [&1_u32.to_be_bytes()[..], b"n"].concat();
    [channel.as_bytes().as_slice(), &nonce, &16_u32.to_be_bytes(), id.as_bytes()].concat()
}

/// I1, I2, I5.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_claim_without_its_message_gets_another_id_and_the_late_write_shows_nothing() {
    let two = Two::of(keyspace!("late completion")).await;
    let (new, late) = two.claimed("its write is late").await;
    assert_eq!(two.near.settle(&late).await.unwrap(), Standing::Stays, "nothing is known of it");

    two.later(63);
    let moved = create(&two.near, &new).await.unwrap();
    assert!(!moved.repeated && id(&moved) != late.id);
    assert!(moved.row.rev > late.id.micros().unwrap() + 60_000_000, "it is as new as the repeat");
    let repeat = create(&two.far, &new).await.unwrap();
    assert_eq!((repeat.repeated, &repeat.row), (true, &moved.row));

    two.land("its write is late", &late).await;
    assert_eq!(two.shown(new.channel_id).await, [id(&moved)]);
    assert!(Messages::get(&*two.near, new.channel_id, MessageId::new(late.id.uuid())).await.unwrap().is_none());
    // A relay finds both events.
    assert_eq!(two.near.settle(&late).await.unwrap(), Standing::Gone);
    assert_eq!(two.near.settle(&moved.events[0]).await.unwrap(), Standing::Stays);
    assert_eq!(create(&two.near, &new).await.unwrap().row, moved.row);

    // It is kept as long as any, with its body.
    for column in ["message_id", "body_hash", "replaced"] {
        let left = two.number(&format!("ttl({column})"), &new).await;
        assert!((25 * 3_600 - 120..=25 * 3_600).contains(&left), "{column}: {left} s");
    }
    let other = NewMessage { content: Content::new("something else").unwrap(), ..new };
    assert!(matches!(create(&two.near, &other).await, Err(Error::NonceReused)));
    two.keyspace.drop().await;
}

/// I3, and I2 for whoever answered before.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_claim_that_is_not_old_enough_is_not_moved() {
    let two = Two::of(keyspace!("young claims")).await;
    for (content, seconds) in [("young", 30), ("old for an answer, and for nothing else", 61)] {
        let (new, event) = two.claimed(content).await;
        two.later(seconds);
        // The same write, by another: it is there, and answered only while it is young.
        let repeat = create(&two.near, &new).await;
        assert_eq!(two.shown(new.channel_id).await, [event.id]);
        if seconds == 30 {
            assert_eq!(id(&repeat.unwrap()), event.id);
        } else {
            assert!(matches!(repeat, Err(Error::Unknown(_))), "{repeat:?}");
        }
        two.later(90 - seconds);
        assert_eq!(id(&create(&two.near, &new).await.unwrap()), event.id);
        two.land(content, &event).await;
        assert_eq!(two.shown(new.channel_id).await, [event.id]);
    }
    two.keyspace.drop().await;
}

/// I1, I2.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn of_many_repeats_at_once_all_answer_with_one_new_id() {
    let two = Two::of(keyspace!("many late completions")).await;
    for round in 0..5 {
        let content = format!("late {round}");
        let (new, late) = two.claimed(&content).await;
        two.later(70);
        let tries = join_all([&two.near, &two.far].repeat(5).into_iter().map(|store| {
            let (store, new) = (store.clone(), new.clone());
            tokio::spawn(async move { create(&store, &new).await })
        }));
        let answers: Vec<_> = tries.await.into_iter().map(|answer| answer.unwrap()).collect();
        let rows: Vec<_> = answers.iter().flatten().map(|created| &created.row).collect();
        assert!(!rows.is_empty() && rows.iter().all(|row| *row == rows[0]), "{answers:?}");
        assert!(answers.iter().all(|answer| matches!(answer, Ok(_) | Err(Error::Unknown(_)))), "{answers:?}");
        two.land(&content, &late).await;
        assert_eq!(two.shown(new.channel_id).await, [EventId::new(rows[0].message_id.uuid())]);
        assert_ne!(late.id.uuid(), rows[0].message_id.uuid());
    }
    two.keyspace.drop().await;
}

/// I1, I2, I6: the write lands, and is seen, between two steps of a repeat that did not find it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_was_seen_is_not_moved() {
    let two = Two::of(keyspace!("marks")).await;
    for by_relay in [true, false] {
        let content = format!("seen by a relay: {by_relay}");
        let (new, event) = two.claimed(&content).await;
        two.later(63);
        let moves = moves(&new, &event);
        two.proxy.hold(EXECUTE, &moves);
        let repeat = tokio::spawn({
            let (far, new) = (two.far.clone(), new.clone());
            async move { create(&far, &new).await }
        });
        two.proxy.holds(2).await;
        two.land(&content, &event).await;
        if by_relay {
            assert_eq!(two.near.settle(&event).await.unwrap(), Standing::Stays);
        } else {
            let answer = create(&two.near, &new).await.unwrap();
            assert!(answer.repeated && id(&answer) == event.id);
        }
        two.proxy.release(&moves).await;
        let answer = repeat.await.unwrap().unwrap();
        assert!(answer.repeated && id(&answer) == event.id);
        assert_eq!(two.shown(new.channel_id).await, [event.id]);
        // The mark goes before the rest of the row does.
        let (mark, claim) = (two.number("ttl(published)", &new).await, two.number("ttl(message_id)", &new).await);
        assert!((23 * 3_600..=claim - 3_000).contains(&mark), "{mark} s of {claim} s");
    }
    two.keyspace.drop().await;
}

/// I1, I6: what was moved is never told.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_moves_a_claim_and_dies_leaves_nothing_behind() {
    let two = Two::of(keyspace!("who moves and dies")).await;
    for by_relay in [true, false] {
        let content = format!("left to a relay: {by_relay}");
        let (new, late) = two.claimed(&content).await;
        two.later(63);
        // It moves the claim; what it then sends to delete the old row is held back.
        let deletes = [&16_u32.to_be_bytes()[..], late.id.uuid().as_bytes()].concat();
        two.proxy.hold(BATCH, &deletes);
        two.killed(&new, 2).await;
        if by_relay {
            two.land(&content, &late).await;
            assert_eq!(two.shown(new.channel_id).await, [late.id], "for a while");
            assert_eq!(two.near.settle(&late).await.unwrap(), Standing::Gone);
            assert!(two.shown(new.channel_id).await.is_empty());
        }
        let moved = create(&two.near, &new).await.unwrap();
        assert_ne!(id(&moved), late.id);
        if !by_relay {
            two.land(&content, &late).await;
        }
        assert_eq!(two.shown(new.channel_id).await, [id(&moved)]);
        // It lands at last, and changes nothing.
        two.proxy.release(&deletes).await;
        assert_eq!(id(&create(&two.far, &new).await.unwrap()), id(&moved));
    }
    two.keyspace.drop().await;
}

/// I1, I2.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn lost_answers_of_moves_and_marks_are_read() {
    let two = Two::impatient(keyspace!("lost answers of moves and marks"), Duration::from_secs(5)).await;
    let (new, late) = two.claimed("moved, and its answer is lost").await;
    two.later(63);
    two.proxy.lose_answer(EXECUTE, moves(&new, &late));
    let moved = create(&two.far, &new).await.unwrap();
    assert!(!moved.repeated && id(&moved) != late.id);
    assert_eq!(two.proxy.lost(), 1);

    two.later(63);
    let event = Event { id: id(&moved), ..late };
    two.proxy.lose_answer(EXECUTE, marks(&new, &event));
    let repeat = create(&two.far, &new).await.unwrap();
    assert_eq!((repeat.repeated, &repeat.row), (true, &moved.row));
    assert_eq!(two.proxy.lost(), 2);
    assert_eq!(two.shown(new.channel_id).await, [id(&moved)]);
    two.keyspace.drop().await;
}

/// I4: nothing deletes messages yet; whoever will marks the claim first.
#[tokio::test]
async fn what_was_seen_and_is_gone_stays_gone() {
    let two = Two::of(keyspace!("seen and gone")).await;
    let (new, event) = two.claimed("seen and gone").await;
    two.land("seen and gone", &event).await;
    two.later(63);
    assert_eq!(two.near.settle(&event).await.unwrap(), Standing::Stays);
    let row = format!("channel_id = {} AND message_id = {}", new.channel_id, event.id);
    two.keyspace.run(&format!("DELETE FROM {{}}.messages WHERE {row}")).await;
    for store in [&two.near, &two.far] {
        let repeat = create(store, &new).await.unwrap();
        assert!(repeat.repeated && id(&repeat) == event.id && repeat.events.is_empty());
        assert_eq!(store.settle(&event).await.unwrap(), Standing::Gone);
    }
    assert!(two.shown(new.channel_id).await.is_empty());
    two.keyspace.drop().await;
}

#[tokio::test]
async fn an_event_that_no_nonce_stands_for_stays() {
    let keyspace = keyspace!("events without a nonce");
    let store = keyspace.open().await;
    let new = NewMessage { nonce: None, ..message(channel(), "hi") };
    let created = create(&store, &new).await.unwrap();
    assert_eq!(store.settle(&created.events[0]).await.unwrap(), Standing::Stays);
    let unminted = Event { id: EventId::new(Uuid::new_v4()), ..created.events[0].clone() };
    assert_eq!(store.settle(&unminted).await.unwrap(), Standing::Stays);
    // One whose row is not there yet.
    let nonce = Nonce::new("m").unwrap();
    let new = NewMessage { nonce: Some(nonce), ..message(channel(), "ho") };
    let created = create(&store, &new).await.unwrap();
    assert_eq!(store.settle(&created.events[0]).await.unwrap(), Standing::Stays);
    let (channel, id) = (new.channel_id, created.row.message_id);
    keyspace.run(&format!("DELETE FROM {{}}.messages WHERE channel_id = {channel} AND message_id = {id}")).await;
    assert_eq!(store.settle(&created.events[0]).await.unwrap(), Standing::NotYet);
    keyspace.drop().await;
}
