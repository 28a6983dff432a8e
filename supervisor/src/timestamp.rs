//! Moments as people and machines read them.

use std::time::SystemTime;

/// A moment by RFC 3339: UTC, with microseconds. One before 1970 is shown as its beginning.
pub fn rfc3339(at: SystemTime) -> String {
    let at = std::time::UNIX_EPOCH
        + std::time::Duration::from_micros(
            at.duration_since(std::time::UNIX_EPOCH).map_or(0, |since| u64::try_from(since.as_micros()).unwrap_or(0)),
        );
    prost_types::Timestamp::from(at).to_string()
}
