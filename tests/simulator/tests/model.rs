//! The pool does what a slow and obvious model does, on the same histories.

use sublet_simulator::{MODEL_ONCE_DIFFERED, compare, mix};

#[test]
fn pool_does_what_the_model_does() {
    let histories = if cfg!(debug_assertions) { 300 } else { 20_000 };
    let mut steps = 0;
    for n in 0..histories {
        match compare(mix(n), 400) {
            Ok(compared) => steps += compared,
            Err(what) => panic!("{what}"),
        }
    }
    println!("{histories} histories, {steps} steps compared");
    assert!(steps > histories as usize * 20, "the model seldom knows");
}

#[test]
fn seeds_that_once_differed_agree() {
    for (seed, length, what) in MODEL_ONCE_DIFFERED {
        if let Err(how) = compare(*seed, *length) {
            panic!("{what}: {how}");
        }
    }
}
