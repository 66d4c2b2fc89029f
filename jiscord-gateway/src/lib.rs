#![doc = include_str!("../README.md")]

pub mod bus;
#[cfg(any(feature = "server", feature = "redis"))]
mod chance;
pub mod claims;
pub mod local;
#[cfg(feature = "redis")]
pub mod redis;

#[cfg(feature = "server")]
mod connection;
#[cfg(feature = "server")]
mod dispatch;
#[cfg(feature = "echo")]
pub mod echo;
#[cfg(feature = "server")]
mod guild;
#[cfg(feature = "server")]
mod hub;
#[cfg(feature = "server")]
mod service;
#[cfg(feature = "server")]
mod settings;
#[cfg(all(test, feature = "server", feature = "redis"))]
mod sim;
#[cfg(all(test, feature = "server"))]
mod tests;
#[cfg(feature = "server")]
mod wire;

pub use self::{bus::Bus, claims::Claims, local::LocalBus};
#[cfg(feature = "server")]
pub use self::{
    service::{Gateway, GatewayService},
    settings::{Limits, Settings},
};
