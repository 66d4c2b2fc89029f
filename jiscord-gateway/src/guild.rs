//! A guild as its gateway knows it: who of its members is here, and which channels they hear.

use std::{hash::Hash, sync::Arc, time::Duration};

use jiscord_core::{
    ChannelId, UserId,
    backend::GuildState,
    model::{Channel, Guild, Rev},
};
use tokio::time::Instant;

use crate::{chance::HashMap, dispatch::Key};

/// How long a removed row leaves its `rev` behind: longer than an event can be late.
const REMEMBERED: Duration = Duration::from_secs(15 * 60);

/// Rows by key, of which the higher `rev` wins, in whatever order changes come. A removal is a change too.
#[derive(Debug)]
pub(crate) struct Revved<K, V> {
    rows: HashMap<K, (Rev, Result<V, Instant>)>,
    gone: usize,
}

impl<K, V> Default for Revved<K, V> {
    fn default() -> Self {
        Self { rows: HashMap::default(), gone: 0 }
    }
}

impl<K: Copy + Eq + Hash, V> Revved<K, V> {
    /// Sets a row; false if a version at least as new was known.
    pub(crate) fn put(&mut self, key: K, rev: Rev, value: V) -> bool {
        self.change(key, rev, Ok(value))
    }

    /// Removes a row, and remembers that; false if a version at least as new was known.
    pub(crate) fn remove(&mut self, key: K, rev: Rev) -> bool {
        self.forget();
        self.change(key, rev, Err(Instant::now()))
    }

    pub(crate) fn get(&self, key: K) -> Option<&V> {
        self.rows.get(&key)?.1.as_ref().ok()
    }

    /// The rows that are there, each with its `rev`.
    pub(crate) fn iter(&self) -> impl Iterator<Item = (K, Rev, &V)> {
        self.rows.iter().filter_map(|(key, (rev, value))| Some((*key, *rev, value.as_ref().ok()?)))
    }

    /// Whether a row is known to be removed.
    pub(crate) fn is_gone(&self, key: K) -> bool {
        self.rows.get(&key).is_some_and(|row| row.1.is_err())
    }

    pub(crate) fn values(&self) -> impl Iterator<Item = &V> {
        self.rows.values().filter_map(|row| row.1.as_ref().ok())
    }

    fn change(&mut self, key: K, rev: Rev, value: Result<V, Instant>) -> bool {
        if self.rows.get(&key).is_some_and(|(known, _)| *known >= rev) {
            return false;
        }
        self.gone += usize::from(value.is_err());
        if let Some((_, Err(_))) = self.rows.insert(key, (rev, value)) {
            self.gone -= 1;
        }
        true
    }

    fn forget(&mut self) {
        // Looking through all of them is worth it only when many are gone.
        if self.gone > 64 && self.gone > self.rows.len() / 2 {
            self.rows.retain(|_, (_, value)| value.as_ref().err().is_none_or(|at| at.elapsed() < REMEMBERED));
            self.gone = self.rows.values().filter(|row| row.1.is_err()).count();
        }
    }
}

/// A guild with a session here.
pub(crate) struct GuildObject {
    guild: Guild,
    channels: Revved<ChannelId, Channel>,
    /// Members with a session here.
    members: Revved<UserId, ()>,
    sessions: HashMap<Key, UserId>,
    /// The sessions by dispatcher; made when first asked for after a change.
    audience: Option<Vec<Arc<[Key]>>>,
}

impl GuildObject {
    pub(crate) fn new(state: GuildState) -> Self {
        let mut channels = Revved::default();
        for channel in state.channels {
            channels.put(channel.channel_id, channel.rev, channel);
        }
        Self { guild: state.guild, channels, members: Revved::default(), sessions: HashMap::default(), audience: None }
    }

    pub(crate) fn guild(&self) -> &Guild {
        &self.guild
    }

    /// The channels that a member sees, in the order of their creation.
    pub(crate) fn channels(&self) -> Vec<Channel> {
        let mut channels: Vec<_> = self.channels.values().cloned().collect();
        channels.sort_by_key(|channel| (channel.created_at, channel.channel_id));
        channels
    }

    pub(crate) fn put_channel(&mut self, channel: Channel) {
        self.channels.put(channel.channel_id, channel.rev, channel);
    }

    pub(crate) fn remove_channel(&mut self, channel: ChannelId, rev: Rev) {
        self.channels.remove(channel, rev);
    }

    /// The members with a session here, and since which change.
    pub(crate) fn members(&self) -> impl Iterator<Item = (UserId, Rev)> {
        self.members.iter().map(|(user, rev, ())| (user, rev))
    }

    /// A user is a member as of `rev`; false if something newer is known.
    pub(crate) fn join(&mut self, user: UserId, rev: Rev) -> bool {
        self.members.put(user, rev, ()) || self.members.get(user).is_some()
    }

    /// A user is no member any more as of `rev`; false if something newer is known. Its sessions hear nothing from here on.
    pub(crate) fn leave(&mut self, user: UserId, rev: Rev) -> bool {
        if !self.members.remove(user, rev) && self.members.get(user).is_some() {
            return false;
        }
        self.sessions.retain(|_, of| *of != user);
        self.audience = None;
        true
    }

    /// A member's session begins to hear.
    pub(crate) fn add(&mut self, key: Key, user: UserId) {
        self.sessions.insert(key, user);
        self.audience = None;
    }

    /// A session is gone; true if it was the last.
    pub(crate) fn remove(&mut self, key: Key) -> bool {
        if self.sessions.remove(&key).is_some() {
            self.audience = None;
        }
        self.sessions.is_empty()
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.sessions.is_empty()
    }

    /// Whether a user's session may hear a channel, and write that it types there.
    pub(crate) fn sees(&self, key: Key, channel: ChannelId) -> bool {
        self.sessions.contains_key(&key) && self.channels.get(channel).is_some()
    }

    /// Who hears an event of a channel, or of the guild itself, by dispatcher. All members read all channels, so they have
    /// one audience; it is computed when somebody comes or goes, not for each message.
    pub(crate) fn audience(&mut self, channel: Option<ChannelId>, dispatchers: usize) -> &[Arc<[Key]>] {
        // One that is not known yet is heard too: what tells of its creation may be late.
        if channel.is_some_and(|channel| self.channels.is_gone(channel)) {
            return &[];
        }
        self.audience.get_or_insert_with(|| by_dispatcher(self.sessions.keys().copied(), dispatchers))
    }
}

/// Sorts sockets to their dispatchers.
pub(crate) fn by_dispatcher(keys: impl Iterator<Item = Key>, dispatchers: usize) -> Vec<Arc<[Key]>> {
    let mut sorted = vec![Vec::new(); dispatchers];
    for key in keys {
        sorted[(key % dispatchers as u64) as usize].push(key);
    }
    sorted.into_iter().map(Into::into).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn the_higher_rev_wins_in_any_order() {
        let mut rows = Revved::default();
        assert!(rows.put(1, 10, "a"));
        assert!(!rows.put(1, 9, "late"));
        assert!(!rows.put(1, 10, "again"));
        assert!(rows.remove(1, 12));
        assert!(!rows.put(1, 11, "an edit that comes after the removal"));
        assert_eq!(rows.get(1), None);
        assert!(rows.put(1, 13, "b"));
        assert_eq!(rows.get(1), Some(&"b"));
        assert!(rows.remove(2, 5), "a removal may come before what it removes");
        assert!(!rows.put(2, 4, "late"));
        assert_eq!(rows.values().count(), 1);
    }

    #[tokio::test(start_paused = true)]
    async fn removals_are_forgotten_only_when_nothing_can_be_late() {
        let mut rows = Revved::<u32, ()>::default();
        for key in 0..100 {
            rows.remove(key, 5);
        }
        assert!(!rows.put(0, 4, ()));
        tokio::time::advance(REMEMBERED).await;
        rows.remove(100, 5);
        assert_eq!(rows.rows.len(), 1);
        assert_eq!(rows.gone, 1);
    }
}
