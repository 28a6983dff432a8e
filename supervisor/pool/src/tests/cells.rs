//! Cells: made ahead for nobody, labelled once.

use super::*;

fn with_cells(cells_max: u32) -> Bench {
    Bench::with(
        HostPolicy { workers_max: 10, starts_max: 10, ..host() },
        TenantPolicy { workers_max: 10, ..tenant() },
        FunctionPolicy { workers_max: 10, cells_max, ..function() },
    )
}

fn cells(out: &[Action]) -> Vec<WorkerId> {
    let cell = |action: &Action| if let Action::MakeCell { worker, .. } = action { Some(*worker) } else { None };
    out.iter().filter_map(cell).collect()
}

fn labels(out: &[Action]) -> Vec<(WorkerId, PoolKey)> {
    let label = |action: &Action| match action {
        Action::Label { worker, key } => Some((*worker, key.clone())),
        _ => None,
    };
    out.iter().filter_map(label).collect()
}

/// A ready cell of f, and what made the pool keep one: a miss.
fn ready(bench: &mut Bench) -> WorkerId {
    let asked = bench.invoke("first");
    let [cell] = cells(&asked.out)[..] else { panic!("{:?}", asked.out) };
    let first = spawned(&asked.out);
    bench.start(first);
    bench.step(Event::Made { worker: cell });
    cell
}

#[test]
fn first_call_of_an_unseen_sub_tenant_labels_a_cell_and_the_cell_is_replaced() {
    let mut bench = with_cells(1);
    let cell = ready(&mut bench);
    let asked = bench.invoke("new");
    assert_eq!(labels(&asked.out), [(cell, PoolKey { function: bench.f, sub_tenant: label("new") })]);
    assert_eq!(spawns(&asked.out), []);
    assert_eq!(cells(&asked.out).len(), 1);
    let (call, at, _, start) = delivered(&bench.step(Event::Started { worker: cell }));
    assert_eq!((call, at, start), (asked.call, cell, Start::Cell));
}

#[test]
fn labelled_cell_serves_nobody_else_for_life() {
    let mut bench = with_cells(1);
    let cell = ready(&mut bench);
    bench.invoke("new");
    let (_, _, lease, _) = delivered(&bench.step(Event::Started { worker: cell }));
    bench.answer(cell, lease);
    assert!(deliveries(&bench.invoke("other").out).is_empty());
    assert_eq!(delivered(&bench.invoke("new").out).1, cell);
}

#[test]
fn cell_of_another_function_is_not_used() {
    let mut bench = with_cells(1);
    ready(&mut bench);
    let asked = bench.invoke_for(bench.g, "new", SECOND);
    assert_eq!(labels(&asked.out), []);
    spawned(&asked.out);
}

#[test]
fn cell_is_only_for_a_sub_tenant_without_a_worker() {
    let mut bench = with_cells(1);
    ready(&mut bench);
    let asked = bench.invoke("first");
    assert_eq!(labels(&asked.out), [], "its group is there already, and no process is moved");
    spawned(&asked.out);
}

#[test]
fn cell_in_the_making_is_not_labelled() {
    let mut bench = with_cells(1);
    let asked = bench.invoke("first");
    assert_eq!(cells(&asked.out).len(), 1);
    spawned(&bench.invoke("new").out);
}

#[test]
fn failed_cell_is_replaced_and_nobodys_call_fails() {
    let mut bench = with_cells(1);
    let asked = bench.invoke("first");
    let [cell] = cells(&asked.out)[..] else { panic!("{:?}", asked.out) };
    let out = bench.step(Event::StartFailed { worker: cell, blame: Blame::Theirs });
    assert_eq!((kills(&out), ends(&out)), (vec![(cell, KillReason::StartFailed)], vec![]));
    assert_eq!(cells(&out).len(), 1, "{out:?}");
}

#[test]
fn cells_that_keep_failing_back_off() {
    let mut bench = with_cells(1);
    let mut made = cells(&bench.invoke("first").out);
    let mut failed = 0;
    while let Some(worker) = made.pop() {
        failed += 1;
        assert!(failed < 10, "a storm");
        made.extend(cells(&bench.step(Event::StartFailed { worker, blame: Blame::Theirs })));
    }
    assert_eq!(failed, 3);
}

/// Lets time pass in steps; makes the cells asked for and removes what is killed. Returns the kills.
fn pass(bench: &mut Bench, steps: u32, step: Duration) -> Vec<(WorkerId, KillReason)> {
    let mut ended = Vec::new();
    for _ in 0..steps {
        let mut out = bench.wait(step);
        while !out.is_empty() {
            ended.extend(kills(&out));
            let made = cells(&out).into_iter().map(|worker| Event::Made { worker });
            let gone = kills(&out).into_iter().map(|(worker, _)| Event::Reaped { worker });
            out = made.chain(gone).collect::<Vec<_>>().into_iter().flat_map(|event| bench.step(event)).collect();
        }
    }
    ended
}

#[test]
fn expired_cell_is_replaced() {
    let mut bench = with_cells(1);
    let cell = ready(&mut bench);
    // Misses in between keep one wanted while the first grows old.
    let mut ended = Vec::new();
    for _ in 0..61 {
        ended.extend(pass(&mut bench, 2, 5 * SECOND));
        bench.pool.count_miss(bench.f);
    }
    assert!(ended.contains(&(cell, KillReason::Surplus)), "{ended:?}");
    assert_eq!(bench.pool.counts().cells, 1);
}

#[test]
fn without_misses_no_cell_is_kept() {
    let mut bench = with_cells(1);
    let cell = ready(&mut bench);
    let ended = pass(&mut bench, 20, 5 * SECOND);
    assert!(ended.iter().any(|(worker, why)| (*worker, *why) == (cell, KillReason::Surplus)), "{ended:?}");
    assert_eq!(bench.pool.counts().cells, 0);
}

#[test]
fn more_cells_are_kept_after_more_misses_never_more_than_allowed() {
    let mut bench = with_cells(3);
    let mut made = 0;
    for at in 0..8 {
        let asked = bench.invoke(&format!("s{at}"));
        made += cells(&asked.out).len();
        for worker in spawns(&asked.out).into_iter().chain(cells(&asked.out)) {
            bench.step(Event::Made { worker });
        }
        assert!(bench.pool.counts().cells <= 3);
    }
    assert!(made >= 2, "{made}");
}

#[test]
fn cells_stay_within_the_memory_set_aside() {
    let mut bench = with_cells(4);
    bench.step(Event::SetHost(HostPolicy {
        workers_max: 100,
        starts_max: 100,
        cells_memory_max: (2 << 20) - 1,
        ..host()
    }));
    for at in 0..30 {
        bench.invoke(&format!("s{at}"));
        assert!(bench.pool.counts().cells <= 1);
    }
}

#[test]
fn cell_gives_way_before_an_idle_worker_does() {
    let mut bench = with_cells(1);
    let cell = ready(&mut bench);
    bench.step(Event::SetHost(HostPolicy { workers_max: 3, starts_max: 10, ..host() }));
    let idle = bench.warm_for(bench.b, "x");
    assert_eq!(kills(&bench.invoke_for(bench.g, "y", SECOND).out), [(cell, KillReason::MakeRoom)]);
    assert_eq!(bench.pool.worker(idle).unwrap().state, StateName::Idle);
}

#[test]
fn no_cell_is_made_in_a_place_that_a_call_waits_for() {
    let mut bench = with_cells(4);
    bench.step(Event::SetHost(HostPolicy { workers_max: 2, starts_max: 10, ..host() }));
    for name in ["a", "b", "c"] {
        assert_eq!(cells(&bench.invoke(name).out).len(), usize::from(name == "a"), "{name}");
    }
}

#[test]
fn where_all_places_are_taken_a_cell_takes_that_of_the_longest_idle_worker() {
    let mut bench = with_cells(1);
    bench.step(Event::SetHost(HostPolicy { workers_max: 2, starts_max: 10, ..host() }));
    let policy = FunctionPolicy { cells_max: 0, ..function() };
    bench.step(Event::SetFunction { function: bench.f, policy });
    let (oldest, newer) = (bench.warm("a"), bench.warm("b"));
    let policy = FunctionPolicy { cells_max: 1, ..function() };
    bench.step(Event::SetFunction { function: bench.f, policy });
    bench.pool.count_miss(bench.f);
    assert_eq!(kills(&bench.wait(SECOND - MILLI)), [], "it may be called again");
    assert_eq!(kills(&bench.wait(MILLI)), [(oldest, KillReason::MakeRoom)]);
    assert_eq!(kills(&bench.wait(SECOND)), [], "one at a time");
    assert_eq!(cells(&bench.step(Event::Reaped { worker: oldest })).len(), 1);
    assert_eq!(kills(&bench.wait(SECOND)), []);
    let _ = newer;
}

#[test]
fn cell_makes_room_for_a_call_of_its_own_function_that_is_full() {
    let full = FunctionPolicy { workers_max: 2, cells_max: 1, ..function() };
    let mut bench = Bench::with(host(), tenant(), full);
    let cell = ready(&mut bench);
    let asked = bench.invoke("first");
    assert_eq!(kills(&asked.out), [(cell, KillReason::MakeRoom)], "its sub-tenant has a worker, and gets no cell");
    spawned(&bench.step(Event::Reaped { worker: cell }));
}

#[test]
fn worker_that_does_not_go_does_not_keep_a_cell_from_a_place() {
    let mut bench = with_cells(1);
    bench.step(Event::SetHost(HostPolicy { workers_max: 3, starts_max: 10, ..host() }));
    for other in [bench.g, bench.b] {
        bench.step(Event::SetFunction { function: other, policy: FunctionPolicy { workers_max: 10, ..function() } });
    }
    let leaving = bench.warm_for(bench.b, "stuck");
    let idle = bench.warm_for(bench.g, "idle");
    bench.step(Event::Evict { which: Selector::Worker(leaving), force: false });
    bench.leased("new");
    assert_eq!(kills(&bench.wait(ROOM_PATIENCE - MILLI)), []);
    assert_eq!(kills(&bench.wait(MILLI)), [(idle, KillReason::MakeRoom)]);
    assert_eq!(cells(&bench.step(Event::Reaped { worker: idle })).len(), 1);
}
