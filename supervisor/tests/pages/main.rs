//! The pages of the repository: every link leads to something that is there, and no page names a file or a test that is not.

mod markdown;

use std::{
    collections::BTreeSet,
    fs,
    path::{Component, Path, PathBuf},
};

use markdown::{Page, slug};

/// The top level of the repository, beside files that begin with a dot.
const TOP: [&str; 12] = [
    "CHANGELOG.md",
    "CONTRIBUTING.md",
    "Cargo.lock",
    "Cargo.toml",
    "LICENSE",
    "README.md",
    "SECURITY.md",
    "proto",
    "rootfs",
    "shim",
    "supervisor",
    "tests",
];
/// Where builds go.
const BUILT: &str = "target";
/// What the front page may have.
const README_LINES_MAX: usize = 250;
/// A word with such an end is a file of the repository.
const FILES: [&str; 8] = [".rs", ".proto", ".py", ".sh", ".txt", ".toml", ".md", ".c"];
/// Files that readers make, or have made by `sublet new`.
const MADE_BY_READERS: [&str; 3] = ["new.toml", "sublet.toml", "sublet_function.py"];

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..").canonicalize().expect("the repository is there")
}

/// All files below a directory, from the root of the repository on, without what is built or hidden.
fn walk(root: &Path, below: &Path, found: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(root.join(below)).expect("a directory of the repository").map(Result::unwrap) {
        let name = entry.file_name();
        let path = below.join(&name);
        let is_hidden = name.to_string_lossy().starts_with('.');
        if is_hidden || name == BUILT {
            continue;
        }
        if entry.file_type().unwrap().is_dir() {
            walk(root, &path, found);
        } else {
            found.push(path);
        }
    }
}

struct Repository {
    root: PathBuf,
    files: Vec<PathBuf>,
    /// Names of the kernel tests.
    cases: BTreeSet<String>,
}

impl Repository {
    fn read() -> Self {
        let root = root();
        let mut files = Vec::new();
        walk(&root, Path::new(""), &mut files);
        let kernel = files.iter().filter(|path| path.starts_with("tests/kernel/src"));
        let cases = kernel.flat_map(|path| {
            let text = fs::read_to_string(root.join(path)).expect("a source file");
            let words: Vec<String> = text.split('"').skip(1).step_by(2).map(str::to_owned).collect();
            words.into_iter().filter(|word| is_case(word))
        });
        Self { cases: cases.collect(), files, root }
    }

    fn pages(&self) -> Vec<(PathBuf, Page)> {
        let pages: Vec<(PathBuf, Page)> = (self.files.iter())
            .filter(|path| path.extension().is_some_and(|end| end == "md"))
            .map(|path| (path.clone(), Page::parse(&fs::read_to_string(self.root.join(path)).expect("a page"))))
            .collect();
        assert!(pages.len() > 20, "only {} pages were found below {}", pages.len(), self.root.display());
        pages
    }

    /// What a word in backticks names and is not there, in words.
    fn wrong(&self, word: &str) -> Option<String> {
        let word = word.trim_start_matches("./").trim_end_matches('/');
        if is_case(word) {
            let module = word.split("::").next().unwrap_or_default();
            let is_kernel = self.cases.iter().any(|case| case.starts_with(&format!("{module}::")));
            return (is_kernel && !self.cases.iter().any(|case| case.starts_with(word)))
                .then(|| format!("no kernel test is named {word}"));
        }
        let first = word.split('/').next().unwrap_or_default();
        let is_plain = word.bytes().all(|b| b.is_ascii_alphanumeric() || b"_-./".contains(&b));
        if !is_plain || word.starts_with('/') {
            return None;
        }
        let is_path = word.contains('/') && TOP.contains(&first);
        let is_file = FILES.iter().any(|end| word.len() > end.len() && word.ends_with(end));
        if MADE_BY_READERS.contains(&word) || !(is_path || is_file) || word.starts_with(BUILT) {
            return None;
        }
        let is_there = self.files.iter().any(|path| path.starts_with(word) || !is_path && path.ends_with(word));
        (!is_there).then(|| format!("{word} is not in the repository"))
    }
}

/// "module::rule", as kernel tests are named.
fn is_case(word: &str) -> bool {
    let is_name =
        |part: &str| part.bytes().all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'_');
    word.split_once("::").is_some_and(|(module, rule)| !module.is_empty() && is_name(module) && is_name(rule))
}

/// Resolves `..` without asking the file system; none when it leads out of the repository.
fn normal(path: &Path) -> Option<PathBuf> {
    let mut out = PathBuf::new();
    for part in path.components() {
        match part {
            Component::Normal(name) => out.push(name),
            Component::ParentDir => out.pop().then_some(())?,
            Component::CurDir => {}
            Component::RootDir | Component::Prefix(_) => return None,
        }
    }
    Some(out)
}

#[test]
fn links_lead_to_files_and_headings_that_are_there() {
    let repository = Repository::read();
    let pages = repository.pages();
    let headings = |path: &Path| pages.iter().find(|(other, _)| other == path).map(|(_, page)| page.anchors());
    let (mut wrong, mut links) = (Vec::new(), 0);
    for (path, page) in &pages {
        for link in &page.links {
            if link.contains("://") {
                continue;
            }
            links += 1;
            let (file, anchor) = link.split_once('#').unwrap_or((link, ""));
            let target = match file {
                "" => Some(path.clone()),
                file => normal(&path.parent().unwrap_or(Path::new("")).join(file)),
            };
            let Some(target) = target.filter(|target| repository.root.join(target).exists()) else {
                wrong.push(format!("{}: {link} leads nowhere", path.display()));
                continue;
            };
            if !anchor.is_empty() && !headings(&target).is_some_and(|all| all.contains(anchor)) {
                wrong.push(format!("{}: {link} leads to no heading", path.display()));
            }
        }
    }
    assert!(links > 50, "only {links} links were found");
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn files_and_tests_that_pages_name_are_there() {
    let repository = Repository::read();
    let (mut wrong, mut words) = (Vec::new(), 0);
    for (path, page) in repository.pages() {
        // Text names files without their directories, and no directory or test.
        let plain = page.words.iter().map(String::as_str).filter(|word| FILES.iter().any(|end| word.ends_with(end)));
        for word in page.code.iter().flat_map(|span| span.split_whitespace()).chain(plain) {
            words += 1;
            wrong.extend(repository.wrong(word).map(|what| format!("{}: {what}", path.display())));
        }
    }
    assert!(words > 1000, "only {words} words were found");
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn what_is_not_there_is_found_to_be_wrong() {
    let repository = Repository::read();
    for word in
        ["supervisor/src/nothing.rs", "nothing.rs", "tests/nothing/", "./tests/nothing", "cage::nothing_is_named_so"]
    {
        assert!(repository.wrong(word).is_some(), "{word}");
    }
    for word in
        ["supervisor/src/lib.rs", "pool/turns.rs", "tests/run", "./tests/run", "cage::", "application/json", "w-1"]
    {
        assert_eq!(repository.wrong(word), None, "{word}");
    }
}

#[test]
fn front_page_is_short_and_the_top_level_is_as_agreed() {
    let root = root();
    let lines = fs::read_to_string(root.join("README.md")).unwrap().lines().count();
    assert!(lines <= README_LINES_MAX, "README.md has {lines} lines");
    let there = fs::read_dir(&root).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap());
    let there: BTreeSet<String> = there.filter(|name| !name.starts_with('.') && name != BUILT).collect();
    assert_eq!(there, TOP.into_iter().map(str::to_owned).collect());
}

#[test]
fn headings_have_the_anchors_that_readers_follow() {
    for (heading, anchor) in [
        ("Threat model", "threat-model"),
        ("The supervisor's own cage", "the-supervisors-own-cage"),
        ("`[tenant.T.function.F.token]`", "tenanttfunctionftoken"),
        ("sublet what-if", "sublet-what-if"),
    ] {
        assert_eq!(slug(heading), anchor);
    }
}
