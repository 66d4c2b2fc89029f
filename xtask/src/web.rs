//! The web app: what it is built with, and the build.

use std::{
    fs,
    path::{Path, PathBuf},
    process::{Command, Stdio},
    time::SystemTime,
};

use crate::{
    debian,
    report::{Outcome, Stop, done, works},
};

/// What the tools of apps/web need.
const NODE: (u32, u32) = (20, 19);

/// Where it is.
pub(crate) fn folder() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../apps/web")
}

/// npm, in its folder.
pub(crate) fn npm(args: &[&str]) -> Command {
    let mut command = Command::new("npm");
    command.args(args).current_dir(folder()).stdin(Stdio::null());
    // It has neither news to tell nor a browser to fetch.
    command.env("NPM_CONFIG_UPDATE_NOTIFIER", "false").env("NPM_CONFIG_FUND", "false").env("NPM_CONFIG_AUDIT", "false");
    command.env("PLAYWRIGHT_SKIP_BROWSER_DOWNLOAD", "1");
    command
}

/// Builds `apps/web/dist`, where something has changed since it was built.
pub(crate) fn build() -> Outcome {
    install()?;
    crate::wasm::build()?;
    let (folder, built) = (folder(), modified(&folder().join("dist/index.html")));
    let sources =
        ["src", "public", "index.html", "package-lock.json", "package.json", "tsconfig.json", "vite.config.ts", "compress.mjs"];
    if built.is_some_and(|built| sources.iter().all(|source| newest(&folder.join(source)) < Some(built))) {
        return Ok(());
    }
    done(&mut npm(&["run", "--silent", "build"]))
}

/// Sees that there is a browser for its tests.
pub(crate) fn browser() -> Outcome {
    if works(Command::new("/usr/bin/chromium").arg("--version")) {
        return Ok(());
    }
    debian::install(&["chromium"], "no /usr/bin/chromium for the web app's tests (Debian: apt-get install chromium)")
}

/// Gets Node where it is missing, and the packages where the lockfile has others.
pub(crate) fn install() -> Outcome {
    node()?;
    let (folder, modules) = (folder(), ["node_modules", ".package-lock.json"].iter().collect::<PathBuf>());
    if modified(&folder.join(modules)) > modified(&folder.join("package-lock.json")) {
        return Ok(());
    }
    done(&mut npm(&["ci", "--ignore-scripts", "--loglevel", "error"]))
}

fn node() -> Outcome {
    if is_new_enough() {
        return Ok(());
    }
    let (major, minor) = NODE;
    let mend = format!(
        "the web app needs Node {major}.{minor} or later, with npm: Debian 13: apt-get install nodejs npm; Fedora: dnf install nodejs; \
         macOS: brew install node; elsewhere see nodejs.org"
    );
    debian::install(&["nodejs", "npm"], &mend)?;
    if is_new_enough() { Ok(()) } else { Err(Stop::Skipped(mend)) }
}

fn is_new_enough() -> bool {
    let version = Command::new("node").arg("--version").output().ok();
    let version = version.and_then(|out| String::from_utf8(out.stdout).ok()).unwrap_or_default();
    let mut parts = version.trim().trim_start_matches('v').split('.').map_while(|part| part.parse().ok());
    let found = (parts.next().unwrap_or(0), parts.next().unwrap_or(0));
    found >= NODE && works(Command::new("npm").arg("--version"))
}

fn modified(path: &Path) -> Option<SystemTime> {
    fs::metadata(path).and_then(|there| there.modified()).ok()
}

/// When something in it was changed last.
fn newest(path: &Path) -> Option<SystemTime> {
    let inside = fs::read_dir(path).into_iter().flatten().flatten().filter_map(|entry| newest(&entry.path()));
    inside.chain(modified(path)).max()
}
