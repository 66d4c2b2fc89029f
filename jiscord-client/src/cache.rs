//! What is known of the user's guilds, their channels, people's names, and the channels that are open: only state, no I/O.
//!
//! It is fed by the events of a session and by what was read over HTTP meanwhile, in whatever order the two arrive. Of two
//! versions of a row the higher `rev` holds, and a removed row leaves its `rev` behind for a while, so a page that was read
//! late undoes nothing. Each update returns the changes it made.

use std::{
    collections::{HashMap, HashSet},
    time::Duration,
};

use jiscord_core::{
    ChannelId, GuildId, MessageId, UserId,
    frame::{ChannelDelete, GuildCreate, Typing},
    model::{Channel, Guild, Message, Rev},
};

use crate::{
    error::Error,
    event::Event,
    http::Page,
    sys::Instant,
    timeline::{Room, Splice, Timeline},
};

/// How long a removed channel's `rev` is kept: longer than an event can be late.
const GRAVE: Duration = Duration::from_secs(15 * 60);
/// The most removed channels that are remembered.
const GRAVES: usize = 10_000;
/// The most names that are remembered.
const NAMES: usize = 10_000;

/// What a [`View`](crate::View) shows has changed.
#[derive(Debug)]
#[non_exhaustive]
pub enum Change {
    /// The session's state is another one.
    Connection(Connection),
    /// The list of guilds.
    Guilds,
    /// A guild's list of channels.
    Channels(GuildId),
    /// An open channel's messages.
    Messages {
        /// The channel.
        channel: ChannelId,
        /// What to do to a list that was up to date until now, in this order.
        splices: Vec<Splice>,
        /// Whether there are older ones to load.
        has_older: bool,
    },
    /// A message was written in a channel, open or not. Told once for each message that arrives by the connection.
    Activity {
        /// The channel.
        channel: ChannelId,
        /// The message.
        message: MessageId,
        /// Who wrote it.
        author: UserId,
    },
    /// Somebody types, perhaps this user.
    Typing(Typing),
    /// A command that nobody waits for failed, such as typing in a channel that is not there; or an event was not understood.
    Failed(Error),
}

/// How a session is.
#[derive(Debug)]
#[non_exhaustive]
pub enum Connection {
    /// It is being made, for the first time or again.
    Connecting,
    /// It lives, and what is shown is kept up to date.
    Ready,
    /// It is lost, and will be tried again after so long.
    Waiting(Duration),
    /// It is over and does not come back by itself: [`Error::Unauthorized`](Error::Unauthorized),
    /// [`Error::Evicted`](Error::Evicted), or [`Error::Closed`](Error::Closed) when it was ended here.
    Ended(Error),
}

/// All of it.
#[derive(Default)]
pub(crate) struct Cache {
    guilds: HashMap<GuildId, Guild>,
    /// What events said of guilds while the list is being read.
    guilds_told: Option<HashSet<GuildId>>,
    lists: HashMap<GuildId, Channels>,
    graves: HashMap<ChannelId, (Rev, Instant)>,
    names: HashMap<UserId, String>,
    rooms: HashMap<ChannelId, Room>,
}

/// A guild's channels, from when somebody asked for them.
#[derive(Default)]
struct Channels {
    rows: HashMap<ChannelId, Channel>,
    /// What events said while the list is being read.
    told: Option<HashSet<ChannelId>>,
}

fn latest(a: Option<MessageId>, b: Option<MessageId>) -> Option<MessageId> {
    a.into_iter().chain(b).max_by_key(|id| id.sort_key())
}

impl Cache {
    /// Sorted by name.
    pub(crate) fn guilds(&self) -> Vec<Guild> {
        let mut guilds: Vec<_> = self.guilds.values().cloned().collect();
        guilds.sort_by_cached_key(|guild| (guild.name.to_lowercase(), guild.guild_id));
        guilds
    }

    /// In the order of their creation; `None` if nobody asked for them yet.
    pub(crate) fn channels(&self, guild: GuildId) -> Option<Vec<Channel>> {
        let mut channels: Vec<_> = self.lists.get(&guild)?.rows.values().cloned().collect();
        channels.sort_by_key(|channel| (channel.created_at, channel.channel_id));
        Some(channels)
    }

    /// The guilds whose channels somebody asked for.
    pub(crate) fn listed(&self) -> Vec<GuildId> {
        self.lists.keys().copied().collect()
    }

    /// Those of them whose channels are not read yet, or have to be read again.
    pub(crate) fn unread_lists(&self) -> Vec<GuildId> {
        self.lists.iter().filter(|(_, list)| list.told.is_some()).map(|(guild, _)| *guild).collect()
    }

    pub(crate) fn name(&self, user: UserId) -> Option<&str> {
        self.names.get(&user).map(String::as_str)
    }

    pub(crate) fn timeline(&self, channel: ChannelId) -> Option<&Timeline> {
        self.rooms.get(&channel).map(Room::shown)
    }

    pub(crate) fn open_channels(&self) -> Vec<ChannelId> {
        self.rooms.keys().copied().collect()
    }

    /// Those that are not read yet, or have to be read again.
    pub(crate) fn unread_channels(&self) -> Vec<ChannelId> {
        self.rooms.iter().filter(|(_, room)| room.is_unread()).map(|(channel, _)| *channel).collect()
    }

    /// Remembers a name.
    pub(crate) fn call(&mut self, user: UserId, name: &str) {
        if self.names.len() >= NAMES && !self.names.contains_key(&user) {
            // Those that are needed are soon learnt again.
            self.names.clear();
        }
        if self.names.get(&user).is_none_or(|known| known != name) {
            self.names.insert(user, name.to_owned());
        }
    }

    /// Takes in what happened.
    pub(crate) fn apply(&mut self, event: &Event, now: Instant) -> Vec<Change> {
        match event {
            Event::Ready(ready) => {
                self.call(ready.user_id, &ready.user.username);
                // Everything that is known is as old as the session before.
                self.guilds_told = Some(HashSet::new());
                self.read_guilds(ready.guilds.clone())
            }
            Event::GuildCreate(GuildCreate { guild, channels }) => self.put_guild(guild.clone(), channels.clone()),
            Event::GuildDelete(gone) => self.drop_guild(gone.guild_id),
            Event::ChannelCreate(channel) => self.put_channel(channel.clone()),
            Event::ChannelDelete(gone) => self.drop_channel(gone, now),
            Event::MemberAdd(member) => {
                if let Some(name) = &member.username {
                    self.call(member.user_id, name);
                }
                Vec::new()
            }
            Event::MessageCreate(message) => self.hear(message),
            Event::Typing(typing) => vec![Change::Typing(typing.clone())],
            _ => Vec::new(),
        }
    }

    /// Before the list of guilds is read.
    pub(crate) fn begin_guilds(&mut self) {
        self.guilds_told = Some(HashSet::new());
    }

    /// The list as it was at some time since [`Cache::begin_guilds`].
    pub(crate) fn read_guilds(&mut self, guilds: Vec<Guild>) -> Vec<Change> {
        let told = self.guilds_told.take().unwrap_or_default();
        let listed: HashSet<_> = guilds.iter().map(|guild| guild.guild_id).collect();
        let gone: Vec<_> = self.guilds.keys().copied().filter(|id| !listed.contains(id) && !told.contains(id)).collect();
        let mut changes = Vec::new();
        for id in gone {
            changes.extend(self.forget(id));
        }
        let mut differs = !changes.is_empty();
        for guild in guilds {
            // What was told meanwhile is the newer news, be it that the user left.
            let is_newer = match self.guilds.get(&guild.guild_id) {
                Some(held) => guild.rev > held.rev,
                None => !told.contains(&guild.guild_id),
            };
            if is_newer {
                self.guilds.insert(guild.guild_id, guild);
                differs = true;
            }
        }
        changes.retain(|change| !matches!(change, Change::Guilds));
        if differs {
            changes.push(Change::Guilds);
        }
        changes
    }

    /// The user is in this guild now. Its channels are all that it may see.
    pub(crate) fn put_guild(&mut self, guild: Guild, channels: Vec<Channel>) -> Vec<Change> {
        let id = guild.guild_id;
        if let Some(told) = &mut self.guilds_told {
            told.insert(id);
        }
        if self.guilds.get(&id).is_none_or(|held| guild.rev >= held.rev) {
            self.guilds.insert(id, guild);
        }
        let list = self.lists.entry(id).or_default();
        // What was told of before is not gone because it is not told again.
        let known = list.rows.keys().copied().collect();
        let ids: Vec<_> = channels.iter().map(|channel| channel.channel_id).collect();
        if let Some(told) = &mut list.told {
            told.extend(ids);
        }
        self.merge_channels(id, channels, &known);
        vec![Change::Guilds, Change::Channels(id)]
    }

    /// The user has created this guild.
    pub(crate) fn put_created(&mut self, guild: Guild) -> Vec<Change> {
        let id = guild.guild_id;
        if let Some(told) = &mut self.guilds_told {
            told.insert(id);
        }
        if self.guilds.get(&id).is_some_and(|held| held.rev >= guild.rev) {
            return Vec::new();
        }
        self.guilds.insert(id, guild);
        vec![Change::Guilds]
    }

    /// The user is in this guild no longer.
    pub(crate) fn drop_guild(&mut self, guild: GuildId) -> Vec<Change> {
        if let Some(told) = &mut self.guilds_told {
            told.insert(guild);
        }
        self.forget(guild)
    }

    fn forget(&mut self, guild: GuildId) -> Vec<Change> {
        if self.guilds.remove(&guild).is_none() {
            return Vec::new();
        }
        let channels = self.lists.remove(&guild).map(|list| list.rows).unwrap_or_default();
        let mut changes: Vec<_> = channels.keys().filter_map(|channel| self.clear(*channel)).collect();
        changes.extend([Change::Guilds, Change::Channels(guild)]);
        changes
    }

    /// Before a guild's list of channels is read.
    pub(crate) fn begin_channels(&mut self, guild: GuildId) {
        self.lists.entry(guild).or_default().told = Some(HashSet::new());
    }

    /// The list as it was at some time since [`Cache::begin_channels`].
    pub(crate) fn read_channels(&mut self, guild: GuildId, channels: Vec<Channel>) -> Vec<Change> {
        let Some(list) = self.lists.get_mut(&guild) else { return Vec::new() };
        let told = list.told.take().unwrap_or_default();
        let mut changes = self.merge_channels(guild, channels, &told);
        // Also where it is as it was: an empty list is known now, and newest messages are not compared.
        if !changes.iter().any(|change| matches!(change, Change::Channels(_))) {
            changes.push(Change::Channels(guild));
        }
        changes
    }

    /// Takes in a list. What is not in it is gone, but for what was told.
    fn merge_channels(&mut self, guild: GuildId, channels: Vec<Channel>, told: &HashSet<ChannelId>) -> Vec<Change> {
        let Some(list) = self.lists.get_mut(&guild) else { return Vec::new() };
        let listed: HashSet<_> = channels.iter().map(|channel| channel.channel_id).collect();
        let gone: Vec<_> = list.rows.keys().copied().filter(|id| !listed.contains(id) && !told.contains(id)).collect();
        let mut differs = !gone.is_empty();
        for id in &gone {
            list.rows.remove(id);
        }
        for channel in channels {
            let id = channel.channel_id;
            if channel.guild_id != guild || self.graves.get(&id).is_some_and(|(rev, _)| *rev >= channel.rev) {
                continue;
            }
            let held = list.rows.get(&id);
            let last_message_id = latest(held.and_then(|held| held.last_message_id), channel.last_message_id);
            let is_known = held.is_some_and(|held| held.rev >= channel.rev);
            let row = held.filter(|_| is_known).cloned().unwrap_or(channel);
            list.rows.insert(id, Channel { last_message_id, ..row });
            differs |= !is_known;
        }
        let mut changes: Vec<_> = gone.into_iter().filter_map(|channel| self.clear(channel)).collect();
        if differs {
            changes.push(Change::Channels(guild));
        }
        changes
    }

    /// The list cannot be read: whatever is known of it is no longer true.
    pub(crate) fn drop_channels(&mut self, guild: GuildId) -> Vec<Change> {
        let Some(list) = self.lists.remove(&guild) else { return Vec::new() };
        let mut changes: Vec<_> = list.rows.keys().filter_map(|channel| self.clear(*channel)).collect();
        if !list.rows.is_empty() {
            changes.push(Change::Channels(guild));
        }
        changes
    }

    /// A channel came, or has changed. Where nobody asked for its guild's channels, it is read when somebody does.
    pub(crate) fn put_channel(&mut self, channel: Channel) -> Vec<Change> {
        let (id, guild) = (channel.channel_id, channel.guild_id);
        let Some(list) = self.lists.get_mut(&guild) else { return Vec::new() };
        let is_older = list.rows.get(&id).is_some_and(|held| held.rev >= channel.rev);
        if is_older || self.graves.get(&id).is_some_and(|(rev, _)| *rev >= channel.rev) {
            return Vec::new();
        }
        if let Some(told) = &mut list.told {
            told.insert(id);
        }
        let known = list.rows.get(&id).and_then(|held| held.last_message_id);
        let last_message_id = latest(known, channel.last_message_id);
        list.rows.insert(id, Channel { last_message_id, ..channel });
        vec![Change::Channels(guild)]
    }

    fn drop_channel(&mut self, gone: &ChannelDelete, now: Instant) -> Vec<Change> {
        let (id, rev) = (gone.channel_id, gone.rev);
        if self.graves.len() >= GRAVES {
            self.graves.retain(|_, (_, dug)| now.saturating_duration_since(*dug) < GRAVE);
        }
        if self.graves.len() < GRAVES {
            let grave = self.graves.entry(id).or_insert((rev, now));
            *grave = (rev.max(grave.0), now);
        }
        let Some(list) = self.lists.get_mut(&gone.guild_id) else { return Vec::new() };
        if list.rows.get(&id).is_none_or(|held| held.rev > rev) {
            return Vec::new();
        }
        list.rows.remove(&id);
        let mut changes: Vec<_> = self.clear(id).into_iter().collect();
        changes.push(Change::Channels(gone.guild_id));
        changes
    }

    /// A channel can be read no longer: nothing of it is shown.
    pub(crate) fn clear(&mut self, channel: ChannelId) -> Option<Change> {
        let room = self.rooms.get_mut(&channel)?;
        let splices = room.read_newest(Vec::new(), false);
        (!splices.is_empty()).then_some(Change::Messages { channel, splices, has_older: false })
    }

    /// Keeps a channel's messages from now on. They have to be read first.
    pub(crate) fn open(&mut self, channel: ChannelId) {
        self.rooms.entry(channel).or_insert_with(|| Room::new(channel));
    }

    /// Lets go of a channel's messages.
    pub(crate) fn close(&mut self, channel: ChannelId) {
        self.rooms.remove(&channel);
    }

    /// Before an open channel is read: what happens in it is put aside until that is done. Returns the last message that is
    /// known, where there is one.
    pub(crate) fn begin_messages(&mut self, channel: ChannelId) -> Option<MessageId> {
        self.rooms.get_mut(&channel)?.begin()
    }

    /// The newest page, read since [`Cache::begin_messages`]. What was shown before is let go of.
    pub(crate) fn read_newest(&mut self, channel: ChannelId, page: Page<Message>) -> Option<Change> {
        let has_older = page.next.is_some();
        self.read(channel, page.items, |room, messages| room.read_newest(messages, has_older))
    }

    /// All that was written from before the last known message on, read since [`Cache::begin_messages`].
    pub(crate) fn read_missed(&mut self, channel: ChannelId, messages: Vec<Message>) -> Option<Change> {
        self.read(channel, messages, Room::read_missed)
    }

    /// Before older messages are read: behind which one. `None` if there are none, or they are being read already.
    pub(crate) fn begin_older(&mut self, channel: ChannelId) -> Option<MessageId> {
        self.rooms.get_mut(&channel)?.begin_older()
    }

    /// Whether older messages are being read.
    pub(crate) fn is_loading_older(&self, channel: ChannelId) -> bool {
        self.rooms.get(&channel).is_some_and(Room::is_loading_older)
    }

    /// No older messages came.
    pub(crate) fn end_older(&mut self, channel: ChannelId) {
        if let Some(room) = self.rooms.get_mut(&channel) {
            room.end_older();
        }
    }

    /// The page right before that message.
    pub(crate) fn read_older(&mut self, channel: ChannelId, before: MessageId, page: Page<Message>) -> Option<Change> {
        let has_older = page.next.is_some();
        self.read(channel, page.items, |room, messages| room.read_older(before, messages, has_older))
    }

    fn read(
        &mut self,
        channel: ChannelId,
        messages: Vec<Message>,
        read: impl FnOnce(&mut Room, Vec<Message>) -> Vec<Splice>,
    ) -> Option<Change> {
        for author in messages.iter().filter_map(|message| message.author.as_ref()) {
            self.call(author.user_id, &author.username);
        }
        let room = self.rooms.get_mut(&channel)?;
        let state = |room: &Room| (room.shown().has_older, room.shown().loaded);
        let before = state(room);
        let splices = read(room, messages);
        let differs = !splices.is_empty() || state(room) != before;
        differs.then_some(Change::Messages { channel, splices, has_older: room.shown().has_older })
    }

    fn hear(&mut self, message: &Message) -> Vec<Change> {
        let Message { channel_id: channel, message_id, author_id: author, .. } = *message;
        if !message_id.is_ordered() {
            return Vec::new();
        }
        if let Some(author) = &message.author {
            self.call(author.user_id, &author.username);
        }
        for list in self.lists.values_mut() {
            if let Some(row) = list.rows.get_mut(&channel) {
                row.last_message_id = latest(row.last_message_id, Some(message_id));
            }
        }
        let mut changes = Vec::new();
        if let Some(room) = self.rooms.get_mut(&channel) {
            let splices = room.hear(message);
            if !splices.is_empty() {
                changes.push(Change::Messages { channel, splices, has_older: room.shown().has_older });
            }
        }
        changes.push(Change::Activity { channel, message: message_id, author });
        changes
    }
}

#[cfg(test)]
mod tests {
    use jiscord_core::{Timestamp, model::Member};

    use super::*;
    use crate::timeline::tests::{channel as channel_id, message, message_id};

    const EVE: &str = "c00c0580-e748-11f1-8000-010000000000";

    fn guild(number: u32, rev: Rev) -> Guild {
        let guild_id = format!("{number:08x}-e747-11f1-8000-010000000000").parse().unwrap();
        Guild {
            guild_id,
            name: format!("{number}@{rev}"),
            created_at: Timestamp::from_ms(0),
            rev,
            owner_id: None,
            visibility: None,
        }
    }

    fn channel(number: u32, rev: Rev) -> Channel {
        let (channel_id, guild_id) = (channel_id(number), guild(1, 0).guild_id);
        let (name, created_at) = (format!("{number}@{rev}"), Timestamp::from_ms(0));
        Channel { channel_id, guild_id, name, created_at, rev, last_message_id: None }
    }

    fn removal(number: u32, rev: Rev) -> Event {
        Event::ChannelDelete(ChannelDelete { channel_id: channel_id(number), guild_id: guild(1, 0).guild_id, rev })
    }

    fn guilds(cache: &Cache) -> Vec<String> {
        cache.guilds().into_iter().map(|guild| guild.name).collect()
    }

    fn channels(cache: &Cache) -> Vec<String> {
        cache.channels(guild(1, 0).guild_id).unwrap_or_default().into_iter().map(|channel| channel.name).collect()
    }

    /// A cache that knows guild 1 and these channels.
    fn with(rows: &[Channel]) -> Cache {
        let mut cache = Cache::default();
        cache.put_guild(guild(1, 1), rows.to_vec());
        cache
    }

    #[test]
    fn the_higher_rev_holds_whatever_comes_first() {
        let now = Instant::now();
        let mut cache = with(&[channel(1, 5), channel(2, 5)]);
        for (event, want) in [
            (Event::ChannelCreate(channel(1, 4)), ["1@5", "2@5"].as_slice()),
            (Event::ChannelCreate(channel(1, 7)), &["1@7", "2@5"]),
            (removal(1, 6), &["1@7", "2@5"]),
            (removal(2, 6), &["1@7"]),
            (Event::ChannelCreate(channel(2, 6)), &["1@7"]),
            (Event::ChannelCreate(channel(2, 7)), &["1@7", "2@7"]),
            // One that was not known yet leaves its rev as well.
            (removal(3, 9), &["1@7", "2@7"]),
            (Event::ChannelCreate(channel(3, 8)), &["1@7", "2@7"]),
        ] {
            cache.apply(&event, now);
            assert_eq!(channels(&cache), want, "{event:?}");
        }
        cache.begin_channels(guild(1, 0).guild_id);
        cache.read_channels(guild(1, 0).guild_id, vec![channel(1, 6), channel(2, 8), channel(3, 8)]);
        assert_eq!(channels(&cache), ["1@7", "2@8"]);
    }

    #[test]
    fn removals_are_remembered_for_a_while_and_not_without_end() {
        let now = Instant::now();
        let mut cache = with(&[]);
        for number in 0..2 * GRAVES as u32 {
            cache.apply(&removal(number, 9), now);
        }
        assert_eq!(cache.graves.len(), GRAVES);
        cache.apply(&removal(u32::MAX, 9), now + GRAVE);
        assert_eq!(cache.graves.len(), 1);
    }

    #[test]
    fn a_list_of_guilds_that_was_read_late_undoes_nothing() {
        let now = Instant::now();
        let mut cache = Cache::default();
        cache.put_guild(guild(1, 1), Vec::new());
        cache.put_guild(guild(2, 1), Vec::new());
        cache.begin_guilds();
        // Meanwhile one is left, one is joined, and one that is only in the list was left and joined before.
        cache.drop_guild(guild(1, 0).guild_id);
        cache.apply(&Event::GuildCreate(GuildCreate { guild: guild(3, 1), channels: Vec::new() }), now);
        let changes = cache.read_guilds(vec![guild(1, 1), guild(2, 2), guild(4, 1)]);
        assert!(matches!(changes[..], [Change::Guilds]), "{changes:?}");
        assert_eq!(guilds(&cache), ["2@2", "3@1", "4@1"]);
        // And without news meanwhile the list is what there is.
        cache.begin_guilds();
        cache.read_guilds(vec![guild(4, 1)]);
        assert_eq!(guilds(&cache), ["4@1"]);
        cache.begin_guilds();
        assert!(cache.read_guilds(vec![guild(4, 1)]).is_empty(), "nothing has changed");
    }

    #[test]
    fn what_was_told_while_a_list_was_read_stays() {
        let (now, id) = (Instant::now(), guild(1, 0).guild_id);
        let mut cache = with(&[channel(1, 1)]);
        cache.begin_channels(id);
        assert_eq!(cache.unread_lists(), [id]);
        cache.apply(&Event::ChannelCreate(channel(2, 1)), now);
        // The guild comes once more, with what was there when the gateway loaded it.
        cache.apply(&Event::GuildCreate(GuildCreate { guild: guild(1, 1), channels: vec![channel(3, 1)] }), now);
        cache.apply(&Event::ChannelCreate(channel(4, 1)), now);
        assert_eq!(channels(&cache), ["1@1", "2@1", "3@1", "4@1"]);
        cache.read_channels(id, vec![]);
        assert_eq!(channels(&cache), ["2@1", "3@1", "4@1"], "of 1 nothing was told");
        assert!(cache.unread_lists().is_empty());
    }

    #[test]
    fn what_goes_takes_its_messages_along() {
        let open = || {
            let mut cache = with(&[channel(1, 1)]);
            cache.open(channel_id(1));
            cache.read_newest(channel_id(1), Page { items: vec![message(1), message(2)], next: None });
            cache
        };
        type Step = fn(&mut Cache) -> Vec<Change>;
        let steps: [(&str, Step); 4] = [
            ("the channel", |cache| cache.apply(&removal(1, 9), Instant::now())),
            ("the guild", |cache| cache.drop_guild(guild(1, 0).guild_id)),
            ("the guild, in a list", |cache| {
                cache.begin_guilds();
                cache.read_guilds(Vec::new())
            }),
            ("the channel, in a list", |cache| {
                cache.begin_channels(guild(1, 0).guild_id);
                cache.read_channels(guild(1, 0).guild_id, Vec::new())
            }),
        ];
        for (name, step) in steps {
            let mut cache = open();
            let changes = step(&mut cache);
            let Some(Change::Messages { splices, has_older: false, .. }) = changes.first() else { panic!("{name}: {changes:?}") };
            assert!(matches!(&splices[..], [Splice { at: 0, remove: 2, insert }] if insert.is_empty()), "{name}");
            assert!(cache.timeline(channel_id(1)).unwrap().messages.is_empty(), "{name}");
        }
    }

    #[test]
    fn names_are_learnt_and_their_number_is_bounded() {
        let mut cache = Cache::default();
        let eve: UserId = EVE.parse().unwrap();
        let joined = Timestamp::from_ms(0);
        let member = |name: &str| {
            let username = Some(name.to_owned());
            Event::MemberAdd(Member { guild_id: guild(1, 0).guild_id, user_id: eve, username, joined_at: joined, rev: 1 })
        };
        for name in ["Eve", "Evelyn"] {
            cache.apply(&member(name), Instant::now());
            assert_eq!(cache.name(eve), Some(name));
        }
        for number in 0..=NAMES {
            cache.call(format!("{number:08x}-0000-4000-8000-000000000000").parse().unwrap(), "x");
        }
        assert!(cache.names.len() <= NAMES);
    }

    #[test]
    fn the_newest_message_of_a_channel_is_kept_up() {
        let mut cache = with(&[channel(1, 1)]);
        let last = |cache: &Cache| cache.channels(guild(1, 0).guild_id).unwrap()[0].last_message_id;
        for (number, want) in [(5, 5), (3, 5), (8, 8)] {
            let changes = cache.apply(&Event::MessageCreate(message(number)), Instant::now());
            assert!(matches!(changes[..], [Change::Activity { message, .. }] if message == message_id(number)), "{changes:?}");
            assert_eq!(last(&cache), Some(message_id(want)));
        }
        cache.begin_channels(guild(1, 0).guild_id);
        let read = Channel { last_message_id: Some(message_id(6)), ..channel(1, 2) };
        cache.read_channels(guild(1, 0).guild_id, vec![read]);
        assert_eq!(last(&cache), Some(message_id(8)), "also by a list that was read late");
    }
}
