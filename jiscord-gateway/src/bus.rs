//! The bus: how events reach the gateways.

use async_trait::async_trait;
use jiscord_core::{Event, Position, Topic, UserId, event::Publish, fault::Result, text::Device};

/// Something that came over the bus.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Heard {
    /// Something happened.
    ///
    /// A bus between processes tells it once for each joined topic, which is then the only one in `event.topics`, and does not
    /// carry the event's id ([`EventId::NONE`](jiscord_core::EventId::NONE)). The tellings have one position and come one after
    /// the other.
    Event {
        /// The event.
        event: Event,
        /// Its place in the log; none for what does not last.
        p: Option<Position>,
    },
    /// Something may have been missed: whatever is kept of any topic may be stale, and is to be loaded anew.
    Gap {
        /// From here it goes on, in the log that [`Bus::epoch`] now names.
        p: Position,
    },
    /// Sessions of a user's device that are held by a smaller fence are over.
    Evict {
        /// The user.
        user: UserId,
        /// The device; `None` is the nameless one.
        device: Option<Device>,
        /// The fence of the claim that lives.
        fence: u64,
    },
}

/// Carries events from whoever publishes to the gateway that holds it. One gateway listens to one bus.
#[async_trait]
pub trait Bus: Publish {
    /// Names the log that positions belong to. Changes only with a [`Heard::Gap`].
    fn epoch(&self) -> String;

    /// The position from which this bus began to listen.
    fn start(&self) -> Position;

    /// Begins to listen to a topic. When it returns, every later event of the topic is heard.
    async fn join(&self, topic: Topic) -> Result<()>;

    /// Undoes one [`Bus::join`]; after as many as there were joins, the topic is no longer listened to. Events of it may still
    /// come for a while.
    fn leave(&self, topic: Topic);

    /// What happens next: lasting events in the order of their positions, whatever their topics. One task calls it.
    async fn next(&self) -> Heard;
}
