//! Two bots that meet in a guild and talk: a demonstration, and a check of a whole server from the outside.
//!
//! ```text
//! cargo run -p two-bots-talking -- [HOW_MANY_MESSAGES]
//! ```
//!
//! `JISCORD_URL` names the server (http://localhost:3000 if unset). Each run makes two fresh accounts and a public guild.

use std::{env, time::Duration};

use anyhow::{Context, Result, bail, ensure};
use jiscord_client::{
    Client, Endpoints, Event, Events, Http,
    core::{
        ChannelId, GuildId,
        model::{Message, Visibility},
    },
};

#[tokio::main]
async fn main() -> Result<()> {
    let url = env::var("JISCORD_URL").unwrap_or_else(|_| "http://localhost:3000".into());
    let rounds = env::args().nth(1).map_or(Ok(10), |count| count.parse()).context("how many messages?")?;
    let run: u32 = rand::random();

    let ada = Bot::start(&url, "ada", run).await?;
    let bob = Bot::start(&url, "bob", run).await?;

    // Ada makes a place to talk; Bob finds it, joins it and sees its channel. Neither has to connect again.
    let name = format!("Tea house {run:08x}");
    let guild = ada.client.http().create_guild(&name).visibility(Visibility::Public).await?;
    let channel = ada.client.http().create_channel(guild.guild_id, "small-talk").await?.channel_id;
    let found = bob.find(&name).await?;
    bob.client.http().join(found).await?;
    let seen = bob.client.http().channels(found).await?;
    ensure!(seen.iter().any(|seen| seen.channel_id == channel), "bob does not see ada's channel");

    let talk = async { tokio::try_join!(ada.talk(channel, rounds, true), bob.talk(channel, rounds, false)) };
    let (ada_heard, bob_heard) = tokio::time::timeout(Duration::from_secs(60), talk).await.context("they fell silent")??;
    ensure!(ada_heard == bob_heard, "they did not hear the same");

    let page = bob.client.http().messages(channel).limit(100).await?;
    println!("{rounds} messages said and heard by both; the channel keeps {} on its first page.", page.items.len());
    ada.client.close().await;
    bob.client.close().await;
    Ok(())
}

struct Bot {
    name: &'static str,
    client: Client,
}

impl Bot {
    /// Registers an account that nobody else has, and connects.
    async fn start(url: &str, name: &'static str, run: u32) -> Result<Self> {
        let endpoints = Endpoints::at(url)?;
        let email = format!("{name}-{run:08x}@example.com");
        let password = format!("{:032x}", rand::random::<u128>());
        Http::new(endpoints.clone())?
            .register(name, &email, &password)
            .await
            .with_context(|| format!("registering at {url} (is the server running? JISCORD_URL names another one)"))?;
        let client = Client::builder(endpoints).login(&email, &password).await?;
        Ok(Self { name, client })
    }

    /// Looks through the guilds that anybody may join.
    async fn find(&self, name: &str) -> Result<GuildId> {
        let mut page = self.client.http().discover().await?;
        loop {
            if let Some(guild) = page.items.iter().find(|guild| guild.name == name) {
                return Ok(guild.guild_id);
            }
            let Some(next) = page.next else { bail!("{name:?} is not listed") };
            page = self.client.http().discover().cursor(next).await?;
        }
    }

    /// Says every other message of `rounds`, each when the one before was heard. Returns all that was heard.
    async fn talk(&self, channel: ChannelId, rounds: usize, mut my_turn: bool) -> Result<Vec<Message>> {
        let mut events = self.client.events();
        let mut heard: Vec<Message> = Vec::new();
        while heard.len() < rounds {
            if my_turn {
                let word = if heard.len().is_multiple_of(2) { "ping" } else { "pong" };
                let mut send = self.client.send(channel, format!("{word} {}", heard.len() + 1));
                if let Some(last) = heard.last() {
                    send = send.reply_to(last.message_id);
                }
                send.await?;
            }
            let mut message = next_message(&mut events, channel).await?;
            println!("{} hears {}: {}", self.name, if my_turn { "itself" } else { "the other" }, message.content);
            // Only the sender need be told its nonce.
            message.nonce = None;
            heard.push(message);
            my_turn = !my_turn;
        }
        Ok(heard)
    }
}

async fn next_message(events: &mut Events, channel: ChannelId) -> Result<Message> {
    while let Some(event) = events.next().await {
        match event? {
            Event::MessageCreate(message) if message.channel_id == channel => return Ok(message),
            _ => {}
        }
    }
    bail!("the events ended")
}
