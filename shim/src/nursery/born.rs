//! The nursery's side of a birth: descriptors, clone3 into the leaf cgroup, id maps.

use std::{
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

/// The supervisor's ends of a new sandbox.
#[derive(Debug)]
pub struct Born {
    pub pid: Pid,
    pub channel: OwnedFd,
    pub control: OwnedFd,
    pub log: OwnedFd,
}

/// Makes a sandbox from a spec that has been checked.
pub fn make(nursery: &Nursery, spec: &SandboxSpec) -> Result<Born, String> {
    let host_init_uid = check::host_init_uid(&nursery.config, spec.slot).map_err(|e| e.to_string())?;
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
        v1_tasks
            .push(open_below(pool.as_fd(), &path, OFlag::O_WRONLY).map_err(|e| format!("open v1 cgroup {path}: {e}"))?);
    }
    let pair = |kind| {
        socketpair(AddressFamily::Unix, kind, None, SockFlag::SOCK_CLOEXEC)
            .map_err(|e| format!("make a socket pair: {e}"))
    };
    let (channel, child_channel) = pair(SockType::Stream)?;
    let (control, child_control) = pair(SockType::SeqPacket)?;
    // Before anybody else has the other ends. Where the kernel cannot do it, a `stream` function gets a socket whose other end
    // its launcher holds: see `init::relay`.
    for ours in [&channel, &control] {
        let refuses = link::refuse_descriptors(ours.as_fd()).map_err(|e| format!("refuse descriptors: {e}"))?;
        if refuses == nursery.relays_streams {
            return Err("the kernel has changed its mind about SO_PASSRIGHTS".into());
        }
    }
    let pipe = || pipe2(OFlag::O_CLOEXEC).map_err(|e| format!("make a pipe: {e}"));
    let (log, child_log) = pipe()?;
    let (child_gate, gate) = pipe()?;
    let null = nursery.null.try_clone().map_err(|e| format!("copy /dev/null: {e}"))?;
    let dev = nursery.skeleton.skeleton().new_dev().map_err(|e| format!("make /dev: {e}"))?;
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
                let pid = child.ok_or("the plan maps ids before the birth")?;
                // On failure the gate closes unread, and init ends.
                write_maps(pid, *host_init, *host_function)
                    .map_err(|e| format!("write the id maps of process {pid}: {e}"))?;
                give_log(child_log.as_fd(), *host_function)
                    .map_err(|e| format!("give the log to uid {host_function}: {e}"))?;
            }
        }
    }
    let pid = child.ok_or("the plan has no birth")?;
    nix::unistd::write(&gate, &[1]).map_err(|e| format!("open the gate of process {pid}: {e}"))?;
    Ok(Born { pid, channel, control, log })
}

/// The birth in its group, which is opened before the uid changes.
fn birth(nursery: &Nursery, cgroup: &str, owner: u32) -> Result<Fork<Pid>, String> {
    let group = open_below(nursery.pool.as_fd(), cgroup, OFlag::O_DIRECTORY | OFlag::O_RDONLY)
        .map_err(|e| format!("open cgroup {cgroup}: {e}"))?;
    sys::clone_into(group.as_fd(), Uid::from_raw(owner))
        .map_err(|e| format!("clone3 into {cgroup} as uid {owner}: {e}"))
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
