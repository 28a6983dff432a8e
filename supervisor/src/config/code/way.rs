//! Where a directory of a function is, when links lead to it. They are followed in the trees of `host.function_dirs` alone,
//! and none may lead out of them, not even on the way to a place inside.

use std::{
    collections::{BTreeSet, VecDeque},
    fs,
    path::Path,
};

use crate::config::path::HostPath;

/// As many links as the kernel follows.
const LINKS_MAX: u32 = 40;

/// What is wrong, and the remedy.
pub(super) type Told = (String, String);

/// Where a way leads.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Led {
    /// To this place, without a link on the way to it.
    To(HostPath),
    /// To something that is not there, or through a link that is not followed; whoever checks the disk says which.
    Nowhere,
}

/// Follows the links on the way to `dir` that are in one of `trees`.
///
/// # Errors
/// One leads out of them, or in a circle, or cannot be read: what is wrong, and the remedy.
pub(super) fn follow(dir: &HostPath, trees: &BTreeSet<HostPath>) -> Result<Led, Told> {
    let parts = |path: &HostPath| path.as_str().split('/').skip(1).map(str::to_owned).collect::<VecDeque<_>>();
    let (mut to_go, mut at, mut links) = (parts(dir), String::new(), 0);
    while let Some(part) = to_go.pop_front() {
        let above = if at.is_empty() { "/".to_owned() } else { at.clone() };
        at = format!("{at}/{part}");
        let Ok(found) = fs::symlink_metadata(&at) else { return Ok(Led::Nowhere) };
        if !found.is_symlink() {
            continue;
        }
        let is_in_a_tree = trees.iter().any(|tree| tree.as_str() != at && Path::new(&at).starts_with(tree));
        if !is_in_a_tree {
            return Ok(Led::Nowhere);
        }
        links += 1;
        if links > LINKS_MAX {
            let what = format!("it leads through more than {LINKS_MAX} symbolic links");
            return Err((what, format!("write where {at} is to lead")));
        }
        let target = fs::read_link(&at).map_err(|error| {
            (format!("the link {at} cannot be read: {error}"), "make it anew, or write the path it leads to".to_owned())
        })?;
        let target = target.to_str().ok_or_else(|| {
            (format!("the link {at} leads to a path that is not UTF-8"), "rename what it leads to".to_owned())
        })?;
        // A plain path below the directory that the link is in, which has no link on its way: what the text says is so.
        let target = HostPath::resolve(target, Path::new(&above)).map_err(|error| {
            let remedy = format!("make it anew, as in: ln -sfn v2 {at}");
            (format!("the link {at} leads to {target:?}: {error}"), remedy)
        })?;
        if !trees.iter().any(|tree| tree.contains(&target)) {
            let what = format!("the link {at} leads to {:?}, out of host.function_dirs", target.as_str());
            return Err((what, "let it lead to a directory in there, or write another path".to_owned()));
        }
        let mut all = parts(&target);
        all.append(&mut to_go);
        (to_go, at) = (all, String::new());
    }
    HostPath::resolve(&at, Path::new("/"))
        .map(Led::To)
        .map_err(|error| (error.to_string(), "use a shorter path".into()))
}
