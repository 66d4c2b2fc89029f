//! Where the servers' programs are.

use std::{
    collections::HashMap,
    env,
    env::consts::EXE_SUFFIX,
    fs,
    path::{Path, PathBuf},
    sync::{Mutex, OnceLock, PoisonError},
};

/// Where to find them, if not where cargo has put them.
static FOLDER: OnceLock<PathBuf> = OnceLock::new();

/// The programs in this folder are taken from now on, whatever they are built from. What was said first counts.
pub fn use_programs(folder: PathBuf) {
    let _ = FOLDER.set(folder);
}

/// The program that cargo has put beside this test's. Cargo names it only to tests of its own package, and a build from here
/// could choose other features than the one under way.
pub(crate) fn program(name: &'static str) -> PathBuf {
    static CHECKED: Mutex<Option<HashMap<&str, Result<PathBuf, String>>>> = Mutex::new(None);
    let mut checked = CHECKED.lock().unwrap_or_else(PoisonError::into_inner);
    let found = checked.get_or_insert_default().entry(name).or_insert_with(|| {
        let file = format!("{name}{EXE_SUFFIX}");
        if let Some(folder) = FOLDER.get() {
            return Ok(folder.join(file));
        }
        // target/debug/deps/this-test, or target/debug/this-program
        let here = env::current_exe().unwrap();
        let folder = here.parent().unwrap();
        let folder = if folder.ends_with("deps") { folder.parent().unwrap() } else { folder };
        let program = folder.join(file);
        is_current(&program).map(|()| program)
    });
    found.clone().unwrap_or_else(|why| panic!("{why}; build it first, with: cargo build --workspace"))
}

/// Whether it was built from the sources as they are now. Cargo lists them beside it.
fn is_current(program: &Path) -> Result<(), String> {
    let age = |path: &Path| fs::metadata(path).and_then(|found| found.modified());
    let built = age(program).map_err(|error| format!("{}: {error}", program.display()))?;
    let list = program.with_extension("d");
    let list = fs::read_to_string(&list).map_err(|error| format!("{}: {error}", list.display()))?;
    let (_, sources) = list.split_once(": ").unwrap_or_default();
    // Spaces within a path are escaped.
    for source in sources.replace("\\ ", "\0").split_whitespace().map(|path| path.replace('\0', " ")) {
        if age(Path::new(&source)).is_ok_and(|changed| changed > built) {
            return Err(format!("{} is older than {source}", program.display()));
        }
    }
    Ok(())
}
