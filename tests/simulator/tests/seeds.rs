//! Histories with every rule checked after every step.

use sublet_simulator::{ONCE_FAILED, Stats, mix, run, run_with_break};

fn number(name: &str) -> Option<u64> {
    std::env::var(name).ok()?.parse().ok()
}

/// Replays what a failure printed; without a seed it takes the first.
#[test]
fn one_seed() {
    let (seed, calls) = (number("SUBLET_SEED").unwrap_or(0), number("SUBLET_CALLS").unwrap_or(500));
    let report = run(seed, calls, 1);
    println!("seed {seed}: hash {:016x}\n{}", report.hash, report.stats.table());
}

#[test]
fn seeds_that_once_failed_hold() {
    for (seed, calls, what) in ONCE_FAILED {
        println!("{seed}: {what}");
        run(*seed, *calls, 1);
    }
}

#[test]
fn same_seed_gives_the_same_history() {
    for seed in 0..20 {
        // How often the books are checked must not matter either.
        let (one, two) = (run(seed, 300, 1), run(seed, 300, 1000));
        assert_eq!((one.hash, one.stats.steps), (two.hash, two.stats.steps), "seed {seed}");
        assert_ne!(one.hash, run(seed + 1000, 300, 1000).hash);
    }
}

#[test]
fn every_rule_holds_after_every_step() {
    let (from, count) = (number("SUBLET_FROM").unwrap_or(0), if cfg!(debug_assertions) { 150 } else { 3000 });
    let mut stats = Stats::default();
    for n in from..from + number("SUBLET_HISTORIES").unwrap_or(count) {
        let calls = [60, 200, 600][(n % 3) as usize];
        stats.add(&run(mix(n), calls, 1).stats);
    }
    println!("{}", stats.table());
}

#[test]
fn drain_that_is_taken_back_breaks_no_rule() {
    for n in 0..if cfg!(debug_assertions) { 60 } else { 1000 } {
        let seed = mix(n);
        println!("history {n}: seed {seed}, 300 calls, with a break");
        run_with_break(seed, 300, 1);
    }
}
