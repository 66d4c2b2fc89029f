//! A program's wall clock, set forth and back while it runs.

use std::{fs::OpenOptions, io::Write, process::Command};

use tempfile::TempDir;

use crate::faults::Stop;

/// Overrides the C library's clocks; the machine's own clock stays as it is.
const SOURCE: &str = include_str!("clock.c");

/// How far the clock of the programs that are started with [`Self::settings`] is off.
pub(crate) struct Clock {
    folder: TempDir,
    settings: [(&'static str, String); 2],
}

impl Clock {
    /// A right one. Needs the C compiler that SQLite is built with.
    pub(crate) fn new() -> Result<Self, Stop> {
        let folder = tempfile::tempdir().expect("a folder for temporary files");
        let [source, library, file] = ["clock.c", "clock.so", "offset"].map(|name| folder.path().join(name));
        std::fs::write(&source, SOURCE).expect("room for temporary files");
        let built = Command::new("cc").args(["-shared", "-fPIC", "-O1", "-o"]).args([&library, &source]).status();
        if !built.is_ok_and(|status| status.success()) {
            return Err(Stop::Skip("there is no C compiler, which makes the library that a program's clock is set with".into()));
        }
        let settings = [("LD_PRELOAD", library), ("CLOCK_FILE", file)].map(|(name, path)| (name, path.display().to_string()));
        let clock = Self { folder, settings };
        clock.set(0);
        Ok(clock)
    }

    /// So many seconds ahead of the machine's.
    pub(crate) fn set(&self, seconds: i64) {
        let mut file = OpenOptions::new().write(true).create(true).truncate(false).open(self.folder.path().join("offset"));
        // In place, at once: the programs have mapped it.
        let written = file.as_mut().map(|file| file.write_all(&(seconds * 1_000_000).to_ne_bytes()));
        assert!(matches!(written, Ok(Ok(()))), "{written:?}");
    }

    /// The environment of programs that have it.
    pub(crate) fn settings(&self) -> Vec<(&'static str, &str)> {
        self.settings.iter().map(|(name, value)| (*name, value.as_str())).collect()
    }
}
