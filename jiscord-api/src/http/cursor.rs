//! Opaque cursors: where a list goes on, in a text that only the list it came from takes back.
//!
//! A cursor is a version, what it is for, 16 bytes of place, and a checksum over these and the list. It grants nothing, since
//! whoever reads on is authorised again; the checksum tells a forged or foreign one apart from a place in this list.

use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use jiscord_core::{ChannelId, Fault, GuildId, MessageId};
use sha2::{Digest, Sha256};
use uuid::Uuid;

use super::malformed;
use crate::chat::Range;

const VERSION: u8 = 1;
const BACK: u8 = b'<';
const FORTH: u8 = b'>';
const GUILDS: u8 = b'g';
const LENGTH: usize = 2 + 16 + 8;

/// Where a channel's messages go on. None for a range that needs no cursor.
pub(super) fn of_range(channel: ChannelId, range: Range) -> Option<String> {
    match range {
        Range::Before(id) => Some(encode(BACK, id.sort_key(), channel.uuid())),
        Range::After(id) => Some(encode(FORTH, id.sort_key(), channel.uuid())),
        _ => None,
    }
}

pub(super) fn to_range(channel: ChannelId, text: &str) -> Result<Range, Fault> {
    let (kind, place) = decode(text, channel.uuid()).ok_or_else(forged)?;
    let id = MessageId::from_sort_key(place).ok_or_else(forged)?;
    match kind {
        BACK => Ok(Range::Before(id)),
        FORTH => Ok(Range::After(id)),
        _ => Err(forged()),
    }
}

/// Where the list of public guilds goes on.
pub(super) fn of_guild(last: GuildId) -> String {
    encode(GUILDS, last.uuid().into_bytes(), Uuid::nil())
}

pub(super) fn to_guild(text: &str) -> Result<GuildId, Fault> {
    match decode(text, Uuid::nil()) {
        Some((GUILDS, place)) => Ok(GuildId::new(Uuid::from_bytes(place))),
        _ => Err(forged()),
    }
}

fn forged() -> Fault {
    malformed("this is no cursor of this list; begin without one")
}

fn encode(kind: u8, place: [u8; 16], list: Uuid) -> String {
    let mut bytes = vec![VERSION, kind];
    bytes.extend(place);
    bytes.extend(checksum(&bytes, list));
    URL_SAFE_NO_PAD.encode(bytes)
}

fn decode(text: &str, list: Uuid) -> Option<(u8, [u8; 16])> {
    // Checked first, so that nobody makes us decode a long text.
    if text.len() != LENGTH.div_ceil(3) * 4 - 1 {
        return None;
    }
    let bytes = URL_SAFE_NO_PAD.decode(text).ok()?;
    let (said, sum) = bytes.split_last_chunk::<8>()?;
    let [VERSION, kind, place @ ..] = said else { return None };
    (*sum == checksum(said, list)).then_some((*kind, place.try_into().ok()?))
}

fn checksum(said: &[u8], list: Uuid) -> [u8; 8] {
    let sum: [u8; 32] = Sha256::new().chain_update(b"jiscord cursor\0").chain_update(said).chain_update(list).finalize().into();
    std::array::from_fn(|at| sum[at])
}

#[cfg(test)]
mod tests {
    use super::*;

    fn channel(n: u128) -> ChannelId {
        ChannelId::new(Uuid::from_u128(n))
    }

    #[test]
    fn a_cursor_is_taken_back_by_its_own_list_alone() {
        let id: MessageId = "0f8fad5b-d9cb-169f-a165-70867728950e".parse().unwrap();
        for range in [Range::Before(id), Range::After(id)] {
            let text = of_range(channel(1), range).unwrap();
            assert_eq!(to_range(channel(1), &text).unwrap(), range);
            assert!(to_range(channel(2), &text).is_err());
            assert!(to_guild(&text).is_err());
        }
        let guild = GuildId::new(Uuid::from_u128(7));
        assert_eq!(to_guild(&of_guild(guild)).unwrap(), guild);
        assert!(to_range(channel(0), &of_guild(guild)).is_err());
    }

    #[test]
    fn no_changed_character_goes_unnoticed() {
        let id: MessageId = "0f8fad5b-d9cb-169f-a165-70867728950e".parse().unwrap();
        let text = of_range(channel(1), Range::Before(id)).unwrap();
        for at in 0..text.len() {
            for other in ["A", "Z", "_", "=", "!", "é"] {
                let mut forged = text.clone();
                forged.replace_range(at..=at, other);
                assert!(forged == text || to_range(channel(1), &forged).is_err(), "{forged}");
            }
        }
        for forged in ["", "AAAA", &text[1..], &format!("{text}A"), &"A".repeat(1 << 20), &"A".repeat(35)] {
            assert!(to_range(channel(1), forged).is_err());
        }
    }
}
