//! One call, as its handler sees it.

use std::{
    borrow::Cow,
    fmt, io,
    str::Utf8Error,
    time::{Duration, Instant},
};

use sublet_proto::link::frame::Header;

use crate::pieces::Pieces;

/// What [`Call::for_test`] gives a handler to finish: the default `timeout` of a function.
const TEST_DEADLINE: Duration = Duration::from_secs(30);

/// One call. It borrows the channel's buffer, so it cannot be kept beyond the handler; copy what is to be kept.
#[derive(Debug)]
pub struct Call<'a> {
    payload: Cow<'a, [u8]>,
    deadline: Instant,
    lease: Lease,
    pieces: Pieces,
}

impl<'a> Call<'a> {
    /// The call of a request that has arrived just now.
    pub(crate) fn new(header: &Header, payload: Cow<'a, [u8]>, pieces: Pieces) -> Self {
        let left = Duration::from_millis(header.aux.into());
        Self { payload, deadline: Instant::now() + left, lease: Lease(header.lease), pieces }
    }

    /// A call that sublet did not make, with 30 seconds left, for unit tests of a handler.
    pub fn for_test(payload: &'a [u8]) -> Self {
        let (deadline, lease) = (Instant::now() + TEST_DEADLINE, Lease([0; 16]));
        Self { payload: payload.into(), deadline, lease, pieces: Pieces::default() }
    }

    /// What the caller sent.
    pub fn payload(&self) -> &[u8] {
        &self.payload
    }

    /// What the caller sent, to keep. Copies payloads up to 8 MiB, larger ones are handed over.
    pub fn into_payload(self) -> Vec<u8> {
        self.payload.into_owned()
    }

    /// What the caller sent, as text.
    ///
    /// # Errors
    /// When it is not UTF-8.
    pub fn text(&self) -> Result<&str, Utf8Error> {
        std::str::from_utf8(&self.payload)
    }

    /// Gives the next bytes of the answer out. A caller that takes it in pieces has them at once; this waits while the
    /// caller is slow to read. Any other caller gets them with the rest, ahead of what the handler returns. If the handler
    /// fails after that, the caller learns that what it has is not the whole answer.
    ///
    /// # Errors
    /// When sublet has closed the channel, or the piece is over a limit of this worker or of sublet.
    pub fn send_piece(&self, bytes: &[u8]) -> io::Result<()> {
        self.pieces.send(bytes)
    }

    /// When the worker is ended if it has not answered.
    pub fn deadline(&self) -> Instant {
        self.deadline
    }

    /// Time left until the deadline; zero when it has passed.
    pub fn remaining(&self) -> Duration {
        self.deadline.saturating_duration_since(Instant::now())
    }

    /// Names this delivery, for log lines. Another delivery of the same call has another lease.
    pub fn lease(&self) -> Lease {
        self.lease
    }
}

/// The id of one delivery: 128 random bits, displayed as 32 hexadecimal digits.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct Lease([u8; 16]);

impl Lease {
    /// The id's bytes.
    pub const fn as_bytes(&self) -> &[u8; 16] {
        &self.0
    }
}

impl fmt::Display for Lease {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl fmt::Debug for Lease {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Lease({self})")
    }
}
