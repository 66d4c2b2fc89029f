//! What the host has already: users and sessions.

use std::{
    collections::HashMap,
    sync::{Mutex, PoisonError},
};

use anyhow::Context;
use async_trait::async_trait;
use jiscord_core::{
    Code, Fault, UserId,
    backend::{Identity, TokenVerifier},
    model::User,
};
use jiscord_store::{Account, Users};
use uuid::Uuid;

/// Users that came from somewhere else long ago, and whoever is logged in.
pub(crate) struct Shop {
    customers: HashMap<UserId, &'static str>,
    sessions: Mutex<HashMap<String, UserId>>,
}

impl Shop {
    pub(crate) fn new() -> Self {
        let customers = [(1, "ada"), (2, "bob")].map(|(number, name)| (UserId::new(Uuid::from_u128(number)), name));
        Self { customers: customers.into(), sessions: Mutex::default() }
    }

    /// The shop's own login: a session's token for a customer.
    pub(crate) fn log_in(&self, name: &str) -> anyhow::Result<String> {
        let (user, _) = self.customers.iter().find(|customer| *customer.1 == name).context("no such customer")?;
        let token = Uuid::new_v4().to_string();
        self.sessions.lock().unwrap_or_else(PoisonError::into_inner).insert(token.clone(), *user);
        Ok(token)
    }
}

#[async_trait]
impl Users for Shop {
    async fn get_many(&self, ids: &[UserId]) -> jiscord_store::Result<Vec<Account>> {
        let account = |id: &UserId| {
            let username = self.customers.get(id)?.to_string();
            Some(Account { user: User { user_id: *id, username, email: None, created_at: None }, password_hash: None })
        };
        Ok(ids.iter().filter_map(account).collect())
    }
}

#[async_trait]
impl TokenVerifier for Shop {
    async fn verify_token(&self, token: &str) -> jiscord_core::fault::Result<Identity> {
        let session = self.sessions.lock().unwrap_or_else(PoisonError::into_inner).get(token).copied();
        let user = session.ok_or_else(|| Fault::new(Code::UNAUTHORIZED, "log in to the shop first"))?;
        Ok(Identity::new(user, self.customers[&user]))
    }
}
