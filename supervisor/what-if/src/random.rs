//! Random numbers that are the same everywhere, and the distributions made of them.

/// One step of splitmix64 (Steele, Lea, Flood 2014), by which seeds are made of a seed, and numbers are hashed.
pub fn splitmix(state: &mut u64) -> u64 {
    *state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let z = (*state ^ (*state >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

/// The generator xoshiro256++ (Blackman, Vigna 2019), seeded by splitmix64 as its authors advise. Not for secrets.
#[derive(Clone, Debug)]
pub struct Random([u64; 4]);

impl Random {
    /// The sequence that follows from a seed alone.
    pub fn new(mut seed: u64) -> Self {
        Self(std::array::from_fn(|_| splitmix(&mut seed)))
    }

    /// The next 64 bits.
    pub fn bits(&mut self) -> u64 {
        let s = &mut self.0;
        let result = s[0].wrapping_add(s[3]).rotate_left(23).wrapping_add(s[0]);
        let t = s[1] << 17;
        s[2] ^= s[0];
        s[3] ^= s[1];
        s[1] ^= s[2];
        s[0] ^= s[3];
        s[2] ^= t;
        s[3] = s[3].rotate_left(45);
        result
    }

    /// A number from 0 on, below 1.
    pub fn unit(&mut self) -> f64 {
        (self.bits() >> 11) as f64 * (1.0 / (1_u64 << 53) as f64)
    }

    /// A number from 0 on, below `end`.
    pub fn below(&mut self, end: u32) -> u32 {
        // 64 bits against at most 32: the bias is below one in 2^32.
        ((u128::from(self.bits()) * u128::from(end)) >> 64) as u32
    }

    /// A number of the exponential distribution with mean 1.
    pub fn exponential(&mut self) -> f64 {
        -(1.0 - self.unit()).ln()
    }

    /// A number of the standard normal distribution (Box, Muller 1958). The second of the pair is dropped: less to keep.
    pub fn normal(&mut self) -> f64 {
        let radius = (2.0 * self.exponential()).sqrt();
        radius * (std::f64::consts::TAU * self.unit()).cos()
    }

    /// A number of the Pareto distribution that begins at `least`.
    pub fn pareto(&mut self, least: f64, exponent: f64) -> f64 {
        least * (self.exponential() / exponent).exp()
    }
}

/// The Zipf distribution by rejection-inversion (Hörmann, Derflinger 1996): no table, whatever the number of ranks.
#[derive(Clone, Copy, Debug)]
pub struct Zipf {
    ranks: f64,
    exponent: f64,
    area_first: f64,
    area_all: f64,
    /// A rank this near to the point that was hit is taken without another look.
    near: f64,
}

/// (e^x - 1) / x, and its limit at 0.
fn exp_m1_over(x: f64) -> f64 {
    if x.abs() > 1e-8 { x.exp_m1() / x } else { 1.0 + x / 2.0 }
}

/// ln(1 + x) / x, and its limit at 0.
fn ln_1p_over(x: f64) -> f64 {
    if x.abs() > 1e-8 { x.ln_1p() / x } else { 1.0 - x / 2.0 }
}

impl Zipf {
    /// The distribution over ranks 1 to `ranks`, in which rank r has a weight of r to the power of minus `exponent`.
    pub fn new(ranks: u32, exponent: f64) -> Self {
        let mut zipf = Self { ranks: ranks.into(), exponent, area_first: 0.0, area_all: 0.0, near: 0.0 };
        zipf.area_first = zipf.area(1.5) - 1.0;
        zipf.area_all = zipf.area(zipf.ranks + 0.5);
        zipf.near = 2.0 - zipf.area_inverse(zipf.area(2.5) - zipf.density(2.0));
        zipf
    }

    fn density(&self, x: f64) -> f64 {
        (-self.exponent * x.ln()).exp()
    }

    fn area(&self, x: f64) -> f64 {
        let log = x.ln();
        exp_m1_over((1.0 - self.exponent) * log) * log
    }

    fn area_inverse(&self, area: f64) -> f64 {
        // Rounding may lead just below.
        let t = (area * (1.0 - self.exponent)).max(-1.0);
        (ln_1p_over(t) * area).exp()
    }

    /// A rank, counted from 1.
    pub fn sample(&self, random: &mut Random) -> u32 {
        loop {
            let area = self.area_all + random.unit() * (self.area_first - self.area_all);
            let x = self.area_inverse(area);
            let rank = x.round().clamp(1.0, self.ranks);
            if rank - x <= self.near || area >= self.area(rank + 0.5) - self.density(rank) {
                return rank as u32;
            }
        }
    }
}
