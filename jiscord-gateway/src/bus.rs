//! The bus: how events reach the gateways.

use async_trait::async_trait;
use jiscord_core::{Event, Position, Topic, event::Publish, fault::Result};

/// Something that came over the bus.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Heard {
    /// The event.
    pub event: Event,
    /// Its place in the log; none for what does not last.
    pub p: Option<Position>,
}

/// Carries events from whoever publishes to the gateway that holds it. One gateway listens to one bus.
#[async_trait]
pub trait Bus: Publish {
    /// Names the log that positions belong to.
    fn epoch(&self) -> String;

    /// The position from which this bus began to listen.
    fn start(&self) -> Position;

    /// Begins to listen to a topic. When it returns, every later event of the topic is heard.
    async fn join(&self, topic: Topic) -> Result<()>;

    /// Undoes one [`Bus::join`]; after as many as there were joins, the topic is no longer listened to. Events of it may still
    /// come for a while.
    fn leave(&self, topic: Topic);

    /// The next event, lasting ones in the order of their positions, whatever their topics. One task calls it.
    async fn next(&self) -> Heard;
}
