//! Faults and events, in the words of the wire.

use std::{sync::Arc, time::SystemTime};

use sublet_proto::v1::{ConfigEvent, Fault, ListFaultsResponse, WatchResponse, WorkerEvent, watch_response::Event};
use tokio::sync::{broadcast::error::RecvError, mpsc};
use tokio_stream::wrappers::ReceiverStream;
use tonic::Status;

use crate::{
    driver::Driver,
    events::{Happened, WorkerNews, book::Folded},
};

fn fault(folded: &Folded, driver: &Driver) -> Fault {
    let Folded { kind, count, first, last, seen, .. } = folded;
    Fault {
        tenant: kind.tenant.to_string(),
        function: kind.function.to_string(),
        sub_tenant_hash: driver.services().labels.group(&kind.tenant, &kind.sub_tenant),
        reason: kind.reason.to_owned(),
        level: kind.level.clone(),
        setting: kind.setting.clone(),
        limit: seen.limit.clone(),
        observed: seen.observed.clone(),
        count: *count,
        first: Some((*first).into()),
        last: Some((*last).into()),
        worker: seen.worker.clone(),
        message: seen.message.clone(),
        error_id: seen.error_id.clone(),
    }
}

/// All faults, of one tenant when it is named.
pub fn faults(driver: &Driver, tenant: &str) -> ListFaultsResponse {
    let (all, forgotten) = driver.hub.faults();
    let meant = all.iter().filter(|folded| tenant.is_empty() || *folded.kind.tenant == *tenant);
    ListFaultsResponse { faults: meant.map(|folded| fault(folded, driver)).collect(), forgotten }
}

fn event(happened: Happened, tenant: &str, driver: &Driver) -> Option<Event> {
    let is_meant = |of: &str| tenant.is_empty() || of == tenant;
    match happened {
        Happened::Fault(folded) => is_meant(&folded.kind.tenant).then(|| Event::Fault(fault(&folded, driver))),
        Happened::Worker(news) => {
            let WorkerNews { worker, tenant, function, sub_tenant_hash, what, why } = news;
            is_meant(&tenant).then(|| {
                Event::Worker(WorkerEvent { worker, tenant, function, sub_tenant_hash, what: what.to_owned(), why })
            })
        }
        Happened::Config { what, lines } => Some(Event::Config(ConfigEvent { what: what.to_owned(), lines })),
    }
}

/// From now on, until the listener goes away.
pub fn watch(driver: Arc<Driver>, tenant: String) -> ReceiverStream<Result<WatchResponse, Status>> {
    let mut heard = driver.hub.listen();
    // One is made at a time, and only when the one before has been taken: a slow listener lags, and is told so.
    let (sender, receiver) = mpsc::channel(1);
    tokio::spawn(async move {
        loop {
            let next = tokio::select! {
                next = heard.recv() => next,
                () = sender.closed() => return,
            };
            let (at, event) = match next {
                Ok((at, happened)) => match event(happened, &tenant, &driver) {
                    Some(event) => (at, event),
                    None => continue,
                },
                Err(RecvError::Lagged(lost)) => (SystemTime::now(), Event::Lost(lost)),
                Err(RecvError::Closed) => return,
            };
            let response = WatchResponse { at: Some(at.into()), event: Some(event) };
            if sender.send(Ok(response)).await.is_err() {
                return;
            }
        }
    });
    ReceiverStream::new(receiver)
}
