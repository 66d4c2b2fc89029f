//! The line: takes what happens off the bus, in order, and tells it.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use futures_util::{StreamExt, future::join_all, stream};
use jiscord_core::{
    Code, Event, Fault, GuildId, Position, ServerFrame, Topic, UserId,
    backend::Actor,
    frame::{CloseCode, GuildCreate, GuildDelete, Intents, Resync},
    model::Rev,
};
use secrecy::ExposeSecret;
use tokio::{sync::mpsc, time::sleep, time::timeout};
use tokio_tungstenite::tungstenite::Utf8Bytes;

use super::{
    Hub,
    enter::{LOADS, Pin},
    state::{Change, Session, Stage, State},
};
use crate::{
    bus::{Heard, Stale},
    chance::{HashMap, HashSet},
    dispatch::{Key, Post, Tell},
    guild::{GuildObject, by_dispatcher},
};

/// How long the line waits for a guild that somebody here has just joined. After that his sessions are closed, so that they
/// come back and load everything anew.
const STOPPED_LINE: Duration = Duration::from_secs(2);
/// After a log was lost, sessions are to read anew one after the other, so far apart, and all of them within this time.
const READ_EACH: Duration = Duration::from_millis(2);
const READ_ALL: Duration = Duration::from_secs(10);
/// How long it waits between two tries to load everything anew.
const RELOAD: Duration = Duration::from_millis(500);
/// After so many tries whoever needs what cannot be loaded is sent away, where everything else can.
const RELOADS: u32 = 20;

/// Which intent a session needs to be told of an op. All of them for an op that has none of its own.
pub(super) fn intent(op: &str) -> Intents {
    match op {
        "TYPING" => Intents::TYPING,
        op if op.starts_with("MESSAGE_") => Intents::MESSAGES,
        op if op.starts_with("MEMBER_") => Intents::MEMBERS,
        op if op.starts_with("GUILD_") || op.starts_with("CHANNEL_") => Intents::GUILDS,
        _ => Intents::empty(),
    }
}

/// What everybody may hear, as it was loaded after a gap.
#[derive(Default)]
struct Fresh {
    members: HashMap<UserId, HashMap<GuildId, Rev>>,
    guilds: HashMap<GuildId, GuildObject>,
    /// What could not be loaded.
    failed: Vec<Topic>,
    error: Option<Fault>,
}

impl Fresh {
    fn fail(&mut self, topic: Topic, error: Fault) {
        self.failed.push(topic);
        self.error = Some(error);
    }
}

/// Events that are not heard, since they came before their topic was joined, by their positions.
type Ahead = BTreeMap<Position, Event>;

impl Hub {
    pub(super) async fn line(self: &Arc<Self>) {
        let mut ahead = Ahead::new();
        loop {
            let heard = self.bus.next().await;
            let up_to = match &heard {
                Heard::Event { p, .. } => *p,
                Heard::Upto { p } | Heard::Gap { p, .. } => Some(*p),
                Heard::Evict { .. } => None,
            };
            while let Some(first) = ahead.first_entry().filter(|first| up_to.is_some_and(|p| *first.key() <= p)) {
                let (p, event) = first.remove_entry();
                self.hear(event, Some(p), &mut ahead).await;
            }
            match heard {
                Heard::Event { event, p } => {
                    // Something about these topics was not told, perhaps that a right is gone.
                    if &*event.op == "RESYNC" {
                        self.mend(None).await;
                    }
                    self.hear(event, p, &mut ahead).await;
                }
                Heard::Upto { p } => self.reached(&mut self.lock(), p),
                Heard::Gap { p, stale } => self.mend(Some((p, stale))).await,
                Heard::Evict { user, over } => self.lock().evict(user, &over),
            }
        }
    }

    /// Everything up to here was handed to the dispatchers.
    fn reached(&self, state: &mut State, p: Position) {
        state.p = state.p.max(p);
        self.reached.send_replace(state.p);
    }

    async fn hear(self: &Arc<Self>, mut event: Event, p: Option<Position>, ahead: &mut Ahead) {
        if event.is_internal() {
            let mut state = self.lock();
            self.reached(&mut state, p.unwrap_or_default());
            match event.revokes() {
                Some(what) => {
                    for topic in &event.topics {
                        if let Topic::User(user) = topic {
                            state.revoke(*user, what);
                        }
                    }
                }
                None => tracing::warn!(op = &*event.op, "an event of the gateways' own is not understood"),
            }
            return;
        }
        let mut change = Change::of(&event);
        // Held until the event is told: his sessions hold the guild then.
        let mut _pin = None;
        if let Some(Change::Join { guild, user, .. }) = change
            && self.lock().hears(user)
        {
            _pin = self.make_room(guild, user, p.unwrap_or_default(), ahead).await;
            // Told late, when he was out again: only the guild hears it.
            if _pin.is_none() {
                change = None;
                event.topics.retain(|topic| *topic != Topic::User(user));
            }
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

    /// Loads the guild that a user with sessions here has come into by the event at `p`, while the line waits. None if he is not
    /// in it.
    async fn make_room(self: &Arc<Self>, guild: GuildId, user: UserId, p: Position, ahead: &mut Ahead) -> Option<Pin> {
        let load = async {
            let (pin, from) = self.host(guild).await?;
            if from > p {
                // What happened in it since, before it was listened to.
                let missed = self.bus.replay(&[Topic::Guild(guild)], p, from).await?;
                if !missed.lost.is_empty() {
                    return Err(Fault::new(Code::UNAVAILABLE, "what happened in the guild since is not known"));
                }
                ahead.extend(missed.events.into_iter().map(|logged| (logged.p, logged.event)));
            }
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
        self.reached(state, p.unwrap_or_default());
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
        let (mut concerned, mut after, mut left, mut back) = (false, None, None, None);
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
                // With the telling that those in the guild hear, so that it comes after that.
                back = event.topics.contains(&Topic::Guild(guild)).then(|| (guild, state.within(guild, user)));
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
        // Told so late that he is back: who has resumed since was taken for one who came only then.
        if let Some((guild, keys)) = back.filter(|(_, keys)| !keys.is_empty()) {
            let resync = Resync { topics: Some(vec![Topic::Guild(guild)]), epoch: state.epoch.clone(), spread: None };
            let text = Utf8Bytes::from(ServerFrame::Resync(resync).at(state.p).encode());
            for (posts, to) in posts.iter_mut().zip(by_dispatcher(keys.into_iter(), count)) {
                posts.push(Post::Stale { to, text: text.clone() });
            }
        }
        if let Some(guild) = left {
            state.unhost(guild);
        }
        posts
    }

    /// Something may have been missed: rights are loaded anew before anything more is told. Meanwhile what happens waits. With
    /// a position, the log goes on from there, perhaps as another one, and whoever keeps what is stale is told so.
    async fn mend(self: &Arc<Self>, gap: Option<(Position, Stale)>) {
        {
            // What these have loaded may be older than the gap; when they come back, they load it again.
            let mut state = self.lock();
            let entering = |session: &Session| matches!(session.stage, Stage::Entering(_));
            let keys: Vec<_> = state.sessions.iter().filter(|row| entering(row.1)).map(|row| *row.0).collect();
            for key in keys {
                state.detach(key, Some(CloseCode::TryLater));
            }
        }
        self.verify_all().await;
        // The guilds are held until the sessions hold them. Letting go takes the lock, so it comes after it.
        let mut tries = 0;
        let (fresh, _pins) = loop {
            let (fresh, pins) = self.load_all().await;
            let Some(error) = &fresh.error else { break (fresh, pins) };
            tries += 1;
            // Where all else can be loaded, it is no use to wait for the rest.
            if tries > RELOADS && !(fresh.members.is_empty() && fresh.guilds.is_empty()) {
                tracing::warn!(%error, topics = fresh.failed.len(), "rights cannot be loaded anew; sessions that need them end");
                break (fresh, pins);
            }
            tracing::warn!(%error, "rights cannot be loaded anew; events wait");
            sleep(RELOAD).await;
        };
        #[cfg(feature = "failpoints")]
        fail::fail_point!("gw.in_rights", |_| std::process::abort());
        let permits = join_all(self.dispatchers.all().iter().map(mpsc::Sender::reserve)).await;
        let mut state = self.lock();
        for (_, keys) in state.hearers(&fresh.failed) {
            for key in keys {
                state.detach(key, Some(CloseCode::TryLater));
            }
        }
        state.renew(fresh);
        let Some((p, stale)) = gap else { return };
        let count = self.dispatchers.count();
        let mut posts: Vec<Vec<Post>> = (0..count).map(|_| Vec::new()).collect();
        match stale {
            Stale::Nothing => self.reached(&mut state, p),
            Stale::All => {
                (state.p, state.epoch) = (p, self.bus.epoch());
                self.reached.send_replace(p);
                let keys: Vec<_> = state.sessions.keys().copied().collect();
                let spread = (READ_EACH * u32::try_from(keys.len()).unwrap_or(u32::MAX)).min(READ_ALL);
                let spread = u64::try_from(spread.as_millis()).ok();
                let resync = Resync { topics: None, epoch: state.epoch.clone(), spread };
                let text = Utf8Bytes::from(ServerFrame::Resync(resync).at(p).encode());
                // Before anything of the new log is told.
                for (posts, to) in posts.iter_mut().zip(by_dispatcher(keys.into_iter(), count)) {
                    posts.extend([Post::From(p), Post::Stale { to, text: text.clone() }]);
                }
            }
            Stale::Topics(topics) => {
                self.reached(&mut state, p);
                for (topics, keys) in state.hearers(&topics) {
                    let resync = Resync { topics: Some(topics), epoch: state.epoch.clone(), spread: None };
                    let text = Utf8Bytes::from(ServerFrame::Resync(resync).at(state.p).encode());
                    for (posts, to) in posts.iter_mut().zip(by_dispatcher(keys.into_iter(), count)) {
                        posts.push(Post::Stale { to, text: text.clone() });
                    }
                }
            }
        }
        for (permit, posts) in permits.into_iter().zip(posts) {
            // A dispatcher ends only with the hub.
            if let Ok(permit) = permit {
                permit.send(Post::Many(posts));
            }
        }
    }

    /// Looks whether the logins of live sessions have been revoked meanwhile. What cannot be known now is asked until it can.
    async fn verify_all(self: &Arc<Self>) {
        let sessions: Vec<_> = {
            let state = self.lock();
            state.sessions.iter().map(|(key, session)| (*key, session.token.clone())).collect()
        };
        let verified = stream::iter(sessions).for_each_concurrent(LOADS, |(key, token)| async move {
            let mut tries = 0;
            let end = loop {
                match self.ask(self.backend.verify_token(token.expose_secret())).await {
                    Ok(_) => return,
                    Err(error) if error.code == Code::UNAUTHORIZED => break CloseCode::BadToken,
                    // When it comes back, it is verified.
                    Err(error) if tries >= RELOADS && error.code != Code::UNAVAILABLE => {
                        tracing::warn!(%error, "a session's token cannot be verified anew");
                        break CloseCode::TryLater;
                    }
                    Err(_) => tries += 1,
                }
                sleep(RELOAD).await;
            };
            self.lock().detach(key, Some(end));
        });
        verified.await;
    }

    async fn load_all(self: &Arc<Self>) -> (Fresh, Vec<Pin>) {
        let mut fresh = Fresh::default();
        let users: Vec<_> = self.lock().users.keys().copied().collect();
        let memberships = stream::iter(users)
            .map(|user| async move { (user, self.ask(self.backend.memberships(Actor::User(user), user)).await) });
        for (user, loaded) in memberships.buffer_unordered(LOADS).collect::<Vec<_>>().await {
            match loaded {
                Ok(memberships) => {
                    let revs = memberships.into_iter().map(|membership| (membership.guild.guild_id, membership.rev));
                    fresh.members.insert(user, revs.collect());
                }
                Err(error) => fresh.fail(Topic::User(user), error),
            }
        }
        let mut wanted: HashSet<_> = fresh.members.values().flat_map(HashMap::keys).copied().collect();
        // Those too that are held for somebody who is only coming.
        wanted.extend(self.lock().guilds.keys());
        let loads = stream::iter(wanted).map(|guild| async move {
            let load = async {
                let (pin, _) = self.host(guild).await?;
                Ok::<_, Fault>((pin, self.load(guild).await?))
            };
            (guild, load.await)
        });
        let mut pins = Vec::new();
        for (guild, loaded) in loads.buffer_unordered(LOADS).collect::<Vec<_>>().await {
            match loaded {
                Ok((pin, object)) => {
                    fresh.guilds.insert(guild, object);
                    pins.push(pin);
                }
                Err(error) if error.code == Code::NOT_FOUND => {}
                Err(error) => fresh.fail(Topic::Guild(guild), error),
            }
        }
        (fresh, pins)
    }
}

impl State {
    /// Puts what was loaded after a gap in the place of what was known. Who came meanwhile has loaded after the gap.
    fn renew(&mut self, fresh: Fresh) {
        // Who came while all was loaded has loaded for himself.
        let mut theirs: HashMap<(GuildId, UserId), Rev> = HashMap::default();
        for (guild, object) in fresh.guilds {
            if let Some(hosted) = self.guilds.get_mut(&guild)
                && let Some(before) = hosted.object.replace(object)
            {
                theirs.extend(before.members().map(|(user, rev)| ((guild, user), rev)));
            }
        }
        let mut left = Vec::new();
        for (key, session) in &mut self.sessions {
            let Stage::Live(guilds) = &mut session.stage else { continue };
            let revs = fresh.members.get(&session.holder.user);
            if let Some(revs) = revs {
                let old = std::mem::replace(guilds, revs.keys().copied().collect());
                left.extend(old.difference(guilds).map(|guild| (*guild, *key)));
            }
            guilds.retain(|guild| {
                let Some(object) = self.guilds.get_mut(guild).and_then(|hosted| hosted.object.as_mut()) else { return false };
                let loaded = revs.and_then(|revs| revs.get(guild));
                let rev = loaded.or_else(|| theirs.get(&(*guild, session.holder.user))).copied().unwrap_or_default();
                let member = object.join(session.holder.user, rev);
                if member {
                    object.add(*key, session.holder.user);
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
