//! Whose a group is: what its limits are looked up by.

use std::sync::Arc;

use sublet_pool::SubTenant;

/// The owner of one group below the pool.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Owner {
    /// A tenant, over all its sub-tenants.
    Tenant {
        /// Which.
        tenant: Arc<str>,
    },
    /// A sub-tenant, over all its workers; none while its one worker is a cell.
    SubTenant {
        /// Its tenant.
        tenant: Arc<str>,
        /// Which.
        label: Option<SubTenant>,
    },
    /// One worker.
    Worker {
        /// Its tenant.
        tenant: Arc<str>,
        /// Its function.
        function: Arc<str>,
        /// Whose it is; none: a cell.
        label: Option<SubTenant>,
    },
}

impl Owner {
    /// Its tenant.
    pub fn tenant(&self) -> &Arc<str> {
        match self {
            Self::Tenant { tenant } | Self::SubTenant { tenant, .. } | Self::Worker { tenant, .. } => tenant,
        }
    }

    /// The same, now of this sub-tenant.
    pub fn labelled(&self, by: &SubTenant) -> Self {
        match self.clone() {
            Self::SubTenant { tenant, .. } => Self::SubTenant { tenant, label: Some(by.clone()) },
            Self::Worker { tenant, function, .. } => Self::Worker { tenant, function, label: Some(by.clone()) },
            tenant @ Self::Tenant { .. } => tenant,
        }
    }
}
