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
use crate::front::status;

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
    let result = match show.stream {
        true => in_chunks(client.invoke_stream(request).await, show.json).await?,
        false => client.invoke(request).await,
    };
    let response = result.map_err(|refusal| failed(&refusal, show))?.into_inner();
    let receipt = response.receipt.unwrap_or_default();
    let mut stdout = std::io::stdout().lock();
    if show.json {
        let answer = json!({
            "payload": String::from_utf8_lossy(&response.payload), "receipt": output::receipt(&receipt),
            "log_tail": String::from_utf8_lossy(&response.log_tail),
        });
        writeln!(stdout, "{answer}")?;
        return Ok(receipt);
    }
    stdout.write_all(&response.payload)?;
    // Elsewhere the answer is what the function gave, to the byte.
    if stdout.is_terminal() && response.payload.last().is_some_and(|last| *last != b'\n') {
        stdout.write_all(b"\n")?;
    }
    stdout.flush()?;
    if show.log == ShownLog::Always {
        let log = output::printable(&String::from_utf8_lossy(&response.log_tail), "\n");
        std::io::stderr().write_all(log.as_bytes())?;
    }
    if show.receipt {
        writeln!(std::io::stderr(), "sublet: {}", output::receipt_line(&receipt))?;
    }
    Ok(receipt)
}

/// Prints chunks as they come; with `json` all of them at the end. Returns what is left to print.
async fn in_chunks(
    begun: Result<Response<Streaming<InvokeStreamResponse>>, Status>,
    json: bool,
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
                let mut stdout = std::io::stdout().lock();
                stdout.write_all(&chunk)?;
                stdout.flush()?;
            }
            Ok(Some(InvokeStreamResponse { part: Some(Part::End(InvokeStreamEnd { receipt, log_tail })) })) => {
                return Ok(Ok(Response::new(InvokeResponse { payload: whole.freeze(), receipt, log_tail })));
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
        println!("{value}");
        return Failed { message: String::new(), status: STATUS_CALL };
    }
    if let Some(verdict) = &mut verdict
        && show.log == ShownLog::Never
    {
        verdict.log_tail.clear();
    }
    let message = match verdict {
        Some(verdict) => tell(&verdict),
        None => std::iter::once(refusal.message().to_owned())
            .chain(status::limit_of(refusal))
            .collect::<Vec<_>>()
            .join("\n"),
    };
    Failed { message, status: STATUS_CALL }
}

/// A verdict as people read it: what, then limit, seen and setting, then the function's own words.
fn tell(verdict: &Verdict) -> String {
    let mut lines = vec![format!("{}: {}", output::verdict_name(verdict), verdict.message)];
    let mut line = |name: &str, value: &str| {
        if !value.is_empty() {
            lines.push(format!("  {name}: {value}"));
        }
    };
    line("limit", &verdict.limit);
    line("seen", &verdict.seen);
    line("whose", &verdict.level);
    line("setting", &verdict.setting);
    line("refused system calls", &verdict.refused_syscalls.join(", "));
    line("the function says", String::from_utf8_lossy(&verdict.function_error).trim_end());
    line("its log", String::from_utf8_lossy(&verdict.log_tail).trim_end());
    if let Some(receipt) = &verdict.receipt {
        line("receipt", &output::receipt_line(receipt));
    }
    lines.join("\n")
}
