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
//! Nothing here touches the host but [`load`], which reads the file, and [`check_disk`], which looks at the directories
//! the configuration names.

mod bounds;
mod check;
mod defaults;
mod degradation;
mod disk;
mod function;
mod name;
mod path;
mod problem;
mod raw;
mod reader;
mod revision;
mod types;
mod units;

#[cfg(test)]
mod tests;

use std::{fs::File, io::Read as _, path::Path};

pub use bounds::{CELL_BYTES, CONFIG_MAX_BYTES};
pub use degradation::Degradation;
pub use disk::check_disk;
pub use name::{Name, NameError};
pub use path::{HostPath, PathError};
pub use problem::{ConfigError, Problem};
pub use types::{CallLimits, Config, Freeze, Function, Host, Isolation, Layout, LevelLimits, Rate, Tenant};
pub use units::{ByteSize, CallRate, CpuMillis, SocketMode, UnitError, format_duration, parse_duration};

/// Reads and checks the file at `path`. Relative paths in it are below its own directory, links in that resolved.
///
/// # Errors
/// The file cannot be read or is above [`CONFIG_MAX_BYTES`]; or what [`Config::parse`] refuses.
pub fn load(path: &Path) -> Result<Config, ConfigError> {
    let text = read(path).map_err(|what| unreadable(path, what))?;
    let base = path
        .canonicalize()
        .ok()
        .and_then(|file| file.parent().map(Path::to_owned))
        .ok_or_else(|| unreadable(path, "it has no directory".into()))?;
    Config::parse(&text, &base)
}

fn read(path: &Path) -> Result<String, String> {
    let file = File::open(path).map_err(|error| format!("open: {error}"))?;
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
        let raw = raw::parse(text).map_err(|problem| ConfigError { problems: vec![problem] })?;
        check::config(&raw, base)
    }
}
