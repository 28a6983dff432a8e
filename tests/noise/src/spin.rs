//! The control: a stranger who keeps the cores busy and is confined by nobody. What it does to the quiet customer is
//! what sharing the machine does, whoever is in the way.

use std::{
    hint::black_box,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

use clap::Args;
use serde::Serialize;

use crate::{Error, SECONDS_MAX, print, say_ready, stdin};

/// Steps between two looks at the clock.
const STEPS: u64 = 100_000;

/// Arguments of the role.
#[derive(Args)]
pub struct Spin {
    #[arg(long, value_parser = clap::value_parser!(u64).range(1..=1024))]
    threads: u64,
    /// Longest it goes on.
    #[arg(long, value_parser = clap::value_parser!(u64).range(1..=SECONDS_MAX))]
    seconds: u64,
}

#[derive(Serialize)]
struct Report {
    seconds: f64,
    steps: u64,
}

/// Spins until stdin closes.
pub fn run(spin: &Spin) -> Result<(), Error> {
    let stop = Arc::new(AtomicBool::new(false));
    let asked = stop.clone();
    stdin::on_close(move || asked.store(true, Ordering::Relaxed));
    say_ready()?;
    let (start, end) = (Instant::now(), Instant::now() + Duration::from_secs(spin.seconds));
    let threads: Vec<_> = (0..spin.threads)
        .map(|_| {
            let stop = stop.clone();
            thread::spawn(move || {
                let mut steps = 0_u64;
                while !stop.load(Ordering::Relaxed) && Instant::now() < end {
                    for _ in 0..STEPS {
                        steps = black_box(steps + 1);
                    }
                }
                steps
            })
        })
        .collect();
    let mut steps = 0;
    for thread in threads {
        steps += thread.join().map_err(|_| Error::Useless("a spinning thread panicked".into()))?;
    }
    print(&Report { seconds: start.elapsed().as_secs_f64(), steps })
}
