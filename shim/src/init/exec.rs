//! `exec` functions: one process per call inside the warm sandbox. The launcher, fully confined itself, speaks the frames
//! for them: payload on stdin, answer on stdout, stderr to the log.

use std::{
    ffi::CString,
    fs::File,
    io::{self, Read, Write},
    os::fd::{AsFd, OwnedFd},
};

use nix::{
    errno::Errno,
    fcntl::{FcntlArg, OFlag, fcntl, open},
    poll::{PollFd, PollFlags, PollTimeout, poll},
    sys::{
        signal::{Signal, kill},
        signalfd::SignalFd,
        stat::Mode,
        statvfs::statvfs,
        wait::{WaitPidFlag, WaitStatus, waitpid},
    },
    unistd::{Pid, pipe2},
};
use sublet_proto::link::{
    frame::{ENDED_BY_SIGNAL, FLAG_IN_PIECES, HOST_SHORTAGE, Header, Kind, TMP_WAS_FULL, TOO_LARGE},
    sandbox::SandboxSpec,
    token::{TOKEN_FD, TOKEN_FILE},
};

use super::{
    channel::Channel,
    child::{EXEC_FAILED, announced_ends, own_log},
};
use crate::{
    shortage::is_shortage,
    sys::{self, Child, Fork},
};

/// Largest piece of an answer: what a pipe holds.
const PIECE_BYTES: usize = 64 * 1024;

/// Serves calls until the supervisor closes the channel.
pub fn serve(channel: Channel, spec: &SandboxSpec, arguments: &[CString], environment: &[CString]) -> io::Result<()> {
    let ends = announced_ends()?;
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
        let tmp_was_full = if tmp_is_full() { TMP_WAS_FULL } else { 0 };
        match run_once(&Program { arguments, environment, token: spec.token }, &payload, sink, &ends) {
            Ok(Outcome::Ended { answer, status }) => {
                channel.send(Header { aux: status | tmp_was_full, ..reply }, &answer)?
            }
            Ok(Outcome::TooLarge) => channel.send_header(Header { length: TOO_LARGE, ..reply })?,
            Err(error) => {
                let aux = if is_shortage(&error) { HOST_SHORTAGE } else { 0 };
                let header = Header { kind: Kind::Error, aux, ..reply };
                channel.send(header, format!("start the program: {error}").as_bytes())?
            }
        }
    }
    sys::exit_now(0)
}

/// Whether nothing more can be written to /tmp, or created in it. A call that finds it so has not made it so.
fn tmp_is_full() -> bool {
    // What cannot be asked is not known to be full.
    statvfs("/tmp").is_ok_and(|tmp| tmp.blocks_available() == 0 || tmp.files_free() == 0)
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

fn run_once(program: &Program<'_>, payload: &[u8], mut sink: Sink, ends: &SignalFd) -> io::Result<Outcome> {
    // A pipe, as any program expects of its stdin: epoll refuses the plain file that a memfd is.
    let (child_stdin, stdin) = pipe2(OFlag::O_CLOEXEC)?;
    let (stdout, child_stdout) = pipe2(OFlag::O_CLOEXEC)?;
    let mut processes = match sys::fork()? {
        Fork::Child(child) => become_function(child, program, &child_stdin, &child_stdout),
        Fork::Parent(main) => Processes { main, status: None, ends },
    };
    drop((child_stdout, child_stdin));
    let talked = Feed::new(stdin, payload).and_then(|feed| talk(feed, stdout, &mut processes, &mut sink));
    let status = processes.end_all()?;
    Ok(match (talked?, sink) {
        (Taken::TooMuch, _) => Outcome::TooLarge,
        (_, Sink::Whole { answer, .. }) => Outcome::Ended { answer, status },
        (_, Sink::Pieces { .. }) => Outcome::Ended { answer: Vec::new(), status },
    })
}

/// The payload on its way into the function's stdin.
struct Feed<'a> {
    /// None when all is written, or nobody reads it any more.
    pipe: Option<File>,
    rest: &'a [u8],
}

impl<'a> Feed<'a> {
    /// Writes what the pipe takes at once: all of a small payload.
    fn new(pipe: OwnedFd, payload: &'a [u8]) -> io::Result<Self> {
        fcntl(&pipe, FcntlArg::F_SETFL(OFlag::O_NONBLOCK))?;
        let mut feed = Self { pipe: Some(pipe.into()), rest: payload };
        feed.write()?;
        Ok(feed)
    }

    /// Writes what the pipe takes now. The pipe is closed after the last byte, which is how the function sees the end.
    fn write(&mut self) -> io::Result<()> {
        while let Some(pipe) = &mut self.pipe {
            if self.rest.is_empty() {
                self.pipe = None;
                break;
            }
            match pipe.write(self.rest) {
                Ok(written) => self.rest = &self.rest[written..],
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                // A function need not read its payload.
                Err(error) if error.kind() == io::ErrorKind::BrokenPipe => self.pipe = None,
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }
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
    fn take(&mut self, stdout: &mut File) -> io::Result<Taken> {
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

fn become_function(child: Child, program: &Program<'_>, stdin: &OwnedFd, stdout: &OwnedFd) -> ! {
    let opened = || -> io::Result<(OwnedFd, Option<OwnedFd>)> {
        // The token as it is now: one that is renewed meanwhile is another file.
        let token = || {
            open(TOKEN_FILE, OFlag::O_RDONLY | OFlag::O_CLOEXEC, Mode::empty())
                .map_err(|error| io::Error::other(format!("open {TOKEN_FILE}: {error}")))
        };
        Ok((own_log()?, program.token.then(token).transpose()?))
    };
    let (log, token) = match opened() {
        Ok(opened) => opened,
        Err(error) => {
            eprintln!("{error}");
            sys::exit_now(EXEC_FAILED);
        }
    };
    let mut places = vec![(stdin.as_fd(), 0), (stdout.as_fd(), 1), (log.as_fd(), 2)];
    places.extend(token.as_ref().map(|token| (token.as_fd(), TOKEN_FD)));
    child.exec(&places, program.arguments, program.environment, EXEC_FAILED)
}

/// The processes of one call: the one that was started, and those that it leaves to the launcher by ending before them.
struct Processes<'a> {
    main: Pid,
    /// How `main` ended, once it has.
    status: Option<u32>,
    /// Tells that one of them has ended.
    ends: &'a SignalFd,
}

impl Processes<'_> {
    fn note(&mut self, ended: WaitStatus) {
        let (pid, status) = match ended {
            WaitStatus::Exited(pid, code) => (pid, code as u32),
            WaitStatus::Signaled(pid, signal, _) => (pid, ENDED_BY_SIGNAL + signal as u32),
            _ => return,
        };
        // Only the first: later the number may be somebody else's.
        if pid == self.main && self.status.is_none() {
            self.status = Some(status);
        }
    }

    /// Reaps all that have ended. What an ended process still takes is a place under the worker's `pids_max`.
    fn reap(&mut self) -> io::Result<()> {
        // Emptied before the children are looked at, so that one that ends in between is announced again.
        while matches!(self.ends.read_signal(), Ok(Some(_))) {}
        loop {
            match waitpid(None, Some(WaitPidFlag::WNOHANG)) {
                Ok(WaitStatus::StillAlive) | Err(Errno::ECHILD) => return Ok(()),
                Ok(ended) => self.note(ended),
                Err(Errno::EINTR) => {}
                Err(error) => return Err(error.into()),
            }
        }
    }

    /// Ends everything of this call, waits for all of it, and returns how its main process ended.
    fn end_all(&mut self) -> io::Result<u32> {
        // The answer ended first; the function itself may still be on its way out, and its status counts.
        let status = loop {
            match self.status {
                Some(status) => break status,
                None => match waitpid(None, None) {
                    Ok(ended) => self.note(ended),
                    Err(Errno::EINTR) => {}
                    Err(error) => return Err(error.into()),
                },
            }
        };
        loop {
            // Everybody of this uid but ourselves: nothing of one call meets the next.
            // ESRCH, when there is nobody, is as good.
            kill(Pid::from_raw(-1), Signal::SIGKILL).or_else(|e| if e == Errno::ESRCH { Ok(()) } else { Err(e) })?;
            if waitpid(None, None) == Err(Errno::ECHILD) {
                return Ok(status);
            }
        }
    }
}

/// Feeds stdin and reads stdout. It is over when stdout has ended and all of the payload is written, or when the child has
/// ended and nothing is left in stdout: a process the function left behind that holds the pipe open does not hold the answer
/// up.
fn talk(mut feed: Feed<'_>, stdout: OwnedFd, processes: &mut Processes<'_>, sink: &mut Sink) -> io::Result<Taken> {
    fcntl(&stdout, FcntlArg::F_SETFL(OFlag::O_NONBLOCK))?;
    let mut stdout = Some(File::from(stdout));
    loop {
        let has_ended = processes.status.is_some();
        if stdout.is_none() && (has_ended || feed.pipe.is_none()) {
            return Ok(Taken::All);
        }
        // Once the child has ended, only what is in stdout already counts.
        let watch_feed = feed.pipe.as_ref().filter(|_| !has_ended);
        let mut watched = Vec::with_capacity(3);
        watched.extend(stdout.as_ref().map(|stdout| PollFd::new(stdout.as_fd(), PollFlags::POLLIN)));
        watched.extend(watch_feed.map(|pipe| PollFd::new(pipe.as_fd(), PollFlags::POLLOUT)));
        let at_ends = watched.len();
        if !has_ended {
            watched.push(PollFd::new(processes.ends.as_fd(), PollFlags::POLLIN));
        }
        let timeout = if has_ended { PollTimeout::ZERO } else { PollTimeout::NONE };
        match poll(&mut watched, timeout) {
            Ok(0) => return Ok(Taken::All),
            Ok(_) => {}
            Err(Errno::EINTR) => continue,
            Err(error) => return Err(error.into()),
        }
        let is_ready = |at: usize| watched.get(at).is_some_and(|fd| fd.any().unwrap_or(false));
        let can_read = stdout.is_some() && is_ready(0);
        let can_write = watch_feed.is_some() && is_ready(at_ends - 1);
        if is_ready(at_ends) {
            processes.reap()?;
        }
        if can_write {
            feed.write()?;
        }
        if let Some(file) = stdout.as_mut().filter(|_| can_read) {
            match sink.take(file)? {
                Taken::Some => {}
                Taken::All => stdout = None,
                Taken::TooMuch => return Ok(Taken::TooMuch),
            }
        }
    }
}
