//! A WebSocket in two halves: one task reads, one dispatcher writes.

use std::{
    io,
    pin::Pin,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicUsize, Ordering},
    },
    task::{Context, Poll, Waker, ready},
};

use futures_util::{Sink, Stream, future::poll_fn};
use jiscord_core::frame::CloseCode;
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    time::{Duration, Instant},
};
use tokio_tungstenite::{
    WebSocketStream,
    tungstenite::{self, Message, Utf8Bytes, protocol::Role, protocol::WebSocketConfig},
};

use crate::settings::Limits;

/// A byte stream that a WebSocket runs over.
pub(crate) trait Io: AsyncRead + AsyncWrite + Send + Unpin {}
impl<T: AsyncRead + AsyncWrite + Send + Unpin> Io for T {}

type WebSocket = WebSocketStream<Watched<Box<dyn Io>>>;

/// How much is gathered for a socket before it is written without waiting for the flush.
const WRITE_BUFFER: usize = 16 << 10;

/// Takes a connection that was upgraded, and splits it.
pub(crate) async fn split(io: Box<dyn Io>, limits: &Limits) -> (Reader, Writer) {
    let most = Arc::new(AtomicUsize::new(limits.first_frame));
    let config = WebSocketConfig::default()
        // The default of 128 KiB is allocated for every connection that was read once.
        .read_buffer_size(4 << 10)
        .write_buffer_size(WRITE_BUFFER)
        // What waits for a client that does not read is bounded by the dispatcher; this is only the seat belt.
        .max_write_buffer_size(WRITE_BUFFER + limits.queue.max(1 << 20))
        .max_frame_size(Some(limits.frame))
        .max_message_size(Some(limits.frame));
    let watched = Watched { io, frames: Frames::new(limits, most.clone()) };
    let socket = Arc::new(Mutex::new(WebSocketStream::from_raw_socket(watched, Role::Server, Some(config)).await));
    let reader = Reader {
        socket: socket.clone(),
        most,
        frame: limits.frame,
        #[cfg(feature = "echo")]
        binary: false,
    };
    (reader, Writer { socket })
}

/// What a client said.
#[derive(Debug)]
pub(crate) enum Said {
    /// A text frame.
    Text(Utf8Bytes),
    /// A binary frame, where those are taken.
    #[cfg(feature = "echo")]
    Binary(tungstenite::Bytes),
    /// PING or PONG, answered already.
    Control,
}

/// The reading half.
pub(crate) struct Reader {
    socket: Arc<Mutex<WebSocket>>,
    most: Arc<AtomicUsize>,
    frame: usize,
    #[cfg(feature = "echo")]
    binary: bool,
}

impl Reader {
    /// The next thing the client says. `Err(None)`: it is gone.
    pub(crate) async fn recv(&mut self) -> Result<Said, Option<CloseCode>> {
        let next = poll_fn(|cx| Pin::new(&mut *lock(&self.socket)).poll_next(cx)).await;
        match next {
            Some(Ok(Message::Text(text))) => Ok(Said::Text(text)),
            Some(Ok(Message::Ping(_) | Message::Pong(_))) => Ok(Said::Control),
            #[cfg(feature = "echo")]
            Some(Ok(Message::Binary(bytes))) if self.binary => Ok(Said::Binary(bytes)),
            Some(Ok(Message::Binary(_) | Message::Frame(_))) => Err(Some(CloseCode::NotAFrame)),
            Some(Ok(Message::Close(_))) | None => Err(None),
            Some(Err(error)) => Err(why(&error)),
        }
    }

    /// From now on frames may have their full size.
    pub(crate) fn trust(&self) {
        self.most.store(self.frame, Ordering::Relaxed);
    }

    /// From now on binary frames are taken.
    #[cfg(feature = "echo")]
    pub(crate) fn take_binary(&mut self) {
        self.binary = true;
    }

    /// Reads what still comes until the client has closed its side.
    pub(crate) async fn drain(&mut self) {
        while poll_fn(|cx| Pin::new(&mut *lock(&self.socket)).poll_next(cx)).await.is_some_and(|next| next.is_ok()) {}
    }
}

/// The close code for what tungstenite says. `None`: nobody is left to be told.
fn why(error: &tungstenite::Error) -> Option<CloseCode> {
    match error {
        tungstenite::Error::Io(error) => error.get_ref()?.downcast_ref::<Broken>().map(|broken| broken.0),
        tungstenite::Error::Capacity(_) => Some(CloseCode::TooBig),
        tungstenite::Error::Utf8(_) => Some(CloseCode::NotUtf8),
        tungstenite::Error::Protocol(_) => Some(CloseCode::BadWebSocket),
        _ => None,
    }
}

/// The writing half. Its owner is one dispatcher or one task at a time.
pub(crate) struct Writer {
    socket: Arc<Mutex<WebSocket>>,
}

impl Writer {
    /// Hands a message over if the socket is ready; gives it back if it is not.
    pub(crate) fn feed_now(&mut self, message: Message) -> Result<Option<Message>, tungstenite::Error> {
        let mut socket = lock(&self.socket);
        let mut socket = Pin::new(&mut *socket);
        match socket.as_mut().poll_ready(&mut Context::from_waker(Waker::noop())) {
            Poll::Ready(Ok(())) => socket.start_send(message).map(|()| None),
            Poll::Ready(Err(error)) => Err(error),
            Poll::Pending => Ok(Some(message)),
        }
    }

    /// Writes what was handed over; false if the socket did not take all of it. Nobody is woken later: then call [`Writer::flush`].
    pub(crate) fn flush_now(&mut self) -> Result<bool, tungstenite::Error> {
        match Pin::new(&mut *lock(&self.socket)).poll_flush(&mut Context::from_waker(Waker::noop())) {
            Poll::Ready(done) => done.map(|()| true),
            Poll::Pending => Ok(false),
        }
    }

    /// Hands a message over, waiting until the socket is ready.
    pub(crate) async fn feed(&mut self, message: Message) -> Result<(), tungstenite::Error> {
        let mut message = Some(message);
        poll_fn(|cx| {
            let mut socket = lock(&self.socket);
            let mut socket = Pin::new(&mut *socket);
            ready!(socket.as_mut().poll_ready(cx))?;
            Poll::Ready(message.take().map_or(Ok(()), |message| socket.start_send(message)))
        })
        .await
    }

    /// Writes all that was handed over.
    pub(crate) async fn flush(&mut self) -> Result<(), tungstenite::Error> {
        poll_fn(|cx| Pin::new(&mut *lock(&self.socket)).poll_flush(cx)).await
    }
}

/// Both halves hold it only while they poll, which never blocks.
fn lock(socket: &Mutex<WebSocket>) -> std::sync::MutexGuard<'_, WebSocket> {
    socket.lock().unwrap_or_else(PoisonError::into_inner)
}

/// A limit that a client broke, on its way through tungstenite as an I/O error.
#[derive(Debug)]
struct Broken(CloseCode);

impl std::fmt::Display for Broken {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.0.reason())
    }
}

impl std::error::Error for Broken {}

/// Looks at the headers of the frames that are read, for the limits that tungstenite does not have: the number of fragments,
/// the time a message takes, the rate of control frames, and a size that changes with IDENTIFY. A size is judged by what the
/// header claims, before anything is kept.
struct Watched<S> {
    io: S,
    frames: Frames,
}

impl<S: AsyncRead + Unpin> AsyncRead for Watched<S> {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let before = buf.filled().len();
        ready!(Pin::new(&mut self.io).poll_read(cx, buf))?;
        Poll::Ready(self.frames.see(&buf.filled()[before..]).map_err(io::Error::other))
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Watched<S> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.io).poll_write(cx, buf)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_shutdown(cx)
    }
}

/// Where in the stream of frames (RFC 6455, 5.2) we are, and what was counted.
struct Frames {
    most: Arc<AtomicUsize>,
    most_fragments: u32,
    most_controls: u32,
    most_time: Duration,
    /// The header so far: 2 bytes, 0 to 8 of length, 4 of mask.
    header: [u8; 14],
    have: usize,
    /// Payload bytes still to come of the frame whose header was read.
    payload: u64,
    /// The message whose fragments are coming.
    size: u64,
    fragments: u32,
    began: Option<Instant>,
    /// The second in which control frames are counted.
    second: Option<Instant>,
    controls: u32,
}

impl Frames {
    fn new(limits: &Limits, most: Arc<AtomicUsize>) -> Self {
        Self {
            most,
            most_fragments: limits.fragments,
            most_controls: limits.control_frames.get(),
            most_time: limits.message_time,
            header: [0; 14],
            have: 0,
            payload: 0,
            size: 0,
            fragments: 0,
            began: None,
            second: None,
            controls: 0,
        }
    }

    fn see(&mut self, mut bytes: &[u8]) -> Result<(), Broken> {
        if self.began.is_some_and(|began| began.elapsed() > self.most_time) {
            return Err(Broken(CloseCode::TooBig));
        }
        while !bytes.is_empty() {
            if self.payload > 0 {
                let skip = usize::try_from(self.payload).unwrap_or(usize::MAX).min(bytes.len());
                self.payload -= skip as u64;
                bytes = &bytes[skip..];
            } else {
                self.header[self.have] = bytes[0];
                self.have += 1;
                bytes = &bytes[1..];
                if self.have >= 2 && self.have == self.header_len() {
                    self.have = 0;
                    self.frame()?;
                }
            }
            if self.payload == 0 && self.have == 0 && self.size == 0 {
                self.began = None;
            } else {
                self.began.get_or_insert_with(Instant::now);
            }
        }
        Ok(())
    }

    fn header_len(&self) -> usize {
        let length = match self.header[1] & 0x7f {
            126 => 2,
            127 => 8,
            _ => 0,
        };
        let mask = if self.header[1] & 0x80 == 0 { 0 } else { 4 };
        2 + length + mask
    }

    /// A header is complete.
    fn frame(&mut self) -> Result<(), Broken> {
        self.payload = match self.header[1] & 0x7f {
            126 => u64::from(u16::from_be_bytes([self.header[2], self.header[3]])),
            127 => self.header[2..10].iter().fold(0, |length, byte| length << 8 | u64::from(*byte)),
            length => u64::from(length),
        };
        let (last, op) = (self.header[0] & 0x80 != 0, self.header[0] & 0x0f);
        if op >= 8 {
            // RFC 6455, 5.5. Judged before room is made for it.
            if self.payload > 125 {
                return Err(Broken(CloseCode::BadWebSocket));
            }
            let now = Instant::now();
            if self.second.is_none_or(|second| now.duration_since(second) >= Duration::from_secs(1)) {
                (self.second, self.controls) = (Some(now), 0);
            }
            self.controls += 1;
            return if self.controls > self.most_controls { Err(Broken(CloseCode::RateLimited)) } else { Ok(()) };
        }
        // One byte more for each fragment, so that empty ones count as a message that has begun.
        self.size = self.size.saturating_add(self.payload).saturating_add(1);
        self.fragments += 1;
        let most = self.most.load(Ordering::Relaxed) as u64;
        if self.size - u64::from(self.fragments) > most || self.fragments > self.most_fragments {
            return Err(Broken(CloseCode::TooBig));
        }
        if last {
            (self.size, self.fragments) = (0, 0);
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn frames() -> Frames {
        let limits =
            Limits { frame: 100, fragments: 4, control_frames: std::num::NonZeroU32::new(3).unwrap(), ..Limits::default() };
        Frames::new(&limits, Arc::new(AtomicUsize::new(100)))
    }

    /// A client's frame: masked with zeros.
    fn frame(first: u8, length: usize) -> Vec<u8> {
        let mut bytes = vec![first];
        match length {
            0..126 => bytes.push(0x80 | length as u8),
            126..65_536 => {
                bytes.push(0x80 | 126);
                bytes.extend((length as u16).to_be_bytes());
            }
            _ => {
                bytes.push(0x80 | 127);
                bytes.extend((length as u64).to_be_bytes());
            }
        }
        bytes.extend([0; 4]);
        bytes.extend(vec![b'x'; length.min(1_000)]);
        bytes
    }

    fn see(all: &[Vec<u8>]) -> Result<(), CloseCode> {
        let bytes = all.concat();
        // Whole and byte by byte: where the stream is cut must not matter.
        let mut whole = frames();
        let once = whole.see(&bytes).map_err(|broken| broken.0);
        let mut cut = frames();
        let slowly = bytes.iter().try_for_each(|byte| cut.see(&[*byte])).map_err(|broken| broken.0);
        assert_eq!(once, slowly);
        once
    }

    #[tokio::test(start_paused = true)]
    async fn limits_are_seen_in_the_headers() {
        const TEXT: u8 = 0x81;
        let fragment = |n: usize| (0..n).map(|i| frame(if i == 0 { 0x01 } else { 0x00 }, 1)).collect::<Vec<_>>();
        assert_eq!(see(&[frame(TEXT, 100), frame(TEXT, 0), frame(TEXT, 100)]), Ok(()));
        assert_eq!(see(&[frame(TEXT, 101)]), Err(CloseCode::TooBig));
        assert_eq!(see(&[frame(TEXT, usize::MAX >> 1)]), Err(CloseCode::TooBig));
        assert_eq!(see(&[frame(0x01, 60), frame(0x80, 41)]), Err(CloseCode::TooBig));
        assert_eq!(see(&[fragment(3), vec![frame(0x80, 0)], fragment(3)].concat()), Ok(()));
        assert_eq!(see(&fragment(5)), Err(CloseCode::TooBig));
        assert_eq!(see(&vec![frame(0x00, 0); 5]), Err(CloseCode::TooBig));
        assert_eq!(see(&[frame(0x89, 126)]), Err(CloseCode::BadWebSocket));
        assert_eq!(see(&vec![frame(0x89, 5); 3]), Ok(()));
        assert_eq!(see(&vec![frame(0x89, 5); 4]), Err(CloseCode::RateLimited));
    }

    #[tokio::test(start_paused = true)]
    async fn a_message_has_a_time_to_come_in() {
        let mut frames = frames();
        frames.see(&frame(0x81, 10)).unwrap();
        tokio::time::advance(Duration::from_secs(3_600)).await;
        frames.see(&frame(0x01, 10)).unwrap();
        tokio::time::advance(Duration::from_secs(31)).await;
        assert_eq!(frames.see(&frame(0x80, 10)).unwrap_err().0, CloseCode::TooBig);
    }
}
