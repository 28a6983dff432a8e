//! What a worker sees of the machine: its own limits and its own groups, and nothing of the host.

use std::fs;

use serde_json::Value;

use crate::{
    Case, Outcome, case,
    client::Client,
    configs::Place,
    ensure,
    ground::{Ground, Need},
    supervisor::Supervisor,
};

/// The cases.
pub const CASES: &[Case] = &[
    case("picture::files_show_the_limits_of_the_worker_and_follow_them", files),
    case("picture::groups_are_the_worker_s_own_and_cannot_be_written_to", groups),
    case("picture::variables_of_the_author_come_before_ours", variables),
    Case {
        needs: &[Need::Client("node"), Need::Speed],
        ..case("picture::runtimes_choose_by_the_limits_of_their_worker", runtimes)
    },
    Case { needs: &[Need::Java], ..case("picture::java_chooses_its_heap_by_the_limits_of_its_worker", java) },
];

fn start(more: &str) -> Result<(Supervisor, Client), String> {
    let place = Place::new()?;
    let settings = format!(
        "runtime = \"exec\"\nlayout = \"host\"\ncommand = [\"/bin/sh\"]\nmemory_max = \"192MiB\"\ncpu_quota = \"900m\"\npids_max = 64\ntimeout = \"120s\"\n{more}"
    );
    let text = [
        place.host(""),
        "[tenant.acme.sub_tenant]\n".to_owned(),
        place.function("exec", &settings),
        place.function("probe", "memory_max = \"96MiB\"\ncpu_quota = \"900m\""),
    ];
    let supervisor = Supervisor::start(place, &text.concat())?;
    let client = Client::new(&supervisor)?;
    Ok((supervisor, client))
}

fn shell(client: &mut Client, script: &str) -> Result<String, String> {
    Ok(client.ask("exec", "s1", script)?.0)
}

/// What the shell prints of the three files.
const SHOWN: &str = "head -n 1 /proc/meminfo; cat /sys/devices/system/cpu/online; grep -c ^processor /proc/cpuinfo; \
    grep -c '^cpu[0-9]' /proc/stat";

fn shown(mib: u64, processors: usize) -> String {
    let online = if processors == 1 { "0".to_owned() } else { format!("0-{}", processors - 1) };
    format!("MemTotal: {:>14} kB\n{online}\n{processors}\n{processors}\n", mib * 1024)
}

fn files() -> Outcome {
    let (supervisor, mut client) = start("")?;
    let before = shell(&mut client, SHOWN)?;
    ensure!(before == shown(192, 1), "{before}");
    let (stream, receipt) = client.ask("probe", "s1", "read /proc/meminfo")?;
    ensure!(stream.starts_with(&format!("MemTotal: {:>14} kB\n", 96 * 1024)), "{stream}");
    // Under a living worker, from its next call on.
    let processors = std::thread::available_parallelism().map_err(|error| error.to_string())?.get().min(2);
    for function in ["exec", "probe"] {
        let level = format!("tenant/acme/function/{function}");
        supervisor.admin(&["set", &level, "memory_max=128MiB", "cpu_quota=1100m", "--for", "10m"])?;
    }
    let after = shell(&mut client, SHOWN)?;
    ensure!(after == shown(128, processors), "{after}");
    let (stream, later) = client.ask("probe", "s1", "read /proc/meminfo")?;
    ensure!(stream.starts_with(&format!("MemTotal: {:>14} kB\n", 128 * 1024)), "{stream}");
    ensure!(later.worker == receipt.worker && later.calls == 2, "{later:?} is another worker than {receipt:?}");
    // A shorter text leaves nothing of a longer one.
    let whole = shell(&mut client, "cat /proc/cpuinfo /proc/stat /proc/meminfo")?;
    let host = fs::read_to_string("/proc/cpuinfo").map_err(|error| error.to_string())?;
    let model = host.lines().find_map(|line| line.strip_prefix("model name\t: ")).unwrap_or("no model name");
    ensure!(!whole.contains(model) && !whole.contains('\0'), "{whole}");
    supervisor.stop()
}

fn groups() -> Outcome {
    let (supervisor, mut client) = start("")?;
    let (dir, file) = if Ground::find().is_hybrid() {
        ("/sys/fs/cgroup/memory", "memory.limit_in_bytes")
    } else {
        ("/sys/fs/cgroup", "memory.max")
    };
    let limit = shell(&mut client, &format!("cat {dir}/{file}"))?;
    ensure!(limit.trim() == (192_u64 << 20).to_string(), "{limit}");
    // The root of what is seen is the worker's own group: nothing is beside it or above it, and no group is in it.
    let seen = shell(&mut client, &format!("ls {dir}/..; ls -d {dir}/*/ 2>/dev/null; cat {dir}/cgroup.procs | wc -l"))?;
    ensure!(!seen.contains("sublet") && !seen.contains("w-"), "{seen}");
    let count = seen.lines().last().and_then(|line| line.trim().parse::<u32>().ok());
    // Init, launcher, shell, cat, wc.
    ensure!(count.is_some_and(|count| (2..=6).contains(&count)), "{seen}");
    for file in [file, "cgroup.procs"] {
        let tried =
            shell(&mut client, &format!("echo 1 2>&1 > {dir}/{file} || true; (echo 1 > {dir}/{file}) 2>&1 || true"))?;
        ensure!(tried.contains("Read-only file system"), "{file}: {tried}");
    }
    let mounts = shell(&mut client, "grep /sys /proc/self/mountinfo")?;
    ensure!(!mounts.contains(&supervisor.place.instance), "{mounts}");
    supervisor.stop()
}

fn variables() -> Outcome {
    let (supervisor, mut client) = start("env.GOMAXPROCS = \"7\"\n")?;
    let text =
        shell(&mut client, "echo $SUBLET_MEMORY_MAX $SUBLET_CPU_QUOTA $GOMAXPROCS $OMP_NUM_THREADS $GOMEMLIMIT")?;
    let bytes = 192_u64 << 20;
    ensure!(text == format!("{bytes} 900m 7 1 {}\n", bytes / 10 * 9), "{text}");
    supervisor.stop()
}

fn runtimes() -> Outcome {
    let (supervisor, mut client) = start("")?;
    let node = "node -e 'const os = require(\"os\"); console.log(JSON.stringify({cpus: os.cpus().length, \
        total: os.totalmem(), heap: require(\"v8\").getHeapStatistics().heap_size_limit}))'";
    let found: Value = serde_json::from_str(&shell(&mut client, node)?).map_err(|error| error.to_string())?;
    ensure!(found["cpus"] == 1 && found["total"] == 192_u64 << 20, "{found}");
    ensure!(found["heap"].as_u64().is_some_and(|heap| heap < 192 << 20), "{found}");
    let python = "/usr/bin/python3 -c 'import os; print(os.cpu_count())'";
    let found = shell(&mut client, python)?;
    ensure!(found == "1\n", "{found}");
    supervisor.stop()
}

fn java() -> Outcome {
    let (supervisor, mut client) = start("")?;
    let java = "java -XX:+PrintFlagsFinal -version 2>/dev/null | grep -w MaxHeapSize";
    let text = shell(&mut client, java)?;
    let heap: u64 = text.split_whitespace().find_map(|word| word.parse().ok()).ok_or(text)?;
    ensure!(heap < 192 << 20, "a heap of {heap} bytes");
    supervisor.stop()
}
