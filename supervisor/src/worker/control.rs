//! The supervisor's end of init's control socket: what init reports, and what it is told.

use std::{
    fmt::Debug,
    io::{self, IoSlice},
    os::fd::{AsFd, AsRawFd, OwnedFd},
    task::{Context, Poll, ready},
};

use nix::{
    errno::Errno,
    sys::socket::{MsgFlags, recv, sendmsg},
};
use sublet_proto::link::{init::ToInit, nursery::InitReport};
use sublet_shim::link::{self, Received};
use tokio::io::{Interest, unix::AsyncFd};
use zeroize::Zeroizing;

use crate::reserve::with_reserve;

/// Messages to and from one worker's init. Whoever lets go of it ends init, in whatever group that is by then.
pub trait Control: Debug + Send {
    /// Whether there is nothing to receive. Costs less than a receive that finds nothing.
    fn is_empty(&self) -> bool;

    /// The next report, that there is none now, or that init has ended. Never waits.
    ///
    /// # Errors
    /// What came is no report, or the host fails.
    fn receive(&self) -> io::Result<Received<InitReport>>;

    /// Sends init something. Never waits.
    ///
    /// # Errors
    /// Init is gone, or does not read.
    fn send(&self, what: &ToInit) -> io::Result<()>;

    /// Something that wakes whoever waits for reports. Must be called inside a tokio runtime.
    ///
    /// # Errors
    /// There is no room for another descriptor.
    fn wakeup(&self) -> io::Result<Box<dyn Wakeup>>;
}

/// Wakes a task when there may be something to receive.
pub trait Wakeup: Debug + Send {
    /// Ready once for all that came since it was ready last, and at first for what was there already. Whoever is woken
    /// receives until there is nothing.
    ///
    /// # Errors
    /// It cannot be waited for.
    fn poll_woken(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>>;
}

/// The control socket of a real sandbox.
#[derive(Debug)]
pub struct SocketControl(OwnedFd);

impl SocketControl {
    /// Takes the socket over.
    pub const fn new(socket: OwnedFd) -> Self {
        Self(socket)
    }
}

impl Control for SocketControl {
    fn is_empty(&self) -> bool {
        let flags = MsgFlags::MSG_PEEK | MsgFlags::MSG_DONTWAIT;
        recv(self.0.as_raw_fd(), &mut [0], flags) == Err(Errno::EAGAIN)
    }

    fn receive(&self) -> io::Result<Received<InitReport>> {
        link::receive::<InitReport>(self.0.as_fd(), true)
    }

    fn send(&self, what: &ToInit) -> io::Result<()> {
        let message = Zeroizing::new(serde_json::to_vec(what)?);
        let flags = MsgFlags::MSG_NOSIGNAL | MsgFlags::MSG_DONTWAIT;
        sendmsg::<()>(self.0.as_raw_fd(), &[IoSlice::new(&message)], &[], flags, None)?;
        Ok(())
    }

    fn wakeup(&self) -> io::Result<Box<dyn Wakeup>> {
        // Two descriptors of one socket: this one wakes, the other is read by whoever comes first.
        let copy = with_reserve(|| self.0.try_clone())?;
        Ok(Box::new(SocketWakeup(crate::sys::register(copy, Interest::READABLE)?)))
    }
}

/// A second descriptor of the socket.
#[derive(Debug)]
struct SocketWakeup(AsyncFd<OwnedFd>);

impl Wakeup for SocketWakeup {
    fn poll_woken(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        // Before anything is received: what comes from here on is told anew.
        ready!(self.0.poll_read_ready(cx))?.clear_ready();
        Poll::Ready(Ok(()))
    }
}
