//! The gateway's WebSocket against a suite of others: the cases of Autobahn, as the PyPI package kosoku runs them.

use std::{fs, path::Path, process::Command};

use serde_json::Value;

use crate::{
    debian,
    report::{Outcome, Stop, done, failed, works},
    server::{Server, plain},
};

const SUITE: &str = "kosoku==0.1.0";
/// How many cases it has, without those about compression, which the gateway does not offer.
const CASES: usize = 301;
/// What is as RFC 6455 has it, or where it leaves the choice.
const GOOD: [&str; 3] = ["OK", "NON-STRICT", "INFORMATIONAL"];

/// Runs all cases against the example ws-echo, a built program. The suite and its reports lie below `target`.
pub(crate) fn run(program: &Path, target: &Path) -> Outcome {
    let (tools, reports) = (target.join("kosoku"), target.join("kosoku-reports"));
    let suite = tools.join("bin/kosoku");
    if !works(Command::new(&suite).arg("--help")) {
        install(&tools)?;
    }
    let echo = Server::wait(plain(program).env("PORT", "0"))?;
    let address = echo.url.replacen("http", "ws", 1);
    let _ = fs::remove_dir_all(&reports);
    let mut cases = Command::new(&suite);
    cases.args(["-m", "fuzzingclient", "-x", "12.*", "-x", "13.*", "-p", "2", "-o"]).arg(&reports).arg(address);
    // Its exit code says whether it ran; what it found is in its reports.
    let output = cases.output().map_err(|error| Stop::Failed(format!("{}: {error}", suite.display())))?;
    let index = fs::read(reports.join("index.json")).ok().and_then(|text| serde_json::from_slice::<Value>(&text).ok());
    let Some(Value::Object(cases)) = index.as_ref().and_then(|index| index.as_object()?.values().next()) else {
        return failed(format!("the suite left no report: {}", String::from_utf8_lossy(&output.stderr)));
    };
    let is_good = |case: &Value| {
        ["behavior", "behaviorClose"].iter().all(|what| case[*what].as_str().is_some_and(|found| GOOD.contains(&found)))
    };
    let bad: Vec<_> = cases.iter().filter(|(_, case)| !is_good(case)).map(|(name, _)| name.as_str()).collect();
    if !bad.is_empty() || cases.len() != CASES {
        let reports = reports.display();
        return failed(format!("{} of {CASES} cases were tried; bad: {}; see {reports}", cases.len(), bad.join(", ")));
    }
    println!("{CASES} cases of Autobahn hold");
    Ok(())
}

fn install(tools: &Path) -> Outcome {
    let venv = |python: &str| works(Command::new(python).args(["-m", "venv"]).arg(tools));
    if !venv("python3") {
        let mend = "no Python 3 with venv (Debian: apt-get install python3-venv)";
        debian::install(&["python3-venv"], mend)?;
        // Debian's own, where another one comes first in the path.
        if !venv("/usr/bin/python3") {
            return Err(Stop::Skipped(mend.into()));
        }
    }
    done(Command::new(tools.join("bin/pip")).args(["install", "--quiet", "--disable-pip-version-check", SUITE]))
}
