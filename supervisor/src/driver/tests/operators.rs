//! What operators see and do: who uses what, which workers there are, what serves, and workers that are made ahead.

use sublet_proto::v1::{GetUsageRequest, WorkerState};
use tokio::time::sleep;

use super::*;
use crate::driver::standing::{Standing, Why};

fn key(bench: &Bench, label: &str) -> PoolKey {
    let entry = bench.driver.catalogue().function("acme", "f").expect("it is there").clone();
    PoolKey { function: entry.id, sub_tenant: SubTenant::try_from(label).expect("a label") }
}

#[tokio::test(start_paused = true)]
async fn usage_is_told_by_tenant_sub_tenant_and_worker() {
    let bench = Bench::plain();
    bench.host.next(|worker| async move {
        worker.start().await;
        let request = worker.request().await;
        worker.group.counters().reading.cpu += 30 * MS;
        worker.answer(&request, b"");
        let request = worker.request().await;
        worker.reply(&request, sublet_proto::link::frame::Kind::Error, 0, b"");
        worker.serve().await;
    });
    answer(bench.call("").await);
    verdict(bench.call("").await);
    let get = |tenant: &str, workers| usage::get(&bench.driver, &GetUsageRequest { tenant: tenant.into(), workers });
    let all = get("", true);
    let [tenant] = all.tenants.as_slice() else { panic!("{all:?}") };
    let used = tenant.usage.as_ref().expect("it is told");
    assert_eq!((tenant.tenant.as_str(), used.calls_answered, used.calls_failed), ("acme", 1, 1));
    assert_eq!(used.cpu_calls.map(Duration::try_from), Some(Ok(30 * MS)));
    let [sub_tenant] = all.sub_tenants.as_slice() else { panic!("{all:?}") };
    assert_eq!((sub_tenant.workers, sub_tenant.calls_running, sub_tenant.calls_queued), (1, 0, 0));
    let [worker] = sub_tenant.workers_used.as_slice() else { panic!("{all:?}") };
    assert_eq!((worker.worker.as_str(), worker.state(), worker.processes), ("w-1", WorkerState::Idle, 2));
    assert!(get("other", true).tenants.is_empty());
    assert!(get("acme", false).sub_tenants[0].workers_used.is_empty());
    bench.finish().await;
}

#[tokio::test(start_paused = true)]
async fn workers_that_are_made_ahead_are_idle_when_calls_come_and_not_more_than_may_be() {
    let bench = Bench::new("workers_max = 2");
    assert_eq!(bench.driver.warm(&key(&bench, "s1"), 2), Ok(2));
    sleep(SECOND).await;
    let idle = |name: &str| (name.to_owned(), StateName::Idle);
    assert_eq!(bench.workers(), [idle("w-1"), idle("w-2")]);
    assert_eq!(bench.driver.warm(&key(&bench, "s1"), 2), Ok(0), "they are there");
    bench.driver.warm(&key(&bench, "s1"), 3).expect_err("the function may have two");
    let (_, worker) = answered(bench.call("").await);
    assert!(["w-1", "w-2"].contains(&worker.as_str()), "{worker}");
    assert_eq!(bench.workers().len(), 2);
    bench.finish().await;
}

#[tokio::test(start_paused = true)]
async fn functions_are_found_by_name_and_those_that_are_not_there_are_unknown() {
    let bench = Bench::plain();
    let id = key(&bench, "s1").function;
    assert_eq!(bench.driver.functions_named(Some("acme"), "f"), [id]);
    assert_eq!(bench.driver.functions_named(None, "f"), [id]);
    assert!(bench.driver.functions_named(Some("other"), "f").is_empty());
    assert_eq!(bench.driver.standing(""), Standing::Serving);
    assert_eq!(bench.driver.standing("acme/f"), Standing::Serving);
    assert_eq!(bench.driver.standing("acme/g"), Standing::Unknown);
    assert_eq!(bench.driver.standing("acme"), Standing::Unknown);
    bench.host.end_nursery();
    assert_eq!(bench.driver.standing("acme/f"), Standing::NotServing(Why::NurseryGone));
    bench.driver.set_stopping();
    assert_eq!(bench.driver.standing(""), Standing::NotServing(Why::Stopping));
    assert_eq!(bench.driver.undrain(), Err(IsStopping));
}

#[tokio::test(start_paused = true)]
async fn what_becomes_of_workers_is_told_to_whoever_listens() {
    let bench = Bench::new("cells_max = 1");
    let mut events = bench.driver.hub.listen();
    answer(bench.call("").await);
    sleep(SECOND).await;
    bench.driver.evict(&Selector::All, true);
    sleep(100 * MS).await;
    bench.host.plan(crate::worker::host::fake::Plan { group_refused: Some("no room"), ..Default::default() });
    let mut told = Vec::new();
    while let Ok((_, happened)) = events.try_recv() {
        if let Happened::Worker(news) = happened {
            told.push((news.what, news.why, news.sub_tenant_hash.is_empty()));
        }
    }
    let ready = ("ready", String::new(), false);
    let cell = ("cell ready", String::new(), true);
    let gone = |is_cell| ("gone", "Evicted".to_owned(), is_cell);
    for expected in [ready, cell, gone(false), gone(true)] {
        assert!(told.contains(&expected), "{expected:?} in {told:?}");
    }
    bench.finish().await;
}
