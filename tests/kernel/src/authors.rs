//! What authors of functions do: a new directory that runs, and calls in the cage without a daemon.

use std::{
    collections::BTreeSet,
    fs::{self, Permissions},
    os::unix::{fs::PermissionsExt, process::ExitStatusExt},
    path::Path,
    process::{Child, Command, ExitStatus, Output, Stdio},
    thread::sleep,
    time::{Duration, Instant},
};

use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use serde_json::Value;

use crate::{Case, Outcome, case, configs::Place, ensure, litter, supervisor};

/// The cases.
pub const CASES: &[Case] = &[
    case("authors::new_directories_run_as_they_are", new),
    case("authors::directory_with_a_bootstrap_is_a_lambda_function", bootstrap),
    case("authors::call_that_does_not_end_well_has_its_status_and_leaves_nothing", failed),
    case("authors::what_is_wrong_is_told_before_anything_is_made", refused),
    case("authors::interrupted_run_leaves_nothing", interrupted),
    case("authors::run_interrupted_while_it_starts_leaves_nothing", interrupted_at_the_start),
];

fn sublet(arguments: &[&str]) -> Result<Output, String> {
    Command::new(supervisor::program()).args(arguments).stdin(Stdio::null()).output().map_err(|error| error.to_string())
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

fn run_local(dir: &Path, arguments: &[&str]) -> Result<(Option<i32>, String, String), String> {
    let dir = dir.display().to_string();
    let output = sublet(&[&["run-local", &dir], arguments].concat())?;
    Ok((output.status.code(), text(&output.stdout), text(&output.stderr)))
}

/// Stages that stand: of run-local, in the directory for temporary files.
fn stages() -> BTreeSet<String> {
    let entries = fs::read_dir(std::env::temp_dir()).into_iter().flatten().flatten();
    let names = entries.map(|entry| entry.file_name().to_string_lossy().into_owned());
    names.filter(|name| name.starts_with("sublet-run-local-")).collect()
}

fn new() -> Outcome {
    let place = Place::new()?;
    for language in ["shell", "python"] {
        let dir = place.path(language);
        let shown = dir.display().to_string();
        // The author's umask is not a worker's.
        let script = format!("umask 077; exec \"$0\" new {language} \"$1\"");
        let made = Command::new("/bin/sh").args(["-c", &script]).arg(supervisor::program()).arg(&shown).output();
        let made = made.map_err(|error| error.to_string())?;
        ensure!(made.status.success() && text(&made.stdout).contains("run-local"), "{}", text(&made.stderr));
        let (status, out, err) = run_local(&dir, &["-s", "customer-1", "--payload", "\"world\"", "--times", "2"])?;
        ensure!(status == Some(0), "{language}: {out}{err}");
        ensure!(out.contains("customer-1") && out.contains("world"), "{language}: {out}");
        ensure!(err.contains("cold") && err.contains("warm") && err.matches("call").count() >= 3, "{language}: {err}");
        // In an order that can be read: what the function says of a call, and then what sublet does.
        let at = |what: &str| err.find(what).unwrap_or(usize::MAX);
        let said = err.lines().position(|line| !line.starts_with("sublet: "));
        ensure!(at("cold") < at("warm") && said.is_some_and(|at| at < 2), "{language}: {err}");
        ensure!(err.lines().last().is_some_and(|line| line.contains("warm")), "{language}: {err}");
        let (status, out, _) = run_local(&dir, &["-s", "c", "--payload", "7", "--json"])?;
        let value: Value = serde_json::from_str(&out).map_err(|error| format!("{out:?}: {error}"))?;
        ensure!(status == Some(0) && value["receipt"]["start"] == "cold", "{value}");
        // Nothing that is there is overwritten, and nothing is left of the attempt.
        let again = sublet(&["new", language, &shown])?;
        ensure!(again.status.code() == Some(1) && text(&again.stderr).contains("not empty"), "{}", text(&again.stderr));
    }
    let names = fs::read_dir(&place.dir).map_err(|error| error.to_string())?.flatten();
    let names: BTreeSet<String> = names.map(|entry| entry.file_name().to_string_lossy().into_owned()).collect();
    ensure!(names == BTreeSet::from(["fn", "python", "shell"].map(str::to_owned)), "{names:?}");
    ensure!(stages().is_empty(), "{:?}", stages());
    Ok(())
}

const BOOTSTRAP: &str = r#"#!/usr/bin/python3
import http.client, os
def ask(method, path, body=None):
    connection = http.client.HTTPConnection(os.environ["AWS_LAMBDA_RUNTIME_API"])
    connection.request(method, "/2018-06-01/runtime/invocation/" + path, body)
    answer = connection.getresponse()
    return answer.headers, answer.read()
while True:
    headers, event = ask("GET", "next")
    ask("POST", headers["Lambda-Runtime-Aws-Request-Id"] + "/response", b'{"tenant": "%s", "event": %s}'
        % (headers["Lambda-Runtime-Aws-Tenant-Id"].encode(), event))
"#;

fn bootstrap() -> Outcome {
    let place = Place::new()?;
    let path = place.path("fn/bootstrap");
    fs::write(&path, BOOTSTRAP).map_err(|error| error.to_string())?;
    let dir = place.path("fn");
    let (status, _, err) = run_local(&dir, &["-s", "s1"])?;
    ensure!(status == Some(1) && err.contains("executable bootstrap"), "{err}");
    fs::set_permissions(&path, Permissions::from_mode(0o755)).map_err(|error| error.to_string())?;
    fs::write(place.path("event.json"), "[1, 2]").map_err(|error| error.to_string())?;
    let payload = format!("@{}", place.path("event.json").display());
    let (status, out, err) = run_local(&dir, &["-s", "s1", "--payload", &payload, "--set", "memory_max=64MiB"])?;
    ensure!(status == Some(0) && out == r#"{"tenant": "s1", "event": [1, 2]}"#, "{out}{err}");
    Ok(())
}

fn failed() -> Outcome {
    let place = Place::new()?;
    let settings = ["--set", "runtime=stream", "--set", "layout=host", "--set", "command=[\"/function/probe\"]"];
    let run = |payload: &str, more: &[&str]| {
        run_local(&place.path("fn"), &[&["-s", "s1", "--payload", payload][..], &settings, more].concat())
    };
    let (status, out, err) = run("echo fine", &["--stream"])?;
    ensure!(status == Some(0) && out == "fine", "{out}{err}");
    let (status, _, err) = run("error", &[])?;
    ensure!(status == Some(3) && err.contains("FUNCTION_ERROR") && err.contains("as asked"), "{status:?} {err}");
    let (status, _, err) = run("sleep 60000", &["--timeout", "300ms"])?;
    ensure!(status == Some(3) && err.contains("DEADLINE"), "{status:?} {err}");
    let (status, _, err) = run("exit 3", &[])?;
    ensure!(status == Some(3) && err.contains("EXIT"), "{status:?} {err}");
    // What it wrote is there once, the end of it included.
    let (status, out, err) = run("flood 1", &["--set", "log_rate=10MiB"])?;
    ensure!(status == Some(0) && out == "flooded", "{out}");
    ensure!(err.matches("flood flood").count() >= 1024, "{} lines", err.lines().count());
    ensure!(err.lines().filter(|line| line.starts_with("| flood ")).count() == 1024, "{}", err.lines().count());
    ensure!(stages().is_empty(), "{:?}", stages());
    Ok(())
}

fn refused() -> Outcome {
    let place = Place::new()?;
    let dir = place.path("fn");
    let toml = place.path("fn/sublet.toml");
    let write = |text: &str| fs::write(&toml, text).map_err(|error| error.to_string());
    let (status, _, err) = run_local(&place.path("none"), &["-s", "a"])?;
    ensure!(status == Some(1) && err.contains("No such file"), "{err}");
    write("runtime = \"exec\"\nlayout = \"host\"\ncommand = [\"/bin/true\"]\nmemory = \"1MiB\"\n")?;
    let (status, _, err) = run_local(&dir, &["-s", "a"])?;
    ensure!(status == Some(1) && err.contains("line 4") && err.contains("unknown setting `memory`"), "{err}");
    write("runtime = \"exec\"\nlayout = \"host\"\ncommand = [\"/bin/true\"]\nmemory_max = \"1MiB\"\n")?;
    let (status, _, err) = run_local(&dir, &["-s", "a"])?;
    ensure!(status == Some(1) && err.contains("\n  memory_max = \"1MiB\": below"), "{err}");
    write("runtime = \"exec\"\nlayout = \"host\"\ncommand = [\"/function/none\"]\n")?;
    let (status, _, err) = run_local(&dir, &["-s", "a"])?;
    ensure!(status == Some(1) && err.contains("  command = "), "{err}");
    write("runtime = \"exec\"\nlayout = \"host\"\ncommand = [\"/bin/cat\"]\n")?;
    let (status, _, err) = run_local(&dir, &["-s", "a", "--payload", "@/nowhere"])?;
    ensure!(status == Some(1) && err.contains("/nowhere"), "{err}");
    let (status, _, err) = run_local(&dir, &["-s", "a\u{7}b"])?;
    ensure!(status == Some(3) && err.contains("control"), "{status:?} {err}");
    let (status, _, err) = run_local(&dir, &[])?;
    ensure!(status == Some(3) && err.contains("sub_tenant"), "{status:?} {err}");
    let (status, _, _) = run_local(&dir, &["-s", "a", "--times", "0"])?;
    ensure!(status == Some(2), "{status:?}");
    ensure!(stages().is_empty(), "{:?}", stages());
    Ok(())
}

fn interrupted() -> Outcome {
    let place = Place::new()?;
    let settings = ["runtime=stream", "layout=host", "command=[\"/function/probe\"]"];
    let mut command = Command::new(supervisor::program());
    command.arg("run-local").arg(place.path("fn")).args(["-s", "s1", "--payload", "sleep 60000"]);
    command.args(settings.iter().flat_map(|one| ["--set", one]));
    let mut child = command.stderr(Stdio::null()).spawn().map_err(|error| error.to_string())?;
    let end = Instant::now() + Duration::from_secs(60);
    // Up to the call: its stage stands, and a worker of it is busy.
    let is_busy = |socket: &Path| {
        let shown = socket.display().to_string();
        sublet(&["ps", "--json", "--admin-socket", &shown]).is_ok_and(|seen| text(&seen.stdout).contains("\"busy\""))
    };
    let sockets =
        || stages().iter().map(|name| std::env::temp_dir().join(name).join("state/admin.sock")).collect::<Vec<_>>();
    while !sockets().iter().any(|socket| is_busy(socket)) {
        ensure!(Instant::now() < end, "no call is under way");
        sleep(Duration::from_millis(10));
    }
    let status = end_of(&mut child, Signal::SIGTERM)?;
    ensure!(status.code() == Some(1), "{status}");
    ensure!(stages().is_empty(), "{:?}", stages());
    Ok(())
}

fn interrupted_at_the_start() -> Outcome {
    let place = Place::new()?;
    let settings = ["runtime=stream", "layout=host", "command=[\"/function/probe\"]"];
    let before = litter::found();
    let mut were_interrupted = 0;
    // From before it can have made anything until long after its supervisor has begun.
    let mut pauses = vec![0, 2, 5, 10, 15, 20, 30, 50, 100, 200];
    let mut number = 0;
    while let Some(pause) = pauses.get(number).copied() {
        // Until it gives every signal its default action, one that is ignored by whoever started the tests is lost, as one is of
        // a shell's background job.
        let mut command = Command::new("env");
        command.arg("--default-signal=INT,TERM,HUP").arg(supervisor::program());
        command.arg("run-local").arg(place.path("fn")).args(["-s", "s1", "--payload", "sleep 60000"]);
        command.args(settings.iter().flat_map(|one| ["--set", one]));
        let mut child = command.stderr(Stdio::null()).spawn().map_err(|error| error.to_string())?;
        sleep(Duration::from_millis(pause));
        let signal = [Signal::SIGTERM, Signal::SIGINT, Signal::SIGHUP][number % 3];
        number += 1;
        let status = end_of(&mut child, signal)?;
        // One that did not listen yet is ended by the signal itself, and has made nothing.
        let ended_itself = status.code() == Some(1);
        ensure!(ended_itself || status.signal() == Some(signal as i32), "after {pause} ms: {status}");
        were_interrupted += u32::from(ended_itself);
        ensure!(stages().is_empty(), "after {pause} ms: {:?}", stages());
        let left = litter::since(&before);
        ensure!(left.is_empty(), "after {pause} ms: {left:?}");
        if number == pauses.len() && were_interrupted == 0 && pause < 10_000 {
            // A slow ground.
            pauses.push(2 * pause);
        }
    }
    ensure!(were_interrupted > 0, "none listened to its signal");
    Ok(())
}

fn end_of(child: &mut Child, signal: Signal) -> Result<ExitStatus, String> {
    let pid = Pid::from_raw(i32::try_from(child.id()).unwrap_or(i32::MAX));
    kill(pid, signal).map_err(|error| error.to_string())?;
    let end = Instant::now() + Duration::from_secs(60);
    loop {
        if let Some(status) = child.try_wait().map_err(|error| error.to_string())? {
            return Ok(status);
        }
        if Instant::now() > end {
            child.kill().ok();
            return Err(format!("it does not end at {signal}"));
        }
        sleep(Duration::from_millis(10));
    }
}
