//! A worker's life and a supervisor's: warm, frozen, ended, stopped, killed.

use std::{
    os::unix::process::ExitStatusExt as _,
    process::Stdio,
    thread::sleep,
    time::{Duration, Instant},
};

use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};

use crate::{
    Case, Outcome, case,
    client::Client,
    configs::{self, Place},
    ensure,
    ground::Ground,
    litter,
    supervisor::{self, Supervisor},
};

/// The cases.
pub const CASES: &[Case] = &[
    case("life::warm_calls_find_their_worker", warm),
    case("life::idle_worker_is_frozen_and_thawed", frozen),
    case("life::idle_worker_is_ended_after_its_ttl", ttl),
    case("life::worker_is_ended_after_its_calls", calls_max),
    case("life::idle_worker_has_its_grace_to_end_by_itself_and_no_other_has", stop_grace),
    case("life::worker_in_its_grace_is_in_nobodys_way", grace_is_taken_away),
    case("life::what_a_function_leaves_running_ends_with_its_worker", daemon),
    case("life::killed_init_is_noticed_and_replaced", init_killed),
    case("life::stop_leaves_nothing", stop),
    case("life::stop_waits_for_calls_under_way", stop_waits),
    case("life::killed_supervisor_leaves_nothing_after_a_second", killed),
    case("life::killed_nursery_ends_the_supervisor_and_every_worker", nursery_killed),
    case("life::start_that_is_killed_or_stopped_at_any_moment_leaves_nothing", start_killed),
    case("life::nursery_that_is_stopped_and_left_is_named_to_the_next_start", nursery_left),
    case("life::drain_answers_what_was_accepted_and_refuses_the_rest", drain),
];

fn warm() -> Outcome {
    let supervisor = Supervisor::simple("")?;
    let mut client = Client::new(&supervisor)?;
    let (_, cold) = client.probe("s1", "echo one")?;
    ensure!(cold.start() == sublet_proto::v1::Start::Cold && cold.calls == 1, "{cold:?}");
    ensure!(cold.starting.is_some(), "a cold start says how long making the worker took");
    for at in 2..20 {
        let (_, receipt) = client.probe("s1", "echo more")?;
        ensure!(receipt.start() == sublet_proto::v1::Start::Warm, "call {at} was not warm");
        ensure!(receipt.worker == cold.worker && receipt.calls == at, "{receipt:?}");
    }
    supervisor.stop()
}

fn count(client: &mut Client) -> Result<u64, String> {
    client.probe("s1", "count")?.0.parse().map_err(|_| "no number".into())
}

fn frozen() -> Outcome {
    let supervisor = Supervisor::simple("freeze_after = \"50ms\"")?;
    let mut client = Client::new(&supervisor)?;
    client.probe("s1", "background")?;
    client.probe("s1", "sleep 100")?;
    let running = count(&mut client)?;
    ensure!(running > 10, "the thread does not run during calls: {running}");
    client.rest(Duration::from_millis(1000));
    let listed = supervisor.admin(&["ps"])?;
    ensure!(listed[0]["state"] == "frozen", "{listed}");
    let after = count(&mut client)?;
    // Not frozen, it would have counted on for a second: about a thousand.
    ensure!(after - running < 300, "the thread ran on: {running}, {after}");
    client.probe("s1", "sleep 100")?;
    ensure!(count(&mut client)? > after, "the thread does not run after the thaw");
    supervisor.stop()
}

/// Waits until there is no worker.
pub fn no_workers(supervisor: &Supervisor) -> Outcome {
    let end = Instant::now() + Duration::from_secs(20);
    loop {
        let listed = supervisor.admin(&["ps"])?;
        if listed.as_array().is_some_and(Vec::is_empty) {
            return Ok(());
        }
        ensure!(Instant::now() < end, "workers stay: {listed}");
        sleep(Duration::from_millis(20));
    }
}

fn ttl() -> Outcome {
    let supervisor = Supervisor::simple("idle_ttl = \"300ms\"\nfreeze_after = \"100ms\"")?;
    let mut client = Client::new(&supervisor)?;
    client.probe("s1", "echo here")?;
    no_workers(&supervisor)?;
    let (_, receipt) = client.probe("s1", "echo again")?;
    ensure!(receipt.calls == 1, "{receipt:?}");
    supervisor.stop()
}

fn calls_max() -> Outcome {
    let supervisor = Supervisor::simple("calls_max = 2")?;
    let mut client = Client::new(&supervisor)?;
    let calls: Result<Vec<u64>, String> = (0..4).map(|_| Ok(client.probe("s1", "echo x")?.1.calls)).collect();
    ensure!(calls? == [1, 2, 1, 2], "workers live longer than two calls");
    supervisor.stop()
}

/// All that functions have written.
fn said(supervisor: &Supervisor) -> Result<String, String> {
    let mut logs = std::process::Command::new(supervisor::program());
    let logs = logs.arg("logs").arg("--admin-socket").arg(supervisor.admin_socket());
    let output = logs.output().map_err(|error| error.to_string())?;
    ensure!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

/// What a function does when it gets SIGTERM, with the settings of one that does this.
fn on_term(trap: &str, settings: &str) -> String {
    let program = format!("trap '{trap}' TERM; /function/probe & wait; wait");
    format!("command = [\"/bin/sh\", \"-c\", {program:?}]\n{settings}")
}

fn stop_grace() -> Outcome {
    // (what it does at SIGTERM, settings, how it is ended, whether it can say goodbye)
    let cases: [(&str, &str, &[&str], bool); 5] = [
        ("echo goodbye; exit 0", "stop_grace = \"20s\"", &["evict", "--all"], true),
        // Frozen, it would not hear of it.
        ("echo goodbye; exit 0", "stop_grace = \"20s\"\nfreeze_after = \"0s\"\nidle_ttl = \"500ms\"", &[], true),
        ("echo goodbye; exit 0", "", &["evict", "--all"], false),
        // It goes on, and is killed.
        ("", "stop_grace = \"300ms\"", &["evict", "--all"], false),
        // A call that has run over is no reason for patience.
        ("echo goodbye; exit 0", "stop_grace = \"20s\"\ntimeout = \"500ms\"", &["deadline"], false),
    ];
    for (trap, settings, how, says) in cases {
        let supervisor = Supervisor::simple(&on_term(trap, settings))?;
        let mut client = Client::new(&supervisor)?;
        client.probe("s1", "echo here")?;
        match how {
            [] => {}
            ["deadline"] => {
                let answer = client.probe("s1", "sleep 60000");
                ensure!(answer.is_err(), "it ran to its end");
            }
            command => drop(supervisor.admin(command)?),
        }
        no_workers(&supervisor)?;
        let logs = said(&supervisor)?;
        ensure!(logs.contains("goodbye") == says, "{trap:?} with {settings:?} and {how:?}: {logs}");
        supervisor.stop()?;
    }
    Ok(())
}

/// The longest grace is longer than any call here may take, so that whoever waited for its end would not be answered.
fn grace_is_taken_away() -> Outcome {
    let place = Place::new()?;
    let settings = on_term("", "stop_grace = \"60s\"\ntimeout = \"10s\"\nstart_timeout = \"20s\"");
    let text =
        format!("{}[tenant.acme.sub_tenant]\n{}", place.host("workers_max = 1"), place.function("probe", &settings));
    let supervisor = Supervisor::start(place, &text)?;
    let mut client = Client::new(&supervisor)?;
    client.probe("s1", "echo here")?;
    supervisor.admin(&["evict", "--all"])?;
    let listed = supervisor.admin(&["ps"])?;
    ensure!(listed[0]["state"] == "ending", "it is not in its grace: {listed}");
    // Somebody comes who needs its place.
    client.probe("s2", "echo here")?;
    // An operator who is in a hurry sends a second signal.
    supervisor.admin(&["evict", "--all"])?;
    kill(supervisor.pid(), Signal::SIGTERM).map_err(|error| error.to_string())?;
    sleep(Duration::from_millis(200));
    supervisor.stop()
}

fn daemon() -> Outcome {
    leaves_a_process("daemon")
}

/// A call of `verb` leaves one process more in its worker, which ends with the worker.
pub fn leaves_a_process(verb: &str) -> Outcome {
    let supervisor = Supervisor::simple("")?;
    let mut client = Client::new(&supervisor)?;
    // Init, the function, and where it relays its frames the launcher.
    let processes = |worker: &str| -> Result<u64, String> {
        supervisor.admin(&["describe", worker])?["processes"].as_u64().ok_or_else(|| "no number of processes".into())
    };
    let (_, receipt) = client.probe("s1", "echo here")?;
    let before = processes(&receipt.worker)?;
    let (_, receipt) = client.probe("s1", verb)?;
    let after = processes(&receipt.worker)?;
    let expected = if Ground::find().relays() { 3 } else { 2 };
    ensure!(before == expected && after == before + 1, "{before} processes, then {after}");
    supervisor.admin(&["evict", &receipt.worker])?;
    no_workers(&supervisor)?;
    let left: Vec<String> = litter::found().into_iter().filter(|what| what.contains("/function/probe")).collect();
    ensure!(left.is_empty(), "{left:?}");
    supervisor.stop()
}

fn init_killed() -> Outcome {
    let supervisor = Supervisor::simple("")?;
    let mut client = Client::new(&supervisor)?;
    let (_, receipt) = client.probe("s1", "echo here")?;
    let pid = supervisor.admin(&["describe", &receipt.worker])?["worker"]["pid"].as_i64().ok_or("no pid")?;
    let pid = i32::try_from(pid).map_err(|error| error.to_string())?;
    kill(Pid::from_raw(pid), Signal::SIGKILL).map_err(|error| error.to_string())?;
    // Until the whole namespace is dead a call may still reach the function and die with it, as it would for any function
    // that crashes. From then on nothing can have read it: it must go to another worker, not fail.
    while std::fs::read_to_string(format!("/proc/{pid}/stat")).is_ok_and(|stat| !stat.contains(") Z ")) {
        std::thread::yield_now();
    }
    let (answer, second) = client.probe("s1", "echo on")?;
    ensure!(answer == "on" && second.worker != receipt.worker, "{second:?}");
    supervisor.stop()
}

fn stop() -> Outcome {
    let supervisor = Supervisor::simple("")?;
    let mut client = Client::new(&supervisor)?;
    for at in 0..5 {
        client.probe(&format!("s{at}"), "daemon")?;
    }
    // The directory is looked at before its owner removes it.
    let mut supervisor = supervisor;
    let place = supervisor.take_place();
    kill(supervisor.pid(), Signal::SIGTERM).map_err(|error| error.to_string())?;
    let (status, log) = supervisor.wait()?;
    ensure!(status == "exit status: 0", "{status}: {log}");
    for name in ["call.sock", "admin.sock"] {
        ensure!(!place.path("state").join(name).exists(), "{name} is left");
    }
    ensure!(configs::is_empty(&place.path("state/scratch")), "the scratch directory is not empty");
    Ok(())
}

fn stop_waits() -> Outcome {
    let supervisor = Supervisor::simple("")?;
    let mut client = Client::new(&supervisor)?;
    client.probe("s1", "echo warm")?;
    let busy = std::thread::spawn({
        let mut client = Client::new(&supervisor)?;
        move || client.probe("s1", "sleep 1000")
    });
    client.rest(Duration::from_millis(300));
    supervisor.stop()?;
    let (answer, _) = busy.join().map_err(|_| "the call's thread failed")??;
    ensure!(answer == "slept", "{answer}");
    Ok(())
}

fn killed() -> Outcome {
    let supervisor = Supervisor::simple("")?;
    let mut client = Client::new(&supervisor)?;
    for at in 0..5 {
        client.probe(&format!("s{at}"), "daemon")?;
    }
    drop(client);
    let place = supervisor.kill()?;
    let text = place.simple("");
    let next = Supervisor::start(place, &text)?;
    sleep(Duration::from_secs(1));
    let left: Vec<String> = litter::found().into_iter().filter(|what| what.contains("probe")).collect();
    ensure!(left.is_empty(), "workers of the killed run are left: {left:?}");
    let mut client = Client::new(&next)?;
    let (found, _) = client.probe("s1", "get key")?;
    ensure!(found == "-/-", "{found}");
    next.stop()
}

/// A supervisor's nursery: its first child.
pub fn nursery_of(supervisor: &Supervisor) -> Result<Pid, String> {
    let children = format!("/proc/{0}/task/{0}/children", supervisor.pid());
    let children = std::fs::read_to_string(children).map_err(|error| error.to_string())?;
    let pid = children.split_whitespace().next().and_then(|pid| pid.parse().ok()).ok_or("no nursery")?;
    Ok(Pid::from_raw(pid))
}

fn nursery_killed() -> Outcome {
    let supervisor = Supervisor::simple("")?;
    let mut client = Client::new(&supervisor)?;
    client.probe("s1", "daemon")?;
    kill(nursery_of(&supervisor)?, Signal::SIGKILL).map_err(|error| error.to_string())?;
    let mut supervisor = supervisor;
    let place = supervisor.take_place();
    let (status, log) = supervisor.wait()?;
    ensure!(status != "exit status: 0" && log.contains("nursery"), "{status}: {log}");
    // Nobody is left who could remove the groups; the next start does.
    sleep(Duration::from_millis(300));
    let left: Vec<String> = litter::found().into_iter().filter(|what| what.contains("/function/probe")).collect();
    ensure!(left.is_empty(), "workers outlive the nursery: {left:?}");
    let text = place.simple("");
    Supervisor::start(place, &text)?.stop()
}

/// Starts that are ended, each a little later than the one before.
const ENDED_STARTS: u32 = 30;

fn start_killed() -> Outcome {
    let place = Place::new()?;
    let text = place.simple("");
    let begin = Instant::now();
    let whole = Supervisor::start(place, &text)?;
    let takes = begin.elapsed();
    let mut whole = whole;
    let place = whole.take_place();
    whole.stop()?;
    let config = place.write(&text)?;
    let before = litter::found();
    for at in 0..ENDED_STARTS {
        let signal = if at % 2 == 0 { Signal::SIGKILL } else { Signal::SIGTERM };
        let mut command = supervisor::daemon();
        command.args(["serve", "--config"]).arg(&config);
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped());
        let child = command.spawn().map_err(|error| error.to_string())?;
        let after = takes * at / ENDED_STARTS;
        sleep(after);
        let pid = i32::try_from(child.id()).map_err(|error| error.to_string())?;
        kill(Pid::from_raw(pid), signal).map_err(|error| format!("{signal} after {after:?}: {error}"))?;
        // The nursery has the same standard error: this waits for its end as well.
        let output = child.wait_with_output().map_err(|error| error.to_string())?;
        let log = String::from_utf8_lossy(&output.stderr);
        let which = format!("{signal} after {after:?} of {takes:?}: {}", output.status);
        // Before there is anything to remove SIGTERM may do what it always does.
        let is_told = output.status.signal() == Some(signal as i32) || output.status.code() == Some(0);
        ensure!(is_told, "{which}: {log}");
        let left = litter::since(&before);
        ensure!(left.is_empty(), "{which}: {left:?}: {log}");
        for name in ["call.sock", "admin.sock"] {
            ensure!(!place.path("state").join(name).exists(), "{which}: {name} is left: {log}");
        }
    }
    Supervisor::start(place, &text)?.stop()
}

/// Ends a supervisor while its nursery is stopped and a worker is frozen.
fn leave_a_stopped_nursery() -> Result<(Place, Pid), String> {
    let supervisor = Supervisor::simple("freeze_after = \"50ms\"")?;
    let mut client = Client::new(&supervisor)?;
    client.probe("s1", "daemon")?;
    let end = Instant::now() + Duration::from_secs(20);
    while supervisor.admin(&["ps"])?[0]["state"] != "frozen" {
        ensure!(Instant::now() < end, "the worker is not frozen");
        sleep(Duration::from_millis(20));
    }
    let nursery = nursery_of(&supervisor)?;
    kill(nursery, Signal::SIGSTOP).map_err(|error| error.to_string())?;
    Ok((supervisor.kill()?, nursery))
}

/// A start that is refused.
fn refused(place: &Place, text: &str) -> Result<String, String> {
    let config = place.write(text)?;
    let output =
        supervisor::daemon().args(["serve", "--config"]).arg(config).output().map_err(|error| error.to_string())?;
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    if output.status.code() == Some(1) { Ok(said) } else { Err(format!("{}: {said}", output.status)) }
}

fn nursery_left() -> Outcome {
    for signal in [Signal::SIGCONT, Signal::SIGKILL] {
        let (place, nursery) = leave_a_stopped_nursery()?;
        let text = place.simple("");
        let state = place.path("state").display().to_string();
        // One in the same state directory, and one that would have the same groups alone.
        let other = text.replace(&state, &place.path("other").display().to_string());
        let said = [refused(&place, &text), refused(&place, &other)];
        kill(nursery, signal).map_err(|error| error.to_string())?;
        for said in said {
            let said = said?;
            let remedies = [format!("kill -CONT {nursery}"), format!("kill -KILL {nursery}")];
            ensure!(said.contains("is stopped") && remedies.iter().all(|remedy| said.contains(remedy)), "{said}");
        }
        Supervisor::start(place, &text)?.stop().map_err(|error| format!("after {signal}: {error}"))?;
        let left: Vec<String> = litter::found().into_iter().filter(|what| what.contains("/function/probe")).collect();
        ensure!(left.is_empty(), "after {signal}: {left:?}");
    }
    Ok(())
}

fn drain() -> Outcome {
    let supervisor = Supervisor::simple("")?;
    let mut client = Client::new(&supervisor)?;
    client.probe("s1", "echo warm")?;
    let busy = std::thread::spawn({
        let mut client = Client::new(&supervisor)?;
        move || client.probe("s1", "sleep 1000")
    });
    client.rest(Duration::from_millis(300));
    let drained = supervisor.admin(&["drain"])?;
    ensure!(drained["cut"] == 0, "{drained}");
    let (answer, _) = busy.join().map_err(|_| "the call's thread failed")??;
    ensure!(answer == "slept", "{answer}");
    let refused = client.call(crate::client::request("probe", "s1", "echo late"));
    let status = refused.err().ok_or("a call was taken after the drain")?;
    ensure!(crate::client::reason(&status) == "DRAINING", "{status:?}");
    ensure!(supervisor.admin(&["health"])?["status"] == "draining", "health does not say so");
    supervisor.stop()
}
