//! What a function reaches for by names: files of other processes, what is said of the host, attributes and contents of files
//! that it shares with others, keys. Rows of shim/HOSTILE.md; each attempt is first made outside, as in [`crate::hostile`].

use std::{
    fs::{self, File, OpenOptions},
    io::Read as _,
    os::unix::{fs::OpenOptionsExt as _, process::CommandExt as _},
    path::Path,
    process::Command,
};

use crate::{
    Case, Outcome,
    cage::{outside, run},
    case,
    client::Client,
    configs::Place,
    ensure,
    ground::{Ground, Need},
    life::no_workers,
    supervisor::{self, Supervisor},
    told,
};

/// The cases.
pub const CASES: &[Case] = &[
    case("reach::links_in_proc_lead_nowhere", links),
    case("reach::program_that_init_runs_from_cannot_be_written", programs),
    case("reach::program_with_file_capabilities_gives_no_right", capabilities),
    case("reach::nothing_of_init_can_be_opened_in_proc", init),
    case("reach::facts_of_the_host_are_not_there", facts),
    case("reach::ids_cannot_be_mapped_anew", maps),
    Case { needs: &[Need::Keys], ..case("reach::key_of_the_supervisor_is_not_found", keys) },
    case("reach::shared_files_take_no_lease_and_give_no_notice", leases),
    case("reach::shared_files_take_no_attributes_and_own_attributes_go_with_their_worker", attributes),
    case("reach::shared_files_are_as_before_after_every_known_way_to_write", contents),
    case("reach::files_are_not_moved_linked_or_cut_across_mounts", across),
];

/// Host pid of the init of a worker.
fn init_of(supervisor: &Supervisor, worker: &str) -> Result<String, String> {
    let described = supervisor.admin(&["describe", worker])?;
    described["worker"]["pid"].as_u64().map(|pid| pid.to_string()).ok_or_else(|| format!("no pid: {described}"))
}

/// C10.
fn links() -> Outcome {
    let supervisor = Supervisor::simple("")?;
    let mut client = Client::new(&supervisor)?;
    let secret = supervisor.place.path("secret").display().to_string();
    told(fs::write(&secret, "host"))?;
    client.probe("s1", "echo here")?;
    let pid = std::process::id().to_string();
    let up = "/..".repeat(20);
    for link in [
        "/proc/self/root".to_owned(),
        format!("/proc/self/cwd{up}"),
        "/proc/thread-self/root".to_owned(),
        "/proc/self/task/../root".to_owned(),
        format!("/proc/self/task/../../{pid}/root"),
        format!("/proc/self/task/../../{pid}/cwd{up}"),
        format!("/proc/{pid}/root"),
        format!("/proc/{pid}/cwd{up}"),
        format!("/proc/{pid}/task/{pid}/root"),
        "/proc/1/root".to_owned(),
        format!("/proc/1/cwd{up}"),
        "/proc/self/task/1/root".to_owned(),
    ] {
        let path = format!("{link}{secret}");
        // Pid 1 has no task of ours, and may have another root.
        let of_init = link.contains("/1/");
        let seen = outside(&["read", &path]);
        ensure!(of_init || seen.as_deref() == Ok("host"), "{path} leads nowhere outside: {seen:?}");
        let inside = client.ask("probe", "s1", &format!("read {path}"));
        ensure!(inside.as_ref().is_err_and(|e| e.contains("No such file")), "{path} inside: {inside:?}");
    }
    outside(&["hostile", "may-write", &format!("/proc/{pid}/mem")])?;
    for path in [format!("/proc/{pid}/mem"), format!("/proc/self/task/../../{pid}/mem"), "/proc/1/mem".to_owned()] {
        let inside = client.ask("probe", "s1", &format!("hostile may-write {path}"));
        ensure!(inside.as_ref().is_err_and(|e| e.contains("No such file")), "{path} inside: {inside:?}");
    }
    supervisor.stop()
}

/// A3.
fn programs() -> Outcome {
    let supervisor = Supervisor::simple("")?;
    let mut client = Client::new(&supervisor)?;
    let victim = supervisor.place.path("victim");
    told(fs::copy(supervisor::probe(), &victim))?;
    let mut child = told(Command::new(&victim).args(["sleep", "60000"]).spawn())?;
    // The program is there once its name is.
    let is = |pid: u32| fs::read_link(format!("/proc/{pid}/exe")).is_ok_and(|program| program == victim);
    while !is(child.id()) {
        std::thread::yield_now();
    }
    let written = outside(&["hostile", "program", &child.id().to_string()]);
    told(child.wait())?;
    ensure!(written.as_deref() == Ok("it may be written"), "outside: {written:?}");

    let before = (told(fs::read(supervisor::program()))?, told(fs::read(supervisor.place.path("fn/probe")))?);
    let (_, receipt) = client.probe("s1", "echo here")?;
    for pid in ["1", "self"] {
        let inside = client.ask("probe", "s1", &format!("hostile program {pid}"));
        ensure!(inside.is_err(), "the program of {pid}: {inside:?}");
    }
    let (_, second) = client.probe("s1", "echo on")?;
    ensure!(second.worker == receipt.worker, "its worker has ended");
    // Nor could it be, if a way to it were found: not even root can write to what init runs from.
    let program = format!("/proc/{}/exe", init_of(&supervisor, &receipt.worker)?);
    let leads = told(fs::read_link(&program))?;
    ensure!(leads.to_string_lossy().starts_with("/memfd:"), "init runs from {}", leads.display());
    let seals = nix::fcntl::fcntl(told(File::open(&program))?, nix::fcntl::FcntlArg::F_GET_SEALS);
    let seals = nix::fcntl::SealFlag::from_bits_truncate(seals.map_err(|error| error.to_string())?);
    ensure!(seals.contains(nix::fcntl::SealFlag::F_SEAL_WRITE), "it is sealed by {seals:?}");
    let after = (told(fs::read(supervisor::program()))?, told(fs::read(supervisor.place.path("fn/probe")))?);
    ensure!(before == after, "a program has changed");
    supervisor.stop()
}

/// A11.
fn capabilities() -> Outcome {
    let supervisor = Supervisor::simple("")?;
    let mut client = Client::new(&supervisor)?;
    let program = supervisor.place.path("fn/blessed");
    told(fs::copy(supervisor::probe(), &program))?;
    outside(&["hostile", "bless", &program.display().to_string()])?;
    let status = ["read", "/proc/self/status"];
    let outside = run(Command::new(&program).args(status).uid(65534).gid(65534))?;
    ensure!(outside.contains("CapEff:\t0000000000000080"), "the program gives nothing outside either: {outside}");
    let (inside, _) = client.probe("s1", "hostile run /function/blessed read /proc/self/status")?;
    for line in ["CapPrm:\t0000000000000000", "CapEff:\t0000000000000000", "CapAmb:\t0000000000000000"] {
        ensure!(inside.contains(line), "{inside}");
    }
    supervisor.stop()
}

/// A4.
fn init() -> Outcome {
    let supervisor = Supervisor::simple("")?;
    let mut client = Client::new(&supervisor)?;
    let (_, receipt) = client.probe("s1", "echo here")?;
    let pid = init_of(&supervisor, &receipt.worker)?;
    let seen = outside(&["hostile", "sweep", &pid])?;
    for name in ["environ", "maps", "mem", "fd", "root", "cwd", "cmdline", "exe", "ns/user"] {
        let path = format!("/proc/{pid}/{name}");
        ensure!(seen.lines().any(|line| line == path), "outside {path} is not among {seen}");
    }
    let (own, _) = client.probe("s1", "hostile sweep self")?;
    ensure!(own.lines().any(|line| line == "/proc/self/environ"), "it does not find its own: {own}");
    let (inside, _) = client.probe("s1", "hostile sweep 1")?;
    ensure!(inside.is_empty(), "of init can be opened: {inside}");
    supervisor.stop()
}

/// What the kernel says of the host as a whole, by the lists of container runtimes.
const FACTS: &[&str] = &[
    "/proc/acpi",
    "/proc/asound",
    "/proc/buddyinfo",
    "/proc/bus",
    "/proc/cmdline",
    "/proc/config.gz",
    "/proc/devices",
    "/proc/diskstats",
    "/proc/fs",
    "/proc/interrupts",
    "/proc/iomem",
    "/proc/irq",
    "/proc/kallsyms",
    "/proc/kcore",
    "/proc/key-users",
    "/proc/keys",
    "/proc/kmsg",
    "/proc/latency_stats",
    "/proc/loadavg",
    "/proc/locks",
    "/proc/modules",
    "/proc/mounts/../stat",
    "/proc/net/../uptime",
    "/proc/pagetypeinfo",
    "/proc/partitions",
    "/proc/pressure/cpu",
    "/proc/sched_debug",
    "/proc/schedstat",
    "/proc/scsi",
    "/proc/slabinfo",
    "/proc/softirqs",
    "/proc/swaps",
    "/proc/sys",
    "/proc/sys/fs/file-nr",
    "/proc/sys/fs/inode-nr",
    "/proc/sys/kernel/random/boot_id",
    "/proc/sysvipc/shm",
    "/proc/timer_list",
    "/proc/tty",
    "/proc/uptime",
    "/proc/version",
    "/proc/vmallocinfo",
    "/proc/vmstat",
    "/proc/zoneinfo",
    "/sys/class/net",
    "/sys/devices/virtual/dmi/id/product_uuid",
    "/sys/firmware",
    "/sys/kernel/debug",
    "/sys/kernel/security",
    "/sys/module",
    "/etc/machine-id",
    "/var/log",
    "/run",
];

/// C4, I9.
fn facts() -> Outcome {
    let verb = format!("hostile first {}", FACTS.join(" "));
    let seen = outside(&verb.split(' ').collect::<Vec<_>>())?;
    ensure!(seen.lines().count() >= 20, "outside only {} of them can be opened: {seen}", seen.lines().count());
    let supervisor = Supervisor::simple("")?;
    let mut client = Client::new(&supervisor)?;
    let (inside, _) = client.probe("s1", &verb)?;
    ensure!(inside.is_empty(), "inside: {inside}");
    // By the same verb it finds what is there.
    let (own, _) = client.probe("s1", "hostile first /proc/self/status /etc/passwd")?;
    ensure!(own.lines().count() == 2, "{own}");
    supervisor.stop()
}

/// C7.
fn maps() -> Outcome {
    let supervisor = Supervisor::simple("")?;
    let mut client = Client::new(&supervisor)?;
    for name in ["uid_map", "gid_map", "setgroups", "projid_map"] {
        outside(&["hostile", "map", name, "new"])?;
        let inside = client.ask("probe", "s1", &format!("hostile map {name}"));
        let refused = ["EACCES", "EROFS", "EPERM"].map(|errno| format!("{name}: {errno}"));
        ensure!(inside.as_ref().is_err_and(|e| refused.iter().any(|known| e.contains(known))), "{name}: {inside:?}");
    }
    supervisor.stop()
}

/// A7.
fn keys() -> Outcome {
    let with_key = || {
        let mut command = Command::new(supervisor::probe());
        command.arg("with-key");
        command
    };
    for name in ["find-key", "request-key", "add-key"] {
        run(with_key().arg(supervisor::probe()).args(["hostile", "call", name]))?;
    }
    let place = Place::new()?;
    let text = place.simple("");
    let mut command = with_key();
    command.arg(supervisor::program());
    let supervisor = Supervisor::start_command(place, &text, command, &[])?;
    let mut client = Client::new(&supervisor)?;
    for name in ["find-key", "request-key", "add-key"] {
        let inside = client.ask("probe", "s1", &format!("hostile call {name}"));
        ensure!(inside.as_ref().is_err_and(|e| e.contains(&format!("{name}: ENOSYS"))), "{inside:?}");
    }
    supervisor.stop()
}

/// B15.
fn leases() -> Outcome {
    let supervisor = Supervisor::simple("")?;
    let mut client = Client::new(&supervisor)?;
    let file = supervisor.place.path("fn/shared");
    told(fs::write(&file, "shared"))?;
    let seen = outside(&["hostile", "lease", &file.display().to_string()])?;
    ensure!(seen.contains("lease: worked"), "outside: {seen}");
    let (inside, _) = client.probe("s1", "hostile lease /function/shared")?;
    ensure!(inside == "lease: EPERM\nnotify: EPERM", "{inside}");
    supervisor.stop()
}

/// B9, B21.
fn attributes() -> Outcome {
    let supervisor = Supervisor::simple("")?;
    let mut client = Client::new(&supervisor)?;
    let file = supervisor.place.path("fn/shared");
    told(fs::write(&file, "shared"))?;
    let (names, path) = (["trusted.overlay.opaque", "security.sublet"], file.display().to_string());
    let mut proven = 0;
    for name in names.into_iter().chain(["user.overlay.opaque", "user.overlay.whiteout"]) {
        proven += usize::from(outside(&["hostile", "attribute", name, &path]).is_ok());
        for shared in ["/function/shared", "/function", "/usr/bin/env", "/usr", "/"] {
            let inside = client.ask("probe", "s1", &format!("hostile attribute {name} {shared}"));
            let refused = ["EROFS", "EPERM", "EACCES", "EOPNOTSUPP"].map(|errno| format!("{name}: {errno}"));
            let is_refused = inside.as_ref().is_err_and(|e| refused.iter().any(|known| e.contains(known)));
            ensure!(is_refused, "{name} of {shared}: {inside:?}");
        }
    }
    ensure!(proven >= 1, "no attribute can be set outside; nothing is proven here");
    client.probe("s1", "write /tmp/own")?;
    for name in names {
        let inside = client.ask("probe", "s1", &format!("hostile attribute {name} /tmp/own"));
        let refused = ["EPERM", "EOPNOTSUPP"].map(|errno| format!("{name}: {errno}"));
        ensure!(inside.as_ref().is_err_and(|e| refused.iter().any(|known| e.contains(known))), "{name}: {inside:?}");
    }
    // As many of its own as it may have are in nobody's way.
    let bomb = client.ask("probe", "bomb", "hostile attributes 100000");
    let is_bounded = ["ENOSPC", "EOPNOTSUPP", "E2BIG", "ResourceExhausted"];
    ensure!(bomb.as_ref().is_err_and(|e| is_bounded.iter().any(|known| e.contains(known))), "{bomb:?}");
    client.probe("s1", "read /function/shared")?;
    supervisor.admin(&["evict", "--tenant", "acme"])?;
    no_workers(&supervisor)?;
    supervisor.stop()
}

/// A file as it is on its disk, past the page cache. None where its file system cannot read so.
fn on_disk(path: &Path) -> Option<Vec<u8>> {
    const BLOCK: usize = 4096;
    File::open(path).and_then(|file| file.sync_all()).ok()?;
    let mut file = OpenOptions::new().read(true).custom_flags(nix::fcntl::OFlag::O_DIRECT.bits()).open(path).ok()?;
    // One block, at an address that is a multiple of it.
    let mut room = vec![0; 2 * BLOCK];
    let from = room.as_ptr().align_offset(BLOCK);
    let length = file.read(&mut room[from..from + BLOCK]).ok()?;
    Some(room[from..from + length].to_vec())
}

/// B20.
fn contents() -> Outcome {
    let supervisor = Supervisor::simple("")?;
    let mut client = Client::new(&supervisor)?;
    let file = supervisor.place.path("fn/shared");
    let text = "shared".repeat(100);
    let path = file.display().to_string();
    told(fs::write(&file, &text))?;
    let seen = outside(&["hostile", "overwrite", &path])?;
    ensure!(told(fs::read_to_string(&file))? != text, "it is not written to outside either: {seen}");
    // These two work outside, and do no harm on a kernel without the holes.
    ensure!(seen.contains("race: worked") && seen.contains("splice: worked"), "outside: {seen}");
    told(fs::write(&file, &text))?;
    let program = Path::new("/usr/bin/env");
    let whole = told(fs::read(program))?;
    for shared in ["/function/shared", "/usr/bin/env"] {
        let (inside, _) = client.probe("s1", &format!("hostile overwrite {shared}"))?;
        for way in ["write", "reopen", "map", "map writable", "protect", "race"] {
            let refused = ["EROFS", "EACCES"].map(|errno| format!("{way}: {errno}"));
            ensure!(inside.lines().any(|line| refused.iter().any(|known| line == known)), "{shared}: {inside}");
        }
        ensure!(inside.contains("splice: ENOSYS"), "{shared}: {inside}");
    }
    ensure!(told(fs::read_to_string(&file))? == text, "a worker has written to a shared file");
    ensure!(told(fs::read(program))? == whole, "a worker has written to a program of the host");
    match on_disk(&file) {
        Some(bytes) => {
            ensure!(bytes == text.as_bytes(), "it is another file on its disk");
        }
        None => println!("the file cannot be read past the page cache here"),
    }
    let (neighbours, _) = client.probe("s2", "read /function/shared")?;
    ensure!(neighbours == text, "a neighbour reads {neighbours}");
    supervisor.stop()
}

/// D26: with landlock and without it.
fn across() -> Outcome {
    let ways =
        ["rename out", "rename in", "rename beside", "link out", "link in", "follow", "open and cut", "truncate"];
    let place = Place::new()?;
    let file = place.path("file");
    told(fs::write(&file, "file"))?;
    let seen = outside(&["hostile", "across", &file.display().to_string()])?;
    for way in ways {
        ensure!(seen.lines().any(|line| line == format!("{way}: worked")), "outside: {seen}");
    }
    let try_all = |supervisor: &Supervisor| -> Outcome {
        let shared = supervisor.place.path("fn/shared");
        told(fs::write(&shared, "shared"))?;
        let mut client = Client::new(supervisor)?;
        for path in ["/function/shared", "/usr/bin/env"] {
            let (inside, _) = client.probe("s1", &format!("hostile across {path}"))?;
            ensure!(inside.lines().count() == ways.len() && !inside.contains("worked"), "{path}: {inside}");
        }
        ensure!(told(fs::read_to_string(&shared))? == "shared", "the file has changed");
        Ok(())
    };
    let supervisor = Supervisor::simple("")?;
    try_all(&supervisor)?;
    supervisor.stop()?;
    if Ground::find().lacks(Need::LandlockDevices).is_none() {
        let text = place.simple("").replace("accept_degraded = [", "accept_degraded = [\"landlock\", ");
        let without = Supervisor::start_without_landlock(place, &text)?;
        try_all(&without)?;
        without.stop()?;
    }
    Ok(())
}
