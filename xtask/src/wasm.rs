//! `./x wasm`: the Rust SDK as the web app loads it, in `apps/web/src/sdk/pkg`.

use std::{
    env, fs,
    path::{Path, PathBuf},
    process::Command,
};

use crate::{
    cargo,
    report::{Outcome, Stop, done, failed},
    workspace::{Workspace, rustup},
};

pub(crate) const TARGET: &str = "wasm32-unknown-unknown";
/// The most that the module may have, as it is sent.
const BUDGET: usize = 300_000;
const MODULE: &str = "jiscord_web_bg.wasm";

/// Gets Rust's libraries for WebAssembly where they are missing.
pub(crate) fn target() -> Outcome {
    let libraries = Command::new("rustc").args(["--print", "target-libdir", "--target", TARGET]).output();
    let there = libraries.is_ok_and(|out| Path::new(String::from_utf8_lossy(&out.stdout).trim()).exists());
    if there { Ok(()) } else { rustup(&["target", "add", TARGET]) }
}

/// Builds it, where something has changed. Wants the packages of apps/web installed.
pub(crate) fn build() -> Outcome {
    target()?;
    let workspace = Workspace::read()?;
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..").canonicalize().map_err(stop)?;
    let compile = ["build", "-p", "jiscord-web", "--lib", "--profile", "wasm", "--target", TARGET];
    done(cargo().args(compile).env("CARGO_ENCODED_RUSTFLAGS", flags(&root)))?;
    let compiled = workspace.target().join(TARGET).join("wasm/jiscord_web.wasm");
    let package = root.join("apps/web/src/sdk/pkg");
    let module = package.join(MODULE);
    if modified(&module) < modified(&compiled) {
        let fresh = workspace.target().join("bindings");
        done(cargo().args(["run", "-p", "xtask-bindings", "--"]).args([&compiled, &fresh]))?;
        optimise(&root.join("apps/web/node_modules/.bin/wasm-opt"), &fresh.join(MODULE))?;
        fs::create_dir_all(&package).map_err(stop)?;
        // The module comes last: that it is there says that the others are.
        for name in ["jiscord_web.js", "jiscord_web.d.ts", "jiscord_web_bg.wasm.d.ts", MODULE] {
            fs::copy(fresh.join(name), package.join(name)).map_err(stop)?;
        }
    }
    weigh(&module)
}

/// No path of this machine gets into the module.
fn flags(root: &Path) -> String {
    let home = env::var_os("CARGO_HOME").map(PathBuf::from).or_else(|| Some(PathBuf::from(env::var_os("HOME")?).join(".cargo")));
    let known = [Some((root.to_owned(), "jiscord")), home.map(|home| (home, "cargo"))];
    let remap = known.iter().flatten().map(|(from, to)| format!("--remap-path-prefix={}={to}", from.display()));
    remap.collect::<Vec<_>>().join("\x1f")
}

fn optimise(tool: &Path, module: &Path) -> Outcome {
    if !tool.exists() {
        return failed("no wasm-opt: npm ci in apps/web brings it");
    }
    done(
        Command::new(tool)
            .args(["-Oz", "--strip-debug", "--strip-producers", "--strip-target-features"])
            .arg(module)
            .arg("-o")
            .arg(module),
    )
}

fn weigh(module: &Path) -> Outcome {
    let raw = fs::metadata(module).map_err(stop)?.len();
    let output = Command::new("gzip").arg("-9c").arg(module).output().map_err(stop)?;
    let sent = output.stdout.len();
    println!("{MODULE}: {raw} bytes, {sent} with gzip");
    if !output.status.success() {
        return failed("gzip cannot tell its size");
    }
    if sent > BUDGET { failed(format!("{MODULE} is over its budget of {BUDGET} bytes with gzip")) } else { Ok(()) }
}

fn modified(path: &Path) -> Option<std::time::SystemTime> {
    fs::metadata(path).and_then(|there| there.modified()).ok()
}

fn stop(error: std::io::Error) -> Stop {
    Stop::Failed(error.to_string())
}
