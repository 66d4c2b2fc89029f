//! Where the tests' database is, and a keyspace of one's own in it.

use std::{
    io::Write,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering::SeqCst},
    },
    time::Duration,
};

use jiscord_core::time::{Clock, SystemClock};
use jiscord_store::scylla::{Options, ScyllaStore};
use scylla::client::{session::Session, session_builder::SessionBuilder};
use uuid::Uuid;

/// Names a database, `host:port`, that the tests may make keyspaces in.
const WHERE: &str = "JISCORD_TEST_CQL";

/// The database; `None`, said aloud, where there is none. Under CI=true that is a failure.
pub(crate) fn database(test: &str) -> Option<String> {
    match std::env::var(WHERE) {
        Ok(address) if !address.is_empty() => return Some(address),
        _ => {}
    }
    assert!(std::env::var("CI").as_deref() != Ok("true"), "{WHERE} is not set: nothing may be skipped here");
    // Not by `eprintln`, which libtest swallows where a test passes.
    let _ = writeln!(std::io::stderr(), "SKIPPED {test}: {WHERE}=host:port of a ScyllaDB or Cassandra is not set");
    None
}

/// A keyspace that is dropped at the end of a test.
pub(crate) struct Keyspace {
    pub(crate) name: String,
    pub(crate) address: String,
    /// Apart from all stores, to look into tables.
    pub(crate) session: Session,
}

impl Keyspace {
    /// A name that nobody has; the keyspace is made by whoever opens a store.
    pub(crate) async fn new(test: &str) -> Option<Self> {
        let address = database(test)?;
        let session = SessionBuilder::new().known_node(&address).build().await.unwrap();
        Some(Self { name: format!("test_{}", Uuid::new_v4().simple()), address, session })
    }

    pub(crate) fn options(&self) -> Options {
        Options::new([self.address.clone()], self.name.clone()).timeout(Duration::from_secs(10))
    }

    pub(crate) async fn open(&self) -> Arc<ScyllaStore> {
        ScyllaStore::open(self.options()).await.unwrap()
    }

    /// Does something in the keyspace; `{}` stands for its name.
    pub(crate) async fn run(&self, cql: &str) {
        self.session.query_unpaged(cql.replace("{}", &self.name), ()).await.unwrap();
    }

    /// One number, such as a count; `{}` stands for the keyspace.
    pub(crate) async fn number(&self, cql: &str) -> i64 {
        let answer = self.session.query_unpaged(cql.replace("{}", &self.name), ()).await.unwrap();
        answer.into_rows_result().unwrap().single_row::<(i64,)>().unwrap().0
    }

    pub(crate) async fn drop(self) {
        self.run("DROP KEYSPACE IF EXISTS {}").await;
    }
}

/// The machine's clock, some way off.
#[derive(Default)]
pub(crate) struct Off(AtomicU64);

impl Off {
    pub(crate) fn ahead(&self, by: Duration) {
        self.0.store(by.as_micros() as u64, SeqCst);
    }
}

impl Clock for Off {
    fn now_micros(&self) -> u64 {
        SystemClock.now_micros() + self.0.load(SeqCst)
    }
}

/// A clock that steps back by a millisecond whenever it is read.
pub(crate) struct Backwards(AtomicU64);

impl Default for Backwards {
    fn default() -> Self {
        Self(AtomicU64::new(1_795_443_456_400_000))
    }
}

impl Clock for Backwards {
    fn now_micros(&self) -> u64 {
        self.0.fetch_sub(1_000, SeqCst)
    }
}
