//! Commands that ask a running supervisor: ps, describe, functions, warm, evict, drain, undrain, health.

use std::{io, path::Path, time::Duration};

use serde_json::{Value, json};
use sublet_proto::v1::{
    DescribeWorkerRequest, DescribeWorkerResponse, DrainRequest, EvictRequest, Fact, GetHealthRequest,
    ListFunctionsRequest, ListWorkersRequest, NotServing, UndrainRequest, WarmRequest, Worker,
};

use super::{Failed, client, output, quotas::clock};
use crate::printable;

fn state_name(worker: &Worker) -> &'static str {
    output::state(worker.state(), worker.frozen)
}

fn worker_value(worker: &Worker) -> Value {
    json!({
        "worker": worker.worker, "state": state_name(worker), "tenant": worker.tenant, "function": worker.function,
        "revision": worker.revision, "sub_tenant_hash": worker.sub_tenant_hash, "pid": worker.pid,
        "calls": worker.calls, "age_ms": output::millis(worker.age), "idle_ms": output::millis(worker.idle),
        "frozen": worker.frozen,
    })
}

fn took(duration: Option<prost_types::Duration>) -> String {
    output::wire(duration).map_or_else(|| "-".to_owned(), output::time)
}

/// `sublet ps`.
pub fn ps(socket: &Path, tenant: Option<String>, json: bool) -> Result<(), Failed> {
    let request = ListWorkersRequest { tenant: tenant.unwrap_or_default() };
    let workers = client::block_on(async {
        let answer = client::admin(socket).await?.list_workers(request).await;
        Ok(answer.map_err(|status| client::refused(&status))?.into_inner().workers)
    })?;
    if json {
        output::say_json(&workers.iter().map(worker_value).collect())?;
        return Ok(());
    }
    if workers.is_empty() {
        output::say("no workers")?;
        return Ok(());
    }
    let row = |worker: &Worker| {
        vec![
            worker.worker.clone(),
            state_name(worker).to_owned(),
            worker.tenant.clone(),
            worker.function.clone(),
            or_dash(worker.sub_tenant_hash.chars().take(14).collect()),
            worker.pid.to_string(),
            worker.calls.to_string(),
            took(worker.age),
            took(worker.idle),
        ]
    };
    let header = ["WORKER", "STATE", "TENANT", "FUNCTION", "SUB-TENANT", "PID", "CALLS", "AGE", "IDLE"];
    output::say(output::table(&header, &workers.iter().map(row).collect::<Vec<_>>()))?;
    Ok(())
}

fn or_dash(text: String) -> String {
    if text.is_empty() { "-".to_owned() } else { text }
}

fn facts_value(facts: &[Fact]) -> Value {
    facts.iter().map(|fact| json!({ "name": fact.name, "value": fact.value, "ok": fact.ok })).collect()
}

/// `sublet describe`.
pub fn describe(socket: &Path, worker: String, json: bool) -> Result<(), Failed> {
    let found = client::block_on(async {
        let answer = client::admin(socket).await?.describe_worker(DescribeWorkerRequest { worker }).await;
        Ok(answer.map_err(|status| client::refused(&status))?.into_inner())
    })?;
    let worker = found.worker.clone().unwrap_or_default();
    if json {
        let limit = |limit: &sublet_proto::v1::Limit| json!({ "setting": limit.setting, "value": limit.value, "knob": limit.knob });
        output::say_json(&json!({
            "worker": worker_value(&worker), "cgroup": found.cgroup,
            "limits": found.limits.iter().map(limit).collect::<Vec<_>>(), "posture": facts_value(&found.posture),
            "memory_bytes": found.memory_bytes, "memory_peak_bytes": found.memory_peak_bytes,
            "cpu_ms": output::millis(found.cpu), "processes": found.processes,
            "log_tail": String::from_utf8_lossy(&found.log_tail), "platform_lines": found.platform_lines,
            "degraded": found.degraded,
            "token": found.token.as_ref().map(|token| json!({
                "provider": token.provider,
                "issued": token.issued.map(|at| at.to_string()), "expires": token.expires.map(|at| at.to_string()),
            })),
        }))?;
        return Ok(());
    }
    Ok(tell_worker(&worker, &found)?)
}

fn tell_worker(worker: &Worker, found: &DescribeWorkerResponse) -> io::Result<()> {
    output::say(format_args!(
        "{} of {}/{} (revision {})",
        worker.worker, worker.tenant, worker.function, worker.revision
    ))?;
    output::say(format_args!("  sub-tenant   {}", worker.sub_tenant_hash))?;
    output::say(format_args!(
        "  state        {}, {} calls, age {}, idle {}",
        state_name(worker),
        worker.calls,
        took(worker.age),
        took(worker.idle)
    ))?;
    output::say(format_args!("  init's pid   {}", worker.pid))?;
    output::say(format_args!("  cgroup       {}", found.cgroup))?;
    output::say(format_args!(
        "  usage        memory {}, peak {}, cpu {}, {} processes and threads",
        output::size(found.memory_bytes),
        output::size(found.memory_peak_bytes),
        took(found.cpu),
        found.processes
    ))?;
    if let Some(token) = &found.token {
        let issued = token.issued.map_or_else(|| "not issued".to_owned(), |at| format!("issued {}", clock(at)));
        let expires = token.expires.map(|at| format!(", expires {}", clock(at))).unwrap_or_default();
        output::say(format_args!("  token        {}, {issued}{expires}", token.provider))?;
    }
    let not_enforced = if found.degraded.is_empty() { "nothing".to_owned() } else { found.degraded.join(", ") };
    output::say(format_args!("  not enforced {not_enforced}"))?;
    let rows: Vec<Vec<String>> = (found.limits.iter())
        .map(|limit| vec![format!("  {}", limit.setting), limit.value.clone(), limit.knob.clone()])
        .collect();
    output::say(format_args!("\n{}", output::table(&["  LIMIT", "VALUE", "ENFORCED BY"], &rows)))?;
    let rows: Vec<Vec<String>> = (found.posture.iter())
        .map(|fact| {
            vec![format!("  {}", fact.name), if fact.ok { "ok" } else { "WRONG" }.to_owned(), fact.value.clone()]
        })
        .collect();
    output::say(format_args!("\n{}", output::table(&["  SEEN FROM OUTSIDE", "", "VALUE"], &rows)))?;
    if !found.log_tail.is_empty() {
        let log = printable::block(&found.log_tail, &found.platform_lines, "  ");
        output::say(format_args!("\n  LOG\n{log}"))?;
    }
    Ok(())
}

/// `sublet functions`.
pub fn functions(socket: &Path, json: bool) -> Result<(), Failed> {
    let functions = client::block_on(async {
        let answer = client::admin(socket).await?.list_functions(ListFunctionsRequest {}).await;
        Ok(answer.map_err(|status| client::refused(&status))?.into_inner().functions)
    })?;
    if json {
        let value = |f: &sublet_proto::v1::Function| {
            json!({
                "tenant": f.tenant, "function": f.function, "revision": f.revision, "runtime": f.runtime,
                "layout": f.layout, "isolation": f.isolation, "workers": f.workers,
            })
        };
        output::say_json(&functions.iter().map(value).collect())?;
        return Ok(());
    }
    let rows: Vec<Vec<String>> = (functions.into_iter())
        .map(|f| vec![f.tenant, f.function, f.revision, f.runtime, f.layout, f.isolation, f.workers.to_string()])
        .collect();
    let header = ["TENANT", "FUNCTION", "REVISION", "RUNTIME", "LAYOUT", "ISOLATION", "WORKERS"];
    output::say(output::table(&header, &rows))?;
    Ok(())
}

/// `sublet warm`.
pub fn warm(socket: &Path, request: WarmRequest, json: bool) -> Result<(), Failed> {
    let answer = client::block_on(async {
        let answer = client::admin(socket).await?.warm(request).await;
        Ok(answer.map_err(|status| client::refused(&status))?.into_inner())
    })?;
    if json {
        output::say_json(&json!({ "making": answer.making }))?;
    } else {
        output::say(format_args!("{} being made", answer.making))?;
    }
    Ok(())
}

/// `sublet evict`.
pub fn evict(socket: &Path, request: EvictRequest, json: bool) -> Result<(), Failed> {
    let answer = client::block_on(async {
        let answer = client::admin(socket).await?.evict(request).await;
        Ok(answer.map_err(|status| client::refused(&status))?.into_inner())
    })?;
    if json {
        output::say_json(&json!({ "evicted": answer.evicted, "busy": answer.busy }))?;
    } else {
        output::say(format_args!("{} evicted, {} left as busy", answer.evicted, answer.busy))?;
    }
    Ok(())
}

/// `sublet drain`.
pub fn drain(socket: &Path, grace: Option<Duration>, stop: bool, json: bool) -> Result<(), Failed> {
    let grace = grace.map(prost_types::Duration::try_from).transpose()?;
    let answer = client::block_on(async {
        let answer = client::admin(socket).await?.drain(DrainRequest { grace, stop }).await;
        Ok(answer.map_err(|status| client::refused(&status))?.into_inner())
    })?;
    if json {
        output::say_json(&json!({ "cut": answer.cut }))?;
    } else {
        output::say(format_args!("drained; {} calls did not end well meanwhile", answer.cut))?;
    }
    Ok(())
}

/// `sublet undrain`.
pub fn undrain(socket: &Path, json: bool) -> Result<(), Failed> {
    let answer = client::block_on(async {
        let answer = client::admin(socket).await?.undrain(UndrainRequest {}).await;
        Ok(answer.map_err(|status| client::refused(&status))?.into_inner())
    })?;
    if json {
        output::say_json(&json!({ "was_draining": answer.was_draining }))?;
    } else {
        output::say(if answer.was_draining { "calls are taken again" } else { "it was not draining" })?;
    }
    Ok(())
}

/// A supervisor that serves answers within milliseconds.
const HEALTH_PATIENCE: Duration = Duration::from_secs(5);

/// `sublet health`.
pub fn health(socket: &Path, json: bool) -> Result<(), Failed> {
    let found = client::block_on(client::within(HEALTH_PATIENCE, socket, async {
        let answer = client::admin(socket).await?.get_health(GetHealthRequest {}).await;
        Ok(answer.map_err(|status| client::refused(&status))?.into_inner())
    }))?;
    let late = found.loop_late.unwrap_or_default();
    let late = [
        ("loop_late_p50", late.p50),
        ("loop_late_p99", late.p99),
        ("loop_late_max", late.max),
        ("loop_late_longest", late.longest),
    ];
    let numbers = [
        ("workers", found.workers),
        ("cells", found.cells),
        ("cells_labelled", found.cells_labelled),
        ("cells_wasted", found.cells_wasted),
        ("calls_in_flight", found.calls_in_flight),
        ("calls_queued", found.calls_queued),
        ("calls_answered", found.calls_answered),
        ("calls_failed", found.calls_failed),
        ("calls_refused", found.calls_refused),
        ("answers_polled", found.answers_polled),
        ("workers_started", found.workers_started),
        ("worker_start_failures", found.worker_start_failures),
        ("groups_mended", found.groups_mended),
    ];
    if json {
        let not_serving = |part: &NotServing| json!({ "service": part.service, "why": part.why });
        let mut value = json!({
            "status": found.status, "not_serving": found.not_serving.iter().map(not_serving).collect::<Vec<_>>(),
            "troubles": found.troubles, "degraded": found.degraded, "host": facts_value(&found.host),
        });
        for (name, number) in numbers {
            value[name] = number.into();
        }
        value["groups_left"] = found.groups_left.into();
        for (name, late) in late {
            value[format!("{name}_ms")] = output::millis(late);
        }
        output::say_json(&value)?;
        return Ok(());
    }
    output::say(&found.status)?;
    for part in &found.not_serving {
        let service = if part.service.is_empty() { "all" } else { &part.service };
        output::say(format_args!(
            "  {:<22} {}: {}",
            "not serving",
            printable::line(service),
            printable::line(&part.why)
        ))?;
    }
    for trouble in &found.troubles {
        output::say(format_args!("  {:<22} {}", "trouble", printable::line(trouble)))?;
    }
    for (name, number) in numbers {
        output::say(format_args!("  {:<22} {number}", name.replace('_', " ")))?;
    }
    for (name, late) in late {
        output::say(format_args!("  {:<22} {}", name.replace('_', " "), took(late)))?;
    }
    for line in &found.groups_left {
        output::say(format_args!("  {:<22} {}", "groups", printable::line(line)))?;
    }
    let not_enforced = if found.degraded.is_empty() { "nothing".to_owned() } else { found.degraded.join(", ") };
    output::say(format_args!("  {:<22} {not_enforced}", "not enforced"))?;
    for fact in &found.host {
        output::say(format_args!("  {:<22} {}", fact.name, printable::line(&fact.value)))?;
    }
    Ok(())
}
