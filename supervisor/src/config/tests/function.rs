//! Rules of one function.

use std::time::Duration;

use sublet_proto::link::sandbox::{OnRefused, Root};

use super::{
    super::{
        settings::{Changes, Row},
        types::RawFunction,
    },
    reference::ends,
    *,
};

fn f(key: &str) -> String {
    format!("{F}.{key}")
}

#[test]
fn function_defaults_are_what_the_manual_says() {
    let function = resize(&[]);
    assert_eq!((function.runtime, function.isolation), (Runtime::Stream, Isolation::SubTenant));
    assert_eq!((function.layout.clone(), function.dir.as_str()), (Layout::Static, "/srv/functions/resize"));
    assert_eq!((function.command.join(" "), function.env.len()), ("/function/resize".to_owned(), 0));
    assert_eq!((function.memory_max.bytes(), function.cpu_quota.millis()), (128 << 20, 1000));
    assert_eq!((function.cpu_weight, function.pids_max), (100, 64));
    assert_eq!((function.tmp_size.bytes(), function.tmp_inodes), (64 << 20, 4096));
    assert_eq!((function.nofile, function.stack.bytes()), (256, 8 << 20));
    assert_eq!((function.timeout, function.start_timeout), (Duration::from_secs(30), Duration::from_secs(10)));
    assert_eq!((function.idle_ttl, function.age_max, function.calls_max), (Duration::from_secs(600), None, None));
    assert_eq!(function.freeze_after, Freeze::After(Duration::from_millis(100)));
    assert_eq!((function.workers_max, function.workers_per_sub_tenant_max, function.queue_max), (200, 4, 100));
    assert_eq!((function.payload_max_bytes, function.answer_max_bytes), (6 << 20, 6 << 20));
    assert_eq!((function.log_rate.bytes(), function.has_report_lines), (256 << 10, false));
    assert_eq!((function.log_max.bytes(), function.on_refused_syscall), (64 << 10, OnRefused::Errno));
}

const RUNTIMES: &str = "write \"stream\" for a process that reads frames, \"exec\" for one process per call, or \
                        \"lambda\", \"python3.11\" or \"nodejs22.x\", in any version, for an AWS Lambda handler";

#[test]
fn what_a_function_is_has_no_default() {
    for (key, remedy) in [
        ("runtime", RUNTIMES),
        (
            "layout",
            "write \"host\" to see the host's /usr, \"static\" for the function's directory alone, or \"dir\" and a root",
        ),
        ("dir", "add the function's directory, such as dir = \"/srv/functions/resize\""),
        (
            "command",
            "add the program as the worker sees it and its arguments, such as command = [\"/function/resize\"]",
        ),
    ] {
        only(&[(&f(key), "")], &format!("{F}.{key}: missing; {remedy}"));
    }
}

#[test]
fn words_are_of_a_closed_list() {
    for (key, words) in [
        ("layout", "\"host\", \"static\", \"dir\""),
        ("isolation", "\"sub-tenant\", \"shared\""),
        ("on_refused_syscall", "\"errno\", \"kill\""),
    ] {
        only(&[(&f(key), "\"other\"")], &format!("{F}.{key} = \"other\": not a choice; write one of {words}"));
        let told = told(&[(&f(key), "1")]);
        assert!(told[0].starts_with(&format!("{F}.{key} = 1: not a text; write it in quotes, such as ")), "{told:?}");
    }
    only(&[(&f("runtime"), "\"node\"")], &format!("{F}.runtime = \"node\": not a choice; {RUNTIMES}"));
    assert_eq!(resize(&[(&f("runtime"), "\"exec\"")]).runtime, Runtime::Exec);
    assert_eq!(resize(&[(&f("isolation"), "\"shared\"")]).isolation, Isolation::Shared);
    assert_eq!(resize(&[(&f("on_refused_syscall"), "\"kill\"")]).on_refused_syscall, OnRefused::Kill);
}

#[test]
fn function_numbers_have_bounds() {
    bounded(&[], &f("memory_max"), "\"4095KiB\"", "\"4MiB\"", "\"1048576GiB\"", "\"1048577GiB\"");
    bounded(&[], &f("cpu_quota"), "\"9m\"", "\"10m\"", "\"8192000m\"", "\"8192001m\"");
    bounded(&[], &f("cpu_weight"), "0", "1", "10000", "10001");
    bounded(&[], &f("pids_max"), "2", "3", "4194304", "4194305");
    bounded(&[], &f("tmp_size"), "\"4095B\"", "\"4KiB\"", "\"128MiB\"", "");
    bounded(&[], &f("tmp_inodes"), "1", "2", "1000000", "1000001");
    bounded(&[], &f("nofile"), "15", "16", "1048576", "1048577");
    bounded(&[], &f("stack"), "\"65535B\"", "\"64KiB\"", "\"1GiB\"", "\"1025MiB\"");
    bounded(&[], &f("timeout"), "\"0s\"", "\"1ms\"", "\"24h\"", "\"86401s\"");
    bounded(&[], &f("start_timeout"), "\"0s\"", "\"1ms\"", "\"24h\"", "\"86401s\"");
    bounded(&[], &f("idle_ttl"), "\"0ms\"", "\"1ms\"", "\"8760h\"", "\"8761h\"");
    bounded(&[], &f("age_max"), "\"0ms\"", "\"1ms\"", "\"8760h\"", "\"8761h\"");
    bounded(&[], &f("freeze_after"), "", "\"0s\"", "\"24h\"", "\"86401s\"");
    bounded(&[], &f("calls_max"), "0", "1", "1000000", "1000001");
    bounded(&[], &f("workers_max"), "0", "1", "200", "");
    bounded(&[], &f("workers_per_sub_tenant_max"), "0", "1", "200", "");
    bounded(&[], &f("queue_max"), "0", "1", "10000", "");
    bounded(&[], &f("payload_max"), "\"0B\"", "\"1B\"", "\"64MiB\"", "\"67108865B\"");
    bounded(&[], &f("answer_max"), "\"0B\"", "\"1B\"", "\"64MiB\"", "\"67108865B\"");
    bounded(&[], &f("log_max"), "\"1023B\"", "\"1KiB\"", "\"1MiB\"", "\"1025KiB\"");
    bounded(&[], &f("log_rate"), "\"31KiB\"", "\"32KiB\"", "\"10MiB\"", "\"10241KiB\"");
}

#[test]
fn bounds_are_told_with_their_reason() {
    only(
        &[(&f("pids_max"), "2")],
        &format!("{F}.pids_max = 2: below 3: init, launcher and function are one each; write at least 3"),
    );
    only(
        &[(&f("answer_max"), "\"65MiB\"")],
        &format!(
            "{F}.answer_max = \"65MiB\": above \"64MiB\": no frame between supervisor and worker is larger; \
             write at most \"64MiB\""
        ),
    );
}

#[test]
fn values_with_a_unit_are_refused_without_it() {
    let size = "not a size; write a whole number and its unit, B, KiB, MiB or GiB, in quotes, such as \"128MiB\"";
    let cpu =
        "not an amount of CPU; write thousandths of a CPU, such as \"500m\", or whole CPUs, such as \"2\", in quotes";
    let time = "not a duration; write a whole number and its unit, ms, s, m or h, in quotes, such as \"30s\"";
    for (key, values, error) in [
        ("memory_max", ["128", "\"128\"", "\"128MB\"", "\"30s\""], size),
        ("tmp_size", ["64", "\"64\"", "\"64M\"", "\"-64MiB\""], size),
        ("stack", ["8.5", "\"8\"", "\"8mib\"", "true"], size),
        ("payload_max", ["4", "\"4\"", "\"4MB\"", "\"4 MiB\""], size),
        ("log_max", ["64", "\"64\"", "\"64kB\"", "\"\""], size),
        ("cpu_quota", ["1", "\"1.5\"", "\"50%\"", "\"1000M\""], cpu),
        ("timeout", ["30", "\"30\"", "\"1d\"", "\"1.5s\""], time),
        ("idle_ttl", ["600", "\"10\"", "\"10min\"", "\"never\""], time),
        ("freeze_after", ["0", "\"0\"", "\"Never\"", "false"], time),
    ] {
        for value in values {
            only(&[(&f(key), value)], &format!("{F}.{key} = {value}: {error}"));
        }
    }
}

#[test]
fn freezing_can_be_at_once_late_or_never() {
    let freeze = |value| resize(&[(&f("freeze_after"), value)]).freeze_after;
    assert_eq!(freeze("\"never\""), Freeze::Never);
    assert_eq!(freeze("\"0s\""), Freeze::After(Duration::ZERO));
    assert_eq!(freeze("\"5s\""), Freeze::After(Duration::from_secs(5)));
}

#[test]
fn tmp_is_not_above_memory_and_its_default_is_at_most_half() {
    assert_eq!(resize(&[(&f("memory_max"), "\"32MiB\"")]).tmp_size.bytes(), 16 << 20);
    assert_eq!(resize(&[(&f("memory_max"), "\"1GiB\"")]).tmp_size.bytes(), 64 << 20);
    taken(&[(&f("memory_max"), "\"64MiB\""), (&f("tmp_size"), "\"64MiB\"")]);
    only(
        &[(&f("memory_max"), "\"64MiB\""), (&f("tmp_size"), "\"65MiB\"")],
        &format!(
            "{F}.tmp_size = \"65MiB\": above {F}.memory_max = \"64MiB\", and files in /tmp are memory; \
             write at most \"64MiB\", or raise {F}.memory_max"
        ),
    );
}

#[test]
fn root_is_for_the_dir_layout_and_only_for_it() {
    let dir = (&*f("layout"), "\"dir\"");
    let identity = sublet_proto::link::sandbox::Identity { device: 1, inode: 2 };
    let function = resize(&[dir, (&f("root"), "\"../roots/debian\"")]);
    assert_eq!(function.layout.to_sandbox_root(identity), Root::Dir { path: "/etc/roots/debian".into(), identity });
    only(
        &[dir],
        &format!("{F}.root: missing; layout = \"dir\" needs a prepared tree, such as root = \"/srv/roots/debian\""),
    );
    for layout in ["\"host\"", "\"static\""] {
        only(
            &[(&f("layout"), layout), (&f("root"), "\"/srv/roots/debian\"")],
            &format!(
                "{F}.root = \"/srv/roots/debian\": only for layout = \"dir\"; remove it, or write layout = \"dir\""
            ),
        );
    }
    assert_eq!(resize(&[(&f("layout"), "\"host\"")]).layout.to_sandbox_root(identity), Root::Host);
}

#[test]
fn workers_are_not_shown_the_host_or_our_own_files() {
    let remedy = "write a directory that holds nothing else, below /srv for example";
    for key in ["dir", "root"] {
        let told = |value: &str, what: &str| {
            let changes =
                [(&*f("root"), "\"/srv/root\""), (&*f("layout"), "\"dir\""), (&*f(key), &*format!("{value:?}"))];
            only(&changes, &format!("{F}.{key} = {value:?}: {what}; {remedy}"));
        };
        told("/", "workers would see the whole host");
        told("/var/lib/sublet", "workers would see host.state_dir = \"/var/lib/sublet\"");
        told("/var", "workers would see host.state_dir = \"/var/lib/sublet\"");
    }
    only(
        &[("host.socket", "\"/srv/functions/resize/s\"")],
        &format!(
            "{F}.dir = \"/srv/functions/resize\": workers would see host.socket = \"/srv/functions/resize/s\"; {remedy}"
        ),
    );
}

#[test]
fn program_is_a_plain_absolute_path() {
    only(
        &[(&f("command"), "[]")],
        &format!("{F}.command = []: empty; write a program, such as command = [\"/function/resize\"]"),
    );
    for program in ["resize", "./resize", "", "/function/../usr/bin/id", "/function/"] {
        only(
            &[(&f("command"), &format!("[{program:?}, \"-v\"]"))],
            &format!(
                "{F}.command = {program:?}: the program is not a plain absolute path inside the worker; write where the \
                 worker sees it; the function's directory is /function, so \"/function/resize\" for example"
            ),
        );
    }
    only(&[(&f("command"), "[\"/function/a\", 7]")], &format!("{F}.command = 7: not a text; write it in quotes"));
    only(
        &[(&f("command"), "[\"/function/a\", \"a\\u0000b\"]")],
        &format!("{F}.command = \"a\\0b\": contains a NUL byte, which ends a text; remove it"),
    );
    assert_eq!(resize(&[(&f("command"), "[\"/function/a\", \"\", \"x y\"]")]).command, ["/function/a", "", "x y"]);
}

#[test]
fn program_is_where_the_layout_shows_something() {
    let python = (&*f("command"), "[\"/usr/bin/python3\", \"/function/main.py\"]");
    taken(&[python, (&f("layout"), "\"host\"")]);
    taken(&[python, (&f("layout"), "\"dir\""), (&f("root"), "\"/srv/root\"")]);
    only(
        &[python],
        &format!(
            "{F}.command = \"/usr/bin/python3\": a worker with the static layout sees /function only; \
             move the program there, or choose another layout"
        ),
    );
    for program in ["/opt/x", "/usrx/y", "/functionx"] {
        only(
            &[(&f("command"), &format!("[{program:?}]")), (&f("layout"), "\"host\"")],
            &format!(
                "{F}.command = {program:?}: a worker with the host layout sees /function and /usr only; \
                 move the program to one of them"
            ),
        );
    }
}

#[test]
fn environment_keeps_what_the_kernel_can_carry_and_shows_no_value() {
    let env = resize(&[(&f("env"), "{ KEY = \"a=b\\n\", \"x y\" = \"\" }")]).env;
    assert_eq!(env.into_iter().collect::<Vec<_>>(), [("KEY".into(), "a=b\n".into()), ("x y".into(), String::new())]);
    for (entry, line) in [
        ("\"\" = \"secret\"", "env.\"\": the variable has no name; give it one"),
        (
            "\"A=B\" = \"secret\"",
            "env.\"A=B\": the name contains '=' or a NUL byte, which end a name; rename the variable",
        ),
        (
            "\"A\\u0000\" = \"secret\"",
            "env.\"A\\0\": the name contains '=' or a NUL byte, which end a name; rename the variable",
        ),
        ("SUBLET_X = \"secret\"", "env.SUBLET_X: names that begin with SUBLET_ are sublet's own; rename the variable"),
        (
            "A = \"secret\\u0000\"",
            "env.A: the value contains a NUL byte, which ends a value; remove it, or encode the value",
        ),
        ("A = 7", "env.A: the value is not a text; write it in quotes"),
    ] {
        only(&[(&f("env"), &format!("{{ {entry} }}"))], &format!("{F}.{line}"));
    }
}

#[test]
fn command_and_environment_fit_one_message() {
    // 19 for "/function/resize", 4 for the key, then the value with 3 and its '='.
    let longest = 32 * 1024 - 19 - 4 - 1 - 3;
    let value = |len: usize| format!("{{ A = \"{}\" }}", "x".repeat(len));
    taken(&[(&f("env"), &value(longest))]);
    only(
        &[(&f("env"), &value(longest + 1))],
        &format!(
            "{F}.command: with env it takes 32769 bytes as JSON, and the nursery's message has room for 32768; \
             move long values into a file in the function's directory"
        ),
    );
    let escaped = format!("{{ A = \"{}\" }}", "\\u0001".repeat(longest / 6 + 1));
    assert!(told(&[(&f("env"), &escaped)])[0].starts_with(&format!("{F}.command: with env it takes ")));
}

/// Another value for settings of a function.
const OTHERS: [(&str, &str); 41] = [
    ("runtime", "\"exec\""),
    ("handler", "\"app.other\""),
    ("isolation", "\"shared\""),
    ("layout", "\"host\""),
    ("root", "\"/srv/other\""),
    ("dir", "\"/srv/functions/other\""),
    ("memory_max", "\"129MiB\""),
    ("memory_high", "\"100MiB\""),
    ("cpu_quota", "\"999m\""),
    ("cpu_period", "\"50ms\""),
    ("cpu_burst", "\"10ms\""),
    ("cpu_weight", "101"),
    ("pids_max", "65"),
    ("tmp_size", "\"63MiB\""),
    ("tmp_inodes", "4097"),
    ("nofile", "257"),
    ("stack", "\"9MiB\""),
    ("timeout", "\"31s\""),
    ("start_timeout", "\"11s\""),
    ("idle_ttl", "\"11m\""),
    ("age_max", "\"1h\""),
    ("calls_max", "1"),
    ("freeze_after", "\"never\""),
    ("workers_max", "199"),
    ("workers_per_sub_tenant_max", "5"),
    ("queue_max", "101"),
    ("calls_in_flight_max", "100"),
    ("cells_max", "3"),
    ("workers_min", "0"),
    ("idempotent", "true"),
    ("payload_max", "\"5MiB\""),
    ("answer_max", "\"5MiB\""),
    ("stream_max", "\"5MiB\""),
    ("log_max", "\"65KiB\""),
    ("log_rate", "\"64KiB\""),
    ("report_lines", "true"),
    ("on_refused_syscall", "\"kill\""),
    ("command", "[\"/function/resize\", \"\"]"),
    ("env", "{ A = \"\" }"),
    ("token", "{ provider = \"static\", dir = \"/srv/tokens\" }"),
    ("warm", "{ s = 1 }"),
];

/// Another value for a setting: of a new one, where none stands above, an end of its bounds.
pub fn other(row: &Row) -> String {
    let of_hand = OTHERS.iter().find(|(key, _)| *key == row.key).map(|(_, value)| (*value).to_owned());
    of_hand.unwrap_or_else(|| {
        let mut within = ends(row.kind).into_iter().filter(|end| end.told.is_none());
        within.next_back().unwrap_or_else(|| panic!("OTHERS has no value for {}", row.key)).value
    })
}

#[test]
fn every_setting_that_makes_a_worker_different_changes_the_revision_and_no_other_does() {
    let mut seen = std::collections::BTreeMap::from([(resize(&[]).revision, "none".to_owned())]);
    for row in RawFunction::rows() {
        let (key, value) = (row.key, other(row));
        let setting = f(key);
        let mut changes = vec![(setting.as_str(), value.as_str())];
        let layout = f("layout");
        if key == "root" {
            changes.push((&layout, "\"dir\""));
        }
        let runtime = f("runtime");
        if key == "handler" {
            changes.push((&runtime, "\"lambda\""));
        }
        if key == "workers_min" {
            // Only a shared function has one, and that is another revision by itself.
            continue;
        }
        let revision = resize(&changes).revision;
        if row.changes != Changes::NewWorkers {
            assert_eq!(revision, resize(&[]).revision, "{key}");
            continue;
        }
        let other = seen.insert(revision, key.to_owned());
        assert_eq!(other, None, "{key} gives the revision of another change");
    }
}

#[test]
fn size_of_tmp_that_follows_the_memory_limit_is_part_of_the_revision() {
    let small = resize(&[(&f("memory_max"), "\"32MiB\"")]);
    assert_eq!(small.tmp_size.bytes(), 16 << 20);
    assert_ne!(small.revision, resize(&[]).revision, "its /tmp is another");
}

#[test]
fn revisions_are_those_of_earlier_versions() {
    assert_eq!(resize(&[]).revision, 15_675_153_373_221_906_354);
    let mut changes = vec![
        ("runtime", "\"lambda\""),
        ("layout", "\"dir\""),
        ("root", "\"/srv/root\""),
        ("command", "[\"/function/resize\", \"x\"]"),
        ("env", "{ A = \"1\", B = \"two\" }"),
        ("token", "{ provider = \"command\", command = [\"/usr/bin/mint\"], ttl = \"1m\", timeout = \"1s\" }"),
        ("handler", "\"app.handler\""),
        ("isolation", "\"sub-tenant\""),
        ("tmp_size", "\"1MiB\""),
        ("tmp_inodes", "100"),
        ("nofile", "99"),
        ("stack", "\"1MiB\""),
        ("payload_max", "\"1MiB\""),
        ("answer_max", "\"2MiB\""),
        ("log_max", "\"2KiB\""),
        ("log_rate", "\"64KiB\""),
        ("report_lines", "true"),
        ("on_refused_syscall", "\"kill\""),
    ];
    let revision = |changes: &[(&str, &str)]| {
        let changes: Vec<(String, &str)> = changes.iter().map(|(key, value)| (f(key), *value)).collect();
        let changes: Vec<(&str, &str)> = changes.iter().map(|(key, value)| (key.as_str(), *value)).collect();
        resize(&changes).revision
    };
    assert_eq!(revision(&changes), 4_101_256_684_063_914_512);
    changes.extend([("memory_max", "\"64MiB\""), ("cpu_weight", "7"), ("timeout", "\"3s\""), ("warm", "{ a = 1 }")]);
    assert_eq!(revision(&changes), 4_101_256_684_063_914_512, "these are no part of it");
}

#[test]
fn roots_variables_and_arguments_do_not_run_into_each_other() {
    let revision = |changes: &[(&str, &str)]| resize(changes).revision;
    let dir = (&*f("layout"), "\"dir\"");
    assert_ne!(revision(&[dir, (&f("root"), "\"/srv/a\"")]), revision(&[dir, (&f("root"), "\"/srv/b\"")]));
    assert_ne!(revision(&[(&f("env"), "{ A = \"1\" }")]), revision(&[(&f("env"), "{ A = \"2\" }")]));
    assert_ne!(
        revision(&[(&f("command"), "[\"/function/a\", \"b\", \"c\"]")]),
        revision(&[(&f("command"), "[\"/function/a\", \"b c\"]")])
    );
}

#[test]
fn revision_does_not_hang_on_order_comments_or_other_tables() {
    let first = resize(&[]);
    let mut lines: Vec<&str> = MINIMAL.trim().lines().collect();
    let function = lines.split_off(4);
    let reversed: Vec<&str> = function.into_iter().rev().collect();
    let text = format!("{}\n# another order\n{}\n", lines.join("\n"), reversed.join("\n"));
    let second = Config::parse(&text, Path::new("/elsewhere")).expect("it is taken");
    assert_eq!(second.function("acme", "resize").map(|f| f.revision), Some(first.revision));
    assert_eq!(resize(&[("tenant.acme.workers_max", "3"), ("host.workers_max", "7")]).revision, first.revision);
}

#[test]
fn relative_directory_below_another_base_is_another_revision() {
    let text = with(&[(&f("dir"), "\"resize\"")]);
    let revision = |base: &str| {
        let config = Config::parse(&text, Path::new(base)).expect("it is taken");
        config.function("acme", "resize").map(|f| f.revision)
    };
    assert_eq!(revision("/srv/a"), revision("/srv/a"));
    assert_ne!(revision("/srv/a"), revision("/srv/b"));
}

#[test]
fn short_revision_is_eight_hexadecimal_digits() {
    let mut function = resize(&[]);
    let short = function.short_revision();
    assert!(short.len() == 8 && short.bytes().all(|b| b.is_ascii_hexdigit()), "{short}");
    function.revision = 0x0000_0001_0000_0003;
    assert_eq!(function.short_revision(), "00000002");
}

#[test]
fn workers_that_are_kept_must_fit_every_cap_above_them() {
    only(
        &[(&f("warm"), "{ s = 5 }")],
        &format!("{F}.warm.s = 5: above the workers a sub-tenant may have of this function, 4; write at most 4"),
    );
    taken(&[(&f("warm"), "{ s = 5 }"), (&f("workers_per_sub_tenant_max"), "5")]);
    only(
        &[(&f("warm"), "{ s = 2, t = 2 }"), (&f("workers_max"), "3")],
        &format!(
            "{F}.warm: 4 workers in all, above the 3 the function may have; lower the numbers, or raise workers_max"
        ),
    );
    only(
        &[(&f("workers_min"), "1")],
        &format!(
            "{F}.workers_min = 1: only for isolation = \"shared\"; \
             write the sub-tenants to keep workers for: warm = {{ \"customer-1\" = 1 }}"
        ),
    );
    only(
        &[(&f("isolation"), "\"shared\""), (&f("warm"), "{ s = 1 }")],
        &format!("{F}.warm: a shared function has no sub-tenants; write workers_min instead"),
    );
    let label = "x".repeat(257);
    let told = told(&[(&f("warm"), &format!("{{ {label} = 1 }}"))]);
    assert!(told[0].contains("257 bytes"), "{told:?}");
}
