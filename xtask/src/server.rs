//! An all-in-one for examples to talk to.

use std::{
    env,
    io::{BufRead, BufReader},
    os::unix::process::CommandExt,
    path::Path,
    process::{Child, Command, Stdio},
    sync::mpsc,
    thread,
    time::{Duration, Instant},
};

use tempfile::TempDir;

use crate::report::{Outcome, Stop, done, failed};

/// How long a start may take on a busy machine.
const START: Duration = Duration::from_secs(60);
/// How long a graceful stop may take.
const STOP: Duration = Duration::from_secs(25);

/// A running server.
pub(crate) struct Server {
    child: Child,
    /// Where it listens, such as `http://127.0.0.1:40123`.
    pub(crate) url: String,
    /// Goes when the server has gone.
    data: Option<TempDir>,
}

impl Server {
    /// Starts an all-in-one on a free port, with a data folder of its own.
    pub(crate) fn start(program: &Path) -> Result<Self, Stop> {
        let data = tempfile::tempdir().map_err(|error| Stop::Failed(format!("no folder for data: {error}")))?;
        let mut command = plain(program);
        command.env("PORT", "0").env("JISCORD_DATA_DIR", data.path().join("data"));
        let mut server = Self::wait(&mut command)?;
        server.data = Some(data);
        Ok(server)
    }

    /// Starts a server and waits until it says where it is.
    pub(crate) fn wait(command: &mut Command) -> Result<Self, Stop> {
        let shown = command.get_program().to_string_lossy().into_owned();
        let child = command.stdin(Stdio::null()).stdout(Stdio::piped()).process_group(0).spawn();
        let mut child = child.map_err(|error| Stop::Failed(format!("{shown}: {error}")))?;
        let (tell, told) = mpsc::channel();
        if let Some(out) = child.stdout.take() {
            // Reads on to the end, so that the server never waits for a full pipe.
            thread::spawn(move || {
                for line in BufReader::new(out).lines().map_while(Result::ok) {
                    if let Some(at) = line.find("http://") {
                        let _ = tell.send(line[at..].trim().to_owned());
                    }
                }
            });
        }
        match told.recv_timeout(START) {
            Ok(url) => Ok(Self { child, url, data: None }),
            Err(_) => {
                let _ = child.kill();
                let _ = child.wait();
                failed(format!("{shown} did not say where it listens"))
            }
        }
    }

    /// Whether it has ended by itself.
    pub(crate) fn has_ended(&mut self) -> bool {
        !matches!(self.child.try_wait(), Ok(None))
    }

    /// Asks it to stop, and sees that it does so in time and well.
    pub(crate) fn stop(mut self) -> Outcome {
        done(Command::new("kill").args(["-TERM", &self.child.id().to_string()]))?;
        let until = Instant::now() + STOP;
        while Instant::now() < until {
            match self.child.try_wait() {
                Ok(Some(status)) if status.success() => return Ok(()),
                Ok(Some(status)) => return failed(format!("the server ended with {status}")),
                Ok(None) => thread::sleep(Duration::from_millis(20)),
                Err(error) => return failed(error.to_string()),
            }
        }
        failed("the server did not stop in 25 s")
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// A program with none of the settings that whoever runs this may have.
pub(crate) fn plain(program: &Path) -> Command {
    let mut command = Command::new(program);
    for (name, _) in env::vars_os() {
        let name = name.to_string_lossy();
        let services = name.ends_with("_SERVICE_URL") || name == "REDIS_URL" || name.starts_with("SCYLLA_");
        if services || name.starts_with("JISCORD_") || name.starts_with("JWT_SECRET") || name == "PORT" {
            command.env_remove(&*name);
        }
    }
    command
}
