//! The bus: how events reach the gateways.

use async_trait::async_trait;
use jiscord_core::{
    Event, Position, Topic, UserId,
    event::{Logged, Publish},
    fault::Result,
};

use crate::claims::Eviction;

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
    /// Nothing was heard for a while: rights are to be loaded anew before anything more is told.
    Gap {
        /// From here it goes on, in the log that [`Bus::epoch`] now names.
        p: Position,
        /// What was missed and cannot be told any more. The rest of what was missed comes next.
        stale: Stale,
    },
    /// All that happened up to here in the joined topics was told.
    Upto {
        /// Above all positions told before.
        p: Position,
    },
    /// Sessions of a user's device are over.
    Evict {
        /// The user.
        user: UserId,
        /// Which.
        over: Eviction,
    },
}

/// What may have changed without being told.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Stale {
    /// Nothing.
    Nothing,
    /// Something in these topics.
    Topics(Vec<Topic>),
    /// Anything: this is another log, or the same one without its newest events.
    All,
}

/// A stretch of the log, for some topics.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Replay {
    /// The events, in order, each once. What it says of their topics may leave some out that were not asked for.
    pub events: Vec<Logged>,
    /// Topics of which some may be missing.
    pub lost: Vec<Topic>,
}

impl Replay {
    /// Both.
    pub fn new(events: Vec<Logged>, lost: Vec<Topic>) -> Self {
        Self { events, lost }
    }
}

/// The most events of a [`Replay`]. Whoever missed more reads anew what he still needs.
pub const REPLAYED: usize = 10_000;

/// Carries events from whoever publishes to the gateway that holds it. One gateway listens to one bus.
#[async_trait]
pub trait Bus: Publish {
    /// Names the log that positions belong to. Changes only with a [`Heard::Gap`].
    fn epoch(&self) -> String;

    /// The position from which this bus began to listen.
    fn start(&self) -> Position;

    /// A position that nothing published before this call lies above. What is told reaches it soon, whether or not anything
    /// more happens.
    async fn head(&self) -> Result<Position>;

    /// Begins to listen to a topic. Every event of it above the position that is returned is heard; those at or below it are
    /// in the log.
    async fn join(&self, topic: Topic) -> Result<Position>;

    /// Undoes one [`Bus::join`]; after as many as there were joins, the topic is no longer listened to. Events of it may still
    /// come for a while.
    fn leave(&self, topic: Topic);

    /// What happened in these topics above `after`, up to and with `to`; at most [`REPLAYED`] events, or they are lost. An error:
    /// it cannot be known now.
    async fn replay(&self, topics: &[Topic], after: Position, to: Position) -> Result<Replay>;

    /// What happens next: lasting events in the order of their positions, whatever their topics. One task calls it.
    async fn next(&self) -> Heard;
}
