//! A running Jiscord with clients on it.

use std::{path::Path, sync::Arc, time::Duration};

use jiscord_client::Endpoints;
use jiscord_e2e::{Beneath, Deployment, Person, Proxy, Socket};
use rand::{Rng, rngs::StdRng};
use rusqlite::Connection;
use serde_json::{Value, json};
use tokio::{
    sync::{mpsc, oneshot},
    task::{JoinSet, block_in_place},
};

use crate::{
    client::{Observer, Sender, World},
    node::Node,
    notes::Notes,
    record::{Record, Row},
    sdk::Program,
    tamper::{CqlAnswers, Pushes, RedisPushes},
};

/// How long all clients may take to be well after a fault. Something that became visible late is told within 40 s.
pub const RECOVERY: Duration = Duration::from_secs(90);
/// Between two messages of a sender.
const PACE: Duration = Duration::from_millis(150);
/// How often clients are to send HEARTBEAT; they do twice as often.
const HEARTBEAT: Duration = Duration::from_secs(2);
/// How many users a storm is made of. One has at most 1,000 devices.
const CROWD: usize = 5;
/// How many observers there are on raw sockets.
const OBSERVERS: usize = 4;

/// What is under test.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Shape {
    /// The all-in-one on SQLite.
    One,
    /// Three services and a second gateway, on a database and Redis.
    Services,
}

impl Shape {
    /// Its name.
    pub fn name(self) -> &'static str {
        match self {
            Self::One => "one",
            Self::Services => "services",
        }
    }

    /// The shape of this name.
    pub fn named(name: &str) -> Option<Self> {
        [Self::One, Self::Services].into_iter().find(|shape| shape.name() == name)
    }
}

/// Traps in all wires.
#[derive(Default)]
pub struct Traps {
    /// On the second wire of the gateways. Only raw clients are there: the SDK passes over what comes twice.
    pub pushes: Arc<Pushes>,
    /// Between the services and Redis.
    pub redis: Arc<RedisPushes>,
    /// Between the services and the database.
    pub cql: Arc<CqlAnswers>,
}

/// The system, its wires, and who uses it.
pub struct Stage {
    /// The system.
    pub server: Deployment,
    /// Which it is.
    pub shape: Shape,
    /// What clients write down.
    pub notes: Arc<Notes>,
    /// What is random about the faults.
    pub random: StdRng,
    /// In front of the gateways; of one there are two.
    pub wires: Vec<Proxy>,
    /// What may fall into the wires.
    pub traps: Traps,
    /// A database of its own, which may be killed.
    pub(crate) node: Option<Arc<Node>>,
    /// Whether the programs stop at failpoints.
    pub failpoints: bool,
    /// How many sessions storm.
    pub many: usize,
    /// How long to wait, in the end, for what was acknowledged and is not learned of.
    pub patience: Duration,
    /// Somebody whom nobody watches.
    pub spare: Person,
    /// A channel that only he is in.
    pub noise: String,
    /// A guild that all are in, and in which nothing happens but for [`Self::quiet_word`].
    pub quiet_guild: String,
    world: Arc<World>,
    quiet: Sender,
    loud: Sender,
    words: u64,
    /// Users of whom storms are made.
    pub crowd: Vec<Person>,
    /// What was measured.
    pub figures: Vec<String>,
    /// Ends the program on the SDK, which then goes on where it was.
    pub restarts: mpsc::Sender<oneshot::Sender<()>>,
    clients: JoinSet<()>,
    writers: JoinSet<()>,
}

/// What the system is set up with: waits shortened, limits out of the way but for those that faults are about.
const SETTINGS: [(&str, &str); 13] = [
    ("JISCORD_HEARTBEAT_MS", "2000"),
    ("JISCORD_LIMIT_COMMANDS_PER_SECOND", "100000"),
    ("JISCORD_LIMIT_COMMANDS_BURST", "100000"),
    ("JISCORD_LIMIT_HTTP_PER_SECOND", "100000"),
    ("JISCORD_LIMIT_HTTP_BURST", "100000"),
    ("JISCORD_LIMIT_SOCKETS_PER_ADDRESS", "100000"),
    ("JISCORD_LIMIT_DEVICES", "1000"),
    ("JISCORD_LIMIT_HEAD_MS", "1000"),
    ("JISCORD_LIMIT_IDENTIFY_MS", "5000"),
    ("JISCORD_LIMIT_QUEUE_BYTES", "65536"),
    ("JISCORD_LIMIT_EVENT_QUEUE", "200"),
    ("JISCORD_LIMIT_LOGIN_BURST", "40"),
    ("JISCORD_LOG", "info"),
];

impl Stage {
    /// Starts all of it, on this database or the one that all tests share, and returns when every observer hears what is said.
    ///
    /// # Panics
    ///
    /// If that is not possible.
    pub async fn set(shape: Shape, random: StdRng, database: Option<String>, failpoints: bool) -> Self {
        let traps = Traps::default();
        let server = match shape {
            Shape::One => Deployment::one(&SETTINGS).await,
            Shape::Services => {
                let beneath = Beneath::tampering(database, Some(traps.cql.tampering()), Some(traps.redis.tampering())).await;
                Deployment::doubled_over(beneath, &SETTINGS).await
            }
        };
        let mut wires = Vec::new();
        for gateway in 0..2 {
            let url = server.ws_of(gateway);
            let there = url.trim_start_matches("ws://").trim_end_matches("/ws").parse().expect("an address");
            wires.push(Proxy::tampering(there, (gateway == 1).then(|| traps.pushes.tampering())).await);
        }

        let owner = server.register("owner").await;
        let (guild, quiet_guild) = (owner.create_guild("Loud").await, owner.create_guild("Quiet").await);
        let mut channels = Vec::new();
        for (guild, name) in [(&guild, "one"), (&guild, "two"), (&quiet_guild, "three")] {
            channels.push(owner.create_channel(guild, name).await);
        }
        let mut people = Vec::new();
        for name in ["Ada", "Bob", "Cyd", "Dan"] {
            let person = server.register(name).await;
            person.join(&guild).await;
            person.join(&quiet_guild).await;
            people.push(person);
        }
        let spare = server.register("spare").await;
        let mut crowd = Vec::new();
        for n in 0..CROWD {
            crowd.push(server.register(&format!("crowd{n}")).await);
        }
        let noise = spare.create_channel(&spare.create_guild("Noise").await, "noise").await;

        let notes = Arc::new(Notes::default());
        let world = Arc::new(World {
            notes: notes.clone(),
            gateways: wires.iter().map(|wire| format!("ws://{}/ws", wire.address())).collect(),
            beat: HEARTBEAT / 2,
            guilds: vec![guild, quiet_guild.clone()],
            channels,
        });
        let endpoints = Endpoints::services(&server.auth(), &server.data(), &world.gateways[0]).expect("addresses");
        let mut clients = JoinSet::new();
        for n in 0..OBSERVERS {
            clients.spawn(Observer::new(&world, &format!("observer {n}"), people[n % people.len()].clone()).run());
        }
        let (restarts, asked) = mpsc::channel(1);
        clients.spawn(Program::new(&world, "sdk", people[0].clone(), endpoints.clone()).watch(asked));
        let mut writers = JoinSet::new();
        for (n, person) in people.iter().enumerate() {
            let sender = |person: &Person| Sender::new(&world, person.clone(), &world.channels[n % 2], PACE);
            writers.spawn(sender(person).run());
            if n == 0 {
                writers.spawn(sender(&owner).post());
            }
        }
        let (program, channel) = (Program::new(&world, "sdk writer", people[1].clone(), endpoints), world.channels[0].clone());
        writers.spawn(async move { program.write(&channel, PACE).await });
        let word = |channel: usize| Sender::new(&world, owner.clone(), &world.channels[channel], PACE);
        let mut stage = Self {
            shape,
            notes,
            random,
            wires,
            traps,
            node: None,
            failpoints,
            many: 100,
            patience: RECOVERY,
            spare,
            noise,
            quiet_guild,
            quiet: word(2),
            loud: word(0),
            words: 0,
            crowd,
            figures: Vec::new(),
            restarts,
            clients,
            writers,
            server,
            world,
        };
        assert!(stage.is_well().await, "not all hear what is said before any fault");
        stage
    }

    /// One of two gateways, or the only one.
    pub fn any_gateway(&mut self) -> usize {
        self.random.random_range(0..2)
    }

    /// Says something in the quiet guild, and what.
    pub async fn quiet_word(&mut self) -> String {
        self.word(true).await
    }

    /// Of somebody in the quiet guild.
    pub fn quiet_token(&self) -> String {
        self.quiet.person().token.clone()
    }

    async fn word(&mut self, quiet: bool) -> String {
        self.words += 1;
        let word = format!("{} {}", if quiet { "quiet" } else { "loud" }, self.words);
        let sender = if quiet { &self.quiet } else { &self.loud };
        // Until it is stored, or the run is given up.
        let _ = tokio::time::timeout(RECOVERY, sender.post_one(&word, self.words)).await;
        word
    }

    /// Waits until all observers have learned of words said now, and every sender has been acknowledged again. Writes down who
    /// does not.
    pub async fn is_well(&mut self) -> bool {
        let before = self.notes.acknowledgements();
        let words = [self.word(false).await, self.word(true).await];
        let heard = |notes: &Notes| words.iter().all(|word| notes.ignorant_of(word).is_empty());
        let sent = |notes: &Notes| {
            let now = notes.acknowledgements();
            notes.is_over() || now.iter().zip(&before).all(|(now, before)| now > before)
        };
        if self.notes.until(RECOVERY, |notes| heard(notes) && sent(notes)).await {
            return true;
        }
        for word in &words {
            for name in self.notes.ignorant_of(word) {
                self.notes.stuck(format!("{name}, which does not learn of {word:?}"));
            }
        }
        if !sent(&self.notes) {
            let now = self.notes.acknowledgements();
            let silent: Vec<_> = (0..now.len()).filter(|n| before.get(*n) == now.get(*n)).collect();
            self.notes.stuck(format!("of senders {silent:?} at least one"));
        }
        false
    }

    /// Waits for so many acknowledgements more; false if they do not come.
    pub async fn more_acknowledged(&self, more: u64) -> bool {
        let all = |notes: &Notes| notes.acknowledgements().iter().sum::<u64>();
        let wanted = all(&self.notes) + more;
        self.notes.until(RECOVERY, |notes| all(notes) >= wanted).await
    }

    /// A session of somebody whom nobody watches.
    pub async fn session(&mut self, gateway: usize, device: &str) -> Option<(Socket, Value)> {
        session(&self.server.ws_of(gateway), &self.spare.token, device).await
    }

    /// Lets the writers end, and reads what there is in the end.
    pub async fn end(mut self) -> Record {
        self.notes.end();
        let writers = async { while self.writers.join_next().await.is_some() {} };
        if tokio::time::timeout(RECOVERY, writers).await.is_err() {
            self.notes.stuck("a sender, at the end");
        }
        self.is_well().await;
        // What the last ones killed left behind comes later. What does not come is found in the record.
        self.notes.until(self.patience, Notes::all_is_learned).await;
        self.clients.shutdown().await;
        let mut record = self.notes.record();
        for channel in &self.world.channels {
            for row in self.quiet.person().history(channel).await {
                let [id, nonce] = ["message_id", "content"].map(|field| row[field].as_str().unwrap_or_default().to_owned());
                record.stored.push(Row { channel: channel.clone(), id, nonce });
            }
        }
        if self.shape == Shape::One {
            self.check_log(&mut record);
        }
        record
    }

    /// On SQLite the log is in the database: it has every message, and every session went on in it.
    fn check_log(&self, record: &mut Record) {
        let logged = block_in_place(|| self.server.events());
        let logged: std::collections::HashSet<_> =
            logged.iter().filter_map(|event| event.frame["d"]["messageId"].as_str()).collect();
        let missing = record.stored.iter().filter(|row| !logged.contains(&*row.id)).count();
        if missing > 0 {
            record.broken.push(format!("{missing} messages are stored and not in the log"));
        }
        let again = record.doubts();
        if again > 0 {
            record.broken.push(format!("on SQLite observers had to read again {again} times"));
        }
    }
}

/// A session at this address, and its READY.
pub async fn session(url: &str, token: &str, device: &str) -> Option<(Socket, Value)> {
    let mut socket = Socket::dial(url, RECOVERY).await?;
    socket.say("IDENTIFY", json!({"token": token, "device": device})).await;
    loop {
        let frame = socket.next().await.ok()?;
        if frame["op"] == "READY" {
            return Some((socket, frame));
        }
    }
}

/// A database that this file describes, to look into.
pub fn look_into(file: &Path) -> rusqlite::Result<Connection> {
    let db = Connection::open(file)?;
    db.busy_timeout(Duration::from_secs(10))?;
    Ok(db)
}
