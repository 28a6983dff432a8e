//! Whose a worker is. A cell is nobody's until it is given an owner, once and for life.

use std::sync::OnceLock;

use sublet_pool::SubTenant;
use tokio::{sync::Notify, time::Instant};

/// Whose a worker is.
#[derive(Clone, Debug)]
pub struct Owner {
    /// The sub-tenant; its tenant and function are the worker's from birth.
    pub sub_tenant: SubTenant,
    /// What its function echoes in every answer.
    pub tag: [u8; 16],
    /// Its group below the tenant's, in which the worker is counted.
    pub group: String,
    /// When the worker became its own.
    pub since: Instant,
}

/// The one owner, now or later.
#[derive(Debug, Default)]
pub(super) struct Ownership {
    owner: OnceLock<Owner>,
    given: Notify,
}

impl Ownership {
    /// Gives an owner. True only the first time: there is no second.
    pub(super) fn give(&self, owner: Owner) -> bool {
        let first = self.owner.set(owner).is_ok();
        self.given.notify_one();
        first
    }

    /// None: nobody's yet.
    pub(super) fn owner(&self) -> Option<&Owner> {
        self.owner.get()
    }

    /// Waits until there is an owner. One task at a time may wait.
    pub(super) async fn wait(&self) -> &Owner {
        loop {
            if let Some(owner) = self.owner() {
                return owner;
            }
            self.given.notified().await;
        }
    }
}
