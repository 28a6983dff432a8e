//! A worker's group in memory: it counts what a test puts there.

use std::{
    io,
    sync::{Arc, Mutex, MutexGuard},
    time::Duration,
};

use sublet_pool::SubTenant;
use sublet_proto::{level::Level, link::group::GroupPath};
use tokio::{sync::watch, task::AbortHandle};

use super::{FakeTree, control::Talk, lock, wire::Pipe};
use crate::{
    cgroups::{CgroupError, bite::Bite, leaf::Bites, reading::Reading, shown::LiveLimits, tree::Gone},
    nursery::InitEnd,
    quota::Quotas,
    worker::host::{Group, Later},
};

/// What a group counts and how it behaves.
#[derive(Clone, Debug)]
pub struct Counters {
    /// Limits that bit.
    pub bites: Bites,
    /// Whose memory limit it was.
    pub memory_bite: Bite,
    /// Whose limit of processes it was.
    pub pids_bite: Bite,
    /// Highest memory in bytes.
    pub memory_peak: u64,
    /// What its counters say.
    pub reading: Reading,
    /// What the quotas above held back.
    pub throttled_above: Vec<(Level, Duration)>,
    /// Every level's quota.
    pub cpu_millis: Option<u64>,
    /// Whose switch it stands still by.
    pub frozen_by: Option<String>,
    /// Freezing and thawing fail.
    pub refuses_freezer: bool,
    /// SIGKILL is not heard.
    pub refuses_kill: bool,
    /// So many attempts to remove it fail.
    pub refuses_removal: u32,
    /// The owner's limits are not taken.
    pub refuses_owner: bool,
    /// How often it was killed, and how often its removal was tried.
    pub kills: u32,
    /// How often its removal was tried.
    pub removals: u32,
}

/// A worker's group, and what runs in it.
#[derive(Clone, Debug)]
pub struct FakeGroup(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    name: GroupPath,
    quotas: Arc<Quotas<FakeTree>>,
    live: Arc<LiveLimits>,
    counters: Mutex<Counters>,
    frozen: watch::Sender<bool>,
    state: Mutex<State>,
    reaped: watch::Sender<Option<InitEnd>>,
}

/// Of the processes in it.
#[derive(Debug, Default)]
struct State {
    is_populated: bool,
    is_removed: bool,
    script: Option<AbortHandle>,
    pipes: Vec<Pipe>,
    talk: Option<Talk>,
}

impl FakeGroup {
    pub(super) fn new(name: GroupPath, quotas: Arc<Quotas<FakeTree>>) -> Self {
        let limit = Bite { level: Level::Worker, limit: Some(64 << 20), seen: Some(64 << 20) };
        let counters = Counters {
            bites: Bites::default(),
            memory_bite: limit,
            pids_bite: Bite { limit: Some(12), seen: Some(12), ..limit },
            memory_peak: 1 << 20,
            reading: Reading::default(),
            throttled_above: vec![(Level::SubTenant, Duration::ZERO), (Level::Tenant, Duration::ZERO)],
            cpu_millis: Some(500),
            frozen_by: None,
            refuses_freezer: false,
            refuses_kill: false,
            refuses_removal: 0,
            refuses_owner: false,
            kills: 0,
            removals: 0,
        };
        let limits = quotas.tree().limits().get(name.as_str()).copied().unwrap_or_default();
        Self(Arc::new(Inner {
            name,
            live: Arc::new(LiveLimits::new(&limits)),
            quotas,
            counters: Mutex::new(counters),
            frozen: watch::Sender::new(false),
            state: Mutex::default(),
            reaped: watch::Sender::new(None),
        }))
    }

    /// What it counts, to be looked at and changed.
    pub fn counters(&self) -> MutexGuard<'_, Counters> {
        lock(&self.0.counters)
    }

    /// Whether it is frozen now.
    pub fn is_frozen(&self) -> bool {
        *self.0.frozen.borrow()
    }

    /// Somebody else turns its switch.
    pub fn meddle(&self, frozen: bool) {
        self.0.frozen.send_replace(frozen);
    }

    pub(super) async fn thawed(&self) {
        drop(self.0.frozen.subscribe().wait_for(|frozen| !*frozen).await);
    }

    pub(super) fn is_removed(&self) -> bool {
        lock(&self.0.state).is_removed
    }

    pub(super) fn holds(&self, pipes: Vec<Pipe>, talk: Talk) -> watch::Receiver<Option<InitEnd>> {
        let mut state = lock(&self.0.state);
        state.is_populated = true;
        (state.pipes, state.talk) = (pipes, Some(talk));
        self.0.reaped.subscribe()
    }

    pub(super) fn runs(&self, script: AbortHandle) {
        lock(&self.0.state).script = Some(script);
    }

    /// Everything in it ends, init by this signal.
    pub fn end(&self, init_signal: Option<i32>) {
        let (pipes, talk, script) = {
            let mut state = lock(&self.0.state);
            if !std::mem::take(&mut state.is_populated) {
                return;
            }
            (std::mem::take(&mut state.pipes), state.talk.take(), state.script.take())
        };
        pipes.iter().for_each(Pipe::close);
        let end = InitEnd { code: init_signal.is_none().then_some(0), signal: init_signal };
        self.0.reaped.send_replace(Some(end));
        if let Some(talk) = talk {
            talk.end();
        }
        // Last, for it may be the script that ends us.
        if let Some(script) = script {
            script.abort();
        }
    }
}

impl Group for FakeGroup {
    fn name(&self) -> &GroupPath {
        &self.0.name
    }

    fn live_limits(&self) -> Option<Arc<LiveLimits>> {
        Some(self.0.live.clone())
    }

    fn path(&self) -> String {
        format!("memory:{}", self.0.name)
    }

    fn freeze(&self) -> io::Result<()> {
        self.switch(true)
    }

    fn thaw(&self) -> io::Result<()> {
        self.switch(false)
    }

    fn is_set_frozen(&self) -> Option<bool> {
        Some(self.is_frozen())
    }

    fn frozen_by(&self) -> Option<String> {
        self.counters().frozen_by.clone()
    }

    fn kill(&self) -> io::Result<()> {
        let is_heard = {
            let mut counters = self.counters();
            counters.kills += 1;
            !counters.refuses_kill
        };
        if is_heard {
            self.end(Some(9));
        }
        Ok(())
    }

    fn is_populated(&self) -> bool {
        lock(&self.0.state).is_populated
    }

    fn members(&self) -> Vec<i32> {
        Vec::new()
    }

    fn reading(&self) -> Option<Reading> {
        Some(self.counters().reading)
    }

    fn cpu(&self) -> Option<Duration> {
        Some(self.counters().reading.cpu)
    }

    fn accounts_cpu(&self) -> bool {
        true
    }

    fn throttled_above(&self) -> Vec<(Level, Duration)> {
        self.counters().throttled_above.clone()
    }

    fn cpu_millis(&self, _level: Level) -> Option<u64> {
        self.counters().cpu_millis
    }

    fn bites(&self) -> Bites {
        self.counters().bites
    }

    fn memory_bite(&self) -> Bite {
        self.counters().memory_bite
    }

    fn pids_bite(&self) -> Bite {
        self.counters().pids_bite
    }

    fn memory_peak_bytes(&self) -> u64 {
        self.counters().memory_peak
    }

    fn memory_bytes(&self) -> u64 {
        self.counters().memory_peak
    }

    fn processes(&self) -> u64 {
        2
    }

    fn limits(&self) -> Vec<(&'static str, String, String)> {
        Vec::new()
    }

    fn adopt<'a>(&'a self, _by: &'a SubTenant) -> Later<'a, Result<(), CgroupError>> {
        let refused = self.counters().refuses_owner;
        Box::pin(std::future::ready(if refused {
            Err(CgroupError::Unsupported { missing: "no room".into(), remedy: "make some".into() })
        } else {
            Ok(())
        }))
    }

    fn remove(&self) -> (bool, Vec<Gone>) {
        {
            let mut counters = self.counters();
            counters.removals += 1;
            if counters.refuses_removal > 0 {
                counters.refuses_removal -= 1;
                return (false, Vec::new());
            }
        }
        lock(&self.0.state).is_removed = true;
        self.0.quotas.tree().leave(&self.0.name);
        (true, Vec::new())
    }
}

impl FakeGroup {
    fn switch(&self, frozen: bool) -> io::Result<()> {
        if self.counters().refuses_freezer {
            return Err(io::Error::other("the switch is stuck"));
        }
        self.0.frozen.send_replace(frozen);
        Ok(())
    }
}
