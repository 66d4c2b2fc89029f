//! Events beside their rows, for whoever publishes what somebody left behind.

use std::ops::Range;

use async_trait::async_trait;
use jiscord_core::{
    Event, EventId, MessageId, fault,
    id::{SNOWFLAKE_EPOCH_MS, Snowflake, Worker},
    journal::{Journal, Standing},
};
use scylla::value::{CqlTimeuuid, MaybeUnset};
use uuid::Uuid;

use super::{
    ScyllaStore,
    db::Write,
    nonces::Key,
    rows::{EventRow, timeuuid},
};
use crate::error::{Error, Result};

/// Over how many partitions the events of a minute are spread: the four highest bits of a hash.
const SHARDS: u16 = 16;

const MINUTE_MS: u64 = 60_000;

/// The author, the channel, the nonce, and the message that it stands for.
pub(super) type NonceRow = (Uuid, Uuid, String, CqlTimeuuid);

/// Where an event is kept. Readers must come to the same shard as writers of other versions: it never changes.
fn shard(id: EventId) -> i32 {
    let (high, low) = id.uuid().as_u64_pair();
    // Fibonacci hashing: ids that follow each other lie far apart.
    let mixed = (high ^ low).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    (mixed >> 60) as i32
}

fn minute(ms: u64) -> i32 {
    i32::try_from(ms / MINUTE_MS).unwrap_or(i32::MAX)
}

impl ScyllaStore {
    /// Adds events to a batch. Those of a message are kept with the nonce that stands for it, since whoever publishes them for
    /// somebody else must know it ([`ScyllaStore::standing`]): not taken from the frame, which is what the caller tells.
    pub(super) fn keep<'a>(&'a self, write: &mut Write<'a>, events: &'a [Event], of: Option<(Key<'a>, MessageId)>) -> Result<()> {
        // A null would be a tombstone.
        let nonce = of
            .map_or(MaybeUnset::Unset, |(of, id)| MaybeUnset::Set((of.author.uuid(), of.channel.uuid(), of.nonce, timeuuid(id))));
        for event in events {
            if event.id == EventId::NONE {
                // What `IdSource::next` gives where nothing may be minted.
                return Err(Error::Unavailable("an event has no id".into()));
            }
            let micros = event.id.micros().unwrap_or_else(|| self.clock.now_micros());
            let topics: Vec<_> = event.topics.iter().map(ToString::to_string).collect();
            write.add(
                &self.db.statements.insert_event,
                (
                    shard(event.id),
                    minute(micros / 1000),
                    event.id.uuid(),
                    topics,
                    &*event.op,
                    event.channel.map(jiscord_core::ChannelId::uuid),
                    &*event.frame,
                    nonce,
                ),
            );
        }
        Ok(())
    }

    /// The nonce that stands for the message of which an event tells.
    pub(super) async fn nonce_of(&self, event: &Event) -> Result<Option<NonceRow>> {
        let Some(micros) = event.id.micros() else { return Ok(None) };
        let at = (shard(event.id), minute(micros / 1000), event.id.uuid());
        let row: Option<(Option<NonceRow>,)> = self.db.one(&self.db.statements.event_nonce, at).await?;
        Ok(row.and_then(|(nonce,)| nonce))
    }

    async fn events(&self, shard: u16, ms: Range<u64>) -> Result<Vec<Event>> {
        let statements = &self.db.statements;
        let mut events = Vec::new();
        let bound = |ms: u64| {
            // Of all ids minted in a millisecond, that of worker 0 is the first.
            let ms = ms.max(SNOWFLAKE_EPOCH_MS);
            Snowflake::new(ms, 0, Worker::default()).map(Snowflake::to_uuid)
        };
        let mut from = ms.start.max(SNOWFLAKE_EPOCH_MS);
        while from < ms.end {
            let start = from - from % MINUTE_MS;
            let to = (start + MINUTE_MS).min(ms.end);
            let partition = (i32::from(shard), minute(from));
            let rows: Vec<EventRow> = match (bound(from), bound(to)) {
                (Some(first), Some(last)) if from > start || to < start + MINUTE_MS => {
                    self.db.rows(&statements.events_between, (partition.0, partition.1, first, last)).await?
                }
                (Some(_), _) => self.db.rows(&statements.events_of_minute, partition).await?,
                // Past the year 2154 there are no ids.
                (None, _) => break,
            };
            for row in rows {
                events.push(row.try_into()?);
            }
            from = to;
        }
        Ok(events)
    }
}

/// Events are kept for two hours. One whose id was not minted is found by the minute in which it was written, and only where
/// the span has all of it.
#[async_trait]
impl Journal for ScyllaStore {
    fn shards(&self) -> u16 {
        SHARDS
    }

    async fn read(&self, shard: u16, ms: Range<u64>) -> fault::Result<Vec<Event>> {
        Ok(self.events(shard, ms).await?)
    }

    async fn settle(&self, event: &Event) -> fault::Result<Standing> {
        Ok(self.standing(event).await?)
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use super::*;

    #[test]
    fn shards_are_even_at_any_pace() {
        for step in [1, 7, 1_000] {
            let mut shards = HashMap::<_, u32>::new();
            for n in 0..16_000 {
                let id = Snowflake::new(1_795_443_456_400 + n * step, 0, Worker::default()).unwrap();
                *shards.entry(shard(EventId::from(id))).or_default() += 1;
            }
            assert_eq!(shards.len(), usize::from(SHARDS));
            assert!(shards.values().all(|events| (500..2_000).contains(events)), "{step}: {shards:?}");
        }
    }

    #[test]
    fn a_shard_never_changes() {
        let id = Snowflake::new(1_795_443_456_400, 7, Worker::new(3).unwrap()).unwrap();
        assert_eq!((shard(EventId::from(id)), minute(id.ms())), (7, 29_924_057));
    }
}
