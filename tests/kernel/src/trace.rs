//! Recorded calls, and what other limits would have done to them.

use std::process::Command;

use crate::{
    Case, Outcome, case,
    client::{Client, request},
    configs::Place,
    ensure,
    supervisor::{self, Supervisor},
};

/// The cases.
pub const CASES: &[Case] = &[
    case("trace::recorded_calls_are_a_trace_that_what_if_runs", recorded),
    case("trace::wrong_traces_and_changes_are_refused_by_name", refused),
];

fn recorded() -> Outcome {
    let place = Place::new()?;
    let text = place.simple("");
    let trace = place.path("trace.csv").display().to_string();
    let mut supervisor = Supervisor::start_with(place, &text, &["--record", &trace])?;
    let mut client = Client::new(&supervisor)?;
    for name in ["s1", "s2", "s1", "s3", "s1"] {
        client.probe(name, "sleep 20")?;
    }
    client.call(request("probe", "s1", "error")).err().ok_or("error was answered")?;
    client.call(request("probe", "s1", "exit 3")).err().ok_or("exit was answered")?;
    client.call(request("nothing", "s1", "")).err().ok_or("an unknown function was answered")?;
    drop(client);
    let place = supervisor.take_place();
    supervisor.stop()?;
    let rows = std::fs::read_to_string(&trace).map_err(|error| error.to_string())?;
    let lines: Vec<&str> = rows.lines().collect();
    ensure!(lines.len() == 8, "seven calls were delivered: {rows}");
    ensure!(lines[0] == "at_us,tenant,function,sub_tenant,service_us,outcome", "{rows}");
    let column = |line: &str, at: usize| line.split(',').nth(at).unwrap_or_default().to_owned();
    let name = |at: usize| column(lines[at], 3);
    ensure!(name(1) == name(3) && name(1) != name(2) && name(2) != name(4), "the names are not kept apart: {rows}");
    ensure!(!rows.contains("s1,") && name(1).len() == 32, "labels are hashed: {rows}");
    ensure!(column(lines[1], 4).parse::<u64>().is_ok_and(|time| time >= 20_000), "{rows}");
    ensure!(column(lines[6], 5) == "error" && column(lines[7], 5) == "crash", "{rows}");
    let said = what_if(&place, &trace, &["tenant.acme.function.probe.calls_max=1"])?;
    let told: serde_json::Value = serde_json::from_slice(&said.0).map_err(|error| format!("{error}: {}", said.1))?;
    ensure!(
        told["before"]["calls"] == 7 && told["after"]["starts"]["warm"] == 0 && told["before"]["starts"]["warm"] != 0,
        "{told}"
    );
    Ok(())
}

/// stdout and stderr.
fn what_if(place: &Place, trace: &str, changes: &[&str]) -> Result<(Vec<u8>, String), String> {
    let config = place.path("sublet.toml");
    let mut command = Command::new(supervisor::program());
    command.args(["what-if", trace, "--json", "--config"]).arg(config);
    for change in changes {
        command.args(["--set", change]);
    }
    let output = command.output().map_err(|error| error.to_string())?;
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    Ok((output.stdout.clone(), text(&output.stdout) + &text(&output.stderr)))
}

fn refused() -> Outcome {
    let place = Place::new()?;
    place.write(&place.simple(""))?;
    let trace = place.path("trace.csv").display().to_string();
    let header = "at_us,tenant,function,sub_tenant,service_us,outcome\n";
    let good = format!("{header}0,acme,probe,a,10,ok\n5,acme,probe,b,10,ok\n");
    let cases = [
        (good.clone(), "host.workers_max=0", "host.workers_max"),
        (good.clone(), "tenant.acme.weight=0", "tenant.acme.weight"),
        (good.clone(), "tenant.acme.rate=0/s", "tenant.acme.rate"),
        (good.clone(), "tenant.nobody.weight=1", "nobody"),
        (good.clone(), "nonsense=1", "nonsense"),
        (good.replace("5,acme", "x,acme"), "host.workers_max=100", "line 3"),
        (good.replace("0,acme", "9,acme"), "host.workers_max=100", "line 3"),
        (good.replace("probe,b", "other,b"), "host.workers_max=100", "other"),
        (good.replace("10,ok\n5", "10\n5"), "host.workers_max=100", "line 2"),
        (String::new(), "host.workers_max=100", "empty"),
    ];
    for (text, change, says) in cases {
        std::fs::write(&trace, &text).map_err(|error| error.to_string())?;
        let (_, said) = what_if(&place, &trace, &[change])?;
        ensure!(said.contains(says) && said.contains("error"), "{change} on {text:?}: {said}");
    }
    Ok(())
}
