//! The project's README says the same as the crates'.

/// The first Rust example, without indentation, and without the marks that hide lines in the crates' documentation.
fn first_example(text: &str) -> Vec<&str> {
    let lines = text.lines().skip_while(|line| !line.starts_with("```rust")).skip(1);
    let lines = lines.take_while(|line| !line.starts_with("```"));
    lines.map(|line| line.strip_prefix("# ").unwrap_or(line).trim()).filter(|line| !line.is_empty()).collect()
}

#[test]
fn the_bot_is_the_same_in_both() {
    let here = first_example(include_str!("../../../README.md"));
    assert!(here.len() > 10);
    assert_eq!(here, first_example(include_str!("../../../jiscord-client/README.md")));
}
