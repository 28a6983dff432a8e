//! grpc.health.v1 follows what calls would get, and who watches is told when that changes.

use std::{path::Path, time::Duration};

use nix::sys::signal::{Signal, kill};
use serde_json::json;
use tokio::runtime::Runtime;
use tonic::{
    Code, Status, Streaming,
    transport::{Channel, Endpoint},
};
use tonic_health::pb::{
    HealthCheckRequest, HealthCheckResponse, health_check_response::ServingStatus, health_client::HealthClient,
};

use crate::{
    Case, Outcome, case,
    client::{Client, reason, request},
    configs::Place,
    ensure,
    supervisor::Supervisor,
};

/// The cases.
pub const CASES: &[Case] = &[
    case("health::drain_and_its_end_are_told_by_name", drain),
    case("health::stop_is_told_and_cannot_be_taken_back", stop),
    case("health::function_that_a_reload_removes_is_unknown_and_comes_back", reload),
    case("health::function_whose_every_start_fails_does_not_serve_and_others_do", starts),
    case("health::function_that_backs_off_for_all_does_not_serve_and_for_one_does", back_off),
];

/// Changes come within moments; an emulated machine takes many times as long.
const PATIENCE: Duration = Duration::from_secs(60);

struct Health {
    runtime: Runtime,
    client: HealthClient<Channel>,
}

impl Health {
    fn at(socket: &Path) -> Result<Self, String> {
        let runtime = Runtime::new().map_err(|error| error.to_string())?;
        let endpoint =
            Endpoint::from_shared(format!("unix:{}", socket.display())).map_err(|error| error.to_string())?;
        let channel = runtime.block_on(endpoint.connect()).map_err(|error| format!("connect: {error:?}"))?;
        Ok(Self { runtime, client: HealthClient::new(channel) })
    }

    /// Once.
    fn check(&mut self, service: &str) -> Result<ServingStatus, Status> {
        let request = HealthCheckRequest { service: service.to_owned() };
        let answer = self.runtime.block_on(self.client.check(request))?;
        Ok(answer.into_inner().status())
    }

    fn checks(&mut self, expected: &[(&str, ServingStatus)]) -> Outcome {
        for (service, status) in expected {
            let found = self.check(service).map_err(|status| format!("{service:?}: {status:?}"))?;
            ensure!(found == *status, "{service:?} is {found:?}, and should be {status:?}");
        }
        Ok(())
    }

    fn lacks(&mut self, service: &str) -> Outcome {
        match self.check(service) {
            Err(status) if status.code() == Code::NotFound => Ok(()),
            found => Err(format!("{service:?} should not be found: {found:?}")),
        }
    }

    fn watch(&mut self, service: &str) -> Result<Watched, String> {
        let request = HealthCheckRequest { service: service.to_owned() };
        let stream = self.runtime.block_on(self.client.watch(request)).map_err(|status| format!("{status:?}"))?;
        Ok(Watched { service: service.to_owned(), stream: stream.into_inner() })
    }

    /// The next message, which must come and be this.
    fn next(&self, watched: &mut Watched, expected: ServingStatus) -> Outcome {
        let next = async { tokio::time::timeout(PATIENCE, watched.stream.message()).await };
        let found = self.runtime.block_on(next).map_err(|_| format!("{:?}: no {expected:?} came", watched.service))?;
        let found = found.map_err(|status| format!("{:?}: {status:?}", watched.service))?;
        let found = found.map(|response| response.status());
        ensure!(found == Some(expected), "{:?}: {found:?} instead of {expected:?}", watched.service);
        Ok(())
    }

    /// Whether the stream ends by itself, and well.
    fn ends(&self, watched: &mut Watched) -> Result<bool, String> {
        let next = async { tokio::time::timeout(PATIENCE, watched.stream.message()).await };
        let end = self.runtime.block_on(next).map_err(|_| "it does not end".to_owned())?;
        Ok(matches!(end, Ok(None)))
    }
}

struct Watched {
    service: String,
    stream: Streaming<HealthCheckResponse>,
}

const INVOKER: &str = "sublet.v1.Invoker";
const ADMIN: &str = "sublet.v1.Admin";

fn drain() -> Outcome {
    use ServingStatus::{NotServing, Serving};
    let supervisor = Supervisor::simple("")?;
    let mut client = Client::new(&supervisor)?;
    let mut callers = Health::at(&supervisor.socket())?;
    let mut operators = Health::at(&supervisor.admin_socket())?;
    let all = |status| [("", status), (INVOKER, status), ("acme/probe", status)];
    callers.checks(&all(Serving))?;
    operators.checks(&all(Serving))?;
    operators.checks(&[(ADMIN, Serving)])?;
    for unknown in [ADMIN, "acme/none", "none/probe", "acme", "acme/"] {
        callers.lacks(unknown)?;
    }
    let mut watched = [callers.watch("")?, callers.watch(INVOKER)?, callers.watch("acme/probe")?];
    for one in &mut watched {
        callers.next(one, Serving)?;
    }
    for round in 0..2 {
        let (_, before) = client.probe("s1", "echo here")?;
        ensure!(before.calls == 1, "round {round}: a worker outlived the drain: {before:?}");
        supervisor.admin(&["drain"])?;
        for one in &mut watched {
            callers.next(one, NotServing)?;
        }
        callers.checks(&all(NotServing))?;
        operators.checks(&[(ADMIN, Serving), ("", NotServing)])?;
        let told = supervisor.admin(&["health"])?;
        ensure!(told["status"] == "draining", "{told}");
        ensure!(told["not_serving"][0]["service"] == "", "{told}");
        let refused = client.call(request("probe", "s1", "echo late"));
        ensure!(refused.err().is_some_and(|status| reason(&status) == "DRAINING"), "a call was taken");
        let told = supervisor.admin(&["undrain"])?;
        ensure!(told == json!({ "was_draining": true }), "{told}");
        for one in &mut watched {
            callers.next(one, Serving)?;
        }
        callers.checks(&all(Serving))?;
        ensure!(supervisor.admin(&["health"])?["status"] == "serving", "health does not say that it serves");
    }
    let told = supervisor.admin(&["undrain"])?;
    ensure!(told == json!({ "was_draining": false }), "{told}");
    client.probe("s1", "echo on")?;
    // In the middle of a drain: it goes on as if there had been none.
    let busy = std::thread::spawn({
        let mut client = Client::new(&supervisor)?;
        move || client.probe("s2", "sleep 3000")
    });
    client.rest(Duration::from_millis(300));
    let (ended, undrained) = std::thread::scope(|scope| {
        let draining = scope.spawn(|| supervisor.admin(&["drain"]));
        for one in &mut watched {
            callers.next(one, NotServing)?;
        }
        let undrained = supervisor.admin(&["undrain"]);
        let ended = draining.join().map_err(|_| "the drain's thread failed".to_owned())?;
        Ok::<_, String>((ended, undrained))
    })?;
    ensure!(undrained? == json!({ "was_draining": true }), "the drain had ended");
    let words = ended?.to_string();
    ensure!(words.contains("undrained"), "a drain that was undrained ended well: {words}");
    let (answer, _) = busy.join().map_err(|_| "the call's thread failed")??;
    ensure!(answer == "slept", "{answer}");
    client.probe("s1", "echo on")?;
    supervisor.stop()
}

fn stop() -> Outcome {
    let supervisor = Supervisor::simple("")?;
    let mut client = Client::new(&supervisor)?;
    client.probe("s1", "echo warm")?;
    let mut health = Health::at(&supervisor.socket())?;
    let mut watched = health.watch("acme/probe")?;
    health.next(&mut watched, ServingStatus::Serving)?;
    let busy = std::thread::spawn({
        let mut client = Client::new(&supervisor)?;
        move || client.probe("s1", "sleep 2000")
    });
    client.rest(Duration::from_millis(300));
    kill(supervisor.pid(), Signal::SIGTERM).map_err(|error| error.to_string())?;
    health.next(&mut watched, ServingStatus::NotServing)?;
    health.checks(&[("", ServingStatus::NotServing)])?;
    let told = supervisor.admin(&["health"])?;
    ensure!(told["status"] == "stopping", "{told}");
    let refused = supervisor.admin(&["undrain"])?.to_string();
    ensure!(refused.contains("stops"), "{refused}");
    let (answer, _) = busy.join().map_err(|_| "the call's thread failed")??;
    ensure!(answer == "slept", "{answer}");
    ensure!(health.ends(&mut watched)?, "the watch was cut");
    let (status, log) = supervisor.wait()?;
    ensure!(status == "exit status: 0", "{status}: {log}");
    Ok(())
}

fn reload() -> Outcome {
    use ServingStatus::{ServiceUnknown, Serving};
    let place = Place::new()?;
    let (one, both) = (place.simple(""), place.simple("") + &place.function("other", ""));
    let supervisor = Supervisor::start(place, &both)?;
    let mut health = Health::at(&supervisor.socket())?;
    let mut watched = health.watch("acme/other")?;
    health.next(&mut watched, Serving)?;
    supervisor.place.write(&one)?;
    supervisor.admin(&["reload"])?;
    health.next(&mut watched, ServiceUnknown)?;
    health.lacks("acme/other")?;
    // Who asks before there is anything is told when there is.
    let mut early = health.watch("acme/other")?;
    health.next(&mut early, ServiceUnknown)?;
    supervisor.place.write(&both)?;
    supervisor.admin(&["reload"])?;
    for watched in [&mut watched, &mut early] {
        health.next(watched, Serving)?;
    }
    health.checks(&[("acme/other", Serving)])?;
    supervisor.stop()
}

/// Calls that must fail.
fn fail(client: &mut Client, function: &str, sub_tenant: &str, verb: &str, times: usize) -> Outcome {
    for at in 0..times {
        let answer = client.call(request(function, sub_tenant, verb));
        ensure!(answer.is_err(), "call {at} of {function} for {sub_tenant} was answered");
    }
    Ok(())
}

fn starts() -> Outcome {
    use ServingStatus::{NotServing, Serving};
    let place = Place::new()?;
    let broken = "env.PROBE_START = \"exit\"";
    let text = place.simple("") + &place.function("broken", broken);
    let supervisor = Supervisor::start(place, &text)?;
    let mut client = Client::new(&supervisor)?;
    let mut health = Health::at(&supervisor.socket())?;
    let mut watched = health.watch("acme/broken")?;
    health.next(&mut watched, Serving)?;
    // Of whomever: it is the function that does not start.
    for sub_tenant in ["s1", "s2", "s3"] {
        fail(&mut client, "broken", sub_tenant, "echo", 1)?;
    }
    health.next(&mut watched, NotServing)?;
    health.checks(&[("acme/broken", NotServing), ("acme/probe", Serving), ("", Serving)])?;
    let told = supervisor.admin(&["health"])?;
    ensure!(told["status"] == "serving", "{told}");
    ensure!(told["not_serving"][0]["service"] == "acme/broken", "{told}");
    // Alone, it is all there is to call.
    let host = supervisor.place.host("");
    supervisor.place.write(&format!("{host}{}", supervisor.place.function("broken", broken)))?;
    supervisor.admin(&["reload"])?;
    health.checks(&[("acme/broken", NotServing), ("", NotServing), (INVOKER, NotServing)])?;
    ensure!(supervisor.admin(&["health"])?["status"] == "not serving", "health says that it serves");
    // Repaired, it is another revision, of which nothing bad is known.
    supervisor.place.write(&format!("{host}{}", supervisor.place.function("broken", "")))?;
    supervisor.admin(&["reload"])?;
    health.next(&mut watched, Serving)?;
    health.checks(&[("", Serving)])?;
    client.ask("broken", "s1", "echo repaired")?;
    supervisor.stop()
}

fn back_off() -> Outcome {
    use ServingStatus::{NotServing, Serving};
    let place = Place::new()?;
    let text = place.simple("") + &place.function("common", "isolation = \"shared\"");
    let supervisor = Supervisor::start(place, &text)?;
    let mut client = Client::new(&supervisor)?;
    let mut health = Health::at(&supervisor.socket())?;
    let mut common = health.watch("acme/common")?;
    health.next(&mut common, Serving)?;
    fail(&mut client, "common", "", "exit 3", 3)?;
    health.next(&mut common, NotServing)?;
    let mut own = health.watch("acme/probe")?;
    health.next(&mut own, Serving)?;
    // What one customer's payloads do says nothing about the others.
    fail(&mut client, "probe", "s1", "exit 3", 3)?;
    client.rest(Duration::from_millis(700));
    health.checks(&[("acme/probe", Serving)])?;
    fail(&mut client, "probe", "s2", "exit 3", 3)?;
    health.next(&mut own, NotServing)?;
    // Back-offs are over soon; the answer of a trial is what counts.
    client.rest(Duration::from_millis(300));
    health.checks(&[("acme/probe", NotServing)])?;
    client.probe("s1", "echo well")?;
    health.next(&mut own, Serving)?;
    client.ask("common", "", "echo well")?;
    health.next(&mut common, Serving)?;
    supervisor.stop()
}
