//! The channel, kept and broken.

use std::{
    io::{self, Read, Write},
    os::unix::net::UnixStream,
    process::ExitCode,
    time::Duration,
};

use sublet_proto::link::{
    CHANNEL_FD,
    frame::{BAD_PAYLOAD, ENDED_BY_SIGNAL, FLAG_IN_PIECES, HEADER_LEN, Header, Kind},
};

use crate::{descriptors, perform, pieces, state::State, sys};

/// Largest payload the probe takes, in bytes.
const PAYLOAD_MAX: u32 = 256 * 1024;

/// Pieces of `raw tiny-pieces`.
const TINY_PIECES: usize = 200_000;

/// Serves calls; `raw ...` verbs are about the frames themselves.
pub fn serve() -> ExitCode {
    let mut channel = sys::inherited_stream(CHANNEL_FD);
    match run(&mut channel) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("probe: {error}");
            ExitCode::from(7)
        }
    }
}

/// Bytes that are no frame, before READY.
pub fn garbage() {
    let mut channel = sys::inherited_stream(CHANNEL_FD);
    // What comes of it is for the supervisor to say.
    channel.write_all(&[0x55; 200]).ok();
    std::thread::sleep(Duration::from_secs(60));
}

fn run(channel: &mut UnixStream) -> io::Result<()> {
    channel.write_all(&Header::bare(Kind::Ready).encode())?;
    if std::env::var("PROBE_START").as_deref() == Ok("chatty") {
        // What nobody asks for, before any call.
        channel.write_all(&[0x55; 10])?;
    }
    let mut state = State::default();
    loop {
        let mut head = [0; HEADER_LEN];
        match channel.read_exact(&mut head) {
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => return Ok(()),
            result => result?,
        }
        let request = Header::decode(&head, PAYLOAD_MAX).map_err(io::Error::other)?;
        let mut payload = vec![0; request.length as usize];
        channel.read_exact(&mut payload)?;
        let text = String::from_utf8_lossy(&payload).into_owned();
        if let Some(how) = text.strip_prefix("raw ") {
            break_frames(channel, &request, how)?;
            continue;
        }
        let reply = Header { flags: 0, aux: 0, ..request };
        let outcome = match text.strip_prefix("pieces ") {
            Some(arguments) if request.flags & FLAG_IN_PIECES != 0 => {
                pieces::run(arguments, |piece| send(channel, Header { kind: Kind::Piece, ..reply }, piece))
            }
            Some(arguments) => {
                let mut whole = Vec::new();
                pieces::run(arguments, |piece| whole.write_all(piece)).map(|end| [whole, end].concat())
            }
            None => perform(&mut state, &text),
        };
        let (kind, answer) = match outcome {
            Ok(answer) => (Kind::Response, answer),
            Err(error) => (Kind::Error, error.into_bytes()),
        };
        send(channel, Header { kind, ..reply }, &answer)?;
    }
}

pub fn send(channel: &mut UnixStream, header: Header, payload: &[u8]) -> io::Result<()> {
    let length = u32::try_from(payload.len()).map_err(io::Error::other)?;
    channel.write_all(&[&Header { length, ..header }.encode()[..], payload].concat())
}

fn break_frames(channel: &mut UnixStream, request: &Header, how: &str) -> io::Result<()> {
    let good = Header { kind: Kind::Response, flags: 0, aux: 0, length: 0, ..*request };
    if let Some(count) = how.strip_prefix("descriptors ") {
        let count = count.parse().map_err(io::Error::other)?;
        return descriptors::attach(channel, &good, count);
    }
    match how {
        "garbage" => channel.write_all(&[0x55; 200]),
        "wrong-lease" => send(channel, Header { lease: [1; 16], ..good }, b"other's"),
        "wrong-label" => send(channel, Header { label: [1; 16], ..good }, b"other's"),
        // To a caller that takes no pieces, or of another call.
        "piece" => send(channel, Header { kind: Kind::Piece, ..good }, b"unasked"),
        "piece-of-another" => send(channel, Header { kind: Kind::Piece, lease: [1; 16], ..good }, b"other's"),
        // Says of itself what only a launcher may say: that a signal ended it, and that the payload is at fault.
        "forged-crash" => send(channel, Header { aux: ENDED_BY_SIGNAL + 11, ..good }, b"hi"),
        "forged-status" => send(channel, Header { aux: 3, ..good }, b"hi"),
        "forged-payload" => send(channel, Header { kind: Kind::Error, aux: BAD_PAYLOAD, ..good }, b"blame"),
        // Its own words, and then its end.
        "error-exit" => {
            send(channel, Header { kind: Kind::Error, ..good }, b"last words")?;
            std::process::exit(5)
        }
        "wrong-kind" => send(channel, Header { kind: Kind::Ready, ..good }, b""),
        "together" => channel.write_all(&[good.encode(), good.encode()].concat()),
        // The second answer comes when nobody asks: it must not be taken for the next call's.
        "twice" => {
            send(channel, good, b"first")?;
            std::thread::sleep(Duration::from_millis(30));
            send(channel, good, b"second")
        }
        "oversize" => channel.write_all(&Header { length: 60 * 1024 * 1024, ..good }.encode()),
        "huge" => channel.write_all(&Header { length: u32::MAX, ..good }.encode()),
        // A flag that once announced a descriptor.
        "old-flag" => channel.write_all(&Header { flags: 1, length: 10, ..good }.encode()),
        // A piece of no bytes, over and over: work for the supervisor, and nothing for its caller.
        "empty-pieces" => {
            let piece = Header { kind: Kind::Piece, ..good }.encode();
            // Its channel may be closed at any of them.
            while channel.write_all(&piece).is_ok() {}
            Ok(())
        }
        // The smallest pieces there can be, as fast as they go.
        "tiny-pieces" => {
            let piece = [&Header { kind: Kind::Piece, length: 1, ..good }.encode()[..], b"x"].concat();
            for _ in 0..TINY_PIECES {
                channel.write_all(&piece)?;
            }
            send(channel, good, b"")
        }
        // A large answer in the smallest parts there can be, for two seconds.
        "byte-by-byte" => {
            channel.write_all(&Header { length: 1024 * 1024, ..good }.encode())?;
            let end = std::time::Instant::now() + Duration::from_secs(2);
            let mut left = 1024 * 1024;
            while left > 0 && std::time::Instant::now() < end {
                channel.write_all(b"x")?;
                left -= 1;
            }
            channel.write_all(&vec![b'x'; left])
        }
        "linger" => descriptors::linger(channel, &good),
        "half" => {
            channel.write_all(&good.encode()[..20])?;
            std::thread::sleep(Duration::from_secs(3600));
            Ok(())
        }
        "close" => {
            channel.shutdown(std::net::Shutdown::Both)?;
            std::thread::sleep(Duration::from_secs(3600));
            Ok(())
        }
        // One byte after the other, faster than any limit of the kernel's would notice and slower than any deadline.
        "drip" => {
            for byte in good.encode() {
                channel.write_all(&[byte])?;
                std::thread::sleep(Duration::from_millis(200));
            }
            Ok(())
        }
        "close-write" => {
            channel.shutdown(std::net::Shutdown::Write)?;
            std::thread::sleep(Duration::from_secs(3600));
            Ok(())
        }
        "close-read" => {
            channel.shutdown(std::net::Shutdown::Read)?;
            std::thread::sleep(Duration::from_secs(3600));
            Ok(())
        }
        // Answers this call and reads nothing any more: the next one's payload stays in the socket.
        "deaf" => {
            send(channel, good, b"answered")?;
            std::thread::sleep(Duration::from_secs(3600));
            Ok(())
        }
        // A child writes into the middle of its parent's answer.
        "brothers" => {
            let whole = [&Header { length: 5, ..good }.encode()[..], b"whole"].concat();
            let (first, second) = whole.split_at(HEADER_LEN / 2);
            channel.write_all(first)?;
            match sys::fork().map_err(io::Error::from)? {
                nix::unistd::ForkResult::Child => {
                    let written = channel.write_all(&whole);
                    std::process::exit(i32::from(written.is_err()))
                }
                nix::unistd::ForkResult::Parent { child } => {
                    nix::sys::wait::waitpid(child, None).map_err(io::Error::from)?;
                    channel.write_all(second)
                }
            }
        }
        // Ends well while a child holds the channel open.
        "heir" => match sys::fork().map_err(io::Error::from)? {
            nix::unistd::ForkResult::Child => {
                std::thread::sleep(Duration::from_secs(3600));
                std::process::exit(0)
            }
            nix::unistd::ForkResult::Parent { .. } => std::process::exit(0),
        },
        other => Err(io::Error::other(format!("unknown way {other:?}"))),
    }
}
