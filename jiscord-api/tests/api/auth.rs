//! auth-service over HTTP.

use std::time::Duration;

use crate::site::{Call, ORIGIN, Reply, Site, passwords, settings};
use argon2::{Argon2, PasswordHasher};
use jiscord_api::{
    Limits,
    limits::Rate,
    passwords::{Cost, Passwords},
};
use jiscord_core::{
    Code,
    backend::Identity,
    text::{Email, Password, Username},
};
use jiscord_store::{NewUser, Users};
use serde_json::{Value, json};
use tokio::time::Instant;

fn ada() -> Value {
    json!({ "username": "Ada", "email": "ada@example.com", "password": "correct horse" })
}

#[tokio::test(start_paused = true)]
async fn who_registers_can_log_in_and_be_known() {
    let site = Site::new();
    let made = site.auth("POST /register").json(ada()).send().await.ok(201);
    let id = made["user_id"].as_str().unwrap();
    assert_eq!(made, json!({ "user_id": id, "username": "Ada" }));

    let login = site.auth("POST /login").json(json!({ "email": " ADA@example.com", "password": "correct horse" }));
    let login = login.send().await.ok(200);
    let user = json!({ "user_id": id, "username": "Ada", "email": "ada@example.com" });
    assert_eq!(login, json!({ "token": login["token"], "user": user }));

    let token = login["token"].as_str().unwrap();
    assert_eq!(site.auth("GET /me").bearer(token).send().await.ok(200), user);
    let verified = site.auth("POST /verify-token").bearer(token).send().await.ok(200);
    assert_eq!(verified, json!({ "sub": id, "username": "Ada", "login": verified["login"] }));
}

#[tokio::test]
async fn verify_token_does_not_care_for_a_body() {
    let site = Site::new();
    let ada = site.user("Ada").await;
    let call = || site.auth("POST /verify-token").by(&ada);
    for call in [
        call(),
        call().json(json!({})),
        call().raw("text/plain", "{"),
        call().body("not typed"),
        call().header("content-type", "application/json"),
        call().raw("application/json", vec![b' '; 1 << 20]),
    ] {
        let verified = call.send().await.ok(200);
        assert_eq!((&verified["sub"], &verified["username"]), (&json!(ada.id), &json!("Ada")));
    }
    site.auth("POST /verify-token").json(json!({ "token": ada.token })).send().await.fails(401, "unauthorized");
}

#[tokio::test]
async fn a_token_is_taken_from_one_bearer_header_only() {
    let site = Site::new();
    let ada = site.user("Ada").await;
    for path in ["GET /me", "POST /verify-token"] {
        for authorization in [
            String::new(),
            "Bearer".into(),
            "Bearer ".into(),
            ada.token.clone(),
            format!("Basic {}", ada.token),
            format!("Bearer {}x", ada.token),
            format!("Bearer {} x", ada.token),
            format!("Service {}", crate::site::SERVICE),
        ] {
            let reply = site.auth(path).header("authorization", &authorization).send().await.fails(401, "unauthorized");
            assert_eq!(reply.header("www-authenticate"), Some("Bearer"));
        }
        site.auth(path).send().await.fails(401, "unauthorized");
        site.auth(&format!("{path}?token={0}&access_token={0}", ada.token)).send().await.fails(401, "unauthorized");
        site.auth(path).header("cookie", &format!("token={}", ada.token)).send().await.fails(401, "unauthorized");
        site.auth(path).by(&ada).by(&ada).send().await.fails(400, "malformed");
        site.auth(path).header("authorization", &format!("bEARER  {}", ada.token)).send().await.ok(200);
    }
}

#[tokio::test]
async fn the_token_of_an_account_that_is_gone_is_refused() {
    let site = Site::new();
    let token = site.jwt.sign(&Identity::new(crate::site::NOBODY.parse().unwrap(), "Nobody")).unwrap();
    site.auth("GET /me").bearer(&token).send().await.fails(401, "unauthorized");
}

#[tokio::test(start_paused = true)]
async fn registering_wants_a_name_an_address_and_a_password() {
    let site = Site::new();
    for (field, value) in [
        ("username", json!("x")),
        ("username", json!("x".repeat(33))),
        ("username", json!("a\u{202e}b")),
        ("username", json!("everyone")),
        ("username", json!(7)),
        ("username", Value::Null),
        ("email", json!("ada")),
        ("email", json!("ada@example")),
        ("email", json!("")),
        ("email", json!(["ada@example.com"])),
        ("password", json!("7 chars")),
        ("password", json!("x".repeat(129))),
        ("password", json!(12345678)),
    ] {
        let mut body = ada();
        body[field] = value;
        site.auth("POST /register").json(&body).send().await.fails(400, "malformed");
        body.as_object_mut().unwrap().remove(field);
        site.auth("POST /register").json(&body).send().await.fails(400, "malformed");
    }
    for body in ["", "{", "null", "[]", "7", r#"{"username":"Ada","username":"Eve","email":"a@b.c","password":"12345678"}"#] {
        site.auth("POST /register").raw("application/json", body).send().await.fails(400, "malformed");
    }
    assert_eq!(site.accounts.passwords().jobs(), 0, "limits are checked before hashing");
    site.auth("POST /register").json(ada()).send().await.ok(201);
}

#[tokio::test(start_paused = true)]
async fn an_address_has_one_account() {
    let site = Site::new();
    site.auth("POST /register").json(ada()).send().await.ok(201);
    let mut again = ada();
    again["email"] = json!("Ada@EXAMPLE.com");
    let reply = site.auth("POST /register").json(again).send().await.fails(409, "email_in_use");
    assert_eq!(reply.json["error"], "Email already in use");
    assert_eq!(site.accounts.passwords().jobs(), 2, "a taken address costs what a free one does");
}

#[tokio::test(start_paused = true)]
async fn no_answer_to_register_comes_before_its_time() {
    let site = Site::new();
    let soonest = Limits::default().register_time;
    for (call, status) in [
        (site.auth("POST /register").json(ada()), 201),
        (site.auth("POST /register").json(ada()), 409),
        (site.auth("POST /register").json(json!({})), 400),
        (site.auth("POST /register").raw("text/plain", "x"), 415),
        (site.auth("POST /register").raw("application/json", vec![b' '; 1 << 20]), 413),
    ] {
        let asked = Instant::now();
        assert_eq!(call.send().await.status, status);
        // The clock of this test stands still but for timers.
        assert!(asked.elapsed() >= soonest, "{status}");
        assert!(asked.elapsed() < soonest * 2, "{status}");
    }
    // Nor to whoever calls without HTTP.
    let asked = Instant::now();
    let body = jiscord_core::http::RegisterBody { username: String::new(), email: String::new(), password: String::new() };
    site.accounts.register(body).await.unwrap_err();
    assert!(asked.elapsed() >= soonest);
}

#[tokio::test(start_paused = true)]
async fn a_failed_login_tells_nothing() {
    let site = Site::new();
    site.auth("POST /register").json(ada()).send().await.ok(201);
    // An account whose hash is none of ours, and one that has a forged, endlessly expensive one.
    for (name, hash) in [
        ("Bea", "$2b$10$N9qo8uLOickgx2ZMRZoMyeIjZAgcfl7p92ldGxad68LJZdL17lhWy"),
        ("Cyd", "$argon2id$v=19$m=4194304,t=2,p=1$AAAAAAAAAAAAAAAAAAAAAA$AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA"),
        ("Dot", "$argon2id$v=19$m=8,t=4000000000,p=1$AAAAAAAAAAAAAAAAAAAAAA$AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA"),
        ("Eve", "$argon2i$v=19$m=8,t=1,p=1$AAAAAAAAAAAAAAAAAAAAAA$AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA"),
        ("Fay", "$argon2id$v=19$m=8,t=1,p=1$$"),
        ("Gia", &"$".repeat(1000)),
    ] {
        let email = Email::new(&format!("{name}@example.com")).unwrap();
        let new = NewUser { username: Username::new(name).unwrap(), email, password_hash: hash.into() };
        Users::create(&*site.store, new).await.unwrap();
    }
    let mut first: Option<(Vec<u8>, axum::http::HeaderMap)> = None;
    for body in [
        json!({ "email": "ada@example.com", "password": "wrong horse" }),
        json!({ "email": "nobody@example.com", "password": "correct horse" }),
        json!({ "email": "no address", "password": "correct horse" }),
        json!({ "email": "ada@example.com" }),
        json!({ "password": "correct horse" }),
        json!({ "email": null, "password": null }),
        json!({}),
        json!({ "email": "ada@example.com", "password": "" }),
        json!({ "email": "ada@example.com", "password": "x".repeat(1000) }),
        json!({ "email": "bea@example.com", "password": "correct horse" }),
        json!({ "email": "cyd@example.com", "password": "correct horse" }),
        json!({ "email": "dot@example.com", "password": "correct horse" }),
        json!({ "email": "eve@example.com", "password": "correct horse" }),
        json!({ "email": "fay@example.com", "password": "correct horse" }),
        json!({ "email": "gia@example.com", "password": "correct horse" }),
    ] {
        let before = site.accounts.passwords().jobs();
        let reply = site.auth("POST /login").json(&body).send().await.fails(401, "unauthorized");
        assert_eq!(reply.json["error"], "Invalid credentials");
        assert_eq!(site.accounts.passwords().jobs(), before + 1, "the same work for {body}");
        let (bytes, headers) = first.get_or_insert_with(|| (reply.bytes.clone(), reply.headers.clone()));
        assert_eq!((&reply.bytes, &reply.headers), (&*bytes, &*headers), "{body}");
    }
    for body in ["{", r#"{"email":7}"#, r#"{"email":"a@b.c","email":"a@b.c"}"#] {
        site.auth("POST /login").raw("application/json", body).send().await.fails(400, "malformed");
    }
}

#[tokio::test]
async fn a_hash_says_what_it_costs_and_costs_what_owasp_says() {
    let passwords = Passwords::new(Cost::default(), &Limits::default());
    let hash = passwords.hash(Password::new("correct horse").unwrap()).await.unwrap();
    assert!(hash.starts_with("$argon2id$v=19$m=19456,t=2,p=1$"), "{hash}");
    let verify = |text| passwords.verify(Password::new(text).ok(), Some(&hash));
    assert!(verify("correct horse").await.unwrap());
    assert!(!verify("correct horsf").await.unwrap());
    // One job each: the hash, and two looks at it. Nobody's hash costs the same (its parameters are ours).
    assert_eq!(passwords.jobs(), 3);
    assert!(!passwords.verify(Password::new("correct horse").ok(), None).await.unwrap());
    assert_eq!(passwords.jobs(), 4);
    // What is no password is not right either where somebody, elsewhere, was let through with none.
    let empty = Argon2::default().hash_password(b"").unwrap().to_string();
    assert!(!passwords.verify(Password::new("").ok(), Some(&empty)).await.unwrap());
    // The same text in another form of Unicode is the same password, and a different tail is not cut off.
    let hash = passwords.hash(Password::new("caf\u{e9} au lait").unwrap()).await.unwrap();
    assert!(passwords.verify(Password::new("cafe\u{301} au lait").ok(), Some(&hash)).await.unwrap());
    let hash = passwords.hash(Password::new(&"x".repeat(128)).unwrap()).await.unwrap();
    assert!(!passwords.verify(Password::new(&"x".repeat(127)).ok(), Some(&hash)).await.unwrap());
}

/// Runs a test while the only thread that hashes is held up: what is begun does not end before the sender is dropped.
fn while_hashing_stands_still<T: Future>(test: impl FnOnce(std::sync::mpsc::Sender<()>) -> T) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().max_blocking_threads(1).build().unwrap();
    let (release, held) = std::sync::mpsc::channel();
    runtime.spawn_blocking(move || held.recv());
    runtime.block_on(test(release));
}

#[test]
fn who_finds_the_queue_for_hashing_full_is_told_to_come_back() {
    while_hashing_stands_still(async |release| {
        let mut limits = Limits::default();
        (limits.password_jobs, limits.password_queue) = (1, 2);
        let passwords = passwords(&limits);
        let hash = || passwords.hash(Password::new("correct horse").unwrap());
        // One runs, two wait, and two find no place.
        let all = tokio::join!(biased; hash(), hash(), hash(), hash(), hash(), async { drop(release) });
        assert!(all.0.is_ok() && all.1.is_ok() && all.2.is_ok());
        for refused in [all.3, all.4] {
            let fault = refused.unwrap_err();
            assert_eq!(fault.code, Code::BUSY);
            assert_eq!(fault.retry_after, Some(Duration::from_secs(1)));
        }
        assert_eq!(passwords.jobs(), 3);
        assert!(hash().await.is_ok(), "the queue is free again");
    });
}

#[test]
fn a_busy_server_says_so() {
    while_hashing_stands_still(async |release| {
        let mut settings = settings();
        (settings.limits.password_jobs, settings.limits.password_queue) = (1, 0);
        let site = Site::with(settings);
        let login = || site.auth("POST /login").json(json!({})).send();
        let (first, second, ()) = tokio::join!(biased; login(), login(), async { drop(release) });
        first.fails(401, "unauthorized");
        assert_eq!(second.fails(503, "busy").header("retry-after"), Some("1"));
    });
}

/// Calls until it is too much. At one a second, 50 calls are too many however slow this machine is today.
async fn exhaust(call: impl Fn() -> Call, before: u16) -> Reply {
    for _ in 0..50 {
        let reply = call().send().await;
        if reply.status == 429 {
            return reply.fails(429, "rate_limited");
        }
        assert_eq!(reply.status, before);
    }
    panic!("50 calls at once were let through");
}

#[tokio::test(start_paused = true)]
async fn one_address_can_only_guess_so_fast() {
    let mut settings = settings();
    settings.limits.login = Rate::new(1, 2);
    let site = Site::with(settings);
    for (net, path, before) in [("a", "POST /login", 401), ("b", "POST /register", 400)] {
        let call = |addr: String| site.auth(path).json(json!({})).from(&addr);
        let host = std::cell::Cell::new(0);
        let next_host = || {
            host.set(host.get() + 1);
            call(format!("2001:db8:0:{net}::{:x}", host.get()))
        };
        assert_eq!(exhaust(next_host, before).await.header("retry-after"), Some("1"));
        call(format!("2001:db8:1:{net}::1")).send().await.fails(before, if before == 401 { "unauthorized" } else { "malformed" });
    }
    for _ in 0..50 {
        let without_address = site.auth("POST /login").json(json!({})).send().await;
        without_address.fails(401, "unauthorized");
    }
}

#[tokio::test(start_paused = true)]
async fn one_account_can_only_be_guessed_so_often() {
    let mut settings = settings();
    (settings.limits.failed_logins, settings.limits.failed_logins_in_network) = (5, 3);
    let site = Site::with(settings);
    site.auth("POST /register").json(ada()).send().await.ok(201);
    let login = |email: &str, password: &str, from: &str| {
        site.auth("POST /login").json(json!({ "email": email, "password": password })).from(from).send()
    };
    let right = |from: &'static str| login("ada@example.com", "correct horse", from);
    right("192.0.2.1").await.ok(200);
    // Whether there is such an account or not, all is the same.
    for email in ["ada@example.com", "nobody@example.com"] {
        let jobs = site.accounts.passwords().jobs();
        // Many at once, in any spelling, are as many as one after the other.
        let (spelt, small) = (email.to_uppercase(), email.to_owned());
        let all = futures_util::future::join_all((0..6).map(|n| {
            let email = if n % 2 == 0 { &spelt } else { &small };
            login(email, "wrong horse", "198.51.100.1")
        }));
        let (failed, refused): (Vec<_>, Vec<_>) = all.await.into_iter().partition(|reply| reply.status == 401);
        assert_eq!((failed.len(), refused.len()), (3, 3));
        for reply in refused {
            reply.fails(429, "rate_limited");
        }
        let late = login(email, "correct horse", "198.51.100.2").await.fails(429, "rate_limited");
        assert_eq!(late.header("retry-after"), Some("3600"));
        for from in ["2001:db8:1::1", "2001:db8:2::1"] {
            login(email, "wrong horse", from).await.fails(401, "unauthorized");
        }
        login(email, "correct horse", "2001:db8:3::1").await.fails(429, "rate_limited");
        assert_eq!(site.accounts.passwords().jobs() - jobs, 5, "what is refused costs nothing");
    }
    // From where the owner has been before, nobody else's failures matter.
    right("192.0.2.99").await.ok(200);
    login("bea@example.com", "wrong horse", "198.51.100.1").await.fails(401, "unauthorized");
    tokio::time::advance(Duration::from_secs(60 * 60)).await;
    right("198.51.100.1").await.ok(200);
}

#[tokio::test(start_paused = true)]
async fn what_is_too_long_is_not_hashed() {
    let site = Site::new();
    for path in ["POST /register", "POST /login"] {
        let mut long = ada();
        long["password"] = json!("x".repeat(10 << 20));
        site.auth(path).json(&long).send().await.fails(413, "too_large");
    }
    assert_eq!(site.accounts.passwords().jobs(), 0);
}

#[tokio::test]
async fn a_user_is_limited_by_itself_and_a_stranger_by_its_address() {
    let mut settings = settings();
    settings.limits.caller = Rate::new(1, 2);
    let site = Site::with(settings);
    let (ada, bea) = (site.user("Ada").await, site.user("Bea").await);
    for (router, path) in [(&site.auth, "GET /me"), (&site.data, "GET /guilds/me")] {
        let call = || Call::new(router, path).from("192.0.2.1");
        assert_eq!(exhaust(|| call().by(&ada), 200).await.header("retry-after"), Some("1"));
        // The address is the same, but Bea is somebody else; and who has no token is only an address.
        call().by(&bea).send().await.ok(200);
        exhaust(|| call().bearer("forged"), 401).await;
        Call::new(router, path).bearer("forged").from("192.0.2.2").send().await.fails(401, "unauthorized");
    }
    // Services are not limited: they speak for many.
    for _ in 0..50 {
        site.data("GET /guilds/me").service().acting_for(ada.id).from("192.0.2.3").send().await.ok(200);
    }
}

#[tokio::test]
async fn pages_of_listed_origins_may_read_the_answers() {
    let site = Site::new();
    for router in [&site.auth, &site.data] {
        for path in ["GET /health", "GET /nowhere", "GET /me", "DELETE /health"] {
            let reply = Call::new(router, path).header("origin", ORIGIN).send().await;
            assert_eq!(reply.header("access-control-allow-origin"), Some(ORIGIN), "{path}");
            for other in
                ["null", "*", "http://localhost", "https://localhost:5173", "http://LOCALHOST:5173", "http://evil.example"]
            {
                let reply = Call::new(router, path).header("origin", other).send().await;
                assert_eq!(reply.header("access-control-allow-origin"), None, "{path} {other}");
                assert!(reply.header("vary").unwrap().contains("origin"));
                assert_eq!(reply.header("access-control-allow-credentials"), None);
            }
        }
        let preflight = |origin: &str| {
            let call = Call::new(router, "OPTIONS /login").header("origin", origin);
            call.header("access-control-request-method", "POST").header("access-control-request-headers", "authorization").send()
        };
        let reply = preflight(ORIGIN).await;
        assert_eq!(reply.status, 200);
        assert_eq!(reply.header("access-control-allow-origin"), Some(ORIGIN));
        assert_eq!(reply.header("access-control-allow-headers"), Some("authorization,content-type"));
        assert!(reply.header("access-control-max-age").is_some());
        assert_eq!(preflight("http://evil.example").await.header("access-control-allow-origin"), None);
    }
}

#[tokio::test]
async fn a_page_may_name_its_user_only_where_that_is_believed() {
    for (site, allowed) in
        [(Site::new(), "authorization,content-type"), (Site::trusting(), "authorization,content-type,x-user-id")]
    {
        let call = site.data("OPTIONS /guilds/me").header("origin", ORIGIN).header("access-control-request-method", "GET");
        let reply = call.header("access-control-request-headers", "x-user-id").send().await;
        assert_eq!(reply.header("access-control-allow-headers"), Some(allowed));
    }
}
