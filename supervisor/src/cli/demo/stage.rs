//! Where the demo plays: a directory of its own, a real supervisor as a child, and nothing of either afterwards.

use std::{
    fs::{self, Permissions},
    io::{BufRead, BufReader, Read},
    os::unix::{fs::PermissionsExt, process::CommandExt},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};

use crate::{cgroups::host::HostCgroups, cli::Failed, doctor::Report};

const NOTES: &str = include_str!(concat!(env!("CARGO_MANIFEST_DIR"), "/../rootfs/examples/notes/notes.sh"));
const WORDS: &str = include_str!(concat!(env!("CARGO_MANIFEST_DIR"), "/../rootfs/examples/words/words.sh"));
const REPORT: &str =
    include_str!(concat!(env!("CARGO_MANIFEST_DIR"), "/../rootfs/examples/sqlite-report/sqlite_report.py"));
const PYTHON: &str = "/usr/bin/python3";
/// How long the supervisor may take to come and to go.
const PATIENCE: Duration = Duration::from_secs(15);

/// A running supervisor in a directory of its own.
#[derive(Debug)]
pub struct Stage {
    dir: PathBuf,
    instance: String,
    child: Child,
    /// Whether this host has Python for the report function.
    pub has_python: bool,
}

impl Stage {
    /// Writes functions and configuration and starts the supervisor.
    pub fn build(report: &Report) -> Result<Self, Failed> {
        let instance = format!("demo-{}", std::process::id());
        let dir = std::env::temp_dir().join(format!("sublet-{instance}"));
        let has_python = Path::new(PYTHON).exists();
        let prepared = prepare(&dir, &instance, report, has_python);
        let started = prepared.and_then(|config| start(&config));
        match started {
            Ok(child) => Ok(Self { dir, instance, child, has_python }),
            Err(error) => {
                // The message matters more than a directory that would not go.
                fs::remove_dir_all(&dir).ok();
                Err(error)
            }
        }
    }

    /// The call socket.
    pub fn socket(&self) -> PathBuf {
        self.dir.join("state/call.sock")
    }

    /// The admin socket.
    pub fn admin_socket(&self) -> PathBuf {
        self.dir.join("state/admin.sock")
    }

    /// Pid of the supervisor.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Stops the supervisor. Returns how long that took and what is left: nothing.
    pub fn strike(mut self) -> Result<(Duration, Vec<String>), Failed> {
        let begin = Instant::now();
        signal(&self.child, Signal::SIGTERM);
        let status = loop {
            if let Some(status) = self.child.try_wait()? {
                break status;
            }
            if begin.elapsed() > PATIENCE {
                return Err(Failed::new("the demo's supervisor does not stop"));
            }
            std::thread::sleep(Duration::from_millis(2));
        };
        let took = begin.elapsed();
        if !status.success() {
            return Err(Failed::new(format!(
                "the demo's supervisor ended with {status}: {}",
                complaints(&mut self.child)
            )));
        }
        let left = self.left();
        Ok((took, left))
    }

    fn left(&self) -> Vec<String> {
        let mut left = Vec::new();
        let name = format!("sublet-{}", self.instance);
        // Wherever a hierarchy may be mounted, and at any depth at which we may have been started.
        find(Path::new("/sys/fs/cgroup"), &name, 5, &mut left);
        let mounts = fs::read_to_string("/proc/self/mountinfo").unwrap_or_default();
        left.extend(mounts.lines().filter(|line| line.contains(&name)).map(str::to_owned));
        for socket in [self.socket(), self.admin_socket()] {
            if socket.exists() {
                left.push(socket.display().to_string());
            }
        }
        left
    }
}

impl Drop for Stage {
    fn drop(&mut self) {
        if let Ok(None) = self.child.try_wait() {
            // Given up half-way: the nursery cleans up behind a killed supervisor.
            self.child.kill().ok();
            self.child.wait().ok();
            let end = Instant::now() + Duration::from_secs(2);
            while crate::serve::state::is_locked(&self.dir.join("state")) && Instant::now() < end {
                std::thread::sleep(Duration::from_millis(5));
            }
        }
        fs::remove_dir_all(&self.dir).ok();
    }
}

fn find(dir: &Path, name: &str, depth: u32, found: &mut Vec<String>) {
    let Ok(entries) = fs::read_dir(dir) else { return };
    for entry in entries.flatten().filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir())) {
        if entry.file_name() == name {
            found.push(entry.path().display().to_string());
        } else if depth > 0 {
            find(&entry.path(), name, depth - 1, found);
        }
    }
}

fn signal(child: &Child, signal: Signal) {
    // Gone already is as good.
    i32::try_from(child.id()).map(|pid| kill(Pid::from_raw(pid), signal).ok()).ok();
}

fn prepare(dir: &Path, instance: &str, report: &Report, has_python: bool) -> Result<PathBuf, Failed> {
    let failed = |path: &Path, error: std::io::Error| Failed::new(format!("prepare {}: {error}", path.display()));
    let make = |path: &Path| {
        fs::create_dir(path)
            .and_then(|()| fs::set_permissions(path, Permissions::from_mode(0o755)))
            .map_err(|e| failed(path, e))
    };
    make(dir)?;
    for (name, file, text) in
        [("notes", "notes.sh", NOTES), ("words", "words.sh", WORDS), ("report", "sqlite_report.py", REPORT)]
    {
        make(&dir.join(name))?;
        let path = dir.join(name).join(file);
        fs::write(&path, text)
            .and_then(|()| fs::set_permissions(&path, Permissions::from_mode(0o644)))
            .map_err(|e| failed(&path, e))?;
    }
    let path = dir.join("sublet.toml");
    fs::write(&path, config(dir, instance, report, has_python)).map_err(|e| failed(&path, e))?;
    Ok(path)
}

fn config(dir: &Path, instance: &str, report: &Report, has_python: bool) -> String {
    let degraded: Vec<String> = report.degraded().map(|degradation| format!("\"{degradation}\"")).collect();
    // We are beside the supervisor in our own group, and perhaps a shell is too; as root we may go elsewhere.
    let elsewhere = HostCgroups::discover().is_ok_and(|found| !found.is_own_group_usable());
    let parent = if elsewhere { "cgroup_parent = \"/\"\n" } else { "" };
    let mut text = format!(
        "[host]\nstate_dir = {:?}\ninstance = {instance:?}\n{parent}accept_degraded = [{}]\n\n[tenant.acme.sub_tenant]\n\
         memory_max = \"256MiB\"\n",
        dir.join("state").display().to_string(),
        degraded.join(", ")
    );
    let mut function = |name: &str, runtime: &str, command: &str, more: &str| {
        text.push_str(&format!(
            "\n[tenant.acme.function.{name}]\nruntime = {runtime:?}\nlayout = \"host\"\ndir = {:?}\ncommand = [{command}]\n{more}",
            dir.join(name).display().to_string()
        ));
    };
    function("notes", "exec", r#""/bin/sh", "/function/notes.sh""#, "memory_max = \"32MiB\"\npids_max = 16\n");
    function("words", "exec", r#""/bin/sh", "/function/words.sh""#, "");
    if has_python {
        function("report", "stream", r#""/usr/bin/python3", "-I", "/function/sqlite_report.py""#, "");
    }
    text
}

fn start(config: &Path) -> Result<Child, Failed> {
    let mut command = Command::new(std::env::current_exe()?);
    command.args(["serve", "--while-stdin-is-open", "--config"]).arg(config).env("RUST_LOG", "error");
    // Our end closes with us, however we end, and then it stops.
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    // Ctrl-C is for the demo, which then stops its supervisor.
    command.process_group(0);
    let mut child = command.spawn()?;
    let mut line = String::new();
    if let Some(out) = child.stdout.take() {
        BufReader::new(out).read_line(&mut line)?;
    }
    if line.starts_with("serving") {
        return Ok(child);
    }
    child.kill().ok();
    child.wait()?;
    Err(Failed::new(format!("the demo's supervisor did not start: {}", complaints(&mut child))))
}

fn complaints(child: &mut Child) -> String {
    let mut text = String::new();
    if let Some(err) = &mut child.stderr {
        err.read_to_string(&mut text).ok();
    }
    text.trim().to_owned()
}
