//! Checks what was written about logs in `[host]`.

use super::{
    reader::Reader,
    types::{HostRead, LogTo, RawHost},
};

/// Where logs go; none when that is wrong.
pub fn check(raw: &RawHost, read: &HostRead, r: &Reader<'_>) -> Option<LogTo> {
    #[derive(Clone, Copy, PartialEq, Eq)]
    enum To {
        None,
        Stdout,
        Files,
    }
    let choices = [("none", To::None), ("stdout", To::Stdout), ("files", To::Files)];
    let to = match &raw.log {
        Some(raw) => r.choice("log", Some(raw), &choices)?,
        None => To::None,
    };
    let dir = r.path("log_dir", raw.log_dir.as_ref(), "/var/log/sublet");
    if to != To::Files {
        let written = [("log_dir", &raw.log_dir), ("log_file_size", &raw.log_file_size), ("log_files", &raw.log_files)];
        for (key, value) in written {
            if let Some(value) = value {
                let what = "says how files are written, and none are";
                r.refuse(key, Some(value.to_string()), what, "write log = \"files\" as well, or remove it");
            }
        }
    }
    match to {
        To::None => Some(LogTo::None),
        To::Stdout => Some(LogTo::Stdout),
        To::Files => {
            if raw.log_dir.is_none() {
                r.missing("log_dir", "add a directory of its own, such as log_dir = \"/var/log/sublet\" in [host]");
            }
            Some(LogTo::Files { dir: dir?, size: read.log_file_size.value, count: read.log_files.value })
        }
    }
}
