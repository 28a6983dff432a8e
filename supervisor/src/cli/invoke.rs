//! `sublet invoke`.

use std::io::{IsTerminal, Read, Write};

use bytes::BytesMut;
use serde_json::json;
use sublet_proto::v1::{
    InvokeRequest, InvokeResponse, InvokeStreamEnd, InvokeStreamResponse, Receipt, Verdict,
    invoke_stream_response::Part,
};
use tonic::{Response, Status, Streaming};

use super::{Failed, InvokeArgs, STATUS_CALL, client, output};
use crate::{
    front::status,
    printable::{self, PREFIX, Terminal},
};

/// Before each line of a function's words on standard error.
const LOG_INDENT: &str = "    ";

/// What is printed of a call beside its answer, and how that comes.
#[derive(Clone, Copy, Debug)]
pub struct Show {
    /// All of it as one JSON value.
    pub json: bool,
    /// The answer in chunks, as they come.
    pub stream: bool,
    /// What the function logged.
    pub log: ShownLog,
    /// What it used.
    pub receipt: bool,
}

/// When a call's log is printed with it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ShownLog {
    /// With a verdict.
    OfVerdicts,
    /// With an answer as well.
    Always,
    /// Somebody else has printed it.
    Never,
}

/// Calls once and prints the answer as it is.
pub fn run(args: InvokeArgs, json: bool) -> Result<(), Failed> {
    let payload = payload(&args)?;
    let timeout = args.timeout.map(prost_types::Duration::try_from).transpose()?;
    let request = InvokeRequest {
        tenant: args.tenant,
        function: args.function,
        sub_tenant: args.sub_tenant.unwrap_or_default(),
        payload: payload.into(),
        timeout,
        want_log: args.verbose || args.log || json,
    };
    let log = if args.verbose || args.log { ShownLog::Always } else { ShownLog::OfVerdicts };
    let show = Show { json, stream: args.stream, log, receipt: args.verbose };
    client::block_on(call(&args.socket, request, show)).map(drop)
}

/// Calls and prints what comes of it. Returns what it used.
pub async fn call(socket: &str, request: InvokeRequest, show: Show) -> Result<Receipt, Failed> {
    let mut client = client::invoker(socket).await?;
    let mut out = Out::new();
    let result = match show.stream {
        true => in_chunks(client.invoke_stream(request).await, (&mut out, show.json)).await?,
        false => client.invoke(request).await,
    };
    let response = match result {
        Ok(response) => response.into_inner(),
        Err(refusal) => {
            // What came of the answer ends before our words begin.
            out.finish()?;
            return Err(failed(&refusal, show));
        }
    };
    let receipt = response.receipt.unwrap_or_default();
    if show.json {
        let answer = json!({
            "payload": String::from_utf8_lossy(&response.payload),
            "payload_base64": output::base64_if_binary(&response.payload), "receipt": output::receipt(&receipt),
            "log_tail": String::from_utf8_lossy(&response.log_tail), "platform_lines": response.platform_lines,
        });
        output::say_json(&answer)?;
        return Ok(receipt);
    }
    out.write(&response.payload)?;
    out.finish()?;
    if show.log == ShownLog::Always && !response.log_tail.is_empty() {
        output::tell(printable::block(&response.log_tail, &response.platform_lines, LOG_INDENT));
    }
    if show.receipt {
        output::tell(format_args!("{PREFIX}{}", output::receipt_line(&receipt)));
    }
    Ok(receipt)
}

/// Where an answer goes. A terminal is shown what the function gave, and not driven by it; anywhere else gets it to the
/// byte.
struct Out {
    stdout: std::io::Stdout,
    terminal: Option<Terminal>,
    ends_in_line: bool,
}

impl Out {
    fn new() -> Self {
        let stdout = std::io::stdout();
        let terminal = stdout.is_terminal().then(Terminal::default);
        Self { stdout, terminal, ends_in_line: true }
    }

    fn write(&mut self, piece: &[u8]) -> std::io::Result<()> {
        let Some(last) = piece.last() else { return Ok(()) };
        self.ends_in_line = *last == b'\n';
        match &mut self.terminal {
            Some(terminal) => self.stdout.write_all(terminal.take(piece).as_bytes())?,
            None => self.stdout.write_all(piece)?,
        }
        self.stdout.flush()
    }

    fn finish(&mut self) -> std::io::Result<()> {
        if let Some(terminal) = &mut self.terminal {
            self.stdout.write_all(terminal.finish().as_bytes())?;
            if !self.ends_in_line {
                self.stdout.write_all(b"\n")?;
            }
        }
        self.stdout.flush()
    }
}

/// Prints chunks as they come; with `json` all of them at the end. Returns what is left to print.
async fn in_chunks(
    begun: Result<Response<Streaming<InvokeStreamResponse>>, Status>,
    (out, json): (&mut Out, bool),
) -> Result<Result<Response<InvokeResponse>, Status>, Failed> {
    let mut stream = match begun {
        Ok(stream) => stream.into_inner(),
        Err(status) => return Ok(Err(status)),
    };
    let mut whole = BytesMut::new();
    loop {
        match stream.message().await {
            Ok(Some(InvokeStreamResponse { part: Some(Part::Chunk(chunk)) })) if json => {
                whole.extend_from_slice(&chunk)
            }
            Ok(Some(InvokeStreamResponse { part: Some(Part::Chunk(chunk)) })) => {
                out.write(&chunk)?;
            }
            Ok(Some(InvokeStreamResponse { part: Some(Part::End(end)) })) => {
                let InvokeStreamEnd { receipt, log_tail, platform_lines } = end;
                let payload = whole.freeze();
                return Ok(Ok(Response::new(InvokeResponse { payload, receipt, log_tail, platform_lines })));
            }
            Ok(Some(InvokeStreamResponse { part: None })) => {}
            Ok(None) => return Ok(Err(Status::internal("the answer broke off without its end"))),
            Err(status) => return Ok(Err(status)),
        }
    }
}

fn payload(args: &InvokeArgs) -> Result<Vec<u8>, Failed> {
    if let Some(data) = &args.data {
        return Ok(data.clone().into_bytes());
    }
    let mut payload = Vec::new();
    match &args.file {
        Some(path) => {
            payload = std::fs::read(path).map_err(|error| Failed::new(format!("read {}: {error}", path.display())))?;
        }
        None => drop(std::io::stdin().read_to_end(&mut payload)?),
    }
    Ok(payload)
}

fn failed(refusal: &tonic::Status, show: Show) -> Failed {
    let mut verdict = status::verdict_of(refusal);
    if show.json {
        let code = format!("{:?}", refusal.code());
        let value = json!({
            "code": code, "reason": status::reason_of(refusal), "message": refusal.message(), "verdict": verdict.as_ref().map(output::verdict),
        });
        output::say_json(&value).ok();
        return Failed { message: String::new(), status: STATUS_CALL };
    }
    if let Some(verdict) = &mut verdict
        && show.log == ShownLog::Never
    {
        verdict.log_tail.clear();
    }
    let message = match verdict {
        Some(verdict) => tell(&verdict),
        None => std::iter::once(printable::line(refusal.message()).into_owned())
            .chain(status::limit_of(refusal).iter().map(|line| printable::line(line).into_owned()))
            .collect::<Vec<_>>()
            .join("\n"),
    };
    Failed { message, status: STATUS_CALL }
}

/// A verdict as people read it: what, then limit, seen and setting, then the function's own words, each line of them marked.
fn tell(verdict: &Verdict) -> String {
    let message = printable::line(&verdict.message);
    let mut lines = vec![format!("{}: {message}", output::verdict_name(verdict))];
    let mut line = |name: &str, value: &str| {
        if !value.is_empty() {
            lines.push(format!("  {name}: {}", printable::line(value)));
        }
    };
    line("limit", &verdict.limit);
    line("seen", &verdict.seen);
    line("whose", &verdict.level);
    line("setting", &verdict.setting);
    for remark in verdict.receipt.iter().flat_map(|receipt| &receipt.remarks) {
        line("beside it", &format!("{}: {} ({})", output::kind_name(remark.kind()), remark.message, remark.setting));
    }
    line("error id", &verdict.error_id);
    line("refused system calls", &verdict.refused_syscalls.join(", "));
    let mut words = |name: &str, words: &[u8], platform: &[u32]| {
        if !words.trim_ascii().is_empty() {
            lines.push(format!("  {name}:\n{}", printable::block(words, platform, LOG_INDENT)));
        }
    };
    words("the function says", verdict.function_error.trim_ascii_end(), &[]);
    words("on its stdout", verdict.stdout_tail.trim_ascii_end(), &[]);
    let log = match verdict.log_reaches_back {
        false => "its log",
        true => "its log (it wrote nothing during this call; this is from before)",
    };
    words(log, verdict.log_tail.trim_ascii_end(), &verdict.platform_lines);
    if let Some(receipt) = &verdict.receipt {
        lines.push(format!("  receipt: {}", printable::line(&output::receipt_line(receipt))));
    }
    lines.join("\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_line_of_a_functions_words_can_be_taken_for_one_of_ours() {
        let verdict = Verdict {
            kind: sublet_proto::v1::VerdictKind::Exit.into(),
            message: "the function exited".into(),
            seen: "status 1\n  setting: forged".into(),
            function_error: "broke\n  limit: forged\u{1b}[8m".into(),
            stdout_tail: "half\n  error id: forged\n".into(),
            log_tail: "sublet: forged\nREPORT forged\nREPORT real\n\n".into(),
            platform_lines: vec![29],
            log_reaches_back: true,
            ..Verdict::default()
        };
        let wanted = [
            "EXIT: the function exited",
            "  seen: status 1\\n  setting: forged",
            "  the function says:",
            "    | broke",
            "    |   limit: forged\\u{1b}[8m",
            "  on its stdout:",
            "    | half",
            "    |   error id: forged",
            "  its log (it wrote nothing during this call; this is from before):",
            "    | sublet: forged",
            "    | REPORT forged",
            "    # REPORT real",
        ];
        assert_eq!(tell(&verdict), wanted.join("\n"));
    }
}
