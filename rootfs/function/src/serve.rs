//! The loop: READY, then request, handler, answer, until the channel closes.

use std::{
    fmt::Display,
    io,
    os::{fd::OwnedFd, unix::net::UnixStream},
};

use sublet_proto::link::frame::{Header, Kind, PAYLOAD_LIMIT};

use crate::{
    call::Call,
    channel::{Channel, Sender, check_length},
    pieces::Pieces,
    sys,
};

/// Longest error text in bytes that is sent; what is longer is cut. It ends up in a status message, which travels in
/// the headers of an HTTP/2 response, and those are small.
const ERROR_TEXT_MAX: usize = 4 * 1024;

/// Says that the function is ready and gives each call to `handler`, until sublet closes the channel. Then it returns
/// `Ok`, and the program should end, with status 0.
///
/// Load what the handler needs before: the start of a worker ends, and its first call begins, with this function.
/// `Ok` of the handler is the answer: `Vec<u8>`, `String`, `&'static str` and other types that lend bytes. `Err` is
/// told to the caller, in its alternate form (`{:#}`), cut to 4 KiB. A panic ends the worker; see the crate's page.
///
/// # Errors
/// When the process has no channel, when it was taken by an earlier call of `serve`, or when what comes on it is not a
/// request. The program should then end with a status other than 0, as it does when `main` returns the error.
pub fn serve<A, E, H>(handler: H) -> io::Result<()>
where
    A: AsRef<[u8]>,
    E: Display,
    H: FnMut(Call<'_>) -> Result<A, E>,
{
    run(sys::take_channel()?, handler)
}

/// As [`serve`], on a socket of one's own: for tests that play sublet's part on the other end.
///
/// # Errors
/// As [`serve`].
pub fn serve_on<A, E, H>(socket: UnixStream, handler: H) -> io::Result<()>
where
    A: AsRef<[u8]>,
    E: Display,
    H: FnMut(Call<'_>) -> Result<A, E>,
{
    run(socket.into(), handler)
}

fn run<A, E, H>(socket: OwnedFd, mut handler: H) -> io::Result<()>
where
    A: AsRef<[u8]>,
    E: Display,
    H: FnMut(Call<'_>) -> Result<A, E>,
{
    let mut channel = Channel::new(socket);
    let sender = channel.sender();
    let mut sent = sender.send(Header::bare(Kind::Ready), &[]);
    loop {
        match sent {
            Ok(()) => {}
            // The other side is gone, which is how a worker is told to end.
            Err(error) if error.kind() == io::ErrorKind::BrokenPipe => return Ok(()),
            Err(error) => return Err(error),
        }
        let Some((request, payload)) = channel.receive(PAYLOAD_LIMIT)? else { return Ok(()) };
        if request.kind != Kind::Request {
            let text = format!("expected REQUEST, got {:?}", request.kind);
            return Err(io::Error::new(io::ErrorKind::InvalidData, text));
        }
        let pieces = Pieces::new(&sender, &request);
        let result = handler(Call::new(&request, payload, pieces.clone()));
        sent = reply(&sender, &request, &pieces, result);
    }
}

/// Lease and label go back as they came: they prove that this answer belongs to that request.
fn reply<A: AsRef<[u8]>, E: Display>(
    sender: &Sender,
    request: &Header,
    pieces: &Pieces,
    result: Result<A, E>,
) -> io::Result<()> {
    let frame = |kind| Header { lease: request.lease, label: request.label, ..Header::bare(kind) };
    let text = match &result {
        Ok(answer) => {
            let answer = pieces.before(answer.as_ref());
            match check_length(&answer) {
                Ok(()) => return sender.send(frame(Kind::Response), &answer),
                Err(error) => error.to_string(),
            }
        }
        Err(error) => format!("{error:#}"),
    };
    sender.send(frame(Kind::Error), cut(&text, ERROR_TEXT_MAX).as_bytes())
}

/// The first `most` bytes, or a few less so that no character is cut in two.
fn cut(text: &str, most: usize) -> &str {
    let mut end = most.min(text.len());
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    &text[..end]
}

#[cfg(test)]
mod tests;
