//! JSON packets with descriptors over a SEQPACKET socket: the nursery's and init's side of
//! [`sublet_proto::link::nursery`], used by the supervisor's blocking side as well.

use std::{
    io::{self, IoSlice, IoSliceMut},
    os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd, RawFd},
};

use nix::{
    cmsg_space,
    sys::socket::{ControlMessage, ControlMessageOwned, MsgFlags, recvmsg, sendmsg},
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

/// Bytes of a control message's header.
const CONTROL_HEADER_BYTES: usize = size_of::<usize>() + 2 * size_of::<i32>();

/// The descriptors that are there of a message whose others could not be taken. The kernel says how many it has put into
/// `control`, which was zeros, and puts in nothing when there was none.
fn some_arrived(control: &[u8]) -> Vec<OwnedFd> {
    arrived(control).into_iter().map(sys::received_fd).collect()
}

fn arrived(control: &[u8]) -> Vec<RawFd> {
    let Some((length, rest)) = control.split_first_chunk() else { return Vec::new() };
    let Some((level, rest)) = rest.split_first_chunk() else { return Vec::new() };
    let Some((kind, descriptors)) = rest.split_first_chunk() else { return Vec::new() };
    if (i32::from_ne_bytes(*level), i32::from_ne_bytes(*kind)) != (libc::SOL_SOCKET, libc::SCM_RIGHTS) {
        return Vec::new();
    }
    let bytes = usize::from_ne_bytes(*length).saturating_sub(CONTROL_HEADER_BYTES).min(descriptors.len());
    let (numbers, _) = descriptors[..bytes].as_chunks();
    numbers.iter().map(|number| RawFd::from_ne_bytes(*number)).collect()
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
    let (length, descriptors, cut) = loop {
        let mut slices = [IoSliceMut::new(&mut buffer)];
        match recvmsg::<()>(socket.as_raw_fd(), &mut slices, space.as_deref_mut(), flags) {
            Ok(message) => {
                let mut descriptors = Vec::new();
                let (length, flags) = (message.bytes, message.flags);
                if flags.contains(MsgFlags::MSG_CTRUNC) {
                    // Nobody asked for any; or this process may have no more of them. Then some may be here all the same, which
                    // are of no use without the others.
                    drop(space.as_deref().map(some_arrived));
                    break (length, descriptors, flags.contains(MsgFlags::MSG_TRUNC) || space.is_none());
                }
                let cut = flags.contains(MsgFlags::MSG_TRUNC);
                for control in message.cmsgs()? {
                    if let ControlMessageOwned::ScmRights(raw) = control {
                        descriptors.extend(raw.into_iter().map(sys::received_fd));
                    }
                }
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
        return Err(io::Error::new(
            io::ErrorKind::InvalidData,
            "packet is over its limit or carries a descriptor nobody asked for",
        ));
    }
    let message = serde_json::from_slice(&buffer[..length])?;
    Ok(Received::Message(message, descriptors))
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
    fn descriptors_that_came_before_there_was_no_room_are_known() {
        let control = |length: usize, kind: i32| {
            let head = [&length.to_ne_bytes()[..], &libc::SOL_SOCKET.to_ne_bytes(), &kind.to_ne_bytes()].concat();
            [head, [7_i32, 9, 0, 0].iter().flat_map(|number| number.to_ne_bytes()).collect()].concat()
        };
        assert_eq!(arrived(&control(CONTROL_HEADER_BYTES + 8, libc::SCM_RIGHTS)), [7, 9]);
        assert_eq!(arrived(&control(CONTROL_HEADER_BYTES, libc::SCM_RIGHTS)), [0; 0]);
        assert_eq!(arrived(&control(CONTROL_HEADER_BYTES + 8, libc::SCM_CREDENTIALS)), [0; 0]);
        assert_eq!(arrived(&[0; 64]), [0; 0], "nothing was put in");
        assert_eq!(arrived(&[]), [0; 0]);
        assert_eq!(arrived(&control(usize::MAX, libc::SCM_RIGHTS)).len(), 4, "never more than there is");
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
}
