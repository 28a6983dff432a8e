use sublet_proto::v1::{SubTenantUsage, WorkerState};

use super::*;
use crate::cli::top::{
    fixture::{at, sub_tenant, used, worker},
    model::Sample,
    sort::SortKey,
};

fn sample(seconds: u64) -> Sample {
    let busy = SubTenantUsage {
        class: "gold".to_owned(),
        workers: 1,
        workers_used: vec![worker("w-1", WorkerState::Leased, used(seconds * 500, seconds))],
        calls_queued: 4,
        ..sub_tenant("acme", "s-busy", used(seconds * 500, seconds))
    };
    at(seconds, vec![sub_tenant("acme", "s-still", used(0, 0)), busy])
}

fn snapshot() -> Snapshot {
    Snapshot::between(Some(&sample(2)), &sample(4))
}

const BY_CPU: Sort = Sort { key: SortKey::Cpu, is_reversed: false };

#[test]
fn value_has_rates_and_counters_of_every_level() {
    let value = value(&snapshot(), BY_CPU, "");
    assert_eq!(value["interval_ms"], 2_000.0);
    assert_eq!(value["health"]["status"], "serving");
    assert_eq!(value["cpu_cores"], 0.5);
    assert_eq!(value["tenants"][0]["tenant"], "acme");
    assert_eq!(value["tenants"][0]["calls_queued"], 4);
    let first = &value["sub_tenants"][0];
    assert_eq!((&first["sub_tenant_hash"], &first["class"]), (&json!("s-busy"), &json!("gold")));
    assert_eq!((&first["cpu_cores"], &first["calls_per_second"]), (&json!(0.5), &json!(1.0)));
    assert_eq!(first["since_start"]["cpu_ms"], 2_000.0);
    assert_eq!(first["since_start"]["throttled_ms"], Value::Null, "not accounted is not zero");
    let worker = &first["workers_used"][0];
    assert_eq!(
        (&worker["worker"], &worker["state"], &worker["cpu_cores"]),
        (&json!("w-1"), &json!("busy"), &json!(0.5))
    );
}

#[test]
fn unknown_rate_is_null_for_programs_and_a_dash_for_people() {
    let one = Snapshot::between(None, &sample(1));
    assert_eq!(value(&one, BY_CPU, "busy")["sub_tenants"][0]["cpu_cores"], Value::Null);
    assert_eq!(value(&one, BY_CPU, "")["interval_ms"], Value::Null);
    assert!(text(&one, BY_CPU, "").starts_with("serving: cpu - cores, 3 workers, 1 cell, 2 calls in flight, 0 queued"));
}

#[test]
fn text_has_tenants_and_the_sub_tenants_that_are_wanted() {
    let all = text(&snapshot(), Sort { is_reversed: true, ..BY_CPU }, "");
    let lines: Vec<&str> = all.lines().collect();
    assert_eq!(lines.len(), 6, "{all}");
    assert!(lines[1].starts_with("TENANT  CPU") && lines[2].starts_with("acme    0.50"), "{all}");
    assert!(lines[3].starts_with("TENANT  SUB-TENANT"), "{all}");
    assert!(lines[4].starts_with("acme    s-still") && lines[5].starts_with("acme    s-busy"), "{all}");
    let one = text(&snapshot(), BY_CPU, "GOLD");
    assert!(one.contains("s-busy") && !one.contains("s-still"), "{one}");
    assert_eq!(text(&snapshot(), BY_CPU, "nobody").lines().last(), Some("no sub-tenants"));
}

#[test]
fn host_that_does_not_enforce_all_is_named() {
    let mut snapshot = snapshot();
    snapshot.health.degraded = vec!["swap".to_owned()];
    assert_eq!(text(&snapshot, BY_CPU, "").lines().nth(1), Some("not enforced: swap"));
}
