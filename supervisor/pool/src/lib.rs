//! Which worker serves which call. No clock, no I/O, no randomness: events and the time go in, actions come out.
//!
//! ```text
//!   Spawn            Started            Deliver
//! ---------> Starting -------> Idle <-----------> Leased
//!               |               |     Answered       |
//!               | StartFailed   | TTL, eviction      | deadline, cancel, death, unclean answer
//!               v               v                    v
//!               +----------> Reaping <---------------+        Reaped: the place is free again
//! ```
//! The driver calls [`Pool::handle`] with what happened and does what the actions say; it wakes the pool with
//! [`Event::Timer`] at [`Pool::next_wakeup`]. Late events (of a worker or lease that is gone) are recognised by their ids,
//! which are never used twice, and ignored.
#![forbid(unsafe_code)]

mod event;
mod invariants;
mod key;
mod policy;
mod pool;
#[cfg(test)]
mod tests;
mod view;

pub use event::{Action, CallId, End, Event, KillReason, LeaseId, Refusal, Selector, Stage, Start, Tick, WorkerId};
pub use key::{LabelError, PoolKey, SUB_TENANT_MAX_BYTES, SubTenant};
pub use policy::{FunctionPolicy, HostPolicy, TenantPolicy};
pub use pool::Pool;
pub use view::{Counts, StateName, WorkerView};
