//! Minting of ids.

use std::sync::{Arc, Mutex, PoisonError};

use uuid::Uuid;

use crate::{
    id::{LAST_MS, LAST_SEQUENCE, SNOWFLAKE_EPOCH_MS, Snowflake, Worker},
    time::Clock,
};

/// Where new ids come from. Only the process that owns the store mints.
pub trait IdSource: Send + Sync {
    /// A new id, greater than all before it from this source.
    fn next(&self) -> Uuid;
}

/// Mints version-1 UUIDs that map to snowflakes; see [`crate::id`].
///
/// Ids grow within a process also when the clock steps back. More than 4,096 in a millisecond borrow from the next one.
pub struct Minter {
    clock: Arc<dyn Clock>,
    worker: Worker,
    last: Mutex<(u64, u16)>,
}

impl Minter {
    /// A minter whose first id lies after the millisecond `used_ms`: the last one that this worker used before a restart,
    /// 0 if there was none.
    pub fn new(clock: Arc<dyn Clock>, worker: Worker, used_ms: u64) -> Self {
        Self { clock, worker, last: Mutex::new((used_ms, LAST_SEQUENCE)) }
    }

    /// The last millisecond in which an id was minted: what to keep for the next start.
    pub fn used_ms(&self) -> u64 {
        self.last.lock().unwrap_or_else(PoisonError::into_inner).0
    }
}

impl IdSource for Minter {
    fn next(&self) -> Uuid {
        let now = (self.clock.now_micros() / 1000).clamp(SNOWFLAKE_EPOCH_MS, LAST_MS);
        let mut last = self.last.lock().unwrap_or_else(PoisonError::into_inner);
        *last = match *last {
            (ms, _) if ms < now => (now, 0),
            (ms, LAST_SEQUENCE) => (ms + 1, 0),
            (ms, sequence) => (ms, sequence + 1),
        };
        let (ms, sequence) = *last;
        // Past the year 2154 there is no snowflake left; the last one is repeated, and the store's unique keys refuse it.
        Snowflake::new(ms.min(LAST_MS), sequence, self.worker).map_or(Uuid::nil(), Snowflake::to_uuid)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicU64, Ordering};

    use proptest::prelude::*;

    use super::*;
    use crate::id::MessageId;

    #[derive(Default)]
    struct Hand(AtomicU64);

    impl Clock for Hand {
        fn now_micros(&self) -> u64 {
            self.0.load(Ordering::Relaxed)
        }
    }

    const START: u64 = 1_795_443_456_400;

    proptest! {
        #[test]
        fn ids_grow_whatever_the_clock_does(steps in prop::collection::vec((-5_000i64..5_000, 1usize..20), 1..40)) {
            let clock = Arc::new(Hand(AtomicU64::new(START * 1000)));
            let minter = Minter::new(clock.clone(), Worker::default(), 0);
            let mut last = None;
            for (ms, ids) in steps {
                let now = clock.now_micros().saturating_add_signed(ms * 1000);
                clock.0.store(now, Ordering::Relaxed);
                for _ in 0..ids {
                    let key = MessageId::new(minter.next()).sort_key();
                    prop_assert!(last < Some(key));
                    last = Some(key);
                }
            }
        }
    }

    #[test]
    fn a_full_millisecond_borrows_from_the_next() {
        let minter = Minter::new(Arc::new(Hand(AtomicU64::new(START * 1000))), Worker::default(), 0);
        let ids: Vec<_> = (0..10_000).map(|_| MessageId::new(minter.next())).collect();
        assert!(ids.windows(2).all(|pair| pair[0].sort_key() < pair[1].sort_key()));
        assert_eq!(minter.used_ms(), START + 2);
    }

    #[test]
    fn a_restart_begins_after_the_last_used_millisecond() {
        let clock = Arc::new(Hand(AtomicU64::new(START * 1000)));
        let before = Minter::new(clock.clone(), Worker::default(), START + 60_000);
        let first = MessageId::new(before.next());
        assert_eq!(first.snowflake().unwrap().ms(), START + 60_001);
        let after = Minter::new(clock, Worker::default(), before.used_ms());
        assert!(first.sort_key() < MessageId::new(after.next()).sort_key());
    }

    #[test]
    fn two_workers_never_mint_the_same_id() {
        let clock = Arc::new(Hand(AtomicU64::new(START * 1000)));
        let minters: Vec<_> = [0, 1, 31, 32, 1023].map(|n| Minter::new(clock.clone(), Worker::new(n).unwrap(), 0)).into();
        let ids: std::collections::HashSet<_> = minters.iter().flat_map(|m| (0..5_000).map(|_| m.next())).collect();
        assert_eq!(ids.len(), 25_000);
    }

    #[test]
    fn a_clock_out_of_range_is_held_at_the_border() {
        for micros in [0, u64::MAX] {
            let minter = Minter::new(Arc::new(Hand(AtomicU64::new(micros))), Worker::default(), 0);
            assert!(MessageId::new(minter.next()).snowflake().is_some());
        }
    }
}
