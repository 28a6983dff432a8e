//! Groups that somebody has left behind.

use std::{fs, path::Path};

/// Where hierarchies are mounted.
const MOUNTS: &str = "/sys/fs/cgroup";
/// How deep a group is looked for: that of the shell or service in which sublet was started lies above its own.
const DEPTH: u32 = 5;

/// Every group of this name, in any hierarchy.
pub fn left_over(name: &str) -> Vec<String> {
    let mut left = Vec::new();
    find(Path::new(MOUNTS), name, DEPTH, &mut left);
    left
}

fn find(dir: &Path, name: &str, depth: u32, found: &mut Vec<String>) {
    let Ok(entries) = fs::read_dir(dir) else { return };
    for entry in entries.flatten().filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir())) {
        if entry.file_name() == name {
            found.push(entry.path().display().to_string());
        } else if depth > 0 {
            find(&entry.path(), name, depth - 1, found);
        }
    }
}
