//! What a worker sees of the machine: a few files of /proc and /sys that are made from its own limits, and its own control
//! groups. Runtimes choose heap sizes and numbers of threads by these, so they must not tell of the host.
//!
//! Files that change with every read on a real machine (uptime, loadavg) are absent, because a file cannot keep them true.
//! In meminfo and stat the fields that would change are those of a machine that has just started: all memory is free, and
//! no time has passed.

use std::{
    fmt::Write as _,
    fs::File,
    io,
    os::{
        fd::{BorrowedFd, OwnedFd},
        unix::fs::FileExt,
    },
};

use nix::{
    errno::Errno,
    fcntl::{OFlag, openat},
    sched::{CpuSet, sched_getaffinity},
    sys::stat::{Mode, mkdirat},
    unistd::{Pid, symlinkat},
};
use sublet_proto::link::sandbox::ShownLimits;

/// Bytes of the tmpfs: a page for each file, and some for cpuinfo of a large machine.
pub const MOUNT_BYTES: u64 = 256 * 1024;
/// Files, directories and links of the tmpfs.
pub const MOUNT_INODES: u64 = 32;
/// Processors that are shown at the most. A line of cpuinfo is some 150 bytes.
const PROCESSORS_MAX: u64 = 1024;

/// Files that are put into /proc, by their names. Each is bound over the kernel's own.
pub const PROC_FILES: [&str; 3] = ["cpuinfo", "meminfo", "stat"];
/// The list of controllers. Only on hosts where all of them are in the v2 hierarchy: there it tells that, to JVMs.
pub const CONTROLLERS_FILE: &str = "cgroups";
/// What is mounted on /sys.
pub const SYS_DIR: &str = "sys";
/// Where groups are mounted, below [`SYS_DIR`].
pub const GROUPS_DIR: &str = "fs/cgroup";

/// As the kernel prints it where every controller is in the v2 hierarchy, whose number is 0. The number of groups is that of
/// a hierarchy with one.
const CONTROLLERS: &str = "#subsys_name\thierarchy\tnum_cgroups\tenabled\ncpuset\t0\t1\t1\ncpu\t0\t1\t1\n\
    cpuacct\t0\t1\t1\nmemory\t0\t1\t1\npids\t0\t1\t1\n";

/// How many processors a worker is shown: as many as its quota can keep busy, and no more than it can run on.
fn processors(limits: &ShownLimits, usable: u64) -> u64 {
    let by_quota = limits.cpu_millis.map_or(u64::MAX, |millis| millis.div_ceil(1000));
    by_quota.min(usable).clamp(1, PROCESSORS_MAX)
}

/// Processors that this process can run on.
fn usable_processors() -> u64 {
    let set = sched_getaffinity(Pid::from_raw(0)).unwrap_or_default();
    (0..CpuSet::count()).filter(|cpu| set.is_set(*cpu).unwrap_or(false)).count() as u64
}

/// As /sys/devices/system/cpu/online.
fn online(processors: u64) -> String {
    if processors == 1 { "0\n".into() } else { format!("0-{}\n", processors - 1) }
}

/// As /proc/cpuinfo, without what tells one machine from another.
fn cpuinfo(processors: u64) -> String {
    (0..processors).fold(String::new(), |mut text, number| {
        // Writing to a String cannot fail.
        write!(
            text,
            "processor\t: {number}\nmodel name\t: CPU of a worker\ncpu MHz\t\t: 0.000\nphysical id\t: 0\n\
             siblings\t: {processors}\ncore id\t\t: {number}\ncpu cores\t: {processors}\n\n"
        )
        .ok();
        text
    })
}

/// As /proc/meminfo. There is no swap for workers.
fn meminfo(limits: &ShownLimits) -> String {
    let kib = limits.memory_bytes / 1024;
    [("MemTotal", kib), ("MemFree", kib), ("MemAvailable", kib)]
        .into_iter()
        .chain(
            ["Buffers", "Cached", "SwapCached", "Active", "Inactive", "SwapTotal", "SwapFree", "Shmem"]
                .map(|name| (name, 0)),
        )
        .fold(String::new(), |mut text, (name, kib)| {
            writeln!(text, "{:16}{kib:8} kB", format!("{name}:")).ok();
            text
        })
}

/// As the processors' part of /proc/stat.
fn stat(processors: u64) -> String {
    let zeros = " 0".repeat(10);
    (0..processors).fold(format!("cpu {zeros}\n"), |mut text, number| {
        writeln!(text, "cpu{number}{zeros}").ok();
        text
    })
}

/// The files that limits show in, open for writing.
#[derive(Debug)]
pub struct Picture {
    online: File,
    cpuinfo: File,
    meminfo: File,
    stat: File,
    /// Processors that the worker can run on.
    usable: u64,
}

impl Picture {
    /// How many descriptors it has.
    pub const DESCRIPTORS: usize = 4;

    /// Fills the empty tmpfs `root` with all files, and with the places for `groups` of v1 hierarchies. The caller's
    /// filesystem ids are init's.
    ///
    /// # Errors
    /// What the kernel says, with the name of the file.
    pub fn make(root: BorrowedFd<'_>, limits: &ShownLimits, hierarchies: &[String]) -> io::Result<Self> {
        let directory = |path: &str| {
            mkdirat(root, path, Mode::from_bits_truncate(0o755)).map_err(|errno| failed("make", path, errno))
        };
        for path in [SYS_DIR, "sys/devices", "sys/devices/system", "sys/devices/system/cpu", "sys/fs", "sys/fs/cgroup"]
        {
            directory(path)?;
        }
        for hierarchy in hierarchies {
            directory(&format!("{SYS_DIR}/{GROUPS_DIR}/{hierarchy}"))?;
            // "cpu,cpuacct" is found by either name on every distribution that mounts them together.
            for part in hierarchy.split(',').filter(|part| *part != hierarchy) {
                let path = format!("{SYS_DIR}/{GROUPS_DIR}/{part}");
                symlinkat(hierarchy.as_str(), root, path.as_str()).map_err(|errno| failed("make", &path, errno))?;
            }
        }
        let picture = Self {
            online: file(root, "sys/devices/system/cpu/online")?,
            cpuinfo: file(root, "cpuinfo")?,
            meminfo: file(root, "meminfo")?,
            stat: file(root, "stat")?,
            usable: usable_processors(),
        };
        for name in ["possible", "present"] {
            let path = format!("sys/devices/system/cpu/{name}");
            symlinkat("online", root, path.as_str()).map_err(|errno| failed("make", &path, errno))?;
        }
        if hierarchies.is_empty() {
            replace(&file(root, CONTROLLERS_FILE)?, CONTROLLERS)?;
        }
        picture.show(limits)?;
        Ok(picture)
    }

    /// Makes the files say what `limits` are now. Who reads at that very moment may see parts of both.
    ///
    /// # Errors
    /// What writing says.
    pub fn show(&self, limits: &ShownLimits) -> io::Result<()> {
        let processors = processors(limits, self.usable);
        replace(&self.online, &online(processors))?;
        replace(&self.cpuinfo, &cpuinfo(processors))?;
        replace(&self.meminfo, &meminfo(limits))?;
        replace(&self.stat, &stat(processors))
    }

    /// Its descriptors, in the order that [`Picture::from_descriptors`] takes.
    pub fn into_descriptors(self) -> [OwnedFd; Self::DESCRIPTORS] {
        [self.online, self.cpuinfo, self.meminfo, self.stat].map(OwnedFd::from)
    }

    /// From the descriptors of [`Picture::into_descriptors`], before the caller gives up its rights.
    pub fn from_descriptors(descriptors: [OwnedFd; Self::DESCRIPTORS]) -> Self {
        let [online, cpuinfo, meminfo, stat] = descriptors.map(File::from);
        Self { online, cpuinfo, meminfo, stat, usable: usable_processors() }
    }
}

fn failed(what: &str, path: &str, errno: Errno) -> io::Error {
    io::Error::new(io::Error::from(errno).kind(), format!("{what} {path}: {errno}"))
}

fn file(root: BorrowedFd<'_>, path: &str) -> io::Result<File> {
    let flags = OFlag::O_WRONLY | OFlag::O_CREAT | OFlag::O_EXCL | OFlag::O_CLOEXEC;
    let made =
        openat(root, path, flags, Mode::from_bits_truncate(0o444)).map_err(|errno| failed("make", path, errno))?;
    Ok(File::from(made))
}

/// Writes all of a file anew, and then cuts what is left of an older, longer text.
fn replace(file: &File, text: &str) -> io::Result<()> {
    file.write_all_at(text.as_bytes(), 0)?;
    file.set_len(text.len() as u64)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn limits(memory_bytes: u64, cpu_millis: Option<u64>) -> ShownLimits {
        ShownLimits { memory_bytes, cpu_millis }
    }

    #[test]
    fn processors_are_what_the_quota_can_keep_busy_and_at_least_one() {
        let of = |cpu_millis, usable| processors(&limits(1 << 20, cpu_millis), usable);
        assert_eq!([of(Some(1), 8), of(Some(1000), 8), of(Some(1001), 8), of(Some(16_000), 8)], [1, 1, 2, 8]);
        assert_eq!([of(None, 8), of(None, 0), of(None, 1 << 20)], [8, 1, PROCESSORS_MAX]);
    }

    #[test]
    fn processor_files_name_as_many_as_there_are() {
        assert_eq!([online(1), online(4)], ["0\n", "0-3\n"]);
        assert_eq!(cpuinfo(3).matches("processor\t: ").count(), 3);
        assert_eq!(stat(2), "cpu  0 0 0 0 0 0 0 0 0 0\ncpu0 0 0 0 0 0 0 0 0 0 0\ncpu1 0 0 0 0 0 0 0 0 0 0\n");
    }

    #[test]
    fn meminfo_is_as_the_kernel_prints_it() {
        let text = meminfo(&limits(192 << 20, None));
        assert!(text.starts_with("MemTotal:         196608 kB\nMemFree:          196608 kB\n"), "{text}");
        assert!(text.lines().all(|line| line.len() == 27 && line.ends_with(" kB")), "{text}");
    }

    #[test]
    fn largest_cpuinfo_fits_into_its_file_system() {
        assert!((cpuinfo(PROCESSORS_MAX).len() as u64) < MOUNT_BYTES - 16 * 4096, "{}", cpuinfo(PROCESSORS_MAX).len());
    }

    #[test]
    fn shorter_text_leaves_nothing_of_a_longer_one() {
        let path = std::env::temp_dir().join(format!("sublet-picture-{}", std::process::id()));
        let file = File::create_new(&path).unwrap();
        replace(&file, "a longer text\n").unwrap();
        replace(&file, "short\n").unwrap();
        let read = std::fs::read_to_string(&path);
        std::fs::remove_file(&path).unwrap();
        assert_eq!(read.unwrap(), "short\n");
    }
}
