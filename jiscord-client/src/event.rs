//! What happens, and the stream in which it is told.

use std::{
    collections::VecDeque,
    fmt,
    future::poll_fn,
    pin::Pin,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    task::{Context, Poll, Waker},
    time::Duration,
};

use futures_util::Stream;
use jiscord_core::{
    Position, ServerFrame,
    frame::{ChannelDelete, ErrorFrame, GuildCreate, GuildDelete, MemberRemove, Ready, Resync, Typing},
    model::{Channel, Member, Message},
};
use serde::{Deserialize, Serialize};
use tokio::sync::Notify;

use crate::error::{Error, Result};

/// Something that happened.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub enum Event {
    /// A session began: the first, or one that could not go on after the connection was lost. What happened in between is in the
    /// channels' history ([`crate::Http::messages`] with `after`), not in this stream.
    Ready(Ready),
    /// The connection was lost and the session goes on: what happened in between came just before this.
    Resumed,
    /// The connection is lost, and will be made anew after so long. [`Event::Resumed`] or [`Event::Ready`] tells when it is.
    Lost {
        /// How long it waits before it tries.
        retry_in: Duration,
    },
    /// What was kept of these topics may be stale; read it again.
    Resync(Resync),
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
            ServerFrame::Ready(ready) => Self::Ready(ready),
            ServerFrame::Resync(resync) => Self::Resync(resync),
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
/// An `Err` tells of one event that was not understood and skipped. [`Error::Unauthorized`] and [`Error::Evicted`] are the last
/// item: the client will not come back by itself. After [`Client::close`](crate::Client::close) the stream just ends.
#[must_use = "events are told to who asks for the next one"]
pub struct Events {
    queue: Queue,
    turn: u64,
}

/// Where a program is in what happens. Keep it, with what came of the events until then, and give it to
/// [`Builder::resume`](crate::client::Builder::resume) when the program starts again: what happened meanwhile is told.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ResumePoint {
    pub(crate) ready: Ready,
    pub(crate) after: Position,
}

impl Events {
    /// Behind the last event that was taken. `None` before the first one.
    pub fn resume_point(&self) -> Option<ResumePoint> {
        self.queue.state().point.clone()
    }

    /// The next event; `None` when there will be no more.
    pub async fn next(&mut self) -> Option<Result<Event>> {
        poll_fn(|cx| self.queue.poll(self.turn, cx)).await
    }
}

impl Stream for Events {
    type Item = Result<Event>;

    fn poll_next(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        self.queue.poll(self.turn, cx)
    }
}

impl Drop for Events {
    fn drop(&mut self) {
        self.queue.leave(self.turn);
    }
}

impl fmt::Debug for Events {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Events").finish_non_exhaustive()
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
    /// Behind the last event that was taken.
    point: Option<ResumePoint>,
    bytes: usize,
    listener: Listener,
    turns: u64,
    waker: Option<Waker>,
    ended: bool,
}

struct Item {
    event: Result<Event>,
    p: Option<Position>,
    bytes: usize,
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
        let items = VecDeque::new();
        let state = State { items, point: None, bytes: 0, listener: Listener::Awaited, turns: 0, waker: None, ended: false };
        Self { shared: Arc::new(Shared { state: Mutex::new(state), drained: Notify::new(), full: full.max(1) }) }
    }

    /// Goes on from where another process was.
    pub(crate) fn begin_at(&self, point: ResumePoint) {
        self.state().point = Some(point);
    }

    /// The stream; an earlier one ends.
    pub(crate) fn listen(&self) -> Events {
        let mut state = self.state();
        state.turns += 1;
        state.listener = Listener::Here(state.turns);
        state.wake();
        Events { queue: self.clone(), turn: state.turns }
    }

    /// Adds an event whose frame had `bytes`. False if there is far too much already.
    pub(crate) fn push(&self, event: Result<Event>, bytes: usize) -> bool {
        self.push_at(event, None, bytes)
    }

    /// The same, for an event with a place in the log.
    pub(crate) fn push_at(&self, event: Result<Event>, p: Option<Position>, bytes: usize) -> bool {
        let mut state = self.state();
        if state.listener == Listener::Awaited && state.bytes >= self.shared.full {
            // A program that only sends must not be slowed down by what it does not want to hear.
            state.listener = Listener::None;
            state.clear();
        }
        if state.listener == Listener::None || state.ended {
            return true;
        }
        if state.bytes >= self.shared.full * Self::STRETCH {
            return false;
        }
        state.bytes += bytes;
        state.items.push_back(Item { event, p, bytes });
        state.wake();
        true
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
        state.ended = true;
        if let Some(error) = error {
            state.items.push_back(Item { event: Err(error), p: None, bytes: 0 });
        }
        state.wake();
    }

    fn poll(&self, turn: u64, cx: &mut Context<'_>) -> Poll<Option<Result<Event>>> {
        let mut state = self.state();
        if state.listener != Listener::Here(turn) {
            return Poll::Ready(None);
        }
        if let Some(Item { event, p, bytes }) = state.items.pop_front() {
            state.bytes -= bytes;
            if let (Ok(event), Some(p)) = (&event, p) {
                state.pass(event, p);
            }
            if state.bytes < self.shared.full {
                self.shared.drained.notify_one();
            }
            return Poll::Ready(Some(event));
        }
        if state.ended {
            return Poll::Ready(None);
        }
        state.waker = Some(cx.waker().clone());
        Poll::Pending
    }

    fn leave(&self, turn: u64) {
        let mut state = self.state();
        if state.listener == Listener::Here(turn) {
            state.listener = Listener::None;
            state.clear();
            self.shared.drained.notify_one();
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        // No code of others runs under the lock, and each step leaves a whole state.
        self.shared.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    /// An event was taken.
    fn pass(&mut self, event: &Event, p: Position) {
        match (event, &mut self.point) {
            (Event::Ready(ready), point) => *point = Some(ResumePoint { ready: ready.clone(), after: p }),
            (Event::Resync(resync), Some(point)) if resync.epoch != point.ready.epoch => {
                point.ready.epoch.clone_from(&resync.epoch);
                point.after = p;
            }
            // One that was lost before and found later stands below.
            (_, Some(point)) => point.after = point.after.max(p),
            (_, None) => {}
        }
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
    use jiscord_core::frame::Resync;

    use super::*;

    fn event(epoch: &str) -> Result<Event> {
        Ok(Event::Resync(Resync { topics: None, epoch: epoch.into(), spread: None }))
    }

    /// The epochs of what waits in the stream now.
    fn heard(events: &mut Events) -> Vec<String> {
        let mut heard = Vec::new();
        while let Some(Some(Ok(Event::Resync(resync)))) = events.next().now_or_never() {
            heard.push(resync.epoch);
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
        assert!(matches!(events.next().now_or_never(), Some(Some(Ok(_)))));
        assert!(matches!(events.next().now_or_never(), Some(Some(Err(Error::Evicted)))));
        assert!(matches!(events.next().now_or_never(), Some(None)));
    }
}
