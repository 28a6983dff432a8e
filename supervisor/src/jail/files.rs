//! Which files the supervisor may still reach, as data, and landlock that says so to the kernel.

use std::{
    collections::BTreeSet,
    io,
    path::{Path, PathBuf},
};

use landlock::{
    ABI, Access, AccessFs, AccessNet, BitFlags, CompatLevel, Compatible, PathBeneath, PathFd, Ruleset, RulesetAttr,
    RulesetCreated, RulesetCreatedAttr, RulesetStatus, Scope,
};
use sublet_proto::link::sandbox::{CGROUP_POOL, CgroupDirs};

use crate::config::{Config, HostPath, LogTo, Problem, TokenProvider};

/// Demanded where landlock is used at all: the first in which truncating a file is a right of its own.
const FLOOR: ABI = ABI::V3;
/// Used where the kernel has it: TCP from 4, device ioctls from 5, signals and abstract sockets from 6.
const BEST: ABI = ABI::V7;

/// What may be done with a place.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum May {
    /// Read files below it.
    ReadFiles,
    /// Read files below it and list directories.
    Read,
    /// List directories below it.
    List,
    /// Make and remove groups below it, read and write their files.
    ChangeGroups,
    /// Write this one file.
    WriteFile,
    /// Write, make, move and remove files below it.
    KeepLogs,
}

impl May {
    fn rights(self) -> BitFlags<AccessFs> {
        match self {
            Self::ReadFiles => AccessFs::ReadFile.into(),
            Self::Read => AccessFs::ReadFile | AccessFs::ReadDir,
            Self::List => AccessFs::ReadDir.into(),
            Self::ChangeGroups => {
                AccessFs::ReadFile
                    | AccessFs::ReadDir
                    | AccessFs::WriteFile
                    | AccessFs::Truncate
                    | AccessFs::MakeDir
                    | AccessFs::RemoveDir
            }
            Self::WriteFile => AccessFs::WriteFile | AccessFs::Truncate,
            Self::KeepLogs => AccessFs::WriteFile | AccessFs::Truncate | AccessFs::MakeReg | AccessFs::RemoveFile,
        }
    }
}

/// A place that the supervisor may reach.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Place {
    /// A directory, or one file for [`May::WriteFile`].
    pub path: PathBuf,
    /// What for.
    pub may: May,
}

/// Everything that a supervisor with this configuration has to reach once it serves, a reload included. What it holds open
/// already (sockets, the lock, a trace) is not restricted and not among them.
pub fn places(config: &Config, config_dir: &Path, cgroups: &CgroupDirs) -> Vec<Place> {
    let place = |path: &Path, may| Place { path: path.to_owned(), may };
    // The posture of launchers, its own time on the processor, the host's memory. No list of processes.
    let mut places = vec![place(Path::new("/proc"), May::ReadFiles), place(config_dir, May::ReadFiles)];
    for secret in secrets(config) {
        places.push(place(secret.dir, May::ReadFiles));
    }
    for dir in config.bounds() {
        places.push(place(dir.as_path(), May::Read));
    }
    // A directory that is put in the place of another is a new one to landlock, and a reload has to look at it.
    if config.host.function_dirs.is_empty() {
        let parents: BTreeSet<&Path> = config.dirs().into_iter().filter_map(|dir| dir.as_path().parent()).collect();
        places.extend(parents.into_iter().filter(|dir| *dir != Path::new("/")).map(|dir| place(dir, May::List)));
    }
    for root in cgroups.v1.iter().map(Path::new).chain([Path::new(&cgroups.unified)]) {
        places.push(place(root, May::Read));
        places.push(place(&root.join(CGROUP_POOL), May::ChangeGroups));
    }
    let guarantee = Path::new(&cgroups.unified).join("memory.min");
    if guarantee.exists() {
        places.push(place(&guarantee, May::WriteFile));
    }
    if let LogTo::Files { dir, .. } = &config.host.log {
        places.push(place(dir.as_path(), May::KeepLogs));
    }
    places
}

/// A file or directory that tokens come from.
struct Secret<'a> {
    setting: String,
    path: &'a HostPath,
    /// What is read below. Of a key the directory it is in: keys are replaced by renaming.
    dir: &'a Path,
}

fn secrets(config: &Config) -> Vec<Secret<'_>> {
    let mut all = Vec::new();
    for (tenant, name, function) in config.functions() {
        let of = |key: &str| format!("tenant.{tenant}.function.{name}.token.{key}");
        match function.token.as_ref().map(|token| &token.provider) {
            Some(TokenProvider::Static { dir, .. }) => {
                all.push(Secret { setting: of("dir"), path: dir, dir: dir.as_path() });
            }
            Some(TokenProvider::Jwt { key, .. }) => {
                let dir = key.as_path().parent().unwrap_or(key.as_path());
                all.push(Secret { setting: of("key"), path: key, dir });
            }
            Some(TokenProvider::Command { .. }) | None => {}
        }
    }
    all
}

/// What of a changed configuration would have to be read where landlock, told `declared` at the start, lets nobody read.
pub fn undeclared(declared: &[Place], new: &Config) -> Vec<Problem> {
    let is_read = |place: &Place| matches!(place.may, May::ReadFiles | May::Read);
    let is_declared = |dir: &Path| declared.iter().any(|place| is_read(place) && dir.starts_with(&place.path));
    let foreign = secrets(new).into_iter().filter(|secret| !is_declared(secret.dir));
    let problem = |secret: Secret<'_>| {
        let what = format!(
            "landlock was told at the start what the supervisor may read, and {} is not below any of it",
            secret.dir.display()
        );
        let value = Some(format!("{:?}", secret.path.as_str()));
        Problem::new(
            secret.setting,
            value,
            what,
            "put it into a directory that another token comes from already, or restart",
        )
    };
    foreign.map(problem).collect()
}

/// Whether this kernel's landlock, by its version, is one to use.
pub fn is_usable(version: i64) -> bool {
    version >= FLOOR as i64
}

/// What takes every other file, TCP sockets, signals to others and abstract UNIX sockets, as far as the kernel's landlock knows
/// of them. Made by whoever can reach all of the places; what the supervisor may do there is up to their modes as well.
///
/// # Errors
/// A place that is not there, or what landlock says.
pub fn ruleset(places: &[Place]) -> io::Result<RulesetCreated> {
    let mut ruleset = Ruleset::default()
        .set_compatibility(CompatLevel::HardRequirement)
        .handle_access(AccessFs::from_all(FLOOR))
        .map_err(failed)?
        .set_compatibility(CompatLevel::BestEffort)
        .handle_access(AccessFs::from_all(BEST))
        .map_err(failed)?
        // No rule allows a port: listening sockets are bound, and it connects to nobody.
        .handle_access(AccessNet::from_all(BEST))
        .map_err(failed)?
        .scope(Scope::from_all(BEST))
        .map_err(failed)?
        .create()
        .map_err(failed)?;
    for Place { path, may } in places {
        let dir = PathFd::new(path).map_err(|error| io::Error::other(format!("{}: {error}", path.display())))?;
        let named = |error: landlock::RulesetError| io::Error::other(format!("{}: {error}", path.display()));
        ruleset = ruleset.add_rule(PathBeneath::new(dir, may.rights())).map_err(named)?;
    }
    Ok(ruleset)
}

/// Puts it on this thread, and on those that it will start, for good.
///
/// # Errors
/// What landlock says.
pub fn restrict(ruleset: RulesetCreated) -> io::Result<()> {
    let status = ruleset.restrict_self().map_err(failed)?;
    if status.ruleset == RulesetStatus::NotEnforced {
        return Err(io::Error::other("the kernel has not enforced it"));
    }
    Ok(())
}

fn failed(error: landlock::RulesetError) -> io::Error {
    io::Error::other(error.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config(host: &str, token: &str) -> Config {
        let text = format!(
            "[host]\nstate_dir = \"/run/sublet\"\n{host}\n[tenant.acme.sub_tenant]\n[tenant.acme.function.f]\n\
             runtime = \"exec\"\nlayout = \"static\"\ndir = \"/srv/f\"\ncommand = [\"/function/f\"]\n{token}"
        );
        Config::parse(&text, Path::new("/etc/sublet")).unwrap()
    }

    fn jwt(key: &str) -> String {
        format!("token.provider = \"jwt\"\ntoken.key = {key:?}\ntoken.issuer = \"i\"\ntoken.audience = \"a\"\n")
    }

    fn cgroups() -> CgroupDirs {
        CgroupDirs {
            unified: "/sys/fs/cgroup/s".into(),
            v1: vec!["/sys/fs/cgroup/pids/s".into()],
            ..CgroupDirs::default()
        }
    }

    #[test]
    fn places_are_those_of_the_configuration_and_no_more() {
        let host = "log = \"files\"\nlog_dir = \"/var/log/sublet\"";
        let places = places(&config(host, &jwt("/etc/keys/a.pem")), Path::new("/etc/sublet"), &cgroups());
        let found: Vec<(&str, May)> = places.iter().map(|place| (place.path.to_str().unwrap(), place.may)).collect();
        let expected = [
            ("/proc", May::ReadFiles),
            ("/etc/sublet", May::ReadFiles),
            ("/etc/keys", May::ReadFiles),
            ("/srv/f", May::Read),
            ("/srv", May::List),
            ("/sys/fs/cgroup/pids/s", May::Read),
            ("/sys/fs/cgroup/pids/s/pool", May::ChangeGroups),
            ("/sys/fs/cgroup/s", May::Read),
            ("/sys/fs/cgroup/s/pool", May::ChangeGroups),
            ("/var/log/sublet", May::KeepLogs),
        ];
        assert_eq!(found, expected);
    }

    #[test]
    fn trees_of_functions_are_read_as_a_whole_and_nothing_beside_them() {
        let config = config("function_dirs = [\"/srv\", \"/opt/roots\"]", "");
        let places = places(&config, Path::new("/etc/sublet"), &cgroups());
        let of = |may| places.iter().filter(move |place| place.may == may).map(|place| place.path.to_str().unwrap());
        let read: Vec<&str> = of(May::Read).filter(|path| !path.starts_with("/sys")).collect();
        assert_eq!(read, ["/opt/roots", "/srv"]);
        assert_eq!(of(May::List).count(), 0);
    }

    #[test]
    fn nothing_that_is_read_can_be_written_and_no_file_is_ever_executed() {
        for may in [May::ReadFiles, May::Read, May::List] {
            assert!((may.rights() & AccessFs::from_write(ABI::V7)).is_empty(), "{may:?}");
        }
        for may in [May::ReadFiles, May::Read, May::List, May::ChangeGroups, May::WriteFile, May::KeepLogs] {
            let never =
                AccessFs::Execute | AccessFs::MakeSym | AccessFs::MakeChar | AccessFs::MakeBlock | AccessFs::Refer;
            assert!((may.rights() & never).is_empty(), "{may:?}");
        }
    }

    #[test]
    fn secret_below_a_declared_directory_is_taken_and_one_beside_it_is_refused_by_name() {
        let old = places(&config("", &jwt("/etc/keys/a.pem")), Path::new("/etc/sublet"), &cgroups());
        for key in ["/etc/keys/a.pem", "/etc/keys/b.pem", "/etc/keys/below/c.pem", "/etc/sublet/d.pem"] {
            assert_eq!(undeclared(&old, &config("", &jwt(key))), [], "{key}");
        }
        let told = undeclared(&old, &config("", &jwt("/etc/keys2/a.pem")));
        let [problem] = &told[..] else { panic!("{told:?}") };
        let text = problem.to_string();
        for words in ["tenant.acme.function.f.token.key", "/etc/keys2/a.pem", "landlock", "restart"] {
            assert!(text.contains(words), "{text}");
        }
        // Groups are not a place for secrets, whatever may be read there.
        let files = "token.provider = \"static\"\ntoken.dir = \"/etc/tokens\"\n";
        assert_eq!(undeclared(&old, &config("", files)).len(), 1);
    }
}
