//! Many sub-tenants: what one that is only remembered costs, and what a step takes. Times are printed and never asserted,
//! for the machine may have other things to do.

mod sys;

use std::{sync::Arc, time::Duration, time::Instant};

use sublet_pool::{End, FunctionId, Pool, PoolKey, Rate, Start, SubTenant, SubTenantPolicy, TenantPolicy};
use sublet_simulator::{
    Rng,
    lab::{self, Lab, Times},
};

#[global_allocator]
static ALLOCATOR: sys::Counting = sys::Counting;

const MILLI: u64 = 1_000_000;
const SECOND: u64 = 1000 * MILLI;
const SUB_TENANTS: u64 = 100_000;
const WORKERS: u32 = 2000;
const TIMES: Times = Times { make: 20 * MILLI, load: 60 * MILLI, service: 15 * MILLI, reap: 5 * MILLI };

fn key(function: FunctionId, n: u64) -> PoolKey {
    PoolKey { function, sub_tenant: SubTenant::try_from(format!("customer-{n:06}").as_str()).unwrap() }
}

fn tenant(rate: Option<Rate>) -> TenantPolicy {
    TenantPolicy { sub_tenant: SubTenantPolicy { rate, ..lab::sub_tenant(100) }, ..lab::tenant(100) }
}

/// Sub-tenants as heavy-tailed as web traffic: the n-th is called 1/n as often as the first.
struct Zipf(Vec<f64>);

impl Zipf {
    fn new(n: u64) -> Self {
        let mut sum = 0.0;
        Self(
            (1..=n)
                .map(|rank| {
                    sum += 1.0 / rank as f64;
                    sum
                })
                .collect(),
        )
    }

    fn pick(&self, rng: &mut Rng) -> u64 {
        let at = rng.unit() * self.0[self.0.len() - 1];
        self.0.partition_point(|sum| *sum < at) as u64
    }
}

#[test]
fn numbers_of_many_sub_tenants() {
    // One after the other: they count the bytes of the whole process, and measure time.
    known_sub_tenant_without_calls_and_workers_holds_less_than_200_bytes();
    step_with_2000_workers_and_100_000_known_sub_tenants();
    day_of_heavy_tailed_traffic();
}

fn known_sub_tenant_without_calls_and_workers_holds_less_than_200_bytes() {
    // Its bucket is full again a second after its call; all calls are made and all workers gone in a fifth of that.
    let rate = Rate { per_second: 1, burst: 10 };
    let times = Times { make: 10_000, load: 10_000, service: 10_000, reap: 10_000 };
    let mut lab = Lab::new(lab::host(WORKERS), times);
    let t = lab.pool.add_tenant(&Arc::from("acme"), tenant(Some(rate)));
    let policy = sublet_pool::FunctionPolicy { idle_ttl: Duration::from_millis(1), ..lab::function() };
    let f = lab.pool.add_function(t, &Arc::from("f"), 1, policy);
    for n in 0..SUB_TENANTS {
        lab.invoke(key(f, n));
        let until = lab.now + 1000;
        while lab.advance(until) {}
    }
    while lab.pool.counts().workers > 0 {
        assert!(lab.advance(SECOND), "workers go when their time is over");
    }
    let counts = lab.pool.counts();
    assert_eq!((counts.sub_tenants, counts.calls_waiting, counts.calls_leased), (SUB_TENANTS, 0, 0));
    let before = sys::held_bytes();
    drop(std::mem::replace(&mut lab.pool, Pool::new(lab::host(1))));
    let each = (before - sys::held_bytes()) / SUB_TENANTS as usize;
    println!("{each} bytes are held for a known sub-tenant, its label of 15 among them");
    assert!(each < 200, "{each} bytes");
}

/// Time this thread has had a processor: others may want them too.
fn cpu_nanos() -> u64 {
    let stat = std::fs::read_to_string("/proc/thread-self/schedstat").unwrap_or_default();
    stat.split(' ').next().and_then(|nanos| nanos.parse().ok()).unwrap_or(0)
}

/// Gives the pool its one tenant and function.
fn only_function(pool: &mut Pool, rate: Rate) -> FunctionId {
    let t = pool.add_tenant(&Arc::from("acme"), tenant(Some(rate)));
    pool.add_function(t, &Arc::from("f"), 1, lab::function())
}

fn step_with_2000_workers_and_100_000_known_sub_tenants() {
    let calls = if cfg!(debug_assertions) { 20_000 } else { 1_500_000 };
    // Everything is so fast that all of it happens before the first bucket is full again, so that everybody stays known.
    let rate = Rate { per_second: 1, burst: 1_000_000 };
    let times = Times { make: 50_000, load: 150_000, service: 40_000, reap: 10_000 };
    let mut lab = Lab::new(lab::host(WORKERS), times);
    let f = only_function(&mut lab.pool, rate);
    lab.log = Some(Vec::new());
    let keys: Vec<PoolKey> = (0..SUB_TENANTS).map(|n| key(f, n)).collect();
    for key in &keys {
        lab.invoke(key.clone());
        let until = lab.now + 500;
        while lab.advance(until) {}
    }
    let (zipf, mut rng) = (Zipf::new(SUB_TENANTS), Rng::new(7));
    let known = lab.log.as_ref().map_or(0, Vec::len);
    for _ in 0..calls {
        lab.invoke(keys[zipf.pick(&mut rng) as usize].clone());
        let until = lab.now + 500;
        while lab.advance(until) {}
        lab.done.clear();
    }
    let counts = lab.pool.counts();
    assert_eq!((counts.workers, counts.sub_tenants), (u64::from(WORKERS), SUB_TENANTS));
    // The same once more, without the host.
    let mut log = lab.log.take().unwrap_or_default();
    let measured = log.split_off(known);
    let mut pool = Pool::new(lab::host(WORKERS));
    only_function(&mut pool, rate);
    let mut out = Vec::new();
    for (now, event) in log {
        pool.handle(now, event, &mut out);
        out.clear();
    }
    let (steps, began) = (measured.len(), cpu_nanos());
    for (now, event) in measured {
        pool.handle(now, event, &mut out);
        out.clear();
    }
    let each = (cpu_nanos() - began) / steps as u64;
    println!("{each} ns a step, over {steps} steps; {counts:?}");
    assert_eq!(pool.counts(), counts);
}

/// How long calls waited, counted in powers of two of microseconds.
fn percentile(counts: &[u64; 64], share: f64) -> u64 {
    let all: u64 = counts.iter().sum();
    let mut sum = 0;
    let at = counts.iter().position(|count| {
        sum += count;
        sum as f64 >= share * all as f64
    });
    1 << at.unwrap_or(63)
}

fn day_of_heavy_tailed_traffic() {
    let calls: u64 = if cfg!(debug_assertions) { 40_000 } else { 5_000_000 };
    let day = 24 * 3600 * SECOND;
    let mut lab = Lab::new(lab::HOST_OF_A_DAY, TIMES);
    let t = lab.pool.add_tenant(&Arc::from("acme"), tenant(None));
    let policy =
        sublet_pool::FunctionPolicy { cells_max: 50, freeze_after: Some(Duration::from_secs(1)), ..lab::function() };
    let f = lab.pool.add_function(t, &Arc::from("f"), 1, policy);
    let (zipf, mut rng) = (Zipf::new(SUB_TENANTS), Rng::new(11));
    let keys: Vec<PoolKey> = (0..SUB_TENANTS).map(|n| key(f, n)).collect();
    let (began, mut asked) = (Instant::now(), Vec::new());
    for _ in 0..calls {
        lab.invoke(keys[zipf.pick(&mut rng) as usize].clone());
        asked.push(lab.now);
        // Twice as much at noon as on the mean, next to nothing at night.
        let phase = lab.now as f64 / day as f64 * std::f64::consts::TAU;
        let rate = calls as f64 / day as f64 * (1.0 - 0.95 * phase.cos());
        let until = lab.now + (-(1.0 - rng.unit()).ln() / rate) as u64;
        while lab.advance(until) {}
    }
    while !lab.is_quiet() {
        lab.advance(u64::MAX - 1);
    }
    let took = began.elapsed();
    let answered = lab.done.iter().filter(|done| matches!(done.end, End::Answered { .. })).count();
    let (mut starts, mut waits) = ([0_u64; 3], [0_u64; 64]);
    for (at, asked) in lab.delivered.iter().zip(&asked) {
        if let Some((at, start)) = at {
            starts[match start {
                Start::Cold => 0,
                Start::Cell => 1,
                Start::Warm => 2,
            }] += 1;
            waits[((at - asked) / 1000).checked_ilog2().map_or(0, |log| log as usize + 1)] += 1;
        }
    }
    let shares = starts.map(|n| 100.0 * n as f64 / calls as f64);
    println!(
        "a day of {calls} calls of {SUB_TENANTS} sub-tenants in {took:.1?} ({} steps): cold {:.2} %, cell {:.2} %, warm {:.2} %; \
         waits of 50 % up to {} us, 99 % {} us, 99.9 % {} us; {answered} answered",
        lab.steps,
        shares[0],
        shares[1],
        shares[2],
        percentile(&waits, 0.5),
        percentile(&waits, 0.99),
        percentile(&waits, 0.999),
    );
    assert_eq!(answered as u64, calls, "every call of the day is answered");
}
