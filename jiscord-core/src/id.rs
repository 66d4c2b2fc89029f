//! Typed ids, and the two orders that hide in them.
//!
//! On the wire every id is a UUID. Those that Jiscord mints are version-1 UUIDs built from (unix milliseconds, 12-bit
//! sequence, 10-bit worker), so each maps one to one, and in the same order, to a 64-bit [`Snowflake`] with Discord's epoch:
//!
//! ```text
//! snowflake = (ms - 1420070400000) << 22 | sequence << 10 | worker
//! ticks     = (ms + 12219292800000) * 10000 + sequence       the UUID's 60-bit count of 100 ns since 1582 (RFC 9562, 5.1)
//! low half  = 0x8000_0100_0000_0000 | (worker >> 5) << 8 | (worker & 31)
//! ```
//!
//! The clock sequence is 0, the node is a multicast address, and both worker bytes are below 0x80, because CQL compares the
//! low half of a `timeuuid` as signed bytes. Rows brought from elsewhere may carry any UUID; only messages are ordered by id.

use std::{borrow::Cow, fmt, str::FromStr};

use serde::{Deserialize, Deserializer, Serialize, de::Error as _};
use uuid::Uuid;

use crate::time::Timestamp;

/// Milliseconds between the Unix epoch and the first millisecond of 2015, where snowflakes begin.
pub const SNOWFLAKE_EPOCH_MS: u64 = 1_420_070_400_000;
/// Milliseconds between the Gregorian epoch of version-1 UUIDs (1582-10-15) and the Unix epoch.
const GREGORIAN_MS: u64 = 12_219_292_800_000;
const TICKS_PER_MS: u64 = 10_000;
const LOW_HALF: u64 = 0x8000_0100_0000_0000;

/// The last millisecond a snowflake has room for (in the year 2154).
pub const LAST_MS: u64 = SNOWFLAKE_EPOCH_MS + (1 << 42) - 1;
/// The last sequence number within one millisecond.
pub const LAST_SEQUENCE: u16 = 4095;

/// Which minter of several an id comes from: 0 to 1023.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Worker(u16);

impl Worker {
    /// The highest worker number.
    pub const MAX: u16 = 1023;

    /// `None` above [`Worker::MAX`].
    pub fn new(number: u16) -> Option<Self> {
        (number <= Self::MAX).then_some(Self(number))
    }

    /// The number.
    pub fn get(self) -> u16 {
        self.0
    }
}

/// The 64-bit form of a minted id: `(ms - epoch) << 22 | sequence << 10 | worker`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Snowflake(pub u64);

impl Snowflake {
    /// Puts the parts together. `None` for a time before 2015 or after 2154, or a sequence above [`LAST_SEQUENCE`].
    pub fn new(ms: u64, sequence: u16, worker: Worker) -> Option<Self> {
        let since = ms.checked_sub(SNOWFLAKE_EPOCH_MS)?;
        (ms <= LAST_MS && sequence <= LAST_SEQUENCE)
            .then_some(Self(since << 22 | u64::from(sequence) << 10 | u64::from(worker.0)))
    }

    /// Unix milliseconds.
    pub fn ms(self) -> u64 {
        (self.0 >> 22) + SNOWFLAKE_EPOCH_MS
    }

    /// The count within its millisecond.
    pub fn sequence(self) -> u16 {
        (self.0 >> 10 & 0xfff) as u16
    }

    /// Who minted it.
    pub fn worker(self) -> Worker {
        Worker((self.0 & 0x3ff) as u16)
    }

    /// The UUID that stands for it on the wire.
    pub fn to_uuid(self) -> Uuid {
        let ticks = (self.ms() + GREGORIAN_MS) * TICKS_PER_MS + u64::from(self.sequence());
        let worker = u64::from(self.worker().0);
        from_halves(ticks, LOW_HALF | (worker >> 5) << 8 | worker & 31)
    }

    /// The way back. `None` for a UUID that no Jiscord minted.
    pub fn from_uuid(uuid: Uuid) -> Option<Self> {
        let (ticks, low) = halves(uuid)?;
        let ms = (ticks / TICKS_PER_MS).checked_sub(GREGORIAN_MS)?;
        let sequence = (ticks % TICKS_PER_MS) as u16;
        let worker = low ^ LOW_HALF;
        if worker & !0x1f1f != 0 {
            return None;
        }
        Self::new(ms, sequence, Worker(((worker >> 8) << 5 | worker & 31) as u16))
    }
}

/// The 60-bit count and the low half of a version-1 UUID.
fn halves(uuid: Uuid) -> Option<(u64, u64)> {
    let (high, low) = uuid.as_u64_pair();
    if high >> 12 & 0xf != 1 || low >> 62 != 2 {
        return None;
    }
    Some(((high & 0xfff) << 48 | (high >> 16 & 0xffff) << 32 | high >> 32, low))
}

fn from_halves(ticks: u64, low: u64) -> Uuid {
    let high = (ticks & 0xffff_ffff) << 32 | (ticks >> 32 & 0xffff) << 16 | 0x1000 | ticks >> 48;
    Uuid::from_u64_pair(high, low)
}

/// Not an id: a UUID in its usual text form was wanted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("not an id: a UUID such as 0f8fad5b-d9cb-469f-a165-70867728950e is wanted")]
pub struct IdError;

macro_rules! ids {
    ($($(#[$doc:meta])* $name:ident),+ $(,)?) => {$(
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize)]
        #[cfg_attr(feature = "typescript", derive(ts_rs::TS), ts(type = "string"))]
        #[serde(transparent)]
        pub struct $name(Uuid);

        impl $name {
            /// Takes any UUID for an id of this kind.
            pub const fn new(uuid: Uuid) -> Self {
                Self(uuid)
            }

            /// The UUID itself.
            pub const fn uuid(self) -> Uuid {
                self.0
            }

            /// The 64-bit form, if Jiscord minted it.
            pub fn snowflake(self) -> Option<Snowflake> {
                Snowflake::from_uuid(self.0)
            }

            /// When it was minted, to the microsecond since the Unix epoch. `None` if it is not a version-1 UUID.
            pub fn micros(self) -> Option<u64> {
                micros(self.0)
            }

            /// When it was minted. `None` if it is not a version-1 UUID.
            pub fn minted_at(self) -> Option<Timestamp> {
                self.micros().map(|micros| Timestamp::from_ms((micros / 1000) as i64))
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                self.0.hyphenated().fmt(f)
            }
        }

        impl FromStr for $name {
            type Err = IdError;

            fn from_str(text: &str) -> Result<Self, IdError> {
                // Only the hyphenated form: `Uuid` would also take braces, URNs and bare digits, and one id should have one spelling.
                if text.len() != 36 {
                    return Err(IdError);
                }
                Uuid::try_parse(text).map(Self).map_err(|_| IdError)
            }
        }

        impl<'de> Deserialize<'de> for $name {
            fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                Cow::<str>::deserialize(deserializer)?.parse().map_err(D::Error::custom)
            }
        }

        impl From<Snowflake> for $name {
            fn from(snowflake: Snowflake) -> Self {
                Self(snowflake.to_uuid())
            }
        }
    )+};
}

fn micros(uuid: Uuid) -> Option<u64> {
    (halves(uuid)?.0 / 10).checked_sub(GREGORIAN_MS * 1000)
}

ids! {
    /// A person or a bot.
    UserId,
    /// A community with members and channels.
    GuildId,
    /// A place in a guild where messages are.
    ChannelId,
    /// A message. Always version 1, and ordered by [`MessageId::sort_key`], not by its bytes or text.
    MessageId,
    /// One connection's session at a gateway. Random.
    SessionId,
    /// Something that happened. The event of a creation carries the id of what was created.
    EventId,
}

impl EventId {
    /// The id of what does not last, such as typing.
    pub const NONE: Self = Self(Uuid::nil());
}

impl MessageId {
    /// The id as 16 bytes whose order is CQL's order of timeuuids: time, then the low half as signed bytes
    /// (Cassandra's `TimeUUIDType`). An id that is not version 1 sorts first.
    pub fn sort_key(self) -> [u8; 16] {
        let (ticks, low) = halves(self.0).unwrap_or_default();
        (u128::from(ticks) << 64 | u128::from(low ^ 0x8080_8080_8080_8080)).to_be_bytes()
    }

    /// The id that a [`MessageId::sort_key`] was made of. `None` for other bytes.
    pub fn from_sort_key(key: [u8; 16]) -> Option<Self> {
        let key = u128::from_be_bytes(key);
        let ticks = u64::try_from(key >> 64).ok().filter(|ticks| ticks >> 60 == 0)?;
        let low = key as u64 ^ 0x8080_8080_8080_8080;
        let uuid = from_halves(ticks, low);
        halves(uuid).map(|_| Self(uuid))
    }

    /// Whether it can be a message's id: version 1, so that it has a place in the order.
    pub fn is_ordered(self) -> bool {
        halves(self.0).is_some()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn snowflakes() -> impl Strategy<Value = Snowflake> {
        (SNOWFLAKE_EPOCH_MS..=LAST_MS, 0..=LAST_SEQUENCE, 0..=Worker::MAX)
            .prop_map(|(ms, sequence, worker)| Snowflake::new(ms, sequence, Worker(worker)).unwrap())
    }

    proptest! {
        #[test]
        fn a_snowflake_survives_the_way_through_a_uuid(snowflake in snowflakes()) {
            let uuid = snowflake.to_uuid();
            prop_assert_eq!(uuid.get_version_num(), 1);
            prop_assert_eq!(Snowflake::from_uuid(uuid), Some(snowflake));
            prop_assert_eq!(MessageId(uuid).minted_at(), Some(Timestamp::from_ms(snowflake.ms() as i64)));
        }

        #[test]
        fn both_forms_have_one_order(a in snowflakes(), b in snowflakes()) {
            let keys = (MessageId::from(a).sort_key(), MessageId::from(b).sort_key());
            prop_assert_eq!(a.cmp(&b), keys.0.cmp(&keys.1));
        }

        #[test]
        fn a_sort_key_can_be_read_back(ticks in 0u64..1 << 60, low in any::<u64>()) {
            let id = MessageId(from_halves(ticks, low >> 2 | 1 << 63));
            prop_assert_eq!(MessageId::from_sort_key(id.sort_key()), Some(id));
        }

        #[test]
        fn no_other_uuid_is_taken_for_a_snowflake(bits in any::<u128>()) {
            let uuid = Uuid::from_u128(bits);
            if let Some(snowflake) = Snowflake::from_uuid(uuid) {
                prop_assert_eq!(snowflake.to_uuid(), uuid);
            }
        }
    }

    #[test]
    fn the_numbers_of_the_module_text_hold() {
        let snowflake = Snowflake::new(1_795_443_456_400, 7, Worker(1023)).unwrap();
        assert_eq!(snowflake.0, (1_795_443_456_400 - 1_420_070_400_000) << 22 | 7 << 10 | 1023);
        let uuid = snowflake.to_uuid();
        assert_eq!(uuid.as_u64_pair().1, 0x8000_0100_0000_1f1f);
        assert_eq!(uuid.get_timestamp().unwrap().to_gregorian().0, (1_795_443_456_400 + 12_219_292_800_000) * 10_000 + 7);
        assert_eq!(EventId(uuid).micros(), Some(1_795_443_456_400_000));
    }

    #[test]
    fn bounds_are_kept() {
        assert_eq!(Worker::new(1024), None);
        assert_eq!(Snowflake::new(SNOWFLAKE_EPOCH_MS - 1, 0, Worker(0)), None);
        assert_eq!(Snowflake::new(LAST_MS + 1, 0, Worker(0)), None);
        assert_eq!(Snowflake::new(LAST_MS, 4096, Worker(0)), None);
    }

    #[test]
    fn an_id_has_one_spelling() {
        let text = "0f8fad5b-d9cb-469f-a165-70867728950e";
        assert_eq!(text.parse::<UserId>().unwrap().to_string(), text);
        for other in [
            "",
            "1",
            "0f8fad5bd9cb469fa16570867728950e",
            "{0f8fad5b-d9cb-469f-a165-70867728950e}",
            "me",
            "zf8fad5b-d9cb-469f-a165-70867728950e",
        ] {
            assert_eq!(other.parse::<UserId>(), Err(IdError), "{other}");
            assert!(serde_json::from_value::<UserId>(other.into()).is_err(), "{other}");
        }
    }
}
