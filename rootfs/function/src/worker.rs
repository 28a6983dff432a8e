//! Whose worker this is. sublet writes it into the environment once, when the worker is given to its sub-tenant; it
//! never changes afterwards.

use std::{env, fs, io};

/// The SaaS provider that owns the function. None outside a worker.
pub fn tenant() -> Option<String> {
    env::var("SUBLET_TENANT").ok()
}

/// The function's name. None outside a worker.
pub fn function() -> Option<String> {
    env::var("SUBLET_FUNCTION").ok()
}

/// The label of the provider's customer that this worker serves, for life. None outside a worker, and for a function
/// with `isolation = "shared"`, whose workers serve all.
///
/// The label is whatever the provider calls its customer, up to 256 bytes: do not build a path or a query from it
/// without escaping.
pub fn sub_tenant() -> Option<String> {
    env::var("SUBLET_SUB_TENANT").ok().filter(|label| !label.is_empty())
}

/// The credential of the sub-tenant, as its provider made it: the one that holds now. None for a function whose
/// configuration has no `token`, and outside a worker.
///
/// It is replaced while the worker lives: ask for it when it is used, and keep it no longer.
///
/// # Errors
/// The file cannot be read; never seen in a worker.
pub fn token() -> io::Result<Option<String>> {
    env::var_os("SUBLET_TOKEN_FILE").map(fs::read_to_string).transpose()
}
