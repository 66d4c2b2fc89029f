//! Where secrets are taken, and where they are never to be seen.

use std::fs;

use jiscord_e2e::{Answer, Caller, Deployment, Raw, Socket, frame};
use serde_json::json;

#[tokio::test]
async fn a_token_counts_in_its_header_and_in_identify_and_nowhere_else() {
    let server = Deployment::start().await;
    let ada = server.register("ada").await;
    let (data, auth) = (Caller::new(server.data()), Caller::new(server.auth()));
    for name in ["token", "access_token", "authorization", "Authorization", "jwt"] {
        data.get(&format!("/guilds/me?{name}={}", ada.token)).await.is_error_of(name, 401, "unauthorized");
        auth.get(&format!("/me?{name}={}", ada.token)).await.is_error_of(name, 401, "unauthorized");
        let cookie = format!("{name}={}", ada.token);
        data.clone().with("cookie", &cookie).get("/guilds/me").await.is_error_of(name, 401, "unauthorized");
        auth.clone().with("cookie", &cookie).get("/me").await.is_error_of(name, 401, "unauthorized");

        let mut socket = Socket::open(&format!("{}?{name}={}", server.ws(), ada.token)).await;
        socket.say("TYPING_START", json!({})).await;
        assert_eq!(socket.last_words().await, (vec![], Some(4003)), "{name}");
    }
    // Nor does an upgrade take one from a header, which a page's cookie would come in.
    for header in ["Authorization: Bearer ", "Cookie: token=", "Cookie: jiscord_refresh=", "Sec-WebSocket-Protocol: "] {
        let mut raw = Raw::connect(&server.ws()).await;
        assert_eq!(raw.upgrade(&format!("{header}{}\r\n", ada.token)).await, 101, "{header}");
        raw.write(&frame(0x81, br#"{"op":"TYPING_START","d":{}}"#)).await.unwrap();
        assert_eq!(raw.close_code().await, Some(4003), "{header}");
    }
}

#[tokio::test]
async fn what_comes_after_a_body_says_nothing_about_who_calls() {
    let server = Deployment::start().await;
    let ada = server.register("ada").await;
    let service = format!("Authorization: Service {}\r\n", server.service_token());
    let user = format!("Authorization: Bearer {}\r\n", ada.token);
    let name = format!("X-User-ID: {}\r\n", ada.id);
    for (head, trailer, status) in [("", &user, 401), ("", &service, 401), (&*service, &name, 400), (&name, &service, 401)] {
        let mut raw = Raw::connect(&server.data()).await;
        let request = format!(
            "GET {}/guilds/me HTTP/1.1\r\nHost: {}\r\n{head}TE: trailers\r\nTrailer: X-User-ID, Authorization\r\n\
             Transfer-Encoding: chunked\r\n\r\n0\r\n{trailer}\r\n",
            raw.path(),
            raw.host()
        );
        raw.write(request.as_bytes()).await.unwrap();
        assert_eq!(raw.status().await, Some(status), "{request}");
    }
}

#[tokio::test]
async fn frames_are_not_compressed() {
    let server = Deployment::start().await;
    let offers =
        ["permessage-deflate", "permessage-deflate; client_max_window_bits", "x-webkit-deflate-frame, permessage-deflate"];
    for offer in offers {
        let mut raw = Raw::connect(&server.ws()).await;
        let head = raw.upgrade_head(&format!("Sec-WebSocket-Extensions: {offer}\r\n")).await;
        assert!(head.starts_with("HTTP/1.1 101") && !head.to_lowercase().contains("extensions"), "{head}");
        // As if it had been agreed upon all the same.
        raw.write(&frame(0x81 | 0x40, br#"{"op":"HEARTBEAT"}"#)).await.unwrap();
        assert_eq!(raw.close_code().await, Some(1002), "{offer}");
    }
}

#[tokio::test]
async fn logs_hold_no_secret_on_any_service() {
    let server = Deployment::with(&[("JISCORD_LOG", "trace")]).await;
    let (password, wrong, content) = ("correct horse", "a wrong password of hers", "for your eyes only");
    let ada = server.register("ada").await;
    let auth = Caller::new(server.auth());
    auth.post("/login", json!({"email": "ada@example.com", "password": wrong})).await.is_error(401, "unauthorized");
    auth.clone().bearer(&format!("{}x", ada.token)).get("/me").await.is_error(401, "unauthorized");
    auth.get(&format!("/me?token={}", ada.token)).await.is_error(401, "unauthorized");
    auth.call("POST", "/login", Some("application/json"), format!(r#"{{"password":"{wrong}""#)).await.is_error(400, "malformed");
    // A page's login, which goes on by its cookie and ends.
    let page = auth.clone().with("origin", "http://localhost:5173");
    let cookie = |answer: &Answer| answer.headers["set-cookie"].to_str().unwrap().split(';').next().unwrap().to_owned();
    let first = page.post("/login", json!({"email": "ada@example.com", "password": password, "remember": true})).await;
    let first = cookie(&first);
    let second = cookie(&page.clone().with("cookie", &first).post("/refresh", json!({})).await);
    page.clone().with("cookie", &second).post("/logout", json!({})).await.is(204);
    page.with("cookie", &second).post("/refresh", json!({})).await.is_error(401, "unauthorized");
    let [first, second] = [&first, &second].map(|cookie| cookie.split_once('=').unwrap().1);

    let channel = ada.create_channel(&ada.create_guild("Computing").await, "engines").await;
    let mut socket = ada.connect().await;
    socket.send_once(&channel, content, "n").await;
    socket.hear_past("MESSAGE_ACK").await;
    ada.post(&channel, json!({"content": content})).await;
    ada.history(&channel).await;
    socket.say("SEND_MESSAGE", json!({"channelId": channel, "content": content, "replyTo": 7})).await;
    socket.hear_past("ERROR").await;
    let forged = "\u{1b}[31m\n2026-01-01T00:00:00Z ERROR jiscord: all is lost";
    let identify = json!({"op": "IDENTIFY", "d": {"token": ada.token}}).to_string();
    for text in [&json!({"op": forged}).to_string(), &json!({"op": "TYPING_START", "d": {"channelId": forged}}).to_string()] {
        socket.say_text(text).await;
        socket.hear_past("ERROR").await;
    }
    for text in ["hello", &identify] {
        socket.say_text(text).await;
    }
    let mut late = Socket::open(&server.ws_of(1)).await;
    late.say("IDENTIFY", json!({"token": format!("{}x", ada.token)})).await;
    late.last_words().await;

    let signature = ada.token.rsplit('.').next().unwrap();
    let (jwt, service) = (server.jwt_secret(), server.service_token());
    for process in server.processes() {
        let log = process.log();
        assert!(log.lines().any(|line| line.contains("TRACE") || line.contains("DEBUG")), "it says nothing: {log}");
        for secret in [password, wrong, content, &*ada.token, signature, first, second, "$argon2id$", &jwt, &service] {
            let shown: Vec<_> = log.lines().filter(|line| line.contains(secret)).collect();
            assert!(shown.is_empty(), "{secret}: {shown:?}");
        }
        assert!(!log.contains("\n2026-01-01") && !log.contains('\u{1b}'), "somebody else has written a line");
    }
}

#[tokio::test]
#[cfg(target_os = "linux")]
async fn a_process_keeps_its_memory_and_its_files_to_itself() {
    let server = Deployment::start().await;
    let secrets = [server.jwt_secret(), server.service_token()];
    for process in server.processes() {
        let of = |file: &str| fs::read_to_string(format!("/proc/{}/{file}", process.pid().unwrap())).unwrap();
        let limits = of("limits");
        let core = limits.lines().find(|line| line.starts_with("Max core file size")).unwrap();
        assert_eq!(core.split_whitespace().nth(4), Some("0"), "{core}");
        assert!(of("status").lines().any(|line| line == "Umask:\t0077"));
        let arguments = of("cmdline");
        assert!(secrets.iter().all(|secret| !arguments.contains(secret)), "{arguments}");
    }
}

#[tokio::test]
async fn answers_do_not_say_what_made_them() {
    let server = Deployment::start().await;
    let ada = server.register("ada").await;
    for caller in [&ada.auth, &ada.data, &Caller::new(server.data())] {
        for (method, path) in [("GET", "/health"), ("GET", "/guilds/me"), ("GET", "/me"), ("GET", "/nope"), ("PUT", "/health")] {
            let answer = caller.call(method, path, None, "").await;
            for name in ["server", "x-powered-by", "via"] {
                assert_eq!(answer.headers.get(name), None, "{method} {path}");
            }
            assert_eq!(answer.headers["x-content-type-options"], "nosniff", "{method} {path}");
            assert_eq!(answer.headers["referrer-policy"], "no-referrer", "{method} {path}");
            assert_eq!(answer.headers["cache-control"], "no-store", "{method} {path}");
        }
    }
}
