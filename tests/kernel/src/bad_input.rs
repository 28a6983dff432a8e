//! Wrong calls, wrong configurations, wrong hosts: a clear word each, and nothing lost.

use std::{
    fs,
    os::unix::fs::symlink,
    path::Path,
    process::{Command, Output},
    sync::atomic::{AtomicBool, Ordering},
    time::Duration,
};

use tonic::Code;

use crate::{
    Case, Outcome, case,
    client::{Client, reason, request},
    configs::Place,
    ensure,
    ground::{Ground, Need},
    supervisor::{self, Supervisor},
};

/// The cases.
pub const CASES: &[Case] = &[
    case("bad_input::calls_are_refused_with_code_and_reason", calls),
    case("bad_input::configurations_are_refused_by_setting_and_remedy", configurations),
    case("bad_input::root_with_links_for_mount_points_is_refused", linked_root),
    case("bad_input::root_that_is_changed_after_the_check_is_refused_by_the_nursery", changed_root),
    case("bad_input::root_that_changes_all_the_time_leads_no_worker_out_of_it", racing_root),
    case("bad_input::log_flood_is_bounded_and_does_not_hurt_others", flood),
    case("bad_input::large_payloads_and_answers_arrive_whole", large),
    case("bad_input::second_supervisor_on_one_state_directory_is_refused", second),
    case("bad_input::without_root_serve_says_so", no_root),
    case("bad_input::full_disk_under_the_state_directory_is_told", full_disk),
    case("bad_input::without_cgroup_delegation_serve_says_so", no_delegation),
    case("bad_input::client_without_supervisor_is_told", no_supervisor),
    case("bad_input::crashing_key_backs_off_and_others_do_not", backoff),
];

fn calls() -> Outcome {
    let place = Place::new()?;
    let functions =
        place.function("probe", "payload_max = \"1KiB\"") + &place.function("common", "isolation = \"shared\"");
    let text = format!("{}[tenant.acme.sub_tenant]\n{functions}", place.host(""));
    let supervisor = Supervisor::start(place, &text)?;
    let mut client = Client::new(&supervisor)?;
    let good = || request("probe", "s1", "echo");
    let timeout = |seconds, nanos| Some(prost_types::Duration { seconds, nanos });
    let cases = [
        (
            "tenant",
            {
                let mut r = good();
                r.tenant = "nobody".into();
                r
            },
            Code::NotFound,
            "TENANT_UNKNOWN",
        ),
        ("function", request("nothing", "s1", ""), Code::NotFound, "FUNCTION_UNKNOWN"),
        ("empty label", request("probe", "", "echo"), Code::InvalidArgument, "SUB_TENANT_INVALID"),
        ("257 bytes", request("probe", &"x".repeat(257), ""), Code::InvalidArgument, "SUB_TENANT_INVALID"),
        ("control", request("probe", "a\u{7}b", ""), Code::InvalidArgument, "SUB_TENANT_INVALID"),
        ("newline", request("probe", "a\nb", ""), Code::InvalidArgument, "SUB_TENANT_INVALID"),
        ("label on shared", request("common", "s1", ""), Code::InvalidArgument, "SUB_TENANT_NOT_TAKEN"),
        ("payload", request("probe", "s1", &"x".repeat(1025)), Code::ResourceExhausted, "PAYLOAD_TOO_LARGE"),
        (
            "no time",
            {
                let mut r = good();
                r.timeout = timeout(0, 0);
                r
            },
            Code::DeadlineExceeded,
            "DEADLINE_PAST",
        ),
        (
            "past",
            {
                let mut r = good();
                r.timeout = timeout(-5, 0);
                r
            },
            Code::DeadlineExceeded,
            "DEADLINE_PAST",
        ),
    ];
    for (name, request, code, expected) in cases {
        let status = client.call(request).err().ok_or(format!("{name}: was answered"))?;
        ensure!(status.code() == code && reason(&status) == expected, "{name}: {status:?}");
        ensure!(status.message().len() > 10, "{name}: says nothing");
    }
    let most = "x".repeat(256);
    client.probe(&most, "echo 256 bytes are fine")?;
    let fits = format!("echo {}", "x".repeat(1024 - 5));
    client.probe("s1", &fits)?;
    let health = supervisor.admin(&["health"])?;
    ensure!(health["workers"] == 2 && health["calls_refused"] == 10, "refused calls made workers: {health}");
    supervisor.stop()
}

fn check(place: &Place, text: &str) -> Result<String, String> {
    let path = place.write(text)?;
    let output = Command::new(supervisor::program()).arg("check-config").arg(path).output();
    let output = output.map_err(|error| error.to_string())?;
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    if output.status.success() { Err("it was accepted".into()) } else { Ok(said) }
}

fn configurations() -> Outcome {
    let place = Place::new()?;
    let good = place.simple("");
    ensure!(check(&place, &good).is_err(), "the good configuration is refused");
    let with = |settings: &str| place.simple(settings);
    let cases = [
        ("unknown key", with("memroy_max = \"64MiB\""), "memroy_max"),
        ("wrong unit", with("memory_max = \"64 apples\""), "memory_max"),
        ("no unit", with("memory_max = 64"), "memory_max"),
        ("missing root", with("layout = \"dir\"\nroot = \"/nonexistent/root\""), "/nonexistent/root"),
        ("no root", with("layout = \"dir\""), "root"),
        ("missing program", with("command = [\"/function/nothing\"]"), "/function/nothing"),
        ("two of one name", format!("{good}{}", place.function("probe", "")), "second time"),
        (
            "above its parent",
            good.replace("[tenant.acme.sub_tenant]", "[tenant.acme.sub_tenant]\nmemory_max = \"32MiB\""),
            "memory_max",
        ),
        ("no toml", "this is not toml".to_owned(), "line 1"),
    ];
    for (name, text, says) in cases {
        let said = check(&place, &text).map_err(|error| format!("{name}: {error}"))?;
        ensure!(said.contains(says), "{name}: {said:?} does not name {says:?}");
        // And serve does not start with it.
        let refused = Supervisor::start(Place::new()?, &text);
        ensure!(refused.is_err(), "{name}: serve started");
    }
    Ok(())
}

fn prepared(place: &Place) -> Result<std::path::PathBuf, String> {
    let root = place.path("root");
    for dir in ["", "proc", "dev", "tmp", "function"] {
        fs::create_dir(root.join(dir)).map_err(|error| error.to_string())?;
    }
    Ok(root)
}

/// Puts something else in the place of a directory.
type Replace = fn(&Path) -> std::io::Result<()>;

/// What a mount point must not be.
const REPLACEMENTS: [(&str, Replace); 6] = [
    ("a link out of it", |at| symlink("/etc", at)),
    ("a link within it", |at| symlink("elsewhere", at)),
    ("a link to nothing", |at| symlink("/nonexistent", at)),
    ("a link to itself", |at| symlink(at, at)),
    ("a file", |at| fs::write(at, "")),
    ("a pipe", |at| Ok(nix::unistd::mkfifo(at, nix::sys::stat::Mode::S_IRUSR)?)),
];

fn linked_root() -> Outcome {
    for name in ["proc", "tmp", "dev", "function"] {
        for (what, replace) in REPLACEMENTS {
            let place = Place::new()?;
            let root = prepared(&place)?;
            let made = fs::create_dir(root.join("elsewhere")).and_then(|()| fs::remove_dir(root.join(name)));
            made.and_then(|()| replace(&root.join(name))).map_err(|error| format!("{name}, {what}: {error}"))?;
            let text = place.simple(&format!("layout = \"dir\"\nroot = {:?}", root.display().to_string()));
            let said = check(&place, &text).map_err(|error| format!("{name}, {what}: {error}"))?;
            ensure!(said.contains(&root.join(name).display().to_string()), "{name}, {what}: {said}");
        }
    }
    Ok(())
}

/// While workers start, one of their mount points is exchanged for a link and back, all the time. Each that starts has its own
/// /tmp, and where the link leads nothing is mounted or made.
fn racing_root() -> Outcome {
    const TRIES: u32 = 16;
    let place = Place::new()?;
    let root = prepared(&place)?;
    let target = place.path("target");
    let (tmp, link, aside) = (root.join("tmp"), place.path("link"), place.path("aside"));
    fs::create_dir(&target).and_then(|()| symlink(&target, &link)).map_err(|error| error.to_string())?;
    let text = place.simple(&format!("layout = \"dir\"\nroot = {:?}", root.display().to_string()));
    let supervisor = Supervisor::start(place, &text)?;
    let mut client = Client::new(&supervisor)?;
    let has_inodes = Ground::find().lacks(Need::Inodes).is_none();
    let over = AtomicBool::new(false);
    let (mut started, mut refused) = (0, 0);
    let outcome = std::thread::scope(|scope| {
        let swapping = scope.spawn(|| -> std::io::Result<u32> {
            let mut swaps = 0;
            while !over.load(Ordering::Relaxed) {
                fs::rename(&tmp, &aside)?;
                fs::rename(&link, &tmp)?;
                // As long for the one as for the other: a start takes many times as long.
                std::thread::sleep(Duration::from_micros(300));
                fs::rename(&tmp, &link)?;
                fs::rename(&aside, &tmp)?;
                std::thread::sleep(Duration::from_micros(300));
                swaps += 1;
            }
            Ok(swaps)
        });
        let outcome = (0..TRIES).try_for_each(|at| {
            // A key backs off after a start that failed; each try has a key of its own.
            match client.call(request("probe", &format!("s{at}"), "write /tmp/written")) {
                Ok(_) => started += 1,
                Err(status) => {
                    // A worker with inodes of its own has its mount points until it ends. Where there are none, a mount point
                    // can be taken from a worker that has started, and how that is noticed differs.
                    if has_inodes {
                        let verdict = crate::client::verdict(&status).ok_or_else(|| format!("{status:?}"))?;
                        ensure!(verdict.kind() == sublet_proto::v1::VerdictKind::Start, "{verdict:?}");
                    }
                    refused += 1;
                }
            }
            Ok(())
        });
        over.store(true, Ordering::Relaxed);
        let swaps = swapping.join().map_err(|_| "the swapping thread failed")?.map_err(|error| error.to_string())?;
        outcome?;
        ensure!(swaps > TRIES, "there were {swaps} swaps only");
        Ok(())
    });
    outcome?;
    println!("{started} workers started, {refused} were refused");
    let found = fs::read_dir(&target).map_err(|error| error.to_string())?.count();
    ensure!(found == 0, "{found} files where the link leads");
    let mounts = fs::read_to_string("/proc/self/mountinfo").map_err(|error| error.to_string())?;
    ensure!(!mounts.contains(&target.display().to_string()), "something is mounted where the link leads");
    client.probe("last", "write /tmp/written")?;
    supervisor.stop()
}

fn changed_root() -> Outcome {
    let place = Place::new()?;
    let root = prepared(&place)?;
    let text = place.simple(&format!("layout = \"dir\"\nroot = {:?}", root.display().to_string()));
    let supervisor = Supervisor::start(place, &text)?;
    let mut client = Client::new(&supervisor)?;
    client.probe("before", "echo fine")?;
    fs::remove_dir(root.join("tmp")).map_err(|error| error.to_string())?;
    std::os::unix::fs::symlink("/usr", root.join("tmp")).map_err(|error| error.to_string())?;
    let call = request("probe", "after", "echo");
    let verdict = client.verdict_of(call, sublet_proto::v1::VerdictKind::Start, Code::FailedPrecondition)?;
    ensure!(verdict.setting.ends_with("root") && !verdict.message.contains("mount"), "{verdict:?}");
    let told = supervisor.told_under(&verdict.error_id)?;
    ensure!(told.contains(&root.display().to_string()) && told.contains("plain directory"), "{told}");
    supervisor.stop()
}

fn flood() -> Outcome {
    let supervisor = Supervisor::simple("log_max = \"16KiB\"")?;
    let mut client = Client::new(&supervisor)?;
    client.probe("quiet", "echo warm")?;
    let mut call = request("probe", "loud", "flood 4");
    call.want_log = true;
    let response = client.call(call).map_err(|status| status.to_string())?;
    ensure!(response.payload.as_ref() == b"flooded", "{:?}", response.payload);
    let kept = response.log_tail.len();
    ensure!(kept == 4096, "{kept} bytes of log came with the answer");
    let (_, receipt) = client.probe("quiet", "echo still")?;
    ensure!(receipt.calls == 2, "{receipt:?}");
    supervisor.stop()
}

fn large() -> Outcome {
    let settings = "payload_max = \"8MiB\"\nanswer_max = \"8MiB\"\nruntime = \"exec\"\n\
                    command = [\"/function/probe\", \"exec\"]";
    let supervisor = Supervisor::simple(settings)?;
    let mut client = Client::new(&supervisor)?;
    // Around the size from which payloads travel as files, and far above a small /tmp.
    for size in [1, 262_143, 262_144, 262_145, 6 << 20] {
        let text: String = (0..size).map(|at| char::from(b'a' + (at % 23) as u8)).collect();
        let (answer, _) = client.probe("s1", &format!("echo {text}"))?;
        ensure!(answer == text, "{size} bytes did not come back");
    }
    supervisor.stop()
}

fn serve(place: &Place, text: &str, prefix: &[&str]) -> Result<Output, String> {
    let path = place.write(text)?;
    let mut words: Vec<String> = prefix.iter().map(|word| (*word).to_owned()).collect();
    words.push(supervisor::program().display().to_string());
    Command::new(&words[0])
        .args(&words[1..])
        .args(["serve", "--config"])
        .arg(path)
        .output()
        .map_err(|error| error.to_string())
}

fn said(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

fn second() -> Outcome {
    let supervisor = Supervisor::simple("")?;
    let text = fs::read_to_string(supervisor.place.path("sublet.toml")).map_err(|error| error.to_string())?;
    let mut client = Client::new(&supervisor)?;
    client.probe("s1", "put key value")?;
    let output = serve(&supervisor.place, &text, &[])?;
    let told = said(&output);
    ensure!(!output.status.success(), "a second supervisor started");
    ensure!(told.contains(&format!("pid {}", supervisor.pid())) && told.contains("state_dir"), "{told}");
    let (found, _) = client.probe("s1", "get key")?;
    ensure!(found == "value/value", "the first one was disturbed");
    supervisor.stop()
}

fn no_root() -> Outcome {
    let place = Place::new()?;
    let text = place.simple("");
    let output = serve(&place, &text, &["setpriv", "--reuid=65534", "--regid=65534", "--clear-groups"])?;
    let told = said(&output);
    ensure!(!output.status.success() && told.contains("root: uid 65534"), "{told}");
    ensure!(!place.path("state").exists(), "a state directory was made");
    Ok(())
}

fn full_disk() -> Outcome {
    let place = Place::new()?;
    let text = place.simple("");
    // In a mount namespace of its own: a file system of one inode, full from the start.
    let state = place.path("state").display().to_string();
    let script =
        format!("mkdir -p {state} && mount -t tmpfs -o size=4k,nr_inodes=1,mode=0755 none {state} && exec \"$@\"");
    let output = serve(&place, &text, &["unshare", "-m", "sh", "-c", &script, "sh"])?;
    let told = said(&output);
    ensure!(!output.status.success() && told.contains("No space left") && told.contains("state_dir"), "{told}");
    Ok(())
}

fn no_delegation() -> Outcome {
    let place = Place::new()?;
    let text = place.simple("");
    // A read-only view of the hierarchies, as many containers have.
    let script = "for m in $(awk '$3 ~ /^cgroup2?$/ {print $2}' /proc/self/mounts); do mount -o remount,bind,ro $m || exit 9; done; exec \"$@\"";
    let output = serve(&place, &text, &["unshare", "-m", "sh", "-c", script, "sh"])?;
    let told = said(&output);
    ensure!(!output.status.success() && told.contains("cgroup") && told.contains("Delegate=yes"), "{told}");
    Ok(())
}

fn no_supervisor() -> Outcome {
    let output = Command::new(supervisor::program())
        .args(["invoke", "acme", "probe", "--socket", "/nonexistent/call.sock", "--data", "x"])
        .output()
        .map_err(|error| error.to_string())?;
    let told = said(&output);
    ensure!(
        !output.status.success() && told.contains("/nonexistent/call.sock") && told.contains("sublet serve"),
        "{told}"
    );
    Ok(())
}

fn backoff() -> Outcome {
    let supervisor = Supervisor::simple("")?;
    let mut client = Client::new(&supervisor)?;
    let mut reasons = Vec::new();
    for _ in 0..8 {
        let status = client.call(request("probe", "crashing", "exit 1")).err().ok_or("it answered")?;
        reasons.push(reason(&status));
    }
    ensure!(reasons[0] == "EXIT" && reasons.contains(&"CRASH_BACKOFF".to_owned()), "{reasons:?}");
    client.probe("other", "echo fine")?;
    supervisor.stop()
}
