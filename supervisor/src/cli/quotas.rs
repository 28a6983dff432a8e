//! Limits of a running supervisor: reload, diff, set, unset, limits.

use std::{
    io,
    path::PathBuf,
    time::{Duration, SystemTime},
};

use clap::Args;
use serde_json::{Value, json};
use sublet_proto::v1::{
    Above, Assignment, DiffRequest, EffectiveLimit, ListLimitsRequest, ListLimitsResponse, ReloadRequest, SetRequest,
    UnsetRequest,
};

use super::{AdminSocket, Failed, WrongArgument, client, output};
use crate::{config::Source, printable};

#[derive(Debug, Args)]
pub struct ReloadArgs {
    /// End workers that use more memory than a lowered limit allows, idle ones first; without it such a change is
    /// refused, and nothing is changed.
    #[arg(long)]
    end_those_above: bool,
    #[command(flatten)]
    socket: AdminSocket,
}

#[derive(Debug, Args)]
pub struct DiffArgs {
    /// Compare the running configuration with this file; without it, with the one the supervisor was started with.
    file: Option<PathBuf>,
    #[command(flatten)]
    socket: AdminSocket,
}

#[derive(Debug, Args)]
#[command(after_help = "Paths: host, tenant/T, tenant/T/sub_tenant (every sub-tenant without a table of its own), \
                        tenant/T/class/C, tenant/T/id/LABEL, tenant/T/function/F\n\nFor example:\n  sublet set \
                        tenant/acme/class/gold memory_max=512MiB --for 10m\n  sublet set tenant/acme/id/customer-7 rate=5/s \
                        workers_max=1 --for 1h")]
pub struct SetArgs {
    /// Which level.
    #[arg(value_name = "PATH")]
    level: String,
    /// KEY=VALUE, as in the configuration; memory.max is as good as memory_max.
    #[arg(required = true, value_parser = assignment)]
    assignments: Vec<(String, String)>,
    /// When it expires by itself, for example 10m.
    #[arg(long = "for", value_parser = super::duration)]
    lasting: Duration,
    /// End workers that use more memory than a lowered limit allows.
    #[arg(long)]
    end_those_above: bool,
    #[command(flatten)]
    socket: AdminSocket,
}

#[derive(Debug, Args)]
pub struct UnsetArgs {
    /// Which level, as given to `sublet set`.
    #[arg(value_name = "PATH", required_unless_present = "all")]
    level: Option<String>,
    /// Only this setting of it.
    key: Option<String>,
    /// Everything that is changed for a time.
    #[arg(long, conflicts_with = "level")]
    all: bool,
    /// End workers that use more memory than the limit that comes back allows.
    #[arg(long)]
    end_those_above: bool,
    #[command(flatten)]
    socket: AdminSocket,
}

#[derive(Debug, Args)]
pub struct LimitsArgs {
    /// One level, as in `sublet set`; any id has limits, seen before or not. Without it, everything that is configured.
    #[arg(value_name = "PATH")]
    level: Option<String>,
    /// Only what somebody wrote or set.
    #[arg(long)]
    written: bool,
    #[command(flatten)]
    socket: AdminSocket,
}

fn assignment(text: &str) -> Result<(String, String), WrongArgument> {
    match text.split_once('=') {
        Some((key, value)) if !key.trim().is_empty() && !value.trim().is_empty() => {
            Ok((key.trim().to_owned(), value.trim().to_owned()))
        }
        _ => Err(WrongArgument::new("write KEY=VALUE, for example memory_max=512MiB")),
    }
}

/// Labels are in them, which can hold any character but control characters.
fn lines<'a>(texts: impl IntoIterator<Item = &'a String>) -> String {
    texts.into_iter().map(|text| printable::line(text)).collect::<Vec<_>>().join("\n")
}

fn tell(changes: &[String], more: Value, json: bool) -> io::Result<()> {
    if json {
        let mut value = json!({ "changes": changes });
        if let (Some(value), Some(more)) = (value.as_object_mut(), more.as_object()) {
            value.extend(more.clone());
        }
        output::say_json(&value)
    } else if changes.is_empty() {
        output::say("nothing has changed")
    } else {
        output::say(lines(changes))
    }
}

/// `sublet reload`.
pub fn reload(args: &ReloadArgs, json: bool) -> Result<(), Failed> {
    let request = ReloadRequest { end_those_above: args.end_those_above };
    let answer = client::block_on(async {
        let answer = client::admin(&args.socket.path).await?.reload(request).await;
        Ok(answer.map_err(|status| client::refused(&status))?.into_inner())
    })?;
    if answer.changes.is_empty() && !json {
        let files = usize::try_from(answer.files).unwrap_or(usize::MAX);
        let files = output::count(files, "file");
        output::say(format_args!("nothing has changed, in the configuration and in {files} of functions"))?;
        return Ok(());
    }
    Ok(tell(&answer.changes, json!({ "files": answer.files }), json)?)
}

/// `sublet diff`: tells, and changes nothing.
pub fn diff(args: &DiffArgs, json: bool) -> Result<(), Failed> {
    let request = match &args.file {
        Some(file) => {
            let Source { text, base } = Source::read(file)?;
            DiffRequest { text, base: base.display().to_string() }
        }
        None => DiffRequest::default(),
    };
    let answer = client::block_on(async {
        let answer = client::admin(&args.socket.path).await?.diff(request).await;
        Ok(answer.map_err(|status| client::refused(&status))?.into_inner())
    })?;
    if json {
        let above = |above: &Above| json!({ "group": above.group, "setting": above.setting, "limit": above.limit, "observed": above.observed });
        let above: Vec<Value> = answer.above.iter().map(above).collect();
        output::say_json(&json!({ "changes": answer.changes, "replaced": answer.replaced, "above": above }))?;
        return Ok(());
    }
    if answer.changes.is_empty() {
        output::say("nothing would change")?;
    }
    for change in &answer.changes {
        output::say(printable::line(change))?;
    }
    for function in &answer.replaced {
        let function = printable::line(function);
        output::say(format_args!(
            "! {function} would get a new revision: its workers are replaced as they become idle"
        ))?;
    }
    for above in &answer.above {
        let text = format!("! {} uses {}, above {} = {}", above.group, above.observed, above.setting, above.limit);
        output::say(printable::line(&text))?;
    }
    Ok(())
}

/// `sublet set`.
pub fn set(args: SetArgs, json: bool) -> Result<(), Failed> {
    let request = SetRequest {
        path: args.level,
        assignments: args.assignments.into_iter().map(|(key, value)| Assignment { key, value }).collect(),
        lasting: Some(prost_types::Duration::try_from(args.lasting)?),
        end_those_above: args.end_those_above,
    };
    let answer = client::block_on(async {
        let answer = client::admin(&args.socket.path).await?.set(request).await;
        Ok(answer.map_err(|status| client::refused(&status))?.into_inner())
    })?;
    let until = answer.until.map(clock).unwrap_or_default();
    tell(&answer.changes, json!({ "until": until }), json)?;
    if !json {
        output::say(format_args!("until {until}; `sublet unset` takes it back before"))?;
    }
    Ok(())
}

/// `sublet unset`.
pub fn unset(args: UnsetArgs, json: bool) -> Result<(), Failed> {
    let request = UnsetRequest {
        path: args.level.unwrap_or_default(),
        key: args.key.unwrap_or_default(),
        end_those_above: args.end_those_above,
    };
    let answer = client::block_on(async {
        let answer = client::admin(&args.socket.path).await?.unset(request).await;
        Ok(answer.map_err(|status| client::refused(&status))?.into_inner())
    })?;
    Ok(tell(&answer.changes, Value::Null, json)?)
}

/// `sublet limits`.
pub fn limits(args: LimitsArgs, json: bool) -> Result<(), Failed> {
    let request = ListLimitsRequest { path: args.level.unwrap_or_default() };
    let ListLimitsResponse { mut limits, mended, groups_left } = client::block_on(async {
        let answer = client::admin(&args.socket.path).await?.list_limits(request).await;
        Ok(answer.map_err(|status| client::refused(&status))?.into_inner())
    })?;
    for line in mended.iter().chain(&groups_left) {
        output::tell(line);
    }
    if args.written {
        limits.retain(|limit| !limit.from.is_empty());
    }
    if json {
        output::say_json(&limits.iter().map(limit_value).collect::<Value>())?;
        return Ok(());
    }
    let rows: Vec<Vec<String>> = limits.iter().map(row).collect();
    output::say(output::table(&["LEVEL", "LIMIT", "VALUE", "FROM", "KEPT BY"], &rows))?;
    Ok(())
}

fn limit_value(limit: &EffectiveLimit) -> Value {
    let some = |text: &str| (!text.is_empty()).then(|| text.to_owned());
    json!({
        "path": limit.path, "key": limit.key, "value": limit.value, "from": some(&limit.from),
        "until": limit.until.map(clock), "otherwise": some(&limit.otherwise),
        "not_enforced": some(&limit.not_enforced), "enforced_by": limit.enforced_by,
    })
}

fn row(limit: &EffectiveLimit) -> Vec<String> {
    let from = match (limit.from.as_str(), limit.until) {
        ("", _) if limit.value == "none" => "-".to_owned(),
        ("", _) => "default".to_owned(),
        (from, None) => from.to_owned(),
        (from, Some(until)) => format!("{from}, set until {} (else {})", clock(until), limit.otherwise),
    };
    let kept = match limit.not_enforced.as_str() {
        "" => limit.enforced_by.clone(),
        why => format!("NOT ENFORCED: {why}"),
    };
    vec![limit.path.clone(), limit.key.clone(), limit.value.clone(), from, kept]
}

/// A moment, in UTC.
pub fn clock(at: prost_types::Timestamp) -> String {
    SystemTime::try_from(at).map_or_else(|_| "?".to_owned(), humantime)
}

/// RFC 3339, to the second.
fn humantime(at: SystemTime) -> String {
    prost_types::Timestamp { nanos: 0, ..at.into() }.to_string()
}
