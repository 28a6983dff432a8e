//! The closed list of reasons: what ErrorInfo says to callers and `sublet faults` to operators.

use sublet_pool::{LimitLevel, Refusal};
use sublet_proto::v1::VerdictKind;

use super::rejection::Rejection;

/// Why a call was not accepted.
pub const fn of_rejection(rejection: &Rejection) -> &'static str {
    match rejection {
        Rejection::UnknownTenant { .. } => "TENANT_UNKNOWN",
        Rejection::UnknownFunction { .. } => "FUNCTION_UNKNOWN",
        Rejection::Label(_) | Rejection::LabelMissing { .. } => "SUB_TENANT_INVALID",
        Rejection::LabelOnShared { .. } => "SUB_TENANT_NOT_TAKEN",
        Rejection::PayloadTooLarge { .. } => "PAYLOAD_TOO_LARGE",
        Rejection::DeadlinePast => "DEADLINE_PAST",
        Rejection::Refused(refusal, _) => of_refusal(refusal),
    }
}

const fn of_refusal(refusal: &Refusal) -> &'static str {
    match refusal {
        Refusal::QueueFull { .. } => "QUEUE_FULL",
        Refusal::CallsFull { level: LimitLevel::Host, .. } => "HOST_CALLS_FULL",
        Refusal::CallsFull { level: LimitLevel::Tenant, .. } => "TENANT_CALLS_FULL",
        Refusal::CallsFull { level: LimitLevel::Function, .. } => "FUNCTION_CALLS_FULL",
        Refusal::CallsFull { level: LimitLevel::SubTenant, .. } => "SUB_TENANT_CALLS_FULL",
        Refusal::CallsWaitingFull { .. } => "HOST_QUEUE_FULL",
        Refusal::RateLimited { level: LimitLevel::SubTenant, .. } => "SUB_TENANT_RATE",
        Refusal::RateLimited { level: LimitLevel::Host | LimitLevel::Tenant | LimitLevel::Function, .. } => {
            "TENANT_RATE"
        }
        Refusal::Draining => "DRAINING",
        Refusal::DeadlinePast => "DEADLINE_PAST",
        Refusal::UnknownFunction => "FUNCTION_UNKNOWN",
        Refusal::CrashBackoff { .. } => "CRASH_BACKOFF",
    }
}

/// Why an accepted call did not end well.
pub const fn of_verdict(kind: VerdictKind) -> &'static str {
    match kind {
        VerdictKind::Memory => "MEMORY",
        VerdictKind::Pids => "PIDS",
        VerdictKind::Disk => "DISK",
        VerdictKind::Inodes => "INODES",
        VerdictKind::Descriptors => "DESCRIPTORS",
        VerdictKind::Cpu => "CPU",
        VerdictKind::Deadline => "DEADLINE",
        VerdictKind::Crash => "CRASH",
        VerdictKind::Exit => "EXIT",
        VerdictKind::RefusedSyscall => "REFUSED_SYSCALL",
        VerdictKind::BadFrame => "BAD_FRAME",
        VerdictKind::FunctionError => "FUNCTION_ERROR",
        VerdictKind::Start => "START",
        VerdictKind::AnswerTooLarge => "ANSWER_TOO_LARGE",
        VerdictKind::Evicted => "EVICTED",
        VerdictKind::Token => "TOKEN",
        VerdictKind::BadPayload => "BAD_PAYLOAD",
        VerdictKind::Unspecified => "INTERNAL",
    }
}
