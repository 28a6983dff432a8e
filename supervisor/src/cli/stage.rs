//! A stage: a directory of its own, a real supervisor as a child, and nothing of either afterwards. The demo plays on one,
//! and so does `sublet run-local`.

use std::{
    fs::{self, Permissions},
    io::Read,
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

use nix::{
    sys::signal::{Signal as Number, kill},
    unistd::Pid,
};
use tokio::{
    io::{AsyncBufReadExt, BufReader},
    net::unix::pipe,
    signal::unix::{Signal, SignalKind},
    time::sleep,
};

use super::{Failed, signals};
use crate::{cgroups::host::HostCgroups, cgroups::left_over::left_over, doctor::Report, trust::Trusted};

/// How long the supervisor may take to come and to go.
const PATIENCE: Duration = Duration::from_secs(15);

/// A running supervisor in a directory of its own.
#[derive(Debug)]
pub struct Stage {
    what: &'static str,
    instance: String,
    child: Child,
    // Goes last.
    dir: Dir,
}

/// A directory that is removed when dropped, with all that is in it.
#[derive(Debug)]
struct Dir(PathBuf);

impl Drop for Dir {
    fn drop(&mut self) {
        fs::remove_dir_all(&self.0).ok();
    }
}

/// What is known before it runs.
#[derive(Debug)]
pub struct Host<'a> {
    /// The stage's directory, empty but for what is put there.
    pub dir: &'a Path,
    /// The configuration's `[host]`.
    pub text: String,
}

impl Stage {
    /// Starts a supervisor for `what`. `prepare` writes what its functions need and returns the rest of the configuration.
    /// Nothing is left of it when this is given up half-way.
    pub async fn build(
        what: &'static str,
        report: &Report,
        prepare: impl FnOnce(&Host<'_>) -> Result<String, Failed>,
    ) -> Result<Self, Failed> {
        let instance = format!("{what}-{}", std::process::id());
        let temporary = std::env::temp_dir();
        // Made by root, and used by a supervisor that begins as root: nobody may move it away and put another there.
        Trusted::root_and(&[])
            .parent(&temporary)
            .map_err(|error| Failed::new(format!("$TMPDIR is not used: {error}")))?;
        let path = temporary.join(format!("sublet-{instance}"));
        make_dir(&path)?;
        let dir = Dir(path.clone());
        let host = Host { dir: &path, text: host(&path, &instance, report) };
        let tenants = prepare(&host)?;
        let config = path.join("sublet.toml");
        fs::write(&config, format!("{}{tenants}", host.text)).map_err(|error| failed(&config, &error))?;
        let mut stage = Self { what, instance, child: start(&config)?, dir };
        stage.serving().await?;
        Ok(stage)
    }

    /// Waits until the supervisor serves.
    async fn serving(&mut self) -> Result<(), Failed> {
        let mut line = String::new();
        if let Some(out) = self.child.stdout.take() {
            let out = pipe::Receiver::from_owned_fd(out.into())?;
            BufReader::new(out).read_line(&mut line).await?;
        }
        if line.starts_with("serving") {
            return Ok(());
        }
        self.child.kill().ok();
        self.child.wait()?;
        Err(Failed::new(format!("the supervisor of {} did not start: {}", self.what, complaints(&mut self.child))))
    }

    /// The call socket.
    pub fn socket(&self) -> PathBuf {
        self.dir.0.join("state/call.sock")
    }

    /// The admin socket.
    pub fn admin_socket(&self) -> PathBuf {
        self.dir.0.join("state/admin.sock")
    }

    /// Pid of the supervisor.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Stops the supervisor. Returns how long that took and what is left: nothing.
    pub async fn strike(mut self) -> Result<(Duration, Vec<String>), Failed> {
        let begin = Instant::now();
        if let Ok(pid) = i32::try_from(self.child.id()) {
            // Gone already is as good.
            kill(Pid::from_raw(pid), Number::SIGTERM).ok();
        }
        let status = loop {
            if let Some(status) = self.child.try_wait()? {
                break status;
            }
            if begin.elapsed() > PATIENCE {
                return Err(Failed::new(format!("the supervisor of {} does not stop", self.what)));
            }
            // Connections of a call that was given up close meanwhile, at which the supervisor lets go of it.
            sleep(Duration::from_millis(2)).await;
        };
        let took = begin.elapsed();
        if !status.success() {
            return Err(Failed::new(format!(
                "the supervisor of {} ended with {status}: {}",
                self.what,
                complaints(&mut self.child)
            )));
        }
        let left = self.left();
        Ok((took, left))
    }

    fn left(&self) -> Vec<String> {
        let name = format!("sublet-{}", self.instance);
        let mut left = left_over(&name);
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
        // Given up half-way. At this it stops by itself, even when it has only begun to start.
        drop(self.child.stdin.take());
        let end = Instant::now() + PATIENCE;
        while let Ok(None) = self.child.try_wait() {
            if Instant::now() > end {
                // The nursery cleans up behind a killed supervisor.
                self.child.kill().ok();
                self.child.wait().ok();
            }
            std::thread::sleep(Duration::from_millis(2));
        }
        let end = Instant::now() + Duration::from_secs(2);
        while crate::serve::state::is_locked(&self.dir.0.join("state")) && Instant::now() < end {
            std::thread::sleep(Duration::from_millis(5));
        }
    }
}

fn failed(path: &Path, error: &std::io::Error) -> Failed {
    Failed::new(format!("prepare {}: {error}", path.display()))
}

/// A directory that workers may look into.
pub fn make_dir(path: &Path) -> Result<(), Failed> {
    let made = fs::create_dir(path).and_then(|()| fs::set_permissions(path, Permissions::from_mode(0o755)));
    made.map_err(|error| failed(path, &error))
}

/// A file that workers may read.
pub fn write_file(path: &Path, text: &str) -> Result<(), Failed> {
    let written = fs::write(path, text).and_then(|()| fs::set_permissions(path, Permissions::from_mode(0o644)));
    written.map_err(|error| failed(path, &error))
}

fn host(dir: &Path, instance: &str, report: &Report) -> String {
    let degraded: Vec<String> = report.degraded().map(|degradation| format!("\"{degradation}\"")).collect();
    // We are beside the supervisor in our own group, and perhaps a shell is too; as root we may go elsewhere.
    let elsewhere = HostCgroups::discover().is_ok_and(|found| !found.is_own_group_usable());
    let parent = if elsewhere { "cgroup_parent = \"/\"\n" } else { "" };
    format!(
        "[host]\nstate_dir = {:?}\ninstance = {instance:?}\n{parent}accept_degraded = [{}]\n\n",
        dir.join("state").display().to_string(),
        degraded.join(", ")
    )
}

/// Who asks us to end. From the first on nothing ends this process by itself: it has a stage to strike.
#[derive(Debug)]
pub struct Interrupts([(Signal, &'static str); 3]);

impl Interrupts {
    /// Listens from now on. Must be called inside a tokio runtime.
    pub fn listen() -> Result<Self, Failed> {
        let kinds = [SignalKind::interrupt(), SignalKind::terminate(), SignalKind::hangup()];
        let [interrupt, terminate, hang_up] = signals::listen(kinds)?;
        Ok(Self([(interrupt, "interrupted"), (terminate, "terminated"), (hang_up, "hung up")]))
    }

    /// What comes of `future`, unless somebody asks us to end meanwhile, or has since we listen.
    pub async fn or<T>(&mut self, future: impl Future<Output = Result<T, Failed>>) -> Result<T, Failed> {
        let [(interrupt, interrupted), (terminate, terminated), (hang_up, hung_up)] = &mut self.0;
        tokio::select! {
            biased;
            _ = interrupt.recv() => Err(Failed::new(*interrupted)),
            _ = terminate.recv() => Err(Failed::new(*terminated)),
            _ = hang_up.recv() => Err(Failed::new(*hung_up)),
            result = future => result,
        }
    }
}

fn start(config: &Path) -> Result<Child, Failed> {
    let mut command = Command::new(std::env::current_exe()?);
    command.args(["serve", "--while-stdin-is-open", "--config"]).arg(config).env("RUST_LOG", "error");
    // Our end closes with us, however we end, and then it stops.
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    // Ctrl-C is for us, who then stop it; and without our terminal it needs nobody in front of it.
    crate::sys::own_session(&mut command);
    Ok(command.spawn()?)
}

fn complaints(child: &mut Child) -> String {
    let mut text = String::new();
    if let Some(err) = &mut child.stderr {
        err.read_to_string(&mut text).ok();
    }
    text.trim().to_owned()
}
