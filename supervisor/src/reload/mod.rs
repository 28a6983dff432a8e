//! The configuration in force, and how it becomes another: `sublet reload` and SIGHUP read the file again, `sublet set`
//! changes limits for a time, and what was set expires. All of it goes one way, whole or not at all:
//!
//! ```text
//!  file --+
//!         +--> check --> what cannot change? --> what is on this host? --> kernel (quota) --> pool --> in force
//!  set ---+      |               |                        |                     |
//!                '---------------+----------- refused ----+---------------------'   the old one stays
//! ```
//! What workers are (a function's code and sandbox) is a revision: a changed one takes the calls from then on, and the
//! workers of the old one finish what they have. Everything else is changed under running workers.

pub(crate) mod changes;
mod fixed;
pub mod report;
pub mod temporary;

use std::{
    path::{Path, PathBuf},
    sync::{Arc, Mutex, MutexGuard, PoisonError, TryLockError},
    time::{Duration, SystemTime},
};

use sublet_pool::{Selector, WorkerId};
use sublet_proto::link::group::GroupPath;
use tokio::sync::Notify;

use self::{fixed::Fixed, temporary::Temporaries};
use crate::{
    cgroups::{CgroupError, limits::Knob, owner::Owner},
    config::{self, ByteSize, Config, ConfigError, LevelPath, Looked, Name, Overlay, Problem, Source},
    doctor::Report,
    driver::Driver,
    events::Happened,
    jail::Jail,
    quota::{Above, Refused, table::Table},
    token::Keys,
    trust::Trusted,
};

/// How often a group that is above a lowered limit is emptied of workers before the change is given up.
const ENDINGS_MAX: u32 = 64;
/// How long ended workers may take to give their memory back.
const ENDING_PATIENCE: Duration = Duration::from_secs(5);
/// How often it is looked whether something has expired while a change is being made.
const EXPIRY_LOOK: Duration = Duration::from_millis(500);
/// What has expired and cannot be taken back yet is tried again after so long.
const EXPIRY_PAUSE: Duration = Duration::from_secs(5);

/// Why nothing was changed.
#[derive(Debug, thiserror::Error)]
pub enum ReloadError {
    /// The file, or what it says.
    #[error("the new configuration is not used, the old one stays in force:\n{0}")]
    Config(#[from] ConfigError),
    /// A running group does not fit it.
    #[error("nothing is changed, the old configuration stays in force:\n{0}")]
    Running(String),
    /// One at a time.
    #[error("another reload is running; the old configuration stays in force until it ends")]
    Busy,
    /// There is nothing to take back.
    #[error("no limit {0} is changed for a time; `sublet limits` shows those that are")]
    NotSet(String),
}

/// A configuration that is in force, with what it was made of.
#[derive(Debug)]
pub struct Loaded {
    /// The text of the file, as it was read.
    pub source: Source,
    /// The directories that it names.
    pub looked: Looked,
    /// All of it, checked.
    pub config: Config,
}

/// What holds now.
#[derive(Debug)]
struct State {
    source: Source,
    /// The code that is in force. Only a reload looks again: a limit that is set, or expires, deploys nothing.
    looked: Looked,
    temporaries: Temporaries,
    config: Config,
    /// When expired ones may be tried again.
    not_before: Option<SystemTime>,
}

/// What may take the place of what holds.
struct Checked {
    config: Config,
    keys: Keys,
    looked: Looked,
}

/// A group above a limit, in the words of the configuration.
#[derive(Clone, Debug)]
pub struct AboveLine {
    /// The group.
    pub group: String,
    /// The setting.
    pub setting: String,
    /// What it would be.
    pub limit: String,
    /// What is in use.
    pub observed: String,
}

/// What a reload would do.
#[derive(Clone, Debug, Default)]
pub struct Difference {
    /// What would change, a line each.
    pub changes: Vec<String>,
    /// Functions that would get a new revision.
    pub replaced: Vec<String>,
    /// Groups that use more than they would be allowed.
    pub above: Vec<AboveLine>,
}

/// The running configuration, and where it comes from.
#[derive(Debug)]
pub struct Reloader {
    path: PathBuf,
    driver: Arc<Driver>,
    host: Report,
    fixed: Fixed,
    state: Mutex<State>,
    /// Something was set: the next expiry may be another.
    set: Notify,
}

impl Reloader {
    /// Of a configuration that is in force. `descriptors` may be open at one time; `jail` says what can still be read.
    pub fn new(
        path: PathBuf,
        driver: Arc<Driver>,
        host: Report,
        Loaded { source, looked, config }: Loaded,
        descriptors: u64,
        jail: Jail,
    ) -> Self {
        let fixed = Fixed::new(&config, descriptors, jail);
        let state = State { source, looked, temporaries: Temporaries::default(), config, not_before: None };
        Self { path, driver, host, fixed, state: Mutex::new(state), set: Notify::new() }
    }

    fn state(&self) -> Result<MutexGuard<'_, State>, ReloadError> {
        match self.state.try_lock() {
            Ok(state) => Ok(state),
            Err(TryLockError::WouldBlock) => Err(ReloadError::Busy),
            Err(TryLockError::Poisoned(poisoned)) => Ok(poisoned.into_inner()),
        }
    }

    /// As [`Self::state`], for those that nobody waits for and nobody would send again.
    fn state_at_last(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Reads the file again and puts it in force. Returns what has changed, a line each. `end` ends workers that stand
    /// against a lowered memory limit.
    ///
    /// # Errors
    /// Everything that is wrong with it; then nothing is changed.
    pub fn reload(&self, end: bool) -> Result<Vec<String>, ReloadError> {
        self.told("reloaded", || self.read_again(&mut *self.state()?, end))
    }

    /// The same for SIGHUP, once whatever is being changed has been: a signal has nobody to be told that it comes too early.
    ///
    /// # Errors
    /// As [`Self::reload`].
    pub fn reload_at_last(&self) -> Result<Vec<String>, ReloadError> {
        self.told("reloaded", || self.read_again(&mut self.state_at_last(), false))
    }

    fn read_again(&self, state: &mut State, end: bool) -> Result<Vec<String>, ReloadError> {
        let source = read_source(&self.path)?;
        let temporaries = state.temporaries.clone();
        let new = self.checked(&state.config, &source, &temporaries, None)?;
        self.put(state, (source, temporaries), new, end)
    }

    /// Files in the directories of all functions, when they were last looked at.
    pub fn files(&self) -> u64 {
        self.state_at_last().looked.files()
    }

    /// Changes limits for a time. Returns what has changed.
    ///
    /// # Errors
    /// Everything that is wrong with them; then nothing is changed.
    pub fn set(
        &self,
        overlays: Vec<Overlay>,
        lasting: Duration,
        end: bool,
    ) -> Result<(Vec<String>, SystemTime), ReloadError> {
        let until = SystemTime::now() + lasting;
        let changes = self.told("set", || {
            let mut state = self.state()?;
            let temporaries = state.temporaries.with(overlays, until);
            self.put_limits(&mut state, temporaries, end)
        })?;
        self.set.notify_one();
        Ok((changes, until))
    }

    /// Takes back what was changed for a time. Returns what has changed.
    ///
    /// # Errors
    /// There is nothing of that kind; or it cannot be taken back, and stays.
    pub fn unset(&self, path: Option<&LevelPath>, key: Option<&str>, end: bool) -> Result<Vec<String>, ReloadError> {
        self.told("unset", || {
            let mut state = self.state()?;
            let (kept, gone) = state.temporaries.without(path, key);
            if gone.is_empty() {
                let what = path.map_or_else(
                    || "at all".to_owned(),
                    |path| match key {
                        Some(key) => format!("{}.{key}", path.table()),
                        None => format!("of {path}"),
                    },
                );
                return Err(ReloadError::NotSet(what));
            }
            self.put_limits(&mut state, kept, end)
        })
    }

    /// Takes back what has expired, again and again, as long as the supervisor runs.
    pub async fn expire(self: Arc<Self>) {
        loop {
            // Held over a change, which takes its time: never waited for on a thread that others are served by.
            let next = match self.state() {
                Ok(state) => state
                    .temporaries
                    .next()
                    .map(|next| state.not_before.map_or(next, |not_before| next.max(not_before))),
                Err(_) => Some(SystemTime::now() + EXPIRY_LOOK),
            };
            let wait = async {
                match next {
                    // The wall clock may step; a second late is early enough.
                    Some(at) => {
                        let left = at.duration_since(SystemTime::now()).unwrap_or_default();
                        tokio::time::sleep(left.min(Duration::from_secs(1))).await;
                    }
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                () = wait => {}
                () = self.set.notified() => continue,
            }
            if next.is_some_and(|at| at <= SystemTime::now()) {
                let own = self.clone();
                // One that panicked is tried again.
                tokio::task::spawn_blocking(move || own.expire_now()).await.ok();
            }
        }
    }

    fn expire_now(&self) {
        let outcome = self.told("expired", || {
            let mut state = self.state_at_last();
            let (kept, gone) = state.temporaries.expired(SystemTime::now());
            if gone.is_empty() {
                return Ok(Vec::new());
            }
            let outcome = self.put_limits(&mut state, kept, false);
            state.not_before = outcome.is_err().then(|| SystemTime::now() + EXPIRY_PAUSE);
            outcome
        });
        if let Err(error) = outcome {
            tracing::error!("a limit that was changed for a time has expired and cannot be taken back yet: {error}");
        }
    }

    /// Does something to the configuration, and tells whoever listens.
    fn told(
        &self,
        what: &'static str,
        act: impl FnOnce() -> Result<Vec<String>, ReloadError>,
    ) -> Result<Vec<String>, ReloadError> {
        let outcome = act();
        let happened = match &outcome {
            Ok(lines) if lines.is_empty() => return outcome,
            Ok(lines) => Happened::Config { what, lines: lines.clone() },
            Err(error) => {
                Happened::Config { what: "refused", lines: error.to_string().lines().map(str::to_owned).collect() }
            }
        };
        self.driver.hub.tell(happened);
        outcome
    }

    /// Puts other limits in force, of the text and the code that are.
    fn put_limits(&self, state: &mut State, temporaries: Temporaries, end: bool) -> Result<Vec<String>, ReloadError> {
        let source = state.source.clone();
        let new = self.checked(&state.config, &source, &temporaries, Some(&state.looked))?;
        self.put(state, (source, temporaries), new, end)
    }

    /// Puts a configuration in force, from whichever side it comes.
    fn put(
        &self,
        state: &mut State,
        (source, temporaries): (Source, Temporaries),
        Checked { config: new, keys, looked }: Checked,
        end: bool,
    ) -> Result<Vec<String>, ReloadError> {
        let changes = changes::changes(&state.config, &new);
        self.put_into_kernel(&new, end)?;
        self.driver.install(&new, &keys);
        *state = State { source, looked, temporaries, config: new, not_before: None };
        Ok(changes)
    }

    /// A configuration that can be put in force. Its directories are looked at, unless they are `known`.
    fn checked(
        &self,
        old: &Config,
        source: &Source,
        temporaries: &Temporaries,
        known: Option<&Looked>,
    ) -> Result<Checked, ConfigError> {
        let mut new = source.check(&temporaries.overlays())?;
        let (looked, of_host) = config::check_host(&mut new, known);
        let mut problems: Vec<Problem> = self.fixed.problems(old, &new);
        problems.extend(self.host.unenforced(&new));
        // That a directory is out of bounds says why nobody could look at it.
        config::add_untold(&mut problems, of_host);
        // Again, and by whoever we are now: a key that was replaced is taken, and one that cannot be read is told.
        let keys = Keys::read(&new).map_err(|told| problems.extend(told)).unwrap_or_default();
        if problems.is_empty() { Ok(Checked { config: new, keys, looked }) } else { Err(ConfigError { problems }) }
    }

    fn put_into_kernel(&self, new: &Config, end: bool) -> Result<(), ReloadError> {
        let tree = &self.driver.services().tree;
        for _ in 0..ENDINGS_MAX {
            let refused = match tree.change(Table::new(new)) {
                Ok(_) => return Ok(()),
                Err(refused) => refused,
            };
            let is_memory = refused.knob == Knob::MemoryMax;
            if !(end && is_memory && self.end_one(&refused.path)) {
                return Err(ReloadError::Running(self.refusal(&refused, new)));
            }
        }
        Err(ReloadError::Running("workers that were ended did not give enough memory back".into()))
    }

    /// Ends one worker of a group, an idle one if there is one, and waits until its memory is back. False when there is
    /// none.
    fn end_one(&self, group: &GroupPath) -> bool {
        let in_group = |worker: &GroupPath| worker.upwards().any(|above| above == *group);
        let workers = self.driver.workers();
        let mut inside: Vec<_> =
            workers.iter().filter(|line| line.worker.group().is_some_and(|group| in_group(group.name()))).collect();
        // Those that end already are waited for, and not counted on.
        inside.retain(|line| line.worker.kill_order().is_none());
        // The one that has been idle for longest first, then those that are busy.
        inside.sort_by_key(|line| std::cmp::Reverse(line.idle));
        let Some(line) = inside.first() else { return false };
        self.driver.evict(&Selector::Worker(WorkerId(line.worker.id.0)), true);
        // Its memory is wanted now.
        line.worker.hurry();
        let end = SystemTime::now() + ENDING_PATIENCE;
        while self.driver.workers().iter().any(|other| other.worker.id == line.worker.id) && SystemTime::now() < end {
            std::thread::sleep(Duration::from_millis(2));
        }
        true
    }

    fn refusal(&self, refused: &Refused, new: &Config) -> String {
        let Some(owner) = &refused.owner else { return format!("{}: {}", refused.path, refused.error) };
        let setting = new.setting(&level_of(owner), refused.knob.key());
        let group = self.group_name(&refused.path, owner);
        match (&refused.error, refused.knob) {
            (CgroupError::Above { used, limit, .. }, _) => above_text(&setting, &group, *limit, *used),
            (_, Knob::MemoryMax) => {
                let tree = &self.driver.services().tree;
                let used = tree.used(&refused.path, Knob::MemoryMax).unwrap_or(0);
                let limit = Table::new(new).limits(owner).and_then(|limits| limits.memory_max).unwrap_or(0);
                above_text(&setting, &group, limit, used)
            }
            (error, _) => format!("{setting}: the kernel does not take it for {group}: {error}"),
        }
    }

    /// A group as operators know it.
    fn group_name(&self, path: &GroupPath, owner: &Owner) -> String {
        let last = path.name();
        match owner {
            Owner::Tenant { tenant } => format!("tenant {tenant}"),
            Owner::SubTenant { tenant, label: Some(label) } => {
                format!("sub-tenant {} of {tenant}", self.driver.services().labels.group(tenant, label))
            }
            Owner::SubTenant { tenant, label: None } => format!("cell group {last} of {tenant}"),
            Owner::Worker { tenant, function, .. } => format!("worker {last} of {tenant}/{function}"),
        }
    }

    /// What a reload would change: of the file as it is now, or of another text.
    ///
    /// # Errors
    /// Everything that is wrong with it.
    pub fn difference(&self, other: Option<Source>) -> Result<Difference, ReloadError> {
        let state = self.state()?;
        let source = match other {
            Some(source) => source,
            None => Source::read(&self.path)?,
        };
        let Checked { config: new, .. } = self.checked(&state.config, &source, &state.temporaries, None)?;
        let replaced = new.functions().filter(|(tenant, name, function)| {
            let old = state.config.function(tenant.as_str(), name.as_str());
            old.is_some_and(|old| old.revision != function.revision)
        });
        let tree = &self.driver.services().tree;
        Ok(Difference {
            changes: changes::changes(&state.config, &new),
            replaced: replaced.map(|(tenant, name, _)| format!("{tenant}/{name}")).collect(),
            above: tree.above(&Table::new(&new)).iter().map(|above| self.above_line(above, &new)).collect(),
        })
    }

    fn above_line(&self, above: &Above, new: &Config) -> AboveLine {
        let shown = |value: u64| match above.knob {
            Knob::MemoryMax | Knob::MemoryHigh | Knob::MemoryMin => ByteSize::from_bytes(value).to_string(),
            Knob::PidsMax | Knob::Cpu | Knob::CpuWeight => value.to_string(),
        };
        AboveLine {
            group: self.group_name(&above.path, &above.owner),
            setting: new.setting(&level_of(&above.owner), above.knob.key()),
            limit: shown(above.limit),
            observed: shown(above.used),
        }
    }

    /// Every limit in force, of one level or of all that are configured.
    ///
    /// # Errors
    /// The level's tenant, class or function is not in the configuration.
    pub fn limits(&self, path: Option<&LevelPath>) -> Result<Vec<report::Line>, ReloadError> {
        let state = self.state_at_last();
        let without = state.source.check(&[])?;
        let lines = report::limits(&state.config, &without, &state.temporaries, path);
        lines.ok_or_else(|| {
            let shown = path.map(ToString::to_string).unwrap_or_default();
            let problem = Problem::new(
                shown,
                None,
                "the configuration has no such level",
                "`sublet limits` lists those there are",
            );
            ConfigError { problems: vec![problem] }.into()
        })
    }

    /// What this host does not enforce, by key.
    pub fn unenforced(&self, key: &str) -> Option<&str> {
        let name = match key {
            "cpu_quota" | "cpu_period" | "cpu_weight" => "cpu limit",
            other => other,
        };
        let found = self.host.checks.iter().find(|check| check.name == name && !check.is_ok());
        found.map(|check| check.value.as_str())
    }
}

fn above_text(setting: &str, group: &str, limit: u64, used: u64) -> String {
    format!(
        "{setting} = \"{}\": {group} has {} in use that it does not give back; end its workers with it \
         (--end-those-above), evict them before, or write more",
        ByteSize::from_bytes(limit),
        ByteSize::from_bytes(used / 1024 * 1024),
    )
}

/// The level of the configuration that a group's limits come from.
fn level_of(owner: &Owner) -> LevelPath {
    let Ok(tenant) = Name::try_from(&**owner.tenant()) else { return LevelPath::Host };
    match owner {
        Owner::Tenant { .. } => LevelPath::Tenant(tenant),
        Owner::SubTenant { label: Some(label), .. } if !label.is_shared() => {
            LevelPath::Id(tenant, label.as_str().to_owned())
        }
        Owner::SubTenant { .. } => LevelPath::SubTenants(tenant),
        Owner::Worker { function, .. } => match Name::try_from(&**function) {
            Ok(function) => LevelPath::Function(tenant, function),
            Err(_) => LevelPath::Tenant(tenant),
        },
    }
}

/// The configuration at the start, with the text it was read from.
///
/// # Errors
/// What [`Source::read`] and [`Source::check`] refuse, or a file that others than root can change.
pub fn read(path: &Path) -> Result<(Source, Config), ConfigError> {
    let source = read_source(path)?;
    let config = source.check(&[])?;
    Ok((source, config))
}

/// Whoever writes the configuration says what root makes and what workers see. So it must be root's, at a reload too: the
/// supervisor's own id, which reads it then, is not trusted with it.
fn read_source(path: &Path) -> Result<Source, ConfigError> {
    Trusted::root_and(&[]).file(path).map_err(|error| {
        let (setting, what) = (path.display().to_string(), format!("others decide what it says: {error}"));
        let remedy = "or keep it where it is root's, such as /etc/sublet/sublet.toml";
        ConfigError { problems: vec![Problem::new(setting, None, what, remedy)] }
    })?;
    Source::read(path)
}

#[cfg(test)]
mod tests;
