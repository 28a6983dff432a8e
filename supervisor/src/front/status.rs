//! How the ends of a call look on the wire: google.rpc.Status, with an ErrorInfo of a closed list of reasons.
//!
//! Theirs and ours have different codes: a function's fault is never INTERNAL, and our own always is.

use std::collections::HashMap;

use bytes::Bytes;
use prost::Message;
use sublet_pool::Refusal;
use sublet_proto::{
    level::Level,
    v1::{Remark, Verdict, VerdictKind},
};
use tonic::{Code, Status};
use tonic_types::{ErrorDetails, StatusExt};

use crate::{
    driver::{call::Failure, limit_reached::LimitReached, reason, rejection::Rejection},
    logs::words::Words,
};

/// ErrorInfo's domain.
pub const DOMAIN: &str = "sublet";
/// What a function said and logged, in one status. It travels in the trailers of the answer, in base64, and common clients
/// take 8 KiB of them: with more they see no status at all, only a broken connection.
const WORDS_MAX_BYTES: usize = 3 * 1024;
/// The sentence of a verdict, and what was seen.
const SENTENCE_MAX_BYTES: usize = 256;
/// In ErrorInfo's metadata: what operators find the failure by.
const ERROR_ID: &str = "error_id";
/// In ErrorInfo's metadata: the limits that were hit and are not the reason, such as "PIDS,DISK".
const REMARKS: &str = "remarks";
/// Type of our detail, as google.protobuf.Any names it.
const VERDICT_TYPE: &str = "type.googleapis.com/sublet.v1.Verdict";

/// Code of a rejection.
const fn code_of_rejection(rejection: &Rejection) -> Code {
    match rejection {
        Rejection::UnknownTenant { .. }
        | Rejection::UnknownFunction { .. }
        | Rejection::Refused(Refusal::UnknownFunction, _) => Code::NotFound,
        Rejection::Label(_) | Rejection::LabelMissing { .. } | Rejection::LabelOnShared { .. } => Code::InvalidArgument,
        Rejection::DeadlinePast | Rejection::Refused(Refusal::DeadlinePast, _) => Code::DeadlineExceeded,
        Rejection::PayloadTooLarge { .. }
        | Rejection::Refused(
            Refusal::QueueFull { .. }
            | Refusal::CallsFull { .. }
            | Refusal::CallsWaitingFull { .. }
            | Refusal::RateLimited { .. },
            _,
        ) => Code::ResourceExhausted,
        Rejection::Refused(Refusal::Draining | Refusal::CrashBackoff { .. }, _) => Code::Unavailable,
    }
}

/// Code of a verdict.
const fn code_of_verdict(kind: VerdictKind) -> Code {
    match kind {
        VerdictKind::Memory
        | VerdictKind::Pids
        | VerdictKind::Disk
        | VerdictKind::Inodes
        | VerdictKind::Descriptors => Code::ResourceExhausted,
        VerdictKind::Deadline | VerdictKind::Cpu => Code::DeadlineExceeded,
        VerdictKind::Crash
        | VerdictKind::Exit
        | VerdictKind::RefusedSyscall
        | VerdictKind::BadFrame
        | VerdictKind::FunctionError
        | VerdictKind::AnswerTooLarge => Code::Unknown,
        VerdictKind::Start => Code::FailedPrecondition,
        VerdictKind::BadPayload => Code::InvalidArgument,
        VerdictKind::Evicted | VerdictKind::Token => Code::Unavailable,
        VerdictKind::Unspecified => Code::Internal,
    }
}

/// The status of a call that was not accepted.
pub fn of_rejection(error: &Rejection) -> Status {
    let (code, reason) = (code_of_rejection(error), reason::of_rejection(error));
    let reached = match error {
        Rejection::Refused(_, limit) => limit.as_deref().cloned(),
        Rejection::PayloadTooLarge { seen, limit, setting } => Some(LimitReached {
            level: Some(Level::Function),
            setting: setting.clone(),
            limit: format!("{limit} bytes"),
            observed: format!("{seen} bytes"),
        }),
        _ => None,
    };
    let LimitReached { level, setting, limit, observed } = reached.unwrap_or_default();
    let mut details = info(reason, metadata([&limit, &observed, level.map_or("", Level::name), &setting]));
    if let Rejection::Refused(refusal, _) = error
        && let Some(retry_after) = refusal.retry_after()
    {
        details.set_retry_info(Some(retry_after));
    }
    Status::with_error_details(code, error.to_string(), details)
}

/// What names a limit, for callers who have not got our types; what is empty is left out.
fn metadata(values: [&str; 4]) -> HashMap<String, String> {
    let named = ["limit", "observed", "level", "setting"].into_iter().zip(values);
    named.filter(|(_, value)| !value.is_empty()).map(|(name, value)| (name.to_owned(), value.to_owned())).collect()
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
        Failure::Verdict { verdict, .. } => of_verdict(&verdict),
        Failure::Ours { error_id, .. } => {
            let message = identified("the call was failed by sublet or its host, and not by the function", &error_id);
            let metadata = HashMap::from([(ERROR_ID.to_owned(), error_id)]);
            Status::with_error_details(Code::Internal, message, info("INTERNAL", metadata))
        }
        Failure::Cancelled => {
            Status::with_error_details(Code::Cancelled, "the caller went away", info("CANCELLED", HashMap::new()))
        }
    }
}

/// A sentence for callers, who can name their failure to the operator by its end.
fn identified(message: &str, error_id: &str) -> String {
    format!("{message} (error id {error_id})")
}

/// Our own fault, of which no more is known. The message goes to callers: it names nothing of the host.
pub fn internal(message: impl Into<String>) -> Status {
    Status::with_error_details(Code::Internal, message.into(), info("INTERNAL", HashMap::new()))
}

/// As much of a verdict as a status can carry: of what the function said the beginning, of its stdout and of its log the end.
/// Where the latter two need more room than there is, each has half of it at least.
fn cut(verdict: &Verdict) -> Verdict {
    let sentence = |text: &str| -> String {
        let kept = |(at, c): &(usize, char)| at + c.len_utf8() <= SENTENCE_MAX_BYTES;
        text.char_indices().take_while(kept).map(|(_, c)| c).collect()
    };
    let mut receipt = verdict.receipt.clone();
    for remark in receipt.iter_mut().flat_map(|receipt| &mut receipt.remarks) {
        remark.message = sentence(&remark.message);
        remark.setting = sentence(&remark.setting);
    }
    // Remarks have their room from the words.
    let remarks: usize = receipt.iter().flat_map(|receipt| &receipt.remarks).map(Remark::encoded_len).sum();
    let room = WORDS_MAX_BYTES.saturating_sub(remarks);
    let said = verdict.function_error.slice(..verdict.function_error.len().min(room));
    let log = Words { bytes: verdict.log_tail.clone(), platform_lines: verdict.platform_lines.clone() };
    let room = room - said.len();
    let stdout = verdict.stdout_tail.len().min(room.saturating_sub(log.bytes.len()).max(room / 2));
    let stdout_tail = verdict.stdout_tail.slice(verdict.stdout_tail.len() - stdout..);
    let Words { bytes: log_tail, platform_lines } = log.last(room - stdout);
    Verdict {
        message: sentence(&verdict.message),
        seen: sentence(&verdict.seen),
        setting: sentence(&verdict.setting),
        function_error: said,
        stdout_tail,
        log_tail,
        platform_lines,
        receipt,
        ..verdict.clone()
    }
}

/// With the verdict as a detail, and its core in the ErrorInfo for callers who have not got our types.
fn of_verdict(whole: &Verdict) -> Status {
    let found = &cut(whole);
    let (code, reason) = (code_of_verdict(found.kind()), reason::of_verdict(found.kind()));
    let mut metadata = metadata([&found.limit, &found.seen, &found.level, &found.setting]);
    metadata.insert(ERROR_ID.to_owned(), found.error_id.clone());
    let remarks = found.receipt.iter().flat_map(|receipt| &receipt.remarks);
    let remarks = remarks.map(|remark| reason::of_verdict(remark.kind())).collect::<Vec<_>>().join(",");
    if !remarks.is_empty() {
        metadata.insert(REMARKS.to_owned(), remarks);
    }
    let message = identified(&found.message, &found.error_id);
    let plain = Status::with_error_details(code, message.clone(), info(reason, metadata));
    // tonic-types knows Google's own details only; ours is added to the same google.rpc.Status.
    let Ok(mut status) = tonic_types::pb::Status::decode(plain.details()) else { return plain };
    status.details.push(prost_types::Any { type_url: VERDICT_TYPE.to_owned(), value: found.encode_to_vec() });
    Status::with_details(code, message, Bytes::from(status.encode_to_vec()))
}

/// The reason in a status, for clients; empty when there is none.
pub fn reason_of(status: &Status) -> String {
    status.get_details_error_info().map(|info| info.reason).unwrap_or_default()
}

/// What names the limit in a status, a line each, for clients.
pub fn limit_of(status: &Status) -> Vec<String> {
    let metadata = status.get_details_error_info().map(|info| info.metadata).unwrap_or_default();
    let mut lines: Vec<String> = metadata.iter().map(|(name, value)| format!("  {name}: {value}")).collect();
    lines.sort();
    lines
}

/// The verdict in a status, for clients.
pub fn verdict_of(status: &Status) -> Option<Verdict> {
    let details = tonic_types::pb::Status::decode(status.details()).ok()?.details;
    let found = details.iter().find(|any| any.type_url == VERDICT_TYPE)?;
    Verdict::decode(found.value.as_slice()).ok()
}

#[cfg(test)]
mod tests {
    use sublet_proto::v1::Receipt;

    use super::*;

    /// A verdict whose words are as long as they may get on the way.
    fn wordy() -> Verdict {
        Verdict {
            kind: VerdictKind::FunctionError.into(),
            message: "é".repeat(9000),
            seen: "é".repeat(9000),
            refused_syscalls: vec!["io_uring_register".into(); 16],
            setting: format!("tenant.{}.function.{}.memory_max", "t".repeat(63), "f".repeat(63)),
            error_id: "0123456789ab".into(),
            receipt: Some(Receipt {
                worker: "w-18446744073709551615".into(),
                lease: "f".repeat(32),
                exit: "signal 11 (SIGSEGV)".into(),
                remarks: vec![
                    Remark {
                        kind: VerdictKind::Descriptors.into(),
                        message: "é".repeat(9000),
                        limit: "16777216".into(),
                        seen: "16777216 bytes".into(),
                        setting: format!("tenant.{}.function.{}.memory_max", "t".repeat(63), "f".repeat(63)),
                        level: "sub-tenant".into(),
                    };
                    4
                ],
                ..Receipt::default()
            }),
            function_error: vec![b'e'; 64 << 10].into(),
            stdout_tail: [vec![b'o'; 64 << 10], b"the last of it".to_vec()].concat().into(),
            log_tail: [vec![b'x'; 64 << 10], b"the end".to_vec()].concat().into(),
            platform_lines: (0..1000).map(|number| (64 << 10) - 1000 + number).collect(),
            ..Verdict::default()
        }
    }

    #[test]
    fn every_status_fits_what_clients_take_as_trailers() {
        let status = of_verdict(&wordy());
        // Base64 for the details; the message's bytes beyond ASCII are written as three.
        let size = status.details().len().div_ceil(3) * 4 + status.message().len() * 3;
        assert!(size < 8 * 1024 - 512, "{size} bytes");
        assert_eq!(status.code(), Code::Unknown);
    }

    #[test]
    fn every_failure_has_its_id_and_ours_tell_nothing_but_that() {
        let told = |status: &Status| status.get_details_error_info().expect("an ErrorInfo").metadata;
        let verdict = of_failure(Failure::Verdict { verdict: Box::new(wordy()), detail: "/srv/f is gone".into() });
        assert!(verdict.message().ends_with(" (error id 0123456789ab)"), "{}", verdict.message());
        assert_eq!(told(&verdict)[ERROR_ID], "0123456789ab");
        assert_eq!(told(&verdict)[REMARKS], "DESCRIPTORS,DESCRIPTORS,DESCRIPTORS,DESCRIPTORS");
        let ours = of_failure(Failure::Ours { error_id: "00ff00ff00ff".into(), what: "open /sys/fs/cgroup/x".into() });
        assert_eq!((ours.code(), told(&ours)[ERROR_ID].as_str()), (Code::Internal, "00ff00ff00ff"));
        for status in [&verdict, &ours] {
            let details = String::from_utf8_lossy(status.details());
            for word in ["/srv", "/sys"] {
                assert!(!status.message().contains(word) && !details.contains(word), "{status:?}");
            }
        }
    }

    #[test]
    fn of_an_error_the_beginning_is_kept_and_of_a_log_the_end() {
        let told = |verdict: &Verdict| verdict_of(&of_verdict(verdict)).expect("a verdict");
        let plain = || Verdict { receipt: None, ..wordy() };
        let found = told(&plain());
        assert_eq!((found.function_error.len(), found.log_tail.len()), (WORDS_MAX_BYTES, 0));
        let short = || Verdict { function_error: "short".into(), ..plain() };
        let found = told(&Verdict { stdout_tail: "".into(), ..short() });
        assert_eq!(&found.function_error[..], b"short");
        assert!(found.log_tail.len() == WORDS_MAX_BYTES - 5 && found.log_tail.ends_with(b"the end"));
        // The log and stdout have half of the room each; what one does not need is the other's.
        let room = WORDS_MAX_BYTES - 5;
        let found = told(&short());
        assert_eq!((found.stdout_tail.len(), found.log_tail.len()), (room / 2, room - room / 2));
        assert!(found.stdout_tail.ends_with(b"the last of it") && found.log_tail.ends_with(b"the end"));
        let found = told(&Verdict { log_tail: "log".into(), platform_lines: Vec::new(), ..short() });
        assert_eq!((found.stdout_tail.len(), &found.log_tail[..]), (room - 3, &b"log"[..]));
        let found = told(&Verdict { stdout_tail: "out".into(), ..short() });
        assert_eq!((&found.stdout_tail[..], found.log_tail.len()), (&b"out"[..], room - 3));
        // Four remarks as long as they may get leave more than a third of the room to the words.
        assert!(told(&wordy()).function_error.len() > WORDS_MAX_BYTES / 3);
    }
}
