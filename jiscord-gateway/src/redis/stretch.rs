//! Reads what happened from the streams of topics.

use std::collections::HashMap;

use jiscord_core::{Event, EventId, Position, Topic, event::Logged, fault};
use redis::Pipeline;

use super::{asker::Asker, link::Redis};
use crate::bus::REPLAYED;

/// How many topics are asked about at once.
const CHUNK: usize = 64;

/// An entry of a stream: id, then field and value.
type Entry = (String, HashMap<String, String>);

/// Reads streams over a connection of its own.
pub(super) struct Streams {
    redis: Redis,
    asker: Asker,
}

/// What happened in a topic, in order; none if some of it is gone.
pub(super) type Stretch = Option<Vec<Logged>>;

impl Streams {
    /// Nothing is connected yet.
    pub(super) fn new(redis: &Redis) -> Self {
        Self { redis: redis.clone(), asker: Asker::new(redis) }
    }

    /// The position below which events may have been forgotten.
    pub(super) async fn floor(&self) -> fault::Result<Position> {
        Ok(self.of_log("floor").await?.unwrap_or(Position(u64::MAX)))
    }

    /// The last position of the log.
    pub(super) async fn last(&self) -> fault::Result<Position> {
        Ok(self.of_log("last").await?.unwrap_or_default())
    }

    async fn of_log(&self, field: &str) -> fault::Result<Option<Position>> {
        let mut call = Pipeline::new();
        call.hget(self.redis.log_key(), field);
        Ok(self.asker.ask::<Option<u64>>(&call).await?.into_iter().flatten().next().map(Position))
    }

    /// Which of these topics have something above the position beside them, and up to where.
    pub(super) async fn moved(&self, topics: &[(Topic, Position)]) -> fault::Result<Vec<(Topic, Position, Position)>> {
        let mut call = Pipeline::new();
        for chunk in topics.chunks(CHUNK) {
            let names: Vec<_> = chunk.iter().map(|(topic, _)| topic.to_string()).collect();
            call.cmd("ZMSCORE").arg(self.redis.active_key()).arg(names);
        }
        // Positions are below 2^53, so that they are whole numbers there.
        let scores = self.asker.ask::<Vec<Option<f64>>>(&call).await?.into_iter().flatten();
        let last = scores.map(|score| Position(score.unwrap_or(0.0) as u64));
        let moved = topics.iter().zip(last).filter(|((_, after), last)| last > after);
        Ok(moved.map(|((topic, after), last)| (*topic, *after, last)).collect())
    }

    /// What happened in each of these topics above the first position, up to and with the second.
    pub(super) async fn read(&self, stretches: &[(Topic, Position, Position)]) -> fault::Result<Vec<Stretch>> {
        let mut all = Vec::with_capacity(stretches.len());
        for chunk in stretches.chunks(CHUNK) {
            let mut call = Pipeline::new();
            for (topic, after, to) in chunk {
                call.cmd("XRANGE").arg(self.redis.stream_key(*topic)).arg(format!("({after}-0")).arg(format!("{to}-0"));
                call.arg("COUNT").arg(REPLAYED + 1);
            }
            let answers = self.asker.ask::<Vec<Entry>>(&call).await?;
            all.extend(chunk.iter().zip(answers).map(|((topic, after, _), entries)| whole(*topic, *after, entries)));
        }
        Ok(all)
    }
}

/// The events of a stream's entries above `after`, if none is missing.
fn whole(topic: Topic, after: Position, entries: Vec<Entry>) -> Stretch {
    if entries.is_empty() || entries.len() > REPLAYED {
        return None;
    }
    let mut known = after;
    entries
        .into_iter()
        .map(|(id, fields)| {
            let p = Position(id.strip_suffix("-0")?.parse().ok()?);
            let prev = Position(fields.get("v")?.parse().ok()?);
            // The one before this one is not there any more.
            if prev > known {
                return None;
            }
            known = p;
            let (op, channel) = fields.get("h")?.split_once(' ')?;
            let channel = if channel == "-" { None } else { Some(channel.parse().ok()?) };
            let frame = fields.get("f")?.as_str().into();
            Some(Logged { p, event: Event { id: EventId::NONE, topics: vec![topic], op: op.into(), channel, frame } })
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(p: u64, v: u64) -> Entry {
        let fields = [("v", v.to_string()), ("h", "MEMBER_ADD -".to_owned()), ("f", format!("{{\"p\":{p}}}"))];
        (format!("{p}-0"), fields.into_iter().map(|(name, value)| (name.to_owned(), value)).collect())
    }

    #[test]
    fn a_stretch_is_whole_if_each_entry_follows_what_is_known() {
        let topic = Topic::Guild("0f8fad5b-d9cb-469f-a165-70867728950e".parse().unwrap());
        for (after, entries, want) in [
            (4, vec![entry(5, 4), entry(9, 5)], Some(vec![5, 9])),
            // Something of another time came between, and was known.
            (4, vec![entry(5, 3)], Some(vec![5])),
            // Nothing was there before, as far as is known.
            (4, vec![entry(5, 0)], Some(vec![5])),
            (4, vec![entry(6, 5)], None),
            (4, vec![entry(5, 4), entry(9, 7)], None),
            (4, vec![], None),
        ] {
            let found = whole(topic, Position(after), entries);
            assert_eq!(found.map(|events| events.iter().map(|logged| logged.p.0).collect::<Vec<_>>()), want);
        }
    }
}
