//! Names of tenants, functions and instances.

use std::{borrow::Borrow, fmt, sync::Arc};

use serde::{Serialize, Serializer};

/// Longest name in bytes. With its prefix it stays far below the 255 bytes of a directory name, cgroups included.
pub const NAME_MAX_BYTES: usize = 63;

/// [`Name`] as a regular expression.
pub(super) const PATTERN: &str = "^[a-z0-9][a-z0-9_-]{0,62}$";

/// Name of a tenant, a function or an instance: `[a-z0-9][a-z0-9_-]{0,62}`.
///
/// Names become cgroup directories, metric labels and log fields as they are; the grammar is what all of them take.
/// Cheap to clone.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Name(Arc<str>);

/// Why a text is not a [`Name`].
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NameError {
    /// No character at all.
    #[error("the name is empty")]
    Empty,
    /// Too many.
    #[error("the name has {0} bytes, the most is {NAME_MAX_BYTES}")]
    TooLong(usize),
    /// Begins with `-` or `_`, which a command line would take for an option.
    #[error("the name begins with {0:?}, not with a-z or 0-9")]
    Start(char),
    /// Another character than a-z, 0-9, `_`, `-`.
    #[error("the name contains {0:?}; only a-z, 0-9, '_' and '-' are allowed")]
    Character(char),
}

impl Name {
    /// The name.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl TryFrom<&str> for Name {
    type Error = NameError;

    fn try_from(text: &str) -> Result<Self, NameError> {
        let first = text.chars().next().ok_or(NameError::Empty)?;
        if text.len() > NAME_MAX_BYTES {
            return Err(NameError::TooLong(text.len()));
        }
        let allowed = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_' || c == '-';
        if let Some(other) = text.chars().find(|c| !allowed(*c)) {
            return Err(NameError::Character(other));
        }
        if first == '-' || first == '_' {
            return Err(NameError::Start(first));
        }
        Ok(Self(text.into()))
    }
}

impl fmt::Display for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// So that a map keyed by names is asked with a plain text.
impl Borrow<str> for Name {
    fn borrow(&self) -> &str {
        &self.0
    }
}

impl Serialize for Name {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_the_grammar_are_taken() {
        for text in ["a", "0", "acme", "a-b_c", "0x", &"a".repeat(NAME_MAX_BYTES)] {
            assert_eq!(Name::try_from(text).map(|name| name.to_string()), Ok(text.to_owned()));
        }
    }

    #[test]
    fn names_outside_the_grammar_are_refused_by_reason() {
        for (text, error) in [
            ("", NameError::Empty),
            (&*"a".repeat(NAME_MAX_BYTES + 1), NameError::TooLong(64)),
            ("-a", NameError::Start('-')),
            ("_a", NameError::Start('_')),
            ("Acme", NameError::Character('A')),
            ("a.b", NameError::Character('.')),
            ("a/b", NameError::Character('/')),
            ("..", NameError::Character('.')),
            ("a b", NameError::Character(' ')),
            ("a\0", NameError::Character('\0')),
            ("caf\u{e9}", NameError::Character('\u{e9}')),
        ] {
            assert_eq!(Name::try_from(text), Err(error), "{text:?}");
        }
    }
}
