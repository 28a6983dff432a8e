//! What was seen of a worker while it lives: what its init reported, and which limits have bitten since its last call was
//! delivered.

use std::sync::{Mutex, MutexGuard, PoisonError};

use super::post_mortem::FunctionEnd;
use crate::cgroups::leaf::Bites;

/// Different refused system calls that are kept of a call and of a worker; init reports no more of a call.
const REFUSED_TOLD_MAX: usize = 16;

/// Of one worker.
#[derive(Debug, Default)]
pub(super) struct Observed(Mutex<Seen>);

#[derive(Debug, Default)]
struct Seen {
    /// Names of system calls its filter refused since its last call was delivered; init reports each once and 16 at most.
    refused: Vec<String>,
    /// Those of its whole life, of which operators have been told.
    refused_ever: Vec<String>,
    function: Option<FunctionEnd>,
    /// Limits that had bitten when its last call was delivered.
    bites_before: Bites,
    /// Processes the kernel had killed for memory when its last call had ended.
    oom_kills_known: u64,
}

/// What a call that is about to be delivered finds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Before {
    /// Whether a process was killed for memory since the last call ended.
    pub(super) was_killed: bool,
    /// Whether system calls were refused since the last call was delivered.
    pub(super) were_calls_refused: bool,
}

impl Observed {
    fn seen(&self) -> MutexGuard<'_, Seen> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A call is about to be delivered: from here on it is its own that is counted. `now` is what has bitten so far.
    pub(super) fn begin_call(&self, now: Bites) -> Before {
        let mut seen = self.seen();
        seen.bites_before = now;
        let was_killed = now.oom_kills > seen.oom_kills_known;
        seen.oom_kills_known = now.oom_kills;
        Before { was_killed, were_calls_refused: !std::mem::take(&mut seen.refused).is_empty() }
    }

    /// Limits that bit since the last call was delivered; `now` is what has bitten so far.
    pub(super) fn bites_in_call(&self, now: Bites) -> Bites {
        let mut seen = self.seen();
        seen.oom_kills_known = seen.oom_kills_known.max(now.oom_kills);
        now.since(seen.bites_before)
    }

    /// Whether [`Self::bites_in_call`] has found that a process was killed for memory since the last call was delivered.
    pub(super) fn has_lost_a_process(&self) -> bool {
        let seen = self.seen();
        seen.oom_kills_known > seen.bites_before.oom_kills
    }

    /// The filter has refused a system call. Whether operators are to be told: once, for a function may make it in each of its
    /// calls.
    pub(super) fn refuse(&self, name: String) -> bool {
        let mut seen = self.seen();
        let is_first = !seen.refused_ever.contains(&name) && seen.refused_ever.len() < REFUSED_TOLD_MAX;
        if is_first {
            seen.refused_ever.push(name.clone());
        }
        if !seen.refused.contains(&name) && seen.refused.len() < REFUSED_TOLD_MAX {
            seen.refused.push(name);
        }
        is_first
    }

    /// System calls that were refused since the last call was delivered, or since the start.
    pub(super) fn refused(&self) -> Vec<String> {
        self.seen().refused.clone()
    }

    /// The function's process has ended.
    pub(super) fn function_ended(&self, end: FunctionEnd) {
        self.seen().function = Some(end);
    }

    pub(super) fn function_end(&self) -> Option<FunctionEnd> {
        self.seen().function
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn kills(oom_kills: u64) -> Bites {
        Bites { oom_kills, pids_refused: 0 }
    }

    #[test]
    fn kill_between_two_calls_is_seen_once_and_is_neither_calls() {
        let observed = Observed::default();
        assert!(!observed.begin_call(kills(0)).was_killed);
        assert_eq!(observed.bites_in_call(kills(0)), kills(0));
        let before = observed.begin_call(kills(1));
        assert!(before.was_killed && !observed.has_lost_a_process());
        assert_eq!(observed.bites_in_call(kills(1)), kills(0), "it was before this call");
        assert!(!observed.begin_call(kills(1)).was_killed, "it has been told");
    }

    #[test]
    fn kill_during_a_call_is_that_calls_alone() {
        let observed = Observed::default();
        observed.begin_call(kills(2));
        assert_eq!(observed.bites_in_call(kills(3)), kills(1));
        assert!(observed.has_lost_a_process());
        assert!(!observed.begin_call(kills(3)).was_killed, "the call before has been told");
        assert!(!observed.has_lost_a_process());
    }

    #[test]
    fn refused_calls_are_kept_once_each_and_sixteen_at_most() {
        let observed = Observed::default();
        for call in 0..20 {
            assert_eq!(observed.refuse(format!("call{call}")), call < 16);
        }
        assert!(!observed.refuse("call0".into()), "operators know it");
        assert_eq!(observed.refused().len(), 16);
        assert!(observed.begin_call(kills(0)).were_calls_refused);
        assert!(observed.refused().is_empty());
        assert!(!observed.refuse("call0".into()), "they know it still");
        assert_eq!(observed.refused(), ["call0"], "and so does this call");
    }
}
