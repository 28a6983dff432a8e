//! How a function is talked to, and the program that its runtime's name alone stands for.

use std::fmt;

use serde::{Serialize, Serializer};
use sublet_proto::link::sandbox::Protocol;

use super::{program::FUNCTION_MOUNT, raw::RawFunction, reader::Reader};

/// Longest `handler`, in bytes.
const HANDLER_MAX_BYTES: usize = 1024;

/// A function's runtime.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Runtime {
    /// A process that reads frames.
    Stream,
    /// One process per call.
    Exec,
    /// A process that asks for its calls over the Lambda Runtime API.
    Lambda(Client),
}

/// Whose client of the Lambda Runtime API a function runs with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Client {
    /// Its own: a program named bootstrap, or whatever `command` says.
    Own,
    /// Python's `awslambdaric`, with this minor version of Python 3.
    Python(u8),
    /// Node's `aws-lambda-ric`, with this major version of Node.
    Node(u8),
}

impl Runtime {
    /// As the sandbox is told.
    pub const fn protocol(self) -> Protocol {
        match self {
            Self::Stream => Protocol::Stream,
            Self::Exec => Protocol::Exec,
            Self::Lambda(_) => Protocol::Lambda,
        }
    }

    /// From its name in a configuration; none when it is none.
    fn named(name: &str) -> Option<Self> {
        let number = |text: &str| text.parse().ok().filter(|number: &u8| number.to_string() == text);
        match name {
            "stream" => Some(Self::Stream),
            "exec" => Some(Self::Exec),
            "lambda" => Some(Self::Lambda(Client::Own)),
            _ => {
                let python = name.strip_prefix("python3.").and_then(number).map(Client::Python);
                let node = || name.strip_prefix("nodejs")?.strip_suffix(".x").and_then(number).map(Client::Node);
                python.or_else(node).map(Self::Lambda)
            }
        }
    }
}

impl fmt::Display for Runtime {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Stream => f.write_str("stream"),
            Self::Exec => f.write_str("exec"),
            Self::Lambda(Client::Own) => f.write_str("lambda"),
            Self::Lambda(Client::Python(minor)) => write!(f, "python3.{minor}"),
            Self::Lambda(Client::Node(major)) => write!(f, "nodejs{major}.x"),
        }
    }
}

impl Serialize for Runtime {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_read_as_they_are_shown_and_nothing_else_is() {
        for name in ["stream", "exec", "lambda", "python3.11", "python3.8", "nodejs22.x"] {
            assert_eq!(Runtime::named(name).map(|runtime| runtime.to_string()).as_deref(), Some(name));
        }
        for wrong in
            ["", "Lambda", "python3", "python3.", "python3.x", "python3.011", "python2.7", "nodejs22", "nodejs.x"]
        {
            assert_eq!(Runtime::named(wrong), None, "{wrong}");
        }
    }
}
