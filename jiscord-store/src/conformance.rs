//! What every store must do, as a suite that a store of your own can run.
//!
//! ```
//! # use std::sync::Arc;
//! # use jiscord_core::time::SystemClock;
//! use jiscord_store::{Store, conformance, memory::MemoryStore};
//!
//! # #[tokio::main(flavor = "current_thread")] async fn main() {
//! conformance::all(&Store::of(MemoryStore::new(Arc::new(SystemClock)))).await;
//! # }
//! ```
//!
//! A case panics where the store differs. The store may hold other rows, but nobody else may write to it meanwhile; it must
//! have room in its log for a thousand events. A store that lacks a part, such as one with users of your own, runs the cases
//! of the others one by one. Cases need a tokio runtime with time.

#![expect(clippy::unwrap_used, reason = "a case fails by panicking")]

use std::{
    collections::{BTreeSet, HashSet},
    sync::Arc,
    time::Duration,
};

use jiscord_core::{
    ChannelId, Event, EventId, GuildId, MessageId, Position, ServerFrame, Topic, UserId,
    backend::{Login, Revoked},
    event::Logged,
    frame::MemberRemove,
    model::{Channel, Guild, Member, Message, Visibility},
    text::{Content, Email, Name, Nonce, Username},
};
use tokio::{task::JoinSet, time::timeout};
use uuid::Uuid;

use crate::{
    error::Error,
    repository::{Created, NewChannel, NewGuild, NewLogin, NewMessage, NewUser, Refreshed, Removed, Store, Tell},
};

macro_rules! cases {
    ($($case:ident),+ $(,)?) => {
        /// Runs all cases, one after the other, and prints the name of each before it starts.
        pub async fn all(store: &Store) {
            $(
                println!("conformance: {}", stringify!($case));
                $case(store).await;
            )+
        }
    };
}

cases! {
    ids_grow,
    users_are_found_by_id_and_address,
    many_users_are_found_at_once,
    an_address_is_taken_once,
    a_message_is_kept_as_it_was_written,
    a_message_is_found_in_its_channel_only,
    messages_page_backwards,
    messages_page_forwards,
    messages_are_ordered_as_their_ids,
    a_nonce_stores_once,
    a_nonce_stores_once_for_twenty_at_once,
    a_nonce_stands_for_one_body,
    a_nonce_belongs_to_author_and_channel,
    without_a_nonce_every_try_is_a_message,
    a_guild_begins_with_its_owner,
    public_guilds_are_listed_in_pages,
    joining_twice_is_joining_once,
    joining_at_once_is_joining_once,
    leaving_twice_is_leaving_once,
    a_later_membership_has_a_higher_rev,
    a_users_guilds_are_listed,
    channels_are_listed_in_the_order_of_their_creation,
    unknown_rows_are_none,
    a_login_goes_on_step_by_step,
    refreshing_at_once_is_one_step,
    what_is_revoked_has_ended,
    what_has_ended_is_not_brought_back,
    events_are_written_with_their_rows,
    a_repeat_tells_again_and_logs_nothing,
    several_events_of_a_write_stay_together,
    an_event_comes_back_as_it_was,
    the_log_is_read_in_pages,
    waiting_ends_with_the_next_event,
    a_tail_misses_nothing,
    a_panicking_tell_changes_nothing,
}

/// Far longer than anything here takes; only a hang gets there.
const PATIENCE: Duration = Duration::from_secs(60);

fn new_id() -> Uuid {
    Uuid::new_v4()
}

fn user() -> UserId {
    UserId::new(new_id())
}

fn new_user(email: &str) -> NewUser {
    NewUser {
        username: Username::new("Ada").unwrap(),
        email: Email::new(email).unwrap(),
        password_hash: "$argon2id$v=19$…".to_owned(),
    }
}

fn new_message(channel_id: ChannelId, author_id: UserId, content: &str) -> NewMessage {
    NewMessage { channel_id, author_id, content: Content::new(content).unwrap(), reply_to: None, nonce: None }
}

fn with_nonce(message: &NewMessage, nonce: &str) -> NewMessage {
    NewMessage { nonce: Some(Nonce::new(nonce).unwrap()), ..message.clone() }
}

fn new_guild(owner_id: UserId, visibility: Visibility) -> NewGuild {
    NewGuild { name: Name::new("Home").unwrap(), owner_id, visibility }
}

/// Tells of a row by one event with the row's id.
fn tell<T: Clone + 'static>(id: fn(&T) -> Uuid, topic: fn(&T) -> Topic, frame: fn(T) -> ServerFrame) -> Tell<T> {
    Arc::new(move |row| vec![Event::new(EventId::new(id(row)), vec![topic(row)], None, frame(row.clone()))])
}

fn tell_message() -> Tell<Message> {
    let guild = GuildId::new(new_id());
    Arc::new(move |row: &Message| {
        let id = EventId::new(row.message_id.uuid());
        vec![Event::new(id, vec![Topic::Guild(guild)], Some(row.channel_id), ServerFrame::MessageCreate(row.clone()))]
    })
}

fn tell_member() -> Tell<Member> {
    // Two users may join at once: their events are told apart by the user's id.
    tell(|row: &Member| row.user_id.uuid(), |row| Topic::Guild(row.guild_id), ServerFrame::MemberAdd)
}

fn tell_removed() -> Tell<Removed> {
    tell(
        |row: &Removed| row.user_id.uuid(),
        |row| Topic::Guild(row.guild_id),
        |row| ServerFrame::MemberRemove(MemberRemove { guild_id: row.guild_id, user_id: row.user_id, rev: row.rev }),
    )
}

fn tell_channel() -> Tell<Channel> {
    tell(|row: &Channel| row.channel_id.uuid(), |row| Topic::Guild(row.guild_id), ServerFrame::ChannelCreate)
}

fn silent<T>() -> Tell<T> {
    Arc::new(|_| Vec::new())
}

async fn write(store: &Store, message: NewMessage) -> Created<Message> {
    store.messages.create(message, tell_message()).await.unwrap()
}

async fn write_many(store: &Store, channel: ChannelId, contents: &[&str]) -> Vec<MessageId> {
    let author = user();
    let mut ids = Vec::new();
    for content in contents {
        ids.push(write(store, new_message(channel, author, content)).await.row.message_id);
    }
    ids
}

fn contents(page: &[Message]) -> Vec<&str> {
    page.iter().map(|message| message.content.as_str()).collect()
}

/// Runs tasks at once and gives their answers in any order.
async fn together<T: Send + 'static, F: Future<Output = T> + Send + 'static>(tasks: impl Iterator<Item = F>) -> Vec<T> {
    timeout(PATIENCE, tasks.collect::<JoinSet<_>>().join_all()).await.expect("tasks hang")
}

/// All events above a position.
async fn log_after(store: &Store, after: Position) -> Vec<Logged> {
    store.events.read_after(after, 10_000).await.unwrap()
}

/// Ids for what creates nothing are new each time, and of version 1.
pub async fn ids_grow(store: &Store) {
    let ids: Vec<_> = (0..5_000).map(|_| MessageId::new(store.ids.next())).collect();
    assert!(ids.iter().all(|id| id.is_ordered()));
    assert!(ids.windows(2).all(|pair| pair[0].sort_key() < pair[1].sort_key()));
}

/// A user comes back as it was created, by both ways.
pub async fn users_are_found_by_id_and_address(store: &Store) {
    let address = format!("{}@example.com", new_id());
    let email = Email::new(&address).unwrap();
    let created = store.users.create(new_user(&address)).await.unwrap();
    assert_eq!(created.user.username, "Ada");
    assert_eq!(created.user.email.as_deref(), Some(address.as_str()));
    assert_eq!(created.user.created_at, created.user.user_id.minted_at(), "created when its id was made");
    assert_eq!(created.password_hash.as_deref(), Some("$argon2id$v=19$…"));
    for found in [store.users.get(created.user.user_id).await.unwrap(), store.users.by_email(&email).await.unwrap()] {
        assert!(found.as_ref() == Some(&created), "{found:?} is not {created:?}");
    }
    assert!(store.users.by_email(&Email::new("nobody@example.com").unwrap()).await.unwrap().is_none());
}

/// 250 ids, unknown ones and repeated ones in one question.
pub async fn many_users_are_found_at_once(store: &Store) {
    let users = store.users.clone();
    let created = together((0..250).map(|_| {
        let users = users.clone();
        async move { users.create(new_user(&format!("{}@example.com", new_id()))).await.unwrap().user.user_id }
    }))
    .await;
    let mut asked = created.clone();
    asked.extend((0..50).map(|_| user()));
    asked.extend_from_slice(&created[..10]);
    let found: Vec<_> = store.users.get_many(&asked).await.unwrap().into_iter().map(|account| account.user.user_id).collect();
    assert_eq!(found.len(), 250, "each once");
    assert_eq!(found.into_iter().collect::<HashSet<_>>(), created.into_iter().collect());
    assert!(store.users.get_many(&[]).await.unwrap().is_empty());
}

/// Of twenty that register with one address at once, one does; later ones are told so too.
pub async fn an_address_is_taken_once(store: &Store) {
    let address = format!("{}@example.com", new_id());
    let tries = together((0..20).map(|_| {
        let (users, new) = (store.users.clone(), new_user(&address));
        async move { users.create(new).await }
    }))
    .await;
    let (won, lost): (Vec<_>, Vec<_>) = tries.into_iter().partition(Result::is_ok);
    assert_eq!(won.len(), 1);
    assert!(lost.iter().all(|lost| matches!(lost, Err(Error::Taken("email")))), "{lost:?}");
    let winner = won.into_iter().next().unwrap().unwrap().user.user_id;
    assert!(matches!(store.users.create(new_user(&address)).await, Err(Error::Taken("email"))));
    let found = store.users.by_email(&Email::new(&address).unwrap()).await.unwrap().unwrap();
    assert_eq!(found.user.user_id, winner);
}

/// Every field, with text beyond ASCII, a quote and a zero.
pub async fn a_message_is_kept_as_it_was_written(store: &Store) {
    let (channel, author) = (ChannelId::new(new_id()), user());
    let first = write(store, new_message(channel, author, "first")).await.row;
    let content = format!("it's ñ, 🦀\u{0}\n{}", "é".repeat(3_900));
    let new = NewMessage { reply_to: Some(first.message_id), ..new_message(channel, author, &content) };
    let created = write(store, with_nonce(&new, "n")).await;
    assert!(!created.repeated);
    let row = created.row;
    assert_eq!((row.channel_id, row.author_id, row.reply_to), (channel, author, Some(first.message_id)));
    assert_eq!(row.content, content);
    assert_eq!(Some(row.created_at), row.message_id.minted_at());
    assert_eq!(Some(row.rev), row.message_id.micros());
    assert_eq!((&row.author, &row.nonce), (&None, &None), "these are the caller's to add");
    assert_eq!(store.messages.get(channel, row.message_id).await.unwrap().unwrap(), row);
    assert_eq!(store.messages.page_before(channel, None, 9).await.unwrap(), [row, first]);
}

/// An id alone opens no message: its channel must be known, since that is what rights are asked for.
pub async fn a_message_is_found_in_its_channel_only(store: &Store) {
    let [here, there] = [ChannelId::new(new_id()), ChannelId::new(new_id())];
    let ids = write_many(store, here, &["1"]).await;
    assert!(store.messages.get(here, ids[0]).await.unwrap().is_some());
    assert!(store.messages.get(there, ids[0]).await.unwrap().is_none());
    assert!(store.messages.page_before(there, None, 9).await.unwrap().is_empty());
    assert!(store.messages.page_after(there, ids[0], 9).await.unwrap().is_empty());
}

/// Newest first, and `before` itself is left out.
pub async fn messages_page_backwards(store: &Store) {
    let channel = ChannelId::new(new_id());
    let ids = write_many(store, channel, &["1", "2", "3", "4", "5"]).await;
    for (before, limit, want) in [
        (None, 9, vec!["5", "4", "3", "2", "1"]),
        (None, 5, vec!["5", "4", "3", "2", "1"]),
        (None, 2, vec!["5", "4"]),
        (None, 0, vec![]),
        (Some(ids[4]), 2, vec!["4", "3"]),
        (Some(ids[1]), 9, vec!["1"]),
        (Some(ids[0]), 9, vec![]),
        // Ids that are nobody's have their place too: behind all, and before all.
        (Some(MessageId::new(store.ids.next())), 1, vec!["5"]),
        (Some(MessageId::new(new_id())), 9, vec![]),
    ] {
        let page = store.messages.page_before(channel, before, limit).await.unwrap();
        assert_eq!(contents(&page), want, "before {before:?}, limit {limit}");
    }
    assert_eq!(store.messages.page_before(channel, None, usize::MAX).await.unwrap().len(), 5);
}

/// Oldest first, and `after` itself is left out.
pub async fn messages_page_forwards(store: &Store) {
    let channel = ChannelId::new(new_id());
    let before = MessageId::new(store.ids.next());
    let ids = write_many(store, channel, &["1", "2", "3", "4", "5"]).await;
    for (after, limit, want) in [
        (before, 9, vec!["1", "2", "3", "4", "5"]),
        (before, 2, vec!["1", "2"]),
        (ids[1], 2, vec!["3", "4"]),
        (ids[1], 0, vec![]),
        (ids[3], 9, vec!["5"]),
        (ids[4], 9, vec![]),
        (MessageId::new(store.ids.next()), 9, vec![]),
        (MessageId::new(new_id()), 1, vec!["1"]),
    ] {
        let page = store.messages.page_after(channel, after, limit).await.unwrap();
        assert_eq!(contents(&page), want, "after {after}, limit {limit}");
    }
}

/// Also when many write at once: ids are distinct, pages are sorted by them, and one author's keep their order.
pub async fn messages_are_ordered_as_their_ids(store: &Store) {
    let channel = ChannelId::new(new_id());
    together((0..16).map(|_| {
        let store = store.clone();
        async move { write_many(&store, channel, &["1", "2", "3", "4", "5", "6", "7", "8"]).await }
    }))
    .await;
    let page = store.messages.page_before(channel, None, 200).await.unwrap();
    assert_eq!(page.len(), 128);
    assert!(page.windows(2).all(|pair| pair[0].message_id.sort_key() > pair[1].message_id.sort_key()));
    for author in page.iter().map(|message| message.author_id).collect::<HashSet<_>>() {
        let own: Vec<_> = page.iter().filter(|message| message.author_id == author).cloned().collect();
        assert_eq!(contents(&own), ["8", "7", "6", "5", "4", "3", "2", "1"]);
    }
}

/// The second try is answered with the first one's row.
pub async fn a_nonce_stores_once(store: &Store) {
    let channel = ChannelId::new(new_id());
    let new = with_nonce(&new_message(channel, user(), "hi"), "n-1");
    let first = write(store, new.clone()).await;
    let second = write(store, new).await;
    assert_eq!((first.repeated, second.repeated), (false, true));
    assert_eq!(first.row, second.row);
    assert_eq!(store.messages.page_before(channel, None, 9).await.unwrap(), [first.row]);
}

/// Twenty tries at once: one row, one id, one that was the first.
pub async fn a_nonce_stores_once_for_twenty_at_once(store: &Store) {
    let channel = ChannelId::new(new_id());
    let new = with_nonce(&new_message(channel, user(), "hi"), "n-1");
    let tries = together((0..20).map(|_| {
        let (store, new) = (store.clone(), new.clone());
        async move { write(&store, new).await }
    }))
    .await;
    assert_eq!(tries.iter().filter(|created| !created.repeated).count(), 1);
    assert_eq!(tries.iter().map(|created| created.row.message_id).collect::<HashSet<_>>().len(), 1);
    assert_eq!(store.messages.page_before(channel, None, 9).await.unwrap().len(), 1);
}

/// Another content, another reply or none: refused, and nothing is stored.
pub async fn a_nonce_stands_for_one_body(store: &Store) {
    let (channel, author) = (ChannelId::new(new_id()), user());
    let root = write(store, new_message(channel, author, "root")).await.row.message_id;
    let plain = with_nonce(&new_message(channel, author, "hi"), "n");
    let reply = NewMessage { reply_to: Some(root), ..with_nonce(&plain, "r") };
    write(store, plain.clone()).await;
    write(store, reply.clone()).await;
    for other in [
        NewMessage { content: Content::new("ho").unwrap(), ..plain.clone() },
        NewMessage { reply_to: Some(root), ..plain },
        NewMessage { reply_to: None, ..reply.clone() },
        NewMessage { reply_to: Some(MessageId::new(store.ids.next())), ..reply },
    ] {
        let refused = store.messages.create(other, tell_message()).await;
        assert!(matches!(refused, Err(Error::NonceReused)), "{refused:?}");
    }
    assert_eq!(store.messages.page_before(channel, None, 9).await.unwrap().len(), 3);
}

/// Nobody can take another one's nonce.
pub async fn a_nonce_belongs_to_author_and_channel(store: &Store) {
    let new = with_nonce(&new_message(ChannelId::new(new_id()), user(), "hi"), "n");
    for other in [
        new.clone(),
        NewMessage { author_id: user(), ..new.clone() },
        NewMessage { channel_id: ChannelId::new(new_id()), ..new.clone() },
        with_nonce(&new, "N"),
        with_nonce(&new, "n "),
    ] {
        assert!(!write(store, other).await.repeated);
    }
}

/// The same text twice is two messages.
pub async fn without_a_nonce_every_try_is_a_message(store: &Store) {
    let new = new_message(ChannelId::new(new_id()), user(), "hi");
    let (first, second) = (write(store, new.clone()).await, write(store, new).await);
    assert!(!first.repeated && !second.repeated);
    assert_ne!(first.row.message_id, second.row.message_id);
}

/// The guild comes back, and its owner is a member with the guild's own `rev`.
pub async fn a_guild_begins_with_its_owner(store: &Store) {
    let owner = user();
    for visibility in [Visibility::Public, Visibility::Private] {
        let created = store.guilds.create(new_guild(owner, visibility), silent()).await.unwrap();
        let guild = created.row;
        assert_eq!((guild.name.as_str(), guild.owner_id, guild.visibility), ("Home", Some(owner), Some(visibility)));
        assert_eq!((Some(guild.created_at), Some(guild.rev)), (guild.guild_id.minted_at(), guild.guild_id.micros()));
        assert_eq!(store.guilds.get(guild.guild_id).await.unwrap().as_ref(), Some(&guild));
        let member = store.members.get(guild.guild_id, owner).await.unwrap().unwrap();
        assert_eq!((member.rev, member.joined_at), (guild.rev, guild.created_at));
        assert!(store.members.get(guild.guild_id, user()).await.unwrap().is_none());
    }
}

/// Page by page one sees each public guild once and no private one, whatever the size of a page.
pub async fn public_guilds_are_listed_in_pages(store: &Store) {
    let mut ids = [HashSet::new(), HashSet::new()];
    for n in 0..14 {
        let visibility = [Visibility::Public, Visibility::Private][n % 2];
        ids[n % 2].insert(store.guilds.create(new_guild(user(), visibility), silent()).await.unwrap().row.guild_id);
    }
    let [public, private] = ids;
    let whole: Vec<_> = store.guilds.public(None, 10_000).await.unwrap().iter().map(|guild| guild.guild_id).collect();
    assert_eq!(whole.iter().filter(|id| public.contains(id)).count(), 7);
    assert!(!whole.iter().any(|id| private.contains(id)));
    for limit in [1, 3, whole.len(), whole.len() + 1] {
        let (mut listed, mut after) = (Vec::new(), None);
        loop {
            let page = store.guilds.public(after, limit).await.unwrap();
            assert!(page.len() <= limit);
            let Some(last) = page.last() else { break };
            after = Some(last.guild_id);
            listed.extend(page.iter().map(|guild| guild.guild_id));
        }
        assert_eq!(listed, whole, "limit {limit}");
    }
    assert!(store.guilds.public(None, 0).await.unwrap().is_empty());
}

async fn guild(store: &Store) -> GuildId {
    store.guilds.create(new_guild(user(), Visibility::Public), silent()).await.unwrap().row.guild_id
}

/// The second time is a repeat, without events.
pub async fn joining_twice_is_joining_once(store: &Store) {
    let (guild, user) = (guild(store).await, user());
    let first = store.members.add(guild, user, tell_member()).await.unwrap();
    let second = store.members.add(guild, user, tell_member()).await.unwrap();
    assert_eq!((first.repeated, first.events.len()), (false, 1));
    assert_eq!((second.repeated, second.events.len()), (true, 0));
    assert_eq!(first.row, second.row);
    assert_eq!((first.row.guild_id, first.row.user_id), (guild, user));
    assert_eq!(store.members.get(guild, user).await.unwrap(), Some(first.row));
}

/// Twenty clicks at once: one membership, one event.
pub async fn joining_at_once_is_joining_once(store: &Store) {
    let (guild, user) = (guild(store).await, user());
    let start = store.events.head().await.unwrap();
    let tries = together((0..20).map(|_| {
        let members = store.members.clone();
        async move { members.add(guild, user, tell_member()).await.unwrap() }
    }))
    .await;
    assert_eq!(tries.iter().filter(|created| !created.repeated).count(), 1);
    assert_eq!(tries.iter().map(|created| created.row.rev).collect::<HashSet<_>>().len(), 1);
    assert_eq!(log_after(store, start).await.len(), 1);
}

/// The second time there is nothing to leave, and nothing to tell.
pub async fn leaving_twice_is_leaving_once(store: &Store) {
    let (guild, user) = (guild(store).await, user());
    assert_eq!(store.members.remove(guild, user, tell_removed()).await.unwrap(), None, "not in yet");
    store.members.add(guild, user, tell_member()).await.unwrap();
    let start = store.events.head().await.unwrap();
    let events = store.members.remove(guild, user, tell_removed()).await.unwrap().unwrap();
    assert_eq!(store.members.remove(guild, user, tell_removed()).await.unwrap(), None);
    assert_eq!(store.members.get(guild, user).await.unwrap(), None);
    assert!(store.members.of_user(user).await.unwrap().is_empty());
    let logged: Vec<_> = log_after(store, start).await.into_iter().map(|logged| logged.event).collect();
    assert_eq!(logged, events);
}

/// In and out and in again: each step's `rev` is above the one before, the owner's first step included.
pub async fn a_later_membership_has_a_higher_rev(store: &Store) {
    let owner = user();
    let guild = store.guilds.create(new_guild(owner, Visibility::Public), silent()).await.unwrap().row;
    let mut revs = vec![guild.rev];
    for _ in 0..5 {
        let heard = Arc::new(std::sync::Mutex::new(0));
        let tell: Tell<Removed> = Arc::new({
            let heard = heard.clone();
            move |removed| {
                *heard.lock().unwrap() = removed.rev;
                Vec::new()
            }
        });
        store.members.remove(guild.guild_id, owner, tell).await.unwrap().unwrap();
        revs.push(*heard.lock().unwrap());
        revs.push(store.members.add(guild.guild_id, owner, silent()).await.unwrap().row.rev);
    }
    assert!(revs.windows(2).all(|pair| pair[0] < pair[1]), "{revs:?}");
    assert!(revs.iter().all(|rev| *rev < 1 << 53), "{revs:?}");
}

/// Guilds created and joined, sorted by id, each with the membership's `rev`; those left are gone.
pub async fn a_users_guilds_are_listed(store: &Store) {
    let user = user();
    let mut want = BTreeSet::new();
    for n in 0..9 {
        let id = if n % 2 == 0 {
            store.guilds.create(new_guild(user, Visibility::Private), silent()).await.unwrap().row.guild_id
        } else {
            let id = guild(store).await;
            store.members.add(id, user, silent()).await.unwrap();
            id
        };
        if n % 3 == 0 {
            store.members.remove(id, user, silent()).await.unwrap();
        } else {
            want.insert(id);
        }
    }
    let listed = store.members.of_user(user).await.unwrap();
    assert_eq!(listed.iter().map(|one| one.guild.guild_id).collect::<Vec<_>>(), want.into_iter().collect::<Vec<_>>());
    for membership in listed {
        let id = membership.guild.guild_id;
        assert_eq!(Some(membership.guild), store.guilds.get(id).await.unwrap());
        assert_eq!(membership.rev, store.members.get(id, user).await.unwrap().unwrap().rev);
    }
    assert!(store.members.of_user(UserId::new(new_id())).await.unwrap().is_empty());
}

/// With the last message of each; other guilds' channels are not among them.
pub async fn channels_are_listed_in_the_order_of_their_creation(store: &Store) {
    let [here, there] = [GuildId::new(new_id()), GuildId::new(new_id())];
    let mut created = Vec::new();
    for n in 0..20 {
        let new = NewChannel { guild_id: here, name: Name::new(&format!("room {}", 19 - n)).unwrap() };
        created.push(store.channels.create(new, silent()).await.unwrap().row);
    }
    let other = NewChannel { guild_id: there, name: Name::new("elsewhere").unwrap() };
    store.channels.create(other, silent()).await.unwrap();
    for channel in &created {
        assert_eq!((Some(channel.created_at), Some(channel.rev)), (channel.channel_id.minted_at(), channel.channel_id.micros()));
        assert_eq!(store.channels.get(channel.channel_id).await.unwrap().as_ref(), Some(channel));
    }
    assert_eq!(store.channels.of_guild(here).await.unwrap(), created);

    let spoken = write_many(store, created[3].channel_id, &["1", "2"]).await;
    created[3].last_message_id = Some(spoken[1]);
    assert_eq!(store.channels.of_guild(here).await.unwrap(), created);
    assert!(store.channels.of_guild(GuildId::new(new_id())).await.unwrap().is_empty());
}

/// What is not there is `None`, not an error.
pub async fn unknown_rows_are_none(store: &Store) {
    assert!(store.users.get(user()).await.unwrap().is_none());
    assert!(store.guilds.get(GuildId::new(new_id())).await.unwrap().is_none());
    assert!(store.channels.get(ChannelId::new(new_id())).await.unwrap().is_none());
    assert!(store.members.get(GuildId::new(new_id()), user()).await.unwrap().is_none());
    for id in [new_id(), store.ids.next()] {
        assert!(store.messages.get(ChannelId::new(new_id()), MessageId::new(id)).await.unwrap().is_none());
    }
}

async fn login(store: &Store, user_id: UserId) -> Uuid {
    let login_id = new_id();
    store.logins.begin(NewLogin { login_id, user_id, begun: 100 }).await.unwrap();
    login_id
}

/// AP-23, AP-24: each generation is good once, the one before it leads to the same for a while, an older one was copied.
pub async fn a_login_goes_on_step_by_step(store: &Store) {
    let user_id = user();
    let login = login(store, user_id).await;
    let current = |generation| Refreshed::Current { user_id, begun: 100, generation };
    for (shown, want) in [
        (0, current(1)),
        (0, current(1)),
        (1, current(2)),
        (1, current(2)),
        (0, Refreshed::Replayed { user_id }),
        (2, current(3)),
        (9, Refreshed::Gone),
        (3, current(4)),
    ] {
        assert_eq!(store.logins.refresh(login, shown).await.unwrap(), want, "shown {shown}");
    }
    // Beginning once more changes nothing.
    store.logins.begin(NewLogin { login_id: login, user_id: user(), begun: 1 }).await.unwrap();
    assert_eq!(store.logins.refresh(login, 4).await.unwrap(), current(5));
    assert_eq!(store.logins.refresh(new_id(), 0).await.unwrap(), Refreshed::Gone);
}

/// AP-24, twenty at once.
pub async fn refreshing_at_once_is_one_step(store: &Store) {
    let user_id = user();
    let login = login(store, user_id).await;
    let refreshed = together((0..20).map(|_| {
        let logins = store.logins.clone();
        async move { logins.refresh(login, 0).await.unwrap() }
    }))
    .await;
    assert!(
        refreshed.iter().all(|refreshed| *refreshed == Refreshed::Current { user_id, begun: 100, generation: 1 }),
        "{refreshed:?}"
    );
    assert_eq!(store.logins.refresh(login, 1).await.unwrap(), Refreshed::Current { user_id, begun: 100, generation: 2 });
}

/// AP-25, AP-26: a login ends for its tokens and for its refreshing, with the event of it; others go on.
pub async fn what_is_revoked_has_ended(store: &Store) {
    let (ada, bob) = (user(), user());
    let (one, two, his) = (login(store, ada).await, login(store, ada).await, login(store, bob).await);
    let ids = store.ids.clone();
    let tell = |user| -> Tell<Revoked> {
        let ids = ids.clone();
        Arc::new(move |what| vec![Event::revoked(EventId::new(ids.next()), user, *what)])
    };
    let ended = async |user, id, issued_at| store.logins.is_revoked(user, Login::new(id, issued_at)).await.unwrap();
    assert!(!ended(ada, one, 200).await);
    for _ in 0..2 {
        let events = store.logins.revoke(ada, Revoked::Login(one), tell(ada)).await.unwrap();
        assert_eq!(events.iter().map(Event::revokes).collect::<Vec<_>>(), [Some(Revoked::Login(one))]);
    }
    assert!(ended(ada, one, 200).await && ended(ada, one, 999).await);
    assert!(!ended(ada, two, 200).await && !ended(bob, one, 200).await && !ended(ada, Uuid::nil(), 200).await);
    assert_eq!(store.logins.refresh(one, 0).await.unwrap(), Refreshed::Gone);

    // Nobody ends the login of another one.
    store.logins.revoke(bob, Revoked::Login(two), tell(bob)).await.unwrap();
    assert_eq!(store.logins.refresh(two, 0).await.unwrap(), Refreshed::Current { user_id: ada, begun: 100, generation: 1 });

    // All until a second: what came later is good, and a login that began before cannot be refreshed.
    store.logins.revoke(ada, Revoked::IssuedBy(200), tell(ada)).await.unwrap();
    assert!(ended(ada, two, 200).await && ended(ada, Uuid::nil(), 199).await);
    assert!(!ended(ada, two, 201).await && !ended(bob, his, 100).await);
    assert!(ended(ada, one, 999).await, "a login that was ended before stays so");
    assert_eq!(store.logins.refresh(two, 1).await.unwrap(), Refreshed::Gone);
    assert_eq!(store.logins.refresh(his, 0).await.unwrap(), Refreshed::Current { user_id: bob, begun: 100, generation: 1 });
}

/// AP-25: whatever is ended after all logins were, by a clock that lags or by a name that is none, all of them stay ended.
pub async fn what_has_ended_is_not_brought_back(store: &Store) {
    let ada = user();
    let one = login(store, ada).await;
    let silent = || -> Tell<Revoked> { Arc::new(|_| Vec::new()) };
    for what in [Revoked::IssuedBy(200), Revoked::IssuedBy(150), Revoked::Login(Uuid::nil()), Revoked::Login(new_id())] {
        store.logins.revoke(ada, what, silent()).await.unwrap();
        for (issued_at, ended) in [(150, true), (200, true), (201, false)] {
            let login = Login::new(new_id(), issued_at);
            assert_eq!(store.logins.is_revoked(ada, login).await.unwrap(), ended, "{issued_at} after {what:?}");
        }
    }
    assert_eq!(store.logins.refresh(one, 0).await.unwrap(), Refreshed::Gone);
}

/// Every kind of change: when it is acknowledged, its events are in the log, in order, and the head is the last of them.
pub async fn events_are_written_with_their_rows(store: &Store) {
    let start = store.events.head().await.unwrap();
    let tell_guild = tell(
        |row: &Guild| row.guild_id.uuid(),
        |row| Topic::Guild(row.guild_id),
        |row| ServerFrame::GuildDelete(jiscord_core::frame::GuildDelete { guild_id: row.guild_id, rev: row.rev }),
    );
    let guild = store.guilds.create(new_guild(user(), Visibility::Public), tell_guild).await.unwrap();
    let id = guild.row.guild_id;
    let user = user();
    let added = store.members.add(id, user, tell_member()).await.unwrap();
    let new = NewChannel { guild_id: id, name: Name::new("general").unwrap() };
    let channel = store.channels.create(new, tell_channel()).await.unwrap();
    let message = write(store, with_nonce(&new_message(channel.row.channel_id, user, "hi"), "n")).await;
    let removed = store.members.remove(id, user, tell_removed()).await.unwrap().unwrap();
    assert!(message.events[0].frame.contains(&message.row.message_id.to_string()), "told of the final row");

    let logged = log_after(store, start).await;
    let want = [guild.events, added.events, channel.events, message.events, removed].concat();
    assert_eq!(want.len(), 5);
    assert_eq!(logged.iter().map(|logged| &logged.event).collect::<Vec<_>>(), want.iter().collect::<Vec<_>>());
    assert!(logged[0].p > start && logged.windows(2).all(|pair| pair[0].p < pair[1].p), "{logged:?}");
    assert!(logged.iter().all(|logged| logged.p.0 < 1 << 53));
    assert_eq!(store.events.head().await.unwrap(), logged[4].p);
    assert!(store.events.floor().await.unwrap() <= start);
    assert!((1..=64).contains(&store.events.epoch().len()));
}

/// A repeat is told like the first try, with the same ids, but the log has it once.
pub async fn a_repeat_tells_again_and_logs_nothing(store: &Store) {
    let new = with_nonce(&new_message(ChannelId::new(new_id()), user(), "hi"), "n");
    let tell = tell_message();
    let first = store.messages.create(new.clone(), tell.clone()).await.unwrap();
    let head = store.events.head().await.unwrap();
    let second = store.messages.create(new, tell).await.unwrap();
    assert_eq!(first.events, second.events);
    assert_eq!(store.events.head().await.unwrap(), head);
    assert!(log_after(store, head).await.is_empty());
}

/// A write with three events has them side by side.
pub async fn several_events_of_a_write_stay_together(store: &Store) {
    let start = store.events.head().await.unwrap();
    let channel = ChannelId::new(new_id());
    together((0..8).map(|_| {
        let store = store.clone();
        async move {
            let one = tell_message();
            let tell: Tell<Message> = Arc::new(move |row| [one(row), one(row), one(row)].concat());
            store.messages.create(new_message(channel, user(), "hi"), tell).await.unwrap()
        }
    }))
    .await;
    let logged = log_after(store, start).await;
    assert_eq!(logged.len(), 24);
    assert!(logged.chunks(3).all(|three| three.iter().all(|logged| logged.event == three[0].event)));
}

/// All fields, several topics, a channel and none; appended, not created.
pub async fn an_event_comes_back_as_it_was(store: &Store) {
    let start = store.events.head().await.unwrap();
    let topics = vec![Topic::Guild(GuildId::new(new_id())), Topic::User(user()), Topic::User(user())];
    let event = |topics, channel| Event {
        id: EventId::new(store.ids.next()),
        topics,
        op: "FROM_THE_FUTURE".into(),
        channel,
        frame: r#"{"op":"FROM_THE_FUTURE","d":{"text":"it's ñ 🦀"}}"#.into(),
    };
    let events =
        vec![event(topics.clone(), None), event(topics[1..2].to_vec(), Some(ChannelId::new(new_id()))), event(vec![], None)];
    store.events.append(events.clone()).await.unwrap();
    store.events.append(Vec::new()).await.unwrap();
    assert_eq!(log_after(store, start).await.into_iter().map(|logged| logged.event).collect::<Vec<_>>(), events);
}

/// Page by page one sees the same as at once; above the head there is nothing.
pub async fn the_log_is_read_in_pages(store: &Store) {
    let start = store.events.head().await.unwrap();
    write_many(store, ChannelId::new(new_id()), &["1", "2", "3", "4", "5", "6", "7"]).await;
    let whole = log_after(store, start).await;
    assert_eq!(whole.len(), 7);
    for limit in [1, 3, 7, 8] {
        let (mut read, mut after) = (Vec::new(), start);
        loop {
            let page = store.events.read_after(after, limit).await.unwrap();
            assert!(page.len() <= limit);
            let Some(last) = page.last() else { break };
            after = last.p;
            read.extend(page);
        }
        assert_eq!(read, whole, "limit {limit}");
    }
    assert!(store.events.read_after(start, 0).await.unwrap().is_empty());
    for above in [whole[6].p, Position(whole[6].p.0 + 1), Position(u64::MAX)] {
        assert!(store.events.read_after(above, 9).await.unwrap().is_empty());
    }
}

/// At once where there is an event already, else when the next one comes; then it can be read.
pub async fn waiting_ends_with_the_next_event(store: &Store) {
    let start = store.events.head().await.unwrap();
    let waits = |after| {
        let events = store.events.clone();
        tokio::spawn(async move { timeout(PATIENCE, events.wait_past(after)).await })
    };
    let waiting = waits(start);
    let quiet = new_message(ChannelId::new(new_id()), user(), "nothing is told of this");
    store.messages.create(quiet.clone(), silent()).await.unwrap();
    assert_eq!(store.events.head().await.unwrap(), start);
    assert!(!waiting.is_finished(), "there was no event");
    write(store, quiet).await;
    waiting.await.unwrap().expect("woken");
    assert_eq!(log_after(store, start).await.len(), 1);
    waits(start).await.unwrap().expect("at once");
}

/// Who reads the log while many write sees every event once, in order, and none later than a higher one.
pub async fn a_tail_misses_nothing(store: &Store) {
    const WRITERS: usize = 16;
    const EACH: usize = 20;
    let start = store.events.head().await.unwrap();
    let tail = tokio::spawn({
        let events = store.events.clone();
        async move {
            let (mut seen, mut after) = (Vec::new(), start);
            while seen.len() < WRITERS * EACH {
                timeout(PATIENCE, events.wait_past(after)).await.expect("woken");
                for logged in events.read_after(after, 7).await.unwrap() {
                    assert!(logged.p > after);
                    after = logged.p;
                    seen.push(logged.event.id);
                }
            }
            seen
        }
    });
    let written = together((0..WRITERS).map(|_| {
        let store = store.clone();
        async move { write_many(&store, ChannelId::new(new_id()), &["hi"; EACH]).await }
    }))
    .await
    .concat();
    let seen = timeout(PATIENCE, tail).await.expect("the tail sees all").unwrap();
    assert_eq!(seen.len(), WRITERS * EACH);
    let written: HashSet<_> = written.into_iter().map(|id| EventId::new(id.uuid())).collect();
    assert_eq!(seen.into_iter().collect::<HashSet<_>>(), written);
}

/// It fails alone: no row, no nonce, no event; what is written beside it and after it is well.
pub async fn a_panicking_tell_changes_nothing(store: &Store) {
    let channel = ChannelId::new(new_id());
    let start = store.events.head().await.unwrap();
    let new = with_nonce(&new_message(channel, user(), "hi"), "n");
    let tries = together((0..20).map(|n| {
        let (store, new) = (store.clone(), new.clone());
        async move {
            match n % 2 {
                0 => Some(write(&store, NewMessage { author_id: user(), ..new }).await),
                _ => {
                    let failed = store.messages.create(new, Arc::new(|_| panic!("on purpose"))).await;
                    assert!(matches!(failed, Err(Error::Internal(_))), "{failed:?}");
                    None
                }
            }
        }
    }))
    .await;
    let written: HashSet<_> = tries.into_iter().flatten().map(|created| created.row.message_id).collect();
    let page = store.messages.page_before(channel, None, 99).await.unwrap();
    assert_eq!(page.iter().map(|message| message.message_id).collect::<HashSet<_>>(), written);
    assert_eq!(log_after(store, start).await.len(), 10);
    assert!(!write(store, new).await.repeated, "the nonce is free");
}
