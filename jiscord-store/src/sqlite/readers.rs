//! Connections that read, used on tokio's blocking threads.

use std::sync::{Arc, Mutex, PoisonError};

use rusqlite::Connection;
use tokio::sync::{Semaphore, TryAcquireError};

use super::{
    fail::{Fail, Health, health},
    place::Place,
};
use crate::error::{Error, Result};

pub(super) struct Readers {
    place: Arc<Place>,
    idle: Mutex<Vec<Connection>>,
    /// As many reads at once.
    seats: Arc<Semaphore>,
    /// As many at once or waiting.
    room: Semaphore,
}

impl Readers {
    pub(super) fn new(place: Arc<Place>, seats: usize, waiting: usize) -> Self {
        Self { place, idle: Mutex::default(), seats: Arc::new(Semaphore::new(seats)), room: Semaphore::new(seats + waiting) }
    }

    /// Runs a query on a connection of the pool. It sees everything that was acknowledged before.
    pub(super) async fn read<T, F>(self: &Arc<Self>, query: F) -> Result<T>
    where
        T: Send + 'static,
        F: FnOnce(&Connection) -> Result<T, Fail> + Send + 'static,
    {
        let _room = self.room.try_acquire().map_err(|error| match error {
            TryAcquireError::NoPermits => Error::Busy,
            TryAcquireError::Closed => closed(),
        })?;
        let seat = self.seats.clone().acquire_owned().await.map_err(|_| closed())?;
        let readers = self.clone();
        let read = tokio::task::spawn_blocking(move || {
            // Held by the thread: a caller that gives up does not make room for one more.
            let _seat = seat;
            readers.run(query)
        });
        read.await.map_err(|error| match error.is_panic() {
            true => Error::Internal(error.into()),
            false => Error::Unavailable(error.into()),
        })?
    }

    fn run<T>(&self, query: impl FnOnce(&Connection) -> Result<T, Fail>) -> Result<T> {
        let idle = self.idle().pop();
        let db = match idle {
            Some(db) => db,
            None => self.place.reader().map_err(|error| Error::Unavailable(error.into()))?,
        };
        let found = query(&db);
        let broken = matches!(&found, Err(Fail::Sql(error)) if health(error) == Health::Broken);
        if !broken && !self.seats.is_closed() {
            self.idle().push(db);
        }
        found.map_err(Error::from)
    }

    /// Ends all idle connections; one that reads ends with its query.
    pub(super) fn close(&self) {
        self.room.close();
        self.seats.close();
        self.idle().clear();
    }

    fn idle(&self) -> std::sync::MutexGuard<'_, Vec<Connection>> {
        self.idle.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn closed() -> Error {
    Error::Unavailable("the store is closed".into())
}
