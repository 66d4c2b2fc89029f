//! What a client of the first Jiscord relies on. It knows these frames and calls and nothing else.

use jiscord_e2e::{Caller, Deployment, End, Socket, nobodys_id};
use serde_json::{Value, json};

/// `2026-11-25T02:15:00.000Z`
fn is_time(value: &Value) -> bool {
    let shape = |text: &str| text.chars().map(|c| if c.is_ascii_digit() { '0' } else { c }).collect::<String>();
    value.as_str().is_some_and(|text| shape(text) == "0000-00-00T00:00:00.000Z")
}

#[tokio::test]
async fn a_client_that_knows_only_the_seeds_frames_can_chat() {
    let server = Deployment::start().await;
    let (ada, bob) = (server.register("ada").await, server.register("bob").await);
    let guild = ada.create_guild("Computing").await;
    let channel = ada.create_channel(&guild, "engines").await;
    bob.join(&guild).await;
    let mut others = bob.connect().await;

    let (mut socket, hello) = Socket::greeted(&server.ws()).await;
    assert_eq!(hello, json!({"op": "HELLO", "d": {"heartbeat_interval": 45000}}));
    socket.say_text(r#"{"op":"HEARTBEAT","d":null}"#).await;
    assert_eq!(socket.hear("HEARTBEAT_ACK").await, json!({"op": "HEARTBEAT_ACK", "d": null}));
    socket.say_text(&format!(r#"{{"op":"IDENTIFY","d":{{"token":"{}"}}}}"#, ada.token)).await;
    let ready = socket.hear("READY").await["d"].take();
    assert_eq!(ready["userId"], ada.id);
    assert!(ready["sessionId"].is_string());

    socket.say_text(r#"{"op":"HEARTBEAT","d":null}"#).await;
    assert_eq!(socket.hear("HEARTBEAT_ACK").await["d"], Value::Null);

    socket.say_text(&format!(r#"{{"op":"SEND_MESSAGE","d":{{"channelId":"{channel}","content":"hello"}}}}"#)).await;
    let said = socket.hear("MESSAGE_CREATE").await["d"].take();
    assert_eq!((&said["channelId"], &said["authorId"], &said["content"]), (&json!(channel), &json!(ada.id), &json!("hello")));
    assert!(said["messageId"].is_string() && is_time(&said["createdAt"]), "{said}");
    assert_eq!(others.hear("MESSAGE_CREATE").await["d"], said);
    let page = ada.data.get(&format!("/channels/{channel}/messages")).await.is(200);
    assert_eq!(page["messages"][0]["message_id"], said["messageId"]);
    assert_eq!(page["messages"][0]["created_at"], said["createdAt"]);

    socket.say_text(&format!(r#"{{"op":"TYPING_START","d":{{"channelId":"{channel}"}}}}"#)).await;
    for socket in [&mut socket, &mut others] {
        let typing = socket.hear("TYPING").await["d"].take();
        assert_eq!((&typing["channelId"], &typing["userId"]), (&json!(channel), &json!(ada.id)));
        assert!(typing["timestamp"].as_u64().is_some_and(|ms| ms > 1_700_000_000_000), "{typing}");
    }

    // A second one of the same user: the first is told, and closed.
    let mut second = Socket::open(&server.ws()).await;
    second.say_text(&format!(r#"{{"op":"IDENTIFY","d":{{"token":"{}"}}}}"#, ada.token)).await;
    second.hear("READY").await;
    assert_eq!(socket.rest().await, (vec![json!({"op": "INVALID_SESSION", "d": null})], End(Some(4010))));
    second.send(&channel, "still here").await;
    second.hear("MESSAGE_CREATE").await;
}

#[tokio::test]
async fn a_client_with_only_the_seeds_calls_works_in_trusted_mode() {
    let server = Deployment::with(&[("JISCORD_TRUST_USER_HEADER", "true")]).await;
    let data = Caller::new(server.data());
    assert_eq!(data.get("/health").await.is(200)["status"], "ok");

    let new = json!({"username": "ada", "email": "ada@example.com", "password_hash": "$argon2id$whatever"});
    let ada = data.post("/users", new.clone()).await.is(201);
    assert_eq!((&ada["username"], ada.get("password_hash")), (&json!("ada"), None));
    assert!(is_time(&ada["created_at"]), "{ada}");
    data.post("/users", new).await.is_error(409, "email_in_use");
    let id = ada["user_id"].as_str().unwrap();
    for path in [format!("/users/{id}"), "/users/email/ada@example.com".into(), "/users/email/ADA%40example.com".into()] {
        assert_eq!(data.get(&path).await.is(200), ada, "{path}");
    }
    data.get(&format!("/users/{}", nobodys_id())).await.is_error(404, "not_found");
    data.get("/users/email/eve@example.com").await.is_error(404, "not_found");

    let as_ada = data.clone().with("X-User-ID", id);
    assert_eq!(as_ada.get("/guilds/me").await.is(200), json!([]));
    data.get("/guilds/me").await.is_error(400, "malformed");
    let guild = as_ada.post("/guilds", json!({"name": "Computing"})).await.is(201);
    let mine = as_ada.get("/guilds/me").await.is(200);
    assert_eq!((mine.as_array().unwrap().len(), &mine[0]["guild_id"]), (1, &guild["guild_id"]));
    assert!(mine[0]["name"] == "Computing" && is_time(&mine[0]["created_at"]), "{mine}");
    let channels = format!("/guilds/{}/channels", guild["guild_id"].as_str().unwrap());
    let channel = as_ada.post(&channels, json!({"name": "engines"})).await.is(201);
    for who in [&data, &as_ada] {
        let listed = who.get(&channels).await.is(200);
        assert_eq!((listed.as_array().unwrap().len(), &listed[0]["channel_id"]), (1, &channel["channel_id"]));
        assert!(listed[0]["guild_id"] == guild["guild_id"] && listed[0]["name"] == "engines", "{listed}");
        assert!(is_time(&listed[0]["created_at"]), "{listed}");
    }

    let messages = format!("/channels/{}/messages", channel["channel_id"].as_str().unwrap());
    assert_eq!(data.get(&messages).await.is(200), json!({"messages": [], "nextPageState": null}));
    let row = data.post(&messages, json!({"content": "hello", "author_id": id})).await.is(201);
    assert!(row["message_id"].is_string() && is_time(&row["created_at"]), "{row}");
    assert_eq!((&row["channel_id"], &row["author_id"], &row["content"]), (&channel["channel_id"], &json!(id), &json!("hello")));
    let listed = data.get(&messages).await.is(200)["messages"][0].take();
    for field in ["message_id", "channel_id", "author_id", "content", "created_at"] {
        assert_eq!(listed[field], row[field], "{field}");
    }
}

#[tokio::test]
async fn pages_lead_to_the_first_message_and_end_in_null() {
    let server = Deployment::with(&[("JISCORD_TRUST_USER_HEADER", "true")]).await;
    let ada = server.register("ada").await;
    let channel = ada.create_channel(&ada.create_guild("Computing").await, "engines").await;
    let data = Caller::new(server.data());
    let messages = format!("/channels/{channel}/messages");
    for n in 1..=60 {
        data.post(&messages, json!({"content": n.to_string(), "author_id": ada.id})).await.is(201);
    }
    let newest_first: Vec<_> = (1..=60).rev().map(|n| n.to_string()).collect();
    // 60 is a multiple of 20 and of 60: the last page is full, and says that it is the last.
    for (limit, pages) in [("", vec![50, 10]), ("limit=20", vec![20, 20, 20]), ("limit=60", vec![60]), ("limit=59", vec![59, 1])]
    {
        let (mut contents, mut lengths, mut state) = (Vec::new(), Vec::new(), String::new());
        loop {
            let page = data.get(&format!("{messages}?{limit}{state}")).await.is(200);
            let rows = page["messages"].as_array().unwrap();
            lengths.push(rows.len());
            contents.extend(rows.iter().map(|row| row["content"].as_str().unwrap().to_owned()));
            match &page["nextPageState"] {
                Value::String(next) => state = format!("&pageState={next}"),
                end => break assert_eq!(*end, Value::Null),
            }
        }
        assert_eq!((lengths, &contents), (pages, &newest_first), "{limit}");
    }
    // More than 100 are never given at once.
    for n in 61..=101 {
        data.post(&messages, json!({"content": n.to_string(), "author_id": ada.id})).await.is(201);
    }
    let page = data.get(&format!("{messages}?limit=100000")).await.is(200);
    assert_eq!(page["messages"].as_array().unwrap().len(), 100);
    assert!(page["nextPageState"].is_string());
}

#[tokio::test]
async fn trusted_mode_believes_nobody_whom_a_web_page_sent() {
    let server = Deployment::with(&[("JISCORD_TRUST_USER_HEADER", "true")]).await;
    let ada = server.register("ada").await;
    let data = Caller::new(server.data()).with("X-User-ID", &ada.id);
    data.get("/guilds/me").await.is(200);
    data.clone().with("Origin", "http://localhost:5173").get("/guilds/me").await.is(200);
    // DNS rebinding: a page's own name that leads here.
    data.clone().with("Host", "evil.example").get("/guilds/me").await.is_error(403, "forbidden");
    for origin in ["http://evil.example", "null", "https://localhost:5173"] {
        data.clone().with("Origin", origin).get("/guilds/me").await.is_error(403, "forbidden");
    }
    // Nobody who is only believed reads a hash.
    for path in [format!("/users/{}", ada.id), "/users/email/ada@example.com".into()] {
        assert_eq!(data.get(&path).await.is(200).get("password_hash"), None);
    }
    // Who has credentials is asked for them.
    data.bearer("forged").get("/guilds/me").await.is_error(401, "unauthorized");
}
