//! How often a group's own memory limit bit: what tells a worker's limit from its sub-tenant's and its tenant's.
//!
//! v2 counts it for each group (memory.events.local, "oom"). v1 counts only whom the kernel killed; but whoever listens to a
//! group's out-of-memory events hears those of the groups above as well, so that what was heard here and not above is
//! the group's own.

use std::{
    fs::{self, File},
    io,
    os::fd::{AsRawFd, OwnedFd},
    path::{Path, PathBuf},
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use nix::sys::eventfd::{EfdFlags, EventFd};

use super::{host::Controller, leaf::Leaf, limits::Directories};

/// An event explains deaths that are looked at so long after it was taken in: the kernel may kill several for one.
const EXPLAINS: Duration = Duration::from_secs(2);

/// The count of one group.
#[derive(Debug)]
pub struct OomCount {
    source: Source,
    taken: Mutex<Taken>,
}

#[derive(Debug)]
enum Source {
    /// v2: the file that counts.
    Unified(PathBuf),
    /// v1: heard since the group was made.
    Heard { event: EventFd, total: AtomicU64, above: Option<(Arc<OomCount>, u64)> },
    /// v1, of a worker: what no level above explains is its own.
    Rest,
    /// It cannot be counted.
    Nowhere,
}

/// Events that have explained a death.
#[derive(Debug, Default)]
struct Taken {
    count: u64,
    last: Option<Instant>,
}

impl OomCount {
    fn new(source: Source) -> Self {
        Self { source, taken: Mutex::default() }
    }

    /// Of a level. `above` is that of the group it is in.
    pub fn of_level(directories: &Directories, above: Option<Arc<Self>>) -> Self {
        let Some((_, dir, unified)) = directories.iter().find(|(controller, ..)| *controller == Controller::Memory)
        else {
            return Self::new(Source::Nowhere);
        };
        if *unified {
            return Self::new(Source::Unified(dir.join("memory.events.local")));
        }
        match listen(dir) {
            Ok(event) => {
                let above = above.map(|above| {
                    let heard = above.heard();
                    (above, heard)
                });
                Self::new(Source::Heard { event, total: AtomicU64::new(0), above })
            }
            Err(error) => {
                tracing::warn!(group = %dir.display(), %error, "its out-of-memory events cannot be heard; they will be told as the worker's");
                Self::new(Source::Nowhere)
            }
        }
    }

    /// Of a worker's group.
    pub fn of_leaf(leaf: &Leaf) -> Self {
        Self::new(leaf.memory_events_local().map_or(Source::Rest, Source::Unified))
    }

    /// Everything heard so far.
    fn heard(&self) -> u64 {
        match &self.source {
            Source::Heard { event, total, .. } => {
                // Nothing new is an error of reading, and no news.
                let new = event.read().unwrap_or(0);
                total.fetch_add(new, Ordering::SeqCst) + new
            }
            Source::Unified(_) | Source::Rest | Source::Nowhere => 0,
        }
    }

    /// Times its own limit bit since it was made.
    pub fn own(&self) -> u64 {
        match &self.source {
            Source::Unified(file) => fs::read_to_string(file).ok().and_then(|text| keyed(&text, "oom")).unwrap_or(0),
            Source::Heard { above, .. } => {
                // Above first: an event that comes in between is then one too many here for a moment, and never one too few.
                let from_above = above.as_ref().map_or(0, |(above, before)| above.heard().saturating_sub(*before));
                self.heard().saturating_sub(from_above)
            }
            Source::Rest | Source::Nowhere => 0,
        }
    }

    /// Whether its own limit explains a death that is looked at now. All events so far explain this one: the kernel may tell
    /// of one death several times. Others that follow at once are explained by [`Self::explained_lately`].
    pub fn explains(&self) -> bool {
        let own = self.own();
        let mut taken = self.taken.lock().unwrap_or_else(PoisonError::into_inner);
        if own > taken.count {
            taken.count = own;
            taken.last = Some(Instant::now());
            return true;
        }
        false
    }

    /// Whether deaths that no level explains are this group's.
    pub const fn is_rest(&self) -> bool {
        matches!(self.source, Source::Rest | Source::Nowhere)
    }

    /// Whether it explained another death a moment ago.
    pub fn explained_lately(&self) -> bool {
        let taken = self.taken.lock().unwrap_or_else(PoisonError::into_inner);
        taken.last.is_some_and(|last| last.elapsed() < EXPLAINS)
    }
}

pub(crate) fn keyed(text: &str, key: &str) -> Option<u64> {
    text.lines().find_map(|line| line.strip_prefix(key)?.strip_prefix(' ')?.trim().parse().ok())
}

/// Asks v1 to be told of a group's out-of-memory events, and of those of the groups above.
fn listen(dir: &Path) -> io::Result<EventFd> {
    let event = EventFd::from_flags(EfdFlags::EFD_CLOEXEC | EfdFlags::EFD_NONBLOCK)?;
    // The kernel keeps what it needs of it; it may be closed.
    let control: OwnedFd = File::open(dir.join("memory.oom_control"))?.into();
    let words = format!("{} {}", event.as_raw_fd(), control.as_raw_fd());
    fs::write(dir.join("cgroup.event_control"), words)?;
    Ok(event)
}
