//! The kernel tests. Each case starts a real `sublet serve`, calls it over gRPC and looks at what the kernel did.
//!
//! The same program runs on every ground: natively, in a privileged container, in a guest with a pure cgroup v2 kernel.
//! What a ground cannot show is skipped by name, never passed.

mod appetite;
mod authors;
mod bad_input;
mod beginnings;
mod cage;
mod calls;
mod cells;
mod channel;
mod client;
mod configs;
mod counters;
mod deploy;
mod faults;
mod ground;
mod groups;
mod health;
mod history;
mod hostile;
mod inside;
mod isolation;
mod jail;
mod lambda;
mod life;
#[cfg(test)]
mod listed;
mod litter;
mod load;
mod logs;
mod mixed;
mod neighbours;
mod picture;
mod places;
mod pool;
mod pulse;
mod quotas;
mod reach;
mod reload;
mod restart;
mod streams;
mod supervisor;
mod text;
mod tokens;
mod trace;
mod unruly;
mod usage;
mod verdicts;

use libtest_mimic::{Arguments, Failed, Trial};

/// What a case gives.
pub type Outcome = Result<(), String>;

/// One case: its name, what the ground must have, what to do.
#[derive(Clone, Copy, Debug)]
pub struct Case {
    name: &'static str,
    needs: &'static [ground::Need],
    run: fn() -> Outcome,
}

/// The error in words, as cases tell it.
pub fn told<T, E: std::fmt::Display>(result: Result<T, E>) -> Result<T, String> {
    result.map_err(|error| error.to_string())
}

/// A case without needs beyond a kernel that `sublet doctor` accepts.
const fn case(name: &'static str, run: fn() -> Outcome) -> Case {
    Case { name, needs: &[], run }
}

fn main() {
    let arguments = Arguments::from_args();
    let ground = ground::Ground::find();
    eprintln!("ground: {ground}");
    let trials = all().into_iter().map(|case| {
        let lacking: Vec<&str> = case.needs.iter().filter_map(|need| ground.lacks(*need)).collect();
        let name = if lacking.is_empty() {
            case.name.to_owned()
        } else {
            format!("{} [skipped: {}]", case.name, lacking.join(", "))
        };
        Trial::test(name, move || {
            let left_before = litter::found();
            let outcome = (case.run)();
            let left = litter::since(&left_before);
            outcome.map_err(Failed::from)?;
            if left.is_empty() { Ok(()) } else { Err(Failed::from(format!("left behind: {}", left.join(", ")))) }
        })
        .with_ignored_flag(!lacking.is_empty())
    });
    // One at a time: a supervisor and its load have the machine, and litter has one owner.
    let arguments = Arguments { test_threads: Some(1), ..arguments };
    libtest_mimic::run(&arguments, trials.collect()).exit();
}

/// All cases, in the order in which they run.
fn all() -> Vec<Case> {
    [
        verdicts::CASES,
        cage::CASES,
        channel::CASES,
        counters::CASES,
        calls::CASES,
        isolation::CASES,
        life::CASES,
        cells::CASES,
        pool::CASES,
        reload::CASES,
        deploy::CASES,
        restart::CASES,
        quotas::CASES,
        usage::CASES,
        lambda::CASES,
        streams::CASES,
        trace::CASES,
        bad_input::CASES,
        load::CASES,
        authors::CASES,
        logs::CASES,
        text::CASES,
        tokens::CASES,
        mixed::CASES,
        history::CASES,
        jail::CASES,
        neighbours::CASES,
        picture::CASES,
        beginnings::CASES,
        hostile::CASES,
        inside::CASES,
        health::CASES,
        pulse::CASES,
        groups::CASES,
        places::CASES,
        faults::CASES,
        reach::CASES,
        appetite::CASES,
        unruly::CASES,
    ]
    .concat()
}

/// Fails with words instead of a panic.
#[macro_export]
macro_rules! ensure {
    ($condition:expr, $($message:tt)+) => {
        let holds: bool = $condition;
        if !holds {
            return Err(format!($($message)+));
        }
    };
}
