//! The process that stays in the terminal when `sublet serve` is started from one.
//!
//! It starts the supervisor in a session of its own, without the terminal, and does three things for it: it passes signals
//! on, so that Ctrl-C stops it as ever; it prints what the supervisor writes, which comes through pipes and cannot drive
//! the terminal; and it ends as the supervisor ends. The supervisor's standard input is a pipe that only this process
//! holds: when it ends first, however it ends, the supervisor sees that and drains.

use std::{
    io::{self, BufRead as _, BufReader, IsTerminal as _, Read, Write},
    os::unix::process::CommandExt as _,
    process::{Command, Stdio},
    sync::mpsc::{Receiver, channel},
    thread,
    time::Duration,
};

use nix::{
    errno::Errno,
    sys::{
        prctl,
        signal::{SigSet, Signal, kill},
        wait::{WaitPidFlag, WaitStatus, waitpid},
    },
    unistd::Pid,
};

use crate::process::session;

/// What is passed on. All others do with this process what they do with any.
const PASSED_ON: [Signal; 4] = [Signal::SIGINT, Signal::SIGTERM, Signal::SIGHUP, Signal::SIGQUIT];
/// A longer line is printed in pieces.
const LINE_BYTES: u64 = 64 * 1024;
/// How long the nursery of a supervisor that was killed may still have something to say.
const LAST_WORDS: Duration = Duration::from_secs(2);
/// Added to the number of the signal that ended the supervisor, as shells have it.
const ENDED_BY_SIGNAL: i32 = 128;

/// Starts the same command in a session of its own and stays in front of it. Returns its exit status. To be called while
/// this process has one thread.
///
/// # Errors
/// When it cannot be started.
pub fn stay(while_stdin_is_open: bool) -> io::Result<u8> {
    // By this name the supervisor knows us, and people in the process list.
    prctl::set_name(session::IN_FRONT)?;
    let mut waited_for = SigSet::empty();
    waited_for.extend(PASSED_ON.into_iter().chain([Signal::SIGCHLD]));
    // Before there is a child to miss the end of, and for every thread.
    waited_for.thread_block()?;
    let mut arguments = std::env::args_os();
    let mut command = Command::new(std::env::current_exe()?);
    if let Some(name) = arguments.next() {
        command.arg0(name);
    }
    command.args(arguments);
    if !while_stdin_is_open {
        command.arg("--while-stdin-is-open");
    }
    let piped_if = |is_terminal| if is_terminal { Stdio::piped() } else { Stdio::inherit() };
    command.stdin(Stdio::piped());
    command.stdout(piped_if(io::stdout().is_terminal())).stderr(piped_if(io::stderr().is_terminal()));
    crate::sys::own_session(&mut command);
    let mut child = command.spawn()?;
    let pid = Pid::from_raw(i32::try_from(child.id()).unwrap_or(i32::MAX));
    let stdin = child.stdin.take();
    let relays: Vec<Receiver<()>> = [
        child.stdout.take().map(|from| relay(from, io::stdout())),
        child.stderr.take().map(|from| relay(from, io::stderr())),
    ]
    .into_iter()
    .flatten()
    .collect();
    // Held until the end, unless our own is what counts.
    let _held = if while_stdin_is_open {
        thread::spawn(move || {
            // One that cannot be read is at its end as well.
            drop(io::copy(&mut io::stdin(), &mut io::sink()));
            drop(stdin);
        });
        None
    } else {
        stdin
    };
    let status = loop {
        match waited_for.wait()? {
            Signal::SIGCHLD => {
                if let Some(status) = ended(pid)? {
                    break status;
                }
            }
            // Gone already is as good.
            other => drop(kill(pid, other)),
        }
    };
    for relay in relays {
        // An error says that it has ended, which is what is waited for.
        relay.recv_timeout(LAST_WORDS).ok();
    }
    Ok(status)
}

/// How the supervisor ended, if it has. Takes in everybody else: as pid 1 of a container this process is their parent.
fn ended(supervisor: Pid) -> io::Result<Option<u8>> {
    loop {
        let (pid, status) = match waitpid(None, Some(WaitPidFlag::WNOHANG)) {
            Ok(WaitStatus::Exited(pid, code)) => (pid, code),
            Ok(WaitStatus::Signaled(pid, signal, _)) => (pid, ENDED_BY_SIGNAL + signal as i32),
            Ok(WaitStatus::StillAlive) => return Ok(None),
            Ok(_) | Err(Errno::EINTR) => continue,
            Err(error) => return Err(error.into()),
        };
        if pid == supervisor {
            return Ok(Some(u8::try_from(status).unwrap_or(u8::MAX)));
        }
    }
}

/// Prints what comes, line by line. The receiver's other end is dropped when all has been printed.
fn relay(from: impl Read + Send + 'static, mut to: impl Write + Send + 'static) -> Receiver<()> {
    let (done, waits) = channel();
    thread::spawn(move || {
        let _done = done;
        let mut from = BufReader::new(from);
        let mut line = Vec::new();
        loop {
            line.clear();
            match (&mut from).take(LINE_BYTES).read_until(b'\n', &mut line) {
                Ok(0) => return,
                // A terminal that has gone takes nothing; the supervisor must not be held up by that.
                Ok(_) => drop(to.write_all(printable(&line).as_bytes()).and_then(|()| to.flush())),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(_) => return,
            }
        }
    });
    waits
}

fn printable(line: &[u8]) -> String {
    let text = String::from_utf8_lossy(line);
    match text.strip_suffix('\n') {
        Some(text) => crate::printable::log_line(text).into_owned() + "\n",
        None => crate::printable::log_line(&text).into_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn escape_sequences_do_not_reach_the_terminal() {
        let shown = printable(b"plain \xc3\xa9\tline \x1b]0;title\x07\x9b6n\xc2\x9b6n\n");
        assert!(shown.starts_with("plain \u{e9}\tline ") && shown.ends_with('\n'), "{shown:?}");
        assert!(!shown.trim_end().chars().any(|character| character.is_control() && character != '\t'), "{shown:?}");
    }
}
