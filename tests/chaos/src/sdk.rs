//! Clients made with the SDK: it comes back by itself and repeats by itself.

use std::{sync::Arc, time::Duration};

use jiscord_client::{Client, Endpoints, Error, Event, ResumePoint};
use jiscord_core::{ChannelId, frame::Intents};
use jiscord_e2e::Person;
use tokio::{
    select,
    sync::{mpsc, oneshot},
    time::sleep,
};

use crate::{
    client::{Reader, World},
    record::Heard,
};

/// Between two attempts.
const WAIT: Duration = Duration::from_millis(100);
/// How long a send may take before it is told to be lost, and is said again.
const SEND: Duration = Duration::from_secs(15);

/// A user's program on the SDK.
pub struct Program {
    world: Arc<World>,
    person: Person,
    endpoints: Endpoints,
    name: String,
}

impl Program {
    /// A program of this user.
    pub fn new(world: &Arc<World>, name: &str, person: Person, endpoints: Endpoints) -> Self {
        Self { world: world.clone(), person, endpoints, name: name.to_owned() }
    }

    async fn connect(&self, intents: Intents, from: Option<ResumePoint>) -> Client {
        loop {
            let builder = Client::builder(self.endpoints.clone()).device(&self.name).intents(intents).backoff(WAIT, 20 * WAIT);
            let builder = match &from {
                Some(point) => builder.resume(point.clone()),
                None => builder,
            };
            match builder.connect_timeout(SEND).connect(&self.person.token).await {
                Ok(client) => return client,
                Err(Error::Unauthorized(_)) => self.world.notes.broken(format!("{} may not connect", self.name)),
                Err(_) => {}
            }
            sleep(WAIT).await;
        }
    }

    /// Watches for as long as it is polled. Whenever it is asked to, the program ends and another one goes on where it was; then
    /// it answers.
    pub async fn watch(self, mut restarts: mpsc::Receiver<oneshot::Sender<()>>) {
        let number = self.world.notes.observer(&self.name);
        let reader = Reader::new(self.world.clone(), number, self.person.data.clone());
        let watch = async {
            let (mut kept, mut first): (Option<String>, _) = (None, true);
            loop {
                let point = kept.take().and_then(|kept| serde_json::from_str(&kept).ok());
                let client = self.connect(Intents::all(), point).await;
                let mut events = client.events();
                let restarted = loop {
                    select! {
                        event = events.next() => match event {
                            Some(event) => {
                                let ready = matches!(event, Ok(Event::Ready(_)));
                                self.hear(number, &reader, event, first);
                                first &= !ready;
                            }
                            None => break None,
                        },
                        restart = restarts.recv() => break restart,
                    }
                };
                // What the stream still holds was not taken, and is told to the next one.
                kept = events.resume_point().and_then(|point| serde_json::to_string(&point).ok());
                let Some(restarted) = restarted else { break };
                if rand::random() {
                    client.close().await;
                }
                let _ = restarted.send(());
            }
            self.world.notes.broken(format!("the events of {} have ended", self.name));
        };
        tokio::join!(reader.clone().run(), watch);
    }

    fn hear(&self, number: usize, reader: &Reader, event: Result<Event, Error>, first: bool) {
        match event {
            // The first session: what was written before it is in the history. What a later one may have missed is told.
            Ok(Event::Ready(ready)) if first => {
                reader.want();
                self.world.notes.heard(number, Heard::Ready { epoch: ready.epoch, p: None });
            }
            Ok(Event::Resynced(resynced)) => {
                self.world.notes.heard(number, Heard::Resynced);
                if !resynced.missing.is_empty() {
                    reader.want();
                }
            }
            Ok(Event::MessageCreate(message)) => {
                let id = message.message_id.to_string();
                reader.knows(&message.channel_id.to_string(), &id);
                self.world.notes.heard(number, Heard::Message { p: None, id, nonce: message.content });
            }
            Ok(_) | Err(_) => {}
        }
    }

    /// Writes one message after the other until the run is over.
    pub async fn write(self, channel: &str, pace: Duration) {
        let Ok(channel_id) = channel.parse::<ChannelId>() else { return };
        let (notes, sender) = (&self.world.notes, self.world.notes.sender());
        // It hears nothing but answers.
        let mut client = self.connect(Intents::empty(), None).await;
        for number in 0.. {
            if notes.is_over() {
                return client.close().await;
            }
            let nonce = format!("s{sender}-{number}");
            loop {
                // Over how many it goes is not told.
                notes.sent(&nonce, channel, sender, number, notes.connection());
                notes.sent(&nonce, channel, sender, number, notes.connection());
                match client.send(channel_id, &nonce).nonce(&nonce).timeout(SEND).await {
                    Ok(ack) => break notes.acked(sender, &nonce, &ack.message_id.to_string()),
                    Err(error @ (Error::Closed | Error::Evicted | Error::Unauthorized(_))) => {
                        notes.broken(format!("{} was ended: {error}", self.name));
                        client = self.connect(Intents::empty(), None).await;
                    }
                    Err(_) => sleep(WAIT).await,
                }
            }
            sleep(pace).await;
        }
    }
}
