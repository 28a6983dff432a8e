//! The key by which a sandbox proves that its keyring is its own.

use std::ffi::CStr;

/// Name of a key in the nursery's session keyring. A sandbox that finds it has the nursery's keyring, and must not go on.
pub const NURSERY_KEY: &CStr = c"sublet-nursery";
