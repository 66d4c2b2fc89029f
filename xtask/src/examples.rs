//! Runs the examples as their readers would, against a server of their own.

use std::{
    io::{BufRead, BufReader, Read, Write},
    net::TcpStream,
    path::PathBuf,
    process::Stdio,
    thread,
    time::{Duration, Instant},
};

use serde_json::{Value, json};

use crate::{
    report::{Outcome, Stop, done, failed},
    server::{Server, plain},
};

/// How long an answer may take on a busy machine.
const PATIENCE: Duration = Duration::from_secs(30);

/// Runs each; `program` says where a built one is.
pub(crate) fn run(program: impl Fn(&str) -> PathBuf) -> Outcome {
    let server = Server::start(&program("jiscord"))?;
    done(plain(&program("two-bots-talking")).env("JISCORD_URL", &server.url))?;
    echo_bot(program("echo-bot"), &server.url)?;
    done(plain(&program("embed-in-axum")).arg("demo"))?;
    server.stop()
}

/// Somebody asks the echo bot, over plain HTTP, and waits for its answer.
fn echo_bot(program: PathBuf, url: &str) -> Outcome {
    let account = json!({ "username": "echo", "email": "echo@example.com", "password": "a long password" });
    call(url, "POST /api/auth/register", "", &account)?;
    let bot = text(&call(url, "POST /api/auth/login", "", &account)?["token"]);
    let account = json!({ "username": "ada", "email": "ada@example.com", "password": "a long password" });
    call(url, "POST /api/auth/register", "", &account)?;
    let ada = text(&call(url, "POST /api/auth/login", "", &account)?["token"]);
    let guild = text(&call(url, "POST /api/data/guilds", &ada, &json!({ "name": "Echoes" }))?["guild_id"]);
    let channel = call(url, &format!("POST /api/data/guilds/{guild}/channels"), &ada, &json!({ "name": "hall" }))?;
    let messages = format!("/api/data/channels/{}/messages", text(&channel["channel_id"]));

    let mut child = plain(&program)
        .arg(guild)
        .env("JISCORD_URL", url)
        .env("JISCORD_TOKEN", bot)
        .stdout(Stdio::piped())
        .spawn()
        .map_err(|error| Stop::Failed(format!("{}: {error}", program.display())))?;
    let ready = child.stdout.take().and_then(|out| BufReader::new(out).lines().next());
    let answered = (|| {
        if !matches!(ready, Some(Ok(line)) if line.contains("ready")) {
            return failed("the echo bot did not get ready");
        }
        call(url, &format!("POST {messages}"), &ada, &json!({ "content": "!ping" }))?;
        let until = Instant::now() + PATIENCE;
        while Instant::now() < until {
            let page = call(url, &format!("GET {messages}"), &ada, &Value::Null)?;
            if page["messages"][0]["content"] == "pong" {
                println!("the echo bot answers");
                return Ok(());
            }
            thread::sleep(Duration::from_millis(50));
        }
        failed("the echo bot did not answer")
    })();
    let _ = child.kill();
    let _ = child.wait();
    answered
}

/// One call of the HTTP API; its answer, which must be a success.
fn call(url: &str, head: &str, token: &str, body: &Value) -> Result<Value, Stop> {
    let answer = (|| {
        let host = url.trim_start_matches("http://");
        let body = if body.is_null() { String::new() } else { body.to_string() };
        let mut socket = TcpStream::connect(host)?;
        socket.set_read_timeout(Some(PATIENCE))?;
        write!(
            socket,
            "{head} HTTP/1.1\r\nhost: {host}\r\nconnection: close\r\ncontent-type: application/json\r\n\
             content-length: {}\r\n{}\r\n{body}",
            body.len(),
            if token.is_empty() { String::new() } else { format!("authorization: Bearer {token}\r\n") },
        )?;
        let mut answer = String::new();
        socket.read_to_string(&mut answer)?;
        Ok::<_, std::io::Error>(answer)
    })();
    let answer = answer.map_err(|error| Stop::Failed(format!("{head}: {error}")))?;
    let (told, body) = answer.split_once("\r\n\r\n").unwrap_or((&answer, ""));
    if !told.starts_with("HTTP/1.1 2") {
        return failed(format!("{head}: {}", told.lines().next().unwrap_or_default()));
    }
    serde_json::from_str(body).map_err(|error| Stop::Failed(format!("{head}: {error}")))
}

fn text(value: &Value) -> String {
    value.as_str().unwrap_or_default().to_owned()
}
