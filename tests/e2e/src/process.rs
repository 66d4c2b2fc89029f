//! One process of the system under test.

use std::{
    env,
    fs::{self, File},
    path::{Path, PathBuf},
    process::{ExitStatus, Output, Stdio},
    time::Duration,
};

use rustix::{
    param::{clock_ticks_per_second, page_size},
    process::{Pid, Resource, Signal, getrlimit, kill_process},
};
use tokio::{
    io::{AsyncBufReadExt, BufReader},
    process::{Child, Command},
    time::{Instant, sleep},
};

use crate::{PATIENCE, program::program, within};

/// How long a graceful end may take.
const END: Duration = Duration::from_secs(25);

/// A server program with settings of its own. It ends when this is dropped; if the test has failed, its log is printed.
pub struct Process {
    name: &'static str,
    settings: Vec<(String, String)>,
    log: PathBuf,
    url: String,
    child: Option<Child>,
}

impl Process {
    /// Starts the program of this name on a free port. Its log goes into the folder.
    /// Started, on a free port, with its log in the folder.
    pub async fn start(name: &'static str, number: usize, folder: &Path, settings: Vec<(String, String)>) -> Self {
        Self::start_at("0", name, number, folder, settings).await
    }

    /// The same on this port; empty: the one that it takes by itself.
    pub(crate) async fn start_at(
        port: &str,
        name: &'static str,
        number: usize,
        folder: &Path,
        settings: Vec<(String, String)>,
    ) -> Self {
        let log = folder.join(format!("{name}-{number}.log"));
        let mut process = Self { name, settings, log, url: String::new(), child: None };
        assert!(process.try_run(port).await, "{name} did not say where it is: {}", process.last_words());
        process
    }

    /// Where it is: `http://127.0.0.1:<port>`.
    pub fn url(&self) -> &str {
        &self.url
    }

    /// Its number; none if it does not run.
    pub fn pid(&self) -> Option<u32> {
        self.child.as_ref()?.id()
    }

    /// All that it has logged, in all its lives.
    pub fn log(&self) -> String {
        fs::read_to_string(&self.log).unwrap()
    }

    /// Ends it at once, as a power cut would.
    pub async fn kill9(&mut self) {
        if let Some(mut child) = self.child.take() {
            child.kill().await.unwrap();
        }
    }

    /// Asks it to end, and says how it did.
    pub async fn terminate(&mut self) -> ExitStatus {
        kill_process(self.running(), Signal::TERM).unwrap();
        let child = self.child.take().unwrap();
        // Put back, so that it does not outlive a test that waits in vain.
        let status = within(END, self.child.insert(child).wait()).await.unwrap();
        self.child = None;
        status
    }

    /// Waits until it ends by itself; false if it does not in this time.
    pub async fn ended(&mut self, patience: Duration) -> bool {
        let Some(child) = &mut self.child else { return true };
        let ended = tokio::time::timeout(patience, child.wait()).await.is_ok();
        if ended {
            self.child = None;
        }
        ended
    }

    /// Halts it where it is.
    pub fn pause(&self) {
        kill_process(self.running(), Signal::STOP).unwrap();
    }

    /// Lets it go on.
    pub fn go_on(&self) {
        kill_process(self.running(), Signal::CONT).unwrap();
    }

    /// The most files that it may have open from now on; none: as many as it could have had from the start.
    pub fn limit_files(&self, most: Option<u64>) {
        let most = most.or(getrlimit(Resource::Nofile).maximum).map_or("unlimited".to_owned(), |most| most.to_string());
        let pid = self.running().as_raw_nonzero().to_string();
        let mut prlimit = std::process::Command::new("prlimit");
        let status = prlimit.args(["--pid", &pid, &format!("--nofile={most}:")]).status().unwrap();
        assert!(status.success(), "prlimit: {status}");
    }

    /// How many files it has open.
    pub fn files(&self) -> usize {
        fs::read_dir(self.proc("fd")).unwrap().count()
    }

    /// How many bytes of memory it has.
    pub fn memory(&self) -> u64 {
        let pages = fs::read_to_string(self.proc("statm")).unwrap();
        pages.split(' ').nth(1).unwrap().parse::<u64>().unwrap() * page_size() as u64
    }

    /// How much time of a core it has used.
    pub fn cpu(&self) -> Duration {
        let stat = fs::read_to_string(self.proc("stat")).unwrap();
        // The name before may have spaces in it.
        let fields: Vec<_> = stat.rsplit_once(')').unwrap().1.split_whitespace().collect();
        let ticks: u64 = fields[11].parse::<u64>().unwrap() + fields[12].parse::<u64>().unwrap();
        Duration::from_millis(ticks * 1_000 / clock_ticks_per_second())
    }

    fn proc(&self, file: &str) -> PathBuf {
        PathBuf::from(format!("/proc/{}/{file}", self.running().as_raw_nonzero()))
    }

    fn running(&self) -> Pid {
        let id = self.pid().expect("it runs");
        Pid::from_raw(i32::try_from(id).unwrap()).unwrap()
    }

    /// Starts it again after an end, at the same address, this once with more settings.
    pub async fn restart_with(&mut self, more: &[(&str, &str)]) {
        let kept = self.settings.len();
        self.settings.extend(more.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())));
        self.restart().await;
        self.settings.truncate(kept);
    }

    /// Starts it again after an end, at the same address.
    pub async fn restart(&mut self) {
        self.kill9().await;
        let port = self.url.rsplit_once(':').unwrap().1.to_owned();
        // For a moment somebody else may have been given the port.
        let until = Instant::now() + PATIENCE;
        while !self.try_run(&port).await {
            assert!(Instant::now() < until, "{} does not come back: {}", self.name, self.last_words());
            sleep(Duration::from_millis(50)).await;
        }
    }

    pub(crate) fn settings(&self) -> Vec<(String, String)> {
        self.settings.clone()
    }

    /// Whether a second one with these settings more says in this time where it is; it is ended. And what it has logged.
    pub async fn another_starts(&self, more: &[(&str, &str)], patience: Duration) -> (bool, String) {
        let mut command = self.command("0");
        let mut another = command.envs(more.iter().copied()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        let mut said = BufReader::new(another.stdout.take().unwrap()).lines();
        let starts =
            tokio::time::timeout(patience, said.next_line()).await.is_ok_and(|line| line.is_ok_and(|line| line.is_some()));
        another.start_kill().unwrap();
        let output = within(PATIENCE, another.wait_with_output()).await.unwrap();
        (starts, String::from_utf8_lossy(&output.stderr).into_owned())
    }

    /// What becomes of a second one with the same settings, on another port.
    pub(crate) async fn start_another(&self) -> Output {
        let another = self.command("0").stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        within(PATIENCE, another.wait_with_output()).await.unwrap()
    }

    /// False if it ended at once.
    async fn try_run(&mut self, port: &str) -> bool {
        let log = File::options().append(true).create(true).open(&self.log).unwrap();
        let mut child = self.command(port).stdout(Stdio::piped()).stderr(log).spawn().unwrap();
        let mut said = BufReader::new(child.stdout.take().unwrap()).lines();
        self.child = Some(child);
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
        let mut command = plain(self.name);
        command.env("PORT", port).envs(self.settings.iter().map(|(name, value)| (name, value)));
        command
    }

    fn last_words(&self) -> String {
        let log = fs::read_to_string(&self.log).unwrap_or_default();
        let lines: Vec<_> = log.lines().collect();
        lines[lines.len().saturating_sub(100)..].join("\n")
    }
}

/// A program of this name, with no settings at all.
pub fn plain(name: &'static str) -> Command {
    let mut command = Command::new(program(name));
    for (name, _) in env::vars_os() {
        let name = name.to_string_lossy();
        let services =
            name.ends_with("_SERVICE_URL") || name == "GATEWAY_URL" || name == "REDIS_URL" || name.starts_with("SCYLLA_");
        if services || name == "FAILPOINTS" || name.starts_with("JISCORD_") || name.starts_with("JWT_SECRET") || name == "PORT" {
            command.env_remove(&*name);
        }
    }
    command.stdin(Stdio::null()).kill_on_drop(true);
    command
}

impl Drop for Process {
    fn drop(&mut self) {
        if let Some(child) = &mut self.child {
            let _ = child.start_kill();
        }
        if std::thread::panicking() {
            println!("the last words of {}:\n{}", self.name, self.last_words());
        }
    }
}
