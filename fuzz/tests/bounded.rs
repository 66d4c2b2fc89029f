//! A bounded run of all targets: the corpora, and what some thousand changes make of them.
#![expect(clippy::unwrap_used, reason = "tests")]

use std::{fs, path::Path};

use jiscord_fuzz::{bodies, frames, requests, token, tokens};
use proptest::{collection::vec, prelude::*, sample::Index, test_runner::TestRunner};

const CASES: u32 = 4_000;

/// The texts of a folder of golden files.
fn golden(folder: &str) -> Vec<Vec<u8>> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../jiscord-core/tests/golden").join(folder);
    let files: Vec<_> = fs::read_dir(folder).unwrap().map(|entry| fs::read(entry.unwrap().path()).unwrap()).collect();
    assert!(files.len() > 10);
    files
}

/// A call of each route, and pages by cursors that are none.
fn calls() -> Vec<Vec<u8>> {
    const ID: &str = "7ed00000-e912-11f1-8000-010000000000";
    let channel = format!("/channels/{ID}/messages");
    let calls = [
        format!("GET {channel}?limit=50"),
        format!("GET {channel}?pageState=AQAAAAAAAAAA"),
        format!("GET {channel}?before={ID}&limit=100"),
        format!("GET {channel}?after={ID}"),
        format!("GET {channel}?around={ID}"),
        format!("POST {channel}\n{{\"content\":\"hi\",\"nonce\":\"n\"}}"),
        "GET /guilds?limit=200&cursor=AQAA".to_owned(),
        "GET /guilds/me".to_owned(),
        "POST /guilds\n{\"name\":\"Computing\"}".to_owned(),
        format!("GET /guilds/{ID}/channels"),
        format!("POST /guilds/{ID}/channels\n{{\"name\":\"engines\"}}"),
        format!("POST /guilds/{ID}/members\n{{}}"),
        format!("DELETE /guilds/{ID}/members/{ID}"),
        format!("GET /users/{ID}"),
        "GET /users/email/a@b.c".to_owned(),
        "GET /health".to_owned(),
    ];
    calls.into_iter().map(String::into_bytes).collect()
}

/// What a fuzzer does to a text.
#[derive(Clone, Debug)]
enum Change {
    Flip(Index, u8),
    Cut(Index, Index),
    Insert(Index, Vec<u8>),
    Repeat(Index, Index, u8),
}

fn change() -> impl Strategy<Value = Change> {
    let words = prop::sample::select(vec![
        "null",
        "1e400",
        "-0",
        "9007199254740993",
        "\"",
        "\\ud800",
        "{",
        "}",
        "[[[[",
        "\u{202e}",
        "\u{feff}",
        "\0",
        "%00",
        "&",
        "?",
        "é",
        "e\u{301}",
    ]);
    prop_oneof![
        (any::<Index>(), any::<u8>()).prop_map(|(at, byte)| Change::Flip(at, byte)),
        (any::<Index>(), any::<Index>()).prop_map(|(from, to)| Change::Cut(from, to)),
        (any::<Index>(), words).prop_map(|(at, word)| Change::Insert(at, word.into())),
        (any::<Index>(), vec(any::<u8>(), 0..8)).prop_map(|(at, bytes)| Change::Insert(at, bytes)),
        (any::<Index>(), any::<Index>(), 2_u8..200).prop_map(|(from, to, times)| Change::Repeat(from, to, times)),
    ]
}

fn apply(mut text: Vec<u8>, change: &Change) -> Vec<u8> {
    let at = |index: &Index, text: &[u8]| index.index(text.len() + 1);
    let part = |from: &Index, to: &Index, text: &[u8]| {
        let (from, to) = (at(from, text), at(to, text));
        from.min(to)..from.max(to)
    };
    match change {
        Change::Flip(index, byte) => {
            if !text.is_empty() {
                let at = index.index(text.len());
                text[at] ^= byte;
            }
        }
        Change::Cut(from, to) => drop(text.drain(part(from, to, &text.clone()))),
        Change::Insert(index, bytes) => {
            let at = at(index, &text);
            text.splice(at..at, bytes.iter().copied());
        }
        Change::Repeat(from, to, times) => {
            let part = part(from, to, &text);
            let copy = text[part.clone()].repeat(usize::from(*times));
            if copy.len() < 1 << 16 {
                text.splice(part.end..part.end, copy);
            }
        }
    }
    text
}

fn run(corpus: Vec<Vec<u8>>, target: fn(&[u8])) {
    for text in &corpus {
        target(text);
    }
    let mut runner = TestRunner::new(ProptestConfig { cases: CASES, failure_persistence: None, ..ProptestConfig::default() });
    let inputs = (prop::sample::select(corpus), vec(change(), 1..6));
    let changed = inputs.prop_map(|(text, changes)| changes.iter().fold(text, apply));
    runner
        .run(&changed, |text| {
            target(&text);
            Ok(())
        })
        .unwrap_or_else(|error| panic!("{error}"));
}

#[test]
fn frames_of_any_kind() {
    run(golden("frames"), frames);
}

#[test]
fn bodies_of_any_kind() {
    let texts = ["Ada Lovelace", "ada@example.com", "  e\u{301}tude  ", "a\u{200d}b", "\u{202e}evil"];
    run([golden("bodies"), texts.map(Into::into).into()].concat(), bodies);
}

#[test]
fn requests_of_any_kind() {
    run(calls(), requests);
}

#[test]
fn tokens_of_any_kind() {
    let token = token();
    let (head, rest) = token.split_once('.').unwrap();
    let none = "eyJhbGciOiJub25lIn0";
    run(vec![token.clone().into(), format!("{none}.{rest}").into(), format!("{head}.e30.").into(), Vec::new()], tokens);
}
