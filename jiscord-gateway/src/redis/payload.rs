//! What is said on a topic's channel: `<p> <prev> <OP> <channel id or -> <frame>`.

use std::fmt;

use jiscord_core::{ChannelId, Event, EventId, Position, Topic, UserId, frame::Attempt, text::Device};
use serde::Deserialize;

use crate::{bus::Heard, claims::Eviction};

/// The op of the bus's own message about a device's session. No client hears it.
const EVICT: &str = "EVICT";

/// Whose plain frame is told on the channel's own Redis channel as well.
pub(super) fn plain_channel(event: &Event) -> Option<String> {
    let channel = event.channel.filter(|_| matches!(&*event.op, "MESSAGE_CREATE" | "TYPING"))?;
    Some(format!("channel:{channel}"))
}

/// The op, and the channel or `-`.
pub(super) fn head(event: &Event) -> impl fmt::Display {
    let channel = event.channel.map_or_else(|| "-".to_owned(), |id| id.to_string());
    format!("{} {channel}", event.op)
}

/// What is said of an event that does not last.
pub(super) fn passing(event: &Event) -> String {
    format!("0 0 {} {}", head(event), event.frame)
}

/// What was said on a topic.
#[derive(Debug, PartialEq)]
pub(super) enum Said {
    /// It lasts, and comes after the one at `prev`; 0: after none that is known.
    Lasting { event: Event, p: Position, prev: Position },
    /// It does not last.
    Passing(Heard),
}

/// Reads it. `None`: nobody of ours wrote it.
pub(super) fn read(topic: Topic, payload: &[u8]) -> Option<Said> {
    let mut parts = std::str::from_utf8(payload).ok()?.splitn(5, ' ');
    let mut next = || parts.next();
    let (p, prev, op, channel, frame) = (next()?, next()?, next()?, next()?, next()?);
    let (p, prev) = (Position(p.parse().ok()?), Position(prev.parse().ok()?));
    if op == EVICT {
        return evict(topic, frame).map(Said::Passing);
    }
    let channel: Option<ChannelId> = if channel == "-" { None } else { Some(channel.parse().ok()?) };
    let event = Event { id: EventId::NONE, topics: vec![topic], op: op.into(), channel, frame: frame.into() };
    Some(if p == Position(0) { Said::Passing(Heard::Event { event, p: None }) } else { Said::Lasting { event, p, prev } })
}

fn evict(topic: Topic, frame: &str) -> Option<Heard> {
    #[derive(Deserialize)]
    struct Frame {
        d: Body,
    }
    #[derive(Deserialize)]
    struct Body {
        device: Option<Device>,
        fence: u64,
        attempt: Option<Attempt>,
    }
    let user: UserId = match topic {
        Topic::User(user) => user,
        Topic::Guild(_) => return None,
    };
    let Frame { d: Body { device, fence, attempt } } = serde_json::from_str(frame).ok()?;
    Some(Heard::Evict { user, over: Eviction { device, fence, attempt } })
}

#[cfg(test)]
mod tests {
    use super::*;

    const ID: &str = "0f8fad5b-d9cb-469f-a165-70867728950e";

    #[test]
    fn what_is_written_can_be_read() {
        let topic = Topic::Guild(ID.parse().unwrap());
        let frame = r#"{"op":"TYPING","d":{"a":"b c  d"}}"#;
        let event =
            Event { id: EventId::NONE, topics: vec![topic], op: "TYPING".into(), channel: ID.parse().ok(), frame: frame.into() };
        let passing = Said::Passing(Heard::Event { event: event.clone(), p: None });
        assert_eq!(read(topic, super::passing(&event).as_bytes()), Some(passing));
        let lasting = format!("17 5 {} {frame}", head(&event));
        assert_eq!(
            read(topic, lasting.as_bytes()),
            Some(Said::Lasting { event: event.clone(), p: Position(17), prev: Position(5) })
        );
        assert_eq!(plain_channel(&event), Some(format!("channel:{ID}")));
        assert_eq!(plain_channel(&Event { op: "CHANNEL_CREATE".into(), ..event }), None);
    }

    #[test]
    fn an_eviction_is_read_on_a_users_topic_alone() {
        let user = Topic::User(ID.parse().unwrap());
        let attempt = Attempt { client: 2, number: 3 };
        for (device, by, want) in [
            ("null", "", Eviction { device: None, fence: 7, attempt: None }),
            (
                r#""a \"b\"""#,
                r#","attempt":{"client":2,"number":3}"#,
                Eviction { device: Some(Device::new("a \"b\"").unwrap()), fence: 7, attempt: Some(attempt) },
            ),
        ] {
            let text = format!(r#"0 0 EVICT - {{"op":"EVICT","d":{{"device":{device},"fence":7{by}}}}}"#);
            let heard = Heard::Evict { user: ID.parse().unwrap(), over: want };
            assert_eq!(read(user, text.as_bytes()), Some(Said::Passing(heard)));
            assert_eq!(read(Topic::Guild(ID.parse().unwrap()), text.as_bytes()), None);
        }
    }

    #[test]
    fn what_others_say_is_not_understood() {
        let topic = Topic::User(ID.parse().unwrap());
        for bad in ["", "hi", "1 2 X -", "x 0 X - {}", "1 -1 X - {}", "1 0 X y {}", "0 0 EVICT - {}"] {
            assert_eq!(read(topic, bad.as_bytes()), None, "{bad}");
        }
        assert_eq!(read(topic, b"\xff 0 X - {}"), None);
    }
}
