//! The right to mint ids under a number that no other process has.
//!
//! The row `workers(n)` names its owner for a minute (`TTL`) and is renewed every sixth of it. Ids are minted while the last
//! renewal is less than half a minute old, and only up to a millisecond that was written with it: so the number is free for
//! others only when all ids of ours are in the past, whatever the clocks say.

use std::{
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use async_trait::async_trait;
use jiscord_core::{
    id::{Snowflake, Worker},
    mint::{IdSource, Minter},
    time::Clock,
};
use tokio::{sync::Notify, time::Instant};
use uuid::Uuid;

use super::db::{Db, Lwt};
use crate::error::{Error, Result, Source};

/// How long a number is ours after a renewal.
pub(super) const TTL: Duration = Duration::from_secs(60);

/// Compares a clock with one that all processes know, such as that of a server they share. Ids carry their time, and no
/// number is taken or kept by a clock that is wrong.
#[async_trait]
pub trait ClockCheck: Send + Sync {
    /// The error says how wrong the clock is, and what to do. Where nothing is known there is none.
    async fn check(&self, clock: &dyn Clock) -> Result<(), Source>;
}

pub(super) struct Lease {
    db: Arc<Db>,
    clock: Arc<dyn Clock>,
    check: Option<Arc<dyn ClockCheck>>,
    ttl: Duration,
    owner: Uuid,
    state: Mutex<State>,
    hurry: Notify,
}

struct State {
    worker: Worker,
    minter: Minter,
    /// Nothing is minted from this moment on.
    until: Instant,
    /// Nothing is minted for a millisecond above this one.
    reserved_ms: u64,
}

impl Lease {
    /// Takes a number. [`Error::Busy`] if all are taken.
    pub(super) async fn take(
        db: Arc<Db>,
        clock: Arc<dyn Clock>,
        check: Option<Arc<dyn ClockCheck>>,
        ttl: Duration,
    ) -> Result<Arc<Self>> {
        let minter = Minter::new(clock.clone(), Worker::default(), 0);
        let state = State { worker: Worker::default(), minter, until: Instant::now(), reserved_ms: 0 };
        let lease = Self { db, clock, check, ttl, owner: Uuid::new_v4(), state: Mutex::new(state), hurry: Notify::new() };
        lease.take_any().await?;
        Ok(Arc::new(lease))
    }

    fn state(&self) -> MutexGuard<'_, State> {
        // Nothing panics while it is held.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A new id, greater than all before it. [`Error::Unavailable`] while the number may be somebody else's.
    pub(super) fn mint(&self) -> Result<Uuid> {
        let state = self.state();
        if Instant::now() >= state.until {
            return Err(Error::Unavailable("no worker number: ids cannot be minted".into()));
        }
        let id = state.minter.next();
        if Snowflake::from_uuid(id).is_some_and(|id| id.ms() <= state.reserved_ms) {
            return Ok(id);
        }
        // The clock stepped forward since the last renewal.
        self.hurry.notify_one();
        Err(Error::Unavailable("the clock is ahead of the worker number".into()))
    }

    /// Whether ids can be minted now.
    pub(super) fn is_held(&self) -> bool {
        Instant::now() < self.state().until
    }

    /// Renews it in time, and takes another number where this one is lost. Never ends.
    pub(super) async fn keep(&self) {
        let mut wait = self.ttl / 6;
        loop {
            // Either way it is renewed.
            let _ = tokio::time::timeout(wait, self.hurry.notified()).await;
            let worker = self.state().worker;
            let renewed = match self.check_clock().await {
                Ok(()) => self.renew(worker).await,
                Err(error) => Err(error),
            };
            let kept = match renewed {
                Ok(Lwt::Applied) => Ok(()),
                // Ours no longer: it expired.
                Ok(Lwt::Not) => {
                    self.state().until = Instant::now();
                    self.take_any().await
                }
                Ok(Lwt::Unknown(source)) => Err(Error::Unknown(source)),
                Err(error) => Err(error),
            };
            wait = match kept {
                Ok(()) => self.ttl / 6,
                Err(error) => {
                    let because = std::error::Error::source(&error).map(ToString::to_string);
                    tracing::warn!(worker = worker.get(), %error, because, "worker number not renewed");
                    self.ttl / 60
                }
            };
        }
    }

    /// Gives the number back, with the last millisecond in which an id was minted. Mints nothing afterwards.
    pub(super) async fn release(&self) -> Result<()> {
        let (worker, used_ms) = {
            let mut state = self.state();
            state.until = Instant::now();
            (number(state.worker), state.minter.used_ms())
        };
        let statements = &self.db.statements;
        let (release, used) = (&statements.release_worker, &statements.use_worker);
        // Not applied: it expired, or a try before this one did it.
        self.db.lwt_of_two((release, (worker, self.owner)), (used, (millis(used_ms), worker))).await.map(drop)
    }

    async fn check_clock(&self) -> Result<()> {
        match &self.check {
            Some(check) => check.check(&*self.clock).await.map_err(Error::Unavailable),
            None => Ok(()),
        }
    }

    /// Takes the first free number from a random one on.
    async fn take_any(&self) -> Result<()> {
        self.check_clock().await?;
        let first = Uuid::new_v4().as_u64_pair().1 as u16;
        for n in 0..=Worker::MAX {
            let Some(worker) = Worker::new(first.wrapping_add(n) & Worker::MAX) else { continue };
            let Some(used_ms) = self.claim(worker).await? else { continue };
            {
                let mut state = self.state();
                // Ids of this process grow over a change of numbers too.
                let used_ms = used_ms.max(state.minter.used_ms());
                state.worker = worker;
                state.minter = Minter::new(self.clock.clone(), worker, used_ms);
            }
            if matches!(self.renew(worker).await?, Lwt::Applied) {
                return Ok(());
            }
        }
        Err(Error::Busy)
    }

    /// Takes a number if it is free, and says up to which millisecond it was used.
    async fn claim(&self, worker: Worker) -> Result<Option<u64>> {
        let statements = &self.db.statements;
        let claimed = self.db.lwt(&statements.claim_worker, (self.seconds(), self.owner, number(worker))).await?;
        if matches!(claimed, Lwt::Not) {
            return Ok(None);
        }
        let row = self.db.one::<(Option<Uuid>, Option<i64>)>(&statements.worker_decided, (number(worker),)).await?;
        Ok(match row {
            Some((Some(owner), used_ms)) if owner == self.owner => Some(used_ms.unwrap_or(0).try_into().unwrap_or(0)),
            _ => None,
        })
    }

    async fn renew(&self, worker: Worker) -> Result<Lwt> {
        let sent = Instant::now();
        let reserved_ms = {
            let half = u64::try_from(self.ttl.as_millis() / 2).unwrap_or(u64::MAX);
            let used_ms = self.state().minter.used_ms().max(self.clock.now_micros() / 1000);
            used_ms.saturating_add(half)
        };
        let statements = &self.db.statements;
        let renew = (&statements.renew_worker, (self.seconds(), self.owner, number(worker), self.owner));
        let used = (&statements.use_worker, (millis(reserved_ms), number(worker)));
        let renewed = self.db.lwt_of_two(renew, used).await?;
        if matches!(renewed, Lwt::Applied) {
            let mut state = self.state();
            state.until = sent + self.ttl / 2;
            state.reserved_ms = reserved_ms;
        }
        Ok(renewed)
    }

    fn seconds(&self) -> i32 {
        i32::try_from(self.ttl.as_secs()).unwrap_or(i32::MAX)
    }
}

fn number(worker: Worker) -> i32 {
    i32::from(worker.get())
}

fn millis(ms: u64) -> i64 {
    i64::try_from(ms).unwrap_or(i64::MAX)
}
