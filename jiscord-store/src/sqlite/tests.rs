//! What happens when the disk fails, or jobs wait in one group: things that only show with a hand on the writer.

use std::{
    fmt::Debug,
    pin::Pin,
    sync::{
        Arc, Mutex,
        mpsc::{Sender, channel},
    },
    task::{Context, Waker},
    time::Duration,
};

use jiscord_core::{
    ChannelId, Event, EventId, GuildId, MessageId, Position, ServerFrame, Topic, UserId,
    event::EventLog,
    model::{Message, Visibility},
    text::{Content, Email, Name, Nonce, Username},
};
use rusqlite::{Connection, ffi};
use tempfile::TempDir;
use uuid::Uuid;

use super::{Options, SqliteStore, writer::Step};
use crate::{
    error::{Error, Result},
    repository::{Created, Guilds, Messages, NewGuild, NewMessage, NewUser, Tell, Users},
};

type Fault = Box<dyn FnMut(Step, &Connection) -> rusqlite::Result<()> + Send>;

/// A store with a hand on its disk.
struct Bench {
    store: Arc<SqliteStore>,
    fault: Arc<Mutex<Fault>>,
    steps: Arc<Mutex<Vec<Step>>>,
    folder: TempDir,
}

fn bench(options: Options) -> Bench {
    let folder = tempfile::tempdir().unwrap();
    let fault: Arc<Mutex<Fault>> = Arc::new(Mutex::new(Box::new(|_, _| Ok(()))));
    let steps = Arc::new(Mutex::new(Vec::new()));
    let mut options = options;
    options.limits.reopen_after = Duration::from_millis(1);
    options.seam = Arc::new({
        let (fault, steps) = (fault.clone(), steps.clone());
        move |step, db| {
            steps.lock().unwrap().push(step);
            let mut fault = fault.lock().unwrap();
            fault(step, db)
        }
    });
    Bench { store: SqliteStore::open(folder.path(), options).unwrap(), fault, steps, folder }
}

impl Bench {
    /// Lets the disk fail from here on.
    fn fail(&self, fault: impl FnMut(Step, &Connection) -> rusqlite::Result<()> + Send + 'static) {
        *self.fault.lock().unwrap() = Box::new(fault);
    }

    /// The steps since the last call.
    fn steps(&self) -> Vec<Step> {
        std::mem::take(&mut *self.steps.lock().unwrap())
    }

    async fn count(&self, table: &'static str) -> u64 {
        self.store
            .read(move |db| Ok(db.query_row(&format!("SELECT count(*) FROM {table}"), [], |row| row.get(0))?))
            .await
            .unwrap()
    }
}

fn io_error() -> rusqlite::Error {
    rusqlite::Error::SqliteFailure(ffi::Error::new(ffi::SQLITE_IOERR_FSYNC), None)
}

/// Fails once, at a step.
fn once(at: Step) -> impl FnMut(Step, &Connection) -> rusqlite::Result<()> + Send {
    let mut done = false;
    move |step, _| {
        if step == at && !std::mem::replace(&mut done, true) { Err(io_error()) } else { Ok(()) }
    }
}

fn message(content: &str, nonce: &str) -> NewMessage {
    let id = Uuid::from_u128(7);
    NewMessage {
        channel_id: ChannelId::new(id),
        author_id: UserId::new(id),
        content: Content::new(content).unwrap(),
        reply_to: None,
        nonce: Some(Nonce::new(nonce).unwrap()),
    }
}

fn tell() -> Tell<Message> {
    Arc::new(|row| {
        let topic = Topic::Guild(GuildId::new(Uuid::from_u128(7)));
        vec![Event::new(EventId::new(row.message_id.uuid()), vec![topic], None, ServerFrame::MessageCreate(row.clone()))]
    })
}

type Answer<'a, T> = Pin<Box<dyn Future<Output = Result<T>> + Send + 'a>>;

/// Sends a job without waiting for its answer: the first poll puts it into the queue.
fn queued<T: Debug>(mut answer: Answer<'_, T>) -> Answer<'_, T> {
    let early = answer.as_mut().poll(&mut Context::from_waker(Waker::noop()));
    assert!(early.is_pending(), "{early:?}");
    answer
}

/// Holds the writer inside a job until told otherwise.
async fn hold(store: &SqliteStore) -> (Answer<'_, Created<Message>>, Sender<()>) {
    let (release, released) = channel();
    let (held, holds) = tokio::sync::oneshot::channel();
    let inside = Mutex::new((Some(held), released));
    let tell: Tell<Message> = Arc::new(move |_| {
        let mut inside = inside.lock().unwrap();
        inside.0.take().unwrap().send(()).unwrap();
        inside.1.recv().unwrap();
        Vec::new()
    });
    let answer = queued(Messages::create(store, message("in the way", "hold"), tell));
    holds.await.unwrap();
    (answer, release)
}

#[tokio::test]
async fn jobs_that_wait_share_a_commit_and_fail_alone() {
    let bench = bench(Options::default());
    let store = &*bench.store;
    let user = |email: &str| NewUser {
        username: Username::new("Ada").unwrap(),
        email: Email::new(email).unwrap(),
        password_hash: String::new(),
    };
    let (first, release) = hold(store).await;
    bench.steps();
    let good: Vec<_> = (0..50).map(|n| queued(Messages::create(store, message("hi", &n.to_string()), tell()))).collect();
    let repeat = queued(Messages::create(store, message("hi", "0"), tell()));
    let reused = queued(Messages::create(store, message("ho", "1"), tell()));
    let panics = queued(Messages::create(store, message("hi", "x"), Arc::new(|_| panic!("on purpose"))));
    let taken = [queued(store.create_user(user("a@b.c"))), queued(store.create_user(user("a@b.c")))];
    release.send(()).unwrap();

    first.await.unwrap();
    let mut ids = Vec::new();
    for answer in good {
        ids.push(answer.await.unwrap().row.message_id.sort_key());
    }
    assert!(ids.is_sorted());
    assert_eq!(repeat.await.unwrap().row.message_id.sort_key(), ids[0]);
    assert!(matches!(reused.await, Err(Error::NonceReused)));
    assert!(matches!(panics.await, Err(Error::Internal(_))));
    let [first, second] = taken;
    assert!(first.await.is_ok());
    assert!(matches!(second.await, Err(Error::Taken("email"))));
    // The first job's own end, then one transaction for all others.
    let group = [Step::Begun, Step::Commit, Step::Committed];
    assert_eq!(bench.steps(), [&group[1..], &group[..]].concat());
    assert_eq!((bench.count("messages").await, bench.count("events").await), (51, 50));
    assert_eq!(store.head().await.unwrap(), Position(bench.store.read(|db| Ok(super::Log::read(db)?.head)).await.unwrap()));
}

#[tokio::test]
async fn a_full_queue_is_busy_at_once() {
    let bench = bench(Options::default().queue(2));
    let (first, release) = hold(&bench.store).await;
    let waiting = ["1", "2"].map(|nonce| queued(Messages::create(&*bench.store, message("hi", nonce), tell())));
    let refused = Messages::create(&*bench.store, message("hi", "3"), tell()).await;
    assert!(matches!(refused, Err(Error::Busy)), "{refused:?}");
    release.send(()).unwrap();
    first.await.unwrap();
    for answer in waiting {
        answer.await.unwrap();
    }
    assert_eq!(bench.count("messages").await, 3);
}

#[tokio::test]
async fn reads_that_find_no_room_to_wait_are_busy_at_once() {
    let mut options = Options::default().readers(1);
    options.limits.waiting_reads = 1;
    let bench = bench(options);
    let (release, released) = channel::<()>();
    let reading = queued(Box::pin(bench.store.read(move |_| Ok(released.recv().is_ok()))));
    let waiting = queued(Box::pin(bench.store.read(|_| Ok(true))));
    let refused = bench.store.read(|_| Ok(true)).await;
    assert!(matches!(refused, Err(Error::Busy)), "{refused:?}");
    release.send(()).unwrap();
    assert!(reading.await.unwrap() && waiting.await.unwrap());
    assert!(bench.store.read(|_| Ok(true)).await.unwrap(), "the room is free again");
}

#[tokio::test]
async fn a_read_that_panics_fails_alone() {
    let bench = bench(Options::default().readers(1));
    let failed: Result<()> = bench.store.read(|_| panic!("on purpose")).await;
    assert!(matches!(failed, Err(Error::Internal(_))), "{failed:?}");
    assert!(bench.store.read(|_| Ok(true)).await.unwrap());
}

#[tokio::test]
async fn the_wal_is_moved_into_the_database_under_load() {
    let bench = bench(Options::default());
    let wal = bench.folder.path().join("jiscord.db-wal");
    let text = "é".repeat(4_000);
    let mut longest = 0;
    // About 100 MiB of changes.
    for round in 0..24 {
        let group: Vec<_> =
            (0..128).map(|n| queued(Messages::create(&*bench.store, message(&text, &format!("{round}-{n}")), tell()))).collect();
        for answer in group {
            answer.await.unwrap();
        }
        longest = longest.max(std::fs::metadata(&wal).unwrap().len());
    }
    assert!((24 << 20..40 << 20).contains(&longest), "{longest} bytes: near 32 MiB it starts afresh");
}

#[tokio::test]
async fn after_a_failed_commit_the_group_is_unknown_and_the_connection_is_left() {
    let bench = bench(Options::default());
    let store = &*bench.store;
    let before = Messages::create(store, message("hi", "0"), tell()).await.unwrap();
    let (first, release) = hold(store).await;
    let group: Vec<_> = (1..9).map(|n| queued(Messages::create(store, message("hi", &n.to_string()), tell()))).collect();
    let reused = queued(Messages::create(store, message("ho", "0"), tell()));
    bench.fail(|step, _| if step == Step::Begun { Ok(()) } else { Err(io_error()) });
    bench.steps();
    release.send(()).unwrap();
    for answer in group.into_iter().chain([first, reused]) {
        let answer = answer.await;
        assert!(matches!(answer, Err(Error::Unknown(_) | Error::Unavailable(_))), "{answer:?}");
    }
    bench.fail(|_, _| Ok(()));

    let again = back(store, "1").await;
    assert!(!again.repeated, "the first try left nothing");
    assert!(again.row.message_id.sort_key() > before.row.message_id.sort_key());
    let steps = bench.steps();
    assert_eq!(steps[..2], [Step::Commit, Step::Reopened], "no commit was tried again on that connection");
    assert_eq!(steps[steps.len() - 4..], [Step::Reopened, Step::Begun, Step::Commit, Step::Committed]);
    assert_eq!((bench.count("messages").await, bench.count("events").await), (2, 2));
}

/// Asks again until the store is back.
async fn back(store: &SqliteStore, nonce: &str) -> Created<Message> {
    loop {
        match Messages::create(store, message("hi", nonce), tell()).await {
            Err(Error::Unavailable(_)) => tokio::task::yield_now().await,
            other => return other.unwrap(),
        }
    }
}

#[tokio::test]
async fn a_commit_that_failed_after_all_was_stored_is_found_by_its_nonce() {
    let bench = bench(Options::default());
    let store = &*bench.store;
    bench.fail(once(Step::Committed));
    let unknown = Messages::create(store, message("hi", "0"), tell()).await;
    assert!(matches!(unknown, Err(Error::Unknown(_))), "{unknown:?}");
    // Its event reaches who waits, without another write.
    tokio::time::timeout(Duration::from_secs(60), store.wait_past(Position(0))).await.unwrap();
    let repeat = back(store, "0").await;
    assert!(repeat.repeated);
    let logged = store.read_after(Position(0), 9).await.unwrap();
    assert_eq!(logged.into_iter().map(|logged| logged.event).collect::<Vec<_>>(), repeat.events);
    assert_eq!(bench.count("messages").await, 1);
}

#[tokio::test]
async fn while_the_disk_is_away_writes_are_refused_and_reads_go_on() {
    let bench = bench(Options::default());
    let store = &*bench.store;
    let there = Messages::create(store, message("hi", "0"), tell()).await.unwrap().row;
    bench.fail(|step, _| if step == Step::Begun { Ok(()) } else { Err(io_error()) });
    assert!(matches!(Messages::create(store, message("hi", "1"), tell()).await, Err(Error::Unknown(_))));
    for _ in 0..20 {
        assert!(!store.is_ready());
        let refused = Messages::create(store, message("hi", "1"), tell()).await;
        assert!(matches!(refused, Err(Error::Unavailable(_))), "nothing is begun, so nothing is unknown: {refused:?}");
    }
    assert_eq!(Messages::get(store, there.channel_id, there.message_id).await.unwrap(), Some(there));
    bench.fail(|_, _| Ok(()));
    assert!(!back(store, "1").await.repeated);
    assert!(store.is_ready());
}

#[tokio::test]
async fn an_error_before_commit_leaves_nothing_and_says_so() {
    let bench = bench(Options::default());
    bench.fail(once(Step::Begun));
    let failed = Messages::create(&*bench.store, message("hi", "0"), tell()).await;
    assert!(matches!(failed, Err(Error::Unavailable(_))), "{failed:?}");
    assert!(!back(&bench.store, "0").await.repeated);
    assert!(bench.steps().contains(&Step::Reopened));
}

#[tokio::test]
async fn a_full_disk_stores_nothing_and_recovers_when_there_is_room() {
    let bench = bench(Options::default());
    let store = &*bench.store;
    let pages = |count: &'static str| {
        move |step, db: &Connection| match step {
            Step::Begun => db.query_row(&format!("PRAGMA max_page_count = {count}"), [], |_| Ok(())),
            _ => Ok(()),
        }
    };
    // As many pages as there are: SQLite finds no room for one more.
    bench.fail(pages("1"));
    let text = "é".repeat(4_000);
    let mut stored = 0;
    let full = loop {
        match Messages::create(store, message(&text, &format!("full {stored}")), tell()).await {
            Ok(_) => stored += 1,
            Err(error) => break error,
        }
    };
    assert!(matches!(full, Error::Full(_)), "{full:?}");
    assert_eq!((bench.count("messages").await, bench.count("events").await), (stored, stored));
    let short = Guilds::public(store, None, 9).await;
    assert!(short.unwrap().is_empty(), "reads go on");
    bench.fail(pages("1000000"));
    assert!(!Messages::create(store, message(&text, &format!("full {stored}")), tell()).await.unwrap().repeated);
    assert!(!bench.steps().contains(&Step::Reopened), "the connection is good");
}

#[tokio::test]
async fn a_lock_held_by_another_program_is_waited_for() {
    let bench = bench(Options::default());
    let other = Connection::open(bench.folder.path().join("jiscord.db")).unwrap();
    other.execute_batch("BEGIN IMMEDIATE").unwrap();
    let waiting = queued(Messages::create(&*bench.store, message("hi", "0"), tell()));
    other.execute_batch("COMMIT").unwrap();
    waiting.await.unwrap();
}

#[tokio::test]
async fn a_row_that_makes_no_sense_is_corrupt() {
    let bench = bench(Options::default());
    let new =
        NewGuild { name: Name::new("Home").unwrap(), owner_id: UserId::new(Uuid::from_u128(1)), visibility: Visibility::Public };
    let guild = Guilds::create(&*bench.store, new, Arc::new(|_| Vec::new())).await.unwrap().row;
    let id = bench.store.write(|write| Ok(write.db.execute("UPDATE guilds SET visibility = 'odd'", [])?)).await.unwrap();
    assert_eq!(id, 1);
    assert!(matches!(Guilds::get(&*bench.store, guild.guild_id).await, Err(Error::Corrupt(_))));
}

#[tokio::test]
async fn a_nonce_outlives_its_message() {
    let bench = bench(Options::default());
    let store = &*bench.store;
    let first = Messages::create(store, message("hi", "0"), tell()).await.unwrap().row;
    store.write(|write| Ok(write.db.execute("DELETE FROM messages", [])?)).await.unwrap();
    let repeat = Messages::create(store, message("hi", "0"), tell()).await.unwrap();
    assert_eq!((repeat.row.message_id, repeat.repeated, repeat.events.len()), (first.message_id, true, 0));
    assert_eq!(bench.count("messages").await, 0, "what is gone stays gone");
}

#[tokio::test]
async fn a_job_that_holds_the_last_handle_does_not_wait_for_itself() {
    let bench = bench(Options::default());
    let store = bench.store.clone();
    let (gone, drops) = tokio::sync::oneshot::channel();
    struct Says(Option<tokio::sync::oneshot::Sender<()>>, Option<Arc<SqliteStore>>);
    impl Drop for Says {
        fn drop(&mut self) {
            drop(self.1.take());
            let _ = self.0.take().unwrap().send(());
        }
    }
    let (release, released) = channel::<()>();
    let inside = Mutex::new((Says(Some(gone), Some(store.clone())), released));
    let tell: Tell<Message> = Arc::new(move |_| {
        let inside = inside.lock().unwrap();
        let _ = inside.1.recv();
        Vec::new()
    });
    drop(queued(Messages::create(&*store, message("hi", "0"), tell)));
    drop((store, bench));
    release.send(()).unwrap();
    tokio::time::timeout(Duration::from_secs(60), drops).await.unwrap().unwrap();
}

impl SqliteStore {
    fn create_user(&self, new: NewUser) -> Answer<'_, crate::Account> {
        Users::create(self, new)
    }
}

/// Which message an id belongs to is not this test's matter; only that ids stay in order over a lost group.
#[tokio::test]
async fn ids_and_positions_of_a_lost_group_are_not_given_again() {
    let bench = bench(Options::default());
    let store = &*bench.store;
    let told: Arc<Mutex<Vec<MessageId>>> = Arc::default();
    let listen: Tell<Message> = Arc::new({
        let told = told.clone();
        move |row| {
            told.lock().unwrap().push(row.message_id);
            tell()(row)
        }
    });
    bench.fail(once(Step::Commit));
    assert!(Messages::create(store, message("hi", "0"), listen).await.is_err());
    let lost = told.lock().unwrap()[0];
    let next = back(store, "1").await;
    assert!(next.row.message_id.sort_key() > lost.sort_key());
}
