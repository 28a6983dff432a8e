//! What went wrong and what happens: faults, watch, usage.

use std::{io::Write, path::Path};

use serde_json::{Value, json};
use sublet_proto::v1::{
    Fault, GetUsageRequest, ListFaultsRequest, Usage, WatchRequest, WatchResponse, watch_response::Event,
};

use super::{Failed, client, output, quotas::clock};
use crate::printable;

fn fault_value(fault: &Fault) -> Value {
    json!({
        "tenant": fault.tenant, "function": fault.function, "sub_tenant_hash": fault.sub_tenant_hash,
        "reason": fault.reason, "level": fault.level, "setting": fault.setting, "limit": fault.limit,
        "observed": fault.observed, "count": fault.count, "first": fault.first.map(clock),
        "last": fault.last.map(clock), "worker": fault.worker, "message": fault.message,
        "error_id": fault.error_id,
    })
}

/// `sublet faults`.
pub fn faults(socket: &Path, tenant: Option<String>, json: bool) -> Result<(), Failed> {
    let request = ListFaultsRequest { tenant: tenant.unwrap_or_default() };
    let answer = client::block_on(async {
        let answer = client::admin(socket).await?.list_faults(request).await;
        Ok(answer.map_err(|status| client::refused(&status))?.into_inner())
    })?;
    if json {
        let faults: Vec<Value> = answer.faults.iter().map(fault_value).collect();
        output::say_json(&json!({ "faults": faults, "forgotten": answer.forgotten }))?;
        return Ok(());
    }
    if answer.faults.is_empty() {
        output::say("no faults since the start")?;
        return Ok(());
    }
    let row = |fault: &Fault| {
        vec![
            fault.last.map(clock).unwrap_or_default(),
            fault.count.to_string(),
            format!("{}/{}", fault.tenant, fault.function),
            fault.sub_tenant_hash.chars().take(14).collect(),
            fault.reason.clone(),
            fault.level.clone(),
            fault.limit.clone(),
            fault.observed.clone(),
            fault.setting.clone(),
            fault.error_id.clone(),
        ]
    };
    let header =
        ["LAST", "COUNT", "FUNCTION", "SUB-TENANT", "REASON", "LEVEL", "LIMIT", "OBSERVED", "SETTING", "ERROR ID"];
    output::say(output::table(&header, &answer.faults.iter().map(row).collect::<Vec<_>>()))?;
    if answer.forgotten > 0 {
        output::say(format_args!("and {} older ones of kinds that were forgotten", answer.forgotten))?;
    }
    Ok(())
}

/// `sublet watch`: a line for each event, until Ctrl-C or the supervisor ends.
pub fn watch(socket: &Path, tenant: Option<String>, json: bool) -> Result<(), Failed> {
    let request = WatchRequest { tenant: tenant.unwrap_or_default() };
    client::block_on(async {
        let answer = client::admin(socket).await?.watch(request).await;
        let mut events = answer.map_err(|status| client::refused(&status))?.into_inner();
        loop {
            match events.message().await {
                Ok(Some(event)) => {
                    let line = if json { printable::json(&event_value(&event)) } else { event_line(&event) };
                    // Whoever reads this waits for it.
                    let mut out = std::io::stdout().lock();
                    writeln!(out, "{line}").and_then(|()| out.flush())?;
                }
                Ok(None) => return Ok(()),
                Err(status) => return Err(client::refused(&status)),
            }
        }
    })
}

fn event_value(response: &WatchResponse) -> Value {
    let at = response.at.map(clock);
    match &response.event {
        Some(Event::Fault(fault)) => json!({ "at": at, "fault": fault_value(fault) }),
        Some(Event::Worker(w)) => json!({ "at": at, "worker": {
            "worker": w.worker, "tenant": w.tenant, "function": w.function, "sub_tenant_hash": w.sub_tenant_hash,
            "what": w.what, "why": w.why,
        } }),
        Some(Event::Config(config)) => json!({ "at": at, "config": { "what": config.what, "lines": config.lines } }),
        Some(Event::Lost(lost)) => json!({ "at": at, "lost": lost }),
        None => json!({ "at": at }),
    }
}

/// What the caller was given to ask by.
fn under(error_id: &str) -> String {
    if error_id.is_empty() { String::new() } else { format!(" (error id {error_id})") }
}

/// One line for each event, whatever a function has said of itself in it.
fn event_line(response: &WatchResponse) -> String {
    printable::line(&event_text(response)).into_owned()
}

fn event_text(response: &WatchResponse) -> String {
    let at = response.at.map(clock).unwrap_or_default();
    let short = |hash: &str| hash.chars().take(14).collect::<String>();
    match &response.event {
        Some(Event::Fault(fault)) => format!(
            "{at} FAULT {} x{} {}/{} {} {}: {}",
            fault.reason,
            fault.count,
            fault.tenant,
            fault.function,
            short(&fault.sub_tenant_hash),
            fault.worker,
            fault.message.clone() + &under(&fault.error_id)
        ),
        Some(Event::Worker(w)) => {
            let why = if w.why.is_empty() { String::new() } else { format!(" ({})", w.why) };
            format!("{at} {} {}/{} {} {}{why}", w.worker, w.tenant, w.function, short(&w.sub_tenant_hash), w.what)
        }
        Some(Event::Config(config)) => format!("{at} configuration {}: {}", config.what, config.lines.join("; ")),
        Some(Event::Lost(lost)) => format!("{at} {lost} events were lost: they came faster than they were read"),
        None => at,
    }
}

fn usage_value(usage: Option<&Usage>) -> Value {
    let Some(usage) = usage else { return Value::Null };
    json!({
        "cpu_calls_ms": output::millis(usage.cpu_calls), "cpu_idle_ms": output::millis(usage.cpu_idle),
        "cpu_starting_ms": output::millis(usage.cpu_starting), "cpu_cells_ms": output::millis(usage.cpu_cells),
        "cpu_kernel_ms": output::millis(usage.cpu_kernel), "throttled_ms": output::millis(usage.throttled),
        "io_read_bytes": usage.io_read_bytes, "io_written_bytes": usage.io_written_bytes,
        "calls_answered": usage.calls_answered, "calls_failed": usage.calls_failed,
        "calls_refused": usage.calls_refused, "running_ms": output::millis(usage.running),
        "queued_ms": output::millis(usage.queued),
    })
}

/// `sublet usage`.
pub fn usage(socket: &Path, tenant: Option<String>, json: bool) -> Result<(), Failed> {
    let request = GetUsageRequest { tenant: tenant.unwrap_or_default(), workers: json };
    let answer = client::block_on(async {
        let answer = client::admin(socket).await?.get_usage(request).await;
        Ok(answer.map_err(|status| client::refused(&status))?.into_inner())
    })?;
    if json {
        let worker = |w: &sublet_proto::v1::WorkerUsage| {
            json!({
                "worker": w.worker, "function": w.function, "memory_bytes": w.memory_bytes,
                "memory_peak_bytes": w.memory_peak_bytes, "processes": w.processes,
                "usage": usage_value(w.usage.as_ref()),
            })
        };
        let sub = |s: &sublet_proto::v1::SubTenantUsage| {
            json!({
                "tenant": s.tenant, "sub_tenant_hash": s.sub_tenant_hash, "class": s.class, "workers": s.workers,
                "frozen": s.frozen, "calls_running": s.calls_running, "calls_queued": s.calls_queued,
                "memory_bytes": s.memory_bytes, "processes": s.processes, "usage": usage_value(s.usage.as_ref()),
                "workers_used": s.workers_used.iter().map(worker).collect::<Vec<_>>(),
            })
        };
        let tenant = |t: &sublet_proto::v1::TenantUsage| {
            json!({
                "tenant": t.tenant, "memory_bytes": t.memory_bytes, "processes": t.processes,
                "usage": usage_value(t.usage.as_ref()), "folded": usage_value(t.folded.as_ref()),
            })
        };
        let tenants: Vec<Value> = answer.tenants.iter().map(tenant).collect();
        let subs: Vec<Value> = answer.sub_tenants.iter().map(sub).collect();
        output::say_json(&json!({ "tenants": tenants, "sub_tenants": subs }))?;
        return Ok(());
    }
    let took = |time| output::wire(time).map_or_else(|| "-".to_owned(), output::time);
    let row = |name: String, usage: Option<&Usage>, memory: u64| {
        let u = usage.cloned().unwrap_or_default();
        vec![
            name,
            u.calls_answered.to_string(),
            u.calls_failed.to_string(),
            u.calls_refused.to_string(),
            took(u.cpu_calls),
            took(u.cpu_idle),
            took(u.cpu_starting),
            took(u.cpu_cells),
            took(u.cpu_kernel),
            took(u.throttled),
            output::size(memory),
        ]
    };
    let mut rows: Vec<Vec<String>> = Vec::new();
    for tenant in &answer.tenants {
        rows.push(row(tenant.tenant.clone(), tenant.usage.as_ref(), tenant.memory_bytes));
        let mut subs: Vec<_> = answer.sub_tenants.iter().filter(|sub| sub.tenant == tenant.tenant).collect();
        let cpu = |usage: Option<&Usage>| usage.and_then(|usage| output::wire(usage.cpu_kernel));
        subs.sort_by_key(|sub| std::cmp::Reverse(cpu(sub.usage.as_ref())));
        for sub in subs {
            let name = format!("  {}", sub.sub_tenant_hash.chars().take(14).collect::<String>());
            rows.push(row(name, sub.usage.as_ref(), sub.memory_bytes));
        }
    }
    let header = [
        "TENANT",
        "ANSWERED",
        "FAILED",
        "REFUSED",
        "CALLS",
        "IDLE",
        "STARTS",
        "CELLS",
        "KERNEL",
        "THROTTLED",
        "MEMORY",
    ];
    output::say(output::table(&header, &rows))?;
    Ok(())
}
