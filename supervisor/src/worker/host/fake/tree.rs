//! All groups in memory, with their limits. A limit that is marked is refused, as the kernel refuses one.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Mutex,
};

use sublet_proto::link::group::GroupPath;

use super::lock;
use crate::{
    cgroups::{
        CgroupError,
        limits::{Knob, Limits},
        owner::Owner,
        tree::Finding,
    },
    quota::LimitedGroups,
};

/// The groups.
#[derive(Debug, Default)]
pub struct FakeTree(Mutex<State>);

#[derive(Debug, Default)]
struct State {
    groups: BTreeMap<GroupPath, (Owner, Limits)>,
    guaranteed: Option<u64>,
    refused: BTreeSet<(GroupPath, Knob)>,
    refuses_guarantee: bool,
    used: BTreeMap<(GroupPath, Knob), u64>,
    findings: BTreeMap<GroupPath, Vec<Finding>>,
    written: Vec<(GroupPath, Knob)>,
}

impl FakeTree {
    /// A worker's group is made, with those above it.
    pub(super) fn enter(&self, leaf: &GroupPath, owner: &Owner, limits: impl Fn(&Owner) -> Limits) {
        let tenant = owner.tenant().clone();
        let label = match owner {
            Owner::Worker { label, .. } => label.clone(),
            Owner::Tenant { .. } | Owner::SubTenant { .. } => None,
        };
        let sub = leaf.parent().expect("a worker is in a sub-tenant's group");
        let top = sub.parent().expect("which is in a tenant's");
        let mut state = lock(&self.0);
        let levels = [
            (top, Owner::Tenant { tenant: tenant.clone() }),
            (sub, Owner::SubTenant { tenant, label }),
            (leaf.clone(), owner.clone()),
        ];
        for (path, owner) in levels {
            state.groups.entry(path).or_insert_with(|| (owner.clone(), limits(&owner)));
        }
    }

    pub(super) fn leave(&self, leaf: &GroupPath) {
        lock(&self.0).groups.remove(leaf);
    }

    pub(super) fn owners(&self) -> Vec<(GroupPath, Owner)> {
        lock(&self.0).groups.iter().map(|(path, (owner, _))| (path.clone(), owner.clone())).collect()
    }

    pub(super) fn use_of(&self, path: &GroupPath, knob: Knob) -> Option<u64> {
        lock(&self.0).used.get(&(path.clone(), knob)).copied()
    }

    pub(super) fn findings(&self, path: &GroupPath) -> Vec<Finding> {
        lock(&self.0).findings.get(path).cloned().unwrap_or_default()
    }

    /// The next audit of this group finds this.
    pub fn find(&self, finding: Finding) {
        lock(&self.0).findings.entry(finding.path.clone()).or_default().push(finding);
    }

    /// From now on this limit of the group is refused; or is taken again.
    pub fn refuse(&self, path: &str, knob: Knob, is_refused: bool) {
        let key = (group(path), knob);
        let refused = &mut lock(&self.0).refused;
        if is_refused {
            refused.insert(key);
        } else {
            refused.remove(&key);
        }
    }

    /// From now on the pool's guarantee is refused.
    pub fn refuse_guarantee(&self) {
        lock(&self.0).refuses_guarantee = true;
    }

    /// The group uses so much.
    pub fn set_used(&self, path: &str, knob: Knob, used: u64) {
        lock(&self.0).used.insert((group(path), knob), used);
    }

    /// Every group's limits now.
    pub fn limits(&self) -> BTreeMap<String, Limits> {
        lock(&self.0).groups.iter().map(|(path, (_, limits))| (path.to_string(), *limits)).collect()
    }

    /// What was written so far, refused ones included.
    pub fn written(&self) -> Vec<(GroupPath, Knob)> {
        lock(&self.0).written.clone()
    }
}

impl LimitedGroups for FakeTree {
    fn all_limits(&self) -> Vec<(GroupPath, Owner, Limits)> {
        let state = lock(&self.0);
        state.groups.iter().map(|(path, (owner, limits))| (path.clone(), owner.clone(), *limits)).collect()
    }

    fn owner(&self, path: &GroupPath) -> Option<Owner> {
        lock(&self.0).groups.get(path).map(|(owner, _)| owner.clone())
    }

    fn set(&self, path: &GroupPath, knob: Knob, to: &Limits) -> Result<(), CgroupError> {
        let mut state = lock(&self.0);
        state.written.push((path.clone(), knob));
        if state.refused.contains(&(path.clone(), knob)) {
            let (action, error) = ("write it to".to_owned(), std::io::ErrorKind::ResourceBusy.into());
            return Err(CgroupError::Os { action, path: path.to_string(), error, remedy: None });
        }
        if let Some((_, limits)) = state.groups.get_mut(path) {
            knob.copy(to, limits);
        }
        Ok(())
    }

    fn guaranteed(&self) -> Option<u64> {
        lock(&self.0).guaranteed
    }

    fn guarantee(&self, bytes: Option<u64>) -> Result<(), CgroupError> {
        let mut state = lock(&self.0);
        if state.refuses_guarantee {
            return Err(CgroupError::Unsupported { missing: "no guarantee".into(), remedy: "ask for less".into() });
        }
        state.guaranteed = bytes;
        Ok(())
    }

    fn used(&self, path: &GroupPath, knob: Knob) -> Option<u64> {
        self.use_of(path, knob)
    }
}

fn group(path: &str) -> GroupPath {
    GroupPath::try_from(path).expect("a group's path")
}
