//! A caller's connection: what is said at once goes out at once, in one write.

use std::{
    io::{self, IoSlice},
    os::fd::{AsRawFd, OwnedFd},
    pin::Pin,
    task::{Context, Poll, ready},
};

use bytes::{Buf as _, BytesMut};
use nix::{
    errno::Errno,
    sys::socket::{MsgFlags, Shutdown, sendmsg, shutdown},
};
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    sync::OwnedSemaphorePermit,
};
use tonic::transport::server::Connected;

use super::Socket;

/// Less than this is kept until more comes or a flush.
const KEPT_MAX: usize = 4096;

/// One connection, with its place among those allowed.
#[derive(Debug)]
pub struct Connection {
    socket: Socket,
    kept: BytesMut,
    _place: OwnedSemaphorePermit,
}

impl Connection {
    /// Takes a connected socket over that does not block. Must be called inside a tokio runtime.
    ///
    /// # Errors
    /// When it cannot be watched.
    pub fn new(socket: OwnedFd, place: OwnedSemaphorePermit) -> io::Result<Self> {
        Ok(Self { socket: Socket::new(socket)?, kept: BytesMut::new(), _place: place })
    }

    /// Writes what is kept, and `more` behind it. Returns how much of `more` was written: not nothing, unless it is.
    fn poll_send(&mut self, cx: &mut Context<'_>, more: &[u8]) -> Poll<io::Result<usize>> {
        loop {
            let kept = &self.kept;
            let send = |socket: &OwnedFd| {
                let slices = [IoSlice::new(kept), IoSlice::new(more)];
                Ok(sendmsg::<()>(socket.as_raw_fd(), &slices, &[], MsgFlags::MSG_NOSIGNAL, None)?)
            };
            let sent = ready!(self.socket.poll_write(cx, send))?;
            let of_kept = sent.min(self.kept.len());
            self.kept.advance(of_kept);
            if self.kept.is_empty() && (sent > of_kept || more.is_empty()) {
                return Poll::Ready(Ok(sent - of_kept));
            }
        }
    }
}

impl Connected for Connection {
    type ConnectInfo = ();

    fn connect_info(&self) {}
}

impl AsyncRead for Connection {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        self.socket.poll_recv(cx, buffer)
    }
}

/// Not vectored: then HTTP/2 puts an answer's small message between its headers and trailers by copying it, and all three come
/// here as one. With vectored writes the trailers come after a write of the message, and wake the caller a second time.
impl AsyncWrite for Connection {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        if self.kept.len() + bytes.len() < KEPT_MAX {
            self.kept.extend_from_slice(bytes);
            return Poll::Ready(Ok(bytes.len()));
        }
        self.poll_send(cx, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        if !self.kept.is_empty() {
            ready!(self.poll_send(cx, &[]))?;
        }
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        ready!(self.as_mut().poll_flush(cx))?;
        match shutdown(self.socket.fd()?.as_raw_fd(), Shutdown::Write) {
            // The other side was first.
            Ok(()) | Err(Errno::ENOTCONN) => Poll::Ready(Ok(())),
            Err(error) => Poll::Ready(Err(error.into())),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::{io::Read as _, os::unix::net::UnixStream, sync::Arc};

    use tokio::{
        io::{AsyncReadExt as _, AsyncWriteExt as _},
        sync::Semaphore,
    };

    use super::*;

    async fn pair() -> (Connection, UnixStream) {
        let (ours, theirs) = UnixStream::pair().unwrap();
        ours.set_nonblocking(true).unwrap();
        let place = Arc::new(Semaphore::new(1)).acquire_owned().await.unwrap();
        (Connection::new(ours.into(), place).unwrap(), theirs)
    }

    #[tokio::test]
    async fn small_writes_go_out_together_at_a_flush_and_before_a_large_one() {
        let (mut connection, mut theirs) = pair().await;
        theirs.set_nonblocking(true).unwrap();
        let mut bytes = vec![0; 3 * KEPT_MAX];
        connection.write_all(b"head").await.unwrap();
        connection.write_all(b"tail").await.unwrap();
        assert_eq!(theirs.read(&mut bytes).unwrap_err().kind(), io::ErrorKind::WouldBlock);
        connection.flush().await.unwrap();
        assert_eq!(theirs.read(&mut bytes).unwrap(), 8);
        assert_eq!(&bytes[..8], b"headtail");
        connection.write_all(b"head").await.unwrap();
        connection.write_all(&[7; 2 * KEPT_MAX]).await.unwrap();
        assert_eq!(theirs.read(&mut bytes).unwrap(), 4 + 2 * KEPT_MAX);
        assert_eq!(&bytes[..5], b"head\x07");
        // To the byte.
        connection.write_all(&[1; KEPT_MAX - 1]).await.unwrap();
        assert_eq!(theirs.read(&mut bytes).unwrap_err().kind(), io::ErrorKind::WouldBlock);
        connection.write_all(&[2]).await.unwrap();
        assert_eq!(theirs.read(&mut bytes).unwrap(), KEPT_MAX);
        connection.write_all(b"end").await.unwrap();
        connection.shutdown().await.unwrap();
        assert_eq!(theirs.read(&mut bytes).unwrap(), 3);
        assert_eq!(theirs.read(&mut bytes).unwrap(), 0);
    }

    #[tokio::test]
    async fn bytes_keep_their_order_when_there_is_no_room() {
        const CHUNKS: usize = 2000;
        let (mut connection, mut theirs) = pair().await;
        let reader = std::thread::spawn(move || {
            let mut bytes = Vec::new();
            theirs.read_to_end(&mut bytes).unwrap();
            bytes
        });
        let mut expected = Vec::new();
        for number in 0..CHUNKS {
            // Small and large in turn, none a multiple of another.
            let chunk = vec![number as u8; 1 + number * 37 % (2 * KEPT_MAX)];
            connection.write_all(&chunk).await.unwrap();
            expected.extend(chunk);
            if number % 7 == 0 {
                connection.flush().await.unwrap();
            }
        }
        connection.shutdown().await.unwrap();
        let bytes = tokio::task::spawn_blocking(|| reader.join().unwrap()).await.unwrap();
        assert!(bytes == expected);
    }

    #[tokio::test]
    async fn other_sides_words_and_end_are_read() {
        use std::io::Write as _;
        let (mut connection, mut theirs) = pair().await;
        theirs.write_all(b"hello").unwrap();
        drop(theirs);
        let mut bytes = Vec::new();
        connection.read_to_end(&mut bytes).await.unwrap();
        assert_eq!(bytes, b"hello");
    }
}
