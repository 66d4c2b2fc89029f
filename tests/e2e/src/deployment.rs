//! A running Jiscord.

use std::{
    env,
    fs::{self, File},
    path::PathBuf,
    process::{ExitStatus, Output, Stdio},
    time::Duration,
};

use rusqlite::{Connection, OpenFlags};
use rustix::process::{Pid, Signal, kill_process};
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::{
    io::{AsyncBufReadExt, BufReader},
    process::{Child, Command},
    time::{Instant, sleep},
};

use crate::{Caller, PATIENCE, Person, program::program, within};

/// How long a graceful end may take.
const END: Duration = Duration::from_secs(25);

/// The all-in-one as a process with a data folder of its own, at an address of its own. It ends when this is dropped; if the
/// test has failed, its log is printed.
pub struct Deployment {
    /// Dropped first: it ends before its folder goes.
    server: Option<Child>,
    folder: TempDir,
    settings: Vec<(String, String)>,
    url: String,
}

/// A row of the event log.
#[derive(Clone, Debug, PartialEq)]
pub struct Logged {
    /// Its position.
    pub p: u64,
    /// Its frame, without the position.
    pub frame: Value,
}

impl Deployment {
    /// One with the default settings.
    pub async fn start() -> Self {
        Self::with(&[]).await
    }

    /// One with these environment variables.
    pub async fn with(settings: &[(&str, &str)]) -> Self {
        let settings = settings.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
        let mut deployment = Self { server: None, folder: tempfile::tempdir().unwrap(), settings, url: String::new() };
        deployment.run("0").await;
        deployment
    }

    /// Where auth-service is.
    pub fn auth(&self) -> String {
        format!("{}/api/auth", self.url)
    }

    /// Where data-service is.
    pub fn data(&self) -> String {
        format!("{}/api/data", self.url)
    }

    /// Where the gateway is.
    pub fn ws(&self) -> String {
        format!("{}/ws", self.url.replacen("http", "ws", 1))
    }

    /// Ends it at once, as a power cut would.
    pub async fn kill9(&mut self) {
        if let Some(mut server) = self.server.take() {
            server.kill().await.unwrap();
        }
    }

    /// Asks it to end, and says how it did.
    pub async fn terminate(&mut self) -> ExitStatus {
        let server = self.server.take().unwrap();
        let pid = Pid::from_raw(i32::try_from(server.id().unwrap()).unwrap()).unwrap();
        kill_process(pid, Signal::TERM).unwrap();
        // Put back, so that it does not outlive a test that waits in vain.
        let status = within(END, self.server.insert(server).wait()).await.unwrap();
        self.server = None;
        status
    }

    /// Starts it again after an end: the same data, the same addresses.
    pub async fn restart(&mut self) {
        self.kill9().await;
        let port = self.url.rsplit_once(':').unwrap().1.to_owned();
        // For a moment somebody else may have been given the port.
        let until = Instant::now() + PATIENCE;
        while !self.try_run(&port).await {
            assert!(Instant::now() < until, "the server does not come back");
            sleep(Duration::from_millis(50)).await;
        }
    }

    /// What becomes of a second server on the same data.
    pub async fn start_another(&self) -> Output {
        let another = self.command("0").stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        within(PATIENCE, another.wait_with_output()).await.unwrap()
    }

    /// What signs users' tokens.
    pub fn jwt_secret(&self) -> String {
        fs::read_to_string(self.data_folder().join("jwt.secret")).unwrap().trim_end().to_owned()
    }

    /// What services show each other.
    pub fn service_token(&self) -> String {
        fs::read_to_string(self.data_folder().join("service.token")).unwrap().trim_end().to_owned()
    }

    /// The event log, in order. It can be read whether the server runs or not.
    pub fn events(&self) -> Vec<Logged> {
        let flags = OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX;
        let db = Connection::open_with_flags(self.data_folder().join("jiscord.db"), flags).unwrap();
        db.busy_timeout(PATIENCE).unwrap();
        let mut rows = db.prepare("SELECT p, frame FROM events ORDER BY p").unwrap();
        let rows = rows.query_map([], |row| Ok((row.get::<_, i64>(0)?, row.get::<_, String>(1)?))).unwrap();
        let read = |(p, frame): (i64, String)| Logged { p: p.try_into().unwrap(), frame: serde_json::from_str(&frame).unwrap() };
        rows.map(|row| read(row.unwrap())).collect()
    }

    /// A new user, logged in.
    pub async fn register(&self, name: &str) -> Person {
        let auth = Caller::new(self.auth());
        let email = format!("{}@example.com", name.to_lowercase());
        let password = "correct horse";
        auth.post("/register", json!({"username": name, "email": email, "password": password})).await.is(201);
        let login = auth.post("/login", json!({"email": email, "password": password})).await.is(200);
        let token = login["token"].as_str().unwrap();
        Person {
            id: login["user"]["user_id"].as_str().unwrap().to_owned(),
            token: token.to_owned(),
            auth: auth.bearer(token),
            data: Caller::new(self.data()).bearer(token),
            ws: self.ws(),
        }
    }

    fn data_folder(&self) -> PathBuf {
        self.folder.path().join("data")
    }

    fn log_file(&self) -> PathBuf {
        self.folder.path().join("log")
    }

    async fn run(&mut self, port: &str) {
        assert!(self.try_run(port).await, "the server did not say where it is");
    }

    /// False if it ended at once.
    async fn try_run(&mut self, port: &str) -> bool {
        let log = File::options().append(true).create(true).open(self.log_file()).unwrap();
        let mut server = self.command(port).stdout(Stdio::piped()).stderr(log).spawn().unwrap();
        let mut said = BufReader::new(server.stdout.take().unwrap()).lines();
        self.server = Some(server);
        loop {
            let Some(line) = within(PATIENCE, said.next_line()).await.unwrap() else { return false };
            if let Some(at) = line.find("http://") {
                self.url = line[at..].trim_end().to_owned();
                break;
            }
        }
        // Read to the end, so that it never waits for somebody to listen.
        tokio::spawn(async move { while let Ok(Some(_)) = said.next_line().await {} });
        true
    }

    /// The program with these settings, and none that whoever runs the tests may have.
    fn command(&self, port: &str) -> Command {
        let mut command = Command::new(program());
        for (name, _) in env::vars_os() {
            let name = name.to_string_lossy();
            if name.starts_with("JISCORD_") || name.starts_with("JWT_SECRET") || name == "PORT" {
                command.env_remove(&*name);
            }
        }
        command.env("PORT", port).env("JISCORD_DATA_DIR", self.data_folder());
        command.envs(self.settings.iter().map(|(name, value)| (name, value)));
        command.stdin(Stdio::null()).kill_on_drop(true);
        command
    }
}

impl Drop for Deployment {
    fn drop(&mut self) {
        if std::thread::panicking() {
            let log = fs::read_to_string(self.log_file()).unwrap_or_default();
            let lines: Vec<_> = log.lines().collect();
            println!("the server's last words:\n{}", lines[lines.len().saturating_sub(100)..].join("\n"));
        }
    }
}
