//! Jiscord, all in one process.
fn main() {}
