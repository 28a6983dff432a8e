//! System call filters: the policy ([`policy`]) compiled by seccompiler, once per nursery.

pub mod names;
pub mod policy;

use std::collections::BTreeMap;

use seccompiler::{
    BpfProgram, SeccompAction, SeccompCmpArgLen, SeccompCmpOp, SeccompCondition, SeccompFilter, SeccompRule, TargetArch,
};

use self::policy::{ABSENT, ALLOWED, ArgumentRule, BY_ARGUMENT, INIT, INIT_TOKEN, Test};

#[cfg(not(target_arch = "x86_64"))]
compile_error!("the system call policy is written for x86_64; another architecture needs its own table and review");

/// Why a filter could not be made. Always a mistake in the policy, never of a caller.
#[derive(Debug, thiserror::Error)]
pub enum FilterError {
    /// A name that is not in the table.
    #[error("system call {0:?} is not in the table")]
    UnknownCall(&'static str),
    /// seccompiler refuses it.
    #[error("compile the system call filter")]
    Compile(#[from] seccompiler::BackendError),
}

/// The compiled filters.
#[derive(Clone, Debug)]
pub struct Filters {
    /// For functions, in the order of installation.
    pub function: Vec<BpfProgram>,
    /// The last of the function's: its refusals are announced on a listener.
    pub function_allowlist: BpfProgram,
    /// For init.
    pub init: BpfProgram,
    /// For init in a sandbox with a token.
    pub init_with_token: BpfProgram,
}

impl Filters {
    /// Compiles the policy.
    ///
    /// # Errors
    /// When the policy itself is wrong.
    pub fn compile() -> Result<Self, FilterError> {
        let mut function = Vec::new();
        let absent: Vec<_> = ABSENT.iter().flat_map(|(names, _)| names.iter().copied()).collect();
        function.push(compile(plain(&absent)?, SeccompAction::Allow, SeccompAction::Errno(libc::ENOSYS as u32))?);
        // One filter has one answer, so one filter per errno.
        for errno in errnos() {
            let mut rules = BTreeMap::<i64, Vec<SeccompRule>>::new();
            for rule in BY_ARGUMENT.iter().filter(|rule| rule.errno == errno) {
                for call in rule.calls {
                    rules.entry(number(call)?).or_default().extend(argument_rules(rule)?);
                }
            }
            function.push(compile(rules, SeccompAction::Allow, SeccompAction::Errno(errno as u32))?);
        }
        let allowed: Vec<_> = ALLOWED.iter().flat_map(|(names, _)| names.iter().copied()).chain(absent).collect();
        let function_allowlist = announce(compile(plain(&allowed)?, SeccompAction::Trace(0), SeccompAction::Allow)?);
        let init = compile(plain(INIT)?, SeccompAction::KillProcess, SeccompAction::Allow)?;
        let mut rules = plain(INIT)?;
        for (call, conditions) in INIT_TOKEN {
            rules.insert(number(call)?, vec![all_equal(conditions)?]);
        }
        let init_with_token = compile(rules, SeccompAction::KillProcess, SeccompAction::Allow)?;
        Ok(Self { function, function_allowlist, init, init_with_token })
    }

    /// Filters on a function's process, as /proc/PID/status counts them.
    pub fn function_count() -> u32 {
        // ABSENT, one per errno, the allowlist.
        1 + errnos().len() as u32 + 1
    }

    /// Filters on init.
    pub const INIT_COUNT: u32 = 1;
}

fn errnos() -> Vec<i32> {
    let mut errnos = Vec::new();
    for rule in BY_ARGUMENT {
        if !errnos.contains(&rule.errno) {
            errnos.push(rule.errno);
        }
    }
    errnos
}

fn number(name: &'static str) -> Result<i64, FilterError> {
    names::number(name).ok_or(FilterError::UnknownCall(name))
}

fn plain(calls: &[&'static str]) -> Result<BTreeMap<i64, Vec<SeccompRule>>, FilterError> {
    calls.iter().map(|name| Ok((number(name)?, Vec::new()))).collect()
}

fn compile(
    rules: BTreeMap<i64, Vec<SeccompRule>>,
    otherwise: SeccompAction,
    listed: SeccompAction,
) -> Result<BpfProgram, FilterError> {
    Ok(SeccompFilter::new(rules, otherwise, listed, TargetArch::x86_64)?.try_into()?)
}

/// One rule: every argument that is named is as it is named.
fn all_equal(conditions: &[(u8, u32)]) -> Result<SeccompRule, FilterError> {
    let condition = |(argument, value): &(u8, u32)| {
        SeccompCondition::new(*argument, SeccompCmpArgLen::Dword, SeccompCmpOp::Eq, u64::from(*value))
    };
    Ok(SeccompRule::new(conditions.iter().map(condition).collect::<Result<_, _>>()?)?)
}

/// The rules of a chain are alternatives; the conditions of one rule must all hold.
fn argument_rules(rule: &ArgumentRule) -> Result<Vec<SeccompRule>, FilterError> {
    use SeccompCmpArgLen::{Dword, Qword};
    let condition = |length, operator, value| SeccompCondition::new(rule.argument, length, operator, value);
    let mut out = Vec::new();
    match rule.refused_when {
        Test::Is(values) => {
            for value in values {
                out.push(SeccompRule::new(vec![condition(Dword, SeccompCmpOp::Eq, u64::from(*value))?])?);
            }
        }
        Test::IsNot(values) => {
            let all = values.iter().map(|value| condition(Dword, SeccompCmpOp::Ne, u64::from(*value)));
            out.push(SeccompRule::new(all.collect::<Result<_, _>>()?)?);
        }
        Test::AnyBit(bits) => {
            for bit in (0..32).map(|shift| 1_u64 << shift).filter(|bit| u64::from(bits) & bit != 0) {
                out.push(SeccompRule::new(vec![condition(Qword, SeccompCmpOp::MaskedEq(bit), bit)?])?);
            }
        }
        Test::Masked { mask, value } => {
            out.push(SeccompRule::new(vec![condition(Qword, SeccompCmpOp::MaskedEq(mask), value)?])?);
        }
    }
    Ok(out)
}

/// Turns the answer TRACE into USER_NOTIF, which seccompiler has no name for. The program holds no other TRACE.
fn announce(mut program: BpfProgram) -> BpfProgram {
    const SECCOMP_RET_TRACE: u32 = 0x7ff0_0000;
    const SECCOMP_RET_USER_NOTIF: u32 = 0x7fc0_0000;
    const BPF_RET_CONSTANT: u16 = 0x06;
    for instruction in &mut program {
        if instruction.code == BPF_RET_CONSTANT && instruction.k == SECCOMP_RET_TRACE {
            instruction.k = SECCOMP_RET_USER_NOTIF;
        }
    }
    program
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_call_in_the_policy_exists_and_compiles() {
        let filters = Filters::compile().unwrap();
        assert_eq!(filters.function.len() as u32 + 1, Filters::function_count());
    }

    #[test]
    fn no_call_is_listed_twice_in_one_list() {
        for list in [ABSENT, ALLOWED] {
            let names: Vec<_> = list.iter().flat_map(|(names, _)| names.iter()).collect();
            let unique: std::collections::BTreeSet<_> = names.iter().collect();
            assert_eq!(names.len(), unique.len());
        }
    }

    #[test]
    fn calls_with_argument_rules_are_on_the_allowlist_so_that_their_errno_stands() {
        let allowed: Vec<_> = ALLOWED.iter().flat_map(|(names, _)| names.iter()).collect();
        for rule in BY_ARGUMENT {
            assert!(rule.calls.iter().all(|call| allowed.contains(&call)), "{rule:?}");
        }
    }

    #[test]
    fn calls_that_must_never_be_allowed_are_not() {
        let allowed: Vec<_> = ALLOWED.iter().flat_map(|(names, _)| names.iter().copied()).collect();
        for call in [
            "ptrace",
            "mount",
            "umount2",
            "setns",
            "unshare",
            "seccomp",
            "bpf",
            "process_vm_readv",
            "reboot",
            "init_module",
            "open_by_handle_at",
            "name_to_handle_at",
            "mknod",
            "mknodat",
            "chroot",
            "pivot_root",
            "clock_settime",
            "settimeofday",
            "swapon",
            "acct",
            "syslog",
            "iopl",
            "ioperm",
            "capset",
            "setgroups",
        ] {
            assert!(names::number(call).is_some(), "{call} is not in the table, so this line proves nothing");
            assert!(!allowed.contains(&call), "{call}");
        }
    }

    #[test]
    fn the_allowlist_announces_and_never_traces() {
        let program = Filters::compile().unwrap().function_allowlist;
        assert!(program.iter().any(|i| i.code == 0x06 && i.k == 0x7fc0_0000));
        assert!(program.iter().all(|i| i.k != 0x7ff0_0000));
    }
}
