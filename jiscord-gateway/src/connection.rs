//! One connection, from HELLO to close.
//!
//! ```text
//! Greeted ── IDENTIFY, RESUME ──► Active ──► close
//! ```
//!
//! A state is a struct and a step consumes it, so an `Active` without a user cannot be written. This task only reads;
//! whatever the client is to hear goes through its dispatcher, in order. It handles one command at a time, so the messages of
//! one session keep their order.

use std::{
    convert::Infallible,
    num::NonZeroU32,
    panic::AssertUnwindSafe,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use futures_util::FutureExt;
use governor::{DefaultDirectRateLimiter, Quota, RateLimiter, clock::Clock as _};
use jiscord_core::{
    ClientFrame, Code, Fault, ServerFrame,
    backend::Actor,
    fault::Result,
    frame::{
        CloseCode, ErrorFrame, FrameError, Hello, Identify, Intents, MessageAck, Reconnect, Resume, SendMessage, TypingStart,
    },
    text::Device,
};
use rand::Rng;
use tokio::{
    select,
    time::{Instant, sleep, timeout, timeout_at},
};
use tokio_util::sync::CancellationToken;

use crate::{
    chance,
    dispatch::{End, Key, Post},
    hub::{Cut, Entrant, Hub, Refused, Seat},
    wire::{self, Io, Reader, Said},
};

/// How long a client is given to answer a close.
const FAREWELL: Duration = Duration::from_secs(5);
/// After our own process was halted, its timers may ring before the runtime has heard what came on the sockets meanwhile. So
/// nobody is closed for silence before it has had the time to.
const SECOND_LOOK: Duration = Duration::from_millis(100);
/// When a gateway goes down, its connections are closed over this time, so that their clients do not come back all at once.
const SPREAD: Duration = Duration::from_secs(1);

/// Why a connection ends; `None`: the client is gone.
type Close = Option<CloseCode>;

/// Serves one client until it ends.
pub(crate) async fn serve(io: Box<dyn Io>, hub: Arc<Hub>, shutdown: CancellationToken) {
    let (reader, writer) = wire::split(io, &hub.settings.limits).await;
    let (key, end) = (hub.key(), End::default());
    hub.post(key, Post::Add { key, writer, end: end.clone() }).await;

    let heard = Arc::new(AtomicU64::new(hub.millis()));
    let limits = &hub.settings.limits;
    let pace = Pace::new(limits.commands, limits.command_burst, limits.command_burst.get());
    let beats = Pace::new(limits.control_frames, limits.control_frames, 0);
    let mut client = Client { reader, out: Outbound { hub: hub.clone(), key }, heard, pace, beats, shutdown };
    let talk = async {
        let Err(close) = talk(&mut client, &end).await;
        close
    };
    let close = AssertUnwindSafe(async {
        select! {
            biased; // who is out says nothing more
            close = end.wait() => close, // evicted, too slow, gone
            close = talk => close,
        }
    });
    // A defect ends this connection, not the process.
    let close = close.catch_unwind().await.unwrap_or(Some(CloseCode::Internal));
    client.farewell(close).await;
    hub.post(key, Post::Drop { key }).await;
}

async fn talk(client: &mut Client, end: &End) -> Result<Infallible, Close> {
    Greeted::hello(client, end).await.identify().await?.serve().await
}

/// The way to one client's ears.
struct Outbound {
    hub: Arc<Hub>,
    key: Key,
}

impl Outbound {
    async fn say(&self, frame: ServerFrame) {
        self.hub.say(self.key, frame).await;
    }

    /// Says that a command failed.
    async fn error(&self, fault: Fault, op: Option<String>, nonce: Option<String>) {
        let retry_after = fault.retry_after.map(|wait| u64::try_from(wait.as_millis()).unwrap_or(u64::MAX));
        self.say(ServerFrame::Error(ErrorFrame { code: fault.code, message: fault.message, op, nonce, retry_after })).await;
    }
}

/// What both states need.
struct Client {
    reader: Reader,
    out: Outbound,
    heard: Arc<AtomicU64>,
    pace: Pace,
    beats: Pace,
    shutdown: CancellationToken,
}

impl Client {
    /// The next frame that is within the rate. Whoever says nothing at all for so long is gone.
    async fn hear(&mut self, patience: Duration) -> Result<Result<ClientFrame, FrameError>, Close> {
        loop {
            // Only between two commands: one that is under way is finished.
            let said = select! {
                biased; // however much is said
                () = self.shutdown.cancelled() => return Err(Some(CloseCode::GoingAway)),
                said = timeout(patience, self.reader.recv()) => match said {
                    Ok(said) => said?,
                    Err(_) => timeout(SECOND_LOOK, self.reader.recv()).await.map_err(|_| Some(CloseCode::TimedOut))??,
                },
            };
            self.heard.store(self.out.hub.millis(), Ordering::Relaxed);
            let Said::Text(text) = said else { continue };
            let frame = ClientFrame::read(&text);
            // A heartbeat is no command: somebody at the limit of his commands is still there.
            let beat = matches!(frame, Ok(ClientFrame::Heartbeat(())));
            match if beat { self.beats.step() } else { self.pace.step() } {
                Ok(()) => return Ok(frame),
                Err(Some(wait)) => {
                    let fault = Fault::new(Code::RATE_LIMITED, "too many commands").retry_after(wait);
                    let (op, nonce) = frame.map(|frame| names(&frame)).unwrap_or_default();
                    self.out.error(fault, op, nonce).await;
                }
                Err(None) => return Err(Some(CloseCode::RateLimited)),
            }
        }
    }

    /// The last words, and a while for the client to answer them, or for our answer to its own.
    async fn farewell(&mut self, close: Close) {
        if let Some(code) = close {
            let key = self.out.key;
            if code == CloseCode::GoingAway {
                let wait = |most: Duration| chance::rng().random_range(Duration::ZERO..most);
                let retry_after = 500 + wait(Duration::from_secs(2)).as_millis() as u64;
                self.out.say(ServerFrame::Reconnect(Reconnect { retry_after })).await;
                sleep(wait(SPREAD)).await;
            }
            if code.invalidates() {
                self.out.say(ServerFrame::InvalidSession(())).await;
            }
            self.out.hub.post(key, Post::Close { key, code }).await;
        }
        let _ = timeout(FAREWELL, self.reader.drain()).await;
    }
}

/// A command's op and nonce, for the answer to it.
fn names(frame: &ClientFrame) -> (Option<String>, Option<String>) {
    match frame {
        ClientFrame::Heartbeat(()) => (Some("HEARTBEAT".into()), None),
        ClientFrame::SendMessage(message) => (Some("SEND_MESSAGE".into()), message.nonce.clone()),
        ClientFrame::TypingStart(_) => (Some("TYPING_START".into()), None),
        _ => (None, None),
    }
}

/// HELLO was said; who is there is not known yet.
struct Greeted<'a> {
    client: &'a mut Client,
    end: &'a End,
    until: Instant,
}

impl<'a> Greeted<'a> {
    async fn hello(client: &'a mut Client, end: &'a End) -> Self {
        let settings = &client.out.hub.settings;
        let until = Instant::now() + settings.limits.identify;
        let heartbeat_interval = u64::try_from(settings.heartbeat.as_millis()).unwrap_or(u64::MAX);
        client.out.say(ServerFrame::Hello(Hello { heartbeat_interval })).await;
        Self { client, end, until }
    }

    async fn identify(self) -> Result<Active<'a>, Close> {
        let identify = loop {
            let hear = self.client.hear(Duration::MAX);
            let frame = timeout_at(self.until, hear).await.map_err(|_| Some(CloseCode::NotIdentified))??;
            match frame {
                Ok(ClientFrame::Heartbeat(())) => self.client.out.say(ServerFrame::HeartbeatAck(())).await,
                Ok(ClientFrame::Identify(identify)) => break (identify, None),
                Ok(ClientFrame::Resume(Resume { token, session_id, device, intents, attempt, epoch, after })) => {
                    break (Identify { token, device, intents, attempt }, Some(Cut { session: session_id, epoch, after }));
                }
                // Without what serde says of it, which may quote a token.
                Err(FrameError::Body { op, .. }) if op == "IDENTIFY" || op == "RESUME" => {
                    self.client.out.error(Fault::new(Code::MALFORMED, format!("bad {op}")), Some(op), None).await;
                }
                Err(FrameError::Malformed(_)) => return Err(Some(CloseCode::NotAFrame)),
                _ => return Err(Some(CloseCode::NotIdentified)),
            }
        };
        let (Identify { token, device, intents, attempt }, cut) = identify;
        let op = if cut.is_some() { "RESUME" } else { "IDENTIFY" };
        let device = match device.as_deref().map(Device::new).transpose() {
            Ok(device) => device,
            Err(error) => {
                self.client.out.error(error.into(), Some(op.into()), None).await;
                return Err(Some(CloseCode::NotIdentified));
            }
        };
        let Client { out, heard, reader, shutdown, .. } = &*self.client;
        let intents = intents.unwrap_or(Intents::all());
        let entrant = Entrant { token: &token, device, intents, attempt, cut, end: self.end, heard };
        let enter = out.hub.enter(out.key, entrant);
        let entered = select! {
            biased;
            () = shutdown.cancelled() => return Err(Some(CloseCode::GoingAway)),
            // Each step has its time; all together have this.
            entered = timeout(out.hub.settings.limits.command * 4, enter) => entered,
        };
        let seat = match entered.unwrap_or(Err(Refused::Close(CloseCode::TryLater))) {
            Ok(seat) => seat,
            Err(Refused::Close(code)) => return Err(Some(code)),
            // Only a token that is surely bad is called so: its owner throws it away.
            Err(Refused::Fault(fault)) if fault.code == Code::UNAUTHORIZED => return Err(Some(CloseCode::BadToken)),
            Err(Refused::Fault(fault)) => {
                tracing::warn!(error = %fault, code = %fault.code, "a session could not begin");
                out.error(fault, Some(op.into()), None).await;
                return Err(Some(CloseCode::TryLater));
            }
        };
        reader.trust();
        Ok(Active { client: self.client, seat })
    }
}

/// A session.
struct Active<'a> {
    client: &'a mut Client,
    seat: Seat,
}

impl Active<'_> {
    async fn serve(mut self) -> Result<Infallible, Close> {
        let patience = self.client.out.hub.settings.heartbeat.mul_f32(1.5);
        loop {
            match self.client.hear(patience).await? {
                Ok(frame) => self.answer(frame).await?,
                Err(FrameError::Malformed(_)) => return Err(Some(CloseCode::NotAFrame)),
                Err(FrameError::UnknownOp(op)) => {
                    let fault = Fault::new(Code::UNKNOWN_OP, format!("unknown op {op:?}"));
                    self.client.out.error(fault, Some(op), None).await;
                }
                Err(FrameError::Body { op, source }) => {
                    let fault = Fault::new(Code::MALFORMED, format!("bad {op}: {source}"));
                    self.client.out.error(fault, Some(op), None).await;
                }
                Err(other) => {
                    self.client.out.error(Fault::new(Code::MALFORMED, other.to_string()), None, None).await;
                }
            }
        }
    }

    async fn answer(&mut self, frame: ClientFrame) -> Result<(), Close> {
        let (op, nonce) = names(&frame);
        let done = match frame {
            ClientFrame::Heartbeat(()) => {
                self.client.out.hub.heartbeat(self.client.out.key).await;
                Ok(())
            }
            ClientFrame::SendMessage(message) => self.send(message).await,
            ClientFrame::TypingStart(typing) => self.typing(typing).await,
            ClientFrame::Identify(_) | ClientFrame::Resume(_) => return Err(Some(CloseCode::AlreadyIdentified)),
            _ => Err(Fault::new(Code::UNSUPPORTED, "not supported by this server")),
        };
        if let Err(fault) = done {
            if fault.code.status() >= 500 {
                tracing::warn!(error = %fault, source = ?std::error::Error::source(&fault), op, "a command failed");
            }
            self.client.out.error(fault, op, nonce).await;
        }
        Ok(())
    }

    async fn send(&self, message: SendMessage) -> Result<()> {
        let Outbound { hub, .. } = &self.client.out;
        // What could not be told for long is not taken.
        hub.bus.ready()?;
        let _room = hub.room()?;
        let nonce = message.nonce.clone();
        let unknown = |_| Fault::new(Code::OUTCOME_UNKNOWN, "it may or may not be stored; send it again with the same nonce");
        let sending = hub.backend.send_message(Actor::User(self.seat.user), message);
        let sent = timeout(hub.settings.limits.command, sending).await.map_err(unknown)??;
        #[cfg(feature = "failpoints")]
        fail::fail_point!("gw.after_store", |_| std::process::abort());
        // Stored is accepted: if the bus does not take the events now, they come later.
        if let Err(error) = hub.bus.publish(&sent.events).await {
            tracing::warn!(%error, "a message could not be published yet");
        }
        #[cfg(feature = "failpoints")]
        fail::fail_point!("gw.after_publish", |_| std::process::abort());
        if let Some(nonce) = nonce {
            let (message_id, channel_id) = (sent.message.message_id, sent.message.channel_id);
            self.client.out.say(ServerFrame::MessageAck(MessageAck { nonce, message_id, channel_id })).await;
        }
        #[cfg(feature = "failpoints")]
        fail::fail_point!("gw.after_ack", |_| std::process::abort());
        Ok(())
    }

    async fn typing(&self, typing: TypingStart) -> Result<()> {
        let Outbound { hub, key } = &self.client.out;
        hub.typing(*key, self.seat.user, typing.channel_id).await
    }
}

/// How fast a client may speak.
struct Pace {
    limiter: DefaultDirectRateLimiter,
    refused: u32,
    most: u32,
}

impl Pace {
    /// So many a second, so many at once; and how many may be refused before that has gone on for too long.
    fn new(per_second: NonZeroU32, burst: NonZeroU32, most: u32) -> Self {
        let quota = Quota::per_second(per_second).allow_burst(burst);
        Self { limiter: RateLimiter::direct(quota), refused: 0, most }
    }

    /// One step. Too fast: how long to wait, or nothing if that has gone on for too long.
    fn step(&mut self) -> Result<(), Option<Duration>> {
        match self.limiter.check() {
            Ok(()) => {
                self.refused = self.refused.saturating_sub(1);
                Ok(())
            }
            Err(_) if self.refused >= self.most => Err(None),
            Err(not_until) => {
                self.refused += 1;
                Err(Some(not_until.wait_time_from(self.limiter.clock().now())))
            }
        }
    }
}
