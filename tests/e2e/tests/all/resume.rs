//! A session that was cut off goes on, on any gateway, and over the death of the server.

use jiscord_e2e::{Deployment, Person, Socket, nobodys_id};
use serde_json::{Value, json};

/// Ada, who is cut off, and Bob, who talks on.
struct Town {
    server: Deployment,
    ada: Person,
    bob: Person,
    channel: String,
}

impl Town {
    async fn new() -> Self {
        let server = Deployment::start().await;
        let (ada, bob) = (server.register("ada").await, server.register("bob").await);
        let guild = ada.create_guild("Computing").await;
        let channel = ada.create_channel(&guild, "engines").await;
        bob.join(&guild).await;
        Self { server, ada, bob, channel }
    }

    async fn say(&self, content: &str) {
        self.bob.post(&self.channel, json!({"content": content, "nonce": content})).await;
    }

    /// RESUME with what READY said, at this gateway: the next `count` frames, told before RESUMED, or some of them live after it
    /// where acknowledging does not wait for publishing.
    async fn resume(&self, gateway: usize, ready: &Value, after: &Value, count: usize) -> (Socket, Vec<Value>) {
        let mut socket = Socket::open(&self.server.ws_of(gateway)).await;
        socket.say("RESUME", self.resumes(ready, after)).await;
        let (mut told, mut resumed) = (Vec::new(), false);
        while !resumed || told.len() < count {
            let frame = socket.next().await.unwrap();
            match frame["op"] == "RESUMED" {
                true => {
                    let events = told.iter().filter(|frame: &&Value| frame["op"] != "RESYNC");
                    assert_eq!(frame["d"]["replayed"], events.count());
                    assert!(told.last().is_none_or(|last: &Value| frame["p"].as_u64() >= last["p"].as_u64()));
                    assert!(!self.server.is_one() || told.len() == count, "{told:?}");
                    resumed = true;
                }
                false => told.push(frame),
            }
        }
        assert!(told.windows(2).all(|pair| pair[0]["p"].as_u64() < pair[1]["p"].as_u64()), "{told:?}");
        (socket, told)
    }

    fn resumes(&self, ready: &Value, after: &Value) -> Value {
        json!({
            "token": self.ada.token,
            "device": "laptop",
            "sessionId": ready["d"]["sessionId"],
            "epoch": ready["d"]["epoch"],
            "after": after,
        })
    }
}

fn contents(frames: &[Value]) -> Vec<&str> {
    frames.iter().map(|frame| frame["d"]["content"].as_str().unwrap_or(frame["op"].as_str().unwrap())).collect()
}

#[tokio::test]
async fn what_was_missed_is_told_on_any_gateway_and_then_what_happens() {
    let town = Town::new().await;
    let (mut socket, ready) = town.ada.identify(json!({"device": "laptop"})).await;
    town.say("seen").await;
    let seen = socket.hear("MESSAGE_CREATE").await["p"].clone();
    drop(socket);
    for n in 0..5 {
        town.say(&n.to_string()).await;
    }
    let new = town.bob.create_guild("Elsewhere").await;
    town.ada.join(&new).await;
    let (mut socket, told) = town.resume(0, &ready, &seen, 6).await;
    assert_eq!(contents(&told), ["0", "1", "2", "3", "4", "GUILD_CREATE"]);
    town.say("live").await;
    assert_eq!(socket.hear("MESSAGE_CREATE").await["d"]["content"], "live");
    // On another one, from the same place, the same and what came since; the first socket is over.
    let (_, again) = town.resume(1, &ready, &seen, 7).await;
    assert_eq!(again[..6], told);
    assert_eq!(contents(&again[6..]), ["live"]);
    assert_eq!(socket.last_words().await, (vec!["INVALID_SESSION".into()], Some(4010)));
}

#[tokio::test]
async fn a_session_outlives_the_servers() {
    let mut town = Town::new().await;
    let (socket, ready) = town.ada.identify(json!({"device": "laptop"})).await;
    drop(socket);
    let mut after = ready["p"].clone();
    for round in 0..3 {
        town.say(&format!("{round} before")).await;
        town.server.kill9().await;
        town.server.restart().await;
        town.say(&format!("{round} after")).await;
        let (_socket, told) = town.resume(round, &ready, &after, 2).await;
        // Nothing is missing and nothing has to be read anew.
        assert_eq!(contents(&told), [format!("{round} before"), format!("{round} after")]);
        after = told[1]["p"].clone();
    }
}

#[tokio::test]
async fn what_one_may_not_see_any_more_is_not_told() {
    let town = Town::new().await;
    let (socket, ready) = town.ada.identify(json!({"device": "laptop"})).await;
    drop(socket);
    let theirs = town.bob.create_guild("Theirs").await;
    let secret = town.bob.create_channel(&theirs, "secret").await;
    town.ada.join(&theirs).await;
    town.bob.post(&secret, json!({"content": "a secret"})).await;
    town.ada.leave(&theirs).await;
    town.bob.post(&secret, json!({"content": "another"})).await;
    town.say("open").await;
    let (_, told) = town.resume(1, &ready, &ready["p"], 2).await;
    assert_eq!(contents(&told), ["GUILD_DELETE", "open"]);
    assert_eq!(told[0]["d"]["guildId"], theirs);
}

#[tokio::test]
async fn what_cannot_be_resumed_is_said() {
    let town = Town::new().await;
    let (mut socket, ready) = town.ada.identify(json!({"device": "laptop"})).await;
    let refused = async |resume: Value| {
        let mut socket = Socket::open(&town.server.ws()).await;
        socket.say("RESUME", resume).await;
        socket.last_words().await
    };
    // Another session has the place of this one; a token that is none of ours.
    let mut other = town.resumes(&ready, &ready["p"]);
    other["sessionId"] = json!(nobodys_id());
    assert_eq!(refused(other).await, (vec!["INVALID_SESSION".into()], Some(4012)));
    let mut forged = town.resumes(&ready, &ready["p"]);
    forged["token"] = json!("forged");
    assert_eq!(refused(forged).await, (vec!["INVALID_SESSION".into()], Some(4004)));
    socket.say("HEARTBEAT", json!(null)).await;
    socket.hear("HEARTBEAT_ACK").await;

    // A place of another log, or one in the future: everything may be stale.
    for (epoch, after) in [(json!("another"), ready["p"].clone()), (ready["d"]["epoch"].clone(), json!(1_u64 << 52))] {
        let mut ready = ready.clone();
        ready["d"]["epoch"] = epoch;
        let (_, told) = town.resume(0, &ready, &after, 1).await;
        assert_eq!((told.len(), &told[0]["op"], &told[0]["d"]["topics"]), (1, &json!("RESYNC"), &Value::Null));
    }
    // Something that is no RESUME is told so, and IDENTIFY is still open.
    let mut socket = Socket::open(&town.server.ws()).await;
    socket.say("RESUME", json!({"token": town.ada.token, "after": "here"})).await;
    assert_eq!(socket.hear("ERROR").await["d"]["code"], "malformed");
    socket.say("IDENTIFY", json!({"token": town.ada.token, "device": "another"})).await;
    socket.hear("READY").await;
}
