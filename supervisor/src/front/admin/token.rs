//! What operators are told of a worker's token: never the token itself.

use std::time::SystemTime;

use prost_types::Timestamp;
use sublet_proto::v1::WorkerToken;

use crate::worker::Worker;

/// None when its function's workers are given none.
pub fn of(worker: &Worker) -> Option<WorkerToken> {
    let provider = worker.entry.settings.token.as_ref()?.provider.name().to_owned();
    let seen = worker.token.as_ref().and_then(|token| token.seen());
    Some(WorkerToken {
        provider,
        issued: seen.map(|seen| wire(seen.issued)),
        expires: seen.and_then(|seen| seen.expires).map(wire),
    })
}

fn wire(time: SystemTime) -> Timestamp {
    Timestamp::from(time)
}
