//! One address in front of the three.

use jiscord_e2e::{Caller, Deployment, Socket, has_database};
use serde_json::json;

#[tokio::test]
async fn two_people_talk_through_the_entry() {
    if !has_database("two_people_talk_through_the_entry") {
        return;
    }
    // The services are on this machine, as the entry is.
    let mut server = Deployment::services(&[("JISCORD_TRUSTED_PROXIES", "127.0.0.1")]).await;
    let mut entry = server.entry().await;
    let (auth, data) = (Caller::new(format!("{}/api/auth", entry.url())), Caller::new(format!("{}/api/data", entry.url())));
    let health = Caller::new(entry.url());
    assert_eq!(health.get("/health/ready").await.status, 200);

    let mut people = Vec::new();
    for name in ["ada", "bob"] {
        let account = json!({"username": name, "email": format!("{name}@example.com"), "password": "correct horse"});
        auth.post("/register", account.clone()).await.is(201);
        let token = auth.post("/login", account).await.is(200)["token"].as_str().unwrap().to_owned();
        let me = auth.clone().bearer(&token).get("/me").await.is(200);
        assert_eq!(me["username"], name);
        people.push((token.clone(), data.clone().bearer(&token), me["user_id"].clone()));
    }
    let (ada, bob) = (&people[0], &people[1]);
    let guild = ada.1.post("/guilds", json!({"name": "Computing"})).await.is(201)["guild_id"].as_str().unwrap().to_owned();
    let channel = ada.1.post(&format!("/guilds/{guild}/channels"), json!({"name": "engines"})).await.is(201);
    let channel = channel["channel_id"].as_str().unwrap();

    let mut sockets = Vec::new();
    for (token, ..) in &people {
        let mut socket = Socket::open(&format!("{}/ws", entry.url().replacen("http", "ws", 1))).await;
        socket.say("IDENTIFY", json!({"token": token})).await;
        socket.hear("READY").await;
        sockets.push(socket);
    }
    bob.1.post(&format!("/guilds/{guild}/members"), json!({})).await.is(201);
    assert_eq!(sockets[1].hear("GUILD_CREATE").await["d"]["guildId"], guild);
    for (from, content) in [(0, "hello"), (1, "hello yourself")] {
        sockets[from].send(channel, content).await;
        for socket in &mut sockets {
            let heard = socket.hear_past("MESSAGE_CREATE").await;
            assert_eq!((&heard["d"]["content"], &heard["d"]["authorId"]), (&json!(content), &people[from].2));
        }
    }
    let history = bob.1.get(&format!("/channels/{channel}/messages")).await.is(200);
    assert_eq!(history["messages"].as_array().unwrap().len(), 2);

    // What is for services alone is not there, whoever asks.
    let service = data.clone().service(&server.service_token());
    for path in ["/internal/users/by-email", "/%69nternal/users/by-email", "/guilds/../internal/users/by-email"] {
        service.get(path).await.is_error_of(path, 404, "not_found");
    }

    // The gateway goes: it says so through the entry, which stays and is not ready.
    assert!(server.gateway(0).terminate().await.success());
    let (said, code) = sockets[0].last_words().await;
    assert_eq!((said.last().map(String::as_str), code), (Some("RECONNECT"), Some(1001)));
    assert_eq!(health.get("/health/ready").await.status, 503);
    health.get("/ws").await.is_error(503, "unavailable");
    server.gateway(0).restart().await;
    assert_eq!(health.get("/health/ready").await.status, 200);
    assert!(entry.terminate().await.success());
}
