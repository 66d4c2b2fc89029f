//! What is said over the gateway: `{"op": …, "d": …}` in JSON text frames, and `"p"` beside it for a lasting event.

use std::{borrow::Cow, fmt};

use serde::{Deserialize, Deserializer, Serialize, Serializer, de::DeserializeOwned};
use serde_json::value::RawValue;

use crate::{
    fault::Code,
    id::{ChannelId, GuildId, MessageId, SessionId, UserId},
    json,
    model::{Channel, Guild, Member, Message, Rev, User},
    topic::{Position, Topic},
};

/// The version of the protocol that READY names.
pub const PROTOCOL: u32 = 1;

/// A frame could not be read.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum FrameError {
    /// Not JSON, or without an `op`.
    #[error("not a frame: {0}")]
    Malformed(#[from] serde_json::Error),
    /// A known op whose `d` is not what it wants.
    #[error("bad {op}: {source}")]
    Body {
        /// The op.
        op: String,
        /// What is wrong with its `d`.
        source: serde_json::Error,
    },
    /// An op that is not known here; perhaps it is from a newer version.
    #[error("unknown op {0:?}")]
    UnknownOp(String),
}

/// The outer form of every frame, read before its `d`.
#[derive(Deserialize)]
struct Envelope<'a> {
    #[serde(borrow)]
    op: Cow<'a, str>,
    #[serde(borrow, default)]
    d: Option<&'a RawValue>,
    #[serde(borrow, default)]
    p: Option<&'a RawValue>,
}

impl<'a> Envelope<'a> {
    fn read(text: &'a str) -> Result<Self, FrameError> {
        Ok(object(text)?)
    }

    fn body<T: DeserializeOwned>(&self) -> Result<T, FrameError> {
        let d = self.d.map_or("null", RawValue::get);
        object(d).map_err(|source| FrameError::Body { op: self.op.clone().into_owned(), source })
    }

    fn unknown(&self) -> FrameError {
        // An op is a word; what is longer is not worth repeating.
        FrameError::UnknownOp(self.op.chars().take(64).collect())
    }
}

/// Reads an object. Serde by itself would also take an array of its fields.
fn object<'a, T: Deserialize<'a>>(text: &'a str) -> serde_json::Result<T> {
    if text.trim_ascii_start().starts_with('[') {
        return Err(serde::de::Error::custom("an object is wanted, not an array"));
    }
    serde_json::from_str(text)
}

/// What a client says.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[cfg_attr(feature = "typescript", derive(ts_rs::TS))]
#[serde(tag = "op", content = "d", rename_all = "SCREAMING_SNAKE_CASE")]
#[non_exhaustive]
pub enum ClientFrame {
    /// Still there. Answered by HEARTBEAT_ACK.
    Heartbeat(()),
    /// Begins a session.
    Identify(Identify),
    /// Goes on with a session after a cut.
    Resume(Resume),
    /// Writes a message.
    SendMessage(SendMessage),
    /// Typing has begun.
    TypingStart(TypingStart),
}

impl ClientFrame {
    /// Reads `op` first, then `d` as that op wants it: an op from the future is an error with a name, not a failed parse.
    pub fn read(text: &str) -> Result<Self, FrameError> {
        let frame = Envelope::read(text)?;
        let read = match &*frame.op {
            "HEARTBEAT" => Self::Heartbeat(()),
            "IDENTIFY" => Self::Identify(frame.body()?),
            "RESUME" => Self::Resume(frame.body()?),
            "SEND_MESSAGE" => Self::SendMessage(frame.body()?),
            "TYPING_START" => Self::TypingStart(frame.body()?),
            _ => return Err(frame.unknown()),
        };
        // What was skipped is bounded as well.
        json::check(text.as_bytes()).map_err(|source| FrameError::Body { op: frame.op.into_owned(), source })?;
        Ok(read)
    }

    /// Its text on the wire.
    pub fn encode(&self) -> String {
        encode(self)
    }
}

/// Who is there.
#[derive(Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "typescript", derive(ts_rs::TS), ts(optional_fields))]
pub struct Identify {
    /// The JWT of a login.
    pub token: String,
    /// Which of the user's devices; absent: the one nameless device. Of two sessions of one device the later lives.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub device: Option<String>,
    /// What to be told; absent: everything.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "typescript", ts(type = "string[]", optional))]
    pub intents: Option<Intents>,
    /// Which attempt of its client this is; absent: whatever arrives later counts as later.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub attempt: Option<Attempt>,
}

/// Tells the attempts of one client to have a session apart: of two, the one with the larger number is the later, whatever order
/// they arrive in. So an attempt that was given up, and still reaches a gateway, takes nothing from the one that followed it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "typescript", derive(ts_rs::TS))]
pub struct Attempt {
    /// Chosen at random by each run of a program. Attempts of two clients have no order of their own.
    pub client: u32,
    /// Larger each time.
    pub number: u32,
}

impl Attempt {
    /// Whether the same client made another one since.
    pub fn is_before(self, other: Self) -> bool {
        self.client == other.client && self.number < other.number
    }
}

impl fmt::Debug for Identify {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Identify").field("device", &self.device).field("intents", &self.intents).finish_non_exhaustive()
    }
}

/// Where a session was when it was cut.
#[derive(Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "typescript", derive(ts_rs::TS), ts(optional_fields))]
#[serde(rename_all = "camelCase")]
pub struct Resume {
    /// The JWT of a login.
    pub token: String,
    /// The session to go on with.
    pub session_id: SessionId,
    /// As in IDENTIFY.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub device: Option<String>,
    /// As in IDENTIFY.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "typescript", ts(type = "string[]", optional))]
    pub intents: Option<Intents>,
    /// As in IDENTIFY.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub attempt: Option<Attempt>,
    /// The log that `after` belongs to.
    pub epoch: String,
    /// The last position that was surely seen.
    pub after: Position,
}

impl fmt::Debug for Resume {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Resume").field("session_id", &self.session_id).field("after", &self.after).finish_non_exhaustive()
    }
}

/// A message to write.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "typescript", derive(ts_rs::TS), ts(optional_fields))]
#[serde(rename_all = "camelCase")]
pub struct SendMessage {
    /// Where.
    pub channel_id: ChannelId,
    /// 1 to 4,000 characters.
    pub content: String,
    /// Asks for a MESSAGE_ACK, and makes sending again safe for a day.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub nonce: Option<String>,
    /// A message of the same channel.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reply_to: Option<MessageId>,
}

/// Where the user types.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "typescript", derive(ts_rs::TS))]
#[serde(rename_all = "camelCase")]
pub struct TypingStart {
    /// The channel.
    pub channel_id: ChannelId,
}

bitflags::bitflags! {
    /// What a session wants to be told; on the wire a list of words. Unknown words are ignored.
    #[derive(Clone, Copy, Debug, PartialEq, Eq)]
    pub struct Intents: u32 {
        /// Guilds and channels: created, changed, gone.
        const GUILDS = 1;
        /// Who joins and leaves.
        const MEMBERS = 1 << 1;
        /// Messages in guilds.
        const MESSAGES = 1 << 2;
        /// Reactions.
        const REACTIONS = 1 << 3;
        /// Who types.
        const TYPING = 1 << 4;
        /// Who is online.
        const PRESENCE = 1 << 5;
        /// Direct messages.
        const DIRECT_MESSAGES = 1 << 6;
    }
}

impl Serialize for Intents {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_seq(self.iter_names().map(|(name, _)| name.to_lowercase()))
    }
}

impl<'de> Deserialize<'de> for Intents {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let words = Vec::<Cow<'de, str>>::deserialize(deserializer)?;
        Ok(words.iter().filter_map(|word| Self::from_name(&word.to_uppercase())).collect())
    }
}

/// What the gateway says. `()` is written as `"d": null`.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[cfg_attr(feature = "typescript", derive(ts_rs::TS))]
#[serde(tag = "op", content = "d", rename_all = "SCREAMING_SNAKE_CASE")]
#[non_exhaustive]
pub enum ServerFrame {
    /// Opens every connection.
    Hello(Hello),
    /// Answers HEARTBEAT.
    HeartbeatAck(()),
    /// The session is ready; events follow.
    Ready(Ready),
    /// The session is over, or was refused; the connection closes with 4004, 4010 or 4012.
    InvalidSession(()),
    /// The session goes on; live events follow.
    Resumed(Resumed),
    /// What is kept of some topics may be stale; read it again.
    Resync(Resync),
    /// The server is going away; come back after a while.
    Reconnect(Reconnect),
    /// A command failed.
    Error(ErrorFrame),
    /// A message that was sent with a nonce is durable.
    MessageAck(MessageAck),
    /// A message was written in a channel that the user may read.
    MessageCreate(Message),
    /// Somebody types in a channel that the user may read.
    Typing(Typing),
    /// The user created or joined a guild.
    GuildCreate(GuildCreate),
    /// The user left a guild or was removed from it, or it was deleted.
    GuildDelete(GuildDelete),
    /// Somebody joined a guild of the user's.
    MemberAdd(Member),
    /// Somebody left a guild of the user's.
    MemberRemove(MemberRemove),
    /// A channel came, or came into sight.
    ChannelCreate(Channel),
    /// A channel went, or went out of sight.
    ChannelDelete(ChannelDelete),
}

impl ServerFrame {
    /// Its op as it stands on the wire.
    pub fn op(&self) -> &'static str {
        match self {
            Self::Hello(_) => "HELLO",
            Self::HeartbeatAck(()) => "HEARTBEAT_ACK",
            Self::Ready(_) => "READY",
            Self::InvalidSession(()) => "INVALID_SESSION",
            Self::Resumed(_) => "RESUMED",
            Self::Resync(_) => "RESYNC",
            Self::Reconnect(_) => "RECONNECT",
            Self::Error(_) => "ERROR",
            Self::MessageAck(_) => "MESSAGE_ACK",
            Self::MessageCreate(_) => "MESSAGE_CREATE",
            Self::Typing(_) => "TYPING",
            Self::GuildCreate(_) => "GUILD_CREATE",
            Self::GuildDelete(_) => "GUILD_DELETE",
            Self::MemberAdd(_) => "MEMBER_ADD",
            Self::MemberRemove(_) => "MEMBER_REMOVE",
            Self::ChannelCreate(_) => "CHANNEL_CREATE",
            Self::ChannelDelete(_) => "CHANNEL_DELETE",
        }
    }

    /// With its place in the log.
    pub fn at(self, p: impl Into<Option<Position>>) -> Placed {
        Placed { frame: self, p: p.into() }
    }
}

/// A frame and, for a lasting event, its place in the log.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[cfg_attr(feature = "typescript", derive(ts_rs::TS), ts(optional_fields))]
pub struct Placed {
    /// The frame.
    #[serde(flatten)]
    pub frame: ServerFrame,
    /// Where it stands; with READY, RESUMED, RESYNC and HEARTBEAT_ACK: up to where everything was sent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub p: Option<Position>,
}

impl Placed {
    /// Reads a frame of the gateway's.
    pub fn read(text: &str) -> Result<Self, FrameError> {
        let frame = Envelope::read(text)?;
        let said = match &*frame.op {
            "HELLO" => ServerFrame::Hello(frame.body()?),
            "HEARTBEAT_ACK" => ServerFrame::HeartbeatAck(()),
            "READY" => ServerFrame::Ready(frame.body()?),
            "INVALID_SESSION" => ServerFrame::InvalidSession(()),
            "RESUMED" => ServerFrame::Resumed(frame.body()?),
            "RESYNC" => ServerFrame::Resync(frame.body()?),
            "RECONNECT" => ServerFrame::Reconnect(frame.body()?),
            "ERROR" => ServerFrame::Error(frame.body()?),
            "MESSAGE_ACK" => ServerFrame::MessageAck(frame.body()?),
            "MESSAGE_CREATE" => ServerFrame::MessageCreate(frame.body()?),
            "TYPING" => ServerFrame::Typing(frame.body()?),
            "GUILD_CREATE" => ServerFrame::GuildCreate(frame.body()?),
            "GUILD_DELETE" => ServerFrame::GuildDelete(frame.body()?),
            "MEMBER_ADD" => ServerFrame::MemberAdd(frame.body()?),
            "MEMBER_REMOVE" => ServerFrame::MemberRemove(frame.body()?),
            "CHANNEL_CREATE" => ServerFrame::ChannelCreate(frame.body()?),
            "CHANNEL_DELETE" => ServerFrame::ChannelDelete(frame.body()?),
            _ => return Err(frame.unknown()),
        };
        let p = frame.p.map(|p| serde_json::from_str(p.get())).transpose()?;
        Ok(said.at(p))
    }

    /// Its text on the wire.
    pub fn encode(&self) -> String {
        encode(self)
    }
}

fn encode(frame: &impl Serialize) -> String {
    // Our own types with string keys: serde_json has no reason to refuse one.
    serde_json::to_string(frame).unwrap_or_default()
}

/// How the connection is kept.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "typescript", derive(ts_rs::TS))]
pub struct Hello {
    /// Send HEARTBEAT this often, in milliseconds. A session silent for 1.5 times as long is closed.
    pub heartbeat_interval: u64,
}

/// The session is ready.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "typescript", derive(ts_rs::TS))]
#[serde(rename_all = "camelCase")]
pub struct Ready {
    /// Who the token says the client is.
    pub user_id: UserId,
    /// Names this session.
    pub session_id: SessionId,
    /// The user itself.
    pub user: User,
    /// The guilds it is in, without their channels.
    pub guilds: Vec<Guild>,
    /// [`PROTOCOL`].
    pub protocol: u32,
    /// Names the log that positions belong to.
    pub epoch: String,
}

/// The session goes on.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "typescript", derive(ts_rs::TS))]
pub struct Resumed {
    /// How many events were sent again.
    pub replayed: u64,
}

/// What is kept of these topics may be stale in any way.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "typescript", derive(ts_rs::TS))]
pub struct Resync {
    /// The topics; null: all.
    pub topics: Option<Vec<Topic>>,
    /// The log as it is now.
    pub epoch: String,
    /// So many others are told the same that each is to wait a random part of these milliseconds before it reads.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "typescript", ts(optional))]
    pub spread: Option<u64>,
}

/// The server is going away.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "typescript", derive(ts_rs::TS))]
#[serde(rename_all = "camelCase")]
pub struct Reconnect {
    /// Milliseconds to wait before coming back.
    pub retry_after: u64,
}

/// A command failed.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "typescript", derive(ts_rs::TS), ts(optional_fields))]
#[serde(rename_all = "camelCase")]
pub struct ErrorFrame {
    /// A word for programs.
    pub code: Code,
    /// A sentence for people.
    pub message: String,
    /// The command's op, if it had one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub op: Option<String>,
    /// The command's nonce, if it had one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub nonce: Option<String>,
    /// Milliseconds after which asking again makes sense.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub retry_after: Option<u64>,
}

/// A message is durable.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "typescript", derive(ts_rs::TS))]
#[serde(rename_all = "camelCase")]
pub struct MessageAck {
    /// The sender's nonce.
    pub nonce: String,
    /// The message's id.
    pub message_id: MessageId,
    /// Where it is.
    pub channel_id: ChannelId,
}

/// Somebody types.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "typescript", derive(ts_rs::TS))]
#[serde(rename_all = "camelCase")]
pub struct Typing {
    /// Where.
    pub channel_id: ChannelId,
    /// Who; the typer is told too.
    pub user_id: UserId,
    /// When, in Unix milliseconds.
    pub timestamp: i64,
}

/// The user is in this guild now.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "typescript", derive(ts_rs::TS))]
#[serde(rename_all = "camelCase")]
pub struct GuildCreate {
    /// The guild.
    #[serde(flatten)]
    pub guild: Guild,
    /// The channels that the user may see.
    pub channels: Vec<Channel>,
}

/// The user is no longer in this guild.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "typescript", derive(ts_rs::TS))]
#[serde(rename_all = "camelCase")]
pub struct GuildDelete {
    /// The guild.
    pub guild_id: GuildId,
    /// How new this is.
    pub rev: Rev,
}

/// Somebody is no longer in a guild.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "typescript", derive(ts_rs::TS))]
#[serde(rename_all = "camelCase")]
pub struct MemberRemove {
    /// The guild.
    pub guild_id: GuildId,
    /// Who.
    pub user_id: UserId,
    /// How new this is.
    pub rev: Rev,
}

/// A channel is gone, or out of sight.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "typescript", derive(ts_rs::TS))]
#[serde(rename_all = "camelCase")]
pub struct ChannelDelete {
    /// The channel.
    pub channel_id: ChannelId,
    /// Its guild.
    pub guild_id: GuildId,
    /// How new this is.
    pub rev: Rev,
}

/// Why a gateway closes a connection, as a WebSocket close code, and whether to come back.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum CloseCode {
    /// 1001: the server is going away; come back and resume.
    GoingAway,
    /// 1002: against the WebSocket protocol itself.
    BadWebSocket,
    /// 1007: text that is not UTF-8.
    NotUtf8,
    /// 1009: a frame over the limit.
    TooBig,
    /// 1013: something the gateway needs is away; try later, the token is good.
    TryLater,
    /// 4000: a defect of the server.
    Internal,
    /// 4002: not a frame.
    NotAFrame,
    /// 4003: IDENTIFY or RESUME did not come first, or not in time.
    NotIdentified,
    /// 4004: a bad, expired or revoked token; do not come back with it.
    BadToken,
    /// 4005: IDENTIFY or RESUME came twice.
    AlreadyIdentified,
    /// 4008: too many commands, for too long.
    RateLimited,
    /// 4009: silent for too long.
    TimedOut,
    /// 4010: another session of this user and device took its place; do not come back by yourself.
    Evicted,
    /// 4011: the client does not read fast enough.
    TooSlow,
    /// 4012: this session cannot be resumed; IDENTIFY again.
    ResumeRefused,
}

impl CloseCode {
    const ALL: [(Self, u16, &'static str); 15] = [
        (Self::GoingAway, 1001, "going away"),
        (Self::BadWebSocket, 1002, "against the WebSocket protocol"),
        (Self::NotUtf8, 1007, "text is not UTF-8"),
        (Self::TooBig, 1009, "frame too big"),
        (Self::TryLater, 1013, "try again later"),
        (Self::Internal, 4000, "internal error"),
        (Self::NotAFrame, 4002, "not a frame"),
        (Self::NotIdentified, 4003, "not identified"),
        (Self::BadToken, 4004, "bad token"),
        (Self::AlreadyIdentified, 4005, "already identified"),
        (Self::RateLimited, 4008, "rate limited"),
        (Self::TimedOut, 4009, "session timed out"),
        (Self::Evicted, 4010, "evicted by a newer session"),
        (Self::TooSlow, 4011, "reads too slowly"),
        (Self::ResumeRefused, 4012, "resume refused"),
    ];

    /// The code on the wire.
    pub fn code(self) -> u16 {
        self.row().1
    }

    /// A few words for the close frame.
    pub fn reason(self) -> &'static str {
        self.row().2
    }

    /// What a code on the wire means; `None` for one that is not the gateway's.
    pub fn from_code(code: u16) -> Option<Self> {
        match code {
            1012 => Some(Self::GoingAway),
            _ => Self::ALL.iter().find(|row| row.1 == code).map(|row| row.0),
        }
    }

    /// Whether INVALID_SESSION is sent before the close.
    pub fn invalidates(self) -> bool {
        matches!(self, Self::BadToken | Self::Evicted | Self::ResumeRefused)
    }

    fn row(self) -> (Self, u16, &'static str) {
        Self::ALL.into_iter().find(|row| row.0 == self).unwrap_or((self, 4000, "internal error"))
    }
}
