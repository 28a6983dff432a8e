//! Looks around: what a function was given, and what else is there.

use std::{
    collections::BTreeSet,
    fs,
    io::IoSlice,
    os::{
        fd::AsRawFd as _,
        linux::net::SocketAddrExt as _,
        unix::{
            fs::FileTypeExt as _,
            net::{SocketAddr, UnixStream},
        },
    },
    path::{Path, PathBuf},
    sync::{Arc, Barrier},
};

use nix::{
    sys::socket::{ControlMessage, MsgFlags, sendmsg},
    unistd::{ForkResult, Pid},
};

use super::sys;
use crate::Outcome;

/// Descriptor numbers that are asked for.
const DESCRIPTORS: i32 = 65536;
/// Threads in which the posture is looked at.
const THREADS: usize = 32;
/// Lines of a status file that every thread must have alike.
const OF_THREADS: [&str; 13] = [
    "Uid",
    "Gid",
    "Groups",
    "SigBlk",
    "SigIgn",
    "CapInh",
    "CapPrm",
    "CapEff",
    "CapBnd",
    "CapAmb",
    "NoNewPrivs",
    "Seccomp",
    "Seccomp_filters",
];

fn text(path: impl AsRef<Path>) -> Result<String, String> {
    fs::read_to_string(&path).map_err(|e| format!("read {}: {e}", path.as_ref().display()))
}

fn posture(status: &str) -> String {
    let is_wanted = |line: &&str| line.split(':').next().is_some_and(|name| OF_THREADS.contains(&name));
    let lines = status.lines().filter(is_wanted).map(|line| line.split_whitespace().collect::<Vec<_>>().join(" "));
    lines.collect::<Vec<_>>().join("; ")
}

/// Everything that this process has not made itself, a fact a line.
pub fn inherited() -> Outcome {
    let mut facts = Vec::new();
    for descriptor in (0..DESCRIPTORS).filter(|number| sys::is_open(*number)) {
        let leads = fs::read_link(format!("/proc/self/fd/{descriptor}")).unwrap_or_default();
        facts.push(format!("fd {descriptor} {}", leads.display()));
    }
    let directory = std::env::current_dir().map_err(|e| e.to_string())?;
    facts.push(format!("cwd {}", directory.display()));
    facts.extend(std::env::vars_os().map(|(name, _)| format!("env {}", name.display())));
    let status = text("/proc/self/status")?;
    facts.extend(
        status.lines().filter(|line| line.starts_with("Umask") || line.starts_with("SigCgt")).map(str::to_owned),
    );
    facts.extend(threads(&status)?.into_iter().map(|posture| format!("thread {posture}")));
    facts.push(format!("child {}", child()?));
    for (name, path) in [
        ("oom_score_adj", "/proc/self/oom_score_adj"),
        ("setgroups", "/proc/self/setgroups"),
        ("uid_map", "/proc/self/uid_map"),
    ] {
        facts.push(format!("{name} {}", text(path)?.split_whitespace().collect::<Vec<_>>().join(" ")));
    }
    facts.extend(sys::scheduling().into_iter().map(|(name, value)| format!("{name} {value}")));
    // Not private: somebody else may have it too.
    facts.extend(text("/proc/self/maps")?.lines().filter(|line| is_shared(line)).map(|line| format!("shared {line}")));
    Ok(facts.join("\n").into_bytes())
}

fn is_shared(line: &str) -> bool {
    line.split_whitespace().nth(1).is_some_and(|rights| rights.ends_with('s'))
}

/// The postures there are in so many threads: one, if all have the same.
fn threads(main: &str) -> Result<BTreeSet<String>, String> {
    let ready = Arc::new(Barrier::new(THREADS));
    let threads: Vec<_> = (0..THREADS)
        .map(|_| {
            let ready = ready.clone();
            std::thread::Builder::new().stack_size(64 * 1024).spawn(move || {
                // All of them are there when the first one looks.
                ready.wait();
                text("/proc/thread-self/status").map(|status| posture(&status))
            })
        })
        .collect::<Result<_, _>>()
        .map_err(|e| format!("start {THREADS} threads: {e}"))?;
    let mut seen = BTreeSet::from([posture(main)]);
    for thread in threads {
        seen.insert(thread.join().map_err(|_| "a thread panicked")??);
    }
    Ok(seen)
}

/// The posture of a process that this one starts.
fn child() -> Result<String, String> {
    match crate::sys::fork().map_err(|e| e.to_string())? {
        ForkResult::Child => loop {
            std::thread::sleep(std::time::Duration::from_secs(1));
        },
        ForkResult::Parent { child } => {
            let seen = text(format!("/proc/{child}/status")).map(|status| posture(&status));
            nix::sys::signal::kill(child, nix::sys::signal::Signal::SIGKILL).map_err(|e| e.to_string())?;
            nix::sys::wait::waitpid(child, None).map_err(|e| e.to_string())?;
            seen
        }
    }
}

/// Where program, heap, stack and the kernel's own page are.
pub fn layout() -> Outcome {
    let mut places: Vec<(String, String)> = Vec::new();
    for line in text("/proc/self/maps")?.lines() {
        let name = line.split_whitespace().nth(5).unwrap_or_default();
        let start = line.split('-').next().unwrap_or_default();
        let short = name.rsplit('/').next().unwrap_or_default();
        let is_known = places.iter().any(|(known, _)| known == short);
        if !is_known && (["[heap]", "[stack]", "[vdso]"].contains(&name) || name.starts_with('/')) {
            places.push((short.to_owned(), start.to_owned()));
        }
    }
    Ok(places.iter().map(|(name, start)| format!("{name} {start}\n")).collect::<String>().into_bytes())
}

/// Processes that may be signalled, of all numbers up to `most`.
pub fn pids(most: i32) -> Outcome {
    let is_there = |pid: &i32| nix::sys::signal::kill(Pid::from_raw(*pid), None) != Err(nix::errno::Errno::ESRCH);
    Ok((1..=most).filter(is_there).map(|pid| format!("{pid}\n")).collect::<String>().into_bytes())
}

/// Calls `look` with every file below a directory, but for /proc and what belongs to the distribution.
fn walk(root: &str, mut look: impl FnMut(&Path, &fs::Metadata)) {
    let mut left = vec![PathBuf::from(root)];
    while let Some(dir) = left.pop() {
        for entry in fs::read_dir(&dir).into_iter().flatten().flatten() {
            let (path, Ok(metadata)) = (entry.path(), entry.metadata()) else { continue };
            look(&path, &metadata);
            if metadata.is_dir() && !["/proc", "/usr", "/sys"].iter().any(|not| path == Path::new(not)) {
                left.push(path);
            }
        }
    }
}

/// Every device and socket below a directory.
pub fn special(root: &str) -> Outcome {
    let mut seen = Vec::new();
    walk(root, |path, metadata| {
        let kind = metadata.file_type();
        let letter = [
            (kind.is_block_device(), 'b'),
            (kind.is_char_device(), 'c'),
            (kind.is_socket(), 's'),
            (kind.is_fifo(), 'p'),
        ];
        seen.extend(letter.iter().filter(|(is, _)| *is).map(|(_, letter)| format!("{letter} {}", path.display())));
    });
    seen.sort();
    Ok(seen.join("\n").into_bytes())
}

/// Files anywhere that hold `needle`.
pub fn search(needle: &str) -> Outcome {
    let mut seen = Vec::new();
    walk("/", |path, metadata| {
        let is_small = metadata.is_file() && metadata.len() < 1 << 20;
        let holds = |bytes: Vec<u8>| bytes.windows(needle.len()).any(|window| window == needle.as_bytes());
        if is_small && fs::read(path).is_ok_and(holds) {
            seen.push(format!("{}\n", path.display()));
        }
    });
    Ok(seen.concat().into_bytes())
}

/// Connects to an abstract socket.
pub fn abstract_socket(name: &str) -> Outcome {
    let address = SocketAddr::from_abstract_name(name).map_err(|e| e.to_string())?;
    UnixStream::connect_addr(&address).map_err(|e| format!("connect: {e}"))?;
    Ok(b"connected".to_vec())
}

/// Says in a message that it is pid 1 and root.
pub fn credentials() -> Outcome {
    let (one, _other) = UnixStream::pair().map_err(|e| e.to_string())?;
    let forged = sys::credentials(1, 0, 0);
    let message = [ControlMessage::ScmCredentials(&forged)];
    sendmsg::<()>(one.as_raw_fd(), &[IoSlice::new(b"x")], &message, MsgFlags::empty(), None)
        .map_err(|e| format!("forge: {e:?}"))?;
    Ok(b"forged".to_vec())
}

/// Listens on every address until the process ends.
pub fn listen(port: u16) -> Outcome {
    let listener = std::net::TcpListener::bind(("0.0.0.0", port)).map_err(|e| format!("listen on {port}: {e}"))?;
    std::thread::spawn(move || listener.incoming().for_each(drop));
    Ok(b"listening".to_vec())
}
