//! Checks what was written for one function.

use std::collections::BTreeMap;

use sublet_pool::SubTenant;
use sublet_proto::link::sandbox::OnRefused;

use super::{
    bounds, host,
    level::{Level, cpu_timing},
    path::HostPath,
    program,
    reader::{Origin, Reader, Setting},
    revision::revision,
    runtime::{self, default_command},
    scalar::Maybe,
    settings::Inherited,
    token,
    types::{Function, FunctionBeside, FunctionRead, Isolation, Layout, RawFunction},
    units::ByteSize,
};

/// The levels above.
#[derive(Clone, Copy, Debug)]
pub struct Above<'a> {
    pub host: &'a host::Above,
    pub tenant: &'a Level,
    pub sub_tenant: &'a Level,
}

/// The function, or none if something that has no default is missing or wrong.
pub fn check(raw: &RawFunction, r: &Reader<'_>, above: &Above<'_>) -> Option<Function> {
    // All parts are read before any can end the reading.
    let runtime = runtime::runtime(raw, r);
    let handler = runtime::handler(raw, r, runtime);
    let layout = layout(raw, r, above);
    let dir = required_dir(
        r,
        "dir",
        &raw.dir,
        above,
        "add the function's directory, such as dir = \"/srv/functions/resize\"",
    );
    let default = runtime.and_then(|runtime| default_command(runtime, handler.as_deref().unwrap_or_default()));
    let command = program::command(raw, r, layout.as_ref(), default);
    let env = program::env(raw, r, runtime);
    program::fits_a_message(r, &command, &env);
    let isolation = isolation(raw, r);
    // Runtimes probe for calls they can do without; EPERM lets them, and the verdict names the call all the same.
    let on_refused = [("errno", OnRefused::Errno), ("kill", OnRefused::Kill)];
    let on_refused_syscall =
        r.choice("on_refused_syscall", raw.on_refused_syscall.as_ref(), &on_refused).unwrap_or(OnRefused::Errno);
    let read = settings(raw, r, above);
    let warm = warm(raw, r, isolation, &read);
    let bytes = |size: &Setting<ByteSize>| {
        u32::try_from(size.value.bytes()).unwrap_or(sublet_proto::link::frame::PAYLOAD_LIMIT)
    };

    let token = raw.token.as_ref().map(|token| {
        let about = token::About { isolation, start_timeout: read.start_timeout.value };
        token::check(token, &r.below("token"), &about)
    });

    let (layout, dir) = (layout?, dir?);
    // Written, and wrong in a way that has been told: a function without its token is another function.
    let token = token.map_or(Some(None), |token| token.map(Some))?;
    let of_token = token.as_ref().and_then(|token| token.provider.path());
    let revision = revision(raw, [Some(&dir), layout.root(), of_token], read.tmp_size.value)
        .map_err(|error| r.refuse("revision", None, error, "report this as a bug of sublet"))
        .ok()?;
    let beside = FunctionBeside {
        revision,
        runtime: runtime?,
        isolation,
        layout,
        dir,
        code: None,
        root_code: None,
        handler,
        command,
        env,
        workers_min: read.workers_min.value,
        warm,
        is_idempotent: r.flag("idempotent", raw.idempotent.as_ref(), false),
        payload_max_bytes: bytes(&read.payload_max),
        answer_max_bytes: bytes(&read.answer_max),
        has_report_lines: r.flag("report_lines", raw.report_lines.as_ref(), false),
        on_refused_syscall,
        token,
    };
    Some(Function::new(&read, beside))
}

/// Reads the settings that are one value each, and holds them against each other and against the levels above.
fn settings(raw: &RawFunction, r: &Reader<'_>, above: &Above<'_>) -> FunctionRead {
    let Above { host, tenant: Level { said: tenant, .. }, sub_tenant: Level { said: sub_tenant, .. } } = above;
    let (workers, in_flight) = (&tenant.workers_max, &tenant.calls_in_flight_max);
    let inherited = Inherited { workers_max: workers.value, calls_in_flight_max: in_flight.value };
    let mut read = FunctionRead::new(raw, r, &inherited);
    let levels = [sub_tenant.memory_max.as_ref(), tenant.memory_max.as_ref(), host.memory_max.as_ref()];
    r.at_most_nearest(Some(&read.memory_max), &levels);
    r.at_most_nearest(read.memory_high.as_ref(), &[Some(&read.memory_max)]);
    let levels = [sub_tenant.cpu_quota.as_ref(), tenant.cpu_quota.as_ref(), host.cpu_quota.as_ref()];
    r.at_most_nearest(Some(&read.cpu_quota), &levels);
    cpu_timing(r, Some(&read.cpu_quota), &read.cpu_period, &read.cpu_burst);
    let levels = [sub_tenant.pids_max.as_ref(), tenant.pids_max.as_ref(), host.pids_max.as_ref()];
    r.at_most_nearest(Some(&read.pids_max), &levels);
    tmp_within_memory(r, &read.tmp_size, &read.memory_max);
    r.lower(&mut read.workers_max, &[workers]);
    r.lower(&mut read.calls_in_flight_max, &[in_flight]);
    r.lower(&mut read.workers_per_sub_tenant_max, &[&read.workers_max, &sub_tenant.workers_max]);
    r.lower(&mut read.queue_max, &[&host.calls_waiting_max]);
    r.lower(&mut read.cells_max, &[&read.workers_max]);
    read
}

fn required_choice<T: Copy>(r: &Reader<'_>, key: &str, raw: &Maybe, choices: &[(&str, T)], remedy: &str) -> Option<T> {
    if raw.is_none() {
        r.missing(key, remedy);
    }
    r.choice(key, raw.as_ref(), choices)
}

fn isolation(raw: &RawFunction, r: &Reader<'_>) -> Isolation {
    let choices = [("sub-tenant", Isolation::SubTenant), ("shared", Isolation::Shared)];
    // A sub-tenant's data must not meet another's unless somebody says that it may.
    r.choice("isolation", raw.isolation.as_ref(), &choices).unwrap_or(Isolation::SubTenant)
}

/// A directory that workers will see.
fn required_dir(r: &Reader<'_>, key: &str, raw: &Maybe, above: &Above<'_>, missing: &str) -> Option<HostPath> {
    if raw.is_none() {
        r.missing(key, missing);
    }
    let path = r.path(key, raw.as_ref(), "/srv/functions/resize")?;
    let refuse = |what: String| {
        r.refuse(
            key,
            Some(format!("{:?}", path.as_str())),
            what,
            "write a directory that holds nothing else, below /srv for example",
        );
        None
    };
    if path.is_root() {
        return refuse("workers would see the whole host".to_owned());
    }
    if let Some((name, ours)) = above.host.ours.iter().find(|(_, ours)| path.contains(ours)) {
        return refuse(format!("workers would see {name} = {:?}", ours.as_str()));
    }
    let trees = &above.host.function_dirs;
    if !trees.is_empty() && !trees.iter().any(|tree| tree.contains(&path)) {
        let shown: Vec<String> = trees.iter().map(|tree| format!("{:?}", tree.as_str())).collect();
        let what = format!("not below host.function_dirs = [{}]", shown.join(", "));
        let remedy = "move it below one of them, or write its tree there and restart";
        r.refuse(key, Some(format!("{:?}", path.as_str())), what, remedy);
    }
    Some(path)
}

fn layout(raw: &RawFunction, r: &Reader<'_>, above: &Above<'_>) -> Option<Layout> {
    #[derive(Clone, Copy, PartialEq)]
    enum Kind {
        Host,
        Static,
        Dir,
    }
    let kind = required_choice(
        r,
        "layout",
        &raw.layout,
        &[("host", Kind::Host), ("static", Kind::Static), ("dir", Kind::Dir)],
        "write \"host\" to see the host's /usr, \"static\" for the function's directory alone, or \"dir\" and a root",
    )?;
    if let (Kind::Host | Kind::Static, Some(root)) = (kind, &raw.root) {
        r.refuse("root", Some(root.to_string()), "only for layout = \"dir\"", "remove it, or write layout = \"dir\"");
    }
    match kind {
        Kind::Host => Some(Layout::Host),
        Kind::Static => Some(Layout::Static),
        Kind::Dir => {
            let missing = "layout = \"dir\" needs a prepared tree, such as root = \"/srv/roots/debian\"";
            required_dir(r, "root", &raw.root, above, missing).map(Layout::Dir)
        }
    }
}

fn tmp_within_memory(r: &Reader<'_>, tmp_size: &Setting<ByteSize>, memory_max: &Setting<ByteSize>) {
    let is_known = tmp_size.is_known() && memory_max.is_known();
    if is_known && tmp_size.value > memory_max.value {
        let Setting { name, .. } = memory_max;
        r.refuse(
            "tmp_size",
            Some(tmp_size.shown()),
            format!("above {name} = {}, and files in /tmp are memory", memory_max.shown()),
            format!("write at most \"{}\", or raise {name}", memory_max.value),
        );
    }
}

/// What is kept must fit every cap above it, all of it at once: a promise that could not be held is none.
fn warm(raw: &RawFunction, r: &Reader<'_>, isolation: Isolation, read: &FunctionRead) -> BTreeMap<String, u32> {
    let (of_function, of_key) =
        (read.workers_max.value, read.workers_per_sub_tenant_max.value.min(read.workers_max.value));
    let min = &read.workers_min;
    if min.origin == Origin::Written {
        if isolation == Isolation::SubTenant {
            let remedy = "write the sub-tenants to keep workers for: warm = { \"customer-1\" = 1 }";
            r.refuse("workers_min", Some(min.shown()), "only for isolation = \"shared\"", remedy);
        } else if min.value > of_function {
            let what = format!("above the workers it may have, {of_function}");
            r.refuse("workers_min", Some(min.shown()), what, format!("write at most {of_function}"));
        }
    }
    let labels = r.below("warm");
    if isolation == Isolation::Shared && !raw.warm.is_empty() {
        r.refuse("warm", None, "a shared function has no sub-tenants", "write workers_min instead");
    }
    let mut by_sub_tenant = BTreeMap::new();
    for (label, value) in &raw.warm {
        if let Err(error) = SubTenant::try_from(label.as_str()) {
            labels.refuse(label, None, error, "write a label that a call may name");
            continue;
        }
        let Some(count) = labels.optional(label, Some(value), &bounds::NONE_OR_MORE) else { continue };
        if count.value > of_key {
            let what = format!("above the workers a sub-tenant may have of this function, {of_key}");
            labels.refuse(label, Some(count.shown()), what, format!("write at most {of_key}"));
        }
        by_sub_tenant.insert(label.clone(), count.value);
    }
    let sum: u64 = by_sub_tenant.values().map(|count| u64::from(*count)).sum();
    if sum > u64::from(of_function) {
        let what = format!("{sum} workers in all, above the {of_function} the function may have");
        r.refuse("warm", None, what, "lower the numbers, or raise workers_max");
    }
    by_sub_tenant
}
