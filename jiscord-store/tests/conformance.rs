//! Both stores pass the suite.

use std::sync::Arc;

use jiscord_core::time::SystemClock;
use jiscord_store::{
    Store, conformance,
    memory::MemoryStore,
    sqlite::{Options, SqliteStore},
};

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn memory() {
    conformance::all(&Store::of(MemoryStore::new(Arc::new(SystemClock)))).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn sqlite() {
    let folder = tempfile::tempdir().unwrap();
    let store = SqliteStore::open(folder.path(), Options::default()).unwrap();
    conformance::all(&Store::of(store)).await;
}
