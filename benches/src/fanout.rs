//! Many sockets in one channel: what a delivery costs the server.

use std::{
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use anyhow::{Context, ensure};
use clap::Args;
use futures_util::{
    SinkExt, StreamExt,
    future::try_join_all,
    stream::{SplitSink, SplitStream},
};
use jiscord_api::tokens::Jwt;
use jiscord_core::{
    ChannelId, UserId,
    backend::Identity,
    model::Visibility,
    text::{Email, Name, Username},
};
use jiscord_store::{
    NewChannel, NewGuild, NewUser, Store,
    sqlite::{Options, SqliteStore},
};
use serde_json::json;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    process::Command,
    sync::Notify,
    time::timeout,
};
use tokio_tungstenite::{
    MaybeTlsStream, WebSocketStream,
    tungstenite::{Message, protocol::WebSocketConfig},
};

use crate::process::{Server, sibling};

type Socket = WebSocketStream<MaybeTlsStream<TcpStream>>;

/// The longest that one burst may take to arrive before the benchmark gives up.
const PATIENCE: Duration = Duration::from_secs(60);

/// Deliveries per second of server CPU.
#[derive(Args)]
pub(crate) struct Fanout {
    /// How many sockets hear the channel, each of another user.
    #[arg(long, default_value_t = 1_000, value_parser = clap::value_parser!(u32).range(1..=8_000))]
    sockets: u32,
    /// How many messages are sent in all.
    #[arg(long, default_value_t = 200, value_parser = clap::value_parser!(u32).range(1..=100_000))]
    messages: u32,
    /// How many are sent at once, each by another of these users. The next burst waits until all have heard the one before.
    #[arg(long, default_values_t = [1, 10], value_parser = clap::value_parser!(u32).range(1..=1_000))]
    burst: Vec<u32>,
}

impl Fanout {
    pub(crate) async fn run(self) -> anyhow::Result<()> {
        let Self { sockets, messages, burst } = self;
        println!("{sockets} sockets in one channel, {messages} messages");
        println!("{:<34} {:>8} {:>22} {:>14}", "", "burst", "deliveries/CPU-second", "µs a delivery");
        let (mut jiscord, bytes) = Jiscord::start(sockets).await?;
        let mut floor = Floor::start(sockets, bytes).await?;
        for burst in burst {
            let rounds = (messages / burst).max(1);
            let ours = jiscord.measure(rounds, burst).await?;
            let least = floor.measure(rounds, burst).await?;
            print("jiscord", burst, ours);
            print(&format!("the same {bytes} bytes, bare writes"), burst, least);
            println!("{:<34} {burst:>8} {:>21.2}x", "cost beside bare writes", ours.as_secs_f64() / least.as_secs_f64());
        }
        Ok(())
    }
}

fn print(name: &str, burst: u32, each: Duration) {
    println!("{name:<34} {burst:>8} {:>22.0} {:>14.2}", 1.0 / each.as_secs_f64(), each.as_secs_f64() * 1e6);
}

/// Counts what was heard, and wakes whoever waits for it.
#[derive(Default)]
struct Heard {
    count: AtomicU64,
    /// The length of the last message's text.
    bytes: AtomicU64,
    changed: Notify,
}

impl Heard {
    fn add(&self, count: u64) {
        self.count.fetch_add(count, Ordering::Relaxed);
        self.changed.notify_one();
    }

    async fn reach(&self, count: u64) -> anyhow::Result<()> {
        let all = async {
            while self.count.load(Ordering::Relaxed) < count {
                self.changed.notified().await;
            }
        };
        timeout(PATIENCE, all).await.context("not everything arrived")
    }
}

/// The real server with its sockets.
struct Jiscord {
    server: Server,
    sinks: Vec<SplitSink<Socket, Message>>,
    channel: ChannelId,
    heard: Arc<Heard>,
    _folder: tempfile::TempDir,
}

impl Jiscord {
    /// Starts it, and says how many bytes a message has on the wire.
    async fn start(sockets: u32) -> anyhow::Result<(Self, usize)> {
        let folder = tempfile::tempdir()?;
        let (users, channel) = prepare(folder.path(), sockets).await?;
        let mut server = Server::start(
            Command::new(sibling("jiscord")?)
                .env("PORT", "0")
                .env("JISCORD_DATA_DIR", folder.path())
                .env("JISCORD_LOG", "warn")
                .env("JISCORD_LIMIT_SOCKETS_PER_ADDRESS", "20000")
                .env("JISCORD_LIMIT_COMMANDS_PER_SECOND", "100000")
                .env("JISCORD_LIMIT_COMMANDS_BURST", "100000"),
        )?;
        let url = server.line_after("Jiscord is at ").await?.replace("http://", "ws://");
        let secret = std::fs::read_to_string(folder.path().join("jwt.secret"))?;
        let _ = jsonwebtoken::crypto::aws_lc::DEFAULT_PROVIDER.install_default();
        let jwt = Jwt::new(secret.trim().as_bytes())?;

        let heard = Arc::new(Heard::default());
        let mut sinks = Vec::new();
        for user in users {
            let (sink, stream) = connect(&url, &jwt.sign(&Identity::new(user, "reader"))?).await?.split();
            tokio::spawn(read(stream, heard.clone()));
            sinks.push(sink);
        }
        let mut this = Self { server, sinks, channel, heard, _folder: folder };
        // The first message warms everything up, and tells the size.
        this.measure(1, 1).await?;
        let text = this.heard.bytes.load(Ordering::Relaxed);
        // A server's frame of 126 to 65,535 bytes has a header of four.
        Ok((this, usize::try_from(text)? + 4))
    }

    /// Server CPU for each delivery.
    async fn measure(&mut self, rounds: u32, burst: u32) -> anyhow::Result<Duration> {
        let (before, start) = (self.heard.count.load(Ordering::Relaxed), self.server.cpu()?);
        let (sockets, body) = (self.sinks.len() as u64, json!({"channelId": self.channel, "content": "x".repeat(60)}));
        let send = json!({"op": "SEND_MESSAGE", "d": body}).to_string();
        for round in 1..=rounds {
            for n in 0..burst as usize {
                let sender = n % self.sinks.len();
                self.sinks[sender].send(Message::text(send.clone())).await?;
            }
            self.heard.reach(before + u64::from(round * burst) * sockets).await?;
        }
        Ok((self.server.cpu()? - start).div_f64(f64::from(rounds * burst) * sockets as f64))
    }
}

/// A data folder with a guild, a channel, and so many users in it.
async fn prepare(folder: &Path, sockets: u32) -> anyhow::Result<(Vec<UserId>, ChannelId)> {
    let sqlite = SqliteStore::open(folder, Options::default())?;
    let store = Store::of(sqlite.clone());
    let users = (0..sockets).map(|n| {
        let (username, email) = (Username::new(&format!("user {n}")), Email::new(&format!("user{n}@bench.example")));
        let store = &store;
        async move {
            let new = NewUser { username: username?, email: email?, password_hash: "none".into() };
            anyhow::Ok(store.users.create(new).await?.user.user_id)
        }
    });
    let users = try_join_all(users).await?;
    let guild = NewGuild { name: Name::new("bench")?, owner_id: users[0], visibility: Visibility::Public };
    let guild = store.guilds.create(guild, Arc::new(|_| Vec::new())).await?.row.guild_id;
    try_join_all(users.iter().skip(1).map(|user| store.members.add(guild, *user, Arc::new(|_| Vec::new())))).await?;
    let channel = NewChannel { guild_id: guild, name: Name::new("bench")? };
    let channel = store.channels.create(channel, Arc::new(|_| Vec::new())).await?.row.channel_id;
    sqlite.close().await;
    Ok((users, channel))
}

async fn connect(url: &str, token: &str) -> anyhow::Result<Socket> {
    let config = WebSocketConfig::default().read_buffer_size(4 << 10).write_buffer_size(4 << 10);
    let (mut socket, _) = tokio_tungstenite::connect_async_with_config(format!("{url}/ws"), Some(config), true).await?;
    socket.send(Message::text(json!({"op": "IDENTIFY", "d": {"token": token}}).to_string())).await?;
    for op in ["HELLO", "READY"] {
        let said = socket.next().await.context("closed")??;
        ensure!(said.to_text()?.contains(op), "{op} was expected, not {said}");
    }
    Ok(socket)
}

async fn read(mut socket: SplitStream<Socket>, heard: Arc<Heard>) {
    while let Some(Ok(message)) = socket.next().await {
        if let Message::Text(text) = message
            && text.contains("MESSAGE_CREATE")
        {
            heard.bytes.store(text.len() as u64, Ordering::Relaxed);
            heard.add(1);
        }
    }
}

/// The minimal program with as many readers.
struct Floor {
    server: Server,
    control: TcpStream,
    message: Vec<u8>,
    heard: Arc<Heard>,
    sockets: u64,
}

impl Floor {
    async fn start(sockets: u32, bytes: usize) -> anyhow::Result<Self> {
        let mut server = Server::start(Command::new(std::env::current_exe()?).arg("floor"))?;
        let address = server.line_after("listening on ").await?;
        let mut control = TcpStream::connect(&address).await?;
        control.set_nodelay(true)?;
        control.write_u32(sockets).await?;
        let heard = Arc::new(Heard::default());
        for _ in 0..sockets {
            let (mut socket, heard) = (TcpStream::connect(&address).await?, heard.clone());
            tokio::spawn(async move {
                let mut buffer = [0; 4096];
                while let Ok(read @ 1..) = socket.read(&mut buffer).await {
                    heard.add(read as u64);
                }
            });
        }
        control.read_u8().await?;
        Ok(Self { server, control, message: vec![b'x'; bytes], heard, sockets: sockets.into() })
    }

    /// Server CPU for each delivery. A burst is written to a socket as a whole, as a server that gathers would.
    async fn measure(&mut self, rounds: u32, burst: u32) -> anyhow::Result<Duration> {
        let message = self.message.repeat(burst as usize);
        let (before, start) = (self.heard.count.load(Ordering::Relaxed), self.server.cpu()?);
        for round in 1..=u64::from(rounds) {
            self.control.write_u32(u32::try_from(message.len())?).await?;
            self.control.write_all(&message).await?;
            self.heard.reach(before + round * message.len() as u64 * self.sockets).await?;
        }
        Ok((self.server.cpu()? - start).div_f64(f64::from(rounds * burst) * self.sockets as f64))
    }
}
