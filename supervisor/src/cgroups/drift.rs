//! What a group's files must hold, and whether they do: somebody else on the host may have written to them.

use std::{fs, path::Path};

use super::{
    CgroupError,
    host::Controller,
    limits::{self, Directories, Knob, Limits, TCP_MEMORY_FILE, tcp_memory_max_of},
};

/// A file that does not hold what it was told.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Drift {
    /// The file's name.
    pub file: &'static str,
    /// What it holds.
    pub found: String,
    /// What it was told, in the kernel's form.
    pub expected: String,
    /// Which limit; none: that the group dies as one and swaps nothing.
    knob: Option<Knob>,
}

/// What a file should hold.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Held {
    /// Bytes, which the kernel keeps in whole pages; none: no limit.
    Bytes(Option<u64>),
    /// Exactly this text, without the line feed at its end.
    Words(String),
    /// No quota, whatever the period.
    NoQuota,
}

/// The kernel counts memory in pages.
const PAGE_BYTES: u64 = 4096;
/// From here on v1 means that there is no limit.
const UNLIMITED_BYTES: u64 = 1 << 62;

impl Held {
    fn is(&self, found: &str) -> bool {
        let bytes = || if found == "max" { Some(u64::MAX) } else { found.parse().ok() };
        match self {
            Self::Bytes(None) => bytes().is_some_and(|found| found >= UNLIMITED_BYTES),
            Self::Bytes(Some(told)) => bytes() == Some(told / PAGE_BYTES * PAGE_BYTES),
            Self::Words(told) => found == told,
            Self::NoQuota => found.split(' ').next() == Some("max"),
        }
    }

    fn text(&self) -> String {
        match self {
            Self::Bytes(None) | Self::NoQuota => "max".to_owned(),
            Self::Bytes(Some(told)) => told.to_string(),
            Self::Words(told) => told.clone(),
        }
    }
}

/// The files that keep a limit, with what they hold then.
fn held(knob: Knob, unified: bool, limits: &Limits) -> Vec<(&'static str, Held)> {
    let words = |value: u64| Held::Words(value.to_string());
    let burst = words(limits.cpu.map_or(0, |cpu| cpu.burst_us));
    match (knob, unified) {
        (Knob::MemoryMax, true) => vec![("memory.max", Held::Bytes(limits.memory_max))],
        (Knob::MemoryMax, false) => vec![
            ("memory.limit_in_bytes", Held::Bytes(limits.memory_max)),
            ("memory.memsw.limit_in_bytes", Held::Bytes(limits.memory_max)),
            (TCP_MEMORY_FILE, Held::Bytes(limits.memory_max.map(tcp_memory_max_of))),
        ],
        (Knob::MemoryHigh, true) => vec![("memory.high", Held::Bytes(limits.memory_high))],
        (Knob::MemoryMin, true) => vec![("memory.min", Held::Bytes(Some(limits.memory_min.unwrap_or(0))))],
        (Knob::MemoryHigh | Knob::MemoryMin, false) => Vec::new(),
        (Knob::PidsMax, _) => {
            vec![("pids.max", limits.pids_max.map_or_else(|| Held::Words("max".to_owned()), words))]
        }
        (Knob::Cpu, true) => {
            let quota = limits.cpu.map(|cpu| Held::Words(format!("{} {}", cpu.quota_us, cpu.period_us)));
            vec![("cpu.max", quota.unwrap_or(Held::NoQuota)), ("cpu.max.burst", burst)]
        }
        (Knob::Cpu, false) => {
            let mut files = match limits.cpu {
                Some(cpu) => {
                    vec![("cpu.cfs_period_us", words(cpu.period_us)), ("cpu.cfs_quota_us", words(cpu.quota_us))]
                }
                None => vec![("cpu.cfs_quota_us", Held::Words("-1".to_owned()))],
            };
            files.push(("cpu.cfs_burst_us", burst));
            files
        }
        (Knob::CpuWeight, true) => vec![("cpu.weight", words(limits.cpu_weight.unwrap_or(100)))],
        (Knob::CpuWeight, false) => vec![("cpu.shares", words(limits::shares(limits.cpu_weight.unwrap_or(100))))],
    }
}

/// Files of a group that do not hold what `limits` says. A file that is not there is no difference: this kernel has none.
pub fn find(directories: &Directories, limits: &Limits, kills_as_one: bool) -> Vec<Drift> {
    let mut drifts = Vec::new();
    let mut look = |dir: &Path, knob: Option<Knob>, file: &'static str, held: &Held| {
        let Ok(text) = fs::read_to_string(dir.join(file)) else { return };
        let found = text.trim();
        if !held.is(found) {
            drifts.push(Drift { file, found: found.to_owned(), expected: held.text(), knob });
        }
    };
    for knob in Knob::ALL {
        let wanted = knob.controller();
        let Some((_, dir, unified)) = directories.iter().find(|(controller, ..)| *controller == wanted) else {
            continue;
        };
        for (file, held) in held(knob, *unified, limits) {
            look(dir, Some(knob), file, &held);
        }
    }
    if let Some((_, dir, true)) = directories.iter().find(|(controller, ..)| *controller == Controller::Memory) {
        look(dir, None, "memory.swap.max", &Held::Words("0".to_owned()));
        if kills_as_one {
            look(dir, None, "memory.oom.group", &Held::Words("1".to_owned()));
        }
    }
    drifts
}

/// Sets what has drifted again.
///
/// # Errors
/// What the kernel says to the first that it refuses.
pub fn mend(
    directories: &Directories,
    limits: &Limits,
    kills_as_one: bool,
    drifts: &[Drift],
) -> Result<(), CgroupError> {
    let mut knobs: Vec<Knob> = drifts.iter().filter_map(|drift| drift.knob).collect();
    knobs.dedup();
    if drifts.iter().any(|drift| drift.knob.is_none())
        && let Some((_, dir, true)) = directories.iter().find(|(controller, ..)| *controller == Controller::Memory)
    {
        limits::whole_memory(dir, kills_as_one)?;
    }
    // Nothing of what is there now is taken for granted.
    knobs.into_iter().try_for_each(|knob| limits::set(directories, knob, &Limits::default(), limits))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cgroups::limits::CpuQuota;

    fn limits() -> Limits {
        Limits {
            memory_max: Some((64 << 20) + 1),
            pids_max: Some(16),
            cpu: Some(CpuQuota::new(500, 20_000, 0)),
            ..Limits::default()
        }
    }

    #[test]
    fn what_the_kernel_makes_of_a_value_is_no_difference() {
        let cases = [
            (Held::Bytes(Some(8193)), "8192", true),
            (Held::Bytes(Some(8193)), "8193", false),
            (Held::Bytes(Some(8192)), "max", false),
            (Held::Bytes(None), "max", true),
            (Held::Bytes(None), "9223372036854771712", true),
            (Held::Bytes(None), "1048576", false),
            (Held::Bytes(None), "", false),
            (Held::Words("16".into()), "16", true),
            (Held::Words("16".into()), "max", false),
            (Held::NoQuota, "max 100000", true),
            (Held::NoQuota, "10000 100000", false),
        ];
        for (held, found, is_it) in cases {
            assert_eq!(held.is(found), is_it, "{held:?} {found:?}");
        }
    }

    #[test]
    fn every_changed_file_is_found_and_set_again_on_either_kind_of_hierarchy() {
        for unified in [true, false] {
            let dir = std::env::temp_dir().join(format!("sublet-drift-{unified}-{}", std::process::id()));
            fs::create_dir(&dir).unwrap();
            let directories: Directories =
                [Controller::Memory, Controller::Pids, Controller::Cpu].map(|c| (c, dir.clone(), unified)).into();
            let files: Vec<_> = Knob::ALL.into_iter().flat_map(|knob| held(knob, unified, &limits())).collect();
            let put = |file: &str, text: &str| fs::write(dir.join(file), text).unwrap();
            for (file, held) in &files {
                put(
                    file,
                    &match held {
                        Held::Bytes(Some(bytes)) => (bytes / PAGE_BYTES * PAGE_BYTES).to_string(),
                        held => held.text(),
                    },
                );
            }
            if unified {
                put("memory.swap.max", "0");
                put("memory.oom.group", "1");
            }
            assert_eq!(find(&directories, &limits(), true), []);
            put("pids.max", "max\n");
            let drifts = find(&directories, &limits(), true);
            let found: Vec<_> = drifts.iter().map(|d| (d.file, d.found.as_str(), d.expected.as_str())).collect();
            assert_eq!(found, [("pids.max", "max", "16")]);
            mend(&directories, &limits(), true, &drifts).unwrap();
            assert_eq!(fs::read_to_string(dir.join("pids.max")).unwrap().trim(), "16");
            if unified {
                put("memory.oom.group", "0");
                let drifts = find(&directories, &limits(), true);
                assert_eq!(drifts.len(), 1, "{drifts:?}");
                assert_eq!(find(&directories, &limits(), false), [], "a level does not die as one");
                mend(&directories, &limits(), true, &drifts).unwrap();
                assert_eq!(fs::read_to_string(dir.join("memory.oom.group")).unwrap(), "1");
            }
            fs::remove_dir_all(&dir).unwrap();
        }
    }
}
