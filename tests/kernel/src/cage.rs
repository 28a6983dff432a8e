//! What a worker must not be able to do. Each attempt is first made outside of any sandbox, by root, with the same
//! program: what does not work there either proves nothing, and fails the case.

use std::{
    net::TcpListener,
    process::{Command, Stdio},
};

use crate::{
    Case, Outcome, case,
    client::Client,
    configs::Place,
    ensure,
    ground::{Ground, Need},
    supervisor::{self, Supervisor},
};

/// The cases.
pub const CASES: &[Case] = &[
    case("cage::system_calls_that_work_outside_are_refused_inside", calls),
    case("cage::files_of_the_host_are_not_there", files),
    case("cage::nothing_can_be_written_but_tmp", writes),
    case("cage::network_of_the_host_is_not_reachable", network),
    case("cage::processes_of_others_are_not_there", processes),
    case("cage::limits_of_descriptors_and_core_are_set", rlimits),
    case("cage::posture_is_checked_and_told", posture),
    case("cage::speculation_is_forbidden_where_a_process_may_decide", speculation),
    Case { name: "cage::landlock_is_on", needs: &[Need::LandlockDevices], run: landlock },
];

/// Runs the probe as it is: root, no sandbox.
pub fn outside(words: &[&str]) -> Result<String, String> {
    run(Command::new(supervisor::probe()).args(words))
}

/// The same with mounts and host name of its own: what it may do there would change this machine.
pub fn apart(words: &[&str]) -> Result<String, String> {
    run(Command::new("unshare")
        .args(["--mount", "--uts", "--propagation", "private"])
        .arg(supervisor::probe())
        .args(words))
}

pub fn run(command: &mut Command) -> Result<String, String> {
    let output = command.stdin(Stdio::null()).output().map_err(|error| error.to_string())?;
    if output.status.success() {
        Ok(String::from_utf8_lossy(&output.stdout).into_owned())
    } else {
        Err(String::from_utf8_lossy(&output.stderr).trim().to_owned())
    }
}

fn calls() -> Outcome {
    let supervisor = Supervisor::simple("")?;
    let mut client = Client::new(&supervisor)?;
    let mut proven = 0;
    for (name, inside) in [
        ("mount", "EPERM"),
        ("umount", "EPERM"),
        ("unshare-user", "EPERM"),
        ("unshare-net", "EPERM"),
        ("clone-newuser", "EPERM"),
        ("setuid-root", "EINVAL"),
        ("chroot", "EPERM"),
        ("sethostname", "EPERM"),
        ("ptrace", "EPERM"),
        ("setns", "EPERM"),
        ("bpf", "ENOSYS"),
        ("keyctl", "ENOSYS"),
        ("io_uring", "ENOSYS"),
        ("userfaultfd", "ENOSYS"),
        ("perf", "ENOSYS"),
        ("kexec", "ENOSYS"),
        ("module", "EPERM"),
        ("reboot", "EPERM"),
        ("open_by_handle", "EPERM"),
        ("process_vm_readv", "EPERM"),
        ("x32", "EPERM"),
        ("tiocsti", "ENOTTY"),
        ("packet-socket", "EAFNOSUPPORT"),
        ("netlink-socket", "EAFNOSUPPORT"),
        ("vsock-socket", "EAFNOSUPPORT"),
        ("personality", "EPERM"),
        ("swapon", "EPERM"),
        ("setpriority", "EACCES"),
    ] {
        let refused = match client.ask("probe", "s1", &format!("try {name}")) {
            Ok(_) => return Err(format!("{name} worked inside")),
            Err(error) => error,
        };
        ensure!(refused.contains(&format!("{name}: {inside}")), "{name}: expected {inside}, got {refused}");
        let same = apart(&["try", name]).is_err_and(|error| error == format!("{name}: {inside}"));
        proven += usize::from(!same);
    }
    // A kernel without bpf or io_uring refuses them outside as well; most of the list must tell in from out.
    ensure!(proven >= 10, "only {proven} calls do something else outside; the list proves too little here");
    supervisor.stop()
}

fn files() -> Outcome {
    let supervisor = Supervisor::simple("")?;
    let mut client = Client::new(&supervisor)?;
    let secret = supervisor.place.path("secret");
    std::fs::write(&secret, "host").map_err(|error| error.to_string())?;
    let secret = secret.display().to_string();
    for path in ["/etc/shadow", "/etc/hostname", secret.as_str(), "/proc/sys/kernel/random/boot_id", "/proc/version"] {
        if std::path::Path::new(path).exists() {
            outside(&["read", path])?;
        } else {
            // Minimal machines have no host name file; the others are everywhere.
            ensure!(path == "/etc/hostname", "{path} is not there outside");
        }
        let inside = client.ask("probe", "s1", &format!("read {path}"));
        ensure!(inside.as_ref().is_err_and(|e| e.contains("No such file")), "{path} inside: {inside:?}");
    }
    let (root, _) = client.probe("s1", "list /")?;
    let expected = ["dev", "etc", "function", "proc", "sys", "tmp", "usr"];
    let links = ["bin", "lib", "lib32", "lib64", "sbin"];
    let others: Vec<&str> = root.lines().filter(|n| !expected.contains(n) && !links.contains(n)).collect();
    ensure!(others.is_empty(), "/ also has {others:?}");
    let (etc, _) = client.probe("s1", "list /etc")?;
    let known = ["alternatives", "group", "hosts", "ld.so.cache", "nsswitch.conf", "passwd"];
    ensure!(etc.lines().all(|name| known.contains(&name)), "/etc has {etc:?}");
    let (own, _) = client.probe("s1", "read /proc/self/cgroup")?;
    ensure!(own.lines().all(|line| line.ends_with(":/")), "the cgroup path tells of the host: {own:?}");
    if Ground::find().degraded().iter().all(|name| name != "inodes") {
        // Neither the function's directory nor the supervisor's own.
        let (mounts, _) = client.probe("s1", "read /proc/self/mountinfo")?;
        let place = supervisor.place.dir.display().to_string();
        ensure!(!mounts.contains(&place), "mountinfo tells of the host: {mounts}");
    }
    supervisor.stop()
}

fn writes() -> Outcome {
    let supervisor = Supervisor::simple("")?;
    let mut client = Client::new(&supervisor)?;
    for path in
        ["/x", "/usr/x", "/etc/x", "/function/x", "/dev/x", "/proc/x", "/function/probe", "/proc/1/oom_score_adj"]
    {
        let inside = client.ask("probe", "s1", &format!("write {path}"));
        ensure!(inside.is_err(), "{path} was written inside");
    }
    let outside_path = supervisor.place.path("x").display().to_string();
    outside(&["write", &outside_path])?;
    let name = format!("/tmp/written-by-{}", supervisor.place.instance);
    client.probe("s1", &format!("write {name}"))?;
    ensure!(!std::path::Path::new(&name).exists(), "the worker's /tmp is the host's");
    supervisor.stop()
}

fn network() -> Outcome {
    let listener = TcpListener::bind("127.0.0.1:0").map_err(|error| error.to_string())?;
    let address = listener.local_addr().map_err(|error| error.to_string())?.to_string();
    outside(&["connect", &address])?;
    let supervisor = Supervisor::simple("")?;
    let mut client = Client::new(&supervisor)?;
    let inside = client.ask("probe", "s1", &format!("connect {address}"));
    ensure!(inside.as_ref().is_err_and(|e| e.contains("Connection refused")), "inside: {inside:?}");
    let inside = client.ask("probe", "s1", "connect 192.0.2.1:80");
    ensure!(inside.as_ref().is_err_and(|e| e.contains("unreachable")), "inside: {inside:?}");
    supervisor.stop()
}

fn processes() -> Outcome {
    let supervisor = Supervisor::simple("")?;
    let mut client = Client::new(&supervisor)?;
    client.probe("other", "echo here")?;
    let (listed, _) = client.probe("s1", "list /proc")?;
    let seen: Vec<&str> = listed.lines().filter(|name| name.parse::<u32>().is_ok()).collect();
    ensure!(seen.len() == 1, "a worker sees processes {seen:?}");
    let own = std::process::id().to_string();
    outside(&["kill", &own])?;
    let inside = client.ask("probe", "s1", &format!("kill {own}"));
    ensure!(inside.as_ref().is_err_and(|e| e.contains("ESRCH") || e.contains("EPERM")), "inside: {inside:?}");
    let inside = client.ask("probe", "s1", "kill 1");
    ensure!(
        inside.as_ref().is_err_and(|e| e.contains("EPERM") || e.contains("ESRCH")),
        "init may be signalled: {inside:?}"
    );
    supervisor.stop()
}

fn rlimits() -> Outcome {
    let supervisor = Supervisor::simple("")?;
    let mut client = Client::new(&supervisor)?;
    let (limits, _) = client.probe("s1", "limits")?;
    ensure!(limits.contains("core=0/0") && limits.contains("nofile=64/64"), "{limits}");
    outside(&["open", "100"])?;
    client.probe("s1", "open 50")?;
    let inside = client.ask("probe", "s1", "open 100");
    ensure!(inside.as_ref().is_err_and(|e| e.contains("Too many open files")), "inside: {inside:?}");
    supervisor.stop()
}

fn posture() -> Outcome {
    let supervisor = Supervisor::simple("")?;
    let mut client = Client::new(&supervisor)?;
    let (_, receipt) = client.probe("s1", "echo here")?;
    let found = supervisor.admin(&["describe", &receipt.worker])?;
    let facts = found["posture"].as_array().cloned().unwrap_or_default();
    ensure!(facts.len() > 30, "{} facts", facts.len());
    let wrong: Vec<_> = facts.iter().filter(|fact| fact["ok"] != true).collect();
    ensure!(wrong.is_empty(), "{wrong:?}");
    let pid = found["worker"]["pid"].as_u64().ok_or("no pid")?;
    // And by our own eyes, not the nursery's: what /proc says of init.
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).map_err(|error| error.to_string())?;
    for line in ["CapEff:\t0000000000000000", "CapBnd:\t0000000000000000", "NoNewPrivs:\t1", "Seccomp:\t2"] {
        ensure!(status.contains(line), "init's status lacks {line:?}");
    }
    for name in ["user", "pid", "mnt", "net", "ipc", "uts", "cgroup"] {
        let link = |of: &str| std::fs::read_link(format!("/proc/{of}/ns/{name}")).map_err(|error| error.to_string());
        ensure!(link(&pid.to_string())? != link("self")?, "init is in our {name} namespace");
    }
    let group = found["cgroup"].as_str().ok_or("no cgroup")?;
    let members = std::fs::read_to_string(format!("{group}/cgroup.procs")).map_err(|error| error.to_string())?;
    ensure!(members.lines().any(|line| line == pid.to_string()), "init is not in {group}");
    let supervisor_status =
        std::fs::read_to_string(format!("/proc/{}/status", supervisor.pid())).map_err(|error| error.to_string())?;
    for line in ["CapEff:\t0000000000000000", "CapBnd:\t0000000000000000", "NoNewPrivs:\t1"] {
        ensure!(supervisor_status.contains(line), "the supervisor's status lacks {line:?}");
    }
    ensure!(!supervisor_status.contains("Uid:\t0"), "the supervisor is root");
    supervisor.stop()
}

/// By the kernel's own words on the process of the function, beside those on a process outside.
fn speculation() -> Outcome {
    let line = |status: &str, name: &str| -> String {
        let found = status.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(":\t"));
        found.unwrap_or_default().to_owned()
    };
    let host = outside(&["read", "/proc/self/status"])?;
    for (forbid, bypass) in [("false", "thread vulnerable"), ("true", "thread force mitigated")] {
        let place = Place::new()?;
        let text = place.simple("").replacen("[host]", &format!("[host]\nforbid_store_bypass = {forbid}"), 1);
        let supervisor = Supervisor::start(place, &text)?;
        let (inside, _) = Client::new(&supervisor)?.probe("s1", "read /proc/self/status")?;
        for (name, open, closed) in [
            ("SpeculationIndirectBranch", "conditional enabled", "conditional force disabled"),
            ("Speculation_Store_Bypass", "thread vulnerable", bypass),
        ] {
            // What a process may not decide is the same everywhere.
            let of_host = line(&host, name);
            let due = if of_host == open { closed } else { of_host.as_str() };
            ensure!(line(&inside, name) == due, "{name} is {:?} inside, {of_host:?} outside", line(&inside, name));
        }
        supervisor.stop()?;
    }
    Ok(())
}

/// Only landlock refuses an ioctl on a device node with EACCES: the filters let this one pass, and the device itself does
/// not know it. Proved by the same sandbox on a kernel that seems to have no landlock.
fn landlock() -> Outcome {
    ensure!(Ground::find().lacks(Need::LandlockDevices).is_none(), "this ground has no landlock for devices");
    let ask = |supervisor: &Supervisor| Client::new(supervisor)?.ask("probe", "s1", "try device-ioctl");
    let place = Place::new()?;
    let text = place.simple("").replace("accept_degraded = [", "accept_degraded = [\"landlock\", ");
    let without = Supervisor::start_without_landlock(place, &text)?;
    let refused = ask(&without);
    ensure!(refused.as_ref().is_err_and(|e| e.contains("device-ioctl: ENOTTY")), "without landlock: {refused:?}");
    without.stop()?;
    let supervisor = Supervisor::simple("")?;
    let refused = ask(&supervisor);
    ensure!(refused.as_ref().is_err_and(|e| e.contains("device-ioctl: EACCES")), "with landlock: {refused:?}");
    supervisor.stop()
}
