use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use super::*;

fn key(function: &str, sub_tenant: &str) -> PoolKey {
    PoolKey {
        tenant: "acme".into(),
        function: function.into(),
        revision: 1,
        sub_tenant: SubTenant::try_from(sub_tenant).unwrap(),
    }
}

fn function() -> FunctionPolicy {
    FunctionPolicy {
        workers_max: 6,
        workers_per_sub_tenant_max: 2,
        queue_max: 3,
        idle_ttl: Duration::from_secs(60),
        freeze_after: Some(Duration::from_secs(1)),
        start_timeout: Duration::from_secs(5),
        calls_max: None,
        age_max: None,
    }
}

struct Bench {
    pool: Pool,
    now: Tick,
    next_call: u64,
}

impl Bench {
    fn new() -> Self {
        let mut pool = Pool::new(HostPolicy { workers_max: 4, calls_waiting_max: 20, starts_max: 3 });
        pool.set_tenant(
            "acme".into(),
            TenantPolicy { workers_max: 4, sub_tenant_workers_max: 3, calls_in_flight_max: 15 },
        );
        for name in ["f", "g"] {
            pool.set_function("acme".into(), name.into(), 1, function());
        }
        Self { pool, now: Tick(0), next_call: 0 }
    }

    fn step(&mut self, event: Event) -> Vec<Action> {
        let mut out = Vec::new();
        self.pool.handle(self.now, event, &mut out);
        self.pool.check_invariants().unwrap();
        out
    }

    fn invoke(&mut self, sub_tenant: &str) -> Vec<Action> {
        self.next_call += 1;
        let (call, deadline) = (CallId(self.next_call), self.now + Duration::from_secs(30));
        self.step(Event::Invoke { call, key: key("f", sub_tenant), deadline })
    }

    /// Makes an idle worker.
    fn warm(&mut self, sub_tenant: &str) -> WorkerId {
        let out = self.invoke(sub_tenant);
        let [Action::Spawn { worker, .. }] = out[..] else { panic!("{out:?}") };
        let out = self.step(Event::Started { worker });
        let [Action::Deliver { lease, start: Start::Cold, .. }] = out[..] else { panic!("{out:?}") };
        let out = self.step(Event::Answered { worker, lease, clean: true });
        assert!(matches!(out[..], [Action::Settle { end: End::Answered { .. }, .. }]), "{out:?}");
        worker
    }

    fn wait(&mut self, time: Duration) -> Vec<Action> {
        self.now = self.now + time;
        self.step(Event::Timer)
    }
}

#[test]
fn idle_worker_is_leased_again() {
    let mut bench = Bench::new();
    let first = bench.warm("a");
    let out = bench.invoke("a");
    assert!(matches!(out[..], [Action::Deliver { worker, start: Start::Warm, .. }] if worker == first), "{out:?}");
}

#[test]
fn idle_worker_of_other_sub_tenant_is_never_leased() {
    let mut bench = Bench::new();
    bench.warm("a");
    let out = bench.invoke("b");
    assert!(matches!(&out[..], [Action::Spawn { key: k, .. }] if *k == key("f", "b")), "{out:?}");
}

#[test]
fn idle_worker_of_other_revision_is_never_leased() {
    let mut bench = Bench::new();
    bench.warm("a");
    bench.pool.set_function("acme".into(), "f".into(), 2, function());
    let newer = PoolKey { revision: 2, ..key("f", "a") };
    let out = bench.step(Event::Invoke { call: CallId(99), key: newer.clone(), deadline: Tick(1_000_000) });
    assert!(matches!(&out[..], [Action::Spawn { key, .. }] if *key == newer), "{out:?}");
}

#[test]
fn burst_makes_at_most_the_cap_of_spawns() {
    let mut bench = Bench::new();
    let spawns: usize = (0..5).map(|_| bench.invoke("a").len()).sum();
    assert_eq!(spawns, 2);
}

#[test]
fn call_one_past_the_queue_is_refused() {
    let mut bench = Bench::new();
    for _ in 0..5 {
        assert!(!bench.invoke("a").iter().any(|a| matches!(a, Action::Settle { .. })));
    }
    let out = bench.invoke("a");
    assert!(matches!(out[..], [Action::Settle { end: End::Refused(Refusal::QueueFull { limit: 3 }), .. }]), "{out:?}");
}

#[test]
fn least_recently_used_idle_worker_makes_room() {
    let mut bench = Bench::new();
    let oldest = bench.warm("a");
    for name in ["b", "c", "d"] {
        bench.now = bench.now + Duration::from_millis(1);
        bench.warm(name);
    }
    let out = bench.invoke("e");
    assert_eq!(out, [Action::Kill { worker: oldest, why: KillReason::MakeRoom }]);
    let out = bench.step(Event::Reaped { worker: oldest });
    assert!(matches!(&out[..], [Action::Spawn { key: k, .. }] if *k == key("f", "e")), "{out:?}");
}

#[test]
fn leased_worker_is_killed_at_its_deadline_and_a_late_answer_is_ignored() {
    let mut bench = Bench::new();
    let worker = bench.warm("a");
    let out = bench.invoke("a");
    let [Action::Deliver { lease, .. }] = out[..] else { panic!("{out:?}") };
    let out = bench.wait(Duration::from_secs(31));
    assert!(
        matches!(
            out[..],
            [
                Action::Settle { end: End::Deadline { at: Stage::Leased, .. }, .. },
                Action::Kill { why: KillReason::Deadline, .. }
            ]
        ),
        "{out:?}"
    );
    assert_eq!(bench.step(Event::Answered { worker, lease, clean: true }), []);
}

#[test]
fn idle_worker_is_frozen_then_ended() {
    let mut bench = Bench::new();
    let worker = bench.warm("a");
    assert_eq!(bench.wait(Duration::from_secs(1)), [Action::Freeze { worker }]);
    assert_eq!(bench.wait(Duration::from_secs(59)), [Action::Kill { worker, why: KillReason::IdleTtl }]);
}

#[test]
fn frozen_worker_is_thawed_for_a_call() {
    let mut bench = Bench::new();
    bench.warm("a");
    bench.wait(Duration::from_secs(1));
    let out = bench.invoke("a");
    assert!(matches!(out[..], [Action::Deliver { thaw: true, .. }]), "{out:?}");
}

#[test]
fn failed_start_fails_its_call_and_a_crashing_key_backs_off() {
    let mut bench = Bench::new();
    for round in 0..3 {
        let out = bench.invoke("a");
        let [Action::Spawn { worker, .. }] = out[..] else { panic!("{round}: {out:?}") };
        let out = bench.step(Event::StartFailed { worker });
        assert!(out.iter().any(|a| matches!(a, Action::Settle { end: End::StartFailed { .. }, .. })), "{out:?}");
        bench.step(Event::Reaped { worker });
    }
    let out = bench.invoke("a");
    assert!(matches!(out[..], [Action::Settle { end: End::Refused(Refusal::CrashBackoff { .. }), .. }]), "{out:?}");
    bench.now = bench.now + Duration::from_millis(101);
    assert!(matches!(bench.invoke("a")[..], [Action::Spawn { .. }]));
}

#[test]
fn death_of_a_leased_worker_settles_its_call_once() {
    let mut bench = Bench::new();
    let worker = bench.warm("a");
    bench.invoke("a");
    let out = bench.step(Event::Died { worker });
    assert!(matches!(out[..], [Action::Settle { end: End::WorkerDied { .. }, .. }, Action::Kill { .. }]), "{out:?}");
    assert_eq!(bench.step(Event::Died { worker }), []);
}

#[test]
fn cancelled_call_takes_its_worker_with_it() {
    let mut bench = Bench::new();
    let worker = bench.warm("a");
    bench.invoke("a");
    let out = bench.step(Event::Cancel { call: CallId(bench.next_call) });
    assert!(out.contains(&Action::Kill { worker, why: KillReason::Cancelled }), "{out:?}");
}

#[test]
fn drain_ends_when_nothing_is_left() {
    let mut bench = Bench::new();
    let worker = bench.warm("a");
    let deadline = bench.now + Duration::from_secs(1);
    let out = bench.step(Event::Drain { deadline });
    assert_eq!(out, [Action::Kill { worker, why: KillReason::Drain }]);
    assert!(matches!(bench.invoke("a")[..], [Action::Settle { end: End::Refused(Refusal::Draining), .. }]));
    assert_eq!(bench.step(Event::Reaped { worker }), [Action::Drained]);
}

#[test]
fn labels_are_checked_one_past_each_limit() {
    assert_eq!(SubTenant::try_from(""), Err(LabelError::Empty));
    assert!(SubTenant::try_from("x".repeat(256).as_str()).is_ok());
    assert_eq!(SubTenant::try_from("x".repeat(257).as_str()), Err(LabelError::TooLong { bytes: 257 }));
    assert_eq!(SubTenant::try_from("a\nb"), Err(LabelError::Control { at: 1 }));
}

/// Random events against books kept apart from the pool's own.
#[test]
fn random_histories_keep_every_promise() {
    for seed in 1..=200_u64 {
        let mut random = seed.wrapping_mul(0x9E37_79B9_7F4A_7C15);
        let mut next = |below: u64| {
            random ^= random << 13;
            random ^= random >> 7;
            random ^= random << 17;
            random % below
        };
        let mut bench = Bench::new();
        let mut owner: BTreeMap<WorkerId, PoolKey> = BTreeMap::new();
        let mut asked: BTreeMap<CallId, PoolKey> = BTreeMap::new();
        let mut ended: BTreeSet<CallId> = BTreeSet::new();
        let (mut starting, mut leased, mut dying) = (Vec::new(), Vec::new(), Vec::new());
        for round in 0..400 {
            let pick = |len: usize, n: u64| (n % len.max(1) as u64) as usize;
            let event = match next(10) {
                _ if round == 380 => Event::Drain { deadline: bench.now + Duration::from_secs(1) },
                0..=3 => {
                    bench.next_call += 1;
                    let call = CallId(bench.next_call);
                    let key = key(["f", "g"][next(2) as usize], ["a", "b", "c", "d", "e"][next(5) as usize]);
                    asked.insert(call, key.clone());
                    Event::Invoke { call, key, deadline: bench.now + Duration::from_secs(next(20)) }
                }
                4 if !starting.is_empty() => {
                    let worker = starting.swap_remove(pick(starting.len(), next(100)));
                    if next(5) == 0 { Event::StartFailed { worker } } else { Event::Started { worker } }
                }
                5 | 6 if !leased.is_empty() => {
                    let (worker, lease) = leased.swap_remove(pick(leased.len(), next(100)));
                    Event::Answered { worker, lease, clean: next(4) != 0 }
                }
                7 if !dying.is_empty() => Event::Reaped { worker: dying.swap_remove(pick(dying.len(), next(100))) },
                8 => match next(4) {
                    0 => Event::Died { worker: WorkerId(next(20)) },
                    1 => Event::Cancel { call: CallId(next(bench.next_call + 1)) },
                    2 => Event::Evict { which: Selector::All, force: next(2) == 0 },
                    _ => Event::Started { worker: WorkerId(next(20)) },
                },
                _ => {
                    bench.now = bench.now + Duration::from_millis(next(4000));
                    Event::Timer
                }
            };
            for action in bench.step(event) {
                track(action, &mut owner, &asked, &mut ended, &mut starting, &mut leased, &mut dying, seed);
            }
        }
        bench.now = bench.now + Duration::from_secs(10);
        let mut drained = false;
        let mut actions = bench.step(Event::Timer);
        loop {
            for action in std::mem::take(&mut actions) {
                drained |= action == Action::Drained;
                track(action, &mut owner, &asked, &mut ended, &mut starting, &mut leased, &mut dying, seed);
            }
            let Some(worker) = dying.pop() else { break };
            actions = bench.step(Event::Reaped { worker });
        }
        assert_eq!(ended.len(), asked.len(), "seed {seed}: every call ends exactly once");
        assert_eq!(bench.pool.counts(), Counts::default(), "seed {seed}: nothing is left, drained {drained}");
    }
}

#[allow(clippy::too_many_arguments)]
fn track(
    action: Action,
    owner: &mut BTreeMap<WorkerId, PoolKey>,
    asked: &BTreeMap<CallId, PoolKey>,
    ended: &mut BTreeSet<CallId>,
    starting: &mut Vec<WorkerId>,
    leased: &mut Vec<(WorkerId, LeaseId)>,
    dying: &mut Vec<WorkerId>,
    seed: u64,
) {
    match action {
        Action::Spawn { worker, key } => {
            assert!(owner.insert(worker, key).is_none(), "seed {seed}: an id is used once");
            starting.push(worker);
        }
        Action::Deliver { call, worker, lease, .. } => {
            assert_eq!(owner[&worker], asked[&call], "seed {seed}: a worker serves its own key only");
            leased.push((worker, lease));
        }
        Action::Settle { call, .. } => assert!(ended.insert(call), "seed {seed}: a call ends once"),
        Action::Kill { worker, .. } => dying.push(worker),
        Action::Freeze { .. } | Action::Drained => {}
    }
}

#[test]
fn sub_tenants_workers_are_capped_over_its_functions() {
    let mut bench = Bench::new();
    let mut invoke = |function: &str, call: u64| {
        let deadline = Tick(30_000_000_000);
        bench.step(Event::Invoke { call: CallId(call), key: key(function, "a"), deadline })
    };
    let spawns = |out: &[Action]| out.iter().filter(|action| matches!(action, Action::Spawn { .. })).count();
    let made = [("f", 1), ("f", 2), ("g", 3), ("g", 4)].map(|(function, call)| spawns(&invoke(function, call)));
    assert_eq!(made, [1, 1, 1, 0], "two of f fit its cap, one of g the sub-tenant's of three");
    let out = bench.step(Event::Invoke { call: CallId(9), key: key("g", "b"), deadline: Tick(30_000_000_000) });
    assert_eq!(spawns(&out), 0, "starts are capped at three");
    let out = bench.step(Event::Started { worker: WorkerId(1) });
    assert_eq!(spawns(&out), 1, "{out:?}");
    assert!(out.iter().any(|a| matches!(a, Action::Spawn { key: k, .. } if *k == key("g", "b"))), "{out:?}");
}
