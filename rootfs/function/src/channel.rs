//! The function's side of the channel: blocking frames on a stream socket.
//!
//! A request is received with one system call when it is small, and answered with one. Lengths are checked before
//! anything is allocated, although the other side is trusted: a function must not be the one that turns a bug there into
//! an out-of-memory kill here.

use std::{
    borrow::Cow,
    io::{self, IoSlice, Read as _},
    os::{
        fd::{AsRawFd, OwnedFd},
        unix::net::UnixStream,
    },
    sync::Arc,
};

use nix::{
    errno::Errno,
    sys::socket::{MsgFlags, sendmsg},
};
use sublet_proto::link::frame::{HEADER_LEN, Header, PAYLOAD_LIMIT};

/// First read of a frame asks for this much: header and a small payload in one system call.
const FIRST_READ: usize = 16 * 1024;

/// One end of a channel.
#[derive(Debug)]
pub struct Channel {
    sender: Sender,
    /// Kept between frames; grows to the largest frame.
    buffer: Vec<u8>,
}

/// What writes on a channel; a call has one too, for pieces of its answer.
#[derive(Clone, Debug)]
pub struct Sender(Arc<UnixStream>);

/// Says why a payload may not be sent, in words for the caller.
///
/// # Errors
/// It has more than [`PAYLOAD_LIMIT`] bytes.
pub fn check_length(payload: &[u8]) -> io::Result<()> {
    match payload.len() {
        length if length > PAYLOAD_LIMIT as usize => Err(io::Error::other(format!(
            "the answer has {length} bytes, and no answer may have more than {PAYLOAD_LIMIT}"
        ))),
        _ => Ok(()),
    }
}

impl Channel {
    /// The channel on `socket`, which must be blocking.
    pub fn new(socket: OwnedFd) -> Self {
        Self { sender: Sender(Arc::new(socket.into())), buffer: vec![0; FIRST_READ] }
    }

    /// What writes on it.
    pub fn sender(&self) -> Sender {
        self.sender.clone()
    }
}

impl Sender {
    /// Sends one frame; `header` needs no length.
    ///
    /// # Errors
    /// What sendmsg says; `EPIPE` when the other side has closed.
    pub fn send(&self, header: Header, payload: &[u8]) -> io::Result<()> {
        let length = u32::try_from(payload.len()).map_err(io::Error::other)?;
        let header = Header { length, ..header }.encode();
        let total = header.len() + payload.len();
        let mut sent = 0;
        while sent < total {
            let slices = [
                IoSlice::new(&header[sent.min(header.len())..]),
                IoSlice::new(&payload[sent.saturating_sub(header.len())..]),
            ];
            match sendmsg::<()>(self.0.as_raw_fd(), &slices, &[], MsgFlags::MSG_NOSIGNAL, None) {
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
        let mut filled = 0;
        while filled < HEADER_LEN {
            match self.read(filled, FIRST_READ)? {
                0 if filled == 0 => return Ok(None),
                0 => return Err(io::ErrorKind::UnexpectedEof.into()),
                bytes => filled += bytes,
            }
        }
        let mut head = [0; HEADER_LEN];
        head.copy_from_slice(&self.buffer[..HEADER_LEN]);
        let header = Header::decode(&head, limit).map_err(|error| io::Error::new(io::ErrorKind::InvalidData, error))?;
        let total = HEADER_LEN + header.length as usize;
        if self.buffer.len() < total {
            self.buffer.resize(total, 0);
        }
        while filled < total {
            match self.read(filled, total)? {
                0 => return Err(io::ErrorKind::UnexpectedEof.into()),
                bytes => filled += bytes,
            }
        }
        if filled > total {
            let text = format!("{} bytes follow the frame", filled - total);
            return Err(io::Error::new(io::ErrorKind::InvalidData, text));
        }
        Ok(Some((header, Cow::Borrowed(&self.buffer[HEADER_LEN..total]))))
    }

    /// Reads into the buffer from `start` to at most `end`. 0 when the other side has closed.
    fn read(&mut self, start: usize, end: usize) -> io::Result<usize> {
        loop {
            match (&*self.sender.0).read(&mut self.buffer[start..end]) {
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                // Closed with something unread in it: closed all the same.
                Err(error) if error.kind() == io::ErrorKind::ConnectionReset => return Ok(0),
                result => return result,
            }
        }
    }
}
