//! What somebody else on the host does to groups: noticed, named, put right or refused, and health tells it.

use std::{
    fs,
    path::{Path, PathBuf},
    thread::sleep,
    time::{Duration, Instant},
};

use serde_json::Value;
use sublet_proto::v1::VerdictKind;
use tonic::Code;

use crate::{
    Case, Outcome, case,
    client::{Client, reason, request},
    configs::Place,
    ensure,
    ground::Need,
    supervisor::Supervisor,
    told,
};

/// The cases.
pub const CASES: &[Case] = &[
    case("groups::nothing_is_found_where_nobody_has_done_anything", untouched),
    case("groups::limit_written_by_hand_is_set_again", limits),
    case("groups::worker_that_somebody_froze_goes_on_and_one_that_was_thawed_is_frozen_again", switches),
    case("groups::frozen_pool_serves_nobody_and_says_so", frozen_pool),
    case("groups::worker_that_somebody_killed_is_not_blamed_on_its_function", killed),
    Case { needs: &[Need::Hybrid], ..case("groups::worker_whose_group_was_removed_is_ended_and_replaced", removed) },
    case("groups::pool_that_was_removed_serves_nobody_and_says_so", removed_pool),
];

/// Waits for something that a look once a second brings about.
fn until(what: &str, mut holds: impl FnMut() -> Result<bool, String>) -> Outcome {
    let end = Instant::now() + Duration::from_secs(60);
    while !holds()? {
        ensure!(Instant::now() < end, "in vain: {what}");
        sleep(Duration::from_millis(20));
    }
    Ok(())
}

/// A worker's group in the v2 hierarchy.
fn group(supervisor: &Supervisor, worker: &str) -> Result<PathBuf, String> {
    let path = supervisor.admin(&["describe", worker])?["cgroup"].as_str().unwrap_or_default().to_owned();
    ensure!(path.ends_with(worker), "no group: {path:?}");
    Ok(path.into())
}

/// The directory of a group where its limit on processes is kept.
fn pids(group: &Path) -> PathBuf {
    let v1 = PathBuf::from(group.display().to_string().replace("/unified/", "/pids/"));
    if v1.join("pids.max").exists() { v1 } else { group.to_owned() }
}

fn read(file: &Path) -> Result<String, String> {
    Ok(fs::read_to_string(file).map_err(|error| format!("{}: {error}", file.display()))?.trim().to_owned())
}

fn write(file: &Path, text: &str) -> Outcome {
    fs::write(file, text).map_err(|error| format!("{}: {error}", file.display()))
}

fn mended(health: &Value) -> u64 {
    health["groups_mended"].as_u64().unwrap_or_default()
}

fn untouched() -> Outcome {
    let place = Place::new()?;
    // Numbers that the kernel does not keep as they are written, in every kind of limit that all grounds have.
    let text = format!(
        "{}[tenant.acme]\nmemory_max = \"200000001B\"\ncpu_quota = \"1500m\"\ncpu_weight = 77\n\
         [tenant.acme.sub_tenant]\npids_max = 100\ncpu_quota = \"700m\"\ncpu_period = \"33ms\"\n{}",
        place.host(""),
        place.function(
            "probe",
            "cells_max = 2\ncpu_quota = \"333m\"\nfreeze_after = \"20ms\"\nmemory_max = \"64000001B\""
        )
    );
    let supervisor = Supervisor::start(place, &text)?;
    let mut client = Client::new(&supervisor)?;
    for round in 0..30 {
        for sub_tenant in ["s1", "s2", &format!("new-{round}")] {
            client.probe(sub_tenant, "echo here")?;
        }
        match round % 4 {
            1 => drop(supervisor.admin(&["set", "tenant/acme/sub_tenant", "pids_max=50", "--for", "1m"])?),
            3 => drop(supervisor.admin(&["unset", "--all"])?),
            _ => drop(supervisor.admin(&["limits"])?),
        }
    }
    // Some looks more, at groups that stand still.
    client.rest(Duration::from_secs(3));
    let health = supervisor.admin(&["health"])?;
    ensure!(mended(&health) == 0 && health["groups_left"] == serde_json::json!([]), "{health}");
    supervisor.stop()
}

fn limits() -> Outcome {
    let place = Place::new()?;
    let text = format!(
        "{}[tenant.acme]\npids_max = 200\n[tenant.acme.sub_tenant]\npids_max = 100\n{}",
        place.host("pids_max = 300"),
        place.function("probe", "")
    );
    let supervisor = Supervisor::start(place, &text)?;
    let mut client = Client::new(&supervisor)?;
    let (_, receipt) = client.probe("s1", "echo here")?;
    let worker = group(&supervisor, &receipt.worker)?;
    let levels: Vec<PathBuf> = worker.ancestors().take(4).map(|dir| pids(dir).join("pids.max")).collect();
    let [own, sub, tenant, pool] = levels.as_slice() else { return Err("no levels".into()) };
    let before = mended(&supervisor.admin(&["health"])?);
    let expected = [(own, "16"), (sub, "100"), (tenant, "200"), (pool, "300")];
    for (file, value) in expected {
        let found = read(file)?;
        ensure!(found == value, "{} is {found}", file.display());
    }
    for file in [own, sub, tenant] {
        write(file, "max")?;
    }
    // Whoever asks for the limits in force is told what is.
    supervisor.admin(&["limits"])?;
    for (file, value) in expected {
        let found = read(file)?;
        ensure!(found == value, "{} is {found} after it was asked for", file.display());
    }
    let health = supervisor.admin(&["health"])?;
    ensure!(mended(&health) >= before + 3 && health["groups_left"] == serde_json::json!([]), "{health}");
    // And nobody has to ask.
    write(own, "17")?;
    until("the worker's limit is set again", || Ok(read(own)? == "16"))?;
    // The pool's own limits are root's: they are named for as long as it takes.
    write(pool, "299")?;
    supervisor.admin(&["limits"])?;
    let health = supervisor.admin(&["health"])?;
    let left = health["groups_left"].to_string();
    ensure!(left.contains("the pool") && left.contains("pids.max") && left.contains("299"), "{health}");
    write(pool, "300")?;
    supervisor.admin(&["limits"])?;
    let health = supervisor.admin(&["health"])?;
    ensure!(health["groups_left"] == serde_json::json!([]), "{health}");
    client.probe("s1", "echo on")?;
    supervisor.stop()
}

fn switches() -> Outcome {
    let supervisor = Supervisor::simple("freeze_after = \"50ms\"")?;
    let mut client = Client::new(&supervisor)?;
    let (_, receipt) = client.probe("s1", "echo here")?;
    let worker = group(&supervisor, &receipt.worker)?;
    let switch = worker.join("cgroup.freeze");
    until("the idle worker is frozen", || Ok(read(&switch)? == "1"))?;
    write(&switch, "0")?;
    until("the idle worker is frozen again", || Ok(read(&switch)? == "1"))?;
    let sub = worker.parent().ok_or("no level")?.join("cgroup.freeze");
    for file in [&switch, &sub] {
        let busy = std::thread::spawn({
            let mut client = Client::new(&supervisor)?;
            move || client.probe("s1", "sleep 1000")
        });
        // Once it has the call, it runs.
        until("the worker has its call", || Ok(supervisor.admin(&["ps"])?[0]["state"] == "busy"))?;
        client.rest(Duration::from_millis(100));
        write(file, "1")?;
        let (answer, after) = busy.join().map_err(|_| "the call's thread failed")??;
        ensure!(answer == "slept" && after.worker == receipt.worker, "{after:?}");
    }
    let health = supervisor.admin(&["health"])?;
    ensure!(mended(&health) >= 3, "{health}");
    supervisor.stop()
}

fn frozen_pool() -> Outcome {
    let supervisor = Supervisor::simple("timeout = \"2s\"")?;
    let mut client = Client::new(&supervisor)?;
    let (_, receipt) = client.probe("s1", "echo here")?;
    let worker = group(&supervisor, &receipt.worker)?;
    let pool = worker.ancestors().nth(3).ok_or("no pool")?.join("cgroup.freeze");
    ensure!(pool.exists() && pool.display().to_string().ends_with("/pool/cgroup.freeze"), "{}", pool.display());
    write(&pool, "1")?;
    let found = client.verdict("probe", "echo frozen", VerdictKind::Deadline, Code::DeadlineExceeded);
    let status = supervisor.admin(&["health"]);
    write(&pool, "0")?;
    let (found, status) = (found?, status?);
    ensure!(found.message.contains("somebody on the host had the worker frozen"), "{found:?}");
    ensure!(status["status"] == "not serving", "{status}");
    ensure!(status["not_serving"][0]["why"].to_string().contains("frozen"), "{status}");
    ensure!(status["groups_left"].to_string().contains("the pool"), "{status}");
    until("it serves again", || Ok(supervisor.admin(&["health"])?["status"] == "serving"))?;
    client.probe("s1", "echo on")?;
    let told = supervisor.told_under(&found.error_id)?;
    ensure!(told.contains("pool"), "operators are not told which group: {told}");
    supervisor.stop()
}

fn killed() -> Outcome {
    let supervisor = Supervisor::simple("")?;
    let mut client = Client::new(&supervisor)?;
    let (_, receipt) = client.probe("s1", "echo here")?;
    let worker = group(&supervisor, &receipt.worker)?;
    let busy = std::thread::spawn({
        let mut client = Client::new(&supervisor)?;
        move || client.verdict("probe", "sleep 60000", VerdictKind::Evicted, Code::Unavailable)
    });
    until("the worker has its call", || Ok(supervisor.admin(&["ps"])?[0]["state"] == "busy"))?;
    write(&worker.join("cgroup.kill"), "1")?;
    let found = busy.join().map_err(|_| "the call's thread failed")??;
    ensure!(found.message.contains("somebody on the host"), "{found:?}");
    // What the function does to itself is still its own.
    client.verdict("probe", "signal 9", VerdictKind::Crash, Code::Unknown)?;
    supervisor.stop()
}

fn removed() -> Outcome {
    let supervisor = Supervisor::simple("workers_per_sub_tenant_max = 2")?;
    let mut client = Client::new(&supervisor)?;
    let (_, receipt) = client.probe("s1", "echo here")?;
    let worker = pids(&group(&supervisor, &receipt.worker)?);
    let root = PathBuf::from("/sys/fs/cgroup/pids/cgroup.procs");
    ensure!(root.exists(), "{} is not there", root.display());
    let busy = std::thread::spawn({
        let mut client = Client::new(&supervisor)?;
        move || client.call(request("probe", "s1", "sleep 60000"))
    });
    until("the worker has its call", || Ok(supervisor.admin(&["ps"])?[0]["state"] == "busy"))?;
    // Those in it go first, then the group, then the level that has nobody else in it.
    for pid in read(&worker.join("cgroup.procs"))?.lines() {
        write(&root, pid)?;
    }
    told(fs::remove_dir(&worker))?;
    told(fs::remove_dir(worker.parent().ok_or("no level")?))?;
    // The next worker of the sub-tenant finds no level, and makes it again.
    let (_, second) = client.probe("s1", "echo beside")?;
    ensure!(second.worker != receipt.worker, "{second:?}");
    ensure!(pids(&group(&supervisor, &second.worker)?).join("pids.max").exists(), "the second has no limits");
    let ended = busy.join().map_err(|_| "the call's thread failed")?;
    let status = ended.err().ok_or("the call was answered")?;
    ensure!(reason(&status) == "INTERNAL", "{status:?}");
    until("the worker is gone", || {
        let listed = supervisor.admin(&["ps"])?;
        Ok(!listed.to_string().contains(&format!("{:?}", receipt.worker)))
    })?;
    let faults = supervisor.admin(&["faults"])?.to_string();
    ensure!(faults.contains("somebody else has removed"), "operators are not told: {faults}");
    client.probe("s1", "echo on")?;
    supervisor.stop()
}

fn removed_pool() -> Outcome {
    let supervisor = Supervisor::simple("")?;
    let mut client = Client::new(&supervisor)?;
    let (_, receipt) = client.probe("s1", "echo here")?;
    let worker = group(&supervisor, &receipt.worker)?;
    let pool = pids(worker.ancestors().nth(3).ok_or("no pool")?);
    supervisor.admin(&["evict", &receipt.worker])?;
    crate::life::no_workers(&supervisor)?;
    until("nothing is left in the pool", || Ok(fs::remove_dir(&pool).is_ok()))?;
    until("health says so", || Ok(supervisor.admin(&["health"])?["status"] == "not serving"))?;
    let health = supervisor.admin(&["health"])?;
    ensure!(health["not_serving"][0]["why"].to_string().contains("removed the group of all workers"), "{health}");
    let status = client.call(request("probe", "s1", "echo on")).err().ok_or("a call was answered without limits")?;
    ensure!(reason(&status) == "INTERNAL", "{status:?}");
    supervisor.stop()
}
