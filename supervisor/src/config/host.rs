//! Checks what was written for the host.

use std::{collections::BTreeSet, net::SocketAddr};

use super::{
    bounds, defaults,
    degradation::Degradation,
    logs,
    name::Name,
    path::HostPath,
    raw::{Maybe, RawHost, Scalar},
    reader::{Reader, Setting},
    types::Host,
    units::{ByteSize, CpuMillis, SocketMode, UnitError},
};

/// The host's settings that those below are held against.
#[derive(Debug)]
pub struct Above {
    pub workers_max: Setting<u32>,
    pub calls_in_flight_max: Setting<u32>,
    pub calls_waiting_max: Setting<u32>,
    pub memory_max: Option<Setting<ByteSize>>,
    pub cpu_quota: Option<Setting<CpuMillis>>,
    pub pids_max: Option<Setting<u32>>,
    /// Our own paths, by setting: no worker may see them.
    pub ours: Vec<(&'static str, HostPath)>,
}

/// The host, and what of it those below are held against.
pub fn check(raw: &RawHost, r: &Reader<'_>) -> (Above, Option<Host>) {
    let state_dir = r.path("state_dir", raw.state_dir.as_ref(), "/var/lib/sublet");
    if raw.state_dir.is_none() {
        r.missing(
            "state_dir",
            "add a directory of the daemon's own, such as state_dir = \"/var/lib/sublet\" in [host]",
        );
    }
    let socket = socket(r, "socket", &raw.socket, state_dir.as_ref(), defaults::SOCKET_FILE);
    let admin_socket = socket_for_operators(raw, r, state_dir.as_ref(), socket.as_ref());
    let workers_max = r.or("workers_max", raw.workers_max.as_ref(), &bounds::WORKERS, defaults::WORKERS_MAX);
    let calls_waiting_max =
        r.or("calls_waiting_max", raw.calls_waiting_max.as_ref(), &bounds::CALLS, defaults::CALLS_WAITING_MAX);
    // No narrower than the host's other limits, unless it is written.
    let all_calls = workers_max.value.saturating_add(calls_waiting_max.value);
    let calls_in_flight_max =
        r.or("calls_in_flight_max", raw.calls_in_flight_max.as_ref(), &bounds::CALLS_IN_FLIGHT, all_calls);
    let cells_memory_max =
        r.or("cells_memory_max", raw.cells_memory_max.as_ref(), &bounds::CELLS_MEMORY, defaults::CELLS_MEMORY_MAX);
    let starts_max =
        r.or_lowered("starts_max", raw.starts_max.as_ref(), &bounds::WORKERS, defaults::STARTS_MAX, &[&workers_max]);
    let connections_max =
        r.or("connections_max", raw.connections_max.as_ref(), &bounds::CONNECTIONS, defaults::CONNECTIONS_MAX);
    let threads = r.or("threads", raw.threads.as_ref(), &bounds::THREADS, defaults::threads());
    let busy_poll = busy_poll(raw, r, &threads);
    let forbid_store_bypass =
        r.flag("forbid_store_bypass", raw.forbid_store_bypass.as_ref(), defaults::FORBID_STORE_BYPASS);
    let memory_max = r.optional("memory_max", raw.memory_max.as_ref(), &bounds::MEMORY);
    let cpu_quota = r.optional("cpu_quota", raw.cpu_quota.as_ref(), &bounds::CPU_QUOTA);
    let pids_max = r.optional("pids_max", raw.pids_max.as_ref(), &bounds::PIDS);
    let ids = ids(raw, r, &workers_max);
    let log = logs::check(raw, r);
    let log_memory = r.or("log_memory", raw.log_memory.as_ref(), &bounds::LOG_MEMORY, defaults::LOG_MEMORY).value;
    let build = || {
        Some(Host {
            state_dir: state_dir.clone()?,
            socket: socket.clone()?,
            admin_socket: admin_socket.clone()?,
            socket_mode: socket_mode(raw, r),
            socket_gid: r.optional("socket_gid", raw.socket_gid.as_ref(), &bounds::SOCKET_GID).map(|s| s.value),
            listen: listen(raw, r),
            instance: instance(raw, r)?,
            cgroup_parent: r.path("cgroup_parent", raw.cgroup_parent.as_ref(), "/sublet.slice"),
            uid_base: ids.base,
            uid_count: ids.count,
            supervisor_uid: ids.supervisor,
            workers_max: workers_max.value,
            calls_in_flight_max: calls_in_flight_max.value,
            calls_waiting_max: calls_waiting_max.value,
            cells_memory_max: cells_memory_max.value,
            starts_max: starts_max.value,
            connections_max: connections_max.value,
            threads: threads.value,
            busy_poll,
            forbid_store_bypass,
            log: log.clone()?,
            log_memory,
            memory_max: memory_max.as_ref().map(|s| s.value),
            cpu_quota: cpu_quota.as_ref().map(|s| s.value),
            pids_max: pids_max.as_ref().map(|s| s.value),
            accept_degraded: accept_degraded(raw, r),
        })
    };
    let host = build();
    let log_dir = log.as_ref().and_then(|log| log.dir().cloned());
    let ours = [
        ("host.state_dir", state_dir),
        ("host.socket", socket),
        ("host.admin_socket", admin_socket),
        ("host.log_dir", log_dir),
    ];
    let ours = ours.into_iter().filter_map(|(name, path)| Some((name, path?))).collect();
    (Above { workers_max, calls_in_flight_max, calls_waiting_max, memory_max, cpu_quota, pids_max, ours }, host)
}

/// With several threads, what one does between two looks wakes another, which costs what polling is to save.
fn busy_poll(raw: &RawHost, r: &Reader<'_>, threads: &Setting<u32>) -> bool {
    let busy_poll = r.flag("busy_poll", raw.busy_poll.as_ref(), defaults::busy_poll(threads.value));
    if busy_poll && threads.value != 1 {
        let what = format!("only where one thread serves all calls, and host.threads is {}", threads.value);
        r.refuse("busy_poll", Some("true".into()), what, "write threads = 1, or busy_poll = false");
    }
    busy_poll
}

fn socket(
    r: &Reader<'_>,
    key: &str,
    raw: &Maybe,
    state_dir: Option<&HostPath>,
    default_file: &str,
) -> Option<HostPath> {
    let path = match raw {
        Some(raw) => r.path(key, Some(raw), "/run/sublet/call.sock")?,
        None => state_dir?.join(default_file),
    };
    let length = path.as_str().len();
    if length > bounds::SOCKET_PATH_MAX_BYTES {
        r.refuse(
            key,
            Some(format!("{:?}", path.as_str())),
            format!("has {length} bytes, and the kernel takes {} for a socket", bounds::SOCKET_PATH_MAX_BYTES),
            "write a shorter path, such as \"/run/sublet/call.sock\"",
        );
        return None;
    }
    Some(path)
}

fn socket_for_operators(
    raw: &RawHost,
    r: &Reader<'_>,
    state_dir: Option<&HostPath>,
    call_socket: Option<&HostPath>,
) -> Option<HostPath> {
    let path = socket(r, "admin_socket", &raw.admin_socket, state_dir, defaults::ADMIN_SOCKET_FILE)?;
    if Some(&path) == call_socket {
        r.refuse(
            "admin_socket",
            Some(format!("{:?}", path.as_str())),
            "the same as host.socket: callers would be operators",
            "write another path, such as \"/run/sublet/admin.sock\"",
        );
    }
    Some(path)
}

fn socket_mode(raw: &RawHost, r: &Reader<'_>) -> SocketMode {
    let Some(raw) = &raw.socket_mode else { return defaults::SOCKET_MODE };
    let parsed = match raw {
        Scalar::Text(text) => SocketMode::try_from(text.as_str()),
        Scalar::Integer(_) | Scalar::Float(_) | Scalar::Bool(_) => Err(UnitError::Mode),
    };
    match parsed {
        Ok(mode) if mode.bits() & 0o600 == 0o600 => mode,
        Ok(_) => {
            let remedy = "keep both for the owner, such as \"0660\" or \"0600\"";
            r.refuse("socket_mode", Some(raw.to_string()), "takes read or write from the socket's owner", remedy);
            defaults::SOCKET_MODE
        }
        Err(error) => {
            r.refuse("socket_mode", Some(raw.to_string()), error.what(), error.remedy());
            defaults::SOCKET_MODE
        }
    }
}

fn listen(raw: &RawHost, r: &Reader<'_>) -> Option<SocketAddr> {
    let text = r.text("listen", raw.listen.as_ref(), "127.0.0.1:7070")?;
    let refuse = |what: &str, remedy: &str| {
        r.refuse("listen", Some(format!("{text:?}")), what, remedy);
        None
    };
    match text.parse::<SocketAddr>() {
        Ok(address) if address.ip().is_loopback() => Some(address),
        Ok(_) => refuse(
            "not a loopback address, and mTLS is not built yet: anybody who reaches it could call",
            "write \"127.0.0.1:PORT\" or \"[::1]:PORT\", or remove it and use host.socket",
        ),
        Err(_) => refuse("not an address with a port", "write an IP address and a port, such as \"127.0.0.1:7070\""),
    }
}

fn instance(raw: &RawHost, r: &Reader<'_>) -> Option<Name> {
    let text = match &raw.instance {
        Some(raw) => r.text("instance", Some(raw), defaults::INSTANCE)?,
        None => defaults::INSTANCE,
    };
    let shown = || Some(format!("{text:?}"));
    Name::try_from(text).map_err(|error| r.refuse("instance", shown(), error, "write a name such as \"main\"")).ok()
}

struct Ids {
    base: u32,
    count: u32,
    supervisor: u32,
}

fn ids(raw: &RawHost, r: &Reader<'_>, workers_max: &Setting<u32>) -> Ids {
    // An instance that is no text is refused where it is read.
    let instance = match &raw.instance {
        Some(Scalar::Text(text)) => text.as_str(),
        Some(Scalar::Integer(_) | Scalar::Float(_) | Scalar::Bool(_)) | None => defaults::INSTANCE,
    };
    let base = r.or("uid_base", raw.uid_base.as_ref(), &bounds::UID_BASE, defaults::uid_base(instance));
    let count = r.or("uid_count", raw.uid_count.as_ref(), &bounds::UID_COUNT, defaults::UID_COUNT);
    let below_base = base.value.saturating_sub(defaults::SUPERVISOR_UID_BELOW_BASE);
    let supervisor = r.or("supervisor_uid", raw.supervisor_uid.as_ref(), &bounds::SUPERVISOR_UID, below_base);

    if count.is_known() && !count.value.is_multiple_of(2) {
        let remedy = format!("write {}", count.value + 1);
        r.refuse("uid_count", Some(count.shown()), "odd, and each worker takes two", remedy);
    }
    let needed = workers_max.value.saturating_mul(2);
    if count.is_known() && workers_max.is_known() && count.value < needed {
        r.refuse(
            "uid_count",
            Some(count.shown()),
            format!("below {needed}, two for each worker of {} = {}", workers_max.name, workers_max.shown()),
            format!("write at least {needed}, or lower {}", workers_max.name),
        );
    }
    if base.is_known() && count.is_known() {
        // u32::MAX itself means "no id".
        let end = u64::from(base.value) + u64::from(count.value);
        if end > u64::from(u32::MAX) {
            let room = u32::MAX - base.value;
            r.refuse(
                "uid_count",
                Some(count.shown()),
                format!("uid_base = {} and uid_count lead to {end}, beyond the last id 4294967294", base.value),
                format!("write at most {room}, or lower host.uid_base"),
            );
        }
        let range = u64::from(base.value)..end;
        if supervisor.is_known() && range.contains(&u64::from(supervisor.value)) {
            r.refuse(
                "supervisor_uid",
                Some(supervisor.shown()),
                format!("inside the workers' range {} to {}", range.start, range.end - 1),
                format!("write an id outside of it, such as {below_base}"),
            );
        }
    }
    Ids { base: base.value, count: count.value, supervisor: supervisor.value }
}

fn accept_degraded(raw: &RawHost, r: &Reader<'_>) -> BTreeSet<Degradation> {
    let choices = Degradation::ALL.map(|degradation| (degradation.name(), degradation));
    raw.accept_degraded.iter().filter_map(|raw| r.choice("accept_degraded", Some(raw), &choices)).collect()
}
