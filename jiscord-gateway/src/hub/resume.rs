//! What a session missed that was cut off and comes back.
//!
//! Its place in the hub is taken first, as of some position, and from there on everything is held back for it by its dispatcher.
//! Then the log is read from where it was cut off up to that position. So it does not matter how long that takes, nothing
//! falls between what is told again and what is told live, and nothing is told twice.

use jiscord_core::{
    Event, GuildId, ServerFrame, Topic, UserId,
    event::Logged,
    frame::{GuildCreate, GuildDelete, Intents, Resumed, Resync},
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
    chance::HashSet,
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
        let stale = if place.same_log { Some(missed.lost) } else { None };
        let resync = stale.as_ref().is_none_or(|topics| !topics.is_empty()).then(|| {
            let resync = Resync { topics: stale, epoch: place.epoch.clone(), spread: None };
            Utf8Bytes::from(ServerFrame::Resync(resync).at(place.told).encode())
        });
        let Ok(permit) = self.dispatchers.of(key).reserve().await else { return };
        let state = self.lock();
        let mut texts = again(&state, key, user, intents, &missed.events).unwrap_or_default();
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

/// Events as a session would have heard them, those that it may see now. None if it is over.
fn again(state: &State, key: Key, user: UserId, intents: Intents, events: &[Logged]) -> Option<Vec<Utf8Bytes>> {
    let Stage::Live(guilds) = &state.sessions.get(&key)?.stage else { return None };
    let changes: Vec<_> = events.iter().map(|logged| Change::of(&logged.event)).collect();
    // The guilds that the user was not in: at first those where the first that is said of the user is a coming.
    let mut away: HashSet<GuildId> = HashSet::default();
    let mut first: HashSet<GuildId> = HashSet::default();
    for change in changes.iter().flatten() {
        match change {
            Change::Join { guild, user: who, .. } if *who == user && first.insert(*guild) => _ = away.insert(*guild),
            Change::Leave { guild, user: who, .. } if *who == user => _ = first.insert(*guild),
            _ => {}
        }
    }
    let mut texts = Vec::new();
    for (Logged { p, event }, change) in events.iter().zip(&changes).filter(|(logged, _)| !logged.event.is_internal()) {
        let text = match change {
            Some(Change::Join { guild, user: who, .. }) if *who == user => {
                away.remove(guild);
                let object = state.guilds.get(guild).and_then(|hosted| hosted.object.as_ref());
                let wanted = object.filter(|_| guilds.contains(guild) && intents.contains(Intents::GUILDS));
                wanted.map(|object| {
                    let create = GuildCreate { guild: object.guild().clone(), channels: object.channels() };
                    ServerFrame::GuildCreate(create).at(*p).encode().into()
                })
            }
            Some(Change::Leave { guild, user: who, rev }) if *who == user => {
                away.insert(*guild);
                let delete = ServerFrame::GuildDelete(GuildDelete { guild_id: *guild, rev: *rev });
                intents.contains(Intents::GUILDS).then(|| delete.at(*p).encode().into())
            }
            // The creator's own frame.
            Some(Change::Join { .. }) if &*event.op == "GUILD_CREATE" => None,
            change => {
                let hears = |topic: &Topic| match topic {
                    Topic::User(of) => *of == user,
                    Topic::Guild(guild) => {
                        guilds.contains(guild) && !away.contains(guild) && sees(state, key, *guild, event, change.as_ref())
                    }
                };
                let told = intents.contains(intent(&event.op)) && event.topics.iter().any(hears);
                told.then(|| event.text_at(Some(*p)).into())
            }
        };
        texts.extend(text);
    }
    Some(texts)
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
