//! The private link: fixed-header frames on a worker's channel, and typed messages between supervisor, nursery and init.
//!
//! | who | socket | what |
//! |---|---|---|
//! | supervisor, function | `SOCK_STREAM`, the function's descriptor [`CHANNEL_FD`] | [`frame`] |
//! | supervisor, nursery | `SOCK_SEQPACKET` | [`nursery`], one JSON message per packet, descriptors attached |
//! | supervisor, runner | `SOCK_SEQPACKET` | [`runner`], as above, without descriptors |
//! | supervisor, init | `SOCK_SEQPACKET` | [`nursery::InitReport`] from init, [`init::ToInit`] to it |

pub mod frame;
pub mod group;
pub mod init;
pub mod nursery;
pub mod runner;
pub mod sandbox;
pub mod step;
pub mod token;

/// The descriptor on which a function finds its channel. 0 is /dev/null, 1 and 2 are the log.
pub const CHANNEL_FD: i32 = 3;
