//! The floor must measure what it says: every call answered, by as many children as asked for, and nothing left behind.
#![forbid(unsafe_code)]

use std::{
    env, fs,
    io::{BufRead as _, BufReader},
    path::{Path, PathBuf},
    process::{self, Child, Command, Output, Stdio},
};

const PROGRAM: &str = env!("CARGO_BIN_EXE_warm-floor");

fn socket(name: &str) -> PathBuf {
    env::temp_dir().join(format!("warm-floor-{}-{name}.sock", process::id()))
}

fn drive(arguments: &[&str], path_option: &str, path: &Path) -> Output {
    Command::new(PROGRAM).args(arguments).arg(path_option).arg(path).output().expect("run warm-floor")
}

fn report(output: &Output) -> serde_json::Value {
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    serde_json::from_slice(&output.stdout).expect("one line of JSON")
}

fn samples(report: &serde_json::Value) -> Vec<u64> {
    report["samples"].as_array().expect("samples").iter().map(|one| one.as_u64().expect("nanoseconds")).collect()
}

/// A server in its own role, ready, ended by closing its stdin.
fn serve(arguments: &[&str], path: &Path) -> Child {
    let mut server = Command::new(PROGRAM)
        .arg("server")
        .args(arguments)
        .arg("--socket")
        .arg(path)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .expect("start the server");
    let mut said = String::new();
    BufReader::new(server.stdout.take().expect("piped")).read_line(&mut said).expect("hear from the server");
    assert_eq!(said, "ready\n");
    server
}

fn children_of(process: u32) -> usize {
    fs::read_dir("/proc")
        .expect("read /proc")
        .filter_map(|entry| fs::read_to_string(entry.ok()?.path().join("stat")).ok())
        // pid (comm) state ppid
        .filter(|stat| {
            stat.rsplit_once(") ").and_then(|(_, rest)| rest.split(' ').nth(1)) == Some(&process.to_string())
        })
        .count()
}

#[test]
fn every_call_gives_one_sample_in_both_modes() {
    for (mode, name) in [("echo", "warm-floor-echo"), ("pipe", "warm-floor-pipe")] {
        let path = socket(mode);
        let output = drive(&["--mode", mode, "--in-flight", "3", "--calls", "50", "--warm-up", "0"], "--socket", &path);
        let report = report(&output);
        assert_eq!(report["name"], name);
        assert_eq!(report["unit"], "ns");
        assert_eq!(report["in_flight"], 3);
        let samples = samples(&report);
        assert_eq!(samples.len(), 50);
        assert!(samples.iter().all(|&sample| sample > 1_000), "no call takes less than a microsecond: {samples:?}");
        assert!(!path.exists(), "the socket stays behind");
    }
}

#[test]
fn large_payload_comes_back_whole_through_the_pipe() {
    let payload = (6 << 20).to_string();
    let output = drive(&["--payload", &payload, "--calls", "2", "--warm-up", "0"], "--socket", &socket("large"));
    assert_eq!(samples(&report(&output)).len(), 2);
}

#[test]
fn call_over_the_number_of_children_fails_the_run_and_is_not_measured() {
    let path = socket("over");
    let mut server = serve(&["--mode", "pipe", "--children", "1"], &path);
    let against = ["--tenant", "acme", "--function", "echo", "--sub-tenant", "s", "--in-flight", "1", "--calls", "20"];
    // It must first succeed with as many as there are.
    assert_eq!(samples(&report(&drive(&against, "--against", &path))).len(), 20);

    let over = ["--tenant", "acme", "--function", "echo", "--in-flight", "64", "--calls", "5000"];
    let output = drive(&over, "--against", &path);
    assert_eq!(output.status.code(), Some(1));
    assert!(output.stdout.is_empty());
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(said.contains("more calls in flight than children"), "{said}");

    drop(server.stdin.take());
    assert!(server.wait().expect("wait").success());
    fs::remove_file(&path).expect("the socket of a server we ran ourselves");
}

#[test]
fn server_has_the_children_asked_for_and_takes_them_along() {
    let path = socket("children");
    let mut server = serve(&["--mode", "pipe", "--children", "5"], &path);
    assert_eq!(children_of(server.id()), 5);
    drop(server.stdin.take());
    // It waits for its children before it ends.
    assert!(server.wait().expect("wait").success());
    assert_eq!(children_of(server.id()), 0);
    fs::remove_file(&path).expect("the socket of a server we ran ourselves");
}

#[test]
fn file_that_is_no_socket_is_never_removed() {
    let path = socket("file");
    fs::write(&path, "precious").expect("write");
    let output = drive(&["--mode", "echo", "--calls", "1"], "--socket", &path);
    assert_eq!(output.status.code(), Some(1));
    assert_eq!(fs::read_to_string(&path).expect("read"), "precious");
    fs::remove_file(&path).expect("remove");
}

/// A client in a few lines: two connections, as some have; the second answer is sent in chunks.
const CLIENT: &str = r#"
import http.client, os
calls, answers = (http.client.HTTPConnection(os.environ["AWS_LAMBDA_RUNTIME_API"]) for _ in range(2))
while True:
    calls.request("GET", "/2018-06-01/runtime/invocation/next")
    call = calls.getresponse()
    event, identity = call.read(), call.headers["Lambda-Runtime-Aws-Request-Id"]
    body = iter([event]) if int(identity) % 2 else event
    answers.request("POST", f"/2018-06-01/runtime/invocation/{identity}/response", body, encode_chunked=bool(int(identity) % 2),
                    headers={"Transfer-Encoding": "chunked"} if int(identity) % 2 else {})
    answers.getresponse().read()
"#;

#[test]
fn payload_can_be_a_text_and_comes_back_as_it_was() {
    let text = r#"{"value": "é"}"#;
    let output = drive(&["--text", text, "--calls", "5", "--warm-up", "0"], "--socket", &socket("text"));
    let report = report(&output);
    assert_eq!(report["payload_bytes"], text.len());
    assert_eq!(samples(&report).len(), 5);
}

fn runtime_api(calls: &str, script: &str) -> Output {
    let arguments = ["runtime-api", "--event", "{}", "--warm-up", "3", "--calls", calls, "--", "python3", "-c", script];
    Command::new(PROGRAM).args(arguments).output().expect("run warm-floor")
}

#[test]
fn runtime_api_times_each_turn_of_a_client() {
    let report = report(&runtime_api("7", CLIENT));
    let samples = samples(&report);
    assert_eq!(samples.len(), 7);
    assert_eq!(report["name"], "runtime-api");
    // The client's start is in neither, or a client that is slow to start would look slow to answer.
    let seconds = samples.iter().sum::<u64>() as f64 / 1e9;
    let rate = report["calls_per_second"].as_f64().expect("a rate");
    assert!((rate * seconds - 7.0).abs() < 1e-3, "{rate} calls a second over {seconds} s");
}

#[test]
fn runtime_api_of_no_calls_is_refused() {
    let output = runtime_api("0", CLIENT);
    assert!(!output.status.success() && output.stdout.is_empty());
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(said.contains("--calls"), "{said}");
}

#[test]
fn client_that_does_not_answer_or_ends_early_ends_the_run() {
    let skips = CLIENT.replace("answers.request", "continue; answers.request");
    for (script, what) in [(skips.as_str(), "before the last was answered"), ("pass", "ended early")] {
        let output = runtime_api("7", script);
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(!output.status.success() && said.contains(what), "{said}");
    }
}
