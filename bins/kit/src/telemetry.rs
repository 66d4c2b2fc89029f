//! Logs: human-readable lines on stderr, chosen by `JISCORD_LOG`.

use std::io::{self, IsTerminal};

use tracing_subscriber::EnvFilter;

use crate::exit::Refused;

/// Starts logging for the whole process. `filter` is a [`Config`](crate::Config)'s, which was checked when it was read.
pub fn install(filter: &str) -> Result<(), Refused> {
    let filter = EnvFilter::try_new(filter).map_err(|error| Refused::because(format!("JISCORD_LOG: {error}")))?;
    tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(io::stderr)
        .with_ansi(io::stderr().is_terminal())
        .try_init()
        .map_err(|error| Refused::because(format!("logging was set up already: {error}")))
}
