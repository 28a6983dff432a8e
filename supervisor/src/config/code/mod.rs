//! The code that workers run: where a function's directories are now, links followed, and what is in them.
//!
//! Looked at once at the start and once in each reload, and by `sublet diff`, which changes nothing: `sublet set` deploys
//! nothing. What was found goes into the configuration. A directory is its real path from then on, and a revision counts what is in it:
//!
//! ```text
//!  dir = ".../current"  --way-->  ".../v3"  --manifest-->  Code { identity, files, manifest }  -->  revision
//! ```
//! A reload is looked at by the supervisor, with no right but those of everybody: a worker can see no more than it does. The
//! start is looked at as root, which leaves out what others may not enter, and so comes to the same. The nursery mounts by
//! the real path, and only the very directory that was looked at.

mod manifest;
mod way;

#[cfg(test)]
mod tests;

use std::{
    collections::BTreeMap,
    time::{Duration, Instant},
};

use self::{
    manifest::Most,
    way::{Led, Told},
};
use super::{
    path::HostPath,
    problem::Problem,
    revision,
    types::{Code, Config, Function, Layout},
};

/// Files and directories below one directory.
const ENTRIES_MAX: u64 = 250_000;
/// Directories in each other.
const DEPTH_MAX: u32 = 64;
/// What one look at all of them may take, on however slow a disk.
const LOOK_MAX: Duration = Duration::from_secs(30);

/// What was found, by the directories that a configuration names.
#[derive(Clone, Debug, Default)]
pub struct Looked(BTreeMap<HostPath, Found>);

#[derive(Clone, Debug)]
struct Found {
    /// Where it is, without a link on the way.
    place: HostPath,
    /// What is there; none when nobody could look.
    code: Option<Code>,
}

impl Looked {
    /// Files in all directories together.
    pub fn files(&self) -> u64 {
        self.0.values().filter_map(|found| found.code).map(|code| code.files).sum()
    }

    /// Puts what was found into a configuration that names the same directories.
    pub(super) fn put_into(&self, config: &mut Config) {
        for tenant in config.tenants.values_mut() {
            for function in tenant.functions.values_mut() {
                self.put_into_function(function);
            }
        }
    }

    fn put_into_function(&self, function: &mut Function) {
        let mut parts = Vec::new();
        if let Some(found) = self.0.get(&function.dir) {
            function.dir = found.place.clone();
            function.code = found.code;
            parts.extend(found.code.map(|code| (found.place.clone(), code.manifest)));
        }
        if let Layout::Dir(root) = &mut function.layout
            && let Some(found) = self.0.get(root)
        {
            *root = found.place.clone();
            function.root_code = found.code;
            parts.extend(found.code.map(|code| (found.place.clone(), code.manifest)));
        }
        function.revision = revision::with_code(function.revision, &parts);
    }
}

/// What is wrong with directories, for each function that has one.
#[derive(Debug, Default)]
pub(super) struct Wrong {
    /// Links that lead nowhere they may.
    pub(super) ways: Vec<Problem>,
    /// Directories of which nobody can say what is in them; and those that are not there, which others tell as well.
    pub(super) code: Vec<Problem>,
}

/// Looks at every directory that the configuration names.
pub(super) fn look(config: &Config) -> (Looked, Wrong) {
    let most = Most { entries: ENTRIES_MAX, depth: DEPTH_MAX, end: Instant::now() + LOOK_MAX };
    look_within(config, &most)
}

fn look_within(config: &Config, most: &Most) -> (Looked, Wrong) {
    let (mut looked, mut ways, mut unseen) = (Looked::default(), BTreeMap::new(), BTreeMap::new());
    let mut wrong = Wrong::default();
    for (tenant, name, function) in config.functions() {
        for (key, dir) in [("dir", Some(&function.dir)), ("root", function.layout.root())] {
            let Some(dir) = dir else { continue };
            if !looked.0.contains_key(dir) {
                let place = match way::follow(dir, &config.host.function_dirs) {
                    Ok(Led::To(place)) => Some(place),
                    Ok(Led::Nowhere) => None,
                    Err(told) => {
                        ways.insert(dir.clone(), told);
                        None
                    }
                };
                let code = place.as_ref().and_then(|place| match manifest::of(place.as_path(), most) {
                    Ok(code) => Some(code),
                    Err(error) => {
                        unseen.insert(dir.clone(), (error.to_string(), error.remedy()));
                        None
                    }
                });
                looked.0.insert(dir.clone(), Found { place: place.unwrap_or_else(|| dir.clone()), code });
            }
            let problem = |(what, remedy): &Told| {
                let setting = format!("tenant.{tenant}.function.{name}.{key}");
                Problem::new(setting, Some(format!("{:?}", dir.as_str())), what, remedy)
            };
            wrong.ways.extend(ways.get(dir).map(problem));
            wrong.code.extend(unseen.get(dir).map(problem));
        }
    }
    (looked, wrong)
}
