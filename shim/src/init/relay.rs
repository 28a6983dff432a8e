//! `stream` functions on a kernel that cannot keep descriptors away from a socket (before Linux 6.16): the launcher stays, and
//! passes bytes on between the function and the supervisor.
//!
//! ```text
//!  supervisor <--- channel ---> launcher <--- a socket pair of its own ---> function
//! ```
//! A descriptor that the function attaches to its bytes gets no further than the launcher. Dropping it may take as long as the
//! function likes (a TCP socket with SO_LINGER set sleeps in close); that holds up nobody but this worker, and the kill of its
//! group ends the wait. It is a breach of the protocol: nothing more of the function's is passed on, and the supervisor finds
//! the channel closed while the worker goes on, which is BAD_FRAME.

use std::{
    ffi::CString,
    io::{self, IoSliceMut},
    os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd},
};

use nix::{
    errno::Errno,
    poll::{PollFd, PollFlags, PollTimeout, poll},
    sys::socket::{AddressFamily, MsgFlags, Shutdown, SockFlag, SockType, recvmsg, send, shutdown, socketpair},
    unistd::Pid,
};
use sublet_proto::link::CHANNEL_FD;

use super::child::{end_as, run_beside_launcher};
use crate::sys::{self, Fork};

/// Bytes that are under way in each direction.
const BUFFER_BYTES: usize = 64 * 1024;

/// Starts the function and passes bytes on until it ends.
pub fn serve(channel: BorrowedFd<'static>, arguments: &[CString], environment: &[CString]) -> io::Result<()> {
    let (ours, theirs) = socketpair(AddressFamily::Unix, SockType::Stream, None, SockFlag::SOCK_CLOEXEC)?;
    let child = match sys::fork()? {
        // In the place of the channel, which is the launcher's alone.
        Fork::Child(child) => run_beside_launcher(child, (theirs.as_fd(), CHANNEL_FD), arguments, environment),
        Fork::Parent(pid) => pid,
    };
    drop(theirs);
    relay(channel, &ours, child)?;
    end_as(child)
}

/// One direction.
struct Way {
    buffer: Vec<u8>,
    /// What of the buffer is still to be written.
    start: usize,
    end: usize,
    /// Nothing more comes.
    is_over: bool,
}

/// What a read found.
enum Read {
    Bytes,
    NothingNow,
    /// A descriptor came with the bytes. It has been closed.
    Descriptor,
}

impl Way {
    fn new() -> Self {
        Self { buffer: vec![0; BUFFER_BYTES], start: 0, end: 0, is_over: false }
    }

    fn is_empty(&self) -> bool {
        self.start == self.end
    }

    /// Takes bytes from `from`, once all those before are written.
    fn read(&mut self, from: BorrowedFd<'_>) -> io::Result<Read> {
        let mut slices = [IoSliceMut::new(&mut self.buffer)];
        // No room for descriptors: the kernel closes what comes, and sets MSG_CTRUNC.
        match recvmsg::<()>(from.as_raw_fd(), &mut slices, None, MsgFlags::MSG_DONTWAIT) {
            Ok(message) if message.flags.contains(MsgFlags::MSG_CTRUNC) => Ok(Read::Descriptor),
            Ok(message) => {
                (self.start, self.end) = (0, message.bytes);
                self.is_over = message.bytes == 0;
                Ok(Read::Bytes)
            }
            Err(Errno::EAGAIN | Errno::EINTR) => Ok(Read::NothingNow),
            Err(Errno::ECONNRESET) => {
                self.is_over = true;
                Ok(Read::Bytes)
            }
            Err(error) => Err(error.into()),
        }
    }

    /// Writes what `to` takes now.
    fn write(&mut self, to: BorrowedFd<'_>) -> io::Result<()> {
        let bytes = &self.buffer[self.start..self.end];
        match send(to.as_raw_fd(), bytes, MsgFlags::MSG_DONTWAIT | MsgFlags::MSG_NOSIGNAL) {
            Ok(written) => self.start += written,
            Err(Errno::EAGAIN | Errno::EINTR) => {}
            // Nobody is there to read it; that it is over is seen from the other direction.
            Err(Errno::EPIPE) => self.start = self.end,
            Err(error) => return Err(error.into()),
        }
        Ok(())
    }
}

/// Passes bytes on in both directions until `child` has ended and all it said is passed on.
fn relay(channel: BorrowedFd<'static>, function: &OwnedFd, child: Pid) -> io::Result<()> {
    let ended = sys::open_pidfd(child)?;
    let (mut down, mut up) = (Way::new(), Way::new());
    let mut has_ended = false;
    loop {
        if has_ended && up.is_empty() && !matches!(up.read(function.as_fd())?, Read::Bytes if !up.is_empty()) {
            return Ok(());
        }
        let wanted = |into: &Way, from: &Way| {
            let mut flags = PollFlags::empty();
            if into.is_empty() && !into.is_over {
                flags |= PollFlags::POLLIN;
            }
            if !from.is_empty() {
                flags |= PollFlags::POLLOUT;
            }
            flags
        };
        let mut watched =
            vec![PollFd::new(channel, wanted(&down, &up)), PollFd::new(function.as_fd(), wanted(&up, &down))];
        if !has_ended {
            watched.push(PollFd::new(ended.as_fd(), PollFlags::POLLIN));
        }
        // A side that has hung up is told of at each look, whatever was asked; with nothing asked it is not looked at.
        watched.retain(|fd| !fd.events().is_empty());
        match poll(&mut watched, PollTimeout::NONE) {
            Ok(_) => {}
            Err(Errno::EINTR) => continue,
            Err(error) => return Err(error.into()),
        }
        let told = |fd: BorrowedFd<'_>| {
            let found = watched.iter().find(|watched| watched.as_fd().as_raw_fd() == fd.as_raw_fd());
            found.and_then(PollFd::revents).unwrap_or(PollFlags::empty())
        };
        let (of_channel, of_function) = (told(channel), told(function.as_fd()));
        has_ended = has_ended || !told(ended.as_fd()).is_empty();
        let hung_up = PollFlags::POLLHUP | PollFlags::POLLERR;
        if !up.is_empty() && of_channel.intersects(PollFlags::POLLOUT | hung_up) {
            up.write(channel)?;
        }
        if !down.is_empty() && of_function.intersects(PollFlags::POLLOUT | hung_up) {
            down.write(function.as_fd())?;
        }
        if up.is_empty() && !up.is_over && of_function.intersects(PollFlags::POLLIN | hung_up) {
            if let Read::Descriptor = up.read(function.as_fd())? {
                eprintln!("sublet: a frame with a descriptor attached is against the protocol; the channel is closed");
                up.is_over = true;
            }
            if up.is_over {
                shutdown(channel.as_raw_fd(), Shutdown::Write).or_else(already_gone)?;
            }
        }
        if down.is_empty() && !down.is_over && of_channel.intersects(PollFlags::POLLIN | hung_up) {
            down.read(channel)?;
            if down.is_over {
                // The function is told to end in the way it always is.
                shutdown(function.as_raw_fd(), Shutdown::Write).or_else(already_gone)?;
            }
        }
    }
}

fn already_gone(error: Errno) -> nix::Result<()> {
    if error == Errno::ENOTCONN { Ok(()) } else { Err(error) }
}
