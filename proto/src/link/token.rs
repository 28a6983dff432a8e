//! A sub-tenant's token on its way into a sandbox.

use std::fmt;

use serde::{Deserialize, Deserializer, Serialize, de::Error as _};
use zeroize::{Zeroize, ZeroizeOnDrop};

/// Where a function finds its token.
pub const TOKEN_DIR: &str = "/run/sublet";
/// The file in it.
pub const TOKEN_FILE: &str = "/run/sublet/token";
/// The descriptor of the file in a process of an `exec` function; the same number as a `stream` function's channel.
pub const TOKEN_FD: i32 = super::CHANNEL_FD;
/// Largest token in bytes. As JSON it takes twice as much at the most, and fits a message.
pub const TOKEN_MAX_BYTES: usize = 16 * 1024;

/// A token: text of 1 to [`TOKEN_MAX_BYTES`] bytes without control characters but tabs and line ends inside. Wiped when it
/// is let go of, and never shown by `Debug`.
#[derive(Clone, PartialEq, Eq, Serialize, Zeroize, ZeroizeOnDrop)]
#[serde(transparent)]
pub struct Token(String);

/// Why bytes are no token. Says nothing of what they are.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NoToken {
    /// No byte at all, or line ends alone.
    #[error("it is empty")]
    Empty,
    /// Over [`TOKEN_MAX_BYTES`].
    #[error("it has more than {TOKEN_MAX_BYTES} bytes")]
    TooLarge,
    /// Not UTF-8.
    #[error("it is no UTF-8 text")]
    NoText,
    /// Control characters.
    #[error("it has control characters other than tabs and line ends")]
    Control,
}

impl TryFrom<Vec<u8>> for Token {
    type Error = NoToken;

    /// Line ends behind it are cut: files have them, tokens have not.
    fn try_from(bytes: Vec<u8>) -> Result<Self, NoToken> {
        let mut text = String::from_utf8(bytes).map_err(|error| {
            error.into_bytes().zeroize();
            NoToken::NoText
        })?;
        text.truncate(text.trim_end_matches(['\n', '\r']).len());
        // From here on it is wiped, whatever comes of it.
        let token = Self(text);
        let is_foreign = |c: char| c.is_control() && !matches!(c, '\t' | '\n' | '\r');
        match token.0.as_str() {
            "" => Err(NoToken::Empty),
            text if text.len() > TOKEN_MAX_BYTES => Err(NoToken::TooLarge),
            text if text.contains(is_foreign) => Err(NoToken::Control),
            _ => Ok(token),
        }
    }
}

/// What comes over the wire is held to the same rules: init takes no token that the supervisor could not have made.
impl<'de> Deserialize<'de> for Token {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Self::try_from(String::deserialize(deserializer)?.into_bytes()).map_err(D::Error::custom)
    }
}

impl Token {
    /// For whoever writes it where it belongs.
    pub fn as_bytes(&self) -> &[u8] {
        self.0.as_bytes()
    }
}

impl fmt::Debug for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Token(…)")
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::link::{init::ToInit, nursery::MESSAGE_LIMIT};

    fn token(text: &str) -> Result<Token, NoToken> {
        Token::try_from(text.as_bytes().to_vec())
    }

    #[test]
    fn line_ends_behind_it_are_cut_and_nothing_else() {
        assert_eq!(token(" a b\n\tc \r\n\n").unwrap().as_bytes(), b" a b\n\tc ");
    }

    #[test]
    fn what_is_no_token_is_refused() {
        assert_eq!(token(""), Err(NoToken::Empty));
        assert_eq!(token("\n"), Err(NoToken::Empty));
        assert_eq!(token("a\0b"), Err(NoToken::Control));
        assert_eq!(token("\u{1b}[2J"), Err(NoToken::Control));
        assert_eq!(Token::try_from(vec![0xff]), Err(NoToken::NoText));
        let longest = "a".repeat(TOKEN_MAX_BYTES);
        assert!(token(&longest).is_ok());
        assert_eq!(token(&format!("{longest}a")), Err(NoToken::TooLarge));
    }

    #[test]
    fn what_is_no_token_is_refused_on_the_wire_as_well() {
        let message =
            |token: &str| serde_json::to_vec(&serde_json::json!({ "ask": "token", "number": 1, "token": token }));
        let read = |token: &str| serde_json::from_slice::<ToInit>(&message(token).unwrap());
        assert_eq!(read("a").unwrap(), ToInit::Token { number: 1, token: token("a").unwrap() });
        for wrong in ["", "\u{1b}[2J", &"a".repeat(TOKEN_MAX_BYTES + 1)] {
            assert!(read(wrong).is_err(), "{} bytes", wrong.len());
        }
    }

    #[test]
    fn largest_token_fits_a_message_whatever_is_in_it() {
        let token = token(&"\"".repeat(TOKEN_MAX_BYTES)).unwrap();
        let message = serde_json::to_vec(&ToInit::Token { number: u64::MAX, token }).unwrap();
        assert!(message.len() < MESSAGE_LIMIT, "{}", message.len());
    }

    #[test]
    fn debug_shows_none_of_it() {
        let message = ToInit::Token { number: 1, token: token("secret").unwrap() };
        assert_eq!(format!("{message:?}"), "Token { number: 1, token: Token(…) }");
    }
}
