//! The bus of a single process: it tails the store's log of events.

use std::{
    collections::{HashSet, VecDeque},
    sync::Arc,
    time::Duration,
};

use async_trait::async_trait;
use jiscord_core::{
    Event, Position, Topic,
    event::{EventLog, Logged, Publish},
    fault::Result,
};
use tokio::sync::{Mutex, mpsc};

use crate::bus::{Bus, Heard, REPLAYED, Replay};

/// How many events are read from the log at once.
const PAGE: usize = 1_000;
/// How many passing events wait for the reader; more are dropped.
const PASSING: usize = 1_024;

/// Tails an [`EventLog`]. Since the log is written with the rows, a killed process loses no event.
pub struct LocalBus {
    log: Arc<dyn EventLog>,
    start: Position,
    pass: mpsc::Sender<Event>,
    line: Mutex<Line>,
}

struct Line {
    /// All up to here was read from the log.
    read: Position,
    /// Read, but not yet asked for.
    ahead: VecDeque<Logged>,
    passing: mpsc::Receiver<Event>,
}

impl LocalBus {
    /// Begins to listen at the log's head.
    pub async fn start(log: Arc<dyn EventLog>) -> Result<Arc<Self>> {
        let start = log.head().await?;
        let (pass, passing) = mpsc::channel(PASSING);
        Ok(Arc::new(Self { log, start, pass, line: Mutex::new(Line { read: start, ahead: VecDeque::new(), passing }) }))
    }
}

#[async_trait]
impl Publish for LocalBus {
    /// Nothing to do: they are in the log, which wakes the tail.
    async fn publish(&self, _events: &[Event]) -> Result<()> {
        Ok(())
    }

    async fn pass(&self, event: Event) -> Result<()> {
        // Full: whoever listens is behind, and a typing sign that comes late is worth nothing.
        let _ = self.pass.try_send(event);
        Ok(())
    }
}

#[async_trait]
impl Bus for LocalBus {
    fn epoch(&self) -> String {
        self.log.epoch().to_owned()
    }

    fn start(&self) -> Position {
        self.start
    }

    async fn head(&self) -> Result<Position> {
        self.log.head().await
    }

    /// Every topic is heard all the time.
    async fn join(&self, _topic: Topic) -> Result<Position> {
        Ok(self.start)
    }

    fn leave(&self, _topic: Topic) {}

    async fn replay(&self, topics: &[Topic], after: Position, to: Position) -> Result<Replay> {
        let wanted: HashSet<_> = topics.iter().collect();
        let (mut events, mut read) = (Vec::new(), after);
        while read < to {
            let page = self.log.read_after(read, PAGE).await?;
            let Some(last) = page.last() else { break };
            read = last.p;
            let heard = |logged: &Logged| logged.p <= to && logged.event.topics.iter().any(|topic| wanted.contains(topic));
            events.extend(page.into_iter().filter(heard));
            if events.len() > REPLAYED {
                return Ok(Replay::new(Vec::new(), topics.to_vec()));
            }
        }
        // Asked last: what was forgotten while it was read is missing too.
        let is_whole = self.log.floor().await? <= after;
        Ok(if is_whole { Replay::new(events, Vec::new()) } else { Replay::new(Vec::new(), topics.to_vec()) })
    }

    async fn next(&self) -> Heard {
        let mut line = self.line.lock().await;
        let Line { read, ahead, passing } = &mut *line;
        loop {
            if let Some(Logged { p, event }) = ahead.pop_front() {
                return Heard::Event { event, p: Some(p) };
            }
            tokio::select! {
                Some(event) = passing.recv() => return Heard::Event { event, p: None },
                () = self.log.wait_past(*read) => match self.log.read_after(*read, PAGE).await {
                    Ok(page) => {
                        *read = page.last().map_or(*read, |last| last.p);
                        ahead.extend(page);
                    }
                    Err(error) => {
                        tracing::warn!(%error, "the log of events cannot be read; trying again");
                        tokio::time::sleep(Duration::from_millis(200)).await;
                    }
                },
            }
        }
    }
}
