//! The tasks behind ./x.
fn main() {}
