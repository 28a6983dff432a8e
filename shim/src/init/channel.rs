//! The launcher's side of the channel: blocking frames on descriptor 3. No descriptor travels with a frame.

use std::{
    io::{self, IoSlice},
    os::fd::{AsRawFd, BorrowedFd},
};

use nix::sys::socket::{MsgFlags, recv, sendmsg};
use sublet_proto::link::frame::{HEADER_LEN, Header};

/// The first read of a frame asks for this much: header and a small payload in one system call.
const FIRST_READ: usize = 4096;

/// A blocking channel.
#[derive(Clone, Copy, Debug)]
pub struct Channel(BorrowedFd<'static>);

impl Channel {
    /// The channel on `socket`.
    pub fn new(socket: BorrowedFd<'static>) -> Self {
        Self(socket)
    }

    /// The socket that it reads and writes, for an event loop to watch.
    pub fn socket(self) -> BorrowedFd<'static> {
        self.0
    }

    /// Sends one frame.
    pub fn send(self, mut header: Header, payload: &[u8]) -> io::Result<()> {
        header.length = u32::try_from(payload.len()).map_err(io::Error::other)?;
        self.write(&header.encode(), payload)
    }

    /// Announces a payload without sending it: how an answer over the limit is made known.
    pub fn send_header(self, header: Header) -> io::Result<()> {
        self.write(&header.encode(), &[])
    }

    fn write(self, header: &[u8], payload: &[u8]) -> io::Result<()> {
        let total = header.len() + payload.len();
        let mut sent = 0;
        while sent < total {
            let slices = [
                IoSlice::new(&header[sent.min(header.len())..]),
                IoSlice::new(&payload[sent.saturating_sub(header.len())..]),
            ];
            match sendmsg::<()>(self.0.as_raw_fd(), &slices, &[], MsgFlags::MSG_NOSIGNAL, None) {
                Ok(bytes) => sent += bytes,
                Err(nix::errno::Errno::EINTR) => {}
                Err(error) => return Err(error.into()),
            }
        }
        Ok(())
    }

    /// The next frame; none when the supervisor has closed the channel. There is never more than one under way.
    pub fn receive(self, limit: u32) -> io::Result<Option<(Header, Vec<u8>)>> {
        self.receive_with(MsgFlags::empty(), limit)
    }

    /// The frame that is there. Its rest is waited for: it was written by the supervisor in one go, and waiting keeps nobody
    /// waiting but its own worker.
    ///
    /// # Errors
    /// [`io::ErrorKind::WouldBlock`]: there is none.
    pub fn receive_now(self, limit: u32) -> io::Result<Option<(Header, Vec<u8>)>> {
        self.receive_with(MsgFlags::MSG_DONTWAIT, limit)
    }

    /// `first`: how to wait for its first bytes.
    fn receive_with(self, first: MsgFlags, limit: u32) -> io::Result<Option<(Header, Vec<u8>)>> {
        let mut bytes = [0; FIRST_READ];
        let mut filled = self.read(&mut bytes, first)?;
        if filled > 0 && filled < HEADER_LEN {
            self.fill(&mut bytes[filled..HEADER_LEN])?;
            filled = HEADER_LEN;
        }
        if filled == 0 {
            return Ok(None);
        }
        let (head, rest) = bytes[..filled].split_first_chunk().ok_or(io::ErrorKind::UnexpectedEof)?;
        let header = Header::decode(head, limit).map_err(io::Error::other)?;
        let length = header.length as usize;
        if rest.len() > length {
            return Err(io::Error::other("bytes follow the frame"));
        }
        let mut payload = vec![0; length];
        payload[..rest.len()].copy_from_slice(rest);
        self.fill(&mut payload[rest.len()..])?;
        Ok(Some((header, payload)))
    }

    /// Fills `buffer` with what is still to come.
    fn fill(self, buffer: &mut [u8]) -> io::Result<()> {
        let mut filled = 0;
        while filled < buffer.len() {
            match self.read(&mut buffer[filled..], MsgFlags::empty())? {
                0 => return Err(io::ErrorKind::UnexpectedEof.into()),
                bytes => filled += bytes,
            }
        }
        Ok(())
    }

    /// Reads once; 0 when the other side has closed.
    fn read(self, buffer: &mut [u8], how: MsgFlags) -> io::Result<usize> {
        loop {
            match recv(self.0.as_raw_fd(), buffer, how) {
                Err(nix::errno::Errno::EINTR) => {}
                result => return Ok(result?),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::os::{
        fd::{AsFd, OwnedFd},
        unix::net::UnixStream,
    };

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
        for length in [0, 1, fits - 1, fits, fits + 1, 8 << 20] {
            let sent: Vec<u8> = (0..length).map(|at| (at / 7) as u8).collect();
            // A large one does not fit into the socket.
            std::thread::scope(|scope| {
                scope.spawn(|| from.send(Header::bare(Kind::Request), &sent).unwrap());
                let (header, payload) = to.receive(u32::MAX).unwrap().unwrap();
                assert_eq!((header.kind, header.length as usize), (Kind::Request, length));
                assert!(payload == sent, "{length}");
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
