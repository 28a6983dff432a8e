//! How much of a log is taken: so many bytes per second, and what is beyond is counted.

use std::time::{Duration, Instant};

/// Counted for each line beside its bytes: an empty one is not free.
const LINE_COST: u64 = 64;
/// What was dropped is told at most this often while it goes on.
const TELL_EVERY: Duration = Duration::from_secs(1);

/// A bucket of one second's bytes.
#[derive(Debug)]
pub struct Rate {
    per_second: u64,
    left: u64,
    filled: Instant,
    dropped: Dropped,
    /// When dropping was told last.
    told: Option<Instant>,
}

/// What did not fit.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Dropped {
    /// Lines, or parts of them.
    pub lines: u64,
    /// Their bytes.
    pub bytes: u64,
}

impl Rate {
    /// A full bucket.
    pub fn new(per_second: u64, now: Instant) -> Self {
        Self { per_second, left: per_second, filled: now, dropped: Dropped::default(), told: None }
    }

    /// Whether a line fits. One that does not is counted.
    pub fn takes(&mut self, bytes: usize, now: Instant) -> bool {
        self.fill(now);
        let cost = bytes as u64 + LINE_COST;
        if cost <= self.left {
            self.left -= cost;
            return true;
        }
        self.dropped.lines += 1;
        self.dropped.bytes += bytes as u64;
        false
    }

    fn fill(&mut self, now: Instant) {
        let since = now.saturating_duration_since(self.filled);
        let more = u128::from(self.per_second) * since.as_nanos() / 1_000_000_000;
        // Less than one byte's time is kept for later.
        if more > 0 {
            self.left = u64::try_from(more).unwrap_or(u64::MAX).saturating_add(self.left).min(self.per_second);
            self.filled = now;
        }
    }

    /// What has been dropped and not told yet, when it is time to tell.
    pub fn due(&mut self, now: Instant) -> Option<Dropped> {
        let is_time = self.told.is_none_or(|told| now.saturating_duration_since(told) >= TELL_EVERY);
        if is_time { self.untold(now) } else { None }
    }

    /// What has been dropped and not told yet.
    pub fn untold(&mut self, now: Instant) -> Option<Dropped> {
        let dropped = std::mem::take(&mut self.dropped);
        (dropped != Dropped::default()).then(|| {
            self.told = Some(now);
            dropped
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bucket_takes_a_seconds_bytes_at_once_and_then_as_time_goes() {
        let start = Instant::now();
        let mut rate = Rate::new(1000, start);
        assert!(rate.takes(900, start));
        assert!(!rate.takes(900, start));
        assert!(rate.takes(900, start + Duration::from_secs(1)));
        assert!(!rate.takes(500, start + Duration::from_millis(1500)));
        assert!(rate.takes(400, start + Duration::from_millis(1500)), "a shorter one fits");
        assert_eq!(rate.untold(start), Some(Dropped { lines: 2, bytes: 1400 }));
        assert_eq!(rate.untold(start), None);
    }

    #[test]
    fn dropping_is_told_once_a_second() {
        let start = Instant::now();
        let mut rate = Rate::new(100, start);
        rate.takes(1000, start);
        assert!(rate.due(start).is_some());
        rate.takes(1000, start);
        assert_eq!(rate.due(start + Duration::from_millis(999)), None);
        assert_eq!(rate.due(start + Duration::from_secs(1)), Some(Dropped { lines: 1, bytes: 1000 }));
    }

    #[test]
    fn many_small_steps_fill_as_much_as_one() {
        let start = Instant::now();
        let mut rate = Rate::new(1000, start);
        assert!(rate.takes(936, start));
        for step in 1..=100_000_u64 {
            rate.fill(start + Duration::from_micros(step));
        }
        assert!((99..=100).contains(&rate.left), "{} of 100 after 100 ms", rate.left);
    }
}
