//! The examples of docs/protocol.md are golden files, and nothing that a client can meet is missing there.

use std::{collections::BTreeSet, path::Path};

const DOC: &str = include_str!("../../docs/protocol.md");

/// The examples: the name of a golden file, and the text.
fn examples() -> Vec<(&'static str, String)> {
    let blocks = DOC.split("\n```").filter_map(|block| block.strip_prefix("json"));
    blocks
        .map(|block| {
            let (name, lines) = block.split_once('\n').expect("a block has lines");
            (name.trim(), lines.lines().collect())
        })
        .collect()
}

#[test]
fn examples_are_golden_files() {
    let golden = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden");
    let examples = examples();
    assert!(!examples.is_empty());
    for (name, text) in examples {
        let path = golden.join(format!("{name}.json"));
        let file = std::fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
        assert_eq!(text, file.trim_end(), "{name}");
    }
}

#[test]
fn every_frame_has_an_example() {
    let ops = include_str!("../src/frame.rs").split('"').skip(1).step_by(2);
    let ops = ops.filter(|word| word.len() > 3 && word.bytes().all(|byte| byte.is_ascii_uppercase() || byte == b'_'));
    let ops: BTreeSet<_> = ops.filter(|word| *word != "SCREAMING_SNAKE_CASE").collect();
    assert!(ops.contains("HELLO") && ops.contains("RESUME"), "{ops:?}");
    let examples = examples();
    for op in ops {
        assert!(examples.iter().any(|(_, text)| text.starts_with(&format!(r#"{{"op":"{op}","#))), "{op}");
    }
}

#[test]
fn every_code_is_explained() {
    // NAME = "word" status,
    let source = include_str!("../src/fault.rs");
    let codes: Vec<_> = source
        .lines()
        .filter_map(|line| line.split_once(" = \"")?.1.split_once("\" "))
        .filter_map(|(word, status)| Some((word, status.strip_suffix(',')?.parse::<u16>().ok()?)))
        .collect();
    assert!(codes.contains(&("malformed", 400)) && codes.len() > 15, "{codes:?}");
    for (word, status) in codes {
        let explained = DOC.lines().any(|line| line.contains(&format!("`{word}`")) && line.contains(&format!("| {status} |")));
        assert!(explained, "{word} {status}");
    }
    let closes = (1000..5000).filter_map(|code| jiscord_core::frame::CloseCode::from_code(code).map(|_| code));
    for code in closes {
        let explained =
            DOC.lines().any(|line| line.starts_with('|') && line.split(['|', ',', ' ']).any(|word| word == code.to_string()));
        assert!(explained, "{code}");
    }
}
