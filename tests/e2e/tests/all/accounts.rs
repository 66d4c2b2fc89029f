//! Registering, logging in, and whose a token is.

use jiscord_e2e::{Caller, Deployment};
use serde_json::{Value, json};

use crate::tokens;

fn keys(value: &Value) -> Vec<&str> {
    let mut keys: Vec<_> = value.as_object().unwrap().keys().map(String::as_str).collect();
    keys.sort_unstable();
    keys
}

#[tokio::test]
async fn whoever_registers_can_log_in_and_is_known_by_the_token() {
    let server = Deployment::start().await;
    let auth = Caller::new(server.auth());
    let new = json!({"username": "Ada Lovelace", "email": "Ada@Example.com", "password": "correct horse"});
    let made = auth.post("/register", new).await.is(201);
    assert_eq!((keys(&made), &made["username"]), (vec!["user_id", "username"], &json!("Ada Lovelace")));

    // An address is the same in capitals.
    for email in ["Ada@Example.com", "ada@example.com", " ada@EXAMPLE.com "] {
        let login = auth.post("/login", json!({"email": email, "password": "correct horse"})).await.is(200);
        let user = json!({"user_id": made["user_id"], "username": "Ada Lovelace", "email": "ada@example.com"});
        assert_eq!((keys(&login), &login["user"]), (vec!["token", "user"], &user));

        let token = login["token"].as_str().unwrap();
        let claims = tokens::claims(token);
        assert_eq!((&claims["sub"], &claims["username"]), (&made["user_id"], &json!("Ada Lovelace")));
        assert_eq!(claims["exp"].as_u64().unwrap() - claims["iat"].as_u64().unwrap(), 7 * 24 * 60 * 60);

        let known = auth.clone().bearer(token);
        assert_eq!(known.get("/me").await.is(200), user);
        let verified = json!({"sub": made["user_id"], "username": "Ada Lovelace"});
        for (content_type, body) in
            [(None, ""), (Some("application/json"), ""), (Some("application/json"), "{}"), (Some("text/plain"), "x")]
        {
            let mut answer = known.call("POST", "/verify-token", content_type, body).await.is(200);
            let login = answer.as_object_mut().unwrap().remove("login").unwrap();
            assert_eq!(login["id"], claims["jti"]);
            assert_eq!(answer, verified, "{content_type:?} {body}");
        }
    }
}

#[tokio::test]
async fn a_bad_registration_is_refused_with_the_reason() {
    let server = Deployment::start().await;
    let auth = Caller::new(server.auth());
    let good = json!({"username": "ada", "email": "ada@example.com", "password": "12345678"});
    let but = |field: &str, value: Value| {
        let mut body = good.clone();
        body[field] = value;
        body.to_string()
    };
    let without = |field: &str| {
        let mut body = good.clone();
        body.as_object_mut().unwrap().remove(field);
        body.to_string()
    };
    for body in [
        but("username", json!("a")),
        but("username", json!("a".repeat(33))),
        but("username", json!("    a    ")),
        but("username", json!("ad\u{202e}a")),
        but("username", json!("ad\na")),
        but("username", json!("System")),
        but("username", json!(7)),
        without("username"),
        but("email", json!("ada")),
        but("email", json!("ada@example")),
        but("email", json!("@example.com")),
        but("email", json!("a da@example.com")),
        but("email", json!(format!("{}@example.com", "a".repeat(250)))),
        but("email", json!(null)),
        without("email"),
        but("password", json!("1234567")),
        but("password", json!("x".repeat(129))),
        but("password", json!("😀".repeat(129))),
        but("password", json!(["12345678"])),
        without("password"),
        "{}".into(),
        "[]".into(),
        "null".into(),
        "".into(),
        "{".into(),
        "not JSON".into(),
        format!("{good}x"),
        format!("\u{feff}{good}"),
        good.to_string().replacen('{', r#"{"email":"eve@example.com","#, 1),
        good.to_string().replace("ada\"", r#"\ud800""#),
    ] {
        let answer = auth.call("POST", "/register", Some("application/json"), body.clone()).await;
        answer.is_error_of(&body, 400, "malformed");
    }
    auth.call("POST", "/register", Some("text/plain"), good.to_string()).await.is_error(415, "unsupported_media_type");
    auth.call("POST", "/register", None, good.to_string()).await.is_error(415, "unsupported_media_type");

    // None of these has made an account, and the bounds themselves are within them.
    auth.post("/register", good.clone()).await.is(201);
    let long = json!({"username": "é".repeat(32), "email": "long@example.com", "password": "é".repeat(128)});
    auth.post("/register", long).await.is(201);
    for email in ["ada@example.com", "ADA@example.com"] {
        let taken = auth.post("/register", json!({"username": "other", "email": email, "password": "12345678"})).await;
        taken.is_error(409, "email_in_use");
        assert_eq!(taken.body["error"], "Email already in use");
    }
}

#[tokio::test]
async fn a_login_that_fails_does_not_say_why() {
    let server = Deployment::start().await;
    let (ada, auth) = (server.register("ada").await, Caller::new(server.auth()));
    for body in [
        json!({"email": "ada@example.com", "password": "wrong horse"}),
        json!({"email": "ada@example.com", "password": "Correct horse"}),
        json!({"email": "ada@example.com", "password": ""}),
        json!({"email": "eve@example.com", "password": "correct horse"}),
        json!({"email": "no address", "password": "correct horse"}),
        json!({"email": "ada@example.com"}),
        json!({"email": "ada@example.com", "password": null}),
        json!({"password": "correct horse"}),
        json!({"email": "ada@example.com", "password": "x".repeat(100_000)}),
        json!({}),
    ] {
        let refused = auth.post("/login", body.clone()).await;
        refused.is_error_of(&body.to_string(), 401, "unauthorized");
        assert_eq!(refused.body["error"], "Invalid credentials");
    }
    for body in ["", "{", "[1]", r#"{"email":1}"#, r#"{"email":"a@b.c","email":"a@b.c","password":"correct horse"}"#] {
        auth.call("POST", "/login", Some("application/json"), body).await.is_error_of(body, 400, "malformed");
    }
    ada.auth.get("/me").await.is(200);
}

#[tokio::test]
async fn a_bad_token_is_nobodys() {
    let server = Deployment::start().await;
    let (ada, auth, data) = (server.register("ada").await, Caller::new(server.auth()), Caller::new(server.data()));
    let secret = server.jwt_secret();
    let (good, _) = tokens::good(&ada, &secret);
    assert_eq!(auth.clone().bearer(&good).get("/me").await.is(200)["user_id"], ada.id);
    data.clone().bearer(&good).get("/guilds/me").await.is(200);
    // The scheme is a word without case (RFC 9110, 11.1).
    auth.clone().with("authorization", &format!("bearer {good}")).get("/me").await.is(200);

    for (why, token) in tokens::bad(&ada, &secret) {
        let (auth, data) = (auth.clone().bearer(&token), data.clone().bearer(&token));
        auth.get("/me").await.is_error_of(&why, 401, "unauthorized");
        auth.post("/verify-token", json!({})).await.is_error_of(&why, 401, "unauthorized");
        data.get("/guilds/me").await.is_error_of(&why, 401, "unauthorized");
    }
    for header in ["", "Bearer", "Basic YTpi", &good, &format!("Token {good}")] {
        auth.clone().with("authorization", header).get("/me").await.is_error_of(header, 401, "unauthorized");
    }
    auth.get("/me").await.is_error(401, "unauthorized");
    let twice = auth.bearer(&good).bearer(&good);
    assert!([400, 401].contains(&twice.get("/me").await.status));
}
