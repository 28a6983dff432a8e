//! The judgement from outside, before a worker gets its first payload: is the cage what the plan says?
//!
//! The nursery reads the facts, this module holds them against what must be. Everything that is judged is also what
//! `sublet describe` prints, so an operator sees what was checked and what was seen.

use std::{collections::BTreeSet, path::Path};

use sublet_proto::link::{
    nursery::{Posture, ProcessPosture},
    sandbox::{InnerLimits, Layer, Root},
    token::TOKEN_DIR,
};
use sublet_shim::{
    plan::{self, FUNCTION_UID, INIT_UID, OOM_SCORE_ADJ},
    seccomp::Filters,
};

use crate::cgroups::shown::GROUPS_MOUNT;

/// One thing that was looked at.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fact {
    /// What.
    pub name: String,
    /// What was seen.
    pub value: String,
    /// Whether it is as it must be.
    pub ok: bool,
}

/// What must be.
#[derive(Clone, Copy, Debug)]
pub struct Expected<'a> {
    /// Host uid of init; the function's is the next.
    pub init_uid: u32,
    /// The worker's cgroup relative to the pool.
    pub cgroup: &'a str,
    /// v1 controllers that carry limits.
    pub v1_controllers: &'a [&'static str],
    /// Layout of the root.
    pub root: &'a Root,
    /// Whether there is a place for a token.
    pub token: bool,
    /// Limits set inside.
    pub limits: &'a InnerLimits,
    /// Layers this host lacks and the operator accepted to miss.
    pub missing_layers: &'a [Layer],
    /// Whether functions run without speculative store bypass.
    pub forbid_store_bypass: bool,
    /// Filters the supervisor itself was started under; every child has them too.
    pub inherited_filters: u32,
}

/// Mount points of a sandbox but for those of its groups, as `(point, filesystem when it matters, writable)`. A root of layout
/// "dir" may be without /sys.
fn mounts(expected: &Expected<'_>, sys: bool) -> Vec<(&'static str, Option<&'static str>, bool)> {
    let own_inodes = !expected.missing_layers.contains(&Layer::Inodes);
    // A bind mount has the file system of what is bound.
    let shared = own_inodes.then_some("overlay");
    let mut all = vec![
        ("/", shared, false),
        ("/dev", shared, false),
        ("/function", shared, false),
        ("/proc", Some("proc"), false),
        ("/proc/cpuinfo", Some("tmpfs"), false),
        ("/proc/meminfo", Some("tmpfs"), false),
        ("/proc/stat", Some("tmpfs"), false),
    ];
    if expected.v1_controllers.is_empty() {
        all.push(("/proc/cgroups", Some("tmpfs"), false));
    }
    if sys {
        all.push(("/sys", Some("tmpfs"), false));
    }
    if *expected.root == Root::Host {
        all.push(("/usr", shared, false));
    }
    if expected.token {
        all.push((TOKEN_DIR, Some("tmpfs"), false));
    }
    all.push(("/tmp", Some("tmpfs"), true));
    all
}

/// What is looked at again when a cell gets its owner: the launcher, which becomes the function. Init has no right to
/// change anything about itself any more, and namespaces, mounts and descriptors cannot have changed: no filter lets a
/// launcher touch them.
#[derive(Clone, Copy, Debug)]
pub struct Recheck {
    init: i32,
    launcher: i32,
    uid: u32,
    filters: u32,
}

impl Recheck {
    /// Of a posture that was found right.
    pub fn new(posture: &Posture, expected: &Expected<'_>) -> Self {
        Self {
            init: posture.init.pid,
            launcher: posture.function.pid,
            uid: expected.init_uid + 1,
            filters: Filters::function_count() + expected.inherited_filters,
        }
    }

    /// Host pid of init.
    pub const fn init(&self) -> i32 {
        self.init
    }

    /// Looks at the launcher, and at who is in the group. Returns what is wrong.
    pub fn look(&self, members: &[i32]) -> Vec<String> {
        let mut facts = Vec::new();
        match sublet_shim::nursery::status(self.launcher) {
            Ok(seen) => status(FUNCTION, &seen, (self.uid, self.filters), &mut facts),
            Err(error) => push(&mut facts, FUNCTION, sublet_shim::chain::chain(&error), false),
        }
        let mut due = [self.init, self.launcher];
        due.sort_unstable();
        push(&mut facts, "group", format!("{members:?}"), members == due);
        wrong(&facts)
    }
}

/// The facts that are not as they must be, in words.
pub fn wrong(facts: &[Fact]) -> Vec<String> {
    facts.iter().filter(|fact| !fact.ok).map(|fact| format!("{} is {}", fact.name, fact.value)).collect()
}

const INIT: &str = "init";
const FUNCTION: &str = "function";

/// Holds what was seen against what must be.
pub fn judge(posture: &Posture, expected: &Expected<'_>) -> Vec<Fact> {
    let mut facts = Vec::new();
    process(INIT, &posture.init, expected.init_uid, Filters::INIT_COUNT, expected, &mut facts);
    let function = &posture.function;
    process(FUNCTION, function, expected.init_uid + 1, Filters::function_count(), expected, &mut facts);
    mount_facts(function, expected, &mut facts);
    limit_facts(function, expected.limits, &mut facts);
    if !expected.missing_layers.contains(&Layer::Time) {
        // `monotonic S N, boottime S N`: an offset of nothing at all would be the host's clock.
        let offsets = function.clock_offsets.as_deref().unwrap_or("absent");
        let is_set = |line: &str| line.split(' ').skip(1).any(|number| number.parse().is_ok_and(|n: i64| n != 0));
        let ok = offsets.split(", ").count() == 2 && offsets.split(", ").all(is_set);
        push(&mut facts, "function clock offsets", offsets, ok);
    }
    // What a process may decide and has not: everything else is the processor's or the host's decision.
    let is_forbidden = |line: &str| line != "conditional enabled" && line != "thread vulnerable";
    let branch = &function.indirect_branch;
    push(&mut facts, "function speculation by indirect branches", branch, is_forbidden(branch));
    let bypass = &function.store_bypass;
    let ok = !expected.forbid_store_bypass || is_forbidden(bypass);
    push(&mut facts, "function speculation by store bypass", bypass, ok);
    push(
        &mut facts,
        "function descriptors",
        format!("{:?}", function.descriptors),
        // null, log, log, channel: a fifth would be a way out.
        function.descriptors == [0, 1, 2, 3],
    );
    facts
}

fn push(facts: &mut Vec<Fact>, name: impl Into<String>, value: impl Into<String>, ok: bool) {
    facts.push(Fact { name: name.into(), value: value.into(), ok });
}

fn process(who: &str, seen: &ProcessPosture, uid: u32, filters: u32, expected: &Expected<'_>, facts: &mut Vec<Fact>) {
    for (layer, name) in [
        (Layer::User, "user"),
        (Layer::Pid, "pid"),
        (Layer::Mount, "mnt"),
        (Layer::Net, "net"),
        (Layer::Ipc, "ipc"),
        (Layer::Uts, "uts"),
        (Layer::Cgroup, "cgroup"),
        (Layer::Time, "time"),
    ] {
        // unshare(CLONE_NEWTIME) is for children alone: init, which makes it, stays outside.
        if expected.missing_layers.contains(&layer) || (layer == Layer::Time && who == INIT) {
            continue;
        }
        let inode = |list: &[(String, u64)]| list.iter().find(|(n, _)| n == name).map(|(_, inode)| *inode);
        let (own, host) = (inode(&seen.namespaces), inode(&seen.host_namespaces));
        let value = own.map_or_else(|| "absent".to_owned(), |inode| inode.to_string());
        push(facts, format!("{who} {name} namespace"), value, own.is_some() && host.is_some() && own != host);
    }
    status(who, seen, (uid, filters + expected.inherited_filters), facts);
    let map = format!("{INIT_UID} {} 1, {FUNCTION_UID} {} 1", expected.init_uid, expected.init_uid + 1);
    push(facts, format!("{who} uid map"), &seen.uid_map, seen.uid_map == map);
    push(facts, format!("{who} gid map"), &seen.gid_map, seen.gid_map == map);
    push(facts, format!("{who} setgroups"), &seen.setgroups, seen.setgroups == "deny");
    let adjusted = u32::try_from(seen.oom_score_adj) == Ok(OOM_SCORE_ADJ);
    push(facts, format!("{who} oom_score_adj"), seen.oom_score_adj.to_string(), adjusted);
    push(facts, format!("{who} terminal"), seen.terminal.to_string(), seen.terminal == 0);
    // Who cannot be dumped has files in /proc that belong to root.
    push(facts, format!("{who} owner of its files in /proc"), seen.proc_owner.to_string(), seen.proc_owner == 0);
    for controller in [""].iter().chain(expected.v1_controllers) {
        let found = seen.cgroups.iter().find(|(names, _)| {
            if controller.is_empty() { names.is_empty() } else { names.split(',').any(|name| name == *controller) }
        });
        let path = found.map_or("absent", |(_, path)| path.as_str());
        let name = if controller.is_empty() { "v2" } else { controller };
        let cgroup = expected.cgroup;
        push(facts, format!("{who} cgroup ({name})"), path, path.ends_with(&format!("/pool/{cgroup}")));
    }
}

fn status(who: &str, seen: &ProcessPosture, (uid, filters): (u32, u32), facts: &mut Vec<Fact>) {
    push(facts, format!("{who} capabilities"), format!("{:#x}", seen.capabilities), seen.capabilities == 0);
    push(facts, format!("{who} no_new_privs"), seen.no_new_privs.to_string(), seen.no_new_privs);
    push(facts, format!("{who} seccomp mode"), seen.seccomp_mode.to_string(), seen.seccomp_mode == 2);
    push(facts, format!("{who} seccomp filters"), seen.seccomp_filters.to_string(), seen.seccomp_filters == filters);
    push(facts, format!("{who} uids"), format!("{:?}", seen.uids), seen.uids == [uid; 4]);
    push(facts, format!("{who} gids"), format!("{:?}", seen.gids), seen.gids == [uid; 4]);
    push(facts, format!("{who} groups"), format!("{:?}", seen.groups), seen.groups.is_empty());
    push(facts, format!("{who} umask"), format!("{:03o}", seen.umask), seen.umask == 0o022);
}

/// A host's lower hard limit stays, so a limit may be less than what was asked for, and never more.
fn limit_facts(seen: &ProcessPosture, limits: &InnerLimits, facts: &mut Vec<Fact>) {
    for limit in plan::rlimits(limits) {
        let found = seen.limits.iter().find(|(name, ..)| name == limit.proc_name);
        let value = found.map_or_else(|| "absent".to_owned(), |(_, soft, hard)| format!("{soft} {hard}"));
        let ok = found.is_some_and(|(_, soft, hard)| *soft <= limit.value && *hard <= limit.value);
        push(facts, format!("function limit {}", limit.name), value, ok);
    }
}

/// Options that the filesystem of /proc must have been mounted with.
const PROC_OPTIONS: [&str; 2] = ["hidepid=invisible", "subset=pid"];

/// Size of a page on x86_64, the only architecture there is a system call policy for.
const PAGE_BYTES: u64 = 4096;

fn mount_facts(seen: &ProcessPosture, expected: &Expected<'_>, facts: &mut Vec<Fact>) {
    let limits = expected.limits;
    let has_sys = seen.mounts.iter().any(|(point, ..)| point == "/sys");
    let may_lack_sys = matches!(expected.root, Root::Dir { .. });
    let due_mounts = mounts(expected, has_sys || !may_lack_sys);
    let (groups, others): (Vec<_>, Vec<_>) =
        seen.mounts.iter().partition(|(point, ..)| Path::new(point).starts_with(GROUPS_MOUNT));
    let points: BTreeSet<&str> = others.iter().map(|(point, ..)| point.as_str()).collect();
    let due: BTreeSet<&str> = due_mounts.iter().map(|(point, ..)| *point).collect();
    let list = points.iter().copied().collect::<Vec<_>>().join(" ");
    push(facts, "mounts", list, points == due && others.len() == due.len());
    group_facts(&groups, has_sys, expected, facts);
    for (point, kind, writable) in due_mounts {
        let Some((_, filesystem, options)) = seen.mounts.iter().find(|(p, ..)| p == point) else { continue };
        let has = |option| options.split(',').any(|o| o == option);
        // Devices must open below /dev; nowhere else does a device node mean anything.
        let ok = has("nosuid")
            && (has("nodev") || point == "/dev")
            && has(if writable { "rw" } else { "ro" })
            && kind.is_none_or(|kind| kind == filesystem);
        push(facts, format!("mount {point}"), format!("{filesystem} {options}"), ok);
    }
    let given = seen.filesystems.iter().find(|(p, _)| p == "/proc").map_or("absent", |(_, options)| options);
    let ok = PROC_OPTIONS.iter().all(|option| given.split(',').any(|other| other == *option));
    push(facts, "filesystem /proc", given, ok);
    // A tmpfs has whole pages.
    let due = (limits.tmp_bytes.div_ceil(PAGE_BYTES) * PAGE_BYTES, limits.tmp_inodes);
    let (bytes, inodes) = seen.tmp_size;
    push(facts, "size of /tmp", format!("{bytes} bytes, {inodes} files"), (bytes, inodes) == due);
}

/// The worker's groups are seen as they are, and nothing can be written to them.
fn group_facts(groups: &[&(String, String, String)], has_sys: bool, expected: &Expected<'_>, facts: &mut Vec<Fact>) {
    let due = if expected.v1_controllers.is_empty() { "cgroup2" } else { "cgroup" };
    let is_safe = |(_, kind, options): &&&(String, String, String)| {
        kind == due
            && ["ro", "nosuid", "nodev", "noexec"].iter().all(|due| options.split(',').any(|option| option == *due))
    };
    let list = groups.iter().map(|(point, kind, options)| format!("{point} {kind} {options}")).collect::<Vec<_>>();
    let ok = groups.is_empty() != has_sys && groups.iter().all(|group| is_safe(&group));
    push(facts, "own groups", list.join("; "), ok);
}

#[cfg(test)]
mod tests {
    use sublet_proto::link::sandbox::Identity;

    use super::*;

    const LIMITS: InnerLimits =
        InnerLimits { nofile: 64, tmp_bytes: 1 << 20, file_bytes: 1 << 20, tmp_inodes: 64, stack_bytes: 8 << 20 };

    fn good() -> (Posture, Root) {
        let names = ["user", "pid", "mnt", "net", "ipc", "uts", "cgroup", "time"];
        let space = |base: u64| names.iter().zip(base..).map(|(name, inode)| ((*name).to_owned(), inode)).collect();
        let process = |uid: u32, filters: u32| ProcessPosture {
            pid: 7,
            namespaces: space(100),
            host_namespaces: space(1),
            capabilities: 0,
            no_new_privs: true,
            seccomp_mode: 2,
            seccomp_filters: filters,
            uids: [uid; 4],
            gids: [uid; 4],
            groups: vec![],
            cgroups: vec![(String::new(), "/sublet-main/pool/t-a/s-b/w-1".into())],
            mounts: mounts(&expected(&Root::Host, false), true)
                .into_iter()
                .map(|(point, kind, writable)| {
                    let options = if writable { "rw,nosuid,nodev" } else { "ro,nosuid,nodev" };
                    (point.to_owned(), kind.unwrap_or("ext4").to_owned(), options.to_owned())
                })
                .chain([(GROUPS_MOUNT.into(), "cgroup2".into(), "ro,nosuid,nodev,noexec".into())])
                .collect(),
            descriptors: vec![0, 1, 2, 3],
            filesystems: vec![("/proc".into(), "rw,hidepid=invisible,subset=pid".into())],
            tmp_size: (1 << 20, 64),
            limits: (plan::rlimits(&LIMITS).into_iter())
                .map(|limit| (limit.proc_name.to_owned(), limit.value, limit.value))
                .collect(),
            oom_score_adj: 700,
            uid_map: "999 10 1, 1000 11 1".into(),
            gid_map: "999 10 1, 1000 11 1".into(),
            setgroups: "deny".into(),
            terminal: 0,
            proc_owner: 0,
            umask: 0o022,
            indirect_branch: "conditional force disabled".into(),
            store_bypass: "thread force mitigated".into(),
            clock_offsets: Some("monotonic -77 5, boottime -78 4".into()),
        };
        let posture =
            Posture { init: process(10, Filters::INIT_COUNT), function: process(11, Filters::function_count()) };
        (posture, Root::Host)
    }

    fn wrong(posture: &Posture, root: &Root) -> Vec<String> {
        wrong_of(posture, root, false)
    }

    fn expected(root: &Root, token: bool) -> Expected<'_> {
        Expected {
            init_uid: 10,
            cgroup: "t-a/s-b/w-1",
            v1_controllers: &[],
            root,
            token,
            limits: &LIMITS,
            missing_layers: &[],
            forbid_store_bypass: true,
            inherited_filters: 0,
        }
    }

    fn wrong_of(posture: &Posture, root: &Root, token: bool) -> Vec<String> {
        judge(posture, &expected(root, token)).into_iter().filter(|fact| !fact.ok).map(|fact| fact.name).collect()
    }

    #[test]
    fn cage_as_planned_passes() {
        let (posture, root) = good();
        assert_eq!(wrong(&posture, &root), Vec::<String>::new());
    }

    #[test]
    fn each_missing_layer_is_seen() {
        type Spoil = fn(&mut ProcessPosture);
        let cases: [(Spoil, &str); 29] = [
            (|p| p.namespaces[3].1 = p.host_namespaces[3].1, "function net namespace"),
            (|p| drop(p.namespaces.remove(7)), "function time namespace"),
            (|p| p.capabilities = 1, "function capabilities"),
            (|p| p.no_new_privs = false, "function no_new_privs"),
            (|p| p.seccomp_mode = 0, "function seccomp mode"),
            (|p| p.seccomp_filters -= 1, "function seccomp filters"),
            (|p| p.uids[2] = 0, "function uids"),
            (|p| p.gids[0] = 0, "function gids"),
            (|p| p.groups.push(27), "function groups"),
            (|p| p.cgroups[0].1 = "/sublet-main/pool/t-a/s-b/w-11".into(), "function cgroup (v2)"),
            (|p| p.mounts.push(("/home".into(), "ext4".into(), "ro,nosuid,nodev".into())), "mounts"),
            (|p| p.mounts[2].2 = "rw,nosuid,nodev".into(), "mount /function"),
            (|p| p.mounts[2].1 = "ext4".into(), "mount /function"),
            (|p| p.descriptors.push(4), "function descriptors"),
            (|p| p.limits[0].1 = 65, "function limit nofile"),
            (|p| p.limits[3].2 = u64::MAX, "function limit core"),
            (|p| drop(p.limits.remove(6)), "function limit sigpending"),
            (|p| p.oom_score_adj = 0, "function oom_score_adj"),
            (|p| p.uid_map = "0 0 4294967295".into(), "function uid map"),
            (|p| p.gid_map.push_str(", 0 0 1"), "function gid map"),
            (|p| p.setgroups = "allow".into(), "function setgroups"),
            (|p| p.terminal = 34816, "function terminal"),
            (|p| p.proc_owner = 11, "function owner of its files in /proc"),
            (|p| p.indirect_branch = "conditional enabled".into(), "function speculation by indirect branches"),
            (|p| p.store_bypass = "thread vulnerable".into(), "function speculation by store bypass"),
            (|p| p.umask = 0, "function umask"),
            (|p| p.clock_offsets = Some("monotonic 0 0, boottime 0 0".into()), "function clock offsets"),
            (|p| p.filesystems[0].1 = "rw".into(), "filesystem /proc"),
            (|p| p.tmp_size.0 += 4096, "size of /tmp"),
        ];
        for (spoil, name) in cases {
            let (mut posture, root) = good();
            spoil(&mut posture.function);
            assert_eq!(wrong(&posture, &root), [name]);
        }
    }

    #[test]
    fn place_for_a_token_is_due_where_there_is_one_and_read_only() {
        let (mut posture, root) = good();
        assert_eq!(wrong_of(&posture, &root, true), ["mounts"], "it is missing");
        posture.function.mounts.push((TOKEN_DIR.into(), "tmpfs".into(), "ro,nosuid,nodev,noexec".into()));
        assert_eq!(wrong_of(&posture, &root, true), Vec::<String>::new());
        assert_eq!(wrong(&posture, &root), ["mounts"], "nobody asked for it");
        let last = posture.function.mounts.len() - 1;
        posture.function.mounts[last].2 = "rw,nosuid,nodev,noexec".into();
        assert_eq!(wrong_of(&posture, &root, true), ["mount /run/sublet"]);
    }

    #[test]
    fn own_groups_are_read_only_and_missing_only_where_the_root_has_no_place_for_them() {
        let (mut posture, root) = good();
        let last = posture.function.mounts.len() - 1;
        posture.function.mounts[last].2 = "rw,nosuid,nodev,noexec".into();
        assert_eq!(wrong(&posture, &root), ["own groups"]);
        posture.function.mounts[last].1 = "cgroup".into();
        posture.function.mounts[last].2 = "ro,nosuid,nodev,noexec".into();
        assert_eq!(wrong(&posture, &root), ["own groups"], "one of another hierarchy");
        posture.function.mounts.pop();
        assert_eq!(wrong(&posture, &root), ["own groups"]);
        posture.function.mounts.retain(|(point, ..)| point != "/sys");
        assert_eq!(wrong(&posture, &root), ["mounts"]);
        posture.function.mounts.retain(|(point, ..)| point != "/usr");
        assert_eq!(
            wrong(&posture, &Root::Dir { path: "/srv/root".into(), identity: Identity::default() }),
            Vec::<String>::new()
        );
    }

    #[test]
    fn writable_usr_is_seen() {
        let (mut posture, root) = good();
        for mount in &mut posture.function.mounts {
            mount.2 = mount.2.replace("ro,", "rw,");
        }
        assert!(wrong(&posture, &root).contains(&"mount /usr".to_owned()));
    }
}
