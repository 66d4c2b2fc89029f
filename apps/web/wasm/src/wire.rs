//! What crosses to the page and is not a model.

use std::time::Duration;

use jiscord_client::{
    self as client, Error,
    core::{
        ChannelId, Code, GuildId, MessageId, UserId,
        frame::Typing,
        model::{Guild, Message},
    },
};
use serde::Serialize;

/// Why a call was not done. Every promise that is rejected is an `Error` that has this as well.
#[derive(Serialize)]
#[cfg_attr(test, derive(ts_rs::TS), ts(optional_fields))]
#[serde(rename_all = "camelCase")]
pub(crate) struct SdkError {
    /// The server's word, or one of `unreachable`, `closed` and `protocol`.
    code: String,
    /// A sentence for people.
    pub(crate) message: String,
    /// When asking again makes sense.
    #[serde(skip_serializing_if = "Option::is_none")]
    retry_after_ms: Option<u64>,
}

impl From<Error> for SdkError {
    fn from(error: Error) -> Self {
        let code = match &error {
            Error::Refused(refusal) => refusal.code.as_str(),
            Error::Unauthorized(_) => "unauthorized",
            Error::Evicted => "evicted",
            Error::Invalid(_) => "invalid",
            Error::Address(_) => "malformed",
            Error::Unreachable(_) => "unreachable",
            Error::OutcomeUnknown { .. } => "outcome_unknown",
            Error::Busy => "busy",
            Error::Closed => "closed",
            // `Protocol`, and what is added later.
            _ => "protocol",
        };
        let code = code.to_owned();
        match error {
            Error::Refused(refusal) => Self { code, message: refusal.message, retry_after_ms: refusal.retry_after.map(ms) },
            Error::Unauthorized(message) => Self { code, message, retry_after_ms: None },
            error => Self { code, message: error.to_string(), retry_after_ms: None },
        }
    }
}

impl SdkError {
    /// Something from the page that is no id.
    pub(crate) fn malformed(error: &dyn std::error::Error) -> Self {
        Self { code: Code::MALFORMED.as_str().to_owned(), message: error.to_string(), retry_after_ms: None }
    }
}

fn ms(wait: Duration) -> u64 {
    u64::try_from(wait.as_millis()).unwrap_or(u64::MAX)
}

/// Something that the snapshots show has changed, or happened.
#[derive(Serialize)]
#[cfg_attr(test, derive(ts_rs::TS), ts(optional_fields))]
#[serde(tag = "kind", rename_all = "camelCase", rename_all_fields = "camelCase")]
pub(crate) enum Change {
    /// How the session is.
    Connection {
        state: ConnectionState,
        /// While it waits: how long.
        #[serde(skip_serializing_if = "Option::is_none")]
        retry_in_ms: Option<u64>,
        /// Once it has ended: why.
        #[serde(skip_serializing_if = "Option::is_none")]
        reason: Option<EndReason>,
    },
    /// The list of guilds; read it again.
    Guilds,
    /// A guild's list of channels; read it again.
    Channels { guild_id: GuildId },
    /// An open channel's messages. Apply the splices in order to the list you hold.
    Messages { channel_id: ChannelId, splices: Vec<Splice>, has_older: bool },
    /// A message was written, in any channel.
    Activity { channel_id: ChannelId, message_id: MessageId, author_id: UserId },
    /// Somebody types.
    Typing {
        channel_id: ChannelId,
        user_id: UserId,
        /// In Unix milliseconds.
        timestamp: i64,
    },
    /// A command that nobody waits for failed.
    Failed { error: SdkError },
}

/// How a session is.
#[derive(Serialize)]
#[cfg_attr(test, derive(ts_rs::TS))]
#[serde(rename_all = "camelCase")]
pub(crate) enum ConnectionState {
    /// It is being made.
    Connecting,
    /// It lives.
    Ready,
    /// It is lost, and will be tried again.
    Waiting,
    /// It is over.
    Ended,
}

/// Why a session is over.
#[derive(Serialize)]
#[cfg_attr(test, derive(ts_rs::TS))]
#[serde(rename_all = "camelCase")]
pub(crate) enum EndReason {
    /// The login is not good any more.
    Unauthorized,
    /// Another session took its place.
    Evicted,
    /// It was ended here.
    Closed,
}

/// `array.splice(at, remove, ...insert)`.
#[derive(Serialize)]
#[cfg_attr(test, derive(ts_rs::TS))]
pub(crate) struct Splice {
    at: usize,
    remove: usize,
    insert: Vec<Message>,
}

/// What is loaded of a channel.
#[derive(Serialize)]
#[cfg_attr(test, derive(ts_rs::TS))]
#[serde(rename_all = "camelCase")]
pub(crate) struct Timeline {
    /// Oldest first.
    messages: Vec<Message>,
    /// Whether there are older ones to load.
    has_older: bool,
    /// Whether the newest were loaded yet.
    loaded: bool,
}

impl From<client::Timeline> for Timeline {
    fn from(timeline: client::Timeline) -> Self {
        Self { messages: timeline.messages, has_older: timeline.has_older, loaded: timeline.loaded }
    }
}

/// Some guilds that anybody may join.
#[derive(Serialize)]
#[cfg_attr(test, derive(ts_rs::TS), ts(optional_fields))]
pub(crate) struct GuildPage {
    items: Vec<Guild>,
    /// How to read on, unless these are the last.
    #[serde(skip_serializing_if = "Option::is_none")]
    next: Option<String>,
}

impl From<client::http::Page<Guild>> for GuildPage {
    fn from(page: client::http::Page<Guild>) -> Self {
        Self { items: page.items, next: page.next }
    }
}

impl Change {
    /// `None` for a kind that this page does not know yet.
    pub(crate) fn of(change: client::Change) -> Option<Self> {
        Some(match change {
            client::Change::Connection(connection) => Self::connection(connection)?,
            client::Change::Guilds => Self::Guilds,
            client::Change::Channels(guild_id) => Self::Channels { guild_id },
            client::Change::Messages { channel: channel_id, splices, has_older } => {
                let splice = |splice: client::Splice| Splice { at: splice.at, remove: splice.remove, insert: splice.insert };
                Self::Messages { channel_id, splices: splices.into_iter().map(splice).collect(), has_older }
            }
            client::Change::Activity { channel: channel_id, message: message_id, author: author_id } => {
                Self::Activity { channel_id, message_id, author_id }
            }
            client::Change::Typing(Typing { channel_id, user_id, timestamp }) => Self::Typing { channel_id, user_id, timestamp },
            client::Change::Failed(error) => Self::Failed { error: error.into() },
            _ => return None,
        })
    }

    fn connection(connection: client::Connection) -> Option<Self> {
        let is = |state| Self::Connection { state, retry_in_ms: None, reason: None };
        Some(match connection {
            client::Connection::Connecting => is(ConnectionState::Connecting),
            client::Connection::Ready => is(ConnectionState::Ready),
            client::Connection::Waiting(wait) => {
                Self::Connection { state: ConnectionState::Waiting, retry_in_ms: Some(ms(wait)), reason: None }
            }
            client::Connection::Ended(error) => {
                let reason = match error {
                    Error::Unauthorized(_) => EndReason::Unauthorized,
                    Error::Evicted => EndReason::Evicted,
                    _ => EndReason::Closed,
                };
                Self::Connection { state: ConnectionState::Ended, retry_in_ms: None, reason: Some(reason) }
            }
            _ => return None,
        })
    }
}

#[cfg(test)]
mod tests {
    use jiscord_client::core::frame::Typing;

    use super::*;

    const ID: &str = "a1897dc0-e748-11f1-8000-010000000000";

    #[test]
    fn changes_are_told_apart_by_their_kind() {
        let wait = Duration::from_millis(1_500);
        let gone = || Error::Unauthorized("expired".into());
        let typing = Typing { channel_id: ID.parse().unwrap(), user_id: ID.parse().unwrap(), timestamp: 7 };
        for (change, want) in [
            (
                client::Change::Connection(client::Connection::Connecting),
                r#"{"kind":"connection","state":"connecting"}"#.to_owned(),
            ),
            (client::Change::Connection(client::Connection::Ready), r#"{"kind":"connection","state":"ready"}"#.to_owned()),
            (
                client::Change::Connection(client::Connection::Waiting(wait)),
                r#"{"kind":"connection","state":"waiting","retryInMs":1500}"#.to_owned(),
            ),
            (
                client::Change::Connection(client::Connection::Ended(gone())),
                r#"{"kind":"connection","state":"ended","reason":"unauthorized"}"#.to_owned(),
            ),
            (
                client::Change::Connection(client::Connection::Ended(Error::Evicted)),
                r#"{"kind":"connection","state":"ended","reason":"evicted"}"#.to_owned(),
            ),
            (
                client::Change::Connection(client::Connection::Ended(Error::Closed)),
                r#"{"kind":"connection","state":"ended","reason":"closed"}"#.to_owned(),
            ),
            (client::Change::Guilds, r#"{"kind":"guilds"}"#.to_owned()),
            (client::Change::Channels(ID.parse().unwrap()), format!(r#"{{"kind":"channels","guildId":"{ID}"}}"#)),
            (
                client::Change::Messages { channel: ID.parse().unwrap(), splices: Vec::new(), has_older: true },
                format!(r#"{{"kind":"messages","channelId":"{ID}","splices":[],"hasOlder":true}}"#),
            ),
            (
                client::Change::Activity {
                    channel: ID.parse().unwrap(),
                    message: ID.parse().unwrap(),
                    author: ID.parse().unwrap(),
                },
                format!(r#"{{"kind":"activity","channelId":"{ID}","messageId":"{ID}","authorId":"{ID}"}}"#),
            ),
            (client::Change::Typing(typing), format!(r#"{{"kind":"typing","channelId":"{ID}","userId":"{ID}","timestamp":7}}"#)),
            (
                client::Change::Failed(gone()),
                r#"{"kind":"failed","error":{"code":"unauthorized","message":"expired"}}"#.to_owned(),
            ),
        ] {
            let told = Change::of(change).unwrap();
            assert_eq!(serde_json::to_string(&told).unwrap(), want);
        }
    }

    #[test]
    fn errors_have_a_word_for_programs() {
        let lost = || Error::Unreachable("refused".into());
        for (error, code) in [
            (Error::Address("no".into()), "malformed"),
            (Error::Evicted, "evicted"),
            (lost(), "unreachable"),
            (Error::OutcomeUnknown { nonce: None }, "outcome_unknown"),
            (Error::Busy, "busy"),
            (Error::Closed, "closed"),
            (Error::Protocol("not JSON".into()), "protocol"),
        ] {
            let told = serde_json::to_value(SdkError::from(error)).unwrap();
            assert_eq!(told["code"], code);
            assert!(told["message"].as_str().is_some_and(|message| !message.is_empty()), "{code}");
        }
        let told = serde_json::to_value(SdkError::malformed(&std::fmt::Error)).unwrap();
        assert_eq!(told["code"], "malformed");
    }
}
