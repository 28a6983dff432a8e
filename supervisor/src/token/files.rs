//! Tokens that somebody else writes: a directory with a file for each sub-tenant.

use std::{
    fmt::Write as _,
    fs::OpenOptions,
    io::{self, Read as _},
    os::unix::fs::{OpenOptionsExt as _, PermissionsExt as _},
    path::{Path, PathBuf},
};

use sublet_proto::link::token::{NoToken, TOKEN_MAX_BYTES, Token};
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

/// Why there is no token in a label's file.
#[derive(Debug, thiserror::Error)]
pub enum TokenFileError {
    /// The label is too long for the name of a file.
    #[error("a file in {} would have a name of {bytes} bytes, and {NAME_MAX_BYTES} are the most", dir.display())]
    NameTooLong {
        /// The directory of all labels' files.
        dir: PathBuf,
        /// Length of the name in bytes.
        bytes: usize,
    },
    /// There is no such file.
    #[error("{} does not exist", path.display())]
    Absent {
        /// Path of the token's file.
        path: PathBuf,
    },
    /// It could lead elsewhere the next time.
    #[error("{} is a symbolic link", path.display())]
    Link {
        /// Path of the link.
        path: PathBuf,
    },
    /// It is a directory, a pipe or a device.
    #[error("{} is not a plain file", path.display())]
    NotPlain {
        /// What is there.
        path: PathBuf,
    },
    /// Its modes, or landlock, keep the supervisor from it.
    #[error(
        "the supervisor's uid {uid} may not read {}; if its modes let it, the directory was replaced since the start, and \
         sublet must be restarted",
        path.display()
    )]
    Forbidden {
        /// Path of the token's file.
        path: PathBuf,
        /// The supervisor's effective uid.
        uid: nix::unistd::Uid,
    },
    /// Users other than its owner and group may read or write it.
    #[error("everybody on this host may use {}; run: chmod o= on it", path.display())]
    Open {
        /// Path of the token's file.
        path: PathBuf,
    },
    /// The kernel refuses something else.
    #[error("{action} {}", path.display())]
    File {
        /// What was tried: "open", "look at" or "read".
        action: &'static str,
        /// Path of the token's file.
        path: PathBuf,
        /// Why it failed.
        source: io::Error,
    },
    /// There is something else in it.
    #[error("what is in {} is no token", path.display())]
    NotAToken {
        /// Path of the token's file.
        path: PathBuf,
        /// What is wrong with it.
        source: NoToken,
    },
}

/// Reads the token in the label's file.
///
/// # Errors
/// [`TokenFileError`], when there is no such file, it may not be read, or there is no token in it.
pub fn read(dir: &Path, label: &str) -> Result<Token, TokenFileError> {
    let name = name(label);
    let path = dir.join(&name);
    let failed = |action, source| TokenFileError::File { action, path: path.clone(), source };
    if name.len() > NAME_MAX_BYTES {
        return Err(TokenFileError::NameTooLong { dir: dir.to_owned(), bytes: name.len() });
    }
    let flags = libc::O_NOFOLLOW | libc::O_NONBLOCK;
    let file = match with_reserve(|| OpenOptions::new().read(true).custom_flags(flags).open(&path)) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Err(TokenFileError::Absent { path }),
        Err(error) if error.raw_os_error() == Some(libc::ELOOP) => return Err(TokenFileError::Link { path }),
        // Landlock lets a running supervisor open the files of the directory, and no directory in it.
        Err(_) if path.symlink_metadata().is_ok_and(|found| found.is_dir()) => {
            return Err(TokenFileError::NotPlain { path });
        }
        Err(error) if error.kind() == io::ErrorKind::PermissionDenied => {
            return Err(TokenFileError::Forbidden { path, uid: nix::unistd::geteuid() });
        }
        Err(error) => return Err(failed("open", error)),
    };
    let metadata = file.metadata().map_err(|error| failed("look at", error))?;
    if !metadata.is_file() {
        return Err(TokenFileError::NotPlain { path });
    }
    if metadata.permissions().mode() & 0o007 != 0 {
        return Err(TokenFileError::Open { path });
    }
    let mut bytes = Zeroizing::new(Vec::new());
    file.take(FILE_MAX_BYTES + 1).read_to_end(&mut bytes).map_err(|error| failed("read", error))?;
    Token::try_from(std::mem::take(&mut *bytes)).map_err(|source| TokenFileError::NotAToken { path, source })
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
