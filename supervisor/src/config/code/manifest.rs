//! What is in a directory, as one number that changes with it. Names and what the kernel knows of each file; no file is read.
//!
//! Everything that a worker could see is looked at, or the whole look fails: a directory that cannot be listed, one too deep,
//! one file too many. A directory that others may not enter is closed to workers too, and nothing in it counts.

use std::{
    ffi::CString,
    os::fd::AsFd,
    path::{Path, PathBuf},
    time::Instant,
};

use nix::{
    dir::Dir,
    errno::Errno,
    fcntl::{AT_FDCWD, AtFlags, OFlag, openat},
    sys::stat::{FileStat, Mode, SFlag, fstat, fstatat},
};
use sublet_proto::link::sandbox::Identity;

use crate::config::{hash::Fnv, types::Code};

const OTHERS_READ: u32 = 0o004;
const OTHERS_ENTER: u32 = 0o001;

/// How far a look goes.
#[derive(Clone, Copy, Debug)]
pub(super) struct Most {
    /// Files and directories in one tree.
    pub(super) entries: u64,
    /// Directories in each other.
    pub(super) depth: u32,
    /// When it is given up.
    pub(super) end: Instant,
}

/// Why nobody knows what is in a directory.
#[derive(Debug, thiserror::Error)]
pub(super) enum Unseen {
    #[error("{what} {}: {error}", at.display())]
    Os { what: &'static str, at: PathBuf, error: Errno },
    #[error("it has more than {0} files and directories")]
    TooMany(u64),
    #[error("{} is more than {most} directories deep", at.display())]
    TooDeep { at: PathBuf, most: u32 },
    #[error("the disk is too slow: after {seen} files and directories the time for all functions together is over")]
    TooSlow { seen: u64 },
    #[error("{} can be entered by workers and listed by nobody else (mode {mode:04o}), so that its code cannot be told", at.display())]
    Unlisted { at: PathBuf, mode: u32 },
}

impl Unseen {
    pub(super) fn remedy(&self) -> String {
        match self {
            Self::Os { error: Errno::ENOENT, .. } => {
                "it changes while it is looked at: wait until the copy is complete, then reload".to_owned()
            }
            Self::Os { error: Errno::EACCES | Errno::EPERM, .. } => "let everybody read it (chmod -R a+rX); if everybody \
                                                                     may, landlock does not know it: write its tree into \
                                                                     host.function_dirs and restart"
                .to_owned(),
            Self::Os { .. } => "repair what the host says, then reload".to_owned(),
            Self::TooMany(_) => "keep a function's directory to the function: no caches, no version control".to_owned(),
            Self::TooDeep { .. } => "make it flatter".to_owned(),
            Self::TooSlow { .. } => "keep functions on a faster disk, or have fewer files in them".to_owned(),
            Self::Unlisted { at, .. } => {
                format!("run: chmod o+r {0}, or close it to workers: chmod o-x {0}", at.display())
            }
        }
    }
}

/// Looks at all that is in `dir`.
///
/// # Errors
/// The first thing that keeps it from being complete.
pub(super) fn of(dir: &Path, most: &Most) -> Result<Code, Unseen> {
    let mut walk = Walk { most, at: dir.to_owned(), root: dir, hash: Fnv::new(), entries: 0, files: 0, bytes: 0 };
    let opened = walk.open(AT_FDCWD, dir)?;
    let found = fstat(&opened).map_err(|error| walk.failed("look at", error))?;
    walk.note(&found)?;
    // Whoever checks the disk says that it is closed.
    if is_open(&found) {
        walk.below(opened, 1)?;
    }
    let identity = Identity { device: found.st_dev, inode: found.st_ino };
    Ok(Code { identity, files: walk.files, bytes: walk.bytes, manifest: walk.hash.finish() })
}

fn is_open(directory: &FileStat) -> bool {
    directory.st_mode & (OTHERS_READ | OTHERS_ENTER) == OTHERS_READ | OTHERS_ENTER
}

struct Walk<'a> {
    most: &'a Most,
    /// What is looked at now.
    at: PathBuf,
    root: &'a Path,
    hash: Fnv,
    entries: u64,
    files: u64,
    bytes: u64,
}

impl Walk<'_> {
    fn failed(&self, what: &'static str, error: Errno) -> Unseen {
        Unseen::Os { what, at: self.at.clone(), error }
    }

    fn open(&self, above: impl AsFd, name: &(impl nix::NixPath + ?Sized)) -> Result<Dir, Unseen> {
        let flags = OFlag::O_RDONLY | OFlag::O_DIRECTORY | OFlag::O_NOFOLLOW | OFlag::O_NONBLOCK | OFlag::O_CLOEXEC;
        let opened = openat(above, name, flags, Mode::empty()).and_then(Dir::from_fd);
        opened.map_err(|error| self.failed("list", error))
    }

    /// Takes one file or directory into the hash, by its path in the tree.
    fn note(&mut self, found: &FileStat) -> Result<(), Unseen> {
        self.entries += 1;
        if self.entries > self.most.entries {
            return Err(Unseen::TooMany(self.most.entries));
        }
        // The clock is read each time: one directory of a slow disk may take long.
        if Instant::now() > self.most.end {
            return Err(Unseen::TooSlow { seen: self.entries });
        }
        let path = self.at.strip_prefix(self.root).unwrap_or(&self.at).as_os_str().as_encoded_bytes();
        self.hash.write(&(path.len() as u64).to_le_bytes());
        self.hash.write(path);
        let kind_and_owner = [found.st_mode, found.st_uid, found.st_gid].map(u64::from);
        // Not when it was last read: a look makes no new code.
        let place = [found.st_dev, found.st_ino];
        let content = [found.st_size, found.st_mtime, found.st_mtime_nsec, found.st_ctime, found.st_ctime_nsec];
        for number in kind_and_owner.into_iter().chain(place).chain(content.map(i64::cast_unsigned)) {
            self.hash.write(&number.to_le_bytes());
        }
        Ok(())
    }

    /// Looks at what is in a directory, in the order of names.
    fn below(&mut self, mut dir: Dir, depth: u32) -> Result<(), Unseen> {
        if depth > self.most.depth {
            return Err(Unseen::TooDeep { at: self.at.clone(), most: self.most.depth });
        }
        let mut names: Vec<CString> = Vec::new();
        for entry in dir.iter() {
            let entry = entry.map_err(|error| self.failed("list", error))?;
            let name = entry.file_name();
            if name != c"." && name != c".." {
                names.push(name.to_owned());
            }
            if self.entries + names.len() as u64 > self.most.entries {
                return Err(Unseen::TooMany(self.most.entries));
            }
        }
        names.sort_unstable();
        for name in names {
            self.at.push(std::os::unix::ffi::OsStrExt::from_bytes(name.to_bytes()) as &std::ffi::OsStr);
            let found = fstatat(&dir, name.as_c_str(), AtFlags::AT_SYMLINK_NOFOLLOW)
                .map_err(|error| self.failed("look at", error))?;
            self.note(&found)?;
            let kind = SFlag::from_bits_truncate(found.st_mode & SFlag::S_IFMT.bits());
            if kind == SFlag::S_IFDIR {
                if is_open(&found) {
                    let inner = self.open(&dir, name.as_c_str())?;
                    self.below(inner, depth + 1)?;
                } else if found.st_mode & OTHERS_ENTER != 0 {
                    return Err(Unseen::Unlisted { at: self.at.clone(), mode: found.st_mode & 0o7777 });
                }
            } else {
                self.files += 1;
                if kind == SFlag::S_IFREG {
                    // Sparse files may claim more together than there can be.
                    self.bytes = self.bytes.saturating_add(u64::try_from(found.st_size).unwrap_or(0));
                }
            }
            self.at.pop();
        }
        Ok(())
    }
}
