//! Whether what the configuration names is on this host, in a form that workers can use.
//!
//! Apart from the other checks, because its answer changes without the configuration: `check-config` and `serve` ask it,
//! the parser does not. It reads metadata only, and what is true now is checked again by the nursery, by descriptor,
//! when a worker is made.

use std::{
    fs::{self, Metadata},
    io,
    os::unix::fs::PermissionsExt as _,
    path::{Path, PathBuf},
};

use sublet_shim::program::{self, Needs};

use super::{
    inside::{self, Found},
    path::HostPath,
    problem::Problem,
    program::HOST_LAYOUT_DIRS,
    token_disk,
    types::{Config, FUNCTION_MOUNT, Function, Layout},
};
use crate::trust::Trusted;

/// Directories over which every sandbox mounts something; a prepared root must have them.
const MOUNT_POINTS: [&str; 4] = ["proc", "dev", "tmp", "function"];
/// The one that a prepared root may lack.
const SYS_MOUNT_POINT: &str = "sys";
/// The one more of functions with a token.
const TOKEN_MOUNT_POINT: &str = "run/sublet";
/// A worker's ids own nothing on the host, so that what others may do is what it may do.
const OTHERS_READ: u32 = 0o004;
const OTHERS_EXECUTE: u32 = 0o001;

/// Everything that would keep a function of `config` from starting on this host. Empty means that none was found.
pub fn check_disk(config: &Config) -> Vec<Problem> {
    let mut problems = Vec::new();
    for tree in &config.host.function_dirs {
        Disk { prefix: "host".to_owned(), problems: &mut problems }.tree(tree);
    }
    for (tenant, name, function) in config.functions() {
        let mut disk = Disk { prefix: format!("tenant.{tenant}.function.{name}"), problems: &mut problems };
        let has_dir = disk.directory("dir", &function.dir);
        let has_root = match &function.layout {
            Layout::Host | Layout::Static => true,
            Layout::Dir(root) => disk.root(root, function.token.is_some()),
        };
        // A program below a directory that is missing would only say the same again.
        if has_dir && has_root {
            disk.program(function);
        }
        if let Some(token) = &function.token {
            let problem = token_disk::check(&disk.prefix, token, config.host.supervisor_uid);
            disk.problems.extend(problem);
        }
    }
    problems
}

struct Disk<'a> {
    prefix: String,
    problems: &'a mut Vec<Problem>,
}

impl Disk<'_> {
    fn refuse(&mut self, key: &str, path: &Path, what: impl Into<String>, remedy: impl Into<String>) {
        let (setting, value) = (format!("{}.{key}", self.prefix), format!("{:?}", path.display().to_string()));
        self.problems.push(Problem::new(setting, Some(value), what.into(), remedy.into()));
    }

    /// A tree that functions are in. Links in it are followed, so that nobody but root may put another in its place.
    fn tree(&mut self, tree: &HostPath) {
        const KEY: &str = "function_dirs";
        match Trusted::root_and(&[]).directory(tree.as_path()) {
            Ok(None) => {
                self.plain_way(KEY, tree.as_path());
            }
            Ok(Some(missing)) => {
                let what = format!("{} does not exist", missing.display());
                self.refuse(KEY, tree.as_path(), what, "create it, or correct the path");
            }
            Err(error) => {
                let remedy = "links in it are followed, and it must be trusted for that";
                self.refuse(KEY, tree.as_path(), format!("others decide what is there: {error}"), remedy);
            }
        }
    }

    /// A plain directory that workers may read and enter, with no link on the way to it.
    fn directory(&mut self, key: &str, dir: &HostPath) -> bool {
        let path = dir.as_path();
        if !self.plain_way(key, path) {
            return false;
        }
        match fs::symlink_metadata(path) {
            Ok(metadata) if !has(&metadata, OTHERS_READ | OTHERS_EXECUTE) => {
                self.closed(key, path, path, "o+rx");
                false
            }
            Ok(_) => true,
            Err(error) => {
                self.refuse(key, path, cannot_look_at(path, &error), "create it, or correct the path");
                false
            }
        }
    }

    /// A directory with no link on the way to it.
    fn plain_way(&mut self, key: &str, path: &Path) -> bool {
        let mut ancestors: Vec<&Path> = path.ancestors().collect();
        ancestors.reverse();
        for ancestor in ancestors {
            let metadata = match fs::symlink_metadata(ancestor) {
                Ok(metadata) => metadata,
                Err(error) => {
                    self.refuse(key, path, cannot_look_at(ancestor, &error), "create it, or correct the path");
                    return false;
                }
            };
            if metadata.is_symlink() {
                let remedy = match path.canonicalize() {
                    Ok(real) => format!("write the path it leads to, {:?}", real.display().to_string()),
                    Err(_) => "write the path it leads to".to_owned(),
                };
                // The trees themselves have none.
                let remedy = match key {
                    "function_dirs" => remedy,
                    _ => format!("{remedy}, or name a tree that both are in by host.function_dirs"),
                };
                let what = format!("{} is a symbolic link, and the nursery follows none", ancestor.display());
                self.refuse(key, path, what, remedy);
                return false;
            }
            if !metadata.is_dir() {
                self.refuse(
                    key,
                    path,
                    format!("{} is not a directory", ancestor.display()),
                    "write a directory's path",
                );
                return false;
            }
        }
        true
    }

    fn closed(&mut self, key: &str, path: &Path, closed: &Path, mode: &str) {
        self.refuse(
            key,
            path,
            format!("{} is closed to workers: their ids own nothing on the host", closed.display()),
            format!("run: chmod {mode} {}", closed.display()),
        );
    }

    /// A prepared tree: each mount point a directory of its own. One that is a link would be mounted over elsewhere.
    fn root(&mut self, root: &HostPath, token: bool) -> bool {
        if !self.directory("root", root) {
            return false;
        }
        let mut is_whole = true;
        for name in MOUNT_POINTS.into_iter().chain(token.then_some(TOKEN_MOUNT_POINT)) {
            let point = root.as_path().join(name);
            let mkdir = if name.contains('/') { "mkdir -p" } else { "mkdir" };
            let remedy = format!("make it an empty directory: {mkdir} {}", point.display());
            let what = match fs::symlink_metadata(&point) {
                Ok(metadata) if metadata.is_dir() => continue,
                Ok(metadata) if metadata.is_symlink() => format!("/{name} in it is a symbolic link"),
                Ok(_) => format!("/{name} in it is not a directory"),
                Err(error) if error.kind() == io::ErrorKind::NotFound => format!("/{name} in it is missing"),
                Err(error) => cannot_look_at(&point, &error),
            };
            self.refuse("root", root.as_path(), what, remedy);
            is_whole = false;
        }
        // Without one, workers do not see their own groups and processors.
        let sys = root.as_path().join(SYS_MOUNT_POINT);
        if fs::symlink_metadata(&sys).is_ok_and(|metadata| !metadata.is_dir()) {
            let remedy = format!("make it an empty directory, or remove it: {}", sys.display());
            self.refuse("root", root.as_path(), format!("/{SYS_MOUNT_POINT} in it is not a directory"), remedy);
            is_whole = false;
        }
        is_whole
    }

    fn program(&mut self, function: &Function) {
        let Some(program) = function.command.first() else { return };
        let below = |dir: &str| program.strip_prefix(dir)?.strip_prefix('/');
        let (base, rest) = if let Some(rest) = below(FUNCTION_MOUNT) {
            (function.dir.as_path(), rest)
        } else {
            match &function.layout {
                Layout::Static => return,
                Layout::Dir(root) => (root.as_path(), program.trim_start_matches('/')),
                Layout::Host if HOST_LAYOUT_DIRS.iter().any(|dir| below(dir).is_some()) => {
                    self.found_program(function, Path::new(program));
                    return;
                }
                Layout::Host => return,
            }
        };
        self.program_below(function, base, rest, program);
    }

    /// A program that links may lead to.
    fn found_program(&mut self, function: &Function, program: &Path) {
        match inside::find(function, program) {
            Found::File(host) => match fs::metadata(&host) {
                Ok(metadata) => self.judge_program(function, program, &host, &metadata),
                Err(error) => self.missing_program(program, &host, &error),
            },
            Found::Missing(at, true) => {
                let what = format!("a link leads to {}, which its workers do not see", at.display());
                self.refuse("command", program, what, "write the path of the program itself, or copy it to /function");
            }
            Found::Missing(at, false) => self.missing_program(program, &at, &io::ErrorKind::NotFound.into()),
            Found::Unknown => {}
        }
    }

    /// Walks to the program. From a link on it is found as a worker finds it.
    fn program_below(&mut self, function: &Function, base: &Path, rest: &str, program: &str) {
        let program = Path::new(program);
        let parts: Vec<&str> = rest.split('/').filter(|part| !part.is_empty() && *part != ".").collect();
        let mut at: PathBuf = base.to_owned();
        for (index, part) in parts.iter().enumerate() {
            at.push(part);
            let metadata = match fs::symlink_metadata(&at) {
                Ok(metadata) => metadata,
                Err(error) => return self.missing_program(program, &at, &error),
            };
            if metadata.is_symlink() {
                return self.found_program(function, program);
            }
            if index + 1 == parts.len() {
                return self.judge_program(function, program, &at, &metadata);
            }
            if metadata.is_dir() && !has(&metadata, OTHERS_EXECUTE) {
                return self.closed("command", program, &at, "o+x");
            }
        }
    }

    fn missing_program(&mut self, program: &Path, at: &Path, error: &io::Error) {
        let remedy = "put the program there, or correct the path; the function's directory is /function inside";
        self.refuse("command", program, cannot_look_at(at, error), remedy);
    }

    fn judge_program(&mut self, function: &Function, program: &Path, at: &Path, metadata: &Metadata) {
        if !metadata.is_file() {
            let what = format!("{} is not a file", at.display());
            self.refuse("command", program, what, "write the path of a program");
        } else if !has(metadata, OTHERS_READ | OTHERS_EXECUTE) {
            // Read as well: a script is read by its interpreter, which runs as the worker.
            self.closed("command", program, at, "o+rx");
        } else if let Ok(head) = program::head(at) {
            self.needs(function, program, &Needs::of(&head));
        }
    }

    /// What the kernel needs beside the program.
    fn needs(&mut self, function: &Function, program: &Path, needs: &Needs) {
        if let Needs::Interpreter { is_crlf: true, program: Some(asked), .. } = needs {
            let what = format!("its first line asks for {asked:?}: it ends with a carriage return");
            self.refuse("command", program, what, "save it with LF line ends instead of CR LF");
        }
        let Some(path) = needs.path() else { return };
        match inside::find(function, path) {
            Found::Missing(at, is_by_link) => {
                let mut what = needs.missing(program);
                if is_by_link {
                    what = format!("{what} (a link leads to {}, which its workers do not see)", at.display());
                }
                self.refuse("command", program, what, "see what its workers see: sublet plan FUNCTION");
            }
            Found::File(_) | Found::Unknown => {}
        }
    }
}

fn has(metadata: &Metadata, bits: u32) -> bool {
    metadata.permissions().mode() & bits == bits
}

fn cannot_look_at(path: &Path, error: &io::Error) -> String {
    match error.kind() {
        io::ErrorKind::NotFound => format!("{} does not exist", path.display()),
        _ => format!("cannot look at {}: {error}", path.display()),
    }
}
