//! One of something a key.

use std::{
    collections::HashMap,
    hash::Hash,
    ops::Deref,
    sync::{Arc, Mutex, PoisonError},
};

/// One `T` a key, for as long as somebody holds it.
pub(super) struct Keyed<K, T>(Mutex<HashMap<K, Arc<T>>>);

impl<K, T> Default for Keyed<K, T> {
    fn default() -> Self {
        Self(Mutex::default())
    }
}

impl<K: Clone + Eq + Hash, T: Default> Keyed<K, T> {
    /// That key's, made if nobody holds it.
    pub(super) fn hold(&self, key: K) -> Held<'_, K, T> {
        let mut all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let one = all.entry(key.clone()).or_default().clone();
        Held { all: self, key, one }
    }
}

/// Keeps a key's `T` where others find it.
pub(super) struct Held<'a, K: Eq + Hash, T> {
    all: &'a Keyed<K, T>,
    key: K,
    one: Arc<T>,
}

impl<K: Eq + Hash, T> Deref for Held<'_, K, T> {
    type Target = T;

    fn deref(&self) -> &T {
        &self.one
    }
}

impl<K: Eq + Hash, T> Drop for Held<'_, K, T> {
    fn drop(&mut self) {
        let mut all = self.all.0.lock().unwrap_or_else(PoisonError::into_inner);
        // Ours and the map's: new ones are made under this lock only.
        if Arc::strong_count(&self.one) == 2 {
            all.remove(&self.key);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_has_one_while_it_is_held() {
        let keyed = Keyed::<u8, Mutex<u8>>::default();
        let first = keyed.hold(1);
        *first.lock().unwrap() = 7;
        assert_eq!(*keyed.hold(1).lock().unwrap(), 7);
        assert_eq!(*keyed.hold(2).lock().unwrap(), 0);
        assert_eq!(keyed.0.lock().unwrap().len(), 1, "nobody holds the second");
        drop(first);
        assert_eq!(*keyed.hold(1).lock().unwrap(), 0);
        assert!(keyed.0.lock().unwrap().is_empty());
    }
}
