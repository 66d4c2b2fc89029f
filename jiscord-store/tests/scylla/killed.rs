//! A database that is killed while sixteen tasks write: a node of our own, since others use the one that is there.

use std::{
    collections::HashMap,
    path::Path,
    sync::{Arc, Mutex},
    time::Duration,
};

use jiscord_core::{
    ChannelId, EventId, MessageId, UserId,
    text::Nonce,
    time::{Clock, SystemClock},
};
use jiscord_store::{
    Error, Messages, NewMessage,
    scylla::{Options, ScyllaStore},
};
use tokio::{
    sync::Notify,
    task::{JoinSet, spawn_blocking},
    time::{sleep, timeout},
};

use crate::{channel, cql, journal, message, node::Node, tell, user};

const PATIENCE: Duration = Duration::from_secs(120);

fn with_nonce(channel: ChannelId, author_id: UserId, nonce: &str) -> NewMessage {
    NewMessage { author_id, nonce: Some(Nonce::new(nonce).unwrap()), ..message(channel, nonce) }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_was_acknowledged_is_there_after_kill_9() {
    if cql::database("kill -9").is_none() {
        return;
    }
    let node = Arc::new(Node::new(Path::new(env!("CARGO_TARGET_TMPDIR"))));
    let does = |what: fn(&Node)| {
        let node = node.clone();
        spawn_blocking(move || what(&node))
    };
    does(|node| node.run("start")).await.unwrap();
    let options = Options::new([node.address()], "killed").timeout(Duration::from_secs(10));
    ScyllaStore::migrate(options.clone()).await.unwrap();
    let store = ScyllaStore::open(options.timeout(Duration::from_secs(3))).await.unwrap();

    let (channel, author) = (channel(), user());
    let acknowledged = Arc::new(Mutex::new(HashMap::<String, MessageId>::new()));
    let enough = Arc::new(Notify::new());
    let tasks: JoinSet<_> = (0..16)
        .map(|task| {
            let (store, acknowledged, enough) = (store.clone(), acknowledged.clone(), enough.clone());
            async move {
                let mut unknown = Vec::new();
                for n in 0.. {
                    let nonce = format!("{task}-{n}");
                    match Messages::create(&*store, with_nonce(channel, author, &nonce), tell()).await {
                        Ok(created) => {
                            let mut acknowledged = acknowledged.lock().unwrap();
                            acknowledged.insert(nonce, created.row.message_id);
                            if acknowledged.len() == 300 {
                                enough.notify_one();
                            }
                        }
                        Err(Error::Unknown(_)) => unknown.push(nonce),
                        // It is away, and this one was not begun.
                        Err(Error::Unavailable(_)) => break,
                        Err(error) => panic!("{error:?}"),
                    }
                }
                unknown
            }
        })
        .collect();
    timeout(PATIENCE, enough.notified()).await.expect("enough is written");
    does(Node::kill).await.unwrap();
    let unknown = timeout(PATIENCE, tasks.join_all()).await.expect("every task is told that it is away").concat();
    assert!(matches!(store.check().await, Err(Error::Unavailable(_))));

    does(|node| node.run("start")).await.unwrap();
    let back = async {
        while store.check().await.is_err() {
            sleep(Duration::from_millis(50)).await;
        }
    };
    timeout(PATIENCE, back).await.expect("it comes back by itself");

    let acknowledged = std::mem::take(&mut *acknowledged.lock().unwrap());
    let page = store.page_before(channel, None, 100_000).await.unwrap();
    let stored: HashMap<_, _> = page.iter().map(|message| (message.content.as_str(), message.message_id)).collect();
    assert_eq!(stored.len(), page.len(), "once");
    let events = journal(&store, SystemClock.now_micros() / 1000).await;
    for (nonce, id) in &acknowledged {
        assert_eq!(stored.get(nonce.as_str()), Some(id), "{nonce} was acknowledged");
        assert!(events.contains_key(&EventId::new(id.uuid())), "{nonce} was acknowledged with its event");
    }
    // What was under way may be there in part, until the database has replayed its log of batches.
    let whole = async {
        loop {
            let events = journal(&store, SystemClock.now_micros() / 1000).await;
            if stored.values().all(|id| events.contains_key(&EventId::new(id.uuid()))) {
                break;
            }
            sleep(Duration::from_millis(500)).await;
        }
    };
    timeout(PATIENCE, whole).await.expect("no row stays without its event");
    for nonce in acknowledged.keys().take(100).chain(&unknown) {
        let repeat = Messages::create(&*store, with_nonce(channel, author, nonce), tell()).await.unwrap();
        let known = acknowledged.get(nonce).or(stored.get(nonce.as_str()));
        assert!(known.is_none_or(|id| repeat.repeated && repeat.row.message_id == *id), "{nonce}");
    }
    let repeated = store.page_before(channel, None, 100_000).await.unwrap().len();
    let new = unknown.iter().filter(|nonce| !stored.contains_key(nonce.as_str())).count();
    assert_eq!(repeated, page.len() + new, "a repeat stores nothing twice");
}
