//! Lasting events: what they are, where they stand in the log, and the seams that keep and spread them.

use std::{fmt, str::FromStr, sync::Arc};

use async_trait::async_trait;
use serde::{Deserialize, Deserializer, Serialize, Serializer, de::Error as _};

use crate::{
    fault::Result,
    frame::ServerFrame,
    id::{ChannelId, EventId, GuildId, IdError, UserId},
};

/// Where an event stands in the log: an integer below 2^53, larger than all before it in the same log over all topics.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Position(pub u64);

impl fmt::Display for Position {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// Who an event is for. Written `guild:<id>` or `user:<id>`; on Redis the channel of the same name.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Topic {
    /// All that happens in a guild, its messages too.
    Guild(GuildId),
    /// What concerns one user.
    User(UserId),
}

impl fmt::Display for Topic {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Guild(id) => write!(f, "guild:{id}"),
            Self::User(id) => write!(f, "user:{id}"),
        }
    }
}

impl FromStr for Topic {
    type Err = IdError;

    fn from_str(text: &str) -> Result<Self, IdError> {
        match text.split_once(':') {
            Some(("guild", id)) => id.parse().map(Self::Guild),
            Some(("user", id)) => id.parse().map(Self::User),
            _ => Err(IdError),
        }
    }
}

impl Serialize for Topic {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Topic {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        std::borrow::Cow::<str>::deserialize(deserializer)?.parse().map_err(|_| D::Error::custom("not a topic"))
    }
}

/// Something that happened, and who is told.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Event {
    /// The id of the row that was created, or one minted for the event; [`EventId::NONE`] for what does not last.
    pub id: EventId,
    /// Who is told; each once.
    pub topics: Vec<Topic>,
    /// The frame's op.
    pub op: Arc<str>,
    /// The channel it is about: told only to those who may see it.
    pub channel: Option<ChannelId>,
    /// The encoded frame, without `p`.
    pub frame: Arc<str>,
}

impl Event {
    /// Encodes the frame once, for all who are told.
    pub fn new(id: EventId, topics: Vec<Topic>, channel: Option<ChannelId>, frame: ServerFrame) -> Self {
        let op = frame.op().into();
        Self { id, topics, op, channel, frame: frame.at(None).encode().into() }
    }

    /// Its text on the wire: the frame, with the position before its last brace if it has one.
    pub fn text_at(&self, p: Option<Position>) -> String {
        match (p, self.frame.strip_suffix('}')) {
            (Some(p), Some(open)) => format!("{open},\"p\":{p}}}"),
            _ => self.frame.to_string(),
        }
    }
}

/// An event in its place.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Logged {
    /// The place.
    pub p: Position,
    /// The event.
    pub event: Event,
}

/// The log of lasting events. A store keeps it with its rows; an embedder's own store may append after its commit.
#[async_trait]
pub trait EventLog: Send + Sync {
    /// Names this log: positions of another epoch mean nothing here. Opaque, at most 64 bytes.
    fn epoch(&self) -> &str;

    /// The position of the newest event, or a position below all to come.
    async fn head(&self) -> Result<Position>;

    /// Events at or below it may have been forgotten.
    async fn floor(&self) -> Result<Position>;

    /// Adds events whose rows were written elsewhere. What is appended just before a crash may be lost.
    async fn append(&self, events: Vec<Event>) -> Result<()>;

    /// At most `limit` events above `after`, in order.
    async fn read_after(&self, after: Position, limit: usize) -> Result<Vec<Logged>>;

    /// Returns when the head is above `after`.
    async fn wait_past(&self, after: Position);
}

/// Spreads events to whoever listens. Buses implement it.
#[async_trait]
pub trait Publish: Send + Sync {
    /// Lasting events that are stored already, in order. Publishing one twice does no harm.
    async fn publish(&self, events: &[Event]) -> Result<()>;

    /// An event that does not last, such as typing. It may be lost.
    async fn pass(&self, event: Event) -> Result<()>;
}
