//! What of the host's set-up lets functions reach more than they must, though every layer of theirs is in place. Each is
//! the operator's to decide: it is told with a remedy, and `serve` starts all the same.

use std::{
    fs,
    path::{Path, PathBuf},
};

use super::Report;

/// Remedy for a v2 hierarchy without nsdelegate.
pub(super) const NSDELEGATE: &str = "mount -o remount,nsdelegate cgroup2 /sys/fs/cgroup (where it is mounted): the kernel then \
                                     keeps a process in its cgroup namespace from moving others across its border";

/// The host's /proc and /sys.
#[derive(Debug)]
pub(super) struct Host(PathBuf);

impl Host {
    /// Below `root`, which is `/` but in tests.
    pub(super) fn new(root: &Path) -> Self {
        Self(root.to_owned())
    }

    /// A file's text; none where it is not there, which is a host that has nothing of the kind.
    fn read(&self, path: &str) -> Option<String> {
        fs::read_to_string(self.0.join(path)).ok().map(|text| text.trim().to_owned())
    }

    /// Names in a directory, in order.
    fn names(&self, path: &str) -> Vec<String> {
        let Ok(entries) = fs::read_dir(self.0.join(path)) else { return Vec::new() };
        let mut names: Vec<String> =
            entries.flatten().map(|entry| entry.file_name().to_string_lossy().into_owned()).collect();
        names.sort();
        names
    }

    /// The program that the kernel starts for each process that dumps core.
    fn core_program(&self) -> Option<String> {
        let pattern = self.read("proc/sys/kernel/core_pattern")?;
        let command = pattern.strip_prefix('|')?.trim();
        command.split_whitespace().next().map(str::to_owned)
    }

    /// Pools of huge pages, as `2048kB: 8`.
    fn huge_pages(&self) -> Vec<String> {
        const POOLS: &str = "sys/kernel/mm/hugepages";
        let number = |name: &str, file: &str| -> u64 {
            self.read(&format!("{POOLS}/{name}/{file}")).and_then(|text| text.parse().ok()).unwrap_or(0)
        };
        let pool = |name: &String| {
            let pages = number(name, "nr_hugepages").saturating_add(number(name, "nr_overcommit_hugepages"));
            (pages > 0).then(|| format!("{}: {pages}", name.trim_start_matches("hugepages-")))
        };
        self.names(POOLS).iter().filter_map(pool).collect()
    }

    /// Flaws of the processor that the kernel says nothing is done about while two threads share a core.
    fn open_between_threads(&self) -> Option<Vec<String>> {
        const FLAWS: &str = "sys/devices/system/cpu/vulnerabilities";
        if self.read("sys/devices/system/cpu/smt/active")? != "1" {
            return None;
        }
        let is_open = |name: &String| {
            let state = self.read(&format!("{FLAWS}/{name}")).unwrap_or_default();
            state.starts_with("Vulnerable") || state.contains("SMT vulnerable")
        };
        Some(self.names(FLAWS).into_iter().filter(is_open).collect())
    }
}

impl Report {
    pub(super) fn host(&mut self, host: &Host) {
        let program = host.core_program();
        let value = program.as_ref().map_or("no program".to_owned(), |program| format!("piped to {program}"));
        let remedy = "sysctl kernel.core_pattern=core: the kernel starts that program as root for each function that crashes, \
                      outside of its limits, and no limit on core files holds it back";
        self.advise("core dumps", value, program.is_none(), remedy);

        let pools = host.huge_pages();
        let value = if pools.is_empty() { "no pool".to_owned() } else { pools.join(", ") };
        let remedy = "sysctl vm.nr_hugepages=0 vm.nr_overcommit_hugepages=0, or leave them to programs that need them: they \
                      are in no memory limit, so a function that is allowed to map them takes them from the host";
        self.advise("huge pages", value, pools.is_empty(), remedy);

        let ksm = host.read("sys/kernel/mm/ksm/run");
        let is_on = ksm.as_deref() == Some("1");
        let remedy = "echo 2 > /sys/kernel/mm/ksm/run: where equal pages of different processes are merged, the time a write \
                      takes tells what others have in memory";
        self.advise("page merging", if is_on { "on" } else { "off" }, !is_on, remedy);

        let open = host.open_between_threads();
        let value = match &open {
            None => "no two threads share a core".to_owned(),
            Some(open) if open.is_empty() => "threads share cores; mitigated".to_owned(),
            Some(open) => format!("threads share cores, and open are {}", open.join(", ")),
        };
        let remedy = "echo off > /sys/devices/system/cpu/smt/control, or boot with mitigations=auto,nosmt: two sub-tenants \
                      on one core can read each other through these";
        self.advise("hardware threads", value, open.is_none_or(|open| open.is_empty()), remedy);
    }
}

#[cfg(test)]
mod tests {
    use super::{super::Outcome, *};

    struct Place(PathBuf);

    impl Place {
        fn new(name: &str, files: &[(&str, &str)]) -> Self {
            let root = std::env::temp_dir().join(format!("sublet-advice-{name}-{}", std::process::id()));
            fs::create_dir(&root).unwrap();
            for (path, text) in files {
                let path = root.join(path);
                fs::create_dir_all(path.parent().unwrap()).unwrap();
                fs::write(path, text).unwrap();
            }
            Self(root)
        }

        fn report(&self) -> Vec<(&'static str, String, bool)> {
            let mut report = Report { checks: Vec::new(), own_filters: 0, relays_streams: false };
            report.host(&Host::new(&self.0));
            let checks = report.checks.into_iter();
            checks.map(|check| (check.name, check.value, check.outcome == Outcome::Advice)).collect()
        }
    }

    impl Drop for Place {
        fn drop(&mut self) {
            fs::remove_dir_all(&self.0).ok();
        }
    }

    #[test]
    fn host_that_gives_functions_more_is_told_what_and_serve_is_not_refused() {
        let place = Place::new(
            "open",
            &[
                ("proc/sys/kernel/core_pattern", "|/usr/lib/systemd/systemd-coredump %P %u\n"),
                ("sys/kernel/mm/hugepages/hugepages-2048kB/nr_hugepages", "8\n"),
                ("sys/kernel/mm/hugepages/hugepages-1048576kB/nr_overcommit_hugepages", "1\n"),
                ("sys/kernel/mm/ksm/run", "1\n"),
                ("sys/devices/system/cpu/smt/active", "1\n"),
                ("sys/devices/system/cpu/vulnerabilities/l1tf", "Mitigation: PTE Inversion; VMX: SMT vulnerable\n"),
                (
                    "sys/devices/system/cpu/vulnerabilities/mds",
                    "Vulnerable: Clear CPU buffers attempted, no microcode\n",
                ),
                ("sys/devices/system/cpu/vulnerabilities/meltdown", "Mitigation: PTI\n"),
            ],
        );
        let value = |text: &str| text.to_owned();
        assert_eq!(
            place.report(),
            [
                ("core dumps", value("piped to /usr/lib/systemd/systemd-coredump"), true),
                ("huge pages", value("1048576kB: 1, 2048kB: 8"), true),
                ("page merging", value("on"), true),
                ("hardware threads", value("threads share cores, and open are l1tf, mds"), true),
            ]
        );
        let mut report = Report { checks: Vec::new(), own_filters: 0, relays_streams: false };
        report.host(&Host::new(&place.0));
        assert_eq!(report.refuse(&std::collections::BTreeSet::new()), Ok(()));
        assert!(report.checks.iter().all(|check| check.remedy.is_some() && check.is_enforced()));
    }

    #[test]
    fn host_without_any_of_it_gets_no_advice() {
        let closed = [
            ("proc/sys/kernel/core_pattern", "core\n"),
            ("sys/kernel/mm/hugepages/hugepages-2048kB/nr_hugepages", "0\n"),
            ("sys/kernel/mm/ksm/run", "0\n"),
            ("sys/devices/system/cpu/smt/active", "1\n"),
            ("sys/devices/system/cpu/vulnerabilities/mds", "Mitigation: Clear CPU buffers; SMT disabled\n"),
        ];
        for (name, files) in [("closed", &closed[..]), ("none", &[])] {
            let report = Place::new(name, files).report();
            assert!(report.iter().all(|(_, _, is_advice)| !is_advice), "{report:?}");
        }
    }
}
