//! Workers that are slow to go, or never go: they keep their places, and hold up nobody who can be served without them.

use super::*;

type Key = (TenantName, &'static str);

#[derive(Clone, Copy)]
enum TenantName {
    AcmeF,
    AcmeG,
    Bolt,
}

fn function_of(bench: &Bench, name: TenantName) -> FunctionId {
    match name {
        TenantName::AcmeF => bench.f,
        TenantName::AcmeG => bench.g,
        TenantName::Bolt => bench.b,
    }
}

/// Two places at one level: one is kept by a worker that leaves, the other by an idle one.
struct Level {
    name: &'static str,
    host: HostPolicy,
    tenant: TenantPolicy,
    function: FunctionPolicy,
    leaving: Key,
    idle: Key,
    asked: Key,
}

fn levels() -> [Level; 4] {
    use TenantName::{AcmeF, AcmeG, Bolt};
    let level = |name, leaving, idle, asked| Level {
        name,
        host: host(),
        tenant: tenant(),
        function: function(),
        leaving,
        idle,
        asked,
    };
    let capped = SubTenantPolicy { workers_max: 2, ..sub_tenant() };
    [
        Level {
            host: HostPolicy { workers_max: 2, ..host() },
            ..level("host", (Bolt, "a"), (AcmeF, "b"), (AcmeG, "c"))
        },
        Level {
            tenant: TenantPolicy { workers_max: 2, ..tenant() },
            ..level("tenant", (AcmeF, "a"), (AcmeG, "b"), (AcmeF, "c"))
        },
        Level {
            function: FunctionPolicy { workers_max: 2, ..function() },
            ..level("function", (AcmeF, "a"), (AcmeF, "b"), (AcmeF, "c"))
        },
        Level {
            tenant: TenantPolicy { sub_tenant: capped, ..tenant() },
            ..level("sub-tenant", (AcmeF, "a"), (AcmeG, "a"), (AcmeF, "a"))
        },
    ]
}

impl Level {
    /// The bench, the leaving worker and the idle one.
    fn bench(&self) -> (Bench, WorkerId, WorkerId) {
        let mut bench = Bench::with(self.host, self.tenant, self.function.clone());
        let leaving = bench.warm_for(function_of(&bench, self.leaving.0), self.leaving.1);
        let idle = bench.warm_for(function_of(&bench, self.idle.0), self.idle.1);
        bench.evict(leaving);
        (bench, leaving, idle)
    }

    fn ask(&self, bench: &mut Bench) -> Asked {
        bench.invoke_for(function_of(bench, self.asked.0), self.asked.1, Duration::from_secs(30))
    }
}

impl Bench {
    fn evict(&mut self, worker: WorkerId) {
        let out = self.step(Event::Evict { which: Selector::Worker(worker), force: false });
        assert_eq!(kills(&out), [(worker, KillReason::Evicted)]);
    }
}

fn two_places() -> Bench {
    Bench::with(HostPolicy { workers_max: 2, ..host() }, tenant(), function())
}

#[test]
fn call_takes_back_its_promise_of_a_worker_that_does_not_go_at_every_level() {
    for level in levels() {
        let (mut bench, leaving, idle) = level.bench();
        let asked = level.ask(&mut bench);
        assert_eq!(asked.out, [], "{}: a worker that has just begun to leave is waited for", level.name);
        assert_eq!(kills(&bench.wait(ROOM_PATIENCE - MILLI)), [], "{}", level.name);
        assert_eq!(kills(&bench.wait(MILLI)), [(idle, KillReason::MakeRoom)], "{}", level.name);
        let worker = spawned(&bench.step(Event::Reaped { worker: idle }));
        assert_eq!(delivered(&bench.start(worker)).0, asked.call, "{}", level.name);
        assert_eq!(bench.step(Event::Reaped { worker: leaving }), [], "{}", level.name);
    }
}

#[test]
fn pool_wakes_to_take_a_promise_back() {
    let mut bench = two_places();
    let leaving = bench.warm("a");
    let idle = bench.warm("b");
    bench.evict(leaving);
    bench.invoke("c");
    let due = bench.now + ROOM_PATIENCE;
    let mut went = Vec::new();
    while let Some(at) = bench.pool.next_wakeup().filter(|at| *at <= due) {
        bench.now = at;
        went.extend(kills(&bench.step(Event::Timer)));
    }
    assert_eq!(went, [(idle, KillReason::MakeRoom)]);
}

#[test]
fn call_that_comes_when_a_worker_is_overdue_does_not_wait_for_it_at_any_level() {
    for level in levels() {
        let (mut bench, _, idle) = level.bench();
        bench.wait(ROOM_PATIENCE);
        let asked = level.ask(&mut bench);
        assert_eq!(kills(&asked.out), [(idle, KillReason::MakeRoom)], "{}", level.name);
    }
}

#[test]
fn call_beside_an_overdue_worker_takes_the_place_of_the_next_that_is_idle() {
    for level in levels() {
        let mut bench = Bench::with(level.host, level.tenant, level.function.clone());
        let leaving = bench.warm_for(function_of(&bench, level.leaving.0), level.leaving.1);
        let (busy, lease, _) = bench.leased_for(function_of(&bench, level.idle.0), level.idle.1);
        bench.evict(leaving);
        level.ask(&mut bench);
        assert_eq!(kills(&bench.wait(ROOM_PATIENCE)), [], "{}: there is nobody to go", level.name);
        assert_eq!(kills(&bench.answer(busy, lease)), [(busy, KillReason::MakeRoom)], "{}", level.name);
    }
}

#[test]
fn overdue_place_is_given_to_who_waits_when_it_is_free_at_last() {
    let mut bench = two_places();
    let leaving = bench.warm("a");
    bench.leased("b");
    bench.evict(leaving);
    let asked = bench.invoke("c");
    bench.wait(2 * ROOM_PATIENCE);
    let worker = spawned(&bench.step(Event::Reaped { worker: leaving }));
    assert_eq!(delivered(&bench.start(worker)).0, asked.call);
}

#[test]
fn one_call_costs_one_worker_in_the_time_that_one_has_to_go() {
    let mut bench = Bench::with(host(), tenant(), FunctionPolicy { idle_ttl: Duration::from_secs(600), ..function() });
    let leaving = bench.warm("a");
    let idle = ["b", "c", "d"].map(|name| bench.warm(name));
    bench.evict(leaving);
    bench.invoke("e");
    assert_eq!(kills(&bench.wait(ROOM_PATIENCE)), [(idle[0], KillReason::MakeRoom)]);
    assert_eq!(kills(&bench.wait(ROOM_PATIENCE - MILLI)), [], "it has as much time");
    assert_eq!(kills(&bench.wait(MILLI)), [(idle[1], KillReason::MakeRoom)]);
    let worker = spawned(&bench.step(Event::Reaped { worker: idle[0] }));
    bench.start(worker);
    assert_eq!(kills(&bench.wait(10 * ROOM_PATIENCE)), [], "the call has its worker");
}

#[test]
fn calls_wait_for_workers_that_have_just_begun_to_leave_and_no_others_go_for_them() {
    let mut bench = Bench::new();
    let leaving = ["a", "b"].map(|name| bench.warm(name));
    let idle = ["c", "d"].map(|name| bench.warm(name));
    bench.wait(ROOM_PATIENCE);
    for worker in leaving {
        bench.evict(worker);
    }
    let asked = ["e", "f", "g"].map(|name| bench.invoke(name));
    let went: Vec<_> = asked.iter().flat_map(|asked| kills(&asked.out)).collect();
    assert_eq!(went, [(idle[0], KillReason::MakeRoom)], "two places come free for three calls");
    bench.wait(ROOM_PATIENCE - MILLI);
    for worker in [leaving[0], leaving[1], idle[0]] {
        spawned(&bench.step(Event::Reaped { worker }));
    }
    assert_eq!(kills(&bench.wait(2 * MILLI)), []);
}

#[test]
fn nobody_goes_in_vain_while_overdue_workers_take_all_that_a_lowered_limit_allows() {
    for level in 0..3 {
        let mut bench = Bench::new();
        let leaving = ["a", "b"].map(|name| bench.warm(name));
        let idle = ["c", "d"].map(|name| bench.warm(name));
        for worker in leaving {
            bench.evict(worker);
        }
        bench.wait(ROOM_PATIENCE);
        let out = match level {
            0 => bench.step(Event::SetHost(HostPolicy { workers_max: 2, ..host() })),
            1 => {
                let policy = TenantPolicy { workers_max: 2, ..tenant() };
                bench.step(Event::SetTenant { tenant: bench.acme, policy })
            }
            _ => {
                let policy = FunctionPolicy { workers_max: 2, ..function() };
                bench.step(Event::SetFunction { function: bench.f, policy })
            }
        };
        assert_eq!(kills(&out), [], "{level}: no more than two live");
        let asked = bench.invoke("e");
        assert_eq!(asked.out, [], "{level}: its end would make no room");
        assert_eq!(deliveries(&bench.invoke("d").out)[0].1, idle[1], "{level}: and so it serves");
        let out = bench.step(Event::Reaped { worker: leaving[0] });
        assert_eq!(kills(&out), [(idle[0], KillReason::MakeRoom)], "{level}");
        assert_eq!(bench.step(Event::Reaped { worker: idle[0] }), [], "{level}: two are too many still");
        spawned(&bench.step(Event::Reaped { worker: leaving[1] }));
    }
}
