//! A client that keeps to the SDK's rules: it resumes from 5 seconds before its place, sends one message after the other until
//! each is acknowledged, and stops where another session took its device's place.

use std::{
    collections::{BTreeSet, VecDeque},
    sync::Arc,
    time::Duration,
};

use futures_util::{SinkExt, StreamExt};
use jiscord_core::{
    ClientFrame, Code, GuildId, Placed, Position, ServerFrame, SessionId, UserId,
    frame::{Attempt, CloseCode, Identify, Resume, SendMessage},
};
use tokio::{
    io::DuplexStream,
    time::{Instant, sleep, sleep_until},
};
use tokio_tungstenite::{
    WebSocketStream,
    tungstenite::{Message as Ws, protocol::Role},
};

use super::world::{HEARTBEAT, World, below, chance, upto};
use crate::chance::watch;

/// As in jiscord-client.
const OVERLAP: u64 = 5_000_000;
/// How long a session may take to begin.
const OPENING: Duration = Duration::from_secs(25);
/// How long it takes somebody who was evicted to come back.
const OFFENDED: u64 = 8_000;

/// Why a session ended.
enum End {
    /// To be resumed.
    Lost,
    /// To be begun anew.
    Anew,
    /// Another session has the place.
    Evicted,
}

pub(super) struct Client {
    world: Arc<World>,
    number: usize,
    name: &'static str,
    user: UserId,
    device: Option<&'static str>,
    /// It comes now and then, and takes the place of the one that is there.
    rival: bool,
    session: Option<SessionId>,
    /// The last one to have a session.
    attempt: Attempt,
    epoch: String,
    p: u64,
    /// It never resumes from before this.
    floor: u64,
    outbox: VecDeque<SendMessage>,
    said: u32,
    next_said: Instant,
    /// Asks for a message in every guild.
    probes: watch::Receiver<u32>,
    probed: u32,
    /// When the oldest message is sent, or sent again.
    send_at: Option<Instant>,
}

/// One connection.
struct Line {
    socket: WebSocketStream<DuplexStream>,
    number: u64,
    /// The highest position it brought.
    last: u64,
    /// Up to where everything before was told.
    acked: u64,
    open: bool,
    /// A heartbeat was not answered yet.
    owed: bool,
}

impl Line {
    async fn say(&mut self, frame: ClientFrame) -> Result<(), End> {
        self.socket.send(Ws::text(frame.encode())).await.map_err(|_| End::Lost)
    }
}

impl Client {
    pub(super) fn new(world: &Arc<World>, name: &'static str, device: Option<&'static str>, rival: bool) -> Self {
        let user = world.store.user(name);
        let number = world.record.client(user, device, rival);
        Self {
            world: world.clone(),
            number,
            name,
            user,
            device,
            rival,
            session: None,
            attempt: Attempt { client: number as u32, number: 0 },
            epoch: String::new(),
            p: 0,
            floor: 0,
            outbox: VecDeque::new(),
            said: 0,
            next_said: Instant::now() + upto(3_000),
            probes: world.probes.subscribe(),
            probed: 0,
            send_at: None,
        }
    }

    pub(super) async fn run(mut self) {
        loop {
            if self.rival {
                sleep(Duration::from_secs(4) + upto(20_000)).await;
                if self.world.is_calm() {
                    return;
                }
            }
            let end = self.session().await;
            self.send_at = Some(Instant::now());
            let wait = match end {
                End::Evicted => {
                    self.world.record.evicted(self.number);
                    self.session = None;
                    upto(OFFENDED)
                }
                End::Anew => {
                    self.session = None;
                    upto(100)
                }
                End::Lost => upto(if !self.world.is_calm() && chance(0.1) { 8_000 } else { 500 }),
            };
            sleep(wait).await;
        }
    }

    async fn session(&mut self) -> End {
        let Some(socket) = self.world.connect(below(2)) else { return End::Lost };
        let mut line = Line {
            socket: WebSocketStream::from_raw_socket(socket, Role::Client, None).await,
            number: 0,
            last: 0,
            acked: 0,
            open: false,
            owed: false,
        };
        let end = self.talk(&mut line).await;
        self.world.record.ended(self.number, self.device, line.number, self.outbox.len());
        match end {
            Ok(()) => {
                self.world.record.note("cut", self.number.to_string());
                if chance(0.3) {
                    // Half open: nobody tells the gateway.
                    tokio::spawn(async move {
                        sleep(Duration::from_secs(20)).await;
                        drop(line);
                    });
                }
                End::Lost
            }
            Err(end) => end,
        }
    }

    /// Ends by itself when it is cut.
    async fn talk(&mut self, line: &mut Line) -> Result<(), End> {
        let (opening, cut) = (Instant::now() + OPENING, Instant::now() + Duration::from_secs(1) + upto(15_000));
        let mut beat = tokio::time::interval(HEARTBEAT);
        loop {
            self.world.record.stands(self.number, line.open, self.outbox.len());
            // It speaks of its own accord while others may, and one after the other.
            if self.next_said <= Instant::now() {
                self.next_said = Instant::now() + Duration::from_millis(200) + upto(4_000);
                if !self.world.is_calm() && self.outbox.len() < 5 {
                    self.compose();
                }
            }
            let send_at = self.send_at.filter(|_| line.open && !self.outbox.is_empty());
            let sends = sleep_until(send_at.unwrap_or_else(Instant::now));
            tokio::select! {
                biased;
                next = line.socket.next() => match next {
                    Some(Ok(Ws::Text(text))) => self.hear(line, &text).await?,
                    Some(Ok(Ws::Close(frame))) => return Err(self.closed(frame.map_or(0, |frame| frame.code.into()))),
                    Some(Ok(_)) => {}
                    Some(Err(_)) | None => return Err(End::Lost),
                },
                () = sends, if send_at.is_some() => {
                    self.send_at = Some(Instant::now() + Duration::from_secs(10));
                    line.say(ClientFrame::SendMessage(self.outbox[0].clone())).await?;
                }
                () = sleep_until(self.next_said) => {}
                _ = beat.tick(), if line.open => {
                    if line.owed {
                        return Err(End::Lost);
                    }
                    line.owed = true;
                    line.say(ClientFrame::Heartbeat(())).await?;
                }
                () = sleep_until(opening), if !line.open => {
                    self.world.record.note("unanswered", self.number.to_string());
                    return Err(End::Lost);
                }
                () = sleep_until(cut), if !self.world.is_calm() || self.rival => return Ok(()),
                Ok(probe) = self.probes.wait_for(|probe| *probe > self.probed) => {
                    self.probed = *probe;
                    self.compose_everywhere();
                }
            }
        }
    }

    fn closed(&self, code: u16) -> End {
        self.world.record.note("closed", format!("{} {code}", self.number));
        match CloseCode::from_code(code) {
            Some(CloseCode::Evicted) => End::Evicted,
            Some(CloseCode::ResumeRefused) => End::Anew,
            Some(CloseCode::TryLater | CloseCode::GoingAway | CloseCode::TimedOut) => End::Lost,
            _ => {
                self.world.record.violated(format!("client {} was closed with {code}", self.number));
                End::Lost
            }
        }
    }

    /// Writes a message somewhere.
    fn compose(&mut self) {
        let guilds: Vec<_> = self.world.store.guilds_of(self.user).into_iter().collect();
        if !guilds.is_empty() {
            self.compose_in(guilds[below(guilds.len())]);
        }
    }

    fn compose_everywhere(&mut self) {
        self.world.store.guilds_of(self.user).into_iter().for_each(|guild| self.compose_in(guild));
    }

    fn compose_in(&mut self, guild: GuildId) {
        let channels = self.world.store.channels_of(guild);
        let channel_id = channels[below(channels.len())];
        let nonce = format!("{} {}", self.number, self.said);
        self.said += 1;
        self.outbox.push_back(SendMessage { channel_id, content: nonce.clone(), nonce: Some(nonce), reply_to: None });
        if self.outbox.len() == 1 {
            self.send_at = Some(Instant::now());
        }
    }

    fn is_done(&mut self, nonce: &str) {
        if self.outbox.front().is_some_and(|first| first.nonce.as_deref() == Some(nonce)) {
            self.outbox.pop_front();
            self.send_at = Some(Instant::now());
        }
    }

    async fn hear(&mut self, line: &mut Line, text: &str) -> Result<(), End> {
        let world = self.world.clone();
        let record = &world.record;
        let Placed { frame, p } = Placed::read(text).unwrap();
        let p = p.map_or(0, |p| p.0);
        record.note("heard", format!("{} {} {p}", self.number, frame.op()));
        match frame {
            ServerFrame::Hello(_) => {
                let (token, device) = (self.name.to_owned(), self.device.map(str::to_owned));
                self.attempt.number += 1;
                let attempt = Some(self.attempt);
                let first = match self.session {
                    None => ClientFrame::Identify(Identify { token, device, intents: None, attempt }),
                    Some(session_id) => {
                        line.last = self.p.saturating_sub(OVERLAP).max(self.floor);
                        let (epoch, after) = (self.epoch.clone(), Position(line.last));
                        ClientFrame::Resume(Resume { token, session_id, device, intents: None, attempt, epoch, after })
                    }
                };
                line.say(first).await?;
            }
            ServerFrame::Ready(ready) => {
                (self.session, self.epoch, self.p, self.floor) = (Some(ready.session_id), ready.epoch, p, p);
                record.ready(self.number, p, ready.guilds.iter().map(|guild| guild.guild_id).collect::<BTreeSet<_>>());
                self.begin(line);
            }
            ServerFrame::Resumed(_) => self.begin(line),
            ServerFrame::Resync(resync) => {
                if resync.epoch != self.epoch {
                    (self.epoch, self.p, self.floor) = (resync.epoch.clone(), p, p);
                }
                record.resync(self.number, p, resync, &world.store);
            }
            ServerFrame::HeartbeatAck(()) => {
                line.owed = false;
                // An event of two topics is told for each, and may come to this client with the second.
                self.p = self.p.max(p);
                line.acked = line.acked.max(p);
                return Ok(());
            }
            ServerFrame::MessageAck(ack) => {
                self.is_done(&ack.nonce);
                record.acknowledged(self.user, ack.nonce, ack.message_id);
            }
            ServerFrame::Error(error) => match error.nonce {
                Some(nonce) if error.code == Code::NOT_FOUND => self.is_done(&nonce),
                _ => self.send_at = Some(Instant::now() + Duration::from_millis(300)),
            },
            ServerFrame::InvalidSession(()) | ServerFrame::Reconnect(_) => {}
            event => {
                if p <= line.last || p < line.acked {
                    record.violated(format!("I9 client {} is told {p} after {}: {text}", self.number, line.last));
                }
                record.told(self.number, (self.device, line.number), p, &event, text);
            }
        }
        line.last = line.last.max(p);
        self.p = self.p.max(p);
        Ok(())
    }

    fn begin(&self, line: &mut Line) {
        line.open = true;
        line.number = self.world.record.began(self.user, self.device);
    }
}
