//! Who waits for whom while places are short: shares by weight, and what a quiet one feels of a loud one.

mod newcomers;

use std::sync::Arc;

use sublet_pool::{End, Event, FunctionId, FunctionPolicy, HostPolicy, PoolKey, SubTenant, TenantId, TenantPolicy};
use sublet_simulator::lab::{self, Lab, Times};

const MILLI: u64 = 1_000_000;
/// A start takes as long as three calls do, as for a small function on a real host.
const TIMES: Times = Times { make: 8 * MILLI, load: 4 * MILLI, service: 4 * MILLI, reap: MILLI };
const CALLS: u64 = 10_000;

/// The level whose cap is the narrow one.
#[derive(Clone, Copy, Debug)]
enum Neck {
    Host,
    Tenant,
    Function,
}

const NECKS: [Neck; 3] = [Neck::Host, Neck::Tenant, Neck::Function];

fn limits(neck: Neck, places: u32) -> (HostPolicy, TenantPolicy, FunctionPolicy) {
    let (mut host, mut tenant, mut function) = (lab::host(lab::PLENTY), lab::tenant(100), lab::function());
    match neck {
        Neck::Host => host.workers_max = places,
        Neck::Tenant => tenant.workers_max = places,
        Neck::Function => function.workers_max = places,
    }
    (host, tenant, function)
}

fn key(function: FunctionId, n: usize) -> PoolKey {
    PoolKey { function, sub_tenant: SubTenant::try_from(format!("s{n}").as_str()).unwrap() }
}

/// One tenant with one function.
fn one(neck: Neck, places: u32, times: Times) -> (Lab, TenantId, FunctionId) {
    let (host, tenant, function) = limits(neck, places);
    let mut lab = Lab::new(host, times);
    let t = lab.pool.add_tenant(&Arc::from("acme"), tenant);
    let f = lab.pool.add_function(t, &Arc::from("f"), 1, function);
    (lab, t, f)
}

/// Keeps `depth` calls of each key waiting until so many were answered; how many of each.
fn overload(lab: &mut Lab, keys: &[PoolKey], depth: usize) -> Vec<u64> {
    let (mut owner, mut served) = (Vec::new(), vec![0; keys.len()]);
    for (n, key) in keys.iter().enumerate() {
        for _ in 0..depth {
            lab.invoke(key.clone());
            owner.push(n);
        }
    }
    while served.iter().sum::<u64>() < CALLS {
        assert!(lab.advance(u64::MAX - 1), "calls wait and nothing happens");
        for done in std::mem::take(&mut lab.done) {
            assert!(matches!(done.end, End::Answered { .. }), "{done:?}");
            let n = owner[done.call as usize];
            served[n] += 1;
            lab.invoke(keys[n].clone());
            owner.push(n);
        }
    }
    lab.pool.check_invariants().unwrap();
    served
}

fn assert_shares(what: &str, served: &[u64], weights: &[u32]) {
    let (all, weight): (u64, u32) = (served.iter().sum(), weights.iter().sum());
    let errors = served
        .iter()
        .zip(weights)
        .map(|(served, own)| *served as f64 / all as f64 / (f64::from(*own) / f64::from(weight)) - 1.0);
    let errors: Vec<f64> = errors.collect();
    println!("{what}: weights {weights:?}, served {served:?}, off by {errors:.3?}");
    assert!(errors.iter().all(|error| error.abs() < 0.05), "{what}: weights hold within 5 %");
}

#[test]
fn weights_hold_between_tenants_under_overload() {
    let weights = [100, 200, 400];
    for (places, subs) in [(1, 1), (4, 1), (8, 3), (20, 10)] {
        let mut lab = Lab::new(lab::host(places), TIMES);
        let keys = weights.iter().enumerate().flat_map(|(n, weight)| {
            let t = lab.pool.add_tenant(&Arc::from(format!("t{n}")), lab::tenant(*weight));
            let f = lab.pool.add_function(t, &Arc::from("f"), 1, lab::function());
            (0..subs).map(move |n| key(f, n))
        });
        let keys: Vec<PoolKey> = keys.collect();
        let served: Vec<u64> = overload(&mut lab, &keys, 40).chunks(subs).map(|own| own.iter().sum()).collect();
        assert_shares(&format!("tenants, {places} places, {subs} sub-tenants each"), &served, &weights);
    }
}

#[test]
fn weights_hold_between_sub_tenants_whichever_cap_is_the_narrow_one() {
    for neck in NECKS {
        for (places, weights) in [(1, vec![100, 300]), (4, vec![50, 100, 200]), (7, vec![100, 100, 100, 200, 500])] {
            let (mut lab, tenant, f) = one(neck, places, TIMES);
            for (n, weight) in weights.iter().enumerate() {
                let (sub_tenant, policy) = (key(f, n).sub_tenant, Some(lab::sub_tenant(*weight)));
                lab.step(Event::SetSubTenants { tenant, policies: vec![(sub_tenant, policy)] });
            }
            let keys: Vec<PoolKey> = (0..weights.len()).map(|n| key(f, n)).collect();
            let served = overload(&mut lab, &keys, 40);
            assert_shares(&format!("sub-tenants, {neck:?} narrow, {places} places"), &served, &weights);
        }
    }
}

/// Time of a call's delivery beyond what its own start takes when nobody is in the way.
fn delay(lab: &Lab, call: u64, asked: u64) -> u64 {
    let (at, _) = lab.delivered[call as usize].expect("it was served");
    (at - asked).saturating_sub(TIMES.reap + TIMES.make + TIMES.load)
}

#[test]
fn sub_tenant_that_floods_does_not_delay_a_quiet_one_beyond_one_service_time() {
    for neck in NECKS {
        let places = 4;
        let (mut lab, _, f) = one(neck, places, TIMES);
        // A half of what the places can serve is the loud one's share; it asks for ten times that.
        let loud_every = TIMES.service / u64::from(places) * 2 / 10;
        let quiet_every = 37 * MILLI;
        let (mut next_loud, mut next_quiet, mut quiet) = (0, 50 * MILLI, Vec::new());
        while quiet.len() < 500 {
            let until = next_loud.min(next_quiet);
            while lab.advance(until) {}
            if until == next_loud {
                next_loud += loud_every;
                // Its queue is full most of the time; a bound of its own would only make it easier.
                if lab.pool.waiting_of(&key(f, 0)) < 10_000 {
                    lab.invoke(key(f, 0));
                }
            } else {
                next_quiet += quiet_every;
                let asked = lab.now;
                quiet.push((lab.invoke(key(f, 1)), asked));
            }
        }
        let until = lab.now + 1000 * MILLI;
        while lab.advance(until) {}
        let delays: Vec<u64> = quiet.iter().map(|(call, asked)| delay(&lab, *call, *asked)).collect();
        let (most, mean) = (delays.iter().max().unwrap(), delays.iter().sum::<u64>() / delays.len() as u64);
        println!(
            "{neck:?} narrow: quiet waits {mean} ns on the mean, {most} ns at the most; a call takes {}",
            TIMES.service
        );
        assert!(*most <= TIMES.service, "{neck:?}: {most}");
    }
}

#[test]
fn ten_thousand_waiting_calls_do_not_delay_the_first_of_another_beyond_one_service_time() {
    for neck in NECKS {
        let (mut lab, _, f) = one(neck, 4, TIMES);
        for _ in 0..10_004 {
            lab.invoke(key(f, 0));
        }
        let mut most = 0;
        for other in 1..100 {
            let until = lab.now + 23 * MILLI;
            while lab.advance(until) {}
            let asked = lab.now;
            let call = lab.invoke(key(f, other));
            while lab.delivered[call as usize].is_none() {
                assert!(lab.advance(u64::MAX - 1));
            }
            most = most.max(delay(&lab, call, asked));
        }
        println!(
            "{neck:?} narrow: a first call waits {most} ns at the most; {} others wait",
            lab.pool.waiting_of(&key(f, 0))
        );
        assert!(lab.pool.waiting_of(&key(f, 0)) > 1000 && most <= TIMES.service, "{neck:?}: {most}");
    }
}
