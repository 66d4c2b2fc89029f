//! The program as its users meet it: started, asked, stopped.
#![expect(clippy::unwrap_used, reason = "a test's helpers may fail as tests do")]

use std::{
    fs,
    io::{BufRead, BufReader, Read, Write},
    net::{SocketAddr, TcpStream},
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
    process::{Child, Command, ExitStatus, Output, Stdio},
    sync::mpsc,
    thread,
    time::{Duration, Instant},
};

use jiscord_client::{Client, Endpoints, Event, Http};
use rustix::process::{Pid, Signal, kill_process};
use tempfile::TempDir;

const PROGRAM: &str = env!("CARGO_BIN_EXE_jiscord");
/// How long anything may take on a busy machine.
const PATIENCE: Duration = Duration::from_secs(60);
const PASSWORD: &str = "correct horse battery";

/// The program with no settings but these.
fn jiscord(data: &Path, settings: &[(&str, &str)]) -> Command {
    let mut command = Command::new(PROGRAM);
    command.env_clear().env("JISCORD_DATA_DIR", data).env("PORT", "0").envs(settings.iter().copied());
    command
}

/// Runs it to its end, with this on standard input.
fn ended(command: &mut Command, input: &str) -> Output {
    let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    child.stdin.take().unwrap().write_all(input.as_bytes()).unwrap();
    child.wait_with_output().unwrap()
}

/// What a refused start says: its lines, after the code was checked.
fn refusal(command: &mut Command) -> Vec<String> {
    let output = ended(command, "");
    let text = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(78), "{text}");
    text.lines().map(str::to_owned).collect()
}

/// A running server.
struct Running {
    child: Child,
    address: SocketAddr,
    log: mpsc::Receiver<String>,
}

impl Running {
    fn start(data: &Path, settings: &[(&str, &str)]) -> Self {
        Self::wait(&mut jiscord(data, settings))
    }

    /// Waits until it says where it is.
    fn wait(command: &mut Command) -> Self {
        let mut child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        let (out, log) = (lines(child.stdout.take().unwrap()), lines(child.stderr.take().unwrap()));
        let Ok(line) = out.recv_timeout(PATIENCE) else {
            panic!("it did not start: {:?}", log.iter().collect::<Vec<_>>());
        };
        let address = line.strip_prefix("Jiscord is at http://").unwrap().parse().unwrap();
        Self { child, address, log }
    }

    fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// The answer to a request of this method and path, with everything that came.
    fn ask(&self, head: &str) -> String {
        let mut socket = TcpStream::connect(self.address).unwrap();
        write!(socket, "{head} HTTP/1.1\r\nhost: {}\r\nconnection: close\r\n\r\n", self.address).unwrap();
        let mut answer = Vec::new();
        let _ = socket.read_to_end(&mut answer);
        String::from_utf8_lossy(&answer).into_owned()
    }

    fn signal(&self) {
        kill_process(Pid::from_child(&self.child), Signal::TERM).unwrap();
    }

    fn until_logged(&self, text: &str) {
        while !self.log.recv_timeout(PATIENCE).unwrap().contains(text) {}
    }

    /// Waits for the end; 25 s are promised.
    fn ended(mut self) -> ExitStatus {
        let until = Instant::now() + PATIENCE;
        loop {
            match self.child.try_wait().unwrap() {
                Some(status) => return status,
                None if Instant::now() > until => panic!("it does not end"),
                None => thread::sleep(Duration::from_millis(10)),
            }
        }
    }

    fn stop(self) {
        self.signal();
        assert!(self.ended().success());
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// The lines of a stream, read on by a thread so that the program never waits for a full pipe.
fn lines(stream: impl Read + Send + 'static) -> mpsc::Receiver<String> {
    let (tell, told) = mpsc::channel();
    thread::spawn(move || {
        for line in BufReader::new(stream).lines().map_while(Result::ok) {
            let _ = tell.send(line);
        }
    });
    told
}

fn folder() -> (TempDir, PathBuf) {
    let outer = tempfile::tempdir().unwrap();
    let inner = outer.path().join("data");
    (outer, inner)
}

fn api(server: &Running) -> Http {
    Http::new(Endpoints::at(&server.url()).unwrap()).unwrap()
}

fn mode(path: &Path) -> u32 {
    fs::metadata(path).unwrap().permissions().mode() & 0o777
}

#[test]
fn the_first_start_makes_a_folder_for_its_owner_alone() {
    let (_outer, data) = folder();
    let server = Running::start(&data, &[]);
    assert_eq!(mode(&data), 0o700);
    let mut names = Vec::new();
    for entry in fs::read_dir(&data).unwrap() {
        let entry = entry.unwrap();
        assert_eq!(mode(&entry.path()), 0o600, "{:?}", entry.path());
        names.push(entry.file_name().into_string().unwrap());
    }
    for name in ["jwt.secret", "service.token", "jiscord.db"] {
        assert!(names.iter().any(|there| there == name), "{name}: {names:?}");
    }
    server.stop();
    let secret = fs::read(data.join("jwt.secret")).unwrap();
    Running::start(&data, &[]).stop();
    assert_eq!(fs::read(data.join("jwt.secret")).unwrap(), secret, "a later start keeps it");
}

#[test]
fn a_second_process_on_the_same_folder_is_refused() {
    let (_outer, data) = folder();
    let server = Running::start(&data, &[]);
    for args in [&[][..], &["migrate"], &["user", "create", "--username", "ada", "--email", "a@b.c"]] {
        let lines = refusal(jiscord(&data, &[]).args(args));
        assert_eq!(lines.len(), 1, "{lines:?}");
        assert!(lines[0].contains("in use by another process") && lines[0].contains("JISCORD_DATA_DIR"), "{lines:?}");
    }
    assert!(server.ask("GET /health").starts_with("HTTP/1.1 200"));
    server.stop();
}

#[test]
fn what_must_be_set_up_differently_is_said_in_a_line_each() {
    let (outer, data) = folder();
    let (_other, elsewhere) = folder();
    let server = Running::start(&elsewhere, &[]);
    let port = server.address.port().to_string();
    let file = outer.path().join("file");
    fs::write(&file, "").unwrap();
    let file = file.to_str().unwrap();
    let secret = "hunter2 hunter2";
    for (settings, wants) in [
        (&[("PORT", &*port)][..], &["is in use by another program; stop it, or set PORT"][..]),
        (&[("PORT", "http")], &["PORT must be a number"]),
        (&[("JWT_SECRET", secret)], &["JWT_SECRET must be 32 to 1024 bytes"]),
        (
            &[("JISCORD_SERVICE_TOKEN", secret), ("JISCORD_HARTBEAT_MS", "1")],
            &["JISCORD_SERVICE_TOKEN must", "mean JISCORD_HEARTBEAT_MS?"],
        ),
        (&[("JISCORD_DATA_DIR", file)], &["set JISCORD_DATA_DIR to a folder that this user may write"]),
        (&[("GATEWAY_URL", "http://gateway:3002")], &["AUTH_SERVICE_URL and DATA_SERVICE_URL not set"]),
        (&[("JISCORD_LISTEN", "192.0.2.1")], &["set PORT and JISCORD_LISTEN"]),
        (&[("JISCORD_LISTEN", "0.0.0.0"), ("JISCORD_TRUST_USER_HEADER", "true")], &["JISCORD_TRUST_USER_HEADER=everywhere"]),
    ] {
        let lines = refusal(&mut jiscord(&data, settings));
        assert_eq!(lines.len(), wants.len(), "{lines:?}");
        for (line, want) in lines.iter().zip(wants) {
            assert!(line.starts_with("jiscord: ") && line.contains(want) && !line.contains(secret), "{line}");
        }
    }
    server.stop();
}

#[test]
fn a_secret_that_others_may_read_is_refused() {
    let (_outer, data) = folder();
    Running::start(&data, &[]).stop();
    fs::set_permissions(data.join("service.token"), fs::Permissions::from_mode(0o640)).unwrap();
    let lines = refusal(&mut jiscord(&data, &[]));
    assert!(lines.len() == 1 && lines[0].contains("chmod 600"), "{lines:?}");
}

#[test]
fn trusted_mode_warns() {
    let (_outer, data) = folder();
    let server = Running::start(&data, &[("JISCORD_TRUST_USER_HEADER", "true")]);
    server.until_logged("JISCORD_TRUST_USER_HEADER is on");
    server.stop();
}

#[test]
fn a_stop_tells_clients_to_come_back_and_ends_well() {
    let (_outer, data) = folder();
    let server = Running::start(&data, &[]);
    let idle = TcpStream::connect(server.address).unwrap();
    let mut socket = TcpStream::connect(server.address).unwrap();
    write!(
        socket,
        "GET /ws HTTP/1.1\r\nhost: {}\r\nconnection: upgrade\r\nupgrade: websocket\r\nsec-websocket-version: 13\r\n\
         sec-websocket-key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n",
        server.address
    )
    .unwrap();
    let mut heard = Vec::new();
    let mut hear_until = |told: &dyn Fn(&[u8]) -> bool| {
        while !told(&heard) {
            let mut some = [0; 256];
            let count = socket.read(&mut some).unwrap();
            assert_ne!(count, 0, "closed after {:?}", String::from_utf8_lossy(&heard));
            heard.extend_from_slice(&some[..count]);
        }
    };
    let has = |word: &'static str| move |heard: &[u8]| String::from_utf8_lossy(heard).contains(word);
    hear_until(&has("HELLO"));
    server.signal();
    hear_until(&has("RECONNECT"));
    // A close frame: its opcode, its length, 1001 (going away).
    hear_until(&|heard| heard.windows(4).any(|bytes| bytes[0] == 0x88 && bytes[2..] == 1001_u16.to_be_bytes()));
    drop(socket);
    assert!(server.ended().success());
    drop(idle);
}

#[test]
fn a_second_signal_ends_at_once() {
    let (_outer, data) = folder();
    let server = Running::start(&data, &[]);
    // A request whose body never comes holds the stop up.
    let mut stuck = TcpStream::connect(server.address).unwrap();
    write!(
        stuck,
        "POST /api/auth/login HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\nexpect: 100-continue\r\ncontent-length: 9\r\n\r\n"
    )
    .unwrap();
    stuck.read_exact(&mut [0; 12]).unwrap(); // 100: it is being read
    server.signal();
    server.until_logged("stopping");
    server.signal();
    assert_eq!(server.ended().code(), Some(143));
}

#[tokio::test]
async fn a_restart_keeps_what_was_there() {
    let (_outer, data) = folder();
    let server = Running::start(&data, &[]);
    let http = api(&server);
    let ada = http.register("ada", "ada@example.com", PASSWORD).await.unwrap();
    let token = http.login("ada@example.com", PASSWORD).await.unwrap();
    server.stop();

    let server = Running::start(&data, &[]);
    let http = api(&server);
    assert_eq!(http.login("ada@example.com", PASSWORD).await.unwrap().user.user_id, ada.user_id);
    let before = http.with_token(token.token);
    assert_eq!(before.me().await.unwrap().user_id, ada.user_id, "a token outlives the restart");
    server.stop();
}

#[tokio::test]
async fn a_user_is_made_while_the_server_is_stopped() {
    let (_outer, data) = folder();
    let create = ["user", "create", "--username", "ada", "--email", "ada@example.com", "--password-stdin"];
    let made = ended(jiscord(&data, &[]).args(create), &format!("{PASSWORD}\n"));
    let out = String::from_utf8(made.stdout).unwrap();
    assert!(made.status.success() && out.starts_with("Made ada, user id "), "{out}");
    assert!(!out.contains(PASSWORD));

    for (input, want) in
        [(PASSWORD, "Email already in use"), ("short", "password must be 8 to 128"), ("", "password must be 8 to 128")]
    {
        let again = ended(jiscord(&data, &[]).args(create), input);
        let text = String::from_utf8(again.stderr).unwrap();
        assert_eq!((again.status.code(), text.lines().count()), (Some(1), 1), "{text}");
        assert!(text.contains(want) && !text.contains(PASSWORD), "{text}");
    }

    let server = Running::start(&data, &[]);
    let user = api(&server).login("ada@example.com", PASSWORD).await.unwrap().user;
    assert!(out.contains(&user.user_id.to_string()));
    server.stop();
}

#[tokio::test]
async fn logs_hold_no_secret_at_any_level() {
    let (_outer, data) = folder();
    let server = Running::start(&data, &[("JISCORD_LOG", "trace")]);
    let http = api(&server);
    http.register("ada", "ada@example.com", PASSWORD).await.unwrap();
    http.login("ada@example.com", "a wrong password of hers").await.unwrap_err();
    let client = Client::login(&server.url(), "ada@example.com", PASSWORD).await.unwrap();
    let token = http.login("ada@example.com", PASSWORD).await.unwrap().token;
    let guild = client.http().create_guild("Tea house").await.unwrap().guild_id;
    let channel = client.http().create_channel(guild, "small talk").await.unwrap().channel_id;
    let mut events = client.events();
    client.send(channel, "for your eyes only").await.unwrap();
    while !matches!(events.next().await.unwrap().unwrap(), Event::MessageCreate(_)) {}
    client.close().await;
    http.with_token(format!("{token}x")).me().await.unwrap_err();
    server.signal();
    let log: Vec<_> = server.log.iter().collect();
    assert!(log.iter().any(|line| line.contains("/api/auth/login")), "{log:?}");
    let read = |name: &str| fs::read_to_string(data.join(name)).unwrap().trim().to_owned();
    for secret in
        [PASSWORD, "a wrong password of hers", "for your eyes only", &token, &read("jwt.secret"), &read("service.token")]
    {
        let shown: Vec<_> = log.iter().filter(|line| line.contains(secret)).collect();
        assert!(shown.is_empty(), "{shown:?}");
    }
    assert!(server.ended().success());
}

#[test]
fn migrate_says_what_it_did() {
    let (_outer, data) = folder();
    for want in ["Applied: ", "The database is up to date."] {
        let output = ended(jiscord(&data, &[]).arg("migrate"), "");
        let out = String::from_utf8(output.stdout).unwrap();
        assert!(output.status.success() && out.starts_with(want), "{out}");
    }
}

#[test]
fn help_teaches() {
    let (_outer, data) = folder();
    let help = |args: &[&str]| String::from_utf8(ended(jiscord(&data, &[]).args(args), "").stdout).unwrap();
    let text = help(&["--help"]);
    for want in ["serve", "user", "migrate", "Examples:", "Where data lies:", "JISCORD_LIMIT_SOCKETS", "JWT_SECRET_FILE"] {
        assert!(text.contains(want), "{want}: {text}");
    }
    assert!(help(&["user", "create", "--help"]).contains("--password-stdin"));
    assert!(!data.exists(), "asking for help makes nothing");
}

#[test]
fn everything_is_on_one_port() {
    let (_outer, data) = folder();
    let server = Running::start(&data, &[]);
    for (head, status, part) in [
        ("GET /", "200", "text/html"),
        ("GET /health", "200", r#"{"status":"ok"}"#),
        ("GET /health/live", "200", r#"{"status":"ok"}"#),
        ("GET /health/ready", "200", r#"{"status":"ok"}"#),
        ("GET /api/auth/health", "200", r#""status":"ok""#),
        ("GET /api/data/health", "200", r#""status":"ok""#),
        ("GET /api/auth/me", "401", r#""code":"unauthorized""#),
        ("GET /api/data/guilds/me", "401", r#""code":"unauthorized""#),
        ("GET /ws", "426", r#""code":"malformed""#),
        ("GET /nothing.here", "404", r#""code":"not_found""#),
        ("POST /nothing", "404", r#""code":"not_found""#),
        ("GET /api/nothing", "404", r#""code":"not_found""#),
        ("GET /api/data/nothing", "404", r#""code":"not_found""#),
    ] {
        let answer = server.ask(head);
        assert!(answer.starts_with(&format!("HTTP/1.1 {status}")) && answer.contains(part), "{head}: {answer}");
        for header in
            ["content-security-policy: default-src 'none'", "x-content-type-options: nosniff", "referrer-policy: no-referrer"]
        {
            assert!(answer.contains(header), "{head}: {answer}");
        }
    }
    server.stop();
}

#[test]
fn the_page_is_the_web_app_or_says_how_to_chat() {
    let (_outer, data) = folder();
    let server = Running::start(&data, &[]);
    let page = server.ask("GET /");
    assert!(!page.contains("<script>") && !page.contains("style="), "nothing inline: {page}");
    if page.contains("Jiscord is running") {
        assert!(page.contains(&server.url()), "its commands work as they stand");
        assert!(server.ask("GET /style.css").contains("text/css"));
        assert!(server.ask("GET /login").starts_with("HTTP/1.1 404"));
        // Where nothing may be skipped the web app was built before.
        assert_ne!(std::env::var("CI").as_deref(), Ok("true"), "the program was built without its page");
        server.stop();
        return;
    }
    let header = |answer: &str, name: &str| {
        let line = answer.lines().find_map(|line| line.strip_prefix(&format!("{name}: ")).map(str::to_owned));
        line.unwrap_or_default()
    };
    // A place within the page is the page.
    assert_eq!(header(&page, "cache-control"), "no-cache");
    assert!(header(&page, "content-security-policy").contains("script-src 'self' 'wasm-unsafe-eval'"), "{page}");
    let etag = header(&page, "etag");
    for place in ["GET /login", "GET /channels/1/2"] {
        let answer = server.ask(place);
        assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
        assert_eq!(header(&answer, "etag"), etag, "{place}");
    }
    let head = |lines: &str| server.ask(&format!("GET / HTTP/1.1\r\n{lines}\r\nx-rest:"));
    assert!(head(&format!("if-none-match: \"other\", {etag}")).starts_with("HTTP/1.1 304"));
    assert!(head("if-none-match: \"other\"").starts_with("HTTP/1.1 200"));
    assert_eq!(header(&head("accept-encoding: gzip"), "content-encoding"), "gzip");
    assert_eq!(header(&head("accept-encoding: gzip, br"), "content-encoding"), "br");
    // Its files are named by what is in them, and kept for ever.
    let script = page.split('"').find(|part| part.starts_with("/assets/") && part.ends_with(".js")).unwrap();
    let answer = server.ask(&format!("GET {script}"));
    assert!(answer.starts_with("HTTP/1.1 200") && header(&answer, "content-type").starts_with("text/javascript"), "{script}");
    assert_eq!(answer.matches("\r\ncontent-type:").count(), 1, "{answer}");
    assert!(header(&answer, "cache-control").contains("immutable"));
    for none in ["/assets/none.js", &format!("{script}.br"), "/assets/", "/../Cargo.toml"] {
        assert!(server.ask(&format!("GET {none}")).starts_with("HTTP/1.1 404"), "{none}");
    }
    server.stop();
}

#[test]
fn a_low_limit_of_open_files_is_no_end() {
    let (_outer, data) = folder();
    let mut limited = Command::new("/bin/sh");
    limited.args(["-c", "ulimit -n 100; exec \"$0\"", PROGRAM]);
    limited.env_clear().env("JISCORD_DATA_DIR", &data).env("PORT", "0");
    let server = Running::wait(&mut limited);
    let mut first = TcpStream::connect(server.address).unwrap();
    let others: Vec<_> = (0..100).map(|_| TcpStream::connect(server.address).unwrap()).collect();
    let mut last = others.last().unwrap();
    let mut answer = String::new();
    let _ = last.read_to_string(&mut answer);
    assert!(answer.starts_with("HTTP/1.1 503"), "{answer}");
    // Who is in stays in, and can use what needs files.
    write!(first, "GET /health HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n").unwrap();
    answer.clear();
    first.read_to_string(&mut answer).unwrap();
    assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
    drop(others);
    server.stop();
}
