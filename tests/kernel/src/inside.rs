//! What programs take for granted of the place they run in, in each runtime: names of their standard streams, flags of open
//! files that are nobody else's, children that are reaped.

use std::{
    fs::{self, Permissions},
    os::unix::fs::PermissionsExt,
    process::Command,
};

use serde_json::{Value, json};
use sublet_proto::v1::VerdictKind;
use tonic::Code;

use crate::{
    Case, Outcome, case,
    client::{Client, request},
    configs::Place,
    ensure,
    supervisor::{self, Supervisor},
};

/// The cases.
pub const CASES: &[Case] = &[
    case("inside::standard_streams_can_be_opened_by_their_names", names),
    case("inside::flags_that_a_call_sets_on_its_streams_are_gone_with_it", flags),
    case("inside::orphans_are_reaped_while_the_call_runs", orphans),
    case("inside::what_a_failed_program_has_printed_is_in_its_verdict", printed),
    case("inside::answer_that_is_no_text_is_whole_in_json", binary),
    case("inside::interfaces_cannot_be_listed_and_loopback_works_without", interfaces),
];

/// Each is given a shell script and runs it. What the script prints is the answer in `exec`, and log in the others.
const RUNTIMES: [&str; 3] = ["exec", "stream", "lambda"];

const STREAM: &str = r#"
import subprocess, sublet_function
def handler(payload, deadline):
    subprocess.run(["/bin/sh", "-c", payload], check=True)
    return b""
sublet_function.serve(handler)
"#;

const LAMBDA: &str = r#"#!/usr/bin/python3
import http.client, json, os, subprocess
def ask(method, path, body=None):
    connection = http.client.HTTPConnection(os.environ["AWS_LAMBDA_RUNTIME_API"])
    connection.request(method, "/2018-06-01/runtime/invocation/" + path, body)
    answer = connection.getresponse()
    return answer.headers, answer.read()
while True:
    headers, event = ask("GET", "next")
    status = subprocess.run(["/bin/sh", "-c", json.loads(event)]).returncode
    told = ("response", "\"\"") if status == 0 else ("error", json.dumps({"errorMessage": "status %d" % status}))
    ask("POST", headers["Lambda-Runtime-Aws-Request-Id"] + "/" + told[0], told[1])
"#;

fn start() -> Result<(Supervisor, Client), String> {
    let place = Place::new()?;
    let told = |error: std::io::Error| error.to_string();
    let stream = place.path("stream");
    let new = Command::new(supervisor::program()).args(["new", "python"]).arg(&stream).output().map_err(told)?;
    ensure!(new.status.success(), "{}", String::from_utf8_lossy(&new.stderr));
    fs::write(stream.join("function.py"), STREAM).map_err(told)?;
    let bootstrap = place.path("fn/bootstrap");
    fs::write(&bootstrap, LAMBDA).map_err(told)?;
    fs::set_permissions(&bootstrap, Permissions::from_mode(0o755)).map_err(told)?;
    let limits = "memory_max = \"256MiB\"\npids_max = 64";
    let python = r#"["/usr/bin/python3", "-s", "-E", "-B", "/function/function.py"]"#;
    let dir = stream.display();
    let text = [
        place.host(""),
        "[tenant.acme.sub_tenant]\n".to_owned(),
        place.function("exec", &format!("{limits}\nruntime = \"exec\"\ncommand = [\"/bin/sh\"]")),
        place.function("stream", &format!("{limits}\ncommand = {python}\ndir = \"{dir}\"")),
        place.function("lambda", &format!("{limits}\nruntime = \"lambda\"\ncommand = [\"/function/bootstrap\"]")),
    ];
    let supervisor = Supervisor::start(place, &text.concat())?;
    let client = Client::new(&supervisor)?;
    Ok((supervisor, client))
}

/// Runs `script` by the function of this runtime. Returns the answer and the worker's name.
fn run(client: &mut Client, runtime: &str, script: &str) -> Result<(String, String), String> {
    let payload = if runtime == "lambda" { Value::from(script).to_string() } else { script.to_owned() };
    let (answer, receipt) = client.ask(runtime, "s1", &payload)?;
    Ok((answer, receipt.worker))
}

/// The lines of a function's log.
fn lines(supervisor: &Supervisor, runtime: &str) -> Result<Vec<String>, String> {
    let output = Command::new(supervisor::program())
        .args(["logs", "--json", "--function", runtime])
        .arg("--admin-socket")
        .arg(supervisor.admin_socket())
        .output()
        .map_err(|error| error.to_string())?;
    let text = String::from_utf8_lossy(&output.stdout);
    let records = text.lines().map(serde_json::from_str::<Value>).collect::<Result<Vec<_>, _>>();
    let records = records.map_err(|error| format!("{text:?}: {error}"))?;
    Ok(records.iter().filter_map(|record| Some(record["message"].as_str()?.to_owned())).collect())
}

fn names() -> Outcome {
    let (supervisor, mut client) = start()?;
    for runtime in RUNTIMES {
        let names = ["/dev/stderr", "/dev/fd/2", "/proc/self/fd/2"];
        let script: String = names.iter().map(|name| format!("echo by {name} > {name} || exit 1\n")).collect();
        run(&mut client, runtime, &script).map_err(|error| format!("{runtime}: {error}"))?;
        let script = "echo named > /dev/stdout && echo numbered > /proc/self/fd/1 && cat < /dev/stdin";
        let (answer, _) = run(&mut client, runtime, script).map_err(|error| format!("{runtime}: {error}"))?;
        let log = lines(&supervisor, runtime)?;
        let mut expected: Vec<String> = names.iter().map(|name| format!("by {name}")).collect();
        if runtime == "exec" {
            ensure!(answer == "named\nnumbered\n", "{answer:?}");
        } else {
            expected.extend(["named".to_owned(), "numbered".to_owned()]);
        }
        ensure!(log == expected, "{runtime}: {log:?}");
        // An end to read with is its own as well, and takes nothing of what is written once it is closed.
        let script = "exec 5<> /dev/stderr 5>&-; echo after > /dev/stderr";
        run(&mut client, runtime, script).map_err(|error| format!("{runtime}: {error}"))?;
        let log = lines(&supervisor, runtime)?;
        ensure!(log.last().is_some_and(|line| line == "after"), "{runtime}: {log:?}");
    }
    supervisor.stop()
}

/// Sets O_NONBLOCK on all standard streams; fails if one has it already, be it from the one before.
const MARK: &str = r#"exec python3 -c '
import fcntl, os
for number in range(3):
    flags = fcntl.fcntl(number, fcntl.F_GETFL)
    assert not flags & os.O_NONBLOCK, number
    fcntl.fcntl(number, fcntl.F_SETFL, flags | os.O_NONBLOCK)
'"#;

fn flags() -> Outcome {
    let (supervisor, mut client) = start()?;
    let told = |error: std::io::Error| error.to_string();
    let mut launchers = 0;
    for runtime in RUNTIMES {
        let (_, worker) = run(&mut client, runtime, MARK).map_err(|error| format!("{runtime}: {error}"))?;
        if runtime == "exec" {
            let (_, same) = run(&mut client, runtime, MARK)?;
            ensure!(same == worker, "{worker}, then {same}");
        }
        // What a launcher writes to the log is not lost either.
        let group = supervisor.admin(&["describe", &worker])?["cgroup"].as_str().unwrap_or_default().to_owned();
        for pid in fs::read_to_string(format!("{group}/cgroup.procs")).map_err(told)?.lines() {
            if fs::read_to_string(format!("/proc/{pid}/comm")).map_err(told)?.trim() != "sublet-launcher" {
                continue;
            }
            launchers += 1;
            for number in 1..3 {
                let info = fs::read_to_string(format!("/proc/{pid}/fdinfo/{number}")).map_err(told)?;
                let flags = info.lines().find_map(|line| line.strip_prefix("flags:")).unwrap_or_default().trim();
                let flags = i32::from_str_radix(flags, 8).map_err(|error| format!("{info}: {error}"))?;
                ensure!(
                    flags & nix::fcntl::OFlag::O_NONBLOCK.bits() == 0,
                    "{runtime}: descriptor {number} has {flags:o}"
                );
            }
        }
    }
    ensure!(launchers >= 2, "{launchers} launchers");
    supervisor.stop()
}

/// Makes more orphans than there may be processes, and waits for each to be reaped; a call that waits in vain ends in DEADLINE.
/// An answer that is over already changes nothing.
const ORPHANS: &str = r#"exec python3 -c '
import glob, os, time
def zombies():
    found = 0
    for path in glob.glob("/proc/[0-9]*/stat"):
        try:
            found += open(path).read().rsplit(") ", 1)[1].startswith("Z")
        except OSError:
            pass
    return found
for made in range(100):
    if made == 50:
        os.close(1)
    child = os.fork()
    if child == 0:
        if os.fork() == 0:
            os._exit(0)
        os._exit(0)
    os.waitpid(child, 0)
    while zombies():
        time.sleep(0.001)
'"#;

fn orphans() -> Outcome {
    let (supervisor, mut client) = start()?;
    for runtime in RUNTIMES {
        run(&mut client, runtime, ORPHANS).map_err(|error| format!("{runtime}: {error}"))?;
    }
    supervisor.stop()
}

/// The page says this of each, and what to do instead.
const INTERFACES: &str = r#"
python3 -c '
import array, errno, fcntl, socket, struct, threading
def refused(what, expected):
    try:
        what()
    except OSError as error:
        assert error.errno == expected, error
    else:
        raise SystemExit("there is a list")
refused(socket.if_nameindex, errno.EAFNOSUPPORT)
names = array.array("B", bytes(4096))
with socket.socket() as any:
    # SIOCGIFCONF.
    refused(lambda: fcntl.ioctl(any, 0x8912, struct.pack("iL", 4096, names.buffer_info()[0])), errno.ENOTTY)
addresses = [(socket.AF_INET, "127.0.0.1")]
try:
    socket.socket(socket.AF_INET6).close()
    addresses.append((socket.AF_INET6, "::1"))
except OSError as error:
    # A kernel without IPv6.
    assert error.errno == errno.EAFNOSUPPORT, error
for family, address in addresses:
    assert address in {found[4][0] for found in socket.getaddrinfo("localhost", 80, family)}
    with socket.create_server((address, 0), family=family) as server:
        socket.create_connection(server.getsockname()[:2]).close()
' || exit 1
if [ -x /usr/bin/node ]; then
    node -e '
        const os = require("os");
        try { os.networkInterfaces(); process.exit(1); } catch (error) { if (error.info.errno !== 97) throw error; }
        os.networkInterfaces = () => ({});
        if (Object.keys(require("os").networkInterfaces()).length) process.exit(2);
    ' || exit 2
fi"#;

fn interfaces() -> Outcome {
    let (supervisor, mut client) = start()?;
    run(&mut client, "exec", INTERFACES)?;
    supervisor.stop()
}

/// What `sublet invoke --json` prints.
fn invoke(supervisor: &Supervisor, script: &str) -> Result<Value, String> {
    let output = Command::new(supervisor::program())
        .args(["invoke", "acme", "exec", "--sub-tenant", "s1", "--json", "--data", script, "--socket"])
        .arg(supervisor.socket())
        .output()
        .map_err(|error| error.to_string())?;
    let text = String::from_utf8_lossy(&output.stdout);
    serde_json::from_str(&text).map_err(|error| format!("{text:?}: {error}"))
}

fn printed() -> Outcome {
    let (supervisor, mut client) = start()?;
    let script = "echo half an answer; echo why >&2; exit 3";
    let verdict = client.verdict("exec", script, VerdictKind::Exit, Code::Unknown)?;
    ensure!(&verdict.stdout_tail[..] == b"half an answer\n" && &verdict.log_tail[..] == b"why\n", "{verdict:?}");
    let script = "echo half; kill -SEGV $$";
    let verdict = client.verdict("exec", script, VerdictKind::Crash, Code::Unknown)?;
    ensure!(&verdict.stdout_tail[..] == b"half\n", "{verdict:?}");
    // Cut in front, and no more than clients take.
    let script = "head -c 100000 /dev/zero | tr '\\0' x; echo end; exit 1";
    let verdict = client.verdict("exec", script, VerdictKind::Exit, Code::Unknown)?;
    ensure!(verdict.stdout_tail.len() == 3072 && verdict.stdout_tail.ends_with(b"xend\n"), "{verdict:?}");
    // Who takes the answer in pieces has had them.
    let streamed = client.stream(request("exec", "s1", "echo half; exit 1"));
    let verdict = streamed.verdict().ok_or("no verdict")?;
    ensure!(streamed.whole() == b"half\n" && verdict.stdout_tail.is_empty(), "{verdict:?}");
    let found = invoke(&supervisor, "printf 'half\\377'; exit 1")?;
    ensure!(found["verdict"]["stdout_tail"] == "half\u{fffd}", "{found}");
    ensure!(found["verdict"]["stdout_tail_base64"] == "aGFsZv8=", "{found}");
    supervisor.stop()
}

fn binary() -> Outcome {
    let (supervisor, _) = start()?;
    let found = invoke(&supervisor, "printf 'a\\377\\000'")?;
    ensure!(found["payload"] == "a\u{fffd}\0" && found["payload_base64"] == "Yf8A", "{found}");
    let found = invoke(&supervisor, "printf text")?;
    ensure!((&found["payload"], &found["payload_base64"]) == (&json!("text"), &Value::Null), "{found}");
    supervisor.stop()
}
