//! Which messages a program was given, so that what is read of the history is given once.
//!
//! An id says when it was made, and a message is told at most [`LATE`] after that. So what a gap hides was made after `whole`
//! less as much, where `whole` is the id of a message that was given well before the gap: the history is read from there on, and
//! what is known is left out. What was read may still be told live, some minutes late where a server was cut off: ids are
//! remembered for a quarter of an hour.

use std::{cmp::Ordering, collections::BTreeSet, time::Duration};

use jiscord_core::{
    MessageId, Position,
    id::{SNOWFLAKE_EPOCH_MS, Snowflake, Worker},
};
use serde::{Deserialize, Serialize};

/// How far before a known message the history is read: ids are made before messages are stored.
pub(crate) const LATE: Duration = Duration::from_secs(90);
/// A gap that is told has begun so much earlier, at most: what was told meanwhile says nothing of what is whole.
const NOTICE: u64 = 15_000_000;
/// How long ids are remembered, in microseconds of their own time.
const KEPT: u64 = 900_000_000;
/// How many ids are remembered, at most.
const MOST: usize = 65_536;

/// An id, in the order of time.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
struct InTime(MessageId);

impl Ord for InTime {
    fn cmp(&self, other: &Self) -> Ordering {
        self.0.sort_key().cmp(&other.0.sort_key())
    }
}

impl PartialOrd for InTime {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

/// What is remembered. All times are ids' times, in microseconds since the Unix epoch; 0 where nothing is known yet.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub(crate) struct Given {
    /// What was told before a message of this time was given.
    whole: u64,
    /// What `whole` becomes once the log is [`NOTICE`] further than this.
    next: (Position, u64),
    /// The newest message that was told live.
    told: u64,
    /// The newest one that was read. What is told live is far behind it after a long reading.
    read: u64,
    ids: BTreeSet<InTime>,
    /// The last id that was forgotten for want of room. It and those before it count as given.
    forgotten: Option<InTime>,
}

impl Given {
    /// Where nothing is known of what was told before, it counts as whole.
    pub(crate) fn begin(&mut self, p: Position) {
        if self.whole == 0 {
            // Positions are microseconds, but where clocks were set back.
            (self.whole, self.next) = (p.0, (p, p.0));
        }
    }

    /// Everything up to here was told.
    pub(crate) fn reach(&mut self, p: Position) {
        self.begin(p);
        if p.0 >= self.next.0.0.saturating_add(NOTICE) {
            self.whole = self.whole.max(self.next.1);
            self.next = (p, self.told);
            self.forget();
        }
    }

    /// A message is about to be given. False if it was given before.
    pub(crate) fn add(&mut self, id: MessageId) -> bool {
        self.told = self.told.max(id.micros().unwrap_or_default());
        self.is_new(id)
    }

    /// The same for a message of the history: one that is older than all that is remembered counts as given.
    pub(crate) fn add_read(&mut self, id: MessageId) -> bool {
        self.read = self.read.max(id.micros().unwrap_or_default());
        self.forgotten.is_none_or(|forgotten| InTime(id) > forgotten) && self.is_new(id)
    }

    /// Whether a message was given before, as far as is remembered.
    pub(crate) fn has(&self, id: MessageId) -> bool {
        self.ids.contains(&InTime(id))
    }

    fn is_new(&mut self, id: MessageId) -> bool {
        if !id.is_ordered() {
            return true;
        }
        let is_new = self.ids.insert(InTime(id));
        self.forget();
        is_new
    }

    /// The message behind which the history is to be read.
    pub(crate) fn start(&self) -> MessageId {
        let start = InTime(before(self.whole));
        self.forgotten.map_or(start, |forgotten| forgotten.max(start)).0
    }

    /// Whether less is remembered than would have to be for that.
    pub(crate) fn is_short(&self) -> bool {
        self.forgotten.is_some_and(|forgotten| forgotten > InTime(before(self.whole)))
    }

    /// All of the history was read, which took so long.
    pub(crate) fn close(&mut self, took: Duration, p: Position) {
        // The newest one is no newer than the end, so what is so much older was there at the beginning.
        self.whole = self.whole.max(self.read.saturating_sub(micros(took)));
        self.next = (p, self.whole);
        self.forget();
    }

    fn forget(&mut self) {
        let old = self.whole.saturating_sub(KEPT);
        while let Some(first) = self.ids.first().copied() {
            let is_over = self.ids.len() > MOST;
            if !is_over && first.0.micros().is_some_and(|time| time >= old) {
                return;
            }
            self.ids.pop_first();
            if is_over {
                self.forgotten = self.forgotten.max(Some(first));
            }
        }
    }
}

/// An id that is as much before that time as a message may be late.
pub(crate) fn before(time: u64) -> MessageId {
    let ms = (time.saturating_sub(micros(LATE)) / 1_000).max(SNOWFLAKE_EPOCH_MS);
    // Only a time after 2154 has none.
    Snowflake::new(ms, 0, Worker::default()).unwrap_or(Snowflake(0)).into()
}

fn micros(duration: Duration) -> u64 {
    duration.as_micros().try_into().unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const SECOND: u64 = 1_000_000;
    /// When the session begins.
    const BEGIN: u64 = (SNOWFLAKE_EPOCH_MS + 10_000_000) * 1_000;

    fn id(time: u64, worker: u16) -> MessageId {
        Snowflake::new(time / 1_000, 0, Worker::new(worker).unwrap()).unwrap().into()
    }

    /// A message: when its id is made, when it is stored, and when it is told, in seconds since the session has begun.
    #[derive(Clone, Debug)]
    struct Life {
        made: u64,
        stored: u64,
        told: u64,
    }

    /// What happens to a session, by the second.
    #[derive(Clone, Debug)]
    enum Step {
        Told(usize),
        /// All is read that was stored by then, which takes so long.
        Resync {
            took: u64,
        },
        /// A session goes on: these are told again, and of the rest all is read.
        Resume(Vec<usize>),
    }

    fn lives() -> impl Strategy<Value = Vec<Life>> {
        let life = (0..2_000_u64, 0..60_u64, 0..29_u64);
        let life = life.prop_map(|(made, later, then)| Life { made, stored: made + later, told: made + later + then });
        proptest::collection::vec(life, 0..80)
    }

    /// From when on nothing is told, for how long, how much later that is noticed, and how long reading takes; or the session goes on.
    fn outages() -> impl Strategy<Value = Vec<(u64, u64, u64, Option<u64>)>> {
        let took = prop_oneof![Just(None), (0..400_u64).prop_map(Some)];
        proptest::collection::vec((0..2_000_u64, 0..600_u64, 0..10_u64, took), 0..5)
    }

    proptest! {
        #[test]
        fn each_is_given_once_whatever_was_not_told(lives in lives(), outages in outages()) {
            // Each gap is told before the next one begins, but is perhaps still being read then.
            let mut free = 0;
            let mut outages = outages;
            outages.sort_unstable();
            outages.retain(|(from, long, notice, _)| {
                let is_free = *from >= free;
                free = if is_free { from + long + notice + 1 } else { free };
                is_free
            });
            let mut steps: Vec<(u64, Step)> = Vec::new();
            for (number, life) in lives.iter().enumerate() {
                if !outages.iter().any(|(from, long, ..)| (*from..from + long).contains(&life.told)) {
                    steps.push((life.told, Step::Told(number)));
                }
            }
            for (from, long, notice, took) in &outages {
                let missed = |topic: usize| {
                    let mut missed: Vec<_> = (0..lives.len()).filter(|number| number % 2 == topic).collect();
                    missed.retain(|number| (*from..from + long).contains(&lives[*number].told));
                    missed.sort_by_key(|number| lives[*number].told);
                    missed
                };
                match took {
                    Some(took) => steps.push((from + long + notice, Step::Resync { took: *took })),
                    None => steps.push((from + long, Step::Resume(missed(0)))),
                }
            }
            steps.sort_by_key(|(time, _)| *time);

            let ids: Vec<_> = (0..).zip(&lives).map(|(worker, life)| id(BEGIN + life.made * SECOND, worker)).collect();
            let mut times = vec![0; lives.len()];
            let (mut given, mut now) = (Given::default(), 0);
            given.begin(Position(BEGIN));
            for (time, step) in steps {
                now = time.max(now);
                let p = Position(BEGIN + time * SECOND);
                match step {
                    Step::Told(number) => {
                        times[number] += usize::from(given.add(ids[number]));
                        given.reach(p);
                    }
                    Step::Resume(again) => {
                        for number in again {
                            times[number] += usize::from(given.add(ids[number]));
                        }
                        let start = given.start().sort_key();
                        for number in (1..lives.len()).step_by(2) {
                            if lives[number].stored <= now && ids[number].sort_key() > start {
                                times[number] += usize::from(given.add_read(ids[number]));
                            }
                        }
                        given.reach(p);
                    }
                    Step::Resync { took } => {
                        let start = given.start().sort_key();
                        for (number, life) in lives.iter().enumerate() {
                            // Each is read at some time meanwhile.
                            let read = now + took * (number as u64 % 3) / 2;
                            if life.stored <= read && ids[number].sort_key() > start {
                                times[number] += usize::from(given.add_read(ids[number]));
                            }
                        }
                        now += took;
                        given.close(Duration::from_secs(took), p);
                        // As another run of the program would have it.
                        given = serde_json::from_str(&serde_json::to_string(&given).unwrap()).unwrap();
                    }
                }
            }
            prop_assert!(times.iter().all(|times| *times == 1), "{times:?}");
        }
    }

    #[test]
    fn what_is_remembered_is_bounded_and_what_is_forgotten_is_not_given_again() {
        let mut given = Given::default();
        given.begin(Position(BEGIN));
        assert!(!given.is_short());
        let ids: Vec<_> = (0..MOST as u64 + 10).map(|number| id(BEGIN + number * 1_000, 0)).collect();
        assert!(ids.iter().all(|id| given.add(*id)));
        assert_eq!(given.ids.len(), MOST);
        assert!(ids.iter().all(|id| !given.add_read(*id)));
        assert!(given.is_short(), "of the last 90 s");
        assert_eq!(given.start(), ids[9]);
        // Later that is as long ago as need be.
        given.reach(Position(BEGIN + NOTICE));
        given.reach(Position(BEGIN + 2 * NOTICE + 200 * SECOND));
        given.add(id(BEGIN + 230 * SECOND, 0));
        given.reach(Position(BEGIN + 3 * NOTICE + 200 * SECOND));
        given.reach(Position(BEGIN + 4 * NOTICE + 200 * SECOND));
        assert!(!given.is_short());
        assert_eq!(given.start(), before(BEGIN + 230 * SECOND));
    }
}
