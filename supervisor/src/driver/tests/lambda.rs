//! What a `lambda` runtime does after its answer: its caller has the answer, and the worker is free when it asks for more.

use sublet_proto::link::frame::{BAD_PAYLOAD, Kind};
use tokio::time::{Instant, sleep};

use super::*;

const LAMBDA: &str = "runtime = \"lambda\"";

#[tokio::test(start_paused = true)]
async fn worker_is_free_once_its_runtime_asks_for_the_next_call() {
    let bench = Bench::new(LAMBDA);
    bench.host.next(|worker| async move {
        worker.start().await;
        loop {
            let request = worker.request().await;
            worker.answer(&request, b"yes");
            worker.reply(&request, Kind::Idle, 0, b"");
        }
    });
    for _ in 0..3 {
        assert_eq!(answered(bench.call("").await), ("yes".into(), "w-1".into()));
    }
    bench.finish().await;
}

#[tokio::test(start_paused = true)]
async fn payload_that_the_runtime_does_not_take_is_the_callers_and_its_worker_goes_on() {
    let bench = Bench::new(LAMBDA);
    bench.host.next(|worker| async move {
        worker.start().await;
        let request = worker.request().await;
        worker.reply(&request, Kind::Error, BAD_PAYLOAD, b"at byte 1");
        worker.reply(&request, Kind::Idle, 0, b"");
        let request = worker.request().await;
        worker.answer(&request, b"fine");
        worker.reply(&request, Kind::Idle, 0, b"");
    });
    let found = verdict(bench.call("{").await);
    assert_eq!((found.kind(), found.seen.as_str()), (VerdictKind::BadPayload, "at byte 1"));
    assert_eq!(answered(bench.call("{}").await), ("fine".into(), "w-1".into()));
    bench.finish().await;
}

#[tokio::test(start_paused = true)]
async fn caller_has_the_answer_before_the_runtime_is_done_and_the_next_call_waits_for_it_a_little() {
    let bench = Bench::new(LAMBDA);
    bench.host.next(|worker| async move {
        // Others wait for it as long as it took to be made, and 100 ms at the most.
        sleep(SECOND).await;
        worker.start().await;
        loop {
            let request = worker.request().await;
            worker.answer(&request, b"yes");
            sleep(90 * MS).await;
            worker.reply(&request, Kind::Idle, 0, b"");
        }
    });
    assert_eq!(answered(bench.call("").await).1, "w-1");
    let before = Instant::now();
    assert_eq!(answered(bench.call("").await).1, "w-1", "it waited");
    assert_eq!(before.elapsed().as_millis(), 90, "by the paused clock");
    bench.finish().await;
}

#[tokio::test(start_paused = true)]
async fn next_call_gets_another_worker_when_the_runtime_takes_long() {
    let bench = Bench::new(LAMBDA);
    bench.host.next(|worker| async move {
        sleep(SECOND).await;
        worker.start().await;
        let request = worker.request().await;
        worker.answer(&request, b"yes");
        sleep(SECOND).await;
        worker.reply(&request, Kind::Idle, 0, b"");
        let request = worker.request().await;
        worker.answer(&request, b"free again");
        worker.reply(&request, Kind::Idle, 0, b"");
    });
    bench.host.next(|worker| async move {
        worker.start().await;
        let request = worker.request().await;
        worker.answer(&request, b"another");
        worker.reply(&request, Kind::Idle, 0, b"");
    });
    assert_eq!(answered(bench.call("").await), ("yes".into(), "w-1".into()));
    assert_eq!(answered(bench.call("").await), ("another".into(), "w-2".into()));
    sleep(SECOND).await;
    assert_eq!(bench.workers().len(), 2, "the first has become free in its time");
    bench.finish().await;
}

#[tokio::test(start_paused = true)]
async fn runtime_that_is_not_done_by_the_deadline_of_its_call_is_ended_and_its_answer_stands() {
    let bench = Bench::new(LAMBDA);
    bench.host.next(|worker| async move {
        worker.start().await;
        let request = worker.request().await;
        worker.answer(&request, b"yes");
    });
    assert_eq!(answered(bench.call("").await), ("yes".into(), "w-1".into()));
    sleep(TIMEOUT + SECOND).await;
    assert_eq!(bench.workers(), [], "it has been ended");
    bench.finish().await;
}

#[tokio::test(start_paused = true)]
async fn runtime_that_says_something_else_than_idle_or_ends_has_answered_and_takes_no_more_calls() {
    for dies in [false, true] {
        let bench = Bench::new(LAMBDA);
        bench.host.next(move |worker| async move {
            worker.start().await;
            let request = worker.request().await;
            worker.answer(&request, b"yes");
            if dies {
                worker.exit(Some(1), None);
            } else {
                worker.answer(&request, b"twice");
            }
        });
        assert_eq!(answered(bench.call("").await), ("yes".into(), "w-1".into()));
        sleep(SECOND).await;
        assert_eq!(bench.workers(), [], "dies: {dies}");
        bench.finish().await;
    }
}

#[tokio::test(start_paused = true)]
async fn caller_that_goes_away_after_its_answer_changes_nothing_of_it() {
    let bench = Bench::new(LAMBDA);
    bench.host.next(|worker| async move {
        worker.start().await;
        let request = worker.request().await;
        worker.answer(&request, b"yes");
    });
    let mut call = bench.begin("");
    sleep(SECOND).await;
    let held = call.has_ended().expect("it has been answered");
    assert_eq!(answered(held).0, "yes");
    drop(call.cancel);
    sleep(SECOND).await;
    assert_eq!(bench.workers(), [], "a call that is given up is not left running");
    bench.finish().await;
}
