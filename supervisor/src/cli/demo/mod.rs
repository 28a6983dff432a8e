//! `sublet demo`: the main job for real, in about ten seconds.
//!
//! Everything it prints is what came back from a real supervisor; every claim it makes is checked, and a claim that does
//! not hold fails the demo.

mod functions;

use std::time::{Duration, Instant};

use serde_json::json;
use sublet_proto::v1::{
    DescribeWorkerRequest, InvokeRequest, Receipt, admin_client::AdminClient, invoker_client::InvokerClient,
};
use tonic::{Status, transport::Channel};

use super::{
    Failed, client, output,
    stage::{Interrupts, Stage},
};
use crate::{doctor::Report, front::status, printable};

/// A text that every Debian has; the licence of sublet itself where it is missing.
const LICENCE: &str = "/usr/share/common-licenses/GPL-3";
const OWN_LICENCE: &str = include_str!(concat!(env!("CARGO_MANIFEST_DIR"), "/../LICENSE"));
/// A table for the report function: the month's orders of one customer.
const ORDERS: &str = "item,pieces,price\npen,12,1.20\npaper,3,4.50\nink,2,18.90\npen,5,1.10\n";

/// Runs the demo.
pub fn run(json: bool) -> Result<(), Failed> {
    let report = Report::of_host();
    // What it lacks of the hard requirements is told as `serve` would tell it.
    report
        .refuse(&report.degraded().collect())
        .map_err(|unfit| Failed::new(format!("the demo cannot run here:\n{unfit}")))?;
    let teller = Teller { json };
    teller.host(&report);
    let (took, left) = client::block_on(async {
        let mut interrupts = Interrupts::listen()?;
        let stage = interrupts.or(Stage::build("demo", &report, functions::prepare)).await?;
        let played = interrupts.or(play(&stage, &teller)).await;
        let struck = stage.strike().await;
        played.and(struck)
    })?;
    teller.act("It stops and leaves nothing behind");
    if !left.is_empty() {
        return Err(Failed::new(format!("left behind: {}", left.join(", "))));
    }
    teller
        .line(&format!("stopped in {}: no process, no cgroup, no mount, no socket of it is left", output::time(took)));
    Ok(())
}

/// A reader that has gone away is no reason to leave the stage standing.
fn say(text: &str) {
    output::say(text).ok();
}

fn say_json(value: &serde_json::Value) {
    output::say_json(value).ok();
}

/// Prints lines for people, or events for programs.
struct Teller {
    json: bool,
}

impl Teller {
    fn act(&self, title: &str) {
        if self.json {
            say_json(&json!({ "event": "act", "title": title }));
        } else {
            say(&format!("\n== {title}"));
        }
    }

    fn line(&self, text: &str) {
        if self.json {
            say_json(&json!({ "event": "line", "text": text }));
        } else {
            say(&format!("   {}", printable::line(text)));
        }
    }

    fn host(&self, report: &Report) {
        self.act("This host");
        for check in report.checks.iter().filter(|check| ["kernel", "cgroups"].contains(&check.name)) {
            self.line(&format!("{}: {}", check.name, check.value));
        }
        let missing: Vec<String> = report.degraded().map(|degradation| degradation.to_string()).collect();
        let missing = if missing.is_empty() { "nothing".to_owned() } else { missing.join(", ") };
        self.line(&format!("not enforced here, and accepted for the demo: {missing}"));
    }

    fn call(&self, sub_tenant: &str, function: &str, verb: &str, receipt: &Receipt, took: Duration, seen: &str) {
        let start = output::start(receipt);
        if self.json {
            let event = json!({
                "event": "call", "sub_tenant": sub_tenant, "function": function, "verb": verb, "seen": seen,
                "took_ms": took.as_micros() as f64 / 1e3, "receipt": output::receipt(receipt),
            });
            say_json(&event);
        } else {
            let worker = if receipt.worker.is_empty() { "-" } else { &receipt.worker };
            let what = format!("{function} {verb}");
            say(&format!(
                "   {sub_tenant:<6} {worker:<5} {start:<5} {:>8}  {:<28} {}",
                output::time(took),
                printable::line(&what),
                printable::line(seen)
            ));
        }
    }
}

/// What a call came to.
struct Called {
    text: String,
    receipt: Receipt,
}

struct Player<'a> {
    client: InvokerClient<Channel>,
    teller: &'a Teller,
}

impl Player<'_> {
    async fn send(&mut self, sub_tenant: &str, function: &str, payload: &str) -> (Duration, Result<Called, Status>) {
        let request = InvokeRequest {
            tenant: "acme".into(),
            function: function.into(),
            sub_tenant: sub_tenant.into(),
            payload: payload.as_bytes().to_vec().into(),
            ..InvokeRequest::default()
        };
        let begin = Instant::now();
        let result = self.client.invoke(request).await;
        let called = result.map(|response| {
            let response = response.into_inner();
            let text = String::from_utf8_lossy(&response.payload).into_owned();
            Called { text, receipt: response.receipt.unwrap_or_default() }
        });
        (begin.elapsed(), called)
    }

    /// Calls and tells; the call must be answered. `shown` makes a short line of the answer.
    async fn call(
        &mut self,
        sub_tenant: &str,
        function: &str,
        (payload, verb): (&str, &str),
        shown: impl Fn(&str) -> String,
    ) -> Result<Called, Failed> {
        let (took, result) = self.send(sub_tenant, function, payload).await;
        let called = result.map_err(|status| {
            Failed::new(format!("{sub_tenant} {function} {verb}: {}", printable::line(status.message())))
        })?;
        self.teller.call(sub_tenant, function, verb, &called.receipt, took, &shown(&called.text));
        Ok(called)
    }

    async fn note(&mut self, sub_tenant: &str, verb: &str) -> Result<Called, Failed> {
        self.call(sub_tenant, "notes", (verb, verb), |text| text.trim().replace('\n', ", ")).await
    }

    /// Calls and tells; the call must not be answered.
    async fn refused(&mut self, sub_tenant: &str, verb: &str, shown: &str) -> Result<String, Failed> {
        let (took, result) = self.send(sub_tenant, "notes", verb).await;
        let status = match result {
            Ok(called) => {
                return Err(Failed::new(format!(
                    "{sub_tenant} notes {verb} was answered: {}",
                    printable::line(&called.text)
                )));
            }
            Err(status) => status,
        };
        let verdict = status::verdict_of(&status).unwrap_or_default();
        let name = output::verdict_name(&verdict);
        let log = String::from_utf8_lossy(&verdict.log_tail).trim().to_owned();
        let receipt = verdict.receipt.clone().unwrap_or_default();
        let seen = if verdict.setting.ends_with("memory_max") {
            format!("{name}: limit {}, setting {}", verdict.limit, verdict.setting)
        } else {
            format!("{name}: {log}")
        };
        self.teller.call(sub_tenant, "notes", shown, &receipt, took, &seen);
        Ok(format!("{name} {log}"))
    }
}

fn claim(holds: bool, what: &str) -> Result<(), Failed> {
    if holds { Ok(()) } else { Err(Failed::new(format!("the demo's claim does not hold: {what}"))) }
}

async fn play(stage: &Stage, teller: &Teller) -> Result<(), Failed> {
    teller.line(&format!("a supervisor (pid {}) serves on {}", stage.pid(), stage.socket().display()));
    let client = client::invoker(&stage.socket().display().to_string()).await?;
    let mut admin = client::admin(&stage.admin_socket()).await?;
    let mut player = Player { client, teller };

    teller.act("Each customer gets a worker of its own, and finds it warm the next time");
    teller.line("cold: made for the call; cell: made ahead for nobody, and given to the customer for life");
    let customers = [("ada", "red"), ("bob", "green"), ("cleo", "blue")];
    for (name, colour) in customers {
        let called = player.note(name, &format!("remember colour {colour}")).await?;
        claim(called.receipt.start() != sublet_proto::v1::Start::Warm, "a first call finds no worker")?;
    }
    for (name, colour) in customers {
        let called = player.note(name, "recall colour").await?;
        claim(called.text == colour, "each sees its own state and no other")?;
        claim(called.receipt.start() == sublet_proto::v1::Start::Warm, "the second call is warm")?;
    }

    teller.act("Functions do real work on real input");
    work(&mut player, functions::has_python()).await?;

    teller.act("One customer cannot reach another");
    isolation(&mut player, &mut admin).await?;

    teller.act("A memory bomb is ended by its own limit while the neighbour goes on");
    bomb(&mut player).await?;

    teller.act("The cgroup tree: limits at every level");
    let workers = admin.list_workers(sublet_proto::v1::ListWorkersRequest::default()).await;
    let workers = workers.map_err(|status| client::refused(&status))?.into_inner().workers;
    let last = workers.last().ok_or_else(|| Failed::new("no worker is alive"))?;
    let request = DescribeWorkerRequest { worker: last.worker.clone() };
    let described = admin.describe_worker(request).await.map_err(|status| client::refused(&status))?.into_inner();
    tree(teller, &described.cgroup);
    for limit in described.limits.iter().filter(|limit| limit.knob.contains('.')) {
        teller.line(&format!("{}: {} = {} ({})", last.worker, limit.knob, limit.value, limit.setting));
    }
    Ok(())
}

async fn work(player: &mut Player<'_>, has_python: bool) -> Result<(), Failed> {
    let text = std::fs::read_to_string(LICENCE).unwrap_or_else(|_| OWN_LICENCE.to_owned());
    let title = if text == OWN_LICENCE { "(sublet's licence)" } else { "(the GPL's text)" };
    let first_words = |text: &str| text.lines().take(4).collect::<Vec<_>>().join(", ");
    player.call("ada", "words", (&text, title), first_words).await?;
    player.call("bob", "words", (&text.to_uppercase(), title), first_words).await?;
    if !has_python {
        player.teller.line("(no /usr/bin/python3 on this host: the SQLite report is left out)");
        return Ok(());
    }
    let rows = |text: &str| {
        let report: serde_json::Value = serde_json::from_str(text).unwrap_or_default();
        format!(
            "{} rows, {} reports of {}",
            report["rows"], report["worker"]["reports"], report["worker"]["sub_tenant"]
        )
    };
    for (name, times) in [("ada", 2), ("bob", 1)] {
        for number in 1..=times {
            let called = player.call(name, "report", (ORDERS, "(orders as CSV)"), rows).await?;
            let report: serde_json::Value = serde_json::from_str(&called.text)?;
            claim(report["worker"]["reports"] == number, "reports are counted for each customer alone")?;
        }
    }
    Ok(())
}

async fn isolation(player: &mut Player<'_>, admin: &mut AdminClient<Channel>) -> Result<(), Failed> {
    let called = player.note("ada", "recall colour").await?;
    let request = DescribeWorkerRequest { worker: called.receipt.worker };
    let described = admin.describe_worker(request).await.map_err(|status| client::refused(&status))?.into_inner();
    let pid = described.worker.map_or(0, |worker| worker.pid);
    let path = format!("/proc/{pid}/root/tmp/note-colour");
    let seen = std::fs::read_to_string(&path)?;
    player.teller.line(&format!("root on the host reads ada's file at {path}: {seen:?}"));
    claim(seen == "red", "the path is the right one")?;
    let told = player.refused("bob", &format!("peek {path}"), "peek (the same path)").await?;
    claim(told.contains("No such file"), "bob cannot read it")?;
    let files = player.note("bob", "files").await?;
    claim(files.text.trim() == "note-colour", "bob's /tmp is his own")?;
    let called = player.call("bob", "notes", ("processes", "processes"), |text| {
        format!("{} processes, all his own", text.lines().count())
    });
    let called = called.await?;
    claim(
        called.text.lines().all(|line| line.contains("notes.sh") || line.contains("tr ")),
        "bob sees his own processes only",
    )?;
    let told = player.refused("bob", "peek /etc/shadow", "peek /etc/shadow").await?;
    claim(told.contains("No such file"), "the host's accounts are not there")
}

async fn bomb(player: &mut Player<'_>) -> Result<(), Failed> {
    let mut neighbour = Player { client: player.client.clone(), teller: player.teller };
    let (bomb, calls) = tokio::join!(player.refused("cleo", "bomb", "bomb"), async {
        let mut worst = Duration::ZERO;
        let mut count = 0_u32;
        let end = Instant::now() + Duration::from_millis(400);
        while Instant::now() < end {
            let (took, result) = neighbour.send("ada", "notes", "recall colour").await;
            match result {
                Ok(called) if called.text == "red" => count += 1,
                Ok(called) => return Err(Failed::new(format!("ada sees {:?}", called.text))),
                Err(status) => return Err(Failed::new(format!("ada was not answered: {}", status.message()))),
            }
            worst = worst.max(took);
        }
        Ok((count, worst))
    });
    let verdict = bomb?;
    claim(verdict.starts_with("MEMORY"), "the bomb is ended by its memory limit")?;
    let (count, worst) = calls?;
    player.teller.line(&format!("meanwhile ada was answered {count} times, the slowest in {}", output::time(worst)));
    let called = player.note("cleo", "recall colour").await?;
    claim(called.receipt.calls == 1 && called.text == "(nothing)", "cleo's next call gets a new worker")
}

/// Directories from the supervisor's group down to the worker's, siblings included.
fn tree(teller: &Teller, leaf: &str) {
    let Some((top, _)) = leaf.split_once("/pool/") else { return };
    let mut stack = vec![(std::path::PathBuf::from(top), 0)];
    while let Some((dir, depth)) = stack.pop() {
        let name = dir.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
        // Hashes are long, and say nothing to people.
        let short: String = name.chars().take(if name.starts_with("s-") { 14 } else { 60 }).collect();
        teller.line(&format!("{}{short}/", "  ".repeat(depth)));
        let Ok(entries) = std::fs::read_dir(&dir) else { continue };
        let mut children: Vec<_> =
            entries.flatten().filter(|e| e.file_type().is_ok_and(|kind| kind.is_dir())).map(|e| e.path()).collect();
        children.sort();
        stack.extend(children.into_iter().rev().map(|child| (child, depth + 1)));
    }
}
