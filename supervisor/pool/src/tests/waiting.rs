//! Calls that wait, and how they end; starts and deaths.

use super::*;

#[test]
fn burst_of_first_calls_makes_at_most_the_cap_of_spawns() {
    let mut bench = Bench::new();
    let made: usize = (0..5).map(|_| spawns(&bench.invoke("a").out).len()).sum();
    assert_eq!(made, 2);
}

#[test]
fn burst_smaller_than_the_cap_makes_one_spawn_for_each_call() {
    let mut bench = Bench::with(host(), tenant(), FunctionPolicy { workers_per_sub_tenant_max: 4, ..function() });
    let made: usize = (0..2).map(|_| spawns(&bench.invoke("a").out).len()).sum();
    assert_eq!(made, 2);
}

#[test]
fn waiting_call_takes_a_worker_freed_meanwhile() {
    let mut bench = Bench::new();
    let (worker, lease, _) = bench.leased("a");
    let waiting = bench.invoke("a");
    let late = spawned(&waiting.out);
    let (call, at, ..) = delivered(&bench.answer(worker, lease));
    assert_eq!((call, at), (waiting.call, worker));
    assert_eq!(deliveries(&bench.start(late)), [], "the one made for it has nothing to do");
}

#[test]
fn calls_of_one_sub_tenant_are_served_in_the_order_they_came() {
    let mut bench = Bench::with(host(), tenant(), FunctionPolicy { workers_per_sub_tenant_max: 1, ..function() });
    let (worker, mut lease, _) = bench.leased("a");
    let calls = [bench.invoke("a").call, bench.invoke("a").call, bench.invoke("a").call];
    for expected in calls {
        let (call, _, next, _) = delivered(&bench.answer(worker, lease));
        assert_eq!(call, expected);
        lease = next;
    }
}

#[test]
fn call_one_past_the_queue_is_refused_with_a_delay() {
    let mut bench = Bench::new();
    for _ in 0..5 {
        assert_eq!(refusal(&bench.invoke("a")), None);
    }
    let asked = bench.invoke("a");
    assert!(matches!(refusal(&asked), Some(Refusal::QueueFull { limit: 3, .. })), "{:?}", asked.out);
    assert!(refusal(&asked).unwrap().retry_after().unwrap() >= Duration::from_millis(10));
}

#[test]
fn refused_call_leaves_nothing_behind() {
    let mut bench = Bench::new();
    bench.step(Event::SetFunction {
        function: bench.f,
        policy: FunctionPolicy { calls_in_flight_max: 0, ..function() },
    });
    assert!(refusal(&bench.invoke("a")).is_some());
    assert_eq!(bench.pool.counts(), Counts::default());
}

#[test]
fn deadline_while_queued_while_starting_and_while_leased_is_one_verdict_each() {
    let mut bench = Bench::with(host(), tenant(), FunctionPolicy { workers_per_sub_tenant_max: 1, ..function() });
    let (leased, lease, call) = bench.leased("a");
    let queued = bench.invoke_for(bench.f, "a", 2 * SECOND).call;
    let starting = bench.invoke_for(bench.f, "b", 2 * SECOND);
    let worker = spawned(&starting.out);
    let out = bench.wait(2 * SECOND);
    let expected = [
        (queued, End::Deadline { at: Stage::Queued, worker: None }),
        (starting.call, End::Deadline { at: Stage::Starting, worker: None }),
    ];
    assert_eq!(ends(&out), expected);
    let out = bench.wait(28 * SECOND);
    assert!(ends(&out).contains(&(call, End::Deadline { at: Stage::Leased, worker: Some(leased) })), "{out:?}");
    assert!(kills(&out).contains(&(leased, KillReason::Deadline)));
    assert_eq!(bench.answer(leased, lease), [], "a late answer is ignored");
    bench.step(Event::Reaped { worker: leased });
    bench.step(Event::Reaped { worker });
    let left = Counts { sub_tenants: 0, ..bench.pool.counts() };
    assert_eq!(left, Counts::default(), "no slot is leaked");
}

#[test]
fn cancel_while_queued_while_starting_and_while_leased_is_one_verdict_each() {
    let mut bench = Bench::with(host(), tenant(), FunctionPolicy { workers_per_sub_tenant_max: 1, ..function() });
    let (leased, _, call) = bench.leased("a");
    let queued = bench.invoke("a").call;
    let starting = bench.invoke("b").call;
    for (call, at) in [(queued, Stage::Queued), (starting, Stage::Starting)] {
        assert_eq!(ends(&bench.step(Event::Cancel { call })), [(call, End::Cancelled { at, worker: None })]);
    }
    let out = bench.step(Event::Cancel { call });
    assert_eq!(ends(&out), [(call, End::Cancelled { at: Stage::Leased, worker: Some(leased) })]);
    assert_eq!(kills(&out), [(leased, KillReason::Cancelled)], "a late answer must never meet a new call");
    assert_eq!(bench.step(Event::Cancel { call }), []);
}

#[test]
fn past_deadline_is_refused() {
    let mut bench = Bench::new();
    assert_eq!(refusal(&bench.invoke_for(bench.f, "a", Duration::ZERO)), Some(Refusal::DeadlinePast));
}

#[test]
fn failed_start_fails_its_call_with_its_worker_as_the_cause() {
    let mut bench = Bench::new();
    let asked = bench.invoke("a");
    let worker = spawned(&asked.out);
    let out = bench.step(Event::StartFailed { worker, blame: Blame::Theirs });
    assert_eq!(ends(&out), [(asked.call, End::StartFailed { worker })]);
    assert_eq!(kills(&out), [(worker, KillReason::StartFailed)]);
}

#[test]
fn start_that_takes_too_long_has_failed() {
    let mut bench = Bench::new();
    let asked = bench.invoke("a");
    let worker = spawned(&asked.out);
    let out = bench.wait(5 * SECOND);
    assert_eq!(ends(&out), [(asked.call, End::StartFailed { worker })]);
    assert_eq!(kills(&out), [(worker, KillReason::StartTimeout)]);
    assert_eq!(bench.step(Event::Started { worker }), [], "it is ready too late");
}

#[test]
fn crashing_key_backs_off_answers_all_that_wait_and_opens_again_with_one_trial() {
    let mut bench = Bench::new();
    for _ in 0..2 {
        let worker = spawned(&bench.invoke("a").out);
        bench.step(Event::StartFailed { worker, blame: Blame::Theirs });
        bench.step(Event::Reaped { worker });
    }
    let first = bench.invoke("a");
    let others = [bench.invoke("a"), bench.invoke("a")];
    let worker = spawned(&first.out);
    let out = bench.step(Event::StartFailed { worker, blame: Blame::Theirs });
    // The one it was made for is told what became of it; the others have met nothing of it.
    let backoff = End::Refused(Refusal::CrashBackoff { retry_after: BACKOFF_FIRST });
    let expected = [End::StartFailed { worker }, backoff, backoff];
    assert_eq!(
        ends(&out),
        [&first, &others[0], &others[1]].map(|asked| asked.call).into_iter().zip(expected).collect::<Vec<_>>()
    );
    assert!(
        matches!(refusal(&bench.invoke("a")), Some(Refusal::CrashBackoff { retry_after }) if retry_after == BACKOFF_FIRST)
    );
    assert!(refusal(&bench.invoke("b")).is_none(), "others do not back off");
    for worker in others.iter().flat_map(|asked| spawns(&asked.out)).chain([worker]) {
        bench.step(Event::StartFailed { worker, blame: Blame::Theirs });
        bench.step(Event::Reaped { worker });
    }
    bench.wait(10 * SECOND);
    let trials: usize = (0..3).map(|_| spawns(&bench.invoke("a").out).len()).sum();
    assert_eq!(trials, 1, "one trial, whoever waits");
}

#[test]
fn call_that_was_to_be_given_to_another_worker_is_told_of_its_own_when_its_key_backs_off() {
    let mut bench = Bench::new();
    bench.step(Event::SetFunction { function: bench.f, policy: FunctionPolicy { is_idempotent: true, ..function() } });
    for _ in 0..2 {
        let worker = spawned(&bench.invoke("a").out);
        bench.step(Event::StartFailed { worker, blame: Blame::Theirs });
        bench.step(Event::Reaped { worker });
    }
    bench.wait(SECOND);
    let (worker, _, call) = bench.leased("a");
    let waiting = bench.invoke("a").call;
    let out = bench.step(Event::Died { worker });
    let backoff = End::Refused(Refusal::CrashBackoff { retry_after: BACKOFF_FIRST });
    assert_eq!(ends(&out), [(call, End::WorkerDied { worker }), (waiting, backoff)]);
}

#[test]
fn faults_of_the_host_open_no_back_off_and_fail_one_call_each() {
    let mut bench = Bench::new();
    for _ in 0..20 {
        let asked = [bench.invoke("a"), bench.invoke("a")];
        let worker = spawned(&asked[0].out);
        let out = bench.step(Event::StartFailed { worker, blame: Blame::Ours });
        assert_eq!(ends(&out), [(asked[0].call, End::StartFailed { worker })]);
        let second = asked[1].out.iter().chain(&out).find_map(|action| match action {
            Action::Spawn { worker: other, .. } if *other != worker => Some(*other),
            _ => None,
        });
        let second = second.unwrap();
        assert_eq!(ends(&bench.step(Event::StartFailed { worker: second, blame: Blame::Ours })).len(), 1);
        bench.step(Event::Reaped { worker });
        bench.step(Event::Reaped { worker: second });
    }
    let asked = bench.invoke("a");
    assert_eq!(refusal(&asked), None);
    assert_eq!(delivered(&bench.start(spawned(&asked.out))).0, asked.call);
}

#[test]
fn start_that_takes_too_long_is_the_hosts_fault_until_its_sandbox_is_made() {
    for (is_made, backs_off) in [(false, false), (true, true)] {
        let mut bench = Bench::new();
        for _ in 0..3 {
            let worker = spawned(&bench.invoke("a").out);
            if is_made {
                bench.step(Event::Made { worker });
            }
            assert_eq!(kills(&bench.wait(5 * SECOND)), [(worker, KillReason::StartTimeout)]);
            bench.step(Event::Reaped { worker });
        }
        assert_eq!(refusal(&bench.invoke("a")).is_some(), backs_off, "{is_made}");
    }
}

#[test]
fn workers_that_are_kept_are_not_tried_over_and_over_while_the_host_fails() {
    let mut bench = Bench::new();
    let key = PoolKey { function: bench.f, sub_tenant: label("a") };
    let mut made = spawns(&bench.step(Event::SetMinimum { key, workers: 2 }));
    let mut tried = made.len();
    while let Some(worker) = made.pop() {
        made.extend(spawns(&bench.step(Event::StartFailed { worker, blame: Blame::Ours })));
        made.extend(spawns(&bench.step(Event::Reaped { worker })));
        tried = tried.max(made.len()) + 1;
        assert!(tried < 20, "a storm");
    }
    // Calls are served meanwhile.
    let asked = bench.invoke("a");
    let worker = spawned(&asked.out);
    assert_eq!(delivered(&bench.start(worker)).0, asked.call);
    // And what is missing is made once the host can again.
    assert_eq!(spawns(&bench.wait(SECOND)).len() + usize::from(bench.pool.counts().workers == 2), 1);
}

#[test]
fn clean_answer_closes_the_breaker() {
    let mut bench = Bench::new();
    for _ in 0..3 {
        let worker = spawned(&bench.invoke("a").out);
        bench.step(Event::StartFailed { worker, blame: Blame::Theirs });
        bench.step(Event::Reaped { worker });
    }
    bench.wait(SECOND);
    bench.warm("a");
    assert_eq!(refusal(&bench.invoke("a")), None);
    assert_eq!(spawns(&bench.invoke("a").out).len(), 1);
}

#[test]
fn death_of_a_leased_worker_is_a_verdict_and_never_a_silent_retry() {
    let mut bench = Bench::new();
    let (worker, lease, call) = bench.leased("a");
    let out = bench.step(Event::Died { worker });
    assert_eq!(ends(&out), [(call, End::WorkerDied { worker })]);
    assert_eq!(bench.step(Event::Died { worker }), []);
    assert_eq!(bench.answer(worker, lease), []);
}

#[test]
fn call_of_an_idempotent_function_is_given_to_another_worker_once() {
    let mut bench = Bench::new();
    bench.step(Event::SetFunction { function: bench.f, policy: FunctionPolicy { is_idempotent: true, ..function() } });
    let (worker, _, call) = bench.leased("a");
    let out = bench.step(Event::Died { worker });
    assert_eq!(ends(&out), []);
    let second = spawned(&out);
    let (again, ..) = delivered(&bench.start(second));
    assert_eq!(again, call);
    assert_eq!(ends(&bench.step(Event::Died { worker: second })), [(call, End::WorkerDied { worker: second })]);
}

#[test]
fn call_that_no_function_has_seen_goes_to_the_head_of_its_queue() {
    let mut bench = Bench::with(host(), tenant(), FunctionPolicy { workers_per_sub_tenant_max: 1, ..function() });
    let (worker, lease, call) = bench.leased("a");
    bench.invoke("a");
    let out = bench.step(Event::Undelivered { worker, lease });
    assert_eq!((ends(&out), kills(&out)), (vec![], vec![(worker, KillReason::Died)]));
    let out = bench.step(Event::Reaped { worker });
    let next = spawned(&out);
    assert_eq!(delivered(&bench.start(next)).0, call);
}

#[test]
fn late_events_of_a_worker_that_was_replaced_are_ignored() {
    let mut bench = Bench::new();
    let asked = bench.invoke("a");
    let worker = spawned(&asked.out);
    bench.step(Event::Cancel { call: asked.call });
    bench.step(Event::StartFailed { worker, blame: Blame::Theirs });
    bench.step(Event::Reaped { worker });
    for event in [
        Event::Made { worker },
        Event::Started { worker },
        Event::StartFailed { worker, blame: Blame::Theirs },
        Event::Died { worker },
        Event::Reaped { worker },
        Event::Answered { worker, lease: LeaseId(1), clean: true },
        Event::Undelivered { worker, lease: LeaseId(1) },
    ] {
        assert_eq!(bench.step(event), []);
    }
    assert_eq!(bench.pool.counts().workers, 0);
}

#[test]
fn unclean_answer_is_answered_and_its_worker_is_ended() {
    let mut bench = Bench::new();
    let (worker, lease, call) = bench.leased("a");
    let out = bench.step(Event::Answered { worker, lease, clean: false });
    assert_eq!(ends(&out), [(call, End::Answered { worker, lease })]);
    assert_eq!(kills(&out), [(worker, KillReason::Tainted)]);
}

#[test]
fn clock_that_goes_back_changes_nothing() {
    let mut bench = Bench::new();
    bench.now = Tick(1_000_000_000_000);
    let worker = bench.warm("a");
    bench.now = Tick(0);
    assert_eq!(bench.step(Event::Timer), []);
    assert_eq!(delivered(&bench.invoke_for(bench.f, "a", Duration::from_secs(2000)).out).1, worker);
}

#[test]
fn drain_serves_what_waits_and_refuses_the_rest() {
    let mut bench = Bench::with(host(), tenant(), FunctionPolicy { workers_per_sub_tenant_max: 1, ..function() });
    let idle = bench.warm("i");
    let (worker, lease, _) = bench.leased("a");
    let waiting = bench.invoke("a").call;
    let out = bench.step(Event::Drain { deadline: bench.now + 10 * SECOND });
    assert_eq!(kills(&out), [(idle, KillReason::Drain)]);
    assert_eq!(refusal(&bench.invoke("a")), Some(Refusal::Draining));
    let (call, _, lease, _) = delivered(&bench.answer(worker, lease));
    assert_eq!(call, waiting);
    assert_eq!(kills(&bench.answer(worker, lease)), [(worker, KillReason::Drain)]);
    bench.step(Event::Reaped { worker: idle });
    assert_eq!(bench.step(Event::Reaped { worker }), [Action::Drained]);
    assert_eq!(bench.wait(20 * SECOND), []);
}

#[test]
fn drain_cuts_what_is_left_at_its_deadline() {
    let mut bench = Bench::with(host(), tenant(), FunctionPolicy { workers_per_sub_tenant_max: 1, ..function() });
    let (worker, _, call) = bench.leased("a");
    let waiting = bench.invoke("a").call;
    bench.step(Event::Drain { deadline: bench.now + 10 * SECOND });
    let out = bench.wait(10 * SECOND);
    assert_eq!(ends(&out), [(call, End::Evicted { worker }), (waiting, End::Refused(Refusal::Draining))]);
    assert_eq!(bench.step(Event::Reaped { worker }), [Action::Drained]);
}

#[test]
fn undrain_takes_calls_again_and_makes_again_what_is_kept() {
    let mut bench = Bench::with(host(), tenant(), FunctionPolicy { cells_max: 2, ..function() });
    let kept = PoolKey { function: bench.f, sub_tenant: label("kept") };
    let out = bench.step(Event::SetMinimum { key: kept.clone(), workers: 1 });
    let idle = spawned(&out);
    bench.start(idle);
    let (worker, lease, _) = bench.leased("a");
    // A cell is being made for whoever comes next.
    let ended = kills(&bench.step(Event::Drain { deadline: bench.now + 10 * SECOND }));
    assert!(bench.pool.is_draining());
    assert_eq!(ended.len(), 2, "the kept one and the cell: {ended:?}");
    for (worker, _) in ended {
        bench.step(Event::Reaped { worker });
    }
    // In the middle: the call that is under way ends as ever, and its worker stays.
    let out = bench.step(Event::Undrain);
    assert!(!bench.pool.is_draining());
    assert_eq!(spawns(&out).len(), 1, "the kept one is made anew: {out:?}");
    assert!(out.iter().any(|action| matches!(action, Action::MakeCell { .. })), "{out:?}");
    assert_eq!(kills(&bench.answer(worker, lease)), []);
    let again = bench.invoke("a");
    assert_eq!(delivered(&again.out).1, worker);
    // The drain's deadline is none any more: what it was to cut goes on.
    let out = bench.wait(11 * SECOND);
    assert_eq!(ends(&out), []);
    assert!(kills(&out).iter().all(|(ended, _)| *ended != worker), "{out:?}");
}

#[test]
fn drain_after_an_undrain_comes_to_its_end_again() {
    let mut bench = Bench::new();
    for _ in 0..2 {
        let worker = bench.warm("a");
        bench.step(Event::Drain { deadline: bench.now + 10 * SECOND });
        assert_eq!(refusal(&bench.invoke("a")), Some(Refusal::Draining));
        assert_eq!(bench.step(Event::Reaped { worker }), [Action::Drained]);
        assert_eq!(bench.step(Event::Undrain), []);
        // Twice is as good as once.
        assert_eq!(bench.step(Event::Undrain), []);
    }
}

#[test]
fn outlook_counts_who_serves_and_who_backs_off_until_that_is_forgotten() {
    let mut bench = Bench::new();
    let outlook = |bench: &Bench| bench.pool.outlooks(bench.now).remove(&bench.f).unwrap_or_default();
    for label in ["a", "b"] {
        for _ in 0..FAILURES_BEFORE_BACKOFF {
            let (worker, ..) = bench.leased(label);
            assert_eq!(outlook(&bench).serving, 1);
            bench.step(Event::Died { worker });
            bench.step(Event::Reaped { worker });
        }
    }
    assert_eq!(outlook(&bench), Outlook { serving: 0, backing_off: 2, shared_backs_off: false });
    bench.warm("c");
    assert_eq!(outlook(&bench), Outlook { serving: 1, backing_off: 2, shared_backs_off: false });
    // A trial is no proof, its clean answer is one.
    bench.wait(BACKOFF_FIRST);
    let (worker, lease, _) = bench.leased("a");
    assert_eq!(outlook(&bench).serving, 1);
    bench.answer(worker, lease);
    assert_eq!(outlook(&bench), Outlook { serving: 2, backing_off: 1, shared_backs_off: false });
    bench.wait(BACKOFF_FIRST + BACKOFF_MAX);
    assert_eq!(outlook(&bench).backing_off, 0);
}
