#![doc = include_str!("../README.md")]

pub mod error;
pub mod repository;

pub use self::{
    error::{Error, Result},
    repository::{
        Account, Channels, Created, Guilds, Members, Messages, NewChannel, NewGuild, NewMessage, NewUser, Removed, Store, Tell,
        Users,
    },
};
