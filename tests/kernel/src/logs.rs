//! What functions write: whose line it is and in which call, at what rate, and where it can be read.

use std::{
    fs,
    io::{BufRead, BufReader},
    os::unix::fs::MetadataExt,
    process::{Command, Stdio},
    thread::sleep,
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
    ground::Need,
    lambda,
    supervisor::{self, Supervisor},
};

/// The cases.
pub const CASES: &[Case] = &[
    case("logs::lines_are_told_with_owner_worker_and_call", labelled),
    case("logs::follower_gets_what_it_asked_for_as_it_comes", followed),
    case("logs::what_is_over_the_rate_is_counted_and_the_neighbours_lines_are_there", flooded),
    case("logs::flood_of_a_tenant_or_sub_tenant_leaves_others_their_lines", washed),
    case("logs::files_are_moved_on_and_bounded", files),
    case("logs::standard_output_has_one_value_for_each_line", stdout),
    case("logs::call_has_the_lines_that_users_of_lambda_know", report_lines),
    case("logs::wrong_places_and_names_are_refused", refused),
    Case {
        needs: &[Need::Client("python")],
        ..case("lambda::records_of_a_stock_clients_log_are_one_each", || records("python"))
    },
    Case {
        needs: &[Need::Client("node"), Need::Speed],
        ..case("lambda::records_of_stock_nodes_console_are_one_each", || records("node"))
    },
];

/// A line that says whose it is, one without its end, and one that comes after the answer.
const SAY: &str = r#"runtime = "exec"
command = ["/bin/sh", "-c", "read what; echo said $what; echo $what of $SUBLET_SUB_TENANT >&2; printf 'not ended' >&2"]"#;

fn start(host: &str, settings: &str) -> Result<(Supervisor, Client), String> {
    let place = Place::new()?;
    let text = format!("{}[tenant.acme.sub_tenant]\n{}", place.host(host), place.function("probe", settings));
    let supervisor = Supervisor::start(place, &text)?;
    let client = Client::new(&supervisor)?;
    Ok((supervisor, client))
}

/// What `sublet logs --json` prints.
fn logs(supervisor: &Supervisor, arguments: &[&str]) -> Result<Vec<Value>, String> {
    let output = Command::new(supervisor::program())
        .args(["logs", "--json"])
        .args(arguments)
        .arg("--admin-socket")
        .arg(supervisor.admin_socket())
        .output()
        .map_err(|error| error.to_string())?;
    let (out, err) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    ensure!(output.status.success(), "{arguments:?}: {out}{err}");
    values(&out)
}

fn values(text: &str) -> Result<Vec<Value>, String> {
    text.lines().map(|line| serde_json::from_str(line).map_err(|error| format!("{line:?}: {error}"))).collect()
}

fn messages(records: &[Value]) -> Vec<&str> {
    records.iter().filter_map(|record| record["message"].as_str()).collect()
}

fn labelled() -> Outcome {
    let (supervisor, mut client) = start("", SAY)?;
    let (_, one) = client.probe("customer-1", "hello")?;
    let (_, two) = client.probe("customer-1", "again")?;
    let (_, other) = client.probe("customer-2", "hello")?;
    let all = logs(&supervisor, &[])?;
    let wanted =
        ["hello of customer-1", "not ended", "again of customer-1", "not ended", "hello of customer-2", "not ended"];
    ensure!(messages(&all) == wanted, "{all:?}");
    let leases = [&one, &one, &two, &two, &other, &other].map(|receipt| receipt.lease.as_str());
    for (record, lease) in all.iter().zip(leases) {
        ensure!(record["request"] == lease && record["tenant"] == "acme" && record["function"] == "probe", "{record}");
    }
    ensure!(all[0]["worker"] == one.worker.as_str() && all[4]["worker"] == other.worker.as_str(), "{all:?}");
    // Operators see a hash, the one that `ps` shows.
    let workers = supervisor.admin(&["ps"])?;
    let of = |worker: &str| {
        let all = workers.as_array().or_else(|| workers["workers"].as_array()).cloned().unwrap_or_default();
        all.into_iter().find(|line| line["worker"] == worker).map(|line| line["sub_tenant_hash"].clone())
    };
    let hash = of(&one.worker).ok_or_else(|| format!("{workers}"))?;
    ensure!(all[0]["sub_tenant_hash"] == hash && all[4]["sub_tenant_hash"] != hash, "{all:?} {hash}");
    let hash = hash.as_str().unwrap_or_default();
    ensure!(
        !all.iter().any(|record| record.to_string().contains("customer") && record["message"] == "not ended"),
        "{all:?}"
    );

    // By label, by hash, by worker, by call, by function, and the last ones.
    ensure!(logs(&supervisor, &["--sub-tenant", "customer-1"])?.len() == 4, "by label");
    ensure!(logs(&supervisor, &["--sub-tenant", hash])?.len() == 4, "by hash");
    ensure!(logs(&supervisor, &["--worker", &other.worker])?.len() == 2, "by worker");
    ensure!(logs(&supervisor, &["--request", &two.lease])?.len() == 2, "by call");
    let (head, rest) = two.lease.split_at(8);
    ensure!(
        logs(&supervisor, &["--request", &format!("{head}-{}", &rest[..4]).to_uppercase()])?.len() == 2,
        "by its UUID"
    );
    for wrong in ["nonsense", "-", &format!("{}0", two.lease)] {
        let refused = logs(&supervisor, &[&format!("--request={wrong}")]).err().unwrap_or_default();
        ensure!(refused.contains(&format!("\\\"{wrong}\\\"")) && refused.contains("hexadecimal"), "{wrong}: {refused}");
    }
    ensure!(logs(&supervisor, &["--function", "acme/probe", "-n", "3"])?.len() == 3, "the last");
    ensure!(logs(&supervisor, &["--sub-tenant", "customer-3"])?.is_empty(), "of nobody");
    supervisor.stop()
}

fn followed() -> Outcome {
    let (supervisor, mut client) = start("", SAY)?;
    client.probe("s1", "before")?;
    let mut follower = Command::new(supervisor::program())
        .args(["logs", "--json", "-f", "-n", "0", "--sub-tenant", "s1", "--admin-socket"])
        .arg(supervisor.admin_socket())
        .stdout(Stdio::piped())
        .spawn()
        .map_err(|error| error.to_string())?;
    let seen = follow(&mut client, &mut follower);
    let ended = follower.kill().and_then(|()| follower.wait());
    let (lease, lines) = seen?;
    ended.map_err(|error| error.to_string())?;
    let records = values(&lines.concat())?;
    ensure!(messages(&records) == ["now of s1", "not ended"], "{records:?}");
    ensure!(records.iter().all(|record| record["request"] == lease.as_str()), "{records:?} {lease}");
    supervisor.stop()
}

fn follow(client: &mut Client, follower: &mut std::process::Child) -> Result<(String, Vec<String>), String> {
    let out = follower.stdout.take().ok_or("no standard output")?;
    // Nothing tells from outside when it has begun to listen.
    sleep(Duration::from_millis(500));
    client.probe("s2", "other")?;
    let (_, receipt) = client.probe("s1", "now")?;
    let lines = BufReader::new(out).lines().take(2).map(|line| line.map(|line| line + "\n"));
    Ok((receipt.lease, lines.collect::<Result<_, _>>().map_err(|error| error.to_string())?))
}

fn flooded() -> Outcome {
    let settings = format!("{SAY}\nlog_rate = \"32KiB\"");
    let place = Place::new()?;
    let functions = place.function("probe", "log_rate = \"32KiB\"") + &place.function("say", &settings);
    let text = format!("{}[tenant.acme.sub_tenant]\n{functions}", place.host("log_memory = \"1MiB\""));
    let supervisor = Supervisor::start(place, &text)?;
    let mut client = Client::new(&supervisor)?;
    client.ask("say", "s2", "before")?;
    let (_, loud) = client.probe("s1", "flood 16")?;
    client.ask("say", "s2", "after")?;
    let records = logs(&supervisor, &["--request", &loud.lease])?;
    let count = |key: &str| records.iter().filter_map(|record| record[key].as_u64()).sum::<u64>();
    let kept = messages(&records);
    ensure!(
        count("dropped_lines") + kept.len() as u64 == 16 * 1024,
        "{} kept, {} dropped",
        kept.len(),
        count("dropped_lines")
    );
    let bytes = kept.iter().map(|line| line.len() as u64).sum::<u64>() + count("dropped_bytes");
    ensure!(bytes == 16 * 1024 * 6 * 170, "{bytes} bytes");
    ensure!(kept.len() >= 30 && count("dropped_lines") > 15 * 1024, "{} kept", kept.len());
    let others = logs(&supervisor, &["--sub-tenant", "s2"])?;
    ensure!(messages(&others) == ["before of s2", "not ended", "after of s2", "not ended"], "{others:?}");
    supervisor.stop()
}

fn washed() -> Outcome {
    let place = Place::new()?;
    let loud = place.function("loud", "log_rate = \"10MiB\"").replace("tenant.acme.", "tenant.other.");
    let text = format!(
        "{}[tenant.acme.sub_tenant]\n[tenant.other.sub_tenant]\n{}{}{loud}",
        place.host("log_memory = \"1MiB\""),
        place.function("probe", "log_rate = \"10MiB\""),
        place.function("say", SAY),
    );
    let supervisor = Supervisor::start(place, &text)?;
    let mut client = Client::new(&supervisor)?;
    client.ask("say", "quiet", "before")?;
    // A tenant of many sub-tenants, a tenant of one, and another sub-tenant of the same tenant: each four times the room.
    for (tenant, function, sub_tenants) in [("other", "loud", 4), ("other", "loud", 1), ("acme", "probe", 1)] {
        for number in 0..4 {
            let sub_tenant = format!("loud-{}", number % sub_tenants);
            let call =
                sublet_proto::v1::InvokeRequest { tenant: tenant.into(), ..request(function, &sub_tenant, "flood 1") };
            client.call(call).map_err(|status| status.to_string())?;
        }
        let left = logs(&supervisor, &["--sub-tenant", "quiet"])?;
        ensure!(messages(&left) == ["before of quiet", "not ended"], "after {tenant}/{function}: {left:?}");
    }
    // Who floods has what is left, and lines that made room before anybody asked are not told as lost.
    let all = logs(&supervisor, &[])?;
    let bytes = all.iter().filter_map(|record| record["message"].as_str()).map(str::len).sum::<usize>();
    ensure!((400 << 10..=1 << 20).contains(&bytes), "{bytes} bytes of text in 1 MiB");
    ensure!(all.iter().all(|record| record["lost"].is_null()), "nothing was lost to this reader");
    supervisor.stop()
}

fn files() -> Outcome {
    let place = Place::new()?;
    let dir = place.path("logs");
    let host =
        format!("log = \"files\"\nlog_dir = {:?}\nlog_file_size = \"1MiB\"\nlog_files = 2", dir.display().to_string());
    let text =
        format!("{}[tenant.acme.sub_tenant]\n{}", place.host(&host), place.function("probe", "log_rate = \"10MiB\""));
    let mut supervisor = Supervisor::start(place, &text)?;
    let mut client = Client::new(&supervisor)?;
    client.probe("s1", "flood 4")?;
    let (_, last) = client.probe("s2", "flood 1")?;
    let place = supervisor.take_place();
    supervisor.stop()?;
    let read = |name: &str| fs::read_to_string(dir.join(name)).map_err(|error| format!("{name}: {error}"));
    let (now, before) = (read("functions.log")?, read("functions.log.1")?);
    let names: Vec<_> =
        fs::read_dir(&dir).map_err(|error| error.to_string())?.flatten().map(|entry| entry.file_name()).collect();
    ensure!(names.len() == 2, "{names:?}");
    for text in [&now, &before] {
        ensure!(text.len() <= (1 << 20) + (256 << 10), "{} bytes", text.len());
        values(text)?;
    }
    let records = values(&now)?;
    let end = records.last().ok_or("nothing was written")?;
    // All there was is there when the supervisor has stopped.
    ensure!(end["request"] == last.lease.as_str(), "{end}");
    let meta = fs::metadata(dir.join("functions.log")).map_err(|error| error.to_string())?;
    ensure!(meta.uid() != 0 && meta.mode() & 0o777 == 0o640, "uid {} mode {:o}", meta.uid(), meta.mode());

    // The next run goes on with the file.
    let supervisor = Supervisor::start(place, &text.replace("log_files = 2", "log_files = 3"))?;
    Client::new(&supervisor)?.probe("s3", "flood 0")?;
    supervisor.stop()
}

fn stdout() -> Outcome {
    let (supervisor, mut client) = start("log = \"stdout\"", SAY)?;
    let (_, receipt) = client.probe("s1", "hello")?;
    let records = values(&supervisor.stop_for_output()?)?;
    ensure!(
        messages(&records) == ["hello of s1", "not ended"] && records[0]["request"] == receipt.lease.as_str(),
        "{records:?}"
    );
    Ok(())
}

fn report_lines() -> Outcome {
    let (supervisor, mut client) = start("", "report_lines = true\ntimeout = \"2s\"")?;
    let mut ask = |verb: &str| {
        let mut call = request("probe", "s1", verb);
        call.want_log = true;
        client.call(call).map_err(|status| status.to_string())
    };
    let first = ask("flood 0")?;
    let lease = first.receipt.unwrap_or_default().lease;
    let tail = String::from_utf8_lossy(&first.log_tail).into_owned();
    let lines: Vec<&str> = tail.lines().collect();
    ensure!(lines.len() == 3, "{lines:?}");
    ensure!(lines[0].starts_with(&format!("START RequestId: {lease} Version: ")), "{lines:?}");
    ensure!(lines[1] == format!("END RequestId: {lease}"), "{lines:?}");
    let fields: Vec<&str> = lines[2].split('\t').collect();
    ensure!(fields[0] == format!("REPORT RequestId: {lease}") && fields.len() == 6, "{fields:?}");
    ensure!(fields[3] == "Memory Size: 64 MB" && fields[5].starts_with("Init Duration: "), "{fields:?}");
    let memory: u64 = fields[4]
        .trim_start_matches("Max Memory Used: ")
        .trim_end_matches(" MB")
        .parse()
        .map_err(|e| format!("{fields:?} {e}"))?;
    ensure!((1..=64).contains(&memory), "{fields:?}");
    // Of a long log the end is what comes, and it is the report.
    let tail = ask("flood 1")?.log_tail;
    let text = String::from_utf8_lossy(&tail);
    ensure!(tail.len() == 4096 && text.ends_with(" MB\n") && text.contains("flood flood"), "{text}");

    let report = |verdict: sublet_proto::v1::Verdict| {
        let text = String::from_utf8_lossy(&verdict.log_tail).into_owned();
        let lines: Vec<_> = text.lines().filter(|line| line.starts_with("REPORT")).map(str::to_owned).collect();
        if let [line] = &lines[..] { Ok(line.clone()) } else { Err(format!("{lines:?} of {text:?}")) }
    };
    let failed = report(client.verdict("probe", "error", VerdictKind::FunctionError, Code::Unknown)?)?;
    ensure!(failed.ends_with("\tStatus: error\tError Type: FUNCTION_ERROR"), "{failed}");
    let late = report(client.verdict("probe", "sleep 5000", VerdictKind::Deadline, Code::DeadlineExceeded)?)?;
    ensure!(late.contains("\tStatus: timeout"), "{late}");
    let gone = report(client.verdict("probe", "exit 3", VerdictKind::Exit, Code::Unknown)?)?;
    ensure!(gone.contains("\tStatus: error\tError Type: EXIT"), "{gone}");
    let records = logs(&supervisor, &[])?;
    let count = |what: &str| messages(&records).iter().filter(|line| line.starts_with(what)).count();
    ensure!(
        (count("START "), count("END "), count("REPORT ")) == (5, 5, 5),
        "{:?}",
        messages(&records).iter().filter(|line| !line.starts_with("flood")).collect::<Vec<_>>()
    );
    supervisor.stop()
}

fn refused() -> Outcome {
    let place = Place::new()?;
    let host = place.host(&format!("log = \"files\"\nlog_dir = {:?}", place.path("fn").display().to_string()));
    let text = format!(
        "{host}[tenant.acme.sub_tenant]\n{}",
        place.function("probe", "dir = \"/usr\"\nlayout = \"host\"\ncommand = [\"/function/bin/true\"]")
    );
    let Err(error) = Supervisor::start(place, &text) else { return Err("root's directory was taken".into()) };
    ensure!(error.contains("host.log_dir") && error.contains("chown"), "{error}");
    let (supervisor, _) = start("", "")?;
    for arguments in [["--function", "nothing"], ["--tenant", "nobody"], ["--last", "100001"]] {
        let error = logs(&supervisor, &arguments).expect_err("it is wrong");
        ensure!(error.contains(arguments[1]), "{error}");
    }
    supervisor.stop()
}

fn records(client_name: &str) -> Outcome {
    let place = Place::new()?;
    let text = format!("{}[tenant.acme.sub_tenant]\n{}", place.host(""), lambda::function("f", client_name, ""));
    let supervisor = Supervisor::start(place, &text)?;
    let mut client = Client::new(&supervisor)?;
    let (_, receipt) = client.ask("f", "s1", &json!({"do": "log", "value": "first\nsecond"}).to_string())?;
    // Up to the client's request for the next call, which comes after its answer.
    let end = Instant::now() + Duration::from_secs(10);
    loop {
        let records = logs(&supervisor, &["--request", &receipt.lease])?;
        let found = messages(&records).into_iter().any(|line| line.contains("first\nsecond") && line.contains("ERROR"));
        if found {
            return supervisor.stop();
        }
        ensure!(Instant::now() < end, "{:?}", logs(&supervisor, &[])?);
        sleep(Duration::from_millis(20));
    }
}
