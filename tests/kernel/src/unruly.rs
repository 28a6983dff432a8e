//! Functions that do not behave at all: signals to everybody, calls at random, an end that does not come. Rows of
//! shim/HOSTILE.md, as in [`crate::hostile`].

use std::{
    fs::{self, File, OpenOptions},
    io::{Read as _, Seek as _, SeekFrom},
    os::unix::fs::OpenOptionsExt as _,
    process::Command,
    thread::sleep,
    time::{Duration, Instant},
};

use nix::{
    sys::{
        ptrace,
        signal::Signal,
        wait::{WaitPidFlag, waitpid},
    },
    unistd::Pid,
};
use sublet_proto::v1::VerdictKind;
use tonic::Code;

use crate::{
    Case, Outcome,
    cage::{outside, run},
    case,
    client::{self, Client, request},
    configs::Place,
    ensure,
    ground::{Ground, Need},
    hostile::with_tmp,
    life::no_workers,
    supervisor::{self, Supervisor},
    told,
};

/// The cases.
pub const CASES: &[Case] = &[
    case("unruly::signals_to_everybody_stay_in_their_worker", everybody),
    Case { needs: &[Need::Vsyscall], ..case("unruly::vsyscall_page_answers_to_filters", vsyscall) },
    // In the guest each child that ends by a fault is slow, and said aloud by the kernel.
    Case { name: "unruly::random_calls_hurt_nobody", needs: &[Need::Speed], run: random },
    Case { needs: &[Need::Cores], ..case("unruly::crash_writes_no_core", core) },
    case("unruly::two_processes_that_write_at_once_break_their_own_channel_alone", brothers),
    case("unruly::slot_of_a_worker_that_does_not_end_is_nobodys", stuck),
];

/// D6.
fn everybody() -> Outcome {
    let verb = format!("hostile everyone {}", Signal::SIGKILL as i32);
    // In a namespace of its own, where everybody is one sleeper.
    let script = "sleep 60 & sleeper=$!; \"$0\" \"$@\"; wait $sleeper; echo \" sleeper $?\"";
    let mut command = Command::new("unshare");
    command.args(["--pid", "--fork", "--kill-child", "/bin/sh", "-c", script]).arg(supervisor::probe());
    let outside = run(command.args(verb.split(' ')))?;
    ensure!(outside.contains("SIGKILL") && outside.contains("sleeper 137"), "outside: {outside}");
    let mut bystander = told(Command::new("sleep").arg("60").spawn())?;
    let check = || -> Outcome {
        let supervisor = Supervisor::simple("")?;
        let mut client = Client::new(&supervisor)?;
        client.probe("neighbour", "put kept here")?;
        let (_, first) = client.probe("s1", "echo here")?;
        if Ground::find().relays() {
            // The launcher has the function's uid, and ends with it; init tells so, and has not ended.
            client.verdict_of(request("probe", "s1", &verb), VerdictKind::Crash, Code::Unknown)?;
        } else {
            let (answer, receipt) = client.probe("s1", &verb)?;
            ensure!(answer.contains("SIGKILL"), "a child of its own lives: {answer}");
            let (_, last) = client.probe("s1", "echo on")?;
            ensure!(receipt.worker == first.worker && last.worker == first.worker, "init has ended");
        }
        let (kept, _) = client.probe("neighbour", "get kept")?;
        ensure!(kept == "here/here", "the neighbour has {kept}");
        supervisor.stop()
    };
    let outcome = check();
    let lives = told(bystander.try_wait())?.is_none();
    told(bystander.kill())?;
    told(bystander.wait())?;
    ensure!(lives, "a process of the host was ended");
    outcome
}

/// D22. All that the page offers is allowed to functions, so that no refusal can be met there. It is shown in three steps: the
/// page is there, the kernel asks a filter before it answers, and inside it answers.
fn vsyscall() -> Outcome {
    let supervisor = Supervisor::simple("")?;
    let mut client = Client::new(&supervisor)?;
    for name in ["gettimeofday", "time", "getcpu"] {
        outside(&["hostile", "vsyscall", name])?;
        let refused = outside(&["hostile", "vsyscall", name, "refused"]);
        ensure!(refused == Err(format!("{name}: EXDEV")), "under a filter that refuses {name}: {refused:?}");
        client.probe("s1", &format!("hostile vsyscall {name}"))?;
    }
    supervisor.stop()
}

/// The kernel's log from now on. None where it cannot be read.
struct KernelLog(Option<File>);

impl KernelLog {
    fn from_now() -> Self {
        let log = OpenOptions::new().read(true).custom_flags(nix::fcntl::OFlag::O_NONBLOCK.bits()).open("/dev/kmsg");
        let log = log.and_then(|mut log| log.seek(SeekFrom::End(0)).map(|_| log));
        if let Err(error) = &log {
            println!("the kernel's log cannot be read here: {error}");
        }
        Self(log.ok())
    }

    /// Lines by which the kernel says that it has met a fault of its own.
    fn faults(&mut self) -> Vec<String> {
        const FAULTS: [&str; 7] = ["BUG:", "WARNING:", "Oops", "kernel BUG", "KASAN", "UBSAN", "blocked for more than"];
        let mut found = Vec::new();
        let mut line = [0; 8192];
        // A line a read; one that was overwritten meanwhile is an error, and others follow.
        while let Some(log) = &mut self.0 {
            match log.read(&mut line) {
                Ok(length) => {
                    let line = String::from_utf8_lossy(&line[..length]).into_owned();
                    found.extend(FAULTS.iter().any(|fault| line.contains(fault)).then_some(line));
                }
                Err(error) if error.raw_os_error() == Some(nix::errno::Errno::EPIPE as i32) => {}
                Err(_) => break,
            }
        }
        found
    }
}

/// D28. Outside of a worker nothing could be shown by this but what it leaves of the machine.
fn random() -> Outcome {
    const ROUNDS: u64 = 8;
    const CALLS: u64 = 1500;
    let mut log = KernelLog::from_now();
    // A key backs off when its workers end badly; each round has a key of its own.
    let supervisor = Supervisor::simple("timeout = \"20s\"")?;
    let mut client = Client::new(&supervisor)?;
    let (_, first) = client.probe("neighbour", "put kept here")?;
    let (mut made, mut worked, mut refused) = (0, 0, 0);
    for seed in 1..=ROUNDS {
        match client.call(request("probe", &format!("random-{seed}"), &format!("hostile random {seed} {CALLS}"))) {
            Ok(response) => {
                let answer = String::from_utf8_lossy(&response.payload).into_owned();
                let numbers: Vec<u64> = answer.split(' ').filter_map(|word| word.parse().ok()).collect();
                ensure!(numbers.len() == 3, "seed {seed}: {answer}");
                (made, worked, refused) = (made + numbers[0], worked + numbers[1], refused + numbers[2]);
            }
            // A worker may end of it, in any way that is its function's doing.
            Err(status) => {
                let verdict =
                    client::verdict(&status).ok_or_else(|| format!("seed {seed}: no verdict in {status:?}"))?;
                let own = [
                    VerdictKind::Exit,
                    VerdictKind::Crash,
                    VerdictKind::Memory,
                    VerdictKind::Pids,
                    VerdictKind::Deadline,
                    VerdictKind::BadFrame,
                    VerdictKind::FunctionError,
                ];
                ensure!(own.contains(&verdict.kind()), "seed {seed}: {verdict:?}");
                println!("seed {seed} ended its worker: {:?} {}", verdict.kind(), verdict.seen);
            }
        }
        let (kept, receipt) = client.probe("neighbour", "get kept")?;
        ensure!(kept == "here/here" && receipt.worker == first.worker, "seed {seed}: the neighbour has {kept}");
    }
    println!("of {made} calls {worked} worked and {refused} were refused");
    ensure!(made >= ROUNDS * CALLS / 2 && worked > 100 && refused > 1000, "{made} calls, {worked}, {refused}");
    supervisor.admin(&["evict", "--tenant", "acme"])?;
    no_workers(&supervisor)?;
    client.probe("after", "echo here")?;
    supervisor.stop()?;
    let faults = log.faults();
    ensure!(faults.is_empty(), "the kernel has met faults: {faults:?}");
    Ok(())
}

/// F18.
fn core() -> Outcome {
    let outside = with_tmp(&["hostile", "core"])?;
    ensure!(outside == "dumped true, 1 files", "outside: {outside}");
    let supervisor = Supervisor::simple("")?;
    let mut client = Client::new(&supervisor)?;
    let (inside, _) = client.probe("s1", "hostile core")?;
    ensure!(inside == "dumped false, 0 files", "{inside}");
    supervisor.stop()
}

/// H7.
fn brothers() -> Outcome {
    let supervisor = Supervisor::simple("")?;
    let mut client = Client::new(&supervisor)?;
    let (_, first) = client.probe("neighbour", "echo here")?;
    client.verdict_of(request("probe", "s1", "raw brothers"), VerdictKind::BadFrame, Code::Unknown)?;
    let (_, last) = client.probe("neighbour", "echo on")?;
    ensure!(last.worker == first.worker, "the neighbour got another worker");
    supervisor.stop()
}

/// A process that we trace: when it is killed, its parent does not hear of it before we have.
struct Traced(Pid);

impl Traced {
    fn seize(pid: Pid) -> Result<Self, String> {
        ptrace::seize(pid, ptrace::Options::empty()).map_err(|error| format!("trace {pid}: {error}"))?;
        Ok(Self(pid))
    }
}

impl Drop for Traced {
    fn drop(&mut self) {
        // One that lives is let go by the end of this program at the latest.
        waitpid(self.0, Some(WaitPidFlag::WNOHANG)).ok();
    }
}

/// G9. A worker that does not end is made of one whose init is traced: to its parent it has not ended.
fn stuck() -> Outcome {
    let place = Place::new()?;
    let text = format!(
        "{}[tenant.acme.sub_tenant]\n{}",
        place.host("workers_max = 2\nuid_count = 4"),
        place.function("probe", "")
    );
    let supervisor = Supervisor::start(place, &text)?;
    let mut client = Client::new(&supervisor)?;
    // The pid and the uid of the init of a new worker.
    let mut born = |sub_tenant: &str| -> Result<(String, Pid, u32), String> {
        let (_, receipt) = client.probe(sub_tenant, "echo here")?;
        let described = supervisor.admin(&["describe", &receipt.worker])?;
        let pid = described["worker"]["pid"].as_i64().and_then(|pid| i32::try_from(pid).ok()).ok_or("no pid")?;
        let status = told(fs::read_to_string(format!("/proc/{pid}/status")))?;
        let uid = status.lines().find_map(|line| line.strip_prefix("Uid:\t")?.split('\t').next()?.parse().ok());
        Ok((receipt.worker, Pid::from_raw(pid), uid.ok_or("no uid")?))
    };
    let (worker, pid, uid) = born("stuck")?;
    let traced = Traced::seize(pid)?;
    supervisor.admin(&["evict", &worker])?;
    let stat = || fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    let end = Instant::now() + Duration::from_secs(60);
    while !stat().contains(") Z ") {
        ensure!(Instant::now() < end, "init does not end: {}", stat());
        sleep(Duration::from_millis(5));
    }
    let is_listed = |worker: &str| -> Result<bool, String> {
        let listed = supervisor.admin(&["ps"])?;
        Ok(listed.as_array().is_some_and(|all| all.iter().any(|one| one["worker"] == worker)))
    };
    // There is one other slot, and they take turns in it: each idle one goes for the next.
    let mut before: Option<String> = None;
    for at in 0..3 {
        let (other, _, of_other) = born(&format!("s{at}"))?;
        ensure!(of_other != uid, "a worker has the uid of one that has not ended");
        if let Some(before) = before.replace(other) {
            ensure!(!is_listed(&before)?, "{before} has made room and is still there");
        }
        ensure!(is_listed(&worker)?, "it is no longer on the books");
    }
    drop(traced);
    while is_listed(&worker)? {
        ensure!(Instant::now() < end, "it stays on the books");
        sleep(Duration::from_millis(5));
    }
    let mut seen = Vec::new();
    for at in 3..6 {
        seen.push(born(&format!("s{at}"))?.2);
    }
    ensure!(seen.contains(&uid), "its uid is not used again: {uid}, {seen:?}");
    supervisor.stop()
}
