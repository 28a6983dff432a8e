//! Callers that go away, at each stage of a call.

use tokio::time::sleep;

use super::*;

#[track_caller]
fn is_cancelled(held: &Held) {
    assert!(matches!(held, Err(Failure::Cancelled)), "{held:?}");
}

#[tokio::test(start_paused = true)]
async fn call_that_is_cancelled_before_its_task_has_begun_makes_no_worker() {
    let bench = Bench::plain();
    is_cancelled(&bench.begin("").cancel().await);
    bench.settle().await;
    sleep(SECOND).await;
    bench.finish().await;
}

#[tokio::test(start_paused = true)]
async fn function_does_not_act_on_a_call_that_was_given_up_before_it_was_sent() {
    let bench = Bench::plain();
    let mut requests = bench.overhear();
    answer(bench.call("first").await);
    is_cancelled(&bench.begin("given up").cancel().await);
    sleep(SECOND).await;
    assert_eq!(requests.try_recv().map(|request| request.payload).as_deref(), Ok(b"first".as_slice()));
    assert!(requests.try_recv().is_err(), "the second has not been sent");
    bench.finish().await;
}

#[tokio::test(start_paused = true)]
async fn call_that_is_cancelled_while_it_waits_leaves_the_worker_to_others() {
    let bench = Bench::new("workers_max = 1");
    bench.host.next(|worker| async move {
        worker.start().await;
        let request = worker.request().await;
        worker.answer_after(SECOND, &request, b"first").await;
        worker.serve().await;
    });
    let first = bench.begin("first");
    bench.settle().await;
    sleep(100 * MS).await;
    let waiting = bench.begin("waiting");
    sleep(100 * MS).await;
    assert_eq!(bench.driver.waiting().values().sum::<u32>(), 1);
    is_cancelled(&waiting.cancel().await);
    assert!(bench.driver.waiting().is_empty());
    assert_eq!(answered(first.end().await).1, "w-1");
    assert_eq!(answered(bench.call("next").await), ("next".into(), "w-1".into()));
    bench.finish().await;
}

#[tokio::test(start_paused = true)]
async fn call_that_is_cancelled_while_its_worker_is_made_leaves_that_to_the_next() {
    let bench = Bench::plain();
    bench.host.next(|worker| async move {
        sleep(SECOND).await;
        worker.start().await;
        worker.serve().await;
    });
    let call = bench.begin("");
    sleep(500 * MS).await;
    is_cancelled(&call.cancel().await);
    sleep(2 * SECOND).await;
    assert_eq!(answered(bench.call("next").await), ("next".into(), "w-1".into()));
    bench.finish().await;
}

#[tokio::test(start_paused = true)]
async fn call_that_is_cancelled_once_it_is_sent_ends_its_worker() {
    let bench = Bench::plain();
    bench.host.next(|worker| async move {
        worker.start().await;
        worker.request().await;
    });
    let call = bench.begin("");
    sleep(SECOND).await;
    assert_eq!(bench.workers(), [("w-1".to_owned(), StateName::Leased)]);
    is_cancelled(&call.cancel().await);
    sleep(SECOND).await;
    assert_eq!(bench.workers(), []);
    assert!(bench.host.group(1).counters().kills > 0);
    assert_eq!(answered(bench.call("next").await).1, "w-2");
    bench.finish().await;
}

#[tokio::test(start_paused = true)]
async fn call_that_is_cancelled_in_the_middle_of_its_answer_ends_its_worker_and_nobody_gets_the_rest() {
    let bench = Bench::plain();
    bench.host.next(|worker| async move {
        worker.start().await;
        let request = worker.request().await;
        let header = sublet_proto::link::frame::Header {
            kind: sublet_proto::link::frame::Kind::Response,
            length: 10,
            aux: 0,
            flags: 0,
            ..request.header
        };
        worker.bytes(&header.encode());
        worker.bytes(b"half");
        sleep(2 * SECOND).await;
        worker.bytes(b"of it.");
    });
    let call = bench.begin("");
    sleep(SECOND).await;
    is_cancelled(&call.cancel().await);
    sleep(5 * SECOND).await;
    assert_eq!(answered(bench.call("next").await), ("next".into(), "w-2".into()));
    bench.finish().await;
}

#[tokio::test(start_paused = true)]
async fn caller_that_goes_away_as_its_answer_comes_gets_one_end() {
    let bench = Bench::plain();
    let call = bench.begin("");
    bench.settle().await;
    sleep(SECOND).await;
    assert_eq!(answered(call.cancel().await).0, "", "it had been answered");
    bench.finish().await;
}
