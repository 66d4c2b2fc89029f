//! A connection for questions, made anew whenever it breaks.

use std::time::Duration;

use jiscord_core::{Code, Fault, fault};
use redis::{FromRedisValue, Pipeline, aio::MultiplexedConnection};
use tokio::{sync::Mutex, time::sleep};

use super::link::{Backoff, Error, Redis, Result};

/// How long Redis may be away before a question is given up.
const PATIENCE: Duration = Duration::from_secs(5);

/// Asks what may be asked twice.
pub(super) struct Asker {
    redis: Redis,
    link: Mutex<Shared>,
}

/// The connection in use, and how many there were before it.
#[derive(Default)]
struct Shared {
    connection: Option<MultiplexedConnection>,
    number: u64,
}

impl Asker {
    /// Nothing is connected yet.
    pub(super) fn new(redis: &Redis) -> Self {
        Self { redis: redis.clone(), link: Mutex::default() }
    }

    async fn connection(&self) -> Result<(u64, MultiplexedConnection)> {
        let mut link = self.link.lock().await;
        if let Some(connection) = &link.connection {
            return Ok((link.number, connection.clone()));
        }
        let connection = self.redis.connect_deaf().await?.connection;
        link.number += 1;
        link.connection = Some(connection.clone());
        Ok((link.number, connection))
    }

    /// Asks until there is an answer, or patience ends. Asking twice does no harm, whatever is asked here.
    pub(super) async fn ask<T: FromRedisValue>(&self, calls: &Pipeline) -> fault::Result<Vec<T>> {
        let mut backoff = Backoff::default();
        let mut last = None;
        let asking = async {
            loop {
                match self.connection().await {
                    Ok((number, mut connection)) => match calls.query_async(&mut connection).await {
                        Ok(answers) => return answers,
                        Err(error) => {
                            let mut link = self.link.lock().await;
                            if link.number == number {
                                link.connection = None;
                            }
                            last = Some(error.into());
                        }
                    },
                    Err(error) => last = Some(error),
                }
                sleep(backoff.next()).await;
            }
        };
        let asked = tokio::time::timeout(PATIENCE, asking).await;
        asked.map_err(|late| {
            let away = Fault::new(Code::UNAVAILABLE, "Redis is away").retry_after(Duration::from_secs(2));
            away.because(last.unwrap_or_else(|| Error::Away(late.into())))
        })
    }
}
