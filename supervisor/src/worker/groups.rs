//! Which group of its tenant is a sub-tenant's, while it has any worker.
//!
//! The group of a sub-tenant's first worker is made for it, or it is that of the cell it got: a cell is born in a group of
//! its own, which becomes the sub-tenant's when the cell is labelled. Nothing is moved then: moving a process between
//! groups takes the kernel's lock on all forks of the host, which costs more than a new sandbox.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, PoisonError},
};

use sublet_pool::SubTenant;

type Owner = (Arc<str>, SubTenant);

/// The groups of all sub-tenants that have one.
#[derive(Debug, Default)]
pub struct Groups(Mutex<HashMap<Owner, Group>>);

#[derive(Debug)]
struct Group {
    name: String,
    workers: u32,
}

impl Groups {
    fn groups(&self) -> std::sync::MutexGuard<'_, HashMap<Owner, Group>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The group of a worker that gets this owner: the sub-tenant's, or a new one of this name. It must be asked for in the
    /// order in which owners are given: who asks first decides.
    pub fn enter(&self, tenant: &Arc<str>, sub_tenant: &SubTenant, new: impl FnOnce() -> String) -> String {
        let mut groups = self.groups();
        let group =
            groups.entry((tenant.clone(), sub_tenant.clone())).or_insert_with(|| Group { name: new(), workers: 0 });
        group.workers += 1;
        group.name.clone()
    }

    /// A worker is gone.
    pub fn leave(&self, tenant: &Arc<str>, sub_tenant: &SubTenant) {
        let mut groups = self.groups();
        let owner = (tenant.clone(), sub_tenant.clone());
        if let Some(group) = groups.get_mut(&owner) {
            group.workers -= 1;
            if group.workers == 0 {
                groups.remove(&owner);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn group_is_shared_by_a_sub_tenants_workers_and_forgotten_with_the_last() {
        let groups = Groups::default();
        let (tenant, a): (Arc<str>, _) = ("acme".into(), SubTenant::try_from("a").unwrap());
        assert_eq!(groups.enter(&tenant, &a, || "s-1".into()), "s-1");
        assert_eq!(groups.enter(&tenant, &a, || "s-2".into()), "s-1");
        groups.leave(&tenant, &a);
        assert_eq!(groups.enter(&tenant, &a, || "s-3".into()), "s-1", "one is left");
        groups.leave(&tenant, &a);
        groups.leave(&tenant, &a);
        assert_eq!(groups.enter(&tenant, &a, || "s-cell-4".into()), "s-cell-4");
    }
}
