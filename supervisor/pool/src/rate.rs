//! Token buckets: so many calls per second, and so many at once after a pause.

use std::time::Duration;

use crate::time::Tick;

/// One token, in the unit buckets count in: a call at one call per second refills in one second of nanoseconds.
const TOKEN: u64 = 1_000_000_000;

/// Calls accepted per second.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rate {
    /// Calls per second over time; never 0.
    pub per_second: u32,
    /// Calls at once after a pause; never 0.
    pub burst: u32,
}

/// What is left of a rate. A bucket that nobody took from for long is full, and equal to one that was never used.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Bucket {
    /// Taken and not yet refilled, in [`TOKEN`]s; so that a new bucket is full under every rate, and a change of the rate
    /// needs no repair.
    taken: u64,
    at: Tick,
}

impl Bucket {
    fn taken_at(self, now: Tick, rate: Rate) -> u64 {
        let refilled = u128::from(now.since(self.at).as_nanos() as u64) * u128::from(rate.per_second);
        u64::try_from(u128::from(self.taken).saturating_sub(refilled)).unwrap_or(0)
    }

    /// Checks whether a call may pass now.
    ///
    /// # Errors
    /// How long it is until one may.
    pub fn check(self, now: Tick, rate: Rate) -> Result<(), Duration> {
        let room = (u64::from(rate.burst) - 1) * TOKEN;
        let over = self.taken_at(now, rate).saturating_sub(room);
        if over == 0 { Ok(()) } else { Err(Duration::from_nanos(over.div_ceil(u64::from(rate.per_second)))) }
    }

    /// Lets a call pass that [`Self::check`] allowed.
    pub fn take(&mut self, now: Tick, rate: Rate) {
        *self = Self { taken: self.taken_at(now, rate) + TOKEN, at: now };
    }

    /// When it is full again; none if it is.
    pub fn full_at(self, now: Tick, rate: Rate) -> Option<Tick> {
        let taken = self.taken_at(now, rate);
        (taken > 0).then(|| now + Duration::from_nanos(taken.div_ceil(u64::from(rate.per_second))))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const RATE: Rate = Rate { per_second: 10, burst: 3 };

    fn at(millis: u64) -> Tick {
        Tick(millis * 1_000_000)
    }

    #[test]
    fn burst_passes_at_once_and_then_the_rate_holds() {
        let mut bucket = Bucket::default();
        for _ in 0..3 {
            assert_eq!(bucket.check(at(0), RATE), Ok(()));
            bucket.take(at(0), RATE);
        }
        assert_eq!(bucket.check(at(0), RATE), Err(Duration::from_millis(100)));
        assert_eq!(bucket.check(at(99), RATE), Err(Duration::from_millis(1)));
        assert_eq!(bucket.check(at(100), RATE), Ok(()));
    }

    #[test]
    fn bucket_is_full_again_after_a_pause_and_never_more_than_full() {
        let mut bucket = Bucket::default();
        bucket.take(at(0), RATE);
        assert_eq!(bucket.full_at(at(0), RATE), Some(at(100)));
        assert_eq!(bucket.full_at(at(100), RATE), None);
        let passed = (0..10)
            .filter(|_| {
                let passes = bucket.check(at(1_000_000), RATE).is_ok();
                if passes {
                    bucket.take(at(1_000_000), RATE);
                }
                passes
            })
            .count();
        assert_eq!(passed, 3);
    }
}
