//! The HTTP APIs of auth-service and data-service, typed.

use std::{
    fmt,
    future::{Future, IntoFuture},
    pin::Pin,
    sync::Arc,
    time::Duration,
};

use http::{Method, StatusCode};
use jiscord_core::{
    ChannelId, Code, GuildId, MessageId, UserId,
    http::{
        ChannelRow, CreateChannelBody, CreateGuildBody, CreateMessageBody, GuildRow, JoinBody, LoggedIn, LoginBody, MemberRow,
        MessagePage, MessageRow, RegisterBody, Registered, UserRow,
    },
    model::{Channel, Guild, Member, Message, User, Visibility},
    text::{Content, Nonce},
};
use secrecy::SecretString;
use serde::{Deserialize, Serialize, de::DeserializeOwned};

use crate::{
    endpoints::{Endpoints, under},
    error::{Error, Refusal, Result},
    sys::{self, Failure, Reply, Request, Transport, Url},
};

/// The most that is read of an answer. A page of 100 of the longest messages is far below.
const MAX_BODY: usize = 8 << 20;

/// What an awaited builder turns into. In a browser it is not `Send`.
#[cfg(not(target_family = "wasm"))]
pub type Answer<T> = Pin<Box<dyn Future<Output = Result<T>> + Send>>;
/// What an awaited builder turns into. On other platforms it is `Send`.
#[cfg(target_family = "wasm")]
pub type Answer<T> = Pin<Box<dyn Future<Output = Result<T>>>>;

/// The HTTP API. Cheap to clone: connections are shared.
///
/// Where the server says 429, a call waits as long as it was told to and asks once more, if that fits into its time.
#[derive(Clone)]
pub struct Http {
    inner: Arc<Inner>,
}

#[derive(Clone)]
struct Inner {
    transport: Transport,
    endpoints: Endpoints,
    token: Option<SecretString>,
    timeout: Duration,
}

impl fmt::Debug for Http {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Http").field("endpoints", &self.inner.endpoints).finish_non_exhaustive()
    }
}

/// A login's result.
#[derive(Clone)]
#[non_exhaustive]
pub struct Login {
    /// Good for seven days. A secret.
    pub token: String,
    /// Whose it is.
    pub user: User,
}

impl fmt::Debug for Login {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Login").field("user", &self.user).finish_non_exhaustive()
    }
}

impl From<LoggedIn> for Login {
    fn from(answer: LoggedIn) -> Self {
        Self { token: answer.token, user: answer.user.into() }
    }
}

/// Some of a list, and how to read on.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Page<T> {
    /// The items, in the list's order.
    pub items: Vec<T>,
    /// Give it to the same call to get the next page; `None` on the last one.
    pub next: Option<String>,
}

impl Http {
    /// Speaks to these services, at first without credentials. Fails where TLS cannot be set up.
    pub fn new(endpoints: Endpoints) -> Result<Self> {
        let transport = Transport::new()?;
        Ok(Self { inner: Arc::new(Inner { transport, endpoints, token: None, timeout: Duration::from_secs(30) }) })
    }

    /// The same with a user's token.
    #[must_use]
    pub fn with_token(&self, token: impl Into<String>) -> Self {
        self.with_secret(token.into().into())
    }

    pub(crate) fn with_secret(&self, token: SecretString) -> Self {
        self.with(|inner| inner.token = Some(token))
    }

    /// The same with another bound for each call; 30 s if never set.
    #[must_use]
    pub fn with_timeout(&self, timeout: Duration) -> Self {
        self.with(|inner| inner.timeout = timeout)
    }

    fn with(&self, change: impl FnOnce(&mut Inner)) -> Self {
        let mut inner = Inner::clone(&self.inner);
        change(&mut inner);
        Self { inner: Arc::new(inner) }
    }

    pub(crate) fn transport(&self) -> &Transport {
        &self.inner.transport
    }

    pub(crate) fn endpoints(&self) -> &Endpoints {
        &self.inner.endpoints
    }

    /// Makes an account. [`Code::EMAIL_IN_USE`] if the address has one.
    pub async fn register(&self, username: &str, email: &str, password: &str) -> Result<Registered> {
        let body = RegisterBody { username: username.into(), email: email.into(), password: password.into() };
        self.auth(Method::POST, "/register").json(&body).write().await
    }

    /// Gets a token. [`Error::Unauthorized`] for an unknown address as for a wrong password.
    pub async fn login(&self, email: &str, password: &str) -> Result<Login> {
        let body = LoginBody { email: email.into(), password: password.into() };
        // Asking twice does no harm, so that this is a read to the way failures are told.
        self.auth(Method::POST, "/login").json(&body).read::<LoggedIn>().await.map(Login::from)
    }

    /// The same, and the server gives the browser a cookie that [`Http::refresh`] needs.
    #[cfg(target_family = "wasm")]
    pub async fn login_remembered(&self, email: &str, password: &str) -> Result<Login> {
        #[derive(Serialize)]
        struct Body<'a> {
            email: &'a str,
            password: &'a str,
            remember: bool,
        }

        self.auth(Method::POST, "/login")
            .json(&Body { email, password, remember: true })
            .read::<LoggedIn>()
            .await
            .map(Login::from)
    }

    /// Gets a token by the browser's cookie. `None` if there is no cookie, or none that is good.
    #[cfg(target_family = "wasm")]
    pub async fn refresh(&self) -> Result<Option<Login>> {
        match self.auth(Method::POST, "/refresh").read::<LoggedIn>().await {
            Ok(answer) => Ok(Some(answer.into())),
            Err(Error::Unauthorized(_)) => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Revokes the token, and the browser's cookie where there is one. Sessions that began with it end.
    pub async fn logout(&self) -> Result<()> {
        self.auth(Method::POST, "/logout").write_only().await
    }

    /// Whose the token is.
    pub async fn me(&self) -> Result<User> {
        self.auth(Method::GET, "/me").read::<UserRow>().await.map(Into::into)
    }

    /// A user, by id.
    pub async fn user(&self, user: UserId) -> Result<User> {
        self.data(Method::GET, &format!("/users/{user}")).read::<UserRow>().await.map(Into::into)
    }

    /// The guilds that the user is in.
    pub async fn guilds(&self) -> Result<Vec<Guild>> {
        self.data(Method::GET, "/guilds/me").read::<Vec<GuildRow>>().await.map(models)
    }

    /// Guilds that anybody may join. Await it for a page.
    pub fn discover(&self) -> Discover {
        Discover { http: self.clone(), limit: None, cursor: None }
    }

    /// Creates a guild, whose owner and first member is the user. Await it to begin.
    pub fn create_guild(&self, name: impl Into<String>) -> CreateGuild {
        CreateGuild { http: self.clone(), body: CreateGuildBody { name: name.into(), ..Default::default() } }
    }

    /// Joins a guild. Joining once more changes nothing.
    pub async fn join(&self, guild: GuildId) -> Result<Member> {
        let request = self.data(Method::POST, &format!("/guilds/{guild}/members")).json(&JoinBody::default());
        request.write::<MemberRow>().await.map(Into::into)
    }

    /// Leaves a guild.
    pub async fn leave(&self, guild: GuildId) -> Result<()> {
        let me = self.me().await?.user_id;
        self.remove_member(guild, me).await
    }

    /// Removes a member from a guild, or leaves it if that is the user itself.
    pub async fn remove_member(&self, guild: GuildId, user: UserId) -> Result<()> {
        self.data(Method::DELETE, &format!("/guilds/{guild}/members/{user}")).write_only().await
    }

    /// The channels of a guild that the user may see.
    pub async fn channels(&self, guild: GuildId) -> Result<Vec<Channel>> {
        self.data(Method::GET, &format!("/guilds/{guild}/channels")).read::<Vec<ChannelRow>>().await.map(models)
    }

    /// Creates a channel in a guild.
    pub async fn create_channel(&self, guild: GuildId, name: impl Into<String>) -> Result<Channel> {
        let body = CreateChannelBody { name: name.into() };
        let request = self.data(Method::POST, &format!("/guilds/{guild}/channels")).json(&body);
        request.write::<ChannelRow>().await.map(Into::into)
    }

    /// A channel's messages, newest first. Await it for a page.
    pub fn messages(&self, channel: ChannelId) -> Messages {
        Messages { http: self.clone(), channel, limit: None, place: None }
    }

    /// Writes a message over HTTP, under a nonce. Bots with a connection use [`Client::send`](crate::Client::send), which
    /// keeps the order and outlives a lost connection. Await it to begin.
    pub fn send(&self, channel: ChannelId, content: impl Into<String>) -> CreateMessage {
        let body = CreateMessageBody { content: content.into(), ..Default::default() };
        CreateMessage { http: self.clone(), channel, body }
    }

    fn auth(&self, method: Method, path: &str) -> Call<'_> {
        self.call(method, under(&self.inner.endpoints.auth, path))
    }

    fn data(&self, method: Method, path: &str) -> Call<'_> {
        self.call(method, under(&self.inner.endpoints.data, path))
    }

    fn call(&self, method: Method, url: Url) -> Call<'_> {
        let Inner { token, timeout, .. } = &*self.inner;
        let request = Request { method, url, token: token.clone(), body: None, timeout: *timeout, max_body: MAX_BODY };
        Call { http: self, request }
    }
}

/// A page of guilds that anybody may join.
#[derive(Clone, Debug)]
#[must_use = "it asks when it is awaited"]
pub struct Discover {
    http: Http,
    limit: Option<u16>,
    cursor: Option<String>,
}

impl Discover {
    /// At most so many, up to 200.
    pub fn limit(mut self, limit: u16) -> Self {
        self.limit = Some(limit);
        self
    }

    /// Reads on: [`Page::next`] of the page before.
    pub fn cursor(mut self, cursor: impl Into<String>) -> Self {
        self.cursor = Some(cursor.into());
        self
    }
}

impl IntoFuture for Discover {
    type Output = Result<Page<Guild>>;
    type IntoFuture = Answer<Page<Guild>>;

    fn into_future(self) -> Self::IntoFuture {
        Box::pin(async move {
            let limit = self.limit.map(|limit| limit.to_string());
            let call = self.http.data(Method::GET, "/guilds").query("limit", limit).query("cursor", self.cursor);
            let reply = call.go(false).await?;
            let next = reply.headers.get("x-next-cursor");
            Ok(Page { items: models(body::<Vec<GuildRow>>(reply)?), next })
        })
    }
}

/// Creates a guild.
#[derive(Clone, Debug)]
#[must_use = "it asks when it is awaited"]
pub struct CreateGuild {
    http: Http,
    body: CreateGuildBody,
}

impl CreateGuild {
    /// Who may find and join it; as the server is configured if never set.
    pub fn visibility(mut self, visibility: Visibility) -> Self {
        self.body.visibility = Some(visibility);
        self
    }
}

impl IntoFuture for CreateGuild {
    type Output = Result<Guild>;
    type IntoFuture = Answer<Guild>;

    fn into_future(self) -> Self::IntoFuture {
        Box::pin(
            async move { self.http.data(Method::POST, "/guilds").json(&self.body).write::<GuildRow>().await.map(Into::into) },
        )
    }
}

/// A page of a channel's messages, newest first.
#[derive(Clone, Debug)]
#[must_use = "it asks when it is awaited"]
pub struct Messages {
    http: Http,
    channel: ChannelId,
    limit: Option<u16>,
    /// Where the page lies: the parameter and its value. There is one at most.
    place: Option<(&'static str, String)>,
}

impl Messages {
    /// At most so many, up to 100; 50 if never set.
    pub fn limit(mut self, limit: u16) -> Self {
        self.limit = Some(limit);
        self
    }

    /// Those right before this one. Takes the place of `after`, `around` and `page_state`, as each of them does.
    pub fn before(self, message: MessageId) -> Self {
        self.at("before", message.to_string())
    }

    /// Those right after this one, newest first too; [`Page::next`] then reads on towards now.
    pub fn after(self, message: MessageId) -> Self {
        self.at("after", message.to_string())
    }

    /// Those on both sides of this one, and itself.
    pub fn around(self, message: MessageId) -> Self {
        self.at("around", message.to_string())
    }

    /// Reads on: [`Page::next`] of the page before.
    pub fn page_state(self, state: impl Into<String>) -> Self {
        self.at("pageState", state.into())
    }

    fn at(mut self, parameter: &'static str, value: String) -> Self {
        self.place = Some((parameter, value));
        self
    }
}

impl IntoFuture for Messages {
    type Output = Result<Page<Message>>;
    type IntoFuture = Answer<Page<Message>>;

    fn into_future(self) -> Self::IntoFuture {
        Box::pin(async move {
            let path = format!("/channels/{}/messages", self.channel);
            let mut call = self.http.data(Method::GET, &path).query("limit", self.limit.map(|limit| limit.to_string()));
            if let Some((parameter, value)) = self.place {
                call = call.query(parameter, Some(value));
            }
            let page: MessagePage = call.read().await?;
            Ok(Page { items: models(page.messages), next: page.next_page_state })
        })
    }
}

/// Writes a message over HTTP.
#[derive(Clone, Debug)]
#[must_use = "it asks when it is awaited"]
pub struct CreateMessage {
    http: Http,
    channel: ChannelId,
    body: CreateMessageBody,
}

impl CreateMessage {
    /// Answers a message of the same channel.
    pub fn reply_to(mut self, message: MessageId) -> Self {
        self.body.reply_to = Some(message);
        self
    }

    /// Another nonce than a random one: 1 to 64 bytes. The same one within a day is the same message.
    pub fn nonce(mut self, nonce: impl Into<String>) -> Self {
        self.body.nonce = Some(nonce.into());
        self
    }
}

impl IntoFuture for CreateMessage {
    type Output = Result<Message>;
    type IntoFuture = Answer<Message>;

    fn into_future(mut self) -> Self::IntoFuture {
        Box::pin(async move {
            Content::new(&self.body.content)?;
            let nonce = Nonce::new(&self.body.nonce.take().unwrap_or_else(sys::nonce))?.into_string();
            self.body.nonce = Some(nonce.clone());
            let path = format!("/channels/{}/messages", self.channel);
            let result = self.http.data(Method::POST, &path).json(&self.body).write::<MessageRow>().await;
            match result {
                Err(Error::OutcomeUnknown { .. }) => Err(Error::OutcomeUnknown { nonce: Some(nonce) }),
                result => result.map(Into::into),
            }
        })
    }
}

fn models<R, M: From<R>>(rows: Vec<R>) -> Vec<M> {
    rows.into_iter().map(Into::into).collect()
}

/// One call on its way.
struct Call<'a> {
    http: &'a Http,
    request: Request,
}

impl Call<'_> {
    fn json(mut self, body: &impl Serialize) -> Self {
        // Our own types with string keys: serde_json has no reason to refuse one.
        self.request.body = Some(serde_json::to_vec(body).unwrap_or_default());
        self
    }

    fn query(mut self, parameter: &str, value: Option<String>) -> Self {
        if let Some(value) = value {
            sys::add_query(&mut self.request.url, parameter, &value);
        }
        self
    }

    /// For what changes nothing: if it fails, nothing was done.
    async fn read<T: DeserializeOwned>(self) -> Result<T> {
        body(self.go(false).await?)
    }

    /// For what changes something: if the answer is lost, nobody knows.
    async fn write<T: DeserializeOwned>(self) -> Result<T> {
        body(self.go(true).await?).map_err(|error| match error {
            Error::Unreachable(_) => Error::OutcomeUnknown { nonce: None },
            error => error,
        })
    }

    async fn write_only(self) -> Result<()> {
        self.go(true).await.map(drop)
    }

    /// The answer, if it is a success.
    async fn go(self, changes: bool) -> Result<Reply> {
        let Self { http, request } = self;
        let timeout = request.timeout;
        let send = async |request: Request| {
            http.transport().call(request).await.map_err(|failure| match failure {
                Failure::Lost(_) if changes => Error::OutcomeUnknown { nonce: None },
                Failure::Lost(why) | Failure::NotSent(why) => Error::Unreachable(why),
            })
        };
        let mut reply = send(request.clone()).await?;
        let wait = retry_after(&reply).filter(|wait| *wait < timeout);
        if let (StatusCode::TOO_MANY_REQUESTS, Some(wait)) = (reply.status, wait) {
            tracing::debug!(?wait, "told to wait");
            sys::sleep(wait).await;
            reply = send(request).await?;
        }
        if reply.status.is_success() { Ok(reply) } else { Err(refusal(reply, changes)) }
    }
}

fn retry_after(reply: &Reply) -> Option<Duration> {
    Some(Duration::from_secs(reply.headers.get("retry-after")?.parse().ok()?))
}

fn body<T: DeserializeOwned>(reply: Reply) -> Result<T> {
    serde_json::from_slice(&reply.body?).map_err(|error| Error::Protocol(error.into()))
}

/// What a server's no means. The body may be another program's, such as a proxy's page.
fn refusal(reply: Reply, changes: bool) -> Error {
    #[derive(Deserialize)]
    struct Body {
        error: String,
        code: Option<Code>,
    }

    let (status, wait) = (reply.status, retry_after(&reply));
    let body = reply.body.ok().and_then(|bytes| serde_json::from_slice::<Body>(&bytes).ok());
    let (message, code) = match body {
        Some(body) => (body.error, body.code),
        None => (format!("the server answered {status}"), None),
    };
    let code = code.unwrap_or_else(|| match status {
        StatusCode::UNAUTHORIZED => Code::UNAUTHORIZED,
        StatusCode::FORBIDDEN => Code::FORBIDDEN,
        StatusCode::NOT_FOUND => Code::NOT_FOUND,
        StatusCode::CONFLICT => Code::CONFLICT,
        StatusCode::TOO_MANY_REQUESTS => Code::RATE_LIMITED,
        StatusCode::SERVICE_UNAVAILABLE => Code::UNAVAILABLE,
        // A proxy that heard no answer: what is behind it may have done it.
        StatusCode::BAD_GATEWAY | StatusCode::GATEWAY_TIMEOUT if changes => Code::OUTCOME_UNKNOWN,
        StatusCode::BAD_GATEWAY | StatusCode::GATEWAY_TIMEOUT => Code::UNAVAILABLE,
        status if status.is_client_error() => Code::MALFORMED,
        _ => Code::INTERNAL,
    });
    if code == Code::UNAUTHORIZED {
        return Error::Unauthorized(message);
    }
    if code == Code::OUTCOME_UNKNOWN && changes {
        return Error::OutcomeUnknown { nonce: None };
    }
    Error::Refused(Refusal::new(code, message, wait))
}
