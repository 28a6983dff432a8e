//! One call on a worker's channel: a REQUEST out, pieces of the answer for those who take them, and exactly one
//! RESPONSE or ERROR back, all of the same lease and label; from a `lambda` function's launcher an IDLE after it.

use std::{
    sync::atomic::{AtomicBool, Ordering},
    time::Duration,
};

use bytes::{Bytes, BytesMut};
use sublet_proto::link::{
    frame::{FLAG_IN_PIECES, Header, Kind},
    sandbox::Protocol,
};
use tokio::{sync::mpsc, time::Instant};

use super::{
    busy_poll::Pace,
    channel::{Channel, ChannelError},
    reply::{self, Fault, Reply},
};

/// What identifies a delivery on the wire: made only for a call whose own pool key is that of the worker's owner.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ticket {
    lease: [u8; 16],
    label: [u8; 16],
}

impl Ticket {
    /// A ticket for a delivery of its own `lease`, to a worker whose owner has the tag `owner`, of a call whose pool key has
    /// the tag `call`. None when the two differ: then the worker is another's, and must not get the payload.
    pub fn new(lease: [u8; 16], owner: [u8; 16], call: [u8; 16]) -> Option<Self> {
        (owner == call).then_some(Self { lease, label: call })
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

/// A piece of this many bytes is passed on as it is. Smaller ones that are there at one time become one.
const PIECE_ENOUGH_BYTES: usize = 16 * 1024;
/// So many small parts of an answer go to the caller without any pause between them. Each is a frame of its caller's HTTP/2
/// connection, and clients give up a connection on which many small ones pile up while nobody takes them (h2:
/// `too_many_data_frames`).
const SMALL_AT_ONCE: u32 = 64;
/// What is added to the pause with each [`SMALL_AT_ONCE`] of them, up to [`SMALL_PAUSE_MAX`].
const SMALL_PAUSE_STEP: Duration = Duration::from_millis(1);
const SMALL_PAUSE_MAX: Duration = Duration::from_millis(20);

/// What is done with the pieces of one answer.
struct Passing<'a> {
    pieces: &'a Pieces,
    ticket: Ticket,
    /// Largest frame.
    limit: u32,
    /// Bytes that may still come.
    left: u64,
    stream_max_bytes: u64,
    small: u32,
}

impl Passing<'_> {
    /// Passes a piece on, with those that are there behind it while they are small. Returns the frame that comes next.
    async fn pass_on(&mut self, channel: &mut Channel, piece: Bytes) -> Result<(Header, Bytes), Fault> {
        self.count(&piece)?;
        let mut piece = piece;
        let mut next = None;
        if piece.len() < PIECE_ENOUGH_BYTES {
            let mut together = BytesMut::from(piece);
            while together.len() < PIECE_ENOUGH_BYTES && next.is_none() {
                let Some(frame) = channel.receive_buffered(self.limit)? else { break };
                match of(self.ticket, frame)? {
                    (Header { kind: Kind::Piece, .. }, more) => {
                        self.count(&more)?;
                        together.extend_from_slice(&more);
                    }
                    other => next = Some(other),
                }
            }
            piece = together.freeze();
        }
        let is_small = piece.len() < PIECE_ENOUGH_BYTES;
        self.pieces.send(piece).await;
        if let Some(next) = next {
            return Ok(next);
        }
        if is_small {
            self.small += 1;
            let pause = (SMALL_PAUSE_STEP * (self.small / SMALL_AT_ONCE)).min(SMALL_PAUSE_MAX);
            if !pause.is_zero() {
                channel.hold_off(Instant::now() + pause);
            }
        }
        of(self.ticket, channel.receive_of_many(self.limit).await?)
    }

    fn count(&mut self, piece: &Bytes) -> Result<(), Fault> {
        if piece.is_empty() {
            return Err(Fault::BadFrame("a PIECE without bytes".into()));
        }
        let too_many = Fault::TooManyPieces { limit: self.stream_max_bytes };
        self.left = self.left.checked_sub(piece.len() as u64).ok_or(too_many)?;
        Ok(())
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
    let mut passing = ask.pieces.map(|pieces| Passing {
        pieces,
        ticket,
        limit,
        left: ask.stream_max_bytes,
        stream_max_bytes: ask.stream_max_bytes,
        small: 0,
    });
    loop {
        let (header, payload) = next;
        if header.kind == Kind::Piece
            && let Some(passing) = &mut passing
        {
            next = passing.pass_on(channel, payload).await?;
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
            Kind::Response => reply::of_response(ask.protocol, header.aux, payload),
            Kind::Error => reply::of_error(ask.protocol, header.aux, payload),
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

#[cfg(test)]
mod tests;
