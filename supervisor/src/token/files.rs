//! Tokens that somebody else writes: a directory with a file for each sub-tenant.

use std::{
    fmt::Write as _,
    fs::OpenOptions,
    io::{self, Read as _},
    os::unix::fs::{OpenOptionsExt as _, PermissionsExt as _},
    path::Path,
};

use sublet_proto::link::token::{TOKEN_MAX_BYTES, Token};
use zeroize::Zeroizing;

use crate::reserve::with_reserve;

/// Longest name of a file on Linux.
const NAME_MAX_BYTES: usize = 255;
/// A token and the line end behind it.
const FILE_MAX_BYTES: u64 = TOKEN_MAX_BYTES as u64 + 2;

/// The name of a label's file: letters, digits, `-`, `_`, `~`, and a `.` that is not the first, as they are, every other
/// byte as % and two capital hexadecimal digits. Two labels never have one name, and no name leads anywhere else.
pub fn name(label: &str) -> String {
    let mut name = String::new();
    for byte in label.bytes() {
        match byte {
            b'.' if !name.is_empty() => name.push('.'),
            b'-' | b'_' | b'~' => name.push(byte.into()),
            byte if byte.is_ascii_alphanumeric() => name.push(byte.into()),
            // A String takes whatever is written.
            byte => drop(write!(name, "%{byte:02X}")),
        }
    }
    name
}

/// The token in the label's file.
///
/// # Errors
/// Why there is none, in words that name the file.
pub fn read(dir: &Path, label: &str) -> Result<Token, String> {
    let name = name(label);
    let path = dir.join(&name);
    let at = path.display();
    if name.len() > NAME_MAX_BYTES {
        return Err(format!(
            "a file in {} would have a name of {} bytes, and {NAME_MAX_BYTES} are the most",
            dir.display(),
            name.len()
        ));
    }
    let flags = libc::O_NOFOLLOW | libc::O_NONBLOCK;
    let file = match with_reserve(|| OpenOptions::new().read(true).custom_flags(flags).open(&path)) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Err(format!("{at} does not exist")),
        Err(error) if error.raw_os_error() == Some(libc::ELOOP) => return Err(format!("{at} is a symbolic link")),
        // Landlock lets a running supervisor open the files of the directory, and no directory in it.
        Err(_) if path.symlink_metadata().is_ok_and(|found| found.is_dir()) => {
            return Err(format!("{at} is not a plain file"));
        }
        Err(error) if error.kind() == io::ErrorKind::PermissionDenied => {
            return Err(format!(
                "the supervisor's uid {} may not read {at}; if its modes let it, the directory was replaced since the start, and \
                 sublet must be restarted",
                nix::unistd::geteuid()
            ));
        }
        Err(error) => return Err(format!("open {at}: {error}")),
    };
    let metadata = file.metadata().map_err(|error| format!("look at {at}: {error}"))?;
    if !metadata.is_file() {
        return Err(format!("{at} is not a plain file"));
    }
    if metadata.permissions().mode() & 0o007 != 0 {
        return Err(format!("everybody on this host may use {at}; run: chmod o= on it"));
    }
    let mut bytes = Zeroizing::new(Vec::new());
    file.take(FILE_MAX_BYTES + 1).read_to_end(&mut bytes).map_err(|error| format!("read {at}: {error}"))?;
    Token::try_from(std::mem::take(&mut *bytes)).map_err(|error| format!("what is in {at} is no token: {error}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_plain_and_differ_as_labels_do() {
        for (label, expected) in [
            ("customer-1", "customer-1"),
            ("a.b_C~9", "a.b_C~9"),
            (".", "%2E"),
            ("..", "%2E."),
            ("../x", "%2E.%2Fx"),
            ("a/b", "a%2Fb"),
            ("a%2Fb", "a%252Fb"),
            ("é", "%C3%A9"),
            ("a b", "a%20b"),
        ] {
            assert_eq!(name(label), expected);
        }
    }
}
