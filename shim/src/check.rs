//! What the nursery refuses. It runs as root and takes orders from a process that talks to the world, so every order is
//! held against what it was told once at start.

use std::collections::BTreeSet;

use sublet_proto::{
    level::Level,
    link::{
        group::{GroupPath, NoGroup},
        sandbox::{NurseryConfig, Root, SandboxSpec},
    },
};

/// Why no sandbox is made.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// The two uids of the slot are not in the range.
    #[error("slot {slot} needs uids {first} and {}, outside of {base}..{end}", first + 1)]
    UidOutsideRange {
        /// The slot asked for.
        slot: u32,
        /// Its first uid.
        first: u64,
        /// Start of the range.
        base: u32,
        /// End of the range, exclusive.
        end: u64,
    },
    /// A living sandbox has the uids.
    #[error("slot {slot} is in use")]
    SlotInUse {
        /// The slot asked for.
        slot: u32,
    },
    /// The id names a living sandbox.
    #[error("worker {worker} exists")]
    WorkerExists {
        /// The id.
        worker: u64,
    },
    /// The group is not a worker's.
    #[error(transparent)]
    Cgroup(#[from] NoGroup),
    /// A directory is not below the allowed ones.
    #[error("directory {0:?} is not below an allowed directory")]
    Directory(String),
    /// Nothing to run.
    #[error("the command is empty")]
    NoCommand,
    /// A string the kernel would cut short.
    #[error("{0:?} contains a NUL byte")]
    Nul(String),
    /// A limit of zero would mean "none".
    #[error("limit {0} is zero")]
    ZeroLimit(&'static str),
}

/// Host uid of init for `slot`; the function's is the next.
///
/// # Errors
/// [`Refusal::UidOutsideRange`].
pub fn host_init_uid(config: &NurseryConfig, slot: u32) -> Result<u32, Refusal> {
    let first = u64::from(config.uid_base) + 2 * u64::from(slot);
    let end = u64::from(config.uid_base) + u64::from(config.uid_count);
    let fits = first + 1 < end && end <= u64::from(u32::MAX);
    u32::try_from(first).ok().filter(|_| fits).ok_or(Refusal::UidOutsideRange {
        slot,
        first,
        base: config.uid_base,
        end,
    })
}

/// Holds a spec against the configuration. `slots_in_use` are those of living sandboxes.
///
/// # Errors
/// The first thing that is wrong.
pub fn check(config: &NurseryConfig, spec: &SandboxSpec, slots_in_use: &BTreeSet<u32>) -> Result<(), Refusal> {
    host_init_uid(config, spec.slot)?;
    if slots_in_use.contains(&spec.slot) {
        return Err(Refusal::SlotInUse { slot: spec.slot });
    }
    // openat2 with RESOLVE_BENEATH guards the same when the group is opened.
    let group = GroupPath::try_from(spec.cgroup.as_str())?;
    if group.level() != Level::Worker {
        return Err(NoGroup(spec.cgroup.clone()).into());
    }
    if let Root::Dir { path, .. } = &spec.root {
        allowed_dir(config, path)?;
    }
    allowed_dir(config, &spec.function_dir)?;
    if spec.command.is_empty() {
        return Err(Refusal::NoCommand);
    }
    if let Some(nul) = spec.command.iter().find(|text| text.contains('\0')) {
        return Err(Refusal::Nul(nul.clone()));
    }
    let limits = &spec.limits;
    for (name, value) in [
        ("nofile", limits.nofile),
        ("tmp_bytes", limits.tmp_bytes),
        ("file_bytes", limits.file_bytes),
        ("tmp_inodes", limits.tmp_inodes),
        ("stack_bytes", limits.stack_bytes),
        ("shown.memory_bytes", spec.shown.memory_bytes),
        ("shown.cpu_millis", spec.shown.cpu_millis.unwrap_or(1)),
    ] {
        if value == 0 {
            return Err(Refusal::ZeroLimit(name));
        }
    }
    Ok(())
}

fn allowed_dir(config: &NurseryConfig, path: &str) -> Result<(), Refusal> {
    let refused = || Refusal::Directory(path.to_owned());
    let plain = path.starts_with('/')
        && !path.contains('\0')
        && path[1..].split('/').all(|part| !part.is_empty() && part != "." && part != "..");
    if !plain {
        return Err(refused());
    }
    let below =
        |allowed: &String| path == allowed || path.strip_prefix(allowed).is_some_and(|rest| rest.starts_with('/'));
    if config.allowed_dirs.iter().any(below) { Ok(()) } else { Err(refused()) }
}

#[cfg(test)]
mod tests {
    use sublet_proto::link::sandbox::{CgroupDirs, Identity, InnerLimits, OnRefused, Protocol, ShownLimits};

    use super::*;

    fn config() -> NurseryConfig {
        NurseryConfig {
            uid_base: 1_000_000,
            uid_count: 20,
            supervisor_uid: 999_999,
            allowed_dirs: vec!["/srv/functions".into()],
            scratch_dir: "/var/lib/sublet/scratch".into(),
            cgroups: CgroupDirs::default(),
            missing_layers: vec![],
            forbid_store_bypass: false,
            sockets: vec![],
        }
    }

    fn spec() -> SandboxSpec {
        SandboxSpec {
            slot: 9,
            cgroup: "t-acme/s-00ff/w-1".into(),
            root: Root::Static,
            function_dir: "/srv/functions/resize".into(),
            function_identity: Identity::default(),
            command: vec!["/function/resize".into()],
            protocol: Protocol::Stream,
            on_refused: OnRefused::Errno,
            limits: InnerLimits {
                nofile: 64,
                tmp_bytes: 1 << 20,
                file_bytes: 1 << 20,
                tmp_inodes: 16,
                stack_bytes: 1 << 20,
            },
            shown: ShownLimits { memory_bytes: 1 << 20, cpu_millis: Some(1000) },
            token: false,
            answer_max_bytes: 1,
            payload_max_bytes: 1,
        }
    }

    fn refusal(change: impl FnOnce(&mut SandboxSpec)) -> Refusal {
        let mut changed = spec();
        change(&mut changed);
        check(&config(), &changed, &BTreeSet::new()).unwrap_err()
    }

    #[test]
    fn complete_spec_is_accepted() {
        assert_eq!(check(&config(), &spec(), &BTreeSet::new()), Ok(()));
    }

    #[test]
    fn uid_one_past_the_range_is_refused() {
        assert!(matches!(refusal(|s| s.slot = 10), Refusal::UidOutsideRange { .. }));
        assert!(matches!(refusal(|s| s.slot = u32::MAX), Refusal::UidOutsideRange { .. }));
    }

    #[test]
    fn uids_of_a_living_sandbox_are_refused() {
        assert_eq!(check(&config(), &spec(), &BTreeSet::from([9])), Err(Refusal::SlotInUse { slot: 9 }));
    }

    #[test]
    fn cgroup_outside_the_subtree_is_refused() {
        for path in
            ["", "t-a", "t-a/s-b", "t-a/s-b/w-c/x", "/t-a/s-b/w-c", "t-a/../w-c", "t-a/s-b/w-", "t-A/s-b/w-c", "x/y/z"]
        {
            assert_eq!(refusal(|s| s.cgroup = path.into()), Refusal::Cgroup(NoGroup(path.into())));
        }
    }

    #[test]
    fn directory_outside_the_allowed_ones_is_refused() {
        for path in ["/srv/functionsx/a", "/srv/functions/../etc", "/etc", "srv/functions/a", "/srv/functions//a", "/"]
        {
            assert_eq!(refusal(|s| s.function_dir = path.into()), Refusal::Directory(path.into()));
            assert_eq!(
                refusal(|s| s.root = Root::Dir { path: path.into(), identity: Identity::default() }),
                Refusal::Directory(path.into())
            );
        }
    }

    #[test]
    fn zero_limit_and_empty_command_are_refused() {
        assert_eq!(refusal(|s| s.limits.nofile = 0), Refusal::ZeroLimit("nofile"));
        assert_eq!(refusal(|s| s.command.clear()), Refusal::NoCommand);
        assert!(matches!(refusal(|s| s.command.push("a\0".into())), Refusal::Nul(_)));
    }
}
