//! Histories of the pool that no host would show in a year, from seeds, with every rule checked after each step.
//!
//! ```text
//!            events, late, twice, lost                     actions
//!  world ------------------------------------> pool ---------------------.
//!  (driver, host, clock, operators)              |                       |
//!    ^                                           '----> oracle: is it allowed, is anything owed?
//!    '------- planned for later, or gone wrong ------------------------- '
//! ```
//! A failing history prints its seed; `SUBLET_SEED=.. cargo test -p sublet-simulator one_seed -- --nocapture` runs it alone.
#![forbid(unsafe_code)]

mod compare;
mod history;
pub mod lab;
mod limits;
mod model;
mod oracle;
mod rng;
mod seeds;
mod stats;
mod world;

pub use compare::compare;
pub use history::{Report, run, run_with_break};
pub use rng::{Rng, mix};
pub use seeds::{MODEL_ONCE_DIFFERED, ONCE_FAILED};
pub use stats::{Fault, Stats};
