//! Benchmarks against the real server.
fn main() {}
