//! The supervisor's own cage. It is the process that parses what callers and workers send, so it is confined like anybody
//! who does: what it had to do as root is done, what must be started is started, and then, before its first thread,
//!
//! ```text
//!  Plan --> Plan::open, as root --> rights::drop_to --> confine: rlimits, landlock, seccomp, a look from inside --> tokio, gRPC
//! ```
//! Landlock comes first, because the filters leave no call to ask for it. What it needs later has been declared by then:
//! directories that a reload reads ([`files`]), token programs (the [`runner`](crate::runner)). A reload that names anything
//! else is refused by name.
//!
//! [`policy`] is the system calls, as data; [`files`] the places; [`limits`] what the process may use. Its memory is limited
//! by its group (`cgroups::tree`).

mod files;
mod filters;
pub mod limits;
pub mod policy;

use std::{
    fs::{self, OpenOptions},
    io,
    path::{Path, PathBuf},
};

use landlock::RulesetCreated;
use seccompiler::BpfProgram;
use sublet_proto::{link::sandbox::CgroupDirs, v1::Fact};

pub use self::{
    files::{May, Place},
    filters::FilterError,
};
use crate::{
    cgroups::tree::OwnMemory,
    config::{ByteSize, Config, Problem},
};

/// Why the supervisor could not be confined. It does not go on.
#[derive(Debug, thiserror::Error)]
pub enum JailError {
    /// The policy.
    #[error("confine the supervisor: {0}")]
    Filter(#[from] FilterError),
    /// A step that the kernel refused.
    #[error("confine the supervisor: {what}: {error}")]
    Step {
        /// What was tried.
        what: &'static str,
        /// Why it failed.
        error: io::Error,
    },
    /// Something was started too early: threads that are there already would not be confined.
    #[error("confine the supervisor: {0} threads run already, and landlock would be on one of them alone")]
    Threads(String),
    /// Every step went well, and yet.
    #[error("confine the supervisor: {what} is {seen:?} afterwards, and must be {expected:?}")]
    NotInForce {
        /// What was looked at.
        what: &'static str,
        /// What was seen.
        seen: String,
        /// What must be.
        expected: String,
    },
}

fn step(what: &'static str) -> impl FnOnce(io::Error) -> JailError {
    move |error| JailError::Step { what, error }
}

/// What is to be put on.
#[derive(Clone, Debug)]
pub struct Plan {
    /// The files that can still be reached.
    pub places: Vec<Place>,
    /// Of the process.
    pub limits: Vec<limits::Limit>,
    /// The kernel's landlock; 0 without.
    pub landlock: i64,
}

impl Plan {
    /// For a supervisor. `writes_trace`: a file without an end.
    pub fn of(config: &Config, config_dir: &Path, cgroups: &CgroupDirs, writes_trace: bool) -> Self {
        Self {
            places: files::places(config, config_dir, cgroups),
            limits: limits::of(config, writes_trace || limits::is_output_a_file()),
            landlock: sublet_shim::landlock_abi(),
        }
    }

    /// Opens the places, which must be there: the supervisor may have no way to some of them once it has given up root. What
    /// it may do in them is decided by their modes as well.
    ///
    /// # Errors
    /// A place that cannot be opened, or a policy that is wrong.
    pub fn open(self) -> Result<Ready, JailError> {
        let landlock = if files::is_usable(self.landlock) { self.landlock } else { 0 };
        let ruleset = match landlock {
            0 => None,
            _ => Some(files::ruleset(&self.places).map_err(step("make rules for landlock"))?),
        };
        Ok(Ready { filters: filters::compile(std::process::id())?, ruleset, landlock, plan: self })
    }
}

/// All that [`confine`] needs.
#[derive(Debug)]
pub struct Ready {
    plan: Plan,
    filters: [BpfProgram; 3],
    ruleset: Option<RulesetCreated>,
    landlock: i64,
}

/// The directory that a configuration is read from again.
pub fn config_dir(path: &Path) -> PathBuf {
    match path.parent() {
        Some(dir) if dir != Path::new("") => dir.to_owned(),
        _ => PathBuf::from("."),
    }
}

/// What is in force.
#[derive(Clone, Debug)]
pub struct Jail {
    landlock: i64,
    filters: u32,
    places: Vec<Place>,
}

/// Confines this process: every thread it has, which must be one, and all it will have. There is no way back.
///
/// # Errors
/// The step that failed. The process must end then.
pub fn confine(ready: Ready) -> Result<Jail, JailError> {
    let Ready { plan, filters, ruleset, landlock } = ready;
    let before = Status::read().map_err(step("read /proc/self/status"))?;
    if before.threads != "1" {
        return Err(JailError::Threads(before.threads));
    }
    nix::sys::prctl::set_no_new_privs().map_err(|error| step("set no_new_privs")(error.into()))?;
    limits::set(&plan.limits).map_err(step("set a limit"))?;
    if let Some(ruleset) = ruleset {
        files::restrict(ruleset).map_err(step("restrict files by landlock"))?;
    }
    filters::install(&filters).map_err(step("install the system call filters"))?;
    let after = Status::read().map_err(step("read /proc/self/status"))?;
    let due = before.filters + u32::try_from(filters.len()).unwrap_or(u32::MAX);
    let expected = [
        ("no_new_privs", after.no_new_privs, "1".to_owned()),
        ("the seccomp mode", after.seccomp, "2".to_owned()),
        ("the number of filters", after.filters.to_string(), due.to_string()),
        (
            "opening /dev/null for writing",
            opens_null().to_owned(),
            if landlock > 0 { DENIED } else { OPENS }.to_owned(),
        ),
    ];
    for (what, seen, expected) in expected {
        if seen != expected {
            return Err(JailError::NotInForce { what, seen, expected });
        }
    }
    Ok(Jail { landlock, filters: due, places: plan.places })
}

const OPENS: &str = "possible";
const DENIED: &str = "refused";

/// Everybody may write to /dev/null, and no place of ours is there: only landlock can refuse it.
fn opens_null() -> &'static str {
    match OpenOptions::new().write(true).open("/dev/null") {
        Err(error) if error.kind() == io::ErrorKind::PermissionDenied => DENIED,
        _ => OPENS,
    }
}

/// Of this process, as the kernel tells it.
struct Status {
    threads: String,
    no_new_privs: String,
    seccomp: String,
    filters: u32,
}

impl Status {
    fn read() -> io::Result<Self> {
        let text = fs::read_to_string("/proc/self/status")?;
        let field = |name: &str| {
            let mut lines = text.lines();
            let value = lines.find_map(|line| line.strip_prefix(name)?.strip_prefix(':'));
            value.map(|value| value.trim().to_owned()).ok_or_else(|| io::Error::other(format!("it has no {name}")))
        };
        Ok(Self {
            threads: field("Threads")?,
            no_new_privs: field("NoNewPrivs")?,
            seccomp: field("Seccomp")?,
            filters: field("Seccomp_filters")?.parse().map_err(io::Error::other)?,
        })
    }
}

impl Jail {
    /// Of a process that is not confined.
    #[cfg(test)]
    pub(crate) const fn none() -> Self {
        Self { landlock: 0, filters: 0, places: Vec::new() }
    }

    /// Paths of a changed configuration that the supervisor may not read any more.
    pub fn undeclared(&self, new: &Config) -> Vec<Problem> {
        if self.landlock == 0 { Vec::new() } else { files::undeclared(&self.places, new) }
    }

    /// What is in force, for `sublet health`. `memory` is what the supervisor's group was told.
    pub fn facts(&self, memory: Option<OwnMemory>) -> Vec<Fact> {
        let fact = |name: &str, value: String, ok| Fact { name: name.to_owned(), value, ok };
        let adj = fs::read_to_string("/proc/self/oom_score_adj").unwrap_or_default().trim().to_owned();
        let is_protected = adj.parse::<i32>().is_ok_and(|adj| adj <= limits::OOM_SCORE_ADJ);
        let (memory, is_limited) = memory_in_words(memory);
        vec![
            fact("supervisor filters", format!("{} on every thread", self.filters), true),
            fact("supervisor landlock", landlock_in_words(self.landlock), self.landlock > 0),
            fact("supervisor no_new_privs", "set".into(), true),
            fact("supervisor oom_score_adj", adj, is_protected),
            fact("supervisor memory", memory, is_limited),
        ]
    }
}

/// The check of `sublet doctor` that shows [`outlook`].
pub const OUTLOOK: &str = "supervisor's jail";

/// What a supervisor that is started on this host would be confined by, for `sublet doctor`. `can_protect`: whether it
/// has the right to ask the kernel for memory before others.
pub fn outlook(landlock: i64, can_protect: bool, memory: &str) -> String {
    let landlock = landlock_in_words(if files::is_usable(landlock) { landlock } else { 0 });
    let adj = if can_protect {
        format!("oom_score_adj {}", limits::OOM_SCORE_ADJ)
    } else {
        "no oom_score_adj: without CAP_SYS_RESOURCE".to_owned()
    };
    format!("system call filters; landlock: {landlock}; no_new_privs; {adj}; memory limit {memory}")
}

fn landlock_in_words(version: i64) -> String {
    match version {
        0 => "not there: files are refused by their modes alone".to_owned(),
        4.. if version >= 6 => format!("version {version}: files, TCP, signals, abstract sockets"),
        4.. => format!("version {version}: files, TCP; no rule for signals and abstract sockets before version 6"),
        _ => format!("version {version}: files; no rule for TCP, signals and abstract sockets before versions 4 and 6"),
    }
}

fn memory_in_words(memory: Option<OwnMemory>) -> (String, bool) {
    let Some(memory) = memory else { return ("no limit: no memory controller".to_owned(), false) };
    let size = |bytes| ByteSize::from_bytes(bytes).to_string();
    let max = memory.max.map_or_else(|| "no limit".to_owned(), |max| format!("at most {}", size(max >> 20 << 20)));
    let min = match memory.min {
        Some(min) if memory.is_min_passed_on => format!("{} guaranteed", size(min)),
        Some(min) => format!("{} asked for, but the groups above guarantee less", size(min)),
        None => "no guarantee on v1".to_owned(),
    };
    (format!("{max}, {min}"), memory.max.is_some())
}
