//! The gateway over in-memory pipes in paused time: timeouts are instant, and a pipe can be as narrow as a test wants.
#![expect(clippy::unwrap_used, reason = "a test that fails may panic")]

use std::{
    collections::HashMap,
    sync::{Arc, Mutex},
    time::Duration,
};

use async_trait::async_trait;
use futures_util::{SinkExt, StreamExt};
use jiscord_core::{
    ChannelId, Code, Event, EventId, Fault, GuildId, MessageId, ServerFrame, Topic, UserId,
    backend::{Actor, Backend, GuildState, Identity, Login, Membership, Revoked, Sent, TokenVerifier},
    event::{EventLog, Logged, Position, Publish},
    fault::Result,
    frame::{MemberRemove, MessageAck, SendMessage},
    mint::IdSource,
    model::{Channel, Guild, Member, Message, Rev, User},
    time::{Clock, SystemClock},
};
use jiscord_store::memory::MemoryStore;
use serde_json::{Value, json};
use tokio::{
    io::DuplexStream,
    sync::{mpsc, watch},
};
use tokio_tungstenite::{
    WebSocketStream,
    tungstenite::{Message as Ws, protocol::Role},
};
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use crate::{
    Settings,
    bus::{Bus, Heard, Replay, Stale},
    claims::{Eviction, LocalClaims},
    connection,
    hub::Hub,
    local::LocalBus,
};

/// A backend whose guilds, members and moods a test sets. Tokens are the users' names.
struct Fake {
    log: Arc<MemoryStore>,
    rows: Mutex<Rows>,
    /// Calls that load wait while this is false.
    open: watch::Sender<bool>,
    /// Messages wait while this is false.
    storing: watch::Sender<bool>,
    verifying: Mutex<Option<Code>>,
    revoked: Mutex<Vec<(UserId, Revoked)>>,
    /// A guild that cannot be loaded.
    broken: Mutex<Option<GuildId>>,
    step: Mutex<Option<Arc<Step>>>,
}

#[derive(Default)]
struct Rows {
    users: HashMap<String, UserId>,
    guilds: HashMap<GuildId, GuildState>,
    members: HashMap<UserId, HashMap<GuildId, Rev>>,
    rev: Rev,
}

impl Fake {
    fn user(&self, name: &str) -> UserId {
        *self.rows.lock().unwrap().users.entry(name.into()).or_insert_with(|| UserId::new(Uuid::new_v4()))
    }

    fn mint(&self) -> Uuid {
        IdSource::next(&*self.log)
    }

    fn guild(&self, members: &[&str]) -> (GuildId, ChannelId) {
        let guild_id = GuildId::new(self.mint());
        let channel = self.new_channel(guild_id);
        let (created_at, rev) = (SystemClock.now(), guild_id.micros().unwrap());
        let guild = Guild { guild_id, name: "guild".into(), created_at, rev, owner_id: None, visibility: None };
        let channel_id = channel.channel_id;
        self.rows.lock().unwrap().guilds.insert(guild_id, GuildState::new(guild, vec![channel]));
        for name in members {
            let user = self.user(name);
            self.rows.lock().unwrap().members.entry(user).or_default().insert(guild_id, rev);
        }
        (guild_id, channel_id)
    }

    fn new_channel(&self, guild_id: GuildId) -> Channel {
        let channel_id = ChannelId::new(self.mint());
        let (created_at, rev) = (SystemClock.now(), channel_id.micros().unwrap());
        Channel { channel_id, guild_id, name: "channel".into(), created_at, rev, last_message_id: None }
    }

    async fn tell(&self, topics: Vec<Topic>, channel: Option<ChannelId>, frame: ServerFrame) {
        self.log.append(vec![Event::new(EventId::new(self.mint()), topics, channel, frame)]).await.unwrap();
    }

    async fn add_channel(&self, guild: GuildId) -> ChannelId {
        let channel = self.new_channel(guild);
        self.rows.lock().unwrap().guilds.get_mut(&guild).unwrap().channels.push(channel.clone());
        let id = channel.channel_id;
        self.tell(vec![Topic::Guild(guild)], Some(id), ServerFrame::ChannelCreate(channel)).await;
        id
    }

    /// Grows with every change, as a store's `rev` does.
    fn now(&self) -> Rev {
        let mut rows = self.rows.lock().unwrap();
        rows.rev = EventId::new(self.mint()).micros().unwrap().max(rows.rev + 1);
        rows.rev
    }

    async fn join(&self, guild: GuildId, name: &str) {
        let (user_id, rev) = (self.user(name), self.now());
        self.rows.lock().unwrap().members.entry(user_id).or_default().insert(guild, rev);
        let member = Member { guild_id: guild, user_id, username: Some(name.into()), joined_at: SystemClock.now(), rev };
        self.tell(vec![Topic::Guild(guild), Topic::User(user_id)], None, ServerFrame::MemberAdd(member)).await;
    }

    async fn leave(&self, guild: GuildId, name: &str) {
        let (user_id, rev) = (self.user(name), self.now());
        self.rows.lock().unwrap().members.entry(user_id).or_default().remove(&guild);
        let gone = MemberRemove { guild_id: guild, user_id, rev };
        self.tell(vec![Topic::Guild(guild), Topic::User(user_id)], None, ServerFrame::MemberRemove(gone)).await;
    }

    /// Ends logins; what tells of it comes over the bus only if it is told.
    async fn revoke(&self, name: &str, what: Revoked, told: bool) {
        let user = self.user(name);
        self.revoked.lock().unwrap().push((user, what));
        if told {
            let event = Event::revoked(EventId::new(self.mint()), user, what);
            self.log.append(vec![event]).await.unwrap();
        }
    }

    async fn pass(&self) {
        let step = self.step.lock().unwrap().clone();
        if let Some(step) = step {
            step.pass().await;
        }
    }

    async fn opened(&self) {
        self.pass().await;
        self.open.subscribe().wait_for(|open| *open).await.unwrap();
    }
}

#[async_trait]
impl TokenVerifier for Fake {
    async fn verify_token(&self, token: &str) -> Result<Identity> {
        self.pass().await;
        if let Some(code) = self.verifying.lock().unwrap().clone() {
            return Err(Fault::new(code, "not now"));
        }
        let users = &self.rows.lock().unwrap().users;
        // "ada@2": her second login.
        let (name, login) = token.split_once('@').unwrap_or((token, "1"));
        let user = users.get(name).ok_or_else(|| Fault::new(Code::UNAUTHORIZED, "bad token"))?;
        let login = Login::new(Uuid::from_u128(login.parse().unwrap()), 100);
        if self.revoked.lock().unwrap().iter().any(|(of, what)| of == user && what.covers(&login)) {
            return Err(Fault::new(Code::UNAUTHORIZED, "revoked"));
        }
        Ok(Identity::new(*user, name).with_login(login))
    }
}

#[async_trait]
impl Backend for Fake {
    async fn user(&self, _: Actor, user_id: UserId) -> Result<User> {
        Ok(User { user_id, username: "somebody".into(), email: Some("a@b.c".into()), created_at: None })
    }

    async fn memberships(&self, _: Actor, user: UserId) -> Result<Vec<Membership>> {
        self.pass().await;
        let memberships = {
            let rows = self.rows.lock().unwrap();
            let of = rows.members.get(&user).into_iter().flatten();
            of.map(|(guild, rev)| Membership::new(rows.guilds[guild].guild.clone(), *rev)).collect()
        };
        // Read first, answered later: what happens meanwhile is not in it.
        self.opened().await;
        Ok(memberships)
    }

    async fn load_guild(&self, actor: Actor, guild: GuildId) -> Result<Option<GuildState>> {
        assert_eq!(actor, Actor::System);
        self.pass().await;
        let state = self.rows.lock().unwrap().guilds.get(&guild).cloned();
        self.opened().await;
        if *self.broken.lock().unwrap() == Some(guild) {
            return Err(Fault::new(Code::INTERNAL, "a row makes no sense"));
        }
        Ok(state)
    }

    async fn send_message(&self, actor: Actor, message: SendMessage) -> Result<Sent> {
        self.storing.subscribe().wait_for(|storing| *storing).await.unwrap();
        let Actor::User(author_id) = actor else { panic!("a user sends") };
        let guild = {
            let rows = self.rows.lock().unwrap();
            let has = |state: &&GuildState| state.channels.iter().any(|channel| channel.channel_id == message.channel_id);
            let guild = rows.guilds.values().find(has).map(|state| state.guild.guild_id);
            let of = rows.members.get(&author_id);
            guild.filter(|guild| of.is_some_and(|of| of.contains_key(guild))).ok_or_else(|| Fault::not_found("channel"))?
        };
        let message_id = MessageId::new(self.mint());
        let (created_at, rev) = (SystemClock.now(), message_id.micros().unwrap());
        let message = Message {
            message_id,
            channel_id: message.channel_id,
            author_id,
            content: message.content,
            created_at,
            author: None,
            rev,
            nonce: message.nonce,
            reply_to: None,
        };
        let event = Event::new(
            EventId::new(message_id.uuid()),
            vec![Topic::Guild(guild)],
            Some(message.channel_id),
            ServerFrame::MessageCreate(message.clone()),
        );
        self.log.append(vec![event.clone()]).await?;
        Ok(Sent::new(message, vec![event], false))
    }
}

/// A bus that says what a test wants.
struct Script {
    says: tokio::sync::Mutex<mpsc::Receiver<Heard>>,
    epoch: Mutex<String>,
    /// The end of the log.
    head: Mutex<Position>,
    /// From where on topics are heard that are joined.
    joined: Mutex<Position>,
    /// What the log has; while there is none, whoever asks waits.
    replayed: watch::Sender<Option<Replay>>,
}

impl Script {
    fn new() -> (Arc<Self>, mpsc::Sender<Heard>) {
        let (say, says) = mpsc::channel(16);
        let [head, joined] = [1_000, 1_000].map(|p| Mutex::new(Position(p)));
        let (epoch, replayed) = (Mutex::new("first".into()), watch::Sender::new(None));
        (Arc::new(Self { says: says.into(), epoch, head, joined, replayed }), say)
    }
}

#[async_trait]
impl Publish for Script {
    async fn publish(&self, _: &[Event]) -> Result<()> {
        Ok(())
    }

    async fn pass(&self, _: Event) -> Result<()> {
        Ok(())
    }

    fn ready(&self) -> Result<()> {
        match &**self.epoch.lock().unwrap() {
            "away" => Err(Fault::new(Code::UNAVAILABLE, "the bus is away")),
            _ => Ok(()),
        }
    }
}

#[async_trait]
impl Bus for Script {
    fn epoch(&self) -> String {
        self.epoch.lock().unwrap().clone()
    }

    fn start(&self) -> Position {
        Position(1_000)
    }

    async fn head(&self) -> Result<Position> {
        Ok(*self.head.lock().unwrap())
    }

    async fn join(&self, _: Topic) -> Result<Position> {
        Ok(*self.joined.lock().unwrap())
    }

    fn leave(&self, _: Topic) {}

    async fn replay(&self, _: &[Topic], after: Position, to: Position) -> Result<Replay> {
        self.replayed.subscribe().wait_for(Option::is_some).await.unwrap();
        let mut replay = self.replayed.borrow().clone().unwrap();
        replay.events.retain(|logged| logged.p > after && logged.p <= to);
        Ok(replay)
    }

    async fn next(&self) -> Heard {
        match self.says.lock().await.recv().await {
            Some(heard) => heard,
            None => std::future::pending().await,
        }
    }
}

struct World {
    fake: Arc<Fake>,
    hub: Arc<Hub>,
    shutdown: CancellationToken,
}

impl World {
    async fn new() -> Self {
        Self::with(Settings::default()).await
    }

    async fn with(settings: Settings) -> Self {
        let log = MemoryStore::new(Arc::new(SystemClock));
        let bus = LocalBus::start(log.clone()).await.unwrap();
        Self::on(log, bus, settings)
    }

    /// One whose bus says what a test wants, and what it is told so by.
    fn scripted() -> (Self, Arc<Script>, mpsc::Sender<Heard>) {
        let (bus, says) = Script::new();
        (Self::on(MemoryStore::new(Arc::new(SystemClock)), bus.clone(), Settings::default()), bus, says)
    }

    fn on(log: Arc<MemoryStore>, bus: Arc<dyn Bus>, mut settings: Settings) -> Self {
        settings.dispatchers = 2;
        let fake = Arc::new(Fake {
            log,
            rows: Mutex::default(),
            open: watch::Sender::new(true),
            storing: watch::Sender::new(true),
            verifying: Mutex::default(),
            revoked: Mutex::default(),
            broken: Mutex::default(),
            step: Mutex::default(),
        });
        let claims = Arc::new(LocalClaims::new(settings.limits.devices));
        let hub = Hub::new(fake.clone(), bus, claims, settings);
        tokio::spawn(hub.clone().run());
        Self { fake, hub, shutdown: CancellationToken::new() }
    }

    /// A socket whose pipe holds so many bytes.
    async fn socket(&self, pipe: usize) -> Client {
        let (here, there) = tokio::io::duplex(pipe);
        tokio::spawn(connection::serve(Box::new(there), self.hub.clone(), self.shutdown.clone()));
        let mut client = Client(WebSocketStream::from_raw_socket(here, Role::Client, None).await);
        assert_eq!(client.next().await, json!({"op": "HELLO", "d": {"heartbeat_interval": 45000}}));
        client
    }

    async fn connect(&self, identify: Value) -> (Client, Value) {
        let mut client = self.socket(1 << 16).await;
        client.say(json!({"op": "IDENTIFY", "d": identify})).await;
        let ready = client.next().await;
        assert_eq!(ready["op"], "READY", "{ready}");
        (client, ready)
    }

    async fn user(&self, name: &str) -> Client {
        self.connect(json!({"token": name})).await.0
    }
}

struct Client(WebSocketStream<DuplexStream>);

impl Client {
    async fn say(&mut self, frame: Value) {
        self.0.send(Ws::text(frame.to_string())).await.unwrap();
    }

    async fn send(&mut self, channel: ChannelId, content: &str) {
        self.say(json!({"op": "SEND_MESSAGE", "d": {"channelId": channel, "content": content}})).await;
    }

    async fn next(&mut self) -> Value {
        match self.0.next().await.unwrap().unwrap() {
            Ws::Text(text) => serde_json::from_str(&text).unwrap(),
            other => panic!("a frame was expected, not {other:?}"),
        }
    }

    /// The next frame of an op; others before it are a defect.
    async fn hear(&mut self, op: &str) -> Value {
        let frame = self.next().await;
        assert_eq!(frame["op"], op, "{frame}");
        frame
    }

    /// Everything up to the close, and its code (0: cut off).
    async fn rest(&mut self) -> (Vec<String>, u16) {
        let mut ops = Vec::new();
        loop {
            match self.0.next().await {
                Some(Ok(Ws::Text(text))) => {
                    ops.push(serde_json::from_str::<Value>(&text).unwrap()["op"].as_str().unwrap().to_owned());
                }
                Some(Ok(Ws::Close(frame))) => return (ops, frame.unwrap().code.into()),
                Some(Ok(_)) => {}
                Some(Err(_)) | None => return (ops, 0),
            }
        }
    }

    /// Nothing comes, however long it is waited for.
    async fn hears_nothing_yet(&mut self) {
        let heard = tokio::time::timeout(Duration::from_millis(500), self.next()).await;
        assert!(heard.is_err(), "{heard:?}");
    }

    /// Asks for something that is answered, so that whatever came before it has been heard.
    async fn hears_nothing(&mut self) {
        self.say(json!({"op": "HEARTBEAT"})).await;
        self.hear("HEARTBEAT_ACK").await;
    }
}

#[tokio::test(start_paused = true)]
async fn every_connection_ends_for_the_right_reason() {
    let text = |value: Value| Ws::text(value.to_string());
    let identify = || text(json!({"op": "IDENTIFY", "d": {"token": "ada"}}));
    let cases: Vec<(&str, Vec<Ws>, Vec<&str>, u16)> = vec![
        ("silence", vec![], vec![], 4003),
        ("heartbeats only", vec![text(json!({"op": "HEARTBEAT", "d": 1}))], vec!["HEARTBEAT_ACK"], 4003),
        ("no JSON", vec![Ws::text("hello")], vec![], 4002),
        ("no op", vec![Ws::text("{}")], vec![], 4002),
        ("binary", vec![Ws::binary(b"{}".as_slice())], vec![], 4002),
        ("a command first", vec![text(json!({"op": "SEND_MESSAGE", "d": {}}))], vec![], 4003),
        ("an unknown op first", vec![text(json!({"op": "DANCE"}))], vec![], 4003),
        ("a bad IDENTIFY", vec![text(json!({"op": "IDENTIFY", "d": {"token": 1}})), identify()], vec!["ERROR", "READY"], 4009),
        ("a bad device", vec![text(json!({"op": "IDENTIFY", "d": {"token": "ada", "device": ""}}))], vec!["ERROR"], 4003),
        ("a bad token", vec![text(json!({"op": "IDENTIFY", "d": {"token": "eve"}}))], vec!["INVALID_SESSION"], 4004),
        ("a frame too big before IDENTIFY", vec![text(json!({"op": "HEARTBEAT", "d": "x".repeat(5_000)}))], vec![], 1009),
        ("a silent session", vec![identify()], vec!["READY"], 4009),
        ("IDENTIFY twice", vec![identify(), identify()], vec!["READY"], 4005),
        ("a frame too big", vec![identify(), text(json!({"op": "HEARTBEAT", "d": "x".repeat(70_000)}))], vec!["READY"], 1009),
        ("binary in a session", vec![identify(), Ws::binary(b"x".as_slice())], vec!["READY"], 4002),
        ("an unknown op", vec![identify(), text(json!({"op": "DANCE"}))], vec!["READY", "ERROR"], 4009),
        ("a bad body", vec![identify(), text(json!({"op": "SEND_MESSAGE", "d": {"content": 1}}))], vec!["READY", "ERROR"], 4009),
        ("a flood of heartbeats", vec![text(json!({"op": "HEARTBEAT"})); 11], vec!["HEARTBEAT_ACK"; 10], 4008),
        ("a flood of pings", vec![Ws::Ping("x".into()); 11], vec![], 4008),
        (
            "RESUME of another log",
            vec![text(json!({"op": "RESUME", "d": {"token": "ada", "sessionId": Uuid::new_v4(), "epoch": "e", "after": 1}}))],
            vec!["RESYNC", "RESUMED"],
            4009,
        ),
        (
            "RESUME with a bad token",
            vec![text(json!({"op": "RESUME", "d": {"token": "eve", "sessionId": Uuid::new_v4(), "epoch": "e", "after": 1}}))],
            vec!["INVALID_SESSION"],
            4004,
        ),
        ("a bad RESUME", vec![text(json!({"op": "RESUME", "d": {"token": "ada"}})), identify()], vec!["ERROR", "READY"], 4009),
        (
            "RESUME in a session",
            vec![
                identify(),
                text(json!({"op": "RESUME", "d": {"token": "ada", "sessionId": Uuid::new_v4(), "epoch": "e", "after": 1}})),
            ],
            vec!["READY"],
            4005,
        ),
    ];
    for (name, says, ops, code) in cases {
        let world = World::new().await;
        world.fake.user("ada");
        let mut client = world.socket(1 << 17).await;
        for say in says {
            // A sink that waits for the READY of an IDENTIFY: what follows is said in a session.
            client.0.send(say).await.unwrap();
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        let (heard, end) = client.rest().await;
        assert_eq!((heard.iter().map(String::as_str).collect::<Vec<_>>(), end), (ops, code), "{name}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_token_is_called_bad_only_when_it_is() {
    let world = World::new().await;
    world.fake.user("ada");
    *world.fake.verifying.lock().unwrap() = Some(Code::UNAVAILABLE);
    let mut client = world.socket(1 << 16).await;
    client.say(json!({"op": "IDENTIFY", "d": {"token": "ada"}})).await;
    assert_eq!(client.hear("ERROR").await["d"], json!({"code": "unavailable", "message": "not now", "op": "IDENTIFY"}));
    assert_eq!(client.rest().await, (vec![], 1013));
}

#[tokio::test(start_paused = true)]
async fn those_who_come_at_once_wait_for_their_turn_but_not_for_ever() {
    let mut settings = Settings::default();
    settings.limits.entering = 1;
    let world = World::with(settings).await;
    world.fake.guild(&["ada", "bob", "eve"]);
    world.fake.open.send_replace(false);
    let mut clients = Vec::new();
    for name in ["ada", "bob"] {
        let mut client = world.socket(1 << 16).await;
        client.say(json!({"op": "IDENTIFY", "d": {"token": name}})).await;
        clients.push(client);
    }
    // The first one waits for its guilds, the second one for its turn, which comes.
    clients[1].hears_nothing_yet().await;
    world.fake.open.send_replace(true);
    for client in &mut clients {
        client.hear("READY").await;
    }
    world.fake.open.send_replace(false);
    // One who takes as long as he may. Who waits longer than that for his turn is sent away.
    let mut first = world.socket(1 << 16).await;
    first.say(json!({"op": "IDENTIFY", "d": {"token": "eve"}})).await;
    let mut second = world.socket(1 << 16).await;
    second.say(json!({"op": "IDENTIFY", "d": {"token": "ada", "device": "phone"}})).await;
    let mut third = world.socket(1 << 16).await;
    third.say(json!({"op": "IDENTIFY", "d": {"token": "bob", "device": "phone"}})).await;
    let error = third.hear("ERROR").await;
    assert_eq!((&error["d"]["code"], &error["d"]["retryAfter"]), (&json!("busy"), &json!(5_000)));
    assert_eq!(third.rest().await, (vec![], 1013));
}

#[tokio::test(start_paused = true)]
async fn a_flood_of_commands_is_refused_and_then_closed() {
    let world = World::new().await;
    let (_, channel) = world.fake.guild(&["ada"]);
    let mut client = world.user("ada").await;
    for n in 0..250 {
        let say = json!({"op": "TYPING_START", "d": {"channelId": channel, "n": n}});
        if client.0.feed(Ws::text(say.to_string())).await.is_err() {
            break;
        }
    }
    let _ = client.0.flush().await;
    let (ops, code) = client.rest().await;
    assert_eq!(code, 4008);
    assert_eq!(ops.iter().filter(|op| *op == "ERROR").count(), 100);
}

#[tokio::test(start_paused = true)]
async fn a_message_is_heard_by_all_who_see_the_channel_under_one_position() {
    let world = World::new().await;
    let (_, channel) = world.fake.guild(&["ada", "bob"]);
    world.fake.user("eve");
    let (mut ada, mut bob, mut eve) = (world.user("ada").await, world.user("bob").await, world.user("eve").await);
    ada.say(json!({"op": "SEND_MESSAGE", "d": {"channelId": channel, "content": "hi", "nonce": "n1"}})).await;
    let (mut event, mut ack) = (ada.next().await, ada.next().await);
    if event["op"] == "MESSAGE_ACK" {
        std::mem::swap(&mut event, &mut ack);
    }
    assert_eq!((&ack["op"], &ack["d"]["nonce"]), (&json!("MESSAGE_ACK"), &json!("n1")));
    assert_eq!(ack["d"]["messageId"], event["d"]["messageId"]);
    assert_eq!(bob.hear("MESSAGE_CREATE").await, event);
    assert!(event["p"].is_u64());
    // A heartbeat's answer carries the position up to which everything was sent.
    bob.say(json!({"op": "HEARTBEAT", "d": null})).await;
    assert_eq!(bob.next().await, json!({"op": "HEARTBEAT_ACK", "d": null, "p": event["p"]}));
    eve.hears_nothing().await;

    // Typing is heard, the typer included, and has no position.
    bob.say(json!({"op": "TYPING_START", "d": {"channelId": channel}})).await;
    for client in [&mut ada, &mut bob] {
        let typing = client.hear("TYPING").await;
        assert_eq!((&typing["d"]["userId"], typing.get("p")), (&json!(world.fake.user("bob")), None));
    }

    // Who is not in the guild can neither write nor type there, and is told so.
    eve.say(json!({"op": "SEND_MESSAGE", "d": {"channelId": channel, "content": "hi", "nonce": "n2"}})).await;
    let error = eve.hear("ERROR").await;
    assert_eq!(error["d"], json!({"code": "not_found", "message": "channel not found", "op": "SEND_MESSAGE", "nonce": "n2"}));
    eve.say(json!({"op": "TYPING_START", "d": {"channelId": channel}})).await;
    assert_eq!(eve.hear("ERROR").await["d"]["code"], "not_found");
    ada.hears_nothing().await;
}

#[tokio::test(start_paused = true)]
async fn channels_and_guilds_of_later_are_heard_without_a_reconnect() {
    let world = World::new().await;
    let (guild, first) = world.fake.guild(&["ada"]);
    world.fake.user("bob");
    let (mut ada, mut bob) = (world.user("ada").await, world.user("bob").await);

    let second = world.fake.add_channel(guild).await;
    assert_eq!(ada.hear("CHANNEL_CREATE").await["d"]["channelId"], json!(second));
    bob.hears_nothing().await;

    world.fake.join(guild, "bob").await;
    let created = bob.hear("GUILD_CREATE").await;
    let channels: Vec<_> = created["d"]["channels"].as_array().unwrap().iter().map(|c| c["channelId"].clone()).collect();
    assert_eq!(channels, [json!(first), json!(second)]);
    let added = ada.hear("MEMBER_ADD").await;
    assert_eq!((&added["p"], &added["d"]["username"]), (&created["p"], &json!("bob")));

    bob.send(second, "here").await;
    assert_eq!(ada.hear("MESSAGE_CREATE").await, bob.hear("MESSAGE_CREATE").await);

    world.fake.leave(guild, "bob").await;
    assert_eq!(bob.hear("GUILD_DELETE").await["p"], ada.hear("MEMBER_REMOVE").await["p"]);
    ada.send(second, "gone?").await;
    ada.hear("MESSAGE_CREATE").await;
    bob.hears_nothing().await;

    // Back again: he hears it again.
    world.fake.join(guild, "bob").await;
    bob.hear("GUILD_CREATE").await;
    ada.hear("MEMBER_ADD").await;
    ada.send(first, "hello again").await;
    bob.hear("MESSAGE_CREATE").await;
}

#[tokio::test(start_paused = true)]
async fn what_happens_while_a_session_begins_is_not_lost() {
    let world = World::new().await;
    let (left, _) = world.fake.guild(&["ada", "bob"]);
    let (joined, there) = world.fake.guild(&["bob"]);
    let (stays, here) = world.fake.guild(&["ada", "bob"]);
    let mut bob = world.user("bob").await;

    world.fake.open.send_replace(false);
    let mut ada = world.socket(1 << 16).await;
    ada.say(json!({"op": "IDENTIFY", "d": {"token": "ada"}})).await;
    ada.0.flush().await.unwrap();
    // Her guilds were read, but the answer is on its way.
    while world.fake.open.receiver_count() == 0 {
        tokio::task::yield_now().await;
    }
    world.fake.leave(left, "ada").await;
    bob.hear("MEMBER_REMOVE").await;
    world.fake.join(joined, "ada").await;
    bob.hear("MEMBER_ADD").await;
    let late = world.fake.add_channel(stays).await;
    bob.hear("CHANNEL_CREATE").await;
    world.fake.open.send_replace(true);

    let ready = ada.hear("READY").await;
    let guilds: Vec<_> = ready["d"]["guilds"].as_array().unwrap().iter().map(|guild| guild["guildId"].clone()).collect();
    assert_eq!(guilds, [json!(joined), json!(stays)]);
    for channel in [there, here, late] {
        bob.send(channel, "to both").await;
        bob.hear("MESSAGE_CREATE").await;
        let heard = ada.hear("MESSAGE_CREATE").await;
        assert!(heard["p"].as_u64() > ready["p"].as_u64());
    }
}

#[tokio::test(start_paused = true)]
async fn a_guild_that_cannot_be_loaded_sends_its_joiner_back_to_the_door() {
    let world = World::new().await;
    let (guild, channel) = world.fake.guild(&["ada"]);
    world.fake.user("bob");
    let mut bob = world.user("bob").await;
    world.fake.open.send_replace(false);
    world.fake.join(guild, "bob").await;
    // The line waits two seconds, not for ever.
    assert_eq!(bob.rest().await, (vec![], 1013));
    world.fake.open.send_replace(true);
    let (mut ada, mut bob) = (world.user("ada").await, world.user("bob").await);
    ada.send(channel, "welcome").await;
    bob.hear("MESSAGE_CREATE").await;
}

#[tokio::test(start_paused = true)]
async fn one_session_lives_on_each_device() {
    let world = World::new().await;
    let (_, channel) = world.fake.guild(&["ada"]);
    let mut first = world.user("ada").await;
    let (mut phone, _) = world.connect(json!({"token": "ada", "device": "phone"})).await;
    let mut second = world.user("ada").await;
    assert_eq!(first.rest().await, (vec!["INVALID_SESSION".into()], 4010));
    second.send(channel, "still here").await;
    second.hear("MESSAGE_CREATE").await;
    phone.hear("MESSAGE_CREATE").await;

    // The ninth device evicts the one that was silent longest: the phone, since the nameless one has spoken.
    let mut others = Vec::new();
    for n in 0..7 {
        tokio::time::sleep(Duration::from_secs(1)).await;
        second.hears_nothing().await;
        others.push(world.connect(json!({"token": "ada", "device": format!("d{n}")})).await.0);
    }
    assert_eq!(phone.rest().await, (vec!["INVALID_SESSION".into()], 4010));
    second.hears_nothing().await;
    for other in &mut others {
        other.hears_nothing().await;
    }
}

#[tokio::test(start_paused = true)]
async fn an_attempt_that_was_given_up_ends_nothing() {
    let world = World::new().await;
    let attempt = |client: u32, number: u32| json!({"client": client, "number": number});
    world.fake.user("ada");
    let (mut ada, ready) = world.connect(json!({"token": "ada", "attempt": attempt(7, 2)})).await;
    let (identify, mut again) = (json!({"token": "ada", "attempt": attempt(7, 1)}), resume("ada", &ready));
    again["attempt"] = attempt(7, 1);
    for (op, body, code) in [("IDENTIFY", identify, 4010), ("RESUME", again.clone(), 4012)] {
        let mut late = world.socket(1 << 16).await;
        late.say(json!({"op": op, "d": body})).await;
        assert_eq!(late.rest().await, (vec!["INVALID_SESSION".into()], code));
        ada.hears_nothing().await;
    }
    // The same session by a program that is started again, and counts anew.
    again["attempt"] = attempt(8, 1);
    let (mut other, ..) = world.resume(&again).await;
    assert_eq!(ada.rest().await, (vec!["INVALID_SESSION".into()], 4010));
    other.hears_nothing().await;
}

#[tokio::test(start_paused = true)]
async fn a_session_is_told_what_it_has_the_intent_for() {
    let world = World::new().await;
    let (guild, channel) = world.fake.guild(&["ada", "bob"]);
    let (mut ada, _) = world.connect(json!({"token": "ada", "intents": ["messages", "cosmic_rays"]})).await;
    let mut bob = world.user("bob").await;
    world.fake.add_channel(guild).await;
    bob.hear("CHANNEL_CREATE").await;
    bob.say(json!({"op": "TYPING_START", "d": {"channelId": channel}})).await;
    bob.hear("TYPING").await;
    bob.send(channel, "hi").await;
    ada.hear("MESSAGE_CREATE").await;
}

#[tokio::test(start_paused = true)]
async fn a_reader_that_stops_harms_only_itself() {
    let mut settings = Settings::default();
    settings.limits.queue = 20_000;
    settings.limits.commands = std::num::NonZeroU32::MAX;
    settings.limits.command_burst = std::num::NonZeroU32::MAX;
    let world = World::with(settings).await;
    let (_, channel) = world.fake.guild(&["ada", "bob"]);
    let mut ada = world.user("ada").await;
    let mut bob = world.socket(2_000).await;
    bob.say(json!({"op": "IDENTIFY", "d": {"token": "bob"}})).await;
    bob.hear("READY").await;
    // Bob reads nothing. Ada hears herself all the while.
    for n in 0..40 {
        ada.send(channel, &format!("{n} {}", "x".repeat(1_000))).await;
        ada.hear("MESSAGE_CREATE").await;
    }
    let (ops, code) = bob.rest().await;
    assert!(ops.len() < 40 && ops.iter().all(|op| op == "MESSAGE_CREATE"), "{ops:?}");
    assert!(code == 4011 || code == 0, "{code}");
    ada.hears_nothing().await;
}

#[tokio::test(start_paused = true)]
async fn a_slow_reader_gets_everything_lasting_in_order() {
    let mut settings = Settings::default();
    settings.limits.commands = std::num::NonZeroU32::MAX;
    settings.limits.command_burst = std::num::NonZeroU32::MAX;
    let world = World::with(settings).await;
    let (_, channel) = world.fake.guild(&["ada", "bob"]);
    let mut ada = world.user("ada").await;
    let mut bob = world.socket(700).await;
    bob.say(json!({"op": "IDENTIFY", "d": {"token": "bob"}})).await;
    bob.hear("READY").await;
    for round in 0..3 {
        for n in 0..100 {
            ada.send(channel, &format!("{round} {n}")).await;
            ada.hear("MESSAGE_CREATE").await;
        }
        ada.say(json!({"op": "TYPING_START", "d": {"channelId": channel}})).await;
        ada.hear("TYPING").await;
        for n in 0..100 {
            assert_eq!(bob.hear("MESSAGE_CREATE").await["d"]["content"], format!("{round} {n}"));
        }
        // Typing was left out while he was behind. Now that he has caught up, he hears it.
        bob.hears_nothing().await;
        ada.say(json!({"op": "TYPING_START", "d": {"channelId": channel}})).await;
        ada.hear("TYPING").await;
        bob.hear("TYPING").await;
    }
}

#[tokio::test(start_paused = true)]
async fn going_down_finishes_commands_and_tells_everybody() {
    let world = World::new().await;
    let (_, channel) = world.fake.guild(&["ada", "bob"]);
    let (mut ada, mut bob) = (world.user("ada").await, world.user("bob").await);
    world.fake.storing.send_replace(false);
    ada.say(json!({"op": "SEND_MESSAGE", "d": {"channelId": channel, "content": "last", "nonce": "n"}})).await;
    while world.fake.storing.receiver_count() == 0 {
        tokio::task::yield_now().await;
    }
    world.shutdown.cancel();
    let (ops, code) = bob.rest().await;
    assert_eq!((ops, code), (vec!["RECONNECT".into()], 1001));
    world.fake.storing.send_replace(true);
    let (ops, code) = ada.rest().await;
    assert!(ops.contains(&"MESSAGE_ACK".into()) && ops.contains(&"RECONNECT".into()), "{ops:?}");
    assert_eq!(code, 1001);
}

#[tokio::test(start_paused = true)]
async fn a_store_that_does_not_answer_leaves_the_outcome_unknown() {
    let world = World::new().await;
    let (_, channel) = world.fake.guild(&["ada"]);
    let mut ada = world.user("ada").await;
    world.fake.storing.send_replace(false);
    ada.say(json!({"op": "SEND_MESSAGE", "d": {"channelId": channel, "content": "?", "nonce": "n"}})).await;
    let error = ada.hear("ERROR").await;
    assert_eq!((&error["d"]["code"], &error["d"]["nonce"]), (&json!("outcome_unknown"), &json!("n")));
    ada.hears_nothing().await;
}

/// Something in a channel, as a bus tells it.
fn happened(p: u64, guild: GuildId, channel: ChannelId) -> Logged {
    let (nonce, message_id) = (p.to_string(), MessageId::new(Uuid::nil()));
    let frame = ServerFrame::MessageAck(MessageAck { nonce, message_id, channel_id: channel });
    Logged { p: Position(p), event: Event::new(EventId::NONE, vec![Topic::Guild(guild)], Some(channel), frame) }
}

fn heard(p: u64, guild: GuildId, channel: ChannelId) -> Heard {
    let Logged { p, event } = happened(p, guild, channel);
    Heard::Event { event, p: Some(p) }
}

#[tokio::test(start_paused = true)]
async fn what_was_missed_and_cannot_be_told_is_stale_for_those_who_hear_it() {
    let (world, _, says) = World::scripted();
    let (guild, _) = world.fake.guild(&["ada"]);
    let (other, there) = world.fake.guild(&["ada", "bob"]);
    let (mut ada, mut bob) = (world.user("ada").await, world.user("bob").await);
    let topics = vec![Topic::Guild(guild), Topic::User(world.fake.user("bob"))];
    says.send(Heard::Gap { p: Position(1_005), stale: Stale::Topics(topics.clone()) }).await.unwrap();
    says.send(heard(1_006, other, there)).await.unwrap();
    for (client, topic) in [(&mut ada, topics[0]), (&mut bob, topics[1])] {
        let resync = client.hear("RESYNC").await;
        assert_eq!(resync, json!({"op": "RESYNC", "d": {"topics": [topic], "epoch": "first"}, "p": 1_005}));
        assert_eq!(client.hear("MESSAGE_ACK").await["p"], 1_006);
    }
    // Nothing that cannot be told: nobody hears of it.
    says.send(Heard::Gap { p: Position(1_006), stale: Stale::Nothing }).await.unwrap();
    says.send(Heard::Upto { p: Position(1_009) }).await.unwrap();
    says.send(heard(1_010, other, there)).await.unwrap();
    assert_eq!(bob.hear("MESSAGE_ACK").await["p"], 1_010);
}

#[tokio::test(start_paused = true)]
async fn a_place_is_as_high_as_all_that_was_told() {
    let (world, bus, says) = World::scripted();
    world.fake.guild(&["ada"]);
    // Her topics are heard above that only.
    *bus.joined.lock().unwrap() = Position(2_000);
    let mut client = world.socket(1 << 16).await;
    client.say(json!({"op": "IDENTIFY", "d": {"token": "ada"}})).await;
    client.hears_nothing_yet().await;
    says.send(Heard::Upto { p: Position(1_999) }).await.unwrap();
    client.hears_nothing_yet().await;
    says.send(Heard::Upto { p: Position(2_001) }).await.unwrap();
    assert_eq!(client.hear("READY").await["p"], 2_001);
    says.send(Heard::Upto { p: Position(3_000) }).await.unwrap();
    client.hears_nothing_yet().await;
    client.say(json!({"op": "HEARTBEAT"})).await;
    assert_eq!(client.hear("HEARTBEAT_ACK").await["p"], 3_000);
}

#[tokio::test]
async fn the_end_of_the_log_is_known_before_the_bus_has_read_it() {
    let log = MemoryStore::new(Arc::new(SystemClock));
    let bus = LocalBus::start(log.clone()).await.unwrap();
    assert_eq!(bus.head().await.unwrap(), bus.start());
    let Logged { event, .. } = happened(1, GuildId::new(Uuid::nil()), ChannelId::new(Uuid::nil()));
    log.append(vec![event]).await.unwrap();
    let head = bus.head().await.unwrap();
    assert!(head > bus.start());
    assert!(matches!(bus.next().await, Heard::Event { p: Some(p), .. } if p == head));
}

#[tokio::test(start_paused = true)]
async fn what_was_published_before_a_session_asks_for_its_place_is_not_told_live() {
    let (world, bus, says) = World::scripted();
    let (guild, channel) = world.fake.guild(&["ada"]);
    *bus.head.lock().unwrap() = Position(1_001);
    let mut ada = world.socket(1 << 16).await;
    ada.say(json!({"op": "IDENTIFY", "d": {"token": "ada"}})).await;
    ada.hears_nothing_yet().await;
    says.send(heard(1_001, guild, channel)).await.unwrap();
    let ready = ada.hear("READY").await;
    assert_eq!(ready["p"], 1_001);

    *bus.head.lock().unwrap() = Position(1_002);
    bus.replayed.send_replace(Some(Replay::new(vec![happened(1_002, guild, channel)], vec![])));
    let mut again = world.socket(1 << 16).await;
    again.say(json!({"op": "RESUME", "d": resume("ada", &ready)})).await;
    again.hears_nothing_yet().await;
    says.send(heard(1_002, guild, channel)).await.unwrap();
    assert_eq!(again.hear("MESSAGE_ACK").await["p"], 1_002);
    assert_eq!(again.hear("RESUMED").await["d"]["replayed"], 1);
}

#[tokio::test(start_paused = true)]
async fn what_happened_before_a_joined_guild_was_heard_is_told_in_its_place() {
    let (world, bus, says) = World::scripted();
    let (guild, channel) = world.fake.guild(&["ada"]);
    let (new, there) = world.fake.guild(&[]);
    let mut ada = world.user("ada").await;
    // The guild that she joins at 1_001 is heard from 1_004 on. What came before is in the log.
    let (user_id, rev) = (world.fake.user("ada"), world.fake.now());
    world.fake.rows.lock().unwrap().members.entry(user_id).or_default().insert(new, rev);
    let member = Member { guild_id: new, user_id, username: None, joined_at: SystemClock.now(), rev };
    let event = Event::new(EventId::NONE, vec![Topic::User(user_id)], None, ServerFrame::MemberAdd(member));
    *bus.joined.lock().unwrap() = Position(1_004);
    bus.replayed.send_replace(Some(Replay::new(vec![happened(1_002, new, there), happened(1_004, new, there)], vec![])));
    says.send(Heard::Event { event, p: Some(Position(1_001)) }).await.unwrap();
    says.send(heard(1_003, guild, channel)).await.unwrap();
    says.send(heard(1_005, new, there)).await.unwrap();
    assert_eq!(ada.hear("GUILD_CREATE").await["p"], 1_001);
    for p in 1_002..=1_005 {
        assert_eq!(ada.hear("MESSAGE_ACK").await["p"], p);
    }
}

#[tokio::test(start_paused = true)]
async fn who_is_told_late_to_have_left_and_come_while_he_enters_is_looked_up() {
    let (world, _, says) = World::scripted();
    let (guild_id, channel) = world.fake.guild(&["bob"]);
    let user_id = world.fake.user("ada");
    world.fake.open.send_replace(false);
    let mut ada = world.socket(1 << 16).await;
    ada.say(json!({"op": "IDENTIFY", "d": {"token": "ada"}})).await;
    ada.hears_nothing_yet().await;
    // She has left since, which was told before she came.
    let gone = ServerFrame::MemberRemove(MemberRemove { guild_id, user_id, rev: 5 });
    let came = ServerFrame::MemberAdd(Member { guild_id, user_id, username: None, joined_at: SystemClock.now(), rev: 6 });
    for (p, frame) in [(1_001, gone), (1_002, came)] {
        let event = Event::new(EventId::NONE, vec![Topic::User(user_id)], None, frame);
        says.send(Heard::Event { event, p: Some(Position(p)) }).await.unwrap();
    }
    ada.hears_nothing_yet().await;
    world.fake.open.send_replace(true);
    assert_eq!(ada.hear("READY").await["d"]["guilds"], json!([]));
    says.send(heard(1_003, guild_id, channel)).await.unwrap();
    ada.hears_nothing().await;
}

#[tokio::test(start_paused = true)]
async fn who_is_told_late_to_have_come_and_is_out_again_hears_nothing_of_it() {
    let (world, _, says) = World::scripted();
    let (guild_id, _) = world.fake.guild(&["bob"]);
    let user_id = world.fake.user("ada");
    let (mut ada, mut bob) = (world.user("ada").await, world.user("bob").await);
    let came = ServerFrame::MemberAdd(Member { guild_id, user_id, username: None, joined_at: SystemClock.now(), rev: 5 });
    let topics = vec![Topic::Guild(guild_id), Topic::User(user_id)];
    let event = Event::new(EventId::NONE, topics, None, came);
    says.send(Heard::Event { event, p: Some(Position(1_001)) }).await.unwrap();
    assert_eq!(bob.hear("MEMBER_ADD").await["p"], 1_001);
    ada.hears_nothing().await;
}

#[tokio::test(start_paused = true)]
async fn what_cannot_be_loaded_after_a_gap_holds_up_only_those_who_need_it() {
    let (world, _, says) = World::scripted();
    let (guild, channel) = world.fake.guild(&["bob"]);
    let (broken, _) = world.fake.guild(&["ada"]);
    let (mut ada, mut bob) = (world.user("ada").await, world.user("bob").await);
    *world.fake.broken.lock().unwrap() = Some(broken);
    says.send(Heard::Gap { p: Position(1_000), stale: Stale::Nothing }).await.unwrap();
    says.send(heard(1_001, guild, channel)).await.unwrap();
    assert_eq!(bob.hear("MESSAGE_ACK").await["p"], 1_001);
    assert_eq!(ada.rest().await, (vec![], 1013));
}

#[tokio::test(start_paused = true)]
async fn a_revoked_login_ends_its_sessions_and_no_others() {
    let world = World::new().await;
    let (_, channel) = world.fake.guild(&["ada", "bob"]);
    let mut bob = world.user("bob").await;
    let (mut phone, _) = world.connect(json!({"token": "ada@1", "device": "phone"})).await;
    let (mut laptop, ready) = world.connect(json!({"token": "ada@2", "device": "laptop"})).await;
    let login = Uuid::from_u128(1);
    world.fake.revoke("ada", Revoked::Login(login), true).await;
    assert_eq!(phone.rest().await, (vec!["INVALID_SESSION".into()], 4004));
    let mut again = world.socket(1 << 16).await;
    again.say(json!({"op": "IDENTIFY", "d": {"token": "ada@1", "device": "phone"}})).await;
    assert_eq!(again.rest().await, (vec!["INVALID_SESSION".into()], 4004));
    // The others hear nothing of it, live or told again.
    bob.send(channel, "on it goes").await;
    for client in [&mut laptop, &mut bob] {
        assert_eq!(client.hear("MESSAGE_CREATE").await["d"]["content"], "on it goes");
    }
    let (mut laptop, told, _) = world
        .resume(&{
            let mut cut = resume("ada@2", &ready);
            cut["device"] = json!("laptop");
            cut
        })
        .await;
    assert_eq!(ops(&told), ["MESSAGE_CREATE"]);
    // All until a second.
    world.fake.revoke("ada", Revoked::IssuedBy(100), true).await;
    assert_eq!(laptop.rest().await, (vec!["INVALID_SESSION".into()], 4004));
    bob.hears_nothing().await;
}

#[tokio::test(start_paused = true)]
async fn a_login_that_is_revoked_while_its_session_begins_does_not_slip_through() {
    for told in [true, false] {
        let world = World::new().await;
        world.fake.guild(&["ada"]);
        world.fake.open.send_replace(false);
        let mut client = world.socket(1 << 16).await;
        client.say(json!({"op": "IDENTIFY", "d": {"token": "ada"}})).await;
        client.hears_nothing_yet().await;
        world.fake.revoke("ada", Revoked::Login(Uuid::from_u128(1)), told).await;
        if told {
            assert_eq!(client.rest().await, (vec!["INVALID_SESSION".into()], 4004));
        }
    }
    // It was verified, and revoked before anything of it could be heard.
    let (world, bus, says) = World::scripted();
    world.fake.user("ada");
    *bus.joined.lock().unwrap() = Position(2_000);
    let mut client = world.socket(1 << 16).await;
    client.say(json!({"op": "IDENTIFY", "d": {"token": "ada"}})).await;
    client.hears_nothing_yet().await;
    world.fake.revoke("ada", Revoked::Login(Uuid::from_u128(1)), false).await;
    says.send(Heard::Upto { p: Position(2_000) }).await.unwrap();
    assert_eq!(client.rest().await, (vec!["INVALID_SESSION".into()], 4004));
}

#[tokio::test(start_paused = true)]
async fn after_a_gap_tokens_are_verified_anew() {
    let (world, _, says) = World::scripted();
    let (guild, channel) = world.fake.guild(&["ada", "bob"]);
    let (mut ada, mut bob) = (world.user("ada").await, world.user("bob").await);
    world.fake.revoke("ada", Revoked::IssuedBy(100), false).await;
    // For a while nobody can say.
    *world.fake.verifying.lock().unwrap() = Some(Code::UNAVAILABLE);
    says.send(Heard::Gap { p: Position(1_000), stale: Stale::Nothing }).await.unwrap();
    says.send(heard(1_001, guild, channel)).await.unwrap();
    ada.hears_nothing_yet().await;
    bob.hears_nothing_yet().await;
    *world.fake.verifying.lock().unwrap() = None;
    assert_eq!(ada.rest().await, (vec!["INVALID_SESSION".into()], 4004));
    assert_eq!(bob.hear("MESSAGE_ACK").await["p"], 1_001);
}

/// READY and the socket's end, so that it can be resumed.
async fn cut_off(world: &World, name: &str) -> Value {
    let (client, ready) = world.connect(json!({"token": name})).await;
    drop(client);
    resume(name, &ready)
}

fn resume(name: &str, ready: &Value) -> Value {
    json!({"token": name, "sessionId": ready["d"]["sessionId"], "epoch": ready["d"]["epoch"], "after": ready["p"]})
}

impl World {
    /// Resumes, and returns what was told before RESUMED, and RESUMED.
    async fn resume(&self, resume: &Value) -> (Client, Vec<Value>, Value) {
        let mut client = self.socket(1 << 16).await;
        client.say(json!({"op": "RESUME", "d": resume})).await;
        let mut told = Vec::new();
        loop {
            let frame = client.next().await;
            if frame["op"] == "RESUMED" {
                return (client, told, frame);
            }
            told.push(frame);
        }
    }
}

fn ops(frames: &[Value]) -> Vec<&str> {
    frames.iter().map(|frame| frame["op"].as_str().unwrap()).collect()
}

#[tokio::test(start_paused = true)]
async fn what_was_missed_is_told_in_order_and_then_what_happens() {
    let world = World::new().await;
    let (guild, channel) = world.fake.guild(&["ada", "bob"]);
    let (left, over) = world.fake.guild(&["ada", "bob"]);
    let (joined, there) = world.fake.guild(&["bob"]);
    let mut bob = world.user("bob").await;
    let cut = cut_off(&world, "ada").await;

    bob.send(channel, "one").await;
    bob.hear("MESSAGE_CREATE").await;
    bob.send(over, "never seen: she is not in it when she comes back").await;
    bob.hear("MESSAGE_CREATE").await;
    world.fake.leave(left, "ada").await;
    bob.hear("MEMBER_REMOVE").await;
    bob.send(there, "never seen: she was not in it yet").await;
    bob.hear("MESSAGE_CREATE").await;
    world.fake.join(joined, "ada").await;
    let new = world.fake.add_channel(guild).await;
    world.fake.join(guild, "eve").await;
    for op in ["MEMBER_ADD", "CHANNEL_CREATE", "MEMBER_ADD"] {
        bob.hear(op).await;
    }
    bob.send(new, "two").await;
    bob.hear("MESSAGE_CREATE").await;

    let all = ["MESSAGE_CREATE", "GUILD_DELETE", "GUILD_CREATE", "CHANNEL_CREATE", "MEMBER_ADD", "MESSAGE_CREATE"];
    let (mut ada, told, resumed) = world.resume(&cut).await;
    assert_eq!(ops(&told), all);
    assert_eq!(resumed["d"], json!({"replayed": 6}));
    assert_eq!(told[0]["d"]["content"], "one");
    assert_eq!(told[1]["d"]["guildId"], json!(left));
    assert_eq!(told[2]["d"]["channels"][0]["channelId"], json!(there));
    assert_eq!(told[5]["d"]["content"], "two");
    let places: Vec<_> = told.iter().chain([&resumed]).map(|frame| frame["p"].as_u64().unwrap()).collect();
    assert!(places[..6].is_sorted_by(|a, b| a < b) && places[6] >= places[5], "{places:?}");
    bob.send(new, "three").await;
    assert_eq!(ada.hear("MESSAGE_CREATE").await["d"]["content"], "three");

    // The same again tells the same, and more; whoever had the place is out. Only what was asked for is told.
    let mut some = cut.clone();
    some["intents"] = json!(["messages"]);
    let (_, told, _) = world.resume(&some).await;
    assert_eq!(ada.rest().await, (vec!["INVALID_SESSION".into()], 4010));
    assert_eq!(ops(&told), ["MESSAGE_CREATE"; 3]);
}

#[tokio::test(start_paused = true)]
async fn a_session_whose_place_is_taken_cannot_be_resumed() {
    let world = World::new().await;
    world.fake.user("ada");
    let cut = cut_off(&world, "ada").await;
    let mut ada = world.user("ada").await;
    let mut late = world.socket(1 << 16).await;
    late.say(json!({"op": "RESUME", "d": cut})).await;
    assert_eq!(late.rest().await, (vec!["INVALID_SESSION".into()], 4012));
    ada.hears_nothing().await;
}

#[tokio::test(start_paused = true)]
async fn what_cannot_be_told_again_is_stale() {
    let (world, bus, says) = World::scripted();
    let (guild, channel) = world.fake.guild(&["ada"]);
    let (lost, gone) = world.fake.guild(&["ada"]);
    let cut = cut_off(&world, "ada").await;
    says.send(heard(1_001, guild, channel)).await.unwrap();
    says.send(heard(1_002, lost, gone)).await.unwrap();
    bus.replayed.send_replace(Some(Replay::new(vec![happened(1_001, guild, channel)], vec![Topic::Guild(lost)])));
    let (client, told, resumed) = world.resume(&cut).await;
    assert_eq!(ops(&told), ["MESSAGE_ACK", "RESYNC"]);
    assert_eq!(told[1], json!({"op": "RESYNC", "d": {"topics": [Topic::Guild(lost)], "epoch": "first"}, "p": 1_002}));
    assert_eq!(resumed, json!({"op": "RESUMED", "d": {"replayed": 1}, "p": 1_002}));
    drop(client);

    // Another log, or a place that is in no log of ours.
    for (epoch, after) in [("before", 1_000), ("first", 6_000_000)] {
        let mut cut = cut.clone();
        (cut["epoch"], cut["after"]) = (json!(epoch), json!(after));
        let (mut client, told, resumed) = world.resume(&cut).await;
        assert_eq!(told, [json!({"op": "RESYNC", "d": {"topics": null, "epoch": "first"}, "p": 1_002})]);
        assert_eq!(resumed["d"]["replayed"], 0);
        client.hears_nothing().await;
    }
    // Another gateway has told it a little more than we know of: it is not told that again.
    let mut cut = cut.clone();
    cut["after"] = json!(1_005);
    bus.replayed.send_replace(Some(Replay::default()));
    let (mut client, told, resumed) = world.resume(&cut).await;
    assert_eq!((told.len(), &resumed["p"]), (0, &json!(1_005)));
    says.send(heard(1_005, guild, channel)).await.unwrap();
    says.send(heard(1_006, guild, channel)).await.unwrap();
    assert_eq!(client.hear("MESSAGE_ACK").await["p"], 1_006);
}

#[tokio::test(start_paused = true)]
async fn what_happens_while_the_log_is_read_waits_for_its_end() {
    let (world, bus, says) = World::scripted();
    let (guild, channel) = world.fake.guild(&["ada"]);
    let cut = cut_off(&world, "ada").await;
    says.send(heard(1_001, guild, channel)).await.unwrap();
    let mut client = world.socket(1 << 16).await;
    client.say(json!({"op": "RESUME", "d": cut})).await;
    client.hears_nothing_yet().await;
    for p in 1_002..1_005 {
        says.send(heard(p, guild, channel)).await.unwrap();
    }
    let topics = vec![Topic::Guild(guild)];
    says.send(Heard::Gap { p: Position(1_004), stale: Stale::Topics(topics) }).await.unwrap();
    says.send(heard(1_005, guild, channel)).await.unwrap();
    client.hears_nothing_yet().await;
    bus.replayed.send_replace(Some(Replay::new(vec![happened(1_001, guild, channel)], vec![])));
    let mut told = Vec::new();
    while told.len() < 7 {
        let frame = client.next().await;
        told.push((frame["op"].as_str().unwrap().to_owned(), frame["p"].as_u64().unwrap()));
    }
    let want = [
        ("MESSAGE_ACK", 1_001),
        ("RESUMED", 1_001),
        ("MESSAGE_ACK", 1_002),
        ("MESSAGE_ACK", 1_003),
        ("MESSAGE_ACK", 1_004),
        ("RESYNC", 1_004),
        ("MESSAGE_ACK", 1_005),
    ];
    assert_eq!(told, want.map(|(op, p)| (op.to_owned(), p)));
}

#[tokio::test(start_paused = true)]
async fn whoever_makes_us_wait_too_long_for_the_log_is_closed_and_not_kept_in_memory() {
    let (bus, says) = Script::new();
    let mut settings = Settings::default();
    settings.limits.queue = 1_000;
    let world = World::on(MemoryStore::new(Arc::new(SystemClock)), bus.clone(), settings);
    let (guild, channel) = world.fake.guild(&["ada"]);
    let cut = cut_off(&world, "ada").await;
    let mut client = world.socket(1 << 16).await;
    client.say(json!({"op": "RESUME", "d": cut})).await;
    client.hears_nothing_yet().await;
    for p in 1_001..1_020 {
        says.send(heard(p, guild, channel)).await.unwrap();
    }
    assert_eq!(client.rest().await, (vec![], 4011));
}

/// Does something at one of the moments in which a session that resumes waits for others.
struct Stepping {
    bus: Arc<LocalBus>,
    step: Arc<Step>,
}

/// Counts the moments, and has one in which something happens.
#[derive(Default)]
struct Step {
    now: std::sync::atomic::AtomicUsize,
    at: std::sync::atomic::AtomicUsize,
    act: Mutex<Option<mpsc::UnboundedSender<tokio::sync::oneshot::Sender<()>>>>,
}

impl Step {
    async fn pass(&self) {
        let now = self.now.fetch_add(1, std::sync::atomic::Ordering::SeqCst);
        let act = self.act.lock().unwrap().clone();
        if let Some(act) = act.filter(|_| now == self.at.load(std::sync::atomic::Ordering::SeqCst)) {
            let (done, is_done) = tokio::sync::oneshot::channel();
            let _ = act.send(done);
            let _ = is_done.await;
        }
    }
}

#[async_trait]
impl Publish for Stepping {
    async fn publish(&self, events: &[Event]) -> Result<()> {
        self.bus.publish(events).await
    }

    async fn pass(&self, event: Event) -> Result<()> {
        self.bus.pass(event).await
    }
}

#[async_trait]
impl Bus for Stepping {
    fn epoch(&self) -> String {
        self.bus.epoch()
    }

    fn start(&self) -> Position {
        self.bus.start()
    }

    async fn head(&self) -> Result<Position> {
        self.step.pass().await;
        let head = self.bus.head().await;
        self.step.pass().await;
        head
    }

    async fn join(&self, topic: Topic) -> Result<Position> {
        self.step.pass().await;
        let joined = self.bus.join(topic).await;
        self.step.pass().await;
        joined
    }

    fn leave(&self, topic: Topic) {
        self.bus.leave(topic);
    }

    async fn replay(&self, topics: &[Topic], after: Position, to: Position) -> Result<Replay> {
        self.step.pass().await;
        let replay = self.bus.replay(topics, after, to).await;
        self.step.pass().await;
        replay
    }

    async fn next(&self) -> Heard {
        self.bus.next().await
    }
}

/// At every moment in which a session that resumes waits for the bus or the backend, everything that matters happens: messages,
/// a guild that is left, one that is joined. Whenever it is, she is told all of it once, in order, by rights of then or of now.
#[tokio::test(start_paused = true)]
async fn whenever_something_happens_while_a_session_resumes_it_is_told_once() {
    let mut moments = 0;
    for at in 0.. {
        let log = MemoryStore::new(Arc::new(SystemClock));
        let bus = LocalBus::start(log.clone()).await.unwrap();
        let step = Arc::new(Step::default());
        let stepping = Arc::new(Stepping { bus, step: step.clone() });
        let world = Arc::new(World::on(log, stepping, Settings::default()));
        *world.fake.step.lock().unwrap() = Some(step.clone());
        let (_, channel) = world.fake.guild(&["ada", "bob"]);
        // Nobody else is here who is in this one, so that it is loaded for her.
        world.fake.guild(&["ada"]);
        let (left, over) = world.fake.guild(&["ada", "bob"]);
        let (joined, there) = world.fake.guild(&["bob"]);
        let mut bob = world.user("bob").await;
        let cut = cut_off(&world, "ada").await;
        bob.send(channel, "missed").await;
        bob.hear("MESSAGE_CREATE").await;

        let (act, mut acts) = mpsc::unbounded_channel();
        *step.act.lock().unwrap() = Some(act);
        step.at.store(step.now.load(std::sync::atomic::Ordering::SeqCst) + at, std::sync::atomic::Ordering::SeqCst);
        let happening = tokio::spawn({
            let world = world.clone();
            async move {
                let Some(done) = acts.recv().await else { return false };
                for (channel, content) in [(channel, "a"), (over, "last")] {
                    bob.send(channel, content).await;
                    bob.hear("MESSAGE_CREATE").await;
                }
                world.fake.leave(left, "ada").await;
                bob.hear("MEMBER_REMOVE").await;
                bob.send(over, "not hers").await;
                bob.hear("MESSAGE_CREATE").await;
                world.fake.join(joined, "ada").await;
                bob.hear("MEMBER_ADD").await;
                for (channel, content) in [(there, "b"), (channel, "c")] {
                    bob.send(channel, content).await;
                    bob.hear("MESSAGE_CREATE").await;
                }
                let _ = done.send(());
                true
            }
        });
        let (mut ada, mut told, resumed) = world.resume(&cut).await;
        *step.act.lock().unwrap() = None;
        let happened = happening.await.unwrap();
        if happened {
            while !told.iter().any(|frame| frame["d"]["content"] == "c") {
                told.push(ada.next().await);
            }
            moments += 1;
        }
        ada.hears_nothing().await;
        let places: Vec<_> = told.iter().map(|frame| frame["p"].as_u64().unwrap()).collect();
        assert!(places.is_sorted_by(|a, b| a < b), "moment {at}: {told:#?}");
        let told: Vec<_> = told
            .iter()
            .map(|frame| match (frame["op"].as_str().unwrap(), &frame["d"]["content"]) {
                ("MESSAGE_CREATE", Value::String(content)) => content.clone(),
                (op, _) => op.to_owned(),
            })
            // She was in that guild until then: whether she is told depends on when she came back.
            .filter(|what| what != "last")
            .collect();
        if !happened {
            assert_eq!((told, &resumed["d"]["replayed"]), (vec!["missed".to_owned()], &json!(1)));
            break;
        }
        assert_eq!(told, ["missed", "a", "GUILD_DELETE", "GUILD_CREATE", "b", "c"], "moment {at}");
    }
    assert!(moments >= 10, "{moments} moments were tried");
}

#[tokio::test(start_paused = true)]
async fn a_slow_store_is_asked_for_so_much_at_once_and_no_more() {
    let mut settings = Settings::default();
    settings.limits.sends = 1;
    let world = World::with(settings).await;
    let (_, channel) = world.fake.guild(&["ada", "bob"]);
    let (mut ada, mut bob) = (world.user("ada").await, world.user("bob").await);
    world.fake.storing.send_replace(false);
    ada.send(channel, "waits").await;
    ada.hears_nothing_yet().await;
    bob.say(json!({"op": "SEND_MESSAGE", "d": {"channelId": channel, "content": "?", "nonce": "n"}})).await;
    let error = bob.hear("ERROR").await["d"].take();
    assert_eq!((&error["code"], &error["nonce"], &error["retryAfter"]), (&json!("busy"), &json!("n"), &json!(1_000)));
    // Who only listens, or types, is not held up.
    bob.say(json!({"op": "TYPING_START", "d": {"channelId": channel}})).await;
    bob.hear("TYPING").await;
    world.fake.storing.send_replace(true);
    assert_eq!(bob.hear("MESSAGE_CREATE").await["d"]["content"], "waits");
    bob.send(channel, "now").await;
    assert_eq!(bob.hear("MESSAGE_CREATE").await["d"]["content"], "now");
}

#[tokio::test(start_paused = true)]
async fn after_a_gap_rights_are_loaded_before_anything_is_told() {
    let (world, bus, says) = World::scripted();
    let (guild, _) = world.fake.guild(&["ada", "bob"]);
    let (other, there) = world.fake.guild(&["bob"]);
    let (mut ada, ready) = world.connect(json!({"token": "ada"})).await;
    let mut bob = world.user("bob").await;
    assert_eq!((&ready["p"], &ready["d"]["epoch"]), (&json!(1_000), &json!("first")));

    // None of this comes over the bus: Bob is removed, Ada joins elsewhere, a channel is made; and it is another log.
    world.fake.leave(guild, "bob").await;
    world.fake.join(other, "ada").await;
    let new = world.fake.add_channel(guild).await;
    world.fake.open.send_replace(false);
    *bus.epoch.lock().unwrap() = "second".into();
    says.send(Heard::Gap { p: Position(2_005), stale: Stale::All }).await.unwrap();
    says.send(heard(2_006, guild, new)).await.unwrap();
    says.send(heard(2_007, other, there)).await.unwrap();
    // While rights are loaded, what happens waits.
    ada.say(json!({"op": "HEARTBEAT"})).await;
    assert_eq!(ada.hear("HEARTBEAT_ACK").await["p"], 1_000);
    world.fake.open.send_replace(true);

    for (client, want) in [(&mut ada, &[2_006, 2_007][..]), (&mut bob, &[2_007])] {
        // Nothing of the new log before it.
        let resync = client.next().await;
        assert_eq!((&resync["op"], &resync["p"]), (&json!("RESYNC"), &json!(2_005)));
        assert_eq!(resync["d"], json!({"topics": null, "epoch": "second", "spread": 4}));
        for p in want {
            assert_eq!(client.next().await["p"], *p);
        }
    }
    let (_, ready) = world.connect(json!({"token": "ada", "device": "phone"})).await;
    assert_eq!((&ready["p"], &ready["d"]["epoch"]), (&json!(2_007), &json!("second")));
}

#[tokio::test(start_paused = true)]
async fn an_eviction_from_elsewhere_ends_the_smaller_fence_only() {
    let (world, _, says) = World::scripted();
    let user = world.fake.user("ada");
    let mut ada = world.user("ada").await;
    says.send(Heard::Evict { user, over: Eviction { device: None, fence: 1, attempt: None } }).await.unwrap();
    ada.hears_nothing().await;
    says.send(Heard::Evict { user, over: Eviction { device: None, fence: u64::MAX, attempt: None } }).await.unwrap();
    assert_eq!(ada.rest().await, (vec!["INVALID_SESSION".into()], 4010));
}

#[tokio::test(start_paused = true)]
async fn what_could_not_be_told_for_long_is_not_taken() {
    let (world, bus, _says) = World::scripted();
    let (_, channel) = world.fake.guild(&["ada"]);
    let mut ada = world.user("ada").await;
    *bus.epoch.lock().unwrap() = "away".into();
    ada.send(channel, "hi").await;
    assert_eq!(ada.hear("ERROR").await["d"]["code"], "unavailable");
    assert_eq!(world.fake.log.head().await.unwrap(), world.fake.log.floor().await.unwrap(), "nothing was stored");
}
