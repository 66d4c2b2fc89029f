//! Which message a nonce stands for.
//!
//! A try mints an id, claims the nonce for it, and writes the message. Who finds the nonce claimed goes on with that id: it
//! answers with the row, or writes the same row as of the same time. So however many tries there are, and however late their
//! writes land, there is one message.
//!
//! That ends when an id becomes older than L ([`Options::acknowledge_within`](super::Options::acknowledge_within)), since new
//! messages must not appear that far back. A claim that is older and has no row is *moved* to another id; its old row, which may
//! land yet, is deleted as of just after its time. What may have been seen is never moved:
//!
//! - Who wrote a message does not answer with it when its id is older than L by then.
//! - Whoever else answers with a row that is older, or publishes its event, first marks the claim, which then is not moved.
//!   First the row is read, then its age: what was there before it was older than L is seen by whoever would move it.
//! - Who would move a claim takes its age first and reads the row then; and moves it to an id that never stood in a claim.
//! - Whoever goes on with a claim that was moved deletes the old row before he writes: who moved it may be dead.
//!
//! `tests/nonce_model.rs` explores these rules and shows that none can be left out. Whoever deletes or changes a message some
//! day marks it like who answers with it, and a deleted one leaves a stub that counts in [`ScyllaStore::stored`].

use std::time::Duration;

use jiscord_core::{ChannelId, Event, MessageId, UserId, journal::Standing, model::Message, text::Nonce};
use scylla::value::CqlTimeuuid;
use uuid::Uuid;

use super::{
    ScyllaStore,
    db::{Lwt, Write},
    repositories::{TRIES, told},
    rows::timeuuid,
};
use crate::{
    draft::NONCE_KEPT_MICROS,
    error::{Error, Result, Source},
    repository::{Created, NewMessage, Tell},
};

/// By how much the clocks of two processes may differ.
const CLOCKS_DIFFER: Duration = Duration::from_secs(2);

/// How long a claim is kept, in seconds.
const KEPT: i32 = (NONCE_KEPT_MICROS / 1_000_000) as i32;

/// A mark is forgotten this much sooner than its claim: a row of nothing but a mark would be in the way of a new claim.
const MARK_ENDS_SOONER: i32 = 3_600;

/// A nonce of an author in a channel.
#[derive(Clone, Copy)]
pub(super) struct Key<'a> {
    pub(super) author: UserId,
    pub(super) channel: ChannelId,
    pub(super) nonce: &'a str,
}

impl<'a> Key<'a> {
    fn of(new: &NewMessage, nonce: &'a Nonce) -> Self {
        Self { author: new.author_id, channel: new.channel_id, nonce: nonce.as_str() }
    }

    fn values(self) -> (Uuid, Uuid, &'a str) {
        (self.author.uuid(), self.channel.uuid(), self.nonce)
    }
}

/// What a nonce stands for.
struct Claim {
    message: MessageId,
    body_hash: Vec<u8>,
    /// What it stood for before.
    replaced: Option<MessageId>,
    /// It is not moved any more.
    published: bool,
}

type ClaimRow = (Option<CqlTimeuuid>, Option<Vec<u8>>, Option<CqlTimeuuid>, Option<bool>);

/// What a repeat came to.
enum Repeat {
    Done(Created<Message>),
    /// The claim is not what it was. It was moved to this id, unless somebody else was faster.
    Again(Option<MessageId>),
}

impl ScyllaStore {
    /// Stores a message once for its nonce.
    pub(super) async fn create_once(&self, new: &NewMessage, nonce: &Nonce, tell: &Tell<Message>) -> Result<Created<Message>> {
        let key = Key::of(new, nonce);
        let mut row = new.row(MessageId::new(self.lease.mint()?));
        let mut events = told(tell, &row)?;
        for _ in 0..TRIES {
            let claim = self.claim(key, row.message_id, &new.body_hash()).await?;
            if claim.message == row.message_id {
                self.write_claimed(key, &claim, &row, &events).await?;
                return Ok(Created::new(row, events, false));
            }
            match self.repeat(key, &claim, new, tell).await {
                Ok(Repeat::Done(created)) => return Ok(created),
                Ok(Repeat::Again(None)) => {}
                Ok(Repeat::Again(Some(fresh))) => {
                    row = new.row(fresh);
                    events = told(tell, &row)?;
                }
                // Somebody asked before, and may have written it.
                Err(Error::Unavailable(source)) => return Err(Error::Unknown(source)),
                Err(error) => return Err(error),
            }
        }
        Err(Error::Unknown("others were always faster".into()))
    }

    /// What this nonce stands for: the given id, if nobody claimed it before.
    async fn claim(&self, key: Key<'_>, id: MessageId, hash: &[u8]) -> Result<Claim> {
        let (author, channel, nonce) = key.values();
        let mut last = None;
        for _ in 0..TRIES {
            let claim = (author, channel, nonce, timeuuid(id), hash, KEPT);
            match self.db.lwt(&self.db.statements.claim_nonce, claim).await {
                Ok(Lwt::Applied) => {
                    return Ok(Claim { message: id, body_hash: hash.to_vec(), replaced: None, published: false });
                }
                Ok(Lwt::Not) => {}
                Ok(Lwt::Unknown(source)) => last = Some(source),
                Err(error) => return Err(last.map_or(error, Error::Unknown)),
            }
            match self.decided(key).await {
                Ok(Some(claim)) if claim.body_hash != hash => return Err(Error::NonceReused),
                Ok(Some(claim)) => return Ok(claim),
                // It was not done, or has just expired: once more.
                Ok(None) => {}
                // Somebody asked before, and may have written it.
                Err(Error::Unavailable(source)) => return Err(Error::Unknown(source)),
                Err(error) => return Err(error),
            }
        }
        Err(Error::Unknown(last.unwrap_or_else(|| "a nonce is claimed by nobody".into())))
    }

    /// What was decided of this nonce.
    async fn decided(&self, key: Key<'_>) -> Result<Option<Claim>> {
        let row: Option<ClaimRow> = self.db.one(&self.db.statements.nonce_decided, key.values()).await?;
        // A part of it may have expired a moment before the rest.
        let Some((Some(message), Some(body_hash), replaced, published)) = row else { return Ok(None) };
        Ok(Some(Claim {
            message: MessageId::new(message.into()),
            body_hash,
            replaced: replaced.map(|id| MessageId::new(id.into())),
            published: published.unwrap_or_default(),
        }))
    }

    /// Goes on with a claim of an earlier try, or of one that is under way.
    async fn repeat(&self, key: Key<'_>, claim: &Claim, new: &NewMessage, tell: &Tell<Message>) -> Result<Repeat> {
        let id = claim.message;
        // Before the row is looked for.
        let movable = self.age(id) > self.acknowledge + CLOCKS_DIFFER;
        if let Some(row) = self.stored(key.channel, id).await? {
            // After it was found.
            let within = self.age(id) <= self.acknowledge;
            if !within && !claim.published && !self.mark(key, id).await? {
                return Ok(Repeat::Again(None));
            }
            let events = told(tell, &row)?;
            return Ok(Repeat::Done(Created::new(row, events, true)));
        }
        if claim.published {
            // It was there and is gone: it stays gone, and its id is said once more. The hash says what it was.
            return Ok(Repeat::Done(Created::new(new.row(id), Vec::new(), true)));
        }
        if !movable {
            // The same rows with the same time.
            let row = new.row(id);
            let events = told(tell, &row)?;
            self.write_claimed(key, claim, &row, &events).await?;
            return Ok(Repeat::Done(Created::new(row, events, true)));
        }
        if let Some(before) = claim.replaced {
            // Only the last one is kept in a claim.
            self.fence(key.channel, before).await?;
        }
        // One that no other try can have found in a claim.
        let fresh = MessageId::new(self.lease.mint()?);
        let (author, channel, nonce) = key.values();
        let moved = (KEPT, timeuuid(fresh), &*claim.body_hash, timeuuid(id), author, channel, nonce, timeuuid(id));
        // Whatever came of it is read next.
        self.db.lwt(&self.db.statements.move_nonce, moved).await?;
        Ok(Repeat::Again(Some(fresh)))
    }

    /// Writes the message that a nonce stands for, or what it would be if it had not been moved: that stays deleted.
    async fn write_claimed(&self, key: Key<'_>, claim: &Claim, row: &Message, events: &[Event]) -> Result<()> {
        if let Some(before) = claim.replaced {
            self.fence(key.channel, before).await?;
        }
        self.write_message(row, events, Some(key)).await
    }

    /// Deletes a message that a claim was moved away from, as of just after it was written: it is not seen any more, and a write
    /// of it that lands later, from hints or a replayed batch, changes nothing.
    async fn fence(&self, channel: ChannelId, id: MessageId) -> Result<()> {
        let mut write = Write::default();
        write.add(&self.db.statements.delete_message, (channel.uuid(), timeuuid(id)));
        self.db.write(id.micros().unwrap_or_default() + 1, write).await
    }

    /// Sees to it that the nonce stands for this message for ever. Not so, if it stands for another by now.
    async fn mark(&self, key: Key<'_>, id: MessageId) -> Result<bool> {
        let (author, channel, nonce) = key.values();
        let age = i32::try_from(self.age(id).as_secs()).unwrap_or(i32::MAX);
        let ttl = KEPT.saturating_sub(MARK_ENDS_SOONER).saturating_sub(age).max(1);
        let mut last: Option<Source> = None;
        for _ in 0..TRIES {
            let mark = (ttl, author, channel, nonce, timeuuid(id));
            match self.db.lwt(&self.db.statements.publish_nonce, mark).await? {
                Lwt::Applied => return Ok(true),
                Lwt::Not => {}
                Lwt::Unknown(source) => last = Some(source),
            }
            match self.decided(key).await? {
                Some(claim) if claim.message != id => return Ok(false),
                Some(claim) if claim.published => return Ok(true),
                // It was not done: once more.
                Some(_) => {}
                // Forgotten by age. Nobody moves it any more.
                None => return Ok(true),
            }
        }
        Err(Error::Unknown(last.unwrap_or_else(|| "a claim is not marked".into())))
    }

    /// Whether an event may be published by somebody else than whoever wrote it.
    pub(super) async fn standing(&self, event: &Event) -> Result<Standing> {
        let Some((author, channel, nonce, id)) = self.nonce_of(event).await? else {
            // Nothing that a nonce stands for: it is not moved.
            return Ok(Standing::Stays);
        };
        let (channel, id) = (ChannelId::new(channel), MessageId::new(id.into()));
        let key = Key { author: UserId::new(author), channel, nonce: &nonce };
        let is_there = self.stored(channel, id).await?.is_some();
        // After it was found.
        let within = self.age(id) <= self.acknowledge;
        if is_there && (within || self.mark(key, id).await?) {
            return Ok(Standing::Stays);
        }
        match self.decided(key).await? {
            Some(claim) if claim.message != id => {
                // Who moved it may have died before.
                self.fence(channel, id).await?;
                Ok(Standing::Gone)
            }
            // It was there, since it is marked.
            Some(claim) if claim.published => Ok(Standing::Gone),
            _ => Ok(Standing::NotYet),
        }
    }

    /// The row of a message, if it was stored: the one place that says so.
    async fn stored(&self, channel: ChannelId, id: MessageId) -> Result<Option<Message>> {
        self.message(channel, id).await
    }

    /// How long ago an id was minted, by this process's clock.
    pub(super) fn age(&self, id: MessageId) -> Duration {
        Duration::from_micros(self.clock.now_micros().saturating_sub(id.micros().unwrap_or_default()))
    }
}
