//! Tokens that a program prints. It runs as the supervisor's uid, without rights, with three variables and nothing else; what
//! it writes to stderr goes nowhere, because that might be the token.

use std::{
    collections::BTreeSet,
    io::{self, Read as _},
    os::fd::AsFd as _,
    process::{Child, ChildStdout, Command, ExitStatus, Stdio},
    sync::{Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use nix::{
    fcntl::{FcntlArg, OFlag, fcntl},
    poll::{PollFd, PollFlags, PollTimeout, poll},
    sys::{
        signal::{Signal, killpg},
        wait::{Id, WaitPidFlag, WaitStatus, waitid},
    },
    unistd::Pid,
};
use sublet_proto::link::{
    runner::TokenOwner,
    token::{NoToken, TOKEN_MAX_BYTES, Token},
};
use zeroize::Zeroizing;

use crate::sys;

/// How often it is looked whether a program has ended that keeps its stdout open, or the other way round.
const LOOK: Duration = Duration::from_millis(10);
/// A token and the line end behind it.
const OUTPUT_MAX_BYTES: usize = TOKEN_MAX_BYTES + 2;

/// Why a program has given no token. Nothing of it runs any more.
#[derive(Debug, thiserror::Error)]
pub enum ProgramError {
    /// The command is empty.
    #[error("no program is written")]
    NoProgram,
    /// It was not started.
    #[error("start {program}")]
    Start {
        /// The program, as it is written.
        program: String,
        /// What execve, or what comes before it, says.
        source: io::Error,
    },
    /// It was started without a pipe: a mistake of ours.
    #[error("it has no stdout")]
    NoStdout,
    /// It ran for longer than it may.
    #[error("{program} has not ended within {timeout:?}")]
    Late {
        /// The program, as it is written.
        program: String,
        /// How long it may run.
        timeout: Duration,
    },
    /// What it printed is longer than any token.
    #[error("{program} printed more than {TOKEN_MAX_BYTES} bytes")]
    TooLong {
        /// The program, as it is written.
        program: String,
    },
    /// Its output could not be read.
    #[error("read what {program} prints")]
    Read {
        /// The program, as it is written.
        program: String,
        /// What read or poll says.
        source: io::Error,
    },
    /// Its end could not be waited for.
    #[error("wait for {program}")]
    Wait {
        /// The program, as it is written.
        program: String,
        /// What waitid says.
        source: io::Error,
    },
    /// It says by its exit status that it has failed, or a signal has ended it.
    #[error("{program} ended with {status}")]
    Failed {
        /// The program, as it is written.
        program: String,
        /// How it ended.
        status: ExitStatus,
    },
    /// It has printed something else.
    #[error("what {program} printed is no token")]
    NotAToken {
        /// The program, as it is written.
        program: String,
        /// What is wrong with it.
        source: NoToken,
    },
}

/// Every process group that runs now, by its number.
#[derive(Debug, Default)]
pub struct Groups(Mutex<BTreeSet<i32>>);

impl Groups {
    fn lock(&self) -> MutexGuard<'_, BTreeSet<i32>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Ends all of them. None begins while what is returned is held.
    pub fn end_all(&self) -> impl Drop + '_ {
        let all = self.lock();
        for group in &*all {
            kill(Pid::from_raw(*group));
        }
        all
    }
}

fn kill(group: Pid) {
    // There may be nobody left.
    killpg(group, Signal::SIGKILL).ok();
}

/// A process group that does not outlive this.
struct Group<'a> {
    child: Child,
    all: &'a Groups,
}

impl<'a> Group<'a> {
    fn start(command: &mut Command, all: &'a Groups) -> io::Result<Self> {
        // Held over the start: a group is known before anybody can ask for the end of all.
        let mut known = all.lock();
        let child = command.spawn()?;
        let group = Self { child, all };
        known.insert(group.pid().as_raw());
        Ok(group)
    }

    fn pid(&self) -> Pid {
        Pid::from_raw(i32::try_from(self.child.id()).unwrap_or(i32::MAX))
    }

    /// Whether its first process has ended. Leaves it to be waited for: until then nobody else can have the number.
    fn has_ended(&self) -> io::Result<bool> {
        let flags = WaitPidFlag::WEXITED | WaitPidFlag::WNOHANG | WaitPidFlag::WNOWAIT;
        Ok(waitid(Id::Pid(self.pid()), flags)? != WaitStatus::StillAlive)
    }

    /// Ends all of it. Returns how its first process ended.
    fn end(mut self) -> io::Result<ExitStatus> {
        self.end_now()
    }

    fn end_now(&mut self) -> io::Result<ExitStatus> {
        kill(self.pid());
        // Off the list before it is waited for: its number may be somebody else's afterwards.
        self.all.lock().remove(&self.pid().as_raw());
        self.child.wait()
    }
}

impl Drop for Group<'_> {
    fn drop(&mut self) {
        // After `end` this knows, and does nothing.
        if let Ok(None) = self.child.try_wait() {
            self.end_now().ok();
        }
    }
}

/// Runs the program to its end, or to the end of its time, and blocks meanwhile.
///
/// # Errors
/// [`ProgramError`], when it cannot be run, does not end in time, fails, or prints something else than a token.
pub fn run(argv: &[String], timeout: Duration, owner: &TokenOwner, groups: &Groups) -> Result<Token, ProgramError> {
    let Some((program, arguments)) = argv.split_first() else { return Err(ProgramError::NoProgram) };
    let named = || program.clone();
    let end = Instant::now() + timeout;
    let mut command = Command::new(program);
    command.args(arguments).env_clear().current_dir("/");
    // Not as arguments: those all users can read, and a label that begins with a dash would be an option.
    command.env("SUBLET_TENANT", &owner.tenant).env("SUBLET_FUNCTION", &owner.function);
    command.env("SUBLET_SUB_TENANT", &owner.sub_tenant);
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::null());
    sys::own_group_and_die_with_us(&mut command);
    let mut group =
        Group::start(&mut command, groups).map_err(|source| ProgramError::Start { program: named(), source })?;
    let Some(stdout) = group.child.stdout.take() else { return Err(ProgramError::NoStdout) };
    let late = || ProgramError::Late { program: named(), timeout };
    let output = read(stdout, &group, end).map_err(|source| match source.kind() {
        io::ErrorKind::TimedOut => late(),
        io::ErrorKind::FileTooLarge => ProgramError::TooLong { program: named() },
        _ => ProgramError::Read { program: named(), source },
    })?;
    let failed = |source: io::Error| ProgramError::Wait { program: named(), source };
    while !group.has_ended().map_err(failed)? {
        if Instant::now() >= end {
            return Err(late());
        }
        std::thread::sleep(LOOK);
    }
    judge(program, group.end().map_err(failed)?, output)
}

fn judge(program: &str, status: ExitStatus, mut output: Zeroizing<Vec<u8>>) -> Result<Token, ProgramError> {
    if !status.success() {
        return Err(ProgramError::Failed { program: program.to_owned(), status });
    }
    Token::try_from(std::mem::take(&mut *output))
        .map_err(|source| ProgramError::NotAToken { program: program.to_owned(), source })
}

/// All that is printed, to its end, or to that of the program when something it left behind keeps stdout open.
fn read(mut stdout: ChildStdout, group: &Group<'_>, end: Instant) -> io::Result<Zeroizing<Vec<u8>>> {
    fcntl(&stdout, FcntlArg::F_SETFL(OFlag::O_NONBLOCK))?;
    // Of its final size: growing it would leave copies behind.
    let mut output = Zeroizing::new(Vec::with_capacity(OUTPUT_MAX_BYTES + 1));
    let mut piece = Zeroizing::new([0; 4096]);
    loop {
        match stdout.read(&mut *piece) {
            Ok(0) => return Ok(output),
            Ok(length) if output.len() + length > OUTPUT_MAX_BYTES => return Err(io::ErrorKind::FileTooLarge.into()),
            Ok(length) => output.extend_from_slice(&piece[..length]),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                if Instant::now() >= end {
                    return Err(io::ErrorKind::TimedOut.into());
                }
                let has_ended = group.has_ended()?;
                let mut watched = [PollFd::new(stdout.as_fd(), PollFlags::POLLIN)];
                let patience = if has_ended { Duration::ZERO } else { LOOK };
                let is_more = poll(&mut watched, PollTimeout::try_from(patience).unwrap_or(PollTimeout::ZERO))? > 0;
                if has_ended && !is_more {
                    return Ok(output);
                }
            }
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;
    use crate::chain::chain;

    fn owner() -> TokenOwner {
        TokenOwner { tenant: "acme".into(), function: "f".into(), sub_tenant: "-s 1".into() }
    }

    fn sh(script: &str) -> Result<String, String> {
        let argv = ["/bin/sh", "-c", script].map(str::to_owned);
        let token =
            run(&argv, Duration::from_millis(500), &owner(), &Groups::default()).map_err(|error| chain(&error))?;
        Ok(String::from_utf8(token.as_bytes().to_vec()).unwrap())
    }

    #[test]
    fn program_is_told_whose_token_and_nothing_else() {
        let told = sh("echo \"$SUBLET_TENANT/$SUBLET_FUNCTION/$SUBLET_SUB_TENANT\"; env | cut -d= -f1 | sort").unwrap();
        let mut lines = told.lines();
        assert_eq!(lines.next(), Some("acme/f/-s 1"));
        // The shell itself sets the others.
        let rest: Vec<&str> = lines.filter(|name| !["PWD", "OLDPWD", "SHLVL", "_"].contains(name)).collect();
        assert_eq!(rest, ["SUBLET_FUNCTION", "SUBLET_SUB_TENANT", "SUBLET_TENANT"]);
    }

    #[test]
    fn programs_that_fail_are_told_and_what_they_print_is_not() {
        assert_eq!(sh("echo secret; exit 3").unwrap_err(), "/bin/sh ended with exit status: 3");
        assert_eq!(sh("kill -9 $$").unwrap_err(), "/bin/sh ended with signal: 9 (SIGKILL)");
        assert_eq!(sh("exit 0").unwrap_err(), "what /bin/sh printed is no token: it is empty");
        assert_eq!(sh("head -c 20000 /dev/zero").unwrap_err(), "/bin/sh printed more than 16384 bytes");
        assert_eq!(sh("echo secret; sleep 600").unwrap_err(), "/bin/sh has not ended within 500ms");
        assert_eq!(sh("exec >&-; sleep 600").unwrap_err(), "/bin/sh has not ended within 500ms");
        let argv = ["/nowhere".to_owned()];
        let error = chain(&run(&argv, Duration::from_secs(1), &owner(), &Groups::default()).unwrap_err());
        assert!(error.starts_with("start /nowhere: No such file"), "{error}");
    }

    #[test]
    fn nothing_of_its_group_outlives_it() {
        let file = std::env::temp_dir().join(format!("sublet-left-{}", std::process::id()));
        let script = format!("sleep 600 & echo $! > {}; echo token", file.display());
        assert_eq!(sh(&script).unwrap(), "token", "and it is not waited for");
        let left = fs::read_to_string(&file).unwrap();
        fs::remove_file(&file).unwrap();
        let end = Instant::now() + Duration::from_secs(5);
        let lives =
            || fs::read_to_string(format!("/proc/{}/stat", left.trim())).is_ok_and(|stat| !stat.contains(") Z "));
        while lives() {
            assert!(Instant::now() < end, "{left} lives");
            std::thread::sleep(LOOK);
        }
    }

    #[test]
    fn end_of_all_ends_what_runs() {
        let groups = Groups::default();
        let argv = ["/bin/sh", "-c", "sleep 600"].map(str::to_owned);
        std::thread::scope(|scope| {
            let run = scope.spawn(|| run(&argv, Duration::from_secs(60), &owner(), &groups));
            let end = Instant::now() + Duration::from_secs(5);
            while groups.lock().is_empty() {
                assert!(Instant::now() < end, "it does not start");
                std::thread::sleep(LOOK);
            }
            drop(groups.end_all());
            assert_eq!(run.join().unwrap().unwrap_err().to_string(), "/bin/sh ended with signal: 9 (SIGKILL)");
        });
        assert!(groups.lock().is_empty(), "and is off the list");
    }
}
