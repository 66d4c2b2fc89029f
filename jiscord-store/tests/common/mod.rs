//! What the tests of the SQLite store share.

use std::sync::Arc;

use jiscord_core::{
    ChannelId, Event, EventId, GuildId, ServerFrame, Topic, UserId,
    model::Message,
    text::{Content, Nonce},
};
use jiscord_store::{NewMessage, Tell};
use uuid::Uuid;

pub(crate) const CHANNEL: ChannelId = ChannelId::new(Uuid::from_u128(7));

pub(crate) fn message(content: &str, nonce: &str) -> NewMessage {
    NewMessage {
        channel_id: CHANNEL,
        author_id: UserId::new(Uuid::from_u128(9)),
        content: Content::new(content).unwrap(),
        reply_to: None,
        nonce: Some(Nonce::new(nonce).unwrap()),
    }
}

pub(crate) fn tell() -> Tell<Message> {
    Arc::new(|row| {
        let frame = ServerFrame::MessageCreate(row.clone());
        vec![Event::new(
            EventId::new(row.message_id.uuid()),
            vec![Topic::Guild(GuildId::new(Uuid::from_u128(8)))],
            Some(row.channel_id),
            frame,
        )]
    })
}
