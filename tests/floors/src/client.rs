//! The client that drives floor and product alike: one connection, N calls in flight, every call timed.
//!
//! Closed loop: each of N tasks makes its next call when its last was answered. So `calls_per_second` is N over the mean
//! time of a call, and a stall of the server shows as N long samples and no more; compare quantiles at the same N only.

use std::{
    env,
    io::{BufRead as _, BufReader},
    path::Path,
    process::{Child, Command, Stdio},
    sync::{
        Arc,
        atomic::{AtomicU32, Ordering},
    },
    time::{Duration, Instant},
};

use prost::bytes::Bytes;
use serde::Serialize;
use sublet_proto::v1::{InvokeRequest, invoker_client::InvokerClient};
use tokio::task::JoinSet;
use tonic::transport::{Channel, Endpoint};

use crate::{Drive, Error, Mode, PAYLOAD_MAX_BYTES, Start, remove_socket, runtime};

/// A call unanswered for so long ends the run.
const CALL_TIMEOUT: Duration = Duration::from_secs(30);

#[derive(Serialize)]
struct Report<'a> {
    name: &'a str,
    unit: &'a str,
    in_flight: u16,
    payload_bytes: usize,
    calls_per_second: f64,
    samples: &'a [u64],
}

/// Drives the server asked for and prints the report.
pub fn run(drive: &Drive) -> Result<(), Error> {
    if drive.payload > PAYLOAD_MAX_BYTES {
        let over = format!("payload of {} bytes; the limit is {PAYLOAD_MAX_BYTES}", drive.payload);
        return Err(Error::Protocol(over));
    }
    let (server, path, name) = match (&drive.against, drive.mode) {
        (Some(path), _) => (None, path, "against"),
        (None, Mode::Echo) => (Some(OwnServer::start(drive)?), &drive.socket, "warm-floor-echo"),
        (None, Mode::Pipe) => (Some(OwnServer::start(drive)?), &drive.socket, "warm-floor-pipe"),
    };
    let outcome = runtime()?.block_on(measure(drive, path));
    // Stopped before the outcome is looked at, so that a failed run leaves nothing behind either.
    let stopped = server.map_or(Ok(()), OwnServer::stop);
    let (samples, took) = outcome?;
    stopped?;
    let payload_bytes = payload(drive).len();
    let rate = f64::from(drive.calls) / took.as_secs_f64();
    print(drive.name.as_deref().unwrap_or(name), drive.in_flight, payload_bytes, rate, &samples)
}

/// Prints the report.
pub fn print(
    name: &str,
    in_flight: u16,
    payload_bytes: usize,
    calls_per_second: f64,
    samples: &[u64],
) -> Result<(), Error> {
    let report = Report { name, unit: "ns", in_flight, payload_bytes, calls_per_second, samples };
    let line = serde_json::to_string(&report).map_err(|error| Error::io("write the report")(error.into()))?;
    println!("{line}");
    Ok(())
}

fn payload(drive: &Drive) -> Bytes {
    match &drive.text {
        Some(text) => text.clone().into(),
        // Not all the same byte, so that an answer out of place is seen.
        None => (0..drive.payload).map(|at| (at % 251) as u8).collect(),
    }
}

async fn measure(drive: &Drive, path: &Path) -> Result<(Vec<u64>, Duration), Error> {
    let place = path.display();
    let failed = |source| Error::Transport { what: format!("connect to {place}"), source };
    // tonic speaks to UNIX sockets itself since 0.14; a connector of our own would do the same.
    let channel = Endpoint::from_shared(format!("unix:{place}")).map_err(failed)?.connect().await.map_err(failed)?;
    let client = InvokerClient::new(channel)
        .max_decoding_message_size(PAYLOAD_MAX_BYTES)
        .max_encoding_message_size(PAYLOAD_MAX_BYTES);
    let request = InvokeRequest {
        tenant: drive.tenant.clone(),
        function: drive.function.clone(),
        sub_tenant: drive.sub_tenant.clone(),
        payload: payload(drive),
        ..InvokeRequest::default()
    };
    // At least one call from each task, so that every worker or child has been touched.
    round(drive, &client, &request, drive.warm_up.max(u32::from(drive.in_flight))).await?;
    round(drive, &client, &request, drive.calls).await
}

async fn round(
    drive: &Drive,
    client: &InvokerClient<Channel>,
    request: &InvokeRequest,
    calls: u32,
) -> Result<(Vec<u64>, Duration), Error> {
    let begun = Arc::new(AtomicU32::new(0));
    let mut tasks = JoinSet::new();
    let start = Instant::now();
    for _ in 0..drive.in_flight {
        let (mut client, request, begun) = (client.clone(), request.clone(), begun.clone());
        let (any_answer, fresh, wanted, gap) = (drive.any_answer, drive.fresh, drive.start, drive.gap);
        tasks.spawn(async move {
            let mut samples = Vec::new();
            loop {
                let at = begun.fetch_add(1, Ordering::Relaxed);
                if at >= calls {
                    break;
                }
                let mut request = request.clone();
                if fresh {
                    request.sub_tenant = format!("{}-{calls}-{at}", request.sub_tenant);
                }
                let (took, start) = call(&mut client, request, any_answer).await?;
                if wanted.is_none_or(|wanted| is_start(start, wanted)) {
                    samples.push(took);
                }
                if gap > 0 {
                    tokio::time::sleep(Duration::from_millis(gap)).await;
                }
            }
            Ok::<_, Error>(samples)
        });
    }
    let mut samples = Vec::new();
    while let Some(task) = tasks.join_next().await {
        let task = task.map_err(|error| Error::Protocol(format!("a task of the client ended early: {error}")))?;
        samples.extend(task?);
    }
    Ok((samples, start.elapsed()))
}

/// One call, in nanoseconds from before it is handed to tonic until its answer is decoded.
async fn call(
    client: &mut InvokerClient<Channel>,
    request: InvokeRequest,
    any_answer: bool,
) -> Result<(u64, sublet_proto::v1::Start), Error> {
    let sent: Bytes = request.payload.clone();
    let start = Instant::now();
    // Not a gRPC deadline: that would be work for the server.
    let answer = tokio::time::timeout(CALL_TIMEOUT, client.invoke(request))
        .await
        .map_err(|_| Error::Protocol(format!("a call was not answered within {} s", CALL_TIMEOUT.as_secs())))?
        .map_err(|status| Error::Refused(Box::new(status)))?;
    let took = start.elapsed();
    let answer = answer.into_inner();
    let start = answer.receipt.as_ref().map_or_else(Default::default, sublet_proto::v1::Receipt::start);
    let answered = answer.payload;
    if !any_answer && answered != sent {
        return Err(Error::OtherAnswer { sent: sent.len(), answered: answered.len() });
    }
    Ok((u64::try_from(took.as_nanos()).unwrap_or(u64::MAX), start))
}

fn is_start(seen: sublet_proto::v1::Start, wanted: Start) -> bool {
    use sublet_proto::v1::Start as Seen;
    matches!((seen, wanted), (Seen::Cold, Start::Cold) | (Seen::Cell, Start::Cell) | (Seen::Warm, Start::Warm))
}

/// The floor's server in a process of its own, for one run.
struct OwnServer<'a> {
    process: Child,
    socket: &'a Path,
}

impl<'a> OwnServer<'a> {
    fn start(drive: &'a Drive) -> Result<Self, Error> {
        let program = env::current_exe().map_err(Error::io("find this program"))?;
        let mode = match drive.mode {
            Mode::Echo => "echo",
            Mode::Pipe => "pipe",
        };
        let mut process = Command::new(&program)
            .args(["server", "--mode", mode, "--children", &drive.in_flight.to_string(), "--socket"])
            .arg(&drive.socket)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .map_err(Error::io(format!("start {} server", program.display())))?;
        let mut said = String::new();
        if let Some(stdout) = process.stdout.take() {
            BufReader::new(stdout).read_line(&mut said).map_err(Error::io("hear from the server"))?;
        }
        let server = Self { process, socket: &drive.socket };
        if said != "ready\n" {
            server.stop()?;
            return Err(Error::Protocol("the server ended before it was ready".into()));
        }
        Ok(server)
    }

    fn stop(mut self) -> Result<(), Error> {
        drop(self.process.stdin.take());
        self.process.wait().map_err(Error::io("wait for the server"))?;
        remove_socket(self.socket)
    }
}
