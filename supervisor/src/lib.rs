//! The supervisor: takes calls, decides, and has workers made for them.
//!
//! ```text
//!  cli ----> serve ----> front (gRPC: Invoker, Admin) ----> driver ----> pool (pure, a crate of its own)
//!   |          |           |                                ^ | | |
//!   |          '--> reload <'--- checked configuration -----' | | +--> worker keepers --> nursery (the shim)
//!   |                 |                                       | |            |
//!   |                 '--> quota (limits of every group) <----+-|------------+-------> cgroups
//!   |                                                           +--> token (who gives each worker its own)
//!   |                                                           +--> usage (who used what), events (what operators are told)
//!   |                                                           '--> recorder --> trace
//!   |                                                           '--> logs (what functions write) --> journald, files
//!   '--> what-if (pure, a crate of its own) <------------------------------------ trace
//! ```
//! The front does not see cgroups or the kernel; the driver does not see gRPC beyond its message types; the pool sees
//! nothing at all. Only [`cgroups`] knows a path below /sys/fs/cgroup, and only `sys` has unsafe code.

// What is printed goes through `cli::output` and `printable`: others' text must not drive or deceive whoever reads it.
#![cfg_attr(not(test), deny(clippy::print_stdout, clippy::print_stderr))]

pub mod catalogue;
pub mod cgroups;
pub mod cli;
pub mod config;
pub mod descriptors;
pub mod doctor;
pub mod driver;
pub mod events;
pub mod front;
#[doc(hidden)]
pub mod fuzz;
#[cfg(test)]
mod golden;
pub mod hex;
pub mod jail;
pub mod logs;
pub mod nursery;
pub mod orphan;
pub mod own_log;
pub mod printable;
pub mod process;
pub mod pulse;
pub mod quota;
pub mod recorder;
pub mod reload;
mod reserve;
pub mod runner;
pub mod serve;
mod socket;
mod sys;
mod timestamp;
pub mod token;
pub mod trust;
pub mod usage;
pub mod worker;
