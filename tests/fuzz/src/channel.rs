//! Frames in each direction: what the supervisor reads of a worker, what launchers and functions read of the supervisor.

use std::{
    cell::RefCell,
    io::{self, ErrorKind, Write as _},
    net::Shutdown,
    os::{
        fd::{AsFd as _, AsRawFd as _, BorrowedFd, OwnedFd},
        unix::net::UnixStream,
    },
    sync::Arc,
};

use sublet_proto::link::frame::{HEADER_LEN, Header, Kind, PAYLOAD_LIMIT};
use sublet_supervisor::worker::{
    channel::{Channel, ChannelError},
    share::Share,
    wire::SocketWire,
};
use tokio::{io::AsyncWriteExt as _, runtime::Runtime, task::yield_now, time::Instant};

use crate::target;

/// Longest input: it must fit into a socket's buffer, for lack of a reader.
const MOST: usize = 64 * 1024;
/// Limits that receivers are given, chosen by the first byte of an input.
const LIMITS: [u32; 6] = [0, 1, 100, 5000, PAYLOAD_LIMIT, u32::MAX];
/// The flag of a payload that is in an attached descriptor. None is attached here but where it says so.
const ATTACHED: u16 = 1;

/// What a receiver must make of what is on its channel, which ends after that.
#[derive(Debug, PartialEq)]
enum Due<'a> {
    End,
    /// It ends inside of a frame.
    Cut,
    Refused,
    Frame(Header, &'a [u8], &'a [u8]),
}

fn due(bytes: &[u8], limit: u32) -> Due<'_> {
    let Some((head, rest)) = bytes.split_first_chunk::<HEADER_LEN>() else {
        return if bytes.is_empty() { Due::End } else { Due::Cut };
    };
    match Header::decode(head, limit) {
        Err(_) => Due::Refused,
        Ok(header) if header.flags & ATTACHED != 0 => Due::Refused,
        Ok(header) => match rest.split_at_checked(header.length as usize) {
            Some((payload, rest)) => Due::Frame(header, payload, rest),
            None => Due::Cut,
        },
    }
}

fn limit_and_rest(input: &[u8]) -> Option<(u32, &[u8])> {
    let (first, rest) = input.split_first()?;
    Some((LIMITS[usize::from(*first) % LIMITS.len()], rest))
}

#[test]
fn header_is_refused_or_says_what_it_was_read_from() {
    target!(HEADER_LEN + 4).for_each(|input: &[u8]| {
        let Some((head, rest)) = input.split_first_chunk::<HEADER_LEN>() else { return };
        let limit = rest.first_chunk().map_or(u32::MAX, |bytes| u32::from_le_bytes(*bytes));
        if let Ok(header) = Header::decode(head, limit) {
            assert!(header.length <= limit.min(PAYLOAD_LIMIT));
            assert_eq!(header.encode(), *head);
        }
    });
}

thread_local! {
    static RUNTIME: Runtime = tokio::runtime::Builder::new_current_thread().enable_io().build().unwrap();
}

/// The supervisor's end of a channel.
fn supervisors(socket: UnixStream) -> Channel {
    Channel::new(Box::new(SocketWire::new(socket.into())), Share::new(Arc::default(), 1, Instant::now()))
}

/// What a supervisor makes of a worker that writes these bytes in two pieces and closes.
async fn supervisor(bytes: &[u8], limit: u32) {
    let (theirs, ours) = UnixStream::pair().unwrap();
    theirs.set_nonblocking(true).unwrap();
    let mut theirs = tokio::net::UnixStream::from_std(theirs).unwrap();
    let mut channel = supervisors(ours);
    let (first, second) = bytes.split_at(bytes.len() / 3);
    let write = async {
        // It may have been closed on the worker: that is then the end of it.
        for piece in [first, second] {
            theirs.write_all(piece).await.ok();
            yield_now().await;
        }
        theirs.shutdown().await.ok();
    };
    let read = async {
        let mut left = bytes;
        loop {
            match (due(left, limit), channel.receive(limit).await) {
                (Due::Frame(header, payload, rest), Ok((seen, got))) => {
                    assert_eq!(seen, header);
                    assert!(got == payload, "{} bytes instead of {}", got.len(), payload.len());
                    left = rest;
                }
                (Due::End | Due::Cut, Err(ChannelError::Closed)) => break,
                (Due::Refused, Err(ChannelError::Violation(_) | ChannelError::TooLarge { .. })) => break,
                (due, seen) => panic!("{due:?} is due, and it is {seen:?}"),
            }
        }
    };
    tokio::join!(write, read);
}

#[test]
fn supervisor_takes_whole_frames_and_refuses_all_else() {
    target!(MOST).for_each(|input: &[u8]| {
        let Some((limit, bytes)) = limit_and_rest(input) else { return };
        RUNTIME.with(|runtime| runtime.block_on(supervisor(bytes, limit)));
    });
}

/// What a launcher makes of what is on the channel.
fn launcher(ours: UnixStream, limit: u32) -> io::Result<Option<(Header, Vec<u8>)>> {
    // A launcher's channel lives as long as its process. Here it is closed by number, and the few bytes are left.
    let socket: &'static OwnedFd = Box::leak(Box::new(ours.into()));
    let received = sublet_shim::fuzz::launcher_receive(socket, limit);
    nix::unistd::close(socket.as_raw_fd()).unwrap();
    received
}

#[test]
fn launcher_takes_a_whole_frame_and_refuses_all_else() {
    target!(MOST).for_each(|input: &[u8]| {
        let Some((limit, bytes)) = limit_and_rest(input) else { return };
        let (mut theirs, ours) = UnixStream::pair().unwrap();
        theirs.write_all(bytes).unwrap();
        theirs.shutdown(Shutdown::Write).unwrap();
        match (due(bytes, limit), launcher(ours, limit)) {
            (Due::Frame(header, payload, _), Ok(Some((seen, got)))) => assert!(seen == header && got == payload),
            (Due::End, Ok(None)) => {}
            // There is never more than one under way: what follows is refused where it is seen.
            (Due::Frame(_, _, rest), Err(_)) if !rest.is_empty() => {}
            (Due::Cut | Due::Refused, Err(_)) => {}
            (due, seen) => panic!("{due:?} is due, and it is {seen:?}"),
        }
    });
}

#[test]
fn function_is_given_whole_requests_and_nothing_else() {
    target!(MOST).for_each(|input: &[u8]| {
        let (mut theirs, ours) = UnixStream::pair().unwrap();
        theirs.write_all(input).unwrap();
        theirs.shutdown(Shutdown::Write).unwrap();
        let left = RefCell::new(input);
        let served = sublet_function::serve_on(ours, |call| {
            let now = *left.borrow();
            match due(now, PAYLOAD_LIMIT) {
                Due::Frame(header, payload, rest) if header.kind == Kind::Request => {
                    assert_eq!((call.lease().as_bytes(), call.payload()), (&header.lease, payload));
                    left.replace(rest);
                }
                due => panic!("{due:?} is due, and the function is called"),
            }
            Ok::<_, String>("")
        });
        let left = left.into_inner();
        match served {
            Ok(()) => assert!(left.is_empty(), "it has not seen all"),
            Err(error) => {
                let is_one_request =
                    matches!(due(left, PAYLOAD_LIMIT), Due::Frame(Header { kind: Kind::Request, .. }, _, []));
                assert!(!left.is_empty() && !is_one_request, "{error}");
            }
        }
    });
}

/// Writes with descriptors attached to the first byte; to a receiver that takes none the kernel may refuse it.
fn send_with(theirs: &UnixStream, bytes: &[u8], descriptors: &[BorrowedFd<'_>]) {
    sublet_shim::link::send_bytes(theirs.as_fd(), bytes, descriptors).ok();
    theirs.shutdown(Shutdown::Write).unwrap();
}

/// Whether nobody has a writing end of the pipe.
fn is_let_go(reader: &OwnedFd) -> bool {
    nix::unistd::read(reader, &mut [0]) == Ok(0)
}

/// Every receiver is sent frames with descriptors, and has none of them afterwards, however the frame was judged.
#[test]
fn descriptors_that_come_with_frames_are_not_kept() {
    target!(MOST).for_each(|input: &[u8]| {
        let Some(((limit, bytes), count)) = limit_and_rest(input).zip(input.first()) else { return };
        if bytes.is_empty() {
            return;
        }
        for receiver in 0..2 {
            let (reader, writer) = nix::unistd::pipe2(nix::fcntl::OFlag::O_NONBLOCK).unwrap();
            let (theirs, ours) = UnixStream::pair().unwrap();
            send_with(&theirs, bytes, &vec![writer.as_fd(); usize::from(*count / 8)]);
            drop(writer);
            match receiver {
                0 => RUNTIME.with(|runtime| {
                    runtime.block_on(async {
                        let mut channel = supervisors(ours);
                        while channel.receive(limit).await.is_ok() {}
                    });
                }),
                _ => drop(launcher(ours, limit)),
            }
            drop(theirs);
            assert!(is_let_go(&reader), "receiver {receiver} has kept one of {}", count / 8);
        }
    });
}

#[test]
fn closed_is_told_from_waiting() {
    // The harness above asks by this; it must be able to say no.
    let (reader, writer) = nix::unistd::pipe2(nix::fcntl::OFlag::O_NONBLOCK).unwrap();
    assert!(!is_let_go(&reader));
    assert_eq!(
        nix::unistd::read(&reader, &mut [0]).map_err(io::Error::from).unwrap_err().kind(),
        ErrorKind::WouldBlock
    );
    drop(writer);
    assert!(is_let_go(&reader));
}
