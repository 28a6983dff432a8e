//! The floor's server: the public service, answered with the payload itself, by way of a child in mode `pipe`.
//!
//! It does nothing the product could leave out, and leaves out everything it could not: no checks, no queue, no lease, no
//! deadline, no receipt. A call holds one child from before its write until after its read; there are as many children
//! as calls in flight, and a call too many is refused, so that no waiting is ever measured.

use std::{
    env,
    io::{self, Read as _, Write as _},
    os::{fd::OwnedFd, unix::net::UnixStream as StdUnixStream},
    process::{Child, Command, Stdio},
    sync::{Mutex, PoisonError},
    thread,
};

use prost::bytes::{Bytes, BytesMut};
use sublet_proto::v1::{
    InvokeRequest, InvokeResponse, InvokeStreamResponse,
    invoker_server::{Invoker, InvokerServer},
};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{UnixListener, UnixStream},
    sync::oneshot,
};
use tokio_stream::wrappers::UnixListenerStream;
use tonic::{Request, Response, Status, codegen::BoxStream, transport::Server};

use crate::{Error, Mode, PAYLOAD_MAX_BYTES, Serve, child::HEADER_BYTES, remove_socket, runtime};

/// Serves until stdin is closed. Says `ready` on stdout once it listens.
pub fn run(serve: &Serve) -> Result<(), Error> {
    let runtime = runtime()?;
    let mut processes = Vec::new();
    let mut pipes = Vec::new();
    if serve.mode == Mode::Pipe {
        // A UNIX stream joins the runtime's poller as it is made, so inside.
        let _inside = runtime.enter();
        for _ in 0..serve.children {
            let (process, pipe) = start_child()?;
            processes.push(process);
            pipes.push(pipe);
        }
    }
    let outcome = runtime.block_on(listen(serve, Floor { mode: serve.mode, pipes: Mutex::new(pipes) }));
    // Closes every pipe, at which the children end.
    drop(runtime);
    for mut process in processes {
        process.wait().map_err(Error::io("wait for a child"))?;
    }
    outcome
}

async fn listen(serve: &Serve, floor: Floor) -> Result<(), Error> {
    remove_socket(&serve.socket)?;
    let place = serve.socket.display();
    let listener = UnixListener::bind(&serve.socket).map_err(Error::io(format!("listen on {place}")))?;
    println!("ready");
    io::stdout().flush().map_err(Error::io("say ready"))?;

    let (closed, stdin_closed) = oneshot::channel::<()>();
    thread::spawn(move || {
        // End of file and an error mean the same here: whoever started us is gone.
        while io::stdin().read(&mut [0; 64]).is_ok_and(|got| got > 0) {}
        drop(closed);
    });
    let service = InvokerServer::new(floor)
        .max_decoding_message_size(PAYLOAD_MAX_BYTES)
        .max_encoding_message_size(PAYLOAD_MAX_BYTES);
    let serving = Server::builder().add_service(service).serve_with_incoming(UnixListenerStream::new(listener));
    tokio::select! {
        served = serving => {
            served.map_err(|source| Error::Transport { what: format!("serve on {place}"), source })
        }
        _ = stdin_closed => Ok(()),
    }
}

fn start_child() -> Result<(Child, Pipe), Error> {
    let (ours, theirs) = StdUnixStream::pair().map_err(Error::io("make a socketpair"))?;
    ours.set_nonblocking(true).map_err(Error::io("make a socketpair nonblocking"))?;
    let program = env::current_exe().map_err(Error::io("find this program"))?;
    let process = Command::new(&program)
        .arg("child")
        .stdin(Stdio::from(OwnedFd::from(theirs)))
        .stdout(Stdio::null())
        .spawn()
        .map_err(Error::io(format!("start {} child", program.display())))?;
    let stream = UnixStream::from_std(ours).map_err(Error::io("poll a socketpair"))?;
    Ok((process, Pipe { stream, frame: Vec::new() }))
}

struct Pipe {
    stream: UnixStream,
    /// Kept between calls for its memory.
    frame: Vec<u8>,
}

impl Pipe {
    async fn round_trip(&mut self, payload: &[u8]) -> io::Result<Bytes> {
        let length = u32::try_from(payload.len()).map_err(io::Error::other)?;
        self.frame.clear();
        self.frame.extend_from_slice(&length.to_le_bytes());
        self.frame.extend_from_slice(payload);
        // Header and payload in one write, and below in one read: two system calls on this side.
        self.stream.write_all(&self.frame).await?;
        let expected = HEADER_BYTES + payload.len();
        let mut answer = BytesMut::with_capacity(expected);
        while answer.len() < expected {
            if self.stream.read_buf(&mut answer).await? == 0 {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
        }
        Ok(answer.split_off(HEADER_BYTES).freeze())
    }
}

struct Floor {
    mode: Mode,
    pipes: Mutex<Vec<Pipe>>,
}

impl Floor {
    fn pipes(&self) -> std::sync::MutexGuard<'_, Vec<Pipe>> {
        // A vector is whole between any two of its operations.
        self.pipes.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[tonic::async_trait]
impl Invoker for Floor {
    type InvokeStreamStream = BoxStream<InvokeStreamResponse>;

    async fn invoke_stream(&self, _: Request<InvokeRequest>) -> Result<Response<Self::InvokeStreamStream>, Status> {
        Err(Status::unimplemented("the floor is of whole answers"))
    }

    async fn invoke(&self, request: Request<InvokeRequest>) -> Result<Response<InvokeResponse>, Status> {
        let payload = request.into_inner().payload;
        let payload = match self.mode {
            Mode::Echo => payload,
            Mode::Pipe => {
                let pipe = self.pipes().pop();
                let mut pipe = pipe.ok_or_else(|| Status::resource_exhausted("more calls in flight than children"))?;
                // On an error, or when the caller goes away, the pipe goes with it: its next bytes would be another call's.
                let answer = pipe.round_trip(&payload).await.map_err(|error| Status::internal(error.to_string()))?;
                self.pipes().push(pipe);
                answer
            }
        };
        Ok(Response::new(InvokeResponse { payload, ..InvokeResponse::default() }))
    }
}
