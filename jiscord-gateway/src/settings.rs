//! What can be set.

use std::{num::NonZeroU32, time::Duration};

/// A gateway's settings. [`Settings::default`] has the protocol's values.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Settings {
    /// How often a client is to send HEARTBEAT. One that is silent for 1.5 times as long is closed.
    pub heartbeat: Duration,
    /// Web pages that may open sockets beside those of the gateway's own host, as `scheme://host[:port]`.
    pub origins: Vec<String>,
    /// The limits.
    pub limits: Limits,
    /// How many tasks write to sockets; 0: one for each core.
    pub dispatchers: usize,
}

impl Default for Settings {
    fn default() -> Self {
        Self { heartbeat: Duration::from_secs(45), origins: Vec::new(), limits: Limits::default(), dispatchers: 0 }
    }
}

/// What a client may use.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Limits {
    /// The most bytes of a message of a client's that has identified. Larger: 1009.
    pub frame: usize,
    /// The most bytes of a message before IDENTIFY.
    pub first_frame: usize,
    /// The most fragments of a message.
    pub fragments: u32,
    /// The longest that a message may take from its first fragment to its last.
    pub message_time: Duration,
    /// The most WebSocket control frames a second, and the most HEARTBEATs.
    pub control_frames: NonZeroU32,
    /// How long a connection may wait with IDENTIFY.
    pub identify: Duration,
    /// How many connections may become sessions at once. The others wait for their turn, as long as a command may take, and
    /// are then sent away for a while (1013).
    pub entering: usize,
    /// How many messages of all sessions may be under way to the store; one more is [`Code::BUSY`](jiscord_core::Code::BUSY).
    pub sends: usize,
    /// Commands a second.
    pub commands: NonZeroU32,
    /// Commands at once.
    pub command_burst: NonZeroU32,
    /// The most bytes that wait for a client that does not read. More: 4011.
    pub queue: usize,
    /// How long a client may take for a message that is being written to it. Longer: 4011.
    pub write: Duration,
    /// How long a command may take before it is answered with `outcome_unknown`.
    pub command: Duration,
    /// The most devices of one user with a session at a time. One more evicts the longest silent.
    pub devices: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            frame: 64 << 10,
            first_frame: 4 << 10,
            fragments: 16,
            message_time: Duration::from_secs(30),
            control_frames: const { NonZeroU32::new(10).unwrap() },
            identify: Duration::from_secs(30),
            entering: 64,
            sends: 1_024,
            commands: const { NonZeroU32::new(20).unwrap() },
            command_burst: const { NonZeroU32::new(100).unwrap() },
            queue: 1 << 20,
            write: Duration::from_secs(30),
            command: Duration::from_secs(5),
            devices: 8,
        }
    }
}
