//! Logins that a browser keeps: refreshed by a cookie, over restarts, and ended for good.

use jiscord_e2e::{Answer, Caller, Deployment, Person, Socket};
use serde_json::{Value, json};

/// Ada's browser.
struct Browser {
    auth: Caller,
    cookie: String,
}

impl Browser {
    async fn log_in(server: &Deployment) -> (Self, String) {
        let auth = Caller::new(server.auth());
        let origin = server.auth().split('/').take(3).collect::<Vec<_>>().join("/");
        let auth = auth.with("origin", &origin);
        let body = json!({"email": "ada@example.com", "password": "correct horse", "remember": true});
        let mut browser = Self { auth: auth.clone(), cookie: String::new() };
        let token = browser.takes(auth.post("/login", body).await);
        (browser, token)
    }

    /// Keeps the cookie, and says the token.
    fn takes(&mut self, answer: Answer) -> String {
        let set = answer.headers["set-cookie"].to_str().unwrap();
        self.cookie = set.split(';').next().unwrap().to_owned();
        answer.is(200)["token"].as_str().unwrap().to_owned()
    }

    async fn post(&self, path: &str) -> Answer {
        self.auth.clone().with("cookie", &self.cookie).post(path, json!({})).await
    }

    async fn refresh(&mut self) -> String {
        let answer = self.post("/refresh").await;
        self.takes(answer)
    }
}

async fn session(server: &Deployment, gateway: usize, token: &str, device: &str) -> (Socket, Value) {
    let mut socket = Socket::open(&server.ws_of(gateway)).await;
    socket.say("IDENTIFY", json!({"token": token, "device": device})).await;
    let ready = socket.hear("READY").await;
    (socket, ready)
}

async fn is_good(ada: &Person, server: &Deployment, token: &str) -> bool {
    let answers = [
        Caller::new(server.auth()).bearer(token).get("/me").await,
        Caller::new(server.auth()).bearer(token).post("/verify-token", json!({})).await,
        Caller::new(server.data()).bearer(token).get("/guilds/me").await,
    ];
    let answers = answers.map(|answer| answer.status);
    assert!(answers == [200; 3] || answers == [401; 3], "{}: {answers:?}", ada.id);
    answers[0] == 200
}

#[tokio::test]
async fn a_login_goes_on_by_its_cookie_over_a_restart() {
    let mut server = Deployment::start().await;
    let ada = server.register("ada").await;
    let (mut browser, _) = Browser::log_in(&server).await;
    server.kill9().await;
    server.restart().await;
    let token = browser.refresh().await;
    assert!(is_good(&ada, &server, &token).await);
    session(&server, 1, &token, "a").await;
    assert!(is_good(&ada, &server, &browser.refresh().await).await);
}

#[tokio::test]
async fn a_log_out_ends_the_tokens_the_cookie_and_the_sockets_of_that_login_on_every_gateway() {
    let mut server = Deployment::start().await;
    let ada = server.register("ada").await;
    let (mut browser, first) = Browser::log_in(&server).await;
    let second = browser.refresh().await;
    let (mut one, _) = session(&server, 0, &first, "one").await;
    let (mut two, ready) = session(&server, 1, &second, "two").await;
    let (mut other, _) = session(&server, 1, &ada.token, "other").await;

    browser.auth = browser.auth.bearer(&second);
    browser.post("/logout").await.is(204);
    for socket in [&mut one, &mut two] {
        assert_eq!(socket.last_words().await, (vec!["INVALID_SESSION".into()], Some(4004)));
    }
    for token in [&first, &second] {
        assert!(!is_good(&ada, &server, token).await);
        let mut socket = Socket::open(&server.ws()).await;
        socket.say("IDENTIFY", json!({"token": token, "device": "again"})).await;
        assert_eq!(socket.last_words().await, (vec!["INVALID_SESSION".into()], Some(4004)));
    }
    let mut socket = Socket::open(&server.ws()).await;
    let d = &ready["d"];
    let resume = json!({"token": second, "device": "two", "sessionId": d["sessionId"], "epoch": d["epoch"], "after": ready["p"]});
    socket.say("RESUME", resume).await;
    assert_eq!(socket.last_words().await, (vec!["INVALID_SESSION".into()], Some(4004)));
    browser.post("/refresh").await.is(401);

    // The other login goes on, and hears nothing of it.
    other.say("HEARTBEAT", json!(null)).await;
    other.hear("HEARTBEAT_ACK").await;
    assert!(is_good(&ada, &server, &ada.token).await);

    // A restart changes nothing of that.
    server.kill9().await;
    server.restart().await;
    assert!(!is_good(&ada, &server, &first).await && is_good(&ada, &server, &ada.token).await);
    browser.post("/refresh").await.is(401);
}

#[tokio::test]
async fn one_can_log_out_everywhere() {
    let server = Deployment::start().await;
    let ada = server.register("ada").await;
    let bob = server.register("bob").await;
    let (browser, token) = Browser::log_in(&server).await;
    let (mut hers, _) = session(&server, 0, &ada.token, "hers").await;
    let (mut his, _) = session(&server, 0, &bob.token, "his").await;
    Caller::new(server.auth()).bearer(&token).post("/logout", json!({"everywhere": true})).await.is(204);
    assert_eq!(hers.last_words().await, (vec!["INVALID_SESSION".into()], Some(4004)));
    assert!(!is_good(&ada, &server, &ada.token).await && !is_good(&ada, &server, &token).await);
    browser.post("/refresh").await.is(401);
    his.say("HEARTBEAT", json!(null)).await;
    his.hear("HEARTBEAT_ACK").await;
}

#[tokio::test]
async fn a_cookie_that_was_copied_ends_its_login() {
    let server = Deployment::start().await;
    let ada = server.register("ada").await;
    let (mut browser, token) = Browser::log_in(&server).await;
    let thief = Browser { auth: browser.auth.clone(), cookie: browser.cookie.clone() };
    browser.refresh().await;
    browser.refresh().await;
    thief.post("/refresh").await.is(401);
    assert!(!is_good(&ada, &server, &token).await);
    browser.post("/refresh").await.is(401);
    // Another page's words count for nothing.
    let (browser, token) = Browser::log_in(&server).await;
    let elsewhere = Caller::new(server.auth()).with("origin", "http://evil.example").with("cookie", &browser.cookie);
    elsewhere.post("/refresh", json!({})).await.is(403);
    elsewhere.post("/logout", json!({})).await.is(403);
    assert!(is_good(&ada, &server, &token).await);
}
