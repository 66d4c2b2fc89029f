//! The table of faults: what is done to a running system, and what must hold besides the record.

use std::{
    collections::HashSet,
    fs,
    io::Write,
    path::{Path, PathBuf},
    pin::Pin,
    process::{Command, Stdio},
    time::{Duration, Instant},
};

use futures_util::{FutureExt, future::join_all};
use jiscord_e2e::{Caller, Deployment, End, Raw, Socket, frame};
use rand::Rng;
use serde_json::{Value, json};
use tokio::{
    net::TcpSocket,
    sync::{Semaphore, mpsc, oneshot, watch},
    task::block_in_place,
    time::{interval, sleep, timeout},
};

use crate::{
    clock::Clock,
    stage::{RECOVERY, Shape, Stage, look_into, session},
};

/// How long something may take that is about to come.
const SOON: Duration = Duration::from_secs(30);

/// Up to which age ids are acknowledged where that is waited for, in milliseconds.
const SHORT_AGE: u64 = 3_000;

/// Why a fault was not one.
#[derive(Debug)]
pub enum Stop {
    /// It cannot be done here.
    Skip(String),
    /// Something besides the record did not hold.
    Broken(String),
}

/// What came of a fault.
pub type Outcome = Result<(), Stop>;

/// Which shapes a fault fits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fits {
    /// The all-in-one.
    One,
    /// The services.
    Services,
    /// Both.
    Both,
}

/// A line of the table.
pub struct Fault {
    /// Its number among the kinds of what may go wrong.
    pub row: u8,
    /// What is done.
    pub name: &'static str,
    /// What must hold besides the record.
    pub holds: &'static str,
    /// Where it can be done.
    pub fits: Fits,
    /// How often it is drawn, beside the others; 0: only as often as it must.
    pub weight: u32,
    /// What it needs.
    pub needs: Needs,
    /// Does it, undoes it, and looks whether that holds.
    pub inject: for<'a> fn(&'a mut Stage) -> Pin<Box<dyn Future<Output = Outcome> + 'a>>,
}

/// What a fault needs beside the system.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Needs {
    /// Nothing.
    Nothing,
    /// Programs with failpoints.
    Failpoints,
    /// A database that is nobody else's.
    Database,
    /// Minutes.
    Time,
}

impl Fault {
    /// Whether it can be done to this shape.
    pub fn is_for(&self, shape: Shape) -> bool {
        match self.fits {
            Fits::One => shape == Shape::One,
            Fits::Services => shape == Shape::Services,
            Fits::Both => true,
        }
    }
}

/// Kinds of what may go wrong that no fault is there for, and why.
pub const LEFT_OUT: &[(u8, &str, &str)] = &[
    (25, "two versions at once", "there is no earlier version"),
    (26, "many deleted messages", "messages cannot be deleted yet"),
    (27, "one hot channel", "a matter of speed, which the benchmarks measure"),
    (39, "bad settings", "tested in jiscord-bin-kit and in tests/e2e"),
    (43, "backup under load", "there is no backup command yet"),
];

macro_rules! faults {
    ($($row:literal $fits:ident $weight:literal $needs:ident $name:literal => $inject:expr; $holds:literal)+) => {
        /// All of them.
        pub const FAULTS: &[Fault] = &[$(Fault {
            row: $row,
            name: $name,
            holds: $holds,
            fits: Fits::$fits,
            weight: $weight,
            needs: Needs::$needs,
            inject: |stage| {
                let inject: fn(&mut Stage) -> Pin<Box<dyn Future<Output = Outcome> + '_>> = $inject;
                inject(stage)
            },
        }),+];
    };
}

faults! {
    1 One 4 Nothing "kill -9" => |s| s.kill_gateway().boxed_local(); "the same epoch, no RESYNC; the log has every message"
    1 One 2 Failpoints "ends before COMMIT" => |s| s.ends_at("store.before_commit").boxed_local(); "the same epoch, no RESYNC; the log has every message"
    1 One 2 Failpoints "ends after COMMIT" => |s| s.ends_at("store.after_commit").boxed_local(); "the same epoch, no RESYNC; the log has every message"
    1 One 2 Failpoints "ends between storing and publishing" => |s| s.ends_at("gw.after_store").boxed_local(); "the same epoch, no RESYNC; the log has every message"
    1 One 2 Failpoints "ends between publishing and acknowledging" => |s| s.ends_at("gw.after_publish").boxed_local(); "the same epoch, no RESYNC; the log has every message"
    1 One 2 Failpoints "ends after an acknowledgement" => |s| s.ends_at("gw.after_ack").boxed_local(); "the same epoch, no RESYNC; the log has every message"
    2 Services 4 Nothing "kill -9 of a gateway" => |s| s.kill_gateway().boxed_local(); "clients go on at the other one"
    2 Services 2 Failpoints "a gateway ends between storing and publishing" => |s| s.ends_at("gw.after_store").boxed_local(); "one place an id"
    2 Services 2 Failpoints "a gateway ends between publishing and acknowledging" => |s| s.ends_at("gw.after_publish").boxed_local(); "one place an id"
    2 Services 2 Failpoints "a gateway ends after an acknowledgement" => |s| s.ends_at("gw.after_ack").boxed_local(); "one place an id"
    3 Services 4 Nothing "kill -9 of data-service" => |s| s.kill_data_service().boxed_local(); "a repeat has the same id"
    3 Services 2 Failpoints "data-service ends before it stores" => |s| s.ends_at("store.before_commit").boxed_local(); "a repeat has the same id"
    3 Services 2 Failpoints "data-service ends after it stored" => |s| s.ends_at("store.after_commit").boxed_local(); "a repeat has the same id"
    3 Services 1 Failpoints "data-service ends while it relays" => |s| s.ends_at("relay.after_read").boxed_local(); "one place an id"
    4 Services 2 Nothing "kill -9 of data-service and both gateways while Redis is down" => |s| s.kill_all_without_redis().boxed_local(); "what was stored is told after all are back"
    5 Both 3 Nothing "halted for 5 s" => |s| s.halt(Duration::from_secs(5)).boxed_local(); "who moved to another gateway stays there"
    5 Services 0 Time "halted for 70 s" => |s| s.halt(Duration::from_secs(70)).boxed_local(); "who moved to another gateway stays there"
    6 Services 1 Failpoints "data-service halted before it stores, for longer than ids are acknowledged" => |s| s.halted_before_it_stores().boxed_local(); "the other one stores it once; the one that woke acknowledges nothing"
    7 One 1 Nothing "clock set an hour forth, and back" => |s| clock_steps(s).boxed_local(); "ids grow, nobody is closed"
    7 Services 1 Nothing "data-service with a wrong clock" => |s| s.wrong_clock().boxed_local(); "refuses to start"
    8 Services 1 Nothing "clock of Redis set back 10 s" => |s| s.redis_clock_steps().boxed_local(); "positions grow, resumed over the step"
    9 One 1 Nothing "disk full" => |s| disk_full(s).boxed_local(); "503 storage_full; reading and sockets go on; writes come back with room"
    10 One 1 Failpoints "COMMIT fails" => |s| s.commit_fails().boxed_local(); "opened again; no acknowledgement of what failed"
    11 One 1 Nothing "torn end of the WAL" => |s| s.torn_wal().boxed_local(); "opens, integrity_check is ok, what was acknowledged before that place is there"
    12 One 1 Nothing "a reader that holds the WAL" => |s| s.long_reader().boxed_local(); "writes go on, the WAL is bounded"
    13 One 1 Nothing "a second process on the same folder" => |s| s.second_process().boxed_local(); "exit code 78"
    14 Services 2 Nothing "Redis starts empty" => |s| s.redis_starts_empty().boxed_local(); "everybody reads again"
    15 Services 2 Nothing "Redis starts with an old dump" => |s| s.redis_starts_with_old_dump().boxed_local(); "another epoch"
    16 Services 2 Nothing "fail-over to a Redis that lags" => |s| s.redis_fails_over().boxed_local(); "another epoch"
    17 Services 2 Nothing "Redis halted for 3 s" => |s| s.redis_halts(Duration::from_secs(3)).boxed_local(); "refused at most with `unavailable`"
    17 Services 0 Time "Redis halted for 60 s" => |s| s.redis_halts(Duration::from_secs(60)).boxed_local(); "refused at most with `unavailable`"
    18 Services 2 Nothing "Redis has no memory" => |s| s.redis_full().boxed_local(); "order kept"
    19 Services 2 Nothing "Redis drops slow subscribers" => |s| s.redis_drops_subscribers().boxed_local(); "filled from the log"
    20 Services 2 Nothing "one push lost, the last of its topic" => |s| s.push_lost().boxed_local(); "all learn of it in 10 s"
    21 Services 2 Nothing "wires to Redis dead" => |s| s.redis_wires_dead().boxed_local(); "connected anew, filled"
    22 Services 0 Database "kill -9 of the database" => |s| s.database_killed().boxed_local(); "back by itself"
    23 Services 2 Nothing "answer to a write lost" => |s| s.answer_lost(false).boxed_local(); "a repeat has the same id"
    24 Services 2 Nothing "answer to a claim lost" => |s| s.answer_lost(true).boxed_local(); "a repeat has the same id"
    24 Both 1 Nothing "20 at once with one nonce" => |s| s.contention().boxed_local(); "one id"
    28 Both 3 Nothing "connections cut" => |s| s.cut().boxed_local(); "resumed"
    28 Both 2 Nothing "connections half open" => |s| s.half_open().boxed_local(); "resumed, the old socket is over"
    28 Both 1 Nothing "200 ms later" => |s| s.slow(Duration::from_millis(200), None).boxed_local(); ""
    28 Both 1 Nothing "10 kB/s" => |s| s.slow(Duration::ZERO, Some(10_000)).boxed_local(); ""
    29 Both 1 Nothing "readers that stop reading" => |s| s.no_reading().boxed_local(); "closed with 4011, memory bounded"
    30 Both 1 Nothing "heads that never end, sockets that never identify" => |s| s.slowloris().boxed_local(); "all closed, no file left open"
    31 Both 1 Nothing "frames against the rules" => |s| s.bad_frames().boxed_local(); "closed with the right code, memory bounded"
    32 Both 1 Nothing "IDENTIFY storm, good and bad tokens" => |s| s.identify_storm().boxed_local(); "READY or 1013; 4004 only for bad tokens"
    33 Both 1 Nothing "reconnect storm after kill -9" => |s| s.reconnect_storm().boxed_local(); "all resume in at most six tries"
    34 Both 1 Nothing "login storm" => |s| s.login_storm().boxed_local(); "401, 429 or 503; messages go on"
    35 Both 2 Nothing "process halted for longer than silence lasts" => |s| s.halted_with_heartbeats().boxed_local(); "who wrote meanwhile is not closed"
    36 Both 1 Nothing "two sessions of one device" => |s| s.twins().boxed_local(); "the later lives, the earlier hears 4010"
    37 Services 1 Nothing "the database answers 1 s later" => |s| s.slow_database().boxed_local(); "typing still flows"
    38 Services 1 Nothing "auth-service away" => |s| s.auth_away().boxed_local(); "1013, never 4004"
    40 Both 1 Nothing "no files left" => |s| s.no_files().boxed_local(); "sessions live, no spinning, new ones later"
    41 Both 1 Failpoints "panic in a session" => |s| s.panic().boxed_local(); "that session closes with 4000, the process lives"
    42 Services 1 Failpoints "a gateway ends while it fills a gap" => |s| s.ends_in_fill().boxed_local(); "nothing skipped at the resume"
    42 Services 1 Failpoints "a gateway ends while it loads rights again" => |s| s.ends_in_rights().boxed_local(); "nothing skipped at the resume"
    44 Both 2 Nothing "a program on the SDK ends, and goes on from its ResumePoint" => |s| s.program_restarts().boxed_local(); "told once, nothing missed"
}

fn broken(what: impl Into<String>) -> Outcome {
    Err(Stop::Broken(what.into()))
}

fn hold(holds: bool, what: impl FnOnce() -> String) -> Outcome {
    if holds { Ok(()) } else { broken(what()) }
}

/// What ends a connection, whatever is said before.
async fn end_of(socket: &mut Socket) -> Option<Option<u16>> {
    let listening = async {
        loop {
            if let Err(End(code)) = socket.next().await {
                return code;
            }
        }
    };
    timeout(SOON, listening).await.ok()
}

/// Whether a socket answers.
async fn answers(socket: &mut Socket) -> bool {
    let asking = async {
        socket.say("HEARTBEAT", Value::Null).await;
        loop {
            match socket.next().await {
                Ok(frame) if frame["op"] == "HEARTBEAT_ACK" => return true,
                Ok(_) => {}
                Err(_) => return false,
            }
        }
    };
    timeout(SOON, asking).await.unwrap_or(false)
}

/// How often a session of a storm tries to resume.
const TRIES: u32 = 6;

/// A session that beats until its gateway is killed and then resumes: how long after the kill it is back.
async fn flock(
    url: &str,
    token: &str,
    n: usize,
    few: &Semaphore,
    mut killed: watch::Receiver<Option<Instant>>,
    there: mpsc::UnboundedSender<()>,
) -> Option<Duration> {
    let device = format!("flock {n}");
    let (mut socket, ready) = {
        // Not a storm yet.
        let _permit = few.acquire().await.ok()?;
        loop {
            if let Some(session) = session(url, token, &device).await {
                break session;
            }
            // The server is busy, and the whole is given up when it is so for too long.
            sleep(Duration::from_millis(500)).await;
        }
    };
    let _ = there.send(());
    let mut after = ready["p"].clone();
    let mut beats = interval(Duration::from_secs(1));
    let killed = loop {
        tokio::select! {
            frame = socket.next() => match frame {
                Ok(frame) => if !frame["p"].is_null() { after = frame["p"].clone() },
                // It was killed; when, is told at once.
                Err(_) => break *killed.wait_for(Option::is_some).await.ok()?,
            },
            _ = beats.tick() => socket.say("HEARTBEAT", Value::Null).await,
            // It is given up.
            Err(_) = killed.changed() => return None,
        }
    }?;
    let resume = json!({
        "token": token, "device": device, "sessionId": ready["d"]["sessionId"], "epoch": ready["d"]["epoch"], "after": after,
    });
    let mut wait = Duration::from_secs(1);
    for _ in 0..TRIES {
        sleep(wait.mul_f64(rand::rng().random_range(0.5..1.0))).await;
        wait *= 2;
        let Some(mut socket) = Socket::dial(url, SOON).await else { continue };
        socket.say("RESUME", resume.clone()).await;
        while let Ok(frame) = socket.next().await {
            if frame["op"] == "RESUMED" {
                return Some(killed.elapsed());
            }
        }
    }
    None
}

impl Stage {
    /// Somewhere between two messages.
    async fn a_moment(&mut self) {
        sleep(Duration::from_millis(self.random.random_range(0..400))).await;
    }

    async fn kill_gateway(&mut self) -> Outcome {
        self.a_moment().await;
        let gateway = self.any_gateway();
        self.server.process_of(gateway).kill9().await;
        self.server.process_of(gateway).restart().await;
        Ok(())
    }

    async fn kill_data_service(&mut self) -> Outcome {
        self.a_moment().await;
        // The other one relays what this one leaves behind.
        self.server.process().kill9().await;
        self.server.process().restart().await;
        Ok(())
    }

    /// A message is held between the claim of its nonce and its row, until its id is too old. Everybody else asks the other
    /// data-service meanwhile.
    async fn halted_before_it_stores(&mut self) -> Outcome {
        self.server.use_data_service(1);
        let age = format!("store.acknowledge_within=return({SHORT_AGE})");
        self.server.second_data_service().restart_with(&[("FAILPOINTS", &age)]).await;
        let held = format!("{age};store.before_commit=1*sleep(2000)");
        self.server.process().restart_with(&[("FAILPOINTS", &held)]).await;

        let nonce = format!("held {}", self.random.random::<u32>());
        let path = format!("/channels/{}/messages", self.noise);
        let body = json!({"content": nonce, "nonce": nonce});
        let first = Caller::new(self.server.process().url()).bearer(&self.spare.token);
        let first = async { first.try_post(&path, &body, SOON).await.map(|answer| answer.status) };
        let halting = async {
            let until = Instant::now() + SOON;
            let claimed = loop {
                let claimed = self.server.beneath().claimed(&nonce).await;
                if claimed.is_some() || Instant::now() > until {
                    break claimed;
                }
            };
            // It sleeps before it stores.
            self.server.process().pause();
            // Longer than that age, and than clocks may differ.
            sleep(Duration::from_millis(SHORT_AGE) + Duration::from_secs(3)).await;
            let mut moved = None;
            while moved.is_none() && Instant::now() < until {
                let answer = self.spare.data.try_post(&path, &body, SOON).await.filter(|answer| answer.status == 201);
                moved = answer.and_then(|answer| answer.body["message_id"].as_str().map(str::to_owned));
            }
            self.server.process().go_on();
            (claimed, moved)
        };
        let (first, (claimed, moved)) = tokio::join!(first, halting);
        let history = self.spare.history(&self.noise).await;
        let stored: Vec<_> = history.iter().filter(|row| row["content"] == nonce).map(|row| row["message_id"].as_str()).collect();
        let found = format!("claimed as {claimed:?}, then acknowledged as {moved:?}, the first try {first:?}, stored {stored:?}");
        self.server.use_data_service(0);
        self.server.process().restart().await;
        self.server.second_data_service().restart().await;
        hold(claimed.is_some() && moved.is_some() && claimed != moved, || found.clone())?;
        hold(first != Some(201) && stored == [moved.as_deref()], || found)
    }

    async fn wrong_clock(&mut self) -> Outcome {
        let clock = Clock::new()?;
        clock.set(3_600);
        let (starts, log) = self.server.process().another_starts(&clock.settings(), Duration::from_secs(10)).await;
        hold(!starts && log.contains("ahead of that of Redis"), || format!("with a clock that is an hour ahead: {starts}, {log}"))
    }

    async fn redis_clock_steps(&mut self) -> Outcome {
        let clock = Clock::new()?;
        self.server.beneath().stop_redis();
        self.server.beneath().start_redis_with(&clock.settings());
        hold(self.is_well().await, || "not well on a Redis whose clock can be set".into())?;
        let now = |stage: &mut Self| -> (u64, u64) { redis::cmd("TIME").query(&mut stage.server.beneath().redis()).unwrap() };
        let before = now(self).0;
        clock.set(-10);
        let after = now(self).0;
        hold(after < before, || format!("the clock of Redis stands at {after} after {before}"))?;
        let go_on = self.more_acknowledged(20).await;
        for wire in &self.wires {
            wire.drop_connections();
        }
        let go_on = go_on && self.more_acknowledged(20).await;
        // Before data-services may have no worker number any more, since their clocks differ.
        clock.set(0);
        let well = self.is_well().await;
        hold(go_on && well, || "senders do not go on with a clock that was set back".into())
    }

    async fn commit_fails(&mut self) -> Outcome {
        self.server.process().restart_with(&[("FAILPOINTS", "store.at_commit=10%return")]).await;
        let go_on = self.more_acknowledged(60).await;
        let failed = self.server.process().log().contains("a group of writes failed");
        self.server.process().restart().await;
        hold(go_on && failed, || format!("COMMIT failed: {failed}; senders go on: {go_on}"))
    }

    /// A gateway is killed while it reads what it has not heard, from the log.
    async fn ends_in_fill(&mut self) -> Outcome {
        let gateway = self.any_gateway();
        self.server.process_of(gateway).restart_with(&[("FAILPOINTS", "gw.in_fill=return")]).await;
        let (url, token) = (self.server.ws_of(gateway), self.quiet_token());
        let until = Instant::now() + RECOVERY;
        let mut ended = false;
        while !ended && Instant::now() < until {
            // All others may be at the other gateway, and then this one does not hear the guild. It says nothing more, and is soon
            // closed.
            let _listener = session(&url, &token, "listener").await;
            // Which of the two loses it, is not known.
            self.traps.redis.lose(&format!("guild:{}", self.quiet_guild));
            self.quiet_word().await;
            ended = self.server.process_of(gateway).ended(Duration::from_secs(5)).await;
        }
        self.server.process_of(gateway).restart().await;
        hold(ended, || "no gap was filled".into())
    }

    /// A gateway is killed while it loads rights again after it was cut off from Redis.
    async fn ends_in_rights(&mut self) -> Outcome {
        let gateway = self.any_gateway();
        self.server.process_of(gateway).restart_with(&[("FAILPOINTS", "gw.in_rights=return")]).await;
        // Clients come to it meanwhile, or stay at the other one.
        self.a_moment().await;
        self.server.beneath().redis_wire().drop_connections();
        let ended = self.server.process_of(gateway).ended(RECOVERY).await;
        self.server.process_of(gateway).restart().await;
        hold(ended, || "no rights were loaded again".into())
    }

    async fn program_restarts(&mut self) -> Outcome {
        self.a_moment().await;
        let (done, restarted) = oneshot::channel();
        let restart = async {
            self.restarts.send(done).await.ok()?;
            restarted.await.ok()
        };
        let restarted = timeout(RECOVERY, restart).await;
        hold(matches!(restarted, Ok(Some(()))), || "a program on the SDK does not end".into())
    }

    /// A process ends at a failpoint, some time.
    async fn ends_at(&mut self, failpoint: &str) -> Outcome {
        let gateway = self.any_gateway();
        let process = if failpoint.starts_with("gw.") { self.server.process_of(gateway) } else { self.server.process() };
        // The rarer ones are passed about once a second.
        let percent = if failpoint.starts_with("relay.") { 10 } else { 5 };
        process.restart_with(&[("FAILPOINTS", &format!("{failpoint}={percent}%return"))]).await;
        let url = self.server.ws_of(gateway);
        let (token, noise, run) = (self.spare.token.clone(), self.noise.clone(), self.random.random::<u32>());
        // All others may be at the other gateway.
        let passing = async {
            for n in 0.. {
                let Some((mut socket, _)) = session(&url, &token, "passing by").await else { continue };
                for m in 0.. {
                    socket.send_once(&noise, "x", &format!("passing {run} {n} {m}")).await;
                    if socket.next().await.is_err() {
                        break;
                    }
                    sleep(Duration::from_millis(50)).await;
                }
            }
        };
        let process = if failpoint.starts_with("gw.") { self.server.process_of(gateway) } else { self.server.process() };
        let ended = tokio::select! {
            ended = process.ended(RECOVERY) => ended,
            () = passing => false,
        };
        process.restart().await;
        hold(ended, || format!("{failpoint} was never passed"))
    }

    async fn panic(&mut self) -> Outcome {
        let gateway = self.any_gateway();
        let process = self.server.process_of(gateway);
        process.restart_with(&[("FAILPOINTS", "gw.after_store=30%panic")]).await;
        let Some((mut socket, _)) = self.session(gateway, "panic").await else { return broken("no session") };
        let mut code = None;
        for n in 0..200 {
            socket.send_once(&self.noise, "x", &format!("panic {} {n}", self.random.random::<u32>())).await;
            match socket.next().await {
                Ok(_) => {}
                Err(End(end)) => {
                    code = end;
                    break;
                }
            }
        }
        let process = self.server.process_of(gateway);
        let ended = process.ended(Duration::ZERO).await;
        process.restart().await;
        hold(code == Some(4000) && !ended, || format!("a panic closes with {code:?}; the process ended: {ended}"))
    }

    async fn kill_all_without_redis(&mut self) -> Outcome {
        self.server.beneath().stop_redis();
        self.a_moment().await;
        for gateway in 0..2 {
            self.server.process_of(gateway).kill9().await;
        }
        self.server.process().kill9().await;
        self.server.beneath().start_redis();
        self.server.process().restart().await;
        for gateway in 0..2 {
            self.server.process_of(gateway).restart().await;
        }
        Ok(())
    }

    async fn halt(&mut self, time: Duration) -> Outcome {
        let gateway = self.any_gateway();
        self.server.process_of(gateway).pause();
        sleep(time).await;
        self.server.process_of(gateway).go_on();
        Ok(())
    }

    async fn halted_with_heartbeats(&mut self) -> Outcome {
        let gateway = self.any_gateway();
        let mut sockets = Vec::new();
        for n in 0..8 {
            sockets.extend(self.session(gateway, &format!("patient {n}")).await.map(|(socket, _)| socket));
        }
        self.server.process_of(gateway).pause();
        // Longer than a session may be silent.
        for _ in 0..4 {
            sleep(Duration::from_secs(1)).await;
            for socket in &mut sockets {
                socket.say("HEARTBEAT", Value::Null).await;
            }
        }
        self.server.process_of(gateway).go_on();
        let well = join_all(sockets.iter_mut().map(answers)).await;
        hold(well.len() == 8 && well.iter().all(|well| *well), || format!("sessions that wrote were closed: {well:?}"))
    }

    async fn torn_wal(&mut self) -> Outcome {
        let data = self.server.data_folder();
        let wal = data.join("jiscord.db-wal");
        let acked: HashSet<_> = self.notes.all_acked().into_iter().map(|(nonce, _)| nonce).collect();
        let safe = wal_end(&wal);
        if !self.more_acknowledged(10).await {
            return broken("senders do not go on");
        }
        self.server.process_of(0).kill9().await;
        let copy = tempfile::tempdir().unwrap();
        for file in fs::read_dir(&data).unwrap().flatten() {
            if file.file_type().is_ok_and(|kind| kind.is_file()) {
                fs::copy(file.path(), copy.path().join(file.file_name())).unwrap();
            }
        }
        self.server.process_of(0).restart().await;

        let end = wal_end(&copy.path().join("jiscord.db-wal"));
        // Where the WAL has begun anew since, all of it is after that place.
        let from = if safe.0 == end.0 { safe.1 } else { 32 };
        if end.1 <= from {
            return broken("nothing was written to the WAL");
        }
        for n in 0..10 {
            let torn = tempfile::tempdir().unwrap();
            for file in fs::read_dir(copy.path()).unwrap().flatten() {
                fs::copy(file.path(), torn.path().join(file.file_name())).unwrap();
            }
            let at = self.random.random_range(from..end.1);
            let kind = self.random.random_range(0..3);
            tear(&torn.path().join("jiscord.db-wal"), at, kind);
            let what = || format!("a WAL with damage {kind} at {at} of {from}..{}", end.1);
            let looked = block_in_place(|| look(&torn.path().join("jiscord.db"), &acked));
            match looked {
                Ok((ok, 0)) if ok == "ok" => {}
                found => return broken(format!("{}: {found:?}", what())),
            }
            // The program does not mind either.
            if n == 0 {
                let server = Deployment::one_in(torn.path(), &[]).await;
                let ready = Caller::new(server.data().replace("/api/data", "")).get("/health/ready").await;
                hold(ready.status == 200, || format!("{}: not ready", what()))?;
            }
        }
        Ok(())
    }

    async fn long_reader(&mut self) -> Outcome {
        let file = self.server.data_folder().join("jiscord.db");
        let db = look_into(&file).unwrap();
        db.execute_batch("BEGIN; SELECT count(*) FROM log;").unwrap();
        let go_on = self.more_acknowledged(60).await;
        let wal = fs::metadata(file.with_extension("db-wal")).map_or(0, |file| file.len());
        db.execute_batch("COMMIT").unwrap();
        hold(go_on && wal < 256 << 20, || format!("beside a reader: writes go on: {go_on}, {wal} bytes of WAL"))
    }

    async fn second_process(&mut self) -> Outcome {
        let code = self.server.start_another().await.status.code();
        hold(code == Some(78), || format!("a second process ends with {code:?}"))
    }

    async fn redis_starts_empty(&mut self) -> Outcome {
        self.server.beneath().stop_redis();
        self.a_moment().await;
        self.server.beneath().start_redis();
        Ok(())
    }

    async fn redis_starts_with_old_dump(&mut self) -> Outcome {
        self.server.beneath().save_redis();
        let go_on = self.more_acknowledged(30).await;
        self.server.beneath().stop_redis();
        self.server.beneath().start_redis_again();
        hold(go_on, || "senders do not go on".into())
    }

    async fn redis_fails_over(&mut self) -> Outcome {
        let copy = block_in_place(|| self.server.beneath().copy_redis());
        let go_on = self.more_acknowledged(30).await;
        self.server.beneath().fail_over(copy);
        hold(go_on, || "senders do not go on".into())
    }

    async fn redis_halts(&mut self, time: Duration) -> Outcome {
        self.server.beneath().pause_redis();
        sleep(time).await;
        self.server.beneath().resume_redis();
        Ok(())
    }

    fn set_redis(&mut self, name: &str, value: &str) {
        redis::cmd("CONFIG").arg("SET").arg(name).arg(value).exec(&mut self.server.beneath().redis()).unwrap();
    }

    async fn redis_full(&mut self) -> Outcome {
        self.set_redis("maxmemory", "1");
        sleep(Duration::from_secs(2)).await;
        self.set_redis("maxmemory", "0");
        Ok(())
    }

    async fn redis_drops_subscribers(&mut self) -> Outcome {
        let mut sockets = Vec::new();
        for gateway in 0..2 {
            sockets.push(self.session(gateway, &format!("listener {gateway}")).await);
        }
        self.set_redis("client-output-buffer-limit", "pubsub 1 0 0");
        // More than fits into the part of the buffer that is not counted.
        let post = self.spare.post(&self.noise, json!({"content": "🦀".repeat(4_000)}));
        let posted = timeout(SOON, post).await.is_ok();
        sleep(Duration::from_millis(500)).await;
        self.set_redis("client-output-buffer-limit", "pubsub 33554432 8388608 60");
        hold(posted, || "nothing could be posted".into())
    }

    async fn push_lost(&mut self) -> Outcome {
        self.traps.redis.lose(&format!("guild:{}", self.quiet_guild));
        let word = self.quiet_word().await;
        let patience = Duration::from_secs(10);
        let learned = self.notes.until(patience, |notes| notes.ignorant_of(&word).is_empty()).await;
        hold(!self.traps.redis.is_set(), || "no push was there to be lost".into())?;
        hold(learned, || format!("{:?} did not learn of a lost push in {patience:?}", self.notes.ignorant_of(&word)))
    }

    async fn redis_wires_dead(&mut self) -> Outcome {
        self.server.beneath().redis_wire().strand();
        Ok(())
    }

    async fn database_killed(&mut self) -> Outcome {
        let node = self.node.clone().ok_or_else(|| Stop::Skip("the database is not ours".into()))?;
        block_in_place(|| {
            node.kill();
            node.run("start");
        });
        Ok(())
    }

    async fn answer_lost(&mut self, of_claim: bool) -> Outcome {
        let cql = self.traps.cql.clone();
        let trap = if of_claim { &cql.claim } else { &cql.batch };
        trap.set();
        let until = Instant::now() + SOON;
        while trap.is_set() && Instant::now() < until {
            if !self.more_acknowledged(1).await {
                break;
            }
        }
        hold(!trap.is_set(), || "no answer was there to be lost".into())
    }

    async fn contention(&mut self) -> Outcome {
        let nonce = format!("crowd {}", self.random.random::<u32>());
        let path = format!("/channels/{}/messages", self.noise);
        let body = json!({"content": "all at once", "nonce": nonce});
        let one = || async {
            for _ in 0..100 {
                match self.spare.data.try_post(&path, &body, SOON).await {
                    Some(answer) if answer.status == 201 => return answer.body["message_id"].as_str().map(str::to_owned),
                    _ => sleep(Duration::from_millis(100)).await,
                }
            }
            None
        };
        let ids: HashSet<_> = join_all((0..20).map(|_| one())).await.into_iter().collect();
        hold(ids.len() == 1 && !ids.contains(&None), || format!("one nonce is {ids:?}"))
    }

    async fn cut(&mut self) -> Outcome {
        let gateway = self.any_gateway();
        self.wires[gateway].drop_connections();
        if self.random.random_bool(0.5) {
            self.wires[gateway].cut();
            self.a_moment().await;
            self.wires[gateway].mend().await;
        }
        Ok(())
    }

    async fn half_open(&mut self) -> Outcome {
        let gateway = self.any_gateway();
        self.wires[gateway].strand();
        Ok(())
    }

    async fn slow(&mut self, delay: Duration, bytes_per_second: Option<u32>) -> Outcome {
        for wire in &self.wires {
            wire.slow_down(delay, bytes_per_second);
        }
        let go_on = self.more_acknowledged(20).await;
        for wire in &self.wires {
            wire.slow_down(Duration::ZERO, None);
        }
        hold(go_on, || "nothing is acknowledged on a slow wire".into())
    }

    async fn no_reading(&mut self) -> Outcome {
        // So many of what waits for one of them, and of what one session needs besides.
        const EACH: u64 = 65_536 + 128 * 1_024;
        // Not so often that a gateway which reads them late takes them for a flood.
        const BEAT: Duration = Duration::from_millis(1_500);
        let readers_wanted = (self.many / 10).clamp(10, 100);
        let gateway = self.any_gateway();
        let url = self.server.ws_of(gateway);
        let before = self.server.process_of(gateway).memory();
        let mut readers = Vec::new();
        for n in 0..readers_wanted {
            let socket = TcpSocket::new_v4().unwrap();
            // Little room, so that it is soon full.
            socket.set_recv_buffer_size(4_096).unwrap();
            let Some(mut reader) = Socket::dial_from(socket, &url, SOON).await else { return broken("no connection") };
            reader.say("IDENTIFY", json!({"token": self.spare.token, "device": format!("deaf {n}")})).await;
            let ready = timeout(SOON, reader.hear_past("READY")).await;
            hold(ready.is_ok(), || "no READY".into())?;
            readers.push(reader);
        }
        let (path, body) = (format!("/channels/{}/messages", self.noise), json!({"content": "🦀".repeat(4_000)}));
        let (mut highest, mut posted, mut beaten) = (before, 0, Instant::now());
        // More than the kernel's buffers and ours hold.
        for n in 0..50 {
            let posts = (0..8).map(|_| self.spare.data.try_post(&path, &body, SOON));
            let stored = join_all(posts).await.iter().flatten().filter(|answer| answer.status == 201).count();
            hold(stored > 0, || format!("nothing can be posted beside deaf readers, at {n}"))?;
            posted += stored;
            // They are there, they only do not listen.
            if beaten.elapsed() > BEAT {
                beaten = Instant::now();
                let beats = readers.iter_mut().map(|reader| reader.say("HEARTBEAT", Value::Null));
                join_all(beats.map(|beat| timeout(Duration::from_millis(10), beat))).await;
            }
            highest = highest.max(self.server.process_of(gateway).memory());
        }
        let limit = EACH * readers.len() as u64 + (32 << 20);
        let mib = |bytes: u64| bytes as f64 / f64::from(1 << 20);
        self.figures.push(format!(
            "29: {} readers stopped reading while {posted} messages of 16 kB were posted: {:.1} MiB before, {:.1} MiB at the highest; the bound is {:.1} MiB more",
            readers.len(), mib(before), mib(highest), mib(limit),
        ));
        // What the kernel holds for them is not the process's.
        hold(highest - before < limit, || format!("{} bytes for {} deaf readers", highest - before, readers.len()))?;
        let ends = join_all(readers.iter_mut().map(end_of)).await;
        for code in ends {
            // Cut off where not even the close fits; or nobody here had the time to beat for it.
            hold(matches!(code, Some(Some(4011 | 4009) | None)), || format!("a deaf reader was closed with {code:?}"))?;
        }
        Ok(())
    }

    async fn slowloris(&mut self) -> Outcome {
        let gateway = self.any_gateway();
        let url = self.server.ws_of(gateway);
        let before = self.server.process_of(gateway).files();
        let slow = |n: usize| {
            let url = url.clone();
            async move {
                let mut raw = Raw::connect(&url).await;
                match n % 3 {
                    0 => {}
                    1 => {
                        let _ = raw.write(b"GET /ws HTTP/1.1\r\nHost: x\r\nA: ").await;
                        for _ in 0..30 {
                            sleep(Duration::from_millis(100)).await;
                            let _ = raw.write(b"a").await;
                        }
                    }
                    _ => drop(raw.upgrade("").await),
                }
                raw.ended().await;
            }
        };
        join_all((0..30).map(slow)).await;
        // Clients come and go meanwhile, about twenty of them.
        let after = self.server.process_of(gateway).files();
        hold(after < before + 28, || format!("{after} files open after {before}"))
    }

    async fn bad_frames(&mut self) -> Outcome {
        let gateway = self.any_gateway();
        let url = self.server.ws_of(gateway);
        let before = self.server.process_of(gateway).memory();
        let huge = [&[0x81, 0xff, 0x7f, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff], &[0; 4][..]].concat();
        let beyond = [&[0x81, 0xff, 0x80, 0, 0, 0, 0, 0, 0, 0], &[0; 4][..]].concat();
        let fragments = [frame(0x01, b"{"), frame(0x00, b" ").repeat(1_000)].concat();
        let endless = [frame(0x01, b"{"), frame(0x00, &[b' '; 60_000]).repeat(30)].concat();
        for (name, bytes, right) in [
            ("a length of 2^63 - 1", huge, &[1009, 1002][..]),
            ("a length of 2^63", beyond, &[1009, 1002]),
            ("fragments of one byte", fragments, &[1009]),
            ("endless fragments", endless, &[1009]),
            ("a flood of pings", frame(0x89, b"").repeat(10_000), &[4008]),
            ("a megabyte of pongs", frame(0x8a, &[0; 100]).repeat(10_000), &[4008]),
        ] {
            let mut raw = Raw::connect(&url).await;
            hold(raw.upgrade("").await == 101, || "no WebSocket".into())?;
            let _ = raw.write(&bytes).await;
            // None: the close was lost with what had not been read.
            let code = raw.close_code().await;
            hold(code.is_none_or(|code| right.contains(&code)), || format!("{name} is closed with {code:?}"))?;
        }
        let grown = self.server.process_of(gateway).memory().saturating_sub(before);
        hold(grown < 32 << 20, || format!("{grown} bytes for bad frames"))
    }

    async fn identify_storm(&mut self) -> Outcome {
        let gateway = self.any_gateway();
        let (url, token) = (self.server.ws_of(gateway), self.spare.token.clone());
        let one = |n: usize| {
            let (url, good) = (url.clone(), n.is_multiple_of(2));
            let token = if good { token.clone() } else { format!("{token}x") };
            async move {
                let Some(mut socket) = Socket::dial(&url, SOON).await else { return Ok(()) };
                socket.say("IDENTIFY", json!({"token": token, "device": format!("storm {n}")})).await;
                loop {
                    match socket.next().await {
                        Ok(frame) if frame["op"] == "READY" => return hold(good, || "READY for a bad token".into()),
                        Ok(_) => {}
                        Err(End(Some(4004))) => return hold(!good, || "4004 for a good token".into()),
                        Err(End(None | Some(1013))) => return Ok(()),
                        Err(End(Some(code))) => return broken(format!("IDENTIFY in a storm is closed with {code}")),
                    }
                }
            }
        };
        let many = self.many;
        join_all((0..many).map(one)).await.into_iter().collect()
    }

    async fn reconnect_storm(&mut self) -> Outcome {
        let gateway = self.any_gateway();
        let url = self.server.ws_of(gateway);
        let (kill, killed) = watch::channel(None);
        let (there, mut begun) = mpsc::unbounded_channel();
        let few = Semaphore::new(25);
        let one = |n: usize| {
            let token = &self.crowd[n % self.crowd.len()].token;
            flock(&url, token, n, &few, killed.clone(), there.clone())
        };
        let flock = join_all((0..self.many).map(one));
        let many = self.many;
        let process = self.server.process_of(gateway);
        let killing = async move {
            for n in 0..many {
                if timeout(RECOVERY, begun.recv()).await.is_err() {
                    return broken(format!("{n} of {many} sessions could begin"));
                }
            }
            process.kill9().await;
            let _ = kill.send(Some(Instant::now()));
            process.restart().await;
            Ok(())
        };
        let both = async { tokio::try_join!(async { Ok(flock.await) }, killing) };
        let Ok(back) = timeout(4 * RECOVERY, both).await else { return broken("a storm of sessions does not end") };
        let (back, ()) = back?;
        let mut times: Vec<_> = back.iter().flatten().copied().collect();
        times.sort_unstable();
        hold(times.len() == many, || format!("{} of {many} sessions resumed in {TRIES} tries", times.len()))?;
        let [half, all] = [many / 2, many - 1].map(|at| times[at].as_secs_f64());
        self.figures
            .push(format!("33: of {many} sessions half had resumed {half:.1} s after the kill, and all after {all:.1} s"));
        Ok(())
    }

    async fn login_storm(&mut self) -> Outcome {
        let auth = Caller::new(self.server.auth());
        let body = json!({"email": "ada@example.com", "password": "not the right one"});
        let logins = join_all((0..60).map(|_| auth.try_post("/login", &body, SOON)));
        let (answers, go_on) = tokio::join!(logins, self.more_acknowledged(20));
        let statuses: Vec<_> = answers.iter().flatten().map(|answer| answer.status).collect();
        hold(statuses.iter().all(|status| [401, 429, 503].contains(status)), || format!("logins get {statuses:?}"))?;
        hold(statuses.contains(&429) || statuses.contains(&503), || "a storm of logins is not slowed down".into())?;
        hold(go_on, || "nothing is acknowledged beside logins".into())
    }

    async fn twins(&mut self) -> Outcome {
        let mut last: Option<Socket> = None;
        for n in 0..10 {
            let Some((new, _)) = self.session(n, "twin").await else { return broken("no session for a twin") };
            if let Some(mut old) = last.replace(new) {
                let code = end_of(&mut old).await;
                hold(code == Some(Some(4010)), || format!("the earlier twin is closed with {code:?}"))?;
            }
        }
        let lives = match &mut last {
            Some(last) => answers(last).await,
            None => false,
        };
        hold(lives, || "the later twin does not live".into())
    }

    async fn slow_database(&mut self) -> Outcome {
        let (Some((mut one, _)), Some((mut other, _))) = (self.session(0, "typer").await, self.session(1, "reader").await) else {
            return broken("no session");
        };
        self.server.beneath().database_wire().slow_down(Duration::from_secs(1), None);
        sleep(Duration::from_secs(1)).await;
        one.say("TYPING_START", json!({"channelId": self.noise})).await;
        let flows = timeout(Duration::from_secs(10), other.hear_past("TYPING")).await.is_ok();
        self.server.beneath().database_wire().slow_down(Duration::ZERO, None);
        hold(flows, || "no typing while the database is slow".into())
    }

    async fn auth_away(&mut self) -> Outcome {
        self.server.auth_service().kill9().await;
        let url = self.server.ws_of(self.random.random_range(0..2));
        let Some(mut socket) = Socket::dial(&url, SOON).await else { return broken("no connection") };
        socket.say("IDENTIFY", json!({"token": self.spare.token, "device": "early"})).await;
        let code = end_of(&mut socket).await;
        self.server.auth_service().restart().await;
        hold(code == Some(Some(1013)), || format!("IDENTIFY without auth-service is closed with {code:?}"))
    }

    async fn no_files(&mut self) -> Outcome {
        let gateway = self.any_gateway();
        let Some((mut live, _)) = self.session(gateway, "there before").await else { return broken("no session") };
        let url = self.server.ws_of(gateway);
        let process = self.server.process_of(gateway);
        process.limit_files(Some(process.files() as u64));
        let dial = || Socket::dial(&url, Duration::from_secs(2));
        let dialled = join_all((0..20).map(|_| dial()));
        let before = process.cpu();
        let (_, lives) = tokio::join!(dialled, answers(&mut live));
        let used = process.cpu().saturating_sub(before);
        process.limit_files(None);
        hold(lives, || "a session ended since there were no files".into())?;
        // Two seconds of waiting with a little work beside.
        hold(used < Duration::from_millis(1_500), || format!("{used:?} of CPU in two seconds without files"))?;
        let until = Instant::now() + SOON;
        while Socket::dial(&url, Duration::from_secs(2)).await.is_none() {
            hold(Instant::now() < until, || "no new session after there are files again".into())?;
        }
        Ok(())
    }
}

/// Not the system itself, which has the machine's clock, but another one beside it.
async fn clock_steps(_: &mut Stage) -> Outcome {
    let folder = tempfile::tempdir().unwrap();
    let clock = Clock::new()?;
    let settings = [clock.settings(), vec![("JISCORD_HEARTBEAT_MS", "2000")]].concat();
    let mut server = Deployment::one_in(&folder.path().join("data"), &settings).await;
    let ada = server.register("ada").await;
    let guild = ada.create_guild("Clocks").await;
    let channel = ada.create_channel(&guild, "clocks").await;
    let Some((mut live, _)) = session(&server.ws(), &ada.token, "live").await else { return broken("no session") };
    let mut ids = Vec::new();
    for (n, step) in [0, 3_600, 0, -3_600, 0].into_iter().enumerate() {
        clock.set(step);
        for m in 0..5 {
            live.send_once(&channel, "tick", &format!("{n} {m}")).await;
            let ack = timeout(SOON, live.hear_past("MESSAGE_ACK")).await;
            let Ok(ack) = ack else { return broken(format!("nothing is acknowledged with the clock {step} s ahead")) };
            ids.push(ack["d"]["messageId"].as_str().unwrap_or_default().to_owned());
        }
        // Longer than a session may be silent by its clock, and not by ours.
        hold(answers(&mut live).await, || format!("a session ends with the clock {step} s ahead"))?;
    }
    // It knows the ids of before, whatever its clock says. Ada's token is from the future then.
    clock.set(-3_600);
    server.restart().await;
    let bob = server.register("bob").await;
    bob.join(&guild).await;
    let last = bob.post(&channel, json!({"content": "tick"})).await;
    ids.push(last["message_id"].as_str().unwrap_or_default().to_owned());
    clock.set(0);
    let mut history: Vec<_> =
        ada.history(&channel).await.iter().map(|row| row["message_id"].as_str().unwrap().to_owned()).collect();
    history.reverse();
    hold(history == ids, || format!("with clocks that step the history is {history:?}, and was written as {ids:?}"))
}

/// The salts of a WAL, and the end of what is valid in it.
fn wal_end(wal: &Path) -> (Vec<u8>, u64) {
    let bytes = fs::read(wal).unwrap_or_default();
    let Some(salts) = bytes.get(16..24) else { return (Vec::new(), 32) };
    let page = u32::from_be_bytes(bytes[8..12].try_into().unwrap()) as usize;
    let frames = bytes[32..].chunks_exact(24 + page);
    let valid = frames.take_while(|frame| &frame[8..16] == salts).count();
    (salts.to_vec(), (32 + valid * (24 + page)) as u64)
}

fn tear(wal: &Path, at: u64, kind: u32) {
    let mut bytes = fs::read(wal).unwrap();
    let at = usize::try_from(at).unwrap();
    match kind {
        0 => bytes.truncate(at),
        1 => {
            let end = (at + 512).min(bytes.len());
            bytes[at..end].fill(0);
        }
        _ => bytes[at] ^= 0x55,
    }
    fs::write(wal, bytes).unwrap();
}

/// What integrity_check says, and how many of these messages are missing.
fn look(file: &Path, contents: &HashSet<String>) -> rusqlite::Result<(String, usize)> {
    let db = look_into(file)?;
    let ok = db.query_row("PRAGMA integrity_check", [], |row| row.get(0))?;
    let mut rows = db.prepare("SELECT content FROM messages")?;
    let there: HashSet<String> = rows.query_map([], |row| row.get(0))?.collect::<Result<_, _>>()?;
    Ok((ok, contents.difference(&there).count()))
}

/// A file system of its own, gone when this is dropped.
struct SmallDisk(PathBuf);

impl SmallDisk {
    fn mount(folder: &Path) -> Option<Self> {
        let mount =
            Command::new("mount").args(["-t", "tmpfs", "-o", "size=16m", "tmpfs"]).arg(folder).stderr(Stdio::null()).status();
        mount.is_ok_and(|status| status.success()).then(|| Self(folder.to_owned()))
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("-l").arg(&self.0).status();
    }
}

/// Not the system itself, which has the machine's disk, but another one beside it.
async fn disk_full(stage: &mut Stage) -> Outcome {
    let folder = tempfile::tempdir().unwrap();
    let Some(disk) = SmallDisk::mount(folder.path()) else {
        return Err(Stop::Skip("a small file system can only be mounted by root".into()));
    };
    let data = folder.path().join("data");
    let mut server =
        Deployment::one_in(&data, &[("JISCORD_LIMIT_HTTP_PER_SECOND", "10000"), ("JISCORD_LIMIT_HTTP_BURST", "10000")]).await;
    let ada = server.register("ada").await;
    let channel = ada.create_channel(&ada.create_guild("Full").await, "full").await;
    let Some((mut live, _)) = session(&server.ws(), &ada.token, "live").await else { return broken("no session") };

    let filler = folder.path().join("filler");
    let mut file = fs::File::create(&filler).unwrap();
    while file.write_all(&[0; 1 << 16]).is_ok() {}
    let room = stage.random.random_range(1..16) << 16;
    let filled = file.metadata().unwrap().len();
    file.set_len(filled.saturating_sub(room)).unwrap();

    let path = format!("/channels/{channel}/messages");
    let body = |n: usize| json!({"content": format!("{n} {}", "x".repeat(3_900)), "nonce": n.to_string()});
    let mut ids = Vec::new();
    let refused = loop {
        let answer = ada.data.post(&path, body(ids.len())).await;
        match answer.body["message_id"].as_str() {
            Some(id) if answer.status == 201 && ids.len() < 2_000 => ids.push(id.to_owned()),
            _ => break answer,
        }
    };
    hold((refused.status, refused.body["code"].as_str()) == (503, Some("storage_full")), || format!("a full disk: {refused:?}"))?;
    hold(ada.data.get(&format!("{path}?limit=1")).await.status == 200, || "no reading on a full disk".into())?;
    hold(answers(&mut live).await, || "no socket on a full disk".into())?;

    drop(file);
    fs::remove_file(filler).unwrap();
    let until = Instant::now() + RECOVERY;
    loop {
        let answer = ada.data.post(&path, body(ids.len())).await;
        if answer.status == 201 {
            ids.push(answer.body["message_id"].as_str().unwrap().to_owned());
            break;
        }
        hold(Instant::now() < until, || format!("no writing with room again: {answer:?}"))?;
        sleep(Duration::from_millis(100)).await;
    }
    server.kill9().await;
    server.restart().await;
    let mut history: Vec<_> =
        ada.history(&channel).await.iter().map(|row| row["message_id"].as_str().unwrap().to_owned()).collect();
    history.reverse();
    drop((server, disk));
    hold(history == ids, || format!("{} stored, {} acknowledged on a disk that was full", history.len(), ids.len()))
}
