//! Benchmarks against the real server, each beside something minimal in the same run, since machines are noisy and ratios
//! hold longer than numbers. `./x bench fanout` builds and runs the first; docs/benchmarks.md says what came out.

mod fanout;
mod floor;
mod process;

use clap::{Parser, Subcommand};

#[derive(Parser)]
#[command(about = "Benchmarks against the real server, each beside something minimal in the same run.")]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Deliveries per second of server CPU for many sockets in one channel.
    Fanout(fanout::Fanout),
    /// The minimal program that `fanout` compares with: writes the same bytes to as many sockets.
    #[command(hide = true)]
    Floor,
}

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    match Cli::parse().command {
        Command::Fanout(fanout) => fanout.run().await,
        Command::Floor => floor::serve().await,
    }
}
