//! Quotas as a living tree: which limits every group has, and how all of them become others at once or not at all.
//!
//! ```text
//!  Config --table--> what each owner gets --+
//!                                           +--plan--> writes, in order --> kernel
//!  Tree   ---------> what each group has  --+              | one is refused
//!                                                          v
//!                                            those before it are put back, the last first
//! ```
//! [`table`] and [`plan`] are pure; this file is the shell. A group that is being made and a change of all groups exclude
//! each other, so that none is born with limits of yesterday.

pub mod plan;
pub mod table;

use std::sync::{Arc, PoisonError, RwLock, RwLockReadGuard};

use sublet_pool::SubTenant;
use sublet_proto::{
    level::Level,
    link::group::{GroupPath, NoGroup, TENANT_PREFIX},
};

use self::{plan::Write, table::Table};
use crate::cgroups::{
    CgroupError,
    leaf::Leaf,
    limits::{Knob, Limits},
    owner::Owner,
    tree::{Plan, Tree},
};

/// The tree of groups with what each of them is to have.
#[derive(Debug)]
pub struct Quotas<T = Tree> {
    tree: Arc<T>,
    table: RwLock<Table>,
}

/// Groups as a change of all limits needs them: those of the kernel, or of memory in tests.
pub trait LimitedGroups {
    /// Every group below the pool by its path, with whose it is and its limits now; those above before those below.
    fn all_limits(&self) -> Vec<(GroupPath, Owner, Limits)>;

    /// Whose a group is, if it is there.
    fn owner(&self, path: &GroupPath) -> Option<Owner>;

    /// Makes one limit of a group what `to` says, if the group is there.
    ///
    /// # Errors
    /// What the kernel says. Then the limit is what it was.
    fn set(&self, path: &GroupPath, knob: Knob, to: &Limits) -> Result<(), CgroupError>;

    /// Memory that is guaranteed to the pool, in bytes.
    fn guaranteed(&self) -> Option<u64>;

    /// Guarantees so much memory to the pool, in bytes.
    ///
    /// # Errors
    /// What the kernel says. Then it is what it was.
    fn guarantee(&self, bytes: Option<u64>) -> Result<(), CgroupError>;

    /// What a group uses now of what a limit is on; none where it is not counted.
    fn used(&self, path: &GroupPath, knob: Knob) -> Option<u64>;
}

impl LimitedGroups for Tree {
    fn all_limits(&self) -> Vec<(GroupPath, Owner, Limits)> {
        self.all().into_iter().map(|(path, group)| (path, group.owner, group.limits)).collect()
    }

    fn owner(&self, path: &GroupPath) -> Option<Owner> {
        self.group(path).map(|group| group.owner)
    }

    fn set(&self, path: &GroupPath, knob: Knob, to: &Limits) -> Result<(), CgroupError> {
        Self::set(self, path, knob, to)
    }

    fn guaranteed(&self) -> Option<u64> {
        self.pool_limits().memory_min
    }

    fn guarantee(&self, bytes: Option<u64>) -> Result<(), CgroupError> {
        Self::guarantee(self, bytes)
    }

    fn used(&self, path: &GroupPath, knob: Knob) -> Option<u64> {
        Self::used(self, path, knob)
    }
}

/// A group that uses more than a new limit would allow.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Above {
    /// Its path below the pool.
    pub path: GroupPath,
    /// Whose it is.
    pub owner: Owner,
    /// Which limit.
    pub knob: Knob,
    /// What the limit would be.
    pub limit: u64,
    /// What is in use.
    pub used: u64,
}

/// A change that was not made.
#[derive(Debug)]
pub struct Refused {
    /// Path of the group that stood in the way.
    pub path: GroupPath,
    /// Whose it is, while it lives.
    pub owner: Option<Owner>,
    /// Which limit.
    pub knob: Knob,
    /// What the kernel said, or we found.
    pub error: CgroupError,
}

impl<T> Quotas<T> {
    /// Over a tree, with no limits known yet.
    pub fn new(tree: Arc<T>) -> Self {
        Self { tree, table: RwLock::default() }
    }

    /// The groups.
    pub fn tree(&self) -> &Arc<T> {
        &self.tree
    }

    /// What a group of this owner is to have; none when the configuration does not know the owner.
    #[cfg(test)]
    pub(crate) fn wanted(&self, owner: &Owner) -> Option<Limits> {
        self.table().limits(owner)
    }

    fn table(&self) -> RwLockReadGuard<'_, Table> {
        self.table.read().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Quotas {
    /// Makes a worker's group and those above it that are not there yet. `group` names that of its sub-tenant.
    ///
    /// # Errors
    /// When the kernel does not take it; nothing is left behind then.
    pub fn make(&self, worker: &str, owner: &Owner, group: &str) -> Result<Leaf, CgroupError> {
        let table = self.table();
        let bug =
            |missing: String| CgroupError::Unsupported { missing, remedy: "report this as a bug of sublet".into() };
        let plan = |path: Result<GroupPath, NoGroup>, owner: Owner| {
            let path = path.map_err(|error| bug(error.to_string()))?;
            match table.limits(&owner) {
                Some(limits) => Ok(Plan { path, limits, owner }),
                // Without limits nothing runs.
                None => Err(bug(format!("{} has no limits in the configuration", path.name()))),
            }
        };
        let tenant = owner.tenant();
        let label = match owner {
            Owner::Worker { label, .. } => label.clone(),
            Owner::Tenant { .. } | Owner::SubTenant { .. } => None,
        };
        let of_tenant = GroupPath::pool().child(&format!("{TENANT_PREFIX}{tenant}"));
        let of_tenant = plan(of_tenant, Owner::Tenant { tenant: tenant.clone() })?;
        let of_sub_tenant = Owner::SubTenant { tenant: tenant.clone(), label: label.clone() };
        let of_sub_tenant = plan(of_tenant.path.child(group), of_sub_tenant)?;
        let of_worker = plan(of_sub_tenant.path.child(worker), owner.clone())?;
        let leaf = self.tree.make_leaf(&[of_tenant, of_sub_tenant], &of_worker)?;
        // A group that was a cell's until a moment ago, and whose own worker has not got so far.
        if let Some(by) = label
            && let Err(error) = self.adopt_by(&table, leaf.name(), &by)
        {
            self.tree.remove_leaf(leaf.name());
            return Err(error);
        }
        Ok(leaf)
    }

    /// A cell's worker and the group it is in have got their owner: from now on their limits are his.
    ///
    /// # Errors
    /// When the kernel does not take one.
    pub async fn adopt(self: &Arc<Self>, leaf: &GroupPath, by: &SubTenant) -> Result<(), CgroupError> {
        if let Ok(table) = self.table.try_read() {
            return self.adopt_by(&table, leaf, by);
        }
        // A change of all limits is under way: nothing that others wait for may wait for it.
        let (own, leaf, by) = (self.clone(), leaf.clone(), by.clone());
        let adopted = tokio::task::spawn_blocking(move || own.adopt_by(&own.table(), &leaf, &by)).await;
        adopted.unwrap_or_else(|error| {
            Err(CgroupError::Unsupported {
                missing: format!("set the owner's limits: {error}"),
                remedy: "try again".into(),
            })
        })
    }

    fn adopt_by(&self, table: &Table, leaf: &GroupPath, by: &SubTenant) -> Result<(), CgroupError> {
        let mut groups = Vec::new();
        for path in leaf.parent().into_iter().chain([leaf.clone()]) {
            let Some(group) = self.tree.group(&path) else { continue };
            let owner = group.owner.labelled(by);
            self.tree.relabel(&path, owner.clone());
            if let Some(new) = table.limits(&owner) {
                groups.push((path, group.limits, new));
            }
        }
        plan::plan(groups).iter().try_for_each(|write| self.tree.set(&write.path, write.knob, &write.new))
    }

    /// The CPU quota of a worker's level in thousandths of a CPU, if it has one.
    pub fn cpu_millis(&self, leaf: &GroupPath, level: Level) -> Option<u64> {
        let path = leaf.upwards().find(|path| path.level() == level)?;
        let limits = self.tree.group(&path).map_or_else(|| self.tree.pool_limits(), |group| group.limits);
        limits.cpu.map(|cpu| cpu.share() / 1000)
    }
}

impl<T: LimitedGroups> Quotas<T> {
    /// Makes a table the one that counts, and every group's limits what it says; or nothing.
    ///
    /// # Errors
    /// The first limit the kernel does not take. Every limit is then what it was.
    pub fn change(&self, mut new: Table) -> Result<usize, Box<Refused>> {
        let mut table = self.table.write().unwrap_or_else(PoisonError::into_inner);
        new.keep(&table);
        let writes = self.writes(&new);
        let (old, guaranteed) = (self.tree.guaranteed(), new.guaranteed());
        let refused =
            |error| Box::new(Refused { path: GroupPath::pool().clone(), owner: None, knob: Knob::MemoryMin, error });
        if guaranteed > old {
            self.tree.guarantee(guaranteed).map_err(refused)?;
        }
        for (at, write) in writes.iter().enumerate() {
            if let Err(error) = self.tree.set(&write.path, write.knob, &write.new) {
                self.put_back(&writes[..at]);
                if let Err(error) = self.tree.guarantee(old) {
                    tracing::error!(%error, "the pool's guarantee cannot be put back");
                }
                let owner = self.tree.owner(&write.path);
                return Err(Box::new(Refused { path: write.path.clone(), owner, knob: write.knob, error }));
            }
        }
        if guaranteed < old
            && let Err(error) = self.tree.guarantee(guaranteed)
        {
            // More than is needed hurts nobody of ours.
            tracing::warn!(%error, "the pool's guarantee cannot be lowered");
        }
        *table = new;
        Ok(writes.len())
    }

    fn put_back(&self, writes: &[Write]) {
        for write in writes.iter().rev() {
            if let Err(error) = self.tree.set(&write.path, write.knob, &write.old) {
                tracing::error!(group = %write.path, limit = write.knob.key(), %error, "a limit cannot be put back");
            }
        }
    }

    fn writes(&self, new: &Table) -> Vec<Write> {
        let groups = self.tree.all_limits();
        let wanted =
            groups.iter().filter_map(|(path, owner, limits)| Some((path.clone(), *limits, new.limits(owner)?)));
        plan::plan(wanted)
    }

    /// Groups that use more than a table would allow them.
    pub fn above(&self, new: &Table) -> Vec<Above> {
        let limit = |knob: Knob, limits: &Limits| match knob {
            Knob::MemoryMax => limits.memory_max,
            Knob::PidsMax => limits.pids_max,
            Knob::MemoryHigh | Knob::MemoryMin | Knob::Cpu | Knob::CpuWeight => None,
        };
        let lowered = self.writes(new).into_iter().filter(|write| write.knob.is_lowered(&write.old, &write.new));
        lowered
            .filter_map(|write| {
                let (limit, used) = (limit(write.knob, &write.new)?, self.tree.used(&write.path, write.knob)?);
                let owner = self.tree.owner(&write.path)?;
                (used > limit).then_some(Above { path: write.path, owner, knob: write.knob, limit, used })
            })
            .collect()
    }
}
