//! What the driver and its keepers need of the host: groups and sandboxes, and what can be known of them from outside.
//!
//! ```text
//!  driver, keeper --> Host ------ make_group ----> Group      one worker's group, from its first directory to its last
//!                      |--------- make_sandbox --> Sandbox    the ends of its channel, its control socket and its log
//!                      '--------- inspect -------> Inspection is the cage what was planned?
//!  guard, usage, reload --> GroupTree                         all groups, with the limits they are to have
//! ```
//! [`kernel`] is the real host: nursery and control groups. Tests of the driver and of keepers have one of their own, which
//! does what a test says and needs neither root nor a clock.

#[cfg(test)]
pub mod fake;
pub mod kernel;

use std::{fmt::Debug, io, os::fd::OwnedFd, pin::Pin, sync::Arc, time::Duration};

use sublet_pool::{SubTenant, WorkerId};
use sublet_proto::{
    level::Level,
    link::{group::GroupPath, nursery::Left, sandbox::ShownLimits},
};
use sublet_shim::plan::HostFacts;
use tokio::{sync::watch, time::timeout};

use super::{
    control::Control,
    posture::{Fact, Recheck},
    wire::Wire,
};
use crate::{
    catalogue::Entry,
    cgroups::{
        CgroupError,
        bite::Bite,
        leaf::Bites,
        limits::Knob,
        owner::Owner,
        reading::Reading,
        shown::LiveLimits,
        tree::{Finding, Gone, PoolTrouble},
    },
    nursery::{InitEnd, NurseryError},
    quota::{Above, Refused, table::Table},
};

/// A future that is made behind a trait object.
pub type Later<'a, T> = Pin<Box<dyn Future<Output = T> + Send + 'a>>;

/// The host that workers live on.
pub trait Host: Debug + Send + Sync {
    /// Makes a worker's group, with its limits, and those above it that are not there yet. `group` names that of its
    /// sub-tenant. Waits for the kernel: not for a thread that calls are served by.
    ///
    /// # Errors
    /// When the kernel does not take it; nothing is left behind then.
    fn make_group(&self, worker: &str, owner: &Owner, group: &str) -> Result<Box<dyn Group>, CgroupError>;

    /// Makes a sandbox in a group, whose function sees these limits; none: those of its settings. It is confined by itself
    /// from then on, and says so on its channel.
    ///
    /// # Errors
    /// When the nursery refuses, fails, or is gone.
    fn make_sandbox<'a>(
        &'a self,
        of: Place<'a>,
        shown: Option<ShownLimits>,
    ) -> Later<'a, Result<Sandbox, NurseryError>>;

    /// Looks at a sandbox from outside and holds what is seen against what was planned.
    ///
    /// # Errors
    /// When it cannot be looked at, or the nursery is gone.
    fn inspect<'a>(&'a self, of: Place<'a>) -> Later<'a, Result<Inspection, NurseryError>>;

    /// Looks again at what could have changed since the inspection, while a cell waited. `members` are the processes of its
    /// group. Returns what is wrong.
    fn inspect_again(&self, recheck: &Recheck, members: &[i32]) -> Vec<String>;

    /// What is left for a sandbox's processes; none when it cannot be asked.
    fn left(&self, worker: WorkerId) -> Later<'_, Option<Left>>;

    /// Sends SIGTERM to the processes of a sandbox's function. Returns how many were asked; 0 when none could be.
    fn ask_to_end(&self, worker: WorkerId) -> Later<'_, u32>;

    /// Whether whoever makes sandboxes is gone, and every sandbox with it.
    fn is_gone(&self) -> bool;

    /// Returns when it is gone, for whatever reason.
    fn gone(&self) -> Later<'static, ()>;

    /// What of this host decides how a worker is made.
    fn facts(&self) -> HostFacts<'_>;
}

/// Whether the host's nursery is gone, or about to be. The kernel closes what a dying nursery held in no promised order, so
/// that the end of one of its sandboxes may be seen a moment before its own.
pub async fn is_going(host: &dyn Host, patience: Duration) -> bool {
    host.is_gone() || timeout(patience, host.gone()).await.is_ok()
}

/// Which sandbox is meant.
#[derive(Clone, Copy, Debug)]
pub struct Place<'a> {
    /// Number of the worker that lives in it.
    pub worker: WorkerId,
    /// The worker's function.
    pub entry: &'a Entry,
    /// The worker's slot, which decides its host ids.
    pub slot: u32,
    /// The worker's group, as a path below the pool.
    pub cgroup: &'a str,
}

/// The supervisor's ends of a new sandbox.
#[derive(Debug)]
pub struct Sandbox {
    /// Host pid of init.
    pub pid: u32,
    /// The byte stream that carries frames.
    pub wire: Box<dyn Wire>,
    /// The socket on which init reports, and is told things.
    pub control: Box<dyn Control>,
    /// The read end of the function's stdout and stderr.
    pub log: OwnedFd,
    /// Becomes some when init is dead and reaped.
    pub reaped: watch::Receiver<Option<InitEnd>>,
}

/// What a look at a sandbox has shown.
#[derive(Debug)]
pub struct Inspection {
    /// Everything that was looked at.
    pub facts: Vec<Fact>,
    /// What is to be looked at once more when a cell gets its owner.
    pub recheck: Recheck,
}

/// One worker's group.
pub trait Group: Debug + Send + Sync {
    /// Path below the pool.
    fn name(&self) -> &GroupPath;

    /// Its memory and CPU limits, kept as they are now; none when it is not on the list any more.
    fn live_limits(&self) -> Option<Arc<LiveLimits>>;

    /// Path in the v2 hierarchy, for operators.
    fn path(&self) -> String;

    /// Stops every process of the group. The kernel does it soon, not before this returns.
    ///
    /// # Errors
    /// What the kernel says.
    fn freeze(&self) -> io::Result<()>;

    /// Lets them run again.
    ///
    /// # Errors
    /// What the kernel says.
    fn thaw(&self) -> io::Result<()>;

    /// Whether its own switch says that it is frozen; none when that is gone.
    fn is_set_frozen(&self) -> Option<bool>;

    /// Whose switch its processes stand still by, where they do: its own or that of a group above, by path.
    fn frozen_by(&self) -> Option<String>;

    /// Kills every process of the group, frozen or not.
    ///
    /// # Errors
    /// What the kernel says; a group that is gone is none.
    fn kill(&self) -> io::Result<()>;

    /// Whether a living process is in the group.
    fn is_populated(&self) -> bool;

    /// Processes in the group, by number, in order.
    fn members(&self) -> Vec<i32>;

    /// What its counters say now; none when the group is gone, or the host does not account CPU time.
    fn reading(&self) -> Option<Reading>;

    /// CPU time used so far; none where the host does not account it.
    fn cpu(&self) -> Option<Duration>;

    /// Whether the host accounts CPU time.
    fn accounts_cpu(&self) -> bool;

    /// How long the quotas of the levels above have held something back so far.
    fn throttled_above(&self) -> Vec<(Level, Duration)>;

    /// Its CPU quota, or that of a level above it, in thousandths of a CPU; none where there is none.
    fn cpu_millis(&self, level: Level) -> Option<u64>;

    /// Which limits bit so far.
    fn bites(&self) -> Bites;

    /// Whose memory limit it was that a process of it was killed for.
    fn memory_bite(&self) -> Bite;

    /// Whose limit of processes it was that a fork of it was refused by.
    fn pids_bite(&self) -> Bite;

    /// Highest memory so far in bytes; 0 where the kernel does not keep it.
    fn memory_peak_bytes(&self) -> u64;

    /// Memory in use in bytes; 0 where the host does not account it.
    fn memory_bytes(&self) -> u64;

    /// Processes and threads now.
    fn processes(&self) -> u64;

    /// The limits as the kernel holds them: (setting, file, value).
    fn limits(&self) -> Vec<(&'static str, String, String)>;

    /// A cell has got its owner: from now on the limits of this group, and of the one that it is in, are the owner's.
    ///
    /// # Errors
    /// When the kernel does not take one.
    fn adopt<'a>(&'a self, by: &'a SubTenant) -> Later<'a, Result<(), CgroupError>>;

    /// Removes the group, which must be empty, and the levels that nothing else is in. Waits for the kernel: not for a thread
    /// that calls are served by. Returns whether all of the worker's own is gone, and which levels went with it.
    fn remove(&self) -> (bool, Vec<Gone>);
}

/// All groups of workers and of the levels above them, for those who look after them as a whole.
pub trait GroupTree: Debug + Send + Sync {
    /// Every group below the pool, by path; those above before those below.
    fn all(&self) -> Vec<(GroupPath, Owner)>;

    /// Makes the limits of every group what the table says; or none.
    ///
    /// # Errors
    /// The first limit the kernel does not take. Every limit is then what it was.
    fn change(&self, table: Table) -> Result<usize, Box<Refused>>;

    /// Groups that use more than a table would allow them.
    fn above(&self, table: &Table) -> Vec<Above>;

    /// What a group uses now of what a limit is on; none where it is not counted.
    fn used(&self, path: &GroupPath, knob: Knob) -> Option<u64>;

    /// CPU time that a level has used; none where the host does not account it, or the level is not there.
    fn cpu(&self, path: &GroupPath) -> Option<Duration>;

    /// Looks at limits and directories of a group, or of the pool, and puts right what can be.
    fn audit(&self, path: &GroupPath) -> Vec<Finding>;

    /// Lets a level run that somebody else has frozen.
    fn audit_freeze(&self, path: &GroupPath) -> Option<Finding>;

    /// What stands in the way of every worker.
    fn pool_trouble(&self) -> Option<PoolTrouble>;
}
