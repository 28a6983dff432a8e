//! What is in a directory of a function.

use std::fmt;

use serde::{Serialize, Serializer};
use sublet_proto::link::sandbox::Identity;

use crate::config::{hash, units::ByteSize};

/// What is in a directory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Code {
    /// The directory itself.
    pub identity: Identity,
    /// Files in it and below, of every kind but directories.
    pub files: u64,
    /// Size of all plain files together.
    pub bytes: u64,
    /// Hash of paths, kinds, modes, owners, sizes, inodes, and times of modification and of change of everything in it.
    /// The last of these cannot be set, so that an edit which keeps size and time is seen as well.
    pub manifest: u64,
}

impl fmt::Display for Code {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let s = if self.files == 1 { "" } else { "s" };
        let Self { files, bytes, manifest, .. } = self;
        write!(f, "{files} file{s}, {}, manifest {}", ByteSize::from_bytes(*bytes), hash::short(*manifest))
    }
}

impl Serialize for Code {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}
