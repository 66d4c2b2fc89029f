//! What the SQLite store promises beyond the suite: over restarts, over time, and about its folder.

#![expect(clippy::unwrap_used, reason = "tests")]

mod common;

use std::{
    fs,
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering::SeqCst},
    },
    time::Duration,
};

use common::{CHANNEL, message, tell};
use jiscord_core::{EventId, GuildId, Position, UserId, event::EventLog, mint::IdSource, time::Clock};
use jiscord_store::{
    Error, Members, Messages, Removed, Tell,
    sqlite::{OpenError, Options, SqliteStore},
};
use rusqlite::Connection;
use uuid::Uuid;

const GUILD: GuildId = GuildId::new(Uuid::from_u128(8));
const AUTHOR: UserId = UserId::new(Uuid::from_u128(9));
const NOON: u64 = 1_795_443_456_400_000;
const HOUR: u64 = 3_600_000_000;

fn silent<T>() -> Tell<T> {
    Arc::new(|_| Vec::new())
}

/// A clock that is set by hand.
#[derive(Clone)]
struct Hand(Arc<AtomicU64>);

impl Hand {
    fn at(micros: u64) -> Self {
        Self(Arc::new(AtomicU64::new(micros)))
    }

    fn set(&self, micros: u64) {
        self.0.store(micros, SeqCst);
    }

    fn options(&self) -> Options {
        Options::default().clock(Arc::new(self.clone()))
    }
}

impl Clock for Hand {
    fn now_micros(&self) -> u64 {
        self.0.load(SeqCst)
    }
}

fn database(folder: &Path) -> Connection {
    Connection::open(folder.join("jiscord.db")).unwrap()
}

async fn write(store: &SqliteStore, nonce: &str) -> jiscord_store::Created<jiscord_core::model::Message> {
    Messages::create(store, message("hi", nonce), tell()).await.unwrap()
}

async fn remove(store: &SqliteStore) -> u64 {
    let rev = Arc::new(AtomicU64::new(0));
    let tell: Tell<Removed> = Arc::new({
        let rev = rev.clone();
        move |removed| {
            rev.store(removed.rev, SeqCst);
            Vec::new()
        }
    });
    store.remove(GUILD, AUTHOR, tell).await.unwrap().unwrap();
    rev.load(SeqCst)
}

#[tokio::test]
async fn all_grows_over_a_restart_though_the_clock_steps_back() {
    let folder = tempfile::tempdir().unwrap();
    let clock = Hand::at(NOON);
    let store = SqliteStore::open(folder.path(), clock.options()).unwrap();
    let epoch = store.epoch().to_owned();
    let first = write(&store, "1").await.row;
    store.add(GUILD, AUTHOR, silent()).await.unwrap();
    let removed = remove(&store).await;
    // An id for an event that creates nothing, minted ahead of everything, and kept with the event.
    clock.set(NOON + HOUR);
    let mut event = tell()(&first).remove(0);
    event.id = EventId::new(store.next());
    store.append(vec![event.clone()]).await.unwrap();
    let head = store.head().await.unwrap();
    store.close().await;

    clock.set(NOON - HOUR);
    let store = SqliteStore::open(folder.path(), clock.options()).unwrap();
    assert_eq!(store.epoch(), epoch);
    assert_eq!(store.head().await.unwrap(), head);
    let minted = EventId::new(store.next());
    assert!(minted.snowflake() > event.id.snowflake());
    let second = write(&store, "2").await.row;
    assert!(second.message_id.sort_key() > first.message_id.sort_key());
    assert!(store.add(GUILD, AUTHOR, silent()).await.unwrap().row.rev > removed);
    assert!(remove(&store).await > removed + 1);
    let logged = store.read_after(head, 9).await.unwrap();
    assert_eq!((logged.len(), logged[0].event.id), (1, EventId::new(second.message_id.uuid())));
    assert!(write(&store, "1").await.repeated, "nonces are kept too");
}

#[tokio::test]
async fn a_nonce_is_honoured_for_a_day_and_forgotten_later() {
    let folder = tempfile::tempdir().unwrap();
    let clock = Hand::at(NOON);
    let store = SqliteStore::open(folder.path(), clock.options()).unwrap();
    let first = write(&store, "1").await.row;
    clock.set(NOON + 24 * HOUR);
    assert_eq!(write(&store, "1").await.row, first);
    clock.set(NOON + 25 * HOUR);
    assert!(!write(&store, "1").await.repeated);
    assert!(write(&store, "1").await.repeated, "the new claim holds");
    write(&store, "2").await;
    clock.set(NOON + 60 * HOUR);
    write(&store, "3").await;
    let kept: u64 = database(folder.path()).query_row("SELECT count(*) FROM message_nonces", [], |row| row.get(0)).unwrap();
    assert_eq!(kept, 1, "old ones do not pile up");
}

/// What the log still has, and what it says it may have forgotten.
async fn log(store: &SqliteStore) -> (usize, Position) {
    let logged = store.read_after(Position(0), usize::MAX).await.unwrap();
    let floor = store.floor().await.unwrap();
    assert!(logged.first().is_none_or(|logged| logged.p > floor), "what was read reaches down to the floor");
    (logged.len(), floor)
}

#[tokio::test]
async fn the_log_forgets_by_count_a_slice_at_a_time() {
    let folder = tempfile::tempdir().unwrap();
    let options = Options::default().events(100, Duration::from_secs(86_400));
    let store = SqliteStore::open(folder.path(), options.clone()).unwrap();
    assert_eq!(log(&store).await, (0, Position(0)));
    let event = tell()(&write(&store, "0").await.row).remove(0);
    store.append(vec![event.clone(); 2_499]).await.unwrap();
    let positions: Vec<_> = store.read_after(Position(0), usize::MAX).await.unwrap().iter().map(|logged| logged.p).collect();
    assert_eq!(log(&store).await.0, 1_500, "of 2,500 a slice of 1,000 is gone");

    store.append(vec![event.clone()]).await.unwrap();
    let (kept, floor) = log(&store).await;
    assert_eq!((kept, floor), (501, positions[999]));
    store.append(vec![event.clone()]).await.unwrap();
    let (kept, floor) = log(&store).await;
    assert_eq!(kept, 100);

    drop(store);
    let store = SqliteStore::open(folder.path(), options).unwrap();
    assert_eq!(log(&store).await, (kept, floor), "the floor is kept");
    store.append(vec![event]).await.unwrap();
    let (kept, later) = log(&store).await;
    assert_eq!(kept, 100);
    assert!(later > floor);
}

#[tokio::test]
async fn the_log_forgets_by_age() {
    let folder = tempfile::tempdir().unwrap();
    let clock = Hand::at(NOON);
    let store = SqliteStore::open(folder.path(), clock.options()).unwrap();
    for (hours, kept) in [(0, 1), (1, 2), (24, 3), (25, 3), (26, 3)] {
        clock.set(NOON + hours * HOUR);
        write(&store, &hours.to_string()).await;
        assert_eq!(log(&store).await.0, kept, "after {hours} h");
    }
    assert_eq!(log(&store).await.1, Position(NOON + HOUR));

    // All forgotten: the head stays where it was.
    let head = store.head().await.unwrap();
    clock.set(NOON + 99 * HOUR);
    Messages::create(&*store, message("hi", "quiet"), silent()).await.unwrap();
    assert_eq!(log(&store).await, (0, head));
    drop(store);
    let store = SqliteStore::open(folder.path(), clock.options()).unwrap();
    assert_eq!((store.head().await.unwrap(), log(&store).await), (head, (0, head)));
}

#[tokio::test]
async fn closing_finishes_what_waits_and_lets_go() {
    let folder = tempfile::tempdir().unwrap();
    let store = SqliteStore::open(folder.path(), Options::default()).unwrap();
    let writes: tokio::task::JoinSet<_> = (0..100)
        .map(|n| {
            let store = store.clone();
            async move { Messages::create(&*store, message("hi", &n.to_string()), tell()).await.is_ok() }
        })
        .collect();
    assert!(store.is_ready());
    store.close().await;
    assert!(!store.is_ready());
    let acknowledged = writes.join_all().await.into_iter().filter(|stored| *stored).count();
    for refused in [
        Messages::create(&*store, message("hi", "late"), tell()).await.map(drop),
        Messages::page_before(&*store, CHANNEL, None, 9).await.map(drop),
    ] {
        assert!(matches!(refused, Err(Error::Unavailable(_))), "{refused:?}");
    }
    store.close().await;
    assert!(!folder.path().join("jiscord.db-wal").exists(), "all is in the database");
    let again = SqliteStore::open(folder.path(), Options::default()).unwrap();
    assert_eq!(Messages::page_before(&*again, CHANNEL, None, 1_000).await.unwrap().len(), acknowledged);
}

#[test]
fn a_runtime_ends_though_a_store_is_open() {
    let folder = tempfile::tempdir().unwrap();
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).build().unwrap();
    let store = runtime.block_on(async {
        let store = SqliteStore::open(folder.path(), Options::default()).unwrap();
        let tail = store.clone();
        tokio::spawn(async move { tail.wait_past(Position(u64::MAX)).await });
        write(&store, "1").await;
        store
    });
    drop(runtime);
    drop(store);
    assert!(SqliteStore::open(folder.path(), Options::default()).is_ok(), "the last handle let go");
}

#[test]
fn a_second_store_on_a_folder_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let first = SqliteStore::open(folder.path(), Options::default()).unwrap();
    let refused = SqliteStore::open(folder.path(), Options::default());
    assert!(matches!(&refused, Err(OpenError::Locked { .. })), "{refused:?}");
    assert!(matches!(SqliteStore::migrate(folder.path()), Err(OpenError::Locked { .. })));
    assert!(refused.unwrap_err().to_string().ends_with("is in use by another process"));
    drop(first);
    SqliteStore::open(folder.path(), Options::default()).unwrap();
}

#[cfg(unix)]
#[tokio::test]
async fn folder_and_files_are_for_their_owner() {
    use std::os::unix::fs::PermissionsExt;
    let outer = tempfile::tempdir().unwrap();
    let folder = outer.path().join("a/data");
    let store = SqliteStore::open(&folder, Options::default()).unwrap();
    write(&store, "1").await;
    let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
    assert_eq!(mode(&folder), 0o700);
    let mut files: Vec<_> = fs::read_dir(&folder).unwrap().map(|entry| entry.unwrap().path()).collect();
    files.sort();
    let names: Vec<_> = files.iter().map(|path| path.file_name().unwrap().to_str().unwrap()).collect();
    assert_eq!(names, ["jiscord.db", "jiscord.db-shm", "jiscord.db-wal", "jiscord.lock"]);
    for file in &files {
        assert_eq!(mode(file), 0o600, "{}", file.display());
    }
}

#[cfg(unix)]
#[test]
fn links_are_not_followed() {
    use std::os::unix::fs::symlink;
    let outer = tempfile::tempdir().unwrap();
    let [real, link] = ["real", "link"].map(|name| outer.path().join(name));
    drop(SqliteStore::open(&real, Options::default()).unwrap());
    symlink(&real, &link).unwrap();
    assert!(matches!(SqliteStore::open(&link, Options::default()), Err(OpenError::Symlink { .. })));
    for name in ["jiscord.db", "jiscord.db-wal", "jiscord.db-shm", "jiscord.lock"] {
        let folder = tempfile::tempdir().unwrap();
        let target = outer.path().join("elsewhere");
        symlink(&target, folder.path().join(name)).unwrap();
        let refused = SqliteStore::open(folder.path(), Options::default());
        assert!(matches!(refused, Err(OpenError::Symlink { .. })), "{name}: {refused:?}");
        assert!(!target.exists());
    }
}

#[test]
fn migrations_run_once() {
    let folder = tempfile::tempdir().unwrap();
    assert_eq!(SqliteStore::migrate(folder.path()).unwrap(), ["start", "logins"]);
    assert!(SqliteStore::migrate(folder.path()).unwrap().is_empty());
    SqliteStore::open(folder.path(), Options::default()).unwrap();
}

#[test]
fn a_database_that_is_not_ours_is_refused() {
    let cases = [
        ("UPDATE migrations SET checksum = x'00'", "migration 1 (start) is not the one that the database was made with"),
        (
            "INSERT INTO migrations VALUES (3, 'from the future', x'00', 0)",
            "the database is of a newer Jiscord: its schema has version 3, and this one knows 2",
        ),
        ("PRAGMA application_id = 7", "jiscord.db is not a database of Jiscord"),
    ];
    for (change, says) in cases {
        let folder = tempfile::tempdir().unwrap();
        SqliteStore::migrate(folder.path()).unwrap();
        database(folder.path()).execute_batch(change).unwrap();
        for _ in 0..2 {
            let refused = SqliteStore::open(folder.path(), Options::default()).unwrap_err();
            assert_eq!(refused.to_string(), says);
        }
    }
    let folder = tempfile::tempdir().unwrap();
    database(folder.path()).execute_batch("CREATE TABLE theirs (a)").unwrap();
    assert!(matches!(SqliteStore::open(folder.path(), Options::default()), Err(OpenError::Foreign)));
    fs::write(folder.path().join("jiscord.db"), [b'x'; 8_192]).unwrap();
    assert!(matches!(SqliteStore::open(folder.path(), Options::default()), Err(OpenError::Sql(_))));
}

#[test]
fn the_library_is_new_enough() {
    assert!(rusqlite::version_number() >= 3_051_003);
}
