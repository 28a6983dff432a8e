//! What the kernel counts by user: a worker that takes all it may leaves root and the other workers theirs. And the clocks,
//! which are of a worker as well.

use std::{
    fs,
    process::{Command, Stdio},
};

use crate::{Case, Outcome, case, client::Client, ensure, ground::Need, supervisor, supervisor::Supervisor};

/// The cases.
pub const CASES: &[Case] = &[
    Case {
        needs: &[Need::Inodes],
        ..case("counters::worker_with_all_inotify_instances_leaves_root_and_others_theirs", instances)
    },
    Case { needs: &[Need::Inodes], ..case("counters::inotify_watches_of_a_worker_are_bounded", watches) },
    case("counters::worker_with_all_pending_signals_leaves_root_and_others_theirs", signals),
    case("counters::namespaces_of_workers_are_counted_for_their_own_uids", owners),
    case("counters::every_maximum_of_the_kernel_is_set_by_the_plan", maxima),
    Case { needs: &[Need::Time], ..case("counters::clocks_of_a_worker_tell_nothing_of_the_host_or_of_others", clocks) },
];

/// Runs the probe as root, with at most so many pending signals.
fn root(pending_max: u32, words: &str) -> Result<String, String> {
    let limit = format!("--sigpending={pending_max}:{pending_max}");
    let output = Command::new("prlimit")
        .arg(limit)
        .arg(supervisor::probe())
        .args(words.split(' '))
        .stdin(Stdio::null())
        .output()
        .map_err(|error| format!("run prlimit: {error}"))?;
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).trim().to_owned();
    if output.status.success() { Ok(text(&output.stdout)) } else { Err(text(&output.stderr)) }
}

fn instances() -> Outcome {
    let supervisor = Supervisor::simple("nofile = 400")?;
    let mut client = Client::new(&supervisor)?;
    ensure!(root(1000, "inotify 1")? == "took 1", "root can make none even before");
    let (took, _) = client.probe("a", "inotify 300")?;
    let (took_too, _) = client.probe("b", "inotify 300").unwrap_or_else(|error| (error, Default::default()));
    // Both hold 128 together: what a host lets one uid have, as a rule.
    let of_root = root(1000, "inotify 8");
    ensure!(of_root.as_deref() == Ok("took 8"), "root: {of_root:?}");
    let (neighbour, _) = client.probe("neighbour", "inotify 64")?;
    ensure!(neighbour == "took 64", "a neighbour {neighbour}");
    ensure!([took, took_too] == ["took 64: EMFILE"; 2], "the maximum inside is not what it should be");
    supervisor.stop()
}

fn watches() -> Outcome {
    let supervisor = Supervisor::simple("tmp_inodes = 10000\ntmp_size = \"32MiB\"")?;
    let mut client = Client::new(&supervisor)?;
    let (took, _) = client.probe("a", "watches 9000")?;
    ensure!(took == "took 8192: ENOSPC", "{took}");
    supervisor.stop()
}

fn signals() -> Outcome {
    let supervisor = Supervisor::simple("")?;
    let mut client = Client::new(&supervisor)?;
    // What root has pending already, at most: it may have one more than the worker will hold.
    ensure!(root(100, "signals 1")? == "took 1", "root can queue none even before");
    let (took, _) = client.probe("a", "signals 1000")?;
    ensure!(took == "took 128: EAGAIN", "{took}");
    let of_root = root(100, "signals 1");
    ensure!(of_root.as_deref() == Ok("took 1"), "root: {of_root:?}");
    let (neighbour, _) = client.probe("neighbour", "signals 128")?;
    ensure!(neighbour == "took 128", "a neighbour {neighbour}");
    supervisor.stop()
}

/// The kernel records who made a user namespace, and counts for that uid: init's.
fn owners() -> Outcome {
    let supervisor = Supervisor::simple("")?;
    let mut client = Client::new(&supervisor)?;
    let mut seen = Vec::new();
    for name in ["a", "b"] {
        let (_, receipt) = client.probe(name, "echo here")?;
        let pid = supervisor.admin(&["describe", &receipt.worker])?["worker"]["pid"].clone();
        let status = fs::read_to_string(format!("/proc/{pid}/status")).map_err(|error| error.to_string())?;
        let own = status.lines().find_map(|line| line.strip_prefix("Uid:")).unwrap_or_default();
        let own = own.split_whitespace().next().unwrap_or_default().to_owned();
        seen.push((own, root(1000, &format!("owner /proc/{pid}/ns/user"))?));
    }
    ensure!(seen[0].0 != seen[1].0 && seen.iter().all(|(uid, owner)| uid == owner), "uids and owners: {seen:?}");
    supervisor.stop()
}

/// A kernel with one that the plan does not know needs a decision.
fn maxima() -> Outcome {
    let supervisor = Supervisor::simple("")?;
    let config = supervisor.place.path("sublet.toml").display().to_string();
    let output = Command::new(supervisor::program()).args(["plan", "probe", "--config", &config]).output();
    let plan = String::from_utf8_lossy(&output.map_err(|error| error.to_string())?.stdout).into_owned();
    let line = plan.lines().find(|line| line.contains("set the maxima of the user namespace")).unwrap_or_default();
    let entries = fs::read_dir("/proc/sys/user").map_err(|error| error.to_string())?;
    let names: Vec<String> = entries.flatten().map(|entry| entry.file_name().to_string_lossy().into_owned()).collect();
    ensure!(names.len() >= 7, "the kernel has only {names:?}");
    for name in names {
        let words = name.trim_start_matches("max_").replace('_', " ");
        ensure!(line.contains(&words), "the plan does not set {name}: {line:?}");
    }
    supervisor.stop()
}

fn clocks() -> Outcome {
    let parse = |text: &str| -> Result<Vec<i64>, String> {
        text.split(' ').map(|word| word.parse().map_err(|_| format!("{text:?} are no clocks"))).collect()
    };
    let supervisor = Supervisor::simple("")?;
    let mut client = Client::new(&supervisor)?;
    let host = parse(&root(1000, "clocks")?)?;
    let mut all = vec![host];
    for name in ["a", "b", "c"] {
        let told = parse(&client.probe(name, "clocks")?.0)?;
        for clock in &told {
            let hours = clock / 3_600_000;
            ensure!((1..=721).contains(&hours), "{name} has a clock at {hours} hours: {told:?}");
        }
        ensure!((told[0] - told[1]).abs() < 1000 && (told[0] - told[2]).abs() < 2000, "{name}: {told:?}");
        all.push(told);
    }
    // By chance two of the four are this close once in some hundred thousand runs.
    for (at, one) in all.iter().enumerate() {
        for other in &all[at + 1..] {
            ensure!((one[0] - other[0]).abs() > 2000, "two have the same clock: {all:?}");
        }
    }
    // And it runs as a clock should.
    let (before, _) = client.probe("a", "clocks")?;
    client.probe("a", "sleep 300")?;
    let (after, _) = client.probe("a", "clocks")?;
    let went = parse(&after)?[0] - parse(&before)?[0];
    ensure!((300..30_000).contains(&went), "a sleep of 300 ms took {went} ms by the worker's clock");
    supervisor.stop()
}
