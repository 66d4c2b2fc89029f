//! data-service over HTTP: what each route does.

use jiscord_core::{
    ChannelId, Event, MessageId, Topic,
    backend::{Actor, Backend},
    event::EventLog,
    frame::SendMessage,
    http::{ChannelRow, GuildRow, MessageRow},
    model::Visibility,
};
use serde_json::{Value, json};

use crate::site::{NOBODY, Site, User, assert_time, settings};

/// A message of this user's.
async fn say(site: &Site, user: &User, channel: ChannelId, content: &str) -> MessageRow {
    let call = site.data(&format!("POST /channels/{channel}/messages")).by(user).json(json!({ "content": content }));
    serde_json::from_value(call.send().await.ok(201)).unwrap()
}

/// What a frame in an event says.
fn frame(event: &Event) -> Value {
    serde_json::from_str(&event.frame).unwrap()
}

fn contents(page: &Value) -> Vec<&str> {
    page["messages"].as_array().unwrap().iter().map(|message| message["content"].as_str().unwrap()).collect()
}

#[tokio::test]
async fn a_user_is_made_by_a_service_and_seen_by_each_as_it_should() {
    let site = Site::new();
    let new = json!({ "username": "Ada", "email": "Ada@Example.com", "password_hash": "$argon2id$…" });
    let made = site.data("POST /users").service().json(&new).send().await.ok(201);
    let id = made["user_id"].as_str().unwrap();
    assert_time(&made["created_at"]);
    let whole = json!({
        "user_id": id, "username": "Ada", "email": "ada@example.com", "created_at": made["created_at"],
    });
    assert_eq!(made, whole);
    site.data("POST /users").service().json(&new).send().await.fails(409, "email_in_use");

    let mut with_hash = whole.clone();
    with_hash["password_hash"] = json!("$argon2id$…");
    let mut public = whole.clone();
    public.as_object_mut().unwrap().remove("email");
    let bea = site.user("Bea").await;
    let ada = User { id: id.parse().unwrap(), token: site.token(id, "Ada") };
    let by_id = || site.data(&format!("GET /users/{id}"));
    assert_eq!(by_id().service().send().await.ok(200), with_hash);
    assert_eq!(by_id().service().acting_for(bea.id).send().await.ok(200), with_hash);
    assert_eq!(by_id().by(&ada).send().await.ok(200), whole);
    assert_eq!(by_id().by(&bea).send().await.ok(200), public);
    for address in ["ada@example.com", "ADA@example.com", "ada%40example.com"] {
        let by_email = || site.data(&format!("GET /users/email/{address}"));
        assert_eq!(by_email().service().send().await.ok(200), with_hash);
        by_email().by(&ada).send().await.fails(403, "forbidden");
    }

    site.data(&format!("GET /users/{NOBODY}")).service().send().await.fails(404, "not_found");
    for address in ["nobody@example.com", "nobody", "%F0%9F%A6%80@example.com"] {
        site.data(&format!("GET /users/email/{address}")).service().send().await.fails(404, "not_found");
    }
    for (field, value, status) in [
        ("username", json!("x"), 422),
        ("email", json!("x"), 422),
        ("password_hash", json!(""), 422),
        ("password_hash", json!("x".repeat(513)), 422),
        ("password_hash", Value::Null, 400),
        ("email", json!(7), 400),
    ] {
        let mut body = json!({ "username": "Cyd", "email": "cyd@example.com", "password_hash": "x" });
        body[field] = value;
        let code = if status == 422 { "invalid" } else { "malformed" };
        site.data("POST /users").service().json(body).send().await.fails(status, code);
    }
}

#[tokio::test]
async fn a_message_is_stored_told_and_published() {
    let site = Site::new();
    let ada = site.user("Ada").await;
    let (guild, channel) = site.guild(&ada, Visibility::Public).await;
    let path = format!("POST /channels/{channel}/messages");
    let body = json!({ "content": " hi ", "author_id": ada.id, "nonce": "n1", "from_the_future": { "x": 1 } });
    let row = site.data(&path).by(&ada).json(&body).send().await.ok(201);
    assert_time(&row["created_at"]);
    let id: MessageId = row["message_id"].as_str().unwrap().parse().unwrap();
    assert!(id.is_ordered() && row["rev"].as_u64().unwrap() < 1 << 53);
    let want = json!({
        "message_id": id, "channel_id": channel, "author_id": ada.id, "content": "hi", "created_at": row["created_at"],
        "rev": row["rev"], "author": { "user_id": ada.id, "username": "Ada" },
    });
    assert_eq!(row, want);

    let events = site.heard.take();
    assert_eq!(site.log().await.last(), events.last(), "what is published is what is in the log");
    let [event] = &*events else { panic!("{events:?}") };
    assert_eq!((event.id.uuid(), event.channel), (id.uuid(), Some(channel)));
    assert_eq!((&event.topics, &*event.op), (&vec![Topic::Guild(guild)], "MESSAGE_CREATE"));
    let told = json!({
        "messageId": id, "channelId": channel, "authorId": ada.id, "content": "hi", "createdAt": row["created_at"],
        "rev": row["rev"], "author": { "userId": ada.id, "username": "Ada" }, "nonce": "n1",
    });
    assert_eq!(frame(event), json!({ "op": "MESSAGE_CREATE", "d": told }));

    // Again with the same nonce: the same answer and the same event, and nothing new is stored.
    let log = site.log().await;
    assert_eq!(site.data(&path).by(&ada).json(&body).send().await.ok(201), row);
    assert_eq!((site.heard.take(), site.log().await), (events, log));
    let other = json!({ "content": "ho", "nonce": "n1" });
    site.data(&path).by(&ada).json(other).send().await.fails(409, "nonce_reused");
    let page = site.data(&format!("GET /channels/{channel}/messages")).by(&ada).send().await.ok(200);
    assert_eq!(page, json!({ "messages": [row], "nextPageState": null }));
}

#[tokio::test]
async fn what_is_no_message_is_not_stored() {
    let site = Site::new();
    let ada = site.user("Ada").await;
    let (_, channel) = site.guild(&ada, Visibility::Public).await;
    let (_, elsewhere) = site.guild(&ada, Visibility::Public).await;
    let foreign = say(&site, &ada, elsewhere, "over there").await.message_id;
    site.heard.take();
    let log = site.log().await;
    for (body, status, code) in [
        (json!({}), 400, "malformed"),
        (json!({ "content": null }), 400, "malformed"),
        (json!({ "content": 7 }), 400, "malformed"),
        (json!([]), 400, "malformed"),
        (json!({ "content": "" }), 422, "invalid"),
        (json!({ "content": " \n " }), 422, "invalid"),
        (json!({ "content": "x".repeat(4001) }), 422, "invalid"),
        (json!({ "content": "x", "nonce": "" }), 422, "invalid"),
        (json!({ "content": "x", "nonce": "n".repeat(65) }), 422, "invalid"),
        (json!({ "content": "x", "nonce": 7 }), 400, "malformed"),
        (json!({ "content": "x", "author_id": "me" }), 400, "malformed"),
        (json!({ "content": "x", "author_id": NOBODY }), 403, "forbidden"),
        (json!({ "content": "x", "reply_to": "that" }), 400, "malformed"),
        (json!({ "content": "x", "reply_to": NOBODY }), 404, "not_found"),
        (json!({ "content": "x", "reply_to": ada.id }), 404, "not_found"),
        (json!({ "content": "x", "reply_to": foreign }), 404, "not_found"),
    ] {
        let call = site.data(&format!("POST /channels/{channel}/messages")).by(&ada).json(&body);
        call.send().await.fails(status, code);
    }
    assert_eq!((site.heard.take(), site.log().await), (vec![], log));

    let longest = "🦀".repeat(4000);
    let first = say(&site, &ada, channel, &longest).await;
    let body = json!({ "content": "an answer", "reply_to": first.message_id });
    let answer = site.data(&format!("POST /channels/{channel}/messages")).by(&ada).json(body).send().await.ok(201);
    assert_eq!(answer["reply_to"], json!(first.message_id));
}

#[tokio::test]
async fn history_is_read_in_pages_that_neither_repeat_nor_miss() {
    let site = Site::new();
    let ada = site.user("Ada").await;
    let (_, channel) = site.guild(&ada, Visibility::Public).await;
    let path = format!("GET /channels/{channel}/messages");
    let read = |query: String| site.data(&format!("{path}?{query}")).by(&ada).send();
    assert_eq!(read(String::new()).await.ok(200), json!({ "messages": [], "nextPageState": null }));

    let mut said = Vec::new();
    for n in 0..12 {
        said.push(say(&site, &ada, channel, &n.to_string()).await);
    }
    let all: Vec<_> = (0..12).rev().map(|n: i32| n.to_string()).collect();
    // 12 is an exact multiple of some limits: their last page leads nowhere, too.
    for limit in [1, 2, 3, 5, 6, 7, 11, 12, 13, 100] {
        let (mut seen, mut state, mut pages) = (Vec::new(), String::new(), 0);
        loop {
            let page = read(format!("limit={limit}&pageState={state}")).await.ok(200);
            seen.extend(contents(&page).into_iter().map(str::to_owned));
            pages += 1;
            match page["nextPageState"].as_str() {
                Some(next) => state = next.to_owned(),
                None => break,
            }
        }
        assert_eq!((&seen, pages), (&all, 12usize.div_ceil(limit)), "limit {limit}");
    }

    let id = |n: usize| said[n].message_id;
    for (query, want, more) in [
        (format!("limit=3&before={}", id(5)), vec!["4", "3", "2"], true),
        (format!("limit=5&before={}", id(5)), vec!["4", "3", "2", "1", "0"], false),
        (format!("before={}", id(0)), vec![], false),
        (format!("limit=3&after={}", id(5)), vec!["8", "7", "6"], true),
        (format!("limit=6&after={}", id(5)), vec!["11", "10", "9", "8", "7", "6"], false),
        (format!("after={}", id(11)), vec![], false),
        (format!("limit=5&around={}", id(5)), vec!["7", "6", "5", "4", "3"], true),
        (format!("limit=4&around={}", id(5)), vec!["6", "5", "4", "3"], true),
        (format!("limit=1&around={}", id(5)), vec!["5"], true),
        (format!("limit=1&around={}", id(0)), vec!["0"], false),
        (format!("limit=3&around={}", id(0)), vec!["1", "0"], false),
        (format!("limit=3&around={}", id(11)), vec!["11", "10", "9"], true),
    ] {
        let page = read(query.clone()).await.ok(200);
        assert_eq!((contents(&page), page["nextPageState"].is_string()), (want, more), "{query}");
    }
    // A page read with `after` goes on towards the present; one with `around` into the past.
    let next = |page: &Value| format!("limit=100&pageState={}", page["nextPageState"].as_str().unwrap());
    let page = read(format!("limit=3&after={}", id(5))).await.ok(200);
    assert_eq!(contents(&read(next(&page)).await.ok(200)), ["11", "10", "9"]);
    let page = read(format!("limit=1&around={}", id(5))).await.ok(200);
    assert_eq!(contents(&read(next(&page)).await.ok(200)), ["4", "3", "2", "1", "0"]);
}

#[tokio::test]
async fn a_page_has_its_limits() {
    let site = Site::new();
    let ada = site.user("Ada").await;
    let (_, channel) = site.guild(&ada, Visibility::Public).await;
    for n in 0..101 {
        let message = SendMessage { channel_id: channel, content: n.to_string(), nonce: None, reply_to: None };
        site.chat.send_message(ada.actor(), message).await.unwrap();
    }
    let path = format!("GET /channels/{channel}/messages");
    for (query, rows) in [("", 50), ("?limit=100", 100), ("?limit=101", 100), ("?limit=99999999999999999999999", 100)] {
        let page = site.data(&format!("{path}{query}")).by(&ada).send().await.ok(200);
        assert_eq!(page["messages"].as_array().unwrap().len(), rows, "{query}");
        assert!(page["nextPageState"].is_string());
    }
    let id = say(&site, &ada, channel, "last").await.message_id;
    let v4 = "0f8fad5b-d9cb-469f-a165-70867728950e";
    for query in [
        "limit=0".into(),
        "limit=-1".into(),
        "limit=".into(),
        "limit=ten".into(),
        "limit=1.5".into(),
        "limit=1&limit=2".into(),
        "before=x".into(),
        "before=".into(),
        format!("before={v4}"),
        format!("after={v4}"),
        format!("around={v4}"),
        format!("before={id}&after={id}"),
        format!("before={id}&around={id}"),
        format!("before={id}&before={id}"),
        "pageState=forged".into(),
        "pageState=%00".into(),
        "pageState=%FF".into(),
        format!("pageState={}", "A".repeat(35)),
        format!("pageState={id}"),
    ] {
        site.data(&format!("{path}?{query}")).by(&ada).send().await.fails(400, "malformed");
    }
    let page = site.data(&format!("{path}?limit=1&unknown=1")).by(&ada).send().await.ok(200);
    let state = page["nextPageState"].as_str().unwrap();
    site.data(&format!("{path}?before={id}&pageState={state}")).by(&ada).send().await.fails(400, "malformed");
    // A cursor belongs to its channel, and to that list alone.
    let (_, other) = site.guild(&ada, Visibility::Public).await;
    let call = site.data(&format!("GET /channels/{other}/messages?pageState={state}")).by(&ada);
    call.send().await.fails(400, "malformed");
    site.data(&format!("GET /guilds?cursor={state}")).by(&ada).send().await.fails(400, "malformed");
}

#[tokio::test]
async fn around_another_channels_message_shows_nothing_of_it() {
    let site = Site::new();
    let ada = site.user("Ada").await;
    let (_, here) = site.guild(&ada, Visibility::Public).await;
    let (_, there) = site.guild(&ada, Visibility::Private).await;
    say(&site, &ada, here, "before").await;
    let foreign = say(&site, &ada, there, "a secret").await.message_id;
    say(&site, &ada, here, "after").await;
    for key in ["around", "before", "after"] {
        let page = site.data(&format!("GET /channels/{here}/messages?{key}={foreign}")).by(&ada).send().await.ok(200);
        assert!(!contents(&page).contains(&"a secret"), "{key}");
    }
}

#[tokio::test]
async fn a_guild_is_there_as_soon_as_it_is_created() {
    let site = Site::new();
    let ada = site.user("Ada").await;
    let guild = site.data("POST /guilds").by(&ada).json(json!({ "name": " Chess " })).send().await.ok(201);
    assert_time(&guild["created_at"]);
    let id = guild["guild_id"].as_str().unwrap();
    let want = json!({
        "guild_id": id, "name": "Chess", "created_at": guild["created_at"], "rev": guild["rev"], "owner_id": ada.id,
        "visibility": "public",
    });
    assert_eq!(guild, want);
    assert_eq!(site.data("GET /guilds/me").by(&ada).send().await.ok(200), json!([guild]));
    assert_eq!(site.data("GET /guilds").by(&ada).send().await.ok(200), json!([guild]));
    assert_eq!(site.data(&format!("GET /guilds/{id}/channels")).by(&ada).send().await.ok(200), json!([]));

    let events = site.heard.take();
    let [event] = &*events else { panic!("{events:?}") };
    assert_eq!(site.log().await, events);
    assert_eq!((event.id.to_string(), &*event.op, event.channel), (id.to_owned(), "GUILD_CREATE", None));
    assert_eq!(event.topics, [Topic::Guild(id.parse().unwrap()), Topic::User(ada.id)]);
    let d = &frame(event)["d"];
    assert_eq!((&d["guildId"], &d["name"], &d["rev"], &d["channels"]), (&json!(id), &json!("Chess"), &guild["rev"], &json!([])));

    let private = json!({ "name": "Secret", "visibility": "private" });
    let private = site.data("POST /guilds").by(&ada).json(private).send().await.ok(201);
    assert_eq!(private["visibility"], "private");
    assert_eq!(site.data("GET /guilds").by(&ada).send().await.ok(200), json!([guild]));
    assert_eq!(site.data("GET /guilds/me").by(&ada).send().await.ok(200).as_array().unwrap().len(), 2);

    let log = site.log().await;
    for (body, status, code) in [
        (json!({}), 400, "malformed"),
        (json!({ "name": 7 }), 400, "malformed"),
        (json!({ "name": "x" }), 422, "invalid"),
        (json!({ "name": "x".repeat(101) }), 422, "invalid"),
        (json!({ "name": "a\u{200b}b" }), 422, "invalid"),
        (json!({ "name": "Chess", "visibility": "hidden" }), 400, "malformed"),
        (json!({ "name": "Chess", "creator_user_id": NOBODY }), 403, "forbidden"),
    ] {
        site.data("POST /guilds").by(&ada).json(body).send().await.fails(status, code);
    }
    assert_eq!(site.log().await, log);
}

#[tokio::test]
async fn guilds_are_private_where_the_server_says_so() {
    let site = Site::new();
    let ada = site.user("Ada").await;
    let chat = site.chat.clone().with_default_visibility(Visibility::Private);
    assert_eq!(chat.create_guild(ada.actor(), "Chess", None).await.unwrap().visibility, Some(Visibility::Private));
}

#[tokio::test]
async fn public_guilds_are_listed_page_by_page() {
    let site = Site::new();
    let ada = site.user("Ada").await;
    for _ in 0..6 {
        site.guild(&ada, Visibility::Public).await;
        site.guild(&ada, Visibility::Private).await;
    }
    let all = site.data("GET /guilds").by(&ada).send().await;
    assert_eq!(all.header("x-next-cursor"), None);
    let all: Vec<GuildRow> = serde_json::from_value(all.ok(200)).unwrap();
    assert_eq!(all.len(), 6);
    for limit in [1, 2, 4, 6, 7, 1000] {
        let (mut seen, mut query) = (Vec::new(), format!("limit={limit}"));
        loop {
            let reply = site.data(&format!("GET /guilds?{query}")).by(&ada).send().await;
            let next = reply.header("x-next-cursor").map(|cursor| format!("limit={limit}&cursor={cursor}"));
            seen.extend(serde_json::from_value::<Vec<GuildRow>>(reply.ok(200)).unwrap());
            match next {
                Some(next) => query = next,
                None => break,
            }
        }
        assert_eq!(seen, all, "limit {limit}");
    }
    for query in ["limit=0", "limit=x", "cursor=", "cursor=x", &format!("cursor={NOBODY}")] {
        site.data(&format!("GET /guilds?{query}")).by(&ada).send().await.fails(400, "malformed");
    }
}

#[tokio::test]
async fn channels_are_created_by_the_owner_and_told_to_the_guild() {
    let site = Site::new();
    let ada = site.user("Ada").await;
    let (guild, general) = site.guild(&ada, Visibility::Public).await;
    let path = format!("/guilds/{guild}/channels");
    let made = site.data(&format!("POST {path}")).by(&ada).json(json!({ "name": "random" })).send().await.ok(201);
    assert_time(&made["created_at"]);
    let id = made["channel_id"].as_str().unwrap();
    let want = json!({
        "channel_id": id, "guild_id": guild, "name": "random", "created_at": made["created_at"], "rev": made["rev"],
    });
    assert_eq!(made, want);
    let events = site.heard.take();
    let [event] = &*events else { panic!("{events:?}") };
    assert_eq!((event.id.to_string(), &*event.op), (id.to_owned(), "CHANNEL_CREATE"));
    assert_eq!((event.channel, &event.topics), (Some(id.parse().unwrap()), &vec![Topic::Guild(guild)]));
    assert_eq!(frame(event)["d"]["channelId"], json!(id));
    assert_eq!(site.log().await.last(), Some(event));

    let last = say(&site, &ada, general, "hi").await.message_id;
    let rows = site.data(&format!("GET {path}")).by(&ada).send().await.ok(200);
    let rows: Vec<ChannelRow> = serde_json::from_value(rows).unwrap();
    let seen: Vec<_> = rows.iter().map(|row| (row.name.as_str(), row.last_message_id)).collect();
    assert_eq!(seen, [("general", Some(last)), ("random", None)]);

    for (body, status, code) in
        [(json!({}), 400, "malformed"), (json!({ "name": "x" }), 422, "invalid"), (json!({ "name": null }), 400, "malformed")]
    {
        site.data(&format!("POST {path}")).by(&ada).json(body).send().await.fails(status, code);
    }
    for method in ["GET", "POST"] {
        let call = site.data(&format!("{method} /guilds/{NOBODY}/channels")).json(json!({ "name": "random" }));
        call.by(&ada).send().await.fails(404, "not_found");
        let call = site.data(&format!("{method} /guilds/{NOBODY}/channels")).json(json!({ "name": "random" }));
        call.service().send().await.fails(404, "not_found");
    }
}

#[tokio::test]
async fn members_come_and_go() {
    let site = Site::new();
    let (ada, bea, cyd) = (site.user("Ada").await, site.user("Bea").await, site.user("Cyd").await);
    let (guild, channel) = site.guild(&ada, Visibility::Public).await;
    let members = format!("/guilds/{guild}/members");
    let messages = format!("GET /channels/{channel}/messages");
    site.data(&messages).by(&bea).send().await.fails(404, "not_found");

    let joined = site.data(&format!("POST {members}")).by(&bea).send().await.ok(201);
    assert_time(&joined["joined_at"]);
    let want = json!({
        "guild_id": guild, "user_id": bea.id, "username": "Bea", "joined_at": joined["joined_at"], "rev": joined["rev"],
    });
    assert_eq!(joined, want);
    let events = site.heard.take();
    let [event] = &*events else { panic!("{events:?}") };
    assert_eq!((&*event.op, event.channel), ("MEMBER_ADD", None));
    assert_eq!(event.topics, [Topic::Guild(guild), Topic::User(bea.id)]);
    let told = json!({
        "guildId": guild, "userId": bea.id, "username": "Bea", "joinedAt": joined["joined_at"], "rev": joined["rev"],
    });
    assert_eq!(frame(event), json!({ "op": "MEMBER_ADD", "d": told }));
    assert!(event.id.snowflake().is_some(), "an event that creates no row has a minted id");

    // Once more, with the id of the one who joins: the same answer, and nobody is told.
    let again = site.data(&format!("POST {members}")).by(&bea).json(json!({ "user_id": bea.id })).send().await.ok(201);
    assert_eq!((again, site.heard.take()), (joined.clone(), vec![]));
    assert_eq!(site.data("GET /guilds/me").by(&bea).send().await.ok(200)[0]["guild_id"], json!(guild));
    site.data(&messages).by(&bea).send().await.ok(200);

    // Nobody adds somebody else, and only the owner removes.
    site.data(&format!("POST {members}")).by(&ada).json(json!({ "user_id": cyd.id })).send().await.fails(403, "forbidden");
    site.data(&format!("POST {members}")).by(&cyd).send().await.ok(201);
    site.data(&format!("DELETE {members}/{}", cyd.id)).by(&bea).send().await.fails(403, "forbidden");
    site.data(&format!("DELETE {members}/{}", ada.id)).by(&bea).send().await.fails(403, "forbidden");
    site.data(&format!("DELETE {members}/{NOBODY}")).by(&ada).send().await.fails(404, "not_found");
    site.heard.take();

    for (who, gone) in [(&bea, &bea), (&ada, &cyd)] {
        let call = || site.data(&format!("DELETE {members}/{}", gone.id)).by(who).send();
        assert_eq!(call().await.ok(204), Value::Null);
        let events = site.heard.take();
        let [event] = &*events else { panic!("{events:?}") };
        assert_eq!(&*event.op, "MEMBER_REMOVE");
        assert_eq!(event.topics, [Topic::Guild(guild), Topic::User(gone.id)]);
        let d = &frame(event)["d"];
        assert_eq!((&d["guildId"], &d["userId"]), (&json!(guild), &json!(gone.id)));
        assert!(d["rev"].as_u64() > joined["rev"].as_u64());
        call().await.fails(404, "not_found");
        site.data(&messages).by(gone).send().await.fails(404, "not_found");
        assert_eq!(site.data("GET /guilds/me").by(gone).send().await.ok(200), json!([]));
    }
    for call in [
        site.data(&format!("DELETE {members}/{}", ada.id)).by(&ada),
        site.data(&format!("DELETE {members}/{}", ada.id)).service(),
    ] {
        call.send().await.fails(409, "conflict");
    }
    assert_eq!(site.heard.take(), vec![]);
    site.data(&format!("POST {members}")).by(&bea).send().await.ok(201);
}

#[tokio::test]
async fn guilds_and_channels_are_counted() {
    let mut settings = settings();
    (settings.limits.guilds_of_user, settings.limits.channels_of_guild) = (2, 2);
    let site = Site::with(settings);
    let (ada, bea) = (site.user("Ada").await, site.user("Bea").await);
    let (one, _) = site.guild(&ada, Visibility::Public).await;
    let (two, _) = site.guild(&ada, Visibility::Public).await;
    let third = site.data("POST /guilds").by(&ada).json(json!({ "name": "third" })).send().await;
    assert_eq!(third.fails(409, "conflict").json["error"], "a user is in at most 2 guilds");
    let (three, _) = site.guild(&bea, Visibility::Public).await;
    site.data(&format!("POST /guilds/{three}/members")).by(&ada).send().await.fails(409, "conflict");
    site.data(&format!("POST /guilds/{two}/members")).by(&ada).send().await.ok(201);

    let create = || site.data(&format!("POST /guilds/{one}/channels")).by(&ada).json(json!({ "name": "more" })).send();
    create().await.ok(201);
    assert_eq!(create().await.fails(409, "conflict").json["error"], "a guild has at most 2 channels");
}

#[tokio::test]
async fn a_gateway_asks_without_http() {
    let site = Site::new();
    let (ada, bea) = (site.user("Ada").await, site.user("Bea").await);
    let (guild, channel) = site.guild(&ada, Visibility::Private).await;
    let backend: &dyn Backend = &site.chat;
    assert_eq!(backend.verify_token(&ada.token).await.unwrap().user_id, ada.id);
    let send = |actor| {
        let nonce = Some("n".to_owned());
        backend.send_message(actor, SendMessage { channel_id: channel, content: "hi".into(), nonce, reply_to: None })
    };
    let sent = send(ada.actor()).await.unwrap();
    assert_eq!(site.heard.take(), vec![], "publishing is the caller's part");
    assert_eq!(site.log().await.last(), sent.events.last());
    let again = send(ada.actor()).await.unwrap();
    assert!(!sent.repeated && again.repeated);
    assert_eq!((again.message, again.events), (sent.message, sent.events));
    assert_eq!(send(bea.actor()).await.unwrap_err().code.status(), 404);
    assert_eq!(send(Actor::System).await.unwrap_err().code.status(), 400);

    assert_eq!(backend.user(ada.actor(), ada.id).await.unwrap().email.as_deref(), Some("ada@example.com"));
    assert_eq!(backend.user(bea.actor(), ada.id).await.unwrap().email, None);
    for (actor, hash) in [(ada.actor(), None), (bea.actor(), None), (Actor::System, Some("hash of Ada"))] {
        assert_eq!(site.chat.account(actor, ada.id).await.unwrap().password_hash.as_deref(), hash);
    }
    let memberships = backend.memberships(ada.actor(), ada.id).await.unwrap();
    assert_eq!(memberships.iter().map(|membership| membership.guild.guild_id).collect::<Vec<_>>(), [guild]);
    assert_eq!(backend.memberships(Actor::System, ada.id).await.unwrap(), memberships);
    assert_eq!(backend.memberships(bea.actor(), ada.id).await.unwrap_err().code.status(), 403);

    let state = backend.load_guild(Actor::System, guild).await.unwrap().unwrap();
    assert_eq!((state.guild.guild_id, state.channels[0].channel_id), (guild, channel));
    assert_eq!(backend.load_guild(Actor::System, NOBODY.parse().unwrap()).await.unwrap(), None);
    assert_eq!(backend.load_guild(ada.actor(), guild).await.unwrap_err().code.status(), 403);
    let head = site.store.head().await.unwrap();
    assert_eq!(site.store.read_after(head, 1).await.unwrap(), []);
}

#[tokio::test]
async fn a_gateway_loads_what_it_needs() {
    let site = Site::new();
    let ada = site.user("Ada").await;
    let (guild, channel) = site.guild(&ada, Visibility::Private).await;
    let state = site.data(&format!("GET /internal/guilds/{guild}")).service().send().await.ok(200);
    assert_eq!((&state["guild"]["guild_id"], &state["guild"]["owner_id"]), (&json!(guild), &json!(ada.id)));
    assert_eq!((state["channels"].as_array().unwrap().len(), &state["channels"][0]["channel_id"]), (1, &json!(channel)));

    let memberships = format!("GET /internal/users/{}/memberships", ada.id);
    let rows = site.data(&memberships).service().acting_for(ada.id).send().await.ok(200);
    assert_eq!((rows.as_array().unwrap().len(), &rows[0]["guild"]), (1, &state["guild"]));
    assert_eq!(rows[0]["rev"], state["guild"]["rev"], "the owner is in it since it is there");
    site.data(&memberships).service().acting_for(NOBODY.parse().unwrap()).send().await.fails(403, "forbidden");

    let user = format!("GET /internal/users/{}", ada.id);
    let itself = site.data(&user).service().acting_for(ada.id).send().await.ok(200);
    assert_eq!((&itself["username"], &itself["email"]), (&json!("Ada"), &json!("ada@example.com")));
    let by_another = site.data(&user).service().acting_for(NOBODY.parse().unwrap()).send().await.ok(200);
    assert_eq!((&by_another["username"], by_another.get("email")), (&json!("Ada"), None));
    for seen in [itself, by_another, site.data(&user).service().send().await.ok(200)] {
        assert_eq!(seen.get("password_hash"), None, "a gateway has no use for it");
    }

    for path in ["GET /internal/guilds/", "GET /internal/users/"] {
        site.data(&format!("{path}{NOBODY}")).service().send().await.fails(404, "not_found");
    }
}

#[tokio::test]
async fn a_service_that_publishes_by_itself_gets_the_events_and_nobody_else_does() {
    let site = Site::new();
    let ada = site.user("Ada").await;
    let (guild, channel) = site.guild(&ada, Visibility::Private).await;
    let line = format!("POST /channels/{channel}/messages");
    let say = |nonce: &str| site.data(&line).json(json!({ "content": "hi", "nonce": nonce }));
    let for_ada = |nonce: &str| say(nonce).service().acting_for(ada.id).header("x-jiscord-publish", "caller");

    let sent = for_ada("n").send().await.ok(201);
    assert_eq!((sent["content"].as_str(), sent["repeated"].as_bool()), (Some("hi"), Some(false)));
    let event = site.log().await.pop().unwrap();
    let row = json!({
        "event_id": sent["message_id"], "topics": [format!("guild:{guild}")], "op": "MESSAGE_CREATE", "channel_id": channel,
        "frame": &*event.frame,
    });
    assert_eq!((&sent["events"], event.id.to_string()), (&json!([row]), sent["message_id"].as_str().unwrap().into()));
    let again = for_ada("n").send().await.ok(201);
    assert_eq!((&again["events"], &again["repeated"]), (&sent["events"], &json!(true)));
    assert_eq!(site.heard.take(), vec![], "publishing is the caller's part");

    // Whoever else says so, or says something else, is published for.
    let others = [
        say("a").by(&ada).header("x-jiscord-publish", "caller"),
        say("b").service().acting_for(ada.id),
        say("c").service().acting_for(ada.id).header("x-jiscord-publish", "nobody"),
    ];
    for (n, call) in others.into_iter().enumerate() {
        let row = call.send().await.ok(201);
        assert_eq!((row.get("events"), row.get("repeated")), (None, None), "{n}");
        assert_eq!(site.heard.take().len(), 1, "{n}");
    }
    let site = Site::trusting();
    let ada = site.user("Ada").await;
    let (_, channel) = site.guild(&ada, Visibility::Private).await;
    let call = site.data(&format!("POST /channels/{channel}/messages")).json(json!({ "content": "hi", "author_id": ada.id }));
    let row = call.header("x-jiscord-publish", "caller").send().await.ok(201);
    assert_eq!((row.get("events"), site.heard.take().len()), (None, 1));
}

#[tokio::test]
async fn a_key_makes_a_send_safe_to_repeat_and_is_told_to_nobody() {
    let site = Site::new();
    let ada = site.user("Ada").await;
    let (_, channel) = site.guild(&ada, Visibility::Private).await;
    let send = |body: serde_json::Value, key: &str| {
        let call = site.data(&format!("POST /channels/{channel}/messages")).json(body).service().acting_for(ada.id);
        call.header("x-jiscord-publish", "caller").header("idempotency-key", key).send()
    };
    let first = send(json!({ "content": "hi" }), "a key").await.ok(201);
    let again = send(json!({ "content": "hi" }), "a key").await;
    assert!(!String::from_utf8_lossy(&again.bytes).contains("a key"));
    let again = again.ok(201);
    assert_eq!((&again["message_id"], &again["events"]), (&first["message_id"], &first["events"]));
    assert_ne!(send(json!({ "content": "hi" }), "another").await.ok(201)["message_id"], first["message_id"]);
    // A nonce of the sender's own comes first, and is told as ever.
    let named = send(json!({ "content": "hi", "nonce": "n" }), "a key").await.ok(201);
    assert_ne!(named["message_id"], first["message_id"]);
    assert!(named["events"][0]["frame"].as_str().unwrap().contains(r#""nonce":"n""#));
    for bad in ["", &"k".repeat(65)] {
        send(json!({ "content": "hi" }), bad).await.fails(422, "invalid");
    }
}
