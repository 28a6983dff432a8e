//! Files of /proc and of control groups. The kernel writes them, and what a function does is in them: names of mounts,
//! commands and paths are other people's bytes, and numbers may be as large as the kernel can count.

use sublet_shim::fuzz::{cgroups, mounts, status};
use sublet_supervisor::fuzz::{counted, host_cgroups};

use crate::target;

#[test]
fn counters_of_a_group_are_read_or_absent() {
    target!(4096).for_each(|input: &[u8]| {
        let Ok(text) = std::str::from_utf8(input) else { return };
        let seen = counted(text);
        // Each is there only when its file says so.
        assert!(seen.throttled.is_none() || text.contains("throttled_"));
        assert!(seen.oom.is_none() || text.contains("oom "));
        assert!(seen.io == (0, 0) || text.contains("bytes="));
    });
}

#[test]
fn status_has_all_that_is_judged_or_is_refused() {
    target!(4096).for_each(|input: &[u8]| {
        let Ok(text) = std::str::from_utf8(input) else { return };
        match status(text) {
            Ok(seen) => {
                for field in ["Uid:", "Gid:", "Groups:", "CapEff:", "CapBnd:", "NoNewPrivs:", "Seccomp:"] {
                    assert!(text.contains(field), "{seen:?} without {field}");
                }
                let has_one = text.lines().any(|line| line.starts_with("NoNewPrivs:") && line.contains('1'));
                assert!(!seen.no_new_privs || has_one, "{text:?}");
            }
            Err(told) => assert!(!told.to_string().is_empty()),
        }
    });
}

#[test]
fn mounts_are_all_of_them_or_refused() {
    target!(8192).for_each(|input: &[u8]| {
        let Ok(text) = std::str::from_utf8(input) else { return };
        if let Ok(seen) = mounts(text) {
            assert_eq!(seen.len(), text.lines().count(), "one that is left out is not judged");
        }
    });
}

#[test]
fn groups_are_those_of_the_text() {
    target!(8192).for_each(|input: &[u8]| {
        let Ok(text) = std::str::from_utf8(input) else { return };
        for (controllers, path) in cgroups(text) {
            assert!(text.contains(&format!(":{controllers}:{path}")));
        }
        // Memberships, and what follows the first empty line: mounts.
        let (memberships, mounts) = text.split_once("\n\n").unwrap_or((text, ""));
        if let Some((own, mount)) = host_cgroups(memberships, mounts) {
            assert!(own.starts_with(&mount), "{own:?} is not below {mount:?}");
        }
    });
}
