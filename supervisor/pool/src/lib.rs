//! Which worker serves which call. No clock, no I/O, no randomness: events and the time go in, actions come out.
//!
//! ```text
//!  MakeCell          Made            Label
//! ----------> Making -----> Cell ------------.
//!                                            v     Started          Deliver
//!  Spawn ------------------------------> Starting -------> Idle <-------------> Leased --must go--> Draining
//!                                            |              |     Answered         |                    |
//!                                StartFailed |              | TTL, eviction, limit | death, deadline,   | its call
//!                                            v              v                      v cancel, taint      v has ended
//!                                            '----------> Reaping <----------------+--------------------'
//!                                                            |
//!                                                            v Reaped: the place is free again
//! ```
//! The driver calls [`Pool::handle`] with what happened and does what the actions say; it wakes the pool with
//! [`Event::Timer`] at [`Pool::next_wakeup`]. Late events (of a worker or lease that is gone) are recognised by their ids,
//! which are never used twice, and ignored. Everything the pool does follows from the events and their times alone: the
//! same history gives the same actions.
#![forbid(unsafe_code)]

mod breaker;
mod event;
mod invariants;
mod key;
mod lists;
mod misses;
mod policy;
mod pool;
mod rate;
mod records;
mod slab;
mod slots;
#[cfg(test)]
mod tests;
mod time;
mod timers;
mod view;
mod virtual_clock;

pub use breaker::{BACKOFF_FIRST, BACKOFF_MAX, FAILURES_BEFORE_BACKOFF};
pub use event::{
    Action, Blame, CallId, End, Event, KillReason, LeaseId, LimitLevel, Refusal, Selector, Stage, Start, WarmRefusal,
    WorkerId,
};
pub use invariants::BrokenRule;
pub use key::{FunctionId, LabelError, PoolKey, SUB_TENANT_MAX_BYTES, SubTenant, TenantId};
pub use policy::{FunctionPolicy, HostPolicy, SubTenantPolicy, TenantPolicy};
pub use pool::{Pool, ROOM_PATIENCE};
pub use rate::Rate;
pub use time::Tick;
pub use view::{Counts, Outlook, StateName, WorkerView};
