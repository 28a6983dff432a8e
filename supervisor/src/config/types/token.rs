//! The token of a function's workers.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::{
    super::{
        bounds, defaults,
        path::HostPath,
        reader::Value,
        scalar::{Maybe, Scalar},
        settings::{
            Changes, Initial, Kept,
            Kind::{self, Choice, Text, Texts, Time},
            Raw, Row,
        },
    },
    as_optional_text, as_text,
};

/// `[tenant.T.function.F.token]` as written. All of it is part of the revision: what a worker's token says does not change
/// under it, only the key that signs it may.
#[derive(Clone, Debug, Default, Deserialize, Serialize)]
#[serde(deny_unknown_fields, expecting = "a table: [tenant.NAME.function.NAME.token]")]
pub struct RawToken {
    pub provider: Maybe,
    pub dir: Maybe,
    pub key: Maybe,
    pub key_id: Maybe,
    pub issuer: Maybe,
    pub audience: Maybe,
    pub ttl: Maybe,
    pub timeout: Maybe,
    pub command: Option<Vec<Scalar>>,
}

impl Raw for Option<RawToken> {}

impl RawToken {
    /// Its settings that are one value each.
    pub fn scalars(&self) -> [(&'static str, &Maybe); 8] {
        [
            ("provider", &self.provider),
            ("dir", &self.dir),
            ("key", &self.key),
            ("key_id", &self.key_id),
            ("issuer", &self.issuer),
            ("audience", &self.audience),
            ("ttl", &self.ttl),
            ("timeout", &self.timeout),
        ]
    }
}

/// The settings of a token, each with the provider that takes it; none: all do.
pub fn rows() -> Vec<(Option<&'static str>, Row)> {
    const CLAIM: Kind = Text { name: "text", values: "at most 1024 bytes", pattern: "^.+$" };
    const fn path(values: &'static str) -> Kind {
        Text { name: "path", values, pattern: "." }
    }
    let row = |provider: &'static str, key, kind, initial: Initial, help| {
        let provider = (!provider.is_empty()).then_some(provider);
        (provider, Row { key, kind, initial, changes: Changes::NewWorkers, kept: Kept::NoLimit, help })
    };
    let words = |words: &str| Initial::Words(words.to_owned());
    let required = || words("required");
    let ttl = || Initial::Is(defaults::TOKEN_TTL.to_toml());
    let timeout = format!("{}, at most `start_timeout`", defaults::TOKEN_TIMEOUT.to_toml());
    const REPLACED: &str = "A token is replaced at two thirds of this time.";
    vec![
        row("", "provider", Choice(&["static", "command", "jwt"]), required(), "Where tokens come from."),
        row(
            "static",
            "dir",
            path("a directory that no worker sees"),
            required(),
            "A file for each sub-tenant, named by its label. Bytes other than letters, digits, `-`, `_`, `~` and `.` are \
             written `%XX`.",
        ),
        row("static", "ttl", Time(&bounds::TOKEN_TTL), words("none: read once for each worker"), REPLACED),
        row(
            "command",
            "command",
            Texts { name: "list of texts", values: "an absolute path on the host, and arguments" },
            required(),
            "The program that prints the token.",
        ),
        row(
            "command",
            "timeout",
            Time(&bounds::TOKEN_TIMEOUT),
            Initial::Words(timeout),
            "Longest time the program may take.",
        ),
        row("command", "ttl", Time(&bounds::TOKEN_TTL), ttl(), REPLACED),
        row(
            "jwt",
            "key",
            path("PEM; Ed25519 or P-256; no worker sees it"),
            required(),
            "The private key that signs tokens.",
        ),
        row("jwt", "key_id", CLAIM, words("none"), "`kid` in the header of the token."),
        row("jwt", "issuer", CLAIM, required(), "Claim `iss`."),
        row("jwt", "audience", CLAIM, required(), "Claim `aud`."),
        row(
            "jwt",
            "ttl",
            Time(&bounds::JWT_TTL),
            ttl(),
            "Time from `iat` to `exp`. A token is replaced at two thirds of it.",
        ),
    ]
}

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
