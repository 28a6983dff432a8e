//! `sublet invoke`.

use std::io::{Read, Write};

use bytes::BytesMut;
use serde_json::json;
use sublet_proto::v1::{
    InvokeRequest, InvokeResponse, InvokeStreamEnd, InvokeStreamResponse, Verdict, invoke_stream_response::Part,
};
use tonic::{Response, Status, Streaming};

use super::{Failed, InvokeArgs, STATUS_CALL, client, output};
use crate::front::status;

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
    let result = client::block_on(async {
        let mut client = client::invoker(&args.socket).await?;
        if args.stream {
            return in_chunks(client.invoke_stream(request).await, json).await;
        }
        Ok(client.invoke(request).await)
    })?;
    match result {
        Ok(response) => {
            let response = response.into_inner();
            let receipt = response.receipt.unwrap_or_default();
            if json {
                let answer = json!({
                    "payload": String::from_utf8_lossy(&response.payload), "receipt": output::receipt(&receipt),
                    "log_tail": String::from_utf8_lossy(&response.log_tail),
                });
                println!("{answer}");
                return Ok(());
            }
            std::io::stdout().write_all(&response.payload)?;
            if args.verbose || args.log {
                std::io::stderr().write_all(&response.log_tail)?;
            }
            if args.verbose {
                eprintln!("sublet: {}", output::receipt_line(&receipt));
            }
            Ok(())
        }
        Err(refusal) => Err(failed(&refusal, json)),
    }
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

fn failed(refusal: &tonic::Status, json: bool) -> Failed {
    let verdict = status::verdict_of(refusal);
    if json {
        let code = format!("{:?}", refusal.code());
        let value = json!({
            "code": code, "reason": status::reason_of(refusal), "message": refusal.message(), "verdict": verdict.as_ref().map(output::verdict),
        });
        println!("{value}");
        return Failed { message: String::new(), status: STATUS_CALL };
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
