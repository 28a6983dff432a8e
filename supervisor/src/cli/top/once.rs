//! `sublet top --once`: two samples one interval apart, as text or as one JSON value.

use serde_json::{Value, json};
use sublet_proto::v1::Usage;

use super::{
    TopArgs,
    columns::{Column, SUB_TENANTS, TENANTS, cores, state},
    data::Source,
    model::{Figures, Rates, Snapshot, SubTenantRow, TenantRow, WorkerRow, cpu, faults},
    sort::{Sort, is_match},
};
use crate::cli::{Failed, client, output};

/// Prints it.
pub fn run(args: &TopArgs, json: bool) -> Result<(), Failed> {
    let source = Source::new(&args.socket.path, args.tenant.clone());
    let snapshot = client::block_on(async {
        let before = source.sample().await?;
        tokio::time::sleep(args.every).await;
        Ok(Snapshot::between(Some(&before), &source.sample().await?))
    })?;
    let sort = Sort { key: args.sort, is_reversed: false };
    if json {
        output::say_json(&value(&snapshot, sort, &args.filter))?;
    } else {
        output::say(text(&snapshot, sort, &args.filter))?;
    }
    Ok(())
}

fn wanted<'a>(snapshot: &'a Snapshot, sort: Sort, filter: &str) -> Vec<&'a SubTenantRow> {
    let order = sort.order(&snapshot.sub_tenants, |row| is_match(row, filter));
    order.iter().filter_map(|at| snapshot.sub_tenants.get(*at)).collect()
}

fn text(snapshot: &Snapshot, sort: Sort, filter: &str) -> String {
    let health = &snapshot.health;
    let mut lines = vec![format!(
        "{}: cpu {} cores, {}, {}, {} in flight, {} queued",
        health.status,
        cores(snapshot.cpu_cores()),
        output::count(usize::try_from(health.workers).unwrap_or(usize::MAX), "worker"),
        output::count(usize::try_from(health.cells).unwrap_or(usize::MAX), "cell"),
        output::count(usize::try_from(health.calls_in_flight).unwrap_or(usize::MAX), "call"),
        health.calls_queued
    )];
    if !health.degraded.is_empty() {
        lines.push(format!("not enforced: {}", health.degraded.join(", ")));
    }
    let tenants = sort.order(&snapshot.tenants, |_| true);
    lines.push(table(&TENANTS, &tenants.iter().filter_map(|at| snapshot.tenants.get(*at)).collect::<Vec<_>>()));
    match wanted(snapshot, sort, filter).as_slice() {
        [] => lines.push("no sub-tenants".to_owned()),
        rows => lines.push(table(&SUB_TENANTS, rows)),
    }
    lines.join("\n")
}

fn table<R>(columns: &[Column<R>], rows: &[&R]) -> String {
    let header: Vec<&str> = columns.iter().map(|column| column.title).collect();
    let cells = |row: &&R| columns.iter().map(|column| column.cell(row)).collect();
    output::table(&header, &rows.iter().map(cells).collect::<Vec<_>>())
}

fn value(snapshot: &Snapshot, sort: Sort, filter: &str) -> Value {
    let health = &snapshot.health;
    json!({
        "interval_ms": snapshot.interval.map(|interval| interval.as_micros() as f64 / 1e3),
        "health": {
            "status": health.status, "workers": health.workers, "cells": health.cells,
            "calls_in_flight": health.calls_in_flight, "calls_queued": health.calls_queued,
            "degraded": health.degraded,
        },
        "cpu_cores": snapshot.cpu_cores(),
        "tenants": snapshot.tenants.iter().map(tenant).collect::<Vec<_>>(),
        "sub_tenants": wanted(snapshot, sort, filter).into_iter().map(sub_tenant).collect::<Vec<_>>(),
    })
}

/// What all rows have. Rates are null where two samples do not give any.
fn with_figures(mut own: Value, figures: &Figures) -> Value {
    let rate = |of: fn(&Rates) -> f64| figures.rates.as_ref().map(of);
    own["cpu_cores"] = rate(|rates| rates.cpu_cores).into();
    own["calls_per_second"] = rate(|rates| rates.calls).into();
    own["faults_per_second"] = rate(|rates| rates.faults).into();
    own["throttled_share"] = rate(|rates| rates.throttled).into();
    own["memory_bytes"] = figures.memory_bytes.into();
    own["processes"] = figures.processes.into();
    own["since_start"] = usage(&figures.usage);
    own
}

fn usage(usage: &Usage) -> Value {
    json!({
        "cpu_ms": cpu(usage).as_micros() as f64 / 1e3,
        "cpu_calls_ms": output::millis(usage.cpu_calls), "cpu_idle_ms": output::millis(usage.cpu_idle),
        "cpu_starting_ms": output::millis(usage.cpu_starting), "cpu_cells_ms": output::millis(usage.cpu_cells),
        "cpu_kernel_ms": output::millis(usage.cpu_kernel), "throttled_ms": output::millis(usage.throttled),
        "io_read_bytes": usage.io_read_bytes, "io_written_bytes": usage.io_written_bytes,
        "calls_answered": usage.calls_answered, "calls_failed": usage.calls_failed,
        "calls_refused": usage.calls_refused, "faults": faults(usage),
        "running_ms": output::millis(usage.running), "queued_ms": output::millis(usage.queued),
    })
}

fn tenant(row: &TenantRow) -> Value {
    let own = json!({
        "tenant": row.tenant, "calls_running": row.figures.running, "calls_queued": row.figures.queued,
    });
    with_figures(own, &row.figures)
}

fn sub_tenant(row: &SubTenantRow) -> Value {
    let own = json!({
        "tenant": row.key.tenant, "sub_tenant_hash": row.key.hash, "class": row.class, "workers": row.workers,
        "frozen": row.frozen, "calls_running": row.figures.running, "calls_queued": row.figures.queued,
        "workers_used": row.each.iter().map(worker).collect::<Vec<_>>(),
    });
    with_figures(own, &row.figures)
}

fn worker(row: &WorkerRow) -> Value {
    let own = json!({
        "worker": row.seen.worker, "function": row.seen.function, "state": state(row), "frozen": row.seen.frozen,
        "memory_peak_bytes": row.seen.memory_peak_bytes,
    });
    with_figures(own, &row.figures)
}

#[cfg(test)]
mod tests;
