//! Who imports whom, as the sources say.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs, io,
    path::Path,
};

/// A module by its path in the crate; the crate itself is empty.
type Module = Vec<String>;

/// One path in one file that leads to another module.
#[derive(Debug)]
pub struct Import {
    /// The module of the file.
    pub from: Module,
    /// The module that is named.
    pub to: Module,
    /// The file, below the crate's sources.
    pub file: String,
    /// The path as written, without braces.
    pub text: String,
}

/// The sources of one crate, without comments and tests.
#[derive(Debug)]
pub struct Sources {
    files: BTreeMap<String, (Module, String)>,
}

impl Sources {
    /// Reads all below a directory.
    pub fn read(dir: &Path) -> io::Result<Self> {
        let mut found = Vec::new();
        let mut dirs = vec![dir.to_owned()];
        while let Some(next) = dirs.pop() {
            for entry in fs::read_dir(next)? {
                let path = entry?.path();
                if path.is_dir() {
                    dirs.push(path);
                } else if path.extension().is_some_and(|extension| extension == "rs") {
                    let name = path.strip_prefix(dir).map_err(io::Error::other)?.display().to_string();
                    found.push((name, fs::read_to_string(&path)?));
                }
            }
        }
        let found: Vec<_> = found.iter().map(|(name, text)| (name.as_str(), text.as_str())).collect();
        Ok(Self::of(&found))
    }

    /// From names of files and their texts.
    pub fn of(files: &[(&str, &str)]) -> Self {
        let files = files.iter().filter(|(name, _)| !is_test(name)).map(|(name, text)| {
            let mut module: Module = name.trim_end_matches(".rs").split('/').map(str::to_owned).collect();
            if module.last().is_some_and(|last| ["mod", "lib", "main"].contains(&last.as_str())) {
                module.pop();
            }
            ((*name).to_owned(), (module, without_tests(text)))
        });
        Self { files: files.collect() }
    }

    /// Every file with its text.
    pub fn files(&self) -> impl Iterator<Item = (&str, &str)> {
        self.files.iter().map(|(name, (_, text))| (name.as_str(), text.as_str()))
    }

    /// Those of one room.
    pub fn files_of<'a>(&'a self, room: &'a str) -> impl Iterator<Item = (&'a str, &'a str)> {
        self.files().filter(move |(name, _)| name.split(['/', '.']).next() == Some(room))
    }

    /// Modules right inside another one.
    pub fn children(&self, of: &[String]) -> BTreeSet<String> {
        let modules = self.files.values().map(|(module, _)| module);
        modules.filter(|module| module.starts_with(of)).filter_map(|module| module.get(of.len()).cloned()).collect()
    }

    /// Every path that leads to another module of the crate.
    pub fn imports(&self) -> Vec<Import> {
        let modules: BTreeSet<&Module> = self.files.values().map(|(module, _)| module).collect();
        let mut imports = Vec::new();
        for (file, (from, text)) in &self.files {
            for path in paths(text) {
                let mut to = absolute(from, &path);
                while !to.is_empty() && !modules.contains(&to) {
                    to.pop();
                }
                if !to.is_empty() && !from.starts_with(&to) && !to.starts_with(from) {
                    imports.push(Import { from: from.clone(), to, file: file.clone(), text: path.join("::") });
                }
            }
        }
        imports
    }

    /// Modules that reach each other, one circle a line, with the module that they are in.
    pub fn circles(&self) -> Vec<String> {
        let mut edges: BTreeMap<Module, BTreeMap<String, BTreeSet<String>>> = BTreeMap::new();
        for Import { from, to, .. } in self.imports() {
            let common = from.iter().zip(&to).take_while(|(one, other)| one == other).count();
            let (one, other) = (from[common].clone(), to[common].clone());
            edges.entry(from[..common].to_vec()).or_default().entry(one).or_default().insert(other);
        }
        let mut circles = BTreeSet::new();
        for (module, edges) in &edges {
            for start in edges.keys() {
                let reached = reached(edges, start);
                let circle: BTreeSet<&String> =
                    reached.iter().filter(|other| self::reached(edges, other).contains(start)).collect();
                if circle.contains(start) {
                    let names: Vec<&str> = circle.iter().map(|name| name.as_str()).collect();
                    let place = if module.is_empty() { "the crate".to_owned() } else { module.join("::") };
                    circles.insert((module.len(), format!("{place}: {}", names.join(", "))));
                }
            }
        }
        circles.into_iter().map(|(_, circle)| circle).collect()
    }
}

/// Everything that can be come to from `start`, which is among it only when there is a way back.
fn reached(edges: &BTreeMap<String, BTreeSet<String>>, start: &str) -> BTreeSet<String> {
    let (mut reached, mut next) = (BTreeSet::new(), vec![start.to_owned()]);
    while let Some(from) = next.pop() {
        for to in edges.get(&from).into_iter().flatten() {
            if reached.insert(to.clone()) {
                next.push(to.clone());
            }
        }
    }
    reached
}

fn is_test(name: &str) -> bool {
    name.split('/').any(|part| part == "tests" || part == "tests.rs" || part == "test_keys.rs")
}

/// Without comments, and without what follows a module of tests, which stands last in its file.
fn without_tests(text: &str) -> String {
    let lines = text.lines().map(|line| if line.trim_start().starts_with("//") { "" } else { line });
    let text: String = lines.collect::<Vec<_>>().join("\n");
    let is_module = |rest: &str| {
        let rest = rest.trim_start();
        rest.starts_with("mod ") || rest.starts_with("pub")
    };
    let mut from = 0;
    while let Some(at) = text[from..].find("#[cfg(test)]") {
        let end = from + at + "#[cfg(test)]".len();
        let is_inline =
            text[end..].split(['{', ';']).next().is_some_and(|head| text[end + head.len()..].starts_with('{'));
        if is_module(&text[end..]) && is_inline {
            return text[..from + at].to_owned();
        }
        from = end;
    }
    text
}

/// Every path of the text that begins in this crate, in its parts.
fn paths(text: &str) -> Vec<Vec<String>> {
    let mut all = Vec::new();
    let is_part = |c: char| c.is_alphanumeric() || c == '_';
    for beginning in ["crate::", "super::", "self::"] {
        for (at, _) in text.match_indices(beginning) {
            // A part of a longer path, or the end of another word.
            if text[..at].ends_with(|c: char| is_part(c) || c == ':' || c == '$') {
                continue;
            }
            expand(&text[at..], &mut Vec::new(), &mut all);
        }
    }
    all
}

/// Follows one path, with each branch of its braces. Returns how much of the text it was.
fn expand(text: &str, so_far: &mut Vec<String>, all: &mut Vec<Vec<String>>) -> usize {
    let depth = so_far.len();
    let mut at = 0;
    loop {
        at += text[at..].len() - text[at..].trim_start().len();
        if text[at..].starts_with('{') {
            at += 1;
            loop {
                at += expand(&text[at..], so_far, all);
                at += text[at..].len() - text[at..].trim_start().len();
                match text[at..].chars().next() {
                    Some(',') => at += 1,
                    Some('}') => {
                        at += 1;
                        break;
                    }
                    // "as", or what is no import at all.
                    Some(c) if c.is_alphanumeric() || c == '_' || c == '*' => at += c.len_utf8(),
                    _ => break,
                }
            }
            break;
        }
        let part: String = text[at..].chars().take_while(|c| c.is_alphanumeric() || *c == '_').collect();
        at += part.len();
        if !part.is_empty() {
            so_far.push(part);
        }
        if !text[at..].starts_with("::") {
            if so_far.len() > depth {
                all.push(so_far.clone());
            }
            break;
        }
        at += 2;
    }
    so_far.truncate(depth);
    at
}

/// The path from the crate's root.
fn absolute(from: &Module, path: &[String]) -> Module {
    let mut base = match path.first().map(String::as_str) {
        Some("crate") => Vec::new(),
        _ => from.clone(),
    };
    for part in path {
        match part.as_str() {
            "crate" | "self" => {}
            "super" => drop(base.pop()),
            other => base.push(other.to_owned()),
        }
    }
    base
}
