//! What the counters of a group say, and what lies between two readings.

use std::time::Duration;

/// What a group's counters said at one moment.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Reading {
    /// CPU time of all processes that were in the group.
    pub cpu: Duration,
    /// Time in which it wanted to run and a quota did not let it.
    pub throttled: Duration,
    /// Bytes read from disks.
    pub io_read: u64,
    /// Bytes written to disks.
    pub io_written: u64,
}

impl Reading {
    /// What came to it since `before`. Counters of a group only grow; one that could not be read counts as unchanged.
    pub fn since(&self, before: &Self) -> Self {
        Self {
            cpu: self.cpu.saturating_sub(before.cpu),
            throttled: self.throttled.saturating_sub(before.throttled),
            io_read: self.io_read.saturating_sub(before.io_read),
            io_written: self.io_written.saturating_sub(before.io_written),
        }
    }

    /// The sums of two readings.
    pub fn plus(&self, other: &Self) -> Self {
        Self {
            cpu: self.cpu + other.cpu,
            throttled: self.throttled + other.throttled,
            io_read: self.io_read + other.io_read,
            io_written: self.io_written + other.io_written,
        }
    }
}
