//! The bodies of the HTTP APIs, in snake_case. Rows have `From` to and from the models where both say the same.

use serde::{Deserialize, Serialize};
use uuid::Uuid;

use crate::{
    backend::{GuildState, Login, Membership, Sent},
    event::{Event, Topic},
    id::{ChannelId, EventId, GuildId, MessageId, UserId},
    model::{Author, Channel, Guild, Member, Message, Rev, User, Visibility},
    time::Timestamp,
};

/// Writes a row type beside a model: the same fields in snake_case, and both conversions.
macro_rules! row {
    ($(#[$doc:meta])* $row:ident = $model:ident {
        $($(#[$attribute:meta])* $field:ident: $type:ty),+ $(,)?
    }) => {
        $(#[$doc])*
        #[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
        #[cfg_attr(feature = "typescript", derive(ts_rs::TS), ts(optional_fields))]
        pub struct $row {
            $($(#[$attribute])* #[doc = concat!("As in [`", stringify!($model), "`].")] pub $field: $type,)+
        }

        impl From<$model> for $row {
            fn from(model: $model) -> Self {
                Self { $($field: model.$field.into_field(),)+ }
            }
        }

        impl From<$row> for $model {
            fn from(row: $row) -> Self {
                Self { $($field: row.$field.into_field(),)+ }
            }
        }
    };
}

/// Lets [`row!`] convert a field or leave it as it is by one word.
trait IntoField<T> {
    fn into_field(self) -> T;
}

impl<T> IntoField<T> for T {
    fn into_field(self) -> T {
        self
    }
}

impl IntoField<Option<AuthorRow>> for Option<Author> {
    fn into_field(self) -> Option<AuthorRow> {
        self.map(Into::into)
    }
}

impl IntoField<Option<Author>> for Option<AuthorRow> {
    fn into_field(self) -> Option<Author> {
        self.map(Into::into)
    }
}

row! {
    /// A user. The answer of `GET /users/…`, `GET /me` and others.
    UserRow = User {
        user_id: UserId,
        username: String,
        #[serde(default, skip_serializing_if = "Option::is_none")]
        email: Option<String>,
        #[serde(default, skip_serializing_if = "Option::is_none")]
        created_at: Option<Timestamp>,
    }
}

row! {
    /// A message's author.
    AuthorRow = Author {
        user_id: UserId,
        username: String,
    }
}

row! {
    /// A message. The answer of `POST /channels/…/messages`, and what a page holds.
    MessageRow = Message {
        message_id: MessageId,
        channel_id: ChannelId,
        author_id: UserId,
        content: String,
        created_at: Timestamp,
        #[serde(default)]
        rev: Rev,
        #[serde(default, skip_serializing_if = "Option::is_none")]
        author: Option<AuthorRow>,
        #[serde(default, skip_serializing_if = "Option::is_none")]
        nonce: Option<String>,
        #[serde(default, skip_serializing_if = "Option::is_none")]
        reply_to: Option<MessageId>,
    }
}

row! {
    /// A guild.
    GuildRow = Guild {
        guild_id: GuildId,
        name: String,
        created_at: Timestamp,
        #[serde(default)]
        rev: Rev,
        #[serde(default, skip_serializing_if = "Option::is_none")]
        owner_id: Option<UserId>,
        #[serde(default, skip_serializing_if = "Option::is_none")]
        visibility: Option<Visibility>,
    }
}

row! {
    /// A membership. The answer of `POST /guilds/…/members`.
    MemberRow = Member {
        guild_id: GuildId,
        user_id: UserId,
        #[serde(default, skip_serializing_if = "Option::is_none")]
        username: Option<String>,
        joined_at: Timestamp,
        #[serde(default)]
        rev: Rev,
    }
}

row! {
    /// A channel.
    ChannelRow = Channel {
        channel_id: ChannelId,
        guild_id: GuildId,
        name: String,
        created_at: Timestamp,
        #[serde(default)]
        rev: Rev,
        #[serde(default, skip_serializing_if = "Option::is_none")]
        last_message_id: Option<MessageId>,
    }
}

/// A user with its password's hash: the answer of `GET /users/email/…` and `GET /users/…` to a service.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct AccountRow {
    /// The user.
    #[serde(flatten)]
    pub user: UserRow,
    /// The hash as a PHC string. Only a service that holds the service token is told.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub password_hash: Option<String>,
}

/// `POST /register` of auth-service.
#[derive(Clone, Serialize, Deserialize)]
#[cfg_attr(feature = "typescript", derive(ts_rs::TS))]
pub struct RegisterBody {
    /// 2 to 32 characters.
    pub username: String,
    /// Where to reach the user; one account an address.
    pub email: String,
    /// 8 to 128 characters.
    pub password: String,
}

/// The answer of `POST /register`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "typescript", derive(ts_rs::TS))]
pub struct Registered {
    /// The new user.
    pub user_id: UserId,
    /// What it is called.
    pub username: String,
}

/// `POST /login` of auth-service.
#[derive(Clone, Serialize, Deserialize)]
#[cfg_attr(feature = "typescript", derive(ts_rs::TS))]
pub struct LoginBody {
    /// The address the user registered with.
    pub email: String,
    /// The password.
    pub password: String,
}

/// The answer of `POST /login`.
#[derive(Clone, Serialize, Deserialize)]
#[cfg_attr(feature = "typescript", derive(ts_rs::TS))]
pub struct LoggedIn {
    /// A JWT, good for seven days. A secret.
    pub token: String,
    /// Whose it is.
    pub user: UserRow,
}

/// The answer of `POST /verify-token`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Verified {
    /// The user's id.
    pub sub: UserId,
    /// What the user was called when the token was made.
    pub username: String,
    /// The login that the token belongs to, for services that keep sessions.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub login: Option<Login>,
}

/// `POST /internal/logins`: a login that can be refreshed begins.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct BeginLoginBody {
    /// A random one.
    pub login_id: Uuid,
    /// Whose it is.
    pub user_id: UserId,
    /// When, in Unix seconds.
    pub begun: u64,
}

/// `POST /internal/logins/:id/refresh`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RefreshLoginBody {
    /// The generation that was shown.
    pub generation: u64,
}

/// The answer of `POST /internal/logins/:id/refresh`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "state", rename_all = "snake_case")]
pub enum RefreshedRow {
    /// It goes on.
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
    /// It has ended, or never was.
    Gone,
}

/// The answer of `GET /internal/users/:id/revocations`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RevokedRow {
    /// Whether the login that was asked about has ended.
    pub revoked: bool,
}

/// `POST /users` of data-service; services only.
#[derive(Clone, Serialize, Deserialize)]
pub struct CreateUserBody {
    /// 2 to 32 characters.
    pub username: String,
    /// One account an address.
    pub email: String,
    /// An argon2 hash as a PHC string.
    pub password_hash: String,
}

/// `POST /channels/:channelId/messages`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "typescript", derive(ts_rs::TS), ts(optional_fields))]
pub struct CreateMessageBody {
    /// 1 to 4,000 characters.
    pub content: String,
    /// Who writes it; a user's own id, or from a service the user it acts for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub author_id: Option<UserId>,
    /// The same (author, channel, nonce) within a day is the same message.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub nonce: Option<String>,
    /// A message of the same channel.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reply_to: Option<MessageId>,
}

/// A page of `GET /channels/:channelId/messages`, newest first.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "typescript", derive(ts_rs::TS))]
pub struct MessagePage {
    /// The messages.
    pub messages: Vec<MessageRow>,
    /// Give it back as `pageState` to read on; null on the last page.
    #[serde(rename = "nextPageState")]
    pub next_page_state: Option<String>,
}

/// `POST /guilds`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "typescript", derive(ts_rs::TS), ts(optional_fields))]
pub struct CreateGuildBody {
    /// 2 to 100 characters.
    pub name: String,
    /// From a service: the user it acts for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub creator_user_id: Option<UserId>,
    /// Who may join; absent: as the server is configured.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub visibility: Option<Visibility>,
}

/// `POST /guilds/:guildId/members`. The body may be left out: the caller joins.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "typescript", derive(ts_rs::TS), ts(optional_fields))]
pub struct JoinBody {
    /// The caller, or from a service the user it acts for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub user_id: Option<UserId>,
}

/// `POST /guilds/:guildId/channels`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "typescript", derive(ts_rs::TS))]
pub struct CreateChannelBody {
    /// 2 to 100 characters.
    pub name: String,
}

/// An event on its way between services.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct EventRow {
    /// As in [`Event`].
    pub event_id: EventId,
    /// Who is told.
    pub topics: Vec<Topic>,
    /// The frame's op.
    pub op: String,
    /// The channel it is about.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub channel_id: Option<ChannelId>,
    /// The encoded frame, as text: its bytes are what clients get.
    pub frame: String,
}

impl From<Event> for EventRow {
    fn from(event: Event) -> Self {
        let Event { id, topics, op, channel, frame } = event;
        Self { event_id: id, topics, op: op.as_ref().to_owned(), channel_id: channel, frame: frame.as_ref().to_owned() }
    }
}

impl From<EventRow> for Event {
    fn from(row: EventRow) -> Self {
        let EventRow { event_id, topics, op, channel_id, frame } = row;
        Self { id: event_id, topics, op: op.into(), channel: channel_id, frame: frame.into() }
    }
}

/// The answer of `POST /channels/…/messages` to a service that publishes by itself: the message, and what to publish.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SentRow {
    /// The message.
    #[serde(flatten)]
    pub message: MessageRow,
    /// What the caller is to publish.
    pub events: Vec<EventRow>,
    /// An earlier try with the same nonce wrote it.
    pub repeated: bool,
}

impl From<Sent> for SentRow {
    fn from(sent: Sent) -> Self {
        let events = sent.events.into_iter().map(Into::into).collect();
        Self { message: sent.message.into(), events, repeated: sent.repeated }
    }
}

impl From<SentRow> for Sent {
    fn from(row: SentRow) -> Self {
        Self::new(row.message.into(), row.events.into_iter().map(Into::into).collect(), row.repeated)
    }
}

/// A guild as a gateway loads it: `GET /internal/guilds/:guildId`, for services.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct GuildStateRow {
    /// The guild.
    pub guild: GuildRow,
    /// Its channels.
    pub channels: Vec<ChannelRow>,
}

impl From<GuildState> for GuildStateRow {
    fn from(state: GuildState) -> Self {
        Self { guild: state.guild.into(), channels: state.channels.into_iter().map(Into::into).collect() }
    }
}

impl From<GuildStateRow> for GuildState {
    fn from(row: GuildStateRow) -> Self {
        Self::new(row.guild.into(), row.channels.into_iter().map(Into::into).collect())
    }
}

/// One of `GET /internal/users/:userId/memberships`, for services.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct MembershipRow {
    /// The guild.
    pub guild: GuildRow,
    /// How new the membership is.
    pub rev: Rev,
}

impl From<Membership> for MembershipRow {
    fn from(membership: Membership) -> Self {
        Self { guild: membership.guild.into(), rev: membership.rev }
    }
}

impl From<MembershipRow> for Membership {
    fn from(row: MembershipRow) -> Self {
        Self::new(row.guild.into(), row.rev)
    }
}

/// The client's address, as a request extension. Whoever accepts connections puts it there, since only he knows which
/// proxies to believe; limits by address do nothing without it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct ClientAddr(pub std::net::IpAddr);

/// Whether a page's `Origin` is the `Host` that was asked. Of the scheme a request knows nothing where a proxy ends TLS, so it
/// may be either.
pub fn is_own_origin(origin: &str, host: Option<&str>) -> bool {
    let authority = origin.strip_prefix("https://").or_else(|| origin.strip_prefix("http://"));
    authority.zip(host).is_some_and(|(authority, host)| authority.eq_ignore_ascii_case(host))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_host_itself_is_its_own_origin() {
        for (origin, host, own) in [
            ("http://localhost:3000", "localhost:3000", true),
            ("https://Chat.example", "chat.example", true),
            ("http://localhost:3001", "localhost:3000", false),
            ("http://chat.example.evil.tld", "chat.example", false),
            ("null", "chat.example", false),
            ("ftp://chat.example", "chat.example", false),
            ("chat.example", "chat.example", false),
        ] {
            assert_eq!(is_own_origin(origin, Some(host)), own, "{origin} at {host}");
        }
        assert!(!is_own_origin("http://localhost", None));
    }
}
