//! The keys that tokens are signed with: read while we are root, and again at each reload by whoever we are then.

use std::{
    collections::BTreeMap,
    fs::OpenOptions,
    io::{self, Read as _},
    os::unix::fs::{OpenOptionsExt as _, PermissionsExt as _},
    sync::Arc,
};

use zeroize::Zeroizing;

use super::jwt::Signer;
use crate::{
    config::{Config, HostPath, Problem, TokenProvider},
    trust::{Trusted, Untrusted},
};

/// Largest key file in bytes; one of a curve has a few hundred.
const KEY_MAX_BYTES: u64 = 64 * 1024;
/// What others may do.
const OTHERS: u32 = 0o007;

/// Every key of a configuration, by its file.
#[derive(Clone, Debug, Default)]
pub struct Keys(BTreeMap<HostPath, Arc<Signer>>);

impl Keys {
    /// Reads and tries all of them.
    ///
    /// # Errors
    /// Each that cannot be used, by its setting.
    pub fn read(config: &Config) -> Result<Self, Vec<Problem>> {
        let (mut keys, mut problems) = (BTreeMap::new(), Vec::new());
        for (tenant, name, function) in config.functions() {
            let Some(TokenProvider::Jwt { key, .. }) = function.token.as_ref().map(|token| &token.provider) else {
                continue;
            };
            if keys.contains_key(key) {
                continue;
            }
            match read(key, config.host.supervisor_uid) {
                Ok(signer) => drop(keys.insert(key.clone(), Arc::new(signer))),
                Err((what, remedy)) => {
                    let setting = format!("tenant.{tenant}.function.{name}.token.key");
                    problems.push(Problem::new(setting, Some(format!("{:?}", key.as_str())), what, remedy));
                }
            }
        }
        if problems.is_empty() { Ok(Self(keys)) } else { Err(problems) }
    }

    /// The key in this file.
    pub fn get(&self, path: &HostPath) -> Option<&Arc<Signer>> {
        self.0.get(path)
    }
}

fn read(path: &HostPath, supervisor: u32) -> Result<Signer, (String, String)> {
    // Whoever can replace the key signs tokens in the provider's name. At a reload we are the supervisor's id ourselves.
    let owners = [supervisor, nix::unistd::geteuid().as_raw()];
    Trusted::root_and(&owners).file(path.as_path()).map_err(|error| untrusted(path, error))?;
    // A link may lead elsewhere the next time, and a pipe that nobody writes to is not waited for.
    let flags = libc::O_NOFOLLOW | libc::O_NONBLOCK;
    let plain = || ("not a plain file".to_owned(), "write the path of a PEM file with a private key".to_owned());
    let file = OpenOptions::new().read(true).custom_flags(flags).open(path).map_err(|error| {
        // Landlock lets a running supervisor open the files of its directories, and no directory.
        let is_dir = std::fs::symlink_metadata(path).is_ok_and(|found| found.is_dir());
        if is_dir { plain() } else { not_opened(path, &error) }
    })?;
    let metadata = file.metadata().map_err(|_| plain())?;
    if !metadata.is_file() {
        return Err(plain());
    }
    let mode = metadata.permissions().mode();
    if mode & OTHERS != 0 {
        return Err((
            format!("everybody on this host may use it (mode {:04o})", mode & 0o7777),
            format!("run: chmod o= {path}"),
        ));
    }
    let mut pem = Zeroizing::new(Vec::new());
    file.take(KEY_MAX_BYTES + 1).read_to_end(&mut pem).map_err(|error| not_opened(path, &error))?;
    if pem.len() as u64 > KEY_MAX_BYTES {
        return Err((format!("larger than {KEY_MAX_BYTES} bytes"), plain().1));
    }
    Signer::from_pem(&pem).ok_or_else(|| {
        let remedy = "write a PKCS#8 private key: Ed25519 (openssl genpkey -algorithm ed25519) or P-256 (openssl genpkey \
                      -algorithm ec -pkeyopt ec_paramgen_curve:P-256)";
        ("not a private key that tokens can be signed with".to_owned(), remedy.to_owned())
    })
}

fn untrusted(path: &HostPath, error: Untrusted) -> (String, String) {
    match error {
        // Told in the words for a file that cannot be opened: the way to it is closed to us.
        Untrusted::Os { error, .. } => not_opened(path, &error),
        error => (format!("others decide what is in it: {error}"), "then reload or start again".into()),
    }
}

fn not_opened(path: &HostPath, error: &io::Error) -> (String, String) {
    let id = nix::unistd::geteuid();
    match error.kind() {
        io::ErrorKind::NotFound => (format!("{path} does not exist"), "put the key there, or correct the path".into()),
        // After the start it is the supervisor's own id that reads, not root.
        io::ErrorKind::PermissionDenied => (
            format!("uid {id} may not read {path}, and the supervisor, once it has started, is nobody else"),
            format!("run: chgrp {id} {path} && chmod 0640 {path}, and let it enter the directories above; or restart"),
        ),
        _ if error.raw_os_error() == Some(libc::ELOOP) => {
            (format!("{path} is a symbolic link"), "write the path it leads to".into())
        }
        _ => (format!("read {path}: {error}"), "make it readable".into()),
    }
}
