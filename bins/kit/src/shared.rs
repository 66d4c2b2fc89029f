//! What services share beneath them: the database and Redis.

use std::{sync::Arc, time::Duration};

use async_trait::async_trait;
use jiscord_api::relay::Relay;
use jiscord_core::{
    Code, Event, Fault, Position,
    event::{EventLog, Logged, Publish},
    fault,
    time::Clock,
};
use jiscord_gateway::redis::{Error, Redis, RedisClock, RedisMarks, RedisPublisher};
use jiscord_store::scylla::{ClockCheck, OpenError, Options, ScyllaStore};
use rustls::{ClientConfig, RootCertStore};
use secrecy::ExposeSecret;
use tokio::{sync::watch, task::JoinHandle, time::sleep};
use tokio_util::sync::CancellationToken;

use crate::{config::Config, exit::Refused};

/// How long to wait before a database that is away is looked for again.
const AGAIN: Duration = Duration::from_secs(2);
/// How many events a relay may have on their way; it hands over 256 at once.
const RELAYED: usize = 1_024;

/// The configured Redis. Nothing is connected yet.
pub fn redis(config: &Config) -> Result<Redis, Refused> {
    // What the address leads to asks the process for it. Only the first call has an effect, and all are alike.
    _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
    let redis = Redis::new(config.redis_url.expose_secret()).map_err(unfit)?;
    Ok(redis.queue(config.limit_event_queue))
}

/// TLS that trusts the system's certificates, or those of SSL_CERT_FILE and SSL_CERT_DIR.
fn tls() -> Result<Arc<ClientConfig>, Refused> {
    let found = rustls_native_certs::load_native_certs();
    let mut roots = RootCertStore::empty();
    let (good, _) = roots.add_parsable_certificates(found.certs);
    if good == 0 {
        let why = found.errors.first().map(|error| format!(" ({error})")).unwrap_or_default();
        return Err(Refused::because(format!(
            "SCYLLA_TLS: no certificates to trust were found{why}; install ca-certificates, or name a file of them in SSL_CERT_FILE"
        )));
    }
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let versions = ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions();
    let config = versions.map_err(|error| Refused::because(format!("SCYLLA_TLS: {error}")))?;
    Ok(Arc::new(config.with_root_certificates(roots).with_no_client_auth()))
}

/// What to do about a Redis that cannot be used, for whoever started the program.
pub fn unfit(error: Error) -> Refused {
    Refused::because(format!("REDIS_URL: {error}"))
}

/// By how many microseconds this machine's clock may differ from that of Redis.
const APART: i64 = 1_000_000;

/// Compares this machine's clock with that of Redis. Ids carry their time, and an id from a wrong clock would stand at the wrong
/// place in a channel for ever.
struct SharedClock(RedisClock);

#[async_trait]
impl ClockCheck for SharedClock {
    async fn check(&self, clock: &dyn Clock) -> Result<(), Box<dyn std::error::Error + Send + Sync>> {
        // While Redis is away nothing speaks against this clock.
        let ahead = self.0.ahead(clock).await.unwrap_or(0);
        if ahead.abs() <= APART {
            return Ok(());
        }
        let (seconds, where_to) = (ahead.unsigned_abs() / 1_000_000, if ahead > 0 { "ahead of" } else { "behind" });
        Err(format!("this machine's clock is {seconds} s {where_to} that of Redis; let both keep time by NTP").into())
    }
}

/// Opens the configured database. One that is away is waited for until `stop`, which is `None`: databases take long to start.
pub async fn database(config: &Config, redis: &Redis, stop: &CancellationToken) -> anyhow::Result<Option<Arc<ScyllaStore>>> {
    let mut options = Options::new(&config.scylla_contact_points, &config.scylla_keyspace)
        .clock_check(Arc::new(SharedClock(RedisClock::new(redis))));
    if let Some(password) = &config.scylla_password {
        options = options.credentials(&config.scylla_user, password.expose_secret());
    }
    if config.scylla_tls {
        options = options.tls(tls()?);
    }
    if let Some(dc) = &config.scylla_local_dc {
        options = options.local_dc(dc);
    }
    #[cfg(feature = "failpoints")]
    fail::eval("store.acknowledge_within", |ms| ms.and_then(|ms| ms.parse().ok())).flatten().into_iter().for_each(|ms| {
        options = options.clone().acknowledge_within(Duration::from_millis(ms));
    });
    let mut waiting = false;
    loop {
        let open = ScyllaStore::open(options.clone());
        let Some(opened) = stop.run_until_cancelled(open).await else { return Ok(None) };
        let error = match opened {
            Ok(store) => return Ok(Some(store)),
            Err(error) => error,
        };
        let mend = match &error {
            OpenError::Unreachable { .. } | OpenError::Cql { .. } | OpenError::Clock(_) => {
                let because = std::error::Error::source(&error).map(ToString::to_string);
                if std::mem::replace(&mut waiting, true) {
                    tracing::debug!(%error, because, "the database cannot be used yet");
                } else {
                    tracing::warn!(%error, because, "the database cannot be used yet; trying again");
                }
                if stop.run_until_cancelled(sleep(AGAIN)).await.is_none() {
                    return Ok(None);
                }
                continue;
            }
            OpenError::BadKeyspace(_) | OpenError::Foreign { .. } => "set SCYLLA_KEYSPACE to another name",
            OpenError::WhichDc { .. } | OpenError::NoSuchDc { .. } => "set SCYLLA_LOCAL_DC to one of them",
            OpenError::FromTheFuture { .. } | OpenError::Changed { .. } => "run the version of Jiscord that made it",
            _ => return Err(error.into()),
        };
        return Err(Refused::because(format!("{error}; {mend}")).into());
    }
}

/// Stands where a store has its log. Here the log is Redis, to which events come by being published, and a store is asked for
/// nothing but whether what it needs is there.
pub struct Elsewhere {
    database: Arc<ScyllaStore>,
    redis: watch::Receiver<bool>,
}

impl Elsewhere {
    /// `redis` says whether Redis is there.
    pub fn new(database: Arc<ScyllaStore>, redis: watch::Receiver<bool>) -> Arc<Self> {
        Arc::new(Self { database, redis })
    }
}

#[async_trait]
impl EventLog for Elsewhere {
    fn epoch(&self) -> &str {
        ""
    }

    async fn head(&self) -> fault::Result<Position> {
        self.database.check().await?;
        is_there(&self.redis)?;
        Ok(Position(0))
    }

    async fn floor(&self) -> fault::Result<Position> {
        Err(unsupported())
    }

    async fn append(&self, _: Vec<Event>) -> fault::Result<()> {
        Err(unsupported())
    }

    async fn read_after(&self, _: Position, _: usize) -> fault::Result<Vec<Logged>> {
        Err(unsupported())
    }

    async fn wait_past(&self, _: Position) {
        std::future::pending().await
    }
}

/// For readiness: an error while Redis is away.
pub fn is_there(redis: &watch::Receiver<bool>) -> fault::Result<()> {
    if *redis.borrow() { Ok(()) } else { Err(Fault::new(Code::UNAVAILABLE, "Redis is away").retry_after(Duration::from_secs(1))) }
}

fn unsupported() -> Fault {
    Fault::new(Code::UNSUPPORTED, "events are read from Redis, not from the store")
}

/// Publishes what a process stored and did not live to publish, until `stop`. In a queue of its own: that is no reason to refuse
/// writes.
pub async fn relay(redis: &Redis, database: Arc<ScyllaStore>, stop: CancellationToken) -> Result<JoinHandle<()>, Refused> {
    let left_behind = RedisPublisher::start(&redis.clone().queue(RELAYED)).await.map_err(unfit)?;
    let relay = Relay::new(database, Arc::new(left_behind), Arc::new(RedisMarks::new(redis)));
    Ok(tokio::spawn(async move {
        stop.run_until_cancelled(relay.run()).await;
    }))
}

/// Publishes what still waits, and gives up after this long: a relay publishes it then.
pub async fn last_events(publish: &dyn Publish, patience: Duration) {
    if tokio::time::timeout(patience, publish.flush()).await.is_err() {
        tracing::warn!("events that waited for Redis were not published; another data-service will");
    }
}
