//! The launcher's side of the channel: blocking frames on descriptor 3.

use std::{
    io::{self, IoSlice, IoSliceMut, Read},
    os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd, RawFd},
};

use nix::{
    cmsg_space,
    fcntl::{FcntlArg, SealFlag, fcntl},
    sys::{
        memfd::{MFdFlags, memfd_create},
        socket::{ControlMessage, ControlMessageOwned, MsgFlags, recvmsg, sendmsg},
    },
};
use sublet_proto::link::frame::{FLAG_MEMFD, HEADER_LEN, Header, MEMFD_THRESHOLD};

use crate::sys;

/// The first read of a frame asks for this much: header and a small payload in one system call.
const FIRST_READ: usize = 4096;

/// What came with a header.
#[derive(Debug)]
pub enum Payload {
    /// In line.
    Bytes(Vec<u8>),
    /// A sealed memfd of the header's length.
    File(OwnedFd),
}

impl Payload {
    /// The payload in memory.
    pub fn into_bytes(self) -> io::Result<Vec<u8>> {
        match self {
            Self::Bytes(bytes) => Ok(bytes),
            Self::File(fd) => {
                let mut bytes = Vec::new();
                std::fs::File::from(fd).read_to_end(&mut bytes)?;
                Ok(bytes)
            }
        }
    }

    /// The payload as a file positioned at its start, to be somebody's stdin.
    pub fn into_file(self) -> io::Result<OwnedFd> {
        match self {
            Self::File(fd) => Ok(fd),
            Self::Bytes(bytes) => memory_file(&bytes),
        }
    }
}

/// A memfd that holds `bytes`, positioned at its start.
fn memory_file(bytes: &[u8]) -> io::Result<OwnedFd> {
    let fd = memfd_create(c"payload", MFdFlags::MFD_CLOEXEC | MFdFlags::MFD_ALLOW_SEALING)?;
    let mut at = 0;
    while at < bytes.len() {
        at += nix::sys::uio::pwrite(&fd, &bytes[at..], at as libc::off_t)?;
    }
    Ok(fd)
}

/// A blocking channel.
#[derive(Clone, Copy, Debug)]
pub struct Channel(BorrowedFd<'static>);

impl Channel {
    /// The channel on `socket`.
    pub fn new(socket: BorrowedFd<'static>) -> Self {
        Self(socket)
    }

    /// Sends one frame; a large payload as a sealed memfd.
    pub fn send(self, mut header: Header, payload: &[u8]) -> io::Result<()> {
        header.length = u32::try_from(payload.len()).map_err(io::Error::other)?;
        if payload.len() <= MEMFD_THRESHOLD {
            return self.write(&header.encode(), payload, None);
        }
        header.flags |= FLAG_MEMFD;
        let file = memory_file(payload)?;
        let seals = SealFlag::F_SEAL_WRITE | SealFlag::F_SEAL_SHRINK | SealFlag::F_SEAL_GROW | SealFlag::F_SEAL_SEAL;
        fcntl(&file, FcntlArg::F_ADD_SEALS(seals))?;
        self.write(&header.encode(), &[], Some(file.as_fd()))
    }

    /// Announces a payload without sending it: how an answer over the limit is made known.
    pub fn send_header(self, header: Header) -> io::Result<()> {
        self.write(&header.encode(), &[], None)
    }

    fn write(self, header: &[u8], payload: &[u8], descriptor: Option<BorrowedFd<'_>>) -> io::Result<()> {
        let total = header.len() + payload.len();
        let mut sent = 0;
        while sent < total {
            let slices = [
                IoSlice::new(&header[sent.min(header.len())..]),
                IoSlice::new(&payload[sent.saturating_sub(header.len())..]),
            ];
            let raw = descriptor.map(|fd| [fd.as_raw_fd()]);
            let rights = raw.as_ref().filter(|_| sent == 0).map(|raw| [ControlMessage::ScmRights(raw)]);
            let control: &[ControlMessage<'_>] = rights.as_ref().map_or(&[], |rights| rights);
            match sendmsg::<()>(self.0.as_raw_fd(), &slices, control, MsgFlags::MSG_NOSIGNAL, None) {
                Ok(bytes) => sent += bytes,
                Err(nix::errno::Errno::EINTR) => {}
                Err(error) => return Err(error.into()),
            }
        }
        Ok(())
    }

    /// The next frame; none when the supervisor has closed the channel. There is never more than one under way.
    pub fn receive(self, limit: u32) -> io::Result<Option<(Header, Payload)>> {
        self.receive_with(MsgFlags::empty(), limit)
    }

    /// The frame that is there. Its rest is waited for: it was written by the supervisor in one go, and waiting keeps nobody
    /// waiting but its own worker.
    ///
    /// # Errors
    /// [`io::ErrorKind::WouldBlock`]: there is none.
    pub fn receive_now(self, limit: u32) -> io::Result<Option<(Header, Payload)>> {
        self.receive_with(MsgFlags::MSG_DONTWAIT, limit)
    }

    /// `first`: how to wait for its first bytes.
    fn receive_with(self, first: MsgFlags, limit: u32) -> io::Result<Option<(Header, Payload)>> {
        let (mut bytes, mut descriptor) = ([0; FIRST_READ], None);
        let mut filled = self.read(&mut bytes, first, &mut descriptor)?;
        if filled > 0 && filled < HEADER_LEN {
            self.fill(&mut bytes[filled..HEADER_LEN], &mut descriptor)?;
            filled = HEADER_LEN;
        }
        if filled == 0 {
            return Ok(None);
        }
        let (head, rest) = bytes[..filled].split_first_chunk().ok_or(io::ErrorKind::UnexpectedEof)?;
        let header = Header::decode(head, limit).map_err(io::Error::other)?;
        let in_line = if header.flags & FLAG_MEMFD == 0 { header.length as usize } else { 0 };
        if rest.len() > in_line {
            return Err(io::Error::other("bytes follow the frame"));
        }
        if header.flags & FLAG_MEMFD != 0 {
            let file = descriptor.ok_or_else(|| io::Error::other("frame announces a memfd and carries none"))?;
            return Ok(Some((header, Payload::File(file))));
        }
        let mut payload = vec![0; in_line];
        payload[..rest.len()].copy_from_slice(rest);
        self.fill(&mut payload[rest.len()..], &mut None)?;
        Ok(Some((header, Payload::Bytes(payload))))
    }

    /// Fills `buffer` with what is still to come.
    fn fill(self, buffer: &mut [u8], descriptor: &mut Option<OwnedFd>) -> io::Result<()> {
        let mut filled = 0;
        while filled < buffer.len() {
            match self.read(&mut buffer[filled..], MsgFlags::empty(), descriptor)? {
                0 => return Err(io::ErrorKind::UnexpectedEof.into()),
                bytes => filled += bytes,
            }
        }
        Ok(())
    }

    /// Reads once; 0 when the other side has closed.
    fn read(self, buffer: &mut [u8], how: MsgFlags, descriptor: &mut Option<OwnedFd>) -> io::Result<usize> {
        let mut space = cmsg_space!([RawFd; 1]);
        let mut slices = [IoSliceMut::new(buffer)];
        let message = loop {
            match recvmsg::<()>(self.0.as_raw_fd(), &mut slices, Some(&mut space), how | MsgFlags::MSG_CMSG_CLOEXEC) {
                Err(nix::errno::Errno::EINTR) => {}
                result => break result?,
            }
        };
        for control in message.cmsgs()? {
            if let ControlMessageOwned::ScmRights(raw) = control {
                *descriptor = raw.into_iter().map(sys::received_fd).next_back();
            }
        }
        Ok(message.bytes)
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::net::UnixStream;

    use sublet_proto::link::frame::Kind;

    use super::*;

    /// Both ends, open for as long as the test program runs.
    fn pair() -> (Channel, Channel) {
        let (one, other) = UnixStream::pair().unwrap();
        let lasting = |stream: UnixStream| {
            let fd: &'static OwnedFd = Box::leak(Box::new(stream.into()));
            Channel::new(fd.as_fd())
        };
        (lasting(one), lasting(other))
    }

    #[test]
    fn frames_of_every_size_around_the_first_read_are_whole() {
        let (from, to) = pair();
        let fits = FIRST_READ - HEADER_LEN;
        for length in [0, 1, fits - 1, fits, fits + 1, MEMFD_THRESHOLD, MEMFD_THRESHOLD + 1] {
            let sent: Vec<u8> = (0..length).map(|at| (at / 7) as u8).collect();
            // A large one does not fit into the socket.
            std::thread::scope(|scope| {
                scope.spawn(|| from.send(Header::bare(Kind::Request), &sent).unwrap());
                let (header, payload) = to.receive(u32::MAX).unwrap().unwrap();
                assert_eq!((header.kind, header.length as usize), (Kind::Request, length));
                assert_eq!(matches!(payload, Payload::File(_)), length > MEMFD_THRESHOLD, "{length}");
                assert!(payload.into_bytes().unwrap() == sent, "{length}");
            });
        }
    }

    #[test]
    fn none_two_at_once_and_a_cut_one_are_told_apart() {
        let (from, to) = pair();
        assert_eq!(to.receive_now(9).unwrap_err().kind(), io::ErrorKind::WouldBlock);
        from.send(Header::bare(Kind::Request), b"one").unwrap();
        from.send(Header::bare(Kind::Request), b"two").unwrap();
        assert!(to.receive_now(9).unwrap_err().to_string().contains("follow"), "there is one at a time");
        let (from, to) = pair();
        let head = Header::bare(Kind::Request).encode();
        nix::sys::socket::send(from.0.as_raw_fd(), &head[..5], MsgFlags::empty()).unwrap();
        nix::sys::socket::shutdown(from.0.as_raw_fd(), nix::sys::socket::Shutdown::Write).unwrap();
        assert_eq!(to.receive_now(9).unwrap_err().kind(), io::ErrorKind::UnexpectedEof);
        assert!(to.receive(9).unwrap().is_none(), "the end");
    }
}
