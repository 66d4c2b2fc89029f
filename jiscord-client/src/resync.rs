//! What was missed, read from the history and told as events.
//!
//! ```text
//! … events ──► gap ──► guilds ──► their channels ──► their messages, page by page ──► Resynced ──► events …
//! ```
//!
//! A gap is where the gateway says RESYNC, or READY where a session could not go on. The stream of events stops there, and
//! what happens meanwhile waits behind it in the queue, whose bound holds as for any slow program. The program itself draws
//! the reading, a page at a time, by asking for the next event: nothing is read that nobody takes, and dropping the stream ends it.
//!
//! Each channel is read from some time before what was given last ([`crate::given`]), oldest first, and what was given before
//! is left out; what comes live and was read is left out too. Messages of one channel come in the order of their ids. What is too
//! much, or cannot be read, is named by [`Resynced::missing`].

use std::{
    collections::{HashSet, VecDeque},
    future::IntoFuture,
    time::Duration,
};

use jiscord_core::{
    ChannelId, Code, GuildId, MessageId, Topic,
    frame::{GuildCreate, Ready, Resync},
    model::{Guild, Message},
};

use crate::{
    backoff::Backoff,
    error::{Error, Result},
    http::{Answer, Http, Page},
    sys::{self, Instant},
};

/// The most new messages that are read of a channel after one gap.
const CHANNEL: usize = 1_000;
/// The most that are read in all.
const ALL: usize = 10_000;
/// The longest wait before it begins, whatever the server says.
const SPREAD: Duration = Duration::from_secs(60);
/// The most messages of a page.
const PAGE: usize = 100;

/// What was missed has been told: after the gateway could not tell all that happened, or a session could not go on.
///
/// New messages came before this as [`Event::MessageCreate`](crate::Event::MessageCreate), without a nonce. Whatever else changed
/// is in here, as it is now.
#[derive(Clone, Debug, Default, PartialEq)]
#[non_exhaustive]
pub struct Resynced {
    /// What was read again; `None`: everything.
    pub topics: Option<Vec<Topic>>,
    /// These guilds and their channels are so now. They take the place of what is kept of them.
    pub guilds: Vec<GuildCreate>,
    /// The user is not in these guilds any more.
    pub gone: Vec<GuildId>,
    /// Where messages may be missing.
    pub missing: Vec<Missing>,
}

/// A stretch of messages that was not told, as far as there are any.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub struct Missing {
    /// The guild; `None`: any of the user's.
    pub guild: Option<GuildId>,
    /// The channel; `None`: any of the guild's.
    pub channel: Option<ChannelId>,
    /// What is missing comes after this one, and before what happened since. [`Http::messages`] reads it.
    pub after: MessageId,
    /// Why it was not read: it is too much, or this is what the server said.
    pub why: String,
}

impl Resynced {
    pub(crate) fn miss(&mut self, guild: Option<GuildId>, channel: Option<ChannelId>, after: MessageId, why: &str) {
        tracing::warn!(?guild, ?channel, why, "messages may be missing");
        self.missing.push(Missing { guild, channel, after, why: why.to_owned() });
    }
}

/// Where events may be missing.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Gap {
    /// Another session could not go on; this one has begun.
    Ready(Ready),
    Resync(Resync),
}

impl Gap {
    /// How long to wait before anything is read, since many others are told the same.
    pub(crate) fn wait(&self) -> Duration {
        let spread = match self {
            Self::Ready(_) => None,
            Self::Resync(resync) => resync.spread,
        };
        sys::random_below(Duration::from_millis(spread.unwrap_or_default()).min(SPREAD))
    }

    /// What events may be missing of; `None`: everything.
    pub(crate) fn topics(&self) -> Option<&[Topic]> {
        match self {
            Self::Ready(_) => None,
            Self::Resync(resync) => resync.topics.as_deref(),
        }
    }
}

/// How to read what was missed.
#[derive(Clone)]
pub(crate) struct Reader {
    pub(crate) http: Http,
    pub(crate) backoff: Backoff,
    /// How long the server may be out of reach.
    pub(crate) patience: Duration,
    /// Whether the program wants to hear of messages.
    pub(crate) messages: bool,
}

/// What is to be read.
enum Todo {
    Guilds,
    Channels(Guild),
    Messages(Part),
}

/// What is to be read of a channel.
struct Part {
    guild: GuildId,
    channel: ChannelId,
    /// What was read last.
    after: MessageId,
    /// How to read on.
    state: Option<String>,
    left: usize,
}

/// A reading under way.
pub(crate) struct Reading {
    reader: Reader,
    /// The guilds that the program knows of.
    known: HashSet<GuildId>,
    start: MessageId,
    /// Before it begins.
    wait: Option<Duration>,
    todo: VecDeque<Todo>,
    left: usize,
    /// Since when nothing could be read.
    failing: Option<Instant>,
    found: Resynced,
}

/// What came of a step.
pub(crate) enum Found {
    /// Some messages of a channel, oldest first, and how to go on.
    Page(Box<Reading>, Vec<Message>),
    /// There is no more.
    All(Resynced),
}

impl Reading {
    /// Begins behind a message that is as old as what was missed can be.
    pub(crate) fn new(reader: Reader, gap: &Gap, known: HashSet<GuildId>, start: MessageId) -> Box<Self> {
        let found = Resynced { topics: gap.topics().map(<[_]>::to_vec), ..Resynced::default() };
        let wait = Some(gap.wait());
        Box::new(Self { reader, known, start, wait, todo: [Todo::Guilds].into(), left: ALL, failing: None, found })
    }

    /// Reads on to the next messages.
    pub(crate) async fn step(mut self: Box<Self>) -> Found {
        if let Some(wait) = self.wait.take().filter(|wait| !wait.is_zero()) {
            sys::sleep(wait).await;
        }
        while let Some(todo) = self.todo.pop_front() {
            match todo {
                Todo::Guilds => match self.ask(|http| Box::pin(async move { http.guilds().await })).await {
                    Ok(guilds) => self.sort(guilds),
                    Err(error) => self.fail(None, None, self.start, &error),
                },
                Todo::Channels(guild) => self.channels(guild).await,
                Todo::Messages(part) => {
                    let messages = self.messages(part).await;
                    if !messages.is_empty() {
                        return Found::Page(self, messages);
                    }
                }
            }
        }
        Found::All(self.found)
    }

    /// So many of the messages that were just read of a channel were known before. They do not count: what is read again of a
    /// busy channel, up to what is new, may be more than all that is new.
    pub(crate) fn is_known(&mut self, channel: Option<ChannelId>, known: usize) {
        self.left = self.left.saturating_add(known);
        if let Some(Todo::Messages(part)) = self.todo.front_mut()
            && Some(part.channel) == channel
        {
            part.left = part.left.saturating_add(known);
        }
    }

    /// Picks the guilds of which something may be missing.
    fn sort(&mut self, guilds: Vec<Guild>) {
        let listed: HashSet<_> = guilds.iter().map(|guild| guild.guild_id).collect();
        let is_stale = |id| self.found.topics.as_ref().is_none_or(|topics| topics.contains(&Topic::Guild(id)));
        // Whether the user has joined or left one is told to the user.
        let is_users = self.found.topics.as_ref().is_none_or(|topics| topics.iter().any(|topic| matches!(topic, Topic::User(_))));
        let gone = self.known.iter().copied().filter(|id| !listed.contains(id) && (is_users || is_stale(*id)));
        let gone: Vec<_> = gone.collect();
        let stale = guilds.into_iter().filter(|guild| {
            let id = guild.guild_id;
            is_stale(id) || is_users && !self.known.contains(&id)
        });
        let stale: Vec<_> = stale.map(Todo::Channels).collect();
        self.found.gone = gone;
        self.todo.extend(stale);
    }

    async fn channels(&mut self, guild: Guild) {
        let id = guild.guild_id;
        match self.ask(|http| Box::pin(async move { http.channels(id).await })).await {
            Ok(channels) => {
                for channel in channels.iter().filter(|_| self.reader.messages) {
                    // Where nothing is new there is nothing to read.
                    if channel.last_message_id.is_some_and(|last| last.sort_key() > self.start.sort_key()) {
                        let part = Part { guild: id, channel: channel.channel_id, after: self.start, state: None, left: CHANNEL };
                        self.todo.push_back(Todo::Messages(part));
                    }
                }
                self.found.guilds.push(GuildCreate { guild, channels });
            }
            Err(error) if is_gone(&error) => self.found.gone.extend(self.known.contains(&id).then_some(id)),
            Err(error) => self.fail(Some(id), None, self.start, &error),
        }
    }

    async fn messages(&mut self, mut part: Part) -> Vec<Message> {
        let Part { guild, channel, after, .. } = part;
        let most = PAGE.min(part.left).min(self.left);
        if most == 0 {
            self.found.miss(Some(guild), Some(channel), after, "there are more than are read");
            return Vec::new();
        }
        let state = part.state.take();
        let page = self.ask(|http| {
            // At most 100.
            let messages = http.messages(channel).limit(most as u16);
            match &state {
                Some(state) => messages.page_state(state.clone()).into_future(),
                None => messages.after(after).into_future(),
            }
        });
        match page.await {
            Ok(Page { mut items, next }) => {
                items.reverse();
                part.left = part.left.saturating_sub(items.len());
                self.left = self.left.saturating_sub(items.len());
                if let Some(last) = items.last() {
                    part.after = last.message_id;
                }
                if next.is_some() {
                    part.state = next;
                    self.todo.push_front(Todo::Messages(part));
                }
                items
            }
            Err(error) => {
                if !is_gone(&error) {
                    self.fail(Some(guild), Some(channel), after, &error);
                }
                Vec::new()
            }
        }
    }

    /// Asks the server, again and again while that may help.
    async fn ask<T>(&mut self, call: impl Fn(Http) -> Answer<T>) -> Result<T> {
        let mut tries = 0;
        loop {
            match call(self.reader.http.clone()).await {
                Err(error) if error.is_passing() => {
                    let since = *self.failing.get_or_insert_with(Instant::now);
                    if since.elapsed() >= self.reader.patience {
                        return Err(error);
                    }
                    let wait = self.reader.backoff.wait(tries);
                    tries += 1;
                    tracing::debug!(%error, ?wait, "will be read again");
                    sys::sleep(wait).await;
                }
                result => {
                    self.failing = None;
                    return result;
                }
            }
        }
    }

    /// Where the server cannot be reached or does not know the user, the rest cannot be read either.
    fn fail(&mut self, guild: Option<GuildId>, channel: Option<ChannelId>, after: MessageId, error: &Error) {
        let why = error.to_string();
        self.found.miss(guild, channel, after, &why);
        if matches!(error, Error::Refused(_)) && !error.is_passing() {
            return;
        }
        for todo in std::mem::take(&mut self.todo) {
            match todo {
                Todo::Guilds => self.found.miss(None, None, self.start, &why),
                Todo::Channels(guild) => self.found.miss(Some(guild.guild_id), None, self.start, &why),
                Todo::Messages(part) => self.found.miss(Some(part.guild), Some(part.channel), part.after, &why),
            }
        }
    }
}

/// Whether it is not there for this user any more.
fn is_gone(error: &Error) -> bool {
    matches!(error, Error::Refused(refusal) if [Code::NOT_FOUND, Code::FORBIDDEN].contains(&refusal.code))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn whoever_is_one_of_many_waits_a_part_of_what_the_server_says() {
        let wait = |spread| Gap::Resync(Resync { topics: None, epoch: "e".into(), spread }).wait();
        assert_eq!(wait(None), Duration::ZERO);
        let waits: Vec<_> = (0..100).map(|_| wait(Some(1_000))).collect();
        assert!(waits.iter().all(|wait| *wait <= Duration::from_secs(1)), "{waits:?}");
        assert!(waits.iter().any(|wait| *wait != waits[0]), "{waits:?}");
        assert!(wait(Some(u64::MAX)) <= SPREAD);
    }
}
