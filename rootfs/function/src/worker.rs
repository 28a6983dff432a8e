//! Whose worker this is. sublet writes it into the environment once, when the worker is given to its sub-tenant; it
//! never changes afterwards.

use std::env;

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
