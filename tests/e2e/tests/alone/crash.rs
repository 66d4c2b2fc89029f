//! What an acknowledgement is worth: the process is killed at a random moment while many write.

use std::{
    collections::{HashMap, HashSet},
    env,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::{Duration, SystemTime},
};

use futures_util::future::join_all;
use jiscord_e2e::{Deployment, PATIENCE, Person, within};
use rand::{Rng, SeedableRng, rngs::StdRng};
use serde_json::Value;
use tokio::{sync::Notify, time::sleep};

const SENDERS: usize = 16;
const RUNS: usize = 10;

/// What a sender knows when the server is gone.
struct Known {
    /// Nonces whose acknowledgement was read, with the message's id.
    acked: HashMap<String, String>,
    /// The nonce whose acknowledgement was not.
    open: String,
}

/// Counts acknowledgements, and tells when there are enough.
struct Count {
    seen: AtomicUsize,
    enough: usize,
    reached: Notify,
}

impl Count {
    fn one_more(&self) {
        if self.seen.fetch_add(1, Ordering::Relaxed) + 1 == self.enough {
            self.reached.notify_one();
        }
    }
}

fn text(value: &Value) -> String {
    value.as_str().unwrap().to_owned()
}

/// Writes as fast as is acknowledged, until the connection is lost. Contents are nonces, so that each can be told apart.
async fn write_on(person: Person, channel: String, prefix: String, count: Arc<Count>) -> Known {
    let mut socket = person.connect().await;
    let mut acked = HashMap::new();
    for n in 0.. {
        let nonce = format!("{prefix}-{n}");
        socket.send_once(&channel, &nonce, &nonce).await;
        loop {
            let Ok(frame) = socket.next().await else { return Known { acked, open: nonce } };
            match frame["op"].as_str().unwrap() {
                "MESSAGE_ACK" if frame["d"]["nonce"] == nonce => break drop(acked.insert(nonce, text(&frame["d"]["messageId"]))),
                "MESSAGE_CREATE" => {}
                _ => panic!("{frame}"),
            }
        }
        count.one_more();
    }
    unreachable!()
}

/// What the event log tells of a channel's messages: (nonce, id), in the order of the log.
fn told(server: &Deployment, channel: &str) -> Vec<(String, String)> {
    let events = server.events();
    assert!(events.windows(2).all(|pair| pair[0].p < pair[1].p));
    let frames = events.iter().map(|event| &event.frame);
    let created = frames.filter(|frame| frame["op"] == "MESSAGE_CREATE" && frame["d"]["channelId"] == channel);
    created
        .map(|frame| {
            assert_eq!(frame["d"]["nonce"], frame["d"]["content"]);
            (text(&frame["d"]["content"]), text(&frame["d"]["messageId"]))
        })
        .collect()
}

/// What a channel's history holds: (nonce, id).
async fn stored(reader: &Person, channel: &str) -> Vec<(String, String)> {
    let history = reader.history(channel).await;
    history.iter().map(|row| (text(&row["content"]), text(&row["message_id"]))).collect()
}

/// Each message once, under one id, in both the history and the log.
fn each_is_stored_and_told_once(rows: &[(String, String)], events: &[(String, String)]) {
    let distinct = |rows: &[(String, String)]| rows.iter().cloned().collect::<HashMap<_, _>>();
    let ids: HashSet<_> = rows.iter().map(|(_, id)| id).collect();
    assert_eq!((distinct(rows).len(), ids.len()), (rows.len(), rows.len()), "a message is stored twice");
    assert_eq!(distinct(events).len(), events.len(), "an event is logged twice");
    assert_eq!(distinct(rows), distinct(events), "the log is not what is stored");
}

#[tokio::test]
async fn what_was_acknowledged_survives_kill_9_once() {
    let seed = env::var("JISCORD_SEED").map_or_else(
        |_| SystemTime::UNIX_EPOCH.elapsed().unwrap().as_nanos() as u64,
        |seed| seed.parse().expect("JISCORD_SEED is a number"),
    );
    println!("to repeat it: JISCORD_SEED={seed}");
    let mut random = StdRng::seed_from_u64(seed);

    let mut server = Deployment::one(&[
        ("JISCORD_LIMIT_COMMANDS_PER_SECOND", "100000"),
        ("JISCORD_LIMIT_COMMANDS_BURST", "100000"),
        ("JISCORD_LIMIT_HTTP_PER_SECOND", "10000"),
        ("JISCORD_LIMIT_HTTP_BURST", "10000"),
    ])
    .await;
    let names: Vec<_> = (0..SENDERS).map(|n| format!("sender{n}")).collect();
    let senders = join_all(names.iter().map(|name| server.register(name))).await;
    let guild = senders[0].create_guild("Writers").await;
    for sender in &senders[1..] {
        sender.join(&guild).await;
    }

    let mut acknowledged = 0;
    for run in 0..RUNS {
        let channel = senders[0].create_channel(&guild, &format!("run {run}")).await;
        let count = Arc::new(Count { seen: AtomicUsize::new(0), enough: random.random_range(1..=400), reached: Notify::new() });
        let writing: Vec<_> = senders
            .iter()
            .enumerate()
            .map(|(n, sender)| tokio::spawn(write_on(sender.clone(), channel.clone(), format!("{run}-{n}"), count.clone())))
            .collect();
        within(PATIENCE, count.reached.notified()).await;
        // Anywhere between two acknowledgements.
        sleep(Duration::from_micros(random.random_range(0..10_000))).await;
        server.kill9().await;
        let logged = told(&server, &channel);
        let known: Vec<Known> = join_all(writing).await.into_iter().map(Result::unwrap).collect();

        server.restart().await;
        let rows = stored(&senders[0], &channel).await;
        each_is_stored_and_told_once(&rows, &logged);
        assert_eq!(told(&server, &channel), logged, "the restart has changed the log");
        let at: HashMap<_, _> = rows.into_iter().collect();
        for (nonce, id) in known.iter().flat_map(|known| &known.acked) {
            assert_eq!(at.get(nonce), Some(id), "run {run}: {nonce} was acknowledged");
        }
        // Nothing is there that nobody has sent.
        let sent: HashSet<_> = known.iter().flat_map(|known| known.acked.keys().chain([&known.open])).collect();
        assert!(at.keys().all(|nonce| sent.contains(nonce)));

        // Said again, those whose fate was not known are there once.
        let again = senders.iter().zip(&known).map(|(sender, known)| async {
            let mut socket = sender.connect().await;
            socket.send_once(&channel, &known.open, &known.open).await;
            let ack = socket.hear_past("MESSAGE_ACK").await;
            assert_eq!(ack["d"]["nonce"], known.open);
            (known.open.clone(), text(&ack["d"]["messageId"]))
        });
        let again = join_all(again).await;
        let rows = stored(&senders[0], &channel).await;
        each_is_stored_and_told_once(&rows, &told(&server, &channel));
        assert_eq!(rows.len(), sent.len());
        let after: HashMap<_, _> = rows.into_iter().collect();
        for (nonce, id) in again {
            assert_eq!(after.get(&nonce), Some(&id), "run {run}: {nonce} was acknowledged the second time");
            assert!(at.get(&nonce).is_none_or(|before| *before == id), "run {run}: {nonce} was there already");
        }
        acknowledged += known.iter().map(|known| known.acked.len()).sum::<usize>();
    }
    println!("{acknowledged} acknowledged in {RUNS} runs: none lost, none doubled");
    assert_eq!(server.terminate().await.code(), Some(0));
}
