//! Chat operations. Each has an actor, and all rights are decided in one place.
//!
//! ```
//! # use jiscord_api::Chat;
//! # use jiscord_core::{GuildId, backend::Actor, fault::Result};
//! async fn names(chat: &Chat, actor: Actor, guild: GuildId) -> Result<Vec<String>> {
//!     Ok(chat.channels(actor, guild).await?.into_iter().map(|channel| channel.name).collect())
//! }
//! ```
//!
//! Nothing is asked in nobody's name:
//!
//! ```compile_fail,E0061
//! # use jiscord_api::Chat;
//! # use jiscord_core::{GuildId, backend::Actor, fault::Result};
//! async fn names(chat: &Chat, actor: Actor, guild: GuildId) -> Result<Vec<String>> {
//!     Ok(chat.channels(guild).await?.into_iter().map(|channel| channel.name).collect())
//! }
//! ```

use std::{
    collections::{HashMap, HashSet},
    sync::Arc,
    time::Duration,
};

use async_trait::async_trait;
use jiscord_core::{
    ChannelId, Code, Event, EventId, Fault, GuildId, MessageId, ServerFrame, Topic, UserId,
    backend::{Actor, Backend, GuildState, Identity, Login, Membership, Revoked, Sent, TokenVerifier},
    event::Publish,
    fault::Result,
    frame::{GuildCreate, MemberRemove, SendMessage},
    model::{Author, Channel, Guild, Member, Message, User, Visibility},
    text::{Content, Name, Nonce},
};
use jiscord_store::{Account, NewChannel, NewGuild, NewLogin, NewMessage, NewUser, Refreshed, Removed, Store, Tell, Users};
use uuid::Uuid;

use crate::{
    accounts::{Logins, revoked},
    limits::Limits,
};

/// How long a call waits for its events to be published.
const PUBLISH_TIME: Duration = Duration::from_secs(5);

/// Chat operations on a store. What they change is stored with the events it causes, and published. While the bus takes no
/// more events ([`Publish::ready`]), they change nothing.
#[derive(Clone)]
pub struct Chat {
    store: Store,
    names: Names,
    tokens: Arc<dyn TokenVerifier>,
    publish: Arc<dyn Publish>,
    visibility: Visibility,
    limits: Arc<Limits>,
}

/// What somebody wants to do in a guild.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Act {
    /// Read its channels and what is in them.
    Read,
    /// Write in a channel.
    Write,
    /// Become a member.
    Join,
    /// Create channels, remove members.
    Manage,
}

/// Which messages of a channel. An answer has the newest first, whatever was asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Range {
    /// The newest.
    Newest,
    /// Those right before this one, itself left out.
    Before(MessageId),
    /// Those right after this one, itself left out.
    After(MessageId),
    /// This one and about as many on each side.
    Around(MessageId),
}

/// Some messages, newest first.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub struct Page {
    /// The messages, each with its author's name where that is known.
    pub messages: Vec<Message>,
    /// Where to read on in the same direction (back in time for [`Range::Around`]); none at the end.
    pub next: Option<Range>,
}

impl Chat {
    /// On a store, with whatever verifies its users' tokens, and a bus. New guilds are public unless said otherwise.
    pub fn new(store: Store, tokens: Arc<dyn TokenVerifier>, publish: Arc<dyn Publish>) -> Self {
        let names = Names { users: store.users.clone() };
        Self { store, names, tokens, publish, visibility: Visibility::default(), limits: Arc::default() }
    }

    /// Who may join a guild whose creator does not say.
    #[must_use]
    pub fn with_default_visibility(mut self, visibility: Visibility) -> Self {
        self.visibility = visibility;
        self
    }

    /// With other bounds.
    #[must_use]
    pub fn with_limits(mut self, limits: Limits) -> Self {
        self.limits = Arc::new(limits);
        self
    }

    /// The bounds that hold here.
    pub fn limits(&self) -> &Limits {
        &self.limits
    }

    /// Decides who may do what in a guild; everything that touches one asks here. What somebody may not see is answered as
    /// if `what` were not there.
    async fn allow(&self, actor: Actor, act: Act, guild: GuildId, what: &str) -> Result<()> {
        let Actor::User(user) = actor else {
            // The system has no name to write or join under.
            let nameless = actor == Actor::System && matches!(act, Act::Read | Act::Manage);
            return nameless.then_some(()).ok_or_else(nobody_named);
        };
        if self.store.members.get(guild, user).await?.is_none() {
            let open = act == Act::Join && self.guild(guild).await?.visibility == Some(Visibility::Public);
            return open.then_some(()).ok_or_else(|| Fault::not_found(what));
        }
        if act == Act::Manage && self.guild(guild).await?.owner_id != Some(user) {
            return Err(Fault::new(Code::FORBIDDEN, "only the guild's owner may do that"));
        }
        Ok(())
    }

    async fn guild(&self, guild: GuildId) -> Result<Guild> {
        self.store.guilds.get(guild).await?.ok_or_else(|| Fault::not_found("Guild"))
    }

    /// A channel that the actor may do this in.
    async fn channel(&self, actor: Actor, act: Act, channel: ChannelId) -> Result<Channel> {
        let found = self.store.channels.get(channel).await?.ok_or_else(|| Fault::not_found("Channel"))?;
        self.allow(actor, act, found.guild_id, "Channel").await?;
        Ok(found)
    }

    /// Creates a user. Services only.
    pub async fn create_user(&self, actor: Actor, new: NewUser) -> Result<User> {
        services_only(actor)?;
        Ok(self.store.users.create(new).await?.user)
    }

    /// A user. Its address is for itself and services, its password's hash for services.
    pub async fn account(&self, actor: Actor, user: UserId) -> Result<Account> {
        let mut account = self.store.users.get(user).await?.ok_or_else(|| Fault::not_found("User"))?;
        if actor != Actor::System {
            account.password_hash = None;
        }
        if actor != Actor::System && actor != Actor::User(user) {
            account.user.email = None;
        }
        Ok(account)
    }

    /// A user by its address. Services only.
    pub async fn account_by_email(&self, actor: Actor, email: &str) -> Result<Account> {
        services_only(actor)?;
        let found = match jiscord_core::text::Email::new(email) {
            Ok(email) => self.store.users.by_email(&email).await?,
            Err(_) => None,
        };
        found.ok_or_else(|| Fault::not_found("User"))
    }

    /// Public guilds in a fixed order, those behind `after` in it; and where to read on. For everybody with an account.
    pub async fn public_guilds(
        &self,
        _actor: Actor,
        after: Option<GuildId>,
        limit: usize,
    ) -> Result<(Vec<Guild>, Option<GuildId>)> {
        let limit = limit.clamp(1, self.limits.guild_page_max);
        let mut guilds = self.store.guilds.public(after, limit + 1).await?;
        let more = guilds.len() > limit;
        guilds.truncate(limit);
        let next = guilds.last().filter(|_| more).map(|guild| guild.guild_id);
        Ok((guilds, next))
    }

    /// Creates a guild; the actor is its owner and first member.
    pub async fn create_guild(&self, actor: Actor, name: &str, visibility: Option<Visibility>) -> Result<Guild> {
        self.publish.ready()?;
        let Actor::User(owner) = actor else { return Err(nobody_named()) };
        let name = Name::new(name)?;
        self.names.of(owner).await?;
        self.room_for_guild(owner).await?;
        let tell: Tell<Guild> = Arc::new(move |guild: &Guild| {
            let topics = vec![Topic::Guild(guild.guild_id), Topic::User(owner)];
            let frame = ServerFrame::GuildCreate(GuildCreate { guild: guild.clone(), channels: Vec::new() });
            vec![Event::new(EventId::new(guild.guild_id.uuid()), topics, None, frame)]
        });
        let new = NewGuild { name, owner_id: owner, visibility: visibility.unwrap_or(self.visibility) };
        let created = self.store.guilds.create(new, tell).await?;
        self.spread(&created.events).await;
        Ok(created.row)
    }

    /// The actor joins a public guild. Who is in already gets the same answer.
    pub async fn join(&self, actor: Actor, guild: GuildId) -> Result<Member> {
        self.publish.ready()?;
        self.allow(actor, Act::Join, guild, "Guild").await?;
        let Actor::User(user) = actor else { return Err(nobody_named()) };
        let username = self.names.of(user).await?;
        if let Some(member) = self.store.members.get(guild, user).await? {
            return Ok(Member { username: Some(username), ..member });
        }
        self.room_for_guild(user).await?;
        let id = EventId::new(self.store.ids.next());
        let name = username.clone();
        let tell: Tell<Member> = Arc::new(move |member: &Member| {
            let member = Member { username: Some(name.clone()), ..member.clone() };
            vec![Event::new(id, vec![Topic::Guild(guild), Topic::User(user)], None, ServerFrame::MemberAdd(member))]
        });
        let created = self.store.members.add(guild, user, tell).await?;
        self.spread(&created.events).await;
        Ok(Member { username: Some(username), ..created.row })
    }

    /// A member leaves, or the owner removes it. Answers when whoever listens was told: after that the member hears nothing.
    pub async fn remove_member(&self, actor: Actor, guild: GuildId, user: UserId) -> Result<()> {
        self.publish.ready()?;
        let leaves = actor == Actor::User(user);
        self.allow(actor, if leaves { Act::Read } else { Act::Manage }, guild, "Guild").await?;
        if self.guild(guild).await?.owner_id == Some(user) {
            return Err(Fault::new(Code::CONFLICT, "the owner cannot leave its guild"));
        }
        let id = EventId::new(self.store.ids.next());
        let tell: Tell<Removed> = Arc::new(move |removed: &Removed| {
            let frame = ServerFrame::MemberRemove(MemberRemove { guild_id: guild, user_id: user, rev: removed.rev });
            vec![Event::new(id, vec![Topic::Guild(guild), Topic::User(user)], None, frame)]
        });
        let events = self.store.members.remove(guild, user, tell).await?.ok_or_else(|| Fault::not_found("Member"))?;
        self.publish_in_time(&events, true).await.map_err(|fault| {
            let text = "the member is removed, but perhaps not everybody was told yet";
            Fault::new(Code::OUTCOME_UNKNOWN, text).retry_after(Duration::from_secs(1)).because(fault)
        })
    }

    /// A guild's channels.
    pub async fn channels(&self, actor: Actor, guild: GuildId) -> Result<Vec<Channel>> {
        self.allow(actor, Act::Read, guild, "Guild").await?;
        // Members are in guilds that are there; the system may ask for any.
        if actor == Actor::System {
            self.guild(guild).await?;
        }
        Ok(self.store.channels.of_guild(guild).await?)
    }

    /// Creates a channel.
    pub async fn create_channel(&self, actor: Actor, guild: GuildId, name: &str) -> Result<Channel> {
        self.publish.ready()?;
        self.allow(actor, Act::Manage, guild, "Guild").await?;
        let name = Name::new(name)?;
        self.guild(guild).await?;
        let most = self.limits.channels_of_guild;
        if self.store.channels.of_guild(guild).await?.len() >= most {
            return Err(Fault::new(Code::CONFLICT, format!("a guild has at most {most} channels")));
        }
        let tell: Tell<Channel> = Arc::new(move |channel: &Channel| {
            let id = EventId::new(channel.channel_id.uuid());
            let frame = ServerFrame::ChannelCreate(channel.clone());
            vec![Event::new(id, vec![Topic::Guild(guild)], Some(channel.channel_id), frame)]
        });
        let created = self.store.channels.create(NewChannel { guild_id: guild, name }, tell).await?;
        self.spread(&created.events).await;
        Ok(created.row)
    }

    /// Messages of a channel: at most `limit`, and never more than [`Limits::page_max`].
    pub async fn messages(&self, actor: Actor, channel: ChannelId, range: Range, limit: usize) -> Result<Page> {
        self.channel(actor, Act::Read, channel).await?;
        let limit = limit.clamp(1, self.limits.page_max);
        let mut page = match range {
            Range::Newest => self.back(channel, None, limit).await?,
            Range::Before(id) => self.back(channel, Some(id), limit).await?,
            Range::After(id) => self.forth(channel, id, limit).await?,
            Range::Around(id) => {
                let newer = self.forth(channel, id, (limit - 1) / 2).await?.messages;
                let itself = self.store.messages.get(channel, id).await?;
                let rest = limit - newer.len() - usize::from(itself.is_some());
                let older = self.back(channel, Some(id), rest).await?;
                Page { messages: newer.into_iter().chain(itself).chain(older.messages).collect(), next: older.next }
            }
        };
        let authors = self.names.of_many(page.messages.iter().map(|message| message.author_id)).await?;
        for message in &mut page.messages {
            let user_id = message.author_id;
            message.author = authors.get(&user_id).map(|username| Author { user_id, username: username.clone() });
        }
        Ok(page)
    }

    /// One row more is read, so that a page that ends exactly at the end leads nowhere.
    async fn back(&self, channel: ChannelId, before: Option<MessageId>, limit: usize) -> Result<Page> {
        let mut messages = self.store.messages.page_before(channel, before, limit + 1).await?;
        let more = messages.len() > limit;
        messages.truncate(limit);
        let next = messages.last().map(|last| last.message_id).or(before).filter(|_| more).map(Range::Before);
        Ok(Page { messages, next })
    }

    async fn forth(&self, channel: ChannelId, after: MessageId, limit: usize) -> Result<Page> {
        let mut messages = self.store.messages.page_after(channel, after, limit + 1).await?;
        let more = messages.len() > limit;
        messages.truncate(limit);
        messages.reverse();
        let next = messages.first().filter(|_| more).map(|newest| Range::After(newest.message_id));
        Ok(Page { messages, next })
    }

    /// Writes a message and publishes it.
    pub async fn post(&self, actor: Actor, message: SendMessage) -> Result<Sent> {
        self.publish.ready()?;
        let sent = self.send_message(actor, message).await?;
        self.spread(&sent.events).await;
        Ok(sent)
    }

    /// Whether the store answers now, and writes are taken.
    pub async fn ready(&self) -> Result<()> {
        self.store.events.head().await?;
        self.publish.ready()
    }

    async fn room_for_guild(&self, user: UserId) -> Result<()> {
        let most = self.limits.guilds_of_user;
        if self.store.members.of_user(user).await?.len() >= most {
            return Err(Fault::new(Code::CONFLICT, format!("a user is in at most {most} guilds")));
        }
        Ok(())
    }

    /// Publishes what is stored. Where that fails, the events are in the log all the same, and whoever reads it tells them.
    async fn spread(&self, events: &[Event]) {
        if let Err(fault) = self.publish_in_time(events, false).await {
            tracing::warn!(%fault, "stored events were not published at once");
        }
    }

    /// Hands events to the bus, which may queue them; or waits until they are out.
    async fn publish_in_time(&self, events: &[Event], out: bool) -> Result<()> {
        let publish = async {
            self.publish.publish(events).await?;
            if out {
                self.publish.flush().await;
            }
            Ok(())
        };
        let published = tokio::time::timeout(PUBLISH_TIME, publish).await;
        published.unwrap_or_else(|late| Err(Fault::new(Code::UNAVAILABLE, "the bus does not answer").because(late)))
    }
}

#[async_trait]
impl TokenVerifier for Chat {
    /// Asks whether the token's login was revoked, too.
    async fn verify_token(&self, token: &str) -> Result<Identity> {
        let who = self.tokens.verify_token(token).await?;
        match who.login {
            Some(login) if self.is_login_revoked(who.user_id, login).await? => Err(revoked()),
            _ => Ok(who),
        }
    }
}

#[async_trait]
impl Logins for Chat {
    async fn begin_login(&self, new: NewLogin) -> Result<()> {
        Ok(self.store.logins.begin(new).await?)
    }

    async fn refresh_login(&self, login: Uuid, generation: u64) -> Result<Refreshed> {
        Ok(self.store.logins.refresh(login, generation).await?)
    }

    /// Sockets are closed by the event of it, so it answers when that is published.
    async fn revoke_login(&self, user: UserId, what: Revoked) -> Result<()> {
        let id = EventId::new(self.store.ids.next());
        let tell: Tell<Revoked> = Arc::new(move |what: &Revoked| vec![Event::revoked(id, user, *what)]);
        let events = self.store.logins.revoke(user, what, tell).await?;
        self.publish_in_time(&events, true).await.map_err(|fault| {
            let text = "the login has ended, but perhaps its sockets are not closed yet";
            Fault::new(Code::OUTCOME_UNKNOWN, text).retry_after(Duration::from_secs(1)).because(fault)
        })
    }

    async fn is_login_revoked(&self, user: UserId, login: Login) -> Result<bool> {
        Ok(self.store.logins.is_revoked(user, login).await?)
    }
}

#[async_trait]
impl Backend for Chat {
    async fn user(&self, actor: Actor, user: UserId) -> Result<User> {
        Ok(self.account(actor, user).await?.user)
    }

    async fn memberships(&self, actor: Actor, user: UserId) -> Result<Vec<Membership>> {
        if actor != Actor::System && actor != Actor::User(user) {
            return Err(Fault::new(Code::FORBIDDEN, "only a user itself may list its guilds"));
        }
        Ok(self.store.members.of_user(user).await?)
    }

    async fn load_guild(&self, actor: Actor, guild: GuildId) -> Result<Option<GuildState>> {
        services_only(actor)?;
        let Some(found) = self.store.guilds.get(guild).await? else { return Ok(None) };
        Ok(Some(GuildState::new(found, self.store.channels.of_guild(guild).await?)))
    }

    async fn send_message(&self, actor: Actor, message: SendMessage) -> Result<Sent> {
        self.write(actor, message, None).await
    }
}

impl Chat {
    /// Writes a message, once for each nonce. Where it has none, `key` is taken for one, and told to nobody.
    pub(crate) async fn write(&self, actor: Actor, message: SendMessage, key: Option<&str>) -> Result<Sent> {
        let Actor::User(author_id) = actor else { return Err(nobody_named()) };
        let content = Content::new(&message.content)?;
        let nonce = message.nonce.as_deref().or(key).map(Nonce::new).transpose()?;
        let channel = self.channel(actor, Act::Write, message.channel_id).await?;
        if let Some(answered) = message.reply_to
            && self.store.messages.get(message.channel_id, answered).await?.is_none()
        {
            return Err(Fault::not_found("Message to reply to"));
        }
        let author = Author { user_id: author_id, username: self.names.of(author_id).await? };
        let said = (author.clone(), message.nonce);
        let tell: Tell<Message> = Arc::new(move |message: &Message| {
            let (author, nonce) = said.clone();
            let id = EventId::new(message.message_id.uuid());
            let frame = ServerFrame::MessageCreate(Message { author: Some(author), nonce, ..message.clone() });
            vec![Event::new(id, vec![Topic::Guild(channel.guild_id)], Some(message.channel_id), frame)]
        });
        let new = NewMessage { channel_id: message.channel_id, author_id, content, reply_to: message.reply_to, nonce };
        let created = self.store.messages.create(new, tell).await?;
        let message = Message { author: Some(author), ..created.row };
        Ok(Sent::new(message, created.events, created.repeated))
    }
}

/// Looks up what users are called. All such look-ups go through here.
#[derive(Clone)]
struct Names {
    users: Arc<dyn Users>,
}

impl Names {
    async fn of(&self, user: UserId) -> Result<String> {
        let found = self.of_many([user]).await?.remove(&user);
        found.ok_or_else(|| Fault::not_found("User"))
    }

    async fn of_many(&self, users: impl IntoIterator<Item = UserId>) -> Result<HashMap<UserId, String>> {
        let ids: Vec<_> = users.into_iter().collect::<HashSet<_>>().into_iter().collect();
        if ids.is_empty() {
            return Ok(HashMap::new());
        }
        let accounts = self.users.get_many(&ids).await?;
        Ok(accounts.into_iter().map(|account| (account.user.user_id, account.user.username)).collect())
    }
}

fn services_only(actor: Actor) -> Result<()> {
    let service = actor == Actor::System;
    service.then_some(()).ok_or_else(|| Fault::new(Code::FORBIDDEN, "only services may do that"))
}

fn nobody_named() -> Fault {
    Fault::new(Code::MALFORMED, "a service must say which user it acts for: X-User-ID is missing")
}
