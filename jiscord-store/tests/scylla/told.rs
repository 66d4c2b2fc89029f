//! A store whose writes are told to a log by the caller, as chat operations do it with a bus.

use std::sync::Arc;

use async_trait::async_trait;
use jiscord_core::{
    ChannelId, Event, GuildId, MessageId, UserId,
    backend::{Login, Membership, Revoked},
    event::EventLog,
    model::{Channel, Guild, Member, Message},
};
use jiscord_store::{
    Channels, Created, Guilds, Logins, Members, Messages, NewChannel, NewGuild, NewLogin, NewMessage, Refreshed, Removed, Result,
    Store, Tell, scylla::ScyllaStore,
};
use uuid::Uuid;

struct Told {
    store: Arc<ScyllaStore>,
    log: Arc<dyn EventLog>,
}

/// The store, beside a log in which is what a caller publishes after each write.
pub(crate) fn told(store: &Arc<ScyllaStore>, log: Arc<dyn EventLog>) -> Store {
    let told = Arc::new(Told { store: store.clone(), log: log.clone() });
    Store {
        messages: told.clone(),
        guilds: told.clone(),
        members: told.clone(),
        channels: told.clone(),
        logins: told,
        ..store.store(log)
    }
}

impl Told {
    /// A repeat is published too, but a log knows an event's id. This one does not.
    async fn tell<T>(&self, created: Created<T>) -> Result<Created<T>> {
        if !created.repeated {
            self.log.append(created.events.clone()).await.unwrap();
        }
        Ok(created)
    }
}

#[async_trait]
impl Messages for Told {
    async fn create(&self, new: NewMessage, tell: Tell<Message>) -> Result<Created<Message>> {
        self.tell(Messages::create(&*self.store, new, tell).await?).await
    }

    async fn page_before(&self, channel: ChannelId, before: Option<MessageId>, limit: usize) -> Result<Vec<Message>> {
        self.store.page_before(channel, before, limit).await
    }

    async fn page_after(&self, channel: ChannelId, after: MessageId, limit: usize) -> Result<Vec<Message>> {
        self.store.page_after(channel, after, limit).await
    }

    async fn get(&self, channel: ChannelId, id: MessageId) -> Result<Option<Message>> {
        Messages::get(&*self.store, channel, id).await
    }
}

#[async_trait]
impl Guilds for Told {
    async fn create(&self, new: NewGuild, tell: Tell<Guild>) -> Result<Created<Guild>> {
        self.tell(Guilds::create(&*self.store, new, tell).await?).await
    }

    async fn get(&self, id: GuildId) -> Result<Option<Guild>> {
        Guilds::get(&*self.store, id).await
    }

    async fn public(&self, after: Option<GuildId>, limit: usize) -> Result<Vec<Guild>> {
        self.store.public(after, limit).await
    }
}

#[async_trait]
impl Members for Told {
    async fn add(&self, guild: GuildId, user: UserId, tell: Tell<Member>) -> Result<Created<Member>> {
        self.tell(self.store.add(guild, user, tell).await?).await
    }

    async fn remove(&self, guild: GuildId, user: UserId, tell: Tell<Removed>) -> Result<Option<Vec<Event>>> {
        let events = self.store.remove(guild, user, tell).await?;
        self.log.append(events.clone().unwrap_or_default()).await.unwrap();
        Ok(events)
    }

    async fn get(&self, guild: GuildId, user: UserId) -> Result<Option<Member>> {
        Members::get(&*self.store, guild, user).await
    }

    async fn of_user(&self, user: UserId) -> Result<Vec<Membership>> {
        self.store.of_user(user).await
    }
}

#[async_trait]
impl Channels for Told {
    async fn create(&self, new: NewChannel, tell: Tell<Channel>) -> Result<Created<Channel>> {
        self.tell(Channels::create(&*self.store, new, tell).await?).await
    }

    async fn get(&self, id: ChannelId) -> Result<Option<Channel>> {
        Channels::get(&*self.store, id).await
    }

    async fn of_guild(&self, guild: GuildId) -> Result<Vec<Channel>> {
        self.store.of_guild(guild).await
    }
}

#[async_trait]
impl Logins for Told {
    async fn begin(&self, new: NewLogin) -> Result<()> {
        self.store.begin(new).await
    }

    async fn refresh(&self, login: Uuid, generation: u64) -> Result<Refreshed> {
        self.store.refresh(login, generation).await
    }

    async fn revoke(&self, user: UserId, what: Revoked, tell: Tell<Revoked>) -> Result<Vec<Event>> {
        let events = self.store.revoke(user, what, tell).await?;
        self.log.append(events.clone()).await.unwrap();
        Ok(events)
    }

    async fn is_revoked(&self, user: UserId, login: Login) -> Result<bool> {
        self.store.is_revoked(user, login).await
    }
}
