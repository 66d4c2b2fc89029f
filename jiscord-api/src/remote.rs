//! Accounts and chat operations that are other processes, auth-service and data-service, over HTTP.
//!
//! [`RemoteBackend`] is what a gateway asks instead of [`Chat`](crate::Chat), [`RemoteUsers`] what
//! [`Accounts`](crate::Accounts) asks instead of a store.
//!
//! **What a failure means.** Who cannot be connected to has heard nothing: it is tried again until the call's time is over, and
//! then the call is [`Code::UNAVAILABLE`]. When the answer does not come, nobody knows: what is only read is asked for once more,
//! and a message is sent once more under its nonce, or under a key that is made up and told to nobody. After that a write is
//! [`Code::OUTCOME_UNKNOWN`]. A token is bad only when auth-service says so; a service token that data-service does not know is
//! an error in the log, and [`Code::UNAVAILABLE`] to users.
//!
//! [`Code::UNAVAILABLE`]: jiscord_core::Code::UNAVAILABLE
//! [`Code::OUTCOME_UNKNOWN`]: jiscord_core::Code::OUTCOME_UNKNOWN

mod backend;
mod call;
mod users;

pub use self::{
    backend::RemoteBackend,
    call::{SetupError, TIME},
    users::RemoteUsers,
};
