//! The supervisor's loop is watched: by a thread beside it, by systemd, and by whoever asks for its health.

use std::{
    fs, io,
    os::unix::net::UnixDatagram,
    thread::sleep,
    time::{Duration, Instant},
};

use nix::{
    sys::{
        ptrace,
        signal::{Signal, kill},
        wait::{WaitPidFlag, waitpid},
    },
    unistd::Pid,
};

use crate::{Case, Outcome, case, client::Client, configs::Place, ensure, ground::Need, supervisor::Supervisor, told};

/// The cases.
pub const CASES: &[Case] = &[
    case("pulse::loop_that_stands_still_is_told_in_the_log", loop_stopped),
    // User Mode Linux has one processor: there the loop may beat before the watching thread looks, and then was not late.
    Case {
        needs: &[Need::Speed],
        ..case("pulse::supervisor_that_was_stopped_is_told_of_and_health_says_so_meanwhile", process_stopped)
    },
    case("pulse::systemd_hears_of_it_for_as_long_as_the_loop_runs", systemd),
];

/// How long a loop is held: some times the second after which it is late.
const HELD: Duration = Duration::from_millis(3500);

/// The threads that the loop runs in, held by a debugger until dropped; all others run on.
struct HeldLoop(Vec<Pid>);

impl HeldLoop {
    fn new(supervisor: Pid) -> Result<Self, String> {
        let mut held = Self(Vec::new());
        for task in told(fs::read_dir(format!("/proc/{supervisor}/task")))? {
            let task = told(task)?;
            let name = fs::read_to_string(task.path().join("comm")).unwrap_or_default();
            let id: i32 = task.file_name().to_str().and_then(|id| id.parse().ok()).ok_or("no thread's id")?;
            // Its workers have the program's name; the first thread waits for them.
            if name.trim() != "sublet" {
                continue;
            }
            let id = Pid::from_raw(id);
            told(ptrace::seize(id, ptrace::Options::empty()))?;
            held.0.push(id);
            told(ptrace::interrupt(id))?;
            told(waitpid(id, Some(WaitPidFlag::__WALL)))?;
        }
        ensure!(held.0.len() > 1, "the loop has no thread: {:?}", held.0);
        Ok(held)
    }
}

impl Drop for HeldLoop {
    fn drop(&mut self) {
        for id in &self.0 {
            // One that has ended needs no help.
            ptrace::detach(*id, None).ok();
        }
    }
}

/// The log of a supervisor that is stopped now.
fn log(mut supervisor: Supervisor) -> Result<String, String> {
    let _place = supervisor.take_place();
    told(kill(supervisor.pid(), Signal::SIGTERM))?;
    let (status, log) = supervisor.wait()?;
    ensure!(status == "exit status: 0", "{status}: {log}");
    Ok(log)
}

/// What health says in milliseconds.
fn millis(health: &serde_json::Value, name: &str) -> Result<f64, String> {
    health[name].as_f64().ok_or_else(|| format!("no {name}: {health}"))
}

fn loop_stopped() -> Outcome {
    let supervisor = Supervisor::simple("")?;
    let mut client = Client::new(&supervisor)?;
    client.probe("s1", "echo before")?;
    let before = supervisor.admin(&["health"])?;
    let held = HeldLoop::new(supervisor.pid())?;
    sleep(HELD);
    drop(held);
    client.probe("s1", "echo after")?;
    let health = supervisor.admin(&["health"])?;
    let (longest, max) = (millis(&health, "loop_late_longest_ms")?, millis(&health, "loop_late_max_ms")?);
    // Less than a beat of it may be on either side.
    ensure!(longest >= (HELD - Duration::from_millis(500)).as_secs_f64() * 1000.0, "{health}, and before: {before}");
    ensure!(max == longest && millis(&health, "loop_late_p50_ms")? <= millis(&health, "loop_late_p99_ms")?, "{health}");
    // Whoever watches looks a few times a second.
    client.rest(Duration::from_secs(2));
    let log = log(supervisor)?;
    ensure!(log.contains("loop has not run for"), "the log does not say so: {log}");
    ensure!(log.contains("loop runs again"), "the log does not say that it is over: {log}");
    Ok(())
}

fn process_stopped() -> Outcome {
    let supervisor = Supervisor::simple("")?;
    told(kill(supervisor.pid(), Signal::SIGSTOP))?;
    let asked = supervisor.admin(&["health"]);
    told(kill(supervisor.pid(), Signal::SIGCONT))?;
    let said = asked?.to_string();
    ensure!(said.contains(&format!("kill -CONT {}", supervisor.pid())), "health said {said}");
    ensure!(supervisor.admin(&["health"])?["status"] == "serving", "it does not go on");
    let log = log(supervisor)?;
    ensure!(log.contains("the whole supervisor stood still for"), "the log does not say so: {log}");
    Ok(())
}

/// What systemd is told.
struct Told(UnixDatagram);

impl Told {
    /// The next word's first line; none: none is there.
    fn next(&self) -> Result<Option<String>, String> {
        let mut bytes = [0; 1000];
        match self.0.recv(&mut bytes) {
            Ok(length) => Ok(String::from_utf8_lossy(&bytes[..length]).lines().next().map(str::to_owned)),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => Ok(None),
            Err(error) => Err(error.to_string()),
        }
    }

    /// Waits for a word.
    fn until(&self, word: &str) -> Outcome {
        let end = Instant::now() + Duration::from_secs(60);
        loop {
            match self.next()? {
                Some(found) if found == word => return Ok(()),
                Some(_) => {}
                None => sleep(Duration::from_millis(10)),
            }
            ensure!(Instant::now() < end, "systemd is not told {word}");
        }
    }
}

fn systemd() -> Outcome {
    let place = Place::new()?;
    let socket = place.path("notify");
    let told_there = Told(told(UnixDatagram::bind(&socket))?);
    told(told_there.0.set_nonblocking(true))?;
    let text = place.simple("");
    // `setsid` becomes the supervisor, as this child leads no process group.
    let mut command = std::process::Command::new("setsid");
    command.arg(crate::supervisor::program());
    command.env("NOTIFY_SOCKET", &socket).env("WATCHDOG_USEC", "600000");
    let supervisor = Supervisor::start_command(place, &text, command, &[])?;
    told_there.until("READY=1")?;
    for _ in 0..3 {
        told_there.until("WATCHDOG=1")?;
    }
    let held = HeldLoop::new(supervisor.pid())?;
    while told_there.next()?.is_some() {}
    // Several times as long as systemd would wait.
    sleep(HELD);
    let found = told_there.next()?;
    drop(held);
    ensure!(found.is_none(), "systemd was told {found:?} while the loop stood still");
    told_there.until("WATCHDOG=1")?;
    told(kill(supervisor.pid(), Signal::SIGTERM))?;
    told_there.until("STOPPING=1")?;
    let mut supervisor = supervisor;
    let _place = supervisor.take_place();
    let (status, log) = supervisor.wait()?;
    ensure!(status == "exit status: 0", "{status}: {log}");
    Ok(())
}
