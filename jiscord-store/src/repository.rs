//! A small trait an entity. AP-n are the access patterns of `docs/access-patterns.md`.
//!
//! Whoever changes something writes the rows and the events they cause in one go. A method that creates takes a closure
//! ([`Tell`]): the store fixes ids, times and `rev`, asks the closure what to tell about the final row, and keeps row and
//! events in one write. All methods are safe to repeat.

use std::{fmt, sync::Arc, time::Duration};

use async_trait::async_trait;
use jiscord_core::{
    ChannelId, Event, GuildId, MessageId, UserId,
    backend::{Login, Membership, Revoked},
    event::EventLog,
    mint::IdSource,
    model::{Channel, Guild, Member, Message, Rev, User, Visibility},
    text::{Content, Email, Name, Nonce, Username},
};
use uuid::Uuid;

use crate::error::{Error, Result};

/// Says which events a final row causes. Called inside the write, perhaps more than once: it must be quick and do no I/O.
pub type Tell<T> = Arc<dyn Fn(&T) -> Vec<Event> + Send + Sync>;

/// A row was created, or had been by an earlier try.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub struct Created<T> {
    /// The row.
    pub row: T,
    /// What was written with it. For a repeat: the same again where that is known, else none.
    pub events: Vec<Event>,
    /// Nothing was written, since it was there.
    pub repeated: bool,
}

impl<T> Created<T> {
    /// All three.
    pub fn new(row: T, events: Vec<Event>, repeated: bool) -> Self {
        Self { row, events, repeated }
    }
}

/// A user with what only services may see.
#[derive(Clone, PartialEq, Eq)]
pub struct Account {
    /// The user, its address included.
    pub user: User,
    /// The password's hash as a PHC string; none where users log in elsewhere.
    pub password_hash: Option<String>,
}

impl fmt::Debug for Account {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Account").field("user_id", &self.user.user_id).finish_non_exhaustive()
    }
}

/// A user to create.
#[derive(Clone)]
pub struct NewUser {
    /// What it is called.
    pub username: Username,
    /// One account an address.
    pub email: Email,
    /// A PHC string.
    pub password_hash: String,
}

impl fmt::Debug for NewUser {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("NewUser").field("username", &self.username).finish_non_exhaustive()
    }
}

/// Users. An embedder with users of its own implements [`Users::get_many`] and leaves the rest.
#[async_trait]
pub trait Users: Send + Sync {
    /// AP-1: creates a user and claims its address. [`Error::Taken`] if somebody has it.
    async fn create(&self, _new: NewUser) -> Result<Account> {
        Err(Error::Unsupported("creating users"))
    }

    /// AP-2: users by id, in any order; unknown ids are left out.
    async fn get_many(&self, ids: &[UserId]) -> Result<Vec<Account>>;

    /// AP-2 for one.
    async fn get(&self, id: UserId) -> Result<Option<Account>> {
        Ok(self.get_many(&[id]).await?.pop())
    }

    /// AP-3: a user by its address.
    async fn by_email(&self, _email: &Email) -> Result<Option<Account>> {
        Err(Error::Unsupported("looking users up by address"))
    }
}

/// A message to create.
#[derive(Clone, Debug)]
pub struct NewMessage {
    /// Where.
    pub channel_id: ChannelId,
    /// Who.
    pub author_id: UserId,
    /// What.
    pub content: Content,
    /// Which message of the channel it answers.
    pub reply_to: Option<MessageId>,
    /// With one, the same (author, channel, nonce) is stored once within 24 hours.
    pub nonce: Option<Nonce>,
}

/// Messages of a channel. Rows have no author's name and no nonce: the caller adds them.
#[async_trait]
pub trait Messages: Send + Sync {
    /// AP-4: stores it once per nonce, with the events that `tell` makes of the final row. A repeat finds the first one's
    /// row and tells the same events again. [`Error::NonceReused`] if the nonce was used with another content or reply.
    async fn create(&self, new: NewMessage, tell: Tell<Message>) -> Result<Created<Message>>;

    /// AP-5: newest first, `before` itself left out.
    async fn page_before(&self, channel: ChannelId, before: Option<MessageId>, limit: usize) -> Result<Vec<Message>>;

    /// AP-6: oldest first, `after` itself left out.
    async fn page_after(&self, channel: ChannelId, after: MessageId, limit: usize) -> Result<Vec<Message>>;

    /// AP-7: one message.
    async fn get(&self, channel: ChannelId, id: MessageId) -> Result<Option<Message>>;
}

/// A guild to create.
#[derive(Clone, Debug)]
pub struct NewGuild {
    /// What it is called.
    pub name: Name,
    /// Who owns it, and is its first member.
    pub owner_id: UserId,
    /// Who may join.
    pub visibility: Visibility,
}

/// Guilds.
#[async_trait]
pub trait Guilds: Send + Sync {
    /// AP-8: creates a guild with its owner as its first member; the membership's `rev` is the guild's.
    async fn create(&self, new: NewGuild, tell: Tell<Guild>) -> Result<Created<Guild>>;

    /// AP-9: one guild.
    async fn get(&self, id: GuildId) -> Result<Option<Guild>>;

    /// AP-10: public guilds in a fixed order, those behind `after` in it.
    async fn public(&self, after: Option<GuildId>, limit: usize) -> Result<Vec<Guild>>;
}

/// A membership ended.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Removed {
    /// The guild.
    pub guild_id: GuildId,
    /// The user.
    pub user_id: UserId,
    /// Above that of the membership.
    pub rev: Rev,
}

impl Removed {
    /// All three.
    pub fn new(guild_id: GuildId, user_id: UserId, rev: Rev) -> Self {
        Self { guild_id, user_id, rev }
    }
}

/// Who is in which guild.
#[async_trait]
pub trait Members: Send + Sync {
    /// AP-11: adds a member. One who is in already is returned as a repeat, without events. A later membership of the
    /// same user has a higher `rev` than the removal before it.
    async fn add(&self, guild: GuildId, user: UserId, tell: Tell<Member>) -> Result<Created<Member>>;

    /// AP-12: removes a member and returns the events of it; `None` if there was none.
    async fn remove(&self, guild: GuildId, user: UserId, tell: Tell<Removed>) -> Result<Option<Vec<Event>>>;

    /// AP-13: whether a user is in a guild. The question of every authorisation.
    async fn get(&self, guild: GuildId, user: UserId) -> Result<Option<Member>>;

    /// AP-14: the guilds of a user, by their ids.
    async fn of_user(&self, user: UserId) -> Result<Vec<Membership>>;
}

/// A channel to create.
#[derive(Clone, Debug)]
pub struct NewChannel {
    /// Where.
    pub guild_id: GuildId,
    /// What it is called.
    pub name: Name,
}

/// Channels.
#[async_trait]
pub trait Channels: Send + Sync {
    /// AP-15: creates a channel.
    async fn create(&self, new: NewChannel, tell: Tell<Channel>) -> Result<Created<Channel>>;

    /// AP-16: one channel, without its last message.
    async fn get(&self, id: ChannelId) -> Result<Option<Channel>>;

    /// AP-17: a guild's channels in the order of their creation, each with its last message.
    async fn of_guild(&self, guild: GuildId) -> Result<Vec<Channel>>;
}

/// A login that can be refreshed begins.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NewLogin {
    /// A random one.
    pub login_id: Uuid,
    /// Whose it is.
    pub user_id: UserId,
    /// When, in Unix seconds.
    pub begun: u64,
}

/// What became of a refresh.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refreshed {
    /// The login goes on.
    Current {
        /// Whose it is.
        user_id: UserId,
        /// When it began, in Unix seconds.
        begun: u64,
        /// The generation that is valid now.
        generation: u64,
    },
    /// An old generation was shown: somebody has a copy.
    Replayed {
        /// Whose it is.
        user_id: UserId,
    },
    /// The login has ended, or never was.
    Gone,
}

impl Refreshed {
    /// What becomes of a login of which this generation is shown. Each is good once: after it the next one is. The one before is
    /// good for [`SHOWN_AGAIN`] more, and leads to the same: two pages may ask at once, or an answer may be lost.
    pub fn of(user_id: UserId, begun: u64, valid: u64, rotated: Duration, shown: u64) -> Self {
        if shown == valid {
            Self::Current { user_id, begun, generation: valid + 1 }
        } else if shown.checked_add(1) == Some(valid) && rotated <= SHOWN_AGAIN {
            Self::Current { user_id, begun, generation: valid }
        } else if shown < valid {
            Self::Replayed { user_id }
        } else {
            Self::Gone
        }
    }
}

/// How long the generation before the valid one is good.
pub const SHOWN_AGAIN: Duration = Duration::from_secs(60);
/// How long a login lives that is not refreshed.
pub const LOGIN_KEPT: Duration = Duration::from_secs(30 * 24 * 60 * 60);
/// How long a revocation is kept: longer than any token is good, and than a login lives that it ended, as that is not refreshed any
/// more; clocks that differ included.
pub const REVOCATION_KEPT: Duration = Duration::from_secs(LOGIN_KEPT.as_secs() + 60 * 60);

/// Logins that outlive their tokens, and what was revoked. An embedder with sessions of its own leaves all of it.
#[async_trait]
pub trait Logins: Send + Sync {
    /// AP-23: begins a login, whose valid generation is 0.
    async fn begin(&self, _new: NewLogin) -> Result<()> {
        Err(Error::Unsupported("logins that can be refreshed"))
    }

    /// AP-24: goes on with a login of which this generation is shown ([`Refreshed::of`]), unless it was revoked.
    async fn refresh(&self, _login: Uuid, _generation: u64) -> Result<Refreshed> {
        Err(Error::Unsupported("logins that can be refreshed"))
    }

    /// AP-25: ends a login, or all of a user until a second, and returns the events of it. What has ended stays so, whatever else
    /// is ended later.
    async fn revoke(&self, _user: UserId, _what: Revoked, _tell: Tell<Revoked>) -> Result<Vec<Event>> {
        Err(Error::Unsupported("revoking logins"))
    }

    /// AP-26: whether a token's login has ended. The question of every call with a token.
    async fn is_revoked(&self, _user: UserId, _login: Login) -> Result<bool> {
        Ok(false)
    }
}

/// No login can be refreshed or revoked: for whoever has sessions of its own.
#[derive(Clone, Copy, Debug, Default)]
pub struct NoLogins;

impl Logins for NoLogins {}

/// A store: one repository an entity, and the log in which their changes tell what they cause. Each part may come from
/// elsewhere, such as an embedder's own users.
#[derive(Clone)]
pub struct Store {
    /// Users.
    pub users: Arc<dyn Users>,
    /// Messages.
    pub messages: Arc<dyn Messages>,
    /// Guilds.
    pub guilds: Arc<dyn Guilds>,
    /// Memberships.
    pub members: Arc<dyn Members>,
    /// Channels.
    pub channels: Arc<dyn Channels>,
    /// Logins and what was revoked.
    pub logins: Arc<dyn Logins>,
    /// The log of events.
    pub events: Arc<dyn EventLog>,
    /// Ids for events that create nothing.
    pub ids: Arc<dyn IdSource>,
}

impl Store {
    /// All parts from one place.
    pub fn of<S>(store: Arc<S>) -> Self
    where
        S: Users + Messages + Guilds + Members + Channels + Logins + EventLog + IdSource + 'static,
    {
        Self {
            users: store.clone(),
            messages: store.clone(),
            guilds: store.clone(),
            members: store.clone(),
            channels: store.clone(),
            logins: store.clone(),
            events: store.clone(),
            ids: store,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_generation_is_good_once_and_the_one_before_it_for_a_while() {
        let user_id = UserId::new(Uuid::from_u128(7));
        let current = |generation| Refreshed::Current { user_id, begun: 100, generation };
        let replayed = Refreshed::Replayed { user_id };
        for (valid, seconds, shown, want) in [
            (0, 0, 0, current(1)),
            (5, 9_999, 5, current(6)),
            (5, 60, 4, current(5)),
            (5, 61, 4, replayed),
            (5, 0, 3, replayed),
            (5, 0, 6, Refreshed::Gone),
            (5, 0, u64::MAX, Refreshed::Gone),
        ] {
            let rotated = Duration::from_secs(seconds);
            assert_eq!(Refreshed::of(user_id, 100, valid, rotated, shown), want, "{shown} of {valid}, {seconds} s after");
        }
    }
}
