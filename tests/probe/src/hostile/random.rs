//! Random system calls with random arguments, of a seeded generator.

use std::time::{Duration, Instant};

use nix::{
    sys::{
        signal::Signal,
        wait::{WaitPidFlag, WaitStatus, waitpid},
    },
    unistd::{ForkResult, Pid},
};

use super::sys::random::{Counters, storm};
use crate::Outcome;

/// How long a process that makes calls may stand still before another takes its place.
const PATIENCE: Duration = Duration::from_millis(30);
/// Most processes that take each other's place.
const PROCESSES: u64 = 2000;

/// Makes so many calls, in a child: many of them end it, and then another goes on. Tells what came of them.
pub fn run(seed: u64, count: u64) -> Outcome {
    let counters = Counters::shared().map_err(|e| format!("counters: {e:?}"))?;
    for at in 0..PROCESSES {
        if counters.made() >= count {
            break;
        }
        match crate::sys::fork() {
            Ok(ForkResult::Child) => storm(seed.wrapping_mul(PROCESSES) + at, count, counters),
            Ok(ForkResult::Parent { child }) => watch(child, counters),
            // Of the calls some start processes, and these have taken all there may be.
            Err(_) => drop(nix::sys::signal::kill(Pid::from_raw(-1), Signal::SIGKILL)),
        }
    }
    Ok(format!("made {} worked {} refused {}", counters.made(), counters.worked(), counters.refused()).into_bytes())
}

/// Waits for a child's end, and ends it when it stands still.
fn watch(child: Pid, counters: &Counters) {
    let (mut made, mut since) = (counters.made(), Instant::now());
    loop {
        match waitpid(child, Some(WaitPidFlag::WNOHANG)) {
            Ok(WaitStatus::StillAlive) => std::thread::sleep(Duration::from_micros(500)),
            Ok(_) | Err(_) => return,
        }
        if counters.made() != made {
            (made, since) = (counters.made(), Instant::now());
        } else if since.elapsed() > PATIENCE {
            // It may have ended meanwhile.
            nix::sys::signal::kill(child, Signal::SIGKILL).ok();
        }
    }
}
