//! Checks how a function is to be talked to, and knows the program that its runtime's name alone stands for.

use super::{
    reader::Reader,
    types::{Client, FUNCTION_MOUNT, RawFunction, Runtime},
};

/// Longest `handler`, in bytes.
const HANDLER_MAX_BYTES: usize = 1024;

/// What `runtime` says.
pub fn runtime(raw: &RawFunction, r: &Reader<'_>) -> Option<Runtime> {
    const CHOICES: &str = "write \"stream\" for a process that reads frames, \"exec\" for one process per call, or \
                           \"lambda\", \"python3.11\" or \"nodejs22.x\", in any version, for an AWS Lambda handler";
    if raw.runtime.is_none() {
        r.missing("runtime", CHOICES);
    }
    let name = r.text("runtime", raw.runtime.as_ref(), "stream")?;
    let found = Runtime::named(name);
    if found.is_none() {
        r.refuse("runtime", Some(format!("{name:?}")), "not a choice", CHOICES);
    }
    found
}

/// What `handler` says.
pub fn handler(raw: &RawFunction, r: &Reader<'_>, runtime: Option<Runtime>) -> Option<String> {
    const EXAMPLE: &str = "write what Lambda would be told, such as handler = \"app.handler\"";
    let text = r.text("handler", raw.handler.as_ref(), "app.handler");
    match (runtime, text) {
        (Some(Runtime::Lambda(Client::Python(_) | Client::Node(_))), None) if raw.handler.is_none() => {
            r.missing("handler", EXAMPLE);
        }
        (Some(Runtime::Stream | Runtime::Exec), Some(text)) => {
            let what = "only for runtimes with the Lambda Runtime API";
            r.refuse("handler", Some(format!("{text:?}")), what, "remove it, or choose such a runtime");
        }
        (_, Some(text)) => {
            let is_plain = !text.is_empty() && !text.chars().any(|c| c.is_control() || c.is_whitespace());
            let is_whole = matches!(runtime, Some(Runtime::Lambda(Client::Own))) || text.contains('.');
            if !is_plain || !is_whole || text.len() > HANDLER_MAX_BYTES {
                r.refuse("handler", Some(format!("{text:?}")), "not of the form module.function", EXAMPLE);
            }
        }
        (_, None) => {}
    }
    text.map(str::to_owned)
}

/// The program that a runtime's name stands for, where nobody wrote a command.
pub fn default_command(runtime: Runtime, handler: &str) -> Option<Vec<String>> {
    match runtime {
        Runtime::Stream | Runtime::Exec => None,
        Runtime::Lambda(Client::Own) => Some(vec![format!("{FUNCTION_MOUNT}/bootstrap")]),
        Runtime::Lambda(Client::Python(minor)) => {
            Some(vec![format!("/usr/bin/python3.{minor}"), "-m".into(), "awslambdaric".into(), handler.into()])
        }
        Runtime::Lambda(Client::Node(_)) => {
            let client = format!("{FUNCTION_MOUNT}/node_modules/aws-lambda-ric/bin/index.mjs");
            Some(vec!["/usr/bin/node".into(), client, handler.into()])
        }
    }
}

/// Variables that the Lambda Runtime API's clients are given, and nobody may set: their values are what the worker is.
pub const RESERVED: [&str; 12] = [
    "AWS_LAMBDA_RUNTIME_API",
    "AWS_LAMBDA_FUNCTION_NAME",
    "AWS_LAMBDA_FUNCTION_VERSION",
    "AWS_LAMBDA_FUNCTION_MEMORY_SIZE",
    "AWS_LAMBDA_LOG_GROUP_NAME",
    "AWS_LAMBDA_LOG_STREAM_NAME",
    "AWS_LAMBDA_INITIALIZATION_TYPE",
    // Any value makes the clients fork workers of their own that ask for calls all at once.
    "AWS_LAMBDA_MAX_CONCURRENCY",
    "_HANDLER",
    "LAMBDA_TASK_ROOT",
    "_LAMBDA_TELEMETRY_LOG_FD",
    "AWS_EXECUTION_ENV",
];
