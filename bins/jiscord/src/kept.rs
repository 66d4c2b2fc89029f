//! What the all-in-one keeps its data in, and how it hears what happens: alone in a folder, or with others on a database and Redis.

use std::{sync::Arc, time::Duration};

use anyhow::Context;
use jiscord_bin_kit::{
    Config,
    service::LAST_WRITES,
    shared::{self, Elsewhere},
};
use jiscord_core::{Code, Fault, fault::Result};
use jiscord_gateway::{
    Bus, Claims, LocalBus,
    claims::LocalClaims,
    redis::{RedisBus, RedisClaims},
};
use jiscord_store::{Store, scylla::ScyllaStore, sqlite::SqliteStore};
use secrecy::SecretString;
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use crate::data::Data;

/// The parts beneath the API and the gateway.
pub(crate) struct Joined {
    pub(crate) kept: Kept,
    pub(crate) store: Store,
    pub(crate) bus: Arc<dyn Bus>,
    pub(crate) claims: Arc<dyn Claims>,
    pub(crate) jwt_secret: SecretString,
    pub(crate) service_token: SecretString,
}

impl Joined {
    /// SQLite and a bus within the process.
    pub(crate) async fn in_folder(config: &Config) -> anyhow::Result<Self> {
        let Data { store, jwt_secret, service_token } = Data::open(config).await?;
        Ok(Self {
            kept: Kept::Folder(store.clone()),
            store: Store::of(store.clone()),
            bus: LocalBus::start(store).await?,
            claims: Arc::new(LocalClaims::new(config.limit_devices)),
            jwt_secret,
            service_token,
        })
    }

    /// The database and the Redis that services share. `None`: `stop` came before the database was there.
    pub(crate) async fn on_services(config: &Config, stop: &CancellationToken) -> anyhow::Result<Option<Self>> {
        let (jwt_secret, service_token) = config.shared_secrets()?;
        let redis = shared::redis(config)?;
        let bus = RedisBus::start(&redis).await.map_err(shared::unfit)?;
        let Some(database) = shared::database(config, &redis, stop).await? else { return Ok(None) };
        // As data-service does, for as long as this runs.
        shared::relay(&redis, database.clone(), stop.clone()).await?;
        Ok(Some(Self {
            kept: Kept::Services(database.clone(), bus.clone()),
            store: database.store(Elsewhere::new(database.clone(), bus.publisher().connected())),
            claims: Arc::new(RedisClaims::new(&redis, Uuid::new_v4().to_string(), config.limit_devices)),
            bus,
            jwt_secret: jwt_secret.clone(),
            service_token: service_token.clone(),
        }))
    }
}

/// What has to be there, and to be closed in the end.
#[derive(Clone)]
pub(crate) enum Kept {
    /// A data folder.
    Folder(Arc<SqliteStore>),
    /// The database and the bus.
    Services(Arc<ScyllaStore>, Arc<RedisBus>),
}

impl Kept {
    /// Whether it can be used now.
    pub(crate) async fn ready(&self) -> Result<()> {
        match self {
            Self::Folder(store) if store.is_ready() => Ok(()),
            Self::Folder(_) => {
                Err(Fault::new(Code::UNAVAILABLE, "the database is not ready").retry_after(Duration::from_secs(1)))
            }
            Self::Services(database, bus) => {
                shared::is_there(&bus.connected())?;
                Ok(database.check().await?)
            }
        }
    }

    /// Ends it well.
    pub(crate) async fn close(&self) {
        match self {
            Self::Folder(store) => store.close().await,
            Self::Services(database, bus) => {
                shared::last_events(&**bus, LAST_WRITES / 2).await;
                database.close().await;
            }
        }
    }

    /// Where it is, for people.
    pub(crate) fn place(&self, config: &Config) -> anyhow::Result<String> {
        match self {
            Self::Folder(_) => Ok(config.data_dir.canonicalize().context("data folder")?.display().to_string()),
            Self::Services(..) => {
                Ok(format!("keyspace {} at {}", config.scylla_keyspace, config.scylla_contact_points.join(", ")))
            }
        }
    }
}
