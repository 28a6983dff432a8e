//! Functions that people already have: stock clients of the Lambda Runtime API, and a runtime that does what none should.

use std::{env, path::PathBuf, time::Duration};

use serde_json::{Value, json};
use sublet_proto::v1::{InvokeRequest, Receipt, Start, VerdictKind};
use tonic::Code;

use crate::{
    Case, Outcome, case,
    client::{Client, reason, request},
    configs::Place,
    ensure,
    ground::Need,
    supervisor::Supervisor,
};

/// The cases.
pub const CASES: &[Case] = &[
    case("lambda::stock_rust_client_runs_as_it_is", || stock("rust")),
    Case { needs: &[Need::Client("python")], ..case("lambda::stock_python_client_runs_as_it_is", || stock("python")) },
    Case {
        needs: &[Need::Client("node"), Need::Speed],
        ..case("lambda::stock_node_client_runs_as_it_is", || stock("node"))
    },
    Case { needs: &[Need::Client("shell")], ..case("lambda::bootstrap_of_two_curl_commands_runs_as_it_is", shell) },
    Case { needs: &[Need::Client("python")], ..case("lambda::init_errors_are_told_in_the_clients_words", init_error) },
    case("lambda::caller_in_a_row_has_one_worker", in_a_row),
    case("lambda::answers_go_to_their_own_call_or_nowhere", answers),
    case("lambda::floods_of_the_api_cost_nobody_else", floods),
    case("lambda::answers_that_are_none_are_told", wrong_answers),
    case("lambda::starts_that_fail_are_told", wrong_starts),
    case("lambda::payload_that_is_no_json_does_not_reach_the_client", bad_payload),
    case("lambda::payload_that_is_no_utf_8_does_not_reach_the_client", latin),
    case("lambda::long_error_is_cut_and_its_worker_stays", long_error),
];

/// Where the clients have been installed.
pub fn clients() -> PathBuf {
    env::var_os("SUBLET_CLIENTS").map(PathBuf::from).unwrap_or_default()
}

/// The configuration of a function with this client.
pub fn function(name: &str, client: &str, settings: &str) -> String {
    let what = match client {
        "python" => format!("runtime = {:?}\nhandler = \"app.handler\"\nlayout = \"host\"\n", python()),
        "node" => "runtime = \"nodejs20.x\"\nhandler = \"index.handler\"\nlayout = \"host\"\n".to_owned(),
        "rust" => "runtime = \"lambda\"\nlayout = \"static\"\n".to_owned(),
        "hostile" => {
            "runtime = \"lambda\"\nlayout = \"host\"\ncommand = [\"/usr/bin/python3\", \"/function/runtime.py\"]\n\
                      nofile = 2048\n"
                .to_owned()
        }
        _ => "runtime = \"lambda\"\nlayout = \"host\"\n".to_owned(),
    };
    let dir = clients().join(client);
    let given = |key: &str| settings.lines().any(|line| line.starts_with(key));
    let limits =
        [("memory_max", "\"256MiB\""), ("timeout", "\"60s\""), ("start_timeout", "\"60s\""), ("cells_max", "0")];
    let limits: String =
        limits.iter().filter(|(key, _)| !given(key)).map(|(key, value)| format!("{key} = {value}\n")).collect();
    format!("[tenant.acme.function.{name}]\ndir = {:?}\n{what}{limits}{settings}\n", dir.display().to_string())
}

/// The runtime's name for the host's own Python.
fn python() -> String {
    let found = std::fs::read_link("/usr/bin/python3").unwrap_or_default();
    found.file_name().unwrap_or_default().to_string_lossy().into_owned()
}

fn start(functions: &[String]) -> Result<(Supervisor, Client), String> {
    let place = Place::new()?;
    let text = format!("{}[tenant.acme.sub_tenant]\n{}", place.host(""), functions.concat());
    let supervisor = Supervisor::start(place, &text)?;
    let client = Client::new(&supervisor)?;
    Ok((supervisor, client))
}

fn ask(client: &mut Client, function: &str, sub_tenant: &str, event: &Value) -> Result<(Value, Receipt), String> {
    let (answer, receipt) = client.ask(function, sub_tenant, &event.to_string())?;
    Ok((serde_json::from_str(&answer).map_err(|error| format!("{answer:?}: {error}"))?, receipt))
}

fn stock(name: &str) -> Outcome {
    let (supervisor, mut client) = start(&[function("f", name, "timeout = \"60s\"")])?;
    let (first, receipt) = ask(&mut client, "f", "s1", &json!({"value": "é"}))?;
    ensure!(receipt.start() == Start::Cold, "{receipt:?}");
    let is_right = |answer: &Value, tenant: &str| {
        answer["client"] == name
            && answer["tenant"] == tenant
            && answer["function"] == "f"
            && answer["memory_mib"] == 256
            && answer["arn"] == "arn:aws:lambda:local:000000000000:function:f"
            && answer["left_ms"].as_i64().is_some_and(|left| 0 < left && left <= 60_000)
    };
    ensure!(is_right(&first, "s1") && first["calls"] == 1 && first["value"] == "é", "{first}");
    // The client's request id is the lease of the receipt.
    let hex = first["request"].as_str().unwrap_or_default().replace('-', "");
    ensure!(hex == receipt.lease, "{first} {receipt:?}");

    let (second, warm) = ask(&mut client, "f", "s1", &json!({}))?;
    ensure!(warm.start() == Start::Warm && warm.worker == receipt.worker && second["calls"] == 2, "{second} {warm:?}");
    ensure!(second["request"] != first["request"], "{second}");
    let (other, cold) = ask(&mut client, "f", "s2", &json!({}))?;
    ensure!(is_right(&other, "s2") && other["calls"] == 1 && cold.worker != receipt.worker, "{other} {cold:?}");

    // What the handler says when it fails comes as the client wrote it, and the worker goes on.
    let failed = client.verdict("f", r#"{"do": "fail"}"#, VerdictKind::FunctionError, Code::Unknown)?;
    let said: Value = serde_json::from_slice(&failed.function_error).map_err(|error| error.to_string())?;
    ensure!(said["errorMessage"].as_str().is_some_and(|text| text.contains("as asked")), "{said}");
    ensure!(said["errorType"].as_str().is_some_and(|kind| !kind.is_empty()), "{said}");
    let has_stack = match name {
        "python" => said["stackTrace"][0].as_str().is_some_and(|line| line.contains("app.py")),
        "node" => said["trace"][0] == "TypeError: as asked",
        _ => true,
    };
    ensure!(has_stack, "{said}");
    // An empty payload is an empty event.
    let (answer, _) = client.ask("f", "s1", "")?;
    ensure!(answer.contains("\"calls\":4") || answer.contains("\"calls\": 4"), "{answer}");

    // /tmp lasts as long as the worker, and is its own.
    let keep = |value: &str| json!({"do": "keep", "value": value});
    ask(&mut client, "f", "s1", &keep("one "))?;
    let (kept, _) = ask(&mut client, "f", "s1", &keep("two"))?;
    let (others, _) = ask(&mut client, "f", "s2", &keep("three"))?;
    ensure!(kept == "one two" && others == "three", "{kept} {others}");
    let gone = client.verdict("f", r#"{"do": "exit", "status": 3}"#, VerdictKind::Exit, Code::Unknown)?;
    ensure!(gone.seen.contains('3'), "{gone:?}");
    let (kept, cold) = ask(&mut client, "f", "s1", &keep("anew"))?;
    ensure!(cold.start() == Start::Cold && kept == "anew", "{kept} {cold:?}");
    supervisor.stop()
}

fn shell() -> Outcome {
    // Two programs are started before it asks again: a caller as quick as this would be given a second worker.
    let (supervisor, mut client) = start(&[function("f", "shell", "workers_per_sub_tenant_max = 1")])?;
    for (at, start) in [Start::Cold, Start::Warm].into_iter().enumerate() {
        let (answer, receipt) = ask(&mut client, "f", "s1", &json!({"at": at}))?;
        ensure!(receipt.start() == start, "{receipt:?}");
        ensure!(answer["client"] == "shell" && answer["tenant"] == "s1" && answer["event"]["at"] == at, "{answer}");
    }
    let failed = client.verdict("f", r#"{"do": "fail"}"#, VerdictKind::FunctionError, Code::Unknown)?;
    ensure!(failed.function_error.starts_with(br#"{"errorMessage":"as asked""#), "{failed:?}");
    ensure!(client.ask("f", "s1", "{}")?.1.start() == Start::Warm, "its worker goes on");
    supervisor.stop()
}

fn init_error() -> Outcome {
    let missing = function("f", "python", "").replace("app.handler", "nothere.handler");
    let (supervisor, mut client) = start(&[missing, function("good", "rust", "")])?;
    for _ in 0..3 {
        let failed = client.verdict("f", "{}", VerdictKind::Start, Code::FailedPrecondition)?;
        let said: Value = serde_json::from_slice(&failed.function_error).map_err(|error| error.to_string())?;
        ensure!(said["errorType"] == "Runtime.ImportModuleError", "{said}");
        ensure!(said["errorMessage"].as_str().is_some_and(|text| text.contains("nothere")), "{said}");
        ensure!(failed.setting == "tenant.acme.function.f.handler", "{failed:?}");
    }
    let refused = client.call(request("f", "s1", "{}")).err().ok_or("it is started a fourth time at once")?;
    ensure!(reason(&refused) == "CRASH_BACKOFF", "{refused:?}");
    client.ask("good", "s1", "{}")?;
    supervisor.stop()
}

/// The worker is free when its runtime asks again, a moment after the caller has its answer: a caller that is as quick
/// must not be given a second one.
fn in_a_row() -> Outcome {
    let (supervisor, mut client) = start(&[function("f", "rust", "")])?;
    for at in 1..=200 {
        let (answer, _) = ask(&mut client, "f", "s1", &json!({}))?;
        ensure!(answer["calls"] == at, "{answer}");
    }
    let health = supervisor.admin(&["health"])?;
    ensure!(health["workers_started"] == 1, "{health}");
    supervisor.stop()
}

/// A function that misbehaves and a neighbour that has a worker already.
struct Pair {
    supervisor: Supervisor,
    client: Client,
    quiet_calls: u64,
}

impl Pair {
    fn new(settings: &str) -> Result<Self, String> {
        let (supervisor, client) = start(&[function("f", "hostile", settings)])?;
        let mut pair = Self { supervisor, client, quiet_calls: 0 };
        pair.neighbour()?;
        Ok(pair)
    }

    fn ask(&mut self, event: &Value) -> Result<(Value, Receipt), String> {
        ask(&mut self.client, "f", "s1", event)
    }

    /// The neighbour's worker is the one it was.
    fn neighbour(&mut self) -> Outcome {
        let (answer, _) = ask(&mut self.client, "f", "quiet", &json!({"value": self.quiet_calls}))?;
        self.quiet_calls += 1;
        ensure!(
            answer["calls"] == self.quiet_calls && answer["value"] == self.quiet_calls - 1,
            "the neighbour: {answer}"
        );
        Ok(())
    }

    fn end(mut self) -> Outcome {
        self.neighbour()?;
        self.supervisor.stop()
    }
}

fn answers() -> Outcome {
    let mut pair = Pair::new("")?;
    pair.ask(&json!({"value": 1}))?;
    let (answer, _) = pair.ask(&json!({"do": "previous", "value": 2}))?;
    ensure!(answer["status"] == 400 && answer["value"] == 2, "an answer to the call before: {answer}");
    let (answer, _) = pair.ask(&json!({"do": "twice", "value": 3}))?;
    ensure!(answer["value"] == 3, "{answer}");
    let (answer, warm) = pair.ask(&json!({"do": "two polls", "value": 4}))?;
    ensure!(answer["value"] == 4 && answer["same"] == true && answer["calls"] == 4, "{answer}");
    let (answer, _) = pair.ask(&json!({"do": "announce", "value": 5}))?;
    ensure!(answer["value"] == 5, "an answer that broke off is none: {answer}");
    let described = pair.supervisor.admin(&["describe", &warm.worker])?;
    let log = described["log_tail"].as_str().unwrap_or_default();
    ensure!(log.contains("twice: 202 403\n"), "the second answer is refused: {log:?}");
    pair.neighbour()?;

    // Too late: the worker is ended at the deadline, and what it would have said has nobody to go to.
    let late = request("f", "s1", r#"{"do": "late", "seconds": 3}"#);
    let timeout = prost_types::Duration { seconds: 1, nanos: 0 };
    let late = sublet_proto::v1::InvokeRequest { timeout: Some(timeout), ..late };
    pair.client.verdict_of(late, VerdictKind::Deadline, Code::DeadlineExceeded)?;
    let (answer, cold) = pair.ask(&json!({"value": 6}))?;
    ensure!(answer["value"] == 6 && answer["calls"] == 1 && cold.start() == Start::Cold, "{answer} {cold:?}");
    pair.end()
}

fn floods() -> Outcome {
    let mut pair = Pair::new("timeout = \"20s\"")?;
    let (answer, _) = pair.ask(&json!({"do": "connections", "count": 1000, "value": 1}))?;
    ensure!(answer["value"] == 1 && answer["opened"].as_u64().is_some_and(|opened| opened > 60), "{answer}");
    pair.neighbour()?;
    let (answer, _) = pair.ask(&json!({"do": "headers", "value": 2}))?;
    ensure!(answer["value"] == 2, "{answer}");
    ensure!(answer["status"] == 431 || answer["status"] == 0, "2 MiB of headers: {answer}");
    ensure!(answer["many"] == 431 || answer["many"] == 0, "a thousand headers: {answer}");
    let (answer, _) = pair.ask(&json!({"do": "garbage", "value": 3}))?;
    ensure!(answer["value"] == 3 && answer["path"] == 404, "{answer}");
    ensure!(answer["method"] == 405 || answer["method"] == 404, "{answer}");
    pair.neighbour()?;
    // A gigabyte does not fit: its own writes wait, and its time runs out.
    let flood = request("f", "s1", r#"{"do": "flood", "bytes": 1073741824}"#);
    let timeout = prost_types::Duration { seconds: 4, nanos: 0 };
    let flood = sublet_proto::v1::InvokeRequest { timeout: Some(timeout), ..flood };
    let mut other = Client::new(&pair.supervisor)?;
    let flooding = std::thread::spawn(move || other.verdict_of(flood, VerdictKind::Deadline, Code::DeadlineExceeded));
    for _ in 0..20 {
        pair.neighbour()?;
        pair.client.rest(Duration::from_millis(50));
    }
    flooding.join().map_err(|_| "the call's thread failed")??;
    pair.end()
}

fn wrong_answers() -> Outcome {
    let mut pair = Pair::new("answer_max = \"6MiB\"")?;
    // Bytes are bytes: the API does not look into an answer.
    let answer =
        pair.client.call(request("f", "s1", r#"{"do": "not json"}"#)).map_err(|status| format!("{status:?}"))?;
    ensure!(&answer.payload[..] == b"\xff\xfe{", "{:?}", answer.payload);
    let most = pair.client.call(request("f", "s1", &format!(r#"{{"do": "big", "bytes": {}}}"#, 6 << 20)));
    let most = most.map_err(|status| format!("{status:?}"))?;
    ensure!(most.payload.len() == 6 << 20, "{}", most.payload.len());
    let over = format!(r#"{{"do": "big", "bytes": {}}}"#, (6 << 20) + 1);
    let over = pair.client.verdict("f", &over, VerdictKind::AnswerTooLarge, Code::Unknown)?;
    ensure!(over.setting == "tenant.acme.function.f.answer_max" && over.limit == "6291456 bytes", "{over:?}");
    let (answer, cold) = pair.ask(&json!({"value": 1}))?;
    ensure!(answer["calls"] == 1 && cold.start() == Start::Cold, "its worker is ended: {answer} {cold:?}");
    pair.neighbour()?;
    // It never asks again: the caller has its answer, and the next call another worker.
    let (last, receipt) = pair.client.ask("f", "s1", r#"{"do": "never again"}"#)?;
    ensure!(last == "\"the last\"", "{last}");
    let (answer, cold) = pair.ask(&json!({"value": 2}))?;
    ensure!(answer["calls"] == 1 && cold.worker != receipt.worker, "{answer} {cold:?}");
    pair.end()
}

fn wrong_starts() -> Outcome {
    let how = |name: &str, timeout: &str| {
        function(name, "hostile", &format!("env.HOSTILE = {name:?}\nstart_timeout = {timeout:?}"))
    };
    let good = function("good", "hostile", "");
    let (supervisor, mut client) = start(&[how("die", "60s"), how("sleep", "3s"), how("error", "60s"), good])?;
    ask(&mut client, "good", "s1", &json!({"value": 1}))?;
    let died = client.verdict("die", "{}", VerdictKind::Start, Code::FailedPrecondition)?;
    ensure!(died.message.contains("status 7"), "{died:?}");
    ensure!(died.log_tail.starts_with(b"dying as asked"), "its own words: {died:?}");
    let slept = client.verdict("sleep", "{}", VerdictKind::Start, Code::FailedPrecondition)?;
    ensure!(slept.setting == "tenant.acme.function.sleep.start_timeout" && slept.message.contains("3s"), "{slept:?}");
    let failed = client.verdict("error", "{}", VerdictKind::Start, Code::FailedPrecondition)?;
    let said: Value = serde_json::from_slice(&failed.function_error).map_err(|error| error.to_string())?;
    ensure!(said["errorMessage"] == "no module named app", "{said}");
    let (answer, warm) = ask(&mut client, "good", "s1", &json!({"value": 2}))?;
    ensure!(answer["calls"] == 2 && warm.start() == Start::Warm, "the neighbour: {answer} {warm:?}");
    supervisor.stop()
}

fn bad_payload() -> Outcome {
    let (supervisor, mut client) = start(&[function("f", "rust", "")])?;
    ask(&mut client, "f", "s1", &json!({}))?;
    for payload in ["{", "nil", "{} {}", "\u{1}", "{\"a\": 01}"] {
        let refused = client.verdict("f", payload, VerdictKind::BadPayload, Code::InvalidArgument)?;
        ensure!(refused.setting == "tenant.acme.function.f.runtime", "{refused:?}");
    }
    let (answer, warm) = ask(&mut client, "f", "s1", &json!({}))?;
    ensure!(answer["calls"] == 2 && warm.start() == Start::Warm, "{answer} {warm:?}");
    supervisor.stop()
}

/// Of Latin-1: clients would make something else of it without a word.
fn latin() -> Outcome {
    let mut pair = Pair::new("")?;
    let (_, first) = pair.ask(&json!({"value": 1}))?;
    let payload = b"{\"value\":\"caf\xe9\"}"[..].into();
    let latin = InvokeRequest { payload, ..request("f", "s1", "") };
    let refused = pair.client.verdict_of(latin, VerdictKind::BadPayload, Code::InvalidArgument)?;
    ensure!(refused.message.contains("not UTF-8"), "{refused:?}");
    let (answer, warm) = pair.ask(&json!({"value": 2}))?;
    ensure!(answer["calls"] == 2 && warm.worker == first.worker, "{answer} {warm:?}");
    pair.end()
}

fn long_error() -> Outcome {
    let mut pair = Pair::new("")?;
    let (_, first) = pair.ask(&json!({"value": 1}))?;
    // The launcher's limit and far beyond it, which is what an endless recursion of two functions comes to.
    for bytes in [60_000, 70_000, 3_000_000] {
        let event = json!({"do": "long error", "bytes": bytes}).to_string();
        let failed = pair.client.verdict("f", &event, VerdictKind::FunctionError, Code::Unknown)?;
        let said = String::from_utf8_lossy(&failed.function_error).into_owned();
        ensure!(said.starts_with(r#"{"errorMessage": "the first words xxx"#), "{bytes}: {said:.200}");
    }
    let (answer, warm) = pair.ask(&json!({"value": 2}))?;
    ensure!(answer["calls"] == 5 && warm.worker == first.worker, "{answer} {warm:?}");
    pair.end()
}
