//! A history from a seed, and how it is told when it breaks a rule.

use crate::{stats::Stats, world::World};

/// What came of a history in which every rule held.
#[derive(Clone, Debug)]
pub struct Report {
    /// Of all actions, in their order.
    pub hash: u64,
    /// What happened.
    pub stats: Stats,
}

/// Says which history it was when the pool itself panics in it.
struct Teller {
    seed: u64,
    calls: u64,
}

impl Drop for Teller {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("{}", replay(self.seed, self.calls));
        }
    }
}

fn replay(seed: u64, calls: u64) -> String {
    format!(
        "replay: SUBLET_SEED={seed} SUBLET_CALLS={calls} cargo test -p sublet-simulator one_seed -- --nocapture (and SUBLET_TOLD=1)"
    )
}

/// Runs one history of about so many calls. The pool's own books are checked after every `check_every`th step, the oracle's
/// rules after each.
///
/// # Panics
/// When a rule is broken; the message has what it takes to see it again.
pub fn run(seed: u64, calls: u64, check_every: u64) -> Report {
    history(seed, calls, check_every, false)
}

/// The same with a drain in the middle that is taken back.
///
/// # Panics
/// When a rule is broken.
pub fn run_with_break(seed: u64, calls: u64, check_every: u64) -> Report {
    history(seed, calls, check_every, true)
}

fn history(seed: u64, calls: u64, check_every: u64, has_break: bool) -> Report {
    let teller = Teller { seed, calls };
    let mut world = World::new(seed, calls, check_every);
    world.has_break = has_break;
    world.is_told = std::env::var_os("SUBLET_TOLD").is_some();
    if let Err(what) = world.run() {
        if world.is_told {
            println!("{:#?}", world.pool);
        }
        panic!("seed {seed}, step {}, tick {}: {what}", world.stats.steps, world.now.0);
    }
    drop(teller);
    Report { hash: world.hash, stats: world.stats }
}
