//! What shim/HOSTILE.md says of tests is so: its rows name cases that there are, and its head counts its rows.

use std::collections::BTreeMap;

const PAGE: &str = include_str!("../../../shim/HOSTILE.md");

/// Every row's name and what it is shown by.
fn rows() -> Vec<(&'static str, &'static str)> {
    let rows = PAGE.lines().filter(|line| line.starts_with("| ") && !line.starts_with("| row |"));
    rows.filter_map(|line| {
        let (name, _) = line.strip_prefix("| ")?.split_once(" | ")?;
        let (_, shown_by) = line.strip_suffix(" |")?.rsplit_once(" | ")?;
        Some((name, shown_by))
    })
    .collect()
}

#[test]
fn cases_that_rows_name_are_there() {
    let known: Vec<&str> = crate::all().iter().map(|case| case.name).collect();
    let mut named = 0;
    for (row, shown_by) in rows() {
        // Between backquotes; what has colons is a case.
        for name in shown_by.split('`').skip(1).step_by(2).filter(|name| name.contains("::")) {
            assert!(known.contains(&name), "row {row} names {name}, and there is no such case");
            named += 1;
        }
    }
    assert!(named > 100, "only {named} names were read");
}

#[test]
fn head_counts_the_rows() {
    let mut counts: BTreeMap<&str, usize> = BTreeMap::new();
    for (_, shown_by) in rows() {
        let kind = match shown_by {
            "none needed" => "needless",
            text if text.starts_with("none") => "none",
            text if text.contains("in part") => "part",
            _ => "tested",
        };
        *counts.entry(kind).or_default() += 1;
    }
    let of = |kind: &str| counts.get(kind).copied().unwrap_or_default();
    let (tested, part, none, needless) = (of("tested"), of("part"), of("none"), of("needless"));
    let head = format!(
        "Of {} rows, {tested} have a test, {part} have one in part, {none} have none (one of which is not stopped today), \
         and {needless} need none.",
        tested + part + none + needless
    );
    assert!(PAGE.lines().any(|line| line == head), "the head of the page should say: {head}");
}
