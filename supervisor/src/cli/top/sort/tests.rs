use clap::ValueEnum as _;
use sublet_proto::v1::Usage;

use super::*;
use crate::cli::top::{
    fixture::{at, millis, sub_tenant, used},
    model::Snapshot,
};

/// Three rows, each the largest by two of the keys.
fn rows() -> Vec<SubTenantRow> {
    let sample = |seconds: u64| {
        let by = |times: u64| seconds * times;
        let mut calls = sub_tenant("acme", "s-calls", used(by(1), by(100)));
        calls.calls_queued = 7;
        let mut cpu = sub_tenant("acme", "s-cpu", Usage { throttled: millis(by(50)), ..used(by(900), by(1)) });
        cpu.class = "Gold".to_owned();
        let mut faults = sub_tenant("globex", "s-faults", Usage { calls_failed: by(3), ..used(by(2), by(1)) });
        faults.memory_bytes *= 9;
        at(seconds, vec![calls, cpu, faults])
    };
    Snapshot::between(Some(&sample(1)), &sample(2)).sub_tenants
}

fn names(rows: &[SubTenantRow], sort: Sort) -> Vec<&str> {
    sort.order(rows, |_| true).into_iter().map(|at| rows[at].key.hash.as_str()).collect()
}

#[test]
fn largest_comes_first_by_every_key() {
    let rows = rows();
    let first = |key| names(&rows, Sort { key, is_reversed: false })[0].to_owned();
    let expected = ["s-cpu", "s-faults", "s-calls", "s-calls", "s-faults", "s-cpu"];
    assert_eq!(SortKey::ALL.map(first), expected);
}

#[test]
fn reversed_order_is_the_other_way_round_but_for_equals() {
    let rows = rows();
    let cpu = |is_reversed| names(&rows, Sort { key: SortKey::Cpu, is_reversed });
    assert_eq!(cpu(false), ["s-cpu", "s-faults", "s-calls"]);
    assert_eq!(cpu(true), ["s-calls", "s-faults", "s-cpu"]);
    let queue = |is_reversed| names(&rows, Sort { key: SortKey::Queue, is_reversed });
    assert_eq!(queue(false), ["s-calls", "s-cpu", "s-faults"], "equals by name");
    assert_eq!(queue(true), ["s-cpu", "s-faults", "s-calls"], "equals by name still");
}

#[test]
fn unknown_rate_comes_after_a_rate_of_zero() {
    let before = at(1, vec![sub_tenant("acme", "s-still", used(5, 5))]);
    let after = at(2, vec![sub_tenant("acme", "s-new", used(90, 90)), sub_tenant("acme", "s-still", used(5, 5))]);
    let rows = Snapshot::between(Some(&before), &after).sub_tenants;
    assert_eq!(names(&rows, Sort::default()), ["s-still", "s-new"]);
}

#[test]
fn without_live_faults_those_who_had_most_come_first() {
    let had = |hash, calls_failed| sub_tenant("acme", hash, Usage { calls_failed, ..used(0, 0) });
    let sample = |seconds| at(seconds, vec![had("s-few", 1), had("s-most", 9), had("s-none", 0)]);
    let rows = Snapshot::between(Some(&sample(1)), &sample(2)).sub_tenants;
    let order = names(&rows, Sort { key: SortKey::Faults, is_reversed: false });
    assert_eq!(order, ["s-most", "s-few", "s-none"]);
}

#[test]
fn filter_looks_at_tenant_hash_and_class_in_capitals_or_not() {
    let rows = rows();
    let matching = |filter: &str| {
        rows.iter().filter(|row| is_match(row, filter)).map(|row| row.key.hash.as_str()).collect::<Vec<_>>()
    };
    assert_eq!(matching(""), ["s-calls", "s-cpu", "s-faults"]);
    assert_eq!(matching("GLOB"), ["s-faults"]);
    assert_eq!(matching("-cpu"), ["s-cpu"]);
    assert_eq!(matching("gold"), ["s-cpu"]);
    assert_eq!(matching("nobody"), Vec::<&str>::new());
}

#[test]
fn keys_are_named_as_on_the_command_line() {
    for key in SortKey::ALL {
        assert_eq!(SortKey::from_str(key.name(), false), Ok(key));
    }
    assert_eq!(SortKey::value_variants(), SortKey::ALL);
}
