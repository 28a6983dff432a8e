//! Giving up rights, for init and for the launcher: each function is one step of the plan.

use std::io;

use caps::CapSet;
use landlock::{
    ABI, Access, AccessFs, BitFlags, CompatLevel, Compatible, PathBeneath, PathFd, RestrictionStatus, Ruleset,
    RulesetAttr, RulesetCreatedAttr, Scope,
};
use nix::{
    sys::resource::setrlimit,
    unistd::{Gid, Uid, setresgid, setresuid},
};
use sublet_proto::link::sandbox::InnerLimits;

use crate::plan::{self, Rlimit};

/// File and process rights as of this ABI are demanded, newer ones used where the kernel has them.
const LANDLOCK_FLOOR: ABI = ABI::V3;
const LANDLOCK_BEST: ABI = ABI::V7;

/// Real, effective and saved uid and gid become `id`. Needs CAP_SETUID and CAP_SETGID.
pub fn switch_uid(id: u32) -> io::Result<()> {
    let (uid, gid) = (Uid::from_raw(id), Gid::from_raw(id));
    setresgid(gid, gid, gid)?;
    setresuid(uid, uid, uid)?;
    Ok(())
}

/// Empties all five capability sets. The bounding set goes first: dropping from it needs a capability.
pub fn drop_capabilities() -> io::Result<()> {
    // In this order, because each needs what a later one takes. Effective before permitted: it must be a subset.
    for set in [CapSet::Bounding, CapSet::Ambient, CapSet::Inheritable, CapSet::Effective, CapSet::Permitted] {
        caps::clear(None, set).map_err(|error| io::Error::other(format!("{set:?}: {error}")))?;
    }
    Ok(())
}

/// Limits that the kernel keeps per process; hard limits, never to be raised again.
pub fn set_rlimits(limits: &InnerLimits) -> io::Result<()> {
    for Rlimit { resource, value, .. } in plan::rlimits(limits) {
        let current_hard = nix::sys::resource::getrlimit(resource)?.1;
        // A host's lower hard limit stays: it cannot be raised without CAP_SYS_RESOURCE, and lower is stricter.
        let value = value.min(current_hard);
        setrlimit(resource, value, value)
            .map_err(|error| io::Error::other(format!("{resource:?} to {value}: {error}")))?;
    }
    Ok(())
}

/// Reading and executing everywhere, writing in /tmp and to device nodes, nothing else; no signals and no abstract
/// sockets across the border.
pub fn restrict_by_landlock() -> io::Result<RestrictionStatus> {
    let failed = |error: landlock::RulesetError| io::Error::other(error.to_string());
    let opened = |error: landlock::PathFdError| io::Error::other(error.to_string());
    let read: BitFlags<AccessFs> = AccessFs::ReadFile | AccessFs::ReadDir | AccessFs::Execute;
    let write_tmp = AccessFs::from_all(LANDLOCK_BEST)
        & !(AccessFs::Execute | AccessFs::MakeChar | AccessFs::MakeBlock | AccessFs::IoctlDev);
    let ruleset = Ruleset::default()
        .set_compatibility(CompatLevel::HardRequirement)
        .handle_access(AccessFs::from_all(LANDLOCK_FLOOR))
        .map_err(failed)?
        .set_compatibility(CompatLevel::BestEffort)
        .handle_access(AccessFs::from_all(LANDLOCK_BEST))
        .map_err(failed)?
        .scope(Scope::from_all(LANDLOCK_BEST))
        .map_err(failed)?;
    ruleset
        .create()
        .map_err(failed)?
        .add_rule(PathBeneath::new(PathFd::new("/").map_err(opened)?, read))
        .map_err(failed)?
        .add_rule(PathBeneath::new(PathFd::new("/tmp").map_err(opened)?, write_tmp))
        .map_err(failed)?
        .add_rule(PathBeneath::new(PathFd::new("/dev").map_err(opened)?, AccessFs::ReadFile | AccessFs::WriteFile))
        .map_err(failed)?
        .restrict_self()
        .map_err(failed)
}
