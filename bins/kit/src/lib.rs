//! What the service binaries share: configuration, telemetry, the accept loop, shutdown.
//!
//! A binary reads its [`Config`], installs [`telemetry`], builds a router of the library crates and hands
//! it to an [`Edge`]. What is global to a process (logger, signals, umask) is set here and in no library.

pub mod config;
pub mod edge;
pub mod exit;
pub mod process;
pub mod proxies;
pub mod service;
#[cfg(feature = "shared")]
pub mod shared;
pub mod shutdown;
mod sockets;
pub mod telemetry;

pub use self::{config::Config, edge::Edge, exit::Refused, proxies::Proxies};

/// The examples in the project's README compile.
#[cfg(doctest)]
#[doc = include_str!("../../../README.md")]
struct Readme;
