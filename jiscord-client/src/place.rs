//! Where a client is in the log.

use std::collections::BTreeSet;

use jiscord_core::{Placed, Position, ServerFrame, SessionId};
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
        event && (p <= self.floor || self.recent.contains(&p))
    }

    /// Keeps up with a frame that was told.
    pub(crate) fn pass(&mut self, frame: &Placed) {
        let Some(p) = frame.p else { return };
        match &frame.frame {
            ServerFrame::Ready(ready) => self.begin(&ready.epoch, p, Some(ready.session_id)),
            ServerFrame::Resync(resync) => self.resync(&resync.epoch, p),
            ServerFrame::Resumed(_) | ServerFrame::HeartbeatAck(()) => self.reach(p),
            _ => self.add(p),
        }
    }

    /// At the beginning of a session.
    pub(crate) fn begin(&mut self, epoch: &str, p: Position, session: Option<SessionId>) {
        *self = Self { epoch: epoch.to_owned(), p, session, recent: BTreeSet::new(), floor: p };
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
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn event(p: u64) -> Placed {
        let text = format!(r#"{{"op":"GUILD_DELETE","d":{{"guildId":"0f8fad5b-d9cb-469f-a165-70867728950e","rev":1}},"p":{p}}}"#);
        Placed::read(&text).unwrap()
    }

    fn resync(epoch: &str, p: u64) -> Placed {
        Placed::read(&format!(r#"{{"op":"RESYNC","d":{{"topics":null,"epoch":"{epoch}"}},"p":{p}}}"#)).unwrap()
    }

    #[test]
    fn a_session_is_resumed_a_little_before_its_place_and_what_is_known_is_left_out() {
        const SECOND: u64 = 1_000_000;
        let mut place = Place { session: Some("0f8fad5b-d9cb-469f-a165-70867728950e".parse().unwrap()), ..Place::default() };
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
    fn what_is_remembered_is_bounded() {
        let mut place = Place::default();
        for p in 1..=REMEMBERED as u64 + 10 {
            place.pass(&event(p));
        }
        assert_eq!((place.recent.len(), place.floor.0), (REMEMBERED, 10));
    }
}
