//! Whether somebody else decides what a path leads to.
//!
//! The supervisor begins as root, and what it opens, makes and removes then is named by paths. Whoever can change a
//! directory on the way to one chooses what root writes to. So every part of the way, from `/` on, must belong to root (or
//! to an owner that the caller trusts) and must not be writable by anybody else. In a sticky directory such as /tmp others
//! can make new names but not change those of ours: it may be on the way, and what comes after it must be ours.
//!
//! A symbolic link in a trusted directory was put there by a trusted owner; it is followed, and where it leads is looked at
//! in the same way. Once a way is trusted nobody else can change it, so that it may be walked again.

use std::{
    collections::VecDeque,
    ffi::OsString,
    fs::{self, DirBuilder, Metadata},
    io,
    os::unix::fs::{DirBuilderExt as _, MetadataExt as _},
    path::{Component, Path, PathBuf},
};

/// Write access for the group, and for others.
const GROUP_WRITES: u32 = 0o020;
const OTHERS_WRITE: u32 = 0o002;
const STICKY: u32 = 0o1000;
/// As many links as the kernel follows.
const LINKS_MAX: u32 = 40;
/// Directories made on one way; a path has at most 4096 bytes.
const MISSING_MAX: u32 = 2048;

/// Why a path is not used.
#[derive(Debug, thiserror::Error)]
pub enum Untrusted {
    /// Somebody else owns a part of the way.
    #[error(
        "{at} belongs to uid {owner}, who could put something else in its place; give it to root with `chown root: {at}`, or \
         name a path that only root can change"
    )]
    Owner {
        /// The part.
        at: String,
        /// Whose it is.
        owner: u32,
    },
    /// Others may change a part of the way.
    #[error(
        "{at} may be changed by {whom} (mode {mode:04o}); run `chmod {remedy} {at}`, or name a path that only root can change"
    )]
    Writable {
        /// The part.
        at: String,
        /// Its permissions.
        mode: u32,
        /// Who may write.
        whom: &'static str,
        /// The argument of chmod that ends it.
        remedy: &'static str,
    },
    /// It leads nowhere.
    #[error("{at} leads through more than {LINKS_MAX} symbolic links")]
    Links {
        /// The path.
        at: String,
    },
    /// A part of the way is something else than a directory.
    #[error("{at} is not a directory")]
    NotADirectory {
        /// The part.
        at: String,
    },
    /// It cannot be looked at, or a directory cannot be made.
    #[error("{what} {at}: {error}")]
    Os {
        /// What was tried.
        what: &'static str,
        /// On what.
        at: String,
        /// Why it failed.
        error: io::Error,
    },
}

/// Whom a way may belong to, besides root.
#[derive(Clone, Copy, Debug)]
pub struct Trusted<'a> {
    owners: &'a [u32],
    groups: bool,
}

impl<'a> Trusted<'a> {
    /// Root and these.
    pub const fn root_and(owners: &'a [u32]) -> Self {
        Self { owners, groups: false }
    }

    /// The same, with groups that may write to directories on the way: where what is opened is checked once more, and a
    /// group such as that of the system's logger cannot gain from it.
    pub const fn with_groups(self) -> Self {
        Self { groups: true, ..self }
    }

    fn owner(self, at: &Path, found: &Metadata) -> Result<(), Untrusted> {
        let owner = found.uid();
        if owner == 0 || self.owners.contains(&owner) {
            return Ok(());
        }
        Err(Untrusted::Owner { at: shown(at), owner })
    }

    fn mode(self, at: &Path, found: &Metadata) -> Result<(), Untrusted> {
        let mode = found.mode();
        // Root's own group has nobody in it that is not as good as root.
        let by_group = mode & GROUP_WRITES != 0 && found.gid() != 0 && !self.groups;
        let by_others = mode & OTHERS_WRITE != 0;
        let (whom, remedy) = match (by_group, by_others) {
            (false, false) => return Ok(()),
            (true, false) => ("its group", "g-w"),
            (_, true) => ("everybody", "go-w"),
        };
        Err(Untrusted::Writable { at: shown(at), mode: mode & 0o7777, whom, remedy })
    }

    /// A directory that files are kept in: nobody else makes a name there. Returns the first part of the way that is not
    /// there yet, if there is one; all before it is trusted, and so it can be made.
    ///
    /// # Errors
    /// The first part that is not trusted.
    pub fn directory(self, path: &Path) -> Result<Option<PathBuf>, Untrusted> {
        match self.walk(path)? {
            Way::Missing(missing) => Ok(Some(missing)),
            Way::Found(at, found) if !found.is_dir() => Err(Untrusted::NotADirectory { at: shown(&at) }),
            Way::Found(at, found) => self.mode(&at, &found).map(|()| None),
        }
    }

    /// Makes that directory, and every one above it that is not there, each with this mode.
    ///
    /// # Errors
    /// A part is not trusted or cannot be made.
    pub fn make_directory(self, path: &Path, mode: u32) -> Result<(), Untrusted> {
        for _ in 0..MISSING_MAX {
            let Some(missing) = self.directory(path)? else { return Ok(()) };
            match DirBuilder::new().mode(mode).create(&missing) {
                // Made by another meanwhile: it is looked at like any that was there before.
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
                made => made.map_err(|error| Untrusted::Os { what: "make", at: shown(&missing), error })?,
            }
        }
        Err(Untrusted::Os { what: "make", at: shown(path), error: io::Error::other("it is removed again and again") })
    }

    /// A directory in which one name is made that was not there: it may be sticky.
    ///
    /// # Errors
    /// A part is not trusted, or it is not there.
    pub fn parent(self, path: &Path) -> Result<(), Untrusted> {
        match self.walk(path)? {
            Way::Missing(at) => {
                Err(Untrusted::Os { what: "find", at: shown(&at), error: io::ErrorKind::NotFound.into() })
            }
            Way::Found(at, found) if !found.is_dir() => Err(Untrusted::NotADirectory { at: shown(&at) }),
            Way::Found(_, found) if found.mode() & STICKY != 0 => Ok(()),
            Way::Found(at, found) => self.mode(&at, &found),
        }
    }

    /// A file that is there, or none: nobody else writes to it or puts another in its place.
    ///
    /// # Errors
    /// A part is not trusted, the file included.
    pub fn file(self, path: &Path) -> Result<(), Untrusted> {
        match self.walk(path)? {
            Way::Missing(_) => Ok(()),
            Way::Found(at, found) => self.mode(&at, &found),
        }
    }

    /// Goes to the end, through links, as far as there is anything.
    fn walk(self, path: &Path) -> Result<Way, Untrusted> {
        let absolute = std::path::absolute(path);
        let absolute = absolute.map_err(|error| Untrusted::Os { what: "find", at: shown(path), error })?;
        let mut to_go: VecDeque<OsString> = parts(&absolute).collect();
        let mut at = PathBuf::from("/");
        let mut found = look(&at)?.ok_or_else(|| nowhere(path))?;
        self.owner(&at, &found)?;
        let mut links = 0;
        while let Some(part) = to_go.pop_front() {
            // What follows is a name in this directory.
            if found.mode() & STICKY == 0 {
                self.mode(&at, &found)?;
            }
            if part == ".." {
                at.pop();
                found = look(&at)?.ok_or_else(|| nowhere(path))?;
                continue;
            }
            let next = at.join(&part);
            let Some(next_found) = look(&next)? else {
                // Nothing below it is there either, and `..` behind what is not there means nothing.
                return Ok(Way::Missing(next));
            };
            self.owner(&next, &next_found)?;
            if next_found.is_symlink() {
                links += 1;
                if links > LINKS_MAX {
                    return Err(Untrusted::Links { at: shown(path) });
                }
                let read = fs::read_link(&next);
                let target = read.map_err(|error| Untrusted::Os { what: "read the link", at: shown(&next), error })?;
                if target.is_absolute() {
                    at = PathBuf::from("/");
                    found = look(&at)?.ok_or_else(|| nowhere(path))?;
                }
                for part in parts(&target).collect::<Vec<_>>().into_iter().rev() {
                    to_go.push_front(part);
                }
                continue;
            }
            if !to_go.is_empty() && !next_found.is_dir() {
                return Err(Untrusted::NotADirectory { at: shown(&next) });
            }
            (at, found) = (next, next_found);
        }
        Ok(Way::Found(at, found))
    }
}

/// Where a way ends.
enum Way {
    /// At what is there.
    Found(PathBuf, Metadata),
    /// At the first part that is not.
    Missing(PathBuf),
}

fn parts(path: &Path) -> impl Iterator<Item = OsString> + '_ {
    path.components().filter_map(|component| match component {
        Component::Normal(part) => Some(part.to_owned()),
        Component::ParentDir => Some("..".into()),
        Component::RootDir | Component::CurDir | Component::Prefix(_) => None,
    })
}

fn look(at: &Path) -> Result<Option<Metadata>, Untrusted> {
    match fs::symlink_metadata(at) {
        Ok(found) => Ok(Some(found)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(Untrusted::Os { what: "look at", at: shown(at), error }),
    }
}

fn nowhere(path: &Path) -> Untrusted {
    Untrusted::Os { what: "find", at: shown(path), error: io::ErrorKind::NotFound.into() }
}

fn shown(path: &Path) -> String {
    path.display().to_string()
}

#[cfg(test)]
mod tests {
    use std::{
        fs::Permissions,
        os::unix::fs::{PermissionsExt as _, chown, symlink},
    };

    use super::*;

    /// A directory of ours in the sticky /tmp.
    struct Place(PathBuf);

    impl Place {
        fn new(name: &str) -> Self {
            let dir = std::env::temp_dir().join(format!("sublet-trust-{name}-{}", std::process::id()));
            fs::create_dir(&dir).unwrap();
            Self(dir)
        }

        fn dir(&self, name: &str, mode: u32) -> PathBuf {
            let dir = self.0.join(name);
            fs::create_dir(&dir).unwrap();
            fs::set_permissions(&dir, Permissions::from_mode(mode)).unwrap();
            dir
        }
    }

    impl Drop for Place {
        fn drop(&mut self) {
            fs::remove_dir_all(&self.0).ok();
        }
    }

    fn us() -> [u32; 1] {
        [nix::unistd::geteuid().as_raw()]
    }

    fn is_root() -> bool {
        us() == [0]
    }

    #[test]
    fn way_through_a_sticky_directory_is_trusted_and_that_directory_itself_holds_no_files() {
        let (place, us) = (Place::new("sticky"), us());
        let trusted = Trusted::root_and(&us);
        assert!(trusted.directory(&place.0).unwrap().is_none());
        let open = place.dir("open", 0o1777);
        fs::create_dir(open.join("ours")).unwrap();
        trusted.directory(&open.join("ours")).unwrap();
        trusted.parent(&open).unwrap();
        let error = trusted.directory(&open).unwrap_err().to_string();
        assert!(error.contains("everybody") && error.contains("1777"), "{error}");
    }

    #[test]
    fn directory_that_others_can_write_is_refused_by_name_wherever_it_is_on_the_way() {
        let (place, us) = (Place::new("open"), us());
        let trusted = Trusted::root_and(&us);
        let open = place.dir("open", 0o777);
        fs::create_dir_all(open.join("a/b")).unwrap();
        for result in
            [trusted.directory(&open.join("a/b")).map(drop), trusted.parent(&open), trusted.file(&open.join("x"))]
        {
            let error = result.unwrap_err().to_string();
            assert!(error.contains(&format!("chmod go-w {}", open.display())), "{error}");
        }
    }

    #[test]
    fn foreign_owner_is_refused_by_name_and_may_be_trusted() {
        if !is_root() {
            return;
        }
        let place = Place::new("foreign");
        let dir = place.dir("theirs", 0o755);
        fs::create_dir(dir.join("below")).unwrap();
        chown(&dir, Some(1234), Some(1234)).unwrap();
        let error = Trusted::root_and(&[]).directory(&dir.join("below")).unwrap_err().to_string();
        assert!(error.contains("uid 1234") && error.contains("theirs"), "{error}");
        Trusted::root_and(&[1234]).directory(&dir.join("below")).unwrap();
    }

    #[test]
    fn group_may_write_only_where_that_is_said() {
        if !is_root() {
            return;
        }
        let place = Place::new("group");
        let dir = place.dir("shared", 0o775);
        chown(&dir, None, Some(1234)).unwrap();
        let error = Trusted::root_and(&[]).directory(&dir).unwrap_err().to_string();
        assert!(error.contains("its group"), "{error}");
        Trusted::root_and(&[]).with_groups().directory(&dir).unwrap();
        chown(&dir, None, Some(0)).unwrap();
        Trusted::root_and(&[]).directory(&dir).unwrap();
    }

    #[test]
    fn link_is_followed_and_where_it_leads_is_looked_at() {
        let (place, us) = (Place::new("link"), us());
        let trusted = Trusted::root_and(&us);
        let (closed, open) = (place.dir("closed", 0o755), place.dir("open", 0o777));
        for (name, target) in
            [("good", closed.clone()), ("up", PathBuf::from("closed/../closed")), ("bad", open.clone())]
        {
            symlink(target, place.0.join(name)).unwrap();
        }
        trusted.directory(&place.0.join("good")).unwrap();
        trusted.directory(&place.0.join("up")).unwrap();
        assert!(trusted.directory(&place.0.join("bad")).is_err());
        symlink(place.0.join("round"), place.0.join("round")).unwrap();
        assert!(matches!(trusted.file(&place.0.join("round")), Err(Untrusted::Links { .. })));
    }

    #[test]
    fn missing_directories_are_made_below_trusted_ones_alone() {
        let (place, us) = (Place::new("make"), us());
        let trusted = Trusted::root_and(&us);
        let deep = place.0.join("a/b/c");
        assert_eq!(trusted.directory(&deep).unwrap(), Some(place.0.join("a")));
        trusted.make_directory(&deep, 0o700).unwrap();
        assert_eq!(fs::metadata(&deep).unwrap().mode() & 0o777, 0o700);
        let open = place.dir("open", 0o777);
        assert!(trusted.make_directory(&open.join("a"), 0o700).is_err());
        assert!(!open.join("a").exists(), "nothing is made in a directory that is refused");
    }
}
