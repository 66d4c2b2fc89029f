//! Says back what it hears, over the very WebSocket that the gateway speaks, so that a conformance suite can try it:
//!
//! ```sh
//! cargo run -p ws-echo
//! pip install kosoku && kosoku -m fuzzingclient -x '12.*' -x '13.*' ws://127.0.0.1:9001
//! ```
//!
//! `PORT` is where it listens on this machine. Chapters 12 and 13 of that suite are about compression, which the gateway does
//! not offer.

use std::{env, num::NonZeroU32, time::Duration};

use anyhow::Context;
use axum::Router;
use jiscord_gateway::{Limits, echo::Echo};
use tokio::{net::TcpListener, signal::ctrl_c};

/// The suite's largest message.
const LARGEST: usize = 16 << 20;

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let port = env::var("PORT").map_or(Ok(9001), |port| port.parse()).context("PORT is a number")?;
    // What bounds clients of a gateway stands in the way of a suite that tries long messages in many pieces.
    let mut limits = Limits::default();
    limits.frame = LARGEST;
    limits.fragments = u32::MAX;
    limits.control_frames = NonZeroU32::MAX;
    limits.message_time = Duration::from_secs(600);
    limits.queue = LARGEST;

    let listener = TcpListener::bind(("127.0.0.1", port)).await?;
    println!("ws-echo is at http://{}", listener.local_addr()?);
    let stop = async {
        let _ = ctrl_c().await;
    };
    axum::serve(listener, Router::new().fallback_service(Echo::new(limits))).with_graceful_shutdown(stop).await?;
    Ok(())
}
