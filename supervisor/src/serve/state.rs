//! The state directory: one supervisor at a time, its sockets, and the nursery's scratch place.

use std::{
    fs::{self, DirBuilder, File, OpenOptions, Permissions},
    io::{self, Read, Seek, SeekFrom, Write},
    os::{
        fd::OwnedFd,
        unix::{
            fs::{DirBuilderExt, FileTypeExt, OpenOptionsExt, PermissionsExt, chown},
            net::UnixListener,
        },
    },
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use nix::fcntl::{Flock, FlockArg};

use crate::config::Host;

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
    /// Something else is where a socket should be.
    #[error("{path} is there and is no socket; move it away, or write another path for the socket")]
    NotASocket {
        /// Where.
        path: String,
    },
}

fn os(what: &'static str, path: &Path, remedy: &'static str) -> impl FnOnce(io::Error) -> StateError {
    let path = path.display().to_string();
    move |error| StateError::Os { what, path, error, remedy }
}

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
    /// Another supervisor holds it, or a file operation fails.
    pub fn lock(dir: &Path) -> Result<Self, StateError> {
        // Callers pass through to the sockets; what they may do there is the sockets' modes.
        DirBuilder::new().recursive(true).mode(0o755).create(dir).map_err(os("make the state directory", dir, DISK))?;
        let path = dir.join("lock");
        let file = OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .mode(0o600)
            .open(&path)
            .map_err(os("open the lock", &path, DISK))?;
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
                    let mut text = String::new();
                    // A lock that says nothing is held all the same.
                    back.read_to_string(&mut text).ok();
                    return Err(StateError::Locked { path: dir.display().to_string(), pid: text.trim().parse().ok() });
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
        match DirBuilder::new().mode(0o700).create(&scratch) {
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
            result => result.map_err(os("make", &scratch, DISK))?,
        }
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

/// Binds both UNIX sockets, with the modes of the configuration. What a killed run left in their place is removed.
///
/// # Errors
/// When one cannot be bound; then none is left.
pub fn bind_unix(host: &Host) -> Result<(UnixListener, UnixListener), StateError> {
    let call = bind(host.socket.as_path(), host.socket_mode.bits(), host.socket_gid)?;
    match bind(host.admin_socket.as_path(), 0o600, None) {
        Ok(admin) => Ok((call, admin)),
        Err(error) => {
            remove_sockets(host);
            Err(error)
        }
    }
}

/// Removes both sockets.
pub fn remove_sockets(host: &Host) {
    for path in [&host.socket, &host.admin_socket] {
        // Not there is as good as removed; what cannot be removed is found by the next start.
        fs::remove_file(path.as_path()).ok();
    }
}

fn bind(path: &Path, mode: u32, gid: Option<u32>) -> Result<UnixListener, StateError> {
    const SOCKET: &str = "check the directory of host.socket and host.admin_socket";
    match fs::symlink_metadata(path) {
        Ok(found) if found.file_type().is_socket() => {
            fs::remove_file(path).map_err(os("remove the old socket", path, SOCKET))?;
        }
        Ok(_) => return Err(StateError::NotASocket { path: path.display().to_string() }),
        Err(_) => {}
    }
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
