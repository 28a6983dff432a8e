//! The supervisor's own cage, seen from outside; the runner beside it; what a reload may still ask for. That each layer stops
//! what it should is shown in supervisor/tests/jail.rs, where the same function confines a process that then tries.

use std::{
    fs::{self, Permissions},
    os::unix::fs::PermissionsExt,
    path::Path,
    thread::sleep,
    time::{Duration, Instant},
};

use serde_json::Value;

use crate::{
    Case, Outcome, case,
    client::Client,
    configs::Place,
    ensure,
    ground::Ground,
    supervisor::{Supervisor, program},
};

/// The cases.
pub const CASES: &[Case] = &[
    case("jail::every_thread_of_the_supervisor_is_confined_and_health_says_so", threads),
    case("jail::token_programs_run_outside_of_it_by_a_runner_without_rights", runner),
    case("jail::killed_supervisor_leaves_no_runner_and_no_token_program", killed),
    case("jail::reload_is_refused_what_was_not_declared_at_the_start", undeclared),
    case("jail::what_only_root_can_reach_at_the_start_needs_no_way_for_the_supervisor", closed),
    case("jail::doctor_says_what_a_supervisor_would_be_confined_by", doctor),
];

/// Who the supervisor of [`config`] is once it has started.
const SUPERVISOR: u32 = 1_879_048_190;
/// Filters of the supervisor's own.
const FILTERS: u32 = 3;

fn os(error: impl std::fmt::Display) -> String {
    error.to_string()
}

/// A field of a /proc/…/status.
fn field(status: &Path, name: &str) -> Result<String, String> {
    let text = fs::read_to_string(status).map_err(|error| format!("{}: {error}", status.display()))?;
    let value = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'));
    Ok(value.ok_or(format!("{} has no {name}", status.display()))?.trim().to_owned())
}

/// Filters that everything here was started under, ours included.
fn inherited() -> Result<u32, String> {
    field(Path::new("/proc/self/status"), "Seccomp_filters")?.parse().map_err(os)
}

/// Whether we, and so the supervisor at its start, have CAP_SYS_RESOURCE.
fn may_set_resources() -> Result<bool, String> {
    const CAP_SYS_RESOURCE: u64 = 1 << 24;
    let held = field(Path::new("/proc/self/status"), "CapEff")?;
    Ok(u64::from_str_radix(&held, 16).map_err(os)? & CAP_SYS_RESOURCE != 0)
}

fn write_program(path: &Path, script: &str) -> Result<String, String> {
    fs::write(path, format!("#!/bin/sh\nPATH=/usr/bin:/bin\n{script}\n")).map_err(os)?;
    fs::set_permissions(path, Permissions::from_mode(0o755)).map_err(os)?;
    Ok(format!(
        "token.provider = \"command\"\ntoken.command = [{:?}]\ntoken.timeout = \"5s\"\n",
        path.display().to_string()
    ))
}

fn config(place: &Place, functions: &[String]) -> String {
    format!("{}[tenant.acme.sub_tenant]\n{}", place.host(&format!("supervisor_uid = {SUPERVISOR}")), functions.concat())
}

fn facts(supervisor: &Supervisor) -> Result<Vec<Value>, String> {
    let health = supervisor.admin(&["health"])?;
    health["host"].as_array().cloned().ok_or(format!("no facts: {health}"))
}

fn threads() -> Outcome {
    let supervisor = Supervisor::simple("")?;
    let mut client = Client::new(&supervisor)?;
    for at in 0..3 {
        client.probe(&format!("s{at}"), "echo")?;
    }
    // Starts threads for what blocks.
    supervisor.admin(&["reload"])?;
    let process = format!("/proc/{}", supervisor.pid());
    let tasks: Vec<_> = fs::read_dir(format!("{process}/task")).map_err(os)?.flatten().collect();
    ensure!(tasks.len() > 1, "it has no other thread, so this proves little");
    let filters = (inherited()? + FILTERS).to_string();
    for task in tasks {
        let status = task.path().join("status");
        let name = field(&status, "Name")?;
        for (what, due) in
            [("Seccomp", "2"), ("Seccomp_filters", &filters), ("NoNewPrivs", "1"), ("CapEff", "0000000000000000")]
        {
            let seen = field(&status, what)?;
            ensure!(seen == due, "{what} of thread {name} is {seen}");
        }
    }
    let limits = fs::read_to_string(format!("{process}/limits")).map_err(os)?;
    for (limit, is_right) in [("Max core file size", "0"), ("Max msgqueue size", "0"), ("Max realtime priority", "0")] {
        let line = limits.lines().find_map(|line| line.strip_prefix(limit)).unwrap_or_default();
        ensure!(line.split_whitespace().take(2).eq([is_right, is_right]), "{limit}: {line}");
    }
    let adj = fs::read_to_string(format!("{process}/oom_score_adj")).map_err(os)?;
    let can_protect = may_set_resources()?;
    ensure!((adj.trim() == "-500") == can_protect, "oom_score_adj is {adj}");
    // Nobody else has that from it.
    let (own, _) = client.probe("s0", "read /proc/self/oom_score_adj")?;
    ensure!(own.trim().parse::<i32>().is_ok_and(|adj| adj > 0), "a function's oom_score_adj is {own}");

    let facts = facts(&supervisor)?;
    let fact = |name: &str| facts.iter().find(|fact| fact["name"] == name).cloned().unwrap_or_default();
    let says = |name: &str, words: &str, ok: bool| -> Outcome {
        let fact = fact(name);
        ensure!(
            fact["ok"] == ok && fact["value"].as_str().is_some_and(|value| value.contains(words)),
            "{name}: {fact} instead of {words:?}"
        );
        Ok(())
    };
    let ground = Ground::find();
    let has_landlock = !ground.degraded().iter().any(|name| name == "landlock");
    says("supervisor filters", &filters, true)?;
    says("supervisor no_new_privs", "set", true)?;
    says("supervisor oom_score_adj", adj.trim(), can_protect)?;
    says("supervisor landlock", if has_landlock { "version" } else { "not there" }, has_landlock)?;
    says("supervisor memory", if ground.is_hybrid() { "no guarantee on v1" } else { "64MiB" }, true)?;
    memory_limit(&supervisor)?;
    supervisor.stop()
}

/// The supervisor is in a group of its own, and may use half of the host's memory.
fn memory_limit(supervisor: &Supervisor) -> Outcome {
    let (controller, filesystem, file) = match Ground::find().is_hybrid() {
        true => ("memory", "cgroup", "memory.limit_in_bytes"),
        false => ("", "cgroup2", "memory.max"),
    };
    let groups = fs::read_to_string(format!("/proc/{}/cgroup", supervisor.pid())).map_err(os)?;
    // hierarchy-id:controllers:path
    let group = groups.lines().find_map(|line| line.split_once(':')?.1.strip_prefix(controller)?.strip_prefix(':'));
    let group = group.ok_or(format!("no group for memory in {groups}"))?;
    ensure!(group.ends_with("/supervisor"), "its group is {group}");
    let mounts = fs::read_to_string("/proc/self/mountinfo").map_err(os)?;
    let mount = mounts.lines().find_map(|line| {
        let (mount, kind) = line.split_once(" - ")?;
        let mut kind = kind.split(' ');
        let is_it = kind.next() == Some(filesystem)
            && kind.next_back()?.split(',').any(|option| option == controller || controller.is_empty());
        let mut mount = mount.split(' ').skip(3);
        is_it.then_some((mount.next()?, mount.next()?))
    });
    let (root, point) = mount.ok_or("the hierarchy is not mounted")?;
    let below = group.strip_prefix(root.trim_end_matches('/')).unwrap_or(group);
    let file = format!("{point}{below}/{file}");
    let limit = fs::read_to_string(&file).map_err(|error| format!("{file}: {error}"))?;
    let limit: u64 = limit.trim().parse().map_err(|error| format!("{file} is {limit}: {error}"))?;
    let memory = fs::read_to_string("/proc/meminfo").map_err(os)?;
    let total = memory.lines().find_map(|line| line.strip_prefix("MemTotal:")?.trim().strip_suffix("kB"));
    let total: u64 = total.ok_or("no MemTotal")?.trim().parse().map_err(os)?;
    // The kernel keeps whole pages.
    ensure!((total * 512 - 4096..=total * 512).contains(&limit), "{limit} of {total} KiB");
    Ok(())
}

/// Its runner: the child of that name.
fn runner_of(supervisor: &Supervisor) -> Result<u32, String> {
    let children = format!("/proc/{0}/task/{0}/children", supervisor.pid());
    let children = fs::read_to_string(children).map_err(os)?;
    let mut all = children.split_whitespace().filter_map(|pid| pid.parse::<u32>().ok());
    let is_runner =
        |pid: &u32| fs::read_to_string(format!("/proc/{pid}/comm")).is_ok_and(|name| name.trim() == "sublet-runner");
    all.find(is_runner).ok_or(format!("none of {children} is a runner"))
}

fn runner() -> Outcome {
    let place = Place::new()?;
    // What no process under the supervisor's filters and landlock could do: start programs, and list /.
    let script = "cd / && set -- * && echo \"$(sed -n 's/^Seccomp:[^0-9]*//p' /proc/self/status) $# \
                  $(sed -n 's/^NoNewPrivs:[^0-9]*//p' /proc/self/status) $(id -u) $(id -G)\"";
    let settings = write_program(&place.path("mint"), script)?;
    let text = config(&place, &[place.function("probe", &settings)]);
    let supervisor = Supervisor::start(place, &text)?;
    let mut client = Client::new(&supervisor)?;
    let (token, _) = client.probe("s1", "read /run/sublet/token")?;
    let seen: Vec<u64> = token.split_whitespace().filter_map(|word| word.parse().ok()).collect();
    let [seccomp, files, no_new_privs, uid, gid] = seen[..] else { return Err(format!("the program says {token:?}")) };
    let is_filtered = u64::from(inherited()? > 0) * 2;
    ensure!(seccomp == is_filtered && files > 5, "it is under our filters: {token}");
    ensure!(no_new_privs == 1 && uid == u64::from(SUPERVISOR) && gid == uid, "it has rights: {token}");

    let pid = runner_of(&supervisor)?;
    let process = format!("/proc/{pid}");
    let status = format!("{process}/status");
    let status = Path::new(&status);
    let ids = [SUPERVISOR; 4].map(|id| id.to_string()).join("\t");
    for (what, due) in [("Uid", ids.as_str()), ("Gid", &ids), ("Groups", ""), ("NoNewPrivs", "1")] {
        ensure!(field(status, what)? == due, "{what} of the runner is {}", field(status, what)?);
    }
    for set in ["CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb"] {
        ensure!(field(status, set)? == "0000000000000000", "{set} of the runner is {}", field(status, set)?);
    }
    let mut descriptors: Vec<(String, String)> = fs::read_dir(format!("{process}/fd"))
        .map_err(os)?
        .flatten()
        .map(|entry| {
            let to = fs::read_link(entry.path()).unwrap_or_default().display().to_string();
            (entry.file_name().to_string_lossy().into_owned(), to)
        })
        .collect();
    descriptors.sort();
    let is_right = descriptors.len() == 4
        && descriptors[..3].iter().all(|(_, to)| to == "/dev/null")
        && descriptors[3].0 == "3"
        && descriptors[3].1.starts_with("socket:");
    ensure!(is_right, "the runner holds {descriptors:?}");
    let session = fs::read_to_string(format!("{process}/stat")).map_err(os)?;
    let session = session.rsplit_once(") ").and_then(|(_, rest)| rest.split(' ').nth(3).map(str::to_owned));
    ensure!(session.as_deref() == Some(pid.to_string().as_str()), "its session is {session:?}");
    let groups = fs::read_to_string(format!("{process}/cgroup")).map_err(os)?;
    ensure!(groups.lines().any(|line| line.starts_with("0::") && line.ends_with("/runner")), "{groups}");
    supervisor.stop()
}

/// Whether a process that wrote its number into `file` lives.
fn lives(file: &Path) -> Result<bool, String> {
    let pid = fs::read_to_string(file).map_err(|error| format!("{}: {error}", file.display()))?;
    Ok(is_alive(pid.trim()))
}

/// A zombie does not: it waits for the machine's pid 1.
fn is_alive(pid: impl std::fmt::Display) -> bool {
    fs::read_to_string(format!("/proc/{pid}/stat")).is_ok_and(|stat| !stat.contains(") Z "))
}

fn killed() -> Outcome {
    let place = Place::new()?;
    let dir = place.path("pids");
    fs::create_dir(&dir).map_err(os)?;
    fs::set_permissions(&dir, Permissions::from_mode(0o777)).map_err(os)?;
    let at = dir.display();
    // One of its own, one of its group, one that has left its group and session.
    let script = format!(
        "setsid sh -c 'echo $$ > {at}/escaped; exec sleep 600' &\nsleep 600 &\necho $! > {at}/behind\necho $$ > {at}/first\nsleep 600"
    );
    let settings = write_program(&place.path("mint"), &script)?;
    let text = config(&place, &[place.function("probe", &settings)]);
    let supervisor = Supervisor::start(place, &text)?;
    let mut client = Client::new(&supervisor)?;
    let call = std::thread::spawn(move || client.probe("s1", "echo"));
    let all = ["escaped", "behind", "first"].map(|name| dir.join(name));
    let end = Instant::now() + Duration::from_secs(20);
    while !all.iter().all(|file| lives(file).unwrap_or(false)) {
        ensure!(Instant::now() < end, "the program does not start");
        sleep(Duration::from_millis(10));
    }
    let runner = runner_of(&supervisor)?;
    let place = supervisor.kill()?;
    drop(call.join());
    let end = Instant::now() + Duration::from_secs(1);
    loop {
        let mut left: Vec<String> = Vec::new();
        for file in &all {
            if lives(file)? {
                left.push(file.display().to_string());
            }
        }
        if is_alive(runner) {
            left.push("the runner".into());
        }
        if left.is_empty() {
            break;
        }
        ensure!(Instant::now() < end, "left behind: {left:?}");
        sleep(Duration::from_millis(10));
    }
    drop(place);
    Ok(())
}

fn undeclared() -> Outcome {
    let place = Place::new()?;
    let (tokens, others) = (place.path("tokens"), place.path("others"));
    for dir in [&tokens, &others, &tokens.join("below")] {
        fs::create_dir(dir).map_err(os)?;
        fs::set_permissions(dir, Permissions::from_mode(0o755)).map_err(os)?;
        fs::write(dir.join("s1"), "a-token").map_err(os)?;
        nix::unistd::chown(&dir.join("s1"), Some(SUPERVISOR.into()), None).map_err(os)?;
        fs::set_permissions(dir.join("s1"), Permissions::from_mode(0o600)).map_err(os)?;
    }
    // The configuration is in a directory of its own: what is beside it can be read as well.
    let files = |dir: &Path| format!("token.provider = \"static\"\ntoken.dir = {:?}\n", dir.display().to_string());
    let command = write_program(&place.path("mint"), "echo minted")?;
    let two = |place: &Place, one: &str, other: &str| {
        config(place, &[place.function("probe", one), place.function("other", other)])
    };
    fs::create_dir(place.path("etc")).map_err(os)?;
    let path = place.path("etc/sublet.toml");
    fs::write(&path, two(&place, &files(&tokens), &command)).map_err(os)?;
    let supervisor = Supervisor::start_at(place, &path)?;
    let mut client = Client::new(&supervisor)?;
    client.probe("s1", "echo")?;
    let reload = |text: String| -> Result<Value, String> {
        fs::write(&path, text).map_err(os)?;
        supervisor.admin(&["reload"])
    };
    let has_landlock = !Ground::find().degraded().iter().any(|name| name == "landlock");
    // What is below a declared directory is taken.
    let told = reload(two(&supervisor.place, &files(&tokens.join("below")), &command))?;
    ensure!(told["error"].is_null(), "{told}");
    let (found, _) = client.probe("s1", "read /run/sublet/token")?;
    ensure!(found == "a-token", "{found}");
    // One beside it is not, and the error says where it is, and what to do.
    let told = reload(two(&supervisor.place, &files(&others), &command))?;
    let error = told["error"].as_str().unwrap_or_default();
    if has_landlock {
        let words = ["tenant.acme.function.probe.token.dir", &others.display().to_string(), "landlock", "restart"];
        ensure!(words.iter().all(|word| error.contains(word)), "{told}");
    } else {
        ensure!(error.is_empty(), "{told}");
    }
    // No other program than those that were declared, and none of those with other words.
    for words in [
        "[\"/bin/sh\", \"-c\", \"id\"]".to_owned(),
        format!("[{:?}, \"-x\"]", supervisor.place.path("mint").display().to_string()),
    ] {
        let other = format!("token.provider = \"command\"\ntoken.command = {words}\n");
        let told = reload(two(&supervisor.place, &files(&tokens), &other))?;
        let error = told["error"].as_str().unwrap_or_default();
        ensure!(
            error.contains("tenant.acme.function.other.token.command") && error.contains("restart"),
            "{words}: {told}"
        );
    }
    let told = reload(two(&supervisor.place, &files(&tokens), &command))?;
    ensure!(told["error"].is_null(), "{told}");
    client.ask("other", "s1", "echo")?;
    supervisor.stop()
}

fn closed() -> Outcome {
    let place = Place::new()?;
    let dir = place.path("closed");
    fs::create_dir(&dir).map_err(os)?;
    fs::rename(place.path("fn"), dir.join("fn")).map_err(os)?;
    fs::set_permissions(&dir, Permissions::from_mode(0o700)).map_err(os)?;
    let path = dir.join("sublet.toml");
    let settings = format!("dir = {:?}", dir.join("fn").display().to_string());
    fs::write(&path, place.simple(&settings)).map_err(os)?;
    let supervisor = Supervisor::start_at(place, &path)?;
    let (answer, _) = Client::new(&supervisor)?.probe("s1", "echo here")?;
    ensure!(answer == "here", "{answer}");
    supervisor.stop()
}

fn doctor() -> Outcome {
    let output = std::process::Command::new(program()).args(["doctor", "--json"]).output().map_err(os)?;
    let report: Value = serde_json::from_slice(&output.stdout).map_err(os)?;
    let check = report["checks"].as_array().into_iter().flatten().find(|check| check["name"] == "supervisor's jail");
    let value = check.and_then(|check| check["value"].as_str()).ok_or(format!("no such check: {report}"))?;
    for word in ["system call filters", "landlock", "no_new_privs", "oom_score_adj", "memory limit"] {
        ensure!(value.contains(word), "{word} is not in {value:?}");
    }
    Ok(())
}
