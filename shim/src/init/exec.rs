//! `exec` functions: one process per call inside the warm sandbox. The launcher, fully confined itself, speaks the frames
//! for them: payload on stdin, answer on stdout, stderr to the log.

use std::{
    ffi::CString,
    io::{self, Read},
    os::fd::{AsFd, OwnedFd},
};

use nix::{
    errno::Errno,
    fcntl::{FcntlArg, OFlag, fcntl, open},
    poll::{PollFd, PollFlags, PollTimeout, poll},
    sys::{
        signal::{Signal, kill},
        stat::Mode,
        wait::{WaitStatus, waitpid},
    },
    unistd::{Pid, execve, pipe2},
};
use sublet_proto::link::{
    CHANNEL_FD,
    frame::{ENDED_BY_SIGNAL, FLAG_IN_PIECES, Header, Kind, TOO_LARGE},
    sandbox::SandboxSpec,
    token::{TOKEN_FD, TOKEN_FILE},
};

use super::channel::Channel;
use crate::sys::{self, Fork};

/// Largest piece of an answer: what a pipe holds.
const PIECE_BYTES: usize = 64 * 1024;
/// Status of the child when execve itself failed, as shells have it.
pub(super) const EXEC_FAILED: i32 = 127;

/// Serves calls until the supervisor closes the channel.
pub fn serve(spec: &SandboxSpec, arguments: &[CString], environment: &[CString]) -> io::Result<()> {
    let channel = Channel::new(sys::lasting_fd(CHANNEL_FD));
    channel.send(Header::bare(Kind::Ready), &[])?;
    while let Some((request, payload)) = channel.receive(spec.payload_max_bytes)? {
        if request.kind != Kind::Request {
            return Err(io::Error::other(format!("expected REQUEST, got {:?}", request.kind)));
        }
        let reply =
            Header { kind: Kind::Response, flags: 0, length: 0, aux: 0, lease: request.lease, label: request.label };
        let sink = match request.flags & FLAG_IN_PIECES {
            0 => Sink::Whole { answer: Vec::new(), limit: spec.answer_max_bytes },
            _ => Sink::Pieces { channel, header: Header { kind: Kind::Piece, ..reply } },
        };
        match run_once(&Program { arguments, environment, token: spec.token }, payload.into_file()?, sink) {
            Ok(Outcome::Ended { answer, status }) => channel.send(Header { aux: status, ..reply }, &answer)?,
            Ok(Outcome::TooLarge) => channel.send_header(Header { length: TOO_LARGE, ..reply })?,
            Err(error) => {
                channel.send(Header { kind: Kind::Error, ..reply }, format!("start the program: {error}").as_bytes())?
            }
        }
    }
    sys::exit_now(0)
}

enum Outcome {
    Ended { answer: Vec<u8>, status: u32 },
    TooLarge,
}

/// What is started for each call.
struct Program<'a> {
    arguments: &'a [CString],
    environment: &'a [CString],
    /// Whether it finds its sub-tenant's token on a descriptor.
    token: bool,
}

fn run_once(program: &Program<'_>, stdin: OwnedFd, mut sink: Sink) -> io::Result<Outcome> {
    let (stdout, child_stdout) = pipe2(OFlag::O_CLOEXEC)?;
    let child = match sys::fork()? {
        Fork::Child => become_function(program, &stdin, &child_stdout),
        Fork::Parent(pid) => pid,
    };
    drop((child_stdout, stdin));
    let read = read_answer(stdout, child, &mut sink);
    let status = end_all(child)?;
    Ok(match (read?, sink) {
        (Taken::TooMuch, _) => Outcome::TooLarge,
        (_, Sink::Whole { answer, .. }) => Outcome::Ended { answer, status },
        (_, Sink::Pieces { .. }) => Outcome::Ended { answer: Vec::new(), status },
    })
}

/// Where an answer goes as it is read.
enum Sink {
    /// Kept to its end.
    Whole { answer: Vec<u8>, limit: u32 },
    /// On at once. Nobody reads the function's stdout while the supervisor does not take a piece.
    Pieces { channel: Channel, header: Header },
}

/// What one read found.
enum Taken {
    /// There may be more.
    Some,
    /// It is the end.
    All,
    /// It is over the limit.
    TooMuch,
}

impl Sink {
    /// Takes what is there now.
    fn take(&mut self, stdout: &mut std::fs::File) -> io::Result<Taken> {
        match self {
            Self::Whole { answer, limit } => {
                let room = u64::from(*limit) + 1 - answer.len() as u64;
                let read = stdout.take(room).read_to_end(answer);
                match read {
                    _ if answer.len() as u64 > u64::from(*limit) => Ok(Taken::TooMuch),
                    Ok(_) => Ok(Taken::All),
                    Err(error) if error.kind() == io::ErrorKind::WouldBlock => Ok(Taken::Some),
                    Err(error) => Err(error),
                }
            }
            Self::Pieces { channel, header } => {
                let mut piece = [0; PIECE_BYTES];
                match stdout.read(&mut piece) {
                    Ok(0) => Ok(Taken::All),
                    Ok(length) => channel.send(*header, &piece[..length]).map(|()| Taken::Some),
                    Err(error) if error.kind() == io::ErrorKind::WouldBlock => Ok(Taken::Some),
                    Err(error) => Err(error),
                }
            }
        }
    }
}

fn become_function(program: &Program<'_>, stdin: &OwnedFd, stdout: &OwnedFd) -> ! {
    let arguments = program.arguments;
    let prepare = || -> io::Result<()> {
        let (stdin, stdout) = (sys::lift_fd(stdin.as_fd())?, sys::lift_fd(stdout.as_fd())?);
        sys::place_fd(stdin.as_fd(), 0)?;
        sys::place_fd(stdout.as_fd(), 1)?;
        std::mem::forget((stdin, stdout));
        // The channel is the launcher's alone.
        let mut first_closed = CHANNEL_FD;
        if program.token {
            // As it is now: one that is renewed meanwhile is another file.
            let token = open(TOKEN_FILE, OFlag::O_RDONLY | OFlag::O_CLOEXEC, Mode::empty())
                .map_err(|error| io::Error::other(format!("open {TOKEN_FILE}: {error}")))?;
            let token = sys::lift_fd(token.as_fd())?;
            sys::place_fd(token.as_fd(), TOKEN_FD)?;
            std::mem::forget(token);
            first_closed = TOKEN_FD + 1;
        }
        sys::close_from(first_closed)?;
        sys::default_signal(Signal::SIGPIPE);
        match execve(&arguments[0], arguments, program.environment)? {}
    };
    if let Err(error) = prepare() {
        eprintln!("execve {}: {error}", arguments[0].to_string_lossy());
    }
    sys::exit_now(EXEC_FAILED)
}

/// Reads stdout until it ends or the child has ended and nothing is left in the pipe; a process the function left behind
/// that holds the pipe open does not hold the answer up.
fn read_answer(stdout: OwnedFd, child: Pid, sink: &mut Sink) -> io::Result<Taken> {
    fcntl(&stdout, FcntlArg::F_SETFL(OFlag::O_NONBLOCK))?;
    let child = sys::open_pidfd(child)?;
    let mut stdout = std::fs::File::from(stdout);
    let mut ended = false;
    loop {
        let mut watched =
            [PollFd::new(stdout.as_fd(), PollFlags::POLLIN), PollFd::new(child.as_fd(), PollFlags::POLLIN)];
        let count = if ended { 1 } else { 2 };
        let timeout = if ended { PollTimeout::ZERO } else { PollTimeout::NONE };
        match poll(&mut watched[..count], timeout) {
            Ok(0) => return Ok(Taken::All),
            Ok(_) => {}
            Err(Errno::EINTR) => continue,
            Err(error) => return Err(error.into()),
        }
        let readable = watched[0].any().unwrap_or(false);
        ended |= watched[1].any().unwrap_or(false);
        if readable {
            match sink.take(&mut stdout)? {
                Taken::Some => {}
                end @ (Taken::All | Taken::TooMuch) => return Ok(end),
            }
        }
    }
}

/// Ends everything of this call, waits for all of it, and returns how `child` ended.
fn end_all(child: Pid) -> io::Result<u32> {
    let mut status = None;
    // The answer ended first; the function itself may still be on its way out, and its status counts.
    while status.is_none() {
        status = Some(match waitpid(child, None) {
            Ok(WaitStatus::Exited(_, code)) => code as u32,
            Ok(WaitStatus::Signaled(_, signal, _)) => ENDED_BY_SIGNAL + signal as u32,
            Ok(_) | Err(Errno::EINTR) => continue,
            Err(error) => return Err(error.into()),
        });
    }
    loop {
        // Everybody of this uid but ourselves: nothing of one call meets the next.
        // ESRCH, when there is nobody, is as good.
        kill(Pid::from_raw(-1), Signal::SIGKILL).or_else(|e| if e == Errno::ESRCH { Ok(()) } else { Err(e) })?;
        if waitpid(Pid::from_raw(-1), None) == Err(Errno::ECHILD) {
            return Ok(status.unwrap_or_default());
        }
    }
}
