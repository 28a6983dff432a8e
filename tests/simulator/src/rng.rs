//! Chance that can be repeated: the generator of the traces of what-if, and choices that histories are made of.

use sublet_what_if::random::{Random, splitmix};

/// A stream of numbers that follows from its seed alone.
#[derive(Clone, Debug)]
pub struct Rng(Random);

/// One step of splitmix64; also used to make seeds of seeds.
pub fn mix(mut seed: u64) -> u64 {
    splitmix(&mut seed)
}

impl Rng {
    /// The stream of a seed.
    pub fn new(mut seed: u64) -> Self {
        // The seeds of histories that once failed are those of a generator that began one step later.
        splitmix(&mut seed);
        Self(Random::new(seed))
    }

    /// The next 64 bits.
    pub fn bits(&mut self) -> u64 {
        self.0.bits()
    }

    /// Less than `n`, which is not 0.
    pub fn below(&mut self, n: u64) -> u64 {
        // By multiplication: the bias is n in 2^64.
        ((u128::from(self.bits()) * u128::from(n)) >> 64) as u64
    }

    /// A number from `from` to `to`, both included.
    pub fn range(&mut self, from: u64, to: u64) -> u64 {
        from + self.below(to - from + 1)
    }

    /// True once in `n` times, by chance.
    pub fn one_in(&mut self, n: u64) -> bool {
        self.below(n) == 0
    }

    /// A number from 0 on, below 1.
    pub fn unit(&mut self) -> f64 {
        self.0.unit()
    }

    /// One of the values in `from`, which is not empty.
    pub fn pick<T: Copy>(&mut self, from: &[T]) -> T {
        from[self.below(from.len() as u64) as usize]
    }

    /// A number up to `max` that is mostly small and seldom large: every magnitude below `max` is equally likely.
    pub fn skewed(&mut self, max: u64) -> u64 {
        let bits = 64 - max.leading_zeros();
        let top = 1 << self.below(u64::from(bits) + 1).min(63);
        self.below(top).min(max)
    }
}
