//! Files that a supervisor lives by, removed behind its back: made anew, or named.

use std::{
    fs,
    io::ErrorKind,
    os::unix::fs::{FileTypeExt as _, MetadataExt as _},
    path::Path,
    thread::sleep,
    time::{Duration, Instant},
};

use nix::sys::signal::{Signal, kill};

use crate::{Case, Outcome, case, client::Client, configs::Place, ensure, supervisor::Supervisor};

/// The cases.
pub const CASES: &[Case] = &[
    case("places::scratch_that_was_removed_or_moved_is_made_anew", scratch),
    case("places::sockets_that_were_removed_are_made_anew_and_what_replaced_one_is_named", sockets),
    case("places::state_directory_that_was_removed_is_made_anew_with_all_that_is_in_it", whole_directory),
    case("places::log_file_that_was_removed_is_begun_anew_and_its_directory_is_named", logs),
    case("places::nursery_that_does_not_answer_is_told_by_health", stopped_nursery),
];

/// Patience for what takes a second by itself.
const PATIENCE: Duration = Duration::from_secs(30);

fn until(what: &str, mut holds: impl FnMut() -> Result<bool, String>) -> Outcome {
    let end = Instant::now() + PATIENCE;
    while !holds()? {
        ensure!(Instant::now() < end, "{what}: not in time");
        sleep(Duration::from_millis(20));
    }
    Ok(())
}

fn is_socket(path: &Path) -> bool {
    fs::symlink_metadata(path).is_ok_and(|found| found.file_type().is_socket())
}

fn health(supervisor: &Supervisor) -> Result<(String, String), String> {
    let health = supervisor.admin(&["health"])?;
    Ok((health["status"].as_str().unwrap_or_default().to_owned(), health["troubles"].to_string()))
}

/// By a worker that has to be made.
fn starts(supervisor: &Supervisor, customer: &str) -> Outcome {
    let (answer, receipt) = Client::new(supervisor)?.probe(customer, "echo here")?;
    ensure!(answer == "here" && receipt.start() == sublet_proto::v1::Start::Cold, "{answer}: {receipt:?}");
    Ok(())
}

fn scratch() -> Outcome {
    let supervisor = Supervisor::simple("")?;
    starts(&supervisor, "before")?;
    let scratch = supervisor.place.path("state/scratch");
    fs::remove_dir(&scratch).map_err(|error| error.to_string())?;
    starts(&supervisor, "removed")?;
    ensure!(scratch.is_dir(), "the directory was not made anew");
    let aside = supervisor.place.path("aside");
    fs::rename(&scratch, &aside).map_err(|error| error.to_string())?;
    starts(&supervisor, "moved")?;
    fs::remove_dir(&aside).map_err(|error| error.to_string())?;
    starts(&supervisor, "after")?;
    // What cannot be made anew is named for as long as it is so.
    fs::remove_dir(&scratch).map_err(|error| error.to_string())?;
    fs::write(&scratch, "").map_err(|error| error.to_string())?;
    until("health tells of the file", || {
        let (status, troubles) = health(&supervisor)?;
        Ok(status == "impaired" && troubles.contains("/state/scratch") && troubles.contains("remove"))
    })?;
    fs::remove_file(&scratch).map_err(|error| error.to_string())?;
    until("health is well again", || Ok(health(&supervisor)?.0 == "serving"))?;
    starts(&supervisor, "at last")?;
    supervisor.stop()
}

fn sockets() -> Outcome {
    let place = Place::new()?;
    let text = format!(
        "{}[tenant.acme.sub_tenant]\n{}",
        place.host("socket_mode = \"0660\"\nsocket_gid = 33"),
        place.function("probe", "")
    );
    let supervisor = Supervisor::start(place, &text)?;
    let mut connected = Client::new(&supervisor)?;
    connected.probe("s1", "echo before")?;
    for path in [supervisor.socket(), supervisor.admin_socket()] {
        fs::remove_file(&path).map_err(|error| error.to_string())?;
    }
    until("both sockets are back", || {
        Ok([supervisor.socket(), supervisor.admin_socket()].iter().all(|path| is_socket(path)))
    })?;
    until("callers and operators are taken", || {
        Ok(Client::new(&supervisor).is_ok() && supervisor.admin(&["health"]).is_ok())
    })?;
    starts(&supervisor, "s2")?;
    // Who was connected before is so still.
    connected.probe("s1", "echo after")?;
    let found = fs::metadata(supervisor.socket()).map_err(|error| error.to_string())?;
    ensure!(found.mode() & 0o7777 == 0o660 && found.gid() == 33, "mode {:o}, group {}", found.mode(), found.gid());
    let found = fs::metadata(supervisor.admin_socket()).map_err(|error| error.to_string())?;
    ensure!(found.mode() & 0o7777 == 0o600, "mode {:o}", found.mode());
    // Something else in its place is left alone, and named.
    fs::remove_file(supervisor.socket()).map_err(|error| error.to_string())?;
    let other = std::os::unix::net::UnixListener::bind(supervisor.socket()).map_err(|error| error.to_string())?;
    until("health names what replaced the socket", || {
        let (status, troubles) = health(&supervisor)?;
        Ok(status == "impaired" && troubles.contains("host.socket") && troubles.contains("remove"))
    })?;
    connected.probe("s1", "echo still")?;
    drop(other);
    fs::remove_file(supervisor.socket()).map_err(|error| error.to_string())?;
    until("it is back", || Ok(Client::new(&supervisor).is_ok() && health(&supervisor)?.0 == "serving"))?;
    let place = supervisor.place.path("state");
    let mut supervisor = supervisor;
    let _kept = supervisor.take_place();
    kill(supervisor.pid(), Signal::SIGTERM).map_err(|error| error.to_string())?;
    let (status, log) = supervisor.wait()?;
    ensure!(status == "exit status: 0", "{status}: {log}");
    for name in ["call.sock", "admin.sock"] {
        let left = fs::symlink_metadata(place.join(name)).err().map(|error| error.kind());
        ensure!(left == Some(ErrorKind::NotFound), "{name} is left");
    }
    ensure!(log.contains("made anew"), "the log does not tell: {log}");
    Ok(())
}

fn whole_directory() -> Outcome {
    let supervisor = Supervisor::simple("")?;
    starts(&supervisor, "before")?;
    let state = supervisor.place.path("state");
    fs::remove_dir_all(&state).map_err(|error| error.to_string())?;
    until("callers are taken again", || Ok(Client::new(&supervisor).is_ok()))?;
    starts(&supervisor, "after")?;
    until("all is well", || {
        Ok(supervisor.admin(&["health"]).is_ok_and(|health| health["status"] == "serving")
            && state.join("lock").exists())
    })?;
    // The lock is held: another supervisor does not take the directory.
    let other = Place::new()?;
    let text = other.simple("").replace(&other.path("state").display().to_string(), &state.display().to_string());
    let refused = Supervisor::start(other, &text).err().ok_or("another took the directory")?;
    ensure!(refused.contains("another supervisor"), "{refused}");
    starts(&supervisor, "at last")?;
    supervisor.stop()
}

fn logs() -> Outcome {
    let place = Place::new()?;
    let dir = place.path("logs");
    let host = place.host(&format!("log = \"files\"\nlog_dir = {:?}", dir.display().to_string()));
    let text = format!("{host}[tenant.acme.sub_tenant]\n{}", place.function("probe", ""));
    let supervisor = Supervisor::start(place, &text)?;
    let mut client = Client::new(&supervisor)?;
    let file = dir.join("functions.log");
    let holds = || fs::read_to_string(&file).is_ok_and(|text| text.contains("mumble done"));
    client.probe("s1", "mumble 1")?;
    until("the first line is written", || Ok(holds()))?;
    fs::remove_file(&file).map_err(|error| error.to_string())?;
    client.probe("s1", "mumble 1")?;
    until("the second line is written", || Ok(holds()))?;
    fs::remove_dir_all(&dir).map_err(|error| error.to_string())?;
    until("health names the directory", || {
        client.probe("s1", "mumble 1")?;
        let (status, troubles) = health(&supervisor)?;
        Ok(status == "impaired" && troubles.contains("host.log_dir"))
    })?;
    supervisor.stop()
}

fn stopped_nursery() -> Outcome {
    let supervisor = Supervisor::simple("")?;
    starts(&supervisor, "before")?;
    let nursery = crate::life::nursery_of(&supervisor)?;
    kill(nursery, Signal::SIGSTOP).map_err(|error| error.to_string())?;
    let told = until("health tells of it", || {
        let (status, troubles) = health(&supervisor)?;
        Ok(status == "impaired" && troubles.contains("nursery"))
    });
    kill(nursery, Signal::SIGCONT).map_err(|error| error.to_string())?;
    told?;
    until("health is well again", || Ok(health(&supervisor)?.0 == "serving"))?;
    starts(&supervisor, "after")?;
    supervisor.stop()
}
