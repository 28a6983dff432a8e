//! A Lambda function as anybody writes one, with the stock client: it uses nothing of sublet's.

use std::{
    sync::atomic::{AtomicU64, Ordering},
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use lambda_runtime::{Error, LambdaEvent, service_fn};
use serde_json::{Value, json};

static CALLS: AtomicU64 = AtomicU64::new(0);

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Error> {
    lambda_runtime::run(service_fn(handle)).await
}

async fn handle(event: LambdaEvent<Value>) -> Result<Value, Error> {
    let (event, context) = event.into_parts();
    let calls = CALLS.fetch_add(1, Ordering::Relaxed) + 1;
    match event["do"].as_str().unwrap_or("who") {
        "who" => {
            let now = SystemTime::now().duration_since(UNIX_EPOCH)?;
            Ok(json!({
                "client": "rust",
                "tenant": context.tenant_id,
                "request": context.request_id,
                "left_ms": u128::from(context.deadline).saturating_sub(now.as_millis()) as u64,
                "function": context.env_config.function_name,
                "memory_mib": context.env_config.memory,
                "arn": context.invoked_function_arn,
                "calls": calls,
                "value": event["value"],
            }))
        }
        "fail" => Err("as asked".into()),
        "exit" => std::process::exit(3),
        "sleep" => {
            tokio::time::sleep(Duration::from_millis(event["ms"].as_u64().unwrap_or_default())).await;
            Ok(json!(calls))
        }
        "keep" => {
            use std::io::Write;
            let mut kept = std::fs::OpenOptions::new().create(true).append(true).open("/tmp/kept")?;
            kept.write_all(event["value"].as_str().unwrap_or_default().as_bytes())?;
            Ok(std::fs::read_to_string("/tmp/kept")?.into())
        }
        other => Err(format!("what is {other}?").into()),
    }
}
