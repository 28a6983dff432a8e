//! The function's side of the channel: blocking frames on a stream socket.
//!
//! A request is received with one system call when it is small, and answered with one. Lengths are checked before
//! anything is allocated, although the other side is trusted: a function must not be the one that turns a bug there into
//! an out-of-memory kill here.

use std::{
    borrow::Cow,
    fs::File,
    io::{self, IoSlice, IoSliceMut},
    os::{
        fd::{AsFd, AsRawFd, OwnedFd, RawFd},
        unix::fs::FileExt,
    },
    sync::Arc,
};

use nix::{
    cmsg_space,
    errno::Errno,
    fcntl::{FcntlArg, SealFlag, fcntl},
    sys::{
        memfd::{MFdFlags, memfd_create},
        resource::{Resource, getrlimit},
        socket::{ControlMessage, ControlMessageOwned, MsgFlags, recvmsg, sendmsg},
    },
};
use sublet_proto::link::frame::{FLAG_MEMFD, HEADER_LEN, Header, MEMFD_THRESHOLD, PAYLOAD_LIMIT};

use crate::sys;

/// First read of a frame asks for this much: header and a small payload in one system call.
const FIRST_READ: usize = 16 * 1024;

/// One end of a channel.
#[derive(Debug)]
pub struct Channel {
    sender: Sender,
    /// Kept between frames; grows to the largest frame in line.
    buffer: Vec<u8>,
    /// Room for what travels beside the bytes.
    control: Vec<u8>,
}

/// What writes on a channel; a call has one too, for pieces of its answer.
#[derive(Clone, Debug)]
pub struct Sender(Arc<OwnedFd>);

/// A payload that is ready to be sent, so that what can fail for lack of room has not failed after a half-sent frame.
#[derive(Debug)]
pub struct Parcel<'a> {
    bytes: &'a [u8],
    file: Option<OwnedFd>,
}

impl<'a> Parcel<'a> {
    /// Copies a large payload into a sealed memfd.
    ///
    /// # Errors
    /// In words for the caller: the payload is over a limit of this worker or of sublet.
    pub fn pack(bytes: &'a [u8]) -> io::Result<Self> {
        if bytes.len() > PAYLOAD_LIMIT as usize {
            let text =
                format!("the answer has {} bytes, and no answer may have more than {PAYLOAD_LIMIT}", bytes.len());
            return Err(io::Error::other(text));
        }
        let file = if bytes.len() > MEMFD_THRESHOLD { Some(sealed_file(bytes)?) } else { None };
        Ok(Self { bytes, file })
    }
}

impl Channel {
    /// The channel on `socket`, which must be blocking.
    pub fn new(socket: OwnedFd) -> Self {
        Self { sender: Sender(Arc::new(socket)), buffer: vec![0; FIRST_READ], control: cmsg_space!(RawFd) }
    }

    /// What writes on it.
    pub fn sender(&self) -> Sender {
        self.sender.clone()
    }
}

impl Sender {
    /// Sends one frame; `header` needs neither length nor the flag of a file.
    ///
    /// # Errors
    /// What sendmsg says; `EPIPE` when the other side has closed.
    pub fn send(&self, header: Header, parcel: &Parcel<'_>) -> io::Result<()> {
        let length = u32::try_from(parcel.bytes.len()).map_err(io::Error::other)?;
        let (flags, payload) = if parcel.file.is_some() { (FLAG_MEMFD, &[][..]) } else { (0, parcel.bytes) };
        let header = Header { length, flags: header.flags | flags, ..header }.encode();
        let total = header.len() + payload.len();
        let mut sent = 0;
        while sent < total {
            let slices = [
                IoSlice::new(&header[sent.min(header.len())..]),
                IoSlice::new(&payload[sent.saturating_sub(header.len())..]),
            ];
            // The descriptor goes with the first bytes, and once.
            let raw = parcel.file.as_ref().filter(|_| sent == 0).map(|file| [file.as_raw_fd()]);
            let rights = raw.as_ref().map(|raw| [ControlMessage::ScmRights(raw)]);
            let control: &[ControlMessage<'_>] = rights.as_ref().map_or(&[], |rights| rights);
            match sendmsg::<()>(self.0.as_raw_fd(), &slices, control, MsgFlags::MSG_NOSIGNAL, None) {
                Ok(bytes) => sent += bytes,
                Err(Errno::EINTR) => {}
                Err(error) => return Err(error.into()),
            }
        }
        Ok(())
    }
}

impl Channel {
    /// The next frame, its payload at most `limit` bytes; none when the other side has closed. Nothing may follow a
    /// frame until it is answered, so that one read may take all there is.
    ///
    /// # Errors
    /// `InvalidData` for what is not a frame, else what the kernel says.
    pub fn receive(&mut self, limit: u32) -> io::Result<Option<(Header, Cow<'_, [u8]>)>> {
        let mut file = None;
        let mut filled = 0;
        while filled < HEADER_LEN {
            match self.read(filled, FIRST_READ, &mut file)? {
                0 if filled == 0 => return Ok(None),
                0 => return Err(io::ErrorKind::UnexpectedEof.into()),
                bytes => filled += bytes,
            }
        }
        let mut head = [0; HEADER_LEN];
        head.copy_from_slice(&self.buffer[..HEADER_LEN]);
        let header = Header::decode(&head, limit).map_err(|error| io::Error::new(io::ErrorKind::InvalidData, error))?;
        let is_file = header.flags & FLAG_MEMFD != 0;
        let total = HEADER_LEN + if is_file { 0 } else { header.length as usize };
        if self.buffer.len() < total {
            self.buffer.resize(total, 0);
        }
        while filled < total {
            match self.read(filled, total, &mut file)? {
                0 => return Err(io::ErrorKind::UnexpectedEof.into()),
                bytes => filled += bytes,
            }
        }
        if filled > total {
            return Err(invalid(&format!("{} bytes follow the frame", filled - total)));
        }
        match (is_file, file) {
            (false, None) => Ok(Some((header, Cow::Borrowed(&self.buffer[HEADER_LEN..total])))),
            (true, Some(file)) => Ok(Some((header, Cow::Owned(read_sealed(file, header.length)?)))),
            (true, None) => Err(invalid("the frame announces a memfd and carries none")),
            (false, Some(_)) => Err(invalid("the frame carries a descriptor it does not announce")),
        }
    }

    /// Reads into the buffer from `start` to at most `end`. 0 when the other side has closed.
    fn read(&mut self, start: usize, end: usize, file: &mut Option<OwnedFd>) -> io::Result<usize> {
        let mut slices = [IoSliceMut::new(&mut self.buffer[start..end])];
        let flags = MsgFlags::MSG_CMSG_CLOEXEC;
        let message = loop {
            match recvmsg::<()>(self.sender.0.as_raw_fd(), &mut slices, Some(&mut self.control), flags) {
                Ok(message) => break message,
                Err(Errno::EINTR) => {}
                // Closed with something unread in it: closed all the same.
                Err(Errno::ECONNRESET) => return Ok(0),
                Err(error) => return Err(error.into()),
            }
        };
        // All become owned before any is judged, so that none stays open.
        let mut received = Vec::new();
        for control in message.cmsgs()? {
            if let ControlMessageOwned::ScmRights(raw) = control {
                received.extend(raw.into_iter().map(sys::received_fd));
            }
        }
        for descriptor in received {
            if file.replace(descriptor).is_some() {
                return Err(invalid("more than one descriptor"));
            }
        }
        Ok(message.bytes)
    }
}

fn invalid(what: &str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, what)
}

fn seals() -> SealFlag {
    SealFlag::F_SEAL_WRITE | SealFlag::F_SEAL_SHRINK | SealFlag::F_SEAL_GROW
}

fn sealed_file(bytes: &[u8]) -> io::Result<OwnedFd> {
    // A memfd is a file to RLIMIT_FSIZE, and the kernel's answer to one byte too many is a signal that ends the process.
    let (limit, _) = getrlimit(Resource::RLIMIT_FSIZE)?;
    if bytes.len() as u64 > limit {
        let length = bytes.len();
        let text = format!("the answer has {length} bytes, and this worker may write {limit}: raise its tmp_size");
        return Err(io::Error::other(text));
    }
    let file = File::from(memfd_create(c"answer", MFdFlags::MFD_CLOEXEC | MFdFlags::MFD_ALLOW_SEALING)?);
    file.write_all_at(bytes, 0)?;
    fcntl(file.as_fd(), FcntlArg::F_ADD_SEALS(seals() | SealFlag::F_SEAL_SEAL))?;
    Ok(file.into())
}

/// The content of a memfd that nobody can change any more and that is as long as was said.
fn read_sealed(fd: OwnedFd, length: u32) -> io::Result<Vec<u8>> {
    let found = fcntl(&fd, FcntlArg::F_GET_SEALS).map_err(|_| invalid("the attached descriptor is not a memfd"))?;
    if !SealFlag::from_bits_truncate(found).contains(seals()) {
        return Err(invalid("the attached memfd is not sealed against writing, shrinking and growing"));
    }
    let file = File::from(fd);
    if file.metadata()?.len() != u64::from(length) {
        return Err(invalid("the attached memfd is not of the announced size"));
    }
    let mut bytes = vec![0; length as usize];
    // At an offset: the position belongs to the open file, which the sender may share.
    file.read_exact_at(&mut bytes, 0)?;
    Ok(bytes)
}
