//! JSON packets with descriptors over a SEQPACKET socket: the nursery's and init's side of
//! [`sublet_proto::link::nursery`], used by the supervisor's blocking side as well.

use std::{
    io::{self, IoSlice, IoSliceMut},
    os::fd::{AsRawFd, BorrowedFd, OwnedFd, RawFd},
};

use nix::{
    cmsg_space,
    sys::socket::{ControlMessage, ControlMessageOwned, MsgFlags, recvmsg, sendmsg},
};
use serde::{Serialize, de::DeserializeOwned};
use sublet_proto::link::nursery::MESSAGE_LIMIT;

use crate::sys;

/// Descriptors one packet may carry.
const DESCRIPTORS_MAX: usize = 4;

/// What came in.
#[derive(Debug)]
pub enum Received<T> {
    /// A packet.
    Message(T, Vec<OwnedFd>),
    /// The other side is gone.
    Closed,
    /// Nothing now (only with `MSG_DONTWAIT`).
    Nothing,
}

/// Sends one packet.
///
/// # Errors
/// What sendmsg says; `EMSGSIZE` for a message over [`MESSAGE_LIMIT`].
pub fn send<T: Serialize>(socket: BorrowedFd<'_>, message: &T, descriptors: &[BorrowedFd<'_>]) -> io::Result<()> {
    let bytes = serde_json::to_vec(message)?;
    if bytes.len() > MESSAGE_LIMIT {
        return Err(io::Error::from_raw_os_error(libc::EMSGSIZE));
    }
    send_bytes(socket, &bytes, descriptors)
}

/// Sends raw bytes with descriptors as one message.
///
/// # Errors
/// What sendmsg says.
pub fn send_bytes(socket: BorrowedFd<'_>, bytes: &[u8], descriptors: &[BorrowedFd<'_>]) -> io::Result<()> {
    let raw: Vec<RawFd> = descriptors.iter().map(AsRawFd::as_raw_fd).collect();
    let rights = [ControlMessage::ScmRights(&raw)];
    let control: &[ControlMessage<'_>] = if raw.is_empty() { &[] } else { &rights };
    loop {
        match sendmsg::<()>(socket.as_raw_fd(), &[IoSlice::new(bytes)], control, MsgFlags::MSG_NOSIGNAL, None) {
            Ok(_) => return Ok(()),
            Err(nix::errno::Errno::EINTR) => {}
            Err(error) => return Err(error.into()),
        }
    }
}

/// Receives one packet; waits for it unless `dont_wait`.
///
/// # Errors
/// What recvmsg says; `InvalidData` for a cut packet or JSON that does not fit.
pub fn receive<T: DeserializeOwned>(socket: BorrowedFd<'_>, dont_wait: bool) -> io::Result<Received<T>> {
    let mut buffer = vec![0; MESSAGE_LIMIT];
    let mut space = cmsg_space!([RawFd; DESCRIPTORS_MAX]);
    let mut flags = MsgFlags::MSG_CMSG_CLOEXEC;
    if dont_wait {
        flags |= MsgFlags::MSG_DONTWAIT;
    }
    let (length, descriptors, cut) = loop {
        let mut slices = [IoSliceMut::new(&mut buffer)];
        match recvmsg::<()>(socket.as_raw_fd(), &mut slices, Some(&mut space), flags) {
            Ok(message) => {
                let mut descriptors = Vec::new();
                for control in message.cmsgs()? {
                    if let ControlMessageOwned::ScmRights(raw) = control {
                        descriptors.extend(raw.into_iter().map(sys::received_fd));
                    }
                }
                let cut = message.flags.intersects(MsgFlags::MSG_TRUNC | MsgFlags::MSG_CTRUNC);
                break (message.bytes, descriptors, cut);
            }
            Err(nix::errno::Errno::EINTR) => {}
            Err(nix::errno::Errno::EAGAIN) => return Ok(Received::Nothing),
            Err(nix::errno::Errno::ECONNRESET) => return Ok(Received::Closed),
            Err(error) => return Err(error.into()),
        }
    };
    if length == 0 {
        return Ok(Received::Closed);
    }
    if cut {
        return Err(io::Error::new(io::ErrorKind::InvalidData, "packet is over its limit"));
    }
    let message = serde_json::from_slice(&buffer[..length])?;
    Ok(Received::Message(message, descriptors))
}
