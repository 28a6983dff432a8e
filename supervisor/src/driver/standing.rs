//! What a call would get if it came now: what health is made of.
//!
//! Pure: the driver says what it knows, and is told whether the whole, or one function, is worth calling.
//!
//! | not serving | until |
//! |---|---|
//! | the whole: stops, drains, no nursery, the group of all workers removed or frozen | that is over |
//! | the whole: it has functions and none of them serves | one does |
//! | a function: its last starts failed, and no worker of it is ready | one starts, or a minute has passed without a start |
//! | a function: its shared workers, or two sub-tenants and all that call it, back off | a clean answer, or it is forgotten |
//!
//! One sub-tenant that backs off alone says nothing about the others: by its payloads, one customer could have a load balancer
//! take the function away from all.

use std::{fmt, time::Duration};

use sublet_pool::{FAILURES_BEFORE_BACKOFF, Outlook};
use tokio::time::Instant;

use crate::cgroups::tree::PoolTrouble;

/// Failed starts say nothing any more after so long without a start. Whoever sends no calls while a function does not serve
/// would never hear that it has been repaired; with the next one that fails it stops serving again.
const STARTS_DOUBTED: Duration = Duration::from_secs(60);
/// Sub-tenants that back off before it is the function's doing.
const BACKING_OFF_MIN: u32 = 2;

/// Why calls are not worth sending.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Why {
    /// The supervisor is about to end.
    Stopping,
    /// An operator has it drained.
    Draining,
    /// Nobody makes workers.
    NurseryGone,
    /// The group of all workers is gone or frozen.
    Pool(PoolTrouble),
    /// No function serves.
    NoFunctionServes,
    /// So many starts in a row have failed.
    StartsFail(u32),
    /// Its workers keep failing, of so many sub-tenants.
    BacksOff(u32),
    /// Its shared workers keep failing.
    SharedBacksOff,
}

impl fmt::Display for Why {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Stopping => f.write_str("the supervisor stops"),
            Self::Draining => f.write_str("drained; `sublet undrain` takes calls again"),
            Self::NurseryGone => f.write_str("the nursery is gone: no worker can be made"),
            Self::Pool(PoolTrouble::Removed) => {
                f.write_str("somebody else has removed the group of all workers; restart sublet")
            }
            Self::Pool(PoolTrouble::Frozen) => {
                f.write_str("somebody else has frozen the group of all workers; only root can thaw it")
            }
            Self::NoFunctionServes => f.write_str("no function serves"),
            Self::StartsFail(count) => write!(f, "its last {count} starts failed"),
            Self::BacksOff(1) => f.write_str("the only sub-tenant that calls it backs off"),
            Self::BacksOff(count) => write!(f, "all {count} sub-tenants that call it back off"),
            Self::SharedBacksOff => f.write_str("its shared workers back off"),
        }
    }
}

/// What is known of something that can be asked for by name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Standing {
    /// Calls are worth sending.
    Serving,
    /// They would not be served.
    NotServing(Why),
    /// There is nothing of the name.
    Unknown,
}

impl From<Option<Why>> for Standing {
    fn from(why: Option<Why>) -> Self {
        why.map_or(Self::Serving, Self::NotServing)
    }
}

/// What the supervisor knows of itself.
#[derive(Clone, Copy, Debug, Default)]
pub struct Whole {
    /// It has been told to end.
    pub is_stopping: bool,
    /// It takes no calls.
    pub is_draining: bool,
    /// There is no nursery.
    pub is_nursery_gone: bool,
    /// The group of all workers is not as it should be.
    pub pool: Option<PoolTrouble>,
    /// Functions that calls may name.
    pub functions: usize,
    /// Those of them that do not serve.
    pub failing: usize,
}

impl Whole {
    /// What stands in the way of every call, whichever function it names.
    pub fn in_the_way(self) -> Option<Why> {
        match self {
            Self { is_stopping: true, .. } => Some(Why::Stopping),
            Self { is_draining: true, .. } => Some(Why::Draining),
            Self { is_nursery_gone: true, .. } => Some(Why::NurseryGone),
            Self { pool: Some(trouble), .. } => Some(Why::Pool(trouble)),
            Self { .. } => None,
        }
    }

    /// Why no call is served.
    pub fn why(self) -> Option<Why> {
        let none_serves = self.functions > 0 && self.failing >= self.functions;
        self.in_the_way().or(none_serves.then_some(Why::NoFunctionServes))
    }
}

/// The starts of a function's revision.
#[derive(Clone, Copy, Debug, Default)]
pub struct Starts {
    failed: u32,
    last: Option<Instant>,
}

impl Starts {
    /// One failed, of whomever.
    pub fn fail(&mut self, now: Instant) {
        *self = Self { failed: self.failed.saturating_add(1), last: Some(now) };
    }

    /// So many in a row have failed, and not long ago.
    fn failing(self, now: Instant) -> Option<u32> {
        let is_recent = self.last.is_some_and(|last| now.saturating_duration_since(last) < STARTS_DOUBTED);
        (is_recent && self.failed >= FAILURES_BEFORE_BACKOFF).then_some(self.failed)
    }
}

/// Why a function does not serve, if it does not.
pub fn of_function(starts: Starts, outlook: Outlook, now: Instant) -> Option<Why> {
    // Whoever has a worker that answers is served, and others may be.
    if outlook.serving > 0 {
        return None;
    }
    if let Some(failed) = starts.failing(now) {
        return Some(Why::StartsFail(failed));
    }
    match outlook {
        Outlook { shared_backs_off: true, .. } => Some(Why::SharedBacksOff),
        Outlook { backing_off: BACKING_OFF_MIN.., .. } => Some(Why::BacksOff(outlook.backing_off)),
        Outlook { .. } => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn failed(times: u32, now: Instant) -> Starts {
        let mut starts = Starts::default();
        for _ in 0..times {
            starts.fail(now);
        }
        starts
    }

    #[test]
    fn whole_names_the_nearest_end_first_and_serves_while_one_function_does() {
        let fine = Whole { functions: 2, failing: 1, ..Whole::default() };
        assert_eq!(fine.why(), None);
        assert_eq!(Whole { failing: 2, ..fine }.why(), Some(Why::NoFunctionServes));
        assert_eq!(Whole { functions: 0, failing: 0, ..fine }.why(), None, "functions may come by a reload");
        let mut all = Whole { is_stopping: true, is_draining: true, is_nursery_gone: true, failing: 2, ..fine };
        assert_eq!(all.why(), Some(Why::Stopping));
        all.is_stopping = false;
        assert_eq!(all.why(), Some(Why::Draining));
        all.is_draining = false;
        all.pool = Some(PoolTrouble::Frozen);
        assert_eq!([all.why(), all.in_the_way()], [Some(Why::NurseryGone); 2]);
        all.is_nursery_gone = false;
        assert_eq!([all.why(), all.in_the_way()], [Some(Why::Pool(PoolTrouble::Frozen)); 2]);
    }

    #[test]
    fn function_whose_every_start_fails_does_not_serve_until_one_starts_or_nobody_has_tried_for_long() {
        let (now, none) = (Instant::now(), Outlook::default());
        assert_eq!(of_function(failed(2, now), none, now), None);
        let mut starts = failed(3, now);
        assert_eq!(of_function(starts, none, now), Some(Why::StartsFail(3)));
        assert_eq!(of_function(starts, Outlook { serving: 1, ..none }, now), None);
        assert_eq!(of_function(Starts::default(), none, now), None);
        let later = now + STARTS_DOUBTED;
        assert_eq!(of_function(starts, none, later), None);
        starts.fail(later);
        assert_eq!(of_function(starts, none, later), Some(Why::StartsFail(4)));
    }

    #[test]
    fn one_customer_takes_the_function_away_from_nobody() {
        let now = Instant::now();
        let outlook = |backing_off, serving| Outlook { serving, backing_off, shared_backs_off: false };
        let of = |outlook| of_function(Starts::default(), outlook, now);
        assert_eq!(of(outlook(1, 0)), None);
        assert_eq!(of(outlook(2, 1)), None);
        assert_eq!(of(outlook(2, 0)), Some(Why::BacksOff(2)));
        let shared = Outlook { shared_backs_off: true, ..outlook(1, 0) };
        assert_eq!(of(shared), Some(Why::SharedBacksOff));
    }
}
