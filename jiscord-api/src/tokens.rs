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
use jiscord_core::{
    Code, Fault, UserId,
    backend::{Identity, TokenVerifier},
    fault::Result,
    time::{Clock, SystemClock},
};
use jsonwebtoken::{Algorithm, DecodingKey, EncodingKey, Header, Validation};
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use subtle::ConstantTimeEq;
use uuid::Uuid;

/// Bytes that a secret has at least.
pub const MIN_SECRET: usize = 32;
/// Seconds that a JWT is good for: seven days.
pub const LIFETIME: u64 = 7 * 24 * 60 * 60;
/// Seconds that clocks may differ.
const LEEWAY: u64 = 60;
/// Ours have about 400 bytes.
pub(crate) const LONGEST: usize = 4096;

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

/// What a JWT says. The seed's `{sub, username, iat, exp}`, and an id to revoke it by.
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
        Some(Identity::new(claims.sub.parse().ok()?, claims.username))
    }

    fn now(&self) -> u64 {
        self.clock.now_micros() / 1_000_000
    }
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
        Ok(Self { id, sign: EncodingKey::from_secret(secret), verify: DecodingKey::from_secret(secret) })
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
