//! Clients that behave well and write down what happens: observers that resume, senders that repeat.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use jiscord_core::MessageId;
use jiscord_e2e::{Caller, End, Person, Socket};
use rand::Rng;
use serde_json::{Value, json};
use tokio::{
    select,
    sync::Notify,
    time::{Instant, interval, sleep, timeout},
};

use crate::{notes::Notes, record::Heard};

/// How long a client waits for an answer before it takes the connection for dead.
const ANSWER: Duration = Duration::from_secs(8);
/// The first wait before coming back, and the longest.
const FIRST_WAIT: Duration = Duration::from_millis(100);
const LONGEST_WAIT: Duration = Duration::from_secs(2);
/// How much before the last known message a channel is read again, in microseconds.
const READ_BEFORE: u64 = 90_000_000;
/// What is worth another try.
const PASSING: [&str; 6] = ["busy", "unavailable", "outcome_unknown", "rate_limited", "storage_full", "internal"];

/// What all clients know.
pub struct World {
    /// Where they write.
    pub notes: Arc<Notes>,
    /// The gateways' addresses.
    pub gateways: Vec<String>,
    /// How often to send HEARTBEAT.
    pub beat: Duration,
    /// The guilds, and the channels to watch.
    pub guilds: Vec<String>,
    /// The channels.
    pub channels: Vec<String>,
}

/// Waits that grow and are spread at random.
struct Waits(Duration);

impl Waits {
    fn new() -> Self {
        Self(FIRST_WAIT)
    }

    async fn wait(&mut self) {
        let part = rand::rng().random_range(0.5..1.0);
        sleep(self.0.mul_f64(part)).await;
        self.0 = (self.0 * 2).min(LONGEST_WAIT);
    }
}

fn text(value: &Value) -> String {
    value.as_str().unwrap_or_default().to_owned()
}

fn micros(id: &str) -> u64 {
    id.parse().ok().and_then(MessageId::micros).unwrap_or_default()
}

/// A session to go on with.
struct Session {
    id: String,
    epoch: String,
    after: u64,
}

/// Reads channels again, beside whatever its observer hears meanwhile.
pub struct Reader {
    world: Arc<World>,
    observer: usize,
    data: Caller,
    /// The newest message that is known, of each channel, and from where on to read.
    known: Mutex<HashMap<String, (u64, Option<u64>)>>,
    wanted: Notify,
}

impl Reader {
    /// For this observer, as this user.
    pub fn new(world: Arc<World>, observer: usize, data: Caller) -> Arc<Self> {
        let known = world.channels.iter().map(|channel| (channel.clone(), (0, None))).collect();
        Arc::new(Self { world, observer, data, known: Mutex::new(known), wanted: Notify::new() })
    }

    /// This message of this channel is known.
    pub fn knows(&self, channel: &str, id: &str) {
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        let newest = &mut known.entry(channel.to_owned()).or_default().0;
        *newest = micros(id).max(*newest);
    }

    /// Everything is to be read from 90 seconds before what is known now.
    pub fn want(&self) {
        for (newest, from) in self.known.lock().unwrap_or_else(PoisonError::into_inner).values_mut() {
            let since = newest.saturating_sub(READ_BEFORE);
            *from = Some(from.map_or(since, |from| from.min(since)));
        }
        self.wanted.notify_one();
    }

    fn wanted_from(&self, channel: &str) -> Option<u64> {
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        known.get_mut(channel).and_then(|(_, from)| from.take())
    }

    /// Reads whenever it is wanted.
    pub async fn run(self: Arc<Self>) {
        loop {
            self.wanted.notified().await;
            for channel in &self.world.channels {
                let Some(from) = self.wanted_from(channel) else { continue };
                let mut waits = Waits::new();
                let rows = loop {
                    match self.read(channel, from).await {
                        Some(rows) => break rows,
                        None => waits.wait().await,
                    }
                };
                for (id, _) in &rows {
                    self.knows(channel, id);
                }
                self.world.notes.read(self.observer, rows);
            }
        }
    }

    /// From the newest back to what was written before `from`.
    async fn read(&self, channel: &str, from: u64) -> Option<Vec<(String, String)>> {
        let mut rows = Vec::new();
        let mut query = String::new();
        loop {
            let path = format!("/channels/{channel}/messages?limit=100{query}");
            let answer = self.data.try_get(&path, ANSWER).await.filter(|answer| answer.status == 200)?;
            let page = answer.body["messages"].as_array()?;
            rows.extend(page.iter().map(|row| (text(&row["message_id"]), text(&row["content"]))));
            if rows.last().is_some_and(|(id, _)| micros(id) < from) {
                return Some(rows);
            }
            let Some(next) = answer.body["nextPageState"].as_str() else { return Some(rows) };
            query = format!("&pageState={next}");
        }
    }
}

/// Watches all channels, resumes after each cut, on another gateway where there is one.
pub struct Observer {
    world: Arc<World>,
    name: String,
    number: usize,
    /// Its attempts to have a session are in order.
    client: u32,
    person: Person,
    reader: Arc<Reader>,
}

/// How a connection ended.
enum Visit {
    /// There was a session.
    Over,
    /// There was none.
    Failed,
    /// Not to come back.
    Refused(u16),
}

impl Observer {
    /// Writes down under this name.
    pub fn new(world: &Arc<World>, name: &str, person: Person) -> Self {
        let number = world.notes.observer(name);
        let reader = Reader::new(world.clone(), number, person.data.clone());
        Self { world: world.clone(), name: name.to_owned(), number, client: rand::random(), person, reader }
    }

    /// Watches for as long as it is polled.
    pub async fn run(self) {
        tokio::join!(self.reader.clone().run(), self.watch());
    }

    async fn watch(&self) {
        let (mut session, mut waits) = (None, Waits::new());
        for turn in self.number.. {
            match self.visit(turn, &mut session).await {
                Visit::Over => waits = Waits::new(),
                Visit::Failed => {}
                Visit::Refused(code) => {
                    return self.world.notes.broken(format!("{} was sent away with {code}", self.name));
                }
            }
            waits.wait().await;
        }
    }

    async fn visit(&self, turn: usize, session: &mut Option<Session>) -> Visit {
        let url = &self.world.gateways[turn % self.world.gateways.len()];
        let Some(mut socket) = Socket::dial(url, ANSWER).await else { return Visit::Failed };
        let mut hello =
            json!({"token": self.person.token, "device": self.name, "attempt": {"client": self.client, "number": turn}});
        let op = match session {
            None => "IDENTIFY",
            Some(Session { id, epoch, after }) => {
                hello["sessionId"] = json!(id);
                hello["epoch"] = json!(epoch);
                hello["after"] = json!(after);
                "RESUME"
            }
        };
        if timeout(ANSWER, socket.say(op, hello)).await.is_err() {
            return Visit::Failed;
        }
        let mut beats = interval(self.world.beat);
        beats.reset();
        let mut unanswered: Option<Instant> = Some(Instant::now());
        let mut lived = false;
        let end = loop {
            let frame = select! {
                frame = socket.next() => frame,
                _ = beats.tick() => {
                    let since = *unanswered.get_or_insert_with(Instant::now);
                    if since.elapsed() > ANSWER || timeout(ANSWER, socket.say("HEARTBEAT", Value::Null)).await.is_err() {
                        break End(None);
                    }
                    continue;
                }
            };
            match frame {
                Ok(frame) => {
                    if ["READY", "RESUMED", "HEARTBEAT_ACK"].contains(&frame["op"].as_str().unwrap_or_default()) {
                        unanswered = None;
                    }
                    lived |= self.hear(&frame, session);
                }
                Err(end) => break end,
            }
        };
        match end {
            End(Some(4012)) => {
                *session = None;
                Visit::Failed
            }
            End(Some(code @ (4002..=4005 | 4008 | 4010 | 1002 | 1007 | 1009))) => Visit::Refused(code),
            End(_) if lived => Visit::Over,
            End(_) => Visit::Failed,
        }
    }

    /// Whether this says that the session is on.
    fn hear(&self, frame: &Value, session: &mut Option<Session>) -> bool {
        let notes = &self.world.notes;
        let (d, p) = (&frame["d"], frame["p"].as_u64());
        let op = frame["op"].as_str().unwrap_or_default();
        match op {
            "READY" => {
                let epoch = text(&d["epoch"]);
                *session = Some(Session { id: text(&d["sessionId"]), epoch: epoch.clone(), after: p.unwrap_or_default() });
                self.reader.want();
                notes.heard(self.number, Heard::Ready { epoch, p });
                return true;
            }
            "MESSAGE_CREATE" => {
                let id = text(&d["messageId"]);
                self.reader.knows(&text(&d["channelId"]), &id);
                notes.heard(self.number, Heard::Message { p, id, nonce: text(&d["content"]) });
            }
            "RESYNC" => {
                let epoch = text(&d["epoch"]);
                let topics = d["topics"].as_array();
                let ours = |topic: &Value| self.world.guilds.iter().any(|guild| *topic == format!("guild:{guild}"));
                if topics.is_none_or(|topics| topics.iter().any(ours)) {
                    self.reader.want();
                    notes.heard(self.number, Heard::Resync { epoch: epoch.clone(), p });
                }
                if let Some(session) = session {
                    session.epoch = epoch;
                }
            }
            _ => {
                if let Some(p) = p {
                    notes.heard(self.number, Heard::Upto(p));
                }
            }
        }
        if let (Some(session), Some(p)) = (session, p) {
            session.after = p;
        }
        op == "RESUMED"
    }
}

/// Writes one message after the other, each until it is acknowledged.
pub struct Sender {
    world: Arc<World>,
    number: usize,
    /// Its attempts to have a session are in order.
    client: u32,
    person: Person,
    channel: String,
    pace: Duration,
}

/// What came of a try.
enum Try {
    Acked(String),
    /// The connection is good for another.
    Again(Duration),
    /// It is not.
    Lost,
}

impl Sender {
    /// Into this channel, with a pause between two.
    pub fn new(world: &Arc<World>, person: Person, channel: &str, pace: Duration) -> Self {
        let (number, client) = (world.notes.sender(), rand::random());
        Self { world: world.clone(), number, client, person, channel: channel.to_owned(), pace }
    }

    /// Who it is.
    pub fn person(&self) -> &Person {
        &self.person
    }

    /// Over a gateway, until the run is over.
    pub async fn run(self) {
        let mut turn = self.number;
        let mut socket = None;
        for number in 0.. {
            if self.world.notes.is_over() {
                return;
            }
            let nonce = format!("s{}-{number}", self.number);
            let mut waits = Waits::new();
            loop {
                let (connection, on) = match &mut socket {
                    Some((connection, socket)) => (*connection, socket),
                    None => match self.connect(turn).await {
                        Some(new) => {
                            let (connection, socket) = socket.insert((self.world.notes.connection(), new));
                            (*connection, socket)
                        }
                        None => {
                            turn += 1;
                            waits.wait().await;
                            continue;
                        }
                    },
                };
                self.world.notes.sent(&nonce, &self.channel, self.number, number, connection);
                match self.attempt(on, &nonce).await {
                    Try::Acked(id) => {
                        self.world.notes.acked(self.number, &nonce, &id);
                        break;
                    }
                    Try::Again(wait) => {
                        sleep(wait.min(LONGEST_WAIT)).await;
                        waits.wait().await;
                    }
                    Try::Lost => {
                        socket = None;
                        turn += 1;
                        waits.wait().await;
                    }
                }
            }
            sleep(self.pace).await;
        }
    }

    async fn connect(&self, turn: usize) -> Option<Socket> {
        let url = &self.world.gateways[turn % self.world.gateways.len()];
        let mut socket = Socket::dial(url, ANSWER).await?;
        let device = format!("sender {}", self.number);
        // It hears nothing but answers.
        let attempt = json!({"client": self.client, "number": turn});
        let identify = json!({"token": self.person.token, "device": device, "intents": [], "attempt": attempt});
        let ready = async {
            socket.say("IDENTIFY", identify).await;
            loop {
                let frame = socket.next().await.ok()?;
                if frame["op"] == "READY" {
                    return Some(());
                }
            }
        };
        timeout(ANSWER, ready).await.ok()??;
        Some(socket)
    }

    async fn attempt(&self, socket: &mut Socket, nonce: &str) -> Try {
        let talking = async {
            socket.send_once(&self.channel, nonce, nonce).await;
            loop {
                let Ok(frame) = socket.next().await else { return Try::Lost };
                let d = &frame["d"];
                match frame["op"].as_str() {
                    Some("MESSAGE_ACK") if d["nonce"] == nonce => return Try::Acked(text(&d["messageId"])),
                    Some("ERROR") if d["nonce"] == nonce => {
                        if !PASSING.contains(&d["code"].as_str().unwrap_or_default()) {
                            self.world.notes.broken(format!("{nonce} was refused: {frame}"));
                        }
                        return Try::Again(Duration::from_millis(d["retryAfter"].as_u64().unwrap_or_default()));
                    }
                    _ => {}
                }
            }
        };
        timeout(ANSWER, talking).await.unwrap_or(Try::Lost)
    }

    /// Over HTTP, until the run is over.
    pub async fn post(self) {
        for number in 0.. {
            if self.world.notes.is_over() {
                return;
            }
            self.post_one(&format!("s{}-{number}", self.number), number).await;
            sleep(self.pace).await;
        }
    }

    /// One message over HTTP, until it is acknowledged.
    pub async fn post_one(&self, nonce: &str, number: u64) {
        let path = format!("/channels/{}/messages", self.channel);
        let body = json!({"content": nonce, "nonce": nonce});
        let mut waits = Waits::new();
        loop {
            // Each request has a connection of its own.
            self.world.notes.sent(nonce, &self.channel, self.number, number, self.world.notes.connection());
            match self.person.data.try_post(&path, &body, ANSWER).await {
                Some(answer) if answer.status == 201 => {
                    return self.world.notes.acked(self.number, nonce, &text(&answer.body["message_id"]));
                }
                Some(answer) if ![429, 500, 502, 503].contains(&answer.status) => {
                    return self.world.notes.broken(format!("{nonce} was refused: {answer:?}"));
                }
                _ => waits.wait().await,
            }
        }
    }
}
