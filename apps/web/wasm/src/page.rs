//! The class.

use std::{cell::RefCell, rc::Rc, str::FromStr, time::Duration};

use jiscord_client::{
    Client, Endpoints, Error, Http, View,
    core::{GuildId, frame::SendMessage, model::User},
    http::Login,
};
use js_sys::{Function, Object, Promise};
use serde::Serialize;
use wasm_bindgen::{JsValue, prelude::wasm_bindgen};
use wasm_bindgen_futures::{future_to_promise, spawn_local};

use crate::wire::{Change, GuildPage, SdkError, Timeline};

#[wasm_bindgen(typescript_custom_section)]
const IMPORTS: &str =
    r#"import type { Change, Channel, Guild, GuildPage, Message, MessageAck, Timeline, User } from "../types";"#;

/// A user at a server, and what it sees there.
///
/// `base` is the server's address, such as `location.origin`. The listener hears every change as soon as it is made, when
/// the snapshots show it already.
#[wasm_bindgen]
#[derive(Debug)]
pub struct Jiscord {
    inner: Rc<Inner>,
}

#[derive(Debug)]
struct Inner {
    endpoints: Endpoints,
    http: Http,
    listener: Function,
    /// Every page is a device of its own, so that they live beside each other.
    device: String,
    session: RefCell<Option<Session>>,
}

#[derive(Clone, Debug)]
struct Session {
    view: View,
    user: User,
}

#[wasm_bindgen]
impl Jiscord {
    /// Knows nobody at first: `login` or `refresh` begins a session.
    #[wasm_bindgen(constructor)]
    pub fn new(
        base: &str,
        #[wasm_bindgen(unchecked_param_type = "(change: Change) => void")] listener: Function,
    ) -> Result<Self, JsValue> {
        let endpoints = Endpoints::at(base).map_err(thrown)?;
        let http = Http::new(endpoints.clone()).map_err(thrown)?;
        let device = format!("web-{:08x}", (js_sys::Math::random() * f64::from(u32::MAX)) as u32);
        Ok(Self { inner: Rc::new(Inner { endpoints, http, listener, device, session: RefCell::default() }) })
    }

    /// Makes an account.
    #[wasm_bindgen(unchecked_return_type = "Promise<void>")]
    pub fn register(&self, username: String, email: String, password: String) -> Promise {
        let http = self.inner.http.clone();
        promise(async move { http.register(&username, &email, &password).await.map(drop) })
    }

    /// Begins a session, which keeps itself connected, and lets the browser remember it.
    #[wasm_bindgen(unchecked_return_type = "Promise<User>")]
    pub fn login(&self, email: String, password: String) -> Promise {
        let inner = self.inner.clone();
        promise(async move {
            let login = inner.http.login_remembered(&email, &password).await?;
            inner.begin(login)
        })
    }

    /// Begins the session that the browser remembers; null where there is none, or it is not good any more.
    #[wasm_bindgen(unchecked_return_type = "Promise<User | null>")]
    pub fn refresh(&self) -> Promise {
        let inner = self.inner.clone();
        promise(async move {
            match inner.http.refresh().await? {
                Some(login) => inner.begin(login).map(Some),
                None => Ok(None),
            }
        })
    }

    /// Ends the session, and revokes it: the browser forgets it too. Where that was not done, it can be called again.
    #[wasm_bindgen(unchecked_return_type = "Promise<void>")]
    pub fn logout(&self) -> Promise {
        let inner = self.inner.clone();
        promise(async move {
            let session = inner.session.borrow().clone();
            let Some(session) = session else { return inner.http.logout().await };
            session.view.end().await;
            match session.view.http().logout().await {
                // Revoked already.
                Ok(()) | Err(Error::Unauthorized(_)) => {
                    inner.session.take();
                    Ok(())
                }
                Err(error) => Err(error),
            }
        })
    }

    /// Whose session it is; null where there is none.
    #[wasm_bindgen(unchecked_return_type = "User | null")]
    pub fn user(&self) -> JsValue {
        to_js(&self.inner.session.borrow().as_ref().map(|session| &session.user))
    }

    /// The user's guilds, by name.
    #[wasm_bindgen(unchecked_return_type = "Guild[]")]
    pub fn guilds(&self) -> JsValue {
        to_js(&self.inner.view().map(|view| view.guilds()).unwrap_or_default())
    }

    /// A guild's channels, in the order of their creation. The first call has them loaded.
    #[wasm_bindgen(unchecked_return_type = "Channel[]")]
    pub fn channels(&self, #[wasm_bindgen(js_name = guildId)] guild_id: &str) -> JsValue {
        let channels = id(guild_id).and_then(|guild| self.inner.view().map(|view| view.channels(guild)).map_err(SdkError::from));
        to_js(&channels.unwrap_or_default())
    }

    /// What is loaded of a channel.
    #[wasm_bindgen(unchecked_return_type = "Timeline")]
    pub fn timeline(&self, #[wasm_bindgen(js_name = channelId)] channel_id: &str) -> JsValue {
        let timeline =
            id(channel_id).and_then(|channel| self.inner.view().map(|view| view.timeline(channel)).map_err(SdkError::from));
        to_js(&Timeline::from(timeline.unwrap_or_default()))
    }

    /// Loads a channel's newest messages, and keeps them up to date until it is closed.
    #[wasm_bindgen(unchecked_return_type = "Promise<void>")]
    pub fn open(&self, #[wasm_bindgen(js_name = channelId)] channel_id: &str) -> Promise {
        let (view, channel) = (self.inner.view(), id(channel_id));
        promise(async move { Ok::<_, SdkError>(view?.open(channel?).await?) })
    }

    /// Lets go of a channel's messages.
    pub fn close(&self, #[wasm_bindgen(js_name = channelId)] channel_id: &str) {
        if let (Ok(view), Ok(channel)) = (self.inner.view(), id(channel_id)) {
            view.close(channel);
        }
    }

    /// Loads one page of older messages.
    #[wasm_bindgen(js_name = loadOlder, unchecked_return_type = "Promise<void>")]
    pub fn load_older(&self, #[wasm_bindgen(js_name = channelId)] channel_id: &str) -> Promise {
        let (view, channel) = (self.inner.view(), id(channel_id));
        promise(async move { Ok::<_, SdkError>(view?.load_older(channel?).await?) })
    }

    /// Writes a message. Done when it is stored; the same nonce is stored once.
    #[wasm_bindgen(unchecked_return_type = "Promise<MessageAck>")]
    pub fn send(
        &self,
        #[wasm_bindgen(js_name = channelId)] channel_id: &str,
        content: String,
        nonce: String,
        #[wasm_bindgen(js_name = replyTo)] reply_to: Option<String>,
    ) -> Promise {
        let (view, channel, reply_to) = (self.inner.view(), id(channel_id), reply_to.as_deref().map(id).transpose());
        promise(async move {
            let message = SendMessage { channel_id: channel?, content, nonce: Some(nonce), reply_to: reply_to? };
            Ok::<_, SdkError>(view?.send(message).await?)
        })
    }

    /// Tells a channel that the user types.
    pub fn typing(&self, #[wasm_bindgen(js_name = channelId)] channel_id: &str) {
        if let (Ok(view), Ok(channel)) = (self.inner.view(), id(channel_id)) {
            // It may be lost.
            let _ = view.typing(channel);
        }
    }

    /// Guilds that anybody may join, page by page.
    #[wasm_bindgen(unchecked_return_type = "Promise<GuildPage>")]
    pub fn discover(&self, cursor: Option<String>) -> Promise {
        let view = self.inner.view();
        promise(async move {
            let page = view?.http().discover();
            let page = cursor.into_iter().fold(page, |page, cursor| page.cursor(cursor));
            page.await.map(GuildPage::from)
        })
    }

    /// Creates a guild.
    #[wasm_bindgen(js_name = createGuild, unchecked_return_type = "Promise<Guild>")]
    pub fn create_guild(&self, name: String) -> Promise {
        let view = self.inner.view();
        promise(async move { view?.create_guild(name).await })
    }

    /// Joins a guild.
    #[wasm_bindgen(unchecked_return_type = "Promise<void>")]
    pub fn join(&self, #[wasm_bindgen(js_name = guildId)] guild_id: &str) -> Promise {
        let (view, guild) = (self.inner.view(), id::<GuildId>(guild_id));
        promise(async move { Ok::<_, SdkError>(view?.join(guild?).await?) })
    }

    /// Leaves a guild.
    #[wasm_bindgen(unchecked_return_type = "Promise<void>")]
    pub fn leave(&self, #[wasm_bindgen(js_name = guildId)] guild_id: &str) -> Promise {
        let (view, guild) = (self.inner.view(), id::<GuildId>(guild_id));
        promise(async move { Ok::<_, SdkError>(view?.leave(guild?).await?) })
    }

    /// Creates a channel in a guild.
    #[wasm_bindgen(js_name = createChannel, unchecked_return_type = "Promise<Channel>")]
    pub fn create_channel(&self, #[wasm_bindgen(js_name = guildId)] guild_id: &str, name: String) -> Promise {
        let (view, guild) = (self.inner.view(), id::<GuildId>(guild_id));
        promise(async move { Ok::<_, SdkError>(view?.create_channel(guild?, name).await?) })
    }

    /// What a user is called.
    #[wasm_bindgen(unchecked_return_type = "Promise<string>")]
    pub fn username(&self, #[wasm_bindgen(js_name = userId)] user_id: &str) -> Promise {
        let (view, user) = (self.inner.view(), id(user_id));
        promise(async move { Ok::<_, SdkError>(view?.username(user?).await?) })
    }
}

impl Inner {
    fn view(&self) -> Result<View, Error> {
        self.session.borrow().as_ref().map(|session| session.view.clone()).ok_or(Error::Closed)
    }

    /// Begins a session, and ends the one before.
    fn begin(&self, login: Login) -> Result<User, Error> {
        // Somebody looks at it and waits.
        let (first, most) = (Duration::from_secs(1), Duration::from_secs(15));
        let builder = Client::builder(self.endpoints.clone()).device(&*self.device).backoff(first, most);
        let listener = self.listener.clone();
        let tell = move |change| {
            let Some(change) = Change::of(change) else { return };
            if let Err(error) = listener.call1(&JsValue::NULL, &to_js(&change)) {
                web_sys::console::error_1(&error);
            }
        };
        let view = View::begin(builder, login.token, Box::new(tell))?;
        let session = Session { view, user: login.user.clone() };
        if let Some(before) = self.session.replace(Some(session)) {
            spawn_local(async move { before.view.end().await });
        }
        Ok(login.user)
    }
}

fn id<T: FromStr<Err: std::error::Error>>(text: &str) -> Result<T, SdkError> {
    text.parse().map_err(|error| SdkError::malformed(&error))
}

/// As JSON, so that the page gets what goes over the wire.
fn to_js(value: &impl Serialize) -> JsValue {
    // Our own types with string keys: there is always a text, and it is always JSON.
    serde_json::to_string(value).ok().and_then(|text| js_sys::JSON::parse(&text).ok()).unwrap_or(JsValue::NULL)
}

fn thrown(error: impl Into<SdkError>) -> JsValue {
    let error = error.into();
    let thrown = js_sys::Error::new(&error.message);
    Object::assign(&thrown, &Object::from(to_js(&error)));
    thrown.into()
}

fn promise<T: Serialize, E: Into<SdkError>>(work: impl Future<Output = Result<T, E>> + 'static) -> Promise {
    future_to_promise(async move {
        match work.await {
            Ok(value) => Ok(to_js(&value)),
            Err(error) => Err(thrown(error)),
        }
    })
}
