//! Two gateways are one.

use futures_util::future::join_all;
use jiscord_e2e::{Caller, Deployment, Person, Socket, has_database};
use serde_json::{Value, json};

/// Ada, who owns the guild, is at the first gateway, and Bob at the second.
pub(crate) struct Town {
    pub(crate) server: Deployment,
    pub(crate) ada: Person,
    pub(crate) bob: Person,
    pub(crate) guild: String,
    pub(crate) channel: String,
}

impl Town {
    pub(crate) async fn with(settings: &[(&str, &str)]) -> Self {
        Self::on(Deployment::services(settings).await).await
    }

    pub(crate) async fn on(server: Deployment) -> Self {
        let (ada, bob) = (server.register("ada").await, server.register("bob").await);
        let guild = ada.create_guild("Computing").await;
        let channel = ada.create_channel(&guild, "engines").await;
        bob.join(&guild).await;
        Self { server, ada, bob, guild, channel }
    }
}

/// A session of this user at this gateway.
pub(crate) async fn at(server: &Deployment, gateway: usize, person: &Person, device: &str) -> Socket {
    let mut socket = Socket::open(&server.ws_of(gateway)).await;
    socket.say("IDENTIFY", json!({"token": person.token, "device": device})).await;
    socket.hear("READY").await;
    socket
}

#[tokio::test]
async fn users_on_either_gateway_talk() {
    if !has_database("users_on_either_gateway_talk") {
        return;
    }
    let Town { server, ada, bob, channel, .. } = Town::with(&[]).await;
    assert_ne!(server.ws_of(0), server.ws_of(1));
    let mut sockets = [at(&server, 0, &ada, "a").await, at(&server, 1, &bob, "b").await];
    let mut positions = [Vec::new(), Vec::new()];
    for n in 0..20 {
        let content = n.to_string();
        sockets[n % 2].send_once(&channel, &content, &content).await;
        for (socket, positions) in sockets.iter_mut().zip(&mut positions) {
            let heard = socket.hear_past("MESSAGE_CREATE").await;
            assert_eq!(heard["d"]["content"], content);
            positions.push(heard["p"].as_u64().unwrap());
        }
    }
    assert_eq!(positions[0], positions[1], "one event has one position everywhere");
    assert!(positions[0].windows(2).all(|pair| pair[0] < pair[1]));

    sockets[0].say("TYPING_START", json!({"channelId": channel})).await;
    assert_eq!(sockets[1].hear_past("TYPING").await["d"]["userId"], ada.id);
    // Over HTTP data-service publishes.
    bob.post(&channel, json!({"content": "by post"})).await;
    for heard in join_all(sockets.iter_mut().map(|socket| socket.hear_past("MESSAGE_CREATE"))).await {
        assert_eq!(heard["d"]["content"], "by post");
    }
}

#[tokio::test]
async fn the_same_nonce_through_another_gateway_is_the_same_message() {
    if !has_database("the_same_nonce_through_another_gateway_is_the_same_message") {
        return;
    }
    let Town { server, ada, channel, .. } = Town::with(&[]).await;
    let mut ids = Vec::new();
    for gateway in [0, 1] {
        let mut socket = at(&server, gateway, &ada, "phone").await;
        socket.send_once(&channel, "hello", "n1").await;
        ids.push(socket.hear_past("MESSAGE_ACK").await["d"]["messageId"].take());
    }
    assert_eq!(ids[0], ids[1]);
    assert_eq!(ada.history(&channel).await.len(), 1);
}

#[tokio::test]
async fn a_session_is_evicted_by_one_at_another_gateway() {
    if !has_database("a_session_is_evicted_by_one_at_another_gateway") {
        return;
    }
    let Town { server, ada, channel, .. } = Town::with(&[]).await;
    let mut last = at(&server, 0, &ada, "phone").await;
    let mut other = at(&server, 0, &ada, "laptop").await;
    for gateway in [1, 0, 1] {
        let next = at(&server, gateway, &ada, "phone").await;
        assert_eq!(last.last_words().await, (vec!["INVALID_SESSION".to_owned()], Some(4010)));
        last = next;
    }
    // The one that lives, and the other device, are as they were.
    last.send(&channel, "here").await;
    for socket in [&mut last, &mut other] {
        assert_eq!(socket.hear_past("MESSAGE_CREATE").await["d"]["content"], "here");
    }
}

#[tokio::test]
async fn what_is_created_through_data_service_is_heard_at_both() {
    if !has_database("what_is_created_through_data_service_is_heard_at_both") {
        return;
    }
    let Town { server, ada, bob, guild, .. } = Town::with(&[]).await;
    let mut sockets = [at(&server, 0, &ada, "a").await, at(&server, 1, &bob, "b").await];
    let channel = ada.create_channel(&guild, "looms").await;
    for socket in &mut sockets {
        let heard = socket.hear("CHANNEL_CREATE").await;
        assert_eq!((&heard["d"]["channelId"], &heard["d"]["guildId"]), (&json!(channel), &json!(guild)));
    }
    // And it can be written to at once, from the other side.
    sockets[1].send(&channel, "threads").await;
    for socket in &mut sockets {
        assert_eq!(socket.hear("MESSAGE_CREATE").await["d"]["channelId"], channel);
    }
    // Who leaves hears nothing more.
    bob.leave(&guild).await;
    assert_eq!(sockets[0].hear("MEMBER_REMOVE").await["d"]["userId"], bob.id);
    assert_eq!(sockets[1].hear("GUILD_DELETE").await["d"]["guildId"], guild);
}

#[tokio::test]
async fn messages_are_plain_json_on_their_redis_channel() {
    if !has_database("messages_are_plain_json_on_their_redis_channel") {
        return;
    }
    let Town { mut server, ada, channel, .. } = Town::with(&[]).await;
    let url = server.beneath().redis_url();
    let topic = format!("channel:{channel}");
    let (ready, is_ready) = tokio::sync::oneshot::channel();
    let listening = std::thread::spawn(move || {
        let mut redis = redis::Client::open(url).unwrap().get_connection().unwrap();
        let (mut ready, mut heard) = (Some(ready), Vec::new());
        let mut pubsub = redis.as_pubsub();
        pubsub.subscribe(topic).unwrap();
        ready.take().unwrap().send(()).unwrap();
        while heard.len() < 2 {
            heard.push(pubsub.get_message().unwrap().get_payload::<String>().unwrap());
        }
        heard
    });
    is_ready.await.unwrap();
    let mut socket = at(&server, 0, &ada, "a").await;
    socket.send(&channel, "hello").await;
    let frame = socket.hear("MESSAGE_CREATE").await;
    ada.post(&channel, json!({"content": "by post"})).await;
    let heard = tokio::task::spawn_blocking(|| listening.join().unwrap()).await.unwrap();
    let heard: Vec<Value> = heard.iter().map(|text| serde_json::from_str(text).unwrap()).collect();
    assert_eq!(heard[0], frame, "the frame as sockets get it");
    for (message, content) in heard.iter().zip(["hello", "by post"]) {
        let d = &message["d"];
        assert_eq!(
            (&message["op"], &d["channelId"], &d["content"]),
            (&json!("MESSAGE_CREATE"), &json!(channel), &json!(content))
        );
        for field in ["messageId", "authorId", "createdAt"] {
            assert!(d[field].is_string(), "{field}: {message}");
        }
    }
}

#[tokio::test]
async fn all_in_ones_beside_each_other_are_one() {
    if !has_database("all_in_ones_beside_each_other_are_one") {
        return;
    }
    let (mut ones, _beneath, _folder) = Deployment::ones_on_services(2).await;
    let account = json!({"username": "ada", "email": "ada@example.com", "password": "correct horse"});
    Caller::new(format!("{}/api/auth", ones[0].url())).post("/register", account.clone()).await.is(201);
    let login = Caller::new(format!("{}/api/auth", ones[1].url())).post("/login", account).await.is(200);
    let token = login["token"].as_str().unwrap();
    let data = Caller::new(format!("{}/api/data", ones[0].url())).bearer(token);
    let guild = data.post("/guilds", json!({"name": "Computing"})).await.is(201)["guild_id"].take();
    let channels = format!("/guilds/{}/channels", guild.as_str().unwrap());
    let channel = data.post(&channels, json!({"name": "engines"})).await.is(201)["channel_id"].take();
    let mut sockets = Vec::new();
    for (one, device) in ones.iter().zip(["a", "b"]) {
        let mut socket = Socket::open(&format!("{}/ws", one.url().replacen("http", "ws", 1))).await;
        socket.say("IDENTIFY", json!({"token": token, "device": device})).await;
        socket.hear("READY").await;
        sockets.push(socket);
    }
    sockets[0].send(channel.as_str().unwrap(), "hello").await;
    for socket in &mut sockets {
        assert_eq!(socket.hear("MESSAGE_CREATE").await["d"]["content"], "hello");
    }
    for one in &mut ones {
        assert!(one.terminate().await.success());
    }
}
