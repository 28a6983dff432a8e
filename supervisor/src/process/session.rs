//! Away from whoever started us: no terminal to type into, no descriptor that nobody knows of.
//!
//! A process with a controlling terminal can push bytes into its input (TIOCSTI), which the shell then runs as the user who
//! sits there; one that merely holds the terminal open can change its settings. So the supervisor has neither: where it is
//! started from a terminal a small process stays there instead of it (`cli::terminal`), and what it started has a session
//! of its own. Under systemd, or wherever else there is no terminal, there is no such process.

use std::{
    ffi::CStr,
    fmt,
    fs::{self, OpenOptions},
    io::{self, IsTerminal as _},
    os::{
        fd::RawFd,
        unix::fs::{MetadataExt as _, OpenOptionsExt as _},
    },
    path::PathBuf,
};

use nix::{
    errno::Errno,
    unistd::{self, Pid},
};

use super::handed::Handed;

/// The last of the three that every process has.
const LAST_STANDARD: RawFd = 2;

/// Whether this process has a controlling terminal, or was given any terminal at all.
pub fn has_terminal() -> bool {
    let controlling = OpenOptions::new().read(true).custom_flags(libc::O_NOCTTY | libc::O_NONBLOCK).open("/dev/tty");
    controlling.is_ok() || io::stdin().is_terminal() || io::stdout().is_terminal() || io::stderr().is_terminal()
}

/// The name of the process that stays in the terminal.
pub const IN_FRONT: &CStr = c"sublet-terminal";

/// The process that stays in the terminal in front of this one, if there is one: our parent, by that name, and the same
/// program.
pub fn in_front() -> Option<Pid> {
    let parent = unistd::getppid();
    let name = fs::read(format!("/proc/{parent}/comm")).ok()?;
    let program = |of: &str| fs::metadata(format!("/proc/{of}/exe")).map(|found| (found.dev(), found.ino())).ok();
    let is_it = name.trim_ascii_end() == IN_FRONT.to_bytes() && program(&parent.to_string())? == program("self")?;
    is_it.then_some(parent)
}

/// A descriptor that this process was started with.
#[derive(Debug, PartialEq, Eq)]
pub struct Inherited {
    number: RawFd,
    what: PathBuf,
}

impl fmt::Display for Inherited {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} ({})", self.number, self.what.display())
    }
}

/// Begins a session, makes standard input /dev/null unless it is to be read, and closes every descriptor but the three
/// standard ones and those that were `handed` in. Returns those that were closed. To be called before this process opens
/// anything: each is taken for one that came with it.
///
/// # Errors
/// /proc or /dev/null is not there, or what the kernel says.
pub fn leave(reads_stdin: bool, handed: &[Handed]) -> io::Result<Vec<Inherited>> {
    let mut inherited = inherited()?;
    inherited.retain(|one| handed.iter().all(|handed| handed.number != one.number));
    for Inherited { number, .. } in &inherited {
        // Linux closes it whatever it says.
        unistd::close(*number).ok();
    }
    match unistd::setsid() {
        // The leader of a process group cannot; as nobody's session leader it can get no terminal either.
        Ok(_) | Err(Errno::EPERM) => {}
        Err(error) => return Err(error.into()),
    }
    if !reads_stdin {
        unistd::dup2_stdin(fs::File::open("/dev/null")?)?;
    }
    Ok(inherited)
}

fn inherited() -> io::Result<Vec<Inherited>> {
    let mut all = Vec::new();
    for entry in fs::read_dir("/proc/self/fd")? {
        let entry = entry?;
        let Some(number) = entry.file_name().to_str().and_then(|name| name.parse().ok()) else { continue };
        let what = fs::read_link(entry.path())?;
        if number > LAST_STANDARD {
            all.push(Inherited { number, what });
        }
    }
    // The directory itself, which has been open meanwhile and is closed by now.
    all.retain(|inherited| fs::read_link(format!("/proc/self/fd/{}", inherited.number)).is_ok());
    Ok(all)
}
