//! Who hears what, and what is promised about it.

use jiscord_e2e::{Caller, Deployment, Person, Socket};
use serde_json::{Value, json};

/// A guild that both are in, one channel in it, and a session of each.
struct Town {
    server: Deployment,
    ada: Person,
    bob: Person,
    guild: String,
    channel: String,
    ada_hears: Socket,
    bob_hears: Socket,
}

impl Town {
    async fn new() -> Self {
        let server = Deployment::start().await;
        let (ada, bob) = (server.register("ada").await, server.register("bob").await);
        let guild = ada.create_guild("Computing").await;
        let channel = ada.create_channel(&guild, "engines").await;
        bob.join(&guild).await;
        let (ada_hears, bob_hears) = (ada.connect().await, bob.connect().await);
        Self { server, ada, bob, guild, channel, ada_hears, bob_hears }
    }

    /// The next thing that each hears is this, so nothing came before it: everything lasting is heard in one order.
    async fn both_hear_next(&mut self, content: &str) {
        self.ada.post(&self.channel, json!({"content": content})).await;
        for socket in [&mut self.ada_hears, &mut self.bob_hears] {
            assert_eq!(socket.hear("MESSAGE_CREATE").await["d"]["content"], content);
        }
    }
}

fn p(frame: &Value) -> u64 {
    frame["p"].as_u64().unwrap_or_else(|| panic!("a position was expected: {frame}"))
}

#[tokio::test]
async fn a_message_is_heard_by_both_at_one_position() {
    let mut town = Town::new().await;
    town.ada_hears.send_once(&town.channel, "  hello\n", "n1").await;
    let (mut heard, mut ack) = (town.ada_hears.next().await.unwrap(), town.ada_hears.next().await.unwrap());
    if heard["op"] == "MESSAGE_ACK" {
        std::mem::swap(&mut heard, &mut ack);
    }
    assert_eq!((&heard["op"], &ack["op"]), (&json!("MESSAGE_CREATE"), &json!("MESSAGE_ACK")));
    let id = &heard["d"]["messageId"];
    assert_eq!(ack["d"], json!({"nonce": "n1", "messageId": id, "channelId": town.channel}));
    assert_eq!(ack.get("p"), None);
    let author = json!({"userId": town.ada.id, "username": "ada"});
    assert_eq!((&heard["d"]["content"], &heard["d"]["nonce"], &heard["d"]["author"]), (&json!("hello"), &json!("n1"), &author));
    assert_eq!(town.bob_hears.hear("MESSAGE_CREATE").await, heard);

    // And it is what history says.
    let stored = &town.bob.history(&town.channel).await[0];
    assert_eq!((&stored["message_id"], &stored["rev"]), (id, &heard["d"]["rev"]));
    assert_eq!(stored["author"], json!({"user_id": town.ada.id, "username": "ada"}));

    // HTTP's are heard alike, the answer among them.
    let row = town.bob.post(&town.channel, json!({"content": "hi ada", "reply_to": id})).await;
    let answer = town.ada_hears.hear("MESSAGE_CREATE").await;
    assert_eq!(town.bob_hears.hear("MESSAGE_CREATE").await, answer);
    assert_eq!((&answer["d"]["messageId"], &answer["d"]["replyTo"]), (&row["message_id"], id));
    assert!(p(&answer) > p(&heard));
    // Who sent no nonce gets no acknowledgement.
    town.both_hear_next("and nothing else").await;
}

#[tokio::test]
async fn positions_grow_and_are_the_same_for_everybody() {
    let mut town = Town::new().await;
    let mut last = 0;
    for n in 0..60 {
        let content = n.to_string();
        match n % 3 {
            0 => town.ada_hears.send(&town.channel, &content).await,
            1 => town.bob_hears.send(&town.channel, &content).await,
            _ => drop(town.bob.post(&town.channel, json!({"content": content})).await),
        }
        let heard = town.ada_hears.hear("MESSAGE_CREATE").await;
        assert_eq!(town.bob_hears.hear("MESSAGE_CREATE").await, heard);
        assert_eq!(heard["d"]["content"], content);
        assert!(p(&heard) > last && p(&heard) < 1 << 53);
        last = p(&heard);
    }
    // A heartbeat's answer says up to where everything was sent, and a new session begins there.
    for socket in [&mut town.ada_hears, &mut town.bob_hears] {
        socket.say("HEARTBEAT", json!(last)).await;
        assert!(p(&socket.hear("HEARTBEAT_ACK").await) >= last);
    }
    let (_, ready) = town.bob.identify(json!({"device": "another"})).await;
    assert!(p(&ready) >= last);

    // Everything that was said while nobody's frames were read came in the order of history.
    for n in 0..50 {
        town.ada_hears.send(&town.channel, &format!("a{n}")).await;
        town.bob_hears.send(&town.channel, &format!("b{n}")).await;
    }
    let (mut ada, mut bob) = (Vec::new(), Vec::new());
    for _ in 0..100 {
        ada.push(town.ada_hears.hear("MESSAGE_CREATE").await);
        bob.push(town.bob_hears.hear("MESSAGE_CREATE").await);
    }
    assert_eq!(ada, bob);
    assert!(ada.windows(2).all(|pair| p(&pair[0]) < p(&pair[1])));
    let of = |who: char| ada.iter().filter_map(move |f| f["d"]["content"].as_str().filter(|text| text.starts_with(who)));
    assert!(of('a').eq((0..50).map(|n| format!("a{n}"))) && of('b').eq((0..50).map(|n| format!("b{n}"))));
    let mut heard: Vec<_> = ada.iter().map(|frame| frame["d"]["messageId"].clone()).collect();
    let mut stored: Vec<_> = town.ada.history(&town.channel).await[..100].iter().map(|row| row["message_id"].clone()).collect();
    heard.sort_by_key(Value::to_string);
    stored.sort_by_key(Value::to_string);
    assert_eq!(heard, stored);
}

#[tokio::test]
async fn what_comes_later_is_heard_without_a_reconnect() {
    let mut town = Town::new().await;
    // A channel.
    let looms = town.ada.create_channel(&town.guild, "looms").await;
    let created = town.bob_hears.hear("CHANNEL_CREATE").await;
    assert_eq!(town.ada_hears.hear("CHANNEL_CREATE").await, created);
    assert_eq!(
        (&created["d"]["channelId"], &created["d"]["guildId"], &created["d"]["name"]),
        (&json!(looms), &json!(town.guild), &json!("looms"))
    );
    assert!(p(&created) > 0);
    town.bob_hears.send(&looms, "weaving").await;
    assert_eq!(town.ada_hears.hear("MESSAGE_CREATE").await, town.bob_hears.hear("MESSAGE_CREATE").await);

    // A guild that one creates and the other joins.
    let poets = town.bob.create_guild("Poets").await;
    let created = town.bob_hears.hear("GUILD_CREATE").await;
    assert_eq!((&created["d"]["guildId"], &created["d"]["channels"]), (&json!(poets), &json!([])));
    let verses = town.bob.create_channel(&poets, "verses").await;
    town.bob_hears.hear("CHANNEL_CREATE").await;
    town.bob.post(&verses, json!({"content": "not for ada yet"})).await;
    town.bob_hears.hear("MESSAGE_CREATE").await;

    town.ada.join(&poets).await;
    let joined = town.ada_hears.hear("GUILD_CREATE").await;
    assert_eq!((&joined["d"]["guildId"], &joined["d"]["name"]), (&json!(poets), &json!("Poets")));
    assert_eq!(joined["d"]["channels"].as_array().unwrap().len(), 1);
    assert_eq!(joined["d"]["channels"][0]["channelId"], verses);
    let added = town.bob_hears.hear("MEMBER_ADD").await;
    assert_eq!(
        (&added["d"]["userId"], &added["d"]["username"], &added["d"]["guildId"]),
        (&json!(town.ada.id), &json!("ada"), &json!(poets))
    );
    assert_eq!(p(&added), p(&joined));
    town.bob_hears.send(&verses, "for both").await;
    assert_eq!(town.ada_hears.hear("MESSAGE_CREATE").await, town.bob_hears.hear("MESSAGE_CREATE").await);
    // To join again says the same and tells nobody.
    town.ada.join(&poets).await;
    town.both_hear_next("end").await;
}

#[tokio::test]
async fn who_has_left_hears_nothing_more() {
    let mut town = Town::new().await;
    let lobby = town.bob.create_channel(&town.bob.create_guild("Lobby").await, "lobby").await;
    town.bob_hears.hear("GUILD_CREATE").await;
    town.bob_hears.hear("CHANNEL_CREATE").await;

    town.bob.leave(&town.guild).await;
    let gone = town.bob_hears.hear("GUILD_DELETE").await;
    assert_eq!(gone["d"]["guildId"], town.guild);
    let removed = town.ada_hears.hear("MEMBER_REMOVE").await;
    assert_eq!((&removed["d"]["guildId"], &removed["d"]["userId"]), (&json!(town.guild), &json!(town.bob.id)));
    assert_eq!((p(&removed), &removed["d"]["rev"]), (p(&gone), &gone["d"]["rev"]));

    town.ada_hears.send(&town.channel, "is he gone?").await;
    town.ada_hears.hear("MESSAGE_CREATE").await;
    town.ada.create_channel(&town.guild, "secrets").await;
    town.ada_hears.hear("CHANNEL_CREATE").await;
    for op in ["SEND_MESSAGE", "TYPING_START"] {
        town.bob_hears.say(op, json!({"channelId": town.channel, "content": "no"})).await;
        assert_eq!(town.bob_hears.hear("ERROR").await["d"]["code"], "not_found");
    }
    town.bob.data.get(&format!("/channels/{}/messages", town.channel)).await.is_error(404, "not_found");
    // The next thing he hears is his own.
    town.bob_hears.send(&lobby, "alone").await;
    assert_eq!(town.bob_hears.hear("MESSAGE_CREATE").await["d"]["channelId"], lobby);

    // Removed is like left, and who comes back hears again.
    town.bob.join(&town.guild).await;
    town.bob_hears.hear("GUILD_CREATE").await;
    town.ada_hears.hear("MEMBER_ADD").await;
    town.both_hear_next("welcome back").await;
    town.ada.data.delete(&format!("/guilds/{}/members/{}", town.guild, town.bob.id)).await.is(204);
    town.bob_hears.hear("GUILD_DELETE").await;
    town.ada_hears.hear("MEMBER_REMOVE").await;
    town.ada_hears.send(&town.channel, "is he gone now?").await;
    town.ada_hears.hear("MESSAGE_CREATE").await;
    town.bob_hears.send(&lobby, "alone again").await;
    assert_eq!(town.bob_hears.hear("MESSAGE_CREATE").await["d"]["channelId"], lobby);
}

#[tokio::test]
async fn typing_is_heard_and_does_not_last() {
    let mut town = Town::new().await;
    let events = town.server.events();
    town.bob_hears.say("TYPING_START", json!({"channelId": town.channel})).await;
    let typing = town.ada_hears.hear("TYPING").await;
    assert_eq!(town.bob_hears.hear("TYPING").await, typing);
    assert_eq!((&typing["d"]["userId"], typing.get("p")), (&json!(town.bob.id), None));
    assert_eq!(town.server.events(), events);
    // Who does not want to know is not told.
    let (mut quiet, _) = town.ada.identify(json!({"device": "quiet", "intents": ["messages"]})).await;
    town.bob_hears.say("TYPING_START", json!({"channelId": town.channel})).await;
    town.ada_hears.hear("TYPING").await;
    town.bob_hears.hear("TYPING").await;
    town.both_hear_next("done").await;
    quiet.hear("MESSAGE_CREATE").await;
}

#[tokio::test]
async fn one_nonce_is_one_message_however_often_and_wherever_it_is_said() {
    let mut town = Town::new().await;
    let other = town.ada.create_channel(&town.guild, "looms").await;
    for socket in [&mut town.ada_hears, &mut town.bob_hears] {
        socket.hear("CHANNEL_CREATE").await;
    }
    town.ada_hears.send_once(&town.channel, "once", "n1").await;
    let id = town.ada_hears.hear_past("MESSAGE_ACK").await["d"]["messageId"].take();

    // Again over the gateway, over HTTP, on another device, and after a restart of the server.
    let once = json!({"content": "once", "nonce": "n1"});
    town.ada_hears.send_once(&town.channel, "once", "n1").await;
    assert_eq!(town.ada_hears.hear_past("MESSAGE_ACK").await["d"]["messageId"], id);
    assert_eq!(town.ada.post(&town.channel, once.clone()).await["message_id"], id);
    let (mut phone, _) = town.ada.identify(json!({"device": "phone"})).await;
    phone.send_once(&town.channel, " once ", "n1").await;
    assert_eq!(phone.hear("MESSAGE_ACK").await["d"]["messageId"], id);
    assert_eq!(town.bob_hears.hear("MESSAGE_CREATE").await["d"]["messageId"], id);
    town.server.kill9().await;
    town.server.restart().await;
    (town.ada_hears, town.bob_hears) = (town.ada.connect().await, town.bob.connect().await);
    assert_eq!(town.ada.post(&town.channel, once.clone()).await["message_id"], id);
    town.ada_hears.send_once(&town.channel, "once", "n1").await;
    assert_eq!(town.ada_hears.hear("MESSAGE_ACK").await["d"]["messageId"], id);

    // Something else under the same nonce is refused.
    town.ada_hears.send_once(&town.channel, "twice", "n1").await;
    let error = town.ada_hears.hear("ERROR").await["d"].take();
    assert_eq!((&error["code"], &error["nonce"]), (&json!("nonce_reused"), &json!("n1")));
    let messages = format!("/channels/{}/messages", town.channel);
    town.ada.data.post(&messages, json!({"content": "twice", "nonce": "n1"})).await.is_error(409, "nonce_reused");
    town.ada.data.post(&messages, json!({"content": "once", "nonce": "n1", "reply_to": id})).await.is_error(409, "nonce_reused");
    assert_eq!(town.ada.history(&town.channel).await.len(), 1);

    // Somebody else's nonce, or another channel's, is another one.
    assert_ne!(town.bob.post(&town.channel, once.clone()).await["message_id"], id);
    assert_ne!(town.ada.post(&other, once).await["message_id"], id);
    for socket in [&mut town.ada_hears, &mut town.bob_hears] {
        socket.hear("MESSAGE_CREATE").await;
        socket.hear("MESSAGE_CREATE").await;
    }
    town.both_hear_next("end").await;
    assert_eq!((town.ada.history(&town.channel).await.len(), town.ada.history(&other).await.len()), (3, 1));
}

#[tokio::test]
async fn many_at_once_with_one_nonce_write_one_message() {
    let mut town = Town::new().await;
    let messages = format!("/channels/{}/messages", town.channel);
    let post = || town.ada.data.post(&messages, json!({"content": "once", "nonce": "n1"}));
    let answers = futures_util::future::join_all((0..20).map(|_| post())).await;
    let ids: Vec<_> = answers.into_iter().map(|answer| answer.is(201)["message_id"].take()).collect();
    assert!(ids.iter().all(|id| *id == ids[0]), "{ids:?}");
    assert_eq!(town.ada.history(&town.channel).await.len(), 1);
    town.ada_hears.hear("MESSAGE_CREATE").await;
    town.bob_hears.hear("MESSAGE_CREATE").await;
    town.both_hear_next("end").await;
}

#[tokio::test]
async fn the_log_has_one_name_and_grows_over_restarts() {
    let mut town = Town::new().await;
    town.both_hear_next("before").await;
    let (_ada, first) = town.ada.identify(json!({"device": "a"})).await;
    let (_bob, second) = town.bob.identify(json!({"device": "b"})).await;
    let epoch = first["d"]["epoch"].as_str().unwrap().to_owned();
    assert!((1..=64).contains(&epoch.len()));
    assert_eq!(second["d"]["epoch"], epoch);
    assert_eq!(first["d"]["protocol"], 1);

    town.server.kill9().await;
    town.server.restart().await;
    let (mut ada, third) = town.ada.identify(json!({})).await;
    assert_eq!(third["d"]["epoch"], epoch);
    assert!(p(&third) >= p(&first));
    ada.send(&town.channel, "after").await;
    assert!(p(&ada.hear_past("MESSAGE_CREATE").await) > p(&third));
}

#[tokio::test]
async fn who_has_written_reads_it_at_once() {
    let server = Deployment::start().await;
    let (ada, bob) = (server.register("ada").await, server.register("bob").await);
    for n in 0..15 {
        let name = format!("Guild {n}");
        let guild = ada.create_guild(&name).await;
        let mine = ada.data.get("/guilds/me").await.is(200);
        assert!(mine.as_array().unwrap().iter().any(|row| row["guild_id"] == guild && row["name"] == name), "{mine}");
        assert_eq!(ada.data.get(&format!("/guilds/{guild}/channels")).await.is(200), json!([]));
        let (mut socket, ready) = ada.identify(json!({})).await;
        let guilds = ready["d"]["guilds"].as_array().unwrap();
        assert_eq!(guilds.len(), n + 1);
        assert!(guilds.iter().any(|row| row["guildId"] == guild && row["name"] == name && row.get("channels").is_none()));
        let channel = ada.create_channel(&guild, "general").await;
        assert_eq!(ada.data.get(&format!("/guilds/{guild}/channels")).await.is(200)[0]["channel_id"], channel);
        socket.send(&channel, "first").await;
        socket.hear("CHANNEL_CREATE").await;
        let id = socket.hear("MESSAGE_CREATE").await["d"]["messageId"].take();
        assert_eq!(ada.data.get(&format!("/channels/{channel}/messages")).await.is(200)["messages"][0]["message_id"], id);
        assert_eq!(ada.data.get(&format!("/guilds/{guild}/channels")).await.is(200)[0]["last_message_id"], id);
        bob.join(&guild).await;
        assert_eq!(bob.history(&channel).await.len(), 1);
        bob.leave(&guild).await;
        assert_eq!(bob.data.get("/guilds/me").await.is(200), json!([]));
    }
}

#[tokio::test]
async fn a_private_guild_is_not_there_for_strangers() {
    let server = Deployment::start().await;
    let (ada, eve) = (server.register("ada").await, server.register("eve").await);
    let open = ada.create_guild("Open").await;
    let guild = ada.data.post("/guilds", json!({"name": "Hidden", "visibility": "private"})).await.is(201);
    let guild = guild["guild_id"].as_str().unwrap();
    let channel = ada.create_channel(guild, "secrets").await;
    ada.post(&channel, json!({"content": "hush"})).await;
    let mut hears = eve.connect().await;

    for who in [&ada, &eve] {
        let listed = who.data.get("/guilds").await.is(200);
        assert_eq!(listed.as_array().unwrap().iter().map(|row| &row["guild_id"]).collect::<Vec<_>>(), [&json!(open)]);
    }
    eve.data.post(&format!("/guilds/{guild}/members"), json!({})).await.is_error(404, "not_found");
    eve.data.get(&format!("/guilds/{guild}/channels")).await.is_error(404, "not_found");
    eve.data.get(&format!("/channels/{channel}/messages")).await.is_error(404, "not_found");
    eve.data.post(&format!("/channels/{channel}/messages"), json!({"content": "hi"})).await.is_error(404, "not_found");
    eve.data.post(&format!("/guilds/{guild}/channels"), json!({"name": "mine"})).await.is_error(404, "not_found");
    eve.data.delete(&format!("/guilds/{guild}/members/{}", ada.id)).await.is_error(404, "not_found");
    for op in ["SEND_MESSAGE", "TYPING_START"] {
        hears.say(op, json!({"channelId": channel, "content": "hi"})).await;
        assert_eq!(hears.hear("ERROR").await["d"]["code"], "not_found");
    }
    ada.post(&channel, json!({"content": "still hush"})).await;
    // What comes next is of the guild that she may join.
    eve.join(&open).await;
    assert_eq!(hears.hear("GUILD_CREATE").await["d"]["guildId"], open);
    assert_eq!(ada.history(&channel).await.len(), 2);
}

#[tokio::test]
async fn public_guilds_are_listed_page_by_page() {
    let server = Deployment::start().await;
    let (ada, bob) = (server.register("ada").await, server.register("bob").await);
    let mut created = Vec::new();
    for n in 0..7 {
        created.push(ada.create_guild(&format!("Guild {n}")).await);
    }
    created.sort_unstable();
    for limit in [1, 3, 7, 100] {
        let (mut listed, mut cursor) = (Vec::new(), String::new());
        loop {
            let page = bob.data.get(&format!("/guilds?limit={limit}{cursor}")).await;
            let next = page.headers.get("x-next-cursor").map(|next| next.to_str().unwrap().to_owned());
            let rows = page.is(200);
            assert!(rows.as_array().unwrap().len() <= limit);
            listed.extend(rows.as_array().unwrap().iter().map(|row| row["guild_id"].as_str().unwrap().to_owned()));
            let Some(next) = next else { break };
            cursor = format!("&cursor={next}");
        }
        listed.sort_unstable();
        assert_eq!(listed, created, "{limit}");
    }
    for query in ["cursor=AAAA", "cursor=", "limit=0", "limit=x"] {
        bob.data.get(&format!("/guilds?{query}")).await.is_error_of(query, 400, "malformed");
    }
    Caller::new(server.data()).get("/guilds").await.is_error(401, "unauthorized");
}
