//! The least that a server does to tell many sockets something: one write each, of bytes that are ready.

use anyhow::Context;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
};

/// Takes a number of sockets and a control connection, as the control connection says, and writes what comes over it to all sockets.
///
/// Control: 4 bytes with the number of sockets, then messages, each with 4 bytes of length before it. Every message is one burst.
pub(crate) async fn serve() -> anyhow::Result<()> {
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    println!("listening on {}", listener.local_addr()?);
    let (mut control, _) = listener.accept().await?;
    control.set_nodelay(true)?;
    let count = control.read_u32().await?;
    let mut sockets = Vec::new();
    for _ in 0..count {
        sockets.push(listener.accept().await?.0);
    }
    control.write_u8(1).await?;
    let mut message = Vec::new();
    while let Ok(length) = control.read_u32().await {
        message.resize(length as usize, 0);
        control.read_exact(&mut message).await?;
        for socket in &mut sockets {
            write(socket, &message).await?;
        }
    }
    Ok(())
}

async fn write(socket: &mut TcpStream, message: &[u8]) -> anyhow::Result<()> {
    // Without a wake-up: the socket takes it at once, unless its reader is behind.
    match socket.try_write(message) {
        Ok(written) if written == message.len() => Ok(()),
        Ok(written) => Ok(socket.write_all(&message[written..]).await?),
        Err(_) => socket.write_all(message).await.context("a reader is gone"),
    }
}
