//! The reference of all reasons, proto/docs/errors.md, is written by these tests: what a verdict means is what the comments of
//! invoker.proto say, and its code and reason are those of the status that a caller gets.

use std::{collections::BTreeSet, fmt::Write as _, time::Duration};

use sublet_pool::{LabelError, LimitLevel, Refusal};
use sublet_proto::v1::{Verdict, VerdictKind};
use tonic::Status;
use tonic_types::StatusExt as _;

use super::status;
use crate::{
    driver::{call::Failure, rejection::Rejection},
    golden,
};

const PAGE: &str = "proto/docs/errors.md";
const PROTO: &str = include_str!("../../../proto/sublet/v1/invoker.proto");

/// The code as callers know it: RESOURCE_EXHAUSTED.
fn code(status: &Status) -> String {
    let mut text = String::new();
    for letter in format!("{:?}", status.code()).chars() {
        if letter.is_uppercase() && !text.is_empty() {
            text.push('_');
        }
        text.extend(letter.to_uppercase());
    }
    text
}

/// Every way in which a call is refused before a worker has it, with what it means. The reason says which of them are one.
fn refusals() -> Vec<(Failure, &'static str)> {
    let name = String::new;
    let wait = Duration::from_secs(1);
    let rejected = |rejection, help| (Failure::Rejected(rejection), help);
    let refused = |refusal, help| rejected(Rejection::Refused(refusal, None), help);
    let calls = |level, help| refused(Refusal::CallsFull { level, limit: 1, retry_after: wait }, help);
    let rate = |level, help| refused(Refusal::RateLimited { level, per_second: 1, retry_after: wait }, help);
    vec![
        rejected(Rejection::UnknownTenant { tenant: name() }, "The tenant is not in the configuration."),
        rejected(
            Rejection::UnknownFunction { tenant: name(), function: name() },
            "The tenant has no function of this name, or a reload has just removed it.",
        ),
        refused(Refusal::UnknownFunction, ""),
        rejected(
            Rejection::Label(LabelError::Empty),
            "The label is missing, longer than 256 bytes, or has a control character.",
        ),
        rejected(Rejection::LabelMissing { function: name() }, ""),
        rejected(
            Rejection::LabelOnShared { function: name() },
            "The call names a sub-tenant, and the function has `isolation = \"shared\"`.",
        ),
        rejected(
            Rejection::PayloadTooLarge { seen: 2, limit: 1, setting: name() },
            "The payload is larger than the function's `payload_max`.",
        ),
        rejected(Rejection::DeadlinePast, "No time was left when the call arrived."),
        refused(Refusal::DeadlinePast, ""),
        refused(
            Refusal::QueueFull { level: LimitLevel::Function, limit: 1, retry_after: wait },
            "`queue_max` calls of this sub-tenant already wait for this function.",
        ),
        refused(
            Refusal::CallsWaitingFull { limit: 1, retry_after: wait },
            "`calls_waiting_max` calls already wait on this host.",
        ),
        calls(LimitLevel::SubTenant, "The sub-tenant has `calls_in_flight_max` calls in flight."),
        calls(LimitLevel::Function, "The function has `calls_in_flight_max` calls in flight."),
        calls(LimitLevel::Tenant, "The tenant has `calls_in_flight_max` calls in flight."),
        calls(LimitLevel::Host, "The host has `calls_in_flight_max` calls in flight."),
        rate(LimitLevel::SubTenant, "The sub-tenant has made more calls than its `rate` allows."),
        rate(LimitLevel::Tenant, "The tenant has made more calls than its `rate` allows."),
        refused(
            Refusal::CrashBackoff { retry_after: wait },
            "This function has failed three times in a row for this sub-tenant. No worker is made for 100 ms, doubling to \
             30 s; then one call is tried.",
        ),
        refused(Refusal::Draining, "The supervisor is draining or stopping. Call another host."),
        (Failure::Cancelled, "The caller went away, and the worker that had the call was ended."),
        (
            Failure::Ours { error_id: name(), what: name() },
            "The host or sublet itself failed the call, never the function. An operator finds out why by the error id.",
        ),
    ]
}

/// Every verdict.
fn verdicts() -> impl Iterator<Item = VerdictKind> {
    (1..).map_while(|number| VerdictKind::try_from(number).ok())
}

/// What the comment above a value of the enum says.
fn comment(kind: VerdictKind) -> String {
    let at = PROTO.find(&format!("  {} = ", kind.as_str_name())).expect("it is in the proto");
    let lines: Vec<&str> = PROTO[..at].lines().rev().map_while(|line| line.trim().strip_prefix("// ")).collect();
    lines.into_iter().rev().collect::<Vec<_>>().join(" ")
}

#[test]
fn page_has_each_refusal_and_no_other() {
    let mut reasons = BTreeSet::new();
    let mut text = String::from("| reason | code | RetryInfo | meaning |\n|---|---|---|---|\n");
    for (failure, help) in refusals() {
        let status = status::of_failure(failure);
        let reason = status::reason_of(&status);
        let retry = if status.get_details_retry_info().is_some() { "yes" } else { "" };
        // Several ways of one reason stand beside each other.
        if reasons.insert(reason.clone()) {
            assert!(!help.is_empty(), "{reason}");
            writeln!(text, "| `{reason}` | {} | {retry} | {help} |", code(&status)).unwrap();
        } else {
            assert!(help.is_empty() || text.contains(help), "{reason}");
        }
    }
    golden::section(PAGE, "refusals", &text);
    // Every reason that the code can give is one of these or a verdict.
    let mut of_code: BTreeSet<String> = BTreeSet::new();
    for source in [include_str!("../driver/reason.rs"), include_str!("status.rs")] {
        let source = source.split("#[cfg(test)]").next().unwrap_or_default();
        let words = source
            .split('"')
            .skip(1)
            .step_by(2)
            .filter(|word| word.len() > 2 && word.bytes().all(|byte| byte.is_ascii_uppercase() || byte == b'_'));
        of_code.extend(words.map(str::to_owned));
    }
    let verdicts = verdicts().map(|kind| kind.as_str_name().trim_start_matches("VERDICT_KIND_").to_owned());
    assert_eq!(reasons.into_iter().chain(verdicts).collect::<BTreeSet<_>>(), of_code);
}

#[test]
fn page_has_each_verdict_of_the_proto_and_no_other() {
    let mut text = String::from("| verdict | code | meaning |\n|---|---|---|\n");
    for kind in verdicts() {
        let verdict = Verdict { kind: kind.into(), ..Verdict::default() };
        let status = status::of_failure(Failure::Verdict { verdict: Box::new(verdict), detail: String::new() });
        let reason = status::reason_of(&status);
        assert_eq!(format!("VERDICT_KIND_{reason}"), kind.as_str_name());
        let code = if kind == VerdictKind::Descriptors { "only a remark".to_owned() } else { code(&status) };
        writeln!(text, "| `{reason}` | {code} | {} |", comment(kind)).unwrap();
    }
    golden::section(PAGE, "verdicts", &text);
}
