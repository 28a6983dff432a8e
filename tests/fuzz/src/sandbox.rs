//! What a supervisor that obeys somebody else may ask the nursery for: each request is refused, or makes a complete sandbox
//! within the bounds the nursery was told at its start, and nothing else.

use std::{
    collections::BTreeSet,
    path::{Component, Path},
};

use bolero::TypeGenerator;
use sublet_proto::link::{
    nursery::{MESSAGE_LIMIT, Request},
    sandbox::{
        CgroupDirs, Identity, InnerLimits, Layer, NurseryConfig, OnRefused, Protocol, Root, SandboxSpec, ShownLimits,
    },
};
use sublet_shim::{
    check::{check, host_init_uid},
    plan::{HostFacts, plan},
};

use crate::target;

/// Bounds that a nursery may have been told: some, with layers accepted to miss, and at the end of all uids.
fn bounds() -> [NurseryConfig; 3] {
    let some = NurseryConfig {
        uid_base: 1_000_000,
        uid_count: 20,
        supervisor_uid: 999_999,
        allowed_dirs: vec!["/srv/functions".into(), "/srv/roots/a".into()],
        scratch_dir: "/var/lib/sublet/scratch".into(),
        cgroups: CgroupDirs::default(),
        missing_layers: vec![],
        sockets: vec![],
        forbid_store_bypass: false,
    };
    let lacking = NurseryConfig { missing_layers: Layer::MAY_BE_MISSING.to_vec(), ..some.clone() };
    let last = NurseryConfig { uid_base: u32::MAX - 4, uid_count: 4, ..some.clone() };
    [some, lacking, last]
}

/// Slots of living sandboxes.
const IN_USE: [u32; 2] = [0, 7];

/// Whether a directory is one of the allowed ones or below, whichever way it is written.
fn is_allowed(config: &NurseryConfig, dir: &str) -> bool {
    let is_plain = Path::new(dir).components().all(|part| matches!(part, Component::RootDir | Component::Normal(_)));
    is_plain && !dir.contains('\0') && config.allowed_dirs.iter().any(|allowed| Path::new(dir).starts_with(allowed))
}

fn is_group_of_a_worker(group: &str) -> bool {
    let parts: Vec<&str> = group.split('/').collect();
    parts.len() == 3
        && ["t-", "s-", "w-"].iter().zip(&parts).all(|(prefix, part)| part.starts_with(prefix) && part.len() > 2)
        && group.chars().all(|c| "abcdefghijklmnopqrstuvwxyz0123456789-_/".contains(c))
}

/// How each step begins that a complete sandbox needs, in their order. Others may stand between them.
fn complete(spec: &SandboxSpec, config: &NurseryConfig, uid: u32, on_v1: bool) -> Vec<String> {
    let is_missing = |layer| config.missing_layers.contains(&layer);
    let limits = &spec.limits;
    let mut steps = vec!["clone3 into user, pid, mount, net, ipc, uts namespaces".to_owned()];
    if on_v1 {
        steps.push("join the v1 groups".into());
    }
    steps.push(format!("map uid and gid 999 to {uid}, 1000 to {}", uid + 1));
    let time = if is_missing(Layer::Time) { "the cgroup namespace" } else { "cgroup and time namespaces" };
    steps.push(format!("unshare {time}"));
    steps.push("make all mounts private".into());
    steps.push(match &spec.root {
        Root::Dir { path, .. } => format!("mount {path} as the root, read-only"),
        Root::Host | Root::Static => "mount the prepared skeleton as the root, read-only".into(),
    });
    if spec.root == Root::Host {
        steps.push("mount the host's /usr, read-only".into());
    }
    steps.push("mount /dev: null, zero, full, random, urandom".into());
    steps.push(format!("mount {} on /function, read-only", spec.function_dir));
    steps.push(format!("mount tmpfs /tmp with size={},nr_inodes={}", limits.tmp_bytes, limits.tmp_inodes));
    if spec.token {
        steps.push("mount tmpfs /run/sublet with size=65536,nr_inodes=4, read-only for all but init".into());
    }
    for step in [
        "set oom_score_adj to",
        "mount /proc with hidepid=invisible,subset=pid and /sys; ",
        "set the maxima of the user namespace: ",
        "pivot_root and detach the old root",
        "set the host name",
        "bring the loopback interface up",
        "start a new session with a new keyring",
        "fork the launcher",
        "confine init: uid 999, no capabilities, no_new_privs, own system call filter",
        "keep descriptors 0 null, 1 and 2 log, 3 channel; close all others",
        "set rlimits: ",
        "switch to uid and gid 1000",
        "empty the bounding, ambient, inheritable, permitted, effective sets",
        "set no_new_privs",
    ] {
        steps.push(step.into());
    }
    if !is_missing(Layer::Landlock) {
        steps.push("restrict files by landlock".into());
        steps.push("prove landlock: ".into());
    }
    steps.push("prove the maxima: ".into());
    steps.push("prove the keyring: ".into());
    steps.push("install the system call filters; others".into());
    steps.push("wait until init is confined".into());
    steps.push("report CONFINED, wait until the supervisor has checked from outside".into());
    steps.push(match spec.protocol {
        Protocol::Stream => format!("execve {}", spec.command.join(" ")),
        Protocol::Exec => format!("serve calls: fork and execve {}", spec.command.join(" ")),
        Protocol::Lambda => "serve the Lambda Runtime API on 127.0.0.1:9001, fork and execve".into(),
    });
    steps
}

fn refused_or_complete(spec: &SandboxSpec, config: &NurseryConfig) {
    let first = u64::from(config.uid_base) + 2 * u64::from(spec.slot);
    let limits = &spec.limits;
    let must_be_refused = first + 1 >= u64::from(config.uid_base) + u64::from(config.uid_count)
        || IN_USE.contains(&spec.slot)
        || !is_group_of_a_worker(&spec.cgroup)
        || !is_allowed(config, &spec.function_dir)
        || matches!(&spec.root, Root::Dir { path, .. } if !is_allowed(config, path))
        || spec.command.is_empty()
        || spec.command.iter().any(|text| text.contains('\0'))
        || [limits.nofile, limits.tmp_bytes, limits.file_bytes, limits.tmp_inodes, limits.stack_bytes].contains(&0)
        || spec.shown.memory_bytes == 0
        || spec.shown.cpu_millis == Some(0);
    match check(config, spec, &BTreeSet::from(IN_USE)) {
        Err(refusal) => assert!(!refusal.to_string().is_empty()),
        Ok(()) => {
            assert!(!must_be_refused, "{spec:?} is accepted");
            let uid = host_init_uid(config, spec.slot).expect("it was checked");
            assert_eq!(u64::from(uid), first);
            for on_v1 in [false, true] {
                let facts = HostFacts {
                    host_init_uid: uid,
                    v1_groups: on_v1,
                    missing_layers: &config.missing_layers,
                    forbid_store_bypass: config.forbid_store_bypass,
                    relays_streams: false,
                };
                let plan = plan(spec, &facts);
                let steps: Vec<String> = plan.steps().iter().map(ToString::to_string).collect();
                let complete = complete(spec, config, uid, on_v1);
                assert!(steps[0].ends_with(&format!("cgroup {}", spec.cgroup)), "{}", steps[0]);
                let mut left = steps.iter();
                for begins in &complete {
                    let is_due = |step: &&String| step.starts_with(begins.as_str());
                    assert!(left.any(|step| is_due(&step)), "{begins:?} is not in its place among {steps:#?}");
                    // A directory may have the name of a step.
                    assert!(begins.contains('/') || steps.iter().filter(is_due).count() == 1, "{begins:?} twice");
                }
                assert!(left.next().is_none(), "something comes after the function has been started: {steps:#?}");
            }
        }
    }
}

#[test]
fn spawn_request_of_any_bytes_is_refused_or_complete() {
    target!(MESSAGE_LIMIT).for_each(|input: &[u8]| {
        if let Ok(Request::Spawn { spec, .. }) = serde_json::from_slice(input) {
            bounds().iter().for_each(|config| refused_or_complete(&spec, config));
        }
    });
}

/// Pieces that paths, groups and words are put together of: what is right, and what looks like it.
const PIECES: [&str; 28] = [
    "/",
    "srv",
    "functions",
    "/srv/functions",
    "/srv/functions/",
    "/srv/roots/a",
    "/srv/roots/ab",
    "..",
    ".",
    "//",
    "\0",
    "\n",
    "t-acme",
    "s-0f",
    "w-1",
    "t-acme/s-0f/w-1",
    "t-",
    "s-",
    "w-",
    "T-A",
    "a",
    "x",
    "resize",
    "\u{e9}",
    " ",
    "\u{202e}",
    "-",
    "_",
];

/// A text of such pieces, or a right one.
#[derive(Clone, Debug, TypeGenerator)]
enum Text {
    Right,
    Below(u8),
    Pieces(Vec<u8>),
    Any(String),
}

impl Text {
    fn of(&self, right: &str) -> String {
        let piece = |at: &u8| PIECES[usize::from(*at) % PIECES.len()];
        match self {
            Self::Right => right.to_owned(),
            Self::Below(at) => format!("{right}/{}", piece(at)),
            Self::Pieces(pieces) => pieces.iter().take(8).map(piece).collect(),
            Self::Any(text) => text.chars().take(200).collect(),
        }
    }
}

/// A request as somebody would build one who knows what is refused.
#[derive(Clone, Debug, TypeGenerator)]
struct Hijacked {
    bounds: u8,
    slot: Result<u8, u32>,
    cgroup: Text,
    root: Option<Option<Text>>,
    dir: Text,
    command: Option<Vec<Text>>,
    protocol: u8,
    kill: bool,
    zeros: u8,
    numbers: [u64; 5],
    token: bool,
}

impl Hijacked {
    fn spec(&self) -> SandboxSpec {
        let number = |at: usize| {
            let is_zero = self.zeros & (1 << at) != 0 && self.zeros & 0x80 != 0;
            if is_zero { 0 } else { self.numbers[at].max(1) }
        };
        SandboxSpec {
            slot: match self.slot {
                Ok(near) => near.into(),
                Err(any) => any,
            },
            cgroup: self.cgroup.of("t-acme/s-00ff/w-1"),
            root: match &self.root {
                None => Root::Host,
                Some(None) => Root::Static,
                Some(Some(path)) => Root::Dir { path: path.of("/srv/roots/a"), identity: Identity::default() },
            },
            function_dir: self.dir.of("/srv/functions"),
            function_identity: Identity::default(),
            command: match &self.command {
                None => vec!["/function/resize".into()],
                Some(words) => words.iter().take(4).map(|word| word.of("/function/x")).collect(),
            },
            protocol: [Protocol::Stream, Protocol::Exec, Protocol::Lambda][usize::from(self.protocol % 3)],
            on_refused: if self.kill { OnRefused::Kill } else { OnRefused::Errno },
            limits: InnerLimits {
                nofile: number(0),
                tmp_bytes: number(1),
                file_bytes: number(2),
                tmp_inodes: number(3),
                stack_bytes: number(4),
            },
            shown: ShownLimits { memory_bytes: number(0), cpu_millis: Some(number(1)) },
            token: self.token,
            answer_max_bytes: 1,
            payload_max_bytes: 1,
        }
    }
}

#[test]
fn spawn_request_that_was_built_with_care_is_refused_or_complete() {
    target!(4096).with_type::<Hijacked>().for_each(|request| {
        let bounds = bounds();
        refused_or_complete(&request.spec(), &bounds[usize::from(request.bounds) % bounds.len()]);
    });
}

/// The harness can be passed: there are requests that are accepted, under each of the bounds.
#[test]
fn request_of_nobody_hijacked_is_accepted() {
    let right = Hijacked {
        bounds: 0,
        slot: Ok(1),
        cgroup: Text::Right,
        root: None,
        dir: Text::Right,
        command: None,
        protocol: 0,
        kill: false,
        zeros: 0,
        numbers: [1; 5],
        token: true,
    };
    for config in bounds() {
        assert_eq!(check(&config, &right.spec(), &BTreeSet::from(IN_USE)), Ok(()));
        refused_or_complete(&right.spec(), &config);
    }
}
