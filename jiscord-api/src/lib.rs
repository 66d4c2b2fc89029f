#![doc = include_str!("../README.md")]

pub mod accounts;
pub mod chat;
mod guesses;
pub mod http;
pub mod limits;
pub mod passwords;
pub mod relay;
#[cfg(feature = "remote")]
pub mod remote;
pub mod tokens;

pub use self::{accounts::Accounts, chat::Chat, limits::Limits, tokens::Jwt};
