//! Commands that need no supervisor: plan, check-config, doctor.

use std::{collections::BTreeSet, path::Path};

use serde_json::json;
use sublet_pool::{FunctionId, TenantId};
use sublet_shim::plan::HostFacts;

use super::{Failed, output};
use crate::{
    catalogue::{Catalogue, Entry},
    cgroups::host::HostCgroups,
    config::{self, Config, Problem},
    doctor::{Outcome, Report},
    token::Keys,
};

/// `sublet plan`: the steps on this host, as the running supervisor would take them.
pub fn plan(path: &Path, function: &str, json: bool) -> Result<(), Failed> {
    let mut config = config::load(path)?;
    // What is wrong with its directories is told by those that would use them.
    config::check_host(&mut config, None);
    // Nothing runs, so the pool's numbers mean nothing here.
    let catalogue = Catalogue::new(&config, |_, _| TenantId(0), |_, _, _| FunctionId(0));
    let entry = find(&catalogue, function)?;
    let report = Report::of_host();
    let is_hybrid = HostCgroups::discover().is_ok_and(|found| found.is_hybrid());
    let plan = entry.plan(&HostFacts {
        host_init_uid: config.host.uid_base,
        v1_groups: is_hybrid,
        missing_layers: &report.missing_layers(),
        forbid_store_bypass: config.host.forbid_store_bypass,
        relays_streams: report.relays_streams,
    });
    if json {
        let steps: Vec<_> =
            (plan.steps().iter()).map(|step| json!({ "by": step.performer(), "step": step.to_string() })).collect();
        output::say_json(&json!({ "tenant": &*entry.tenant, "function": &*entry.name, "steps": steps }))?;
        return Ok(());
    }
    output::say(format_args!("{}/{} (revision {})", entry.tenant, entry.name, entry.settings.short_revision()))?;
    for (number, step) in plan.steps().iter().enumerate() {
        output::say(format_args!("{:>3}  {:<9} {step}", number + 1, step.performer()))?;
    }
    Ok(())
}

fn find<'a>(catalogue: &'a Catalogue, wanted: &str) -> Result<&'a Entry, Failed> {
    let all = catalogue.all();
    let matching: Vec<_> = match wanted.split_once('/') {
        Some((tenant, name)) => all.iter().filter(|e| *e.tenant == *tenant && *e.name == *name).collect(),
        None => all.iter().filter(|e| *e.name == *wanted).collect(),
    };
    let names = || all.iter().map(|e| format!("{}/{}", e.tenant, e.name)).collect::<Vec<_>>().join(", ");
    match matching[..] {
        [entry] => Ok(entry),
        [] => Err(Failed::new(format!("no function {wanted:?} in the configuration; it has: {}", names()))),
        _ => Err(Failed::new(format!("more than one tenant has a function {wanted:?}; name one of: {}", names()))),
    }
}

/// `sublet check-config`.
pub fn check_config(path: &Path, text_only: bool, json: bool) -> Result<(), Failed> {
    let (mut config, mut problems): (Option<Config>, Vec<Problem>) = match config::load(path) {
        Ok(config) => (Some(config), Vec::new()),
        Err(error) => (None, error.problems),
    };
    if let Some(config) = &mut config
        && !text_only
    {
        problems.extend(config::check_host(config, None).1);
        problems.extend(Keys::read(config).err().unwrap_or_default());
    }
    if json {
        output::say_json(&json!({ "ok": problems.is_empty(), "problems": problems, "config": config }))?;
    }
    if !problems.is_empty() {
        let lines: Vec<String> = problems.iter().map(ToString::to_string).collect();
        return Err(match json {
            // Told already.
            true => Failed { message: String::new(), status: super::STATUS_FAILED },
            false => Failed::new(format!("{} is not usable:\n{}", path.display(), lines.join("\n"))),
        });
    }
    if let (Some(config), false) = (&config, json) {
        output::say(format_args!(
            "{} is fine: {}, {}",
            path.display(),
            output::count(config.tenants.len(), "tenant"),
            output::count(config.functions().count(), "function")
        ))?;
    }
    Ok(())
}

/// `sublet config-schema`: prints the JSON Schema of the configuration.
pub fn config_schema() -> Result<(), Failed> {
    Ok(output::say(serde_json::to_string_pretty(&config::schema())?)?)
}

/// `sublet doctor`.
pub fn doctor(path: Option<&Path>, json: bool) -> Result<(), Failed> {
    let accepted = match path {
        Some(path) => config::load(path)?.host.accept_degraded,
        None => BTreeSet::new(),
    };
    let report = Report::of_host();
    let refused = report.refuse(&accepted);
    if json {
        let checks: Vec<_> = (report.checks.iter())
            .map(|check| {
                let state = match check.outcome {
                    Outcome::Ok => "ok",
                    Outcome::Degraded(_) => "degraded",
                    Outcome::Absent(_) => "absent",
                    Outcome::Advice => "advice",
                    Outcome::Missing => "missing",
                };
                json!({ "name": check.name, "value": check.value, "state": state, "remedy": check.remedy })
            })
            .collect();
        output::say_json(&json!({ "serve_would_start": refused.is_ok(), "checks": checks }))?;
    } else {
        let rows: Vec<Vec<String>> = (report.checks.iter())
            .map(|check| {
                let word = match check.outcome {
                    Outcome::Ok => "ok",
                    Outcome::Degraded(degradation) if accepted.contains(&degradation) => "accepted",
                    Outcome::Degraded(_) => "DEGRADED",
                    Outcome::Absent(_) => "absent",
                    Outcome::Advice => "advice",
                    Outcome::Missing => "MISSING",
                };
                vec![check.name.to_owned(), word.to_owned(), check.value.clone()]
            })
            .collect();
        output::say(output::table(&["CHECK", "", "FOUND"], &rows))?;
        for check in report.checks.iter().filter(|check| !check.is_ok()) {
            output::say(format_args!("\n{}: {}", check.name, check.remedy.as_deref().unwrap_or_default()))?;
        }
    }
    match (refused, json) {
        (Ok(()), _) => Ok(()),
        (Err(_), true) => Err(Failed { message: String::new(), status: super::STATUS_FAILED }),
        (Err(lines), false) => Err(Failed::new(format!("`sublet serve` would refuse to start here:\n{lines}"))),
    }
}
