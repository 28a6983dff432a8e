//! How the command line talks to a supervisor.

use std::{fs, io, path::Path, time::Duration};

use nix::sys::socket::{getsockopt, sockopt};
use sublet_proto::v1::{admin_client::AdminClient, invoker_client::InvokerClient};
use tonic::transport::{Channel, Endpoint};

use super::Failed;

/// As large as any answer may be, with its receipt.
const MESSAGE_MAX_BYTES: usize = 80 * 1024 * 1024;

/// Runs one asynchronous command to its end.
pub fn block_on<T>(future: impl Future<Output = Result<T, Failed>>) -> Result<T, Failed> {
    tokio::runtime::Builder::new_current_thread().enable_all().build()?.block_on(future)
}

/// Waits for a supervisor's answer for so long. One that does not run takes connections all the same: the kernel does.
pub async fn within<T>(
    patience: Duration,
    socket: &Path,
    asked: impl Future<Output = Result<T, Failed>>,
) -> Result<T, Failed> {
    match tokio::time::timeout(patience, asked).await {
        Ok(answer) => answer,
        Err(_) => Err(Failed::new(silent(patience, listener(socket)))),
    }
}

/// The process that listens at a socket, and its state as /proc tells it.
fn listener(socket: &Path) -> Option<(i32, char)> {
    let stream = std::os::unix::net::UnixStream::connect(socket).ok()?;
    let pid = getsockopt(&stream, sockopt::PeerCredentials).ok()?.pid();
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    Some((pid, stat.rsplit_once(") ")?.1.chars().next()?))
}

fn silent(patience: Duration, listener: Option<(i32, char)>) -> String {
    let waited = format!("has not answered for {}s", patience.as_secs());
    match listener {
        Some((pid, 'T' | 't')) => format!(
            "the supervisor (pid {pid}) {waited}: it is stopped, by a signal or a debugger; `kill -CONT {pid}` lets it go on"
        ),
        Some((pid, _)) => format!(
            "the supervisor (pid {pid}) {waited}: its loop stands still, or its group is frozen; its log says since when; \
             `kill -KILL {pid}` ends it, and the nursery cleans up"
        ),
        None => format!("the supervisor {waited}"),
    }
}

async fn connect(target: &str) -> Result<Channel, Failed> {
    let url = match target {
        http if http.starts_with("http://") => http.to_owned(),
        unix if unix.starts_with("unix:") => unix.replacen("unix://", "unix:", 1),
        address if address.parse::<std::net::SocketAddr>().is_ok() => format!("http://{address}"),
        path => format!("unix:{path}"),
    };
    let endpoint = Endpoint::from_shared(url).map_err(|error| Failed::new(format!("{target:?}: {error}")))?;
    endpoint.connect().await.map_err(|error| {
        let mut source: Option<&dyn std::error::Error> = Some(&error);
        let mut kind = None;
        while let Some(cause) = source {
            kind = cause.downcast_ref::<io::Error>().map(io::Error::kind).or(kind);
            source = cause.source();
        }
        let remedy = match kind {
            Some(io::ErrorKind::NotFound | io::ErrorKind::ConnectionRefused) => {
                "no supervisor is there; start one with `sublet serve`, or name its socket"
            }
            Some(io::ErrorKind::PermissionDenied) => {
                "you may not connect; see host.socket_mode and host.socket_gid, or become root"
            }
            _ => "is a supervisor there?",
        };
        Failed::new(format!(
            "connect to {target}: {}; {remedy}",
            kind.map_or_else(|| error.to_string(), |k| k.to_string())
        ))
    })
}

/// A client of callers. `target` is a socket's path or an http address.
pub async fn invoker(target: &str) -> Result<InvokerClient<Channel>, Failed> {
    let client = InvokerClient::new(connect(target).await?);
    Ok(client.max_decoding_message_size(MESSAGE_MAX_BYTES).max_encoding_message_size(MESSAGE_MAX_BYTES))
}

/// A client of operators.
pub async fn admin(socket: &Path) -> Result<AdminClient<Channel>, Failed> {
    let client = AdminClient::new(connect(&socket.to_string_lossy()).await?);
    Ok(client.max_decoding_message_size(MESSAGE_MAX_BYTES))
}

/// A status as the command line tells it.
pub fn refused(status: &tonic::Status) -> Failed {
    Failed::new(status.message())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn supervisor_that_does_not_answer_is_told_by_its_state() {
        let patience = Duration::from_secs(5);
        let stopped = silent(patience, Some((17, 'T')));
        assert!(stopped.contains("pid 17") && stopped.contains("kill -CONT 17"), "{stopped}");
        let stuck = silent(patience, Some((17, 'S')));
        assert!(stuck.contains("pid 17") && stuck.contains("kill -KILL 17"), "{stuck}");
        assert!(silent(patience, None).contains("5s"));
    }
}
