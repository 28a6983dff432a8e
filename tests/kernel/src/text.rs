//! What functions, callers and labels say, as operators see it: no byte of it drives a terminal, no line of it passes for
//! one of ours, and nobody who does not read it stops the supervisor.

use std::{
    fs::File,
    io::{BufRead, BufReader, Read},
    os::fd::{AsRawFd, OwnedFd},
    process::{Command, Stdio},
    thread::{sleep, spawn},
    time::{Duration, Instant},
};

use nix::{
    fcntl::{FcntlArg, fcntl},
    pty::openpty,
    sys::{
        signal::{Signal, kill},
        termios::{SetArg, cfmakeraw, tcgetattr, tcsetattr},
    },
    unistd::Pid,
};
use serde_json::Value;
use sublet_proto::v1::VerdictKind;
use tonic::Code;

use crate::{
    Case, Outcome, case,
    client::{Client, request},
    configs::Place,
    ensure,
    supervisor::{self, Supervisor},
};

/// The cases.
pub const CASES: &[Case] = &[
    case("text::no_command_is_driven_by_what_functions_and_labels_say", hostile),
    case("text::answer_goes_to_a_pipe_to_the_byte_and_to_a_terminal_in_plain_text", answers),
    case("text::own_lines_are_told_from_forged_ones_in_every_output", forged),
    case("text::tail_of_a_worker_that_died_in_silence_reaches_back", silent),
    case("text::output_that_nobody_reads_stops_nothing", unread),
    case("text::log_of_the_operator_is_folded_by_function", folded),
];

/// Each drives, hides or reorders on some terminal; in UTF-8, but for the last.
const HOSTILE: [&[u8]; 13] = [
    b"\x1b]0;title\x07",
    b"\x1b[2J",
    b"\r",
    b"\x7f",
    "\u{9b}2J".as_bytes(),
    "\u{202e}".as_bytes(),
    "\u{2066}".as_bytes(),
    "\u{200b}".as_bytes(),
    "\u{feff}".as_bytes(),
    "\u{2028}".as_bytes(),
    "\u{85}".as_bytes(),
    "\u{e0041}".as_bytes(),
    b"\xff",
];

/// The same as it is shown.
const SHOWN: &str =
    "\\u{1b}]0;title\\u{7}\\u{1b}[2J\\r\\u{7f}\\u{9b}2J\\u{202e}\\u{2066}\\u{200b}\\u{feff}\\u{2028}\\u{85}\\u{e0041}";

/// Says its payload on standard error, and answers with it when it is told to by its first byte.
const SAY: &str = r#"runtime = "exec"
command = ["/bin/sh", "-c", "cat > /tmp/said; cat /tmp/said >&2; case $(head -c 1 /tmp/said) in a) cat /tmp/said;; *) exit 3;; esac"]"#;

fn start(settings: &str) -> Result<(Supervisor, Client), String> {
    let place = Place::new()?;
    let text = format!("{}[tenant.acme.sub_tenant]\n{}", place.host(""), place.function("probe", settings));
    let supervisor = Supervisor::start(place, &text)?;
    let client = Client::new(&supervisor)?;
    Ok((supervisor, client))
}

/// What a command prints: standard output, then standard error.
fn printed(supervisor: &Supervisor, arguments: &[&str]) -> Result<[Vec<u8>; 2], String> {
    let output = Command::new(supervisor::program())
        .args(arguments)
        .env("SUBLET_SOCKET", supervisor.socket())
        .env("SUBLET_ADMIN_SOCKET", supervisor.admin_socket())
        .stdin(Stdio::null())
        .output()
        .map_err(|error| error.to_string())?;
    Ok([output.stdout, output.stderr])
}

/// Fails when any of it would reach a terminal.
fn harmless(what: &str, bytes: &[u8]) -> Outcome {
    for bad in HOSTILE {
        let found = bytes.windows(bad.len()).any(|seen| seen == bad);
        ensure!(!found, "{what}: {bad:?} in {:?}", String::from_utf8_lossy(bytes));
    }
    Ok(())
}

fn hostile() -> Outcome {
    // A label has no control characters; everything else it may have.
    let label = "customer\u{202e}\u{200b}\u{2028}\u{e0041}";
    let (supervisor, mut client) = start(SAY)?;
    let words = [b"b\nsublet: forged\n  setting: forged ".as_slice(), &HOSTILE.concat(), b"\n"].concat();
    let file = supervisor.place.path("words");
    std::fs::write(&file, &words).map_err(|error| error.to_string())?;
    let mut call = request("probe", label, "");
    call.payload = words.clone().into();
    let status = client.call(call).expect_err("it exits with a status");
    ensure!(status.code() == Code::Unknown, "{status:?}");

    let shown = file.display().to_string();
    let invoke = ["invoke", "acme", "probe", "--sub-tenant", label, "--file", &shown];
    let [out, err] = printed(&supervisor, &invoke)?;
    ensure!(out.is_empty(), "{out:?}");
    let text = String::from_utf8(err).map_err(|error| error.to_string())?;
    let wanted = format!("\n    | b\n    | sublet: forged\n    |   setting: forged {SHOWN}\\xff\n");
    ensure!(text.contains(&wanted), "{wanted:?} in {text:?}");
    ensure!(text.lines().filter(|line| line.starts_with("sublet: ")).count() == 1, "{text}");
    ensure!(text.lines().all(|line| !line.starts_with("  setting: forged")), "{text}");

    let [logs, _] = printed(&supervisor, &["logs"])?;
    let text = String::from_utf8(logs).map_err(|error| error.to_string())?;
    // A carriage return parts lines inside a record, and what is not UTF-8 is replaced when it is read.
    ensure!(text.contains("| sublet: forged\n") && text.contains("\n    | \\u{7f}\\u{9b}2J\\u{202e}"), "{text:?}");

    let path = format!("tenant/acme/id/{label}");
    let worker = supervisor.admin(&["ps"])?[0]["worker"].as_str().map(str::to_owned).unwrap_or_default();
    let commands: [&[&str]; 22] = [
        &invoke,
        &["--json", "invoke", "acme", "probe", "--sub-tenant", label, "--file", &shown],
        &["invoke", "acme", "probe", "--stream", "-v", "--sub-tenant", label, "--file", &shown],
        &["invoke", "acme", "no\u{202e}\u{1b}[2J", "--sub-tenant", label, "--data", ""],
        &["invoke", "acme", "probe", "--sub-tenant", "\u{1b}[2J", "--data", ""],
        &["logs"],
        &["--json", "logs"],
        &["logs", "--function", "\u{1b}[2J\u{202e}"],
        &["faults"],
        &["--json", "faults"],
        &["ps"],
        &["--json", "ps"],
        &["describe", &worker],
        &["--json", "describe", &worker],
        &["describe", "\u{1b}[2J\u{202e}"],
        &["usage"],
        &["--json", "usage"],
        &["top", "--once", "--every", "100ms"],
        &["set", &path, "workers_max=3", "--for", "1m"],
        &["limits", &path],
        &["--json", "limits", &path],
        &["unset", &path],
    ];
    for command in commands {
        for bytes in printed(&supervisor, command)? {
            harmless(&format!("{command:?}"), &bytes)?;
            ensure!(std::str::from_utf8(&bytes).is_ok(), "{command:?}: {bytes:?}");
        }
    }

    // What happens from now on, through a pipe.
    for json in [&[][..], &["--json"]] {
        let mut watch = Command::new(supervisor::program())
            .args(json)
            .args(["watch", "--admin-socket"])
            .arg(supervisor.admin_socket())
            .stdout(Stdio::piped())
            .spawn()
            .map_err(|error| error.to_string())?;
        sleep(Duration::from_millis(500));
        printed(&supervisor, &["set", &path, "workers_max=2", "--for", "1m"])?;
        printed(&supervisor, &invoke)?;
        sleep(Duration::from_millis(1500));
        watch.kill().map_err(|error| error.to_string())?;
        let seen = watch.wait_with_output().map_err(|error| error.to_string())?.stdout;
        ensure!(!seen.is_empty(), "nothing happened");
        harmless("watch", &seen)?;
    }
    supervisor.stop()
}

/// Runs `sublet` with a terminal as its standard output; what came out of that.
fn on_terminal(supervisor: &Supervisor, arguments: &[&str]) -> Result<Vec<u8>, String> {
    let error = |error: nix::Error| error.to_string();
    let pty = openpty(None, None).map_err(error)?;
    let mut modes = tcgetattr(&pty.slave).map_err(error)?;
    cfmakeraw(&mut modes);
    tcsetattr(&pty.slave, SetArg::TCSANOW, &modes).map_err(error)?;
    let mut child = Command::new(supervisor::program())
        .args(arguments)
        .env("SUBLET_SOCKET", supervisor.socket())
        .stdin(Stdio::null())
        .stdout(pty.slave)
        .stderr(Stdio::null())
        .spawn()
        .map_err(|error| error.to_string())?;
    let mut master = File::from(pty.master);
    let reader = spawn(move || {
        let mut seen = Vec::new();
        // It ends in EIO, as terminals do.
        master.read_to_end(&mut seen).ok();
        seen
    });
    child.wait().map_err(|error| error.to_string())?;
    reader.join().map_err(|_| "the reader panicked".into())
}

fn answers() -> Outcome {
    let (supervisor, _) = start(SAY)?;
    let words = [b"answer\nsublet: forged\n".as_slice(), &HOSTILE.concat(), "é 日本".as_bytes()].concat();
    let file = supervisor.place.path("words");
    std::fs::write(&file, &words).map_err(|error| error.to_string())?;
    let shown = file.display().to_string();
    for how in [&[][..], &["--stream"]] {
        let invoke = [&["invoke", "acme", "probe", "--sub-tenant", "s1", "--file", &shown], how].concat();
        let [out, _] = printed(&supervisor, &invoke)?;
        ensure!(out == words, "{how:?} to a pipe: {:?}", String::from_utf8_lossy(&out));
        let seen = on_terminal(&supervisor, &invoke)?;
        let wanted = format!("answer\n\\u{{73}}ublet: forged\n{SHOWN}\\xffé 日本\n");
        ensure!(seen == wanted.as_bytes(), "{how:?}: {:?} and not {wanted:?}", String::from_utf8_lossy(&seen));
    }
    supervisor.stop()
}

fn forged() -> Outcome {
    let place = Place::new()?;
    let dir = place.path("logs");
    let host = place.host(&format!("log = \"files\"\nlog_dir = {:?}", dir.display().to_string()));
    let text =
        format!("{host}[tenant.acme.sub_tenant]\n{}", place.function("probe", &format!("{SAY}\nreport_lines = true")));
    let mut supervisor = Supervisor::start(place, &text)?;
    let mut client = Client::new(&supervisor)?;
    let lines =
        "a\nSTART RequestId: 00 Version: 1\nEND RequestId: 00\nREPORT RequestId: 00\tDuration: 1.00 ms\n# REPORT\n";
    let mut call = request("probe", "s1", lines);
    call.want_log = true;
    let answer = client.call(call).map_err(|status| status.to_string())?;
    let at = |place: &u32| answer.log_tail.get(*place as usize..).unwrap_or_default();
    let lease = answer.receipt.clone().unwrap_or_default().lease;
    let own: Vec<_> = answer.platform_lines.iter().map(at).collect();
    ensure!(own.len() == 3, "{:?} of {:?}", answer.platform_lines, answer.log_tail);
    for (line, what) in own.iter().zip(["START", "END", "REPORT"]) {
        ensure!(line.starts_with(format!("{what} RequestId: {lease}").as_bytes()), "{own:?}");
    }
    let verdict = client.verdict("probe", "REPORT RequestId: 00", VerdictKind::Exit, Code::Unknown)?;
    ensure!(verdict.platform_lines.len() == 3 && !verdict.log_reaches_back, "{verdict:?}");

    let [shown, _] = printed(&supervisor, &["logs", "--request", &lease])?;
    let shown = String::from_utf8(shown).map_err(|error| error.to_string())?;
    let marked = |mark: &str| shown.lines().filter(|line| line.contains(mark)).count();
    ensure!(marked(&format!("{} # ", &lease[..12])) == 3, "{shown}");
    ensure!(marked(&format!("{} | ", &lease[..12])) == 5, "{shown}");
    let [json, _] = printed(&supervisor, &["--json", "logs"])?;
    let place = supervisor.take_place();
    supervisor.stop()?;
    let file = std::fs::read(dir.join("functions.log")).map_err(|error| error.to_string())?;
    drop(place);
    for (what, bytes) in [("logs --json", json), ("the file", file)] {
        let values: Result<Vec<Value>, _> =
            bytes.lines().map_while(Result::ok).map(|line| serde_json::from_str(&line)).collect();
        let values = values.map_err(|error| error.to_string())?;
        let own: Vec<_> = values.iter().filter(|value| value["platform"] == true).collect();
        ensure!(own.len() == 6, "{what}: {values:?}");
        ensure!(own.iter().all(|value| !value["message"].to_string().contains(" 00")), "{what}: {own:?}");
        ensure!(values.iter().filter(|value| value["platform"] == false).count() == 6, "{what}: {values:?}");
    }
    Ok(())
}

fn silent() -> Outcome {
    let (supervisor, mut client) = start("")?;
    client.probe("s1", "mumble 1")?;
    sleep(Duration::from_millis(300));
    let mut die = |sub_tenant: &str| -> Result<sublet_proto::v1::Verdict, String> {
        let status = client.call(request("probe", sub_tenant, "exit 3")).expect_err("it exits");
        crate::client::verdict(&status).ok_or_else(|| format!("{status:?}"))
    };
    let verdict = die("s1")?;
    let tail = String::from_utf8_lossy(&verdict.log_tail).into_owned();
    ensure!(verdict.log_reaches_back && tail.contains("mumble done"), "{verdict:?}");
    // One that never wrote a word has none to reach back to.
    let verdict = die("s2")?;
    ensure!(!verdict.log_reaches_back && verdict.log_tail.is_empty(), "{verdict:?}");
    supervisor.stop()
}

/// A supervisor whose output is read by us alone.
struct Mute {
    child: std::process::Child,
    out: Option<BufReader<std::process::ChildStdout>>,
    err: Option<std::process::ChildStderr>,
}

impl Mute {
    fn start(place: &Place, text: &str, levels: &str) -> Result<Self, String> {
        let path = place.write(text)?;
        let mut child = Command::new(supervisor::program())
            .args(["serve", "--config"])
            .arg(path)
            .env("RUST_LOG", levels)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .map_err(|error| error.to_string())?;
        let (out, err) = (child.stdout.take().ok_or("no stdout")?, child.stderr.take().ok_or("no stderr")?);
        for fd in [out.as_raw_fd(), err.as_raw_fd()] {
            small(fd)?;
        }
        let mut out = BufReader::with_capacity(64, out);
        let mut line = String::new();
        out.read_line(&mut line).map_err(|error| error.to_string())?;
        let mute = Self { child, out: Some(out), err: Some(err) };
        if line.starts_with("serving") { Ok(mute) } else { Err(format!("it does not serve: {line:?}")) }
    }

    /// Ends it by SIGTERM, within so long.
    fn stop(mut self, patience: Duration) -> Outcome {
        let pid = Pid::from_raw(i32::try_from(self.child.id()).map_err(|error| error.to_string())?);
        kill(pid, Signal::SIGTERM).map_err(|error| error.to_string())?;
        let end = Instant::now() + patience;
        while Instant::now() < end {
            if let Some(status) = self.child.try_wait().map_err(|error| error.to_string())? {
                ensure!(status.success(), "it ended with {status}");
                return Ok(());
            }
            sleep(Duration::from_millis(10));
        }
        Err(format!("SIGTERM is not obeyed within {patience:?}"))
    }
}

impl Drop for Mute {
    fn drop(&mut self) {
        if let Ok(None) = self.child.try_wait() {
            // What waits for a reader must see that there is none, or its nursery would not end either.
            drop((self.out.take(), self.err.take()));
            self.child.kill().ok();
            self.child.wait().ok();
            sleep(Duration::from_millis(500));
        }
    }
}

/// A page instead of sixteen: what fills it comes sooner.
fn small(fd: i32) -> Outcome {
    let path = format!("/proc/self/fd/{fd}");
    let pipe: OwnedFd = File::options().read(true).open(path).map_err(|error| error.to_string())?.into();
    fcntl(&pipe, FcntlArg::F_SETPIPE_SZ(4096)).map(drop).map_err(|error| error.to_string())
}

fn unread() -> Outcome {
    let place = Place::new()?;
    // Every end of a worker is a line of the log, and every line of a function one of standard output.
    let text = format!("{}[tenant.acme.sub_tenant]\n{}", place.host("log = \"stdout\""), place.function("probe", ""));
    let levels = "sublet_supervisor=debug";
    let mut mute = Mute::start(&place, &text, levels)?;
    let (socket, admin) = (place.path("state/call.sock"), place.path("state/admin.sock"));
    let admin = admin.display().to_string();
    let work = move |rounds: u32| -> Result<Duration, String> {
        let runtime = tokio::runtime::Runtime::new().map_err(|error| error.to_string())?;
        runtime.block_on(async {
            let mut client = crate::client::connect(&socket).await?;
            let mut worst = Duration::ZERO;
            for round in 0..rounds {
                for verb in ["flood 0", "exit 3"] {
                    let begin = Instant::now();
                    let call = client.invoke(request("probe", &format!("s{round}"), verb));
                    let answer = tokio::time::timeout(Duration::from_secs(20), call).await;
                    let answer = answer.map_err(|_| format!("round {round}, {verb}: no answer, no verdict"))?;
                    ensure!(answer.is_ok() == (verb == "flood 0"), "round {round}, {verb}: {answer:?}");
                    worst = worst.max(begin.elapsed());
                }
            }
            Ok(worst)
        })
    };
    work(100)?;
    let health = Command::new(supervisor::program())
        .args(["health", "--json", "--admin-socket", &admin])
        .output()
        .map_err(|error| error.to_string())?;
    ensure!(health.status.success(), "{health:?}");
    // The reader comes back: what it missed is told, and what comes then is there.
    let err = mute.err.take().ok_or("it is taken once")?;
    let lines = spawn(move || BufReader::new(err).lines().map_while(Result::ok).collect::<Vec<_>>());
    work(5)?;
    let Mute { child, .. } = &mute;
    let threads = std::fs::read_dir(format!("/proc/{}/task", child.id())).map_err(|error| error.to_string())?.count();
    ensure!(threads < 64, "{threads} threads");
    // Its standard output is still not read.
    mute.stop(Duration::from_secs(15))?;
    let lines = lines.join().map_err(|_| "the reader panicked")?;
    let of_ends = lines.iter().filter(|line| line.contains("worker ends")).count();
    ensure!(of_ends > 0, "{lines:?}");

    // And none of both until its end: a flood that does not fit into the queue either.
    let mute = Mute::start(&place, &text, "trace")?;
    let socket = place.path("state/call.sock");
    let runtime = tokio::runtime::Runtime::new().map_err(|error| error.to_string())?;
    runtime.block_on(async {
        let mut client = crate::client::connect(&socket).await?;
        for round in 0..200 {
            let call = client.invoke(request("probe", "s", "echo x"));
            let answer = tokio::time::timeout(Duration::from_secs(20), call).await;
            answer.map_err(|_| format!("round {round}: no answer"))?.map_err(|status| status.to_string())?;
        }
        Ok::<(), String>(())
    })?;
    mute.stop(Duration::from_secs(15))
}

fn folded() -> Outcome {
    let place = Place::new()?;
    let text = format!(
        "{}[tenant.acme.sub_tenant]\n{}{}",
        place.host(""),
        place.function("probe", ""),
        place.function("other", "")
    );
    let supervisor = Supervisor::start_logging(place, &text, "info")?;
    let mut client = Client::new(&supervisor)?;
    let refused = |client: &mut Client, function: &str, number: u32| {
        let status = client.call(request(function, &format!("s{number}"), "try mount")).err();
        status.map(drop).ok_or_else(|| "mount worked".to_owned())
    };
    for number in 0..60 {
        refused(&mut client, "probe", number)?;
    }
    refused(&mut client, "other", 0)?;
    kill(supervisor.pid(), Signal::SIGTERM).map_err(|error| error.to_string())?;
    let (status, log) = supervisor.wait()?;
    ensure!(status == "exit status: 0", "{status}: {log}");
    let count = |function: &str| {
        let of = |line: &&str| line.contains("system call refused") && line.contains(&format!("function={function}"));
        log.lines().filter(|line| !line.contains("folded")).filter(of).count()
    };
    // So many at once, and one or two more if it took that long.
    let (loud, other) = (count("probe"), count("other"));
    ensure!((20..=26).contains(&loud) && other == 1, "{loud} and {other} lines: {log}");
    ensure!(log.contains("equal lines were folded"), "what was folded is told at the end: {log}");
    Ok(())
}
