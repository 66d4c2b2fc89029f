//! docs/security.md names tests that there are.

use std::{collections::BTreeSet, fs, path::PathBuf};

fn root() -> PathBuf {
    [env!("CARGO_MANIFEST_DIR"), "../.."].iter().collect()
}

/// The cells of a table's rows, its head left out.
fn rows(table: &str) -> Vec<Vec<&str>> {
    let lines = table.lines().filter(|line| line.starts_with("| ") && !line.starts_with("| |") && !line.starts_with("| ---"));
    lines.map(|line| line.trim_matches('|').split(" | ").map(str::trim).collect()).collect()
}

/// The code spans of a text.
fn spans(text: &str) -> impl Iterator<Item = &str> {
    text.split('`').skip(1).step_by(2)
}

/// Whether a file has a test, or several under this name.
fn has(file: &str, source: &str, name: &str) -> bool {
    if file.ends_with(".rs") {
        let Some((before, _)) = source.split_once(&format!("fn {name}(")) else { return false };
        // Its attributes stand right before it.
        let attributes = before.rsplit("\n\n").next().unwrap_or_default();
        attributes.contains("#[test]") || attributes.contains("#[tokio::test")
    } else {
        ["it", "test", "describe", "alone"].iter().any(|word| source.contains(&format!("{word}(\"{name}\"")))
    }
}

#[test]
fn every_test_that_is_named_is_there() {
    let page = fs::read_to_string(root().join("docs/security.md")).unwrap();
    let (_, tests) = page.split_once("## Tests\n").unwrap();
    let (tests, missing) = tests.split_once("## Not there yet\n").unwrap();
    let mut numbers = BTreeSet::new();
    for row in rows(tests) {
        let [number, about, holds, shown] = &row[..] else { panic!("{row:?}") };
        assert!(numbers.insert(number.parse::<u32>().unwrap()), "{number} comes twice");
        assert!(!about.is_empty() && !holds.is_empty() && !shown.is_empty(), "{row:?}");
        let mut file: Option<(&str, String)> = None;
        for span in spans(shown) {
            if span.contains('/') {
                let source = fs::read_to_string(root().join(span)).unwrap_or_else(|error| panic!("{number}: {span}: {error}"));
                file = Some((span, source));
            } else if let Some((file, source)) = &file {
                assert!(has(file, source, span), "{number}: {file} has no test {span:?}");
            }
        }
    }
    for row in rows(missing) {
        numbers.extend(row[0].split(", ").map(|number| number.parse::<u32>().unwrap()));
    }
    assert_eq!(numbers, (1..=51).collect(), "each number is shown, or not there yet");
}
