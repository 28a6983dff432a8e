//! Whether what a token's provider needs is on this host, and open to the supervisor, which is nobody in particular once it
//! has started. Keys are read rather than looked at: see `token::Keys`.

use std::{
    fs::{self, Metadata},
    io,
    os::unix::fs::{MetadataExt as _, PermissionsExt as _},
    path::Path,
};

use super::{
    problem::Problem,
    types::{Token, TokenProvider},
};
use crate::trust::Trusted;

const EXECUTE: u32 = 0o1;
const OTHERS_WRITE: u32 = 0o2;

/// What keeps a function of this prefix from its tokens, when the supervisor has this uid and gid.
pub fn check(prefix: &str, token: &Token, supervisor: u32) -> Option<Problem> {
    let refuse = |key: &str, path: &Path, what: String, remedy: String| {
        let (setting, value) = (format!("{prefix}.token.{key}"), format!("{:?}", path.display().to_string()));
        Some(Problem::new(setting, Some(value), what, remedy))
    };
    let (key, path, is_dir) = match &token.provider {
        TokenProvider::Static { dir, .. } => ("dir", dir.as_path(), true),
        TokenProvider::Command { command, .. } => ("command", Path::new(command.first()?), false),
        TokenProvider::Jwt { .. } => return None,
    };
    let kind = if is_dir { "directory" } else { "program" };
    // A program may be a link: nobody but the host's root decides where it leads.
    let metadata = match if is_dir { fs::symlink_metadata(path) } else { fs::metadata(path) } {
        Ok(metadata) => metadata,
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            return refuse(key, path, "it does not exist".into(), format!("make the {kind}, or correct the path"));
        }
        Err(error) => return refuse(key, path, format!("cannot look at it: {error}"), "correct the path".into()),
    };
    if metadata.is_dir() != is_dir || !(is_dir || metadata.is_file()) {
        return refuse(key, path, format!("it is not a {kind}"), format!("write the path of a {kind}"));
    }
    let us = [nix::unistd::geteuid().as_raw()];
    let trusted = Trusted::root_and(&us);
    // A program is run as the supervisor, and whoever writes it or puts another in its place is the supervisor. A directory
    // of tokens is written by whoever the operator gave it to; nobody else may put another in its place.
    let way = match path.parent() {
        Some(parent) if is_dir => trusted.parent(parent),
        _ => trusted.file(path),
    };
    if let Err(error) = way {
        return refuse(key, path, format!("others decide what is there: {error}"), "then try again".into());
    }
    if is_dir && metadata.permissions().mode() & OTHERS_WRITE != 0 {
        let remedy = format!("run: chmod o-w {}", path.display());
        return refuse(key, path, "everybody on this host may write to it".into(), remedy);
    }
    if !may_execute(&metadata, supervisor) {
        let what = format!("closed to uid {supervisor}, which the supervisor is once it has started");
        let mode = if is_dir { "0750" } else { "0755" };
        let remedy = match is_dir {
            true => {
                format!("run: chgrp {supervisor} {0} && chmod {mode} {0}; and its files: mode 0640", path.display())
            }
            false => format!("run: chmod {mode} {}", path.display()),
        };
        return refuse(key, path, what, remedy);
    }
    None
}

fn may_execute(metadata: &Metadata, id: u32) -> bool {
    let shift = match () {
        () if metadata.uid() == id => 6,
        () if metadata.gid() == id => 3,
        () => 0,
    };
    metadata.permissions().mode() >> shift & EXECUTE != 0
}
