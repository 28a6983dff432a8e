//! Checks what was written on the token that a function's workers are given.

use std::time::Duration;

use super::{
    bounds, defaults,
    path::HostPath,
    program::HOST_LAYOUT_DIRS,
    reader::Reader,
    scalar::Scalar,
    types::{Config, Isolation, Layout, RawToken, Token, TokenProvider},
};

/// Longest `issuer`, `audience` and `key_id`, in bytes: a token is sent along with every request.
const CLAIM_MAX_BYTES: usize = 1024;

/// What else must be known of its function.
#[derive(Clone, Copy, Debug)]
pub struct About {
    pub isolation: Isolation,
    pub start_timeout: Duration,
}

#[derive(Clone, Copy, PartialEq)]
enum Kind {
    Static,
    Command,
    Jwt,
}

impl Kind {
    const ALL: [(&'static str, Self); 3] = [("static", Self::Static), ("command", Self::Command), ("jwt", Self::Jwt)];

    /// Settings that mean something, beside `provider`.
    const fn keys(self) -> &'static [&'static str] {
        match self {
            Self::Static => &["dir", "ttl"],
            Self::Command => &["command", "timeout", "ttl"],
            Self::Jwt => &["key", "key_id", "issuer", "audience", "ttl"],
        }
    }

    const fn name(self) -> &'static str {
        match self {
            Self::Static => "static",
            Self::Command => "command",
            Self::Jwt => "jwt",
        }
    }
}

/// The token, or none if something that has no default is missing or wrong.
pub fn check(raw: &RawToken, r: &Reader<'_>, about: &About) -> Option<Token> {
    if about.isolation == Isolation::Shared {
        let remedy = "remove the table, or write isolation = \"sub-tenant\"";
        r.refuse("provider", None, "a token names a sub-tenant, and workers of a shared function have none", remedy);
    }
    if raw.provider.is_none() {
        r.missing(
            "provider",
            "write \"static\" for a file per sub-tenant, \"command\" for a program, or \"jwt\" and a key",
        );
    }
    let kind = r.choice("provider", raw.provider.as_ref(), &Kind::ALL)?;
    foreign_keys(raw, r, kind);
    let provider = match kind {
        Kind::Static => {
            let missing = "add the directory with a file for each sub-tenant, such as dir = \"/etc/sublet/tokens\"";
            let dir = secret(r, "dir", raw.dir.as_ref(), missing);
            let ttl = r.optional("ttl", raw.ttl.as_ref(), &bounds::TOKEN_TTL).map(|s| s.value);
            TokenProvider::Static { dir: dir?, ttl }
        }
        Kind::Command => {
            let command = command(raw, r);
            let ttl = r.or("ttl", raw.ttl.as_ref(), &bounds::TOKEN_TTL, defaults::TOKEN_TTL).value;
            let timeout = r.or("timeout", raw.timeout.as_ref(), &bounds::TOKEN_TIMEOUT, defaults::TOKEN_TIMEOUT);
            if raw.timeout.is_some() && timeout.is_known() && timeout.value >= about.start_timeout {
                let what = "not below the function's start_timeout, within which the token has to be there";
                r.refuse_setting(&timeout, what, "write less, or raise start_timeout");
            }
            TokenProvider::Command { command: command?, timeout: timeout.value.min(about.start_timeout), ttl }
        }
        Kind::Jwt => {
            let missing = "add a private key, such as key = \"/etc/sublet/token.pem\"; make one by: openssl genpkey \
                           -algorithm ed25519";
            let key = secret(r, "key", raw.key.as_ref(), missing);
            let key_id = claim(r, "key_id", raw.key_id.as_ref(), "2026-11");
            let required = |name: &str, raw: &Option<Scalar>, example: &str| {
                if raw.is_none() {
                    r.missing(name, format!("write what whoever checks the token expects, such as {example:?}"));
                }
                claim(r, name, raw.as_ref(), example)
            };
            let issuer = required("issuer", &raw.issuer, "https://sublet.example.com");
            let audience = required("audience", &raw.audience, "https://api.example.com");
            let ttl = r.or("ttl", raw.ttl.as_ref(), &bounds::JWT_TTL, defaults::TOKEN_TTL).value;
            TokenProvider::Jwt { key: key?, key_id, issuer: issuer?, audience: audience?, ttl }
        }
    };
    Some(Token { provider })
}

/// What is written for another provider would be read by nobody.
fn foreign_keys(raw: &RawToken, r: &Reader<'_>, kind: Kind) {
    for (key, value) in raw.scalars() {
        if let Some(value) = value
            && key != "provider"
            && !kind.keys().contains(&key)
        {
            refuse_foreign(r, key, Some(value.to_string()), kind);
        }
    }
    if raw.command.is_some() && kind != Kind::Command {
        refuse_foreign(r, "command", None, kind);
    }
}

fn refuse_foreign(r: &Reader<'_>, key: &str, value: Option<String>, kind: Kind) {
    let theirs = Kind::ALL.iter().filter(|(_, other)| other.keys().contains(&key));
    let theirs: Vec<String> = theirs.map(|(name, _)| format!("{name:?}")).collect();
    let what = format!("means nothing to provider = {:?}", kind.name());
    r.refuse(key, value, what, format!("remove it, or write provider = {}", theirs.join(" or ")));
}

/// A path to what no worker may see.
fn secret(r: &Reader<'_>, key: &str, raw: Option<&Scalar>, missing: &str) -> Option<HostPath> {
    if raw.is_none() {
        r.missing(key, missing);
    }
    r.path(key, raw, if key == "key" { "/etc/sublet/token.pem" } else { "/etc/sublet/tokens" })
}

fn claim(r: &Reader<'_>, key: &str, raw: Option<&Scalar>, example: &str) -> Option<String> {
    let text = r.text(key, raw, example)?;
    let what = match text {
        "" => "empty",
        text if text.len() > CLAIM_MAX_BYTES => "longer than 1024 bytes",
        text if text.chars().any(char::is_control) => "contains a control character",
        text => return Some(text.to_owned()),
    };
    r.refuse(key, Some(format!("{text:?}")), what, format!("write a short text, such as {example:?}"));
    None
}

fn command(raw: &RawToken, r: &Reader<'_>) -> Option<Vec<String>> {
    const EXAMPLE: &str = "such as command = [\"/usr/local/bin/mint-token\"]";
    let Some(words) = &raw.command else {
        r.missing(
            "command",
            format!("add the program on this host that prints the token, and its arguments, {EXAMPLE}"),
        );
        return None;
    };
    let command = r.words("command", words);
    match command.first() {
        None if words.is_empty() => {
            r.refuse("command", Some("[]".to_owned()), "empty", format!("write a program, {EXAMPLE}"));
        }
        Some(program) if !program.starts_with('/') => {
            let what = "the program is not an absolute path: there is no PATH to look it up in";
            r.refuse("command", Some(format!("{program:?}")), what, format!("write where it is, {EXAMPLE}"));
        }
        None | Some(_) => {}
    }
    (command.len() == words.len() && !command.is_empty()).then_some(command)
}

/// Keys and tokens of others must not be where some worker can read them.
pub fn out_of_sight(config: &Config, top: &Reader<'_>) {
    let is_host_seen = config.functions().any(|(_, _, function)| function.layout == Layout::Host);
    for (tenant, name, function) in config.functions() {
        let Some((key, path)) = function.token.as_ref().and_then(|token| token.provider.secret()) else { continue };
        let seen = config.dirs().into_iter().chain(&config.host.function_dirs);
        let seen = seen.into_iter().find(|dir| dir.contains(path) || path.contains(dir));
        let usr = HOST_LAYOUT_DIRS[0];
        let what = match seen {
            Some(dir) => format!("workers see {:?}", dir.as_str()),
            None if is_host_seen && path.as_path().starts_with(usr) => {
                format!("workers with layout = \"host\" see {usr:?}")
            }
            None => continue,
        };
        let table = top.below("tenant").below(tenant.as_str()).below("function").below(name.as_str()).below("token");
        let value = Some(format!("{:?}", path.as_str()));
        table.refuse(key, value, what, "keep it apart from all functions, below /etc for example");
    }
}
