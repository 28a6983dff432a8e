//! One call on a worker's channel: a REQUEST out, pieces of the answer for those who take them, and exactly one
//! RESPONSE or ERROR back, all of the same lease and label; from a `lambda` function's launcher an IDLE after it.

use std::sync::atomic::{AtomicBool, Ordering};

use bytes::Bytes;
use sublet_proto::link::{
    frame::{BAD_PAYLOAD, FLAG_IN_PIECES, Header, Kind},
    sandbox::Protocol,
};
use tokio::sync::mpsc;

use super::{
    busy_poll::Pace,
    channel::{Channel, ChannelError},
};

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
    /// The payload is not what the runtime takes, for this reason; no handler has seen it.
    BadPayload(Bytes),
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
    /// Its answer in pieces is over the limit of all of them together.
    TooManyPieces {
        /// Allowed, in bytes.
        limit: u64,
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

/// One call, as a worker is asked.
#[derive(Clone, Copy, Debug)]
pub struct Ask<'a> {
    /// How its function is talked to.
    pub protocol: Protocol,
    /// What its answer must carry.
    pub ticket: Ticket,
    /// Told to the function, no more; the caller keeps the time.
    pub time_left_ms: u32,
    /// Largest answer, and largest piece of one.
    pub answer_max_bytes: u32,
    /// Where pieces of the answer go, when the caller takes them.
    pub pieces: Option<&'a Pieces>,
    /// Most bytes of all of them together.
    pub stream_max_bytes: u64,
}

/// Where pieces of an answer go. Whoever takes them slowly slows the function down.
#[derive(Debug)]
pub struct Pieces {
    sender: mpsc::Sender<Bytes>,
    has_begun: AtomicBool,
}

impl Pieces {
    /// Nothing has gone there yet.
    pub fn new(sender: mpsc::Sender<Bytes>) -> Self {
        Self { sender, has_begun: AtomicBool::new(false) }
    }

    /// Whether anything has.
    pub fn has_begun(&self) -> bool {
        self.has_begun.load(Ordering::Relaxed)
    }

    /// Waits for room. Never returns when nobody takes them any more: then the pool is being told, and it ends this call.
    async fn send(&self, piece: Bytes) {
        self.has_begun.store(true, Ordering::Relaxed);
        if self.sender.send(piece).await.is_err() {
            std::future::pending::<()>().await;
        }
    }
}

/// Performs one call. Waits for whoever takes the pieces, and the function with it. `payload` is given up as soon as the
/// worker has it: a large one need not be here for as long as the function works.
///
/// # Errors
/// What the worker did wrong. With [`Fault::NotDelivered`] `payload` is as it was.
pub async fn exchange(
    channel: &mut Channel,
    pace: &mut Pace,
    ask: Ask<'_>,
    payload: &mut Bytes,
) -> Result<Reply, Fault> {
    let Ask { ticket, answer_max_bytes, .. } = ask;
    if channel.has_unread() {
        // A second answer to an earlier call, or a message nobody asked for, or the end. It must not meet this call.
        return Err(Fault::NotDelivered("the worker has closed its channel or sent what nobody asked for".into()));
    }
    let request = Header {
        kind: Kind::Request,
        flags: if ask.pieces.is_some() { FLAG_IN_PIECES } else { 0 },
        length: 0,
        aux: ask.time_left_ms,
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
    *payload = Bytes::new();
    let limit = answer_max_bytes.max(ERROR_MAX_BYTES);
    let mut next = of(ticket, pace.answer(channel, limit).await?)?;
    let mut total = 0;
    loop {
        let (header, payload) = next;
        if header.kind == Kind::Piece
            && let Some(pieces) = ask.pieces
        {
            total += u64::from(header.length);
            if total > ask.stream_max_bytes {
                return Err(Fault::TooManyPieces { limit: ask.stream_max_bytes });
            }
            if !payload.is_empty() {
                pieces.send(payload).await;
            }
            next = receive(channel, ticket, limit).await?;
            continue;
        }
        match ask.protocol {
            // Of these, an answer is the last word.
            Protocol::Stream | Protocol::Exec if channel.surplus() > 0 => {
                return Err(Fault::BadFrame(format!("{} bytes follow the frame", channel.surplus())));
            }
            Protocol::Stream | Protocol::Exec | Protocol::Lambda => {}
        }
        return match header.kind {
            Kind::Response if header.length > answer_max_bytes => {
                Err(Fault::TooLarge { seen: header.length, limit: answer_max_bytes })
            }
            Kind::Response => Ok(Reply::Answer { payload, status: header.aux }),
            Kind::Error if header.aux == BAD_PAYLOAD => Ok(Reply::BadPayload(payload)),
            Kind::Error => Ok(Reply::Error(payload)),
            Kind::Confined | Kind::Start | Kind::Ready | Kind::Request | Kind::Piece | Kind::Idle => {
                Err(Fault::BadFrame(format!("expected RESPONSE, got {:?}", header.kind)))
            }
        };
    }
}

/// Waits until a `lambda` runtime asks for its next call: only then is its worker free.
///
/// # Errors
/// What the worker did wrong.
pub async fn idle(channel: &mut Channel, pace: &mut Pace, ticket: Ticket) -> Result<(), Fault> {
    let (header, _) = of(ticket, pace.idle(channel, 0).await?)?;
    match header.kind {
        Kind::Idle if channel.surplus() == 0 => Ok(()),
        Kind::Idle => Err(Fault::BadFrame(format!("{} bytes follow the frame", channel.surplus()))),
        seen => Err(Fault::BadFrame(format!("expected IDLE, got {seen:?}"))),
    }
}

async fn receive(channel: &mut Channel, ticket: Ticket, limit: u32) -> Result<(Header, Bytes), Fault> {
    of(ticket, channel.receive(limit).await?)
}

/// A frame, if it belongs to this delivery.
fn of(ticket: Ticket, (header, payload): (Header, Bytes)) -> Result<(Header, Bytes), Fault> {
    if header.lease != ticket.lease {
        return Err(Fault::BadFrame("the answer carries another lease".into()));
    }
    if header.label != ticket.label {
        return Err(Fault::BadFrame("the answer carries another label".into()));
    }
    Ok((header, payload))
}
