//! The repositories.

use std::{sync::PoisonError, time::Duration};

use async_trait::async_trait;
use jiscord_core::{
    ChannelId, Event, GuildId, MessageId, Timestamp, UserId,
    backend::{Login, Membership, Revoked},
    model::{Channel, Guild, Member, Message, Rev, Visibility},
    text::Email,
};
use scylla::value::{CqlTimestamp, CqlTimeuuid, MaybeUnset};
use uuid::Uuid;

use super::{
    ScyllaStore,
    coalesce::IN_AT_MOST,
    db::{Lwt, Write},
    nonces::Key,
    rows::{self, ChannelRow, GuildRow, MemberRow, MessageRow, bigint, timestamp, timeuuid},
};
use crate::{
    draft::{self, guarded},
    error::{Error, Result},
    repository::{
        Account, Channels, Created, Guilds, LOGIN_KEPT, Logins, Members, Messages, NewChannel, NewGuild, NewLogin, NewMessage,
        NewUser, REVOCATION_KEPT, Refreshed, Removed, Tell, Users,
    },
};

/// How often a lightweight transaction is tried of which nobody knows what became.
pub(super) const TRIES: usize = 3;
/// How long a membership's last `rev` is kept, in seconds: a day, and two hours more.
const ENDED_KEPT: i32 = 26 * 3_600;

/// Asks what to tell about a row, before anything is written.
pub(super) fn told<T>(tell: &Tell<T>, row: &T) -> Result<Vec<Event>> {
    guarded(|| Ok(tell(row)))
}

/// CQL counts with a sign.
fn limit(limit: usize) -> i32 {
    i32::try_from(limit).unwrap_or(i32::MAX)
}

fn all<T: TryFrom<R, Error = Error>, R>(rows: Vec<R>) -> Result<Vec<T>> {
    rows.into_iter().map(T::try_from).collect()
}

impl ScyllaStore {
    /// A change's `rev`: above an older version's.
    fn rev_above(&self, rev: Rev) -> Rev {
        let now = self.clock.now_micros();
        self.ticks.lock().unwrap_or_else(PoisonError::into_inner).above(rev, now)
    }
}

#[async_trait]
impl Users for ScyllaStore {
    async fn create(&self, new: NewUser) -> Result<Account> {
        let statements = &self.db.statements;
        let account = new.row(self.lease.mint()?);
        let user = &account.user;
        let (id, email) = (user.user_id.uuid(), user.email.as_deref().unwrap_or_default());
        let born = user.user_id.micros().unwrap_or_default();

        // The row first: an address never leads to nobody. If we end here, the row is found by nobody.
        let mut write = Write::default();
        let created_at = user.created_at.map(timestamp);
        write.add(&statements.insert_user, (id, &user.username, email, &account.password_hash, created_at));
        self.db.write(born, write).await?;

        if self.claim_email(email, id).await? {
            return Ok(account);
        }
        let mut write = Write::default();
        write.add(&statements.delete_user, (id,));
        // If it stays, nobody finds it.
        if let Err(error) = self.db.write(self.rev_above(born), write).await {
            tracing::debug!(%error, "a user's row without an address is left");
        }
        Err(Error::Taken("email"))
    }

    async fn get_many(&self, ids: &[UserId]) -> Result<Vec<Account>> {
        self.users.get(ids).await
    }

    async fn by_email(&self, email: &Email) -> Result<Option<Account>> {
        let owner: Option<(Uuid,)> = self.db.one(&self.db.statements.email, (email.as_str(),)).await?;
        let Some((id,)) = owner else { return Ok(None) };
        Users::get(self, UserId::new(id)).await
    }
}

impl ScyllaStore {
    /// Whether the address is this user's now.
    async fn claim_email(&self, email: &str, user: Uuid) -> Result<bool> {
        let statements = &self.db.statements;
        let mut last = None;
        for _ in 0..TRIES {
            match self.db.lwt(&statements.claim_email, (email, user)).await {
                Ok(Lwt::Applied) => return Ok(true),
                Ok(Lwt::Not) => {}
                Ok(Lwt::Unknown(source)) => last = Some(source),
                // What is known of this try says nothing about the first.
                Err(error) => return Err(last.map_or(error, Error::Unknown)),
            }
            let owner = self.db.one::<(Uuid,)>(&statements.email_decided, (email,)).await;
            match owner {
                Ok(Some((owner,))) => return Ok(owner == user),
                // It was not done, and is not under way any more: once more.
                Ok(None) => {}
                Err(error) => return Err(last.map_or(error, Error::Unknown)),
            }
        }
        Err(Error::Unknown(last.unwrap_or_else(|| "an address is claimed by nobody".into())))
    }

    pub(super) async fn message(&self, channel: ChannelId, id: MessageId) -> Result<Option<Message>> {
        if !id.is_ordered() {
            return Ok(None);
        }
        let row: Option<MessageRow> = self.db.one(&self.db.statements.message, (channel.uuid(), timeuuid(id))).await?;
        row.map(Message::try_from).transpose()
    }

    pub(super) async fn write_message(&self, row: &Message, events: &[Event], nonce: Option<Key<'_>>) -> Result<()> {
        let born = row.message_id.micros().unwrap_or_default();
        let mut write = Write::default();
        write.add(
            &self.db.statements.insert_message,
            (
                row.channel_id.uuid(),
                timeuuid(row.message_id),
                row.author_id.uuid(),
                &row.content,
                timestamp(row.created_at),
                bigint(row.rev),
                row.reply_to.map(MessageId::uuid),
            ),
        );
        self.keep(&mut write, events, nonce.map(|key| (key, row.message_id)))?;
        #[cfg(feature = "failpoints")]
        fail::fail_point!("store.before_commit", |_| std::process::abort());
        self.db.write(born, write).await?;
        #[cfg(feature = "failpoints")]
        fail::fail_point!("store.after_commit", |_| std::process::abort());
        // Whoever reads a channel again after a gap begins this much before its last message: what comes later than that
        // must not be called there.
        if self.age(row.message_id) > self.acknowledge {
            return Err(Error::Unknown("written too long after its id was minted".into()));
        }
        Ok(())
    }

    async fn newest_messages(&self, channel: ChannelId, most: usize) -> Result<Vec<Message>> {
        let values = (channel.uuid(), limit(most));
        all(self.db.rows::<MessageRow>(&self.db.statements.newest_messages, values).await?)
    }
}

#[async_trait]
impl Messages for ScyllaStore {
    async fn create(&self, new: NewMessage, tell: Tell<Message>) -> Result<Created<Message>> {
        if let Some(nonce) = &new.nonce {
            return self.create_once(&new, nonce, &tell).await;
        }
        let row = new.row(MessageId::new(self.lease.mint()?));
        let events = told(&tell, &row)?;
        self.write_message(&row, &events, None).await?;
        Ok(Created::new(row, events, false))
    }

    async fn page_before(&self, channel: ChannelId, before: Option<MessageId>, most: usize) -> Result<Vec<Message>> {
        match before {
            _ if most == 0 => Ok(Vec::new()),
            None => self.first_pages.get(channel, most, self.newest_messages(channel, most)).await,
            Some(before) if before.is_ordered() => {
                let values = (channel.uuid(), timeuuid(before), limit(most));
                all(self.db.rows::<MessageRow>(&self.db.statements.messages_before, values).await?)
            }
            // It sorts before all messages.
            Some(_) => Ok(Vec::new()),
        }
    }

    async fn page_after(&self, channel: ChannelId, after: MessageId, most: usize) -> Result<Vec<Message>> {
        let statements = &self.db.statements;
        let rows: Vec<MessageRow> = if most == 0 {
            Vec::new()
        } else if after.is_ordered() {
            self.db.rows(&statements.messages_after, (channel.uuid(), timeuuid(after), limit(most))).await?
        } else {
            self.db.rows(&statements.oldest_messages, (channel.uuid(), limit(most))).await?
        };
        all(rows)
    }

    async fn get(&self, channel: ChannelId, id: MessageId) -> Result<Option<Message>> {
        self.message(channel, id).await
    }
}

impl ScyllaStore {
    /// Guilds by id, in any order.
    async fn guilds(&self, ids: &[Uuid]) -> Result<Vec<Guild>> {
        let mut guilds = Vec::new();
        for ids in ids.chunks(IN_AT_MOST) {
            let rows: Vec<GuildRow> = self.db.rows(&self.db.statements.guilds, (ids,)).await?;
            guilds.extend(all::<Guild, _>(rows)?);
        }
        Ok(guilds)
    }

    fn add_member<'a>(&'a self, write: &mut Write<'a>, row: &Member) {
        let (guild, user) = (row.guild_id.uuid(), row.user_id.uuid());
        let statements = &self.db.statements;
        write.add(&statements.insert_member, (guild, user, timestamp(row.joined_at), bigint(row.rev)));
        write.add(&statements.insert_user_guild, (user, guild, bigint(row.rev)));
    }

    async fn member_row(&self, guild: GuildId, user: UserId) -> Result<Option<MemberRow>> {
        self.db.one(&self.db.statements.member, (guild.uuid(), user.uuid())).await
    }
}

/// The membership, and the last `rev` that anything had here.
fn current(guild: GuildId, user: UserId, row: Option<MemberRow>) -> Result<(Option<Member>, Rev)> {
    let Some(row) = row else { return Ok((None, 0)) };
    let rev = rows::rev(row.rev)?;
    let member = row.joined_at.map(|at| draft::member(guild, user, Timestamp::from_ms(at.0), rev));
    Ok((member, rev))
}

#[async_trait]
impl Guilds for ScyllaStore {
    async fn create(&self, new: NewGuild, tell: Tell<Guild>) -> Result<Created<Guild>> {
        let statements = &self.db.statements;
        let (owner, visibility) = (new.owner_id, new.visibility);
        let row = new.row(self.lease.mint()?);
        let events = told(&tell, &row)?;
        let id = row.guild_id.uuid();
        let mut write = Write::default();
        write.add(
            &statements.insert_guild,
            (id, &row.name, owner.uuid(), rows::visibility(visibility), timestamp(row.created_at), bigint(row.rev)),
        );
        if visibility == Visibility::Public {
            write.add(&statements.insert_public_guild, (id,));
        }
        self.add_member(&mut write, &draft::member(row.guild_id, owner, row.created_at, row.rev));
        self.keep(&mut write, &events, None)?;
        self.db.write(row.rev, write).await?;
        Ok(Created::new(row, events, false))
    }

    async fn get(&self, id: GuildId) -> Result<Option<Guild>> {
        Ok(self.guilds(&[id.uuid()]).await?.pop())
    }

    async fn public(&self, after: Option<GuildId>, most: usize) -> Result<Vec<Guild>> {
        let statements = &self.db.statements;
        let (mut page, mut after) = (Vec::new(), after.map(GuildId::uuid));
        while page.len() < most {
            let room = limit(most - page.len());
            let ids: Vec<(Uuid,)> = match after {
                Some(after) => self.db.rows(&statements.public_guilds_after, (after, room)).await?,
                None => self.db.rows(&statements.first_public_guilds, (room,)).await?,
            };
            let Some((last,)) = ids.last() else { break };
            after = Some(*last);
            let ids: Vec<_> = ids.into_iter().map(|(id,)| id).collect();
            let mut guilds = self.guilds(&ids).await?;
            guilds.retain(|guild| guild.visibility == Some(Visibility::Public));
            let place = |guild: &Guild| ids.iter().position(|id| *id == guild.guild_id.uuid());
            guilds.sort_by_cached_key(place);
            page.append(&mut guilds);
        }
        Ok(page)
    }
}

#[async_trait]
impl Members for ScyllaStore {
    async fn add(&self, guild: GuildId, user: UserId, tell: Tell<Member>) -> Result<Created<Member>> {
        // Two at once in this process are one after the other. In two processes both may write and tell: the same
        // membership twice, and the higher `rev` holds everywhere.
        let changing = self.changing.hold((guild, user));
        let _alone = changing.lock().await;
        let (member, rev) = current(guild, user, self.member_row(guild, user).await?)?;
        if let Some(row) = member {
            return Ok(Created::new(row, Vec::new(), true));
        }
        let row = draft::member(guild, user, self.clock.now(), self.rev_above(rev));
        let events = told(&tell, &row)?;
        let mut write = Write::default();
        self.add_member(&mut write, &row);
        self.keep(&mut write, &events, None)?;
        self.db.write(row.rev, write).await?;
        Ok(Created::new(row, events, false))
    }

    async fn remove(&self, guild: GuildId, user: UserId, tell: Tell<Removed>) -> Result<Option<Vec<Event>>> {
        let changing = self.changing.hold((guild, user));
        let _alone = changing.lock().await;
        let (member, rev) = current(guild, user, self.member_row(guild, user).await?)?;
        if member.is_none() {
            return Ok(None);
        }
        let removed = Removed::new(guild, user, self.rev_above(rev));
        let events = told(&tell, &removed)?;
        let statements = &self.db.statements;
        let mut write = Write::default();
        write.add(&statements.end_member, (guild.uuid(), user.uuid(), bigint(removed.rev), ENDED_KEPT));
        write.add(&statements.delete_user_guild, (user.uuid(), guild.uuid()));
        self.keep(&mut write, &events, None)?;
        self.db.write(removed.rev, write).await?;
        Ok(Some(events))
    }

    async fn get(&self, guild: GuildId, user: UserId) -> Result<Option<Member>> {
        Ok(current(guild, user, self.member_row(guild, user).await?)?.0)
    }

    async fn of_user(&self, user: UserId) -> Result<Vec<Membership>> {
        let mut memberships: Vec<(Uuid, i64)> = self.db.rows(&self.db.statements.user_guilds, (user.uuid(),)).await?;
        // The order of bytes, which is not CQL's.
        memberships.sort_unstable();
        let ids: Vec<_> = memberships.iter().map(|(id, _)| *id).collect();
        let mut guilds = self.guilds(&ids).await?;
        guilds.sort_by_key(|guild| guild.guild_id);
        let found = memberships.into_iter().filter_map(|(id, rev)| {
            let at = guilds.binary_search_by_key(&GuildId::new(id), |guild| guild.guild_id).ok()?;
            Some(rows::rev(rev).map(|rev| Membership::new(guilds[at].clone(), rev)))
        });
        found.collect()
    }
}

#[async_trait]
impl Channels for ScyllaStore {
    async fn create(&self, new: NewChannel, tell: Tell<Channel>) -> Result<Created<Channel>> {
        let statements = &self.db.statements;
        let row = new.row(self.lease.mint()?);
        let events = told(&tell, &row)?;
        let (guild, channel, created_at) = (row.guild_id.uuid(), row.channel_id.uuid(), timestamp(row.created_at));
        let mut write = Write::default();
        for statement in [&statements.insert_channel, &statements.insert_channel_by_id] {
            write.add(statement, (guild, channel, &row.name, created_at, bigint(row.rev)));
        }
        self.keep(&mut write, &events, None)?;
        self.db.write(row.rev, write).await?;
        Ok(Created::new(row, events, false))
    }

    async fn get(&self, id: ChannelId) -> Result<Option<Channel>> {
        let row: Option<ChannelRow> = self.db.one(&self.db.statements.channel, (id.uuid(),)).await?;
        row.map(Channel::try_from).transpose()
    }

    async fn of_guild(&self, guild: GuildId) -> Result<Vec<Channel>> {
        let statements = &self.db.statements;
        let rows: Vec<ChannelRow> = self.db.rows(&statements.channels, (guild.uuid(),)).await?;
        let mut channels: Vec<Channel> = all(rows)?;
        for some in channels.chunks_mut(IN_AT_MOST) {
            let ids: Vec<_> = some.iter().map(|channel| channel.channel_id.uuid()).collect();
            let last: Vec<(Uuid, CqlTimeuuid)> = self.db.rows(&statements.last_messages, (ids,)).await?;
            for (id, message) in last {
                if let Some(channel) = some.iter_mut().find(|channel| channel.channel_id.uuid() == id) {
                    channel.last_message_id = Some(MessageId::new(message.into()));
                }
            }
        }
        draft::sort_by_creation(&mut channels);
        Ok(channels)
    }
}

#[async_trait]
impl Logins for ScyllaStore {
    async fn begin(&self, new: NewLogin) -> Result<()> {
        let NewLogin { login_id, user_id, begun } = new;
        let values = (login_id, user_id.uuid(), bigint(begun), timestamp(self.clock.now()), seconds(LOGIN_KEPT));
        match self.db.lwt(&self.db.statements.begin_login, values).await? {
            // Not: by an earlier try.
            Lwt::Applied | Lwt::Not => Ok(()),
            Lwt::Unknown(source) => Err(Error::Unknown(source)),
        }
    }

    async fn refresh(&self, id: Uuid, shown: u64) -> Result<Refreshed> {
        let statements = &self.db.statements;
        for _ in 0..TRIES {
            let row = self.db.one::<(Uuid, i64, i64, CqlTimestamp)>(&statements.login_decided, (id,)).await?;
            let Some((user, begun, valid, rotated)) = row else { return Ok(Refreshed::Gone) };
            let (user_id, begun, valid) = (UserId::new(user), rows::rev(begun)?, rows::rev(valid)?);
            if self.is_revoked(user_id, Login::new(id, begun)).await? {
                return Ok(Refreshed::Gone);
            }
            let now = self.clock.now();
            let ago = Duration::from_millis(u64::try_from(now.ms().saturating_sub(rotated.0)).unwrap_or(0));
            let refreshed = Refreshed::of(user_id, begun, valid, ago, shown);
            match refreshed {
                Refreshed::Current { generation, .. } if generation > valid => {
                    let values =
                        (seconds(LOGIN_KEPT), user, bigint(begun), bigint(generation), timestamp(now), id, bigint(valid));
                    // Otherwise somebody else did it, or nobody knows: what is shown leads to the same when it is looked at again.
                    if matches!(self.db.lwt(&statements.rotate_login, values).await?, Lwt::Applied) {
                        return Ok(refreshed);
                    }
                }
                refreshed => return Ok(refreshed),
            }
        }
        Err(Error::Unknown("a login is refreshed by many at once".into()))
    }

    async fn revoke(&self, user: UserId, what: Revoked, tell: Tell<Revoked>) -> Result<Vec<Event>> {
        let events = told(&tell, &what)?;
        let statements = &self.db.statements;
        let (login, issued_by) = match what {
            // Not null, which would take away what the nil login may say.
            Revoked::Login(id) => (id, MaybeUnset::Unset),
            Revoked::IssuedBy(second) => {
                let nil = Login::new(Uuid::nil(), 0);
                let before = self.revocations(user, nil).await?.into_iter().filter_map(|what| match what {
                    Revoked::IssuedBy(second) => Some(second),
                    Revoked::Login(_) => None,
                });
                (nil.id, MaybeUnset::Set(bigint(before.fold(second, u64::max))))
            }
        };
        let mut write = Write::default();
        write.add(&statements.insert_revocation, (user.uuid(), login, issued_by, seconds(REVOCATION_KEPT)));
        self.keep(&mut write, &events, None)?;
        self.db.write(self.rev_above(0), write).await?;
        if let Revoked::Login(id) = what {
            // The revocation is what counts, for as long as a token is good; without its row the login cannot be refreshed later.
            if let Err(error) = self.db.lwt(&statements.end_login, (id, user.uuid())).await {
                tracing::warn!(%error, "a revoked login's row is left until it expires");
            }
        }
        Ok(events)
    }

    async fn is_revoked(&self, user: UserId, login: Login) -> Result<bool> {
        Ok(self.revocations(user, login).await?.iter().any(|what| what.covers(&login)))
    }
}

impl ScyllaStore {
    /// That of this login, and that of all until a second.
    async fn revocations(&self, user: UserId, login: Login) -> Result<Vec<Revoked>> {
        let values = (user.uuid(), login.id, Uuid::nil());
        let rows: Vec<(Uuid, Option<i64>)> = self.db.rows(&self.db.statements.revocations, values).await?;
        let revoked = rows.into_iter().map(|(id, issued_by)| match issued_by {
            Some(second) => Ok(Revoked::IssuedBy(rows::rev(second)?)),
            None => Ok(Revoked::Login(id)),
        });
        revoked.collect()
    }
}

/// CQL's TTLs are in seconds.
fn seconds(time: Duration) -> i32 {
    i32::try_from(time.as_secs()).unwrap_or(i32::MAX)
}
