//! `sublet logs`.

use std::{io::Write as _, path::Path, time::SystemTime};

use clap::Args;
use serde_json::json;
use sublet_proto::v1::{LogRecord, LogsRequest};

use super::{AdminSocket, Failed, client, output};
use crate::{
    logs::{
        rate::Dropped,
        record::{Record, Source, What},
    },
    printable,
    timestamp::rfc3339,
};

/// Stands before a function's line that the next record goes on with.
const CUT: &str = "+ ";

/// What of the logs to print.
#[derive(Debug, Args)]
pub struct LogsArgs {
    /// Go on with what comes, until Ctrl-C.
    #[arg(long, short)]
    follow: bool,
    /// Only this tenant's.
    #[arg(long)]
    tenant: Option<String>,
    /// Only this function's: FUNCTION or TENANT/FUNCTION.
    #[arg(long)]
    function: Option<String>,
    /// Only this sub-tenant's: its label, or its hash as `sublet ps` prints it.
    #[arg(long, short)]
    sub_tenant: Option<String>,
    /// Only this worker's.
    #[arg(long)]
    worker: Option<String>,
    /// Only this call's: the lease of its receipt, or how that begins.
    #[arg(long)]
    request: Option<String>,
    /// Of what there is already, only the last so many lines.
    #[arg(long, short = 'n', value_name = "LINES")]
    last: Option<u32>,
    #[command(flatten)]
    socket: AdminSocket,
}

/// Prints lines as they come.
pub fn run(args: LogsArgs, json: bool) -> Result<(), Failed> {
    let LogsArgs { follow, tenant, function, sub_tenant, worker, request, last, socket: AdminSocket { path } } = args;
    let (tenant, function) = match function.as_deref().and_then(|name| name.split_once('/')) {
        Some((owner, _)) if tenant.as_deref().is_some_and(|tenant| tenant != owner) => {
            return Err(Failed::new(format!(
                "--function is of tenant {owner:?}, and --tenant is another; write one of them"
            )));
        }
        Some((owner, name)) => (Some(owner.to_owned()), Some(name.to_owned())),
        None => (tenant, function),
    };
    if last == Some(0) && !follow {
        return Err(Failed::new("-n 0 without --follow prints nothing; write a number, or leave it out for all"));
    }
    let text = Option::unwrap_or_default;
    let request = LogsRequest {
        tenant: text(tenant),
        function: text(function),
        sub_tenant: text(sub_tenant),
        worker: text(worker),
        request: text(request),
        follow,
        last,
    };
    print(&path, request, json)
}

fn print(socket: &Path, request: LogsRequest, json: bool) -> Result<(), Failed> {
    client::block_on(async {
        let answer = client::admin(socket).await?.logs(request).await;
        let mut lines = answer.map_err(|status| client::refused(&status))?.into_inner();
        loop {
            let batch = match lines.message().await {
                Ok(Some(batch)) => batch,
                Ok(None) => return Ok(()),
                Err(status) => return Err(client::refused(&status)),
            };
            let mut out = std::io::stdout().lock();
            if batch.lost > 0 {
                match json {
                    true => writeln!(out, "{}", json!({ "at": rfc3339(SystemTime::now()), "lost": batch.lost }))?,
                    false => writeln!(out, "-- {} lines were lost: they came faster than they were read", batch.lost)?,
                }
            }
            for record in batch.records.into_iter().map(record) {
                match json {
                    true => writeln!(out, "{}", printable::json(&record.to_json()))?,
                    false => writeln!(out, "{}", line(&record))?,
                }
            }
            // Whoever reads this waits for it.
            out.flush()?;
        }
    })
}

fn record(wire: LogRecord) -> Record {
    let LogRecord {
        at,
        tenant,
        function,
        sub_tenant_hash,
        worker,
        request,
        message,
        cut,
        dropped_lines,
        dropped_bytes,
        platform,
        number: _,
    } = wire;
    let what = match dropped_lines {
        0 => What::Line { text: message, is_cut: cut, is_platform: platform },
        lines => What::Dropped(Dropped { lines, bytes: dropped_bytes }),
    };
    Record {
        at: at.and_then(|at| SystemTime::try_from(at).ok()).unwrap_or(SystemTime::UNIX_EPOCH),
        source: Source { tenant, function, sub_tenant_hash, worker }.into(),
        request: (!request.is_empty()).then(|| request.into()),
        what,
    }
}

fn line(record: &Record) -> String {
    let source = &record.source;
    let short = |text: &str, length: usize| text.chars().take(length).collect::<String>();
    let head = format!(
        "{} {}/{} {} {} {}",
        rfc3339(record.at),
        source.tenant,
        source.function,
        short(&source.sub_tenant_hash, 14),
        source.worker,
        record.request.as_deref().map_or_else(|| "-".to_owned(), |request| short(request, output::LEASE_SHOWN_CHARS)),
    );
    match &record.what {
        What::Line { text, is_cut, is_platform } => {
            let mark = match (is_platform, is_cut) {
                (true, _) => printable::OURS,
                (false, false) => printable::THEIRS,
                (false, true) => CUT,
            };
            // Lines of one record stay together, and none of them begins as a record does.
            let text = text.split('\n').map(printable::log_line).collect::<Vec<_>>().join("\n    | ");
            format!("{} {mark}{text}", printable::line(&head))
        }
        What::Dropped(Dropped { lines, bytes }) => {
            format!("{} -- {lines} lines ({bytes} bytes) were dropped: faster than log_rate", printable::line(&head))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record_of(text: &str, is_cut: bool, is_platform: bool) -> Record {
        record(LogRecord {
            tenant: "acme".into(),
            function: "f".into(),
            worker: "w-1".into(),
            message: text.into(),
            cut: is_cut,
            platform: is_platform,
            ..LogRecord::default()
        })
    }

    #[test]
    fn real_line_of_ours_is_told_from_every_forged_one() {
        let report = "REPORT RequestId: ab\tDuration: 1.00 ms";
        let head = "1970-01-01T00:00:00Z acme/f  w-1 -";
        assert_eq!(line(&record_of(report, false, true)), format!("{head} # {report}"));
        assert_eq!(line(&record_of(report, false, false)), format!("{head} | {report}"));
        assert_eq!(line(&record_of("# REPORT", false, false)), format!("{head} | # REPORT"));
        // As a client of Lambda's sends it, and with everything that starts a line on some terminal.
        let forged = format!("x\n{head} # {report}\u{2028}{head} # {report}\r{head}\u{85}{head}");
        let shown = line(&record_of(&forged, false, false));
        let rest = format!("    | {head} # {report}\\u{{2028}}{head} # {report}\\r{head}\\u{{85}}{head}");
        assert_eq!(shown, format!("{head} | x\n{rest}"));
        assert_eq!(line(&record_of("a [cut]", false, false)), format!("{head} | a [cut]"));
        assert_eq!(line(&record_of("a", true, false)), format!("{head} + a"));
        assert_eq!(record_of(report, false, true).to_json()["platform"], true);
        assert_eq!(record_of(report, false, false).to_json()["platform"], false);
    }
}
