//! A real Redis for one test, in a folder and on a port of its own.

use std::{
    env,
    io::{BufRead, BufReader, ErrorKind},
    net::TcpListener,
    process::{Child, Command, Stdio},
    thread,
};

use rand::Rng;
use tempfile::TempDir;

/// Stopped when it is dropped.
pub(crate) struct Server {
    folder: TempDir,
    options: Vec<String>,
    pub(crate) port: u16,
    child: Option<Child>,
}

/// A Redis that keeps what it is told. `None` where there is none to start, which is a failure under `CI=true`.
pub(crate) fn server() -> Option<Server> {
    server_with(&[])
}

/// The same with other options.
pub(crate) fn server_with(options: &[&str]) -> Option<Server> {
    if let Err(error) = Command::new(program()).arg("--version").output() {
        assert!(
            !(error.kind() == ErrorKind::NotFound && env::var("CI").is_ok_and(|ci| ci == "true")),
            "no redis-server: {error}"
        );
        eprintln!("skipped: no redis-server ({error}); install it, or name one in JISCORD_TEST_REDIS");
        return None;
    }
    let folder = tempfile::tempdir().unwrap();
    let options = options.iter().map(ToString::to_string).collect();
    let mut server = Server { folder, options, port: 0, child: None };
    for _ in 0..100 {
        // Below the ports that the system hands out, so that nobody is given it while the server is down.
        server.port = rand::rng().random_range(20_000..32_000);
        if TcpListener::bind(("127.0.0.1", server.port)).is_ok() && server.try_start() {
            return Some(server);
        }
    }
    panic!("redis-server does not start");
}

fn program() -> String {
    env::var("JISCORD_TEST_REDIS").unwrap_or_else(|_| "redis-server".to_owned())
}

impl Server {
    pub(crate) fn url(&self) -> String {
        format!("redis://127.0.0.1:{}", self.port)
    }

    /// Starts it again, with the dump that lies in its folder, if one does.
    pub(crate) fn start(&mut self) {
        assert!(self.try_start(), "redis-server does not start again");
    }

    /// Starts it and waits until it says that it is ready. False if it ends instead.
    fn try_start(&mut self) -> bool {
        let mut command = Command::new(program());
        command.args(["--bind", "127.0.0.1", "--port", &self.port.to_string(), "--save", "", "--appendonly", "no"]);
        command.args(["--maxmemory-policy", "noeviction"]).arg("--dir").arg(self.folder.path()).args(&self.options);
        let mut child = command.stdout(Stdio::piped()).spawn().unwrap();
        let mut lines = BufReader::new(child.stdout.take().unwrap()).lines().map_while(Result::ok);
        if !lines.any(|line| line.contains("Ready to accept connections")) {
            child.wait().unwrap();
            return false;
        }
        // Reads on, so that it never waits for a full pipe.
        thread::spawn(move || lines.for_each(drop));
        self.child = Some(child);
        true
    }

    /// Ends it at once, as a crash does.
    pub(crate) fn kill(&mut self) {
        if let Some(mut child) = self.child.take() {
            child.kill().unwrap();
            child.wait().unwrap();
        }
    }

    /// It stands still, but its sockets stay.
    pub(crate) fn pause(&self) {
        self.signal("-STOP");
    }

    /// It goes on.
    pub(crate) fn resume(&self) {
        self.signal("-CONT");
    }

    fn signal(&self, signal: &str) {
        let pid = self.child.as_ref().unwrap().id().to_string();
        assert!(Command::new("kill").args([signal, &pid]).status().unwrap().success());
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.kill();
    }
}
