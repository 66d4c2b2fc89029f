//! The Redis that tests and services of this machine use.

use std::{
    io::{BufRead, BufReader},
    net::TcpListener,
    os::unix::process::CommandExt,
    process::{Child, Command, Stdio},
    sync::mpsc,
    thread,
    time::Duration,
};

use tempfile::TempDir;

use crate::{
    debian,
    report::{Outcome, Stop, failed, works},
};

const PROGRAM: &str = "redis-server";
/// How long a start may take on a busy machine.
const START: Duration = Duration::from_secs(60);

/// A running Redis with a folder of its own. It ends, and all it keeps with it, when this is dropped.
pub(crate) struct Redis {
    child: Child,
    /// Where it listens: `redis://127.0.0.1:<port>`.
    pub(crate) url: String,
    _folder: TempDir,
}

impl Redis {
    /// Starts one on a free port, and waits until it is ready.
    pub(crate) fn start() -> Result<Self, Stop> {
        install()?;
        let folder = tempfile::tempdir().map_err(|error| Stop::Failed(format!("no folder for Redis: {error}")))?;
        // Somebody may take the port between the look and the start.
        for _ in 0..10 {
            let port = free_port().map_err(|error| Stop::Failed(format!("no port for Redis: {error}")))?;
            let mut child = Command::new(PROGRAM)
                .args(["--bind", "127.0.0.1", "--port", &port.to_string(), "--save", "", "--appendonly", "no"])
                .args(["--maxmemory-policy", "noeviction"])
                .arg("--dir")
                .arg(folder.path())
                .stdin(Stdio::null())
                .stdout(Stdio::piped())
                // Ctrl-C is for whoever uses it, and ends it in its time.
                .process_group(0)
                .spawn()
                .map_err(|error| Stop::Failed(format!("{PROGRAM}: {error}")))?;
            if is_ready(&mut child) {
                return Ok(Self { child, url: format!("redis://127.0.0.1:{port}"), _folder: folder });
            }
            let _ = child.kill();
            let _ = child.wait();
        }
        failed("redis-server does not start")
    }
}

impl Drop for Redis {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Sees that there is a redis-server: for tests that start their own, too.
pub(crate) fn install() -> Outcome {
    if works(Command::new(PROGRAM).arg("--version")) {
        return Ok(());
    }
    debian::install(&["redis-server"], "no redis-server; install Redis 6.2 or newer (Debian: apt-get install redis-server)")
}

/// A port below those that the system hands out, so that it stays free while the server is started again.
fn free_port() -> std::io::Result<u16> {
    let mut free = (20_000..32_000).cycle().skip(std::process::id() as usize % 12_000).take(12_000);
    let port = free.find(|port| TcpListener::bind(("127.0.0.1", *port)).is_ok());
    port.ok_or_else(|| std::io::ErrorKind::AddrInUse.into())
}

/// Waits until it says that it is ready; false if it ends or takes too long.
fn is_ready(child: &mut Child) -> bool {
    let Some(out) = child.stdout.take() else { return false };
    let (tell, told) = mpsc::channel();
    // Reads on to the end, so that the server never waits for a full pipe.
    thread::spawn(move || {
        for line in BufReader::new(out).lines().map_while(Result::ok) {
            if line.contains("Ready to accept connections") {
                let _ = tell.send(());
            }
        }
    });
    told.recv_timeout(START).is_ok()
}
