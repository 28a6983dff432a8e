//! The nursery's side of a birth: descriptors, clone3 into the leaf cgroup, id maps.

use std::{
    error::Error,
    fs, io,
    os::fd::{AsFd, BorrowedFd, OwnedFd},
};

use nix::{
    fcntl::{AT_FDCWD, OFlag, OpenHow, ResolveFlag, openat2},
    sys::socket::{AddressFamily, SockFlag, SockType, socketpair},
    unistd::{Gid, Pid, Uid, fchown, pipe2},
};
use sublet_proto::link::sandbox::SandboxSpec;

use super::Nursery;
use crate::{
    check,
    init::{self, Birth},
    link,
    plan::{self, FUNCTION_UID, HostFacts, INIT_UID, NurseryStep},
    sys::{self, Fork},
};

/// Why no sandbox was made.
#[derive(Debug, thiserror::Error)]
pub enum BirthError {
    /// The uids of the slot are not the nursery's to give.
    #[error(transparent)]
    Refused(#[from] check::Refusal),
    /// A descriptor of the sandbox, or its /dev, was not to be had.
    #[error("{what}")]
    Part { what: &'static str, source: Box<dyn Error + Send + Sync> },
    /// The answer was another when the nursery started.
    #[error("the kernel has changed its mind about SO_PASSRIGHTS")]
    PassRightsChanged,
    /// A group that the supervisor has made for the sandbox could not be opened.
    #[error("open {kind} {path}")]
    OpenGroup { kind: &'static str, path: String, source: nix::Error },
    /// init was not made.
    #[error("clone3 into {cgroup} as uid {owner}")]
    Clone { cgroup: String, owner: u32, source: io::Error },
    /// init was made, and could not be given its uids.
    #[error("write the id maps of process {pid}")]
    WriteMaps { pid: Pid, source: io::Error },
    /// The log was not handed to the function's uid.
    #[error("give the log to uid {uid}")]
    GiveLog { uid: u32, source: nix::Error },
    /// init waits, and could not be told to go on.
    #[error("open the gate of process {pid}")]
    OpenGate { pid: Pid, source: nix::Error },
    /// The steps of the plan are not in the order that the nursery needs: a mistake of ours.
    #[error("the plan {0}")]
    Plan(&'static str),
}

fn part<E: Error + Send + Sync + 'static>(what: &'static str) -> impl FnOnce(E) -> BirthError {
    move |error| BirthError::Part { what, source: error.into() }
}

/// The supervisor's ends of a new sandbox.
#[derive(Debug)]
pub struct Born {
    pub pid: Pid,
    pub channel: OwnedFd,
    pub control: OwnedFd,
    pub log: OwnedFd,
}

/// Makes a sandbox from a spec that has been checked.
pub fn make(nursery: &Nursery, spec: &SandboxSpec) -> Result<Born, BirthError> {
    let host_init_uid = check::host_init_uid(&nursery.config, spec.slot)?;
    let facts = HostFacts {
        host_init_uid,
        v1_groups: !nursery.v1_pools.is_empty(),
        missing_layers: &nursery.config.missing_layers,
        relays_streams: nursery.relays_streams,
        forbid_store_bypass: nursery.config.forbid_store_bypass,
    };
    let plan = plan::plan(spec, &facts);
    let mut v1_tasks = Vec::new();
    for pool in &nursery.v1_pools {
        let path = format!("{}/tasks", spec.cgroup);
        let opened = open_below(pool.as_fd(), &path, OFlag::O_WRONLY);
        v1_tasks.push(opened.map_err(|source| BirthError::OpenGroup { kind: "v1 cgroup", path, source })?);
    }
    let pair =
        |kind| socketpair(AddressFamily::Unix, kind, None, SockFlag::SOCK_CLOEXEC).map_err(part("make a socket pair"));
    let (channel, child_channel) = pair(SockType::Stream)?;
    let (control, child_control) = pair(SockType::SeqPacket)?;
    // Before anybody else has the other ends. Where the kernel cannot do it, a `stream` function gets a socket whose other end
    // its launcher holds: see `init::relay`.
    for ours in [&channel, &control] {
        let refuses = link::refuse_descriptors(ours.as_fd()).map_err(part("refuse descriptors"))?;
        if refuses == nursery.relays_streams {
            return Err(BirthError::PassRightsChanged);
        }
    }
    let pipe = || pipe2(OFlag::O_CLOEXEC).map_err(part("make a pipe"));
    let (log, child_log) = pipe()?;
    let (child_gate, gate) = pipe()?;
    let null = nursery.null.try_clone().map_err(part("copy /dev/null"))?;
    let dev = nursery.skeleton.skeleton().new_dev().map_err(part("make /dev"))?;
    let mut child = None;
    for step in plan.of_nursery() {
        match step {
            NurseryStep::Birth { cgroup, owner } => match birth(nursery, cgroup, *owner)? {
                Fork::Child(_) => {
                    // The other ends would keep sockets open that must close with the supervisor.
                    drop((channel, control, log, gate));
                    init::run(Birth {
                        spec,
                        plan: &plan,
                        filters: &nursery.filters,
                        skeleton: nursery.skeleton.skeleton(),
                        v1_tasks,
                        gate: Some(child_gate),
                        control: child_control,
                        channel: child_channel,
                        log: child_log,
                        null,
                        dev,
                        token: None,
                        groups: nursery.groups_of(&spec.cgroup),
                        picture: None,
                    })
                }
                Fork::Parent(born) => child = Some(born),
            },
            NurseryStep::MapIds { host_init, host_function } => {
                let pid = child.ok_or(BirthError::Plan("maps ids before the birth"))?;
                // On failure the gate closes unread, and init ends.
                write_maps(pid, *host_init, *host_function).map_err(|source| BirthError::WriteMaps { pid, source })?;
                give_log(child_log.as_fd(), *host_function)
                    .map_err(|source| BirthError::GiveLog { uid: *host_function, source })?;
            }
        }
    }
    let pid = child.ok_or(BirthError::Plan("has no birth"))?;
    nix::unistd::write(&gate, &[1]).map_err(|source| BirthError::OpenGate { pid, source })?;
    Ok(Born { pid, channel, control, log })
}

/// The birth in its group, which is opened before the uid changes.
fn birth(nursery: &Nursery, cgroup: &str, owner: u32) -> Result<Fork<Pid>, BirthError> {
    let group = open_below(nursery.pool.as_fd(), cgroup, OFlag::O_DIRECTORY | OFlag::O_RDONLY)
        .map_err(|source| BirthError::OpenGroup { kind: "cgroup", path: cgroup.to_owned(), source })?;
    sys::clone_into(group.as_fd(), Uid::from_raw(owner)).map_err(|source| BirthError::Clone {
        cgroup: cgroup.to_owned(),
        owner,
        source,
    })
}

fn write_maps(pid: Pid, host_init: u32, host_function: u32) -> io::Result<()> {
    let map = format!("{INIT_UID} {host_init} 1\n{FUNCTION_UID} {host_function} 1\n");
    fs::write(format!("/proc/{pid}/setgroups"), "deny")?;
    fs::write(format!("/proc/{pid}/uid_map"), &map)?;
    fs::write(format!("/proc/{pid}/gid_map"), &map)
}

/// Makes the log a pipe of the function's, which may then open it by name: /dev/stderr, /proc/self/fd/1. All that it gets by
/// this is an open file of its own, to write, or to read its own lines before the supervisor does. Flags such as O_NONBLOCK
/// are of an open file, so it cannot change those of the supervisor's end.
fn give_log(log: BorrowedFd<'_>, host_function: u32) -> nix::Result<()> {
    fchown(log, Some(Uid::from_raw(host_function)), Some(Gid::from_raw(host_function)))
}

fn open_below(dir: BorrowedFd<'_>, path: &str, flags: OFlag) -> nix::Result<OwnedFd> {
    let how = OpenHow::new()
        .flags(flags | OFlag::O_CLOEXEC)
        .resolve(ResolveFlag::RESOLVE_BENEATH | ResolveFlag::RESOLVE_NO_SYMLINKS);
    openat2(dir, path, how)
}

/// Opens /dev/null for reading and writing.
pub fn open_null() -> nix::Result<OwnedFd> {
    openat2(AT_FDCWD, "/dev/null", OpenHow::new().flags(OFlag::O_RDWR | OFlag::O_CLOEXEC))
}
