//! Faults of the host and of sublet's own parts: told as such, and held against no customer.

use std::{
    fs,
    os::unix::process::CommandExt as _,
    path::{Path, PathBuf},
    process::Command,
    thread::{sleep, spawn},
    time::{Duration, Instant},
};

use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use sublet_proto::v1::{Start, VerdictKind};
use tonic::Code;

use crate::{
    Case, Outcome, case,
    client::{self, Client, request},
    ensure,
    ground::Need,
    life::nursery_of,
    supervisor::Supervisor,
};

/// The cases.
pub const CASES: &[Case] = &[
    case("faults::host_without_descriptors_backs_nobody_off_and_health_tells", no_descriptors),
    case("faults::descriptors_that_run_out_while_a_worker_is_made_fail_that_start_alone", descriptors_run_out),
    case("faults::calls_that_lose_their_workers_with_the_nursery_are_failed_by_sublet", nursery_killed),
    case("faults::worker_that_was_moved_out_of_its_group_ends_at_its_deadline", moved_out),
    case("faults::group_that_cannot_be_removed_holds_nobody_up", stuck_group),
    Case {
        name: "faults::limit_above_sublets_groups_is_not_taken_for_one_of_its_own",
        needs: &[Need::Hybrid],
        run: limit_above,
    },
];

/// The most descriptors a process may have: the soft limit.
fn descriptors_max(pid: Pid) -> Result<u64, String> {
    let path = format!("/proc/{pid}/limits");
    let text = fs::read_to_string(&path).map_err(|error| format!("{path}: {error}"))?;
    let line = text.lines().find_map(|line| line.strip_prefix("Max open files"));
    let soft = line.and_then(|line| line.split_whitespace().next());
    soft.and_then(|number| number.parse().ok()).ok_or_else(|| format!("{path} has no such line: {text}"))
}

/// Lets a process have no more descriptors than so many.
pub fn allow_descriptors(pid: Pid, most: u64) -> Outcome {
    let path = format!("/proc/{pid}/status");
    let status = fs::read_to_string(&path).map_err(|error| format!("{path}: {error}"))?;
    let id = |name: &str| -> Option<u32> {
        status.lines().find_map(|line| line.strip_prefix(name)?.split_whitespace().next()?.parse().ok())
    };
    let (Some(uid), Some(gid)) = (id("Uid:"), id("Gid:")) else { return Err(format!("{path} has no ids")) };
    let mut command = Command::new("prlimit");
    // As whom it runs: for another's limits root needs a capability that it may not have.
    command.uid(uid).gid(gid);
    command.arg(format!("--pid={pid}")).arg(format!("--nofile={most}:"));
    let output = command.output().map_err(|error| format!("prlimit: {error}"))?;
    ensure!(output.status.success(), "prlimit: {}", String::from_utf8_lossy(&output.stderr));
    Ok(())
}

fn no_descriptors() -> Outcome {
    let supervisor = Supervisor::simple("")?;
    let mut client = Client::new(&supervisor)?;
    client.probe("warm", "echo here")?;
    let nursery = nursery_of(&supervisor)?;
    let before = descriptors_max(nursery)?;
    allow_descriptors(nursery, 8)?;
    let mut told = Vec::new();
    for _ in 0..8 {
        match client.call(request("probe", "cold", "echo here")) {
            Ok(_) => return Err("a worker was made without descriptors".into()),
            Err(status) => told.push((status.code(), client::reason(&status))),
        }
    }
    let health = supervisor.admin(&["health"])?;
    allow_descriptors(nursery, before)?;
    ensure!(told.iter().all(|(code, reason)| (*code, reason.as_str()) == (Code::Internal, "INTERNAL")), "{told:?}");
    let troubles = health["troubles"].to_string();
    ensure!(health["status"] == "impaired" && troubles.contains("no function is to blame"), "{health}");
    // Who has a worker is served all the while, and who has none at once when it is over.
    ensure!(client.probe("warm", "echo here")?.1.start() == Start::Warm, "the warm worker is gone");
    let (answer, receipt) = client.probe("cold", "echo here")?;
    ensure!(answer == "here" && receipt.start() == Start::Cold, "{receipt:?}");
    ensure!(supervisor.admin(&["health"])?["status"] == "serving", "health goes on to tell of it");
    supervisor.stop()
}

/// Numbers of a process's open descriptors.
fn descriptors(pid: Pid) -> Result<Vec<u64>, String> {
    let entries = fs::read_dir(format!("/proc/{pid}/fd")).map_err(|error| error.to_string())?;
    Ok(entries.flatten().filter_map(|entry| entry.file_name().to_str()?.parse().ok()).collect())
}

fn descriptors_run_out() -> Outcome {
    let supervisor = Supervisor::simple("")?;
    let mut client = Client::new(&supervisor)?;
    client.probe("warm", "echo here")?;
    let before = descriptors_max(supervisor.pid())?;
    let open = descriptors(supervisor.pid())?;
    let highest = open.iter().max().copied().unwrap_or(0);
    let (mut failed, mut made) = (0, 0);
    // Each place of a start at which there may be no more of them.
    for more in 0..40 {
        allow_descriptors(supervisor.pid(), highest + 1 + more)?;
        let told = client.call(request("probe", &format!("s{more}"), "echo here"));
        match told {
            Ok(_) => made += 1,
            Err(status) => {
                failed += 1;
                let reason = client::reason(&status);
                ensure!(status.code() == Code::Internal && reason == "INTERNAL", "with {more} more: {status:?}");
            }
        }
        // Who is served already is served on.
        let (_, receipt) = client.probe("warm", "echo here")?;
        ensure!(receipt.start() == Start::Warm, "the warm worker is gone with {more} more");
        allow_descriptors(supervisor.pid(), before)?;
        supervisor.admin(&["evict", "--sub-tenant", &format!("s{more}")]).ok();
    }
    ensure!(failed > 0 && made > 0, "{failed} starts failed and {made} went well");
    client.probe("after", "echo here")?;
    // Nobody who comes while there are none is lost.
    allow_descriptors(supervisor.pid(), 8)?;
    let socket = supervisor.socket();
    let late = spawn(move || -> Result<(), String> {
        let runtime = tokio::runtime::Runtime::new().map_err(|error| error.to_string())?;
        let mut client = runtime.block_on(client::connect(&socket))?;
        let answer = runtime.block_on(client.invoke(request("probe", "warm", "echo late")));
        answer.map(drop).map_err(|status| format!("{status:?}"))
    });
    sleep(Duration::from_millis(300));
    allow_descriptors(supervisor.pid(), before)?;
    late.join().map_err(|_| "the late caller panicked")??;
    // None was kept of those that arrived of a sandbox whose others did not.
    supervisor.admin(&["evict", "--all"]).ok();
    let end = Instant::now() + Duration::from_secs(20);
    while descriptors(supervisor.pid())?.len() > open.len() {
        ensure!(Instant::now() < end, "{} descriptors, then {}", open.len(), descriptors(supervisor.pid())?.len());
        sleep(Duration::from_millis(50));
    }
    supervisor.stop()
}

fn nursery_killed() -> Outcome {
    const CALLERS: usize = 12;
    let mut supervisor = Supervisor::simple("")?;
    let begin: Vec<_> = (0..CALLERS).map(|at| Ok((at, Client::new(&supervisor)?))).collect::<Result<_, String>>()?;
    let callers: Vec<_> = begin
        .into_iter()
        .map(|(at, mut client)| {
            // Some have a worker by then, and some wait for one.
            spawn(move || client.call(request("probe", &format!("s{at}"), "sleep 30000")))
        })
        .collect();
    let end = Instant::now() + Duration::from_secs(20);
    while supervisor.admin(&["health"])?["calls_in_flight"].as_u64().unwrap_or(0) < 4 {
        ensure!(Instant::now() < end, "no call is delivered");
        sleep(Duration::from_millis(5));
    }
    kill(nursery_of(&supervisor)?, Signal::SIGKILL).map_err(|error| error.to_string())?;
    let mut ours = 0;
    for caller in callers {
        let status = caller.join().map_err(|_| "a caller panicked")?.err().ok_or("a call was answered")?;
        if let Some(verdict) = client::verdict(&status) {
            return Err(format!("the function is blamed: {verdict:?}"));
        }
        let reason = client::reason(&status);
        // Without a reason its connection broke, which is nobody's verdict.
        ensure!(reason.is_empty() || reason == "INTERNAL", "{status:?}");
        ours += usize::from(reason == "INTERNAL");
    }
    ensure!(ours > 0, "nobody was told anything");
    let place = supervisor.take_place();
    let (status, log) = supervisor.wait()?;
    ensure!(status != "exit status: 0" && log.contains("nursery"), "{status}: {log}");
    // Groups that nobody was left to remove are removed by the next start.
    let text = place.simple("");
    Supervisor::start(place, &text)?.stop()
}

/// The group of the case's supervisor that is above all that sublet sets limits on, in the hierarchy of a v1 controller.
fn top_group(supervisor: &Supervisor, controller: &str) -> Result<PathBuf, String> {
    let listed = supervisor.admin(&["ps"])?;
    let pid = listed[0]["pid"].as_u64().ok_or("no worker")?;
    let text = fs::read_to_string(format!("/proc/{pid}/cgroup")).map_err(|error| error.to_string())?;
    let mut lines = text.lines().filter_map(|line| line.splitn(3, ':').skip(1).collect::<Vec<_>>().try_into().ok());
    let found = lines.find(|[names, _]: &[&str; 2]| names.split(',').any(|name| name == controller));
    let [names, path] = found.ok_or_else(|| format!("no {controller} in {text}"))?;
    let (top, _) = path.split_once("/pool/").ok_or_else(|| format!("{path} is not below a pool"))?;
    let mounts = fs::read_to_string("/proc/self/mounts").map_err(|error| error.to_string())?;
    let is_its = |options: &str| options.split(',').any(|option| option == controller);
    let mount = mounts.lines().filter_map(|line| line.split(' ').collect::<Vec<_>>().try_into().ok()).find_map(
        |[_, place, kind, options, ..]: [&str; 6]| (kind == "cgroup" && is_its(options)).then(|| place.to_owned()),
    );
    let mount = mount.ok_or_else(|| format!("{names} is not mounted"))?;
    Ok(Path::new(&mount).join(top.trim_start_matches('/')))
}

fn limit_above() -> Outcome {
    let supervisor = Supervisor::simple("pids_max = 16\nmemory_max = \"64MiB\"")?;
    let mut client = Client::new(&supervisor)?;
    client.probe("s1", "echo here")?;
    let write = |path: &Path, text: &str| fs::write(path, text).map_err(|error| format!("{}: {error}", path.display()));
    let group = top_group(&supervisor, "pids")?;
    let now = fs::read_to_string(group.join("pids.current")).map_err(|error| error.to_string())?;
    let now: u64 = now.trim().parse().map_err(|_| now.clone())?;
    write(&group.join("pids.max"), &(now + 2).to_string())?;
    let verdict = client.verdict("probe", "fork 10", VerdictKind::FunctionError, Code::Unknown);
    write(&group.join("pids.max"), "max")?;
    let found = client::remark(verdict?.receipt.as_ref(), VerdictKind::Pids)?;
    ensure!(found.level == "above" && found.setting.is_empty(), "{found:?}");
    ensure!(found.message.contains("above sublet's own"), "{found:?}");
    client.probe("s1", "echo here")?;
    let group = top_group(&supervisor, "memory")?;
    write(&group.join("memory.limit_in_bytes"), &(24_u64 << 20).to_string())?;
    let verdict = client.verdict("probe", "alloc 48", VerdictKind::Memory, Code::ResourceExhausted);
    write(&group.join("memory.limit_in_bytes"), "-1")?;
    let verdict = verdict?;
    ensure!(verdict.level == "above" && verdict.setting.is_empty(), "{verdict:?}");
    supervisor.stop()
}

/// Init's pid and the v2 group of the one worker there is.
fn worker(supervisor: &Supervisor) -> Result<(Pid, PathBuf), String> {
    let name = supervisor.admin(&["ps"])?[0]["worker"].as_str().ok_or("no worker")?.to_owned();
    let described = supervisor.admin(&["describe", &name])?;
    let pid = described["worker"]["pid"].as_i64().and_then(|pid| i32::try_from(pid).ok()).ok_or("no pid")?;
    let group = described["cgroup"].as_str().ok_or_else(|| format!("no cgroup: {described}"))?;
    Ok((Pid::from_raw(pid), PathBuf::from(group)))
}

fn moved_out() -> Outcome {
    let supervisor = Supervisor::simple("timeout = \"2s\"")?;
    let mut client = Client::new(&supervisor)?;
    client.probe("s1", "echo here")?;
    let (pid, group) = worker(&supervisor)?;
    // As an operator with a shell would, to a group of the case's own, in every process of the worker.
    let top = group.ancestors().find(|dir| dir.ends_with(format!("sublet-{}", supervisor.place.instance)));
    let aside = top.ok_or("no group of the instance")?.join("aside");
    let write = |path: &Path, text: &str| fs::write(path, text).map_err(|error| format!("{}: {error}", path.display()));
    fs::create_dir(&aside).map_err(|error| error.to_string())?;
    let members = fs::read_to_string(group.join("cgroup.procs")).map_err(|error| error.to_string())?;
    for member in members.lines() {
        write(&aside.join("cgroup.procs"), member)?;
    }
    client.verdict("probe", "sleep 60000", VerdictKind::Deadline, Code::DeadlineExceeded)?;
    let end = Instant::now() + Duration::from_secs(20);
    while fs::exists(format!("/proc/{pid}")).unwrap_or(true) {
        ensure!(Instant::now() < end, "the worker outlives its deadline");
        sleep(Duration::from_millis(20));
    }
    crate::life::no_workers(&supervisor)?;
    fs::remove_dir(&aside).map_err(|error| error.to_string())?;
    client.probe("s1", "echo again")?;
    supervisor.stop()
}

fn stuck_group() -> Outcome {
    // A start that has to wait for the group fails by its own limit.
    let supervisor = Supervisor::simple("start_timeout = \"3s\"")?;
    let mut client = Client::new(&supervisor)?;
    client.probe("s1", "echo here")?;
    let (_, group) = worker(&supervisor)?;
    let stuck = group.parent().ok_or("no level")?.join("stuck");
    fs::create_dir(&stuck).map_err(|error| error.to_string())?;
    let mut sleeper = Command::new("sleep").arg("60").spawn().map_err(|error| error.to_string())?;
    let mut tried = || -> Outcome {
        fs::write(stuck.join("cgroup.procs"), sleeper.id().to_string()).map_err(|error| error.to_string())?;
        supervisor.admin(&["evict", "--all"])?;
        crate::life::no_workers(&supervisor)?;
        for other in ["s2", "s3"] {
            client.probe(other, "echo here")?;
        }
        // The customer whose group it is is served as well.
        client.probe("s1", "echo again")?;
        Ok(())
    };
    let outcome = tried();
    sleeper.kill().map_err(|error| error.to_string())?;
    sleeper.wait().map_err(|error| error.to_string())?;
    outcome?;
    supervisor.stop()
}
