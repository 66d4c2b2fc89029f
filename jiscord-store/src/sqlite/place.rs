//! The folder a database lives in: its lock, its modes, its connections.

use std::{
    fs::{self, DirBuilder, File, OpenOptions, TryLockError},
    io,
    path::{Path, PathBuf},
    sync::{Mutex, PoisonError},
    time::Duration,
};

use rusqlite::{Connection, OpenFlags};

use super::OpenError;

/// The least version of SQLite: earlier ones may lose pages in a race between a checkpoint and a write
/// (<https://sqlite.org/wal.html#walresetbug>).
const SQLITE_AT_LEAST: i32 = 3_051_003;

/// How long a lock of another program, such as an operator's `sqlite3`, is waited for.
pub(super) const LOCK_WAIT: Duration = Duration::from_secs(5);

/// A locked folder. The lock is gone when this is dropped, or the process ends.
pub(super) struct Place {
    database: PathBuf,
    lock: Mutex<Option<File>>,
}

impl Place {
    /// Makes the folder if it is not there, and takes it for this process alone.
    pub(super) fn lock(folder: &Path) -> Result<Self, OpenError> {
        let at = |error: io::Error, path: &Path| OpenError::Folder { path: path.to_owned(), source: error };
        if rusqlite::version_number() < SQLITE_AT_LEAST {
            return Err(OpenError::OldSqlite(rusqlite::version()));
        }
        refuse_symlink(folder)?;
        private_folder().create(folder).map_err(|error| at(error, folder))?;
        // From here on without links, since SQLite is told to follow none.
        let folder = folder.canonicalize().map_err(|error| at(error, folder))?;

        let lock = folder.join("jiscord.lock");
        let file = private_file(&lock)?;
        match file.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => return Err(OpenError::Locked { folder }),
            Err(TryLockError::Error(error)) => return Err(at(error, &lock)),
        }
        let database = folder.join("jiscord.db");
        // SQLite gives -wal and -shm the mode of the database.
        private_file(&database)?;
        for beside in ["jiscord.db-wal", "jiscord.db-shm"] {
            refuse_symlink(&folder.join(beside))?;
        }
        Ok(Self { database, lock: Mutex::new(Some(file)) })
    }

    /// Lets another process have it.
    pub(super) fn unlock(&self) {
        self.lock.lock().unwrap_or_else(PoisonError::into_inner).take();
    }

    /// A connection that may write.
    pub(super) fn writer(&self) -> rusqlite::Result<Connection> {
        let db = self.connect(OpenFlags::SQLITE_OPEN_READ_WRITE)?;
        // `synchronous = FULL` makes COMMIT wait for the disk. Checkpoints are the writer's own: SQLite's automatic ones
        // keep their I/O errors to themselves. `fullfsync` matters on macOS, whose fsync does not reach the disk.
        db.execute_batch(
            "PRAGMA journal_mode = WAL;
             PRAGMA synchronous = FULL;
             PRAGMA fullfsync = ON;
             PRAGMA checkpoint_fullfsync = ON;
             PRAGMA wal_autocheckpoint = 0;
             PRAGMA journal_size_limit = 33554432;
             PRAGMA cache_size = -16384;",
        )?;
        Ok(db)
    }

    /// A connection that only reads.
    pub(super) fn reader(&self) -> rusqlite::Result<Connection> {
        self.connect(OpenFlags::SQLITE_OPEN_READ_ONLY)
    }

    fn connect(&self, mode: OpenFlags) -> rusqlite::Result<Connection> {
        // Each connection is used by one thread at a time, so SQLite need not lock it once more.
        let flags = mode | OpenFlags::SQLITE_OPEN_NO_MUTEX | OpenFlags::SQLITE_OPEN_NOFOLLOW;
        let db = Connection::open_with_flags(&self.database, flags)?;
        db.busy_timeout(LOCK_WAIT)?;
        db.execute_batch("PRAGMA trusted_schema = OFF; PRAGMA cell_size_check = ON; PRAGMA temp_store = MEMORY;")?;
        db.set_prepared_statement_cache_capacity(64);
        Ok(db)
    }
}

fn refuse_symlink(path: &Path) -> Result<(), OpenError> {
    match fs::symlink_metadata(path) {
        Ok(found) if found.is_symlink() => Err(OpenError::Symlink { path: path.to_owned() }),
        Ok(_) => Ok(()),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        Err(error) => Err(OpenError::Folder { path: path.to_owned(), source: error }),
    }
}

/// Makes folders that are only for their owner. One that is there keeps its mode: it may be shared on purpose, and the
/// files in it are private anyway.
fn private_folder() -> DirBuilder {
    let mut builder = DirBuilder::new();
    builder.recursive(true);
    #[cfg(unix)]
    std::os::unix::fs::DirBuilderExt::mode(&mut builder, 0o700);
    builder
}

/// Opens or makes a file that is only for its owner.
fn private_file(path: &Path) -> Result<File, OpenError> {
    refuse_symlink(path)?;
    let mut options = OpenOptions::new();
    options.read(true).write(true).create(true).truncate(false);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    let failed = |source| OpenError::Folder { path: path.to_owned(), source };
    let file = options.open(path).map_err(failed)?;
    #[cfg(unix)]
    file.set_permissions(std::os::unix::fs::PermissionsExt::from_mode(0o600)).map_err(failed)?;
    Ok(file)
}
