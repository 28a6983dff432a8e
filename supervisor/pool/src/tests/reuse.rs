//! Who may use which worker, and how long.

use super::*;

#[test]
fn idle_worker_is_leased_again() {
    let mut bench = Bench::new();
    let worker = bench.warm("a");
    let (_, at, _, start) = delivered(&bench.invoke("a").out);
    assert_eq!((at, start), (worker, Start::Warm));
}

#[test]
fn idle_worker_of_other_sub_tenant_is_never_leased() {
    let mut bench = Bench::new();
    bench.warm("a");
    assert!(deliveries(&bench.invoke("b").out).is_empty());
}

#[test]
fn idle_worker_of_other_function_or_tenant_is_never_leased() {
    let mut bench = Bench::new();
    bench.warm("a");
    for function in [bench.g, bench.b] {
        let asked = bench.invoke_for(function, "a", SECOND);
        assert!(deliveries(&asked.out).is_empty(), "{:?}", asked.out);
    }
}

#[test]
fn idle_worker_of_other_revision_is_never_leased() {
    let mut bench = Bench::new();
    bench.warm("a");
    let newer = bench.pool.add_function(bench.acme, &"f".into(), 2, function());
    assert_ne!(newer, bench.f);
    let asked = bench.invoke_for(newer, "a", SECOND);
    assert!(deliveries(&asked.out).is_empty());
    spawned(&asked.out);
}

#[test]
fn newest_idle_worker_is_taken_first() {
    let mut bench = Bench::new();
    let (first, lease, _) = bench.leased("a");
    let (second, other_lease, _) = bench.leased("a");
    bench.answer(second, other_lease);
    bench.wait(MILLI);
    bench.answer(first, lease);
    assert_eq!(delivered(&bench.invoke("a").out).1, first);
    assert_eq!(delivered(&bench.invoke("a").out).1, second);
}

#[test]
fn idle_worker_is_frozen_then_ended() {
    let mut bench = Bench::new();
    let worker = bench.warm("a");
    assert_eq!(bench.wait(SECOND), [Action::Freeze { worker }]);
    assert_eq!(kills(&bench.wait(Duration::from_secs(58))), []);
    assert_eq!(kills(&bench.wait(SECOND)), [(worker, KillReason::IdleTtl)]);
}

#[test]
fn worker_is_not_frozen_before_its_grace_is_over_nor_before_it_is_ready() {
    let mut bench = Bench::new();
    let worker = spawned(&bench.invoke("a").out);
    assert_eq!(bench.wait(2 * SECOND), []);
    let (_, _, lease, _) = delivered(&bench.start(worker));
    assert_eq!(bench.wait(2 * SECOND), []);
    bench.answer(worker, lease);
    assert_eq!(bench.wait(SECOND - MILLI), []);
    assert_eq!(bench.wait(MILLI), [Action::Freeze { worker }]);
}

#[test]
fn frozen_worker_is_thawed_for_a_call_and_gets_its_grace_again() {
    let mut bench = Bench::new();
    let worker = bench.warm("a");
    bench.wait(SECOND);
    let out = bench.invoke("a").out;
    assert!(matches!(out[..], [Action::Deliver { thaw: true, .. }]), "{out:?}");
    bench.answer(worker, LeaseId(2));
    let out = bench.invoke("a").out;
    assert!(matches!(out[..], [Action::Deliver { thaw: false, .. }]), "{out:?}");
}

#[test]
fn without_grace_a_worker_is_frozen_at_once_and_never_when_so_set() {
    let mut bench = Bench::new();
    let at_once = FunctionPolicy { freeze_after: Some(Duration::ZERO), ..function() };
    bench.step(Event::SetFunction { function: bench.f, policy: at_once });
    let (worker, lease, _) = bench.leased("a");
    assert!(bench.answer(worker, lease).contains(&Action::Freeze { worker }));
    bench.step(Event::SetFunction { function: bench.g, policy: FunctionPolicy { freeze_after: None, ..function() } });
    let running = bench.warm_for(bench.g, "a");
    let out = bench.wait(Duration::from_secs(59));
    assert!(!out.contains(&Action::Freeze { worker: running }), "{out:?}");
}

#[test]
fn worker_with_all_its_calls_is_ended_and_a_fresh_call_never_lands_on_it() {
    let mut bench = Bench::new();
    bench.step(Event::SetFunction { function: bench.f, policy: FunctionPolicy { calls_max: Some(2), ..function() } });
    let worker = bench.warm("a");
    let (_, _, lease, _) = delivered(&bench.invoke("a").out);
    assert_eq!(kills(&bench.answer(worker, lease)), [(worker, KillReason::CallsMax)]);
    assert!(deliveries(&bench.invoke("a").out).is_empty());
}

#[test]
fn worker_past_its_age_ends_after_its_call_and_idle_ones_at_once() {
    let mut bench = Bench::new();
    let policy = FunctionPolicy { age_max: Some(10 * SECOND), freeze_after: None, ..function() };
    bench.step(Event::SetFunction { function: bench.f, policy });
    let idle = bench.warm("a");
    let (busy, lease, call) = bench.leased("b");
    assert_eq!(kills(&bench.wait(10 * SECOND)), [(idle, KillReason::AgeMax)]);
    assert_eq!(bench.pool.worker(busy).unwrap().state, StateName::Draining);
    let out = bench.answer(busy, lease);
    assert_eq!(ends(&out), [(call, End::Answered { worker: busy, lease })], "a call in flight is never cut");
    assert_eq!(kills(&out), [(busy, KillReason::AgeMax)]);
}

#[test]
fn minimum_is_kept_after_deaths_and_over_idle_times_and_under_pressure() {
    let mut bench = Bench::new();
    let key = PoolKey { function: bench.f, sub_tenant: label("a") };
    let worker = spawned(&bench.step(Event::SetMinimum { key: key.clone(), workers: 1 }));
    bench.start(worker);
    assert_eq!(kills(&bench.wait(Duration::from_secs(200))), [], "it is kept past its idle time");
    let replacement = spawned(&bench.step(Event::Died { worker }));
    bench.start(replacement);
    bench.step(Event::Reaped { worker });
    for other in ["b", "c", "d"] {
        bench.leased(other);
    }
    assert_eq!(kills(&bench.invoke("e").out), [], "nobody else is given its place");
    let out = bench.step(Event::SetMinimum { key, workers: 0 });
    assert_eq!(kills(&out), [(replacement, KillReason::MakeRoom)]);
}

#[test]
fn warm_makes_what_is_missing_and_refuses_what_is_over_a_cap() {
    let mut bench = Bench::new();
    let key = PoolKey { function: bench.f, sub_tenant: label("a") };
    let mut out = Vec::new();
    let over = bench.pool.warm(bench.now, &key, 3, &mut out);
    assert_eq!(over, Err(WarmRefusal::OverCap { level: LimitLevel::SubTenant, limit: 2 }));
    let unknown = PoolKey { function: FunctionId(99), sub_tenant: label("a") };
    assert_eq!(bench.pool.warm(bench.now, &unknown, 1, &mut out), Err(WarmRefusal::UnknownFunction));
    assert_eq!(out, [], "nothing is changed by a refusal");
    assert_eq!(bench.pool.counts(), Counts::default());
    assert_eq!(bench.pool.warm(bench.now, &key, 2, &mut out), Ok(2));
    let made = spawns(&out);
    assert_eq!(made.len(), 2);
    for worker in made {
        assert_eq!(bench.start(worker), []);
    }
    assert_eq!(bench.pool.warm(bench.now, &key, 2, &mut Vec::new()), Ok(0));
    assert_eq!(delivered(&bench.invoke("a").out).3, Start::Cold, "it has served nobody before");
}

#[test]
fn labels_are_checked_one_past_each_limit() {
    assert_eq!(SubTenant::try_from(""), Err(LabelError::Empty));
    assert!(SubTenant::try_from(&*"x".repeat(256)).is_ok());
    assert_eq!(SubTenant::try_from(&*"x".repeat(257)), Err(LabelError::TooLong { bytes: 257 }));
    assert_eq!(SubTenant::try_from("a\u{7f}"), Err(LabelError::Control { at: 1 }));
}
