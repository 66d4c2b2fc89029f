//! `./x chaos`: faults for a long time.

use std::{
    fs,
    path::PathBuf,
    process::{Command, ExitCode},
};

use crate::{
    become_program, cargo, cassandra, redis,
    report::{Outcome, Stop, done},
    workspace::Workspace,
};

/// Names the folder of the programs with failpoints.
pub(crate) const FOLDER: &str = "JISCORD_CHAOS_PROGRAMS";
/// The packages with the programs under test, and these.
const PROGRAMS: [(&str, &str); 4] = [
    ("jiscord", "jiscord"),
    ("jiscord-data-service", "data-service"),
    ("jiscord-auth-service", "auth-service"),
    ("jiscord-gateway-service", "gateway"),
];

pub(crate) fn run(args: impl Iterator<Item = String>) -> ExitCode {
    match prepare() {
        Ok(mut command) => become_program(command.args(args)),
        Err(Stop::Failed(why) | Stop::Skipped(why)) => {
            eprintln!("x: {why}");
            ExitCode::FAILURE
        }
    }
}

/// Builds the harness and the programs; it starts its own Redis and its own database.
fn prepare() -> Result<Command, Stop> {
    let workspace = Workspace::read()?;
    let programs = programs(&workspace)?;
    redis::install()?;
    cassandra::install()?;
    let mut command = Command::new(workspace.program("chaos"));
    command.env(FOLDER, programs).env_remove("JISCORD_TEST_CQL");
    Ok(command)
}

/// Builds the programs with failpoints, in a folder of their own: whoever starts the others starts them without.
pub(crate) fn programs(workspace: &Workspace) -> Result<PathBuf, Stop> {
    let folder = workspace.target().join("debug").join("failpoints");
    // With one test, cargo takes what is built for tests, where that is there.
    let build = || {
        let mut build = cargo();
        build.args(["build", "--workspace", "--bins", "--test", "short"]);
        build
    };
    let features: Vec<_> = PROGRAMS.iter().map(|(package, _)| format!("{package}/failpoints")).collect();
    let copy = || -> std::io::Result<()> {
        fs::create_dir_all(&folder)?;
        for (_, program) in PROGRAMS {
            // Not written over, since it may be running.
            let to = folder.join(program);
            let _ = fs::remove_file(&to);
            fs::copy(workspace.program(program), to)?;
        }
        Ok(())
    };
    let built = done(build().arg("--features").arg(features.join(",")));
    let copied: Outcome = built.and_then(|()| copy().map_err(|error| Stop::Failed(format!("{}: {error}", folder.display()))));
    // Cargo has kept those without, and puts them back.
    done(&mut build())?;
    copied.map(|()| folder)
}
