//! The stores of one process pass the suite, whatever the clock does.

use std::sync::{
    Arc,
    atomic::{AtomicU64, Ordering::SeqCst},
};

use jiscord_core::{
    UserId,
    backend::{Login, Revoked},
    time::{Clock, SystemClock},
};
use jiscord_store::{
    NewLogin, Refreshed, Store, conformance,
    memory::MemoryStore,
    sqlite::{Options, SqliteStore},
};
use uuid::Uuid;

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

/// Is set by hand.
struct Hand(AtomicU64);

impl Clock for Hand {
    fn now_micros(&self) -> u64 {
        self.0.load(SeqCst)
    }
}

#[tokio::test]
async fn what_was_ended_comes_back_at_no_time() {
    const NOON: u64 = 1_795_443_456;
    const DAY: u64 = 24 * 60 * 60;
    let hand = Arc::new(Hand(AtomicU64::new(NOON * 1_000_000)));
    let folder = tempfile::tempdir().unwrap();
    let stores = [
        Store::of(MemoryStore::new(hand.clone())),
        Store::of(SqliteStore::open(folder.path(), Options::default().clock(hand.clone())).unwrap()),
    ];
    let user_id = UserId::new(Uuid::from_u128(7));
    for store in stores {
        let at = |seconds: u64| hand.0.store((NOON + seconds) * 1_000_000, SeqCst);
        at(0);
        let [login, other] = [1, 2].map(Uuid::from_u128);
        for login_id in [login, other] {
            store.logins.begin(NewLogin { login_id, user_id, begun: NOON }).await.unwrap();
        }
        store.logins.revoke(user_id, Revoked::IssuedBy(NOON), Arc::new(|_| Vec::new())).await.unwrap();
        for day in 1..=30 {
            // As long as its cookie could be good. What else is written lets the store forget what is old.
            at(day * DAY - 1);
            store.logins.begin(NewLogin { login_id: Uuid::from_u128(u128::from(day) + 9), user_id, begun: NOON }).await.unwrap();
            assert_eq!(store.logins.refresh(login, 0).await.unwrap(), Refreshed::Gone, "day {day}");
            assert!(store.logins.is_revoked(user_id, Login::new(login, NOON)).await.unwrap(), "day {day}");
        }
        // Then the login is gone by itself, and nothing is kept of its end.
        at(30 * DAY + 2 * 60 * 60);
        store.logins.begin(NewLogin { login_id: Uuid::from_u128(3), user_id, begun: NOON }).await.unwrap();
        assert_eq!(store.logins.refresh(other, 0).await.unwrap(), Refreshed::Gone);
        assert!(!store.logins.is_revoked(user_id, Login::new(login, NOON)).await.unwrap());
    }
}
