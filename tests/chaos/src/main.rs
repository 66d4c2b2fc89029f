//! `./x chaos`: a long run of faults.

use std::{
    process::ExitCode,
    time::{Duration, SystemTime},
};

use clap::Parser;
use jiscord_chaos::{
    run::{Plan, left_out, run},
    stage::Shape,
};

/// Kills, halts, cuts and overloads a running Jiscord, and counts what became of every message.
#[derive(Parser)]
struct Args {
    /// One of: one, services.
    #[arg(long, value_parser = shape, default_value = "one")]
    shape: Shape,
    /// How long to go on, at least.
    #[arg(long, default_value_t = 0)]
    minutes: u64,
    /// How many faults to inject, at least.
    #[arg(long, default_value_t = 0)]
    faults: usize,
    /// How often each fault comes, at least.
    #[arg(long, default_value_t = 2)]
    each: usize,
    /// Decides the order of the faults. Without it: another one each time.
    #[arg(long)]
    seed: Option<u64>,
    /// How many sessions storm.
    #[arg(long, default_value_t = 1_000)]
    many: usize,
    /// Only faults of these rows.
    #[arg(long, value_delimiter = ',')]
    rows: Vec<u8>,
}

fn shape(name: &str) -> Result<Shape, String> {
    Shape::named(name).ok_or_else(|| "it is one or services".into())
}

#[tokio::main]
async fn main() -> ExitCode {
    let Args { shape, minutes, faults, each, seed, many, rows } = Args::parse();
    let seed = seed.unwrap_or_else(|| SystemTime::UNIX_EPOCH.elapsed().map_or(0, |time| time.as_secs()));
    let named: Vec<_> = rows.iter().map(u8::to_string).collect();
    let only = if named.is_empty() { String::new() } else { format!(" --rows {}", named.join(",")) };
    println!("./x chaos --shape {} --minutes {minutes} --faults {faults} --each {each} --seed {seed}{only}\n", shape.name());
    let time = Duration::from_secs(60 * minutes);
    let own_database = std::env::var_os("JISCORD_TEST_CQL").is_none_or(|address| address.is_empty());
    let report = run(&Plan { shape, seed, faults, time, each, many, own_database, rows }).await;
    println!("{report}");
    println!("Not in the table:\n\n{}", left_out());
    if report.counts.defects() == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}
