//! A user, and what users do.

use serde_json::{Value, json};

use crate::{Caller, Socket};

/// A user who is logged in.
#[derive(Clone, Debug)]
pub struct Person {
    /// Its id.
    pub id: String,
    /// Its token.
    pub token: String,
    /// Calls auth-service as this user.
    pub auth: Caller,
    /// Calls data-service as this user.
    pub data: Caller,
    pub(crate) ws: String,
}

impl Person {
    /// Creates a guild, and says its id.
    pub async fn create_guild(&self, name: &str) -> String {
        let guild = self.data.post("/guilds", json!({"name": name})).await.is(201);
        guild["guild_id"].as_str().unwrap().to_owned()
    }

    /// Creates a channel, and says its id.
    pub async fn create_channel(&self, guild: &str, name: &str) -> String {
        let channel = self.data.post(&format!("/guilds/{guild}/channels"), json!({"name": name})).await.is(201);
        channel["channel_id"].as_str().unwrap().to_owned()
    }

    /// Joins a guild.
    pub async fn join(&self, guild: &str) {
        self.data.post(&format!("/guilds/{guild}/members"), json!({})).await.is(201);
    }

    /// Leaves a guild.
    pub async fn leave(&self, guild: &str) {
        self.data.delete(&format!("/guilds/{guild}/members/{}", self.id)).await.is(204);
    }

    /// Writes a message over HTTP.
    pub async fn post(&self, channel: &str, message: Value) -> Value {
        self.data.post(&format!("/channels/{channel}/messages"), message).await.is(201)
    }

    /// All messages of a channel, newest first.
    pub async fn history(&self, channel: &str) -> Vec<Value> {
        let mut all = Vec::new();
        let mut query = String::new();
        loop {
            let page = self.data.get(&format!("/channels/{channel}/messages?limit=100{query}")).await.is(200);
            all.extend(page["messages"].as_array().unwrap().iter().cloned());
            let Some(next) = page["nextPageState"].as_str() else { return all };
            query = format!("&pageState={next}");
        }
    }

    /// A session.
    pub async fn connect(&self) -> Socket {
        self.identify(json!({})).await.0
    }

    /// A session, and its READY. `more` goes into IDENTIFY beside the token.
    pub async fn identify(&self, more: Value) -> (Socket, Value) {
        let mut socket = Socket::open(&self.ws).await;
        let mut identify = json!({"token": self.token});
        identify.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        socket.say("IDENTIFY", identify).await;
        let ready = socket.hear("READY").await;
        (socket, ready)
    }
}
