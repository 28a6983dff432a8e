//! A day of 100,000 sub-tenants, before and after a change of limits, and how long that took.
//!
//! `cargo run --release -p sublet-what-if --example day [SEED] [key=value ...]`
#![allow(clippy::print_stdout, reason = "an example talks to a terminal")]

use std::{
    error::Error,
    time::{Duration, Instant},
};

use sublet_pool::{FunctionPolicy, HostPolicy, SubTenantPolicy, TenantPolicy};
use sublet_what_if::{Change, Comparison, Function, Reader, Setup, Shape, Writer, generate, run};

fn setup(shape: &Shape) -> Result<Setup, Box<dyn Error>> {
    let host = HostPolicy {
        workers_max: 2000,
        starts_max: 8,
        calls_in_flight_max: 12_000,
        calls_waiting_max: 10_000,
        cells_memory_max: 256 << 20,
    };
    let sub_tenant =
        SubTenantPolicy { workers_max: 8, calls_in_flight_max: 2000, rate: None, weight: 100, queue_max: None };
    let tenant = TenantPolicy { workers_max: 2000, calls_in_flight_max: 12_000, rate: None, weight: 100, sub_tenant };
    let policy = FunctionPolicy {
        workers_max: 2000,
        workers_per_sub_tenant_max: 4,
        calls_in_flight_max: 12_000,
        queue_max: 100,
        idle_ttl: Duration::from_secs(600),
        freeze_after: Some(Duration::from_millis(100)),
        start_timeout: Duration::from_secs(10),
        calls_max: None,
        age_max: None,
        is_idempotent: false,
        cells_max: 16,
        cell_bytes: 4 << 20,
    };
    Ok(shape.setup(host, tenant, &Function::new(policy, Duration::from_secs(30)))?)
}

/// What the file format costs, disk left out.
fn through_text(shape: &Shape, seed: u64) -> Result<(), Box<dyn Error>> {
    let rows: Vec<_> = generate(shape, seed)?.take(1_000_000).collect();
    let started = Instant::now();
    let mut writer = Writer::new(Vec::new())?;
    rows.iter().try_for_each(|row| writer.write(row))?;
    let text = writer.finish()?;
    let written = started.elapsed();
    let started = Instant::now();
    let count = Reader::new(text.as_slice())?.filter(|row| row.is_ok()).count();
    println!(
        "{} rows, {} bytes: written in {written:.2?}, {count} read in {:.2?}",
        rows.len(),
        text.len(),
        started.elapsed()
    );
    Ok(())
}

fn main() -> Result<(), Box<dyn Error>> {
    let mut arguments = std::env::args().skip(1).peekable();
    let seed = match arguments.next_if(|argument| !argument.contains('=')) {
        Some(seed) => seed.parse()?,
        None => 1,
    };
    let mut changes = arguments.map(|argument| argument.parse()).collect::<Result<Vec<Change>, _>>()?;
    if changes.is_empty() {
        changes.push("host.workers_max=4000".parse()?);
    }
    let shape = Shape::default();
    let before = setup(&shape)?;
    let after = before.with(&changes)?;

    let started = Instant::now();
    let rows = generate(&shape, seed)?.count();
    println!("seed {seed}: {rows} rows generated in {:.2?}", started.elapsed());
    through_text(&shape, seed)?;
    let timed = |name: &str, setup: &Setup| -> Result<_, Box<dyn Error>> {
        let started = Instant::now();
        let report = run(setup, generate(&shape, seed)?.map(Ok))?;
        println!("{name}: generated and run in {:.2?}", started.elapsed());
        Ok(report)
    };
    let before = timed("before", &before)?;
    let after = timed("after", &after)?;
    println!("{}", Comparison { before, after });
    Ok(())
}
