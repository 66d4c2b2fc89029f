//! A run: which faults come in which order, and what came of it.

use std::{
    collections::BTreeMap,
    env,
    fmt::{self, Write as _},
    panic::AssertUnwindSafe,
    path::{Path, PathBuf},
    sync::Arc,
    time::{Duration, Instant},
};

use futures_util::FutureExt;
use jiscord_e2e::use_programs;
use rand::{Rng, SeedableRng, rngs::StdRng, seq::SliceRandom};
use tokio::task::block_in_place;

use crate::{
    faults::{FAULTS, Fault, LEFT_OUT, Needs, Stop},
    node::Node,
    record::Counts,
    stage::{Shape, Stage},
};

/// Names a folder of the programs, built with failpoints.
const PROGRAMS: &str = "JISCORD_CHAOS_PROGRAMS";

/// How long a run goes on.
#[derive(Clone, Debug)]
pub struct Plan {
    /// Of what.
    pub shape: Shape,
    /// Decides the order of the faults, and what is random about them.
    pub seed: u64,
    /// So many faults at least.
    pub faults: usize,
    /// So long at least.
    pub time: Duration,
    /// How often each fault comes at least.
    pub each: usize,
    /// How many sessions storm.
    pub many: usize,
    /// Where a database of its own is started, if it may be killed.
    pub own_database: bool,
    /// Only these rows, if any are named.
    pub rows: Vec<u8>,
}

/// What came of a run.
#[derive(Debug, Default)]
pub struct Report {
    /// How often each fault was injected: by row and name.
    pub injected: BTreeMap<(u8, &'static str), usize>,
    /// Faults that could not be injected, and why.
    pub skipped: BTreeMap<(u8, &'static str), String>,
    /// How long all clients took to be well after a fault, where that was looked at.
    pub recoveries: Vec<Duration>,
    /// What was measured, fault by fault.
    pub figures: Vec<String>,
    /// What the record says.
    pub counts: Counts,
}

impl Report {
    /// How many faults there were.
    pub fn faults(&self) -> usize {
        self.injected.values().sum()
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "| row | fault | injected | what else must hold |\n| --- | --- | --- | --- |")?;
        for ((row, name), times) in &self.injected {
            let holds = FAULTS.iter().find(|fault| (fault.row, fault.name) == (*row, *name)).map_or("", |fault| fault.holds);
            writeln!(f, "| {row} | {name} | {times} | {holds} |")?;
        }
        writeln!(f, "| | all | {} | |\n", self.faults())?;
        let mut recoveries = self.recoveries.clone();
        recoveries.sort_unstable();
        if let (Some(median), Some(longest)) = (recoveries.get(recoveries.len() / 2), recoveries.last()) {
            let (median, longest) = (median.as_secs_f64(), longest.as_secs_f64());
            writeln!(f, "All clients were well again after {median:.1} s in the median, {longest:.1} s at the longest.\n")?;
        }
        for figure in &self.figures {
            writeln!(f, "- {figure}")?;
        }
        for ((row, name), why) in &self.skipped {
            writeln!(f, "- not done: {row}, {name}: {why}")?;
        }
        write!(f, "\n{}", self.counts)
    }
}

/// The rows that are not in the table, and why.
pub fn left_out() -> String {
    let mut text = String::new();
    for (row, what, why) in LEFT_OUT {
        let _ = writeln!(text, "- {row}, {what}: {why}");
    }
    text
}

/// Does it.
///
/// # Panics
///
/// If the system cannot be set up, or does not start again.
pub async fn run(plan: &Plan) -> Report {
    let programs = env::var_os(PROGRAMS).filter(|folder| !folder.is_empty());
    let failpoints = programs.is_some();
    programs.map(PathBuf::from).into_iter().for_each(use_programs);
    let mut random = StdRng::seed_from_u64(plan.seed);
    let node = (plan.own_database && plan.shape == Shape::Services).then(|| {
        let folder = env::current_exe().ok().and_then(|exe| exe.parent().map(Path::to_owned)).unwrap_or_else(env::temp_dir);
        let node = Arc::new(Node::new(&folder));
        block_in_place(|| node.run("start"));
        node
    });
    let own = node.as_ref().map(|node| node.address());
    let order = StdRng::seed_from_u64(random.random());
    let mut stage = Stage::set(plan.shape, random, own, failpoints).await;
    (stage.node, stage.many) = (node, plan.many);

    let mut report = Report::default();
    let has = |fault: &Fault| match fault.needs {
        Needs::Failpoints => failpoints,
        Needs::Database => plan.own_database,
        Needs::Time => plan.each > 1,
        Needs::Nothing => true,
    };
    let mut table: Vec<&'static Fault> = Vec::new();
    for fault in FAULTS.iter().filter(|fault| fault.is_for(plan.shape)) {
        if !plan.rows.is_empty() && !plan.rows.contains(&fault.row) {
            continue;
        }
        if has(fault) {
            table.push(fault);
        } else {
            let why = match fault.needs {
                Needs::Failpoints => "the programs were built without failpoints",
                Needs::Database => "the database is not this run's own",
                _ => "takes more than a minute",
            };
            report.skipped.insert((fault.row, fault.name), why.to_owned());
        }
    }
    let begun = Instant::now();
    for fault in Order::new(&table, plan, order) {
        if report.faults() >= plan.faults && begun.elapsed() >= plan.time && !fault.must {
            break;
        }
        let Drawn { fault, waits, .. } = fault;
        eprintln!("{:6.1} s  {} {}", begun.elapsed().as_secs_f64(), fault.row, fault.name);
        // Whoever waits in vain panics, and the run is to tell of the rest.
        let injected = AssertUnwindSafe((fault.inject)(&mut stage)).catch_unwind().await;
        match injected.unwrap_or_else(|_| Err(Stop::Broken("it panicked".into()))) {
            Ok(()) => {}
            Err(Stop::Skip(why)) => {
                report.skipped.insert((fault.row, fault.name), why);
                continue;
            }
            Err(Stop::Broken(what)) => stage.notes.broken(format!("{} {}: {what}", fault.row, fault.name)),
        }
        *report.injected.entry((fault.row, fault.name)).or_default() += 1;
        if waits {
            let done = Instant::now();
            if !stage.is_well().await {
                eprintln!("given up: not well after {} {}", fault.row, fault.name);
                break;
            }
            report.recoveries.push(done.elapsed());
        }
    }
    report.figures = std::mem::take(&mut stage.figures);
    let record = stage.end().await;
    if plan.shape == Shape::One {
        let kills: usize = report.injected.iter().filter(|((row, _), _)| *row == 1).map(|(_, times)| times).sum();
        let again = record.doubts();
        report.figures.push(format!(
            "1: the server was killed {kills} times under {} connected observers, which were told {again} times to read again",
            record.observers.len()
        ));
    }
    report.counts = record.check();
    report
}

/// A fault that was drawn.
struct Drawn {
    fault: &'static Fault,
    /// It is one of those that must come.
    must: bool,
    /// All are to be well before the next one.
    waits: bool,
}

/// First all that must come, then by weight, for ever.
struct Order<'a> {
    table: &'a [&'static Fault],
    must: Vec<&'static Fault>,
    random: StdRng,
}

impl<'a> Order<'a> {
    fn new(table: &'a [&'static Fault], plan: &Plan, mut random: StdRng) -> Self {
        let mut must: Vec<_> = (0..plan.each).flat_map(|_| table.iter().copied()).collect();
        must.shuffle(&mut random);
        Self { table, must, random }
    }
}

impl Iterator for Order<'_> {
    type Item = Drawn;

    fn next(&mut self) -> Option<Drawn> {
        // Two thirds wait, so that some faults meet what another one left.
        let waits = self.random.random_ratio(2, 3);
        if let Some(fault) = self.must.pop() {
            return Some(Drawn { fault, must: true, waits });
        }
        let all: u32 = self.table.iter().map(|fault| fault.weight).sum();
        if all == 0 {
            return None;
        }
        let mut drawn = self.random.random_range(0..all);
        let fault = self.table.iter().find(|fault| match drawn.checked_sub(fault.weight) {
            Some(rest) => {
                drawn = rest;
                false
            }
            None => true,
        });
        fault.map(|fault| Drawn { fault, must: false, waits })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn plan(seed: u64, each: usize) -> Plan {
        let time = Duration::ZERO;
        Plan { shape: Shape::One, seed, faults: 10, time, each, many: 1, own_database: false, rows: Vec::new() }
    }

    #[test]
    fn a_seed_decides_the_order_and_all_that_must_come_come() {
        let table: Vec<_> = FAULTS.iter().filter(|fault| fault.is_for(Shape::One)).collect();
        let draw = |seed| {
            let order = Order::new(&table, &plan(seed, 2), StdRng::seed_from_u64(seed));
            order.take(3 * table.len()).map(|drawn| (drawn.fault.name, drawn.must, drawn.waits)).collect::<Vec<_>>()
        };
        assert_eq!(draw(1), draw(1));
        assert_ne!(draw(1), draw(2));
        let drawn = draw(1);
        for fault in &table {
            assert_eq!(drawn.iter().filter(|(name, must, _)| *name == fault.name && *must).count(), 2, "{}", fault.name);
        }
    }
}
