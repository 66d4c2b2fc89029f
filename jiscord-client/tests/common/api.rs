//! An HTTP API that has what the test says.

use std::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    sync::{Arc, Mutex},
};

use axum::{
    Json, Router,
    extract::{Path, Query, State},
    http::StatusCode,
    response::{IntoResponse, Response},
    routing::{delete, get, post},
};
use jiscord_client::core::{ChannelId, Code, GuildId, MessageId, Timestamp, http::*, model::*};
use tokio::{net::TcpListener, sync::watch};

use super::{channel, message_id, soon, user};

pub(crate) fn guild(number: u32) -> Guild {
    let guild_id = format!("{number:08x}-e747-11f1-8000-010000000000").parse().unwrap();
    let (name, created_at) = (format!("Guild {number}"), Timestamp::from_ms(0));
    Guild { guild_id, name, created_at, rev: 1, owner_id: None, visibility: None }
}

pub(crate) fn room(number: u32) -> Channel {
    let (channel_id, guild_id) = (channel(number), guild(1).guild_id);
    let (name, created_at) = (format!("room {number}"), Timestamp::from_ms(number.into()));
    Channel { channel_id, guild_id, name, created_at, rev: 1, last_message_id: None }
}

/// A message of channel 1.
pub(crate) fn said(number: u32) -> Message {
    said_in(channel(1), number)
}

pub(crate) fn said_in(channel_id: ChannelId, number: u32) -> Message {
    Message {
        message_id: message_id(number),
        channel_id,
        author_id: user().user_id,
        content: number.to_string(),
        created_at: Timestamp::from_ms(0),
        author: Some(Author { user_id: user().user_id, username: "Ada".into() }),
        rev: 1,
        nonce: None,
        reply_to: None,
    }
}

/// What the HTTP API has, and how it behaves.
#[derive(Clone, Default)]
pub(crate) struct Api {
    kept: Arc<Mutex<Kept>>,
}

#[derive(Default)]
pub(crate) struct Kept {
    pub(crate) guilds: Vec<Guild>,
    pub(crate) channels: Vec<Channel>,
    messages: BTreeMap<ChannelId, BTreeSet<u32>>,
    /// What is said instead, one after the other.
    pub(crate) refusals: VecDeque<(StatusCode, Code)>,
    pub(crate) asked: Vec<String>,
    /// What is answered only when it is let go of.
    held: watch::Sender<Vec<&'static str>>,
}

pub(crate) type Answer = Result<Response, Response>;

impl Api {
    pub(crate) async fn start() -> (Self, String) {
        let api = Self::default();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let app = Router::new()
            .route("/guilds/me", get(guilds))
            .route("/guilds", post(create_guild))
            .route("/guilds/{guild}/channels", get(channels).post(create_channel))
            .route("/guilds/{guild}/members", post(join))
            .route("/guilds/{guild}/members/{user}", delete(leave))
            .route("/channels/{channel}/messages", get(messages))
            .route("/users/{user}", get(name))
            .with_state(api.clone());
        tokio::spawn(async move { axum::serve(listener, app).await });
        (api, url)
    }

    pub(crate) fn kept(&self) -> std::sync::MutexGuard<'_, Kept> {
        self.kept.lock().unwrap()
    }

    /// Stores messages in channel 1.
    pub(crate) fn write(&self, numbers: impl IntoIterator<Item = u32>) {
        self.write_in(channel(1), numbers);
    }

    pub(crate) fn write_in(&self, channel: ChannelId, numbers: impl IntoIterator<Item = u32>) {
        self.kept().messages.entry(channel).or_default().extend(numbers);
    }

    /// How often that was asked.
    pub(crate) fn count(&self, what: &str) -> usize {
        self.kept().asked.iter().filter(|asked| asked.starts_with(what)).count()
    }

    /// What is asked so waits from now on.
    pub(crate) fn hold(&self, what: &'static str) {
        self.kept().held.send_modify(|held| held.push(what));
    }

    /// Nothing waits any longer.
    pub(crate) fn release(&self) {
        self.kept().held.send_replace(Vec::new());
    }

    /// Waits until something was asked so often.
    pub(crate) async fn asked(&self, what: &str, times: usize) {
        soon(async {
            while self.count(what) < times {
                tokio::task::yield_now().await;
            }
        })
        .await;
    }

    pub(crate) async fn enter(&self, what: &str) -> Result<(), Response> {
        let (mut held, refusal) = {
            let mut kept = self.kept();
            kept.asked.push(what.to_owned());
            (kept.held.subscribe(), kept.refusals.pop_front())
        };
        drop(held.wait_for(|held| held.iter().all(|held| !what.starts_with(held))).await.unwrap());
        match refusal {
            Some((status, code)) => {
                Err((status, Json(jiscord_client::core::fault::ErrorBody { error: "no".into(), code })).into_response())
            }
            None => Ok(()),
        }
    }
}

pub(crate) async fn guilds(State(api): State<Api>) -> Answer {
    api.enter("guilds").await?;
    let rows: Vec<GuildRow> = api.kept().guilds.iter().cloned().map(Into::into).collect();
    Ok(Json(rows).into_response())
}

pub(crate) async fn create_guild(State(api): State<Api>) -> Answer {
    api.enter("create guild").await?;
    Ok((StatusCode::CREATED, Json(GuildRow::from(guild(9)))).into_response())
}

pub(crate) async fn channels(State(api): State<Api>, Path(guild): Path<GuildId>) -> Answer {
    api.enter(&format!("channels {guild}")).await?;
    let kept = api.kept();
    let with_last = |channel: &Channel| {
        let last = kept.messages.get(&channel.channel_id).and_then(BTreeSet::last).copied().map(message_id);
        Channel { last_message_id: last, ..channel.clone() }
    };
    let of_guild = kept.channels.iter().filter(|channel| channel.guild_id == guild);
    let rows: Vec<ChannelRow> = of_guild.map(with_last).map(Into::into).collect();
    Ok(Json(rows).into_response())
}

pub(crate) async fn create_channel(State(api): State<Api>) -> Answer {
    api.enter("create channel").await?;
    Ok((StatusCode::CREATED, Json(ChannelRow::from(room(9)))).into_response())
}

pub(crate) async fn join(State(api): State<Api>, Path(guild): Path<GuildId>) -> Answer {
    api.enter("join").await?;
    let member = Member { guild_id: guild, user_id: user().user_id, username: None, joined_at: Timestamp::from_ms(0), rev: 1 };
    Ok((StatusCode::CREATED, Json(MemberRow::from(member))).into_response())
}

pub(crate) async fn leave(State(api): State<Api>) -> Answer {
    api.enter("leave").await?;
    Ok(StatusCode::NO_CONTENT.into_response())
}

pub(crate) async fn name(State(api): State<Api>) -> Answer {
    api.enter("name").await?;
    Ok(Json(UserRow::from(User { username: "Bob".into(), email: None, ..user() })).into_response())
}

pub(crate) async fn messages(
    State(api): State<Api>,
    Path(channel): Path<ChannelId>,
    Query(query): Query<BTreeMap<String, String>>,
) -> Answer {
    let place = ["before", "after", "pageState"].into_iter().find(|name| query.contains_key(*name)).unwrap_or("newest");
    // What is stored meanwhile is in the page.
    api.enter(&format!("{place} {channel}")).await?;
    let (kept, limit) = (api.kept(), query["limit"].parse::<usize>().unwrap());
    let stored = kept.messages.get(&channel).into_iter().flatten().copied();
    let key = |id: &str| id.parse::<MessageId>().unwrap().sort_key();
    let id = |number: &u32| message_id(*number).sort_key();
    let after = query.get("after").or(query.get("pageState"));
    let mut page: Vec<u32> = match (after, query.get("before")) {
        (Some(after), _) => stored.filter(|number| id(number) > key(after)).collect(),
        (_, Some(before)) => stored.rev().filter(|number| id(number) < key(before)).collect(),
        _ => stored.rev().collect(),
    };
    let is_more = page.len() > limit;
    page.truncate(limit);
    if after.is_some() {
        page.reverse();
    }
    let next = if after.is_some() { page.first() } else { page.last() };
    let next_page_state = next.filter(|_| is_more).map(|next| message_id(*next).to_string());
    Ok(Json(MessagePage { messages: page.into_iter().map(|number| said_in(channel, number).into()).collect(), next_page_state })
        .into_response())
}
