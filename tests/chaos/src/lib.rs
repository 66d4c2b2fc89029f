//! Kills, halts, cuts and overloads a running Jiscord, and counts what became of every message.
//!
//! A run sets up the real programs with clients on them ([`stage`]), does to them what the table of [`faults`] has, in an order
//! that a seed decides ([`run`]), and reads what the clients wrote down ([`record`]).
#![expect(clippy::unwrap_used, reason = "a run that cannot go on ends")]

pub mod client;
mod clock;
pub mod faults;
#[path = "../../../jiscord-store/tests/scylla/node.rs"]
mod node;
pub mod notes;
pub mod record;
pub mod run;
pub mod sdk;
pub mod stage;
pub mod tamper;
