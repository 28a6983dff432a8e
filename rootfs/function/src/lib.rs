//! Lets a Rust program be a `stream` function of sublet: a long-lived process that is given one call after another, all
//! of one sub-tenant, on a descriptor it was started with.
//!
//! ```no_run
//! fn main() -> std::io::Result<()> {
//!     // What is loaded here is loaded once for each worker, before its first call.
//!     let mut calls = 0_u64;
//!     sublet_function::serve(|call| {
//!         calls += 1;
//!         let name = call.text()?;
//!         Ok::<_, std::str::Utf8Error>(format!("hello {name}, this is call {calls}"))
//!     })
//! }
//! ```
//!
//! ```text
//!  start --serve--> READY --> wait --REQUEST--> handler --Ok---> RESPONSE --> wait
//!                              |                   |-----Err--> ERROR ------> wait      the worker stays
//!                              |                   '-----panic--------------> the process ends
//!                              '--channel closed--> serve returns Ok, the process exits 0
//! ```
//!
//! How calls end:
//! - `Ok`: the bytes are the answer.
//! - [`Call::send_piece`] gives parts of the answer out before that, to callers that take it in pieces.
//! - `Err`: the caller gets the error's text; the worker is kept and its state with it.
//! - A panic ends the process. sublet tells the caller that the function crashed, and starts a new worker for the next
//!   call. It is not caught, because the handler's state may be half-changed: a fresh worker is the only known good one.
//! - A handler that runs past [`Call::deadline`] is ended from outside, with everything it started.
//!
//! Standard output and standard error are the worker's log, so `println!` is safe. `/tmp` is the only writable place.
//! Threads may be used; calls come one at a time. No state has to be kept apart for sub-tenants: a worker
//! serves one for life, unless the function's configuration says `isolation = "shared"`.
//!
//! The descriptor is close-on-exec once [`serve`] has it, so that programs the handler starts cannot speak for it.
#![deny(unsafe_code)]

mod call;
mod channel;
mod pieces;
mod serve;
mod sys;
mod worker;

pub use call::{Call, Lease};
pub use serve::{serve, serve_on};
pub use worker::{function, sub_tenant, tenant, token};
