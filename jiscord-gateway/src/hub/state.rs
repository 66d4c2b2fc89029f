//! Who is here, and which guilds are held for them. All of it is behind one lock, held for moments only.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use jiscord_core::{ChannelId, GuildId, Placed, Position, ServerFrame, Topic, UserId};
use jiscord_core::{
    Event,
    backend::{Login, Revoked},
    frame::CloseCode,
    model::{Channel, Rev},
    text::Device,
};
use secrecy::SecretString;
use tokio::sync::mpsc;

use super::Joined;
use crate::{
    chance::{HashMap, HashSet},
    claims::{Claim, Eviction, Holder},
    dispatch::{End, Key},
    guild::GuildObject,
};

pub(super) struct State {
    /// Names the log that `p` belongs to.
    pub(super) epoch: String,
    /// Everything up to here was handed to the dispatchers.
    pub(super) p: Position,
    pub(super) sessions: HashMap<Key, Session>,
    /// The one session here of each user's device.
    pub(super) users: HashMap<UserId, HashMap<Option<Device>, Key>>,
    pub(super) guilds: HashMap<GuildId, Hosted>,
    /// Where claims go whose sessions have ended.
    pub(super) ended: mpsc::UnboundedSender<Claim>,
}

pub(super) struct Session {
    pub(super) holder: Holder,
    /// What it came with; verified anew where its revocation may have been missed.
    pub(super) token: SecretString,
    pub(super) login: Option<Login>,
    pub(super) fence: u64,
    pub(super) end: End,
    /// Milliseconds since the hub began at which the client was last heard.
    pub(super) heard: Arc<AtomicU64>,
    pub(super) stage: Stage,
}

impl Session {
    pub(super) fn claim(&self, now: u64) -> Claim {
        let silent = Duration::from_millis(now.saturating_sub(self.heard.load(Ordering::Relaxed)));
        Claim { holder: self.holder.clone(), fence: self.fence, silent }
    }
}

pub(super) enum Stage {
    /// Its guilds are being loaded. What happens to its memberships meanwhile is kept.
    Entering(Vec<Change>),
    /// It is told events of these guilds.
    Live(HashSet<GuildId>),
}

/// A guild that is held for sessions here.
#[derive(Default)]
pub(super) struct Hosted {
    /// None while it is being loaded.
    pub(super) object: Option<GuildObject>,
    /// What happened to it before it was loaded.
    pub(super) early: Vec<Change>,
    /// How many hold it beside its sessions.
    pub(super) pins: usize,
    /// Whoever has the turn loads it; the others wait for that.
    pub(super) turn: Arc<tokio::sync::Mutex<()>>,
    /// Kept as long as the guild is held.
    pub(super) topic: Option<Joined>,
}

/// What an event changes in a guild object.
#[derive(Clone, Debug)]
pub(super) enum Change {
    Join { guild: GuildId, user: UserId, rev: Rev },
    Leave { guild: GuildId, user: UserId, rev: Rev },
    Channel(Channel),
    ChannelGone { guild: GuildId, channel: ChannelId, rev: Rev },
}

impl Change {
    /// Only ops that change a guild object are parsed.
    pub(super) fn of(event: &Event) -> Option<Self> {
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

    /// Applies a change of channels to the guild's object.
    pub(super) fn apply(self, object: &mut GuildObject) {
        match self {
            Self::Channel(channel) => object.put_channel(channel),
            Self::ChannelGone { channel, rev, .. } => object.remove_channel(channel, rev),
            Self::Join { .. } | Self::Leave { .. } => {}
        }
    }
}

impl State {
    /// A guild's object, if it is held and loaded.
    pub(super) fn object(&mut self, guild: GuildId) -> Option<&mut GuildObject> {
        self.guilds.get_mut(&guild)?.object.as_mut()
    }

    /// The sessions that hear any of these topics, together with those who hear the same ones of them.
    pub(super) fn hearers(&self, topics: &[Topic]) -> HashMap<Vec<Topic>, Vec<Key>> {
        let mut hearers: HashMap<_, Vec<_>> = HashMap::default();
        for (key, session) in &self.sessions {
            let Stage::Live(guilds) = &session.stage else { continue };
            let hears = |topic: &Topic| match topic {
                Topic::User(user) => *user == session.holder.user,
                Topic::Guild(guild) => guilds.contains(guild),
            };
            let heard: Vec<_> = topics.iter().copied().filter(hears).collect();
            if !heard.is_empty() {
                hearers.entry(heard).or_default().push(*key);
            }
        }
        hearers
    }

    /// The sessions of a user.
    pub(super) fn keys(&self, user: UserId) -> Vec<Key> {
        self.users.get(&user).map(|devices| devices.values().copied().collect()).unwrap_or_default()
    }

    /// Whether a session of a user is live here. One that is only entering loads for itself.
    pub(super) fn hears(&self, user: UserId) -> bool {
        let live = |key: &Key| matches!(self.sessions.get(key).map(|session| &session.stage), Some(Stage::Live(_)));
        self.users.get(&user).is_some_and(|devices| devices.values().any(live))
    }

    /// Seats a session in its device's place. One that was there before is evicted; false if one that came later has the place.
    pub(super) fn seat(&mut self, key: Key, session: Session) -> bool {
        let Holder { user, device, attempt, .. } = &session.holder;
        self.evict(*user, &Eviction { device: device.clone(), fence: session.fence, attempt: Some(*attempt) });
        let devices = self.users.entry(*user).or_default();
        if devices.contains_key(device) {
            return false;
        }
        devices.insert(device.clone(), key);
        self.sessions.insert(key, session);
        true
    }

    /// Ends the session of a user's device if it was there before.
    pub(super) fn evict(&mut self, user: UserId, over: &Eviction) {
        let Some(key) = self.users.get(&user).and_then(|devices| devices.get(&over.device)).copied() else { return };
        if self.sessions.get(&key).is_some_and(|session| over.ends(session.fence, session.holder.attempt)) {
            self.detach(key, Some(CloseCode::Evicted));
        }
    }

    /// Ends the sessions of a user's logins that are revoked.
    pub(super) fn revoke(&mut self, user: UserId, what: Revoked) {
        let covers = |key: &Key| {
            let login = self.sessions.get(key).and_then(|session| session.login);
            login.is_some_and(|login| what.covers(&login))
        };
        for key in self.keys(user).into_iter().filter(covers).collect::<Vec<_>>() {
            self.detach(key, Some(CloseCode::BadToken));
        }
    }

    /// Takes a session out of everything, so that it hears nothing more, and says why. One that is out already stays so.
    pub(super) fn detach(&mut self, key: Key, why: Option<CloseCode>) {
        let Some(session) = self.sessions.remove(&key) else { return };
        let Holder { user, device, .. } = &session.holder;
        if let Some(devices) = self.users.get_mut(user) {
            devices.remove(device);
            if devices.is_empty() {
                self.users.remove(user);
            }
        }
        // Nobody listens only when the hub itself has ended.
        let _ = self.ended.send(session.claim(0));
        if let Stage::Live(guilds) = session.stage {
            for guild in guilds {
                if let Some(object) = self.object(guild) {
                    object.remove(key);
                }
                self.unhost(guild);
            }
        }
        session.end.set(why);
    }

    /// Lets a guild go that nobody here needs any more.
    pub(super) fn unhost(&mut self, guild: GuildId) {
        let idle = |hosted: &Hosted| hosted.pins == 0 && hosted.object.as_ref().is_none_or(GuildObject::is_empty);
        if self.guilds.get(&guild).is_some_and(idle) {
            self.guilds.remove(&guild);
        }
    }

    /// Changes a guild's channels, or keeps the change until the guild is loaded.
    pub(super) fn change(&mut self, change: Change) {
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
    pub(super) fn come(&mut self, guild: GuildId, user: UserId, rev: Rev) -> Vec<Key> {
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

    /// A user's sessions that hear a guild.
    pub(super) fn within(&self, guild: GuildId, user: UserId) -> Vec<Key> {
        let hears = |key: &Key| match self.sessions.get(key).map(|session| &session.stage) {
            Some(Stage::Live(guilds)) => guilds.contains(&guild),
            _ => false,
        };
        self.keys(user).into_iter().filter(hears).collect()
    }

    /// A user is out of a guild. Returns his sessions, those as well that never heard it: they may have resumed, with memberships
    /// that were ahead of the log, and still believe to be in it.
    pub(super) fn go(&mut self, guild: GuildId, user: UserId, rev: Rev) -> Vec<Key> {
        let mut keys = self.keys(user);
        let object = self.guilds.get_mut(&guild).and_then(|hosted| hosted.object.as_mut());
        let left = !keys.is_empty() && object.is_some_and(|object| object.leave(user, rev));
        keys.retain(|key| match self.sessions.get_mut(key).map(|session| &mut session.stage) {
            Some(Stage::Live(guilds)) => {
                if left {
                    guilds.remove(&guild);
                }
                // Where he is back by now, that is newer.
                !guilds.contains(&guild)
            }
            Some(Stage::Entering(changes)) => {
                changes.push(Change::Leave { guild, user, rev });
                false
            }
            _ => false,
        });
        keys
    }
}
