//! Receipts, sums and what the kernel counted; faults and events.

use std::{
    cell::Cell,
    io::{BufRead, BufReader},
    process::{Child, Command, Stdio},
    sync::{
        Arc, Mutex,
        mpsc::{Receiver, channel},
    },
    time::{Duration, Instant},
};

use serde_json::Value;
use sublet_proto::v1::Receipt;

use crate::{
    Case, Outcome, case,
    client::{Client, request, verdict},
    configs::Place,
    ensure,
    ground::Ground,
    supervisor::{self, Supervisor},
};

/// The cases.
pub const CASES: &[Case] = &[
    case("usage::receipt_tells_what_a_call_used", receipt),
    case("usage::receipts_idle_and_starts_add_up_to_the_kernels_counters", conservation),
    case("usage::equal_faults_are_folded", folded),
    case("usage::top_shows_who_uses_what", top),
    case("usage::watch_tells_faults_workers_and_changes", watch),
];

fn seconds(duration: Option<prost_types::Duration>) -> f64 {
    duration.and_then(|duration| Duration::try_from(duration).ok()).map_or(0.0, |duration| duration.as_secs_f64())
}

fn receipt() -> Outcome {
    let place = Place::new()?;
    let text = place.simple("freeze_after = \"0ms\"\ncpu_quota = \"200m\"");
    let supervisor = Supervisor::start(place, &text)?;
    let mut client = Client::new(&supervisor)?;
    client.probe("s1", "echo")?;
    // 200m of a CPU for 400 ms. A busy machine may give it less than its quota; then nothing is throttled, and it is asked again.
    let mut asked = 0;
    let spun = loop {
        client.rest(Duration::from_millis(500));
        let (_, spun) = client.probe("s1", "spin 400")?;
        asked += 1;
        if asked == 10 || seconds(spun.throttled) > 0.1 {
            break spun;
        }
    };
    let (cpu, throttled, frozen) = (seconds(spun.cpu), seconds(spun.throttled), seconds(spun.frozen));
    ensure!(cpu > 0.02 && cpu < 0.25, "{spun:?}");
    ensure!(throttled > 0.1 && throttled <= seconds(spun.running), "{spun:?}");
    ensure!(frozen > 0.2, "{spun:?}");
    ensure!(spun.exit.is_empty() && spun.memory_peak_bytes > 0 && spun.calls == 1 + asked, "{spun:?}");
    let status = client.call(request("probe", "s1", "signal 9")).err().ok_or("it lives")?;
    let died = verdict(&status).and_then(|verdict| verdict.receipt).ok_or("no receipt")?;
    ensure!(died.exit == "signal 9 (SIGKILL)", "{died:?}");
    supervisor.stop()
}

/// Calls of the load whose receipts are added up.
const CALLS: usize = 600;

fn conservation() -> Outcome {
    let place = Place::new()?;
    let host = place.host("");
    let function =
        place.function("probe", "freeze_after = \"20ms\"\ncells_max = 2\ntimeout = \"2s\"\ncpu_quota = \"500m\"");
    let supervisor = Supervisor::start(place, &format!("{host}[tenant.acme.sub_tenant]\n{function}"))?;
    let calls = if Ground::find().is_slow { CALLS / 10 } else { CALLS };
    let sums = Arc::new(Mutex::new((0.0, 0_usize)));
    let lanes: Vec<_> = (0..4)
        .map(|lane| {
            let (mut client, sums) = (Client::new(&supervisor)?, sums.clone());
            Ok(std::thread::spawn(move || {
                for at in 0..calls / 4 {
                    // Most work, some die in the middle of it, some work on after their answer.
                    let verb = match (lane + at) % 40 {
                        7 => "exit 3",
                        13 => "alloc 80",
                        21 => "mumble 30",
                        33 => "signal 11",
                        other if other % 5 == 0 => "spin 25",
                        _ => "spin 4",
                    };
                    let label = format!("s{}", (at * 7 + lane) % 10);
                    let used: Option<Receipt> = match client.call(request("probe", &label, verb)) {
                        Ok(response) => response.receipt,
                        Err(status) => verdict(&status).and_then(|verdict| verdict.receipt),
                    };
                    let mut sums = sums.lock().map_err(|_| "a lane failed")?;
                    sums.0 += used.map_or(0.0, |receipt| seconds(receipt.cpu));
                    sums.1 += 1;
                }
                Ok::<(), String>(())
            }))
        })
        .collect::<Result<_, String>>()?;
    for lane in lanes {
        lane.join().map_err(|_| "a lane failed")??;
    }
    // Frozen, nothing runs on, and both readings are of the same moment.
    std::thread::sleep(Duration::from_millis(1500));
    let (of_receipts, count) = sums.lock().map(|sums| *sums).map_err(|_| "a lane failed")?;
    let usage = supervisor.admin(&["usage"])?;
    let tenant = usage["tenants"][0]["usage"].clone();
    let ms = |usage: &Value, key: &str| usage[key].as_f64().unwrap_or(f64::NAN);
    let parts = ["cpu_calls_ms", "cpu_idle_ms", "cpu_starting_ms", "cpu_cells_ms"];
    let summed: f64 = parts.iter().map(|key| ms(&tenant, key)).sum();
    let kernel = ms(&tenant, "cpu_kernel_ms");
    let off = (summed - kernel).abs() / kernel;
    ensure!(
        kernel > 100.0 && off < 0.01,
        "parts {summed} and the kernel {kernel} are {:.2} % apart: {usage}",
        off * 100.0
    );
    print!("({:.3} % apart) ", off * 100.0);
    let of_calls = ms(&tenant, "cpu_calls_ms");
    let apart = (of_receipts * 1e3 - of_calls).abs() / of_calls;
    ensure!(apart < 0.001, "receipts {} and their sum {of_calls} are apart", of_receipts * 1e3);
    let ended = tenant["calls_answered"].as_u64().unwrap_or(0)
        + tenant["calls_failed"].as_u64().unwrap_or(0)
        + tenant["calls_refused"].as_u64().unwrap_or(0);
    ensure!(ended == count as u64, "{ended} of {count} calls are counted: {tenant}");
    // The same holds for each sub-tenant, those that lost workers included, and they add up to the tenant.
    let subs = usage["sub_tenants"].as_array().cloned().unwrap_or_default();
    let of_subs: f64 = subs.iter().map(|sub| ms(&sub["usage"], "cpu_calls_ms")).sum();
    ensure!((of_subs - of_calls).abs() < 0.01 * of_calls, "{of_subs} of sub-tenants, {of_calls} of the tenant");
    supervisor.stop()
}

fn folded() -> Outcome {
    let place = Place::new()?;
    let host = place.host("");
    let function = place.function("probe", "");
    let text = format!("{host}[tenant.acme.sub_tenant]\nrate = \"1/s\"\nrate_burst = 1\n{function}");
    let supervisor = Supervisor::start(place, &text)?;
    let mut client = Client::new(&supervisor)?;
    let refused = (0..400).filter(|_| client.call(request("probe", "flood", "echo")).is_err()).count();
    ensure!(refused > 100, "{refused} were refused");
    client.call(request("probe", "other", "error")).err().ok_or("it is no error")?;
    let told = supervisor.admin(&["faults"])?;
    let faults = told["faults"].as_array().cloned().unwrap_or_default();
    ensure!(faults.len() == 2, "{told}");
    ensure!(faults[0]["reason"] == "FUNCTION_ERROR" && faults[0]["count"] == 1, "{told}");
    let flood = &faults[1];
    ensure!(flood["reason"] == "SUB_TENANT_RATE" && flood["count"] == refused, "{told}");
    ensure!(flood["level"] == "sub-tenant" && flood["setting"] == "tenant.acme.sub_tenant.rate", "{told}");
    ensure!(!told.to_string().contains("flood"), "a label is shown: {told}");
    supervisor.stop()
}

fn top() -> Outcome {
    let place = Place::new()?;
    let text = place.simple("cpu_quota = \"300m\"\nfreeze_after = \"never\"");
    let text = format!("{text}[tenant.acme.class.gold]\n[tenant.acme.id.busy]\nclass = \"gold\"\n");
    let supervisor = Supervisor::start(place, &text)?;
    let mut client = Client::new(&supervisor)?;
    client.probe("quiet", "hold 5")?;
    let busy = std::thread::spawn({
        let mut client = Client::new(&supervisor)?;
        move || client.probe("busy", "spin 3000")
    });
    client.rest(Duration::from_millis(500));
    let seen = supervisor.admin(&["top", "--once", "--sort", "cpu"])?;
    busy.join().map_err(|_| "a call's thread failed")??;
    let subs = seen["sub_tenants"].as_array().cloned().unwrap_or_default();
    ensure!(subs.len() == 2, "{seen}");
    // Sorted by what was asked for, with the rates of the time in between.
    let cpu = |sub: &Value| sub["cpu_cores"].as_f64().unwrap_or(f64::NAN);
    ensure!(subs[0]["class"] == "gold" && cpu(&subs[0]) > 0.1 && cpu(&subs[0]) < 0.6, "{seen}");
    ensure!(
        subs[0]["calls_running"] == 1 && subs[0]["throttled_share"].as_f64().is_some_and(|share| share > 0.2),
        "{seen}"
    );
    ensure!(subs[1]["memory_bytes"].as_u64().is_some_and(|bytes| bytes > 5 << 20), "{seen}");
    let filtered = supervisor.admin(&["top", "--once", "--filter", "gold"])?;
    ensure!(filtered["sub_tenants"].as_array().is_some_and(|subs| subs.len() == 1), "{filtered}");
    let output = Command::new(supervisor::program())
        .args(["top", "--admin-socket"])
        .arg(supervisor.admin_socket())
        .output()
        .map_err(|error| error.to_string())?;
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    ensure!(!output.status.success() && said.contains("--once"), "{said}");
    supervisor.stop()
}

/// `sublet watch` as a child, its lines as they come.
struct Watch {
    child: Child,
    lines: Receiver<String>,
}

impl Watch {
    fn start(supervisor: &Supervisor) -> Result<Self, String> {
        let mut child = Command::new(supervisor::program())
            .args(["watch", "--json", "--admin-socket"])
            .arg(supervisor.admin_socket())
            .stdout(Stdio::piped())
            .spawn()
            .map_err(|error| error.to_string())?;
        let out = child.stdout.take().ok_or("no stdout")?;
        let (sender, lines) = channel();
        std::thread::spawn(move || {
            for line in BufReader::new(out).lines().map_while(Result::ok) {
                if sender.send(line).is_err() {
                    return;
                }
            }
        });
        Ok(Self { child, lines })
    }

    /// Waits for an event.
    fn until(&self, what: &str, is_it: impl Fn(&Value) -> bool) -> Result<Value, String> {
        let end = Instant::now() + Duration::from_secs(30);
        loop {
            let left = end.saturating_duration_since(Instant::now());
            let line = self.lines.recv_timeout(left).map_err(|_| format!("{what} is not told"))?;
            let event: Value = serde_json::from_str(&line).map_err(|error| format!("{line}: {error}"))?;
            if is_it(&event) {
                return Ok(event);
            }
        }
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        self.child.kill().ok();
        self.child.wait().ok();
    }
}

fn watch() -> Outcome {
    let place = Place::new()?;
    let text = place.simple("");
    let supervisor = Supervisor::start(place, &text)?;
    let watch = Watch::start(&supervisor)?;
    let mut client = Client::new(&supervisor)?;
    // It has to be listening before anything happens.
    let end = Instant::now() + Duration::from_secs(30);
    while watch.lines.try_recv().is_err() {
        ensure!(Instant::now() < end, "nothing is told");
        client.probe("first", "echo")?;
        supervisor.admin(&["evict", "--all"])?;
        std::thread::sleep(Duration::from_millis(50));
    }
    client.call(request("probe", "s1", "exit 3")).err().ok_or("it lives")?;
    // In whichever order: the worker's end and what it meant for the call are two tasks' work.
    let (fault, gone) = (Cell::new(false), Cell::new(false));
    watch.until("the fault and the worker's end", |event| {
        fault.set(fault.get() || event["fault"]["reason"] == "EXIT" && event["fault"]["count"] == 1);
        let worker = &event["worker"];
        gone.set(gone.get() || worker["what"] == "gone" && worker["tenant"] == "acme" && worker["function"] == "probe");
        fault.get() && gone.get()
    })?;
    supervisor.place.write(&text.replace("timeout = \"60s\"", "timeout = \"50s\""))?;
    supervisor.admin(&["reload"])?;
    watch.until("the reload", |event| event["config"]["what"] == "reloaded")?;
    supervisor.place.write("nonsense")?;
    supervisor.admin(&["reload"])?;
    watch.until("the refusal", |event| event["config"]["what"] == "refused")?;
    supervisor.admin(&["set", "tenant/acme/sub_tenant", "weight=7", "--for", "1s"])?;
    watch.until("the expiry", |event| event["config"]["what"] == "expired")?;
    drop(watch);
    supervisor.stop()
}
