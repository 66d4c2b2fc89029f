//! How long to wait before something is tried again.

use std::time::Duration;

use crate::sys;

/// Waits that double, up to a bound, and are spread at random so that clients do not come back all at once.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Backoff {
    pub(crate) first: Duration,
    pub(crate) most: Duration,
}

impl Backoff {
    /// The longest wait before try number `tries`, counted from 0.
    fn bound(self, tries: u32) -> Duration {
        self.first.saturating_mul(1 << tries.min(16)).min(self.most)
    }

    pub(crate) fn wait(self, tries: u32) -> Duration {
        // Half is certain, half is spread: zero waits would hammer a server that refuses at once.
        let half = self.bound(tries) / 2;
        half + sys::random_below(half)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_double_up_to_a_bound() {
        let backoff = Backoff { first: Duration::from_secs(1), most: Duration::from_secs(30) };
        let bounds: Vec<_> = (0..7).map(|tries| backoff.bound(tries).as_secs()).collect();
        assert_eq!(bounds, [1, 2, 4, 8, 16, 30, 30]);
        assert_eq!(backoff.bound(u32::MAX).as_secs(), 30);
        for tries in 0..10 {
            let wait = backoff.wait(tries);
            assert!(wait >= backoff.bound(tries) / 2 && wait <= backoff.bound(tries));
        }
    }
}
