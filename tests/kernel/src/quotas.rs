//! Limits as a tree: whose limit it was, changes under running workers, and what refuses them.

use std::{
    path::{Path, PathBuf},
    process::Command,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread::sleep,
    time::{Duration, Instant},
};

use serde_json::{Value, json};
use sublet_proto::v1::{Verdict, VerdictKind};
use tonic::Code;
use tonic_types::StatusExt;

use crate::{
    Case, Outcome, case,
    client::{Client, remark, request, verdict},
    configs::Place,
    ensure,
    ground::{Ground, Need},
    supervisor::Supervisor,
};

/// The cases.
pub const CASES: &[Case] = &[
    case("quotas::memory_is_told_by_level", memory_levels),
    case("quotas::processes_are_told_by_level", pids_levels),
    Case { name: "quotas::cpu_quota_that_made_a_call_late_is_told_by_level", needs: &[Need::Cpu], run: cpu_levels },
    case("quotas::descriptors_are_told", descriptors),
    case("quotas::error_info_names_limit_observed_level_and_setting", error_info),
    case("quotas::class_and_id_have_limits_of_their_own_from_cell_to_reload", classes),
    case("quotas::limit_set_for_a_time_holds_at_once_and_expires_by_itself", temporary),
    case("quotas::lowering_memory_below_what_is_in_use_is_refused_or_ends_workers", below_use),
    case("quotas::change_of_all_groups_under_load_fails_no_call", under_load),
    case("quotas::refused_change_puts_every_group_back", put_back),
    case("quotas::workers_of_a_removed_function_have_its_limits", removed),
    case("quotas::wrong_limits_and_paths_are_refused_by_name", wrong),
    case("quotas::limits_that_have_no_form_here_are_named", no_form),
    case("quotas::buffers_of_tcp_sockets_are_within_the_limit_of_memory", tcp_buffers),
];

/// Where the kernel keeps a limit of a worker's group, or of the group `up` levels above it.
pub fn knob(supervisor: &Supervisor, worker: &str, up: usize, v2: &str, v1: (&str, &str)) -> Result<String, String> {
    let group = supervisor.admin(&["describe", worker])?["cgroup"].as_str().unwrap_or_default().to_owned();
    let mut group = PathBuf::from(group);
    for _ in 0..up {
        group.pop();
    }
    let unified = group.join(v2);
    let (controller, file) = v1;
    let below = group.display().to_string();
    let (_, below) = below.split_once("/sublet-").ok_or_else(|| format!("no group of ours: {below}"))?;
    // Wherever the host mounts it, alone or with others.
    let mounts = std::fs::read_to_string("/proc/self/mountinfo").unwrap_or_default();
    let v1: Vec<PathBuf> = (mounts.lines())
        .filter(|line| line.contains(" - cgroup ") && line.split([',', ' ']).any(|word| word == controller))
        .filter_map(|line| Some(PathBuf::from(line.split(' ').nth(4)?)))
        .filter_map(|mount| find(&mount, &format!("sublet-{below}"), 4))
        .map(|dir| dir.join(file))
        .collect();
    let found = std::iter::once(unified).chain(v1).find_map(|path| std::fs::read_to_string(path).ok());
    Ok(found.ok_or_else(|| format!("no {v2} of {below}"))?.trim().to_owned())
}

/// A group by the end of its path, a few levels below the mount: wherever we were started.
fn find(dir: &Path, name: &str, depth: u32) -> Option<PathBuf> {
    let direct = dir.join(name);
    if direct.exists() {
        return Some(direct);
    }
    let below = std::fs::read_dir(dir).ok().filter(|_| depth > 0)?;
    let dirs = below.flatten().filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir()));
    dirs.into_iter().find_map(|entry| find(&entry.path(), name, depth - 1))
}

fn memory_of(supervisor: &Supervisor, worker: &str, up: usize) -> Result<String, String> {
    knob(supervisor, worker, up, "memory.max", ("memory", "memory.limit_in_bytes"))
}

/// Host with one function, and lines of the tenant's and the sub-tenants' tables.
fn levels(place: &Place, tenant: &str, sub_tenant: &str, function: &str) -> String {
    let (host, function) = (place.host(""), place.function("probe", function));
    format!("{host}[tenant.acme]\n{tenant}\n[tenant.acme.sub_tenant]\n{sub_tenant}\n{function}")
}

fn says(verdict: &Verdict, level: &str, setting: &str, limit: &str) -> Outcome {
    let found = (verdict.level.as_str(), verdict.setting.as_str(), verdict.limit.as_str());
    ensure!(found == (level, setting, limit) && !verdict.seen.is_empty(), "{verdict:?}");
    Ok(())
}

fn memory_levels() -> Outcome {
    let place = Place::new()?;
    let text = levels(
        &place,
        "memory_max = \"150MiB\"",
        "memory_max = \"100MiB\"\nworkers_max = 4",
        "memory_max = \"64MiB\"\nfreeze_after = \"never\"",
    );
    let supervisor = Supervisor::start(place, &text)?;
    let mut client = Client::new(&supervisor)?;
    let own = client.verdict("probe", "alloc 80", VerdictKind::Memory, Code::ResourceExhausted)?;
    says(&own, "worker", "tenant.acme.function.probe.memory_max", "64MiB")?;
    ensure!(own.receipt.as_ref().is_some_and(|receipt| receipt.exit.contains("SIGKILL")), "{own:?}");

    // Two workers of one sub-tenant, 50 MiB each: neither passes its own limit.
    let found = crowd(&supervisor, &[("s1", "hold 50"), ("s1", "hold 50")])?;
    says(&found, "sub-tenant", "tenant.acme.sub_tenant.memory_max", "100MiB")?;
    supervisor.admin(&["evict", "--all", "--force"])?;
    settle(&supervisor)?;

    // Three sub-tenants, 55 MiB each: the tenant's limit is the first in the way.
    let found = crowd(&supervisor, &[("s1", "hold 55"), ("s2", "hold 55"), ("s3", "hold 55")])?;
    says(&found, "tenant", "tenant.acme.memory_max", "150MiB")?;
    supervisor.admin(&["evict", "--all", "--force"])?;
    settle(&supervisor)?;

    // What bit before explains nothing of what bites now.
    let own = client.verdict("probe", "alloc 80", VerdictKind::Memory, Code::ResourceExhausted)?;
    says(&own, "worker", "tenant.acme.function.probe.memory_max", "64MiB")?;
    let faults = supervisor.admin(&["faults"])?;
    let levels: Vec<&str> =
        faults["faults"].as_array().into_iter().flatten().filter_map(|f| f["level"].as_str()).collect();
    for level in ["worker", "sub-tenant", "tenant"] {
        ensure!(levels.contains(&level), "{level} is not among the faults: {faults}");
    }
    supervisor.stop()
}

/// Makes calls that all run at one time, each on a worker of its own, and returns the one verdict among them. Then each
/// worker that is left is asked to hold on, until one has been killed.
fn crowd(supervisor: &Supervisor, calls: &'static [(&'static str, &'static str)]) -> Result<Verdict, String> {
    let mut held = Vec::new();
    // Each is held by a call, so that the next one of the same sub-tenant needs a worker of its own.
    let mut found = None;
    for (at, (label, verb)) in calls.iter().enumerate() {
        let mut client = Client::new(supervisor)?;
        let outcome = client.call(request("probe", label, verb));
        if let Err(status) = outcome {
            found = found.or(verdict(&status));
            continue;
        }
        if at + 1 < calls.len() {
            let (busy, pause) = if Ground::find().is_slow { ("sleep 8000", 1000) } else { ("sleep 1500", 300) };
            held.push(std::thread::spawn(move || client.call(request("probe", label, busy))));
            sleep(Duration::from_millis(pause));
        }
    }
    for call in held {
        if let Err(status) = call.join().map_err(|_| "a call's thread failed")? {
            found = found.or(verdict(&status));
        }
    }
    found.ok_or_else(|| "nobody was ended".to_owned())
}

/// Waits until no worker is left.
fn settle(supervisor: &Supervisor) -> Outcome {
    let end = Instant::now() + Duration::from_secs(20);
    while supervisor.admin(&["ps"])?.as_array().is_some_and(|all| !all.is_empty()) {
        ensure!(Instant::now() < end, "workers stay: {}", supervisor.admin(&["ps"])?);
        sleep(Duration::from_millis(20));
    }
    Ok(())
}

/// What a call says of a limit that was hit and is not why it failed.
fn beside(verdict: &Verdict, kind: VerdictKind, level: &str, setting: &str, limit: &str) -> Outcome {
    let found = remark(verdict.receipt.as_ref(), kind)?;
    ensure!(found.level == level && found.setting == setting && found.limit == limit, "{found:?}");
    Ok(())
}

fn pids_levels() -> Outcome {
    let place = Place::new()?;
    let text = levels(&place, "", "pids_max = 20\nworkers_max = 4", "pids_max = 16\nfreeze_after = \"never\"");
    let supervisor = Supervisor::start(place, &text)?;
    let mut client = Client::new(&supervisor)?;
    let own = client.verdict("probe", "fork 30", VerdictKind::FunctionError, Code::Unknown)?;
    beside(&own, VerdictKind::Pids, "worker", "tenant.acme.function.probe.pids_max", "16")?;
    supervisor.stop()?;

    // Each worker may have 16, both together 12: init, launcher and function are three each.
    let place = Place::new()?;
    let text = levels(&place, "", "pids_max = 12\nworkers_max = 4", "pids_max = 12\nfreeze_after = \"never\"");
    let supervisor = Supervisor::start(place, &text)?;
    let busy = std::thread::spawn({
        let mut client = Client::new(&supervisor)?;
        move || client.call(request("probe", "s1", "sleep 2000"))
    });
    sleep(Duration::from_millis(500));
    let mut client = Client::new(&supervisor)?;
    let of_sub = client.verdict("probe", "fork 9", VerdictKind::FunctionError, Code::Unknown)?;
    beside(&of_sub, VerdictKind::Pids, "sub-tenant", "tenant.acme.sub_tenant.pids_max", "12")?;
    busy.join().map_err(|_| "a call's thread failed")?.map_err(|status| format!("the neighbour failed: {status}"))?;
    supervisor.stop()
}

fn cpu_levels() -> Outcome {
    let place = Place::new()?;
    let text = levels(&place, "", "", "cpu_quota = \"100m\"\ntimeout = \"1500ms\"");
    let supervisor = Supervisor::start(place, &text)?;
    let mut client = Client::new(&supervisor)?;
    let own = client.verdict("probe", "spin 10000", VerdictKind::Cpu, Code::DeadlineExceeded)?;
    says(&own, "worker", "tenant.acme.function.probe.cpu_quota", "100m")?;
    let throttled = own.receipt.as_ref().and_then(|receipt| receipt.throttled).ok_or("no throttled time")?;
    ensure!(throttled.nanos > 0 || throttled.seconds > 0, "{own:?}");
    // One that only waits was not held back.
    let slept = client.verdict("probe", "sleep 10000", VerdictKind::Deadline, Code::DeadlineExceeded)?;
    says(&slept, "function", "tenant.acme.function.probe.timeout", "1500ms")?;
    supervisor.stop()?;

    let place = Place::new()?;
    let text = levels(&place, "", "cpu_quota = \"100m\"", "cpu_quota = \"100m\"\ntimeout = \"1500ms\"");
    let text = format!("{text}[tenant.acme.id.s1]\ncpu_quota = \"60m\"\n");
    let supervisor = Supervisor::start(place, &text)?;
    // Two workers share what one may have: the level above is the one that holds them back longest.
    let other = std::thread::spawn({
        let mut client = Client::new(&supervisor)?;
        move || client.call(request("probe", "s1", "spin 10000")).err().and_then(|status| verdict(&status))
    });
    let mut client = Client::new(&supervisor)?;
    let mine = client.call(request("probe", "s1", "spin 10000")).err().and_then(|status| verdict(&status));
    let both = [mine, other.join().map_err(|_| "a call's thread failed")?];
    for verdict in both.iter().flatten() {
        ensure!(verdict.kind() == VerdictKind::Cpu, "{verdict:?}");
        let is_of_sub = verdict.level == "sub-tenant" && verdict.setting == "tenant.acme.id.s1.cpu_quota";
        ensure!(is_of_sub || verdict.level == "worker", "{verdict:?}");
    }
    ensure!(both.iter().flatten().any(|verdict| verdict.level == "sub-tenant"), "{both:?}");
    supervisor.stop()
}

fn descriptors() -> Outcome {
    let supervisor = Supervisor::simple("nofile = 40")?;
    let mut client = Client::new(&supervisor)?;
    client.probe("s1", "leak 10")?;
    let verdict = client.verdict("probe", "leak 100", VerdictKind::FunctionError, Code::Unknown)?;
    ensure!(!verdict.function_error.is_empty(), "its own words are lost: {verdict:?}");
    beside(&verdict, VerdictKind::Descriptors, "worker", "tenant.acme.function.probe.nofile", "40")?;
    // Another failure of one that has some left is its own.
    client.verdict_of(request("probe", "s2", "error"), VerdictKind::FunctionError, Code::Unknown)?;
    supervisor.stop()
}

fn error_info() -> Outcome {
    let place = Place::new()?;
    let text = levels(&place, "", "rate = \"1/s\"\nrate_burst = 1", "memory_max = \"64MiB\"");
    let supervisor = Supervisor::start(place, &text)?;
    let mut client = Client::new(&supervisor)?;
    let metadata =
        |status: &tonic::Status| status.get_details_error_info().map(|info| info.metadata).unwrap_or_default();
    let status = client.call(request("probe", "s1", "alloc 80")).err().ok_or("the limit does not hold")?;
    let found = metadata(&status);
    let of = |key: &str| found.get(key).map(String::as_str).unwrap_or_default();
    ensure!(of("level") == "worker" && of("limit") == "64MiB" && of("observed").ends_with("bytes"), "{found:?}");
    ensure!(of("setting") == "tenant.acme.function.probe.memory_max", "{found:?}");
    // On a slow ground a whole second may have passed since the first.
    let refused = (0..50).find_map(|_| client.call(request("probe", "s1", "echo")).err());
    let found = metadata(&refused.ok_or("the rate does not hold")?);
    let expected = [
        ("level", "sub-tenant"),
        ("limit", "1/s"),
        ("observed", "more than 1/s"),
        ("setting", "tenant.acme.sub_tenant.rate"),
    ];
    for (key, value) in expected {
        ensure!(found.get(key).is_some_and(|found| found == value), "{key}: {found:?}");
    }
    supervisor.stop()
}

fn classes() -> Outcome {
    let place = Place::new()?;
    let classes = "[tenant.acme.class.gold]\nmemory_max = \"200MiB\"\nrate = \"1000/s\"\n\
                   [tenant.acme.id.rich]\nclass = \"gold\"\n\
                   [tenant.acme.id.\"odd one/\\u00e9\"]\nclass = \"gold\"\nmemory_max = \"220MiB\"\n";
    let text = levels(&place, "", "memory_max = \"100MiB\"", "cells_max = 2\nfreeze_after = \"never\"");
    let text = format!("{text}{classes}");
    let supervisor = Supervisor::start(place, &text)?;
    let mut client = Client::new(&supervisor)?;
    // The first is made for whoever it is, the next ones may be cells, whose group gets its limits when it gets its owner.
    for (label, limit) in [("plain", 100_u64), ("rich", 200), ("odd one/\u{e9}", 220), ("another", 100)] {
        let (_, receipt) = client.probe(label, "echo")?;
        let found = memory_of(&supervisor, &receipt.worker, 1)?;
        ensure!(found == (limit << 20).to_string(), "{label}: {found} ({:?})", receipt.start());
        sleep(Duration::from_millis(100));
    }
    let limits = supervisor.admin(&["limits", "tenant/acme/id/rich"])?;
    let line = |limits: &Value, key: &str| {
        limits.as_array().into_iter().flatten().find(|line| line["key"] == key).cloned().unwrap_or_default()
    };
    ensure!(line(&limits, "memory_max")["from"] == "tenant.acme.class.gold.memory_max", "{limits}");
    let limits = supervisor.admin(&["limits", "tenant/acme/id/never seen"])?;
    ensure!(line(&limits, "memory_max")["from"] == "tenant.acme.sub_tenant.memory_max", "{limits}");
    ensure!(
        line(&limits, "memory_max")["value"] == "100MiB" && line(&limits, "cpu_quota")["value"] == "none",
        "{limits}"
    );

    // A class is changed, and one of its members leaves it: running groups follow, the others stay.
    let (_, rich) = client.probe("rich", "put key value")?;
    let (_, plain) = client.probe("plain", "echo")?;
    let changed =
        text.replace("memory_max = \"200MiB\"", "memory_max = \"210MiB\"").replace("memory_max = \"220MiB\"\n", "");
    supervisor.place.write(&changed)?;
    let told = supervisor.admin(&["diff"])?;
    let expected = json!([
        "tenant.acme.class.gold.memory_max: 200MiB -> 210MiB",
        "tenant.acme.id.\"odd one/é\".memory_max: 220MiB -> 210MiB",
    ]);
    ensure!(told["changes"] == expected && told["above"] == json!([]), "{told}");
    supervisor.admin(&["reload"])?;
    ensure!(
        memory_of(&supervisor, &rich.worker, 1)? == (210_u64 << 20).to_string(),
        "the class's members did not follow"
    );
    ensure!(memory_of(&supervisor, &plain.worker, 1)? == (100_u64 << 20).to_string(), "another followed");
    let (found, again) = client.probe("rich", "get key")?;
    ensure!(found == "value/value" && again.worker == rich.worker, "the worker was not kept");

    // A function's own limits are written into running workers as well.
    supervisor.place.write(&changed.replace("memory_max = \"64MiB\"", "memory_max = \"72MiB\""))?;
    supervisor.admin(&["reload"])?;
    ensure!(memory_of(&supervisor, &rich.worker, 0)? == (72_u64 << 20).to_string(), "the worker's own limit");
    let (found, _) = client.probe("rich", "get key")?;
    ensure!(found == "value/value", "a new revision was made: {found}");
    supervisor.stop()
}

fn temporary() -> Outcome {
    let place = Place::new()?;
    let text = levels(&place, "", "memory_max = \"100MiB\"", "freeze_after = \"never\"");
    let text =
        format!("{text}[tenant.acme.class.gold]\nmemory_max = \"200MiB\"\n[tenant.acme.id.rich]\nclass = \"gold\"\n");
    let supervisor = Supervisor::start(place, &text)?;
    let mut client = Client::new(&supervisor)?;
    let (_, receipt) = client.probe("rich", "echo")?;
    let lasting = if Ground::find().is_slow { "20s" } else { "2s" };
    let set = supervisor.admin(&["set", "tenant/acme/class/gold", "memory.max=150MiB", "--for", lasting])?;
    ensure!(set["changes"] == json!(["tenant.acme.class.gold.memory_max: 200MiB -> 150MiB"]), "{set}");
    ensure!(memory_of(&supervisor, &receipt.worker, 1)? == (150_u64 << 20).to_string(), "it does not hold");
    let limits = supervisor.admin(&["limits", "tenant/acme/id/rich"])?;
    let line = limits.as_array().into_iter().flatten().find(|line| line["key"] == "memory_max").ok_or("no line")?;
    ensure!(line["otherwise"] == "200MiB" && line["until"] == set["until"], "it is not shown: {line}");
    // A reload in between keeps it.
    supervisor.place.write(&text.replace("100MiB", "110MiB"))?;
    supervisor.admin(&["reload"])?;
    ensure!(memory_of(&supervisor, &receipt.worker, 1)? == (150_u64 << 20).to_string(), "a reload took it back");
    let end = Instant::now() + Duration::from_secs(60);
    while memory_of(&supervisor, &receipt.worker, 1)? != (200_u64 << 20).to_string() {
        ensure!(Instant::now() < end, "it does not expire");
        sleep(Duration::from_millis(100));
    }
    // Taken back by hand.
    supervisor.admin(&["set", "tenant/acme/id/rich", "rate=1/s", "workers_max=1", "--for", "1h"])?;
    client.probe("rich", "echo")?;
    let status = client.call(request("probe", "rich", "echo")).err().ok_or("the rate does not hold")?;
    ensure!(crate::client::reason(&status) == "SUB_TENANT_RATE", "{status:?}");
    supervisor.admin(&["unset", "tenant/acme/id/rich"])?;
    for _ in 0..5 {
        client.probe("rich", "echo")?;
    }
    let again = supervisor.admin(&["unset", "--all"])?;
    ensure!(again["error"].as_str().is_some_and(|error| error.contains("no limit")), "{again}");
    supervisor.stop()
}

fn below_use() -> Outcome {
    let place = Place::new()?;
    let text = levels(&place, "", "memory_max = \"200MiB\"", "memory_max = \"96MiB\"\nfreeze_after = \"never\"");
    let supervisor = Supervisor::start(place, &text)?;
    let mut client = Client::new(&supervisor)?;
    let (_, receipt) = client.probe("s1", "hold 40")?;
    let (_, other) = client.probe("s2", "echo")?;
    let lower = text.replace("memory_max = \"200MiB\"", "memory_max = \"20MiB\"").replace("\"96MiB\"", "\"20MiB\"");
    supervisor.place.write(&lower)?;
    let diff = supervisor.admin(&["diff"])?;
    let above: Vec<&Value> = diff["above"].as_array().into_iter().flatten().collect();
    ensure!(above.len() == 2, "worker and sub-tenant are above: {diff}");
    ensure!(above.iter().any(|line| line["setting"] == "tenant.acme.sub_tenant.memory_max"), "{diff}");
    let told = supervisor.admin(&["reload"])?;
    let error = told["error"].as_str().unwrap_or_default();
    ensure!(
        error.contains("stays in force") && error.contains("in use") && error.contains("--end-those-above"),
        "{told}"
    );
    for (worker, up, limit) in
        [(&receipt.worker, 0, 96_u64), (&receipt.worker, 1, 200), (&other.worker, 0, 96), (&other.worker, 1, 200)]
    {
        let found = memory_of(&supervisor, worker, up)?;
        ensure!(found == (limit << 20).to_string(), "{worker} {up}: {found} is not what it was");
    }
    let (found, again) = client.probe("s1", "hold 0")?;
    ensure!(found == "holds 40 MiB" && again.worker == receipt.worker, "it was touched: {found}");

    // Asked to end those above, it ends those and no other.
    let told = supervisor.admin(&["reload", "--end-those-above"])?;
    ensure!(told["changes"].as_array().is_some_and(|changes| changes.len() == 2), "{told}");
    let left: Vec<String> = (supervisor.admin(&["ps"])?.as_array().into_iter().flatten())
        .filter_map(|worker| worker["worker"].as_str().map(str::to_owned))
        .collect();
    ensure!(left == [other.worker.clone()], "{left:?}");
    ensure!(memory_of(&supervisor, &other.worker, 1)? == (20_u64 << 20).to_string(), "the new limit does not hold");
    client.verdict("probe", "alloc 40", VerdictKind::Memory, Code::ResourceExhausted)?;
    supervisor.stop()
}

/// Sub-tenants whose limits are changed at once.
const CROWD: usize = 1000;
/// Changes, one after the other.
const ROUNDS: u64 = 5;

fn under_load() -> Outcome {
    let place = Place::new()?;
    let crowd = if Ground::find().is_slow { CROWD / 100 } else { CROWD };
    let host = place.host(&format!("workers_max = {}", crowd + 50));
    let function = place.function("probe", "freeze_after = \"10ms\"\nmemory_max = \"32MiB\"\nidle_ttl = \"1h\"");
    let text = format!("{host}[tenant.acme.sub_tenant]\nmemory_max = \"100MiB\"\npids_max = 50\n{function}");
    let supervisor = Supervisor::start(place, &text)?;
    let mut client = Client::new(&supervisor)?;
    let mut workers = Vec::new();
    for n in 0..crowd {
        workers.push(client.probe(&format!("s{n}"), "echo")?.1.worker);
    }
    let stop = Arc::new(AtomicBool::new(false));
    let load: Vec<_> = (0..2)
        .map(|lane| {
            let (mut client, stop) = (Client::new(&supervisor)?, stop.clone());
            Ok(std::thread::spawn(move || {
                let mut calls = 0_usize;
                while !stop.load(Ordering::Relaxed) {
                    client.probe(&format!("s{}", (calls * 2 + lane) % crowd), "echo on")?;
                    calls += 1;
                }
                Ok::<usize, String>(calls)
            }))
        })
        .collect::<Result<_, String>>()?;
    let mut longest = Duration::ZERO;
    for round in 1..=ROUNDS {
        let (memory, pids, quota) = (100 + round, 50 + round, 1000 - 50 * round);
        let changed = text
            .replace("memory_max = \"100MiB\"", &format!("memory_max = \"{memory}MiB\"\ncpu_quota = \"{quota}m\""))
            .replace("pids_max = 50", &format!("pids_max = {pids}"))
            .replace(
                "memory_max = \"32MiB\"",
                &format!("memory_max = \"{}MiB\"\ncpu_quota = \"{quota}m\"", 32 + round),
            );
        supervisor.place.write(&changed)?;
        let begun = Instant::now();
        let told = supervisor.admin(&["reload"])?;
        longest = longest.max(begun.elapsed());
        ensure!(told["changes"].as_array().is_some_and(|changes| changes.len() == 5), "round {round}: {told}");
        for worker in [&workers[0], &workers[crowd / 2], &workers[crowd - 1]] {
            ensure!(memory_of(&supervisor, worker, 1)? == (memory << 20).to_string(), "round {round}: {worker}");
            ensure!(memory_of(&supervisor, worker, 0)? == ((32 + round) << 20).to_string(), "round {round}: {worker}");
            let found = knob(&supervisor, worker, 1, "pids.max", ("pids", "pids.max"))?;
            ensure!(found == pids.to_string(), "round {round}: {worker}: {found}");
        }
    }
    stop.store(true, Ordering::Relaxed);
    for lane in load {
        let calls = lane.join().map_err(|_| "a call's thread failed")??;
        ensure!(calls > 0, "there was no load");
    }
    print!("({crowd} sub-tenants in {} ms at the longest) ", longest.as_millis());
    supervisor.stop()
}

fn put_back() -> Outcome {
    let place = Place::new()?;
    let text = levels(
        &place,
        "memory_max = \"400MiB\"",
        "memory_max = \"200MiB\"\npids_max = 50",
        "memory_max = \"96MiB\"\nfreeze_after = \"never\"",
    );
    let supervisor = Supervisor::start(place, &text)?;
    let mut client = Client::new(&supervisor)?;
    let mut workers = Vec::new();
    for n in 0..8 {
        workers.push(client.probe(&format!("s{n}"), if n == 5 { "hold 60" } else { "echo" })?.1.worker);
    }
    // One of eight stands in the way; whatever was written for the others before it is put back.
    let changed =
        text.replace("\"200MiB\"\npids_max = 50", "\"40MiB\"\npids_max = 60").replace("\"96MiB\"", "\"40MiB\"");
    supervisor.place.write(&changed)?;
    let told = supervisor.admin(&["reload"])?;
    ensure!(told["error"].as_str().is_some_and(|error| error.contains("nothing is changed")), "{told}");
    for worker in &workers {
        ensure!(memory_of(&supervisor, worker, 0)? == (96_u64 << 20).to_string(), "{worker}");
        ensure!(memory_of(&supervisor, worker, 1)? == (200_u64 << 20).to_string(), "{worker}");
        let pids = knob(&supervisor, worker, 1, "pids.max", ("pids", "pids.max"))?;
        ensure!(pids == "50", "{worker}: pids.max is {pids}");
    }
    let limits = supervisor.admin(&["limits", "tenant/acme/sub_tenant"])?;
    ensure!(limits.to_string().contains("200MiB"), "the books say otherwise: {limits}");
    supervisor.stop()
}

fn removed() -> Outcome {
    let place = Place::new()?;
    let last = place.function("last", "calls_max = 1\nworkers_per_sub_tenant_max = 1");
    let text = levels(&place, "", "memory_max = \"100MiB\"", "");
    let supervisor = Supervisor::start(place, &format!("{text}{last}"))?;
    // The first has a worker, the others wait for one each: a worker serves one call, and is to be looked at meanwhile.
    let payload = if Ground::find().is_slow { "sleep 5000" } else { "sleep 1500" };
    let calls: Vec<_> = (0..3)
        .map(|_| {
            let mut client = Client::new(&supervisor)?;
            Ok(std::thread::spawn(move || client.call(request("last", "s1", payload))))
        })
        .collect::<Result<_, String>>()?;
    sleep(Duration::from_millis(700));
    supervisor.place.write(&text)?;
    let told = supervisor.admin(&["reload"])?;
    ensure!(told["changes"] == json!(["tenant.acme.function.last: removed"]), "{told}");
    let busy = || -> Result<Option<String>, String> {
        let listed = supervisor.admin(&["ps"])?;
        let busy = listed.as_array().into_iter().flatten().find(|w| w["function"] == "last" && w["state"] == "busy");
        Ok(busy.and_then(|worker| worker["worker"].as_str().map(str::to_owned)))
    };
    let first = busy()?;
    let end = Instant::now() + Duration::from_secs(60);
    let next = loop {
        match busy()? {
            next @ Some(_) if next != first => break next.unwrap_or_default(),
            _ => {
                ensure!(Instant::now() < end, "no further worker is made");
            }
        }
    };
    ensure!(memory_of(&supervisor, &next, 0)? == (64_u64 << 20).to_string(), "it has no limit of its own");
    ensure!(memory_of(&supervisor, &next, 1)? == (100_u64 << 20).to_string(), "its sub-tenant has none");
    for call in calls {
        call.join().map_err(|_| "a call's thread failed")?.map_err(|status| format!("it was cut: {status}"))?;
    }
    supervisor.stop()
}

fn wrong() -> Outcome {
    let place = Place::new()?;
    let text = levels(&place, "", "memory_max = \"100MiB\"", "");
    let supervisor = Supervisor::start(place, &text)?;
    let mut client = Client::new(&supervisor)?;
    let (_, before) = client.probe("s1", "echo")?;
    let long = format!("tenant/acme/id/{}", "a".repeat(257));
    let cases: &[(&[&str], &str)] = &[
        (&["set", "tenant/acme/class/gold", "memory_max=64MiB", "--for", "1m"], "no such level"),
        (&["set", "tenant/nobody", "memory_max=64MiB", "--for", "1m"], "no such level"),
        (&["set", "tenant/acme/sub_tenant", "memory_max=0", "--for", "1m"], "not a size"),
        (&["set", "tenant/acme/sub_tenant", "memory_max=0MiB", "--for", "1m"], "below"),
        (&["set", "tenant/acme/sub_tenant", "memory_max=-1MiB", "--for", "1m"], "not a size"),
        (&["set", "tenant/acme/sub_tenant", "memory_max=1GB", "--for", "1m"], "not a size"),
        (&["set", "tenant/acme/sub_tenant", "memory_max=900000GiB", "--for", "1m"], "memory of this host"),
        (&["set", "tenant/acme/sub_tenant", "memory_max=10MiB", "--for", "1m"], "function.probe.memory_max"),
        (&["set", "tenant/acme/sub_tenant", "colour=red", "--for", "1m"], "can be changed for a time"),
        (&["set", "tenant/acme/function/probe", "command=/bin/sh", "--for", "1m"], "can be changed for a time"),
        (&["set", "acme/gold", "memory_max=64MiB", "--for", "1m"], "is no level"),
        (&["set", &long, "memory_max=64MiB", "--for", "1m"], "is no level"),
        (&["set", "tenant/acme/sub_tenant", "memory_max=64MiB", "--for", "0s"], "no time is named"),
        (&["set", "tenant/acme/sub_tenant", "memory_max=64MiB", "--for", "9999h"], "configuration file"),
        (&["limits", "tenant/acme/class/none"], "no such level"),
        (&["limits", "nonsense"], "is no level"),
        (&["unset", "tenant/acme/sub_tenant"], "no limit"),
    ];
    for (arguments, says) in cases {
        let told = supervisor.admin(arguments)?;
        ensure!(told["error"].as_str().is_some_and(|error| error.contains(says)), "{arguments:?}: {told}");
    }
    let (_, after) = client.probe("s1", "echo")?;
    ensure!(after.worker == before.worker, "something was changed");
    ensure!(memory_of(&supervisor, &after.worker, 1)? == (100_u64 << 20).to_string(), "something was changed");
    supervisor.stop()
}

fn no_form() -> Outcome {
    let place = Place::new()?;
    let text = levels(&place, "memory_min = \"32MiB\"", "memory_high = \"90MiB\"\nmemory_max = \"100MiB\"", "");
    if Ground::find().is_hybrid() {
        // Refused by name; accepted, it is left out and said so.
        let error = Supervisor::start(place, &text).err().ok_or("memory_high is taken without a form")?;
        ensure!(error.contains("tenant.acme.sub_tenant.memory_high") && error.contains("accept_degraded"), "{error}");
        ensure!(error.contains("tenant.acme.memory_min"), "{error}");
        let place = Place::new()?;
        let text = levels(&place, "memory_min = \"32MiB\"", "memory_high = \"90MiB\"\nmemory_max = \"100MiB\"", "");
        let text = text.replace("accept_degraded = [", "accept_degraded = [\"memory_high\", \"memory_min\", ");
        let supervisor = Supervisor::start(place, &text)?;
        let limits = supervisor.admin(&["limits", "tenant/acme/sub_tenant"])?;
        let line =
            limits.as_array().into_iter().flatten().find(|line| line["key"] == "memory_high").ok_or("no line")?;
        ensure!(line["not_enforced"].as_str().is_some_and(|why| why.contains("v1")), "{line}");
        let health = supervisor.admin(&["health"])?;
        ensure!(health["degraded"].to_string().contains("memory_high"), "{health}");
        return supervisor.stop();
    }
    let supervisor = Supervisor::start(place, &text)?;
    let mut client = Client::new(&supervisor)?;
    let (_, receipt) = client.probe("s1", "echo")?;
    let of = |up: usize, file: &str| knob(&supervisor, &receipt.worker, up, file, ("memory", "none"));
    ensure!(of(1, "memory.high")? == (90_u64 << 20).to_string(), "memory.high is {}", of(1, "memory.high")?);
    ensure!(of(2, "memory.min")? == (32_u64 << 20).to_string(), "memory.min is {}", of(2, "memory.min")?);
    // The topmost guarantees the supervisor its 64 MiB as well.
    let due = |up: usize, mib: u64| (if up == 4 { mib + 64 } else { mib } << 20).to_string();
    for up in [3, 4] {
        ensure!(of(up, "memory.min")? == due(up, 32), "{up} above guarantees {}", of(up, "memory.min")?);
    }
    for mib in [48_u64, 16] {
        supervisor.place.write(&text.replace("memory_min = \"32MiB\"", &format!("memory_min = \"{mib}MiB\"")))?;
        let told = supervisor.admin(&["reload"])?;
        ensure!(told["changes"].as_array().is_some_and(|changes| changes.len() == 1), "{told}");
        for up in [2, 3, 4] {
            ensure!(of(up, "memory.min")? == due(up, mib), "{up} above: {}", of(up, "memory.min")?);
        }
    }
    supervisor.stop()
}

fn tcp_buffers() -> Outcome {
    // Outside of any worker they take what is asked for.
    let outside = Command::new(crate::supervisor::probe()).args(["tcp", "60"]).output();
    let outside = String::from_utf8_lossy(&outside.map_err(|error| error.to_string())?.stdout).into_owned();
    let taken = |text: &str| text.trim().parse::<u64>().map_err(|_| format!("{text:?} is no number"));
    ensure!(taken(&outside)? >= 60, "outside they took {outside} MiB only, so that nothing is shown here");
    let supervisor = Supervisor::simple("memory_max = \"32MiB\"\nnofile = 256")?;
    let mut client = Client::new(&supervisor)?;
    match client.call(request("probe", "s1", "tcp 60")) {
        // v1 limits them beside the memory: an eighth of it, or 4 MiB. What is written and what the kernel counts are not
        // the same to the byte.
        Ok(response) => {
            let taken = taken(&String::from_utf8_lossy(&response.payload))?;
            ensure!(taken <= 16, "{taken} MiB in a worker of 32 MiB");
        }
        // v2 counts them as memory.
        Err(status) => {
            let found = verdict(&status).ok_or_else(|| format!("{status:?}"))?;
            ensure!(found.kind() == VerdictKind::Memory, "{found:?}");
        }
    }
    supervisor.stop()
}
