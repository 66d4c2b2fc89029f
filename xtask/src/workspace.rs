//! This workspace, and the Rust that builds it.

use std::{
    path::{Path, PathBuf},
    process::Command,
};

use serde_json::Value;

use crate::{
    cargo,
    report::{Outcome, Stop, done, failed, works},
};

/// What `cargo metadata` says.
pub(crate) struct Workspace {
    target: PathBuf,
    pub(crate) rust: String,
    /// The crates to publish, with their features.
    pub(crate) crates: Vec<(String, Vec<String>)>,
}

impl Workspace {
    pub(crate) fn read() -> Result<Self, Stop> {
        let output = cargo().args(["metadata", "--no-deps", "--format-version", "1"]).output();
        let output = output.map_err(|error| Stop::Failed(error.to_string()))?;
        Self::parse(&output.stdout).ok_or_else(|| Stop::Failed(String::from_utf8_lossy(&output.stderr).into_owned()))
    }

    fn parse(metadata: &[u8]) -> Option<Self> {
        let metadata: Value = serde_json::from_slice(metadata).ok()?;
        let packages = metadata["packages"].as_array()?;
        // `publish` is null for what may be published anywhere, and an empty list for what may not.
        let crates = packages.iter().filter(|package| package["publish"].is_null()).map(|package| {
            let features = package["features"].as_object()?.keys().cloned().collect();
            Some((package["name"].as_str()?.to_owned(), features))
        });
        Some(Self {
            target: metadata["target_directory"].as_str()?.into(),
            rust: packages.first()?["rust_version"].as_str()?.to_owned(),
            crates: crates.collect::<Option<_>>()?,
        })
    }

    /// The folder that cargo builds in.
    pub(crate) fn target(&self) -> &Path {
        &self.target
    }

    /// A program of the workspace.
    pub(crate) fn program(&self, name: &str) -> PathBuf {
        self.target.join("debug").join(name)
    }
}

/// Has rustup do something, where it is there.
pub(crate) fn rustup(args: &[&str]) -> Outcome {
    if !works(Command::new("rustup").arg("--version")) {
        return Err(Stop::Skipped(format!("this Rust is not rustup's; with it: rustup {}", args.join(" "))));
    }
    match done(Command::new("rustup").args(args)) {
        Err(Stop::Failed(why)) => failed(why),
        other => other,
    }
}
