//! Stands between a store and its database, and loses or holds back what it is told to.

use std::{
    collections::HashSet,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, AtomicU64, Ordering::SeqCst},
    },
    time::Duration,
};

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{
        TcpListener, TcpStream,
        tcp::{OwnedReadHalf, OwnedWriteHalf},
    },
    sync::{Mutex as AsyncMutex, Notify, watch},
    task::JoinSet,
    time::timeout,
};

/// The requests of CQL's binary protocol that do something (v4, section 2.4).
pub(crate) const EXECUTE: u8 = 0x0a;
pub(crate) const BATCH: u8 = 0x0d;

const HEADER: usize = 9;

const PATIENCE: Duration = Duration::from_secs(60);

#[derive(Default)]
struct State {
    /// Nobody gets through, and whoever was through is cut off.
    shut: AtomicBool,
    /// The next request with this opcode that carries these bytes is not answered.
    lose: Mutex<Option<Wanted>>,
    lost: AtomicU64,
    /// The next such requests are held back, one each.
    hold: Mutex<Vec<Wanted>>,
    held: Mutex<Vec<Held>>,
    holds: Notify,
}

/// An opcode, and bytes that the request carries.
type Wanted = (u8, Vec<u8>);

/// A request, and where it was on its way.
struct Held {
    wanted: Wanted,
    to: Arc<AsyncMutex<OwnedWriteHalf>>,
    frame: Vec<u8>,
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
    pub(crate) fn lose_answer(&self, opcode: u8, with: impl AsRef<[u8]>) {
        *self.state.lose.lock().unwrap() = Some((opcode, with.as_ref().to_vec()));
    }

    /// The next such request does not get to the database before [`Proxy::release`].
    pub(crate) fn hold(&self, opcode: u8, with: impl AsRef<[u8]>) {
        self.state.hold.lock().unwrap().push((opcode, with.as_ref().to_vec()));
    }

    /// Returns when so many are held back.
    pub(crate) async fn holds(&self, requests: usize) {
        let held = async {
            while self.state.held.lock().unwrap().len() < requests {
                // One that comes before it is waited for is kept.
                self.state.holds.notified().await;
            }
        };
        timeout(PATIENCE, held).await.expect("as many are held back");
    }

    /// Lets through what was held back for these bytes, however late it is.
    pub(crate) async fn release(&self, with: impl AsRef<[u8]>) {
        let held: Vec<_> = {
            let mut held = self.state.held.lock().unwrap();
            held.extract_if(.., |held| held.wanted.1 == with.as_ref()).collect()
        };
        assert!(!held.is_empty(), "nothing is held back");
        for held in held {
            held.to.lock().await.write_all(&held.frame).await.unwrap();
        }
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

async fn requests(mut from: OwnedReadHalf, to: OwnedWriteHalf, state: &State, unanswered: &Streams) -> std::io::Result<()> {
    let to = Arc::new(AsyncMutex::new(to));
    loop {
        let frame = frame(&mut from).await?;
        let is_it =
            |(opcode, with): &mut Wanted| frame[4] == *opcode && frame[HEADER..].windows(with.len()).any(|bytes| bytes == with);
        if state.lose.lock().unwrap().take_if(is_it).is_some() {
            unanswered.lock().unwrap().insert([frame[2], frame[3]]);
            state.lost.fetch_add(1, SeqCst);
        }
        let hold = state.hold.lock().unwrap().extract_if(.., is_it).next();
        if let Some(wanted) = hold {
            state.held.lock().unwrap().push(Held { wanted, to: to.clone(), frame });
            state.holds.notify_one();
            continue;
        }
        to.lock().await.write_all(&frame).await?;
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
