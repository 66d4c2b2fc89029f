//! The stores of one process pass the suite, whatever the clock does.

use std::sync::{
    Arc,
    atomic::{AtomicU64, Ordering::SeqCst},
};

use jiscord_core::time::{Clock, SystemClock};
use jiscord_store::{
    Store, conformance,
    memory::MemoryStore,
    sqlite::{Options, SqliteStore},
};

/// Steps back by a millisecond whenever it is read.
struct Backwards(AtomicU64);

impl Clock for Backwards {
    fn now_micros(&self) -> u64 {
        self.0.fetch_sub(1_000, SeqCst)
    }
}

fn clocks() -> [Arc<dyn Clock>; 2] {
    [Arc::new(SystemClock), Arc::new(Backwards(AtomicU64::new(1_795_443_456_400_000)))]
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn memory() {
    for clock in clocks() {
        conformance::all(&Store::of(MemoryStore::new(clock))).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn sqlite() {
    for clock in clocks() {
        let folder = tempfile::tempdir().unwrap();
        let store = SqliteStore::open(folder.path(), Options::default().clock(clock)).unwrap();
        conformance::all(&Store::of(store)).await;
    }
}
