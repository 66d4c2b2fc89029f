//! docs/delivery.md names tests that there are, and tests name invariants that it has.
#![expect(clippy::unwrap_used, reason = "a test that fails may panic")]

use std::{
    collections::{BTreeSet, HashSet},
    fs,
    path::{Path, PathBuf},
};

use jiscord_chaos::faults::FAULTS;

fn root() -> PathBuf {
    [env!("CARGO_MANIFEST_DIR"), "../.."].iter().collect()
}

/// The tests of a source file. Their attributes stand right before them.
fn tests(source: &str) -> impl Iterator<Item = String> {
    let functions = source.split("\n\n").flat_map(|part| part.match_indices("fn ").map(move |(at, _)| part.split_at(at)));
    functions.filter(|(before, _)| before.contains("#[test]") || before.contains("#[tokio::test")).filter_map(|(_, function)| {
        let (name, _) = function["fn ".len()..].split_once('(')?;
        Some(name.to_owned())
    })
}

/// All sources below a folder.
fn sources(folder: &Path) -> Vec<String> {
    let mut found = Vec::new();
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        let name = path.file_name().unwrap().to_str().unwrap();
        if path.is_dir() && !name.starts_with('.') && !["target", "node_modules"].contains(&name) {
            found.extend(sources(&path));
        } else if name.ends_with(".rs") {
            found.push(fs::read_to_string(&path).unwrap());
        }
    }
    found
}

/// The names of invariants in a source: `I`, and a number.
fn invariants(source: &str) -> impl Iterator<Item = u32> {
    let words = source.split(|c: char| !c.is_ascii_alphanumeric() && c != '_');
    words.filter_map(|word| word.strip_prefix('I')?.parse().ok())
}

/// Each promise with the lines below it that say what shows it.
fn promises(page: &str) -> Vec<(String, String)> {
    let (promises, _) = page.split_once("\n## ").unwrap();
    let mut found: Vec<(String, String)> = Vec::new();
    let mut shows = false;
    for line in promises.lines() {
        if line.starts_with(|first: char| first.is_ascii_digit()) {
            found.push((line.to_owned(), String::new()));
            shows = false;
        } else if let Some((_, shown)) = found.last_mut() {
            shows |= line.trim_start().starts_with("- ");
            if shows {
                shown.push_str(line);
                shown.push('\n');
            }
        }
    }
    found
}

#[test]
fn every_test_that_is_named_is_there() {
    let page = fs::read_to_string(root().join("docs/delivery.md")).unwrap();
    let sources = sources(&root());
    let all: HashSet<_> = sources.iter().flat_map(|source| tests(source)).collect();
    let promises = promises(&page);
    assert_eq!(promises.len(), 12);
    // The last one says what is not promised.
    for (number, (promise, shown)) in (1..).zip(&promises[..11]) {
        assert!(promise.starts_with(&format!("{number}. **")), "{promise}");
        let named: Vec<_> = shown.split('`').skip(1).step_by(2).collect();
        assert!(!named.is_empty(), "no test is named that shows: {promise}");
        for name in named {
            assert!(all.contains(name), "there is no test {name:?}, which is to show: {promise}");
        }
    }
}

#[test]
fn every_row_that_is_named_is_in_the_table() {
    let page = fs::read_to_string(root().join("docs/delivery.md")).unwrap();
    let rows: HashSet<_> = FAULTS.iter().map(|fault| fault.row).collect();
    for (promise, shown) in promises(&page) {
        for named in shown.split("rows ").skip(1).chain(shown.split("row ").skip(1)) {
            let named = named.split(|c: char| !c.is_ascii_digit() && c != ',' && c != ' ').next().unwrap();
            for row in named.split([',', ' ']).filter(|row| !row.is_empty()) {
                assert!(rows.contains(&row.parse().unwrap()), "row {row}: {promise}");
            }
        }
    }
}

#[test]
fn invariants_are_those_that_tests_name() {
    let page = fs::read_to_string(root().join("docs/delivery.md")).unwrap();
    let told: Vec<_> = page.lines().filter_map(|line| line.strip_prefix("| I")?.split(' ').next()?.parse::<u32>().ok()).collect();
    let sources = sources(&root());
    let named: BTreeSet<_> = sources.iter().flat_map(|source| invariants(source)).collect();
    assert_eq!(told, Vec::from_iter(named));
}
