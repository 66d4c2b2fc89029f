//! The rows, the journal that is written with them, and a backend that answers late, wrongly late, or not at all.

use std::{
    collections::{BTreeMap, BTreeSet},
    ops::Range,
    sync::{
        Arc, Mutex, MutexGuard,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use async_trait::async_trait;
use jiscord_core::{
    ChannelId, Code, Event, EventId, Fault, GuildId, MessageId, ServerFrame, Topic, UserId,
    backend::{Actor, Backend, GuildState, Identity, Membership, Sent, TokenVerifier},
    fault::Result,
    frame::{MemberRemove, SendMessage},
    id::Worker,
    journal::Journal,
    mint::{IdSource, Minter},
    model::{Channel, Guild, Member, Message, Rev, User},
    time::Clock,
};
use tokio::time::{Instant, sleep};
use uuid::Uuid;

use super::world::{SimClock, chance, upto};

pub(super) struct Store {
    clock: SimClock,
    minter: Minter,
    pub(super) calm: AtomicBool,
    rows: Mutex<Rows>,
}

#[derive(Default)]
pub(super) struct Rows {
    users: BTreeMap<String, UserId>,
    guilds: BTreeMap<GuildId, GuildState>,
    members: BTreeMap<UserId, BTreeMap<GuildId, Rev>>,
    rev: Rev,
    /// By author and nonce.
    pub(super) messages: BTreeMap<(UserId, String), Message>,
    pub(super) journal: Vec<Event>,
    /// Who came into a guild or went, in the order in which it was stored.
    pub(super) moves: Vec<Move>,
}

pub(super) struct Move {
    pub(super) at: Instant,
    pub(super) guild: GuildId,
    pub(super) user: UserId,
    pub(super) joins: bool,
    pub(super) rev: Rev,
    /// `None` for those who were there from the beginning.
    pub(super) event: Option<EventId>,
}

impl Rows {
    pub(super) fn members_of(&self, user: UserId) -> BTreeSet<GuildId> {
        self.members.get(&user).into_iter().flat_map(|guilds| guilds.keys().copied()).collect()
    }
}

impl Store {
    pub(super) fn new(clock: SimClock) -> Self {
        let minter = Minter::new(Arc::new(clock), Worker::default(), 0);
        Self { clock, minter, calm: AtomicBool::new(false), rows: Mutex::default() }
    }

    pub(super) fn rows(&self) -> MutexGuard<'_, Rows> {
        self.rows.lock().unwrap()
    }

    fn mint(&self) -> Uuid {
        self.minter.next()
    }

    pub(super) fn user(&self, name: &str) -> UserId {
        let id = self.mint();
        *self.rows().users.entry(name.into()).or_insert_with(|| UserId::new(id))
    }

    pub(super) fn guild(&self, members: &[&str]) -> GuildId {
        let (guild_id, created_at) = (GuildId::new(self.mint()), self.clock.now());
        let rev = guild_id.micros().unwrap();
        let guild = Guild { guild_id, name: "guild".into(), created_at, rev, owner_id: None, visibility: None };
        self.rows().guilds.insert(guild_id, GuildState::new(guild, Vec::new()));
        self.channel(guild_id);
        for name in members {
            self.put(guild_id, self.user(name), true, None);
        }
        guild_id
    }

    fn put(&self, guild: GuildId, user: UserId, joins: bool, event: Option<EventId>) -> Rev {
        let mut rows = self.rows();
        rows.rev = self.clock.now_micros().max(rows.rev + 1);
        let rev = rows.rev;
        let of = rows.members.entry(user).or_default();
        if joins {
            of.insert(guild, rev);
        } else {
            of.remove(&guild);
        }
        rows.moves.push(Move { at: Instant::now(), guild, user, joins, rev, event });
        rev
    }

    /// A new channel, and what tells of it.
    pub(super) fn channel(&self, guild_id: GuildId) -> Event {
        let (channel_id, created_at) = (ChannelId::new(self.mint()), self.clock.now());
        let rev = channel_id.micros().unwrap();
        let channel = Channel { channel_id, guild_id, name: "channel".into(), created_at, rev, last_message_id: None };
        let frame = ServerFrame::ChannelCreate(channel.clone());
        let event = Event::new(EventId::new(self.mint()), vec![Topic::Guild(guild_id)], Some(channel_id), frame);
        let mut rows = self.rows();
        rows.guilds.get_mut(&guild_id).unwrap().channels.push(channel);
        rows.journal.push(event.clone());
        event
    }

    /// A user comes into a guild or goes, whichever is possible, and what tells of it.
    pub(super) fn toggle(&self, guild_id: GuildId, name: &str) -> Event {
        let (user_id, id) = (self.user(name), EventId::new(self.mint()));
        let joins = !self.guilds_of(user_id).contains(&guild_id);
        let rev = self.put(guild_id, user_id, joins, Some(id));
        let frame = if joins {
            let username = Some(name.to_owned());
            ServerFrame::MemberAdd(Member { guild_id, user_id, username, joined_at: self.clock.now(), rev })
        } else {
            ServerFrame::MemberRemove(MemberRemove { guild_id, user_id, rev })
        };
        let event = Event::new(id, vec![Topic::Guild(guild_id), Topic::User(user_id)], None, frame);
        self.rows().journal.push(event.clone());
        event
    }

    pub(super) fn guilds_of(&self, user: UserId) -> BTreeSet<GuildId> {
        self.rows().members_of(user)
    }

    pub(super) fn channels_of(&self, guild: GuildId) -> Vec<ChannelId> {
        self.rows().guilds[&guild].channels.iter().map(|channel| channel.channel_id).collect()
    }

    fn trouble(&self, of: f64) -> bool {
        !self.calm.load(Ordering::Relaxed) && chance(of)
    }

    /// The way there. It may be that nothing gets through.
    async fn way(&self) -> Result<()> {
        sleep(upto(4)).await;
        if self.trouble(0.02) {
            return Err(Fault::new(Code::UNAVAILABLE, "the store is away"));
        }
        Ok(())
    }

    /// The way back, on which an answer may be late.
    async fn back(&self) {
        sleep(if self.trouble(0.03) { Duration::from_millis(500) + upto(6_000) } else { upto(4) }).await;
    }
}

#[async_trait]
impl TokenVerifier for Store {
    async fn verify_token(&self, token: &str) -> Result<Identity> {
        self.way().await?;
        Ok(Identity::new(self.user(token), token))
    }
}

#[async_trait]
impl Backend for Store {
    async fn user(&self, _: Actor, user_id: UserId) -> Result<User> {
        self.way().await?;
        Ok(User { user_id, username: "somebody".into(), email: None, created_at: None })
    }

    async fn memberships(&self, _: Actor, user: UserId) -> Result<Vec<Membership>> {
        self.way().await?;
        let memberships = {
            let rows = self.rows();
            let of = rows.members.get(&user).into_iter().flatten();
            of.map(|(guild, rev)| Membership::new(rows.guilds[guild].guild.clone(), *rev)).collect()
        };
        // Read first, answered later: what happens meanwhile is not in it.
        self.back().await;
        Ok(memberships)
    }

    async fn load_guild(&self, _: Actor, guild: GuildId) -> Result<Option<GuildState>> {
        self.way().await?;
        let state = self.rows().guilds.get(&guild).cloned();
        self.back().await;
        Ok(state)
    }

    async fn send_message(&self, actor: Actor, SendMessage { channel_id, content, nonce, .. }: SendMessage) -> Result<Sent> {
        self.way().await?;
        let Actor::User(author_id) = actor else { panic!("a user sends") };
        let sent = {
            let (id, created_at) = (self.mint(), self.clock.now());
            let mut rows = self.rows();
            let key = (author_id, nonce.clone().unwrap());
            let repeated = rows.messages.get(&key).cloned();
            let is_repeated = repeated.is_some();
            let here = |(_, state): &(&GuildId, &GuildState)| state.channels.iter().any(|row| row.channel_id == channel_id);
            let guild = *rows.guilds.iter().find(here).unwrap().0;
            let may = rows.members.get(&author_id).is_some_and(|of| of.contains_key(&guild));
            if !may && !is_repeated {
                return Err(Fault::not_found("channel"));
            }
            let message = repeated.unwrap_or_else(|| Message {
                message_id: MessageId::new(id),
                channel_id,
                author_id,
                content,
                created_at,
                author: None,
                rev: MessageId::new(id).micros().unwrap(),
                nonce,
                reply_to: None,
            });
            let (id, frame) = (EventId::new(message.message_id.uuid()), ServerFrame::MessageCreate(message.clone()));
            let event = Event::new(id, vec![Topic::Guild(guild)], Some(channel_id), frame);
            if !is_repeated {
                rows.messages.insert(key, message.clone());
                rows.journal.push(event.clone());
            }
            Sent::new(message, vec![event], is_repeated)
        };
        self.back().await;
        Ok(sent)
    }
}

#[async_trait]
impl Journal for Store {
    fn shards(&self) -> u16 {
        2
    }

    async fn read(&self, shard: u16, ms: Range<u64>) -> Result<Vec<Event>> {
        self.way().await?;
        let events = self.rows().journal.clone();
        let of = |event: &Event| event.frame.len() % 2 == usize::from(shard);
        let within = |event: &Event| ms.contains(&(event.id.micros().unwrap() / 1_000));
        Ok(events.into_iter().filter(|event| of(event) && within(event)).collect())
    }
}
