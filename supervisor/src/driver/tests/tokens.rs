//! Workers with a token: what a call does that finds it old.

use std::{fs, os::unix::fs::PermissionsExt as _, path::PathBuf};

use sublet_proto::link::nursery::InitReport;
use tokio::time::sleep;

use super::*;
use crate::worker::host::fake::FakeWorker;

/// A directory with the token of `s1`, which goes with it.
struct Tokens(PathBuf);

impl Tokens {
    fn new(name: &str) -> Self {
        let dir = std::env::temp_dir().join(format!("sublet-tokens-{}-{name}", std::process::id()));
        fs::create_dir_all(&dir).expect("there is room");
        let tokens = Self(dir);
        tokens.write();
        tokens
    }

    fn write(&self) {
        let file = self.0.join("s1");
        fs::write(&file, "secret").expect("there is room");
        fs::set_permissions(&file, fs::Permissions::from_mode(0o600)).expect("it is ours");
    }

    fn bench(&self) -> Bench {
        let dir = self.0.display();
        Bench::new(&format!("token = {{ provider = \"static\", dir = \"{dir}\", ttl = \"60s\" }}"))
    }

    fn take_away(&self) {
        fs::remove_file(self.0.join("s1")).expect("it is there");
    }
}

impl Drop for Tokens {
    fn drop(&mut self) {
        drop(fs::remove_dir_all(&self.0));
    }
}

/// Starts with a token, and writes each further one.
async fn with_token(worker: &FakeWorker) {
    worker.say(sublet_proto::link::frame::Kind::Confined, b"");
    let number = worker.token_after(0).await;
    worker.report(InitReport::TokenWritten { number });
    worker.started().await;
    worker.say(sublet_proto::link::frame::Kind::Ready, b"");
}

#[tokio::test(start_paused = true)]
async fn worker_starts_with_its_sub_tenants_token() {
    let tokens = Tokens::new("starts");
    let bench = tokens.bench();
    bench.host.next(|worker| async move {
        with_token(&worker).await;
        worker.serve().await;
    });
    assert_eq!(answered(bench.call("yes").await).0, "yes");
    bench.finish().await;
}

#[tokio::test(start_paused = true)]
async fn start_without_a_token_is_the_providers_fault_and_one_that_init_cannot_write_is_ours() {
    let tokens = Tokens::new("without");
    let bench = tokens.bench();
    bench.host.next(|worker| async move {
        worker.say(sublet_proto::link::frame::Kind::Confined, b"");
        let number = worker.token_after(0).await;
        worker.report(InitReport::TokenFailed { number, error: "no space".into() });
    });
    let what = ours(bench.call("").await);
    assert!(what.contains("init cannot write it: no space"), "{what}");
    tokens.take_away();
    bench.host.next(|worker| async move { worker.say(sublet_proto::link::frame::Kind::Confined, b"") });
    match bench.call("").await {
        Err(Failure::Verdict { verdict, detail }) => {
            assert_eq!(verdict.kind(), VerdictKind::Token);
            assert!(detail.contains("does not exist") && !verdict.message.contains('/'), "{detail}");
        }
        other => panic!("{other:?}"),
    }
    bench.finish().await;
}

#[tokio::test(start_paused = true)]
async fn call_that_finds_an_expired_token_and_no_other_is_told_and_its_worker_goes_on() {
    let tokens = Tokens::new("expired");
    let bench = tokens.bench();
    bench.host.next(|worker| async move {
        with_token(&worker).await;
        worker.serve().await;
    });
    answer(bench.call("").await);
    tokens.take_away();
    sleep(50 * SECOND).await;
    assert_eq!(answered(bench.call("still").await).1, "w-1", "the old one holds");
    sleep(30 * SECOND).await;
    assert_eq!(kind(bench.call("").await), VerdictKind::Token);
    tokens.write();
    assert_eq!(bench.workers(), [("w-1".to_owned(), StateName::Idle)], "it has not seen the call");
    bench.finish().await;
}

#[tokio::test(start_paused = true)]
async fn call_that_waits_for_a_new_token_is_answered_once_it_is_there_and_can_be_cancelled() {
    for is_cancelled in [false, true] {
        let tokens = Tokens::new(if is_cancelled { "cancelled" } else { "renewed" });
        let bench = tokens.bench();
        bench.host.next(|worker| async move {
            with_token(&worker).await;
            let request = worker.request().await;
            worker.answer(&request, b"first");
            let number = worker.token_after(1).await;
            sleep(2 * SECOND).await;
            worker.report(InitReport::TokenWritten { number });
            worker.serve().await;
        });
        answer(bench.call("").await);
        // Two thirds of its life are over: it has been asked for again, and is not there yet.
        sleep(40 * SECOND + 500 * MS).await;
        let mut call = bench.begin("second");
        sleep(SECOND).await;
        assert!(call.has_ended().is_none(), "it waits");
        if is_cancelled {
            let held = call.cancel().await;
            assert!(matches!(held, Err(Failure::Cancelled)), "{held:?}");
        } else {
            assert_eq!(answered(call.end().await), ("second".into(), "w-1".into()));
        }
        bench.finish().await;
    }
}
