//! Limits by chance, small enough that everything is short; and what operators do while calls run.

use std::{sync::Arc, time::Duration};

use sublet_pool::{
    Action, End, Event, FunctionPolicy, HostPolicy, PoolKey, Rate, SubTenant, SubTenantPolicy, TenantPolicy, Tick,
};

use crate::{
    oracle::Broken,
    rng::{Rng, mix},
    stats::Fault,
    world::{MILLI, World},
};

/// The most calls at once that a rate allows here.
pub(crate) const BURST_MAX: u32 = 30;

fn millis(n: u64) -> Duration {
    Duration::from_nanos(n * MILLI)
}

/// The label of a number; 0 is the shared one.
pub(crate) fn label(n: u64) -> SubTenant {
    match n.checked_sub(1) {
        None => SubTenant::shared(),
        Some(n) => SubTenant::try_from(n.to_string().as_str()).expect("a number is a label"),
    }
}

fn rate(rng: &mut Rng) -> Option<Rate> {
    let one = Rate { per_second: rng.range(1, 300) as u32, burst: rng.range(1, BURST_MAX.into()) as u32 };
    rng.one_in(4).then_some(one)
}

pub(crate) fn host(rng: &mut Rng) -> HostPolicy {
    HostPolicy {
        workers_max: rng.range(1, 12) as u32,
        starts_max: rng.range(1, 5) as u32,
        calls_in_flight_max: rng.range(5, 120) as u32,
        calls_waiting_max: rng.range(1, 80) as u32,
        cells_memory_max: rng.below(6),
    }
}

fn sub_tenant(rng: &mut Rng) -> SubTenantPolicy {
    SubTenantPolicy {
        // None at all is something an operator may want.
        workers_max: rng.range(u64::from(!rng.clone().one_in(30)), 4) as u32,
        calls_in_flight_max: rng.range(u64::from(!rng.clone().one_in(30)), 40) as u32,
        rate: rate(rng),
        weight: rng.range(1, 400) as u32,
        queue_max: rng.one_in(3).then(|| rng.range(1, 12) as u32),
    }
}

pub(crate) fn tenant(rng: &mut Rng) -> TenantPolicy {
    TenantPolicy {
        workers_max: rng.range(1, 10) as u32,
        calls_in_flight_max: rng.range(2, 90) as u32,
        rate: rate(rng),
        weight: rng.range(1, 400) as u32,
        sub_tenant: sub_tenant(rng),
    }
}

pub(crate) fn function(rng: &mut Rng) -> FunctionPolicy {
    let times = [1, 5, 30, 200, 1000, 30_000];
    FunctionPolicy {
        workers_max: rng.range(1, 8) as u32,
        workers_per_sub_tenant_max: rng.range(1, 4) as u32,
        calls_in_flight_max: rng.range(1, 60) as u32,
        queue_max: rng.range(1, 12) as u32,
        idle_ttl: millis(rng.pick(&times)),
        freeze_after: rng.pick(&[None, Some(Duration::ZERO), Some(millis(2)), Some(millis(40))]),
        start_timeout: millis(rng.pick(&times)),
        calls_max: rng.one_in(3).then(|| rng.range(1, 20)),
        age_max: rng.one_in(4).then(|| millis(rng.pick(&times))),
        is_idempotent: rng.one_in(3),
        cells_max: if rng.one_in(2) { 0 } else { rng.range(1, 4) as u32 },
        cell_bytes: rng.below(3),
    }
}

pub(crate) fn populate(world: &mut World) {
    for t in 0..world.rng.range(1, 3) {
        let policy = tenant(&mut world.rng);
        let id = world.pool.add_tenant(&Arc::from(format!("t{t}")), policy);
        world.oracle.add_tenant(policy);
        world.tenants.push(id);
        for _ in 0..world.rng.range(1, 3) {
            add_function(world, id);
        }
    }
}

fn add_function(world: &mut World, tenant: sublet_pool::TenantId) {
    let policy = function(&mut world.rng);
    world.revisions += 1;
    let id = world.pool.add_function(tenant, &Arc::from("f"), world.revisions, policy.clone());
    world.oracle.add_function(tenant.0 as usize, policy);
    world.live.push((tenant, id));
}

fn key(world: &mut World) -> PoolKey {
    world.some_key()
}

/// One thing that an operator does, or that happens to the clock.
pub(crate) fn operate(world: &mut World) -> Result<(), Broken> {
    match world.rng.below(12) {
        0 | 1 => {
            let key = key(world);
            let count = world.rng.range(1, 5) as u32;
            world.warm(&key, count)
        }
        2 => {
            let key = key(world);
            let is_set = world.rng.one_in(2);
            world.stats.count(if is_set { Fault::MinimumSet } else { Fault::MinimumTaken });
            let workers = if is_set { world.rng.range(1, 3) as u32 } else { 0 };
            world.step(Event::SetMinimum { key, workers })
        }
        3 => {
            let policy = host(&mut world.rng);
            world.set_host(policy)
        }
        4 => {
            let tenant_id = world.rng.pick(&world.tenants);
            world.stats.count(Fault::TenantSet);
            let policy = tenant(&mut world.rng);
            world.step(Event::SetTenant { tenant: tenant_id, policy })
        }
        5 | 6 => {
            let tenant = world.rng.pick(&world.tenants);
            let at = world.rng.below(world.labels.len() as u64) as usize;
            world.stats.count(Fault::SubTenantSet);
            // The next ones too: as many at once as somebody writes down.
            let policies = (0..world.rng.range(1, 3) as usize).map(|more| {
                let policy = sub_tenant(&mut world.rng);
                let label = world.labels[(at + more) % world.labels.len()].clone();
                (label, world.rng.one_in(2).then_some(policy))
            });
            let policies = policies.collect();
            world.step(Event::SetSubTenants { tenant, policies })
        }
        7 | 8 => {
            let (_, id) = world.rng.pick(&world.live);
            world.stats.count(Fault::FunctionSet);
            let policy = function(&mut world.rng);
            world.step(Event::SetFunction { function: id, policy })
        }
        9 => {
            // The old revision goes, or, now and then, is told to go twice.
            if world.rng.one_in(2) && world.oracle.has_room_for_functions() {
                let at = world.rng.below(world.live.len() as u64) as usize;
                let (tenant, function) = world.live.swap_remove(at);
                world.old.push(function);
                add_function(world, tenant);
                world.step(Event::Retire { function })
            } else if let Some(function) = world.old.last().copied() {
                world.step(Event::Retire { function })
            } else {
                Ok(())
            }
        }
        10 => world.evict(),
        _ => {
            if world.rng.one_in(8) {
                world.stats.count(Fault::ClockJump);
                world.now = Tick(world.now.0 + world.rng.skewed(3_600_000 * MILLI));
            }
            Ok(())
        }
    }
}

fn number_of(end: End) -> u64 {
    match end {
        End::Answered { worker, lease } => mix(worker.0) ^ lease.0,
        End::Deadline { at, worker } => mix(10 + at as u64) ^ worker.map_or(0, |w| w.0),
        End::Cancelled { at, worker } => mix(20 + at as u64) ^ worker.map_or(0, |w| w.0),
        End::WorkerDied { worker } => mix(30) ^ worker.0,
        End::StartFailed { worker } => mix(31) ^ worker.0,
        End::Evicted { worker } => mix(32) ^ worker.0,
        End::Refused(refusal) => mix(33) ^ refusal.retry_after().map_or(1, |after| after.as_nanos() as u64),
    }
}

/// Folds an action into the hash of a history.
pub(crate) fn fold(hash: u64, action: &Action) -> u64 {
    let key = |key: &PoolKey| u64::from(key.function.0) << 32 | crate::oracle::sub_index(&key.sub_tenant) as u64;
    let (kind, a, b) = match action {
        Action::MakeCell { worker, function } => (1, worker.0, function.0.into()),
        Action::Label { worker, key: k } => (2, worker.0, key(k)),
        Action::Spawn { worker, key: k } => (3, worker.0, key(k)),
        Action::Deliver { call, worker, lease, start, thaw, deadline } => {
            (4 + 16 * (*start as u64) + 64 * u64::from(*thaw), call.0, mix(worker.0 ^ mix(lease.0 ^ mix(deadline.0))))
        }
        Action::Settle { call, end } => (5, call.0, number_of(*end)),
        Action::Freeze { worker } => (6, worker.0, 0),
        Action::Kill { worker, why } => (7, worker.0, *why as u64),
        Action::Retired { function } => (8, function.0.into(), 0),
        Action::Drained => (9, 0, 0),
    };
    mix(hash ^ mix(kind ^ mix(a ^ mix(b))))
}
