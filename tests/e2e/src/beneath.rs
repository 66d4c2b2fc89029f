//! What is beneath the services: a Redis of one's own, and a keyspace behind a wire that can be cut.

use std::{
    collections::BTreeMap,
    env,
    io::{BufRead, BufReader, Write},
    net::SocketAddr,
    path::Path,
    process::{Child, Command, Stdio},
    sync::{Mutex, PoisonError},
    thread,
    time::{Duration, Instant},
};

use redis::Commands;
use rustix::process::{Pid, Signal, kill_process};
use scylla::{client::session_builder::SessionBuilder, value::CqlTimeuuid};
use tempfile::TempDir;
use uuid::Uuid;

use crate::{Logged, PATIENCE, Proxy, Tampering};

/// Names a database, `host:port`, that the tests may make keyspaces in.
const CQL: &str = "JISCORD_TEST_CQL";
/// Names another redis-server than the one of the path.
const REDIS: &str = "JISCORD_TEST_REDIS";

/// Keyspaces that nobody uses any more. Making one takes seconds, and emptying it does not.
static FREE: Mutex<Vec<String>> = Mutex::new(Vec::new());

/// Whether there is a database for a test; said aloud if not. Under CI=true that is a failure.
pub fn has_database(test: &str) -> bool {
    if env::var(CQL).is_ok_and(|address| !address.is_empty()) {
        return true;
    }
    assert!(env::var("CI").as_deref() != Ok("true"), "{CQL} is not set: nothing may be skipped here");
    // Not by `eprintln`, which libtest swallows where a test passes.
    let _ = writeln!(std::io::stderr(), "SKIPPED {test}: {CQL}=host:port of a ScyllaDB or Cassandra is not set");
    false
}

/// Redis and the database, as the services of one test see them.
pub struct Beneath {
    redis: Option<Child>,
    redis_port: u16,
    folder: TempDir,
    /// Where the database is, past the wire.
    database: String,
    keyspace: String,
    /// Other tests may use the keyspace afterwards.
    shared: bool,
    database_wire: Proxy,
    redis_wire: Proxy,
}

impl Beneath {
    pub(crate) async fn start() -> Self {
        Self::on(None).await
    }

    /// On that database, or on the one that all tests share.
    pub(crate) async fn on(own: Option<String>) -> Self {
        Self::tampering(own, None, None).await
    }

    /// The same, with something that changes what passes to and from the database, and Redis.
    pub async fn tampering(own: Option<String>, with_database: Option<Tampering>, with_redis: Option<Tampering>) -> Self {
        let shared = own.is_none();
        let database = own.or_else(|| env::var(CQL).ok()).unwrap_or_else(|| {
            panic!("{CQL}=host:port of a ScyllaDB or Cassandra is not set; ./x test starts one and sets it");
        });
        let free = shared.then(|| FREE.lock().unwrap_or_else(PoisonError::into_inner).pop()).flatten();
        let keyspace = match free {
            Some(used) => {
                empty(&database, &used).await;
                used
            }
            None => format!("e2e_{}", Uuid::new_v4().simple()),
        };
        let redis_port = free_port();
        let mut beneath = Self {
            redis: None,
            redis_port,
            folder: tempfile::tempdir().unwrap(),
            database: database.clone(),
            keyspace,
            shared,
            database_wire: Proxy::tampering(database.parse().unwrap(), with_database).await,
            redis_wire: Proxy::tampering(local(redis_port), with_redis).await,
        };
        beneath.start_redis();
        beneath
    }

    pub(crate) fn settings(&self) -> Vec<(String, String)> {
        let settings = [
            ("SCYLLA_CONTACT_POINTS", self.database_wire.address().to_string()),
            ("SCYLLA_KEYSPACE", self.keyspace.clone()),
            ("REDIS_URL", format!("redis://{}", self.redis_wire.address())),
        ];
        settings.map(|(name, value)| (name.to_owned(), value)).to_vec()
    }

    /// Where Redis is, past the wire.
    pub fn redis_url(&self) -> String {
        format!("redis://127.0.0.1:{}", self.redis_port)
    }

    /// A connection to Redis, past the wire.
    pub fn redis(&self) -> redis::Connection {
        redis::Client::open(self.redis_url()).unwrap().get_connection_with_timeout(PATIENCE).unwrap()
    }

    /// Ends Redis at once; it forgets everything.
    pub fn stop_redis(&mut self) {
        if let Some(mut redis) = self.redis.take() {
            redis.kill().unwrap();
            redis.wait().unwrap();
        }
    }

    /// Halts Redis where it is.
    pub fn pause_redis(&self) {
        self.signal_redis(Signal::STOP);
    }

    /// Lets it go on.
    pub fn resume_redis(&self) {
        self.signal_redis(Signal::CONT);
    }

    fn signal_redis(&self, signal: Signal) {
        let id = self.redis.as_ref().expect("it runs").id();
        kill_process(Pid::from_raw(i32::try_from(id).unwrap()).unwrap(), signal).unwrap();
    }

    /// Has Redis write down what it holds now.
    pub fn save_redis(&self) {
        redis::cmd("SAVE").exec(&mut self.redis()).unwrap();
    }

    /// Starts it, or starts it again at the same address, with nothing in it.
    pub fn start_redis(&mut self) {
        let _ = std::fs::remove_file(self.folder.path().join("dump.rdb"));
        self.start_redis_again();
    }

    /// Starts it again with what it wrote down last.
    pub fn start_redis_again(&mut self) {
        self.redis = Some(run_redis(self.folder.path(), self.redis_port, &[], &[]));
    }

    /// Starts it again with nothing in it, with these environment variables.
    pub fn start_redis_with(&mut self, variables: &[(&str, &str)]) {
        let _ = std::fs::remove_file(self.folder.path().join("dump.rdb"));
        self.redis = Some(run_redis(self.folder.path(), self.redis_port, &[], variables));
    }

    /// Copies Redis into a second one that stays as it is from now on, until [`Self::fail_over`].
    pub fn copy_redis(&self) -> Copy {
        let (folder, port) = (tempfile::tempdir().unwrap(), free_port());
        let redis = run_redis(folder.path(), port, &["--replicaof", "127.0.0.1", &self.redis_port.to_string()], &[]);
        let copy = Copy { redis, port, folder };
        let mut connection =
            redis::Client::open(format!("redis://127.0.0.1:{port}")).unwrap().get_connection_with_timeout(PATIENCE).unwrap();
        let until = Instant::now() + PATIENCE;
        loop {
            let says: String = redis::cmd("INFO").arg("replication").query(&mut connection).unwrap();
            if says.contains("master_link_status:up") {
                break;
            }
            assert!(Instant::now() < until, "the copy of Redis is not made: {says}");
            thread::sleep(Duration::from_millis(50));
        }
        redis::cmd("REPLICAOF").arg("NO").arg("ONE").exec(&mut connection).unwrap();
        copy
    }

    /// Ends Redis at once, and puts the copy in its place.
    pub fn fail_over(&mut self, copy: Copy) {
        self.stop_redis();
        (self.redis, self.redis_port, self.folder) = (Some(copy.redis), copy.port, copy.folder);
        self.redis_wire.aim(local(self.redis_port));
        self.redis_wire.drop_connections();
    }

    /// The wire between the services and Redis.
    pub fn redis_wire(&mut self) -> &mut Proxy {
        &mut self.redis_wire
    }

    /// The wire between the services and the database.
    pub fn database_wire(&mut self) -> &mut Proxy {
        &mut self.database_wire
    }

    /// The message that a nonce stands for, past the wire.
    pub async fn claimed(&self, nonce: &str) -> Option<String> {
        let session = SessionBuilder::new().known_node(self.database.as_str()).build().await.unwrap();
        let claims = format!("SELECT message_id FROM {}.message_nonces WHERE nonce = ? ALLOW FILTERING", self.keyspace);
        let claims = session.query_unpaged(claims, (nonce,)).await.unwrap().into_rows_result().unwrap();
        claims.maybe_first_row::<(CqlTimeuuid,)>().unwrap().map(|(id,)| id.to_string())
    }

    /// Takes the database away from the services.
    pub fn cut_database(&mut self) {
        self.database_wire.cut();
    }

    /// Gives it back.
    pub async fn mend_database(&mut self) {
        self.database_wire.mend().await;
    }

    /// The log on Redis, in order, once nothing more comes.
    pub(crate) fn events(&self) -> Vec<Logged> {
        let mut redis = self.redis();
        let mut read = || {
            let mut events = BTreeMap::new();
            let topics: Vec<String> = redis.keys("log:*").unwrap();
            for topic in topics {
                let entries: redis::streams::StreamRangeReply = redis.xrange_all(topic).unwrap();
                for entry in entries.ids {
                    let p = entry.id.split_once('-').unwrap().0.parse().unwrap();
                    let frame: String = entry.get("f").unwrap();
                    events.insert(p, serde_json::from_str(&frame).unwrap());
                }
            }
            events.into_iter().map(|(p, frame)| Logged { p, frame }).collect::<Vec<_>>()
        };
        // Whoever stored an event publishes it a moment after its answer.
        let mut before = read();
        loop {
            thread::sleep(Duration::from_millis(200));
            let now = read();
            if now == before {
                return now;
            }
            before = now;
        }
    }
}

impl Drop for Beneath {
    fn drop(&mut self) {
        self.stop_redis();
        // After a failure somebody may want to look into it.
        if self.shared && !thread::panicking() {
            FREE.lock().unwrap_or_else(PoisonError::into_inner).push(std::mem::take(&mut self.keyspace));
        }
    }
}

/// Empties all tables but those that say what the tables are, and who has which worker number.
async fn empty(database: &str, keyspace: &str) {
    let session = SessionBuilder::new().known_node(database).build().await.unwrap();
    let query = "SELECT table_name FROM system_schema.tables WHERE keyspace_name = ?";
    let tables = session.query_unpaged(query, (keyspace,)).await.unwrap().into_rows_result().unwrap();
    for table in tables.rows::<(String,)>().unwrap() {
        let (table,) = table.unwrap();
        if !["migrations", "workers"].contains(&&*table) {
            session.query_unpaged(format!("TRUNCATE {keyspace}.{table}"), ()).await.unwrap();
        }
    }
}

/// A Redis that is a copy of another.
pub struct Copy {
    redis: Child,
    port: u16,
    folder: TempDir,
}

/// Starts a Redis, and returns when it is ready.
fn run_redis(folder: &Path, port: u16, more: &[&str], variables: &[(&str, &str)]) -> Child {
    let program = env::var(REDIS).unwrap_or_else(|_| "redis-server".to_owned());
    // Somebody may take the port between the look and the start, for a moment.
    for _ in 0..50 {
        let mut redis = Command::new(&program)
            .args(["--bind", "127.0.0.1", "--port", &port.to_string(), "--save", "", "--appendonly", "no"])
            .args(more)
            .envs(variables.iter().copied())
            .arg("--dir")
            .arg(folder)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap_or_else(|error| panic!("{program}: {error}; install Redis, or name one in {REDIS}"));
        let mut lines = BufReader::new(redis.stdout.take().unwrap()).lines().map_while(Result::ok);
        if lines.any(|line| line.contains("Ready to accept connections")) {
            // Read to the end, so that it never waits for somebody to listen.
            thread::spawn(move || lines.for_each(drop));
            return redis;
        }
        let _ = redis.kill();
        let _ = redis.wait();
        thread::sleep(Duration::from_millis(100));
    }
    panic!("{program} does not start on port {port}");
}

fn local(port: u16) -> SocketAddr {
    SocketAddr::from(([127, 0, 0, 1], port))
}

/// A port below those that the system hands out, so that it stays free while a server is started again.
pub(crate) fn free_port() -> u16 {
    let start = 10_000 + u16::try_from(Uuid::new_v4().as_u128() % 10_000).unwrap();
    (start..).find(|port| std::net::TcpListener::bind(("127.0.0.1", *port)).is_ok()).unwrap()
}
