//! A session and what it shows, kept up to date: one task that reads what is asked for, and takes in what happens.
//!
//! ```text
//! connect ──► READY ──► read what is in use ──► live ──► lost ──► READY ──► read what was missed ──► live …
//!                             RESYNC ──────────────┘
//! ```
//!
//! All changes are made by the task, and told as soon as they are made.

use std::{
    collections::{HashMap, VecDeque},
    fmt,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use futures_util::{StreamExt, stream::FuturesUnordered};
use jiscord_core::{
    ChannelId, GuildId, MessageId, UserId,
    frame::{MessageAck, SendMessage},
    model::{Channel, Guild, Message, User},
};
use secrecy::{ExposeSecret, SecretString};
use tokio::{
    select,
    sync::{mpsc, oneshot, watch},
};

use crate::{
    cache::{Cache, Change, Connection},
    client::{Builder, Client},
    error::{Error, Refusal, Result},
    event::{Event, Feed, Told},
    given,
    http::{Http, Page},
    resync::Gap,
    sys::{self, Instant},
    timeline::Timeline,
};

/// If more pages than this were missed, the channel is shown from its newest page on.
const PAGES: usize = 10;
/// The most messages of a page.
const PAGE: u16 = 100;
/// How many reads are under way at a time.
const READS: usize = 4;

/// Hears each change as soon as it is made. It is called by the session's task, and should not take long.
#[cfg(not(target_family = "wasm"))]
pub type Listener = Box<dyn FnMut(Change) + Send>;
/// Hears each change as soon as it is made. On other platforms it is `Send`.
#[cfg(target_family = "wasm")]
pub type Listener = Box<dyn FnMut(Change)>;

/// What a user sees: guilds, channels, and the messages of open channels, kept up to date. Cheap to clone.
///
/// It connects, and comes back, by itself, also when the first attempt fails. What was missed meanwhile is read again, so that
/// an open channel's messages are whole and in order: each once, whatever was lost. It ends when the last clone is dropped,
/// or when the server does not want the session any more, which [`Connection::Ended`] tells.
///
/// Within the listener, and wherever nothing else runs meanwhile, [`View::timeline`] shows what the changes so far add up to.
#[derive(Clone)]
pub struct View {
    inner: Arc<Inner>,
}

struct Inner {
    http: Http,
    shared: Arc<Shared>,
    commands: mpsc::UnboundedSender<Command>,
    client: watch::Receiver<Option<Client>>,
    send_timeout: Duration,
}

#[derive(Default)]
struct Shared {
    cache: Mutex<Cache>,
}

impl Shared {
    fn cache(&self) -> MutexGuard<'_, Cache> {
        // No code of others runs under the lock, and each step leaves a whole state.
        self.cache.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Who waits for something to be done.
type Waiting<T = ()> = oneshot::Sender<Result<T>>;

enum Command {
    Open(ChannelId, Waiting),
    Close(ChannelId),
    Older(ChannelId, Waiting),
    Guilds(Waiting),
    Channels(GuildId),
    Created(Guild, Waiting),
    Left(GuildId, Waiting),
    ChannelCreated(Channel, Waiting),
    Name(UserId, Waiting<String>),
    End(oneshot::Sender<()>),
}

impl fmt::Debug for View {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("View").finish_non_exhaustive()
    }
}

impl View {
    /// Begins a session, and returns at once. Runs on in a task of the current tokio runtime.
    ///
    /// Fails only where the builder's settings are no good, or TLS cannot be set up.
    pub fn begin(builder: Builder, token: impl Into<String>, listener: Listener) -> Result<Self> {
        let token: SecretString = token.into().into();
        let http = builder.http()?.with_secret(token.clone());
        let shared = Arc::<Shared>::default();
        let (commands, asked) = mpsc::unbounded_channel();
        let (connected, client) = watch::channel(None);
        let send_timeout = builder.send_timeout;
        let driver = Driver {
            builder,
            token,
            http: http.clone(),
            shared: shared.clone(),
            listener,
            asked,
            connected,
            is_live: false,
            is_stale: false,
            waits_until: None,
            queue: VecDeque::new(),
            reads: FuturesUnordered::new(),
            running: Vec::new(),
            last_number: 0,
            others: FuturesUnordered::new(),
            guilds: Vec::new(),
            guilds_reading: Vec::new(),
            opening: HashMap::new(),
            older: HashMap::new(),
            names: HashMap::new(),
        };
        sys::spawn(driver.run());
        Ok(Self { inner: Arc::new(Inner { http, shared, commands, client, send_timeout }) })
    }

    /// Whose session it is; `None` before the first [`Connection::Ready`].
    pub fn user(&self) -> Option<User> {
        self.inner.client.borrow().as_ref().map(Client::user)
    }

    /// The user's guilds, by name. Empty before the first [`Connection::Ready`].
    pub fn guilds(&self) -> Vec<Guild> {
        self.inner.shared.cache().guilds()
    }

    /// A guild's channels, in the order of their creation. The first call has them loaded, which [`Change::Channels`] tells.
    pub fn channels(&self, guild: GuildId) -> Vec<Channel> {
        let known = self.inner.shared.cache().channels(guild);
        known.unwrap_or_else(|| {
            // Once the session is over nothing is loaded.
            let _ = self.inner.commands.send(Command::Channels(guild));
            Vec::new()
        })
    }

    /// What is loaded of an open channel.
    pub fn timeline(&self, channel: ChannelId) -> Timeline {
        self.inner.shared.cache().timeline(channel).cloned().unwrap_or_default()
    }

    /// Loads a channel's newest messages, and keeps them up to date until [`View::close`]. Done when they are loaded, however
    /// long the server is away. For an open channel it does nothing.
    pub async fn open(&self, channel: ChannelId) -> Result<()> {
        self.ask(|waiting| Command::Open(channel, waiting)).await
    }

    /// Lets go of a channel's messages.
    pub fn close(&self, channel: ChannelId) {
        // Once the session is over nothing is kept up to date.
        let _ = self.inner.commands.send(Command::Close(channel));
    }

    /// Loads some more messages of an open channel, older than all there are. Done at once where there are none.
    pub async fn load_older(&self, channel: ChannelId) -> Result<()> {
        self.ask(|waiting| Command::Older(channel, waiting)).await
    }

    /// Writes a message, as [`Client::send`] does; also before the first [`Connection::Ready`].
    pub async fn send(&self, message: SendMessage) -> Result<MessageAck> {
        let began = Instant::now();
        let patience = self.inner.send_timeout;
        let client = sys::timeout(patience, self.client()).await.map_err(|_| Error::Unreachable("not sent in time".into()))??;
        client.send_message(message).timeout(patience.saturating_sub(began.elapsed())).await
    }

    /// Tells a channel that the user types. Lost where there is no connection.
    pub fn typing(&self, channel: ChannelId) -> Result<()> {
        match &*self.inner.client.borrow() {
            Some(client) => client.typing(channel),
            None => Ok(()),
        }
    }

    /// What a user is called. Asked of the server where it is not known.
    pub async fn username(&self, user: UserId) -> Result<String> {
        if let Some(name) = self.inner.shared.cache().name(user) {
            return Ok(name.to_owned());
        }
        self.ask(|waiting| Command::Name(user, waiting)).await
    }

    /// Creates a guild. It is among [`View::guilds`] when this is done.
    pub async fn create_guild(&self, name: impl Into<String>) -> Result<Guild> {
        let guild = self.inner.http.create_guild(name).await?;
        self.show(|waiting| Command::Created(guild.clone(), waiting)).await;
        Ok(guild)
    }

    /// Joins a guild. It is among [`View::guilds`] when this is done.
    pub async fn join(&self, guild: GuildId) -> Result<()> {
        self.inner.http.join(guild).await?;
        self.ask(Command::Guilds).await
    }

    /// Leaves a guild. It is not among [`View::guilds`] any more when this is done.
    pub async fn leave(&self, guild: GuildId) -> Result<()> {
        match self.user() {
            Some(me) => self.inner.http.remove_member(guild, me.user_id).await?,
            None => self.inner.http.leave(guild).await?,
        }
        self.show(|waiting| Command::Left(guild, waiting)).await;
        Ok(())
    }

    /// Creates a channel in a guild. It is among [`View::channels`] when this is done, if they were loaded.
    pub async fn create_channel(&self, guild: GuildId, name: impl Into<String>) -> Result<Channel> {
        let channel = self.inner.http.create_channel(guild, name).await?;
        self.show(|waiting| Command::ChannelCreated(channel.clone(), waiting)).await;
        Ok(channel)
    }

    /// The HTTP API, with the session's token.
    pub fn http(&self) -> &Http {
        &self.inner.http
    }

    /// Ends the session.
    pub async fn end(&self) {
        let (done, ended) = oneshot::channel();
        if self.inner.commands.send(Command::End(done)).is_ok() {
            // Dropped unanswered where it has just ended by itself.
            let _ = ended.await;
        }
    }

    async fn client(&self) -> Result<Client> {
        let mut client = self.inner.client.clone();
        let found = client.wait_for(Option::is_some).await.map_err(|_| Error::Closed)?;
        found.clone().ok_or(Error::Closed)
    }

    /// Where the session is over, nothing is shown.
    async fn show(&self, command: impl FnOnce(Waiting) -> Command) {
        let _ = self.ask(command).await;
    }

    async fn ask<T>(&self, command: impl FnOnce(Waiting<T>) -> Command) -> Result<T> {
        let (waiting, answer) = oneshot::channel();
        self.inner.commands.send(command(waiting)).map_err(|_| Error::Closed)?;
        answer.await.unwrap_or(Err(Error::Closed))
    }
}

/// Something to read.
#[derive(Clone, Copy, PartialEq)]
enum Read {
    Guilds,
    Channels(GuildId),
    /// A channel that is open.
    Messages(ChannelId),
}

/// What came of a read.
enum Found {
    Guilds(Vec<Guild>),
    Channels(Vec<Channel>),
    Newest(Page<Message>),
    Missed(Vec<Message>),
}

/// What came of a question beside them.
enum Other {
    Older(ChannelId, MessageId, Result<Page<Message>>),
    Name(UserId, Result<User>),
}

/// The task.
struct Driver {
    builder: Builder,
    token: SecretString,
    http: Http,
    shared: Arc<Shared>,
    listener: Listener,
    asked: mpsc::UnboundedReceiver<Command>,
    connected: watch::Sender<Option<Client>>,
    /// The session is ready. What is read before would be stale at once.
    is_live: bool,
    /// A session that is about to go on has told that what is known may be stale.
    is_stale: bool,
    /// So many others are to read what is stale that this one waits until then.
    waits_until: Option<Instant>,
    queue: VecDeque<Read>,
    reads: FuturesUnordered<sys::Work<(u64, Result<Found>)>>,
    /// What is being read, and under which number. What came of a number that is not here any more is too old.
    running: Vec<(u64, Read)>,
    last_number: u64,
    others: FuturesUnordered<sys::Work<Other>>,
    /// Who waits for the list of guilds to be read, and for the read that is under way.
    guilds: Vec<Waiting>,
    guilds_reading: Vec<Waiting>,
    opening: HashMap<ChannelId, Vec<Waiting>>,
    older: HashMap<ChannelId, Vec<Waiting>>,
    names: HashMap<UserId, Vec<Waiting<String>>>,
}

/// Why it ends.
enum End {
    /// Nobody is there any more.
    Dropped,
    Asked(oneshot::Sender<()>),
    Failed(Error),
}

impl Driver {
    async fn run(mut self) {
        let end = match self.connect().await {
            Ok((client, events)) => {
                self.connected.send_replace(Some(client.clone()));
                let end = self.live(events).await;
                if !matches!(end, End::Failed(_)) {
                    client.close().await;
                }
                end
            }
            Err(end) => end,
        };
        // No command can be added any more: who asks is told so.
        self.asked.close();
        while let Ok(command) = self.asked.try_recv() {
            drop(command);
        }
        match end {
            End::Dropped => {}
            End::Asked(done) => {
                (self.listener)(Change::Connection(Connection::Ended(Error::Closed)));
                let _ = done.send(());
            }
            End::Failed(error) => (self.listener)(Change::Connection(Connection::Ended(error))),
        }
    }

    /// Tries until there is a session.
    async fn connect(&mut self) -> Result<(Client, Feed), End> {
        let mut tries = 0;
        loop {
            self.tell([Change::Connection(Connection::Connecting)]);
            let connecting = self.builder.clone().connect(self.token.expose_secret().to_owned());
            match self.meanwhile(connecting).await? {
                Ok(client) => {
                    let events = client.feed();
                    return Ok((client, events));
                }
                Err(Error::Unreachable(why)) => {
                    let wait = self.builder.backoff.wait(tries);
                    tries += 1;
                    tracing::info!(error = %why, ?wait, "no session yet");
                    self.tell([Change::Connection(Connection::Waiting(wait))]);
                    self.meanwhile(sys::sleep(wait)).await?;
                }
                Err(error) => return Err(End::Failed(error)),
            }
        }
    }

    /// Serves a session, and the ones that come after it.
    async fn live(&mut self, mut events: Feed) -> End {
        let mut trying_at = None;
        loop {
            let now = Instant::now();
            let trying = async { sys::sleep_until(trying_at.unwrap_or(now)).await };
            let waits_until = self.waits_until;
            let waiting = async { sys::sleep_until(waits_until.unwrap_or(now)).await };
            let event = select! {
                event = events.next() => event,
                command = self.asked.recv() => match self.command(command) {
                    Some(end) => return end,
                    None => continue,
                },
                Some((number, found)) = self.reads.next() => {
                    self.found(number, found);
                    continue;
                }
                Some(other) = self.others.next() => {
                    self.answered(other);
                    continue;
                }
                () = waiting, if self.waits_until.is_some() => {
                    self.waits_until = None;
                    self.begin_reads();
                    continue;
                }
                () = trying, if trying_at.is_some() => {
                    trying_at = None;
                    self.tell([Change::Connection(Connection::Connecting)]);
                    continue;
                }
            };
            let event = match event {
                Some(Told::Event(event)) => Some(event),
                Some(Told::Gap(gap)) => {
                    events.close();
                    match &*gap {
                        Gap::Ready(ready) => Some(Ok(Event::Ready(ready.clone()))),
                        Gap::Resync(_) => {
                            self.waits_until = Some(Instant::now() + gap.wait());
                            self.read_again(true);
                            continue;
                        }
                    }
                }
                None => None,
            };
            match event {
                Some(Ok(Event::Lost { retry_in })) => {
                    self.stop_reading();
                    trying_at = Some(Instant::now() + retry_in);
                    self.tell([Change::Connection(Connection::Waiting(retry_in))]);
                }
                Some(Ok(event)) => {
                    if matches!(event, Event::Ready(_) | Event::Resumed) {
                        trying_at = None;
                        self.is_live = true;
                        self.tell([Change::Connection(Connection::Ready)]);
                    }
                    let changes = self.shared.cache().apply(&event, Instant::now());
                    self.tell(changes);
                    match event {
                        // What happened in between was told, and the rest is as it was.
                        Event::Resumed if !self.is_stale => self.read_rest(),
                        Event::Ready(_) => self.read_again(false),
                        Event::Resumed => self.read_again(true),
                        Event::CommandFailed(error) => {
                            let wait = error.retry_after.map(Duration::from_millis);
                            let refusal = Refusal::new(error.code, error.message, wait);
                            self.tell([Change::Failed(Error::Refused(refusal))]);
                        }
                        _ => {}
                    }
                }
                Some(Err(error @ Error::Protocol(_))) => self.tell([Change::Failed(error)]),
                Some(Err(error)) => return End::Failed(error),
                None => return End::Failed(Error::Closed),
            }
        }
    }

    /// Awaits `work`, and takes commands meanwhile.
    async fn meanwhile<T>(&mut self, work: impl Future<Output = T>) -> Result<T, End> {
        let mut work = std::pin::pin!(work);
        loop {
            select! {
                done = &mut work => return Ok(done),
                command = self.asked.recv() => if let Some(end) = self.command(command) {
                    return Err(end);
                },
                Some(other) = self.others.next() => self.answered(other),
            }
        }
    }

    fn command(&mut self, command: Option<Command>) -> Option<End> {
        if self.waits_until.take().is_some() {
            // Somebody is there, and looks at it.
            self.begin_reads();
        }
        match command {
            None => return Some(End::Dropped),
            Some(Command::End(done)) => return Some(End::Asked(done)),
            Some(Command::Open(channel, waiting)) => {
                let (is_new, is_loaded) = {
                    let mut cache = self.shared.cache();
                    let known = cache.timeline(channel).map(|shown| shown.loaded);
                    cache.open(channel);
                    (known.is_none(), known == Some(true))
                };
                if is_loaded {
                    let _ = waiting.send(Ok(()));
                    return None;
                }
                self.opening.entry(channel).or_default().push(waiting);
                if is_new {
                    self.read(Read::Messages(channel));
                }
            }
            Some(Command::Close(channel)) => {
                self.shared.cache().close(channel);
                self.running.retain(|(_, read)| *read != Read::Messages(channel));
                answer_all(self.opening.remove(&channel), &Err(Error::Closed));
            }
            Some(Command::Older(channel, waiting)) => {
                let (before, is_loading) = {
                    let mut cache = self.shared.cache();
                    (cache.begin_older(channel), cache.is_loading_older(channel))
                };
                if !is_loading {
                    let _ = waiting.send(Ok(()));
                    return None;
                }
                self.older.entry(channel).or_default().push(waiting);
                if let Some(before) = before {
                    let page = self.http.messages(channel).limit(PAGE).before(before);
                    self.others.push(Box::pin(async move { Other::Older(channel, before, page.await) }));
                }
            }
            Some(Command::Guilds(waiting)) => {
                self.guilds.push(waiting);
                self.read(Read::Guilds);
            }
            Some(Command::Channels(guild)) => {
                if self.shared.cache().channels(guild).is_none() {
                    self.shared.cache().begin_channels(guild);
                    self.read(Read::Channels(guild));
                }
            }
            Some(Command::Created(guild, waiting)) => {
                let changes = self.shared.cache().put_created(guild);
                self.tell(changes);
                answer_all(Some(vec![waiting]), &Ok(()));
            }
            Some(Command::Left(guild, waiting)) => {
                let changes = self.shared.cache().drop_guild(guild);
                self.tell(changes);
                answer_all(Some(vec![waiting]), &Ok(()));
            }
            Some(Command::ChannelCreated(channel, waiting)) => {
                let changes = self.shared.cache().put_channel(channel);
                self.tell(changes);
                answer_all(Some(vec![waiting]), &Ok(()));
            }
            Some(Command::Name(user, waiting)) => {
                let is_first = !self.names.contains_key(&user);
                self.names.entry(user).or_default().push(waiting);
                if is_first {
                    let http = self.http.clone();
                    self.others.push(Box::pin(async move { Other::Name(user, http.user(user).await) }));
                }
            }
        }
        None
    }

    fn tell(&mut self, changes: impl IntoIterator<Item = Change>) {
        for change in changes {
            (self.listener)(change);
        }
    }

    /// The connection is gone: what is read now would not be kept up to date. It is read again when the next session is ready.
    fn stop_reading(&mut self) {
        self.is_live = false;
        self.drop_reads();
    }

    /// Something may have been missed: reads all that is in use. READY has told the guilds.
    fn read_again(&mut self, with_guilds: bool) {
        self.drop_reads();
        // What comes before a resumed session goes on is read when it does.
        self.is_stale = !self.is_live;
        {
            let mut cache = self.shared.cache();
            for channel in cache.open_channels() {
                // From here on, so that nothing is shown behind a gap.
                cache.begin_messages(channel);
            }
            for guild in cache.listed() {
                cache.begin_channels(guild);
            }
        }
        if with_guilds {
            self.read(Read::Guilds);
        }
        self.read_rest();
    }

    /// Reads what was asked for and is not read yet.
    fn read_rest(&mut self) {
        let (channels, guilds) = {
            let cache = self.shared.cache();
            (cache.unread_channels(), cache.unread_lists())
        };
        if !self.guilds.is_empty() {
            self.read(Read::Guilds);
        }
        channels.into_iter().map(Read::Messages).chain(guilds.into_iter().map(Read::Channels)).for_each(|read| self.read(read));
    }

    fn drop_reads(&mut self) {
        self.queue.clear();
        self.reads.clear();
        self.running.clear();
        self.guilds.append(&mut self.guilds_reading);
    }

    /// Reads it as soon as there is a session and a place.
    fn read(&mut self, read: Read) {
        if self.is_live && !self.queue.contains(&read) {
            self.queue.push_back(read);
            self.begin_reads();
        }
    }

    fn begin_reads(&mut self) {
        while self.waits_until.is_none() && self.running.len() < READS {
            // The same is not read twice at a time.
            let next = self.queue.iter().position(|read| self.running.iter().all(|(_, other)| other != read));
            let Some(read) = next.and_then(|next| self.queue.remove(next)) else { return };
            self.last_number += 1;
            let number = self.last_number;
            self.running.push((number, read));
            let (http, backoff) = (self.http.clone(), self.builder.backoff);
            let last = {
                let mut cache = self.shared.cache();
                match read {
                    Read::Guilds => {
                        cache.begin_guilds();
                        self.guilds_reading.append(&mut self.guilds);
                        None
                    }
                    Read::Channels(guild) => {
                        cache.begin_channels(guild);
                        None
                    }
                    Read::Messages(channel) => cache.begin_messages(channel),
                }
            };
            self.reads.push(Box::pin(async move {
                let mut tries = 0;
                loop {
                    match look(&http, read, last).await {
                        Err(error) if error.is_passing() => {
                            let wait = backoff.wait(tries);
                            tries += 1;
                            tracing::debug!(%error, ?wait, "will be read again");
                            sys::sleep(wait).await;
                        }
                        found => return (number, found),
                    }
                }
            }));
        }
    }

    fn found(&mut self, number: u64, found: Result<Found>) {
        let Some(at) = self.running.iter().position(|(other, _)| *other == number) else { return };
        let (_, read) = self.running.swap_remove(at);
        let result = found.as_ref().map(|_| ()).map_err(Error::echo);
        let changes = {
            let mut cache = self.shared.cache();
            match (read, found) {
                (Read::Guilds, Ok(Found::Guilds(guilds))) => cache.read_guilds(guilds),
                (Read::Channels(guild), Ok(Found::Channels(channels))) => cache.read_channels(guild, channels),
                (Read::Messages(channel), Ok(Found::Newest(page))) => cache.read_newest(channel, page).into_iter().collect(),
                (Read::Messages(channel), Ok(Found::Missed(more))) => cache.read_missed(channel, more).into_iter().collect(),
                // It is gone, or out of sight.
                (Read::Channels(guild), Err(Error::Refused(_))) => cache.drop_channels(guild),
                (Read::Messages(channel), Err(Error::Refused(_))) => cache.clear(channel).into_iter().collect(),
                (_, Err(error)) => vec![Change::Failed(error)],
                (_, Ok(_)) => Vec::new(),
            }
        };
        self.tell(changes);
        match read {
            Read::Guilds => answer_all(Some(std::mem::take(&mut self.guilds_reading)), &result),
            Read::Channels(_) => {}
            Read::Messages(channel) => {
                let opening = self.opening.remove(&channel);
                if result.is_err() && opening.is_some() {
                    // It was never open, so that the next time is another try.
                    self.shared.cache().close(channel);
                }
                answer_all(opening, &result);
            }
        }
        self.begin_reads();
    }

    fn answered(&mut self, other: Other) {
        match other {
            Other::Older(channel, before, page) => {
                let (change, result) = match page {
                    Ok(page) => (self.shared.cache().read_older(channel, before, page), Ok(())),
                    Err(error) => {
                        self.shared.cache().end_older(channel);
                        (None, Err(error))
                    }
                };
                self.tell(change);
                answer_all(self.older.remove(&channel), &result);
            }
            Other::Name(user, result) => {
                let result = result.map(|user| user.username);
                if let Ok(name) = &result {
                    self.shared.cache().call(user, name);
                }
                answer_all(self.names.remove(&user), &result);
            }
        }
    }
}

/// Asks the server.
async fn look(http: &Http, read: Read, last: Option<MessageId>) -> Result<Found> {
    match read {
        Read::Guilds => http.guilds().await.map(Found::Guilds),
        Read::Channels(guild) => http.channels(guild).await.map(Found::Channels),
        Read::Messages(channel) => {
            if let Some(after) = last.and_then(|last| last.micros()).map(given::before)
                && let Some(missed) = missed(http, channel, after).await?
            {
                return Ok(Found::Missed(missed));
            }
            http.messages(channel).limit(PAGE).await.map(Found::Newest)
        }
    }
}

/// Everything behind a message. `None` if that is too much.
async fn missed(http: &Http, channel: ChannelId, after: MessageId) -> Result<Option<Vec<Message>>> {
    let mut page = http.messages(channel).limit(PAGE).after(after).await?;
    let mut messages = Vec::new();
    for _ in 1..PAGES {
        messages.append(&mut page.items);
        let Some(next) = page.next else { return Ok(Some(messages)) };
        page = http.messages(channel).limit(PAGE).page_state(next).await?;
    }
    messages.append(&mut page.items);
    Ok(page.next.is_none().then_some(messages))
}

fn answer_all<T: Clone>(waiting: Option<Vec<Waiting<T>>>, result: &Result<T>) {
    for waiting in waiting.into_iter().flatten() {
        // Who waits no longer needs no answer.
        let _ = waiting.send(match result {
            Ok(value) => Ok(value.clone()),
            Err(error) => Err(error.echo()),
        });
    }
}
