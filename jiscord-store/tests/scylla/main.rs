//! The CQL store against a real database, which JISCORD_TEST_CQL names.

#![expect(clippy::unwrap_used, reason = "tests")]

mod cql;
mod killed;
mod migrations;
mod node;
mod nonces;
mod proxy;
mod told;
mod trouble;

use std::{
    collections::{BTreeMap, HashSet},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering::SeqCst},
    },
    time::Duration,
};

use async_trait::async_trait;
use cql::{Backwards, Keyspace, Off};
use futures_util::future::join_all;
use jiscord_core::{
    ChannelId, Event, EventId, GuildId, Position, ServerFrame, Timestamp, Topic, UserId,
    event::EventLog,
    journal::Journal,
    mint::IdSource,
    model::{Member, Message, Visibility},
    text::{Content, Email, Name, Nonce, Username},
    time::{Clock, SystemClock},
};
use jiscord_store::{
    Error, Guilds, Members, Messages, NewGuild, NewMessage, NewUser, Removed, Tell, Users, conformance,
    memory::MemoryStore,
    scylla::{ClockCheck, OpenError, ScyllaStore},
};
use uuid::Uuid;

/// The keyspace, or the end of a test that is skipped.
macro_rules! keyspace {
    ($test:literal) => {
        match crate::cql::Keyspace::new($test).await {
            Some(keyspace) => keyspace,
            None => return,
        }
    };
}
pub(crate) use keyspace;

fn user() -> UserId {
    UserId::new(Uuid::new_v4())
}

fn channel() -> ChannelId {
    ChannelId::new(Uuid::new_v4())
}

fn new_user() -> NewUser {
    NewUser {
        username: Username::new("Ada").unwrap(),
        email: Email::new(&format!("{}@example.com", Uuid::new_v4())).unwrap(),
        password_hash: "$argon2id$".to_owned(),
    }
}

fn message(channel_id: ChannelId, content: &str) -> NewMessage {
    NewMessage {
        channel_id,
        author_id: user(),
        content: Content::new(content).unwrap(),
        reply_to: None,
        nonce: Some(Nonce::new("n").unwrap()),
    }
}

fn tell() -> Tell<Message> {
    let guild = GuildId::new(Uuid::new_v4());
    Arc::new(move |row| {
        let frame = ServerFrame::MessageCreate(row.clone());
        vec![Event::new(EventId::new(row.message_id.uuid()), vec![Topic::Guild(guild)], Some(row.channel_id), frame)]
    })
}

fn silent<T>() -> Tell<T> {
    Arc::new(|_| Vec::new())
}

/// The whole journal of the minutes around that time, by id.
async fn journal(store: &ScyllaStore, around_ms: u64) -> BTreeMap<EventId, Event> {
    let mut events = BTreeMap::new();
    for shard in 0..store.shards() {
        // Whole minutes, so that ids that were not minted are found too.
        let all = store.read(shard, around_ms - 600_000..around_ms + 600_000).await.unwrap();
        events.extend(all.into_iter().map(|event| (event.id, event)));
    }
    events
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn it_passes_the_suite_and_every_event_is_in_the_journal() {
    let keyspace = keyspace!("the suite");
    passes(&keyspace, Arc::new(SystemClock)).await;
    keyspace.drop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn it_passes_the_suite_with_a_clock_that_steps_back() {
    let keyspace = keyspace!("the suite with a clock that steps back");
    passes(&keyspace, Arc::new(Backwards::default())).await;
    keyspace.drop().await;
}

async fn passes(keyspace: &Keyspace, clock: Arc<dyn Clock>) {
    let store = ScyllaStore::open(keyspace.options().clock(clock.clone())).await.unwrap();
    let log = MemoryStore::new(Arc::new(SystemClock));
    conformance::all(&told::told(&store, log.clone())).await;

    let mut told: BTreeMap<EventId, Vec<Event>> = BTreeMap::new();
    for logged in log.read_after(Position(0), usize::MAX).await.unwrap() {
        told.entry(logged.event.id).or_default().push(logged.event);
    }
    // Appended by hand, to the log alone.
    told.retain(|_, events| events.iter().all(|event| &*event.op != "FROM_THE_FUTURE"));
    assert!(told.len() > 500, "{}", told.len());
    let kept = journal(&store, clock.now_micros() / 1000).await;
    assert_eq!(kept.keys().collect::<Vec<_>>(), told.keys().collect::<Vec<_>>());
    for (id, events) in told {
        // Two tries at once write the same rows; only the suite tells them to different guilds.
        let same = |event: &&Event| Event { topics: kept[&id].topics.clone(), ..(*event).clone() } == kept[&id];
        assert!(events.iter().any(|event| same(&event)), "{:?} is none of {events:?}", kept[&id]);
    }
    store.close().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn reads_that_wait_together_are_one_query() {
    let keyspace = keyspace!("coalesced reads");
    let store = keyspace.open().await;
    let created = join_all((0..100).map(|_| Users::create(&*store, new_user()))).await;
    let ids: Vec<_> = created.into_iter().map(|account| account.unwrap().user.user_id).collect();

    for round in 0..10 {
        let before = store.queries().users;
        let found = join_all((0..1_000).map(|n| Users::get(&*store, ids[(n + round) % 100]))).await;
        assert_eq!(store.queries().users, before + 1, "1,000 look-ups of 100 users in one task");
        for (n, found) in found.into_iter().enumerate() {
            assert_eq!(found.unwrap().unwrap().user.user_id, ids[(n + round) % 100]);
        }
    }
    let before = store.queries().users;
    let many: Vec<_> = ids.iter().copied().chain((0..150).map(|_| user())).collect();
    assert_eq!(store.get_many(&many).await.unwrap().len(), 100);
    assert_eq!(store.queries().users, before + 3, "250 users");

    // One that asked first and went away takes nothing from those who joined it.
    let before = store.queries().users;
    let (mut first, second) = (Box::pin(Users::get(&*store, ids[0])), Users::get(&*store, ids[1]));
    let second = async {
        let mut second = Box::pin(second);
        assert!(futures_util::poll!(&mut first).is_pending());
        assert!(futures_util::poll!(&mut second).is_pending());
        drop(first);
        second.await
    };
    assert_eq!(second.await.unwrap().unwrap().user.user_id, ids[1]);
    assert_eq!(store.queries().users, before + 1);

    // Whoever just wrote sees it, however many read the same page at that moment.
    let channel = channel();
    let before = store.queries().first_pages;
    let readers = (0..32).map(|n| {
        let store = store.clone();
        tokio::spawn(async move {
            for m in 0..10 {
                let new = NewMessage { nonce: None, ..message(channel, &format!("{n} {m}")) };
                let id = Messages::create(&*store, new, silent()).await.unwrap().row.message_id;
                let page = store.page_before(channel, None, 1_000).await.unwrap();
                assert!(page.iter().any(|message| message.message_id == id), "its own message");
            }
        })
    });
    join_all(readers).await.into_iter().for_each(|reader| reader.unwrap());
    let pages = store.queries().first_pages - before;
    assert!(pages < 320, "{pages} queries for 320 pages");
    keyspace.drop().await;
}

#[tokio::test]
async fn the_journal_is_read_by_time() {
    let keyspace = keyspace!("the journal");
    let store = keyspace.open().await;
    let mut events = Vec::new();
    for _ in 0..100 {
        let new = message(channel(), "hi");
        let created = Messages::create(&*store, new.clone(), tell()).await.unwrap();
        assert!(Messages::create(&*store, new, tell()).await.unwrap().repeated);
        events.extend(created.events);
    }
    let ms = |event: &Event| event.id.micros().unwrap() / 1000;
    let (first, last) = (ms(&events[0]), ms(&events[99]));
    // Cut anywhere, each event is in one slice, and each slice in the order of ids.
    let cuts = [first - 1, ms(&events[20]), ms(&events[20]) + 1, ms(&events[60]), last + 1, last + 70_000];
    let mut seen = Vec::new();
    for cut in cuts.windows(2) {
        for shard in 0..store.shards() {
            let slice = store.read(shard, cut[0]..cut[1]).await.unwrap();
            assert!(slice.iter().all(|event| (cut[0]..cut[1]).contains(&ms(event))));
            assert!(slice.is_sorted_by_key(|event| event.id.snowflake()));
            seen.extend(slice);
        }
    }
    seen.sort_by_key(|event| event.id.snowflake());
    assert_eq!(seen, events);
    assert!(store.read(0, last + 1..first).await.unwrap().is_empty());
    assert!(store.read(store.shards(), first..last + 1).await.unwrap().is_empty());
    let kept = keyspace.number("SELECT count(*) FROM {}.event_journal").await;
    assert_eq!(kept, 100, "a repeat writes nothing");

    // An event of an id that could not be minted is not written, and neither is its row.
    let nobody: Tell<Member> = Arc::new(|row| {
        vec![Event::new(EventId::NONE, vec![Topic::User(row.user_id)], None, ServerFrame::MemberAdd(row.clone()))]
    });
    let (guild, user) = (GuildId::new(Uuid::new_v4()), user());
    assert!(matches!(store.add(guild, user, nobody).await, Err(Error::Unavailable(_))));
    assert!(Members::get(&*store, guild, user).await.unwrap().is_none());
    keyspace.drop().await;
}

#[tokio::test]
async fn rows_are_written_as_of_their_rev() {
    let keyspace = keyspace!("write times");
    let store = keyspace.open().await;
    let new = NewGuild { name: Name::new("Home").unwrap(), owner_id: user(), visibility: Visibility::Public };
    let guild = Guilds::create(&*store, new, silent()).await.unwrap().row;
    let (guild_id, joiner) = (guild.guild_id, user());
    let member = store.add(guild_id, joiner, silent()).await.unwrap().row;
    let message = Messages::create(&*store, message(channel(), "hi"), tell()).await.unwrap().row;
    for (column, row, rev) in [
        ("name", format!("guilds WHERE guild_id = {guild_id}"), guild.rev),
        ("rev", format!("guild_members WHERE guild_id = {guild_id} AND user_id = {joiner}"), member.rev),
        ("rev", format!("user_guilds WHERE user_id = {joiner}"), member.rev),
        ("content", format!("messages WHERE channel_id = {}", message.channel_id), message.rev),
    ] {
        let written = keyspace.number(&format!("SELECT writetime({column}) FROM {{}}.{row}")).await;
        assert_eq!(written as u64, rev, "{row}");
    }
    // What is forgotten by age: in how many seconds, less the few that this test takes.
    let id = message.message_id;
    store.remove(guild_id, joiner, silent()).await.unwrap().unwrap();
    for (column, row, hours) in [
        ("message_id", format!("message_nonces WHERE author_id = {} AND nonce = 'n' ALLOW FILTERING", message.author_id), 25),
        ("frame", format!("event_journal WHERE event_id = {id} ALLOW FILTERING"), 2),
        ("rev", format!("guild_members WHERE guild_id = {guild_id} AND user_id = {joiner}"), 26),
    ] {
        let left = keyspace.number(&format!("SELECT CAST(ttl({column}) AS bigint) FROM {{}}.{row}")).await;
        assert!((hours * 3_600 - 120..=hours * 3_600).contains(&left), "{row}: {left} s");
    }
    // The largest message, twice as large again in its event, fits into a batch.
    for largest in ["🦀", "\u{1}"] {
        let new = NewMessage { content: Content::new(&largest.repeat(4_000)).unwrap(), ..self::message(channel(), "hi") };
        let row = Messages::create(&*store, new, tell()).await.unwrap().row;
        assert_eq!(Messages::get(&*store, row.channel_id, row.message_id).await.unwrap(), Some(row));
    }
    keyspace.drop().await;
}

/// The clock of one process is a minute ahead, within what a day of kept `rev`s mends.
#[tokio::test]
async fn memberships_follow_each_other_though_clocks_differ() {
    let keyspace = keyspace!("clocks that differ");
    let ahead = Arc::new(Off::default());
    ahead.ahead(Duration::from_secs(60));
    let fast = ScyllaStore::open(keyspace.options().clock(ahead)).await.unwrap();
    let slow = keyspace.open().await;
    let (guild, user) = (GuildId::new(Uuid::new_v4()), user());
    let mut rev = 0;
    // The slow one has seen nothing of the fast one's time when it first adds.
    for (adds, removes) in [(&fast, &fast), (&slow, &slow), (&fast, &slow), (&slow, &fast), (&slow, &slow)] {
        let added = adds.add(guild, user, silent()).await.unwrap();
        assert!(!added.repeated && added.row.rev > rev);
        for store in [&fast, &slow] {
            assert_eq!(Members::get(&**store, guild, user).await.unwrap().as_ref(), Some(&added.row));
        }
        let heard = Arc::new(std::sync::Mutex::new(0));
        let tell: Tell<Removed> = Arc::new({
            let heard = heard.clone();
            move |removed| {
                *heard.lock().unwrap() = removed.rev;
                Vec::new()
            }
        });
        removes.remove(guild, user, tell).await.unwrap().unwrap();
        rev = *heard.lock().unwrap();
        assert!(rev > added.row.rev);
        for store in [&fast, &slow] {
            assert!(Members::get(&**store, guild, user).await.unwrap().is_none());
            assert!(store.of_user(user).await.unwrap().is_empty());
        }
    }
    keyspace.drop().await;
}

/// I1, I2: two processes that share nothing but the database.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn of_many_tries_in_two_processes_one_wins() {
    let keyspace = keyspace!("two processes");
    let (one, other) = tokio::join!(keyspace.open(), keyspace.open());
    let (guild, joiner) = (GuildId::new(Uuid::new_v4()), user());
    for _ in 0..5 {
        let (new, ada) = (message(channel(), "hi"), new_user());
        let tries = join_all([&one, &other].repeat(10).into_iter().map(|store| {
            let (store, new, ada) = (store.clone(), new.clone(), ada.clone());
            tokio::spawn(async move {
                let account = Users::create(&*store, ada).await;
                (Messages::create(&*store, new, tell()).await.unwrap(), account)
            })
        }));
        let (messages, accounts): (Vec<_>, Vec<_>) = tries.await.into_iter().map(Result::unwrap).unzip();
        assert_eq!(messages.iter().filter(|created| !created.repeated).count(), 1);
        assert!(messages.iter().all(|created| created.row == messages[0].row));
        assert_eq!(other.page_before(new.channel_id, None, 9).await.unwrap(), [messages[0].row.clone()]);
        let (won, lost): (Vec<_>, Vec<_>) = accounts.into_iter().partition(Result::is_ok);
        assert_eq!(won.len(), 1);
        assert!(lost.iter().all(|lost| matches!(lost, Err(Error::Taken("email")))), "{lost:?}");
        assert!(one.by_email(&ada.email).await.unwrap().as_ref() == won[0].as_ref().ok());

        // Both may have joined the user, but then the later one's row holds, in both tables.
        let (first, second) = tokio::join!(one.add(guild, joiner, silent()), other.add(guild, joiner, silent()));
        let rev = first.unwrap().row.rev.max(second.unwrap().row.rev);
        assert_eq!(Members::get(&*one, guild, joiner).await.unwrap().unwrap().rev, rev);
        let rows = format!("SELECT rev FROM {{}}.user_guilds WHERE user_id = {joiner}");
        assert_eq!(keyspace.number(&rows).await as u64, rev);
        one.remove(guild, joiner, silent()).await.unwrap().unwrap();
    }
    keyspace.drop().await;
}

#[tokio::test]
async fn two_stores_mint_under_two_numbers_and_a_restart_goes_on_later() {
    let keyspace = keyspace!("worker numbers");
    let (one, other) = tokio::join!(keyspace.open(), keyspace.open());
    let [worker, others] = [&one, &other].map(|store| EventId::new(store.next()).snowflake().unwrap().worker());
    assert_ne!(worker, others);
    let mut ids: HashSet<_> = (0..5_000).flat_map(|_| [one.next(), other.next()]).collect();
    assert_eq!(ids.len(), 10_000);

    // Given back with the last millisecond that was used, even one far ahead.
    let clock = Arc::new(Off::default());
    clock.ahead(Duration::from_secs(3_600));
    let ahead = ScyllaStore::open(keyspace.options().clock(clock)).await.unwrap();
    let last = EventId::new(ahead.next()).snowflake().unwrap();
    ahead.close().await;
    assert_eq!(ahead.next(), Uuid::nil());
    assert!(matches!(Messages::create(&*ahead, message(channel(), "hi"), tell()).await, Err(Error::Unavailable(_))));
    assert!(matches!(ahead.check().await, Err(Error::Unavailable(_))));
    let worker = last.worker().get();
    let used = keyspace.number(&format!("SELECT used_ms FROM {{}}.workers WHERE worker = {worker}")).await;
    assert_eq!(used as u64, last.ms());

    // Whoever lost a number would take the one that is left.
    tokio::join!(one.close(), other.close());
    // All numbers but that one are taken: whoever comes gets it, and mints later ids with it.
    for other in (0..1024).filter(|other| *other != worker) {
        keyspace.run(&format!("UPDATE {{}}.workers SET owner = {} WHERE worker = {other}", Uuid::new_v4())).await;
    }
    let again = keyspace.open().await;
    let first = EventId::new(again.next()).snowflake().unwrap();
    assert_eq!(first.worker(), last.worker());
    assert!(first.ms() > last.ms(), "{first:?} is not later than {last:?}");
    ids.insert(again.next());
    let full = ScyllaStore::open(keyspace.options()).await;
    assert_eq!(full.unwrap_err().to_string(), "all worker numbers are in use");
    keyspace.drop().await;
}

#[tokio::test]
async fn a_lost_number_is_replaced() {
    let keyspace = keyspace!("a lost worker number");
    let store = ScyllaStore::open(keyspace.options().lease(Duration::from_secs(6))).await.unwrap();
    let worker = EventId::new(store.next()).snowflake().unwrap().worker();
    // Somebody else has it now.
    keyspace.run(&format!("UPDATE {{}}.workers SET owner = {} WHERE worker = {}", Uuid::new_v4(), worker.get())).await;
    let replaced = async {
        loop {
            let id = EventId::new(store.next());
            if id != EventId::NONE && id.snowflake().unwrap().worker() != worker {
                break;
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(30), replaced).await.expect("another number");
    Messages::create(&*store, message(channel(), "hi"), tell()).await.unwrap();
    keyspace.drop().await;
}

/// Says what it was told to say of a clock.
struct Wrong(AtomicBool);

#[async_trait]
impl ClockCheck for Wrong {
    async fn check(&self, _: &dyn Clock) -> Result<(), Box<dyn std::error::Error + Send + Sync>> {
        if self.0.load(SeqCst) { Err("it is an hour ahead".into()) } else { Ok(()) }
    }
}

#[tokio::test]
async fn a_wrong_clock_gets_no_number_and_keeps_none() {
    let keyspace = keyspace!("a wrong clock");
    let check = Arc::new(Wrong(AtomicBool::new(true)));
    let options = keyspace.options().clock_check(check.clone()).lease(Duration::from_secs(6));
    let refused = ScyllaStore::open(options.clone()).await.unwrap_err();
    assert!(matches!(&refused, OpenError::Clock(why) if why.to_string() == "it is an hour ahead"), "{refused:?}");

    check.0.store(false, SeqCst);
    let store = ScyllaStore::open(options).await.unwrap();
    store.check().await.unwrap();
    check.0.store(true, SeqCst);
    let becomes = async |ready: bool| {
        let until = async {
            while store.check().await.is_ok() != ready {
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        };
        tokio::time::timeout(Duration::from_secs(30), until).await.expect("it is noticed");
    };
    becomes(false).await;
    let refused = Messages::create(&*store, message(channel(), "hi"), tell()).await;
    assert!(matches!(refused, Err(Error::Unavailable(_))), "{refused:?}");
    check.0.store(false, SeqCst);
    becomes(true).await;
    Messages::create(&*store, message(channel(), "hi"), tell()).await.unwrap();
    keyspace.drop().await;
}

/// I3.
#[tokio::test]
async fn what_comes_late_is_not_acknowledged_but_its_repeat_is() {
    let keyspace = keyspace!("late writes");
    let clock = Arc::new(Off::default());
    let options = keyspace.options().clock(clock.clone()).lease(Duration::from_secs(600));
    let store = ScyllaStore::open(options).await.unwrap();
    let new = message(channel(), "hi");
    let slow: Tell<Message> = Arc::new({
        let (clock, tell) = (clock.clone(), tell());
        move |row| {
            clock.ahead(Duration::from_secs(61));
            tell(row)
        }
    });
    let late = Messages::create(&*store, new.clone(), slow).await;
    assert!(matches!(late, Err(Error::Unknown(_))), "{late:?}");
    let repeat = Messages::create(&*store, new.clone(), tell()).await.unwrap();
    assert!(repeat.repeated);
    let made = repeat.row.created_at.ms();
    assert!(clock.now() >= Timestamp::from_ms(made + 61_000), "the first one's id");
    assert_eq!(store.page_before(new.channel_id, None, 9).await.unwrap(), [repeat.row]);
    keyspace.drop().await;
}
