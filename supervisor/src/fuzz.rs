//! Doors for the harnesses in tests/fuzz to readers that nobody outside of this crate has a use for. Each calls the reader
//! itself and adds nothing to it.

use std::{path::PathBuf, time::Duration};

use tonic::{
    Status,
    metadata::{AsciiMetadataValue, MetadataMap},
};

use crate::{
    cgroups::{counters, host::HostCgroups, oom},
    config::Config,
    front::invoker,
    reload::changes,
    token::{
        Whose,
        jwt::{IssueError, Signer, Terms},
    },
};

/// A `grpc-timeout` header of this value.
///
/// # Errors
/// The status that the caller gets, when it is refused.
pub fn grpc_timeout(value: &[u8]) -> Result<Option<Duration>, Status> {
    let mut metadata = MetadataMap::new();
    let value = AsciiMetadataValue::try_from(value).map_err(|error| Status::invalid_argument(error.to_string()))?;
    metadata.insert("grpc-timeout", value);
    invoker::grpc_timeout(&metadata)
}

/// What `sublet diff` says of two configurations, a line each.
pub fn differences(old: &Config, new: &Config) -> Vec<String> {
    changes::changes(old, new)
}

/// What the files of a group say.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Counted {
    /// cpu.stat, or cpuacct.usage.
    pub cpu: Option<Duration>,
    /// cpu.stat.
    pub throttled: Option<Duration>,
    /// io.stat: bytes read and written.
    pub io: (u64, u64),
    /// The entry "oom" of memory.events.local.
    pub oom: Option<u64>,
}

/// A group's file, held to be each of those that are read.
pub fn counted(text: &str) -> Counted {
    Counted {
        cpu: counters::cpu(text),
        throttled: counters::throttled(text),
        io: counters::io(text),
        oom: oom::keyed(text, "oom"),
    }
}

/// The texts of /proc/self/cgroup and /proc/self/mountinfo: our group in the v2 hierarchy, and where that is mounted.
pub fn host_cgroups(memberships: &str, mounts: &str) -> Option<(PathBuf, PathBuf)> {
    HostCgroups::parse(memberships, mounts).map(|found| (found.own, found.mount))
}

/// Whether a PEM text is a key that tokens can be signed with.
///
/// # Errors
/// [`IssueError`], when it is taken for a key and no token can be signed.
pub fn signs(pem: &[u8], whose: &Whose) -> Result<bool, IssueError> {
    let Some(signer) = Signer::from_pem(pem) else { return Ok(false) };
    let terms = Terms { issuer: "i", audience: "a", key_id: None, ttl: Duration::from_secs(60) };
    signer.issue(&terms, whose).map(|_| true)
}
