//! How workers end, and what is left of them.

use sublet_proto::link::nursery::InitReport;
use tokio::time::sleep;

use super::*;
use crate::cgroups::tree::{Finding, Meddling};

#[tokio::test(start_paused = true)]
async fn worker_that_does_not_die_is_killed_again_and_stays_on_the_books_until_it_is_gone() {
    let bench = Bench::plain();
    answer(bench.call("").await);
    let group = bench.host.group(1);
    group.counters().refuses_kill = true;
    bench.driver.evict(&Selector::All, true);
    sleep(20 * SECOND).await;
    assert_eq!(bench.workers(), [("w-1".to_owned(), StateName::Reaping)]);
    let kills = group.counters().kills;
    let removals = group.counters().removals;
    assert!(kills > 1 && removals == 0, "{kills} kills and {removals} removals");
    group.end(Some(9));
    sleep(SECOND).await;
    assert_eq!(bench.workers(), []);
    bench.finish().await;
}

#[tokio::test(start_paused = true)]
async fn group_that_the_kernel_does_not_remove_is_tried_again_until_it_does() {
    let bench = Bench::plain();
    answer(bench.call("").await);
    bench.host.group(1).counters().refuses_removal = 7;
    bench.driver.evict(&Selector::All, true);
    sleep(5 * SECOND).await;
    assert_eq!(bench.workers(), [("w-1".to_owned(), StateName::Reaping)], "its ids are not given to others");
    sleep(5 * SECOND).await;
    assert_eq!(bench.host.group(1).counters().removals, 8);
    bench.finish().await;
}

#[tokio::test(start_paused = true)]
async fn call_whose_worker_somebody_on_the_host_kills_is_told_so() {
    let bench = Bench::plain();
    bench.host.next(|worker| async move {
        worker.start().await;
        worker.request().await;
        worker.group.end(Some(9));
    });
    let found = verdict(bench.call("").await);
    assert_eq!(found.kind(), VerdictKind::Evicted);
    assert!(found.message.contains("somebody on the host"), "{}", found.message);
    bench.finish().await;
}

#[tokio::test(start_paused = true)]
async fn call_whose_worker_its_memory_limit_ends_is_told_so() {
    let bench = Bench::plain();
    bench.host.next(|worker| async move {
        worker.start().await;
        worker.request().await;
        worker.lose_a_process();
        worker.group.end(Some(9));
    });
    let found = verdict(bench.call("").await);
    assert_eq!((found.kind(), found.level.as_str()), (VerdictKind::Memory, "worker"));
    let receipt = found.receipt.expect("it has one");
    assert_eq!((receipt.exit.as_str(), receipt.memory_peak_bytes), ("signal 9 (SIGKILL)", 1 << 20));
    bench.finish().await;
}

#[tokio::test(start_paused = true)]
async fn call_that_makes_a_refused_system_call_is_told_so_where_that_ends_its_worker() {
    for (setting, expected) in [("kill", VerdictKind::RefusedSyscall), ("errno", VerdictKind::FunctionError)] {
        let bench = Bench::new(&format!("on_refused_syscall = \"{setting}\""));
        bench.host.next(|worker| async move {
            worker.start().await;
            let request = worker.request().await;
            worker.report(InitReport::SyscallRefused { number: 250, name: "keyctl".into() });
            sleep(MS).await;
            worker.reply(&request, sublet_proto::link::frame::Kind::Error, 0, b"no keys");
        });
        let found = verdict(bench.call("").await);
        assert_eq!(found.kind(), expected);
        assert_eq!(found.refused_syscalls, ["keyctl"]);
        bench.finish().await;
    }
}

#[tokio::test(start_paused = true)]
async fn end_of_the_nursery_during_a_call_is_ours_and_not_its_functions() {
    let bench = Bench::plain();
    let host = bench.host.clone();
    bench.host.next(move |worker| async move {
        worker.start().await;
        worker.request().await;
        host.end_nursery();
    });
    let what = ours(bench.call("").await);
    assert!(what.starts_with("the nursery has ended, and every worker with it: "), "{what}");
    bench.finish().await;
}

#[tokio::test(start_paused = true)]
async fn what_a_function_said_is_its_own_even_when_the_nursery_ends_then() {
    let bench = Bench::plain();
    let host = bench.host.clone();
    bench.host.next(move |worker| async move {
        worker.start().await;
        let request = worker.request().await;
        worker.reply(&request, sublet_proto::link::frame::Kind::Error, 0, b"no");
        host.end_nursery();
    });
    assert_eq!(kind(bench.call("").await), VerdictKind::FunctionError);
    bench.finish().await;
}

#[tokio::test(start_paused = true)]
async fn operator_who_takes_a_worker_away_is_named_to_its_caller() {
    let bench = Bench::plain();
    bench.host.next(|worker| async move { worker.start().await });
    let call = bench.begin("");
    sleep(SECOND).await;
    assert_eq!(bench.driver.evict(&Selector::All, false), (0, 1), "it is busy");
    assert_eq!(bench.driver.evict(&Selector::All, true), (1, 0));
    let found = verdict(call.end().await);
    assert_eq!(found.kind(), VerdictKind::Evicted);
    assert!(found.message.contains("an operator"), "{}", found.message);
    bench.finish().await;
}

#[tokio::test(start_paused = true)]
async fn call_whose_workers_group_somebody_else_removed_is_failed_by_us() {
    let bench = Bench::plain();
    bench.host.next(|worker| async move { worker.start().await });
    let call = bench.begin("");
    sleep(100 * MS).await;
    let path = crate::worker::host::Group::name(&bench.host.group(1)).clone();
    let what = Meddling::Removed { dir: "/sys/there".into() };
    bench.host.tree().find(Finding { path, what, left: Some("its worker is ended".into()) });
    let what = ours(call.end().await);
    assert!(what.contains("somebody else has removed /sys/there"), "{what}");
    bench.finish().await;
}

#[tokio::test(start_paused = true)]
async fn worker_that_somebody_else_froze_or_thawed_is_put_right() {
    let bench = Bench::new("freeze_after = \"2s\"");
    answer(bench.call("").await);
    let group = bench.host.group(1);
    for frozen in [true, false] {
        group.meddle(frozen);
        sleep(1500 * MS).await;
        assert_eq!(group.is_frozen(), !frozen, "it is looked at each second, and is frozen after two");
        sleep(2 * SECOND).await;
    }
    bench.finish().await;
}

#[tokio::test(start_paused = true)]
async fn drain_lets_calls_end_and_refuses_new_ones() {
    let bench = Bench::plain();
    bench.host.next(|worker| async move {
        worker.start().await;
        let request = worker.request().await;
        worker.answer_after(2 * SECOND, &request, b"in time").await;
    });
    let call = bench.begin("");
    sleep(SECOND).await;
    let driver = bench.driver.clone();
    let drained = tokio::spawn(async move { driver.drain(5 * SECOND).await });
    sleep(100 * MS).await;
    assert_eq!(rejected(bench.call("").await), "DRAINING");
    assert_eq!(answered(call.end().await).0, "in time");
    assert_eq!(drained.await.expect("it ends"), DrainEnd::Drained);
    assert_eq!(bench.driver.undrain(), Ok(true));
    assert_eq!(answered(bench.call("back").await).0, "back");
    bench.finish().await;
}

#[tokio::test(start_paused = true)]
async fn calls_past_the_queues_limit_are_refused_and_the_limit_is_named() {
    let bench = Bench::new("workers_max = 1\nqueue_max = 1");
    bench.host.next(|worker| async move { worker.start().await });
    let first = bench.begin("");
    sleep(100 * MS).await;
    let second = bench.begin("");
    sleep(100 * MS).await;
    match bench.call("").await {
        Err(Failure::Rejected(rejection)) => {
            assert_eq!(reason::of_rejection(&rejection), "QUEUE_FULL");
            match rejection {
                rejection::Rejection::Refused(_, Some(reached)) => assert_eq!(reached.limit, "1"),
                other => panic!("{other:?}"),
            }
        }
        other => panic!("{other:?}"),
    }
    first.cancel().await.expect_err("it is cancelled");
    assert_eq!(answered(second.end().await).1, "w-2");
    bench.finish().await;
}

#[tokio::test(start_paused = true)]
async fn call_that_waits_for_a_worker_past_its_limit_is_told_where_it_was() {
    let bench = Bench::new("workers_max = 1");
    bench.host.next(|worker| async move { worker.start().await });
    let _first = bench.begin("");
    sleep(100 * MS).await;
    let short = Invocation { timeout: Some(SECOND), ..invocation("") };
    let found = verdict(bench.begin_with(short.clone(), None).end().await);
    assert!(found.message.ends_with("it was waiting for a worker"), "{}", found.message);

    let bench = Bench::plain();
    bench.host.next(|worker| async move {
        sleep(3 * SECOND).await;
        worker.start().await
    });
    let found = verdict(bench.begin_with(short, None).end().await);
    assert!(found.message.ends_with("its worker was being made"), "{}", found.message);
}
