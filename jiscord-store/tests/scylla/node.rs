//! A database of a test's own, for tests that end it. Shared with the end-to-end tests.

use std::{
    net::TcpListener,
    path::{Path, PathBuf},
    process::Command,
    thread,
    time::{Duration, Instant},
};

/// Below the workspace's root, wherever the package of the test is.
const SCRIPT: &str = "xtask/cassandra-dev/cassandra-dev";

/// A Cassandra that acknowledges only what is on the disk.
pub(crate) struct Node {
    data: PathBuf,
    ports: [String; 2],
}

impl Node {
    /// With its data in a folder of its own in this one. Nothing is started yet.
    pub(crate) fn new(folder: &Path) -> Self {
        // Held together, so that they are two.
        let [cql, storage] = [(), ()].map(|()| TcpListener::bind("127.0.0.1:0").unwrap());
        let ports = [cql, storage].map(|listener| listener.local_addr().unwrap().port().to_string());
        Self { data: folder.join(format!("cassandra-{}", ports[0])), ports }
    }

    /// Where it speaks CQL, started or not.
    pub(crate) fn address(&self) -> String {
        format!("127.0.0.1:{}", self.ports[0])
    }

    /// Runs the script that starts and stops it, to its end.
    pub(crate) fn run(&self, what: &str) {
        let above = Path::new(env!("CARGO_MANIFEST_DIR")).ancestors();
        let script = above.map(|folder| folder.join(SCRIPT)).find(|script| script.exists()).unwrap();
        let status = Command::new(script)
            .arg(what)
            .env("CASSANDRA_DEV_DATA", &self.data)
            .env("CASSANDRA_DEV_PORT", &self.ports[0])
            .env("CASSANDRA_DEV_STORAGE_PORT", &self.ports[1])
            .env("CASSANDRA_DEV_SYNC", "batch")
            .env("CASSANDRA_DEV_HEAP", "512m")
            .env("CASSANDRA_DEV_FOR", std::process::id().to_string())
            .status()
            .unwrap();
        assert!(status.success(), "cassandra-dev {what}: {status}");
    }

    /// Ends it at once, as a power cut would.
    pub(crate) fn kill(&self) {
        let pid = std::fs::read_to_string(self.data.join("cassandra.pid")).unwrap();
        assert!(Command::new("kill").args(["-9", pid.trim()]).status().unwrap().success());
        // It has its ports until it is gone, and its memory takes a moment.
        let gone = Instant::now() + Duration::from_secs(30);
        while Path::new("/proc").join(pid.trim()).exists() {
            assert!(Instant::now() < gone, "the database does not end");
            thread::sleep(Duration::from_millis(20));
        }
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        self.run("stop");
        let _ = std::fs::remove_dir_all(&self.data);
    }
}
