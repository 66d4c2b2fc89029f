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
    chance::HashMap,
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

/// Events as a session would have heard them, those that it may see now; and guilds of which some that it might have seen are left
/// out. None if it is over.
fn again(state: &State, key: Key, user: UserId, intents: Intents, events: &[Logged]) -> Option<(Vec<Utf8Bytes>, Vec<GuildId>)> {
    let Stage::Live(guilds) = &state.sessions.get(&key)?.stage else { return None };
    let changes: Vec<_> = events.iter().map(|logged| Change::of(&logged.event)).collect();
    let moves = moves(user, events.iter().map(|logged| logged.p).zip(&changes));
    // Whether he is where the last move in the stretch brought him. If not, the next one is told soon.
    let is_last = |guild: &GuildId, p: Position| {
        moves.get(guild).is_some_and(|last| last.at == p && last.is_in == guilds.contains(guild))
            && intents.contains(Intents::GUILDS)
    };
    let mut texts = Vec::new();
    for (Logged { p, event }, change) in events.iter().zip(&changes).filter(|(logged, _)| !logged.event.is_internal()) {
        let text = match change {
            Some(Change::Join { guild, user: who, .. }) if *who == user => {
                let object = state.guilds.get(guild).and_then(|hosted| hosted.object.as_ref());
                object.filter(|_| is_last(guild, *p)).map(|object| {
                    let create = GuildCreate { guild: object.guild().clone(), channels: object.channels() };
                    ServerFrame::GuildCreate(create).at(*p).encode().into()
                })
            }
            Some(Change::Leave { guild, user: who, rev }) if *who == user => {
                let delete = ServerFrame::GuildDelete(GuildDelete { guild_id: *guild, rev: *rev });
                is_last(guild, *p).then(|| delete.at(*p).encode().into())
            }
            // The creator's own frame.
            Some(Change::Join { .. }) if &*event.op == "GUILD_CREATE" => None,
            change => {
                let hears = |topic: &Topic| match topic {
                    Topic::User(of) => *of == user,
                    Topic::Guild(guild) => {
                        let is_since = moves.get(guild).is_none_or(|last| last.at < *p);
                        guilds.contains(guild) && is_since && sees(state, key, *guild, event, change.as_ref())
                    }
                };
                let told = intents.contains(intent(&event.op)) && event.topics.iter().any(hears);
                told.then(|| event.text_at(Some(*p)).into())
            }
        };
        texts.extend(text);
    }
    let is_cut = |(guild, last): &(&GuildId, &Move)| guilds.contains(guild) && !(last.is_in && last.is_first);
    Some((texts, moves.iter().filter(is_cut).map(|(guild, _)| *guild).collect()))
}

/// How long after something happened it is told, unless that is late or for another time.
const PROMPT: u64 = 1_000_000;

/// How a user came into a guild or left it, the last time in a stretch of the log.
struct Move {
    rev: Rev,
    at: Position,
    is_in: bool,
    /// It is the only one, and was told at once, so that it was the other way round before.
    is_first: bool,
}

/// The moves of a user.
fn moves<'a>(user: UserId, told: impl Iterator<Item = (Position, &'a Option<Change>)>) -> HashMap<GuildId, Move> {
    let mut moves: HashMap<GuildId, Move> = HashMap::default();
    for (at, change) in told {
        let (guild, is_in, rev) = match change {
            Some(Change::Join { guild, user: who, rev }) if *who == user => (*guild, true, *rev),
            Some(Change::Leave { guild, user: who, rev }) if *who == user => (*guild, false, *rev),
            _ => continue,
        };
        // A `rev` is a time, as a position is.
        let is_prompt = at.0 <= rev.saturating_add(PROMPT);
        let last = moves.entry(guild).or_insert(Move { rev, at, is_in, is_first: is_prompt });
        // The same one may be told again.
        if last.at != at {
            last.is_first = false;
        }
        if rev > last.rev {
            *last = Move { rev, at, is_in, is_first: false };
        }
    }
    moves
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
