//! Bytes on a TCP connection, for what no well-behaved client would send.

use std::io;

use serde_json::Value;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};

use crate::{PATIENCE, within};

/// A TCP connection to a service.
pub struct Raw {
    stream: TcpStream,
    host: String,
    path: String,
}

/// A WebSocket frame's bytes as a client sends them: `first` holds FIN, the reserved bits and the opcode; the mask is zero.
pub fn frame(first: u8, payload: &[u8]) -> Vec<u8> {
    let mut bytes = vec![first];
    match payload.len() {
        length @ 0..126 => bytes.push(0x80 | length as u8),
        length @ 126..65_536 => {
            bytes.push(0x80 | 126);
            bytes.extend((length as u16).to_be_bytes());
        }
        length => {
            bytes.push(0x80 | 127);
            bytes.extend((length as u64).to_be_bytes());
        }
    }
    bytes.extend([0; 4]);
    bytes.extend(payload);
    bytes
}

fn status(head: &str) -> Option<u16> {
    head.split(' ').nth(1)?.parse().ok()
}

impl Raw {
    /// Connects to a service's address, `http://…` or `ws://…`.
    pub async fn connect(url: &str) -> Self {
        let (_, rest) = url.split_once("://").unwrap();
        let (host, path) = rest.split_once('/').unwrap_or((rest, ""));
        let stream = within(PATIENCE, TcpStream::connect(host)).await.unwrap();
        stream.set_nodelay(true).unwrap();
        Self { stream, host: host.to_owned(), path: format!("/{path}") }
    }

    /// `host:port`, as it would stand in a Host header.
    pub fn host(&self) -> &str {
        &self.host
    }

    /// The path of the address, without a slash at its end.
    pub fn path(&self) -> &str {
        self.path.trim_end_matches('/')
    }

    /// Writes bytes. An error says that the other side is gone, which tests see by reading.
    pub async fn write(&mut self, bytes: &[u8]) -> io::Result<()> {
        within(PATIENCE, self.stream.write_all(bytes)).await
    }

    /// Asks for a WebSocket with these header lines beside the needed ones, and gives the answer's status.
    pub async fn upgrade(&mut self, more: &str) -> u16 {
        status(&self.upgrade_head(more).await).expect("an answer to the upgrade")
    }

    /// The same, and gives the answer's whole head.
    pub async fn upgrade_head(&mut self, more: &str) -> String {
        let request = format!(
            "GET {} HTTP/1.1\r\nHost: {}\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\n\
             Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n{more}\r\n",
            self.path, self.host
        );
        let _ = self.write(request.as_bytes()).await;
        self.head().await.expect("an answer to the upgrade")
    }

    /// Reads the head of an answer, and gives its status; none if the connection ends without one.
    pub async fn status(&mut self) -> Option<u16> {
        status(&self.head().await?)
    }

    async fn head(&mut self) -> Option<String> {
        let mut head = Vec::new();
        while !head.ends_with(b"\r\n\r\n") {
            head.push(within(PATIENCE, self.stream.read_u8()).await.ok()?);
        }
        String::from_utf8(head).ok()
    }

    /// Reads frames up to one of this op.
    pub async fn hear(&mut self, op: &str) -> Value {
        loop {
            let (_, payload) = within(PATIENCE, self.frame()).await.unwrap();
            match serde_json::from_slice::<Value>(&payload) {
                Ok(frame) if frame["op"] == op => return frame,
                _ => {}
            }
        }
    }

    /// Reads frames up to the close, and gives its code; none if the connection ends without one.
    pub async fn close_code(&mut self) -> Option<u16> {
        loop {
            let (op, payload) = within(PATIENCE, self.frame()).await.ok()?;
            if op == 8 {
                return payload.first_chunk().map(|code| u16::from_be_bytes(*code));
            }
        }
    }

    async fn frame(&mut self) -> io::Result<(u8, Vec<u8>)> {
        let first = self.stream.read_u8().await?;
        let length = match self.stream.read_u8().await? {
            126 => u64::from(self.stream.read_u16().await?),
            127 => self.stream.read_u64().await?,
            length => u64::from(length),
        };
        let mut payload = vec![0; usize::try_from(length).unwrap()];
        self.stream.read_exact(&mut payload).await?;
        Ok((first & 0x0f, payload))
    }

    /// Waits until the other side has closed the connection.
    pub async fn ended(&mut self) {
        let mut rest = Vec::new();
        let _ = within(PATIENCE, self.stream.read_to_end(&mut rest)).await;
    }
}
