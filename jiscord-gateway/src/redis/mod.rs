//! The bus, the log and the claims on one Redis, for gateways and publishers in several processes.
//!
//! - [`RedisPublisher`] appends events to the log and publishes them, in order, and keeps them while Redis is away.
//! - [`RedisBus`] is that and hears the topics that a gateway joins.
//! - [`RedisClaims`] keeps one session a device across gateways.
//! - [`RedisMarks`] keeps how far relays are.
//! - [`RedisClock`] tells the time that all of them share.
//!
//! A topic is a Redis channel of the same name, and what is published there is
//! `<p> <position of the topic's event before> <OP> <channel id or -> <frame>`, with zeros for what does not last. The plain
//! frames of MESSAGE_CREATE and TYPING are also published on `channel:<channel id>`, for whoever listens there.
//!
//! None of them needs Redis to be there when it starts, and all come back by themselves. Only what an operator has to mend is
//! an error at the start.

mod asker;
mod bus;
mod claims;
mod clock;
mod link;
mod marks;
mod payload;
mod publisher;
pub(crate) mod scripts;
mod stretch;

pub use self::{
    bus::RedisBus,
    claims::RedisClaims,
    clock::RedisClock,
    link::{Error, Redis, Result},
    marks::RedisMarks,
    publisher::RedisPublisher,
};
