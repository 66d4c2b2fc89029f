//! What happens, and the stream in which it is told.

use std::{
    collections::VecDeque,
    fmt,
    future::poll_fn,
    pin::Pin,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    task::{Context, Poll, Waker, ready},
    time::Duration,
};

use futures_util::Stream;
use jiscord_core::{
    GuildId, Position, ServerFrame,
    frame::{ChannelDelete, ErrorFrame, GuildCreate, GuildDelete, MemberRemove, Ready, Typing},
    model::{Channel, Guild, Member, Message},
};
use serde::{Deserialize, Serialize};
use tokio::sync::Notify;

use crate::{
    error::{Error, Result},
    given::Given,
    place::Place,
    resync::{Found, Gap, Reader, Reading, Resynced},
    sys::{Instant, Work},
};

/// Something that happened.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub enum Event {
    /// A session began. If it is not the first, because that one could not go on after the connection was lost, what happened in
    /// between comes next, up to [`Event::Resynced`].
    Ready(Ready),
    /// The connection was lost and the session goes on: what happened in between came just before this.
    Resumed,
    /// The connection is lost, and will be made anew after so long. [`Event::Resumed`] or [`Event::Ready`] tells when it is.
    Lost {
        /// How long it waits before it tries.
        retry_in: Duration,
    },
    /// The gateway could not tell all that happened. What was missed has been read: new messages came just before this, and this
    /// tells what else has changed, and what could not be read.
    Resynced(Resynced),
    /// A message was written, perhaps by this client.
    MessageCreate(Message),
    /// Somebody types, perhaps this client.
    Typing(Typing),
    /// This user created or joined a guild.
    GuildCreate(GuildCreate),
    /// This user left a guild or was removed from it, or it was deleted.
    GuildDelete(GuildDelete),
    /// Somebody joined a guild.
    MemberAdd(Member),
    /// Somebody left a guild.
    MemberRemove(MemberRemove),
    /// A channel came, or came into sight.
    ChannelCreate(Channel),
    /// A channel went, or went out of sight.
    ChannelDelete(ChannelDelete),
    /// A command that nobody waits for failed, such as typing in a channel that is not there.
    CommandFailed(ErrorFrame),
}

impl Event {
    /// `None` for a frame that is about the connection, not about what happened.
    pub(crate) fn from_frame(frame: ServerFrame) -> Option<Self> {
        Some(match frame {
            ServerFrame::MessageCreate(message) => Self::MessageCreate(message),
            ServerFrame::Typing(typing) => Self::Typing(typing),
            ServerFrame::GuildCreate(guild) => Self::GuildCreate(guild),
            ServerFrame::GuildDelete(guild) => Self::GuildDelete(guild),
            ServerFrame::MemberAdd(member) => Self::MemberAdd(member),
            ServerFrame::MemberRemove(member) => Self::MemberRemove(member),
            ServerFrame::ChannelCreate(channel) => Self::ChannelCreate(channel),
            ServerFrame::ChannelDelete(channel) => Self::ChannelDelete(channel),
            ServerFrame::Error(error) => Self::CommandFailed(error),
            _ => return None,
        })
    }
}

/// What happens, in order. Made by [`Client::events`](crate::Client::events).
///
/// Each message is told once, and those of a channel in the order of their ids or, live, as they were stored. What the gateway could
/// not tell is read over HTTP as the next event is asked for, and what cannot be read is named: [`Event::Resynced`].
///
/// An `Err` tells of one event that was not understood and skipped. [`Error::Unauthorized`] and [`Error::Evicted`] are the last
/// item: the client will not come back by itself. After [`Client::close`](crate::Client::close) the stream just ends.
#[must_use = "events are told to who asks for the next one"]
pub struct Events {
    feed: Feed,
    reader: Reader,
    filling: Option<Filling>,
}

/// How far a gap is filled.
struct Filling {
    began: Instant,
    /// That a session has begun is not told yet.
    is_news: bool,
    /// What was read and is not given yet.
    page: VecDeque<Message>,
    /// Begins once the page is given.
    next: Work<Found>,
}

/// Where a program is in what happens. Keep it, with what came of the events until then, and give it to
/// [`Builder::resume`](crate::client::Builder::resume) when the program starts again: what happened meanwhile is told, and
/// nothing twice.
///
/// It holds the ids of the messages of the last quarter of an hour, about 40 bytes each in JSON.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ResumePoint {
    pub(crate) ready: Ready,
    pub(crate) place: Place,
    pub(crate) given: Given,
}

impl Events {
    pub(crate) fn new(feed: Feed, reader: Reader) -> Self {
        Self { feed, reader, filling: None }
    }

    /// Behind the last event that was taken. `None` before the first one.
    pub fn resume_point(&self) -> Option<ResumePoint> {
        self.feed.queue.state().point()
    }

    /// The next event; `None` when there will be no more.
    pub async fn next(&mut self) -> Option<Result<Event>> {
        poll_fn(|cx| self.poll(cx)).await
    }

    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Event>>> {
        loop {
            let gap = match ready!(self.feed.poll(cx)) {
                Some(Told::Gap(gap)) => gap,
                told => {
                    // If there was a gap, it will not be filled.
                    self.filling = None;
                    return Poll::Ready(told.and_then(Told::event));
                }
            };
            let filling = self.filling.get_or_insert_with(|| Filling {
                began: Instant::now(),
                is_news: true,
                page: VecDeque::new(),
                next: Box::pin(self.feed.begin(&gap, &self.reader).step()),
            });
            if let (Gap::Ready(ready), true) = (&*gap, std::mem::take(&mut filling.is_news)) {
                return Poll::Ready(Some(Ok(Event::Ready(ready.clone()))));
            }
            while let Some(message) = filling.page.pop_front() {
                if self.feed.give(&message) {
                    return Poll::Ready(Some(Ok(Event::MessageCreate(message))));
                }
            }
            match ready!(filling.next.as_mut().poll(cx)) {
                Found::Page(mut reading, messages) => {
                    reading.is_known(messages.first().map(|first| first.channel_id), self.feed.count_given(&messages));
                    filling.page = messages.into();
                    filling.next = Box::pin(reading.step());
                }
                Found::All(resynced) => {
                    let took = filling.began.elapsed();
                    self.filling = None;
                    let resynced = self.feed.fill(resynced, took);
                    return Poll::Ready(Some(Ok(Event::Resynced(resynced))));
                }
            }
        }
    }
}

impl Stream for Events {
    type Item = Result<Event>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        self.poll(cx)
    }
}

impl fmt::Debug for Events {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Events").finish_non_exhaustive()
    }
}

/// What the connection tells.
pub(crate) enum Told {
    Event(Result<Event>),
    /// Stays the next until it is closed.
    Gap(Arc<Gap>),
}

impl Told {
    fn event(self) -> Option<Result<Event>> {
        match self {
            Self::Event(event) => Some(event),
            Self::Gap(_) => None,
        }
    }
}

impl From<Result<Event>> for Told {
    fn from(event: Result<Event>) -> Self {
        Self::Event(event)
    }
}

impl From<Gap> for Told {
    fn from(gap: Gap) -> Self {
        Self::Gap(gap.into())
    }
}

/// The events and the gaps between them, as they come.
pub(crate) struct Feed {
    queue: Queue,
    turn: u64,
}

impl Feed {
    /// What is next; `None` when there will be no more.
    pub(crate) async fn next(&mut self) -> Option<Told> {
        poll_fn(|cx| self.poll(cx)).await
    }

    fn poll(&self, cx: &mut Context<'_>) -> Poll<Option<Told>> {
        let mut state = self.queue.state();
        loop {
            if state.listener != Listener::Here(self.turn) {
                return Poll::Ready(None);
            }
            let Some(Item { told, p, .. }) = state.items.front() else {
                if state.ended {
                    return Poll::Ready(state.error.take().map(|error| Err(error).into()));
                }
                state.waker = Some(cx.waker().clone());
                return Poll::Pending;
            };
            if let (Told::Gap(gap), p) = (told, *p) {
                if state.ended {
                    // It will not be filled, and what is behind it would hide it.
                    state.clear();
                    continue;
                }
                let gap = gap.clone();
                let p = p.unwrap_or(state.place.p);
                state.given.begin(p);
                state.waker = Some(cx.waker().clone());
                return Poll::Ready(Some(Told::Gap(gap)));
            }
            let Some(item) = self.queue.pop(&mut state) else { continue };
            let is_new = match &item.told {
                Told::Event(Ok(event)) => state.pass(event, item.p, item.is_replayed),
                _ => true,
            };
            if is_new {
                return Poll::Ready(Some(item.told));
            }
        }
    }

    /// How to fill the gap that is next.
    fn begin(&self, gap: &Gap, reader: &Reader) -> Box<Reading> {
        let state = self.queue.state();
        let known = state.ready.iter().flat_map(|ready| &ready.guilds).map(|guild| guild.guild_id).collect();
        Reading::new(reader.clone(), gap, known, state.given.start())
    }

    /// How many of these messages the program was given before.
    fn count_given(&self, messages: &[Message]) -> usize {
        let state = self.queue.state();
        messages.iter().filter(|message| state.given.has(message.message_id)).count()
    }

    /// Whether a message that was read is new to the program, which is given it now.
    fn give(&self, message: &Message) -> bool {
        let mut state = self.queue.state();
        state.listener == Listener::Here(self.turn) && state.given.add_read(message.message_id)
    }

    /// Goes on behind the gap that is next.
    pub(crate) fn close(&self) {
        let mut state = self.queue.state();
        if state.listener != Listener::Here(self.turn) || !matches!(state.items.front(), Some(Item { told: Told::Gap(_), .. })) {
            return;
        }
        if let Some(Item { told: Told::Gap(gap), p, .. }) = self.queue.pop(&mut state) {
            state.close(&gap, p);
        }
    }

    /// The same, where the gap is filled, which took so long.
    fn fill(&self, mut resynced: Resynced, took: Duration) -> Resynced {
        self.close();
        let mut state = self.queue.state();
        if state.given.is_short() {
            resynced.miss(None, None, state.given.start(), "more was told just before than is remembered");
        }
        resynced.guilds.iter().for_each(|created| state.know(&created.guild));
        resynced.gone.iter().for_each(|gone| state.forget(*gone));
        if resynced.topics.is_none() {
            let p = state.place.p;
            state.given.close(took, p);
        }
        resynced
    }
}

impl Drop for Feed {
    fn drop(&mut self) {
        self.queue.leave(self.turn);
    }
}

/// Between the connection and the stream. Counted in the bytes of the frames, since events differ much in size.
#[derive(Clone)]
pub(crate) struct Queue {
    shared: Arc<Shared>,
}

struct Shared {
    state: Mutex<State>,
    drained: Notify,
    /// From so many bytes on the connection should not be read.
    full: usize,
}

struct State {
    items: VecDeque<Item>,
    /// The session, and its guilds as they are now, behind the last event that was taken.
    ready: Option<Ready>,
    place: Place,
    given: Given,
    bytes: usize,
    listener: Listener,
    turns: u64,
    waker: Option<Waker>,
    ended: bool,
    /// Why, if that is to be told.
    error: Option<Error>,
}

pub(crate) struct Item {
    pub(crate) told: Told,
    /// Its place in the log.
    pub(crate) p: Option<Position>,
    /// Was told again to a session that is about to go on: it says nothing of other topics, which perhaps are not.
    pub(crate) is_replayed: bool,
    /// Of its frame.
    pub(crate) bytes: usize,
}

#[derive(PartialEq)]
enum Listener {
    /// Nobody has asked yet; what happens is kept for the first who does.
    Awaited,
    /// The stream of this turn.
    Here(u64),
    /// Nobody listens; what happens is not kept.
    None,
}

impl Queue {
    /// How far beyond `full` it grows while the connection is read for the sake of answers.
    const STRETCH: usize = 8;

    pub(crate) fn new(full: usize) -> Self {
        let state = State {
            items: VecDeque::new(),
            ready: None,
            place: Place::default(),
            given: Given::default(),
            bytes: 0,
            listener: Listener::Awaited,
            turns: 0,
            waker: None,
            ended: false,
            error: None,
        };
        Self { shared: Arc::new(Shared { state: Mutex::new(state), drained: Notify::new(), full: full.max(1) }) }
    }

    /// Goes on from where another process was.
    pub(crate) fn begin_at(&self, point: ResumePoint) {
        let mut state = self.state();
        let ResumePoint { ready, place, given } = point;
        (state.ready, state.place, state.given) = (Some(ready), place, given);
    }

    /// The stream; an earlier one ends.
    pub(crate) fn listen(&self) -> Feed {
        let mut state = self.state();
        state.turns += 1;
        state.listener = Listener::Here(state.turns);
        state.wake();
        Feed { queue: self.clone(), turn: state.turns }
    }

    /// Adds an event that has no place in the log.
    pub(crate) fn push(&self, event: Result<Event>, bytes: usize) -> bool {
        self.push_at(Item { told: event.into(), p: None, is_replayed: false, bytes })
    }

    /// Adds what was told. False if there is far too much already.
    pub(crate) fn push_at(&self, item: Item) -> bool {
        let mut state = self.state();
        if state.listener == Listener::Awaited && state.bytes >= self.shared.full {
            // A program that only sends must not be slowed down by what it does not want to hear.
            state.abandon();
        }
        if state.listener == Listener::None || state.ended {
            return true;
        }
        if state.bytes >= self.shared.full * Self::STRETCH {
            return false;
        }
        state.bytes += item.bytes;
        state.items.push_back(item);
        state.wake();
        true
    }

    /// Everything up to here was told.
    pub(crate) fn reach(&self, p: Position) {
        let mut state = self.state();
        if state.items.is_empty() && matches!(state.listener, Listener::Here(_)) {
            state.place.reach(p);
            state.given.reach(p);
        }
    }

    /// Whether more may be read from the connection.
    pub(crate) fn has_room(&self) -> bool {
        let state = self.state();
        !matches!(state.listener, Listener::Here(_)) || state.bytes < self.shared.full
    }

    /// Returns when there may be room again.
    pub(crate) async fn drained(&self) {
        self.shared.drained.notified().await;
    }

    /// Ends the stream behind what is in it, with an error if there is one.
    pub(crate) fn end(&self, error: Option<Error>) {
        let mut state = self.state();
        (state.ended, state.error) = (true, error);
        state.wake();
    }

    fn pop(&self, state: &mut State) -> Option<Item> {
        let item = state.items.pop_front()?;
        state.bytes -= item.bytes;
        if state.bytes < self.shared.full {
            self.shared.drained.notify_one();
        }
        Some(item)
    }

    fn leave(&self, turn: u64) {
        let mut state = self.state();
        if state.listener == Listener::Here(turn) {
            state.abandon();
            self.shared.drained.notify_one();
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        // No code of others runs under the lock, and each step leaves a whole state.
        self.shared.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    fn point(&self) -> Option<ResumePoint> {
        let ready = self.ready.clone()?;
        Some(ResumePoint { ready, place: self.place.clone(), given: self.given.clone() })
    }

    /// An event is taken. False if it was given before.
    fn pass(&mut self, event: &Event, p: Option<Position>, is_replayed: bool) -> bool {
        let Some(p) = p else { return true };
        match event {
            Event::Ready(ready) => self.begin(ready, p),
            Event::Resumed => self.place.reach(p),
            Event::GuildCreate(created) => {
                self.know(&created.guild);
                self.place.moved(created.guild.guild_id, p);
            }
            Event::GuildDelete(gone) => {
                self.forget(gone.guild_id);
                self.place.moved(gone.guild_id, p);
            }
            _ => {}
        }
        if !matches!(event, Event::Ready(_) | Event::Resumed) {
            self.place.add(p);
        }
        let is_new = match event {
            Event::MessageCreate(message) => self.given.add(message.message_id),
            _ => true,
        };
        if !is_replayed {
            self.given.reach(p);
        }
        is_new
    }

    /// A gap is passed.
    fn close(&mut self, gap: &Gap, p: Option<Position>) {
        let p = p.unwrap_or(self.place.p);
        match gap {
            Gap::Ready(ready) => self.begin(ready, p),
            Gap::Resync(resync) => {
                self.place.resync(&resync.epoch, p);
                if let Some(ready) = &mut self.ready {
                    ready.epoch.clone_from(&resync.epoch);
                }
            }
        }
    }

    fn begin(&mut self, ready: &Ready, p: Position) {
        self.place.begin(&ready.epoch, p, Some(ready.session_id));
        self.ready = Some(ready.clone());
    }

    /// The user is in this guild now.
    fn know(&mut self, guild: &Guild) {
        self.forget(guild.guild_id);
        if let Some(ready) = &mut self.ready {
            ready.guilds.push(guild.clone());
        }
    }

    /// The user is in this guild no longer.
    fn forget(&mut self, guild: GuildId) {
        if let Some(ready) = &mut self.ready {
            ready.guilds.retain(|known| known.guild_id != guild);
        }
    }

    /// Nobody listens any more. Whoever does again has not missed what happened meanwhile.
    fn abandon(&mut self) {
        self.listener = Listener::None;
        self.given = Given::default();
        self.clear();
    }

    fn clear(&mut self) {
        self.items.clear();
        self.bytes = 0;
    }

    fn wake(&mut self) {
        if let Some(waker) = self.waker.take() {
            waker.wake();
        }
    }
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt;
    use jiscord_core::{Timestamp, frame::Resync};

    use super::*;

    fn event(name: &str) -> Result<Event> {
        let user_id = "a00c0580-e748-11f1-8000-010000000000".parse().unwrap();
        let guild_id = "a13d3280-e748-11f1-8000-010000000000".parse().unwrap();
        Ok(Event::MemberAdd(Member { guild_id, user_id, username: Some(name.into()), joined_at: Timestamp::from_ms(0), rev: 1 }))
    }

    /// The names of what waits in the stream now, up to a gap.
    fn heard(events: &mut Feed) -> Vec<String> {
        let mut heard = Vec::new();
        while let Some(Some(Told::Event(Ok(Event::MemberAdd(member))))) = events.next().now_or_never() {
            heard.extend(member.username);
        }
        heard
    }

    #[test]
    fn events_wait_for_the_first_listener() {
        let queue = Queue::new(100);
        queue.push(event("a"), 10);
        let mut events = queue.listen();
        queue.push(event("b"), 10);
        assert_eq!(heard(&mut events), ["a", "b"]);
    }

    #[test]
    fn who_never_listens_is_not_kept_waiting() {
        let queue = Queue::new(100);
        for _ in 0..1_000 {
            assert!(queue.push(event("a"), 10));
            assert!(queue.has_room());
        }
        let mut events = queue.listen();
        queue.push(event("b"), 10);
        assert_eq!(heard(&mut events), ["b"]);
    }

    #[test]
    fn a_full_queue_has_no_room_and_later_no_patience() {
        let queue = Queue::new(100);
        let mut events = queue.listen();
        for at in 0..80 {
            assert_eq!(queue.has_room(), at < 10);
            assert!(queue.push(event("a"), 10));
        }
        assert!(!queue.push(event("a"), 10));
        assert_eq!(heard(&mut events).len(), 80);
        assert!(queue.has_room());
        assert!(queue.drained().now_or_never().is_some());
    }

    #[test]
    fn a_new_listener_takes_over_what_waits() {
        let queue = Queue::new(100);
        let mut first = queue.listen();
        queue.push(event("a"), 10);
        let mut second = queue.listen();
        assert!(first.next().now_or_never().unwrap().is_none());
        drop(first);
        assert_eq!(heard(&mut second), ["a"]);
    }

    #[test]
    fn the_reason_of_the_end_comes_last_and_waits_for_who_asks_late() {
        let queue = Queue::new(100);
        queue.push(event("a"), 10);
        queue.end(Some(Error::Evicted));
        queue.push(event("b"), 10);
        let mut events = queue.listen();
        assert!(matches!(events.next().now_or_never(), Some(Some(Told::Event(Ok(_))))));
        assert!(matches!(events.next().now_or_never(), Some(Some(Told::Event(Err(Error::Evicted))))));
        assert!(matches!(events.next().now_or_never(), Some(None)));
    }

    #[test]
    fn nothing_is_told_behind_a_gap_that_will_not_be_filled() {
        let queue = Queue::new(100);
        queue.push(event("a"), 10);
        let gap = Gap::Resync(Resync { topics: None, epoch: "e".into(), spread: None });
        queue.push_at(Item { told: gap.into(), p: Some(Position(1)), is_replayed: false, bytes: 10 });
        queue.push(event("b"), 10);
        let mut events = queue.listen();
        assert_eq!(heard(&mut events), ["a"]);
        assert!(matches!(events.next().now_or_never(), Some(Some(Told::Gap(_)))), "until it is closed");
        queue.end(Some(Error::Evicted));
        assert!(matches!(events.next().now_or_never(), Some(Some(Told::Event(Err(Error::Evicted))))));
        assert!(matches!(events.next().now_or_never(), Some(None)));
    }
}
