//! System call filters: the policy ([`policy`], [`arguments`]) compiled by seccompiler, once per nursery.
//!
//! [`answer`] is the policy's meaning in plain Rust. The tests in `sweep` install the compiled filters in a child process and
//! compare what the kernel answers with it, for every number and every argument that a rule looks at.

pub mod arguments;
pub mod names;
pub mod policy;
#[cfg(test)]
mod sweep;
#[cfg(test)]
mod sys;

use std::collections::BTreeMap;

use seccompiler::{
    BpfProgram, SeccompAction, SeccompCmpArgLen, SeccompCmpOp, SeccompCondition, SeccompFilter, SeccompRule,
    TargetArch, sock_filter,
};

use self::{
    arguments::{ANNOUNCED, Allow, NEVER_DONE, NOT_DONE, PROBED_ARGUMENTS, RULES, Rule, union},
    policy::{ABSENT, ABSENT_ON_SHARED_INODES, ALLOWED, INIT, INIT_TOKEN, PROBED},
};
use crate::sys::AnnouncedCall;

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
    /// A call whose rules cannot be said in the form that the allowlist needs.
    #[error("the rules of {0:?} are not of the kinds that can be announced")]
    NotToBeAnnounced(&'static str),
    /// seccompiler's programs begin in another way than this code knows.
    #[error("the compiled filter does not begin with the check of the architecture")]
    UnknownPrologue,
}

/// What a function's system call gets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Answer {
    /// The kernel does it.
    Allowed,
    /// The filter answers with this errno, or for [`NOT_DONE`] with success. Nothing is done, and nobody is told.
    Fails(i32),
    /// It is announced to init, which answers with this errno or has the worker ended.
    Announced(i32),
}

/// What the policy says to a call by a function. This is the meaning; the filters are compiled from the same tables.
pub fn answer(own_inodes: bool, number: i64, arguments: &[u64; 6]) -> Answer {
    let Some(name) = names::TABLE.iter().find(|(_, known)| *known == number).map(|(name, _)| *name) else {
        let is_unassigned = (0..X32_BIT.into()).contains(&number);
        return if is_unassigned { Answer::Fails(libc::ENOSYS) } else { Answer::Announced(libc::EPERM) };
    };
    if absent(own_inodes).any(|call| call == name) {
        return if is_listed(PROBED, name) { Answer::Fails(libc::ENOSYS) } else { Answer::Announced(libc::ENOSYS) };
    }
    if !is_listed(ALLOWED, name) {
        return Answer::Announced(libc::EPERM);
    }
    if is_listed(NEVER_DONE, name) {
        return Answer::Fails(NOT_DONE);
    }
    let mut answer = Answer::Allowed;
    for rule in RULES {
        for (_, at) in rule.calls.iter().filter(|(call, at)| *call == name && !rule.admits(*at, arguments)) {
            let is_probed = PROBED_ARGUMENTS
                .iter()
                .any(|probed| probed.calls.contains(&(name, *at)) && probed.value.0 == arguments[*at] as u32);
            if is_probed || !is_listed(ANNOUNCED, name) {
                return Answer::Fails(rule.errno);
            }
            answer = Answer::Announced(rule.errno);
        }
    }
    answer
}

/// The errno of a call that has been announced.
pub fn errno_of_announced(call: &AnnouncedCall) -> i32 {
    if call.architecture != ARCHITECTURE {
        return libc::EPERM;
    }
    // Where inodes are not shared, the calls that depend on it are allowed and not announced.
    match answer(false, call.number, &call.arguments) {
        Answer::Announced(errno) => errno,
        // The filters and this meaning are of the same tables, and the sweep compares them.
        Answer::Allowed | Answer::Fails(_) => libc::EPERM,
    }
}

/// What verdicts and logs say of a call that has been announced.
pub fn name_of_announced(call: &AnnouncedCall) -> String {
    if call.architecture == ARCHITECTURE {
        names::name(call.number)
    } else {
        format!("#{} of another architecture", call.number)
    }
}

/// AUDIT_ARCH_X86_64 of linux/audit.h.
const ARCHITECTURE: u32 = 0xc000_003e;

fn is_listed(lists: &[(&[&str], &str)], name: &str) -> bool {
    lists.iter().any(|(names, _)| names.contains(&name))
}

fn flat(lists: &'static [(&'static [&'static str], &'static str)]) -> impl Iterator<Item = &'static str> {
    lists.iter().flat_map(|(names, _)| names.iter().copied())
}

/// Calls answered with ENOSYS.
fn absent(own_inodes: bool) -> impl Iterator<Item = &'static str> {
    flat(ABSENT).chain(flat(if own_inodes { &[] } else { ABSENT_ON_SHARED_INODES }))
}

/// Numbers from here on are calls of the x32 ABI.
const X32_BIT: u32 = 0x4000_0000;

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
    /// Compiles the policy for workers with inodes of their own, or for such as share them.
    ///
    /// # Errors
    /// When the policy itself is wrong.
    pub fn compile(own_inodes: bool) -> Result<Self, FilterError> {
        let mut function = Vec::new();
        // One filter has one answer, so one filter per errno.
        for errno in errnos() {
            let mut rules = BTreeMap::<i64, Vec<SeccompRule>>::new();
            if errno == libc::ENOSYS {
                rules.extend(plain(flat(PROBED))?);
            }
            if errno == NOT_DONE {
                rules.extend(plain(flat(NEVER_DONE))?);
            }
            let mut front = Vec::new();
            for rule in RULES.iter().filter(|rule| rule.errno == errno) {
                for (call, at) in rule.calls {
                    if is_listed(ANNOUNCED, call) {
                        let probed = probed_arguments(call, *at)?;
                        // An entry without a rule would match whatever the arguments are.
                        if !probed.is_empty() {
                            rules.entry(number(call)?).or_default().extend(probed);
                        }
                        continue;
                    }
                    match rule.allow {
                        Allow::Bits { bits, long } => front.extend(bits_test(number(call)?, *at, bits, long, errno)),
                        _ => rules.entry(number(call)?).or_default().extend(refusals(rule, *at)?),
                    }
                }
            }
            front.splice(0..0, passed_at_once(|rule| rule.errno != errno)?);
            if errno == libc::ENOSYS {
                front.extend(unassigned_test());
            }
            let program = compile(rules, SeccompAction::Allow, SeccompAction::Errno(errno as u32))?;
            function.push(foreign_calls_get(RET_ALLOW, put_in_front(program, front)?)?);
        }
        let absent: Vec<_> = absent(own_inodes).filter(|call| !is_listed(PROBED, call)).collect();
        // What the other filters answer passes here, since an errno of any filter comes before an announcement.
        let passes = flat(ALLOWED).chain(flat(PROBED)).filter(|call| !absent.contains(call));
        let mut rules = plain(passes)?;
        for call in flat(ANNOUNCED) {
            rules.insert(number(call)?, admissions(call)?);
        }
        let allowlist = announce(compile(rules, SeccompAction::Trace(0), SeccompAction::Allow)?);
        let is_looked_at = |rule: &Rule| rule.calls.iter().any(|(call, _)| is_listed(ANNOUNCED, call));
        let allowlist = put_in_front(allowlist, passed_at_once(|rule| !is_looked_at(rule))?)?;
        let function_allowlist = foreign_calls_get(RET_USER_NOTIF, allowlist)?;
        let init = compile(plain(INIT.iter().copied())?, SeccompAction::KillProcess, SeccompAction::Allow)?;
        let mut rules = plain(INIT.iter().copied())?;
        for (call, conditions) in INIT_TOKEN {
            rules.insert(number(call)?, vec![all_equal(conditions)?]);
        }
        let init_with_token = compile(rules, SeccompAction::KillProcess, SeccompAction::Allow)?;
        Ok(Self { function, function_allowlist, init, init_with_token })
    }

    /// Filters on a function's process, as /proc/PID/status counts them.
    pub fn function_count() -> u32 {
        // One per errno, the allowlist.
        errnos().len() as u32 + 1
    }

    /// Filters on init.
    pub const INIT_COUNT: u32 = 1;
}

/// Every errno of the policy once, in the order of installation.
fn errnos() -> Vec<i32> {
    let mut errnos = vec![libc::ENOSYS, NOT_DONE];
    for rule in RULES {
        if !errnos.contains(&rule.errno) {
            errnos.push(rule.errno);
        }
    }
    errnos
}

fn number(name: &'static str) -> Result<i64, FilterError> {
    names::number(name).ok_or(FilterError::UnknownCall(name))
}

fn plain(calls: impl Iterator<Item = &'static str>) -> Result<BTreeMap<i64, Vec<SeccompRule>>, FilterError> {
    calls.map(|name| Ok((number(name)?, Vec::new()))).collect()
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

/// The arguments that a rule does not admit, as alternatives; the conditions of one alternative must all hold.
fn refusals(rule: &Rule, at: usize) -> Result<Vec<SeccompRule>, FilterError> {
    use SeccompCmpArgLen::{Dword, Qword};
    use SeccompCmpOp::{Eq, Gt, MaskedEq, Ne};
    let argument = at as u8;
    let condition = |argument: u8, length, operator, value| SeccompCondition::new(argument, length, operator, value);
    // seccompiler tests the last condition first; the tables name first what is used most.
    let none_of = |argument: u8, values: &mut dyn DoubleEndedIterator<Item = u32>| -> Result<Vec<_>, FilterError> {
        values.rev().map(|value| Ok(condition(argument, Dword, Ne, value.into())?)).collect()
    };
    let mut out = Vec::new();
    match rule.allow {
        Allow::OneOf(values) => {
            out.push(SeccompRule::new(none_of(argument, &mut values.iter().map(|(value, _)| *value))?)?);
        }
        Allow::With { bases, flags } => {
            let all = combinations(bases, flags);
            out.push(SeccompRule::new(none_of(argument, &mut all.into_iter())?)?);
        }
        // See bits_test.
        Allow::Bits { .. } => {}
        Allow::Masked { mask, one_of } => {
            // Every value that fits into the mask, but those.
            for value in submasks(mask).filter(|value| one_of.iter().all(|(allowed, _)| allowed != value)) {
                out.push(SeccompRule::new(vec![condition(argument, Dword, MaskedEq(mask.into()), value.into())?])?);
            }
        }
        Allow::Pairs(levels) => {
            out.push(SeccompRule::new(none_of(argument, &mut levels.iter().map(|level| level.level.0))?)?);
            for level in levels {
                let mut all = none_of(argument + 1, &mut level.options.iter().map(|(option, _)| *option))?;
                all.push(condition(argument, Dword, Eq, level.level.0.into())?);
                out.push(SeccompRule::new(all)?);
            }
        }
        Allow::AtMost { when, most } => {
            let all = vec![condition(argument + 1, Qword, Gt, most)?, condition(argument, Dword, Eq, when.0.into())?];
            out.push(SeccompRule::new(all)?);
        }
    }
    Ok(out)
}

/// The arguments of an announced call that all of its rules admit, as alternatives.
fn admissions(call: &'static str) -> Result<Vec<SeccompRule>, FilterError> {
    use SeccompCmpArgLen::Dword;
    let mut alternatives = vec![Vec::new()];
    for rule in RULES {
        for (_, at) in rule.calls.iter().filter(|(other, _)| *other == call) {
            let (values, operator): (_, &dyn Fn() -> SeccompCmpOp) = match rule.allow {
                Allow::OneOf(values) => (values, &|| SeccompCmpOp::Eq),
                Allow::With { bases, flags } => (bases, &move || SeccompCmpOp::MaskedEq((!union(flags)).into())),
                _ => return Err(FilterError::NotToBeAnnounced(call)),
            };
            let mut longer = Vec::new();
            for so_far in &alternatives {
                for (value, _) in values {
                    let condition = SeccompCondition::new(*at as u8, Dword, operator(), (*value).into())?;
                    longer.push([so_far.as_slice(), &[condition]].concat());
                }
            }
            alternatives = longer;
        }
    }
    Ok(alternatives.into_iter().map(SeccompRule::new).collect::<Result<_, _>>()?)
}

/// The arguments of an announced call that are refused without being announced.
fn probed_arguments(call: &str, at: usize) -> Result<Vec<SeccompRule>, FilterError> {
    let probed = PROBED_ARGUMENTS.iter().filter(|probed| probed.calls.contains(&(call, at)));
    let rule = |value: u32| {
        let condition = SeccompCondition::new(at as u8, SeccompCmpArgLen::Dword, SeccompCmpOp::Eq, value.into())?;
        SeccompRule::new(vec![condition])
    };
    Ok(probed.map(|probed| rule(probed.value.0)).collect::<Result<_, _>>()?)
}

/// Each base with each set of flags; those without flags and with the first flag alone come first.
fn combinations(bases: &[arguments::Value], flags: &[arguments::Value]) -> Vec<u32> {
    let sets = 0_u32..1 << flags.len();
    let set = |which: u32| {
        flags.iter().enumerate().filter(|(at, _)| which & (1 << at) != 0).fold(0, |all, (_, (flag, _))| all | flag)
    };
    sets.flat_map(|which| bases.iter().map(move |(base, _)| base | set(which))).collect()
}

/// Every value that has no bit outside of the mask.
fn submasks(mask: u32) -> impl Iterator<Item = u32> {
    // The well-known step to the next smaller one; it comes back to the mask after zero.
    let next = move |value: &u32| (*value != 0).then(|| (value - 1) & mask);
    std::iter::successors(Some(mask), next)
}

/// Ranges of numbers below the x32 ABI's that no kernel known here uses, both ends included.
fn unassigned() -> Vec<(u32, u32)> {
    let mut ranges = Vec::new();
    let mut next = 0;
    for (_, number) in names::TABLE {
        let number = *number as u32;
        if number > next {
            ranges.push((next, number - 1));
        }
        next = number + 1;
    }
    ranges.push((next, X32_BIT - 1));
    ranges
}

// What seccompiler has no words for, written in its instructions: code, jumps when true and when false, operand.
const LOAD: u16 = 0x20;
const JUMP_IF_EQUAL: u16 = 0x15;
const JUMP_IF_GREATER: u16 = 0x25;
const JUMP_IF_NOT_LESS: u16 = 0x35;
const JUMP_IF_ANY_BIT: u16 = 0x45;
const RETURN: u16 = 0x06;
const RET_ALLOW: u32 = 0x7fff_0000;
const RET_ERRNO: u32 = 0x0005_0000;
const RET_USER_NOTIF: u32 = 0x7fc0_0000;
const RET_KILL_PROCESS: u32 = 0x8000_0000;

fn instruction(code: u16, jt: u8, jf: u8, k: u32) -> sock_filter {
    sock_filter { code, jt, jf, k }
}

/// The check of the architecture, with which every program of seccompiler's begins.
const PROLOGUE: [u16; 3] = [LOAD, JUMP_IF_EQUAL, RETURN];

/// Where a program goes on behind that check.
///
/// # Errors
/// When it begins otherwise.
fn behind_prologue(program: &BpfProgram) -> Result<usize, FilterError> {
    // Offset in struct seccomp_data.
    const ARCHITECTURE: u32 = 4;
    let codes = program.iter().take(PROLOGUE.len()).map(|one| one.code);
    let is_known = codes.eq(PROLOGUE) && program[0].k == ARCHITECTURE && program[2].k == RET_KILL_PROCESS;
    if is_known { Ok(PROLOGUE.len()) } else { Err(FilterError::UnknownPrologue) }
}

/// Puts tests of the number in front of a program, behind its check of the architecture. Jumps in a program go forward and are
/// relative, so what follows can be moved.
fn put_in_front(program: BpfProgram, tests: Vec<sock_filter>) -> Result<BpfProgram, FilterError> {
    // Offset in struct seccomp_data.
    const NUMBER: u32 = 0;
    let (head, tail) = program.split_at(behind_prologue(&program)?);
    let number = [instruction(LOAD, 0, 0, NUMBER)];
    Ok(head.iter().cloned().chain(number).chain(tests).chain(tail.iter().cloned()).collect())
}

/// Gives calls by the numbers of another architecture this answer, where seccompiler would have them end the process. That
/// would be silent: a child's end by SIGSYS is seen by its parent alone.
fn foreign_calls_get(answer: u32, mut program: BpfProgram) -> Result<BpfProgram, FilterError> {
    let last = behind_prologue(&program)? - 1;
    program[last].k = answer;
    Ok(program)
}

/// Numbers that no kernel known here uses are answered with ENOSYS. seccompiler knows single numbers only.
fn unassigned_test() -> Vec<sock_filter> {
    let test = |(first, last)| {
        [
            instruction(JUMP_IF_NOT_LESS, 0, 2, first),
            instruction(JUMP_IF_GREATER, 1, 0, last),
            instruction(RETURN, 0, 0, RET_ERRNO | libc::ENOSYS as u32),
        ]
    };
    unassigned().into_iter().flat_map(test).collect()
}

/// All of a filter's answer to one call: its errno if a bit is set that must not be, otherwise it passes. seccompiler has no
/// "all bits outside of a mask are clear"; one rule for each bit made sends and receives slow.
fn bits_test(number: i64, at: usize, bits: &[arguments::Value], long: bool, errno: i32) -> Vec<sock_filter> {
    // struct seccomp_data: the arguments begin at 16, 8 bytes each, the low half first.
    let low = 16 + 8 * at as u32;
    let refuse = instruction(RETURN, 0, 0, RET_ERRNO | errno as u32);
    let mut test = vec![instruction(LOAD, 0, 0, low), instruction(JUMP_IF_ANY_BIT, 0, 1, !union(bits)), refuse.clone()];
    if long {
        test.extend([instruction(LOAD, 0, 0, low + 4), instruction(JUMP_IF_EQUAL, 1, 0, 0), refuse]);
    }
    test.push(instruction(RETURN, 0, 0, RET_ALLOW));
    test.insert(0, instruction(JUMP_IF_EQUAL, 0, test.len() as u8, number as u32));
    test
}

/// Calls that a filter has nothing to say to, but which some other one looks at. The kernel remembers what passes whatever the
/// arguments are; these it runs through every filter each time, so they do not go down the whole list.
fn passed_at_once(no_opinion: impl Fn(&Rule) -> bool) -> Result<Vec<sock_filter>, FilterError> {
    /// Made many times in each call of a function.
    const OFTEN: [&str; 6] = ["futex", "recvmsg", "sendmsg", "recvfrom", "sendto", "mmap"];
    let of_rules =
        || RULES.iter().filter(|rule| no_opinion(rule)).flat_map(|rule| rule.calls.iter().map(|(call, _)| *call));
    let often = OFTEN.into_iter().filter(|call| of_rules().any(|other| other == *call));
    let mut calls: Vec<&'static str> = Vec::new();
    for call in often.chain(of_rules()) {
        if !calls.contains(&call) {
            calls.push(call);
        }
    }
    let mut tests = Vec::new();
    for call in calls {
        tests.extend([instruction(JUMP_IF_EQUAL, 0, 1, number(call)? as u32), instruction(RETURN, 0, 0, RET_ALLOW)]);
    }
    Ok(tests)
}

/// Turns the answer TRACE into USER_NOTIF, which seccompiler has no name for. The program holds no other TRACE.
fn announce(mut program: BpfProgram) -> BpfProgram {
    const RET_TRACE: u32 = 0x7ff0_0000;
    for instruction in &mut program {
        if instruction.code == RETURN && instruction.k == RET_TRACE {
            instruction.k = RET_USER_NOTIF;
        }
    }
    program
}

#[cfg(test)]
mod tests {
    use super::{arguments::Probed, *};

    #[test]
    fn every_call_in_the_policy_exists_and_compiles() {
        let filters = Filters::compile(true).unwrap();
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
        for rule in RULES {
            assert!(rule.calls.iter().all(|(call, _)| allowed.contains(&call)), "{rule:?}");
        }
        for call in NEVER_DONE.iter().flat_map(|(names, _)| names.iter()) {
            assert!(allowed.contains(&call), "{call}");
        }
    }

    #[test]
    fn probed_calls_are_absent_and_probed_arguments_are_refused() {
        for call in flat(PROBED) {
            assert!(is_listed(ABSENT, call), "{call}");
        }
        for Probed { calls, value: (value, _), by: _ } in PROBED_ARGUMENTS {
            for (call, at) in *calls {
                assert!(is_listed(ANNOUNCED, call), "{call}: its refused arguments are not announced anyhow");
                let mut arguments = [0; 6];
                arguments[*at] = u64::from(*value);
                let of_call = RULES.iter().filter(|rule| rule.calls.contains(&(call, *at)));
                assert!(of_call.into_iter().any(|rule| !rule.admits(*at, &arguments)), "{call} {value}");
            }
        }
    }

    #[test]
    fn announced_call_has_the_errno_of_its_table_and_a_name() {
        let call = |name: &'static str, arguments| AnnouncedCall {
            id: 1,
            architecture: ARCHITECTURE,
            number: number(name).unwrap(),
            arguments,
        };
        let cases = [
            (call("userfaultfd", [0; 6]), libc::ENOSYS, "userfaultfd"),
            (call("flock", [0; 6]), libc::ENOSYS, "flock"),
            (call("mount", [0; 6]), libc::EPERM, "mount"),
            (call("socket", [40, 1, 0, 0, 0, 0]), libc::EAFNOSUPPORT, "socket"),
            (AnnouncedCall { number: 0x4000_0001, ..call("mount", [0; 6]) }, libc::EPERM, "#1073741825"),
            // write in the 32-bit table, stat in this one.
            (
                AnnouncedCall { architecture: 0x4000_0003, number: 4, ..call("mount", [0; 6]) },
                libc::EPERM,
                "#4 of another architecture",
            ),
        ];
        for (call, errno, name) in cases {
            assert_eq!((errno_of_announced(&call), name_of_announced(&call).as_str()), (errno, name));
        }
    }

    #[test]
    fn all_rules_of_one_call_have_one_errno_so_that_the_order_of_filters_does_not_matter() {
        let mut errnos = BTreeMap::new();
        for rule in RULES {
            for (call, _) in rule.calls {
                assert_eq!(*errnos.entry(call).or_insert(rule.errno), rule.errno, "{call}");
            }
        }
    }

    #[test]
    fn numbers_between_and_above_the_known_ones_are_unassigned() {
        assert_eq!(unassigned(), [(337, 423), (470, 0x3fff_ffff)]);
    }

    #[test]
    fn sub_masks_are_each_value_within_the_mask_once() {
        let mut all: Vec<u32> = submasks(0b1010).collect();
        all.sort_unstable();
        assert_eq!(all, [0, 0b10, 0b1000, 0b1010]);
    }

    #[test]
    fn program_that_begins_otherwise_is_not_moved() {
        let mut program = Filters::compile(true).unwrap().function_allowlist;
        program.swap(0, 1);
        assert!(matches!(put_in_front(program, Vec::new()), Err(FilterError::UnknownPrologue)));
    }

    #[test]
    fn call_whose_bits_are_looked_at_has_no_other_rule_since_its_test_ends_the_filter() {
        for rule in RULES.iter().filter(|rule| matches!(rule.allow, Allow::Bits { .. })) {
            for (call, _) in rule.calls {
                let rules = RULES.iter().filter(|rule| rule.calls.iter().any(|(other, _)| other == call));
                assert_eq!(rules.count(), 1, "{call}");
            }
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
        let program = Filters::compile(true).unwrap().function_allowlist;
        assert!(program.iter().any(|i| i.code == 0x06 && i.k == 0x7fc0_0000));
        assert!(program.iter().all(|i| i.k != 0x7ff0_0000));
    }
}
