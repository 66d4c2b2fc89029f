//! Tokens as somebody makes them who knows the secret, or does not. Not made by the server's own library.

use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use hmac::{Hmac, Mac};
use serde_json::{Value, json};
use sha2::{Sha256, Sha384, Sha512};

use jiscord_e2e::Person;

pub(crate) fn encode(bytes: impl AsRef<[u8]>) -> String {
    URL_SAFE_NO_PAD.encode(bytes)
}

/// What a token says, its signature not looked at.
pub(crate) fn claims(token: &str) -> Value {
    serde_json::from_slice(&URL_SAFE_NO_PAD.decode(token.split('.').nth(1).unwrap()).unwrap()).unwrap()
}

/// A token signed with HS256, whatever its header says.
pub(crate) fn token(header: &str, claims: &str, secret: &str) -> String {
    signed(header, claims, |said| {
        let mut mac = Hmac::<Sha256>::new_from_slice(secret.as_bytes()).unwrap();
        mac.update(said);
        mac.finalize().into_bytes().to_vec()
    })
}

fn signed(header: &str, claims: &str, sign: impl Fn(&[u8]) -> Vec<u8>) -> String {
    let said = format!("{}.{}", encode(header), encode(claims));
    let signature = encode(sign(said.as_bytes()));
    format!("{said}.{signature}")
}

pub(crate) const HS256: &str = r#"{"alg":"HS256","typ":"JWT"}"#;

/// A good token of this user's, made here, and its claims.
pub(crate) fn good(person: &Person, secret: &str) -> (String, Value) {
    let mut claims = claims(&person.token);
    claims["jti"] = json!("another");
    (token(HS256, &claims.to_string(), secret), claims)
}

/// Tokens that are no good, each with the reason.
pub(crate) fn bad(person: &Person, secret: &str) -> Vec<(String, String)> {
    let (good, claims) = good(person, secret);
    let said = claims.to_string();
    let (iat, exp) = (claims["iat"].as_i64().unwrap(), claims["exp"].as_i64().unwrap());
    let but = |name: &str, value: Value| {
        let mut claims = claims.clone();
        claims[name] = value;
        token(HS256, &claims.to_string(), secret)
    };
    let without = |name: &str| {
        let mut claims = claims.clone();
        claims.as_object_mut().unwrap().remove(name);
        token(HS256, &claims.to_string(), secret)
    };
    // `1e400` and the like are no numbers that a `Value` holds.
    let text = |from: &str, to: &str| token(HS256, &said.replace(from, to), secret);
    let unsigned = |alg: &str| format!("{}.{}.", encode(format!(r#"{{"alg":"{alg}","typ":"JWT"}}"#)), encode(&said));
    let header = |header: &str| token(header, &said, secret);
    let hs384 = signed(r#"{"alg":"HS384","typ":"JWT"}"#, &said, |said| {
        let mut mac = Hmac::<Sha384>::new_from_slice(secret.as_bytes()).unwrap();
        mac.update(said);
        mac.finalize().into_bytes().to_vec()
    });
    let hs512 = signed(r#"{"alg":"HS512","typ":"JWT"}"#, &said, |said| {
        let mut mac = Hmac::<Sha512>::new_from_slice(secret.as_bytes()).unwrap();
        mac.update(said);
        mac.finalize().into_bytes().to_vec()
    });
    let (head, signature) = good.rsplit_once('.').unwrap();
    let (first, last) = signature.split_at(1);
    let other = if first == "A" { "B" } else { "A" };
    let exp_text = format!("\"exp\":{exp}");
    [
        ("nothing", String::new()),
        ("no token", "abc".into()),
        ("two dots", "..".into()),
        ("two parts", head.to_owned()),
        ("no signature", format!("{head}.")),
        ("another signature", format!("{head}.{other}{last}")),
        ("four parts", format!("{good}.{signature}")),
        ("another secret", token(HS256, &said, "0123456789abcdef0123456789abcdef")),
        ("an empty secret", token(HS256, &said, "")),
        (
            "other claims under a good signature",
            format!("{}.{}.{signature}", encode(HS256), encode(said.replace("another", "an"))),
        ),
        ("alg none", unsigned("none")),
        ("alg None", unsigned("None")),
        ("alg nOnE", unsigned("nOnE")),
        ("alg none, signed", header(r#"{"alg":"none","typ":"JWT"}"#)),
        ("alg HS384", hs384),
        ("alg HS512", hs512),
        ("alg RS256", header(r#"{"alg":"RS256","typ":"JWT"}"#)),
        ("alg hs256", header(r#"{"alg":"hs256","typ":"JWT"}"#)),
        ("no alg", header(r#"{"typ":"JWT"}"#)),
        ("alg twice", header(r#"{"alg":"HS256","alg":"HS256","typ":"JWT"}"#)),
        ("crit", header(r#"{"alg":"HS256","crit":["exp"]}"#)),
        ("jwk", header(r#"{"alg":"HS256","jwk":{"kty":"oct","k":"AAAA"}}"#)),
        ("jku", header(r#"{"alg":"HS256","jku":"http://127.0.0.1:9/keys"}"#)),
        ("x5u", header(r#"{"alg":"HS256","x5u":"http://127.0.0.1:9/cert"}"#)),
        ("another typ", header(r#"{"alg":"HS256","typ":"at+jwt"}"#)),
        ("an unknown kid", header(r#"{"alg":"HS256","kid":"0000000000000000"}"#)),
        ("a kid that is a path", header(r#"{"alg":"HS256","kid":"../jwt.secret"}"#)),
        ("a kid of quotes", header(r#"{"alg":"HS256","kid":"' or ''='"}"#)),
        ("a kid of 10 kB", header(&format!(r#"{{"alg":"HS256","kid":"{}"}}"#, "k".repeat(10_000)))),
        ("exp ten minutes ago", but("exp", json!(iat - 600))),
        ("exp 0", but("exp", json!(0))),
        ("exp below 0", but("exp", json!(-1))),
        ("exp a string", but("exp", json!(exp.to_string()))),
        ("exp in milliseconds", but("exp", json!(exp * 1000))),
        ("exp 1e400", text(&exp_text, "\"exp\":1e400")),
        ("exp missing", without("exp")),
        ("iat in an hour", but("iat", json!(iat + 3600))),
        ("nbf in an hour", but("nbf", json!(iat + 3600))),
        ("nbf a string", but("nbf", json!("0"))),
        ("sub missing", without("sub")),
        ("sub no id", but("sub", json!("ada"))),
        ("sub a number", but("sub", json!(1))),
        ("claims no object", token(HS256, "[]", secret)),
    ]
    .map(|(why, token)| (why.to_owned(), token))
    .to_vec()
}
