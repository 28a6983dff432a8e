//! JSON packets with descriptors over a SEQPACKET socket: the nursery's and init's side of
//! [`sublet_proto::link::nursery`], used by the supervisor's blocking side as well.

use std::{
    io::{self, IoSlice},
    os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd, RawFd},
};

use nix::{
    cmsg_space,
    sys::socket::{ControlMessage, MsgFlags, sendmsg},
};
use serde::{Serialize, de::DeserializeOwned};
use sublet_proto::link::nursery::MESSAGE_LIMIT;

use crate::sys;

/// The most descriptors the kernel passes with one message (SCM_MAX_FD). Room for all of them means that every descriptor
/// that arrives gets an owner, whatever is thought of the packet afterwards.
const DESCRIPTORS_MAX: usize = 253;

/// What came in.
#[derive(Debug)]
pub enum Received<T> {
    /// A packet, and the descriptors that came with it: none unless they were asked for.
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

/// Receives one packet that carries no descriptor; waits for it unless `dont_wait`.
///
/// # Errors
/// What recvmsg says; `InvalidData` for a packet that is cut, that carries a descriptor, or whose JSON does not fit.
pub fn receive<T: DeserializeOwned>(socket: BorrowedFd<'_>, dont_wait: bool) -> io::Result<Received<T>> {
    receive_into(socket, dont_wait, None)
}

/// Receives one packet and the descriptors that it carries, however many; the caller judges their number. It is none when
/// this process may not have all of them now: its limit, or that of the host.
///
/// # Errors
/// As [`receive`], but for descriptors.
pub fn receive_with_descriptors<T: DeserializeOwned>(
    socket: BorrowedFd<'_>,
    dont_wait: bool,
) -> io::Result<Received<T>> {
    receive_into(socket, dont_wait, Some(cmsg_space!([RawFd; DESCRIPTORS_MAX])))
}

/// Without `space` for descriptors the kernel closes those that come, and says that it did.
fn receive_into<T: DeserializeOwned>(
    socket: BorrowedFd<'_>,
    dont_wait: bool,
    mut space: Option<Vec<u8>>,
) -> io::Result<Received<T>> {
    let mut buffer = vec![0; MESSAGE_LIMIT];
    let mut flags = MsgFlags::MSG_CMSG_CLOEXEC;
    if dont_wait {
        flags |= MsgFlags::MSG_DONTWAIT;
    }
    let mut was_reset = false;
    let packet = loop {
        match sys::receive(socket, &mut buffer, space.as_deref_mut(), flags) {
            Ok(packet) => break packet,
            Err(nix::errno::Errno::EINTR) => {}
            Err(nix::errno::Errno::EAGAIN) => return Ok(Received::Nothing),
            // The peer has ended with something of ours unread. The kernel says so once, before it hands over what the peer
            // had sent until then: last words must not be lost. Then comes the end.
            Err(nix::errno::Errno::ECONNRESET) if !was_reset => was_reset = true,
            Err(nix::errno::Errno::ECONNRESET) => return Ok(Received::Closed),
            Err(error) => return Err(error.into()),
        }
    };
    if packet.bytes == 0 {
        return Ok(Received::Closed);
    }
    // With room for all of them, control data is cut when this process may have no more descriptors. Then they are the
    // caller's to miss, and the message is whole.
    let is_refused = packet.flags.contains(MsgFlags::MSG_CTRUNC) && space.is_none();
    if packet.flags.contains(MsgFlags::MSG_TRUNC) || is_refused {
        return Err(io::Error::new(
            io::ErrorKind::InvalidData,
            "packet is over its limit or carries a descriptor nobody asked for",
        ));
    }
    let message = serde_json::from_slice(&buffer[..packet.bytes])?;
    Ok(Received::Message(message, packet.descriptors))
}

/// Makes `socket` take no descriptors: who attaches one to what it sends gets EPERM, and nothing arrives. What has been sent
/// before still arrives, so this comes before the other end is given to anybody. False where the kernel has no such option
/// (it came with Linux 6.16).
///
/// # Errors
/// When the option is there and cannot be set.
pub fn refuse_descriptors(socket: BorrowedFd<'_>) -> io::Result<bool> {
    match sys::set_pass_rights(socket, false) {
        Ok(()) => Ok(true),
        Err(error) if error.raw_os_error() == Some(libc::ENOPROTOOPT) => Ok(false),
        Err(error) => Err(error),
    }
}

/// Whether this kernel lets a socket take no descriptors; see [`refuse_descriptors`].
pub fn can_refuse_descriptors() -> bool {
    use nix::sys::socket::{AddressFamily, SockFlag, SockType, socketpair};
    let pair = socketpair(AddressFamily::Unix, SockType::Stream, None, SockFlag::SOCK_CLOEXEC);
    // Without a socket nothing was learnt, and the way that works on every kernel is taken.
    pair.is_ok_and(|(socket, _)| refuse_descriptors(socket.as_fd()).unwrap_or(false))
}

#[cfg(test)]
mod tests {
    use std::{fs, os::unix::net::UnixDatagram};

    use nix::sys::socket::{AddressFamily, SockFlag, SockType, socketpair};

    use super::*;

    fn pair() -> (OwnedFd, OwnedFd) {
        socketpair(AddressFamily::Unix, SockType::SeqPacket, None, SockFlag::SOCK_CLOEXEC).unwrap()
    }

    /// Open descriptors of this process that lead to `target`.
    fn open(target: &str) -> usize {
        let entries = fs::read_dir("/proc/self/fd").unwrap().flatten();
        entries.filter(|entry| fs::read_link(entry.path()).is_ok_and(|link| link.to_string_lossy() == target)).count()
    }

    #[test]
    fn every_descriptor_that_arrives_is_owned_and_none_is_kept_that_nobody_asked_for() {
        let (from, to) = pair();
        // A file that no other test has open.
        let path = std::env::temp_dir().join(format!("sublet-link-{}", std::process::id()));
        let file = fs::File::create_new(&path).unwrap();
        let name = path.to_string_lossy().into_owned();
        for count in [1, 2, 3, 4, 5, DESCRIPTORS_MAX] {
            let attached = vec![file.as_fd(); count];
            send(from.as_fd(), &"text", &attached).unwrap();
            match receive_with_descriptors::<String>(to.as_fd(), true).unwrap() {
                Received::Message(text, descriptors) => {
                    assert_eq!((text.as_str(), descriptors.len(), open(&name)), ("text", count, 1 + count));
                }
                other => panic!("{other:?}"),
            }
            assert_eq!(open(&name), 1, "{count}");
            send(from.as_fd(), &"text", &attached).unwrap();
            let refused = receive::<String>(to.as_fd(), true).unwrap_err();
            assert_eq!((refused.kind(), open(&name)), (io::ErrorKind::InvalidData, 1), "{count}");
            send(from.as_fd(), &"next", &[]).unwrap();
            assert!(
                matches!(receive::<String>(to.as_fd(), true).unwrap(), Received::Message(text, _) if text == "next")
            );
        }
        drop(file);
        fs::remove_file(path).unwrap();
    }

    #[test]
    fn socket_that_refuses_descriptors_gets_none_and_its_sender_is_told() {
        let (from, to) = UnixDatagram::pair().unwrap();
        if !refuse_descriptors(to.as_fd()).unwrap() {
            assert!(!can_refuse_descriptors());
            return;
        }
        assert!(can_refuse_descriptors());
        let refused = send_bytes(from.as_fd(), b"x", &[from.as_fd()]).unwrap_err();
        assert_eq!(refused.raw_os_error(), Some(libc::EPERM));
        send_bytes(from.as_fd(), b"x", &[]).unwrap();
        send_bytes(to.as_fd(), b"x", &[to.as_fd()]).unwrap();
    }

    #[test]
    fn last_words_of_a_peer_that_leaves_something_unread_arrive() {
        let (ours, theirs) = pair();
        send(ours.as_fd(), &"never read", &[]).unwrap();
        send(theirs.as_fd(), &"last words", &[]).unwrap();
        drop(theirs);
        let received = receive::<String>(ours.as_fd(), true).unwrap();
        assert!(matches!(received, Received::Message(text, _) if text == "last words"));
        assert!(matches!(receive::<String>(ours.as_fd(), true).unwrap(), Received::Closed));
    }
}
