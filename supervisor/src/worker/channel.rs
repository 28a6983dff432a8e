//! The supervisor's side of a worker's channel. What comes from it is a stranger's: every length is checked before it is
//! believed, every frame must be the one that is due.

use std::{
    io::{self, IoSlice, IoSliceMut},
    os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd, RawFd},
    os::unix::fs::FileExt,
};

use bytes::{Bytes, BytesMut};
use nix::{
    cmsg_space,
    fcntl::{FcntlArg, OFlag, SealFlag, fcntl},
    sys::{
        memfd::{MFdFlags, memfd_create},
        socket::{ControlMessage, ControlMessageOwned, MsgFlags, recvmsg, sendmsg},
    },
};
use sublet_proto::link::frame::{FLAG_MEMFD, FrameError, HEADER_LEN, Header, MEMFD_THRESHOLD};

use crate::socket::{Socket, Taken};

/// First read of a frame asks for this much: header and a small payload in one system call.
const FIRST_READ: usize = 4 * 1024;
/// Any further read asks for no more than this.
const READ_MAX: usize = 256 * 1024;

/// What went wrong on a channel.
#[derive(Debug, thiserror::Error)]
pub enum ChannelError {
    /// The other side closed it.
    #[error("the channel was closed")]
    Closed,
    /// The bytes are not a frame, or not the one that is due.
    #[error("{0}")]
    Violation(String),
    /// A frame larger than may be given.
    #[error("the frame announces {seen} bytes, {limit} are allowed")]
    TooLarge {
        /// Announced.
        seen: u32,
        /// Allowed.
        limit: u32,
    },
    /// The host failed us.
    #[error("channel: {0}")]
    Os(io::Error),
}

impl From<io::Error> for ChannelError {
    fn from(error: io::Error) -> Self {
        match error.kind() {
            io::ErrorKind::BrokenPipe | io::ErrorKind::ConnectionReset => Self::Closed,
            _ => Self::Os(error),
        }
    }
}

/// One worker's channel.
#[derive(Debug)]
pub struct Channel {
    socket: Socket,
    buffer: BytesMut,
    /// Of the last frame that has begun in the buffer: the kernel ends a read with the bytes a descriptor came with.
    file: Option<OwnedFd>,
}

impl Channel {
    /// Takes the socket over; inside a tokio runtime.
    ///
    /// # Errors
    /// When it cannot be registered.
    pub fn new(socket: OwnedFd) -> io::Result<Self> {
        fcntl(&socket, FcntlArg::F_SETFL(OFlag::O_NONBLOCK))?;
        let socket = Socket::new(socket)?;
        Ok(Self { socket, buffer: BytesMut::new(), file: None })
    }

    /// Sends one frame.
    ///
    /// # Errors
    /// [`ChannelError::Closed`] and [`ChannelError::Os`].
    pub async fn send(&mut self, mut header: Header, payload: &[u8]) -> Result<(), ChannelError> {
        header.length = u32::try_from(payload.len()).map_err(|e| ChannelError::Os(io::Error::other(e)))?;
        let file = if payload.len() > MEMFD_THRESHOLD {
            header.flags |= FLAG_MEMFD;
            Some(sealed_file(payload)?)
        } else {
            None
        };
        let payload = if file.is_some() { &[] } else { payload };
        let head = header.encode();
        let total = head.len() + payload.len();
        let mut sent = 0;
        while sent < total {
            let slices = [
                IoSlice::new(&head[sent.min(head.len())..]),
                IoSlice::new(&payload[sent.saturating_sub(head.len())..]),
            ];
            let raw = file.as_ref().filter(|_| sent == 0).map(|file| [file.as_raw_fd()]);
            let rights = raw.as_ref().map(|raw| [ControlMessage::ScmRights(raw)]);
            let control: &[ControlMessage<'_>] = rights.as_ref().map_or(&[], |rights| rights);
            let attempt = |socket: &OwnedFd| -> io::Result<usize> {
                Ok(sendmsg::<()>(socket.as_raw_fd(), &slices, control, MsgFlags::MSG_NOSIGNAL, None)?)
            };
            sent += self.socket.write(attempt).await?;
        }
        Ok(())
    }

    /// Whether the worker has said something nobody asked for.
    pub fn has_unread(&mut self) -> bool {
        let mut byte = [0];
        let peeked = nix::sys::socket::recv(
            self.socket.fd().as_raw_fd(),
            &mut byte,
            MsgFlags::MSG_PEEK | MsgFlags::MSG_DONTWAIT,
        );
        self.surplus() > 0 || self.file.is_some() || peeked != Err(nix::errno::Errno::EAGAIN)
    }

    /// Bytes that came with the last frame and are not part of it.
    pub fn surplus(&self) -> usize {
        self.buffer.len()
    }

    /// The next frame, its payload at most `limit` bytes.
    ///
    /// # Errors
    /// What the worker did wrong.
    pub async fn receive(&mut self, limit: u32) -> Result<(Header, Bytes), ChannelError> {
        while self.buffer.len() < HEADER_LEN {
            self.read(FIRST_READ).await?;
        }
        let mut head = [0; HEADER_LEN];
        head.copy_from_slice(&self.buffer[..HEADER_LEN]);
        let header = Header::decode(&head, limit).map_err(|error| match error {
            FrameError::TooLarge { seen, limit } => ChannelError::TooLarge { seen, limit },
            other => ChannelError::Violation(other.to_string()),
        })?;
        let in_line = if header.flags & FLAG_MEMFD == 0 { header.length as usize } else { 0 };
        let total = HEADER_LEN + in_line;
        // Room for all of it is only addresses until it is written to.
        self.buffer.reserve(total.saturating_sub(self.buffer.len()));
        while self.buffer.len() < total {
            // Never the whole rest at once: what is asked for is cleared first, and a worker that sends byte by byte must
            // not have that done over and over for all that it has announced.
            self.read((total - self.buffer.len()).min(READ_MAX)).await?;
        }
        let frame = self.buffer.split_to(total).freeze();
        if header.flags & FLAG_MEMFD != 0 {
            let file = self.file.take();
            let file =
                file.ok_or_else(|| ChannelError::Violation("the frame announces a memfd and carries none".into()))?;
            return Ok((header, read_sealed(file, header.length)?));
        }
        if self.file.is_some() && self.buffer.is_empty() {
            return Err(ChannelError::Violation("the frame carries a descriptor it does not announce".into()));
        }
        Ok((header, frame.slice(HEADER_LEN..)))
    }

    /// Takes in what is there of the next frame, for [`Self::receive`]. Returns whether there is anything.
    ///
    /// # Errors
    /// What the worker did wrong.
    pub fn take_in(&mut self) -> Result<bool, ChannelError> {
        if self.surplus() > 0 {
            return Ok(true);
        }
        self.buffer.resize(FIRST_READ, 0);
        let received = receive_some(self.socket.fd().as_fd(), &mut self.buffer);
        match received {
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                self.buffer.clear();
                Ok(false)
            }
            received => self.taken(0, received).map(|()| true),
        }
    }

    async fn read(&mut self, most: usize) -> Result<(), ChannelError> {
        let start = self.buffer.len();
        self.buffer.resize(start + most, 0);
        let (socket, buffer) = (&self.socket, &mut self.buffer);
        let receive = |socket: &OwnedFd| {
            let (length, descriptors) = receive_some(socket.as_fd(), &mut buffer[start..])?;
            let is_all = 0 < length && length < most && descriptors.is_empty();
            Ok(Taken { what: (length, descriptors), is_all })
        };
        let received = socket.read(receive).await;
        self.taken(start, received)
    }

    /// Keeps what was read behind the first `start` bytes of the buffer.
    fn taken(&mut self, start: usize, received: io::Result<(usize, Vec<OwnedFd>)>) -> Result<(), ChannelError> {
        let (length, descriptors) = match received {
            Ok(received) => received,
            Err(error) => {
                self.buffer.truncate(start);
                return Err(error.into());
            }
        };
        self.buffer.truncate(start + length);
        if length == 0 {
            return Err(ChannelError::Closed);
        }
        for descriptor in descriptors {
            if self.file.replace(descriptor).is_some() {
                return Err(ChannelError::Violation("more than one descriptor".into()));
            }
        }
        Ok(())
    }
}

fn receive_some(socket: BorrowedFd<'_>, buffer: &mut [u8]) -> io::Result<(usize, Vec<OwnedFd>)> {
    // Room for one: with more the kernel drops the rest and says so, and that is a violation.
    let mut space = cmsg_space!([RawFd; 1]);
    let mut slices = [IoSliceMut::new(buffer)];
    let flags = MsgFlags::MSG_CMSG_CLOEXEC | MsgFlags::MSG_DONTWAIT;
    let message = recvmsg::<()>(socket.as_raw_fd(), &mut slices, Some(&mut space), flags)?;
    let mut descriptors = Vec::new();
    for control in message.cmsgs()? {
        if let ControlMessageOwned::ScmRights(raw) = control {
            descriptors.extend(raw.into_iter().map(crate::sys::received_fd));
        }
    }
    if message.flags.contains(MsgFlags::MSG_CTRUNC) {
        return Err(io::Error::new(io::ErrorKind::InvalidData, "too many descriptors"));
    }
    Ok((message.bytes, descriptors))
}

fn sealed_file(payload: &[u8]) -> io::Result<OwnedFd> {
    let fd = memfd_create(c"payload", MFdFlags::MFD_CLOEXEC | MFdFlags::MFD_ALLOW_SEALING)?;
    let file = std::fs::File::from(fd);
    file.write_all_at(payload, 0)?;
    fcntl(&file, FcntlArg::F_ADD_SEALS(seals() | SealFlag::F_SEAL_SEAL))?;
    Ok(file.into())
}

fn seals() -> SealFlag {
    SealFlag::F_SEAL_WRITE | SealFlag::F_SEAL_SHRINK | SealFlag::F_SEAL_GROW
}

/// Reads a memfd of a stranger: it must be one, sealed, and of the announced size.
fn read_sealed(fd: OwnedFd, length: u32) -> Result<Bytes, ChannelError> {
    let violation = |what: &str| ChannelError::Violation(what.into());
    // Only memfds have seals; everything else answers EINVAL.
    let found = fcntl(&fd, FcntlArg::F_GET_SEALS).map_err(|_| violation("the attached descriptor is not a memfd"))?;
    if !SealFlag::from_bits_truncate(found).contains(seals()) {
        return Err(violation("the attached memfd is not sealed against writing, shrinking and growing"));
    }
    let file = std::fs::File::from(fd);
    if file.metadata()?.len() != u64::from(length) {
        return Err(violation("the attached memfd is not of the announced size"));
    }
    let mut payload = vec![0; length as usize];
    file.read_exact_at(&mut payload, 0)?;
    Ok(payload.into())
}
