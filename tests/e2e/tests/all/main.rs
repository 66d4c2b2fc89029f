//! The whole system from outside, one subject a file.
#![expect(clippy::unwrap_used, reason = "a test that fails may panic")]

mod accounts;
mod bad_input;
mod chat;
mod lifecycle;
mod logins;
mod reach;
mod resume;
mod routes;
mod sdk;
mod secrets;
mod seed;
mod sessions;
mod tokens;
