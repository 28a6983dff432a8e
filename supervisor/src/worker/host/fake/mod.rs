//! A host of memory, for tests of the driver and of keepers. A worker does what its test says ([`FakeWorker`]), its group counts
//! what its test puts there ([`FakeGroup`]), and nothing waits for an event loop: with a paused clock every order of events is
//! the one that the test has written down.

mod control;
mod group;
mod tree;
mod wire;
mod worker;

use std::{
    collections::{HashMap, VecDeque},
    fmt,
    pin::Pin,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use sublet_pool::WorkerId;
use sublet_proto::link::{
    group::GroupPath,
    nursery::{Left, Posture},
    sandbox::ShownLimits,
};
use sublet_shim::plan::HostFacts;
use tokio::sync::watch;

pub use self::{
    group::{Counters, FakeGroup},
    tree::FakeTree,
    worker::{FakeWorker, Request},
};
use super::{Group, GroupTree, Host, Inspection, Later, Place, Sandbox};
use crate::{
    cgroups::{
        CgroupError,
        limits::Knob,
        owner::Owner,
        tree::{Finding, PoolTrouble},
    },
    nursery::NurseryError,
    quota::{Above, Quotas, Refused, table::Table},
    worker::posture::{Expected, Fact, Recheck},
};

/// What one worker does from its birth on, until it ends or is ended.
pub type Script = Box<dyn FnOnce(FakeWorker) -> Pin<Box<dyn Future<Output = ()> + Send>> + Send>;

/// What becomes of one worker.
#[derive(Default)]
pub struct Plan {
    /// The kernel does not make its group, and says this.
    pub group_refused: Option<&'static str>,
    /// No sandbox is made.
    pub sandbox_refused: Option<NurseryError>,
    /// It cannot be looked at.
    pub inspection_refused: Option<NurseryError>,
    /// It is not as planned: each thing that is wrong.
    pub wrong: Vec<&'static str>,
    /// What is wrong when it is looked at again.
    pub wrong_later: Vec<&'static str>,
    /// What it does; none: it answers each call with its payload.
    pub script: Option<Script>,
}

impl Plan {
    /// With a worker that does this.
    pub fn of<F: Future<Output = ()> + Send + 'static>(script: impl FnOnce(FakeWorker) -> F + Send + 'static) -> Self {
        Self { script: Some(Box::new(|worker| Box::pin(script(worker)))), ..Self::default() }
    }
}

impl fmt::Debug for Plan {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Plan")
    }
}

/// The host.
#[derive(Debug)]
pub struct FakeHost {
    /// For workers that are still to be made, in their order. Those without one answer with what they are asked.
    plans: Mutex<VecDeque<Plan>>,
    made: Mutex<HashMap<u64, Made>>,
    /// What is left for every sandbox's processes.
    pub left: Mutex<Option<Left>>,
    gone: watch::Sender<bool>,
    /// Sandboxes that were made.
    pub sandboxes: AtomicUsize,
    quotas: Arc<Quotas<FakeTree>>,
}

/// One worker that was made, or is being made.
#[derive(Debug)]
struct Made {
    group: FakeGroup,
    plan: Plan,
}

impl FakeHost {
    /// With no worker and no limits.
    pub fn new() -> Arc<Self> {
        Arc::new(Self {
            plans: Mutex::default(),
            made: Mutex::default(),
            left: Mutex::default(),
            gone: watch::Sender::new(false),
            sandboxes: AtomicUsize::new(0),
            quotas: Arc::new(Quotas::new(Arc::default())),
        })
    }

    /// The worker that is made next, after those that have been spoken for, does this.
    pub fn next<F: Future<Output = ()> + Send + 'static>(&self, script: impl FnOnce(FakeWorker) -> F + Send + 'static) {
        self.plan(Plan::of(script));
    }

    /// The same, of one that may not come so far.
    pub fn plan(&self, plan: Plan) {
        lock(&self.plans).push_back(plan);
    }

    /// Whoever makes sandboxes ends, and every sandbox with it.
    pub fn end_nursery(&self) {
        self.gone.send_replace(true);
        for made in lock(&self.made).values() {
            // Nobody reaps it any more, so that nobody tells by which signal.
            made.group.end(None);
        }
    }

    /// The group of a worker, by its number.
    pub fn group(&self, worker: u64) -> FakeGroup {
        lock(&self.made).get(&worker).expect("it was made").group.clone()
    }

    /// Workers whose groups have not been removed.
    pub fn living(&self) -> usize {
        lock(&self.made).values().filter(|made| !made.group.is_removed()).count()
    }

    /// The groups with their limits.
    pub fn tree(&self) -> &FakeTree {
        self.quotas.tree()
    }
}

impl Host for FakeHost {
    fn make_group(&self, worker: &str, owner: &Owner, group: &str) -> Result<Box<dyn Group>, CgroupError> {
        let plan = lock(&self.plans).pop_front().unwrap_or_default();
        if let Some(missing) = plan.group_refused {
            return Err(CgroupError::Unsupported { missing: missing.into(), remedy: "try another".into() });
        }
        let name = format!("t-{}/{group}/{worker}", owner.tenant());
        let name = GroupPath::try_from(name.as_str()).expect("names of groups are good");
        self.tree().enter(&name, owner, |owner| self.quotas.wanted(owner).unwrap_or_default());
        let group = FakeGroup::new(name, self.quotas.clone());
        let number = worker.trim_start_matches("w-").parse().expect("a worker's name has its number");
        lock(&self.made).insert(number, Made { group: group.clone(), plan });
        Ok(Box::new(group))
    }

    fn make_sandbox<'a>(
        &'a self,
        of: Place<'a>,
        _shown: Option<ShownLimits>,
    ) -> Later<'a, Result<Sandbox, NurseryError>> {
        Box::pin(async move {
            let (group, script) = {
                let mut made = lock(&self.made);
                let made = made.get_mut(&of.worker.0).expect("its group was made");
                if let Some(error) = made.plan.sandbox_refused.take() {
                    return Err(error);
                }
                (made.group.clone(), made.plan.script.take())
            };
            if *self.gone.borrow() {
                return Err(NurseryError::Gone);
            }
            self.sandboxes.fetch_add(1, Ordering::Relaxed);
            let (worker, sandbox) = FakeWorker::new(of.worker.0, group.clone());
            let script = script.unwrap_or_else(|| Box::new(|worker| Box::pin(echo(worker))));
            let task = tokio::spawn(script(worker));
            group.runs(task.abort_handle());
            Ok(sandbox)
        })
    }

    fn inspect<'a>(&'a self, of: Place<'a>) -> Later<'a, Result<Inspection, NurseryError>> {
        Box::pin(async move {
            let mut made = lock(&self.made);
            let plan = &mut made.get_mut(&of.worker.0).expect("its group was made").plan;
            if let Some(error) = plan.inspection_refused.take() {
                return Err(error);
            }
            let wrong = plan.wrong.iter().map(|name| Fact { name: (*name).into(), value: "wrong".into(), ok: false });
            let mut facts: Vec<Fact> = wrong.collect();
            facts.push(Fact { name: "host".into(), value: "of memory".into(), ok: true });
            let spec = of.entry.sandbox(of.slot, of.cgroup.to_owned());
            let expected = Expected {
                init_uid: 0,
                cgroup: of.cgroup,
                v1_controllers: &[],
                root: &spec.root,
                token: false,
                limits: &spec.limits,
                missing_layers: &[],
                forbid_store_bypass: false,
                inherited_filters: 0,
            };
            let mut posture = Posture::default();
            posture.init.pid = i32::try_from(of.worker.0).expect("a small number");
            Ok(Inspection { facts, recheck: Recheck::new(&posture, &expected) })
        })
    }

    fn inspect_again(&self, recheck: &Recheck, _members: &[i32]) -> Vec<String> {
        let made = lock(&self.made);
        let plan = &made.get(&recheck.init().unsigned_abs().into()).expect("its group was made").plan;
        plan.wrong_later.iter().map(|what| (*what).to_owned()).collect()
    }

    fn left(&self, _worker: WorkerId) -> Later<'_, Option<Left>> {
        Box::pin(std::future::ready(*lock(&self.left)))
    }

    fn ask_to_end(&self, _worker: WorkerId) -> Later<'_, u32> {
        // Its functions know no signals.
        Box::pin(async { 0 })
    }

    fn is_gone(&self) -> bool {
        *self.gone.borrow()
    }

    fn gone(&self) -> Later<'static, ()> {
        let mut gone = self.gone.subscribe();
        Box::pin(async move {
            if gone.wait_for(|gone| *gone).await.is_err() {
                std::future::pending::<()>().await;
            }
        })
    }

    fn facts(&self) -> HostFacts<'_> {
        HostFacts {
            host_init_uid: 0,
            v1_groups: false,
            missing_layers: &[],
            relays_streams: false,
            forbid_store_bypass: false,
        }
    }
}

impl GroupTree for FakeHost {
    fn all(&self) -> Vec<(GroupPath, Owner)> {
        self.tree().owners()
    }

    fn change(&self, table: Table) -> Result<usize, Box<Refused>> {
        self.quotas.change(table)
    }

    fn above(&self, table: &Table) -> Vec<Above> {
        self.quotas.above(table)
    }

    fn used(&self, path: &GroupPath, knob: Knob) -> Option<u64> {
        self.tree().use_of(path, knob)
    }

    fn cpu(&self, _path: &GroupPath) -> Option<Duration> {
        None
    }

    fn audit(&self, path: &GroupPath) -> Vec<Finding> {
        self.tree().findings(path)
    }

    fn audit_freeze(&self, _path: &GroupPath) -> Option<Finding> {
        None
    }

    fn pool_trouble(&self) -> Option<PoolTrouble> {
        None
    }
}

/// What a worker does of which nobody has said anything: it answers each call with its payload.
async fn echo(worker: FakeWorker) {
    worker.start().await;
    worker.serve().await;
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
