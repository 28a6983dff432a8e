//! A worker's own group, as long as it has one: frozen and thawed in any order of threads, and what others on the host did to
//! it.

use std::{
    io,
    sync::{
        Mutex, OnceLock, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use tokio::time::Instant;

use super::host::Group;
use crate::cgroups::tree::Meddling;

/// The group of one worker.
#[derive(Debug, Default)]
pub(super) struct OwnGroup {
    group: OnceLock<Box<dyn Group>>,
    freezer: Freezer,
    /// What somebody else did to it last, and when that was seen.
    meddled: Mutex<Option<(Instant, String)>>,
    /// Why its worker is not what it was made: somebody else has removed the group.
    lost: OnceLock<String>,
}

impl OwnGroup {
    /// It has been made. False when there was one.
    pub(super) fn enter(&self, group: Box<dyn Group>) -> bool {
        self.group.set(group).is_ok()
    }

    /// None before it has been made.
    pub(super) fn get(&self) -> Option<&dyn Group> {
        self.group.get().map(|group| &**group)
    }

    /// Wants it frozen, or not. [`Self::apply_freeze`] does it.
    pub(super) fn want_frozen(&self, frozen: bool) {
        self.freezer.wanted.store(frozen, Ordering::SeqCst);
    }

    /// Whether it is still to be frozen.
    pub(super) fn is_wanted_frozen(&self) -> bool {
        self.freezer.wanted.load(Ordering::SeqCst)
    }

    /// Makes it what is wanted. Returns how long it had been frozen, when it is thawed.
    pub(super) fn apply_freeze(&self) -> io::Result<Duration> {
        match self.get() {
            Some(group) => self.freezer.apply(group),
            None => Ok(Duration::ZERO),
        }
    }

    /// Puts its switch right when somebody else has turned it. Returns what they did, and what the kernel said to that.
    pub(super) fn audit_freeze(&self) -> Option<(Meddling, io::Result<()>)> {
        self.freezer.audit(self.get()?)
    }

    /// Somebody else did this to it.
    pub(super) fn note_meddling(&self, what: String) {
        *self.meddled.lock().unwrap_or_else(PoisonError::into_inner) = Some((Instant::now(), what));
    }

    /// What somebody else has done to it since then, if that was seen.
    pub(super) fn meddled_since(&self, since: Instant) -> Option<String> {
        let meddled = self.meddled.lock().unwrap_or_else(PoisonError::into_inner);
        meddled.as_ref().filter(|(at, _)| *at >= since).map(|(_, what)| what.clone())
    }

    /// Looks whether it stands still though nobody of ours wants that. To be called before it is killed, which ends that as
    /// well.
    pub(super) fn note_frozen(&self) {
        if let Some(whose) = self.get().filter(|_| !self.is_wanted_frozen()).and_then(|group| group.frozen_by()) {
            self.note_meddling(format!("somebody else has frozen {whose}"));
        }
    }

    /// Somebody else has removed it.
    pub(super) fn lose(&self, what: String) {
        self.lost.get_or_init(|| what);
    }

    /// Why its worker had to be ended, if somebody else has removed it.
    pub(super) fn lost(&self) -> Option<&str> {
        self.lost.get().map(String::as_str)
    }
}

/// Freezing and thawing in any order of threads: the last wish wins.
#[derive(Debug, Default)]
struct Freezer {
    wanted: AtomicBool,
    /// Since when it is frozen, when it is.
    frozen: Mutex<Option<Instant>>,
}

impl Freezer {
    fn apply(&self, group: &dyn Group) -> io::Result<Duration> {
        let mut frozen = self.frozen.lock().unwrap_or_else(PoisonError::into_inner);
        let wanted = self.wanted.load(Ordering::SeqCst);
        match (wanted, *frozen) {
            (true, None) => {
                group.freeze()?;
                *frozen = Some(Instant::now());
                Ok(Duration::ZERO)
            }
            (false, Some(since)) => {
                group.thaw()?;
                *frozen = None;
                Ok(since.elapsed())
            }
            (true, Some(_)) | (false, None) => Ok(Duration::ZERO),
        }
    }

    fn audit(&self, group: &dyn Group) -> Option<(Meddling, io::Result<()>)> {
        let frozen = self.frozen.lock().unwrap_or_else(PoisonError::into_inner);
        match (frozen.is_some(), group.is_set_frozen()?) {
            (false, true) => Some((Meddling::Frozen, group.thaw())),
            (true, false) => Some((Meddling::Thawed, group.freeze())),
            (false, false) | (true, true) => None,
        }
    }
}
