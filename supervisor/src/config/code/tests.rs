use std::{
    collections::BTreeSet,
    fs::{self, File, FileTimes, Permissions},
    os::unix::fs::{PermissionsExt as _, symlink},
    path::{Path, PathBuf},
};

use super::*;
use crate::config::check_host;

/// A directory of this test, open to workers, removed with it.
struct Place(PathBuf);

impl Place {
    fn new(name: &str) -> Self {
        let dir = std::env::temp_dir().join(format!("sublet-code-{name}-{}", std::process::id()));
        fs::create_dir(&dir).unwrap();
        mode(&dir, 0o755);
        // Links on the way to the temporary directory are none of the tests' own.
        Self(dir.canonicalize().unwrap())
    }

    /// A directory with a file in it.
    fn dir(&self, name: &str) -> PathBuf {
        let dir = self.0.join(name);
        fs::create_dir_all(&dir).unwrap();
        mode(&dir, 0o755);
        fs::write(dir.join("main.sh"), "echo 1").unwrap();
        dir
    }

    fn path(&self, name: &str) -> HostPath {
        host_path(&self.0.join(name))
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        fs::remove_dir_all(&self.0).ok();
    }
}

fn host_path(path: &Path) -> HostPath {
    HostPath::resolve(path.to_str().unwrap(), Path::new("/")).unwrap()
}

fn mode(path: &Path, mode: u32) {
    fs::set_permissions(path, Permissions::from_mode(mode)).unwrap();
}

fn most() -> Most {
    Most { entries: ENTRIES_MAX, depth: DEPTH_MAX, end: Instant::now() + LOOK_MAX }
}

fn code(dir: &Path) -> Code {
    manifest::of(dir, &most()).unwrap()
}

fn refused(dir: &Path, most: &Most) -> String {
    let error = manifest::of(dir, most).unwrap_err();
    format!("{error}; {}", error.remedy())
}

#[test]
fn every_change_of_code_changes_the_manifest_and_a_look_does_not() {
    let place = Place::new("changes");
    let dir = place.dir("f");
    fs::create_dir(dir.join("lib")).unwrap();
    fs::write(dir.join("lib/a"), "a").unwrap();
    let mut seen = vec![code(&dir)];
    assert_eq!((seen[0].files, seen[0].bytes), (2, 7));
    let mut changed = |what: &str, change: &dyn Fn()| {
        let before = *seen.last().unwrap();
        fs::read(dir.join("main.sh")).unwrap();
        assert_eq!(code(&dir), before, "{what}: it changes by itself");
        change();
        let after = code(&dir);
        assert!(seen.iter().all(|other| other.manifest != after.manifest), "{what} is not seen");
        assert_eq!(after.identity, before.identity);
        seen.push(after);
    };
    let main = dir.join("main.sh");
    changed("another text", &|| fs::write(&main, "echo 22").unwrap());
    // The kernel's clock of files may stand still for some milliseconds.
    let tick = || std::thread::sleep(Duration::from_millis(20));
    changed("the same size and the old time", &|| {
        let old = fs::metadata(&main).unwrap().modified().unwrap();
        tick();
        fs::write(&main, "echo 33").unwrap();
        File::options().write(true).open(&main).unwrap().set_times(FileTimes::new().set_modified(old)).unwrap();
    });
    changed("a file in the place of another", &|| {
        fs::write(dir.join("new"), "echo 44").unwrap();
        fs::rename(dir.join("new"), &main).unwrap();
    });
    changed("a file more, below", &|| fs::write(dir.join("lib/b"), "").unwrap());
    changed("a file that is open to others", &|| mode(&dir.join("lib/b"), 0o600));
    changed("a link more", &|| symlink("lib/a", dir.join("link")).unwrap());
    changed("another name", &|| fs::rename(dir.join("lib/b"), dir.join("lib/c")).unwrap());
}

#[test]
fn directory_with_the_name_of_another_is_another() {
    let place = Place::new("renamed");
    let dir = place.dir("f");
    let before = code(&dir);
    let new = place.dir("new");
    fs::rename(&dir, place.0.join("old")).unwrap();
    fs::rename(&new, &dir).unwrap();
    let after = code(&dir);
    assert_ne!(before.identity, after.identity);
    assert_ne!(before.manifest, after.manifest);
    assert_eq!(code(&place.0.join("old")).identity, before.identity);
}

#[test]
fn one_file_too_many_or_one_directory_too_deep_is_told_and_nothing_is_left_out() {
    let place = Place::new("bounds");
    let dir = place.dir("f");
    fs::create_dir(dir.join("lib")).unwrap();
    // The directory itself, its file, lib.
    let three = Most { entries: 3, depth: 2, ..most() };
    manifest::of(&dir, &three).unwrap();
    fs::write(dir.join("more"), "").unwrap();
    assert!(refused(&dir, &three).starts_with("it has more than 3 files and directories; "));
    fs::remove_file(dir.join("more")).unwrap();
    fs::create_dir(dir.join("lib/deep")).unwrap();
    let four = Most { entries: 4, ..three };
    let told = refused(&dir, &four);
    assert!(told.contains("lib/deep is more than 2 directories deep; make it flatter"), "{told}");
    let late = Most { end: Instant::now().checked_sub(Duration::from_secs(1)).unwrap(), ..most() };
    assert!(refused(&dir, &late).contains("the disk is too slow"));
}

#[test]
fn what_workers_can_enter_must_be_listed_and_what_is_closed_to_them_does_not_count() {
    let place = Place::new("closed");
    let dir = place.dir("f");
    let inner = dir.join("inner");
    fs::create_dir(&inner).unwrap();
    fs::write(inner.join("a"), "").unwrap();
    for open in [0o711, 0o751] {
        mode(&inner, open);
        let told = refused(&dir, &most());
        assert!(told.contains(&format!("(mode 0{open:o})")) && told.contains("chmod o+r"), "{told}");
    }
    // The same for root, who could list it, as for the supervisor.
    mode(&inner, 0o750);
    let closed = code(&dir);
    fs::write(inner.join("a"), "more").unwrap();
    assert_eq!(code(&dir), closed);
    mode(&inner, 0o755);
    assert_ne!(code(&dir).manifest, closed.manifest);
}

#[test]
fn links_in_a_tree_are_followed_and_none_leads_out_of_it() {
    let place = Place::new("links");
    let trees = BTreeSet::from([place.path("srv"), place.path("opt")]);
    for dir in ["srv/f/v1", "srv/f/v2", "opt/f", "etc"] {
        place.dir(dir);
    }
    let link = |target: &str, name: &str| symlink(target, place.0.join(name)).unwrap();
    let absolute = place.0.join("srv/f/v2").display().to_string();
    link("v1", "srv/f/current");
    link(&absolute, "srv/f/absolute");
    link("../opt/f", "srv/other");
    link("f/current", "srv/twice");
    link("f", "srv/way");
    let follow = |name: &str| way::follow(&place.path(name), &trees);
    for (name, leads_to) in [
        ("srv/f/v1", "srv/f/v1"),
        ("srv/f/current", "srv/f/v1"),
        ("srv/f/absolute", "srv/f/v2"),
        ("srv/other", "opt/f"),
        ("srv/twice", "srv/f/v1"),
        ("srv/way/current", "srv/f/v1"),
    ] {
        assert_eq!(follow(name), Ok(Led::To(place.path(leads_to))), "{name}");
    }
    link("../etc", "srv/out");
    link("/etc", "srv/far");
    // Out and in again: whoever owns what is out there would decide.
    link("../../way", "srv/f/round");
    link("srv/f/v1", "way");
    for name in ["srv/out", "srv/far", "srv/f/round"] {
        let (what, remedy) = follow(name).unwrap_err();
        assert!(what.contains(&format!("{name} leads to ")) && what.contains("out of host.function_dirs"), "{what}");
        assert!(remedy.contains("let it lead to a directory in there"), "{remedy}");
    }
    link("circle", "srv/circle");
    assert!(follow("srv/circle").unwrap_err().0.contains("more than 40 symbolic links"));
    link("f/../f/v1", "srv/odd");
    assert!(follow("srv/odd").unwrap_err().0.contains("\"..\""));
    // Outside of all trees none is followed, nor the tree itself when it is one.
    assert_eq!(follow("way"), Ok(Led::Nowhere));
    assert_eq!(follow("srv/none"), Ok(Led::Nowhere));
    assert_eq!(way::follow(&place.path("srv/f/current"), &BTreeSet::new()), Ok(Led::Nowhere));
    assert_eq!(way::follow(&place.path("way"), &BTreeSet::from([place.path("way")])), Ok(Led::Nowhere));
}

fn config(place: &Place, dir: &str) -> Config {
    let text = format!(
        "[host]\nstate_dir = \"/run/sublet\"\nfunction_dirs = [{:?}]\n[tenant.acme.sub_tenant]\n[tenant.acme.function.f]\n\
         runtime = \"exec\"\nlayout = \"host\"\ndir = {:?}\ncommand = [\"/bin/sh\", \"/function/main.sh\"]\n",
        place.0.display().to_string(),
        place.0.join(dir).display().to_string()
    );
    Config::parse(&text, Path::new("/")).unwrap()
}

#[test]
fn revision_is_the_settings_and_the_code_and_what_is_known_is_not_looked_at_again() {
    let place = Place::new("revision");
    for version in ["v1", "v2"] {
        place.dir(version);
    }
    symlink("v1", place.0.join("current")).unwrap();
    let written = config(&place, "current");
    let (looked, wrong) = look(&written);
    assert!(wrong.ways.is_empty() && wrong.code.is_empty(), "{wrong:?}");
    assert_eq!(looked.files(), 1);
    let of = |looked: &Looked| {
        let mut config = written.clone();
        looked.put_into(&mut config);
        config.function("acme", "f").unwrap().clone()
    };
    let first = of(&looked);
    assert_eq!(first.dir, place.path("v1"));
    assert_eq!(first.code, Some(code(&place.0.join("v1"))));
    assert_ne!(first.revision, written.function("acme", "f").unwrap().revision);
    assert_eq!(of(&look(&written).0), first, "nothing has changed");
    fs::remove_file(place.0.join("current")).unwrap();
    symlink("v2", place.0.join("current")).unwrap();
    assert_eq!(of(&looked), first, "it is looked at again");
    let second = of(&look(&written).0);
    assert_eq!(second.dir, place.path("v2"));
    assert_ne!(second.revision, first.revision);
    fs::write(place.0.join("v2/main.sh"), "echo another").unwrap();
    assert_ne!(of(&look(&written).0).revision, second.revision, "changed in place");
    let shown = serde_json::to_value(second.code).unwrap().as_str().unwrap().to_owned();
    assert!(shown.starts_with("1 file, 6B, manifest "), "{shown}");
}

#[test]
fn what_is_wrong_with_a_directory_is_told_for_each_function_that_has_it() {
    let place = Place::new("told");
    let dir = place.dir("f");
    fs::create_dir(dir.join("lib")).unwrap();
    let (_, wrong) = look_within(&config(&place, "f"), &Most { entries: 2, ..most() });
    let [problem] = &wrong.code[..] else { panic!("{wrong:?}") };
    let line = problem.to_string();
    assert!(line.starts_with("tenant.acme.function.f.dir = ") && line.contains("more than 2 files"), "{line}");
    symlink("/etc", place.0.join("out")).unwrap();
    let told = check_host(&mut config(&place, "out"), None).1;
    let [problem] = &told[..] else { panic!("{told:?}") };
    assert!(problem.to_string().contains("out of host.function_dirs"), "{problem}");
    // Whoever checks the disk tells what is not there.
    let (_, wrong) = look(&config(&place, "none"));
    assert!(wrong.ways.is_empty() && wrong.code.is_empty(), "{wrong:?}");
    let told = check_host(&mut config(&place, "none"), None).1;
    let [problem] = &told[..] else { panic!("{told:?}") };
    assert!(problem.to_string().contains("none does not exist"), "{problem}");
}
