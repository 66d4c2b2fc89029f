//! JSON from somebody who may write anything.

use std::{collections::HashSet, fmt};

use serde::{
    Deserialize, Deserializer,
    de::{Error, MapAccess, SeqAccess, Visitor},
};

/// Looks through a whole JSON text, also where types look away: they skip fields that they do not know unseen. An error if it
/// is no JSON, is nested deeper than 127 levels, or has an object with a key that comes twice.
pub fn check(text: &[u8]) -> serde_json::Result<()> {
    serde_json::from_slice::<Anything>(text).map(drop)
}

/// Any value. Nothing of it is kept; how deep it may be is bounded by serde_json.
struct Anything;

impl<'de> Deserialize<'de> for Anything {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(Self)
    }
}

impl<'de> Visitor<'de> for Anything {
    type Value = Self;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("JSON")
    }

    fn visit_unit<E>(self) -> Result<Self, E> {
        Ok(self)
    }

    fn visit_bool<E>(self, _: bool) -> Result<Self, E> {
        Ok(self)
    }

    fn visit_i64<E>(self, _: i64) -> Result<Self, E> {
        Ok(self)
    }

    fn visit_u64<E>(self, _: u64) -> Result<Self, E> {
        Ok(self)
    }

    fn visit_f64<E>(self, _: f64) -> Result<Self, E> {
        Ok(self)
    }

    fn visit_str<E>(self, _: &str) -> Result<Self, E> {
        Ok(self)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Self, A::Error> {
        while items.next_element::<Self>()?.is_some() {}
        Ok(self)
    }

    fn visit_map<A: MapAccess<'de>>(self, mut fields: A) -> Result<Self, A::Error> {
        let mut keys = HashSet::new();
        while let Some((key, Self)) = fields.next_entry::<String, Self>()? {
            if !keys.insert(key) {
                return Err(A::Error::custom("a key comes twice"));
            }
        }
        Ok(self)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_skipped_is_bounded_as_well() {
        for good in
            ["null", "-0", "1.5e3", "9007199254740993", r#""\ud83e\udd80""#, r#"[{"a":[]},{"a":{}}]"#, r#" {"a":{"a":1}} "#]
        {
            check(good.as_bytes()).unwrap_or_else(|error| panic!("{good}: {error}"));
        }
        for bad in [
            "",
            "nul",
            "NaN",
            "1e400",
            "01",
            "{'a':1}",
            r#""\ud800""#,
            "\"a\nb\"",
            "\u{feff}1",
            "1 2",
            r#"{"a":1,"a":1}"#,
            r#"{"a":1,"\u0061":1}"#,
            r#"[[{"b":{"a":1,"b":2,"a":3}}]]"#,
        ] {
            assert!(check(bad.as_bytes()).is_err(), "{bad}");
        }
        assert!(check(b"\"\xff\"").is_err());
        for (open, close) in [("[", "]"), (r#"{"a":"#, "}")] {
            let nested = |levels: usize| format!("{}1{}", open.repeat(levels), close.repeat(levels));
            assert!(check(nested(127).as_bytes()).is_ok());
            for levels in [128, 129, 100_000] {
                assert!(check(nested(levels).as_bytes()).is_err(), "{levels} levels");
            }
        }
    }
}
