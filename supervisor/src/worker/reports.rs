//! Init's reports, read by whoever needs them first: the keeper as they come, and a verdict before it is given. Init
//! reports a refused system call before it answers it, so what a verdict must name is in the socket by then.

use std::{
    io::{self, IoSlice},
    os::fd::{AsFd, AsRawFd, OwnedFd},
    sync::{Mutex, PoisonError},
};

use nix::{
    errno::Errno,
    sys::socket::{MsgFlags, recv, sendmsg},
};
use sublet_proto::link::{init::ToInit, nursery::InitReport};
use sublet_shim::link::{self, Received};
use tokio::io::Interest;
use zeroize::Zeroizing;

use crate::reserve::with_reserve;

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
    /// Takes the socket over.
    pub fn open(&self, socket: OwnedFd) {
        *self.socket() = Some(socket);
    }

    /// Lets go of the socket, after what has come is given to `note`. Init ends when it sees that, in whatever group it is by
    /// then; and with it all that is in its sandbox.
    pub fn close(&self, note: impl Fn(InitReport)) {
        self.take_in(note);
        *self.socket() = None;
    }

    /// Gives each report to `note` until init closes the socket, which it does only by ending.
    ///
    /// # Errors
    /// When the socket cannot be watched, or what comes on it is no report.
    pub async fn run(&self, note: impl Fn(InitReport)) -> io::Result<()> {
        self.until(note, || false).await.map(drop)
    }

    /// Gives each report to `note` until it is `enough`, which is true, or init closes the socket, which is false.
    ///
    /// # Errors
    /// As [`Self::run`].
    pub async fn until(&self, note: impl Fn(InitReport), enough: impl Fn() -> bool) -> io::Result<bool> {
        // Two descriptors of one socket: this one wakes the loop, the other is read by whoever comes first.
        let copy = self.socket().as_ref().map(|socket| with_reserve(|| socket.try_clone()));
        let wakes = crate::sys::register(copy.ok_or(io::ErrorKind::NotConnected)??, Interest::READABLE)?;
        loop {
            let mut ready = wakes.readable().await?;
            match self.look(&note)? {
                Looked::Empty => ready.clear_ready(),
                Looked::Closed => return Ok(false),
            }
            if enough() {
                return Ok(true);
            }
        }
    }

    /// Sends init something. Never waits.
    ///
    /// # Errors
    /// It is gone, or does not read what it is sent.
    pub fn tell(&self, what: &ToInit) -> io::Result<()> {
        let message = Zeroizing::new(serde_json::to_vec(what)?);
        let socket = self.socket();
        let socket = socket.as_ref().ok_or(io::ErrorKind::NotConnected)?;
        let flags = MsgFlags::MSG_NOSIGNAL | MsgFlags::MSG_DONTWAIT;
        sendmsg::<()>(socket.as_raw_fd(), &[IoSlice::new(&message)], &[], flags, None)?;
        Ok(())
    }

    /// Gives what has come so far to `note`.
    pub fn take_in(&self, note: impl Fn(InitReport)) {
        // Every call asks, and there is nothing as a rule: a look costs less than the room for a whole message.
        let flags = MsgFlags::MSG_PEEK | MsgFlags::MSG_DONTWAIT;
        let is_empty = |socket: &OwnedFd| recv(socket.as_raw_fd(), &mut [0], flags) == Err(Errno::EAGAIN);
        if self.socket().as_ref().is_none_or(is_empty) {
            return;
        }
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
