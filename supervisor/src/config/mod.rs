//! The configuration: reads a TOML text and returns values that cannot be wrong.
//!
//! Called at start, by `sublet check-config`, `diff` and `reload`. Everything is checked here, once: past this module
//! nobody asks again whether a limit is zero, a path is absolute or a function's memory fits its sub-tenant's.
//!
//! ```text
//!  text --toml--> raw (scalars as written) --check--> Config
//!            |                              |
//!            syntax, unknown key,           every wrong value, all at once,
//!            duplicate: first one, by line  by full name with a remedy
//! ```
//!
//! Nothing here touches the host but [`load`], which reads the file, and [`check_host`], which looks at the directories
//! the configuration names and puts what it finds into the configuration.

mod bounds;
mod check;
mod code;
mod defaults;
mod degradation;
mod disk;
mod function;
mod guarantee;
mod hash;
mod host;
mod inside;
mod level;
mod logs;
mod memory;
mod name;
mod origin;
mod overlay;
mod path;
mod problem;
mod program;
mod range;
mod raw;
mod reader;
mod revision;
mod runtime;
mod scalar;
mod schema;
mod settings;
mod tenant;
mod token;
mod token_disk;
mod types;
mod units;

#[cfg(test)]
mod tests;

use std::{
    fs::{File, OpenOptions},
    io::{self, Read as _},
    os::unix::fs::OpenOptionsExt as _,
    path::{Path, PathBuf},
};

pub use bounds::{CELL_BYTES, CONFIG_MAX_BYTES};
pub use code::Looked;
pub use defaults::CPU_PERIOD;
pub use degradation::Degradation;
pub use disk::check_disk;
pub use guarantee::of_tenants as guaranteed_to_tenants;
pub use memory::check_memory;
pub use name::{Name, NameError};
pub use origin::{LevelPath, NoLevel};
pub use overlay::{Overlay, changeable, rows};
pub use path::{HostPath, PathError};
pub use problem::{ConfigError, Problem};
pub use raw::check_function_shape;
pub use schema::schema;
pub use settings::{Changes, Kept, Row};
pub use types::{
    CallLimits, Client, Code, Config, FUNCTION_MOUNT, Freeze, Function, Host, Isolation, Layout, LevelLimits, LogTo,
    Rate, Runtime, SubTenantLevel, Tenant, Token, TokenProvider,
};
pub use units::{ByteSize, CallRate, CpuMillis, SocketMode, UnitError, format_duration, parse_duration};

/// A configuration as text, with the directory below which relative paths in it lie.
#[derive(Clone, Debug)]
pub struct Source {
    /// TOML.
    pub text: String,
    /// Absolute.
    pub base: PathBuf,
}

impl Source {
    /// Reads a file. Relative paths in it are below its own directory, links in that resolved.
    ///
    /// # Errors
    /// The file cannot be read, is above [`CONFIG_MAX_BYTES`], or is no plain file: a link may lead elsewhere the next
    /// time it is followed.
    pub fn read(path: &Path) -> Result<Self, ConfigError> {
        let text = read(path).map_err(|what| unreadable(path, what))?;
        let base = path
            .canonicalize()
            .ok()
            .and_then(|file| file.parent().map(Path::to_owned))
            .ok_or_else(|| unreadable(path, "it has no directory".into()))?;
        Ok(Self { text, base })
    }

    /// Checks all of it, with some settings laid over what it says.
    ///
    /// # Errors
    /// Every problem found. Syntax errors, unknown keys and duplicates hide those behind them: then it is only the first.
    pub fn check(&self, overlays: &[Overlay]) -> Result<Config, ConfigError> {
        let mut raw = raw::parse(&self.text).map_err(|problem| ConfigError { problems: vec![problem] })?;
        overlay::lay(&mut raw, overlays).map_err(|problems| ConfigError { problems })?;
        check::config(&raw, &self.base)
    }
}

/// Reads and checks the file at `path`.
///
/// # Errors
/// What [`Source::read`] or [`Source::check`] refuses.
pub fn load(path: &Path) -> Result<Config, ConfigError> {
    Source::read(path)?.check(&[])
}

/// Everything that would keep a configuration from working on this host, beyond what the host cannot enforce. What its
/// directories are is looked at and put into it; or taken from what was `known` of them, when that is given.
pub fn check_host(config: &mut Config, known: Option<&Looked>) -> (Looked, Vec<Problem>) {
    let (looked, wrong) = known.map_or_else(|| code::look(config), |known| (known.clone(), code::Wrong::default()));
    looked.put_into(config);
    // A way that leads out is told as that, and not as a link that nobody follows.
    let mut problems = wrong.ways;
    add_untold(&mut problems, check_disk(config));
    if let Some(total) = memory_of_host() {
        problems.extend(check_memory(config, total));
    }
    add_untold(&mut problems, wrong.code);
    (looked, problems)
}

/// Adds those that are about settings of which nothing has been told yet.
pub fn add_untold(problems: &mut Vec<Problem>, more: Vec<Problem>) {
    let told: std::collections::BTreeSet<String> = problems.iter().map(|problem| problem.setting.clone()).collect();
    problems.extend(more.into_iter().filter(|problem| !told.contains(&problem.setting)));
}

/// Memory of this host in bytes, if it tells.
pub fn memory_of_host() -> Option<u64> {
    let text = std::fs::read_to_string("/proc/meminfo").ok()?;
    let line = text.lines().find_map(|line| line.strip_prefix("MemTotal:"))?;
    line.trim().strip_suffix("kB")?.trim().parse::<u64>().ok().map(|kib| kib << 10)
}

fn read(path: &Path) -> Result<String, String> {
    // A link is not followed, and a pipe that nobody writes to is not waited for.
    let flags = libc::O_NOFOLLOW | libc::O_NONBLOCK;
    let file =
        OpenOptions::new().read(true).custom_flags(flags).open(path).map_err(|error| open_failed(path, &error))?;
    if !file.metadata().is_ok_and(|metadata| metadata.is_file()) {
        return Err(NOT_PLAIN.into());
    }
    read_at_most(file)
}

fn open_failed(path: &Path, error: &io::Error) -> String {
    match path.canonicalize() {
        Ok(real) if error.raw_os_error() == Some(libc::ELOOP) => {
            format!(
                "a symbolic link, which may lead elsewhere the next time; it leads to {:?}",
                real.display().to_string()
            )
        }
        // Landlock lets a running supervisor open the files of its directories, and no directory.
        _ if std::fs::symlink_metadata(path).is_ok_and(|found| !found.is_file()) => NOT_PLAIN.to_owned(),
        _ => format!("open: {error}"),
    }
}

const NOT_PLAIN: &str = "not a plain file";

fn read_at_most(file: File) -> Result<String, String> {
    let mut text = String::new();
    // One more than allowed, so that a file of any size, or an endless one, costs no more than that.
    file.take(CONFIG_MAX_BYTES + 1).read_to_string(&mut text).map_err(|error| format!("read: {error}"))?;
    if text.len() as u64 > CONFIG_MAX_BYTES {
        return Err(format!("larger than {CONFIG_MAX_BYTES} bytes"));
    }
    Ok(text)
}

fn unreadable(path: &Path, what: String) -> ConfigError {
    ConfigError {
        problems: vec![Problem::new(
            "configuration file",
            Some(format!("{:?}", path.display().to_string())),
            what,
            "give the path of a TOML file that sublet may read",
        )],
    }
}

impl Config {
    /// Checks a whole configuration. `base` is the absolute directory below which relative paths lie.
    ///
    /// # Errors
    /// Every problem found. Syntax errors, unknown keys and duplicates hide those behind them: then it is only the first.
    pub fn parse(text: &str, base: &Path) -> Result<Self, ConfigError> {
        Source { text: text.to_owned(), base: base.to_owned() }.check(&[])
    }
}
