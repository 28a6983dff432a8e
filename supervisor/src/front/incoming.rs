//! Connections: a limit on how many, and patience when the host runs out of descriptors.

use std::{
    io,
    os::{fd::OwnedFd, unix::net as unix},
    sync::Arc,
    time::Duration,
};

use tokio::{
    net::{TcpListener, UnixListener},
    sync::{Semaphore, mpsc},
};
use tokio_stream::wrappers::ReceiverStream;

use crate::socket::connection::Connection;

/// How long accepting pauses after it failed. Without it, a process out of descriptors spins.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

/// Sockets that were bound while we still had the rights to.
#[derive(Debug)]
pub struct Bound {
    /// For callers.
    pub call: unix::UnixListener,
    /// For operators.
    pub admin: unix::UnixListener,
    /// For callers on loopback, when configured.
    pub tcp: Option<std::net::TcpListener>,
}

/// Accepts on both listeners, at most `most` connections at a time; further ones wait in the kernel's backlog.
pub fn incoming(
    unix: UnixListener,
    tcp: Option<TcpListener>,
    most: u32,
) -> ReceiverStream<Result<Connection, io::Error>> {
    let places = Arc::new(Semaphore::new(most as usize));
    let (sender, receiver) = mpsc::channel(1);
    tokio::spawn(async move {
        loop {
            let Ok(place) = places.clone().acquire_owned().await else { return };
            let accepted = tokio::select! {
                accepted = unix.accept() => accepted.and_then(|(stream, _)| Ok(stream.into_std()?.into())),
                accepted = accept_tcp(tcp.as_ref()) => accepted,
                () = sender.closed() => return,
            };
            match accepted.and_then(|socket| Connection::new(socket, place)) {
                Ok(connection) => {
                    if sender.send(Ok(connection)).await.is_err() {
                        return;
                    }
                }
                Err(error) => {
                    tracing::warn!(%error, "a connection cannot be accepted");
                    tokio::time::sleep(ACCEPT_PAUSE).await;
                }
            }
        }
    });
    ReceiverStream::new(receiver)
}

async fn accept_tcp(listener: Option<&TcpListener>) -> io::Result<OwnedFd> {
    match listener {
        Some(listener) => {
            let (stream, _) = listener.accept().await?;
            stream.set_nodelay(true)?;
            Ok(stream.into_std()?.into())
        }
        None => std::future::pending().await,
    }
}
