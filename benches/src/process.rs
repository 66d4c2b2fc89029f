//! A server process, and the CPU time it has used.

use std::{path::PathBuf, process::Stdio, time::Duration};

use anyhow::{Context, bail};
use tokio::{
    io::{AsyncBufReadExt, BufReader, Lines},
    process::{Child, ChildStdout, Command},
};

/// A child process that is killed when this is dropped.
pub(crate) struct Server {
    child: Child,
    lines: Lines<BufReader<ChildStdout>>,
}

impl Server {
    /// Starts it; what it writes to standard output can be waited for.
    pub(crate) fn start(command: &mut Command) -> anyhow::Result<Self> {
        let mut child = command.stdout(Stdio::piped()).kill_on_drop(true).spawn()?;
        let lines = BufReader::new(child.stdout.take().context("no standard output")?).lines();
        Ok(Self { child, lines })
    }

    /// What follows `words` in the first line that has them.
    pub(crate) async fn line_after(&mut self, words: &str) -> anyhow::Result<String> {
        while let Some(line) = self.lines.next_line().await? {
            if let Some((_, rest)) = line.split_once(words) {
                return Ok(rest.trim().to_owned());
            }
        }
        bail!("the server ended before it said {words:?}");
    }

    /// The CPU time it has used, in user and kernel mode (proc(5), stat, fields 14 and 15).
    pub(crate) fn cpu(&self) -> anyhow::Result<Duration> {
        // The unit of these fields is fixed to 100 a second for user space on all common machines.
        const TICK: Duration = Duration::from_millis(10);
        let pid = self.child.id().context("the server has ended")?;
        let stat = std::fs::read_to_string(format!("/proc/{pid}/stat"))?;
        let (_, fields) = stat.rsplit_once(')').context("no stat")?;
        let field = |n: usize| fields.split_whitespace().nth(n).and_then(|field| field.parse::<u32>().ok()).context("no stat");
        Ok(TICK * (field(11)? + field(12)?))
    }
}

/// A program that was built beside this one.
pub(crate) fn sibling(name: &str) -> anyhow::Result<PathBuf> {
    let path = std::env::current_exe()?.with_file_name(name);
    if !path.exists() {
        bail!("{} is not there; run ./x bench, which builds it", path.display());
    }
    Ok(path)
}
