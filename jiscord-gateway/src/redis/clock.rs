//! Redis's clock, which all who share it can compare theirs with.

use jiscord_core::{fault::Result, time::Clock};
use redis::Pipeline;

use super::{asker::Asker, link::Redis};

/// Compares clocks with that of Redis.
pub struct RedisClock {
    asker: Asker,
}

impl RedisClock {
    /// Nothing is connected yet.
    pub fn new(redis: &Redis) -> Self {
        Self { asker: Asker::new(redis) }
    }

    /// By how many microseconds a clock is certainly ahead of Redis's, below zero: behind it. What the answer's way may explain
    /// is not counted. An error: Redis is away.
    pub async fn ahead(&self, clock: &dyn Clock) -> Result<i64> {
        let mut call = Pipeline::new();
        call.cmd("TIME");
        let before = clock.now_micros();
        let answer: Option<(u64, u64)> = self.asker.ask(&call).await?.pop();
        let after = clock.now_micros();
        let redis = answer.map_or(before, |(seconds, micros)| seconds.saturating_mul(1_000_000).saturating_add(micros));
        let difference = |a: u64, b: u64| i64::try_from(a.saturating_sub(b)).unwrap_or(i64::MAX);
        Ok(difference(before, redis) - difference(redis, after))
    }
}
