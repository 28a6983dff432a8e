//! The order of the rooms that supervisor/docs/architecture.md shows: a module imports only from modules of lower floors, and no
//! modules import each other in a circle.
//!
//! Read from the sources: every `use` and every path that begins with `crate`, `super` or `self`, outside of tests. A module and
//! the modules inside it count as one: what a folder's `mod.rs` shares with its files is its own affair.

mod imports;

use std::path::Path;

use imports::{Import, Sources};

/// Doors for the fuzzer, which look into every room.
const DOORS: &str = "fuzz";

fn sources(of: &str) -> Sources {
    let sources = Sources::read(&Path::new(env!("CARGO_MANIFEST_DIR")).join(of)).unwrap();
    assert!(sources.imports().len() > 20, "{of}: next to no imports were found");
    sources
}

/// The floors of a crate, from the ground up, as the page on the architecture shows them.
fn floors(of: &str) -> Vec<Vec<String>> {
    let page = include_str!("../../docs/architecture.md");
    let (_, rest) = page.split_once(&format!("```floors {of}\n")).expect(of);
    let (block, _) = rest.split_once("```").expect(of);
    let floors = block.lines().map(|line| line.split_whitespace().map(str::to_owned).collect());
    floors.rev().collect()
}

/// What is wrong between the rooms of one crate.
fn against(floors: &[Vec<String>], sources: &Sources) -> Vec<String> {
    let floor = |room: &str| floors.iter().position(|rooms| rooms.iter().any(|one| one == room));
    let mut wrong = Vec::new();
    for room in sources.children(&[]) {
        if floor(&room).is_none() && room != DOORS {
            wrong.push(format!("{room} has no floor yet: give it a place in supervisor/docs/architecture.md"));
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
    assert_eq!(against(&floors("supervisor/src"), &sources("src")), [""; 0]);
}

#[test]
fn shims_rooms_import_from_lower_floors_only() {
    assert_eq!(against(&floors("shim/src"), &sources("../shim/src")), [""; 0]);
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
    let floors = [vec!["low".to_owned(), "other".to_owned()], vec!["high".to_owned()]];
    let wrong = against(&floors, &sources);
    assert_eq!(wrong.len(), 3, "{wrong:?}");
    assert!(
        wrong.iter().any(|one| one.contains("low.rs: crate::high") && one.contains("high is not below low")),
        "{wrong:?}"
    );
    assert!(wrong.iter().any(|one| one.contains("other is not below low")), "a floor's rooms are apart: {wrong:?}");
    assert_eq!(sources.circles(), ["the crate: high, low".to_owned(), "high: one, two".to_owned()]);
}
