//! Messages on their way: in order per channel, each under its nonce, until the server has answered.
//!
//! Only state and time, no I/O. Of one channel one message is with the server at a time: if it has to be sent again, those
//! behind it have not overtaken it.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap, VecDeque},
    time::Duration,
};

use jiscord_core::{
    ChannelId, Code,
    frame::{ErrorFrame, MessageAck, SendMessage},
};
use tokio::sync::{OwnedSemaphorePermit, oneshot};

use crate::{
    error::{Error, Refusal, Result},
    sys::Instant,
};

/// How long to wait where the server did not say.
const PAUSE: Duration = Duration::from_secs(1);
/// The most messages that are with the server at a time.
const WINDOW: usize = 64;

/// A message to send, and who waits for the answer.
pub(crate) struct Draft {
    pub(crate) message: SendMessage,
    pub(crate) nonce: String,
    pub(crate) deadline: Instant,
    pub(crate) answer: oneshot::Sender<Result<MessageAck>>,
    /// Its place among the sends that may be under way.
    pub(crate) place: OwnedSemaphorePermit,
}

struct Entry {
    draft: Draft,
    /// Written to the connection there is, and not answered.
    in_flight: bool,
    /// Once written, and whether that was stored was never said.
    doubtful: bool,
    /// The last answer that said "not now".
    refusal: Option<Refusal>,
}

/// All messages that were not answered for good.
#[derive(Default)]
pub(crate) struct Outbox {
    entries: BTreeMap<u64, Entry>,
    nonces: HashMap<String, u64>,
    lanes: HashMap<ChannelId, VecDeque<u64>>,
    /// The first of each lane, where it is not in flight.
    ready: BTreeSet<u64>,
    deadlines: BTreeSet<(Instant, u64)>,
    in_flight: usize,
    paused_until: Option<Instant>,
    /// The time from one message to the next: longer when the server says that it is too fast, shorter while it goes well.
    pace: Duration,
    last: u64,
}

impl Outbox {
    /// Takes a message in, behind all that came before.
    pub(crate) fn push(&mut self, draft: Draft) {
        if self.nonces.contains_key(&draft.nonce) {
            let refusal = Refusal::new(Code::NONCE_REUSED, "a message with this nonce is on its way", None);
            return answer(draft, Err(Error::Refused(refusal)));
        }
        self.last += 1;
        let number = self.last;
        self.nonces.insert(draft.nonce.clone(), number);
        self.deadlines.insert((draft.deadline, number));
        let lane = self.lanes.entry(draft.message.channel_id).or_default();
        lane.push_back(number);
        if lane.len() == 1 {
            self.ready.insert(number);
        }
        self.entries.insert(number, Entry { draft, in_flight: false, doubtful: false, refusal: None });
    }

    /// Whether there is something to write.
    pub(crate) fn has_next(&self, now: Instant) -> bool {
        !self.ready.is_empty() && self.in_flight < WINDOW && self.paused_until.is_none_or(|until| until <= now)
    }

    /// What is to be written next.
    pub(crate) fn next(&mut self, now: Instant) -> Option<SendMessage> {
        while self.has_next(now) {
            let number = self.ready.pop_first()?;
            let entry = self.entries.get_mut(&number)?;
            if entry.draft.answer.is_closed() && !entry.doubtful {
                // Nobody waits for it any more, and the server has never seen it.
                self.remove(number);
                continue;
            }
            entry.in_flight = true;
            self.in_flight += 1;
            if self.pace > Duration::from_millis(1) {
                self.paused_until = Some(now + self.pace);
            }
            return Some(entry.draft.message.clone());
        }
        None
    }

    /// Whether the server owes an answer.
    pub(crate) fn awaits_answer(&self) -> bool {
        self.in_flight > 0
    }

    /// The server has it.
    pub(crate) fn acknowledge(&mut self, ack: MessageAck) {
        if let Some(entry) = self.nonces.get(&ack.nonce).copied().and_then(|number| self.remove(number)) {
            self.pace = self.pace.mul_f32(0.98);
            answer(entry.draft, Ok(ack));
        }
    }

    /// The server said no, or not now. Gives the error back if it is about none of these.
    pub(crate) fn refuse(&mut self, error: ErrorFrame, now: Instant) -> Option<ErrorFrame> {
        let Some(&number) = error.nonce.as_ref().and_then(|nonce| self.nonces.get(nonce)) else { return Some(error) };
        let Some(entry) = self.entries.get_mut(&number) else { return Some(error) };
        let wait = error.retry_after.map(Duration::from_millis);
        let refusal = Refusal::new(error.code, error.message, wait);
        if !is_passing(&refusal.code) {
            if let Some(entry) = self.remove(number) {
                answer(entry.draft, Err(Error::Refused(refusal)));
            }
            return None;
        }
        let is_too_fast = refusal.code == Code::RATE_LIMITED;
        entry.doubtful |= refusal.code == Code::OUTCOME_UNKNOWN;
        entry.refusal = Some(refusal);
        if std::mem::take(&mut entry.in_flight) {
            self.in_flight -= 1;
            self.ready.insert(number);
        }
        let wait = wait.unwrap_or(PAUSE);
        let until = now + wait;
        if is_too_fast && self.paused_until.is_none_or(|earlier| earlier <= now) {
            self.pace = wait.max(self.pace.mul_f32(1.5)).min(PAUSE);
        }
        self.paused_until = Some(self.paused_until.map_or(until, |earlier| earlier.max(until)));
        None
    }

    /// The connection is gone: what was not answered is to be written again.
    pub(crate) fn disconnected(&mut self) {
        for (number, entry) in self.entries.iter_mut().filter(|(_, entry)| entry.in_flight) {
            entry.in_flight = false;
            entry.doubtful = true;
            self.ready.insert(*number);
        }
        self.in_flight = 0;
    }

    /// When [`Outbox::expire`] or [`Outbox::next`] will have something to do, if nothing else happens.
    pub(crate) fn wakes_at(&self, now: Instant) -> Option<Instant> {
        let deadline = self.deadlines.first().map(|(deadline, _)| *deadline);
        let pause = self.paused_until.filter(|until| *until > now && !self.ready.is_empty());
        deadline.into_iter().chain(pause).min()
    }

    /// Answers those whose time is over.
    pub(crate) fn expire(&mut self, now: Instant) {
        while let Some(&(deadline, number)) = self.deadlines.first().filter(|(deadline, _)| *deadline <= now) {
            match self.remove(number) {
                Some(entry) => give_up(entry, || Error::Unreachable("not sent in time".into())),
                None => drop(self.deadlines.remove(&(deadline, number))),
            }
        }
    }

    /// Answers all: nothing will be sent any more.
    pub(crate) fn end(&mut self, why: impl Fn() -> Error) {
        for (_, entry) in std::mem::take(self).entries {
            give_up(entry, &why);
        }
    }

    fn remove(&mut self, number: u64) -> Option<Entry> {
        let entry = self.entries.remove(&number)?;
        self.nonces.remove(&entry.draft.nonce);
        self.deadlines.remove(&(entry.draft.deadline, number));
        self.ready.remove(&number);
        self.in_flight -= usize::from(entry.in_flight);
        let channel = entry.draft.message.channel_id;
        if let Some(lane) = self.lanes.get_mut(&channel) {
            lane.retain(|&other| other != number);
            match lane.front() {
                Some(first) if self.entries.get(first).is_some_and(|entry| !entry.in_flight) => {
                    self.ready.insert(*first);
                }
                Some(_) => {}
                None => drop(self.lanes.remove(&channel)),
            }
        }
        Some(entry)
    }
}

/// Whether the same message may be taken a moment later.
fn is_passing(code: &Code) -> bool {
    [Code::RATE_LIMITED, Code::BUSY, Code::UNAVAILABLE, Code::OUTCOME_UNKNOWN].contains(code)
}

fn give_up(entry: Entry, otherwise: impl Fn() -> Error) {
    let error = match entry.refusal {
        _ if entry.in_flight || entry.doubtful => Error::OutcomeUnknown { nonce: Some(entry.draft.nonce.clone()) },
        Some(refusal) => Error::Refused(refusal),
        None => otherwise(),
    };
    answer(entry.draft, Err(error));
}

fn answer(draft: Draft, result: Result<MessageAck>) {
    let Draft { answer, place, .. } = draft;
    // The place is free before the sender hears, so that it can send the next one at once.
    drop(place);
    // Who waits no longer needs no answer.
    let _ = answer.send(result);
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use jiscord_core::MessageId;
    use tokio::sync::{Semaphore, oneshot::Receiver};

    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    fn channel(number: u128) -> ChannelId {
        format!("{:08x}-0000-4000-8000-000000000000", number).parse().unwrap()
    }

    struct Script {
        outbox: Outbox,
        places: Arc<Semaphore>,
        start: Instant,
    }

    impl Script {
        fn new() -> Self {
            Self { outbox: Outbox::default(), places: Arc::new(Semaphore::new(100)), start: Instant::now() }
        }

        fn at(&self, seconds: u32) -> Instant {
            self.start + SECOND * seconds
        }

        fn push(&mut self, lane: u128, text: &str) -> Receiver<Result<MessageAck>> {
            let (answer, answered) = oneshot::channel();
            self.outbox.push(Draft {
                message: SendMessage {
                    channel_id: channel(lane),
                    content: text.into(),
                    nonce: Some(text.into()),
                    reply_to: None,
                },
                nonce: text.into(),
                deadline: self.at(30),
                answer,
                place: self.places.clone().try_acquire_owned().unwrap(),
            });
            answered
        }

        /// What is written at that second.
        fn written(&mut self, seconds: u32) -> Vec<String> {
            let now = self.at(seconds);
            std::iter::from_fn(|| self.outbox.next(now)).map(|message| message.content).collect()
        }

        fn ack(&mut self, nonce: &str) {
            let message_id: MessageId = "7ed00000-e912-11f1-8000-010000000000".parse().unwrap();
            self.outbox.acknowledge(MessageAck { nonce: nonce.into(), message_id, channel_id: channel(1) });
        }

        fn refuse(&mut self, nonce: &str, code: Code, retry_after: Option<u64>) {
            let error = ErrorFrame { code, message: "no".into(), op: None, nonce: Some(nonce.into()), retry_after };
            assert_eq!(self.outbox.refuse(error, self.start), None);
        }
    }

    #[test]
    fn one_message_a_channel_is_under_way() {
        let mut script = Script::new();
        let mut answers = ["a1", "a2"].map(|text| script.push(1, text));
        let _waiting = script.push(2, "b1");
        assert_eq!(script.written(0), ["a1", "b1"]);
        script.ack("a1");
        assert_eq!(script.written(0), ["a2"]);
        assert_eq!(answers[0].try_recv().unwrap().unwrap().nonce, "a1");
        assert!(answers[1].try_recv().is_err());
    }

    #[test]
    fn what_was_not_answered_is_written_again_in_its_order() {
        let mut script = Script::new();
        let _waiting = [(1, "a1"), (1, "a2"), (2, "b1"), (3, "c1")].map(|(lane, text)| script.push(lane, text));
        assert_eq!(script.written(0), ["a1", "b1", "c1"]);
        script.ack("b1");
        assert!(script.outbox.awaits_answer());
        script.outbox.disconnected();
        assert!(!script.outbox.awaits_answer());
        assert_eq!(script.written(0), ["a1", "c1"]);
        script.ack("a1");
        assert_eq!(script.written(0), ["a2"]);
    }

    #[test]
    fn not_now_means_the_same_again_later_and_nothing_overtakes() {
        for code in [Code::RATE_LIMITED, Code::BUSY, Code::UNAVAILABLE, Code::OUTCOME_UNKNOWN] {
            let mut script = Script::new();
            let _waiting = [(1, "a1"), (1, "a2"), (2, "b1")].map(|(lane, text)| script.push(lane, text));
            assert_eq!(script.written(0), ["a1", "b1"]);
            script.refuse("a1", code, Some(5_000));
            assert_eq!(script.written(4), [""; 0]);
            assert_eq!(script.outbox.wakes_at(script.at(4)), Some(script.at(5)));
            assert_eq!(script.written(5), ["a1"]);
        }
    }

    #[test]
    fn too_fast_means_slower_until_it_goes_well_again() {
        let mut script = Script::new();
        let texts: Vec<_> = (0..100).map(|lane| lane.to_string()).collect();
        let _waiting: Vec<_> = texts.iter().enumerate().map(|(lane, text)| script.push(lane as u128, text)).collect();
        let written = script.written(0);
        assert_eq!(written.len(), WINDOW);
        for text in &written {
            script.refuse(text, Code::RATE_LIMITED, Some(1_000));
        }
        for second in 1..20 {
            let written = script.written(second);
            assert_eq!(written.len(), 1, "one a second, as it was told");
            script.ack(&written[0]);
        }
        assert!(script.outbox.pace < SECOND);
        let before = script.outbox.pace;
        let written = script.written(20);
        script.start = script.at(21);
        script.refuse(&written[0], Code::RATE_LIMITED, Some(10));
        assert_eq!(script.outbox.pace, before.mul_f32(1.5).min(PAUSE));
    }

    #[test]
    fn without_a_time_not_now_is_a_second() {
        let mut script = Script::new();
        let _waiting = script.push(1, "a1");
        script.written(0);
        script.refuse("a1", Code::BUSY, None);
        assert_eq!(script.outbox.wakes_at(script.at(0)), Some(script.at(1)));
    }

    #[test]
    fn no_means_no() {
        for code in [Code::FORBIDDEN, Code::NOT_FOUND, Code::INVALID, Code::NONCE_REUSED, Code::STORAGE_FULL] {
            let mut script = Script::new();
            let mut answers = ["a1", "a2"].map(|text| script.push(1, text));
            script.written(0);
            script.refuse("a1", code.clone(), None);
            let Err(Error::Refused(refusal)) = answers[0].try_recv().unwrap() else { panic!("{code}") };
            assert_eq!((refusal.code, refusal.message.as_str()), (code, "no"));
            assert_eq!(script.written(0), ["a2"]);
        }
    }

    #[test]
    fn an_error_about_something_else_is_given_back() {
        let mut script = Script::new();
        let _waiting = script.push(1, "a1");
        for nonce in [None, Some("x".to_owned())] {
            let error = ErrorFrame { code: Code::BUSY, message: "no".into(), op: None, nonce, retry_after: None };
            assert_eq!(script.outbox.refuse(error.clone(), script.start), Some(error));
        }
    }

    #[test]
    fn a_deadline_tells_what_is_known() {
        type Case = (&'static str, fn(&mut Script), fn(&Error) -> bool);
        let cases: [Case; 5] = [
            ("never written", |_| (), |error| matches!(error, Error::Unreachable(_))),
            ("written", |script| drop(script.written(0)), |error| matches!(error, Error::OutcomeUnknown { nonce: Some(_) })),
            (
                "written, then cut",
                |script| {
                    script.written(0);
                    script.outbox.disconnected();
                },
                |error| matches!(error, Error::OutcomeUnknown { .. }),
            ),
            (
                "refused for now",
                |script| {
                    script.written(0);
                    script.refuse("a1", Code::BUSY, Some(60_000));
                },
                |error| matches!(error, Error::Refused(refusal) if refusal.code == Code::BUSY),
            ),
            (
                "cut, then refused for now",
                |script| {
                    script.written(0);
                    script.outbox.disconnected();
                    script.written(0);
                    script.refuse("a1", Code::BUSY, Some(60_000));
                },
                |error| matches!(error, Error::OutcomeUnknown { .. }),
            ),
        ];
        for (name, step, is_right) in cases {
            let mut script = Script::new();
            let mut answered = script.push(1, "a1");
            step(&mut script);
            script.outbox.expire(script.at(29));
            assert!(answered.try_recv().is_err(), "{name}");
            script.outbox.expire(script.at(30));
            let error = answered.try_recv().unwrap().unwrap_err();
            assert!(is_right(&error), "{name}: {error:?}");
            assert_eq!(script.places.available_permits(), 100, "{name}");
            assert_eq!(script.outbox.wakes_at(script.at(30)), None, "{name}");
        }
    }

    #[test]
    fn what_nobody_waits_for_is_withdrawn_unless_the_server_may_have_it() {
        let mut script = Script::new();
        drop(script.push(1, "a1"));
        let _waiting = script.push(1, "a2");
        assert_eq!(script.written(0), ["a2"]);
        drop(_waiting);
        script.outbox.disconnected();
        assert_eq!(script.written(0), ["a2"]);
    }

    #[test]
    fn a_nonce_is_under_way_once() {
        let mut script = Script::new();
        let _first = script.push(1, "a1");
        let mut second = script.push(1, "a1");
        assert!(matches!(second.try_recv().unwrap(), Err(Error::Refused(refusal)) if refusal.code == Code::NONCE_REUSED));
    }

    #[test]
    fn the_end_answers_all() {
        let mut script = Script::new();
        let mut answers = ["a1", "a2"].map(|text| script.push(1, text));
        script.written(0);
        script.outbox.end(|| Error::Closed);
        assert!(matches!(answers[0].try_recv().unwrap(), Err(Error::OutcomeUnknown { .. })));
        assert!(matches!(answers[1].try_recv().unwrap(), Err(Error::Closed)));
    }
}
