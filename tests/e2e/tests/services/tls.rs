//! TLS to the database and to Redis.

use std::{
    env, fs,
    io::{BufRead, BufReader},
    net::SocketAddr,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    sync::Arc,
    thread,
    time::Duration,
};

use jiscord_e2e::{Caller, PATIENCE, Process, has_database, plain, within};
use rustls::{
    ServerConfig,
    pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject},
};
use tempfile::TempDir;
use tokio::{
    io::{AsyncBufReadExt, copy_bidirectional},
    net::{TcpListener, TcpStream},
    time::sleep,
};
use tokio_rustls::TlsAcceptor;

const STRONG: &str = "c3a1f86b5e0d97423f1c8ab6d5e9047281f63b0ac9d4e75f";

/// A certificate for 127.0.0.1 that vouches for itself, and its key.
struct Certificate {
    certificate: PathBuf,
    key: PathBuf,
}

impl Certificate {
    fn make(folder: &Path, name: &str) -> Self {
        let made = rcgen::generate_simple_self_signed(["127.0.0.1".to_owned()]).unwrap();
        let (certificate, key) = (folder.join(format!("{name}.crt")), folder.join(format!("{name}.key")));
        fs::write(&certificate, made.cert.pem()).unwrap();
        fs::write(&key, made.signing_key.serialize_pem()).unwrap();
        Self { certificate, key }
    }
}

/// Where TLS, and nothing else, leads to the database.
async fn database_behind_tls(own: &Certificate) -> SocketAddr {
    let certificate = CertificateDer::from_pem_file(&own.certificate).unwrap();
    let key = PrivateKeyDer::from_pem_file(&own.key).unwrap();
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let config = ServerConfig::builder_with_provider(provider).with_safe_default_protocol_versions().unwrap();
    let acceptor = TlsAcceptor::from(Arc::new(config.with_no_client_auth().with_single_cert(vec![certificate], key).unwrap()));
    let there = env::var("JISCORD_TEST_CQL").unwrap();
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let here = listener.local_addr().unwrap();
    tokio::spawn(async move {
        while let Ok((near, _)) = listener.accept().await {
            let (acceptor, there) = (acceptor.clone(), there.clone());
            tokio::spawn(async move {
                let (Ok(mut near), Ok(mut far)) = (acceptor.accept(near).await, TcpStream::connect(there).await) else { return };
                let _ = copy_bidirectional(&mut near, &mut far).await;
            });
        }
    });
    here
}

/// A Redis that speaks TLS and nothing else.
struct Redis {
    process: Child,
    port: u16,
    _folder: TempDir,
}

impl Redis {
    fn start(own: &Certificate) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let program = env::var("JISCORD_TEST_REDIS").unwrap_or_else(|_| "redis-server".to_owned());
        // Somebody may take the port between the look and the start, for a moment.
        for _ in 0..50 {
            let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
            let mut process = Command::new(&program)
                .args(["--bind", "127.0.0.1", "--port", "0", "--tls-port", &port.to_string(), "--tls-auth-clients", "no"])
                .arg("--tls-cert-file")
                .arg(&own.certificate)
                .arg("--tls-key-file")
                .arg(&own.key)
                .args(["--tls-ca-cert-file"])
                .arg(&own.certificate)
                .args(["--save", "", "--dir"])
                .arg(folder.path())
                .stdin(Stdio::null())
                .stdout(Stdio::piped())
                .spawn()
                .unwrap();
            let mut lines = BufReader::new(process.stdout.take().unwrap()).lines().map_while(Result::ok);
            if lines.any(|line| line.contains("Ready to accept connections")) {
                thread::spawn(move || lines.for_each(drop));
                return Self { process, port, _folder: folder };
            }
            let _ = process.wait();
        }
        panic!("{program} does not start with TLS");
    }
}

impl Drop for Redis {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

#[tokio::test]
async fn data_service_speaks_tls_to_the_database_and_to_redis_and_only_to_whom_somebody_vouches_for() {
    if !has_database("data_service_speaks_tls_to_the_database_and_to_redis_and_only_to_whom_somebody_vouches_for") {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let (good, other) = (Certificate::make(folder.path(), "good"), Certificate::make(folder.path(), "other"));
    let (redis, database) = (Redis::start(&good), database_behind_tls(&good).await);
    let settings = |trusted: &Certificate| {
        let settings = [
            ("JWT_SECRET", STRONG.to_owned()),
            ("JISCORD_SERVICE_TOKEN", STRONG.to_owned()),
            ("SCYLLA_CONTACT_POINTS", database.to_string()),
            ("SCYLLA_KEYSPACE", "e2e_tls".to_owned()),
            ("SCYLLA_TLS", "true".to_owned()),
            ("REDIS_URL", format!("rediss://127.0.0.1:{}", redis.port)),
            ("SSL_CERT_FILE", trusted.certificate.to_str().unwrap().to_owned()),
        ];
        settings.map(|(name, value)| (name.to_owned(), value)).to_vec()
    };
    let service = Process::start("data-service", 1, folder.path(), settings(&good)).await;
    within(PATIENCE * 2, async {
        while Caller::new(service.url()).get("/health/ready").await.status != 200 {
            sleep(Duration::from_millis(50)).await;
        }
    })
    .await;

    // Who cannot be sure whom it speaks to waits, and says why.
    let mut doubtful = plain("data-service");
    doubtful.env("PORT", "0").envs(settings(&other)).stdout(Stdio::null()).stderr(Stdio::piped());
    let mut doubtful = doubtful.spawn().unwrap();
    let mut log = tokio::io::BufReader::new(doubtful.stderr.take().unwrap()).lines();
    within(PATIENCE, async {
        loop {
            let line = log.next_line().await.unwrap().expect("it does not end by itself");
            assert!(!line.contains("replicas"), "it uses the database: {line}");
            if line.contains("the database cannot be used yet") && line.contains("invalid peer certificate") {
                break;
            }
        }
    })
    .await;
}
