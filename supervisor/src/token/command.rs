//! Tokens that a program prints. It runs as the supervisor does, without rights, with three variables and nothing else; what
//! it writes to stderr goes nowhere, because that might be the token.

use std::{
    io::{self, Read as _},
    os::fd::AsFd as _,
    process::{Child, ChildStdout, Command, ExitStatus, Stdio},
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
use sublet_proto::link::token::{TOKEN_MAX_BYTES, Token};
use zeroize::Zeroizing;

use super::whose::Whose;
use crate::config::format_duration;

/// Programs at a time, of all functions: each is a process on the host's account.
pub const AT_ONCE_MAX: usize = 8;
/// How often it is looked whether a program has ended that keeps its stdout open, or the other way round.
const LOOK: Duration = Duration::from_millis(10);
/// A token and the line end behind it.
const OUTPUT_MAX_BYTES: usize = TOKEN_MAX_BYTES + 2;

/// A process group that does not outlive this.
struct Group(Child);

impl Group {
    fn pid(&self) -> Pid {
        Pid::from_raw(i32::try_from(self.0.id()).unwrap_or(i32::MAX))
    }

    /// Whether its first process has ended. Leaves it to be waited for: until then nobody else can have the number.
    fn has_ended(&self) -> io::Result<bool> {
        let flags = WaitPidFlag::WEXITED | WaitPidFlag::WNOHANG | WaitPidFlag::WNOWAIT;
        Ok(waitid(Id::Pid(self.pid()), flags)? != WaitStatus::StillAlive)
    }

    /// Ends all of it. Returns how its first process ended.
    fn end(mut self) -> io::Result<ExitStatus> {
        self.kill();
        self.0.wait()
    }

    fn kill(&self) {
        // There may be nobody left.
        killpg(self.pid(), Signal::SIGKILL).ok();
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        // After `end` this knows, and does nothing.
        if let Ok(None) = self.0.try_wait() {
            self.kill();
            self.0.wait().ok();
        }
    }
}

/// Runs the program to its end, or to the end of its time. Blocks.
///
/// # Errors
/// Why there is no token, in words.
pub fn run(argv: &[String], timeout: Duration, whose: &Whose) -> Result<Token, String> {
    let Some((program, arguments)) = argv.split_first() else { return Err("no program is written".into()) };
    let end = Instant::now() + timeout;
    let mut command = Command::new(program);
    command.args(arguments).env_clear().current_dir("/");
    // Not as arguments: those all users can read, and a label that begins with a dash would be an option.
    command.env("SUBLET_TENANT", &*whose.tenant).env("SUBLET_FUNCTION", &*whose.function);
    command.env("SUBLET_SUB_TENANT", whose.sub_tenant.as_str());
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::null());
    crate::sys::own_group_and_die_with_us(&mut command);
    let mut group = Group(command.spawn().map_err(|error| format!("start {program}: {error}"))?);
    let Some(stdout) = group.0.stdout.take() else { return Err("it has no stdout".into()) };
    let late = || format!("{program} has not ended within {}", format_duration(timeout));
    let output = read(stdout, &group, end).map_err(|error| match error.kind() {
        io::ErrorKind::TimedOut => late(),
        io::ErrorKind::FileTooLarge => format!("{program} printed more than {TOKEN_MAX_BYTES} bytes"),
        _ => format!("read what {program} prints: {error}"),
    })?;
    let failed = |error: io::Error| format!("wait for {program}: {error}");
    while !group.has_ended().map_err(failed)? {
        if Instant::now() >= end {
            return Err(late());
        }
        std::thread::sleep(LOOK);
    }
    judge(program, group.end().map_err(failed)?, output)
}

fn judge(program: &str, status: ExitStatus, mut output: Zeroizing<Vec<u8>>) -> Result<Token, String> {
    if !status.success() {
        return Err(format!("{program} ended with {status}"));
    }
    Token::try_from(std::mem::take(&mut *output))
        .map_err(|error| format!("what {program} printed is no token: {error}"))
}

/// All that is printed, to its end, or to that of the program when something it left behind keeps stdout open.
fn read(mut stdout: ChildStdout, group: &Group, end: Instant) -> io::Result<Zeroizing<Vec<u8>>> {
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

    use sublet_pool::SubTenant;

    use super::*;

    fn whose() -> Whose {
        Whose { tenant: "acme".into(), function: "f".into(), sub_tenant: SubTenant::try_from("-s 1").unwrap() }
    }

    fn sh(script: &str) -> Result<String, String> {
        let argv = ["/bin/sh", "-c", script].map(str::to_owned);
        let token = run(&argv, Duration::from_millis(500), &whose())?;
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
        let error = run(&argv, Duration::from_secs(1), &whose()).unwrap_err();
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
}
