//! Checks what was written for one function.

use std::{collections::BTreeMap, time::Duration};

use sublet_pool::SubTenant;
use sublet_proto::link::sandbox::OnRefused;

use super::{
    bounds, defaults, host,
    level::{CpuSaid, Level, inherited},
    path::HostPath,
    program,
    raw::{Maybe, RawFunction, Scalar},
    reader::{Origin, Reader, Setting},
    revision::revision,
    runtime::{self, default_command},
    token,
    types::{Freeze, Function, Isolation, Layout},
    units::{ByteSize, CpuMillis},
};

/// Written instead of a duration.
const NEVER: &str = "never";

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
    let warm = warm(raw, r, isolation, above);
    let on_refused = [("errno", OnRefused::Errno), ("kill", OnRefused::Kill)];
    let on_refused_syscall =
        r.choice("on_refused_syscall", raw.on_refused_syscall.as_ref(), &on_refused).unwrap_or(defaults::ON_REFUSED);
    let kernel = kernel_limits(raw, r, above);
    let pool = pool_limits(raw, r, above);
    let times = times(raw, r);
    let frame = |key, raw: &Maybe, default| {
        let size = r.or(key, raw.as_ref(), &bounds::FRAME, default).value;
        u32::try_from(size.bytes()).unwrap_or(sublet_proto::link::frame::PAYLOAD_LIMIT)
    };
    let payload_max_bytes = frame("payload_max", &raw.payload_max, defaults::PAYLOAD_MAX);
    let answer_max_bytes = frame("answer_max", &raw.answer_max, defaults::ANSWER_MAX);
    let stream_max = r.or("stream_max", raw.stream_max.as_ref(), &bounds::STREAM, defaults::STREAM_MAX).value;
    let log_max = r.or("log_max", raw.log_max.as_ref(), &bounds::LOG, defaults::LOG_MAX).value;
    let log_rate = r.or("log_rate", raw.log_rate.as_ref(), &bounds::LOG_RATE, defaults::LOG_RATE).value;

    let token = raw.token.as_ref().map(|token| {
        let about = token::About { isolation, start_timeout: times.start_timeout };
        token::check(token, &r.below("token"), &about)
    });

    let (layout, dir) = (layout?, dir?);
    // Written, and wrong in a way that has been told: a function without its token is another function.
    let token = token.map_or(Some(None), |token| token.map(Some))?;
    let of_token = token.as_ref().and_then(|token| token.provider.path());
    let revision = revision(raw, [Some(&dir), layout.root(), of_token], kernel.tmp_size)
        .map_err(|error| r.refuse("revision", None, error, "report this as a bug of sublet"))
        .ok()?;
    Some(Function {
        revision,
        runtime: runtime?,
        isolation,
        layout,
        dir,
        handler,
        command,
        env,
        memory_max: kernel.memory_max,
        memory_high: kernel.memory_high,
        cpu_quota: kernel.cpu_quota,
        cpu_period: kernel.cpu_timing.0,
        cpu_burst: kernel.cpu_timing.1,
        cpu_weight: kernel.cpu_weight,
        pids_max: kernel.pids_max,
        tmp_size: kernel.tmp_size,
        tmp_inodes: kernel.tmp_inodes,
        nofile: kernel.nofile,
        stack: kernel.stack,
        timeout: times.timeout,
        start_timeout: times.start_timeout,
        idle_ttl: times.idle_ttl,
        age_max: times.age_max,
        calls_max: pool.calls_max,
        freeze_after: times.freeze_after,
        workers_max: pool.workers_max,
        workers_per_sub_tenant_max: pool.workers_per_sub_tenant_max,
        queue_max: pool.queue_max,
        calls_in_flight_max: pool.calls_in_flight_max,
        cells_max: pool.cells_max,
        workers_min: warm.workers_min,
        warm: warm.by_sub_tenant,
        is_idempotent: r.flag("idempotent", raw.idempotent.as_ref(), false),
        payload_max_bytes,
        answer_max_bytes,
        stream_max,
        log_max,
        log_rate,
        has_report_lines: r.flag("report_lines", raw.report_lines.as_ref(), false),
        on_refused_syscall,
        token,
    })
}

fn required_choice<T: Copy>(r: &Reader<'_>, key: &str, raw: &Maybe, choices: &[(&str, T)], remedy: &str) -> Option<T> {
    if raw.is_none() {
        r.missing(key, remedy);
    }
    r.choice(key, raw.as_ref(), choices)
}

fn isolation(raw: &RawFunction, r: &Reader<'_>) -> Isolation {
    let choices = [("sub-tenant", Isolation::SubTenant), ("shared", Isolation::Shared)];
    r.choice("isolation", raw.isolation.as_ref(), &choices).unwrap_or(defaults::ISOLATION)
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

struct KernelLimits {
    memory_max: ByteSize,
    memory_high: Option<ByteSize>,
    cpu_quota: CpuMillis,
    cpu_timing: (Duration, Duration),
    cpu_weight: u32,
    pids_max: u32,
    tmp_size: ByteSize,
    tmp_inodes: u32,
    nofile: u32,
    stack: ByteSize,
}

fn kernel_limits(raw: &RawFunction, r: &Reader<'_>, above: &Above<'_>) -> KernelLimits {
    let Above { host, tenant, sub_tenant } = above;
    let memory_max = r.or("memory_max", raw.memory_max.as_ref(), &bounds::MEMORY, defaults::FUNCTION_MEMORY_MAX);
    let levels = [sub_tenant.memory_max.as_ref(), tenant.memory_max.as_ref(), host.memory_max.as_ref()];
    r.at_most_nearest(Some(&memory_max), &levels);

    let memory_high = r.optional("memory_high", raw.memory_high.as_ref(), &bounds::MEMORY);
    r.at_most_nearest(memory_high.as_ref(), &[Some(&memory_max)]);

    let cpu = CpuSaid::read(r, &raw.cpu_quota, &raw.cpu_period, &raw.cpu_burst);
    let cpu_timing = cpu.timing(r, Some(defaults::FUNCTION_CPU_QUOTA));
    let cpu_quota = cpu.quota.unwrap_or(Setting {
        name: r.name("cpu_quota"),
        value: defaults::FUNCTION_CPU_QUOTA,
        origin: Origin::Default,
    });
    let levels = [sub_tenant.cpu_quota.as_ref(), tenant.cpu_quota.as_ref(), host.cpu_quota.as_ref()];
    r.at_most_nearest(Some(&cpu_quota), &levels);

    let pids_max = r.or("pids_max", raw.pids_max.as_ref(), &bounds::PIDS, defaults::FUNCTION_PIDS_MAX);
    let levels = [sub_tenant.pids_max.as_ref(), tenant.pids_max.as_ref(), host.pids_max.as_ref()];
    r.at_most_nearest(Some(&pids_max), &levels);

    let half_of_memory = ByteSize::from_bytes(memory_max.value.bytes() / 2);
    let tmp_default = defaults::TMP_SIZE.min(half_of_memory);
    let tmp_size = r.or("tmp_size", raw.tmp_size.as_ref(), &bounds::TMP_SIZE, tmp_default);
    tmp_within_memory(r, &tmp_size, &memory_max);
    KernelLimits {
        memory_max: memory_max.value,
        memory_high: memory_high.map(|s| s.value),
        cpu_quota: cpu_quota.value,
        cpu_timing,
        cpu_weight: r.or("cpu_weight", raw.cpu_weight.as_ref(), &bounds::CPU_WEIGHT, defaults::CPU_WEIGHT).value,
        pids_max: pids_max.value,
        tmp_size: tmp_size.value,
        tmp_inodes: r.or("tmp_inodes", raw.tmp_inodes.as_ref(), &bounds::TMP_INODES, defaults::TMP_INODES).value,
        nofile: r.or("nofile", raw.nofile.as_ref(), &bounds::NOFILE, defaults::NOFILE).value,
        stack: r.or("stack", raw.stack.as_ref(), &bounds::STACK, defaults::STACK).value,
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

struct PoolLimits {
    workers_max: u32,
    workers_per_sub_tenant_max: u32,
    queue_max: u32,
    calls_max: Option<u32>,
    calls_in_flight_max: u32,
    cells_max: u32,
}

fn pool_limits(raw: &RawFunction, r: &Reader<'_>, above: &Above<'_>) -> PoolLimits {
    let Above { host, tenant, sub_tenant } = above;
    let read = |key, raw: &Maybe, bounds| r.optional(key, raw.as_ref(), bounds);
    let workers_max =
        inherited(r, "workers_max", read("workers_max", &raw.workers_max, &bounds::WORKERS), &tenant.workers_max);
    let in_flight = read("calls_in_flight_max", &raw.calls_in_flight_max, &bounds::CALLS_IN_FLIGHT);
    let workers_per_sub_tenant_max = r.or_lowered(
        "workers_per_sub_tenant_max",
        raw.workers_per_sub_tenant_max.as_ref(),
        &bounds::WORKERS,
        defaults::WORKERS_PER_SUB_TENANT_MAX,
        &[&workers_max, &sub_tenant.workers_max],
    );
    let waiting = &host.calls_waiting_max;
    PoolLimits {
        workers_max: workers_max.value,
        workers_per_sub_tenant_max: workers_per_sub_tenant_max.value,
        queue_max: r
            .or_lowered("queue_max", raw.queue_max.as_ref(), &bounds::CALLS, defaults::QUEUE_MAX, &[waiting])
            .value,
        calls_max: r.optional("calls_max", raw.calls_max.as_ref(), &bounds::CALLS).map(|s| s.value),
        calls_in_flight_max: inherited(r, "calls_in_flight_max", in_flight, &tenant.calls_in_flight_max).value,
        cells_max: r
            .or_lowered(
                "cells_max",
                raw.cells_max.as_ref(),
                &bounds::NONE_OR_MORE,
                defaults::CELLS_MAX,
                &[&workers_max],
            )
            .value,
    }
}

/// Workers that are kept.
struct Warm {
    workers_min: u32,
    by_sub_tenant: BTreeMap<String, u32>,
}

/// What is kept must fit every cap above it, all of it at once: a promise that could not be held is none.
fn warm(raw: &RawFunction, r: &Reader<'_>, isolation: Isolation, above: &Above<'_>) -> Warm {
    let Above { tenant, sub_tenant, .. } = above;
    // What is wrong with these is told where they are checked.
    let written = |raw: &Maybe| match raw {
        Some(Scalar::Integer(count)) => u32::try_from(*count).ok(),
        Some(Scalar::Text(_) | Scalar::Float(_) | Scalar::Bool(_)) | None => None,
    };
    let of_function = written(&raw.workers_max).unwrap_or(tenant.workers_max.value);
    let of_key = written(&raw.workers_per_sub_tenant_max)
        .unwrap_or(defaults::WORKERS_PER_SUB_TENANT_MAX)
        .min(sub_tenant.workers_max.value)
        .min(of_function);
    let workers_min = r.optional("workers_min", raw.workers_min.as_ref(), &bounds::NONE_OR_MORE);
    if let Some(min) = &workers_min {
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
    Warm { workers_min: workers_min.map_or(0, |min| min.value), by_sub_tenant }
}

struct Times {
    timeout: Duration,
    start_timeout: Duration,
    idle_ttl: Duration,
    age_max: Option<Duration>,
    freeze_after: Freeze,
}

fn times(raw: &RawFunction, r: &Reader<'_>) -> Times {
    let freeze_after = match &raw.freeze_after {
        Some(Scalar::Text(text)) if text == NEVER => Freeze::Never,
        raw => r
            .optional("freeze_after", raw.as_ref(), &bounds::FREEZE)
            .map_or(defaults::FREEZE_AFTER, |s| Freeze::After(s.value)),
    };
    Times {
        timeout: r.or("timeout", raw.timeout.as_ref(), &bounds::TIMEOUT, defaults::TIMEOUT).value,
        start_timeout: r
            .or("start_timeout", raw.start_timeout.as_ref(), &bounds::TIMEOUT, defaults::START_TIMEOUT)
            .value,
        idle_ttl: r.or("idle_ttl", raw.idle_ttl.as_ref(), &bounds::AGE, defaults::IDLE_TTL).value,
        age_max: r.optional("age_max", raw.age_max.as_ref(), &bounds::AGE).map(|s| s.value),
        freeze_after,
    }
}
