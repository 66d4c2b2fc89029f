//! The store for several processes: ScyllaDB, or Apache Cassandra 4.1 or later, which speak the same CQL.
//!
//! Rows and the events they cause are written in one logged batch, the events into a [`Journal`](jiscord_core::journal::Journal).
//! Their positions come from elsewhere: the caller publishes the events that a write returns, and whoever runs a relay
//! publishes what somebody left behind. So this store is no [`EventLog`], and becomes a [`Store`] beside one:
//! [`ScyllaStore::store`].
//!
//! ```no_run
//! # async fn example(log: std::sync::Arc<dyn jiscord_core::event::EventLog>) -> Result<(), Box<dyn std::error::Error>> {
//! use jiscord_store::scylla::{Options, ScyllaStore};
//!
//! let scylla = ScyllaStore::open(Options::new(["127.0.0.1:9042"], "jiscord")).await?;
//! let store = scylla.store(log);
//! # Ok(()) }
//! ```
//!
//! **Write times.** What is created is written as of the moment its id was minted, a change as of its `rev`. So a write that
//! comes late, or twice, undoes nothing.
//!
//! **Ids.** Each process leases a worker number from the database. While it cannot be renewed, what would mint an id is
//! [`Error::Unavailable`]; [`IdSource::next`] gives the nil id then, and no write takes an event
//! with that id.
//!
//! **Reads** that wait together are one query: users by id, and the newest page of a channel ([`ScyllaStore::queries`]).

mod coalesce;
mod db;
mod fail;
mod journal;
mod keyed;
mod lease;
mod migrate;
mod nonces;
mod repositories;
mod rows;

use std::{
    collections::BTreeSet,
    fmt,
    sync::{Arc, Mutex},
    time::Duration,
};

use jiscord_core::{
    GuildId, UserId,
    event::EventLog,
    mint::IdSource,
    time::{Clock, SystemClock},
};
use scylla::{
    client::{execution_profile::ExecutionProfile, session::Session, session_builder::SessionBuilder},
    cluster::metadata::Strategy,
    policies::load_balancing::DefaultPolicy,
    statement::{Consistency, SerialConsistency},
};
use tokio::{sync::Mutex as AsyncMutex, task::JoinHandle};
use uuid::Uuid;

pub use self::lease::ClockCheck;
use self::{
    coalesce::{FirstPages, Users},
    db::Db,
    keyed::Keyed,
    lease::Lease,
    migrate::Runner,
};
use crate::{
    error::{Error, Result, Source},
    repository::Store,
    ticks::Ticks,
};

/// Why a database was not opened. The texts are for whoever runs the server.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum OpenError {
    /// No contact point answered as a database does, or none takes these credentials.
    #[error("no database at {contact_points}")]
    Unreachable {
        /// The contact points, with commas between.
        contact_points: String,
        /// What the driver said.
        source: Source,
    },
    /// A keyspace's name has 1 to 48 letters a to z, digits and underscores, a letter first.
    #[error("{0:?} cannot be the name of a keyspace: 1 to 48 of a-z, 0-9 and _ are wanted, a letter first")]
    BadKeyspace(String),
    /// There are several data centres, and none was named.
    #[error("say which data centre is the near one; there are {found}")]
    WhichDc {
        /// Their names, with commas between.
        found: String,
    },
    /// There is no such data centre.
    #[error("there is no data centre {name}; there are {found}")]
    NoSuchDc {
        /// The one that was named.
        name: String,
        /// Those that are there, with commas between.
        found: String,
    },
    /// The keyspace holds tables of another program.
    #[error("keyspace {keyspace} is not Jiscord's")]
    Foreign {
        /// The keyspace.
        keyspace: String,
    },
    /// A newer Jiscord has worked on it. Run that one, or bring back the backup from before.
    #[error("the database is of a newer Jiscord: its schema has version {version}, and this one knows {known}")]
    FromTheFuture {
        /// The database's schema.
        version: u32,
        /// The newest schema known here.
        known: u32,
    },
    /// The tables were made by another text of a migration than this program's.
    #[error("migration {version} ({name}) is not the one that the database was made with")]
    Changed {
        /// Which one.
        version: u32,
        /// Its name.
        name: &'static str,
    },
    /// Another process changes the schema, and does not come to an end.
    #[error("another process is changing the schema of keyspace {keyspace}")]
    Locked {
        /// The keyspace.
        keyspace: String,
    },
    /// ScyllaDB before 2025.4 has no lightweight transactions where tablets are on.
    #[error(
        "keyspace {keyspace} has no lightweight transactions: make it anew with tablets = {{'enabled': false}}, or update ScyllaDB to 2025.4"
    )]
    NoTransactions {
        /// The keyspace.
        keyspace: String,
        /// What the database said.
        source: Source,
    },
    /// All 1,024 worker numbers are leased. Those of processes that ended by a crash are free after a minute.
    #[error("all worker numbers are in use")]
    NoWorker,
    /// [`Options::clock_check`] found it wrong. Set it.
    #[error("the clock is wrong")]
    Clock(#[source] Source),
    /// The database failed, or will not do it.
    #[error("{what} failed")]
    Cql {
        /// What was tried.
        what: &'static str,
        /// What the driver said.
        source: Source,
    },
}

/// How a database is opened.
#[derive(Clone)]
pub struct Options {
    contact_points: Vec<String>,
    keyspace: String,
    local_dc: Option<String>,
    replicas: Option<usize>,
    credentials: Option<(String, String)>,
    #[cfg(feature = "scylla-rustls")]
    tls: Option<Arc<rustls::ClientConfig>>,
    timeout: Duration,
    acknowledge: Duration,
    lease: Duration,
    clock: Arc<dyn Clock>,
    check: Option<Arc<dyn ClockCheck>>,
}

/// How long another process's migration is waited for.
const PATIENCE: Duration = Duration::from_secs(180);

impl Options {
    /// Contact points are `host` or `host:port`; one that answers is enough.
    pub fn new(contact_points: impl IntoIterator<Item = impl Into<String>>, keyspace: impl Into<String>) -> Self {
        Self {
            contact_points: contact_points.into_iter().map(Into::into).collect(),
            keyspace: keyspace.into(),
            local_dc: None,
            replicas: None,
            credentials: None,
            #[cfg(feature = "scylla-rustls")]
            tls: None,
            timeout: Duration::from_secs(3),
            acknowledge: Duration::from_secs(60),
            lease: lease::TTL,
            clock: Arc::new(SystemClock),
            check: None,
        }
    }

    /// The data centre whose quorum is asked. Needed only where there are several.
    #[must_use]
    pub fn local_dc(mut self, name: impl Into<String>) -> Self {
        self.local_dc = Some(name.into());
        self
    }

    /// How many replicas a keyspace gets that is created here, at least 1. Default: 3, or as many as there are nodes.
    #[must_use]
    pub fn replicas(mut self, replicas: usize) -> Self {
        self.replicas = Some(replicas.max(1));
        self
    }

    /// Who logs in. Default: nobody.
    #[must_use]
    pub fn credentials(mut self, user: impl Into<String>, password: impl Into<String>) -> Self {
        self.credentials = Some((user.into(), password.into()));
        self
    }

    /// Speaks TLS to every node. Nodes are known by their addresses, so it is those that their certificates must name.
    #[cfg(feature = "scylla-rustls")]
    #[must_use]
    pub fn tls(mut self, config: Arc<rustls::ClientConfig>) -> Self {
        self.tls = Some(config);
        self
    }

    /// How long an answer is waited for. Default 3 s.
    #[must_use]
    pub fn timeout(mut self, timeout: Duration) -> Self {
        self.timeout = timeout;
        self
    }

    /// A message that was written later than this after its id was minted is not acknowledged
    /// ([`Error::Unknown`]); trying again with its nonce is. Default 60 s.
    #[must_use]
    pub fn acknowledge_within(mut self, age: Duration) -> Self {
        self.acknowledge = age;
        self
    }

    /// How long a worker number is leased for, in whole seconds and at least 2. It is renewed every sixth of that, and no id
    /// is minted when the last renewal is half as old. Default 60 s.
    #[must_use]
    pub fn lease(mut self, ttl: Duration) -> Self {
        self.lease = Duration::from_secs(ttl.as_secs().max(2));
        self
    }

    /// Where the time comes from. Default: the machine's clock.
    #[must_use]
    pub fn clock(mut self, clock: Arc<dyn Clock>) -> Self {
        self.clock = clock;
        self
    }

    /// What the clock is compared with whenever the worker number is taken or renewed. Default: nothing.
    #[must_use]
    pub fn clock_check(mut self, check: Arc<dyn ClockCheck>) -> Self {
        self.check = Some(check);
        self
    }

    /// A session with the keyspace in use and its tables up to date, and what was done to them.
    async fn connect(&self) -> Result<(Session, Vec<&'static str>), OpenError> {
        let name = &self.keyspace;
        let rest = |c: u8| c.is_ascii_lowercase() || c.is_ascii_digit() || c == b'_';
        if !(1..=48).contains(&name.len()) || !name.as_bytes()[0].is_ascii_lowercase() || !name.bytes().all(rest) {
            return Err(OpenError::BadKeyspace(name.clone()));
        }
        let mut profile = self.profile(None).into_handle();
        let mut builder = SessionBuilder::new()
            .known_nodes(&self.contact_points)
            .default_execution_profile_handle(profile.clone())
            .keyspaces_to_fetch([name])
            .connection_timeout(Duration::from_secs(5))
            // A connection that is dead without a word is found within ten seconds.
            .keepalive_interval(Duration::from_secs(5))
            .keepalive_timeout(Duration::from_secs(5));
        if let Some((user, password)) = &self.credentials {
            builder = builder.user(user, password);
        }
        #[cfg(feature = "scylla-rustls")]
        {
            builder = builder.tls_context(self.tls.clone());
        }
        let session = builder
            .build()
            .await
            .map_err(|error| OpenError::Unreachable { contact_points: self.contact_points.join(", "), source: error.into() })?;

        let cluster = session.get_cluster_state();
        let nodes = cluster.get_nodes_info();
        let found: BTreeSet<_> = nodes.iter().filter_map(|node| node.datacenter.as_deref()).collect();
        let listed = || found.iter().copied().collect::<Vec<_>>().join(", ");
        let local = match &self.local_dc {
            Some(dc) if found.contains(dc.as_str()) => dc.clone(),
            Some(dc) => return Err(OpenError::NoSuchDc { name: dc.clone(), found: listed() }),
            None if found.len() == 1 => listed(),
            None => return Err(OpenError::WhichDc { found: listed() }),
        };
        profile.map_to_another_profile(self.profile(Some(local.clone())));

        let there = nodes.iter().filter(|node| node.datacenter.as_deref() == Some(local.as_str()));
        let replicas = self.replicas.unwrap_or_else(|| there.count().clamp(1, 3));
        // A name comes from the database or was found there; its quotes are doubled all the same.
        let quoted = local.replace('\'', "''");
        let plain = format!(
            "CREATE KEYSPACE IF NOT EXISTS {name} WITH replication = {{'class': 'NetworkTopologyStrategy', '{quoted}': {replicas}}}"
        );
        // ScyllaDB is the one with shards. Before 2025.4 it refuses lightweight transactions on tablets; Cassandra, and older
        // ones, do not know the word.
        let is_scylla = nodes.iter().any(|node| node.sharder().is_some());
        let runner = Runner {
            session: &session,
            keyspace: name,
            replication: if is_scylla { format!("{plain} AND tablets = {{'enabled': false}}") } else { plain.clone() },
            plain_replication: is_scylla.then_some(plain),
            clock: &*self.clock,
            patience: PATIENCE,
        };
        let done = runner.run().await?;
        drop(cluster);
        warn_of_few_replicas(&session, name, &local).await;
        Ok((session, done))
    }

    fn profile(&self, local_dc: Option<String>) -> ExecutionProfile {
        let mut policy = DefaultPolicy::builder().token_aware(true);
        if let Some(dc) = local_dc {
            policy = policy.prefer_datacenter(dc);
        }
        ExecutionProfile::builder()
            .consistency(Consistency::LocalQuorum)
            .serial_consistency(Some(SerialConsistency::LocalSerial))
            .request_timeout(Some(self.timeout))
            .load_balancing_policy(policy.build())
            .build()
    }
}

impl fmt::Debug for Options {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Options")
            .field("contact_points", &self.contact_points)
            .field("keyspace", &self.keyspace)
            .field("local_dc", &self.local_dc)
            .finish_non_exhaustive()
    }
}

async fn warn_of_few_replicas(session: &Session, keyspace: &str, local_dc: &str) {
    if let Err(error) = session.refresh_metadata().await {
        tracing::debug!(%error, "metadata not refreshed");
    }
    let cluster = session.get_cluster_state();
    let replicas = match cluster.get_keyspace(keyspace).map(|keyspace| &keyspace.strategy) {
        Some(Strategy::NetworkTopologyStrategy { datacenter_repfactors }) => datacenter_repfactors.get(local_dc).copied(),
        Some(Strategy::SimpleStrategy { replication_factor }) => Some(*replication_factor),
        _ => None,
    };
    if let Some(replicas) = replicas.filter(|replicas| *replicas < 3) {
        tracing::warn!(keyspace, replicas, "fewer than three replicas: what one node loses may be lost");
    }
}

/// How many queries were sent for reads that wait together, since the store was opened.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Queries {
    /// For users by id.
    pub users: u64,
    /// For the newest page of a channel.
    pub first_pages: u64,
}

/// A store in ScyllaDB or Cassandra. Must be used within a tokio runtime.
pub struct ScyllaStore {
    db: Arc<Db>,
    lease: Arc<Lease>,
    keeper: Mutex<Option<JoinHandle<()>>>,
    clock: Arc<dyn Clock>,
    ticks: Mutex<Ticks>,
    users: Users,
    first_pages: FirstPages,
    /// Memberships that are being changed.
    changing: Keyed<(GuildId, UserId), AsyncMutex<()>>,
    acknowledge: Duration,
}

impl ScyllaStore {
    /// Connects, creates the keyspace if it is not there, brings its tables up to date, and leases a worker number. Of
    /// several processes that come at once one changes the tables, and the others wait for it.
    pub async fn open(options: Options) -> Result<Arc<Self>, OpenError> {
        let (session, _) = options.connect().await?;
        let prepared = Db::new(session).await;
        let db = Arc::new(prepared.map_err(|error| OpenError::Cql { what: "preparing", source: error.into() })?);
        if let Some(check) = &options.check {
            check.check(&*options.clock).await.map_err(OpenError::Clock)?;
        }
        let lease = Lease::take(db.clone(), options.clock.clone(), options.check, options.lease);
        let lease = lease.await.map_err(|error| match error {
            Error::Busy => OpenError::NoWorker,
            error => OpenError::Cql { what: "leasing a worker number", source: error.into() },
        })?;
        let keeper = tokio::spawn({
            let lease = lease.clone();
            async move { lease.keep().await }
        });
        Ok(Arc::new(Self {
            users: Users::new(db.clone()),
            db,
            lease,
            keeper: Mutex::new(Some(keeper)),
            clock: options.clock,
            ticks: Mutex::default(),
            first_pages: FirstPages::default(),
            changing: Keyed::default(),
            acknowledge: options.acknowledge,
        }))
    }

    /// Creates the keyspace if it is not there, brings its tables up to date, and says the names of the migrations that were
    /// applied: none, if they were up to date. [`ScyllaStore::open`] does the same; this is for doing it before.
    pub async fn migrate(options: Options) -> Result<Vec<&'static str>, OpenError> {
        Ok(options.connect().await?.1)
    }

    /// All parts of a store, with positions from that log: it is the caller's to publish what a write returns, there.
    pub fn store(self: &Arc<Self>, events: Arc<dyn EventLog>) -> Store {
        Store {
            users: self.clone(),
            messages: self.clone(),
            guilds: self.clone(),
            members: self.clone(),
            channels: self.clone(),
            logins: self.clone(),
            events,
            ids: self.clone(),
        }
    }

    /// Asks the database, as far as a read with a quorum goes, and whether ids can be minted.
    /// [`Error::Unavailable`] if not.
    pub async fn check(&self) -> Result<()> {
        if !self.lease.is_held() {
            return Err(Error::Unavailable("no worker number".into()));
        }
        self.db.one::<(Option<Uuid>,)>(&self.db.statements.worker, (0,)).await.map(drop)
    }

    /// How many queries were sent for reads that wait together.
    pub fn queries(&self) -> Queries {
        Queries { users: self.users.queries(), first_pages: self.first_pages.queries() }
    }

    /// Gives the worker number back, with the last millisecond in which an id was minted. What would mint one afterwards is
    /// [`Error::Unavailable`]. A store that is dropped without it keeps its number for a minute.
    pub async fn close(&self) {
        self.end_keeper();
        if let Err(error) = self.lease.release().await {
            tracing::warn!(%error, "worker number not given back; it expires");
        }
    }

    fn end_keeper(&self) {
        let mut keeper = self.keeper.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        if let Some(keeper) = keeper.take() {
            keeper.abort();
        }
    }
}

impl Drop for ScyllaStore {
    fn drop(&mut self) {
        self.end_keeper();
    }
}

impl fmt::Debug for ScyllaStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ScyllaStore").field("queries", &self.queries()).finish_non_exhaustive()
    }
}

impl IdSource for ScyllaStore {
    /// The nil id where none can be minted: no write of this store takes an event with it.
    fn next(&self) -> Uuid {
        self.lease.mint().unwrap_or_default()
    }
}
