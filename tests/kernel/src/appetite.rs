//! Memory that is taken where it is easily overlooked: page tables, pipes, sockets, the page cache. It is the worker's all the
//! same, and its neighbour goes on. As in [`crate::hostile`] each attempt is first made outside.

use std::{fs, process::Command};

use sublet_proto::v1::VerdictKind;
use tonic::Code;

use crate::{
    Case, Outcome,
    cage::{outside, run},
    case,
    client::{Client, request},
    ensure,
    life::no_workers,
    quotas::knob,
    supervisor::{self, Supervisor},
};

/// The cases.
pub const CASES: &[Case] = &[
    case("appetite::memory_that_is_locked_or_filled_in_at_once_is_the_workers", locked),
    case("appetite::page_tables_are_the_workers_memory", tables),
    case("appetite::pipes_sockets_and_queued_descriptors_are_the_workers", queues),
    case("appetite::flood_of_the_page_cache_is_within_the_workers_memory", page_cache),
    case("appetite::freed_memory_tells_nothing_of_others", freed),
];

const MIB: u64 = 1 << 20;

/// A neighbour that has something in memory, and must still have it.
fn settle(client: &mut Client) -> Outcome {
    client.probe("neighbour", "put kept here").map(drop)
}

fn is_settled(client: &mut Client) -> Outcome {
    let (kept, receipt) = client.probe("neighbour", "get kept")?;
    ensure!(kept == "here/here" && receipt.calls == 2, "the neighbour got another worker: {kept}, {receipt:?}");
    Ok(())
}

/// A call that must end its worker for its memory.
fn ends_by_memory(client: &mut Client, sub_tenant: &str, verb: &str) -> Outcome {
    client.verdict_of(request("probe", sub_tenant, verb), VerdictKind::Memory, Code::ResourceExhausted).map(drop)
}

/// F2.
fn locked() -> Outcome {
    let supervisor = Supervisor::simple("memory_max = \"32MiB\"")?;
    let mut client = Client::new(&supervisor)?;
    settle(&mut client)?;
    outside(&["hostile", "lock", "4"])?;
    let inside = client.ask("probe", "locks", "hostile lock 4");
    ensure!(inside.as_ref().is_err_and(|e| e.contains("lock 4 MiB: E")), "more than 64 KiB are locked: {inside:?}");
    outside(&["hostile", "populate", "60"])?;
    ends_by_memory(&mut client, "fills", "hostile populate 60")?;
    is_settled(&mut client)?;
    supervisor.stop()
}

/// F6.
fn tables() -> Outcome {
    let supervisor = Supervisor::simple("memory_max = \"32MiB\"")?;
    let mut client = Client::new(&supervisor)?;
    settle(&mut client)?;
    // Of 4 KiB for each 2 MiB: 64 MiB of tables, above a single page of zeros.
    outside(&["hostile", "tables", "32"])?;
    client.probe("few", "hostile tables 2")?;
    ends_by_memory(&mut client, "many", "hostile tables 32")?;
    is_settled(&mut client)?;
    supervisor.stop()
}

/// The probe, with as many descriptors as the worker of this case may have.
fn with_descriptors(words: &[&str]) -> Result<String, String> {
    let mut command = Command::new("/bin/sh");
    run(command.args(["-c", "ulimit -n 4096 && exec \"$0\" \"$@\""]).arg(supervisor::probe()).args(words))
}

/// F4.
fn queues() -> Outcome {
    let supervisor = Supervisor::simple("memory_max = \"32MiB\"\nnofile = 4096")?;
    let mut client = Client::new(&supervisor)?;
    settle(&mut client)?;
    for what in ["pipes", "sockets"] {
        with_descriptors(&["hostile", what, "60"])?;
        client.probe(&format!("few-{what}"), &format!("hostile {what} 2"))?;
        ends_by_memory(&mut client, what, &format!("hostile {what} 60"))?;
    }
    outside(&["hostile", "descriptors", "500"])?;
    is_settled(&mut client)?;
    supervisor.stop()?;
    // What is under way in sockets counts against the limit of what is open.
    let supervisor = Supervisor::simple("nofile = 64")?;
    let mut client = Client::new(&supervisor)?;
    let inside = client.ask("probe", "s1", "hostile descriptors 500");
    ensure!(inside.as_ref().is_err_and(|e| e.contains("ETOOMANYREFS")), "{inside:?}");
    supervisor.stop()
}

/// F7.
fn page_cache() -> Outcome {
    const LIMIT: u64 = 32 * MIB;
    const FILE: u64 = 128 * MIB;
    let supervisor = Supervisor::simple("memory_max = \"32MiB\"")?;
    let mut client = Client::new(&supervisor)?;
    settle(&mut client)?;
    // Holes are on no disk, and take pages of the cache when they are read.
    for name in ["one", "other"] {
        let file = fs::File::create(supervisor.place.path(&format!("fn/{name}")));
        file.and_then(|file| file.set_len(FILE)).map_err(|error| error.to_string())?;
    }
    let read = format!("read {} MiB", FILE / MIB);
    let path = supervisor.place.path("fn/other").display().to_string();
    ensure!(outside(&["hostile", "read-through", &path])? == read, "outside it is not read");
    let (answer, receipt) = client.probe("s1", "hostile read-through /function/one")?;
    ensure!(answer == read, "{answer}");
    let number = |of: &str, v2: &str, v1: &str| -> Result<u64, String> {
        let text = knob(&supervisor, of, 0, v2, ("memory", v1))?;
        text.parse().map_err(|_| format!("{v2}: {text:?} is no number"))
    };
    let taken = number(&receipt.worker, "memory.current", "memory.usage_in_bytes")?;
    ensure!(taken <= LIMIT, "{taken} bytes in a worker of {LIMIT}");
    // A file system in memory has no pages to give for holes.
    match taken > 16 * MIB {
        true => println!("{taken} bytes are the reader's"),
        false => println!("holes take no pages of the cache here; only that the reader lives is shown"),
    }
    let (_, receipt) = client.probe("s1", "echo on")?;
    ensure!(receipt.calls == 2, "the reader got another worker");
    is_settled(&mut client)?;
    supervisor.stop()
}

/// I3.
fn freed() -> Outcome {
    let supervisor = Supervisor::simple("tmp_size = \"16MiB\"\nanswer_max = \"16MiB\"")?;
    let mut client = Client::new(&supervisor)?;
    let canary = format!("canary-of-{}", supervisor.place.instance);
    let everywhere = "private shared memfd file";
    let own = outside(&["hostile", "glean", &canary, "1", "own"])?;
    ensure!(own == everywhere, "outside what was put there is found in {own:?}");
    let (own, _) = client.probe("own", &format!("hostile glean {canary} 1 own"))?;
    ensure!(own == everywhere, "inside what was put there is found in {own:?}");
    for at in 0..3 {
        client.probe(&format!("s{at}"), &format!("hostile leave {canary} 4"))?;
    }
    supervisor.admin(&["evict", "--tenant", "acme"])?;
    no_workers(&supervisor)?;
    for at in 3..5 {
        let (found, _) = client.probe(&format!("s{at}"), &format!("hostile glean {canary} 4"))?;
        ensure!(found.is_empty(), "memory of a worker that has ended is found in {found}");
    }
    supervisor.stop()
}
