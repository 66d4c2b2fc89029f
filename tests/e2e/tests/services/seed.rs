//! A client to the first Jiscord's letter, against the three on their own ports.

use jiscord_e2e::{Caller, Deployment, Socket, has_database};
use serde_json::json;

#[tokio::test]
async fn a_client_of_the_first_jiscord_works_on_its_ports() {
    if !has_database("a_client_of_the_first_jiscord_works_on_its_ports") {
        return;
    }
    let server = Deployment::services_by_default(&[("JISCORD_TRUST_USER_HEADER", "true")]).await;
    let (data, auth) = (Caller::new("http://localhost:3001"), Caller::new("http://localhost:3003"));
    for service in [&data, &auth, &Caller::new("http://localhost:3002")] {
        assert_eq!(service.get("/health").await.is(200)["status"], "ok");
    }
    let account = json!({"username": "ada", "email": "ada@example.com", "password": "correct horse"});
    let ada = auth.post("/register", account.clone()).await.is(201)["user_id"].take();
    let token = auth.post("/login", account).await.is(200)["token"].as_str().unwrap().to_owned();
    assert_eq!(auth.clone().bearer(&token).post("/verify-token", json!({})).await.is(200)["sub"], ada);

    let as_ada = data.clone().with("X-User-ID", ada.as_str().unwrap());
    let guild = as_ada.post("/guilds", json!({"name": "Computing"})).await.is(201)["guild_id"].take();
    let channels = format!("/guilds/{}/channels", guild.as_str().unwrap());
    let channel = as_ada.post(&channels, json!({"name": "engines"})).await.is(201)["channel_id"].take();

    // Its sockets are at the root.
    let mut socket = Socket::open("ws://127.0.0.1:3002/").await;
    socket.say_text(&format!(r#"{{"op":"IDENTIFY","d":{{"token":"{token}"}}}}"#)).await;
    assert_eq!(socket.hear("READY").await["d"]["userId"], ada);
    socket.say_text(r#"{"op":"HEARTBEAT","d":null}"#).await;
    socket.hear("HEARTBEAT_ACK").await;
    socket.say("SEND_MESSAGE", json!({"channelId": channel, "content": "hello"})).await;
    let said = socket.hear("MESSAGE_CREATE").await["d"].take();
    assert_eq!((&said["authorId"], &said["content"]), (&ada, &json!("hello")));
    socket.say("TYPING_START", json!({"channelId": channel})).await;
    assert_eq!(socket.hear("TYPING").await["d"]["userId"], ada);

    let messages = format!("/channels/{}/messages", channel.as_str().unwrap());
    let row = data.post(&messages, json!({"content": "by post", "author_id": ada})).await.is(201);
    assert_eq!(socket.hear("MESSAGE_CREATE").await["d"]["messageId"], row["message_id"]);
    let page = data.get(&messages).await.is(200);
    let contents: Vec<_> = page["messages"].as_array().unwrap().iter().map(|row| &row["content"]).collect();
    assert_eq!(contents, ["by post", "hello"]);

    let mut second = Socket::open("ws://127.0.0.1:3002/ws").await;
    second.say("IDENTIFY", json!({"token": token})).await;
    second.hear("READY").await;
    assert_eq!(socket.last_words().await, (vec!["INVALID_SESSION".to_owned()], Some(4010)));
    drop(server);
}
