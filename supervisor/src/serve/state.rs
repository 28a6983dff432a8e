//! The state directory: one supervisor at a time, its sockets, and the nursery's scratch place.

mod old_socket;

use std::{
    fs::{self, File, OpenOptions, Permissions},
    io::{self, Read, Seek, SeekFrom, Write},
    os::{
        fd::OwnedFd,
        unix::{
            fs::{FileTypeExt, MetadataExt, OpenOptionsExt, PermissionsExt, chown},
            net::UnixListener,
        },
    },
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use nix::fcntl::{Flock, FlockArg};

use crate::{
    config::{Host, HostPath},
    orphan::{self, Orphan},
    trust::{Trusted, Untrusted},
};

/// How long to wait for the nursery of an earlier run, which holds the lock while it cleans up.
const LOCK_PATIENCE: Duration = Duration::from_secs(5);
const LOCK_PAUSE: Duration = Duration::from_millis(20);
/// Connections the kernel keeps for us until we accept them.
const BACKLOG: i32 = 1024;

/// Why the state directory cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum StateError {
    /// Something about a file.
    #[error("{what} {path}: {error}; {remedy}")]
    Os {
        /// What was tried.
        what: &'static str,
        /// On what.
        path: String,
        /// Why it failed.
        error: io::Error,
        /// What to do.
        remedy: &'static str,
    },
    /// Another supervisor is there.
    #[error(
        "another supervisor{} uses the state directory {path}; stop it, or write another host.state_dir and \
         host.instance", pid.map(|pid| format!(" (pid {pid})")).unwrap_or_default()
    )]
    Locked {
        /// The directory.
        path: String,
        /// Who holds it, as far as it says.
        pid: Option<u32>,
    },
    /// A supervisor was there, and has left its nursery.
    #[error("the state directory {path} is not free: {nursery}")]
    Orphaned {
        /// The directory.
        path: String,
        /// Who holds it.
        nursery: Orphan,
    },
    /// Somebody else decides what one of our paths leads to.
    #[error("host.{setting} = \"{value}\" is not used: {error}")]
    Untrusted {
        /// The key in `[host]`.
        setting: &'static str,
        /// Its value.
        value: String,
        /// Which part, and what to do.
        error: Untrusted,
    },
    /// A file of ours is something else.
    #[error("{path} is {what}, and was not made by sublet; remove it, or write another host.state_dir")]
    NotOurs {
        /// Path of the socket.
        path: String,
        /// What it is.
        what: String,
    },
    /// A living process takes what comes to a socket's path.
    #[error(
        "host.{setting} = \"{path}\": a living process listens there; stop it, or write another path for the socket"
    )]
    Listening {
        /// The key in `[host]`.
        setting: &'static str,
        /// Path of the socket.
        path: String,
    },
    /// A socket that was handed in lets in others than the configuration says.
    #[error(
        "host.{setting} = \"{path}\" was handed in and is not a socket of root's as the configuration has it: it has mode \
         {:04o} and group {}, and must have {:04o} and {}; write SocketMode={:04o} and SocketGroup={} where it is made, or \
         correct host.socket_mode and host.socket_gid", seen.0, seen.1, wanted.0, wanted.1, wanted.0, wanted.1
    )]
    HandedIn {
        /// The key in `[host]`.
        setting: &'static str,
        /// Path of the socket.
        path: String,
        /// Mode and group of what is there.
        seen: (u32, u32),
        /// Those of the configuration.
        wanted: (u32, u32),
    },
    /// Something else is where a socket should be.
    #[error("{path} is there and is no socket; move it away, or write another path for the socket")]
    NotASocket {
        /// Path of the socket.
        path: String,
    },
}

fn os(what: &'static str, path: &Path, remedy: &'static str) -> impl FnOnce(io::Error) -> StateError {
    let path = path.display().to_string();
    move |error| StateError::Os { what, path, error, remedy }
}

fn untrusted(setting: &'static str, path: &Path) -> impl FnOnce(Untrusted) -> StateError {
    let value = path.display().to_string();
    move |error| StateError::Untrusted { setting, value, error }
}

/// Root writes there.
const OURS: Trusted<'_> = Trusted::root_and(&[]);

const DISK: &str = "check that its disk is writable and not full, or write another host.state_dir";

/// The locked state directory.
#[derive(Debug)]
pub struct State {
    lock: OwnedFd,
    scratch: PathBuf,
}

impl State {
    /// Makes the directory if it is not there and locks it.
    ///
    /// # Errors
    /// Another supervisor holds it, somebody else decides what it is, or a file operation fails.
    pub fn lock(dir: &Path) -> Result<Self, StateError> {
        // Callers pass through to the sockets; what they may do there is the sockets' modes.
        OURS.make_directory(dir, 0o755).map_err(untrusted("state_dir", dir))?;
        let path = dir.join("lock");
        let file = open_lock(&path)?;
        let end = Instant::now() + LOCK_PATIENCE;
        let mut file = file;
        let mut locked = loop {
            match Flock::lock(file, FlockArg::LockExclusiveNonblock) {
                Ok(locked) => break locked,
                Err((back, nix::errno::Errno::EWOULDBLOCK)) if Instant::now() < end => {
                    file = back;
                    std::thread::sleep(LOCK_PAUSE);
                }
                Err((mut back, nix::errno::Errno::EWOULDBLOCK)) => {
                    let shown = dir.display().to_string();
                    if let Some(nursery) = orphan::behind(&path) {
                        return Err(StateError::Orphaned { path: shown, nursery });
                    }
                    let mut text = String::new();
                    // A lock that says nothing is held all the same.
                    back.read_to_string(&mut text).ok();
                    return Err(StateError::Locked { path: shown, pid: text.trim().parse().ok() });
                }
                Err((_, error)) => return Err(os("lock", &path, DISK)(error.into())),
            }
        };
        let pid = format!("{}\n", std::process::id());
        let written = locked
            .set_len(0)
            .and_then(|()| locked.seek(SeekFrom::Start(0)))
            .and_then(|_| locked.write_all(pid.as_bytes()));
        written.map_err(os("write our pid to", &path, DISK))?;
        let scratch = dir.join("scratch");
        if fs::symlink_metadata(&scratch).is_ok_and(|found| found.is_symlink()) {
            return Err(StateError::NotOurs { path: scratch.display().to_string(), what: "a symbolic link".into() });
        }
        OURS.make_directory(&scratch, 0o700).map_err(untrusted("state_dir", dir))?;
        let lock = locked.try_clone().map_err(os("copy the lock of", &path, DISK))?;
        // The lock belongs to the open file, not to the number: it lasts as long as any copy, ours or the nursery's.
        std::mem::forget(locked);
        Ok(Self { lock: lock.into(), scratch })
    }

    /// The lock, for the nursery to hold on to.
    pub fn lock_fd(&self) -> &OwnedFd {
        &self.lock
    }

    /// An empty directory of root's.
    pub fn scratch(&self) -> &Path {
        &self.scratch
    }
}

/// Opens or makes the lock. Nobody else can put a name into the directory any more; what was put there before it became
/// ours is not written to.
fn open_lock(path: &Path) -> Result<File, StateError> {
    let not_ours = |what: String| StateError::NotOurs { path: path.display().to_string(), what };
    let opened = OpenOptions::new()
        .read(true)
        .write(true)
        .create(true)
        .truncate(false)
        .mode(0o600)
        // A pipe must not be waited for.
        .custom_flags(libc::O_NOFOLLOW | libc::O_NONBLOCK)
        .open(path);
    let file = match opened {
        Err(error) if error.raw_os_error() == Some(libc::ELOOP) => return Err(not_ours("a symbolic link".into())),
        opened => opened.map_err(os("open the lock", path, DISK))?,
    };
    let found = file.metadata().map_err(os("look at the lock", path, DISK))?;
    match () {
        () if !found.is_file() => Err(not_ours("not a plain file".into())),
        () if found.uid() != 0 => Err(not_ours(format!("a file of uid {}", found.uid()))),
        () if found.nlink() != 1 => Err(not_ours(format!("a file with {} names", found.nlink()))),
        () => Ok(file),
    }
}

/// A socket: its setting, path, mode, and its group if not root's.
pub type Socket<'a> = (&'static str, &'a HostPath, u32, Option<u32>);

/// That of callers and that of operators.
pub fn sockets(host: &Host) -> [Socket<'_>; 2] {
    [
        ("socket", &host.socket, host.socket_mode.bits(), host.socket_gid),
        ("admin_socket", &host.admin_socket, 0o600, None),
    ]
}

/// Binds both UNIX sockets, with the modes of the configuration, or takes those that were handed in. What a killed run left
/// in their place is removed.
///
/// # Errors
/// A living process listens at one, or it cannot be bound, or one that was handed in is not as the configuration says. Then
/// none of ours is left.
pub fn bind_unix(
    host: &Host,
    call: Option<UnixListener>,
    admin: Option<UnixListener>,
) -> Result<(UnixListener, UnixListener), StateError> {
    let [of_call, of_admin] = sockets(host);
    let get = |(setting, path, mode, gid): Socket<'_>, handed: Option<UnixListener>| match handed {
        Some(listener) => take_over(setting, path.as_path(), mode, gid, listener),
        None => bind(setting, path.as_path(), mode, gid),
    };
    let is_ours = call.is_none();
    let call = get(of_call, call)?;
    match get(of_admin, admin) {
        Ok(admin) => Ok((call, admin)),
        Err(error) => {
            // Ours alone: what is at the other path is not.
            if is_ours {
                fs::remove_file(host.socket.as_path()).ok();
            }
            Err(error)
        }
    }
}

/// A socket that was handed in. Who may connect to it is up to its file, which must be as the configuration says.
fn take_over(
    setting: &'static str,
    path: &Path,
    mode: u32,
    gid: Option<u32>,
    listener: UnixListener,
) -> Result<UnixListener, StateError> {
    const REMEDY: &str = "have whoever hands it in make it anew";
    if let Some(parent) = path.parent() {
        OURS.parent(parent).map_err(untrusted(setting, path))?;
    }
    let found = fs::symlink_metadata(path).map_err(os("look at the socket that was handed in,", path, REMEDY))?;
    let wanted = (mode, gid.unwrap_or(0));
    let seen = (found.mode() & 0o7777, found.gid());
    if !found.file_type().is_socket() || found.uid() != 0 || seen != wanted {
        return Err(StateError::HandedIn { setting, path: path.display().to_string(), seen, wanted });
    }
    listener.set_nonblocking(true).map_err(os("use the socket that was handed in,", path, REMEDY))?;
    tracing::info!(path = %path.display(), "host.{setting} was handed in");
    Ok(listener)
}

fn bind(setting: &'static str, path: &Path, mode: u32, gid: Option<u32>) -> Result<UnixListener, StateError> {
    const SOCKET: &str = "check the directory of host.socket and host.admin_socket";
    if let Some(parent) = path.parent() {
        OURS.parent(parent).map_err(untrusted(setting, path))?;
    }
    old_socket::remove(setting, path)?;
    // Nobody may connect before the mode is what the operator wants.
    let old = nix::sys::stat::umask(nix::sys::stat::Mode::from_bits_truncate(0o177));
    let bound = listen(path);
    nix::sys::stat::umask(old);
    let listener = bound.map_err(os("bind", path, SOCKET))?;
    let dress = || -> io::Result<()> {
        if let Some(gid) = gid {
            chown(path, None, Some(gid))?;
        }
        fs::set_permissions(path, Permissions::from_mode(mode))?;
        listener.set_nonblocking(true)
    };
    match dress() {
        Ok(()) => Ok(listener),
        Err(error) => {
            fs::remove_file(path).ok();
            Err(os("set mode and group of", path, SOCKET)(error))
        }
    }
}

/// As std's bind, with a longer backlog: a burst of clients must not be refused.
fn listen(path: &Path) -> io::Result<UnixListener> {
    use nix::sys::socket::{AddressFamily, Backlog, SockFlag, SockType, UnixAddr, bind, listen, socket};
    let fd = socket(AddressFamily::Unix, SockType::Stream, SockFlag::SOCK_CLOEXEC, None)?;
    bind(std::os::fd::AsRawFd::as_raw_fd(&fd), &UnixAddr::new(path)?)?;
    listen(&fd, Backlog::new(BACKLOG)?)?;
    Ok(fd.into())
}

/// Whether anybody holds the lock of a state directory.
pub fn is_locked(dir: &Path) -> bool {
    match File::open(dir.join("lock")) {
        Ok(file) => Flock::lock(file, FlockArg::LockSharedNonblock).is_err(),
        Err(_) => false,
    }
}
