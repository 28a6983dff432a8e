use sublet_proto::link::sandbox::Identity;

use super::*;

/// Every line a plan can have, in the order of all plans, with the condition under which it is there. Conditions are
/// words of [`Case`]; a line has all of its conditions.
const GOLDEN: &[(&[&str], &str, &str)] = &[
    (
        &[],
        "nursery",
        "clone3 into user, pid, mount, net, ipc, uts namespaces owned by uid 70000 and cgroup t-acme/s-0f/w-17",
    ),
    (&["v1"], "init", "join the v1 groups of the same path"),
    (&[], "nursery", "map uid and gid 999 to 70000, 1000 to 70001"),
    (&[], "init", "wait until the ids are mapped"),
    (&["time"], "init", "unshare cgroup and time namespaces"),
    (&["no-time"], "init", "unshare the cgroup namespace"),
    (&["time"], "init", "set the monotonic and boot clocks to a random age of 1 to 720 hours"),
    (&[], "init", "make all mounts private"),
    (&["host"], "init", "mount the prepared skeleton as the root, read-only"),
    (&["static"], "init", "mount the prepared skeleton as the root, read-only"),
    (&["dir"], "init", "mount /srv/root as the root, read-only"),
    (&["host"], "init", "mount the host's /usr, read-only"),
    (&[], "init", "mount /dev: null, zero, full, random, urandom, fd links"),
    (&[], "init", "mount /srv/fn on /function, read-only"),
    (&[], "init", "mount tmpfs /tmp with size=1048576,nr_inodes=512"),
    (&["token"], "init", "mount tmpfs /run/sublet with size=65536,nr_inodes=4, read-only for all but init"),
    (&[], "init", "set oom_score_adj to 700"),
    (
        &[],
        "init",
        "mount /proc with hidepid=invisible,subset=pid and /sys; they show 67108864 bytes of memory, processors for 1500 \
         thousandths of a CPU and the worker's own groups",
    ),
    (
        &[],
        "init",
        "set the maxima of the user namespace: 64 inotify instances, 8192 inotify watches, no user namespaces, pid \
         namespaces, uts namespaces, ipc namespaces, net namespaces, mnt namespaces, cgroup namespaces, time \
         namespaces, fanotify groups, fanotify marks",
    ),
    (&[], "init", "pivot_root and detach the old root"),
    (&[], "init", "set the host name to worker"),
    (&[], "init", "bring the loopback interface up"),
    (&[], "init", "start a new session with a new keyring"),
    (&[], "init", "fork the launcher"),
    (
        &["no-token"],
        "init",
        "confine init: uid 999, no capabilities, no_new_privs, own system call filter, dies with the nursery",
    ),
    (
        &["token"],
        "init",
        "confine init: uid 999, no capabilities, no_new_privs, own system call filter, dies with the nursery, may \
         write /run/sublet/token",
    ),
    (&[], "launcher", "keep descriptors 0 null, 1 and 2 log, 3 channel; close all others"),
    (
        &[],
        "launcher",
        "set rlimits: nofile 64, fsize 2097152, stack 8388608, core 0, memlock 65536, msgqueue 0, sigpending 128, \
         rtprio 0, nice 0",
    ),
    (&[], "launcher", "switch to uid and gid 1000"),
    (&[], "launcher", "empty the bounding, ambient, inheritable, permitted, effective sets"),
    (&[], "launcher", "set no_new_privs"),
    (&["bypass"], "launcher", "forbid speculation by indirect branches, where it can be"),
    (&["no-bypass"], "launcher", "forbid speculation by indirect branches and store bypass, where they can be"),
    (&["landlock"], "launcher", "restrict files by landlock"),
    (&["landlock"], "launcher", "prove landlock: no character device can be made in /tmp"),
    (&[], "launcher", "prove the maxima: no user namespace can be made"),
    (&[], "launcher", "prove the keyring: the nursery's key is not found"),
    (&["errno"], "launcher", "install the system call filters; others fail with EPERM"),
    (&["kill"], "launcher", "install the system call filters; others end the worker"),
    (&[], "launcher", "wait until init is confined"),
    (&[], "launcher", "report CONFINED, wait until the supervisor has checked from outside"),
    (&["stream", "direct"], "launcher", "execve /function/main --flag"),
    (&["stream", "relayed"], "launcher", "relay frames without descriptors, fork and execve /function/main --flag"),
    (&["exec"], "launcher", "serve calls: fork and execve /function/main --flag for each"),
    (&["lambda"], "launcher", "serve the Lambda Runtime API on 127.0.0.1:9001, fork and execve /function/main --flag"),
];

/// One combination, by the words of its conditions.
type Case = Vec<&'static str>;

/// Every combination.
fn cases() -> Vec<Case> {
    let choices: [&[&str]; 9] = [
        &["host", "static", "dir"],
        &["stream", "exec", "lambda"],
        &["token", "no-token"],
        &["v1", "v2"],
        &["time", "no-time"],
        &["landlock", "no-landlock"],
        &["errno", "kill"],
        &["direct", "relayed"],
        &["bypass", "no-bypass"],
    ];
    choices.iter().fold(vec![Case::new()], |cases, words| {
        let with = |case: &Case, word| case.iter().copied().chain([word]).collect();
        cases.iter().flat_map(|case| words.iter().map(move |word| with(case, *word))).collect()
    })
}

fn planned(case: &Case) -> Vec<String> {
    let is = |word| case.contains(&word);
    let layers = [(Layer::Time, "no-time"), (Layer::Landlock, "no-landlock")];
    let missing_layers: Vec<Layer> = layers.into_iter().filter(|(_, word)| is(*word)).map(|(layer, _)| layer).collect();
    let spec = SandboxSpec {
        slot: 0,
        cgroup: "t-acme/s-0f/w-17".into(),
        root: match () {
            () if is("host") => Root::Host,
            () if is("static") => Root::Static,
            () => Root::Dir { path: "/srv/root".into(), identity: Identity::default() },
        },
        function_dir: "/srv/fn".into(),
        function_identity: Identity::default(),
        command: vec!["/function/main".into(), "--flag".into()],
        protocol: match () {
            () if is("stream") => Protocol::Stream,
            () if is("exec") => Protocol::Exec,
            () => Protocol::Lambda,
        },
        on_refused: if is("kill") { OnRefused::Kill } else { OnRefused::Errno },
        limits: InnerLimits {
            nofile: 64,
            tmp_bytes: 1 << 20,
            file_bytes: 2 << 20,
            tmp_inodes: 512,
            stack_bytes: 8 << 20,
        },
        shown: ShownLimits { memory_bytes: 64 << 20, cpu_millis: Some(1500) },
        token: is("token"),
        answer_max_bytes: 1,
        payload_max_bytes: 1,
    };
    let facts = HostFacts {
        host_init_uid: 70_000,
        v1_groups: is("v1"),
        missing_layers: &missing_layers,
        relays_streams: is("relayed"),
        forbid_store_bypass: is("no-bypass"),
    };
    plan(&spec, &facts).steps().iter().map(|step| format!("{}: {step}", step.performer())).collect()
}

#[test]
fn plan_of_every_combination_is_as_written_here() {
    let cases = cases();
    assert_eq!(cases.len(), 3 * 3 * 2_usize.pow(7));
    for case in cases {
        let due: Vec<String> = (GOLDEN.iter())
            .filter(|(conditions, ..)| conditions.iter().all(|word| case.contains(word)))
            .map(|(_, performer, text)| format!("{performer}: {text}"))
            .collect();
        assert_eq!(planned(&case), due, "{case:?}");
    }
}
