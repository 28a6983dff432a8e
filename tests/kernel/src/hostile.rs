//! What a function does that wants out, or at others: rows of shim/HOSTILE.md that no other case shows. Each attempt is first
//! made where nothing is in its way, by the same program: what does not work there proves nothing, and fails the case.

use std::{
    collections::BTreeSet,
    fs::{self, File, FileTimes, Permissions},
    net::{TcpListener, TcpStream},
    os::{
        linux::net::SocketAddrExt as _,
        unix::{
            fs::PermissionsExt as _,
            net::{SocketAddr, UnixListener},
            process::CommandExt as _,
        },
    },
    process::Command,
    time::{Duration, Instant, SystemTime},
};

use sublet_proto::v1::VerdictKind;
use tonic::Code;

use crate::{
    Case, Outcome,
    cage::{apart, outside, run},
    case,
    client::{Client, request},
    configs::Place,
    ensure,
    ground::Need,
    life::{leaves_a_process, no_workers},
    litter,
    supervisor::{self, Supervisor},
    told,
};

/// The cases.
pub const CASES: &[Case] = &[
    case("hostile::worker_inherits_four_descriptors_a_known_posture_and_nothing_else", inherited),
    case("hostile::calls_that_reach_for_rights_or_kernel_objects_are_refused", calls),
    // user-mode-linux has no 32-bit calls of its own.
    Case { name: "hostile::call_by_the_32_bit_table_is_refused_and_named", needs: &[Need::Speed], run: int80 },
    case("hostile::settings_of_the_host_cannot_be_opened", settings),
    case("hostile::processes_of_others_are_not_there_and_init_cannot_be_ended", processes),
    case("hostile::devices_are_five_and_there_is_no_socket", special),
    case("hostile::abstract_sockets_and_ports_are_each_workers_own", sockets),
    case("hostile::setuid_program_gives_no_right", setuid),
    case("hostile::disk_is_full_however_it_is_filled", full),
    case("hostile::names_that_are_hard_to_remove_go_with_their_worker", names),
    case("hostile::memory_in_files_that_are_nowhere_is_the_workers", hoard),
    case("hostile::canary_is_found_by_its_own_sub_tenant_alone", canary),
    case("hostile::reading_leaves_no_time_on_a_shared_file", access_time),
    Case { needs: &[Need::Addresses], ..case("hostile::addresses_differ_from_worker_to_worker", addresses) },
    case("hostile::orphans_are_reaped_and_zombies_count", orphans),
    case("hostile::what_a_subreaper_has_gathered_ends_with_its_worker", subreaper),
    case("hostile::function_that_ends_while_a_child_holds_its_channel_has_ended", heir),
    case("hostile::worker_that_takes_the_nurserys_name_is_told_apart", name),
    case("hostile::slow_half_closed_and_deaf_channels_cost_their_own_call_alone", channel),
];

/// Lines of `facts` that begin with a word, without it.
fn of<'a>(facts: &'a str, word: &str) -> Vec<&'a str> {
    facts.lines().filter_map(|line| line.strip_prefix(word)?.strip_prefix(' ')).collect()
}

/// A shell that has a file open, a variable and a mask that are nobody else's business, and becomes the program.
fn careless(program: std::path::PathBuf) -> Command {
    let mut shell = Command::new("/bin/sh");
    shell.args(["-c", "exec 9</etc/passwd; umask 0077; exec \"$0\" \"$@\""]).arg(program).env("SECRET_CANARY", "1");
    shell
}

/// A posture without the signals that Rust (SIGPIPE) and the C library's posix_spawn (its own two, 32 and 33) ignore.
fn without_own_signals(posture: &str) -> String {
    const OWN: u64 = 1 << 12 | 1 << 31 | 1 << 32;
    let field = |field: &str| match field.strip_prefix("SigIgn: ").map(|bits| u64::from_str_radix(bits, 16)) {
        Some(Ok(bits)) => format!("SigIgn: {:x}", bits & !OWN),
        Some(Err(_)) | None => field.to_owned(),
    };
    posture.split("; ").map(field).collect::<Vec<_>>().join("; ")
}

/// A1, A2, A5, A8 to A12, A14.
fn inherited() -> Outcome {
    let outside = run(careless(supervisor::probe()).args(["hostile", "inherited"]))?;
    for fact in ["fd 9 /etc/passwd", "env SECRET_CANARY", "Umask:\t0077", "NoNewPrivs: 0", "Seccomp: 0"] {
        ensure!(outside.contains(fact), "outside lacks {fact:?}, the case would not see it inside: {outside}");
    }
    ensure!(!outside.contains("CapEff: 0000000000000000"), "{outside}");
    let place = Place::new()?;
    let text = place.simple("pids_max = 64");
    let supervisor = Supervisor::start_command(place, &text, careless(supervisor::program()), &[])?;
    let mut client = Client::new(&supervisor)?;
    let (facts, _) = client.probe("s1", "hostile inherited")?;
    let descriptors: Vec<&str> = of(&facts, "fd").iter().map(|fd| fd.split(['[', ':']).next().unwrap_or(fd)).collect();
    ensure!(descriptors == ["0 /dev/null", "1 pipe", "2 pipe", "3 socket"], "{descriptors:?}");
    ensure!(of(&facts, "cwd").first().is_some_and(|cwd| ["/", "/tmp", "/function"].contains(cwd)), "{facts}");
    let known = [
        "PATH",
        "HOME",
        "TMPDIR",
        "LANG",
        "SUBLET_TENANT",
        "SUBLET_FUNCTION",
        "SUBLET_SUB_TENANT",
        "SUBLET_MEMORY_MAX",
        "SUBLET_CPU_QUOTA",
        "GOMEMLIMIT",
        "GOMAXPROCS",
        "OMP_NUM_THREADS",
        "NODE_OPTIONS",
        "JAVA_TOOL_OPTIONS",
    ];
    let variables = of(&facts, "env");
    ensure!(variables.iter().all(|name| known.contains(name)), "{variables:?}");
    let threads: BTreeSet<String> = of(&facts, "thread").into_iter().map(without_own_signals).collect();
    let posture = "Uid: 1000 1000 1000 1000; Gid: 1000 1000 1000 1000; Groups:; SigBlk: 0000000000000000; SigIgn: 0; \
                   CapInh: 0000000000000000; CapPrm: 0000000000000000; CapEff: 0000000000000000; \
                   CapBnd: 0000000000000000; CapAmb: 0000000000000000; NoNewPrivs: 1; Seccomp: 2; Seccomp_filters: ";
    ensure!(threads.len() == 1 && threads.iter().all(|one| one.starts_with(posture)), "33 threads have {threads:?}");
    let children: BTreeSet<String> = of(&facts, "child").into_iter().map(without_own_signals).collect();
    ensure!(children == threads, "a child has {children:?}");
    for fact in ["oom_score_adj 700", "setgroups deny", "nice 0", "scheduler 0", "personality 0", "timerslack 50000"] {
        ensure!(facts.lines().any(|line| line == fact), "{fact:?} is not among {facts}");
    }
    let ids: Vec<&str> = of(&facts, "uid_map").iter().flat_map(|map| map.split(' ')).collect();
    ensure!(ids.len() == 6 && (ids[0], ids[2], ids[3], ids[5]) == ("999", "1", "1000", "1"), "{ids:?}");
    ensure!(of(&facts, "shared").is_empty(), "{:?}", of(&facts, "shared"));
    supervisor.stop()
}

/// Names of calls, and the errno each must meet inside: which layer answered matters.
const CALLS: &[(&str, &str)] = &[
    ("setresuid", "EINVAL"),
    ("setresgid", "EINVAL"),
    ("setgroups", "EPERM"),
    ("capset", "EPERM"),
    ("ambient", "EINVAL"),
    ("securebits", "EINVAL"),
    ("set-mm", "EINVAL"),
    ("core-scheduling", "EINVAL"),
    ("tsc", "EINVAL"),
    ("listener", "EPERM"),
    ("ptrace-me", "EPERM"),
    ("process_vm_writev", "EPERM"),
    ("pidfd_getfd", "ENOSYS"),
    ("process_madvise", "ENOSYS"),
    ("kcmp", "EPERM"),
    ("modify_ldt", "EPERM"),
    ("iopl", "EPERM"),
    ("syslog", "EPERM"),
    ("quotactl", "EPERM"),
    ("adjtimex", "EPERM"),
    ("fanotify", "EPERM"),
    ("name_to_handle", "EPERM"),
    ("mknod", "EPERM"),
    ("immutable", "ENOTTY"),
    ("setns-own", "EPERM"),
    ("ns-user", "ENOTTY"),
    ("ns-parent", "ENOTTY"),
    ("shmget", "ENOSYS"),
    ("semget", "ENOSYS"),
    ("msgget", "ENOSYS"),
    ("mq_open", "ENOSYS"),
    ("fifo-scheduling", "EPERM"),
    ("ioprio", "EPERM"),
    ("affinity", "ENOSYS"),
    ("nested-chroot", "EPERM"),
    ("set-flags", "ENOTTY"),
    ("set-attributes-of-file", "ENOTTY"),
    ("mptcp", "EAFNOSUPPORT"),
    ("landlock", "ENOSYS"),
    // New namespaces.
    ("unshare-mnt", "EPERM"),
    ("unshare-cgroup", "EPERM"),
    ("unshare-uts", "EPERM"),
    ("unshare-ipc", "EPERM"),
    ("unshare-user", "EPERM"),
    ("unshare-pid", "EPERM"),
    ("unshare-net", "EPERM"),
    ("unshare-time", "EPERM"),
    ("unshare-all", "EPERM"),
    ("clone-mnt", "EPERM"),
    ("clone-cgroup", "EPERM"),
    ("clone-uts", "EPERM"),
    ("clone-ipc", "EPERM"),
    ("clone-user", "EPERM"),
    ("clone-pid", "EPERM"),
    ("clone-net", "EPERM"),
    ("clone-all", "EPERM"),
    ("clone3", "ENOSYS"),
    ("clone3-thread", "ENOSYS"),
    ("clone3-user", "ENOSYS"),
    ("clone3-all", "ENOSYS"),
    // Mounting, by pointers that lead nowhere: outside it is these that are found wrong.
    ("pivot_root", "EPERM"),
    ("umount2", "EPERM"),
    ("fsopen", "ENOSYS"),
    ("fsconfig", "ENOSYS"),
    ("fsmount", "ENOSYS"),
    ("fspick", "ENOSYS"),
    ("move_mount", "ENOSYS"),
    ("open_tree", "ENOSYS"),
    ("open_tree_attr", "ENOSYS"),
    ("mount_setattr", "ENOSYS"),
    // Administration of the host, in the same way.
    ("init_module", "EPERM"),
    ("delete_module", "EPERM"),
    ("kexec_file", "ENOSYS"),
    ("swapoff", "EPERM"),
    ("acct", "EPERM"),
    ("settimeofday", "EPERM"),
    ("clock_settime", "EPERM"),
    ("clock_adjtime", "EPERM"),
    ("setdomainname", "EPERM"),
    ("quotactl_fd", "EPERM"),
    ("nfsservctl", "EPERM"),
    ("uselib", "EPERM"),
    ("lookup_dcookie", "EPERM"),
    ("vserver", "EPERM"),
    ("ioperm", "EPERM"),
    ("vhangup", "EPERM"),
];

/// B2, B7 to B9, C8, D1, D2, D4, D5, D7, D10, D11, D16, D17, D26, D27, E10, E12, F13.
fn calls() -> Outcome {
    let supervisor = Supervisor::simple("")?;
    let mut client = Client::new(&supervisor)?;
    let mut unproven = Vec::new();
    for (name, inside) in CALLS {
        let refused = match client.ask("probe", "s1", &format!("hostile call {name}")) {
            Ok(_) => return Err(format!("{name} worked inside")),
            Err(error) => error,
        };
        ensure!(refused.contains(&format!("{name}: {inside}")), "{name}: expected {inside}, got {refused}");
        let outside = apart(&["hostile", "call", name]);
        if outside.is_err_and(|error| error == format!("{name}: {inside}")) {
            unproven.push(*name);
        }
    }
    // The segment that one of them has made, in whose namespace it was made.
    apart(&["hostile", "call", "shm-remove"])?;
    // A kernel may lack some, and a container refuse some; most must tell in from out.
    ensure!(unproven.len() <= CALLS.len() / 4, "{unproven:?} do the same outside; the list proves too little here");
    outside(&["hostile", "credentials"])?;
    let forged = client.ask("probe", "s1", "hostile credentials");
    ensure!(forged.as_ref().is_err_and(|e| e.contains("forge: E")), "credentials: {forged:?}");
    supervisor.stop()
}

/// D12.
fn int80() -> Outcome {
    outside(&["hostile", "call", "int80"])?;
    let supervisor = Supervisor::simple("")?;
    let mut client = Client::new(&supervisor)?;
    let verdict = client.verdict("probe", "hostile call int80", VerdictKind::FunctionError, Code::Unknown)?;
    ensure!(verdict.function_error.as_ref() == b"int80: EPERM", "{:?}", verdict.function_error);
    ensure!(verdict.refused_syscalls == ["#20 of another architecture"], "{:?}", verdict.refused_syscalls);
    supervisor.stop()?;

    let supervisor = Supervisor::simple("on_refused_syscall = \"kill\"")?;
    let mut client = Client::new(&supervisor)?;
    let verdict = client.verdict("probe", "hostile call int80", VerdictKind::RefusedSyscall, Code::Unknown)?;
    ensure!(verdict.seen == "#20 of another architecture", "{:?}", verdict.seen);
    supervisor.stop()
}

/// C1, C9, F19.
fn settings() -> Outcome {
    let supervisor = Supervisor::simple("")?;
    let mut client = Client::new(&supervisor)?;
    let mut proven = 0;
    for path in [
        "/proc/sys/kernel/core_pattern",
        "/proc/sys/kernel/modprobe",
        "/proc/sys/kernel/ns_last_pid",
        "/proc/sys/vm/drop_caches",
        "/proc/sysrq-trigger",
        "/sys/kernel/uevent_helper",
        "/sys/kernel/mm/ksm/run",
        "/sys/fs/cgroup/cgroup.procs",
        "/sys/fs/cgroup/memory/cgroup.procs",
        "/sys/kernel/debug",
        "/dev/kmsg",
        "/dev/fuse",
    ] {
        proven += usize::from(outside(&["hostile", "may-write", path]).is_ok());
        let inside = client.ask("probe", "s1", &format!("hostile may-write {path}"));
        // The worker's own groups are there, to be read.
        let is_group = path.starts_with("/sys/fs/cgroup");
        let is_refused = |error: &String| {
            error.contains("No such file")
                || is_group && ["Permission denied", "Read-only"].iter().any(|why| error.contains(why))
        };
        ensure!(inside.as_ref().is_err_and(is_refused), "{path} inside: {inside:?}");
    }
    ensure!(proven >= 3, "only {proven} of them can be opened outside; the list proves too little here");
    let (mounts, _) = client.probe("s1", "read /proc/self/mountinfo")?;
    let kinds: BTreeSet<&str> = mounts.lines().filter_map(|line| line.split_once(" - ")?.1.split(' ').next()).collect();
    for group in mounts.lines().filter(|line| line.contains(" - cgroup")) {
        // Of each hierarchy the part that begins at the worker's own group, read-only.
        ensure!(group.contains(" / /sys/fs/cgroup") && group.contains(" ro,nosuid,nodev,noexec"), "{group}");
    }
    for kind in ["sysfs", "debugfs", "tracefs", "bpf", "securityfs", "efivarfs", "configfs", "fusectl"] {
        ensure!(!kinds.contains(kind), "a {kind} is mounted inside: {mounts}");
    }
    ensure!(kinds.contains("proc"), "the mounts are not read: {mounts}");
    supervisor.stop()
}

/// C5, D6, G12.
fn processes() -> Outcome {
    let supervisor = Supervisor::simple("")?;
    let mut client = Client::new(&supervisor)?;
    client.probe("other", "echo here")?;
    let own = std::process::id().to_string();
    ensure!(outside(&["hostile", "pids", &own])?.lines().any(|pid| pid == own), "we are not seen outside");
    let (seen, before) = client.probe("s1", &format!("hostile pids {own}"))?;
    let seen: Vec<&str> = seen.lines().collect();
    ensure!(seen.len() <= 3 && seen.first() == Some(&"1") && seen.iter().all(|pid| pid.len() < 3), "{seen:?}");
    for signal in [9, 19] {
        let mut victim = told(Command::new("sleep").arg("60").spawn())?;
        let sent = outside(&["hostile", "signal", &victim.id().to_string(), &signal.to_string()]);
        told(victim.kill())?;
        told(victim.wait())?;
        sent?;
        let inside = client.ask("probe", "s1", &format!("hostile signal 1 {signal}"));
        ensure!(inside.as_ref().is_err_and(|e| e.contains("EPERM")), "init is sent {signal}: {inside:?}");
    }
    let (_, after) = client.probe("s1", "echo here")?;
    ensure!(after.worker == before.worker, "its worker has ended");
    supervisor.stop()
}

/// B7, E9.
fn special() -> Outcome {
    let supervisor = Supervisor::simple("")?;
    let mut client = Client::new(&supervisor)?;
    let state = supervisor.place.path("state").display().to_string();
    let outside = outside(&["hostile", "special", &state])?;
    ensure!(outside.contains(&format!("s {state}/call.sock")), "{outside}");
    let (inside, _) = client.probe("s1", "hostile special /")?;
    ensure!(inside == "c /dev/full\nc /dev/null\nc /dev/random\nc /dev/urandom\nc /dev/zero", "{inside}");
    supervisor.stop()
}

/// E8, E14.
fn sockets() -> Outcome {
    let supervisor = Supervisor::simple("")?;
    let mut client = Client::new(&supervisor)?;
    let name = format!("sublet-{}", supervisor.place.instance);
    let _listener = told(SocketAddr::from_abstract_name(&name).and_then(|address| UnixListener::bind_addr(&address)))?;
    outside(&["hostile", "abstract", &name])?;
    let inside = client.ask("probe", "s1", &format!("hostile abstract {name}"));
    ensure!(inside.as_ref().is_err_and(|e| e.contains("Connection refused")), "inside: {inside:?}");
    // A port that nobody has here.
    let port = told(TcpListener::bind("127.0.0.1:0").and_then(|free| free.local_addr()))?.port();
    client.probe("s1", &format!("hostile listen {port}"))?;
    client.probe("s1", &format!("connect 127.0.0.1:{port}"))?;
    let neighbour = client.ask("probe", "s2", &format!("connect 127.0.0.1:{port}"));
    ensure!(neighbour.as_ref().is_err_and(|e| e.contains("Connection refused")), "a neighbour: {neighbour:?}");
    ensure!(TcpStream::connect(("127.0.0.1", port)).is_err(), "the host reaches a port of a worker");
    supervisor.stop()
}

/// B6.
fn setuid() -> Outcome {
    let supervisor = Supervisor::simple("")?;
    let mut client = Client::new(&supervisor)?;
    let program = supervisor.place.path("fn/setuid");
    told(fs::copy(supervisor::probe(), &program))?;
    told(fs::set_permissions(&program, Permissions::from_mode(0o4755)))?;
    let outside = run(Command::new(&program).args(["hostile", "euid"]).uid(65534).gid(65534))?;
    ensure!(outside == "0", "the program gives nothing outside either: {outside}");
    let (inside, _) = client.probe("s1", "hostile run /function/setuid hostile euid")?;
    ensure!(inside == "1000", "{inside}");
    supervisor.stop()
}

/// The probe, with a /tmp of its own that is the machine's in size.
pub fn with_tmp(words: &[&str]) -> Result<String, String> {
    let mut command = Command::new("unshare");
    command.args([
        "--mount",
        "--propagation",
        "private",
        "/bin/sh",
        "-c",
        "mount -t tmpfs none /tmp && exec \"$0\" \"$@\"",
    ]);
    run(command.arg(supervisor::probe()).args(words))
}

/// B11.
fn full() -> Outcome {
    let supervisor = Supervisor::simple("payload_max = \"8MiB\"")?;
    let mut client = Client::new(&supervisor)?;
    for how in ["write", "fallocate", "sparse", "tmpfile", "unlinked"] {
        with_tmp(&["hostile", "fill", how, "6"])?;
        client.probe(how, &format!("hostile fill {how} 2"))?;
        let inside = client.ask("probe", how, &format!("hostile fill {how} 6"));
        ensure!(inside.as_ref().is_err_and(|e| e.contains("ENOSPC")), "{how}: {inside:?}");
    }
    supervisor.stop()
}

/// B9, B10, B12.
fn names() -> Outcome {
    let supervisor = Supervisor::simple("")?;
    let mut client = Client::new(&supervisor)?;
    for how in ["deep", "wide"] {
        with_tmp(&["hostile", "names", how, "200"])?;
        // 64 files and directories are allowed.
        client.probe(how, &format!("hostile names {how} 50"))?;
        let inside = client.ask("probe", &format!("{how}-more"), &format!("hostile names {how} 200"));
        ensure!(inside.as_ref().is_err_and(|e| e.contains("No space left")), "{how}: {inside:?}");
    }
    let begun = Instant::now();
    supervisor.admin(&["evict", "--tenant", "acme"])?;
    no_workers(&supervisor)?;
    ensure!(begun.elapsed() < Duration::from_secs(5), "they took {:?} to remove", begun.elapsed());
    supervisor.stop()
}

/// F3.
fn hoard() -> Outcome {
    // A memfd may be as large as an answer; /tmp as large as the memory, of which the process has some already.
    let supervisor = Supervisor::simple("memory_max = \"32MiB\"\ntmp_size = \"32MiB\"\nanswer_max = \"64MiB\"")?;
    let mut client = Client::new(&supervisor)?;
    client.probe("neighbour", "echo here")?;
    for (name, verb) in [("memfd", "hostile memfd 60"), ("unlinked", "hostile fill unlinked 32")] {
        with_tmp(&verb.split(' ').collect::<Vec<_>>())?;
        client.verdict_of(request("probe", name, verb), VerdictKind::Memory, Code::ResourceExhausted)?;
    }
    let (_, receipt) = client.probe("neighbour", "echo on")?;
    ensure!(receipt.calls == 2, "the neighbour got another worker");
    supervisor.stop()
}

/// B18, and B19: what is kept is the sub-tenant's own.
fn canary() -> Outcome {
    let supervisor = Supervisor::simple("")?;
    let mut client = Client::new(&supervisor)?;
    let needle = format!("canary-{}", supervisor.place.instance);
    client.probe("s1", &format!("put kept {needle}"))?;
    let (own, _) = client.probe("s1", &format!("hostile search {needle}"))?;
    ensure!(own == "/tmp/kept\n", "it does not find its own: {own:?}");
    let (other, _) = client.probe("s2", &format!("hostile search {needle}"))?;
    ensure!(other.is_empty(), "another sub-tenant finds {other}");
    supervisor.stop()
}

/// B17.
fn access_time() -> Outcome {
    let supervisor = Supervisor::simple("")?;
    let mut client = Client::new(&supervisor)?;
    let file = supervisor.place.path("fn/shared");
    told(fs::write(&file, "shared"))?;
    let long_ago = SystemTime::UNIX_EPOCH + Duration::from_secs(1_000_000_000);
    let age = || {
        told(File::options().write(true).open(&file).and_then(|f| f.set_times(FileTimes::new().set_accessed(long_ago))))
    };
    let accessed = || told(fs::metadata(&file).and_then(|metadata| metadata.accessed()));
    age()?;
    outside(&["read", &file.display().to_string()])?;
    ensure!(accessed()? > long_ago, "this file system keeps no time of access; nothing is proven");
    age()?;
    let (text, _) = client.probe("s1", "read /function/shared")?;
    ensure!(text == "shared" && accessed()? == long_ago, "a worker's read is seen by all who share the file");
    supervisor.stop()
}

/// Names and places in the answer of `hostile layout`.
fn places(answer: &str) -> Vec<(String, String)> {
    answer.lines().filter_map(|line| line.rsplit_once(' ')).map(|(name, at)| (name.to_owned(), at.to_owned())).collect()
}

/// I1.
fn addresses() -> Outcome {
    let fixed = || run(Command::new("setarch").arg("-R").arg(supervisor::probe()).args(["hostile", "layout"]));
    let (one, other) = (places(&fixed()?), places(&fixed()?));
    let same = one.iter().filter(|place| other.contains(place)).count();
    ensure!(same >= 2, "without randomisation the places are {one:?} and {other:?}; the case would not see it");
    let supervisor = Supervisor::simple("")?;
    let mut client = Client::new(&supervisor)?;
    let mut seen: BTreeSet<(String, String)> = BTreeSet::new();
    for at in 0..4 {
        let (answer, _) = client.probe(&format!("s{at}"), "hostile layout")?;
        let found = places(&answer);
        ensure!(found.len() >= 3, "{answer}");
        for place in found {
            ensure!(seen.insert(place.clone()), "two workers have {} at {}", place.0, place.1);
        }
    }
    supervisor.stop()
}

/// G3.
fn orphans() -> Outcome {
    // 16 processes are allowed.
    let supervisor = Supervisor::simple("")?;
    let mut client = Client::new(&supervisor)?;
    let (answer, _) = client.probe("s1", "hostile orphans 60")?;
    ensure!(answer == "made 60 orphans", "{answer}");
    outside(&["hostile", "zombies", "60"])?;
    let inside = client.ask("probe", "s2", "hostile zombies 60");
    ensure!(inside.as_ref().is_err_and(|e| e.contains("fork number 1") && e.contains("EAGAIN")), "{inside:?}");
    supervisor.stop()
}

/// G1, G4.
fn subreaper() -> Outcome {
    leaves_a_process("hostile subreaper")
}

/// G5.
fn heir() -> Outcome {
    let supervisor = Supervisor::simple("timeout = \"30s\"")?;
    let mut client = Client::new(&supervisor)?;
    let begun = Instant::now();
    let verdict = client.verdict("probe", "raw heir", VerdictKind::Exit, Code::Unknown)?;
    ensure!(verdict.seen == "status 0", "{verdict:?}");
    ensure!(begun.elapsed() < Duration::from_secs(20), "the child was waited for: {:?}", begun.elapsed());
    no_workers(&supervisor)?;
    let left: Vec<String> = litter::found().into_iter().filter(|what| what.contains("/function/probe")).collect();
    ensure!(left.is_empty(), "{left:?}");
    supervisor.stop()
}

/// G10.
fn name() -> Outcome {
    let supervisor = Supervisor::simple("")?;
    let mut client = Client::new(&supervisor)?;
    let (_, receipt) = client.probe("s1", "hostile name sublet-nursery")?;
    let described = supervisor.admin(&["describe", &receipt.worker])?;
    let group = described["cgroup"].as_str().ok_or("no cgroup")?;
    let members = told(fs::read_to_string(format!("{group}/cgroup.procs")))?;
    let named = members.lines().filter_map(|pid| fs::read_to_string(format!("/proc/{pid}/comm")).ok());
    ensure!(named.into_iter().any(|name| name == "sublet-nursery\n"), "it has not taken the name");
    let (_, second) = client.probe("s1", "echo on")?;
    ensure!(second.worker == receipt.worker, "its worker has ended");
    supervisor.admin(&["evict", &receipt.worker])?;
    no_workers(&supervisor)?;
    client.probe("s2", "echo here")?;
    supervisor.stop()
}

/// H1, H12, H15.
fn channel() -> Outcome {
    let supervisor = Supervisor::simple("timeout = \"500ms\"\npayload_max = \"6MiB\"")?;
    let mut client = Client::new(&supervisor)?;
    client.probe("neighbour", "echo here")?;
    for (how, kind, code) in [
        ("drip", VerdictKind::Deadline, Code::DeadlineExceeded),
        ("close-read", VerdictKind::Deadline, Code::DeadlineExceeded),
        ("close-write", VerdictKind::BadFrame, Code::Unknown),
    ] {
        client.verdict_of(request("probe", how, &format!("raw {how}")), kind, code)?;
    }
    let (answer, _) = client.probe("deaf", "raw deaf")?;
    ensure!(answer == "answered", "{answer}");
    let busy = std::thread::spawn({
        let mut client = Client::new(&supervisor)?;
        // Far more than a socket holds: it stands in the supervisor's write.
        let call = request("probe", "deaf", &"x".repeat(4 << 20));
        move || client.verdict_of(call, VerdictKind::Deadline, Code::DeadlineExceeded)
    });
    let mut answered = 0;
    while !busy.is_finished() {
        let (_, receipt) = client.probe("neighbour", "echo on")?;
        answered += 1;
        ensure!(receipt.calls == answered + 1, "the neighbour got another worker");
    }
    busy.join().map_err(|_| "the call's thread failed")??;
    ensure!(answered >= 3, "a neighbour had {answered} answers while it was written to");
    supervisor.stop()
}
