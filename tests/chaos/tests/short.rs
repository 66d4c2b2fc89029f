//! A short run on each shape, and the seeds that once failed. `./x chaos` is the long one.
#![expect(clippy::unwrap_used, reason = "a test that fails may panic")]

use std::{
    env,
    time::{Duration, SystemTime},
};

use jiscord_chaos::{
    run::{Plan, run},
    stage::Shape,
};
use jiscord_e2e::has_database;

/// Of each run.
const FAULTS: usize = 20;

/// Lines of `<shape> <seed>`, and what it was about.
const SEEDS: &str = include_str!("../seeds.txt");

async fn holds(shape: Shape, seed: u64) {
    println!("to repeat it: JISCORD_SEED={seed}; and for long: ./x chaos --shape {} --seed {seed} --minutes 10", shape.name());
    let plan =
        Plan { shape, seed, faults: FAULTS, time: Duration::ZERO, each: 0, many: 50, own_database: false, rows: Vec::new() };
    let report = run(&plan).await;
    println!("{report}");
    assert_eq!(report.counts.defects(), 0, "{} with the seed {seed}: {}", shape.name(), report.counts);
    assert!(report.faults() >= FAULTS, "{report}");
}

/// Those that once failed, and one that nobody has tried.
fn seeds(shape: Shape) -> Vec<u64> {
    if let Ok(seed) = env::var("JISCORD_SEED") {
        return vec![seed.parse().expect("JISCORD_SEED is a number")];
    }
    let lines = SEEDS.lines().filter(|line| !line.starts_with('#')).map(|line| line.split(' ').collect::<Vec<_>>());
    let kept = lines.filter(|line| line[0] == shape.name()).map(|line| line[1].parse().unwrap());
    kept.chain([SystemTime::UNIX_EPOCH.elapsed().unwrap().as_secs()]).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn the_all_in_one_keeps_its_promises_under_faults() {
    for seed in seeds(Shape::One) {
        holds(Shape::One, seed).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_services_keep_their_promises_under_faults() {
    if !has_database("the_services_keep_their_promises_under_faults") {
        return;
    }
    for seed in seeds(Shape::Services) {
        holds(Shape::Services, seed).await;
    }
}
