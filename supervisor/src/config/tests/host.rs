//! Rules of `[host]`.

use super::*;

#[test]
fn host_defaults_are_what_the_manual_says() {
    let host = taken(&[]).host;
    assert_eq!(host.state_dir.as_str(), "/var/lib/sublet");
    assert_eq!(host.socket.as_str(), "/var/lib/sublet/call.sock");
    assert_eq!(host.admin_socket.as_str(), "/var/lib/sublet/admin.sock");
    assert_eq!((host.socket_mode.bits(), host.socket_gid, host.listen), (0o600, None, None));
    assert_eq!(host.instance.as_str(), "main");
    assert_eq!((host.uid_base, host.uid_count, host.supervisor_uid), (1_879_048_192, 65_536, 1_879_048_190));
    assert_eq!(
        (host.workers_max, host.calls_waiting_max, host.starts_max, host.connections_max),
        (200, 10_000, 8, 1024)
    );
    // On however many processors this runs.
    assert!((1..=16).contains(&host.threads), "{}", host.threads);
    assert_eq!(host.busy_poll, defaults::busy_poll(host.threads));
    assert_eq!((host.memory_max, host.pids_max), (None, None));
    assert!(host.accept_degraded.is_empty());
}

#[test]
fn host_settings_are_taken_as_written() {
    let host = taken(&[
        ("host.state_dir", "\"state\""),
        ("host.socket", "\"/run/sublet/call.sock\""),
        ("host.admin_socket", "\"/run/sublet/admin.sock\""),
        ("host.socket_mode", "\"0660\""),
        ("host.socket_gid", "4294967294"),
        ("host.listen", "\"[::1]:7070\""),
        ("host.instance", "\"blue\""),
        ("host.memory_max", "\"8GiB\""),
        ("host.pids_max", "1000"),
        ("host.threads", "3"),
        ("host.busy_poll", "false"),
        ("host.forbid_store_bypass", "true"),
        ("host.accept_degraded", "[\"landlock\", \"swap\"]"),
    ])
    .host;
    assert_eq!(host.state_dir.as_str(), "/etc/sublet/state");
    assert_eq!(host.socket.as_str(), "/run/sublet/call.sock");
    assert_eq!(host.admin_socket.as_str(), "/run/sublet/admin.sock");
    assert_eq!((host.socket_mode.bits(), host.socket_gid), (0o660, Some(4_294_967_294)));
    assert_eq!((host.threads, host.busy_poll), (3, false));
    assert!(host.forbid_store_bypass && !taken(&[]).host.forbid_store_bypass);
    assert_eq!(host.listen.map(|address| address.port()), Some(7070));
    assert_eq!(host.instance.as_str(), "blue");
    assert_eq!((host.memory_max.map(ByteSize::bytes), host.pids_max), (Some(8 << 30), Some(1000)));
    assert_eq!(Vec::from_iter(host.accept_degraded), [Degradation::Landlock, Degradation::Swap]);
}

#[test]
fn busy_poll_is_true_or_false() {
    only(
        &[("host.busy_poll", "\"no\"")],
        "host.busy_poll = \"no\": not true or false; write true or false, without quotes",
    );
    for (threads, busy_poll, taken_as) in [("1", "true", true), ("1", "false", false), ("2", "", false)] {
        let host = taken(&[("host.threads", threads), ("host.busy_poll", busy_poll)]).host;
        assert_eq!(host.busy_poll, taken_as, "{threads} {busy_poll}");
    }
    only(
        &[("host.threads", "2"), ("host.busy_poll", "true")],
        "host.busy_poll = true: only where one thread serves all calls, and host.threads is 2; \
         write threads = 1, or busy_poll = false",
    );
}

#[test]
fn state_dir_is_required() {
    only(
        &[("host.state_dir", "")],
        "host.state_dir: missing; add a directory of the daemon's own, such as state_dir = \"/var/lib/sublet\" in [host]",
    );
}

#[test]
fn host_numbers_have_bounds() {
    bounded(&[], "host.workers_max", "0", "1", "", "1000001");
    bounded(&[], "host.calls_waiting_max", "0", "1", "1000000", "1000001");
    bounded(&[], "host.starts_max", "0", "1", "200", "");
    bounded(&[], "host.connections_max", "0", "1", "65536", "65537");
    bounded(&[], "host.threads", "0", "1", "256", "257");
    bounded(&[("host.workers_max", "1")], "host.uid_count", "1", "2", "16777216", "16777217");
    bounded(&[], "host.uid_base", "65535", "65536", "", "4294967294");
    bounded(&[], "host.supervisor_uid", "0", "1", "4294967294", "4294967295");
    bounded(&[], "host.socket_gid", "", "0", "4294967294", "4294967295");
    bounded(&[(&format!("{F}.memory_max"), "\"4MiB\"")], "host.memory_max", "\"4095KiB\"", "\"4MiB\"", "", "");
    bounded(&[(&format!("{F}.pids_max"), "3")], "host.pids_max", "2", "3", "4194304", "4194305");
}

#[test]
fn counts_are_whole_numbers_without_quotes() {
    for value in ["\"200\"", "-1", "1.5", "true", "4294967296"] {
        only(
            &[("host.workers_max", value)],
            &format!(
                "host.workers_max = {value}: not a count; \
                 write a whole number from 0 to 4294967295, without quotes, such as 64"
            ),
        );
    }
}

#[test]
fn starts_are_not_above_workers_and_their_default_is_lowered() {
    assert_eq!(taken(&[("host.workers_max", "4")]).host.starts_max, 4);
    only(
        &[("host.workers_max", "4"), ("host.starts_max", "5")],
        "host.starts_max = 5: above host.workers_max = 4; write at most 4, or raise host.workers_max",
    );
}

#[test]
fn each_worker_has_two_ids() {
    taken(&[("host.uid_count", "400")]);
    only(
        &[("host.uid_count", "398")],
        "host.uid_count = 398: below 400, two for each worker of host.workers_max = 200 (the default); \
         write at least 400, or lower host.workers_max",
    );
    only(
        &[("host.workers_max", "32769")],
        "host.uid_count = 65536 (the default): below 65538, two for each worker of host.workers_max = 32769; \
         write at least 65538, or lower host.workers_max",
    );
    only(&[("host.uid_count", "65537")], "host.uid_count = 65537: odd, and each worker takes two; write 65538");
}

#[test]
fn ids_end_before_the_one_that_means_none() {
    // The last id of this range is 4294967294.
    taken(&[("host.uid_base", "4294901759")]);
    only(
        &[("host.uid_base", "4294901760")],
        "host.uid_count = 65536 (the default): uid_base = 4294901760 and uid_count lead to 4294967296, \
         beyond the last id 4294967294; write at most 65535, or lower host.uid_base",
    );
}

#[test]
fn supervisor_is_no_worker() {
    let range = [("host.uid_base", "100000"), ("host.uid_count", "1000")];
    assert_eq!(taken(&range).host.supervisor_uid, 99_998, "the default follows the base");
    for outside in ["99999", "101000"] {
        taken(&[range[0], range[1], ("host.supervisor_uid", outside)]);
    }
    for inside in ["100000", "100999"] {
        only(
            &[range[0], range[1], ("host.supervisor_uid", inside)],
            &format!(
                "host.supervisor_uid = {inside}: inside the workers' range 100000 to 100999; \
                 write an id outside of it, such as 99998"
            ),
        );
    }
}

#[test]
fn listening_is_for_loopback() {
    for value in ["127.0.0.1:7070", "127.1.2.3:1", "[::1]:7070"] {
        taken(&[("host.listen", &format!("{value:?}"))]);
    }
    for value in ["0.0.0.0:7070", "10.0.0.1:7070", "[::]:7070", "[::ffff:127.0.0.1]:7070"] {
        only(
            &[("host.listen", &format!("{value:?}"))],
            &format!(
                "host.listen = {value:?}: not a loopback address, and mTLS is not built yet: anybody who reaches it \
                 could call; write \"127.0.0.1:PORT\" or \"[::1]:PORT\", or remove it and use host.socket"
            ),
        );
    }
    for value in ["localhost:7070", "127.0.0.1", "7070", "127.0.0.1:65536"] {
        only(
            &[("host.listen", &format!("{value:?}"))],
            &format!(
                "host.listen = {value:?}: not an address with a port; \
                 write an IP address and a port, such as \"127.0.0.1:7070\""
            ),
        );
    }
}

#[test]
fn socket_mode_is_octal_and_leaves_the_owner_in() {
    for value in ["\"0680\"", "432", "\"1777\""] {
        only(
            &[("host.socket_mode", value)],
            &format!(
                "host.socket_mode = {value}: not a file mode; \
                 write permission bits in octal and in quotes, such as \"0660\""
            ),
        );
    }
    for value in ["\"0000\"", "\"0060\"", "\"0200\""] {
        only(
            &[("host.socket_mode", value)],
            &format!(
                "host.socket_mode = {value}: takes read or write from the socket's owner; \
                 keep both for the owner, such as \"0660\" or \"0600\""
            ),
        );
    }
}

#[test]
fn socket_paths_fit_the_kernels_address() {
    let longest = format!("/{}", "a".repeat(106));
    taken(&[("host.socket", &format!("{longest:?}"))]);
    only(
        &[("host.socket", &format!("\"{longest}a\""))],
        &format!(
            "host.socket = \"{longest}a\": has 108 bytes, and the kernel takes 107 for a socket; \
             write a shorter path, such as \"/run/sublet/call.sock\""
        ),
    );
    // Also where the path is a default: state_dir is then too long.
    let lines = told(&[("host.state_dir", &format!("\"{longest}\""))]);
    assert_eq!(lines.len(), 2, "{lines:?}");
    assert!(lines[0].starts_with("host.socket = ") && lines[1].starts_with("host.admin_socket = "), "{lines:?}");
}

#[test]
fn callers_and_operators_have_a_socket_each() {
    only(
        &[("host.admin_socket", "\"/var/lib/sublet/call.sock\"")],
        "host.admin_socket = \"/var/lib/sublet/call.sock\": the same as host.socket: callers would be operators; \
         write another path, such as \"/run/sublet/admin.sock\"",
    );
}

#[test]
fn only_named_degradations_can_be_accepted() {
    assert_eq!(
        taken(&[(
            "host.accept_degraded",
            "[\"landlock\", \"time\", \"inodes\", \"cpu\", \"swap\", \"memory_high\", \"memory_min\", \"cpu_burst\"]"
        )])
        .host
        .accept_degraded
        .len(),
        8
    );
    for name in ["memory", "pids", "seccomp", "user", "Landlock", ""] {
        only(
            &[("host.accept_degraded", &format!("[\"time\", {name:?}]"))],
            &format!(
                "host.accept_degraded = {name:?}: not a choice; \
                 write one of \"landlock\", \"time\", \"inodes\", \"cpu\", \"swap\", \"memory_high\", \"memory_min\", \"cpu_burst\""
            ),
        );
    }
}

#[test]
fn instance_is_a_name() {
    only(
        &[("host.instance", "\"a/b\"")],
        "host.instance = \"a/b\": the name contains '/'; only a-z, 0-9, '_' and '-' are allowed; \
         write a name such as \"main\"",
    );
}

#[test]
fn paths_are_texts_in_plain_form() {
    only(&[("host.state_dir", "7")], "host.state_dir = 7: not a text; write it in quotes, such as \"/var/lib/sublet\"");
    only(
        &[("host.state_dir", "\"/var/../etc\"")],
        "host.state_dir = \"/var/../etc\": the path contains \"..\" after another component; \
         write an absolute path, such as \"/var/lib/sublet\"",
    );
}

#[test]
fn trees_of_functions_bound_every_directory_by_name() {
    let trees = ("host.function_dirs", "[\"/srv/functions\", \"roots\"]");
    let config = taken(&[trees]);
    let bounds: Vec<&str> = config.bounds().into_iter().map(HostPath::as_str).collect();
    assert_eq!(bounds, ["/etc/sublet/roots", "/srv/functions"]);
    let config = taken(&[]);
    assert_eq!(config.bounds(), config.dirs(), "without them it is what functions have");
    let remedy = "move it below one of them, or write its tree there and restart";
    let shown = "not below host.function_dirs = [\"/etc/sublet/roots\", \"/srv/functions\"]";
    for dir in ["/srv/functionsx/f", "/srv", "/opt/f"] {
        let dir = format!("{dir:?}");
        only(&[trees, (&format!("{F}.dir"), &dir)], &format!("{F}.dir = {dir}: {shown}; {remedy}"));
    }
    let root = [(&*format!("{F}.layout"), "\"dir\""), (&*format!("{F}.root"), "\"/opt/root\"")];
    only(&[&[trees], &root[..]].concat(), &format!("{F}.root = \"/opt/root\": {shown}; {remedy}"));
}

#[test]
fn tree_of_functions_is_neither_the_whole_host_nor_has_anything_of_ours_in_it() {
    let remedy = "write a directory that holds functions alone, such as \"/srv/functions\"";
    only(
        &[("host.function_dirs", "[\"/\"]"), (&format!("{F}.dir"), "\"/srv/f\"")],
        &format!("host.function_dirs = \"/\": it is the whole host; {remedy}"),
    );
    let told = told(&[("host.function_dirs", "[\"/var/lib\", \"/srv\"]")]);
    let expected =
        format!("host.function_dirs = \"/var/lib\": host.state_dir = \"/var/lib/sublet\" is in it; {remedy}");
    assert_eq!(told, [expected]);
    let text = with(&[("host.function_dirs", "[7]")]);
    assert!(Config::parse(&text, Path::new(BASE)).unwrap_err().to_string().contains("not a text"));
}
