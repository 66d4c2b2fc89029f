//! Accounts: registering, logging in, and who somebody is.

use std::{sync::Arc, time::Duration};

use async_trait::async_trait;
use jiscord_core::{
    Code, Fault, UserId,
    backend::{Identity, TokenVerifier},
    fault::Result,
    http::{LoggedIn, RegisterBody, Registered, UserRow},
    model::User,
    text::{Email, Password, TextError, Username},
};
use jiscord_store::{Account, NewUser, Users};
use tokio::time::{Instant, sleep_until};

use crate::{limits::Limits, passwords::Passwords, tokens::Jwt};

/// Accounts on somebody's users: a store's, or data-service's over HTTP.
pub struct Accounts {
    users: Arc<dyn Users>,
    passwords: Passwords,
    tokens: Arc<Jwt>,
    register_time: Duration,
}

impl Accounts {
    /// All parts.
    pub fn new(users: Arc<dyn Users>, passwords: Passwords, tokens: Arc<Jwt>, limits: &Limits) -> Self {
        Self { users, passwords, tokens, register_time: limits.register_time }
    }

    /// Makes an account. [`Code::MALFORMED`] for a name, address or password against the rules, [`Code::EMAIL_IN_USE`] if
    /// somebody has the address. No answer comes sooner than [`Limits::register_time`].
    pub async fn register(&self, body: RegisterBody) -> Result<Registered> {
        self.not_sooner(async {
            // 400 rather than 422 is the protocol's word for these three.
            let malformed = |error: TextError| Fault::new(Code::MALFORMED, error.to_string());
            let username = Username::new(&body.username).map_err(malformed)?;
            let email = Email::new(&body.email).map_err(malformed)?;
            let password = Password::new(&body.password).map_err(malformed)?;
            // Hashed before the address is asked for, so that a taken one costs the same.
            let password_hash = self.passwords.hash(password).await?;
            let user = self.users.create(NewUser { username, email, password_hash }).await?.user;
            Ok(Registered { user_id: user.user_id, username: user.username })
        })
        .await
    }

    /// Does what answers a register, and lets the answer wait until [`Limits::register_time`] is over.
    pub(crate) async fn not_sooner<T>(&self, answer: impl Future<Output = T>) -> T {
        let soonest = Instant::now() + self.register_time;
        let answer = answer.await;
        sleep_until(soonest).await;
        answer
    }

    /// A token for whoever knows the password. [`Code::UNAUTHORIZED`], after the same work and in the same words, whatever
    /// is missing or wrong.
    pub async fn login(&self, email: Option<&str>, password: Option<&str>) -> Result<LoggedIn> {
        let password = password.and_then(|text| Password::new(text).ok());
        let account = match email.and_then(|text| Email::new(text).ok()) {
            Some(email) => self.users.by_email(&email).await?,
            None => None,
        };
        let hash = account.as_ref().and_then(|account| account.password_hash.as_deref());
        let right = self.passwords.verify(password, hash).await?;
        let Some(Account { user, .. }) = account.filter(|_| right) else {
            return Err(Fault::new(Code::UNAUTHORIZED, "Invalid credentials"));
        };
        let token = self.tokens.sign(&Identity::new(user.user_id, user.username.clone()))?;
        Ok(LoggedIn { token, user: seen_by_itself(user) })
    }

    /// The user that a token belongs to, with its address. [`Code::UNAUTHORIZED`] if it is gone.
    pub async fn me(&self, who: &Identity) -> Result<UserRow> {
        let account = self.users.get(who.user_id).await?;
        let account = account.ok_or_else(|| Fault::new(Code::UNAUTHORIZED, "this account is gone"))?;
        Ok(seen_by_itself(account.user))
    }

    /// Whether users can be asked for now.
    pub async fn ready(&self) -> Result<()> {
        self.users.get(UserId::new(uuid::Uuid::nil())).await?;
        Ok(())
    }

    /// The argon2 jobs of all log-ins and registrations.
    pub fn passwords(&self) -> &Passwords {
        &self.passwords
    }
}

#[async_trait]
impl TokenVerifier for Accounts {
    async fn verify_token(&self, token: &str) -> Result<Identity> {
        self.tokens.verify(token)
    }
}

/// As the seed's answers have it: `{user_id, username, email}`.
fn seen_by_itself(user: User) -> UserRow {
    User { created_at: None, ..user }.into()
}
