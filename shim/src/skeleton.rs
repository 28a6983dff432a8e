//! What every sandbox's root is made of, prepared once: a tmpfs that only the nursery's mount namespace sees, with a
//! skeleton per layout. Making a root then costs a handful of mounts and no file operation.

use std::{
    ffi::CString,
    fs, io,
    os::{
        fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd},
        unix::fs::{PermissionsExt, symlink},
    },
    path::{Path, PathBuf},
};

use nix::{
    mount::{MntFlags, MsFlags, mount, umount2},
    sched::{CloneFlags, unshare},
    sys::{
        stat::{Mode, SFlag, fstat, makedev, mknod},
        wait::{WaitStatus, waitpid},
    },
};

use crate::{
    directory::{DirectoryError, made_directory, open_directory},
    plan::{FUNCTION_UID, INIT_UID},
    sys::{self, Fork},
};

/// Why there is no skeleton.
#[derive(Debug, thiserror::Error)]
pub enum SkeletonError {
    /// The nursery got no mount namespace of its own.
    #[error("unshare the mount namespace")]
    Unshare(#[source] nix::Error),
    /// The nursery's mounts would still reach the host.
    #[error("make all mounts slaves")]
    MakeSlaves(#[source] nix::Error),
    /// The tmpfs of the skeleton was not mounted.
    #[error("mount a tmpfs on {}", scratch.display())]
    Mount {
        /// The directory it is mounted on.
        scratch: PathBuf,
        /// What mount says.
        source: nix::Error,
    },
    /// A file or directory in the tmpfs was not made.
    #[error("prepare the skeleton in {}", scratch.display())]
    Fill {
        /// The directory the tmpfs is mounted on.
        scratch: PathBuf,
        /// Why it was not made.
        source: io::Error,
    },
    /// The tmpfs could not be opened.
    #[error("open {}", scratch.display())]
    Open {
        /// The directory the tmpfs is mounted on.
        scratch: PathBuf,
        /// What openat2 says.
        source: nix::Error,
    },
    /// The directory for the tmpfs is not there.
    #[error(transparent)]
    Directory(#[from] DirectoryError),
}

/// Where the parts are, in the nursery's mount namespace.
#[derive(Clone, Debug)]
pub struct Skeleton {
    /// Roots of functions without a token.
    pub roots: Roots,
    /// Roots with a place for one: who is given none sees no such place.
    pub with_token: Roots,
    /// /dev of every layout.
    pub dev: PathBuf,
    /// An empty directory to mount a root on.
    pub mount_point: PathBuf,
    /// An empty directory: an overlay that cannot be written needs two lower ones.
    pub empty: PathBuf,
    /// Whether each worker has inodes of its own, by overlays. Otherwise directories are bound, and the filters take flock and
    /// inotify away.
    pub own_inodes: bool,
}

impl Skeleton {
    /// `directory` as a detached, read-only mount with inodes of its own: an overlay of it and an empty directory. Both are
    /// named by descriptor, so that the mount's options tell whoever reads /proc/self/mountinfo no path of the host.
    ///
    /// # Errors
    /// What mounting says.
    pub fn overlay(&self, directory: BorrowedFd<'_>, attributes: u64) -> io::Result<OwnedFd> {
        let empty = open_directory(&self.empty)?;
        let lower = format!("/proc/self/fd/{}:/proc/self/fd/{}", directory.as_raw_fd(), empty.as_raw_fd());
        sys::new_mount(c"overlay", &[(c"lowerdir", &CString::new(lower)?)], attributes)
    }

    /// /dev for one worker, as a detached mount with inodes of its own. Made by the nursery: devices open only on a file system
    /// that the host's own user namespace has mounted. Read-only does not concern devices.
    ///
    /// # Errors
    /// What mounting says.
    pub fn new_dev(&self) -> io::Result<OwnedFd> {
        let attributes = libc::MOUNT_ATTR_RDONLY | libc::MOUNT_ATTR_NOSUID | libc::MOUNT_ATTR_NOEXEC;
        let dev = open_directory(&self.dev)?;
        if self.own_inodes {
            return self.overlay(dev.as_fd(), attributes);
        }
        let dev = sys::clone_mount(dev.as_fd(), c"")?;
        sys::set_mount_attributes(dev.as_fd(), attributes)?;
        Ok(dev)
    }
}

/// Whether an overlay can be mounted as a sandbox does it: by a process that has rights in a user namespace of its own only.
/// Tries it in a child; nothing is mounted anywhere.
///
/// # Errors
/// Why not.
pub fn can_mount_overlay() -> io::Result<()> {
    // Any two directories that every host has; nothing is read from them.
    let lower = [(c"lowerdir", c"/usr:/etc")];
    let attempt = || -> io::Result<()> {
        sys::unshare(libc::CLONE_NEWUSER | libc::CLONE_NEWNS)?;
        sys::new_mount(c"overlay", &lower, libc::MOUNT_ATTR_RDONLY).map(drop)
    };
    match sys::fork()? {
        Fork::Child(_) => {
            // The errno, as far as a status can carry it.
            let errno = attempt().err().map_or(0, |error| error.raw_os_error().unwrap_or(libc::EIO));
            sys::exit_now(errno)
        }
        Fork::Parent(pid) => match waitpid(pid, None)? {
            WaitStatus::Exited(_, 0) => Ok(()),
            WaitStatus::Exited(_, errno) => Err(io::Error::from_raw_os_error(errno)),
            other => Err(io::Error::other(format!("the attempt ended with {other:?}"))),
        },
    }
}

/// Roots of the layouts that are prepared here.
#[derive(Clone, Debug)]
pub struct Roots {
    /// Of the `host` layout.
    pub host: PathBuf,
    /// Of the `static` layout.
    pub bare: PathBuf,
}

/// Directories over which something is mounted, in every layout.
pub const MOUNT_POINTS: [&str; 4] = ["dev", "proc", "tmp", "function"];

/// The one that a root of layout "dir" may lack: its workers then do not see their own groups and processors.
pub const SYS_MOUNT_POINT: &str = "sys";

/// The one more of functions with a token.
pub const TOKEN_MOUNT_POINT: &str = "run/sublet";

/// Gives the calling process a mount namespace of its own, whose mounts the host does not see.
///
/// # Errors
/// [`SkeletonError::Unshare`] or [`SkeletonError::MakeSlaves`], when the kernel refuses.
pub fn enter_namespace() -> Result<(), SkeletonError> {
    unshare(CloneFlags::CLONE_NEWNS).map_err(SkeletonError::Unshare)?;
    let none = None::<&str>;
    // Slave, not private: what the operator mounts or unmounts on the host still reaches us, nothing goes back.
    mount(none, "/", none, MsFlags::MS_REC | MsFlags::MS_SLAVE, none).map_err(SkeletonError::MakeSlaves)
}

/// Prepares the skeleton on a tmpfs at `scratch`, which nobody sees who is not in this mount namespace.
fn prepare(scratch: &Path, own_inodes: bool) -> Result<Skeleton, SkeletonError> {
    mount(
        Some("sublet"),
        scratch,
        Some("tmpfs"),
        MsFlags::MS_NOSUID | MsFlags::MS_NOATIME,
        Some("mode=0755,size=4m,nr_inodes=4k"),
    )
    .map_err(|source| SkeletonError::Mount { scratch: scratch.to_owned(), source })?;
    let skeleton = Skeleton {
        roots: Roots { host: scratch.join("host"), bare: scratch.join("static") },
        with_token: Roots { host: scratch.join("host-token"), bare: scratch.join("static-token") },
        dev: scratch.join("dev"),
        mount_point: scratch.join("root"),
        empty: scratch.join("empty"),
        own_inodes,
    };
    let fill = || -> io::Result<()> {
        dir(&skeleton.mount_point)?;
        dir(&skeleton.empty)?;
        for roots in [&skeleton.roots, &skeleton.with_token] {
            fill_root(&roots.bare)?;
            fill_root(&roots.host)?;
            fill_host(&roots.host)?;
        }
        for root in [&skeleton.with_token.bare, &skeleton.with_token.host] {
            dir(&root.join("run"))?;
            dir(&root.join(TOKEN_MOUNT_POINT))?;
        }
        fill_dev(&skeleton.dev)
    };
    fill().map_err(|source| SkeletonError::Fill { scratch: scratch.to_owned(), source })?;
    Ok(skeleton)
}

/// The skeleton, and the directory of the host that it is mounted on. Whoever removes that directory takes the mount off it in
/// every namespace (rename and umount do as well), and the skeleton must be prepared again.
#[derive(Debug)]
pub struct Mounted {
    scratch: PathBuf,
    own_inodes: bool,
    /// Root of the tmpfs.
    root: OwnedFd,
    skeleton: Skeleton,
}

impl Mounted {
    /// Prepares the skeleton on a tmpfs at `scratch`, an empty directory.
    ///
    /// # Errors
    /// [`SkeletonError`], when the tmpfs cannot be mounted, filled or opened.
    pub fn new(scratch: &Path, own_inodes: bool) -> Result<Self, SkeletonError> {
        let skeleton = prepare(scratch, own_inodes)?;
        let root = open_root(scratch)?;
        Ok(Self { scratch: scratch.to_owned(), own_inodes, root, skeleton })
    }

    /// The paths of the parts that roots are made of.
    pub const fn skeleton(&self) -> &Skeleton {
        &self.skeleton
    }

    /// Whether the path still leads to the tmpfs.
    fn is_there(&self) -> bool {
        let of = |fd: &OwnedFd| fstat(fd).ok().map(|found| (found.st_dev, found.st_ino));
        open_root(&self.scratch).is_ok_and(|found| of(&found).is_some() && of(&found) == of(&self.root))
    }

    /// Prepares the skeleton anew if it is gone. True when it was.
    ///
    /// # Errors
    /// [`SkeletonError`], when it cannot be prepared.
    pub fn heal(&mut self) -> Result<bool, SkeletonError> {
        if self.is_there() {
            return Ok(false);
        }
        // Its directory may have been moved, and the tmpfs with it. One that is detached already is no mount any more.
        umount2(format!("/proc/self/fd/{}", self.root.as_raw_fd()).as_str(), MntFlags::MNT_DETACH).ok();
        made_directory(&self.scratch, 0o700)?;
        *self = Self::new(&self.scratch.clone(), self.own_inodes)?;
        Ok(true)
    }
}

fn open_root(scratch: &Path) -> Result<OwnedFd, SkeletonError> {
    open_directory(scratch).map_err(|source| SkeletonError::Open { scratch: scratch.to_owned(), source })
}

fn dir(path: &Path) -> io::Result<()> {
    fs::create_dir(path)?;
    fs::set_permissions(path, fs::Permissions::from_mode(0o755))
}

fn file(path: &Path, content: &[u8]) -> io::Result<()> {
    fs::write(path, content)?;
    fs::set_permissions(path, fs::Permissions::from_mode(0o644))
}

fn fill_root(root: &Path) -> io::Result<()> {
    dir(root)?;
    for name in MOUNT_POINTS.into_iter().chain([SYS_MOUNT_POINT]) {
        dir(&root.join(name))?;
    }
    let etc = root.join("etc");
    dir(&etc)?;
    // What programs ask about themselves; nothing of the host's accounts.
    let passwd = format!(
        "root:x:0:0:root:/:/usr/sbin/nologin\ninit:x:{INIT_UID}:{INIT_UID}:init:/:/usr/sbin/nologin\n\
         worker:x:{FUNCTION_UID}:{FUNCTION_UID}:worker:/tmp:/bin/sh\n"
    );
    file(&etc.join("passwd"), passwd.as_bytes())?;
    let group = format!("root:x:0:\ninit:x:{INIT_UID}:\nworker:x:{FUNCTION_UID}:\n");
    file(&etc.join("group"), group.as_bytes())?;
    file(&etc.join("nsswitch.conf"), b"passwd: files\ngroup: files\nhosts: files\n")?;
    file(&etc.join("hosts"), b"127.0.0.1 localhost worker\n::1 localhost\n")
}

fn fill_host(root: &Path) -> io::Result<()> {
    dir(&root.join("usr"))?;
    for name in ["bin", "sbin", "lib", "lib64", "lib32"] {
        if Path::new("/usr").join(name).is_dir() {
            symlink(format!("usr/{name}"), root.join(name))?;
        }
    }
    let etc = root.join("etc");
    // Without the cache the loader searches, and libraries outside its default path are not found.
    if let Ok(cache) = fs::read("/etc/ld.so.cache") {
        file(&etc.join("ld.so.cache"), &cache)?;
    }
    // Debian's /usr/bin/awk and friends are links through here.
    if let Ok(entries) = fs::read_dir("/etc/alternatives") {
        dir(&etc.join("alternatives"))?;
        for entry in entries.flatten() {
            if let Ok(target) = fs::read_link(entry.path()) {
                symlink(target, etc.join("alternatives").join(entry.file_name()))?;
            }
        }
    }
    Ok(())
}

fn fill_dev(dev: &Path) -> io::Result<()> {
    dir(dev)?;
    for (name, minor) in [("null", 3), ("zero", 5), ("full", 7), ("random", 8), ("urandom", 9)] {
        let path = dev.join(name);
        mknod(&path, SFlag::S_IFCHR, Mode::from_bits_truncate(0o666), makedev(1, minor))?;
        fs::set_permissions(&path, fs::Permissions::from_mode(0o666))?;
    }
    for (target, name) in [
        ("/proc/self/fd", "fd"),
        ("/proc/self/fd/0", "stdin"),
        ("/proc/self/fd/1", "stdout"),
        ("/proc/self/fd/2", "stderr"),
        // POSIX shared memory lives in the worker's own tmpfs, under its limits.
        ("/tmp", "shm"),
    ] {
        symlink(target, dev.join(name))?;
    }
    Ok(())
}
