//! Where lines of logs go.

use serde::Serialize;

use super::super::{path::HostPath, units::ByteSize};

/// Where the lines of all functions are written, besides memory.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum LogTo {
    /// To nowhere but the ring in memory.
    None,
    /// Standard output, one JSON value for each line: for journald.
    Stdout,
    /// To files of their own, which are rotated.
    Files {
        /// The directory that they are in.
        dir: HostPath,
        /// Size in bytes at which the next file is begun.
        size: ByteSize,
        /// How many are kept, with the one that is written; at least 1.
        count: u32,
    },
}

impl LogTo {
    /// Directory that no worker may see.
    pub const fn dir(&self) -> Option<&HostPath> {
        match self {
            Self::None | Self::Stdout => None,
            Self::Files { dir, .. } => Some(dir),
        }
    }
}
