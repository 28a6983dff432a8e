//! Who gives way to whom, and who is next, while places are short.

use super::*;

#[test]
fn least_recently_used_idle_worker_of_anybody_makes_room() {
    let mut bench = Bench::new();
    let oldest = bench.warm_for(bench.b, "x");
    bench.wait(MILLI);
    for name in ["a", "b", "c"] {
        bench.warm(name);
    }
    let asked = bench.invoke("d");
    assert_eq!(kills(&asked.out), [(oldest, KillReason::MakeRoom)]);
    let out = bench.step(Event::Reaped { worker: oldest });
    let worker = spawned(&out);
    assert_eq!(delivered(&bench.start(worker)).0, asked.call);
}

#[test]
fn leased_worker_never_makes_room() {
    let mut bench = Bench::new();
    for name in ["a", "b", "c", "d"] {
        bench.leased(name);
    }
    assert_eq!(bench.invoke("e").out, []);
}

#[test]
fn worker_just_chosen_is_not_evicted_and_one_just_evicted_is_not_chosen() {
    let mut bench = Bench::new();
    let workers = ["a", "b", "c", "d"].map(|name| bench.warm(name));
    delivered(&bench.invoke("a").out);
    assert_eq!(kills(&bench.invoke("e").out), [(workers[1], KillReason::MakeRoom)], "a has been chosen");
    assert!(deliveries(&bench.invoke("b").out).is_empty(), "b's is on its way out");
}

#[test]
fn place_that_comes_free_anyway_is_waited_for() {
    let mut bench = Bench::new();
    let idle = bench.warm("a");
    let (dying, ..) = bench.leased("b");
    bench.leased("c");
    bench.leased("d");
    bench.step(Event::Died { worker: dying });
    assert_eq!(kills(&bench.invoke("e").out), [], "one place is on its way back already");
    let _ = idle;
    spawned(&bench.step(Event::Reaped { worker: dying }));
}

#[test]
fn place_made_for_a_key_goes_to_it() {
    let mut bench = Bench::new();
    for name in ["a", "b", "c"] {
        bench.leased(name);
    }
    let idle = bench.warm("d");
    let first = bench.invoke("e");
    assert_eq!(kills(&first.out), [(idle, KillReason::MakeRoom)]);
    bench.invoke("f");
    let out = bench.step(Event::Reaped { worker: idle });
    assert!(matches!(&out[..], [Action::Spawn { key, .. }] if key.sub_tenant == label("e")), "{out:?}");
}

#[test]
fn sub_tenants_workers_are_capped_over_its_functions() {
    let mut bench = Bench::new();
    let made = [bench.f, bench.f, bench.g, bench.g].map(|f| spawns(&bench.invoke_for(f, "a", SECOND).out).len());
    assert_eq!(made, [1, 1, 1, 0], "two of f fit its cap, one of g the sub-tenant's of three");
    let out = bench.invoke_for(bench.g, "b", SECOND).out;
    assert_eq!(spawns(&out).len(), 0, "starts are capped at three");
    let out = bench.step(Event::Made { worker: WorkerId(1) });
    assert!(matches!(&out[..], [Action::Spawn { key, .. }] if key.sub_tenant == label("b")), "{out:?}");
}

#[test]
fn idle_worker_of_the_same_sub_tenant_makes_room_under_its_cap() {
    let mut bench = Bench::with(
        HostPolicy { workers_max: 10, ..host() },
        TenantPolicy { workers_max: 10, sub_tenant: SubTenantPolicy { workers_max: 1, ..sub_tenant() }, ..tenant() },
        function(),
    );
    bench.warm("other");
    let own = bench.warm("a");
    assert_eq!(kills(&bench.invoke_for(bench.g, "a", SECOND).out), [(own, KillReason::MakeRoom)]);
}

#[test]
fn function_that_loads_for_ever_does_not_hold_up_the_starts_of_others() {
    let mut bench = Bench::new();
    for name in ["a", "b", "c"] {
        let worker = spawned(&bench.invoke_for(bench.g, name, SECOND).out);
        bench.step(Event::Made { worker });
    }
    spawned(&bench.invoke("d").out);
}

/// One place; `heavy` always has calls waiting. Serves `turns` calls and returns how many each sub-tenant got.
fn serve(bench: &mut Bench, names: &[&str], turns: usize) -> Vec<usize> {
    let mut served = vec![0; names.len()];
    let mut owner = std::collections::HashMap::new();
    let mut busy: Vec<(WorkerId, LeaseId)> = Vec::new();
    let mut todo: Vec<Action> = Vec::new();
    let mut done = 0;
    while done < turns {
        for (at, name) in names.iter().enumerate() {
            let key = PoolKey { function: bench.f, sub_tenant: label(name) };
            while bench.pool.waiting_of(&key) < 2 {
                let asked = bench.invoke_for(bench.f, name, Duration::from_secs(1_000_000));
                owner.insert(asked.call, at);
                todo.extend(asked.out);
            }
        }
        while let Some(action) = todo.pop() {
            match action {
                Action::Spawn { worker, .. } => todo.extend(bench.start(worker)),
                Action::Kill { worker, .. } => todo.extend(bench.step(Event::Reaped { worker })),
                Action::Deliver { worker, lease, call, .. } => {
                    served[owner[&call]] += 1;
                    done += 1;
                    busy.push((worker, lease));
                }
                _ => {}
            }
        }
        bench.now = bench.now + MILLI;
        let (worker, lease) = busy.remove(0);
        todo.extend(bench.answer(worker, lease));
    }
    served
}

fn one_place() -> Bench {
    Bench::with(HostPolicy { workers_max: 1, ..host() }, tenant(), FunctionPolicy { queue_max: 1000, ..function() })
}

#[test]
fn weights_hold_between_sub_tenants_that_fight_for_one_place() {
    let mut bench = one_place();
    for (name, weight) in [("light", 100), ("heavy", 300)] {
        let policy = Some(SubTenantPolicy { weight, ..sub_tenant() });
        bench.step(Event::SetSubTenants { tenant: bench.acme, policies: vec![(label(name), policy)] });
    }
    let served = serve(&mut bench, &["light", "heavy"], 10_000);
    let share = served[1] as f64 / 10_000.0;
    assert!((share - 0.75).abs() < 0.05 * 0.75, "{served:?}");
}

#[test]
fn key_keeps_its_worker_for_a_few_calls_so_that_starts_do_not_eat_the_time() {
    let mut bench = one_place();
    let mut starts = 0;
    let before = bench.pool.workers().map(|w| w.id.0).max().unwrap_or(0);
    serve(&mut bench, &["x", "y"], 1000);
    starts += bench.pool.workers().map(|w| w.id.0).max().unwrap_or(0) - before;
    assert!(starts <= 1000 / 4, "{starts} starts for 1000 calls");
}

#[test]
fn first_call_of_another_waits_for_one_call_of_a_flood_at_the_most() {
    let mut bench = one_place();
    let (worker, lease, _) = bench.leased("flood");
    for _ in 0..30 {
        bench.invoke("flood");
    }
    let quiet = bench.invoke("quiet");
    assert_eq!(quiet.out, []);
    let out = bench.answer(worker, lease);
    assert_eq!(kills(&out), [(worker, KillReason::MakeRoom)], "the flood has had its turn");
    let out = bench.step(Event::Reaped { worker });
    let next = spawned(&out);
    assert_eq!(delivered(&bench.start(next)).0, quiet.call);
}

#[test]
fn tenant_at_its_cap_does_not_hold_up_another() {
    let mut bench =
        Bench::with(HostPolicy { workers_max: 10, ..host() }, TenantPolicy { workers_max: 1, ..tenant() }, function());
    bench.leased("a");
    assert_eq!(bench.invoke("b").out, []);
    spawned(&bench.invoke_for(bench.b, "c", SECOND).out);
}

#[test]
fn function_at_its_cap_does_not_hold_up_another() {
    let mut bench = Bench::new();
    bench.step(Event::SetFunction { function: bench.f, policy: FunctionPolicy { workers_max: 1, ..function() } });
    bench.leased("a");
    assert_eq!(bench.invoke("b").out, []);
    spawned(&bench.invoke_for(bench.g, "b", SECOND).out);
}

#[test]
fn key_with_a_promised_place_takes_another_that_is_free_first() {
    let mut bench = Bench::new();
    for name in ["a", "b"] {
        bench.leased(name);
    }
    let (leaving, lease, _) = bench.leased("c");
    let idle = bench.warm("d");
    let asked = bench.invoke("e");
    assert_eq!(kills(&asked.out), [(idle, KillReason::MakeRoom)]);
    bench.step(Event::Answered { worker: leaving, lease, clean: false });
    // The other is gone before the promised one, which may take its time.
    let out = bench.step(Event::Reaped { worker: leaving });
    assert!(matches!(&out[..], [Action::Spawn { key, .. }] if key.sub_tenant == label("e")), "{out:?}");
    assert_eq!(spawns(&bench.step(Event::Reaped { worker: idle })), []);
}
