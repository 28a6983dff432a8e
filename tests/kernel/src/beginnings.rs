//! What whoever starts `sublet serve` leaves to it: signals, limits, a terminal, descriptors. None of it reaches functions,
//! and none of it keeps the supervisor from stopping.

use std::{
    fs::{self, File},
    io::{Read as _, Write as _},
    os::fd::AsRawFd as _,
    process::{Command, Stdio},
    sync::{Arc, Mutex},
    thread::{sleep, spawn},
    time::{Duration, Instant},
};

use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};

use crate::{
    Case, Outcome, case,
    client::{Client, request},
    configs::Place,
    ensure,
    supervisor::{Supervisor, program},
};

/// The cases.
pub const CASES: &[Case] = &[
    case("beginnings::ignored_and_blocked_signals_reach_no_function_and_the_supervisor_stops", signals),
    case("beginnings::limits_that_end_a_process_without_a_word_are_taken_off", limits),
    case("beginnings::limit_that_cannot_be_taken_off_is_named", limit_named),
    case("beginnings::limit_on_file_size_that_comes_later_costs_lines_and_no_call", limit_later),
    case("beginnings::supervisor_has_no_terminal_and_ctrl_c_stops_it", terminal),
    case("beginnings::supervisor_ends_when_the_process_in_its_terminal_does", terminal_killed),
    case("beginnings::inherited_descriptors_are_closed_and_named", descriptors),
];

/// A shell that runs `prefix` and becomes the supervisor.
fn behind(prefix: &str) -> Command {
    let mut command = Command::new("/bin/sh");
    command.args(["-c", &format!("{prefix}; exec setsid \"$0\" \"$@\"")]).arg(program());
    command
}

/// The line of a function's own status.
fn line<'a>(status: &'a str, name: &str) -> Result<&'a str, String> {
    status.lines().find_map(|line| line.strip_prefix(name)).map(str::trim).ok_or_else(|| format!("no {name}: {status}"))
}

fn signals() -> Outcome {
    let place = Place::new()?;
    let exec = place.function("script", "runtime = \"exec\"\ncommand = [\"/bin/cat\", \"/proc/self/status\"]");
    let text = format!("{}{exec}", place.simple(""));
    let mut command = Command::new("/bin/sh");
    // Ignored by the shell, blocked by env.
    let script =
        "trap '' INT HUP TERM CHLD USR1 XFSZ; exec env --block-signal=TERM,INT,HUP,CHLD,USR2 setsid \"$0\" \"$@\"";
    command.args(["-c", script]).arg(program());
    let supervisor = Supervisor::start_command(place, &text, command, &[])?;
    let mut client = Client::new(&supervisor)?;
    let (status, _) = client.probe("s1", "read /proc/self/status")?;
    // SIGPIPE is ignored by the Rust runtime of the probe itself.
    for (name, expected) in [("SigIgn:", "0000000000001000"), ("SigBlk:", "0000000000000000")] {
        let found = line(&status, name)?;
        ensure!(found == expected, "stream: {name} {found}");
    }
    let answer = client.call(request("script", "s1", "")).map_err(|status| format!("exec: {status:?}"))?;
    let status = String::from_utf8_lossy(&answer.payload).into_owned();
    for name in ["SigIgn:", "SigBlk:"] {
        let found = line(&status, name)?;
        ensure!(found == "0000000000000000", "exec: {name} {found}");
    }
    supervisor.stop()
}

fn limits() -> Outcome {
    let place = Place::new()?;
    let text = place.simple("");
    let supervisor = Supervisor::start_command(place, &text, behind("ulimit -S -f 0; ulimit -S -t 3600"), &[])?;
    let limits = fs::read_to_string(format!("/proc/{}/limits", supervisor.pid())).map_err(|error| error.to_string())?;
    let cpu = line(&limits, "Max cpu time")?;
    ensure!(cpu.starts_with("unlimited"), "cpu: {cpu}");
    // Of files it sets one of its own, by what it writes.
    let size = line(&limits, "Max file size")?;
    let soft: u64 = size.split_whitespace().next().and_then(|word| word.parse().ok()).ok_or(size)?;
    ensure!(soft > 0, "file size: {size}");
    supervisor.stop()
}

fn limit_named() -> Outcome {
    let place = Place::new()?;
    let config = place.write(&place.simple(""))?;
    let mut command =
        behind("ulimit -f 0; exec setpriv --bounding-set=-sys_resource --inh-caps=-sys_resource \"$0\" \"$@\"");
    let output = command.args(["serve", "--config"]).arg(config).output().map_err(|error| error.to_string())?;
    let said = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.code() == Some(1), "{}: {said}", output.status);
    ensure!(said.contains("RLIMIT_FSIZE is 0 bytes") && said.contains("LimitFSIZE=infinity"), "{said}");
    Ok(())
}

/// Sets the limit of a running supervisor, as its own user: root may lack the right to.
fn limit_file_size(supervisor: &Supervisor, bytes: &str) -> Outcome {
    let status = fs::read_to_string(format!("/proc/{}/status", supervisor.pid())).map_err(|error| error.to_string())?;
    let uid = line(&status, "Uid:")?.split_whitespace().next().ok_or("no uid")?;
    let output = Command::new("setpriv")
        .args(["--reuid", uid, "--regid", uid, "--clear-groups"])
        .args(["prlimit", "--pid", &supervisor.pid().to_string(), &format!("--fsize={bytes}:")])
        .output()
        .map_err(|error| format!("setpriv: {error}"))?;
    ensure!(output.status.success(), "prlimit: {}", String::from_utf8_lossy(&output.stderr));
    Ok(())
}

fn limit_later() -> Outcome {
    let place = Place::new()?;
    let logs = format!("log = \"files\"\nlog_dir = {:?}", place.path("logs").display().to_string());
    let text =
        format!("{}[tenant.acme.sub_tenant]\n{}", place.host(&logs), place.function("probe", "report_lines = true"));
    let trace = place.path("trace.csv");
    let shown = trace.display().to_string();
    let mut supervisor = Supervisor::start_with(place, &text, &["--record", &shown])?;
    let mut client = Client::new(&supervisor)?;
    client.probe("s1", "echo before")?;
    limit_file_size(&supervisor, "1024")?;
    // Each is a row of the trace, and three lines of the log.
    for at in 0..300 {
        client.probe("s1", "echo on").map_err(|error| format!("call {at}: {error}"))?;
    }
    limit_file_size(&supervisor, "unlimited")?;
    for _ in 0..300 {
        client.probe("s1", "echo after")?;
    }
    let place = supervisor.take_place();
    kill(supervisor.pid(), Signal::SIGTERM).map_err(|error| error.to_string())?;
    let (status, log) = supervisor.wait()?;
    ensure!(log.contains("host.log cannot be written") && log.contains("the trace cannot be written"), "{log}");
    // A trace that lacks calls is no good end.
    ensure!(status == "exit status: 1" && log.contains("write the trace"), "{status}: {log}");
    let rows = fs::read_to_string(&trace).map_err(|error| error.to_string())?;
    let columns = rows.lines().next().unwrap_or_default().split(',').count();
    ensure!(rows.lines().count() > 2 && rows.ends_with('\n'), "the trace does not go on: {rows}");
    ensure!(rows.lines().all(|row| row.split(',').count() == columns), "the trace has half a row: {rows}");
    let lines = place.path("logs/functions.log");
    let lines = fs::read_to_string(lines).map_err(|error| error.to_string())?;
    let values: Result<Vec<serde_json::Value>, _> = lines.lines().map(serde_json::from_str).collect();
    let values = values.map_err(|error| format!("a line is no value: {error}"))?;
    ensure!(values.iter().any(|value| value["lost"].as_u64() > Some(0)), "what was lost is not told");
    Ok(())
}

fn descriptors() -> Outcome {
    let place = Place::new()?;
    let secret = place.path("secret");
    fs::write(&secret, "secret").map_err(|error| error.to_string())?;
    let text = place.simple("");
    let shown = secret.display().to_string();
    let supervisor = Supervisor::start_command(place, &text, behind(&format!("exec 7<{shown}")), &[])?;
    let open = |pid: Pid| -> Result<Vec<String>, String> {
        let entries = fs::read_dir(format!("/proc/{pid}/fd")).map_err(|error| error.to_string())?;
        let links = entries.flatten().filter_map(|entry| fs::read_link(entry.path()).ok());
        Ok(links.map(|link| link.display().to_string()).collect())
    };
    for pid in [supervisor.pid(), child(supervisor.pid())?] {
        let found = open(pid)?;
        ensure!(!found.contains(&shown), "{pid} has it open: {found:?}");
        ensure!(found.iter().any(|link| link == "/dev/null"), "{pid}: {found:?}");
    }
    kill(supervisor.pid(), Signal::SIGTERM).map_err(|error| error.to_string())?;
    let (status, log) = supervisor.wait()?;
    ensure!(status == "exit status: 0" && log.contains(&format!("7 ({shown})")), "{status}: {log}");
    Ok(())
}

/// The first child of a process.
fn child(pid: Pid) -> Result<Pid, String> {
    let end = Instant::now() + Duration::from_secs(10);
    loop {
        let children =
            fs::read_to_string(format!("/proc/{pid}/task/{pid}/children")).map_err(|error| error.to_string())?;
        if let Some(child) = children.split_whitespace().next().and_then(|pid| pid.parse().ok()) {
            return Ok(Pid::from_raw(child));
        }
        ensure!(Instant::now() < end, "{pid} has no child");
        sleep(Duration::from_millis(5));
    }
}

/// A supervisor that was started from a terminal of its own.
struct InTerminal {
    place: Place,
    /// The terminal's other side: what is typed and what is shown.
    keys: File,
    shown: Arc<Mutex<String>>,
    /// `script`, which made the terminal.
    script: std::process::Child,
    /// The process in the terminal.
    front: Pid,
    supervisor: Pid,
}

impl InTerminal {
    fn start() -> Result<Self, String> {
        let place = Place::new()?;
        let config = place.write(&place.simple(""))?;
        let pair = nix::pty::openpty(None, None).map_err(|error| error.to_string())?;
        let (keys, terminal) = (File::from(pair.master), pair.slave);
        let copy = || terminal.try_clone().map(Stdio::from).map_err(|error| error.to_string());
        // A session whose controlling terminal is this one, as a login shell has it.
        let script = Command::new("setsid")
            .args(["--ctty", "--wait"])
            .arg(program())
            .args(["serve", "--config"])
            .arg(config)
            .stdin(copy()?)
            .stdout(copy()?)
            .stderr(copy()?)
            .spawn()
            .map_err(|error| format!("setsid: {error}"))?;
        drop(terminal);
        let shown = Arc::new(Mutex::new(String::new()));
        let (mut from, into) = (keys.try_clone().map_err(|error| error.to_string())?, shown.clone());
        // Ends with an error when nobody has the terminal open any more.
        spawn(move || {
            let mut piece = [0; 4096];
            while let Ok(length @ 1..) = from.read(&mut piece) {
                if let Ok(mut shown) = into.lock() {
                    shown.push_str(&String::from_utf8_lossy(&piece[..length]));
                }
            }
        });
        let mut started = Self { place, keys, shown, front: Pid::from_raw(0), supervisor: Pid::from_raw(0), script };
        started.until("serving calls")?;
        // setsid is a group's leader or not, and forks accordingly.
        let own = Pid::from_raw(i32::try_from(started.script.id()).unwrap_or(i32::MAX));
        let name = |pid: Pid| fs::read_to_string(format!("/proc/{pid}/comm")).unwrap_or_default();
        started.front = if name(own).starts_with("setsid") { child(own)? } else { own };
        started.supervisor = child(started.front)?;
        Ok(started)
    }

    fn text(&self) -> String {
        self.shown.lock().map(|shown| shown.clone()).unwrap_or_default()
    }

    fn until(&self, words: &str) -> Outcome {
        let end = Instant::now() + Duration::from_secs(60);
        while !self.text().contains(words) {
            ensure!(Instant::now() < end, "the terminal does not show {words:?}: {}", self.text());
            sleep(Duration::from_millis(10));
        }
        Ok(())
    }

    /// Waits until the supervisor is gone, and its sockets with it.
    fn gone(&self) -> Outcome {
        let end = Instant::now() + Duration::from_secs(60);
        // Pid 1 of a container may be this program, which waits for none but its own children.
        let has_ended = || match fs::read_to_string(format!("/proc/{}/stat", self.supervisor)) {
            Ok(stat) => stat.rsplit_once(") ").is_some_and(|(_, rest)| rest.starts_with('Z')),
            Err(_) => true,
        };
        while self.place.path("state/call.sock").exists() || !has_ended() {
            ensure!(Instant::now() < end, "the supervisor lives: {}", self.text());
            sleep(Duration::from_millis(10));
        }
        Ok(())
    }
}

impl Drop for InTerminal {
    fn drop(&mut self) {
        // Both are gone unless the case has failed.
        for pid in [self.supervisor, self.front] {
            if pid.as_raw() > 0 {
                kill(pid, Signal::SIGKILL).ok();
            }
        }
        self.script.wait().ok();
    }
}

/// Session and controlling terminal of a process, from its stat.
fn session_and_terminal(pid: Pid) -> Result<(String, String), String> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).map_err(|error| error.to_string())?;
    let (_, rest) = stat.rsplit_once(") ").ok_or("no stat")?;
    let fields: Vec<&str> = rest.split(' ').collect();
    Ok((fields[3].to_owned(), fields[4].to_owned()))
}

fn terminal() -> Outcome {
    let mut running = InTerminal::start()?;
    let name = fs::read_to_string(format!("/proc/{}/comm", running.supervisor)).map_err(|error| error.to_string())?;
    ensure!(name.trim() == "sublet", "the supervisor is called {name}");
    let (front, _) = session_and_terminal(running.front)?;
    for pid in [running.supervisor, child(running.supervisor)?] {
        let (session, terminal) = session_and_terminal(pid)?;
        ensure!(terminal == "0" && session != front, "{pid} has terminal {terminal}, session {session}");
        for number in 0..=2 {
            let link = fs::read_link(format!("/proc/{pid}/fd/{number}")).map_err(|error| error.to_string())?;
            let link = link.display().to_string();
            ensure!(!link.contains("pts") && !link.contains("tty"), "{pid} has {link} as {number}");
        }
    }
    // The control: the process in front does have it, so that this terminal is one.
    ensure!(session_and_terminal(running.front)?.1 != "0", "the process in front has no terminal");
    // On pure v2 the groups below could have no controllers while it is in the group that both were started in.
    let group = |pid: Pid| -> Result<String, String> {
        let groups = fs::read_to_string(format!("/proc/{pid}/cgroup")).map_err(|error| error.to_string())?;
        Ok(line(&groups, "0::")?.to_owned())
    };
    let (front, supervisor) = (group(running.front)?, group(running.supervisor)?);
    ensure!(front == supervisor && front.ends_with("/supervisor"), "in front: {front}, supervisor: {supervisor}");
    running.keys.write_all(b"\x03").map_err(|error| error.to_string())?;
    running.until("draining")?;
    running.gone()?;
    let status = running.script.wait().map_err(|error| error.to_string())?;
    ensure!(status.success(), "it ended with {status}: {}", running.text());
    Ok(())
}

fn terminal_killed() -> Outcome {
    let running = InTerminal::start()?;
    ensure!(running.keys.as_raw_fd() >= 0, "the terminal is there");
    kill(running.front, Signal::SIGKILL).map_err(|error| error.to_string())?;
    running.gone()
}
