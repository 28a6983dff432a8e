//! How many cells a function's misses call for: a quarter of those of the last half minute, and one at least while there was
//! a miss in the last minute or so.

use std::time::Duration;

use crate::time::Tick;

/// In this time half of the misses are forgotten.
const HALF_LIFE: Duration = Duration::from_secs(30);
/// One cell for so many remembered misses.
const MISSES_PER_CELL: f64 = 4.0;
/// Fewer misses are none.
const MISSES_MIN: f64 = 0.25;

/// The misses of one function, of which half are forgotten in each [`HALF_LIFE`].
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Misses {
    level: f64,
    at: Tick,
}

impl Misses {
    fn level(self, now: Tick) -> f64 {
        self.level * (-now.since(self.at).as_secs_f64() / HALF_LIFE.as_secs_f64()).exp2()
    }

    /// Remembers one more miss.
    pub fn count(&mut self, now: Tick) {
        *self = Self { level: self.level(now) + 1.0, at: now };
    }

    /// How many cells are to be kept for the misses that are remembered.
    pub fn cells(self, now: Tick) -> u32 {
        let level = self.level(now);
        if level < MISSES_MIN { 0 } else { (level / MISSES_PER_CELL).ceil() as u32 }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn misses_are_forgotten_in_half_lives() {
        let mut misses = Misses::default();
        assert_eq!(misses.cells(Tick(0)), 0);
        for _ in 0..16 {
            misses.count(Tick(0));
        }
        assert_eq!(misses.cells(Tick(0)), 4);
        assert_eq!(misses.cells(Tick(0) + HALF_LIFE), 2);
        assert_eq!(misses.cells(Tick(0) + 6 * HALF_LIFE), 1);
        assert_eq!(misses.cells(Tick(0) + 7 * HALF_LIFE), 0);
    }
}
