//! How far relays are, kept with the log.

use std::collections::{HashMap, HashSet};

use async_trait::async_trait;
use jiscord_core::{
    EventId,
    fault::Result,
    journal::{Marked, Marks},
};
use redis::Pipeline;

use super::{
    asker::Asker,
    link::{Redis, evalsha},
    scripts,
};

/// Marks that all relays on one Redis share.
pub struct RedisMarks {
    redis: Redis,
    asker: Asker,
}

impl RedisMarks {
    /// Nothing is connected yet.
    pub fn new(redis: &Redis) -> Self {
        Self { redis: redis.clone(), asker: Asker::new(redis) }
    }
}

#[async_trait]
impl Marks for RedisMarks {
    async fn marks(&self) -> Result<Marked> {
        let mut call = Pipeline::new();
        call.hgetall(self.redis.log_key());
        let log: HashMap<String, String> = self.asker.ask(&call).await?.pop().unwrap_or_default();
        // Kept as a position, which is in microseconds.
        let begun: u64 = log.get("begun").and_then(|begun| begun.parse().ok()).unwrap_or_default();
        let mark = |(name, ms): (&String, &String)| Some((name.strip_prefix("relay:")?.parse().ok()?, ms.parse().ok()?));
        Ok(Marked::new(log.get("epoch").cloned().unwrap_or_default(), begun / 1_000, log.iter().filter_map(mark).collect()))
    }

    async fn known(&self, ids: &[EventId]) -> Result<HashSet<EventId>> {
        if ids.is_empty() {
            return Ok(HashSet::new());
        }
        let keys: Vec<_> = ids.iter().map(|id| self.redis.seen_key(id)).collect();
        let mut call = Pipeline::new();
        call.mget(keys);
        let seen: Vec<Option<String>> = self.asker.ask(&call).await?.pop().unwrap_or_default();
        Ok(ids.iter().zip(seen).filter_map(|(id, seen)| seen.map(|_| *id)).collect())
    }

    async fn mark(&self, epoch: &str, done: &HashMap<u16, u64>) -> Result<()> {
        let mut mark = evalsha(&scripts::MARK, &[self.redis.log_key()]);
        mark.arg(epoch);
        for (shard, ms) in done {
            mark.arg(shard).arg(ms);
        }
        let mut call = Pipeline::new();
        call.add_command(mark);
        self.asker.ask::<()>(&call).await.map(drop)
    }
}
