//! A wire between two processes that can be cut, stalled, slowed down and tampered with.

use std::{
    net::SocketAddr,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{
        TcpListener, TcpStream,
        tcp::{OwnedReadHalf, OwnedWriteHalf},
    },
    sync::watch,
    task::{JoinHandle, JoinSet},
    time::sleep,
};

use crate::beneath::free_port;

/// Changes what passes on one connection.
pub trait Tamper: Send {
    /// What becomes of bytes from whoever connected.
    fn up(&mut self, bytes: &[u8]) -> Vec<u8>;
    /// What becomes of bytes from the other side.
    fn down(&mut self, bytes: &[u8]) -> Vec<u8>;
}

/// Makes a [`Tamper`] for each connection.
pub type Tampering = Arc<dyn Fn() -> Box<dyn Tamper> + Send + Sync>;

/// Passes connections on to an address, at an address of its own. It ends, and its connections, when this is dropped.
pub struct Proxy {
    here: SocketAddr,
    tampering: Option<Tampering>,
    state: watch::Sender<State>,
    passing: Option<JoinHandle<()>>,
}

#[derive(Clone)]
struct State {
    there: SocketAddr,
    /// Bytes wait, on connections up to this one.
    stalled: u64,
    /// Connections up to this one are over.
    cut: u64,
    /// How many there were.
    opened: u64,
    delay: Duration,
    bytes_per_second: Option<u32>,
}

impl Proxy {
    /// To this address.
    pub async fn to(there: SocketAddr) -> Self {
        Self::tampering(there, None).await
    }

    /// To this address, with something that changes what passes.
    pub async fn tampering(there: SocketAddr, tampering: Option<Tampering>) -> Self {
        let state = State { there, stalled: 0, cut: 0, opened: 0, delay: Duration::ZERO, bytes_per_second: None };
        let here = SocketAddr::from(([127, 0, 0, 1], free_port()));
        let mut proxy = Self { here, tampering, state: watch::Sender::new(state), passing: None };
        proxy.mend().await;
        proxy
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.here
    }

    /// Where new connections go from now on.
    pub fn aim(&self, there: SocketAddr) {
        self.state.send_modify(|state| state.there = there);
    }

    /// Ends all connections; new ones are refused until it is mended.
    pub fn cut(&mut self) {
        if let Some(passing) = self.passing.take() {
            passing.abort();
        }
    }

    /// Ends all connections; new ones pass.
    pub fn drop_connections(&self) {
        self.state.send_modify(|state| state.cut = state.opened);
    }

    /// Nothing passes any more on any connection, and nobody is told.
    pub fn stall(&self) {
        self.state.send_modify(|state| state.stalled = u64::MAX);
    }

    /// Nothing passes any more on the connections that there are, and nobody is told; new ones pass.
    pub fn strand(&self) {
        self.state.send_modify(|state| state.stalled = state.opened);
    }

    /// So much later, at most so fast.
    pub fn slow_down(&self, delay: Duration, bytes_per_second: Option<u32>) {
        self.state.send_modify(|state| (state.delay, state.bytes_per_second) = (delay, bytes_per_second));
    }

    /// Everything passes as fast as it comes. What was stalled comes now.
    pub async fn mend(&mut self) {
        self.slow_down(Duration::ZERO, None);
        self.state.send_modify(|state| state.stalled = 0);
        if self.passing.is_some() {
            return;
        }
        // Somebody may have it for a moment.
        let listener = loop {
            match TcpListener::bind(self.here).await {
                Ok(listener) => break listener,
                Err(_) => sleep(Duration::from_millis(20)).await,
            }
        };
        let (state, tampering) = (self.state.clone(), self.tampering.clone());
        self.passing = Some(tokio::spawn(async move {
            let mut connections = JoinSet::new();
            while let Ok((near, _)) = listener.accept().await {
                state.send_modify(|state| state.opened += 1);
                let tamper = tampering.as_ref().map(|make| make());
                connections.spawn(connection(near, state.subscribe(), tamper));
                while connections.try_join_next().is_some() {}
            }
        }));
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.cut();
    }
}

async fn connection(near: TcpStream, mut state: watch::Receiver<State>, tamper: Option<Box<dyn Tamper>>) {
    let (number, there) = {
        let state = state.borrow();
        (state.opened, state.there)
    };
    let Ok(far) = TcpStream::connect(there).await else { return };
    if near.set_nodelay(true).is_err() || far.set_nodelay(true).is_err() {
        return;
    }
    let (near, far) = (near.into_split(), far.into_split());
    let tamper = Arc::new(Mutex::new(tamper));
    let up = pump(near.0, far.1, state.clone(), number, |bytes| change(&tamper, bytes, |tamper, bytes| tamper.up(bytes)));
    let down = pump(far.0, near.1, state.clone(), number, |bytes| change(&tamper, bytes, |tamper, bytes| tamper.down(bytes)));
    tokio::select! {
        _ = async { tokio::join!(up, down) } => {}
        _ = state.wait_for(|state| state.cut >= number) => {}
    }
}

fn change(tamper: &Mutex<Option<Box<dyn Tamper>>>, bytes: &mut Vec<u8>, with: impl FnOnce(&mut dyn Tamper, &[u8]) -> Vec<u8>) {
    if let Some(tamper) = tamper.lock().unwrap_or_else(PoisonError::into_inner).as_deref_mut() {
        *bytes = with(tamper, bytes);
    }
}

/// Until one side ends.
async fn pump(
    mut from: OwnedReadHalf,
    mut to: OwnedWriteHalf,
    mut state: watch::Receiver<State>,
    number: u64,
    change: impl Fn(&mut Vec<u8>),
) {
    loop {
        let rate = state.borrow().bytes_per_second;
        // In steps of a tenth of a second where it is narrow.
        let most = rate.map_or(64 << 10, |rate| (rate / 10).max(1) as usize);
        let mut bytes = Vec::with_capacity(most);
        match (&mut from).take(most as u64).read_buf(&mut bytes).await {
            Ok(0) | Err(_) => break,
            Ok(_) => {}
        }
        let delay = state.borrow().delay;
        sleep(if rate.is_some() { Duration::from_millis(100) } else { delay }).await;
        if state.wait_for(|state| number > state.stalled).await.is_err() {
            break;
        }
        change(&mut bytes);
        if to.write_all(&bytes).await.is_err() {
            break;
        }
    }
    let _ = to.shutdown().await;
}
