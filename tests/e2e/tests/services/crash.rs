//! A gateway, and data-service, are killed at a random moment while many write through both gateways.

use std::{
    collections::{HashMap, HashSet},
    env,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    time::{Duration, SystemTime},
};

use futures_util::future::join_all;
use jiscord_e2e::{Deployment, PATIENCE, Person, Socket, has_database, within};
use rand::{Rng, SeedableRng, rngs::StdRng};
use serde_json::Value;
use tokio::{sync::Notify, time::sleep};

use crate::{away::ready, gateways::at};

const SENDERS: usize = 16;
/// Of each kind.
const RUNS: usize = 5;

/// What a sender knows when it has stopped.
struct Known {
    /// Nonces whose acknowledgement was read, with the message's id.
    acked: HashMap<String, String>,
    /// The nonce whose acknowledgement was not.
    open: Option<String>,
}

/// What all senders of a run share.
#[derive(Default)]
struct Run {
    seen: AtomicUsize,
    enough: usize,
    reached: Notify,
    over: AtomicBool,
}

fn text(value: &Value) -> String {
    value.as_str().unwrap().to_owned()
}

/// Writes as fast as is acknowledged, until that is refused, the connection is lost, or the run is over. Contents are nonces.
async fn write_on(mut socket: Socket, channel: String, prefix: String, run: Arc<Run>) -> Known {
    let mut acked = HashMap::new();
    for n in 0.. {
        if run.over.load(Ordering::Relaxed) {
            break;
        }
        let nonce = format!("{prefix}-{n}");
        socket.send_once(&channel, &nonce, &nonce).await;
        loop {
            let Ok(frame) = socket.next().await else { return Known { acked, open: Some(nonce) } };
            match frame["op"].as_str().unwrap() {
                "MESSAGE_ACK" if frame["d"]["nonce"] == nonce => break drop(acked.insert(nonce, text(&frame["d"]["messageId"]))),
                "ERROR" => {
                    let code = frame["d"]["code"].as_str().unwrap();
                    assert!(["unavailable", "outcome_unknown"].contains(&code), "{frame}");
                    return Known { acked, open: Some(nonce) };
                }
                "MESSAGE_CREATE" => {}
                _ => panic!("{frame}"),
            }
        }
        if run.seen.fetch_add(1, Ordering::Relaxed) + 1 == run.enough {
            run.reached.notify_one();
        }
    }
    Known { acked, open: None }
}

/// Ids of the messages that a session has seen, in order.
#[derive(Default)]
struct Watch {
    seen: Mutex<Vec<String>>,
    more: Notify,
}

impl Watch {
    /// Never ends by itself: the session is to stay open.
    async fn run(self: Arc<Self>, mut socket: Socket) {
        loop {
            let frame = match within(Duration::from_secs(600), socket.next()).await {
                Ok(frame) => frame,
                Err(end) => panic!("the session on the other gateway ended: {end:?}"),
            };
            match frame["op"].as_str().unwrap() {
                "MESSAGE_CREATE" => {
                    self.seen.lock().unwrap().push(text(&frame["d"]["messageId"]));
                    self.more.notify_one();
                }
                "CHANNEL_CREATE" => {}
                _ => panic!("{frame}"),
            }
        }
    }

    async fn until(&self, wanted: &HashSet<String>) {
        loop {
            let missing: Vec<_> = {
                let seen = self.seen.lock().unwrap();
                let seen: HashSet<_> = seen.iter().collect();
                wanted.iter().filter(|id| !seen.contains(id)).cloned().collect()
            };
            if missing.is_empty() {
                return;
            }
            let more = tokio::time::timeout(PATIENCE, self.more.notified()).await;
            assert!(more.is_ok(), "{} acknowledged messages were not heard: {missing:?}", missing.len());
        }
    }
}

/// What a channel's history holds: (nonce, id).
async fn stored(reader: &Person, channel: &str) -> HashMap<String, String> {
    let rows = reader.history(channel).await;
    let by_nonce: HashMap<_, _> = rows.iter().map(|row| (text(&row["content"]), text(&row["message_id"]))).collect();
    assert_eq!(by_nonce.len(), rows.len(), "a message is stored twice");
    by_nonce
}

#[tokio::test]
async fn what_was_acknowledged_is_stored_once_and_heard_whoever_is_killed() {
    if !has_database("what_was_acknowledged_is_stored_once_and_heard_whoever_is_killed") {
        return;
    }
    let seed = env::var("JISCORD_SEED").map_or_else(
        |_| SystemTime::UNIX_EPOCH.elapsed().unwrap().as_nanos() as u64,
        |seed| seed.parse().expect("JISCORD_SEED is a number"),
    );
    println!("to repeat it: JISCORD_SEED={seed}");
    let mut random = StdRng::seed_from_u64(seed);
    let mut server = Deployment::services(&[
        ("JISCORD_LIMIT_COMMANDS_PER_SECOND", "100000"),
        ("JISCORD_LIMIT_COMMANDS_BURST", "100000"),
        ("JISCORD_LIMIT_HTTP_PER_SECOND", "10000"),
        ("JISCORD_LIMIT_HTTP_BURST", "10000"),
        ("JISCORD_HEARTBEAT_MS", "600000"),
    ])
    .await;
    let names: Vec<_> = (0..SENDERS).map(|n| format!("sender{n}")).collect();
    let senders = join_all(names.iter().map(|name| server.register(name))).await;
    let watcher = server.register("watcher").await;
    let guild = senders[0].create_guild("Writers").await;
    for member in senders[1..].iter().chain([&watcher]) {
        member.join(&guild).await;
    }
    let watch = Arc::new(Watch::default());
    let watching = tokio::spawn(watch.clone().run(at(&server, 1, &watcher, "watch").await));

    let mut acknowledged = 0;
    for number in 0..2 * RUNS {
        let channel = senders[0].create_channel(&guild, &format!("run {number}")).await;
        let run = Arc::new(Run { enough: random.random_range(1..=150), ..Run::default() });
        let mut writing = Vec::new();
        for (n, sender) in senders.iter().enumerate() {
            let socket = at(&server, n % 2, sender, "writer").await;
            writing.push(tokio::spawn(write_on(socket, channel.clone(), format!("{number}-{n}"), run.clone())));
        }
        within(PATIENCE, run.reached.notified()).await;
        // Anywhere between two acknowledgements.
        sleep(Duration::from_micros(random.random_range(0..10_000))).await;
        let victim = if number % 2 == 0 { server.gateway(0) } else { server.data_service() };
        victim.kill9().await;
        run.over.store(true, Ordering::Relaxed);
        let known: Vec<Known> = join_all(writing).await.into_iter().map(Result::unwrap).collect();
        let victim = if number % 2 == 0 { server.gateway(0) } else { server.data_service() };
        victim.restart().await;
        ready(&server, 200).await;

        let rows = stored(&watcher, &channel).await;
        for (nonce, id) in known.iter().flat_map(|known| &known.acked) {
            assert_eq!(rows.get(nonce), Some(id), "run {number}: {nonce} was acknowledged");
        }
        // Said again, those whose fate was not known are there once.
        for (sender, open) in senders.iter().zip(&known).filter_map(|(sender, known)| Some((sender, known.open.as_ref()?))) {
            let mut socket = at(&server, 0, sender, "writer").await;
            socket.send_once(&channel, open, open).await;
            let id = text(&socket.hear_past("MESSAGE_ACK").await["d"]["messageId"]);
            assert!(rows.get(open).is_none_or(|before| *before == id), "run {number}: {open} was there already");
        }
        let rows = stored(&watcher, &channel).await;
        let sent: HashSet<_> = known.iter().flat_map(|known| known.acked.keys().chain(&known.open)).collect();
        assert_eq!(rows.keys().collect::<HashSet<_>>(), sent, "run {number}: what is there is what was sent");
        watch.until(&rows.into_values().collect()).await;
        assert!(!watching.is_finished());
        acknowledged += known.iter().map(|known| known.acked.len()).sum::<usize>();
    }
    let seen = watch.seen.lock().unwrap();
    assert_eq!(seen.iter().collect::<HashSet<_>>().len(), seen.len(), "something was heard twice");
    println!("{acknowledged} acknowledged in {} runs: none lost, none doubled, all heard", 2 * RUNS);
}
