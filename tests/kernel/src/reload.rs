//! The configuration read again under running workers.

use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use tonic::Code;

use crate::{
    Case, Outcome, case,
    client::{Client, reason, request},
    configs::Place,
    ensure,
    ground::Ground,
    supervisor::Supervisor,
};

/// The cases.
pub const CASES: &[Case] = &[
    case("reload::limits_change_under_a_worker_that_goes_on", limits),
    case("reload::isolation_changes_live_and_old_workers_finish", isolation),
    case("reload::wrong_configuration_changes_nothing", wrong),
    case("reload::hang_up_reads_again", hang_up),
    case("reload::answers_come_whether_they_are_polled_for_or_not", busy_poll),
];

fn limits() -> Outcome {
    let place = Place::new()?;
    let text = place.simple("timeout = \"60s\"");
    let supervisor = Supervisor::start(place, &text)?;
    let mut client = Client::new(&supervisor)?;
    let (_, before) = client.probe("s1", "put key value")?;
    supervisor.place.write(&text.replace("\ntimeout = \"60s\"\n", "\ntimeout = \"200ms\"\n"))?;
    let told = supervisor.admin(&["reload"])?;
    ensure!(told["changes"] == serde_json::json!(["tenant.acme.function.probe.timeout: 1m -> 200ms"]), "{told}");
    let (found, after) = client.probe("s1", "get key")?;
    ensure!(found == "value/value" && after.worker == before.worker, "the worker was not kept: {after:?}");
    let status = client.call(request("probe", "s1", "sleep 3000")).err().ok_or("the new limit does not hold")?;
    ensure!(status.code() == Code::DeadlineExceeded, "{status:?}");
    // A limit of the sub-tenant's group is written into the group that is there.
    let (_, receipt) = client.probe("s1", "echo")?;
    let group = supervisor.admin(&["describe", &receipt.worker])?["cgroup"].as_str().unwrap_or_default().to_owned();
    let level = text.replace("[tenant.acme.sub_tenant]\n", "[tenant.acme.sub_tenant]\npids_max = 77\n");
    supervisor.place.write(&level)?;
    supervisor.admin(&["reload"])?;
    let found = pids_max(&group)?;
    ensure!(found == "77", "pids.max of the sub-tenant's group is {found}");
    supervisor.place.write(&text)?;
    supervisor.admin(&["reload"])?;
    let found = pids_max(&group)?;
    ensure!(found == "max", "pids.max is not lifted: {found}");
    supervisor.stop()
}

/// Of the group above a worker's, wherever this host keeps it.
fn pids_max(worker: &str) -> Result<String, String> {
    let (level, _) = worker.rsplit_once('/').ok_or("no group")?;
    let candidates = [format!("{level}/pids.max"), format!("{}/pids.max", level.replace("/unified/", "/pids/"))];
    let found = candidates.iter().find_map(|path| std::fs::read_to_string(path).ok());
    Ok(found.ok_or(format!("no pids.max in {candidates:?}"))?.trim().to_owned())
}

fn isolation() -> Outcome {
    let place = Place::new()?;
    let text = place.simple("");
    let supervisor = Supervisor::start(place, &text)?;
    let mut client = Client::new(&supervisor)?;
    client.probe("s1", "echo warm")?;
    let busy = std::thread::spawn({
        let mut client = Client::new(&supervisor)?;
        move || client.probe("s2", "sleep 1000")
    });
    client.rest(Duration::from_millis(300));
    let shared = format!("{text}isolation = \"shared\"\n");
    supervisor.place.write(&shared)?;
    supervisor.admin(&["reload"])?;
    let status = client.call(request("probe", "s1", "echo")).err().ok_or("a label is taken")?;
    ensure!(reason(&status) == "SUB_TENANT_NOT_TAKEN", "{status:?}");
    client.probe("", "put key common")?;
    let (answer, _) = busy.join().map_err(|_| "the call's thread failed")??;
    ensure!(answer == "slept", "the call of the old mode was cut: {answer}");
    let end = Instant::now() + Duration::from_secs(20);
    loop {
        let listed = supervisor.admin(&["ps"])?;
        if listed.as_array().is_some_and(|all| all.len() == 1) {
            break;
        }
        ensure!(Instant::now() < end, "workers of the old mode stay: {listed}");
        std::thread::sleep(Duration::from_millis(20));
    }
    supervisor.place.write(&text)?;
    supervisor.admin(&["reload"])?;
    let (found, _) = client.probe("s1", "get key")?;
    ensure!(found == "-/-", "state of the shared worker is seen: {found}");
    supervisor.stop()
}

fn wrong() -> Outcome {
    let place = Place::new()?;
    let text = place.simple("");
    let supervisor = Supervisor::start(place, &text)?;
    let mut client = Client::new(&supervisor)?;
    let (_, before) = client.probe("s1", "echo warm")?;
    let half = &text[..text.len() - 9];
    let cases = [
        ("half a file", half.to_owned(), "line"),
        ("unknown key", format!("{text}nonsense = 1\n"), "nonsense"),
        ("fixed", text.replace("[host]\n", "[host]\nuid_base = 1000000000\n"), "host.uid_base"),
        (
            "weight of zero",
            text.replace("[tenant.acme.sub_tenant]\n", "[tenant.acme.sub_tenant]\nweight = 0\n"),
            "weight",
        ),
        (
            "rate of zero",
            text.replace("[tenant.acme.sub_tenant]\n", "[tenant.acme.sub_tenant]\nrate = \"0/s\"\n"),
            "rate",
        ),
        ("cap below minimum warm", format!("{text}workers_max = 1\nwarm = {{ a = 1, b = 1 }}\n"), "warm"),
        ("foreign directory", text.replace("/fn\"", "\""), "dir"),
    ];
    for (name, text, says) in cases {
        supervisor.place.write(&text)?;
        let told = supervisor.admin(&["reload"])?;
        let error = told["error"].as_str().unwrap_or_default();
        ensure!(error.contains(says) && error.contains("stays in force"), "{name}: {told}");
        let (_, after) = client.probe("s1", "echo on")?;
        ensure!(after.worker == before.worker, "{name}: the worker was not kept");
    }
    let path = supervisor.place.path("sublet.toml");
    let os = |error: std::io::Error| error.to_string();
    std::fs::remove_file(&path).map_err(os)?;
    let refused = |says: &str| {
        let told = supervisor.admin(&["reload"])?;
        let error = told["error"].as_str().unwrap_or_default();
        ensure!(error.contains(says) && error.contains("stays in force"), "{says}: {told}");
        Ok(())
    };
    refused("open")?;
    // A link, a pipe nobody writes to, a file of 100 MB, a directory.
    let elsewhere = supervisor.place.path("elsewhere.toml");
    std::fs::write(&elsewhere, &text).map_err(os)?;
    std::os::unix::fs::symlink(&elsewhere, &path).map_err(os)?;
    refused("symbolic link")?;
    std::fs::remove_file(&path).map_err(os)?;
    nix::unistd::mkfifo(&path, nix::sys::stat::Mode::from_bits_truncate(0o644)).map_err(|error| error.to_string())?;
    refused("not a plain file")?;
    std::fs::remove_file(&path).map_err(os)?;
    std::fs::File::create(&path).and_then(|file| file.set_len(100 << 20)).map_err(os)?;
    refused("larger than")?;
    std::fs::remove_file(&path).map_err(os)?;
    std::fs::create_dir(&path).map_err(os)?;
    refused("not a plain file")?;
    std::fs::remove_dir(&path).map_err(os)?;
    client.probe("s1", "echo on")?;
    // Many at once: each is made or refused, and the last one that was made holds.
    supervisor.place.write(&text)?;
    let outcomes: Vec<serde_json::Value> = std::thread::scope(|scope| {
        let all: Vec<_> = (0..8).map(|_| scope.spawn(|| supervisor.admin(&["reload"]))).collect();
        all.into_iter().filter_map(|one| one.join().ok()?.ok()).collect()
    });
    let is_right = |told: &serde_json::Value| {
        told["changes"].is_array() || told["error"].as_str().is_some_and(|error| error.contains("another reload"))
    };
    ensure!(outcomes.len() == 8 && outcomes.iter().all(is_right), "{outcomes:?}");
    ensure!(outcomes.iter().any(|told| told["changes"].is_array()), "{outcomes:?}");
    supervisor.stop()
}

fn hang_up() -> Outcome {
    let place = Place::new()?;
    let text = place.simple("");
    let supervisor = Supervisor::start(place, &text)?;
    let mut client = Client::new(&supervisor)?;
    client.probe("s1", "echo warm")?;
    supervisor.place.write(&format!("{text}payload_max = \"8B\"\n"))?;
    kill(supervisor.pid(), Signal::SIGHUP).map_err(|error| error.to_string())?;
    let end = Instant::now() + Duration::from_secs(20);
    while client.call(request("probe", "s1", "echo too long")).is_ok() {
        ensure!(Instant::now() < end, "the new limit does not come into force");
        std::thread::sleep(Duration::from_millis(20));
    }
    client.probe("s1", "echo ok")?;
    supervisor.stop()
}

fn busy_poll() -> Outcome {
    let place = Place::new()?;
    let host = place.host("threads = 1\nbusy_poll = true");
    let text = format!("{host}[tenant.acme.sub_tenant]\n{}", place.function("probe", "freeze_after = \"never\""));
    let supervisor = Supervisor::start(place, &text)?;
    let mut client = Client::new(&supervisor)?;
    let (_, first) = client.probe("s1", "echo warm")?;
    let found = || -> Result<u64, String> {
        let health = supervisor.admin(&["health"])?;
        health["answers_polled"].as_u64().ok_or_else(|| format!("not counted: {health}"))
    };
    let mut calls = |what: &str| -> Outcome {
        for call in 0..200 {
            // Mostly quick, so that an answer is expected at once; now and then it takes longer than anybody polls.
            if call % 20 == 19 {
                client.probe("s1", "sleep 5")?;
            }
            let (answer, receipt) = client.probe("s1", &format!("echo {what} {call}"))?;
            ensure!(answer == format!("{what} {call}"), "{what}: call {call} was answered {answer:?}");
            ensure!(receipt.worker == first.worker, "{what}: call {call} has got another worker");
        }
        Ok(())
    };
    // Not while others compute on all processors, as they may on this host.
    let end = Instant::now() + Duration::from_secs(60);
    loop {
        calls("polled for")?;
        if found()? > 0 || Ground::find().is_slow {
            break;
        }
        ensure!(Instant::now() < end, "nothing is polled for");
    }
    let set = supervisor.admin(&["set", "host", "busy_poll=false", "--for", "1h"])?;
    ensure!(set["changes"] == serde_json::json!(["host.busy_poll: true -> false"]), "{set}");
    let before = found()?;
    calls("not polled for")?;
    ensure!(found()? == before, "polled for all the same");
    supervisor.admin(&["unset", "host"])?;
    calls("polled for again")?;
    let refused = supervisor.admin(&["set", "host", "busy_poll=sometimes", "--for", "1h"])?;
    ensure!(refused["error"].as_str().is_some_and(|error| error.contains("not true or false")), "{refused}");
    supervisor.stop()
}
