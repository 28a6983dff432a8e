//! Traces that nobody recorded: many sub-tenants, few of them busy, with days and nights, and bursts.
//!
//! | what | how |
//! |---|---|
//! | who calls | Zipf over sub-tenants, by rank; ranks go to tenants in turn |
//! | when | Poisson, its rate a sine over 24 h; and batches that one sub-tenant sends at one instant |
//! | size of a batch | Pareto, cut at a maximum; its sub-tenant is any, not by Zipf: a burst is often the first that is seen |
//! | for how long | log-normal; function n of a tenant takes n times as long as its first |
//!
//! The same shape and seed give the same rows, on one kind of machine: logarithms are the platform's. Constant memory.

mod arrivals;

#[cfg(test)]
mod tests;

use std::{collections::BTreeMap, time::Duration};

pub use arrivals::Generator;
use sublet_pool::{HostPolicy, TenantPolicy};

use crate::{
    setup::{Function, Setup, SetupError, Tenant},
    sim::SUB_TENANTS_MAX,
    token::Token,
    trace::TIME_MAX_US,
};

/// What traffic looks like. [`Shape::default`] is a day of 100,000 sub-tenants and some six million calls.
#[derive(Clone, Debug, PartialEq)]
pub struct Shape {
    /// How long; a day.
    pub duration: Duration,
    /// Tenants; 3. They are called `tenant-1` and so on.
    pub tenants: u32,
    /// Functions of each; 2. They are called `function-1` and so on. Sub-tenants call the first most.
    pub functions_per_tenant: u32,
    /// Sub-tenants of all tenants together; 100,000.
    pub sub_tenants: u32,
    /// How uneven they are, 0 to 5; 1, as with words and web pages: the busiest of 100,000 makes 8 % of the calls.
    pub zipf_exponent: f64,
    /// Calls per second on the mean over a day, bursts left out; 60.
    pub calls_per_second: f64,
    /// How far that swings up and down, 0 to 1; 0.6: four times as much at noon as at midnight.
    pub daily_swing: f64,
    /// Bursts per hour; 60. None if 0.
    pub bursts_per_hour: f64,
    /// The smallest burst; 10 calls.
    pub burst_size_min: u32,
    /// The largest; 1000 calls.
    pub burst_size_max: u32,
    /// How fast larger bursts become rare, 0 to 10; 1.2: most are small, and most of the calls are in large ones.
    pub burst_exponent: f64,
    /// Median service time of first functions; 20 ms.
    pub service_median: Duration,
    /// Standard deviation of the service time's logarithm, 0 to 5; 0.8: one call in a hundred takes six times the median.
    pub service_sigma: f64,
    /// Share of calls that end with an error; 0.01.
    pub error_share: f64,
    /// Share of calls that end their worker; 0.0001.
    pub crash_share: f64,
}

impl Default for Shape {
    fn default() -> Self {
        Self {
            duration: Duration::from_secs(24 * 3600),
            tenants: 3,
            functions_per_tenant: 2,
            sub_tenants: 100_000,
            zipf_exponent: 1.0,
            calls_per_second: 60.0,
            daily_swing: 0.6,
            bursts_per_hour: 60.0,
            burst_size_min: 10,
            burst_size_max: 1000,
            burst_exponent: 1.2,
            service_median: Duration::from_millis(20),
            service_sigma: 0.8,
            error_share: 0.01,
            crash_share: 0.0001,
        }
    }
}

/// Why there is no traffic of a shape.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
pub enum ShapeError {
    /// Nobody, nothing, or no time.
    #[error("{field} = 0: there would be no traffic; write at least {least}")]
    Zero {
        /// Which field.
        field: &'static str,
        /// The least.
        least: &'static str,
    },
    /// Nothing would ever happen, or everything at once.
    #[error("{field} = {value}: not above zero; write a number such as {such_as}")]
    NotPositive {
        /// Which field.
        field: &'static str,
        /// What it is.
        value: f64,
        /// What could be.
        such_as: f64,
    },
    /// Beyond what makes sense.
    #[error("{field} = {value}: not from {least} to {most}; write a number that is")]
    OutOfRange {
        /// Which field.
        field: &'static str,
        /// What it is.
        value: f64,
        /// The least.
        least: f64,
        /// The most.
        most: f64,
    },
    /// The smallest burst is larger than the largest.
    #[error("burst_size_min = {min} is above burst_size_max = {max}; lower the one or raise the other")]
    BurstSizes {
        /// The smallest.
        min: u32,
        /// The largest.
        max: u32,
    },
    /// More than all calls.
    #[error("error_share and crash_share are {0} together, and all calls are 1; lower one of them")]
    Outcomes(f64),
}

/// Most tenants, and functions of each.
const NAMES_MAX: u32 = 1000;
/// Most calls per second, and in one burst.
const CALLS_MAX: u32 = 1_000_000;

impl Shape {
    /// Checks it.
    ///
    /// # Errors
    /// The first thing that is wrong.
    pub fn check(&self) -> Result<(), ShapeError> {
        let zero = |field, is_zero: bool, least| if is_zero { Err(ShapeError::Zero { field, least }) } else { Ok(()) };
        zero("duration", self.duration.as_micros() == 0, "1 us")?;
        zero("tenants", self.tenants == 0, "1")?;
        zero("functions_per_tenant", self.functions_per_tenant == 0, "1")?;
        zero("sub_tenants", self.sub_tenants == 0, "1")?;
        zero("burst_size_min", self.burst_size_min == 0, "1")?;
        zero("service_median", self.service_median.as_micros() == 0, "1 us")?;
        let positive = |field, value: f64, such_as| {
            if value > 0.0 { Ok(()) } else { Err(ShapeError::NotPositive { field, value, such_as }) }
        };
        positive("zipf_exponent", self.zipf_exponent, 1.0)?;
        positive("calls_per_second", self.calls_per_second, 60.0)?;
        positive("burst_exponent", self.burst_exponent, 1.2)?;
        // Written so that a NaN is outside, too.
        let within = |field, value: f64, least: f64, most: f64| {
            let is_within = (least..=most).contains(&value);
            if is_within { Ok(()) } else { Err(ShapeError::OutOfRange { field, value, least, most }) }
        };
        within("duration", self.duration.as_secs_f64(), 0.0, (TIME_MAX_US / 1_000_000) as f64)?;
        within("tenants", self.tenants.into(), 1.0, NAMES_MAX.into())?;
        within("functions_per_tenant", self.functions_per_tenant.into(), 1.0, NAMES_MAX.into())?;
        within("sub_tenants", self.sub_tenants.into(), 1.0, SUB_TENANTS_MAX as f64)?;
        within("zipf_exponent", self.zipf_exponent, 0.0, 5.0)?;
        within("calls_per_second", self.calls_per_second, 0.0, CALLS_MAX.into())?;
        within("daily_swing", self.daily_swing, 0.0, 1.0)?;
        within("bursts_per_hour", self.bursts_per_hour, 0.0, CALLS_MAX.into())?;
        within("burst_size_max", self.burst_size_max.into(), 0.0, CALLS_MAX.into())?;
        within("burst_exponent", self.burst_exponent, 0.0, 10.0)?;
        within("service_median", self.service_median.as_secs_f64(), 0.0, 24.0 * 3600.0)?;
        within("service_sigma", self.service_sigma, 0.0, 5.0)?;
        within("error_share", self.error_share, 0.0, 1.0)?;
        within("crash_share", self.crash_share, 0.0, 1.0)?;
        if self.burst_size_min > self.burst_size_max {
            return Err(ShapeError::BurstSizes { min: self.burst_size_min, max: self.burst_size_max });
        }
        let shares = self.error_share + self.crash_share;
        if shares > 1.0 { Err(ShapeError::Outcomes(shares)) } else { Ok(()) }
    }

    /// A setup with the tenants and functions of this shape, all alike.
    ///
    /// # Errors
    /// [`Setup::new`]'s.
    pub fn setup(&self, host: HostPolicy, tenant: TenantPolicy, function: &Function) -> Result<Setup, SetupError> {
        let functions: BTreeMap<Token, Function> =
            (1..=self.functions_per_tenant).map(|n| (name("function", n), function.clone())).collect();
        let tenant = Tenant { policy: tenant, functions };
        Setup::new(host, (1..=self.tenants).map(|n| (name("tenant", n), tenant.clone())).collect())
    }
}

fn name(what: &str, number: u32) -> Token {
    Token::try_from(format!("{what}-{number}").as_str()).expect("a word and a number are a token")
}

/// The rows of a shape, in the order of time.
///
/// # Errors
/// [`Shape::check`]'s.
pub fn generate(shape: &Shape, seed: u64) -> Result<Generator, ShapeError> {
    shape.check()?;
    Ok(Generator::new(shape, seed))
}
