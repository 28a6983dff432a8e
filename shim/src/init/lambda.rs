//! `lambda` functions: a process that asks for its calls over HTTP. The launcher, fully confined itself, speaks the frames
//! for it and serves the Lambda Runtime API on the worker's own loopback.
//!
//! It ends as the process ends, by the same status or signal, so that init reports of either what it would report of a
//! function that has taken the launcher's place.

use std::{
    ffi::CString,
    io,
    net::TcpListener,
    os::fd::{AsRawFd, BorrowedFd, RawFd},
    rc::Rc,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use nix::{
    poll::{PollFd, PollFlags, PollTimeout, poll},
    sys::{
        signal::{Signal, kill},
        wait::{WaitStatus, waitpid},
    },
    unistd::{Pid, execve},
};
use sublet_proto::link::{
    CHANNEL_FD,
    frame::{BAD_PAYLOAD, FLAG_IN_PIECES, Header, Kind, TOO_LARGE},
    sandbox::SandboxSpec,
};
use sublet_runtime_api::{
    ADDRESS, Event, Link, Outbound,
    server::{ERROR_MAX_BYTES, Identity, Server},
};
use tokio::task::{LocalSet, spawn_local};

use super::{channel::Channel, exec::EXEC_FAILED};
use crate::sys::{self, Fork};

/// Added to a signal's number, as shells have it: the status of a launcher that a signal did not end.
const SIGNAL_STATUS: i32 = 128;

/// Serves calls until the supervisor closes the channel or the runtime ends.
pub fn serve(spec: &SandboxSpec, arguments: &[CString], environment: &[CString]) -> io::Result<()> {
    // Before the runtime is there to ask: clients give up connecting after a second.
    let listener = TcpListener::bind(ADDRESS)?;
    listener.set_nonblocking(true)?;
    let child = match sys::fork()? {
        Fork::Child => become_runtime(arguments, environment),
        Fork::Parent(pid) => pid,
    };
    let identity = Identity {
        arn: arn(environment),
        tenant_id: value(environment, "SUBLET_SUB_TENANT").to_owned(),
        answer_max_bytes: spec.answer_max_bytes as usize,
    };
    let runtime = tokio::runtime::Builder::new_current_thread().enable_io().build()?;
    let channel = Channel::new(sys::lasting_fd(CHANNEL_FD));
    let serving = LocalSet::new();
    runtime.block_on(serving.run_until(async {
        let listener = tokio::net::TcpListener::from_std(listener)?;
        let requests = sys::watch(Readable(sys::lasting_fd(CHANNEL_FD)))?;
        let ended = sys::watch(sys::open_pidfd(child)?)?;
        let server = Server::new(ToSupervisor(channel), identity);
        let mut accepting = spawn_local(Rc::clone(&server).listen(listener));
        loop {
            tokio::select! {
                ready = ended.readable() => {
                    drop(ready?);
                    end_as(child)
                }
                ready = requests.readable() => {
                    let mut ready = ready?;
                    if !is_readable(requests.get_ref().0)? {
                        ready.clear_ready();
                        continue;
                    }
                    // A frame comes whole: it was written by the supervisor in one go, and waiting for the rest of one
                    // keeps nobody waiting but its own worker.
                    match channel.receive(spec.payload_max_bytes)? {
                        // Nobody is left to serve.
                        None => sys::exit_now(0),
                        Some((header, payload)) if header.kind == Kind::Request => {
                            server.call(event(header, payload.into_bytes()?));
                        }
                        Some((header, _)) => {
                            return Err(io::Error::other(format!("expected REQUEST, got {:?}", header.kind)));
                        }
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
struct ToSupervisor(Channel);

impl Link for ToSupervisor {
    fn send(&self, event: Option<&Event>, what: Outbound) {
        let (lease, label) = event.map_or(([0; 16], [0; 16]), |event| (event.lease, event.label));
        let header = |kind| Header { lease, label, ..Header::bare(kind) };
        let sent = match what {
            Outbound::Ready => self.0.send(header(Kind::Ready), &[]),
            Outbound::InitFailed(said) => self.0.send(header(Kind::Error), &said),
            Outbound::Piece(piece) => self.0.send(header(Kind::Piece), &piece),
            Outbound::Answer(answer) => self.0.send(header(Kind::Response), &answer),
            Outbound::Failed(said) => self.0.send(header(Kind::Error), &said[..said.len().min(ERROR_MAX_BYTES)]),
            Outbound::TooLarge => self.0.send_header(Header { length: TOO_LARGE, ..header(Kind::Response) }),
            Outbound::BadPayload(why) => {
                self.0.send(Header { aux: BAD_PAYLOAD, ..header(Kind::Error) }, why.as_bytes())
            }
            Outbound::Idle => self.0.send(header(Kind::Idle), &[]),
        };
        if sent.is_err() {
            // The supervisor has let go of this worker.
            sys::exit_now(0);
        }
    }
}

/// A descriptor that the event loop may watch; this process never closes it.
struct Readable(BorrowedFd<'static>);

impl AsRawFd for Readable {
    fn as_raw_fd(&self) -> RawFd {
        self.0.as_raw_fd()
    }
}

fn is_readable(fd: BorrowedFd<'_>) -> io::Result<bool> {
    let mut watched = [PollFd::new(fd, PollFlags::POLLIN)];
    Ok(poll(&mut watched, PollTimeout::ZERO)? > 0)
}

fn become_runtime(arguments: &[CString], environment: &[CString]) -> ! {
    let prepare = || -> io::Result<()> {
        // The channel is the launcher's alone.
        sys::close_from(CHANNEL_FD)?;
        sys::default_signal(Signal::SIGPIPE);
        match execve(&arguments[0], arguments, environment)? {}
    };
    if let Err(error) = prepare() {
        eprintln!("execve {}: {error}", arguments[0].to_string_lossy());
    }
    sys::exit_now(EXEC_FAILED)
}

/// Ends as `child` has ended.
fn end_as(child: Pid) -> ! {
    match waitpid(child, None) {
        Ok(WaitStatus::Exited(_, code)) => sys::exit_now(code),
        Ok(WaitStatus::Signaled(_, signal, _)) => {
            sys::default_signal(signal);
            // It cannot fail to be sent to oneself; should it not end us, the status says as much.
            kill(Pid::this(), signal).ok();
            sys::exit_now(SIGNAL_STATUS + signal as i32)
        }
        Ok(_) | Err(_) => sys::exit_now(EXEC_FAILED),
    }
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
