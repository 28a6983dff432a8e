//! The sub-tenant's token: whose it is, where it can be read and where not, and what happens when there is none.

use std::{
    collections::HashMap,
    fs::{self, Permissions},
    os::unix::fs::{PermissionsExt, chown},
    path::Path,
    thread::sleep,
    time::{Duration, Instant},
};

use jsonwebtoken::{Algorithm, DecodingKey, Validation, decode};
use serde_json::Value;
use sublet_proto::v1::{Start, VerdictKind};
use tonic::Code;

use crate::{
    Case, Outcome, case,
    client::{Client, request},
    configs::Place,
    ensure,
    supervisor::Supervisor,
};

/// The cases.
pub const CASES: &[Case] = &[
    case("tokens::signed_one_names_its_sub_tenant_and_is_nobody_elses", signed),
    case("tokens::cell_has_none_before_it_has_an_owner", cells),
    case("tokens::file_is_read_again_and_a_missing_one_is_told", files),
    case("tokens::program_is_asked_again_and_calls_are_told_when_it_fails", program),
    case("tokens::lambda_client_asks_the_api_for_it", api),
    case("tokens::rust_function_reads_it", rust_function),
    case("tokens::keys_that_are_none_are_refused_at_start_and_at_reload", keys),
];

const KEY: &str = include_str!("../../../supervisor/src/token/test-keys/ed.pem");
const PUBLIC: &[u8] = include_bytes!("../../../supervisor/src/token/test-keys/ed.pub");
const OTHER_KEY: &str = include_str!("../../../supervisor/src/token/test-keys/ec.pem");
/// The uid that the supervisor runs as, unless it is told another.
const SUPERVISOR_UID: u32 = 1_879_048_190;

/// What a shell finds: file, descriptor, who it is, what it may do there, and what its environment says.
const LOOK: &str = r#"runtime = "exec"
command = ["/bin/sh", "/function/look.sh"]"#;
const LOOK_SCRIPT: &str = r#"read -r what
cat "$SUBLET_TOKEN_FILE"; echo
cat <&"$SUBLET_TOKEN_FD"; echo
ls -a /run/sublet | tr '\n' ' '; echo
(echo x > /run/sublet/token) 2>/dev/null && echo written || echo refused
(echo x > /run/sublet/more) 2>/dev/null && echo written || echo refused
rm -f /run/sublet/token 2>/dev/null; [ -e /run/sublet/token ] && echo there || echo gone
env | grep -c "$(cat $SUBLET_TOKEN_FILE)"
cat /proc/*/environ 2>/dev/null | tr '\0' '\n' | grep -c "$(cat $SUBLET_TOKEN_FILE)"
true
"#;

fn write(path: &Path, text: &str, mode: u32) -> Result<(), String> {
    let make = || {
        fs::write(path, text)?;
        chown(path, None, Some(SUPERVISOR_UID))?;
        fs::set_permissions(path, Permissions::from_mode(mode))
    };
    make().map_err(|error| format!("{}: {error}", path.display()))
}

/// Supervisor and client of one function `probe` with this script and these settings.
fn start(
    script: &str,
    settings: &str,
    token: impl FnOnce(&Place) -> Result<String, String>,
) -> Result<(Supervisor, Client), String> {
    let place = Place::new()?;
    fs::write(place.path("fn/look.sh"), script).map_err(|error| error.to_string())?;
    let token = token(&place)?;
    let function = place.function("probe", settings);
    let text =
        format!("{}[tenant.acme.sub_tenant]\n{function}[tenant.acme.function.probe.token]\n{token}\n", place.host(""));
    let supervisor = Supervisor::start(place, &text)?;
    let client = Client::new(&supervisor)?;
    Ok((supervisor, client))
}

fn jwt(place: &Place) -> Result<String, String> {
    let key = place.path("key.pem");
    write(&key, KEY, 0o640)?;
    Ok(format!(
        "provider = \"jwt\"\nkey = {:?}\nissuer = \"sublet\"\naudience = \"api\"\nttl = \"1m\"",
        key.display().to_string()
    ))
}

fn claims(token: &str) -> Result<HashMap<String, Value>, String> {
    let key = DecodingKey::from_ed_pem(PUBLIC).map_err(|error| error.to_string())?;
    let mut validation = Validation::new(Algorithm::EdDSA);
    validation.set_audience(&["api"]);
    validation.set_issuer(&["sublet"]);
    decode(token, &key, &validation).map(|data| data.claims).map_err(|error| format!("{token:?}: {error}"))
}

fn signed() -> Outcome {
    let (supervisor, mut client) = start(LOOK_SCRIPT, LOOK, jwt)?;
    let mut tokens = Vec::new();
    for label in ["customer-1", "customer \"2\""] {
        let (answer, receipt) = client.probe(label, "look")?;
        let lines: Vec<&str> = answer.lines().collect();
        ensure!(lines.len() == 8, "{answer}");
        let claims = claims(lines[0])?;
        ensure!(claims["sub"] == label && claims["tenant"] == "acme" && claims["function"] == "probe", "{claims:?}");
        ensure!(claims["exp"].as_u64() == claims["iat"].as_u64().map(|at| at + 60), "{claims:?}");
        ensure!(lines[1] == lines[0], "another on the descriptor: {answer}");
        ensure!(lines[2] == ". .. token ", "{answer}");
        ensure!(lines[3..6] == ["refused", "refused", "there"], "{answer}");
        ensure!(lines[6..] == ["0", "0"], "it is in an environment: {answer}");
        // The same for the whole of its life, and another for each worker.
        let (again, warm) = client.probe(label, "look")?;
        ensure!(warm.worker == receipt.worker && again.lines().next() == Some(lines[0]), "{again}");
        let seen = supervisor.admin(&["describe", &receipt.worker])?;
        ensure!(seen["token"]["provider"] == "jwt" && seen["token"]["expires"].is_string(), "{seen}");
        ensure!(!seen.to_string().contains(lines[0]), "{seen}");
        tokens.push(lines[0].to_owned());
    }
    ensure!(tokens[0] != tokens[1], "two sub-tenants have one token");
    supervisor.stop()
}

fn cells() -> Outcome {
    let (supervisor, mut client) = start(LOOK_SCRIPT, &format!("{LOOK}\ncells_max = 2"), jwt)?;
    client.probe("s1", "look")?;
    let end = Instant::now() + Duration::from_secs(20);
    let cell = loop {
        let workers = supervisor.admin(&["ps"])?;
        let all = workers.as_array().or_else(|| workers["workers"].as_array()).cloned().unwrap_or_default();
        match all.iter().find(|worker| worker["state"] == "cell") {
            Some(cell) => break cell["worker"].as_str().unwrap_or_default().to_owned(),
            None => {
                ensure!(Instant::now() < end, "no cell: {workers}");
            }
        }
        sleep(Duration::from_millis(20));
    };
    let before = supervisor.admin(&["describe", &cell])?;
    ensure!(before["token"]["provider"] == "jwt" && before["token"]["issued"].is_null(), "{before}");
    let posture = before["posture"].as_array().cloned().unwrap_or_default();
    let mount = posture.iter().find(|fact| fact["name"] == "mount /run/sublet");
    ensure!(mount.is_some_and(|fact| fact["ok"] == true), "{before}");
    let (answer, receipt) = client.probe("s2", "look")?;
    ensure!(receipt.start() == Start::Cell, "{receipt:?}");
    let token = answer.lines().next().unwrap_or_default();
    ensure!(claims(token)?["sub"] == "s2", "{answer}");
    supervisor.stop()
}

fn files() -> Outcome {
    let script = "read -r what; cat /run/sublet/token";
    let (supervisor, mut client) = start(script, LOOK, |place| {
        let dir = place.path("tokens");
        fs::create_dir(&dir).map_err(|error| error.to_string())?;
        write(&dir.join("s%2F1"), "first\n", 0o640)?;
        write(&dir.join("open"), "everybody's", 0o644)?;
        Ok(format!("provider = \"static\"\ndir = {:?}\nttl = \"1s\"", dir.display().to_string()))
    })?;
    let (answer, receipt) = client.probe("s/1", "")?;
    ensure!(answer == "first", "{answer:?}");
    for (label, what) in [("s2", "does not exist"), ("open", "chmod")] {
        let verdict = client.verdict_of(request("probe", label, ""), VerdictKind::Token, Code::Unavailable)?;
        ensure!(verdict.message.contains(what) && verdict.setting.ends_with("token.dir"), "{verdict:?}");
        ensure!(!verdict.message.contains("everybody's"), "{verdict:?}");
    }
    // Replaced as one replaces files that are read.
    let dir = supervisor.place.path("tokens");
    write(&dir.join("new"), "second", 0o640)?;
    fs::rename(dir.join("new"), dir.join("s%2F1")).map_err(|error| error.to_string())?;
    sleep(Duration::from_millis(1200));
    // Frozen until now: the call itself brings the new one, before it is delivered.
    let (answer, warm) = client.probe("s/1", "")?;
    ensure!(answer == "second" && warm.worker == receipt.worker, "{answer:?} {warm:?}");
    supervisor.stop()
}

fn program() -> Outcome {
    let script = "read -r what; cat /run/sublet/token";
    let (supervisor, mut client) = start(script, &format!("{LOOK}\nfreeze_after = \"never\""), |place| {
        let script = format!(
            "#!/bin/sh\n[ -e {0}/down ] && exit 7\nn=$(cat {0}/count/$SUBLET_SUB_TENANT 2>/dev/null || echo 0)\n\
             echo $((n+1)) > {0}/count/$SUBLET_SUB_TENANT\necho \"token $SUBLET_TENANT/$SUBLET_FUNCTION/$SUBLET_SUB_TENANT $n\"\n",
            place.dir.display()
        );
        let (mint, count) = (place.path("mint"), place.path("count"));
        fs::create_dir(&count).map_err(|error| error.to_string())?;
        fs::set_permissions(&count, Permissions::from_mode(0o777)).map_err(|error| error.to_string())?;
        write(&mint, &script, 0o755)?;
        Ok(format!("provider = \"command\"\ncommand = [{:?}]\nttl = \"1s\"", mint.display().to_string()))
    })?;
    let (answer, receipt) = client.probe("s1", "")?;
    ensure!(answer == "token acme/probe/s1 0", "{answer:?}");
    client.probe("s2", "")?;
    // At two thirds of its life there is another, without any call.
    sleep(Duration::from_millis(1500));
    let (answer, warm) = client.probe("s1", "")?;
    let number: u32 = answer.rsplit(' ').next().and_then(|number| number.parse().ok()).unwrap_or(0);
    ensure!(number >= 1 && warm.worker == receipt.worker, "{answer:?}");
    // The provider fails: as long as the old one holds nobody notices, then calls are told, and the worker is kept.
    write(&supervisor.place.path("down"), "", 0o644)?;
    let end = Instant::now() + Duration::from_secs(20);
    let verdict = loop {
        match client.call(request("probe", "s1", "")) {
            Ok(_) => {
                ensure!(Instant::now() < end, "an expired token is good enough");
            }
            Err(status) => break crate::client::verdict(&status).ok_or_else(|| status.to_string())?,
        }
        sleep(Duration::from_millis(100));
    };
    ensure!(verdict.kind() == VerdictKind::Token && verdict.message.contains("exit status: 7"), "{verdict:?}");
    ensure!(verdict.setting.ends_with("token.command"), "{verdict:?}");
    fs::remove_file(supervisor.place.path("down")).map_err(|error| error.to_string())?;
    let end = Instant::now() + Duration::from_secs(20);
    loop {
        match client.call(request("probe", "s1", "")) {
            Ok(answer) => {
                let worker = answer.receipt.unwrap_or_default().worker;
                ensure!(worker == receipt.worker, "{worker} instead of {}", receipt.worker);
                break;
            }
            Err(status) => {
                ensure!(Instant::now() < end, "{status}");
            }
        }
        sleep(Duration::from_millis(100));
    }
    supervisor.stop()
}

/// A client in a few lines: it answers each call with what the API says of the token.
const CLIENT: &str = r#"
import http.client, json
def ask(method, path, body=None):
    connection = http.client.HTTPConnection("127.0.0.1", 9001)
    connection.request(method, path, body)
    answer = connection.getresponse()
    return answer.status, answer.headers, answer.read().decode()
while True:
    _, headers, _ = ask("GET", "/2018-06-01/runtime/invocation/next")
    status, found, text = ask("GET", "/sublet/v1/token")
    said = {"status": status, "token": text, "cache": found.get("Cache-Control"),
            "post": ask("POST", "/sublet/v1/token", "x")[0], "other": ask("GET", "/sublet/v1/more")[0]}
    ask("POST", "/2018-06-01/runtime/invocation/" + headers["Lambda-Runtime-Aws-Request-Id"] + "/response", json.dumps(said))
"#;

fn api() -> Outcome {
    let settings =
        "runtime = \"lambda\"\nmemory_max = \"128MiB\"\ncommand = [\"/usr/bin/python3\", \"/function/look.sh\"]";
    let (supervisor, mut client) = start(CLIENT, settings, jwt)?;
    let ask = |client: &mut Client, label: &str| -> Result<Value, String> {
        let (answer, _) = client.probe(label, "{}")?;
        serde_json::from_str(&answer).map_err(|error| format!("{answer:?}: {error}"))
    };
    for label in ["s1", "s2"] {
        let said = ask(&mut client, label)?;
        ensure!(said["status"] == 200 && said["post"] == 405 && said["other"] == 404, "{said}");
        ensure!(claims(said["token"].as_str().unwrap_or_default())?["sub"] == label, "{said}");
    }
    supervisor.stop()?;

    // Without a token there is none to be had, and no place for one.
    let place = Place::new()?;
    fs::write(place.path("fn/look.sh"), CLIENT).map_err(|error| error.to_string())?;
    let text = place.simple(settings);
    let supervisor = Supervisor::start(place, &text)?;
    let said = ask(&mut Client::new(&supervisor)?, "s1")?;
    ensure!(said["status"] == 404, "{said}");
    supervisor.stop()
}

fn rust_function() -> Outcome {
    let (supervisor, mut client) = start("", "", jwt)?;
    let (answer, _) = client.probe("s1", "credential")?;
    ensure!(claims(&answer)?["sub"] == "s1", "{answer}");
    supervisor.stop()
}

fn keys() -> Outcome {
    let (supervisor, mut client) = start("read -r what; cat /run/sublet/token", LOOK, jwt)?;
    let key = supervisor.place.path("key.pem");
    let (before, _) = client.probe("s1", "")?;
    write(&key, "no key", 0o640)?;
    let refused = supervisor.admin(&["reload"])?;
    ensure!(refused.to_string().contains("token.key"), "{refused}");
    let (after, _) = client.probe("s2", "")?;
    ensure!(claims(&before)?["sub"] == "s1" && claims(&after)?["sub"] == "s2", "the old key is still used");
    // A key of another kind takes its place, for workers that come.
    write(&key, OTHER_KEY, 0o640)?;
    let taken = supervisor.admin(&["reload"])?;
    ensure!(!taken.to_string().contains("token.key"), "{taken}");
    let (third, _) = client.probe("s3", "")?;
    ensure!(claims(&third).is_err() && third.split('.').count() == 3, "{third}");
    supervisor.stop()?;

    for (text, mode, what) in [("no key", 0o640, "not a private key"), (KEY, 0o644, "chmod o=")] {
        let started = start("", LOOK, |place| {
            let settings = jwt(place)?;
            write(&place.path("key.pem"), text, mode)?;
            Ok(settings)
        });
        let Err(error) = started else { return Err(format!("a key of mode {mode:o} was taken")) };
        ensure!(error.contains("token.key") && error.contains(what), "{error}");
    }
    Ok(())
}
