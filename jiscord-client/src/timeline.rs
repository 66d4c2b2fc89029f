//! The messages of one open channel, from the oldest that was loaded up to now, none missing between two of them.

use std::collections::BTreeMap;

use jiscord_core::{ChannelId, MessageId, model::Message};

/// Above so many messages it lets go of its oldest.
const MESSAGES: usize = 20_000;
/// How many it lets go of at once, so that not every message costs a move of all.
const SURPLUS: usize = 1_000;
/// The most messages that wait for a read to end.
const ASIDE: usize = 5_000;

/// A step from one list of messages to the next: from `at` on, `remove` of them go, and `insert` come in their place.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Splice {
    /// Where.
    pub at: usize,
    /// How many go.
    pub remove: usize,
    /// What comes, oldest first.
    pub insert: Vec<Message>,
}

/// What is loaded of a channel.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Timeline {
    /// Oldest first, none missing between two of them, up to now.
    pub messages: Vec<Message>,
    /// Whether there are older ones to load.
    pub has_older: bool,
    /// Whether the newest were loaded yet.
    pub loaded: bool,
}

type Key = [u8; 16];

fn key(message: &Message) -> Key {
    message.message_id.sort_key()
}

/// An open channel.
pub(crate) struct Room {
    channel: ChannelId,
    shown: Timeline,
    /// It is being read for the first time, or again from where it is known on: what happens is put aside until that is
    /// done, so that nothing is shown behind a gap.
    is_reading: bool,
    /// The page before this message is being read.
    older: Option<MessageId>,
    aside: BTreeMap<Key, Message>,
    /// So much had to be put aside that what lies before this is not known any more.
    floor: Option<Key>,
}

impl Room {
    pub(crate) fn new(channel: ChannelId) -> Self {
        let (shown, aside) = (Timeline::default(), BTreeMap::new());
        Self { channel, shown, is_reading: true, older: None, aside, floor: None }
    }

    pub(crate) fn shown(&self) -> &Timeline {
        &self.shown
    }

    /// A message was written, or its event came once more.
    pub(crate) fn hear(&mut self, message: &Message) -> Vec<Splice> {
        let is_older = self.shown.has_older && self.shown.messages.first().is_some_and(|first| key(message) < key(first));
        if self.is_reading || is_older && self.older.is_some() {
            self.put_aside(message);
            return Vec::new();
        }
        if is_older {
            // It is read when the user gets there.
            return Vec::new();
        }
        let mut splices = self.insert([message.clone()]);
        splices.extend(self.trim());
        splices
    }

    /// Before it is read. Returns the last message that is known.
    pub(crate) fn begin(&mut self) -> Option<MessageId> {
        self.is_reading = true;
        self.shown.messages.last().map(|last| last.message_id)
    }

    /// The newest messages, in any order. What was shown before is let go of.
    pub(crate) fn read_newest(&mut self, messages: Vec<Message>, has_older: bool) -> Vec<Splice> {
        let mut splices: Vec<_> = self.remove_first(self.shown.messages.len()).into_iter().collect();
        (self.shown.has_older, self.shown.loaded, self.is_reading) = (has_older, true, false);
        let edge = messages.iter().map(key).min();
        splices.extend(self.merge(messages, edge));
        splices.extend(self.trim());
        splices
    }

    /// All that was written from before the last known message on.
    pub(crate) fn read_missed(&mut self, messages: Vec<Message>) -> Vec<Splice> {
        self.is_reading = false;
        let edge = self.shown.messages.first().map(key);
        let mut splices = self.merge(messages, edge);
        splices.extend(self.trim());
        splices
    }

    /// Before the page right before the oldest message is read.
    pub(crate) fn begin_older(&mut self) -> Option<MessageId> {
        if !self.shown.has_older || self.older.is_some() {
            return None;
        }
        self.older = self.shown.messages.first().map(|first| first.message_id);
        self.older
    }

    /// Whether a page of older messages is being read.
    pub(crate) fn is_loading_older(&self) -> bool {
        self.older.is_some()
    }

    /// No page came.
    pub(crate) fn end_older(&mut self) {
        self.older = None;
    }

    /// The page right before a message. If that is not the oldest any more, the page does not fit.
    pub(crate) fn read_older(&mut self, before: MessageId, messages: Vec<Message>, has_older: bool) -> Vec<Splice> {
        if self.older != Some(before) {
            return Vec::new();
        }
        self.older = None;
        if self.shown.messages.first().is_none_or(|first| first.message_id != before) {
            return Vec::new();
        }
        self.shown.has_older = has_older;
        let edge = messages.iter().map(key).min();
        match self.is_reading {
            true => self.insert(messages),
            false => self.merge(messages, edge),
        }
    }

    fn put_aside(&mut self, message: &Message) {
        let key = key(message);
        if self.floor.is_some_and(|floor| key < floor) {
            return;
        }
        let held = self.aside.entry(key).or_insert_with(|| message.clone());
        if message.rev > held.rev {
            held.clone_from(message);
        }
        if self.aside.len() > ASIDE {
            self.aside.pop_first();
            self.floor = self.aside.first_key_value().map(|(key, _)| *key);
        }
    }

    /// Takes in what was read and what was put aside, but nothing before `edge` where that is still to be loaded.
    fn merge(&mut self, messages: Vec<Message>, edge: Option<Key>) -> Vec<Splice> {
        let mut splices = Vec::new();
        let mut edge = edge.filter(|_| self.shown.has_older);
        let aside = std::mem::take(&mut self.aside);
        if let Some(floor) = self.floor.take() {
            let first = self.shown.messages.partition_point(|message| key(message) < floor);
            splices.extend(self.remove_first(first));
            if edge.is_none_or(|edge| edge < floor) {
                (edge, self.shown.has_older) = (Some(floor), true);
            }
        }
        let incoming = messages.into_iter().chain(aside.into_values());
        splices.extend(self.insert(incoming.filter(|message| edge.is_none_or(|edge| key(message) >= edge))));
        splices
    }

    /// Puts messages where they belong. One that is there stays, unless this is a newer version.
    fn insert(&mut self, messages: impl IntoIterator<Item = Message>) -> Vec<Splice> {
        let is_ours = |message: &Message| message.channel_id == self.channel && message.message_id.is_ordered();
        let mut messages: Vec<_> = messages.into_iter().filter(is_ours).collect();
        // Of two versions the newer one comes first, and stays.
        messages.sort_by_key(|message| (key(message), u64::MAX - message.rev));
        messages.dedup_by_key(|message| message.message_id);
        let (held, mut splices, mut at) = (&mut self.shown.messages, Vec::new(), 0);
        let mut messages = messages.into_iter().peekable();
        while let Some(message) = messages.next() {
            at += held[at..].partition_point(|held| key(held) < key(&message));
            if let Some(same) = held.get_mut(at).filter(|held| held.message_id == message.message_id) {
                if message.rev > same.rev {
                    same.clone_from(&message);
                    splices.push(Splice { at, remove: 1, insert: vec![message] });
                }
                at += 1;
                continue;
            }
            let end = held.get(at).map(key);
            let mut run = vec![message];
            while let Some(message) = messages.next_if(|message| end.is_none_or(|end| key(message) < end)) {
                run.push(message);
            }
            held.splice(at..at, run.iter().cloned());
            let count = run.len();
            splices.push(Splice { at, remove: 0, insert: run });
            at += count;
        }
        splices
    }

    /// Lets go of the oldest where there are too many.
    fn trim(&mut self) -> Option<Splice> {
        let count = self.shown.messages.len();
        if count <= MESSAGES {
            return None;
        }
        self.shown.has_older = true;
        self.remove_first(count - (MESSAGES - SURPLUS))
    }

    fn remove_first(&mut self, remove: usize) -> Option<Splice> {
        self.shown.messages.drain(..remove);
        (remove > 0).then(|| Splice { at: 0, remove, insert: Vec::new() })
    }
}
