//! Dispatchers: each owns the writing halves of many sockets and writes to them itself.
//!
//! Waking a task for every socket costs more than the write (docs/benchmarks.md), so an event goes to a dispatcher once, with
//! the list of its sockets. Only a socket that does not take everything at once gets a queue, bounded in bytes, and a task of
//! its own until it has caught up. Whatever a client is told goes through its dispatcher, in order.

use std::{
    num::NonZeroUsize,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    thread::available_parallelism,
    time::Duration,
};

use jiscord_core::{
    Position,
    frame::{CloseCode, Intents},
};
use tokio::{sync::mpsc, task::AbortHandle, time::timeout};
use tokio_tungstenite::tungstenite::{
    self, Message, Utf8Bytes,
    protocol::{CloseFrame, frame::coding::CloseCode as WireCode},
};

use crate::{
    chance::{HashMap, watch},
    wire::Writer,
};

/// Names a socket within a gateway.
pub(crate) type Key = u64;

/// How many posts wait for a dispatcher. It never waits for a socket, so a full mailbox means that the machine is busy, and
/// whoever sends waits.
const MAILBOX: usize = 1_024;
/// How many posts are handled before what they wrote is flushed.
const BATCH: usize = 64;
/// How long a client that reads too slowly is given for its close frame.
const LAST_WORDS: Duration = Duration::from_secs(2);

/// The end of a connection: whoever is first says why.
#[derive(Clone)]
pub(crate) struct End(watch::Sender<Option<Option<CloseCode>>>);

impl Default for End {
    fn default() -> Self {
        Self(watch::Sender::new(None))
    }
}

impl End {
    /// Ends it; `None`: the client is gone.
    pub(crate) fn set(&self, why: Option<CloseCode>) {
        self.0.send_if_modified(|end| {
            let first = end.is_none();
            end.get_or_insert(why);
            first
        });
    }

    /// Waits for the end.
    pub(crate) async fn wait(&self) -> Option<CloseCode> {
        let mut end = self.0.subscribe();
        // It cannot close while `self` holds the sender.
        end.wait_for(Option::is_some).await.ok().and_then(|end| *end).flatten()
    }
}

/// An event for some of a dispatcher's sockets.
#[derive(Clone)]
pub(crate) struct Tell {
    /// The bytes, shared by all.
    pub(crate) text: Utf8Bytes,
    /// Its place; a session is told nothing at or below what it was told before. None: it does not last, and is left out
    /// where others wait already.
    pub(crate) p: Option<Position>,
    /// Told to sessions with this intent.
    pub(crate) intent: Intents,
    /// To whom.
    pub(crate) to: Arc<[Key]>,
}

/// What a dispatcher is asked to do.
pub(crate) enum Post {
    /// A new socket.
    Add { key: Key, writer: Writer, end: End },
    /// Something for one socket.
    Say { key: Key, text: Utf8Bytes },
    /// READY: from here on events above `p` are told.
    Ready { key: Key, text: Utf8Bytes, intents: Intents, p: Position },
    /// A session that was cut off is back: events above `p` are held back for it.
    Hold { key: Key, intents: Intents, p: Position },
    /// What it missed, after which it is told what was held back.
    Resume { key: Key, texts: Vec<Utf8Bytes> },
    /// What some sockets keep may be stale. Told in its place among the events.
    Stale { to: Arc<[Key]>, text: Utf8Bytes },
    /// An event.
    Tell(Tell),
    /// The log begins anew: from here on events above this position are told.
    From(Position),
    /// Several things in one go.
    Many(Vec<Post>),
    /// The last word to a socket; nothing follows.
    Close { key: Key, code: CloseCode },
    /// The socket is done with.
    Drop { key: Key },
    /// A slow socket has caught up.
    Back { key: Key, writer: Writer, rest: mpsc::UnboundedReceiver<Message> },
}

/// All dispatchers of a gateway.
pub(crate) struct Dispatchers(Vec<mpsc::Sender<Post>>);

impl Dispatchers {
    /// Starts `count` of them; 0: one for each core. They end when this is dropped.
    pub(crate) fn start(count: usize, queue: usize, patience: Duration) -> Self {
        let count = if count == 0 { available_parallelism().map_or(1, NonZeroUsize::get) } else { count };
        let start = |_| {
            let (post, mailbox) = mpsc::channel(MAILBOX);
            tokio::spawn(Dispatcher { sockets: HashMap::default(), back: post.downgrade(), queue, patience }.run(mailbox));
            post
        };
        Self((0..count).map(start).collect())
    }

    /// How many there are.
    pub(crate) fn count(&self) -> usize {
        self.0.len()
    }

    /// Which of them owns a socket.
    pub(crate) fn index(&self, key: Key) -> usize {
        (key % self.0.len() as u64) as usize
    }

    /// The mailbox for a socket.
    pub(crate) fn of(&self, key: Key) -> &mpsc::Sender<Post> {
        &self.0[self.index(key)]
    }

    /// All mailboxes.
    pub(crate) fn all(&self) -> &[mpsc::Sender<Post>] {
        &self.0
    }
}

struct Dispatcher {
    sockets: HashMap<Key, Socket>,
    /// For the tasks of slow sockets; weak, so that they keep no dispatcher alive.
    back: mpsc::WeakSender<Post>,
    queue: usize,
    patience: Duration,
}

struct Socket {
    way: Way,
    end: End,
    /// None before READY.
    told: Option<(Position, Intents)>,
    /// What is told after it was told what it missed.
    held: Option<Held>,
}

#[derive(Default)]
struct Held {
    texts: Vec<Utf8Bytes>,
    bytes: usize,
}

/// How a socket is written to.
enum Way {
    /// By the dispatcher. `fed`: something waits for the flush.
    Now { writer: Writer, fed: bool },
    /// By a task of its own, which takes from this queue.
    Later { queue: mpsc::UnboundedSender<Message>, bytes: Arc<AtomicUsize>, task: AbortHandle },
    /// Not at all any more.
    Ended,
}

impl Dispatcher {
    async fn run(mut self, mut mailbox: mpsc::Receiver<Post>) {
        let mut posts = Vec::with_capacity(BATCH);
        let mut fed = Vec::new();
        while mailbox.recv_many(&mut posts, BATCH).await > 0 {
            for post in posts.drain(..) {
                self.handle(post, &mut fed);
            }
            for key in fed.drain(..) {
                self.flush(key);
            }
        }
    }

    fn handle(&mut self, post: Post, fed: &mut Vec<Key>) {
        match post {
            Post::Add { key, writer, end } => {
                self.sockets.insert(key, Socket { way: Way::Now { writer, fed: false }, end, told: None, held: None });
            }
            Post::Say { key, text } => self.write(key, Message::Text(text), fed),
            Post::Ready { key, text, intents, p } => {
                if let Some(socket) = self.sockets.get_mut(&key) {
                    socket.told = Some((p, intents));
                }
                self.write(key, Message::Text(text), fed);
            }
            Post::Hold { key, intents, p } => {
                if let Some(socket) = self.sockets.get_mut(&key) {
                    (socket.told, socket.held) = (Some((p, intents)), Some(Held::default()));
                }
            }
            Post::Resume { key, texts } => {
                let Some(socket) = self.sockets.get_mut(&key) else { return };
                let held = socket.held.take().unwrap_or_default();
                // After the last word nothing follows.
                if socket.told.is_some() {
                    for text in texts.into_iter().chain(held.texts) {
                        self.write(key, Message::Text(text), fed);
                    }
                }
            }
            Post::Stale { to, text } => {
                for key in to.iter() {
                    if self.sockets.get(key).is_some_and(|socket| socket.told.is_some()) {
                        self.place(*key, &text, fed);
                    }
                }
            }
            Post::Tell(tell) => {
                for key in tell.to.iter() {
                    self.tell(*key, &tell, fed);
                }
            }
            Post::From(p) => {
                for (last, _) in self.sockets.values_mut().filter_map(|socket| socket.told.as_mut()) {
                    *last = p;
                }
            }
            Post::Many(posts) => {
                for post in posts {
                    self.handle(post, fed);
                }
            }
            Post::Close { key, code } => {
                self.write(key, close(code), fed);
                if let Some(socket) = self.sockets.get_mut(&key) {
                    // What is still on its way would come after the last word.
                    (socket.told, socket.held) = (None, None);
                }
            }
            Post::Drop { key } => {
                if let Some(Socket { way: Way::Later { task, .. }, .. }) = self.sockets.remove(&key) {
                    task.abort();
                }
            }
            Post::Back { key, writer, mut rest } => {
                let Some(socket) = self.sockets.get_mut(&key) else { return };
                if matches!(socket.way, Way::Ended) {
                    return;
                }
                socket.way = Way::Now { writer, fed: false };
                while let Ok(message) = rest.try_recv() {
                    self.write(key, message, fed);
                }
            }
        }
    }

    fn tell(&mut self, key: Key, tell: &Tell, fed: &mut Vec<Key>) {
        let Some(socket) = self.sockets.get_mut(&key) else { return };
        let Some((last, intents)) = &mut socket.told else { return };
        if !intents.contains(tell.intent) {
            return;
        }
        match (tell.p, &socket.way) {
            (Some(p), _) if p <= *last => return,
            (Some(p), _) => *last = p,
            (None, Way::Now { .. }) if socket.held.is_none() => {}
            (None, _) => return,
        }
        self.place(key, &tell.text, fed);
    }

    /// Writes a text in its place among the events.
    fn place(&mut self, key: Key, text: &Utf8Bytes, fed: &mut Vec<Key>) {
        let Some(socket) = self.sockets.get_mut(&key) else { return };
        let Some(held) = &mut socket.held else { return self.write(key, Message::Text(text.clone()), fed) };
        held.bytes += text.len();
        held.texts.push(text.clone());
        if held.bytes > self.queue {
            // The socket itself is free: the connection says the last word.
            (socket.told, socket.held) = (None, None);
            socket.end.set(Some(CloseCode::TooSlow));
        }
    }

    fn write(&mut self, key: Key, message: Message, fed: &mut Vec<Key>) {
        let Some(socket) = self.sockets.get_mut(&key) else { return };
        match &mut socket.way {
            Way::Now { writer, fed: waits } => match writer.feed_now(message) {
                Ok(None) => {
                    if !*waits {
                        *waits = true;
                        fed.push(key);
                    }
                }
                Ok(Some(message)) => {
                    self.slow_down(key);
                    self.write(key, message, fed);
                }
                Err(_) => socket.finish(None),
            },
            Way::Later { queue, bytes, .. } => {
                let size = message.len();
                let waiting = bytes.fetch_add(size, Ordering::Relaxed) + size;
                if waiting > self.queue || queue.send(message).is_err() {
                    // The task sees its queue close, and says the last words.
                    socket.finish(Some(CloseCode::TooSlow));
                }
            }
            Way::Ended => {}
        }
    }

    fn flush(&mut self, key: Key) {
        let Some(socket) = self.sockets.get_mut(&key) else { return };
        if let Way::Now { writer, fed } = &mut socket.way {
            *fed = false;
            match writer.flush_now() {
                Ok(true) => {}
                Ok(false) => self.slow_down(key),
                Err(_) => socket.finish(None),
            }
        }
    }

    /// Hands a socket that is not ready to a task of its own: after a flush that was only tried, nobody would wake the dispatcher.
    fn slow_down(&mut self, key: Key) {
        let Some(socket) = self.sockets.get_mut(&key) else { return };
        let Way::Now { writer, .. } = std::mem::replace(&mut socket.way, Way::Ended) else { return };
        let (queue, rest) = mpsc::unbounded_channel();
        let bytes = Arc::new(AtomicUsize::new(0));
        let slow = Slow {
            key,
            writer,
            rest,
            bytes: bytes.clone(),
            end: socket.end.clone(),
            back: self.back.clone(),
            patience: self.patience,
        };
        let task = tokio::spawn(slow.run()).abort_handle();
        socket.way = Way::Later { queue, bytes, task };
    }
}

impl Socket {
    fn finish(&mut self, why: Option<CloseCode>) {
        self.way = Way::Ended;
        self.end.set(why);
    }
}

/// The task of a socket that does not take everything at once.
struct Slow {
    key: Key,
    writer: Writer,
    rest: mpsc::UnboundedReceiver<Message>,
    bytes: Arc<AtomicUsize>,
    end: End,
    back: mpsc::WeakSender<Post>,
    patience: Duration,
}

impl Slow {
    async fn run(mut self) {
        loop {
            let flushed = tokio::select! {
                biased;
                // Its queue has overflowed. Other ends leave the last words to the connection.
                Some(CloseCode::TooSlow) = self.end.wait() => return self.too_slow().await,
                flushed = timeout(self.patience, self.writer.flush()) => flushed,
            };
            match flushed {
                Ok(Ok(())) => {}
                Ok(Err(_)) => return self.end.set(None),
                Err(_) => return self.too_slow().await,
            }
            if self.rest.is_closed() {
                return self.too_slow().await;
            }
            let Ok(message) = self.rest.try_recv() else { break };
            self.bytes.fetch_sub(message.len(), Ordering::Relaxed);
            if let Err(_gone) = self.writer.feed(message).await {
                return self.end.set(None);
            }
        }
        if let Some(back) = self.back.upgrade() {
            // The dispatcher may have put more into the queue by now; it takes it out when it gets it back.
            let _ = back.send(Post::Back { key: self.key, writer: self.writer, rest: self.rest }).await;
        }
    }

    async fn too_slow(mut self) {
        self.end.set(Some(CloseCode::TooSlow));
        let last = async {
            self.writer.feed(close(CloseCode::TooSlow)).await?;
            self.writer.flush().await
        };
        let _: Result<Result<(), tungstenite::Error>, _> = timeout(LAST_WORDS, last).await;
    }
}

pub(crate) fn close(code: CloseCode) -> Message {
    Message::Close(Some(CloseFrame { code: WireCode::from(code.code()), reason: Utf8Bytes::from_static(code.reason()) }))
}
