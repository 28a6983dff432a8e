use sublet_proto::v1::WorkerState;

use super::*;
use crate::cli::top::fixture::{at, millis, sub_tenant, used, worker};

fn row<'a>(snapshot: &'a Snapshot, hash: &str) -> &'a SubTenantRow {
    snapshot.sub_tenants.iter().find(|row| row.key.hash == hash).expect("the row is there")
}

/// The rates of one sub-tenant that had used this and then that, two seconds later.
fn rates_of(before: Usage, after: Usage) -> Option<Rates> {
    let before = at(10, vec![sub_tenant("acme", "s-1", before)]);
    let after = at(12, vec![sub_tenant("acme", "s-1", after)]);
    row(&Snapshot::between(Some(&before), &after), "s-1").figures.rates
}

#[test]
fn rates_are_what_was_added_over_the_time_between() {
    let before = Usage { calls_failed: 1, calls_refused: 10, throttled: millis(100), ..used(1_000, 100) };
    let after = Usage { calls_failed: 3, calls_refused: 14, throttled: millis(600), ..used(4_000, 150) };
    let rates = rates_of(before, after).expect("both samples have it");
    assert_eq!(rates, Rates { cpu_cores: 1.5, calls: 26.0, faults: 3.0, throttled: 0.25 });
}

#[test]
fn first_sample_has_numbers_and_no_rates() {
    let snapshot = Snapshot::between(None, &at(1, vec![sub_tenant("acme", "s-1", used(10, 1))]));
    assert_eq!(snapshot.interval, None);
    assert_eq!(snapshot.cpu_cores(), None);
    assert_eq!(row(&snapshot, "s-1").figures.rates, None);
    assert_eq!(row(&snapshot, "s-1").figures.memory_bytes, 1024 * 1024);
}

#[test]
fn sub_tenant_that_appeared_has_no_rate_and_one_that_vanished_is_not_there() {
    let stays = |cpu_ms| sub_tenant("acme", "s-stays", used(cpu_ms, 0));
    let before = at(1, vec![stays(0), sub_tenant("acme", "s-goes", used(5_000, 9))]);
    let after = at(2, vec![stays(500), sub_tenant("acme", "s-comes", used(9_000, 900))]);
    let snapshot = Snapshot::between(Some(&before), &after);
    assert_eq!(row(&snapshot, "s-stays").figures.cpu_cores(), Some(0.5));
    assert_eq!(row(&snapshot, "s-comes").figures.rates, None);
    assert!(snapshot.sub_tenants.iter().all(|row| row.key.hash != "s-goes"));
}

#[test]
fn same_hash_under_another_tenant_is_another_sub_tenant() {
    let before = at(1, vec![sub_tenant("acme", "s-1", used(1_000, 0))]);
    let after = at(2, vec![sub_tenant("globex", "s-1", used(1_500, 0))]);
    assert_eq!(row(&Snapshot::between(Some(&before), &after), "s-1").figures.rates, None);
}

#[test]
fn counter_that_went_back_gives_no_rate() {
    let full = Usage { calls_failed: 5, calls_refused: 5, throttled: millis(5), ..used(5_000, 5) };
    assert!(rates_of(full, full).is_some(), "or the rest proves nothing");
    for back in [
        Usage { cpu_kernel: millis(4_999), ..full },
        Usage { calls_answered: 4, ..full },
        Usage { calls_failed: 4, ..full },
        Usage { calls_refused: 4, ..full },
        Usage { throttled: millis(4), ..full },
        Usage { throttled: None, ..full },
    ] {
        assert_eq!(rates_of(full, back), None, "{back:?}");
    }
}

#[test]
fn restarted_supervisor_gives_no_rate_even_where_it_has_counted_more() {
    let before = at(1, vec![sub_tenant("acme", "s-1", used(100, 1))]);
    let mut after = at(2, vec![sub_tenant("acme", "s-1", used(900_000, 1_000_000))]);
    assert!(row(&Snapshot::between(Some(&before), &after), "s-1").figures.rates.is_some());
    after.health.calls_answered = 0;
    let snapshot = Snapshot::between(Some(&before), &after);
    assert_eq!(row(&snapshot, "s-1").figures.rates, None);
    assert_eq!((snapshot.cpu_cores(), snapshot.interval), (None, None));
}

#[test]
fn no_time_between_or_less_gives_no_rate() {
    let sample = |seconds| at(seconds, vec![sub_tenant("acme", "s-1", used(seconds * 10, 0))]);
    for (before, after) in [(3, 3), (4, 3)] {
        let mut before = sample(before);
        // Only the clock went back.
        before.health.calls_answered = 0;
        before.usage = sample(3).usage;
        let snapshot = Snapshot::between(Some(&before), &sample(after));
        assert_eq!(row(&snapshot, "s-1").figures.rates, None);
        assert_eq!(snapshot.interval, None);
    }
}

#[test]
fn kernel_knows_cpu_best_and_charged_time_stands_in_for_it() {
    let charged = |ms| Usage { cpu_calls: millis(ms), cpu_idle: millis(ms), ..Usage::default() };
    let both = |kernel, ms| Usage { cpu_kernel: millis(kernel), ..charged(ms) };
    let cores = |before, after| rates_of(before, after).map(|rates| rates.cpu_cores);
    assert_eq!(cores(both(1_000, 0), both(3_000, 10)), Some(1.0), "a call that runs on is not charged yet");
    assert_eq!(cores(charged(1_000), charged(2_000)), Some(1.0));
    // From one source to the other nothing can be said, but a group that had used nothing starts at zero.
    assert_eq!(cores(both(1_000, 10), charged(9_000)), None);
    assert_eq!(cores(used(0, 0), used(500, 0)), Some(0.25));
}

#[test]
fn workers_are_compared_by_name() {
    let sample = |seconds: u64, cpu_ms: &[(&str, u64)]| {
        let mut seen = sub_tenant("acme", "s-1", used(0, 0));
        let each = cpu_ms.iter().map(|(name, ms)| worker(name, WorkerState::Idle, used(*ms, 0)));
        seen.workers_used = each.collect();
        at(seconds, vec![seen])
    };
    let before = sample(1, &[("w-1", 100), ("w-2", 100)]);
    let after = sample(2, &[("w-2", 600), ("w-3", 900)]);
    let snapshot = Snapshot::between(Some(&before), &after);
    let cores: Vec<_> = row(&snapshot, "s-1").each.iter().map(|row| row.figures.cpu_cores()).collect();
    assert_eq!(cores, [Some(0.5), None]);
}

#[test]
fn tenants_have_the_calls_of_their_sub_tenants_and_all_cpu_is_added_up() {
    let seen = |tenant, hash, cpu_ms| SubTenantUsage {
        calls_running: 1,
        calls_queued: 2,
        ..sub_tenant(tenant, hash, used(cpu_ms, 0))
    };
    let sample =
        |seconds, ms| at(seconds, vec![seen("globex", "s-3", ms), seen("acme", "s-1", ms), seen("acme", "s-2", ms)]);
    let snapshot = Snapshot::between(Some(&sample(1, 0)), &sample(2, 500));
    let tenants: Vec<_> = (snapshot.tenants.iter())
        .map(|row| (row.tenant.as_str(), row.figures.running, row.figures.queued, row.figures.cpu_cores()))
        .collect();
    assert_eq!(tenants, [("acme", 2, 4, Some(1.0)), ("globex", 1, 2, Some(0.5))]);
    assert_eq!(snapshot.cpu_cores(), Some(1.5));
}
