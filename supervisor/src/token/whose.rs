//! What a provider is told.

use std::sync::Arc;

use sublet_pool::SubTenant;

/// Whose token is wanted.
#[derive(Clone, Debug)]
pub struct Whose {
    /// The tenant.
    pub tenant: Arc<str>,
    /// Its function.
    pub function: Arc<str>,
    /// The customer.
    pub sub_tenant: SubTenant,
}
