//! A user's or bot's connection.

use std::{fmt, future::IntoFuture, sync::Arc, time::Duration};

use jiscord_core::{
    ChannelId, MessageId,
    frame::{Intents, MessageAck, Ready, SendMessage},
    model::User,
    text::{Content, Device, Nonce},
};
use secrecy::SecretString;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc, oneshot, watch};

use crate::{
    backoff::Backoff,
    endpoints::Endpoints,
    error::{Error, Result},
    event::{Events, Feed, Queue, ResumePoint},
    gateway::{Command, Gateway, Settings},
    http::{Answer, Http},
    outbox::{Draft, Outbox},
    resync::Reader,
    sys::{self, Instant},
};

/// The most sends that may be under way.
const SENDS: usize = 1_000;
/// From so many bytes of events on the connection is read no further.
const EVENT_BYTES: usize = 1 << 20;

/// A session at the gateway, and the HTTP API with the same token. Cheap to clone.
///
/// It comes back by itself when the connection is lost, and ends when the last clone is dropped.
#[derive(Clone)]
pub struct Client {
    inner: Arc<Inner>,
}

struct Inner {
    http: Http,
    commands: mpsc::UnboundedSender<Command>,
    /// One place for each send under way; it is what bounds `commands`.
    places: Arc<Semaphore>,
    events: Queue,
    reader: Reader,
    ready: watch::Receiver<Ready>,
    send_timeout: Duration,
}

impl Inner {
    fn place(&self) -> Result<OwnedSemaphorePermit> {
        self.places.clone().try_acquire_owned().map_err(|_| Error::Busy)
    }
}

impl fmt::Debug for Client {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Client").field("user", &self.user()).finish_non_exhaustive()
    }
}

/// How to connect. Made by [`Client::builder`].
#[derive(Clone, Debug)]
#[must_use = "it connects by `connect` or `login`"]
pub struct Builder {
    endpoints: Endpoints,
    device: Option<String>,
    intents: Option<Intents>,
    connect_timeout: Duration,
    pub(crate) send_timeout: Duration,
    pub(crate) backoff: Backoff,
    sends: usize,
    event_bytes: usize,
    resync_timeout: Duration,
    resume: Option<ResumePoint>,
}

impl Builder {
    /// Which of the user's devices this is: 1 to 64 bytes, "sdk" if never set. Of two sessions of one user and device the
    /// later lives, and the earlier ends with [`Error::Evicted`].
    pub fn device(mut self, device: impl Into<String>) -> Self {
        self.device = Some(device.into());
        self
    }

    /// What to be told; everything if never set.
    pub fn intents(mut self, intents: Intents) -> Self {
        self.intents = Some(intents);
        self
    }

    /// Goes on with a session that another run of this program had, of the same user and device
    /// ([`Events::resume_point`]): what happened since is told first. Where the gateway cannot do that, it begins with
    /// [`Event::Ready`](crate::Event::Ready), and what was missed is read.
    pub fn resume(mut self, point: ResumePoint) -> Self {
        self.resume = Some(point);
        self
    }

    /// How long an attempt to connect may take, up to READY; 30 s if never set.
    pub fn connect_timeout(mut self, timeout: Duration) -> Self {
        self.connect_timeout = timeout;
        self
    }

    /// How long a send may wait for its answer, connected or not; 30 s if never set.
    pub fn send_timeout(mut self, timeout: Duration) -> Self {
        self.send_timeout = timeout;
        self
    }

    /// How long to wait before coming back: the first time about `first`, then twice as long each time, up to `most`.
    /// 1 s and 60 s if never set.
    pub fn backoff(mut self, first: Duration, most: Duration) -> Self {
        self.backoff = Backoff { first, most };
        self
    }

    /// How many sends may be under way before [`Error::Busy`]; 1,000 if never set.
    pub fn max_sends(mut self, sends: usize) -> Self {
        self.sends = sends.clamp(1, Semaphore::MAX_PERMITS);
        self
    }

    /// How long the server may be out of reach while what was missed is read, before
    /// [`Event::Resynced`](crate::Event::Resynced) tells that it is missing; 2 minutes if never set.
    pub fn resync_timeout(mut self, timeout: Duration) -> Self {
        self.resync_timeout = timeout;
        self
    }

    /// From how many bytes of unread events on the connection is read no further ([`Client::events`]); 1 MiB if never set.
    pub fn event_buffer(mut self, bytes: usize) -> Self {
        self.event_bytes = bytes;
        self
    }

    /// The HTTP API that it will use, without a token.
    pub(crate) fn http(&self) -> Result<Http> {
        Http::new(self.endpoints.clone())
    }

    /// Logs in, then connects.
    pub async fn login(self, email: &str, password: &str) -> Result<Client> {
        let login = self.http()?.login(email, password).await?;
        self.connect(login.token).await
    }

    /// Connects, and returns when the session is ready. Tries once: [`Error::Unreachable`] if the server is not there,
    /// [`Error::Unauthorized`] if it does not want the token. Runs on in a task of the current tokio runtime.
    pub async fn connect(self, token: impl Into<String>) -> Result<Client> {
        let token: SecretString = token.into().into();
        let device = Device::new(self.device.as_deref().unwrap_or("sdk"))?;
        let http = self.http()?.with_secret(token.clone());
        let (sender, commands) = mpsc::unbounded_channel();
        let (first, connected) = oneshot::channel();
        let events = Queue::new(self.event_bytes);
        if let Some(point) = self.resume.clone() {
            events.begin_at(point);
        }
        let reader = Reader {
            http: http.clone(),
            backoff: self.backoff,
            patience: self.resync_timeout,
            messages: self.intents.is_none_or(|intents| intents.contains(Intents::MESSAGES)),
        };
        let gateway = Gateway {
            transport: http.transport().clone(),
            settings: Settings {
                gateway: http.endpoints().gateway.clone(),
                token,
                device: Some(device.into_string()),
                intents: self.intents,
                connect_timeout: self.connect_timeout,
                backoff: self.backoff,
            },
            commands,
            events: events.clone(),
            first: Some(first),
            ready: None,
            resume: self.resume,
            is_live: false,
            outbox: Outbox::default(),
        };
        sys::spawn(gateway.run());
        let ready = connected.await.unwrap_or(Err(Error::Closed))?;
        let inner = Inner {
            http,
            commands: sender,
            places: Arc::new(Semaphore::new(self.sends)),
            events,
            reader,
            ready,
            send_timeout: self.send_timeout,
        };
        Ok(Client { inner: Arc::new(inner) })
    }
}

impl Client {
    /// Connects to a server that has everything at one address, such as `http://localhost:3000`.
    pub async fn connect(base_url: &str, token: impl Into<String>) -> Result<Self> {
        Self::builder(Endpoints::at(base_url)?).connect(token).await
    }

    /// Logs in at such a server, and connects.
    pub async fn login(base_url: &str, email: &str, password: &str) -> Result<Self> {
        Self::builder(Endpoints::at(base_url)?).login(email, password).await
    }

    /// Connects with more to say about how.
    pub fn builder(endpoints: Endpoints) -> Builder {
        Builder {
            endpoints,
            device: None,
            intents: None,
            connect_timeout: Duration::from_secs(30),
            send_timeout: Duration::from_secs(30),
            backoff: Backoff { first: Duration::from_secs(1), most: Duration::from_secs(60) },
            sends: SENDS,
            event_bytes: EVENT_BYTES,
            resync_timeout: Duration::from_secs(120),
            resume: None,
        }
    }

    /// What happens, in order, from [`Client::connect`] on. One stream at a time: a new one goes on where the last one was,
    /// which ends.
    ///
    /// While 1 MiB of events wait to be taken, the connection is read no further, unless a send waits for its answer; the
    /// heartbeat goes on. Past 8 MiB, or when the server tires of waiting, the connection is made anew, and what did not fit is told
    /// then. A program that never calls this gets no events kept beyond the first
    /// 1 MiB, and none once its stream is dropped.
    pub fn events(&self) -> Events {
        Events::new(self.feed(), self.inner.reader.clone())
    }

    /// The same with the gaps left open.
    pub(crate) fn feed(&self) -> Feed {
        self.inner.events.listen()
    }

    /// Writes a message. Await it to begin; it is done when the server has stored it.
    ///
    /// Sends to one channel keep the order in which they were awaited. While there is no connection they wait, and what was
    /// cut off is sent again under the same nonce, which is stored once.
    pub fn send(&self, channel: ChannelId, content: impl Into<String>) -> Send {
        let message = SendMessage { channel_id: channel, content: content.into(), nonce: None, reply_to: None };
        self.send_message(message)
    }

    pub(crate) fn send_message(&self, message: SendMessage) -> Send {
        Send { client: self.clone(), message, timeout: self.inner.send_timeout }
    }

    /// Tells a channel that the user types. Lost where there is no connection.
    pub fn typing(&self, channel: ChannelId) -> Result<()> {
        self.inner.commands.send(Command::Typing(channel, self.inner.place()?)).map_err(|_| Error::Closed)
    }

    /// The HTTP API, with this client's token.
    pub fn http(&self) -> &Http {
        &self.inner.http
    }

    /// Whose session this is.
    pub fn user(&self) -> User {
        self.ready().user
    }

    /// What READY told last: the user, its guilds then, the session.
    pub fn ready(&self) -> Ready {
        self.inner.ready.borrow().clone()
    }

    /// Ends the session, and the event stream. A send that was not answered yet ends with [`Error::OutcomeUnknown`].
    pub async fn close(&self) {
        if self.inner.commands.send(Command::Close).is_ok() {
            self.inner.commands.closed().await;
        }
    }
}

/// A message to be written.
#[derive(Clone, Debug)]
#[must_use = "it is sent when it is awaited"]
pub struct Send {
    client: Client,
    message: SendMessage,
    timeout: Duration,
}

impl Send {
    /// Answers a message of the same channel.
    pub fn reply_to(mut self, message: MessageId) -> Self {
        self.message.reply_to = Some(message);
        self
    }

    /// Another nonce than a random one: 1 to 64 bytes. The same one within a day is the same message.
    pub fn nonce(mut self, nonce: impl Into<String>) -> Self {
        self.message.nonce = Some(nonce.into());
        self
    }

    /// How long to wait for the answer; else as the client was built.
    pub fn timeout(mut self, timeout: Duration) -> Self {
        self.timeout = timeout;
        self
    }

    fn begin(self) -> Result<oneshot::Receiver<Result<MessageAck>>> {
        let Self { client, mut message, timeout } = self;
        Content::new(&message.content)?;
        let nonce = Nonce::new(&message.nonce.unwrap_or_else(sys::nonce))?.into_string();
        message.nonce = Some(nonce.clone());
        let place = client.inner.place()?;
        let (answer, answered) = oneshot::channel();
        let draft = Draft { message, nonce, deadline: Instant::now() + timeout, answer, place };
        client.inner.commands.send(Command::Send(draft)).map_err(|_| Error::Closed)?;
        Ok(answered)
    }
}

impl IntoFuture for Send {
    type Output = Result<MessageAck>;
    type IntoFuture = Answer<MessageAck>;

    fn into_future(self) -> Self::IntoFuture {
        Box::pin(async move {
            // Kept to the end, so that the connection lives as long as somebody waits for an answer.
            let client = self.client.clone();
            let answered = self.begin()?;
            let answer = answered.await.unwrap_or(Err(Error::Closed));
            drop(client);
            answer
        })
    }
}
