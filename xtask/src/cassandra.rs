//! The Cassandra that tests and services of this machine use: it speaks the same CQL as ScyllaDB.

use std::{
    fs,
    net::TcpListener,
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use crate::{
    debian,
    report::{Outcome, Stop, done, works},
};

const SCRIPT: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/cassandra-dev/cassandra-dev");
/// What its Java takes; about 300 MB more are beside it.
const HEAP: &str = "768m";

/// A running Cassandra with a folder of its own. It ends, and all it keeps with it, when this is dropped, or when this
/// process ends in another way.
pub(crate) struct Cassandra {
    /// Where it speaks CQL: `127.0.0.1:<port>`.
    pub(crate) address: String,
    folder: PathBuf,
    ports: [u16; 2],
}

impl Cassandra {
    /// Starts one on a free port, with its data below `target`, and waits until it answers.
    pub(crate) fn start(target: &Path) -> Result<Self, Stop> {
        install()?;
        let ports = free_ports().map_err(|error| Stop::Failed(format!("no port for Cassandra: {error}")))?;
        let folder = target.join(format!("cassandra-{}", ports[0]));
        let cassandra = Self { address: format!("127.0.0.1:{}", ports[0]), folder, ports };
        done(&mut cassandra.script("start"))?;
        Ok(cassandra)
    }

    fn script(&self, task: &str) -> Command {
        let mut command = Command::new(SCRIPT);
        command
            .arg(task)
            .env("CASSANDRA_DEV_HOST", "127.0.0.1")
            .env("CASSANDRA_DEV_PORT", self.ports[0].to_string())
            .env("CASSANDRA_DEV_STORAGE_PORT", self.ports[1].to_string())
            .env("CASSANDRA_DEV_DATA", &self.folder)
            .env("CASSANDRA_DEV_HEAP", HEAP)
            // Its data end with it, so nothing waits for the disk. Whoever kills one starts it with `batch`.
            .env("CASSANDRA_DEV_SYNC", "periodic")
            .env("CASSANDRA_DEV_JVM", "-Dcassandra.test.flush_local_schema_changes=false")
            .env("CASSANDRA_DEV_FOR", std::process::id().to_string())
            .stdin(Stdio::null());
        command
    }
}

impl Drop for Cassandra {
    fn drop(&mut self) {
        // It says itself what it could not do.
        let _ = done(&mut self.script("stop"));
        let _ = fs::remove_dir_all(&self.folder);
    }
}

/// Sees that one can be started: for tests that start their own, too.
pub(crate) fn install() -> Outcome {
    if !works(Command::new(SCRIPT).arg("ready")) {
        let mend = "no JDK 17 or no Maven; install both (Debian: apt-get install openjdk-17-jdk-headless maven)";
        debian::install(&["openjdk-17-jdk-headless", "maven"], mend)?;
    }
    done(Command::new(SCRIPT).arg("install"))
}

/// Two ports below those that the system hands out, so that they stay free until Cassandra takes them.
fn free_ports() -> std::io::Result<[u16; 2]> {
    let mut free = (20_000..32_000)
        .cycle()
        .skip((std::process::id() as usize + 6_000) % 12_000)
        .take(12_000)
        .filter(|port| TcpListener::bind(("127.0.0.1", *port)).is_ok());
    match (free.next(), free.next()) {
        (Some(cql), Some(storage)) => Ok([cql, storage]),
        _ => Err(std::io::ErrorKind::AddrInUse.into()),
    }
}
