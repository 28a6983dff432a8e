//! Verbs that try to get out, or at what belongs to others. Each tells the errno it met, or that it worked.

use std::{
    fs,
    io::{Read, Write},
    net::TcpStream,
    time::Duration,
};

use nix::{sched::CloneFlags, sys::signal::Signal, unistd::Pid};

use crate::{Outcome, sys};

/// First 4 KiB of a file.
pub fn read(path: &str) -> Outcome {
    let mut text = Vec::new();
    let file = fs::File::open(path).map_err(|e| format!("open {path}: {e}"))?;
    file.take(4096).read_to_end(&mut text).map_err(|e| format!("read {path}: {e}"))?;
    Ok(text)
}

/// Creates or overwrites a file.
pub fn write(path: &str) -> Outcome {
    let mut file = fs::File::create(path).map_err(|e| format!("create {path}: {e}"))?;
    file.write_all(b"probe").map_err(|e| format!("write {path}: {e}"))?;
    Ok(b"written".to_vec())
}

/// Names in a directory, sorted.
pub fn list(path: &str) -> Outcome {
    let entries = fs::read_dir(path).map_err(|e| format!("list {path}: {e}"))?;
    let mut names: Vec<String> = entries.flatten().map(|e| e.file_name().to_string_lossy().into_owned()).collect();
    names.sort();
    Ok(names.join("\n").into_bytes())
}

/// Connects by TCP.
pub fn connect(address: &str) -> Outcome {
    let address = address.parse().map_err(|e| format!("{address}: {e}"))?;
    TcpStream::connect_timeout(&address, Duration::from_secs(2)).map_err(|e| format!("connect to {address}: {e}"))?;
    Ok(b"connected".to_vec())
}

/// Sends signal 0: whether a process may be touched at all.
pub fn kill(pid: i32) -> Outcome {
    nix::sys::signal::kill(Pid::from_raw(pid), None::<Signal>).map_err(|e| format!("signal {pid}: {e}"))?;
    Ok(b"touched".to_vec())
}

/// A system call or two by name.
pub fn try_call(name: &str) -> Outcome {
    let none = None::<&str>;
    let result = match name {
        "mount" => nix::mount::mount(Some("none"), "/tmp", Some("tmpfs"), nix::mount::MsFlags::empty(), none),
        "umount" => nix::mount::umount("/proc"),
        "unshare-user" => nix::sched::unshare(CloneFlags::CLONE_NEWUSER),
        "unshare-net" => nix::sched::unshare(CloneFlags::CLONE_NEWNET),
        "setuid-root" => nix::unistd::setuid(nix::unistd::Uid::from_raw(0)),
        "chroot" => nix::unistd::chroot("/tmp"),
        "sethostname" => nix::unistd::sethostname("probe"),
        "ptrace" => attach_to_child(),
        "setns" | "bpf" | "keyctl" | "io_uring" | "userfaultfd" | "perf" | "kexec" | "module" | "reboot"
        | "open_by_handle" | "process_vm_readv" | "x32" | "clone-newuser" | "tiocsti" | "packet-socket"
        | "netlink-socket" | "vsock-socket" | "personality" | "swapon" | "setpriority" | "device-ioctl" => {
            sys::named(name)
        }
        other => sys::by_argument(other).ok_or_else(|| format!("unknown call {other:?}"))?,
    };
    match result {
        Ok(()) => Ok(b"it worked".to_vec()),
        Err(error) => Err(format!("{name}: {error:?}")),
    }
}

/// A child of one's own is the least anybody may trace outside; and nobody else's process is stopped by it.
fn attach_to_child() -> nix::Result<()> {
    match sys::fork()? {
        nix::unistd::ForkResult::Child => {
            std::thread::sleep(Duration::from_secs(10));
            std::process::exit(0)
        }
        nix::unistd::ForkResult::Parent { child } => {
            let attached = nix::sys::ptrace::attach(child);
            nix::sys::signal::kill(child, nix::sys::signal::Signal::SIGKILL)?;
            // Stopped by the attachment first, perhaps.
            while nix::sys::wait::waitpid(child, None).is_ok_and(|status| status.pid().is_some() && !is_end(status)) {}
            attached
        }
    }
}

fn is_end(status: nix::sys::wait::WaitStatus) -> bool {
    use nix::sys::wait::WaitStatus;
    matches!(status, WaitStatus::Exited(..) | WaitStatus::Signaled(..))
}

/// Leaves a process of another session behind; the classic way to outlive a parent.
pub fn daemon() -> Outcome {
    match sys::fork().map_err(|e| e.to_string())? {
        nix::unistd::ForkResult::Child => {
            nix::unistd::setsid().ok();
            match sys::fork() {
                Ok(nix::unistd::ForkResult::Child) => {
                    std::thread::sleep(Duration::from_secs(600));
                    std::process::exit(0)
                }
                _ => std::process::exit(0),
            }
        }
        nix::unistd::ForkResult::Parent { child } => {
            nix::sys::wait::waitpid(child, None).map_err(|e| e.to_string())?;
            Ok(b"left behind".to_vec())
        }
    }
}
