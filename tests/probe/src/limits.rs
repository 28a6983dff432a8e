//! Verbs that go for a limit.

use std::{
    fs::{self, File},
    io::Write,
    time::{Duration, Instant},
};

use nix::{
    sys::resource::{Resource, getrlimit},
    unistd::ForkResult,
};

use crate::{Outcome, sys};

const MIB: usize = 1024 * 1024;
/// Most generations of a fork bomb: 4096 processes.
pub const GENERATIONS_MAX: u32 = 12;

/// Touches so many MiB.
pub fn alloc(mib: u64) -> Outcome {
    let mut held = Vec::new();
    for _ in 0..mib {
        // Not zeros: a page of zeros may cost nothing.
        held.push(vec![0xa5_u8; MIB]);
    }
    let sum: u64 = held.iter().map(|chunk| u64::from(chunk[chunk.len() - 1])).sum();
    Ok(format!("touched {mib} MiB ({sum})").into_bytes())
}

/// Fills buffers of TCP connections to itself that nobody reads, with up to so many MiB. Tells how much they took.
pub fn tcp(mib: u64) -> Outcome {
    let wanted = usize::try_from(mib).map_err(|e| e.to_string())? * MIB;
    let failed = |error: std::io::Error| error.to_string();
    let listener = std::net::TcpListener::bind("127.0.0.1:0").map_err(failed)?;
    let address = listener.local_addr().map_err(failed)?;
    let (mut held, mut taken) = (Vec::new(), 0);
    let chunk = vec![0xa5; 256 * 1024];
    // Each takes some MiB; with no more descriptors there is no more to show.
    while taken < wanted {
        let Ok(mut one) = std::net::TcpStream::connect(address) else { break };
        let Ok((other, _)) = listener.accept() else { break };
        one.set_nonblocking(true).map_err(failed)?;
        let before = taken;
        // What is under way on the loopback makes room a moment later.
        for _ in 0..20 {
            while let Ok(written) = one.write(&chunk) {
                taken += written;
            }
            std::thread::sleep(Duration::from_millis(1));
        }
        held.push((one, other));
        if taken == before {
            break;
        }
    }
    Ok((taken / MIB).to_string().into_bytes())
}

/// Forks a child that touches so many MiB, and tells how it ended.
pub fn lose_child(mib: u64) -> Outcome {
    match sys::fork().map_err(|e| e.to_string())? {
        ForkResult::Child => {
            drop(alloc(mib));
            std::process::exit(0)
        }
        ForkResult::Parent { child } => {
            let ended = nix::sys::wait::waitpid(child, None).map_err(|e| e.to_string())?;
            Ok(format!("{ended:?}").into_bytes())
        }
    }
}

/// Forks so many children that wait for their end.
pub fn fork(count: u64) -> Outcome {
    let mut children = Vec::new();
    let mut failed = None;
    for at in 0..count {
        match sys::fork() {
            Ok(ForkResult::Child) => {
                std::thread::sleep(Duration::from_secs(60));
                std::process::exit(0);
            }
            Ok(ForkResult::Parent { child }) => children.push(child),
            Err(error) => {
                failed = Some(format!("fork number {at}: {error}"));
                break;
            }
        }
    }
    for child in children {
        // Gone already is as good.
        nix::sys::signal::kill(child, nix::sys::signal::Signal::SIGKILL).ok();
        nix::sys::wait::waitpid(child, None).ok();
    }
    failed.map_or_else(|| Ok(format!("forked {count}").into_bytes()), Err)
}

/// A fork bomb: this process and all that come of it fork, again when they are refused, until there were `generations` of
/// them or the time is over. Never more than two to the power of `generations` processes, wherever it is run; all of them
/// have ended when it returns. Fails when any of them was refused, as a function does that cannot go on.
pub fn bomb(generations: u32, time: Duration) -> Outcome {
    match explode(generations, Instant::now() + time) {
        true => Err(format!("forks were refused within {generations} generations")),
        false => Ok(format!("forked {generations} generations").into_bytes()),
    }
}

/// Whether this process or one that came of it was refused a fork.
fn explode(generations: u32, end: Instant) -> bool {
    let mut children = Vec::new();
    let mut was_refused = false;
    for left in (0..generations).rev() {
        while Instant::now() < end {
            match sys::fork() {
                Ok(ForkResult::Child) => std::process::exit(i32::from(explode(left, end))),
                Ok(ForkResult::Parent { child }) => {
                    children.push(child);
                    break;
                }
                Err(_) => was_refused = true,
            }
        }
    }
    for child in children {
        // A status other than 0: it, or one that came of it, was refused.
        let ended = nix::sys::wait::waitpid(child, None);
        was_refused |= !matches!(ended, Ok(nix::sys::wait::WaitStatus::Exited(_, 0)));
    }
    was_refused
}

/// Writes so many MiB into one file of /tmp.
pub fn fill(mib: u64) -> Outcome {
    let mut file = File::create("/tmp/fill").map_err(|e| format!("create /tmp/fill: {e}"))?;
    for at in 0..mib {
        file.write_all(&vec![0xa5; MIB]).map_err(|e| format!("write MiB {at} of /tmp/fill: {e}"))?;
    }
    drop(file);
    fs::remove_file("/tmp/fill").map_err(|e| e.to_string())?;
    Ok(format!("wrote {mib} MiB").into_bytes())
}

/// Writes so many MiB into files of one MiB each, which no limit on the size of one file ends. What does not fit fails,
/// and stays until the next time: /tmp is then as full as it can be.
pub fn stuff(mib: u64) -> Outcome {
    let path = |at: u64| format!("/tmp/stuff-{at}");
    for at in 0..mib {
        // Of the last time, if there was one.
        fs::remove_file(path(at)).ok();
    }
    for at in 0..mib {
        fs::write(path(at), vec![0xa5; MIB]).map_err(|e| format!("write {}: {e}", path(at)))?;
    }
    Ok(format!("wrote {mib} files").into_bytes())
}

/// Makes so many files in /tmp.
pub fn files(count: u64) -> Outcome {
    for at in 0..count {
        File::create(format!("/tmp/file-{at}")).map_err(|e| format!("create file {at} in /tmp: {e}"))?;
    }
    Ok(format!("made {count} files").into_bytes())
}

/// Opens so many descriptors.
pub fn open(count: u64) -> Outcome {
    let mut held = Vec::new();
    for at in 0..count {
        held.push(File::open("/dev/null").map_err(|e| format!("open descriptor {at}: {e}"))?);
    }
    Ok(format!("opened {}", held.len()).into_bytes())
}

/// Writes so many MiB to the log.
pub fn flood(mib: u64) -> Outcome {
    let line = [b"flood ".repeat(170), b"\n".to_vec()].concat();
    let mut log = std::io::stderr();
    for _ in 0..mib * 1024 {
        log.write_all(&line).map_err(|e| format!("write to the log: {e}"))?;
    }
    Ok(b"flooded".to_vec())
}

/// Uses CPU for so long; tells how many rounds it came to.
pub fn spin(time: Duration) -> Outcome {
    let end = Instant::now() + time;
    let mut rounds = 0_u64;
    while Instant::now() < end {
        rounds += 1;
    }
    Ok(rounds.to_string().into_bytes())
}

/// Uses CPU for so long on so many threads; tells how many rounds they came to together.
pub fn spin_all(threads: u64, time: Duration) -> Outcome {
    let mut started = Vec::new();
    for at in 0..threads {
        let thread = std::thread::Builder::new().spawn(move || spin(time));
        started.push(thread.map_err(|e| format!("start thread {at}: {e}"))?);
    }
    let mut rounds = 0;
    for thread in started {
        let told = thread.join().map_err(|_| "a thread panicked".to_owned())??;
        rounds += String::from_utf8_lossy(&told).parse::<u64>().map_err(|e| e.to_string())?;
    }
    Ok(rounds.to_string().into_bytes())
}

/// Resource limits of this process, `name=soft/hard` per line.
pub fn rlimits() -> Outcome {
    let mut text = String::new();
    for (name, resource) in [
        ("core", Resource::RLIMIT_CORE),
        ("nofile", Resource::RLIMIT_NOFILE),
        ("fsize", Resource::RLIMIT_FSIZE),
        ("stack", Resource::RLIMIT_STACK),
    ] {
        let (soft, hard) = getrlimit(resource).map_err(|e| e.to_string())?;
        text.push_str(&format!("{name}={soft}/{hard}\n"));
    }
    Ok(text.into_bytes())
}
