//! The repositories, the log and the ids, on the writer and the readers.

use std::time::Duration;

use async_trait::async_trait;
use jiscord_core::{
    ChannelId, Event, GuildId, MessageId, Position, Timestamp, UserId,
    backend::{Login, Membership, Revoked},
    event::{EventLog, Logged},
    fault,
    mint::IdSource,
    model::{Channel, Guild, Member, Message},
    text::Email,
};
use rusqlite::{Connection, ErrorCode, OptionalExtension, Params, Row};
use uuid::Uuid;

use super::{SqliteStore, fail::Fail, rows, writer::Write};
use crate::{
    draft::{self, NONCE_KEPT_MICROS},
    error::{Error, Result},
    repository::{
        Account, Channels, Created, Guilds, LOGIN_KEPT, Logins, Members, Messages, NewChannel, NewGuild, NewLogin, NewMessage,
        NewUser, REVOCATION_KEPT, Refreshed, Removed, Tell, Users,
    },
};

/// One row, if there is one.
fn one<T>(
    db: &Connection,
    sql: &str,
    params: impl Params,
    read: fn(&Row<'_>) -> rusqlite::Result<T>,
) -> rusqlite::Result<Option<T>> {
    db.prepare_cached(sql)?.query_row(params, read).optional()
}

/// All rows, in the statement's order.
fn all<T>(db: &Connection, sql: &str, params: impl Params, read: fn(&Row<'_>) -> rusqlite::Result<T>) -> Result<Vec<T>, Fail> {
    Ok(db.prepare_cached(sql)?.query_map(params, read)?.collect::<rusqlite::Result<_>>()?)
}

/// SQLite counts with a sign.
fn limit(limit: usize) -> i64 {
    i64::try_from(limit).unwrap_or(i64::MAX)
}

#[async_trait]
impl Users for SqliteStore {
    async fn create(&self, new: NewUser) -> Result<Account> {
        self.write(move |write| {
            let account = new.row(write.mint());
            let user = &account.user;
            let inserted = write
                .db
                .prepare_cached(&format!("INSERT INTO users ({}) VALUES (?1, ?2, ?3, ?4, ?5)", rows::ACCOUNT))?
                .execute((
                    user.user_id.uuid(),
                    &user.username,
                    &user.email,
                    &account.password_hash,
                    user.created_at.map(Timestamp::ms),
                ));
            match inserted {
                Err(error) if is_unique(&error) => Err(Error::Taken("email").into()),
                other => Ok(other.map(|_| account)?),
            }
        })
        .await
    }

    async fn get_many(&self, ids: &[UserId]) -> Result<Vec<Account>> {
        let mut ids = ids.to_vec();
        ids.sort_unstable();
        ids.dedup();
        self.read(move |db| {
            let sql = format!("SELECT {} FROM users WHERE user_id = ?1", rows::ACCOUNT);
            let found = ids.iter().filter_map(|id| one(db, &sql, [id.uuid()], rows::account).transpose());
            Ok(found.collect::<rusqlite::Result<_>>()?)
        })
        .await
    }

    async fn by_email(&self, email: &Email) -> Result<Option<Account>> {
        let email = email.clone();
        self.read(move |db| {
            let sql = format!("SELECT {} FROM users WHERE email = ?1", rows::ACCOUNT);
            Ok(one(db, &sql, [email.as_str()], rows::account)?)
        })
        .await
    }
}

/// Whether a UNIQUE rule other than the primary key's refused it.
fn is_unique(error: &rusqlite::Error) -> bool {
    error.sqlite_error_code() == Some(ErrorCode::ConstraintViolation)
        && error.sqlite_extended_error_code() == Some(rusqlite::ffi::SQLITE_CONSTRAINT_UNIQUE)
}

fn get_message(db: &Connection, channel: ChannelId, id: MessageId) -> rusqlite::Result<Option<Message>> {
    let sql = format!("SELECT {} FROM messages WHERE channel_id = ?1 AND key = ?2", rows::MESSAGE);
    // Ids that are not of version 1 share a sort key.
    Ok(one(db, &sql, (channel.uuid(), id.sort_key()), rows::message)?.filter(|row| row.message_id == id))
}

impl Write<'_> {
    /// What was stored under this nonce before.
    fn repeat_of(&mut self, new: &NewMessage, tell: &Tell<Message>) -> Result<Option<Created<Message>>, Fail> {
        let Some(nonce) = &new.nonce else { return Ok(None) };
        let claim = self
            .db
            .prepare_cached(
                "SELECT body_hash, key FROM message_nonces
                 WHERE author_id = ?1 AND channel_id = ?2 AND nonce = ?3 AND expires > ?4",
            )?
            .query_row((new.author_id.uuid(), new.channel_id.uuid(), nonce.as_str(), self.now), |row| {
                Ok((row.get::<_, [u8; 32]>("body_hash")?, rows::message_id(row, "key")?))
            })
            .optional()?;
        let Some((body_hash, id)) = claim else { return Ok(None) };
        if body_hash != new.body_hash() {
            return Err(Error::NonceReused.into());
        }
        Ok(Some(match get_message(self.db, new.channel_id, id)? {
            Some(row) => {
                let events = tell(&row);
                Created::new(row, events, true)
            }
            // It was stored and is gone: it stays gone, and its id is said once more. The hash says what it was.
            None => Created::new(new.row(id), Vec::new(), true),
        }))
    }

    fn insert_message(&self, row: &Message) -> rusqlite::Result<usize> {
        self.db.prepare_cached(&format!("INSERT INTO messages ({}) VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7)", rows::MESSAGE))?.execute(
            (
                row.channel_id.uuid(),
                row.message_id.sort_key(),
                row.author_id.uuid(),
                &row.content,
                row.created_at.ms(),
                row.rev,
                row.reply_to.map(MessageId::uuid),
            ),
        )
    }

    fn insert_member(&self, row: &Member) -> rusqlite::Result<usize> {
        self.db.prepare_cached(&format!("INSERT INTO guild_members ({}) VALUES (?1, ?2, ?3, ?4)", rows::MEMBER))?.execute((
            row.guild_id.uuid(),
            row.user_id.uuid(),
            row.joined_at.ms(),
            row.rev,
        ))
    }
}

#[async_trait]
impl Messages for SqliteStore {
    async fn create(&self, new: NewMessage, tell: Tell<Message>) -> Result<Created<Message>> {
        self.write(move |write| {
            if let Some(repeat) = write.repeat_of(&new, &tell)? {
                return Ok(repeat);
            }
            let row = new.row(MessageId::new(write.mint()));
            write.insert_message(&row)?;
            if let Some(nonce) = &new.nonce {
                let expires = write.now.saturating_add(NONCE_KEPT_MICROS);
                // One that has expired may not be trimmed yet.
                write
                    .db
                    .prepare_cached(
                        "INSERT OR REPLACE INTO message_nonces (author_id, channel_id, nonce, body_hash, key, expires)
                         VALUES (?1, ?2, ?3, ?4, ?5, ?6)",
                    )?
                    .execute((
                        new.author_id.uuid(),
                        new.channel_id.uuid(),
                        nonce.as_str(),
                        new.body_hash(),
                        row.message_id.sort_key(),
                        expires,
                    ))?;
            }
            write.created(row, &tell)
        })
        .await
    }

    async fn page_before(&self, channel: ChannelId, before: Option<MessageId>, most: usize) -> Result<Vec<Message>> {
        self.read(move |db| {
            let sql =
                format!("SELECT {} FROM messages WHERE channel_id = ?1 AND key < ?2 ORDER BY key DESC LIMIT ?3", rows::MESSAGE);
            // No key is as high as this one: the first four of its bits are always 0.
            let before = before.map_or([0xff; 16], MessageId::sort_key);
            all(db, &sql, (channel.uuid(), before, limit(most)), rows::message)
        })
        .await
    }

    async fn page_after(&self, channel: ChannelId, after: MessageId, most: usize) -> Result<Vec<Message>> {
        self.read(move |db| {
            let sql = format!("SELECT {} FROM messages WHERE channel_id = ?1 AND key > ?2 ORDER BY key LIMIT ?3", rows::MESSAGE);
            all(db, &sql, (channel.uuid(), after.sort_key(), limit(most)), rows::message)
        })
        .await
    }

    async fn get(&self, channel: ChannelId, id: MessageId) -> Result<Option<Message>> {
        self.read(move |db| Ok(get_message(db, channel, id)?)).await
    }
}

#[async_trait]
impl Guilds for SqliteStore {
    async fn create(&self, new: NewGuild, tell: Tell<Guild>) -> Result<Created<Guild>> {
        self.write(move |write| {
            let (owner, visibility) = (new.owner_id, new.visibility);
            let row = new.row(write.mint());
            write.db.prepare_cached(&format!("INSERT INTO guilds ({}) VALUES (?1, ?2, ?3, ?4, ?5, ?6)", rows::GUILD))?.execute(
                (row.guild_id.uuid(), &row.name, owner.uuid(), rows::visibility(visibility), row.created_at.ms(), row.rev),
            )?;
            write.insert_member(&draft::member(row.guild_id, owner, row.created_at, row.rev))?;
            write.created(row, &tell)
        })
        .await
    }

    async fn get(&self, id: GuildId) -> Result<Option<Guild>> {
        self.read(move |db| {
            let sql = format!("SELECT {} FROM guilds WHERE guild_id = ?1", rows::GUILD);
            Ok(one(db, &sql, [id.uuid()], rows::guild)?)
        })
        .await
    }

    async fn public(&self, after: Option<GuildId>, most: usize) -> Result<Vec<Guild>> {
        self.read(move |db| {
            let sql = format!(
                "SELECT {} FROM guilds WHERE visibility = 'public' AND guild_id > ?1 ORDER BY guild_id LIMIT ?2",
                rows::GUILD
            );
            // The empty blob is below every id.
            let after = after.map_or(Vec::new(), |id| id.uuid().as_bytes().to_vec());
            all(db, &sql, (after, limit(most)), rows::guild)
        })
        .await
    }
}

fn get_member(db: &Connection, guild: GuildId, user: UserId) -> rusqlite::Result<Option<Member>> {
    let sql = format!("SELECT {} FROM guild_members WHERE guild_id = ?1 AND user_id = ?2", rows::MEMBER);
    one(db, &sql, (guild.uuid(), user.uuid()), rows::member)
}

#[async_trait]
impl Members for SqliteStore {
    async fn add(&self, guild: GuildId, user: UserId, tell: Tell<Member>) -> Result<Created<Member>> {
        self.write(move |write| {
            if let Some(row) = get_member(write.db, guild, user)? {
                return Ok(Created::new(row, Vec::new(), true));
            }
            let joined_at = Timestamp::from_ms((write.now / 1000) as i64);
            let row = draft::member(guild, user, joined_at, write.rev_above(0));
            write.insert_member(&row)?;
            write.created(row, &tell)
        })
        .await
    }

    async fn remove(&self, guild: GuildId, user: UserId, tell: Tell<Removed>) -> Result<Option<Vec<Event>>> {
        self.write(move |write| {
            let Some(row) = get_member(write.db, guild, user)? else { return Ok(None) };
            write
                .db
                .prepare_cached("DELETE FROM guild_members WHERE guild_id = ?1 AND user_id = ?2")?
                .execute((guild.uuid(), user.uuid()))?;
            let removed = Removed::new(guild, user, write.rev_above(row.rev));
            Ok(Some(write.created(removed, &tell)?.events))
        })
        .await
    }

    async fn get(&self, guild: GuildId, user: UserId) -> Result<Option<Member>> {
        self.read(move |db| Ok(get_member(db, guild, user)?)).await
    }

    async fn of_user(&self, user: UserId) -> Result<Vec<Membership>> {
        self.read(move |db| {
            all(
                db,
                "SELECT g.*, m.rev AS member_rev FROM guild_members m JOIN guilds g USING (guild_id)
                 WHERE m.user_id = ?1 ORDER BY m.guild_id",
                [user.uuid()],
                |row| Ok(Membership::new(rows::guild(row)?, row.get("member_rev")?)),
            )
        })
        .await
    }
}

#[async_trait]
impl Channels for SqliteStore {
    async fn create(&self, new: NewChannel, tell: Tell<Channel>) -> Result<Created<Channel>> {
        self.write(move |write| {
            let row = new.row(write.mint());
            write
                .db
                .prepare_cached(&format!("INSERT INTO channels ({}) VALUES (?1, ?2, ?3, ?4, ?5)", rows::CHANNEL))?
                .execute((row.channel_id.uuid(), row.guild_id.uuid(), &row.name, row.created_at.ms(), row.rev))?;
            write.created(row, &tell)
        })
        .await
    }

    async fn get(&self, id: ChannelId) -> Result<Option<Channel>> {
        self.read(move |db| {
            let sql = format!("SELECT {} FROM channels WHERE channel_id = ?1", rows::CHANNEL);
            Ok(one(db, &sql, [id.uuid()], rows::channel)?)
        })
        .await
    }

    async fn of_guild(&self, guild: GuildId) -> Result<Vec<Channel>> {
        self.read(move |db| {
            let sql = format!(
                "SELECT {}, (SELECT max(key) FROM messages WHERE messages.channel_id = channels.channel_id) AS last
                 FROM channels WHERE guild_id = ?1",
                rows::CHANNEL
            );
            let mut channels = all(db, &sql, [guild.uuid()], |row| {
                let last = row.get::<_, Option<[u8; 16]>>("last")?;
                Ok(Channel { last_message_id: last.and_then(MessageId::from_sort_key), ..rows::channel(row)? })
            })?;
            draft::sort_by_creation(&mut channels);
            Ok(channels)
        })
        .await
    }
}

fn is_revoked(db: &Connection, user: UserId, login: Login) -> rusqlite::Result<bool> {
    let sql = "SELECT EXISTS (SELECT 1 FROM revocations WHERE user_id = ?1 AND login_id = ?2)
        OR EXISTS (SELECT 1 FROM revocations WHERE user_id = ?1 AND login_id = x'' AND issued_by >= ?3)";
    db.prepare_cached(sql)?.query_row((user.uuid(), login.id, login.issued_at), |row| row.get(0))
}

fn micros(time: Duration) -> u64 {
    u64::try_from(time.as_micros()).unwrap_or(u64::MAX)
}

#[async_trait]
impl Logins for SqliteStore {
    async fn begin(&self, new: NewLogin) -> Result<()> {
        self.write(move |write| {
            let NewLogin { login_id, user_id, begun } = new;
            write
                .db
                .prepare_cached(
                    "INSERT OR IGNORE INTO logins (login_id, user_id, begun, generation, rotated, expires)
                     VALUES (?1, ?2, ?3, 0, ?4, ?5)",
                )?
                .execute((login_id, user_id.uuid(), begun, write.now, write.now.saturating_add(micros(LOGIN_KEPT))))?;
            Ok(())
        })
        .await
    }

    async fn refresh(&self, id: Uuid, shown: u64) -> Result<Refreshed> {
        self.write(move |write| {
            let sql = "SELECT user_id, begun, generation, rotated FROM logins WHERE login_id = ?1 AND expires > ?2";
            let login = write
                .db
                .prepare_cached(sql)?
                .query_row((id, write.now), |row| {
                    Ok((UserId::new(row.get(0)?), row.get::<_, u64>(1)?, row.get::<_, u64>(2)?, row.get::<_, u64>(3)?))
                })
                .optional()?;
            let Some((user, begun, valid, rotated)) = login else { return Ok(Refreshed::Gone) };
            if is_revoked(write.db, user, Login::new(id, begun))? {
                return Ok(Refreshed::Gone);
            }
            let rotated = Duration::from_micros(write.now.saturating_sub(rotated));
            let refreshed = Refreshed::of(user, begun, valid, rotated, shown);
            if let Refreshed::Current { generation, .. } = refreshed
                && generation > valid
            {
                write
                    .db
                    .prepare_cached("UPDATE logins SET generation = ?2, rotated = ?3, expires = ?4 WHERE login_id = ?1")?
                    .execute((id, generation, write.now, write.now.saturating_add(micros(LOGIN_KEPT))))?;
            }
            Ok(refreshed)
        })
        .await
    }

    async fn revoke(&self, user: UserId, what: Revoked, tell: Tell<Revoked>) -> Result<Vec<Event>> {
        self.write(move |write| {
            let (login, issued_by) = match what {
                Revoked::Login(id) => (id.as_bytes().to_vec(), None),
                Revoked::IssuedBy(second) => (Vec::new(), Some(second)),
            };
            write.db.prepare_cached("DELETE FROM logins WHERE login_id = ?1 AND user_id = ?2")?.execute((&login, user.uuid()))?;
            write
                .db
                .prepare_cached(
                    "INSERT INTO revocations (user_id, login_id, issued_by, expires) VALUES (?1, ?2, ?3, ?4)
                     ON CONFLICT (user_id, login_id) DO UPDATE
                     SET issued_by = max(issued_by, excluded.issued_by), expires = max(expires, excluded.expires)",
                )?
                .execute((user.uuid(), &login, issued_by, write.now.saturating_add(micros(REVOCATION_KEPT))))?;
            Ok(write.created(what, &tell)?.events)
        })
        .await
    }

    async fn is_revoked(&self, user: UserId, login: Login) -> Result<bool> {
        self.read(move |db| Ok(is_revoked(db, user, login)?)).await
    }
}

#[async_trait]
impl EventLog for SqliteStore {
    fn epoch(&self) -> &str {
        &self.epoch
    }

    async fn head(&self) -> fault::Result<Position> {
        Ok(*self.head.borrow())
    }

    async fn floor(&self) -> fault::Result<Position> {
        // From the database: read after a page of events, it names all that this page may lack.
        let floor = self.read(|db| Ok(one(db, "SELECT floor FROM log", [], |row| row.get(0))?)).await?;
        Ok(Position(floor.unwrap_or_default()))
    }

    async fn append(&self, events: Vec<Event>) -> fault::Result<()> {
        Ok(self.write(move |write| Ok(write.keep(&events)?)).await?)
    }

    async fn read_after(&self, after: Position, most: usize) -> fault::Result<Vec<Logged>> {
        let read = self.read(move |db| {
            let sql = format!("SELECT {} FROM events WHERE p > ?1 ORDER BY p LIMIT ?2", rows::EVENT);
            let after = i64::try_from(after.0).unwrap_or(i64::MAX);
            all(db, &sql, (after, limit(most)), rows::logged)
        });
        Ok(read.await?)
    }

    async fn wait_past(&self, after: Position) {
        // It cannot fail: a sender lives as long as the store.
        let _ = self.head.subscribe().wait_for(|head| *head > after).await;
    }
}

impl IdSource for SqliteStore {
    /// These grow over restarts too, as far as anybody can tell: an id that came into the database had its millisecond
    /// written with it, and one that did not is known to nobody after the restart.
    fn next(&self) -> Uuid {
        self.minter.next()
    }
}
