//! A real `sublet serve` as a child process.

use std::{
    env,
    io::{BufRead, BufReader, Read},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    thread::{JoinHandle, sleep, spawn},
    time::{Duration, Instant},
};

use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};

use crate::configs::Place;

/// Start and stop take milliseconds; an emulated machine takes many times as long.
const PATIENCE: Duration = Duration::from_secs(60);

fn beside_us(variable: &str, name: &str) -> PathBuf {
    let default = || env::current_exe().map(|exe| exe.with_file_name(name)).unwrap_or_else(|_| name.into());
    env::var_os(variable).map_or_else(default, PathBuf::from)
}

/// The program under test.
pub fn program() -> PathBuf {
    beside_us("SUBLET", "sublet")
}

/// The program without our terminal, if we have one: with one, another process would stay in front of it, and the child
/// would not be the supervisor. `setsid` becomes the program, as this child leads no process group.
pub fn daemon() -> Command {
    let mut command = Command::new("setsid");
    command.arg(program());
    command
}

/// The probe, statically linked, so that it runs in every layout.
pub fn probe() -> PathBuf {
    beside_us("SUBLET_PROBE", "sublet-probe")
}

/// A running supervisor.
#[derive(Debug)]
pub struct Supervisor {
    child: Child,
    log: Option<JoinHandle<String>>,
    out: Option<JoinHandle<String>>,
    /// Its files.
    pub place: Place,
}

impl Supervisor {
    /// Starts one with the probe as `acme/probe`.
    pub fn simple(settings: &str) -> Result<Self, String> {
        let place = Place::new()?;
        let text = place.simple(settings);
        Self::start(place, &text)
    }

    /// Starts one and waits until it serves.
    pub fn start(place: Place, config: &str) -> Result<Self, String> {
        Self::start_with(place, config, &[])
    }

    /// The same, with more arguments of `sublet serve`.
    pub fn start_with(place: Place, config: &str, arguments: &[&str]) -> Result<Self, String> {
        Self::start_command(place, config, daemon(), arguments)
    }

    /// The same, with a log of these levels, as RUST_LOG has them.
    pub fn start_logging(place: Place, config: &str, levels: &str) -> Result<Self, String> {
        let mut command = daemon();
        command.env("RUST_LOG", levels);
        Self::start_command(place, config, command, &[])
    }

    /// The same on a kernel that seems to have no landlock.
    pub fn start_without_landlock(place: Place, config: &str) -> Result<Self, String> {
        let mut command = Command::new(probe());
        command.arg("without-landlock").arg(program());
        Self::start_command(place, config, command, &[])
    }

    /// The same, with the configuration that is in this file.
    pub fn start_at(place: Place, path: &Path) -> Result<Self, String> {
        Self::start_file(place, path, Command::new(program()), &[])
    }

    /// The same, by a command that becomes the supervisor with the arguments it is given.
    pub fn start_command(place: Place, config: &str, command: Command, arguments: &[&str]) -> Result<Self, String> {
        let path = place.write(config)?;
        Self::start_file(place, &path, command, arguments)
    }

    fn start_file(place: Place, path: &Path, mut command: Command, arguments: &[&str]) -> Result<Self, String> {
        let mut child = command
            .args(["serve", "--config"])
            .arg(path)
            .args(arguments)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .map_err(|error| format!("start {}: {error}", program().display()))?;
        let log = child.stderr.take().map(collect);
        let mut line = String::new();
        let mut out = None;
        if let Some(stdout) = child.stdout.take() {
            let mut stdout = BufReader::new(stdout);
            stdout.read_line(&mut line).map_err(|error| error.to_string())?;
            out = Some(collect(stdout));
        }
        let supervisor = Self { child, log, out, place };
        if line.starts_with("serving") {
            return Ok(supervisor);
        }
        let (status, log) = supervisor.wait()?;
        Err(format!("sublet serve did not start ({status}): {log}"))
    }

    /// Its pid.
    pub fn pid(&self) -> Pid {
        Pid::from_raw(i32::try_from(self.child.id()).unwrap_or(i32::MAX))
    }

    /// The call socket.
    pub fn socket(&self) -> PathBuf {
        self.place.path("state/call.sock")
    }

    /// The admin socket.
    pub fn admin_socket(&self) -> PathBuf {
        self.place.path("state/admin.sock")
    }

    /// Runs `sublet` with `--json` against it.
    pub fn admin(&self, arguments: &[&str]) -> Result<serde_json::Value, String> {
        let output = Command::new(program())
            .args(arguments)
            .arg("--json")
            .arg("--admin-socket")
            .arg(self.admin_socket())
            .output()
            .map_err(|error| error.to_string())?;
        serde_json::from_slice(&output.stdout)
            .map_err(|error| format!("{arguments:?}: {error}: {}", String::from_utf8_lossy(&output.stderr)))
    }

    /// What operators find under the id that a caller was given.
    pub fn told_under(&self, error_id: &str) -> Result<String, String> {
        let faults = self.admin(&["faults"])?;
        let all = faults["faults"].as_array().ok_or_else(|| format!("no faults: {faults}"))?;
        let found = all.iter().find(|fault| !error_id.is_empty() && fault["error_id"] == error_id);
        let found = found.ok_or_else(|| format!("nothing under {error_id:?}: {faults}"))?;
        Ok(found["message"].as_str().unwrap_or_default().to_owned())
    }

    /// Stops it by SIGTERM; it must end well.
    pub fn stop(self) -> Result<(), String> {
        kill(self.pid(), Signal::SIGTERM).map_err(|error| error.to_string())?;
        let (status, log) = self.wait()?;
        if status == "exit status: 0" { Ok(()) } else { Err(format!("stopped with {status}: {log}")) }
    }

    /// Stops it, and returns what it has written to standard output since it serves.
    pub fn stop_for_output(mut self) -> Result<String, String> {
        let out = self.out.take();
        self.stop()?;
        out.and_then(|out| out.join().ok()).ok_or_else(|| "its standard output was not read".into())
    }

    /// Ends it by SIGKILL and gives its place back for another.
    pub fn kill(mut self) -> Result<Place, String> {
        self.child.kill().map_err(|error| error.to_string())?;
        self.child.wait().map_err(|error| error.to_string())?;
        Ok(self.take_place())
    }

    /// Takes its place away, to outlive it.
    pub fn take_place(&mut self) -> Place {
        std::mem::replace(&mut self.place, Place::nowhere())
    }

    /// Waits for its end.
    pub fn wait(mut self) -> Result<(String, String), String> {
        let end = Instant::now() + PATIENCE;
        let status = loop {
            match self.child.try_wait().map_err(|error| error.to_string())? {
                Some(status) => break status,
                None if Instant::now() > end => return Err("sublet serve does not end".into()),
                None => sleep(Duration::from_millis(5)),
            }
        };
        let log = self.log.take().and_then(|log| log.join().ok()).unwrap_or_default();
        Ok((status.to_string(), log))
    }
}

impl Drop for Supervisor {
    fn drop(&mut self) {
        // A case that failed half-way: the supervisor ends, and its nursery cleans up.
        if let Ok(None) = self.child.try_wait() {
            self.child.kill().ok();
            self.child.wait().ok();
            sleep(Duration::from_millis(300));
        }
    }
}

/// Reads to its end, so that a chatty child never blocks on it.
fn collect(mut from: impl Read + Send + 'static) -> JoinHandle<String> {
    spawn(move || {
        let mut text = String::new();
        from.read_to_string(&mut text).ok();
        text
    })
}
