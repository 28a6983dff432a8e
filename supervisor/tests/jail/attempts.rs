//! What a hijacked supervisor would try.

use std::{
    fs::{self, File, OpenOptions},
    io::{self, Read, Write},
    os::{
        fd::{AsRawFd, OwnedFd},
        unix::{
            net::{UnixListener, UnixStream},
            process::CommandExt,
        },
    },
    path::Path,
    process::Command,
};

use nix::sys::socket::{AddressFamily, SockFlag, SockType, UnixAddr, connect, socket};
use sublet_supervisor::jail;

use crate::sys;

/// How the jail stops an attempt.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stop {
    /// The process is ended by SIGSYS.
    Ended,
    /// The call fails.
    Refused,
    /// The call fails, by landlock: not on a kernel without.
    Landlock,
}

/// Opened before the jail, for attempts that need it.
pub type Prepared = Option<(UnixListener, OwnedFd)>;

/// One of them.
#[derive(Clone, Copy, Debug)]
pub struct Attempt {
    /// Its name.
    pub name: &'static str,
    /// How it must be stopped.
    pub stop: Stop,
    /// Done before the process is confined.
    pub prepare: fn(&Path) -> io::Result<Prepared>,
    /// The attempt.
    pub run: fn(&Path, Prepared) -> io::Result<()>,
}

const fn attempt(name: &'static str, stop: Stop, run: fn(&Path, Prepared) -> io::Result<()>) -> Attempt {
    Attempt { name, stop, prepare: |_| Ok(None), run }
}

/// All that must be stopped.
pub const ATTEMPTS: &[Attempt] = &[
    attempt("program_is_executed", Stop::Ended, |_, _| {
        // Returns by an error alone. The program ends with the status that says success.
        Err(Command::new("/bin/sh").args(["-c", "exit 10"]).exec())
    }),
    attempt("process_is_forked", Stop::Refused, |_, _| sys::clone_process()),
    attempt("process_is_made_by_clone3", Stop::Refused, |_, _| sys::clone3_process()),
    attempt("itself_is_traced", Stop::Ended, |_, _| Ok(nix::sys::ptrace::traceme()?)),
    attempt("memory_is_read_by_process_vm_readv", Stop::Ended, |_, _| sys::read_own_memory()),
    attempt("netlink_socket", Stop::Ended, |_, _| sys::socket(libc::AF_NETLINK)),
    attempt("tcp_socket", Stop::Ended, |_, _| sys::socket(libc::AF_INET)),
    attempt("netlink_pair", Stop::Refused, |_, _| match sys::socketpair(libc::AF_NETLINK) {
        // The kernel knows none, and says so when it is asked: that is as far as it gets.
        Err(error) if error.raw_os_error() == Some(libc::EOPNOTSUPP) => Ok(()),
        other => other,
    }),
    Attempt {
        name: "connection_is_made",
        stop: Stop::Ended,
        prepare: |dir| {
            let listener = UnixListener::bind(dir.join("socket"))?;
            let caller = socket(AddressFamily::Unix, SockType::Stream, SockFlag::empty(), None)?;
            Ok(Some((listener, caller)))
        },
        run: |dir, prepared| {
            let (_listener, caller) = prepared.ok_or(io::ErrorKind::NotFound)?;
            Ok(connect(caller.as_raw_fd(), &UnixAddr::new(&dir.join("socket"))?)?)
        },
    },
    attempt("user_namespace", Stop::Ended, |_, _| Ok(nix::sched::unshare(nix::sched::CloneFlags::CLONE_NEWUSER)?)),
    attempt("keyring", Stop::Ended, |_, _| sys::keyring()),
    attempt("io_uring", Stop::Ended, |_, _| match sys::io_uring() {
        // Called with nothing, or switched off by the host: it is what the kernel says, and not a filter.
        Err(error) if matches!(error.raw_os_error(), Some(libc::EFAULT | libc::EPERM | libc::ENOSYS)) => Ok(()),
        other => other,
    }),
    attempt("memory_becomes_code", Stop::Refused, |_, _| sys::map_code()),
    attempt("data_becomes_code", Stop::Refused, |_, _| sys::protect_code()),
    attempt("another_is_signalled", Stop::Refused, |_, _| {
        // No signal is sent, only the right to is asked for.
        Ok(nix::sys::signal::kill(nix::unistd::Pid::parent(), None)?)
    }),
    attempt("terminal_is_typed_into", Stop::Refused, |_, _| match sys::type_into_stdin() {
        // It is /dev/null here.
        Err(error) if error.raw_os_error() == Some(libc::ENOTTY) => Ok(()),
        other => other,
    }),
    attempt("lingering_close", Stop::Refused, |_, _| sys::linger()),
    attempt("own_limit_is_set", Stop::Refused, |_, _| {
        Ok(nix::sys::resource::setrlimit(nix::sys::resource::Resource::RLIMIT_CORE, 0, 0)?)
    }),
    attempt("filter_is_added", Stop::Refused, |_, _| sys::seccomp_is_asked_for()),
    attempt("file_elsewhere_is_read", Stop::Landlock, |dir, _| fs::read(dir.join("closed/file")).map(drop)),
    attempt("etc_is_read", Stop::Landlock, |_, _| fs::read("/etc/passwd").map(drop)),
    attempt("root_is_listed", Stop::Landlock, |_, _| fs::read_dir("/").map(drop)),
    attempt("processes_are_listed", Stop::Landlock, |_, _| fs::read_dir("/proc").map(drop)),
    attempt("file_to_read_is_written", Stop::Landlock, |dir, _| {
        OpenOptions::new().write(true).open(dir.join("open/file")).map(drop)
    }),
    attempt("file_is_made", Stop::Landlock, |dir, _| File::create(dir.join("open/new")).map(drop)),
    attempt("group_becomes_a_link", Stop::Refused, |dir, _| {
        std::os::unix::fs::symlink("/etc", dir.join("groups/link"))
    }),
    attempt("file_is_made_among_groups", Stop::Landlock, |dir, _| File::create(dir.join("groups/new")).map(drop)),
    attempt("log_is_moved_away", Stop::Landlock, |dir, _| fs::rename(dir.join("logs/file"), dir.join("groups/taken"))),
    attempt("kernel_setting_is_written", Stop::Landlock, |_, _| {
        OpenOptions::new().write(true).open("/proc/self/comm").map(drop)
    }),
];

/// What must go on, confined or not.
pub const OTHERS: &[Attempt] = &[
    attempt("needed", Stop::Refused, |dir, _| needed(dir)),
    attempt("threads", Stop::Refused, |dir, _| {
        let (sender, receiver) = std::sync::mpsc::channel::<()>();
        let other = std::thread::spawn(move || receiver.recv());
        let confined = crate::plan(dir).open().and_then(jail::confine);
        drop(sender);
        drop(other.join());
        match confined {
            Err(jail::JailError::Threads(count)) if count == "2" => Ok(()),
            other => Err(io::Error::other(format!("{other:?}"))),
        }
    }),
];

fn needed(dir: &Path) -> io::Result<()> {
    let path = dir.to_owned();
    let made = std::thread::Builder::new().name("named".into()).spawn(move || -> io::Result<String> {
        // A thread that is made later is as its maker.
        let status = fs::read_to_string("/proc/thread-self/status")?;
        if fs::read(path.join("closed/file")).is_ok() && crate::plan(&path).landlock >= 3 {
            return Err(io::Error::other("a later thread is free"));
        }
        Ok(status)
    })?;
    let status = made.join().map_err(|_| io::Error::other("the thread failed"))??;
    if !status.contains("Name:\tnamed") || !status.contains("Seccomp:\t2") {
        return Err(io::Error::other(status));
    }
    let mut text = String::new();
    File::open(dir.join("open/file"))?.read_to_string(&mut text)?;
    fs::create_dir(dir.join("groups/new"))?;
    fs::write(dir.join("groups/file"), "1")?;
    fs::remove_dir(dir.join("groups/new"))?;
    fs::rename(dir.join("logs/file"), dir.join("logs/file.1"))?;
    let mut log = OpenOptions::new().append(true).create(true).open(dir.join("logs/file"))?;
    log.write_all(b"line\n")?;
    log.set_len(0)?;
    fs::remove_file(dir.join("logs/file.1"))?;
    let (mut one, mut other) = UnixStream::pair()?;
    one.set_nonblocking(true)?;
    other.write_all(b"x")?;
    one.read_exact(&mut [0])?;
    // Memory that comes and goes by mmap.
    let large = std::hint::black_box(vec![1_u8; 64 << 20]);
    if large.ends_with(&[1]) && text == "content" {
        Ok(())
    } else {
        Err(io::Error::other("it has read something else"))
    }
}
