//! Checks what a worker is to run: its command and its environment.

use std::collections::BTreeMap;

use super::{
    bounds,
    reader::Reader,
    runtime,
    scalar::Scalar,
    types::{FUNCTION_MOUNT, Layout, RawFunction, Runtime},
};

/// Prefix of the variables that sublet itself gives a function.
const ENV_PREFIX: &str = "SUBLET_";
/// What a worker with the `host` layout sees, beside its own directory; all but the first are links into it.
pub const HOST_LAYOUT_DIRS: [&str; 6] = ["/usr", "/bin", "/sbin", "/lib", "/lib64", "/lib32"];

/// The words that are right; each wrong one is told.
pub fn command(
    raw: &RawFunction,
    r: &Reader<'_>,
    layout: Option<&Layout>,
    default: Option<Vec<String>>,
) -> Vec<String> {
    let example = "such as command = [\"/function/resize\"]";
    let default = default.map(|words| words.into_iter().map(Scalar::Text).collect());
    let Some(words) = raw.command.as_ref().or(default.as_ref()) else {
        r.missing("command", format!("add the program as the worker sees it and its arguments, {example}"));
        return Vec::new();
    };
    let command = r.words("command", words);
    let Some(Scalar::Text(program)) = words.first() else {
        if words.is_empty() {
            r.refuse("command", Some("[]".to_owned()), "empty", format!("write a program, {example}"));
        }
        return command;
    };
    let refuse = |what: &str, remedy: &str| r.refuse("command", Some(format!("{program:?}")), what, remedy);
    let is_plain = program.starts_with('/') && !program.split('/').any(|part| part == "..") && !program.ends_with('/');
    let is_below =
        |dirs: &[&str]| dirs.iter().any(|dir| program.strip_prefix(dir).is_some_and(|rest| rest.starts_with('/')));
    match layout {
        _ if !is_plain => refuse(
            "the program is not a plain absolute path inside the worker",
            "write where the worker sees it; the function's directory is /function, so \"/function/resize\" for example",
        ),
        Some(Layout::Static) if !is_below(&[FUNCTION_MOUNT]) => {
            refuse(
                "a worker with the static layout sees /function only",
                "move the program there, or choose another layout",
            );
        }
        Some(Layout::Host) if !is_below(&[FUNCTION_MOUNT]) && !is_below(&HOST_LAYOUT_DIRS) => {
            refuse("a worker with the host layout sees /function and /usr only", "move the program to one of them");
        }
        Some(Layout::Host | Layout::Static | Layout::Dir(_)) | None => {}
    }
    command
}

/// The variables that are right; each wrong one is told.
pub fn env(raw: &RawFunction, r: &Reader<'_>, runtime: Option<Runtime>) -> BTreeMap<String, String> {
    let variables = r.below("env");
    let mut env = BTreeMap::new();
    for (key, raw_value) in &raw.env {
        // The value may be a secret and is not shown.
        let refuse = |what: &str, remedy: &str| variables.refuse(key, None, what, remedy);
        let Scalar::Text(value) = raw_value else {
            refuse("the value is not a text", "write it in quotes");
            continue;
        };
        if key.is_empty() {
            refuse("the variable has no name", "give it one");
        } else if key.contains(['=', '\0']) {
            refuse("the name contains '=' or a NUL byte, which end a name", "rename the variable");
        } else if key.starts_with(ENV_PREFIX) {
            refuse("names that begin with SUBLET_ are sublet's own", "rename the variable");
        } else if matches!(runtime, Some(Runtime::Lambda(_))) && runtime::RESERVED.contains(&key.as_str()) {
            refuse("the Lambda Runtime API's clients are told by it what the worker is", "remove it");
        } else if value.contains('\0') {
            refuse("the value contains a NUL byte, which ends a value", "remove it, or encode the value");
        } else {
            env.insert(key.clone(), value.clone());
        }
    }
    env
}

/// The nursery is told both in one message.
pub fn fits_a_message(r: &Reader<'_>, command: &[String], env: &BTreeMap<String, String>) {
    let words: usize = command.iter().map(|word| json_len(word)).sum();
    // The '=' between name and value is the one byte more.
    let variables: usize = env.iter().map(|(key, value)| json_len(key) + 1 + json_len(value)).sum();
    let bytes = words + variables;
    if bytes > bounds::COMMAND_AND_ENV_MAX_BYTES {
        let most = bounds::COMMAND_AND_ENV_MAX_BYTES;
        let what = format!("with env it takes {bytes} bytes as JSON, and the nursery's message has room for {most}");
        r.refuse("command", None, what, "move long values into a file in the function's directory");
    }
}

/// Bytes of a text as JSON, at the most, with quotes and comma.
fn json_len(text: &str) -> usize {
    let escaped = |byte: u8| match byte {
        b'"' | b'\\' | b'\n' | b'\r' | b'\t' => 2,
        0..=0x1f => 6,
        _ => 1,
    };
    text.bytes().map(escaped).sum::<usize>() + 3
}
