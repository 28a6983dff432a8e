//! Init's reports, read by whoever needs them first: the keeper as they come, and a verdict before it is given. Init
//! reports a refused system call before it answers it, so what a verdict must name is in the socket by then.

use std::{
    io,
    os::fd::{AsFd, OwnedFd},
    sync::{Mutex, PoisonError},
};

use sublet_proto::link::nursery::InitReport;
use sublet_shim::link::{self, Received};
use tokio::io::Interest;

/// One worker's control socket.
#[derive(Debug, Default)]
pub struct Reports(Mutex<Option<OwnedFd>>);

/// How a look at the socket ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Looked {
    Empty,
    Closed,
}

impl Reports {
    /// Takes the socket over and gives each report to `note` until init closes it, which it does only by ending.
    ///
    /// # Errors
    /// When the socket cannot be watched, or what comes on it is no report.
    pub async fn run(&self, socket: OwnedFd, note: impl Fn(InitReport)) -> io::Result<()> {
        // Two descriptors of one socket: this one wakes the loop, the other is read by whoever comes first.
        let wakes = crate::sys::register(socket.try_clone()?, Interest::READABLE)?;
        *self.socket() = Some(socket);
        loop {
            let mut ready = wakes.readable().await?;
            match self.look(&note)? {
                Looked::Empty => ready.clear_ready(),
                Looked::Closed => return Ok(()),
            }
        }
    }

    /// Gives what has come so far to `note`.
    pub fn take_in(&self, note: impl Fn(InitReport)) {
        // What is wrong with the socket is told by `run`, which reads it as well.
        self.look(&note).ok();
    }

    fn socket(&self) -> std::sync::MutexGuard<'_, Option<OwnedFd>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn look(&self, note: &impl Fn(InitReport)) -> io::Result<Looked> {
        // Held over `note`, so that reports are noted in the order they came.
        let socket = self.socket();
        let Some(socket) = socket.as_ref() else { return Ok(Looked::Empty) };
        loop {
            match link::receive::<InitReport>(socket.as_fd(), true)? {
                Received::Message(report, _) => note(report),
                Received::Nothing => return Ok(Looked::Empty),
                Received::Closed => return Ok(Looked::Closed),
            }
        }
    }
}
