//! A short run on each shape, and the seeds that once failed. `./x chaos` is the long one.
#![expect(clippy::unwrap_used, reason = "a test that fails may panic")]

use std::{env, time::Duration};

use jiscord_chaos::{
    run::{Plan, run},
    stage::Shape,
};
use jiscord_e2e::has_database;

/// Of each run.
const FAULTS: usize = 20;

/// Lines of `<shape> <seed> <rows, or all>`, and what it was about.
const SEEDS: &str = include_str!("../seeds.txt");

/// With only some rows, so many faults are enough.
const FEW: usize = 6;

async fn holds(shape: Shape, seed: u64, rows: Vec<u8>) {
    let faults = if rows.is_empty() { FAULTS } else { FEW };
    println!("to repeat it: JISCORD_SEED={seed}; and for long: ./x chaos --shape {} --seed {seed} --minutes 10", shape.name());
    let plan = Plan { shape, seed, faults, time: Duration::ZERO, each: 0, many: 50, own_database: false, rows };
    let report = run(&plan).await;
    println!("{report}");
    assert_eq!(report.counts.defects(), 0, "{} with the seed {seed}: {}", shape.name(), report.counts);
    assert!(report.faults() >= faults, "{report}");
}

/// Those that once failed, and one more. Always the same: what nobody has tried is for `./x chaos`.
fn seeds(shape: Shape) -> Vec<(u64, Vec<u8>)> {
    if let Ok(seed) = env::var("JISCORD_SEED") {
        return vec![(seed.parse().expect("JISCORD_SEED is a number"), Vec::new())];
    }
    let lines = SEEDS.lines().filter(|line| !line.starts_with('#')).map(|line| line.split(' ').collect::<Vec<_>>());
    let rows = |named: &str| match named {
        "all" => Vec::new(),
        named => named.split(',').map(|row| row.parse().unwrap()).collect(),
    };
    let kept = lines.filter(|line| line[0] == shape.name()).map(|line| (line[1].parse().unwrap(), rows(line[2])));
    kept.chain([(1, Vec::new())]).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn the_all_in_one_keeps_its_promises_under_faults() {
    for (seed, rows) in seeds(Shape::One) {
        holds(Shape::One, seed, rows).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_services_keep_their_promises_under_faults() {
    if !has_database("the_services_keep_their_promises_under_faults") {
        return;
    }
    for (seed, rows) in seeds(Shape::Services) {
        holds(Shape::Services, seed, rows).await;
    }
}
