//! The privileged half of sublet: the nursery, and the init of each sandbox.
//!
//! ```text
//!  supervisor --SEQPACKET--> nursery            root, single-threaded, no network; makes sandboxes, nothing else
//!                              | clone3 into the worker's cgroup and namespaces
//!                              v
//!                            init               pid 1 inside; applies the plan, then holds no right at all
//!                              | fork
//!                              v
//!                            launcher           confines itself, says CONFINED, waits for START
//!                              | execve (stream)  or  fork + execve per call (exec)
//!                              v
//!                            function
//! ```
//!
//! Beside them, for token programs: the [`runner`], unprivileged, which starts what the confined supervisor cannot.
//!
//! Spec ([`sublet_proto::link::sandbox::SandboxSpec`]) -> checked ([`check`]) -> plan ([`plan`]) -> applied ([`init`]).
//! The plan is a plain value: it can be printed without touching the kernel, and a failed step is reported by the words
//! the plan prints. The library part exists so that the supervisor can print plans and judge postures; the program is
//! `main.rs`.

pub mod cgroups;
pub mod chain;
pub mod check;
pub mod counters;
mod directory;
#[doc(hidden)]
pub mod fuzz;
pub mod init;
mod keyring;
pub mod link;
pub mod nursery;
pub mod plan;
pub mod program;
pub mod runner;
pub mod seccomp;
pub mod shortage;
pub mod signals;
pub mod skeleton;
mod sys;

pub use skeleton::can_mount_overlay;
pub use sys::{install_filter_for_all_threads, landlock_abi};
