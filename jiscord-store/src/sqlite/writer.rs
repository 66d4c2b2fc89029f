//! The one thread that writes.
//!
//! It takes the jobs that wait as a group, runs each in a savepoint of one transaction, so that a bad one fails alone,
//! commits, and only then answers. After an I/O error nothing is committed on that connection again: the group is told
//! that its outcome is unknown, and the database is opened anew and checked before the next one.

use std::{
    fmt,
    ops::ControlFlow,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering::SeqCst},
        mpsc::{Receiver, RecvTimeoutError},
    },
    time::{Duration, Instant},
};

use jiscord_core::{
    Event, Position,
    mint::{IdSource, Minter},
    model::Rev,
    time::Clock,
};
use rusqlite::{Connection, ErrorCode};
use tokio::sync::{oneshot, watch};
use uuid::Uuid;

use super::{
    Limits, OpenError,
    fail::{Fail, Health, health},
    place::{LOCK_WAIT, Place},
    rows,
};
use crate::{
    draft::guarded,
    error::Error,
    repository::{Created, Tell},
    ticks::Ticks,
};

/// How many jobs share a commit at most.
const GROUP: usize = 4_096;
/// How much is forgotten in one go, so that no group waits long for it.
const SLICE: u64 = 1_000;
/// From so many pages in the WAL on (32 MiB) they are moved into the database.
pub(super) const CHECKPOINT_AT: i64 = 8_192;
/// From so many on (256 MiB) a checkpoint waits for readers to let go of them.
const CHECKPOINT_HARD_AT: i64 = 65_536;
/// How long it waits.
const HARD_WAIT: Duration = Duration::from_millis(200);

/// Where tests make the disk fail.
pub(super) type Seam = Arc<dyn Fn(Step, &Connection) -> rusqlite::Result<()> + Send + Sync>;

/// A point of a group's way at which [`Seam`] is asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Step {
    /// A transaction has begun.
    Begun,
    /// COMMIT is next; an error stands for its failure.
    Commit,
    /// COMMIT has succeeded; an error stands for one that came although the disk has it.
    Committed,
    /// The database was opened again after a failure.
    Reopened,
}

/// What is known of the `log` row.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Log {
    pub(super) epoch: Arc<str>,
    pub(super) last: u64,
    pub(super) floor: u64,
    pub(super) events: u64,
    pub(super) used_ms: u64,
    /// The newest event, or the newest that was forgotten.
    pub(super) head: u64,
}

impl Log {
    pub(super) fn read(db: &Connection) -> rusqlite::Result<Self> {
        db.query_row(
            "SELECT epoch, last, floor, events, used_ms, coalesce((SELECT max(p) FROM events), floor) AS head FROM log",
            [],
            |row| {
                Ok(Self {
                    epoch: row.get::<_, String>("epoch")?.into(),
                    last: row.get("last")?,
                    floor: row.get("floor")?,
                    events: row.get("events")?,
                    used_ms: row.get("used_ms")?,
                    head: row.get("head")?,
                })
            },
        )
    }

    fn save(&self, db: &Connection) -> rusqlite::Result<()> {
        db.prepare_cached("UPDATE log SET last = ?1, floor = ?2, events = ?3, used_ms = ?4")?
            .execute((self.last, self.floor, self.events, self.used_ms))
            .map(drop)
    }

    /// Whether all that `known` says was committed is in the database that this was read from.
    fn holds(&self, known: &Self) -> bool {
        self.epoch == known.epoch && self.last >= known.last && self.head >= known.head && self.used_ms >= known.used_ms
    }
}

/// What a job may do: everything within one savepoint.
pub(super) struct Write<'a> {
    /// The connection, inside the group's transaction.
    pub(super) db: &'a Connection,
    /// The time at which the group began, in microseconds.
    pub(super) now: u64,
    minter: &'a Minter,
    log: &'a mut Log,
}

impl Write<'_> {
    /// A new id. Here, and not before the queue, so that the order of ids is the order of commits.
    pub(super) fn mint(&self) -> Uuid {
        self.minter.next()
    }

    /// A `rev` above an older version's, and above all given before.
    pub(super) fn rev_above(&mut self, rev: Rev) -> Rev {
        self.tick(|ticks, now| ticks.above(rev, now))
    }

    /// Keeps a new row's events with it.
    pub(super) fn created<T>(&mut self, row: T, tell: &Tell<T>) -> Result<Created<T>, Fail> {
        let events = tell(&row);
        self.keep(&events)?;
        Ok(Created::new(row, events, false))
    }

    /// Puts events into the log.
    pub(super) fn keep(&mut self, events: &[Event]) -> rusqlite::Result<()> {
        let mut insert =
            self.db.prepare_cached("INSERT INTO events (p, id, topics, op, channel, frame) VALUES (?1, ?2, ?3, ?4, ?5, ?6)")?;
        for event in events {
            let p = self.tick(Ticks::next);
            let channel = event.channel.map(|channel| channel.uuid());
            insert.execute((p, event.id.uuid(), rows::topics(&event.topics), &*event.op, channel, &*event.frame))?;
            self.log.head = p;
            self.log.events += 1;
        }
        Ok(())
    }

    fn tick(&mut self, next: impl FnOnce(&mut Ticks, u64) -> u64) -> u64 {
        let mut ticks = Ticks(self.log.last);
        let tick = next(&mut ticks, self.now);
        self.log.last = ticks.0;
        tick
    }

    /// Forgets at most [`SLICE`] old events, and as many old nonces, logins and revocations.
    fn trim(&mut self, limits: &Limits) -> rusqlite::Result<()> {
        let old = self.now.saturating_sub(limits.events_age.as_micros() as u64);
        let over = self.log.events.saturating_sub(limits.events).min(SLICE);
        let floor: Option<u64> = self
            .db
            .prepare_cached(
                "SELECT max(p) FROM (
                     SELECT * FROM (SELECT p FROM events WHERE p < ?1 ORDER BY p LIMIT ?2)
                     UNION ALL
                     SELECT * FROM (SELECT p FROM events ORDER BY p LIMIT ?3))",
            )?
            .query_row((old, SLICE, over), |row| row.get(0))?;
        if let Some(floor) = floor {
            let gone = self.db.prepare_cached("DELETE FROM events WHERE p <= ?1")?.execute([floor])?;
            self.log.floor = floor;
            self.log.events = self.log.events.saturating_sub(gone as u64);
        }
        self.db
            .prepare_cached(
                "DELETE FROM message_nonces WHERE (author_id, channel_id, nonce) IN (
                     SELECT author_id, channel_id, nonce FROM message_nonces WHERE expires <= ?1 ORDER BY expires LIMIT ?2)",
            )?
            .execute((self.now, SLICE))?;
        self.db
            .prepare_cached(
                "DELETE FROM logins WHERE login_id IN (
                     SELECT login_id FROM logins WHERE expires <= ?1 ORDER BY expires LIMIT ?2)",
            )?
            .execute((self.now, SLICE))?;
        self.db
            .prepare_cached(
                "DELETE FROM revocations WHERE (user_id, login_id) IN (
                     SELECT user_id, login_id FROM revocations WHERE expires <= ?1 ORDER BY expires LIMIT ?2)",
            )?
            .execute((self.now, SLICE))?;
        Ok(())
    }
}

/// Something to write, and whom to answer.
pub(super) trait Job: Send {
    /// Does it inside the savepoint, and keeps the answer. `Ok(false)`: undo it, the others go on. `Err`: the group is lost.
    fn run(&mut self, write: &mut Write<'_>) -> rusqlite::Result<bool>;
    /// Tells the caller what came of it, or that its group was lost.
    fn answer(self: Box<Self>, lost: Option<&Lost>);
}

/// A [`Job`] made of a closure.
pub(super) struct Task<T, F> {
    pub(super) work: Option<F>,
    pub(super) answer: Option<Result<T, Error>>,
    pub(super) reply: oneshot::Sender<Result<T, Error>>,
}

impl<T, F> Job for Task<T, F>
where
    T: Send,
    F: FnOnce(&mut Write<'_>) -> Result<T, Fail> + Send,
{
    fn run(&mut self, write: &mut Write<'_>) -> rusqlite::Result<bool> {
        let Some(work) = self.work.take() else { return Ok(false) };
        let answer = match guarded(|| work(write)) {
            Err(Fail::Sql(error)) if health(&error) != Health::Well => return Err(error),
            other => other.map_err(Error::from),
        };
        Ok(self.answer.insert(answer).is_ok())
    }

    fn answer(self: Box<Self>, lost: Option<&Lost>) {
        let answer = match (lost, self.answer) {
            (Some(lost), _) => Err(lost.error()),
            (None, Some(answer)) => answer,
            (None, None) => Err(Error::Internal("a job was not run".into())),
        };
        // Whoever asked may have gone.
        let _ = self.reply.send(answer);
    }
}

/// Why a whole group failed.
#[derive(Clone, Debug)]
pub(super) struct Lost {
    /// COMMIT was reached, so the disk may have it.
    unknown: bool,
    cause: Cause,
}

#[derive(Clone, Debug)]
enum Cause {
    Sql(Arc<rusqlite::Error>),
    Open(Arc<OpenError>),
}

impl Lost {
    fn before_commit(error: rusqlite::Error) -> Self {
        Self { unknown: false, cause: Cause::Sql(Arc::new(error)) }
    }

    fn at_commit(error: rusqlite::Error) -> Self {
        // With "full" and "busy" SQLite stops before the frame that makes the commit count is whole. Short memory is no such
        // sign: it may run short after the disk has it.
        let undone = matches!(error.sqlite_error_code(), Some(ErrorCode::DiskFull | ErrorCode::DatabaseBusy));
        Self { unknown: !undone, cause: Cause::Sql(Arc::new(error)) }
    }

    fn away(error: OpenError) -> Self {
        Self { unknown: false, cause: Cause::Open(Arc::new(error)) }
    }

    fn health(&self) -> Health {
        match &self.cause {
            Cause::Sql(error) => health(error),
            Cause::Open(_) => Health::Broken,
        }
    }

    fn error(&self) -> Error {
        let source = match &self.cause {
            Cause::Sql(error) => error.clone().into(),
            Cause::Open(error) => error.clone().into(),
        };
        match self.health() {
            _ if self.unknown => Error::Unknown(source),
            Health::Full => Error::Full(source),
            _ => Error::Unavailable(source),
        }
    }
}

impl fmt::Display for Lost {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.cause {
            Cause::Sql(error) => error.fmt(f),
            Cause::Open(error) => error.fmt(f),
        }
    }
}

/// What the thread works with.
pub(super) struct Writer {
    pub(super) place: Arc<Place>,
    pub(super) clock: Arc<dyn Clock>,
    pub(super) minter: Arc<Minter>,
    pub(super) head: watch::Sender<Position>,
    pub(super) limits: Limits,
    pub(super) seam: Seam,
    /// As it was committed last.
    pub(super) log: Log,
    /// The last position or rev given, be it in a group that was lost: none is given twice.
    pub(super) given: u64,
    /// From so many pages in the WAL on the next checkpoint is made.
    pub(super) checkpoint_at: i64,
    pub(super) ready: Arc<AtomicBool>,
}

impl Writer {
    /// Writes until nobody can send a job any more, then leaves the database tidy.
    pub(super) fn run(mut self, db: Connection, queue: &Receiver<Box<dyn Job>>) {
        let mut db = Some(db);
        loop {
            db = match db {
                Some(db) => match queue.recv() {
                    Ok(first) => self.group(db, std::iter::once(first).chain(queue.try_iter().take(GROUP - 1)).collect()),
                    Err(_) => return self.leave(&db),
                },
                None => match self.reopen() {
                    Ok(db) => Some(db),
                    Err(error) => {
                        self.ready.store(false, SeqCst);
                        tracing::error!(%error, cause = ?std::error::Error::source(&error), "the database is away; writes are refused");
                        if refuse(queue, &Lost::away(error), self.limits.reopen_after).is_break() {
                            return;
                        }
                        None
                    }
                },
            }
        }
    }

    /// Writes a group and answers it. Gives the connection back if it is still to be trusted.
    fn group(&mut self, db: Connection, mut jobs: Vec<Box<dyn Job>>) -> Option<Connection> {
        let lost = self.commit(&db, &mut jobs).err();
        let db = match &lost {
            None => {
                let head = Position(self.log.head);
                self.head.send_if_modified(|old| std::mem::replace(old, head) != head);
                Some(db)
            }
            Some(lost) => {
                tracing::error!(error = %lost, jobs = jobs.len(), unknown = lost.unknown, "a group of writes failed");
                let well = !lost.unknown && lost.health() != Health::Broken;
                Some(db).filter(|db| well && (db.is_autocommit() || db.execute_batch("ROLLBACK").is_ok()))
            }
        };
        self.ready.store(db.is_some(), SeqCst);
        for job in jobs {
            job.answer(lost.as_ref());
        }
        let full = lost.is_some_and(|lost| lost.health() == Health::Full);
        db.filter(|db| self.tidy(db, full))
    }

    /// Runs the jobs in one transaction; those that fail alone are undone alone.
    fn commit(&mut self, db: &Connection, jobs: &mut [Box<dyn Job>]) -> Result<(), Lost> {
        let mut log = Log { last: self.given, ..self.log.clone() };
        let done = self.work(db, jobs, &mut log);
        self.given = log.last;
        done.map_err(Lost::before_commit)?;
        #[cfg(feature = "failpoints")]
        {
            fail::fail_point!("store.before_commit", |_| std::process::abort());
            let io_error = rusqlite::ffi::Error::new(rusqlite::ffi::SQLITE_IOERR_FSYNC);
            fail::fail_point!("store.at_commit", |_| Err(Lost::at_commit(rusqlite::Error::SqliteFailure(io_error, None))));
        }
        (self.seam)(Step::Commit, db)
            .and_then(|()| db.execute_batch("COMMIT"))
            .and_then(|()| (self.seam)(Step::Committed, db))
            .map_err(Lost::at_commit)?;
        #[cfg(feature = "failpoints")]
        fail::fail_point!("store.after_commit", |_| std::process::abort());
        self.log = log;
        Ok(())
    }

    fn work(&self, db: &Connection, jobs: &mut [Box<dyn Job>], log: &mut Log) -> rusqlite::Result<()> {
        let plain = |sql| db.prepare_cached(sql)?.execute([]);
        db.execute_batch("BEGIN IMMEDIATE")?;
        (self.seam)(Step::Begun, db)?;
        let now = self.clock.now_micros();
        for job in jobs {
            plain("SAVEPOINT job")?;
            let before = log.clone();
            if !job.run(&mut Write { db, now, minter: &self.minter, log })? {
                plain("ROLLBACK TO job")?;
                *log = Log { last: log.last, ..before };
            }
            plain("RELEASE job")?;
        }
        Write { db, now, minter: &self.minter, log }.trim(&self.limits)?;
        // Read last: whatever id these rows and events have was minted by now.
        log.used_ms = self.minter.used_ms();
        if *log != self.log {
            log.save(db)?;
        }
        Ok(())
    }

    /// Keeps the WAL short; on a full disk also a short one, whose room can then be used again. False after an error of the
    /// disk.
    fn tidy(&mut self, db: &Connection, full: bool) -> bool {
        let done = checkpoint(db, "NOOP").and_then(|wal| {
            if wal.pages < CHECKPOINT_AT {
                self.checkpoint_at = CHECKPOINT_AT;
            }
            if wal.pages < self.checkpoint_at && !full {
                return Ok(());
            }
            let wal = if wal.pages < CHECKPOINT_HARD_AT {
                checkpoint(db, "PASSIVE")?
            } else {
                // Readers come and go, and one of them was always in the way of starting afresh: let new ones wait a moment.
                db.busy_timeout(HARD_WAIT)?;
                let wal = checkpoint(db, "RESTART")?;
                db.busy_timeout(LOCK_WAIT)?;
                wal
            };
            if wal.busy && wal.pages >= CHECKPOINT_HARD_AT {
                tracing::warn!(pages = wal.pages, "the WAL grows, since something reads from the database for long");
            }
            // What could not be moved is tried again when there is as much once more.
            self.checkpoint_at = wal.pages + CHECKPOINT_AT;
            Ok(())
        });
        let Err(error) = done else { return true };
        tracing::error!(%error, "checkpoint failed");
        health(&error) != Health::Broken
    }

    fn leave(&self, db: &Connection) {
        if let Err(error) = checkpoint(db, "TRUNCATE") {
            tracing::warn!(%error, "checkpoint failed at the end; the next start does it");
        }
    }

    /// Opens the database again and trusts it only if all that was acknowledged is there and the disk takes a commit.
    fn reopen(&mut self) -> Result<Connection, OpenError> {
        let db = self.place.writer().map_err(OpenError::sql)?;
        let check = || {
            (self.seam)(Step::Reopened, &db)?;
            checkpoint(&db, "TRUNCATE")?;
            let mut log = Log::read(&db)?;
            if !log.holds(&self.log) {
                return Ok(None);
            }
            log.last = log.last.max(self.given) + 1;
            log.save(&db)?;
            Ok(Some(log))
        };
        let log = check().map_err(OpenError::sql)?.ok_or(OpenError::Lost)?;
        tracing::info!("the database is back");
        self.given = log.last;
        // A group whose outcome was unknown may be in it after all.
        self.head.send_replace(Position(log.head));
        self.log = log;
        self.ready.store(true, SeqCst);
        Ok(db)
    }
}

/// What a checkpoint left.
struct Wal {
    busy: bool,
    /// Pages in it.
    pages: i64,
}

fn checkpoint(db: &Connection, mode: &str) -> rusqlite::Result<Wal> {
    db.prepare_cached(&format!("PRAGMA wal_checkpoint({mode})"))?
        .query_row([], |row| Ok(Wal { busy: row.get(0)?, pages: row.get(1)? }))
}

/// Answers all jobs that come within a time. Breaks when no more can come.
fn refuse(queue: &Receiver<Box<dyn Job>>, why: &Lost, time: Duration) -> ControlFlow<()> {
    let end = Instant::now() + time;
    loop {
        match queue.recv_timeout(end.saturating_duration_since(Instant::now())) {
            Ok(job) => job.answer(Some(why)),
            Err(RecvTimeoutError::Timeout) => return ControlFlow::Continue(()),
            Err(RecvTimeoutError::Disconnected) => return ControlFlow::Break(()),
        }
    }
}
