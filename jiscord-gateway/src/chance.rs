//! What is left to chance: random numbers, and the order in which maps give out what they hold.
//!
//! In tests both follow from a seed, so that the same seed gives the same run.

#[cfg(not(test))]
pub(crate) use {
    rand::rng,
    std::collections::{HashMap, HashSet},
};

#[cfg(test)]
pub(crate) use self::seeded::{HashMap, HashSet, rng};

#[cfg(test)]
pub(crate) mod seeded {
    use std::{
        cell::RefCell,
        hash::{BuildHasherDefault, DefaultHasher},
    };

    use rand::{RngCore, SeedableRng, rngs::StdRng};

    type Fixed = BuildHasherDefault<DefaultHasher>;
    pub(crate) type HashMap<K, V> = std::collections::HashMap<K, V, Fixed>;
    pub(crate) type HashSet<T> = std::collections::HashSet<T, Fixed>;

    thread_local! {
        static DICE: RefCell<StdRng> = RefCell::new(StdRng::from_os_rng());
    }

    /// All chance on this thread follows from this from here on.
    #[cfg(all(feature = "server", feature = "redis"))]
    pub(crate) fn seed(seed: u64) {
        DICE.set(StdRng::seed_from_u64(seed));
    }

    /// Stands in for `rand::rng`.
    pub(crate) fn rng() -> Dice {
        Dice
    }

    pub(crate) struct Dice;

    impl RngCore for Dice {
        fn next_u32(&mut self) -> u32 {
            DICE.with_borrow_mut(RngCore::next_u32)
        }

        fn next_u64(&mut self) -> u64 {
            DICE.with_borrow_mut(RngCore::next_u64)
        }

        fn fill_bytes(&mut self, bytes: &mut [u8]) {
            DICE.with_borrow_mut(|dice| dice.fill_bytes(bytes));
        }
    }
}
