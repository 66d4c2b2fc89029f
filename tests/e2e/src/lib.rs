//! End-to-end tests against the real server, from outside: its processes, its HTTP calls and its WebSocket frames.
//!
//! A test asks for a [`Deployment`] and knows nothing of it but three addresses and what can be done to it, so that the same
//! tests run against every set-up of the same system: the all-in-one, or, with JISCORD_E2E=services, the three services and
//! a second gateway on a database (JISCORD_TEST_CQL) and a Redis.
#![expect(clippy::unwrap_used, reason = "a test that fails may panic")]

mod beneath;
mod deployment;
mod http;
mod person;
mod process;
mod program;
mod proxy;
mod raw;
mod socket;

use std::time::Duration;

pub use self::{
    beneath::{Beneath, Copy, has_database},
    deployment::{Deployment, Logged},
    http::{Answer, Caller},
    person::Person,
    process::{Process, plain},
    program::use_programs,
    proxy::{Proxy, Tamper, Tampering},
    raw::{Raw, frame},
    socket::{End, Socket},
};

/// How long a test waits for what must come. Long, since machines that run tests are busy.
pub const PATIENCE: Duration = Duration::from_secs(60);

/// Waits for what must come.
///
/// # Panics
///
/// If it does not come in time.
pub async fn within<T>(patience: Duration, future: impl Future<Output = T>) -> T {
    match tokio::time::timeout(patience, future).await {
        Ok(done) => done,
        Err(_) => panic!("it did not come within {patience:?}"),
    }
}

/// An id that nobody has.
pub fn nobodys_id() -> String {
    uuid::Uuid::new_v4().to_string()
}
