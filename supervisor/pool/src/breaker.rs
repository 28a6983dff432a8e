//! A key whose workers keep failing: makes none for a while, then one to see, then goes on or waits longer.
//!
//! ```text
//!  closed --third failure in a row--> open --its time is over--> half open: one trial --clean answer--> closed
//!                                      ^                              |
//!                                      '-- failure, twice as long ----'
//! ```

use std::time::Duration;

use crate::time::Tick;

/// Failures in a row after which a key backs off.
pub const FAILURES_BEFORE_BACKOFF: u32 = 3;
/// First back-off; doubles with each further failure.
pub const BACKOFF_FIRST: Duration = Duration::from_millis(100);
/// Longest back-off.
pub const BACKOFF_MAX: Duration = Duration::from_secs(30);

/// The failures of one key.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Breaker {
    failures: u32,
    /// When the last failure was.
    at: Tick,
}

impl Breaker {
    fn pause(self) -> Option<Duration> {
        let over = self.failures.checked_sub(FAILURES_BEFORE_BACKOFF)?;
        Some(BACKOFF_FIRST.saturating_mul(1_u32.checked_shl(over).unwrap_or(u32::MAX)).min(BACKOFF_MAX))
    }

    /// When a trial may be made; none while closed.
    pub fn open_until(self) -> Option<Tick> {
        self.pause().map(|pause| self.at + pause)
    }

    /// How much longer no worker is made.
    pub fn is_open_for(self, now: Tick) -> Option<Duration> {
        self.open_until().filter(|until| *until > now).map(|until| until.since(now))
    }

    /// Whether only one trial may be made at a time.
    pub fn is_on_trial(self, now: Tick) -> bool {
        self.open_until().is_some_and(|until| until <= now)
    }

    /// Counts a failure; true when the key backs off from now on.
    pub fn fail(&mut self, now: Tick) -> bool {
        self.forget(now);
        *self = Self { failures: self.failures.saturating_add(1), at: now };
        self.pause().is_some()
    }

    /// Forgets all failures, after a clean answer.
    pub fn close(&mut self) {
        *self = Self::default();
    }

    /// Whether there is anything to remember. Long after the last failure nothing is.
    pub fn remembers(self, now: Tick) -> bool {
        self.failures > 0 && now < self.forget_at()
    }

    /// Closes when the last failure is long past: a key that is kept for its workers forgets like one that is dropped.
    pub fn forget(&mut self, now: Tick) {
        if !self.remembers(now) {
            self.close();
        }
    }

    /// When the failures are forgotten.
    pub fn forget_at(self) -> Tick {
        self.at + (self.pause().unwrap_or_default() + BACKOFF_MAX)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pause_doubles_to_its_bound_and_one_clean_answer_ends_it() {
        let mut breaker = Breaker::default();
        assert_eq!([breaker.fail(Tick(0)), breaker.fail(Tick(0)), breaker.fail(Tick(0))], [false, false, true]);
        assert_eq!(breaker.is_open_for(Tick(0)), Some(BACKOFF_FIRST));
        assert!(breaker.is_on_trial(Tick(0) + BACKOFF_FIRST));
        breaker.fail(Tick(0));
        assert_eq!(breaker.is_open_for(Tick(0)), Some(2 * BACKOFF_FIRST));
        for _ in 0..100 {
            breaker.fail(Tick(0));
        }
        assert_eq!(breaker.is_open_for(Tick(0)), Some(BACKOFF_MAX));
        assert!(!breaker.remembers(breaker.forget_at()));
        assert!(!breaker.clone().fail(breaker.forget_at()), "the row begins anew");
        breaker.fail(Tick(0));
        breaker.close();
        assert_eq!(breaker, Breaker::default());
    }
}
