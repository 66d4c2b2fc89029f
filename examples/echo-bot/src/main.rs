//! A bot that answers "!ping" with "pong", and says again whatever else begins with "!echo ".
//!
//! ```text
//! JISCORD_EMAIL=bot@example.com JISCORD_PASSWORD='a long password' cargo run -p echo-bot -- [GUILD_ID …]
//! ```
//!
//! It logs in by `JISCORD_EMAIL` and `JISCORD_PASSWORD`, or uses the token in `JISCORD_TOKEN`. `JISCORD_URL` names the server
//! (http://localhost:3000 if unset). It joins the guilds whose ids it is given, then answers in every channel that it can read.

use std::env;

use anyhow::{Context, Result};
use jiscord_client::{Client, Error, Event, core::GuildId};

#[tokio::main]
async fn main() -> Result<()> {
    let client = connect().await?;
    for id in env::args().skip(1) {
        let guild: GuildId = id.parse().with_context(|| format!("{id:?} is no guild"))?;
        client.http().join(guild).await.with_context(|| format!("joining guild {guild}"))?;
    }
    println!("{} is ready. Ctrl-C ends it.", client.user().username);
    tokio::select! {
        end = answer(&client) => end?,
        _ = tokio::signal::ctrl_c() => client.close().await,
    }
    Ok(())
}

/// Answers until the server does not want this bot any more.
async fn answer(client: &Client) -> Result<()> {
    let me = client.user().user_id;
    let mut events = client.events();
    while let Some(event) = events.next().await {
        let message = match event {
            // A bot that answers itself never stops.
            Ok(Event::MessageCreate(message)) if message.author_id != me => message,
            Ok(_) => continue,
            Err(error @ (Error::Unauthorized(_) | Error::Evicted)) => return Err(error.into()),
            Err(error) => {
                eprintln!("skipped an event: {error}");
                continue;
            }
        };
        let answer = match message.content.as_str() {
            "!ping" => "pong",
            other => match other.strip_prefix("!echo ") {
                Some(text) => text,
                None => continue,
            },
        };
        if let Err(error) = client.send(message.channel_id, answer).reply_to(message.message_id).await {
            eprintln!("could not answer: {error}");
        }
    }
    Ok(())
}

async fn connect() -> Result<Client> {
    let url = env::var("JISCORD_URL").unwrap_or_else(|_| "http://localhost:3000".into());
    let client = match (env::var("JISCORD_TOKEN"), env::var("JISCORD_EMAIL"), env::var("JISCORD_PASSWORD")) {
        (Ok(token), ..) => Client::connect(&url, token).await,
        (_, Ok(email), Ok(password)) => Client::login(&url, &email, &password).await,
        _ => anyhow::bail!(
            "who is the bot? Set JISCORD_TOKEN, or JISCORD_EMAIL and JISCORD_PASSWORD.\n\
             No account yet? Make one:\n\
             curl {url}/api/auth/register -H 'content-type: application/json' \\\n  \
             -d '{{\"username\":\"echo\",\"email\":\"echo@example.com\",\"password\":\"a long password\"}}'"
        ),
    };
    client.with_context(|| format!("connecting to {url} (is the server running? JISCORD_URL names another one)"))
}
