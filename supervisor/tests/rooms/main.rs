//! The order of the rooms: a module imports only from modules of lower floors, and no modules import each other in a circle.
//!
//! Read from the sources: every `use` and every path that begins with `crate`, `super` or `self`, outside of tests. A module and
//! the modules inside it count as one: what a folder's `mod.rs` shares with its files is its own affair.

mod imports;

use std::path::Path;

use imports::{Import, Sources};

/// The supervisor's floors, from the ground up. A new module gets its place here.
const SUPERVISOR: &[&[&str]] = &[
    &["cgroups", "events", "hex", "printable", "process", "sys", "timestamp", "trust"],
    &["config", "nursery", "own_log", "recorder", "socket", "usage"],
    &["catalogue", "descriptors", "jail", "logs", "quota", "runner"],
    &["doctor", "token"],
    &["worker"],
    &["driver"],
    &["pulse", "reload"],
    &["front"],
    &["serve"],
    &["cli"],
];

/// The shim's.
const SHIM: &[&[&str]] = &[
    &["cgroups", "check", "counters", "keyring", "program", "sys"],
    &["link", "plan", "seccomp", "signals"],
    &["skeleton"],
    &["init"],
    &["nursery", "runner"],
];

/// Doors for the fuzzer, which look into every room.
const DOORS: &str = "fuzz";

fn sources(of: &str) -> Sources {
    let sources = Sources::read(&Path::new(env!("CARGO_MANIFEST_DIR")).join(of)).unwrap();
    assert!(sources.imports().len() > 20, "{of}: next to no imports were found");
    sources
}

/// What is wrong between the rooms of one crate.
fn against(floors: &[&[&str]], sources: &Sources) -> Vec<String> {
    let floor = |room: &str| floors.iter().position(|rooms| rooms.contains(&room));
    let mut wrong = Vec::new();
    for room in sources.children(&[]) {
        if floor(&room).is_none() && room != DOORS {
            wrong.push(format!("{room} has no floor yet: add it to the list in supervisor/tests/rooms"));
        }
    }
    for Import { from, to, file, text } in sources.imports() {
        let (Some(from), Some(to)) = (from.first(), to.first()) else { continue };
        if from != to && from != DOORS && floor(to) >= floor(from) {
            wrong.push(format!("{file}: {text}, but {to} is not below {from}"));
        }
    }
    wrong
}

#[test]
fn supervisors_rooms_import_from_lower_floors_only() {
    assert_eq!(against(SUPERVISOR, &sources("src")), [""; 0]);
}

#[test]
fn shims_rooms_import_from_lower_floors_only() {
    assert_eq!(against(SHIM, &sources("../shim/src")), [""; 0]);
}

#[test]
fn files_of_a_room_do_not_import_each_other_in_a_circle() {
    for of in ["src", "../shim/src", "../shim/runtime-api/src", "pool/src", "what-if/src", "../proto/src"] {
        let sources = Sources::read(&Path::new(env!("CARGO_MANIFEST_DIR")).join(of)).unwrap();
        assert_eq!(sources.circles(), [""; 0], "{of}");
    }
}

#[test]
fn front_knows_neither_the_kernel_nor_groups() {
    for (file, text) in sources("src").files_of("front") {
        let text = text.replace("unix::", "");
        for word in ["nix::", "libc::", "cgroups::", "/sys/fs", "/proc/"] {
            assert!(!text.contains(word), "{file} has {word}");
        }
    }
}

#[test]
fn path_of_the_hierarchies_is_named_in_one_room() {
    for (file, text) in sources("src").files() {
        // Words of advice to people.
        let is_advice = file == "doctor/advice.rs";
        assert!(is_advice || file.starts_with("cgroups/") || !text.contains("\"/sys/fs/cgroup"), "{file}");
    }
}

#[test]
fn circle_and_an_import_upwards_are_seen() {
    let sources = Sources::of(&[
        ("low.rs", "use crate::{high::{self, Thing}, other as another};"),
        ("high/mod.rs", "mod one; mod two; use crate::low::Low;"),
        ("high/one.rs", "// use super::two::Not;\nuse super::two::Two; fn f() { crate::low::call() }"),
        (
            "high/two.rs",
            "fn f() { let text = \"\"; super::one::call(text) }\n#[cfg(test)]\nmod tests { use crate::nowhere; }",
        ),
        ("other.rs", ""),
    ]);
    let floors: &[&[&str]] = &[&["low", "other"], &["high"]];
    let wrong = against(floors, &sources);
    assert_eq!(wrong.len(), 3, "{wrong:?}");
    assert!(
        wrong.iter().any(|one| one.contains("low.rs: crate::high") && one.contains("high is not below low")),
        "{wrong:?}"
    );
    assert!(wrong.iter().any(|one| one.contains("other is not below low")), "a floor's rooms are apart: {wrong:?}");
    assert_eq!(sources.circles(), ["the crate: high, low".to_owned(), "high: one, two".to_owned()]);
}
