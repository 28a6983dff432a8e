//! Giving up: after the sockets are bound and the nursery runs, the supervisor keeps no right at all.

use std::io;

use caps::CapSet;
use nix::{
    sys::prctl,
    unistd::{Gid, Uid, setgroups, setresgid, setresuid},
};

/// Why rights could not be given up. The supervisor does not go on with them.
#[derive(Debug, thiserror::Error)]
#[error("{what}: {error}")]
pub struct RightsError {
    what: String,
    error: io::Error,
}

fn os(what: impl Into<String>) -> impl FnOnce(io::Error) -> RightsError {
    let what = what.into();
    move |error| RightsError { what, error }
}

/// Becomes uid and gid `id`, without groups, capabilities, or a way to get any.
///
/// # Errors
/// The first step that fails. The process must end then.
pub fn drop_to(id: u32) -> Result<(), RightsError> {
    let caps_error = |error: caps::errors::CapsError| io::Error::other(error.to_string());
    // First, while we still may: what execve could give back.
    for capability in caps::read(None, CapSet::Bounding).map_err(caps_error).map_err(os("read the bounding set"))? {
        caps::drop(None, CapSet::Bounding, capability)
            .map_err(caps_error)
            .map_err(os(format!("drop {capability} from the bounding set")))?;
    }
    let nix_error = |error: nix::Error| io::Error::from(error);
    setgroups(&[]).map_err(nix_error).map_err(os("give up groups"))?;
    let gid = Gid::from_raw(id);
    setresgid(gid, gid, gid).map_err(nix_error).map_err(os(format!("become gid {id}")))?;
    let uid = Uid::from_raw(id);
    setresuid(uid, uid, uid).map_err(nix_error).map_err(os(format!("become uid {id}")))?;
    for set in [CapSet::Ambient, CapSet::Inheritable, CapSet::Effective, CapSet::Permitted] {
        caps::clear(None, set).map_err(caps_error).map_err(os(format!("empty the {set:?} set")))?;
    }
    prctl::set_no_new_privs().map_err(nix_error).map_err(os("set no_new_privs"))?;
    // The promise is checked, not assumed.
    let still = setresuid(Uid::from_raw(0), Uid::from_raw(0), Uid::from_raw(0)).is_ok();
    if still {
        return Err(os("give up root")(io::Error::other("root could be taken back")));
    }
    Ok(())
}
