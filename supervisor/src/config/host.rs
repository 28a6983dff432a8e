//! Checks what was written for the host.

use std::{collections::BTreeSet, net::SocketAddr};

use super::{
    bounds, defaults,
    degradation::Degradation,
    logs,
    name::Name,
    path::HostPath,
    reader::{Origin, Reader, Setting},
    scalar::{Maybe, Scalar},
    types::{Host, HostBeside, HostRead, Instance, RawHost},
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
    /// Trees that directories of functions are in; none for anywhere.
    pub function_dirs: BTreeSet<HostPath>,
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
    let mut read = HostRead::new(raw, r, &Instance { name: instance_name(raw) });
    // No narrower than the host's other limits, unless it is written.
    let all_calls = read.workers_max.value.saturating_add(read.calls_waiting_max.value);
    let calls_in_flight_max = read.calls_in_flight_max.clone().unwrap_or_else(|| Setting {
        name: r.name("calls_in_flight_max"),
        value: all_calls,
        origin: Origin::Default,
    });
    r.lower(&mut read.starts_max, &[&read.workers_max]);
    busy_poll(r, &read);
    ids(r, &read);
    let log = logs::check(raw, &read, r);
    let log_dir = log.as_ref().and_then(|log| log.dir().cloned());
    let ours = [
        ("host.state_dir", state_dir.clone()),
        ("host.socket", socket.clone()),
        ("host.admin_socket", admin_socket.clone()),
        ("host.log_dir", log_dir),
    ];
    let ours: Vec<_> = ours.into_iter().filter_map(|(name, path)| Some((name, path?))).collect();
    let function_dirs = function_dirs(raw, r, &ours);
    let beside = || {
        Some(HostBeside {
            state_dir: state_dir.clone()?,
            socket: socket.clone()?,
            admin_socket: admin_socket.clone()?,
            socket_mode: socket_mode(raw, r),
            listen: listen(raw, r),
            instance: instance(raw, r)?,
            cgroup_parent: r.path("cgroup_parent", raw.cgroup_parent.as_ref(), "/sublet.slice"),
            calls_in_flight_max: calls_in_flight_max.value,
            log: log.clone()?,
            function_dirs: function_dirs.clone(),
            accept_degraded: accept_degraded(raw, r),
        })
    };
    let host = beside().map(|beside| Host::new(&read, beside));
    let HostRead { workers_max, calls_waiting_max, memory_max, cpu_quota, pids_max, .. } = read;
    let above = Above {
        workers_max,
        calls_in_flight_max,
        calls_waiting_max,
        memory_max,
        cpu_quota,
        pids_max,
        ours,
        function_dirs,
    };
    (above, host)
}

/// Trees whose content workers may see, as far as a function names it.
fn function_dirs(raw: &RawHost, r: &Reader<'_>, ours: &[(&'static str, HostPath)]) -> BTreeSet<HostPath> {
    if !raw.function_dirs.is_empty() {
        r.note_written("function_dirs");
    }
    let tree = |raw: &Scalar| {
        let tree = r.path("function_dirs", Some(raw), "/srv/functions")?;
        let ours = ours.iter().find(|(_, ours)| tree.contains(ours));
        let what = match ours {
            _ if tree.is_root() => "it is the whole host".to_owned(),
            Some((name, ours)) => format!("{name} = {:?} is in it", ours.as_str()),
            None => return Some(tree),
        };
        let remedy = "write a directory that holds functions alone, such as \"/srv/functions\"";
        r.refuse("function_dirs", Some(format!("{:?}", tree.as_str())), what, remedy);
        None
    };
    raw.function_dirs.iter().filter_map(tree).collect()
}

/// With several threads, what one does between two looks wakes another, which costs what polling is to save.
fn busy_poll(r: &Reader<'_>, read: &HostRead) {
    if read.busy_poll.value && read.threads.value != 1 {
        let what = format!("only where one thread serves all calls, and host.threads is {}", read.threads.value);
        r.refuse("busy_poll", Some("true".into()), what, "write threads = 1, or busy_poll = false");
    }
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

/// An instance that is no text is refused where it is read.
fn instance_name(raw: &RawHost) -> &str {
    match &raw.instance {
        Some(Scalar::Text(text)) => text,
        Some(Scalar::Integer(_) | Scalar::Float(_) | Scalar::Bool(_)) | None => defaults::INSTANCE,
    }
}

/// Ids of workers and of the supervisor, held against each other.
fn ids(r: &Reader<'_>, read: &HostRead) {
    let HostRead { uid_base: base, uid_count: count, supervisor_uid: supervisor, workers_max, .. } = read;
    let below_base = base.value.saturating_sub(defaults::SUPERVISOR_UID_BELOW_BASE);
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
}

fn accept_degraded(raw: &RawHost, r: &Reader<'_>) -> BTreeSet<Degradation> {
    let choices = Degradation::ALL.map(|degradation| (degradation.name(), degradation));
    raw.accept_degraded.iter().filter_map(|raw| r.choice("accept_degraded", Some(raw), &choices)).collect()
}
