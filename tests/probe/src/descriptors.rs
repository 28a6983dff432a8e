//! Frames with descriptors attached, which no function has a reason to send.

use std::{
    io::{self, IoSlice, Write as _},
    net::{TcpListener, TcpStream},
    os::{
        fd::{AsFd, AsRawFd, BorrowedFd, RawFd},
        unix::net::UnixStream,
    },
    time::Duration,
};

use nix::{
    errno::Errno,
    sys::socket::{ControlMessage, MsgFlags, sendmsg, setsockopt, sockopt},
};
use sublet_proto::link::frame::Header;

use crate::frames::send;

/// How long whoever closes the socket of [`linger`] last has to wait, in seconds.
const LINGER_SECONDS: i32 = 20;

fn send_with(channel: &UnixStream, bytes: &[u8], descriptors: &[BorrowedFd<'_>]) -> nix::Result<usize> {
    let raw: Vec<RawFd> = descriptors.iter().map(AsRawFd::as_raw_fd).collect();
    let rights = [ControlMessage::ScmRights(&raw)];
    sendmsg::<()>(channel.as_raw_fd(), &[IoSlice::new(bytes)], &rights, MsgFlags::empty(), None)
}

/// Attaches so many descriptors to an answer. Where the kernel does not let them through, it answers that instead.
pub fn attach(channel: &mut UnixStream, good: &Header, count: usize) -> io::Result<()> {
    let zero = std::fs::File::open("/dev/zero")?;
    let frame = [&Header { length: 2, ..*good }.encode()[..], b"hi"].concat();
    match send_with(channel, &frame, &vec![zero.as_fd(); count]) {
        Ok(sent) => channel.write_all(&frame[sent..]),
        Err(Errno::EPERM) => send(channel, *good, b"EPERM"),
        Err(error) => Err(error.into()),
    }
}

/// Attaches a TCP socket that makes the last close of it wait, to the first byte of an answer, lets go of its own copy, and
/// breaks the protocol, so that whoever received it drops it. Then it stays for three seconds and answers as best it can.
pub fn linger(channel: &mut UnixStream, good: &Header) -> io::Result<()> {
    let listener = TcpListener::bind("127.0.0.1:0")?;
    let mut socket = TcpStream::connect(listener.local_addr()?)?;
    // Kept, and never read.
    let (_other, _) = listener.accept()?;
    socket.set_nonblocking(true)?;
    while socket.write(&[0; 64 * 1024]).is_ok() {}
    let linger = nix::libc::linger { l_onoff: 1, l_linger: LINGER_SECONDS };
    // A filter may refuse it; then there is nothing to wait for, and the test proves nothing: that is an error.
    setsockopt(&socket, sockopt::Linger, &linger)?;
    let frame = Header { length: 1, flags: 1, ..*good }.encode();
    let sent = send_with(channel, &frame[..1], &[socket.as_fd()]);
    drop(socket);
    let passed = sent.is_ok();
    if passed {
        std::thread::sleep(Duration::from_millis(20));
        channel.write_all(&frame[1..]).ok();
    }
    std::thread::sleep(Duration::from_secs(3));
    if passed { Ok(()) } else { send(channel, *good, b"EPERM") }
}
