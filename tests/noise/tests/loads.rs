//! The loads must measure what they say, or every ratio of the bench is wrong: against a server that stands still, refuses
//! and lies as told.
#![forbid(unsafe_code)]

use std::{
    env,
    path::PathBuf,
    process::{self, Command, Output, Stdio},
    sync::atomic::{AtomicU64, Ordering},
    time::{Duration, Instant},
};

use sublet_proto::v1::{
    InvokeRequest, InvokeResponse, InvokeStreamResponse,
    invoker_server::{Invoker, InvokerServer},
};
use tokio::{net::UnixListener, runtime::Runtime, sync::Mutex};
use tokio_stream::wrappers::UnixListenerStream;
use tonic::{Request, Response, Status, codegen::BoxStream, transport::Server};
use tonic_types::{ErrorDetails, StatusExt as _};

const PROGRAM: &str = env!("CARGO_BIN_EXE_noise");

/// What the server does with the call of this number; with all others it answers at once.
#[derive(Clone, Copy)]
enum Trick {
    None,
    StandStill(u64, Duration),
    RefuseEachSecond,
    AnswerAnothers,
}

struct Stub {
    trick: Trick,
    calls: AtomicU64,
    /// Held while the server stands still: nobody gets past.
    door: Mutex<()>,
}

#[tonic::async_trait]
impl Invoker for Stub {
    type InvokeStreamStream = BoxStream<InvokeStreamResponse>;

    async fn invoke_stream(&self, _: Request<InvokeRequest>) -> Result<Response<Self::InvokeStreamStream>, Status> {
        Err(Status::unimplemented("the loads do not ask for it"))
    }

    async fn invoke(&self, request: Request<InvokeRequest>) -> Result<Response<InvokeResponse>, Status> {
        let at = self.calls.fetch_add(1, Ordering::SeqCst);
        let _passed = self.door.lock().await;
        let mut payload = request.into_inner().payload;
        match self.trick {
            Trick::StandStill(number, time) if at == number => tokio::time::sleep(time).await,
            Trick::RefuseEachSecond if at % 2 == 1 => {
                let mut details = ErrorDetails::new();
                details.set_error_info("MEMORY", "sublet", std::collections::HashMap::new());
                return Err(Status::with_error_details(tonic::Code::ResourceExhausted, "no", details));
            }
            Trick::AnswerAnothers => payload = "echo 999999".into(),
            Trick::None | Trick::StandStill(..) | Trick::RefuseEachSecond => {}
        }
        Ok(Response::new(InvokeResponse { payload, ..InvokeResponse::default() }))
    }
}

/// Runs a load against a server of its own. Its stdin stays open unless `closed`.
fn run(name: &str, trick: Trick, arguments: &[&str], closed: bool) -> Output {
    let path: PathBuf = env::temp_dir().join(format!("noise-{}-{name}.sock", process::id()));
    let runtime = Runtime::new().expect("a runtime");
    let stub = Stub { trick, calls: AtomicU64::new(0), door: Mutex::new(()) };
    let listener = runtime.block_on(async { UnixListener::bind(&path) }).expect("listen");
    let service = Server::builder().add_service(InvokerServer::new(stub));
    let server = runtime.spawn(service.serve_with_incoming(UnixListenerStream::new(listener)));
    let mut child = Command::new(PROGRAM)
        .args(arguments)
        .args(["--sub-tenant", "s", "--socket"])
        .arg(&path)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("run noise");
    let stdin = child.stdin.take().filter(|_| !closed);
    let ended = child.wait_with_output().expect("noise ends");
    drop(stdin);
    server.abort();
    std::fs::remove_file(&path).expect("remove the socket");
    ended
}

/// Its last line; a neighbour says "ready" before.
fn report(output: &Output) -> serde_json::Value {
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let said = String::from_utf8_lossy(&output.stdout);
    serde_json::from_str(said.lines().last().expect("a line")).expect("JSON")
}

fn totals(report: &serde_json::Value) -> Vec<u64> {
    report["samples"].as_array().expect("samples").iter().map(|one| one["total"].as_u64().expect("ns")).collect()
}

#[test]
fn server_that_stands_still_costs_each_call_that_was_due_meanwhile() {
    let quiet = ["quiet", "--rate", "100", "--seconds", "2", "--warm-up", "0"];
    let trick = Trick::StandStill(50, Duration::from_millis(500));
    let report = report(&run("still", trick, &quiet, false));
    assert_eq!(report["asked"], 200);
    assert_eq!(report["ends"]["ANSWERED"], 200);
    let totals = totals(&report);
    assert_eq!(totals.len(), 200);
    // 50 calls were due in the half second, and the first of them waited for all of it. A client that waits for its answer
    // would have seen one.
    let waited = totals.iter().filter(|total| **total > 100_000_000).count();
    assert!((35..=60).contains(&waited), "{waited} calls waited for more than 100 ms");
    assert!(totals.iter().max().is_some_and(|most| *most >= 490_000_000), "{totals:?}");
}

#[test]
fn answers_after_the_window_are_no_throughput() {
    let quiet = ["quiet", "--rate", "50", "--seconds", "1", "--warm-up", "0"];
    let trick = Trick::StandStill(25, Duration::from_millis(1500));
    let report = report(&run("late", trick, &quiet, false));
    assert_eq!(report["ends"]["ANSWERED"], 50, "all came in the end");
    assert_eq!(report["answered_in_time"], 25);
}

#[test]
fn call_without_any_answer_is_counted_and_ends() {
    let quiet = ["quiet", "--rate", "10", "--seconds", "1", "--warm-up", "0"];
    let started = Instant::now();
    let report = report(&run("none", Trick::StandStill(9, Duration::from_secs(60)), &quiet, false));
    assert_eq!(report["ends"]["UNANSWERED"], 1);
    assert_eq!(report["ends"]["ANSWERED"], 9);
    assert_eq!(totals(&report).len(), 9);
    assert!(started.elapsed() < Duration::from_secs(20));
}

#[test]
fn answer_of_another_call_ends_the_run() {
    let quiet = ["quiet", "--rate", "10", "--seconds", "1", "--warm-up", "0"];
    let output = run("other", Trick::AnswerAnothers, &quiet, false);
    assert_eq!(output.status.code(), Some(1));
    assert!(output.stdout.is_empty());
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(said.contains("answered with something else"), "{said}");
}

#[test]
fn neighbour_counts_ends_by_reason_and_stops_by_itself() {
    let neighbour = ["neighbour", "--in-flight", "3", "--payload", "echo a", "--payload", "echo b", "--seconds", "1"];
    let report = report(&run("ends", Trick::RefuseEachSecond, &neighbour, false));
    let (answered, refused) = (report["ends"]["ANSWERED"].as_u64(), report["ends"]["MEMORY"].as_u64());
    let (answered, refused) = (answered.expect("some were answered"), refused.expect("some were refused"));
    assert!(answered > 0 && answered.abs_diff(refused) <= 3, "{answered} and {refused}");
    assert!(report["seconds"].as_f64().is_some_and(|seconds| (1.0..5.0).contains(&seconds)), "{report}");
}

#[test]
fn neighbour_stops_when_its_stdin_closes() {
    let started = Instant::now();
    let neighbour = ["neighbour", "--payload", "echo a", "--seconds", "60"];
    report(&run("stdin", Trick::None, &neighbour, true));
    assert!(started.elapsed() < Duration::from_secs(30));
}

#[test]
fn quiet_one_whose_stdin_closes_prints_no_figures() {
    let quiet = ["quiet", "--rate", "10", "--seconds", "60"];
    let output = run("quiet-stdin", Trick::None, &quiet, true);
    assert_eq!(output.status.code(), Some(1));
    assert!(output.stdout.is_empty());
}
