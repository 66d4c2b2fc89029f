//! What was done, how long it took, what was left out and why.

use std::{
    env,
    process::{Command, ExitCode},
    time::{Duration, Instant},
};

/// How a step ended if it did not pass.
pub(crate) enum Stop {
    /// It does not hold.
    Failed(String),
    /// It could not be tried here.
    Skipped(String),
}

/// How a step ended.
pub(crate) type Outcome = Result<(), Stop>;

/// All steps so far.
#[derive(Default)]
pub(crate) struct Report {
    steps: Vec<(&'static str, Duration, Outcome)>,
}

impl Report {
    /// Does a step and notes how it went. Later steps go on after a failure, so that all of them are told.
    pub(crate) fn step(&mut self, name: &'static str, step: impl FnOnce() -> Outcome) {
        eprintln!("\n── {name}");
        let begun = Instant::now();
        let outcome = step();
        match &outcome {
            Err(Stop::Failed(why)) => eprintln!("✗ {name}: {why}"),
            Err(Stop::Skipped(why)) => eprintln!("- {name}: skipped: {why}"),
            Ok(()) => {}
        }
        self.steps.push((name, begun.elapsed(), outcome));
    }

    /// The summary, and the exit code that follows from it. Under CI=true a skipped step has failed.
    pub(crate) fn finish(self) -> ExitCode {
        let strict = env::var("CI").is_ok_and(|ci| ci == "true");
        let (mut passed, mut failed, mut skipped) = (0, 0, 0);
        eprintln!("\n── summary");
        for (name, took, outcome) in &self.steps {
            let (word, why) = match outcome {
                Ok(()) => ("passed", ""),
                Err(Stop::Failed(why)) => ("FAILED", why.as_str()),
                Err(Stop::Skipped(why)) if strict => ("FAILED", why.as_str()),
                Err(Stop::Skipped(why)) => ("skipped", why.as_str()),
            };
            match word {
                "passed" => passed += 1,
                "skipped" => skipped += 1,
                _ => failed += 1,
            }
            eprintln!("{word:8}{:6.1} s  {name}{}{why}", took.as_secs_f64(), if why.is_empty() { "" } else { ": " });
        }
        println!("{passed} passed, {failed} failed, {skipped} skipped");
        if failed == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE }
    }
}

/// Runs a command to its end; failed if it does.
pub(crate) fn done(command: &mut Command) -> Outcome {
    match command.status() {
        Ok(status) if status.success() => Ok(()),
        Ok(status) => failed(format!("{}: {status}", shown(command))),
        Err(error) => failed(format!("{}: {error}", shown(command))),
    }
}

/// Whether a command can be run and succeeds; its output is not shown.
pub(crate) fn works(command: &mut Command) -> bool {
    command.output().is_ok_and(|output| output.status.success())
}

/// A step that failed.
pub(crate) fn failed<T>(why: impl Into<String>) -> Result<T, Stop> {
    Err(Stop::Failed(why.into()))
}

fn shown(command: &Command) -> String {
    let words = std::iter::once(command.get_program()).chain(command.get_args());
    words.map(|word| word.to_string_lossy()).collect::<Vec<_>>().join(" ")
}
