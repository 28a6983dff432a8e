//! Histories in which a rule was broken once. They are run always.

/// Seed and calls of each, and what it showed.
pub const ONCE_FAILED: &[(u64, u64, &str)] = &[];
