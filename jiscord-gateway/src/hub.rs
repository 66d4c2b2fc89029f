//! Sessions and guilds of one gateway, and the line that tells them what happens.
//!
//! One task, the line, takes events off the bus in the order of their positions. For each it changes the guild objects if
//! need be, works out who hears it, and hands it to the dispatchers, all under one short lock. A session becomes live under
//! the same lock, so between the position in its READY and its first event nothing is lost or doubled.

use std::{
    collections::{HashMap, HashSet},
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use futures_util::{StreamExt, future::join_all, stream};
use jiscord_core::{
    ChannelId, Code, Event, EventId, Fault, GuildId, Placed, Position, ServerFrame, SessionId, Topic, UserId,
    backend::{Actor, Backend},
    fault::Result,
    frame::{CloseCode, GuildCreate, GuildDelete, Intents, PROTOCOL, Ready, Typing},
    model::{Channel, Rev, User},
    text::Device,
    time::{Clock, SystemClock},
};
use tokio::{
    sync::mpsc,
    time::{Instant, timeout},
};
use tokio_tungstenite::tungstenite::Utf8Bytes;
use uuid::Uuid;

use crate::{
    bus::{Bus, Heard},
    dispatch::{Dispatchers, End, Key, Post, Tell},
    guild::{GuildObject, Revved, by_dispatcher},
    settings::Settings,
};

/// How long the line waits for a guild that somebody here has just joined. After that his sessions are closed, so that they
/// come back and load everything anew.
const STOPPED_LINE: Duration = Duration::from_secs(2);

/// How many guilds are loaded at once for a session that begins.
const LOADS: usize = 8;

pub(crate) struct Hub {
    pub(crate) backend: Arc<dyn Backend>,
    pub(crate) bus: Arc<dyn Bus>,
    pub(crate) settings: Settings,
    pub(crate) dispatchers: Dispatchers,
    state: Mutex<State>,
    keys: AtomicU64,
    born: Instant,
}

struct State {
    /// Everything up to here was handed to the dispatchers.
    p: Position,
    sessions: HashMap<Key, Session>,
    /// The one session of each user's device; the nameless device is `None`.
    users: HashMap<UserId, HashMap<Option<Device>, Key>>,
    guilds: HashMap<GuildId, Hosted>,
}

struct Session {
    user: UserId,
    device: Option<Device>,
    end: End,
    /// Milliseconds since the hub began at which the client was last heard.
    heard: Arc<AtomicU64>,
    stage: Stage,
}

enum Stage {
    /// Its guilds are being loaded. What happens to its memberships meanwhile is kept.
    Entering(Vec<Change>),
    /// It is told events of these guilds.
    Live(HashSet<GuildId>),
}

/// A guild that is held for sessions here.
#[derive(Default)]
struct Hosted {
    /// None while it is being loaded.
    object: Option<GuildObject>,
    /// What happened to it before it was loaded.
    early: Vec<Change>,
    /// How many hold it beside its sessions.
    pins: usize,
    /// Whoever has the turn loads it; the others wait for that.
    turn: Arc<tokio::sync::Mutex<()>>,
    /// Kept as long as the guild is held.
    topic: Option<Joined>,
}

/// What an event changes in a guild object.
#[derive(Clone, Debug)]
enum Change {
    Join { guild: GuildId, user: UserId, rev: Rev },
    Leave { guild: GuildId, user: UserId, rev: Rev },
    Channel(Channel),
    ChannelGone { guild: GuildId, channel: ChannelId, rev: Rev },
}

impl Change {
    /// Only ops that change a guild object are parsed.
    fn of(event: &Event) -> Option<Self> {
        if !matches!(&*event.op, "GUILD_CREATE" | "MEMBER_ADD" | "MEMBER_REMOVE" | "CHANNEL_CREATE" | "CHANNEL_DELETE") {
            return None;
        }
        Some(match Placed::read(&event.frame).ok()?.frame {
            ServerFrame::GuildCreate(create) => {
                let user = event.topics.iter().find_map(|topic| match topic {
                    Topic::User(user) => Some(*user),
                    Topic::Guild(_) => None,
                })?;
                Self::Join { guild: create.guild.guild_id, user, rev: create.guild.rev }
            }
            ServerFrame::MemberAdd(member) => Self::Join { guild: member.guild_id, user: member.user_id, rev: member.rev },
            ServerFrame::MemberRemove(member) => Self::Leave { guild: member.guild_id, user: member.user_id, rev: member.rev },
            ServerFrame::ChannelCreate(channel) => Self::Channel(channel),
            ServerFrame::ChannelDelete(gone) => {
                Self::ChannelGone { guild: gone.guild_id, channel: gone.channel_id, rev: gone.rev }
            }
            _ => return None,
        })
    }
}

impl Change {
    /// Applies a change of channels to the guild's object.
    fn apply(self, object: &mut GuildObject) {
        match self {
            Self::Channel(channel) => object.put_channel(channel),
            Self::ChannelGone { channel, rev, .. } => object.remove_channel(channel, rev),
            Self::Join { .. } | Self::Leave { .. } => {}
        }
    }
}

/// Which intent a session needs to be told of an op. All of them for an op that has none of its own.
fn intent(op: &str) -> Intents {
    match op {
        "TYPING" => Intents::TYPING,
        op if op.starts_with("MESSAGE_") => Intents::MESSAGES,
        op if op.starts_with("MEMBER_") => Intents::MEMBERS,
        op if op.starts_with("GUILD_") || op.starts_with("CHANNEL_") => Intents::GUILDS,
        _ => Intents::empty(),
    }
}

/// Who asks for a session.
pub(crate) struct Entrant<'a> {
    pub(crate) token: &'a str,
    pub(crate) device: Option<Device>,
    pub(crate) intents: Intents,
    pub(crate) end: &'a End,
    pub(crate) heard: &'a Arc<AtomicU64>,
}

/// The close code for a fault that ends an IDENTIFY. Only a token that is surely bad is called so: its owner throws it away.
fn refusal(fault: &Fault) -> CloseCode {
    if fault.code == Code::UNAUTHORIZED {
        return CloseCode::BadToken;
    }
    tracing::warn!(error = %fault, code = %fault.code, "a session could not begin");
    CloseCode::TryLater
}

/// A topic that is listened to until this is dropped.
struct Joined {
    bus: Arc<dyn Bus>,
    topic: Topic,
}

impl Drop for Joined {
    fn drop(&mut self) {
        self.bus.leave(self.topic);
    }
}

/// A session's place in the hub; dropping it ends the session.
pub(crate) struct Seat {
    hub: Arc<Hub>,
    key: Key,
    pub(crate) user: UserId,
    _topic: Option<Joined>,
}

impl Drop for Seat {
    fn drop(&mut self) {
        self.hub.detach(&mut self.hub.lock(), self.key, None);
    }
}

/// Holds a guild here until a session does.
struct Pin {
    hub: Arc<Hub>,
    guild: GuildId,
}

impl Drop for Pin {
    fn drop(&mut self) {
        let mut state = self.hub.lock();
        if let Some(hosted) = state.guilds.get_mut(&self.guild) {
            hosted.pins -= 1;
        }
        state.unhost(self.guild);
    }
}

impl State {
    /// Lets a guild go that nobody here needs any more.
    fn unhost(&mut self, guild: GuildId) {
        let idle = |hosted: &Hosted| hosted.pins == 0 && hosted.object.as_ref().is_none_or(GuildObject::is_empty);
        if self.guilds.get(&guild).is_some_and(idle) {
            self.guilds.remove(&guild);
        }
    }

    /// Changes a guild's channels, or keeps the change until the guild is loaded.
    fn change(&mut self, change: Change) {
        let guild = match &change {
            Change::Channel(channel) => channel.guild_id,
            Change::ChannelGone { guild, .. } => *guild,
            Change::Join { .. } | Change::Leave { .. } => return,
        };
        match self.guilds.get_mut(&guild) {
            Some(Hosted { object: Some(object), .. }) => change.apply(object),
            Some(hosted) => hosted.early.push(change),
            None => {}
        }
    }

    /// A user came into a guild. Returns his sessions that hear it from now on.
    fn come(&mut self, guild: GuildId, user: UserId, rev: Rev) -> Vec<Key> {
        let mut keys = self.keys(user);
        let mut object = self.guilds.get_mut(&guild).and_then(|hosted| hosted.object.as_mut());
        let member = !keys.is_empty() && object.as_mut().is_some_and(|object| object.join(user, rev));
        keys.retain(|key| match self.sessions.get_mut(key).map(|session| &mut session.stage) {
            Some(Stage::Live(guilds)) if member => {
                guilds.insert(guild);
                if let Some(object) = &mut object {
                    object.add(*key, user);
                }
                true
            }
            Some(Stage::Entering(changes)) => {
                changes.push(Change::Join { guild, user, rev });
                false
            }
            _ => false,
        });
        keys
    }

    /// A user is out of a guild. Returns his sessions that heard it until now.
    fn go(&mut self, guild: GuildId, user: UserId, rev: Rev) -> Vec<Key> {
        let mut keys = self.keys(user);
        let object = self.guilds.get_mut(&guild).and_then(|hosted| hosted.object.as_mut());
        let left = !keys.is_empty() && object.is_some_and(|object| object.leave(user, rev));
        keys.retain(|key| match self.sessions.get_mut(key).map(|session| &mut session.stage) {
            Some(Stage::Live(guilds)) if left => guilds.remove(&guild),
            Some(Stage::Entering(changes)) => {
                changes.push(Change::Leave { guild, user, rev });
                false
            }
            _ => false,
        });
        keys
    }

    /// The sessions of a user.
    fn keys(&self, user: UserId) -> Vec<Key> {
        self.users.get(&user).map(|devices| devices.values().copied().collect()).unwrap_or_default()
    }
}

impl Hub {
    pub(crate) fn new(backend: Arc<dyn Backend>, bus: Arc<dyn Bus>, settings: Settings) -> Arc<Self> {
        let dispatchers = Dispatchers::start(settings.dispatchers, settings.limits.queue, settings.limits.write);
        let state = State { p: bus.start(), sessions: HashMap::new(), users: HashMap::new(), guilds: HashMap::new() };
        let (state, keys, born) = (Mutex::new(state), AtomicU64::new(0), Instant::now());
        Arc::new(Self { backend, bus, settings, dispatchers, state, keys, born })
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

    /// Waits for an answer of the backend's or the bus's, but not for ever.
    async fn ask<T>(&self, call: impl Future<Output = Result<T>>) -> Result<T> {
        let late = |_| Err(Fault::new(Code::UNAVAILABLE, "no answer in time"));
        timeout(self.settings.limits.command, call).await.unwrap_or_else(late)
    }

    async fn join(&self, topic: Topic) -> Result<Joined> {
        self.ask(self.bus.join(topic)).await?;
        Ok(Joined { bus: self.bus.clone(), topic })
    }

    /// Makes a session of a socket: claims its place, loads its guilds, says READY.
    pub(crate) async fn enter(self: &Arc<Self>, key: Key, who: Entrant<'_>) -> Result<Seat, CloseCode> {
        let user = self.ask(self.backend.verify_token(who.token)).await.map_err(|fault| refusal(&fault))?.user_id;
        let actor = Actor::User(user);
        let profile = self.ask(self.backend.user(actor, user)).await.map_err(|fault| {
            // The token is good, but its user is gone.
            if fault.code == Code::NOT_FOUND { CloseCode::BadToken } else { refusal(&fault) }
        })?;

        let (end, heard) = (who.end.clone(), who.heard.clone());
        self.claim(key, Session { user, device: who.device, end, heard, stage: Stage::Entering(Vec::new()) });
        let mut seat = Seat { hub: self.clone(), key, user, _topic: None };
        seat._topic = Some(self.join(Topic::User(user)).await.map_err(|fault| refusal(&fault))?);

        // The line keeps what happens to this user's memberships from the claim on, so what is loaded now cannot be outdated
        // without notice.
        let mut member_of = Revved::default();
        for membership in self.ask(self.backend.memberships(actor, user)).await.map_err(|fault| refusal(&fault))? {
            member_of.put(membership.guild.guild_id, membership.rev, ());
        }
        let mut pins = HashMap::new();
        loop {
            let missing: Vec<_> = member_of.iter().map(|row| row.0).filter(|guild| !pins.contains_key(guild)).collect();
            let hosted = stream::iter(missing).map(|guild| async move { (guild, self.host(guild).await) });
            for (guild, pin) in hosted.buffer_unordered(LOADS).collect::<Vec<_>>().await {
                match pin {
                    Ok(pin) => drop(pins.insert(guild, pin)),
                    // Deleted since: there is nothing to hear.
                    Err(fault) if fault.code == Code::NOT_FOUND => drop(member_of.remove(guild, Rev::MAX)),
                    Err(fault) => return Err(refusal(&fault)),
                }
            }
            let Ok(permit) = self.dispatchers.of(key).reserve().await else { return Err(CloseCode::GoingAway) };
            if self.go_live(key, &profile, who.intents, &mut member_of, &pins, permit)? {
                return Ok(seat);
            }
        }
    }

    /// Claims the one place of a user's device. Whoever had it is evicted, and hears nothing from here on.
    fn claim(&self, key: Key, session: Session) {
        let mut state = self.lock();
        let (user, device) = (session.user, session.device.clone());
        state.sessions.insert(key, session);
        let devices = state.users.entry(user).or_default();
        let mut evicted: Vec<_> = devices.insert(device, key).into_iter().collect();
        if devices.len() > self.settings.limits.devices {
            let others: Vec<_> = devices.values().copied().filter(|other| *other != key).collect();
            let silent = |key: &Key| state.sessions.get(key).map(|session| session.heard.load(Ordering::Relaxed));
            evicted.extend(others.into_iter().min_by_key(silent));
        }
        for old in evicted {
            self.detach(&mut state, old, Some(CloseCode::Evicted));
        }
    }

    /// Takes a session out of everything, so that it hears nothing more, and says why. A session that is out already stays so.
    fn detach(&self, state: &mut State, key: Key, why: Option<CloseCode>) {
        let Some(session) = state.sessions.remove(&key) else { return };
        if let Some(devices) = state.users.get_mut(&session.user) {
            // Only its own place: a later session may have it by now.
            if devices.get(&session.device) == Some(&key) {
                devices.remove(&session.device);
            }
            if devices.is_empty() {
                state.users.remove(&session.user);
            }
        }
        if let Stage::Live(guilds) = session.stage {
            for guild in guilds {
                if let Some(object) = state.guilds.get_mut(&guild).and_then(|hosted| hosted.object.as_mut()) {
                    object.remove(key);
                }
                state.unhost(guild);
            }
        }
        session.end.set(why);
    }

    /// Holds a guild, and loads it if nobody has yet. [`Code::NOT_FOUND`] if there is no such guild.
    async fn host(self: &Arc<Self>, guild: GuildId) -> Result<Pin> {
        let (pin, turn) = {
            let mut state = self.lock();
            let hosted = state.guilds.entry(guild).or_default();
            hosted.pins += 1;
            (Pin { hub: self.clone(), guild }, hosted.turn.clone())
        };
        let _turn = turn.lock().await;
        if self.lock().guilds.get(&guild).is_some_and(|hosted| hosted.object.is_some()) {
            return Ok(pin);
        }
        // First listen, then load: what changes in between is kept as early, and applied by its `rev`.
        let topic = self.join(Topic::Guild(guild)).await?;
        let state = self.ask(self.backend.load_guild(Actor::System, guild)).await?;
        let mut object = GuildObject::new(state.ok_or_else(|| Fault::not_found("guild"))?);
        if let Some(hosted) = self.lock().guilds.get_mut(&guild) {
            for change in hosted.early.drain(..) {
                change.apply(&mut object);
            }
            (hosted.object, hosted.topic) = (Some(object), Some(topic));
        }
        Ok(pin)
    }

    /// Lets a session hear its guilds, and says READY, in one step. False if its memberships changed so that more must be loaded.
    fn go_live(
        &self,
        key: Key,
        user: &User,
        intents: Intents,
        member_of: &mut Revved<GuildId, ()>,
        pins: &HashMap<GuildId, Pin>,
        permit: mpsc::Permit<'_, Post>,
    ) -> Result<bool, CloseCode> {
        let mut state = self.lock();
        let State { p, sessions, guilds: hosted, .. } = &mut *state;
        let session = sessions.get_mut(&key).ok_or(CloseCode::Evicted)?;
        if let Stage::Entering(changes) = &mut session.stage {
            for change in changes.drain(..) {
                match change {
                    Change::Join { guild, rev, .. } => drop(member_of.put(guild, rev, ())),
                    Change::Leave { guild, rev, .. } => drop(member_of.remove(guild, rev)),
                    Change::Channel(_) | Change::ChannelGone { .. } => {}
                }
            }
        }
        if member_of.iter().any(|(guild, ..)| !pins.contains_key(&guild)) {
            return Ok(false);
        }
        let (mut live, mut guilds) = (HashSet::new(), Vec::new());
        for (guild, rev, ()) in member_of.iter() {
            let Some(object) = hosted.get_mut(&guild).and_then(|hosted| hosted.object.as_mut()) else { continue };
            if object.join(user.user_id, rev) {
                object.add(key, user.user_id);
                live.insert(guild);
                guilds.push(object.guild().clone());
            }
        }
        guilds.sort_by_key(|guild| (guild.created_at, guild.guild_id));
        session.stage = Stage::Live(live);
        let ready = ServerFrame::Ready(Ready {
            user_id: user.user_id,
            session_id: SessionId::new(Uuid::new_v4()),
            user: user.clone(),
            guilds,
            protocol: PROTOCOL,
            epoch: self.bus.epoch(),
        });
        permit.send(Post::Ready { key, text: ready.at(*p).encode().into(), intents, p: *p });
        Ok(true)
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

    /// The line: takes events off the bus and tells them, for as long as it is polled.
    pub(crate) async fn line(self: Arc<Self>) {
        loop {
            let Heard::Event { event, p } = self.bus.next().await else { continue };
            let change = Change::of(&event);
            // Held until the event is told: his sessions hold the guild then.
            let _pin = match change {
                Some(Change::Join { guild, user, .. }) => self.make_room(guild, user).await,
                _ => None,
            };
            let permits = join_all(self.dispatchers.all().iter().map(mpsc::Sender::reserve)).await;
            let mut state = self.lock();
            for (permit, mut posts) in permits.into_iter().zip(self.tell(&mut state, event, p, change)) {
                // A dispatcher ends only with the hub.
                let Ok(permit) = permit else { continue };
                match posts.pop() {
                    None => {}
                    Some(post) if posts.is_empty() => permit.send(post),
                    Some(post) => {
                        posts.push(post);
                        permit.send(Post::Many(posts));
                    }
                }
            }
        }
    }

    /// Loads the guild that a user with sessions here has come into, while the line waits.
    async fn make_room(self: &Arc<Self>, guild: GuildId, user: UserId) -> Option<Pin> {
        if !self.lock().users.contains_key(&user) {
            return None;
        }
        match timeout(STOPPED_LINE, self.host(guild)).await {
            Ok(Ok(pin)) => return Some(pin),
            Ok(Err(error)) if error.code == Code::NOT_FOUND => return None,
            Ok(Err(error)) => tracing::warn!(%guild, %error, "a guild cannot be loaded"),
            Err(_) => tracing::warn!(%guild, "a guild takes too long to load"),
        }
        // They would miss what happens in it. When they come back, READY has it.
        let mut state = self.lock();
        for key in state.keys(user) {
            self.detach(&mut state, key, Some(CloseCode::TryLater));
        }
        None
    }

    /// Changes what an event changes, and says what each dispatcher is to do about it.
    fn tell(&self, state: &mut State, event: Event, p: Option<Position>, change: Option<Change>) -> Vec<Vec<Post>> {
        state.p = p.unwrap_or(state.p);
        let count = self.dispatchers.count();
        let mut posts: Vec<Vec<Post>> = (0..count).map(|_| Vec::new()).collect();
        let mut tell = |text: &Utf8Bytes, intent, audience: &[Arc<[Key]>]| {
            for (posts, to) in posts.iter_mut().zip(audience) {
                if !to.is_empty() {
                    posts.push(Post::Tell(Tell { text: text.clone(), p, intent, to: to.clone() }));
                }
            }
        };
        let text = Utf8Bytes::from(event.text_at(p));
        let wants = intent(&event.op);

        // A frame of their own comes first for those whom it concerns. It stands at the same position, so that the dispatcher
        // leaves out the one for everybody else.
        let mut concerned = false;
        let mut after = None;
        match change {
            Some(Change::Join { guild, user, rev }) => {
                concerned = true;
                let keys = state.come(guild, user, rev);
                if let Some(object) = state.guilds.get(&guild).and_then(|hosted| hosted.object.as_ref())
                    && !keys.is_empty()
                {
                    let create = GuildCreate { guild: object.guild().clone(), channels: object.channels() };
                    let own = ServerFrame::GuildCreate(create).at(p).encode().into();
                    tell(&own, Intents::GUILDS, &by_dispatcher(keys.into_iter(), count));
                }
            }
            Some(Change::Leave { guild, user, rev }) => {
                concerned = true;
                let keys = state.go(guild, user, rev);
                let own = ServerFrame::GuildDelete(GuildDelete { guild_id: guild, rev }).at(p).encode().into();
                tell(&own, Intents::GUILDS, &by_dispatcher(keys.into_iter(), count));
            }
            Some(change @ Change::Channel(_)) => state.change(change),
            // Whoever saw the channel is told that it is gone.
            Some(change @ Change::ChannelGone { .. }) => after = Some(change),
            None => {}
        }
        for topic in &event.topics {
            match *topic {
                Topic::Guild(guild) => {
                    if let Some(object) = state.guilds.get_mut(&guild).and_then(|hosted| hosted.object.as_mut()) {
                        tell(&text, wants, object.audience(event.channel, count));
                    }
                }
                Topic::User(user) if !concerned => {
                    tell(&text, wants, &by_dispatcher(state.keys(user).into_iter(), count));
                }
                Topic::User(_) => {}
            }
        }
        if let Some(change) = after {
            state.change(change);
        }
        for topic in &event.topics {
            if let Topic::Guild(guild) = *topic {
                // The last one here may have left it.
                state.unhost(guild);
            }
        }
        posts
    }
}
