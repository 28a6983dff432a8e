//! A long history over the real system: many calls of many sub-tenants while workers are killed at random, and while some
//! sub-tenants' calls end their own workers. Afterwards the books of both sides are held against each other: no call is
//! lost, doubled or crossed, and nobody gets the verdict of somebody else's fault.
//!
//! `SUBLET_HISTORY_CALLS` and `SUBLET_HISTORY_SUB_TENANTS` make it longer, and warmer, by hand.

use std::{
    collections::{HashMap, HashSet},
    env,
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
use sublet_proto::v1::VerdictKind;
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

const CALLS: usize = 25_000;
const SUB_TENANTS: usize = 2_000;
/// One call in so many is made by a sub-tenant whose function breaks.
const FAULT_EVERY: usize = 100;
/// So many calls that break in the same way must be asked for before one of them must have its own verdict.
const ASKED_MIN: usize = 10;
/// How many sub-tenants have functions that break, for each way to break. With one alone, its back-off would refuse most.
const BROKEN_SUB_TENANTS: usize = 20;
const CONCURRENCY: usize = 48;
/// For calls that sleep past it, and for no others.
const FAULTY_DEADLINE: prost_types::Duration = prost_types::Duration { seconds: 0, nanos: 200_000_000 };
/// Between two kills.
const KILL_PAUSE: Duration = Duration::from_millis(50);

/// How a function breaks when it is asked to: what it is asked, and the verdict that this earns.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
enum Fault {
    Exit,
    Signal,
    Error,
    Memory,
    Deadline,
}

impl Fault {
    const ALL: [Self; 5] = [Self::Exit, Self::Signal, Self::Error, Self::Memory, Self::Deadline];

    fn payload(self) -> &'static str {
        match self {
            Self::Exit => "exit 7",
            Self::Signal => "signal 11",
            Self::Error => "error",
            Self::Memory => "alloc 64",
            Self::Deadline => "sleep 60000",
        }
    }

    fn verdict(self) -> VerdictKind {
        match self {
            Self::Exit => VerdictKind::Exit,
            Self::Signal => VerdictKind::Crash,
            Self::Error => VerdictKind::FunctionError,
            Self::Memory => VerdictKind::Memory,
            Self::Deadline => VerdictKind::Deadline,
        }
    }

    /// Of call number `at`, if it is to break.
    fn of(at: usize) -> Option<Self> {
        at.is_multiple_of(FAULT_EVERY).then(|| Self::ALL[(at / FAULT_EVERY) % Self::ALL.len()])
    }
}

/// How one call ended.
enum End {
    Answered { lease: String },
    Failed { kind: String, fault: Option<Fault> },
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
fn name(at: usize, sub_tenants: usize) -> String {
    let share = (scatter(at) >> 11) as f64 / (1_u64 << 53) as f64;
    format!("sub-tenant-{}", (share.powi(6) * sub_tenants as f64) as usize)
}

/// A number that the environment may set in place of `default`.
fn number(variable: &str, default: usize) -> Result<usize, String> {
    let Some(text) = env::var_os(variable) else { return Ok(default) };
    let number = text.to_str().and_then(|text| text.parse().ok()).filter(|number| *number > 0);
    number.ok_or_else(|| format!("{variable}={} is no number above 0", text.display()))
}

fn history() -> Outcome {
    let default = if Ground::find().is_slow { CALLS / 100 } else { CALLS };
    let calls = number("SUBLET_HISTORY_CALLS", default)?;
    let sub_tenants = number("SUBLET_HISTORY_SUB_TENANTS", SUB_TENANTS)?;
    let place = Place::new()?;
    let host = place.host("workers_max = 600\nstarts_max = 4");
    let function = place.function("probe", "memory_max = \"16MiB\"\nqueue_max = 1000\ncells_max = 4");
    let supervisor = Supervisor::start(place, &format!("{host}[tenant.acme.sub_tenant]\n{function}"))?;
    let runtime = Runtime::new().map_err(|error| error.to_string())?;
    let stop = Arc::new(AtomicBool::new(false));
    let killed = std::thread::scope(|scope| {
        let killer = scope.spawn(|| kill_at_random(&supervisor, &stop));
        let ends = runtime.block_on(run(&supervisor, calls, sub_tenants));
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

async fn run(supervisor: &Supervisor, calls: usize, sub_tenants: usize) -> Result<Vec<End>, String> {
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
                let fault = Fault::of(at);
                let (name, payload) = match fault {
                    None => (name(at, sub_tenants), format!("token {at}")),
                    Some(fault) => {
                        let name =
                            format!("broken-{fault:?}-{}", (at / FAULT_EVERY / Fault::ALL.len()) % BROKEN_SUB_TENANTS);
                        (name, fault.payload().to_owned())
                    }
                };
                let mut request = request("probe", &name, &payload);
                if fault == Some(Fault::Deadline) {
                    request.timeout = Some(FAULTY_DEADLINE);
                }
                let end = match client.invoke(request).await {
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
                    Err(status) => {
                        let kind = verdict(&status)
                            .map_or_else(|| reason(&status), |verdict| verdict.kind().as_str_name().to_owned());
                        End::Failed { kind, fault }
                    }
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
    let mut earned: HashMap<(Fault, String), usize> = HashMap::new();
    let mut unearned: HashMap<(Fault, String), usize> = HashMap::new();
    let mut answered = 0;
    for end in ends {
        match end {
            End::Answered { lease } => {
                answered += 1;
                ensure!(leases.insert(lease.clone()), "two calls were answered by one delivery, {lease}");
            }
            End::Failed { kind, fault: None } => *failed.entry(kind).or_default() += 1,
            End::Failed { kind, fault: Some(fault) } => {
                *(if kind == fault.verdict().as_str_name() { &mut earned } else { &mut unearned })
                    .entry((fault, kind))
                    .or_default() += 1;
            }
        }
    }
    eprint!(
        "({answered} answered; broken by themselves: {earned:?}, otherwise {unearned:?}; others failed: {failed:?}) "
    );
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
    let others = unearned.keys().map(|(_, kind)| kind);
    let odd: Vec<_> = failed.keys().chain(others).filter(|kind| !expected.contains(&kind.as_str())).collect();
    ensure!(odd.is_empty(), "ends that no kill explains: {odd:?} of {failed:?} and {unearned:?}");
    let asked = calls / FAULT_EVERY / Fault::ALL.len();
    for fault in Fault::ALL {
        let times = earned.keys().filter(|(of, _)| *of == fault).count();
        // With a handful of calls, as on a slow ground, every one of them may meet a kill.
        ensure!(
            times > 0 || asked < ASKED_MIN,
            "no call ended with the verdict of {fault:?}, which {asked} calls asked for"
        );
    }
    let all: usize = failed.values().sum();
    ensure!(all <= 4 * killed, "{all} calls failed for {killed} kills: {failed:?}");
    Ok(killed)
}
