//! The three services with two gateways: what goes from one process to another, and what happens when one is away.
#![expect(clippy::unwrap_used, reason = "a test that fails may panic")]

mod away;
mod bot;
mod crash;
mod entry;
mod gateways;
#[path = "../../../../jiscord-store/tests/scylla/node.rs"]
mod node;
mod refusals;
mod seed;
mod tls;
