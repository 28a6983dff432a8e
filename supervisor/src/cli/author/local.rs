//! `sublet run-local`: calls in the very cage, with a supervisor of its own that is gone afterwards.

use std::{cell::Cell, io::Read as _, path::PathBuf, time::Duration};

use clap::Args;
use sublet_proto::v1::{InvokeRequest, LogRecord, LogsRequest};

use super::project::{Project, TENANT};
use crate::{
    cli::{
        Failed, client,
        invoke::{self, Show, ShownLog},
        output,
        stage::{Interrupts, Stage},
    },
    doctor::Report,
    printable::{self, PREFIX},
};

/// No frame is larger, so that nothing larger is read.
const PAYLOAD_MAX_BYTES: u64 = 64 * 1024 * 1024;

/// What to call, and with what.
#[derive(Debug, Args)]
pub struct RunLocalArgs {
    /// The function's directory: with a sublet.toml, as `sublet new` makes it, or a Lambda function's with an executable
    /// bootstrap.
    dir: PathBuf,
    /// For which customer; required unless the function is shared.
    #[arg(long, short)]
    sub_tenant: Option<String>,
    /// The payload itself, @FILE for what is in a file, or - for stdin; without it, an empty one.
    #[arg(long, short)]
    payload: Option<String>,
    /// From acceptance to answer at the longest, for example 500ms.
    #[arg(long, value_parser = crate::cli::duration)]
    timeout: Option<Duration>,
    /// Print the answer in chunks, as the function makes them.
    #[arg(long)]
    stream: bool,
    /// Call so many times, one after another: the first is cold, the others find the worker warm.
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=10_000))]
    times: u32,
    /// A setting over those of sublet.toml, or instead of it; may be given several times.
    #[arg(long, value_name = "KEY=VALUE")]
    set: Vec<String>,
}

/// Calls and prints: answers to stdout, what the function logs and what was used to stderr.
pub fn run(args: RunLocalArgs, json: bool) -> Result<(), Failed> {
    let payload = payload(args.payload.as_deref())?;
    let project = Project::read(&args.dir, &args.set)?;
    let report = Report::of_host();
    // What it lacks of the hard requirements is told as `serve` would tell it.
    report
        .refuse(&report.degraded().collect())
        .map_err(|unfit| Failed::new(format!("no function can be run here:\n{unfit}")))?;
    let degraded: Vec<String> = report.degraded().map(|degradation| degradation.to_string()).collect();
    if !degraded.is_empty() {
        output::tell(format_args!("{PREFIX}not enforced on this host: {}", degraded.join(", ")));
    }
    let request = InvokeRequest {
        tenant: TENANT.into(),
        function: project.name.clone(),
        sub_tenant: args.sub_tenant.unwrap_or_default(),
        payload: payload.into(),
        timeout: args.timeout.map(prost_types::Duration::try_from).transpose()?,
        want_log: json,
    };
    let show = Show { json, stream: args.stream, log: ShownLog::Never, receipt: false };
    client::block_on(async {
        let mut interrupts = Interrupts::listen()?;
        let building = Stage::build("run-local", &report, |host| {
            project.check(&host.text)?;
            project.configuration()
        });
        let stage = interrupts.or(building).await?;
        let called = interrupts.or(calls(&stage, request, show, args.times)).await;
        // Whatever has become of the call, first all of it has to go.
        let left = stage.strike().await?.1;
        called?;
        if left.is_empty() { Ok(()) } else { Err(Failed::new(format!("left behind: {}", left.join(", ")))) }
    })
}

async fn calls(stage: &Stage, request: InvokeRequest, show: Show, times: u32) -> Result<(), Failed> {
    let socket = stage.socket().display().to_string();
    let lines = Lines::default();
    let calling = async {
        for _ in 0..times {
            let called = invoke::call(&socket, request.clone(), show).await;
            // Its lines are there before its answer is, even if they have not reached us.
            lines.catch_up(stage).await?;
            let receipt = called?;
            if !show.json {
                output::tell(format_args!("{PREFIX}{}", output::receipt_line(&receipt)));
            }
        }
        Ok(())
    };
    tokio::select! {
        called = calling => called,
        failed = lines.follow(stage) => failed,
    }
}

/// Lines of the function: the number of the next one to print.
#[derive(Debug, Default)]
struct Lines(Cell<u64>);

impl Lines {
    /// Prints them as they come. Only returns when it cannot.
    async fn follow(&self, stage: &Stage) -> Result<(), Failed> {
        self.print_all(stage, true).await?;
        std::future::pending().await
    }

    /// Prints all there are.
    async fn catch_up(&self, stage: &Stage) -> Result<(), Failed> {
        self.print_all(stage, false).await
    }

    async fn print_all(&self, stage: &Stage, follow: bool) -> Result<(), Failed> {
        let request = LogsRequest { follow, ..LogsRequest::default() };
        let answer = client::admin(&stage.admin_socket()).await?.logs(request).await;
        let mut batches = answer.map_err(|status| client::refused(&status))?.into_inner();
        while let Some(batch) = batches.message().await.map_err(|status| client::refused(&status))? {
            for record in batch.records {
                // What has been printed has been: the other of the two may be ahead.
                if record.number >= self.0.get() {
                    self.0.set(record.number + 1);
                    output::tell(shown(&record));
                }
            }
        }
        Ok(())
    }
}

/// A record of the log beside our own lines, which begin with [`PREFIX`]: each line of it is marked.
fn shown(record: &LogRecord) -> String {
    match record.dropped_lines {
        0 => {
            let platform: &[u32] = if record.platform { &[0] } else { &[] };
            match record.message.as_str() {
                "" => printable::THEIRS.trim_end().to_owned(),
                message => printable::block(message.as_bytes(), platform, ""),
            }
        }
        lines => format!("{PREFIX}{lines} lines were dropped: faster than log_rate"),
    }
}

fn payload(text: Option<&str>) -> Result<Vec<u8>, Failed> {
    let mut payload = Vec::new();
    let (what, read) = match text {
        None => return Ok(payload),
        Some("-") => ("stdin".to_owned(), std::io::stdin().take(PAYLOAD_MAX_BYTES + 1).read_to_end(&mut payload)),
        Some(text) => match text.strip_prefix('@') {
            None => return Ok(text.as_bytes().to_vec()),
            Some(path) => {
                let file = std::fs::File::open(path);
                (path.to_owned(), file.and_then(|file| file.take(PAYLOAD_MAX_BYTES + 1).read_to_end(&mut payload)))
            }
        },
    };
    read.map_err(|error| Failed::new(format!("read the payload from {what}: {error}")))?;
    if payload.len() as u64 > PAYLOAD_MAX_BYTES {
        return Err(Failed::new(format!(
            "the payload in {what} is over {PAYLOAD_MAX_BYTES} bytes, the most there can be"
        )));
    }
    Ok(payload)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_of_the_function_are_marked_and_ours_are_not() {
        let of = |message: &str, platform| LogRecord { message: message.into(), platform, ..LogRecord::default() };
        assert_eq!(shown(&of("sublet: forged\nx\u{202e}", false)), "| sublet: forged\n| x\\u{202e}");
        assert_eq!(shown(&of("REPORT", false)), "| REPORT");
        assert_eq!(shown(&of("REPORT", true)), "# REPORT");
        assert_eq!(shown(&of("", false)), "|");
        let dropped = LogRecord { dropped_lines: 3, ..LogRecord::default() };
        assert!(shown(&dropped).starts_with(PREFIX));
    }
}
