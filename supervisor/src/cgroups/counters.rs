//! What a group has used so far, from files that are kept open.

use std::{
    fs::File,
    os::unix::fs::FileExt,
    path::Path,
    sync::atomic::{AtomicBool, Ordering},
    time::Duration,
};

use super::reading::Reading;
use super::{host::Controller, limits::Directories};

/// Longest that is read of a file: io.stat has a line for each disk.
const READ_MAX_BYTES: usize = 2048;

/// The counters of one group.
#[derive(Debug)]
pub struct Counters {
    /// v2: CPU time and throttling in one. v1: CPU time.
    cpu: Option<File>,
    /// v1 keeps throttling with the quota, in another hierarchy.
    throttled: Option<File>,
    /// v2 only, where the io controller is on.
    io: Option<File>,
}

impl Counters {
    /// Of the group in these directories.
    pub fn open(directories: &Directories) -> Self {
        let at =
            |controller| directories.iter().find(|(c, ..)| *c == controller).map(|(_, dir, unified)| (dir, *unified));
        let open = |dir: &Path, file: &str| File::open(dir.join(file)).ok();
        let cpu = at(Controller::CpuAcct);
        Self {
            cpu: cpu.and_then(|(dir, unified)| open(dir, if unified { "cpu.stat" } else { "cpuacct.usage" })),
            throttled: at(Controller::Cpu).filter(|(_, unified)| !unified).and_then(|(dir, _)| open(dir, "cpu.stat")),
            io: at(Controller::Io).filter(|(_, unified)| *unified).and_then(|(dir, _)| open(dir, "io.stat")),
        }
    }

    /// Whether the host accounts CPU time.
    pub const fn accounts_cpu(&self) -> bool {
        self.cpu.is_some()
    }

    /// CPU time.
    pub fn cpu(&self) -> Option<Duration> {
        let mut buffer = [0; READ_MAX_BYTES];
        cpu(read(self.cpu.as_ref()?, &mut buffer)?)
    }

    /// All of it. None when CPU time cannot be read; the rest is then of no use.
    pub fn reading(&self) -> Option<Reading> {
        let mut buffer = [0; READ_MAX_BYTES];
        let text = read(self.cpu.as_ref()?, &mut buffer)?;
        let mut reading =
            Reading { cpu: cpu(text)?, throttled: throttled(text).unwrap_or_default(), ..Reading::default() };
        if let Some(text) = self.throttled.as_ref().and_then(|file| read(file, &mut buffer)) {
            reading.throttled = throttled(text).unwrap_or_default();
        }
        if let Some(text) = self.io.as_ref().and_then(|file| read(file, &mut buffer)) {
            (reading.io_read, reading.io_written) = io(text);
        }
        Some(reading)
    }

    /// Time in which a quota held it back.
    pub fn throttled(&self) -> Option<Duration> {
        let mut buffer = [0; READ_MAX_BYTES];
        let file = self.throttled.as_ref().or(self.cpu.as_ref())?;
        throttled(read(file, &mut buffer)?)
    }
}

/// The counters of a level above workers.
#[derive(Debug)]
pub struct LevelCounters {
    counters: Counters,
    has_quota: AtomicBool,
}

impl LevelCounters {
    /// Of the group in these directories.
    pub fn open(directories: &Directories, has_quota: bool) -> Self {
        Self { counters: Counters::open(directories), has_quota: AtomicBool::new(has_quota) }
    }

    /// Whether it has a CPU quota from now on.
    pub fn set_quota(&self, has_quota: bool) {
        self.has_quota.store(has_quota, Ordering::Relaxed);
    }

    /// CPU time.
    pub fn cpu(&self) -> Option<Duration> {
        self.counters.cpu()
    }

    /// All of it.
    pub fn reading(&self) -> Option<Reading> {
        self.counters.reading()
    }

    /// Time in which its quota held something back; nothing is read where it has none.
    pub fn throttled(&self) -> Duration {
        let has_quota = self.has_quota.load(Ordering::Relaxed);
        has_quota.then(|| self.counters.throttled()).flatten().unwrap_or_default()
    }
}

fn read<'a>(file: &File, buffer: &'a mut [u8]) -> Option<&'a str> {
    let length = file.read_at(buffer, 0).ok()?;
    // Cut in the middle of a line of a disk with a very long name, at worst.
    std::str::from_utf8(&buffer[..length]).ok()
}

/// v2: "usage_usec 123\n..."; v1: nanoseconds.
pub(crate) fn cpu(text: &str) -> Option<Duration> {
    match text.strip_prefix("usage_usec ") {
        Some(rest) => rest.split_whitespace().next()?.parse().ok().map(Duration::from_micros),
        None => text.trim().parse().ok().map(Duration::from_nanos),
    }
}

/// v2: "throttled_usec 123"; v1: "throttled_time 123000".
pub(crate) fn throttled(text: &str) -> Option<Duration> {
    text.lines().find_map(|line| match line.split_once(' ')? {
        ("throttled_usec", micros) => micros.parse().ok().map(Duration::from_micros),
        ("throttled_time", nanos) => nanos.parse().ok().map(Duration::from_nanos),
        _ => None,
    })
}

/// "8:0 rbytes=1 wbytes=2 rios=...": summed over disks, and never past what can be counted.
pub(crate) fn io(text: &str) -> (u64, u64) {
    let of = |key: &str, word: &str| word.strip_prefix(key)?.parse::<u64>().ok();
    let sum = |key: &str| text.split_whitespace().filter_map(|word| of(key, word)).fold(0, u64::saturating_add);
    (sum("rbytes="), sum("wbytes="))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_kinds_of_files_are_read() {
        let v2 = "usage_usec 1500\nuser_usec 1\nsystem_usec 2\nnr_periods 3\nnr_throttled 1\nthrottled_usec 700\n";
        assert_eq!(cpu(v2), Some(Duration::from_micros(1500)));
        assert_eq!(throttled(v2), Some(Duration::from_micros(700)));
        assert_eq!(cpu("1500000\n"), Some(Duration::from_micros(1500)));
        assert_eq!(
            throttled("nr_periods 3\nnr_throttled 1\nthrottled_time 700000\n"),
            Some(Duration::from_micros(700))
        );
        assert_eq!(throttled("usage_usec 1\n"), None, "no controller");
        assert_eq!(io("8:0 rbytes=10 wbytes=1 rios=3\n8:16 rbytes=5 wbytes=0\n"), (15, 1));
        assert_eq!(io(""), (0, 0));
        assert_eq!(io("8:0 rbytes=18446744073709551615\n8:16 rbytes=1 wbytes=2\n"), (u64::MAX, 2));
    }
}
