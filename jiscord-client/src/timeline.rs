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

    /// Whether it has to be read.
    pub(crate) fn is_unread(&self) -> bool {
        self.is_reading
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

#[cfg(test)]
pub(crate) mod tests {
    use std::collections::VecDeque;

    use jiscord_core::{
        Timestamp,
        id::{SNOWFLAKE_EPOCH_MS, Snowflake, Worker},
    };
    use proptest::prelude::*;

    use super::*;

    pub(crate) fn channel(number: u32) -> ChannelId {
        format!("{number:08x}-e748-11f1-8000-010000000000").parse().unwrap()
    }

    pub(crate) fn message_id(number: u64) -> MessageId {
        Snowflake::new(SNOWFLAKE_EPOCH_MS + number, 0, Worker::default()).unwrap().into()
    }

    /// A message of channel 1.
    pub(crate) fn message(number: u64) -> Message {
        Message {
            message_id: message_id(number),
            channel_id: channel(1),
            author_id: "a00c0580-e748-11f1-8000-010000000000".parse().unwrap(),
            content: number.to_string(),
            created_at: Timestamp::from_ms(0),
            author: None,
            rev: 1,
            nonce: None,
            reply_to: None,
        }
    }

    fn messages(numbers: impl IntoIterator<Item = u64>) -> Vec<Message> {
        numbers.into_iter().map(message).collect()
    }

    fn shown(room: &Room) -> Vec<&str> {
        room.shown.messages.iter().map(|message| message.content.as_str()).collect()
    }

    fn loaded(numbers: impl IntoIterator<Item = u64>, has_older: bool) -> Room {
        let mut room = Room::new(channel(1));
        room.read_newest(messages(numbers), has_older);
        room
    }

    fn splice(at: usize, remove: usize, numbers: impl IntoIterator<Item = u64>) -> Splice {
        Splice { at, remove, insert: messages(numbers) }
    }

    #[test]
    fn pages_and_events_are_one_list_in_order() {
        let mut room = Room::new(channel(1));
        assert_eq!(room.hear(&message(6)), [], "nothing is shown before it was read");
        assert_eq!(room.read_newest(messages([5, 4, 3]), true), [splice(0, 0, [3, 4, 5, 6])]);
        assert_eq!(room.hear(&message(9)), [splice(4, 0, [9])]);
        assert_eq!(room.hear(&message(8)), [splice(4, 0, [8])], "one that comes late");
        assert_eq!(room.hear(&message(8)), [], "one that comes twice");
        assert_eq!(room.begin_older(), Some(message_id(3)));
        assert_eq!(room.begin_older(), None, "once at a time");
        assert_eq!(room.read_older(message_id(3), messages([2, 1]), false), [splice(0, 0, [1, 2])]);
        assert_eq!(room.begin_older(), None, "there are none");
        assert_eq!(shown(&room), ["1", "2", "3", "4", "5", "6", "8", "9"]);
    }

    #[test]
    fn only_a_newer_version_takes_a_message_s_place() {
        let mut room = loaded([1, 2], false);
        for (rev, content, want) in [(1, "the same", "2"), (0, "older", "2"), (3, "newer", "newer"), (2, "between", "newer")] {
            let version = Message { rev, content: content.into(), ..message(2) };
            let splices = room.hear(&version);
            assert_eq!(shown(&room), ["1", want]);
            assert_eq!(splices.len(), usize::from(content == want), "{content}");
        }
        room.begin();
        // Of two versions in one read, too.
        let versions = [5, 9, 7].map(|rev| Message { rev, content: rev.to_string(), ..message(2) });
        room.hear(&versions[0]);
        assert_eq!(room.read_missed(versions.to_vec()), [Splice { at: 1, remove: 1, insert: vec![versions[1].clone()] }]);
    }

    #[test]
    fn what_is_older_than_what_is_shown_waits_for_its_page() {
        let mut room = loaded([8, 9], true);
        assert_eq!(room.hear(&message(5)), [], "it will be read");
        room.begin_older();
        // After the server has read the page, and before the page is here.
        assert_eq!(room.hear(&message(6)), []);
        assert_eq!(room.hear(&message(2)), []);
        assert_eq!(room.read_older(message_id(8), messages([4, 5, 7]), true), [splice(0, 0, [4, 5, 6, 7])]);
        assert_eq!(shown(&room), ["4", "5", "6", "7", "8", "9"], "2 is older than the page");
    }

    #[test]
    fn a_page_that_does_not_fit_any_more_is_left() {
        let mut room = loaded([8, 9], true);
        room.begin_older();
        room.begin();
        room.read_newest(messages([20, 21]), true);
        assert_eq!(room.read_older(message_id(8), messages([6, 7]), true), []);
        assert_eq!(shown(&room), ["20", "21"]);
        assert_eq!(room.begin_older(), Some(message_id(20)), "the next one can be read");
        room.end_older();
        assert_eq!(room.read_older(message_id(20), messages([19]), true), [], "nobody waits for it");
    }

    #[test]
    fn what_happens_during_a_read_is_shown_behind_it() {
        let mut room = loaded([1, 2], false);
        assert_eq!(room.begin(), Some(message_id(2)));
        assert_eq!(room.hear(&message(9)), []);
        assert_eq!(room.read_missed(messages([2, 5, 7])), [splice(2, 0, [5, 7, 9])]);
        // And if that was too much, from the newest page on.
        room.begin();
        room.hear(&message(30));
        assert_eq!(room.read_newest(messages([28, 29]), true), [splice(0, 5, []), splice(0, 0, [28, 29, 30])]);
    }

    #[test]
    fn another_channel_s_messages_are_not_taken_in() {
        let mut room = loaded([], false);
        assert_eq!(room.hear(&Message { channel_id: channel(2), ..message(1) }), []);
        let unordered = "0f8fad5b-d9cb-469f-a165-70867728950e".parse().unwrap();
        assert_eq!(room.hear(&Message { message_id: unordered, ..message(1) }), []);
    }

    #[test]
    fn the_oldest_are_let_go_of() {
        let most = MESSAGES as u64;
        let mut room = loaded(1..=most, false);
        assert_eq!(room.hear(&message(most + 1)), [splice(most as usize, 0, [most + 1]), splice(0, SURPLUS + 1, [])]);
        assert_eq!(room.shown.messages.len(), MESSAGES - SURPLUS);
        assert!(room.shown.has_older);
        assert_eq!(room.begin_older(), Some(message_id(SURPLUS as u64 + 2)));
    }

    #[test]
    fn too_much_at_once_is_a_new_beginning() {
        let mut room = loaded([1, 2], false);
        room.begin();
        let most = 100 + ASIDE as u64;
        for number in 100..most + 10 {
            room.hear(&message(number));
        }
        assert!(room.aside.len() <= ASIDE);
        room.read_missed(messages([2, 50]));
        assert!(room.shown.has_older);
        assert_eq!(room.shown.messages.len(), ASIDE);
        assert_eq!(room.shown.messages[0].message_id, message_id(110));
    }

    /// What may happen, in any order.
    #[derive(Clone, Copy, Debug)]
    enum Step {
        /// A message is stored whose id is so much behind the newest one.
        Write {
            late: u64,
        },
        /// The next event arrives.
        Tell,
        /// The connection is cut: what was on its way is lost.
        Cut,
        /// The server reads the page that was asked for.
        Read,
        /// The page arrives.
        Arrive,
        /// Somebody wants older ones.
        Older,
        ReadOlder,
        ArriveOlder,
    }

    fn steps() -> impl Strategy<Value = Vec<Step>> {
        let step = prop_oneof![
            6 => (0..4_u64).prop_map(|late| Step::Write { late }),
            4 => Just(Step::Tell),
            1 => Just(Step::Cut),
            2 => Just(Step::Read),
            2 => Just(Step::Arrive),
            2 => Just(Step::Older),
            2 => Just(Step::ReadOlder),
            2 => Just(Step::ArriveOlder),
        ];
        proptest::collection::vec(step, 0..150)
    }

    /// A page of messages, and whether there are older ones.
    type Page = (Vec<Message>, bool);

    /// A server, a connection, and what a page has made of the splices.
    #[derive(Default)]
    struct World {
        stored: BTreeMap<u64, Message>,
        newest: u64,
        on_the_way: VecDeque<Message>,
        /// The read that is under way: from where on, and its page.
        read: Option<(Option<u64>, Option<Vec<Message>>)>,
        older: Option<(MessageId, Option<Page>)>,
        copy: Vec<Message>,
    }

    /// Small, so that there are many pages.
    const PAGE: usize = 3;
    /// More than a message is late.
    const OVERLAP: u64 = 6;

    impl World {
        fn apply(&mut self, splices: Vec<Splice>) {
            for Splice { at, remove, insert } in splices {
                self.copy.splice(at..at + remove, insert);
            }
        }

        fn begin(&mut self, room: &mut Room) {
            let last = room.begin();
            let last = last.and_then(|last| self.stored.iter().find(|(_, message)| message.message_id == last));
            self.read = Some((last.map(|(number, _)| number.saturating_sub(OVERLAP)), None));
        }

        fn step(&mut self, room: &mut Room, step: Step) {
            match step {
                Step::Write { late } => {
                    let number = (self.newest + 2).saturating_sub(late);
                    if let std::collections::btree_map::Entry::Vacant(place) = self.stored.entry(number) {
                        place.insert(message(number));
                        self.newest = self.newest.max(number);
                        self.on_the_way.push_back(message(number));
                    }
                }
                Step::Tell => {
                    if let Some(message) = self.on_the_way.pop_front() {
                        let splices = room.hear(&message);
                        self.apply(splices);
                    }
                }
                Step::Cut => {
                    self.on_the_way.clear();
                    self.begin(room);
                }
                Step::Read => {
                    if let Some((from, page @ None)) = &mut self.read {
                        *page = Some(match from {
                            Some(from) => self.stored.range(*from + 1..).map(|(_, message)| message.clone()).collect(),
                            None => self.stored.values().rev().take(PAGE).cloned().collect(),
                        });
                    }
                }
                Step::Arrive => match self.read.take() {
                    Some((None, Some(page))) => {
                        let oldest = page.last().map_or(0, |oldest| oldest.content.parse().unwrap());
                        let has_older = self.stored.range(..oldest).next().is_some();
                        let splices = room.read_newest(page, has_older);
                        self.apply(splices);
                    }
                    Some((Some(_), Some(page))) => {
                        let splices = room.read_missed(page);
                        self.apply(splices);
                    }
                    other => self.read = other,
                },
                Step::Older => {
                    if let Some(before) = room.begin_older() {
                        self.older = Some((before, None));
                    }
                }
                Step::ReadOlder => {
                    if let Some((before, page @ None)) = &mut self.older {
                        let older = self.stored.values().rev().filter(|message| key(message) < before.sort_key());
                        let mut older: Vec<_> = older.take(PAGE + 1).cloned().collect();
                        let has_older = older.len() > PAGE;
                        older.truncate(PAGE);
                        *page = Some((older, has_older));
                    }
                }
                Step::ArriveOlder => match self.older.take() {
                    Some((before, Some((page, has_older)))) => {
                        let splices = room.read_older(before, page, has_older);
                        self.apply(splices);
                    }
                    other => self.older = other,
                },
            }
            assert_eq!(self.copy, room.shown.messages, "the splices add up, after {step:?}");
        }
    }

    proptest! {
        #[test]
        fn none_is_missing_and_none_is_twice(steps in steps()) {
            // Far from the first id that there can be, so that there is always one before it.
            let (mut world, mut room) = (World { newest: 100, ..World::default() }, Room::new(channel(1)));
            world.begin(&mut room);
            for step in steps {
                world.step(&mut room, step);
            }
            // All that is on its way arrives.
            let rest = [Step::Read, Step::Arrive, Step::ReadOlder, Step::ArriveOlder];
            let told = vec![Step::Tell; world.on_the_way.len()];
            for step in told.into_iter().chain(rest) {
                world.step(&mut room, step);
            }
            let first = room.shown.messages.first().map_or([0; 16], key);
            let want: Vec<_> = world.stored.values().filter(|message| !room.shown.has_older || key(message) >= first).cloned().collect();
            prop_assert_eq!(&room.shown.messages, &want);
        }
    }
}
