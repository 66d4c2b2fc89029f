//! `./x test`: everything that must hold. What fails most often comes first.

use std::process::{Command, ExitCode};

use crate::{
    cargo,
    cassandra::Cassandra,
    chaos, examples, redis,
    report::{Outcome, Report, Stop, done, works},
    wasm, web, websocket,
    workspace::{Workspace, rustup},
};

pub(crate) fn run() -> ExitCode {
    let mut report = Report::default();
    let mut workspace = None;
    report.step("workspace", || {
        workspace = Some(Workspace::read()?);
        Ok(())
    });
    if let Some(workspace) = workspace {
        report.step("format", || {
            component("fmt", "rustfmt")?;
            done(cargo().args(["fmt", "--all", "--check"]))
        });
        report.step("lints", || {
            component("clippy", "clippy")?;
            done(cargo().args(["clippy", "--workspace", "--all-targets", "--keep-going", "--", "-D", "warnings"]))
        });
        // Before the programs, which carry it.
        report.step("web app", || {
            web::build()?;
            done(&mut web::npm(&["run", "--silent", "lint"]))?;
            done(&mut web::npm(&["test", "--silent"]))
        });
        // All targets in one graph, so that programs, tests and examples share what they are built of.
        report.step("build", || done(cargo().args(["build", "--workspace", "--all-targets"])));
        let mut programs = None;
        report.step("build with failpoints", || {
            programs = Some(chaos::programs(&workspace)?);
            Ok(())
        });
        let mut database = None;
        report.step("Redis and Cassandra", || {
            redis::install()?;
            database = Some(Cassandra::start(workspace.target())?);
            Ok(())
        });
        let address = database.as_ref().map(|database| database.address.as_str());
        report.step("tests", || {
            let mut tests = tests(address);
            if let Some(programs) = &programs {
                tests.env(chaos::FOLDER, programs);
            }
            done(tests.args(["--no-fail-fast"]))
        });
        // The same programs and the same tests, against the other set-up.
        report.step("end to end on services", || match address {
            Some(_) => done(tests(address).args(["--no-fail-fast", "--test", "all"]).env("JISCORD_E2E", "services")),
            None => Err(Stop::Skipped("no database".into())),
        });
        report.step("browser", || {
            web::browser()?;
            done(web::npm(&["run", "--silent", "e2e"]).env("JISCORD_BIN", workspace.program("jiscord")))
        });
        report.step("browser on services", || match address {
            Some(address) => {
                let mut tests = web::npm(&["run", "--silent", "e2e"]);
                tests.env("JISCORD_BIN", workspace.program("jiscord"));
                done(tests.env("JISCORD_E2E", "services").env("JISCORD_TEST_CQL", address))
            }
            None => Err(Stop::Skipped("no database".into())),
        });
        drop(database);
        report.step("examples", || examples::run(|name| workspace.program(name)));
        report.step("WebSocket conformance", || websocket::run(&workspace.program("ws-echo"), workspace.target()));
        report.step("docs", || {
            done(cargo().args(["doc", "--workspace", "--no-deps", "--keep-going"]).env("RUSTDOCFLAGS", "-D warnings"))
        });
        report.step("wasm", browsers);
        report.step("features", || features(&workspace));
        report.step("oldest Rust", || oldest_rust(&workspace));
    }
    report.finish()
}

/// The tests of all packages, those on a database where there is one.
fn tests(database: Option<&str>) -> Command {
    let mut command = cargo();
    command.args(["test", "--workspace"]).env_remove("JISCORD_E2E");
    if let Some(address) = database {
        command.env("JISCORD_TEST_CQL", address);
    }
    command
}

/// Each crate builds with no feature, and with each alone.
fn features(workspace: &Workspace) -> Outcome {
    for (name, features) in &workspace.crates {
        done(cargo().args(["check", "-p", name, "--no-default-features"]))?;
        for feature in features {
            done(cargo().args(["check", "-p", name, "--no-default-features", "--features", feature]))?;
        }
    }
    Ok(())
}

fn browsers() -> Outcome {
    wasm::target()?;
    done(cargo().args(["check", "-p", "jiscord-core", "--target", wasm::TARGET]))?;
    let sdk = ["clippy", "-p", "jiscord-client", "-p", "jiscord-web", "--target", wasm::TARGET, "--", "-D", "warnings"];
    done(cargo().args(sdk))
}

fn oldest_rust(workspace: &Workspace) -> Outcome {
    let rust = &workspace.rust;
    if !works(Command::new("rustup").args(["run", rust, "cargo", "--version"])) {
        rustup(&["toolchain", "install", rust, "--profile", "minimal", "--no-self-update"])?;
    }
    done(Command::new("rustup").args(["run", rust, "cargo", "check", "--workspace"]))
}

fn component(command: &str, name: &str) -> Outcome {
    if works(cargo().args([command, "--version"])) { Ok(()) } else { rustup(&["component", "add", name]) }
}
