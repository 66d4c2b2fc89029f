//! Text that people and programs send, checked once and then carried by type.
//!
//! Lengths are counted in Unicode scalar values after trimming; the types cannot be made with a value out of bounds.

use std::fmt;

use serde::{Deserialize, Deserializer, Serialize, de::Error as _};
use unicode_normalization::{UnicodeNormalization, char::is_combining_mark};

/// A text breaks the rule of its kind. Says which and how; send another one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{what} must {rule}")]
pub struct TextError {
    /// The field's name as it stands in a body or frame.
    pub what: &'static str,
    /// What it must be.
    pub rule: &'static str,
}

macro_rules! texts {
    ($($(#[$doc:meta])* $name:ident),+ $(,)?) => {$(
        $(#[$doc])*
        #[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize)]
        #[serde(transparent)]
        pub struct $name(String);

        impl $name {
            /// The text.
            pub fn as_str(&self) -> &str {
                &self.0
            }

            /// The text, taken out.
            pub fn into_string(self) -> String {
                self.0
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }

        impl<'de> Deserialize<'de> for $name {
            fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                Self::new(&std::borrow::Cow::<str>::deserialize(deserializer)?).map_err(D::Error::custom)
            }
        }
    )+};
}

texts! {
    /// What a message says: 1 to 4,000 characters.
    Content,
    /// The name of a guild or channel: 2 to 100 characters in NFC, none of them invisible.
    Name,
    /// What a user is called: 2 to 32 characters in NFC, none of them invisible.
    Username,
    /// Where a user is written to, in lower case: like `a@b.c`, at most 254 bytes (RFC 5321, 4.5.3.1.3).
    Email,
    /// Chosen by a sender so that a message sent twice is stored once: 1 to 64 bytes.
    Nonce,
    /// Tells a user's sessions apart: 1 to 64 bytes.
    Device,
}

impl Content {
    /// The most characters a message has.
    pub const MAX: usize = 4_000;

    /// Trims and checks.
    pub fn new(text: &str) -> Result<Self, TextError> {
        let text = text.trim();
        if !within(text, 1, Self::MAX) {
            return Err(TextError { what: "content", rule: "be 1 to 4000 characters long" });
        }
        Ok(Self(text.to_owned()))
    }
}

impl Name {
    /// Trims, normalises and checks.
    pub fn new(text: &str) -> Result<Self, TextError> {
        name("name", text, 2, 100, "be 2 to 100 characters long").map(Self)
    }
}

impl Username {
    /// Names that mean something else in a chat.
    const RESERVED: [&'static str; 3] = ["everyone", "here", "system"];

    /// Trims, normalises and checks.
    pub fn new(text: &str) -> Result<Self, TextError> {
        let text = name("username", text, 2, 32, "be 2 to 32 characters long")?;
        if Self::RESERVED.contains(&text.to_lowercase().as_str()) {
            return Err(TextError { what: "username", rule: "not be a reserved word" });
        }
        Ok(Self(text))
    }
}

impl Email {
    /// Trims, lowers and checks. Whether mail arrives there only a mail can tell.
    pub fn new(text: &str) -> Result<Self, TextError> {
        let text = text.trim();
        let like = text.rsplit_once('@').is_some_and(|(user, host)| {
            let dots = host.split_once('.').is_some_and(|(a, b)| !a.is_empty() && !b.is_empty() && !b.ends_with('.'));
            !user.is_empty() && dots && !text.chars().any(|c| c.is_whitespace() || is_invisible(c))
        });
        if !like || text.len() > 254 {
            return Err(TextError { what: "email", rule: "be an address such as a@b.c" });
        }
        Ok(Self(text.to_lowercase()))
    }
}

impl Nonce {
    /// Checks; taken as it is.
    pub fn new(text: &str) -> Result<Self, TextError> {
        short("nonce", text).map(Self)
    }
}

impl Device {
    /// Checks; taken as it is.
    pub fn new(text: &str) -> Result<Self, TextError> {
        short("device", text).map(Self)
    }
}

/// A password: 8 to 128 characters and at most 512 bytes, in NFC, never cut. Its `Debug` shows nothing.
#[derive(Clone, PartialEq, Eq)]
pub struct Password(String);

impl Password {
    /// Normalises and checks, without trimming.
    pub fn new(text: &str) -> Result<Self, TextError> {
        // The bound in bytes comes first, so that nobody makes us normalise a long text.
        let text: String = if text.len() <= 512 { text.nfc().collect() } else { String::new() };
        if !within(&text, 8, 128) || text.len() > 512 {
            return Err(TextError { what: "password", rule: "be 8 to 128 characters long, and at most 512 bytes" });
        }
        Ok(Self(text))
    }

    /// The secret itself, for hashing.
    pub fn expose(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Password {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Password(…)")
    }
}

fn within(text: &str, least: usize, most: usize) -> bool {
    // A scalar value has 4 bytes at most: what is longer need not be counted.
    text.len() <= most * 4 && (least..=most).contains(&text.chars().count())
}

fn short(what: &'static str, text: &str) -> Result<String, TextError> {
    if text.is_empty() || text.len() > 64 {
        return Err(TextError { what, rule: "be 1 to 64 bytes long" });
    }
    Ok(text.to_owned())
}

fn name(what: &'static str, text: &str, least: usize, most: usize, length: &'static str) -> Result<String, TextError> {
    // NFC grows a text by three times at most; far longer ones are not worth normalising.
    if text.len() > most * 16 {
        return Err(TextError { what, rule: length });
    }
    let text: String = text.trim().nfc().collect();
    if !within(&text, least, most) {
        return Err(TextError { what, rule: length });
    }
    if text.chars().any(is_invisible) {
        return Err(TextError { what, rule: "have no control, bidirectional or invisible characters" });
    }
    let mut marks = 0;
    for c in text.chars() {
        marks = if is_combining_mark(c) { marks + 1 } else { 0 };
        if marks > 4 {
            return Err(TextError { what, rule: "have at most 4 marks on a character" });
        }
    }
    Ok(text)
}

/// Characters that show nothing or turn the direction of what follows (Unicode's Default_Ignorable_Code_Point, the bidi
/// controls of UAX #9, line separators). U+FE0F is let through: it only asks for the emoji form of the character before it.
fn is_invisible(c: char) -> bool {
    c.is_control()
        || matches!(c,
            '\u{ad}' | '\u{34f}' | '\u{61c}' | '\u{115f}'..='\u{1160}' | '\u{17b4}'..='\u{17b5}' | '\u{180b}'..='\u{180f}'
            | '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2060}'..='\u{206f}' | '\u{3164}'
            | '\u{fe00}'..='\u{fe0e}' | '\u{feff}' | '\u{ffa0}' | '\u{fff0}'..='\u{fffb}'
            | '\u{1bca0}'..='\u{1bca3}' | '\u{1d173}'..='\u{1d17a}' | '\u{e0000}'..='\u{e0fff}')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn content_is_counted_in_characters_after_trimming() {
        assert_eq!(Content::new("  hi\n").unwrap().as_str(), "hi");
        assert!(Content::new(&"é".repeat(4_000)).is_ok());
        assert!(Content::new(&"🦀".repeat(4_000)).is_ok());
        for bad in [String::new(), " \n\t ".into(), "é".repeat(4_001), "a".repeat(1 << 20)] {
            assert_eq!(Content::new(&bad).unwrap_err().to_string(), "content must be 1 to 4000 characters long");
        }
    }

    #[test]
    fn names_show_what_they_are() {
        assert_eq!(Name::new(" re\u{301}sume\u{301} ").unwrap().as_str(), "résumé");
        assert!(Name::new("❤\u{fe0f} cats").is_ok());
        for bad in [
            "",
            "a",
            " a ",
            "a\u{202e}b",
            "a\u{200b}b",
            "a\0b",
            "a\nb",
            "\u{e0041}\u{e0042}",
            &"a".repeat(101),
            &"a".repeat(5_000),
        ] {
            assert!(Name::new(bad).is_err(), "{bad:?}");
        }
        assert!(Name::new(&format!("ab{}", "\u{315}".repeat(5))).is_err());
    }

    #[test]
    fn usernames_are_short_and_not_reserved() {
        assert!(Username::new("Ada").is_ok());
        for bad in ["x", "Everyone", "system", &"a".repeat(33)] {
            assert!(Username::new(bad).is_err(), "{bad:?}");
        }
    }

    #[test]
    fn emails_look_like_one() {
        assert_eq!(Email::new(" Ada@Example.COM ").unwrap().as_str(), "ada@example.com");
        for bad in ["", "a", "a@b", "@b.c", "a@.c", "a@b.", "a b@c.d", "a@b\u{200b}.c", &format!("{}@b.c", "a".repeat(251))] {
            assert!(Email::new(bad).is_err(), "{bad:?}");
        }
    }

    #[test]
    fn passwords_are_bounded_and_silent() {
        assert!(Password::new("12345678").is_ok());
        assert!(Password::new(&"🦀".repeat(128)).is_ok());
        for bad in ["1234567", &"a".repeat(129), &"a".repeat(10 << 20)] {
            assert!(Password::new(bad).is_err());
        }
        assert_eq!(format!("{:?}", Password::new("hunter2hunter2").unwrap()), "Password(…)");
    }

    #[test]
    fn nonces_are_counted_in_bytes() {
        assert!(Nonce::new(&"a".repeat(64)).is_ok());
        assert!(Nonce::new(&"é".repeat(33)).is_err());
        assert!(Nonce::new("").is_err());
        assert!(serde_json::from_str::<Device>(&format!("\"{}\"", "d".repeat(65))).is_err());
    }
}
