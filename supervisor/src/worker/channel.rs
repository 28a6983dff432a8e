//! The supervisor's side of a worker's channel. What comes from it is a stranger's: every length is checked before it is
//! believed, every frame must be the one that is due, and how often it is read is bounded ([`Share`]).
//!
//! No descriptor ever arrives here: the socket refuses them (SO_PASSRIGHTS, set by the nursery before anybody else had the other
//! end), or its other end is held by the launcher, which sends none. Reads leave the kernel no room for one all the same.

use std::{future::poll_fn, io};

use bytes::{Bytes, BytesMut};
use sublet_proto::link::frame::{FrameError, HEADER_LEN, Header};
use tokio::time::Instant;

use super::{
    share::Share,
    wire::{Received, Wire},
};

/// First read of a frame asks for this much: header and a small payload in one system call.
const FIRST_READ: usize = 4 * 1024;
/// A read of the rest of a frame asks for no more than this.
const READ_MAX: usize = 256 * 1024;
/// A read for the next of several pieces asks for this much, so that small ones come together.
const PIECES_READ: usize = 64 * 1024;

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
            // Of the bytes, never of the host.
            io::ErrorKind::InvalidData => Self::Violation(error.to_string()),
            _ => Self::Os(error),
        }
    }
}

/// One worker's channel.
#[derive(Debug)]
pub struct Channel {
    wire: Box<dyn Wire>,
    buffer: BytesMut,
    share: Share,
    /// Whether the first read of the answer to the last message sent is still to come.
    is_first_read: bool,
    /// The next read waits until then.
    not_before: Option<Instant>,
}

impl Channel {
    /// Over a stream to a worker that has not said anything yet.
    pub fn new(wire: Box<dyn Wire>, share: Share) -> Self {
        Self { wire, buffer: BytesMut::new(), share, is_first_read: true, not_before: None }
    }

    /// The account of what this worker makes the supervisor do.
    pub const fn share(&self) -> &Share {
        &self.share
    }

    /// Lets the next read wait until `then`, unless it has to wait for longer.
    pub fn hold_off(&mut self, then: Instant) {
        self.not_before = self.not_before.max(Some(then));
    }

    /// Sends one frame, after which an answer is due.
    ///
    /// # Errors
    /// [`ChannelError::Closed`] and [`ChannelError::Os`].
    pub async fn send(&mut self, mut header: Header, payload: &[u8]) -> Result<(), ChannelError> {
        self.share.begin(Instant::now());
        self.is_first_read = true;
        header.length = u32::try_from(payload.len()).map_err(|e| ChannelError::Os(io::Error::other(e)))?;
        let head = header.encode();
        let total = head.len() + payload.len();
        let mut sent = 0;
        while sent < total {
            let parts = [&head[sent.min(head.len())..], &payload[sent.saturating_sub(head.len())..]];
            sent += poll_fn(|cx| self.wire.poll_write(cx, parts)).await?;
        }
        Ok(())
    }

    /// Whether the worker has said something nobody asked for.
    pub fn has_unread(&self) -> bool {
        self.surplus() > 0 || self.wire.has_input()
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
        self.receive_reading(FIRST_READ, limit).await
    }

    /// As [`Self::receive`], for a frame that may be one of many small ones: they are read together.
    ///
    /// # Errors
    /// As [`Self::receive`].
    pub async fn receive_of_many(&mut self, limit: u32) -> Result<(Header, Bytes), ChannelError> {
        self.receive_reading(PIECES_READ, limit).await
    }

    async fn receive_reading(&mut self, first_read: usize, limit: u32) -> Result<(Header, Bytes), ChannelError> {
        loop {
            match self.next_header(limit)? {
                Some(header) => return self.rest_of(header).await,
                None => self.read(first_read).await?,
            }
        }
    }

    /// A frame that is here in full already. Reads nothing.
    ///
    /// # Errors
    /// What the worker did wrong.
    pub fn receive_buffered(&mut self, limit: u32) -> Result<Option<(Header, Bytes)>, ChannelError> {
        match self.next_header(limit)? {
            Some(header) if self.buffer.len() >= HEADER_LEN + header.length as usize => {
                Ok(Some((header, self.split(header))))
            }
            Some(_) | None => Ok(None),
        }
    }

    /// The header of the next frame, once all of it is here.
    fn next_header(&self, limit: u32) -> Result<Option<Header>, ChannelError> {
        let Some(head) = self.buffer.first_chunk() else { return Ok(None) };
        let header = Header::decode(head, limit).map_err(|error| match error {
            FrameError::TooLarge { seen, limit } => ChannelError::TooLarge { seen, limit },
            other => ChannelError::Violation(other.to_string()),
        })?;
        Ok(Some(header))
    }

    async fn rest_of(&mut self, header: Header) -> Result<(Header, Bytes), ChannelError> {
        let total = HEADER_LEN + header.length as usize;
        // Room for all of it is only addresses until it is written to.
        self.buffer.reserve(total.saturating_sub(self.buffer.len()));
        while self.buffer.len() < total {
            // Never the whole rest at once: what is asked for is cleared first, and a worker that sends byte by byte must
            // not have that done over and over for all that it has announced.
            self.read((total - self.buffer.len()).min(READ_MAX)).await?;
        }
        Ok((header, self.split(header)))
    }

    /// Takes a frame that is here in full off the buffer; returns its payload.
    fn split(&mut self, header: Header) -> Bytes {
        let frame = self.buffer.split_to(HEADER_LEN + header.length as usize).freeze();
        frame.slice(HEADER_LEN..)
    }

    /// Takes in what is there of the next frame, for [`Self::receive`]. Returns whether there is anything.
    ///
    /// # Errors
    /// What the worker did wrong.
    pub fn take_in(&mut self) -> Result<bool, ChannelError> {
        if self.surplus() > 0 {
            return Ok(true);
        }
        match self.wire.try_read(&mut self.buffer, FIRST_READ) {
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => Ok(false),
            Err(error) => Err(error.into()),
            Ok(Received { bytes: 0, .. }) => Err(ChannelError::Closed),
            Ok(Received { bytes, began }) => {
                self.is_first_read = false;
                self.share.first_read(began.elapsed(), bytes);
                Ok(true)
            }
        }
    }

    async fn read(&mut self, most: usize) -> Result<(), ChannelError> {
        if let Some(then) = self.not_before.take() {
            // Nor may what the worker writes meanwhile wake anybody.
            self.wire.unwatch();
            tokio::time::sleep_until(then).await;
        }
        let (wire, buffer) = (&mut self.wire, &mut self.buffer);
        let Received { bytes, began } = poll_fn(|cx| wire.poll_read(cx, buffer, most)).await?;
        if bytes == 0 {
            return Err(ChannelError::Closed);
        }
        // By the host's clock, which goes on while the one of timers may stand still.
        let took = began.elapsed();
        if std::mem::take(&mut self.is_first_read) {
            self.share.first_read(took, bytes);
        } else {
            let now = Instant::now();
            if let Some(pause) = self.share.further_read(now, took, bytes) {
                self.hold_off(now + pause);
            }
        }
        Ok(())
    }
}
