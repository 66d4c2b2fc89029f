#![doc = include_str!("../README.md")]

mod client;
mod endpoints;
mod error;
mod event;
mod gateway;
pub mod http;
mod outbox;
mod sys;

pub use jiscord_core as core;

pub use self::{
    client::{Builder, Client, Send},
    endpoints::Endpoints,
    error::{Error, Refusal, Result, Source},
    event::{Event, Events, ResumePoint},
    http::Http,
};
