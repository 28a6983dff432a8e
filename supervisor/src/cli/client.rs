//! How the command line talks to a supervisor.

use std::{io, path::Path};

use sublet_proto::v1::{admin_client::AdminClient, invoker_client::InvokerClient};
use tonic::transport::{Channel, Endpoint};

use super::Failed;

/// As large as any answer may be, with its receipt.
const MESSAGE_MAX_BYTES: usize = 80 * 1024 * 1024;

/// Runs one asynchronous command to its end.
pub fn block_on<T>(future: impl Future<Output = Result<T, Failed>>) -> Result<T, Failed> {
    tokio::runtime::Builder::new_current_thread().enable_all().build()?.block_on(future)
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
