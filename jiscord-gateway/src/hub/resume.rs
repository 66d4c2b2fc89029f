//! What a session missed that was cut off and comes back.
//!
//! Its place in the hub is taken first, as of some position, and from there on everything is held back for it by its dispatcher.
//! Then the log is read from where it was cut off up to that position. So it does not matter how long that takes, nothing
//! falls between what is told again and what is told live, and nothing is told twice.

use jiscord_core::{
    Event, ServerFrame, Topic, UserId,
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
            let resync = Resync { topics: stale, epoch: place.epoch.clone() };
            Utf8Bytes::from(ServerFrame::Resync(resync).at(place.told).encode())
        });
        let Ok(permit) = self.dispatchers.of(key).reserve().await else { return };
        let state = self.lock();
        let told = missed.events.iter().filter_map(|logged| again(&state, key, user, intents, logged));
        let mut texts: Vec<_> = told.collect();
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

/// An event as a session would have heard it, if it may see it now.
fn again(state: &State, key: Key, user: UserId, intents: Intents, logged: &Logged) -> Option<Utf8Bytes> {
    let Logged { p, event } = logged;
    let Stage::Live(guilds) = &state.sessions.get(&key)?.stage else { return None };
    match Change::of(event) {
        Some(Change::Join { guild, user: who, .. }) if who == user => {
            if !intents.contains(Intents::GUILDS) || !guilds.contains(&guild) {
                return None;
            }
            let object = state.guilds.get(&guild)?.object.as_ref()?;
            let create = GuildCreate { guild: object.guild().clone(), channels: object.channels() };
            Some(ServerFrame::GuildCreate(create).at(*p).encode().into())
        }
        Some(Change::Leave { guild, user: who, rev }) if who == user => {
            let delete = GuildDelete { guild_id: guild, rev };
            intents.contains(Intents::GUILDS).then(|| ServerFrame::GuildDelete(delete).at(*p).encode().into())
        }
        change => {
            let heard = |topic: &Topic| match topic {
                Topic::User(of) => *of == user,
                Topic::Guild(guild) => guilds.contains(guild) && sees(state, key, topic, event, change.as_ref()),
            };
            let told = intents.contains(intent(&event.op)) && event.topics.iter().any(heard);
            told.then(|| event.text_at(Some(*p)).into())
        }
    }
}

/// Whether a session may see what happened in a guild.
fn sees(state: &State, key: Key, topic: &Topic, event: &Event, change: Option<&Change>) -> bool {
    let Topic::Guild(guild) = topic else { return false };
    let object = state.guilds.get(guild).and_then(|hosted| hosted.object.as_ref());
    match (object, event.channel) {
        (None, _) => false,
        // That a channel is gone is told to whoever may have seen it.
        (Some(_), _) if matches!(change, Some(Change::ChannelGone { .. })) => true,
        (Some(object), Some(channel)) => object.sees(key, channel),
        (Some(_), None) => true,
    }
}
