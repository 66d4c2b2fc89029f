//! Rows as SQLite keeps them.

use jiscord_core::{
    ChannelId, Event, EventId, GuildId, MessageId, Position, Timestamp, Topic, UserId,
    event::Logged,
    model::{Channel, Guild, Member, Message, User, Visibility},
};
use rusqlite::{
    Result, Row, ToSql,
    types::{FromSqlError, Type},
};
use uuid::Uuid;

use crate::{draft, repository::Account};

pub(super) const ACCOUNT: &str = "user_id, username, email, password_hash, created_at";
pub(super) const MESSAGE: &str = "channel_id, key, author_id, content, created_at, rev, reply_to";
pub(super) const GUILD: &str = "guild_id, name, owner_id, visibility, created_at, rev";
pub(super) const MEMBER: &str = "guild_id, user_id, joined_at, rev";
pub(super) const CHANNEL: &str = "channel_id, guild_id, name, created_at, rev";
pub(super) const EVENT: &str = "p, id, topics, op, channel, frame";

pub(super) fn account(row: &Row<'_>) -> Result<Account> {
    let created_at: Option<i64> = row.get("created_at")?;
    let user = User {
        user_id: UserId::new(row.get("user_id")?),
        username: row.get("username")?,
        email: row.get("email")?,
        created_at: created_at.map(Timestamp::from_ms),
    };
    Ok(Account { user, password_hash: row.get("password_hash")? })
}

pub(super) fn message(row: &Row<'_>) -> Result<Message> {
    Ok(Message {
        message_id: message_id(row, "key")?,
        channel_id: ChannelId::new(row.get("channel_id")?),
        author_id: UserId::new(row.get("author_id")?),
        content: row.get("content")?,
        created_at: Timestamp::from_ms(row.get("created_at")?),
        author: None,
        rev: row.get("rev")?,
        nonce: None,
        reply_to: row.get::<_, Option<Uuid>>("reply_to")?.map(MessageId::new),
    })
}

/// The id that a column's sort key was made of.
pub(super) fn message_id(row: &Row<'_>, column: &str) -> Result<MessageId> {
    MessageId::from_sort_key(row.get(column)?).ok_or_else(|| broken(column, Type::Blob))
}

pub(super) fn guild(row: &Row<'_>) -> Result<Guild> {
    Ok(Guild {
        guild_id: GuildId::new(row.get("guild_id")?),
        name: row.get("name")?,
        created_at: Timestamp::from_ms(row.get("created_at")?),
        rev: row.get("rev")?,
        owner_id: row.get::<_, Option<Uuid>>("owner_id")?.map(UserId::new),
        visibility: Some(match row.get_ref("visibility")?.as_str()? {
            "public" => Visibility::Public,
            "private" => Visibility::Private,
            _ => return Err(broken("visibility", Type::Text)),
        }),
    })
}

pub(super) fn visibility(visibility: Visibility) -> &'static str {
    match visibility {
        Visibility::Public => "public",
        Visibility::Private => "private",
    }
}

pub(super) fn member(row: &Row<'_>) -> Result<Member> {
    let (guild, user) = (GuildId::new(row.get("guild_id")?), UserId::new(row.get("user_id")?));
    Ok(draft::member(guild, user, Timestamp::from_ms(row.get("joined_at")?), row.get("rev")?))
}

pub(super) fn channel(row: &Row<'_>) -> Result<Channel> {
    Ok(Channel {
        channel_id: ChannelId::new(row.get("channel_id")?),
        guild_id: GuildId::new(row.get("guild_id")?),
        name: row.get("name")?,
        created_at: Timestamp::from_ms(row.get("created_at")?),
        rev: row.get("rev")?,
        last_message_id: None,
    })
}

pub(super) fn logged(row: &Row<'_>) -> Result<Logged> {
    let topics = row.get_ref("topics")?.as_str()?.split_ascii_whitespace().map(str::parse::<Topic>);
    let event = Event {
        id: EventId::new(row.get("id")?),
        topics: topics.collect::<std::result::Result<_, _>>().map_err(|_| broken("topics", Type::Text))?,
        op: row.get::<_, String>("op")?.into(),
        channel: row.get::<_, Option<Uuid>>("channel")?.map(ChannelId::new),
        frame: row.get::<_, String>("frame")?.into(),
    };
    Ok(Logged { p: Position(row.get("p")?), event })
}

pub(super) fn topics(topics: &[Topic]) -> impl ToSql {
    topics.iter().map(Topic::to_string).collect::<Vec<_>>().join(" ")
}

fn broken(column: &str, kind: Type) -> rusqlite::Error {
    rusqlite::Error::FromSqlConversionFailure(0, kind, FromSqlError::Other(format!("{column} makes no sense").into()).into())
}
