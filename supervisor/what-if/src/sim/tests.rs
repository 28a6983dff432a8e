//! Small traces whose reports were worked out by hand, and many random ones that must keep the rules.

use std::time::Duration;

use sublet_pool::Rate;

use super::*;
use crate::{
    Cells, Change, Deadlines, Delay, Kills, Level, Reader, Shape, Starts, SubTenantDelay, generate,
    sample::{function, host, setup, setup_of, tenant},
};

const CARE: Care = Care { sub_tenants_max: SUB_TENANTS_MAX, checks_invariants: true };

fn rows(text: &str) -> Vec<Result<Row, TraceError>> {
    let text = format!("{}\n{text}", crate::HEADER);
    Reader::new(text.as_bytes()).expect("the header is right").collect()
}

fn report(setup: &Setup, text: &str) -> Report {
    run_with(CARE, setup, rows(text)).expect(text)
}

/// The setup of one function, `f`.
fn setup_with(change: impl FnOnce(&mut crate::Function)) -> Setup {
    let mut f = function();
    change(&mut f);
    setup_of(host(), tenant(), f, function())
}

fn changed(changes: &[&str]) -> Setup {
    let changes: Vec<Change> = changes.iter().map(|text| text.parse().expect(text)).collect();
    setup().with(&changes).expect("the changes are right")
}

fn waited(sub_tenant: &str, calls: u64, mean_us: u64) -> SubTenantDelay {
    SubTenantDelay { tenant: "acme".to_owned(), sub_tenant: sub_tenant.to_owned(), calls, mean_us }
}

#[test]
fn report_is_what_was_worked_out_by_hand() {
    // a: made at 0, ready at 1000. Its calls: 1000 to 1500; 2000 to 2500; the third waits for the second, 2500 to 3000.
    // b: made at 4000, 5000 to 5500. c finds both places taken: a goes, its place is free at 6100, c is ready at 7100.
    let setup = changed(&["host.workers_max=2"]);
    let report = report(
        &setup,
        "0,acme,f,a,500,ok\n2000,acme,f,a,500,ok\n2100,acme,f,a,500,ok\n4000,acme,f,b,500,ok\n6000,acme,f,c,900,error\n",
    );
    let all = Delay { count: 5, p50_us: 1000, p99_us: 1100, p999_us: 1100, max_us: 1100 };
    let starts = Starts { cold: 3, cell: 0, warm: 2 };
    let line = crate::TenantReport { calls: 5, answered: 5, starts, delay: all, ..Default::default() };
    let expected = Report {
        span_us: 8000,
        calls: 5,
        answered: 5,
        errors: 1,
        starts,
        delays: crate::Delays {
            all,
            cold: Delay { count: 3, p50_us: 1000, p99_us: 1100, p999_us: 1100, max_us: 1100 },
            cell: Delay::default(),
            warm: Delay { count: 2, p50_us: 0, p99_us: 400, p999_us: 400, max_us: 400 },
        },
        kills: Kills { make_room: 1, ..Default::default() },
        // One for 4000 us, two for as long: the place of a is held until 6100, and c has it from then on.
        workers: Level { peak: 2, average: 1.5 },
        memory_bytes: Level { peak: 2000, average: 1500.0 },
        tenants: [("acme".to_owned(), line)].into(),
        worst: vec![waited("c", 1, 1100), waited("b", 1, 1000), waited("a", 3, 466)],
        ..Report::default()
    };
    assert_eq!(report, expected);
}

#[test]
fn cell_is_made_after_a_miss_and_labelled_for_the_next_sub_tenant() {
    // A cell beside a's worker from 0 on; b has it at 2000 and is ready at 2400; its place on the shelf is filled at once.
    let report = report(&changed(&["tenant.*.function.f.cells_max=1"]), "0,acme,f,a,500,ok\n2000,acme,f,b,500,ok\n");
    assert_eq!(report.cells, Cells { made: 2, used: 1, wasted: 0 });
    assert_eq!(report.starts, Starts { cold: 1, cell: 1, warm: 0 });
    assert_eq!((report.delays.cell.max_us, report.span_us), (400, 2900));
    assert_eq!((report.workers.peak, report.memory_bytes.peak), (3, 2100));
    assert!((report.workers.average - (2.0 * 2000.0 + 3.0 * 900.0) / 2900.0).abs() < 1e-9);
    assert!((report.memory_bytes.average - (1100.0 * 2000.0 + 2100.0 * 900.0) / 2900.0).abs() < 1e-9);
}

#[test]
fn cell_that_goes_without_an_owner_is_wasted() {
    // g needs the place that the cell of f has.
    let setup = changed(&["tenant.*.function.f.cells_max=1", "host.workers_max=2"]);
    let report = report(&setup, "0,acme,f,a,500,ok\n2000,acme,g,b,500,ok\n");
    assert_eq!(report.cells, Cells { made: 1, used: 0, wasted: 1 });
    assert_eq!(report.kills, Kills { make_room: 1, ..Default::default() });
    assert_eq!(report.delays.cold.max_us, 1100);
}

#[test]
fn call_past_its_queue_is_refused_and_calls_past_their_time_are_cut() {
    // The first is with its worker from 1000 on and cut at 5000. The second may not have another before that one is
    // removed at 5100, and is cut at 5010. The third finds one waiting beside the one a worker is made for.
    let mut setup = changed(&["tenant.acme.function.f.queue_max=1"]);
    for function in setup.tenants.values_mut().flat_map(|tenant| tenant.functions.values_mut()) {
        function.timeout = Duration::from_micros(5000);
    }
    let report = report(&setup, "0,acme,f,a,10000,ok\n10,acme,f,a,1,ok\n20,acme,f,a,1,ok\n");
    assert_eq!((report.calls, report.answered, report.refused.all(), report.refused.queue_full), (3, 0, 1, 1));
    assert_eq!(report.deadlines, Deadlines { queued: 1, starting: 0, leased: 1 });
    assert_eq!(report.kills, Kills { deadline: 1, ..Default::default() });
    assert_eq!((report.span_us, report.delays.all.count), (5010, 1));
    // Who was never served has waited all the same.
    assert_eq!(report.worst, [waited("a", 2, 3000)]);
}

#[test]
fn answer_at_the_very_deadline_is_in_time() {
    let setup = setup_with(|f| f.timeout = Duration::from_micros(1500));
    assert_eq!(report(&setup, "0,acme,f,a,500,ok\n").answered, 1);
    assert_eq!(report(&setup, "0,acme,f,a,501,ok\n").deadlines.leased, 1);
}

#[test]
fn crash_ends_the_worker_and_an_idempotent_call_crashes_twice() {
    let once = report(&setup(), "0,acme,f,a,500,crash\n");
    assert_eq!((once.crashed, once.kills.died, once.answered, once.span_us), (1, 1, 0, 1500));
    // Removed at 1600, ready again at 2600, and down at 3100.
    let twice = report(&changed(&["tenant.acme.function.f.idempotent=true"]), "0,acme,f,a,500,crash\n");
    assert_eq!((twice.crashed, twice.kills.died, twice.delays.all.count, twice.span_us), (1, 2, 1, 3100));
}

#[test]
fn worker_that_is_not_ready_in_time_fails_its_call() {
    let setup = setup_with(|f| f.policy.start_timeout = Duration::from_micros(999));
    let report = report(&setup, "0,acme,f,a,500,ok\n");
    assert_eq!((report.starts_failed, report.kills.start_timeout, report.answered), (1, 1, 0));
}

#[test]
fn each_limit_refuses_one_past_it_under_its_own_name() {
    type Case<'a> = (&'a str, &'a dyn Fn(&mut Setup, &mut crate::Tenant));
    let rate = Some(Rate { per_second: 1, burst: 1 });
    let f = |tenant: &mut crate::Tenant, calls| {
        tenant.functions.values_mut().for_each(|function| function.policy.calls_in_flight_max = calls);
    };
    let cases: &[Case<'_>] = &[
        ("calls_full_host", &|setup, _| setup.host.calls_in_flight_max = 1),
        ("calls_full_tenant", &|_, acme| acme.policy.calls_in_flight_max = 1),
        ("calls_full_function", &|_, acme| f(acme, 1)),
        ("calls_full_sub_tenant", &|_, acme| acme.policy.sub_tenant.calls_in_flight_max = 1),
        ("calls_waiting_full", &|setup, _| setup.host.calls_waiting_max = 1),
        ("rate_tenant", &|_, acme| acme.policy.rate = rate),
        ("rate_sub_tenant", &|_, acme| acme.policy.sub_tenant.rate = rate),
    ];
    for (name, limit) in cases {
        let mut setup = setup();
        let (acme, mut tenant) = setup.tenants.pop_first().expect("there is one");
        limit(&mut setup, &mut tenant);
        setup.tenants.insert(acme, tenant);
        let one = report(&setup, "0,acme,f,a,500,ok\n");
        assert_eq!((one.answered, one.refused.all()), (1, 0), "{name}");
        let two = report(&setup, "0,acme,f,a,500,ok\n0,acme,f,a,500,ok\n");
        assert_eq!((two.answered, two.refused.all()), (1, 1), "{name}");
        assert!(two.refused.by_name().any(|counted| counted == (*name, 1)), "{name}: {:?}", two.refused);
    }
}

#[test]
fn delivery_to_a_warm_worker_takes_its_overhead() {
    let setup = setup_with(|f| f.times.warm_overhead = Duration::from_micros(50));
    let report = report(&setup, "0,acme,f,a,500,ok\n2000,acme,f,a,500,ok\n");
    assert_eq!((report.delays.cold.max_us, report.delays.warm.max_us, report.span_us), (1000, 50, 2550));
}

#[test]
fn calls_without_a_sub_tenant_share_a_worker() {
    let report = report(&setup(), "0,acme,f,,500,ok\n2000,acme,f,,500,ok\n");
    assert_eq!(report.starts, Starts { cold: 1, cell: 0, warm: 1 });
}

#[test]
fn idle_worker_ends_after_its_time_while_the_trace_goes_on() {
    let report = report(&changed(&["tenant.*.function.*.idle_ttl=1s"]), "0,acme,f,a,500,ok\n1001501,acme,f,b,1,ok\n");
    assert_eq!(report.kills, Kills { idle_ttl: 1, ..Default::default() });
}

#[test]
fn time_before_the_first_call_is_not_averaged_over() {
    let report = report(&setup(), "9000000,acme,f,a,500,ok\n");
    assert_eq!((report.span_us, report.workers), (1500, Level { peak: 1, average: 1.0 }));
}

#[test]
fn trace_without_calls_gives_zeros() {
    let expected = Report { tenants: [("acme".to_owned(), Default::default())].into(), ..Report::default() };
    assert_eq!(report(&setup(), ""), expected);
}

#[test]
fn row_that_the_configuration_does_not_know_refuses_the_run() {
    let refused = |text| run(&setup(), rows(text)).expect_err(text).to_string();
    let told = refused("0,acme,f,a,1,ok\n0,bob,f,a,1,ok\n");
    assert!(told.starts_with("row 2: there is no tenant \"bob\""), "{told}");
    let told = refused("0,acme,h,a,1,ok\n");
    assert!(told.starts_with("row 1: tenant \"acme\" has no function \"h\""), "{told}");
}

#[test]
fn broken_row_refuses_the_run_whatever_was_counted_before() {
    let error = run(&setup(), rows("0,acme,f,a,1,ok\n1,acme,f,a,1,no\n2,acme,f,a,1,ok\n")).expect_err("it is broken");
    assert!(matches!(error, RunError::Trace(TraceError::Outcome { line: 3, .. })), "{error:?}");
}

#[test]
fn rows_from_elsewhere_must_be_in_order_and_within_ten_years() {
    let row = |at_us| {
        let mut row = *rows("0,acme,f,a,1,ok\n")[0].as_ref().expect("it is right");
        row.at_us = at_us;
        Ok(row)
    };
    for times in [[5, 4], [5, crate::TIME_MAX_US + 1]] {
        let error = run(&setup(), times.map(row)).expect_err("they are not");
        assert!(matches!(error, RunError::Unordered { row: 2, .. }), "{error:?}");
    }
    assert_eq!(run(&setup(), [5, 5, crate::TIME_MAX_US].map(row)).expect("they are").calls, 3);
}

#[test]
fn one_sub_tenant_more_than_remembered_refuses_the_run() {
    let care = Care { sub_tenants_max: 2, checks_invariants: false };
    let two = "0,acme,f,a,1,ok\n0,acme,f,b,1,ok\n0,acme,f,a,1,ok\n";
    assert!(run_with(care, &setup(), rows(two)).is_ok());
    let error = run_with(care, &setup(), rows(&format!("{two}0,acme,f,c,1,ok\n"))).expect_err("it is one more");
    assert!(matches!(error, RunError::TooManySubTenants { row: 4, limit: 2 }), "{error:?}");
}

#[test]
fn random_traces_under_tight_limits_keep_every_rule_and_repeat_exactly() {
    for seed in 0..16 {
        let shape = Shape {
            duration: Duration::from_secs(20),
            sub_tenants: 12,
            calls_per_second: 40.0,
            bursts_per_hour: 1800.0,
            burst_size_max: 40,
            crash_share: 0.05,
            ..Shape::default()
        };
        let mut f = function();
        f.policy.workers_per_sub_tenant_max = 3;
        f.policy.queue_max = 5;
        f.policy.idle_ttl = Duration::from_millis(300);
        f.policy.freeze_after = Some(Duration::from_millis(10));
        f.policy.calls_max = Some(30);
        f.policy.age_max = Some(Duration::from_secs(2));
        f.policy.is_idempotent = seed % 2 == 0;
        f.policy.cells_max = 2;
        f.timeout = Duration::from_millis(400);
        f.times.cold_start = Duration::from_millis(30);
        f.times.cell_make = Duration::from_millis(20);
        let host = sublet_pool::HostPolicy { workers_max: 5, starts_max: 2, ..host() };
        let setup = shape.setup(host, tenant(), &f).expect("the shape is right");
        let run = || run_with(CARE, &setup, generate(&shape, seed).expect("the shape is right").map(Ok));
        let report = run().unwrap_or_else(|error| panic!("seed {seed}: {error}"));
        let ends = report.answered + report.crashed + report.starts_failed;
        assert_eq!(ends + report.refused.all() + report.deadlines.all(), report.calls, "seed {seed}");
        assert_eq!(report.delays.all.count, report.starts.all(), "seed {seed}");
        assert_eq!((report.refused.other, report.kills.other), (0, 0), "seed {seed}");
        assert!(report.cells.used + report.cells.wasted <= report.cells.made, "seed {seed}");
        assert!(report.workers.peak <= 5, "seed {seed}");
        let of_tenants: u64 = report.tenants.values().map(|tenant| tenant.calls).sum();
        assert_eq!(of_tenants, report.calls, "seed {seed}");
        // A trace in which nothing happens would prove nothing.
        assert!(report.kills.make_room > 0 && report.refused.all() > 0 && report.starts.warm > 0, "seed {seed}");
        assert_eq!(run().expect("it ran before"), report, "seed {seed}");
    }
}
