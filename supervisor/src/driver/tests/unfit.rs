//! Workers that turn out to be unfit when a call comes: the call goes to another, three times at the most, and no function has
//! seen it before.

use sublet_proto::link::frame::Kind;
use tokio::time::sleep;

use super::*;
use crate::worker::host::fake::FakeWorker;

/// Answers once, and is out of order from then on.
async fn once(worker: FakeWorker, then: fn(&FakeWorker)) {
    worker.start().await;
    let request = worker.request().await;
    worker.answer(&request, b"once");
    sleep(SECOND).await;
    then(&worker);
}

#[tokio::test(start_paused = true)]
async fn worker_that_said_what_nobody_asked_for_does_not_get_the_call_and_another_does() {
    let bench = Bench::plain();
    bench.host.next(|worker| once(worker, |worker| worker.say(Kind::Response, b"unasked")));
    assert_eq!(answered(bench.call("first").await).1, "w-1");
    sleep(2 * SECOND).await;
    assert_eq!(answered(bench.call("second").await), ("second".into(), "w-2".into()), "with its payload");
    bench.finish().await;
}

#[tokio::test(start_paused = true)]
async fn function_whose_every_worker_says_what_nobody_asked_for_breaks_the_protocol() {
    let bench = Bench::plain();
    for _ in 0..3 {
        bench.host.next(|worker| async move {
            worker.start().await;
            worker.say(Kind::Response, b"unasked");
        });
    }
    let found = verdict(bench.call("").await);
    assert_eq!(found.kind(), VerdictKind::BadFrame);
    assert_eq!(bench.host.sandboxes.load(Ordering::Relaxed), 3, "nobody is made for a call that is given up");
    bench.finish().await;
}

#[tokio::test(start_paused = true)]
async fn worker_that_lost_a_process_between_two_calls_gets_no_other() {
    let bench = Bench::plain();
    bench.host.next(|worker| once(worker, FakeWorker::lose_a_process));
    assert_eq!(answered(bench.call("first").await).1, "w-1");
    sleep(2 * SECOND).await;
    assert_eq!(answered(bench.call("second").await).1, "w-2");
    bench.finish().await;
}

#[tokio::test(start_paused = true)]
async fn worker_that_lost_a_process_in_its_start_is_taken_as_it_is() {
    let bench = Bench::plain();
    bench.host.next(|worker| async move {
        worker.lose_a_process();
        worker.start().await;
        worker.serve().await;
    });
    let first = answer(bench.call("first").await);
    assert_eq!((first.receipt.worker.as_str(), first.receipt.remarks.len()), ("w-1", 0));
    assert_eq!(answered(bench.call("second").await).1, "w-1");
    bench.finish().await;
}

#[tokio::test(start_paused = true)]
async fn frozen_worker_is_thawed_by_its_next_call_and_the_receipt_says_how_long_it_was_frozen() {
    let bench = Bench::new("freeze_after = \"1s\"");
    answer(bench.call("").await);
    sleep(5 * SECOND).await;
    let group = bench.host.group(1);
    assert!(group.is_frozen());
    let second = answer(bench.call("").await);
    assert_eq!(second.receipt.worker, "w-1");
    let frozen = second.receipt.frozen.map(Duration::try_from);
    assert!(matches!(frozen, Some(Ok(frozen)) if frozen > 3 * SECOND), "{frozen:?}");
    assert!(!group.is_frozen());
    bench.finish().await;
}

#[tokio::test(start_paused = true)]
async fn worker_that_cannot_be_thawed_does_not_get_the_call_and_that_is_no_fault_of_its_function() {
    let bench = Bench::new("freeze_after = \"1s\"");
    answer(bench.call("").await);
    sleep(5 * SECOND).await;
    bench.host.group(1).counters().refuses_freezer = true;
    assert_eq!(answered(bench.call("").await).1, "w-2");
    bench.finish().await;
}

#[tokio::test(start_paused = true)]
async fn call_that_meets_three_workers_that_cannot_be_thawed_is_failed_by_us() {
    let bench = Bench::new("freeze_after = \"1s\"");
    let calls: Vec<Running> = (0..3).map(|_| bench.begin("")).collect();
    for call in calls {
        answer(call.end().await);
    }
    sleep(5 * SECOND).await;
    assert_eq!(bench.workers().len(), 3);
    for worker in 1..=3 {
        bench.host.group(worker).counters().refuses_freezer = true;
    }
    assert_eq!(ours(bench.call("").await), "3 workers in a row were unfit when the call came");
    bench.finish().await;
}

#[tokio::test(start_paused = true)]
async fn worker_whose_channel_closes_before_the_call_is_sent_does_not_get_it() {
    let bench = Bench::plain();
    bench.host.next(|worker| once(worker, FakeWorker::close_channel));
    assert_eq!(answered(bench.call("first").await).1, "w-1");
    sleep(2 * SECOND).await;
    assert_eq!(answered(bench.call("second").await), ("second".into(), "w-2".into()));
    bench.finish().await;
}
