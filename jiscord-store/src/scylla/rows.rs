//! Rows as CQL keeps them.

use jiscord_core::{
    ChannelId, Event, EventId, GuildId, MessageId, Timestamp, Topic, UserId,
    model::{Channel, Guild, Message, Rev, User, Visibility},
};
use scylla::{
    DeserializeRow,
    value::{CqlTimestamp, CqlTimeuuid},
};
use uuid::Uuid;

use super::db::corrupt;
use crate::{
    error::{Error, Result},
    repository::Account,
};

#[derive(DeserializeRow)]
pub(super) struct AccountRow {
    user_id: Uuid,
    username: String,
    email: Option<String>,
    password_hash: Option<String>,
    created_at: Option<CqlTimestamp>,
}

impl From<AccountRow> for Account {
    fn from(row: AccountRow) -> Self {
        let user = User {
            user_id: UserId::new(row.user_id),
            username: row.username,
            email: row.email,
            created_at: row.created_at.map(|at| Timestamp::from_ms(at.0)),
        };
        Self { user, password_hash: row.password_hash }
    }
}

#[derive(DeserializeRow)]
pub(super) struct MessageRow {
    channel_id: Uuid,
    message_id: CqlTimeuuid,
    author_id: Uuid,
    content: String,
    created_at: CqlTimestamp,
    rev: i64,
    reply_to: Option<Uuid>,
}

impl TryFrom<MessageRow> for Message {
    type Error = Error;

    fn try_from(row: MessageRow) -> Result<Self> {
        Ok(Self {
            message_id: MessageId::new(row.message_id.into()),
            channel_id: ChannelId::new(row.channel_id),
            author_id: UserId::new(row.author_id),
            content: row.content,
            created_at: Timestamp::from_ms(row.created_at.0),
            author: None,
            rev: rev(row.rev)?,
            nonce: None,
            reply_to: row.reply_to.map(MessageId::new),
        })
    }
}

#[derive(DeserializeRow)]
pub(super) struct GuildRow {
    guild_id: Uuid,
    name: String,
    owner_id: Option<Uuid>,
    visibility: String,
    created_at: CqlTimestamp,
    rev: i64,
}

impl TryFrom<GuildRow> for Guild {
    type Error = Error;

    fn try_from(row: GuildRow) -> Result<Self> {
        Ok(Self {
            guild_id: GuildId::new(row.guild_id),
            name: row.name,
            created_at: Timestamp::from_ms(row.created_at.0),
            rev: rev(row.rev)?,
            owner_id: row.owner_id.map(UserId::new),
            visibility: Some(match row.visibility.as_str() {
                "public" => Visibility::Public,
                "private" => Visibility::Private,
                _ => return Err(corrupt("visibility makes no sense")),
            }),
        })
    }
}

pub(super) fn visibility(visibility: Visibility) -> &'static str {
    match visibility {
        Visibility::Public => "public",
        Visibility::Private => "private",
    }
}

#[derive(DeserializeRow)]
pub(super) struct MemberRow {
    /// None once the membership ended.
    pub(super) joined_at: Option<CqlTimestamp>,
    pub(super) rev: i64,
}

#[derive(DeserializeRow)]
pub(super) struct ChannelRow {
    guild_id: Uuid,
    channel_id: Uuid,
    name: String,
    created_at: CqlTimestamp,
    rev: i64,
}

impl TryFrom<ChannelRow> for Channel {
    type Error = Error;

    fn try_from(row: ChannelRow) -> Result<Self> {
        Ok(Self {
            channel_id: ChannelId::new(row.channel_id),
            guild_id: GuildId::new(row.guild_id),
            name: row.name,
            created_at: Timestamp::from_ms(row.created_at.0),
            rev: rev(row.rev)?,
            last_message_id: None,
        })
    }
}

#[derive(DeserializeRow)]
pub(super) struct EventRow {
    event_id: Uuid,
    topics: Option<Vec<String>>,
    op: String,
    channel: Option<Uuid>,
    frame: String,
}

impl TryFrom<EventRow> for Event {
    type Error = Error;

    fn try_from(row: EventRow) -> Result<Self> {
        let topics = row.topics.iter().flatten().map(|topic| topic.parse::<Topic>());
        Ok(Self {
            id: EventId::new(row.event_id),
            topics: topics.collect::<std::result::Result<_, _>>().map_err(corrupt)?,
            op: row.op.into(),
            channel: row.channel.map(ChannelId::new),
            frame: row.frame.into(),
        })
    }
}

/// CQL counts with a sign.
pub(super) fn rev(rev: i64) -> Result<Rev> {
    Rev::try_from(rev).map_err(corrupt)
}

/// A `rev` as CQL's bigint. Ours are below 2^53.
pub(super) fn bigint(rev: Rev) -> i64 {
    i64::try_from(rev).unwrap_or(i64::MAX)
}

pub(super) fn timestamp(at: Timestamp) -> CqlTimestamp {
    CqlTimestamp(at.ms())
}

pub(super) fn timeuuid(id: MessageId) -> CqlTimeuuid {
    id.uuid().into()
}
