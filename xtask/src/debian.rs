//! Packages of Debian, for whoever may install them.

use std::process::{Command, Stdio};

use crate::report::{Outcome, Stop, done, works};

/// Installs these; skipped, with what to do, where that is not possible.
pub(crate) fn install(packages: &[&str], mend: &str) -> Outcome {
    let root = Command::new("id").arg("-u").output().is_ok_and(|id| id.stdout.trim_ascii() == b"0");
    if !root || !works(Command::new("apt-get").arg("--version")) {
        return Err(Stop::Skipped(mend.into()));
    }
    let apt = |args: &[&str]| {
        let mut command = Command::new("apt-get");
        done(command.args(["-qq", "-y"]).args(args).env("DEBIAN_FRONTEND", "noninteractive").stdin(Stdio::null()))
    };
    apt(&["update"])?;
    apt(&[&["install", "--no-install-recommends"], packages].concat())
}
