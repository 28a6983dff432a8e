//! What a host may lack and an operator may accept.

use std::fmt;

use serde::{Serialize, Serializer};
use sublet_proto::link::sandbox::Layer;

/// Something `serve` does without only if `host.accept_degraded` names it.
///
/// Memory and pids limits are not here on purpose: without them one sub-tenant takes the host from all others.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Degradation {
    /// Landlock: files are then refused by mounts and modes alone.
    Landlock,
    /// Time namespaces: workers then see how long the host has been up.
    Time,
    /// Inodes of the workers' own: they then share those of /usr, /dev and their functions with the host and with each other,
    /// have no flock and no inotify, and see who else has locked a file for reading.
    Inodes,
    /// CPU quota and weight: a busy sub-tenant then slows the others, by as much as the scheduler lets it.
    Cpu,
    /// Swap limit of zero: on a host with swap, workers may then be swapped out instead of ended at their limit.
    Swap,
    /// `memory_high`: a worker then goes straight to its limit.
    MemoryHigh,
    /// `memory_min`: nothing is then set aside for anybody.
    MemoryMin,
    /// `cpu_burst`: nothing is then saved up.
    CpuBurst,
}

impl Degradation {
    /// Every one, in the order they are listed to operators.
    pub const ALL: [Self; 8] = [
        Self::Landlock,
        Self::Time,
        Self::Inodes,
        Self::Cpu,
        Self::Swap,
        Self::MemoryHigh,
        Self::MemoryMin,
        Self::CpuBurst,
    ];

    /// The name used in configuration, `sublet doctor` and Health.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Landlock => Layer::Landlock.name(),
            Self::Time => Layer::Time.name(),
            Self::Inodes => Layer::Inodes.name(),
            Self::Cpu => "cpu",
            Self::Swap => "swap",
            Self::MemoryHigh => "memory_high",
            Self::MemoryMin => "memory_min",
            Self::CpuBurst => "cpu_burst",
        }
    }

    /// The layer of the sandbox that is then missing; none if it is a limit.
    pub const fn layer(self) -> Option<Layer> {
        match self {
            Self::Landlock => Some(Layer::Landlock),
            Self::Time => Some(Layer::Time),
            Self::Inodes => Some(Layer::Inodes),
            Self::Cpu | Self::Swap | Self::MemoryHigh | Self::MemoryMin | Self::CpuBurst => None,
        }
    }
}

impl fmt::Display for Degradation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl Serialize for Degradation {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.name())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn layers_that_may_be_missing_are_exactly_those_that_can_be_accepted() {
        let acceptable: Vec<Layer> = Degradation::ALL.into_iter().filter_map(Degradation::layer).collect();
        assert_eq!(acceptable, Layer::MAY_BE_MISSING);
    }
}
