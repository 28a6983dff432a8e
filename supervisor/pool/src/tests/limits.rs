//! Limits at every level, and their change while calls run.

use super::*;

#[test]
fn calls_in_flight_are_capped_at_every_level_by_name() {
    let none = 0;
    let cases: [(HostPolicy, TenantPolicy, FunctionPolicy, LimitLevel); 4] = [
        (HostPolicy { calls_in_flight_max: 1, ..host() }, tenant(), function(), LimitLevel::Host),
        (host(), TenantPolicy { calls_in_flight_max: 1, ..tenant() }, function(), LimitLevel::Tenant),
        (host(), tenant(), FunctionPolicy { calls_in_flight_max: 1, ..function() }, LimitLevel::Function),
        (
            host(),
            TenantPolicy { sub_tenant: SubTenantPolicy { calls_in_flight_max: 1, ..sub_tenant() }, ..tenant() },
            function(),
            LimitLevel::SubTenant,
        ),
    ];
    for (host, tenant, function, expected) in cases {
        let mut bench = Bench::with(host, tenant, function);
        assert_eq!(refusal(&bench.invoke("a")), None);
        let found = refusal(&bench.invoke("a"));
        assert!(matches!(found, Some(Refusal::CallsFull { level, limit: 1, .. }) if level == expected), "{found:?}");
        let _ = none;
    }
}

#[test]
fn waiting_calls_of_the_host_are_capped() {
    let mut bench = Bench::with(HostPolicy { calls_waiting_max: 2, ..host() }, tenant(), function());
    bench.invoke("a");
    bench.invoke("b");
    assert!(matches!(refusal(&bench.invoke("c")), Some(Refusal::CallsWaitingFull { limit: 2, .. })));
}

#[test]
fn rates_of_tenant_and_sub_tenant_hold_with_a_burst_and_a_delay() {
    let rate = Some(Rate { per_second: 10, burst: 2 });
    let limits = TenantPolicy { sub_tenant: SubTenantPolicy { rate, ..sub_tenant() }, ..tenant() };
    let mut bench = Bench::with(host(), limits, function());
    assert_eq!([refusal(&bench.invoke("a")), refusal(&bench.invoke("a"))], [None, None]);
    let found = refusal(&bench.invoke("a"));
    let expected =
        Refusal::RateLimited { level: LimitLevel::SubTenant, per_second: 10, retry_after: Duration::from_millis(100) };
    assert_eq!(found, Some(expected));
    assert_eq!(refusal(&bench.invoke("b")), None, "another has a rate of its own");
    bench.wait(Duration::from_millis(100));
    assert_eq!(refusal(&bench.invoke("a")), None);

    let mut bench = Bench::with(host(), TenantPolicy { rate, ..tenant() }, function());
    bench.invoke("a");
    bench.invoke("b");
    assert!(matches!(refusal(&bench.invoke("c")), Some(Refusal::RateLimited { level: LimitLevel::Tenant, .. })));
    assert_eq!(refusal(&bench.invoke_for(bench.b, "c", SECOND)), None, "another tenant has a rate of its own");
}

#[test]
fn call_refused_for_another_reason_takes_nothing_from_its_rate() {
    let limits = TenantPolicy { rate: Some(Rate { per_second: 1, burst: 1 }), ..tenant() };
    let mut bench = Bench::with(host(), limits, function());
    bench.step(Event::SetFunction {
        function: bench.f,
        policy: FunctionPolicy { calls_in_flight_max: 0, ..function() },
    });
    assert!(matches!(refusal(&bench.invoke("a")), Some(Refusal::CallsFull { .. })));
    assert_eq!(refusal(&bench.invoke_for(bench.g, "a", SECOND)), None);
}

#[test]
fn sub_tenant_is_forgotten_when_nothing_is_left_of_it() {
    let limits = TenantPolicy {
        sub_tenant: SubTenantPolicy { rate: Some(Rate { per_second: 1, burst: 1 }), ..sub_tenant() },
        ..tenant()
    };
    let mut bench = Bench::with(host(), limits, function());
    let worker = bench.warm("a");
    bench.step(Event::Evict { which: Selector::All, force: false });
    bench.step(Event::Reaped { worker });
    assert_eq!(bench.pool.counts().sub_tenants, 1, "its rate is remembered");
    bench.wait(SECOND);
    assert_eq!(bench.pool.counts(), Counts::default());
}

#[test]
fn limit_lowered_below_what_runs_ends_idle_workers_and_cuts_no_call() {
    let mut bench = Bench::new();
    let (busy, lease, call) = bench.leased("a");
    let (other, other_lease, _) = bench.leased("b");
    let idle = bench.warm("c");
    let out = bench.step(Event::SetHost(HostPolicy { workers_max: 1, ..host() }));
    assert_eq!((kills(&out), ends(&out)), (vec![(idle, KillReason::OverCap)], vec![]));
    let out = bench.answer(busy, lease);
    assert_eq!(ends(&out), [(call, End::Answered { worker: busy, lease })]);
    assert_eq!(kills(&out), [(busy, KillReason::OverCap)]);
    bench.step(Event::Reaped { worker: idle });
    bench.step(Event::Reaped { worker: busy });
    assert_eq!(kills(&bench.answer(other, other_lease)), [], "one fits");
}

#[test]
fn limit_raised_lets_waiting_calls_go_on_at_once() {
    let mut bench = Bench::with(HostPolicy { workers_max: 1, ..host() }, tenant(), function());
    bench.leased("a");
    bench.invoke("b");
    assert_eq!(spawns(&bench.step(Event::SetHost(host()))).len(), 1);

    let mut bench = Bench::with(host(), TenantPolicy { workers_max: 1, ..tenant() }, function());
    bench.leased("a");
    bench.invoke("b");
    assert_eq!(spawns(&bench.step(Event::SetTenant { tenant: bench.acme, policy: tenant() })).len(), 1);

    let mut bench = Bench::with(host(), tenant(), FunctionPolicy { workers_max: 1, ..function() });
    bench.leased("a");
    bench.invoke("b");
    assert_eq!(spawns(&bench.step(Event::SetFunction { function: bench.f, policy: function() })).len(), 1);

    let capped = Some(SubTenantPolicy { workers_max: 1, ..sub_tenant() });
    let mut bench = Bench::new();
    bench.step(Event::SetSubTenants { tenant: bench.acme, policies: vec![(label("a"), capped)] });
    bench.leased("a");
    assert_eq!(bench.invoke("a").out, []);
    let lifted = Event::SetSubTenants { tenant: bench.acme, policies: vec![(label("a"), None)] };
    assert_eq!(spawns(&bench.step(lifted)).len(), 1);
}

#[test]
fn removed_function_answers_its_queue_finishes_its_leases_and_goes() {
    let mut bench = Bench::with(host(), tenant(), FunctionPolicy { workers_per_sub_tenant_max: 1, ..function() });
    let idle = bench.warm("i");
    let (worker, lease, _) = bench.leased("a");
    let waiting = bench.invoke("a").call;
    assert_eq!(kills(&bench.step(Event::Retire { function: bench.f })), [(idle, KillReason::FunctionRetired)]);
    assert_eq!(refusal(&bench.invoke("a")), Some(Refusal::UnknownFunction));
    let (call, _, lease, _) = delivered(&bench.answer(worker, lease));
    assert_eq!(call, waiting);
    assert_eq!(kills(&bench.answer(worker, lease)), [(worker, KillReason::FunctionRetired)]);
    bench.step(Event::Reaped { worker: idle });
    assert_eq!(bench.step(Event::Reaped { worker }), [Action::Retired { function: bench.f }]);
}

#[test]
fn worker_of_the_old_isolation_mode_drains_while_the_new_one_serves() {
    let mut bench = Bench::new();
    let (worker, lease, _) = bench.leased("a");
    let shared = bench.pool.add_function(bench.acme, &"f".into(), 2, function());
    bench.step(Event::Retire { function: bench.f });
    let key = PoolKey { function: shared, sub_tenant: SubTenant::shared() };
    let deadline = bench.now + SECOND;
    let out = bench.step(Event::Invoke { call: CallId(500), key, deadline });
    spawned(&out);
    assert_eq!(kills(&bench.answer(worker, lease)), [(worker, KillReason::FunctionRetired)]);
}

#[test]
fn eviction_takes_those_that_match_and_leaves_busy_ones_unless_forced() {
    let mut bench = Bench::new();
    let (busy, lease, call) = bench.leased("a");
    let idle = bench.warm("a");
    let other = bench.warm("b");
    let which = Selector::Match { tenant: Some(bench.acme), functions: None, sub_tenant: Some(label("a")) };
    assert_eq!(bench.pool.count_matching(&which), 2);
    assert_eq!(kills(&bench.step(Event::Evict { which: which.clone(), force: false })), [(idle, KillReason::Evicted)]);
    let out = bench.step(Event::Evict { which, force: true });
    assert_eq!(ends(&out), [(call, End::Evicted { worker: busy })]);
    assert_eq!(bench.answer(busy, lease), []);
    let which = Selector::Match { tenant: Some(bench.bolt), functions: None, sub_tenant: None };
    assert_eq!(bench.step(Event::Evict { which, force: true }), []);
    assert_eq!(bench.pool.worker(other).unwrap().state, StateName::Idle);
}

#[test]
fn lowered_cap_ends_only_as_many_as_are_over_it() {
    let mut bench = Bench::with(HostPolicy { workers_max: 4, starts_max: 4, ..host() }, tenant(), function());
    let leased: Vec<_> = ["a", "b", "c", "d"].iter().map(|label| bench.leased(label)).collect();
    bench.step(Event::SetHost(HostPolicy { workers_max: 2, starts_max: 4, ..host() }));
    // None of them is reaped before the last has ended its call.
    let ended: Vec<_> = leased.iter().flat_map(|(worker, lease, _)| kills(&bench.answer(*worker, *lease))).collect();
    assert_eq!(ended, [(leased[0].0, KillReason::OverCap), (leased[1].0, KillReason::OverCap)]);
}

#[test]
fn worker_kept_at_no_idle_time_at_all_does_not_stop_the_pool() {
    let mut bench = Bench::with(host(), tenant(), FunctionPolicy { idle_ttl: Duration::ZERO, ..function() });
    let key = PoolKey { function: bench.f, sub_tenant: label("a") };
    let worker = spawned(&bench.step(Event::SetMinimum { key, workers: 1 }));
    bench.start(worker);
    assert_eq!(kills(&bench.wait(SECOND)), []);
    assert!(bench.pool.next_wakeup().is_some_and(|at| at > bench.now));
}
