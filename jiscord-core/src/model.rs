//! What is talked about. In camelCase, as frames and the SDK have it; [`crate::http`] has the rows of HTTP bodies.

use serde::{Deserialize, Serialize};

use crate::{
    id::{ChannelId, GuildId, MessageId, UserId},
    time::Timestamp,
};

/// How new a row is: an integer below 2^53 that grows with every change of it, its removal included. Of two versions the
/// higher one holds, whatever order they arrive in.
pub type Rev = u64;

/// A user, as everybody may see it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "typescript", derive(ts_rs::TS), ts(optional_fields))]
#[serde(rename_all = "camelCase")]
pub struct User {
    /// Its id.
    pub user_id: UserId,
    /// What it is called. Not unique.
    pub username: String,
    /// Only for the user itself and for services.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub email: Option<String>,
    /// When it registered.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub created_at: Option<Timestamp>,
}

/// Who wrote a message.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "typescript", derive(ts_rs::TS))]
#[serde(rename_all = "camelCase")]
pub struct Author {
    /// Its id.
    pub user_id: UserId,
    /// What it was called when the message was read or sent.
    pub username: String,
}

/// A message in a channel.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "typescript", derive(ts_rs::TS), ts(optional_fields))]
#[serde(rename_all = "camelCase")]
pub struct Message {
    /// Its id; a channel's messages are ordered by it ([`MessageId::sort_key`]).
    pub message_id: MessageId,
    /// Where it is.
    pub channel_id: ChannelId,
    /// Who wrote it.
    pub author_id: UserId,
    /// What it says.
    pub content: String,
    /// When it was written.
    pub created_at: Timestamp,
    /// Its author's name. Absent where the name is not known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub author: Option<Author>,
    /// How new this version is.
    #[serde(default)]
    pub rev: Rev,
    /// The sender's nonce; only in the event that tells of its creation.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub nonce: Option<String>,
    /// The message in the same channel that it answers.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reply_to: Option<MessageId>,
}

/// Who may find and join a guild.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "typescript", derive(ts_rs::TS))]
#[serde(rename_all = "snake_case")]
pub enum Visibility {
    /// It is listed, and any account may join.
    #[default]
    Public,
    /// It is not listed, and nobody joins without an invite.
    Private,
}

/// A guild.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "typescript", derive(ts_rs::TS), ts(optional_fields))]
#[serde(rename_all = "camelCase")]
pub struct Guild {
    /// Its id.
    pub guild_id: GuildId,
    /// What it is called.
    pub name: String,
    /// When it was created.
    pub created_at: Timestamp,
    /// How new this version is.
    #[serde(default)]
    pub rev: Rev,
    /// Who may do everything in it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub owner_id: Option<UserId>,
    /// Who may join. Absent where it is not known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub visibility: Option<Visibility>,
}

/// That a user is in a guild.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "typescript", derive(ts_rs::TS), ts(optional_fields))]
#[serde(rename_all = "camelCase")]
pub struct Member {
    /// The guild.
    pub guild_id: GuildId,
    /// The user.
    pub user_id: UserId,
    /// Its name. Absent where it is not known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub username: Option<String>,
    /// Since when.
    pub joined_at: Timestamp,
    /// How new this is.
    #[serde(default)]
    pub rev: Rev,
}

/// A channel of a guild.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "typescript", derive(ts_rs::TS), ts(optional_fields))]
#[serde(rename_all = "camelCase")]
pub struct Channel {
    /// Its id.
    pub channel_id: ChannelId,
    /// Whose it is.
    pub guild_id: GuildId,
    /// What it is called.
    pub name: String,
    /// When it was created.
    pub created_at: Timestamp,
    /// How new this version is.
    #[serde(default)]
    pub rev: Rev,
    /// The newest message in it when this was read; not kept up by events.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_message_id: Option<MessageId>,
}
