//! What everybody said and heard, and what that says about the promises.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    hash::{DefaultHasher, Hash},
    sync::{Arc, Mutex, MutexGuard},
    time::Duration,
};

use jiscord_core::{GuildId, MessageId, Placed, ServerFrame, Topic, UserId, frame::Resync, model::Rev};
use tokio::time::Instant;

use super::{
    redis::Published,
    store::{Move, Store},
    world::{Counts, HEARTBEAT, Planted, SimClock, World},
};

pub(super) struct Record {
    clock: SimClock,
    /// How long an evicted session may be there.
    evicts: Duration,
    inner: Mutex<Inner>,
}

#[derive(Default)]
pub(super) struct Inner {
    /// Of all that happened, in order: equal for equal runs.
    pub(super) trace: DefaultHasher,
    /// For whoever looks for the cause of a violation.
    pub(super) lines: Vec<String>,
    pub(super) counts: Counts,
    pub(super) violations: Vec<String>,
    pub(super) heard: Vec<Heard>,
    sessions: u64,
    /// The newest session of each device, and since when.
    newest: BTreeMap<(UserId, Option<&'static str>), (u64, Instant)>,
    acknowledged: Vec<(UserId, String, MessageId)>,
}

/// What one client heard.
pub(super) struct Heard {
    pub(super) user: UserId,
    device: Option<&'static str>,
    /// It is not there at the end.
    pub(super) passes: bool,
    /// It has a session.
    pub(super) open: bool,
    /// So many of its messages are not acknowledged.
    pub(super) owed: usize,
    /// By position.
    pub(super) events: BTreeMap<u64, (Instant, Arc<str>)>,
    /// Where its sessions began.
    ready: Vec<u64>,
    resyncs: Vec<(Instant, u64, Resync)>,
    /// The guilds that it believes to be in.
    pub(super) guilds: BTreeSet<GuildId>,
    /// Where it was told last that it came into a guild or left it.
    moved: BTreeMap<GuildId, u64>,
}

impl Record {
    pub(super) fn new(clock: SimClock, planted: Option<Planted>) -> Self {
        // As long as Redis may be away, and then until the next heartbeat of the gateway. Runs with the defect end before that.
        let evicts = match planted {
            Some(Planted::NotEvicted) => Duration::from_secs(5),
            _ => 2 * HEARTBEAT + Duration::from_secs(10),
        };
        Self { clock, evicts, inner: Mutex::default() }
    }

    pub(super) fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap()
    }

    /// Something happened.
    pub(super) fn note(&self, what: &'static str, detail: String) {
        let mut inner = self.lock();
        *inner.counts.entry(what).or_default() += 1;
        let line = format!("{:>9} {what} {detail}", self.clock.0.elapsed().as_micros());
        line.hash(&mut inner.trace);
        inner.lines.push(line);
    }

    pub(super) fn violated(&self, what: String) {
        self.note("VIOLATION", what.clone());
        self.lock().violations.push(what);
    }

    pub(super) fn client(&self, user: UserId, device: Option<&'static str>, passes: bool) -> usize {
        let mut inner = self.lock();
        let (events, guilds, moved) = (BTreeMap::new(), BTreeSet::new(), BTreeMap::new());
        let (ready, resyncs, open, owed) = (Vec::new(), Vec::new(), false, 0);
        inner.heard.push(Heard { user, device, passes, open, owed, events, ready, resyncs, guilds, moved });
        inner.heard.len() - 1
    }

    /// A session of a device is live from here on. Returns its number.
    pub(super) fn began(&self, user: UserId, device: Option<&'static str>) -> u64 {
        let mut inner = self.lock();
        inner.sessions += 1;
        let number = inner.sessions;
        inner.newest.insert((user, device), (number, Instant::now()));
        number
    }

    /// A client was told that a later session has its device's place.
    pub(super) fn evicted(&self, client: usize) {
        self.note("evicted", client.to_string());
        let has_rival = {
            let heard = &self.lock().heard;
            let Heard { user, device, .. } = heard[client];
            heard.iter().filter(|other| (other.user, other.device) == (user, device)).count() > 1
        };
        if !has_rival {
            self.violated(format!("I15 client {client} was evicted by nobody but itself"));
        }
    }

    pub(super) fn stands(&self, client: usize, open: bool, owed: usize) {
        let heard = &mut self.lock().heard[client];
        (heard.open, heard.owed) = (open, owed);
    }

    /// A connection has ended, and with it a session, if it had one.
    pub(super) fn ended(&self, client: usize, device: Option<&'static str>, session: u64, owed: usize) {
        self.stands(client, false, owed);
        let Inner { heard, newest, .. } = &mut *self.lock();
        let device = (heard[client].user, device);
        if newest.get(&device).is_some_and(|(newer, _)| *newer == session) {
            newest.remove(&device);
        }
    }

    /// Whether everybody who is to stay has a session, and all that was said is acknowledged.
    pub(super) fn is_settled(&self) -> bool {
        self.lock().heard.iter().filter(|heard| !heard.passes).all(|heard| heard.open && heard.owed == 0)
    }

    pub(super) fn ready(&self, client: usize, p: u64, guilds: BTreeSet<GuildId>) {
        let heard = &mut self.lock().heard[client];
        heard.ready.push(p);
        heard.guilds = guilds;
    }

    /// What was kept may be stale: it is read anew.
    pub(super) fn resync(&self, client: usize, p: u64, mut resync: Resync, store: &Store) {
        let heard = &mut self.lock().heard[client];
        if resync.topics.as_ref().is_none_or(|topics| topics.contains(&Topic::User(heard.user))) {
            let before = std::mem::replace(&mut heard.guilds, store.guilds_of(heard.user));
            // Guilds that it did not know of are read as well.
            if let Some(topics) = &mut resync.topics {
                topics.extend(heard.guilds.difference(&before).map(|guild| Topic::Guild(*guild)));
            }
        }
        heard.resyncs.push((Instant::now(), p, resync));
    }

    pub(super) fn acknowledged(&self, user: UserId, nonce: String, message: MessageId) {
        self.lock().acknowledged.push((user, nonce, message));
    }

    /// An event came over session number `session` of a device.
    pub(super) fn told(
        &self,
        client: usize,
        (device, session): (Option<&'static str>, u64),
        p: u64,
        frame: &ServerFrame,
        text: &str,
    ) {
        let (now, mut wrong) = (Instant::now(), None);
        {
            let Inner { heard, newest, .. } = &mut *self.lock();
            let heard = &mut heard[client];
            if let Some((newer, since)) = newest.get(&(heard.user, device))
                && *newer > session
                && now - *since > self.evicts
            {
                wrong = Some(format!("I15 client {client} is told {p} though a later session has its device's place"));
            }
            match heard.events.get(&p) {
                None => {
                    heard.events.insert(p, (now, text.into()));
                    let moved = match frame {
                        ServerFrame::GuildCreate(create) => Some((create.guild.guild_id, true)),
                        ServerFrame::GuildDelete(gone) => Some((gone.guild_id, false)),
                        _ => None,
                    };
                    // What is told again may be older than what is known of that guild.
                    if let Some((guild, is_in)) = moved
                        && heard.moved.get(&guild).is_none_or(|last| *last < p)
                    {
                        heard.moved.insert(guild, p);
                        heard.guilds.retain(|other| *other != guild);
                        heard.guilds.extend(is_in.then_some(guild));
                    }
                }
                Some((_, before)) if **before != *text && !own(frame) && !before.contains(r#""op":"GUILD_"#) => {
                    wrong = Some(format!("I14 client {client} is told other bytes at {p} than before"));
                }
                Some(_) => {}
            }
        }
        if let Some(wrong) = wrong {
            self.violated(wrong);
        }
    }
}

/// A frame that is made for those whom an event concerns.
fn own(frame: &ServerFrame) -> bool {
    matches!(frame, ServerFrame::GuildCreate(_) | ServerFrame::GuildDelete(_))
}

/// Who is in which guild as the log tells it: by position, the changes that hold, since no newer one stands before them.
struct Moves<'a>(HashMap<(UserId, GuildId), Vec<(u64, &'a Move)>>);

impl<'a> Moves<'a> {
    fn read(moves: &'a [Move], published: &BTreeMap<u64, Published>) -> Self {
        let by_event: HashMap<_, _> = moves.iter().filter_map(|row| Some((row.event?.to_string(), row))).collect();
        let begin = moves.iter().filter(|row| row.event.is_none()).map(|row| (0, row));
        let told = published.iter().filter_map(|(p, event)| Some((*p, *by_event.get(&event.id)?)));
        let mut all: HashMap<_, Vec<(u64, &Move)>> = HashMap::new();
        for (p, row) in begin.chain(told) {
            let rows = all.entry((row.user, row.guild)).or_default();
            if rows.last().is_none_or(|(_, last)| last.rev < row.rev) {
                rows.push((p, row));
            }
        }
        Self(all)
    }

    fn of(&self, user: UserId, guild: GuildId) -> &[(u64, &'a Move)] {
        self.0.get(&(user, guild)).map_or(&[], Vec::as_slice)
    }

    /// For whoever looks for the cause of a violation.
    fn of_user(&self, user: UserId) -> Vec<(GuildId, u64, Rev, bool)> {
        let of = self.0.iter().filter(|((who, _), _)| *who == user);
        of.flat_map(|((_, guild), rows)| rows.iter().map(|(p, row)| (*guild, *p, row.rev, row.joins))).collect()
    }

    /// Whether he is in it at a position, and as of which change.
    fn at(&self, user: UserId, guild: GuildId, p: u64) -> (bool, Rev) {
        let before = self.of(user, guild).iter().rev().find(|(at, _)| *at <= p);
        before.map_or((false, 0), |(_, row)| (row.joins, row.rev))
    }
}

impl World {
    /// Judges all that was recorded. To be called when everybody had the time to hear everything.
    pub(super) fn judge(&self) {
        let mut wrong = Vec::new();
        let rows = self.store.rows();
        let server = self.server.lock();
        let published = &server.published;
        let moves = Moves::read(&rows.moves, published);
        let record = self.record.lock();

        for event in &rows.journal {
            if !published.values().any(|told| told.id == event.id.to_string()) {
                wrong.push(format!("I6 {} was stored and never published", event.op));
            }
        }
        for (user, nonce, id) in &record.acknowledged {
            if rows.messages.get(&(*user, nonce.clone())).is_none_or(|row| row.message_id != *id) {
                wrong.push(format!("I2 {nonce} was acknowledged and is not stored so"));
            }
        }
        // Nonces are `<client> <number>`, and each client says one thing after the other.
        let mut said: Vec<_> = rows.messages.iter().filter_map(|((_, nonce), row)| Some((nonce.split_once(' ')?, row))).collect();
        said.sort_by_key(|((client, number), _)| ((*client).to_owned(), number.parse::<u32>().unwrap()));
        for pair in said.windows(2).filter(|pair| pair[0].0.0 == pair[1].0.0) {
            if pair[0].1.message_id.sort_key() >= pair[1].1.message_id.sort_key() {
                wrong.push(format!("{:?} has a greater id than {:?}", pair[0].0, pair[1].0));
            }
        }

        for (client, heard) in record.heard.iter().enumerate() {
            for (p, (at, text)) in &heard.events {
                let Some(event) = published.get(p) else {
                    wrong.push(format!("I10 client {client} was told {p}, which is no place in the log: {text}"));
                    continue;
                };
                let frame = Placed::read(text).unwrap().frame;
                let mine = event.topics.contains(&Topic::User(heard.user).to_string());
                let whole = format!("{},\"p\":{p}}}", event.frame.strip_suffix('}').unwrap());
                if whole != **text && !(mine && own(&frame)) {
                    wrong.push(format!("I11 client {client} was told {text} where the log has {whole}"));
                }
                let guilds = event.topics.iter().filter_map(|topic| match topic.parse() {
                    Ok(Topic::Guild(guild)) => Some(guild),
                    _ => None,
                });
                let may = |guild| {
                    let (is_in, rev) = moves.at(heard.user, guild, *p);
                    // What was loaded may be ahead of the log.
                    let came =
                        |row: &Move| row.user == heard.user && row.guild == guild && row.joins && row.rev > rev && row.at <= *at;
                    is_in || rows.moves.iter().any(came)
                };
                if !mine && !guilds.into_iter().any(may) {
                    let moves = moves.of_user(heard.user);
                    wrong.push(format!("I13 client {client} was told {p}, which it may not see: {text}, {moves:?}"));
                }
            }
            if heard.passes {
                continue;
            }
            let guilds = rows.members_of(heard.user);
            if heard.guilds != guilds {
                wrong.push(format!("client {client} believes to be in {:?}, and is in {guilds:?}", heard.guilds));
            }
            let Some(begin) = heard.ready.first() else {
                wrong.push(format!("client {client} never had a session"));
                continue;
            };
            for (p, event) in
                published.range(begin + 1..).filter(|(p, event)| event.op != "RESYNC" && !heard.events.contains_key(p))
            {
                let must = |topic: &&String| {
                    let Ok(Topic::Guild(guild)) = topic.parse() else { return false };
                    let resynced = |(at, to, resync): &(Instant, u64, Resync)| {
                        let covers = resync.topics.as_ref().is_none_or(|topics| topics.contains(&Topic::Guild(guild)));
                        covers && (*to >= *p || *at >= event.at)
                    };
                    // Who is out when he comes back is not told what he missed.
                    let left = moves.of(heard.user, guild).iter().any(|(at, row)| at > p && !row.joins);
                    // Nor who is out already, which the log does not know yet; rights may be ahead of it.
                    let theirs = |row: &&Move| row.user == heard.user && row.guild == guild && row.at <= event.at;
                    let out = rows.moves.iter().rev().find(theirs).is_some_and(|row| !row.joins);
                    moves.at(heard.user, guild, *p).0 && !left && !out && !heard.resyncs.iter().any(resynced)
                };
                let anew = heard.ready.iter().any(|ready| ready >= p);
                // Those whom it concerns are told by frames of their own, unless they know already.
                let mine = event.topics.contains(&Topic::User(heard.user).to_string());
                if !anew && !mine && event.topics.iter().find(must).is_some() {
                    let moves = moves.of_user(heard.user);
                    wrong.push(format!("I12 client {client} was never told {p}: {}, {moves:?}", event.frame));
                }
            }
        }
        drop((rows, server, record));
        wrong.into_iter().for_each(|wrong| self.record.violated(wrong));
    }
}
