//! Who may do what, for every route and every kind of caller; and what credentials are.

use std::collections::BTreeSet;

use axum::http::StatusCode;
use jiscord_api::http::{
    Access, Route, auth,
    data::{self, internal},
};
use jiscord_core::{ChannelId, GuildId, UserId, model::Visibility};
use serde_json::{Value, json};

use crate::site::{Call, NOBODY, ORIGIN, Reply, SERVICE, Site, User};

/// A private guild of the owner's with one member, and somebody outside.
struct Scene {
    site: Site,
    owner: User,
    member: User,
    stranger: User,
    guild: GuildId,
    channel: ChannelId,
}

impl Scene {
    async fn new(visibility: Visibility) -> Self {
        let site = Site::trusting();
        let (owner, member, stranger) = (site.user("Owner").await, site.user("Member").await, site.user("Stranger").await);
        // Joining a private guild takes an invite; until there are any, the member comes by the back door.
        let (guild, channel) = site.guild(&owner, visibility).await;
        let nothing: jiscord_store::Tell<_> = std::sync::Arc::new(|_| vec![]);
        jiscord_store::Members::add(&*site.store, guild, member.id, nothing).await.unwrap();
        Self { site, owner, member, stranger, guild, channel }
    }

    /// A good call of this route, but for who calls.
    fn call(&self, route: &Route) -> Call {
        let path = route.path.replace("{guild_id}", &self.guild.to_string());
        let path = path.replace("{channel_id}", &self.channel.to_string());
        let path = path.replace("{user_id}", &self.member.id.to_string()).replace("{email}", "member@example.com");
        let login = self.channel.to_string();
        let path = path.replace("{login_id}", &login);
        let query = if route.path.ends_with("/revocations") { format!("?id={login}&issued_at=1") } else { String::new() };
        let call = self.site.data(&format!("{} {path}{query}", route.method));
        match (route.method, route.path) {
            ("POST", "/users") => call.json(json!({ "username": "New", "email": "new@example.com", "password_hash": "x" })),
            ("POST", "/internal/users/{user_id}/revocations") => call.json(json!({ "login": login })),
            ("POST", "/internal/logins") => call.json(json!({ "login_id": login, "user_id": self.member.id, "begun": 1 })),
            ("POST", "/internal/logins/{login_id}/refresh") => call.json(json!({ "generation": 0 })),
            ("POST", "/channels/{channel_id}/messages") => call.json(json!({ "content": "hi" })),
            ("POST", "/guilds" | "/guilds/{guild_id}/channels") => call.json(json!({ "name": "a name" })),
            _ => call,
        }
    }

    async fn as_each(&self, route: &Route) -> [(&'static str, Call); 8] {
        let call = || self.call(route);
        [
            ("nobody", call().bearer("forged")),
            ("stranger", call().by(&self.stranger)),
            ("member", call().by(&self.member)),
            ("owner", call().by(&self.owner)),
            ("service", call().service()),
            ("service for member", call().service().acting_for(self.member.id)),
            ("trusted", call()),
            ("trusted for member", call().acting_for(self.member.id)),
        ]
    }
}

/// Each route, and the status for nobody, a stranger, a member, the owner, a service, a service for the member, a trusted
/// caller, and a trusted caller for the member.
const MATRIX: [(&str, &str, [u16; 8]); 20] = [
    ("POST", "/users", [401, 403, 403, 403, 201, 201, 201, 201]),
    ("GET", "/users/{user_id}", [401, 200, 200, 200, 200, 200, 200, 200]),
    ("GET", "/users/email/{email}", [401, 403, 403, 403, 200, 200, 200, 200]),
    ("GET", "/channels/{channel_id}/messages", [401, 404, 200, 200, 200, 200, 200, 200]),
    ("POST", "/channels/{channel_id}/messages", [401, 404, 201, 201, 400, 201, 400, 201]),
    ("GET", "/guilds", [401, 200, 200, 200, 200, 200, 200, 200]),
    ("POST", "/guilds", [401, 201, 201, 201, 400, 201, 400, 201]),
    ("GET", "/guilds/me", [401, 200, 200, 200, 400, 200, 400, 200]),
    ("GET", "/guilds/{guild_id}/channels", [401, 404, 200, 200, 200, 200, 200, 200]),
    ("POST", "/guilds/{guild_id}/channels", [401, 404, 403, 201, 201, 403, 201, 403]),
    ("POST", "/guilds/{guild_id}/members", [401, 404, 201, 201, 400, 201, 400, 201]),
    ("DELETE", "/guilds/{guild_id}/members/{user_id}", [401, 404, 204, 204, 204, 204, 204, 204]),
    ("GET", "/internal/health", [401, 403, 403, 403, 200, 200, 401, 401]),
    ("GET", "/internal/users/{user_id}", [401, 403, 403, 403, 200, 200, 401, 401]),
    ("GET", "/internal/users/{user_id}/memberships", [401, 403, 403, 403, 200, 200, 401, 401]),
    ("GET", "/internal/users/{user_id}/revocations", [401, 403, 403, 403, 200, 403, 401, 401]),
    ("POST", "/internal/users/{user_id}/revocations", [401, 403, 403, 403, 200, 403, 401, 401]),
    ("POST", "/internal/logins", [401, 403, 403, 403, 200, 403, 401, 401]),
    ("POST", "/internal/logins/{login_id}/refresh", [401, 403, 403, 403, 200, 403, 401, 401]),
    ("GET", "/internal/guilds/{guild_id}", [401, 403, 403, 403, 200, 403, 401, 401]),
];

#[tokio::test]
async fn every_route_answers_every_caller_by_its_rights() {
    assert!(internal::ROUTES.iter().all(|route| route.access == Access::Service && route.path.starts_with("/internal/")));
    let guarded = data::ROUTES.iter().chain(internal::ROUTES).filter(|route| route.access != Access::Open);
    let table: BTreeSet<_> = guarded.clone().map(|route| (route.method, route.path)).collect();
    assert_eq!(table, MATRIX.iter().map(|(method, path, _)| (*method, *path)).collect(), "the matrix has every route");

    for route in guarded {
        let (.., want) = MATRIX.iter().find(|(method, path, _)| (*method, *path) == (route.method, route.path)).unwrap();
        for (column, want) in want.iter().enumerate() {
            // A scene of its own for each, so that no call stands in the light of another.
            let scene = Scene::new(Visibility::Private).await;
            let before = scene.site.log().await;
            let (who, call) = scene.as_each(route).await.into_iter().nth(column).unwrap();
            let reply = call.send().await;
            let what = format!("{} {} by {who}: {}", route.method, route.path, reply.json);
            assert_eq!(reply.status, *want, "{what}");

            let text = String::from_utf8(reply.bytes).unwrap();
            let (service, trusted) = (who.starts_with("service"), who.starts_with("trusted"));
            assert!(service || !text.contains("hash of"), "{what}");
            assert!(service || trusted || who == "member" || !text.contains("member@"), "{what}");
            if !reply.status.is_success() {
                assert_eq!((scene.site.heard.take(), scene.site.log().await), (vec![], before), "{what}");
            }
        }
    }
}

#[tokio::test]
async fn anybody_may_join_what_is_public_but_not_look_in_before() {
    let scene = Scene::new(Visibility::Public).await;
    let site = &scene.site;
    site.data(&format!("GET /guilds/{}/channels", scene.guild)).by(&scene.stranger).send().await.fails(404, "not_found");
    site.data(&format!("POST /guilds/{}/members", scene.guild)).by(&scene.stranger).send().await.ok(201);
    site.data(&format!("GET /guilds/{}/channels", scene.guild)).by(&scene.stranger).send().await.ok(200);
}

#[tokio::test]
async fn without_credentials_there_is_nothing_but_health() {
    let site = Site::new();
    for (router, routes) in [(&site.data, data::ROUTES), (&site.data, internal::ROUTES), (&site.auth, auth::ROUTES)] {
        assert!(routes.iter().any(|route| route.access != Access::Open));
        for route in routes {
            let path = route.path.replace(['{', '}'], "");
            let line = format!("{} {path}", route.method);
            let calls = [
                Call::new(router, &line),
                Call::new(router, &line).json(json!({})),
                Call::new(router, &line).header("x-user-id", NOBODY),
                Call::new(router, &line).bearer("x"),
                Call::new(router, &line).header("authorization", "Service x"),
                Call::new(router, &line).header("authorization", "Bot x"),
                Call::new(router, &line).header("authorization", SERVICE),
            ];
            for call in calls {
                let status = call.send().await.status;
                match route.access {
                    Access::Credentials | Access::Service => assert_eq!(status, 401, "{line}"),
                    Access::Open => assert_ne!(status, StatusCode::NOT_FOUND, "{line}"),
                }
            }
        }
    }
    for (router, routes) in [(&site.data, data::ROUTES), (&site.auth, auth::ROUTES)] {
        let open: Vec<_> = routes.iter().filter(|route| route.access == Access::Open).map(|route| route.path).collect();
        for health in ["/health", "/health/live", "/health/ready"] {
            assert!(open.contains(&health));
            let reply = Call::new(router, &format!("GET {health}")).send().await;
            assert_eq!(reply.ok(200), json!({ "status": "ok" }));
        }
        assert!(
            open.iter().all(|path| path.starts_with("/health") || ["/register", "/login", "/refresh", "/logout"].contains(path)),
            "{open:?}"
        );
    }
}

#[tokio::test]
async fn no_id_of_another_kind_or_place_opens_anything() {
    let scene = Scene::new(Visibility::Private).await;
    let (site, member) = (&scene.site, &scene.member);
    let (other_guild, other_channel) = site.guild(&scene.owner, Visibility::Private).await;
    let message = json!({ "content": "here" });
    let post = site.data(&format!("POST /channels/{}/messages", scene.channel)).by(member).json(&message);
    let message = post.send().await.ok(201)["message_id"].as_str().unwrap().to_owned();
    site.heard.take();
    let log = site.log().await;
    let ids = [
        other_guild.to_string(),
        other_channel.to_string(),
        scene.stranger.id.to_string(),
        member.id.to_string(),
        message,
        NOBODY.to_owned(),
        "00000000-0000-0000-0000-000000000000".to_owned(),
    ];
    let of_guild = [scene.channel.to_string()];
    let of_channel = [scene.guild.to_string()];
    for route in data::ROUTES {
        let others = match route.path {
            path if path.contains("{guild_id}") => ids.iter().chain(&of_guild).collect::<Vec<_>>(),
            path if path.contains("{channel_id}") => ids.iter().chain(&of_channel).collect(),
            _ => continue,
        };
        // What one may not see is answered to the byte like what is not there.
        let mut nothing = None;
        for id in others {
            let path =
                route.path.replace("{guild_id}", id).replace("{channel_id}", id).replace("{user_id}", &member.id.to_string());
            let call = site.data(&format!("{} {path}", route.method)).by(member);
            let reply = call.json(json!({ "content": "there", "name": "there" })).send().await.fails(404, "not_found");
            assert_eq!(nothing.get_or_insert_with(|| reply.bytes.clone()), &reply.bytes, "{path}");
        }
    }
    for body in [json!({ "content": "x", "author_id": scene.owner.id }), json!({ "content": "x", "author_id": NOBODY })] {
        let call = site.data(&format!("POST /channels/{}/messages", scene.channel)).by(member).json(body);
        call.send().await.fails(403, "forbidden");
    }
    assert_eq!((site.heard.take(), site.log().await), (vec![], log));
}

#[tokio::test]
async fn what_is_no_id_is_refused_before_anything_is_asked() {
    let scene = Scene::new(Visibility::Public).await;
    for route in data::ROUTES.iter().chain(internal::ROUTES).filter(|route| route.path.contains("_id}")) {
        for bad in
            ["1", "x", "%20", "null", "0f8fad5bd9cb469fa16570867728950e", "%7B0f8fad5b-d9cb-469f-a165-70867728950e%7D", "%FF"]
        {
            let path = route.path.replace("{guild_id}", bad).replace("{channel_id}", bad).replace("{user_id}", bad);
            let call = scene.site.data(&format!("{} {path}", route.method));
            let call = if route.access == Access::Service { call.service() } else { call.by(&scene.owner) };
            call.json(json!({ "content": "x", "name": "xx" })).send().await.fails(400, "malformed");
        }
    }
}

#[tokio::test]
async fn a_user_id_in_a_header_counts_only_beside_the_service_token() {
    let site = Site::new();
    let (ada, bea) = (site.user("Ada").await, site.user("Bea").await);
    let me = || site.data("GET /guilds/me");
    me().by(&ada).acting_for(ada.id).send().await.ok(200);
    me().by(&ada).acting_for(bea.id).send().await.fails(403, "forbidden");
    me().acting_for(ada.id).send().await.fails(401, "unauthorized");
    me().bearer("forged").acting_for(ada.id).send().await.fails(401, "unauthorized");
    me().header("authorization", "Service forged").acting_for(ada.id).send().await.fails(401, "unauthorized");
    me().service().acting_for(ada.id).send().await.ok(200);
    for call in [me().by(&ada), me().service()] {
        call.acting_for(ada.id).acting_for(ada.id).send().await.fails(400, "malformed");
    }
    for bad in ["", "ada", &format!("{0},{0}", ada.id), &format!("{0}, {0}", ada.id)] {
        me().by(&ada).header("x-user-id", bad).send().await.fails(400, "malformed");
        me().service().header("x-user-id", bad).send().await.fails(400, "malformed");
    }
    me().by(&ada).service().send().await.fails(400, "malformed");
    me().service().send().await.fails(400, "malformed");
}

#[tokio::test]
async fn a_service_speaks_for_one_user_at_a_time() {
    for (site, trusted) in [(Site::new(), false), (Site::trusting(), true)] {
        let (ada, bea) = (site.user("Ada").await, site.user("Bea").await);
        let (guild, channel) = site.guild(&ada, Visibility::Public).await;
        let call = |line: &str| if trusted { site.data(line) } else { site.data(line).service() };
        let paths = [
            (format!("POST /guilds/{guild}/members"), "user_id", json!({})),
            ("POST /guilds".to_owned(), "creator_user_id", json!({ "name": "theirs" })),
            (format!("POST /channels/{channel}/messages"), "author_id", json!({ "content": "hi" })),
        ];
        for (line, field, body) in paths {
            call(&line).json(&body).send().await.fails(400, "malformed");
            let mut named = body.clone();
            named[field] = json!(bea.id);
            call(&line).acting_for(ada.id).json(&named).send().await.fails(403, "forbidden");
            let by_body = call(&line).json(&named).send().await.ok(201);
            let by_both = call(&line).acting_for(bea.id).json(&named).send().await.ok(201);
            let by_header = call(&line).acting_for(bea.id).json(&body).send().await.ok(201);
            for row in [by_body, by_both, by_header] {
                let of = [&row["user_id"], &row["owner_id"], &row["author_id"]];
                assert!(of.contains(&&json!(bea.id)), "{row}");
            }
            // Somebody who is not there can neither join nor found anything.
            named[field] = json!(NOBODY);
            call(&line).json(&named).send().await.fails(404, "not_found");
        }
    }
}

#[tokio::test]
async fn a_client_of_the_seed_works_where_it_is_trusted() {
    let site = Site::trusting();
    assert_eq!(site.data("GET /health").send().await.ok(200)["status"], "ok");
    let new = json!({ "username": "Ada", "email": "ada@example.com", "password_hash": "$2b$10$abc" });
    let user = site.data("POST /users").json(&new).send().await.ok(201);
    site.data("POST /users").json(&new).send().await.fails(409, "email_in_use");
    let id: UserId = user["user_id"].as_str().unwrap().parse().unwrap();
    for path in [format!("GET /users/{id}"), "GET /users/email/ada@example.com".into()] {
        let seen = site.data(&path).send().await.ok(200);
        assert_eq!(seen, user, "never the hash");
    }
    // The seed has no way to make guilds and channels; this is ours.
    let guild = site.data("POST /guilds").json(json!({ "name": "Chess", "creator_user_id": id })).send().await.ok(201);
    let guild = guild["guild_id"].as_str().unwrap();
    let channels = format!("/guilds/{guild}/channels");
    site.data(&format!("POST {channels}")).acting_for(id).json(json!({ "name": "general" })).send().await.ok(201);

    let mine = site.data("GET /guilds/me").acting_for(id).send().await.ok(200);
    assert_eq!(mine[0]["guild_id"], guild);
    let channel = site.data(&format!("GET {channels}")).send().await.ok(200)[0]["channel_id"].as_str().unwrap().to_owned();
    let messages = format!("/channels/{channel}/messages");
    for n in 0..3 {
        let body = json!({ "content": n.to_string(), "author_id": id });
        let row = site.data(&format!("POST {messages}")).json(body).send().await.ok(201);
        assert_eq!(row["author_id"], json!(id));
    }
    let page = site.data(&format!("GET {messages}?limit=2")).send().await.ok(200);
    let state = page["nextPageState"].as_str().unwrap();
    let last = site.data(&format!("GET {messages}?limit=2&pageState={state}")).send().await.ok(200);
    assert_eq!((&last["messages"][0]["content"], &last["nextPageState"]), (&json!("0"), &Value::Null));
}

#[tokio::test]
async fn nobody_is_trusted_from_elsewhere() {
    let site = Site::trusting();
    let (ada, path) = (site.user("Ada").await, "GET /guilds/me");
    let reply = |host: Option<&str>, origin: Option<&str>| {
        let mut call = site.data(path).without("host").acting_for(ada.id);
        if let Some(host) = host {
            call = call.header("host", host);
        }
        if let Some(origin) = origin {
            call = call.header("origin", origin);
        }
        call.send()
    };
    for host in
        ["localhost", "localhost:3001", "LOCALHOST", "127.0.0.1", "127.0.0.1:3001", "192.168.1.7:3001", "[::1]:3001", "[::1]"]
    {
        reply(Some(host), None).await.ok(200);
        reply(Some(host), Some(ORIGIN)).await.ok(200);
        for origin in ["http://evil.example", "null", "", "http://localhost:3001"] {
            reply(Some(host), Some(origin)).await.fails(403, "forbidden");
        }
    }
    for host in
        ["evil.example", "evil.example:3001", "localhost.evil.example", "127.0.0.1.evil.example", "data-service:3001", "", "a b"]
    {
        reply(Some(host), None).await.fails(403, "forbidden");
        reply(Some(host), Some(ORIGIN)).await.fails(403, "forbidden");
    }
    reply(None, None).await.fails(403, "forbidden");
    let twice: Reply = site.data(path).header("host", "evil.example").acting_for(ada.id).send().await;
    twice.fails(400, "malformed");
    let two_origins = site.data(path).header("origin", ORIGIN).header("origin", "http://evil.example").acting_for(ada.id);
    two_origins.send().await.fails(403, "forbidden");
    // Whoever brings credentials is judged by them, wherever it comes from.
    site.data(path).without("host").header("host", "chat.example").by(&ada).send().await.ok(200);
    site.data(path).bearer("forged").acting_for(ada.id).send().await.fails(401, "unauthorized");
    site.data(path).header("authorization", "").acting_for(ada.id).send().await.fails(401, "unauthorized");
}
