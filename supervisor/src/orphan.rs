//! A nursery whose supervisor has ended and that has not: whoever starts next is told, and how to get on.

use std::{fmt, fs, io, os::unix::fs::MetadataExt as _, path::Path};

/// The kernel's name for a nursery; see `sublet_shim::nursery`.
const NURSERY: &str = "sublet-nursery";
/// How the name of a supervisor begins: that of the program, as the kernel has it.
const SUPERVISOR: &str = "sublet";

/// A nursery without a supervisor.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Orphan {
    pid: i32,
    is_stopped: bool,
}

impl fmt::Display for Orphan {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { pid, is_stopped } = *self;
        write!(f, "the nursery (pid {pid}) of a supervisor that has ended holds it, with its cgroups and workers: ")?;
        if is_stopped {
            write!(f, "it is stopped; have it clean up by `kill -CONT {pid}`, or end it and them by `kill -KILL {pid}`")
        } else {
            write!(f, "it has not finished cleaning up; wait for it, or end it and them by `kill -KILL {pid}`")
        }
    }
}

/// A process that has a file open.
#[derive(Debug)]
struct Holder {
    pid: i32,
    name: String,
    /// As /proc has it.
    state: char,
    /// Whether a supervisor is its parent. A nursery that has made the lock anew holds it alone, and is no orphan.
    has_supervisor: bool,
}

/// The nursery that has this file or directory open, if all others that had it are gone. Those in front of which /proc is
/// closed are not seen; then nothing is known.
pub fn behind(path: &Path) -> Option<Orphan> {
    judge(&holders(path).ok()?)
}

fn judge(holders: &[Holder]) -> Option<Orphan> {
    let nursery = holders.iter().find(|holder| holder.name == NURSERY)?;
    // Another nursery would have another supervisor.
    let are_others = holders.iter().any(|holder| holder.pid != nursery.pid);
    (!are_others && !nursery.has_supervisor)
        .then_some(Orphan { pid: nursery.pid, is_stopped: matches!(nursery.state, 'T' | 't') })
}

/// Everybody but this process who has the file open.
fn holders(path: &Path) -> io::Result<Vec<Holder>> {
    let file = fs::metadata(path)?;
    let own = std::process::id();
    let mut found = Vec::new();
    for entry in fs::read_dir("/proc")?.flatten() {
        let Some(pid) = entry.file_name().to_str().and_then(|name| name.parse().ok()) else { continue };
        let process = entry.path();
        // Whatever cannot be read is of a process that has just ended.
        let Ok(descriptors) = fs::read_dir(process.join("fd")) else { continue };
        let is_it = |found: fs::Metadata| (found.dev(), found.ino()) == (file.dev(), file.ino());
        let mut open = descriptors.flatten().filter_map(|descriptor| fs::metadata(descriptor.path()).ok());
        if own.cast_signed() == pid || !open.any(is_it) {
            continue;
        }
        let stat = fs::read_to_string(process.join("stat")).unwrap_or_default();
        found.extend(parse(pid, &stat, |parent| {
            fs::read_to_string(format!("/proc/{parent}/comm")).is_ok_and(|name| name.starts_with(SUPERVISOR))
        }));
    }
    Ok(found)
}

/// `PID (NAME) STATE PARENT …`; a name may have parentheses in it.
fn parse(pid: i32, stat: &str, is_supervisor: impl FnOnce(i32) -> bool) -> Option<Holder> {
    let (before, after) = stat.rsplit_once(") ")?;
    let (_, name) = before.split_once('(')?;
    let mut fields = after.split(' ');
    let state = fields.next()?.chars().next()?;
    let has_supervisor = is_supervisor(fields.next()?.parse().ok()?);
    Some(Holder { pid, name: name.to_owned(), state, has_supervisor })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn nursery(pid: i32, state: char) -> Holder {
        Holder { pid, name: NURSERY.into(), state, has_supervisor: false }
    }

    fn other(pid: i32) -> Holder {
        Holder { pid, name: "sublet".into(), state: 'S', has_supervisor: false }
    }

    #[test]
    fn nursery_alone_is_an_orphan_and_one_beside_a_supervisor_is_not() {
        for (state, is_stopped) in [('T', true), ('t', true), ('S', false), ('D', false)] {
            assert_eq!(judge(&[nursery(7, state)]), Some(Orphan { pid: 7, is_stopped }), "{state}");
            assert_eq!(judge(&[nursery(7, state), other(6)]), None, "{state}");
        }
        assert_eq!(judge(&[Holder { has_supervisor: true, ..nursery(7, 'S') }]), None);
        assert_eq!(judge(&[other(6)]), None);
        assert_eq!(judge(&[]), None);
    }

    #[test]
    fn remedy_names_the_process() {
        let stopped = Orphan { pid: 7, is_stopped: true }.to_string();
        assert!(stopped.contains("pid 7") && stopped.contains("kill -CONT 7") && stopped.contains("kill -KILL 7"));
        let busy = Orphan { pid: 7, is_stopped: false }.to_string();
        assert!(!busy.contains("CONT") && busy.contains("kill -KILL 7"), "{busy}");
    }

    #[test]
    fn name_and_state_are_read_whatever_the_name_is() {
        let holder = parse(9, "9 (a) b (c)) T 5 9", |parent| parent == 5).unwrap();
        assert_eq!((holder.pid, holder.name.as_str(), holder.state, holder.has_supervisor), (9, "a) b (c)", 'T', true));
        assert!(parse(9, "", |_| true).is_none());
    }

    #[test]
    fn holder_of_a_file_is_found_and_this_process_is_none() {
        let path = std::env::temp_dir().join(format!("sublet-orphan-{}", std::process::id()));
        let file = fs::File::create(&path).unwrap();
        assert!(holders(&path).unwrap().is_empty());
        let mut child =
            std::process::Command::new("sleep").arg("600").stdin(file.try_clone().unwrap()).spawn().unwrap();
        let found = holders(&path).unwrap();
        child.kill().unwrap();
        child.wait().unwrap();
        fs::remove_file(&path).unwrap();
        let pids: Vec<u32> = found.iter().map(|holder| holder.pid.cast_unsigned()).collect();
        assert_eq!(pids, [child.id()]);
    }
}
