//! System calls that a worker may make with some arguments and not with others, and stock programs that live with it. As in
//! [`crate::cage`] each attempt is first made outside.

use std::fs;

use nix::fcntl::{Flock, FlockArg};

use crate::{
    Case, Outcome, cage::apart, case, client::Client, configs::Place, ensure, ground::Need, supervisor::Supervisor,
};

/// The cases.
pub const CASES: &[Case] = &[
    case("calls::arguments_that_work_outside_are_refused_inside", refused),
    case("calls::what_would_reach_the_disks_succeeds_and_is_not_done", not_done),
    case("calls::harmless_neighbours_of_what_is_refused_work", allowed),
    // Among what they do is flock.
    Case { needs: &[Need::Inodes], ..case("calls::stock_programs_find_nothing_missing", stock) },
    case("calls::locks_of_the_host_and_of_neighbours_are_not_met", locks),
    case("calls::use_of_files_by_the_host_and_by_neighbours_is_not_seen", watches),
    case("calls::open_files_are_not_shared_with_neighbours", open_files),
];

/// Calls that do their work outside; with the errno that they get inside.
const REFUSED: &[(&str, &str)] = &[
    ("so-attach-filter", "ENOPROTOOPT"),
    ("so-zerocopy", "ENOPROTOOPT"),
    ("so-busy-poll", "ENOPROTOOPT"),
    ("tcp-congestion", "ENOPROTOOPT"),
    ("msg-oob", "EOPNOTSUPP"),
    ("msg-zerocopy", "EOPNOTSUPP"),
    ("msg-fastopen", "EOPNOTSUPP"),
    ("raw-socket", "EAFNOSUPPORT"),
    ("cpu-timer", "EINVAL"),
    ("cpu-sleep", "EINVAL"),
    ("pipe-size", "EPERM"),
    ("set-owner", "EPERM"),
    ("write-hint", "EPERM"),
    ("futex-pi", "ENOSYS"),
    ("mincore", "ENOSYS"),
    ("madvise-pageout", "EINVAL"),
    ("membarrier-global", "EINVAL"),
    ("affinity", "ENOSYS"),
    ("device-node", "EPERM"),
];

/// The same, of which some kernels know nothing: there they cannot be shown to work outside.
const REFUSED_WHERE_KNOWN: &[(&str, &str)] = &[
    ("peer-pidfd", "ENOPROTOOPT"),
    // A matter of the file system.
    ("rwf-nowait", "EOPNOTSUPP"),
    ("arch-cpuid", "EINVAL"),
    ("huge-pages", "EINVAL"),
    ("huge-memfd", "EINVAL"),
    ("numa-policy", "ENOSYS"),
    ("new-xattr", "ENOSYS"),
    ("cachestat", "ENOSYS"),
    ("newer-than-the-kernel", "ENOSYS"),
];

fn refused() -> Outcome {
    let supervisor = Supervisor::simple("")?;
    let mut client = Client::new(&supervisor)?;
    for (name, errno) in REFUSED.iter().chain(REFUSED_WHERE_KNOWN) {
        let outside = apart(&["try", name]);
        let known = REFUSED.iter().any(|(one, _)| one == name);
        ensure!(!known || outside.is_ok(), "{name} does not work outside: {outside:?}");
        if outside.is_err() {
            println!("{name}: not shown to work outside: {outside:?}");
        }
        let inside = client.ask("probe", "s1", &format!("try {name}"));
        let expected = format!("{name}: {errno}");
        ensure!(inside.as_ref().is_err_and(|error| error.contains(&expected)), "expected {expected}, got {inside:?}");
    }
    supervisor.stop()
}

fn not_done() -> Outcome {
    let supervisor = Supervisor::simple("")?;
    let mut client = Client::new(&supervisor)?;
    for (name, outside) in [
        ("fsync-of-nothing", "EBADF"),
        ("syncfs-of-nothing", "EBADF"),
        ("drop-pages-of-nothing", "EBADF"),
        ("msync-sync", "ENOMEM"),
    ] {
        let seen = apart(&["try", name]);
        ensure!(seen == Err(format!("{name}: {outside}")), "{name} outside: {seen:?}");
        client.probe("s1", &format!("try {name}")).map_err(|error| format!("{name} inside: {error}"))?;
    }
    supervisor.stop()
}

fn allowed() -> Outcome {
    let supervisor = Supervisor::simple("")?;
    let mut client = Client::new(&supervisor)?;
    for name in ["so-linger", "pipe-size-small", "fifo"] {
        apart(&["try", name]).map_err(|error| format!("{name} outside: {error}"))?;
        client.probe("s1", &format!("try {name}")).map_err(|error| format!("{name} inside: {error}"))?;
    }
    // Still done: whether an address is mapped can be asked in this way only.
    let inside = client.ask("probe", "s1", "try msync-unmapped");
    ensure!(inside.as_ref().is_err_and(|error| error.contains("ENOMEM")), "{inside:?}");
    supervisor.stop()
}

/// What an ordinary program does in /tmp and on its loopback, each step with its name. Written for any python3 of this decade.
const PYTHON: &str = r#"
import asyncio, fcntl, http.server, multiprocessing, os, signal, socket, sqlite3, ssl, subprocess, sys, tempfile, threading, time
def step(name):
    print(name, flush=True)
os.chdir("/tmp")

step("sqlite")
for mode in "delete", "wal":
    one = sqlite3.connect("db"); one.execute("pragma journal_mode = " + mode)
    one.execute("create table if not exists t (v)"); one.execute("insert into t values (1)"); one.commit()
    two = sqlite3.connect("db", timeout=0); one.execute("begin immediate")
    try:
        two.execute("begin immediate"); sys.exit("two writers")
    except sqlite3.OperationalError:
        pass
    one.rollback(); one.close(); two.close()

step("locks")
with open("lock", "w") as first, open("lock", "w") as second:
    fcntl.lockf(first, fcntl.LOCK_EX | fcntl.LOCK_NB)
    fcntl.flock(first, fcntl.LOCK_EX | fcntl.LOCK_NB)
    try:
        fcntl.flock(second, fcntl.LOCK_EX | fcntl.LOCK_NB); sys.exit("two owners")
    except BlockingIOError:
        pass
    os.fsync(first.fileno()); os.sync()

step("fifo")
os.mkfifo("pipe")
writer = threading.Thread(target=lambda: open("pipe", "w").write("through"))
writer.start()
assert open("pipe").read() == "through"
writer.join()

step("subprocess")
assert subprocess.run(["sort", "-r"], input=b"a\nb\n", stdout=subprocess.PIPE, check=True).stdout == b"b\na\n"
os.mkdir("d"); open("d/f", "w").write("x")
subprocess.run(["tar", "-cf", "t.tar", "d"], check=True); subprocess.run(["tar", "-xf", "t.tar", "-C", "/tmp"], check=True)
subprocess.run(["cp", "-a", "d", "e"], check=True); subprocess.run(["dd", "if=/dev/zero", "of=z", "bs=64k", "count=4", "conv=fsync", "status=none"], check=True)

step("multiprocessing")
context = multiprocessing.get_context("fork")
queue = context.Queue(); lock = context.Lock()
def work():
    with lock:
        queue.put(os.getpid())
workers = [context.Process(target=work) for _ in range(3)]
for one in workers: one.start()
assert len({queue.get(timeout=20) for _ in workers}) == 3
for one in workers: one.join()

step("http")
server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), http.server.SimpleHTTPRequestHandler)
threading.Thread(target=server.serve_forever, daemon=True).start()
url = "http://127.0.0.1:%d/d/f" % server.server_port
if os.path.exists("/usr/bin/curl"):
    assert subprocess.run(["curl", "-s", "--fail", "--tcp-nodelay", "--keepalive-time", "5", url], stdout=subprocess.PIPE, check=True).stdout == b"x"
    step("curl")

step("asyncio")
async def echo(reader, writer):
    writer.write(await reader.readline()); await writer.drain(); writer.close()
async def main():
    server = await asyncio.start_server(echo, "127.0.0.1", 0)
    reader, writer = await asyncio.open_connection(*server.sockets[0].getsockname())
    writer.write(b"line\n"); assert await reader.readline() == b"line\n"; writer.close(); server.close()
    process = await asyncio.create_subprocess_exec("true"); assert await process.wait() == 0
asyncio.run(main())

step("ssl")
context = ssl.create_default_context(); near, far = ssl.MemoryBIO(), ssl.MemoryBIO()
try:
    context.wrap_bio(near, far, server_hostname="localhost").do_handshake()
except ssl.SSLWantReadError:
    assert far.pending > 100

step("timers")
signal.signal(signal.SIGPROF, lambda *_: None)
signal.setitimer(signal.ITIMER_PROF, 0.01); signal.setitimer(signal.ITIMER_PROF, 0); time.sleep(0.001)

step("udp")
with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as near, socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as far:
    near.setsockopt(socket.SOL_SOCKET, socket.SO_BROADCAST, 1); near.bind(("127.0.0.1", 0))
    far.sendto(b"x", near.getsockname()); assert near.recvfrom(10)[0] == b"x"

if os.path.exists("/usr/bin/git"):
    run = lambda *words: subprocess.run(["git", "-c", "user.name=a", "-c", "user.email=a@b", *words], check=True, stdout=subprocess.DEVNULL)
    os.mkdir("repository"); os.chdir("repository"); os.environ["HOME"] = "/tmp"
    run("init", "-q"); open("f", "w").write("x"); run("add", "f"); run("commit", "-q", "-m", "m"); run("gc", "-q"); os.chdir("/tmp")
    step("git")
if os.path.exists("/usr/bin/node"):
    script = """
      const net = require("net"), fs = require("fs"), { Worker } = require("worker_threads"), { execFileSync } = require("child_process");
      fs.writeFileSync("/tmp/node", "x"); fs.fsyncSync(fs.openSync("/tmp/node")); execFileSync("true");
      new Worker("require('worker_threads').parentPort.postMessage(1)", { eval: true }).on("message", () => {
        const server = net.createServer(socket => socket.pipe(socket)).listen(0, "127.0.0.1", () => {
          const socket = net.connect(server.address().port, "127.0.0.1", () => { socket.setNoDelay(true); socket.setKeepAlive(true, 5000); socket.write("echo"); });
          socket.on("data", data => { console.log(String(data)); process.exit(0); });
        });
      });
    """
    assert subprocess.run(["node", "-e", script], stdout=subprocess.PIPE, check=True).stdout == b"echo\n"
    step("node")
print("all")
"#;

fn stock() -> Outcome {
    let place = Place::new()?;
    let script = place.path("fn/stock.py");
    fs::write(&script, PYTHON).map_err(|error| error.to_string())?;
    // A call that is announced as refused would end the worker.
    let settings = r#"
        runtime = "exec"
        command = ["/usr/bin/python3", "/function/stock.py"]
        on_refused_syscall = "kill"
        memory_max = "1GiB"
        pids_max = 128
        tmp_size = "64MiB"
        tmp_inodes = 4096
        nofile = 512
        timeout = "120s"
    "#;
    let text = format!("{}\n{}", place.simple(""), place.function("stock", settings));
    let supervisor = Supervisor::start(place, &text)?;
    let mut client = Client::new(&supervisor)?;
    let (answer, _) = client.ask("stock", "s1", "")?;
    let steps: Vec<&str> = answer.lines().collect();
    ensure!(steps.last() == Some(&"all"), "{steps:?}");
    println!("{steps:?}");
    supervisor.stop()
}

/// A file or directory of each tree that workers see.
const SHARED: [&str; 6] = ["/", "/etc/passwd", "/usr", "/usr/bin/env", "/dev/null", "/function/probe"];

fn locks() -> Outcome {
    let supervisor = Supervisor::simple("")?;
    let mut client = Client::new(&supervisor)?;
    let of_function = supervisor.place.path("fn/probe").display().to_string();
    for path in SHARED {
        let of_host = if path == "/function/probe" { of_function.as_str() } else { path };
        let file = fs::File::open(of_host).map_err(|error| error.to_string())?;
        let held =
            Flock::lock(file, FlockArg::LockExclusiveNonblock).map_err(|(_, error)| format!("{path}: {error}"))?;
        let outside = apart(&["flock", of_host]);
        ensure!(outside == Err("flock: EAGAIN".into()), "{path} is held, and locked outside: {outside:?}");
        // The first against the host's lock, the second against the first's.
        let mut own_inodes = true;
        for who in ["s1", "s2"] {
            if let Err(error) = client.ask("probe", who, &format!("flock {path}")) {
                // Where there are no inodes of its own there is no flock.
                ensure!(error.contains("flock: ENOSYS"), "{who} {path}: {error}");
                own_inodes = false;
            }
        }
        drop(held);
        if !own_inodes {
            continue;
        }
        client.probe("s1", &format!("read-lock {path}"))?;
        let (seen, _) = client.probe("s2", &format!("look-for-locks {path}"))?;
        ensure!(seen == "free", "a neighbour sees a lock for reading on {path}");
    }
    supervisor.stop()
}

fn watches() -> Outcome {
    let supervisor = Supervisor::simple("")?;
    let mut client = Client::new(&supervisor)?;
    let of_function = supervisor.place.path("fn/probe").display().to_string();
    client.probe("s2", "echo here")?;
    for path in SHARED {
        if let Err(error) = client.probe("s1", &format!("watch {path}")) {
            ensure!(error.contains("inotify: ENOSYS"), "{path}: {error}");
            continue;
        }
        // Its own use is seen, so the watch is one.
        let used = if path == "/" || path == "/usr" { "list" } else { "flock" };
        client.ask("probe", "s1", &format!("{used} {path}")).ok();
        let (seen, _) = client.probe("s1", "watched")?;
        ensure!(seen != "0", "{path}: a watch sees nothing at all");
        client.ask("probe", "s2", &format!("{used} {path}")).ok();
        apart(&[used, if path == "/function/probe" { &of_function } else { path }]).ok();
        let (seen, _) = client.probe("s1", "watched")?;
        ensure!(seen == "0", "{path}: {seen} uses by others were seen");
    }
    supervisor.stop()
}

fn open_files() -> Outcome {
    let supervisor = Supervisor::simple("")?;
    let mut client = Client::new(&supervisor)?;
    client.probe("s2", "echo here")?;
    ensure!(client.probe("s1", "mark-stdin")?.0 == "marked", "a flag cannot be set");
    for (who, flags) in [("s1", "marked"), ("s2", "plain"), ("s3", "plain")] {
        let (seen, _) = client.probe(who, "stdin-flags")?;
        ensure!(seen == flags, "{who}'s stdin is {seen}");
    }
    supervisor.stop()
}
