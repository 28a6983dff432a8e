//! Classes, ids, guarantees, bursts, and settings laid over a file.

use super::*;
use crate::config::{memory::check_memory, overlay::Overlay};

const SUB: &str = "tenant.acme.sub_tenant";
const GOLD: &str = "tenant.acme.class.gold";
const ONE: &str = "tenant.acme.id.one";

#[test]
fn id_has_what_its_own_table_says_then_its_class_then_all_sub_tenants() {
    let config = taken(&[
        ("tenant.acme.sub_tenant.memory_max", "\"256MiB\""),
        ("tenant.acme.sub_tenant.pids_max", "100"),
        ("tenant.acme.sub_tenant.rate", "\"10/s\""),
        ("tenant.acme.sub_tenant.rate_burst", "3"),
        ("tenant.acme.class.gold.memory_max", "\"1GiB\""),
        ("tenant.acme.class.gold.rate", "\"100/s\""),
        ("tenant.acme.class.gold.queue_max", "7"),
        ("tenant.acme.id.one.class", "\"gold\""),
        ("tenant.acme.id.one.pids_max", "77"),
        ("tenant.acme.id.two.workers_max", "2"),
    ]);
    let tenant = &config.tenants["acme"];
    let memory = |label: &str| tenant.level_of(label).limits.memory_max.map(ByteSize::bytes);
    assert_eq!(
        [memory("one"), memory("two"), memory("never seen")].map(|m| m.map(|m| m >> 20)),
        [Some(1024), Some(256), Some(256)]
    );
    let one = tenant.level_of("one");
    assert_eq!((one.limits.pids_max, one.queue_max), (Some(77), Some(7)));
    let rate = one.calls.rate.expect("of its class");
    assert_eq!((rate.rate.count(), rate.burst), (100, 100), "the burst was written for another rate");
    assert_eq!(one.class.as_ref().map(|class| class.as_str()), Some("gold"));
    assert_eq!((tenant.level_of("two").calls.workers_max, tenant.level_of("three").calls.workers_max), (2, 200));
}

#[test]
fn class_that_is_not_there_and_a_class_of_a_class_are_told() {
    only(
        &[(&format!("{ONE}.class"), "\"gold\"")],
        "tenant.acme.id.one.class = \"gold\": there is no such class; add a table [tenant.NAME.class.gold], or remove it",
    );
    only(
        &[(&format!("{GOLD}.pids_max"), "10"), (&format!("{ONE}.class"), "\"gild\"")],
        "tenant.acme.id.one.class = \"gild\": there is no such class; write one of \"gold\", or add its table",
    );
    only(
        &[(&format!("{GOLD}.class"), "\"gold\"")],
        "tenant.acme.class.gold.class = \"gold\": only an id is of a class; write it below [tenant.NAME.id.LABEL]",
    );
}

#[test]
fn label_of_an_override_is_one_that_a_call_may_name() {
    let longest = "a".repeat(256);
    taken(&[(&format!("tenant.acme.id.{longest}.pids_max"), "10")]);
    let told = told(&[(&format!("tenant.acme.id.{longest}a.pids_max"), "10")]);
    assert_eq!(told.len(), 1);
    assert!(told[0].starts_with("tenant.acme.id.") && told[0].contains("257 bytes") && told[0].len() < 300, "{told:?}");
}

#[test]
fn limits_of_classes_and_ids_are_not_above_their_tenants_and_each_slip_is_told_once() {
    for level in [SUB, GOLD, ONE] {
        let name = format!("{level}.workers_max");
        only(
            &[
                ("tenant.acme.workers_max", "5"),
                (&name, "6"),
                (&format!("{GOLD}.weight"), "7"),
                (&format!("{ONE}.class"), "\"gold\""),
            ],
            &format!(
                "{name} = 6: above tenant.acme.workers_max = 5; write at most 5, or raise tenant.acme.workers_max"
            ),
        );
        let name = format!("{level}.memory_max");
        let function = f_memory();
        only(
            &[
                ("tenant.acme.memory_max", "\"64MiB\""),
                (&name, "\"65MiB\""),
                (&function, "\"4MiB\""),
                (&format!("{GOLD}.weight"), "7"),
            ],
            &format!(
                "{name} = \"65MiB\": above tenant.acme.memory_max = \"64MiB\"; write at most \"64MiB\", or raise tenant.acme.memory_max"
            ),
        );
    }
}

fn f_memory() -> String {
    format!("{F}.memory_max")
}

#[test]
fn line_where_memory_is_given_back_is_below_the_limit() {
    only(
        &[(&format!("{SUB}.memory_max"), "\"256MiB\""), (&format!("{SUB}.memory_high"), "\"257MiB\"")],
        &format!(
            "{SUB}.memory_high = \"257MiB\": above {SUB}.memory_max = \"256MiB\"; write at most \"256MiB\", or raise {SUB}.memory_max"
        ),
    );
    only(
        &[(&format!("{F}.memory_high"), "\"129MiB\"")],
        &format!(
            "{F}.memory_high = \"129MiB\": above {F}.memory_max = \"128MiB\" (the default); write at most \"128MiB\", or raise {F}.memory_max"
        ),
    );
}

#[test]
fn guarantees_never_add_up_to_more_than_the_level_above_has() {
    let tenant = [("tenant.acme.memory_min", "\"100MiB\""), ("tenant.acme.workers_max", "10")];
    let with = |more: &[(&'static str, &'static str)]| [&tenant[..], more].concat();
    // Up to ten sub-tenants have a worker at one time.
    taken(&with(&[("tenant.acme.sub_tenant.memory_min", "\"10MiB\"")]));
    let told = told(&with(&[("tenant.acme.sub_tenant.memory_min", "\"11MiB\"")]));
    assert_eq!(told.len(), 1);
    assert!(
        told[0].starts_with("tenant.acme.memory_min = \"100MiB\": the guarantees of up to 10 sub-tenants"),
        "{told:?}"
    );
    assert!(
        told[0].contains("add up to 110MiB") && told[0].contains("raise tenant.acme.memory_min to 110MiB"),
        "{told:?}"
    );
    // The largest count: one of 50 and nine of 5 fit, one of 60 does not.
    let ids = |one: &'static str| {
        with(&[("tenant.acme.sub_tenant.memory_min", "\"5MiB\""), ("tenant.acme.id.one.memory_min", one)])
    };
    taken(&ids("\"55MiB\""));
    assert!(parse(&ids("\"56MiB\"")).is_err());
    // Without one of its own, a tenant has nothing to give.
    assert!(parse(&[("tenant.acme.id.one.memory_min", "\"1MiB\"")]).is_err());
    assert!(parse(&[("tenant.acme.memory_min", "\"2GiB\""), ("host.memory_max", "\"1GiB\"")]).is_err());
}

#[test]
fn burst_and_period_belong_to_a_quota() {
    only(
        &[("tenant.acme.cpu_burst", "\"10ms\"")],
        "tenant.acme.cpu_burst = \"10ms\": there is no cpu_quota it would be for; add cpu_quota = \"1000m\", or remove it",
    );
    // 500m of the default period of 20 ms.
    let quota = ("tenant.acme.cpu_quota", "\"2000m\"");
    taken(&[quota, ("tenant.acme.cpu_burst", "\"40ms\"")]);
    only(
        &[quota, ("tenant.acme.cpu_burst", "\"41ms\"")],
        "tenant.acme.cpu_burst = \"41ms\": above the \"40ms\" that the quota gives in one period; the kernel saves up one \
         period's quota at most: write no more than that",
    );
    taken(&[quota, ("tenant.acme.cpu_period", "\"100ms\""), ("tenant.acme.cpu_burst", "\"200ms\"")]);
    bounded(&[quota], "tenant.acme.cpu_period", "\"0ms\"", "\"1ms\"", "\"1s\"", "\"1001ms\"");
    taken(&[(&format!("{F}.cpu_burst"), "\"20ms\"")]);
}

#[test]
fn memory_above_the_hosts_is_told_where_it_is_written() {
    let config = taken(&[
        ("tenant.acme.class.gold.memory_max", "\"9GiB\""),
        ("tenant.acme.id.one.class", "\"gold\""),
        ("tenant.acme.sub_tenant.memory_max", "\"8GiB\""),
    ]);
    let told: Vec<String> = check_memory(&config, 8 << 30).iter().map(ToString::to_string).collect();
    assert_eq!(
        told,
        [
            "tenant.acme.class.gold.memory_max = \"9GiB\": above the memory of this host, 8GiB: it would never be reached; \
          write at most \"8GiB\""
        ]
    );
}

#[test]
fn settings_laid_over_a_file_are_checked_as_if_they_stood_in_it() {
    let source = Source { text: with(&[("tenant.acme.class.gold.memory_max", "\"1GiB\"")]), base: BASE.into() };
    let overlay = |path: &str, key: &str, value: &str| Overlay {
        path: LevelPath::try_from(path).expect(path),
        key: key.into(),
        value: value.into(),
    };
    let config = source.check(&[overlay("tenant/acme/class/gold", "memory_max", "512MiB")]).expect("it is right");
    let gold = config.tenants["acme"].classes.values().next().expect("there is one");
    assert_eq!(gold.limits.memory_max.map(ByteSize::bytes), Some(512 << 20));
    let told = |path: &str, key: &str, value: &str| {
        let error = source.check(&[overlay(path, key, value)]).expect_err(value);
        error.problems.iter().map(ToString::to_string).collect::<Vec<_>>()
    };
    for (value, says) in [("0", "not a size"), ("-1MiB", "not a size"), ("512", "not a size"), ("1B", "below \"4MiB\"")]
    {
        let lines = told("tenant/acme/class/gold", "memory_max", value);
        assert!(lines.len() == 1 && lines[0].contains(says), "{value}: {lines:?}");
    }
    assert!(told("tenant/acme/id/x", "workers_max", "201")[0].contains("above tenant.acme.workers_max = 200"));
    let config = source.check(&[overlay("tenant/acme/id/a b", "rate", "5/s")]).expect("any label");
    assert_eq!(config.tenants["acme"].level_of("a b").calls.rate.map(|rate| rate.burst), Some(5));
}
