//! A long history over the real system: many calls of many sub-tenants while workers are killed at random. Afterwards the
//! books of both sides are held against each other: no call is lost, doubled or crossed.

use std::{
    collections::{HashMap, HashSet},
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    thread::sleep,
    time::Duration,
};

use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use tokio::{runtime::Runtime, task::JoinSet};

use crate::{
    Case, Outcome, case,
    client::{connect, reason, request, verdict},
    configs::Place,
    ensure,
    ground::Ground,
    supervisor::Supervisor,
};

/// The cases.
pub const CASES: &[Case] = &[case("history::no_call_is_lost_doubled_or_crossed_while_workers_are_killed", history)];

const CALLS: usize = 50_000;
const SUB_TENANTS: usize = 2_000;
const CONCURRENCY: usize = 48;
/// Between two kills.
const KILL_PAUSE: Duration = Duration::from_millis(50);

/// How one call ended.
enum End {
    Answered { lease: String },
    Failed(String),
}

/// xorshift64*: the same history of names on every run.
fn scatter(at: usize) -> u64 {
    let mut x = (at as u64 + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    x ^= x >> 12;
    x ^= x << 25;
    x ^= x >> 27;
    x.wrapping_mul(0x2545_f491_4f6c_dd1d)
}

/// A few call often, most seldom: half of the calls come from a fiftieth of the names, and all names come.
fn name(at: usize) -> String {
    let share = (scatter(at) >> 11) as f64 / (1_u64 << 53) as f64;
    format!("sub-tenant-{}", (share.powi(6) * SUB_TENANTS as f64) as usize)
}

fn history() -> Outcome {
    let calls = if Ground::find().is_slow { CALLS / 100 } else { CALLS };
    let place = Place::new()?;
    let host = place.host("workers_max = 600\nstarts_max = 4");
    let function = place.function("probe", "memory_max = \"16MiB\"\nqueue_max = 1000\ncells_max = 4");
    let supervisor = Supervisor::start(place, &format!("{host}[tenant.acme.sub_tenant]\n{function}"))?;
    let runtime = Runtime::new().map_err(|error| error.to_string())?;
    let stop = Arc::new(AtomicBool::new(false));
    let killed = std::thread::scope(|scope| {
        let killer = scope.spawn(|| kill_at_random(&supervisor, &stop));
        let ends = runtime.block_on(run(&supervisor, calls));
        stop.store(true, Ordering::SeqCst);
        let killed = killer.join().map_err(|_| "the killer's thread failed".to_owned())?;
        check(&supervisor, ends?, calls, killed)
    })?;
    eprint!("({killed} killed) ");
    supervisor.stop()
}

/// Kills the init of a worker of any state, again and again. Returns how many.
fn kill_at_random(supervisor: &Supervisor, stop: &AtomicBool) -> usize {
    let mut killed = 0;
    while !stop.load(Ordering::SeqCst) {
        sleep(KILL_PAUSE);
        let Ok(listed) = supervisor.admin(&["ps"]) else { continue };
        let pids: Vec<i64> = (listed.as_array().into_iter().flatten())
            .filter(|worker| worker["state"] != "ending")
            .filter_map(|worker| worker["pid"].as_i64())
            .filter(|pid| *pid > 1)
            .collect();
        if pids.is_empty() {
            continue;
        }
        let victim = pids[scatter(killed + 7) as usize % pids.len()];
        let victim = Pid::from_raw(i32::try_from(victim).unwrap_or(0));
        // Ours only: the list may be a moment old, and the number somebody else's by now.
        let name = std::fs::read_to_string(format!("/proc/{victim}/comm")).unwrap_or_default();
        if name.trim() == "sublet-init" && kill(victim, Signal::SIGKILL).is_ok() {
            killed += 1;
        }
    }
    killed
}

async fn run(supervisor: &Supervisor, calls: usize) -> Result<Vec<End>, String> {
    let next = Arc::new(AtomicUsize::new(0));
    let ends = Arc::new(Mutex::new(Vec::with_capacity(calls)));
    let mut tasks = JoinSet::new();
    for _ in 0..CONCURRENCY {
        let (next, ends, socket) = (next.clone(), ends.clone(), supervisor.socket());
        tasks.spawn(async move {
            let mut client = connect(&socket).await?;
            loop {
                let at = next.fetch_add(1, Ordering::Relaxed);
                if at >= calls {
                    return Ok::<_, String>(());
                }
                let name = name(at);
                let end = match client.invoke(request("probe", &name, &format!("token {at}"))).await {
                    Ok(response) => {
                        let response = response.into_inner();
                        let text = String::from_utf8_lossy(&response.payload).into_owned();
                        let is_own =
                            text.contains(&format!("sub_tenant={name}\n")) && text.ends_with(&format!("token={at}\n"));
                        if !is_own {
                            return Err(format!("call {at} of {name} was answered by {text:?}"));
                        }
                        End::Answered { lease: response.receipt.unwrap_or_default().lease }
                    }
                    Err(status) => match verdict(&status) {
                        Some(verdict) => End::Failed(verdict.kind().as_str_name().to_owned()),
                        None => End::Failed(reason(&status)),
                    },
                };
                ends.lock().unwrap_or_else(PoisonError::into_inner).push(end);
            }
        });
    }
    while let Some(joined) = tasks.join_next().await {
        joined.map_err(|error| error.to_string())??;
    }
    Ok(std::mem::take(&mut *ends.lock().unwrap_or_else(PoisonError::into_inner)))
}

fn check(supervisor: &Supervisor, ends: Vec<End>, calls: usize, killed: usize) -> Result<usize, String> {
    ensure!(ends.len() == calls, "{} of {calls} calls have an end", ends.len());
    ensure!(killed > 0, "no worker was killed");
    let mut leases = HashSet::new();
    let mut failed: HashMap<String, usize> = HashMap::new();
    let mut answered = 0;
    for end in ends {
        match end {
            End::Answered { lease } => {
                answered += 1;
                ensure!(leases.insert(lease.clone()), "two calls were answered by one delivery, {lease}");
            }
            End::Failed(kind) => *failed.entry(kind).or_default() += 1,
        }
    }
    let health = supervisor.admin(&["health"])?;
    let of = |name: &str| health[name].as_u64().unwrap_or(u64::MAX) as usize;
    let told = of("calls_answered") + of("calls_failed") + of("calls_refused");
    ensure!(told == calls && of("calls_answered") == answered, "the supervisor's books differ: {health}");
    // A kill ends at the most the one call its worker had, or the starts that waited for it; one whose sandbox is killed
    // while it is being made is told as ours, since nothing of the function had run. A worker that was killed from outside is
    // said to have been taken away.
    let expected = [
        "VERDICT_KIND_CRASH",
        "VERDICT_KIND_EXIT",
        "VERDICT_KIND_START",
        "VERDICT_KIND_EVICTED",
        "CRASH_BACKOFF",
        "INTERNAL",
    ];
    let odd: Vec<_> = failed.iter().filter(|(kind, _)| !expected.contains(&kind.as_str())).collect();
    ensure!(odd.is_empty(), "ends that no kill explains: {odd:?} of {failed:?}");
    let all: usize = failed.values().sum();
    ensure!(all <= 4 * killed, "{all} calls failed for {killed} kills: {failed:?}");
    Ok(killed)
}
