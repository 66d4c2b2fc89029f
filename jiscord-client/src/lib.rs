#![doc = include_str!("../README.md")]

mod backoff;
mod cache;
mod client;
mod endpoints;
mod error;
mod event;
mod gateway;
mod given;
pub mod http;
mod outbox;
mod place;
mod resync;
mod sys;
mod timeline;
mod view;

pub use jiscord_core as core;

pub use self::{
    cache::{Change, Connection},
    client::{Builder, Client, Send},
    endpoints::Endpoints,
    error::{Error, Refusal, Result, Source},
    event::{Event, Events, ResumePoint},
    http::Http,
    resync::{Missing, Resynced},
    timeline::{Splice, Timeline},
    view::{Listener, View},
};
