//! The pool's policies with real workers: warm, kept, refused, retried, frozen politely.

use std::{
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    thread::JoinHandle,
    time::{Duration, Instant},
};

use sublet_proto::v1::{Start, VerdictKind};
use tonic::Code;
use tonic_types::StatusExt;

use crate::{
    Case, Outcome, case,
    client::{Client, reason, request},
    configs::Place,
    ensure,
    supervisor::Supervisor,
};

/// The cases.
pub const CASES: &[Case] = &[
    case("pool::warm_makes_workers_ahead_and_refuses_by_the_limit", warm),
    case("pool::minimum_is_kept_and_replaced", minimum),
    case("pool::calls_over_a_cap_or_a_rate_are_refused_by_level_with_a_delay", refused),
    case("pool::call_of_an_idempotent_function_survives_its_worker_once", idempotent),
    case("pool::worker_that_still_writes_is_not_frozen", polite),
    case("pool::flood_of_one_does_not_keep_a_place_from_another", flood),
];

/// Calls of the one that floods.
const FLOOD: usize = 40;

fn workers(supervisor: &Supervisor, state: &str) -> Result<usize, String> {
    let listed = supervisor.admin(&["ps"])?;
    Ok(listed.as_array().map_or(0, |all| all.iter().filter(|w| w["state"] == state).count()))
}

fn until(supervisor: &Supervisor, state: &str, count: usize) -> Outcome {
    let end = Instant::now() + Duration::from_secs(20);
    while workers(supervisor, state)? != count {
        ensure!(Instant::now() < end, "not {count} {state}: {}", supervisor.admin(&["ps"])?);
        std::thread::sleep(Duration::from_millis(10));
    }
    Ok(())
}

fn warm() -> Outcome {
    let supervisor = Supervisor::simple("freeze_after = \"never\"\nworkers_per_sub_tenant_max = 3")?;
    let made = supervisor.admin(&["warm", "acme/probe", "--sub-tenant", "s1", "--count", "2"])?;
    ensure!(made["making"] == 2, "{made}");
    until(&supervisor, "idle", 2)?;
    let again = supervisor.admin(&["warm", "acme/probe", "--sub-tenant", "s1", "--count", "2"])?;
    ensure!(again["making"] == 0, "{again}");
    for (arguments, says) in [
        (&["warm", "acme/probe", "--sub-tenant", "s1", "--count", "4"][..], "workers_per_sub_tenant_max"),
        (&["warm", "acme/nothing", "--sub-tenant", "s1"], "no function"),
        (&["warm", "acme/probe"], "must name a sub_tenant"),
        (&["warm", "acme/probe", "--sub-tenant", "s1", "--count", "0"], "count is 0"),
    ] {
        let refused = supervisor.admin(arguments)?;
        ensure!(refused["error"].as_str().is_some_and(|error| error.contains(says)), "{arguments:?}: {refused}");
    }
    ensure!(workers(&supervisor, "idle")? == 2, "a refusal changes nothing");
    let mut client = Client::new(&supervisor)?;
    let (_, receipt) = client.probe("s1", "echo here")?;
    ensure!(receipt.start() == Start::Cold && receipt.calls == 1, "it had served nobody: {receipt:?}");
    ensure!(workers(&supervisor, "idle")? == 2, "no further one was made");
    supervisor.stop()
}

fn minimum() -> Outcome {
    let place = Place::new()?;
    let table = "[tenant.acme.function.probe.warm]\ns1 = 1\n";
    let shared = place.function("common", "isolation = \"shared\"\nworkers_min = 1\nfreeze_after = \"never\"");
    let text = format!("{}{table}{shared}", place.simple("idle_ttl = \"50ms\"\nfreeze_after = \"never\""));
    let supervisor = Supervisor::start(place, &text)?;
    until(&supervisor, "idle", 2)?;
    std::thread::sleep(Duration::from_millis(200));
    let listed = supervisor.admin(&["ps"])?;
    let of_probe = listed.as_array().into_iter().flatten().find(|w| w["function"] == "probe").cloned();
    let of_probe = of_probe.ok_or("no worker is kept")?;
    let pid = of_probe["pid"].as_i64().and_then(|pid| i32::try_from(pid).ok()).ok_or("no pid")?;
    nix::sys::signal::kill(nix::unistd::Pid::from_raw(pid), nix::sys::signal::Signal::SIGKILL)
        .map_err(|error| error.to_string())?;
    let end = Instant::now() + Duration::from_secs(20);
    loop {
        let listed = supervisor.admin(&["ps"])?;
        let is_replaced = |w: &serde_json::Value| {
            w["function"] == "probe" && w["worker"] != of_probe["worker"] && w["state"] == "idle"
        };
        if listed.as_array().is_some_and(|all| all.iter().any(is_replaced)) {
            break;
        }
        ensure!(Instant::now() < end, "it is not replaced: {listed}");
        std::thread::sleep(Duration::from_millis(10));
    }
    supervisor.stop()
}

fn refused() -> Outcome {
    let place = Place::new()?;
    let limits = "rate = \"1/s\"\nrate_burst = 2\n";
    let capped = place.function("capped", "calls_in_flight_max = 1");
    let text = format!("{}[tenant.acme.sub_tenant]\n{limits}{}{capped}", place.host(""), place.function("probe", ""));
    let supervisor = Supervisor::start(place, &text)?;
    let mut client = Client::new(&supervisor)?;
    client.probe("s1", "echo one")?;
    client.probe("s1", "echo two")?;
    let status = client.call(request("probe", "s1", "echo three")).err().ok_or("the rate does not hold")?;
    ensure!(reason(&status) == "SUB_TENANT_RATE" && status.code() == Code::ResourceExhausted, "{status:?}");
    let delay = status.get_details_retry_info().and_then(|info| info.retry_delay).ok_or("no retry delay")?;
    ensure!(delay > Duration::ZERO && delay <= Duration::from_secs(1), "{delay:?}");
    client.probe("s2", "echo another has its own")?;
    client.rest(delay);
    client.probe("s1", "echo after the delay")?;
    let busy = std::thread::spawn({
        let mut client = Client::new(&supervisor)?;
        move || client.ask("capped", "s3", "sleep 1000")
    });
    client.rest(Duration::from_millis(300));
    let status = client.call(request("capped", "s4", "echo")).err().ok_or("the cap does not hold")?;
    ensure!(reason(&status) == "FUNCTION_CALLS_FULL", "{status:?}");
    ensure!(status.get_details_retry_info().is_some(), "no retry delay: {status:?}");
    busy.join().map_err(|_| "the call's thread failed")??;
    supervisor.stop()
}

fn idempotent() -> Outcome {
    let supervisor = Supervisor::simple("idempotent = true")?;
    let mut client = Client::new(&supervisor)?;
    // The first worker is killed under its call, the second answers it.
    let busy = std::thread::spawn({
        let mut client = Client::new(&supervisor)?;
        move || client.probe("s1", "sleep 1500")
    });
    client.rest(Duration::from_millis(500));
    let listed = supervisor.admin(&["ps"])?;
    let pid = listed[0]["pid"].as_i64().and_then(|pid| i32::try_from(pid).ok()).ok_or("no pid")?;
    nix::sys::signal::kill(nix::unistd::Pid::from_raw(pid), nix::sys::signal::Signal::SIGKILL)
        .map_err(|error| error.to_string())?;
    let (answer, receipt) = busy.join().map_err(|_| "the call's thread failed")??;
    ensure!(answer == "slept" && receipt.worker != listed[0]["worker"].as_str().unwrap_or_default(), "{receipt:?}");
    // A call that kills every worker it meets is not given out for ever.
    client.verdict_of(request("probe", "s2", "exit 3"), VerdictKind::Exit, Code::Unknown)?;
    let health = supervisor.admin(&["health"])?;
    ensure!(health["workers_started"] == 4, "{health}");
    supervisor.stop()
}

/// Sub-tenants of workers that go on writing.
const POLITE: [&str; 3] = ["s1", "s2", "s3"];

fn polite() -> Outcome {
    let supervisor = Supervisor::simple("freeze_after = \"50ms\"")?;
    let mut client = Client::new(&supervisor)?;
    // Each writes a line every 2 ms for 300 ms after its answer. A busy machine may keep one from it for a while.
    for name in POLITE {
        client.probe(name, "mumble 300")?;
    }
    until(&supervisor, "frozen", POLITE.len())?;
    // That is what is wanted of them; they get a second to become quiet.
    client.rest(Duration::from_millis(1500));
    let mut logs = Vec::new();
    for worker in supervisor.admin(&["ps"])?.as_array().into_iter().flatten() {
        let described = supervisor.admin(&["describe", worker["worker"].as_str().unwrap_or_default()])?;
        logs.push(described["log_tail"].as_str().unwrap_or_default().to_owned());
    }
    ensure!(logs.iter().any(|log| log.contains("mumble done\n")), "all were frozen in the middle: {logs:?}");
    supervisor.stop()
}

fn flood() -> Outcome {
    let place = Place::new()?;
    let host = place.host("workers_max = 2");
    let text = format!("{host}[tenant.acme.sub_tenant]\n{}", place.function("probe", "queue_max = 200"));
    let supervisor = Supervisor::start(place, &text)?;
    let mut client = Client::new(&supervisor)?;
    let answered = Arc::new(AtomicUsize::new(0));
    let mut flood = Vec::new();
    for _ in 0..FLOOD {
        let mut client = Client::new(&supervisor)?;
        let answered = Arc::clone(&answered);
        flood.push(move || {
            client.probe("flood", "sleep 150")?;
            answered.fetch_add(1, Ordering::SeqCst);
            Ok::<_, String>(())
        });
    }
    let flood: Vec<_> = flood.into_iter().map(std::thread::spawn).collect();
    while answered.load(Ordering::SeqCst) == 0 && !flood.iter().all(JoinHandle::is_finished) {
        std::thread::sleep(Duration::from_millis(5));
    }
    let before = answered.load(Ordering::SeqCst);
    ensure!(before < FLOOD / 2, "there is no flood: {before} of {FLOOD} are answered");
    let (_, receipt) = client.probe("quiet", "echo now")?;
    let after = answered.load(Ordering::SeqCst);
    ensure!(after < FLOOD, "the quiet one waited for the whole flood: {receipt:?}");
    for call in flood {
        call.join().map_err(|_| "a call's thread failed")??;
    }
    supervisor.stop()
}
