//! A recorded trace: one call per row, in the order of arrival.
//!
//! | here | what |
//! |---|---|
//! | [`read`] | rows from a text of any size, checked one by one |
//! | [`write`] | rows to a text, and calls brought back into the order of their arrival |
//! | [`error`] | everything that can be wrong with a trace |

mod error;
mod read;
mod write;

#[cfg(test)]
mod tests;

pub use error::TraceError;
pub use read::{LINE_MAX_BYTES, Reader};
pub use write::{InOrder, PENDING_MAX, Ticket, Writer};

use crate::token::Token;

/// First line of every trace.
pub const HEADER: &str = "at_us,tenant,function,sub_tenant,service_us,outcome";
/// The columns, in their order.
pub(crate) const COLUMNS: [&str; 6] = ["at_us", "tenant", "function", "sub_tenant", "service_us", "outcome"];
/// Latest arrival and longest service in microseconds: ten years. More is a wall clock or another unit, and would come
/// near the end of the pool's nanoseconds.
pub const TIME_MAX_US: u64 = 10 * 365 * 24 * 3600 * 1_000_000;

/// How a delivery ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Outcome {
    /// With a result.
    Ok,
    /// With an error of the function's own; the worker was kept.
    Error,
    /// The worker ended without an answer.
    Crash,
}

impl Outcome {
    /// All there are.
    pub const ALL: [Self; 3] = [Self::Ok, Self::Error, Self::Crash];

    /// As traces have it. None is the beginning of another, so that a row that was cut short is always seen.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Ok => "ok",
            Self::Error => "error",
            Self::Crash => "crash",
        }
    }
}

/// One call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Row {
    /// Arrival, in microseconds since the start of the trace.
    pub at_us: u64,
    /// Whose function.
    pub tenant: Token,
    /// Which function.
    pub function: Token,
    /// For whom: a keyed hash of the label, never the label. Empty for functions without sub-tenants.
    pub sub_tenant: Token,
    /// From delivery to answer, in microseconds.
    pub service_us: u64,
    /// How it ended.
    pub outcome: Outcome,
}
