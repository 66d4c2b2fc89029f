//! Logins that are refreshed by a cookie, and their ends.

use std::sync::{Arc, Mutex};

use async_trait::async_trait;
use jiscord_api::{Accounts, accounts::Logins, http::auth};
use jiscord_core::{
    Code, Fault, UserId,
    backend::{Login, Revoked},
    fault::Result,
    time::{Clock, SystemClock},
};
use jiscord_store::{NewLogin, Refreshed};
use jsonwebtoken::{EncodingKey, Header};
use serde_json::{Value, json};
use uuid::Uuid;

use crate::site::{Call, ORIGIN, Reply, SECRET, Site, Stopped, passwords, settings};

const OWN: &str = "http://127.0.0.1:3001";

/// A site on which Ada has an account.
async fn site() -> (Site, Arc<Stopped>) {
    let clock = Arc::new(Stopped(Mutex::new(SystemClock.now_micros())));
    let mut settings = settings();
    settings.limits.register_time = std::time::Duration::ZERO;
    let site = Site::at(clock.clone(), settings);
    let ada = json!({ "username": "Ada", "email": "ada@example.com", "password": "correct horse" });
    site.auth("POST /register").json(ada).send().await.ok(201);
    (site, clock)
}

async fn log_in(site: &Site, remember: bool) -> Reply {
    let body = json!({ "email": "ada@example.com", "password": "correct horse", "remember": remember });
    site.auth("POST /login").header("origin", OWN).json(body).send().await
}

/// The cookie that an answer gives, as a browser sends it back.
fn cookie(reply: &Reply) -> String {
    reply.header("set-cookie").unwrap().split(';').next().unwrap().to_owned()
}

fn refresh(site: &Site, cookie: &str) -> Call {
    site.auth("POST /refresh").header("origin", OWN).header("cookie", cookie)
}

fn token(reply: Reply) -> String {
    reply.ok(200)["token"].as_str().unwrap().to_owned()
}

async fn is_good(site: &Site, token: &str) -> bool {
    let answers = [
        site.auth("GET /me").bearer(token).send().await.status.as_u16(),
        site.auth("POST /verify-token").bearer(token).send().await.status.as_u16(),
        site.data("GET /guilds/me").bearer(token).send().await.status.as_u16(),
    ];
    assert!(answers == [200; 3] || answers == [401; 3], "{answers:?}");
    answers[0] == 200
}

#[tokio::test]
async fn only_who_asks_to_be_remembered_gets_a_cookie_that_scripts_cannot_read() {
    let (site, _) = site().await;
    assert_eq!(log_in(&site, false).await.header("set-cookie"), None);
    let reply = log_in(&site, true).await;
    let set = reply.header("set-cookie").unwrap();
    let (pair, rest) = set.split_once("; ").unwrap();
    assert!(pair.starts_with("jiscord_refresh="), "{set}");
    assert_eq!(rest, "Max-Age=2592000; Path=/; HttpOnly; SameSite=Strict");
    let body = String::from_utf8(reply.bytes.clone()).unwrap();
    assert!(!body.contains(pair.split_once('=').unwrap().1), "it is in no body");

    // A page over https gets one that stays there.
    let body = json!({ "email": "ada@example.com", "password": "correct horse", "remember": true });
    let reply = site.auth("POST /login").header("origin", "https://127.0.0.1:3001").json(body).send().await;
    let set = reply.header("set-cookie").unwrap();
    assert!(set.starts_with("__Host-jiscord_refresh=") && set.ends_with("; Secure"), "{set}");
    let reply = refresh(&site, &cookie(&reply)).send().await;
    assert_eq!(reply.status, 200);
}

#[tokio::test]
async fn a_login_goes_on_by_its_cookie_which_changes_each_time() {
    let (site, _) = site().await;
    let first = log_in(&site, true).await;
    let mut shown = cookie(&first);
    let mut tokens = vec![token(first)];
    for _ in 0..3 {
        let reply = refresh(&site, &shown).send().await;
        let next = cookie(&reply);
        assert_ne!(next, shown);
        assert_eq!(reply.json["user"]["email"], "ada@example.com");
        shown = next;
        tokens.push(token(reply));
    }
    for token in &tokens {
        assert!(is_good(&site, token).await);
    }
    // It needs no login of that kind to be known by a token, and no token to be refreshed.
    for bad in ["jiscord_refresh=", "jiscord_refresh=x", "other=1", &shown[..shown.len() - 1], &format!("{shown}x"), &tokens[0]] {
        let reply = refresh(&site, bad).send().await.fails(401, "unauthorized");
        if bad.starts_with("jiscord_refresh") {
            assert!(reply.header("set-cookie").unwrap().contains("Max-Age=0"), "{bad}");
        }
    }
    site.auth("POST /refresh").header("origin", OWN).send().await.fails(401, "unauthorized");
}

#[tokio::test]
async fn a_used_cookie_is_good_for_a_minute_and_then_ends_its_login() {
    let (site, clock) = site().await;
    let first = log_in(&site, true).await;
    let used = cookie(&first);
    let next = cookie(&refresh(&site, &used).send().await);
    // Two pages at once, or an answer that was lost: both go on.
    *clock.0.lock().unwrap() += 60_000_000;
    assert_eq!(cookie(&refresh(&site, &used).send().await), next);
    *clock.0.lock().unwrap() += 1;
    let live = token(refresh(&site, &next).send().await);
    assert!(is_good(&site, &live).await);
    refresh(&site, &used).send().await.fails(401, "unauthorized");
    // Somebody has a copy: neither goes on.
    assert!(!is_good(&site, &live).await);
    refresh(&site, &next).send().await.fails(401, "unauthorized");
}

#[tokio::test]
async fn a_login_that_nobody_refreshes_ends_after_30_days() {
    const DAY: u64 = 86_400_000_000;
    let (site, clock) = site().await;
    let mut shown = cookie(&log_in(&site, true).await);
    for _ in 0..3 {
        *clock.0.lock().unwrap() += 29 * DAY;
        shown = cookie(&refresh(&site, &shown).send().await);
    }
    *clock.0.lock().unwrap() += 31 * DAY;
    refresh(&site, &shown).send().await.fails(401, "unauthorized");
}

#[tokio::test]
async fn the_cookie_speaks_only_for_pages_of_this_server() {
    let (site, _) = site().await;
    let shown = cookie(&log_in(&site, true).await);
    for route in ["POST /refresh", "POST /logout"] {
        let call = || site.auth(route).header("cookie", &shown);
        for origin in ["http://evil.example", "null", "http://127.0.0.1:3002", "https://127.0.0.1.evil.tld:3001"] {
            call().header("origin", origin).send().await.fails(403, "forbidden");
        }
        call().send().await.fails(403, "forbidden");
        call().header("sec-fetch-site", "cross-site").send().await.fails(403, "forbidden");
        // A form of another page cannot make JSON.
        let form = call().header("origin", OWN).raw("text/plain", "a=b").send().await;
        form.fails(415, "unsupported_media_type");
        let form = call().header("origin", OWN).raw("application/x-www-form-urlencoded", "").send().await;
        form.fails(415, "unsupported_media_type");
    }
    for call in [
        refresh(&site, &shown),
        refresh(&site, &shown).json(json!({})),
        site.auth("POST /refresh").header("cookie", &shown).header("origin", ORIGIN),
        site.auth("POST /refresh").header("cookie", &shown).header("sec-fetch-site", "same-origin"),
    ] {
        assert_eq!(call.send().await.status, 200);
    }
    // Nowhere else is it asked for.
    site.auth("GET /me").header("cookie", &shown).header("origin", OWN).send().await.fails(401, "unauthorized");
    site.data("GET /guilds/me").header("cookie", &shown).header("origin", OWN).send().await.fails(401, "unauthorized");
    // A page that may call from elsewhere still cannot read it, and no method but POST does anything.
    site.auth("GET /refresh").header("cookie", &shown).send().await.fails(405, "method_not_allowed");
}

#[tokio::test]
async fn a_log_out_ends_token_and_cookie_at_once_and_nothing_else() {
    let (site, _) = site().await;
    let bob = site.user("Bob").await;
    let other = token(log_in(&site, true).await);
    let plain = token(log_in(&site, false).await);
    let first = log_in(&site, true).await;
    let shown = cookie(&first);
    let (first, second) = (token(first), token(refresh(&site, &shown).send().await));
    site.heard.take();

    let logout = || site.auth("POST /logout").header("origin", OWN).header("cookie", &shown);
    let reply = logout().bearer(&second).send().await;
    assert!(reply.header("set-cookie").unwrap().starts_with("jiscord_refresh=; Max-Age=0;"));
    assert_eq!(reply.status, 204);
    // All tokens of that login.
    assert!(!is_good(&site, &first).await && !is_good(&site, &second).await);
    refresh(&site, &shown).send().await.fails(401, "unauthorized");
    assert!(is_good(&site, &other).await && is_good(&site, &plain).await && is_good(&site, &bob.token).await);
    // Told to those who keep sockets, when it answers.
    let told = site.heard.take();
    assert!(told.len() == 1 && matches!(told[0].revokes(), Some(Revoked::Login(_))), "{told:?}");
    assert!(site.log().await.contains(&told[0]));
    // Once more is no error, with either or neither.
    for call in [logout(), logout().bearer(&second), site.auth("POST /logout").bearer(&second), site.auth("POST /logout")] {
        assert_eq!(call.send().await.status, 204);
    }
    assert_eq!(site.heard.take(), []);

    // A token that is a login of its own; then everything.
    assert_eq!(site.auth("POST /logout").bearer(&plain).send().await.status, 204);
    assert!(!is_good(&site, &plain).await && is_good(&site, &other).await);
    let again = token(log_in(&site, false).await);
    let everywhere = site.auth("POST /logout").bearer(&again).json(json!({ "everywhere": true })).send().await;
    assert_eq!(everywhere.status, 204);
    assert!(!is_good(&site, &other).await && !is_good(&site, &again).await && is_good(&site, &bob.token).await);
}

#[tokio::test]
async fn after_everything_was_ended_one_can_log_in_anew() {
    let (site, clock) = site().await;
    let first = log_in(&site, true).await;
    let shown = cookie(&first);
    let everywhere = site.auth("POST /logout").bearer(&token(first)).json(json!({ "everywhere": true })).send().await;
    assert_eq!(everywhere.status, 204);
    *clock.0.lock().unwrap() += 1_000_000;
    assert!(is_good(&site, &token(log_in(&site, true).await)).await);
    // What began before does not come back by its cookie.
    refresh(&site, &shown).send().await.fails(401, "unauthorized");
}

/// As another program makes them that knows the secret.
fn foreign(user: &str, more: Value) -> String {
    let now = SystemClock.now_micros() / 1_000_000;
    let mut claims = json!({ "sub": user, "username": "Ada", "iat": now, "exp": now + 600 });
    claims.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    jsonwebtoken::encode(&Header::default(), &claims, &EncodingKey::from_secret(SECRET)).unwrap()
}

#[tokio::test]
async fn a_token_that_names_no_login_is_ended_alone() {
    let (site, _) = site().await;
    let ada = site.user("Eve").await;
    let user = ada.id.to_string();
    let tokens = [
        ada.token,
        foreign(&user, json!({})),
        foreign(&user, json!({ "n": 1 })),
        foreign(&user, json!({ "jti": "no UUID" })),
        foreign(&user, json!({ "jti": "no UUID", "n": 1 })),
    ];
    for (at, ended) in tokens.iter().enumerate() {
        assert_eq!(site.auth("POST /logout").bearer(ended).send().await.status, 204);
        for (other, token) in tokens.iter().enumerate() {
            assert_eq!(is_good(&site, token).await, other > at, "{other} when {at} is ended");
        }
    }
    // And what was ended with all others does not come back by the log-out of one that came later.
    let (old, new) = (foreign(&user, json!({ "n": 2, "iat": 1_000 })), foreign(&user, json!({ "n": 3 })));
    site.chat.revoke_login(ada.id, Revoked::IssuedBy(1_000)).await.unwrap();
    assert_eq!(site.auth("POST /logout").bearer(&new).send().await.status, 204);
    assert!(!is_good(&site, &old).await);
}

#[tokio::test]
async fn a_token_that_is_made_while_everything_ends_is_no_way_round_it() {
    let (site, clock) = site().await;
    let first = log_in(&site, true).await;
    let shown = cookie(&first);
    let user = first.json["user"]["user_id"].as_str().unwrap().parse().unwrap();
    let second = SystemClock.now_micros() / 1_000_000 + 5;
    *clock.0.lock().unwrap() += 10_000_000;
    // Refreshed after the second until which all is ended, and before that is written.
    let late = token(refresh(&site, &shown).send().await);
    assert!(is_good(&site, &late).await);
    site.chat.revoke_login(user, Revoked::IssuedBy(second)).await.unwrap();
    assert!(!is_good(&site, &late).await);
    assert!(is_good(&site, &token(log_in(&site, true).await)).await);
}

#[tokio::test]
async fn over_https_only_a_cookie_of_https_goes_on_and_a_log_out_ends_both() {
    const HTTPS: &str = "https://127.0.0.1:3001";
    let (site, _) = site().await;
    let plain = cookie(&log_in(&site, true).await);
    let body = json!({ "email": "ada@example.com", "password": "correct horse", "remember": true });
    let secure = cookie(&site.auth("POST /login").header("origin", HTTPS).json(body).send().await);
    let asked = |route: &str, cookies: &str| site.auth(route).header("origin", HTTPS).header("cookie", cookies);
    asked("POST /refresh", &plain).send().await.fails(401, "unauthorized");
    let reply = asked("POST /refresh", &format!("{plain}; {secure}")).send().await;
    let secure = cookie(&reply);
    assert!(reply.status == 200 && secure.starts_with("__Host-"), "{secure}");

    let reply = asked("POST /logout", &format!("{plain}; {secure}")).send().await;
    assert_eq!(reply.status, 204);
    let forgotten: Vec<_> = reply.headers.get_all("set-cookie").iter().map(|line| line.to_str().unwrap()).collect();
    let rest = "=; Max-Age=0; Path=/; HttpOnly; SameSite=Strict";
    assert_eq!(forgotten, [format!("__Host-jiscord_refresh{rest}; Secure"), format!("jiscord_refresh{rest}")]);
    for cookie in [&secure, &plain] {
        refresh(&site, cookie).send().await.fails(401, "unauthorized");
    }
}

#[tokio::test]
async fn what_cannot_be_asked_is_neither_good_nor_bad() {
    /// Nobody answers.
    struct Away;

    #[async_trait]
    impl Logins for Away {
        async fn begin_login(&self, _: NewLogin) -> Result<()> {
            Err(Fault::new(Code::UNAVAILABLE, "away"))
        }
        async fn refresh_login(&self, _: Uuid, _: u64) -> Result<Refreshed> {
            Err(Fault::new(Code::UNAVAILABLE, "away"))
        }
        async fn revoke_login(&self, _: UserId, _: Revoked) -> Result<()> {
            Err(Fault::new(Code::UNAVAILABLE, "away"))
        }
        async fn is_login_revoked(&self, _: UserId, _: Login) -> Result<bool> {
            Err(Fault::new(Code::UNAVAILABLE, "away"))
        }
    }

    let (site, _) = site().await;
    let first = log_in(&site, true).await;
    let (shown, token) = (cookie(&first), token(first));
    let settings = settings();
    let accounts = Accounts::new(site.store.clone(), passwords(&settings.limits), site.jwt.clone(), &settings.limits);
    let away = auth::router(Arc::new(accounts.with_logins(Arc::new(Away))), settings);
    let body = json!({ "email": "ada@example.com", "password": "correct horse", "remember": true });
    for call in [
        Call::new(&away, "GET /me").bearer(&token),
        Call::new(&away, "POST /verify-token").bearer(&token),
        Call::new(&away, "POST /logout").bearer(&token),
        Call::new(&away, "POST /logout").header("origin", OWN).header("cookie", &shown),
        Call::new(&away, "POST /refresh").header("origin", OWN).header("cookie", &shown),
        Call::new(&away, "POST /login").json(body),
    ] {
        let reply = call.send().await.fails(503, "unavailable");
        // The browser keeps it: it is good when somebody can be asked again.
        assert_eq!(reply.header("set-cookie"), None);
    }
    assert_eq!(refresh(&site, &shown).send().await.status, 200);
}

#[tokio::test]
async fn only_services_speak_of_logins_to_data_service() {
    let (site, _) = site().await;
    let ada = site.user("Eve").await;
    let login = "0f8fad5b-d9cb-469f-a165-70867728950e";
    let calls = [
        ("POST /internal/logins".to_owned(), json!({ "login_id": login, "user_id": ada.id, "begun": 1 })),
        (format!("POST /internal/logins/{login}/refresh"), json!({ "generation": 0 })),
        (format!("POST /internal/users/{}/revocations", ada.id), json!({ "login": login })),
    ];
    for (line, body) in &calls {
        site.data(line).json(body).send().await.fails(401, "unauthorized");
        site.data(line).by(&ada).json(body).send().await.fails(403, "forbidden");
        site.data(line).service().acting_for(ada.id).json(body).send().await.fails(403, "forbidden");
        assert_eq!(site.data(line).service().json(body).send().await.status, 200, "{line}");
    }
    let asked = format!("GET /internal/users/{}/revocations?id={login}&issued_at=7", ada.id);
    assert_eq!(site.data(&asked).service().send().await.ok(200), json!({ "revoked": true }));
    site.data(&asked).by(&ada).send().await.fails(403, "forbidden");
}
