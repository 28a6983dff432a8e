//! Log files with rotation: `functions.log` is written, `functions.log.1` is the one before, and so on to the number that is
//! kept. Bounded by count times size, whatever functions write.

use std::{
    fs::{DirBuilder, File},
    io::{self, Write},
    os::{
        fd::OwnedFd,
        unix::fs::{DirBuilderExt, MetadataExt},
    },
    path::Path,
};

use nix::{
    errno::Errno,
    fcntl::{AtFlags, OFlag, open, openat, renameat},
    sys::stat::{Mode, fstat, fstatat},
    unistd::{Gid, Uid, UnlinkatFlags, fchown, geteuid, unlinkat},
};

use crate::{
    reserve::with_reserve,
    trust::{Trusted, Untrusted},
};

/// The one that is written.
const NAME: &str = "functions.log";

/// Why a directory of logs cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum DirError {
    /// Something of the operating system.
    #[error("{what} host.log_dir = \"{path}\": {error}; name a directory of its own on a disk that can be written")]
    Os {
        /// What was tried.
        what: &'static str,
        /// On what.
        path: String,
        /// Why it failed.
        error: io::Error,
    },
    /// Somebody else decides what the way to it leads to.
    #[error("host.log_dir = \"{path}\" is not used: {error}")]
    Untrusted {
        /// Where.
        path: String,
        /// Which part, and what to do.
        error: Untrusted,
    },
    /// It is somebody else's, and may hold anything.
    #[error(
        "host.log_dir = \"{path}\" belongs to uid {owner}, and logs are written by uid {uid}: name a directory that is not there \
         yet, or give it away with `chown {uid}:{uid} {path}`"
    )]
    Foreign {
        /// Where.
        path: String,
        /// Whose it is.
        owner: u32,
        /// Host.supervisor_uid.
        uid: u32,
    },
}

/// A directory of logs, held open: what its path leads to later does not matter.
#[derive(Debug)]
pub struct Dir(OwnedFd);

impl Dir {
    /// Opens it; makes it for `uid` when it is not there. Called with root's rights.
    ///
    /// # Errors
    /// It cannot be made, or is somebody else's.
    pub fn open(path: &Path, uid: u32) -> Result<Self, DirError> {
        let shown = || path.display().to_string();
        let os = |what| move |error: io::Error| DirError::Os { what, path: path.display().to_string(), error };
        // Where a group, such as the system logger's in /var/log, may replace it, what is opened is still looked at below.
        let us = [geteuid().as_raw()];
        let way = Trusted::root_and(&us).with_groups();
        way.parent(path.parent().unwrap_or(path)).map_err(|error| DirError::Untrusted { path: shown(), error })?;
        let made = match DirBuilder::new().mode(0o750).create(path) {
            Ok(()) => true,
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => false,
            Err(error) => return Err(os("make")(error)),
        };
        let flags = OFlag::O_DIRECTORY | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC;
        let dir = open(path, flags, Mode::empty()).map_err(|error| os("open")(error.into()))?;
        let dir = File::from(dir);
        let owner = dir.metadata().map_err(os("look at"))?.uid();
        // One of another owner has taken the place of the one that was made.
        if made && owner == us[0] {
            let (owner, group) = (Uid::from_raw(uid), Gid::from_raw(uid));
            fchown(&dir, Some(owner), Some(group)).map_err(|error| os("give away")(error.into()))?;
        }
        let owner = dir.metadata().map_err(os("look at"))?.uid();
        // Never chown what we have not made: the path could be /var/log.
        if owner != uid {
            return Err(DirError::Foreign { path: shown(), owner, uid });
        }
        Ok(Self(dir.into()))
    }

    /// A directory that was removed takes no new files, even if there is another by its name.
    fn explain(&self, error: io::Error) -> io::Error {
        let is_removed = fstat(&self.0).is_ok_and(|found| found.st_nlink == 0);
        if error.kind() == io::ErrorKind::NotFound && is_removed {
            return io::Error::other(
                "the directory of host.log_dir was removed; restart sublet, which makes it anew, and no supervisor can while \
                 it runs confined",
            );
        }
        error
    }

    fn append(&self) -> io::Result<(File, u64)> {
        let flags = OFlag::O_WRONLY | OFlag::O_APPEND | OFlag::O_CREAT | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC;
        let open = || Ok(openat(&self.0, NAME, flags, Mode::from_bits_truncate(0o640))?);
        let file = File::from(with_reserve(open)?);
        let size = file.metadata()?.len();
        Ok((file, size))
    }

    /// Whether the name still leads to this file. It does not when somebody has removed or moved it.
    fn leads_to(&self, file: &File) -> io::Result<bool> {
        let ours = file.metadata()?;
        match fstatat(&self.0, NAME, AtFlags::AT_SYMLINK_NOFOLLOW) {
            Ok(found) => Ok((found.st_dev, found.st_ino) == (ours.dev(), ours.ino())),
            Err(Errno::ENOENT) => Ok(false),
            Err(error) => Err(error.into()),
        }
    }

    /// Moves every file on by one; the oldest of `count` goes.
    fn shift(&self, count: u32) -> io::Result<()> {
        let name = |number: u32| if number == 0 { NAME.to_owned() } else { format!("{NAME}.{number}") };
        if count == 1 {
            return absent_is_fine(unlinkat(&self.0, NAME, UnlinkatFlags::NoRemoveDir));
        }
        for number in (0..count - 1).rev() {
            absent_is_fine(renameat(&self.0, name(number).as_str(), &self.0, name(number + 1).as_str()))?;
        }
        Ok(())
    }
}

fn absent_is_fine(done: nix::Result<()>) -> io::Result<()> {
    match done {
        Ok(()) | Err(Errno::ENOENT) => Ok(()),
        Err(error) => Err(error.into()),
    }
}

/// Files that are being written.
#[derive(Debug)]
pub struct Files {
    dir: Dir,
    file: File,
    size: u64,
    size_max: u64,
    count: u32,
}

impl Files {
    /// Goes on where an earlier run ended. At most `count` files of `size_max` bytes.
    ///
    /// # Errors
    /// When the file cannot be opened or made.
    pub fn open(dir: Dir, size_max: u64, count: u32) -> io::Result<Self> {
        let (file, size) = dir.append()?;
        Ok(Self { dir, file, size, size_max, count })
    }
}

impl Files {
    /// Writes whole lines, all or none to one file, and rotates before a file grows over its size.
    ///
    /// # Errors
    /// When the disk refuses; then the file is as it was, as far as the disk lets us.
    pub fn write(&mut self, lines: &[u8]) -> io::Result<()> {
        let length = lines.len() as u64;
        if !self.dir.leads_to(&self.file)? {
            // Nobody would find in it what is written from here on.
            (self.file, self.size) = self.dir.append().map_err(|error| self.dir.explain(error))?;
        }
        if self.size > 0 && self.size + length > self.size_max {
            self.dir.shift(self.count)?;
            (self.file, self.size) = self.dir.append()?;
        }
        match self.file.write_all(lines) {
            Ok(()) => {
                self.size += length;
                Ok(())
            }
            Err(error) => {
                // Half a line would spoil the next one.
                self.file.set_len(self.size).ok();
                Err(error)
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Place(std::path::PathBuf);

    impl Place {
        fn new(name: &str) -> Self {
            Self(std::env::temp_dir().join(format!("sublet-logs-{name}-{}", std::process::id())))
        }

        fn read(&self, name: &str) -> Option<String> {
            std::fs::read_to_string(self.0.join(name)).ok()
        }
    }

    impl Drop for Place {
        fn drop(&mut self) {
            std::fs::remove_dir_all(&self.0).ok();
        }
    }

    fn uid() -> u32 {
        nix::unistd::getuid().as_raw()
    }

    #[test]
    fn files_move_on_and_the_oldest_goes() {
        let place = Place::new("rotate");
        let open = || Files::open(Dir::open(&place.0, uid()).unwrap(), 10, 3).unwrap();
        let mut files = open();
        for line in ["aaaa\n", "bbbb\n", "cccc\n"] {
            files.write(line.as_bytes()).unwrap();
        }
        assert_eq!(place.read(NAME).as_deref(), Some("cccc\n"));
        assert_eq!(place.read("functions.log.1").as_deref(), Some("aaaa\nbbbb\n"));
        // A later run goes on where this one ended.
        drop(files);
        let mut files = open();
        for line in ["dddd\n", "eeee\n", "ffff\n", "gggg\n"] {
            files.write(line.as_bytes()).unwrap();
        }
        assert_eq!(place.read(NAME).as_deref(), Some("gggg\n"));
        assert_eq!(place.read("functions.log.1").as_deref(), Some("eeee\nffff\n"));
        assert_eq!(place.read("functions.log.2").as_deref(), Some("cccc\ndddd\n"));
        assert_eq!(place.read("functions.log.3"), None);
    }

    #[test]
    fn file_that_was_removed_or_moved_is_begun_anew_and_a_directory_that_was_removed_is_named() {
        let place = Place::new("removed");
        let mut files = Files::open(Dir::open(&place.0, uid()).unwrap(), 100, 3).unwrap();
        files.write(b"one\n").unwrap();
        std::fs::remove_file(place.0.join(NAME)).unwrap();
        files.write(b"two\n").unwrap();
        assert_eq!(place.read(NAME).as_deref(), Some("two\n"));
        std::fs::rename(place.0.join(NAME), place.0.join("kept")).unwrap();
        files.write(b"three\n").unwrap();
        assert_eq!(place.read(NAME).as_deref(), Some("three\n"));
        std::fs::write(place.0.join("other"), "of another\n").unwrap();
        std::fs::rename(place.0.join("other"), place.0.join(NAME)).unwrap();
        files.write(b"four\n").unwrap();
        assert_eq!(place.read(NAME).as_deref(), Some("of another\nfour\n"));
        std::fs::remove_dir_all(&place.0).unwrap();
        std::fs::create_dir(&place.0).unwrap();
        let error = files.write(b"five\n").unwrap_err().to_string();
        assert!(error.contains("host.log_dir") && error.contains("restart"), "{error}");
    }

    #[test]
    fn single_file_begins_anew() {
        let place = Place::new("single");
        let mut files = Files::open(Dir::open(&place.0, uid()).unwrap(), 4, 1).unwrap();
        files.write(b"one\n").unwrap();
        files.write(b"two\n").unwrap();
        assert_eq!(place.read(NAME).as_deref(), Some("two\n"));
        assert_eq!(std::fs::read_dir(&place.0).unwrap().count(), 1);
    }

    #[test]
    fn foreign_directory_is_refused_and_left_as_it_is() {
        let place = Place::new("foreign");
        std::fs::create_dir(&place.0).unwrap();
        let error = Dir::open(&place.0, uid() + 1).unwrap_err().to_string();
        assert!(error.contains("belongs to uid") && error.contains("chown"), "{error}");
        assert_eq!(std::fs::metadata(&place.0).unwrap().uid(), uid());
    }

    #[test]
    fn directory_below_one_that_everybody_may_change_is_refused() {
        use std::os::unix::fs::PermissionsExt as _;
        let place = Place::new("open");
        std::fs::create_dir(&place.0).unwrap();
        std::fs::set_permissions(&place.0, std::fs::Permissions::from_mode(0o777)).unwrap();
        let error = Dir::open(&place.0.join("logs"), uid()).unwrap_err().to_string();
        assert!(error.contains("host.log_dir") && error.contains("chmod go-w"), "{error}");
        assert!(!place.0.join("logs").exists());
    }

    #[test]
    fn link_in_place_of_a_file_or_directory_is_not_followed() {
        let place = Place::new("link");
        let target = Place::new("target");
        std::fs::create_dir(&target.0).unwrap();
        std::os::unix::fs::symlink(&target.0, &place.0).unwrap();
        assert!(Dir::open(&place.0, uid()).is_err());
        std::fs::remove_file(&place.0).unwrap();
        std::fs::create_dir(&place.0).unwrap();
        std::os::unix::fs::symlink(target.0.join("elsewhere"), place.0.join(NAME)).unwrap();
        assert!(Files::open(Dir::open(&place.0, uid()).unwrap(), 10, 1).is_err());
        assert!(!target.0.join("elsewhere").exists());
    }
}
