//! What is left to chance: random numbers, the order in which maps give out what they hold, and that in which those are woken
//! who watch one thing.
//!
//! In tests both follow from a seed, so that the same seed gives the same run.

#[cfg(not(test))]
pub(crate) use tokio::sync::watch;
#[cfg(not(test))]
pub(crate) use {
    rand::rng,
    std::collections::{HashMap, HashSet},
};

#[cfg(test)]
pub(crate) use self::seeded::{HashMap, HashSet, rng, watch};

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

    /// As much of `tokio::sync::watch` as is used: tokio wakes who waits in an order of its own dice.
    pub(crate) mod watch {
        use std::{
            pin::pin,
            sync::{Arc, Mutex},
        };

        use tokio::sync::Notify;

        pub(crate) struct Sender<T>(Arc<Last<T>>);
        pub(crate) struct Receiver<T>(Arc<Shared<T>>);

        /// The last sender closes it.
        struct Last<T>(Arc<Shared<T>>);

        struct Shared<T> {
            /// None when it is closed.
            value: Mutex<Option<T>>,
            changed: Notify,
        }

        impl<T> Clone for Sender<T> {
            fn clone(&self) -> Self {
                Self(self.0.clone())
            }
        }

        impl<T> Drop for Last<T> {
            fn drop(&mut self) {
                *self.0.value.lock().unwrap() = None;
                self.0.changed.notify_waiters();
            }
        }

        impl<T> Sender<T> {
            pub(crate) fn new(value: T) -> Self {
                Self(Arc::new(Last(Arc::new(Shared { value: Mutex::new(Some(value)), changed: Notify::new() }))))
            }

            pub(crate) fn subscribe(&self) -> Receiver<T> {
                Receiver(self.0.0.clone())
            }

            pub(crate) fn send_replace(&self, value: T) {
                *self.0.0.value.lock().unwrap() = Some(value);
                self.0.0.changed.notify_waiters();
            }

            #[cfg(feature = "server")]
            pub(crate) fn send_if_modified(&self, modify: impl FnOnce(&mut T) -> bool) {
                if self.0.0.value.lock().unwrap().as_mut().is_some_and(modify) {
                    self.0.0.changed.notify_waiters();
                }
            }
        }

        impl<T: Clone> Receiver<T> {
            pub(crate) async fn wait_for(&mut self, mut is_it: impl FnMut(&T) -> bool) -> Result<Box<T>, ()> {
                loop {
                    let mut changed = pin!(self.0.changed.notified());
                    changed.as_mut().enable();
                    match self.0.value.lock().unwrap().as_ref() {
                        None => return Err(()),
                        Some(value) if is_it(value) => return Ok(Box::new(value.clone())),
                        Some(_) => {}
                    }
                    changed.await;
                }
            }
        }
    }
}
