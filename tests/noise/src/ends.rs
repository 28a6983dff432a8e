//! How calls ended: an answer, or the reason in their status. And what their receipts say they used.

use std::{collections::BTreeMap, time::Duration};

use prost::Message as _;
use sublet_proto::v1::{InvokeResponse, Receipt, Verdict};
use tonic::{Response, Status};
use tonic_types::StatusExt as _;

/// An answer.
pub const ANSWERED: &str = "ANSWERED";
/// No end at all for as long as anybody waited.
pub const UNANSWERED: &str = "UNANSWERED";

/// How often calls ended in which way.
pub type Ends = BTreeMap<String, u64>;

/// Of a call: the name of its end, and its receipt when a worker had it.
pub fn of(outcome: &Result<Response<InvokeResponse>, Status>) -> (String, Option<Receipt>) {
    match outcome {
        Ok(response) => (ANSWERED.to_owned(), response.get_ref().receipt.clone()),
        Err(status) => (reason(status), verdict(status).and_then(|verdict| verdict.receipt)),
    }
}

/// The reason of the closed list; the code's name where there is none, as for a connection that broke.
fn reason(status: &Status) -> String {
    let reason = status.get_details_error_info().map(|info| info.reason).unwrap_or_default();
    if reason.is_empty() { format!("{:?}", status.code()) } else { reason }
}

fn verdict(status: &Status) -> Option<Verdict> {
    let details = tonic_types::pb::Status::decode(status.details()).ok()?.details;
    let found = details.iter().find(|any| any.type_url.ends_with("/sublet.v1.Verdict"))?;
    Verdict::decode(found.value.as_slice()).ok()
}

/// A time of a receipt; none where it is absent.
pub fn time(duration: Option<&prost_types::Duration>) -> Duration {
    duration.and_then(|duration| Duration::try_from(*duration).ok()).unwrap_or_default()
}
