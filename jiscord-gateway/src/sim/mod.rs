//! Everything that decides who is told what, run as a deterministic simulation.
//!
//! Two gateways with their hubs, guilds, connections and dispatchers, the bus, the claims and the publishers on Redis, and the
//! relay are the code that is shipped. Simulated are Redis itself and the network to it ([`redis`]), the store ([`store`]) and
//! the clients ([`client`]). One thread runs all of it in paused time, and all chance follows from a seed: the same seed is the
//! same run. What everybody was told is held against what was published ([`record`]), by the invariants of docs/delivery.md.
//!
//! `JISCORD_TEST_SEEDS=5000 cargo test -p jiscord-gateway --features redis --lib sim::` runs so many new seeds, and
//! `JISCORD_TEST_SEED=…` a single one, whose story it prints.
#![expect(clippy::unwrap_used, reason = "a test that fails may panic")]

mod client;
mod record;
mod redis;
mod store;
mod world;

use std::{
    env,
    hash::Hasher,
    iter,
    sync::Arc,
    time::{Duration, Instant as RealInstant},
};

use jiscord_api::relay::Relay;
use jiscord_core::event::Publish;
use tokio::time::{Instant, sleep, timeout};

use self::{
    client::Client,
    world::{Counts, Planted, World, below, chance, upto},
};
use crate::{
    chance::seeded,
    redis::{RedisMarks, RedisPublisher},
};

/// How long things go wrong.
const CHAOS: Duration = Duration::from_secs(25);
/// How long everybody may take to be there again and to have said everything, and how long to hear all of it then.
const SETTLES: Duration = Duration::from_secs(90);
const HEARS: Duration = Duration::from_secs(10);
/// Seeds that once failed.
const KEPT: &[u64] = &[
    1_929_271_029,
    2_689_749_708,
    965_004_362,
    3_153_541_855,
    3_580_176_122,
    3_580_176_192,
    3_580_176_137,
    1_591_911_008,
    1_591_911_018,
    2_649_480_468,
    2_649_480_520,
    269_468_562,
    269_468_660,
    3_575_954_330,
    3_575_954_711,
    3_575_954_533,
    4_098_668_779,
    289_770_237,
    2_049_984_980,
    2_049_985_339,
    2_049_985_432,
    2_049_985_560,
    1_223_373_245,
    1_302_487_052,
];
/// How many more are tried, always the same, unless it is told how many new ones to try.
const SEEDS: u64 = 20;

/// What came out of a run.
struct Outcome {
    trace: u64,
    violations: Vec<String>,
    counts: Counts,
    lines: Vec<String>,
}

fn run(seed: u64, planted: Option<Planted>) -> Outcome {
    seeded::seed(seed);
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build().unwrap();
    let world = runtime.block_on(async {
        let world = World::new(planted);
        if timeout(Duration::from_secs(600), story(&world)).await.is_err() {
            world.record.violated("stuck: it does not come to an end".into());
        }
        world
    });
    drop(runtime);
    let mut record = world.record.lock();
    Outcome {
        trace: record.trace.finish(),
        violations: std::mem::take(&mut record.violations),
        counts: std::mem::take(&mut record.counts),
        lines: std::mem::take(&mut record.lines),
    }
}

/// What happens in a run.
async fn story(world: &Arc<World>) {
    let store = &world.store;
    let guilds = [store.guild(&["ada", "bob", "eve", "joe"]), store.guild(&["ada", "bob"]), store.guild(&["bob", "eve", "joe"])];
    {
        let mut server = world.server.lock();
        match world.planted {
            Some(Planted::Swallowed) => server.swallows = 0.05,
            Some(Planted::Hidden) => server.hides = 0.05,
            _ => {}
        }
    }
    for index in 0..2 {
        world.start(index).await;
    }
    // What writes for those who are not at a gateway, and sees to it that all is published.
    let publisher = Arc::new(RedisPublisher::start(&world.redis).await.unwrap());
    let relay = Relay::new(store.clone(), publisher.clone(), Arc::new(RedisMarks::new(&world.redis)));
    let relay = relay.with_clock(Arc::new(world.clock));
    if world.planted != Some(Planted::NotRelayed) {
        tokio::spawn(async move { relay.run().await });
    }
    for (name, device, rival) in [
        ("ada", None, false),
        ("ada", None, true),
        ("ada", Some("phone"), false),
        ("bob", None, false),
        ("eve", None, false),
        ("joe", Some("phone"), false),
    ] {
        tokio::spawn(Client::new(world, name, device, rival).run());
    }

    let until = Instant::now() + CHAOS;
    while Instant::now() < until {
        sleep(upto(1_500)).await;
        happen(world, &guilds, &publisher).await;
    }
    world.calm_down();
    for index in 0..2 {
        world.kill(index);
        world.start(index).await;
    }
    let settled = async {
        while !world.record.is_settled() {
            sleep(Duration::from_millis(100)).await;
        }
    };
    if timeout(SETTLES, settled).await.is_err() {
        world.record.violated("stuck: somebody does not come back, or is not answered".into());
    }
    sleep(HEARS).await;
    world.probes.send_replace(1);
    sleep(HEARS).await;
    if !world.record.is_settled() {
        world.record.violated("stuck: somebody cannot say a last word".into());
    }
    world.judge();
}

/// Something happens that may.
async fn happen(world: &Arc<World>, guilds: &[jiscord_core::GuildId], publisher: &RedisPublisher) {
    let seconds = |most: u64| upto(most * 1_000);
    let what = match below(18) {
        0..=4 => {
            let (guild, name) = (guilds[below(guilds.len())], ["ada", "eve", "joe", "zoe"][below(4)]);
            for _ in 0..=usize::from(chance(0.3)) {
                let event = world.store.toggle(guild, name);
                // Whoever wrote it may die before it is published.
                if !chance(0.2) {
                    publisher.publish(&[event]).await.unwrap();
                }
                sleep(upto(50)).await;
            }
            "somebody came or went"
        }
        5 => {
            let event = world.store.channel(guilds[below(guilds.len())]);
            publisher.publish(&[event]).await.unwrap();
            "a channel was made"
        }
        6 | 7 => {
            world.server.lock().cut();
            "a connection to Redis was cut"
        }
        8 => {
            world.server.lock().stall(seconds(6));
            "a connection to Redis stalls"
        }
        9 => {
            world.server.lock().go_away();
            later(world, seconds(7), |world| world.server.lock().up = true);
            "Redis is away"
        }
        10 => {
            world.server.lock().crash();
            later(world, seconds(2), |world| world.server.lock().up = true);
            "Redis began anew with older data"
        }
        11 => {
            world.server.lock().save();
            "Redis saved its data"
        }
        12 => {
            let now = jiscord_core::time::Clock::now_micros(&world.clock);
            world.server.lock().forget(now, Duration::from_secs(1) + seconds(10));
            "the log was trimmed"
        }
        13 => {
            world.server.lock().shorten(below(20));
            "streams were shortened"
        }
        14 | 15 => {
            world.server.lock().loss = [0.0, 0.02, 0.2][below(3)];
            "it changed how much is lost"
        }
        16 => {
            let index = below(2);
            world.kill(index);
            sleep(seconds(2)).await;
            world.start(index).await;
            "a gateway was killed"
        }
        _ => {
            let index = below(2);
            world.shut_down(index);
            sleep(seconds(3)).await;
            world.kill(index);
            world.start(index).await;
            "a gateway went down"
        }
    };
    world.record.note(what, String::new());
}

/// Does something after a while.
fn later(world: &Arc<World>, wait: Duration, what: fn(&World)) {
    let world = world.clone();
    tokio::spawn(async move {
        sleep(wait).await;
        what(&world);
    });
}

/// A number from the environment.
fn wanted(name: &str) -> Option<u64> {
    env::var(name).ok().map(|number| number.parse().unwrap())
}

#[test]
fn the_same_seed_is_the_same_run() {
    for seed in 0..3 {
        let (one, two) = (run(seed, None), run(seed, None));
        let differ = one.lines.iter().zip(&two.lines).find(|(one, two)| one != two);
        assert_eq!(differ, None, "seed {seed}");
        assert_eq!(one.trace, two.trace, "seed {seed}");
        assert_ne!(one.trace, run(seed + 1_000, None).trace);
    }
}

#[test]
fn nothing_is_lost_or_doubled_or_out_of_order_and_nobody_is_stuck() {
    let (one, many, begun) = (wanted("JISCORD_TEST_SEED"), wanted("JISCORD_TEST_SEEDS"), RealInstant::now());
    let seeds = match one {
        Some(seed) => vec![seed],
        None => {
            // Which of the new ones fails is printed.
            let first = many.map_or(0, |_| u64::from(rand::random::<u32>()));
            KEPT.iter().copied().chain(first..first + many.unwrap_or(SEEDS)).collect()
        }
    };
    let (mut runs, mut failed, mut all) = (0, Vec::new(), Counts::new());
    for seed in seeds {
        let outcome = run(seed, None);
        if one.is_some() {
            println!("{}", outcome.lines.join("\n"));
        }
        runs += 1;
        for (what, count) in outcome.counts {
            *all.entry(what).or_default() += count;
        }
        if !outcome.violations.is_empty() {
            println!("seed {seed}: {:#?}", outcome.violations);
            failed.push(seed);
        }
    }
    println!("{runs} runs in {:?}: {all:#?}", begun.elapsed());
    assert!(failed.is_empty(), "{} of {runs} runs failed: JISCORD_TEST_SEED={}", failed.len(), failed[0]);
}

#[test]
fn planted_defects_are_found() {
    // The seeds that found them before come first.
    for (planted, sign, first) in [
        (Planted::Swallowed, "I12", 0),
        (Planted::Hidden, "I12", 2),
        (Planted::Lost, "I12", 0),
        (Planted::Doubled, "I10", 0),
        (Planted::Swapped, "I12", 0),
        (Planted::NotReplayed, "I12", 0),
        (Planted::NotHeld, "I9", 12),
        (Planted::NotLeft, "I13", 0),
        (Planted::NotEvicted, "I15", 47),
        (Planted::Unordered, "I15", 76),
        (Planted::NotRelayed, "I6", 0),
    ] {
        let is_found = |seed: &u64| run(*seed, Some(planted)).violations.iter().any(|what| what.starts_with(sign));
        let found = iter::once(first).chain(0..300).find(is_found);
        println!("{planted:?}: {sign} by run {found:?}");
        assert!(found.is_some(), "{planted:?} goes unnoticed");
    }
}
