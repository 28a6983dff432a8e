//! `lambda` functions: a process that asks for its calls over HTTP. The launcher, fully confined itself, speaks the frames
//! for it and serves the Lambda Runtime API on the worker's own loopback.
//!
//! It ends as the process ends, by the same status or signal, so that init reports of either what it would report of a
//! function that has taken the launcher's place.

use std::{
    cell::RefCell,
    ffi::CString,
    io,
    net::TcpListener,
    os::fd::{AsFd, RawFd},
    rc::Rc,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use nix::{fcntl::OFlag, unistd::pipe2};
use sublet_proto::link::{
    CHANNEL_FD,
    frame::{BAD_PAYLOAD, FLAG_IN_PIECES, Header, Kind, TOO_LARGE},
    sandbox::SandboxSpec,
    token::TOKEN_FILE,
};
use sublet_runtime_api::{
    ADDRESS, Event, Link, Outbound,
    server::{ERROR_MAX_BYTES, Identity, Server},
};
use tokio::task::{LocalSet, spawn_local};

use super::{
    channel::Channel,
    child::{end_as, run_beside_launcher},
    log_frames::Records,
};
use crate::sys::{self, Fork};

/// Where clients write records of their log, rather than lines to stdout.
const RECORDS_FD: RawFd = CHANNEL_FD;
/// Tells them.
const RECORDS_VARIABLE: &str = "_LAMBDA_TELEMETRY_LOG_FD";

/// Serves calls until the supervisor closes the channel or the runtime ends.
pub fn serve(channel: Channel, spec: &SandboxSpec, arguments: &[CString], environment: &[CString]) -> io::Result<()> {
    // Before the runtime is there to ask: clients give up connecting after a second.
    let listener = TcpListener::bind(ADDRESS)?;
    listener.set_nonblocking(true)?;
    let (records, written) = pipe2(OFlag::O_CLOEXEC)?;
    let with_records = with_records(environment)?;
    let child = match sys::fork()? {
        // Records in the place of the channel, which is the launcher's alone.
        Fork::Child(child) => run_beside_launcher(child, (written.as_fd(), RECORDS_FD), arguments, &with_records),
        Fork::Parent(pid) => pid,
    };
    drop(written);
    // The log, as any process of a worker has it.
    let records = Records::new(records, io::stderr().as_fd().try_clone_to_owned()?)?;
    let identity = Identity {
        arn: arn(environment),
        tenant_id: value(environment, "SUBLET_SUB_TENANT").to_owned(),
        answer_max_bytes: spec.answer_max_bytes as usize,
        token_file: spec.token.then_some(TOKEN_FILE),
    };
    let runtime = tokio::runtime::Builder::new_current_thread().enable_io().build()?;
    let serving = LocalSet::new();
    runtime.block_on(serving.run_until(async {
        let listener = tokio::net::TcpListener::from_std(listener)?;
        let requests = sys::watch_lasting(channel.socket())?;
        let ended = sys::watch(sys::open_pidfd(child)?)?;
        let logged = sys::watch(records.watched()?)?;
        let records = Rc::new(RefCell::new(records));
        let mut has_records = true;
        let server = Server::new(ToSupervisor { channel, records: records.clone() }, identity);
        let mut accepting = spawn_local(Rc::clone(&server).listen(listener));
        loop {
            tokio::select! {
                ready = ended.readable() => {
                    drop(ready?);
                    server.send_held();
                    end_as(child)
                }
                ready = requests.readable() => {
                    // There is one at a time, and whatever comes after it is told anew.
                    ready?.clear_ready();
                    match channel.receive_now(spec.payload_max_bytes) {
                        // Nobody is left to serve.
                        Ok(None) => sys::exit_now(0),
                        Ok(Some((header, payload))) if header.kind == Kind::Request => {
                            server.call(event(header, payload));
                        }
                        Ok(Some((header, _))) => {
                            return Err(io::Error::other(format!("expected REQUEST, got {:?}", header.kind)));
                        }
                        Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                        Err(error) => return Err(error),
                    }
                }
                ready = logged.readable(), if has_records => {
                    let mut ready = ready?;
                    match records.borrow_mut().pass_on() {
                        Ok(has_more) => has_records = has_more,
                        Err(error) if error.kind() == io::ErrorKind::WouldBlock => ready.clear_ready(),
                        // Its process goes on without them.
                        Err(_) => has_records = false,
                    }
                }
                stopped = &mut accepting => return stopped.map_err(io::Error::other)?,
            }
        }
    }))
}

fn event(header: Header, payload: Vec<u8>) -> Event {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    let deadline = now + Duration::from_millis(header.aux.into());
    Event {
        lease: header.lease,
        label: header.label,
        deadline_ms: u64::try_from(deadline.as_millis()).unwrap_or(u64::MAX),
        in_pieces: header.flags & FLAG_IN_PIECES != 0,
        payload: payload.into(),
    }
}

/// The runtime's words as frames.
struct ToSupervisor {
    channel: Channel,
    records: Rc<RefCell<Records>>,
}

impl Link for ToSupervisor {
    fn send(&self, event: Option<&Event>, what: Outbound) {
        let (lease, label) = event.map_or(([0; 16], [0; 16]), |event| (event.lease, event.label));
        // What was logged before the answer is there before it.
        self.records.borrow_mut().drain();
        let channel = &self.channel;
        let header = |kind| Header { lease, label, ..Header::bare(kind) };
        let sent = match what {
            Outbound::Ready => channel.send(header(Kind::Ready), &[]),
            Outbound::InitFailed(said) => channel.send(header(Kind::Error), &said),
            Outbound::Piece(piece) => channel.send(header(Kind::Piece), &piece),
            Outbound::Answer(answer) => channel.send(header(Kind::Response), &answer),
            Outbound::Failed(said) => channel.send(header(Kind::Error), &said[..said.len().min(ERROR_MAX_BYTES)]),
            Outbound::TooLarge => channel.send_header(Header { length: TOO_LARGE, ..header(Kind::Response) }),
            Outbound::BadPayload(why) => {
                channel.send(Header { aux: BAD_PAYLOAD, ..header(Kind::Error) }, why.as_bytes())
            }
            Outbound::Idle => channel.send(header(Kind::Idle), &[]),
        };
        if sent.is_err() {
            // The supervisor has let go of this worker.
            sys::exit_now(0);
        }
    }
}

fn with_records(environment: &[CString]) -> io::Result<Vec<CString>> {
    let is_other = |entry: &&CString| !entry.to_bytes().starts_with(RECORDS_VARIABLE.as_bytes());
    let mut environment: Vec<CString> = environment.iter().filter(is_other).cloned().collect();
    environment.push(CString::new(format!("{RECORDS_VARIABLE}={RECORDS_FD}"))?);
    Ok(environment)
}

fn value<'a>(environment: &'a [CString], name: &str) -> &'a str {
    let entries = environment.iter().filter_map(|entry| entry.to_str().ok()?.split_once('='));
    entries.filter(|(key, _)| *key == name).map(|(_, value)| value).next().unwrap_or_default()
}

/// In the form that clients parse; there is no account.
fn arn(environment: &[CString]) -> String {
    let (region, name) = (value(environment, "AWS_REGION"), value(environment, "AWS_LAMBDA_FUNCTION_NAME"));
    format!("arn:aws:lambda:{region}:000000000000:function:{name}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn arn_has_the_form_that_clients_parse() {
        let environment = ["A=1", "AWS_REGION=local", "AWS_LAMBDA_FUNCTION_NAME=resize", "SUBLET_SUB_TENANT=a=b"]
            .map(|entry| CString::new(entry).unwrap());
        assert_eq!(arn(&environment), "arn:aws:lambda:local:000000000000:function:resize");
        assert_eq!(value(&environment, "SUBLET_SUB_TENANT"), "a=b");
    }
}
