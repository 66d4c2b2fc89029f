//! The API as its callers see it: HTTP into a router, on a store in memory.

#![expect(clippy::unwrap_used, reason = "in a test a panic is the answer")]

mod access;
mod auth;
mod data;
mod errors;
mod logins;
mod relay;
mod remote;
mod site;
mod tokens;
