//! How a function is talked to.

use std::fmt;

use serde::{Serialize, Serializer};
use sublet_proto::link::sandbox::Protocol;

/// A function's runtime.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Runtime {
    /// A process that reads frames.
    Stream,
    /// One process per call.
    Exec,
    /// A process that asks for its calls over the Lambda Runtime API.
    Lambda(Client),
}

/// Whose client of the Lambda Runtime API a function runs with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Client {
    /// Its own: a program named bootstrap, or whatever `command` says.
    Own,
    /// Python's `awslambdaric`, with this minor version of Python 3.
    Python(u8),
    /// Node's `aws-lambda-ric`, with this major version of Node.
    Node(u8),
}

impl Runtime {
    /// Every name as a regular expression; a number is at most 255.
    pub(in crate::config) const PATTERN: &str =
        "^(stream|exec|lambda|python3\\.(0|[1-9][0-9]{0,2})|nodejs(0|[1-9][0-9]{0,2})\\.x)$";

    /// As the sandbox is told.
    pub const fn protocol(self) -> Protocol {
        match self {
            Self::Stream => Protocol::Stream,
            Self::Exec => Protocol::Exec,
            Self::Lambda(_) => Protocol::Lambda,
        }
    }

    /// From its name in a configuration; none when it is none.
    pub(in crate::config) fn named(name: &str) -> Option<Self> {
        let number = |text: &str| text.parse().ok().filter(|number: &u8| number.to_string() == text);
        match name {
            "stream" => Some(Self::Stream),
            "exec" => Some(Self::Exec),
            "lambda" => Some(Self::Lambda(Client::Own)),
            _ => {
                let python = name.strip_prefix("python3.").and_then(number).map(Client::Python);
                let node = || name.strip_prefix("nodejs")?.strip_suffix(".x").and_then(number).map(Client::Node);
                python.or_else(node).map(Self::Lambda)
            }
        }
    }
}

impl fmt::Display for Runtime {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Stream => f.write_str("stream"),
            Self::Exec => f.write_str("exec"),
            Self::Lambda(Client::Own) => f.write_str("lambda"),
            Self::Lambda(Client::Python(minor)) => write!(f, "python3.{minor}"),
            Self::Lambda(Client::Node(major)) => write!(f, "nodejs{major}.x"),
        }
    }
}

impl Serialize for Runtime {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_read_as_they_are_shown_and_nothing_else_is() {
        for name in ["stream", "exec", "lambda", "python3.11", "python3.8", "nodejs22.x"] {
            assert_eq!(Runtime::named(name).map(|runtime| runtime.to_string()).as_deref(), Some(name));
        }
        for wrong in
            ["", "Lambda", "python3", "python3.", "python3.x", "python3.011", "python2.7", "nodejs22", "nodejs.x"]
        {
            assert_eq!(Runtime::named(wrong), None, "{wrong}");
        }
    }
}
