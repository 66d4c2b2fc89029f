//! `./x services`: the three services and a second gateway, on a Redis and a Cassandra of their own.

use std::{
    fs::File,
    io::Read,
    net::TcpListener,
    process::{Command, ExitCode},
    time::Duration,
};

use tokio::{
    signal::unix::{SignalKind, signal},
    time::interval,
};

use crate::{
    cargo,
    cassandra::Cassandra,
    redis::Redis,
    report::{Outcome, Stop, done, failed},
    server::Server,
    workspace::Workspace,
};

/// Packages and their programs, in the order in which they need each other, with the ports that are theirs.
const SERVICES: [(&str, &str, u16); 3] = [
    ("jiscord-data-service", "data-service", 3001),
    ("jiscord-auth-service", "auth-service", 3003),
    ("jiscord-gateway-service", "gateway", 3002),
];

pub(crate) fn run() -> ExitCode {
    // Signals are listened to from now on, so that a Ctrl-C during the start leaves nothing behind either.
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let ended = runtime.map_err(|error| Stop::Failed(error.to_string())).and_then(|runtime| runtime.block_on(serve()));
    match ended {
        Ok(()) => ExitCode::SUCCESS,
        Err(Stop::Failed(why) | Stop::Skipped(why)) => {
            eprintln!("x: {why}");
            ExitCode::FAILURE
        }
    }
}

async fn serve() -> Outcome {
    let listen = |kind| signal(kind).map_err(|error| Stop::Failed(error.to_string()));
    let (mut interrupt, mut terminate) = (listen(SignalKind::interrupt())?, listen(SignalKind::terminate())?);
    let workspace = Workspace::read()?;
    done(cargo().arg("build").args(SERVICES.iter().flat_map(|(package, ..)| ["-p", package])))?;
    let redis = Redis::start()?;
    let cassandra = Cassandra::start(workspace.target())?;

    let mut settings = vec![
        ("REDIS_URL", redis.url.clone()),
        ("SCYLLA_CONTACT_POINTS", cassandra.address.clone()),
        ("JWT_SECRET", secret()?),
        ("JISCORD_SERVICE_TOKEN", secret()?),
    ];
    let mut running = Vec::new();
    let another_gateway = ("", SERVICES[2].1, 0);
    for (_, name, port) in SERVICES.into_iter().chain([another_gateway]) {
        let mut command = Command::new(workspace.program(name));
        let port = if TcpListener::bind(("127.0.0.1", port)).is_ok() { port } else { 0 };
        command.env("PORT", port.to_string()).envs(settings.iter().map(|(name, value)| (*name, value)));
        let server = Server::wait(&mut command)?;
        match name {
            "data-service" => settings.push(("DATA_SERVICE_URL", server.url.clone())),
            "auth-service" => settings.push(("AUTH_SERVICE_URL", server.url.clone())),
            _ => {}
        }
        running.push((name, server));
    }

    println!("\nJiscord runs as three services:");
    for (name, server) in &running {
        match server.url.strip_prefix("http") {
            Some(rest) if *name == "gateway" => println!("  {name:13} ws{rest}/ws"),
            _ => println!("  {name:13} {}", server.url),
        }
    }
    println!("  {:13} {}", "Redis", redis.url);
    println!("  {:13} {}", "Cassandra", cassandra.address);
    println!("Ctrl-C stops all of it.");

    let mut looks = interval(Duration::from_millis(500));
    let lost = loop {
        tokio::select! {
            _ = interrupt.recv() => break None,
            _ = terminate.recv() => break None,
            _ = looks.tick() => {}
        }
        if let Some(name) = running.iter_mut().find_map(|(name, server)| server.has_ended().then_some(*name)) {
            break Some(name);
        }
    };
    // Who needs others goes first. What they stand on is stopped when it goes out of scope.
    for (name, server) in running.into_iter().rev().filter(|(name, _)| Some(*name) != lost) {
        if let Err(Stop::Failed(why) | Stop::Skipped(why)) = server.stop() {
            eprintln!("x: {name}: {why}");
        }
    }
    lost.map_or(Ok(()), |name| failed(format!("{name} has ended")))
}

/// 32 random bytes in hex.
fn secret() -> Result<String, Stop> {
    let mut bytes = [0; 32];
    let read = File::open("/dev/urandom").and_then(|mut random| random.read_exact(&mut bytes));
    read.map_err(|error| Stop::Failed(format!("no random bytes: {error}")))?;
    Ok(bytes.iter().map(|byte| format!("{byte:02x}")).collect())
}
