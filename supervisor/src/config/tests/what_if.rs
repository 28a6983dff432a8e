//! `sublet what-if` knows limits by their names in the configuration, and has a reader of its own for them.

use std::collections::BTreeSet;

use sublet_what_if::{Change, ChangeError};

use super::reference::{all, ends};

#[test]
fn limits_of_what_if_are_settings_and_have_the_same_bounds() {
    let mut known = BTreeSet::new();
    for (name, _, row) in all() {
        for end in ends(row.kind) {
            match (format!("{name}={}", end.value.trim_matches('"')).parse::<Change>(), end.told) {
                // It has no part in what the pool decides.
                (Err(ChangeError::UnknownKey { .. }), _) => {}
                (Ok(_), None) => drop(known.insert(name.clone())),
                (Err(ChangeError::Zero { .. } | ChangeError::TooMuch { .. }), Some(_)) => {}
                (told, expected) => panic!("{name} = {}: {told:?}, and the reader {expected:?}", end.value),
            }
        }
    }
    // Two levels have the four of a level; of a function one is true or false.
    assert_eq!(known.len(), 5 + 2 * 4 + 11, "{known:?}");
}
