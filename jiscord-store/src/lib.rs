#![doc = include_str!("../README.md")]

#[cfg(feature = "conformance")]
pub mod conformance;
mod draft;
pub mod error;
pub mod memory;
pub mod repository;
#[cfg(feature = "scylla")]
pub mod scylla;
#[cfg(feature = "sqlite")]
pub mod sqlite;
mod ticks;

pub use self::{
    error::{Error, Result},
    repository::{
        Account, Channels, Created, Guilds, Logins, Members, Messages, NewChannel, NewGuild, NewLogin, NewMessage, NewUser,
        NoLogins, Refreshed, Removed, Store, Tell, Users,
    },
};
