//! Every way out of a delivery: what the worker said or did, what its caller is told, and whether the worker goes on.

use bytes::Bytes;
use sublet_proto::{
    level::Level,
    link::{
        frame::{ENDED_BY_SIGNAL, HOST_SHORTAGE, Header, Kind, TMP_WAS_FULL, TOO_LARGE},
        nursery::{Left, TmpSpace},
    },
    v1::Start as WireStart,
};
use tokio::time::sleep;

use super::*;
use crate::{
    cgroups::bite::Bite,
    worker::host::fake::{FakeWorker, Request},
};

/// What one worker does with its first call.
type Act = fn(&FakeWorker, &Request);

/// Makes one call of a worker that does this with it, and answers later ones. Returns what came of it, and whether the same
/// worker takes the next call.
async fn outcome(bench: &Bench, act: Act) -> (Held, bool) {
    bench.host.next(move |worker| async move {
        worker.start().await;
        let request = worker.request().await;
        act(&worker, &request);
        worker.serve().await;
    });
    let held = bench.call("first").await;
    let is_idle = bench.workers().contains(&("w-1".to_owned(), StateName::Idle));
    bench.settle().await;
    let (_, worker) = answered(bench.call("second").await);
    let lines = bench.driver.workers();
    assert_eq!(lines.len(), 1, "one that is not kept is gone: {:?}", bench.workers());
    assert_eq!(is_idle, worker == "w-1", "a worker is idle when its call has ended, or gets no other");
    (held, is_idle)
}

#[tokio::test(start_paused = true)]
async fn answer_is_the_callers_and_the_worker_takes_the_next_call() {
    let bench = Bench::plain();
    let first = answer(bench.call("hello").await);
    assert_eq!(first.payload, "hello");
    assert_eq!((first.receipt.worker.as_str(), first.receipt.calls), ("w-1", 1));
    assert_eq!(first.receipt.start(), WireStart::Cold);
    assert_eq!(first.receipt.answer_read_bytes, 48 + 5, "a header and the answer");
    let second = answer(bench.call("again").await);
    assert_eq!((second.receipt.worker.as_str(), second.receipt.calls), ("w-1", 2));
    assert_eq!(second.receipt.start(), WireStart::Warm);
    assert_ne!(first.receipt.lease, second.receipt.lease, "a lease is never used twice");
    bench.finish().await;
}

#[tokio::test(start_paused = true)]
async fn request_carries_the_payload_the_owners_tag_and_the_time_that_is_left() {
    let bench = Bench::plain();
    let mut requests = bench.overhear();
    answer(bench.call("payload").await);
    let invocation = Invocation { timeout: Some(3 * SECOND), ..invocation("other") };
    answer(bench.begin_with(invocation, None).end().await);
    let (first, second) = (requests.recv().await.expect("one"), requests.recv().await.expect("another"));
    assert_eq!((first.header.kind, first.payload.as_slice()), (Kind::Request, b"payload".as_slice()));
    assert_eq!((first.header.aux, second.header.aux), (10_000, 3000), "the function's time, or the caller's");
    assert_eq!(first.header.label, second.header.label);
    assert_ne!(first.header.lease, second.header.lease);
    assert_ne!(first.header.label, [0; 16]);
    bench.finish().await;
}

#[tokio::test(start_paused = true)]
async fn each_reply_of_a_stream_function_has_its_verdict_and_only_a_clean_one_keeps_its_worker() {
    use VerdictKind as V;
    let cases: [(&str, Act, V, bool); 9] = [
        ("its handler failed", |worker, request| worker.reply(request, Kind::Error, 0, b"no"), V::FunctionError, true),
        (
            "its answer is too large",
            |worker, request| {
                let Header { lease, label, .. } = request.header;
                let header = Header { length: 100_000, lease, label, ..Header::bare(Kind::Response) };
                worker.bytes(&header.encode());
            },
            V::AnswerTooLarge,
            false,
        ),
        (
            "it has another lease",
            |worker, request| {
                let header = Header { lease: [1; 16], ..request.header };
                worker.frame(Header { kind: Kind::Response, aux: 0, flags: 0, ..header }, b"");
            },
            V::BadFrame,
            false,
        ),
        ("it speaks garbage", |worker, _| worker.bytes(&[0x55; 48]), V::BadFrame, false),
        (
            "it says more than an answer",
            |worker, request| {
                worker.bytes(
                    &[
                        Header { aux: 0, flags: 0, length: 0, kind: Kind::Response, ..request.header }
                            .encode()
                            .as_slice(),
                        b"more",
                    ]
                    .concat(),
                );
            },
            V::BadFrame,
            false,
        ),
        (
            "it blames the host, which only launchers may",
            |worker, request| worker.reply(request, Kind::Error, HOST_SHORTAGE, b"no"),
            V::BadFrame,
            false,
        ),
        ("it closes its channel and goes on", |worker, _| worker.close_channel(), V::BadFrame, false),
        ("it exits", |worker, _| worker.exit(Some(3), None), V::Exit, false),
        ("a signal ends it", |worker, _| worker.exit(None, Some(11)), V::Crash, false),
    ];
    for (what, act, expected, is_kept) in cases {
        let bench = Bench::new("answer_max = \"64KiB\"");
        let (held, kept) = outcome(&bench, act).await;
        assert_eq!((kind(held), kept), (expected, is_kept), "{what}");
        bench.finish().await;
    }
}

#[tokio::test(start_paused = true)]
async fn each_reply_of_an_exec_functions_launcher_has_its_verdict() {
    use VerdictKind as V;
    let cases: [(&str, Act, V); 5] = [
        ("its status", |worker, request| worker.reply(request, Kind::Response, 7, b"out"), V::Exit),
        ("its signal", |worker, request| worker.reply(request, Kind::Response, ENDED_BY_SIGNAL + 11, b""), V::Crash),
        ("a full /tmp before", |worker, request| worker.reply(request, Kind::Response, TMP_WAS_FULL + 7, b""), V::Exit),
        (
            "a shortage by a limit of its own",
            |worker, request| {
                worker.group.counters().bites.pids_refused += 1;
                worker.reply(request, Kind::Error, HOST_SHORTAGE, b"fork: no");
            },
            V::FunctionError,
        ),
        (
            "a shortage when its memory was used up",
            |worker, request| {
                worker.group.counters().memory_peak = 63 << 20;
                worker.reply(request, Kind::Error, HOST_SHORTAGE, b"fork: no");
            },
            V::FunctionError,
        ),
    ];
    for (what, act, expected) in cases {
        let bench = Bench::new("runtime = \"exec\"");
        let (held, kept) = outcome(&bench, act).await;
        assert_eq!((kind(held), kept), (expected, true), "{what}");
        bench.finish().await;
    }
}

#[tokio::test(start_paused = true)]
async fn shortage_that_no_limit_of_ours_explains_is_the_hosts() {
    let above: Act = |worker, request| {
        let mut counters = worker.group.counters();
        counters.bites.pids_refused += 1;
        counters.pids_bite = Bite { level: Level::Above, limit: None, seen: None };
        drop(counters);
        worker.reply(request, Kind::Error, HOST_SHORTAGE, b"fork: no");
    };
    let none: Act = |worker, request| {
        worker.group.counters().memory_peak = (63 << 20) - 1;
        worker.reply(request, Kind::Error, HOST_SHORTAGE, b"fork: no");
    };
    for act in [above, none] {
        let bench = Bench::new("runtime = \"exec\"");
        let (held, kept) = outcome(&bench, act).await;
        assert_eq!((ours(held).as_str(), kept), ("fork: no", true));
        bench.finish().await;
    }
}

#[tokio::test(start_paused = true)]
async fn tmp_that_was_full_before_is_a_remark_and_one_that_the_call_has_filled_is_the_verdict() {
    for (aux, expected) in [(7, VerdictKind::Disk), (TMP_WAS_FULL + 7, VerdictKind::Exit)] {
        let bench = Bench::new("runtime = \"exec\"");
        let full = TmpSpace { bytes_free: 0, inodes_free: 3 };
        *bench.host.left.lock().expect("nobody panicked") = Some(Left { tmp: full, is_out_of_descriptors: true });
        bench.host.next(move |worker| async move {
            worker.start().await;
            let request = worker.request().await;
            worker.reply(&request, Kind::Response, aux, b"");
        });
        let found = verdict(bench.call("").await);
        assert_eq!(found.kind(), expected);
        let remarks = found.receipt.expect("it has one").remarks;
        let kinds: Vec<VerdictKind> = remarks.iter().map(|remark| remark.kind()).collect();
        let disk = if expected == VerdictKind::Disk { vec![] } else { vec![VerdictKind::Disk] };
        assert_eq!(kinds, [disk, vec![VerdictKind::Descriptors]].concat());
        bench.finish().await;
    }
}

#[tokio::test(start_paused = true)]
async fn launcher_that_cannot_tell_how_large_an_answer_is_says_that_it_is_too_large() {
    let bench = Bench::new("runtime = \"exec\"");
    let act: Act = |worker, request| {
        let header = Header { kind: Kind::Response, aux: 0, flags: 0, length: TOO_LARGE, ..request.header };
        worker.bytes(&header.encode());
    };
    let (held, kept) = outcome(&bench, act).await;
    let found = verdict(held);
    assert_eq!((found.kind(), found.seen.as_str(), kept), (VerdictKind::AnswerTooLarge, "more", false));
    bench.finish().await;
}

#[tokio::test(start_paused = true)]
async fn call_that_is_not_answered_in_time_ends_its_worker_and_a_late_answer_meets_nobody() {
    let bench = Bench::plain();
    bench.host.next(|worker| async move {
        worker.start().await;
        let request = worker.request().await;
        worker.group.counters().refuses_kill = true;
        worker.answer_after(TIMEOUT + MS, &request, b"late").await;
        worker.group.counters().refuses_kill = false;
    });
    let found = verdict(bench.call("").await);
    assert_eq!(found.kind(), VerdictKind::Deadline);
    assert!(found.message.contains("the function's limit of 10s"), "{}", found.message);
    let (payload, worker) = answered(bench.call("next").await);
    assert_eq!((payload.as_str(), worker.as_str()), ("next", "w-2"));
    bench.finish().await;
}

#[tokio::test(start_paused = true)]
async fn answer_just_in_time_counts() {
    let bench = Bench::plain();
    bench.host.next(|worker| async move {
        worker.start().await;
        let request = worker.request().await;
        worker.answer_after(TIMEOUT - MS, &request, b"at last").await;
        worker.serve().await;
    });
    assert_eq!(answered(bench.call("").await).0, "at last");
    bench.finish().await;
}

#[tokio::test(start_paused = true)]
async fn callers_own_limit_passes_while_the_worker_has_the_call() {
    let bench = Bench::plain();
    bench.host.next(|worker| async move { worker.start().await });
    let invocation = Invocation { timeout: Some(2 * SECOND), ..invocation("") };
    let found = verdict(bench.begin_with(invocation, None).end().await);
    assert_eq!((found.kind(), found.level.as_str()), (VerdictKind::Deadline, "call"));
    assert!(found.message.contains("the caller's limit of 2s"), "{}", found.message);
    bench.finish().await;
}

#[tokio::test(start_paused = true)]
async fn deadline_is_told_as_the_quotas_when_a_quota_held_the_worker_back_for_half_of_the_time() {
    for (throttled, expected) in [(5 * SECOND, VerdictKind::Cpu), (5 * SECOND - MS, VerdictKind::Deadline)] {
        let bench = Bench::plain();
        bench.host.next(move |worker| async move {
            worker.start().await;
            worker.request().await;
            worker.group.counters().throttled_above[1].1 += throttled;
        });
        let found = verdict(bench.call("").await);
        assert_eq!(found.kind(), expected, "{throttled:?}");
        if expected == VerdictKind::Cpu {
            assert_eq!((found.level.as_str(), found.limit.as_str()), ("tenant", "500m"));
        }
        bench.finish().await;
    }
}

#[tokio::test(start_paused = true)]
async fn deadline_of_a_worker_that_somebody_has_frozen_says_so() {
    let bench = Bench::plain();
    bench.host.next(|worker| async move {
        worker.start().await;
        worker.request().await;
        worker.group.counters().frozen_by = Some("/sys/there".into());
    });
    match bench.call("").await {
        Err(Failure::Verdict { verdict, detail }) => {
            assert_eq!(verdict.kind(), VerdictKind::Deadline);
            assert!(verdict.message.contains("had the worker frozen"), "{}", verdict.message);
            assert_eq!(detail, "somebody else has frozen /sys/there", "operators are told whose switch it was");
        }
        other => panic!("{other:?}"),
    }
    bench.finish().await;
}

#[tokio::test(start_paused = true)]
async fn answer_of_a_worker_that_lost_a_process_for_memory_stands_with_a_remark_and_is_its_last() {
    let bench = Bench::plain();
    bench.host.next(|worker| async move {
        worker.start().await;
        let request = worker.request().await;
        worker.lose_a_process();
        worker.answer(&request, b"all the same");
        worker.serve().await;
    });
    let first = answer(bench.call("").await);
    assert_eq!(first.payload, "all the same");
    let remarks: Vec<VerdictKind> = first.receipt.remarks.iter().map(|remark| remark.kind()).collect();
    assert_eq!(remarks, [VerdictKind::Memory]);
    assert_eq!(answered(bench.call("next").await).1, "w-2");
    bench.finish().await;
}

#[tokio::test(start_paused = true)]
async fn worker_that_answers_and_ends_at_once_has_answered() {
    let kinds: [(Kind, Option<VerdictKind>); 2] =
        [(Kind::Response, None), (Kind::Error, Some(VerdictKind::FunctionError))];
    for (reply, expected) in kinds {
        let bench = Bench::plain();
        bench.host.next(move |worker| async move {
            worker.start().await;
            let request = worker.request().await;
            worker.reply(&request, reply, 0, b"my last words");
            worker.exit(Some(0), None);
        });
        let held = bench.call("").await;
        match expected {
            None => assert_eq!(answered(held).0, "my last words"),
            Some(expected) => assert_eq!(kind(held), expected),
        }
        bench.finish().await;
    }
}

#[tokio::test(start_paused = true)]
async fn what_a_worker_said_before_it_ended_is_the_callers_who_may_be_a_little_late_to_take_it() {
    use VerdictKind as V;
    let cases: [(Kind, Duration, Option<V>); 3] = [
        (Kind::Response, 500 * MS, None),
        (Kind::Error, 500 * MS, Some(V::FunctionError)),
        (Kind::Response, 2 * SECOND, Some(V::Crash)),
    ];
    for (reply, late, expected) in cases {
        let bench = Bench::plain();
        bench.host.next(move |worker| async move {
            worker.start().await;
            let request = worker.request().await;
            for _ in 0..3 {
                worker.reply(&request, Kind::Piece, 0, &[7; 16 * 1024]);
            }
            worker.reply(&request, reply, 0, b"the end");
            sleep(MS).await;
            worker.exit(None, Some(11));
        });
        let (sender, mut pieces) = mpsc::channel::<Bytes>(1);
        tokio::spawn(async move {
            sleep(late).await;
            while pieces.recv().await.is_some() {}
        });
        let held = bench.begin_with(invocation(""), Some(sender)).end().await;
        match expected {
            None => assert_eq!(answered(held).0, "the end"),
            Some(expected) => assert_eq!(kind(held), expected, "{reply:?} {late:?}"),
        }
        bench.finish().await;
    }
}

#[tokio::test(start_paused = true)]
async fn failure_of_the_channel_on_our_side_is_ours_and_the_workers_last() {
    let bench = Bench::plain();
    let act: Act = |worker, _| worker.break_channel();
    let (held, kept) = outcome(&bench, act).await;
    let what = ours(held);
    assert!(what.starts_with("talk to the worker: ") && !kept, "{what}");
    bench.finish().await;
}

#[tokio::test(start_paused = true)]
async fn pieces_go_to_whoever_takes_them_and_are_bounded_together() {
    let bench = Bench::new("stream_max = \"10B\"");
    for (pieces, expected) in [(2, None), (3, Some(VerdictKind::AnswerTooLarge))] {
        bench.host.next(move |worker| async move {
            worker.start().await;
            let request = worker.request().await;
            for _ in 0..pieces {
                worker.reply(&request, Kind::Piece, 0, b"12345");
            }
            worker.answer(&request, b"end");
        });
        let (sender, mut taken) = mpsc::channel::<Bytes>(8);
        let invocation = Invocation { sub_tenant: format!("s{pieces}"), ..invocation("") };
        let held = bench.begin_with(invocation, Some(sender)).end().await;
        match expected {
            Some(expected) => {
                assert_eq!(kind(held), expected);
                let idle = bench.workers().into_iter().filter(|(_, state)| *state == StateName::Idle).count();
                assert_eq!(idle, 1, "that of the other sub-tenant alone");
            }
            None => {
                assert_eq!(answered(held).0, "end");
                let mut whole = Vec::new();
                while let Some(piece) = taken.recv().await {
                    whole.extend_from_slice(&piece);
                }
                assert_eq!(whole, b"1234512345");
            }
        }
    }
    bench.finish().await;
}

#[tokio::test(start_paused = true)]
async fn call_of_an_idempotent_function_is_made_again_when_its_worker_dies_but_not_once_an_answer_has_begun() {
    let dies = |begins: bool| {
        move |worker: FakeWorker| async move {
            worker.start().await;
            let request = worker.request().await;
            if begins {
                worker.reply(&request, Kind::Piece, 0, b"half");
                sleep(MS).await;
            }
            worker.exit(None, Some(11));
        }
    };
    let bench = Bench::new("idempotent = true");
    bench.host.next(dies(false));
    assert_eq!(answered(bench.call("kept").await), ("kept".into(), "w-2".into()));
    bench.finish().await;

    let bench = Bench::new("idempotent = true");
    bench.host.next(dies(true));
    let (sender, mut taken) = mpsc::channel::<Bytes>(8);
    let held = bench.begin_with(invocation(""), Some(sender)).end().await;
    assert_eq!(kind(held), VerdictKind::Crash);
    assert_eq!(taken.recv().await.expect("a piece"), "half");
    bench.finish().await;
}

#[tokio::test(start_paused = true)]
async fn what_a_worker_wrote_during_a_call_goes_with_its_answer_or_verdict() {
    let bench = Bench::plain();
    bench.host.next(|worker| async move {
        worker.start().await;
        let request = worker.request().await;
        worker.log("of the first\n");
        worker.answer(&request, b"");
        let request = worker.request().await;
        worker.log("of the second\n");
        worker.reply(&request, Kind::Error, 0, b"");
    });
    let wanted = Invocation { want_log: true, ..invocation("") };
    let first = answer(bench.begin_with(wanted, None).end().await);
    assert_eq!(first.log.bytes, "of the first\n");
    let second = verdict(bench.call("").await);
    assert_eq!(second.log_tail, "of the second\n");
    bench.finish().await;
}

#[tokio::test(start_paused = true)]
async fn what_a_call_used_is_on_its_receipt_and_no_other() {
    let bench = Bench::plain();
    bench.host.next(|worker| async move {
        worker.start().await;
        for millis in [30, 50] {
            let request = worker.request().await;
            worker.group.counters().reading.cpu += millis * MS;
            worker.group.counters().reading.io_read += 7;
            worker.answer(&request, b"");
        }
        worker.serve().await;
    });
    for millis in [30, 50, 0] {
        let receipt = answer(bench.call("").await).receipt;
        assert_eq!(receipt.cpu.map(Duration::try_from), Some(Ok(millis * MS)));
        assert_eq!(receipt.io_read_bytes, if millis > 0 { 7 } else { 0 });
    }
    bench.finish().await;
}
