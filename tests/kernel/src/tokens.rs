//! The sub-tenant's token: whose it is, where it is to be seen and where not, when it is renewed, what is told without one.

use std::{
    fs::{self, Permissions},
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
    process::Command,
    thread::sleep,
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

use nix::{
    sys::signal::{Signal, kill},
    unistd::{Gid, Uid, chown},
};
use serde_json::{Value, json};
use sublet_proto::v1::{Start, VerdictKind};
use tonic::Code;

use crate::{
    Case, Outcome, case,
    client::{Client, request},
    configs::Place,
    ensure,
    ground::Ground,
    supervisor::{self, Supervisor},
};

mod jwt;

/// The cases.
pub const CASES: &[Case] = &[
    case("tokens::each_worker_reads_its_own_and_it_is_nowhere_else", own),
    case("tokens::cell_has_none_before_it_is_labelled", cell),
    case("tokens::exec_function_has_it_on_a_descriptor", exec),
    case("tokens::file_is_read_again_and_one_that_is_open_to_all_is_refused", reread),
    case("tokens::lambda_function_gets_it_from_its_api", lambda),
    case("tokens::token_is_renewed_while_the_worker_lives_and_before_a_frozen_one_is_called", renewed),
    case("tokens::provider_that_is_down_fails_its_own_calls_once_the_token_has_expired", down),
    case("tokens::jwt_says_whose_it_is_and_keys_are_changed_by_reload", jwt::signed),
];

/// Who the supervisor is once it has started: by default it is another id for each instance.
const SUPERVISOR: u32 = 1_879_048_190;
/// Where functions find it.
const FILE: &str = "/run/sublet/token";

fn os(error: impl std::fmt::Display) -> String {
    error.to_string()
}

/// Lets the supervisor read a file, or enter a directory, and nobody else but root.
fn give(path: &Path) -> Result<(), String> {
    chown(path, None, Some(Gid::from_raw(SUPERVISOR))).map_err(os)?;
    let mode = if path.is_dir() { 0o750 } else { 0o640 };
    fs::set_permissions(path, Permissions::from_mode(mode)).map_err(os)
}

/// A directory with a token for each of these names. Returns the settings that say so.
fn files(place: &Place, tokens: &[(&str, &str)]) -> Result<String, String> {
    let dir = place.path("tokens");
    fs::create_dir(&dir).map_err(os)?;
    give(&dir)?;
    for (name, token) in tokens {
        fs::write(dir.join(name), token).map_err(os)?;
        give(&dir.join(name))?;
    }
    Ok(format!("token.provider = \"static\"\ntoken.dir = {:?}\n", dir.display().to_string()))
}

fn config(place: &Place, functions: &[String]) -> String {
    format!("{}[tenant.acme.sub_tenant]\n{}", place.host(&format!("supervisor_uid = {SUPERVISOR}")), functions.concat())
}

fn own() -> Outcome {
    let place = Place::new()?;
    let with = files(&place, &[("s1", "secret-one"), ("a%2Fb", "secret-two\n")])?;
    let text = config(&place, &[place.function("probe", &with), place.function("bare", "")]);
    let supervisor = Supervisor::start_logging(place, &text, "sublet_supervisor=trace,sublet_shim=trace,sublet=trace")?;
    let mut client = Client::new(&supervisor)?;
    let plan = |function: &str| -> Result<String, String> {
        let path = supervisor.place.path("sublet.toml");
        let output = Command::new(supervisor::program()).args(["plan", function, "--config"]).arg(path).output();
        Ok(String::from_utf8_lossy(&output.map_err(os)?.stdout).into_owned())
    };
    let step = "mount tmpfs /run/sublet with size=65536,nr_inodes=4, read-only for all but init";
    let (planned, bare) = (plan("probe")?, plan("bare")?);
    ensure!(
        planned.contains(step) && bare.contains("mount tmpfs /tmp") && !bare.contains("/run/sublet"),
        "{planned}{bare}"
    );
    // What is tried inside works outside.
    let outside = supervisor.place.path("written");
    let wrote = Command::new(supervisor::probe()).arg("write").arg(&outside).output().map_err(os)?;
    ensure!(wrote.stdout == b"written", "{wrote:?}");
    for (label, token) in [("s1", "secret-one"), ("a/b", "secret-two")] {
        let (found, receipt) = client.probe(label, &format!("read {FILE}"))?;
        ensure!(found == token, "{label} reads {found:?}");
        let (environment, _) = client.probe(label, "read /proc/self/environ")?;
        ensure!(environment.contains("\0SUBLET_TOKEN_FILE=/run/sublet/token\0"), "{environment:?}");
        ensure!(!environment.contains("secret") && !environment.contains("SUBLET_TOKEN_FD"), "{environment:?}");
        let (names, _) = client.probe(label, "list /run/sublet")?;
        ensure!(names == "token", "{names:?}");
        for path in [FILE, "/run/sublet/new", "/run/sublet/other"] {
            let error = client.probe(label, &format!("write {path}")).err().ok_or(format!("{path} is written"))?;
            ensure!(error.contains(&format!("create {path}: ")), "{error}");
        }
        let described = supervisor.admin(&["describe", &receipt.worker])?;
        ensure!(described["token"]["provider"] == "static" && described["token"]["issued"].is_string(), "{described}");
        ensure!(described["token"]["expires"].is_null(), "{described}");
        ensure!(!described.to_string().contains("secret"), "{described}");
    }
    // Who has no file has no worker; who is given no token sees no place for one.
    let verdict = client.verdict_of(request("probe", "s2", "echo"), VerdictKind::Token, Code::Unavailable)?;
    ensure!(verdict.setting == "tenant.acme.function.probe.token.dir", "{verdict:?}");
    let told = supervisor.told_under(&verdict.error_id)?;
    ensure!(told.ends_with("/tokens/s2 does not exist"), "{told}");
    let (environment, _) = client.ask("bare", "s1", "read /proc/self/environ")?;
    ensure!(!environment.contains("SUBLET_TOKEN"), "{environment:?}");
    let error = client.ask("bare", "s1", &format!("read {FILE}")).err().ok_or("there is one")?;
    ensure!(error.contains("No such file"), "{error}");

    kill(supervisor.pid(), Signal::SIGTERM).map_err(os)?;
    let (status, log) = supervisor.wait()?;
    ensure!(status == "exit status: 0" && log.contains("DEBUG") && !log.contains("secret"), "{status}: {log}");
    Ok(())
}

/// What is in the token's place of a sandbox, by the pid of its init.
fn seen_from_outside(described: &Value) -> Result<Vec<String>, String> {
    let dir = format!("/proc/{}/root/run/sublet", described["worker"]["pid"]);
    let entries = fs::read_dir(&dir).map_err(|error| format!("{dir}: {error}"))?;
    entries.map(|entry| entry.map(|entry| entry.file_name().to_string_lossy().into_owned()).map_err(os)).collect()
}

fn cell() -> Outcome {
    let place = Place::new()?;
    let with = files(&place, &[("s1", "secret-one"), ("s2", "secret-two")])?;
    let text = config(&place, &[place.function("probe", &format!("{with}cells_max = 1"))]);
    let supervisor = Supervisor::start(place, &text)?;
    let mut client = Client::new(&supervisor)?;
    let (_, first) = client.probe("s1", "echo")?;
    let labelled = supervisor.admin(&["describe", &first.worker])?;
    ensure!(seen_from_outside(&labelled)? == ["token"], "it cannot be seen from outside at all");
    let end = Instant::now() + Duration::from_secs(20);
    let cell = loop {
        let listed = supervisor.admin(&["ps"])?;
        let cell = listed.as_array().into_iter().flatten().find(|worker| worker["state"] == "cell");
        if let Some(name) = cell.and_then(|cell| cell["worker"].as_str()) {
            break supervisor.admin(&["describe", name])?;
        }
        ensure!(Instant::now() < end, "no cell is made: {listed}");
        sleep(Duration::from_millis(5));
    };
    ensure!(seen_from_outside(&cell)?.is_empty(), "{cell}");
    ensure!(cell["token"]["provider"] == "static" && cell["token"]["issued"].is_null(), "{cell}");
    let facts = cell["posture"].as_array().cloned().unwrap_or_default();
    let is_mount = |fact: &&Value| fact["name"].as_str().is_some_and(|name| name.contains("/run/sublet"));
    ensure!(facts.iter().any(|fact| is_mount(&fact) && fact["ok"] == true), "{facts:?}");
    let (found, second) = client.probe("s2", &format!("read {FILE}"))?;
    ensure!(second.start() == Start::Cell && cell["worker"]["worker"] == second.worker.as_str(), "{second:?}");
    ensure!(found == "secret-two", "{found}");
    supervisor.stop()
}

/// A function that does what its payload says.
const SHELL: &str = "runtime = \"exec\"\ncommand = [\"/bin/sh\", \"-c\", 'eval \"$(cat)\"']\n";

fn exec() -> Outcome {
    let place = Place::new()?;
    let with = files(&place, &[("s1", "secret-one")])?;
    let functions = [place.function("probe", &format!("{SHELL}{with}")), place.function("bare", SHELL)];
    let text = config(&place, &functions);
    let supervisor = Supervisor::start(place, &text)?;
    let mut client = Client::new(&supervisor)?;
    for start in [Start::Cold, Start::Warm] {
        let (found, receipt) = client
            .probe("s1", "cat <&3; echo; echo $SUBLET_TOKEN_FD; cat $SUBLET_TOKEN_FILE; echo; echo /proc/$$/fd/*")?;
        let lines: Vec<&str> = found.lines().collect();
        ensure!(lines[..3] == ["secret-one", "3", "secret-one"] && receipt.start() == start, "{found} {receipt:?}");
        let descriptors: Vec<&str> = lines[3].split(' ').filter_map(|path| path.rsplit('/').next()).collect();
        ensure!(descriptors.len() <= 5 && descriptors.starts_with(&["0", "1", "2", "3"]), "{found}");
    }
    // No process of the sandbox has it in its environment, none can write by the descriptor, and none can take it away.
    let environments = "cat /proc/[0-9]*/environ | tr '\\0' '\\n'";
    let (found, _) = client
        .probe("s1", &format!("{environments} | grep -c SUBLET_TOKEN; {environments} | grep -c secret-; true"))?;
    let counts: Vec<u32> = found.lines().filter_map(|line| line.parse().ok()).collect();
    ensure!(counts.len() == 2 && counts[0] >= 2 && counts[1] == 0, "{found}");
    let (found, _) = client.probe("s1", "(echo x >&3) && echo wrote; rm -f /run/sublet/token && echo gone; cat <&3")?;
    ensure!(found == "secret-one", "{found}");
    let (found, _) = client.ask("bare", "s1", "echo /proc/$$/fd/* $SUBLET_TOKEN_FD$SUBLET_TOKEN_FILE")?;
    ensure!(!found.contains("/fd/3 ") && !found.contains("/run"), "{found}");
    supervisor.stop()
}

fn reread() -> Outcome {
    let place = Place::new()?;
    let with = files(&place, &[("s1", "first"), ("open", "everybodys")])?;
    fs::set_permissions(place.path("tokens/open"), Permissions::from_mode(0o644)).map_err(os)?;
    let text = config(&place, &[place.function("probe", &format!("{with}token.ttl = \"1s\""))]);
    let supervisor = Supervisor::start(place, &text)?;
    let mut client = Client::new(&supervisor)?;
    let read = format!("read {FILE}");
    let (found, before) = client.probe("s1", &read)?;
    ensure!(found == "first", "{found}");
    let verdict = client.verdict_of(request("probe", "open", "echo"), VerdictKind::Token, Code::Unavailable)?;
    let told = supervisor.told_under(&verdict.error_id)?;
    ensure!(told.contains("everybody on this host may use") && !told.contains("everybodys"), "{told}");
    // Replaced as one replaces files that are read.
    let dir = supervisor.place.path("tokens");
    fs::write(dir.join("new"), "second").map_err(os)?;
    give(&dir.join("new"))?;
    fs::rename(dir.join("new"), dir.join("s1")).map_err(os)?;
    sleep(Duration::from_millis(1200));
    let (found, after) = client.probe("s1", &read)?;
    ensure!(found == "second" && after.worker == before.worker, "{found} {after:?}");
    supervisor.stop()
}

/// A runtime that asks its API for the token and answers with what it is told.
const RUNTIME: &str = r#"
import json, urllib.error, urllib.request
API = "http://127.0.0.1:9001"
def ask(path, data=None, method=None):
    try:
        with urllib.request.urlopen(urllib.request.Request(API + path, data, method=method)) as answer:
            return answer.status, answer.headers, answer.read()
    except urllib.error.HTTPError as error:
        return error.code, error.headers, error.read()
while True:
    _, headers, event = ask("/2018-06-01/runtime/invocation/next")
    what = json.loads(event)
    status, said, body = ask("/sublet/v1/token", b"" if what["method"] in ("POST", "PUT") else None, what["method"])
    answer = json.dumps({"status": status, "body": body.decode(), "allow": said.get("Allow"), "cache": said.get("Cache-Control")})
    ask("/2018-06-01/runtime/invocation/%s/response" % headers["Lambda-Runtime-Aws-Request-Id"], answer.encode())
"#;

fn lambda() -> Outcome {
    let place = Place::new()?;
    fs::write(place.path("fn/runtime.py"), RUNTIME).map_err(os)?;
    let with = files(&place, &[("s1", "secret-one"), ("s2", "secret-two")])?;
    let settings = "runtime = \"lambda\"\ncommand = [\"/usr/bin/python3\", \"-I\", \"/function/runtime.py\"]\n";
    let functions = [place.function("probe", &format!("{settings}{with}")), place.function("bare", settings)];
    let text = config(&place, &functions);
    let supervisor = Supervisor::start(place, &text)?;
    let mut client = Client::new(&supervisor)?;
    let mut ask = |function: &str, sub_tenant: &str, method: &str| -> Result<Value, String> {
        let (answer, _) = client.ask(function, sub_tenant, &json!({ "method": method }).to_string())?;
        serde_json::from_str(&answer).map_err(|error| format!("{answer:?}: {error}"))
    };
    for (sub_tenant, token) in [("s1", "secret-one"), ("s2", "secret-two")] {
        let told = ask("probe", sub_tenant, "GET")?;
        ensure!(told["status"] == 200 && told["body"] == token && told["cache"] == "no-store", "{told}");
        for method in ["POST", "PUT", "DELETE"] {
            let told = ask("probe", sub_tenant, method)?;
            ensure!(told["status"] == 405 && told["allow"] == "GET", "{method}: {told}");
            ensure!(!told.to_string().contains("secret"), "{told}");
        }
    }
    let told = ask("bare", "s1", "GET")?;
    ensure!(told["status"] == 404 && told["body"].as_str().is_some_and(|body| body.contains("no token")), "{told}");
    supervisor.stop()
}

/// A program that prints whose token it is and when it was made, and fails for those it is told to.
#[derive(Debug)]
struct Mint {
    dir: PathBuf,
    settings: String,
}

impl Mint {
    fn new(place: &Place, ttl: &str) -> Result<Self, String> {
        let (program, dir) = (place.path("mint"), place.path("minted"));
        fs::create_dir(&dir).map_err(os)?;
        chown(&dir, Some(Uid::from_raw(SUPERVISOR)), None).map_err(os)?;
        let at = dir.display();
        let script = format!(
            "#!/bin/sh\nPATH=/usr/bin:/bin\necho >> {at}/$SUBLET_SUB_TENANT\n[ ! -e {at}/$SUBLET_SUB_TENANT-down ] || exit 7\n\
             [ $SUBLET_SUB_TENANT != slow ] || sleep 100\necho \"$SUBLET_TENANT/$SUBLET_FUNCTION/$SUBLET_SUB_TENANT $(date +%s.%N)\"\n"
        );
        fs::write(&program, script).map_err(os)?;
        fs::set_permissions(&program, Permissions::from_mode(0o755)).map_err(os)?;
        let settings = format!(
            "token.provider = \"command\"\ntoken.command = [{:?}]\ntoken.ttl = {ttl:?}\ntoken.timeout = \"2s\"\n",
            program.display().to_string()
        );
        Ok(Self { dir, settings })
    }

    /// How often it has been asked.
    fn asked(&self, sub_tenant: &str) -> usize {
        fs::read_to_string(self.dir.join(sub_tenant)).map_or(0, |text| text.lines().count())
    }

    fn set_down(&self, sub_tenant: &str, is_down: bool) -> Result<(), String> {
        let file = self.dir.join(format!("{sub_tenant}-down"));
        if is_down { fs::write(file, "") } else { fs::remove_file(file) }.map_err(os)
    }
}

/// Of a token: when it was made, in seconds since 1970.
fn made(token: &str, whose: &str) -> Result<f64, String> {
    let time = token.strip_prefix(whose).ok_or_else(|| format!("{token:?} is not of {whose}"))?;
    time.trim().parse().map_err(|error| format!("{token:?}: {error}"))
}

fn now() -> f64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs_f64()
}

fn renewed() -> Outcome {
    let place = Place::new()?;
    let mint = Mint::new(&place, "1s")?;
    let functions = [
        place.function("awake", &format!("freeze_after = \"never\"\n{}", mint.settings)),
        place.function("asleep", &format!("freeze_after = \"0s\"\n{}", mint.settings)),
    ];
    let text = config(&place, &functions);
    let supervisor = Supervisor::start(place, &text)?;
    let mut client = Client::new(&supervisor)?;
    let read = format!("read {FILE}");
    let (first, before) = client.ask("awake", "s1", &read)?;
    let (_, frozen) = client.ask("asleep", "s2", &read)?;
    // Until it is frozen it is renewed as any other.
    let end = Instant::now() + Duration::from_secs(20);
    while supervisor.admin(&["describe", &frozen.worker])?["worker"]["state"] != "frozen" {
        ensure!(Instant::now() < end, "it is not frozen");
        sleep(Duration::from_millis(10));
    }
    let asked = mint.asked("s2");
    sleep(Duration::from_millis(2500));
    // Nobody has called: one was renewed all the same, the other left alone.
    ensure!(mint.asked("s1") > 1, "it has not been renewed in 2.5 s");
    ensure!(mint.asked("s2") == asked, "a frozen worker's was renewed {} times", mint.asked("s2") - asked);
    let (second, after) = client.ask("awake", "s1", &read)?;
    ensure!(after.worker == before.worker && after.start() == Start::Warm, "{after:?}");
    let (first, second) = (made(&first, "acme/awake/s1 ")?, made(&second, "acme/awake/s1 ")?);
    ensure!(first < second, "it has read the same token, of {second}");

    let described = supervisor.admin(&["describe", &frozen.worker])?;
    ensure!(described["worker"]["state"] == "frozen", "{described}");
    let called = now();
    let (thawed, after) = client.ask("asleep", "s2", &read)?;
    ensure!(made(&thawed, "acme/asleep/s2 ")? > called, "it has read an old one: {thawed}, called at {called}");
    ensure!(after.worker == frozen.worker && mint.asked("s2") == asked + 1, "{after:?}");
    supervisor.stop()
}

fn down() -> Outcome {
    let place = Place::new()?;
    // Two workers are made, and a provider turned off, before it expires.
    let ttl = if Ground::find().is_slow { "10s" } else { "2s" };
    let mint = Mint::new(&place, ttl)?;
    let text = config(&place, &[place.function("probe", &mint.settings)]);
    let supervisor = Supervisor::start(place, &text)?;
    let mut client = Client::new(&supervisor)?;
    let (_, first) = client.probe("s1", "echo")?;
    let (_, neighbour) = client.probe("s2", "echo")?;
    mint.set_down("s1", true)?;
    client.probe("s1", "echo the old one holds")?;
    let end = Instant::now() + Duration::from_secs(20);
    while client.probe("s1", "echo").is_ok() {
        ensure!(Instant::now() < end, "calls are taken long after its end");
        sleep(Duration::from_millis(50));
    }
    let setting = "tenant.acme.function.probe.token.command";
    for _ in 0..50 {
        let verdict = client.verdict("probe", "echo", VerdictKind::Token, Code::Unavailable)?;
        ensure!(verdict.setting == setting, "{verdict:?}");
        let told = supervisor.told_under(&verdict.error_id)?;
        ensure!(told.ends_with("exit status: 7"), "{told}");
    }
    ensure!(mint.asked("s1") < 10, "each call has asked: {}", mint.asked("s1"));
    let (_, after) = client.probe("s2", "echo")?;
    ensure!(after.worker == neighbour.worker && after.start() == Start::Warm, "{after:?}");

    // It is up again: the worker is still there, and goes on.
    mint.set_down("s1", false)?;
    let end = Instant::now() + Duration::from_secs(20);
    let (_, after) = loop {
        match client.probe("s1", "echo") {
            Ok(answered) => break answered,
            Err(error) => {
                ensure!(Instant::now() < end, "{error}");
            }
        }
        sleep(Duration::from_millis(50));
    };
    ensure!(after.worker == first.worker, "{after:?} is not {first:?}");

    // Without one no worker starts, and later one does.
    let call = |sub_tenant: &str| request("probe", sub_tenant, "echo");
    mint.set_down("s3", true)?;
    client.verdict_of(call("s3"), VerdictKind::Token, Code::Unavailable)?;
    mint.set_down("s3", false)?;
    client.probe("s3", "echo")?;
    let verdict = client.verdict_of(call("slow"), VerdictKind::Token, Code::Unavailable)?;
    ensure!(verdict.setting == setting, "{verdict:?}");
    let told = supervisor.told_under(&verdict.error_id)?;
    ensure!(told.ends_with("has not ended within 2s"), "{told}");
    supervisor.stop()
}
