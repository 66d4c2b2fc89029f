//! Lasting events: what they are, where they stand in the log, and the seams that keep and spread them.

use std::sync::Arc;

use async_trait::async_trait;
use serde::{Deserialize, Serialize};

pub use crate::topic::{Position, Topic};
use crate::{
    backend::Revoked,
    fault::Result,
    frame::ServerFrame,
    id::{ChannelId, EventId, UserId},
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

/// The op of [`Event::revoked`].
const REVOKE: &str = "REVOKE";

#[derive(Serialize, Deserialize)]
struct Revoke {
    d: Revoked,
}

impl Event {
    /// Logins of a user have ended. It is for gateways, which close the sockets; no client hears it.
    pub fn revoked(id: EventId, user: UserId, what: Revoked) -> Self {
        let d = serde_json::to_string(&what).unwrap_or_default();
        let frame = format!("{{\"op\":\"{REVOKE}\",\"d\":{d}}}").into();
        Self { id, topics: vec![Topic::User(user)], op: REVOKE.into(), channel: None, frame }
    }

    /// Whether it is one that no client hears.
    pub fn is_internal(&self) -> bool {
        &*self.op == REVOKE
    }

    /// What [`Event::revoked`] said; `None` for any other event.
    pub fn revokes(&self) -> Option<Revoked> {
        if !self.is_internal() {
            return None;
        }
        serde_json::from_str(&self.frame).ok().map(|Revoke { d }| d)
    }

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

#[cfg(test)]
mod tests {
    use uuid::Uuid;

    use super::*;
    use crate::backend::Login;

    #[test]
    fn what_is_revoked_is_read_as_it_was_said() {
        let user = UserId::new(Uuid::from_u128(7));
        for what in [Revoked::Login(Uuid::from_u128(9)), Revoked::IssuedBy(1_795_443_456)] {
            let event = Event::revoked(EventId::NONE, user, what);
            assert_eq!((event.revokes(), event.is_internal(), &event.topics), (Some(what), true, &vec![Topic::User(user)]));
        }
        assert_eq!(Event::new(EventId::NONE, vec![], None, ServerFrame::HeartbeatAck(())).revokes(), None);
        let strange = Event { frame: "{}".into(), ..Event::revoked(EventId::NONE, user, Revoked::IssuedBy(1)) };
        assert_eq!((strange.revokes(), strange.is_internal()), (None, true), "nobody hears it either way");
    }

    #[test]
    fn a_login_is_ended_by_its_name_or_by_its_age() {
        let login = Login::new(Uuid::from_u128(9), 100);
        for (what, ended) in [
            (Revoked::Login(login.id), true),
            (Revoked::Login(Uuid::from_u128(8)), false),
            (Revoked::IssuedBy(99), false),
            (Revoked::IssuedBy(100), true),
        ] {
            assert_eq!(what.covers(&login), ended, "{what:?}");
        }
    }
}
