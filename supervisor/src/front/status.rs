//! How the ends of a call look on the wire: google.rpc.Status, with an ErrorInfo of a closed list of reasons.
//!
//! Theirs and ours have different codes: a function's fault is never INTERNAL, and our own always is.

use std::collections::HashMap;

use bytes::Bytes;
use prost::Message;
use sublet_pool::{LimitLevel, Refusal};
use sublet_proto::v1::{Verdict, VerdictKind};
use tonic::{Code, Status};
use tonic_types::{ErrorDetails, StatusExt};

use crate::driver::{call::Failure, rejection::Rejection};

/// ErrorInfo's domain.
pub const DOMAIN: &str = "sublet";
/// Type of our detail, as google.protobuf.Any names it.
const VERDICT_TYPE: &str = "type.googleapis.com/sublet.v1.Verdict";

/// Code and reason of a rejection.
fn rejection(rejection: &Rejection) -> (Code, &'static str) {
    match rejection {
        Rejection::UnknownTenant { .. } => (Code::NotFound, "TENANT_UNKNOWN"),
        Rejection::UnknownFunction { .. } | Rejection::Refused(Refusal::UnknownFunction) => {
            (Code::NotFound, "FUNCTION_UNKNOWN")
        }
        Rejection::Label(_) | Rejection::LabelMissing { .. } => (Code::InvalidArgument, "SUB_TENANT_INVALID"),
        Rejection::LabelOnShared { .. } => (Code::InvalidArgument, "SUB_TENANT_NOT_TAKEN"),
        Rejection::PayloadTooLarge { .. } => (Code::ResourceExhausted, "PAYLOAD_TOO_LARGE"),
        Rejection::DeadlinePast | Rejection::Refused(Refusal::DeadlinePast) => {
            (Code::DeadlineExceeded, "DEADLINE_PAST")
        }
        Rejection::Refused(Refusal::QueueFull { .. }) => (Code::ResourceExhausted, "QUEUE_FULL"),
        Rejection::Refused(Refusal::CallsFull { level, .. }) => (
            Code::ResourceExhausted,
            match level {
                LimitLevel::Host => "HOST_CALLS_FULL",
                LimitLevel::Tenant => "TENANT_CALLS_FULL",
                LimitLevel::Function => "FUNCTION_CALLS_FULL",
                LimitLevel::SubTenant => "SUB_TENANT_CALLS_FULL",
            },
        ),
        Rejection::Refused(Refusal::CallsWaitingFull { .. }) => (Code::ResourceExhausted, "HOST_QUEUE_FULL"),
        Rejection::Refused(Refusal::RateLimited { level, .. }) => (
            Code::ResourceExhausted,
            match level {
                LimitLevel::SubTenant => "SUB_TENANT_RATE",
                LimitLevel::Host | LimitLevel::Tenant | LimitLevel::Function => "TENANT_RATE",
            },
        ),
        Rejection::Refused(Refusal::Draining) => (Code::Unavailable, "DRAINING"),
        Rejection::Refused(Refusal::CrashBackoff { .. }) => (Code::Unavailable, "CRASH_BACKOFF"),
    }
}

/// Code and reason of a verdict.
fn verdict(kind: VerdictKind) -> (Code, &'static str) {
    match kind {
        VerdictKind::Memory => (Code::ResourceExhausted, "MEMORY"),
        VerdictKind::Pids => (Code::ResourceExhausted, "PIDS"),
        VerdictKind::Disk => (Code::ResourceExhausted, "DISK"),
        VerdictKind::Deadline => (Code::DeadlineExceeded, "DEADLINE"),
        VerdictKind::Crash => (Code::Unknown, "CRASH"),
        VerdictKind::Exit => (Code::Unknown, "EXIT"),
        VerdictKind::RefusedSyscall => (Code::Unknown, "REFUSED_SYSCALL"),
        VerdictKind::BadFrame => (Code::Unknown, "BAD_FRAME"),
        VerdictKind::FunctionError => (Code::Unknown, "FUNCTION_ERROR"),
        VerdictKind::Start => (Code::FailedPrecondition, "START"),
        VerdictKind::AnswerTooLarge => (Code::Unknown, "ANSWER_TOO_LARGE"),
        VerdictKind::Evicted => (Code::Unavailable, "EVICTED"),
        VerdictKind::Unspecified => (Code::Internal, "INTERNAL"),
    }
}

/// The status of a call that was not accepted.
pub fn of_rejection(error: &Rejection) -> Status {
    let (code, reason) = rejection(error);
    let mut details = info(reason, HashMap::new());
    if let Rejection::Refused(refusal) = error
        && let Some(retry_after) = refusal.retry_after()
    {
        details.set_retry_info(Some(retry_after));
    }
    Status::with_error_details(code, error.to_string(), details)
}

fn info(reason: &str, metadata: HashMap<String, String>) -> ErrorDetails {
    let mut details = ErrorDetails::new();
    details.set_error_info(reason, DOMAIN, metadata);
    details
}

/// The status of a call that has no answer.
pub fn of_failure(failure: Failure) -> Status {
    match failure {
        Failure::Rejected(rejection) => of_rejection(&rejection),
        Failure::Verdict(verdict) => of_verdict(&verdict),
        Failure::Ours(message) => internal(message),
        Failure::Cancelled => {
            Status::with_error_details(Code::Cancelled, "the caller went away", info("CANCELLED", HashMap::new()))
        }
    }
}

/// Our own fault.
pub fn internal(message: impl Into<String>) -> Status {
    Status::with_error_details(Code::Internal, message.into(), info("INTERNAL", HashMap::new()))
}

/// With the whole verdict as a detail, and its core in the ErrorInfo for callers who have not got our types.
fn of_verdict(found: &Verdict) -> Status {
    let (code, reason) = verdict(found.kind());
    let metadata = [("limit", &found.limit), ("seen", &found.seen), ("setting", &found.setting)]
        .into_iter()
        .filter(|(_, value)| !value.is_empty())
        .map(|(name, value)| (name.to_owned(), value.clone()))
        .collect();
    let plain = Status::with_error_details(code, found.message.clone(), info(reason, metadata));
    // tonic-types knows Google's own details only; ours is added to the same google.rpc.Status.
    let Ok(mut status) = tonic_types::pb::Status::decode(plain.details()) else { return plain };
    status.details.push(prost_types::Any { type_url: VERDICT_TYPE.to_owned(), value: found.encode_to_vec() });
    Status::with_details(code, found.message.clone(), Bytes::from(status.encode_to_vec()))
}

/// The reason in a status, for clients; empty when there is none.
pub fn reason_of(status: &Status) -> String {
    status.get_details_error_info().map(|info| info.reason).unwrap_or_default()
}

/// The verdict in a status, for clients.
pub fn verdict_of(status: &Status) -> Option<Verdict> {
    let details = tonic_types::pb::Status::decode(status.details()).ok()?.details;
    let found = details.iter().find(|any| any.type_url == VERDICT_TYPE)?;
    Verdict::decode(found.value.as_slice()).ok()
}
