//! Lasting events: what they are, where they stand in the log, and the seams that keep and spread them.

use std::sync::Arc;

use async_trait::async_trait;

pub use crate::topic::{Position, Topic};
use crate::{
    fault::Result,
    frame::ServerFrame,
    id::{ChannelId, EventId},
};

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

    /// Whether lasting events would be taken now; cheap, asked before a write.
    /// [`Code::UNAVAILABLE`](crate::fault::Code::UNAVAILABLE) if not.
    fn ready(&self) -> Result<()> {
        Ok(())
    }

    /// Returns when all that was taken by [`Publish::publish`] before is published, however long that takes.
    async fn flush(&self) {}
}
