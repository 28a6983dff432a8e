//! What the jail stops, tried from within: this program starts itself anew for each attempt, once as it is and once confined
//! by the very function that confines `sublet serve`. Unconfined each attempt must succeed, or its refusal proves nothing.

mod attempts;
mod sys;

use std::{
    env,
    fs::{self, File},
    os::unix::process::ExitStatusExt,
    path::{Path, PathBuf},
    process::{Command, ExitCode, ExitStatus},
};

use libtest_mimic::{Arguments, Failed, Trial};
use sublet_supervisor::jail::{self, May, Place, Plan};

use self::attempts::{ATTEMPTS, Attempt, Stop};

/// Name of the attempt to make.
const ATTEMPT: &str = "SUBLET_JAIL_ATTEMPT";
/// Set when it is to be made confined.
const CONFINED: &str = "SUBLET_JAIL_CONFINED";
/// Set when the kernel is to be taken for one without landlock.
const BARE: &str = "SUBLET_JAIL_WITHOUT_LANDLOCK";
/// The directory with what attempts need.
const DIR: &str = "SUBLET_JAIL_DIR";

/// Exit status of an attempt that succeeded; of one that failed with EPERM, EACCES or ENOSYS; of anything else.
const SUCCEEDED: u8 = 10;
const REFUSED: u8 = 11;
const BROKEN: u8 = 12;

fn main() -> ExitCode {
    match env::var(ATTEMPT) {
        Ok(name) => attempt(&name),
        Err(_) => {
            let arguments = Arguments::from_args();
            let trials = ATTEMPTS.iter().map(|attempt| Trial::test(attempt.name, move || judge(attempt)));
            let more = [
                Trial::test("what_it_needs_still_works", needed),
                Trial::test("threads_that_are_there_already_are_refused", threads),
            ];
            libtest_mimic::run(&arguments, trials.chain(more).collect()).exit_code()
        }
    }
}

/// A plan with `dir`/open to read and `dir`/groups and `dir`/logs to change.
fn plan(dir: &Path) -> Plan {
    let place = |path: PathBuf, may| Place { path, may };
    Plan {
        places: vec![
            place("/proc".into(), May::ReadFiles),
            place(dir.join("open"), May::ReadFiles),
            place(dir.join("groups"), May::ChangeGroups),
            place(dir.join("logs"), May::KeepLogs),
        ],
        limits: Vec::new(),
        landlock: if env::var_os(BARE).is_some() { 0 } else { sublet_shim::landlock_abi() },
    }
}

/// The child: makes one attempt.
fn attempt(name: &str) -> ExitCode {
    let dir = PathBuf::from(env::var_os(DIR).unwrap_or_default());
    let Some(attempt) = ATTEMPTS.iter().chain(attempts::OTHERS).find(|attempt| attempt.name == name) else {
        return ExitCode::from(BROKEN);
    };
    let prepared = (attempt.prepare)(&dir);
    if env::var_os(CONFINED).is_some()
        && let Err(error) = plan(&dir).open().and_then(jail::confine)
    {
        eprintln!("{error}");
        return ExitCode::from(BROKEN);
    }
    let outcome = prepared.and_then(|prepared| (attempt.run)(&dir, prepared));
    let errno = outcome.as_ref().err().and_then(std::io::Error::raw_os_error);
    let status = match (&outcome, errno) {
        (Ok(()), _) => SUCCEEDED,
        (Err(_), Some(libc::EPERM | libc::EACCES | libc::ENOSYS)) => REFUSED,
        (Err(error), _) => {
            eprintln!("{name}: {error}");
            BROKEN
        }
    };
    ExitCode::from(status)
}

struct Scratch(PathBuf);

impl Scratch {
    fn new(name: &str) -> std::io::Result<Self> {
        let scratch = Self(env::temp_dir().join(format!("sublet-jail-{name}-{}", std::process::id())));
        for dir in ["open", "closed", "groups", "logs"] {
            fs::create_dir_all(scratch.0.join(dir))?;
            fs::write(scratch.0.join(dir).join("file"), "content")?;
        }
        Ok(scratch)
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        fs::remove_dir_all(&self.0).ok();
    }
}

/// How an attempt is made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum How {
    Free,
    Confined,
    ConfinedWithoutLandlock,
}

fn start(name: &str, how: How) -> Result<ExitStatus, Failed> {
    let scratch = Scratch::new(name)?;
    let mut command = Command::new(env::current_exe()?);
    command.env(ATTEMPT, name).env(DIR, &scratch.0);
    if how != How::Free {
        command.env(CONFINED, "1");
    }
    if how == How::ConfinedWithoutLandlock {
        command.env(BARE, "1");
    }
    Ok(command.stdin(File::open("/dev/null")?).status()?)
}

fn judge(attempt: &Attempt) -> Result<(), Failed> {
    let free = start(attempt.name, How::Free)?;
    if free.code() != Some(SUCCEEDED.into()) {
        return Err(format!("it does not succeed unconfined: {free}").into());
    }
    let has_landlock = sublet_shim::landlock_abi() >= 3;
    for how in [How::Confined, How::ConfinedWithoutLandlock] {
        let ended = start(attempt.name, how)?;
        let is_right = match attempt.stop {
            Stop::Ended => ended.signal() == Some(libc::SIGSYS),
            Stop::Refused => ended.code() == Some(REFUSED.into()),
            Stop::Landlock if how == How::Confined && has_landlock => ended.code() == Some(REFUSED.into()),
            // Nothing but modes stops it, and the supervisor says so.
            Stop::Landlock => ended.code() == Some(SUCCEEDED.into()),
        };
        if !is_right {
            return Err(format!("{how:?}, it ends with {ended}").into());
        }
    }
    Ok(())
}

/// Threads, files below declared places, groups, rotation of logs, memory, sockets it holds.
fn needed() -> Result<(), Failed> {
    for how in [How::Confined, How::ConfinedWithoutLandlock] {
        let ended = start("needed", how)?;
        if ended.code() != Some(SUCCEEDED.into()) {
            return Err(format!("{how:?}, it ends with {ended}").into());
        }
    }
    Ok(())
}

fn threads() -> Result<(), Failed> {
    let confined = start("threads", How::Free)?;
    if confined.code() == Some(SUCCEEDED.into()) { Ok(()) } else { Err(format!("it ends with {confined}").into()) }
}
