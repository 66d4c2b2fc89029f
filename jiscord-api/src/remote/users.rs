//! auth-service's users in another process.

use std::time::Duration;

use async_trait::async_trait;
use jiscord_core::{
    Code, Fault, UserId,
    backend::{Login, Revoked},
    fault::Result,
    http::{AccountRow, BeginLoginBody, CreateUserBody, RefreshLoginBody, RefreshedRow, RevokedRow, UserRow},
    text::Email,
};
use jiscord_store::{Account, Error, NewLogin, NewUser, Refreshed, Users};
use reqwest::{Method, RequestBuilder};
use serde::{
    Serialize,
    de::{DeserializeOwned, IgnoredAny},
};
use uuid::Uuid;

use super::call::{Kind, Service, SetupError};
use crate::accounts::Logins;

/// data-service's users, for [`Accounts`](crate::Accounts) in another process. Cheap to clone: connections are shared.
#[derive(Clone, Debug)]
pub struct RemoteUsers {
    data: Service,
}

impl RemoteUsers {
    /// With data-service's address, such as `http://localhost:3001`, and the token by which it knows other services. Nothing is
    /// connected yet.
    pub fn new(data_service: &str, service_token: &[u8]) -> Result<Self, SetupError> {
        Ok(Self { data: Service::new("data-service", data_service)?.with_token(service_token)? })
    }

    /// How long each call may take, all its tries together; [`TIME`](super::TIME) unless set.
    #[must_use]
    pub fn with_time(self, time: Duration) -> Self {
        Self { data: self.data.with_time(time) }
    }

    /// Whether data-service is there and ready, and knows this service; for readiness.
    pub async fn ready(&self) -> Result<()> {
        self.data.ready(&["internal", "health"]).await
    }

    async fn call<T: DeserializeOwned>(&self, kind: Kind, request: impl Fn() -> RequestBuilder) -> Result<T> {
        self.data.call(kind, request, |status, said| self.data.refusal(None, status, said)).await
    }

    async fn find(&self, path: &[&str]) -> Result<Option<Account>, Error> {
        match self.call::<AccountRow>(Kind::Read, || self.data.request(Method::GET, path, None)).await {
            Ok(AccountRow { user, password_hash }) => Ok(Some(Account { user: user.into(), password_hash })),
            Err(fault) if fault.code == Code::NOT_FOUND => Ok(None),
            Err(fault) => Err(as_error(fault)),
        }
    }
}

#[async_trait]
impl Users for RemoteUsers {
    async fn create(&self, new: NewUser) -> Result<Account, Error> {
        let NewUser { username, email, password_hash } = new;
        let (username, email) = (username.into_string(), email.into_string());
        let body = CreateUserBody { username, email, password_hash };
        // A second try would find the address taken by the first.
        let user: UserRow =
            self.call(Kind::Once, || self.data.request(Method::POST, &["users"], None).json(&body)).await.map_err(as_error)?;
        Ok(Account { user: user.into(), password_hash: Some(body.password_hash) })
    }

    /// One after the other: who logs in is one at a time.
    async fn get_many(&self, ids: &[UserId]) -> Result<Vec<Account>, Error> {
        let mut accounts = Vec::new();
        for (n, id) in ids.iter().enumerate() {
            if !ids[..n].contains(id) {
                accounts.extend(self.find(&["users", &id.to_string()]).await?);
            }
        }
        Ok(accounts)
    }

    async fn by_email(&self, email: &Email) -> Result<Option<Account>, Error> {
        self.find(&["users", "email", email.as_str()]).await
    }
}

#[async_trait]
impl Logins for RemoteUsers {
    async fn begin_login(&self, new: NewLogin) -> Result<()> {
        let NewLogin { login_id, user_id, begun } = new;
        let body = BeginLoginBody { login_id, user_id, begun };
        self.done(&["internal", "logins"], &body).await
    }

    async fn refresh_login(&self, login: Uuid, generation: u64) -> Result<Refreshed> {
        let (login, body) = (login.to_string(), RefreshLoginBody { generation });
        let path = ["internal", "logins", &login, "refresh"];
        // Shown once more, a generation leads to the same.
        let row = self.call(Kind::Repeatable, || self.data.request(Method::POST, &path, None).json(&body)).await?;
        Ok(match row {
            RefreshedRow::Current { user_id, begun, generation } => Refreshed::Current { user_id, begun, generation },
            RefreshedRow::Replayed { user_id } => Refreshed::Replayed { user_id },
            RefreshedRow::Gone => Refreshed::Gone,
        })
    }

    async fn revoke_login(&self, user: UserId, what: Revoked) -> Result<()> {
        self.done(&["internal", "users", &user.to_string(), "revocations"], &what).await
    }

    async fn is_login_revoked(&self, user: UserId, login: Login) -> Result<bool> {
        let user = user.to_string();
        let path = ["internal", "users", &user, "revocations"];
        let row: RevokedRow = self.call(Kind::Read, || self.data.request(Method::GET, &path, None).query(&login)).await?;
        Ok(row.revoked)
    }
}

impl RemoteUsers {
    /// A call that may be made twice, and is answered with nothing.
    async fn done(&self, path: &[&str], body: &(impl Serialize + Sync)) -> Result<()> {
        let request = || self.data.request(Method::POST, path, None).json(body);
        self.call::<Option<IgnoredAny>>(Kind::Repeatable, request).await.map(drop)
    }
}

/// A fault as a store would have it.
fn as_error(fault: Fault) -> Error {
    let is = |code: Code| fault.code == code;
    if is(Code::EMAIL_IN_USE) {
        Error::Taken("email")
    } else if is(Code::BUSY) {
        Error::Busy
    } else if is(Code::OUTCOME_UNKNOWN) {
        Error::Unknown(fault.into())
    } else if is(Code::STORAGE_FULL) {
        Error::Full(fault.into())
    } else if is(Code::UNSUPPORTED) {
        Error::Unsupported("that")
    } else if is(Code::UNAVAILABLE) || is(Code::RATE_LIMITED) {
        Error::Unavailable(fault.into())
    } else {
        // Nothing that was asked for here is a user's mistake.
        Error::Internal(fault.into())
    }
}
