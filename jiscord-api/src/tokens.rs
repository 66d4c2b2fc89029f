//! Tokens: users' JWTs and the services' common secret.
//!
//! JWTs are HS256 and nothing else, with a secret of at least [`MIN_SECRET`] bytes. jsonwebtoken leaves the cryptography to
//! a backend that the program picks, by one of its features (`aws_lc_rs`, or `rust_crypto`) or by `install_default`;
//! [`Jwt::new`] says so when there is none.

use std::{
    fmt,
    panic::{AssertUnwindSafe, catch_unwind},
    sync::Arc,
};

use async_trait::async_trait;
use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use hmac::{Hmac, Mac};
use jiscord_core::{
    Code, Fault, UserId,
    backend::{Identity, Login, TokenVerifier},
    fault::Result,
    time::{Clock, SystemClock},
};
use jsonwebtoken::{Algorithm, DecodingKey, EncodingKey, Header, Validation};
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use subtle::ConstantTimeEq;
use uuid::{Builder, Uuid};

/// Bytes that a secret has at least.
pub const MIN_SECRET: usize = 32;
/// Seconds that a JWT is good for: seven days.
pub const LIFETIME: u64 = 7 * 24 * 60 * 60;
/// Seconds that clocks may differ.
const LEEWAY: u64 = 60;
/// Ours have about 400 bytes.
pub(crate) const LONGEST: usize = 4096;
/// Ours have about 80.
const LONGEST_REFRESH: usize = 128;

/// Why tokens cannot be made. Mend the configuration or the build.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum SecretError {
    /// Anybody could guess it.
    #[error("the secret is too short: {MIN_SECRET} bytes or more are wanted, such as `openssl rand -hex 32` prints")]
    Short,
    /// The program brings no cryptography for JWTs.
    #[error(
        "no crypto backend for JWTs: enable exactly one of jsonwebtoken's features `aws_lc_rs` and `rust_crypto`, or call its CryptoProvider::install_default first"
    )]
    NoBackend,
}

/// What a JWT says: `{sub, username, iat, exp}`, and what to revoke it by.
#[derive(Clone, Debug, Serialize, Deserialize)]
struct Claims {
    sub: String,
    username: String,
    iat: u64,
    exp: u64,
    #[serde(default, skip_serializing)]
    nbf: Option<u64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    jti: Option<String>,
    /// The login that the token was made for, where that can be refreshed; else the token is a login of its own.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    sid: Option<String>,
    /// When that login began, so that a token that is made while all logins are ended is no way round it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    auth_time: Option<u64>,
}

/// Signs users' JWTs and verifies them.
pub struct Jwt {
    /// The first one signs.
    keys: Vec<Key>,
    validation: Validation,
    clock: Arc<dyn Clock>,
}

struct Key {
    id: String,
    /// Of refresh tokens, so that neither kind of token is one of the other.
    refresh: [u8; 32],
    sign: EncodingKey,
    verify: DecodingKey,
}

impl Jwt {
    /// With the secret that signs.
    pub fn new(secret: &[u8]) -> Result<Self, SecretError> {
        let mut validation = Validation::new(Algorithm::HS256);
        // Times are checked by our own clock, and more strictly.
        validation.validate_exp = false;
        let jwt = Self { keys: vec![Key::new(secret)?], validation, clock: Arc::new(SystemClock) };
        // Without a backend jsonwebtoken panics at its first use: better now than in a request.
        let probe = catch_unwind(AssertUnwindSafe(|| jwt.sign(&Identity::new(UserId::new(Uuid::nil()), ""))));
        probe.is_ok_and(|token| token.is_ok()).then_some(jwt).ok_or(SecretError::NoBackend)
    }

    /// Accepts tokens of an earlier secret as well, until they expire. It never signs.
    pub fn and_accept(mut self, secret: &[u8]) -> Result<Self, SecretError> {
        self.keys.push(Key::new(secret)?);
        Ok(self)
    }

    /// With another clock.
    #[must_use]
    pub fn with_clock(mut self, clock: Arc<dyn Clock>) -> Self {
        self.clock = clock;
        self
    }

    /// A token for this user, good for seven days.
    pub fn sign(&self, who: &Identity) -> Result<String> {
        let key = &self.keys[0];
        let header = Header { kid: Some(key.id.clone()), ..Header::new(Algorithm::HS256) };
        let now = self.now();
        let claims = Claims {
            sub: who.user_id.to_string(),
            username: who.username.clone(),
            iat: now,
            exp: now + LIFETIME,
            nbf: None,
            jti: Some(Uuid::new_v4().to_string()),
            sid: who.login.map(|login| login.id.to_string()),
            auth_time: who.login.map(|login| login.issued_at),
        };
        jsonwebtoken::encode(&header, &claims, &key.sign)
            .map_err(|error| Fault::new(Code::INTERNAL, "internal error").because(error))
    }

    /// Whose token it is; [`Code::UNAUTHORIZED`] for one that is none of ours, or expired.
    pub fn verify(&self, token: &str) -> Result<Identity> {
        self.check(token).ok_or_else(|| Fault::new(Code::UNAUTHORIZED, "Invalid or expired token"))
    }

    fn check(&self, token: &str) -> Option<Identity> {
        if token.len() > LONGEST {
            return None;
        }
        let header = jsonwebtoken::decode_header(token).ok()?;
        // Nothing but these three fields: no key and no extension may come with the token (RFC 8725, 3.10).
        let plain = Header { typ: header.typ.clone(), kid: header.kid.clone(), ..Header::new(Algorithm::HS256) };
        if header != plain || header.typ.is_some_and(|typ| typ != "JWT") {
            return None;
        }
        let key = match header.kid {
            Some(id) => self.keys.iter().find(|key| key.id == id)?,
            None => self.keys.first()?,
        };
        let claims = jsonwebtoken::decode::<Claims>(token, &key.verify, &self.validation).ok()?.claims;
        let now = self.now();
        let begun = claims.iat.max(claims.nbf.unwrap_or(0)) <= now + LEEWAY;
        let ended = claims.exp.saturating_add(LEEWAY) <= now;
        // Ours end after seven days: a later end is no time in seconds.
        let endless = claims.exp > now + LIFETIME + LEEWAY;
        if !begun || ended || endless {
            return None;
        }
        let login = claims.sid.or(claims.jti).and_then(|id| id.parse().ok()).unwrap_or_else(|| own_login(token));
        let who = Identity::new(claims.sub.parse().ok()?, claims.username);
        Some(who.with_login(Login::new(login, claims.auth_time.unwrap_or(claims.iat))))
    }

    /// What shows that somebody may go on with a login: `<login>.<generation>.<HMAC-SHA256>`. Nothing of it has to be kept, and
    /// whoever reads the database cannot make one.
    pub fn refresh_token(&self, login: Uuid, generation: u64) -> String {
        let text = format!("{}.{generation}", login.simple());
        let tag = self.keys[0].tag(&text).finalize().into_bytes();
        format!("{text}.{}", URL_SAFE_NO_PAD.encode(tag))
    }

    /// The login and the generation of a refresh token of ours.
    pub fn read_refresh_token(&self, token: &str) -> Option<(Uuid, u64)> {
        if token.len() > LONGEST_REFRESH {
            return None;
        }
        let (text, tag) = token.rsplit_once('.')?;
        let tag = URL_SAFE_NO_PAD.decode(tag).ok()?;
        // In constant time.
        if !self.keys.iter().any(|key| key.tag(text).verify_slice(&tag).is_ok()) {
            return None;
        }
        let (login, generation) = text.split_once('.')?;
        Some((login.parse().ok()?, generation.parse().ok()?))
    }

    pub(crate) fn seconds(&self) -> u64 {
        self.now()
    }

    fn now(&self) -> u64 {
        self.clock.now_micros() / 1_000_000
    }
}

/// A login for a token that names none, as others make them: its own, so that a log-out ends it and no other one.
fn own_login(token: &str) -> Uuid {
    // Without the signature, which several spellings could have.
    let said = token.rsplit_once('.').map_or(token, |(said, _)| said);
    let name = Sha256::new().chain_update(b"jiscord login\0").chain_update(said).finalize();
    let mut bytes = [0; 16];
    bytes.copy_from_slice(&name[..16]);
    Builder::from_custom_bytes(bytes).into_uuid()
}

#[async_trait]
impl TokenVerifier for Jwt {
    async fn verify_token(&self, token: &str) -> Result<Identity> {
        self.verify(token)
    }
}

impl fmt::Debug for Jwt {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.keys.iter().map(|key| &key.id)).finish()
    }
}

impl Key {
    fn new(secret: &[u8]) -> Result<Self, SecretError> {
        if secret.len() < MIN_SECRET {
            return Err(SecretError::Short);
        }
        // The same name for the same secret in every process, so that nobody has to configure names.
        let name = Sha256::new().chain_update(b"jiscord kid\0").chain_update(secret).finalize();
        let id = name[..8].iter().map(|byte| format!("{byte:02x}")).collect();
        let refresh = Sha256::new().chain_update(b"jiscord refresh\0").chain_update(secret).finalize().into();
        Ok(Self { id, refresh, sign: EncodingKey::from_secret(secret), verify: DecodingKey::from_secret(secret) })
    }
}

impl Key {
    fn tag(&self, text: &str) -> Hmac<Sha256> {
        // HMAC takes keys of any length.
        let mac = <Hmac<Sha256> as Mac>::new_from_slice(&self.refresh).expect("any length will do");
        mac.chain_update(text)
    }
}

/// The secret by which services know each other. Only its hash is kept.
#[derive(Clone)]
pub struct ServiceToken([u8; 32]);

impl ServiceToken {
    /// From the configured secret of at least [`MIN_SECRET`] bytes.
    pub fn new(secret: &[u8]) -> Result<Self, SecretError> {
        if secret.len() < MIN_SECRET {
            return Err(SecretError::Short);
        }
        Ok(Self(Sha256::digest(secret).into()))
    }

    /// Whether this is it, in constant time.
    pub fn is(&self, token: &[u8]) -> bool {
        self.0.ct_eq(&Sha256::digest(token)).into()
    }
}

impl fmt::Debug for ServiceToken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("ServiceToken(…)")
    }
}
