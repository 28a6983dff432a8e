//! Starts that fail: how, whose fault that is, and what the caller is told.

use sublet_proto::link::{
    frame::{HOST_SHORTAGE, Header, Kind},
    nursery::InitReport,
    step::StepId,
};
use tokio::time::sleep;

use sublet_proto::level::Level;

use super::*;
use crate::{
    cgroups::bite::Bite,
    nursery::NurseryError,
    worker::host::fake::{FakeWorker, Plan},
};

/// Who is at fault, as the caller hears it.
#[derive(Debug, PartialEq)]
enum Told {
    /// The setting of the function, and a part of the message.
    Theirs(&'static str, &'static str),
    /// A part of what operators are told.
    Ours(&'static str),
}

#[track_caller]
fn check(what: &str, held: Held, told: &Told) {
    match told {
        Told::Theirs(setting, part) => {
            let found = verdict(held);
            assert_eq!(found.kind(), VerdictKind::Start, "{what}");
            assert_eq!(found.setting, format!("tenant.acme.function.f.{setting}"), "{what}");
            assert!(found.message.contains(part), "{what}: {}", found.message);
        }
        Told::Ours(part) => {
            let found = ours(held);
            assert!(found.starts_with("make a worker: ") && found.contains(part), "{what}: {found}");
        }
    }
}

/// What a worker does instead of becoming ready.
type Act = fn(&FakeWorker);

/// A worker that does one thing instead of saying CONFINED, or instead of READY.
fn instead(of_ready: bool, act: Act) -> Plan {
    Plan::of(move |worker| async move {
        if of_ready {
            worker.say(Kind::Confined, b"");
            worker.started().await;
        }
        act(&worker);
    })
}

fn refused(error: &str) -> Option<NurseryError> {
    Some(NurseryError::Refused(error.into()))
}

fn step_failed(id: StepId, is_shortage: bool) -> InitReport {
    InitReport::StepFailed { id, step: "the step".into(), error: "/srv/f is not there".into(), is_shortage }
}

fn oom(worker: &FakeWorker, level: Level) {
    let mut counters = worker.group.counters();
    counters.bites.oom_kills = 1;
    counters.memory_bite = Bite { level, limit: None, seen: None };
    drop(counters);
    worker.group.end(Some(9));
}

fn forks(worker: &FakeWorker, level: Level) {
    let mut counters = worker.group.counters();
    counters.bites.pids_refused = 1;
    counters.pids_bite = Bite { level, limit: None, seen: None };
    drop(counters);
    worker.frame(Header { aux: HOST_SHORTAGE, ..Header::bare(Kind::Error) }, b"fork: no");
}

#[tokio::test(start_paused = true)]
async fn each_failed_start_is_told_to_whom_it_concerns_and_leaves_nothing() {
    use Told::{Ours, Theirs};
    let plan = Plan::default;
    let cases: Vec<(&str, Plan, Told)> = vec![
        ("no group", Plan { group_refused: Some("no such controller"), ..plan() }, Ours("no such controller")),
        (
            "no sandbox",
            Plan { sandbox_refused: refused("no memory"), ..plan() },
            Ours("no sandbox was made: no memory"),
        ),
        ("nobody makes it", Plan { sandbox_refused: Some(NurseryError::Gone), ..plan() }, Ours("")),
        (
            "it cannot be looked at",
            Plan { inspection_refused: Some(NurseryError::Inspect("gone".into())), ..plan() },
            Ours("gone"),
        ),
        (
            "it is not as planned",
            Plan { wrong: vec!["function net namespace"], ..plan() },
            Ours("the sandbox is not as planned, seen from outside: function net namespace is wrong"),
        ),
        ("it is never confined", instead(false, |_| {}), Ours("its sandbox is being confined")),
        ("it is never ready", instead(true, |_| {}), Theirs("start_timeout", "has not said READY")),
        (
            "its launcher says why",
            instead(true, |worker| worker.say(Kind::Error, b"execve: no such file")),
            Theirs("command", "execve: no such file"),
        ),
        (
            "its runtime says why",
            instead(true, |worker| worker.say(Kind::Error, br#"{"errorType":"ImportError","errorMessage":"app"}"#)),
            Theirs("handler", "ImportError: app"),
        ),
        (
            "garbage",
            instead(true, |worker| worker.bytes(&[0x55; 48])),
            Theirs("command", "it broke the frame protocol before READY"),
        ),
        (
            "another frame",
            instead(true, |worker| worker.say(Kind::Response, b"")),
            Theirs("command", "expected Ready, got Response"),
        ),
        (
            "READY with words",
            instead(true, |worker| worker.say(Kind::Ready, b"hi")),
            Theirs("command", "Ready with a payload of 2 bytes"),
        ),
        (
            "a frame too large",
            instead(true, |worker| worker.bytes(&Header { length: 1 << 20, ..Header::bare(Kind::Error) }.encode())),
            Theirs("command", "a frame of 1048576 bytes"),
        ),
        ("its channel fails", instead(true, FakeWorker::break_channel), Ours("")),
        ("it closes its channel", instead(true, FakeWorker::close_channel), Theirs("command", "it closed its channel")),
        ("it exits", instead(true, |worker| worker.exit(Some(3), None)), Theirs("command", "exited with status 3")),
        (
            "a signal ends it",
            instead(true, |worker| worker.exit(None, Some(11))),
            Theirs("command", "ended by signal 11 (SIGSEGV)"),
        ),
        (
            "its own memory limit ends it",
            instead(true, |worker| oom(worker, Level::Worker)),
            Theirs("memory_max", "its memory limit ended it"),
        ),
        (
            "a memory limit above sublet ends it",
            instead(true, |worker| oom(worker, Level::Above)),
            Ours("by a limit above sublet's own groups"),
        ),
        (
            "its directory cannot be mounted",
            instead(false, |worker| {
                worker.report(step_failed(StepId::MountFunction, false));
                worker.group.end(None);
            }),
            Theirs("dir", "the dir of its configuration cannot be used"),
        ),
        (
            "the host has no room for a mount",
            instead(false, |worker| {
                worker.report(step_failed(StepId::MountFunction, true));
                worker.group.end(None);
            }),
            Ours("the step: /srv/f is not there"),
        ),
    ];
    for (what, plan, told) in cases {
        let bench = Bench::plain();
        bench.host.plan(plan);
        let held = bench.call("").await;
        if let Err(Failure::Verdict { verdict, .. }) = &held {
            assert!(!verdict.message.contains("/srv"), "{what}: callers are told of no path: {}", verdict.message);
        }
        check(what, held, &told);
        sleep(SECOND).await;
        assert_eq!((bench.workers(), bench.host.living()), (vec![], 0), "{what}");
        assert_eq!(answered(bench.call("next").await).0, "next", "{what}: the next start goes well");
        bench.finish().await;
    }
}

#[tokio::test(start_paused = true)]
async fn shortage_in_a_start_is_the_functions_by_its_own_limit_and_the_hosts_otherwise() {
    let cases: [(&str, Act, Told); 3] = [
        ("its own", |worker| forks(worker, Level::Worker), Told::Theirs("command", "fork: no")),
        ("one above", |worker| forks(worker, Level::Above), Told::Ours("fork: no")),
        (
            "none",
            |worker| worker.frame(Header { aux: HOST_SHORTAGE, ..Header::bare(Kind::Error) }, b"fork: no"),
            Told::Ours("fork: no"),
        ),
    ];
    for (what, act, told) in cases {
        let bench = Bench::new("runtime = \"exec\"");
        bench.host.plan(instead(true, act));
        check(what, bench.call("").await, &told);
        bench.finish().await;
    }
    // A `stream` function holds the channel itself, and may say anything.
    let bench = Bench::plain();
    bench.host.plan(instead(true, |worker| {
        worker.frame(Header { aux: HOST_SHORTAGE, ..Header::bare(Kind::Error) }, b"fork: no");
    }));
    check("stream", bench.call("").await, &Told::Theirs("command", "fork: no"));
    bench.finish().await;
}

#[tokio::test(start_paused = true)]
async fn start_that_makes_a_refused_system_call_is_told_so_where_that_ends_a_worker() {
    let bench = Bench::new("on_refused_syscall = \"kill\"");
    bench.host.plan(instead(true, |worker| {
        worker.report(InitReport::SyscallRefused { number: 250, name: "keyctl".into() });
        worker.group.end(Some(9));
    }));
    let held = bench.call("").await;
    check("kill", held, &Told::Theirs("on_refused_syscall", "the system call keyctl"));
    bench.finish().await;
}

#[tokio::test(start_paused = true)]
async fn end_of_the_nursery_during_a_start_is_ours() {
    let bench = Bench::plain();
    let host = bench.host.clone();
    bench.host.next(move |worker| async move {
        worker.say(Kind::Confined, b"");
        worker.started().await;
        host.end_nursery();
    });
    check("nursery", bench.call("").await, &Told::Ours("the nursery has ended, and every sandbox with it"));
    bench.finish().await;
}

#[tokio::test(start_paused = true)]
async fn worker_without_a_host_id_is_not_made_and_that_is_ours() {
    let bench = Bench::with(&parse(&text("", "")), 1, &Keys::default());
    bench.host.next(|worker| async move {
        worker.start().await;
        let request = worker.request().await;
        worker.answer_after(SECOND, &request, b"").await;
    });
    let first = bench.begin("");
    sleep(100 * MS).await;
    check("second", bench.call("").await, &Told::Ours("no host id is free"));
    answer(first.end().await);
    bench.finish().await;
}

#[tokio::test(start_paused = true)]
async fn trouble_with_starts_is_shown_until_one_goes_well() {
    let bench = Bench::plain();
    bench.host.plan(Plan { group_refused: Some("no room"), ..Plan::default() });
    ours(bench.call("").await);
    let troubles = bench.driver.services().troubles.all();
    assert!(troubles.iter().any(|trouble| format!("{trouble:?}").contains("no room")), "{troubles:?}");
    answer(bench.call("").await);
    assert!(bench.driver.services().troubles.all().is_empty());
    bench.finish().await;
}

const CELLS: &str = "cells_max = 1";

/// Waits until one cell is ready.
async fn cell(bench: &Bench) {
    answer(bench.call("").await);
    for _ in 0..100 {
        if bench.workers().iter().any(|(_, state)| *state == StateName::Cell) {
            return;
        }
        sleep(100 * MS).await;
    }
    panic!("no cell was made: {:?}", bench.workers());
}

fn other_sub_tenant() -> Invocation {
    Invocation { sub_tenant: "s2".into(), ..invocation("for s2") }
}

#[tokio::test(start_paused = true)]
async fn cell_that_gets_an_owner_serves_that_owner() {
    let bench = Bench::new(CELLS);
    cell(&bench).await;
    let second = answer(bench.begin_with(other_sub_tenant(), None).end().await);
    assert_eq!(second.receipt.start(), sublet_proto::v1::Start::Cell);
    bench.finish().await;
}

#[tokio::test(start_paused = true)]
async fn cell_that_is_not_what_it_was_is_not_started_for_anybody() {
    for (refuses_owner, part) in [(false, "seen from outside: the group has others"), (true, "limits cannot be set")] {
        let bench = Bench::new(CELLS);
        bench.host.plan(Plan::default());
        for _ in 0..2 {
            let wrong_later = if refuses_owner { vec![] } else { vec!["the group has others"] };
            let plan = Plan::of(move |worker: FakeWorker| async move {
                worker.group.counters().refuses_owner = refuses_owner;
                worker.start().await;
                worker.serve().await;
            });
            bench.host.plan(Plan { wrong_later, ..plan });
        }
        cell(&bench).await;
        let held = bench.begin_with(other_sub_tenant(), None).end().await;
        check("cell", held, &Told::Ours(part));
        bench.finish().await;
    }
}

#[tokio::test(start_paused = true)]
async fn cell_that_ends_before_anybody_wants_it_is_removed() {
    let bench = Bench::new(CELLS);
    bench.host.plan(Plan::default());
    bench.host.next(|worker| async move {
        worker.say(Kind::Confined, b"");
        sleep(3 * SECOND).await;
        worker.group.end(None);
    });
    cell(&bench).await;
    let before = bench.host.sandboxes.load(Ordering::Relaxed);
    sleep(10 * SECOND).await;
    assert!(bench.workers().iter().all(|(name, _)| name != "w-2"), "{:?}", bench.workers());
    assert!(bench.host.sandboxes.load(Ordering::Relaxed) >= before);
    bench.finish().await;
}
