//! Every verdict of the closed list, each seen for real, with its limit, the value seen and the setting.

use std::time::Duration;

use sublet_proto::v1::{Verdict, VerdictKind};
use tonic::Code;

use crate::{
    Case, Outcome, case,
    client::{Client, remark, request},
    configs::Place,
    ensure,
    ground::Ground,
    supervisor::Supervisor,
};

/// The cases.
pub const CASES: &[Case] = &[
    case("verdict::memory_ends_the_worker_and_the_neighbour_goes_on", memory),
    case("verdict::pids", pids),
    case("verdict::disk_by_bytes_and_by_files", disk),
    case("verdict::deadline_of_the_function_and_of_the_caller", deadline),
    case("verdict::crash_by_signal", crash),
    case("verdict::exit_without_answer", exit),
    case("verdict::refused_system_call_ends_the_worker_when_so_set", refused_kill),
    case("verdict::refused_system_call_ends_a_start_at_once_and_not_at_its_time_limit", refused_at_start),
    case("verdict::refused_system_call_is_named_when_the_function_goes_on", refused_errno),
    case("verdict::calls_that_are_absent_for_functions_are_named_too", absent),
    case("verdict::bad_frames_of_every_kind", bad_frames),
    case("verdict::second_answer_never_meets_the_next_call", twice),
    case("verdict::answer_too_large", answer_too_large),
    case("verdict::function_error_keeps_the_worker", function_error),
    case("verdict::exec_functions_give_the_same_verdicts", exec),
    case("verdict::nothing_of_an_earlier_call_is_in_a_later_verdict", earlier),
    case("verdict::handlers_last_words_are_kept_though_it_ends", last_words),
    case("verdict::worker_that_speaks_unasked_is_the_functions_fault", chatty),
    case("verdict::crash_that_opens_the_back_off_is_no_failed_start", backed_off),
    case("verdict::start_failures_are_named", start),
    case("verdict::evicted", evicted),
];

fn named(verdict: &Verdict, limit: &str, setting: &str) -> Outcome {
    let full = format!("tenant.acme.function.probe.{setting}");
    ensure!(verdict.limit == limit, "limit is {:?}, expected {limit:?}", verdict.limit);
    ensure!(verdict.setting == full, "setting is {:?}, expected {full:?}", verdict.setting);
    ensure!(!verdict.seen.is_empty(), "no value seen");
    ensure!(verdict.message.len() > 10, "no message");
    let receipt = verdict.receipt.as_ref().ok_or("no receipt")?;
    ensure!(receipt.worker.starts_with("w-") && receipt.lease.len() == 32, "receipt names no worker: {receipt:?}");
    Ok(())
}

fn memory() -> Outcome {
    let supervisor = Supervisor::simple("")?;
    let mut client = Client::new(&supervisor)?;
    let (before, _) = client.probe("neighbour", "put key value")?;
    let (_, receipt) = client.probe("neighbour", "alloc 20")?;
    ensure!(receipt.memory_peak_bytes > 20 << 20, "peak is {}", receipt.memory_peak_bytes);
    let verdict = client.verdict("probe", "alloc 200", VerdictKind::Memory, Code::ResourceExhausted)?;
    named(&verdict, "64MiB", "memory_max")?;
    let (after, receipt) = client.probe("neighbour", "get key")?;
    ensure!(before == "value" && after == "value/value", "the neighbour lost its state: {after:?}");
    ensure!(receipt.calls == 3, "the neighbour got another worker");
    client.probe("s1", "echo again")?;
    supervisor.stop()
}

fn pids() -> Outcome {
    let supervisor = Supervisor::simple("")?;
    let mut client = Client::new(&supervisor)?;
    let (answer, _) = client.probe("s1", "fork 5")?;
    ensure!(answer == "forked 5", "{answer}");
    // Its handler has words of its own: they are the verdict, and the limit is told beside.
    let verdict = client.verdict("probe", "fork 100", VerdictKind::FunctionError, Code::Unknown)?;
    ensure!(verdict.function_error.starts_with(b"fork number"), "{verdict:?}");
    let found = remark(verdict.receipt.as_ref(), VerdictKind::Pids)?;
    ensure!(found.limit == "16" && found.setting == "tenant.acme.function.probe.pids_max", "{found:?}");
    let (answer, receipt) = client.probe("s1", "fork 5")?;
    ensure!(answer == "forked 5" && receipt.calls == 3, "the worker goes on: {answer} {receipt:?}");
    supervisor.stop()
}

fn disk() -> Outcome {
    let supervisor = Supervisor::simple("")?;
    let mut client = Client::new(&supervisor)?;
    client.probe("s1", "fill 3")?;
    let verdict = client.verdict("probe", "fill 5", VerdictKind::FunctionError, Code::Unknown)?;
    ensure!(verdict.function_error.starts_with(b"write MiB"), "{verdict:?}");
    let found = remark(verdict.receipt.as_ref(), VerdictKind::Disk)?;
    ensure!(found.limit == "4MiB" && found.setting == "tenant.acme.function.probe.tmp_size", "{found:?}");
    let mut files = request("probe", "s2", "files 100");
    let verdict = client.verdict_of(files.clone(), VerdictKind::FunctionError, Code::Unknown)?;
    let found = remark(verdict.receipt.as_ref(), VerdictKind::Inodes)?;
    ensure!(found.limit == "64" && found.setting == "tenant.acme.function.probe.tmp_inodes", "{found:?}");
    files.sub_tenant = "s3".into();
    files.payload = "files 40".into();
    client.call(files).map_err(|status| format!("40 files fit: {status}"))?;
    supervisor.stop()
}

fn deadline() -> Outcome {
    let supervisor = Supervisor::simple("timeout = \"1s\"")?;
    let mut client = Client::new(&supervisor)?;
    let verdict = client.verdict("probe", "sleep 20000", VerdictKind::Deadline, Code::DeadlineExceeded)?;
    named(&verdict, "1s", "timeout")?;
    client.probe("s1", "echo warm")?;
    let mut own = request("probe", "s1", "sleep 20000");
    own.timeout = Some(prost_types::Duration { seconds: 0, nanos: 200_000_000 });
    let verdict = client.verdict_of(own, VerdictKind::Deadline, Code::DeadlineExceeded)?;
    ensure!(verdict.limit == "200ms", "limit is {:?}", verdict.limit);
    ensure!(verdict.setting == "the call's timeout", "setting is {:?}", verdict.setting);
    let (_, receipt) = client.probe("s1", "echo again")?;
    ensure!(receipt.calls == 1, "a worker that missed a deadline was used again");
    supervisor.stop()
}

fn crash() -> Outcome {
    let supervisor = Supervisor::simple("")?;
    let mut client = Client::new(&supervisor)?;
    for (signal, name) in [(11, "signal 11 (SIGSEGV)"), (6, "signal 6 (SIGABRT)"), (9, "signal 9 (SIGKILL)")] {
        let mut call = request("probe", &format!("s{signal}"), &format!("signal {signal}"));
        let verdict = client.verdict_of(call.clone(), VerdictKind::Crash, Code::Unknown)?;
        ensure!(verdict.seen == name, "seen is {:?}", verdict.seen);
        call.payload = "echo on".into();
        client.call(call).map_err(|status| format!("after the crash: {status}"))?;
    }
    supervisor.stop()
}

fn exit() -> Outcome {
    let supervisor = Supervisor::simple("")?;
    let mut client = Client::new(&supervisor)?;
    let verdict = client.verdict("probe", "exit 3", VerdictKind::Exit, Code::Unknown)?;
    ensure!(verdict.seen == "status 3", "seen is {:?}", verdict.seen);
    let verdict = client.verdict("probe", "exit 0", VerdictKind::Exit, Code::Unknown)?;
    ensure!(verdict.seen == "status 0", "seen is {:?}", verdict.seen);
    supervisor.stop()
}

fn refused_kill() -> Outcome {
    let supervisor = Supervisor::simple("on_refused_syscall = \"kill\"")?;
    let mut client = Client::new(&supervisor)?;
    let verdict = client.verdict("probe", "try mount", VerdictKind::RefusedSyscall, Code::Unknown)?;
    ensure!(verdict.seen == "mount", "seen is {:?}", verdict.seen);
    named(&verdict, "not allowed", "on_refused_syscall")?;
    ensure!(verdict.refused_syscalls == ["mount"], "{:?}", verdict.refused_syscalls);
    supervisor.stop()
}

/// A function that is refused a call before it says that it is ready. It would wait for ever.
fn refused_at_start() -> Outcome {
    let mount = "import ctypes, time; ctypes.CDLL(None).mount(0, 0, 0, 0, 0); time.sleep(600)";
    let command = format!("command = [\"/usr/bin/python3\", \"-c\", \"{mount}\"]");
    let settings =
        format!("{command}\nmemory_max = \"128MiB\"\non_refused_syscall = \"kill\"\nstart_timeout = \"30s\"");
    let supervisor = Supervisor::simple(&settings)?;
    let mut client = Client::new(&supervisor)?;
    let verdict = client.verdict("probe", "echo never", VerdictKind::Start, Code::FailedPrecondition)?;
    ensure!(verdict.refused_syscalls == ["mount"], "{verdict:?}");
    ensure!(!verdict.seen.contains("not ready within"), "it was waited for: {verdict:?}");
    supervisor.stop()
}

fn refused_errno() -> Outcome {
    let supervisor = Supervisor::simple("")?;
    let mut client = Client::new(&supervisor)?;
    let verdict = client.verdict("probe", "try mount", VerdictKind::FunctionError, Code::Unknown)?;
    ensure!(verdict.function_error.as_ref() == b"mount: EPERM", "{:?}", verdict.function_error);
    ensure!(verdict.refused_syscalls == ["mount"], "{:?}", verdict.refused_syscalls);
    let (_, receipt) = client.probe("s1", "echo on")?;
    ensure!(receipt.calls == 2, "the worker was not kept");
    supervisor.stop()
}

/// Refusals with another errno than EPERM. Those that well-behaved programs meet are not named.
fn absent() -> Outcome {
    let named = [
        ("try userfaultfd", "userfaultfd: ENOSYS", "userfaultfd"),
        ("try keyctl", "keyctl: ENOSYS", "keyctl"),
        ("try bpf", "bpf: ENOSYS", "bpf"),
        ("hostile call shmget", "shmget: ENOSYS", "shmget"),
        ("hostile call mq_open", "mq_open: ENOSYS", "mq_open"),
        ("try vsock-socket", "vsock-socket: EAFNOSUPPORT", "socket"),
    ];
    let silent = [
        ("try io_uring", "io_uring: ENOSYS"),
        ("hostile call affinity", "affinity: ENOSYS"),
        ("try netlink-socket", "netlink-socket: EAFNOSUPPORT"),
    ];
    let supervisor = Supervisor::simple("")?;
    let mut client = Client::new(&supervisor)?;
    let cases = named.iter().map(|(call, error, name)| (*call, *error, vec![name.to_string()]));
    for (call, error, refused) in cases.chain(silent.iter().map(|(call, error)| (*call, *error, Vec::new()))) {
        let verdict = client.verdict("probe", call, VerdictKind::FunctionError, Code::Unknown)?;
        ensure!(verdict.function_error.as_ref() == error.as_bytes(), "{call}: {:?}", verdict.function_error);
        ensure!(verdict.refused_syscalls == refused, "{call}: {:?}", verdict.refused_syscalls);
    }
    supervisor.stop()?;

    let supervisor = Supervisor::simple("on_refused_syscall = \"kill\"")?;
    let mut client = Client::new(&supervisor)?;
    for (call, _, name) in named {
        // By a sub-tenant of its own, since three failures in a row begin a back-off.
        let call = request("probe", name, call);
        let verdict = client.verdict_of(call, VerdictKind::RefusedSyscall, Code::Unknown)?;
        ensure!(verdict.seen == name, "{name}: {:?}", verdict.seen);
    }
    for (call, error) in silent {
        let verdict = client.verdict("probe", call, VerdictKind::FunctionError, Code::Unknown)?;
        ensure!(verdict.function_error.as_ref() == error.as_bytes(), "{call}: {:?}", verdict.function_error);
    }
    supervisor.stop()
}

fn bad_frames() -> Outcome {
    let supervisor = Supervisor::simple("timeout = \"2s\"")?;
    let mut client = Client::new(&supervisor)?;
    let ways = ["garbage", "wrong-lease", "wrong-label", "wrong-kind", "together", "old-flag", "close"];
    // What blames somebody else, the payload or a signal, is said by launchers alone.
    for how in ways.into_iter().chain(["forged-crash", "forged-status", "forged-payload"]) {
        // A sub-tenant of its own each, so that none backs off for another.
        let call = request("probe", how, &format!("raw {how}"));
        let verdict = client.verdict_of(call, VerdictKind::BadFrame, Code::Unknown)?;
        ensure!(!verdict.seen.is_empty(), "{how}: nothing seen");
        let (answer, receipt) = client.probe(how, "echo fine")?;
        ensure!(answer == "fine" && receipt.calls == 1, "{how}: its worker was used again");
    }
    let half = request("probe", "half", "raw half");
    client.verdict_of(half, VerdictKind::Deadline, Code::DeadlineExceeded)?;
    supervisor.stop()
}

fn twice() -> Outcome {
    let supervisor = Supervisor::simple("")?;
    let mut client = Client::new(&supervisor)?;
    let (first, _) = client.probe("s1", "raw twice")?;
    ensure!(first == "first", "{first}");
    client.rest(Duration::from_millis(200));
    let (answer, receipt) = client.probe("s1", "echo mine")?;
    ensure!(answer == "mine", "the next call got {answer:?}");
    ensure!(receipt.calls == 1, "the worker that answered twice was used again");
    supervisor.stop()
}

fn answer_too_large() -> Outcome {
    let supervisor = Supervisor::simple("answer_max = \"100KiB\"")?;
    let mut client = Client::new(&supervisor)?;
    client.probe("s1", "answer 102400")?;
    let verdict = client.verdict("probe", "answer 102401", VerdictKind::AnswerTooLarge, Code::Unknown)?;
    named(&verdict, "102400 bytes", "answer_max")?;
    for (name, verb) in [("s2", "raw oversize"), ("s3", "raw huge")] {
        client.verdict_of(request("probe", name, verb), VerdictKind::AnswerTooLarge, Code::Unknown)?;
    }
    supervisor.stop()
}

fn function_error() -> Outcome {
    let supervisor = Supervisor::simple("")?;
    let mut client = Client::new(&supervisor)?;
    let verdict = client.verdict("probe", "error", VerdictKind::FunctionError, Code::Unknown)?;
    ensure!(verdict.function_error.as_ref() == b"as asked", "{:?}", verdict.function_error);
    let (_, receipt) = client.probe("s1", "echo on")?;
    ensure!(receipt.calls == 2, "the worker was not kept");
    supervisor.stop()
}

fn exec() -> Outcome {
    let place = Place::new()?;
    let settings = "runtime = \"exec\"\ncommand = [\"/function/probe\", \"exec\"]\nanswer_max = \"100KiB\"";
    let text = place.simple(settings);
    let supervisor = Supervisor::start(place, &text)?;
    let mut client = Client::new(&supervisor)?;
    let (answer, _) = client.probe("s1", "echo out")?;
    let (id, receipt) = client.probe("s1", "id")?;
    ensure!(answer == "out" && id.contains("sub_tenant=s1") && receipt.calls == 2, "{answer} {id}");
    let cases = [
        ("exit 3", VerdictKind::Exit, Code::Unknown, "status 3"),
        ("error", VerdictKind::Exit, Code::Unknown, "status 9"),
        ("signal 11", VerdictKind::Crash, Code::Unknown, "signal 11 (SIGSEGV)"),
        ("fork 100", VerdictKind::Pids, Code::ResourceExhausted, "17"),
        ("alloc 200", VerdictKind::Memory, Code::ResourceExhausted, ""),
        // Its processes have no words of their own: a limit that they have hit is the verdict.
        ("fill 5", VerdictKind::Disk, Code::ResourceExhausted, "4MiB"),
        ("answer 102401", VerdictKind::AnswerTooLarge, Code::Unknown, ""),
        ("sleep 20000", VerdictKind::Deadline, Code::DeadlineExceeded, ""),
    ];
    for (number, (verb, kind, code, seen)) in cases.into_iter().enumerate() {
        let mut call = request("probe", &format!("e{number}"), verb);
        if kind == VerdictKind::Deadline {
            call.timeout = Some(prost_types::Duration { seconds: 1, nanos: 0 });
        }
        let verdict = client.verdict_of(call, kind, code)?;
        ensure!(seen.is_empty() || verdict.seen == seen, "{verb}: seen is {:?}", verdict.seen);
    }
    let verdict = client.verdict("probe", "files 100", VerdictKind::Inodes, Code::ResourceExhausted)?;
    ensure!(String::from_utf8_lossy(&verdict.log_tail).contains("create file"), "stderr is kept: {verdict:?}");
    // What a call leaves behind is gone before the next one, though the sandbox stays.
    client.probe("s2", "daemon")?;
    let (processes, _) = client.probe("s2", "list /proc")?;
    let count = processes.lines().filter(|name| name.parse::<u32>().is_ok()).count();
    ensure!(count == 1, "one sees {count} processes: {processes:?}");
    supervisor.stop()
}

/// In one worker: something meets a limit and answers well, then a call fails for a reason of its own.
fn earlier() -> Outcome {
    let is_hybrid = Ground::find().is_hybrid();
    for (runtime, command) in [("stream", "[\"/function/probe\"]"), ("exec", "[\"/function/probe\", \"exec\"]")] {
        let place = Place::new()?;
        let text = place.simple(&format!("runtime = {runtime:?}\ncommand = {command}\nfreeze_after = \"never\""));
        let supervisor = Supervisor::start(place, &text)?;
        let mut client = Client::new(&supervisor)?;
        let fails = |client: &mut Client, sub_tenant: &str| -> Result<Verdict, String> {
            let verdict =
                client.verdict_of(request("probe", sub_tenant, "exit 7"), VerdictKind::Exit, Code::Unknown)?;
            ensure!(verdict.seen == "status 7", "{runtime}: {verdict:?}");
            ensure!(verdict.refused_syscalls.is_empty(), "{runtime}: {verdict:?}");
            Ok(verdict)
        };
        // A child is killed for memory. On v1 the rest goes on and answers: the answer stands, and the worker is ended.
        if is_hybrid {
            let (answer, receipt) = client.probe("memory", "lose-child 200")?;
            ensure!(answer.contains("SIGKILL"), "{runtime}: {answer}");
            let found = remark(Some(&receipt), VerdictKind::Memory)?;
            ensure!(found.limit == "64MiB" && found.level == "worker", "{runtime}: {found:?}");
            let (_, next) = client.probe("memory", "echo next")?;
            ensure!(next.worker != receipt.worker && next.remarks.is_empty(), "{runtime}: {next:?}");
        } else {
            let call = request("probe", "memory", "lose-child 200");
            client.verdict_of(call, VerdictKind::Memory, Code::ResourceExhausted)?;
        }
        let verdict = fails(&mut client, "memory")?;
        ensure!(verdict.receipt.as_ref().is_some_and(|receipt| receipt.remarks.is_empty()), "{runtime}: {verdict:?}");

        let (answer, receipt) = client.probe("pids", "caught 100")?;
        ensure!(answer.contains("EAGAIN"), "{runtime}: {answer}");
        remark(Some(&receipt), VerdictKind::Pids)?;
        let verdict = fails(&mut client, "pids")?;
        let after = verdict.receipt.as_ref().ok_or("no receipt")?;
        ensure!(after.worker == receipt.worker && after.remarks.is_empty(), "{runtime}: {verdict:?}");

        client.probe("tmp", "echo warm")?;
        let (_, receipt) = client.probe("tmp", "stuff 4")?;
        let verdict = fails(&mut client, "tmp")?;
        let found = remark(verdict.receipt.as_ref(), VerdictKind::Disk)?;
        let is_same = verdict.receipt.as_ref().is_some_and(|after| after.worker == receipt.worker);
        ensure!(is_same && found.message.contains("is full, "), "{runtime}: {found:?}");

        // Named in each call that makes it, and in no other.
        let (kind, code) = if runtime == "exec" {
            (VerdictKind::Exit, Code::Unknown)
        } else {
            (VerdictKind::FunctionError, Code::Unknown)
        };
        for _ in 0..2 {
            let verdict = client.verdict_of(request("probe", "refused", "try mount"), kind, code)?;
            ensure!(verdict.refused_syscalls == ["mount"], "{runtime}: {verdict:?}");
        }
        fails(&mut client, "refused")?;

        // In one call: caught, and then words of its own.
        if runtime == "stream" {
            let call = request("probe", "words", "caught-error 100");
            let verdict = client.verdict_of(call, VerdictKind::FunctionError, Code::Unknown)?;
            ensure!(verdict.function_error.as_ref() == b"my own words", "{verdict:?}");
            remark(verdict.receipt.as_ref(), VerdictKind::Pids)?;
        }
        supervisor.stop()?;
    }
    Ok(())
}

fn last_words() -> Outcome {
    let supervisor = Supervisor::simple("")?;
    let mut client = Client::new(&supervisor)?;
    for number in 0..10 {
        let call = request("probe", &format!("s{number}"), "raw error-exit");
        let verdict = client.verdict_of(call, VerdictKind::FunctionError, Code::Unknown)?;
        ensure!(verdict.function_error.as_ref() == b"last words", "{number}: {verdict:?}");
    }
    supervisor.stop()
}

fn chatty() -> Outcome {
    let place = Place::new()?;
    let text = format!("{}[tenant.acme.function.probe.env]\nPROBE_START = \"chatty\"\n", place.simple(""));
    let supervisor = Supervisor::start(place, &text)?;
    let mut client = Client::new(&supervisor)?;
    let verdict = client.verdict("probe", "echo", VerdictKind::BadFrame, Code::Unknown)?;
    // Found before the call is given to it, or behind the call in the place of its answer: which, is chance.
    ensure!(["what nobody asked for", "magic"].iter().any(|text| verdict.seen.contains(text)), "{verdict:?}");
    supervisor.stop()
}

/// Each call is tried twice, so that the third death is in the middle of the second call.
fn backed_off() -> Outcome {
    let supervisor = Supervisor::simple("idempotent = true")?;
    let mut client = Client::new(&supervisor)?;
    for number in 1..=2 {
        let verdict = client.verdict("probe", "exit 7", VerdictKind::Exit, Code::Unknown)?;
        ensure!(verdict.seen == "status 7", "call {number}: {verdict:?}");
    }
    let refused = client.call(request("probe", "s1", "echo")).err().ok_or("it does not back off")?;
    ensure!(crate::client::reason(&refused) == "CRASH_BACKOFF", "{refused:?}");
    supervisor.stop()
}

fn start() -> Outcome {
    let place = Place::new()?;
    let functions: String = ["exit", "garbage", "segv", "eat"]
        .map(|how| {
            let env = format!("[tenant.acme.function.{how}.env]\nPROBE_START = {how:?}\n");
            place.function(how, "timeout = \"5s\"") + &env
        })
        .concat();
    let hang =
        place.function("hang", "start_timeout = \"1s\"") + "[tenant.acme.function.hang.env]\nPROBE_START = \"hang\"\n";
    let gone = place.function("gone", "command = [\"/function/gone\"]");
    let script = place.function("script", "command = [\"/function/script\"]");
    let crlf: String = ["stream", "exec", "lambda"]
        .map(|runtime| {
            let settings = format!("runtime = {runtime:?}\ncommand = [\"/function/crlf\"]");
            place.function(&format!("crlf-{runtime}"), &settings)
        })
        .concat();
    let text = format!("{}[tenant.acme.sub_tenant]\n{functions}{hang}{gone}{script}{crlf}", place.host(""));
    std::fs::copy(place.path("fn/probe"), place.path("fn/crlf")).map_err(|e| e.to_string())?;
    for name in ["gone", "script"] {
        std::fs::copy(place.path("fn/probe"), place.path(&format!("fn/{name}"))).map_err(|e| e.to_string())?;
    }
    let supervisor = Supervisor::start(place, &text)?;
    // Both were fine when the configuration was checked.
    std::fs::remove_file(supervisor.place.path("fn/gone")).map_err(|e| e.to_string())?;
    std::fs::write(supervisor.place.path("fn/crlf"), "#!/bin/sh\r\necho\r\n").map_err(|e| e.to_string())?;
    let mode = <std::fs::Permissions as std::os::unix::fs::PermissionsExt>::from_mode(0o644);
    std::fs::set_permissions(supervisor.place.path("fn/script"), mode).map_err(|e| e.to_string())?;
    let mut client = Client::new(&supervisor)?;
    for (name, says, setting) in [
        ("exit", "exited with status 3", "command"),
        ("garbage", "broke the frame protocol", "command"),
        ("segv", "signal 11 (SIGSEGV)", "command"),
        ("eat", "memory limit", "memory_max"),
        ("hang", "not ready within 1s", "start_timeout"),
        ("gone", "No such file", "command"),
        ("script", "Permission denied", "command"),
        ("crlf-stream", "CR LF", "command"),
        ("crlf-exec", "CR LF", "command"),
        ("crlf-lambda", "CR LF", "command"),
    ] {
        let verdict = client.verdict(name, "echo", VerdictKind::Start, Code::FailedPrecondition)?;
        ensure!(verdict.message.contains(says), "{name}: {:?} does not say {says:?}", verdict.message);
        ensure!(verdict.setting.ends_with(setting), "{name}: setting is {:?}", verdict.setting);
    }
    supervisor.stop()
}

fn evicted() -> Outcome {
    let supervisor = Supervisor::simple("")?;
    let mut client = Client::new(&supervisor)?;
    client.probe("s1", "echo warm")?;
    let busy = std::thread::spawn({
        let mut client = Client::new(&supervisor)?;
        move || client.verdict("probe", "sleep 20000", VerdictKind::Evicted, Code::Unavailable)
    });
    client.rest(Duration::from_millis(300));
    let kept = supervisor.admin(&["evict", "--tenant", "acme"])?;
    ensure!(kept["evicted"] == 0 && kept["busy"] == 1, "{kept}");
    let forced = supervisor.admin(&["evict", "--tenant", "acme", "--force"])?;
    ensure!(forced["evicted"] == 1, "{forced}");
    busy.join().map_err(|_| "the call's thread failed")??;
    supervisor.stop()
}
