//! `host.log_memory` bounds what the ring of logs really holds: what its records, its books and the allocator take.

mod sys;

use std::{
    sync::{Arc, atomic::Ordering},
    time::{Instant, SystemTime},
};

use sublet_supervisor::logs::{
    Logs,
    record::{Record, Source, What},
};

#[global_allocator]
static ALLOCATOR: sys::Counting = sys::Counting;

const LIMIT: usize = 4 << 20;

/// Workers, of so many sub-tenants, of so many tenants, which write by turns.
type Load = (usize, usize, usize);

fn source(worker: usize, (_, subs, tenants): Load) -> Arc<Source> {
    Arc::new(Source {
        tenant: format!("tenant-{}", worker % tenants),
        function: "function".into(),
        sub_tenant_hash: format!("s-{:032x}", worker % subs),
        worker: format!("w-{worker}"),
    })
}

/// What is held after so many lines. Each is of a call of its own.
fn held(logs: &Logs, load: Load, lines: usize) -> usize {
    // Living workers hold their names themselves; those that write one line and end leave them to the ring.
    let living: Vec<_> = (0..if load.0 < lines { load.0 } else { 0 }).map(|worker| source(worker, load)).collect();
    let before = sys::HELD.load(Ordering::Relaxed);
    for number in 0..lines {
        let worker = number % load.0;
        logs.take_in(vec![Record {
            at: SystemTime::now(),
            source: living.get(worker).cloned().unwrap_or_else(|| source(worker, load)),
            request: Some(format!("{number:032x}").into()),
            what: What::Line { text: format!("line {number}"), is_cut: false, is_platform: false },
        }]);
    }
    sys::HELD.load(Ordering::Relaxed) - before
}

#[test]
fn no_more_is_held_than_log_memory_whoever_writes() {
    // A worker for each line, a sub-tenant for each, a tenant for each; four workers; one.
    let lines = 60_000;
    for load in [(lines, 10, 1), (lines, lines, 1), (lines, lines, lines), (1000, 100, 10), (4, 2, 2), (1, 1, 1)] {
        let logs = Logs::new(LIMIT);
        let begin = Instant::now();
        let held = held(&logs, load, lines);
        let count = logs.range().count;
        println!(
            "{load:?}: {held} bytes for {count} records, {:.0} each; {:?} a line",
            held as f64 / count as f64,
            begin.elapsed() / u32::try_from(lines).unwrap()
        );
        assert!(held <= LIMIT, "{load:?}: {held} bytes held, and {LIMIT} are allowed");
        assert!(held >= LIMIT / 2, "{load:?}: {held} bytes held: the room is not used");
    }
}
