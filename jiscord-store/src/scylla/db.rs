//! A session with its prepared statements.

use std::sync::Arc;

use scylla::{
    client::session::Session,
    deserialize::row::DeserializeRow,
    errors::{ExecutionError, PrepareError},
    policies::retry::FallthroughRetryPolicy,
    response::{PagingState, PagingStateResponse, query_result::QueryResult},
    serialize::row::SerializeRow,
    statement::{
        Consistency,
        batch::{Batch, BatchType},
        prepared::PreparedStatement,
    },
    value::{CqlValue, Row},
};

use super::fail;
use crate::error::{Error, Result, Source};

/// What a statement does, which says how it may be sent.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    /// Asked again as often as the driver likes.
    Read,
    /// Reads what lightweight transactions decided, and ends those that hang.
    Serial,
    /// Has its write time given, so that doing it again changes nothing. Not repeated by the driver: its last error would
    /// hide what became of the first try.
    Write,
    /// A lightweight transaction. Never repeated: a second try does not find what the first one found.
    Lwt,
}

async fn prepare(session: &Session, cql: &str, kind: Kind) -> Result<PreparedStatement, PrepareError> {
    let mut statement = session.prepare(cql).await?;
    statement.set_is_idempotent(kind != Kind::Lwt);
    if kind == Kind::Serial {
        statement.set_consistency(Consistency::LocalSerial);
    }
    if matches!(kind, Kind::Write | Kind::Lwt) {
        statement.set_retry_policy(Some(Arc::new(FallthroughRetryPolicy::new())));
    }
    Ok(statement)
}

macro_rules! statements {
    ($($name:ident: $kind:ident $cql:literal),+ $(,)?) => {
        pub(super) struct Statements {
            $(pub(super) $name: PreparedStatement,)+
        }

        impl Statements {
            async fn prepare(session: &Session) -> Result<Self, PrepareError> {
                Ok(Self { $($name: prepare(session, $cql, Kind::$kind).await?,)+ })
            }
        }
    };
}

statements! {
    users: Read "SELECT user_id, username, email, password_hash, created_at FROM users WHERE user_id IN ?",
    insert_user: Write "INSERT INTO users (user_id, username, email, password_hash, created_at) VALUES (?, ?, ?, ?, ?)",
    delete_user: Write "DELETE FROM users WHERE user_id = ?",
    claim_email: Lwt "INSERT INTO users_by_email (email, user_id) VALUES (?, ?) IF NOT EXISTS",
    email_decided: Serial "SELECT user_id FROM users_by_email WHERE email = ?",
    email: Read "SELECT user_id FROM users_by_email WHERE email = ?",

    insert_message: Write "INSERT INTO messages (channel_id, message_id, author_id, content, created_at, rev, reply_to)
        VALUES (?, ?, ?, ?, ?, ?, ?)",
    message: Read "SELECT channel_id, message_id, author_id, content, created_at, rev, reply_to FROM messages
        WHERE channel_id = ? AND message_id = ?",
    newest_messages: Read "SELECT channel_id, message_id, author_id, content, created_at, rev, reply_to FROM messages
        WHERE channel_id = ? LIMIT ?",
    messages_before: Read "SELECT channel_id, message_id, author_id, content, created_at, rev, reply_to FROM messages
        WHERE channel_id = ? AND message_id < ? LIMIT ?",
    oldest_messages: Read "SELECT channel_id, message_id, author_id, content, created_at, rev, reply_to FROM messages
        WHERE channel_id = ? ORDER BY message_id ASC LIMIT ?",
    messages_after: Read "SELECT channel_id, message_id, author_id, content, created_at, rev, reply_to FROM messages
        WHERE channel_id = ? AND message_id > ? ORDER BY message_id ASC LIMIT ?",
    last_messages: Read "SELECT channel_id, message_id FROM messages WHERE channel_id IN ? PER PARTITION LIMIT 1",
    claim_nonce: Lwt "INSERT INTO message_nonces (author_id, channel_id, nonce, message_id, body_hash) VALUES (?, ?, ?, ?, ?)
        IF NOT EXISTS USING TTL ?",
    nonce_decided: Serial "SELECT message_id, body_hash, replaced, published FROM message_nonces
        WHERE author_id = ? AND channel_id = ? AND nonce = ?",
    move_nonce: Lwt "UPDATE message_nonces USING TTL ? SET message_id = ?, body_hash = ?, replaced = ?
        WHERE author_id = ? AND channel_id = ? AND nonce = ? IF message_id = ? AND published = null",
    publish_nonce: Lwt "UPDATE message_nonces USING TTL ? SET published = true
        WHERE author_id = ? AND channel_id = ? AND nonce = ? IF message_id = ?",
    delete_message: Write "DELETE FROM messages WHERE channel_id = ? AND message_id = ?",

    insert_guild: Write "INSERT INTO guilds (guild_id, name, owner_id, visibility, created_at, rev) VALUES (?, ?, ?, ?, ?, ?)",
    guilds: Read "SELECT guild_id, name, owner_id, visibility, created_at, rev FROM guilds WHERE guild_id IN ?",
    insert_public_guild: Write "INSERT INTO public_guilds (guild_id) VALUES (?)",
    first_public_guilds: Read "SELECT guild_id FROM public_guilds LIMIT ?",
    public_guilds_after: Read "SELECT guild_id FROM public_guilds WHERE token(guild_id) > token(?) LIMIT ?",

    insert_member: Write "INSERT INTO guild_members (guild_id, user_id, joined_at, rev) VALUES (?, ?, ?, ?)",
    end_member: Write "INSERT INTO guild_members (guild_id, user_id, joined_at, rev) VALUES (?, ?, null, ?) USING TTL ?",
    member: Read "SELECT joined_at, rev FROM guild_members WHERE guild_id = ? AND user_id = ?",
    insert_user_guild: Write "INSERT INTO user_guilds (user_id, guild_id, rev) VALUES (?, ?, ?)",
    delete_user_guild: Write "DELETE FROM user_guilds WHERE user_id = ? AND guild_id = ?",
    user_guilds: Read "SELECT guild_id, rev FROM user_guilds WHERE user_id = ?",

    insert_channel: Write "INSERT INTO channels (guild_id, channel_id, name, created_at, rev) VALUES (?, ?, ?, ?, ?)",
    insert_channel_by_id: Write "INSERT INTO channels_by_id (guild_id, channel_id, name, created_at, rev)
        VALUES (?, ?, ?, ?, ?)",
    channel: Read "SELECT guild_id, channel_id, name, created_at, rev FROM channels_by_id WHERE channel_id = ?",
    channels: Read "SELECT guild_id, channel_id, name, created_at, rev FROM channels WHERE guild_id = ?",

    begin_login: Lwt "INSERT INTO logins (login_id, user_id, begun, generation, rotated) VALUES (?, ?, ?, 0, ?)
        IF NOT EXISTS USING TTL ?",
    rotate_login: Lwt "UPDATE logins USING TTL ? SET user_id = ?, begun = ?, generation = ?, rotated = ? WHERE login_id = ?
        IF generation = ?",
    end_login: Lwt "DELETE FROM logins WHERE login_id = ? IF user_id = ?",
    login_decided: Serial "SELECT user_id, begun, generation, rotated FROM logins WHERE login_id = ?",
    insert_revocation: Write "INSERT INTO revocations (user_id, login_id, issued_by) VALUES (?, ?, ?) USING TTL ?",
    revocations: Read "SELECT login_id, issued_by FROM revocations WHERE user_id = ? AND login_id IN (?, ?)",

    insert_event: Write "INSERT INTO event_journal (shard, minute, event_id, topics, op, channel, frame, nonce)
        VALUES (?, ?, ?, ?, ?, ?, ?, ?)",
    event_nonce: Read "SELECT nonce FROM event_journal WHERE shard = ? AND minute = ? AND event_id = ?",
    events_of_minute: Read "SELECT event_id, topics, op, channel, frame FROM event_journal WHERE shard = ? AND minute = ?",
    events_between: Read "SELECT event_id, topics, op, channel, frame FROM event_journal
        WHERE shard = ? AND minute = ? AND event_id >= ? AND event_id < ?",

    claim_worker: Lwt "UPDATE workers USING TTL ? SET owner = ? WHERE worker = ? IF owner = null",
    renew_worker: Lwt "UPDATE workers USING TTL ? SET owner = ? WHERE worker = ? IF owner = ?",
    release_worker: Lwt "UPDATE workers SET owner = null WHERE worker = ? IF owner = ?",
    use_worker: Lwt "UPDATE workers SET used_ms = ? WHERE worker = ?",
    worker_decided: Serial "SELECT owner, used_ms FROM workers WHERE worker = ?",
    worker: Read "SELECT owner FROM workers WHERE worker = ?",
}

/// What a lightweight transaction came to.
pub(super) enum Lwt {
    /// It was done.
    Applied,
    /// Its condition did not hold.
    Not,
    /// Nobody knows: read at serial consistency.
    Unknown(Source),
}

/// Statements and values for one logged batch.
#[derive(Default)]
pub(super) struct Write<'a> {
    statements: Vec<&'a PreparedStatement>,
    values: Vec<Box<dyn SerializeRow + Send + Sync + 'a>>,
}

impl<'a> Write<'a> {
    /// Adds one more.
    pub(super) fn add(&mut self, statement: &'a PreparedStatement, values: impl SerializeRow + Send + Sync + 'a) {
        self.statements.push(statement);
        self.values.push(Box::new(values));
    }
}

/// How often a write is tried whose connection breaks.
const TRIES: usize = 2;

pub(super) struct Db {
    session: Session,
    pub(super) statements: Statements,
}

impl Db {
    pub(super) async fn new(session: Session) -> Result<Self, PrepareError> {
        let statements = Statements::prepare(&session).await?;
        Ok(Self { session, statements })
    }

    /// All rows, read page by page.
    pub(super) async fn rows<R>(&self, statement: &PreparedStatement, values: impl SerializeRow) -> Result<Vec<R>>
    where
        R: for<'a> DeserializeRow<'a, 'a>,
    {
        let mut rows = Vec::new();
        let mut state = PagingState::start();
        loop {
            let page = self.session.execute_single_page(statement, &values, state).await;
            let (result, next) = page.map_err(fail::read)?;
            let result = result.into_rows_result().map_err(corrupt)?;
            for row in result.rows::<R>().map_err(corrupt)? {
                rows.push(row.map_err(corrupt)?);
            }
            match next {
                PagingStateResponse::HasMorePages { state: next } => state = next,
                PagingStateResponse::NoMorePages => return Ok(rows),
            }
        }
    }

    /// The first row, if there is one.
    pub(super) async fn one<R>(&self, statement: &PreparedStatement, values: impl SerializeRow) -> Result<Option<R>>
    where
        R: for<'a> DeserializeRow<'a, 'a>,
    {
        Ok(self.rows(statement, values).await?.into_iter().next())
    }

    /// All or nothing, as of a time in microseconds: doing it again changes nothing, and neither does doing it late.
    pub(super) async fn write(&self, at: u64, write: Write<'_>) -> Result<()> {
        let mut batch = Batch::new(BatchType::Logged);
        for statement in write.statements {
            batch.append_statement(statement.clone());
        }
        batch.set_timestamp(Some(i64::try_from(at).unwrap_or(i64::MAX)));
        batch.set_is_idempotent(true);
        batch.set_retry_policy(Some(Arc::new(FallthroughRetryPolicy::new())));
        let mut tries = 1;
        let mut unknown = None;
        loop {
            let Err(error) = self.session.batch(&batch, &write.values).await else { return Ok(()) };
            let again = fail::is_cut(&error) && tries < TRIES;
            match fail::write(error) {
                Error::Unknown(source) if again => unknown = Some(source),
                // What is known of the last try says nothing about the first.
                error => return Err(unknown.map_or(error, Error::Unknown)),
            }
            tries += 1;
        }
    }

    /// A lightweight transaction.
    pub(super) async fn lwt(&self, statement: &PreparedStatement, values: impl SerializeRow) -> Result<Lwt> {
        decided(self.session.execute_unpaged(statement, values).await)
    }

    /// One whose condition, that of the first statement, goes for a second one of the same partition too.
    pub(super) async fn lwt_of_two(
        &self,
        first: (&PreparedStatement, impl SerializeRow),
        second: (&PreparedStatement, impl SerializeRow),
    ) -> Result<Lwt> {
        // Of one partition: it needs no log of batches.
        let mut batch = Batch::new(BatchType::Unlogged);
        batch.append_statement(first.0.clone());
        batch.append_statement(second.0.clone());
        batch.set_retry_policy(Some(Arc::new(FallthroughRetryPolicy::new())));
        decided(self.session.batch(&batch, (first.1, second.1)).await)
    }
}

fn decided(answer: Result<QueryResult, ExecutionError>) -> Result<Lwt> {
    let result = match answer.map_err(fail::write) {
        Ok(result) => result,
        Err(Error::Unknown(source)) => return Ok(Lwt::Unknown(source)),
        Err(error) => return Err(error),
    };
    Ok(if applied(result)? { Lwt::Applied } else { Lwt::Not })
}

/// Only the first column is the same in all databases.
pub(super) fn applied(result: QueryResult) -> Result<bool> {
    let result = result.into_rows_result().map_err(corrupt)?;
    let row: Row = result.first_row().map_err(corrupt)?;
    match row.columns.first() {
        Some(Some(CqlValue::Boolean(applied))) => Ok(*applied),
        _ => Err(Error::Corrupt("a lightweight transaction did not say whether it was applied".into())),
    }
}

/// An answer that is not what was asked for.
pub(super) fn corrupt(error: impl Into<Source>) -> Error {
    Error::Corrupt(error.into())
}
