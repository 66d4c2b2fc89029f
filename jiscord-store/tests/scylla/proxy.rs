//! Stands between a store and its database, and loses what it is told to lose.

use std::{
    collections::HashSet,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, AtomicU64, Ordering::SeqCst},
    },
};

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{
        TcpListener, TcpStream,
        tcp::{OwnedReadHalf, OwnedWriteHalf},
    },
    sync::watch,
    task::JoinSet,
};

/// The requests of CQL's binary protocol that do something (v4, section 2.4).
pub(crate) const EXECUTE: u8 = 0x0a;
pub(crate) const BATCH: u8 = 0x0d;

const HEADER: usize = 9;

#[derive(Default)]
struct State {
    /// Nobody gets through, and whoever was through is cut off.
    shut: AtomicBool,
    /// The next request with this opcode that carries these bytes is not answered.
    lose: Mutex<Option<(u8, Vec<u8>)>>,
    lost: AtomicU64,
}

pub(crate) struct Proxy {
    pub(crate) address: String,
    state: Arc<State>,
    cut: watch::Sender<u64>,
    _tasks: JoinSet<()>,
}

impl Proxy {
    pub(crate) async fn before(database: String) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap().to_string();
        let state = Arc::new(State::default());
        let cut = watch::Sender::new(0);
        let mut tasks = JoinSet::new();
        tasks.spawn({
            let (state, cut) = (state.clone(), cut.clone());
            async move {
                let mut connections = JoinSet::new();
                loop {
                    let (client, _) = listener.accept().await.unwrap();
                    if state.shut.load(SeqCst) {
                        continue;
                    }
                    let Ok(server) = TcpStream::connect(&database).await else { continue };
                    let (mut cut, state) = (cut.subscribe(), state.clone());
                    connections.spawn(async move {
                        let (from_client, to_client) = client.into_split();
                        let (from_server, to_server) = server.into_split();
                        let unanswered = Mutex::default();
                        tokio::select! {
                            _ = cut.changed() => {}
                            _ = requests(from_client, to_server, &state, &unanswered) => {}
                            _ = answers(from_server, to_client, &unanswered) => {}
                        }
                    });
                }
            }
        });
        Self { address, state, cut, _tasks: tasks }
    }

    /// Cuts all connections, and takes none until it is opened.
    pub(crate) fn shut(&self) {
        self.state.shut.store(true, SeqCst);
        self.cut.send_modify(|cuts| *cuts += 1);
    }

    pub(crate) fn open(&self) {
        self.state.shut.store(false, SeqCst);
    }

    /// The next such request gets to the database, but its answer does not come back.
    pub(crate) fn lose_answer(&self, opcode: u8, with: &str) {
        *self.state.lose.lock().unwrap() = Some((opcode, with.as_bytes().to_vec()));
    }

    /// How many answers were lost.
    pub(crate) fn lost(&self) -> u64 {
        self.state.lost.load(SeqCst)
    }
}

/// Version, flags, stream (2), opcode, length (4), body.
async fn frame(from: &mut OwnedReadHalf) -> std::io::Result<Vec<u8>> {
    let mut frame = vec![0; HEADER];
    from.read_exact(&mut frame).await?;
    let length = u32::from_be_bytes([frame[5], frame[6], frame[7], frame[8]]) as usize;
    frame.resize(HEADER + length, 0);
    from.read_exact(&mut frame[HEADER..]).await?;
    Ok(frame)
}

type Streams = Mutex<HashSet<[u8; 2]>>;

async fn requests(mut from: OwnedReadHalf, mut to: OwnedWriteHalf, state: &State, unanswered: &Streams) -> std::io::Result<()> {
    loop {
        let frame = frame(&mut from).await?;
        {
            let mut lose = state.lose.lock().unwrap();
            let is_it = |(opcode, with): &mut (u8, Vec<u8>)| {
                frame[4] == *opcode && frame[HEADER..].windows(with.len()).any(|bytes| bytes == with)
            };
            if lose.take_if(is_it).is_some() {
                unanswered.lock().unwrap().insert([frame[2], frame[3]]);
                state.lost.fetch_add(1, SeqCst);
            }
        }
        to.write_all(&frame).await?;
    }
}

async fn answers(mut from: OwnedReadHalf, mut to: OwnedWriteHalf, unanswered: &Streams) -> std::io::Result<()> {
    loop {
        let frame = frame(&mut from).await?;
        let lost = unanswered.lock().unwrap().remove(&[frame[2], frame[3]]);
        if !lost {
            to.write_all(&frame).await?;
        }
    }
}
