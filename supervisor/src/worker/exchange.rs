//! One call on a worker's channel: a REQUEST out, exactly one RESPONSE or ERROR back, of the same lease and label.

use bytes::Bytes;
use sublet_proto::link::frame::{Header, Kind};

use super::channel::{Channel, ChannelError};

/// What identifies a delivery on the wire.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ticket {
    /// Of this delivery alone.
    pub lease: [u8; 16],
    /// Of the worker's pool key.
    pub label: [u8; 16],
}

/// A reply that keeps the protocol.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Reply {
    /// The answer.
    Answer {
        /// As the function gave it.
        payload: Bytes,
        /// How the process of an `exec` function ended; 0 for `stream`.
        status: u32,
    },
    /// The handler failed; the worker goes on.
    Error(Bytes),
}

/// Why there is no reply.
#[derive(Debug)]
pub enum Fault {
    /// The worker cannot have read the call: it may be given to another.
    NotDelivered(String),
    /// The worker closed its channel after the call was sent.
    Closed,
    /// It broke the protocol.
    BadFrame(String),
    /// Its answer is over the limit.
    TooLarge {
        /// Announced, in bytes.
        seen: u32,
        /// Allowed, in bytes.
        limit: u32,
    },
    /// Ours.
    Os(std::io::Error),
}

impl From<ChannelError> for Fault {
    fn from(error: ChannelError) -> Self {
        match error {
            ChannelError::Closed => Self::Closed,
            ChannelError::Violation(what) => Self::BadFrame(what),
            ChannelError::TooLarge { seen, limit } => Self::TooLarge { seen, limit },
            ChannelError::Os(error) => Self::Os(error),
        }
    }
}

/// Largest message of an ERROR frame in bytes; one that is larger breaks the protocol only if the answer may not be
/// that large either.
pub const ERROR_MAX_BYTES: u32 = 64 * 1024;

/// Performs one call. `time_left_ms` is told to the function, no more; the caller keeps the time.
///
/// # Errors
/// What the worker did wrong.
pub async fn exchange(
    channel: &mut Channel,
    ticket: Ticket,
    payload: &[u8],
    time_left_ms: u32,
    answer_max_bytes: u32,
) -> Result<Reply, Fault> {
    if channel.has_unread() {
        // A second answer to an earlier call, or a message nobody asked for, or the end. It must not meet this call.
        return Err(Fault::NotDelivered("the worker has closed its channel or sent what nobody asked for".into()));
    }
    let request = Header {
        kind: Kind::Request,
        flags: 0,
        length: 0,
        aux: time_left_ms,
        lease: ticket.lease,
        label: ticket.label,
    };
    if let Err(error) = channel.send(request, payload).await {
        return Err(match error {
            // The function may have read a part, but never all of it: no function has acted on this call.
            ChannelError::Closed => Fault::NotDelivered("the worker closed its channel".into()),
            other => other.into(),
        });
    }
    let (header, payload) = channel.receive(answer_max_bytes.max(ERROR_MAX_BYTES)).await?;
    if header.lease != ticket.lease {
        return Err(Fault::BadFrame("the answer carries another lease".into()));
    }
    if header.label != ticket.label {
        return Err(Fault::BadFrame("the answer carries another label".into()));
    }
    match header.kind {
        Kind::Response if header.length > answer_max_bytes => {
            Err(Fault::TooLarge { seen: header.length, limit: answer_max_bytes })
        }
        Kind::Response => Ok(Reply::Answer { payload, status: header.aux }),
        Kind::Error => Ok(Reply::Error(payload)),
        Kind::Confined | Kind::Start | Kind::Ready | Kind::Request => {
            Err(Fault::BadFrame(format!("expected RESPONSE, got {:?}", header.kind)))
        }
    }
}
