//! The worker's root, built by descriptors only: no path of the host is resolved through a symlink, and no mount lands
//! anywhere but on a plain directory.

use std::{
    ffi::CString,
    io,
    os::{
        fd::{AsFd, BorrowedFd, OwnedFd},
        unix::ffi::OsStrExt,
    },
    path::{Path, PathBuf},
};

use nix::{
    fcntl::{AT_FDCWD, OFlag, OpenHow, ResolveFlag, openat2},
    mount::{MntFlags, MsFlags, mount, umount2},
    sys::stat::fstat,
    unistd::{chdir, fchdir, pivot_root},
};
use sublet_proto::link::sandbox::{Identity, Root, ShownLimits};

use super::picture::{self, Picture};
use crate::{
    plan::{FUNCTION_UID, INIT_UID, TOKEN_MOUNT_BYTES, TOKEN_MOUNT_INODES},
    shortage::is_shortage,
    skeleton::{MOUNT_POINTS, SYS_MOUNT_POINT, Skeleton, TOKEN_MOUNT_POINT},
    sys,
};

const READ_ONLY: u64 = libc::MOUNT_ATTR_RDONLY;
const NO_SUID: u64 = libc::MOUNT_ATTR_NOSUID;
const NO_DEV: u64 = libc::MOUNT_ATTR_NODEV;
const NO_EXEC: u64 = libc::MOUNT_ATTR_NOEXEC;

/// A directory of the host as a detached, read-only mount, with inodes of its own where the kernel can do that: an overlay of
/// the directory and an empty one. Locks, watches and times are properties of an inode, so through a bind mount every worker
/// would see those of the others. What is in memory of the files' content is the host's, once, in both cases.
fn own_tree(skeleton: &Skeleton, source: BorrowedFd<'_>) -> io::Result<OwnedFd> {
    let attributes = READ_ONLY | NO_SUID | NO_DEV;
    if !skeleton.own_inodes {
        let tree = sys::clone_mount(source, c"")?;
        sys::set_mount_attributes(tree.as_fd(), attributes)?;
        return Ok(tree);
    }
    skeleton.overlay(source, attributes)
}

/// A control group of the worker.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OwnGroup {
    /// Its directory on the host.
    pub path: PathBuf,
    /// The name by which a v1 hierarchy is mounted, such as "memory" or "cpu,cpuacct"; none for the v2 hierarchy.
    pub hierarchy: Option<String>,
}

/// A root under construction: a mount of this namespace, not yet `/`.
#[derive(Debug)]
pub struct NewRoot(OwnedFd);

impl NewRoot {
    /// Mounts the layout's base, read-only; with a place for a `token`, or without.
    pub fn mount(skeleton: &Skeleton, layout: &Root, token: bool) -> io::Result<Self> {
        let prepared = if token { &skeleton.with_token } else { &skeleton.roots };
        let source = match layout {
            Root::Host => open_dir(&prepared.host)?,
            Root::Static => open_dir(&prepared.bare)?,
            Root::Dir { path, identity } => {
                let root = open_code(Path::new(path), *identity)?;
                for name in MOUNT_POINTS {
                    plain_directory_below(root.as_fd(), name)?;
                }
                root
            }
        };
        let tree = own_tree(skeleton, source.as_fd())?;
        let target = open_dir(&skeleton.mount_point)?;
        sys::attach_mount(tree.as_fd(), target.as_fd(), c"")?;
        Ok(Self(tree))
    }

    /// Mounts the host's /usr, read-only.
    pub fn bind_usr(&self, skeleton: &Skeleton) -> io::Result<()> {
        self.bind(skeleton, open_dir(Path::new("/usr"))?.as_fd(), "usr")
    }

    /// Mounts a function's directory on /function, read-only.
    pub fn bind_function(&self, skeleton: &Skeleton, dir: &Path, identity: Identity) -> io::Result<()> {
        self.bind(skeleton, open_code(dir, identity)?.as_fd(), "function")
    }

    fn bind(&self, skeleton: &Skeleton, source: BorrowedFd<'_>, name: &str) -> io::Result<()> {
        self.attach(own_tree(skeleton, source)?.as_fd(), name)
    }

    /// Mounts the device nodes that the nursery has made for this worker. Returns its /dev/null, opened.
    pub fn attach_dev(&self, dev: BorrowedFd<'_>) -> io::Result<OwnedFd> {
        self.attach(dev, "dev")?;
        let how = OpenHow::new()
            .flags(OFlag::O_RDWR | OFlag::O_CLOEXEC)
            .resolve(ResolveFlag::RESOLVE_IN_ROOT | ResolveFlag::RESOLVE_NO_SYMLINKS);
        openat2(&self.0, "dev/null", how).map_err(|error| named(error, "/dev/null of the new root"))
    }

    /// A proc of the sandbox's pid namespace with own processes only, and a /sys, both with files that show the worker's own
    /// limits and nothing of the machine; see [`Picture`]. On /sys/fs/cgroup are the worker's own groups. A root of layout
    /// "dir" that has no directory /sys gets none.
    ///
    /// From here on the caller's filesystem ids are init's, as which files can be made in the sandbox. It must not need to
    /// open a path of the host as root any more.
    pub fn mount_proc_and_sys(&self, limits: &ShownLimits, groups: &[OwnGroup]) -> io::Result<Picture> {
        // Opened as root, and cloned in this namespace: a clone shows nothing above the worker's own group.
        let trees = groups.iter().map(|group| read_only_tree(open_dir(&group.path)?.as_fd()));
        let trees = trees.collect::<io::Result<Vec<_>>>()?;
        sys::use_filesystem_ids(INIT_UID);
        let text = |value: u64| CString::new(value.to_string()).map_err(io::Error::from);
        let (size, nr_inodes, id) = (text(picture::MOUNT_BYTES)?, text(picture::MOUNT_INODES)?, text(INIT_UID.into())?);
        let options =
            [(c"size", size.as_c_str()), (c"nr_inodes", &nr_inodes), (c"mode", c"0755"), (c"uid", &id), (c"gid", &id)];
        let whole = sys::new_mount(c"tmpfs", &options, NO_SUID | NO_DEV | NO_EXEC)?;
        // Only a mount of this namespace can be cloned, so it is attached for as long as that takes.
        self.attach(whole.as_fd(), "proc")?;
        let hierarchies: Vec<String> = groups.iter().filter_map(|group| group.hierarchy.clone()).collect();
        let picture = Picture::make(whole.as_fd(), limits, &hierarchies)?;
        let parts = picture::PROC_FILES.into_iter().chain(hierarchies.is_empty().then_some(picture::CONTROLLERS_FILE));
        let part = |name| read_only_tree(path_below(whole.as_fd(), name)?.as_fd());
        let files = parts.map(|name| Ok((name, part(name)?))).collect::<io::Result<Vec<_>>>()?;
        let sys_tree = part(picture::SYS_DIR)?;
        fchdir(&whole)?;
        umount2(".", MntFlags::MNT_DETACH)?;
        if let Some(sys_dir) = self.optional_directory(SYS_MOUNT_POINT)? {
            sys::attach_mount(sys_tree.as_fd(), sys_dir.as_fd(), c"")?;
            for (group, tree) in groups.iter().zip(trees) {
                let place = match &group.hierarchy {
                    Some(hierarchy) => format!("{}/{hierarchy}", picture::GROUPS_DIR),
                    None => picture::GROUPS_DIR.to_owned(),
                };
                sys::attach_mount(tree.as_fd(), plain_directory_below(sys_tree.as_fd(), &place)?.as_fd(), c"")?;
            }
        }
        self.mount_proc(&files)?;
        Ok(picture)
    }

    /// The kernel shows files that tell of the machine unless proc is mounted with `subset=pid`, and then there is nothing
    /// that a file could be bound over. So it is mounted with all of them, the worker's are bound over some, and then the
    /// rest is taken away. What something is mounted on stays.
    fn mount_proc(&self, files: &[(&str, OwnedFd)]) -> io::Result<()> {
        let options = [(c"hidepid", c"invisible")];
        let proc = sys::new_mount(c"proc", &options, READ_ONLY | NO_SUID | NO_DEV | NO_EXEC)?;
        self.attach(proc.as_fd(), "proc")?;
        for (name, tree) in files {
            sys::attach_mount(tree.as_fd(), path_below(proc.as_fd(), name)?.as_fd(), c"")?;
        }
        let flags =
            MsFlags::MS_REMOUNT | MsFlags::MS_RDONLY | MsFlags::MS_NOSUID | MsFlags::MS_NODEV | MsFlags::MS_NOEXEC;
        fchdir(&proc)?;
        mount(None::<&str>, ".", None::<&str>, flags, Some("hidepid=invisible,subset=pid"))?;
        // A kernel that ignores the option must not pass for one that has obeyed.
        match path_below(proc.as_fd(), "version") {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
            Err(error) => Err(error),
            Ok(_) => Err(io::Error::other("/proc still shows more than processes after subset=pid")),
        }
    }

    /// A directory of the root, if it has one by this name.
    fn optional_directory(&self, name: &str) -> io::Result<Option<OwnedFd>> {
        match plain_directory_below(self.0.as_fd(), name) {
            Ok(directory) => Ok(Some(directory)),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// The only writable place, owned by the function, charged to the worker's memory.
    pub fn mount_tmp(&self, bytes: u64, inodes: u64) -> io::Result<()> {
        let text = |value: String| CString::new(value).map_err(io::Error::from);
        let (size, nr_inodes, id) =
            (text(bytes.to_string())?, text(inodes.to_string())?, text(FUNCTION_UID.to_string())?);
        let options =
            [(c"size", size.as_c_str()), (c"nr_inodes", &nr_inodes), (c"mode", c"0700"), (c"uid", &id), (c"gid", &id)];
        let tmp = sys::new_mount(c"tmpfs", &options, NO_SUID | NO_DEV | NO_EXEC)?;
        self.attach(tmp.as_fd(), "tmp")
    }

    /// The token's place, empty, and read-only for everybody who sees it. What is returned is the same place through a mount
    /// that is nowhere to be seen: whoever holds it can write, as far as the owner, init, may.
    pub fn mount_token(&self) -> io::Result<OwnedFd> {
        let text = |value: u64| CString::new(value.to_string()).map_err(io::Error::from);
        let (size, nr_inodes, id) = (text(TOKEN_MOUNT_BYTES)?, text(TOKEN_MOUNT_INODES)?, text(INIT_UID.into())?);
        let options =
            [(c"size", size.as_c_str()), (c"nr_inodes", &nr_inodes), (c"mode", c"0755"), (c"uid", &id), (c"gid", &id)];
        let seen = sys::new_mount(c"tmpfs", &options, NO_SUID | NO_DEV | NO_EXEC)?;
        self.attach(seen.as_fd(), TOKEN_MOUNT_POINT)?;
        // Once it is attached, and before it is read-only: only a mount of this namespace can be cloned, and a clone is as
        // its original was.
        let unseen = sys::clone_mount(seen.as_fd(), c"")?;
        sys::set_mount_attributes(seen.as_fd(), READ_ONLY | NO_SUID | NO_DEV | NO_EXEC)?;
        Ok(unseen)
    }

    fn attach(&self, mount: BorrowedFd<'_>, name: &str) -> io::Result<()> {
        let target = plain_directory_below(self.0.as_fd(), name)?;
        sys::attach_mount(mount, target.as_fd(), c"")
    }

    /// Makes it `/` and lets go of everything that was there before.
    pub fn enter(self) -> io::Result<()> {
        fchdir(&self.0)?;
        // Old and new root at one place: the old one ends up on top and is detached from there (pivot_root(2), NOTES).
        pivot_root(".", ".")?;
        umount2(".", MntFlags::MNT_DETACH)?;
        chdir("/")?;
        // A working directory outside the root would show as an unreachable path (CVE-2024-21626).
        let here = nix::unistd::getcwd()?;
        if here != Path::new("/") {
            return Err(io::Error::other(format!("working directory is {} after pivot_root", here.display())));
        }
        Ok(())
    }
}

/// A detached, read-only copy of the mount that `place` is in, from there on.
fn read_only_tree(place: BorrowedFd<'_>) -> io::Result<OwnedFd> {
    let tree = sys::clone_mount(place, c"")?;
    sys::set_mount_attributes(tree.as_fd(), READ_ONLY | NO_SUID | NO_DEV | NO_EXEC)?;
    Ok(tree)
}

/// Whatever is at a path that begins at `root`, and in which no component is a link.
fn path_below(root: BorrowedFd<'_>, path: &str) -> io::Result<OwnedFd> {
    let how = OpenHow::new()
        .flags(OFlag::O_PATH | OFlag::O_CLOEXEC)
        .resolve(ResolveFlag::RESOLVE_BENEATH | ResolveFlag::RESOLVE_NO_SYMLINKS);
    openat2(root, path, how).map_err(|error| named(error, path))
}

/// Opens a directory of the host; no component of the path may be a symlink.
fn open_dir(path: &Path) -> io::Result<OwnedFd> {
    let how = OpenHow::new()
        .flags(OFlag::O_PATH | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC)
        .resolve(ResolveFlag::RESOLVE_NO_SYMLINKS);
    openat2(AT_FDCWD, path, how).map_err(|error| named(error, &path.display().to_string()))
}

/// Opens a directory with code in it. It must be the one that its revision was made of: by now another may have its name, and
/// a worker of that one would be called by the wrong revision.
fn open_code(path: &Path, identity: Identity) -> io::Result<OwnedFd> {
    let dir = open_dir(path)?;
    let found = fstat(&dir)?;
    if (Identity { device: found.st_dev, inode: found.st_ino }) == identity {
        return Ok(dir);
    }
    Err(io::Error::other(format!(
        "{} is another directory than the one that was there when the configuration was last read; run `sublet reload`, and its \
         code serves as a new revision",
        path.display()
    )))
}

fn plain_directory_below(root: BorrowedFd<'_>, name: &str) -> io::Result<OwnedFd> {
    let how = OpenHow::new()
        .flags(OFlag::O_PATH | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC)
        .resolve(ResolveFlag::RESOLVE_IN_ROOT | ResolveFlag::RESOLVE_NO_SYMLINKS);
    openat2(root, Path::new(std::ffi::OsStr::from_bytes(name.as_bytes())), how)
        .map_err(|error| named(error, &format!("/{name} of the root must be a plain directory")))
}

fn named(error: nix::Error, what: &str) -> io::Error {
    let error = io::Error::from(error);
    if is_shortage(&error) {
        // No path is to blame, and the number must not be lost.
        return error;
    }
    io::Error::new(error.kind(), format!("{what}: {error}"))
}

#[cfg(test)]
mod tests {
    use std::{fs, os::unix::fs::MetadataExt as _};

    use super::*;

    #[test]
    fn directory_that_was_given_the_name_of_another_is_refused_with_the_remedy() {
        let place = std::env::temp_dir().join(format!("sublet-code-{}", std::process::id()));
        fs::create_dir(&place).unwrap();
        let (dir, new) = (place.join("greet"), place.join("new"));
        fs::create_dir(&dir).unwrap();
        fs::create_dir(&new).unwrap();
        let found = fs::metadata(&dir).unwrap();
        let identity = Identity { device: found.dev(), inode: found.ino() };
        open_code(&dir, identity).unwrap();
        fs::rename(&dir, place.join("old")).unwrap();
        fs::rename(&new, &dir).unwrap();
        let told = open_code(&dir, identity).map(drop);
        let old = open_code(&place.join("old"), identity).map(drop);
        fs::remove_dir_all(&place).unwrap();
        let error = told.unwrap_err();
        assert!(error.to_string().contains("run `sublet reload`"), "{error}");
        assert!(!is_shortage(&error), "the host is not to blame");
        old.unwrap();
    }
}
