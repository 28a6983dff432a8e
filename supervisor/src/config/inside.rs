//! Where a path of a worker is on the host: links are followed as the worker would follow them, so that one that leads into
//! the host's /etc leads nowhere.

use std::{
    collections::VecDeque,
    ffi::OsString,
    fs,
    path::{Component, Path, PathBuf},
};

use super::{
    program::HOST_LAYOUT_DIRS,
    types::{FUNCTION_MOUNT, Function, Layout},
};

/// Links that the kernel follows on the way to one file.
const LINKS_MAX: u32 = 40;
/// Directories of a sandbox that are its own, whatever its layout.
const OWN_DIRS: [&str; 4] = ["/proc", "/dev", "/tmp", "/run"];
/// Links here are copied into the sandbox of the host layout.
const ALTERNATIVES: &str = "/etc/alternatives";

/// What a path of a worker comes to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Found {
    /// This file of the host.
    File(PathBuf),
    /// Nothing: this path on the way, as the worker sees it, is not there. Whether a link has led to it.
    Missing(PathBuf, bool),
    /// It is in a directory that no configuration knows the content of.
    Unknown,
}

/// Finds a path of this function's workers.
pub fn find(function: &Function, path: &Path) -> Found {
    let parts =
        |path: &Path| -> VecDeque<OsString> { path.components().map(|part| part.as_os_str().to_owned()).collect() };
    let (mut rest, mut at, mut links) = (parts(path), PathBuf::from("/"), 0);
    while let Some(part) = rest.pop_front() {
        match Path::new(&part).components().next() {
            Some(Component::RootDir) => at = PathBuf::from("/"),
            Some(Component::ParentDir) => drop(at.pop()),
            Some(Component::CurDir | Component::Prefix(_)) | None => {}
            Some(Component::Normal(name)) => {
                let next = at.join(name);
                let host = match place(function, &next) {
                    Place::Host(host) => host,
                    Place::Own => return Found::Unknown,
                    Place::Nowhere => return Found::Missing(next, links > 0),
                };
                match fs::symlink_metadata(&host) {
                    Err(_) => return Found::Missing(next, links > 0),
                    Ok(metadata) if metadata.is_symlink() => {
                        links += 1;
                        let Some(target) = fs::read_link(&host).ok().filter(|_| links <= LINKS_MAX) else {
                            return Found::Missing(next, true);
                        };
                        let mut all = parts(&target);
                        all.append(&mut rest);
                        rest = all;
                    }
                    Ok(_) => at = next,
                }
            }
        }
    }
    match place(function, &at) {
        Place::Host(host) => Found::File(host),
        Place::Own | Place::Nowhere => Found::Unknown,
    }
}

/// Where a path without links is.
enum Place {
    Host(PathBuf),
    /// In a directory of the sandbox's own.
    Own,
    Nowhere,
}

fn place(function: &Function, path: &Path) -> Place {
    if let Ok(rest) = path.strip_prefix(FUNCTION_MOUNT) {
        return Place::Host(function.dir.as_path().join(rest));
    }
    if OWN_DIRS.iter().any(|own| path.starts_with(own)) {
        return Place::Own;
    }
    let is_below = |dirs: &[&str]| dirs.iter().any(|dir| path.starts_with(dir));
    match &function.layout {
        Layout::Dir(root) => Place::Host(root.as_path().join(path.strip_prefix("/").unwrap_or(path))),
        Layout::Host if is_below(&HOST_LAYOUT_DIRS) || is_below(&[ALTERNATIVES]) || path == Path::new("/etc") => {
            Place::Host(path.to_owned())
        }
        Layout::Host | Layout::Static => Place::Nowhere,
    }
}
