//! A store in memory, for tests and for trying things out: what it holds is gone when it is dropped.
//!
//! Its log has room for the newest [`EVENTS_KEPT`] events and a new epoch each time. An embedder whose rows are kept
//! elsewhere can use it as the log alone: [`EventLog::append`] after its own commit.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap, HashSet, VecDeque},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use async_trait::async_trait;
use jiscord_core::{
    ChannelId, Event, GuildId, MessageId, Position, UserId,
    backend::{Login, Membership, Revoked},
    event::{EventLog, Logged},
    fault,
    id::Worker,
    mint::{IdSource, Minter},
    model::{Channel, Guild, Member, Message, Visibility},
    text::{Email, Nonce},
    time::Clock,
};
use tokio::sync::watch;
use uuid::Uuid;

use crate::{
    draft::{self, NONCE_KEPT_MICROS, guarded},
    error::{Error, Result},
    repository::{
        Account, Channels, Created, Guilds, LOGIN_KEPT, Logins, Members, Messages, NewChannel, NewGuild, NewLogin, NewMessage,
        NewUser, REVOCATION_KEPT, Refreshed, Removed, Tell, Users,
    },
    ticks::Ticks,
};

/// How many events the log remembers.
pub const EVENTS_KEPT: usize = 10_000;

/// Everything in memory behind one lock, which is never held over an await.
pub struct MemoryStore {
    clock: Arc<dyn Clock>,
    minter: Minter,
    epoch: String,
    head: watch::Sender<Position>,
    kept: Mutex<Kept>,
}

type NonceKey = (UserId, ChannelId, Nonce);

#[derive(Default)]
struct Kept {
    users: HashMap<UserId, Account>,
    users_by_email: HashMap<String, UserId>,
    messages: HashMap<ChannelId, BTreeMap<[u8; 16], Message>>,
    nonces: HashMap<NonceKey, Claim>,
    nonces_by_age: VecDeque<(u64, NonceKey)>,
    guilds: BTreeMap<GuildId, Guild>,
    members: HashMap<(GuildId, UserId), Member>,
    guilds_by_user: HashMap<UserId, BTreeSet<GuildId>>,
    channels: HashMap<ChannelId, Channel>,
    channels_by_guild: HashMap<GuildId, Vec<ChannelId>>,
    logins: HashMap<Uuid, KeptLogin>,
    /// With the microsecond from which each is forgotten.
    revoked: HashMap<UserId, Vec<(Revoked, u64)>>,
    events: VecDeque<Logged>,
    floor: Position,
    ticks: Ticks,
}

#[derive(Clone)]
struct KeptLogin {
    user_id: UserId,
    begun: u64,
    generation: u64,
    /// Microseconds, as all times of a store.
    rotated: u64,
    expires: u64,
}

struct Claim {
    body_hash: [u8; 32],
    message: MessageId,
    expires: u64,
}

impl MemoryStore {
    /// An empty store.
    pub fn new(clock: Arc<dyn Clock>) -> Arc<Self> {
        Arc::new(Self {
            minter: Minter::new(clock.clone(), Worker::default(), 0),
            clock,
            epoch: Uuid::new_v4().to_string(),
            head: watch::Sender::new(Position::default()),
            kept: Mutex::default(),
        })
    }

    fn kept(&self) -> MutexGuard<'_, Kept> {
        // Foreign code runs guarded and before any change, so a poisoned lock hides nothing half done.
        self.kept.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Puts events into the log. The lock is held, so positions are seen in their order.
    fn log(&self, kept: &mut Kept, events: &[Event]) {
        let now = self.clock.now_micros();
        for event in events {
            let p = Position(kept.ticks.next(now));
            kept.events.push_back(Logged { p, event: event.clone() });
            if kept.events.len() > EVENTS_KEPT
                && let Some(oldest) = kept.events.pop_front()
            {
                kept.floor = oldest.p;
            }
        }
        if let Some(newest) = kept.events.back() {
            self.head.send_replace(newest.p);
        }
    }
}

/// Asks what to tell about a row, before the row is kept.
fn told<T>(tell: &Tell<T>, row: &T) -> Result<Vec<Event>> {
    guarded(|| Ok(tell(row)))
}

#[async_trait]
impl Users for MemoryStore {
    async fn create(&self, new: NewUser) -> Result<Account> {
        let mut kept = self.kept();
        if kept.users_by_email.contains_key(new.email.as_str()) {
            return Err(Error::Taken("email"));
        }
        let email = new.email.as_str().to_owned();
        let account = new.row(self.minter.next());
        kept.users_by_email.insert(email, account.user.user_id);
        kept.users.insert(account.user.user_id, account.clone());
        Ok(account)
    }

    async fn get_many(&self, ids: &[UserId]) -> Result<Vec<Account>> {
        let kept = self.kept();
        let distinct: HashSet<_> = ids.iter().collect();
        Ok(distinct.into_iter().filter_map(|id| kept.users.get(id).cloned()).collect())
    }

    async fn by_email(&self, email: &Email) -> Result<Option<Account>> {
        let kept = self.kept();
        Ok(kept.users_by_email.get(email.as_str()).and_then(|id| kept.users.get(id)).cloned())
    }
}

impl Kept {
    fn forget_nonces(&mut self, now: u64) {
        while self.nonces_by_age.front().is_some_and(|(expires, _)| *expires <= now) {
            if let Some((expires, key)) = self.nonces_by_age.pop_front()
                && self.nonces.get(&key).is_some_and(|claim| claim.expires == expires)
            {
                self.nonces.remove(&key);
            }
        }
    }

    fn last_message(&self, channel: ChannelId) -> Option<MessageId> {
        self.messages.get(&channel)?.last_key_value().map(|(_, message)| message.message_id)
    }
}

#[async_trait]
impl Messages for MemoryStore {
    async fn create(&self, new: NewMessage, tell: Tell<Message>) -> Result<Created<Message>> {
        let mut kept = self.kept();
        let now = self.clock.now_micros();
        kept.forget_nonces(now);
        let key = new.nonce.clone().map(|nonce| (new.author_id, new.channel_id, nonce));
        if let Some(claim) = key.as_ref().and_then(|key| kept.nonces.get(key)) {
            if claim.body_hash != new.body_hash() {
                return Err(Error::NonceReused);
            }
            let row = kept.messages.get(&new.channel_id).and_then(|rows| rows.get(&claim.message.sort_key()));
            return Ok(match row {
                Some(row) => Created::new(row.clone(), told(&tell, row)?, true),
                None => Created::new(new.row(claim.message), Vec::new(), true),
            });
        }
        let row = new.row(MessageId::new(self.minter.next()));
        let events = told(&tell, &row)?;
        if let Some(key) = key {
            let expires = now.saturating_add(NONCE_KEPT_MICROS);
            let claim = Claim { body_hash: new.body_hash(), message: row.message_id, expires };
            kept.nonces_by_age.push_back((expires, key.clone()));
            kept.nonces.insert(key, claim);
        }
        kept.messages.entry(row.channel_id).or_default().insert(row.message_id.sort_key(), row.clone());
        self.log(&mut kept, &events);
        Ok(Created::new(row, events, false))
    }

    async fn page_before(&self, channel: ChannelId, before: Option<MessageId>, limit: usize) -> Result<Vec<Message>> {
        let kept = self.kept();
        let Some(rows) = kept.messages.get(&channel) else { return Ok(Vec::new()) };
        Ok(match before {
            Some(before) => rows.range(..before.sort_key()).rev().take(limit).map(|(_, row)| row.clone()).collect(),
            None => rows.values().rev().take(limit).cloned().collect(),
        })
    }

    async fn page_after(&self, channel: ChannelId, after: MessageId, limit: usize) -> Result<Vec<Message>> {
        let kept = self.kept();
        let Some(rows) = kept.messages.get(&channel) else { return Ok(Vec::new()) };
        let behind = (std::ops::Bound::Excluded(after.sort_key()), std::ops::Bound::Unbounded);
        Ok(rows.range(behind).take(limit).map(|(_, row)| row.clone()).collect())
    }

    async fn get(&self, channel: ChannelId, id: MessageId) -> Result<Option<Message>> {
        let kept = self.kept();
        Ok(kept.messages.get(&channel).and_then(|rows| rows.get(&id.sort_key())).filter(|row| row.message_id == id).cloned())
    }
}

#[async_trait]
impl Guilds for MemoryStore {
    async fn create(&self, new: NewGuild, tell: Tell<Guild>) -> Result<Created<Guild>> {
        let mut kept = self.kept();
        let owner = new.owner_id;
        let row = new.row(self.minter.next());
        let events = told(&tell, &row)?;
        let id = row.guild_id;
        kept.guilds.insert(id, row.clone());
        kept.members.insert((id, owner), draft::member(id, owner, row.created_at, row.rev));
        kept.guilds_by_user.entry(owner).or_default().insert(id);
        self.log(&mut kept, &events);
        Ok(Created::new(row, events, false))
    }

    async fn get(&self, id: GuildId) -> Result<Option<Guild>> {
        Ok(self.kept().guilds.get(&id).cloned())
    }

    async fn public(&self, after: Option<GuildId>, limit: usize) -> Result<Vec<Guild>> {
        let kept = self.kept();
        let behind = (after.map_or(std::ops::Bound::Unbounded, std::ops::Bound::Excluded), std::ops::Bound::Unbounded);
        let public = kept.guilds.range(behind).map(|(_, row)| row).filter(|row| row.visibility == Some(Visibility::Public));
        Ok(public.take(limit).cloned().collect())
    }
}

#[async_trait]
impl Members for MemoryStore {
    async fn add(&self, guild: GuildId, user: UserId, tell: Tell<Member>) -> Result<Created<Member>> {
        let mut kept = self.kept();
        if let Some(row) = kept.members.get(&(guild, user)) {
            return Ok(Created::new(row.clone(), Vec::new(), true));
        }
        let rev = kept.ticks.next(self.clock.now_micros());
        let row = draft::member(guild, user, self.clock.now(), rev);
        let events = told(&tell, &row)?;
        kept.members.insert((guild, user), row.clone());
        kept.guilds_by_user.entry(user).or_default().insert(guild);
        self.log(&mut kept, &events);
        Ok(Created::new(row, events, false))
    }

    async fn remove(&self, guild: GuildId, user: UserId, tell: Tell<Removed>) -> Result<Option<Vec<Event>>> {
        let mut kept = self.kept();
        let Some(rev) = kept.members.get(&(guild, user)).map(|row| row.rev) else { return Ok(None) };
        let rev = kept.ticks.above(rev, self.clock.now_micros());
        let events = told(&tell, &Removed::new(guild, user, rev))?;
        kept.members.remove(&(guild, user));
        if let Some(guilds) = kept.guilds_by_user.get_mut(&user) {
            guilds.remove(&guild);
        }
        self.log(&mut kept, &events);
        Ok(Some(events))
    }

    async fn get(&self, guild: GuildId, user: UserId) -> Result<Option<Member>> {
        Ok(self.kept().members.get(&(guild, user)).cloned())
    }

    async fn of_user(&self, user: UserId) -> Result<Vec<Membership>> {
        let kept = self.kept();
        let guilds = kept.guilds_by_user.get(&user).into_iter().flatten();
        Ok(guilds
            .filter_map(|id| Some(Membership::new(kept.guilds.get(id)?.clone(), kept.members.get(&(*id, user))?.rev)))
            .collect())
    }
}

#[async_trait]
impl Channels for MemoryStore {
    async fn create(&self, new: NewChannel, tell: Tell<Channel>) -> Result<Created<Channel>> {
        let mut kept = self.kept();
        let row = new.row(self.minter.next());
        let events = told(&tell, &row)?;
        kept.channels.insert(row.channel_id, row.clone());
        kept.channels_by_guild.entry(row.guild_id).or_default().push(row.channel_id);
        self.log(&mut kept, &events);
        Ok(Created::new(row, events, false))
    }

    async fn get(&self, id: ChannelId) -> Result<Option<Channel>> {
        Ok(self.kept().channels.get(&id).cloned())
    }

    async fn of_guild(&self, guild: GuildId) -> Result<Vec<Channel>> {
        let kept = self.kept();
        let ids = kept.channels_by_guild.get(&guild).into_iter().flatten();
        let mut channels: Vec<_> = ids
            .filter_map(|id| kept.channels.get(id).cloned())
            .map(|channel| Channel { last_message_id: kept.last_message(channel.channel_id), ..channel })
            .collect();
        draft::sort_by_creation(&mut channels);
        Ok(channels)
    }
}

#[async_trait]
impl Logins for MemoryStore {
    async fn begin(&self, new: NewLogin) -> Result<()> {
        let now = self.clock.now_micros();
        let mut kept = self.kept();
        kept.logins.retain(|_, login| login.expires > now);
        kept.logins.entry(new.login_id).or_insert(KeptLogin {
            user_id: new.user_id,
            begun: new.begun,
            generation: 0,
            rotated: now,
            expires: now.saturating_add(micros(LOGIN_KEPT)),
        });
        Ok(())
    }

    async fn refresh(&self, id: Uuid, generation: u64) -> Result<Refreshed> {
        let now = self.clock.now_micros();
        let mut kept = self.kept();
        let Some(login) = kept.logins.get(&id).filter(|login| login.expires > now).cloned() else { return Ok(Refreshed::Gone) };
        if kept.is_revoked(login.user_id, Login::new(id, login.begun), now) {
            return Ok(Refreshed::Gone);
        }
        let rotated = Duration::from_micros(now.saturating_sub(login.rotated));
        let refreshed = Refreshed::of(login.user_id, login.begun, login.generation, rotated, generation);
        if let Refreshed::Current { generation, .. } = refreshed
            && generation > login.generation
        {
            let expires = now.saturating_add(micros(LOGIN_KEPT));
            kept.logins.insert(id, KeptLogin { generation, rotated: now, expires, ..login });
        }
        Ok(refreshed)
    }

    async fn revoke(&self, user: UserId, what: Revoked, tell: Tell<Revoked>) -> Result<Vec<Event>> {
        let now = self.clock.now_micros();
        let mut kept = self.kept();
        let events = told(&tell, &what)?;
        let revoked = kept.revoked.entry(user).or_default();
        revoked.retain(|(_, expires)| *expires > now);
        revoked.push((what, now.saturating_add(micros(REVOCATION_KEPT))));
        if let Revoked::Login(id) = what
            && kept.logins.get(&id).is_some_and(|login| login.user_id == user)
        {
            kept.logins.remove(&id);
        }
        self.log(&mut kept, &events);
        Ok(events)
    }

    async fn is_revoked(&self, user: UserId, login: Login) -> Result<bool> {
        Ok(self.kept().is_revoked(user, login, self.clock.now_micros()))
    }
}

impl Kept {
    fn is_revoked(&self, user: UserId, login: Login, now: u64) -> bool {
        let revoked = self.revoked.get(&user);
        revoked.is_some_and(|revoked| revoked.iter().any(|(what, expires)| *expires > now && what.covers(&login)))
    }
}

fn micros(time: Duration) -> u64 {
    u64::try_from(time.as_micros()).unwrap_or(u64::MAX)
}

#[async_trait]
impl EventLog for MemoryStore {
    fn epoch(&self) -> &str {
        &self.epoch
    }

    async fn head(&self) -> fault::Result<Position> {
        Ok(*self.head.borrow())
    }

    async fn floor(&self) -> fault::Result<Position> {
        Ok(self.kept().floor)
    }

    async fn append(&self, events: Vec<Event>) -> fault::Result<()> {
        self.log(&mut self.kept(), &events);
        Ok(())
    }

    async fn read_after(&self, after: Position, limit: usize) -> fault::Result<Vec<Logged>> {
        let kept = self.kept();
        let from = kept.events.partition_point(|logged| logged.p <= after);
        Ok(kept.events.range(from..).take(limit).cloned().collect())
    }

    async fn wait_past(&self, after: Position) {
        // It cannot fail: the sender lives as long as the store.
        let _ = self.head.subscribe().wait_for(|head| *head > after).await;
    }
}

impl IdSource for MemoryStore {
    fn next(&self) -> Uuid {
        self.minter.next()
    }
}
