//! Rows one after the other: the earlier of the next single call and the next burst.

use super::{Shape, name};
use crate::{
    random::{Random, Zipf, splitmix},
    token::Token,
    trace::{Outcome, Row, TIME_MAX_US},
};

const DAY_US: f64 = 24.0 * 3600.0 * 1e6;

/// The calls of one instant that are still to come.
#[derive(Clone, Copy, Debug)]
struct Batch {
    at_us: u64,
    rank: u32,
    function: u32,
    left: u32,
}

/// Rows of a [`Shape`]; made by [`super::generate`].
#[derive(Clone, Debug)]
pub struct Generator {
    shape: Shape,
    random: Random,
    zipf: Zipf,
    tenants: Vec<Token>,
    functions: Vec<Token>,
    end_us: f64,
    /// Arrivals per microsecond at the height of the day: each is kept by chance (thinning; Lewis, Shedler 1979).
    most_per_us: f64,
    next_single_us: f64,
    next_burst_us: f64,
    batch: Option<Batch>,
}

impl Generator {
    /// Of a shape that was checked.
    pub(super) fn new(shape: &Shape, seed: u64) -> Self {
        let mut generator = Self {
            random: Random::new(seed),
            zipf: Zipf::new(shape.sub_tenants, shape.zipf_exponent),
            tenants: (1..=shape.tenants).map(|n| name("tenant", n)).collect(),
            functions: (1..=shape.functions_per_tenant).map(|n| name("function", n)).collect(),
            end_us: shape.duration.as_micros() as f64,
            most_per_us: shape.calls_per_second * (1.0 + shape.daily_swing) / 1e6,
            next_single_us: 0.0,
            next_burst_us: 0.0,
            batch: None,
            shape: shape.clone(),
        };
        generator.step_single();
        generator.step_burst();
        generator
    }

    fn step_single(&mut self) {
        loop {
            self.next_single_us += self.random.exponential() / self.most_per_us;
            let wave = (std::f64::consts::TAU * self.next_single_us / DAY_US).sin();
            let kept = (1.0 + self.shape.daily_swing * wave) / (1.0 + self.shape.daily_swing);
            if self.random.unit() < kept || self.next_single_us >= self.end_us {
                return;
            }
        }
    }

    fn step_burst(&mut self) {
        // None per hour are infinitely far apart.
        self.next_burst_us += self.random.exponential() / (self.shape.bursts_per_hour / 3.6e9);
    }

    /// The first most often, the second half as often as that, and so on.
    fn function(&mut self) -> u32 {
        let mut function = 0;
        while function + 1 < self.shape.functions_per_tenant && self.random.unit() >= 2.0 / 3.0 {
            function += 1;
        }
        function
    }

    fn burst(&mut self) -> Batch {
        let size = self.random.pareto(self.shape.burst_size_min.into(), self.shape.burst_exponent);
        Batch {
            at_us: self.next_burst_us as u64,
            rank: 1 + self.random.below(self.shape.sub_tenants),
            function: self.function(),
            left: (size as u32).min(self.shape.burst_size_max),
        }
    }

    fn row(&mut self, at_us: u64, rank: u32, function: u32) -> Row {
        let median = self.shape.service_median.as_micros() as f64 * f64::from(function + 1);
        let service = median * (self.shape.service_sigma * self.random.normal()).exp();
        let dice = self.random.unit();
        let outcome = if dice < self.shape.crash_share {
            Outcome::Crash
        } else if dice < self.shape.crash_share + self.shape.error_share {
            Outcome::Error
        } else {
            Outcome::Ok
        };
        let tenant = self.tenants[((rank - 1) % self.shape.tenants) as usize];
        let function = self.functions[function as usize];
        let service_us = (service as u64).clamp(1, TIME_MAX_US);
        Row { at_us, tenant, function, sub_tenant: sub_tenant(rank), service_us, outcome }
    }
}

/// As a keyed hash would look: 16 hexadecimal digits that say nothing of the rank.
fn sub_tenant(rank: u32) -> Token {
    const DIGITS: &[u8; 16] = b"0123456789abcdef";
    let hash = splitmix(&mut u64::from(rank));
    let digits: [u8; 16] = std::array::from_fn(|at| DIGITS[(hash >> (60 - 4 * at)) as usize & 15]);
    let text = std::str::from_utf8(&digits).unwrap_or_default();
    Token::try_from(text).expect("hexadecimal digits are a token")
}

impl Iterator for Generator {
    type Item = Row;

    fn next(&mut self) -> Option<Row> {
        if let Some(batch) = &mut self.batch {
            let Batch { at_us, rank, function, .. } = *batch;
            batch.left = batch.left.saturating_sub(1);
            if batch.left == 0 {
                self.batch = None;
            }
            return Some(self.row(at_us, rank, function));
        }
        if self.next_single_us.min(self.next_burst_us) >= self.end_us {
            return None;
        }
        if self.next_burst_us < self.next_single_us {
            self.batch = Some(self.burst());
            self.step_burst();
            return self.next();
        }
        let at_us = self.next_single_us as u64;
        let rank = self.zipf.sample(&mut self.random);
        let function = self.function();
        let row = self.row(at_us, rank, function);
        self.step_single();
        Some(row)
    }
}
