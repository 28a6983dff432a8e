//! Sub-tenants that nobody has seen before: what those feel of them that were served before, and what they feel of others.

use std::time::Duration;

use sublet_pool::{Event, FunctionPolicy, SubTenantPolicy};
use sublet_simulator::Rng;

use super::*;

const OTHERS: usize = 40;
const PLACES: u32 = 4;

/// Newcomers call once each, and for each that has its end another comes: so many wait at any time, and they alone are more
/// than the places can serve. One that was served before calls again and again; how many of them had their end while it
/// waited, for each of its calls.
fn beside_newcomers(lab: &mut Lab, f: FunctionId, limit: Duration, calls: usize) -> Vec<usize> {
    for newcomer in 1..=OTHERS {
        lab.invoke_within(key(f, newcomer), limit);
    }
    let mut newcomers = OTHERS;
    let mut passed = Vec::new();
    for _ in 0..calls {
        let regular = lab.invoke(key(f, 0));
        let before = newcomers;
        while lab.done.iter().all(|done| done.call != regular) {
            assert!(newcomers - before < 100 * OTHERS, "{} newcomers were served and it waits", newcomers - before);
            assert!(lab.advance(u64::MAX - 1));
            let ended = lab.done.len();
            lab.done.retain(|done| done.call == regular);
            for _ in lab.done.len()..ended {
                newcomers += 1;
                lab.invoke_within(key(f, newcomers), limit);
            }
        }
        lab.done.clear();
        passed.push(newcomers - before);
    }
    lab.pool.check_invariants().unwrap();
    passed
}

/// Those that were there when it asked, and those that come while its share of one call is made up.
fn assert_bounded(what: &str, passed: &[usize]) {
    let most = |part: &[usize]| part.iter().max().copied().unwrap();
    let (early, late) = (most(&passed[..passed.len() / 10]), most(&passed[passed.len() * 9 / 10..]));
    println!(
        "{what}: {OTHERS} newcomers wait at any time; one known before lets {early} pass at first, {late} at last"
    );
    assert!(early.max(late) <= 2 * OTHERS + PLACES as usize, "{what}: {early}, {late}");
}

#[test]
fn newcomers_without_end_do_not_keep_one_that_was_served_before_from_its_next_call() {
    for neck in NECKS {
        let (mut lab, _, f) = one(neck, PLACES, TIMES);
        assert_bounded(&format!("{neck:?} narrow"), &beside_newcomers(&mut lab, f, HOUR, 50));
    }
}

const HOUR: Duration = Duration::from_secs(3600);

/// Many rounds with calls of different lengths: what a step loses would add up.
#[test]
fn nor_does_its_wait_grow_with_time() {
    for neck in NECKS {
        let (mut lab, _, f) = one(neck, PLACES, TIMES);
        lab.chance = Some(Rng::new(7));
        assert_bounded(&format!("{neck:?} narrow, uneven"), &beside_newcomers(&mut lab, f, HOUR, 1000));
    }
}

/// Most of those that wait go away before they are served.
#[test]
fn nor_do_newcomers_that_expire() {
    for neck in NECKS {
        let (mut lab, _, f) = one(neck, PLACES, TIMES);
        lab.chance = Some(Rng::new(8));
        let limit = Duration::from_nanos(TIMES.make + TIMES.load + 10 * TIMES.service);
        let passed = beside_newcomers(&mut lab, f, limit, 300);
        let served = lab.delivered.iter().flatten().count();
        let expired = lab.delivered.len() - served;
        assert!(expired > served / 4, "{expired} expired, {served} were served");
        let waits = passed.iter().max().copied().unwrap();
        println!(
            "{neck:?} narrow: {expired} newcomers expired, {served} calls were served; one known before let {waits} end"
        );
        assert!(waits <= 4 * OTHERS, "{neck:?}: {waits}");
    }
}

/// Floods of one tenant for two functions, of which `narrow` has one place.
fn floods(lab: &mut Lab, tenant: TenantId, wide: FunctionId) -> FunctionId {
    let policy = FunctionPolicy { workers_max: 1, ..lab::function() };
    let narrow = lab.pool.add_function(tenant, &Arc::from("narrow"), 1, policy);
    for _ in 0..10_000 {
        lab.invoke(key(wide, 0));
        lab.invoke(key(narrow, 1));
    }
    let until = lab.now + 2000 * MILLI;
    while lab.advance(until) {}
    narrow
}

fn wait_of(lab: &mut Lab, key: PoolKey) -> u64 {
    let asked = lab.now;
    let call = lab.invoke(key);
    while lab.delivered[call as usize].is_none() {
        assert!(lab.advance(asked + 10_000 * MILLI), "ten seconds later it still waits");
    }
    delay(lab, call, asked)
}

#[test]
fn flood_of_a_narrow_function_has_no_credit_from_what_a_wide_one_served_meanwhile() {
    let (mut lab, tenant, wide) = one(Neck::Function, 10, TIMES);
    let narrow = floods(&mut lab, tenant, wide);
    let waits = wait_of(&mut lab, key(narrow, 2));
    println!("a newcomer to the narrow function waits {waits} ns");
    assert!(waits <= 2 * TIMES.service, "{waits}");
}

#[test]
fn nor_does_it_gain_by_turning_to_the_wide_one() {
    let (mut lab, tenant, wide) = one(Neck::Function, 10, TIMES);
    floods(&mut lab, tenant, wide);
    let first = lab.delivered.len();
    for _ in 0..5000 {
        lab.invoke(key(wide, 1));
    }
    let (from, mut served) = (lab.now, 0);
    let until = from + 2000 * MILLI;
    lab.done.clear();
    while lab.advance(until) {}
    let mut other = 0;
    for done in &lab.done {
        if done.call as usize >= first { served += 1 } else { other += usize::from(done.call % 2 == 0) }
    }
    println!("of the wide function, it got {served} calls and the flood that was there {other}");
    assert!(served * 3 < other * 4, "{served} to {other}");
}

#[test]
fn weight_raised_while_it_waits_puts_no_newcomer_behind() {
    for neck in NECKS {
        let (mut lab, tenant, f) = one(neck, 1, TIMES);
        let weigh = |lab: &mut Lab, weight| {
            let policy = SubTenantPolicy { weight, ..lab::sub_tenant(100) };
            lab.step(Event::SetSubTenants { tenant, policies: vec![(key(f, 0).sub_tenant, Some(policy))] });
        };
        weigh(&mut lab, 1);
        for _ in 0..10_000 {
            lab.invoke(key(f, 0));
        }
        let until = lab.now + 1000 * MILLI;
        while lab.advance(until) {}
        weigh(&mut lab, 100);
        let until = lab.now + 1000 * MILLI;
        while lab.advance(until) {}
        let waits = wait_of(&mut lab, key(f, 1));
        println!("{neck:?} narrow: a newcomer waits {waits} ns");
        assert!(waits <= 2 * TIMES.service, "{neck:?}: {waits}");
    }
}

/// The kept worker of one never gives its place away; its calls go past others that wait for one.
#[test]
fn calls_to_a_kept_worker_give_no_credit_to_those_who_wait_for_a_place() {
    let (mut lab, _, f) = one(Neck::Host, 1, TIMES);
    lab.step(Event::SetMinimum { key: key(f, 0), workers: 1 });
    let until = lab.now + 100 * MILLI;
    while lab.advance(until) {}
    for _ in 0..1000 {
        lab.invoke(key(f, 0));
        lab.invoke(key(f, 1));
    }
    let until = lab.now + 2000 * MILLI;
    while lab.advance(until) {}
    assert_eq!(lab.pool.waiting_of(&key(f, 1)), 1000, "there is no place for it");
    lab.step(Event::SetHost(lab::host(2)));
    let until = lab.now + 100 * MILLI;
    while lab.advance(until) {}
    let waits = wait_of(&mut lab, key(f, 2));
    println!("a newcomer waits {waits} ns");
    assert!(waits <= 2 * TIMES.service, "{waits}");
}
