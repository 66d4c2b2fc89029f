//! What is beneath the services: a Redis of one's own, and a keyspace behind a wire that can be cut.

use std::{
    collections::BTreeMap,
    env,
    io::{BufRead, BufReader, Write},
    net::SocketAddr,
    process::{Child, Command, Stdio},
    sync::{Mutex, PoisonError},
    thread,
    time::Duration,
};

use redis::Commands;
use scylla::client::session_builder::SessionBuilder;
use tempfile::TempDir;
use tokio::{
    io::copy_bidirectional,
    net::{TcpListener, TcpStream},
    task::{JoinHandle, JoinSet},
};
use uuid::Uuid;

use crate::{Logged, PATIENCE};

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
    keyspace: String,
    /// Other tests may use the keyspace afterwards.
    shared: bool,
    wire: Wire,
}

impl Beneath {
    pub(crate) async fn start() -> Self {
        Self::on(None).await
    }

    /// On that database, or on the one that all tests share.
    pub(crate) async fn on(own: Option<String>) -> Self {
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
        let mut beneath = Self {
            redis: None,
            redis_port: free_port(),
            folder: tempfile::tempdir().unwrap(),
            keyspace,
            shared,
            wire: Wire::lay(database.parse().unwrap()).await,
        };
        beneath.start_redis();
        beneath
    }

    pub(crate) fn settings(&self) -> Vec<(String, String)> {
        let settings = [
            ("SCYLLA_CONTACT_POINTS", self.wire.here.to_string()),
            ("SCYLLA_KEYSPACE", self.keyspace.clone()),
            ("REDIS_URL", self.redis_url()),
        ];
        settings.map(|(name, value)| (name.to_owned(), value)).to_vec()
    }

    /// Where Redis is.
    pub fn redis_url(&self) -> String {
        format!("redis://127.0.0.1:{}", self.redis_port)
    }

    /// Ends Redis at once; it forgets everything.
    pub fn stop_redis(&mut self) {
        if let Some(mut redis) = self.redis.take() {
            redis.kill().unwrap();
            redis.wait().unwrap();
        }
    }

    /// Starts it, or starts it again at the same address.
    pub fn start_redis(&mut self) {
        let program = env::var(REDIS).unwrap_or_else(|_| "redis-server".to_owned());
        // Somebody may take the port between the look and the start, for a moment.
        for _ in 0..50 {
            let mut redis = Command::new(&program)
                .args(["--bind", "127.0.0.1", "--port", &self.redis_port.to_string(), "--save", "", "--appendonly", "no"])
                .arg("--dir")
                .arg(self.folder.path())
                .stdin(Stdio::null())
                .stdout(Stdio::piped())
                .spawn()
                .unwrap_or_else(|error| panic!("{program}: {error}; install Redis, or name one in {REDIS}"));
            let mut lines = BufReader::new(redis.stdout.take().unwrap()).lines().map_while(Result::ok);
            if lines.any(|line| line.contains("Ready to accept connections")) {
                // Read to the end, so that it never waits for somebody to listen.
                thread::spawn(move || lines.for_each(drop));
                self.redis = Some(redis);
                return;
            }
            let _ = redis.kill();
            let _ = redis.wait();
            thread::sleep(Duration::from_millis(100));
        }
        panic!("{program} does not start on port {}", self.redis_port);
    }

    /// Takes the database away from the services.
    pub fn cut_database(&mut self) {
        self.wire.cut();
    }

    /// Gives it back.
    pub async fn mend_database(&mut self) {
        self.wire.mend().await;
    }

    /// The log on Redis, in order, once nothing more comes.
    pub(crate) fn events(&self) -> Vec<Logged> {
        let mut redis = redis::Client::open(self.redis_url()).unwrap().get_connection_with_timeout(PATIENCE).unwrap();
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

/// A port below those that the system hands out, so that it stays free while a server is started again.
fn free_port() -> u16 {
    let start = 10_000 + u16::try_from(Uuid::new_v4().as_u128() % 10_000).unwrap();
    (start..).find(|port| std::net::TcpListener::bind(("127.0.0.1", *port)).is_ok()).unwrap()
}

/// Passes connections on for as long as it is whole.
struct Wire {
    here: SocketAddr,
    there: SocketAddr,
    passing: Option<JoinHandle<()>>,
}

impl Wire {
    async fn lay(there: SocketAddr) -> Self {
        let mut wire = Self { here: SocketAddr::from(([127, 0, 0, 1], free_port())), there, passing: None };
        wire.mend().await;
        wire
    }

    async fn mend(&mut self) {
        let (listener, there) = (TcpListener::bind(self.here).await.unwrap(), self.there);
        self.passing = Some(tokio::spawn(async move {
            let mut connections = JoinSet::new();
            while let Ok((mut near, _)) = listener.accept().await {
                connections.spawn(async move {
                    if let Ok(mut far) = TcpStream::connect(there).await {
                        let _ = copy_bidirectional(&mut near, &mut far).await;
                    }
                });
            }
        }));
    }

    fn cut(&mut self) {
        if let Some(passing) = self.passing.take() {
            passing.abort();
        }
    }
}

impl Drop for Wire {
    fn drop(&mut self) {
        self.cut();
    }
}
