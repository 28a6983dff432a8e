//! `sublet what-if` and `sublet make-trace`: the pool on traces, without a supervisor.

use std::{
    collections::BTreeMap,
    fs::File,
    io::{self, BufReader, BufWriter, Write},
    path::{Path, PathBuf},
    time::Duration,
};

use clap::Args;
use serde_json::json;
use sublet_what_if::{Change, Comparison, Function, Reader, Setup, Shape, Tenant, Times, Token, Writer, generate, run};

use super::{Failed, WrongArgument, output};
use crate::{
    config::{self, ByteSize, Config},
    driver::policy,
};

/// Options of `sublet what-if`.
#[derive(Debug, Args)]
pub struct WhatIfArgs {
    /// The trace: of `sublet serve --record`, or of `sublet make-trace`.
    trace: PathBuf,
    /// Configuration file; its limits are those before the change.
    #[arg(long, default_value = super::CONFIG)]
    config: PathBuf,
    /// A limit to change, by its full name, for example host.workers_max=400 or tenant.acme.function.*.idle_ttl=1m.
    #[arg(long = "set", value_name = "KEY=VALUE", required = true)]
    changes: Vec<String>,
    /// From the decision to make a worker until it is ready; `sublet invoke --verbose` and tests/bench show yours.
    #[arg(long, value_parser = super::duration, default_value = "7ms")]
    cold_start: Duration,
    /// Of that, making the sandbox.
    #[arg(long, value_parser = super::duration, default_value = "4ms")]
    cell_make: Duration,
    /// From labelling a cell until its function is ready.
    #[arg(long, value_parser = super::duration, default_value = "3ms")]
    cell_label: Duration,
    /// Memory of one worker, for example 32MiB.
    #[arg(long, value_parser = size, default_value = "32MiB")]
    worker_memory: u64,
}

fn size(text: &str) -> Result<u64, WrongArgument> {
    ByteSize::try_from(text).map(ByteSize::bytes).map_err(|error| WrongArgument(error.to_string()))
}

/// Options of `sublet make-trace`.
#[derive(Debug, Args)]
pub struct MakeTraceArgs {
    /// Where to write; must not be there yet.
    trace: PathBuf,
    /// Equal seeds give equal traces.
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// How long the trace is, for example 24h.
    #[arg(long, value_parser = super::duration, default_value = "1h")]
    duration: Duration,
    /// Calls per second on the mean, bursts left out.
    #[arg(long, default_value_t = 60.0)]
    calls_per_second: f64,
    /// Sub-tenants of all tenants together.
    #[arg(long, default_value_t = 10_000)]
    sub_tenants: u32,
    /// How uneven they are (Zipf's exponent).
    #[arg(long, default_value_t = 1.0)]
    zipf: f64,
    /// Bursts per hour.
    #[arg(long, default_value_t = 60.0)]
    bursts_per_hour: f64,
    /// Tenants, called tenant-1 and so on.
    #[arg(long, default_value_t = 1)]
    tenants: u32,
    /// Functions of each, called function-1 and so on.
    #[arg(long, default_value_t = 1)]
    functions: u32,
    /// Median service time.
    #[arg(long, value_parser = super::duration, default_value = "20ms")]
    service_median: Duration,
}

/// Runs the trace under the limits that are, and under those that would be.
pub fn what_if(args: &WhatIfArgs, json: bool) -> Result<(), Failed> {
    // All of it is checked before anything is run.
    let changes = args.changes.iter().map(|text| text.parse::<Change>()).collect::<Result<Vec<_>, _>>()?;
    let config = config::load(&args.config)?;
    let before = setup(&config, args)?;
    let after = before.with(&changes)?;
    let comparison = Comparison { before: one(&args.trace, &before)?, after: one(&args.trace, &after)? };
    if json {
        output::say_json(&serde_json::to_value(&comparison)?)?;
    } else {
        output::say(comparison.to_string().trim_end_matches('\n'))?;
    }
    Ok(())
}

fn one(trace: &Path, setup: &Setup) -> Result<sublet_what_if::Report, Failed> {
    let file = File::open(trace).map_err(|error| Failed::new(format!("open {}: {error}", trace.display())))?;
    let of = |failed: Failed| failed.about(&trace.display().to_string());
    let rows = Reader::new(BufReader::new(file)).map_err(|error| of(error.into()))?;
    run(setup, rows).map_err(|error| of(error.into()))
}

fn token(name: &str) -> Result<Token, Failed> {
    Token::try_from(name).map_err(|error| Failed::new(format!("{name:?}: {error}")))
}

fn setup(config: &Config, args: &WhatIfArgs) -> Result<Setup, Failed> {
    let times = Times {
        cold_start: args.cold_start,
        cell_make: args.cell_make,
        cell_label: args.cell_label,
        ..Times::default()
    };
    let mut tenants = BTreeMap::new();
    for (name, tenant) in &config.tenants {
        let mut functions = BTreeMap::new();
        for (name, function) in &tenant.functions {
            let timeout = function.start_timeout + function.timeout;
            let simulated = Function {
                times,
                memory_bytes: args.worker_memory,
                ..Function::new(policy::function(function), timeout)
            };
            functions.insert(token(name.as_str())?, simulated);
        }
        tenants.insert(token(name.as_str())?, Tenant { policy: policy::tenant(tenant), functions });
    }
    Ok(Setup::new(policy::host(&config.host), tenants)?)
}

/// Writes a trace of heavy-tailed traffic.
pub fn make_trace(args: &MakeTraceArgs, json: bool) -> Result<(), Failed> {
    let shape = Shape {
        duration: args.duration,
        tenants: args.tenants,
        functions_per_tenant: args.functions,
        sub_tenants: args.sub_tenants,
        zipf_exponent: args.zipf,
        calls_per_second: args.calls_per_second,
        bursts_per_hour: args.bursts_per_hour,
        service_median: args.service_median,
        ..Shape::default()
    };
    let rows = generate(&shape, args.seed)?;
    let file = crate::recorder::create(&args.trace)
        .map_err(|error| Failed::new(format!("make {}: {error}", args.trace.display())))?;
    let written = write(file, rows);
    let count = written.map_err(|error| {
        // Half a trace is none.
        std::fs::remove_file(&args.trace).ok();
        Failed::new(format!("write {}: {error}", args.trace.display()))
    })?;
    if json {
        output::say_json(&json!({ "trace": args.trace.display().to_string(), "calls": count }))?;
    } else {
        output::say(format_args!("{count} calls in {}", args.trace.display()))?;
    }
    Ok(())
}

fn write(file: File, rows: impl Iterator<Item = sublet_what_if::Row>) -> io::Result<u64> {
    let mut writer = Writer::new(BufWriter::new(file))?;
    let mut count = 0;
    for row in rows {
        writer.write(&row)?;
        count += 1;
    }
    writer.finish()?.flush()?;
    Ok(count)
}
