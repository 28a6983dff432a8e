//! The pool beside the model, on the same histories; a history that tells them apart is cut down before it is told.

use std::{sync::Arc, time::Duration};

use sublet_pool::{Blame, CallId, Event, FunctionPolicy, LeaseId, Pool, PoolKey, SubTenant, Tick, WorkerId};

use crate::{
    lab,
    model::{Life, Model, words},
    rng::Rng,
};

/// One thing to happen; what exactly follows from what there is by then.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Op {
    after: u64,
    kind: u64,
    pick: u64,
}

const MILLI: u64 = 1_000_000;

fn policy(rng: &mut Rng) -> FunctionPolicy {
    let millis = |n: u64| Duration::from_nanos(n * MILLI + 7);
    FunctionPolicy {
        workers_per_sub_tenant_max: rng.range(1, 3) as u32,
        queue_max: rng.range(1, 4) as u32,
        idle_ttl: millis(rng.pick(&[20, 100, 1000])),
        freeze_after: rng.pick(&[None, Some(millis(5)), Some(millis(50))]),
        start_timeout: millis(rng.pick(&[30, 300])),
        calls_max: rng.one_in(3).then(|| rng.range(1, 6)),
        age_max: rng.one_in(4).then(|| millis(rng.range(50, 900))),
        is_idempotent: rng.one_in(2),
        ..lab::function()
    }
}

/// Steps compared, or the step at which they differ and how.
fn run(seed: u64, ops: &[Op]) -> Result<usize, String> {
    let mut rng = Rng::new(seed);
    let (policy, places) = (policy(&mut rng), rng.range(3, 9) as u32);
    let mut pool = Pool::new(lab::host(places));
    let t = pool.add_tenant(&Arc::from("t"), lab::tenant(100));
    let keys: Vec<PoolKey> = (0..2)
        .flat_map(|f| {
            let function = pool.add_function(t, &Arc::from("f"), f, policy.clone());
            ["a", "b", "c"].map(|label| (function, label))
        })
        .map(|(function, label)| PoolKey { function, sub_tenant: SubTenant::try_from(label).expect("a label") })
        .collect();
    let mut model = Model::new(keys, policy, places as usize);
    let (mut now, mut calls, mut steps, mut out) = (Tick(1), 0, 0, Vec::new());
    for op in ops {
        let at = Tick(now.0 + op.after);
        while let Some(wake) = pool.next_wakeup().filter(|wake| *wake <= at) {
            step(&mut pool, &mut model, wake, Event::Timer, &mut out)?;
            steps += 1;
        }
        now = at;
        let Some(event) = event(op, now, &model, &mut calls) else { continue };
        step(&mut pool, &mut model, now, event, &mut out)?;
        steps += 1;
        if model.is_lost {
            break;
        }
    }
    Ok(steps)
}

fn step(
    pool: &mut Pool,
    model: &mut Model,
    now: Tick,
    event: Event,
    out: &mut Vec<sublet_pool::Action>,
) -> Result<(), String> {
    let mut expected = model.handle(now, &event);
    let told = format!("{now:?} {event:?}");
    pool.handle(now, event, out);
    let mut did: Vec<String> = out.drain(..).map(|action| words(&action)).collect();
    if std::env::var_os("MODEL_TOLD").is_some() {
        eprintln!("{told}: {expected:?}");
    }
    expected.sort();
    did.sort();
    if model.is_lost || did == expected {
        Ok(())
    } else {
        Err(format!("{told}\n  pool  {did:?}\n  model {expected:?}"))
    }
}

fn event(op: &Op, now: Tick, model: &Model, calls: &mut u64) -> Option<Event> {
    let one = |of: &dyn Fn(Life) -> bool| {
        let all: Vec<_> = model.workers.iter().filter(|w| of(w.life)).collect();
        (!all.is_empty()).then(|| all[op.pick as usize % all.len()])
    };
    let leased = one(&|life| matches!(life, Life::Leased(..)));
    let lease = leased
        .and_then(|w| if let Life::Leased(_, lease) = w.life { Some((WorkerId(w.id), LeaseId(lease))) } else { None });
    let any = one(&|_| true).map(|w| WorkerId(w.id));
    match op.kind {
        0..=7 => {
            *calls += 1;
            let key = model.keys[op.pick as usize % model.keys.len()].clone();
            // Now and then so long that its deadline is the last thing that could end its wait.
            let most = if op.pick.is_multiple_of(4) { 8000 * MILLI } else { 400 * MILLI };
            let time = 1 + op.pick / 7 % most;
            Some(Event::Invoke { call: CallId(*calls), key, deadline: Tick(now.0 + time) })
        }
        8..=12 => one(&|life| life == Life::Starting).map(|w| Event::Started { worker: WorkerId(w.id) }),
        13..=17 => lease.map(|(worker, lease)| Event::Answered { worker, lease, clean: !op.pick.is_multiple_of(16) }),
        18..=22 => one(&|life| life == Life::Leaving).map(|w| Event::Reaped { worker: WorkerId(w.id) }),
        23 => (*calls > 0).then(|| Event::Cancel { call: CallId(1 + op.pick % *calls) }),
        24 => one(&|life| life == Life::Starting).map(|w| {
            let blame = if op.pick.is_multiple_of(3) { Blame::Ours } else { Blame::Theirs };
            Event::StartFailed { worker: WorkerId(w.id), blame }
        }),
        25 => lease.filter(|_| op.pick.is_multiple_of(2)).map(|(worker, lease)| Event::Undelivered { worker, lease }),
        26 => any.map(|worker| Event::Died { worker }),
        27 => any.map(|worker| Event::Started { worker }),
        28 => any.map(|worker| Event::Answered { worker, lease: LeaseId(op.pick % 50), clean: true }),
        _ => any.map(|worker| Event::Made { worker }),
    }
}

fn history(seed: u64, length: usize) -> Vec<Op> {
    let mut rng = Rng::new(!seed);
    let pace = rng.pick(&[MILLI / 10, MILLI, 10 * MILLI, 40 * MILLI]);
    (0..length).map(|_| Op { after: rng.skewed(pace * 4), kind: rng.below(30), pick: rng.bits() >> 1 }).collect()
}

/// Compares both on the history of a seed; the steps that were compared.
///
/// # Errors
/// How they differ, with the shortest history found that shows it.
pub fn compare(seed: u64, length: usize) -> Result<usize, String> {
    let mut ops = history(seed, length);
    let mut what = match run(seed, &ops) {
        Ok(steps) => return Ok(steps),
        Err(what) => what,
    };
    // Cuts out pieces, smaller and smaller, as long as they still differ.
    let mut piece = ops.len() / 2;
    while piece > 0 {
        let mut at = 0;
        while at + piece <= ops.len() {
            let mut shorter = ops.clone();
            shorter.drain(at..at + piece);
            match run(seed, &shorter) {
                Err(again) => (ops, what) = (shorter, again),
                Ok(_) => at += piece,
            }
        }
        piece /= 2;
    }
    Err(format!("seed {seed}, {} of {length} operations: {what}\n{ops:?}", ops.len()))
}
