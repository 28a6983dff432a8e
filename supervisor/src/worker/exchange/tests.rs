//! The test plays the function on one end of a socket pair.

use std::{
    io::{Read as _, Write as _},
    net::Shutdown,
    os::unix::net::UnixStream,
    sync::Arc,
    thread,
};

use sublet_proto::link::frame::{HEADER_LEN, PAYLOAD_LIMIT};
use tokio::time::timeout;

use super::*;
use crate::worker::{busy_poll::BusyPoll, share::Share, wire::SocketWire};

const LEASE: [u8; 16] = [7; 16];
const LABEL: [u8; 16] = [9; 16];
/// Longer than anything here takes; a test that waits for so long has failed.
const PATIENCE: Duration = Duration::from_secs(20);

/// What a function says: frames, and bytes that are none.
#[derive(Clone)]
struct FunctionOutput(Vec<u8>);

impl FunctionOutput {
    fn nothing() -> Self {
        Self(Vec::new())
    }

    fn header(mut self, header: Header) -> Self {
        self.0.extend(header.encode());
        self
    }

    fn frame(self, kind: Kind, payload: &[u8]) -> Self {
        self.frame_with(Header { length: payload.len() as u32, ..good(kind) }, payload)
    }

    fn frame_with(self, header: Header, payload: &[u8]) -> Self {
        let mut said = self.header(header);
        said.0.extend(payload);
        said
    }
}

fn good(kind: Kind) -> Header {
    Header { lease: LEASE, label: LABEL, ..Header::bare(kind) }
}

struct Outcome {
    reply: Result<Reply, Fault>,
    pieces: Vec<Bytes>,
}

/// One call of a function that says this once it has read its request, and nothing more.
async fn call(protocol: Protocol, in_pieces: bool, said: FunctionOutput) -> Outcome {
    let (ours, mut theirs) = UnixStream::pair().unwrap();
    let function = thread::spawn(move || {
        let mut head = [0; HEADER_LEN];
        theirs.read_exact(&mut head).unwrap();
        let request = Header::decode(&head, PAYLOAD_LIMIT).unwrap();
        assert_eq!((request.kind, request.lease, request.label), (Kind::Request, LEASE, LABEL));
        assert_eq!(request.flags, if in_pieces { FLAG_IN_PIECES } else { 0 });
        theirs.read_exact(&mut vec![0; request.length as usize]).unwrap();
        // Whoever has heard enough closes the channel.
        theirs.write_all(&said.0).ok();
        theirs.shutdown(Shutdown::Write).ok();
        theirs
    });
    let share = Share::new(Arc::default(), 1, Instant::now());
    let mut channel = Channel::new(Box::new(SocketWire::new(ours.into())), share);
    let mut pace = Pace::new(Arc::new(BusyPoll::default()));
    let (sender, mut receiver) = mpsc::channel(2);
    let pieces = Pieces::new(sender);
    let ask = Ask {
        protocol,
        ticket: Ticket::new(LEASE, LABEL, LABEL).unwrap(),
        time_left_ms: 1000,
        answer_max_bytes: 100 * 1024,
        pieces: in_pieces.then_some(&pieces),
        stream_max_bytes: 300 * 1024,
    };
    let taking = tokio::spawn(async move {
        let mut taken = Vec::new();
        while let Some(piece) = receiver.recv().await {
            taken.push(piece);
        }
        taken
    });
    let reply = timeout(PATIENCE, exchange(&mut channel, &mut pace, ask, &mut Bytes::from_static(b"payload"))).await;
    let reply = reply.expect("the exchange is over");
    drop((channel, pieces));
    function.join().unwrap();
    Outcome { reply, pieces: taking.await.unwrap() }
}

async fn plain(said: FunctionOutput) -> Result<Reply, Fault> {
    call(Protocol::Stream, false, said).await.reply
}

fn is_bad_frame(reply: &Result<Reply, Fault>, with: &str) -> bool {
    matches!(reply, Err(Fault::BadFrame(what)) if what.contains(with))
}

#[test]
fn ticket_is_for_calls_of_the_workers_own_key_alone() {
    assert!(Ticket::new(LEASE, LABEL, LABEL).is_some());
    let mut other = LABEL;
    other[15] ^= 1;
    assert_eq!(Ticket::new(LEASE, other, LABEL), None);
}

#[tokio::test]
async fn answer_and_error_are_what_was_said() {
    let answer = plain(FunctionOutput::nothing().frame(Kind::Response, b"yes")).await.unwrap();
    assert_eq!(answer, Reply::Answer(Bytes::from_static(b"yes")));
    let error = plain(FunctionOutput::nothing().frame(Kind::Error, b"no")).await.unwrap();
    assert_eq!(error, Reply::Error(Bytes::from_static(b"no")));
}

#[tokio::test]
async fn frames_of_others_and_frames_that_are_not_due_break_the_protocol() {
    let other_lease = Header { lease: [1; 16], ..good(Kind::Response) };
    assert!(is_bad_frame(&plain(FunctionOutput::nothing().header(other_lease)).await, "another lease"));
    let other_label = Header { label: [1; 16], ..good(Kind::Response) };
    assert!(is_bad_frame(&plain(FunctionOutput::nothing().header(other_label)).await, "another label"));
    for kind in [Kind::Confined, Kind::Start, Kind::Ready, Kind::Request, Kind::Idle, Kind::Piece] {
        assert!(
            is_bad_frame(&plain(FunctionOutput::nothing().header(good(kind))).await, "expected RESPONSE"),
            "{kind:?}"
        );
    }
    let twice = FunctionOutput::nothing().frame(Kind::Response, b"").frame(Kind::Response, b"");
    assert!(is_bad_frame(&plain(twice).await, "48 bytes follow"));
    let garbage = FunctionOutput(vec![0x55; HEADER_LEN]);
    assert!(is_bad_frame(&plain(garbage).await, "magic"));
    let old_flag = FunctionOutput::nothing().header(Header { flags: 1, ..good(Kind::Response) });
    assert!(is_bad_frame(&plain(old_flag).await, "flags"));
}

#[tokio::test]
async fn answer_one_past_its_limit_is_too_large() {
    let most = 100 * 1024;
    let fits = plain(FunctionOutput::nothing().frame(Kind::Response, &vec![1; most])).await;
    assert!(matches!(fits, Ok(Reply::Answer(payload)) if payload.len() == most));
    let over = plain(FunctionOutput::nothing().frame(Kind::Response, &vec![1; most + 1])).await;
    assert!(matches!(over, Err(Fault::TooLarge { seen: 102_401, limit: 102_400 })), "{over:?}");
}

#[tokio::test]
async fn channel_that_ends_in_the_middle_is_closed() {
    let half = FunctionOutput(good(Kind::Response).encode()[..20].to_vec());
    assert!(matches!(plain(half).await, Err(Fault::Closed)));
    let announced = FunctionOutput::nothing().header(Header { length: 10, ..good(Kind::Response) });
    assert!(matches!(plain(announced).await, Err(Fault::Closed)));
}

#[tokio::test]
async fn small_pieces_that_are_there_together_become_one() {
    let mut said = FunctionOutput::nothing();
    for at in 0..1000 {
        said = said.frame(Kind::Piece, &[at as u8]);
    }
    let outcome = call(Protocol::Stream, true, said.frame(Kind::Response, b"end")).await;
    let whole: Vec<u8> = outcome.pieces.concat();
    assert!(whole.iter().enumerate().all(|(at, byte)| *byte == at as u8) && whole.len() == 1000);
    assert!(outcome.pieces.len() < 50, "{} pieces were passed on", outcome.pieces.len());
    assert!(matches!(outcome.reply, Ok(Reply::Answer(_))), "{:?}", outcome.reply);
}

#[tokio::test]
async fn large_pieces_are_passed_on_as_they_are() {
    let mut said = FunctionOutput::nothing();
    for _ in 0..4 {
        said = said.frame(Kind::Piece, &vec![3; PIECE_ENOUGH_BYTES]);
    }
    let outcome = call(Protocol::Stream, true, said.frame(Kind::Error, b"in the end")).await;
    assert_eq!(outcome.pieces.iter().map(Bytes::len).collect::<Vec<_>>(), [PIECE_ENOUGH_BYTES; 4]);
    assert!(matches!(outcome.reply, Ok(Reply::Error(_))), "{:?}", outcome.reply);
}

#[tokio::test]
async fn piece_without_bytes_breaks_the_protocol_first_or_later() {
    let first = call(Protocol::Stream, true, FunctionOutput::nothing().header(good(Kind::Piece))).await;
    assert!(is_bad_frame(&first.reply, "without bytes"), "{:?}", first.reply);
    let later = FunctionOutput::nothing().frame(Kind::Piece, b"x").header(good(Kind::Piece)).frame(Kind::Response, b"");
    let later = call(Protocol::Stream, true, later).await;
    assert!(is_bad_frame(&later.reply, "without bytes"), "{:?}", later.reply);
}

#[tokio::test]
async fn pieces_are_bounded_together_and_may_be_of_this_call_alone() {
    let mut said = FunctionOutput::nothing();
    for _ in 0..3 {
        said = said.frame(Kind::Piece, &vec![3; 100 * 1024]);
    }
    let fits = call(Protocol::Stream, true, said.clone().frame(Kind::Response, b"")).await;
    assert!(matches!(fits.reply, Ok(Reply::Answer(_))), "{:?}", fits.reply);
    let over = call(Protocol::Stream, true, said.frame(Kind::Piece, b"x").frame(Kind::Response, b"")).await;
    assert!(matches!(over.reply, Err(Fault::TooManyPieces { limit: 307_200 })), "{:?}", over.reply);
    let other = Header { lease: [1; 16], length: 1, ..good(Kind::Piece) };
    let others =
        call(Protocol::Stream, true, FunctionOutput::nothing().frame(Kind::Piece, b"x").frame_with(other, b"y")).await;
    assert!(is_bad_frame(&others.reply, "another lease"), "{:?}", others.reply);
}

#[tokio::test]
async fn worker_that_said_something_unasked_is_not_given_the_call() {
    let (ours, mut theirs) = UnixStream::pair().unwrap();
    theirs.write_all(b"x").unwrap();
    let mut channel =
        Channel::new(Box::new(SocketWire::new(ours.into())), Share::new(Arc::default(), 1, Instant::now()));
    let ask = Ask {
        protocol: Protocol::Stream,
        ticket: Ticket::new(LEASE, LABEL, LABEL).unwrap(),
        time_left_ms: 1000,
        answer_max_bytes: 1024,
        pieces: None,
        stream_max_bytes: 1024,
    };
    let mut payload = Bytes::from_static(b"payload");
    let reply = exchange(&mut channel, &mut Pace::new(Arc::default()), ask, &mut payload).await;
    assert!(matches!(reply, Err(Fault::NotDelivered(_))), "{reply:?}");
    assert_eq!(payload.as_ref(), b"payload");
}

#[tokio::test]
async fn lambda_worker_is_free_with_its_idle_alone() {
    let (ours, mut theirs) = UnixStream::pair().unwrap();
    let mut channel =
        Channel::new(Box::new(SocketWire::new(ours.into())), Share::new(Arc::default(), 1, Instant::now()));
    let mut pace = Pace::new(Arc::default());
    let ticket = Ticket::new(LEASE, LABEL, LABEL).unwrap();
    theirs.write_all(&good(Kind::Idle).encode()).unwrap();
    assert!(idle(&mut channel, &mut pace, ticket).await.is_ok());
    theirs.write_all(&good(Kind::Response).encode()).unwrap();
    assert!(matches!(idle(&mut channel, &mut pace, ticket).await, Err(Fault::BadFrame(_))));
}
