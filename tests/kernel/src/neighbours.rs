//! Two supervisors on one host, and paths that somebody else has a hand in: refused by name before anything is touched.

use std::{
    fs::{self, Permissions},
    os::unix::fs::{PermissionsExt as _, chown, symlink},
    process::Command,
    time::{Duration, Instant},
};

use crate::{
    Case, Outcome, case,
    client::Client,
    configs::Place,
    ensure,
    supervisor::{Supervisor, program},
};

/// The cases.
pub const CASES: &[Case] = &[
    case("neighbours::second_supervisor_of_an_instance_is_refused_and_the_first_serves_on", same_instance),
    case("neighbours::killed_supervisor_of_an_instance_makes_room_for_one_with_another_state_dir", after_kill),
    case("neighbours::second_supervisor_on_a_socket_is_refused_and_the_first_serves_on", same_socket),
    case("neighbours::dead_socket_makes_room", dead_socket),
    case("neighbours::link_in_place_of_the_lock_is_not_written_to", link_for_lock),
    case("neighbours::state_directory_of_another_owner_is_refused_by_name", foreign_state),
    case("neighbours::configuration_that_others_can_write_is_refused_by_name", open_configuration),
    case("neighbours::groups_that_a_supervisor_can_make_are_bounded", bounded_groups),
    case("neighbours::instances_have_ids_of_their_own", own_ids),
    case("neighbours::trace_where_others_decide_is_refused_by_name", open_trace),
];

/// Runs `sublet serve`, which must end by itself. Returns what it says.
fn refused(place: &Place, config: &str, arguments: &[&str]) -> Result<String, String> {
    let path = place.write(config)?;
    let mut command = Command::new("timeout");
    // One that serves is ended, and cleans up.
    command.args(["--signal=TERM", "20"]).arg(program()).args(["serve", "--config"]).arg(path).args(arguments);
    let output = command.output().map_err(|error| error.to_string())?;
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    ensure!(output.status.code() == Some(1), "it was not refused ({}): {said}", output.status);
    Ok(said)
}

/// New workers need new groups: what a supervisor without its tree cannot give.
fn serves(supervisor: &Supervisor, customer: &str) -> Outcome {
    let mut client = Client::new(supervisor)?;
    let (answer, receipt) = client.probe(customer, "echo here")?;
    ensure!(answer == "here" && receipt.start() == sublet_proto::v1::Start::Cold, "{answer}: {receipt:?}");
    Ok(())
}

fn same_instance() -> Outcome {
    let first = Supervisor::simple("")?;
    serves(&first, "s1")?;
    let mut other = Place::new()?;
    other.instance.clone_from(&first.place.instance);
    let said = refused(&other, &other.simple(""), &[])?;
    ensure!(said.contains(&first.pid().to_string()) && said.contains("host.instance"), "{said}");
    serves(&first, "s2")?;
    first.stop()
}

fn after_kill() -> Outcome {
    let first = Supervisor::simple("")?;
    serves(&first, "s1")?;
    let old = first.kill()?;
    let mut other = Place::new()?;
    other.instance.clone_from(&old.instance);
    let text = other.simple("");
    let begin = Instant::now();
    let second = Supervisor::start(other, &text)?;
    ensure!(begin.elapsed() < Duration::from_secs(4), "the start took {:?}", begin.elapsed());
    serves(&second, "s1")?;
    second.stop()
}

fn with_socket(place: &Place, socket: &str) -> String {
    format!("{}[tenant.acme.sub_tenant]\n{}", place.host(&format!("socket = {socket:?}")), place.function("probe", ""))
}

fn same_socket() -> Outcome {
    let first = Supervisor::simple("")?;
    serves(&first, "s1")?;
    let other = Place::new()?;
    let socket = first.socket().display().to_string();
    let said = refused(&other, &with_socket(&other, &socket), &[])?;
    ensure!(said.contains("host.socket") && said.contains(&socket), "{said}");
    ensure!(!other.path("state/admin.sock").exists(), "a socket of the refused one is left");
    // The operators' is nobody else's either.
    let socket = first.admin_socket().display().to_string();
    let config = with_socket(&other, "X").replace("socket = \"X\"", &format!("admin_socket = {socket:?}"));
    let said = refused(&other, &config, &[])?;
    ensure!(said.contains("host.admin_socket") && said.contains(&socket), "{said}");
    ensure!(!other.path("state/call.sock").exists(), "a socket of the refused one is left");
    ensure!(first.admin(&["health"])?["status"] == "serving", "the first one's operators are not answered");
    serves(&first, "s2")?;
    first.stop()
}

fn dead_socket() -> Outcome {
    let place = Place::new()?;
    let socket = place.path("call.sock");
    drop(std::os::unix::net::UnixListener::bind(&socket).map_err(|error| error.to_string())?);
    let text = with_socket(&place, &socket.display().to_string());
    let supervisor = Supervisor::start(place, &text)?;
    let left = fs::read_dir(&supervisor.place.dir).map_err(|error| error.to_string())?;
    let names: Vec<String> = left.flatten().map(|entry| entry.file_name().to_string_lossy().into_owned()).collect();
    ensure!(names.iter().filter(|name| name.starts_with("call.sock")).count() == 1, "{names:?}");
    supervisor.stop()
}

fn os<T>(result: std::io::Result<T>) -> Result<T, String> {
    result.map_err(|error| error.to_string())
}

fn link_for_lock() -> Outcome {
    let place = Place::new()?;
    let target = place.path("target");
    os(fs::write(&target, "precious"))?;
    os(fs::create_dir(place.path("state")))?;
    os(symlink(&target, place.path("state/lock")))?;
    let said = refused(&place, &place.simple(""), &[])?;
    ensure!(said.contains("state/lock") && said.contains("symbolic link"), "{said}");
    // A second name for the file is as good as a link.
    os(fs::remove_file(place.path("state/lock")))?;
    os(fs::hard_link(&target, place.path("state/lock")))?;
    let said = refused(&place, &place.simple(""), &[])?;
    ensure!(said.contains("state/lock") && said.contains("2 names"), "{said}");
    let text = os(fs::read_to_string(&target))?;
    ensure!(text == "precious", "root has written to what the lock leads to: {text:?}");
    Ok(())
}

fn foreign_state() -> Outcome {
    let place = Place::new()?;
    let state = place.path("state");
    os(fs::create_dir(&state))?;
    os(chown(&state, Some(4321), Some(4321)))?;
    let said = refused(&place, &place.simple(""), &[])?;
    ensure!(said.contains("host.state_dir") && said.contains("uid 4321"), "{said}");
    ensure!(crate::configs::is_empty(&state), "something was made in it");
    // Root's, but below a directory that everybody may write to.
    os(chown(&state, Some(0), Some(0)))?;
    os(fs::set_permissions(&place.dir, Permissions::from_mode(0o777)))?;
    let said = refused(&place, &place.simple(""), &[])?;
    ensure!(said.contains(&format!("chmod go-w {}", place.dir.display())), "{said}");
    ensure!(crate::configs::is_empty(&state), "something was made in it");
    Ok(())
}

fn open_configuration() -> Outcome {
    let supervisor = Supervisor::simple("")?;
    let path = supervisor.place.path("sublet.toml");
    os(fs::set_permissions(&path, Permissions::from_mode(0o666)))?;
    let output = Command::new(program())
        .args(["reload", "--admin-socket"])
        .arg(supervisor.admin_socket())
        .output()
        .map_err(|error| error.to_string())?;
    let said = String::from_utf8_lossy(&output.stderr);
    ensure!(!output.status.success() && said.contains("chmod go-w") && said.contains("sublet.toml"), "reload: {said}");
    supervisor.stop()?;
    let place = Place::new()?;
    let path = place.write("")?;
    os(chown(&path, Some(4321), None))?;
    let said = refused(&place, &place.simple(""), &[])?;
    ensure!(said.contains("sublet.toml") && said.contains("uid 4321"), "serve: {said}");
    Ok(())
}

fn open_trace() -> Outcome {
    let place = Place::new()?;
    let open = place.path("open");
    os(fs::create_dir(&open))?;
    os(fs::set_permissions(&open, Permissions::from_mode(0o777)))?;
    let trace = open.join("calls.trace");
    let said = refused(&place, &place.simple(""), &["--record", &trace.display().to_string()])?;
    ensure!(said.contains("calls.trace") && said.contains("everybody"), "{said}");
    ensure!(!trace.exists(), "it was made");
    Ok(())
}

fn bounded_groups() -> Outcome {
    let place = Place::new()?;
    let text = format!(
        "{}[tenant.acme.sub_tenant]\n{}",
        place.host("workers_max = 4\nuid_count = 8"),
        place.function("probe", "")
    );
    let supervisor = Supervisor::start(place, &text)?;
    let mut client = Client::new(&supervisor)?;
    let (_, receipt) = client.probe("s1", "echo here")?;
    let described = supervisor.admin(&["describe", &receipt.worker])?;
    let group = described["cgroup"].as_str().ok_or("no cgroup")?;
    let (pool, _) = group.split_once("/pool/").ok_or(group)?;
    for (file, expected) in [("cgroup.max.descendants", "12"), ("cgroup.max.depth", "3")] {
        let path = format!("{pool}/pool/{file}");
        let found = os(fs::read_to_string(&path))?;
        ensure!(found.trim() == expected, "{file}: {found}");
        let owner = std::os::unix::fs::MetadataExt::uid(&os(fs::metadata(&path))?);
        ensure!(owner == 0, "{file} is of uid {owner}");
    }
    supervisor.stop()
}

/// The real uid of a process.
fn uid(pid: &str) -> Result<u32, String> {
    let status = os(fs::read_to_string(format!("/proc/{pid}/status")))?;
    let line = status.lines().find_map(|line| line.strip_prefix("Uid:")).ok_or("no uid")?;
    line.split_whitespace().next().and_then(|uid| uid.parse().ok()).ok_or_else(|| line.to_owned())
}

fn own_ids() -> Outcome {
    let ids = |supervisor: &Supervisor| -> Result<[u32; 2], String> {
        let mut client = Client::new(supervisor)?;
        let (_, receipt) = client.probe("s1", "echo here")?;
        let described = supervisor.admin(&["describe", &receipt.worker])?;
        let init = described["worker"]["pid"].to_string();
        Ok([uid(&supervisor.pid().to_string())?, uid(&init)?])
    };
    let start = |instance: &str| -> Result<Supervisor, String> {
        let mut place = Place::new()?;
        // Fixed: which block of ids a name has is decided by its hash.
        place.instance = instance.to_owned();
        let text = place.simple("");
        Supervisor::start(place, &text)
    };
    let (first, second) = (start("test-one")?, start("test-two")?);
    let (a, b) = (ids(&first)?, ids(&second)?);
    ensure!(a[0] != b[0] && a[1] != b[1], "two instances share ids: {a:?}, {b:?}");
    first.stop()?;
    second.stop()
}
