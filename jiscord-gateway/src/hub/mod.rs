//! Sessions and guilds of one gateway, and the line that tells them what happens.
//!
//! One task, the line, takes events off the bus in the order of their positions. For each it changes the guild objects if
//! need be, works out who hears it, and hands it to the dispatchers, all under one short lock. A session becomes live under
//! the same lock, so between the position in its READY and its first event nothing is lost or doubled.

mod enter;
mod line;
mod resume;
mod state;

use std::{
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use jiscord_core::{
    ChannelId, Code, Event, EventId, Fault, GuildId, Position, ServerFrame, Topic, UserId,
    backend::Backend,
    fault::Result,
    frame::Typing,
    time::{Clock, SystemClock},
};
use tokio::{
    sync::{Semaphore, SemaphorePermit, mpsc},
    time::{Instant, timeout},
};

pub(crate) use self::enter::{Cut, Entrant, Refused, Seat};
use self::state::{Stage, State};
use crate::{
    bus::Bus,
    chance::{HashMap, watch},
    claims::{Claim, Claims},
    dispatch::{Dispatchers, Key, Post},
    settings::Settings,
};

pub(crate) struct Hub {
    pub(crate) backend: Arc<dyn Backend>,
    pub(crate) bus: Arc<dyn Bus>,
    pub(crate) settings: Settings,
    pub(crate) dispatchers: Dispatchers,
    claims: Arc<dyn Claims>,
    state: Mutex<State>,
    ended: tokio::sync::Mutex<mpsc::UnboundedReceiver<Claim>>,
    keys: AtomicU64,
    born: Instant,
    /// Follows the state's position.
    reached: watch::Sender<Position>,
    /// Turns at becoming a session, so that many who come at once leave the rest of the system room.
    turns: Semaphore,
    /// Messages that are under way to the store.
    sends: Semaphore,
}

/// A topic that is listened to until this is dropped.
struct Joined {
    bus: Arc<dyn Bus>,
    topic: Topic,
    /// All above it is heard.
    from: Position,
}

impl Drop for Joined {
    fn drop(&mut self) {
        self.bus.leave(self.topic);
    }
}

impl Hub {
    pub(crate) fn new(backend: Arc<dyn Backend>, bus: Arc<dyn Bus>, claims: Arc<dyn Claims>, settings: Settings) -> Arc<Self> {
        let dispatchers = Dispatchers::start(settings.dispatchers, settings.limits.queue, settings.limits.write);
        let (ending, ended) = mpsc::unbounded_channel();
        let reached = watch::Sender::new(bus.start());
        let sends = Semaphore::new(settings.limits.sends.clamp(1, Semaphore::MAX_PERMITS));
        let turns = Semaphore::new(settings.limits.entering.clamp(1, Semaphore::MAX_PERMITS));
        let state = State {
            epoch: bus.epoch(),
            p: bus.start(),
            sessions: HashMap::default(),
            users: HashMap::default(),
            guilds: HashMap::default(),
            ended: ending,
        };
        Arc::new(Self {
            backend,
            bus,
            settings,
            dispatchers,
            claims,
            state: Mutex::new(state),
            ended: tokio::sync::Mutex::new(ended),
            keys: AtomicU64::new(0),
            born: Instant::now(),
            reached,
            turns,
            sends,
        })
    }

    /// All that goes on beside the connections, for as long as it is polled.
    pub(crate) async fn run(self: Arc<Self>) {
        tokio::join!(self.line(), self.keep_claims());
    }

    /// A name for a new socket.
    pub(crate) fn key(&self) -> Key {
        self.keys.fetch_add(1, Ordering::Relaxed)
    }

    /// The hub's time, for telling who is silent longest.
    pub(crate) fn millis(&self) -> u64 {
        u64::try_from(self.born.elapsed().as_millis()).unwrap_or(u64::MAX)
    }

    /// Held for moments only, never over an await.
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Posts something for one socket.
    pub(crate) async fn post(&self, key: Key, post: Post) {
        // A dispatcher ends only with the hub.
        let _ = self.dispatchers.of(key).send(post).await;
    }

    /// Says a frame to one socket.
    pub(crate) async fn say(&self, key: Key, frame: ServerFrame) {
        self.post(key, Post::Say { key, text: frame.at(None).encode().into() }).await;
    }

    /// Answers HEARTBEAT of a session with the position up to which it was told everything.
    pub(crate) async fn heartbeat(&self, key: Key) {
        let Ok(permit) = self.dispatchers.of(key).reserve().await else { return };
        let state = self.lock();
        permit.send(Post::Say { key, text: ServerFrame::HeartbeatAck(()).at(state.p).encode().into() });
    }

    /// A turn at becoming a session. [`Code::BUSY`] if too many others wait for theirs.
    async fn turn(&self) -> Result<SemaphorePermit<'_>> {
        let patience = self.settings.limits.command;
        match timeout(patience, self.turns.acquire()).await {
            Ok(Ok(turn)) => Ok(turn),
            // The first half comes back as the second half is through.
            _ => Err(Fault::new(Code::BUSY, "too many sessions begin at once").retry_after(patience)),
        }
    }

    /// Room for one more message under way. [`Code::BUSY`] if there is none.
    pub(crate) fn room(&self) -> Result<SemaphorePermit<'_>> {
        let busy = |_| Fault::new(Code::BUSY, "too many messages at once; try again").retry_after(Duration::from_secs(1));
        self.sends.try_acquire().map_err(busy)
    }

    /// Returns when everything up to `p` was handed to the dispatchers.
    async fn reach(&self, p: Position) -> Result<()> {
        let mut reached = self.reached.subscribe();
        self.ask(async {
            // It cannot close while `self` holds the sender.
            let _ = reached.wait_for(|reached| *reached >= p).await;
            Ok(())
        })
        .await
    }

    /// Waits for an answer from elsewhere, but not for ever.
    async fn ask<T>(&self, call: impl Future<Output = Result<T>>) -> Result<T> {
        let late = |_| Err(Fault::new(Code::UNAVAILABLE, "no answer in time"));
        timeout(self.settings.limits.command, call).await.unwrap_or_else(late)
    }

    async fn join(&self, topic: Topic) -> Result<Joined> {
        let from = self.ask(self.bus.join(topic)).await?;
        Ok(Joined { bus: self.bus.clone(), topic, from })
    }

    /// Tells a channel's audience that a user types. [`Code::NOT_FOUND`] if his session does not see the channel.
    pub(crate) async fn typing(&self, key: Key, user: UserId, channel: ChannelId) -> Result<()> {
        let guild = {
            let state = self.lock();
            let Some(Stage::Live(guilds)) = state.sessions.get(&key).map(|session| &session.stage) else { return Ok(()) };
            let sees = |guild: &&GuildId| {
                let object = state.guilds.get(guild).and_then(|hosted| hosted.object.as_ref());
                object.is_some_and(|object| object.sees(key, channel))
            };
            guilds.iter().find(sees).copied().ok_or_else(|| Fault::not_found("channel"))?
        };
        let typing = Typing { channel_id: channel, user_id: user, timestamp: SystemClock.now().ms() };
        self.bus.pass(Event::new(EventId::NONE, vec![Topic::Guild(guild)], Some(channel), ServerFrame::Typing(typing))).await
    }
}
