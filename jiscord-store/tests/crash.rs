//! Killed with -9 while sixteen tasks write, and files that were cut short: what was acknowledged is there, once and whole.

#![expect(clippy::unwrap_used, reason = "tests")]

mod common;

use std::{
    collections::HashSet,
    fs,
    io::{BufRead, BufReader, Write},
    path::Path,
    process::{Command, Stdio},
    sync::Arc,
};

use common::{CHANNEL, message, tell};
use jiscord_core::{EventId, MessageId, Position, event::EventLog};
use jiscord_store::{
    Messages,
    sqlite::{Options, SqliteStore},
};
use rusqlite::Connection;

/// Set for the process that is killed: where it writes.
const FOLDER: &str = "JISCORD_STORE_TEST_FOLDER";

/// The process that is killed. It says on standard output what was acknowledged.
async fn write_until_killed(folder: &Path) {
    let store = SqliteStore::open(folder, Options::default()).unwrap();
    let run = std::process::id();
    let tasks: tokio::task::JoinSet<()> = (0..16)
        .map(|task| {
            let store = store.clone();
            async move {
                for n in 0.. {
                    let nonce = format!("{run}-{task}-{n}");
                    let created = Messages::create(&*store, message("hi", &nonce), tell()).await.unwrap();
                    // Killed in the middle of this, the line has no end and does not count.
                    let mut out = std::io::stdout().lock();
                    writeln!(out, "ack {nonce} {}", created.row.message_id).unwrap();
                    out.flush().unwrap();
                }
            }
        })
        .collect();
    tasks.join_all().await;
}

/// Lets the process write until so many are acknowledged, kills it, and gives all that it acknowledged.
fn kill_after(folder: &Path, acknowledged: usize) -> Vec<(String, MessageId)> {
    let mut child = Command::new(std::env::current_exe().unwrap())
        .args(["kill_9_loses_nothing_that_was_acknowledged", "--exact", "--nocapture"])
        .env(FOLDER, folder)
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut out = BufReader::new(child.stdout.take().unwrap());
    let mut acks = Vec::new();
    let mut line = String::new();
    loop {
        line.clear();
        let read = out.read_line(&mut line).unwrap();
        if read == 0 {
            break;
        }
        // Others may say something on the same line before us.
        if let Some((_, ack)) = line.split_once("ack ").filter(|_| line.ends_with('\n')) {
            let (nonce, id) = ack.trim().split_once(' ').unwrap();
            acks.push((nonce.to_owned(), id.parse().unwrap()));
            if acks.len() == acknowledged {
                child.kill().unwrap();
            }
        }
    }
    let status = child.wait().unwrap();
    assert!(!status.success() && acks.len() >= acknowledged, "{status}: {} acknowledged", acks.len());
    acks
}

/// All messages by their order, after checking that each has its event and each event its message.
async fn whole(store: &SqliteStore) -> Vec<MessageId> {
    let mut ids: Vec<_> =
        store.page_before(CHANNEL, None, usize::MAX).await.unwrap().iter().map(|message| message.message_id).collect();
    ids.reverse();
    let events = store.read_after(Position(0), usize::MAX).await.unwrap();
    let told: Vec<_> = events.iter().map(|logged| logged.event.id).collect();
    assert_eq!(ids.iter().map(|id| EventId::new(id.uuid())).collect::<Vec<_>>(), told, "one event a message, in their order");
    ids
}

fn integrity(folder: &Path) -> String {
    Connection::open(folder.join("jiscord.db")).unwrap().query_row("PRAGMA integrity_check", [], |row| row.get(0)).unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn kill_9_loses_nothing_that_was_acknowledged() {
    // The process that is killed is this test again.
    if let Some(folder) = std::env::var_os(FOLDER) {
        return write_until_killed(Path::new(&folder)).await;
    }
    let folder = tempfile::tempdir().unwrap();
    let mut acknowledged = Vec::new();
    let mut epochs = HashSet::new();
    // Different moments each round; in the last ones there was a checkpoint.
    for round in 0..10 {
        let acks = kill_after(folder.path(), 1 + 300 * round);
        let store = SqliteStore::open(folder.path(), Options::default()).unwrap();
        epochs.insert(store.epoch().to_owned());
        let stored = whole(&store).await;
        assert_eq!(stored.iter().collect::<HashSet<_>>().len(), stored.len(), "round {round}: an id twice");
        for (nonce, id) in &acks {
            let again = Messages::create(&*store, message("hi", nonce), tell()).await.unwrap();
            assert_eq!((again.repeated, again.row.message_id), (true, *id), "round {round}: {nonce} was acknowledged");
        }
        assert_eq!(whole(&store).await, stored, "round {round}: a repeat stored something");
        acknowledged.extend(acks.into_iter().map(|(_, id)| id));
        assert!(stored.iter().collect::<HashSet<_>>().is_superset(&acknowledged.iter().collect()), "round {round}: one is gone");
        store.close().await;
        assert_eq!(integrity(folder.path()), "ok", "round {round}");
    }
    assert_eq!(epochs.len(), 1, "a restart is no new log");
}

fn copy(from: &Path, to: &Path) {
    for name in ["jiscord.db", "jiscord.db-wal"] {
        fs::copy(from.join(name), to.join(name)).unwrap();
    }
}

#[tokio::test]
async fn a_torn_end_of_the_wal_takes_only_what_was_not_acknowledged() {
    let folder = tempfile::tempdir().unwrap();
    let store = SqliteStore::open(folder.path(), Options::default()).unwrap();
    let mut acknowledged = Vec::new();
    for n in 0..20 {
        acknowledged.push(Messages::create(&*store, message("hi", &n.to_string()), tell()).await.unwrap().row.message_id);
    }
    let wal = folder.path().join("jiscord.db-wal");
    let safe = fs::metadata(&wal).unwrap().len();
    // What comes now stands for commits that a power cut tore before their fsync was through.
    let torn: tokio::task::JoinSet<_> = (20..60)
        .map(|n| {
            let store: Arc<SqliteStore> = store.clone();
            async move { Messages::create(&*store, message("hi", &n.to_string()), tell()).await.unwrap().row.message_id }
        })
        .collect();
    torn.join_all().await;
    let all = whole(&store).await;
    let bytes = fs::read(&wal).unwrap();
    let tail = bytes.len() as u64 - safe;
    assert!(tail > 8_192, "there is something to tear");

    let mut kept = HashSet::new();
    for offset in 0..102 {
        let at = (safe + tail * offset / 102) as usize;
        let mut bytes = bytes.clone();
        match offset % 3 {
            0 => bytes.truncate(at),
            1 => bytes[at..].iter_mut().take(512).for_each(|byte| *byte = 0),
            _ => bytes[at] ^= 0x10,
        }
        let torn = tempfile::tempdir().unwrap();
        copy(folder.path(), torn.path());
        fs::write(torn.path().join("jiscord.db-wal"), bytes).unwrap();
        let store = SqliteStore::open(torn.path(), Options::default()).unwrap();
        let found = whole(&store).await;
        assert!(found.starts_with(&acknowledged), "at {at}: {} of {} acknowledged", found.len(), acknowledged.len());
        assert!(all.starts_with(&found), "at {at}: what is left is a beginning of what was written");
        Messages::create(&*store, message("hi", "after"), tell()).await.unwrap();
        store.close().await;
        assert_eq!(integrity(torn.path()), "ok", "at {at}");
        kept.insert(found.len());
    }
    assert!(kept.len() > 1, "tearing took something at some places");
}
