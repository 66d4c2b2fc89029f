//! The line: takes what happens off the bus, in order, and tells it.

use std::{
    collections::{HashMap, HashSet},
    sync::Arc,
    time::Duration,
};

use futures_util::{StreamExt, TryStreamExt, future::join_all, stream};
use jiscord_core::{
    Code, Event, Fault, GuildId, Position, ServerFrame, Topic, UserId,
    backend::Actor,
    fault::Result,
    frame::{CloseCode, GuildCreate, GuildDelete, Intents},
    model::Rev,
};
use tokio::{sync::mpsc, time::sleep, time::timeout};
use tokio_tungstenite::tungstenite::Utf8Bytes;

use super::{
    Hub,
    enter::{LOADS, Pin},
    state::{Change, Session, Stage, State},
};
use crate::{
    bus::Heard,
    claims::Eviction,
    dispatch::{Key, Post, Tell},
    guild::{GuildObject, by_dispatcher},
};

/// How long the line waits for a guild that somebody here has just joined. After that his sessions are closed, so that they
/// come back and load everything anew.
const STOPPED_LINE: Duration = Duration::from_secs(2);
/// How long it waits between two tries to load everything anew.
const RELOAD: Duration = Duration::from_millis(500);

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

/// What somebody may hear, as it was loaded after a gap.
struct Fresh {
    members: HashMap<UserId, HashMap<GuildId, Rev>>,
    guilds: HashMap<GuildId, GuildObject>,
}

impl Hub {
    pub(super) async fn line(self: &Arc<Self>) {
        loop {
            match self.bus.next().await {
                Heard::Event { event, p } => {
                    // Something about these topics was not told, perhaps that a right is gone.
                    if &*event.op == "RESYNC" {
                        self.mend(None).await;
                    }
                    self.hear(event, p).await;
                }
                Heard::Gap { p } => self.mend(Some(p)).await,
                Heard::Evict { user, device, fence } => self.lock().evict(user, &Eviction { device, fence }),
            }
        }
    }

    async fn hear(self: &Arc<Self>, event: Event, p: Option<Position>) {
        let mut change = Change::of(&event);
        // Held until the event is told: his sessions hold the guild then.
        let mut _pin = None;
        if let Some(Change::Join { guild, user, .. }) = change
            && self.lock().hears(user)
        {
            _pin = self.make_room(guild, user).await;
            // Told late, when he was out again.
            change = change.filter(|_| _pin.is_some());
        }
        let permits = join_all(self.dispatchers.all().iter().map(mpsc::Sender::reserve)).await;
        let mut state = self.lock();
        for (permit, mut posts) in permits.into_iter().zip(self.tell(&mut state, &event, p, change)) {
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

    /// Loads the guild that a user with sessions here has come into, while the line waits. None if he is not in it.
    async fn make_room(self: &Arc<Self>, guild: GuildId, user: UserId) -> Option<Pin> {
        let load = async {
            let pin = self.host(guild).await?;
            let memberships = self.ask(self.backend.memberships(Actor::User(user), user)).await?;
            Ok::<_, Fault>(memberships.iter().any(|membership| membership.guild.guild_id == guild).then_some(pin))
        };
        match timeout(STOPPED_LINE, load).await {
            Ok(Ok(pin)) => return pin,
            Ok(Err(error)) if error.code == Code::NOT_FOUND => return None,
            Ok(Err(error)) => tracing::warn!(%guild, %error, "a guild cannot be loaded"),
            Err(_) => tracing::warn!(%guild, "a guild takes too long to load"),
        }
        // They would miss what happens in it. When they come back, READY has it.
        let mut state = self.lock();
        for key in state.keys(user) {
            state.detach(key, Some(CloseCode::TryLater));
        }
        None
    }

    /// Changes what an event changes, and says what each dispatcher is to do about it.
    fn tell(&self, state: &mut State, event: &Event, p: Option<Position>, change: Option<Change>) -> Vec<Vec<Post>> {
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
        let (mut concerned, mut after, mut left) = (false, None, None);
        match change {
            Some(Change::Join { guild, user, rev }) => {
                concerned = true;
                let keys = state.come(guild, user, rev);
                if let Some(object) = state.object(guild)
                    && !keys.is_empty()
                {
                    let create = GuildCreate { guild: object.guild().clone(), channels: object.channels() };
                    let own = ServerFrame::GuildCreate(create).at(p).encode().into();
                    tell(&own, Intents::GUILDS, &by_dispatcher(keys.into_iter(), count));
                }
            }
            Some(Change::Leave { guild, user, rev }) => {
                (concerned, left) = (true, Some(guild));
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
                    if let Some(object) = state.object(guild) {
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
        if let Some(guild) = left {
            state.unhost(guild);
        }
        posts
    }

    /// Something may have been missed: rights are loaded anew before anything more is told. Meanwhile what happens waits. With
    /// a position, the log goes on from there, perhaps as another one.
    async fn mend(self: &Arc<Self>, p: Option<Position>) {
        {
            // What these have loaded may be older than the gap; when they come back, they load it again.
            let mut state = self.lock();
            let entering = |session: &Session| matches!(session.stage, Stage::Entering(_));
            let keys: Vec<_> = state.sessions.iter().filter(|row| entering(row.1)).map(|row| *row.0).collect();
            for key in keys {
                state.detach(key, Some(CloseCode::TryLater));
            }
        }
        // The guilds are held until the sessions hold them. Letting go takes the lock, so it comes after it.
        let (fresh, _pins) = loop {
            match self.load_all().await {
                Ok(loaded) => break loaded,
                Err(error) => {
                    tracing::warn!(%error, "rights cannot be loaded anew; events wait");
                    sleep(RELOAD).await;
                }
            }
        };
        let permits = join_all(self.dispatchers.all().iter().map(mpsc::Sender::reserve)).await;
        let mut state = self.lock();
        state.renew(fresh);
        if let Some(p) = p {
            (state.p, state.epoch) = (p, self.bus.epoch());
            for permit in permits.into_iter().flatten() {
                permit.send(Post::From(p));
            }
        }
    }

    async fn load_all(self: &Arc<Self>) -> Result<(Fresh, Vec<Pin>)> {
        let users: Vec<_> = self.lock().users.keys().copied().collect();
        let memberships = stream::iter(users).map(|user| async move {
            let memberships = self.ask(self.backend.memberships(Actor::User(user), user)).await?;
            let revs = memberships.into_iter().map(|membership| (membership.guild.guild_id, membership.rev));
            Ok::<_, Fault>((user, revs.collect::<HashMap<_, _>>()))
        });
        let members: HashMap<_, _> = memberships.buffer_unordered(LOADS).try_collect().await?;
        let mut wanted: HashSet<_> = members.values().flat_map(HashMap::keys).copied().collect();
        // Those too that are held for somebody who is only coming.
        wanted.extend(self.lock().guilds.keys());
        let loaded = stream::iter(wanted).map(|guild| async move {
            let loaded = async {
                let pin = self.host(guild).await?;
                Ok::<_, Fault>((pin, self.load(guild).await?))
            };
            match loaded.await {
                Ok((pin, object)) => Ok(Some((guild, pin, object))),
                Err(fault) if fault.code == Code::NOT_FOUND => Ok(None),
                Err(fault) => Err(fault),
            }
        });
        let (mut guilds, mut pins) = (HashMap::new(), Vec::new());
        let mut loaded = std::pin::pin!(loaded.buffer_unordered(LOADS));
        while let Some(loaded) = loaded.next().await {
            if let Some((guild, pin, object)) = loaded? {
                guilds.insert(guild, object);
                pins.push(pin);
            }
        }
        Ok((Fresh { members, guilds }, pins))
    }
}

impl State {
    /// Puts what was loaded after a gap in the place of what was known. Who came meanwhile has loaded after the gap.
    fn renew(&mut self, fresh: Fresh) {
        for (guild, object) in fresh.guilds {
            if let Some(hosted) = self.guilds.get_mut(&guild) {
                hosted.object = Some(object);
            }
        }
        let mut left = Vec::new();
        for (key, session) in &mut self.sessions {
            let Stage::Live(guilds) = &mut session.stage else { continue };
            let revs = fresh.members.get(&session.user);
            if let Some(revs) = revs {
                let old = std::mem::replace(guilds, revs.keys().copied().collect());
                left.extend(old.difference(guilds).map(|guild| (*guild, *key)));
            }
            guilds.retain(|guild| {
                let Some(object) = self.guilds.get_mut(guild).and_then(|hosted| hosted.object.as_mut()) else { return false };
                let rev = revs.and_then(|revs| revs.get(guild)).copied().unwrap_or_default();
                let member = object.join(session.user, rev);
                if member {
                    object.add(*key, session.user);
                }
                member
            });
        }
        for (guild, key) in left {
            if let Some(object) = self.object(guild) {
                object.remove(key);
            }
            self.unhost(guild);
        }
    }
}
