//! Events that are kept with their rows where the log is elsewhere, and how far somebody saw to it that all are in the log.
//!
//! A store whose log is a bus of its own, such as Redis, writes each event into a journal together with its row. Whoever wrote
//! it publishes it then, and a relay publishes what was left behind by a process that died between the two.

use std::{
    collections::{HashMap, HashSet},
    ops::Range,
};

use async_trait::async_trait;

use crate::{event::Event, fault::Result, id::EventId};

/// Events by when their ids were minted. Stores implement it. Events are only added, and forgotten after a time.
#[async_trait]
pub trait Journal: Send + Sync {
    /// Over how many shards events are spread. Never changes.
    fn shards(&self) -> u16;

    /// The events of a shard, from 0 on, whose ids were minted in a span of Unix milliseconds, in the order of their ids.
    async fn read(&self, shard: u16, ms: Range<u64>) -> Result<Vec<Event>>;

    /// Whether what an event tells of is there to stay. Asked by a relay before it publishes what its writer seems to have left
    /// behind. A journal whose events are there only with their rows, and whose rows stay, needs nothing else than this.
    async fn settle(&self, _event: &Event) -> Result<Standing> {
        Ok(Standing::Stays)
    }
}

/// What became of the row that an event tells of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Standing {
    /// It is there, and will be: the event may be published.
    Stays,
    /// It is not there yet. Ask again later.
    NotYet,
    /// It is not there, and never will be: the event must not be published.
    Gone,
}

/// Where relays keep how far they are: in the log itself, so that one is not lost without the other.
#[async_trait]
pub trait Marks: Send + Sync {
    /// How far they are.
    async fn marks(&self) -> Result<Marked>;

    /// Which of these events are known to be in the log, whoever published them. The log may have forgotten old ones.
    async fn known(&self, ids: &[EventId]) -> Result<HashSet<EventId>>;

    /// By shard: all events whose ids were minted before this, in Unix milliseconds, are in this epoch's log. A mark never goes
    /// back, and when the log has another epoch by now, nothing is changed.
    async fn mark(&self, epoch: &str, done: &HashMap<u16, u64>) -> Result<()>;
}

/// How far relays are.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Marked {
    /// The log's epoch, as in [`EventLog::epoch`](crate::event::EventLog::epoch).
    pub epoch: String,
    /// When this epoch began, in Unix milliseconds: everybody was told then to read anew.
    pub begun: u64,
    /// By shard, in Unix milliseconds. No entry: nothing was done yet.
    pub done: HashMap<u16, u64>,
}

impl Marked {
    /// All three.
    pub fn new(epoch: impl Into<String>, begun: u64, done: HashMap<u16, u64>) -> Self {
        Self { epoch: epoch.into(), begun, done }
    }
}
