#![doc = include_str!("../README.md")]

pub mod backend;
pub mod event;
pub mod fault;
pub mod frame;
pub mod http;
pub mod id;
pub mod journal;
pub mod json;
pub mod mint;
pub mod model;
pub mod text;
pub mod time;
mod topic;

pub use self::{
    event::{Event, Position, Topic},
    fault::{Code, Fault},
    frame::{ClientFrame, Placed, ServerFrame},
    id::{ChannelId, EventId, GuildId, MessageId, SessionId, UserId},
    time::Timestamp,
};
