//! Many calls of many sub-tenants at once.

use std::{
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    thread::sleep,
    time::Duration,
};

use tokio::{runtime::Runtime, task::JoinSet};

use crate::{
    Case, Outcome, case,
    client::{connect, request},
    configs::Place,
    ensure,
    ground::Ground,
    litter,
    supervisor::Supervisor,
};

/// The cases.
pub const CASES: &[Case] = &[
    case("load::thousand_calls_of_fifty_sub_tenants_are_all_right_and_none_crossed", thousand),
    case("load::killed_at_any_moment_of_the_load_nothing_is_left", killed_under_load),
];

const CALLS: usize = 1000;
const SUB_TENANTS: usize = 50;
const CONCURRENCY: usize = 16;

/// Fewer places than sub-tenants: workers come and go all the time.
fn config(place: &Place) -> String {
    let host = place.host("workers_max = 20\nstarts_max = 4");
    format!("{host}[tenant.acme.sub_tenant]\n{}", place.function("probe", "memory_max = \"16MiB\""))
}

fn thousand() -> Outcome {
    let calls = if Ground::find().is_slow { CALLS / 10 } else { CALLS };
    let place = Place::new()?;
    let text = config(&place);
    let supervisor = Supervisor::start(place, &text)?;
    let runtime = Runtime::new().map_err(|error| error.to_string())?;
    let right = Arc::new(AtomicUsize::new(0));
    let socket = supervisor.socket();
    let failures = runtime.block_on(async {
        let next = Arc::new(AtomicUsize::new(0));
        let mut tasks = JoinSet::new();
        for _ in 0..CONCURRENCY {
            let (next, right, socket) = (next.clone(), right.clone(), socket.clone());
            tasks.spawn(async move {
                let mut client = connect(&socket).await?;
                loop {
                    let at = next.fetch_add(1, Ordering::Relaxed);
                    if at >= calls {
                        return Ok::<_, String>(());
                    }
                    // Scattered, so that neighbours in time are strangers.
                    let name = format!("sub-tenant-{}", (at * 31) % SUB_TENANTS);
                    let response = client.invoke(request("probe", &name, "id")).await;
                    let response = response.map_err(|status| format!("call {at}: {status:?}"))?.into_inner();
                    let text = String::from_utf8_lossy(&response.payload).into_owned();
                    if !text.contains(&format!("sub_tenant={name}\n")) {
                        return Err(format!("call {at} of {name} was answered by {text:?}"));
                    }
                    // The probe counts the calls it has seen; sublet counts those it has delivered.
                    let delivered = response.receipt.map_or(0, |receipt| receipt.calls);
                    if !text.contains(&format!("calls={delivered}\n")) {
                        return Err(format!("call {at}: delivered {delivered}, the function says {text:?}"));
                    }
                    right.fetch_add(1, Ordering::Relaxed);
                }
            });
        }
        let mut failures = Vec::new();
        while let Some(joined) = tasks.join_next().await {
            if let Err(error) = joined.map_err(|error| error.to_string()).and_then(|result| result) {
                failures.push(error);
            }
        }
        failures
    });
    ensure!(failures.is_empty(), "{failures:?}");
    let right = right.load(Ordering::Relaxed);
    ensure!(right == calls, "{right} of {calls} calls were answered right");
    let health = supervisor.admin(&["health"])?;
    ensure!(health["calls_answered"] == calls && health["calls_failed"] == 0, "{health}");
    supervisor.stop()
}

fn killed_under_load() -> Outcome {
    let moments: &[u64] = if Ground::find().is_slow { &[3000] } else { &[3, 20, 61, 150, 400] };
    for moment in moments {
        let place = Place::new()?;
        let text = config(&place);
        let supervisor = Supervisor::start(place, &text)?;
        let runtime = Runtime::new().map_err(|error| error.to_string())?;
        let socket = supervisor.socket();
        for lane in 0..CONCURRENCY {
            let socket = socket.clone();
            runtime.spawn(async move {
                let Ok(mut client) = connect(&socket).await else { return };
                for at in 0.. {
                    let name = format!("sub-tenant-{}", (at * 7 + lane) % SUB_TENANTS);
                    // The supervisor is killed under it: the error is the point.
                    if client.invoke(request("probe", &name, "daemon")).await.is_err() {
                        return;
                    }
                }
            });
        }
        sleep(Duration::from_millis(*moment));
        let place = supervisor.kill()?;
        let next = Supervisor::start(place, &text).map_err(|error| format!("after {moment} ms: {error}"))?;
        sleep(Duration::from_secs(1));
        let left: Vec<String> = litter::found().into_iter().filter(|what| what.contains("/function/probe")).collect();
        ensure!(left.is_empty(), "killed after {moment} ms, left: {left:?}");
        let groups = next.admin(&["ps"])?;
        ensure!(groups.as_array().is_some_and(Vec::is_empty), "{groups}");
        runtime.shutdown_timeout(Duration::from_millis(100));
        next.stop()?;
    }
    Ok(())
}
