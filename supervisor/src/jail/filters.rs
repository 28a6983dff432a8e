//! The policy compiled by seccompiler, and installed for every thread.

use std::{collections::BTreeMap, io};

use seccompiler::{
    BpfProgram, SeccompAction, SeccompCmpArgLen, SeccompCmpOp, SeccompCondition, SeccompFilter, SeccompRule, TargetArch,
};
use sublet_shim::{install_filter_for_all_threads, seccomp::names};

use super::policy::{ABSENT, ALLOWED, BY_ARGUMENT, FORBIDDEN, Must};

/// Why a filter could not be made: a mistake in the policy.
#[derive(Debug, thiserror::Error)]
pub enum FilterError {
    /// A name that is not in the table.
    #[error("system call {0:?} is not in the table")]
    UnknownCall(&'static str),
    /// seccompiler refuses it.
    #[error("compile the system call filter: {0}")]
    Compile(#[from] seccompiler::BackendError),
}

type Rules = BTreeMap<i64, Vec<SeccompRule>>;

/// The three filters, in the order of installation. `pid` is the process they are for.
///
/// # Errors
/// When the policy itself is wrong.
pub fn compile(pid: u32) -> Result<[BpfProgram; 3], FilterError> {
    let absent = plain(ABSENT)?;
    // Allowed here as well, so that ENOSYS is the strictest answer they get.
    let mut allowed: Rules = plain(ALLOWED)?.into_iter().chain(absent.clone()).collect();
    for rule in BY_ARGUMENT {
        let alternatives = rule.when.iter().map(|arguments| alternative(arguments, pid));
        allowed.insert(number(rule.call)?, alternatives.collect::<Result<_, _>>()?);
    }
    Ok([
        filter(absent, SeccompAction::Allow, SeccompAction::Errno(libc::ENOSYS as u32))?,
        filter(plain(FORBIDDEN)?, SeccompAction::Allow, SeccompAction::KillProcess)?,
        filter(allowed, SeccompAction::Errno(libc::EPERM as u32), SeccompAction::Allow)?,
    ])
}

/// Installs them for every thread of this process, for good. no_new_privs must be set.
///
/// # Errors
/// What seccomp(2) says.
pub fn install([absent, forbidden, allowed]: &[BpfProgram; 3]) -> io::Result<()> {
    // The C library asks for what is absent with each thread that it starts: that is no news.
    install_filter_for_all_threads(absent, false)?;
    install_filter_for_all_threads(forbidden, true)?;
    install_filter_for_all_threads(allowed, true)
}

fn number(name: &'static str) -> Result<i64, FilterError> {
    names::number(name).ok_or(FilterError::UnknownCall(name))
}

fn plain(list: &[(&[&'static str], &str)]) -> Result<Rules, FilterError> {
    list.iter().flat_map(|(names, _)| *names).map(|name| Ok((number(name)?, Vec::new()))).collect()
}

fn alternative(arguments: &[(u8, Must)], pid: u32) -> Result<SeccompRule, FilterError> {
    let condition = |(argument, must): &(u8, Must)| {
        let (length, operator, value) = match *must {
            Must::Be(value) => (SeccompCmpArgLen::Dword, SeccompCmpOp::Eq, u64::from(value)),
            Must::Have { mask, value } => (SeccompCmpArgLen::Qword, SeccompCmpOp::MaskedEq(mask), value),
            Must::BeOurPid => (SeccompCmpArgLen::Dword, SeccompCmpOp::Eq, u64::from(pid)),
        };
        SeccompCondition::new(*argument, length, operator, value)
    };
    Ok(SeccompRule::new(arguments.iter().map(condition).collect::<Result<_, _>>()?)?)
}

fn filter(rules: Rules, otherwise: SeccompAction, listed: SeccompAction) -> Result<BpfProgram, FilterError> {
    Ok(SeccompFilter::new(rules, otherwise, listed, TargetArch::x86_64)?.try_into()?)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(list: &[(&'static [&'static str], &'static str)]) -> Vec<&'static str> {
        list.iter().flat_map(|(names, _)| names.iter().copied()).collect()
    }

    /// Everything that is ever allowed.
    fn allowed() -> Vec<&'static str> {
        names(ALLOWED).into_iter().chain(BY_ARGUMENT.iter().map(|rule| rule.call)).collect()
    }

    /// What the filters say to a call: the strictest answer of all, as the kernel takes it.
    fn answer(call: &str, arguments: [u64; 6]) -> u32 {
        let number = u32::try_from(names::number(call).unwrap()).unwrap();
        static FILTERS: std::sync::LazyLock<[BpfProgram; 3]> = std::sync::LazyLock::new(|| compile(77).unwrap());
        let answers = FILTERS.each_ref().map(|filter| run(filter, number, arguments));
        // KILL_PROCESS has the highest bit set and is the strictest; of the others the smallest is.
        if answers.contains(&KILL) { KILL } else { answers.into_iter().min().unwrap() }
    }

    const KILL: u32 = 0x8000_0000;
    const ALLOW: u32 = 0x7fff_0000;
    const EPERM: u32 = 0x0005_0000 | libc::EPERM as u32;

    /// A classic BPF machine, as far as seccompiler uses it (linux/filter.h, linux/bpf_common.h).
    fn run(program: &BpfProgram, number: u32, arguments: [u64; 6]) -> u32 {
        const AUDIT_ARCH_X86_64: u32 = 0xc000_003e;
        let load = |offset: u32| match offset {
            0 => number,
            4 => AUDIT_ARCH_X86_64,
            16.. => {
                let word = arguments[(offset as usize - 16) / 8];
                if offset.is_multiple_of(8) { word as u32 } else { (word >> 32) as u32 }
            }
            other => panic!("load of {other}"),
        };
        let (mut at, mut accumulator) = (0, 0_u32);
        loop {
            let instruction = &program[at];
            let k = instruction.k;
            at += 1;
            let jump = |holds: bool| usize::from(if holds { instruction.jt } else { instruction.jf });
            match instruction.code {
                0x20 => accumulator = load(k),
                0x54 => accumulator &= k,
                0x05 => at += k as usize,
                0x15 => at += jump(accumulator == k),
                0x25 => at += jump(accumulator > k),
                0x35 => at += jump(accumulator >= k),
                0x06 => return k,
                other => panic!("instruction {other:#x}"),
            }
        }
    }

    #[test]
    fn every_call_exists_is_on_one_list_and_compiles() {
        let mut all = allowed();
        all.extend(names(FORBIDDEN));
        all.extend(names(ABSENT));
        let unique: std::collections::BTreeSet<_> = all.iter().collect();
        assert_eq!(all.len(), unique.len());
        for name in &all {
            assert!(names::number(name).is_some(), "{name}");
        }
        assert!(compile(1).unwrap().iter().all(|filter| filter.len() < 4096));
    }

    #[test]
    fn calls_are_answered_as_their_list_says() {
        for name in names(FORBIDDEN) {
            assert_eq!(answer(name, [0; 6]), KILL, "{name}");
        }
        for name in names(ALLOWED) {
            assert_eq!(answer(name, [u64::MAX; 6]), ALLOW, "{name}");
        }
        for name in names(ABSENT) {
            assert_eq!(answer(name, [0; 6]), 0x0005_0000 | libc::ENOSYS as u32, "{name}");
        }
        for name in
            ["kill", "tkill", "bind", "listen", "seccomp", "chmod", "chown", "link", "symlink", "setrlimit", "setsid"]
        {
            assert_eq!(answer(name, [0; 6]), EPERM, "{name}");
        }
    }

    #[test]
    fn calls_of_the_hot_path_have_no_argument_rule() {
        let hot =
            ["epoll_wait", "recvmsg", "sendmsg", "recvfrom", "sendto", "read", "write", "writev", "futex", "pread64"];
        for name in hot.into_iter().chain(["clock_gettime", "sched_yield", "epoll_ctl", "pwrite64"]) {
            assert!(names(ALLOWED).contains(&name), "{name}");
        }
    }

    #[test]
    fn arguments_are_looked_at_bit_by_bit() {
        let thread = 0x3d_0f00;
        assert_eq!(answer("clone", [thread, 0, 0, 0, 0, 0]), ALLOW, "as the C library makes threads");
        assert_eq!(answer("clone", [17, 0, 0, 0, 0, 0]), EPERM, "as it forks");
        for namespace in [0x80, 0x2_0000, 0x200_0000, 0x400_0000, 0x800_0000, 0x1000_0000, 0x2000_0000, 0x4000_0000] {
            assert_eq!(answer("clone", [thread | namespace, 0, 0, 0, 0, 0]), EPERM, "{namespace:#x}");
        }
        for call in ["mmap", "mprotect"] {
            for (protection, expected) in [(0, ALLOW), (3, ALLOW), (4, EPERM), (5, EPERM), (7, EPERM)] {
                assert_eq!(answer(call, [0, 4096, protection, 0, 0, 0]), expected, "{call} {protection}");
            }
        }
        let cases: &[(&str, u8, &[u64])] = &[
            ("fcntl", 1, &[1, 2, 3, 4, 1030, 1033, 1034]),
            ("madvise", 2, &[4, 8, 14, 15, 102, 103]),
            ("ioctl", 1, &[0x5421]),
            ("prctl", 0, &[15]),
            ("socketpair", 0, &[1]),
            ("tgkill", 0, &[77]),
        ];
        for (call, argument, good) in cases {
            let with = |value: u64| {
                let mut arguments = [0; 6];
                arguments[usize::from(*argument)] = value;
                answer(call, arguments)
            };
            for value in *good {
                assert_eq!(with(*value), ALLOW, "{call} {value}");
                for bit in 0..32 {
                    let flipped = value ^ (1 << bit);
                    let expected = if good.contains(&flipped) { ALLOW } else { EPERM };
                    assert_eq!(with(flipped), expected, "{call} {flipped}");
                }
            }
        }
        assert_eq!(answer("setsockopt", [5, 6, 1, 0, 0, 0]), ALLOW);
        for (level, option) in [(1, 13), (6, 2), (6, 31), (1, 1), (0, 1)] {
            assert_eq!(answer("setsockopt", [5, level, option, 0, 0, 0]), EPERM, "{level} {option}");
        }
        assert_eq!(answer("prlimit64", [0, 3, 0, 1, 0, 0]), ALLOW);
        for arguments in [[1, 3, 0, 1, 0, 0], [0, 3, 1, 0, 0, 0], [0, 3, 1 << 40, 0, 0, 0]] {
            assert_eq!(answer("prlimit64", arguments), EPERM, "{arguments:?}");
        }
    }
}
