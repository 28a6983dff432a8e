//! Whether the supervisor's own loop runs, and how late it is.
//!
//! Every call, every deadline and every stop needs the loop, so nothing that runs in it can say that it stands still. It
//! says the opposite instead, ten times a second, and others draw conclusions when that stays out:
//! ```text
//!  [beat] in the loop: takes the scheduler's lock, notes how late it is --+--> [notify] WATCHDOG=1 --> systemd, which restarts us
//!                                                                         +--> [watch], a thread   --> the operator's log
//! ```
//! `sublet health` shows the lateness, and says of a supervisor that does not answer whether it is stopped.

pub mod notify;
mod watch;

use std::{
    collections::VecDeque,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use self::notify::Notify;
use crate::driver::Driver;

pub use self::watch::start as watch;

/// How often the loop shows that it runs.
const BEAT: Duration = Duration::from_millis(100);
/// Beats that are remembered: a minute's.
const REMEMBERED: usize = 600;

/// How late beats were.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Lateness {
    /// Of the last minute: half of the beats were no later.
    pub p50: Duration,
    /// Of the last minute: 99 of 100 were no later.
    pub p99: Duration,
    /// The latest of the last minute.
    pub max: Duration,
    /// The latest since the start.
    pub longest: Duration,
}

#[derive(Debug, Default)]
struct Beats {
    last: VecDeque<Duration>,
    longest: Duration,
}

impl Beats {
    fn note(&mut self, late: Duration) {
        self.longest = self.longest.max(late);
        // Beats that were due meanwhile were late as well: without them, a loop that stands still for a minute would show up
        // as one late beat among the hundreds before it.
        let mut next = Some(late);
        for _ in 0..REMEMBERED {
            let Some(late) = next else { break };
            if self.last.len() == REMEMBERED {
                self.last.pop_front();
            }
            self.last.push_back(late);
            next = late.checked_sub(BEAT);
        }
    }

    fn lateness(&self) -> Lateness {
        let mut sorted: Vec<Duration> = self.last.iter().copied().collect();
        sorted.sort_unstable();
        let at = |percent: usize| {
            let rank = (sorted.len() * percent).div_ceil(100);
            sorted.get(rank.saturating_sub(1)).copied().unwrap_or_default()
        };
        Lateness { p50: at(50), p99: at(99), max: at(100), longest: self.longest }
    }
}

/// What the loop has shown.
#[derive(Debug)]
pub struct Pulse {
    origin: Instant,
    /// Of the last beat, in nanoseconds since `origin`.
    last: AtomicU64,
    beats: Mutex<Beats>,
}

impl Default for Pulse {
    fn default() -> Self {
        Self { origin: Instant::now(), last: AtomicU64::new(0), beats: Mutex::default() }
    }
}

impl Pulse {
    fn note(&self, now: Instant, late: Duration) {
        let nanos = u64::try_from(now.saturating_duration_since(self.origin).as_nanos()).unwrap_or(u64::MAX);
        self.last.store(nanos, Ordering::Relaxed);
        self.beats.lock().unwrap_or_else(PoisonError::into_inner).note(late);
    }

    /// When the loop was last seen to run.
    fn last(&self) -> Instant {
        self.origin + Duration::from_nanos(self.last.load(Ordering::Relaxed))
    }

    /// How late it has been.
    pub fn lateness(&self) -> Lateness {
        self.beats.lock().unwrap_or_else(PoisonError::into_inner).lateness()
    }
}

/// Beats for as long as the loop runs. Timers count whole milliseconds: a beat that is one late is as good as it gets.
pub async fn beat(pulse: Arc<Pulse>, driver: Arc<Driver>, notify: Option<Arc<Notify>>) {
    let every = notify.as_ref().and_then(|notify| notify.beats_every()).map_or(BEAT, |every| every.min(BEAT));
    loop {
        let due = Instant::now() + every;
        tokio::time::sleep_until(due.into()).await;
        // Whoever holds that lock for long holds up every call: then there is no beat either.
        driver.counts();
        let now = Instant::now();
        pulse.note(now, now.saturating_duration_since(due));
        if let Some(notify) = &notify {
            notify.beat(now);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MILLI: Duration = Duration::from_millis(1);

    #[test]
    fn lateness_is_of_the_last_minute_and_the_longest_of_all() {
        let mut beats = Beats::default();
        assert_eq!(beats.lateness(), Lateness::default());
        beats.note(50 * MILLI);
        for late in 1..=REMEMBERED as u32 {
            beats.note(late * MILLI / 10);
        }
        let expected = Lateness { p50: 30 * MILLI, p99: 594 * MILLI / 10, max: 60 * MILLI, longest: 60 * MILLI };
        assert_eq!(beats.lateness(), expected);
        for _ in 0..REMEMBERED {
            beats.note(MILLI);
        }
        assert_eq!(beats.lateness(), Lateness { p50: MILLI, p99: MILLI, max: MILLI, longest: 60 * MILLI });
    }

    #[test]
    fn beats_that_stayed_out_count_as_late_ones_and_are_bounded() {
        let mut beats = Beats::default();
        beats.note(5 * BEAT + MILLI);
        let found: Vec<Duration> = beats.last.iter().copied().collect();
        assert_eq!(found, (0..=5).rev().map(|times| times * BEAT + MILLI).collect::<Vec<_>>());
        beats.note(Duration::from_secs(3600));
        assert_eq!(beats.last.len(), REMEMBERED);
        assert!(beats.lateness().p50 > Duration::from_secs(3500), "{:?}", beats.lateness());
    }
}
