//! The compiled filters against a real kernel, for every number and for every argument that a rule looks at.
//!
//! Nothing that the sweep asks for is ever done, so it may ask for reboot. The child installs the allowlist first, in a version
//! whose answers are errnos that no kernel uses: [`PASSED`] for what is on the list, [`ANNOUNCED`] for what would be announced.
//! The other filters come after it. Of several filters that answer with an errno the kernel takes the one installed last, so
//! their errnos win over both, as they win over an announcement in a sandbox.

use std::{collections::BTreeMap, fmt::Write as _, ops::RangeInclusive};

use nix::{errno::Errno, sys::wait::WaitStatus};
use seccompiler::{BpfProgram, sock_filter};

use super::{
    ARCHITECTURE, Answer, Filters, RET_ALLOW, RET_ERRNO, RET_USER_NOTIF, RETURN, X32_BIT, answer,
    arguments::{Allow, NOT_DONE, RULES, Rule, Value, union},
    combinations, errno_of_announced, names, submasks, sys,
};
use crate::sys::AnnouncedCall;

/// Errnos that no kernel uses: let pass by the function's filters, and announced to init.
const PASSED: i32 = 4000;
const ANNOUNCED: i32 = 4001;
/// With this argument, and only with it, exit_group is done.
const END: u64 = 77;
/// Small values, all of which are tried wherever an argument is looked at.
const SMALL: RangeInclusive<u64> = 0..=300;
/// Options, all of which are tried with each small level.
const OPTIONS: RangeInclusive<u64> = 0..=130;
const HIGH_HALVES: [u64; 3] = [1 << 32, 1 << 63, 0xffff_ffff << 32];

type Question = (i64, [u64; 6]);

/// What the kernel answers to the questions, in their order.
fn ask(own_inodes: bool, questions: &[Question]) -> Vec<Answer> {
    let filters = Filters::compile(own_inodes).unwrap();
    let errno = |errno: i32| RET_ERRNO | errno as u32;
    // Behind the check of the architecture and the load of the number: seccomp, with which the others are installed, and the end.
    const PROLOGUE: usize = 4;
    let first: BpfProgram = filters.function_allowlist[..PROLOGUE]
        .iter()
        .cloned()
        .chain(
            [
                (0x15, 4, 0, libc::SYS_seccomp as u32),
                (0x15, 0, 4, libc::SYS_exit_group as u32),
                (0x20, 0, 0, 16),
                (0x15, 1, 0, END as u32),
                (0x06, 0, 0, errno(PASSED)),
                (0x06, 0, 0, 0x7fff_0000),
            ]
            .map(|(code, jt, jf, k)| sock_filter { code, jt, jf, k }),
        )
        .chain(filters.function_allowlist[PROLOGUE..].iter().map(|one| match (one.code, one.k) {
            (RETURN, RET_ALLOW) => sock_filter { k: errno(PASSED), ..one.clone() },
            (RETURN, RET_USER_NOTIF) => sock_filter { k: errno(ANNOUNCED), ..one.clone() },
            _ => one.clone(),
        }))
        .collect();
    let answers = sys::Answers::new(questions.len()).unwrap();
    let ended = sys::in_child(|| {
        let installed = nix::sys::prctl::set_no_new_privs().is_ok()
            && [&first].into_iter().chain(&filters.function).all(|program| crate::sys::install_filter(program).is_ok());
        if installed {
            for (at, (number, arguments)) in questions.iter().enumerate() {
                answers.set(at, sys::call(*number, arguments));
            }
            sys::call(libc::SYS_exit_group, &[END, 0, 0, 0, 0, 0]);
        }
    });
    assert!(matches!(ended, Ok(WaitStatus::Exited(_, code)) if code == END as i32), "{ended:?}");
    let announced = |(number, arguments): &Question| AnnouncedCall {
        id: 0,
        architecture: ARCHITECTURE,
        number: *number,
        arguments: *arguments,
    };
    (0..questions.len())
        .map(|at| match answers.get(at) {
            PASSED => Answer::Allowed,
            ANNOUNCED => Answer::Announced(errno_of_announced(&announced(&questions[at]))),
            errno => Answer::Fails(errno),
        })
        .collect()
}

/// Holds the kernel's answers against the policy's meaning, and gives them by question.
fn swept(own_inodes: bool, questions: Vec<Question>) -> BTreeMap<Question, Answer> {
    let answers = ask(own_inodes, &questions);
    let mut wrong = Vec::new();
    for ((number, arguments), seen) in questions.iter().zip(&answers) {
        let meant = answer(own_inodes, *number, arguments);
        if meant != *seen {
            wrong.push(format!(
                "{} {arguments:x?}: the policy says {meant:?}, the kernel {seen:?}",
                names::name(*number)
            ));
        }
    }
    assert!(
        wrong.is_empty(),
        "{} of {} differ:\n{}",
        wrong.len(),
        questions.len(),
        wrong[..wrong.len().min(20)].join("\n")
    );
    questions.into_iter().zip(answers).collect()
}

/// Values that a rule lets pass.
fn admitted(allow: &Allow) -> Vec<u64> {
    let plain = |values: &[Value]| values.iter().map(|(value, _)| u64::from(*value)).collect();
    match allow {
        Allow::OneOf(values) => plain(values),
        Allow::With { bases, flags } => combinations(bases, flags).into_iter().map(u64::from).collect(),
        Allow::Bits { bits, .. } => [vec![0, union(bits).into()], plain(bits)].concat(),
        Allow::Masked { one_of, .. } => plain(one_of),
        Allow::Pairs(levels) => levels.iter().map(|level| level.level.0.into()).collect(),
        Allow::AtMost { when, .. } => vec![when.0.into()],
    }
}

/// Arguments that all rules of a call let pass.
fn base(call: &str) -> [u64; 6] {
    let mut arguments = [0; 6];
    for rule in RULES {
        for (_, at) in rule.calls.iter().filter(|(name, _)| *name == call) {
            arguments[*at] = match rule.allow {
                Allow::AtMost { .. } => arguments[*at],
                _ => admitted(&rule.allow)[0],
            };
            if let Allow::Pairs(levels) = rule.allow {
                arguments[*at + 1] = levels[0].options[0].0.into();
            }
        }
    }
    arguments
}

/// Each value, with each of its 64 bits flipped, and with upper halves; small values; single bits.
fn around(values: &[u64]) -> Vec<u64> {
    let mut out: Vec<u64> = SMALL.collect();
    out.extend((0..64).map(|shift| 1_u64 << shift));
    out.extend([u64::MAX, u32::MAX.into(), i32::MAX as u64]);
    for value in values {
        out.push(*value);
        out.extend((0..64).map(|shift| value ^ (1 << shift)));
        out.extend(HIGH_HALVES.map(|high| value | high));
    }
    out
}

/// The questions to which a rule gives rise, for one of its calls.
fn questions(rule: &Rule, call: &str, at: usize) -> Vec<Question> {
    let number = names::number(call).unwrap();
    let with = |changes: &[(usize, u64)]| {
        let mut arguments = base(call);
        for (index, value) in changes {
            arguments[*index] = *value;
        }
        (number, arguments)
    };
    let mut out: Vec<Question> = around(&admitted(&rule.allow)).into_iter().map(|value| with(&[(at, value)])).collect();
    match rule.allow {
        Allow::Pairs(levels) => {
            for level in SMALL {
                out.extend(OPTIONS.map(|option| with(&[(at, level), (at + 1, option)])));
            }
            for level in levels {
                let options: Vec<u64> = level.options.iter().map(|(option, _)| (*option).into()).collect();
                out.extend(
                    around(&options).into_iter().map(|option| with(&[(at, level.level.0.into()), (at + 1, option)])),
                );
            }
        }
        Allow::AtMost { when, most } => {
            let limited = around(&[0, most - 1, most, most + 1]);
            out.extend(limited.into_iter().map(|value| with(&[(at, when.0.into()), (at + 1, value)])));
        }
        Allow::Masked { mask, .. } => {
            // Every value below the mask, with everything outside of it set as well.
            for value in submasks(mask) {
                out.extend([with(&[(at, value.into())]), with(&[(at, u64::from(value | !mask))])]);
            }
        }
        Allow::OneOf(_) | Allow::With { .. } | Allow::Bits { .. } => {}
    }
    out
}

fn told(answer: Answer) -> String {
    match answer {
        Answer::Allowed => "allowed".to_owned(),
        Answer::Announced(errno) => format!("{:?} and named", Errno::from_raw(errno)),
        Answer::Fails(NOT_DONE) => "says done".to_owned(),
        Answer::Fails(errno) => format!("{:?}", Errno::from_raw(errno)),
    }
}

/// "0 EINVAL, 1-2 allowed, 3-300 EINVAL".
fn runs(answers: impl Iterator<Item = (u64, Answer)>) -> String {
    let mut runs: Vec<(u64, u64, Answer)> = Vec::new();
    for (value, answer) in answers {
        match runs.last_mut() {
            Some((_, last, same)) if *same == answer && value == *last + 1 => *last = value,
            _ => runs.push((value, value, answer)),
        }
    }
    let one = |(first, last, answer): &(u64, u64, Answer)| match first == last {
        true => format!("{first} {}", told(*answer)),
        false => format!("{first}-{last} {}", told(*answer)),
    };
    runs.iter().map(one).collect::<Vec<_>>().join(", ")
}

/// What the kernel answered, for the eye.
fn listing(
    numbers: &BTreeMap<Question, Answer>,
    shared: &BTreeMap<Question, Answer>,
    arguments: &BTreeMap<Question, Answer>,
) -> String {
    let mut text = String::from(
        "# What a function's system calls get, as a kernel answered with the filters installed.\n\
         # Written by seccomp::sweep; change the tables, then run its tests with SUBLET_GOLDEN=write, and read the difference.\n\
         # allowed: done by the kernel. and named: announced to init, which reports it. says done: succeeds, nothing is done.\n\n",
    );
    let looked_at: Vec<&str> = RULES.iter().flat_map(|rule| rule.calls.iter().map(|(call, _)| *call)).collect();
    for ((number, _), answer) in numbers {
        let name = names::name(*number);
        let answer =
            if looked_at.contains(&name.as_str()) { "by argument, see below".to_owned() } else { told(*answer) };
        if !name.starts_with('#') {
            writeln!(text, "{number} {name}: {answer}").unwrap();
        }
    }
    let rest = numbers.iter().filter(|((number, _), _)| names::name(*number).starts_with('#'));
    writeln!(text, "no name: {}", runs(rest.map(|((number, _), answer)| (*number as u64, *answer)))).unwrap();
    writeln!(text, "\nwhere workers share inodes:").unwrap();
    for ((number, _), answer) in shared.iter().filter(|(question, answer)| numbers[question] != **answer) {
        writeln!(text, "{number} {}: {}", names::name(*number), told(*answer)).unwrap();
    }
    for rule in RULES {
        for (call, at) in rule.calls {
            let number = names::number(call).unwrap();
            let of = |changes: &[(usize, u64)]| {
                let mut question = (number, base(call));
                for (index, value) in changes {
                    question.1[*index] = *value;
                }
                arguments[&question]
            };
            writeln!(text, "\n{call}, argument {at}: {}", rule.reason).unwrap();
            match rule.allow {
                Allow::Pairs(levels) => {
                    for level in levels {
                        let (value, name) = level.level;
                        let options = OPTIONS.map(|option| (option, of(&[(*at, value.into()), (at + 1, option)])));
                        writeln!(text, "  level {value} {name}: {}", runs(options)).unwrap();
                        for (option, name) in level.options {
                            writeln!(text, "    {option} {name}").unwrap();
                        }
                    }
                    let mut others: BTreeMap<String, u64> = BTreeMap::new();
                    for level in SMALL.filter(|level| levels.iter().all(|known| u64::from(known.level.0) != *level)) {
                        for option in OPTIONS {
                            *others.entry(told(of(&[(*at, level), (at + 1, option)]))).or_default() += 1;
                        }
                    }
                    writeln!(text, "  any other level up to {}: {others:?}", SMALL.end()).unwrap();
                }
                Allow::AtMost { when, most } => {
                    for value in [0, most - 1, most, most + 1, 1 << 31, 1 << 32, u64::MAX] {
                        let answer = told(of(&[(*at, when.0.into()), (at + 1, value)]));
                        writeln!(text, "  {} {value:#x}: {answer}", when.1).unwrap();
                    }
                }
                Allow::OneOf(values) | Allow::Masked { one_of: values, .. } => {
                    writeln!(text, "  {}", runs(SMALL.map(|value| (value, of(&[(*at, value)]))))).unwrap();
                    for (value, name) in values {
                        writeln!(text, "    {value:#x} {}: {name}", told(of(&[(*at, (*value).into())]))).unwrap();
                    }
                }
                Allow::With { bases, flags } => {
                    writeln!(text, "  {}", runs(SMALL.map(|value| (value, of(&[(*at, value)]))))).unwrap();
                    for (value, name) in bases {
                        let answers =
                            combinations(&[(*value, "")], flags).into_iter().map(|value| of(&[(*at, value.into())]));
                        let answers: Vec<String> = answers.map(told).collect();
                        writeln!(text, "    {value:#x} with none, each and all flags {}: {name}", answers.join(" "))
                            .unwrap();
                    }
                }
                Allow::Bits { bits, .. } => {
                    let each = (0..64).map(|shift| (shift, of(&[(*at, 1_u64 << shift)])));
                    writeln!(text, "  bit by bit: {}", runs(each)).unwrap();
                    for (value, name) in bits {
                        writeln!(text, "    {value:#x} {}: {name}", told(of(&[(*at, (*value).into())]))).unwrap();
                    }
                }
            }
            if !matches!(rule.allow, Allow::AtMost { .. }) {
                let first = base(call)[*at];
                let answers: Vec<String> = HIGH_HALVES.map(|high| told(of(&[(*at, first | high)]))).to_vec();
                writeln!(text, "  {first:#x} with bits of the upper half: {}", answers.join(", ")).unwrap();
            }
        }
    }
    text
}

#[test]
fn kernel_answers_what_the_policy_says() {
    let x32 = i64::from(X32_BIT);
    let numbers = (0..1024).chain([x32 - 1]).chain(x32..x32 + 560).chain([x32 * 2 - 1, -1, i64::from(i32::MIN)]);
    // The sweep itself needs exit_group and seccomp. The trampolines of the host's probes call the other two; newer kernels ask no filter about
    // them, and end a process that calls them from elsewhere.
    let left_out = ["exit_group", "seccomp", "uretprobe", "uprobe"].map(|name| names::number(name).unwrap());
    let numbers = numbers.filter(|number| !left_out.contains(number));
    let numbers: Vec<Question> = numbers.map(|number| (number, base(&names::name(number)))).collect();
    let shared = swept(false, numbers.clone());
    let numbers = swept(true, numbers);
    let by_argument = RULES.iter().flat_map(|rule| rule.calls.iter().flat_map(|(call, at)| questions(rule, call, *at)));
    let arguments = swept(true, by_argument.collect());
    assert!(arguments.len() > 10_000, "{} questions", arguments.len());
    let text = listing(&numbers, &shared, &arguments);
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/src/seccomp/golden.txt");
    if std::env::var_os("SUBLET_GOLDEN").is_some_and(|value| value == "write") {
        std::fs::write(path, &text).unwrap();
    }
    let golden = std::fs::read_to_string(path).unwrap();
    let differs = golden.lines().zip(text.lines()).find(|(old, new)| old != new);
    assert!(golden == text, "golden.txt says otherwise, first (old, new) {differs:?}; see the head of that file");
}

/// How a child ends that makes a call by the 32-bit ABI under these filters. 7: refused with [`ANNOUNCED`]; 8: it was done.
fn end_of_foreign_call(programs: &[&BpfProgram]) -> nix::Result<WaitStatus> {
    sys::in_child(|| {
        let is_installed = nix::sys::prctl::set_no_new_privs().is_ok()
            && programs.iter().all(|program| crate::sys::install_filter(program).is_ok());
        if is_installed {
            match sys::foreign_call() {
                result if result == -ANNOUNCED => crate::sys::exit_now(7),
                _ => crate::sys::exit_now(8),
            }
        }
    })
}

#[test]
fn call_by_the_32_bit_abi_is_announced_and_ends_an_init() {
    // Without the filters it works: the kernel may have no such ABI, and then this proves nothing.
    let without = end_of_foreign_call(&[]);
    if !matches!(without, Ok(WaitStatus::Exited(_, 8))) {
        println!("skipped: this kernel has no 32-bit ABI ({without:?})");
        return;
    }
    let filters = Filters::compile(true).unwrap();
    let told: BpfProgram = filters
        .function_allowlist
        .iter()
        .map(|one| match (one.code, one.k) {
            (RETURN, RET_USER_NOTIF) => sock_filter { k: RET_ERRNO | ANNOUNCED as u32, ..one.clone() },
            _ => one.clone(),
        })
        .collect();
    let all: Vec<&BpfProgram> = filters.function.iter().chain([&told]).collect();
    let ended = end_of_foreign_call(&all);
    assert!(matches!(ended, Ok(WaitStatus::Exited(_, 7))), "{ended:?}");
    for program in [&filters.init, &filters.init_with_token] {
        let ended = end_of_foreign_call(&[program]);
        assert!(matches!(ended, Ok(WaitStatus::Signaled(_, nix::sys::signal::Signal::SIGSYS, _))), "{ended:?}");
    }
}
