//! What a session missed that was cut off and comes back.
//!
//! Its place in the hub is taken first, as of some position, and from there on everything is held back for it by its dispatcher.
//! Then the log is read from where it was cut off up to that position. So it does not matter how long that takes, nothing
//! falls between what is told again and what is told live, and nothing is told twice.

use jiscord_core::{
    Event, GuildId, Position, ServerFrame, Topic, UserId,
    event::Logged,
    frame::{GuildCreate, GuildDelete, Intents, Resumed, Resync},
    model::Rev,
};
use tokio_tungstenite::tungstenite::Utf8Bytes;

use super::{
    Hub,
    enter::{Cut, Place},
    line::intent,
    state::{Change, Stage, State},
};
use crate::{
    bus::Replay,
    chance::{HashMap, HashSet},
    dispatch::{Key, Post},
};

impl Hub {
    /// Tells a session again what it missed and may see now, in order, then RESYNC for what cannot be told, then RESUMED.
    pub(super) async fn catch_up(&self, key: Key, user: UserId, intents: Intents, cut: &Cut, place: Place) {
        let Some(topics) = self.topics_of(key, user) else { return };
        let missed = match place.same_log {
            true => self.ask(self.bus.replay(&topics, cut.after, place.to)).await.unwrap_or_else(|error| {
                tracing::warn!(%error, "what a session missed cannot be read");
                Replay::new(Vec::new(), topics.clone())
            }),
            false => Replay::default(),
        };
        let Ok(permit) = self.dispatchers.of(key).reserve().await else { return };
        let state = self.lock();
        let (mut texts, behind) = again(&state, key, user, intents, &missed.events).unwrap_or_default();
        let lost = missed.lost.into_iter().chain(behind.into_iter().map(Topic::Guild)).collect();
        let stale: Option<Vec<_>> = if place.same_log { Some(lost) } else { None };
        let resync = stale.as_ref().is_none_or(|topics| !topics.is_empty()).then(|| {
            let resync = Resync { topics: stale, epoch: place.epoch.clone(), spread: None };
            Utf8Bytes::from(ServerFrame::Resync(resync).at(place.told).encode())
        });
        let resumed = ServerFrame::Resumed(Resumed { replayed: texts.len() as u64 });
        texts.extend(resync);
        texts.push(resumed.at(place.told).encode().into());
        permit.send(Post::Resume { key, texts });
    }

    /// The topics of a live session.
    fn topics_of(&self, key: Key, user: UserId) -> Option<Vec<Topic>> {
        let state = self.lock();
        let Stage::Live(guilds) = &state.sessions.get(&key)?.stage else { return None };
        Some(guilds.iter().map(|guild| Topic::Guild(*guild)).chain([Topic::User(user)]).collect())
    }
}

/// Events as a session would have heard them, those that it may see now; and guilds of which some may have been left out before.
/// None if it is over.
fn again(state: &State, key: Key, user: UserId, intents: Intents, events: &[Logged]) -> Option<(Vec<Utf8Bytes>, Vec<GuildId>)> {
    let Stage::Live(guilds) = &state.sessions.get(&key)?.stage else { return None };
    let changes: Vec<_> = events.iter().map(|logged| Change::of(&logged.event)).collect();
    let stays = Stays::of(user, guilds, events.iter().map(|logged| logged.p).zip(&changes));
    let mut texts = Vec::new();
    for (Logged { p, event }, change) in events.iter().zip(&changes).filter(|(logged, _)| !logged.event.is_internal()) {
        let text = match change {
            Some(Change::Join { guild, user: who, .. } | Change::Leave { guild, user: who, .. })
                if *who == user && !stays.is_told(*guild, *p) =>
            {
                None
            }
            Some(Change::Join { guild, user: who, .. }) if *who == user => {
                let object = state.guilds.get(guild).and_then(|hosted| hosted.object.as_ref());
                let wanted = object.filter(|_| guilds.contains(guild) && intents.contains(Intents::GUILDS));
                wanted.map(|object| {
                    let create = GuildCreate { guild: object.guild().clone(), channels: object.channels() };
                    ServerFrame::GuildCreate(create).at(*p).encode().into()
                })
            }
            Some(Change::Leave { guild, user: who, rev }) if *who == user => {
                let delete = ServerFrame::GuildDelete(GuildDelete { guild_id: *guild, rev: *rev });
                intents.contains(Intents::GUILDS).then(|| delete.at(*p).encode().into())
            }
            // The creator's own frame.
            Some(Change::Join { .. }) if &*event.op == "GUILD_CREATE" => None,
            change => {
                let hears = |topic: &Topic| match topic {
                    Topic::User(of) => *of == user,
                    Topic::Guild(guild) => {
                        guilds.contains(guild) && !stays.is_away(*guild, *p) && sees(state, key, *guild, event, change.as_ref())
                    }
                };
                let told = intents.contains(intent(&event.op)) && event.topics.iter().any(hears);
                told.then(|| event.text_at(Some(*p)).into())
            }
        };
        texts.extend(text);
    }
    Some((texts, stays.left_late()))
}

/// How long after something happened it is told, unless that is late or for another time.
const PROMPT: u64 = 1_000_000;

/// When a user came into guilds and left them, as a stretch of the log tells it.
struct Stays(HashMap<GuildId, Vec<Stay>>);

/// From here on he is in, or out. A `rev` is a time, as a position is.
struct Stay {
    rev: Rev,
    at: Position,
    is_in: bool,
    /// Whoever heard it live was told.
    is_told: bool,
}

impl Stays {
    fn of<'a>(user: UserId, now: &HashSet<GuildId>, told: impl Iterator<Item = (Position, &'a Option<Change>)>) -> Self {
        let mut all: HashMap<_, Vec<Stay>> = HashMap::default();
        for (at, change) in told {
            let (guild, is_in, rev) = match change {
                Some(Change::Join { guild, user: who, rev }) if *who == user => (*guild, true, *rev),
                Some(Change::Leave { guild, user: who, rev }) if *who == user => (*guild, false, *rev),
                _ => continue,
            };
            all.entry(guild).or_default().push(Stay { rev, at, is_in, is_told: true });
        }
        for (guild, stays) in &mut all {
            // What is told late, or again, stands behind what followed it.
            stays.sort_by_key(|stay| stay.rev);
            for at in 0..stays.len() {
                let next = stays.get(at + 1).map(|next| next.rev);
                let stay = &mut stays[at];
                // He is back by now, and that is told next.
                let is_over = next.is_none() && !stay.is_in && now.contains(guild);
                stay.is_told = !is_over && next.is_none_or(|next| next > stay.at.0);
            }
        }
        Self(all)
    }

    fn is_told(&self, guild: GuildId, p: Position) -> bool {
        self.0.get(&guild).is_some_and(|stays| stays.iter().any(|stay| stay.at == p && stay.is_told))
    }

    /// Where it is told late, or again, that he left, and he is back: he may have been taken for one who came only then.
    fn left_late(&self) -> Vec<GuildId> {
        let left_late = |stays: &Vec<Stay>| stays.iter().any(|stay| !stay.is_in && !stay.is_told);
        self.0.iter().filter(|(_, stays)| left_late(stays)).map(|(guild, _)| *guild).collect()
    }

    /// Whether he was out, until he came by an event that stands later.
    fn is_away(&self, guild: GuildId, p: Position) -> bool {
        let Some(stays) = self.0.get(&guild) else { return false };
        let came = |(at, stay): (usize, &Stay)| {
            let before = at.checked_sub(1).and_then(|at| stays.get(at));
            let is_late = stay.at.0 > stay.rev + PROMPT;
            stay.is_in
                && p < stay.at
                && !(is_late && p.0 > stay.rev)
                && before.is_none_or(|before| !before.is_in && before.at < p)
        };
        stays.iter().enumerate().any(came)
    }
}

/// Whether a session may see what happened in a guild.
fn sees(state: &State, key: Key, guild: GuildId, event: &Event, change: Option<&Change>) -> bool {
    let object = state.guilds.get(&guild).and_then(|hosted| hosted.object.as_ref());
    match (object, event.channel) {
        (None, _) => false,
        // That a channel is gone is told to whoever may have seen it.
        (Some(_), _) if matches!(change, Some(Change::ChannelGone { .. })) => true,
        (Some(object), Some(channel)) => object.sees(key, channel),
        (Some(_), None) => true,
    }
}
