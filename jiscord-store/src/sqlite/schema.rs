//! Tables, and how they came to be.

use jiscord_core::time::Clock;
use rusqlite::{Connection, OptionalExtension, TransactionBehavior};
use sha2::{Digest, Sha256};
use uuid::Uuid;

use super::OpenError;

/// "Jisc" in ASCII: tells `file` and us whose database it is.
const APPLICATION_ID: i32 = 0x4a69_7363;

struct Migration {
    name: &'static str,
    sql: &'static str,
}

/// In order; the first has version 1. One that was released never changes: add another.
const MIGRATIONS: &[Migration] = &[Migration { name: "start", sql: START }, Migration { name: "logins", sql: LOGINS }];

const START: &str = "
-- AP-1, AP-2, AP-3
CREATE TABLE users (
    user_id       BLOB PRIMARY KEY,
    username      TEXT NOT NULL,
    email         TEXT UNIQUE,
    password_hash TEXT,
    created_at    INTEGER            -- Unix milliseconds
) STRICT, WITHOUT ROWID;

-- AP-4 to AP-7. The key is the id's 16 bytes in the order of CQL's timeuuid.
CREATE TABLE messages (
    channel_id BLOB NOT NULL,
    key        BLOB NOT NULL,
    author_id  BLOB NOT NULL,
    content    TEXT NOT NULL,
    created_at INTEGER NOT NULL,
    rev        INTEGER NOT NULL,
    reply_to   BLOB,
    PRIMARY KEY (channel_id, key)
) STRICT, WITHOUT ROWID;

-- AP-4: which message a nonce stands for.
CREATE TABLE message_nonces (
    author_id  BLOB NOT NULL,
    channel_id BLOB NOT NULL,
    nonce      TEXT NOT NULL,
    body_hash  BLOB NOT NULL,
    key        BLOB NOT NULL,
    expires    INTEGER NOT NULL,     -- Unix microseconds
    PRIMARY KEY (author_id, channel_id, nonce)
) STRICT, WITHOUT ROWID;
CREATE INDEX message_nonces_by_expiry ON message_nonces (expires);

-- AP-8, AP-9, AP-10
CREATE TABLE guilds (
    guild_id   BLOB PRIMARY KEY,
    name       TEXT NOT NULL,
    owner_id   BLOB,
    visibility TEXT NOT NULL,        -- public, private
    created_at INTEGER NOT NULL,
    rev        INTEGER NOT NULL
) STRICT, WITHOUT ROWID;
CREATE INDEX public_guilds ON guilds (guild_id) WHERE visibility = 'public';

-- AP-11 to AP-14
CREATE TABLE guild_members (
    guild_id  BLOB NOT NULL,
    user_id   BLOB NOT NULL,
    joined_at INTEGER NOT NULL,
    rev       INTEGER NOT NULL,
    PRIMARY KEY (guild_id, user_id)
) STRICT, WITHOUT ROWID;
CREATE INDEX user_guilds ON guild_members (user_id, guild_id);

-- AP-15, AP-16, AP-17
CREATE TABLE channels (
    channel_id BLOB PRIMARY KEY,
    guild_id   BLOB NOT NULL,
    name       TEXT NOT NULL,
    created_at INTEGER NOT NULL,
    rev        INTEGER NOT NULL
) STRICT, WITHOUT ROWID;
CREATE INDEX channels_by_guild ON channels (guild_id, created_at);

-- AP-18, AP-19. Topics are separated by spaces.
CREATE TABLE events (
    p       INTEGER PRIMARY KEY,
    id      BLOB NOT NULL,
    topics  TEXT NOT NULL,
    op      TEXT NOT NULL,
    channel BLOB,
    frame   TEXT NOT NULL
) STRICT;

-- One row: what outlives a restart beside the rows themselves.
CREATE TABLE log (
    one     INTEGER PRIMARY KEY CHECK (one = 1),
    epoch   TEXT NOT NULL,
    last    INTEGER NOT NULL,        -- the last position or rev that was given
    floor   INTEGER NOT NULL,        -- the last position that was forgotten
    events  INTEGER NOT NULL,        -- rows in events
    used_ms INTEGER NOT NULL         -- the last millisecond in which an id was minted
) STRICT;
";

const LOGINS: &str = "
-- AP-23, AP-24
CREATE TABLE logins (
    login_id   BLOB PRIMARY KEY,
    user_id    BLOB NOT NULL,
    begun      INTEGER NOT NULL,     -- Unix seconds
    generation INTEGER NOT NULL,     -- the one that is valid
    rotated    INTEGER NOT NULL,     -- Unix microseconds
    expires    INTEGER NOT NULL      -- Unix microseconds
) STRICT, WITHOUT ROWID;
CREATE INDEX logins_by_expiry ON logins (expires);

-- AP-25, AP-26. An empty login_id: all of the user's that were issued by that second.
CREATE TABLE revocations (
    user_id   BLOB NOT NULL,
    login_id  BLOB NOT NULL,
    issued_by INTEGER,               -- Unix seconds
    expires   INTEGER NOT NULL,      -- Unix microseconds
    PRIMARY KEY (user_id, login_id)
) STRICT, WITHOUT ROWID;
CREATE INDEX revocations_by_expiry ON revocations (expires);
";

impl Migration {
    fn checksum(&self) -> [u8; 32] {
        Sha256::digest(self.sql).into()
    }
}

type Migrated = Result<Vec<&'static str>, OpenError>;

/// Brings the tables up to date and says the names of what was done: nothing, if they were.
pub(super) fn migrate(db: &mut Connection, clock: &dyn Clock) -> Migrated {
    attempt(db, clock).map_err(OpenError::sql)?
}

fn attempt(db: &mut Connection, clock: &dyn Clock) -> rusqlite::Result<Migrated> {
    // One transaction: a crash leaves the old schema or the new one.
    let tx = db.transaction_with_behavior(TransactionBehavior::Immediate)?;
    let ours: i32 = tx.query_row("PRAGMA application_id", [], |row| row.get(0))?;
    let tables: i64 = tx.query_row("SELECT count(*) FROM sqlite_schema", [], |row| row.get(0))?;
    if ours != APPLICATION_ID && (ours != 0 || tables != 0) {
        return Ok(Err(OpenError::Foreign));
    }
    tx.pragma_update(None, "application_id", APPLICATION_ID)?;
    tx.execute_batch(
        "CREATE TABLE IF NOT EXISTS migrations (
             version    INTEGER PRIMARY KEY,
             name       TEXT NOT NULL,
             checksum   BLOB NOT NULL,
             applied_at INTEGER NOT NULL
         ) STRICT",
    )?;
    let newest: Option<u32> = tx.query_row("SELECT max(version) FROM migrations", [], |row| row.get(0))?;
    if let Some(version) = newest.filter(|version| *version as usize > MIGRATIONS.len()) {
        return Ok(Err(OpenError::FromTheFuture { version, known: MIGRATIONS.len() as u32 }));
    }
    let mut done = Vec::new();
    for (version, migration) in (1u32..).zip(MIGRATIONS) {
        let checksum = tx
            .query_row("SELECT checksum FROM migrations WHERE version = ?1", [version], |row| row.get::<_, Vec<u8>>(0))
            .optional()?;
        match checksum {
            Some(checksum) if checksum == migration.checksum() => continue,
            Some(_) => return Ok(Err(OpenError::Changed { version, name: migration.name })),
            None => {}
        }
        tx.execute_batch(migration.sql)?;
        tx.execute(
            "INSERT INTO migrations (version, name, checksum, applied_at) VALUES (?1, ?2, ?3, ?4)",
            (version, migration.name, migration.checksum(), clock.now().ms()),
        )?;
        done.push(migration.name);
    }
    tx.execute(
        "INSERT OR IGNORE INTO log (one, epoch, last, floor, events, used_ms) VALUES (1, ?1, 0, 0, 0, 0)",
        [Uuid::new_v4().to_string()],
    )?;
    tx.commit()?;
    Ok(Ok(done))
}
