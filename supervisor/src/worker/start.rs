//! How a worker's start goes: how far it has come, what was found on the way, and why it failed if it did.

use std::{
    sync::{Mutex, MutexGuard, OnceLock, PoisonError},
    time::Duration,
};

use bytes::Bytes;
use sublet_pool::Blame;
use sublet_proto::link::step::StepId;

use super::{
    host::Inspection,
    posture::{Fact, Recheck},
};
use crate::{
    config::{Layout, format_duration},
    token::ProviderError,
};

/// Why a worker could not be started.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum StartFailure {
    /// The function is at fault: it is missing, not executable, ended early or was never ready.
    Theirs {
        /// What happened, in words for its callers: no path of the host is in them.
        message: String,
        /// What only operators are told; empty when there is no more to tell.
        detail: String,
        /// The setting to look at.
        setting: &'static str,
        /// What its runtime said of it; empty when nothing.
        said: Bytes,
    },
    /// Its sub-tenant's token could not be had.
    Token(ProviderError),
    /// The host or sublet itself is at fault.
    Ours(String),
}

impl StartFailure {
    /// Whose fault it is.
    pub const fn blame(&self) -> Blame {
        match self {
            Self::Theirs { .. } | Self::Token(_) => Blame::Theirs,
            Self::Ours(_) => Blame::Ours,
        }
    }

    pub(super) fn theirs(setting: &'static str, message: String) -> Self {
        Self::Theirs { message, detail: String::new(), setting, said: Bytes::new() }
    }

    pub(super) fn ours<E: std::fmt::Display>(error: E) -> Self {
        Self::Ours(error.to_string())
    }

    /// A step of the plan has failed, which prints as `step`. `is_shortage`: the host lacks what it takes.
    pub(super) fn of_step(id: StepId, what: String, is_shortage: bool, layout: &Layout) -> Self {
        match setting_at_fault(id, layout).filter(|_| !is_shortage) {
            // The step names the directory on the host, which is the operator's business alone.
            Some(setting) => Self::Theirs {
                message: format!("the {setting} of its configuration cannot be used as it is now"),
                detail: what,
                setting,
                said: Bytes::new(),
            },
            None => Self::Ours(what),
        }
    }
}

/// The setting to look at when a step has failed through the function's configuration; none when the host or sublet is at
/// fault.
fn setting_at_fault(failed: StepId, layout: &Layout) -> Option<&'static str> {
    match layout {
        _ if failed == StepId::MountFunction => Some("dir"),
        Layout::Dir(_) if failed.needs_mount_point() => Some("root"),
        Layout::Dir(_) | Layout::Host | Layout::Static => None,
    }
}

/// How far a start has come.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum Stage {
    #[default]
    Group,
    Sandbox,
    Confining,
    Checking,
    Waiting,
    Token,
    Loading,
}

impl Stage {
    /// In words for a start that takes too long.
    const fn words(self) -> &'static str {
        match self {
            Self::Group => "its group is being made",
            Self::Sandbox => "its sandbox is being made",
            Self::Confining => "its sandbox is being confined",
            Self::Checking => "its sandbox is being checked from outside",
            Self::Waiting => "its function has not been started",
            Self::Token => "its token has been asked for and is not there",
            Self::Loading => "it has been started and has not said READY",
        }
    }

    /// Whether nobody but sublet and the host has had a hand in it.
    const fn is_ours(self) -> bool {
        match self {
            Self::Group | Self::Sandbox | Self::Confining | Self::Checking => true,
            Self::Waiting | Self::Token | Self::Loading => false,
        }
    }
}

/// One worker's start.
#[derive(Debug, Default)]
pub(super) struct StartRecord {
    progress: Mutex<Progress>,
    /// Host pid of its init, once born.
    pid: OnceLock<u32>,
    inspection: OnceLock<Inspection>,
    /// From its owner to READY.
    took: OnceLock<Duration>,
}

#[derive(Debug, Default)]
struct Progress {
    stage: Stage,
    failure: Option<StartFailure>,
}

impl StartRecord {
    fn progress(&self) -> MutexGuard<'_, Progress> {
        self.progress.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn reach(&self, stage: Stage) {
        self.progress().stage = stage;
    }

    /// Notes why it failed, if nothing has said why before. Returns what counts.
    pub(super) fn fail(&self, failure: StartFailure) -> StartFailure {
        self.progress().failure.get_or_insert(failure).clone()
    }

    /// Why it failed; that it took too long when nothing says more.
    pub(super) fn failure(&self, limit: Duration) -> StartFailure {
        let progress = self.progress();
        progress.failure.clone().unwrap_or_else(|| {
            let message = format!("it was not ready within {}: {}", format_duration(limit), progress.stage.words());
            match progress.stage.is_ours() {
                true => StartFailure::Ours(message),
                false => StartFailure::theirs("start_timeout", message),
            }
        })
    }

    pub(super) fn born(&self, pid: u32) {
        self.pid.get_or_init(|| pid);
    }

    pub(super) fn pid(&self) -> Option<u32> {
        self.pid.get().copied()
    }

    pub(super) fn inspected(&self, inspection: Inspection) -> &Inspection {
        self.inspection.get_or_init(|| inspection)
    }

    pub(super) fn facts(&self) -> &[Fact] {
        self.inspection.get().map_or(&[], |inspection| inspection.facts.as_slice())
    }

    pub(super) fn recheck(&self) -> Option<&Recheck> {
        Some(&self.inspection.get()?.recheck)
    }

    pub(super) fn is_ready(&self, took: Duration) {
        self.took.get_or_init(|| took);
    }

    pub(super) fn took(&self) -> Option<Duration> {
        self.took.get().copied()
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;
    use crate::config::HostPath;

    #[test]
    fn failed_step_is_the_functions_fault_only_where_its_configuration_names_the_path() {
        let dir = Layout::Dir(HostPath::resolve("/srv/root", Path::new("/")).unwrap());
        for layout in [&Layout::Host, &Layout::Static, &dir] {
            assert_eq!(setting_at_fault(StepId::MountFunction, layout), Some("dir"));
            for ours in [StepId::PrivatePropagation, StepId::LimitCounters, StepId::ProveLandlock, StepId::Seccomp] {
                assert_eq!(setting_at_fault(ours, layout), None, "{ours:?}");
            }
        }
        for mount in
            [StepId::MountRoot, StepId::MountDev, StepId::MountProcAndSys, StepId::MountTmp, StepId::MountToken]
        {
            assert_eq!(setting_at_fault(mount, &dir), Some("root"), "{mount:?}");
            assert_eq!(setting_at_fault(mount, &Layout::Host), None, "{mount:?}");
        }
        let failure = |is_shortage| StartFailure::of_step(StepId::MountFunction, "why".into(), is_shortage, &dir);
        assert!(matches!(failure(false), StartFailure::Theirs { setting: "dir", detail, .. } if detail == "why"));
        assert_eq!(failure(true), StartFailure::Ours("why".into()), "the host lacks what it takes");
    }

    #[test]
    fn start_that_takes_too_long_is_ours_until_the_function_or_its_provider_has_a_hand_in_it() {
        let limit = Duration::from_secs(3);
        let stages = [
            (Stage::Group, true, "group is being made"),
            (Stage::Sandbox, true, "sandbox is being made"),
            (Stage::Confining, true, "confined"),
            (Stage::Checking, true, "checked from outside"),
            (Stage::Waiting, false, "has not been started"),
            (Stage::Token, false, "token has been asked for"),
            (Stage::Loading, false, "not said READY"),
        ];
        for (stage, is_ours, words) in stages {
            let record = StartRecord::default();
            record.reach(stage);
            let failure = record.failure(limit);
            assert_eq!(failure.blame() == Blame::Ours, is_ours, "{stage:?}");
            match failure {
                StartFailure::Ours(message) | StartFailure::Theirs { message, setting: "start_timeout", .. } => {
                    assert!(message.contains(words) && message.contains("within 3s"), "{message}");
                }
                other @ (StartFailure::Theirs { .. } | StartFailure::Token(_)) => panic!("{other:?}"),
            }
        }
    }

    #[test]
    fn what_was_said_first_of_a_failed_start_counts() {
        let record = StartRecord::default();
        let first = StartFailure::Ours("first".into());
        assert_eq!(record.fail(first.clone()), first);
        assert_eq!(record.fail(StartFailure::Ours("second".into())), first);
        assert_eq!(record.failure(Duration::ZERO), first);
    }
}
