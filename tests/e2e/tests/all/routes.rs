//! Who may call what.

use jiscord_api::http::{Access, Route, auth, data};
use jiscord_e2e::{Caller, Deployment, nobodys_id};
use serde_json::json;

/// A path that the route's pattern takes.
fn path(route: &Route) -> String {
    let part = |part: &str| match part {
        "{email}" => "ada@example.com".to_owned(),
        part if part.starts_with('{') => nobodys_id(),
        part => part.to_owned(),
    };
    route.path.split('/').map(part).collect::<Vec<_>>().join("/")
}

#[tokio::test]
async fn without_credentials_every_route_of_data_is_401() {
    let server = Deployment::start().await;
    let anybody = Caller::new(server.data());
    let open: Vec<_> = data::ROUTES.iter().filter(|route| route.access == Access::Open).map(|route| route.path).collect();
    assert_eq!(open, ["/health", "/health/live", "/health/ready"]);
    let mut walked = 0;
    for route in data::ROUTES.iter().filter(|route| route.access != Access::Open) {
        let case = format!("{} {}", route.method, route.path);
        for (name, value) in [
            ("x-nothing", "nothing"),
            ("x-user-id", &*nobodys_id()),
            ("authorization", "Bearer"),
            ("authorization", "Bearer abc"),
            ("authorization", "Service"),
            ("authorization", "Service 0123456789abcdef0123456789abcdef"),
            ("authorization", "Basic YTpi"),
        ] {
            let caller = anybody.clone().with(name, value);
            let answer = caller.call(route.method, &path(route), Some("application/json"), "{}").await;
            answer.is_error_of(&format!("{case} {name}: {value}"), 401, "unauthorized");
            assert_eq!(answer.headers.get("www-authenticate").unwrap(), "Bearer");
        }
        walked += 1;
    }
    assert!(walked >= 12, "the table has {walked} routes");
    for path in open {
        assert_eq!(anybody.get(path).await.is(200)["status"], "ok");
    }
}

#[tokio::test]
async fn without_credentials_auth_knows_nobody() {
    let server = Deployment::start().await;
    let anybody = Caller::new(server.auth());
    let guarded: Vec<_> = auth::ROUTES.iter().filter(|route| route.access != Access::Open).collect();
    assert_eq!(guarded.iter().map(|route| route.path).collect::<Vec<_>>(), ["/me", "/verify-token"]);
    for route in guarded {
        let answer = anybody.call(route.method, &path(route), None, "").await;
        answer.is_error_of(route.path, 401, "unauthorized");
    }
    assert_eq!(anybody.get("/health").await.is(200)["status"], "ok");
}

#[tokio::test]
async fn what_is_not_there_is_404_and_another_method_is_405() {
    let server = Deployment::start().await;
    let ada = server.register("ada").await;
    for caller in [&ada.auth, &ada.data, &Caller::new(server.auth()), &Caller::new(server.data())] {
        for path in ["/nope", "/guild", "/users/", "/health/nope", "//health", "/../nope", "/%2e%2e/nope", "/nope?limit=1"] {
            caller.get(path).await.is_error_of(path, 404, "not_found");
        }
        caller.call("PUT", "/health", None, "").await.is_error(405, "method_not_allowed");
        caller.delete("/health").await.is_error(405, "method_not_allowed");
    }
}

#[tokio::test]
async fn a_user_id_in_a_header_is_believed_only_from_a_service() {
    let server = Deployment::start().await;
    let (ada, bob) = (server.register("ada").await, server.register("bob").await);
    let guild = ada.create_guild("Computing").await;

    let service = Caller::new(server.data()).service(&server.service_token());
    let mine = service.clone().with("X-User-ID", &ada.id).get("/guilds/me").await.is(200);
    assert_eq!(mine[0]["guild_id"], guild);
    service.get("/guilds/me").await.is_error(400, "malformed");
    service.clone().with("X-User-ID", &ada.id).with("X-User-ID", &bob.id).get("/guilds/me").await.is_error(400, "malformed");
    service.clone().with("X-User-ID", "ada").get("/guilds/me").await.is_error(400, "malformed");

    // Beside a user's own token it may say the same, and nothing else.
    assert_eq!(bob.data.clone().with("X-User-ID", &bob.id).get("/guilds/me").await.is(200), json!([]));
    bob.data.clone().with("X-User-ID", &ada.id).get("/guilds/me").await.is_error(403, "forbidden");
    // A service's token is no user's, and a user's no service's.
    Caller::new(server.data()).bearer(&server.service_token()).get("/guilds/me").await.is_error(401, "unauthorized");
    Caller::new(server.data()).service(&bob.token).get("/guilds/me").await.is_error(401, "unauthorized");
}

#[tokio::test]
async fn addresses_are_their_owners_and_hashes_are_services() {
    let server = Deployment::start().await;
    let (ada, bob) = (server.register("ada").await, server.register("bob").await);
    let user = format!("/users/{}", ada.id);
    let service = Caller::new(server.data()).service(&server.service_token());

    let seen = service.get(&user).await.is(200);
    assert!(seen["password_hash"].as_str().unwrap().starts_with("$argon2id$") && seen["email"] == "ada@example.com", "{seen}");
    assert_eq!(service.get("/users/email/ada@example.com").await.is(200), seen);
    let seen = ada.data.get(&user).await.is(200);
    assert_eq!((&seen["email"], seen.get("password_hash")), (&json!("ada@example.com"), None));
    let seen = bob.data.get(&user).await.is(200);
    assert_eq!((&seen["username"], seen.get("email"), seen.get("password_hash")), (&json!("ada"), None, None));

    for email in ["ada@example.com", "bob@example.com", "eve@example.com"] {
        bob.data.get(&format!("/users/email/{email}")).await.is_error(403, "forbidden");
    }
    let new = json!({"username": "eve", "email": "eve@example.com", "password_hash": "x"});
    bob.data.post("/users", new.clone()).await.is_error(403, "forbidden");
    service.get("/users/email/eve@example.com").await.is_error(404, "not_found");
    service.post("/users", new).await.is(201);
}

#[tokio::test]
async fn a_service_acts_for_one_user_and_a_user_for_itself() {
    let server = Deployment::start().await;
    let (ada, bob) = (server.register("ada").await, server.register("bob").await);
    let guild = ada.create_guild("Computing").await;
    let channel = ada.create_channel(&guild, "engines").await;
    let (members, messages) = (format!("/guilds/{guild}/members"), format!("/channels/{channel}/messages"));

    // Nobody speaks, creates or joins in another's name, not even where that one could.
    bob.data.post(&members, json!({"user_id": ada.id})).await.is_error(403, "forbidden");
    ada.data.post(&members, json!({"user_id": bob.id})).await.is_error(403, "forbidden");
    ada.data.post(&messages, json!({"content": "I am bob", "author_id": bob.id})).await.is_error(403, "forbidden");
    ada.data.post("/guilds", json!({"name": "Bob's", "creator_user_id": bob.id})).await.is_error(403, "forbidden");

    let service = Caller::new(server.data()).service(&server.service_token());
    service.post(&members, json!({})).await.is_error(400, "malformed");
    assert_eq!(service.post(&members, json!({"user_id": bob.id})).await.is(201)["user_id"], bob.id);
    // Again is no mistake.
    assert_eq!(service.post(&members, json!({"user_id": bob.id})).await.is(201)["user_id"], bob.id);
    assert_eq!(service.post(&messages, json!({"content": "hi", "author_id": bob.id})).await.is(201)["author_id"], bob.id);
    let as_ada = service.clone().with("X-User-ID", &ada.id);
    as_ada.post(&messages, json!({"content": "hi", "author_id": bob.id})).await.is_error(403, "forbidden");

    // Only the owner manages, only members see.
    bob.data.post(&format!("/guilds/{guild}/channels"), json!({"name": "mine"})).await.is_error(403, "forbidden");
    bob.data.delete(&format!("{members}/{}", ada.id)).await.is_error(403, "forbidden");
    ada.data.delete(&format!("{members}/{}", ada.id)).await.is_error(409, "conflict");
    ada.data.delete(&format!("{members}/{}", bob.id)).await.is(204);
    ada.data.delete(&format!("{members}/{}", bob.id)).await.is_error(404, "not_found");
    bob.data.get(&messages).await.is_error(404, "not_found");
}

#[tokio::test]
async fn who_calls_too_fast_is_told_when_to_come_back() {
    let server = Deployment::with(&[("JISCORD_LIMIT_HTTP_PER_SECOND", "1"), ("JISCORD_LIMIT_HTTP_BURST", "5")]).await;
    let (ada, bob) = (server.register("ada").await, server.register("bob").await);
    let mut refused = 0;
    for _ in 0..30 {
        let answer = ada.data.get("/guilds/me").await;
        if answer.status != 200 {
            answer.is_error(429, "rate_limited");
            assert!(answer.headers["retry-after"].to_str().unwrap().parse::<u64>().unwrap() >= 1);
            refused += 1;
        }
    }
    assert!(refused > 0);
    // One's haste is not another's.
    bob.data.get("/guilds/me").await.is(200);
}
