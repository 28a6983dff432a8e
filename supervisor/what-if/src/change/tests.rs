use std::time::Duration;

use sublet_pool::Rate;

use super::*;
use crate::{
    Setup,
    sample::{setup, token},
};

fn with(changes: &[&str]) -> Result<Setup, ChangeError> {
    let changes = changes.iter().map(|text| text.parse()).collect::<Result<Vec<Change>, _>>()?;
    setup().with(&changes)
}

fn right(changes: &[&str]) -> Setup {
    with(changes).unwrap_or_else(|error| panic!("{error}"))
}

fn told(changes: &[&str]) -> String {
    with(changes).expect_err("it is wrong").to_string()
}

#[test]
fn every_key_changes_its_limit_and_nothing_else() {
    let acme = |setup: &mut Setup, change: &dyn Fn(&mut crate::Tenant)| {
        change(setup.tenants.get_mut(&token("acme")).expect("it is there"));
    };
    let f = |setup: &mut Setup, change: &dyn Fn(&mut crate::Function)| {
        acme(setup, &|tenant| change(tenant.functions.get_mut(&token("f")).expect("it is there")));
    };
    let second = Duration::from_secs(1);
    let rate = Some(Rate { per_second: 100, burst: 20 });
    type Expected<'a> = (&'a str, &'a dyn Fn(&mut Setup));
    let cases: &[Expected<'_>] = &[
        ("host.starts_max=2", &|s| s.host.starts_max = 2),
        ("host.calls_waiting_max=1000", &|s| s.host.calls_waiting_max = 1000),
        ("host.cells_memory_max=1GiB", &|s| s.host.cells_memory_max = 1 << 30),
        ("tenant.acme.weight=7", &|s| acme(s, &|t| t.policy.weight = 7)),
        ("tenant.acme.rate=100/s burst 20", &|s| acme(s, &|t| t.policy.rate = rate)),
        ("tenant.acme.rate=none", &|s| acme(s, &|t| t.policy.rate = None)),
        ("tenant.acme.sub_tenant.workers_max=3", &|s| acme(s, &|t| t.policy.sub_tenant.workers_max = 3)),
        ("tenant.acme.sub_tenant.calls_in_flight_max=3", &|s| {
            acme(s, &|t| t.policy.sub_tenant.calls_in_flight_max = 3);
        }),
        ("tenant.acme.sub_tenant.weight=3", &|s| acme(s, &|t| t.policy.sub_tenant.weight = 3)),
        ("tenant.*.sub_tenant.rate=100/s burst 20", &|s| acme(s, &|t| t.policy.sub_tenant.rate = rate)),
        ("tenant.acme.function.f.workers_max=3", &|s| f(s, &|f| f.policy.workers_max = 3)),
        ("tenant.acme.function.f.workers_per_sub_tenant_max=3", &|s| {
            f(s, &|f| f.policy.workers_per_sub_tenant_max = 3);
        }),
        ("tenant.acme.function.f.calls_in_flight_max=3", &|s| f(s, &|f| f.policy.calls_in_flight_max = 3)),
        ("tenant.acme.function.f.queue_max=3", &|s| f(s, &|f| f.policy.queue_max = 3)),
        ("tenant.acme.function.f.idle_ttl=1s", &|s| f(s, &|f| f.policy.idle_ttl = second)),
        ("tenant.acme.function.f.freeze_after=1s", &|s| f(s, &|f| f.policy.freeze_after = Some(second))),
        ("tenant.acme.function.f.freeze_after=0s", &|s| f(s, &|f| f.policy.freeze_after = Some(Duration::ZERO))),
        ("tenant.acme.function.f.freeze_after=never", &|s| f(s, &|f| f.policy.freeze_after = None)),
        ("tenant.acme.function.f.start_timeout=1s", &|s| f(s, &|f| f.policy.start_timeout = second)),
        ("tenant.acme.function.f.timeout=1s", &|s| f(s, &|f| f.timeout = second)),
        ("tenant.acme.function.f.calls_max=3", &|s| f(s, &|f| f.policy.calls_max = Some(3))),
        ("tenant.acme.function.f.calls_max=none", &|s| f(s, &|f| f.policy.calls_max = None)),
        ("tenant.acme.function.f.age_max=1s", &|s| f(s, &|f| f.policy.age_max = Some(second))),
        ("tenant.acme.function.f.age_max=none", &|s| f(s, &|f| f.policy.age_max = None)),
        ("tenant.acme.function.f.cells_max=0", &|s| f(s, &|f| f.policy.cells_max = 0)),
        ("tenant.*.function.f.cells_max=3", &|s| f(s, &|f| f.policy.cells_max = 3)),
        ("tenant.acme.function.f.idempotent=true", &|s| f(s, &|f| f.policy.is_idempotent = true)),
    ];
    for (change, expected) in cases {
        let mut after = setup();
        expected(&mut after);
        assert_eq!(right(&[change]), after, "{change}");
    }
}

#[test]
fn cap_that_is_equal_to_the_one_above_follows_it() {
    let up = right(&["host.workers_max=20", "host.calls_in_flight_max=2000"]);
    let acme = &up.tenants[&token("acme")];
    let f = &acme.functions[&token("f")].policy;
    assert_eq!([acme.policy.workers_max, acme.policy.sub_tenant.workers_max, f.workers_max], [20; 3]);
    let calls = [acme.policy.calls_in_flight_max, acme.policy.sub_tenant.calls_in_flight_max, f.calls_in_flight_max];
    assert_eq!(calls, [2000; 3]);
    // These have defaults of their own: not raised with the cap above.
    assert_eq!((up.host.starts_max, f.workers_per_sub_tenant_max), (10, 1));
    let down = right(&["host.workers_max=4", "host.calls_waiting_max=5"]);
    let f = &down.tenants[&token("acme")].functions[&token("f")].policy;
    assert_eq!((down.host.starts_max, f.workers_max, f.queue_max), (4, 4, 5));
}

#[test]
fn order_of_changes_does_not_matter() {
    let changes = [
        "tenant.acme.function.f.idle_ttl=1s",
        "tenant.*.function.*.idle_ttl=2s",
        "tenant.acme.function.*.idle_ttl=3s",
        "tenant.acme.workers_max=10",
        "host.workers_max=20",
    ];
    let expected = right(&changes);
    let acme = &expected.tenants[&token("acme")];
    let ttl = |name: &str| acme.functions[&token(name)].policy.idle_ttl.as_secs();
    // What is named is as it was named, though it was equal to the host's.
    assert_eq!((ttl("f"), ttl("g"), acme.policy.workers_max), (1, 3, 10));
    for turn in 1..changes.len() {
        let mut turned = changes;
        turned.rotate_left(turn);
        assert_eq!(right(&turned), expected);
    }
}

#[test]
fn wrong_key_is_refused_with_what_there_is() {
    for (change, part) in [
        ("host.workers_max", "has no value; write key=value"),
        ("host.workers=1", "there is no such setting here; of the host there is workers_max"),
        ("workers_max=1", "there is host.KEY, tenant.NAME.KEY"),
        ("=1", "there is host.KEY"),
        ("tenant..weight=1", "there is host.KEY"),
        ("tenant.acme.function=1", "of tenant.NAME and of tenant.NAME.sub_tenant there is"),
        ("tenant.acme.sub_tenant.queue_max=1", "of tenant.NAME and of tenant.NAME.sub_tenant there is"),
        ("tenant.acme.function.f.memory_max=1MiB", "of tenant.NAME.function.NAME there is"),
        ("tenant.acme.function.f.env.X=1", "there is host.KEY"),
        ("tenant.bob.weight=1", "tenant.bob.weight: there is no tenant \"bob\"; there is acme, and * for all"),
        ("tenant.acme.function.h.queue_max=1", "there is no function \"h\"; there is f, g, and * for all"),
        ("tenant.*.function.h.queue_max=1", "there is no function \"h\"; there is f, g, and * for all"),
    ] {
        let told = told(&[change]);
        assert!(told.contains(part), "{told}");
    }
    let told = told(&["host.starts_max=1", "host.starts_max=2"]);
    assert_eq!(told, "host.starts_max is given twice; keep one of the two");
}

#[test]
fn wrong_value_is_refused_with_a_right_one() {
    let f = "tenant.acme.function.f";
    for (key, value, part) in [
        ("host.workers_max", "1GiB", "not a count; write a whole number"),
        ("host.cells_memory_max", "128", "not a size; write a whole number and its unit"),
        (&*format!("{f}.idle_ttl"), "30", "not a duration; write a whole number and its unit, ms, s, m or h"),
        (&format!("{f}.idle_ttl"), "never", "not a duration"),
        (&format!("{f}.idempotent"), "yes", "not a yes or no; write true or false"),
        ("tenant.acme.rate", "100", "not a rate; write calls per second"),
        ("host.workers_max", "0", "zero would allow nothing at all; write at least 1"),
        ("host.starts_max", "0", "write at least 1"),
        ("host.calls_waiting_max", "0", "write at least 1"),
        ("host.calls_in_flight_max", "0", "write at least 1"),
        ("tenant.acme.weight", "0", "write at least 1"),
        ("tenant.acme.sub_tenant.weight", "0", "write at least 1"),
        ("tenant.acme.rate", "0/s", "write at least 1/s burst 1"),
        ("tenant.acme.rate", "1/s burst 0", "write at least 1/s burst 1"),
        (&format!("{f}.queue_max"), "0", "write at least 1"),
        (&format!("{f}.calls_max"), "0", "write at least 1"),
        (&format!("{f}.idle_ttl"), "0s", "write at least 1ms"),
        (&format!("{f}.age_max"), "0s", "write at least 1ms"),
    ] {
        let told = told(&[&format!("{key}={value}")]);
        assert!(told.starts_with(&format!("{key} = {value:?}: ")) && told.contains(part), "{told}");
    }
}

#[test]
fn greatest_value_is_taken_and_one_more_is_not() {
    let f = "tenant.acme.function.f";
    for (key, most, more) in [
        ("host.workers_max", "1000000", "1000001"),
        ("host.calls_in_flight_max", "2000000", "2000001"),
        ("host.cells_memory_max", "1048576GiB", "1048577GiB"),
        ("tenant.acme.weight", "10000", "10001"),
        ("tenant.acme.rate", "1000000/s", "1000001/s"),
        ("tenant.acme.rate", "1/s burst 1000000", "1/s burst 1000001"),
        (&*format!("{f}.idle_ttl"), "8760h", "8761h"),
        (&format!("{f}.freeze_after"), "24h", "25h"),
        (&format!("{f}.timeout"), "24h", "25h"),
        (&format!("{f}.cells_max"), "1000000", "1000001"),
    ] {
        right(&[&format!("{key}={most}")]);
        let told = told(&[&format!("{key}={more}")]);
        assert!(told.contains("the most the configuration takes"), "{told}");
    }
}

#[test]
fn cap_above_another_is_refused_with_both() {
    for (changes, part) in [
        (&["host.starts_max=11"][..], "host.starts_max = 11 would be above host.workers_max = 10"),
        (&["tenant.acme.workers_max=11"], "tenant.acme.workers_max = 11 would be above host.workers_max = 10"),
        (&["tenant.acme.calls_in_flight_max=1001"], "above host.calls_in_flight_max = 1000"),
        (&["tenant.acme.sub_tenant.workers_max=11"], "above tenant.acme.workers_max = 10"),
        (&["tenant.acme.sub_tenant.calls_in_flight_max=1001"], "above tenant.acme.calls_in_flight_max = 1000"),
        (&["tenant.acme.function.f.workers_max=11"], "above tenant.acme.workers_max = 10"),
        (&["tenant.acme.function.f.calls_in_flight_max=1001"], "above tenant.acme.calls_in_flight_max = 1000"),
        (&["tenant.acme.function.f.queue_max=101"], "above host.calls_waiting_max = 100"),
        (
            &["tenant.acme.function.f.workers_max=2", "tenant.acme.function.f.workers_per_sub_tenant_max=3"],
            "above tenant.acme.function.f.workers_max = 2",
        ),
        (
            &["tenant.acme.sub_tenant.workers_max=2", "tenant.*.function.*.workers_per_sub_tenant_max=3"],
            "above tenant.acme.sub_tenant.workers_max = 2",
        ),
    ] {
        let told = told(changes);
        assert!(told.contains(part), "{told}");
    }
}

#[test]
fn all_caps_that_a_change_leaves_above_are_told_at_once() {
    let told = told(&["tenant.acme.workers_max=9", "tenant.acme.function.*.workers_max=9", "host.workers_max=8"]);
    let part = "tenant.acme.workers_max = 9 would be above host.workers_max = 8";
    assert!(told.starts_with(part), "{told}");
    // Those below are within theirs.
    assert!(!told.contains("the same goes for"), "{told}");
    let told = self::told(&["tenant.acme.function.*.queue_max=101"]);
    assert!(told.ends_with("; the same goes for tenant.acme.function.g.queue_max"), "{told}");
}

#[test]
fn what_the_configuration_had_it_may_keep() {
    let mut odd = setup();
    odd.host.starts_max = 50;
    let change: Change = "tenant.acme.weight=2".parse().expect("it is right");
    assert_eq!(odd.with(&[change]).map(|after| after.host.starts_max), Ok(50));
}
