//! Verbs of the hostile cases (tests/kernel/src/hostile.rs): what a function looks for that wants out, or at others.

mod appetite;
mod files;
mod look;
mod random;
mod reach;
mod shared;
mod sys;

use std::{process::Command, time::Duration};

use nix::{
    sys::{prctl, signal::Signal, wait::waitpid},
    unistd::{ForkResult, Pid},
};

use crate::{Outcome, attack};

/// Does one of them.
pub fn perform(words: &[&str]) -> Outcome {
    let word = |at: usize| words.get(at).copied().ok_or_else(|| format!("{words:?} lacks an argument"));
    let number = |at: usize| -> Result<u64, String> { word(at)?.parse().map_err(|e| format!("{words:?}: {e}")) };
    match word(0)? {
        "inherited" => look::inherited(),
        "layout" => look::layout(),
        "pids" => look::pids(i32::try_from(number(1)?).map_err(|e| e.to_string())?),
        "special" => look::special(word(1)?),
        "search" => look::search(word(1)?),
        "may-write" => files::may_write(word(1)?),
        "fill" => files::fill(word(1)?, number(2)?),
        "memfd" => files::memfd(number(1)?),
        "names" => files::names(number(2)?, word(1)?),
        "call" => match sys::call(word(1)?) {
            Ok(()) => Ok(b"it worked".to_vec()),
            Err(error) => Err(format!("{}: {error:?}", word(1)?)),
        },
        "abstract" => look::abstract_socket(word(1)?),
        "credentials" => look::credentials(),
        "listen" => look::listen(u16::try_from(number(1)?).map_err(|e| e.to_string())?),
        "euid" => Ok(nix::unistd::geteuid().to_string().into_bytes()),
        "run" => run(word(1)?, &words[2..]),
        "orphans" => orphans(number(1)?),
        "zombies" => zombies(number(1)?),
        // Orphans would be its own then, and not init's.
        "subreaper" => {
            prctl::set_child_subreaper(true).map_err(|e| e.to_string())?;
            attack::daemon()
        }
        "name" => {
            let name = std::ffi::CString::new(word(1)?).map_err(|e| e.to_string())?;
            prctl::set_name(&name).map_err(|e| e.to_string())?;
            Ok(b"renamed".to_vec())
        }
        "signal" => {
            let (pid, signal) = (number(1)?, number(2)?);
            let pid = Pid::from_raw(i32::try_from(pid).map_err(|e| e.to_string())?);
            let signal = i32::try_from(signal).ok().and_then(|number| Signal::try_from(number).ok());
            nix::sys::signal::kill(pid, signal).map_err(|e| format!("signal {pid}: {e:?}"))?;
            Ok(b"sent".to_vec())
        }
        "everyone" => everyone(number(1)?),
        "core" => core(),
        "sweep" => reach::sweep(word(1)?),
        "first" => reach::first(words.get(1..).unwrap_or_default()),
        "program" => reach::program(word(1)?),
        "map" => reach::map(word(1)?, words.get(2) == Some(&"new")),
        "attribute" => shared::attribute(word(1)?, word(2)?),
        "attributes" => shared::attributes(number(1)?),
        "across" => shared::across(word(1)?),
        "overwrite" => shared::overwrite(word(1)?),
        "lease" => shared::lease(word(1)?),
        "vsyscall" => reach::vsyscall(word(1)?, words.get(2) == Some(&"refused")),
        "random" => random::run(number(1)?, number(2)?),
        "lock" => appetite::lock(number(1)?),
        "populate" => appetite::populate(number(1)?),
        "pipes" => appetite::pipes(number(1)?),
        "sockets" => appetite::sockets(number(1)?),
        "descriptors" => appetite::descriptors(number(1)?),
        "tables" => appetite::tables(number(1)?),
        "leave" => appetite::leave(word(1)?, number(2)?),
        "glean" => appetite::glean(word(1)?, number(2)?, words.get(3) == Some(&"own")),
        "bless" => shared::bless(word(1)?),
        "read-through" => appetite::read_through(word(1)?),
        other => Err(format!("unknown hostile verb {other:?}")),
    }
}

/// Runs a program and gives what it printed.
fn run(program: &str, arguments: &[&str]) -> Outcome {
    let output = Command::new(program).args(arguments).output().map_err(|e| format!("run {program}: {e}"))?;
    match output.status.success() {
        true => Ok(output.stdout),
        false => Err(String::from_utf8_lossy(&output.stderr).into_owned()),
    }
}

/// Children of children that end at once and whose parent is gone: pid 1 has to wait for them.
fn orphans(count: u64) -> Outcome {
    for at in 0..count {
        match crate::sys::fork().map_err(|e| format!("fork number {at}: {e}"))? {
            ForkResult::Child => {
                // Both end at once; whether there are two does not matter.
                crate::sys::fork().ok();
                std::process::exit(0)
            }
            ForkResult::Parent { child } => drop(waitpid(child, None).map_err(|e| e.to_string())?),
        }
        // For pid 1, which has to be given the time.
        std::thread::sleep(Duration::from_millis(2));
    }
    Ok(format!("made {count} orphans").into_bytes())
}

/// Children that nobody waits for.
fn zombies(count: u64) -> Outcome {
    for at in 0..count {
        match crate::sys::fork().map_err(|e| format!("fork number {at}: {e}"))? {
            ForkResult::Child => std::process::exit(0),
            ForkResult::Parent { .. } => {}
        }
    }
    Ok(format!("made {count} zombies").into_bytes())
}

/// Most processes that are taken for a namespace of one's own.
const FEW: u32 = 100;

/// Sends a signal to everybody that it may reach, and tells how a child of its own fared.
fn everyone(signal: u64) -> Outcome {
    // Outside of any namespace these would be all the processes of the machine.
    if std::process::id() > FEW {
        return Err(format!("pid {}: this is no namespace of its own", std::process::id()));
    }
    let signal = i32::try_from(signal).ok().and_then(|number| Signal::try_from(number).ok());
    match crate::sys::fork().map_err(|e| e.to_string())? {
        ForkResult::Child => {
            std::thread::sleep(Duration::from_secs(60));
            std::process::exit(0)
        }
        ForkResult::Parent { child } => {
            let sent = nix::sys::signal::kill(Pid::from_raw(-1), signal);
            let ended = waitpid(child, None).map_err(|e| e.to_string())?;
            sent.map_err(|e| format!("signal everyone: {e:?}"))?;
            Ok(format!("{ended:?}").into_bytes())
        }
    }
}

/// A child that crashes in /tmp, with a limit on cores that is as high as it may set it. Tells whether a core was written.
fn core() -> Outcome {
    use nix::sys::{
        resource::{Resource, getrlimit, setrlimit},
        wait::WaitStatus,
    };
    match crate::sys::fork().map_err(|e| e.to_string())? {
        ForkResult::Child => {
            std::env::set_current_dir("/tmp").ok();
            prctl::set_dumpable(true).ok();
            // As high as it goes: higher for root alone.
            let (_, hard) = getrlimit(Resource::RLIMIT_CORE).unwrap_or_default();
            if setrlimit(Resource::RLIMIT_CORE, libc::RLIM_INFINITY, libc::RLIM_INFINITY).is_err() {
                setrlimit(Resource::RLIMIT_CORE, hard, hard).ok();
            }
            crate::sys::raise(libc::SIGSEGV);
            std::process::exit(0)
        }
        ForkResult::Parent { child } => match waitpid(child, None).map_err(|e| e.to_string())? {
            WaitStatus::Signaled(_, Signal::SIGSEGV, dumped) => {
                let files = std::fs::read_dir("/tmp").map_err(|e| format!("list /tmp: {e}"))?;
                let cores = files.flatten().filter(|file| file.file_name().to_string_lossy().contains("core"));
                Ok(format!("dumped {dumped}, {} files", cores.count()).into_bytes())
            }
            other => Err(format!("a child that crashes ended otherwise: {other:?}")),
        },
    }
}
