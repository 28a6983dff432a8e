//! The texts of a trace: names of tenants and functions, and what stands for a sub-tenant.

use std::{
    fmt,
    hash::{Hash, Hasher},
};

/// Longest token in bytes: a keyed hash of 256 bits in hexadecimal; names have at most 63.
pub const TOKEN_MAX_BYTES: usize = 64;

/// A short text that a trace can hold as it is: no comma, no quote, no control character. May be empty.
///
/// Held in place, so that a row is copied and not allocated.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Token {
    /// Unused bytes are zero, so that equal texts are equal as a whole.
    bytes: [u8; TOKEN_MAX_BYTES],
    length: u8,
}

/// Why a text is no [`Token`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TokenError {
    /// Over [`TOKEN_MAX_BYTES`].
    #[error("has {0} bytes, at most {TOKEN_MAX_BYTES} are allowed")]
    TooLong(usize),
    /// Something that would break the row, or the terminal that shows it.
    #[error("contains {0:?}; commas, quotes and control characters are not allowed")]
    Character(char),
}

impl Token {
    /// The text.
    pub fn as_str(&self) -> &str {
        std::str::from_utf8(self.as_bytes()).unwrap_or_default()
    }

    /// Its bytes.
    pub fn as_bytes(&self) -> &[u8] {
        self.bytes.get(..usize::from(self.length)).unwrap_or_default()
    }

    /// Whether there is nothing in it.
    pub const fn is_empty(&self) -> bool {
        self.length == 0
    }
}

impl TryFrom<&str> for Token {
    type Error = TokenError;

    fn try_from(text: &str) -> Result<Self, TokenError> {
        if text.len() > TOKEN_MAX_BYTES {
            return Err(TokenError::TooLong(text.len()));
        }
        if let Some(c) = text.chars().find(|c| matches!(c, ',' | '"' | '\'') || c.is_control()) {
            return Err(TokenError::Character(c));
        }
        let mut bytes = [0; TOKEN_MAX_BYTES];
        bytes[..text.len()].copy_from_slice(text.as_bytes());
        Ok(Self { bytes, length: text.len() as u8 })
    }
}

/// Of the used bytes alone: most tokens are far shorter than the longest.
impl Hash for Token {
    fn hash<H: Hasher>(&self, state: &mut H) {
        state.write(self.as_bytes());
        state.write_u8(self.length);
    }
}

impl PartialOrd for Token {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Token {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        self.as_bytes().cmp(other.as_bytes())
    }
}

impl fmt::Display for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

impl fmt::Debug for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(self.as_str(), f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn token_of_the_greatest_length_is_taken_and_one_longer_is_not() {
        let longest = "x".repeat(TOKEN_MAX_BYTES);
        assert_eq!(Token::try_from(longest.as_str()).map(|token| token.as_str().to_owned()), Ok(longest.clone()));
        assert_eq!(Token::try_from(format!("{longest}x").as_str()), Err(TokenError::TooLong(TOKEN_MAX_BYTES + 1)));
    }

    #[test]
    fn what_would_break_a_row_is_no_token() {
        for (text, c) in [("a,b", ','), ("\"a", '"'), ("a'", '\''), ("a\n", '\n'), ("a\r", '\r'), ("\0", '\0')] {
            assert_eq!(Token::try_from(text), Err(TokenError::Character(c)), "{text:?}");
        }
        for text in ["", "a", "h\u{e9}", "9f3c", "a b"] {
            assert_eq!(Token::try_from(text).expect(text).as_str(), text);
        }
    }
}
