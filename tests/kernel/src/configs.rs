//! Configurations the cases run with: the probe in many settings, small limits, everything in a directory of its own.

use std::{
    fs::{self, Permissions},
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
    sync::atomic::{AtomicU32, Ordering},
};

use crate::{ground::Ground, supervisor};

/// A directory of this case, removed with it.
#[derive(Debug)]
pub struct Place {
    /// The directory.
    pub dir: PathBuf,
    /// Tells its supervisor's cgroups apart.
    pub instance: String,
}

static NEXT: AtomicU32 = AtomicU32::new(0);

impl Place {
    /// Makes the directory, with the probe in `fn/`.
    pub fn new() -> Result<Self, String> {
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let instance = format!("test-{}-{number}", std::process::id());
        let dir = PathBuf::from(format!("/tmp/sublet-{instance}"));
        let functions = dir.join("fn");
        let make = || -> std::io::Result<()> {
            fs::create_dir(&dir)?;
            fs::create_dir(&functions)?;
            fs::copy(supervisor::probe(), functions.join("probe"))?;
            fs::set_permissions(functions.join("probe"), Permissions::from_mode(0o755))
        };
        make().map_err(|error| format!("prepare {}: {error}", dir.display()))?;
        Ok(Self { dir, instance })
    }

    /// No place: what is left where one was taken from.
    pub fn nowhere() -> Self {
        Self { dir: PathBuf::new(), instance: String::new() }
    }

    /// Path of a file in it.
    pub fn path(&self, name: &str) -> PathBuf {
        self.dir.join(name)
    }

    /// The `[host]` section.
    pub fn host(&self, more: &str) -> String {
        let degraded: Vec<String> = Ground::find().degraded().iter().map(|name| format!("{name:?}")).collect();
        format!(
            "[host]\nstate_dir = {:?}\ninstance = {:?}\naccept_degraded = [{}]\n{more}\n",
            self.path("state").display().to_string(),
            self.instance,
            degraded.join(", ")
        )
    }

    /// One function of tenant acme that runs the probe; `settings` are added, or replace those of the same name.
    pub fn function(&self, name: &str, settings: &str) -> String {
        let dir = self.path("fn").display().to_string();
        let mut lines: Vec<(String, String)> = [
            ("runtime", "\"stream\"".to_owned()),
            ("layout", "\"host\"".to_owned()),
            ("dir", format!("{dir:?}")),
            ("command", "[\"/function/probe\"]".to_owned()),
            ("memory_max", "\"64MiB\"".to_owned()),
            ("pids_max", "16".to_owned()),
            ("tmp_size", "\"4MiB\"".to_owned()),
            ("tmp_inodes", "64".to_owned()),
            ("nofile", "64".to_owned()),
            ("timeout", "\"60s\"".to_owned()),
            ("start_timeout", "\"60s\"".to_owned()),
            // What is counted here is what calls made; cells have cases of their own.
            ("cells_max", "0".to_owned()),
        ]
        .map(|(key, value)| (key.to_owned(), value))
        .into();
        for line in settings.lines().filter(|line| !line.trim().is_empty()) {
            let (key, value) = line.split_once('=').unwrap_or((line, ""));
            let (key, value) = (key.trim().to_owned(), value.trim().to_owned());
            lines.retain(|(other, _)| *other != key);
            lines.push((key, value));
        }
        let body: String = lines.into_iter().map(|(key, value)| format!("{key} = {value}\n")).collect();
        format!("[tenant.acme.function.{name}]\n{body}")
    }

    /// Host, tenant acme and one function `probe`.
    pub fn simple(&self, settings: &str) -> String {
        format!("{}[tenant.acme.sub_tenant]\n{}", self.host(""), self.function("probe", settings))
    }

    /// Writes a configuration.
    pub fn write(&self, text: &str) -> Result<PathBuf, String> {
        let path = self.path("sublet.toml");
        fs::write(&path, text).map_err(|error| error.to_string())?;
        Ok(path)
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        if self.dir.as_os_str().is_empty() {
            return;
        }
        // What cannot be removed is seen in /tmp by whoever looks; the case has its verdict already.
        fs::remove_dir_all(&self.dir).ok();
    }
}

/// Whether `dir` has nothing in it.
pub fn is_empty(dir: &Path) -> bool {
    fs::read_dir(dir).is_ok_and(|mut entries| entries.next().is_none())
}
