//! What other limits would have done: the very pool that serves calls, on a recorded or generated trace, in virtual time.
//!
//! ```text
//!  file --Reader--.                    .--> Report --.
//!                  >-- rows --> run ---+              >-- Comparison --> table, JSON
//!  generate ------'              ^     '--> Report --'
//!                                |
//!  configuration --> Setup ------+---- Setup::with(changes) <-- Change <-- "key=value"
//! ```
//! Called by `sublet what-if`, which reads the configuration and the command line and opens the trace once for each run;
//! the supervisor's recorder writes with [`Writer`] and [`InOrder`]. Nothing here has a clock, a thread or a file.
//!
//! # Traces
//! CSV in UTF-8, every line ended by a line feed alone, the last one perhaps by the end of the file. The first line is
//! [`HEADER`]. Then one row for each call, in the order of arrival; no quoting, no empty line, no comment.
//!
//! | column | what |
//! |---|---|
//! | `at_us` | arrival in microseconds since the start of the trace, not decreasing; at most ten years |
//! | `tenant`, `function` | names, as in the configuration; never empty |
//! | `sub_tenant` | what stands for the sub-tenant: up to 64 bytes without comma, quote or control character. A keyed hash, never the label. Empty for functions without sub-tenants |
//! | `service_us` | from delivery to answer, or to the worker's end, in microseconds |
//! | `outcome` | `ok`; `error`, when the worker was kept; `crash`, when it ended without an answer |
//!
//! One broken row refuses the trace: [`TraceError`] says where, what and how to go on.
//!
//! # What a run takes for granted
//! - A call takes as long as it was recorded to take, on any worker and under any load; it ends as it was recorded to.
//!   A crash happens on every delivery of its call, also when it is given to another worker.
//! - Starts and removals take the setup's times, each the same, however many there are at once.
//! - Callers do not change their minds: no cancels, no retries after a refusal, and those who were refused when the trace
//!   was recorded, and so have no row, do not come back under wider limits. Wider limits look a little better than they are.
//! - At the start there is no worker and no cell; the run ends with the last call.
#![forbid(unsafe_code)]

mod change;
mod generate;
pub mod random;
mod report;
#[cfg(test)]
mod sample;
mod setup;
mod sim;
mod table;
mod token;
mod trace;
mod units;

pub use change::{Change, ChangeError};
pub use generate::{Generator, Shape, ShapeError, generate};
pub use report::{
    Cells, Deadlines, Delay, Delays, Kills, Level, Refused, Report, Starts, SubTenantDelay, TenantReport, WORST_SHOWN,
};
pub use setup::{
    CELL_LABEL, CELL_MAKE, COLD_START, Function, MEMORY_BYTES, REMOVAL, Setup, SetupError, Tenant, Times, WARM_OVERHEAD,
};
pub use sim::{RunError, SUB_TENANTS_MAX, run};
pub use table::Comparison;
pub use token::{TOKEN_MAX_BYTES, Token, TokenError};
pub use trace::{
    HEADER, InOrder, LINE_MAX_BYTES, Outcome, PENDING_MAX, Reader, Row, TIME_MAX_US, Ticket, TraceError, Writer,
};
