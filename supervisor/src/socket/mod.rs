//! A stream socket that is watched for input alone.
//!
//! The kernel tells of room to write whenever the other side has read, so that whoever listens to that is woken once per
//! message for nothing. Here a write is tried at once, and room is listened for only while there was none.
//!
//! While nobody means to read ([`Socket::unwatch`]), input is not listened for either: each byte that the other side writes
//! would wake the event loop.

pub mod connection;

use std::{
    io,
    os::fd::{AsRawFd, OwnedFd},
    task::{Context, Poll, ready},
};

use nix::sys::socket::{MsgFlags, recv};
use tokio::io::{Interest, ReadBuf, unix::AsyncFd};

use crate::sys;

/// After so many writes in a row that found room, it is not listened for any more.
const ROOMY: u8 = 16;

/// The socket. Its descriptor does not block, or whoever reads and writes says so each time.
#[derive(Debug)]
pub struct Socket {
    input: Input,
    /// A second descriptor of the same socket, while a write has to wait now and then.
    room: Option<AsyncFd<OwnedFd>>,
    roomy: u8,
}

/// The descriptor, and whether the event loop is told of its input.
#[derive(Debug)]
enum Input {
    Watched(AsyncFd<OwnedFd>),
    Unwatched(OwnedFd),
    /// Between the two; and for ever, when it could not be watched again.
    Lost,
}

/// What one read has got.
#[derive(Debug)]
pub struct ReadOutcome<T> {
    /// Of whatever kind.
    pub what: T,
    /// Whether that was all there was, and not the end: what comes now is told anew, and need not be asked for. A read that
    /// got less than it had room for has found that out, unless a descriptor came with it, which ends a read early.
    pub is_all: bool,
}

impl Socket {
    /// Takes a descriptor over that does not block. Must be called inside a tokio runtime.
    ///
    /// # Errors
    /// When it cannot be watched.
    pub fn new(fd: OwnedFd) -> io::Result<Self> {
        Ok(Self { input: Input::Watched(sys::register(fd, Interest::READABLE)?), room: None, roomy: 0 })
    }

    /// Takes a descriptor over. It is not watched before [`Self::watch`].
    pub const fn unwatched(fd: OwnedFd) -> Self {
        Self { input: Input::Unwatched(fd), room: None, roomy: 0 }
    }

    /// The descriptor.
    ///
    /// # Errors
    /// When it was lost: it could not be watched again after [`Self::unwatch`].
    pub fn fd(&self) -> io::Result<&OwnedFd> {
        match &self.input {
            Input::Watched(input) => Ok(input.get_ref()),
            Input::Unwatched(fd) => Ok(fd),
            Input::Lost => Err(io::ErrorKind::NotConnected.into()),
        }
    }

    /// Lets the event loop hear of no input until the next [`Self::poll_read`].
    pub fn unwatch(&mut self) {
        self.input = match std::mem::replace(&mut self.input, Input::Lost) {
            Input::Watched(input) => Input::Unwatched(input.into_inner()),
            other @ (Input::Unwatched(_) | Input::Lost) => other,
        };
    }

    /// Lets the event loop hear of input again. Must be called inside a tokio runtime.
    ///
    /// # Errors
    /// When it cannot be watched. It is lost then.
    pub fn watch(&mut self) -> io::Result<()> {
        if let Input::Watched(_) = &self.input {
            return Ok(());
        }
        self.input = match std::mem::replace(&mut self.input, Input::Lost) {
            Input::Unwatched(fd) => Input::Watched(sys::register(fd, Interest::READABLE)?),
            other @ (Input::Watched(_) | Input::Lost) => other,
        };
        Ok(())
    }

    /// Performs `attempt`, which writes, as soon as it does not fail for want of room.
    ///
    /// # Errors
    /// What `attempt` says.
    pub fn poll_write(
        &mut self,
        cx: &mut Context<'_>,
        mut attempt: impl FnMut(&OwnedFd) -> io::Result<usize>,
    ) -> Poll<io::Result<usize>> {
        loop {
            match attempt(self.fd()?) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => self.roomy = 0,
                result => {
                    self.roomy = self.roomy.saturating_add(1);
                    if self.roomy >= ROOMY {
                        self.room = None;
                    }
                    return Poll::Ready(result);
                }
            }
            let room = match &self.room {
                Some(room) => room,
                None => {
                    let copy = self.fd()?.try_clone()?;
                    self.room.insert(sys::register(copy, Interest::WRITABLE)?)
                }
            };
            // What was known before the attempt is known no better now; what has come since is told again.
            let mut told = ready!(room.poll_write_ready(cx))?;
            if let Ok(result) = told.try_io(|fd| attempt(fd.get_ref())) {
                return Poll::Ready(result);
            }
        }
    }

    /// Performs `attempt`, which reads, as soon as it does not fail for want of input.
    ///
    /// # Errors
    /// What `attempt` says.
    pub fn poll_read<T>(
        &self,
        cx: &mut Context<'_>,
        mut attempt: impl FnMut(&OwnedFd) -> io::Result<ReadOutcome<T>>,
    ) -> Poll<io::Result<T>> {
        let Input::Watched(input) = &self.input else { return Poll::Ready(Err(io::ErrorKind::NotConnected.into())) };
        loop {
            let mut told = ready!(input.poll_read_ready(cx))?;
            if let Ok(outcome) = told.try_io(|fd| attempt(fd.get_ref())) {
                let ReadOutcome { what, is_all } = outcome?;
                if is_all {
                    told.clear_ready();
                }
                return Poll::Ready(Ok(what));
            }
        }
    }

    /// Reads what is there into `buffer`; nothing at the end.
    ///
    /// # Errors
    /// What recv(2) says.
    pub fn poll_recv(&self, cx: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let space = buffer.initialize_unfilled();
        let length = ready!(self.poll_read(cx, |fd| {
            let length = recv(fd.as_raw_fd(), space, MsgFlags::empty())?;
            Ok(ReadOutcome { what: length, is_all: 0 < length && length < space.len() })
        }))?;
        buffer.advance(length);
        Poll::Ready(Ok(()))
    }
}

#[cfg(test)]
mod tests {
    use std::{
        future::poll_fn,
        io::{Read as _, Write as _},
        os::unix::net::UnixStream,
        time::Duration,
    };

    use nix::sys::socket::send;
    use tokio::time::timeout;

    use super::*;

    impl Socket {
        async fn write(&mut self, mut attempt: impl FnMut(&OwnedFd) -> io::Result<usize>) -> io::Result<usize> {
            poll_fn(|cx| self.poll_write(cx, &mut attempt)).await
        }

        async fn read<T>(&mut self, mut attempt: impl FnMut(&OwnedFd) -> io::Result<ReadOutcome<T>>) -> io::Result<T> {
            self.watch()?;
            poll_fn(|cx| self.poll_read(cx, &mut attempt)).await
        }
    }

    fn pair() -> (Socket, UnixStream) {
        let (ours, theirs) = UnixStream::pair().unwrap();
        ours.set_nonblocking(true).unwrap();
        (Socket::new(ours.into()).unwrap(), theirs)
    }

    async fn receive(socket: &Socket, most: usize) -> Vec<u8> {
        let mut bytes = vec![0; most];
        let mut buffer = ReadBuf::new(&mut bytes);
        poll_fn(|cx| socket.poll_recv(cx, &mut buffer)).await.unwrap();
        buffer.filled().to_vec()
    }

    #[tokio::test]
    async fn input_is_found_whenever_it_comes() {
        let (socket, mut theirs) = pair();
        for round in 0..3 {
            theirs.write_all(b"hello").unwrap();
            assert_eq!(receive(&socket, 3).await, b"hel", "{round}: there is more");
            assert_eq!(receive(&socket, 3).await, b"lo", "{round}");
            let nothing = timeout(Duration::from_millis(10), receive(&socket, 3)).await;
            assert!(nothing.is_err(), "{round}: {nothing:?}");
        }
        theirs.write_all(b"end").unwrap();
        drop(theirs);
        assert_eq!(receive(&socket, 100).await, b"end");
        assert_eq!(receive(&socket, 100).await, b"");
        assert_eq!(receive(&socket, 100).await, b"", "and so it stays");
    }

    #[tokio::test]
    async fn write_waits_for_room_and_listens_for_it_no_longer_than_needed() {
        const BYTES: usize = 4 << 20;
        let (mut socket, mut theirs) = pair();
        let (full, is_full) = std::sync::mpsc::channel();
        let reader = std::thread::spawn(move || {
            is_full.recv().unwrap();
            let mut bytes = vec![0; BYTES];
            theirs.read_exact(&mut bytes).unwrap();
            assert!(bytes.iter().enumerate().all(|(at, byte)| *byte == (at / 1000) as u8));
            theirs
        });
        let bytes: Vec<u8> = (0..BYTES).map(|at| (at / 1000) as u8).collect();
        let mut sent = 0;
        let mut has_waited = false;
        while sent < BYTES {
            let rest = &bytes[sent..BYTES.min(sent + 100_000)];
            let write = socket.write(|fd| Ok(send(fd.as_raw_fd(), rest, MsgFlags::empty())?));
            match timeout(Duration::from_millis(20), write).await {
                Ok(written) => sent += written.unwrap(),
                Err(_) => {
                    assert!(socket.room.is_some());
                    has_waited = true;
                    full.send(()).ok();
                }
            }
        }
        assert!(has_waited);
        let mut theirs = tokio::task::spawn_blocking(|| reader.join().unwrap()).await.unwrap();
        for _ in 0..ROOMY {
            socket.write(|fd| Ok(send(fd.as_raw_fd(), b"x", MsgFlags::empty())?)).await.unwrap();
        }
        assert!(socket.room.is_none());
        theirs.read_exact(&mut [0; ROOMY as usize]).unwrap();
    }

    #[tokio::test]
    async fn input_that_comes_while_nobody_listens_is_found_by_the_next_read() {
        let (mut socket, mut theirs) = pair();
        let read = |fd: &OwnedFd| {
            let mut bytes = [0; 8];
            let length = recv(fd.as_raw_fd(), &mut bytes, MsgFlags::empty())?;
            Ok(ReadOutcome { what: bytes[..length].to_vec(), is_all: 0 < length && length < bytes.len() })
        };
        for _ in 0..3 {
            socket.unwatch();
            theirs.write_all(b"hello").unwrap();
            tokio::task::yield_now().await;
            assert_eq!(socket.read(read).await.unwrap(), b"hello");
            assert!(timeout(Duration::from_millis(10), socket.read(read)).await.is_err());
        }
        socket.unwatch();
        socket.write(|fd| Ok(send(fd.as_raw_fd(), b"x", MsgFlags::empty())?)).await.unwrap();
        theirs.read_exact(&mut [0]).unwrap();
        drop(theirs);
        socket.unwatch();
        assert_eq!(socket.read(read).await.unwrap(), b"");
    }

    #[tokio::test]
    async fn write_to_nobody_fails() {
        let (mut socket, theirs) = pair();
        drop(theirs);
        let result = socket.write(|fd| Ok(send(fd.as_raw_fd(), b"x", MsgFlags::MSG_NOSIGNAL)?)).await;
        assert_eq!(result.unwrap_err().kind(), io::ErrorKind::BrokenPipe);
    }
}
