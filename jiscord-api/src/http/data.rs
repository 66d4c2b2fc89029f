//! data-service: users, guilds, channels and messages. [`internal`] has what is there for other services alone.

pub mod internal;

use std::{net::IpAddr, sync::Arc};

use axum::{
    Json, Router,
    extract::{FromRef, FromRequestParts, Request, State},
    http::{
        HeaderMap, HeaderValue, StatusCode, Uri,
        header::{HOST, ORIGIN},
        request::Parts,
        uri::Authority,
    },
    middleware::{Next, from_fn_with_state},
    response::{IntoResponse, Response},
    routing::MethodRouter,
};
use jiscord_core::{
    ChannelId, Code, Fault, MessageId, UserId,
    backend::{Actor, Backend, TokenVerifier},
    frame::SendMessage,
    http::{
        AccountRow, ChannelRow, ClientAddr, CreateChannelBody, CreateGuildBody, CreateMessageBody, CreateUserBody, GuildRow,
        JoinBody, MemberRow, MessagePage, MessageRow, SentRow, UserRow,
    },
    text::{Email, Username},
};
use jiscord_store::{Account, NewUser};
use serde::Deserialize;

use super::{
    Access, Answer, Body, Failed, IDEMPOTENCY_KEY, MaybeBody, PUBLISH, Path, Query, Settings, USER_ID, alive, authorization,
    count_address, cursor, finish, health, id, limit, malformed, single, unauthorized,
};
use crate::{
    chat::{Chat, Range},
    limits::Limiter,
};

#[derive(Clone)]
struct App {
    chat: Chat,
    callers: Arc<Limiter>,
    settings: Arc<Settings>,
}

impl FromRef<App> for Arc<Settings> {
    fn from_ref(app: &App) -> Self {
        app.settings.clone()
    }
}

routes! {
    App;
    GET "/health" Open => ready;
    GET "/health/live" Open => alive;
    GET "/health/ready" Open => ready;
    POST "/users" Credentials => create_user;
    GET "/users/{user_id}" Credentials => user;
    GET "/users/email/{email}" Credentials => user_by_email;
    GET "/channels/{channel_id}/messages" Credentials => messages;
    POST "/channels/{channel_id}/messages" Credentials => create_message;
    GET "/guilds" Credentials => guilds;
    POST "/guilds" Credentials => create_guild;
    GET "/guilds/me" Credentials => my_guilds;
    GET "/guilds/{guild_id}/channels" Credentials => channels;
    POST "/guilds/{guild_id}/channels" Credentials => create_channel;
    POST "/guilds/{guild_id}/members" Credentials => join;
    DELETE "/guilds/{guild_id}/members/{user_id}" Credentials => remove_member;
}

/// The router of data-service. Rate limits by address work where the host puts
/// [`ClientAddr`] into requests.
pub fn router(chat: Chat, settings: Settings) -> Router {
    let callers = Arc::new(Limiter::new(settings.limits.caller, settings.limits.rate_keys));
    let app = App { chat, callers, settings: Arc::new(settings) };
    finish(routes(&app).merge(internal::routes(&app)), app)
}

fn guarded(app: &App, access: Access, route: MethodRouter<App>) -> MethodRouter<App> {
    match access {
        Access::Open => route,
        Access::Credentials => route.route_layer(from_fn_with_state(app.clone(), admit)),
        Access::Service => route.route_layer(from_fn_with_state(app.clone(), admit_service)),
    }
}

/// Who calls, and for whom.
#[derive(Clone, Copy)]
struct Caller {
    kind: Kind,
    user: Option<UserId>,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    /// By its own token.
    User,
    /// By the service token.
    Service,
    /// Without credentials, where that is believed.
    Trusted,
}

impl Caller {
    /// On whose behalf this call is made, where the body may name that user as well.
    fn acts_for(self, named: Option<UserId>) -> Result<Actor, Fault> {
        match (self.user, named) {
            (Some(user), Some(named)) if user != named => Err(another_user()),
            (user, named) => Ok(user.or(named).map_or(Actor::System, Actor::User)),
        }
    }

    /// On whose behalf, where nothing else can say so.
    fn actor(self) -> Actor {
        self.user.map_or(Actor::System, Actor::User)
    }

    /// With what rights accounts are asked for: a service has its own, whomever it acts for.
    fn of_accounts(self) -> Actor {
        match self.kind {
            Kind::User => self.actor(),
            Kind::Service | Kind::Trusted => Actor::System,
        }
    }
}

impl<S: Send + Sync> FromRequestParts<S> for Caller {
    type Rejection = Failed;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Answer<Self> {
        Ok(parts.extensions.get().copied().ok_or_else(unauthorized)?)
    }
}

fn another_user() -> Fault {
    Fault::new(Code::FORBIDDEN, "this call names two users")
}

/// Lets in whoever has good credentials, and tells the handler who it is.
async fn admit(State(app): State<App>, mut request: Request, next: Next) -> Answer<Response> {
    let caller = app.admitted(request.headers(), request.uri(), request.extensions().get()).await?;
    request.extensions_mut().insert(caller);
    Ok(next.run(request).await)
}

/// Lets in whoever has the service token.
async fn admit_service(State(app): State<App>, mut request: Request, next: Next) -> Answer<Response> {
    let caller = app.admitted(request.headers(), request.uri(), request.extensions().get()).await?;
    match caller.kind {
        Kind::Service => {}
        Kind::User => return Err(Fault::new(Code::FORBIDDEN, "only services may do that").into()),
        // What is believed elsewhere proves nothing here.
        Kind::Trusted => return Err(unauthorized().into()),
    }
    request.extensions_mut().insert(caller);
    Ok(next.run(request).await)
}

impl App {
    /// Who calls, counted against its limit; services have none.
    async fn admitted(&self, headers: &HeaderMap, uri: &Uri, addr: Option<&ClientAddr>) -> Result<Caller, Fault> {
        let caller = self.caller(headers, uri).await;
        match &caller {
            Ok(Caller { kind: Kind::Service, .. }) => {}
            Ok(Caller { kind: Kind::User, user: Some(user) }) => self.callers.count(user)?,
            Ok(_) | Err(_) => count_address(&self.callers, addr)?,
        }
        caller
    }

    async fn caller(&self, headers: &HeaderMap, uri: &Uri) -> Result<Caller, Fault> {
        let credentials = authorization(headers)?;
        let named = single(headers, &USER_ID)?.map(id::<UserId>).transpose();
        match credentials {
            Some((scheme, token)) if scheme == "bearer" => {
                let user = self.chat.verify_token(token).await?.user_id;
                if named?.is_some_and(|named| named != user) {
                    return Err(another_user());
                }
                Ok(Caller { kind: Kind::User, user: Some(user) })
            }
            Some((scheme, token)) if scheme == "service" => {
                let known = self.settings.service_token.as_ref().is_some_and(|ours| ours.is(token.as_bytes()));
                known.then_some(()).ok_or_else(unauthorized)?;
                Ok(Caller { kind: Kind::Service, user: named? })
            }
            None if self.settings.trust_user_header => {
                self.comes_from_here(headers, uri)?;
                Ok(Caller { kind: Kind::Trusted, user: named? })
            }
            _ => Err(unauthorized()),
        }
    }

    /// Whether a call without credentials may be believed: not one that a web page sent here by a name of its own (DNS
    /// rebinding), nor one from a page that is not ours.
    fn comes_from_here(&self, headers: &HeaderMap, uri: &Uri) -> Result<(), Fault> {
        let host = match single(headers, &HOST)? {
            Some(host) => host.parse::<Authority>().ok(),
            None => uri.authority().cloned(),
        };
        let named_here = host.is_some_and(|host| {
            let name = host.host().trim_start_matches('[').trim_end_matches(']');
            name.eq_ignore_ascii_case("localhost") || name.parse::<IpAddr>().is_ok()
        });
        let ours = headers.get_all(ORIGIN).iter().all(|origin| self.settings.lists_origin(origin));
        let believed = named_here && ours;
        believed.then_some(()).ok_or_else(|| Fault::new(Code::FORBIDDEN, "this host or origin is not believed"))
    }
}

async fn ready(State(app): State<App>) -> Answer<Json<serde_json::Value>> {
    health(app.chat.ready()).await
}

async fn create_user(
    State(app): State<App>,
    caller: Caller,
    Body(body): Body<CreateUserBody>,
) -> Answer<(StatusCode, Json<UserRow>)> {
    // Any hash is kept, since other services may have their own kind; only argon2id's are verified here.
    if body.password_hash.is_empty() || body.password_hash.len() > 512 {
        return Err(Fault::new(Code::INVALID, "password_hash must be 1 to 512 bytes long").into());
    }
    let new =
        NewUser { username: Username::new(&body.username)?, email: Email::new(&body.email)?, password_hash: body.password_hash };
    let user = app.chat.create_user(caller.of_accounts(), new).await?;
    Ok((StatusCode::CREATED, Json(user.into())))
}

async fn user(State(app): State<App>, caller: Caller, Path(user): Path<String>) -> Answer<Json<AccountRow>> {
    let account = app.chat.account(caller.of_accounts(), id(&user)?).await?;
    Ok(account_row(caller, account))
}

async fn user_by_email(State(app): State<App>, caller: Caller, Path(email): Path<String>) -> Answer<Json<AccountRow>> {
    let account = app.chat.account_by_email(caller.of_accounts(), &email).await?;
    Ok(account_row(caller, account))
}

/// A hash is for who proved to be a service, and for nobody who was only believed.
fn account_row(caller: Caller, account: Account) -> Json<AccountRow> {
    let password_hash = account.password_hash.filter(|_| caller.kind == Kind::Service);
    Json(AccountRow { user: account.user.into(), password_hash })
}

#[derive(Deserialize)]
struct MessagesQuery {
    limit: Option<String>,
    #[serde(rename = "pageState")]
    page_state: Option<String>,
    before: Option<String>,
    after: Option<String>,
    around: Option<String>,
}

impl MessagesQuery {
    fn range(&self, channel: ChannelId) -> Result<Range, Fault> {
        // A client that always sends pageState sends an empty one at first.
        let page_state = self.page_state.as_deref().filter(|text| !text.is_empty());
        match (page_state, &self.before, &self.after, &self.around) {
            (None, None, None, None) => Ok(Range::Newest),
            (Some(text), None, None, None) => cursor::to_range(channel, text),
            (None, Some(text), None, None) => message_id(text).map(Range::Before),
            (None, None, Some(text), None) => message_id(text).map(Range::After),
            (None, None, None, Some(text)) => message_id(text).map(Range::Around),
            _ => Err(malformed("only one of pageState, before, after and around may be given")),
        }
    }
}

fn message_id(text: &str) -> Result<MessageId, Fault> {
    let id: MessageId = id(text)?;
    id.is_ordered().then_some(id).ok_or_else(|| malformed("not a message's id: a version-1 UUID is wanted"))
}

async fn messages(
    State(app): State<App>,
    caller: Caller,
    Path(channel): Path<String>,
    Query(query): Query<MessagesQuery>,
) -> Answer<Json<MessagePage>> {
    let channel = id(&channel)?;
    let limits = app.chat.limits();
    let limit = limit(query.limit.as_deref(), limits.page, limits.page_max)?;
    let page = app.chat.messages(caller.actor(), channel, query.range(channel)?, limit).await?;
    Ok(Json(MessagePage {
        messages: page.messages.into_iter().map(Into::into).collect(),
        next_page_state: page.next.and_then(|next| cursor::of_range(channel, next)),
    }))
}

async fn create_message(
    State(app): State<App>,
    caller: Caller,
    headers: HeaderMap,
    Path(channel): Path<String>,
    Body(body): Body<CreateMessageBody>,
) -> Answer<Response> {
    let actor = caller.acts_for(body.author_id)?;
    let CreateMessageBody { content, nonce, reply_to, .. } = body;
    let message = SendMessage { channel_id: id(&channel)?, content, nonce, reply_to };
    // Nobody else may keep others from hearing of it.
    if caller.kind == Kind::Service && single(&headers, &PUBLISH)? == Some("caller") {
        let sent = app.chat.write(actor, message, single(&headers, &IDEMPOTENCY_KEY)?).await?;
        return Ok((StatusCode::CREATED, Json(SentRow::from(sent))).into_response());
    }
    let sent = app.chat.post(actor, message).await?;
    Ok((StatusCode::CREATED, Json(MessageRow::from(sent.message))).into_response())
}

#[derive(Deserialize)]
struct GuildsQuery {
    limit: Option<String>,
    cursor: Option<String>,
}

async fn guilds(State(app): State<App>, caller: Caller, Query(query): Query<GuildsQuery>) -> Answer<Response> {
    let most = app.chat.limits().guild_page_max;
    let limit = limit(query.limit.as_deref(), most, most)?;
    let after = query.cursor.as_deref().map(cursor::to_guild).transpose()?;
    let (guilds, next) = app.chat.public_guilds(caller.actor(), after, limit).await?;
    let mut response = Json(guilds.into_iter().map(GuildRow::from).collect::<Vec<_>>()).into_response();
    if let Some(next) = next.and_then(|last| HeaderValue::try_from(cursor::of_guild(last)).ok()) {
        response.headers_mut().insert("x-next-cursor", next);
    }
    Ok(response)
}

async fn create_guild(
    State(app): State<App>,
    caller: Caller,
    Body(body): Body<CreateGuildBody>,
) -> Answer<(StatusCode, Json<GuildRow>)> {
    let actor = caller.acts_for(body.creator_user_id)?;
    let guild = app.chat.create_guild(actor, &body.name, body.visibility).await?;
    Ok((StatusCode::CREATED, Json(guild.into())))
}

async fn my_guilds(State(app): State<App>, caller: Caller) -> Answer<Json<Vec<GuildRow>>> {
    let user = caller.user.ok_or_else(|| malformed("X-User-ID must say whose guilds are wanted"))?;
    let memberships = app.chat.memberships(caller.actor(), user).await?;
    Ok(Json(memberships.into_iter().map(|membership| membership.guild.into()).collect()))
}

async fn channels(State(app): State<App>, caller: Caller, Path(guild): Path<String>) -> Answer<Json<Vec<ChannelRow>>> {
    let channels = app.chat.channels(caller.actor(), id(&guild)?).await?;
    Ok(Json(channels.into_iter().map(Into::into).collect()))
}

async fn create_channel(
    State(app): State<App>,
    caller: Caller,
    Path(guild): Path<String>,
    Body(body): Body<CreateChannelBody>,
) -> Answer<(StatusCode, Json<ChannelRow>)> {
    let channel = app.chat.create_channel(caller.actor(), id(&guild)?, &body.name).await?;
    Ok((StatusCode::CREATED, Json(channel.into())))
}

async fn join(
    State(app): State<App>,
    caller: Caller,
    Path(guild): Path<String>,
    MaybeBody(body): MaybeBody<JoinBody>,
) -> Answer<(StatusCode, Json<MemberRow>)> {
    let member = app.chat.join(caller.acts_for(body.user_id)?, id(&guild)?).await?;
    Ok((StatusCode::CREATED, Json(member.into())))
}

async fn remove_member(
    State(app): State<App>,
    caller: Caller,
    Path((guild, user)): Path<(String, String)>,
) -> Answer<StatusCode> {
    app.chat.remove_member(caller.actor(), id(&guild)?, id(&user)?).await?;
    Ok(StatusCode::NO_CONTENT)
}
