//! Accounts: registering, logging in, and who somebody is.

use std::{collections::HashSet, sync::Arc, time::Duration};

use async_trait::async_trait;
use jiscord_core::{
    Code, Fault, UserId,
    backend::{Identity, Login, Revoked, TokenVerifier},
    fault::Result,
    http::{LoggedIn, RegisterBody, Registered, UserRow},
    model::User,
    text::{Email, Password, TextError, Username},
};
use jiscord_store::{Account, NewLogin, NewUser, Refreshed, Users};
use tokio::time::{Instant, sleep_until};
use uuid::Uuid;

use crate::{limits::Limits, passwords::Passwords, tokens::Jwt};

/// Where logins are kept: [`Chat`](crate::Chat) in the same process, or data-service in another.
#[async_trait]
pub trait Logins: Send + Sync {
    /// Begins a login that can be refreshed.
    async fn begin_login(&self, new: NewLogin) -> Result<()>;

    /// Goes on with a login of which this generation is shown.
    async fn refresh_login(&self, login: Uuid, generation: u64) -> Result<Refreshed>;

    /// Ends a login, or all of a user. When it returns, everybody was told.
    async fn revoke_login(&self, user: UserId, what: Revoked) -> Result<()>;

    /// Whether a token's login has ended.
    async fn is_login_revoked(&self, user: UserId, login: Login) -> Result<bool>;
}

/// Accounts on somebody's users: a store's, or data-service's over HTTP.
pub struct Accounts {
    users: Arc<dyn Users>,
    logins: Option<Arc<dyn Logins>>,
    passwords: Passwords,
    tokens: Arc<Jwt>,
    register_time: Duration,
}

impl Accounts {
    /// All parts.
    pub fn new(users: Arc<dyn Users>, passwords: Passwords, tokens: Arc<Jwt>, limits: &Limits) -> Self {
        Self { users, logins: None, passwords, tokens, register_time: limits.register_time }
    }

    /// With logins that can be refreshed and revoked. Without, a login lasts as long as its token.
    #[must_use]
    pub fn with_logins(mut self, logins: Arc<dyn Logins>) -> Self {
        self.logins = Some(logins);
        self
    }

    fn logins(&self) -> Result<&dyn Logins> {
        let unsupported = || Fault::new(Code::UNSUPPORTED, "logins cannot be refreshed or revoked here");
        self.logins.as_deref().ok_or_else(unsupported)
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
        let user = self.authenticate(email, password).await?;
        self.logged_in(user, None)
    }

    /// The same, and a refresh token, by which the login goes on when the token is lost: [`Accounts::refresh`].
    pub async fn login_remembered(&self, email: Option<&str>, password: Option<&str>) -> Result<(LoggedIn, String)> {
        let user = self.authenticate(email, password).await?;
        let (login_id, user_id, begun) = (Uuid::new_v4(), user.user_id, self.tokens.seconds());
        self.logins()?.begin_login(NewLogin { login_id, user_id, begun }).await?;
        Ok((self.logged_in(user, Some(Login::new(login_id, begun)))?, self.tokens.refresh_token(login_id, 0)))
    }

    /// A new token and a new refresh token for whoever shows one. [`Code::UNAUTHORIZED`] if it is none of ours, or its login has
    /// ended; one that was used up is a copy, and ends its login.
    pub async fn refresh(&self, token: &str) -> Result<(LoggedIn, String)> {
        let bad = || Fault::new(Code::UNAUTHORIZED, "this login has ended");
        let (login, shown) = self.tokens.read_refresh_token(token).ok_or_else(bad)?;
        match self.logins()?.refresh_login(login, shown).await? {
            Refreshed::Current { user_id, begun, generation } => {
                let account = self.users.get(user_id).await?.ok_or_else(bad)?;
                let said = self.logged_in(account.user, Some(Login::new(login, begun)))?;
                Ok((said, self.tokens.refresh_token(login, generation)))
            }
            Refreshed::Replayed { user_id } => {
                tracing::warn!(user = %user_id, "a refresh token was used twice; its login ends");
                self.logins()?.revoke_login(user_id, Revoked::Login(login)).await?;
                Err(bad())
            }
            Refreshed::Gone => Err(bad()),
        }
    }

    /// Ends the logins of a token and of refresh tokens, or all logins of their users until now. What has ended already, or was
    /// none of ours, is no error.
    pub async fn logout(&self, who: Option<&Identity>, refresh: &[&str], everywhere: bool) -> Result<()> {
        let mut ends = HashSet::new();
        if let Some((user, login)) = who.and_then(|who| Some((who.user_id, who.login?))) {
            ends.insert((user, Revoked::Login(login.id)));
        }
        for (login, shown) in refresh.iter().filter_map(|token| self.tokens.read_refresh_token(token)) {
            // Whose it is only the login knows.
            let user = match self.logins()?.refresh_login(login, shown).await? {
                Refreshed::Current { user_id, .. } | Refreshed::Replayed { user_id } => Some(user_id),
                Refreshed::Gone => None,
            };
            ends.extend(user.map(|user| (user, Revoked::Login(login))));
        }
        if everywhere {
            let until = Revoked::IssuedBy(self.tokens.seconds());
            ends = ends.into_iter().map(|(user, _)| (user, until)).collect();
        }
        for (user, what) in ends {
            self.logins()?.revoke_login(user, what).await?;
        }
        Ok(())
    }

    fn logged_in(&self, user: User, login: Option<Login>) -> Result<LoggedIn> {
        let who = Identity::new(user.user_id, user.username.clone());
        let who = match login {
            Some(login) => who.with_login(login),
            None => who,
        };
        Ok(LoggedIn { token: self.tokens.sign(&who)?, user: seen_by_itself(user) })
    }

    async fn authenticate(&self, email: Option<&str>, password: Option<&str>) -> Result<User> {
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
        Ok(user)
    }

    /// The user that a token belongs to, with its address. [`Code::UNAUTHORIZED`] if it is gone.
    pub async fn me(&self, who: &Identity) -> Result<UserRow> {
        let account = self.users.get(who.user_id).await?;
        let account = account.ok_or_else(|| Fault::new(Code::UNAUTHORIZED, "this account is gone"))?;
        Ok(seen_by_itself(account.user))
    }

    /// Whether users can be asked for now.
    pub async fn ready(&self) -> Result<()> {
        self.users.get(UserId::new(Uuid::nil())).await?;
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
        let who = self.tokens.verify(token)?;
        if let (Some(logins), Some(login)) = (&self.logins, who.login)
            && logins.is_login_revoked(who.user_id, login).await?
        {
            return Err(revoked());
        }
        Ok(who)
    }
}

/// What a token is answered whose login has ended.
pub(crate) fn revoked() -> Fault {
    Fault::new(Code::UNAUTHORIZED, "this login has ended")
}

/// As auth-service's answers have it: `{user_id, username, email}`.
fn seen_by_itself(user: User) -> UserRow {
    User { created_at: None, ..user }.into()
}
