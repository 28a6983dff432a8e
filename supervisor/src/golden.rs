//! Sections of the pages that tests write from the program's own tables, so that a page cannot say anything else than the
//! program does. A section stands in its page between two comments:
//!
//! ```text
//! <!-- generated: NAME -->
//! ...
//! <!-- end of NAME -->
//! ```
//! Change the table, run the tests of this crate with `SUBLET_GOLDEN=write`, and read the difference.

use std::{
    fs,
    path::PathBuf,
    sync::{Mutex, PoisonError},
};

/// Tests run side by side, and several write to one page.
static WRITING: Mutex<()> = Mutex::new(());

/// The page at `path`, from the root of the repository.
fn file(path: &str) -> PathBuf {
    PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/..")).join(path)
}

/// The text before a section, the section, and the text after it.
fn split<'a>(page: &'a str, path: &str, name: &str) -> [&'a str; 3] {
    let (begin, end) = (format!("<!-- generated: {name} -->\n"), format!("<!-- end of {name} -->\n"));
    let around = page.split_once(&begin).and_then(|(before, rest)| Some((before, rest.split_once(&end)?)));
    let (before, (section, after)) = around.unwrap_or_else(|| panic!("{path} has no section {begin:?} to {end:?}"));
    [before, section, after]
}

/// Holds a section of a page against what the program says; with `SUBLET_GOLDEN=write` the page is changed first.
#[track_caller]
pub fn section(path: &str, name: &str, text: &str) {
    let _writing = WRITING.lock().unwrap_or_else(PoisonError::into_inner);
    let read = || fs::read_to_string(file(path)).unwrap_or_else(|error| panic!("{path}: {error}"));
    let page = read();
    if std::env::var_os("SUBLET_GOLDEN").is_some_and(|value| value == "write") {
        let [before, _, after] = split(&page, path, name);
        let whole = format!("{before}<!-- generated: {name} -->\n\n{text}\n<!-- end of {name} -->\n{after}");
        fs::write(file(path), whole).unwrap();
    }
    let page = read();
    let [_, section, _] = split(&page, path, name);
    let differs = section.trim().lines().zip(text.trim().lines()).find(|(old, new)| old != new);
    assert!(
        section.trim() == text.trim(),
        "the section {name:?} of {path} says otherwise, first (page, program) {differs:?}; see supervisor/src/golden.rs"
    );
}
