//! Enough histories that what happens once in a million happens here.

use std::time::Instant;

use sublet_simulator::{Stats, mix, run};

/// In release mode what a year shows a small host; in debug mode enough to see that it works.
const CALLS: u64 = if cfg!(debug_assertions) { 60_000 } else { 10_000_000 };
/// The pool's own books are looked through after every so many steps; the oracle looks after each.
const CHECK_EVERY: u64 = if cfg!(debug_assertions) { 8 } else { 2 };

#[test]
fn every_rule_holds_in_ten_million_calls_and_every_fault_is_among_them() {
    let (began, mut stats, mut n) = (Instant::now(), Stats::default(), 0);
    while stats.calls < CALLS {
        n += 1;
        // Short histories begin and drain more often, long ones wander further.
        let calls = [100, 400, 2000][(n % 3) as usize];
        stats.add(&run(mix(n << 32), calls, CHECK_EVERY).stats);
    }
    let rate = stats.calls as f64 / began.elapsed().as_secs_f64();
    println!("{n} histories, {rate:.0} calls/s\n{}", stats.table());
    assert_eq!(stats.missing(), 0, "a kind of fault never happened");
}
