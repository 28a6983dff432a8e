//! A worker serves one sub-tenant of one function of one tenant, for life.

use std::collections::BTreeSet;

use crate::{
    Case, Outcome, case,
    client::{Client, request},
    configs::Place,
    ensure,
    supervisor::Supervisor,
};

/// The cases.
pub const CASES: &[Case] = &[
    case("isolation::state_stays_within_a_sub_tenant", state),
    case("isolation::equal_names_of_other_tenants_and_functions_are_others", keys),
    case("isolation::each_living_worker_has_uids_of_its_own", uids),
    case("isolation::shared_functions_take_no_label_and_share", shared),
    case("isolation::every_layout_runs", layouts),
];

fn state() -> Outcome {
    let supervisor = Supervisor::simple("")?;
    let mut client = Client::new(&supervisor)?;
    for name in ["a", "b", "c"] {
        client.probe(name, &format!("put key of-{name}"))?;
    }
    for name in ["c", "a", "b"] {
        let (found, receipt) = client.probe(name, "get key")?;
        ensure!(found == format!("of-{name}/of-{name}"), "{name} sees {found:?}");
        ensure!(receipt.calls == 2, "{name} was not warm");
        let (id, _) = client.probe(name, "id")?;
        ensure!(id.contains(&format!("sub_tenant={name}\n")), "{id}");
    }
    // Labels are bytes: what looks alike is another.
    for name in ["A", " a", "a ", "a/../b", "\u{e4}", "a\u{308}"] {
        let (found, _) = client.probe(name, "get key")?;
        ensure!(found == "-/-", "{name:?} sees {found:?}");
    }
    supervisor.stop()
}

fn keys() -> Outcome {
    let place = Place::new()?;
    let acme = place.function("probe", "") + &place.function("second", "");
    let globex = place.function("probe", "").replace("tenant.acme", "tenant.globex");
    let text = format!("{}[tenant.acme.sub_tenant]\n{acme}[tenant.globex.sub_tenant]\n{globex}", place.host(""));
    let supervisor = Supervisor::start(place, &text)?;
    let mut client = Client::new(&supervisor)?;
    client.probe("s", "put key acme")?;
    let mut other = request("probe", "s", "get key");
    other.tenant = "globex".into();
    let found = client.call(other).map_err(|status| status.to_string())?.payload;
    ensure!(found.as_ref() == b"-/-", "another tenant sees {found:?}");
    let (found, _) = client.ask("second", "s", "get key")?;
    ensure!(found == "-/-", "another function sees {found:?}");
    supervisor.stop()
}

fn uids() -> Outcome {
    let supervisor = Supervisor::simple("")?;
    let mut client = Client::new(&supervisor)?;
    let mut uids = BTreeSet::new();
    for at in 0..5 {
        let (id, receipt) = client.probe(&format!("s{at}"), "id")?;
        ensure!(id.contains("uid=1000\n") && id.contains("host=worker\n"), "{id}");
        let pid = supervisor.admin(&["describe", &receipt.worker])?["worker"]["pid"].clone();
        let status = std::fs::read_to_string(format!("/proc/{pid}/status")).map_err(|error| error.to_string())?;
        let uid = status.lines().find_map(|line| line.strip_prefix("Uid:")).unwrap_or_default().trim().to_owned();
        ensure!(!uid.starts_with('0'), "init is root: {uid}");
        uids.insert(uid);
    }
    ensure!(uids.len() == 5, "five workers have {} uids", uids.len());
    supervisor.stop()
}

fn shared() -> Outcome {
    let supervisor = Supervisor::simple("isolation = \"shared\"")?;
    let mut client = Client::new(&supervisor)?;
    client.probe("", "put key common")?;
    let (found, receipt) = client.probe("", "get key")?;
    ensure!(found == "common/common" && receipt.calls == 2, "{found}");
    supervisor.stop()
}

fn layouts() -> Outcome {
    let place = Place::new()?;
    let root = place.path("root");
    for dir in ["", "proc", "dev", "tmp", "function", "etc", "bin"] {
        std::fs::create_dir(root.join(dir)).map_err(|error| error.to_string())?;
    }
    std::fs::write(root.join("etc/mark"), "prepared").map_err(|error| error.to_string())?;
    let dir = format!("layout = \"dir\"\nroot = {:?}", root.display().to_string());
    let functions =
        place.function("host", "") + &place.function("bare", "layout = \"static\"") + &place.function("prepared", &dir);
    let text = format!("{}[tenant.acme.sub_tenant]\n{functions}", place.host(""));
    let supervisor = Supervisor::start(place, &text)?;
    let mut client = Client::new(&supervisor)?;
    let (host, _) = client.ask("host", "s", "list /")?;
    ensure!(host.lines().any(|name| name == "usr"), "{host}");
    let (bare, _) = client.ask("bare", "s", "list /")?;
    ensure!(bare == "dev\netc\nfunction\nproc\nsys\ntmp", "{bare}");
    let (mark, _) = client.ask("prepared", "s", "read /etc/mark")?;
    ensure!(mark == "prepared", "{mark}");
    let written = client.ask("prepared", "s", "write /etc/mark");
    ensure!(written.as_ref().is_err_and(|e| e.contains("Read-only")), "{written:?}");
    supervisor.stop()
}
