//! What clients write down while it happens.

use std::{
    collections::HashSet,
    sync::{
        Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use tokio::sync::watch;

use crate::record::{Heard, Observed, Record, Sent};

/// The record of a run under way.
pub struct Notes {
    begun: Instant,
    inner: Mutex<Inner>,
    more: watch::Sender<()>,
    connections: AtomicU64,
    over: AtomicBool,
}

#[derive(Default)]
struct Inner {
    record: Record,
    /// Contents that each observer knows of.
    learned: Vec<HashSet<String>>,
    /// How many acknowledgements each sender has.
    acked: Vec<u64>,
}

impl Default for Notes {
    fn default() -> Self {
        Self {
            begun: Instant::now(),
            inner: Mutex::default(),
            more: watch::Sender::new(()),
            connections: AtomicU64::new(0),
            over: AtomicBool::new(false),
        }
    }
}

impl Notes {
    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A new observer's number.
    pub fn observer(&self, name: &str) -> usize {
        let mut inner = self.lock();
        inner.learned.push(HashSet::new());
        inner.record.observers.push(Observed { name: name.to_owned(), heard: Vec::new() });
        inner.record.observers.len() - 1
    }

    /// A new sender's number.
    pub fn sender(&self) -> usize {
        let mut inner = self.lock();
        inner.acked.push(0);
        inner.acked.len() - 1
    }

    /// A new connection's number.
    pub fn connection(&self) -> u64 {
        self.connections.fetch_add(1, Ordering::Relaxed)
    }

    /// An observer heard something.
    pub fn heard(&self, observer: usize, heard: Heard) {
        let at = self.begun.elapsed();
        let mut inner = self.lock();
        if let Heard::Message { nonce, .. } = &heard {
            inner.learned[observer].insert(nonce.clone());
        }
        inner.record.observers[observer].heard.push((at, heard));
        drop(inner);
        self.more.send_replace(());
    }

    /// An observer has read this: (id, content).
    pub fn read(&self, observer: usize, rows: Vec<(String, String)>) {
        let (ids, contents): (Vec<_>, Vec<_>) = rows.into_iter().unzip();
        self.lock().learned[observer].extend(contents);
        self.heard(observer, Heard::Read(ids));
    }

    /// A message is about to be sent, perhaps again.
    pub fn sent(&self, nonce: &str, channel: &str, sender: usize, number: u64, connection: u64) {
        let mut inner = self.lock();
        let sent = inner.record.sent.entry(nonce.to_owned()).or_default();
        if sent.connections.is_empty() {
            *sent = Sent { channel: channel.to_owned(), sender, number, connections: Vec::new() };
        }
        if !sent.connections.contains(&connection) {
            sent.connections.push(connection);
        }
    }

    /// It was acknowledged.
    pub fn acked(&self, sender: usize, nonce: &str, id: &str) {
        let mut inner = self.lock();
        inner.acked[sender] += 1;
        let ids = inner.record.acked.entry(nonce.to_owned()).or_default();
        if !ids.iter().any(|known| known == id) {
            ids.push(id.to_owned());
        }
        drop(inner);
        self.more.send_replace(());
    }

    /// A promise was not kept.
    pub fn broken(&self, what: impl Into<String>) {
        let what = what.into();
        eprintln!("broken: {what}");
        self.lock().record.broken.push(what);
    }

    /// A session does not come back.
    pub fn stuck(&self, name: impl Into<String>) {
        let name = name.into();
        eprintln!("stuck: {name}");
        self.lock().record.stuck.push(name);
    }

    /// How many acknowledgements each sender has.
    pub fn acknowledgements(&self) -> Vec<u64> {
        self.lock().acked.clone()
    }

    /// Nonces that were acknowledged, with their ids.
    pub fn all_acked(&self) -> Vec<(String, String)> {
        let inner = self.lock();
        inner.record.acked.iter().flat_map(|(nonce, ids)| ids.iter().map(|id| (nonce.clone(), id.clone()))).collect()
    }

    /// The observers that do not know of this content.
    pub fn ignorant_of(&self, nonce: &str) -> Vec<String> {
        let inner = self.lock();
        let ignorant = inner.record.observers.iter().zip(&inner.learned).filter(|(_, learned)| !learned.contains(nonce));
        ignorant.map(|(observer, _)| observer.name.clone()).collect()
    }

    /// Whether every observer knows of all that was acknowledged.
    pub fn all_is_learned(&self) -> bool {
        let inner = self.lock();
        inner.learned.iter().all(|learned| inner.record.acked.keys().all(|nonce| learned.contains(nonce)))
    }

    /// Waits until this is so; false if it is not in time.
    pub async fn until(&self, patience: Duration, mut is_so: impl FnMut(&Self) -> bool) -> bool {
        let mut more = self.more.subscribe();
        let waiting = async {
            while !is_so(self) {
                // The sender lives as long as this.
                let _ = more.changed().await;
            }
        };
        tokio::time::timeout(patience, waiting).await.is_ok()
    }

    /// Senders send no more.
    pub fn end(&self) {
        self.over.store(true, Ordering::Relaxed);
    }

    /// Whether senders are to stop.
    pub fn is_over(&self) -> bool {
        self.over.load(Ordering::Relaxed)
    }

    /// What was written down so far.
    pub fn record(&self) -> Record {
        self.lock().record.clone()
    }
}
