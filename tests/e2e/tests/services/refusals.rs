//! A wrong configuration is told in a line each, with the mend, and no secret.

use std::process::Stdio;

use jiscord_e2e::{Deployment, PATIENCE, has_database, plain, within};
use tokio::net::TcpListener;

const STRONG: &str = "c3a1f86b5e0d97423f1c8ab6d5e9047281f63b0ac9d4e75f";

async fn refused(name: &'static str, settings: &[(&str, &str)]) -> Vec<String> {
    let mut command = plain(name);
    // Nobody is at port 1, so that no Redis that happens to run here is spoken to.
    command.env("PORT", "0").env("REDIS_URL", "redis://127.0.0.1:1").envs(settings.iter().copied());
    let started = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let output = within(PATIENCE, started.wait_with_output()).await.unwrap();
    let said = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(78), "{name} {settings:?}: {said}");
    assert_eq!(output.stdout, b"");
    for (_, secret) in settings.iter().filter(|(name, _)| ["JWT_SECRET", "JISCORD_SERVICE_TOKEN"].contains(name)) {
        assert!(!said.contains(secret), "{said}");
    }
    said.lines().filter(|line| line.starts_with(name)).map(str::to_owned).collect()
}

#[tokio::test]
async fn a_wrong_configuration_is_a_line_with_the_mend() {
    let taken = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = taken.local_addr().unwrap().port().to_string();
    let secrets = [("JWT_SECRET", STRONG), ("JISCORD_SERVICE_TOKEN", STRONG)];
    let with = |more: &[(&'static str, &'static str)]| [&secrets[..], more].concat();
    let taken = [&secrets[..], &[("PORT", &*port)]].concat();
    for (names, settings, wants) in [
        (&["data-service", "auth-service"][..], vec![], &["JWT_SECRET is not set", "JISCORD_SERVICE_TOKEN is not set"][..]),
        (&["gateway"], vec![], &["JISCORD_SERVICE_TOKEN is not set; make one with: openssl rand -hex 32"]),
        (
            &["data-service", "auth-service", "gateway"],
            with(&[("JISCORD_SERVICE_TOKEN", "hunter2 hunter2")]),
            &["JISCORD_SERVICE_TOKEN must be 32"],
        ),
        (&["data-service", "auth-service"], with(&[("JWT_SECRET", "hunter2 hunter2")]), &["JWT_SECRET must be 32"]),
        (&["gateway", "auth-service"], with(&[("DATA_SERVICE_URL", "localhost:3001")]), &["DATA_SERVICE_URL must be an address"]),
        (&["gateway"], with(&[("AUTH_SERVICE_URL", "ftp://localhost")]), &["AUTH_SERVICE_URL must be an address"]),
        (&["data-service", "gateway"], with(&[("REDIS_URL", "localhost:6379")]), &["REDIS_URL must be an address"]),
        (&["data-service"], with(&[("SCYLLA_CONTACT_POINTS", "http://db")]), &["SCYLLA_CONTACT_POINTS must be hosts"]),
        (
            &["data-service", "auth-service", "gateway"],
            with(&[("JISCORD_HARTBEAT_MS", "1")]),
            &["did you mean JISCORD_HEARTBEAT_MS?"],
        ),
        (&["data-service", "auth-service", "gateway"], taken, &["is in use by another program; stop it, or set PORT"]),
    ] {
        for name in names {
            let lines = refused(name, &settings).await;
            assert_eq!(lines.len(), wants.len(), "{name}: {lines:?}");
            for (line, want) in lines.iter().zip(wants) {
                assert!(line.contains(want), "{name}: {line}");
            }
        }
    }
}

#[tokio::test]
async fn a_redis_that_throws_things_away_is_refused() {
    if !has_database("a_redis_that_throws_things_away_is_refused") {
        return;
    }
    let (_, beneath, _folder) = Deployment::ones_on_services(0).await;
    let url = beneath.redis_url();
    let mut redis = redis::Client::open(&*url).unwrap().get_connection().unwrap();
    redis::cmd("CONFIG").arg(&["SET", "maxmemory-policy", "allkeys-lru"]).exec(&mut redis).unwrap();
    let settings = [("JWT_SECRET", STRONG), ("JISCORD_SERVICE_TOKEN", STRONG), ("REDIS_URL", &*url)];
    for name in ["data-service", "gateway"] {
        let lines = refused(name, &settings).await;
        assert_eq!(lines.len(), 1, "{lines:?}");
        assert!(lines[0].contains("REDIS_URL: ") && lines[0].contains("set maxmemory-policy to noeviction"), "{lines:?}");
    }
}
