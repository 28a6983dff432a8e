//! What a trace keeps of a call.

use std::time::Duration;

use sublet_proto::v1::{Verdict, VerdictKind};
use sublet_what_if::Outcome;

use super::{Answer, Failure};

/// How long a worker had the call, and what became of the worker. None for a call that no worker had.
pub(super) fn service(result: &Result<Answer, Failure>) -> Option<(Duration, Outcome)> {
    let wire = |duration: Option<prost_types::Duration>| Duration::try_from(duration?).ok();
    match result {
        Ok(answer) => Some((wire(answer.receipt.running)?, Outcome::Ok)),
        Err(Failure::Verdict { verdict, .. }) => {
            let receipt = verdict.receipt.as_ref().filter(|receipt| !receipt.worker.is_empty())?;
            Some((wire(receipt.running)?, outcome(verdict)))
        }
        Err(Failure::Rejected(_) | Failure::Ours { .. } | Failure::Cancelled) => None,
    }
}

fn outcome(verdict: &Verdict) -> Outcome {
    match verdict.kind() {
        VerdictKind::FunctionError | VerdictKind::BadPayload => Outcome::Error,
        VerdictKind::Memory
        | VerdictKind::Pids
        | VerdictKind::Disk
        | VerdictKind::Deadline
        | VerdictKind::Crash
        | VerdictKind::Exit
        | VerdictKind::RefusedSyscall
        | VerdictKind::BadFrame
        | VerdictKind::Start
        | VerdictKind::Token
        | VerdictKind::AnswerTooLarge
        | VerdictKind::Evicted
        | VerdictKind::Inodes
        | VerdictKind::Descriptors
        | VerdictKind::Cpu
        | VerdictKind::Unspecified => Outcome::Crash,
    }
}
