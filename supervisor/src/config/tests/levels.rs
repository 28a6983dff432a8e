//! Rules between host, tenant, sub-tenant and function.

use super::*;

#[test]
fn limits_nobody_wrote_are_inherited() {
    let config = taken(&[("host.workers_max", "20"), ("host.calls_waiting_max", "50")]);
    let tenant = &config.tenants["acme"];
    let none = |limits: &LevelLimits| {
        assert_eq!((limits.memory_max, limits.cpu_quota, limits.pids_max, limits.cpu_weight), (None, None, None, 100));
    };
    none(&tenant.limits);
    none(&tenant.sub_tenant.limits);
    assert_eq!(
        (tenant.calls.workers_max, tenant.sub_tenant.calls.workers_max, tenant.calls.calls_in_flight_max),
        (20, 20, 70)
    );
    let function = &tenant.functions["resize"];
    assert_eq!((function.workers_max, function.workers_per_sub_tenant_max, function.queue_max), (20, 4, 50));
}

#[test]
fn limits_are_taken_as_written() {
    let config = taken(&[
        ("tenant.acme.workers_max", "40"),
        ("host.calls_in_flight_max", "2000000"),
        ("tenant.acme.calls_in_flight_max", "2000000"),
        ("tenant.acme.memory_max", "\"4GiB\""),
        ("tenant.acme.cpu_quota", "\"4000m\""),
        ("tenant.acme.cpu_weight", "10000"),
        ("tenant.acme.pids_max", "2000"),
        ("tenant.acme.sub_tenant.workers_max", "3"),
        ("tenant.acme.sub_tenant.memory_max", "\"512MiB\""),
        ("tenant.acme.sub_tenant.cpu_quota", "\"2\""),
        ("tenant.acme.sub_tenant.cpu_weight", "1"),
        ("tenant.acme.sub_tenant.pids_max", "256"),
    ]);
    let tenant = &config.tenants["acme"];
    let all = |limits: &LevelLimits| {
        (
            limits.memory_max.map(ByteSize::bytes),
            limits.cpu_quota.map(CpuMillis::millis),
            limits.cpu_weight,
            limits.pids_max,
        )
    };
    assert_eq!(all(&tenant.limits), (Some(4 << 30), Some(4000), 10_000, Some(2000)));
    assert_eq!(all(&tenant.sub_tenant.limits), (Some(512 << 20), Some(2000), 1, Some(256)));
    assert_eq!(
        (tenant.calls.workers_max, tenant.sub_tenant.calls.workers_max, tenant.calls.calls_in_flight_max),
        (40, 3, 2_000_000)
    );
    let function = &tenant.functions["resize"];
    assert_eq!((function.workers_max, function.workers_per_sub_tenant_max), (40, 3), "lowered to the sub-tenant's");
}

#[test]
fn levels_have_the_same_bounds() {
    let small = [
        (&*format!("{F}.memory_max"), "\"4MiB\""),
        (&*format!("{F}.pids_max"), "3"),
        (&*format!("{F}.cpu_quota"), "\"10m\""),
    ];
    for level in ["tenant.acme", "tenant.acme.sub_tenant"] {
        let name = |key| format!("{level}.{key}");
        bounded(&small, &name("memory_max"), "\"4095KiB\"", "\"4MiB\"", "", "\"1048577GiB\"");
        bounded(&small, &name("pids_max"), "2", "3", "4194304", "4194305");
        bounded(&small, &name("cpu_quota"), "\"9m\"", "\"10m\"", "\"8192000m\"", "\"8192001m\"");
        bounded(&small, &name("cpu_weight"), "0", "1", "10000", "10001");
        bounded(&small, &name("workers_max"), "0", "1", "200", "");
    }
    let high = ("host.calls_in_flight_max", "2000000");
    bounded(&[], high.0, "0", "1", "2000000", "2000001");
    bounded(&[high], "tenant.acme.calls_in_flight_max", "0", "1", "2000000", "2000001");
    for level in ["tenant.acme", "tenant.acme.sub_tenant"] {
        let name = |key| format!("{level}.{key}");
        bounded(&[], &name("weight"), "0", "1", "10000", "10001");
        bounded(&[], &name("rate"), "\"0/s\"", "\"1/s\"", "\"1000000/s\"", "\"1000001/s\"");
        bounded(&[(&name("rate"), "\"1/s\"")], &name("rate_burst"), "0", "1", "1000000", "1000001");
    }
    bounded(&[], "host.cells_memory_max", "", "\"0B\"", "\"1048576GiB\"", "\"1048577GiB\"");
}

#[test]
fn calls_in_flight_of_a_level_are_at_most_those_of_the_level_above() {
    let of_function = format!("{F}.calls_in_flight_max");
    chain(&["host.calls_in_flight_max", "tenant.acme.calls_in_flight_max"], "7", "8");
    chain(&["tenant.acme.calls_in_flight_max", of_function.as_str()], "7", "8");
    chain(&["tenant.acme.calls_in_flight_max", "tenant.acme.sub_tenant.calls_in_flight_max"], "7", "8");
}

#[test]
fn burst_without_a_rate_and_a_rate_without_its_unit_are_told() {
    only(
        &[("tenant.acme.rate_burst", "5")],
        "tenant.acme.rate_burst = 5: there is no rate beside it; add rate = \"100/s\", or remove it",
    );
    only(
        &[("tenant.acme.rate", "\"5\"")],
        "tenant.acme.rate = \"5\": not a rate; write a whole number of calls per second in quotes, such as \"100/s\"",
    );
    let rate = taken(&[("tenant.acme.rate", "\"5/s\"")]).tenants["acme"].calls.rate.expect("written");
    assert_eq!((rate.rate.count(), rate.burst), (5, 5), "as many at once as in a second");
}

/// For a kind of limit: the settings from the outermost in, a value, and one just above it.
#[track_caller]
fn chain(settings: &[&str], value: &str, above: &str) {
    let innermost = settings.last().expect("not empty");
    for parent in &settings[..settings.len() - 1] {
        // Equal is taken.
        taken(&[(parent, value), (innermost, value)]);
        only(
            &[(parent, value), (innermost, above)],
            &format!("{innermost} = {above}: above {parent} = {value}; write at most {value}, or raise {parent}"),
        );
    }
    // Each against the one just outside, though one further out would do.
    for pair in settings.windows(2) {
        let (parent, child) = (pair[0], pair[1]);
        let mut changes: Vec<(&str, &str)> = vec![(parent, value), (child, above)];
        // A default further in must not be told beside it.
        changes.extend(settings.iter().filter(|s| **s != parent && **s != child).map(|s| {
            let is_inside = settings.iter().position(|x| x == s) > settings.iter().position(|x| *x == child);
            (*s, if is_inside { value } else { above })
        }));
        only(
            &changes,
            &format!("{child} = {above}: above {parent} = {value}; write at most {value}, or raise {parent}"),
        );
    }
}

#[test]
fn memory_is_not_above_the_level_above() {
    chain(
        &["host.memory_max", "tenant.acme.memory_max", "tenant.acme.sub_tenant.memory_max", &format!("{F}.memory_max")],
        "\"256MiB\"",
        "\"257MiB\"",
    );
}

#[test]
fn pids_are_not_above_the_level_above() {
    chain(
        &["host.pids_max", "tenant.acme.pids_max", "tenant.acme.sub_tenant.pids_max", &format!("{F}.pids_max")],
        "100",
        "101",
    );
}

#[test]
fn cpu_is_not_above_the_level_above() {
    chain(
        &["tenant.acme.cpu_quota", "tenant.acme.sub_tenant.cpu_quota", &format!("{F}.cpu_quota")],
        "\"1500m\"",
        "\"1501m\"",
    );
}

#[test]
fn workers_are_not_above_the_level_above() {
    let of_function = format!("{F}.workers_max");
    let per_sub_tenant = format!("{F}.workers_per_sub_tenant_max");
    for (parent, child) in [
        ("host.workers_max", "tenant.acme.workers_max"),
        ("tenant.acme.workers_max", "tenant.acme.sub_tenant.workers_max"),
        ("tenant.acme.workers_max", &of_function),
        ("tenant.acme.sub_tenant.workers_max", &per_sub_tenant),
        (&of_function, &per_sub_tenant),
    ] {
        taken(&[(parent, "9"), (child, "9")]);
        only(
            &[(parent, "9"), (child, "10")],
            &format!("{child} = 10: above {parent} = 9; write at most 9, or raise {parent}"),
        );
    }
}

#[test]
fn queue_of_a_sub_tenant_is_not_above_the_hosts() {
    let queue = format!("{F}.queue_max");
    taken(&[("host.calls_waiting_max", "9"), (&queue, "9")]);
    only(
        &[("host.calls_waiting_max", "9"), (&queue, "10")],
        &format!(
            "{F}.queue_max = 10: above host.calls_waiting_max = 9; write at most 9, or raise host.calls_waiting_max"
        ),
    );
}

#[test]
fn default_above_the_level_above_is_told_as_a_default() {
    only(
        &[("tenant.acme.memory_max", "\"64MiB\"")],
        &format!(
            "{F}.memory_max = \"128MiB\" (the default): above tenant.acme.memory_max = \"64MiB\"; \
             write at most \"64MiB\", or raise tenant.acme.memory_max"
        ),
    );
    only(
        &[("tenant.acme.sub_tenant.cpu_quota", "\"500m\"")],
        &format!(
            "{F}.cpu_quota = \"1000m\" (the default): above tenant.acme.sub_tenant.cpu_quota = \"500m\"; \
             write at most \"500m\", or raise tenant.acme.sub_tenant.cpu_quota"
        ),
    );
    only(
        &[("host.pids_max", "63")],
        &format!("{F}.pids_max = 64 (the default): above host.pids_max = 63; write at most 63, or raise host.pids_max"),
    );
}

#[test]
fn wrong_parent_is_told_once_and_not_by_its_children() {
    for (parent, value) in [
        ("host.workers_max", "0"),
        ("tenant.acme.workers_max", "0"),
        ("tenant.acme.memory_max", "\"1KiB\""),
        ("tenant.acme.sub_tenant.pids_max", "0"),
        ("tenant.acme.sub_tenant.cpu_quota", "\"fast\""),
    ] {
        let changes =
            [(parent, value), (&*format!("{F}.workers_max"), "9"), (&*format!("{F}.workers_per_sub_tenant_max"), "9")];
        let lines = told(&changes);
        assert_eq!(lines.len(), 1, "{lines:?}");
        assert!(lines[0].starts_with(&format!("{parent} = {value}: ")), "{lines:?}");
    }
}

#[test]
fn names_of_tenants_and_functions_keep_the_grammar() {
    let tenant = MINIMAL.replace("tenant.acme", "tenant.\"Acme Corp\"");
    let error = Config::parse(&tenant, Path::new(BASE)).expect_err("not a name");
    assert_eq!(
        error.to_string(),
        "tenant.\"Acme Corp\": the name contains 'A'; only a-z, 0-9, '_' and '-' are allowed; \
         rename the tenant, for example to \"acme-1\""
    );
    let function = MINIMAL.replace("function.resize]", "function._resize]");
    let error = Config::parse(&function, Path::new(BASE)).expect_err("not a name");
    assert_eq!(
        error.to_string(),
        "tenant.acme.function._resize: the name begins with '_', not with a-z or 0-9; \
         rename the function, for example to \"acme-1\""
    );
}
