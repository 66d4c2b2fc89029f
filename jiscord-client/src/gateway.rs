//! The connection to the gateway: one task that comes back until it is told not to.
//!
//! ```text
//! dial ──► HELLO ──► IDENTIFY ──► READY ──► live ──► cut ──► wait, longer each time ──► dial
//!               └──► RESUME ──► RESUMED ──┘    └──► stop: bad token, evicted, closed
//! ```
//!
//! Whatever it waits for, it takes commands and keeps their deadlines meanwhile.

use std::{
    convert::Infallible,
    future::Future,
    pin::{Pin, pin},
    sync::{
        LazyLock,
        atomic::{AtomicU32, Ordering},
    },
    time::Duration,
};

use jiscord_core::{
    ChannelId, ClientFrame, Code, Placed, Position, ServerFrame,
    frame::{Attempt, CloseCode, FrameError, Hello, Identify, Intents, Ready, Resume, TypingStart},
};
use secrecy::{ExposeSecret, SecretString};
use tokio::{
    select,
    sync::{OwnedSemaphorePermit, mpsc, oneshot, watch},
};

use crate::{
    backoff::Backoff,
    error::{Error, Result, Source},
    event::{Event, Item, Queue, ResumePoint, Told},
    outbox::{Draft, Outbox},
    place::Place,
    resync::Gap,
    sys::{self, Incoming, Instant, Reader, Transport, Url, Writer},
};

/// How long closing may take.
const FAREWELL: Duration = Duration::from_secs(2);
/// A session that lived so long was a good one: the next wait is short again.
const STEADY: Duration = Duration::from_secs(30);
/// The longest time the server can send us away for.
const LONGEST_WAIT: Duration = Duration::from_secs(300);

/// What the handles ask of the task.
pub(crate) enum Command {
    Send(Draft),
    /// Dropped where there is no connection: it does not last.
    Typing(ChannelId, OwnedSemaphorePermit),
    Close,
}

/// How to connect, and how patiently.
pub(crate) struct Settings {
    pub(crate) gateway: Url,
    pub(crate) token: SecretString,
    pub(crate) device: Option<String>,
    pub(crate) intents: Option<Intents>,
    pub(crate) connect_timeout: Duration,
    pub(crate) backoff: Backoff,
}

/// Why there is no session any more.
enum Cut {
    /// For good.
    Stop(Error),
    /// Come back, after at least so long.
    Lost(Source, Duration),
    /// The session cannot be resumed: come back and begin another one.
    Anew,
}

impl Cut {
    fn lost(why: impl Into<Source>) -> Self {
        Self::Lost(why.into(), Duration::ZERO)
    }

    fn closed(code: Option<u16>) -> Self {
        match code.and_then(CloseCode::from_code) {
            Some(CloseCode::BadToken) => Self::Stop(Error::Unauthorized("the gateway refused the token".into())),
            Some(CloseCode::Evicted) => Self::Stop(Error::Evicted),
            Some(CloseCode::ResumeRefused) => Self::Anew,
            Some(known) => Self::lost(format!("closed by the server: {} ({})", known.reason(), known.code())),
            None => Self::lost(code.map_or("closed by the server".into(), |code| format!("closed by the server ({code})"))),
        }
    }
}

/// The beats of one connection.
struct Heart {
    interval: Duration,
    next: Instant,
    /// A beat was not acknowledged yet.
    owed: bool,
    /// Nothing was read for a while because the program is slow, so an acknowledgement may lie unread.
    deaf: bool,
    /// The acknowledgement is late, and this is its last chance.
    late: bool,
}

impl Heart {
    fn new(interval: Duration) -> Self {
        let next = Instant::now() + sys::random_below(interval);
        Self { interval, next, owed: false, deaf: false, late: false }
    }

    /// It is time. True to beat, false to wait on, an error if the server is dead.
    fn beat(&mut self, now: Instant) -> Result<bool, Cut> {
        if self.owed && !self.deaf {
            if self.late {
                return Err(Cut::lost("the server missed a heartbeat"));
            }
            // If this process itself was stopped for a while, the answer lies in the socket: read it first.
            self.late = true;
            self.next = now + (self.interval / 4).min(Duration::from_secs(5));
            return Ok(false);
        }
        (self.owed, self.deaf, self.late) = (true, false, false);
        self.next = now + self.interval;
        Ok(true)
    }

    /// The server was too busy for the beat that is owed: beat again after a while.
    fn put_off(&mut self, wait: Duration) {
        (self.owed, self.late) = (false, false);
        self.next = Instant::now() + wait;
    }

    fn acknowledged(&mut self) {
        self.owed = false;
        if std::mem::take(&mut self.late) {
            self.next = Instant::now();
        }
    }
}

/// The task.
pub(crate) struct Gateway {
    pub(crate) transport: Transport,
    pub(crate) settings: Settings,
    pub(crate) commands: mpsc::UnboundedReceiver<Command>,
    pub(crate) events: Queue,
    /// Hears how the first attempt went, and where to read what READY told last.
    pub(crate) first: Option<oneshot::Sender<Result<watch::Receiver<Ready>>>>,
    pub(crate) ready: Option<watch::Sender<Ready>>,
    /// Where another process had a session that is to go on.
    pub(crate) resume: Option<ResumePoint>,
    /// The session is there. What is told before it goes on was told again.
    pub(crate) is_live: bool,
    pub(crate) outbox: Outbox,
}

impl Gateway {
    /// Serves until all handles are gone, or the server says for good that this client is not wanted.
    pub(crate) async fn run(mut self) {
        let error = self.stay().await;
        // No send can be added any more: who tries is told so.
        self.commands.close();
        while let Ok(command) = self.commands.try_recv() {
            if let Command::Send(draft) = command {
                self.outbox.push(draft);
            }
        }
        self.outbox.end(|| error.echo());
        if let Some(first) = self.first.take() {
            let _ = first.send(Err(error.echo()));
        }
        self.events.end(match error {
            Error::Closed => None,
            error => Some(error),
        });
    }

    /// Returns why it stays no longer.
    async fn stay(&mut self) -> Error {
        let mut tries = 0;
        let mut place = self.resume.as_ref().map(|point| point.place.clone()).unwrap_or_default();
        loop {
            let began = Instant::now();
            let Err(cut) = self.session(&mut place).await;
            self.outbox.disconnected();
            let (why, least) = match cut {
                Cut::Stop(error) => return error,
                Cut::Anew if place.session.take().is_some() => continue,
                Cut::Anew => ("the server refuses to resume what was not resumed".into(), Duration::ZERO),
                Cut::Lost(why, least) => (why, least.min(LONGEST_WAIT)),
            };
            if self.first.is_some() {
                return Error::Unreachable(why);
            }
            if began.elapsed() >= STEADY {
                tries = 0;
            }
            let wait = least + self.settings.backoff.wait(tries);
            tries += 1;
            tracing::info!(error = %why, ?wait, "gateway connection lost");
            // Where the program does not read its events, it misses nothing by missing this one.
            self.events.push(Ok(Event::Lost { retry_in: wait }), size_of::<Event>());
            if let Err(Cut::Stop(error)) = self.meanwhile(sys::sleep(wait)).await {
                return error;
            }
        }
    }

    /// One connection, from dialling to its end.
    async fn session(&mut self, place: &mut Place) -> Result<Infallible, Cut> {
        let until = Instant::now() + self.settings.connect_timeout;
        let opening = self.opening(place);
        let greeting = greet(self.transport.clone(), self.settings.gateway.clone(), opening);
        let greeting = sys::timeout(self.settings.connect_timeout, greeting);
        let (writer, reader, interval) = self.meanwhile(greeting).await?.map_err(|_| Cut::lost(LATE))??;
        self.live(writer, reader, interval, until, place).await
    }

    /// Runs a connection, and says goodbye if it is this side that ends it.
    async fn live(
        &mut self,
        writer: Writer,
        reader: Reader,
        interval: Duration,
        until: Instant,
        place: &mut Place,
    ) -> Result<Infallible, Cut> {
        let (texts, written) = mpsc::channel(16);
        let mut writing = pin!(write(writer, written));
        let Err(cut) = self.converse(&texts, writing.as_mut(), reader, interval, until, place).await;
        if matches!(cut, Cut::Stop(Error::Closed)) {
            drop(texts);
            let _ = sys::timeout(FAREWELL, writing).await;
        }
        Err(cut)
    }

    /// Reads, writes and beats. Reading stops while the program is slow, unless an answer is awaited.
    async fn converse(
        &mut self,
        texts: &mpsc::Sender<String>,
        mut writing: Pin<&mut impl Future<Output = Source>>,
        mut reader: Reader,
        interval: Duration,
        until: Instant,
        place: &mut Place,
    ) -> Result<Infallible, Cut> {
        let mut heart = Heart::new(interval);
        self.is_live = false;
        // Until then READY or RESUMED has to come, and nothing but the heartbeat is said.
        let mut opening = Some(until);
        loop {
            let now = Instant::now();
            let reads = opening.is_some() || self.events.has_room() || self.outbox.awaits_answer();
            heart.deaf |= !reads;
            let wakes_at = self.outbox.wakes_at(now).unwrap_or(heart.next);
            select! {
                incoming = reader.next(), if reads => match incoming {
                    Incoming::Text(text) => {
                        if self.hear(&text, place, &mut heart)? {
                            opening = None;
                        }
                    }
                    Incoming::Other => tracing::debug!("skipped a frame that is no text"),
                    Incoming::Closed(code) => return Err(Cut::closed(code)),
                    Incoming::Lost(why) => return Err(Cut::lost(why)),
                },
                () = self.events.drained(), if !reads => {}
                why = &mut writing => return Err(Cut::lost(why)),
                Ok(room) = texts.reserve(), if opening.is_none() && self.outbox.has_next(now) => {
                    if let Some(message) = self.outbox.next(now) {
                        room.send(ClientFrame::SendMessage(message).encode());
                    }
                }
                command = self.commands.recv() => match command {
                    Some(Command::Send(draft)) => self.outbox.push(draft),
                    Some(Command::Typing(..)) if opening.is_some() => {}
                    Some(Command::Typing(channel_id, place)) => {
                        drop(place);
                        // Where the connection is that slow, typing is what may be lost.
                        let _ = texts.try_send(ClientFrame::TypingStart(TypingStart { channel_id }).encode());
                    }
                    Some(Command::Close) | None => return Err(Cut::Stop(Error::Closed)),
                },
                () = sys::sleep_until(heart.next) => {
                    if heart.beat(Instant::now())? {
                        // If this does not fit, nothing gets through, and the missing answer will tell.
                        let _ = texts.try_send(ClientFrame::Heartbeat(()).encode());
                    }
                }
                () = sys::sleep_until(wakes_at) => {}
                () = sys::sleep_until(until), if opening.is_some() => return Err(Cut::lost(LATE)),
            }
            self.outbox.expire(Instant::now());
        }
    }

    /// Takes in what the gateway says. True if the session is there from now on.
    fn hear(&mut self, text: &str, place: &mut Place, heart: &mut Heart) -> Result<bool, Cut> {
        let frame = match Placed::read(text) {
            Ok(frame) => frame,
            Err(FrameError::UnknownOp(op)) => {
                tracing::debug!(op, "skipped an event from a newer server");
                return Ok(false);
            }
            Err(error) => return self.tell(Err(Error::Protocol(error.into())).into(), None, text.len()).map(|()| false),
        };
        if place.knows(&frame) {
            return Ok(false);
        }
        let begins = matches!(frame.frame, ServerFrame::Ready(_) | ServerFrame::Resumed(_));
        self.is_live |= begins;
        match &frame.frame {
            ServerFrame::HeartbeatAck(()) => {
                heart.acknowledged();
                if !self.is_live {
                    return Ok(false);
                }
                frame.p.into_iter().for_each(|p| self.events.reach(p));
            }
            ServerFrame::MessageAck(ack) => self.outbox.acknowledge(ack.clone()),
            ServerFrame::Error(error) if place.session.is_none() => tracing::debug!(%error.message, "no session"),
            ServerFrame::Error(error) => {
                if let Some(error) = self.outbox.refuse(error.clone(), Instant::now()) {
                    if heart.owed && error.code == Code::RATE_LIMITED && error.nonce.is_none() {
                        heart.put_off(error.retry_after.map_or(heart.interval / 4, Duration::from_millis));
                    }
                    self.tell(Ok(Event::CommandFailed(error)).into(), None, text.len())?;
                }
            }
            ServerFrame::Reconnect(reconnect) => {
                return Err(Cut::Lost("the server is going away".into(), Duration::from_millis(reconnect.retry_after)));
            }
            ServerFrame::InvalidSession(()) => tracing::debug!("the session is over; the close code will say why"),
            ServerFrame::Ready(ready) => {
                tracing::debug!(session = %ready.session_id, "gateway session is ready");
                // What happened since another session was cut off is not told by this one.
                let is_first = self.ready.is_none() && self.resume.take().is_none();
                self.is_ready(ready.clone());
                let told = match is_first {
                    true => Ok(Event::Ready(ready.clone())).into(),
                    false => Gap::Ready(ready.clone()).into(),
                };
                self.tell(told, frame.p, text.len())?;
            }
            ServerFrame::Resync(resync) => {
                self.tell(Gap::Resync(resync.clone()).into(), frame.p, text.len())?;
            }
            ServerFrame::Resumed(resumed) => {
                tracing::debug!(replayed = resumed.replayed, "gateway session is resumed");
                if let Some(point) = self.resume.take() {
                    self.is_ready(point.ready);
                }
                self.tell(Ok(Event::Resumed).into(), frame.p, text.len())?;
            }
            other => {
                if let Some(event) = Event::from_frame(other.clone()) {
                    self.tell(Ok(event).into(), frame.p, text.len())?;
                }
            }
        }
        // Only what was told counts as told: the rest is told when the session is resumed.
        place.pass(&frame);
        Ok(begins)
    }

    /// What READY said, for whoever asks, and for whoever waits for the first connection.
    fn is_ready(&mut self, ready: Ready) {
        let told = self.ready.get_or_insert_with(|| watch::Sender::new(ready.clone()));
        told.send_replace(ready);
        if let Some(first) = self.first.take() {
            let _ = first.send(Ok(told.subscribe()));
        }
    }

    fn tell(&self, told: Told, p: Option<Position>, bytes: usize) -> Result<(), Cut> {
        match self.events.push_at(Item { told, p, is_replayed: !self.is_live, bytes }) {
            true => Ok(()),
            false => Err(Cut::lost("the program does not read its events")),
        }
    }

    /// Awaits `work`, and takes commands and keeps deadlines meanwhile.
    async fn meanwhile<T>(&mut self, work: impl Future<Output = T>) -> Result<T, Cut> {
        let mut work = pin!(work);
        loop {
            let wakes_at = self.outbox.wakes_at(Instant::now());
            select! {
                done = &mut work => return Ok(done),
                command = self.commands.recv() => match command {
                    Some(Command::Send(draft)) => self.outbox.push(draft),
                    Some(Command::Typing(..)) => {}
                    Some(Command::Close) | None => return Err(Cut::Stop(Error::Closed)),
                },
                () = async { sys::sleep_until(wakes_at.unwrap_or_else(Instant::now)).await }, if wakes_at.is_some() => {}
            }
            self.outbox.expire(Instant::now());
        }
    }

    /// IDENTIFY, or RESUME where there is a session to go on with.
    fn opening(&self, place: &Place) -> String {
        let Settings { token, device, intents, .. } = &self.settings;
        let (token, device, intents) = (token.expose_secret().to_owned(), device.clone(), *intents);
        // One that was given up may still reach a gateway, after this one.
        let attempt = Some(next_attempt());
        match place.resume() {
            Some((session_id, after)) => {
                let epoch = place.epoch.clone();
                ClientFrame::Resume(Resume { token, session_id, device, intents, attempt, epoch, after }).encode()
            }
            None => ClientFrame::Identify(Identify { token, device, intents, attempt }).encode(),
        }
    }
}

/// All clients of a program count together: two of them may be the same device.
fn next_attempt() -> Attempt {
    static CLIENT: LazyLock<u32> = LazyLock::new(|| u32::from_be_bytes(sys::random()));
    static LAST: AtomicU32 = AtomicU32::new(0);
    Attempt { client: *CLIENT, number: LAST.fetch_add(1, Ordering::Relaxed).wrapping_add(1) }
}

/// What is said of a gateway that takes too long.
const LATE: &str = "the gateway did not answer in time";

/// Dials, waits for HELLO and says the first word; with the connection the heartbeat's interval.
async fn greet(transport: Transport, gateway: Url, opening: String) -> Result<(Writer, Reader, Duration), Cut> {
    let (mut writer, mut reader) = transport.connect(&gateway).await.map_err(Cut::lost)?;
    let hello = hello(&mut reader).await?;
    writer.send(opening).await.map_err(Cut::lost)?;
    // A server that says 0 would make us beat without end.
    let interval = Duration::from_millis(hello.heartbeat_interval).max(Duration::from_millis(10));
    Ok((writer, reader, interval))
}

/// Reads on to HELLO.
async fn hello(reader: &mut Reader) -> Result<Hello, Cut> {
    loop {
        match reader.next().await {
            Incoming::Text(text) => match Placed::read(&text) {
                Ok(Placed { frame: ServerFrame::Hello(hello), .. }) => return Ok(hello),
                Ok(frame) => tracing::debug!(op = frame.frame.op(), "skipped before HELLO"),
                Err(FrameError::UnknownOp(op)) => tracing::debug!(op, "skipped before HELLO"),
                Err(error) => return Err(Cut::lost(error)),
            },
            Incoming::Other => {}
            Incoming::Closed(code) => return Err(Cut::closed(code)),
            Incoming::Lost(why) => return Err(Cut::lost(why)),
        }
    }
}

/// Writes what it is given, closes when there will be no more, and says why it ended.
async fn write(mut writer: Writer, mut texts: mpsc::Receiver<String>) -> Source {
    while let Some(text) = texts.recv().await {
        if let Err(why) = writer.send(text).await {
            return why;
        }
    }
    match writer.close().await {
        Ok(()) => "closed".into(),
        Err(why) => why,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_heart_beats_until_nothing_comes_back() {
        let mut heart = Heart::new(Duration::from_secs(40));
        let start = Instant::now();
        assert!(heart.next < start + Duration::from_secs(40));
        assert!(matches!(heart.beat(start), Ok(true)));
        heart.acknowledged();
        assert!(matches!(heart.beat(start), Ok(true)));
        assert_eq!(heart.next, start + Duration::from_secs(40));
        assert!(matches!(heart.beat(start), Ok(false)), "a last chance");
        assert_eq!(heart.next, start + Duration::from_secs(5));
        heart.acknowledged();
        assert_eq!(heart.next, start, "the beat that was put off");
        assert!(matches!(heart.beat(start), Ok(true)));
        heart.deaf = true;
        assert!(matches!(heart.beat(start), Ok(true)), "what was not read cannot be missed");
        assert!(matches!(heart.beat(start), Ok(false)));
        assert!(matches!(heart.beat(start), Err(Cut::Lost(..))));
    }

    #[test]
    fn close_codes_say_whether_to_come_back() {
        assert!(matches!(Cut::closed(Some(4004)), Cut::Stop(Error::Unauthorized(_))));
        assert!(matches!(Cut::closed(Some(4010)), Cut::Stop(Error::Evicted)));
        for code in [None, Some(1000), Some(1001), Some(1006), Some(1012), Some(1013), Some(4000), Some(4009)] {
            assert!(matches!(Cut::closed(code), Cut::Lost(..)), "{code:?}");
        }
        assert!(matches!(Cut::closed(Some(4012)), Cut::Anew));
    }
}
