//! What was sent, acknowledged, stored and seen, and what is wrong with it.
//!
//! Nothing here knows where it comes from: clients write it down, and [`Record::check`] reads it when all is over.

use std::{
    collections::{BTreeMap, HashMap, HashSet},
    fmt,
    time::Duration,
};

use jiscord_core::MessageId;

/// How long the SDK may take to read what was missed.
const READ_AGAIN: Duration = Duration::from_secs(60);
/// A loss that the server tells by RESYNC this much later was noticed. The promise is three seconds; machines are busy.
const NOTICED: Duration = Duration::from_secs(10);
/// So many defects of a kind are told one by one.
const TOLD: usize = 5;

/// Everything that is known of a run.
#[derive(Clone, Debug, Default)]
pub struct Record {
    /// What was sent, by nonce, which is the content as well.
    pub sent: HashMap<String, Sent>,
    /// The ids under which nonces were acknowledged.
    pub acked: HashMap<String, Vec<String>>,
    /// Who watched.
    pub observers: Vec<Observed>,
    /// The history of all channels in the end.
    pub stored: Vec<Row>,
    /// Sessions that did not come back, by name.
    pub stuck: Vec<String>,
    /// Whatever else was promised and not kept.
    pub broken: Vec<String>,
}

/// A message that somebody sent.
#[derive(Clone, Debug, Default)]
pub struct Sent {
    /// Where to.
    pub channel: String,
    /// Who. It sends one after the other, each when the one before is acknowledged.
    pub sender: usize,
    /// Which one of its messages.
    pub number: u64,
    /// The connections on which it was sent.
    pub connections: Vec<u64>,
}

/// A message in a channel's history.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Row {
    /// Where.
    pub channel: String,
    /// Its id.
    pub id: String,
    /// Its content, which is its nonce.
    pub nonce: String,
}

/// What one observer heard, in order.
#[derive(Clone, Debug, Default)]
pub struct Observed {
    /// Its name.
    pub name: String,
    /// What, and when, from the start of the run.
    pub heard: Vec<(Duration, Heard)>,
}

/// What an observer hears.
#[derive(Clone, Debug)]
pub enum Heard {
    /// READY: from here on everything is told.
    Ready {
        /// Which log.
        epoch: String,
        /// Its place in it; none where the observer is not told.
        p: Option<u64>,
    },
    /// RESUMED, HEARTBEAT_ACK: everything up to here was told.
    Upto(u64),
    /// RESYNC of what is watched: what was told before may have holes. From here on everything is told.
    Resync {
        /// Which log.
        epoch: String,
        /// The place from which on it is.
        p: Option<u64>,
    },
    /// The SDK has told what may have been missed before, as far as it does not say otherwise.
    Resynced,
    /// MESSAGE_CREATE.
    Message {
        /// Its place.
        p: Option<u64>,
        /// Its id.
        id: String,
        /// Its content.
        nonce: String,
    },
    /// Ids that are in the history, read after READY or RESYNC.
    Read(Vec<String>),
}

/// How often each defect was found.
#[derive(Clone, Debug, Default)]
pub struct Counts {
    /// Messages that were acknowledged.
    pub acknowledged: usize,
    /// Messages that observers saw, all together.
    pub seen: usize,
    /// Acknowledged, and not there.
    pub lost: usize,
    /// One nonce, two messages.
    pub stored_twice: usize,
    /// One nonce acknowledged as two messages.
    pub two_ids: usize,
    /// There, and sent by nobody.
    pub unsent: usize,
    /// Seen twice by one observer.
    pub seen_twice: usize,
    /// Positions or messages out of order.
    pub disorder: usize,
    /// Messages that an observer did not see although it was told that there is no gap, or never learned of at all.
    pub gaps: usize,
    /// Sessions that did not come back.
    pub stuck: usize,
    /// Other promises that were not kept.
    pub broken: usize,
    /// A sentence each, for some of them.
    pub details: Vec<String>,
}

impl Counts {
    /// How many defects there are.
    pub fn defects(&self) -> usize {
        self.kinds().iter().map(|(_, count)| count).sum()
    }

    fn kinds(&self) -> [(&'static str, usize); 9] {
        [
            ("acknowledged lost", self.lost),
            ("stored twice", self.stored_twice),
            ("one nonce, two ids", self.two_ids),
            ("stored, sent by nobody", self.unsent),
            ("seen twice", self.seen_twice),
            ("disorder", self.disorder),
            ("unnoticed gaps", self.gaps),
            ("stuck sessions", self.stuck),
            ("other promises broken", self.broken),
        ]
    }
}

impl fmt::Display for Counts {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "| recorded | count |\n| --- | --- |")?;
        writeln!(f, "| messages acknowledged | {} |", self.acknowledged)?;
        writeln!(f, "| messages seen by observers | {} |", self.seen)?;
        for (kind, count) in self.kinds() {
            writeln!(f, "| {kind} | {count} |")?;
        }
        for detail in &self.details {
            writeln!(f, "{detail}")?;
        }
        Ok(())
    }
}

/// Counts, and some sentences.
#[derive(Default)]
struct Found {
    count: usize,
    details: Vec<String>,
}

impl Found {
    fn one(&mut self, detail: impl FnOnce() -> String) {
        self.count += 1;
        if self.details.len() < TOLD {
            self.details.push(detail());
        }
    }

    fn into(self, details: &mut Vec<String>) -> usize {
        details.extend(self.details);
        self.count
    }
}

/// What all observers together know of the logs, by their epochs.
#[derive(Default)]
struct Logs<'a> {
    /// Which message lies where.
    places: HashMap<&'a str, BTreeMap<u64, &'a str>>,
    /// The other way round, by epoch and id.
    place_of: HashMap<(&'a str, &'a str), u64>,
    /// When each begun, in microseconds: the least place in it that anybody was told to go on from. What was written before
    /// may come in it again, whenever a relay finds it.
    begun: HashMap<&'a str, u64>,
}

/// A part of a log that an observer was told whole.
struct Stretch<'a> {
    epoch: &'a str,
    from: u64,
    /// Up to where, and since when that is known; growing.
    upto: Vec<(u64, Duration)>,
    /// When it was told that there may be holes in it.
    doubted: Option<Duration>,
}

impl Stretch<'_> {
    fn grow(&mut self, p: u64, at: Duration) {
        if self.upto.last().is_none_or(|(last, _)| *last < p) {
            self.upto.push((p, at));
        }
    }

    /// When it was told to be whole up to there, if it was.
    fn told(&self, p: u64) -> Option<Duration> {
        let next = self.upto.partition_point(|(upto, _)| *upto < p);
        self.upto.get(next).filter(|_| p > self.from).map(|(_, at)| *at)
    }
}

impl Record {
    /// What is wrong.
    pub fn check(&self) -> Counts {
        let mut counts = Counts { acknowledged: self.acked.len(), broken: self.broken.len(), ..Counts::default() };
        counts.details.extend(self.broken.iter().map(|broken| format!("broken: {broken}")));
        counts.details.extend(self.stuck.iter().map(|name| format!("stuck: {name}")));
        counts.stuck = self.stuck.len();
        self.check_stored(&mut counts);
        self.check_seen(&mut counts);
        counts
    }

    /// How often observers were told to read again, after their first READY.
    pub fn doubts(&self) -> usize {
        let told = self.observers.iter().flat_map(|observer| &observer.heard);
        let doubts = told.filter(|(_, heard)| matches!(heard, Heard::Ready { .. } | Heard::Resync { .. } | Heard::Resynced));
        doubts.count().saturating_sub(self.observers.len())
    }

    fn check_stored(&self, counts: &mut Counts) {
        let mut by_nonce: HashMap<&str, Vec<&str>> = HashMap::new();
        for row in &self.stored {
            by_nonce.entry(&row.nonce).or_default().push(&row.id);
        }
        let (mut twice, mut unsent, mut lost, mut two_ids) =
            (Found::default(), Found::default(), Found::default(), Found::default());
        for (nonce, ids) in &by_nonce {
            if ids.len() > 1 {
                twice.one(|| format!("stored twice: {nonce} as {ids:?}"));
            }
            if !self.sent.contains_key(*nonce) {
                unsent.one(|| format!("stored, sent by nobody: {nonce:?} as {ids:?}"));
            }
        }
        for (nonce, acked) in &self.acked {
            if acked.len() > 1 {
                two_ids.one(|| format!("acknowledged as two messages: {nonce} as {acked:?}"));
            }
            let there = by_nonce.get(&**nonce);
            for id in acked.iter().filter(|id| !there.is_some_and(|ids| ids.contains(&&***id))) {
                lost.one(|| format!("acknowledged and lost: {nonce} as {id}"));
            }
        }
        counts.stored_twice = twice.into(&mut counts.details);
        counts.unsent = unsent.into(&mut counts.details);
        counts.lost = lost.into(&mut counts.details);
        counts.two_ids = two_ids.into(&mut counts.details);
        counts.disorder += self.ids_in_order().into(&mut counts.details);
    }

    /// A sender waits for each acknowledgement before it goes on, so its ids grow.
    fn ids_in_order(&self) -> Found {
        let mut found = Found::default();
        let mut by_sender: BTreeMap<(usize, &str), Vec<(u64, &str)>> = BTreeMap::new();
        for row in &self.stored {
            if let Some(sent) = self.sent.get(&row.nonce) {
                by_sender.entry((sent.sender, &row.channel)).or_default().push((sent.number, &row.id));
            }
        }
        for ((sender, _), mut rows) in by_sender {
            rows.sort_unstable();
            for pair in rows.windows(2).filter(|pair| pair[0].0 < pair[1].0 && sort_key(pair[0].1) >= sort_key(pair[1].1)) {
                found.one(|| format!("disorder: of sender {sender} message {:?} has a later id than {:?}", pair[0], pair[1]));
            }
        }
        found
    }

    fn check_seen(&self, counts: &mut Counts) {
        let (mut twice, mut disorder, mut gaps) = (Found::default(), Found::default(), Found::default());
        let logs = self.logs(&mut disorder);
        for observer in &self.observers {
            counts.seen += self.check_observer(observer, &logs, &mut twice, &mut disorder, &mut gaps);
        }
        counts.seen_twice = twice.into(&mut counts.details);
        counts.disorder += disorder.into(&mut counts.details);
        counts.gaps = gaps.into(&mut counts.details);
    }

    /// Each message has one place in a log.
    fn logs(&self, disorder: &mut Found) -> Logs<'_> {
        let mut logs = Logs::default();
        for observer in &self.observers {
            let mut log = "";
            for (_, heard) in &observer.heard {
                match heard {
                    Heard::Ready { epoch, p } | Heard::Resync { epoch, p } => {
                        log = epoch;
                        if let Some(p) = p {
                            let first = logs.begun.entry(log).or_insert(*p);
                            *first = (*first).min(*p);
                        }
                    }
                    Heard::Message { p: Some(p), id, .. } => {
                        let first = *logs.place_of.entry((log, id)).or_insert(*p);
                        let there = *logs.places.entry(log).or_default().entry(*p).or_insert(id);
                        if first != *p {
                            disorder.one(|| format!("disorder: {id} has the places {first} and {p}"));
                        }
                        if there != id {
                            disorder.one(|| format!("disorder: {there} and {id} have the place {p}"));
                        }
                    }
                    _ => {}
                }
            }
        }
        logs
    }

    fn check_observer(
        &self,
        observer: &Observed,
        logs: &Logs<'_>,
        twice: &mut Found,
        disorder: &mut Found,
        gaps: &mut Found,
    ) -> usize {
        let name = &observer.name;
        let mut stretches: Vec<Stretch<'_>> = Vec::new();
        // In this log.
        let mut seen: HashSet<(&str, &str)> = HashSet::new();
        // The same, or since the last doubt where the observer is not told of places.
        let mut once: HashSet<(&str, &str)> = HashSet::new();
        let mut learned: HashSet<&str> = HashSet::new();
        let mut last_p: HashMap<&str, u64> = HashMap::new();
        let mut last_of: HashMap<(&str, usize, u64), u64> = HashMap::new();
        let (mut log, mut messages) = ("", 0);
        // Behind a later one of the same sender.
        let mut late: Vec<(Duration, String)> = Vec::new();
        // Whether the next message is the first of a stretch of which nothing else says where it begins.
        let mut begins = false;
        for (at, heard) in &observer.heard {
            match heard {
                Heard::Ready { epoch, p } | Heard::Resync { epoch, p } => {
                    if let (Heard::Resync { .. }, Some(stretch)) = (heard, stretches.last_mut()) {
                        stretch.doubted = Some(*at);
                    }
                    log = epoch;
                    begins = p.is_none();
                    match p {
                        Some(p) => stretches.push(Stretch { epoch, from: *p, upto: vec![(*p, *at)], doubted: None }),
                        None => once.clear(),
                    }
                }
                Heard::Resynced => {
                    if let Some(stretch) = stretches.last_mut() {
                        stretch.doubted = Some(*at);
                    }
                    begins = true;
                    // Read again, behind what came before it was known to be missed.
                    late.retain(|(told, _)| at.saturating_sub(*told) > READ_AGAIN);
                }
                Heard::Upto(p) => {
                    if let Some(stretch) = stretches.last_mut() {
                        stretch.grow(*p, *at);
                    }
                }
                Heard::Message { p, id, nonce } => {
                    messages += 1;
                    learned.insert(id);
                    seen.insert((log, id));
                    if !once.insert((log, id)) {
                        twice.one(|| format!("seen twice: {nonce} ({id}) by {name}"));
                    }
                    if let Some(p) = p {
                        let last = last_p.entry(log).or_default();
                        if *p <= *last {
                            disorder.one(|| format!("disorder: {name} heard {p} after {last}"));
                        }
                        *last = (*last).max(*p);
                    }
                    // Where the observer is not told, the others know.
                    if let Some(p) = p.or_else(|| logs.place_of.get(&(log, &**id)).copied()) {
                        if std::mem::take(&mut begins) {
                            stretches.push(Stretch { epoch: log, from: p, upto: vec![(p, *at)], doubted: None });
                        } else if let Some(stretch) = stretches.last_mut() {
                            stretch.grow(p, *at);
                        }
                    }
                    // What went over several connections may have been told by any of them.
                    if let Some((sent, connection)) = self.sent.get(nonce).and_then(|sent| match sent.connections[..] {
                        [connection] => Some((sent, connection)),
                        _ => None,
                    }) && logs.begun.get(log).is_none_or(|begun| micros(id) >= *begun)
                    {
                        let last = last_of.entry((log, sent.sender, connection)).or_default();
                        if sent.number < *last {
                            late.push((*at, format!("disorder: {name} heard {nonce} after number {last} of the same sender")));
                        }
                        *last = (*last).max(sent.number);
                    }
                }
                Heard::Read(ids) => learned.extend(ids.iter().map(String::as_str)),
            }
        }
        for (_, what) in late {
            disorder.one(|| what);
        }
        let mut missed = HashSet::new();
        for stretch in &stretches {
            let Some((to, _)) = stretch.upto.last() else { continue };
            let Some(places) = logs.places.get(stretch.epoch) else { continue };
            // `from` is left out: it was told before.
            for (p, id) in places.range(stretch.from + 1..=(*to).max(stretch.from + 1)) {
                let Some(told) = stretch.told(*p) else { continue };
                let noticed = stretch.doubted.is_some_and(|doubted| doubted.saturating_sub(told) <= NOTICED);
                if !seen.contains(&(stretch.epoch, id)) && !noticed && missed.insert(*id) {
                    gaps.one(|| format!("unnoticed gap: {name} was told everything up to {to}, and not {id} at {p}"));
                }
            }
        }
        for row in self.stored.iter().filter(|row| !learned.contains(&*row.id) && !missed.contains(&*row.id)) {
            gaps.one(|| format!("unnoticed gap: {name} never learned of {} ({})", row.nonce, row.id));
        }
        messages
    }
}

/// When an id was made. One that does not say so was made late.
fn micros(id: &str) -> u64 {
    id.parse::<MessageId>().ok().and_then(MessageId::micros).unwrap_or(u64::MAX)
}

/// The order of ids. One that is none comes first.
fn sort_key(id: &str) -> [u8; 16] {
    id.parse::<MessageId>().map(MessageId::sort_key).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The id of the message that was stored as number `n`.
    fn id(n: u64) -> String {
        format!("{n:08x}-e748-11f1-8000-010000000000")
    }

    fn message(n: u64) -> Heard {
        Heard::Message { p: Some(100 + n), id: id(n), nonce: format!("n{n}") }
    }

    fn ready(p: u64) -> Heard {
        Heard::Ready { epoch: "e".into(), p: Some(p) }
    }

    fn resync(epoch: &str, p: u64) -> Heard {
        Heard::Resync { epoch: epoch.into(), p: Some(p) }
    }

    fn read(ids: std::ops::RangeInclusive<u64>) -> Heard {
        Heard::Read(ids.map(id).collect())
    }

    /// One sender's messages 1 to 5, acknowledged and stored. Two observers heard them all, the second one over two cuts: one
    /// that it resumed after, and one that it read the history after.
    fn sound() -> Record {
        let mut record = Record::default();
        for n in 1..=5 {
            let sent = Sent { channel: "c".into(), sender: 0, number: n, connections: vec![7] };
            record.sent.insert(format!("n{n}"), sent);
            record.acked.insert(format!("n{n}"), vec![id(n)]);
            record.stored.push(Row { channel: "c".into(), id: id(n), nonce: format!("n{n}") });
        }
        let first = vec![ready(100), message(1), message(2), message(3), message(4), message(5), Heard::Upto(120)];
        let resumed = [ready(100), message(1), message(2), Heard::Upto(102), ready(103), read(1..=3), message(4), message(5)];
        for (name, heard) in [("first", first), ("second", resumed.to_vec())] {
            record.observers.push(Observed { name: name.into(), heard: timed(heard) });
        }
        record
    }

    /// One a second.
    fn timed(heard: Vec<Heard>) -> Vec<(Duration, Heard)> {
        heard.into_iter().enumerate().map(|(n, heard)| (Duration::from_secs(n as u64), heard)).collect()
    }

    type Spoil = fn(&mut Record);

    /// As the SDK tells it.
    fn without_places(heard: &mut Vec<(Duration, Heard)>) {
        heard.retain(|(_, heard)| !matches!(heard, Heard::Upto(_)));
        for (_, heard) in heard {
            if let Heard::Ready { p, .. } | Heard::Resync { p, .. } | Heard::Message { p, .. } = heard {
                *p = None;
            }
        }
    }

    #[test]
    fn a_sound_record_is_sound() {
        let counts = sound().check();
        assert_eq!(counts.defects(), 0, "{counts}");
        assert_eq!((counts.acknowledged, counts.seen), (5, 9));
        let mut record = sound();
        without_places(&mut record.observers[1].heard);
        let counts = record.check();
        assert_eq!(counts.defects(), 0, "{counts}");
    }

    #[test]
    fn each_defect_is_found_and_no_other() {
        let cases: [(&str, Spoil); 17] = [
            ("acknowledged lost", |record| {
                record.acked.insert("n9".into(), vec![id(9)]);
            }),
            ("stored twice", |record| {
                record.stored[4].nonce = "n3".into();
                record.acked.remove("n5");
            }),
            ("one nonce, two ids", |record| record.acked.get_mut("n2").unwrap().push(id(9))),
            ("stored, sent by nobody", |record| {
                record.sent.remove("n5");
            }),
            ("seen twice", |record| {
                let again = Heard::Message { p: Some(130), id: id(5), nonce: "n5".into() };
                // Its other place would be a defect as well.
                let heard = &mut record.observers[0].heard;
                heard.push((Duration::from_secs(9), Heard::Resync { epoch: "f".into(), p: None }));
                heard.extend([(Duration::from_secs(9), again.clone()), (Duration::from_secs(9), Heard::Upto(131))]);
                heard.push((Duration::from_secs(9), Heard::Message { p: None, id: id(5), nonce: "n5".into() }));
            }),
            ("disorder", |record| record.observers[0].heard.swap(2, 3)),
            ("disorder", |record| {
                let ids: Vec<_> = record.stored.iter().rev().map(|row| row.id.clone()).collect();
                record.stored.iter_mut().zip(ids).for_each(|(row, id)| row.id = id);
            }),
            ("unnoticed gaps", |record| drop(record.observers[0].heard.remove(3))),
            // The last one, which nothing but a heartbeat comes after.
            ("unnoticed gaps", |record| drop(record.observers[0].heard.remove(5))),
            // In a resumed stretch.
            ("unnoticed gaps", |record| drop(record.observers[1].heard.remove(2))),
            // Not told, and not read either.
            ("unnoticed gaps", |record| record.observers[1].heard[5].1 = read(1..=2)),
            // Noticed too late.
            ("unnoticed gaps", |record| {
                let heard = &mut record.observers[0].heard;
                heard.remove(4);
                heard.extend([(Duration::from_secs(60), resync("e", 130)), (Duration::from_secs(61), read(1..=5))]);
            }),
            // By one that is not told of places, but by what it heard before and after.
            ("unnoticed gaps", |record| {
                without_places(&mut record.observers[0].heard);
                record.observers[0].heard.remove(3);
            }),
            ("seen twice", |record| {
                without_places(&mut record.observers[1].heard);
                let again = record.observers[1].heard[2].clone();
                record.observers[1].heard.insert(3, again);
            }),
            // What was read after a gap was heard before it.
            ("seen twice", |record| {
                let heard = &mut record.observers[1].heard;
                without_places(heard);
                heard.push((Duration::from_secs(20), heard[6].1.clone()));
                heard.push((Duration::from_secs(20), Heard::Resynced));
            }),
            ("stuck sessions", |record| record.stuck.push("first".into())),
            ("other promises broken", |record| record.broken.push("the epoch changed".into())),
        ];
        for (number, (kind, spoil)) in cases.into_iter().enumerate() {
            let mut record = sound();
            spoil(&mut record);
            let counts = record.check();
            for (name, count) in counts.kinds() {
                // An id that another message has is also out of its order, or missing.
                let goes_along = matches!(
                    (kind, name),
                    ("stored twice", "disorder") | ("disorder" | "one nonce, two ids", "acknowledged lost")
                );
                assert!(goes_along || (count > 0) == (name == kind), "case {number}, {kind}: {counts}");
            }
        }
    }

    #[test]
    fn what_is_told_in_time_is_no_gap() {
        // A hole, and RESYNC within seconds; another log, in which a message comes again.
        let mut record = sound();
        let heard = &mut record.observers[0].heard;
        heard.remove(4);
        let again = Heard::Message { p: Some(240), id: id(5), nonce: "n5".into() };
        heard.extend([
            (Duration::from_secs(8), resync("e", 130)),
            (Duration::from_secs(9), read(1..=5)),
            (Duration::from_secs(60), resync("f", 230)),
            (Duration::from_secs(61), again),
        ]);
        let counts = record.check();
        assert_eq!(counts.defects(), 0, "{counts}");
        // A hole that the SDK has filled.
        let mut record = sound();
        let heard = &mut record.observers[0].heard;
        without_places(heard);
        let at = heard.last().unwrap().0;
        let (_, missed) = heard.remove(3);
        heard.extend([(at, missed), (at, Heard::Resynced)]);
        let counts = record.check();
        assert_eq!(counts.defects(), 0, "{counts}");
    }

    #[test]
    fn messages_over_several_connections_have_no_order_of_telling() {
        let mut record = sound();
        for n in [2, 3] {
            record.sent.get_mut(&format!("n{n}")).unwrap().connections.push(8);
        }
        for observer in &mut record.observers {
            observer.heard = timed(vec![ready(100), message(1), late(3, 102), late(2, 103), message(4), message(5)]);
        }
        let counts = record.check();
        assert_eq!(counts.defects(), 0, "{counts}");
        // Nor have those that were written before the log begun.
        record.sent.values_mut().for_each(|sent| sent.connections = vec![7]);
        for observer in &mut record.observers {
            observer.heard[0].1 = ready(micros(&id(5)) + 1);
        }
        let counts = record.check();
        assert_eq!(counts.disorder, 0, "{counts}");
        record.observers.iter_mut().for_each(|observer| observer.heard[0].1 = ready(100));
        // But over one connection they have.
        assert!(record.check().disorder > 0);
    }

    fn late(n: u64, p: u64) -> Heard {
        Heard::Message { p: Some(p), id: id(n), nonce: format!("n{n}") }
    }
}
