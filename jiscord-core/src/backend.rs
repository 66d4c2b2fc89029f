//! What a gateway asks of the rest of the system, in the same process or another.

use async_trait::async_trait;
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use crate::{
    event::Event,
    fault::Result,
    frame::SendMessage,
    id::{GuildId, UserId},
    model::{Channel, Guild, Message, Rev, User},
};

/// Who does something. No call is made without one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Actor {
    /// A user or bot, with its own rights.
    User(UserId),
    /// A service on behalf of the system: it may read what users may not.
    System,
}

/// Who a token belongs to.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Identity {
    /// The user.
    pub user_id: UserId,
    /// What it was called when the token was made.
    pub username: String,
    /// The login that the token belongs to, if it can be revoked.
    pub login: Option<Login>,
}

impl Identity {
    /// Names a user.
    pub fn new(user_id: UserId, username: impl Into<String>) -> Self {
        Self { user_id, username: username.into(), login: None }
    }

    /// With a login.
    #[must_use]
    pub fn with_login(mut self, login: Login) -> Self {
        self.login = Some(login);
        self
    }
}

/// A login, as a token tells of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Login {
    /// All tokens of one login have the same.
    pub id: Uuid,
    /// When the login began, in Unix seconds. A token that is made later, as it goes on, says this too.
    pub issued_at: u64,
}

impl Login {
    /// Both.
    pub fn new(id: Uuid, issued_at: u64) -> Self {
        Self { id, issued_at }
    }
}

/// What a log-out ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Revoked {
    /// One login, with all its tokens.
    Login(Uuid),
    /// Every login of the user that began in this Unix second or before.
    IssuedBy(u64),
}

impl Revoked {
    /// Whether a token of this login is ended.
    pub fn covers(&self, login: &Login) -> bool {
        match self {
            Self::Login(id) => *id == login.id,
            Self::IssuedBy(second) => login.issued_at <= *second,
        }
    }
}

/// Tells whose a token is. A seam: an embedder's own sessions can stand behind it.
#[async_trait]
pub trait TokenVerifier: Send + Sync {
    /// The token's user. [`Code::UNAUTHORIZED`](crate::fault::Code::UNAUTHORIZED) if it is bad, expired or revoked; any other
    /// fault means that nothing is known about it.
    async fn verify_token(&self, token: &str) -> Result<Identity>;
}

/// A message was written.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Sent {
    /// The message.
    pub message: Message,
    /// What is to be published.
    pub events: Vec<Event>,
    /// An earlier try with the same nonce wrote it.
    pub repeated: bool,
}

impl Sent {
    /// All three.
    pub fn new(message: Message, events: Vec<Event>, repeated: bool) -> Self {
        Self { message, events, repeated }
    }
}

/// A guild that a user is in.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Membership {
    /// The guild.
    pub guild: Guild,
    /// How new the membership is.
    pub rev: Rev,
}

impl Membership {
    /// Both.
    pub fn new(guild: Guild, rev: Rev) -> Self {
        Self { guild, rev }
    }
}

/// What decides who hears what in a guild.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct GuildState {
    /// The guild.
    pub guild: Guild,
    /// Its channels.
    pub channels: Vec<Channel>,
}

impl GuildState {
    /// Both.
    pub fn new(guild: Guild, channels: Vec<Channel>) -> Self {
        Self { guild, channels }
    }
}

/// The gateway's way to accounts and chat operations.
///
/// Whoever writes one is told on each call who asks, and whoever calls one has to say so:
///
/// ```
/// # use jiscord_core::{UserId, backend::{Actor, Backend}, fault::Result};
/// # async fn ask(backend: &dyn Backend, me: UserId, other: UserId) -> Result<()> {
/// backend.user(Actor::User(me), other).await?;
/// # Ok(())
/// # }
/// ```
///
/// ```compile_fail,E0061
/// # use jiscord_core::{UserId, backend::{Actor, Backend}, fault::Result};
/// # async fn ask(backend: &dyn Backend, me: UserId, other: UserId) -> Result<()> {
/// backend.user(other).await?;
/// # Ok(())
/// # }
/// ```
#[async_trait]
pub trait Backend: TokenVerifier {
    /// A user, with what the actor may see of it.
    async fn user(&self, actor: Actor, user: UserId) -> Result<User>;

    /// All guilds that a user is in.
    async fn memberships(&self, actor: Actor, user: UserId) -> Result<Vec<Membership>>;

    /// A guild as it is now; `None` if it is not there. For [`Actor::System`].
    async fn load_guild(&self, actor: Actor, guild: GuildId) -> Result<Option<GuildState>>;

    /// Writes a message. Its events are stored but not published: that is the caller's part.
    async fn send_message(&self, actor: Actor, message: SendMessage) -> Result<Sent>;
}
