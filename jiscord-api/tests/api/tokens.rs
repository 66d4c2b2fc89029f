//! JWTs: what is signed, and all that is refused.

use std::sync::{Arc, Mutex};

use crate::site::{SECRET, Stopped};
use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use jiscord_api::tokens::{Jwt, LIFETIME, SecretError, ServiceToken};
use jiscord_core::{
    Code,
    backend::{Identity, Login},
};
use jsonwebtoken::{Algorithm, EncodingKey};
use serde_json::{Value, json};

const NOW: u64 = 1_795_443_456;
const SUB: &str = "0f8fad5b-d9cb-469f-a165-70867728950e";

fn jwt() -> Jwt {
    Jwt::new(SECRET).unwrap().with_clock(Arc::new(Stopped(Mutex::new(NOW * 1_000_000))))
}

fn signed(header: &str, claims: &str, secret: &[u8], algorithm: Algorithm) -> String {
    let said = format!("{}.{}", URL_SAFE_NO_PAD.encode(header), URL_SAFE_NO_PAD.encode(claims));
    let signature = jsonwebtoken::crypto::sign(said.as_bytes(), &EncodingKey::from_secret(secret), algorithm).unwrap();
    format!("{said}.{signature}")
}

fn claims() -> Value {
    json!({ "sub": SUB, "username": "Ada", "iat": NOW, "exp": NOW + 600 })
}

/// With our secret and algorithm, whatever the header says.
fn with_header(header: &str) -> String {
    signed(header, &claims().to_string(), SECRET, Algorithm::HS256)
}

fn with_claims(claims: &str) -> String {
    signed(r#"{"alg":"HS256","typ":"JWT"}"#, claims, SECRET, Algorithm::HS256)
}

#[track_caller]
fn refused(jwt: &Jwt, token: &str) {
    let fault = jwt.verify(token).expect_err(token);
    assert_eq!(fault.code, Code::UNAUTHORIZED);
}

#[test]
fn a_token_says_who_for_seven_days() {
    let clock = Arc::new(Stopped(Mutex::new(NOW * 1_000_000)));
    let jwt = Jwt::new(SECRET).unwrap().with_clock(clock.clone());
    let ada = Identity::new(SUB.parse().unwrap(), "Ada");
    let token = jwt.sign(&ada).unwrap();
    let part =
        |at| -> Value { serde_json::from_slice(&URL_SAFE_NO_PAD.decode(token.split('.').nth(at).unwrap()).unwrap()).unwrap() };
    let (header, claims) = (part(0), part(1));
    assert_eq!(header, json!({ "alg": "HS256", "typ": "JWT", "kid": header["kid"] }));
    let exp = NOW + 7 * 24 * 60 * 60;
    assert_eq!(claims, json!({ "sub": SUB, "username": "Ada", "iat": NOW, "exp": exp, "jti": claims["jti"] }));
    assert!(claims["jti"].is_string());
    assert_ne!(jwt.sign(&ada).unwrap(), token, "every token has an id of its own");
    let login = jwt.verify(&token).unwrap().login.unwrap();
    assert_eq!(json!(login.id), claims["jti"]);
    assert_eq!(login.issued_at, NOW);

    for (seconds, good) in [(0, true), (LIFETIME + 59, true), (LIFETIME + 60, false), (LIFETIME * 2, false)] {
        *clock.0.lock().unwrap() = (NOW + seconds) * 1_000_000;
        assert_eq!(
            jwt.verify(&token).is_ok_and(|who| (who.user_id, &*who.username) == (ada.user_id, "Ada")),
            good,
            "after {seconds} s"
        );
    }
    // Clocks of two servers may differ by a minute.
    for (seconds, good) in [(60, true), (61, false)] {
        *clock.0.lock().unwrap() = (NOW - seconds) * 1_000_000;
        assert_eq!(jwt.verify(&token).is_ok(), good, "before {seconds} s");
    }
}

#[test]
fn a_token_with_nothing_but_its_user_is_good() {
    for header in [r#"{"alg":"HS256","typ":"JWT"}"#, r#"{"alg":"HS256"}"#, r#"{"typ":"JWT","alg":"HS256"}"#] {
        let who = jwt().verify(&with_header(header)).unwrap();
        let own = who.login.unwrap();
        let ada = Identity::new(SUB.parse().unwrap(), "Ada").with_login(Login::new(own.id, NOW));
        assert_eq!(who, ada, "{header}");
        // A login that is always the same, and no other token's.
        assert_eq!(jwt().verify(&with_header(header)).unwrap(), ada);
        let other = claims().to_string().replace("Ada", "Bea");
        assert_ne!(jwt().verify(&signed(header, &other, SECRET, Algorithm::HS256)).unwrap().login.unwrap().id, own.id);
        assert!(!own.id.is_nil());
    }
}

#[test]
fn a_token_of_a_login_says_which_and_since_when() {
    let login = Login::new("6ba7b810-9dad-41d1-80b4-00c04fd430c8".parse().unwrap(), NOW - 99);
    let ada = Identity::new(SUB.parse().unwrap(), "Ada").with_login(login);
    for token in [jwt().sign(&ada).unwrap(), jwt().sign(&ada).unwrap()] {
        assert_eq!(jwt().verify(&token).unwrap(), ada);
    }
}

#[test]
fn a_refresh_token_is_ours_or_none() {
    let (old, new) = ([1; 32], [2; 32]);
    let login = "6ba7b810-9dad-41d1-80b4-00c04fd430c8".parse().unwrap();
    let (before, after) = (Jwt::new(&old).unwrap(), Jwt::new(&new).unwrap());
    let rotated = Jwt::new(&new).unwrap().and_accept(&old).unwrap();
    let token = before.refresh_token(login, 7);
    assert_eq!(before.read_refresh_token(&token), Some((login, 7)));
    assert_eq!(rotated.read_refresh_token(&token), Some((login, 7)), "of the earlier secret");
    assert_eq!(after.read_refresh_token(&token), None);
    assert_eq!(after.read_refresh_token(&rotated.refresh_token(login, 7)), Some((login, 7)), "the new secret signs");

    let (text, tag) = token.rsplit_once('.').unwrap();
    let (name, _) = text.split_once('.').unwrap();
    for forged in [
        format!("{name}.8.{tag}"),
        format!("{name}.07.{tag}"),
        format!("{}.7.{tag}", "0".repeat(32)),
        format!("{text}."),
        format!("{text}.{}", &tag[1..]),
        format!("{token}A"),
        format!("{token}="),
        format!(" {token}"),
        text.to_owned(),
        "..".into(),
        String::new(),
        "é.é.é".into(),
        format!("{text}.{}", "A".repeat(1 << 20)),
        // Neither kind of token is one of the other.
        before.sign(&Identity::new(SUB.parse().unwrap(), "Ada")).unwrap(),
    ] {
        assert_eq!(before.read_refresh_token(&forged), None, "{forged}");
    }
    refused(&before, &token);
    let shown = format!("{before:?}{rotated:?}");
    assert!(!shown.contains(&token) && !shown.contains(tag));
}

#[test]
fn nothing_in_a_header_changes_how_it_is_verified() {
    let jwt = jwt();
    for header in [
        r#"{"alg":"none","typ":"JWT"}"#,
        r#"{"alg":"None"}"#,
        r#"{"alg":"NONE"}"#,
        r#"{"alg":"hs256"}"#,
        r#"{"alg":"Hs256"}"#,
        r#"{"alg":"HS384"}"#,
        r#"{"alg":"HS512"}"#,
        r#"{"alg":"RS256"}"#,
        r#"{"alg":"EdDSA"}"#,
        r#"{"alg":"HS256","alg":"none"}"#,
        r#"{"alg":"none","alg":"HS256"}"#,
        r#"{"alg":"HS256","alg":"HS256"}"#,
        r#"{"alg":["HS256"]}"#,
        r#"{"alg":null}"#,
        r#"{"typ":"JWT"}"#,
        r#"{}"#,
        r#"[]"#,
        r#"null"#,
        r#""#,
        r#"{"alg":"HS256","typ":"JWE"}"#,
        r#"{"alg":"HS256","typ":"at+jwt"}"#,
        r#"{"alg":"HS256","cty":"JWT"}"#,
        r#"{"alg":"HS256","crit":["exp"]}"#,
        r#"{"alg":"HS256","crit":[]}"#,
        r#"{"alg":"HS256","b64":false}"#,
        r#"{"alg":"HS256","jku":"https://evil.example/keys"}"#,
        r#"{"alg":"HS256","x5u":"https://evil.example/keys"}"#,
        r#"{"alg":"HS256","x5c":["AAAA"]}"#,
        r#"{"alg":"HS256","jwk":{"kty":"oct","k":"AAAA"}}"#,
        r#"{"alg":"HS256","zip":"DEF"}"#,
        r#"{"alg":"HS256","enc":"A128GCM"}"#,
        r#"{"alg":"HS256","extra":1}"#,
        r#"{"alg":"HS256","kid":""}"#,
        r#"{"alg":"HS256","kid":"../../etc/passwd"}"#,
        r#"{"alg":"HS256","kid":"' OR 1=1 --"}"#,
        r#"{"alg":"HS256","kid":7}"#,
        &format!(r#"{{"alg":"HS256","kid":"{}"}}"#, "k".repeat(10_000)),
    ] {
        refused(&jwt, &with_header(header));
    }
    // Nor does signing with what the header names.
    for algorithm in [Algorithm::HS384, Algorithm::HS512] {
        refused(&jwt, &signed(&format!(r#"{{"alg":"{algorithm:?}"}}"#), &claims().to_string(), SECRET, algorithm));
        refused(&jwt, &signed(r#"{"alg":"HS256"}"#, &claims().to_string(), SECRET, algorithm));
    }
}

#[test]
fn a_signature_is_ours_or_none() {
    let jwt = jwt();
    let good = with_claims(&claims().to_string());
    jwt.verify(&good).unwrap();
    let (said, signature) = good.rsplit_once('.').unwrap();
    let (header, body) = said.split_once('.').unwrap();
    let other = URL_SAFE_NO_PAD.encode(claims().to_string().replace("Ada", "Eve"));
    for token in [
        format!("{said}."),
        said.to_owned(),
        format!("{said}.{}", &signature[1..]),
        format!("{said}.{signature}A"),
        format!("{said}.{signature}="),
        format!("{said}.{signature}.{signature}"),
        format!("{header}.{other}.{signature}"),
        format!("{header}..{signature}"),
        format!(".{body}.{signature}"),
        format!(" {good}"),
        format!("{good}\n"),
        "..".into(),
        String::new(),
        "é.é.é".into(),
        "a".repeat(1 << 20),
        format!("{good}{}", "A".repeat(5000)),
    ] {
        refused(&jwt, &token);
    }
    refused(&jwt, &signed(r#"{"alg":"HS256"}"#, &claims().to_string(), &[7; 32], Algorithm::HS256));
    refused(&jwt, &signed(r#"{"alg":"HS256"}"#, &claims().to_string(), b"", Algorithm::HS256));
    // No signature at all, in the forms that libraries took once.
    for header in [r#"{"alg":"none"}"#, r#"{"alg":"nOnE"}"#, r#"{"alg":""}"#] {
        let said = format!("{}.{body}", URL_SAFE_NO_PAD.encode(header));
        refused(&jwt, &format!("{said}."));
        refused(&jwt, &said);
    }
}

#[test]
fn claims_are_typed_and_in_time() {
    let jwt = jwt();
    for (claim, values) in [
        ("exp", vec!["null", "\"1795444056\"", "-1", "0", "1e400", "1795444056.5", "true", "[]", "18446744073709551615"]),
        ("iat", vec!["null", "\"1795443456\"", "-1", "1e400", "{}"]),
        ("nbf", vec!["\"1795443456\"", "-1", "1e400"]),
        ("sub", vec!["null", "7", "\"\"", "\"ada\"", "\"0f8fad5bd9cb469fa16570867728950e\"", "[]"]),
        ("username", vec!["null", "7"]),
        ("aud", vec!["\"somebody-else\""]),
        ("jti", vec!["7"]),
        ("sid", vec!["7"]),
        ("auth_time", vec!["\"1795443456\"", "-1", "1e400"]),
    ] {
        for value in values {
            let mut claims = claims();
            claims[claim] = json!("HERE");
            refused(&jwt, &with_claims(&claims.to_string().replace("\"HERE\"", value)));
        }
    }
    for claim in ["exp", "iat", "sub", "username"] {
        let mut claims = claims();
        claims.as_object_mut().unwrap().remove(claim);
        refused(&jwt, &with_claims(&claims.to_string()));
    }
    for (claim, at, good) in [
        ("exp", NOW - 59, true),
        ("exp", NOW - 60, false),
        ("exp", NOW + LIFETIME + 60, true),
        ("exp", NOW + LIFETIME + 61, false),
        ("exp", (NOW + 600) * 1000, false),
        ("iat", NOW + 60, true),
        ("iat", NOW + 61, false),
        ("nbf", NOW + 60, true),
        ("nbf", NOW + 61, false),
    ] {
        let mut claims = claims();
        claims[claim] = json!(at);
        assert_eq!(jwt.verify(&with_claims(&claims.to_string())).is_ok(), good, "{claims}");
    }
    for text in ["", "null", "[]", "{", "\u{feff}{}"] {
        refused(&jwt, &with_claims(text));
    }
    let twice = format!(r#"{{"sub":"{SUB}",{}"#, &claims().to_string()[1..]);
    refused(&jwt, &with_claims(&twice));
}

#[test]
fn an_old_secret_verifies_but_never_signs() {
    let (old, new) = ([1; 32], [2; 32]);
    let ada = Identity::new(SUB.parse().unwrap(), "Ada");
    let before = Jwt::new(&old).unwrap();
    let rotated = Jwt::new(&new).unwrap().and_accept(&old).unwrap();
    let after = Jwt::new(&new).unwrap();
    let (early, late) = (before.sign(&ada).unwrap(), rotated.sign(&ada).unwrap());
    assert!(rotated.verify(&early).is_ok() && rotated.verify(&late).is_ok());
    assert!(after.verify(&late).is_ok());
    refused(&after, &early);
    refused(&before, &late);
}

#[test]
fn a_secret_is_long_and_never_shown() {
    for length in [0, 1, 31] {
        assert!(matches!(Jwt::new(&vec![7; length]), Err(SecretError::Short)));
        assert!(matches!(Jwt::new(&[7; 32]).unwrap().and_accept(&vec![7; length]), Err(SecretError::Short)));
        assert!(matches!(ServiceToken::new(&vec![7; length]), Err(SecretError::Short)));
    }
    assert!(SecretError::Short.to_string().contains("32 bytes"));
    let secret = "the secret of this very test, you see";
    let shown = format!("{:?} {:?}", Jwt::new(secret.as_bytes()).unwrap(), ServiceToken::new(secret.as_bytes()).unwrap());
    assert!(!shown.contains("secret of"), "{shown}");
    let token = ServiceToken::new(secret.as_bytes()).unwrap();
    assert!(token.is(secret.as_bytes()));
    assert!(!token.is(b"") && !token.is(&secret.as_bytes()[1..]) && !token.is(format!("{secret} ").as_bytes()));
}
