//! The clock of a log.

use jiscord_core::{id::LAST_MS, model::Rev};

/// Gives positions to events, and `rev`s to rows whose id says nothing about their age. Never steps back and never gives
/// the same twice, so a `rev` of today is above every one of yesterday, whatever the wall clock did. Holds the last one given.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Ticks(pub(crate) u64);

impl Ticks {
    /// `max(last + 1, now)`, with `now` in microseconds; held below 2^53, where snowflakes end anyway.
    pub(crate) fn next(&mut self, now: u64) -> u64 {
        self.0 = (self.0 + 1).max(now.min(LAST_MS * 1000));
        self.0
    }

    /// The next one that is also above an older version's `rev`.
    pub(crate) fn above(&mut self, rev: Rev, now: u64) -> Rev {
        self.0 = self.0.max(rev);
        self.next(now)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ticks_grow_whatever_the_clock_says() {
        let mut ticks = Ticks::default();
        let given: Vec<_> = [7, 7, 3, 100, 0].into_iter().map(|now| ticks.next(now)).collect();
        assert_eq!(given, [7, 8, 9, 100, 101]);
        assert_eq!(ticks.above(500, 0), 501);
        assert_eq!(ticks.above(2, 0), 502);
        assert!(ticks.next(u64::MAX) < 1 << 53);
    }
}
