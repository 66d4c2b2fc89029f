//! What the proxies do to single messages of a protocol: answers that are lost, pushes that are lost or come twice.

use std::{
    collections::HashSet,
    mem,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
};

use jiscord_e2e::{Tamper, Tampering};

/// Cuts a stream of bytes into the messages of a protocol.
struct Cutter {
    /// How long the first message is, once that is known and it is all there.
    measure: fn(&[u8]) -> Option<usize>,
    rest: Vec<u8>,
}

impl Cutter {
    fn new(measure: fn(&[u8]) -> Option<usize>) -> Self {
        Self { measure, rest: Vec::new() }
    }

    fn feed(&mut self, bytes: &[u8]) -> Vec<Vec<u8>> {
        self.rest.extend(bytes);
        let mut messages = Vec::new();
        while let Some(length) = (self.measure)(&self.rest).filter(|length| *length <= self.rest.len()) {
            let rest = self.rest.split_off(length);
            messages.push(mem::replace(&mut self.rest, rest));
        }
        messages
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// A trap is set once, and springs once.
#[derive(Default)]
pub struct Trap(AtomicBool);

impl Trap {
    /// The next one falls into it.
    pub fn set(&self) {
        self.0.store(true, Ordering::SeqCst);
    }

    /// Whether it waits still.
    pub fn is_set(&self) -> bool {
        self.0.load(Ordering::SeqCst)
    }

    fn springs(&self) -> bool {
        self.0.swap(false, Ordering::SeqCst)
    }
}

/// Traps between a gateway and its clients.
#[derive(Default)]
pub struct Pushes {
    /// A MESSAGE_CREATE is lost.
    pub lose: Trap,
    /// A MESSAGE_CREATE comes twice.
    pub repeat: Trap,
}

impl Pushes {
    /// For a proxy in front of a gateway.
    pub fn tampering(self: &Arc<Self>) -> Tampering {
        let traps = self.clone();
        Arc::new(move || Box::new(PushTamper { traps: traps.clone(), cutter: Cutter::new(websocket) }))
    }
}

struct PushTamper {
    traps: Arc<Pushes>,
    cutter: Cutter,
}

impl Tamper for PushTamper {
    fn up(&mut self, bytes: &[u8]) -> Vec<u8> {
        bytes.to_vec()
    }

    fn down(&mut self, bytes: &[u8]) -> Vec<u8> {
        let mut out = Vec::new();
        for frame in self.cutter.feed(bytes) {
            let is_message = has(&frame, b"\"op\":\"MESSAGE_CREATE\"");
            if is_message && self.traps.lose.springs() {
                continue;
            }
            out.extend(&frame);
            if is_message && self.traps.repeat.springs() {
                out.extend(&frame);
            }
        }
        out
    }
}

/// The head of the upgrade's answer, then frames without masks.
fn websocket(bytes: &[u8]) -> Option<usize> {
    if bytes.starts_with(b"HTTP") {
        return bytes.windows(4).position(|end| end == b"\r\n\r\n").map(|at| at + 4);
    }
    let (head, payload) = match bytes.get(1)? & 0x7f {
        126 => (4, u64::from(u16::from_be_bytes(bytes.get(2..4)?.try_into().ok()?))),
        127 => (10, u64::from_be_bytes(bytes.get(2..10)?.try_into().ok()?)),
        length => (2, u64::from(length)),
    };
    Some(head + usize::try_from(payload).ok()?)
}

/// A trap between the services and Redis.
#[derive(Default)]
pub struct RedisPushes {
    topic: Mutex<Option<String>>,
}

impl RedisPushes {
    /// For the wire to Redis.
    pub fn tampering(self: &Arc<Self>) -> Tampering {
        let traps = self.clone();
        Arc::new(move || Box::new(RedisTamper { traps: traps.clone(), cutter: Cutter::new(resp) }))
    }

    /// The next message of this topic is lost on its way to one subscriber.
    pub fn lose(&self, topic: &str) {
        *lock(&self.topic) = Some(topic.to_owned());
    }

    /// Whether it waits still.
    pub fn is_set(&self) -> bool {
        lock(&self.topic).is_some()
    }

    fn springs(&self, message: &[u8]) -> bool {
        let pushed = message.starts_with(b">3\r\n$7\r\nmessage\r\n") || message.starts_with(b"*3\r\n$7\r\nmessage\r\n");
        let mut topic = lock(&self.topic);
        let springs = pushed
            && has(message, b"MESSAGE_CREATE")
            && topic.as_ref().is_some_and(|topic| has(message, format!("\r\n{topic}\r\n").as_bytes()));
        if springs {
            *topic = None;
        }
        springs
    }
}

struct RedisTamper {
    traps: Arc<RedisPushes>,
    cutter: Cutter,
}

impl Tamper for RedisTamper {
    fn up(&mut self, bytes: &[u8]) -> Vec<u8> {
        bytes.to_vec()
    }

    fn down(&mut self, bytes: &[u8]) -> Vec<u8> {
        let mut messages = self.cutter.feed(bytes);
        messages.retain(|message| !self.traps.springs(message));
        messages.concat()
    }
}

/// A value of Redis's protocol.
fn resp(bytes: &[u8]) -> Option<usize> {
    let line = bytes.windows(2).position(|end| end == b"\r\n")? + 2;
    let number = || std::str::from_utf8(&bytes[1..line - 2]).ok()?.parse::<i64>().ok();
    let values = |count: usize| {
        let mut at = line;
        for _ in 0..count {
            at += resp(&bytes[at..])?;
            if at > bytes.len() {
                return None;
            }
        }
        Some(at)
    };
    match bytes[0] {
        b'$' | b'=' | b'!' => match usize::try_from(number()?) {
            Ok(length) => Some(line + length + 2),
            Err(_) => Some(line),
        },
        b'*' | b'~' | b'>' => values(usize::try_from(number()?).unwrap_or(0)),
        b'%' => values(2 * usize::try_from(number()?).ok()?),
        b'|' => values(2 * usize::try_from(number()?).ok()? + 1),
        _ => Some(line),
    }
}

/// Traps between the services and the database.
#[derive(Default)]
pub struct CqlAnswers {
    /// The answer to a batch is lost.
    pub batch: Trap,
    /// The answer to a conditional write of a nonce is lost.
    pub claim: Trap,
    /// The prepared statements that do that.
    claims: Mutex<HashSet<Vec<u8>>>,
}

impl CqlAnswers {
    /// For the wire to the database.
    pub fn tampering(self: &Arc<Self>) -> Tampering {
        let traps = self.clone();
        Arc::new(move || {
            let (up, down) = (Cutter::new(cql), Cutter::new(cql));
            Box::new(CqlTamper { traps: traps.clone(), up, down, lost: HashSet::new(), preparing: HashSet::new() })
        })
    }
}

struct CqlTamper {
    traps: Arc<CqlAnswers>,
    up: Cutter,
    down: Cutter,
    /// Streams whose answer is lost, and those that prepare a claim.
    lost: HashSet<[u8; 2]>,
    preparing: HashSet<[u8; 2]>,
}

const RESULT: u8 = 0x08;
const PREPARE: u8 = 0x09;
const EXECUTE: u8 = 0x0a;
const BATCH: u8 = 0x0d;
/// Length of a frame's head.
const HEAD: usize = 9;

impl Tamper for CqlTamper {
    fn up(&mut self, bytes: &[u8]) -> Vec<u8> {
        for frame in self.up.feed(bytes) {
            let stream = [frame[2], frame[3]];
            match frame[4] {
                PREPARE if has(&frame, b"message_nonces") && has(&frame, b" IF ") => drop(self.preparing.insert(stream)),
                BATCH if self.traps.batch.springs() => drop(self.lost.insert(stream)),
                EXECUTE => {
                    let is_claim = short_bytes(&frame[HEAD..]).is_some_and(|id| lock(&self.traps.claims).contains(id));
                    if is_claim && self.traps.claim.springs() {
                        self.lost.insert(stream);
                    }
                }
                _ => {}
            }
        }
        bytes.to_vec()
    }

    fn down(&mut self, bytes: &[u8]) -> Vec<u8> {
        let mut frames = self.down.feed(bytes);
        frames.retain(|frame| {
            let stream = [frame[2], frame[3]];
            let body = &frame[HEAD..];
            // RESULT of the kind Prepared.
            if self.preparing.remove(&stream) && frame[4] == RESULT && body.starts_with(&[0, 0, 0, 4]) {
                lock(&self.traps.claims).extend(short_bytes(&body[4..]).map(<[u8]>::to_vec));
            }
            !self.lost.remove(&stream)
        });
        frames.concat()
    }
}

fn cql(bytes: &[u8]) -> Option<usize> {
    let length = u32::from_be_bytes(bytes.get(5..HEAD)?.try_into().ok()?);
    Some(HEAD + length as usize)
}

fn short_bytes(bytes: &[u8]) -> Option<&[u8]> {
    let length = u16::from_be_bytes(bytes.get(..2)?.try_into().ok()?);
    bytes.get(2..2 + usize::from(length))
}

fn has(bytes: &[u8], part: &[u8]) -> bool {
    bytes.windows(part.len()).any(|window| window == part)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// However the bytes are cut, the messages are the same.
    fn cuts(measure: fn(&[u8]) -> Option<usize>, messages: &[&[u8]]) {
        let bytes = messages.concat();
        for size in 1..=bytes.len() {
            let mut cutter = Cutter::new(measure);
            let found: Vec<_> = bytes.chunks(size).flat_map(|chunk| cutter.feed(chunk)).collect();
            assert_eq!(found, messages, "in pieces of {size}");
        }
    }

    #[test]
    fn streams_are_cut_into_messages() {
        cuts(
            resp,
            &[
                b"+OK\r\n",
                b"$-1\r\n",
                b"*-1\r\n",
                b":12\r\n",
                b"$3\r\na\r\n\r\n",
                b"*2\r\n$1\r\na\r\n*1\r\n:1\r\n",
                b">3\r\n$7\r\nmessage\r\n$1\r\nt\r\n$2\r\nhi\r\n",
                b"%1\r\n+a\r\n_\r\n",
            ],
        );
        cuts(websocket, &[b"HTTP/1.1 101 x\r\nA: b\r\n\r\n", b"\x81\x02hi", b"\x88\x00", b"\x81\x7e\x00\x03abc"]);
        cuts(cql, &[b"\x84\x00\x00\x01\x08\x00\x00\x00\x02ab", b"\x84\x00\x00\x02\x08\x00\x00\x00\x00"]);
    }

    #[test]
    fn one_push_of_the_topic_is_lost() {
        let traps = Arc::new(RedisPushes::default());
        let mut wire = traps.tampering()();
        let push = |topic: &str| format!(">3\r\n$7\r\nmessage\r\n${}\r\n{topic}\r\n$14\r\nMESSAGE_CREATE\r\n", topic.len());
        let (mine, other) = (push("guild:a"), push("guild:b"));
        traps.lose("guild:a");
        let out = wire.down(format!("{other}{mine}{mine}+OK\r\n").as_bytes());
        assert_eq!(String::from_utf8(out).unwrap(), format!("{other}{mine}+OK\r\n"));
        assert!(!traps.is_set());
    }

    #[test]
    fn one_answer_of_the_database_is_lost() {
        let traps = Arc::new(CqlAnswers::default());
        let mut wire = traps.tampering()();
        let frame = |stream: u8, opcode: u8, body: &[u8]| {
            let length = u32::try_from(body.len()).unwrap().to_be_bytes();
            [&[4, 0, 0, stream, opcode], &length[..], body].concat()
        };
        // Prepared as 7 on stream 1, executed on 2 and 3, of which the first answer is lost.
        let query = b"\0\0\0\x30INSERT INTO message_nonces (...) VALUES IF NOT EXISTS";
        wire.up(&frame(1, PREPARE, query));
        let prepared = frame(1, RESULT, &[0, 0, 0, 4, 0, 1, 7, 0]);
        assert_eq!(wire.down(&prepared), prepared);
        traps.claim.set();
        for (stream, lost) in [(2, true), (3, false)] {
            wire.up(&frame(stream, EXECUTE, &[0, 1, 7]));
            let answer = frame(stream, RESULT, &[0, 0, 0, 1]);
            assert_eq!(wire.down(&answer).is_empty(), lost);
        }
        assert!(!traps.claim.is_set());
    }
}
