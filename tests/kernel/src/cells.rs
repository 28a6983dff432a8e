//! Cells on a real kernel: made for nobody, adopted once, as confined as any worker.

use std::{
    collections::BTreeSet,
    sync::{Arc, Barrier},
    time::{Duration, Instant},
};

use serde_json::Value;
use sublet_proto::v1::Start;

use crate::{Case, Outcome, case, client::Client, ensure, supervisor::Supervisor};

/// The cases.
pub const CASES: &[Case] = &[
    case("cells::first_call_of_an_unseen_sub_tenant_gets_a_cell", adopted),
    case("cells::cell_that_died_is_replaced_and_nobody_notices", died),
    case("cells::burst_of_an_unseen_sub_tenant_has_one_group", burst),
    case("cells::cells_end_with_the_supervisor_and_by_eviction", evicted),
];

/// Sub-tenants whose first calls come all at once.
const BURSTS: u32 = 20;
/// Those calls.
const BURST: usize = 8;

/// Waits until a cell is ready. Returns it.
fn ready(supervisor: &Supervisor, not: &str) -> Result<Value, String> {
    let end = Instant::now() + Duration::from_secs(20);
    loop {
        let listed = supervisor.admin(&["ps"])?;
        let cell = listed.as_array().into_iter().flatten().find(|w| w["state"] == "cell" && w["worker"] != not);
        if let Some(cell) = cell {
            return Ok(cell.clone());
        }
        ensure!(Instant::now() < end, "no cell is made: {listed}");
        std::thread::sleep(Duration::from_millis(5));
    }
}

fn text(value: &Value) -> String {
    value.as_str().unwrap_or_default().to_owned()
}

fn adopted() -> Outcome {
    let supervisor = Supervisor::simple("cells_max = 2")?;
    let mut client = Client::new(&supervisor)?;
    let (_, first) = client.probe("s1", "put key secret")?;
    ensure!(first.start() == Start::Cold, "{first:?}");
    let cell = ready(&supervisor, "")?;
    ensure!(cell["sub_tenant_hash"] == "" && cell["calls"] == 0, "{cell}");
    let name = text(&cell["worker"]);
    let before = supervisor.admin(&["describe", &name])?;
    let facts = before["posture"].as_array().cloned().unwrap_or_default();
    ensure!(facts.len() > 30 && facts.iter().all(|fact| fact["ok"] == true), "it is not checked: {facts:?}");

    let (id, receipt) = client.probe("s2", "id")?;
    ensure!(receipt.start() == Start::Cell && receipt.worker == name, "{receipt:?}");
    ensure!(id.contains("sub_tenant=s2\n"), "it knows whose it is: {id}");
    let after = supervisor.admin(&["describe", &name])?;
    ensure!(before["cgroup"] == after["cgroup"], "its group has become the sub-tenant's: {after}");
    ensure!(after["worker"]["sub_tenant_hash"] != "", "{after}");
    let (found, warm) = client.probe("s2", "get key")?;
    ensure!(found == "-/-" && warm.start() == Start::Warm && warm.worker == name, "{found} {warm:?}");

    // A second worker of the same sub-tenant is in the same group: one limit over both.
    let busy = std::thread::spawn({
        let mut client = Client::new(&supervisor)?;
        move || client.probe("s2", "sleep 600")
    });
    client.rest(Duration::from_millis(100));
    let (_, second) = client.probe("s2", "id")?;
    ensure!(second.worker != name && second.start() == Start::Cold, "{second:?}");
    let other = supervisor.admin(&["describe", &second.worker])?;
    let parent = |described: &Value| text(&described["cgroup"]).rsplit_once('/').map(|(dir, _)| dir.to_owned());
    ensure!(parent(&other) == parent(&after), "{other} is beside {after}");
    busy.join().map_err(|_| "the call's thread failed")??;
    let health = supervisor.admin(&["health"])?;
    ensure!(health["cells_labelled"] == 1, "{health}");
    supervisor.stop()
}

fn died() -> Outcome {
    let supervisor = Supervisor::simple("cells_max = 1")?;
    let mut client = Client::new(&supervisor)?;
    client.probe("s1", "echo miss")?;
    let cell = ready(&supervisor, "")?;
    let pid = cell["pid"].as_i64().and_then(|pid| i32::try_from(pid).ok()).ok_or("no pid")?;
    nix::sys::signal::kill(nix::unistd::Pid::from_raw(pid), nix::sys::signal::Signal::SIGKILL)
        .map_err(|error| error.to_string())?;
    let other = ready(&supervisor, &text(&cell["worker"]))?;
    let (_, receipt) = client.probe("s2", "echo fine")?;
    ensure!(receipt.start() == Start::Cell && receipt.worker == text(&other["worker"]), "{receipt:?}");
    supervisor.stop()
}

/// The first of a burst gets the cell, the others workers made for them: all are in the group that was the cell's, which
/// is the sub-tenant's before the second of them asks for one.
fn burst() -> Outcome {
    let supervisor = Supervisor::simple("cells_max = 1\nworkers_per_sub_tenant_max = 8\nfreeze_after = \"never\"")?;
    let mut client = Client::new(&supervisor)?;
    client.probe("s0", "echo miss")?;
    let mut with_cell = 0;
    for at in 1..=BURSTS {
        ready(&supervisor, "")?;
        let at_once = Arc::new(Barrier::new(BURST));
        let calls: Vec<_> = (0..BURST)
            .map(|_| {
                let (mut client, at_once) = (Client::new(&supervisor)?, at_once.clone());
                Ok(std::thread::spawn(move || {
                    at_once.wait();
                    client.probe(&format!("s{at}"), "sleep 60")
                }))
            })
            .collect::<Result<_, String>>()?;
        let mut groups = BTreeSet::new();
        let mut cells = 0;
        for call in calls {
            let (_, receipt) = call.join().map_err(|_| "the call's thread failed")??;
            cells += u32::from(receipt.start() == Start::Cell);
            let described = supervisor.admin(&["describe", &receipt.worker])?;
            groups.insert(text(&described["cgroup"]).rsplit_once('/').map(|(dir, _)| dir.to_owned()));
        }
        ensure!(groups.len() == 1, "burst {at}: {groups:?}");
        ensure!(cells <= 1, "burst {at} had {cells} cells");
        with_cell += cells;
    }
    // That a cell is there is no promise: on a machine this busy one may just be on its way.
    ensure!(with_cell > BURSTS / 2, "{with_cell} of {BURSTS} had one: {}", supervisor.admin(&["health"])?);
    supervisor.stop()
}

fn evicted() -> Outcome {
    let supervisor = Supervisor::simple("cells_max = 1")?;
    let mut client = Client::new(&supervisor)?;
    client.probe("s1", "echo miss")?;
    let cell = ready(&supervisor, "")?;
    let evicted = supervisor.admin(&["evict", &text(&cell["worker"])])?;
    ensure!(evicted["evicted"] == 1, "{evicted}");
    supervisor.stop()
}
