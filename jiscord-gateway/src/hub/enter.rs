//! How a socket becomes a session, and how its place is kept.

use std::sync::{Arc, atomic::AtomicU64};

use futures_util::{StreamExt, stream};
use jiscord_core::{
    Code, Fault, GuildId, Position, ServerFrame, SessionId, Topic, UserId,
    backend::Actor,
    fault::Result,
    frame::{Attempt, CloseCode, Intents, PROTOCOL, Ready},
    model::{Rev, User},
    text::Device,
};
use rand::Rng;
use tokio::{sync::mpsc, time::interval};
use uuid::Uuid;

use super::{
    Hub, Joined,
    state::{Change, Hosted, Session, Stage, State},
};
use crate::{
    chance::{self, HashMap, HashSet},
    claims::{Claim, Holder},
    dispatch::{End, Key, Post},
    guild::{GuildObject, Revved},
};

/// How many guilds are loaded at once for a session that begins.
pub(super) const LOADS: usize = 8;
/// How many positions, which are microseconds, a client may be ahead of this gateway: it was told something by another one.
const AHEAD: u64 = 5_000_000;

/// Who asks for a session.
pub(crate) struct Entrant<'a> {
    pub(crate) token: &'a str,
    pub(crate) device: Option<Device>,
    pub(crate) intents: Intents,
    /// Which attempt of its client this is, if it says so.
    pub(crate) attempt: Option<Attempt>,
    /// It goes on with a session that was cut off.
    pub(crate) cut: Option<Cut>,
    pub(crate) end: &'a End,
    pub(crate) heard: &'a Arc<AtomicU64>,
}

/// Where a session was cut off.
pub(crate) struct Cut {
    pub(crate) session: SessionId,
    /// The log that `after` belongs to.
    pub(crate) epoch: String,
    /// The last position that was surely seen.
    pub(crate) after: Position,
}

/// Why a session did not begin.
pub(crate) enum Refused {
    /// Something failed. Only [`Code::UNAUTHORIZED`] says that the token is bad.
    Fault(Fault),
    /// The connection ends for this reason.
    Close(CloseCode),
}

impl From<Fault> for Refused {
    fn from(fault: Fault) -> Self {
        Self::Fault(fault)
    }
}

impl From<CloseCode> for Refused {
    fn from(code: CloseCode) -> Self {
        Self::Close(code)
    }
}

/// How far a session came.
enum Live {
    /// It is told everything from READY on.
    Told,
    /// What happens from here on is held back for it.
    Held(Place),
    /// Its memberships changed, so that more must be loaded.
    NotYet,
    /// So much happened that they must be loaded again.
    Unsure,
}

/// Where a session that was cut off becomes live again.
pub(super) struct Place {
    pub(super) epoch: String,
    /// The log is still the one that it was cut off from.
    pub(super) same_log: bool,
    /// What it missed goes up to here.
    pub(super) to: Position,
    /// It is told live what is above.
    pub(super) told: Position,
}

impl Place {
    fn of(cut: &Cut, epoch: &str, p: Position) -> Self {
        let same_log = cut.epoch == epoch && cut.after.0 <= p.0.saturating_add(AHEAD);
        // What another gateway told it a moment ago comes here in a moment, and is not told again.
        let told = if same_log { p.max(cut.after) } else { p };
        Self { epoch: epoch.to_owned(), same_log, to: p, told }
    }
}

/// A session's place in the hub; dropping it ends the session.
pub(crate) struct Seat {
    hub: Arc<Hub>,
    key: Key,
    pub(crate) user: UserId,
    topic: Joined,
}

impl Drop for Seat {
    fn drop(&mut self) {
        self.hub.lock().detach(self.key, None);
    }
}

/// Holds a guild here until a session does.
pub(super) struct Pin {
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

impl Hub {
    /// Makes a session of a socket: claims its place, loads its guilds, says READY, or what was missed and RESUMED.
    pub(crate) async fn enter(self: &Arc<Self>, key: Key, who: Entrant<'_>) -> Result<Seat, Refused> {
        let _turn = self.turn().await?;
        let identity = self.ask(self.backend.verify_token(who.token)).await?;
        let user = identity.user_id;
        let actor = Actor::User(user);
        let profile = match self.ask(self.backend.user(actor, user)).await {
            // The token is good, but its user is gone.
            Err(fault) if fault.code == Code::NOT_FOUND => return Err(CloseCode::BadToken.into()),
            profile => profile?,
        };

        // First the topic: an eviction by a session elsewhere comes over it.
        let topic = self.join(Topic::User(user)).await?;
        // One device too many evicts the longest silent one: let it be known who has spoken since the last beat.
        self.refresh(Some(user)).await?;
        let id = who.cut.as_ref().map_or_else(|| SessionId::new(Uuid::new_v4()), |cut| cut.session);
        let attempt = who.attempt.unwrap_or_else(|| Attempt { client: chance::rng().random(), number: 0 });
        let holder = Holder { user, device: who.device.clone(), session: id, attempt };
        let Some(claimed) = self.ask(self.claims.claim(&holder, who.cut.is_some())).await? else {
            return Err(if who.cut.is_some() { CloseCode::ResumeRefused } else { CloseCode::Evicted }.into());
        };
        let stage = Stage::Entering(Vec::new());
        let (end, heard) = (who.end.clone(), who.heard.clone());
        let (token, login) = (who.token.into(), identity.login);
        let session = Session { holder, token, login, fence: claimed.fence, end, heard, stage };
        {
            let mut state = self.lock();
            for over in &claimed.evicted {
                state.evict(user, over);
            }
            if !state.seat(key, session) {
                return Err(CloseCode::Evicted.into());
            }
        }
        let seat = Seat { hub: self.clone(), key, user, topic };
        // An eviction by a claim that was made meanwhile elsewhere may have been heard before there was a seat to lose.
        self.refresh(Some(user)).await?;
        // So may have been that the login was revoked. From here on it is heard. What was published before is not told live, as
        // if it happened now: it is in what READY says, or comes before RESUMED.
        self.reach(seat.topic.from.max(self.ask(self.bus.head()).await?)).await?;
        self.ask(self.backend.verify_token(who.token)).await?;

        // The line keeps what happens to this user's memberships from here on, so what is loaded now cannot be outdated
        // without notice.
        let mut member_of = Revved::default();
        let mut is_loaded = false;
        let mut pins = HashMap::default();
        // The guilds' topics and this user's are heard from some position on: what comes before it must have been told.
        let mut from = seat.topic.from;
        loop {
            if !is_loaded {
                for membership in self.ask(self.backend.memberships(actor, user)).await? {
                    member_of.put(membership.guild.guild_id, membership.rev, ());
                }
                is_loaded = true;
            }
            let missing: Vec<_> = member_of.iter().map(|row| row.0).filter(|guild| !pins.contains_key(guild)).collect();
            let hosted = stream::iter(missing).map(|guild| async move { (guild, self.host(guild).await) });
            for (guild, pin) in hosted.buffer_unordered(LOADS).collect::<Vec<_>>().await {
                match pin {
                    Ok((pin, heard)) => {
                        from = from.max(heard);
                        pins.insert(guild, pin);
                    }
                    // Deleted since: there is nothing to hear.
                    Err(fault) if fault.code == Code::NOT_FOUND => _ = member_of.remove(guild, Rev::MAX),
                    Err(fault) => return Err(fault.into()),
                }
            }
            self.reach(from).await?;
            let Ok(permit) = self.dispatchers.of(key).reserve().await else { return Err(CloseCode::GoingAway.into()) };
            match self.go_live(key, &profile, &who, &mut member_of, &pins, permit) {
                Some(Live::Told) => return Ok(seat),
                Some(Live::Held(place)) => {
                    if let Some(cut) = &who.cut {
                        self.catch_up(key, user, who.intents, cut, place).await;
                    }
                    return Ok(seat);
                }
                Some(Live::NotYet) => {}
                Some(Live::Unsure) => is_loaded = false,
                // Detached meanwhile: whoever did that has said why.
                None => return Err(who.end.wait().await.unwrap_or(CloseCode::TryLater).into()),
            }
        }
    }

    /// Holds a guild, and loads it if nobody has yet; the position is that above which it is heard. [`Code::NOT_FOUND`] if there
    /// is no such guild.
    pub(super) async fn host(self: &Arc<Self>, guild: GuildId) -> Result<(Pin, Position)> {
        let (pin, turn) = {
            let mut state = self.lock();
            let hosted = state.guilds.entry(guild).or_default();
            hosted.pins += 1;
            (Pin { hub: self.clone(), guild }, hosted.turn.clone())
        };
        let _turn = turn.lock().await;
        if let Some(Hosted { object: Some(_), topic: Some(topic), .. }) = self.lock().guilds.get(&guild) {
            return Ok((pin, topic.from));
        }
        // First listen, then load: what changes in between is kept as early, and applied by its `rev`.
        let topic = self.join(Topic::Guild(guild)).await?;
        let from = topic.from;
        let object = self.load(guild).await?;
        if let Some(hosted) = self.lock().guilds.get_mut(&guild) {
            let object = hosted.object.insert(object);
            for change in hosted.early.drain(..) {
                change.apply(object);
            }
            hosted.topic = Some(topic);
        }
        Ok((pin, from))
    }

    /// A guild as it is now, without members.
    pub(super) async fn load(&self, guild: GuildId) -> Result<GuildObject> {
        let state = self.ask(self.backend.load_guild(Actor::System, guild)).await?;
        Ok(GuildObject::new(state.ok_or_else(|| Fault::not_found("guild"))?))
    }

    /// Lets a session hear its guilds, and says READY, in one step. None if it is over already.
    fn go_live(
        &self,
        key: Key,
        user: &User,
        who: &Entrant<'_>,
        member_of: &mut Revved<GuildId, ()>,
        pins: &HashMap<GuildId, Pin>,
        permit: mpsc::Permit<'_, Post>,
    ) -> Option<Live> {
        let mut state = self.lock();
        let State { epoch, p, sessions, guilds: hosted, .. } = &mut *state;
        let session = sessions.get_mut(&key)?;
        if let Stage::Entering(changes) = &mut session.stage {
            let mut is_sure = true;
            for change in changes.drain(..) {
                match change {
                    // He came since, or is told late to have come, and is out again.
                    Change::Join { guild, .. } if member_of.get(guild).is_none() => is_sure = false,
                    Change::Join { guild, rev, .. } => _ = member_of.put(guild, rev, ()),
                    Change::Leave { guild, rev, .. } => _ = member_of.remove(guild, rev),
                    Change::Channel(_) | Change::ChannelGone { .. } => {}
                }
            }
            if !is_sure {
                return Some(Live::Unsure);
            }
        }
        if member_of.iter().any(|(guild, ..)| !pins.contains_key(&guild)) {
            return Some(Live::NotYet);
        }
        let (mut live, mut guilds) = (HashSet::default(), Vec::new());
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
        if let Some(cut) = &who.cut {
            let place = Place::of(cut, epoch, *p);
            permit.send(Post::Hold { key, intents: who.intents, p: place.told });
            return Some(Live::Held(place));
        }
        let ready = ServerFrame::Ready(Ready {
            user_id: user.user_id,
            session_id: session.holder.session,
            user: user.clone(),
            guilds,
            protocol: PROTOCOL,
            epoch: epoch.clone(),
        });
        permit.send(Post::Ready { key, text: ready.at(*p).encode().into(), intents: who.intents, p: *p });
        Some(Live::Told)
    }

    /// Gives the places of ended sessions back, and says once in each heartbeat period which sessions are still here.
    pub(super) async fn keep_claims(&self) {
        let mut ended = self.ended.lock().await;
        let mut beat = interval(self.settings.heartbeat);
        loop {
            // However many end, the others are still said to be here.
            let gone = tokio::select! {
                biased;
                _ = beat.tick() => None,
                Some(gone) = ended.recv() => Some(gone),
            };
            let kept = match &gone {
                Some(Claim { holder, fence, .. }) => {
                    self.ask(self.claims.release(holder.user, holder.device.as_ref(), *fence)).await
                }
                None => self.refresh(None).await,
            };
            if let Err(error) = kept {
                // A place that was not given back is the longest silent one, and the next to be evicted.
                tracing::warn!(%error, "the places of sessions cannot be kept");
            }
        }
    }

    /// Says which sessions are here, all or one user's, and ends those whose places others have.
    async fn refresh(&self, of: Option<UserId>) -> Result<()> {
        let own: Vec<_> = {
            let (now, state) = (self.millis(), self.lock());
            let keys = of.map_or_else(|| state.sessions.keys().copied().collect(), |user| state.keys(user));
            keys.into_iter().filter_map(|key| Some((key, state.sessions.get(&key)?.claim(now)))).collect()
        };
        if own.is_empty() {
            return Ok(());
        }
        let (keys, claims): (Vec<Key>, Vec<Claim>) = own.into_iter().unzip();
        let lost = self.ask(self.claims.refresh(&claims)).await?;
        let mut state = self.lock();
        for key in lost.into_iter().filter_map(|index| keys.get(index)) {
            state.detach(*key, Some(CloseCode::Evicted));
        }
        Ok(())
    }
}
