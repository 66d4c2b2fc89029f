//! A connection to Redis, checked and with the log open.

use std::{fmt, sync::Arc, time::Duration};

use jiscord_core::{Topic, UserId};
use rand::Rng;
use redis::{
    AsyncConnectionConfig, Client, Cmd, ErrorKind, FromRedisValue, IntoConnectionInfo, ProtocolVersion, RedisError,
    aio::{AsyncPushSender, MultiplexedConnection},
};
use uuid::Uuid;

use super::scripts;
use crate::chance;

/// How long a connection may take to be there.
const CONNECT: Duration = Duration::from_secs(2);
/// How long an answer may take before the connection is given up.
const ANSWER: Duration = Duration::from_secs(3);
/// How often a quiet connection is asked whether it is still there. With [`ANSWER`], one that died without a word is noticed
/// within about 4 seconds.
pub(super) const WATCH: Duration = Duration::from_secs(1);

/// What a driver says, in a box.
type Source = Box<dyn std::error::Error + Send + Sync>;

/// Why Redis cannot be used.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The address cannot be read. Give another one.
    #[error("not a Redis address: redis://[[user]:password@]host[:port][/database] is wanted")]
    Address,
    /// This Redis cannot be used as it is. Says what to mend.
    #[error("{0}")]
    Unfit(String),
    /// Redis does not answer, or not as it should. Trying again may help.
    #[error("Redis is away")]
    Away(#[source] Source),
}

/// What connecting returns.
pub type Result<T, E = Error> = std::result::Result<T, E>;

impl From<RedisError> for Error {
    fn from(error: RedisError) -> Self {
        match (error.kind(), error.code()) {
            (ErrorKind::AuthenticationFailed, _) | (_, Some("WRONGPASS" | "NOAUTH")) => {
                Self::Unfit("Redis refuses the user or the password: give the right ones in its address".into())
            }
            (ErrorKind::RESP3NotSupported, _) => Self::Unfit("this Redis is too old: use 6.2 or newer".into()),
            (_, Some("NOPERM")) => {
                Self::Unfit("Redis does not let this user do what is needed: allow it all commands, keys and channels".into())
            }
            _ => Self::Away(error.into()),
        }
    }
}

/// Which Redis, and how it is used. Nothing is connected yet.
#[derive(Clone)]
pub struct Redis {
    client: Client,
    prefix: Arc<str>,
    queue: usize,
    #[cfg(test)]
    dial: Option<Dial>,
}

/// A way to a server that is only simulated; `None`: it is away.
#[cfg(test)]
pub(crate) type Dial = Arc<dyn Fn() -> Option<tokio::io::DuplexStream> + Send + Sync>;

impl fmt::Debug for Redis {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // The rest of the address may be a password.
        let addr = self.client.get_connection_info().addr();
        f.debug_struct("Redis").field("addr", addr).field("prefix", &self.prefix).field("queue", &self.queue).finish()
    }
}

impl Redis {
    /// Reads an address: `redis://[[user]:password@]host[:port][/database]`, or `unix:///path/to/socket`. With the feature
    /// `redis-rustls` also `rediss://`, which speaks TLS with the crypto provider that the process has installed in rustls, and
    /// trusts the system's certificates or those that `SSL_CERT_FILE` names.
    pub fn new(address: &str) -> Result<Self> {
        // What the driver says may repeat the address, and the address may have a password in it. Of TLS that is not there it
        // would speak only when it connects, and again each time.
        if address.starts_with("rediss:") && !cfg!(feature = "redis-rustls") {
            return Err(Error::Unfit("TLS to Redis is not in this program: build jiscord-gateway with redis-rustls".into()));
        }
        let info = address.into_connection_info().map_err(|_| Error::Address)?;
        let protocol = info.redis_settings().clone().set_protocol(ProtocolVersion::RESP3);
        let client = Client::open(info.set_redis_settings(protocol)).map_err(|_| Error::Address)?;
        Ok(Self {
            client,
            prefix: "".into(),
            queue: 10_000,
            #[cfg(test)]
            dial: None,
        })
    }

    #[cfg(all(test, feature = "server"))]
    pub(crate) fn simulated(dial: Dial) -> Self {
        let redis = Self::new("redis://simulated").expect("an address");
        Self { dial: Some(dial), ..redis }
    }

    /// What all keys begin with, so that others can use the same database. Channels are not prefixed.
    #[must_use]
    pub fn prefix(mut self, prefix: &str) -> Self {
        self.prefix = prefix.into();
        self
    }

    /// How many events wait while Redis is away; 10,000 unless set. While it is full, new writes are to be refused.
    #[must_use]
    pub fn queue(mut self, events: usize) -> Self {
        self.queue = events;
        self
    }

    pub(super) fn most_queued(&self) -> usize {
        self.queue
    }

    /// The hash with the state of the log.
    pub(super) fn log_key(&self) -> String {
        format!("{}log", self.prefix)
    }

    /// The sorted set of topics by their last event.
    pub(super) fn active_key(&self) -> String {
        format!("{}active", self.prefix)
    }

    /// What is there for 10 minutes after an event was published.
    pub(super) fn seen_key(&self, id: impl fmt::Display) -> String {
        format!("{}seen:{id}", self.prefix)
    }

    /// The stream of a topic's events.
    pub(super) fn stream_key(&self, topic: Topic) -> String {
        format!("{}log:{topic}", self.prefix)
    }

    /// The hash of a user's devices.
    pub(super) fn sessions_key(&self, user: UserId) -> String {
        format!("{}sessions:{user}", self.prefix)
    }

    /// Connects, checks the server, loads the scripts and opens the log.
    pub(super) async fn connect(&self, hear: Option<impl AsyncPushSender>) -> Result<Link> {
        let mut config = AsyncConnectionConfig::new().set_connection_timeout(Some(CONNECT)).set_response_timeout(Some(ANSWER));
        if let Some(hear) = hear {
            config = config.set_push_sender(hear);
        }
        let mut connection = self.dial(config).await?;
        check(&redis::cmd("INFO").query_async::<String>(&mut connection).await?)?;
        for script in scripts::all() {
            script.load_async(&mut connection).await?;
        }
        let log = self.open(&mut connection).await?;
        Ok(Link { connection, log })
    }

    async fn dial(&self, config: AsyncConnectionConfig) -> Result<MultiplexedConnection> {
        #[cfg(test)]
        if let Some(dial) = &self.dial {
            let stream = dial().ok_or_else(|| Error::Away("nobody listens".into()))?;
            let info = self.client.get_connection_info().redis_settings();
            let begun = tokio::time::timeout(CONNECT, MultiplexedConnection::new_with_config(info, stream, config));
            let (connection, driver) = begun.await.map_err(|late| Error::Away(late.into()))??;
            tokio::spawn(driver);
            return Ok(connection);
        }
        Ok(self.client.get_multiplexed_async_connection_with_config(&config).await?)
    }

    /// [`Redis::connect`] for who hears nothing.
    pub(super) async fn connect_deaf(&self) -> Result<Link> {
        self.connect(None::<fn(redis::PushInfo) -> Result<(), ()>>).await
    }

    /// Opens the log, and tells where it is.
    pub(super) async fn open(&self, connection: &mut MultiplexedConnection) -> Result<Log> {
        let mut open = evalsha(&scripts::OPEN, &[self.log_key()]);
        let (epoch, _last, _floor): (String, u64, u64) = answer(open.arg(Uuid::new_v4().to_string()), connection).await?;
        Ok(Log { epoch })
    }
}

/// A connection that can be used.
pub(super) struct Link {
    pub(super) connection: MultiplexedConnection,
    pub(super) log: Log,
}

/// Where the log was when it was opened.
pub(super) struct Log {
    pub(super) epoch: String,
}

/// Calls a script that is loaded, and never loads it: where it is gone, this is another run of the server.
pub(super) fn evalsha(script: &redis::Script, keys: &[String]) -> Cmd {
    let mut call = redis::cmd("EVALSHA");
    call.arg(script.get_hash()).arg(keys.len()).arg(keys);
    call
}

/// Asks one thing.
pub(super) async fn answer<T: FromRedisValue>(cmd: &Cmd, connection: &mut MultiplexedConnection) -> Result<T> {
    Ok(cmd.query_async(connection).await?)
}

/// Whether a server with this INFO keeps what it is told.
fn check(info: &str) -> Result<()> {
    let field = |name: &str| {
        let mut lines = info.lines().filter_map(|line| line.split_once(':'));
        lines.find(|(key, _)| *key == name).map(|(_, value)| value.trim())
    };
    if field("redis_mode") == Some("sentinel") {
        return Err(Error::Unfit("this is a Sentinel: give the address of the Redis that it watches".into()));
    }
    if field("cluster_enabled") == Some("1") {
        return Err(Error::Unfit("Redis Cluster cannot be used: use one Redis, or a primary with replicas".into()));
    }
    match field("maxmemory_policy") {
        Some("noeviction") => {}
        policy => {
            let policy = policy.unwrap_or("unknown");
            return Err(Error::Unfit(format!(
                "this Redis may throw away what it is to keep (maxmemory-policy is {policy}): set maxmemory-policy to noeviction"
            )));
        }
    }
    if field("role") == Some("slave") {
        // A failover may be under way.
        return Err(Error::Away("this Redis is a replica".into()));
    }
    Ok(())
}

/// How long to wait before the next try: longer each time, up to two seconds, and never the same for two.
#[derive(Default)]
pub(super) struct Backoff(u32);

impl Backoff {
    pub(super) fn next(&mut self) -> Duration {
        let most = (50u64 << self.0.min(6)).min(2_000);
        self.0 = self.0.saturating_add(1);
        Duration::from_millis(chance::rng().random_range(most / 2..=most))
    }

    /// Whether the failure is worth a line: the first one of a row.
    pub(super) fn is_fresh(&self) -> bool {
        self.0 == 0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_is_never_shown_with_its_password() {
        let redis = Redis::new("redis://ada:hunter2@localhost:7000/3").unwrap();
        assert!(!format!("{redis:?}").contains("hunter2"), "{redis:?}");
        for bad in ["", "localhost", "http://:hunter2@localhost", "redis://:hunter2@:bad"] {
            let error = Redis::new(bad).unwrap_err();
            assert!(!format!("{error:?} {error}").contains("hunter2"), "{error:?}");
        }
        let tls = Redis::new("rediss://:hunter2@localhost");
        assert_eq!(tls.is_ok(), cfg!(feature = "redis-rustls"), "{tls:?}");
        assert!(!format!("{tls:?}").contains("hunter2"), "{tls:?}");
    }

    #[test]
    fn a_server_that_forgets_is_refused_with_the_mend() {
        let good = "# Server\r\nredis_mode:standalone\r\nmaxmemory_policy:noeviction\r\nrole:master\r\ncluster_enabled:0\r\n";
        check(good).unwrap();
        for (from, to, mend) in [
            ("noeviction", "allkeys-lru", "set maxmemory-policy to noeviction"),
            ("maxmemory_policy", "x", "set maxmemory-policy to noeviction"),
            ("cluster_enabled:0", "cluster_enabled:1", "use one Redis"),
            ("standalone", "sentinel", "give the address of the Redis"),
        ] {
            let error = check(&good.replace(from, to)).unwrap_err();
            assert!(matches!(&error, Error::Unfit(text) if text.contains(mend)), "{error}");
        }
        assert!(matches!(check(&good.replace("master", "slave")), Err(Error::Away(_))));
    }

    #[test]
    fn waiting_grows_up_to_a_bound() {
        let mut backoff = Backoff::default();
        assert!(backoff.next() <= Duration::from_millis(50));
        let later: Vec<_> = (0..100).map(|_| backoff.next()).collect();
        assert!(later[10..].iter().all(|wait| (1_000..=2_000).contains(&wait.as_millis())));
    }
}
