//! A running Jiscord.

use std::{
    env, fs,
    net::SocketAddr,
    path::{Path, PathBuf},
    process::{ExitStatus, Output},
    sync::atomic::{AtomicUsize, Ordering},
};

use rusqlite::{Connection, OpenFlags};
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::{Caller, PATIENCE, Person, Proxy, beneath::Beneath, process::Process};

/// Picks the set-up: `services` for the three services and a second gateway, else the all-in-one.
const SHAPE: &str = "JISCORD_E2E";
/// What the services share. Nobody else can reach them.
const JWT_SECRET: &str = "c3a1f86b5e0d97423f1c8ab6d5e9047281f63b0ac9d4e75f";
const SERVICE_TOKEN: &str = "7e92d04b61f8c35aa0d7e41b9c26f58330fb1a6de87c4952";

/// Jiscord with data of its own, at addresses of its own: the all-in-one as one process, or data-service, auth-service and two
/// gateways on a Redis of their own and a keyspace. All end when this is dropped.
pub struct Deployment {
    /// The all-in-one; or data-service, auth-service, a gateway, another gateway. Dropped first: they end before what is
    /// beneath them goes.
    processes: Vec<Process>,
    beneath: Option<Beneath>,
    /// To data-service, where there are two.
    data_wire: Option<Proxy>,
    /// Logs, and the all-in-one's data if nobody says otherwise.
    folder: TempDir,
    data: PathBuf,
    registered: AtomicUsize,
}

/// A row of the event log.
#[derive(Clone, Debug, PartialEq)]
pub struct Logged {
    /// Its position.
    pub p: u64,
    /// Its frame, without the position.
    pub frame: Value,
}

impl Deployment {
    /// One with the default settings.
    pub async fn start() -> Self {
        Self::with(&[]).await
    }

    /// One with these environment variables, in the set-up that the tests are run for.
    pub async fn with(settings: &[(&str, &str)]) -> Self {
        match env::var(SHAPE).as_deref() {
            Err(_) | Ok("" | "one") => Self::one(settings).await,
            Ok("services") => Self::services(settings).await,
            Ok(other) => panic!("{SHAPE} is one or services, not {other:?}"),
        }
    }

    /// The all-in-one.
    pub async fn one(settings: &[(&str, &str)]) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let data = folder.path().join("data");
        Self::one_at(folder, data, settings).await
    }

    /// The all-in-one with its data in this folder.
    pub async fn one_in(data: &Path, settings: &[(&str, &str)]) -> Self {
        Self::one_at(tempfile::tempdir().unwrap(), data.to_owned(), settings).await
    }

    async fn one_at(folder: TempDir, data: PathBuf, settings: &[(&str, &str)]) -> Self {
        let mut settings = owned(settings);
        settings.push(("JISCORD_DATA_DIR".into(), data.to_str().unwrap().into()));
        let processes = vec![Process::start("jiscord", 1, folder.path(), settings).await];
        Self { processes, beneath: None, data_wire: None, folder, data, registered: AtomicUsize::new(0) }
    }

    /// The three services, and a second gateway.
    pub async fn services(settings: &[(&str, &str)]) -> Self {
        Self::services_at(settings, false, Beneath::start().await).await
    }

    /// The same, each of the three on the port that is its own if nobody says otherwise, and looking for the others there.
    pub async fn services_by_default(settings: &[(&str, &str)]) -> Self {
        Self::services_at(settings, true, Beneath::start().await).await
    }

    /// The three services and a second gateway on this database, `host:port`, rather than on the one that all tests share.
    pub async fn services_on(database: &str, settings: &[(&str, &str)]) -> Self {
        Self::services_at(settings, false, Beneath::on(Some(database.to_owned())).await).await
    }

    /// The three services, a second gateway and a second data-service on this. Whoever asks data-service asks over a wire, which
    /// leads to the first one until it is aimed at the other ([`Self::use_data_service`]).
    pub async fn doubled_over(beneath: Beneath, settings: &[(&str, &str)]) -> Self {
        let mut server = Self::services_with(settings, false, true, beneath).await;
        let folder = server.folder.path().to_owned();
        server.processes.push(Process::start("data-service", 2, &folder, server.processes[0].settings()).await);
        server
    }

    async fn services_at(settings: &[(&str, &str)], by_default: bool, beneath: Beneath) -> Self {
        Self::services_with(settings, by_default, false, beneath).await
    }

    async fn services_with(settings: &[(&str, &str)], by_default: bool, wired: bool, beneath: Beneath) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let mut settings = owned(settings);
        settings.extend(beneath.settings());
        settings.push(("JWT_SECRET".into(), JWT_SECRET.into()));
        settings.push(("JISCORD_SERVICE_TOKEN".into(), SERVICE_TOKEN.into()));
        let mut processes = Vec::new();
        let mut data_wire = None;
        for (name, number, url) in [
            ("data-service", 1, Some("DATA_SERVICE_URL")),
            ("auth-service", 1, Some("AUTH_SERVICE_URL")),
            ("gateway", 1, None),
            ("gateway", 2, None),
        ] {
            let port = if by_default && number == 1 { "" } else { "0" };
            let process = Process::start_at(port, name, number, folder.path(), settings.clone()).await;
            let mut address = process.url().to_owned();
            if wired && name == "data-service" {
                let wire = Proxy::to(host(&address)).await;
                address = format!("http://{}", wire.address());
                data_wire = Some(wire);
            }
            settings.extend(url.filter(|_| !by_default).map(|url| (url.to_owned(), address)));
            processes.push(process);
        }
        Self { processes, beneath: Some(beneath), data_wire, data: PathBuf::new(), folder, registered: AtomicUsize::new(0) }
    }

    /// All-in-ones beside each other on one database and one Redis, this many.
    pub async fn ones_on_services(number: usize) -> (Vec<Process>, Beneath, TempDir) {
        let folder = tempfile::tempdir().unwrap();
        let beneath = Beneath::start().await;
        let mut settings =
            owned(&[("JISCORD_STORE", "scylla"), ("JWT_SECRET", JWT_SECRET), ("JISCORD_SERVICE_TOKEN", SERVICE_TOKEN)]);
        settings.extend(beneath.settings());
        let mut processes = Vec::new();
        for number in 1..=number {
            processes.push(Process::start("jiscord", number, folder.path(), settings.clone()).await);
        }
        (processes, beneath, folder)
    }

    /// `jiscord` in front of the three services and the first gateway.
    pub async fn entry(&self) -> Process {
        let [data, auth, gateway] = [0, 1, 2].map(|at| self.processes[at].url().to_owned());
        let settings = [("DATA_SERVICE_URL", data), ("AUTH_SERVICE_URL", auth), ("GATEWAY_URL", gateway)];
        let settings = settings.map(|(name, url)| (name.to_owned(), url)).to_vec();
        Process::start("jiscord", 1, self.folder.path(), settings).await
    }

    /// Where auth-service is.
    pub fn auth(&self) -> String {
        match &self.processes[..] {
            [one] => format!("{}/api/auth", one.url()),
            services => services[1].url().to_owned(),
        }
    }

    /// Where data-service is.
    pub fn data(&self) -> String {
        match (&self.processes[..], &self.data_wire) {
            ([one], _) => format!("{}/api/data", one.url()),
            (_, Some(wire)) => format!("http://{}", wire.address()),
            (services, None) => services[0].url().to_owned(),
        }
    }

    /// Where the gateway is; of several the first.
    pub fn ws(&self) -> String {
        self.ws_of(0)
    }

    /// Where a gateway is.
    pub fn ws_of(&self, gateway: usize) -> String {
        let gateways = if self.is_one() { &self.processes[..] } else { &self.processes[2..4] };
        format!("{}/ws", gateways[gateway % gateways.len()].url().replacen("http", "ws", 1))
    }

    /// Its processes.
    pub fn processes(&self) -> &[Process] {
        &self.processes
    }

    /// data-service's process.
    pub fn data_service(&mut self) -> &mut Process {
        &mut self.processes[0]
    }

    /// Whether it is the all-in-one.
    pub fn is_one(&self) -> bool {
        self.beneath.is_none()
    }

    /// data-service's process, and what is beneath it.
    pub fn data_service_and_beneath(&mut self) -> (&mut Process, &mut Beneath) {
        (&mut self.processes[0], self.beneath.as_mut().unwrap())
    }

    /// The second data-service's process, where there are two.
    pub fn second_data_service(&mut self) -> &mut Process {
        &mut self.processes[4]
    }

    /// From now on this data-service is asked, 0 or 1 of two. What the other one was asked stays there, and nobody hears what
    /// came of it.
    pub fn use_data_service(&self, number: usize) {
        let wire = self.data_wire.as_ref().unwrap();
        wire.aim(host(self.processes[4 * number].url()));
        wire.drop_connections();
    }

    /// auth-service's process.
    pub fn auth_service(&mut self) -> &mut Process {
        &mut self.processes[1]
    }

    /// A gateway's process, 0 or 1.
    pub fn gateway(&mut self, number: usize) -> &mut Process {
        &mut self.processes[2 + number]
    }

    /// What is beneath the services.
    pub fn beneath(&mut self) -> &mut Beneath {
        self.beneath.as_mut().unwrap()
    }

    /// Ends all of it at once, as a power cut would.
    pub async fn kill9(&mut self) {
        for process in self.processes.iter_mut().rev() {
            process.kill9().await;
        }
    }

    /// Asks it to end, and says how it did; of several the first one that did not end well.
    pub async fn terminate(&mut self) -> ExitStatus {
        let mut worst = ExitStatus::default();
        for process in self.processes.iter_mut().rev() {
            let status = process.terminate().await;
            worst = if worst.success() { status } else { worst };
        }
        worst
    }

    /// Starts it again after an end: the same data, the same addresses.
    pub async fn restart(&mut self) {
        for process in &mut self.processes {
            process.restart().await;
        }
    }

    /// The all-in-one's process; of several data-service's.
    pub fn process(&mut self) -> &mut Process {
        &mut self.processes[0]
    }

    /// A process that clients have their sockets at.
    pub fn process_of(&mut self, gateway: usize) -> &mut Process {
        let (first, gateways) = if self.beneath.is_some() { (2, 2) } else { (0, 1) };
        &mut self.processes[first + gateway % gateways]
    }

    /// What becomes of a second all-in-one on the same data.
    pub async fn start_another(&self) -> Output {
        self.processes[0].start_another().await
    }

    /// What signs users' tokens.
    pub fn jwt_secret(&self) -> String {
        self.secret("jwt.secret", JWT_SECRET)
    }

    /// What services show each other.
    pub fn service_token(&self) -> String {
        self.secret("service.token", SERVICE_TOKEN)
    }

    fn secret(&self, file: &str, of_services: &str) -> String {
        match &self.beneath {
            Some(_) => of_services.to_owned(),
            None => fs::read_to_string(self.data_folder().join(file)).unwrap().trim_end().to_owned(),
        }
    }

    /// The event log, in order. It can be read whether the server runs or not.
    pub fn events(&self) -> Vec<Logged> {
        if let Some(beneath) = &self.beneath {
            return beneath.events();
        }
        let flags = OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX;
        let db = Connection::open_with_flags(self.data_folder().join("jiscord.db"), flags).unwrap();
        db.busy_timeout(PATIENCE).unwrap();
        let mut rows = db.prepare("SELECT p, frame FROM events ORDER BY p").unwrap();
        let rows = rows.query_map([], |row| Ok((row.get::<_, i64>(0)?, row.get::<_, String>(1)?))).unwrap();
        let read = |(p, frame): (i64, String)| Logged { p: p.try_into().unwrap(), frame: serde_json::from_str(&frame).unwrap() };
        rows.map(|row| read(row.unwrap())).collect()
    }

    /// A new user, logged in.
    pub async fn register(&self, name: &str) -> Person {
        let auth = Caller::new(self.auth());
        let email = format!("{}@example.com", name.to_lowercase());
        let password = "correct horse";
        auth.post("/register", json!({"username": name, "email": email, "password": password})).await.is(201);
        let login = auth.post("/login", json!({"email": email, "password": password})).await.is(200);
        let token = login["token"].as_str().unwrap();
        Person {
            id: login["user"]["user_id"].as_str().unwrap().to_owned(),
            token: token.to_owned(),
            auth: auth.bearer(token),
            data: Caller::new(self.data()).bearer(token),
            // So that all that is said goes from one gateway to another, where there are two.
            ws: self.ws_of(self.registered.fetch_add(1, Ordering::Relaxed)),
        }
    }

    /// Where the all-in-one keeps its data.
    pub fn data_folder(&self) -> PathBuf {
        self.data.clone()
    }
}

fn host(url: &str) -> SocketAddr {
    url.trim_start_matches("http://").parse().unwrap()
}

fn owned(settings: &[(&str, &str)]) -> Vec<(String, String)> {
    settings.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect()
}
