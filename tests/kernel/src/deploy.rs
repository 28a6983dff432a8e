//! New code under a running daemon: directories that are new, renamed, linked to or changed in place.

use std::{
    fs::{self, File, FileTimes},
    os::unix::fs::symlink,
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use serde_json::{Value, json};
use sublet_proto::v1::VerdictKind;
use tonic::Code;

use crate::{
    Case, Outcome, case,
    client::{Client, request},
    configs::Place,
    ensure,
    supervisor::Supervisor,
    told,
};

/// The cases.
pub const CASES: &[Case] = &[
    case("deploy::new_directory_comes_by_reload_beside_a_call_that_runs", new_directory),
    case("deploy::directory_out_of_bounds_is_refused_by_name_with_the_remedy", out_of_bounds),
    case("deploy::link_is_resolved_once_in_each_reload_and_by_nothing_else", link),
    case("deploy::no_link_leads_out_of_the_trees", link_out),
    case("deploy::code_that_is_changed_in_place_is_a_new_revision", in_place),
    case("deploy::edit_that_keeps_size_and_time_is_a_new_revision", same_size),
    case("deploy::renamed_directory_starts_nothing_before_the_reload", || renamed(true)),
    case("deploy::renamed_directory_is_found_without_trees_as_well", || renamed(false)),
    case("deploy::tree_that_cannot_be_told_is_refused_and_the_old_code_serves", untold),
];

/// A directory with a program that answers with its version, and takes two seconds when it is asked to.
fn version(dir: &Path, version: &str) -> Result<(), String> {
    told(fs::create_dir_all(dir))?;
    told(fs::write(dir.join("main.sh"), script(version)))
}

fn script(version: &str) -> String {
    format!("read -r verb || true\n[ \"$verb\" != slow ] || sleep 2\necho {version}\n")
}

/// Its function.
fn greet(place: &Place, name: &str, dir: &Path) -> String {
    let dir = dir.display().to_string();
    let settings = format!("runtime = \"exec\"\ncommand = [\"/bin/sh\", \"/function/main.sh\"]\ndir = {dir:?}");
    place.function(name, &settings)
}

/// The text before functions; with `srv` of the place as the tree of all of them, or without any.
fn host(place: &Place, has_tree: bool) -> Result<String, String> {
    told(fs::create_dir_all(place.path("srv")))?;
    let tree = format!("function_dirs = [{:?}]", place.path("srv").display().to_string());
    Ok(format!("{}[tenant.acme.sub_tenant]\n", place.host(if has_tree { &tree } else { "" })))
}

fn answer(client: &mut Client, function: &str, sub_tenant: &str) -> Result<(String, String), String> {
    let (answer, receipt) = client.ask(function, sub_tenant, "\n")?;
    Ok((answer.trim().to_owned(), receipt.worker))
}

/// What a reload has told, which must have been put in force.
fn changes(supervisor: &Supervisor) -> Result<Vec<String>, String> {
    let told = supervisor.admin(&["reload"])?;
    let changes = told["changes"].as_array().ok_or_else(|| format!("not reloaded: {told}"))?;
    Ok(changes.iter().map(|line| line.as_str().unwrap_or_default().to_owned()).collect())
}

fn refused(supervisor: &Supervisor, words: &[&str]) -> Outcome {
    let told = supervisor.admin(&["reload"])?;
    let error = told["error"].as_str().unwrap_or_default();
    for words in words.iter().chain(&["stays in force"]) {
        ensure!(error.contains(words), "{words:?} is not told: {told}");
    }
    Ok(())
}

fn revision(supervisor: &Supervisor, function: &str) -> Result<String, String> {
    let listed = supervisor.admin(&["functions"])?;
    let found = listed.as_array().and_then(|all| all.iter().find(|one| one["function"] == function)).cloned();
    let found = found.ok_or_else(|| format!("no {function} in {listed}"))?;
    Ok(found["revision"].as_str().unwrap_or_default().to_owned())
}

/// Waits until nobody but these workers is there.
fn only(supervisor: &Supervisor, workers: &[&str]) -> Outcome {
    let end = Instant::now() + Duration::from_secs(20);
    loop {
        let listed = supervisor.admin(&["ps"])?;
        let names: Vec<&Value> =
            listed.as_array().map(|all| all.iter().map(|one| &one["worker"]).collect()).unwrap_or_default();
        if names.iter().all(|name| workers.iter().any(|worker| *name == worker)) {
            return Ok(());
        }
        ensure!(Instant::now() < end, "workers of the old code stay: {listed}");
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// A call that takes two seconds, on a thread of its own.
fn slow(
    supervisor: &Supervisor,
    sub_tenant: &'static str,
) -> Result<std::thread::JoinHandle<Result<String, String>>, String> {
    let mut client = Client::new(supervisor)?;
    let call = std::thread::spawn(move || client.ask("greet", sub_tenant, "slow\n").map(|(answer, _)| answer));
    let end = Instant::now() + Duration::from_secs(20);
    while supervisor.admin(&["health"])?["calls_in_flight"] == json!(0) {
        ensure!(Instant::now() < end, "the call does not begin");
        std::thread::sleep(Duration::from_millis(20));
    }
    // It runs, and has its code open.
    std::thread::sleep(Duration::from_millis(300));
    Ok(call)
}

fn joined(call: std::thread::JoinHandle<Result<String, String>>) -> Result<String, String> {
    Ok(call.join().map_err(|_| "the call's thread failed")??.trim().to_owned())
}

/// A supervisor of one function, "greet", in its first version.
struct Greeting {
    supervisor: Supervisor,
    client: Client,
    /// Where the function is.
    dir: PathBuf,
    /// The configuration.
    text: String,
}

fn greeting(has_tree: bool) -> Result<Greeting, String> {
    let place = Place::new()?;
    let dir = place.path("srv/greet");
    version(&dir, "v1")?;
    let text = format!("{}{}", host(&place, has_tree)?, greet(&place, "greet", &dir));
    let supervisor = Supervisor::start(place, &text)?;
    let client = Client::new(&supervisor)?;
    Ok(Greeting { supervisor, client, dir, text })
}

fn new_directory() -> Outcome {
    let Greeting { supervisor, mut client, text, .. } = greeting(true)?;
    let (_, warm) = answer(&mut client, "greet", "s1")?;
    let call = slow(&supervisor, "s2")?;
    let new = supervisor.place.path("srv/hello");
    version(&new, "hello")?;
    supervisor.place.write(&format!("{text}{}", greet(&supervisor.place, "hello", &new)))?;
    let told = changes(&supervisor)?;
    ensure!(told == ["tenant.acme.function.hello: new"], "{told:?}");
    let (found, _) = answer(&mut client, "hello", "s1")?;
    ensure!(found == "hello", "the new function answers {found:?}");
    ensure!(answer(&mut client, "greet", "s1")? == ("v1".into(), warm), "the old function's worker was not kept");
    ensure!(joined(call)? == "v1", "the call that ran was cut");
    supervisor.stop()
}

fn out_of_bounds() -> Outcome {
    let place = Place::new()?;
    let (dir, elsewhere) = (place.path("srv/greet"), place.path("elsewhere/hello"));
    version(&dir, "v1")?;
    version(&elsewhere, "hello")?;
    let text = format!("{}{}", host(&place, true)?, greet(&place, "greet", &dir));
    let more = greet(&place, "hello", &elsewhere);
    let supervisor = Supervisor::start(place, &text)?;
    supervisor.place.write(&format!("{text}{more}"))?;
    refused(
        &supervisor,
        &["tenant.acme.function.hello.dir", "not below host.function_dirs", "write its tree there and restart"],
    )?;
    let wider = supervisor.place.path("elsewhere").display().to_string();
    supervisor
        .place
        .write(&format!("{text}{more}").replace("function_dirs = [", &format!("function_dirs = [{wider:?}, ")))?;
    refused(&supervisor, &["host.function_dirs", "the nursery was told once", "restart"])?;
    // Where nobody has named trees, what functions had at the start are the bounds.
    let place = stopped(supervisor)?;
    let text = format!("{}{}", host(&place, false)?, greet(&place, "greet", &place.path("srv/greet")));
    let supervisor = Supervisor::start(place, &text)?;
    let new = supervisor.place.path("srv/hello");
    version(&new, "hello")?;
    supervisor.place.write(&format!("{text}{}", greet(&supervisor.place, "hello", &new)))?;
    let remedy = format!("write host.function_dirs = [{:?}]", supervisor.place.path("srv").display().to_string());
    refused(&supervisor, &["tenant.acme.function.hello.dir", "told at the start", &remedy, "restart once"])?;
    let mut client = Client::new(&supervisor)?;
    ensure!(answer(&mut client, "greet", "s1")?.0 == "v1", "the old configuration does not serve");
    supervisor.stop()
}

/// Stops a supervisor and keeps its files.
fn stopped(mut supervisor: Supervisor) -> Result<Place, String> {
    let place = supervisor.take_place();
    supervisor.stop()?;
    Ok(place)
}

fn link() -> Outcome {
    let place = Place::new()?;
    let current = place.path("srv/greet/current");
    for name in ["v1", "v2"] {
        version(&place.path("srv/greet").join(name), name)?;
    }
    told(symlink("v1", &current))?;
    let text = format!("{}{}", host(&place, true)?, greet(&place, "greet", &current));
    let supervisor = Supervisor::start(place, &text)?;
    let mut client = Client::new(&supervisor)?;
    let (first, old) = answer(&mut client, "greet", "s1")?;
    ensure!(first == "v1", "{first}");
    let before = revision(&supervisor, "greet")?;
    // As ln -sfn does not: in one step.
    told(symlink("v2", supervisor.place.path("srv/greet/next")))?;
    told(fs::rename(supervisor.place.path("srv/greet/next"), &current))?;
    supervisor.admin(&["set", "tenant/acme/function/greet", "timeout=50s", "--for", "1h"])?;
    ensure!(answer(&mut client, "greet", "s1")? == ("v1".into(), old.clone()), "a warm worker has changed");
    let (found, cold) = answer(&mut client, "greet", "s2")?;
    ensure!(found == "v1", "a cold start before the reload answers {found:?}");
    ensure!(revision(&supervisor, "greet")? == before, "`set` has deployed code");
    let call = slow(&supervisor, "s3")?;
    let told = changes(&supervisor)?;
    let [code, dir] = &told[..] else { return Err(format!("{told:?}")) };
    ensure!(code.starts_with("tenant.acme.function.greet.code: 1 file, ") && code.contains(" -> 1 file, "), "{told:?}");
    ensure!(dir.starts_with("tenant.acme.function.greet.dir: ") && dir.ends_with("/srv/greet/v2"), "{told:?}");
    ensure!(revision(&supervisor, "greet")? != before, "the revision is the old one");
    for sub_tenant in ["s1", "s2", "s3"] {
        let (found, worker) = answer(&mut client, "greet", sub_tenant)?;
        ensure!(found == "v2" && worker != old && worker != cold, "{sub_tenant} is answered {found:?} by {worker}");
    }
    ensure!(joined(call)? == "v1", "the call that ran was cut");
    let told = changes(&supervisor)?;
    ensure!(told.is_empty(), "nothing has changed since: {told:?}");
    supervisor.stop()
}

fn link_out() -> Outcome {
    let place = Place::new()?;
    version(&place.path("srv/greet/v1"), "v1")?;
    version(&place.path("elsewhere"), "elsewhere")?;
    let current = place.path("srv/greet/current");
    told(symlink("v1", &current))?;
    let text = format!("{}{}", host(&place, true)?, greet(&place, "greet", &current));
    let supervisor = Supervisor::start(place, &text)?;
    let mut client = Client::new(&supervisor)?;
    let (_, old) = answer(&mut client, "greet", "s1")?;
    for target in ["../../elsewhere", "/etc", "../../../../../etc"] {
        told(fs::remove_file(&current))?;
        told(symlink(target, &current))?;
        refused(&supervisor, &["tenant.acme.function.greet.dir", "current leads to", "out of host.function_dirs"])?;
        ensure!(answer(&mut client, "greet", "s1")? == ("v1".into(), old.clone()), "the old code does not serve");
    }
    supervisor.stop()
}

fn in_place() -> Outcome {
    let place = Place::new()?;
    let dir = place.path("srv/greet");
    version(&dir, "v1")?;
    let settings = "cells_max = 4";
    let function = greet(&place, "greet", &dir).replace("cells_max = 0", settings);
    let text = format!("{}{function}", host(&place, true)?);
    let supervisor = Supervisor::start(place, &text)?;
    let mut client = Client::new(&supervisor)?;
    let (_, old) = answer(&mut client, "greet", "s1")?;
    let before = revision(&supervisor, "greet")?;
    let listed = supervisor.admin(&["ps"])?;
    let cells: Vec<String> = listed.as_array().map(|all| names(all)).unwrap_or_default();
    version(&dir, "version 2")?;
    let told = changes(&supervisor)?;
    ensure!(told.len() == 1 && told[0].starts_with("tenant.acme.function.greet.code: "), "{told:?}");
    ensure!(revision(&supervisor, "greet")? != before, "the revision is the old one");
    for sub_tenant in ["s1", "s2", "s3", "s4", "s5"] {
        let (found, worker) = answer(&mut client, "greet", sub_tenant)?;
        ensure!(found == "version 2", "{sub_tenant} is answered {found:?}");
        ensure!(
            worker != old && !cells.contains(&worker),
            "{sub_tenant} is answered by {worker}, made of the old code"
        );
    }
    let end = Instant::now() + Duration::from_secs(20);
    loop {
        let listed = supervisor.admin(&["ps"])?;
        let left = names(listed.as_array().ok_or("no list")?);
        if !left.contains(&old) && !cells.iter().any(|cell| left.contains(cell)) {
            break;
        }
        ensure!(Instant::now() < end, "workers or cells of the old code stay: {listed}");
        std::thread::sleep(Duration::from_millis(20));
    }
    supervisor.stop()
}

fn names(listed: &[Value]) -> Vec<String> {
    listed.iter().map(|one| one["worker"].as_str().unwrap_or_default().to_owned()).collect()
}

fn same_size() -> Outcome {
    let Greeting { supervisor, mut client, dir, .. } = greeting(false)?;
    let (_, old) = answer(&mut client, "greet", "s1")?;
    let main = dir.join("main.sh");
    let before = told(fs::metadata(&main))?;
    version(&dir, "v2")?;
    let times = FileTimes::new().set_modified(told(before.modified())?);
    told(told(File::options().write(true).open(&main))?.set_times(times))?;
    let after = told(fs::metadata(&main))?;
    ensure!(
        after.len() == before.len() && told(after.modified())? == told(before.modified())?,
        "the edit is seen by itself"
    );
    let told = changes(&supervisor)?;
    ensure!(told.len() == 1 && told[0].starts_with("tenant.acme.function.greet.code: "), "{told:?}");
    let (found, worker) = answer(&mut client, "greet", "s1")?;
    ensure!(found == "v2" && worker != old, "answered {found:?} by {worker}");
    only(&supervisor, &[&worker])?;
    supervisor.stop()
}

fn renamed(has_tree: bool) -> Outcome {
    let Greeting { supervisor, mut client, dir, .. } = greeting(has_tree)?;
    let new = supervisor.place.path("srv/new");
    version(&new, "v2")?;
    let (_, warm) = answer(&mut client, "greet", "s1")?;
    told(fs::rename(&dir, supervisor.place.path("srv/old")))?;
    told(fs::rename(&new, &dir))?;
    ensure!(answer(&mut client, "greet", "s1")? == ("v1".into(), warm.clone()), "a warm worker sees the new directory");
    let verdict = client.verdict_of(request("greet", "s2", "\n"), VerdictKind::Start, Code::FailedPrecondition)?;
    ensure!(verdict.setting == "tenant.acme.function.greet.dir", "{verdict:?}");
    let said = supervisor.told_under(&verdict.error_id)?;
    ensure!(
        said.contains("another directory than") && said.contains("run `sublet reload`"),
        "operators are told {said:?}"
    );
    let told = changes(&supervisor)?;
    ensure!(told.len() == 1 && told[0].starts_with("tenant.acme.function.greet.code: "), "{told:?}");
    for sub_tenant in ["s1", "s2"] {
        let (found, worker) = answer(&mut client, "greet", sub_tenant)?;
        ensure!(found == "v2" && worker != warm, "{sub_tenant} is answered {found:?} by {worker}");
    }
    supervisor.stop()
}

fn untold() -> Outcome {
    let Greeting { supervisor, mut client, dir, .. } = greeting(true)?;
    let (_, old) = answer(&mut client, "greet", "s1")?;
    let deep = (0..64).fold(dir.clone(), |dir, _| dir.join("d"));
    told(fs::create_dir_all(&deep))?;
    refused(&supervisor, &["tenant.acme.function.greet.dir", "is more than 64 directories deep", "make it flatter"])?;
    ensure!(answer(&mut client, "greet", "s1")? == ("v1".into(), old), "the old code does not serve");
    told(fs::remove_dir_all(dir.join("d")))?;
    changes(&supervisor)?;
    supervisor.stop()
}
