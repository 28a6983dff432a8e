//! The files that a supervisor lives by: its state directory, the lock in it, its sockets. Whoever cleans up on the host may
//! remove them, and the supervisor, which has given up root, can make none of them again. The nursery can: it looks when it
//! is asked to, makes anew what is gone, and names what has something else in its place, which it leaves alone.
//!
//! What is there is told from what was there by device and inode.

use std::{
    fs::{self, File, Metadata, OpenOptions},
    io::{self, ErrorKind, Write as _},
    os::{
        fd::{AsRawFd as _, OwnedFd},
        unix::fs::{FileTypeExt as _, MetadataExt as _, OpenOptionsExt as _, PermissionsExt as _, chown},
    },
    path::{Path, PathBuf},
};

use nix::{
    errno::Errno,
    fcntl::{Flock, FlockArg},
    sys::{
        socket::{AddressFamily, Backlog, SockFlag, SockType, UnixAddr, bind, connect, listen, socket},
        stat::{Mode, umask},
    },
    unistd::getppid,
};
use sublet_proto::link::sandbox::{NurseryConfig, SocketPlace};

use crate::{
    chain::chain,
    directory::{DirectoryError, made_directory},
};

/// Connections the kernel keeps for the supervisor until it accepts them.
const BACKLOG: i32 = 1024;

/// A file, told from any other that is there at the same time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Identity {
    device: u64,
    inode: u64,
}

impl From<&Metadata> for Identity {
    fn from(found: &Metadata) -> Self {
        Self { device: found.dev(), inode: found.ino() }
    }
}

/// What became of a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Fate {
    /// It is there.
    Kept,
    /// Its path leads to nothing.
    Gone,
    /// Its path leads to something else.
    Replaced,
}

fn fate(ours: Option<Identity>, found: Option<Identity>) -> Fate {
    match found {
        None => Fate::Gone,
        Some(found) if Some(found) == ours => Fate::Kept,
        Some(_) => Fate::Replaced,
    }
}

/// What is at a path, without following a link there.
fn identity(path: &Path) -> io::Result<Option<Identity>> {
    match fs::symlink_metadata(path) {
        Ok(found) => Ok(Some(Identity::from(&found))),
        Err(error) if matches!(error.kind(), ErrorKind::NotFound | ErrorKind::NotADirectory) => Ok(None),
        Err(error) => Err(error),
    }
}

/// Why a file is not as the supervisor made it. What an operator should do stands behind the cause, so some of these have
/// the cause in their own words.
#[derive(Debug, thiserror::Error)]
enum PlaceError {
    /// The state directory.
    #[error(transparent)]
    StateDir(#[from] DirectoryError),
    /// What is at the path of a file cannot be seen.
    #[error("look at {what}")]
    Look { what: String, source: io::Error },
    /// Somebody has put another lock there.
    #[error(
        "{} is not the lock that this supervisor holds: another supervisor may use the directory; stop that one, or remove \
         the file, and it is made anew",
        path.display()
    )]
    ForeignLock { path: PathBuf },
    /// The lock was removed, and there cannot be another.
    #[error("{} is gone and cannot be made anew", path.display())]
    MakeLock { path: PathBuf, source: io::Error },
    /// Somebody has put something else where a socket was.
    #[error(
        "{setting} = {path:?} leads to something else than the socket of this supervisor, which nobody new can reach; remove \
         it, and the socket is made anew"
    )]
    ForeignSocket { setting: String, path: String },
    /// A socket that was handed in was removed. Only whoever handed it in can make it anew.
    #[error(
        "{setting} = {path:?} was handed in and is gone, so that nobody new can reach the socket; have whoever handed it in \
         make it anew (systemctl restart of its socket unit), and restart sublet"
    )]
    HandedInSocket { setting: String, path: String },
    /// A socket was removed, and there cannot be another.
    #[error("{setting} = {path:?} is gone and cannot be made anew: {error}; is its directory there?")]
    MakeSocket { setting: String, path: String, error: io::Error },
}

/// What a look has shown.
#[derive(Debug, Default)]
pub(super) struct Look {
    /// What could not be made anew, each with the remedy.
    pub(super) wrong: Vec<String>,
    /// What has been made anew.
    pub(super) healed: Vec<String>,
    /// New listeners, by the number of their place.
    pub(super) sockets: Vec<(usize, OwnedFd)>,
}

/// The files, as they were when the supervisor made them.
#[derive(Debug)]
pub(super) struct Places {
    state_dir: PathBuf,
    lock: Option<Identity>,
    sockets: Vec<(SocketPlace, Option<Identity>)>,
    /// A lock that was made anew, held.
    new_lock: Option<OwnedFd>,
}

impl Places {
    /// Notes what is there now. `lock` is the open lock of the state directory.
    pub(super) fn new(config: &NurseryConfig, lock: Option<&OwnedFd>) -> Self {
        let state_dir = Path::new(&config.scratch_dir).parent().unwrap_or(Path::new("/")).to_owned();
        let of_file = |fd: &OwnedFd| File::from(fd.try_clone()?).metadata();
        let lock = lock.and_then(|fd| of_file(fd).ok()).map(|found| Identity::from(&found));
        // One that cannot be looked at is none of ours, and is left alone.
        let socket = |place: &SocketPlace| (place.clone(), identity(Path::new(&place.path)).unwrap_or(None));
        Self { state_dir, lock, sockets: config.sockets.iter().map(socket).collect(), new_lock: None }
    }

    /// Looks at all of them, and makes anew what is gone.
    pub(super) fn look(&mut self) -> Look {
        let mut look = Look::default();
        if let Err(error) = self.state_dir(&mut look) {
            // Nothing that is below it can be told or helped.
            look.wrong.push(chain(&error));
            return look;
        }
        if let Err(error) = self.lock(&mut look) {
            look.wrong.push(chain(&error));
        }
        for number in 0..self.sockets.len() {
            if let Err(error) = self.socket(number, &mut look) {
                look.wrong.push(chain(&error));
            }
        }
        look
    }

    fn state_dir(&self, look: &mut Look) -> Result<(), PlaceError> {
        if made_directory(&self.state_dir, 0o755)? {
            look.healed
                .push(format!("the state directory {} was gone and has been made anew", self.state_dir.display()));
        }
        Ok(())
    }

    /// The lock keeps other supervisors off the directory. Without a name in it another would make one, and take the lock of it.
    fn lock(&mut self, look: &mut Look) -> Result<(), PlaceError> {
        let path = self.state_dir.join("lock");
        let shown = path.display();
        let found = identity(&path).map_err(|source| PlaceError::Look { what: shown.to_string(), source })?;
        match fate(self.lock, found) {
            Fate::Kept => Ok(()),
            Fate::Replaced => Err(PlaceError::ForeignLock { path }),
            Fate::Gone => {
                let (lock, identity) =
                    new_lock(&path).map_err(|source| PlaceError::MakeLock { path: path.clone(), source })?;
                (self.lock, self.new_lock) = (Some(identity), Some(lock));
                look.healed.push(format!("the lock {shown} was gone and has been made anew"));
                Ok(())
            }
        }
    }

    fn socket(&mut self, number: usize, look: &mut Look) -> Result<(), PlaceError> {
        let Some((place, ours)) = self.sockets.get_mut(number) else { return Ok(()) };
        let SocketPlace { setting, path, .. } = &*place;
        let found = identity(Path::new(path))
            .map_err(|source| PlaceError::Look { what: format!("{setting} = {path:?}"), source })?;
        match fate(*ours, found) {
            Fate::Kept => Ok(()),
            Fate::Replaced => Err(PlaceError::ForeignSocket { setting: setting.clone(), path: path.clone() }),
            // A new one would be ours alone, and the next supervisor would be handed the old one, which nobody can reach.
            Fate::Gone if place.is_handed_in => {
                Err(PlaceError::HandedInSocket { setting: setting.clone(), path: path.clone() })
            }
            Fate::Gone => {
                let (listener, identity) = new_socket(place).map_err(|error| PlaceError::MakeSocket {
                    setting: setting.clone(),
                    path: path.clone(),
                    error,
                })?;
                look.healed.push(format!("the socket {setting} = {path:?} was gone and has been made anew"));
                look.sockets.push((number, listener));
                *ours = Some(identity);
                Ok(())
            }
        }
    }

    /// Removes these sockets, as far as they are still ours: nobody listens to them.
    pub(super) fn lose(&mut self, sockets: &[usize]) {
        for (place, ours) in sockets.iter().filter_map(|number| self.sockets.get(*number)) {
            let path = Path::new(&place.path);
            if identity(path).is_ok_and(|found| fate(*ours, found) == Fate::Kept) {
                // One that stays is found to be there, and is of no use; the next loss tries again.
                fs::remove_file(path).ok();
            }
        }
    }

    /// Removes the sockets, as far as they are still ours. Returns those that would not go.
    pub(super) fn remove_sockets(&self) -> Vec<String> {
        let is_ours =
            |path: &Path, ours: Option<Identity>| identity(path).is_ok_and(|found| fate(ours, found) == Fate::Kept);
        let own = self.sockets.iter().filter(|(place, _)| !place.is_handed_in);
        let ours = own.filter(|(place, ours)| is_ours(Path::new(&place.path), *ours));
        ours.filter_map(|(SocketPlace { path, .. }, _)| Some(format!("{path}: {}", fs::remove_file(path).err()?)))
            .collect()
    }
}

/// Removes a socket of root's that nobody listens to: that of a supervisor that has just died, or one that an earlier run left.
pub(super) fn remove_dead_socket(path: &Path) -> io::Result<()> {
    let remove = || {
        let found = fs::symlink_metadata(path)?;
        if found.file_type().is_socket() && found.uid() == 0 && is_dead(path)? { fs::remove_file(path) } else { Ok(()) }
    };
    match remove() {
        Err(error) if matches!(error.kind(), ErrorKind::NotFound | ErrorKind::NotADirectory) => Ok(()),
        result => result,
    }
}

fn is_dead(path: &Path) -> io::Result<bool> {
    // One whose backlog is full must not keep us waiting.
    let asking = socket(AddressFamily::Unix, SockType::Stream, SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK, None)?;
    Ok(connect(asking.as_raw_fd(), &UnixAddr::new(path)?) == Err(Errno::ECONNREFUSED))
}

fn new_lock(path: &Path) -> io::Result<(OwnedFd, Identity)> {
    let file = OpenOptions::new().read(true).write(true).create_new(true).mode(0o600).open(path)?;
    let mut locked = Flock::lock(file, FlockArg::LockExclusiveNonblock).map_err(|(_, error)| error)?;
    locked.write_all(format!("{}\n", getppid()).as_bytes())?;
    let identity = Identity::from(&locked.metadata()?);
    // Held by its open file, whichever number that has: the copy outlives this one, which would unlock it.
    let held = locked.try_clone()?;
    std::mem::forget(locked);
    Ok((held.into(), identity))
}

/// Binds and dresses a socket like the one that was there. The supervisor takes it without blocking.
fn new_socket(place: &SocketPlace) -> io::Result<(OwnedFd, Identity)> {
    let path = Path::new(&place.path);
    let flags = SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK;
    let listener = socket(AddressFamily::Unix, SockType::Stream, flags, None)?;
    let address = UnixAddr::new(path)?;
    // Nobody may connect before the mode is what the operator wants.
    let old = umask(Mode::from_bits_truncate(0o177));
    let bound = bind(listener.as_raw_fd(), &address);
    umask(old);
    bound?;
    let dress = || -> io::Result<Identity> {
        listen(&listener, Backlog::new(BACKLOG)?)?;
        if let Some(gid) = place.gid {
            chown(path, None, Some(gid))?;
        }
        fs::set_permissions(path, fs::Permissions::from_mode(place.mode))?;
        let found = fs::symlink_metadata(path)?;
        if found.file_type().is_socket() { Ok(Identity::from(&found)) } else { Err(ErrorKind::AlreadyExists.into()) }
    };
    match dress() {
        Ok(identity) => Ok((listener, identity)),
        Err(error) => {
            fs::remove_file(path).ok();
            Err(error)
        }
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::net::{UnixListener, UnixStream};

    use super::*;

    struct Dir(PathBuf);

    impl Dir {
        fn new(name: &str) -> Self {
            let dir = std::env::temp_dir().join(format!("sublet-places-{name}-{}", std::process::id()));
            fs::create_dir(&dir).unwrap();
            Self(dir)
        }

        /// A state directory with a lock and a socket.
        fn places(&self) -> (Places, PathBuf, UnixListener) {
            let state = self.0.join("state");
            made_directory(&state, 0o755).unwrap();
            let (lock, _) = new_lock(&state.join("lock")).unwrap();
            let path = state.join("call.sock");
            let listener = UnixListener::bind(&path).unwrap();
            let socket = SocketPlace {
                setting: "host.socket".into(),
                path: path.display().to_string(),
                mode: 0o660,
                gid: None,
                is_handed_in: false,
            };
            let config = NurseryConfig {
                uid_base: 1,
                uid_count: 2,
                supervisor_uid: 1,
                allowed_dirs: vec![],
                scratch_dir: state.join("scratch").display().to_string(),
                cgroups: sublet_proto::link::sandbox::CgroupDirs::default(),
                missing_layers: vec![],
                forbid_store_bypass: false,
                sockets: vec![socket],
            };
            (Places::new(&config, Some(&lock)), path, listener)
        }
    }

    impl Drop for Dir {
        fn drop(&mut self) {
            fs::remove_dir_all(&self.0).ok();
        }
    }

    #[test]
    fn what_is_there_is_kept_what_is_gone_is_gone_and_anything_else_is_not_ours() {
        let of = |inode| Some(Identity { device: 1, inode });
        let cases = [
            (of(1), of(1), Fate::Kept),
            (of(1), of(2), Fate::Replaced),
            (of(1), None, Fate::Gone),
            (None, of(1), Fate::Replaced),
            (None, None, Fate::Gone),
        ];
        for (ours, found, expected) in cases {
            assert_eq!(fate(ours, found), expected, "{ours:?} {found:?}");
        }
    }

    #[test]
    fn what_is_removed_is_made_anew_and_told_once() {
        let dir = Dir::new("anew");
        let (mut places, path, _listener) = dir.places();
        let look = places.look();
        assert!(look.wrong.is_empty() && look.healed.is_empty() && look.sockets.is_empty(), "{look:?}");
        fs::remove_dir_all(dir.0.join("state")).unwrap();
        let look = places.look();
        assert_eq!((look.wrong.len(), look.healed.len()), (0, 3), "{look:?}");
        let [(0, listener)] = <[_; 1]>::try_from(look.sockets).unwrap() else { panic!("another socket") };
        let _caller = UnixStream::connect(&path).unwrap();
        UnixListener::from(listener).accept().unwrap();
        assert_eq!(fs::metadata(&path).unwrap().mode() & 0o7777, 0o660);
        let lock = File::open(dir.0.join("state/lock")).unwrap();
        assert!(Flock::lock(lock, FlockArg::LockSharedNonblock).is_err(), "nobody holds the new lock");
        let look = places.look();
        assert!(look.wrong.is_empty() && look.healed.is_empty() && look.sockets.is_empty(), "{look:?}");
        places.lose(&[0, 7]);
        assert_eq!(places.look().sockets.len(), 1, "one that did not arrive is made once more");
        assert!(places.remove_sockets().is_empty() && !path.exists());
    }

    #[test]
    fn what_took_the_place_of_a_file_is_named_and_left_there() {
        let dir = Dir::new("replaced");
        let (mut places, path, _listener) = dir.places();
        fs::rename(&path, dir.0.join("old.sock")).unwrap();
        let _other = UnixListener::bind(&path).unwrap();
        let lock = dir.0.join("state/lock");
        fs::rename(&lock, dir.0.join("old.lock")).unwrap();
        fs::write(&lock, "").unwrap();
        let look = places.look();
        assert!(look.healed.is_empty() && look.sockets.is_empty(), "{look:?}");
        let [of_lock, of_socket] = <[_; 2]>::try_from(look.wrong).unwrap();
        assert!(of_lock.contains("state/lock") && of_lock.contains("remove"), "{of_lock}");
        assert!(of_socket.contains("host.socket") && of_socket.contains("remove"), "{of_socket}");
        assert!(places.remove_sockets().is_empty() && path.exists(), "the socket of another was removed");
        // As it says.
        fs::remove_file(&lock).unwrap();
        fs::remove_file(&path).unwrap();
        assert_eq!(places.look().healed.len(), 2);
    }

    #[test]
    fn socket_that_was_handed_in_is_neither_removed_nor_made_anew() {
        let dir = Dir::new("handed");
        let (mut places, path, _listener) = dir.places();
        for (place, _) in &mut places.sockets {
            place.is_handed_in = true;
        }
        assert!(places.remove_sockets().is_empty() && path.exists(), "the socket of another was removed");
        fs::remove_file(&path).unwrap();
        let look = places.look();
        assert!(look.healed.is_empty() && look.sockets.is_empty() && !path.exists(), "{look:?}");
        let [told] = <[_; 1]>::try_from(look.wrong).unwrap();
        assert!(told.contains("host.socket") && told.contains("was handed in and is gone"), "{told}");
    }

    #[test]
    fn directory_that_others_could_have_made_is_refused_by_name() {
        let dir = Dir::new("foreign");
        let (mut places, ..) = dir.places();
        let state = dir.0.join("state");
        fs::rename(&state, dir.0.join("away")).unwrap();
        std::os::unix::fs::symlink(dir.0.join("away"), &state).unwrap();
        let look = places.look();
        assert!(look.healed.is_empty() && look.wrong.len() == 1 && look.wrong[0].contains("/state is not"), "{look:?}");
    }
}
