//! What a run takes place in: time, chance, two gateways, and what may be wrong with them.

use std::{
    collections::BTreeMap,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use async_trait::async_trait;
use jiscord_core::{Event, Position, Topic, UserId, event::Publish, fault::Result, frame::Attempt, text::Device, time::Clock};
use rand::Rng;
use tokio::{io::DuplexStream, task::AbortHandle, time::Instant};
use tokio_util::sync::CancellationToken;

use super::{record::Record, redis::Server, store::Store};
use crate::{
    Settings,
    bus::{Bus, Heard, Replay},
    chance::{rng, watch},
    claims::{Claim, Claimed, Claims, Holder},
    connection,
    hub::Hub,
    redis::{Redis, RedisBus, RedisClaims},
};

/// The clock that Redis and the store share: it stands still while anybody has something to do.
#[derive(Clone, Copy)]
pub(super) struct SimClock(pub(super) Instant);

impl Clock for SimClock {
    fn now_micros(&self) -> u64 {
        1_795_443_456_400_000 + self.0.elapsed().as_micros() as u64
    }
}

pub(super) fn chance(of: f64) -> bool {
    of > 0.0 && rng().random_bool(of)
}

pub(super) fn below(bound: usize) -> usize {
    rng().random_range(0..bound)
}

pub(super) fn upto(ms: u64) -> Duration {
    Duration::from_millis(rng().random_range(0..=ms))
}

/// A defect that a run has on purpose.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Planted {
    /// Redis calls something published that it forgot.
    Swallowed,
    /// Redis tells nobody, and neither its index nor what follows shows it.
    Hidden,
    /// The bus leaves something out.
    Lost,
    /// The bus tells something twice, at two positions.
    Doubled,
    /// The bus tells two things in the other order.
    Swapped,
    /// What happened while a session was away is not told again.
    NotReplayed,
    /// What is told again goes on beyond the point from which the session is told live.
    NotHeld,
    /// Leaving a guild is not told.
    NotLeft,
    /// Nobody hears of evictions.
    NotEvicted,
    /// Attempts have no order.
    Unordered,
    /// A relay that does nothing.
    NotRelayed,
}

pub(super) struct World {
    pub(super) clock: SimClock,
    pub(super) server: Arc<Server>,
    pub(super) redis: Redis,
    pub(super) store: Arc<Store>,
    pub(super) record: Record,
    pub(super) planted: Option<Planted>,
    pub(super) calm: AtomicBool,
    /// Asks every client for a message in each of its guilds.
    pub(super) probes: watch::Sender<u32>,
    gateways: Mutex<[Option<Gateway>; 2]>,
}

/// An instance that runs.
struct Gateway {
    hub: Arc<Hub>,
    shutdown: CancellationToken,
    tasks: Vec<AbortHandle>,
}

impl World {
    pub(super) fn new(planted: Option<Planted>) -> Arc<Self> {
        let clock = SimClock(Instant::now());
        let server = Server::new(clock);
        let dialled = server.clone();
        let redis = Redis::simulated(Arc::new(move || dialled.dial()));
        let (store, record) = (Arc::new(Store::new(clock)), Record::new(clock, planted));
        let (calm, probes, gateways) = (AtomicBool::new(false), watch::Sender::new(0), Mutex::default());
        Arc::new(Self { clock, server, redis, store, record, planted, calm, probes, gateways })
    }

    pub(super) fn is_calm(&self) -> bool {
        self.calm.load(Ordering::Relaxed)
    }

    /// Nothing goes wrong from here on.
    pub(super) fn calm_down(&self) {
        for calm in [&self.calm, &self.server.calm, &self.store.calm] {
            calm.store(true, Ordering::Relaxed);
        }
        let mut server = self.server.lock();
        (server.up, server.loss) = (true, 0.0);
    }

    pub(super) async fn start(&self, index: usize) {
        let bus = RedisBus::start(&self.redis).await.unwrap();
        let claims = RedisClaims::new(&self.redis, index.to_string(), 8);
        let mut settings = Settings { heartbeat: HEARTBEAT, dispatchers: 2, ..Settings::default() };
        // They are measured in real time, of which a run takes next to none.
        for pace in [&mut settings.limits.commands, &mut settings.limits.command_burst, &mut settings.limits.control_frames] {
            *pace = std::num::NonZeroU32::MAX;
        }
        let (bus, claims): (Arc<dyn Bus>, Arc<dyn Claims>) = match self.planted {
            Some(planted) => (Arc::new(Bent { bus, planted, later: Mutex::default() }), Arc::new(BentClaims { claims, planted })),
            None => (bus, Arc::new(claims)),
        };
        let hub = Hub::new(self.store.clone(), bus, claims, settings);
        let tasks = vec![tokio::spawn(hub.clone().run()).abort_handle()];
        self.gateways.lock().unwrap()[index] = Some(Gateway { hub, shutdown: CancellationToken::new(), tasks });
    }

    /// Kills a gateway.
    pub(super) fn kill(&self, index: usize) {
        if let Some(gateway) = self.gateways.lock().unwrap()[index].take() {
            gateway.tasks.iter().for_each(AbortHandle::abort);
        }
    }

    /// Asks a gateway to go.
    pub(super) fn shut_down(&self, index: usize) {
        if let Some(gateway) = &self.gateways.lock().unwrap()[index] {
            gateway.shutdown.cancel();
        }
    }

    /// A socket at a gateway, if it runs.
    pub(super) fn connect(&self, index: usize) -> Option<DuplexStream> {
        let mut gateways = self.gateways.lock().unwrap();
        let Gateway { hub, shutdown, tasks } = gateways[index].as_mut()?;
        if shutdown.is_cancelled() {
            return None;
        }
        let (here, there) = tokio::io::duplex(1 << 16);
        tasks.push(tokio::spawn(connection::serve(Box::new(there), hub.clone(), shutdown.clone())).abort_handle());
        Some(here)
    }
}

pub(super) const HEARTBEAT: Duration = Duration::from_secs(5);

/// A bus with a defect.
struct Bent {
    bus: Arc<RedisBus>,
    planted: Planted,
    later: Mutex<Vec<Heard>>,
}

#[async_trait]
impl Publish for Bent {
    async fn publish(&self, events: &[Event]) -> Result<()> {
        self.bus.publish(events).await
    }

    async fn pass(&self, event: Event) -> Result<()> {
        self.bus.pass(event).await
    }

    fn ready(&self) -> Result<()> {
        self.bus.ready()
    }
}

#[async_trait]
impl Bus for Bent {
    fn epoch(&self) -> String {
        self.bus.epoch()
    }

    fn start(&self) -> Position {
        self.bus.start()
    }

    async fn head(&self) -> Result<Position> {
        self.bus.head().await
    }

    async fn join(&self, topic: Topic) -> Result<Position> {
        self.bus.join(topic).await
    }

    fn leave(&self, topic: Topic) {
        self.bus.leave(topic);
    }

    async fn replay(&self, topics: &[Topic], after: Position, to: Position) -> Result<Replay> {
        match self.planted {
            Planted::NotReplayed => Ok(Replay::default()),
            Planted::NotHeld => self.bus.replay(topics, after, Position(u64::MAX >> 1)).await,
            _ => self.bus.replay(topics, after, to).await,
        }
    }

    async fn next(&self) -> Heard {
        if let Some(later) = self.later.lock().unwrap().pop() {
            return later;
        }
        loop {
            let heard = self.bus.next().await;
            let lasting = matches!(heard, Heard::Event { p: Some(_), .. });
            let leaving = matches!(&heard, Heard::Event { event, .. } if &*event.op == "MEMBER_REMOVE");
            match self.planted {
                Planted::Lost if lasting && chance(0.05) => {}
                Planted::NotLeft if leaving => {}
                Planted::NotEvicted if matches!(heard, Heard::Evict { .. }) => {}
                Planted::Doubled if lasting && chance(0.05) => {
                    if let Heard::Event { event, p: Some(p) } = &heard {
                        let again = Heard::Event { event: event.clone(), p: Some(Position(p.0 + 1)) };
                        self.later.lock().unwrap().push(again);
                    }
                    return heard;
                }
                Planted::Swapped if lasting && chance(0.05) => {
                    self.later.lock().unwrap().push(heard);
                    return self.bus.next().await;
                }
                _ => return heard,
            }
        }
    }
}

/// Claims with a defect.
struct BentClaims {
    claims: RedisClaims,
    planted: Planted,
}

#[async_trait]
impl Claims for BentClaims {
    async fn claim(&self, holder: &Holder, resumes: bool) -> Result<Option<Claimed>> {
        match self.planted {
            Planted::Unordered => {
                let attempt = Attempt { client: rng().random(), number: 0 };
                self.claims.claim(&Holder { attempt, ..holder.clone() }, resumes).await
            }
            _ => self.claims.claim(holder, resumes).await,
        }
    }

    async fn release(&self, user: UserId, device: Option<&Device>, fence: u64) -> Result<()> {
        self.claims.release(user, device, fence).await
    }

    async fn refresh(&self, own: &[Claim]) -> Result<Vec<usize>> {
        match self.planted {
            Planted::NotEvicted => Ok(Vec::new()),
            _ => self.claims.refresh(own).await,
        }
    }
}

/// A map for counting.
pub(super) type Counts = BTreeMap<&'static str, u64>;
