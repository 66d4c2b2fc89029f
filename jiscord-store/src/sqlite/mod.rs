//! The embedded store: one SQLite database in a folder of its own.
//!
//! One thread writes and commits what waits in groups ([`Messages::create`](crate::Messages::create) and the like answer
//! when the disk has it); a pool of connections reads. Nothing here blocks the runtime, and both queues are bounded: what
//! does not fit is answered with [`Error::Busy`].
//!
//! ```text
//! callers ── bounded queue ──► writer thread ── one transaction a group ──► jiscord.db, -wal
//!    ▲                              │                                           ▲
//!    └───── answer, once durable ───┘            readers, on blocking threads ──┘
//! ```
//!
//! The folder is locked, so a second process is refused ([`OpenError::Locked`]). Its positions and ids grow over restarts,
//! also when the clock steps back: the last ones given are kept with what they were given to.

mod fail;
mod place;
mod readers;
mod repositories;
mod rows;
mod schema;
#[cfg(test)]
mod tests;
mod writer;

use std::{
    fmt,
    path::{Path, PathBuf},
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, Ordering::SeqCst},
        mpsc::{SyncSender, TrySendError, sync_channel},
    },
    thread::JoinHandle,
    time::Duration,
};

use jiscord_core::{
    Position,
    id::Worker,
    mint::Minter,
    time::{Clock, SystemClock},
};
use rusqlite::Connection;
use tokio::sync::{oneshot, watch};

use self::{
    fail::Fail,
    place::Place,
    readers::Readers,
    writer::{CHECKPOINT_AT, Job, Log, Seam, Task, Write, Writer},
};
use crate::error::{Error, Result, Source};

/// Why a database was not opened. The texts are for whoever runs the server.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum OpenError {
    /// Another process has it, or another store of this one.
    #[error("{} is in use by another process", folder.display())]
    Locked {
        /// The folder.
        folder: PathBuf,
    },
    /// A link stands where a folder or file was expected: following it may write to somewhere else.
    #[error("{} is a symbolic link; name the place itself", path.display())]
    Symlink {
        /// The link.
        path: PathBuf,
    },
    /// The folder or a file in it cannot be made or opened.
    #[error("{} cannot be made or opened", path.display())]
    Folder {
        /// Which one.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
    /// The program was linked with an SQLite that may lose pages.
    #[error("SQLite {0} is too old: 3.51.3 or later is needed")]
    OldSqlite(&'static str),
    /// The file holds a database of another program.
    #[error("jiscord.db is not a database of Jiscord")]
    Foreign,
    /// A newer Jiscord has worked on it. Run that one, or bring back the backup from before.
    #[error("the database is of a newer Jiscord: its schema has version {version}, and this one knows {known}")]
    FromTheFuture {
        /// The database's schema.
        version: u32,
        /// The newest schema known here.
        known: u32,
    },
    /// The database was made by another text of a migration than this program's.
    #[error("migration {version} ({name}) is not the one that the database was made with")]
    Changed {
        /// Which one.
        version: u32,
        /// Its name.
        name: &'static str,
    },
    /// After a failure of the disk, something that had been acknowledged is not there.
    #[error("the database has lost writes that were acknowledged")]
    Lost,
    /// SQLite cannot open or change it.
    #[error("the database cannot be opened")]
    Sql(#[source] Source),
}

impl OpenError {
    fn sql(error: rusqlite::Error) -> Self {
        Self::Sql(error.into())
    }
}

#[derive(Clone, Debug)]
struct Limits {
    queue: usize,
    readers: usize,
    waiting_reads: usize,
    events: u64,
    events_age: Duration,
    reopen_after: Duration,
}

/// How a database is opened. The default is right for most.
#[derive(Clone)]
pub struct Options {
    clock: Arc<dyn Clock>,
    limits: Limits,
    seam: Seam,
}

impl Default for Options {
    fn default() -> Self {
        let limits = Limits {
            queue: 4_096,
            readers: 4,
            waiting_reads: 4_096,
            events: 200_000,
            events_age: Duration::from_secs(24 * 3_600),
            reopen_after: Duration::from_secs(1),
        };
        Self { clock: Arc::new(SystemClock), limits, seam: Arc::new(|_, _| Ok(())) }
    }
}

impl Options {
    /// Where the time comes from. Default: the machine's clock.
    #[must_use]
    pub fn clock(mut self, clock: Arc<dyn Clock>) -> Self {
        self.clock = clock;
        self
    }

    /// How many reads run at once, at least 1. Default 4.
    #[must_use]
    pub fn readers(mut self, readers: usize) -> Self {
        self.limits.readers = readers.max(1);
        self
    }

    /// How many writes may wait, at least 1; one more is answered with [`Error::Busy`]. Default 4,096.
    #[must_use]
    pub fn queue(mut self, jobs: usize) -> Self {
        self.limits.queue = jobs.max(1);
        self
    }

    /// How many events the log keeps, and for how long. Default: 200,000, and 24 hours.
    #[must_use]
    pub fn events(mut self, most: u64, age: Duration) -> Self {
        self.limits.events = most;
        self.limits.events_age = age;
        self
    }
}

impl fmt::Debug for Options {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Options").field("limits", &self.limits).finish_non_exhaustive()
    }
}

/// A store in one SQLite database. Must be used within a tokio runtime.
pub struct SqliteStore {
    epoch: Arc<str>,
    queue: Mutex<Option<SyncSender<Box<dyn Job>>>>,
    thread: Mutex<Option<JoinHandle<()>>>,
    ended: watch::Receiver<()>,
    readers: Arc<Readers>,
    place: Arc<Place>,
    minter: Arc<Minter>,
    head: watch::Sender<Position>,
    ready: Arc<AtomicBool>,
}

impl SqliteStore {
    /// Opens the database `jiscord.db` in a folder, which is made if it is not there, and brings its tables up to date.
    /// Blocks for as long as that takes.
    pub fn open(folder: impl AsRef<Path>, options: Options) -> Result<Arc<Self>, OpenError> {
        let Options { clock, limits, seam } = options;
        let place = Arc::new(Place::lock(folder.as_ref())?);
        let mut db = place.writer().map_err(OpenError::sql)?;
        schema::migrate(&mut db, &*clock)?;
        let log = Log::read(&db).map_err(OpenError::sql)?;
        let minter = Arc::new(Minter::new(clock.clone(), Worker::default(), log.used_ms));
        let head = watch::Sender::new(Position(log.head));
        let (queue, jobs) = sync_channel(limits.queue);
        let (ending, ended) = watch::channel(());
        let readers = Arc::new(Readers::new(place.clone(), limits.readers, limits.waiting_reads));
        let epoch = log.epoch.clone();
        let ready = Arc::new(AtomicBool::new(true));
        let writer = Writer {
            place: place.clone(),
            clock,
            minter: minter.clone(),
            head: head.clone(),
            limits,
            seam,
            given: log.last,
            log,
            checkpoint_at: CHECKPOINT_AT,
            ready: ready.clone(),
        };
        let thread = std::thread::Builder::new().name("jiscord-writer".into()).spawn(move || {
            let _ending = ending;
            writer.run(db, &jobs);
        });
        let thread = thread.map_err(|error| OpenError::Folder { path: folder.as_ref().to_owned(), source: error })?;
        Ok(Arc::new(Self {
            epoch,
            queue: Mutex::new(Some(queue)),
            thread: Mutex::new(Some(thread)),
            ended,
            readers,
            place,
            minter,
            head,
            ready,
        }))
    }

    /// Brings the tables in a folder up to date and says the names of the migrations that were applied: none, if they were
    /// up to date. [`SqliteStore::open`] does the same; this is for doing it before. Blocks.
    pub fn migrate(folder: impl AsRef<Path>) -> Result<Vec<&'static str>, OpenError> {
        let place = Place::lock(folder.as_ref())?;
        let mut db = place.writer().map_err(OpenError::sql)?;
        schema::migrate(&mut db, &SystemClock)
    }

    /// Whether writes are taken: false after a failure of the disk until the database is back, and once it is closed.
    pub fn is_ready(&self) -> bool {
        self.ready.load(SeqCst) && self.ended.has_changed().is_ok() && held(&self.queue).is_some()
    }

    /// Takes no more writes, finishes those that wait, then closes the database and lets go of the folder. What is asked
    /// afterwards is [`Error::Unavailable`]. Dropping the store does the same, but blocks the thread it is dropped on.
    pub async fn close(&self) {
        held(&self.queue).take();
        let mut ended = self.ended.clone();
        while ended.changed().await.is_ok() {}
        self.readers.close();
        self.place.unlock();
    }

    /// Sends work to the writer and waits until it is durable.
    async fn write<T, F>(&self, work: F) -> Result<T>
    where
        T: Send + 'static,
        F: FnOnce(&mut Write<'_>) -> Result<T, Fail> + Send + 'static,
    {
        let (reply, answer) = oneshot::channel();
        let job = Box::new(Task { work: Some(work), answer: None, reply });
        // The lock is held for the length of a `try_send`.
        let sent = held(&self.queue).as_ref().map(|queue| queue.try_send(job));
        match sent {
            Some(Ok(())) => {}
            Some(Err(TrySendError::Full(_))) => return Err(Error::Busy),
            None | Some(Err(TrySendError::Disconnected(_))) => return Err(Error::Unavailable("the store is closed".into())),
        }
        answer.await.unwrap_or_else(|_| Err(Error::Unknown("the writer has gone".into())))
    }

    async fn read<T, F>(&self, query: F) -> Result<T>
    where
        T: Send + 'static,
        F: FnOnce(&Connection) -> Result<T, Fail> + Send + 'static,
    {
        self.readers.read(query).await
    }
}

impl Drop for SqliteStore {
    fn drop(&mut self) {
        held(&self.queue).take();
        if let Some(thread) = held(&self.thread).take()
            // The last handle may be in a job's closure: the writer cannot wait for itself.
            && thread.thread().id() != std::thread::current().id()
        {
            let _ = thread.join();
        }
    }
}

impl fmt::Debug for SqliteStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SqliteStore").field("epoch", &self.epoch).field("head", &*self.head.borrow()).finish_non_exhaustive()
    }
}

fn held<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // Nothing panics while it holds one of these.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
