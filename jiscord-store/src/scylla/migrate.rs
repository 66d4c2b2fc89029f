//! Tables, and how they came to be.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use jiscord_core::time::Clock;
use scylla::{
    client::session::Session,
    errors::{DbError, ExecutionError, RequestAttemptError},
    policies::{
        load_balancing::{NodeIdentifier, SingleTargetLoadBalancingPolicy},
        retry::FallthroughRetryPolicy,
    },
    response::query_result::QueryResult,
    serialize::row::SerializeRow,
    statement::unprepared::Statement,
    value::CqlTimestamp,
};
use sha2::{Digest, Sha256};
use tokio::time::Instant;
use uuid::Uuid;

use super::{OpenError, db::applied, fail::is_refused};

struct Migration {
    name: &'static str,
    cql: &'static str,
}

/// In order; the first has version 1. One that was released never changes: add another. Every statement is safe to repeat,
/// since a crash may come after any of them.
const MIGRATIONS: &[Migration] = &[
    Migration { name: "start", cql: include_str!("migrations/0001_start.cql") },
    Migration { name: "logins", cql: include_str!("migrations/0002_logins.cql") },
    Migration { name: "late nonces", cql: include_str!("migrations/0003_late_nonces.cql") },
];

/// Before all others, since it says which of them were applied. The lock is for one runner at a time.
const FIRST: [&str; 2] = [
    "CREATE TABLE IF NOT EXISTS migrations (version int PRIMARY KEY, name text, checksum blob, applied_at timestamp)",
    "CREATE TABLE IF NOT EXISTS migration_lock (name text PRIMARY KEY, owner uuid)",
];

/// How long the lock of one that has gone holds up the others, in seconds. Renewed before each statement.
const LOCK_TTL: i32 = 60;
/// How often one that waits looks again.
const LOOK: Duration = Duration::from_millis(250);

impl Migration {
    fn checksum(&self) -> [u8; 32] {
        Sha256::digest(self.cql).into()
    }

    fn statements(&self) -> Vec<String> {
        let code: Vec<_> = self.cql.lines().filter(|line| !line.trim_start().starts_with("--")).collect();
        code.join("\n").split(';').map(|statement| statement.trim().to_owned()).filter(|text| !text.is_empty()).collect()
    }
}

/// The table and the column that a statement adds. Not all databases know `ADD IF NOT EXISTS`.
fn added(cql: &str) -> Option<(&str, &str)> {
    let words: Vec<_> = cql.split_whitespace().collect();
    match words[..] {
        ["ALTER", "TABLE", table, "ADD", column, ..] => Some((table, column)),
        _ => None,
    }
}

pub(super) struct Runner<'a> {
    pub(super) session: &'a Session,
    pub(super) keyspace: &'a str,
    /// What creates the keyspace.
    pub(super) replication: String,
    /// Creates it where that fails because the database knows no tablets.
    pub(super) plain_replication: Option<String>,
    pub(super) clock: &'a dyn Clock,
    pub(super) patience: Duration,
}

impl Runner<'_> {
    /// Brings the tables up to date and says the names of what was done: nothing, if they were, or if somebody else did it
    /// meanwhile.
    pub(super) async fn run(&self) -> Result<Vec<&'static str>, OpenError> {
        let owner = Uuid::new_v4();
        let give_up = Instant::now() + self.patience;
        loop {
            if self.is_done().await? {
                self.use_keyspace().await?;
                return Ok(Vec::new());
            }
            self.begin().await?;
            if self.lock(owner, None).await? {
                let done = self.apply(owner).await;
                // If this fails, the lock expires.
                let _ = self.unlock(owner).await;
                return done;
            }
            if Instant::now() >= give_up {
                return Err(OpenError::Locked { keyspace: self.keyspace.to_owned() });
            }
            tokio::time::sleep(LOOK).await;
        }
    }

    /// Whether all is there. Refuses what is not ours, or not of our time.
    async fn is_done(&self) -> Result<bool, OpenError> {
        let tables = "SELECT table_name FROM system_schema.tables WHERE keyspace_name = ?";
        let tables: Vec<(String,)> = self.rows(tables, (self.keyspace,)).await?;
        if !tables.iter().any(|(name,)| name == "migrations") {
            // Ours begins with that table.
            return if tables.is_empty() { Ok(false) } else { Err(OpenError::Foreign { keyspace: self.keyspace.to_owned() }) };
        }
        match self.applied().await {
            Ok(applied) => Ok(applied.len() == MIGRATIONS.len()),
            Err(OpenError::Cql { source, .. }) if source.downcast_ref().is_some_and(is_being_made) => Ok(false),
            Err(error) => Err(error),
        }
    }

    /// Versions and checksums of what was applied, after checking that they are ours.
    async fn applied(&self) -> Result<BTreeMap<i32, Option<Vec<u8>>>, OpenError> {
        let applied = format!("SELECT version, checksum FROM {}.migrations", self.keyspace);
        let applied: BTreeMap<i32, Option<Vec<u8>>> = self.rows(&applied, ()).await?.into_iter().collect();
        let known = MIGRATIONS.len() as u32;
        for (version, checksum) in &applied {
            let version = u32::try_from(*version).unwrap_or(0);
            match version.checked_sub(1).and_then(|at| MIGRATIONS.get(at as usize)) {
                Some(migration) if checksum.as_deref() == Some(&migration.checksum()) => {}
                Some(migration) => return Err(OpenError::Changed { version, name: migration.name }),
                None => return Err(OpenError::FromTheFuture { version, known }),
            }
        }
        Ok(applied)
    }

    /// The keyspace, and the tables that a runner needs. Several may come here at once: all of them ask one and the same
    /// node, since a Cassandra that is asked for one table on two nodes at once may make two.
    async fn begin(&self) -> Result<(), OpenError> {
        if let Err(error) = self.first(&self.replication).await {
            match &self.plain_replication {
                Some(plain) if refused(&error).is_some() => self.first(plain).await,
                _ => Err(error),
            }
            .map_err(|error| self.failed("creating the keyspace", error))?;
        }
        self.use_keyspace().await?;
        for statement in FIRST {
            self.first(statement).await.map_err(|error| self.failed("creating the first tables", error))?;
        }
        Ok(())
    }

    async fn first(&self, cql: &str) -> Result<(), ExecutionError> {
        let mut statement = Statement::new(cql);
        let nodes = self.session.get_cluster_state();
        let nodes = nodes.get_nodes_info().iter().filter(|node| node.is_connected());
        if let Some(node) = nodes.min_by_key(|node| node.host_id) {
            let only = SingleTargetLoadBalancingPolicy::new(NodeIdentifier::Node(node.clone()), None);
            statement.set_load_balancing_policy(Some(only));
        }
        statement.set_request_timeout(Some(self.patience));
        self.session.query_unpaged(statement, ()).await.map(drop)
    }

    async fn use_keyspace(&self) -> Result<(), OpenError> {
        let used = self.session.use_keyspace(self.keyspace, true).await;
        used.map_err(|error| OpenError::Cql { what: "using the keyspace", source: error.into() })
    }

    async fn apply(&self, owner: Uuid) -> Result<Vec<&'static str>, OpenError> {
        let applied = self.applied().await?;
        let mut done = Vec::new();
        for (version, migration) in (1..).zip(MIGRATIONS).filter(|(version, _)| !applied.contains_key(version)) {
            for cql in migration.statements() {
                if let Some((table, column)) = added(&cql)
                    && self.has(table, column).await?
                {
                    continue;
                }
                if !self.lock(owner, Some(owner)).await? {
                    return Err(OpenError::Locked { keyspace: self.keyspace.to_owned() });
                }
                let mut statement = Statement::new(cql);
                statement.set_request_timeout(Some(self.patience));
                let made = self.session.query_unpaged(statement, ()).await;
                made.map_err(|error| self.failed("changing the schema", error))?;
            }
            // The driver waits after each statement; once more, for those of a runner before us that died.
            let agreed = self.session.await_schema_agreement().await;
            agreed.map_err(|error| OpenError::Cql { what: "waiting for schema agreement", source: error.into() })?;
            let row = "INSERT INTO migrations (version, name, checksum, applied_at) VALUES (?, ?, ?, ?)";
            let values = (version, migration.name, migration.checksum().to_vec(), CqlTimestamp(self.clock.now().ms()));
            self.query(row, values).await.map_err(|error| self.failed("noting a migration", error))?;
            done.push(migration.name);
        }
        Ok(done)
    }

    async fn has(&self, table: &str, column: &str) -> Result<bool, OpenError> {
        let columns = "SELECT column_name FROM system_schema.columns WHERE keyspace_name = ? AND table_name = ?";
        let columns: Vec<(String,)> = self.rows(columns, (self.keyspace, table)).await?;
        Ok(columns.iter().any(|(name,)| name == column))
    }

    /// Takes the lock for a while, if it is nobody's or that owner's.
    async fn lock(&self, owner: Uuid, held_by: Option<Uuid>) -> Result<bool, OpenError> {
        let lock = "UPDATE migration_lock USING TTL ? SET owner = ? WHERE name = 'lock' IF owner = ?";
        match self.query(lock, (LOCK_TTL, owner, held_by)).await {
            Ok(result) => applied(result).map_err(|error| OpenError::Cql { what: "taking the lock", source: error.into() }),
            Err(error) if refused(&error).is_some_and(|said| matches!(said, DbError::Invalid)) => {
                Err(OpenError::NoTransactions { keyspace: self.keyspace.to_owned(), source: error.into() })
            }
            // Nobody knows whether it was done: if so, it expires before anybody gets it.
            Err(error) => Err(self.failed("taking the lock", error)),
        }
    }

    async fn unlock(&self, owner: Uuid) -> Result<QueryResult, ExecutionError> {
        self.query("UPDATE migration_lock SET owner = null WHERE name = 'lock' IF owner = ?", (owner,)).await
    }

    async fn query(&self, cql: &str, values: impl SerializeRow) -> Result<QueryResult, ExecutionError> {
        let mut statement = Statement::new(cql);
        statement.set_retry_policy(Some(Arc::new(FallthroughRetryPolicy::new())));
        self.session.query_unpaged(statement, values).await
    }

    async fn rows<R>(&self, cql: &str, values: impl SerializeRow) -> Result<Vec<R>, OpenError>
    where
        R: for<'a> scylla::deserialize::row::DeserializeRow<'a, 'a>,
    {
        const WHAT: &str = "reading the schema";
        let result = self.session.query_unpaged(cql, values).await.map_err(|error| self.failed(WHAT, error))?;
        let broken = |error: crate::error::Source| OpenError::Cql { what: WHAT, source: error };
        let result = result.into_rows_result().map_err(|error| broken(error.into()))?;
        let rows = result.rows::<R>().map_err(|error| broken(error.into()))?;
        rows.collect::<Result<_, _>>().map_err(|error| broken(error.into()))
    }

    fn failed(&self, what: &'static str, error: ExecutionError) -> OpenError {
        OpenError::Cql { what, source: error.into() }
    }
}

/// Whether this may be said of a table that somebody is making: it is in the schema sooner than it can be read. A Cassandra
/// that knows the table and has no storage for it yet fails, and calls it an error of the server.
fn is_being_made(error: &ExecutionError) -> bool {
    matches!(error, ExecutionError::LastAttemptError(RequestAttemptError::DbError(DbError::ServerError, _)))
        || refused(error).is_some()
}

/// What the database said, if it will never do it.
fn refused(error: &ExecutionError) -> Option<&DbError> {
    match error {
        ExecutionError::LastAttemptError(RequestAttemptError::DbError(said, _)) => Some(said).filter(|said| is_refused(said)),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn migrations_are_cut_into_statements() {
        for migration in MIGRATIONS {
            let statements = migration.statements();
            let is_safe_to_repeat = |cql: &String| cql.starts_with("CREATE TABLE IF NOT EXISTS ") || added(cql).is_some();
            assert!(statements.iter().all(is_safe_to_repeat), "{statements:#?}");
        }
        assert_eq!(MIGRATIONS[0].statements().len(), 12);
        let late = MIGRATIONS[2].statements();
        assert_eq!(
            late.iter().filter_map(|cql| added(cql)).collect::<Vec<_>>(),
            [("message_nonces", "published"), ("message_nonces", "replaced"), ("event_journal", "nonce"),]
        );
    }
}
