//! Jiscord, all in one process: reads the configuration, joins store, api and gateway, serves until told to stop.

mod cli;
mod data;
mod entry;
mod kept;
mod page;
mod server;
mod user;

use std::process::ExitCode;

use clap::Parser;
use jiscord_bin_kit::{Config, Refused, config::StoreKind, exit, process, shutdown, telemetry};

use crate::{
    cli::{Cli, Command, UserCommand},
    server::Server,
};

fn main() -> ExitCode {
    process::harden();
    match run(Cli::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => exit::report("jiscord", error.as_ref()),
    }
}

#[tokio::main]
async fn run(cli: Cli) -> anyhow::Result<()> {
    let config = Config::load()?; // reports every bad setting at once
    telemetry::install(&config.log)?;
    let services = config.services()?;
    match cli.command.unwrap_or(Command::Serve) {
        Command::Serve => {
            let stop = shutdown::on_signal()?; // first, so that a stop during the start is heard
            if let Some(services) = services {
                return entry::serve(&config, services, stop).await;
            }
            match Server::start(&config, stop).await? {
                Some(server) => server.serve().await,
                None => Ok(()),
            }
        }
        _ if config.store == StoreKind::Scylla => {
            let line = "with JISCORD_STORE=scylla accounts are made by POST /api/auth/register, and tables by serving";
            Err(Refused::because(line).into())
        }
        _ if services.is_some() => {
            let line = "in front of the services (GATEWAY_URL) nothing is stored; accounts are made by POST /api/auth/register";
            Err(Refused::because(line).into())
        }
        Command::Migrate => data::migrate(&config).await,
        Command::User(UserCommand::Create(new)) => user::create(&config, new).await,
    }
}
