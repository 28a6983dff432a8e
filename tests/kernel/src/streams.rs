//! Answers in chunks.

use std::{
    collections::BTreeSet,
    fs, thread,
    time::{Duration, Instant},
};

use sublet_proto::v1::{InvokeStreamResponse, Start, VerdictKind, invoke_stream_response::Part};
use tonic::Code;

use crate::{
    Case, Outcome, case,
    client::{Client, Streamed, reason, request, verdict},
    configs::Place,
    ensure,
    ground::Need,
    lambda,
    supervisor::Supervisor,
};

/// The cases.
pub const CASES: &[Case] = &[
    case("streams::chunks_come_as_they_are_made_and_a_deadline_cuts_them", as_made),
    case("streams::answer_is_the_same_whole_or_in_chunks", same),
    case("streams::function_waits_for_a_caller_that_does_not_read", back_pressure),
    case("streams::failure_in_the_middle_is_a_failure_at_the_caller", in_the_middle),
    // Who reads too late gets nothing, and on a slow ground everybody is late.
    Case {
        needs: &[Need::Speed],
        ..case("streams::caller_who_reads_late_gets_what_a_worker_said_before_it_ended", late)
    },
    case("streams::idempotent_function_does_not_begin_its_answer_twice", not_twice),
    case("streams::pieces_are_bounded_together", bounded),
    case("streams::pieces_nobody_asked_for_break_the_protocol", unasked),
    case("streams::what_is_refused_is_refused_as_ever", refused),
    case("streams::many_at_once_are_all_right", many),
    Case { needs: &[Need::Client("node"), Need::Speed], ..case("streams::stock_node_client_streams", node) },
];

/// Functions of both kinds: `stream` and `exec`.
fn both(settings: &str) -> Result<(Supervisor, Client), String> {
    let place = Place::new()?;
    let exec = format!("runtime = \"exec\"\ncommand = [\"/function/probe\", \"exec\"]\n{settings}");
    let text = format!(
        "{}[tenant.acme.sub_tenant]\n{}{}",
        place.host(""),
        place.function("stream", settings),
        place.function("exec", &exec)
    );
    let supervisor = Supervisor::start(place, &text)?;
    let client = Client::new(&supervisor)?;
    Ok((supervisor, client))
}

/// What `pieces` gives, end included.
fn expected(count: usize, bytes: usize) -> Vec<u8> {
    let piece = |at: usize| format!("{at:07} ").into_bytes().into_iter().cycle().take(bytes).collect::<Vec<u8>>();
    (0..count).flat_map(piece).chain(*b"end").collect()
}

fn in_whole(streamed: Streamed) -> Result<Vec<u8>, String> {
    ensure!(streamed.end.is_some() && streamed.status.is_none(), "it broke off: {:?}", streamed.status);
    Ok(streamed.whole())
}

fn as_made() -> Outcome {
    let (supervisor, mut client) = both("timeout = \"3s\"")?;
    for function in ["stream", "exec"] {
        // It never ends by itself: what has come, has come before its end.
        let streamed = client.stream(request(function, "s1", "pieces 3 10 20 hang"));
        let come = streamed.whole();
        ensure!(come == expected(3, 10)[..30], "{function}: {:?}", String::from_utf8_lossy(&come));
        let verdict = streamed.verdict().ok_or("it has no verdict")?;
        ensure!(verdict.kind() == VerdictKind::Deadline && streamed.end.is_none(), "{function}: {verdict:?}");
        let (_, cold) = client.ask(function, "s1", "echo fine")?;
        ensure!(cold.start() == Start::Cold, "{function}: its worker is ended: {cold:?}");
    }
    supervisor.stop()
}

fn same() -> Outcome {
    let (supervisor, mut client) = both("memory_max = \"64MiB\"\ntmp_size = \"16MiB\"")?;
    for function in ["stream", "exec"] {
        let verb = "pieces 20 3000 0 end";
        let (whole, _) = client.ask(function, "s1", verb)?;
        ensure!(whole.as_bytes() == expected(20, 3000), "{function}: {} bytes", whole.len());
        let streamed = client.stream(request(function, "s1", verb));
        let receipt = streamed.end.as_ref().and_then(|end| end.receipt.clone()).unwrap_or_default();
        ensure!(receipt.start() == Start::Warm && receipt.calls == 2, "{function}: {receipt:?}");
        ensure!(in_whole(streamed)? == expected(20, 3000), "{function}: in chunks it is another");
        // An answer in one piece comes in chunks that any client takes.
        let streamed = client.stream(request(function, "s1", "answer 2000000"));
        ensure!(streamed.chunks.iter().all(|chunk| (1..=256 * 1024).contains(&chunk.len())), "a chunk is too large");
        ensure!(in_whole(streamed)? == vec![b'x'; 2_000_000], "{function}: a large answer is another");
        let empty = client.stream(request(function, "s1", "answer 0"));
        ensure!(empty.chunks.is_empty() && empty.end.is_some(), "{function}: {empty:?}");
    }
    let mut asking = request("stream", "s1", "mumble 0");
    asking.want_log = true;
    let logged = client.stream(asking);
    ensure!(logged.end.is_some(), "{logged:?}");
    supervisor.stop()
}

fn memory_kib(supervisor: &Supervisor) -> Result<u64, String> {
    let status = fs::read_to_string(format!("/proc/{}/status", supervisor.pid())).map_err(|error| error.to_string())?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).ok_or("no VmRSS")?;
    line.trim().trim_end_matches(" kB").parse().map_err(|_| format!("{line:?}"))
}

fn back_pressure() -> Outcome {
    let (supervisor, mut client) = both("stream_max = \"1GiB\"")?;
    for function in ["stream", "exec"] {
        let before = memory_kib(&supervisor)?;
        let mut stream = client
            .begin_stream(request(function, "s1", "pieces 10000 60000 0 end"))
            .map_err(|status| format!("{status:?}"))?;
        let first = client.next(&mut stream).map_err(|status| format!("{status:?}"))?;
        ensure!(matches!(first.and_then(|first| first.part), Some(Part::Chunk(_))), "{function}: no first chunk");
        thread::sleep(Duration::from_millis(500));
        let cpu = || -> Result<f64, String> {
            let listed = supervisor.admin(&["ps"])?;
            let all = listed.as_array().cloned().unwrap_or_default();
            let worker = all.iter().find(|worker| worker["function"] == function && worker["state"] == "busy");
            let name = worker.and_then(|worker| worker["worker"].as_str()).ok_or(format!("not busy: {listed}"))?;
            let described = supervisor.admin(&["describe", name])?;
            described["cpu_ms"].as_f64().ok_or_else(|| format!("no CPU time in {described}"))
        };
        let used = cpu()?;
        thread::sleep(Duration::from_millis(300));
        ensure!(cpu()? <= used, "{function}: it goes on writing");
        let grown = memory_kib(&supervisor)?.saturating_sub(before);
        ensure!(grown < 32 * 1024, "{function}: the supervisor keeps {grown} KiB of it");
        // The caller goes away: nobody works for it any more.
        drop(stream);
        let (_, next) = client.ask(function, "s1", "echo fine")?;
        ensure!(next.start() == Start::Cold, "{function}: {next:?}");
    }
    supervisor.stop()
}

fn in_the_middle() -> Outcome {
    let (supervisor, mut client) = both("")?;
    for function in ["stream", "exec"] {
        client.ask(function, "s1", "echo first")?;
        let failed = client.stream(request(function, "s1", "pieces 3 10 0 fail"));
        let verdict = failed.verdict().ok_or_else(|| format!("{function}: {failed:?}"))?;
        let kind = if function == "stream" { VerdictKind::FunctionError } else { VerdictKind::Exit };
        ensure!(verdict.kind() == kind && failed.end.is_none(), "{function}: {verdict:?}");
        ensure!(failed.whole() == expected(3, 10)[..30], "{function}: {failed:?}");
        let (_, next) = client.ask(function, "s1", "echo next")?;
        ensure!(next.start() == Start::Warm, "{function}: its worker goes on: {next:?}");
        let ended = client.stream(request(function, "s1", "pieces 3 10 0 exit"));
        let verdict = ended.verdict().ok_or_else(|| format!("{function}: {ended:?}"))?;
        ensure!(verdict.kind() == VerdictKind::Exit && verdict.seen.contains('5'), "{function}: {verdict:?}");
        ensure!(ended.whole() == expected(3, 10)[..30], "{function}: {ended:?}");
    }
    supervisor.stop()
}

fn late() -> Outcome {
    let (supervisor, _) = both("")?;
    let after = |pause: u64| -> Result<Vec<u8>, String> {
        let (whole, status) = late_by(&supervisor, Duration::from_millis(pause))?;
        ensure!(verdict(&status).is_some_and(|verdict| verdict.kind() == VerdictKind::Exit), "{status:?}");
        ensure!(expected(LATE_PIECES, LATE_BYTES).starts_with(&whole), "not what was said");
        Ok(whole)
    };
    let whole = after(100)?;
    ensure!(whole.len() == LATE_PIECES * LATE_BYTES, "{} bytes of {}", whole.len(), LATE_PIECES * LATE_BYTES);
    // There is an end to it: what was said is not kept for a caller who may never come.
    let cut = after(2000)?;
    ensure!(cut.len() < LATE_PIECES * LATE_BYTES, "all of it is kept for two seconds");
    supervisor.stop()
}

/// More than a caller's window and what HTTP/2 holds back for it, and less than with that stands in the channel: the worker
/// has said it all and has ended, and most of it is still on its way.
const LATE_PIECES: usize = 8;
const LATE_BYTES: usize = 60_000;

/// What a caller gets who reads on a while after its worker has ended.
fn late_by(supervisor: &Supervisor, pause: Duration) -> Result<(Vec<u8>, tonic::Status), String> {
    let mut client = Client::with_window(supervisor, 64 << 10)?;
    let mut stream = client
        .begin_stream(request("stream", "s1", &format!("pieces {LATE_PIECES} {LATE_BYTES} 0 exit")))
        .map_err(|status| format!("{status:?}"))?;
    let mut whole = match client.next(&mut stream) {
        Ok(Some(InvokeStreamResponse { part: Some(Part::Chunk(chunk)) })) => chunk.to_vec(),
        other => return Err(format!("no first piece: {other:?}")),
    };
    let end = Instant::now() + Duration::from_secs(20);
    while !supervisor.admin(&["ps"])?.as_array().is_some_and(Vec::is_empty) {
        ensure!(Instant::now() < end, "its worker does not end");
        thread::sleep(Duration::from_millis(10));
    }
    thread::sleep(pause);
    let status = loop {
        match client.next(&mut stream) {
            Ok(Some(InvokeStreamResponse { part: Some(Part::Chunk(chunk)) })) => whole.extend_from_slice(&chunk),
            Ok(other) => return Err(format!("no failure: {other:?}")),
            Err(status) => break status,
        }
    };
    Ok((whole, status))
}

fn not_twice() -> Outcome {
    let (supervisor, mut client) = both("idempotent = true")?;
    let ended = client.stream(request("stream", "s1", "pieces 3 10 0 exit"));
    ensure!(ended.whole() == expected(3, 10)[..30], "{ended:?}");
    ensure!(ended.verdict().is_some_and(|verdict| verdict.kind() == VerdictKind::Exit), "{ended:?}");
    // Before its first piece it is given to another, as ever.
    let ended = client.stream(request("stream", "s2", "exit 5"));
    ensure!(ended.verdict().is_some_and(|verdict| verdict.kind() == VerdictKind::Exit), "{ended:?}");
    let health = supervisor.admin(&["health"])?;
    ensure!(health["calls_failed"] == 2, "{health}");
    supervisor.stop()
}

fn bounded() -> Outcome {
    let (supervisor, mut client) = both("stream_max = \"64KiB\"")?;
    for function in ["stream", "exec"] {
        let within = client.stream(request(function, "s1", "pieces 6 10000 0 end"));
        ensure!(in_whole(within)?.len() == 60_003, "{function}: it is within the bound");
        let over = client.stream(request(function, "s1", "pieces 7 10000 0 end"));
        let verdict = over.verdict().ok_or_else(|| format!("{function}: {over:?}"))?;
        ensure!(verdict.kind() == VerdictKind::AnswerTooLarge, "{function}: {verdict:?}");
        ensure!(verdict.setting == format!("tenant.acme.function.{function}.stream_max"), "{verdict:?}");
        ensure!(over.whole().len() <= 64 << 10, "{function}: {} bytes", over.whole().len());
    }
    supervisor.stop()
}

fn unasked() -> Outcome {
    let (supervisor, mut client) = both("")?;
    client.verdict("stream", "raw piece", VerdictKind::BadFrame, Code::Unknown)?;
    let other = client.stream(request("stream", "s1", "raw piece-of-another"));
    ensure!(other.verdict().is_some_and(|verdict| verdict.kind() == VerdictKind::BadFrame), "{other:?}");
    ensure!(other.chunks.is_empty(), "{other:?}");
    supervisor.stop()
}

fn refused() -> Outcome {
    let (supervisor, mut client) = both("payload_max = \"1KiB\"")?;
    for (request, expected) in [
        (request("none", "s1", ""), "FUNCTION_UNKNOWN"),
        (request("stream", "", ""), "SUB_TENANT_INVALID"),
        (request("stream", "s1", &"x".repeat(1025)), "PAYLOAD_TOO_LARGE"),
    ] {
        let told = client.stream(request);
        let reason = told.status.as_ref().map(reason).unwrap_or_default();
        ensure!(reason == expected && told.chunks.is_empty(), "{expected}: {told:?}");
    }
    supervisor.stop()
}

/// Streams at a time, each of its own sub-tenant.
const STREAMS: usize = 12;

fn many() -> Outcome {
    let (supervisor, _) = both("")?;
    let threads: Vec<_> = (0..STREAMS)
        .map(|at| {
            let mut client = Client::new(&supervisor)?;
            Ok(thread::spawn(move || {
                let mut workers = BTreeSet::new();
                for round in 0..10 {
                    // No two have the same size, so that a chunk of another would be seen.
                    let (count, bytes) = (5 + round, 100 + at * 8);
                    let function = if round % 2 == 0 { "stream" } else { "exec" };
                    let verb = format!("pieces {count} {bytes} 1 end");
                    let streamed = client.stream(request(function, &format!("s{at}"), &verb));
                    let receipt = streamed.end.as_ref().and_then(|end| end.receipt.clone()).unwrap_or_default();
                    workers.insert(receipt.worker);
                    ensure!(in_whole(streamed)? == expected(count, bytes), "{at}: {verb} is another");
                }
                ensure!(workers.len() == 2, "{at}: {workers:?}");
                Ok(workers)
            }))
        })
        .collect::<Result<_, String>>()?;
    let mut all = BTreeSet::new();
    for thread in threads {
        all.extend(thread.join().map_err(|_| "a caller's thread failed")??);
    }
    ensure!(all.len() == 2 * STREAMS, "a worker served two sub-tenants: {all:?}");
    supervisor.stop()
}

fn node() -> Outcome {
    let place = Place::new()?;
    let pieces = lambda::function("f", "node", "").replace("index.handler", "index.pieces");
    let text = format!("{}[tenant.acme.sub_tenant]\n{pieces}", place.host(""));
    let supervisor = Supervisor::start(place, &text)?;
    let mut client = Client::new(&supervisor)?;
    let expected = b"piece 0\npiece 1\npiece 2\n";
    let streamed = client.stream(request("f", "s1", r#"{"pieces": 3, "ms": 50}"#));
    ensure!(streamed.chunks.len() > 1, "it came at once: {streamed:?}");
    ensure!(in_whole(streamed)? == expected, "it is another");
    let (whole, _) = client.ask("f", "s1", r#"{"pieces": 3}"#)?;
    ensure!(whole.as_bytes() == expected, "to a caller that takes one answer: {whole:?}");
    let failed = client.stream(request("f", "s1", r#"{"pieces": 3, "ms": 20, "after": 1}"#));
    let verdict = failed.verdict().ok_or_else(|| format!("{failed:?}"))?;
    ensure!(verdict.kind() == VerdictKind::FunctionError, "{verdict:?}");
    ensure!(String::from_utf8_lossy(&verdict.function_error).contains("in the middle"), "{verdict:?}");
    ensure!(failed.whole().starts_with(b"piece 0\n"), "{failed:?}");
    supervisor.stop()
}
