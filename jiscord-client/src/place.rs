//! Where a client is in the log.

use std::collections::{BTreeMap, BTreeSet};

use jiscord_core::{GuildId, Placed, Position, ServerFrame, SessionId};
use serde::{Deserialize, Serialize};

/// A session is resumed from so many microseconds before the last event, so that one that was lost just before the cut is told
/// too. What was told already is told once.
const OVERLAP: u64 = 5_000_000;
/// How many positions are remembered for that.
const REMEMBERED: usize = 65_536;

/// Which events were told. The connection and the stream of events have one each, since the one may be far ahead.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub(crate) struct Place {
    pub(crate) epoch: String,
    /// Everything up to here was told.
    pub(crate) p: Position,
    /// The session that can be resumed from here.
    pub(crate) session: Option<SessionId>,
    /// The positions of all events above `floor` that were told.
    recent: BTreeSet<Position>,
    floor: Position,
    /// Where above `floor` it was told last that the user came into these guilds or left them.
    #[serde(default)]
    moves: BTreeMap<GuildId, Position>,
}

impl Place {
    /// From where a session can be resumed.
    pub(crate) fn resume(&self) -> Option<(SessionId, Position)> {
        Some((self.session?, Position(self.p.0.saturating_sub(OVERLAP)).max(self.floor)))
    }

    /// Whether an event was told before.
    pub(crate) fn knows(&self, frame: &Placed) -> bool {
        let Some(p) = frame.p else { return false };
        let event = !matches!(
            frame.frame,
            ServerFrame::Ready(_) | ServerFrame::Resumed(_) | ServerFrame::Resync(_) | ServerFrame::HeartbeatAck(())
        );
        // What a gateway left out, since it knew better, is told when the session is resumed.
        let is_old = moved(&frame.frame).is_some_and(|guild| self.moves.get(&guild).is_some_and(|last| *last > p));
        event && (p <= self.floor || self.recent.contains(&p) || is_old)
    }

    /// Keeps up with a frame that was told.
    pub(crate) fn pass(&mut self, frame: &Placed) {
        let Some(p) = frame.p else { return };
        match &frame.frame {
            ServerFrame::Ready(ready) => self.begin(&ready.epoch, p, Some(ready.session_id)),
            ServerFrame::Resync(resync) => self.resync(&resync.epoch, p),
            ServerFrame::Resumed(_) | ServerFrame::HeartbeatAck(()) => self.reach(p),
            event => {
                if let Some(guild) = moved(event) {
                    self.moved(guild, p);
                }
                self.add(p);
            }
        }
    }

    /// The user came into a guild, or left it.
    pub(crate) fn moved(&mut self, guild: GuildId, p: Position) {
        self.moves.insert(guild, p);
    }

    /// At the beginning of a session.
    pub(crate) fn begin(&mut self, epoch: &str, p: Position, session: Option<SessionId>) {
        *self = Self { epoch: epoch.to_owned(), p, session, floor: p, ..Self::default() };
    }

    /// Behind what could not be told, in the log that there is now.
    pub(crate) fn resync(&mut self, epoch: &str, p: Position) {
        match epoch == self.epoch {
            true => self.reach(p),
            false => self.begin(epoch, p, self.session),
        }
    }

    /// Everything up to here was told.
    pub(crate) fn reach(&mut self, p: Position) {
        self.p = self.p.max(p);
    }

    /// An event was told.
    pub(crate) fn add(&mut self, p: Position) {
        self.reach(p);
        self.recent.insert(p);
        let old = Position(self.p.0.saturating_sub(OVERLAP));
        while self.recent.len() > REMEMBERED || self.recent.first().is_some_and(|first| *first <= old) {
            self.floor = self.recent.pop_first().unwrap_or_default().max(self.floor);
        }
        self.moves.retain(|_, p| *p > self.floor);
    }
}

/// The guild that the user came into, or left.
fn moved(frame: &ServerFrame) -> Option<GuildId> {
    match frame {
        ServerFrame::GuildCreate(created) => Some(created.guild.guild_id),
        ServerFrame::GuildDelete(gone) => Some(gone.guild_id),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ID: &str = "0f8fad5b-d9cb-469f-a165-70867728950e";

    fn event(p: u64) -> Placed {
        Placed::read(&format!(r#"{{"op":"MEMBER_REMOVE","d":{{"guildId":"{ID}","userId":"{ID}","rev":1}},"p":{p}}}"#)).unwrap()
    }

    fn left(p: u64) -> Placed {
        Placed::read(&format!(r#"{{"op":"GUILD_DELETE","d":{{"guildId":"{ID}","rev":1}},"p":{p}}}"#)).unwrap()
    }

    fn resync(epoch: &str, p: u64) -> Placed {
        Placed::read(&format!(r#"{{"op":"RESYNC","d":{{"topics":null,"epoch":"{epoch}"}},"p":{p}}}"#)).unwrap()
    }

    #[test]
    fn a_session_is_resumed_a_little_before_its_place_and_what_is_known_is_left_out() {
        const SECOND: u64 = 1_000_000;
        let mut place = Place { session: Some(ID.parse().unwrap()), ..Place::default() };
        place.pass(&resync("e", 100 * SECOND));
        assert_eq!(place.resume().unwrap().1.0, 100 * SECOND, "never before it began");
        for p in [101, 103, 104] {
            assert!(!place.knows(&event(p * SECOND)));
            place.pass(&event(p * SECOND));
        }
        assert_eq!(place.resume().unwrap().1.0, 100 * SECOND);
        for (p, known) in [(99, true), (100, true), (101, true), (102, false), (103, true), (104, true), (105, false)] {
            assert_eq!(place.knows(&event(p * SECOND)), known, "{p}");
        }
        // What only says how far it is does not count as seen.
        place.pass(&Placed::read(&format!(r#"{{"op":"HEARTBEAT_ACK","d":null,"p":{}}}"#, 107 * SECOND)).unwrap());
        assert_eq!(place.resume().unwrap().1.0, 102 * SECOND);
        assert!(!place.knows(&event(106 * SECOND)));
        place.pass(&event(108 * SECOND));
        assert_eq!(place.resume().unwrap().1.0, 103 * SECOND);
        assert!(place.knows(&event(102 * SECOND)), "too old to be told apart, and before what is asked for");
        // Another log.
        place.pass(&resync("f", 50 * SECOND));
        assert_eq!((place.resume().unwrap().1.0, &*place.epoch), (50 * SECOND, "f"));
        assert!(!place.knows(&event(51 * SECOND)));
    }

    #[test]
    fn what_is_told_again_of_a_guild_is_not_older_than_what_is_known_of_it() {
        let mut place = Place::default();
        place.pass(&left(20));
        assert!(place.knows(&left(10)));
        assert!(!place.knows(&event(10)) && !place.knows(&left(30)));
        // As far back as it is ever told again.
        place.pass(&event(OVERLAP + 20));
        assert!(place.moves.is_empty() && place.knows(&left(10)));
    }

    #[test]
    fn what_is_remembered_is_bounded() {
        let mut place = Place::default();
        for p in 1..=REMEMBERED as u64 + 10 {
            place.pass(&event(p));
        }
        assert_eq!((place.recent.len(), place.floor.0), (REMEMBERED, 10));
    }
}
