//! The test plays sublet on one end of a socket pair, the function runs in a thread on the other.

use std::{
    io::{Read as _, Write as _},
    os::fd::AsRawFd as _,
    thread::{self, JoinHandle},
    time::Duration,
};

use nix::sys::socket::{MsgFlags, recv};
use sublet_proto::link::frame::{FLAG_IN_PIECES, HEADER_LEN};

use super::*;

type Served = JoinHandle<io::Result<()>>;

/// Answers with the payload; "fail …" fails with what follows, "big N" answers N bytes.
fn echo(call: Call<'_>) -> Result<Vec<u8>, String> {
    let payload = call.payload();
    if let Some(text) = payload.strip_prefix(b"fail ") {
        return Err(String::from_utf8_lossy(text).into_owned());
    }
    if let Some(count) = payload.strip_prefix(b"big ") {
        return Ok(vec![b'x'; String::from_utf8_lossy(count).parse().expect("a number")]);
    }
    if let Some(text) = payload.strip_prefix(b"words ") {
        let words = text.split(|byte| *byte == b' ');
        words.for_each(|word| call.send_piece(word).expect("a piece"));
        return Ok(b"end".to_vec());
    }
    Ok(payload.to_vec())
}

fn start_raw() -> (UnixStream, Served) {
    let (ours, theirs) = UnixStream::pair().expect("a socket pair");
    (ours, thread::spawn(|| serve_on(theirs, echo)))
}

fn start() -> (Channel, Served) {
    let (socket, served) = start_raw();
    let mut sublet = Channel::new(socket.into());
    let (ready, payload) = sublet.receive(0).expect("READY").expect("not closed");
    assert_eq!((ready, payload.len()), (Header::bare(Kind::Ready), 0));
    (sublet, served)
}

fn request(number: u8) -> Header {
    Header { aux: 30_000, lease: [number; 16], label: [number ^ 0xff; 16], ..Header::bare(Kind::Request) }
}

fn ask(sublet: &mut Channel, number: u8, payload: &[u8]) -> (Header, Vec<u8>) {
    sublet.sender().send(request(number), payload).expect("send");
    let (header, answer) = sublet.receive(PAYLOAD_LIMIT).expect("an answer").expect("not closed");
    (header, answer.into_owned())
}

fn end(served: Served) -> io::Result<()> {
    served.join().expect("no panic")
}

#[test]
fn each_answer_carries_its_own_lease_and_label() {
    let (mut sublet, served) = start();
    for number in 0..20 {
        let payload = vec![number; usize::from(number) * 3000];
        let (header, answer) = ask(&mut sublet, number, &payload);
        let length = payload.len() as u32;
        assert_eq!(header, Header { kind: Kind::Response, length, aux: 0, ..request(number) });
        assert_eq!(answer, payload);
    }
    drop(sublet);
    end(served).expect("the end of the channel is the end of the work");
}

#[test]
fn pieces_go_to_who_takes_them_and_to_others_with_the_rest() {
    let (mut sublet, served) = start();
    let (header, answer) = ask(&mut sublet, 1, b"words a bc d");
    assert_eq!((header.kind, answer), (Kind::Response, b"abcdend".to_vec()));
    drop(sublet);
    end(served).expect("a clean end");

    // Several frames answer one request, and a channel takes one at a time.
    let (mut sublet, served) = start_raw();
    let words = b"words a bc d";
    let in_pieces = Header { flags: FLAG_IN_PIECES, length: words.len() as u32, ..request(2) };
    let mut head = [0; HEADER_LEN];
    sublet.read_exact(&mut head).expect("READY");
    sublet.write_all(&[&in_pieces.encode()[..], words].concat()).expect("send");
    let mut seen = Vec::new();
    while seen.last().is_none_or(|(kind, _)| *kind == Kind::Piece) {
        sublet.read_exact(&mut head).expect("a header");
        let header = Header::decode(&head, PAYLOAD_LIMIT).expect("a frame");
        assert_eq!((header.lease, header.label), (in_pieces.lease, in_pieces.label));
        let mut payload = vec![0; header.length as usize];
        sublet.read_exact(&mut payload).expect("a payload");
        seen.push((header.kind, payload));
    }
    let piece = |text: &str| (Kind::Piece, text.as_bytes().to_vec());
    assert_eq!(seen, [piece("a"), piece("bc"), piece("d"), (Kind::Response, b"end".to_vec())]);
    drop(sublet);
    end(served).expect("a clean end");
}

#[test]
fn large_payloads_travel_in_line_both_ways() {
    let (mut sublet, served) = start();
    for size in [16 * 1024 + 1, 20 << 20, 3] {
        let payload: Vec<u8> = (0..size).map(|at| (at % 251) as u8).collect();
        let (header, answer) = ask(&mut sublet, 1, &payload);
        assert_eq!((header.kind, header.flags, header.length as usize), (Kind::Response, 0, size));
        assert!(answer == payload, "{size} bytes came back changed");
    }
    drop(sublet);
    end(served).expect("a clean end");
}

#[test]
fn failed_handler_answers_with_its_text_and_serves_on() {
    let (mut sublet, served) = start();
    let (header, text) = ask(&mut sublet, 7, b"fail no such customer");
    assert_eq!(header, Header { kind: Kind::Error, aux: 0, length: 16, ..request(7) });
    assert_eq!(text, b"no such customer");
    let long = format!("fail {}", "ä".repeat(ERROR_TEXT_MAX));
    let (_, text) = ask(&mut sublet, 8, long.as_bytes());
    assert_eq!(String::from_utf8(text).expect("cut between characters").len(), ERROR_TEXT_MAX);
    assert_eq!(ask(&mut sublet, 9, b"and on").1, b"and on");
    drop(sublet);
    end(served).expect("a clean end");
}

#[test]
fn answer_one_byte_past_the_limit_is_an_error_that_says_so() {
    let (mut sublet, served) = start();
    let most = PAYLOAD_LIMIT as usize;
    let (header, _) = ask(&mut sublet, 1, format!("big {most}").as_bytes());
    assert_eq!((header.kind, header.length), (Kind::Response, PAYLOAD_LIMIT));
    let (header, text) = ask(&mut sublet, 2, format!("big {}", most + 1).as_bytes());
    assert_eq!(header.kind, Kind::Error);
    assert_eq!(text, b"the answer has 67108865 bytes, and no answer may have more than 67108864");
    drop(sublet);
    end(served).expect("a clean end");
}

/// What `serve_on` returns after it was sent `bytes` and nothing more.
fn refused(bytes: &[u8]) -> io::Error {
    let (mut socket, served) = start_raw();
    socket.read_exact(&mut [0; HEADER_LEN]).expect("READY");
    socket.write_all(bytes).expect("send");
    socket.shutdown(std::net::Shutdown::Write).expect("shutdown");
    end(served).expect_err("accepted")
}

#[test]
fn what_is_not_a_request_ends_the_function_with_an_error() {
    let says = |bytes: &[u8], text: &str| {
        let error = refused(bytes);
        assert!(error.to_string().contains(text), "{error} does not say {text}");
    };
    let mut wrong_magic = request(1).encode();
    wrong_magic[0] = b'X';
    says(&wrong_magic, "magic");
    says(&Header { length: PAYLOAD_LIMIT + 1, ..request(1) }.encode(), "over the limit of 67108864");
    says(&Header { length: 1, flags: 1, ..request(1) }.encode(), "flags 0x0001 are unknown");
    says(&Header::bare(Kind::Start).encode(), "expected REQUEST, got Start");
    says(&[request(1).encode(), request(2).encode()].concat(), "48 bytes follow the frame");
    assert_eq!(refused(&request(1).encode()[..47]).kind(), io::ErrorKind::UnexpectedEof);
    assert_eq!(refused(&Header { length: 1, ..request(1) }.encode()).kind(), io::ErrorKind::UnexpectedEof);
}

#[test]
fn end_of_the_channel_ends_cleanly_whenever_it_comes() {
    let (socket, served) = start_raw();
    drop(socket);
    end(served).expect("before READY was read");
    let (sublet, served) = start();
    sublet.sender().send(request(1), b"big 200000").expect("send");
    drop(sublet);
    end(served).expect("with an answer nobody reads");
}

#[test]
fn frame_that_arrives_in_pieces_is_put_together() {
    let (mut ours, theirs) = UnixStream::pair().expect("a socket pair");
    let watched = theirs.try_clone().expect("a second descriptor");
    let served = thread::spawn(|| serve_on(theirs, echo));
    ours.read_exact(&mut [0; HEADER_LEN]).expect("READY");
    let frame = [&Header { length: 5, ..request(3) }.encode()[..], b"hello"].concat();
    for piece in frame.chunks(7) {
        ours.write_all(piece).expect("send");
        // Until it has been read, so that the next piece does not join it.
        while recv(watched.as_raw_fd(), &mut [0], MsgFlags::MSG_PEEK | MsgFlags::MSG_DONTWAIT).is_ok() {
            thread::yield_now();
        }
    }
    let mut answer = [0; HEADER_LEN + 5];
    ours.read_exact(&mut answer).expect("an answer");
    assert_eq!(&answer[HEADER_LEN..], b"hello");
    drop(ours);
    end(served).expect("a clean end");
}

#[test]
fn call_tells_its_lease_and_the_time_left() {
    let call = Call::new(&request(0xa5), b"x"[..].into(), Pieces::default());
    assert_eq!(call.lease().to_string(), "a5".repeat(16));
    assert!(call.remaining() <= Duration::from_secs(30) && call.remaining() > Duration::from_secs(20));
    let late = Call::new(&Header { aux: 0, ..request(1) }, b""[..].into(), Pieces::default());
    assert_eq!(late.remaining(), Duration::ZERO);
}
