//! Which faults operators hear of, and what goes into the books.

use super::*;

#[tokio::test(start_paused = true)]
async fn each_call_is_counted_once_by_how_it_ended() {
    let bench = Bench::plain();
    bench.host.next(|worker| async move {
        worker.start().await;
        let request = worker.request().await;
        worker.answer(&request, b"");
        let request = worker.request().await;
        worker.reply(&request, sublet_proto::link::frame::Kind::Error, 0, b"");
        worker.serve().await;
    });
    answer(bench.call("").await);
    verdict(bench.call("").await);
    bench.driver.set_stopping();
    let driver = bench.driver.clone();
    let drained = tokio::spawn(async move { driver.drain(SECOND).await });
    bench.settle().await;
    rejected(bench.call("").await);
    drained.await.expect("it ends");
    let counters = &bench.driver.counters;
    let counts = [&counters.answered, &counters.failed, &counters.refused].map(|count| count.load(Ordering::Relaxed));
    assert_eq!(counts, [1, 1, 1]);
    bench.finish().await;
}

#[tokio::test(start_paused = true)]
async fn what_cannot_be_accepted_is_refused_by_name_and_reaches_no_worker() {
    let bench = Bench::new("payload_max = \"4KiB\"");
    let large = || bytes::Bytes::from(vec![0; 4097]);
    let cases = [
        (Invocation { tenant: "nobody".into(), ..invocation("") }, "TENANT_UNKNOWN"),
        (Invocation { function: "g".into(), ..invocation("") }, "FUNCTION_UNKNOWN"),
        (Invocation { sub_tenant: String::new(), ..invocation("") }, "SUB_TENANT_INVALID"),
        (Invocation { sub_tenant: "a\n".into(), ..invocation("") }, "SUB_TENANT_INVALID"),
        (Invocation { payload: large(), ..invocation("") }, "PAYLOAD_TOO_LARGE"),
        (Invocation { timeout: Some(Duration::ZERO), ..invocation("") }, "DEADLINE_PAST"),
    ];
    for (invocation, expected) in cases {
        let rejection = bench.driver.accept(invocation).expect_err(expected);
        assert_eq!(reason::of_rejection(&rejection), expected);
    }
    let most = Invocation { payload: large().slice(1..), ..invocation("") };
    assert_eq!(answered(bench.begin_with(most, None).end().await).0.len(), 4096);
    bench.finish().await;
    let shared = Bench::new("isolation = \"shared\"");
    let rejection = shared.driver.accept(invocation("")).expect_err("it takes no label");
    assert_eq!(reason::of_rejection(&rejection), "SUB_TENANT_NOT_TAKEN");
    let unlabelled = Invocation { sub_tenant: String::new(), ..invocation("x") };
    assert_eq!(answered(shared.begin_with(unlabelled, None).end().await).0, "x");
    shared.finish().await;
}

#[tokio::test(start_paused = true)]
async fn function_whose_workers_keep_failing_backs_off_and_is_not_serving_meanwhile() {
    let bench = Bench::plain();
    for _ in 0..3 {
        bench.host.next(|worker| async move { worker.exit(Some(1), None) });
        assert_eq!(kind(bench.call("").await), VerdictKind::Start);
    }
    assert_eq!(rejected(bench.call("").await), "CRASH_BACKOFF");
    tokio::time::sleep(MS * 100).await;
    let not_serving: Vec<String> = bench.driver.not_serving().into_iter().map(|part| part.service).collect();
    assert_eq!(not_serving, ["", "acme/f"]);
    tokio::time::sleep(100 * SECOND).await;
    assert_eq!(answered(bench.call("well again").await).0, "well again");
    tokio::time::sleep(SECOND).await;
    assert!(bench.driver.not_serving().is_empty());
    bench.finish().await;
}
