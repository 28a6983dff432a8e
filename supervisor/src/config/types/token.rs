//! The token of a function's workers.

use std::time::Duration;

use serde::Serialize;

use super::{super::path::HostPath, as_optional_text, as_text};

/// A function's token.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct Token {
    /// Where it comes from.
    #[serde(flatten)]
    pub provider: TokenProvider,
}

/// Where tokens come from.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(tag = "provider", rename_all = "kebab-case")]
pub enum TokenProvider {
    /// Files that somebody else writes.
    Static {
        /// One for each sub-tenant, named by its label, percent-encoded.
        dir: HostPath,
        /// After which one is read again; none: once for each worker.
        #[serde(serialize_with = "as_optional_text")]
        ttl: Option<Duration>,
    },
    /// A program of the operator's.
    Command {
        /// Program, an absolute path on the host, and arguments; never empty.
        command: Vec<String>,
        /// How long it may take.
        #[serde(serialize_with = "as_text")]
        timeout: Duration,
        /// How long what it prints holds.
        #[serde(serialize_with = "as_text")]
        ttl: Duration,
    },
    /// JSON Web Tokens that sublet signs itself.
    Jwt {
        /// A private key, PEM.
        key: HostPath,
        /// `kid` of the token's header.
        key_id: Option<String>,
        /// The issuer: `iss` of the token, RFC 7519.
        issuer: String,
        /// The audience: `aud` of the token, RFC 7519.
        audience: String,
        /// From `iat` to `exp`.
        #[serde(serialize_with = "as_text")]
        ttl: Duration,
    },
}

impl TokenProvider {
    /// As it is written.
    pub const fn name(&self) -> &'static str {
        match self {
            Self::Static { .. } => "static",
            Self::Command { .. } => "command",
            Self::Jwt { .. } => "jwt",
        }
    }

    /// What it reads on the host and no worker may see, with its setting's key.
    pub const fn secret(&self) -> Option<(&'static str, &HostPath)> {
        match self {
            Self::Static { dir, .. } => Some(("dir", dir)),
            Self::Jwt { key, .. } => Some(("key", key)),
            Self::Command { .. } => None,
        }
    }

    /// The same without the key.
    pub fn path(&self) -> Option<&HostPath> {
        self.secret().map(|(_, path)| path)
    }
}
