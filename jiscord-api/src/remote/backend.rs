//! A gateway's backend in other processes.

use std::time::Duration;

use async_trait::async_trait;
use jiscord_core::{
    Code, Fault, GuildId, UserId,
    backend::{Actor, Backend, GuildState, Identity, Membership, Sent, TokenVerifier},
    fault::Result,
    frame::SendMessage,
    http::{CreateMessageBody, GuildStateRow, MembershipRow, SentRow, UserRow, Verified},
    model::User,
};
use reqwest::{
    Method, StatusCode,
    header::{AUTHORIZATION, HeaderValue},
};
use serde::de::{DeserializeOwned, IgnoredAny};
use uuid::Uuid;

use super::call::{Kind, Service, SetupError, acts_for, authorization, away};
use crate::{
    http::{IDEMPOTENCY_KEY, PUBLISH},
    tokens,
};

/// auth-service and data-service as a gateway's [`Backend`]. Cheap to clone: connections are shared.
#[derive(Clone, Debug)]
pub struct RemoteBackend {
    auth: Service,
    data: Service,
}

impl RemoteBackend {
    /// With the two addresses, such as `http://localhost:3003`, and the token by which data-service knows other services.
    /// Nothing is connected yet.
    pub fn new(auth_service: &str, data_service: &str, service_token: &[u8]) -> Result<Self, SetupError> {
        let auth = Service::new("auth-service", auth_service)?;
        let data = Service::new("data-service", data_service)?.with_token(service_token)?;
        Ok(Self { auth, data })
    }

    /// How long each call may take, all its tries together; [`TIME`](super::TIME) unless set.
    #[must_use]
    pub fn with_time(self, time: Duration) -> Self {
        Self { auth: self.auth.with_time(time), data: self.data.with_time(time) }
    }

    /// Whether both services are there and ready, and data-service knows this one; for readiness.
    pub async fn ready(&self) -> Result<()> {
        self.auth.ready(&["health", "ready"]).await?;
        self.data.ready(&["internal", "health"]).await
    }

    async fn read<T: DeserializeOwned>(&self, actor: Actor, path: &[&str]) -> Result<T> {
        let user = acts_for(actor)?;
        let request = || self.data.request(Method::GET, path, user);
        self.data.call(Kind::Read, request, |status, said| self.data.refusal(user, status, said)).await
    }
}

impl Service {
    /// Whether the service is ready, by its own word.
    pub(super) async fn ready(&self, path: &[&str]) -> Result<()> {
        let refused = |status: StatusCode, said: Option<Fault>| match said {
            Some(fault) if status.is_server_error() => away().because(fault),
            _ => self.misfit(status),
        };
        self.call::<IgnoredAny>(Kind::Read, || self.request(Method::GET, path, None), refused).await?;
        Ok(())
    }
}

#[async_trait]
impl TokenVerifier for RemoteBackend {
    async fn verify_token(&self, token: &str) -> Result<Identity> {
        let bad = || Fault::new(Code::UNAUTHORIZED, "Invalid or expired token");
        // What no header can carry is no token.
        let bearer = Some(token).filter(|token| token.len() <= tokens::LONGEST);
        let bearer = bearer.and_then(|token| authorization("Bearer", token.as_bytes())).ok_or_else(bad)?;
        let request = || self.auth.request(Method::POST, &["verify-token"], None).header(AUTHORIZATION, bearer.clone());
        let refused = |status: StatusCode, said: Option<Fault>| match said {
            _ if status == StatusCode::UNAUTHORIZED => bad(),
            Some(fault) if status == StatusCode::TOO_MANY_REQUESTS => fault,
            Some(fault) if status.is_server_error() => away().because(fault),
            _ => self.auth.misfit(status),
        };
        let Verified { sub, username, login } = self.auth.call(Kind::Read, request, refused).await?;
        let who = Identity::new(sub, username);
        Ok(match login {
            Some(login) => who.with_login(login),
            None => who,
        })
    }
}

#[async_trait]
impl Backend for RemoteBackend {
    async fn user(&self, actor: Actor, user: UserId) -> Result<User> {
        Ok(self.read::<UserRow>(actor, &["internal", "users", &user.to_string()]).await?.into())
    }

    async fn memberships(&self, actor: Actor, user: UserId) -> Result<Vec<Membership>> {
        let rows: Vec<MembershipRow> = self.read(actor, &["internal", "users", &user.to_string(), "memberships"]).await?;
        Ok(rows.into_iter().map(Into::into).collect())
    }

    async fn load_guild(&self, actor: Actor, guild: GuildId) -> Result<Option<GuildState>> {
        match self.read::<GuildStateRow>(actor, &["internal", "guilds", &guild.to_string()]).await {
            Ok(row) => Ok(Some(row.into())),
            Err(fault) if fault.code == Code::NOT_FOUND => Ok(None),
            Err(fault) => Err(fault),
        }
    }

    /// Where there is no nonce one is made up, so that a try whose answer is lost can be repeated.
    async fn send_message(&self, actor: Actor, message: SendMessage) -> Result<Sent> {
        let user = acts_for(actor)?;
        let SendMessage { channel_id, content, nonce, reply_to } = message;
        let key = nonce.is_none().then(|| Uuid::new_v4().to_string());
        let body = CreateMessageBody { content, author_id: None, nonce, reply_to };
        let request = || {
            let request = self.data.request(Method::POST, &["channels", &channel_id.to_string(), "messages"], user).json(&body);
            let request = request.header(PUBLISH, HeaderValue::from_static("caller"));
            match &key {
                Some(key) => request.header(IDEMPOTENCY_KEY, key),
                None => request,
            }
        };
        let refused = |status, said| self.data.refusal(user, status, said);
        Ok(self.data.call::<SentRow>(Kind::Repeatable, request, refused).await?.into())
    }
}
