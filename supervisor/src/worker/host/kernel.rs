//! The real host: sandboxes by the nursery, groups by the kernel.

use std::{io, sync::Arc, time::Duration};

use sublet_pool::{SubTenant, WorkerId};
use sublet_proto::{
    level::Level,
    link::{
        group::GroupPath,
        nursery::Left,
        sandbox::{Layer, ShownLimits},
    },
};
use sublet_shim::plan::HostFacts;

use super::{Group, GroupTree, Host, Inspection, Later, Place, Sandbox};
use crate::{
    cgroups::{
        CgroupError,
        bite::Bite,
        counters::LevelCounters,
        leaf::{Bites, Leaf},
        limits::Knob,
        owner::Owner,
        reading::Reading,
        shown::LiveLimits,
        tree::{Finding, Gone, PoolTrouble, Tree},
    },
    nursery::{self, Nursery, NurseryError},
    quota::{Above, Quotas, Refused, table::Table},
    worker::{
        control::SocketControl,
        posture::{self, Expected, Recheck},
        wire::SocketWire,
    },
};

/// This host, as it was found and configured at the start.
#[derive(Debug)]
pub struct KernelHost {
    /// The link to the process that makes sandboxes.
    pub nursery: Nursery,
    /// Makes groups, with the limits they are to have.
    pub quotas: Arc<Quotas>,
    /// First host uid of workers.
    pub uid_base: u32,
    /// v1 controllers that carry limits.
    pub v1_controllers: Vec<&'static str>,
    /// Layers this host lacks and the operator accepted to miss.
    pub missing_layers: Vec<Layer>,
    /// Whether functions run without speculative store bypass.
    pub forbid_store_bypass: bool,
    /// Filters the supervisor was started under.
    pub inherited_filters: u32,
    /// Whether launchers pass on the frames of `stream` functions.
    pub relays_streams: bool,
}

impl Host for KernelHost {
    fn make_group(&self, worker: &str, owner: &Owner, group: &str) -> Result<Box<dyn Group>, CgroupError> {
        let leaf = self.quotas.make(worker, owner, group)?;
        Ok(Box::new(KernelGroup::new(leaf, self.quotas.clone())))
    }

    fn make_sandbox<'a>(
        &'a self,
        of: Place<'a>,
        shown: Option<ShownLimits>,
    ) -> Later<'a, Result<Sandbox, NurseryError>> {
        Box::pin(async move {
            let mut spec = of.entry.sandbox(of.slot, of.cgroup.to_owned());
            spec.shown = shown.unwrap_or(spec.shown);
            let made = self.nursery.spawn(of.worker.0, spec).await?;
            let nursery::Sandbox { pid, channel, control, log, reaped } = made;
            Ok(Sandbox {
                pid: pid.unsigned_abs(),
                wire: Box::new(SocketWire::new(channel)),
                control: Box::new(SocketControl::new(control)),
                log,
                reaped,
            })
        })
    }

    fn inspect<'a>(&'a self, of: Place<'a>) -> Later<'a, Result<Inspection, NurseryError>> {
        Box::pin(async move {
            let posture = self.nursery.inspect(of.worker.0).await?;
            let spec = of.entry.sandbox(of.slot, of.cgroup.to_owned());
            let expected = Expected {
                init_uid: self.uid_base + 2 * of.slot,
                cgroup: of.cgroup,
                v1_controllers: &self.v1_controllers,
                root: &spec.root,
                token: of.entry.settings.token.is_some(),
                limits: &spec.limits,
                missing_layers: &self.missing_layers,
                forbid_store_bypass: self.forbid_store_bypass,
                inherited_filters: self.inherited_filters,
            };
            Ok(Inspection { facts: posture::judge(&posture, &expected), recheck: Recheck::new(&posture, &expected) })
        })
    }

    fn inspect_again(&self, recheck: &Recheck, members: &[i32]) -> Vec<String> {
        recheck.look(members)
    }

    fn left(&self, worker: WorkerId) -> Later<'_, Option<Left>> {
        Box::pin(self.nursery.left(worker.0))
    }

    fn ask_to_end(&self, worker: WorkerId) -> Later<'_, u32> {
        Box::pin(self.nursery.ask_to_end(worker.0))
    }

    fn is_gone(&self) -> bool {
        self.nursery.is_gone()
    }

    fn gone(&self) -> Later<'static, ()> {
        let nursery = self.nursery.clone();
        Box::pin(async move { nursery.gone().await })
    }

    fn facts(&self) -> HostFacts<'_> {
        HostFacts {
            host_init_uid: self.uid_base,
            v1_groups: !self.v1_controllers.is_empty(),
            missing_layers: &self.missing_layers,
            forbid_store_bypass: self.forbid_store_bypass,
            relays_streams: self.relays_streams,
        }
    }
}

/// One worker's group in the kernel's hierarchies.
#[derive(Debug)]
struct KernelGroup {
    leaf: Leaf,
    quotas: Arc<Quotas>,
    /// Of its sub-tenant and its tenant.
    above: Vec<(Level, Arc<LevelCounters>)>,
}

impl KernelGroup {
    fn new(leaf: Leaf, quotas: Arc<Quotas>) -> Self {
        let above = leaf.name().upwards().skip(1);
        let counters = above.filter_map(|path| Some((path.level(), quotas.tree().group(&path)?.counters()?.clone())));
        Self { above: counters.collect(), leaf, quotas }
    }

    fn tree(&self) -> &Tree {
        self.quotas.tree()
    }
}

impl Group for KernelGroup {
    fn name(&self) -> &GroupPath {
        self.leaf.name()
    }

    fn live_limits(&self) -> Option<Arc<LiveLimits>> {
        Some(self.tree().group(self.name())?.live().clone())
    }

    fn path(&self) -> String {
        self.leaf.unified_path().display().to_string()
    }

    fn freeze(&self) -> io::Result<()> {
        self.leaf.freeze()
    }

    fn thaw(&self) -> io::Result<()> {
        self.leaf.thaw()
    }

    fn is_set_frozen(&self) -> Option<bool> {
        self.leaf.is_set_frozen()
    }

    fn frozen_by(&self) -> Option<String> {
        let whose = || self.tree().frozen_from(self.name()).unwrap_or_else(|| "a group above ours".to_owned());
        self.leaf.is_frozen().then(whose)
    }

    fn kill(&self) -> io::Result<()> {
        self.leaf.kill()
    }

    fn is_populated(&self) -> bool {
        self.leaf.is_populated()
    }

    fn members(&self) -> Vec<i32> {
        self.leaf.members()
    }

    fn reading(&self) -> Option<Reading> {
        self.leaf.reading()
    }

    fn cpu(&self) -> Option<Duration> {
        self.leaf.cpu()
    }

    fn accounts_cpu(&self) -> bool {
        self.leaf.accounts_cpu()
    }

    fn throttled_above(&self) -> Vec<(Level, Duration)> {
        self.above.iter().map(|(level, counters)| (*level, counters.throttled())).collect()
    }

    fn cpu_millis(&self, level: Level) -> Option<u64> {
        self.quotas.cpu_millis(self.name(), level)
    }

    fn bites(&self) -> Bites {
        self.leaf.bites()
    }

    fn memory_bite(&self) -> Bite {
        self.tree().memory_bite(self.name())
    }

    fn pids_bite(&self) -> Bite {
        self.tree().pids_bite(self.name())
    }

    fn memory_peak_bytes(&self) -> u64 {
        self.leaf.memory_peak_bytes()
    }

    fn memory_bytes(&self) -> u64 {
        self.leaf.memory_bytes()
    }

    fn processes(&self) -> u64 {
        self.leaf.processes()
    }

    fn limits(&self) -> Vec<(&'static str, String, String)> {
        self.leaf.limits()
    }

    fn adopt<'a>(&'a self, by: &'a SubTenant) -> Later<'a, Result<(), CgroupError>> {
        Box::pin(self.quotas.adopt(self.name(), by))
    }

    fn remove(&self) -> (bool, Vec<Gone>) {
        self.tree().remove_leaf(self.name())
    }
}

impl GroupTree for Quotas {
    fn all(&self) -> Vec<(GroupPath, Owner)> {
        self.tree().all().into_iter().map(|(path, group)| (path, group.owner)).collect()
    }

    fn change(&self, table: Table) -> Result<usize, Box<Refused>> {
        Quotas::change(self, table)
    }

    fn above(&self, table: &Table) -> Vec<Above> {
        Quotas::above(self, table)
    }

    fn used(&self, path: &GroupPath, knob: Knob) -> Option<u64> {
        self.tree().used(path, knob)
    }

    fn cpu(&self, path: &GroupPath) -> Option<Duration> {
        self.tree().group(path)?.counters()?.cpu()
    }

    fn audit(&self, path: &GroupPath) -> Vec<Finding> {
        self.tree().audit(path)
    }

    fn audit_freeze(&self, path: &GroupPath) -> Option<Finding> {
        self.tree().audit_freeze(path)
    }

    fn pool_trouble(&self) -> Option<PoolTrouble> {
        self.tree().pool_trouble()
    }
}
