//! The rules by which a nonce stands for one message on CQL, explored: all states that tries, a relay and somebody who deletes
//! can bring each other into, where each may be killed at any step, an answer may be lost, and a write may land late or never.
//! The store's side of it is `scylla/nonces.rs`; names here are those of there.
//!
//! In each state the invariants hold, and left alone, each state ends well. Without any single rule they do not, which shows
//! that this can fail, and that no rule is there for nothing.

use std::{
    collections::{HashMap, HashSet, VecDeque},
    fmt,
    hash::{BuildHasherDefault, Hasher},
};

/// Tries under the same nonce, each of which mints an id.
const TRIES: usize = 3;
/// One more, that comes when all others have ended.
const LAST: usize = TRIES;
/// How many ids there may be: one a try, and one for each time that a claim is moved, also by the last try.
const ALL_IDS: usize = 7;

type Id = usize;

/// What must hold. Each is left out once.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Rule {
    /// A claim is an `INSERT … IF NOT EXISTS`.
    ClaimIfNotExists,
    /// A claim of another body is refused.
    BodyCompared,
    /// Who wrote a message and finds its id older than L does not acknowledge it.
    AcknowledgedWithinL,
    /// A claim is moved only when it is older than L and what clocks may differ by.
    OlderByMoreThanClocksDiffer,
    /// Whether a claim is old enough to be moved is known before its row is looked for.
    AgeBeforeRow,
    /// A claim is moved to an id that never stood in it.
    MovedToFreshId,
    /// `… IF message_id = M`
    MovedIfUnchanged,
    /// `… IF published = null`
    MovedIfUnpublished,
    /// Before a moved claim's new message is written, the old one is deleted as of a later time than it is written.
    Fence,
    /// Whoever goes on with a moved claim sees to that, and not only who moved it.
    FenceByWhoeverGoesOn,
    /// A repeat that answers with what it found marks it, if its id is older than L.
    RepeatMarks,
    /// Whether it is, is known after its row was found.
    RepeatRowBeforeAge,
    /// A relay looks for the row.
    RelayReadsRow,
    /// A relay marks what it publishes, if its id is older than L.
    RelayMarks,
    /// Whether it is, is known after its row was found.
    RelayRowBeforeAge,
    /// The mark is set before publishing, not after.
    RelayMarksFirst,
    /// `… IF message_id = M`
    MarkedIfUnchanged,
    /// A relay deletes what a claim was moved away from.
    RelayFences,
    /// Who deletes marks first, if the id is older than L.
    DeleteMarks,
    /// What is deleted leaves a stub, which counts as stored.
    DeleteLeavesStub,
}

const RULES: [Rule; 20] = [
    Rule::ClaimIfNotExists,
    Rule::BodyCompared,
    Rule::AcknowledgedWithinL,
    Rule::OlderByMoreThanClocksDiffer,
    Rule::AgeBeforeRow,
    Rule::MovedToFreshId,
    Rule::MovedIfUnchanged,
    Rule::MovedIfUnpublished,
    Rule::Fence,
    Rule::FenceByWhoeverGoesOn,
    Rule::RepeatMarks,
    Rule::RepeatRowBeforeAge,
    Rule::RelayReadsRow,
    Rule::RelayMarks,
    Rule::RelayRowBeforeAge,
    Rule::RelayMarksFirst,
    Rule::MarkedIfUnchanged,
    Rule::RelayFences,
    Rule::DeleteMarks,
    Rule::DeleteLeavesStub,
];

/// How old an id is, as clocks that differ a little say.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
enum Age {
    /// At most L, by each clock.
    #[default]
    Young,
    /// More than L by some clocks. By none of them as much as a claim must have to be moved.
    Between,
    /// More than L by each clock, and old enough to be moved by some.
    Old,
}

/// What is kept of an id.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
struct Message {
    /// Which try minted it.
    of: usize,
    age: Age,
    /// Its batch was sent, and may land yet.
    under_way: bool,
    /// Its two parts have landed: a batch is not isolated.
    row: bool,
    journal: bool,
    /// Deleted as of just after its write time: the row shows no more, whenever it lands.
    fenced: bool,
    deleted: bool,
    /// Its event is in the log.
    published: bool,
}

impl Message {
    fn is_visible(self) -> bool {
        self.row && !self.fenced && !self.deleted
    }
}

/// The row of `message_nonces`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
struct Claim {
    message: Id,
    /// The message that it stood for before.
    replaced: Option<Id>,
    published: bool,
}

/// Where a try is; `mine` is the id it minted last. Killed at a step is as if it never took the next one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Try {
    NotBegun,
    Claim {
        mine: Id,
    },
    Decided {
        mine: Id,
    },
    /// Takes the age of a claim that is somebody else's.
    AgeOfClaim {
        mine: Id,
        claim: Claim,
    },
    Row {
        mine: Id,
        claim: Claim,
        movable: bool,
        late: bool,
    },
    /// Only without a rule: takes the age of a claim whose row it did not find.
    AgeAfterRow {
        mine: Id,
        claim: Claim,
    },
    /// Takes the age of a row that it found.
    AgeOfRow {
        mine: Id,
        message: Id,
    },
    Mark {
        mine: Id,
        message: Id,
    },
    MarkDecided {
        mine: Id,
        message: Id,
    },
    /// Finishes what a move before has begun.
    Fence {
        message: Id,
        then: AfterFence,
    },
    Move {
        mine: Id,
        message: Id,
    },
    Write {
        message: Id,
    },
    AgeOfWritten {
        message: Id,
    },
    Ended,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum AfterFence {
    Write { message: Id },
    Move { mine: Id, message: Id },
}

impl AfterFence {
    fn to(self) -> Try {
        match self {
            Self::Write { message } => Try::Write { message },
            Self::Move { mine, message } => Try::Move { mine, message },
        }
    }
}

/// Where a relay is. It begins anew whenever it was killed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Relay {
    Idle,
    Row { message: Id, late: bool },
    Age { message: Id },
    Mark { message: Id },
    MarkDecided { message: Id },
    Absent { message: Id },
    Fence { message: Id },
    Publish { message: Id },
    MarkAfter { message: Id },
}

/// Where somebody is who deletes the message that he sees.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Delete {
    NotBegun,
    Age { message: Id },
    Mark { message: Id },
    MarkDecided { message: Id },
    Tombstone { message: Id },
    Ended,
}

#[derive(Clone, Copy, PartialEq, Eq, Hash)]
struct World {
    claim: Option<Claim>,
    messages: [Message; ALL_IDS],
    minted: usize,
    begun: usize,
    tries: [Try; TRIES + 1],
    relay: Relay,
    delete: Delete,
    acknowledged: Option<Id>,
    /// What broke in the last step, of what cannot be seen afterwards.
    broken: Option<&'static str>,
}

impl fmt::Debug for World {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(
            f,
            "    {:?}, acknowledged {:?}, relay {:?}, delete {:?}",
            self.claim, self.acknowledged, self.relay, self.delete
        )?;
        for id in 0..self.minted {
            writeln!(f, "    {id}: {:?}", self.messages[id])?;
        }
        for at in 0..self.tries.len() {
            writeln!(f, "    try {at}: {:?}", self.tries[at])?;
        }
        Ok(())
    }
}

/// What a row looks like to who reads it.
enum Found {
    Row,
    /// It was deleted, which counts as stored.
    Stub,
    Nothing,
}

/// What may happen.
#[derive(Clone, Copy)]
struct Rules {
    without: Option<Rule>,
    tries: usize,
    /// As many as there are tries, and moves of a claim.
    ids: usize,
    /// What each try says.
    bodies: [u8; TRIES + 1],
    relays: bool,
    deletes: bool,
}

impl Rules {
    fn hold(&self, rule: Rule) -> bool {
        self.without != Some(rule)
    }
}

/// What happened, in order to tell of it.
type Step = (&'static str, usize);

/// The states that follow a state.
struct Next<'a> {
    from: World,
    rules: &'a Rules,
    worlds: Vec<(Step, World)>,
}

impl Next<'_> {
    fn add(&mut self, step: Step, change: impl FnOnce(&mut World)) {
        let mut world = self.from;
        change(&mut world);
        if world != self.from {
            self.worlds.push((step, world));
        }
    }

    /// Whether an id is at most L old: yes, no, or as clocks differ, both.
    fn within_l(&self, message: Id) -> &'static [bool] {
        match self.from.messages[message].age {
            Age::Young => &[true],
            Age::Between => &[true, false],
            Age::Old => &[false],
        }
    }

    fn movable(&self, message: Id) -> &'static [bool] {
        match self.from.messages[message].age {
            Age::Between if !self.rules.hold(Rule::OlderByMoreThanClocksDiffer) => &[true, false],
            Age::Young | Age::Between => &[false],
            Age::Old => &[true, false],
        }
    }

    fn found(&self, message: Id) -> Found {
        let row = self.from.messages[message];
        match row {
            _ if row.is_visible() => Found::Row,
            Message { deleted: true, .. } if self.rules.hold(Rule::DeleteLeavesStub) => Found::Stub,
            _ => Found::Nothing,
        }
    }

    /// What the database and the time do.
    fn by_itself(&mut self) {
        for id in 0..self.from.minted {
            let message = self.from.messages[id];
            let older = match message.age {
                Age::Young => Age::Between,
                Age::Between | Age::Old => Age::Old,
            };
            if id == 0 || older <= self.from.messages[id - 1].age {
                self.add(("grows older", id), |world| world.messages[id].age = older);
            }
            if message.under_way {
                self.add(("row lands", id), |world| world.messages[id].row = true);
                if self.rules.relays {
                    self.add(("journal row lands", id), |world| world.messages[id].journal = true);
                }
            }
        }
    }

    /// `UPDATE … SET published = true IF message_id = M`: the states after it, and after its answer was lost.
    fn mark(&mut self, step: Step, message: Id, done: impl Fn(&mut World), lost: impl Fn(&mut World)) {
        let unchanged =
            self.from.claim.is_some_and(|claim| claim.message == message) || !self.rules.hold(Rule::MarkedIfUnchanged);
        if unchanged {
            for then in [&done as &dyn Fn(&mut World), &lost] {
                self.add(step, |world| {
                    if let Some(claim) = &mut world.claim {
                        claim.published = true;
                    }
                    then(world);
                });
            }
        } else {
            self.add(step, lost);
        }
    }

    /// Reads which message a nonce stands for.
    fn decided(&mut self, at: usize, mine: Id) {
        let Some(claim) = self.from.claim else { return };
        let body = self.rules.bodies[self.from.messages[claim.message].of];
        let to = if claim.message == mine {
            self.fences(claim, AfterFence::Write { message: mine })
        } else if body != self.rules.bodies[at] && self.rules.hold(Rule::BodyCompared) {
            Try::Ended
        } else if self.rules.hold(Rule::AgeBeforeRow) {
            Try::AgeOfClaim { mine, claim }
        } else {
            Try::Row { mine, claim, movable: false, late: false }
        };
        self.add(("try reads the claim", at), |world| world.tries[at] = to);
    }

    fn fences(&self, claim: Claim, then: AfterFence) -> Try {
        match claim.replaced {
            Some(message) if self.rules.hold(Rule::Fence) => Try::Fence { message, then },
            _ => then.to(),
        }
    }

    /// With a claim that has no row.
    fn goes_on(&self, mine: Id, claim: Claim, movable: bool) -> Try {
        let message = claim.message;
        let then = if movable { AfterFence::Move { mine, message } } else { AfterFence::Write { message } };
        if self.rules.hold(Rule::FenceByWhoeverGoesOn) { self.fences(claim, then) } else { then.to() }
    }

    fn a_try(&mut self, at: usize) {
        let now = self.from.tries[at];
        let go = |next: &mut Self, step: &'static str, to: Try| next.add((step, at), |world| world.tries[at] = to);
        match now {
            // One after the other, since they are all alike: ids are in the order in which tries began.
            Try::NotBegun if self.from.begun == at && at < self.rules.tries && self.from.minted < self.rules.ids => {
                self.add(("try begins", at), |world| {
                    world.begun += 1;
                    world.tries[at] = Try::Claim { mine: world.mint(at) };
                })
            }
            Try::NotBegun | Try::Ended => {}
            Try::Claim { mine } => {
                if self.from.claim.is_none() || !self.rules.hold(Rule::ClaimIfNotExists) {
                    let claim = Claim { message: mine, replaced: None, published: false };
                    // Its answer comes, or is lost.
                    for to in [Try::Write { message: mine }, Try::Decided { mine }] {
                        self.add(("try claims", at), |world| {
                            world.claim = Some(claim);
                            world.tries[at] = to;
                        });
                    }
                } else {
                    self.decided(at, mine);
                }
            }
            Try::Decided { mine } => self.decided(at, mine),
            Try::AgeOfClaim { mine, claim } => {
                for movable in self.movable(claim.message) {
                    // Looked at again when the row is found, unless the rule is left out.
                    let within_l = if self.rules.hold(Rule::RepeatRowBeforeAge) { &[true] } else { self.within_l(claim.message) };
                    for within in within_l {
                        let to = Try::Row { mine, claim, movable: *movable, late: !within };
                        go(self, "try takes the claim's age", to);
                    }
                }
            }
            Try::Row { mine, claim, movable, late } => {
                let message = claim.message;
                let hold = |rule| self.rules.hold(rule);
                match self.found(message) {
                    Found::Row if claim.published || !hold(Rule::RepeatMarks) => {
                        self.acknowledge(at, message);
                    }
                    Found::Row if hold(Rule::RepeatRowBeforeAge) => {
                        go(self, "try finds the row", Try::AgeOfRow { mine, message });
                    }
                    Found::Row if late => go(self, "try finds the row", Try::Mark { mine, message }),
                    Found::Row => self.acknowledge(at, message),
                    Found::Stub => self.acknowledge(at, message),
                    // It was there, since it is marked.
                    Found::Nothing if claim.published => self.acknowledge(at, message),
                    Found::Nothing if hold(Rule::AgeBeforeRow) => {
                        let to = self.goes_on(mine, claim, movable);
                        go(self, "try finds no row", to);
                    }
                    Found::Nothing => go(self, "try finds no row", Try::AgeAfterRow { mine, claim }),
                }
            }
            Try::AgeAfterRow { mine, claim } => {
                for movable in self.movable(claim.message) {
                    let to = self.goes_on(mine, claim, *movable);
                    go(self, "try takes the claim's age", to);
                }
            }
            Try::AgeOfRow { mine, message } => {
                for within in self.within_l(message) {
                    if *within {
                        self.acknowledge(at, message);
                    } else {
                        go(self, "try finds the row old", Try::Mark { mine, message });
                    }
                }
            }
            Try::Mark { mine, message } => {
                let rules = self.rules;
                self.mark(
                    ("try marks", at),
                    message,
                    |world| world.acknowledge(rules, at, message, false),
                    |world| world.tries[at] = Try::MarkDecided { mine, message },
                );
            }
            Try::MarkDecided { mine, message } => match self.from.claim {
                Some(claim) if claim.message == message && claim.published => {
                    self.acknowledge(at, message);
                }
                Some(claim) if claim.message == message => go(self, "try is not marked", Try::Mark { mine, message }),
                _ => go(self, "try finds another claim", Try::Claim { mine }),
            },
            // Done, but perhaps its answer is lost.
            Try::Fence { message, then } => {
                for to in [then.to(), Try::Ended] {
                    self.add(("try fences", at), |world| {
                        world.messages[message].fenced = true;
                        world.tries[at] = to;
                    });
                }
            }
            Try::Move { mine, message } => {
                let is = self.from.claim.filter(|claim| {
                    (claim.message == message || !self.rules.hold(Rule::MovedIfUnchanged))
                        && (!claim.published || !self.rules.hold(Rule::MovedIfUnpublished))
                });
                let ids = if at == LAST { ALL_IDS } else { self.rules.ids };
                let fresh = self.rules.hold(Rule::MovedToFreshId);
                if let Some(claim) = is
                    && (self.from.minted < ids || !fresh)
                {
                    self.add(("try moves the claim", at), |world| {
                        let mine = if fresh { world.mint(at) } else { mine };
                        world.claim = Some(Claim { message: mine, replaced: Some(message), ..claim });
                        world.tries[at] = Try::Claim { mine };
                    });
                }
                if is.is_none() {
                    go(self, "try does not move the claim", Try::Claim { mine });
                }
            }
            Try::Write { message } => {
                self.add(("try writes", at), |world| {
                    let row = &mut world.messages[message];
                    (row.row, row.journal) = (true, true);
                    world.tries[at] = Try::AgeOfWritten { message };
                });
                self.add(("try writes, and its answer is lost", at), |world| {
                    world.messages[message].under_way = true;
                    world.tries[at] = Try::Ended;
                });
            }
            Try::AgeOfWritten { message } => {
                for within in self.within_l(message) {
                    if *within || !self.rules.hold(Rule::AcknowledgedWithinL) {
                        self.acknowledge(at, message);
                    } else {
                        go(self, "try was too slow", Try::Ended);
                    }
                }
            }
        }
    }

    /// Acknowledges, and publishes if it is not killed before.
    fn acknowledge(&mut self, at: usize, message: Id) {
        let rules = self.rules;
        for killed in [false, true] {
            self.add(("try acknowledges", at), |world| world.acknowledge(rules, at, message, killed));
        }
    }

    fn relay(&mut self) {
        match self.from.relay {
            Relay::Idle => (0..self.from.minted).for_each(|message| self.relay_of(message)),
            _ => {
                self.add(("relay is killed", 0), |world| world.relay = Relay::Idle);
                self.relay_of(0);
            }
        }
    }

    /// It begins with that message, if it is at none.
    fn relay_of(&mut self, begins_with: Id) {
        let hold = |rule| self.rules.hold(rule);
        let go = |next: &mut Self, step: &'static str, of: Id, to: Relay| next.add((step, of), |world| world.relay = to);
        match self.from.relay {
            Relay::Idle => {
                let (message, Message { journal, published, .. }) = (begins_with, self.from.messages[begins_with]);
                if journal && !published {
                    // Looked at again when the row is found, unless the rule is left out.
                    let within_l = if hold(Rule::RelayRowBeforeAge) { &[true] } else { self.within_l(message) };
                    for within in within_l {
                        let row = Relay::Row { message, late: !within };
                        go(self, "relay finds", message, if hold(Rule::RelayReadsRow) { row } else { Relay::Age { message } });
                    }
                }
            }
            Relay::Row { message, late } => match self.found(message) {
                Found::Row if hold(Rule::RelayRowBeforeAge) => go(self, "relay finds the row", message, Relay::Age { message }),
                Found::Row if late => go(self, "relay finds the row", message, Relay::Mark { message }),
                Found::Row => go(self, "relay finds the row", message, Relay::Publish { message }),
                Found::Stub => go(self, "relay finds it deleted", message, Relay::Idle),
                Found::Nothing => go(self, "relay finds no row", message, Relay::Absent { message }),
            },
            Relay::Age { message } => {
                for within in self.within_l(message) {
                    let marks = self.rules.hold(Rule::RelayMarks) && self.rules.hold(Rule::RelayMarksFirst);
                    let to = if *within || !marks { Relay::Publish { message } } else { Relay::Mark { message } };
                    go(self, "relay takes the age", message, to);
                }
            }
            Relay::Mark { message } => self.mark(
                ("relay marks", message),
                message,
                |world| world.relay = Relay::Publish { message },
                |world| world.relay = Relay::MarkDecided { message },
            ),
            Relay::MarkDecided { message } => match self.from.claim {
                Some(claim) if claim.message == message && claim.published => {
                    go(self, "relay has marked", message, Relay::Publish { message });
                }
                Some(claim) if claim.message == message => go(self, "relay has not marked", message, Relay::Mark { message }),
                _ => go(self, "relay finds another claim", message, Relay::Fence { message }),
            },
            Relay::Absent { message } => match self.from.claim {
                Some(claim) if claim.message != message => {
                    go(self, "relay finds another claim", message, Relay::Fence { message });
                }
                _ => go(self, "relay looks again later", message, Relay::Idle),
            },
            Relay::Fence { message } => {
                if self.rules.hold(Rule::RelayFences) {
                    self.add(("relay fences", message), |world| world.messages[message].fenced = true);
                }
                self.add(("relay fences", message), |world| {
                    world.messages[message].fenced |= self.rules.hold(Rule::RelayFences);
                    world.relay = Relay::Idle;
                });
            }
            Relay::Publish { message } => self.add(("relay publishes", message), |world| {
                world.messages[message].published = true;
                let after = !self.rules.hold(Rule::RelayMarksFirst);
                world.relay = if after { Relay::MarkAfter { message } } else { Relay::Idle };
            }),
            Relay::MarkAfter { message } => {
                self.mark(("relay marks", message), message, |world| world.relay = Relay::Idle, |world| world.relay = Relay::Idle)
            }
        }
    }

    fn delete(&mut self) {
        let go = |next: &mut Self, step: &'static str, of: Id, to: Delete| next.add((step, of), |world| world.delete = to);
        match self.from.delete {
            Delete::NotBegun => {
                for message in 0..self.from.minted {
                    if self.from.messages[message].is_visible() {
                        let to = if self.rules.hold(Rule::DeleteMarks) {
                            Delete::Age { message }
                        } else {
                            Delete::Tombstone { message }
                        };
                        go(self, "somebody sees, and deletes,", message, to);
                    }
                }
            }
            Delete::Age { message } => {
                for within in self.within_l(message) {
                    let to = if *within { Delete::Tombstone { message } } else { Delete::Mark { message } };
                    go(self, "delete takes the age", message, to);
                }
            }
            Delete::Mark { message } => self.mark(
                ("delete marks", message),
                message,
                |world| world.delete = Delete::Tombstone { message },
                |world| world.delete = Delete::MarkDecided { message },
            ),
            Delete::MarkDecided { message } => match self.from.claim {
                Some(claim) if claim.message == message && claim.published => {
                    go(self, "delete has marked", message, Delete::Tombstone { message });
                }
                Some(claim) if claim.message == message => go(self, "delete has not marked", message, Delete::Mark { message }),
                _ => go(self, "delete finds nothing", message, Delete::Ended),
            },
            Delete::Tombstone { message } => self.add(("delete is done", message), |world| {
                world.messages[message].deleted = true;
                world.delete = Delete::Ended;
            }),
            Delete::Ended => {}
        }
    }
}

impl World {
    fn begin() -> Self {
        Self {
            claim: None,
            messages: [Message::default(); ALL_IDS],
            minted: 0,
            begun: 0,
            tries: [Try::NotBegun; TRIES + 1],
            relay: Relay::Idle,
            delete: Delete::NotBegun,
            acknowledged: None,
            broken: None,
        }
    }

    fn mint(&mut self, of: usize) -> Id {
        self.minted += 1;
        self.messages[self.minted - 1] = Message { of, ..Message::default() };
        self.minted - 1
    }

    fn acknowledge(&mut self, rules: &Rules, at: usize, message: Id, killed: bool) {
        if matches!(self.tries[at], Try::AgeOfWritten { .. }) && self.messages[message].age == Age::Old {
            self.broken = Some("I3: acknowledged by its writer when it was older than L");
        }
        if rules.bodies[self.messages[message].of] != rules.bodies[at] {
            self.broken = Some("I5: acknowledged with another body");
        }
        if self.acknowledged.is_some_and(|first| first != message) {
            self.broken = Some("I2: two acknowledgements carry two ids");
        }
        self.acknowledged = self.acknowledged.or(Some(message));
        // What is deleted is not told.
        let row = &mut self.messages[message];
        row.published |= !killed && !row.deleted;
        self.tries[at] = Try::Ended;
    }

    fn broken(&self) -> Option<&'static str> {
        let visible = self.messages.iter().filter(|message| message.is_visible()).count();
        let deleted = self.messages.iter().any(|message| message.deleted);
        let there = |message: Message| message.is_visible() || message.deleted;
        match self.broken {
            Some(broken) => Some(broken),
            None if visible > 1 => Some("I1: two rows are visible"),
            None if deleted && visible > 0 => Some("I4: what was deleted is there under another id"),
            None if self.messages.iter().any(|message| message.published && !there(*message)) => {
                Some("I6: what was published does not stay")
            }
            None if self.acknowledged.is_some_and(|id| !there(self.messages[id])) => Some("what was acknowledged does not stay"),
            None => None,
        }
    }

    /// Goes on without trouble, one step after the other, as long as somebody is at work.
    fn undisturbed(
        mut self,
        rules: &Rules,
        who: impl Fn(&mut Next<'_>),
        works: impl Fn(&World) -> bool,
    ) -> Result<Self, &'static str> {
        for _ in 0..50 {
            let next = self.next(rules, &who).into_iter().find(|((what, _), _)| !what.ends_with("is killed"));
            let Some((_, after)) = next else { return Ok(self) };
            self = after;
            if let Some(broken) = self.broken() {
                return Err(broken);
            }
            if !works(&self) {
                return Ok(self);
            }
        }
        Err("it never ends")
    }

    /// The same where all who are at work were killed.
    fn killed(mut self) -> Self {
        self.tries = [Try::Ended; TRIES + 1];
        (self.relay, self.delete) = (Relay::Idle, Delete::Ended);
        self
    }

    /// From where nobody is at work: everything that is visible in the end was told, and a repeat is answered, with the id
    /// of the answer before, if there was one.
    fn ends_badly(self, rules: &Rules) -> Option<&'static str> {
        let mut lost = self;
        lost.messages.iter_mut().for_each(|message| message.age = Age::Old);
        let mut landed = lost;
        for message in landed.messages.iter_mut().filter(|message| message.under_way) {
            (message.row, message.journal) = (true, true);
        }
        for (mut world, relays) in [(lost, false), (landed, false), (landed, true)] {
            if relays {
                for id in 0..world.minted {
                    let only = |next: &mut Next<'_>| next.relay_of(id);
                    match world.undisturbed(rules, only, |world| world.relay != Relay::Idle) {
                        Ok(after) => world = after,
                        Err(broken) => return Some(broken),
                    }
                }
                if world.messages.iter().any(|message| message.is_visible() && !message.published) {
                    return Some("I6: what is visible is not told");
                }
            }
            if world.claim.is_some_and(|claim| rules.bodies[world.messages[claim.message].of] != rules.bodies[LAST]) {
                continue;
            }
            world.tries[LAST] = Try::Claim { mine: world.mint(LAST) };
            match world.undisturbed(rules, |next| next.a_try(LAST), |world| world.tries[LAST] != Try::Ended) {
                Ok(after) if after.acknowledged.is_none() => return Some("a repeat is not answered"),
                Ok(_) => {}
                Err(broken) => return Some(broken),
            }
        }
        None
    }

    fn next(self, rules: &Rules, at: impl Fn(&mut Next<'_>)) -> Vec<(Step, World)> {
        let mut next = Next { from: self, rules, worlds: Vec::new() };
        at(&mut next);
        next.worlds
    }

    /// All that may happen.
    fn all(self, rules: &Rules) -> Vec<(Step, World)> {
        self.next(rules, |next| {
            next.by_itself();
            (0..TRIES).for_each(|at| next.a_try(at));
            if rules.relays {
                next.relay();
            }
            if rules.deletes {
                next.delete();
            }
        })
    }
}

/// The way to a state in which something does not hold.
struct Broken {
    what: &'static str,
    steps: Vec<(Step, World)>,
}

impl fmt::Display for Broken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{}", self.what)?;
        self.steps.iter().try_for_each(|((what, of), world)| writeln!(f, "  {what} {of}\n{world:?}"))
    }
}

/// Quick, and good enough for numbers that nobody chose.
#[derive(Default)]
struct Quick(u64);

impl Hasher for Quick {
    fn finish(&self) -> u64 {
        self.0
    }

    fn write(&mut self, bytes: &[u8]) {
        bytes.iter().for_each(|byte| self.write_u64(u64::from(*byte)));
    }

    fn write_u64(&mut self, part: u64) {
        self.0 = (self.0.rotate_left(5) ^ part).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    }

    fn write_usize(&mut self, part: usize) {
        self.write_u64(part as u64);
    }

    fn write_isize(&mut self, part: isize) {
        self.write_u64(part as u64);
    }

    fn write_u8(&mut self, part: u8) {
        self.write_u64(u64::from(part));
    }
}

type Quickly = BuildHasherDefault<Quick>;

/// Goes into each state once, the nearest first. How many there are, or the shortest way to a broken one.
fn explore(rules: &Rules) -> Result<usize, Broken> {
    let begin = World::begin();
    let mut from: HashMap<World, Option<(Step, World)>, Quickly> = HashMap::default();
    from.insert(begin, None);
    let mut ends = HashSet::<World, Quickly>::default();
    let mut ahead = VecDeque::from([begin]);
    while let Some(world) = ahead.pop_front() {
        let killed = world.killed();
        if let Some(what) = world.broken().or_else(|| ends.insert(killed).then(|| killed.ends_badly(rules)).flatten()) {
            let mut steps = Vec::new();
            let mut at = world;
            while let Some((step, before)) = from[&at] {
                steps.push((step, at));
                at = before;
            }
            steps.reverse();
            return Err(Broken { what, steps });
        }
        for (step, after) in world.all(rules) {
            from.entry(after).or_insert_with(|| {
                ahead.push_back(after);
                Some((step, world))
            });
        }
    }
    Ok(from.len())
}

/// What is explored: two tries that say different things; two with a relay and somebody who deletes; three. They are as small as
/// they can be while each rule is needed. Three tries with a relay, two moves, were explored too: 5,771,037 states.
const WORLDS: [Rules; 3] = [
    Rules { without: None, tries: 2, ids: 2, bodies: [0, 1, 0, 0], relays: false, deletes: false },
    Rules { without: None, tries: 2, ids: 3, bodies: [0; TRIES + 1], relays: true, deletes: true },
    Rules { without: None, tries: 3, ids: 5, bodies: [0; TRIES + 1], relays: false, deletes: false },
];

#[test]
fn a_nonce_stands_for_one_message_whatever_happens() {
    for rules in &WORLDS {
        match explore(rules) {
            Ok(states) => println!("{states} states"),
            Err(broken) => panic!("{broken}"),
        }
    }
}

#[test]
fn no_rule_can_be_left_out() {
    for rule in RULES {
        let broken = WORLDS.iter().find_map(|rules| explore(&Rules { without: Some(rule), ..*rules }).err());
        let broken = broken.unwrap_or_else(|| panic!("nothing breaks without {rule:?}"));
        println!("without {rule:?}: {}, after {} steps", broken.what, broken.steps.len());
    }
}
