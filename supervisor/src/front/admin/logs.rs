//! What functions have written, in the words of the wire.

use std::{collections::VecDeque, sync::Arc};

use sublet_pool::SubTenant;
use sublet_proto::v1::{LogRecord, LogsRequest, LogsResponse};
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::Status;

use crate::{
    driver::Driver,
    logs::{
        Logs, Range,
        filter::Filter,
        record::{Record, What},
        ring::Batch,
    },
};

/// The most that `last` may ask for: they are held at one time.
const LAST_MAX: u32 = 100_000;
/// Sent at once.
const SENT_RECORDS: usize = 64;

type Sender = mpsc::Sender<Result<LogsResponse, Status>>;

/// What there is, and with `follow` what comes, until the reader goes away.
pub fn logs(driver: &Driver, request: LogsRequest) -> Result<ReceiverStream<Result<LogsResponse, Status>>, Status> {
    let (follow, last) = (request.follow, request.last);
    if let Some(last) = last.filter(|last| *last > LAST_MAX) {
        return Err(Status::invalid_argument(format!(
            "last = {last} is above {LAST_MAX}; ask for fewer, or leave it out for all"
        )));
    }
    let filter = filter(driver, request)?;
    let logs = driver.services().logs.clone();
    // One is made at a time, and only when the one before has been taken: a slow reader misses some, and is told so.
    let (sender, receiver) = mpsc::channel(1);
    tokio::spawn(async move {
        // None is left to tell when the reader has gone.
        drop(send(&logs, &filter, follow, last.map(|last| last as usize), &sender).await);
    });
    Ok(ReceiverStream::new(receiver))
}

fn filter(driver: &Driver, request: LogsRequest) -> Result<Filter, Status> {
    let LogsRequest { tenant, function, sub_tenant, worker, request, follow: _, last: _ } = request;
    let catalogue = driver.catalogue();
    if !tenant.is_empty() && catalogue.tenant(&tenant).is_none() {
        return Err(Status::not_found(format!("tenant {tenant:?} is not in the configuration")));
    }
    if !function.is_empty()
        && !catalogue
            .all()
            .into_iter()
            .any(|entry| *entry.name == *function && (tenant.is_empty() || *entry.tenant == *tenant))
    {
        return Err(Status::not_found(format!("function {function:?} is not in the configuration")));
    }
    let sub_tenants = if sub_tenant.is_empty() {
        None
    } else {
        // A label can belong to several tenants, and is another customer with each.
        let label =
            SubTenant::try_from(sub_tenant.as_str()).map_err(|error| Status::invalid_argument(error.to_string()))?;
        let mut tenants: Vec<_> = catalogue.all().into_iter().map(|entry| entry.tenant.clone()).collect();
        tenants.dedup();
        let hashes = tenants.iter().map(|tenant| driver.services().labels.group(tenant, &label));
        Some(hashes.chain([sub_tenant]).collect())
    };
    // Lambda's clients call it by the same digits, written as a UUID.
    let digits = request.replace('-', "").to_ascii_lowercase();
    // One that is all dashes would be that of every call.
    let is_none = digits.is_empty() && !request.is_empty();
    if is_none || digits.len() > 32 || !digits.bytes().all(|byte| byte.is_ascii_hexdigit()) {
        return Err(Status::invalid_argument(format!(
            "request {request:?} is not how a call's id begins: up to 32 hexadecimal digits, as in the lease of its receipt"
        )));
    }
    Ok(Filter { tenant, function, sub_tenants, worker, request: digits })
}

/// The reader has gone.
struct Gone;

async fn send(logs: &Logs, filter: &Filter, follow: bool, last: Option<usize>, to: &Sender) -> Result<(), Gone> {
    let mut grown = logs.listen();
    let Range { first: mut next, end, count } = logs.range();
    let mut kept = VecDeque::new();
    let (mut seen, mut lost) = (0, 0);
    while next < end {
        let batch = logs.read(next);
        // What made room before this reader came is not lost to it; what does while it reads, and what comes then, is.
        let seen_of_old = batch.records.iter().filter(|(number, _)| *number < end).count() as u64;
        lost += batch.lost - (batch.next.min(end) - next - seen_of_old);
        seen += seen_of_old;
        next = batch.next;
        if let Some(last) = last {
            kept.extend(batch.records.into_iter().filter(|(_, record)| filter.takes(record)));
            kept.drain(..kept.len().saturating_sub(last));
        } else {
            give(Batch { lost: 0, ..batch }, filter, to).await?;
        }
    }
    // With `last` the older ones were not asked for.
    let lost = if last.is_some() { 0 } else { lost + count.saturating_sub(seen) };
    give(Batch { records: kept.into(), next, lost }, filter, to).await?;
    if !follow {
        return Ok(());
    }
    loop {
        let batch = logs.read(next);
        if batch.records.is_empty() && batch.lost == 0 {
            tokio::select! {
                more = grown.wait_for(|end| *end > next) => drop(more.map_err(|_| Gone)?),
                () = to.closed() => return Err(Gone),
            }
            continue;
        }
        next = batch.next;
        give(batch, filter, to).await?;
    }
}

async fn give(batch: Batch, filter: &Filter, to: &Sender) -> Result<(), Gone> {
    let wanted: Vec<&(u64, Arc<Record>)> = batch.records.iter().filter(|(_, record)| filter.takes(record)).collect();
    if batch.lost > 0 {
        to.send(Ok(LogsResponse { records: Vec::new(), lost: batch.lost })).await.map_err(|_| Gone)?;
    }
    for some in wanted.chunks(SENT_RECORDS) {
        let records = some.iter().map(|(number, record)| wire(*number, record)).collect();
        to.send(Ok(LogsResponse { records, lost: 0 })).await.map_err(|_| Gone)?;
    }
    Ok(())
}

fn wire(number: u64, record: &Record) -> LogRecord {
    let source = &record.source;
    let of = LogRecord {
        at: Some(record.at.into()),
        tenant: source.tenant.clone(),
        function: source.function.clone(),
        sub_tenant_hash: source.sub_tenant_hash.clone(),
        worker: source.worker.clone(),
        request: record.request.as_deref().unwrap_or_default().to_owned(),
        number,
        ..LogRecord::default()
    };
    match &record.what {
        What::Line { text, is_cut, is_platform } => {
            LogRecord { message: text.clone(), cut: *is_cut, platform: *is_platform, ..of }
        }
        What::Dropped(dropped) => LogRecord { dropped_lines: dropped.lines, dropped_bytes: dropped.bytes, ..of },
    }
}
