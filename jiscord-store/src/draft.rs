//! From what is asked for to the row that is kept: the same in every store.

use std::{
    any::Any,
    panic::{AssertUnwindSafe, catch_unwind},
};

use jiscord_core::{
    ChannelId, GuildId, MessageId, Timestamp, UserId,
    model::{Channel, Guild, Member, Message, Rev, User},
};
use sha2::{Digest, Sha256};
use uuid::Uuid;

use crate::{
    error::Error,
    repository::{Account, NewChannel, NewGuild, NewMessage, NewUser},
};

/// How long a nonce is kept: a day is promised, and an hour more for who asks in the last minute.
pub(crate) const NONCE_KEPT_MICROS: u64 = 25 * 3_600 * 1_000_000;

/// When a minted id was made, and the first `rev` of its row.
fn born(id: MessageId) -> (Timestamp, Rev) {
    (id.minted_at().unwrap_or_default(), id.micros().unwrap_or_default())
}

impl NewUser {
    pub(crate) fn row(self, id: Uuid) -> Account {
        let user = User {
            user_id: UserId::new(id),
            username: self.username.into_string(),
            email: Some(self.email.into_string()),
            created_at: Some(born(MessageId::new(id)).0),
        };
        Account { user, password_hash: Some(self.password_hash) }
    }
}

impl NewMessage {
    pub(crate) fn row(&self, id: MessageId) -> Message {
        let (created_at, rev) = born(id);
        Message {
            message_id: id,
            channel_id: self.channel_id,
            author_id: self.author_id,
            content: self.content.as_str().to_owned(),
            created_at,
            author: None,
            rev,
            nonce: None,
            reply_to: self.reply_to,
        }
    }

    /// What a repeat under the same nonce must say again: SHA-256 over a flag, the message it answers, and the content.
    pub(crate) fn body_hash(&self) -> [u8; 32] {
        let mut hash = Sha256::new();
        match self.reply_to {
            Some(id) => hash.update([&[1], id.uuid().as_bytes().as_slice()].concat()),
            None => hash.update([0]),
        }
        hash.update(self.content.as_str());
        hash.finalize().into()
    }
}

impl NewGuild {
    pub(crate) fn row(self, id: Uuid) -> Guild {
        let (created_at, rev) = born(MessageId::new(id));
        Guild {
            guild_id: GuildId::new(id),
            name: self.name.into_string(),
            created_at,
            rev,
            owner_id: Some(self.owner_id),
            visibility: Some(self.visibility),
        }
    }
}

impl NewChannel {
    pub(crate) fn row(self, id: Uuid) -> Channel {
        let (created_at, rev) = born(MessageId::new(id));
        Channel {
            channel_id: ChannelId::new(id),
            guild_id: self.guild_id,
            name: self.name.into_string(),
            created_at,
            rev,
            last_message_id: None,
        }
    }
}

/// A membership whose age is not that of an id.
pub(crate) fn member(guild_id: GuildId, user_id: UserId, joined_at: Timestamp, rev: Rev) -> Member {
    Member { guild_id, user_id, username: None, joined_at, rev }
}

/// Sorts a guild's channels by when they were created: by time, then by the order of minted ids, then by any fixed order.
pub(crate) fn sort_by_creation(channels: &mut [Channel]) {
    channels.sort_by_key(|channel| {
        let id = channel.channel_id.uuid();
        (channel.created_at, MessageId::new(id).sort_key(), id)
    });
}

/// Runs code that is not ours, such as a [`Tell`](crate::Tell), so that its panic is an error of this one call.
pub(crate) fn guarded<T, E: From<Error>>(work: impl FnOnce() -> Result<T, E>) -> Result<T, E> {
    // What a panic leaves half done is undone: by the savepoint it ran in, or since nothing was changed before it.
    catch_unwind(AssertUnwindSafe(work)).unwrap_or_else(|panic| Err(Error::Internal(said(&*panic).into()).into()))
}

fn said(panic: &(dyn Any + Send)) -> String {
    let text = panic.downcast_ref::<&str>().copied().or_else(|| panic.downcast_ref::<String>().map(String::as_str));
    format!("panicked: {}", text.unwrap_or("without a text"))
}

#[cfg(test)]
mod tests {
    use jiscord_core::{
        id::{Snowflake, Worker},
        text::{Content, Name},
    };

    use super::*;

    #[test]
    fn channels_are_sorted_by_their_time_and_not_by_their_bytes() {
        let ids: Vec<_> = [(0, 0), (0, 1), (1, 0), (300_000, 0), (500_000, 0), (86_400_000, 7)]
            .into_iter()
            .map(|(ms, n)| Snowflake::new(1_795_443_456_400 + ms, n, Worker::default()).unwrap().to_uuid())
            .collect();
        assert!(!ids.is_sorted(), "the bytes have another order");
        let row = |id| NewChannel { guild_id: GuildId::new(Uuid::nil()), name: Name::new("room").unwrap() }.row(id);
        let mut channels: Vec<_> = ids.iter().rev().copied().map(row).collect();
        sort_by_creation(&mut channels);
        assert_eq!(channels.iter().map(|channel| channel.channel_id.uuid()).collect::<Vec<_>>(), ids);
    }

    #[test]
    fn a_body_hash_is_of_content_and_reply() {
        let hash = |content: &str, reply_to| {
            let id = Uuid::nil();
            let content = Content::new(content).unwrap();
            let reply_to: Option<u128> = reply_to;
            let reply_to = reply_to.map(|id| MessageId::new(Uuid::from_u128(id)));
            NewMessage { channel_id: ChannelId::new(id), author_id: UserId::new(id), content, reply_to, nonce: None }.body_hash()
        };
        let hashes = [hash("a", None), hash("b", None), hash("a", Some(1)), hash("a", Some(2)), hash("b", Some(1))];
        assert_eq!(hashes.iter().collect::<std::collections::HashSet<_>>().len(), hashes.len());
        assert_eq!(hash("a", Some(1)), hashes[2]);
        // Kept in databases: it may never change.
        assert_eq!(hashes[0][..4], SHA256_OF_0_A);
    }

    /// The first bytes of SHA-256 over a zero and an `a`.
    const SHA256_OF_0_A: [u8; 4] = [0x02, 0x2a, 0x69, 0x79];
}
