//! Connections: a limit on how many, and patience when the host runs out of descriptors.

use std::{
    io,
    os::{fd::OwnedFd, unix::net as unix},
    sync::Arc,
    time::Duration,
};

use tokio::{
    net::{TcpListener, UnixListener},
    sync::{Semaphore, mpsc, watch},
};
use tokio_stream::wrappers::ReceiverStream;

use crate::{
    events::troubles::{About, Troubles},
    socket::connection::Connection,
};

/// How long accepting pauses after it failed. Without it, a process out of descriptors spins.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

/// A listener that was bound with root's rights, and does not block.
pub type Listener = unix::UnixListener;

/// Sockets that were bound while we still had the rights to.
#[derive(Debug)]
pub struct Bound {
    /// For callers.
    pub call: Renewed,
    /// For operators.
    pub admin: Renewed,
    /// For callers on loopback, when configured.
    pub tcp: Option<std::net::TcpListener>,
}

/// A listener, and where those come from that take its place when its path is gone.
#[derive(Debug)]
pub struct Renewed {
    /// The listener that was bound at the start.
    pub listener: Listener,
    /// Listeners that the nursery has bound anew since, each after the path was removed.
    pub next: mpsc::UnboundedReceiver<Listener>,
}

/// Accepts on both listeners, at most `most` connections at a time; further ones wait in the kernel's backlog. Ends once it is
/// `closing`, after the last connection that was accepted: whoever was let in is served.
///
/// # Errors
/// When a listener cannot be watched.
pub fn incoming(
    unix: Renewed,
    tcp: Option<TcpListener>,
    most: u32,
    troubles: Arc<Troubles>,
    mut closing: watch::Receiver<bool>,
) -> io::Result<ReceiverStream<Result<Connection, io::Error>>> {
    let places = Arc::new(Semaphore::new(most as usize));
    let (sender, receiver) = mpsc::channel(1);
    let Renewed { listener, mut next } = unix;
    let mut unix = UnixListener::from_std(listener)?;
    // Nobody new comes by it; who waits there since before is not sent away.
    let mut former = None;
    let mut fails = false;
    tokio::spawn(async move {
        loop {
            let place = tokio::select! {
                place = places.clone().acquire_owned() => place,
                // A sender that is gone closes as well.
                _ = closing.wait_for(|closing| *closing) => return,
            };
            let Ok(place) = place else { return };
            let accepted = tokio::select! {
                accepted = accept_unix(&unix) => accepted,
                accepted = accept_former(former.as_ref()) => accepted,
                accepted = accept_tcp(tcp.as_ref()) => accepted,
                Some(listener) = next.recv() => {
                    match UnixListener::from_std(listener) {
                        Ok(listener) => former = Some(std::mem::replace(&mut unix, listener)),
                        Err(error) => tracing::error!(%error, "a socket that was made anew cannot be watched"),
                    }
                    continue;
                }
                () = sender.closed() => return,
                _ = closing.wait_for(|closing| *closing) => return,
            };
            match accepted.and_then(|socket| Connection::new(socket, place)) {
                Ok(connection) => {
                    if std::mem::take(&mut fails) {
                        troubles.set(About::Descriptors, Vec::new());
                    }
                    if sender.send(Ok(connection)).await.is_err() {
                        return;
                    }
                }
                Err(error) => {
                    // Told once: it is tried again as long as somebody waits.
                    if !std::mem::replace(&mut fails, true) {
                        troubles.set(About::Descriptors, vec![format!("connections cannot be accepted: {error}")]);
                    }
                    tokio::time::sleep(ACCEPT_PAUSE).await;
                }
            }
        }
    });
    Ok(ReceiverStream::new(receiver))
}

async fn accept_unix(listener: &UnixListener) -> io::Result<OwnedFd> {
    let (stream, _) = listener.accept().await?;
    Ok(stream.into_std()?.into())
}

async fn accept_former(listener: Option<&UnixListener>) -> io::Result<OwnedFd> {
    match listener {
        Some(listener) => accept_unix(listener).await,
        None => std::future::pending().await,
    }
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
