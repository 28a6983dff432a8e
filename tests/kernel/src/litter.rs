//! What a run might leave: processes, cgroups, mounts. Compared before and after, so that what was there is not ours.

use std::{
    collections::BTreeSet,
    fs,
    path::Path,
    thread::sleep,
    time::{Duration, Instant},
};

/// How long after the end something may still be on its way out.
const PATIENCE: Duration = Duration::from_secs(1);

/// Everything on this machine that looks like sublet's.
pub fn found() -> BTreeSet<String> {
    let mut all = BTreeSet::new();
    processes(&mut all);
    cgroups(Path::new("/sys/fs/cgroup"), 0, &mut all);
    if let Ok(mounts) = fs::read_to_string("/proc/self/mountinfo") {
        all.extend(mounts.lines().filter(|line| line.contains("sublet")).map(|line| format!("mount {line}")));
    }
    all
}

/// What is there now and was not before; waits a second for it to go.
pub fn since(before: &BTreeSet<String>) -> Vec<String> {
    let end = Instant::now() + PATIENCE;
    loop {
        let left: Vec<String> = found().difference(before).cloned().collect();
        if left.is_empty() || Instant::now() > end {
            return left;
        }
        sleep(Duration::from_millis(20));
    }
}

fn processes(all: &mut BTreeSet<String>) {
    let Ok(entries) = fs::read_dir("/proc") else { return };
    let own = std::process::id();
    for pid in entries.flatten().filter_map(|entry| entry.file_name().to_str()?.parse::<u32>().ok()) {
        let name = fs::read_to_string(format!("/proc/{pid}/comm")).unwrap_or_default();
        let command = fs::read_to_string(format!("/proc/{pid}/cmdline")).unwrap_or_default().replace('\0', " ");
        if is_init_s_zombie(pid) {
            continue;
        }
        let is_ours =
            name.starts_with("sublet") || command.contains("sublet-probe") || command.contains("/sublet serve");
        if is_ours && pid != own && !command.contains("kernel-tests") {
            all.insert(format!("process {pid} {} ({})", name.trim(), command.trim()));
        }
    }
}

/// Dead, and handed to the machine's own pid 1, which takes its time to say good-bye.
fn is_init_s_zombie(pid: u32) -> bool {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    stat.rsplit_once(") ").is_some_and(|(_, rest)| rest.starts_with("Z 1 "))
}

/// Trees are named sublet-…; nothing below them needs to be listed.
fn cgroups(dir: &Path, depth: u32, all: &mut BTreeSet<String>) {
    let Ok(entries) = fs::read_dir(dir) else { return };
    for entry in entries.flatten().filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir())) {
        if entry.file_name().to_string_lossy().starts_with("sublet-") {
            all.insert(format!("cgroup {}", entry.path().display()));
        } else if depth < 4 {
            cgroups(&entry.path(), depth + 1, all);
        }
    }
}
