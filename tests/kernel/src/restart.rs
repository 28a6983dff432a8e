//! A daemon whose sockets somebody else holds: callers wait while it is started anew, and nobody is refused.

use std::{
    fs,
    io::{BufRead as _, BufReader, Write as _},
    net::TcpListener,
    os::unix::fs::PermissionsExt as _,
    path::PathBuf,
    process::{Child, ChildStdin, ChildStdout, Command, Stdio},
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    thread::JoinHandle,
    time::{Duration, Instant},
};

use sublet_proto::v1::invoker_client::InvokerClient;
use tokio::runtime::Runtime;
use tonic::{
    Status,
    transport::{Channel, Endpoint},
};

use crate::{
    Case, Outcome, case,
    client::{connect, request},
    configs::Place,
    ensure,
    supervisor::program,
    told,
};

/// The cases.
pub const CASES: &[Case] = &[
    case("restart::callers_wait_at_sockets_that_were_handed_in_and_nobody_is_refused", under_load),
    case("restart::socket_that_was_handed_in_and_is_not_configured_is_refused_by_name", misplaced),
    case("restart::mode_of_a_socket_that_was_handed_in_must_be_the_configured_one", wrong_mode),
];

const HOLDER: &str = include_str!("restart/holder.py");
const RESTARTS: u32 = 3;
/// Between restarts; the load goes on meanwhile.
const PAUSE: Duration = Duration::from_millis(400);

/// A program that holds the sockets.
struct Holder {
    child: Child,
    commands: Option<ChildStdin>,
    answers: BufReader<ChildStdout>,
    place: Place,
}

impl Holder {
    /// Listens on these, and starts nothing yet.
    fn new(place: Place, config: &str, addresses: &[String]) -> Result<Self, String> {
        let state = place.path("state");
        told(fs::create_dir(&state))?;
        told(fs::set_permissions(&state, fs::Permissions::from_mode(0o755)))?;
        let config = place.write(config)?;
        let script = place.path("holder.py");
        told(fs::write(&script, HOLDER))?;
        let mut command = Command::new("python3");
        command.arg("-I").arg(&script).arg(program()).arg(config).args(addresses);
        let child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn();
        let mut child = child.map_err(|error| format!("start python3: {error}"))?;
        let (commands, answers) = (child.stdin.take(), child.stdout.take().ok_or("no standard output")?);
        Ok(Self { child, commands, answers: BufReader::new(answers), place })
    }

    fn ask(&mut self, command: &str) -> Result<String, String> {
        let commands = self.commands.as_mut().ok_or("it has ended")?;
        told(writeln!(commands, "{command}"))?;
        let mut answer = String::new();
        told(self.answers.read_line(&mut answer))?;
        Ok(answer.trim().to_owned())
    }

    /// Lets it end. Returns what it and its daemons had to say.
    fn end(mut self) -> Result<String, String> {
        drop(self.commands.take());
        let output = {
            let mut text = String::new();
            if let Some(mut stderr) = self.child.stderr.take() {
                told(std::io::Read::read_to_string(&mut stderr, &mut text))?;
            }
            text
        };
        told(self.child.wait())?;
        Ok(output)
    }

    fn socket(&self) -> PathBuf {
        self.place.path("state/call.sock")
    }
}

impl Drop for Holder {
    fn drop(&mut self) {
        // A case that failed half-way. The daemon is not its child's child only: it is told by its own end.
        drop(self.commands.take());
        if let Ok(None) = self.child.try_wait() {
            let children = fs::read_to_string(format!("/proc/{0}/task/{0}/children", self.child.id()));
            for pid in children.unwrap_or_default().split_whitespace().filter_map(|pid| pid.parse().ok()) {
                nix::sys::signal::kill(nix::unistd::Pid::from_raw(pid), nix::sys::signal::Signal::SIGTERM).ok();
            }
            std::thread::sleep(Duration::from_millis(500));
            self.child.kill().ok();
            self.child.wait().ok();
        }
    }
}

/// What callers have seen, all together.
#[derive(Debug, Default)]
struct Seen {
    stop: AtomicBool,
    answers: AtomicU64,
    longest_micros: AtomicU64,
    /// Calls that the client library had not sent when their connection closed, and that were made again.
    unsent: AtomicU64,
    errors: Mutex<Vec<String>>,
}

impl Seen {
    fn note(&self, began: Instant, outcome: Result<String, String>) {
        match outcome {
            Ok(_) => {
                self.answers.fetch_add(1, Ordering::Relaxed);
                let took = u64::try_from(began.elapsed().as_micros()).unwrap_or(u64::MAX);
                self.longest_micros.fetch_max(took, Ordering::Relaxed);
            }
            Err(error) => self.errors.lock().unwrap_or_else(std::sync::PoisonError::into_inner).push(error),
        }
    }
}

/// A call on a connection that is just being closed is not sent at all, or the daemon says by GOAWAY that it has not looked at
/// it (RFC 9113, 6.8). gRPC libraries make such a call again by themselves; tonic hands it back. No daemon has refused it.
fn is_unsent(status: &Status) -> bool {
    let said = format!("{status:?}");
    said.contains("hyper::Error(Canceled, \"connection closed\")") || said.contains("GoAway(b\"\", NO_ERROR, Remote)")
}

async fn echo(seen: &Seen, client: &mut InvokerClient<Channel>, sub_tenant: &str) -> Result<String, String> {
    loop {
        match client.invoke(request("probe", sub_tenant, "echo on")).await {
            Ok(answer) => return Ok(String::from_utf8_lossy(&answer.into_inner().payload).into_owned()),
            Err(status) if is_unsent(&status) => drop(seen.unsent.fetch_add(1, Ordering::Relaxed)),
            Err(status) => return Err(format!("{:?}: {status:?}", status.code())),
        }
    }
}

/// Calls over and over: on one connection, as long as it lasts, or on a new one each time.
fn caller(seen: &Arc<Seen>, endpoint: Endpoint, keeps: bool, sub_tenant: String) -> JoinHandle<()> {
    let seen = seen.clone();
    std::thread::spawn(move || {
        let runtime = Runtime::new().expect("a runtime");
        let mut kept = None;
        while !seen.stop.load(Ordering::Relaxed) {
            let began = Instant::now();
            let outcome = runtime.block_on(async {
                let mut client = match kept.take() {
                    Some(client) => client,
                    None => {
                        InvokerClient::new(endpoint.connect().await.map_err(|error| format!("connect: {error:?}"))?)
                    }
                };
                let answer = echo(&seen, &mut client, &sub_tenant).await;
                kept = keeps.then_some(client);
                answer
            });
            seen.note(began, outcome);
        }
    })
}

fn text(place: &Place, more: &str) -> String {
    let host = place.host(more);
    format!("{host}[tenant.acme.sub_tenant]\n{}", place.function("probe", ""))
}

fn addresses(place: &Place) -> Vec<String> {
    ["state/call.sock", "state/admin.sock"].map(|name| place.path(name).display().to_string()).into()
}

fn under_load() -> Outcome {
    let place = Place::new()?;
    // Free a moment ago; nobody else takes ports while the cases run.
    let port = told(told(TcpListener::bind("127.0.0.1:0"))?.local_addr())?.port();
    let config = text(&place, &format!("listen = \"127.0.0.1:{port}\""));
    let mut all = addresses(&place);
    all.push(port.to_string());
    let mut holder = Holder::new(place, &config, &all)?;
    let began = holder.ask("start")?;
    if began != "serving" {
        return Err(format!("{began}: {}", holder.end()?));
    }
    let by_path = told(Endpoint::from_shared(format!("unix:{}", holder.socket().display())))?;
    let by_port = told(Endpoint::from_shared(format!("http://127.0.0.1:{port}")))?;
    let seen = Arc::new(Seen::default());
    let callers: Vec<_> = [(&by_path, true), (&by_path, false), (&by_port, true), (&by_port, false)]
        .into_iter()
        .enumerate()
        .map(|(number, (endpoint, keeps))| caller(&seen, endpoint.clone(), keeps, format!("s{number}")))
        .collect();
    let mut gaps = Vec::new();
    let mut slow_answers = Vec::new();
    for _ in 0..RESTARTS {
        std::thread::sleep(PAUSE);
        // A call that runs when the daemon is told to stop has its answer before it stops.
        let path = holder.socket();
        let slow = std::thread::spawn(move || -> Result<String, String> {
            let runtime = told(Runtime::new())?;
            runtime.block_on(async {
                let mut client = connect(&path).await?;
                let answer = client.invoke(request("probe", "slow", "sleep 700")).await;
                let answer = answer.map_err(|status| format!("{status:?}"))?;
                Ok(String::from_utf8_lossy(&answer.into_inner().payload).into_owned())
            })
        });
        std::thread::sleep(PAUSE);
        let longest = seen.longest_micros.swap(0, Ordering::Relaxed);
        let told = holder.ask("restart")?;
        slow_answers.push(slow.join().map_err(|_| "the thread of a slow call failed")?);
        let gap: f64 = told.parse().map_err(|_| format!("not restarted: {told}"))?;
        gaps.push((longest, gap));
    }
    std::thread::sleep(PAUSE);
    seen.stop.store(true, Ordering::Relaxed);
    for caller in callers {
        caller.join().map_err(|_| "a caller failed")?;
    }
    let (answers, longest) = (seen.answers.load(Ordering::Relaxed), seen.longest_micros.load(Ordering::Relaxed));
    eprintln!(
        "restart: {answers} answers, {} calls made again unsent; no daemon for {:?} ms; the longest call took {} ms",
        seen.unsent.load(Ordering::Relaxed),
        gaps.iter().map(|(_, gap)| *gap).collect::<Vec<_>>(),
        gaps.iter().map(|(longest, _)| *longest).skip(1).chain([longest]).max().unwrap_or(0) / 1000
    );
    let errors = seen.errors.lock().unwrap_or_else(std::sync::PoisonError::into_inner).clone();
    ensure!(errors.is_empty(), "{} of {answers} calls were refused: {:?}", errors.len(), errors.first());
    ensure!(slow_answers.iter().all(|answer| answer.as_deref() == Ok("slept")), "{slow_answers:?}");
    let ended = holder.ask("stop")?;
    ensure!(ended == "0 True", "it ended with {ended}: a socket is gone, or it did not end well");
    let log = holder.end()?;
    // Others may have come with whoever runs the cases.
    ensure!(!log.lines().any(|line| line.contains("closed descriptors") && line.contains("socket:")), "{log}");
    Ok(())
}

/// Starts one that must refuse, and returns why.
fn refusal(place: Place, config: &str, addresses: &[String]) -> Result<String, String> {
    let mut holder = Holder::new(place, config, addresses)?;
    let began = holder.ask("start")?;
    ensure!(began == "failed", "it serves");
    let kept = addresses.iter().all(|address| PathBuf::from(address).exists());
    ensure!(kept, "a socket that was handed in has been removed");
    holder.end()
}

fn misplaced() -> Outcome {
    let place = Place::new()?;
    let other = place.path("other.sock").display().to_string();
    let (config, mut all) = (text(&place, ""), addresses(&place));
    all.push(other.clone());
    let log = refusal(place, &config, &all)?;
    for words in ["descriptor 5", "socket-2", &other, "host.socket = ", "host.admin_socket = "] {
        ensure!(log.contains(words), "{words:?} is not told: {log}");
    }
    Ok(())
}

fn wrong_mode() -> Outcome {
    let place = Place::new()?;
    let (config, all) = (text(&place, "socket_mode = \"0660\""), addresses(&place));
    let log = refusal(place, &config, &all)?;
    for words in ["host.socket", "mode 0600", "0660", "SocketMode=0660"] {
        ensure!(log.contains(words), "{words:?} is not told: {log}");
    }
    Ok(())
}
