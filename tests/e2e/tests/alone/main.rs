//! The all-in-one alone: what it promises of its folder and its log.
#![expect(clippy::unwrap_used, reason = "a test that fails may panic")]

mod crash;
mod folder;
