//! What is at a socket's path before we bind it: a living listener, which keeps it, or what a killed run left.

use std::{
    fs::{self, Metadata},
    io::{self, ErrorKind},
    os::{
        fd::AsRawFd as _,
        unix::fs::{FileTypeExt as _, MetadataExt as _},
    },
    path::{Path, PathBuf},
    thread::sleep,
    time::Duration,
};

use nix::{
    errno::Errno,
    sys::socket::{AddressFamily, SockFlag, SockType, UnixAddr, connect, socket},
};

use super::StateError;

/// A supervisor that starts binds its socket a moment before it listens. What refuses for so long, asked so many times, is
/// dead.
const ASKED: u32 = 3;
const PAUSE: Duration = Duration::from_millis(50);

/// Removes a socket that nobody listens to any more.
///
/// # Errors
/// Somebody does; or it is no socket, or not root's, or cannot be removed. Then it is as it was.
pub(super) fn remove(setting: &'static str, path: &Path) -> Result<(), StateError> {
    let shown = || path.display().to_string();
    let os = |what, error| super::os(what, path, "check the directory of host.socket and host.admin_socket")(error);
    let found = match fs::symlink_metadata(path) {
        Ok(found) => found,
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(os("look at the old socket", error)),
    };
    if !found.file_type().is_socket() {
        return Err(StateError::NotASocket { path: shown() });
    }
    if found.uid() != 0 {
        return Err(StateError::NotOurs { path: shown(), what: format!("a socket of uid {}", found.uid()) });
    }
    for asked in 1..=ASKED {
        match is_alive(path) {
            Ok(true) => return Err(StateError::Listening { setting, path: shown() }),
            Ok(false) if asked < ASKED => sleep(PAUSE),
            Ok(false) => {}
            Err(error) => return Err(os("ask whether anybody listens at the old socket", error)),
        }
    }
    take_away(path, &found)
        .map_err(|error| os("remove the old socket", error))?
        .then_some(())
        .ok_or_else(|| StateError::Listening { setting, path: shown() })
}

/// Whether a connection to it would be taken, now or when there is room for it.
fn is_alive(path: &Path) -> io::Result<bool> {
    let flags = SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK;
    let socket = socket(AddressFamily::Unix, SockType::Stream, flags, None)?;
    match connect(socket.as_raw_fd(), &UnixAddr::new(path)?) {
        // EPROTOTYPE: it takes packets, and is not ours, but alive.
        Ok(()) | Err(Errno::EAGAIN | Errno::EPROTOTYPE) => Ok(true),
        Err(Errno::ECONNREFUSED | Errno::ENOENT) => Ok(false),
        Err(error) => Err(error.into()),
    }
}

/// Removes the very socket that was found dead. False: another has taken its place meanwhile, and has it back.
fn take_away(path: &Path, dead: &Metadata) -> io::Result<bool> {
    let mut name = path.as_os_str().to_owned();
    name.push(format!(".{}", std::process::id()));
    let aside = PathBuf::from(name);
    match fs::rename(path, &aside) {
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(true),
        renamed => renamed?,
    }
    let moved = fs::symlink_metadata(&aside)?;
    let is_it = (moved.dev(), moved.ino()) == (dead.dev(), dead.ino());
    if !is_it {
        // A link fails where a third has bound by now; that one keeps the path then.
        fs::hard_link(&aside, path)?;
    }
    fs::remove_file(&aside)?;
    Ok(is_it)
}

#[cfg(test)]
mod tests {
    use std::os::unix::net::UnixListener;

    use super::*;

    struct Place(PathBuf);

    impl Place {
        fn new(name: &str) -> Self {
            let dir = std::env::temp_dir().join(format!("sublet-socket-{name}-{}", std::process::id()));
            fs::create_dir(&dir).unwrap();
            Self(dir)
        }
    }

    impl Drop for Place {
        fn drop(&mut self) {
            fs::remove_dir_all(&self.0).ok();
        }
    }

    fn is_root() -> bool {
        nix::unistd::geteuid().is_root()
    }

    #[test]
    fn living_listener_keeps_its_path_and_a_dead_one_does_not() {
        if !is_root() {
            return;
        }
        let place = Place::new("living");
        let path = place.0.join("call.sock");
        let listener = UnixListener::bind(&path).unwrap();
        let error = remove("socket", &path).unwrap_err();
        assert!(matches!(error, StateError::Listening { setting: "socket", .. }), "{error}");
        assert!(error.to_string().contains("call.sock"), "{error}");
        drop(listener);
        remove("socket", &path).unwrap();
        assert_eq!(fs::read_dir(&place.0).unwrap().count(), 0);
    }

    #[test]
    fn what_took_the_place_of_a_dead_socket_is_left_there() {
        let place = Place::new("race");
        let path = place.0.join("call.sock");
        drop(UnixListener::bind(&path).unwrap());
        let dead = fs::symlink_metadata(&path).unwrap();
        // Its number must not be given to the next one.
        fs::rename(&path, place.0.join("dead")).unwrap();
        let _living = UnixListener::bind(&path).unwrap();
        assert!(!take_away(&path, &dead).unwrap());
        assert!(is_alive(&path).unwrap());
    }
}
