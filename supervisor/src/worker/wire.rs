//! The supervisor's end of the byte stream to one worker, and how it is read and written: a socket as a rule, and memory in
//! tests, which then need no event loop and can let the clock stand still.

use std::{
    fmt::Debug,
    io::{self, IoSlice, IoSliceMut},
    os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd},
    task::{Context, Poll, ready},
    time::Instant,
};

use bytes::BytesMut;
use nix::sys::socket::{MsgFlags, recvmsg, sendmsg};

use crate::socket::{ReadOutcome, Socket};

/// What one read has brought.
#[derive(Clone, Copy, Debug)]
pub struct Received {
    /// Bytes that were added to the buffer; 0 at the end of the stream.
    pub bytes: usize,
    /// When the read began, by the host's clock: what it took is the supervisor's time.
    pub began: Instant,
}

/// A stream of bytes to a worker and back.
pub trait Wire: Debug + Send + Sync {
    /// Writes as much of the two parts as there is room for, the first before the second. Returns how many bytes went.
    ///
    /// # Errors
    /// The other side is gone, or the host fails.
    fn poll_write(&mut self, cx: &mut Context<'_>, parts: [&[u8]; 2]) -> Poll<io::Result<usize>>;

    /// Adds what is there to `buffer`, `most` bytes at the most. `buffer` is as it was while there is nothing.
    ///
    /// # Errors
    /// Something was attached to the bytes, or the host fails.
    fn poll_read(&mut self, cx: &mut Context<'_>, buffer: &mut BytesMut, most: usize) -> Poll<io::Result<Received>>;

    /// As [`Self::poll_read`], and never waits.
    ///
    /// # Errors
    /// As there; and `WouldBlock` when there is nothing.
    fn try_read(&mut self, buffer: &mut BytesMut, most: usize) -> io::Result<Received>;

    /// Whether there is anything to read, the end of the stream included.
    fn has_input(&self) -> bool;

    /// Nobody means to read before the next [`Self::poll_read`]: what the worker writes until then need wake nobody.
    fn unwatch(&mut self);
}

/// A socket whose other end is in the sandbox.
#[derive(Debug)]
pub struct SocketWire(Socket);

impl SocketWire {
    /// Takes the socket over. It is watched from the first read on, which must be inside a tokio runtime.
    pub const fn new(socket: OwnedFd) -> Self {
        Self(Socket::unwatched(socket))
    }
}

impl Wire for SocketWire {
    fn poll_write(&mut self, cx: &mut Context<'_>, [first, second]: [&[u8]; 2]) -> Poll<io::Result<usize>> {
        let slices = [IoSlice::new(first), IoSlice::new(second)];
        let flags = MsgFlags::MSG_NOSIGNAL | MsgFlags::MSG_DONTWAIT;
        self.0.poll_write(cx, |socket| Ok(sendmsg::<()>(socket.as_raw_fd(), &slices, &[], flags, None)?))
    }

    fn poll_read(&mut self, cx: &mut Context<'_>, buffer: &mut BytesMut, most: usize) -> Poll<io::Result<Received>> {
        self.0.watch()?;
        let received = ready!(self.0.poll_read(cx, |socket| {
            let received = append(socket.as_fd(), buffer, most)?;
            Ok(ReadOutcome { what: received, is_all: 0 < received.bytes && received.bytes < most })
        }));
        Poll::Ready(received)
    }

    fn try_read(&mut self, buffer: &mut BytesMut, most: usize) -> io::Result<Received> {
        append(self.0.fd()?.as_fd(), buffer, most)
    }

    fn has_input(&self) -> bool {
        let Ok(fd) = self.0.fd() else { return true };
        let flags = MsgFlags::MSG_PEEK | MsgFlags::MSG_DONTWAIT;
        nix::sys::socket::recv(fd.as_raw_fd(), &mut [0], flags) != Err(nix::errno::Errno::EAGAIN)
    }

    fn unwatch(&mut self) {
        self.0.unwatch();
    }
}

/// Adds what the socket has to the buffer, which is as it was when that fails.
fn append(socket: BorrowedFd<'_>, buffer: &mut BytesMut, most: usize) -> io::Result<Received> {
    let (began, start) = (Instant::now(), buffer.len());
    buffer.resize(start + most, 0);
    let received = receive_some(socket, &mut buffer[start..]);
    buffer.truncate(start + *received.as_ref().unwrap_or(&0));
    received.map(|bytes| Received { bytes, began })
}

fn receive_some(socket: BorrowedFd<'_>, buffer: &mut [u8]) -> io::Result<usize> {
    let mut slices = [IoSliceMut::new(buffer)];
    let message = recvmsg::<()>(socket.as_raw_fd(), &mut slices, None, MsgFlags::MSG_DONTWAIT)?;
    if message.flags.contains(MsgFlags::MSG_CTRUNC) {
        return Err(io::Error::new(io::ErrorKind::InvalidData, "a descriptor is attached to the frame"));
    }
    Ok(message.bytes)
}
