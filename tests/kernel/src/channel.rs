//! What a function can do to the supervisor through its channel, and what becomes of everybody else meanwhile.

use std::{
    fs, thread,
    time::{Duration, Instant},
};

use sublet_proto::v1::{Receipt, VerdictKind};
use tonic::Code;

use crate::{
    Case, Outcome, case,
    client::{Client, request, verdict},
    ensure,
    ground::Need,
    supervisor::Supervisor,
};

/// The cases.
pub const CASES: &[Case] = &[
    case("channel::socket_that_lingers_holds_nobody_up", linger),
    case("channel::descriptors_on_frames_are_kept_by_nobody", descriptors),
    case("channel::pieces_without_bytes_break_the_protocol", empty_pieces),
    case("channel::smallest_pieces_come_together_and_the_connection_lives", tiny_pieces),
    Case {
        needs: &[Need::Speed],
        ..case("channel::answers_byte_by_byte_do_not_take_the_supervisors_time", byte_by_byte)
    },
    Case {
        needs: &[Need::Speed],
        ..case("channel::log_byte_by_byte_does_not_take_the_supervisors_time", log_byte_by_byte)
    },
    case("channel::receipt_says_what_reading_an_answer_took", receipt),
    Case {
        // A thousand starts of workers.
        needs: &[Need::Speed],
        ..case("channel::thousand_broken_calls_leave_the_supervisor_and_the_nursery_as_they_were", thousand)
    },
];

fn linger() -> Outcome {
    let supervisor = Supervisor::simple("")?;
    let mut neighbour = Client::new(&supervisor)?;
    // Both are warm: what is waited for below is the attack alone.
    neighbour.probe("good", "echo warm")?;
    let mut attacker = Client::new(&supervisor)?;
    attacker.probe("bad", "echo warm")?;
    let attack =
        thread::spawn(move || attacker.call(request("probe", "bad", "raw linger")).map(|response| response.payload));
    // It sends its descriptor within some milliseconds, and stays for three seconds.
    thread::sleep(Duration::from_millis(500));
    for _ in 0..20 {
        let begin = Instant::now();
        neighbour.probe("good", "echo on")?;
        // Whoever has to close that socket waits for 20 seconds; all others take milliseconds, on the slowest ground too.
        ensure!(begin.elapsed() < Duration::from_secs(10), "a neighbour waited for {:?}", begin.elapsed());
        thread::sleep(Duration::from_millis(20));
    }
    supervisor.admin(&["ps"])?;
    match attack.join().map_err(|_| "the attacker panicked")? {
        // The kernel has not let it through.
        Ok(answer) => {
            ensure!(answer.as_ref() == b"EPERM", "{answer:?}");
        }
        Err(status) => {
            let found = verdict(&status).ok_or_else(|| format!("no verdict in {status:?}"))?;
            ensure!(found.kind() == VerdictKind::BadFrame, "{found:?}");
        }
    }
    supervisor.stop()
}

/// Open descriptors of a process.
fn open(pid: i32) -> Result<usize, String> {
    let entries = fs::read_dir(format!("/proc/{pid}/fd")).map_err(|error| format!("descriptors of {pid}: {error}"))?;
    Ok(entries.count())
}

/// The supervisor's only child that is named so.
fn nursery(supervisor: &Supervisor) -> Result<i32, String> {
    let pid = supervisor.pid();
    let children = fs::read_to_string(format!("/proc/{pid}/task/{pid}/children")).map_err(|error| error.to_string())?;
    let is_nursery =
        |pid: &&str| fs::read_to_string(format!("/proc/{pid}/comm")).is_ok_and(|name| name.trim() == "sublet-nursery");
    let found = children.split_whitespace().find(is_nursery).ok_or("the supervisor has no nursery")?;
    found.parse().map_err(|_| format!("{found:?} is no pid"))
}

fn descriptors() -> Outcome {
    let supervisor = Supervisor::simple("")?;
    let mut client = Client::new(&supervisor)?;
    let nursery = nursery(&supervisor)?;
    let mut round = |name: &str| -> Outcome {
        for count in [1, 2, 3, 4, 253] {
            let sub_tenant = format!("{name}-{count}");
            match client.call(request("probe", &sub_tenant, &format!("raw descriptors {count}"))) {
                // The kernel has not let them through, and the function was told.
                Ok(response) => {
                    ensure!(response.payload.as_ref() == b"EPERM", "{count}: {:?}", response.payload);
                }
                Err(status) => {
                    let found = verdict(&status).ok_or_else(|| format!("{count}: no verdict in {status:?}"))?;
                    ensure!(
                        found.kind() == VerdictKind::BadFrame && status.code() == Code::Unknown,
                        "{count}: {found:?}"
                    );
                }
            }
            client.probe(&sub_tenant, "echo on")?;
        }
        Ok(())
    };
    round("first")?;
    let settled = |pid: i32| -> Result<usize, String> {
        let (end, mut last) = (Instant::now() + Duration::from_secs(20), usize::MAX);
        loop {
            let now = open(pid)?;
            if now == last || Instant::now() > end {
                return Ok(now);
            }
            last = now;
            thread::sleep(Duration::from_millis(500));
        }
    };
    let before = (settled(supervisor.pid().as_raw())?, open(nursery)?);
    // The same workers again, so that what they hold themselves is as before.
    for _ in 0..8 {
        round("first")?;
    }
    let after = (settled(supervisor.pid().as_raw())?, open(nursery)?);
    ensure!(
        after.0 <= before.0 + 2 && after.1 <= before.1,
        "descriptors of supervisor and nursery: {before:?}, {after:?}"
    );
    supervisor.stop()
}

fn empty_pieces() -> Outcome {
    let supervisor = Supervisor::simple("")?;
    let mut client = Client::new(&supervisor)?;
    let streamed = client.stream(request("probe", "bad", "raw empty-pieces"));
    let found = streamed.verdict().ok_or_else(|| format!("no verdict in {:?}", streamed.status))?;
    ensure!(found.kind() == VerdictKind::BadFrame && found.seen.contains("without bytes"), "{found:?}");
    client.probe("bad", "echo on")?;
    supervisor.stop()
}

fn tiny_pieces() -> Outcome {
    let supervisor = Supervisor::simple("")?;
    let mut client = Client::new(&supervisor)?;
    let streamed = client.stream(request("probe", "s1", "raw tiny-pieces"));
    ensure!(streamed.end.is_some() && streamed.status.is_none(), "it broke off: {:?}", streamed.status);
    ensure!(streamed.whole() == vec![b'x'; 200_000], "{} bytes came", streamed.whole().len());
    ensure!(streamed.chunks.len() < 20_000, "200,000 pieces came as {} chunks", streamed.chunks.len());
    // On the same connection.
    client.probe("s1", "echo on")?;
    supervisor.stop()
}

/// Processor time of a process so far.
fn cpu(pid: i32) -> Result<Duration, String> {
    let text = fs::read_to_string(format!("/proc/{pid}/stat")).map_err(|error| error.to_string())?;
    let fields: Vec<&str> = text.rsplit_once(')').map_or("", |(_, rest)| rest).split_whitespace().collect();
    let ticks: u64 = [11, 12].into_iter().filter_map(|at| fields.get(at)?.parse::<u64>().ok()).sum();
    // USER_HZ, which is 100 on x86_64 whatever the kernel's own clock (proc_pid_stat(5)).
    Ok(Duration::from_millis(10 * ticks))
}

fn byte_by_byte() -> Outcome {
    let supervisor = Supervisor::simple("answer_max = \"2MiB\"")?;
    let results = by_four(&supervisor, "raw byte-by-byte")?;
    for (length, receipt) in results {
        ensure!(length == 1024 * 1024, "{length} bytes came");
        ensure!(receipt.answer_read_bytes >= 1024 * 1024, "{receipt:?}");
    }
    supervisor.stop()
}

fn log_byte_by_byte() -> Outcome {
    let supervisor = Supervisor::simple("log_rate = \"1MiB\"")?;
    by_four(&supervisor, "drip 2000")?;
    supervisor.stop()
}

/// Four workers do this for two seconds; the supervisor must not use much of a processor meanwhile. Returns how many bytes
/// each answered, and the receipts.
fn by_four(supervisor: &Supervisor, verb: &'static str) -> Result<Vec<(usize, Receipt)>, String> {
    let mut clients = (0..4).map(|_| Client::new(supervisor)).collect::<Result<Vec<_>, _>>()?;
    for (number, client) in clients.iter_mut().enumerate() {
        client.probe(&format!("s{number}"), "echo warm")?;
    }
    let pid = supervisor.pid().as_raw();
    let (before, begin) = (cpu(pid)?, Instant::now());
    let attacks: Vec<_> = clients
        .into_iter()
        .enumerate()
        .map(|(number, mut client)| {
            thread::spawn(move || {
                let answer = client.call(request("probe", &format!("s{number}"), verb));
                answer.map(|answer| (answer.payload.len(), answer.receipt.unwrap_or_default()))
            })
        })
        .collect();
    let mut results = Vec::new();
    for attack in attacks {
        results.push(attack.join().map_err(|_| "a caller panicked")?.map_err(|status| format!("{status:?}"))?);
    }
    let (used, passed) = (cpu(pid)? - before, begin.elapsed());
    // Read as they came, four of them took all of a processor.
    ensure!(used < passed / 3, "the supervisor used {used:?} of {passed:?}");
    Ok(results)
}

fn receipt() -> Outcome {
    let supervisor = Supervisor::simple("answer_max = \"2MiB\"")?;
    let mut client = Client::new(&supervisor)?;
    let (_, receipt) = client.probe("s1", "answer 100")?;
    ensure!(receipt.answer_read_bytes == 148, "header and answer: {receipt:?}");
    let (_, receipt) = client.probe("s1", "answer 2000000")?;
    ensure!(receipt.answer_read_bytes == 2_000_048, "{receipt:?}");
    ensure!(receipt.supervisor_time.is_some_and(|time| time.seconds > 0 || time.nanos > 0), "{receipt:?}");
    supervisor.stop()
}

/// What a process holds, apart from its processor time.
#[derive(Clone, Copy, Debug)]
struct Held {
    descriptors: usize,
    threads: u64,
    kib: u64,
}

fn held(pid: i32) -> Result<Held, String> {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).map_err(|error| error.to_string())?;
    let field = |name: &str| -> Result<u64, String> {
        let line = status.lines().find_map(|line| line.strip_prefix(name)).ok_or(format!("{pid} has no {name}"))?;
        line.split_whitespace().next().and_then(|value| value.parse().ok()).ok_or(format!("{name}{line}"))
    };
    Ok(Held { descriptors: open(pid)?, threads: field("Threads:")?, kib: field("VmRSS:")? })
}

/// Every way to break the protocol in turn. Each of them ends the worker; the next call makes another.
fn thousand() -> Outcome {
    const WAYS: [&str; 10] = [
        "raw descriptors 1",
        "raw descriptors 3",
        "raw descriptors 253",
        "raw garbage",
        "raw wrong-lease",
        "raw wrong-label",
        "raw piece",
        "raw wrong-kind",
        "raw old-flag",
        "raw empty-pieces",
    ];
    /// Threads in which tokio reads files come and go.
    const THREADS_FOR_FILES: u64 = 3;
    let supervisor = Supervisor::simple("")?;
    let mut client = Client::new(&supervisor)?;
    let mut neighbour = Client::new(&supervisor)?;
    let (ours, nursery) = (supervisor.pid().as_raw(), nursery(&supervisor)?);
    let mut rounds = |count: usize| -> Outcome {
        for round in 0..count {
            for way in WAYS {
                // Answered in between, so that no back-off begins.
                let sub_tenant = format!("bad-{}-{}", way.len(), round % 7);
                match client.call(request("probe", &sub_tenant, way)) {
                    // The kernel has not let the descriptors through, and the function was told.
                    Ok(response) => {
                        ensure!(response.payload.as_ref() == b"EPERM", "{way}: {:?}", response.payload);
                    }
                    Err(status) => {
                        let found = verdict(&status).ok_or_else(|| format!("{way}: no verdict in {status:?}"))?;
                        ensure!(found.kind() == VerdictKind::BadFrame, "{way}: {found:?}");
                    }
                }
                client.probe(&sub_tenant, "echo on")?;
            }
            neighbour.probe("good", "echo on")?;
        }
        Ok(())
    };
    // What is made once, is made by now: as many workers as there ever will be, and what allocators keep.
    rounds(10)?;
    thread::sleep(Duration::from_secs(1));
    let before = (held(ours)?, held(nursery)?);
    rounds(90)?;
    thread::sleep(Duration::from_secs(1));
    let after = (held(ours)?, held(nursery)?);
    let is_as_before = |before: Held, after: Held, kib: u64| {
        after.descriptors <= before.descriptors + 2
            && after.threads <= before.threads + THREADS_FOR_FILES
            && after.kib <= before.kib + kib
    };
    // Events, logs and sums are kept up to limits of their own, which a thousand calls do not reach.
    ensure!(is_as_before(before.0, after.0, 8 * 1024), "the supervisor: {before:?}, {after:?}");
    ensure!(is_as_before(before.1, after.1, 1024), "the nursery: {before:?}, {after:?}");
    // Nothing goes on by itself.
    let busy = (cpu(ours)?, cpu(nursery)?);
    thread::sleep(Duration::from_secs(2));
    let busy = (cpu(ours)? - busy.0, cpu(nursery)? - busy.1);
    ensure!(busy.0 + busy.1 < Duration::from_millis(400), "busy for {busy:?} of two quiet seconds");
    println!("supervisor {:?} then {:?}, nursery {:?} then {:?}", before.0, after.0, before.1, after.1);
    supervisor.stop()
}
