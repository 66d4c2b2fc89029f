//! The tasks behind `./x`.

mod cassandra;
mod chaos;
mod debian;
mod examples;
mod redis;
mod report;
mod server;
mod services;
mod test;
mod wasm;
mod web;
mod websocket;
mod workspace;

use std::{
    env,
    os::unix::process::CommandExt,
    path::PathBuf,
    process::{Command, ExitCode},
};

use crate::report::{Outcome, Stop};

const HELP: &str = "\
Jiscord's tasks.

  ./x run [ARGS]      build the web app and the all-in-one, and run it; its data lies in ./data. Ctrl-C stops it.
                      ARGS go to it: ./x run user create --help
  ./x services        build the three services and run them with a second gateway, on a Redis and a Cassandra of
                      their own. Says where they are; Ctrl-C stops all of it, and what they kept is gone.
  ./x test            everything that must hold: format, lints, tests, docs, features, oldest Rust, examples.
                      Sets up what it needs and stops what it started. Under CI=true nothing may be skipped.
  ./x web             build the web app into apps/web/dist
  ./x wasm            build the Rust SDK as the web app loads it
  ./x bench fanout    deliveries per second of server CPU, beside a minimal program (release build)
  ./x chaos [ARGS]    kills, halts, cuts and overloads a running Jiscord, and counts what became of every message:
                      ./x chaos --shape one|services --minutes N --faults N --seed S
  ./x help            this
";

fn main() -> ExitCode {
    let mut args = env::args().skip(1);
    let task = args.next().unwrap_or_else(|| "help".to_owned());
    match task.as_str() {
        "run" => match done_or_said(web::build()) {
            ExitCode::SUCCESS => become_program(cargo().args(["run", "-p", "jiscord", "--"]).args(args)),
            failed => failed,
        },
        "bench" => bench(args),
        "chaos" => chaos::run(args),
        "help" | "-h" | "--help" => help(),
        task => alone(task, args.next().as_deref()),
    }
}

/// A task that takes no arguments. Those that do tell of them themselves.
fn alone(task: &str, argument: Option<&str>) -> ExitCode {
    let run: fn() -> ExitCode = match task {
        "services" => services::run,
        "test" => test::run,
        "web" => || done_or_said(web::build()),
        "wasm" => || done_or_said(wasm::build()),
        unknown => {
            eprint!("x: no task {unknown:?}\n\n{HELP}");
            return ExitCode::from(2);
        }
    };
    match argument {
        None => run(),
        Some("help" | "-h" | "--help") => help(),
        Some(argument) => {
            eprintln!("x: {task} takes no arguments, such as {argument:?}; try ./x help");
            ExitCode::from(2)
        }
    }
}

fn help() -> ExitCode {
    print!("{HELP}");
    ExitCode::SUCCESS
}

/// A task's end, with the reason where it did not succeed.
fn done_or_said(outcome: Outcome) -> ExitCode {
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(Stop::Failed(why) | Stop::Skipped(why)) => {
            eprintln!("x: {why}");
            ExitCode::FAILURE
        }
    }
}

/// Builds the server beside the benchmarks, which start it.
fn bench(args: impl Iterator<Item = String>) -> ExitCode {
    match cargo().args(["build", "--release", "-p", "jiscord", "-p", "jiscord-bench"]).status() {
        Ok(status) if status.success() => {
            let target = env::var_os("CARGO_TARGET_DIR").map_or_else(|| "target".into(), PathBuf::from);
            become_program(Command::new(target.join("release/jiscord-bench")).args(args))
        }
        _ => ExitCode::FAILURE,
    }
}

/// The cargo that runs this.
fn cargo() -> Command {
    Command::new(env::var_os("CARGO").unwrap_or_else(|| "cargo".into()))
}

/// Goes on as that program, so that signals reach it and its exit code is ours.
fn become_program(command: &mut Command) -> ExitCode {
    let error = command.exec();
    eprintln!("x: {command:?}: {error}");
    ExitCode::FAILURE
}
