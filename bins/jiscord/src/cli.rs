//! The command line. It says what to do; how is set in the environment.

use clap::{Args, Parser, Subcommand};
use jiscord_bin_kit::config;

/// A chat server with everything in it: accounts, guilds, channels, messages and live events, on one port and one folder.
#[derive(Debug, Parser)]
#[command(version, after_help = EXAMPLES, after_long_help = long_help())]
pub(crate) struct Cli {
    #[command(subcommand)]
    pub(crate) command: Option<Command>,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Serves until SIGTERM or Ctrl-C (what happens without a command)
    #[command(after_long_help = long_help())]
    Serve,
    /// Manages accounts while the server is stopped
    #[command(subcommand)]
    User(UserCommand),
    /// Brings the database up to date and ends; `serve` does the same before it begins
    Migrate,
}

#[derive(Debug, Subcommand)]
pub(crate) enum UserCommand {
    /// Makes an account; the password is asked for, or read from standard input
    #[command(after_help = "Example:\n  jiscord user create --username ada --email ada@example.com")]
    Create(NewUser),
}

#[derive(Debug, Args)]
pub(crate) struct NewUser {
    /// What the user is called: 2 to 32 characters
    #[arg(long)]
    pub(crate) username: String,
    /// The address to log in with
    #[arg(long)]
    pub(crate) email: String,
    /// Reads the password from standard input, one line, without asking
    #[arg(long)]
    pub(crate) password_stdin: bool,
}

const EXAMPLES: &str = "\
Examples:
  jiscord                                 serves on http://127.0.0.1:3000
  PORT=8080 JISCORD_LISTEN=0.0.0.0 jiscord
                                          serves on all addresses of the machine, port 8080
  JISCORD_DATA_DIR=/var/lib/jiscord jiscord
                                          keeps its data there
  jiscord user create --username ada --email ada@example.com

See --help for all settings.";

fn long_help() -> String {
    let examples = EXAMPLES.trim_end_matches("See --help for all settings.");
    format!(
        "{examples}\
Where data lies:
  In the folder JISCORD_DATA_DIR, `data` in the working directory if unset. The first start makes it:
    jiscord.db (-wal, -shm)   the database, SQLite
    jwt.secret                signs users' tokens; without it everybody has to log in again
    service.token             lets other services in; whoever has it is the server
  All are for their owner alone. One process works on a folder at a time.
  With AUTH_SERVICE_URL, DATA_SERVICE_URL and GATEWAY_URL set it keeps nothing: it is the entry in front of the three services.

How it ends:
  0 after SIGTERM or Ctrl-C, within 25 s; 78 if something must be set up differently first, and it says what; 1 otherwise.

{}",
        config::help()
    )
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    #[test]
    fn the_command_line_makes_sense() {
        Cli::command().debug_assert();
    }
}
